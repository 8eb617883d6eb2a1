---sync_manager: queues, dicts, lists and values that executors share with the host.
---
---  local manager = gaterpc.SyncManager()
---  local queue = manager.Queue(100)
---  pool:submit(function() queue:put "from an executor" end)
---  print(queue:get())
---
---Objects live in the host's Lua state, so every operation is one step and nobody can hold a lock, let alone
---die with it. An object lives as long as somebody in the host holds it: the script, or a job by its function or
---its arguments.
---@module "gaterpc.sync_manager"

local core = require "gaterpc.core"
local crew = require "gaterpc.crew"
local errors = require "gaterpc.error"
local msgpack = require "gaterpc.msgpack"
local options = require "gaterpc.options"
local proxy = require "gaterpc.sync_proxy"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"

local M = {}

local MAX = 1 << 20 -- values of one object

-------------------------------------------------------------------------------------------------
-- Who waits
-------------------------------------------------------------------------------------------------

-- A line of coroutines: entries linked by `before` and `behind`, in the order in which they came.

local function leave(line, entry)
  if entry.before then entry.before.behind = entry.behind else line.first = entry.behind end
  if entry.behind then entry.behind.before = entry.before else line.last = entry.before end
  entry.before, entry.behind = nil, nil
end

local function wake_one(line)
  local entry = line.first
  if not entry then return end
  leave(line, entry)
  entry.woken = true
  if entry.timer then timers.drop(entry.timer) end
  task.wake(entry.job, true)
end

local function wake_all(line)
  while line.first do wake_one(line) end
end

-- The coroutine was closed while it waited. When it was woken already, somebody else has its turn.
local function give_way(line, entry)
  if entry.woken then return wake_one(line) end
  leave(line, entry)
  if entry.timer then timers.drop(entry.timer) end
end

-- Waits until somebody wakes the line, and then returns true; false when the time is over.
local function wait(line, deadline)
  if deadline and deadline <= core.now() then return false end
  local job = task.check_wait(4)
  local entry = { job = job, before = line.last }
  if line.last then line.last.behind = entry else line.first = entry end
  line.last = entry
  entry.timer = deadline and timers.after(deadline - core.now(), function()
    leave(line, entry)
    entry.woken = true
    task.wake(job, false)
  end)
  return task.wait(give_way, line, entry)
end

local function deadline_of(timeout)
  return timeout and core.now() + timeout
end

local LATE = "it did not come to that in time"

-------------------------------------------------------------------------------------------------
-- Objects: operations on packed values, returning true, ... or nil, code, text
-------------------------------------------------------------------------------------------------

local classes = {}

local function closed_error(self)
  return nil, "UNAVAILABLE", ("the %s was closed"):format(self.kind)
end

local function full_error()
  return nil, "RESOURCE_EXHAUSTED", ("it has %d values already"):format(MAX)
end

-- Adds to a packed number. Nil and a text when it is none.
local function add(bytes, n)
  local number = bytes == nil and 0 or msgpack.unpack(bytes)
  if type(number) ~= "number" then return nil, "INVALID_ARGUMENT", "add needs a number, not a " .. type(number) end
  local sum = number + n
  return sum, msgpack.pack(sum)
end

-- Queue: items[first..last].
local queue = {}
classes.Queue = queue

function queue.new(max)
  return { items = {}, first = 1, last = 0, max = max or MAX, getters = {}, putters = {} }
end

function queue:put(bytes, timeout)
  local deadline = deadline_of(timeout)
  while not self.closed and self.last - self.first + 1 >= self.max do
    if not wait(self.putters, deadline) then return nil, "DEADLINE_EXCEEDED", "the queue is full" end
  end
  if self.closed then return closed_error(self) end
  self.last = self.last + 1
  self.items[self.last] = bytes
  wake_one(self.getters)
  return true
end

function queue:get(timeout)
  local deadline = deadline_of(timeout)
  while self.first > self.last do
    if self.closed then return closed_error(self) end
    if not wait(self.getters, deadline) then return nil, "DEADLINE_EXCEEDED", "the queue is empty" end
  end
  local bytes = self.items[self.first]
  self.items[self.first] = nil
  self.first = self.first + 1
  wake_one(self.putters)
  return true, bytes
end

function queue:size()
  return true, self.last - self.first + 1
end

function queue:close()
  self.closed = true
  wake_all(self.getters)
  wake_all(self.putters)
  return true
end

-- Dict: values by key, packed as a map whatever the keys; lines of waiting coroutines by key.
local dict = {}
classes.Dict = dict

function dict.new()
  return { values = msgpack.map {}, count = 0, lines = {} }
end

function dict:get(key)
  return true, self.values[key]
end

function dict:set(key, bytes)
  if self.values[key] == nil then
    if self.count >= MAX then return full_error() end
    self.count = self.count + 1
  end
  self.values[key] = bytes
  local line = self.lines[key]
  if line then
    self.lines[key] = nil
    wake_all(line)
  end
  return true
end

function dict:pop(key)
  local bytes = self.values[key]
  if bytes ~= nil then self.count = self.count - 1 end
  self.values[key] = nil
  return true, bytes
end

local function set_and_return(self, key, bytes, result)
  local ok, code, text = self:set(key, bytes)
  if not ok then return nil, code, text end
  return true, result
end

function dict:add(key, n)
  local sum, bytes, text = add(self.values[key], n)
  if not sum then return nil, bytes, text end
  return set_and_return(self, key, bytes, sum)
end

function dict:set_default(key, bytes)
  local before = self.values[key]
  if before ~= nil then return true, before end
  return set_and_return(self, key, bytes, bytes)
end

function dict:replace(key, old, new)
  if self.values[key] ~= old then return true, false end
  return set_and_return(self, key, new, true)
end

function dict:wait(key, timeout)
  local deadline = deadline_of(timeout)
  while self.values[key] == nil do
    if self.closed then return closed_error(self) end
    local line = self.lines[key] or {}
    self.lines[key] = line
    local came = wait(line, deadline)
    if not line.first and self.lines[key] == line then self.lines[key] = nil end
    if not came then return nil, "DEADLINE_EXCEEDED", LATE end
  end
  return true, self.values[key]
end

function dict:update(values)
  local new = 0
  for key in next, values do
    if self.values[key] == nil then new = new + 1 end
  end
  if self.count + new > MAX then return full_error() end
  for key, bytes in next, values do self:set(key, bytes) end
  return true
end

function dict:items()
  return true, self.values
end

function dict:size()
  return true, self.count
end

function dict:clear()
  self.values, self.count = msgpack.map {}, 0
  return true
end

function dict:close()
  self.closed = true
  self:clear()
  for _, line in pairs(self.lines) do wake_all(line) end
  return true
end

-- List: items[1..n].
local list = {}
classes.List = list

function list.new()
  return { values = {} }
end

-- The place of i among n values, or nil.
local function place(i, n)
  if i < 0 then i = n + 1 + i end
  return i >= 1 and i <= n and i or nil
end

function list:get(i)
  i = place(i, #self.values)
  return true, i and self.values[i]
end

local function no_such(i)
  return nil, "INVALID_ARGUMENT", ("there is no value at %d"):format(i)
end

function list:set(i, bytes)
  local at = place(i, #self.values)
  if not at then return no_such(i) end
  self.values[at] = bytes
  return true
end

function list:insert(i, bytes)
  local n = #self.values
  if n >= MAX then return full_error() end
  local at = i == nil and n + 1 or place(i, n + 1)
  if not at then return no_such(i) end
  table.insert(self.values, at, bytes)
  return true
end

function list:extend(all)
  local n = #self.values
  if n + #all > MAX then return full_error() end
  table.move(all, 1, #all, n + 1, self.values)
  return true
end

function list:pop(i)
  i = place(i, #self.values)
  if not i then return true, nil end
  return true, table.remove(self.values, i)
end

function list:items()
  return true, self.values
end

function list:size()
  return true, #self.values
end

function list:clear()
  self.values = {}
  return true
end

function list:close()
  self.closed, self.values = true, {}
  return true
end

-- Value.
local value = {}
classes.Value = value

function value.new(initial)
  local bytes, code, text = msgpack.pack(initial)
  if not bytes then error(errors.new(code, text), 0) end
  return { bytes = bytes, line = {} }
end

function value:get()
  return true, self.bytes
end

function value:set(bytes)
  self.bytes = bytes
  wake_all(self.line)
  return true
end

function value:add(n)
  local sum, bytes, text = add(self.bytes, n)
  if not sum then return nil, bytes, text end
  self:set(bytes)
  return true, sum
end

function value:replace(old, new)
  if self.bytes ~= old then return true, false end
  self:set(new)
  return true, true
end

function value:wait(old, timeout)
  local deadline = deadline_of(timeout)
  while self.bytes == old do
    if self.closed then return closed_error(self) end
    if not wait(self.line, deadline) then return nil, "DEADLINE_EXCEEDED", LATE end
  end
  return true, self.bytes
end

function value:close()
  self.closed = true
  wake_all(self.line)
  return true
end

-------------------------------------------------------------------------------------------------
-- From proxies to objects
-------------------------------------------------------------------------------------------------

local objects = setmetatable({}, { __mode = "v" }) -- by id; proxies hold them

local function invoke(object, operation, ...)
  if not object then
    return nil, "NOT_FOUND", "it is gone, because nobody in the host has held it, or it is another program's"
  end
  local class = classes[object.kind]
  local fn = operation ~= "new" and class[operation]
  if not fn then return nil, "INVALID_ARGUMENT", ("a %s has no operation '%s'"):format(object.kind, operation) end
  if object.closed and object.kind ~= "Queue" and operation ~= "close" then return closed_error(object) end
  return fn(object, ...)
end

-- With the first manager: programs without one pack and unpack without ext types.
local function let_proxies_travel()
  proxy.setup(function(self, operation, ...)
    return invoke(self[1] or objects[self.data], operation, ...)
  end, objects)
  let_proxies_travel = function() end
end

crew.on_question("shared", function(_, id, operation, ...)
  return invoke(objects[id], operation, ...)
end)

-------------------------------------------------------------------------------------------------
-- Managers
-------------------------------------------------------------------------------------------------

---@class gaterpc.SyncManager
---@field Queue fun(maxsize?: integer): gaterpc.SharedQueue  default: 2^20 values
---@field Dict fun(values?: table): gaterpc.SharedDict
---@field List fun(values?: any[]): gaterpc.SharedList
---@field Value fun(initial?: any): gaterpc.SharedValue
local manager = {}
local mt = { __name = "gaterpc.SyncManager", __index = manager }

local function new_id()
  return require("luv").random(16)
end

local function check_maxsize(maxsize)
  if maxsize ~= nil and (math.type(maxsize) ~= "integer" or maxsize < 1 or maxsize > MAX) then
    error(("a queue has room for 1 to %d values, got %s"):format(MAX, tostring(maxsize)), 3)
  end
end

local function check_table(values, kind)
  if values ~= nil and type(values) ~= "table" then
    error(("a %s begins with a table of values, got %s"):format(kind, type(values)), 3)
  end
end

local function make(self, kind, initial)
  if self.closed then error("the manager is closed", 2) end
  if kind == "Queue" then check_maxsize(initial) end
  if kind == "Dict" or kind == "List" then check_table(initial, kind) end
  local object = setmetatable(classes[kind].new(initial), { __index = classes[kind] })
  object.kind = kind
  local id = new_id()
  objects[id], self.objects[object] = object, true
  local made = proxy.new(kind, id, object)
  if kind == "Dict" and initial then made:update(initial) end
  if kind == "List" and initial then made:extend(initial) end
  return made
end

---Closes all objects that it has made.
function manager:close()
  self.closed = true
  for object in pairs(self.objects) do object:close() end
end

mt.__close = manager.close

---Makes a manager.
---@return gaterpc.SyncManager
function M.new(given)
  options.check("SyncManager", given, {})
  let_proxies_travel()
  local self = setmetatable({ objects = setmetatable({}, { __mode = "k" }) }, mt)
  for kind in pairs(classes) do
    -- manager.Queue(10) and manager:Queue(10) are the same.
    self[kind] = function(first, ...)
      if rawequal(first, self) then return make(self, kind, (...)) end
      return make(self, kind, first)
    end
  end
  return self
end

-- gaterpc.SyncManager.Queue() and its like: of a manager that is there as long as the program.
local default

return setmetatable(M, {
  __call = function(_, given) return M.new(given) end,
  __index = function(_, kind)
    if not classes[kind] then error(options.unknown("name", kind, classes), 2) end
    default = default or M.new()
    return default[kind]
  end,
})
