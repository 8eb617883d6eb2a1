---Queue: items go from tasks that put to tasks that get, first in, first out, with a bound between.
---
---An item that was promised to a getter stays in the queue until that one runs, and a place that was
---promised to a putter stays free: a task that is cancelled has taken nothing and put nothing. Until they
---have run, others who can wait line up behind them; try_get and try_put use what is left over.
---@module "gaterpc.queue"

local errors = require "gaterpc.error"
local options = require "gaterpc.options"
local task = require "gaterpc.task"
local waiters = require "gaterpc.waiters"

local M = {}

---@class gaterpc.QueueOptions
---@field maxsize? integer  items that it holds; default 0: no bound

---@class gaterpc.Queue
---@field private slots any[]              first .. last
---@field private maxsize number
---@field private count integer
---@field private getters gaterpc.Line
---@field private putters gaterpc.Line
---@field private promised_items integer   getters that were served and have not run
---@field private promised_places integer  the same for putters
---@field private closed boolean
local methods = {}
local mt = { __name = "gaterpc.Queue", __index = methods }

local function places(self)
  return self.maxsize - self.count - self.promised_places
end

-- Promises what there is to those who wait, in their order.
local function settle(self)
  while self.getters.first and self.count > self.promised_items do
    self.promised_items = self.promised_items + 1
    self.getters:serve()
  end
  while self.putters.first and places(self) > 0 do
    self.promised_places = self.promised_places + 1
    self.putters:serve()
  end
  if self.closed and self.count == 0 then self.getters:close() end
end

local function item_comes_back(self)
  self.promised_items = self.promised_items - 1
  settle(self)
end

local function place_comes_back(self)
  self.promised_places = self.promised_places - 1
  settle(self)
end

local function add(self, item)
  self.last, self.count = self.last + 1, self.count + 1
  self.slots[self.last] = item
  settle(self)
  return true
end

local function take(self)
  local first, slots = self.first, self.slots
  local item = slots[first]
  slots[first] = nil
  self.first, self.count = first + 1, self.count - 1
  if self.count == 0 then self.first, self.last = 1, 0 end -- low indices are quicker
  settle(self)
  return item
end

---@param given? gaterpc.QueueOptions
---@return gaterpc.Queue
function M.new(given)
  given = options.check("Queue", given, { maxsize = "integer" })
  local self = setmetatable({
    slots = {}, first = 1, last = 0, count = 0, promised_items = 0, promised_places = 0, closed = false,
    maxsize = waiters.maxsize("Queue", given.maxsize, 2),
  }, mt)
  self.getters = waiters.line(self, item_comes_back)
  self.putters = waiters.line(self, place_comes_back)
  return self
end

local function check_item(item)
  if item == nil then error("a queue takes any value but nil", 3) end
end

---Adds an item at the end; waits while the queue is full.
---@async
---@param item any          not nil
---@param timeout? number   seconds; 0: does not wait
---@return true? put
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when the queue is closed
function methods:put(item, timeout)
  check_item(item)
  timeout = waiters.seconds(timeout, 2)
  if self.closed then return waiters.closed "queue" end
  local behind = self.promised_places > 0 and timeout ~= 0 -- those who were woken put first
  if places(self) > 0 and not behind then return add(self, item) end
  if timeout == 0 then return waiters.late("no place was free", 0) end
  local waiter = self.putters:enter(task.check_wait(2), timeout)
  settle(self)
  local place = waiters.wait(waiter)
  if place == nil then return waiters.late("no place was free", timeout) end
  if place then self.promised_places = self.promised_places - 1 end
  if self.closed then return waiters.closed "queue" end
  return add(self, item)
end

---Adds an item at the end without waiting.
---@param item any  not nil
---@return true? put
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED when it is full, UNAVAILABLE when it is closed
function methods:try_put(item)
  check_item(item)
  if self.closed then return waiters.closed "queue" end
  if places(self) > 0 then return add(self, item) end
  return nil, errors.new("RESOURCE_EXHAUSTED", ("the queue is full: %d items"):format(self.maxsize))
end

-- Takes the first item or waits for one; the caller's caller is told when it cannot wait.
local function get(self, timeout)
  local behind = self.promised_items > 0 and timeout ~= 0 -- those who were woken take first
  if self.count > self.promised_items and not behind then return take(self) end
  if self.closed and self.count == 0 then return waiters.closed "queue" end
  if timeout == 0 then return waiters.late("no item came", 0) end
  local waiter = self.getters:enter(task.check_wait(3), timeout)
  settle(self)
  local promised = waiters.wait(waiter)
  if promised == nil then return waiters.late("no item came", timeout) end
  if not promised then return waiters.closed "queue" end
  self.promised_items = self.promised_items - 1
  return take(self)
end

---Takes the first item; waits while there is none.
---@async
---@param timeout? number  seconds; 0: does not wait
---@return any item        nil when there is none
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when the queue is closed and empty
function methods:get(timeout)
  local item, err = get(self, waiters.seconds(timeout, 2))
  if err then return nil, err end
  return item
end

---Takes the first item without waiting.
---@return any item  nil when there is none
---@return gaterpc.Error? err  NOT_FOUND when it is empty, UNAVAILABLE when it is closed too
function methods:try_get()
  if self.count > self.promised_items then return take(self) end
  if self.closed and self.count == 0 then return waiters.closed "queue" end
  return nil, errors.new("NOT_FOUND", "the queue is empty")
end

---All items as they come, until the queue is closed and empty: for item in queue:items() do
---@async
---@return fun(): any
function methods:items()
  return function()
    return (get(self)) -- no tail call, as its errors count frames
  end
end

---True when try_put would find no place.
function methods:full()
  return places(self) <= 0
end

---True when try_get would find no item.
function methods:empty()
  return self.count <= self.promised_items
end

---Nothing can be put any more. What is there can still be got, then getters end.
function methods:close()
  if self.closed then return end
  self.closed = true
  self.putters:close()
  settle(self)
end

mt.__close = methods.close

---Items that are in the queue, those included that a getter was woken for.
function mt:__len()
  return self.count
end

function mt:__tostring()
  local bound = self.maxsize < math.huge and (" of %d"):format(self.maxsize) or ""
  return ("queue of %d%s items%s"):format(self.count, bound, self.closed and " (closed)" or "")
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
