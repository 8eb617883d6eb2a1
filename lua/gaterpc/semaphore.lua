---Semaphore: at most so many tasks at once.
---@module "gaterpc.semaphore"

local errors = require "gaterpc.error"
local task = require "gaterpc.task"
local waiters = require "gaterpc.waiters"

local M = {}

---@class gaterpc.Semaphore
---@field private permits integer
---@field private free integer
---@field private line gaterpc.Line
---@field private closed boolean
local methods = {}
local mt = { __name = "gaterpc.Semaphore", __index = methods }

-- A permit has come back, or its waiter will not run: it goes to the next.
local function pass_on(self)
  if self.line.first then return self.line:serve() end
  self.free = self.free + 1
end

---@param permits integer  1 or more
---@return gaterpc.Semaphore
function M.new(permits)
  if math.type(permits) ~= "integer" or permits < 1 then
    error("Semaphore takes the number of its permits, an integer of 1 or more, got " .. tostring(permits), 2)
  end
  local self = setmetatable({ permits = permits, free = permits, closed = false }, mt)
  self.line = waiters.line(self, pass_on)
  return self
end

-- The caller's caller is told of wrong use.
local function acquire(self, timeout)
  timeout = waiters.seconds(timeout, 3)
  if self.closed then return waiters.closed "semaphore" end
  if self.free > 0 then
    self.free = self.free - 1
    return true
  end
  if timeout == 0 then return waiters.late("no permit was free", 0) end
  local got = waiters.wait(self.line:enter(task.check_wait(3), timeout))
  if got then return true end
  if got == nil then return waiters.late("no permit was free", timeout) end
  return waiters.closed "semaphore"
end

---Takes a permit; waits while there is none. Whoever has got one must release() it; a task that may be
---cancelled uses hold() or with().
---@async
---@param timeout? number  seconds; 0: does not wait
---@return true? acquired
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when the semaphore is closed
function methods:acquire(timeout)
  local got, err = acquire(self, timeout)
  if not got then return nil, err end
  return true
end

---Takes a permit without waiting.
---@return true? acquired
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED, or UNAVAILABLE when the semaphore is closed
function methods:try_acquire()
  if self.closed then return waiters.closed "semaphore" end
  if self.free == 0 then
    return nil, errors.new("RESOURCE_EXHAUSTED", ("%d of %d permits are taken"):format(self.permits, self.permits))
  end
  self.free = self.free - 1
  return true
end

---Gives a permit back, from whatever task. Raises when none is taken.
function methods:release()
  if self.free == self.permits then error("the semaphore was released more often than acquired", 2) end
  pass_on(self)
end

---A permit that goes back by itself when the block ends: local permit <close> = assert(semaphore:hold())
---@class gaterpc.Permit
---@field private semaphore? gaterpc.Semaphore
local permit = {}
local permit_mt = { __name = "gaterpc.Permit", __index = permit }

---Gives the permit back before its block ends; nothing happens the second time.
function permit:release()
  local semaphore = self.semaphore
  self.semaphore = nil
  if semaphore then semaphore:release() end
end

permit_mt.__close = permit.release

---As acquire, but gives the permit as a value to be closed.
---@async
---@param timeout? number  seconds; 0: does not wait
---@return gaterpc.Permit? permit
---@return gaterpc.Error? err  as of acquire
function methods:hold(timeout)
  local got, err = acquire(self, timeout)
  if not got then return nil, err end
  return setmetatable({ semaphore = self }, permit_mt)
end

---Runs fn(...) with a permit, which goes back however fn ends. Raises UNAVAILABLE when the semaphore is
---closed.
---@async
---@param fn function
---@return any ... its results
function methods:with(fn, ...)
  if type(fn) ~= "function" then error("semaphore:with takes a function, got " .. type(fn), 2) end
  local got, err = acquire(self)
  if not got then error(err, 2) end
  local _ <close> = setmetatable({ semaphore = self }, permit_mt)
  return fn(...)
end

---Nobody gets a permit any more, and those who wait give up. Permits that are taken can be released.
function methods:close()
  self.closed = true
  self.line:close()
end

mt.__close = methods.close

function mt:__tostring()
  return ("semaphore with %d of %d permits free%s"):format(self.free, self.permits,
    self.closed and " (closed)" or "")
end

return setmetatable(M, { __call = function(_, permits) return M.new(permits) end })
