---Error objects: what a failed call raises, and what `nil, err` gives.
---@module "gaterpc.error"

local M = {}

---Codes that `err.code` may have; branch on these, never on texts.
---@alias gaterpc.Code
---| "CANCELLED"           # somebody gave the call up
---| "DEADLINE_EXCEEDED"   # no answer in time
---| "NOT_FOUND"           # no such service or method
---| "UNAVAILABLE"         # no broker, no worker, or it is leaving
---| "RESOURCE_EXHAUSTED"  # a queue or another limit is full
---| "PERMISSION_DENIED"
---| "UNAUTHENTICATED"
---| "INVALID_ARGUMENT"    # a value that cannot be sent or is not understood
---| "INTERNAL"            # the method raised something else
---| "WORKER_LOST"         # the worker died with the call
---| "DATA_LOSS"           # an answer is damaged or incomplete

M.codes = {
  CANCELLED = true, DEADLINE_EXCEEDED = true, NOT_FOUND = true, UNAVAILABLE = true,
  RESOURCE_EXHAUSTED = true, PERMISSION_DENIED = true, UNAUTHENTICATED = true,
  INVALID_ARGUMENT = true, INTERNAL = true, WORKER_LOST = true, DATA_LOSS = true,
}

---@class gaterpc.Error
---@field code gaterpc.Code
---@field class string       what kind of error the method raised; the code when nobody said
---@field message string
---@field traceback? string  of the worker, when it sends one
---@field service? string    where it came from, when it came from a call
---@field method? string
---@field status? integer    three digits, from an internal handler of a broker
local mt = { __name = "gaterpc.Error" }

function mt:__tostring()
  local place = self.service and (" [%s.%s]"):format(self.service, self.method) or ""
  return ("%s: %s%s"):format(self.code, self.message, place)
end

---Makes an error object.
---@param code gaterpc.Code
---@param message string
---@param fields? table  other fields
---@return gaterpc.Error
function M.new(code, message, fields)
  local err = { code = code, message = message, class = code }
  for name, value in pairs(fields or {}) do err[name] = value end
  return setmetatable(err, mt)
end

---@param value any
---@return boolean
function M.is(value)
  return getmetatable(value) == mt
end

---Turns whatever was raised into code, class and message: error objects and tables with `code` or
---`message` keep theirs, everything else is INTERNAL with its text.
---@param value any
---@return gaterpc.Code code
---@return string class
---@return string message
function M.describe(value)
  if type(value) ~= "table" then return "INTERNAL", "Error", tostring(value) end
  local code = M.codes[value.code] and value.code or "INTERNAL"
  local class = type(value.class) == "string" and value.class or code
  local message = value.message
  if type(message) ~= "string" then
    local ok, text = pcall(tostring, value)
    message = ok and text or "an error object that cannot be printed"
  end
  return code, class, message
end

---One line for people, of whatever was raised.
---@param value any
---@return string
function M.text(value)
  if type(value) ~= "table" or getmetatable(value) ~= nil then return tostring(value) end
  local code, _, message = M.describe(value)
  return code .. ": " .. message
end

local own_dir = debug.getinfo(1, "S").source:sub(2):match("^(.*/)") or ""

-- Lua shortens long names of files to "..." and their end.
local function is_own_file(line)
  local dir = line:match("^%s*%.%.%.(.-/)[^/]+%.lua:%d+: ")
  return dir and own_dir:sub(-#dir) == dir or line:find(own_dir, 1, true)
end

local function is_ours(line)
  return is_own_file(line) or line:find("^%s*%[C%]: in %?") or line:find("^%s*%?: in ") -- of task.lua
    or line:find("%(%.%.%.tail calls%.%.%.%)")
end

---A traceback without our own frames: the user's are what counts.
---@package
---@param co thread
---@param text string
---@return string
function M.traceback(co, text)
  local lines, tells = {}, false
  for line in debug.traceback(co, text):sub(#text + 2):gmatch("[^\n]+") do
    if not is_ours(line) then
      lines[#lines + 1] = line
      tells = tells or #lines > 1 and not line:find("^%s*%[C%]: in ") -- functions in C alone say nothing
    end
  end
  return tells and text .. "\n" .. table.concat(lines, "\n") or text
end

---The traceback of what was raised in co. That which an error has brought along, from a call or an executor, comes
---first; ours follows when it says more than that the error was raised again.
---@package
---@param co thread
---@param err any
---@param message string  what describe() gives
---@return string
function M.whole_traceback(co, err, message)
  local trace = M.traceback(co, message)
  local brought = type(err) == "table" and err.traceback
  if type(brought) ~= "string" then return trace end
  return trace ~= message and brought .. "\n" .. trace or brought
end

setmetatable(M, { __call = function(_, ...) return M.new(...) end })

return M
