---Lua values to msgpack and back, with hooks and ext types of users; see docs/msgpack.md.
---
---  message_pack.prepare_pack = function(value) return tostring(value) end
---  message_pack.register_ext { type = 5, metatable = Point, pack = pack_point, unpack = unpack_point }
---@module "gaterpc.msgpack"

local core = require "gaterpc.msgpack_core"
local options = require "gaterpc.options"

local hooks = core.hooks

---@class gaterpc.msgpack
---@field prepare_pack? fun(value: any): any  gives a value to be packed in place of one that cannot be
---@field unpack_object_hook? fun(map: table): any  gives what is to stand for a map
---@field unpack_object_pairs_hook? fun(pairs: { [1]: any, [2]: any }[]): any  the same with its pairs in order
---@field unpack_list_hook? fun(array: any[]): any  gives what is to stand for an array
local M = {}
for name, value in pairs(core) do
  if name ~= "hooks" then M[name] = value end
end

local hook_names = {
  prepare_pack = true, unpack_object_hook = true, unpack_object_pairs_hook = true, unpack_list_hook = true,
}

-- Only one of these may be set, as in msgpack-python.
local rival = {
  unpack_object_hook = "unpack_object_pairs_hook", unpack_object_pairs_hook = "unpack_object_hook",
}

---@class gaterpc.ExtType
---@field type integer        -128 to 127 but -1; those from 0 on are for applications
---@field name? string        for errors; default "ext type 5"
---@field metatable? table    of the tables or userdata that are packed as this type
---@field pack? fun(value: any): string  their bytes, at most 32 MiB
---@field unpack? fun(bytes: string): any
local ext_options = { type = "integer", name = "string", metatable = "table", pack = "function", unpack = "function" }

-- What gaterpc itself has in them: SharedQueue and its like, and HugeData on its way to an executor.
local OWN_FIRST, OWN_LAST = -110, -101

local function check_type(who, type, level)
  if math.type(type) ~= "integer" or type < -128 or type > 127 then
    error(("%s: an ext type is an integer from -128 to 127, got %s"):format(who, tostring(type)), level + 1)
  end
  if type == -1 then error(who .. ": ext type -1 is the timestamp, which is built in", level + 1) end
  if type >= OWN_FIRST and type <= OWN_LAST then
    error(("%s: the ext types from %d to %d are gaterpc's own"):format(who, OWN_FIRST, OWN_LAST), level + 1)
  end
end

local function check_free(given, level)
  local _, name = hooks.ext_of(given.type)
  if name then
    error(("register_ext: type %d is registered already, for %s"):format(given.type, name), level + 1)
  end
  if not given.metatable then return end
  local type, owner = hooks.ext_of(given.metatable)
  if type == "own" then error("register_ext: this metatable is built in", level + 1) end
  if type then
    error(("register_ext: the metatable is registered already, for %s (type %d)"):format(owner, type), level + 1)
  end
end

---Registers an ext type: values with the metatable are packed by `pack`, and what comes as this type
---is made by `unpack`. One of the two ways is enough. Raises when the type or metatable is taken.
---@param given gaterpc.ExtType
function M.register_ext(given)
  if given == nil then error("register_ext takes a table of options, got nil", 2) end
  options.check("register_ext", given, ext_options)
  check_type("register_ext", given.type, 2)
  if (given.metatable == nil) ~= (given.pack == nil) then
    error("register_ext: metatable and pack come together", 2)
  end
  if not given.pack and not given.unpack then error("register_ext: neither pack nor unpack is given", 2) end
  check_free(given, 2)
  hooks.set_ext(given.type, given.name or "ext type " .. given.type, given.metatable, given.pack, given.unpack)
end

---Registers one of gaterpc's own, in place of what it was before.
---@package
---@param given gaterpc.ExtType
function M.register_own_ext(given)
  hooks.drop_ext(given.type)
  hooks.set_ext(given.type, given.name, given.metatable, given.pack, given.unpack)
end

---Forgets an ext type: it is unpacked to gaterpc.ext again.
---@param type integer
---@return boolean was_registered
function M.unregister_ext(type)
  check_type("unregister_ext", type, 2)
  return hooks.drop_ext(type)
end

local known = {}
for name in pairs(M) do known[name] = name ~= "register_own_ext" or nil end
for name in pairs(hook_names) do known[name] = true end

local function unknown(name)
  if name == "unpack_object_list_hook" then -- so the original's README called it
    return "unknown name in message_pack: 'unpack_object_list_hook', did you mean 'unpack_list_hook'?"
  end
  return options.unknown("name in message_pack:", name, known)
end

local mt = { __name = "gaterpc.msgpack" }

function mt:__index(name)
  if hook_names[name] then return hooks.get(name) end
  error(unknown(name), 2)
end

function mt:__newindex(name, value)
  if not hook_names[name] then error(unknown(name), 2) end
  if value ~= nil and type(value) ~= "function" then
    error(("message_pack.%s must be a function or nil, got %s"):format(name, type(value)), 2)
  end
  if value and rival[name] and hooks.get(rival[name]) then
    error(("message_pack.%s is set: only one of it and %s can be"):format(rival[name], name), 2)
  end
  hooks.set(name, value)
end

return setmetatable(M, mt)
