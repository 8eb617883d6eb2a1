---log: lines for the host's log, which a thread of its own writes to a console and to files; nothing here
---waits. It works in every Lua state of the process. See docs/logging.md.
---
---  log.info("listening")
---  log.warning("only %d left", n)                       a format, as string.format's
---  log.info("signed in", { user = name })               fields: a table behind the text
---  log.info("%s is in", name, { port = 7777 })          ... or behind the format's arguments
---
---  local log = gaterpc.log.logger "shop.orders"         the same functions, with a name of its own
---@module "gaterpc.log"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local options = require "gaterpc.options"

---@alias gaterpc.Level "debug"|"info"|"warning"|"error"

local LEVELS = { debug = 10, info = 20, warning = 30, error = 40 }
local SETTABLE = { debug = 10, info = 20, warning = 30, error = 40, off = 100, inherit = -1 }

-- Raises at whoever called the function that called this one, or without a place when `level_of_error` is 0.
local function number_of(level, known, level_of_error)
  local number = known[level]
  if number then return number end
  error(("a level is debug, info, warning%s, got %s"):format(
    known == LEVELS and " or error" or ", error, off or inherit", tostring(level)), level_of_error or 3)
end

local function name_of(number)
  for name, each in pairs(SETTABLE) do
    if each == number then return name end
  end
  return number
end

local function check_name(name, level_of_error)
  local text = type(name) == "string" and name or ""
  if #text <= 100 and text:find "^[%w_%-%.]+$" and not ("." .. text .. "."):find("..", 1, true) then return end
  error(("a logger's name is words with dots between them, at most 100 bytes, got %s"):format(
    type(name) == "string" and ("%q"):format(name) or type(name)), level_of_error or 3)
end

-------------------------------------------------------------------------------------------------
-- Loggers
-------------------------------------------------------------------------------------------------

---The functions of a logger may be called with a dot or a colon. A field named password, passwd, secret,
---token, credentials, secret_key or zap_credentials is written as "***".
---@class gaterpc.Logger
---@field name string
---@field debug fun(text: any, ...: any)
---@field info fun(text: any, ...: any)
---@field warning fun(text: any, ...: any)
---@field error fun(text: any, ...: any)
local methods = {}
local mt = { __name = "gaterpc.Logger", __index = methods }

local loggers = {}

---The logger's level: what was set for its name, else for the next name above it ("shop" for "shop.orders"),
---else for the root. With an argument it is changed; "inherit" takes it back.
---@param level? gaterpc.Level|"off"|"inherit"
---@return gaterpc.Level|"off"
function methods:level(level)
  local number = level ~= nil and number_of(level, SETTABLE) or nil
  local now, _, text = core.logger_level(self.name, number)
  if not now then error(text, 2) end
  return name_of(now)
end

---Whether lines of that level are written anywhere: to be asked before something expensive.
---@param level gaterpc.Level
---@return boolean
function methods:wants(level)
  return core.log_wants(self.name, number_of(level, LEVELS))
end

---The log itself is the logger "lua".
---@class gaterpc.Log: gaterpc.Logger
local M = core.logger({ name = "lua" }, "lua", LEVELS)

---The logger of that name; there is one in each Lua state.
---@param name string  words with dots between them: "shop.orders"
---@return gaterpc.Logger
function M.logger(name)
  check_name(name)
  if not loggers[name] then loggers[name] = setmetatable(core.logger({ name = name }, name, LEVELS), mt) end
  return loggers[name]
end

---The root's level, which loggers have that nobody gave another one: what is below it is not logged. Default
---"info".
---@param level? gaterpc.Level|"off"
---@return gaterpc.Level|"off"
function M.level(level)
  if level ~= nil then core.log_level(number_of(level, SETTABLE)) end
  return name_of(core.log_level())
end

---Whether lines of that level of the log itself, the logger "lua", are written anywhere.
---@param level gaterpc.Level
---@return boolean
function M.wants(level)
  return core.log_wants("lua", number_of(level, LEVELS))
end

-------------------------------------------------------------------------------------------------
-- Outputs
-------------------------------------------------------------------------------------------------

---@class gaterpc.LogSetup
---@field level? gaterpc.Level|"off"                     the root's
---@field levels? table<string, gaterpc.Level|"off"|"inherit">  of loggers by name
---@field console? boolean|gaterpc.LogConsole            standard error; false: none
---@field files? gaterpc.LogFile[]                       at most 16; they take the place of all files before
---@field queue? integer                                 lines that may wait for the writer, default 8192
---@field queue_bytes? integer                           of them, default 2 MiB, at most 8 MiB

---@class gaterpc.LogConsole
---@field level? gaterpc.Level      what is below it is not written here
---@field format? "text"|"json"     default "text"
---@field colour? boolean           default: on a terminal, unless NO_COLOR is set

---@class gaterpc.LogFile
---@field path string
---@field level? gaterpc.Level
---@field format? "text"|"json"
---@field rotate? "midnight"        a new file with the first line of a day, local time
---@field rotate_bytes? integer     a new file before this one gets longer
---@field keep? integer             old files, from path.1, the youngest, to path.keep; default 7

local SETUP = { level = "string", levels = "table", console = "boolean|table", files = "table", queue = "integer",
  queue_bytes = "integer" }
local CONSOLE = { level = "string", format = "string", colour = "boolean" }
local FILE = { path = "string", level = "string", format = "string", rotate = "string", rotate_bytes = "integer",
  keep = "integer" }

-- What is wrong in here is raised without a place; setup() knows whose fault it is.

local function fail(format, ...)
  error(format:format(...), 0)
end

local function check_range(who, name, value, low, high)
  if value and (value < low or value > high) then
    fail("%s: option '%s' must be from %d to %d, got %d", who, name, low, high, value)
  end
end

local function check_word(who, name, value, known)
  if value ~= nil and not known[value] then
    local words = {}
    for word in pairs(known) do words[#words + 1] = "'" .. word .. "'" end
    table.sort(words)
    fail("%s: option '%s' must be %s, got '%s'", who, name, table.concat(words, " or "), value)
  end
end

-- What C wants of an output.
local function output_of(who, given, known)
  options.check(who, given, known, 0)
  check_word(who, "format", given.format, { text = true, json = true })
  check_word(who, "rotate", given.rotate, { midnight = true })
  check_range(who, "rotate_bytes", given.rotate_bytes, 1024, 4294967295)
  check_range(who, "keep", given.keep, 1, 1000)
  return {
    path = given.path, level = given.level and number_of(given.level, LEVELS, 0), json = given.format == "json",
    midnight = given.rotate == "midnight", rotate_bytes = given.rotate_bytes, keep = given.keep,
    colour = given.colour,
  }
end

local function console_of(given)
  if type(given) == "table" then return output_of("log.setup: console", given, CONSOLE) end
  return given and {}
end

local function files_of(given)
  if not given then return end
  local files, seen, count = {}, {}, 0
  for _ in pairs(given) do count = count + 1 end
  if count ~= #given then fail "log.setup: 'files' is a list of tables, each with its path" end
  if #given > 16 then fail("log.setup: there can be 16 files, got %d", #given) end
  for i, file in ipairs(given) do
    local who = ("log.setup: files[%d]"):format(i)
    files[i] = output_of(who, file, FILE)
    if (file.path or "") == "" then fail("%s: option 'path' is missing", who) end
    if file.path:find("\0", 1, true) then fail("%s: a path cannot have a zero byte", who) end
    if seen[file.path] then fail("%s: '%s' is there twice", who, file.path) end
    seen[file.path] = true
  end
  return files
end

local function levels_of(given)
  local numbers = {}
  for name, level in pairs(given or {}) do
    check_name(name, 0)
    numbers[name] = number_of(level, SETTABLE, 0)
  end
  return numbers
end

local function plan_of(setup)
  setup = options.check("log.setup", setup, SETUP, 0)
  check_range("log.setup", "queue", setup.queue, 16, 1048576)
  check_range("log.setup", "queue_bytes", setup.queue_bytes, 65536, 8 << 20)
  return {
    level = setup.level and number_of(setup.level, SETTABLE, 0), levels = levels_of(setup.levels),
    outputs = { console = console_of(setup.console), files = files_of(setup.files), queue = setup.queue,
      queue_bytes = setup.queue_bytes },
  }
end

---What is wrong with a table for setup(), or nil.
---@package
---@param setup table
---@return string?
function M.problem(setup)
  local valid, problem = pcall(plan_of, setup)
  return not valid and problem or nil
end

---Changes levels and outputs, once or at any time; what is not given stays as it is. Lines that were logged
---before still go to the old outputs. When a file cannot be opened nothing has changed.
---@param setup gaterpc.LogSetup
---@return boolean? ok
---@return gaterpc.Error? err  INTERNAL: a file cannot be opened, and why; RESOURCE_EXHAUSTED: too many loggers
function M.setup(setup)
  local valid, plan = pcall(plan_of, setup)
  if not valid then error(plan, 2) end
  if next(plan.outputs) ~= nil then
    local ok, code, text = core.log_setup(plan.outputs)
    if not ok then return nil, errors.new(code, text) end
  end
  if plan.level then core.log_level(plan.level) end
  for name, number in pairs(plan.levels) do
    local now, code, text = core.logger_level(name, number)
    if not now then return nil, errors.new(code, text) end
  end
  return true
end

---Opens all files anew by their names, as SIGHUP does: after they have been moved away.
function M.reopen()
  core.log_reopen()
end

---Waits until everything logged so far is written, a second at most; not for outputs that cannot be written.
---@return boolean done
function M.flush()
  return core.flush_log()
end

---Counters since the start: { lines, dropped, waiting, waiting_bytes, outputs }; an output: { path, lines, lost,
---error }, without path for the console.
---@return table
function M.stats()
  return core.log_stats()
end

return M
