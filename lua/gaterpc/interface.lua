---Classes of workers and brokers, and the methods that they offer.
---
---  local Kv = gaterpc.Worker:extend "Kv"
---  function Kv.interface:set(key, value) ... end
---  Kv.interface.get = gaterpc.interface(function(self, key) ... end, { idempotent = true })
---@module "gaterpc.interface"

local options = require "gaterpc.options"
local source = require "gaterpc.source"

local M = {}

---@class gaterpc.InterfaceOptions
---@field idempotent? boolean  may run twice: when its worker dies it is given to another
---@field run? "inline"|"thread"|"process"  where it runs: in the host's Lua thread, which is the default, or in the
---worker's thread_executor or process_executor, with a stand-in for self that has the field service only
---@field stream? boolean      its results are a stream, even when it yields nothing; default: whether its
---source has a coroutine.yield

---@class gaterpc.Method
---@field fn function
---@field idempotent boolean
---@field stream boolean    an end without a value ends a stream
---@field declared boolean  `stream` was said, not guessed
---@field run "inline"|"thread"|"process"
local method_mt = { __name = "gaterpc.interface" }

local places = { inline = true, thread = true, process = true }

---Marks a function with options for its use as a method.
---@param fn function
---@param given? gaterpc.InterfaceOptions|"inline"|"thread"|"process"  a string is the option `run`
---@return gaterpc.Method
function M.mark(fn, given)
  if type(fn) ~= "function" then error("interface takes a function and options, got " .. type(fn), 2) end
  if type(given) == "string" then given = { run = given } end
  given = options.check("interface", given, { idempotent = "boolean", stream = "boolean", run = "string" })
  local run = given.run or "inline"
  if not places[run] then error("interface: " .. options.unknown("place to run,", run, places), 2) end
  local stream = given.stream
  if stream == nil then stream = source.yields(fn) end
  return setmetatable({
    fn = fn, idempotent = given.idempotent or false, stream = stream, declared = given.stream ~= nil, run = run,
  }, method_mt)
end

local interface_mt = { __name = "gaterpc.interfaces" }

function interface_mt:__newindex(name, value)
  if type(name) ~= "string" or not name:find("^[%w_][%w_.%-]*$") or #name > 255 then
    error(("'%s' cannot name a method: letters, digits, '_', '.' and '-', at most 255"):format(tostring(name)), 2)
  end
  if type(value) == "function" then
    value = M.mark(value)
  elseif getmetatable(value) ~= method_mt then
    error(("method '%s' must be a function or gaterpc.interface(function, options), got %s"):format(
      name, type(value)), 2)
  end
  self[M][name] = value
end

function interface_mt:__index(name)
  local method = self[M][name]
  return method and method.fn
end

function interface_mt:__pairs()
  return pairs(self[M])
end

local function new_interface(parent)
  local own = setmetatable({}, { __index = parent and parent[M] })
  return setmetatable({ [M] = own }, interface_mt)
end

---All methods of a class, its parents' too.
---@param class table
---@return table<string, gaterpc.Method>
function M.methods(class)
  local all = {}
  local own = class.interface[M]
  while own do
    for name, method in next, own do all[name] = all[name] or method end
    own = getmetatable(own).__index
  end
  return all
end

---Says what is wrong when somebody looks up a field on a class.
local function class_of(name, parent)
  local class = { class_name = name, interface = new_interface(parent and parent.interface) }
  class.__index = class
  class.__name = "gaterpc." .. name
  class.__tostring = parent and parent.__tostring
  return setmetatable(class, {
    __name = "gaterpc.class",
    __index = parent,
    __call = function(self, ...) return self.new(self, ...) end,
    __tostring = function() return "class " .. name end,
  })
end

---A base class; its `new(class, options)` makes objects.
---@param name string
---@return table class
function M.class(name)
  local base = class_of(name)
  function base.extend(self, child)
    if type(child) ~= "string" or child == "" then
      local got = type(child) == "string" and "an empty one" or type(child)
      error(("%s:extend takes a name, got %s"):format(type(self) == "table" and self.class_name or name, got), 2)
    end
    return class_of(child, self)
  end
  return base
end

---True when class is base or was made from it by extend.
function M.derives(class, base)
  while type(class) == "table" do
    if class == base then return true end
    local mt = getmetatable(class)
    class = type(mt) == "table" and rawget(mt, "__index") or nil
  end
  return false
end

---What get_interfaces tells of the methods: name -> { doc =, signature =, idempotent =, stream = }.
---@param methods table<string, gaterpc.Method>
---@param skip? integer  see source.signature
---@return table<string, table>
function M.describe(methods, skip)
  local described = {}
  for name, method in pairs(methods) do
    described[name] = {
      doc = source.doc(method.fn), signature = source.signature(method.fn, skip),
      idempotent = method.idempotent, stream = method.stream,
    }
  end
  return described
end

return M
