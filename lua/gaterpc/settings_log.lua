---What the settings of the log do: its level, a file, and everything that gaterpc.log.setup knows. A script may
---change all of it later by gaterpc.log.setup itself.
---@module "gaterpc.settings_log"

local core = require "gaterpc.core"
local log = require "gaterpc.log"
local uv = require "luv"

local M = {}

-- Of a folder: the file in it that has the name of the script.
local function file_of(path)
  local stat = uv.fs_stat(path)
  if path:sub(-1) ~= "/" and not (stat and stat.type == "directory") then return path end
  local script = (arg and arg[0] or ""):match "([^/]+)$" or ""
  local name = script:gsub("%.lua$", "")
  return ("%s/%s.log"):format(path:gsub("/+$", ""), (name == "" or name == "-") and "gaterpc-host" or name)
end

local function open_problem(path)
  local flags = uv.constants
  local fd, why = uv.fs_open(path, flags.O_WRONLY | flags.O_APPEND | flags.O_CREAT | flags.O_NONBLOCK, 416) -- 0640
  if not fd then return ("names a file that cannot be opened: %s"):format((why:gsub("^%u+: ", ""))) end
  uv.fs_close(fd)
end

---@param path string  of LOG_PATH
---@return string? problem
function M.path_problem(path)
  if path == "" or path:find "%c" then return "must be the path of a file or a folder" end
  return open_problem(file_of(path))
end

---@param setup table  LOGGING
---@return string? problem
function M.problem(setup)
  local wrong = log.problem(setup)
  if wrong then return "is not what gaterpc.log.setup takes: " .. wrong end
  for _, file in ipairs(setup.files or {}) do
    wrong = open_problem(file.path)
    if wrong then return wrong end
  end
end

local function change(setup)
  local ok, err = log.setup(setup)
  if not ok then core.log(40, "gaterpc.settings", "the settings of the log have no effect: " .. tostring(err)) end
end

---@param values table<string, any>  of all settings
function M.level(_, values)
  local own = (values.LOGGING or {}).level
  change { level = own or values.LOG_LEVEL or (values.DEBUG and "debug" or "info") }
end

---@param values table<string, any>
function M.outputs(_, values)
  local own, format = values.LOGGING or {}, values.LOG_FORMAT
  local console, files = own.console, own.files
  if console == nil then console = { format = format } end
  if not files then files = values.LOG_PATH and { { path = file_of(values.LOG_PATH), format = format } } or {} end
  change { console = console, files = files, queue = own.queue, queue_bytes = own.queue_bytes, levels = own.levels }
end

---@param values table<string, any>
function M.everything(_, values)
  M.level(nil, values)
  M.outputs(nil, values)
end

return M
