---BoundedDict: a dictionary with a bound. Tasks wait for a free place, and for keys to appear.
---
---Who waits for a key is served in order: aget gets the value that is set, apop takes it, so that those
---behind wait for the next. A value that an apop was woken with is out of the dictionary but keeps its
---place until the task runs; if that is cancelled before, the value comes back. An aset that waits
---sets its value when it runs, and the place that it was promised stays free for it.
---@module "gaterpc.bounded_dict"

local errors = require "gaterpc.error"
local options = require "gaterpc.options"
local task = require "gaterpc.task"
local waiters = require "gaterpc.waiters"

local M = {}

local MAXSIZE = 1000

---@class gaterpc.BoundedDictOptions
---@field maxsize? integer  entries that it holds; default 1000; 0: no bound
---@field timeout? number   seconds that aset, aget and apop wait unless told otherwise; default: no limit

---@class gaterpc.BoundedDict
---@field private maxsize number
---@field private timeout? number
---@field private entries table<any, table>   by key: { key, value, before, behind, gone }
---@field private first? table                the oldest entry
---@field private last? table
---@field private count integer
---@field private lines table<any, gaterpc.Line>  by key: who waits for it, when there is somebody
---@field private setters gaterpc.Line        asets that wait for a place
---@field private promised integer            setters that were served and have not run
---@field private taken integer               values of apops that were served and have not run
---@field private closed boolean
local methods = {}
local mt = { __name = "gaterpc.BoundedDict", __index = methods }

-------------------------------------------------------------------------------------------------
-- Entries
-------------------------------------------------------------------------------------------------

local function insert(self, key, value)
  local entry = { key = key, value = value, before = self.last, gone = false }
  if self.last then self.last.behind = entry else self.first = entry end
  self.last, self.entries[key], self.count = entry, entry, self.count + 1
end

-- The entry still knows who was behind it, for loops that stand at it.
local function remove(self, entry)
  local before, behind = entry.before, entry.behind
  if before then before.behind = behind else self.first = behind end
  if behind then behind.before = before else self.last = before end
  entry.gone, self.entries[entry.key], self.count = true, nil, self.count - 1
end

local function places(self)
  return self.maxsize - self.count - self.promised - self.taken
end

-- Promises free places to those who wait, in their order.
local function settle(self)
  while self.setters.first and places(self) > 0 do
    self.promised = self.promised + 1
    self.setters:serve()
  end
end

-- A value for a key that is not there, and there is a place for it.
local function arrive(self, key, value)
  local line = self.lines[key]
  while line and line.first do
    local waiter = line.first
    local setter = waiter.setter
    if setter then -- to replace a value needs no place
      setter.applied, value = true, setter.value
      waiters.serve(setter, true)
    else
      waiters.serve(waiter, true, value)
      if waiter.takes then
        self.taken, waiter.value = self.taken + 1, value
        return
      end
    end
  end
  insert(self, key, value)
end

-------------------------------------------------------------------------------------------------
-- Waiters
-------------------------------------------------------------------------------------------------

-- A getter that was served will not run.
local function value_comes_back(self, waiter)
  if not waiter.takes then return end
  self.taken = self.taken - 1
  if self.entries[waiter.key] then return settle(self) end -- the newer value stays
  arrive(self, waiter.key, waiter.value)
end

local function left_key(self, waiter, line)
  if not line.first then self.lines[waiter.key] = nil end
end

local function line_of(self, key)
  local line = self.lines[key]
  if not line then
    line = waiters.line(self, value_comes_back, left_key)
    self.lines[key] = line
  end
  return line
end

-- A setter that was served will not run.
local function place_comes_back(self, waiter)
  if waiter.applied then return end
  self.promised = self.promised - 1
  settle(self)
end

-- A setter stands in its key's line too, by proxy: the key may appear before a place is free.
local function enter_setter(self, job, timeout, key, value)
  local setter = self.setters:enter(job, timeout, key, value)
  setter.proxy = line_of(self, key):stand_in(key)
  setter.proxy.setter = setter
  settle(self)
  return setter
end

local function left_setters(_, setter)
  waiters.leave(setter.proxy)
end

-------------------------------------------------------------------------------------------------
-- The public face
-------------------------------------------------------------------------------------------------

---@param given? gaterpc.BoundedDictOptions
---@return gaterpc.BoundedDict
function M.new(given)
  given = options.check("BoundedDict", given, { maxsize = "integer", timeout = "number" })
  local self = setmetatable({
    maxsize = waiters.maxsize("BoundedDict", given.maxsize or MAXSIZE, 2),
    timeout = waiters.seconds(given.timeout, 2),
    entries = {}, count = 0, lines = {}, promised = 0, taken = 0, closed = false,
  }, mt)
  self.setters = waiters.line(self, place_comes_back, left_setters)
  return self
end

local function check_key(key)
  if key == nil or key ~= key then error("a key is any value but nil and NaN", 3) end
end

local function check_value(value)
  if value == nil then error("a value is never nil: pop(key) removes an entry", 3) end
end

local function pick_timeout(self, timeout)
  if timeout == nil then return self.timeout end
  return (waiters.seconds(timeout, 3)) -- no tail call: levels count frames
end

-- Sets without waiting; false when the key is new and may have no place.
local function try_set(self, key, value, may)
  local entry = self.entries[key]
  if entry then
    entry.value = value
  elseif may then
    arrive(self, key, value)
  end
  return entry ~= nil or may
end

---Sets a value without waiting. A key that is there keeps its place in the order.
---@param key any    not nil, not NaN
---@param value any  not nil
---@return true? set
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED when a new key finds it full, UNAVAILABLE when it is closed
function methods:set(key, value)
  check_key(key)
  check_value(value)
  if self.closed then return waiters.closed "dictionary" end
  if try_set(self, key, value, places(self) > 0) then return true end
  return nil, errors.new("RESOURCE_EXHAUSTED", ("the dictionary is full: %d entries"):format(self.maxsize))
end

---Sets a value; with a new key it waits while the dictionary is full.
---@async
---@param key any           not nil, not NaN
---@param value any         not nil
---@param timeout? number   seconds, math.huge: no limit, 0: does not wait; default: the dictionary's
---@return true? set
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when it is closed
function methods:aset(key, value, timeout)
  check_key(key)
  check_value(value)
  timeout = pick_timeout(self, timeout)
  if self.closed then return waiters.closed "dictionary" end
  local behind = self.promised > 0 and timeout ~= 0 -- those who were woken set first
  if try_set(self, key, value, places(self) > 0 and not behind) then return true end
  if timeout == 0 then return waiters.late("no place was free", 0) end
  local setter = enter_setter(self, task.check_wait(2), timeout, key, value)
  local place = waiters.wait(setter)
  if setter.applied then return true end
  if place == nil then return waiters.late("no place was free", timeout) end
  if place then self.promised = self.promised - 1 end
  if self.closed then return waiters.closed "dictionary" end
  try_set(self, key, value, true)
  settle(self) -- the place is left over when the key was there
  return true
end

---The value of a key, or the default.
---@param key any
---@param default? any
---@return any
function methods:get(key, default)
  check_key(key)
  local entry = self.entries[key]
  if entry then return entry.value end
  return default
end

---Takes a key out and gives its value, or the default.
---@param key any
---@param default? any
---@return any
function methods:pop(key, default)
  check_key(key)
  local entry = self.entries[key]
  if not entry then return default end
  remove(self, entry)
  settle(self)
  return entry.value
end

-- Waits until the key appears; the caller's caller is told when it cannot wait. Gives true and the value,
-- or false and what to return.
local function await(self, key, timeout, default, takes)
  if self.closed then return false, waiters.closed "dictionary" end
  local served, value
  if timeout ~= 0 then
    local job = task.check_wait(3)
    local waiter = line_of(self, key):enter(job, timeout, key)
    waiter.takes = takes
    served, value = waiters.wait(waiter)
    if served then return true, value end
    if served == false then return false, waiters.closed "dictionary" end
  end
  if default ~= nil then return false, default end
  return false, waiters.late("the key was not set", timeout)
end

---The value of a key; waits until it appears.
---@async
---@param key any
---@param timeout? number  seconds, math.huge: no limit, 0: does not wait; default: the dictionary's
---@param default? any     what it gives when the time is up
---@return any value
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when it is closed
function methods:aget(key, timeout, default)
  check_key(key)
  timeout = pick_timeout(self, timeout)
  local entry = self.entries[key]
  if entry then return entry.value end
  local _, value, err = await(self, key, timeout, default, false)
  if err then return nil, err end
  return value
end

---Takes a key out and gives its value; waits until it appears.
---@async
---@param key any
---@param timeout? number  seconds, math.huge: no limit, 0: does not wait; default: the dictionary's
---@param default? any     what it gives when the time is up
---@return any value
---@return gaterpc.Error? err  DEADLINE_EXCEEDED, or UNAVAILABLE when it is closed
function methods:apop(key, timeout, default)
  check_key(key)
  timeout = pick_timeout(self, timeout)
  if self.entries[key] then return self:pop(key) end
  local came, value, err = await(self, key, timeout, default, true)
  if came then
    self.taken = self.taken - 1
    settle(self)
  end
  if err then return nil, err end
  return value
end

---True when a new key would not find a place.
function methods:full()
  return places(self) <= 0
end

---@param key any
---@return boolean
function methods:contains(key)
  check_key(key)
  return self.entries[key] ~= nil
end

---Takes all entries out.
function methods:clear()
  local entry = self.first
  while entry do
    entry.gone = true
    entry = entry.behind
  end
  self.entries, self.first, self.last, self.count = {}, nil, nil, 0
  settle(self)
end

---Nothing can be set any more, and all who wait give up. What is there can still be read and taken out.
function methods:close()
  if self.closed then return end
  self.closed = true
  self.setters:close()
  for _, line in pairs(self.lines) do line:close() end
end

mt.__close = methods.close

---Entries, without those whose apop was woken.
function mt:__len()
  return self.count
end

---for key, value in pairs(dict): in the order in which the keys came. The loop may take keys out and replace
---values; a key that comes meanwhile is visited or not.
function mt:__pairs()
  local at = { behind = self.first }
  return function()
    local entry = at and at.behind
    while entry and entry.gone do entry = entry.behind end
    at = entry
    if entry then return entry.key, entry.value end
  end
end

function mt:__tostring()
  local bound = self.maxsize < math.huge and (" of %d"):format(self.maxsize) or ""
  return ("dictionary of %d%s entries%s"):format(self.count, bound, self.closed and " (closed)" or "")
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
