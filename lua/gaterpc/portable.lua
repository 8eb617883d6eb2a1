---portable: functions on their way to an executor of this program, as bytecode with their upvalues.
---
---What belongs to a module goes as the module's name and is required there; everything else goes by
---value. Tables and upvalues that several functions share are shared there too. Bytecode is only ever
---sent to executors of the own program and is never taken from a network.
---@module "gaterpc.portable"

local errors = require "gaterpc.error"
local msgpack = require "gaterpc.msgpack"

local M = {}

local MAX_DEPTH, MAX_NODES = 64, 100000

-- Values in a graph: scalars are themselves, all others a list that begins with one of these.
local NIL, REF, NULL, WRAPPED = 0, 1, 2, 3

-- Nodes: { FUNCTION, code id, cells... }, where cell 0 is the globals of wherever it is;
-- { TABLE, kind, key, value, ... }; { MODULE, name, field }.
local FUNCTION, TABLE, MODULE = 1, 2, 3

local MAP, ARRAY, KWARGS = 1, 2, 3
local kinds = {
  [getmetatable(msgpack.map())] = MAP, [getmetatable(msgpack.array())] = ARRAY,
  [getmetatable(msgpack.kwargs())] = KWARGS,
}
local marks = { [MAP] = msgpack.map, [ARRAY] = msgpack.array, [KWARGS] = msgpack.kwargs }

-- Metatables of tables that gaterpc.msgpack packs as one value.
local wrapped = {}
for _, value in ipairs { msgpack.bin "", msgpack.str "", msgpack.ext(1, ""), msgpack.timestamp(0) } do
  wrapped[getmetatable(value)] = true
end
local uint64_mt = getmetatable(msgpack.uint64(0))

---Lets tables with this metatable travel as gaterpc.msgpack packs them.
---@package
function M.allow(mt)
  wrapped[mt] = true
end

-------------------------------------------------------------------------------------------------
-- Bytecode
-------------------------------------------------------------------------------------------------

-- Dumps by id. A dump keeps its id as long as it is remembered, so an executor need not get it twice.
local MAX_CODES = 1024
local id_of_function = setmetatable({}, { __mode = "k" })
local id_of_dump, dump_of_id, codes, last_id = {}, {}, 0, 0

-- Nil for a C function.
local function code_id(fn)
  local id = id_of_function[fn]
  if id and dump_of_id[id] then return id end
  local ok, dump = pcall(string.dump, fn)
  if not ok then return nil end
  id = id_of_dump[dump]
  if not id then
    if codes == MAX_CODES then id_of_dump, dump_of_id, codes = {}, {}, 0 end
    codes, last_id = codes + 1, last_id + 1
    id = last_id
    id_of_dump[dump], dump_of_id[id] = id, dump
  end
  id_of_function[fn] = id
  return id
end

-------------------------------------------------------------------------------------------------
-- What can be required
-------------------------------------------------------------------------------------------------

local standard = { "_G", "coroutine", "debug", "io", "math", "os", "package", "string", "table", "utf8" }
local can_require = {}
for _, name in ipairs(standard) do can_require[name] = true end

local function is_there(name)
  if not can_require[name] and type(name) == "string" then
    can_require[name] = name:find("^gaterpc%f[.\0]") or name == "luv" or package.searchpath(name, package.path)
      or package.searchpath(name, package.cpath)
  end
  return can_require[name]
end

-- Modules, and functions in their fields: value -> { MODULE, name, field }; and what was loaded then.
local places, loaded_then, loaded_count = {}, {}, 0

local function note(value, place)
  local before = places[value]
  if not before or #before > #place then places[value] = place end
end

local function note_module(name)
  local module = package.loaded[name]
  if type(module) == "function" then return note(module, { MODULE, name }) end
  if type(module) ~= "table" then return end
  note(module, { MODULE, name })
  for field, value in next, module do
    if type(field) == "string" and type(value) == "function" then note(value, { MODULE, name, field }) end
  end
end

local function is_up_to_date()
  local count = 0
  for name, module in next, package.loaded do
    if loaded_then[name] ~= module then return false end
    count = count + 1
  end
  return count == loaded_count
end

local function find_places()
  if is_up_to_date() then return end
  places, loaded_then, loaded_count = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "v" }), 0
  for _, name in ipairs(standard) do note_module(name) end
  for name, module in next, package.loaded do
    loaded_then[name], loaded_count = module, loaded_count + 1
    if is_there(name) then note_module(name) end
  end
end

-------------------------------------------------------------------------------------------------
-- Packing
-------------------------------------------------------------------------------------------------

local function name_of(fn)
  local info = debug.getinfo(fn, "S")
  return ("the function at %s:%d"):format(info.short_src, info.linedefined)
end

local function show_field(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") and #key < 40 then return "field ." .. key end
  return ("field [%s]"):format(type(key) == "string" and ("%q"):format(key:sub(1, 40)) or tostring(key))
end

local UPVALUE, KEY, FIELD = 1, 2, 3

-- The way to what cannot go. Far ones lose their middle.
local function show_path(self)
  local shown, depth = {}, self.depth
  for i = 1, depth do
    local kind, name = self.place_kinds[i], self.place_names[i]
    if depth > 6 and i == 4 then
      shown[#shown + 1] = "..."
    elseif depth <= 6 or i < 4 or i > depth - 2 then
      shown[#shown + 1] = kind == UPVALUE and ("upvalue '%s'"):format(name) or kind == KEY and "a key"
        or show_field(name)
    end
  end
  return table.concat(shown, ", ")
end

local function refuse(self, what)
  error(errors.new("INVALID_ARGUMENT", ("%s cannot go to an executor: %s %s"):format(
    name_of(self.fn), show_path(self), what)), 0)
end

local scalar = { boolean = true, number = true, string = true }
local put_value

-- Puts what is at one more place, which error messages name.
local function put_at(self, kind, name, value)
  local depth = self.depth + 1
  if depth > MAX_DEPTH then refuse(self, ("is nested deeper than %d levels"):format(MAX_DEPTH)) end
  self.depth, self.place_kinds[depth], self.place_names[depth] = depth, kind, name
  local result = put_value(self, value)
  self.depth = depth - 1
  return result
end

local function new_node(self, value, node)
  local n = #self.nodes + 1
  if n > MAX_NODES then refuse(self, ("makes more than %d tables and functions"):format(MAX_NODES)) end
  self.nodes[n] = node
  self.place_of[value] = n
  return n
end

local function put_cell(self, fn, i, name, value)
  if name == "_ENV" then return 0 end
  local id = debug.upvalueid(fn, i)
  local cell = self.cell_of[id]
  if not cell then
    cell = #self.cells + 1
    self.cell_of[id] = cell
    self.cells[cell] = false -- its place, should the value be this function itself
    self.cells[cell] = put_at(self, UPVALUE, name, value)
  end
  return cell
end

local function put_function(self, fn)
  local id = code_id(fn)
  if not id then refuse(self, "is a C function") end
  local node = { FUNCTION, id }
  local n = new_node(self, fn, node)
  self.codes[id] = dump_of_id[id]
  for i = 1, math.huge do
    local name, value = debug.getupvalue(fn, i)
    if not name then return n end
    node[i + 2] = put_cell(self, fn, i, name, value)
  end
end

local function put_table(self, value)
  local mt = getmetatable(value)
  local kind = mt and kinds[mt]
  if mt and not kind then
    local name = type(mt) == "table" and rawget(mt, "__name")
    refuse(self, "is a table with a metatable" .. (type(name) == "string" and (" (%s)"):format(name) or ""))
  end
  local node = { TABLE, kind or 0 }
  local n = new_node(self, value, node)
  for k, v in next, value do
    node[#node + 1] = scalar[type(k)] and k or put_at(self, KEY, k, k)
    node[#node + 1] = scalar[type(v)] and v or put_at(self, FIELD, k, v)
  end
  return n
end

function put_value(self, value)
  local kind = type(value)
  if scalar[kind] then return value end
  if value == nil then return { NIL } end
  if value == msgpack.null then return { NULL } end
  local mt = getmetatable(value)
  if mt == uint64_mt or kind == "table" and wrapped[mt] then return { WRAPPED, value } end
  local n = self.place_of[value]
  if n then return { REF, n } end
  if kind ~= "table" and kind ~= "function" then refuse(self, "is a " .. kind) end
  find_places()
  local place = places[value]
  if place then return { REF, new_node(self, value, place) } end
  return { REF, (kind == "table" and put_table or put_function)(self, value) }
end

local function packed(description)
  local bytes, code, text = msgpack.pack(description)
  if not bytes then error(errors.new(code, "a function cannot go to an executor: " .. text), 0) end
  return bytes
end

-- What was made of functions that have no upvalues but _ENV: { bytes, codes }.
local ready = setmetatable({}, { __mode = "k" })

---Describes a function for M.unpack(). Raises INVALID_ARGUMENT, naming the upvalue, when it cannot travel.
---@param fn function|string  a string is "module.function"
---@return string description
---@return table<integer, string> codes  bytecode by id
function M.pack(fn)
  if type(fn) == "string" then
    local module, field = fn:match("^(.+)%.([^.]+)$")
    if not module then
      error(errors.new("INVALID_ARGUMENT", ("'%s' does not name a function: \"module.function\" does"):format(fn)), 0)
    end
    return packed { nodes = { { MODULE, module, field } } }, {}
  end
  local done = ready[fn]
  if done then return done[1], done[2] end
  find_places()
  local place = places[fn]
  if place then return packed { nodes = { place } }, {} end
  if not code_id(fn) then
    error(errors.new("INVALID_ARGUMENT", "a C function cannot go to an executor, unless it is a module's"), 0)
  end
  local self = {
    fn = fn, nodes = {}, cells = {}, codes = {}, place_of = {}, cell_of = {}, -- places in nodes and cells
    depth = 0, place_kinds = {}, place_names = {},
  }
  put_function(self, fn)
  if self.cells[1] ~= nil then return packed { nodes = self.nodes, cells = self.cells }, self.codes end
  local bytes = packed { nodes = self.nodes }
  ready[fn] = { bytes, self.codes }
  return bytes, self.codes
end

-------------------------------------------------------------------------------------------------
-- Unpacking, in an executor
-------------------------------------------------------------------------------------------------

-- Bytecode that has come, and what was made of it where no upvalue but _ENV is in the way.
local dumps, loaded = {}, {}

---Takes bytecode that M.pack() has given.
---@param news table<integer, string>
---@param forget boolean  what came before is not needed any more
function M.learn(news, forget)
  if forget then dumps, loaded = {}, {} end
  for id, dump in next, news do dumps[id] = dump end
end

local function cell_of(value)
  return function() return value end
end

local function make_function(id)
  local fn = loaded[id]
  if fn then return fn end
  local dump = dumps[id] or error(errors.new("INTERNAL", "the code of a function has not come"), 0)
  return assert(load(dump, "=code", "b"))
end

local function get_module(name, field)
  local ok, module = pcall(require, name)
  if not ok then
    if type(module) ~= "string" or not module:find("^module '[^\n]*' not found:") then error(module, 0) end
    error(errors.new("NOT_FOUND", ("there is no module '%s'"):format(name)), 0)
  end
  if field == nil then return module end
  local value = type(module) == "table" and module[field]
  if type(value) ~= "function" then
    error(errors.new("NOT_FOUND", ("module '%s' has no function '%s'"):format(name, field)), 0)
  end
  return value
end

local makers = {
  [FUNCTION] = function(node) return make_function(node[2]) end,
  [TABLE] = function(node) return node[2] == 0 and {} or marks[node[2]]() end,
  [MODULE] = function(node) return get_module(node[2], node[3]) end,
}

local function get_value(made, value)
  if type(value) ~= "table" then return value end
  local what = value[1]
  if what == NIL then return nil end
  if what == NULL then return msgpack.null end
  return what == REF and made[value[2]] or value[2]
end

local function join_cells(fn, node, cells)
  local own = false
  for i = 3, #node do
    debug.upvaluejoin(fn, i - 2, cells[node[i]], 1)
    own = own or node[i] ~= 0
  end
  if not own then loaded[node[2]] = fn end
end

---Makes the function that M.pack() has described. Raises when a module or its function is not there.
---@param description table  unpacked
---@return function
---@return integer? id  of its code, when it is no module's
function M.unpack(description)
  local nodes, made, cells = description.nodes, {}, { [0] = cell_of(_G) }
  for i, node in ipairs(nodes) do made[i] = makers[node[1]](node) end
  for i, value in ipairs(description.cells or {}) do cells[i] = cell_of(get_value(made, value)) end
  for i, node in ipairs(nodes) do
    if node[1] == FUNCTION then
      join_cells(made[i], node, cells)
    elseif node[1] == TABLE then
      for k = 3, #node, 2 do rawset(made[i], get_value(made, node[k]), get_value(made, node[k + 1])) end
    end
  end
  return made[1], nodes[1][1] == FUNCTION and nodes[1][2] or nil
end

return M
