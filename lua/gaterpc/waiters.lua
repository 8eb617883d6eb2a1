---Lines of tasks that wait: what BoundedDict, Queue, Semaphore and Event have in common.
---
---A waiter stands in one line until it is served, its time is up or its task is killed. Whoever serves
---it promises it something (an item, a place); the task takes that when it runs, which is later. When it
---is killed in between, the line's `give_back` gets the promise back, to hand it to the next. So no
---wake-up is lost, and nobody who comes later gets what was promised. Every step takes constant time.
---@module "gaterpc.waiters"

local errors = require "gaterpc.error"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"

local wake, wait = task.wake, task.wait

local M = {}

---One place in a line. Containers may add fields of their own.
---@class gaterpc.Waiter
---@field key any
---@field value any
---@field package job? gaterpc.Job
---@field package line gaterpc.Line
---@field package waits boolean     it stands in the line
---@field package promised boolean  it was served
---@field package timer? table
---@field package before? gaterpc.Waiter
---@field package behind? gaterpc.Waiter

---@class gaterpc.Line
---@field first? gaterpc.Waiter
---@field private last? gaterpc.Waiter
---@field private owner any
---@field private give_back? fun(owner: any, waiter: gaterpc.Waiter)  a waiter that was served will not run
---@field private left? fun(owner: any, waiter: gaterpc.Waiter, line: gaterpc.Line)  one is out of the line
local line = {}
local mt = { __name = "gaterpc.Line", __index = line }

---Makes an empty line; the functions are called with the owner first, and must not wait.
---@param owner any
---@param give_back? fun(owner: any, waiter: gaterpc.Waiter)
---@param left? fun(owner: any, waiter: gaterpc.Waiter, line: gaterpc.Line)
---@return gaterpc.Line
function M.line(owner, give_back, left)
  return setmetatable({ owner = owner, give_back = give_back, left = left }, mt)
end

-- All fields at once, so that the table is made in its size.
local function append(self, job, key, value)
  local last = self.last
  local waiter = {
    job = job, line = self, waits = true, promised = false, timer = nil, before = last, behind = nil,
    key = key, value = value,
  }
  if last then last.behind = waiter else self.first = waiter end
  self.last = waiter
  return waiter
end

---Puts somebody at the end who does not wait there himself; leave() takes him out.
---@param key any
---@return gaterpc.Waiter
function line:stand_in(key)
  return append(self, nil, key)
end

---Takes a waiter out of its line, wherever it stands.
---@param waiter gaterpc.Waiter
function M.leave(waiter)
  local self, before, behind = waiter.line, waiter.before, waiter.behind
  if before then before.behind = behind else self.first = behind end
  if behind then behind.before = before else self.last = before end
  waiter.waits, waiter.before, waiter.behind = false, nil, nil
  if waiter.timer then
    timers.drop(waiter.timer)
    waiter.timer = nil
  end
  if self.left then self.left(self.owner, waiter, self) end
end
local leave = M.leave

local function time_is_up(waiter)
  leave(waiter)
  wake(waiter.job)
end

-- The task was killed or interrupted.
local function abandon(waiter)
  if waiter.waits then return leave(waiter) end
  local self = waiter.line
  if waiter.promised and self.give_back then self.give_back(self.owner, waiter) end
end

---Puts the running task at the end; wait() suspends it. Between the two it may be served already.
---@param job gaterpc.Job    what task.check_wait has given
---@param seconds? number    nil: for ever
---@param key? any           for the container
---@param value? any         likewise
---@return gaterpc.Waiter waiter
function line:enter(job, seconds, key, value)
  local waiter = append(self, job, key, value)
  if seconds then waiter.timer = timers.after(seconds, time_is_up, waiter) end
  return waiter
end

---Suspends the running task until its waiter has left the line.
---@async
---@param waiter gaterpc.Waiter
---@return any ... what it was served; false when the line was closed; nil when its time is up
function M.wait(waiter)
  return wait(abandon, waiter)
end

---Ends one waiter's wait with these values, the first of them true.
---@param waiter gaterpc.Waiter
function M.serve(waiter, ...)
  leave(waiter)
  waiter.promised = true
  wake(waiter.job, ...)
end
local serve = M.serve

---Serves the first in the line; there must be one.
function line:serve()
  serve(self.first, true)
end

---Ends all waits with false.
function line:close()
  while self.first do
    local waiter = self.first
    leave(waiter)
    wake(waiter.job, false)
  end
end

---Checks a time limit. Raises when it is none.
---@param timeout? number  seconds; nil or math.huge: no limit
---@param level integer    as in error()
---@return number? seconds
function M.seconds(timeout, level)
  if timeout == nil or timeout == math.huge then return nil end
  return (task.check_seconds(timeout, level + 1)) -- no tail call: levels count frames
end

---Checks the option maxsize. Raises when it is none.
---@param who string
---@param maxsize? integer  0: no bound
---@param level integer     as in error()
---@return number maxsize   math.huge: no bound
function M.maxsize(who, maxsize, level)
  if maxsize == nil or maxsize == 0 then return math.huge end
  if maxsize < 0 then
    error(("%s: option 'maxsize' must be 1 or more, or 0 for no bound, got %d"):format(who, maxsize), level + 1)
  end
  return maxsize
end

---What a wait gives when its time is up.
---@param what string  "no item came"
---@param seconds number
---@return nil
---@return gaterpc.Error err  DEADLINE_EXCEEDED
function M.late(what, seconds)
  return nil, errors.new("DEADLINE_EXCEEDED", ("%s within %g s"):format(what, seconds))
end

---What everything gives that a closed container cannot do.
---@param what string  "queue"
---@return nil
---@return gaterpc.Error err  UNAVAILABLE
function M.closed(what)
  return nil, errors.new("UNAVAILABLE", ("the %s is closed"):format(what))
end

return M
