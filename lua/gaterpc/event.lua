---Event: tasks wait until something has happened.
---@module "gaterpc.event"

local options = require "gaterpc.options"
local task = require "gaterpc.task"
local waiters = require "gaterpc.waiters"

local M = {}

---@class gaterpc.Event
---@field private happened boolean
---@field private line gaterpc.Line
---@field private closed boolean
local methods = {}
local mt = { __name = "gaterpc.Event", __index = methods }

---@return gaterpc.Event
function M.new(given)
  options.check("Event", given, {})
  return setmetatable({ happened = false, closed = false, line = waiters.line() }, mt)
end

---It has happened: all who wait go on, also when clear() comes before their turn.
function methods:set()
  self.happened = true
  while self.line.first do self.line:serve() end
end

---It has not happened: whoever waits from now on waits for the next set().
function methods:clear()
  self.happened = false
end

---@return boolean
function methods:is_set()
  return self.happened
end

---Waits until it has happened.
---@async
---@param timeout? number  seconds; 0: does not wait
---@return true? happened
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when the event is closed and not set
function methods:wait(timeout)
  timeout = waiters.seconds(timeout, 2)
  if self.happened then return true end
  if self.closed then return waiters.closed "event" end
  if timeout == 0 then return waiters.late("the event was not set", 0) end
  local happened = waiters.wait(self.line:enter(task.check_wait(2), timeout))
  if happened then return true end
  if happened == nil then return waiters.late("the event was not set", timeout) end
  return waiters.closed "event"
end

---It will not happen any more: those who wait give up.
function methods:close()
  self.closed = true
  self.line:close()
end

mt.__close = methods.close

function mt:__tostring()
  return ("event that is %sset%s"):format(self.happened and "" or "not ", self.closed and " (closed)" or "")
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
