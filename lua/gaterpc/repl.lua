---repl: the prompt. Each line runs in a job of its own, so that it may wait while the loop goes on.
---
---Lines come from the terminal (src/host/terminal.h), or from a pipe with `gaterpc-host -i`. A line is
---asked for when the one before has ended, so there is one at a time.
---@module "gaterpc.repl"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local pretty = require "gaterpc.pretty"
local stream = require "gaterpc.stream"
local task = require "gaterpc.task"

local M = {}

---@class gaterpc.Session
---@field ask fun(prompt: string)  a line shall come to on_line()
---@field terminal? any            of core.terminal; nil for a pipe
---@field lines string[]           of a statement that is not complete
---@field err? string              what load() says about them
---@field job? gaterpc.Job         the line that runs
---@field stops integer            how often Ctrl-C was pressed for it
---@field kept integer             globals _1, _2 and so on that are set
---@field finished gaterpc.Promise resolved with true when the user has ended it

---@type gaterpc.Session?
local session

local INTERRUPTED = errors.new("CANCELLED", "interrupted!")

-------------------------------------------------------------------------------------------------
-- Output
-------------------------------------------------------------------------------------------------

-- What is written while a line is typed must not get mixed up with it.
local function watch_output(terminal)
  local files = getmetatable(io.stdout).__index
  local raw_print, raw_write, raw_file_write = print, io.write, files.write

  local function before(file, ...)
    if file ~= io.stdout and file ~= io.stderr then return end
    local last = select("#", ...) > 0 and tostring((select(-1, ...))) or ""
    if last ~= "" then terminal:hide(last:sub(-1) ~= "\n") end
  end
  local function our_print(...)
    terminal:hide(false)
    return raw_print(...)
  end
  local function our_write(...)
    before(io.output(), ...)
    return raw_write(...)
  end
  function files.write(file, ...)
    before(file, ...)
    return raw_file_write(file, ...)
  end
  print, io.write = our_print, our_write -- luacheck: ignore 121 122

  return function()
    files.write = raw_file_write
    if print == our_print then print = raw_print end -- luacheck: ignore 121
    if io.write == our_write then io.write = raw_write end -- luacheck: ignore 122
  end
end

local function show_results(self, results)
  -- With a Lua whose loops close it a stream comes as four values, see stream.lua.
  if stream.is(results[1]) then results.n = 1 end
  if results.n == 0 then return end
  for i = 1, math.max(results.n, self.kept) do rawset(_G, "_" .. i, results[i]) end
  rawset(_G, "_", results[1])
  self.kept = results.n
  local texts, is_long = {}, false
  for i = 1, results.n do
    texts[i] = pretty(results[i])
    is_long = is_long or texts[i]:find("\n", 1, true)
  end
  io.stdout:write(table.concat(texts, is_long and "\n" or "\t"), "\n")
end

-------------------------------------------------------------------------------------------------
-- Errors
-------------------------------------------------------------------------------------------------

-- The functions of the user on the way to an error, without the line itself.
local function frames_of(co)
  local frames = {}
  for frame in errors.traceback(co, ""):gmatch "\n%s+([^\n]+)" do
    if frame:find "^stdin:%d+: in main chunk" then break end
    if not frame:find "^%[C%]" then frames[#frames + 1] = frame end
  end
  return frames
end

-- An error with where it came from.
local failure_mt = {}

local function failure_in(co, err)
  return setmetatable({ err = err, frames = type(err) == "string" and frames_of(co) or nil }, failure_mt)
end

local function failure(err)
  return failure_in(coroutine.running(), err)
end

-- One line for an error of any kind.
local function text_of(err)
  if type(err) == "string" then return pretty.safe(err) end
  if type(err) ~= "table" or errors.is(err) then return pretty.safe(tostring(err), true) end
  local mt = getmetatable(err)
  if type(mt) == "table" and mt.__tostring then
    local ok, text = pcall(tostring, err)
    if ok then return pretty.safe(text, true) end
  end
  return "error object " .. pretty(err)
end

local function is_interrupt(err)
  return rawequal(err, INTERRUPTED) or type(err) == "string" and err:find "interrupted!$" ~= nil
end

local function complain(err, prefix)
  local frames
  if getmetatable(err) == failure_mt then err, frames = err.err, err.frames end
  if is_interrupt(err) then
    -- The terminal has written ^C.
    io.stderr:write(session and session.terminal and "\n" or "", "interrupted!\n")
    return
  end
  local lines = { (prefix or "") .. text_of(err) }
  for _, frame in ipairs(frames or {}) do lines[#lines + 1] = "  " .. pretty.safe(frame, true) end
  if errors.is(err) and type(err.traceback) == "string" then
    local traceback = err.traceback
    local _, message_end = traceback:find(tostring(err.message), 1, true) -- we have said it already
    if message_end then traceback = traceback:sub(message_end + 1) end
    for line in traceback:gmatch "[^\n]+" do lines[#lines + 1] = "  " .. pretty.safe(line, true) end
  end
  io.stdout:flush()
  io.stderr:write(table.concat(lines, "\n"), "\n")
end

local function complain_of_task(co, err)
  complain(failure_in(co, err), "a task has failed: ")
end

-------------------------------------------------------------------------------------------------
-- Lines
-------------------------------------------------------------------------------------------------

local function is_incomplete(err)
  return err:sub(-5) == "<eof>"
end

-- An expression, else a statement. Returns the function; or nil, the error, and whether there
-- may be more to come.
local function compile(text)
  text = text:gsub("^=", "return ")
  local chunk, err = load("return " .. text, "=stdin", "t")
  if chunk then return chunk end
  local may_go_on = is_incomplete(err)
  chunk, err = load(text, "=stdin", "t")
  if chunk then return chunk end
  return nil, err, may_go_on or is_incomplete(err)
end

local function prompt_of(name, default)
  local value = _G[name]
  if value == nil then return default end
  local ok, text = pcall(tostring, value)
  return ok and text or default
end

local function ask(self)
  if self ~= session then return end -- it was closed meanwhile
  io.stdout:flush()
  return self.ask(self.lines[1] and prompt_of("_PROMPT2", ">> ") or prompt_of("_PROMPT", "> "))
end

-- In the line's job, so that a __tostring may wait and can be interrupted, too.
local function execute(self, chunk)
  local results = table.pack(xpcall(chunk, failure))
  if not results[1] then return complain(results[2]) end
  show_results(self, table.pack(table.unpack(results, 2, results.n)))
end

local function run_line(self, chunk)
  self.stops = 0
  self.job = task.job(function(_, ok, err)
    self.job = nil
    if not ok then complain(err) end
    return ask(self)
  end)
  task.wake(self.job, execute, self, chunk)
end

local function finish(self, by_user)
  if self ~= session then return end
  if self.lines[1] then complain(self.err) end
  session = nil
  if self.terminal then self.terminal:close() end
  self.finished:resolve(by_user)
end

local function on_line(self, line)
  if not line then return finish(self, true) end
  if self.terminal and line:find "%S" then self.terminal:remember(line) end
  table.insert(self.lines, line)
  local chunk, err, may_go_on = compile(table.concat(self.lines, "\n"))
  self.err = err
  if not chunk and may_go_on then return ask(self) end
  self.lines = {}
  if chunk then return run_line(self, chunk) end
  complain(err)
  return ask(self)
end

-------------------------------------------------------------------------------------------------
-- Where lines come from
-------------------------------------------------------------------------------------------------

local function history_path()
  local path = os.getenv "GATERPC_HISTORY"
  if path then return path ~= "" and path or nil end
  local folder, home = os.getenv "XDG_STATE_HOME", os.getenv "HOME"
  if not folder or folder:sub(1, 1) ~= "/" then folder = home and home .. "/.local/state" end
  return folder and folder .. "/gaterpc/history"
end

local function read_terminal(self, terminal)
  self.terminal = terminal
  task.on("line", function(line) return on_line(self, line) end)
  function self.ask(prompt) terminal:read(prompt) end
  if core.isatty(1) then io.stdout:write("gaterpc on ", _VERSION, ". Ctrl-D ends.\n") end
end

-- From a pipe or a file, without prompts.
local function read_pipe(self)
  local uv = require "luv"
  local poll = uv.guess_handle(0) ~= "file" and uv.new_poll(0) -- a file never makes us wait
  local text, at, ended = "", 1, false
  local next_line

  local function fill()
    local more = uv.fs_read(0, 65536, -1)
    if more and more ~= "" then text, at = text:sub(at) .. more, 1 else ended = true end
    return next_line()
  end

  function next_line()
    local first, last = text:find("[^\n]*\n", at)
    if first then
      at = last + 1
      return on_line(self, text:sub(first, last - 1))
    end
    if ended then
      if poll then poll = poll:close() end
      local rest = text:sub(at)
      text, at = "", 1
      return on_line(self, rest ~= "" and rest or nil)
    end
    if not poll then return fill() end
    poll:start("r", function()
      poll:stop()
      return fill()
    end)
  end

  self.ask = next_line
end

-------------------------------------------------------------------------------------------------
-- The session
-------------------------------------------------------------------------------------------------

---Reads lines and runs them until the input ends.
---@async
---@return boolean by_user  false when close() has ended it
function M.run()
  local self = { lines = {}, kept = 0, stops = 0, finished = task.promise() }
  local terminal = core.isatty(0) and core.terminal(history_path())
  if rawget(_G, "gaterpc") == nil then rawset(_G, "gaterpc", require "gaterpc") end
  session = self
  if terminal then read_terminal(self, terminal) else read_pipe(self) end
  local restore = terminal and watch_output(terminal)
  task.on_fatal(complain_of_task)
  core.hold(true)
  ask(self)
  local by_user = self.finished:await()
  core.hold(false)
  if restore then restore() end
  return by_user
end

---Runs what comes from a pipe as one script.
---@async
---@param file file*
function M.run_pipe(file)
  local text = file:read "a"
  if text:sub(1, 1) == "#" then text = "--" .. text end -- #!/usr/bin/env gaterpc-host
  local chunk, err = load(text, "=stdin", "t")
  if not chunk then error(err, 0) end
  chunk()
end

---Ctrl-C: ends the line that runs, or drops the one that is typed. What is caught there goes on, so
---the second one for the same line ends it whatever it does.
---@return boolean done  false when there is no prompt to do it for
function M.interrupt()
  local self = session
  if not self or not self.terminal and not self.job then return false end
  if self.job then
    self.stops = self.stops + 1
    if self.stops > 1 or not task.interrupt(self.job, INTERRUPTED) then task.kill(self.job, INTERRUPTED) end
  else
    self.lines = {}
    self.terminal:drop(prompt_of("_PROMPT", "> "))
  end
  return true
end

---Ends the session from outside.
function M.close()
  if session then finish(session, false) end
end

return M
