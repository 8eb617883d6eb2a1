---sync_proxy: what one holds of a Queue, Dict, List or Value of a SyncManager, in the host and in executors.
---
---The object is in the host. What is put in is packed and what comes out is a copy, on both sides. An operation
---that waits suspends the calling coroutine in the host, and blocks the executor in an executor.
---@module "gaterpc.sync_proxy"

local errors = require "gaterpc.error"
local msgpack = require "gaterpc.msgpack"
local portable = require "gaterpc.portable"

local M = {}

-- Types that msgpack keeps for itself, so that nobody else's ext values are mistaken for these.
local TYPES = { Queue = -101, Dict = -102, List = -103, Value = -104 }

-- invoke(id, operation, ...) -> true, ... | nil, code, text: here or over the port.
local invoke

local classes = {}

local function class(name)
  local methods = {}
  local mt = { __name = "gaterpc.Shared" .. name, __index = methods }
  function mt:__tostring()
    return ("%s %s"):format(name, self.data:sub(1, 4):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
  end
  function mt:__newindex(field)
    error(("a %s has no field '%s' to be set; its methods change it"):format(name, tostring(field)), 2)
  end
  function mt:__eq(other)
    return rawequal(getmetatable(self), getmetatable(other)) and self.data == other.data
  end
  classes[name] = mt
  return methods
end

-------------------------------------------------------------------------------------------------
-- Values and errors
-------------------------------------------------------------------------------------------------

local function packed(value)
  local bytes, code, text = msgpack.pack(value)
  return bytes or error(errors.new(code, text), 3)
end

local function unpacked(bytes)
  if bytes == nil then return nil end
  return (msgpack.unpack(bytes))
end

local function check_key(key)
  local kind = type(key)
  if kind ~= "string" and kind ~= "boolean" and (kind ~= "number" or key ~= key) then
    error("a key is a string, number or boolean, got " .. (key ~= key and "NaN" or kind), 3)
  end
  return key
end

local function check_index(i)
  if math.type(i) ~= "integer" then error("an index is an integer, got " .. tostring(i), 3) end
  return i
end

local function check_timeout(timeout)
  if timeout ~= nil and (type(timeout) ~= "number" or timeout ~= timeout or timeout < 0) then
    error("a time is a number of seconds, 0 or more", 3)
  end
  return timeout and math.min(timeout, 86400 * 365)
end

local function check_number(n)
  if n ~= nil and type(n) ~= "number" then error("add takes a number, got " .. type(n), 3) end
  return n or 1
end

-- nil, err for what may happen. What only misuse brings about raises.
local function failed(code, text)
  return nil, errors.new(code, text)
end

local function plain(ok, ...)
  if not ok then return failed(...) end
  return ...
end

local function value_of(ok, ...)
  if not ok then return failed(...) end
  return unpacked((...))
end

local function done(ok, ...)
  if not ok then return failed(...) end
  return true
end

-- Of a table of packed values, with the same keys.
local function values_of(ok, ...)
  if not ok then return failed(...) end
  local values = {}
  for key, bytes in next, (...) do values[key] = unpacked(bytes) end
  return values
end

-------------------------------------------------------------------------------------------------
-- Queue
-------------------------------------------------------------------------------------------------

---A line of values, first in, first out.
---@class gaterpc.SharedQueue
local queue = class "Queue"

---Puts a value at the end, and waits while the queue is full.
---@async
---@param value any
---@param timeout? number  seconds; 0: does not wait
---@return true? ok
---@return gaterpc.Error? err  DEADLINE_EXCEEDED; UNAVAILABLE: the queue was closed; NOT_FOUND: it is gone
function queue:put(value, timeout)
  return done(invoke(self, "put", packed(value), check_timeout(timeout)))
end

---Takes the first value, and waits while there is none.
---@async
---@param timeout? number  seconds; 0: does not wait
---@return any value
---@return gaterpc.Error? err  DEADLINE_EXCEEDED; UNAVAILABLE: closed, and nothing is left; NOT_FOUND: it is gone
function queue:get(timeout)
  return value_of(invoke(self, "get", check_timeout(timeout)))
end

---For a loop: takes values until the queue is closed and empty. A nil ends the loop, too.
---@async
---@return fun(): any
function queue:each()
  return function()
    local value, err = self:get()
    if err and err.code ~= "UNAVAILABLE" then error(err, 2) end
    return value
  end
end

---How many values wait.
---@return integer? size
---@return gaterpc.Error? err
function queue:size()
  return plain(invoke(self, "size"))
end

---No more values: whoever waits to put gets UNAVAILABLE, and whoever gets, when the rest is taken.
---@return true? ok
---@return gaterpc.Error? err
function queue:close()
  return done(invoke(self, "close"))
end

-------------------------------------------------------------------------------------------------
-- Dict
-------------------------------------------------------------------------------------------------

---Values by keys: strings, numbers or booleans.
---@class gaterpc.SharedDict
local dict = class "Dict"

---@param key string|number|boolean
---@return any value  nil when there is none
---@return gaterpc.Error? err  UNAVAILABLE: closed; NOT_FOUND: gone
function dict:get(key)
  return value_of(invoke(self, "get", check_key(key)))
end

---@param key string|number|boolean
---@param value any  nil takes the key out
---@return true? ok
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED: too many keys
function dict:set(key, value)
  check_key(key)
  if value == nil then return done(invoke(self, "pop", key)) end
  return done(invoke(self, "set", key, packed(value)))
end

---Takes a key out and returns its value.
---@return any value
---@return gaterpc.Error? err
function dict:pop(key)
  return value_of(invoke(self, "pop", check_key(key)))
end

---Adds to a number, 0 when there is none, in one step.
---@param key string|number|boolean
---@param n? number  default 1
---@return number? sum
---@return gaterpc.Error? err  INVALID_ARGUMENT: there is something else
function dict:add(key, n)
  return plain(invoke(self, "add", check_key(key), check_number(n)))
end

---Sets a key that has no value, in one step.
---@return any value  that it has now
---@return gaterpc.Error? err
function dict:set_default(key, value)
  return value_of(invoke(self, "set_default", check_key(key), packed(value)))
end

---Sets a key when it has a certain value (nil: none), in one step. Tables are the same when they pack to the same
---bytes.
---@return boolean? replaced
---@return gaterpc.Error? err
function dict:replace(key, old, new)
  return plain(invoke(self, "replace", check_key(key), old ~= nil and packed(old) or nil, packed(new)))
end

---Waits until a key has a value.
---@async
---@param key string|number|boolean
---@param timeout? number  seconds
---@return any value
---@return gaterpc.Error? err  DEADLINE_EXCEEDED
function dict:wait(key, timeout)
  return value_of(invoke(self, "wait", check_key(key), check_timeout(timeout)))
end

---Sets all keys of a table, in one step.
---@param values table
---@return true? ok
---@return gaterpc.Error? err
function dict:update(values)
  if type(values) ~= "table" then error("update takes a table, got " .. type(values), 2) end
  local all = msgpack.map {}
  for key, value in next, values do all[check_key(key)] = packed(value) end
  return done(invoke(self, "update", all))
end

---@return table? values  a copy
---@return gaterpc.Error? err
function dict:items()
  return values_of(invoke(self, "items"))
end

---@return integer? size
---@return gaterpc.Error? err
function dict:size()
  return plain(invoke(self, "size"))
end

---@return true? ok
---@return gaterpc.Error? err
function dict:clear()
  return done(invoke(self, "clear"))
end

---Ends it: whoever waits, or uses it later, gets UNAVAILABLE.
function dict:close()
  return done(invoke(self, "close"))
end

-------------------------------------------------------------------------------------------------
-- List
-------------------------------------------------------------------------------------------------

---Values by position, from 1.
---@class gaterpc.SharedList
local list = class "List"

---@param i integer  from 1; negative counts from the end
---@return any value  nil when there is none
---@return gaterpc.Error? err  UNAVAILABLE: closed; NOT_FOUND: gone
function list:get(i)
  return value_of(invoke(self, "get", check_index(i)))
end

---@param i integer  of a value that is there
---@return true? ok
---@return gaterpc.Error? err  INVALID_ARGUMENT: no such value
function list:set(i, value)
  return done(invoke(self, "set", check_index(i), packed(value)))
end

---@return true? ok
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED: too many values
function list:append(value)
  return done(invoke(self, "insert", nil, packed(value)))
end

---@param i integer  where it will be
---@return true? ok
---@return gaterpc.Error? err  INVALID_ARGUMENT: beyond the end
function list:insert(i, value)
  return done(invoke(self, "insert", check_index(i), packed(value)))
end

---Appends all values of a table, in one step.
---@param values any[]
---@return true? ok
---@return gaterpc.Error? err
function list:extend(values)
  if type(values) ~= "table" then error("extend takes a list, got " .. type(values), 2) end
  local all = {}
  for i = 1, #values do all[i] = packed(values[i]) end
  return done(invoke(self, "extend", all))
end

---Takes a value out.
---@param i? integer  default: the last one
---@return any value  nil when there is none
---@return gaterpc.Error? err
function list:pop(i)
  return value_of(invoke(self, "pop", check_index(i or -1)))
end

---@return any[]? values  a copy
---@return gaterpc.Error? err
function list:items()
  return values_of(invoke(self, "items"))
end

---@return integer? size
---@return gaterpc.Error? err
function list:size()
  return plain(invoke(self, "size"))
end

---@return true? ok
---@return gaterpc.Error? err
function list:clear()
  return done(invoke(self, "clear"))
end

---Ends it: whoever uses it later gets UNAVAILABLE.
function list:close()
  return done(invoke(self, "close"))
end

-------------------------------------------------------------------------------------------------
-- Value
-------------------------------------------------------------------------------------------------

---One value.
---@class gaterpc.SharedValue
local value_methods = class "Value"

---@return any value
---@return gaterpc.Error? err  UNAVAILABLE: closed; NOT_FOUND: gone
function value_methods:get()
  return value_of(invoke(self, "get"))
end

---@param value any
---@return true? ok
---@return gaterpc.Error? err
function value_methods:set(value)
  return done(invoke(self, "set", packed(value)))
end

---Adds to a number, in one step.
---@param n? number  default 1
---@return number? sum
---@return gaterpc.Error? err  INVALID_ARGUMENT: it is no number
function value_methods:add(n)
  return plain(invoke(self, "add", check_number(n)))
end

---Sets it when it has a certain value, in one step. Tables are the same when they pack to the same bytes.
---@return boolean? replaced
---@return gaterpc.Error? err
function value_methods:replace(old, new)
  return plain(invoke(self, "replace", packed(old), packed(new)))
end

---Waits until it is another one than `old`.
---@async
---@param old any
---@param timeout? number  seconds
---@return any value
---@return gaterpc.Error? err  DEADLINE_EXCEEDED
function value_methods:wait(old, timeout)
  return value_of(invoke(self, "wait", packed(old), check_timeout(timeout)))
end

---Ends it: whoever waits, or uses it later, gets UNAVAILABLE.
function value_methods:close()
  return done(invoke(self, "close"))
end

-------------------------------------------------------------------------------------------------
-- Both sides
-------------------------------------------------------------------------------------------------

---Lets proxies travel.
---@package
---@param fn fun(proxy: table, operation: string, ...): true?, ...
---@param objects table<string, table>  by id; a proxy that arrives holds its object at [1]
function M.setup(fn, objects)
  invoke = fn
  for name, mt in pairs(classes) do
    msgpack.register_own_ext {
      type = TYPES[name], name = "Shared" .. name, metatable = mt,
      pack = function(proxy) return proxy.data end,
      unpack = function(id) return M.new(name, id, objects[id]) end,
    }
    portable.allow(mt)
  end
end

---@package
---@param name "Queue"|"Dict"|"List"|"Value"
---@param id string
---@param object? table
function M.new(name, id, object)
  return setmetatable({ object, type = TYPES[name], data = id }, classes[name])
end

return M
