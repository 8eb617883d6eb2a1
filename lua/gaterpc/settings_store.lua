---A store of settings: the rows of a table, what each source has said of them, and which value that makes.
---Knows nothing of files and environments (settings_sources.lua); raises only for faults of the table.
---@module "gaterpc.settings_store"

local options = require "gaterpc.options"
local rows = require "gaterpc.settings_rows"
local types = require "gaterpc.settings_types"

local M = {}

---Sources, a later one is stronger. Options of an object are stronger than all of them, see own_value().
local LAYERS = { "file", "environment", "script" }

---@class gaterpc.SettingChange
---@field value any     checked
---@field where string  for people: "conf.lua:3", "GATERPC_HEARTBEAT"
---@field name string   under which name it was set

---@class gaterpc.SettingStore
---@field rows table<string, gaterpc.SettingRow>
---@field values table<string, any>   what is in force: of settings and constants
---@field private order gaterpc.SettingRow[]
---@field private layers table<string, table<string, gaterpc.SettingChange>>
---@field private ignored table<string, gaterpc.SettingChange>  of names that change nothing
---@field private frozen? string      what exists: "a Client exists already (made at script.lua:3)"
---@field private warn fun(text: string)
local methods = {}
local mt = { __name = "gaterpc.SettingStore", __index = methods }

---Makes a store. Raises when a row of the table is wrong.
---@param list table                  as in settings_table.lua
---@param warn fun(text: string)      for what is accepted and changes nothing
---@return gaterpc.SettingStore
function M.new(list, warn)
  local self = setmetatable({ values = {}, layers = {}, ignored = {}, warn = warn }, mt)
  self.rows, self.order = rows.read(list)
  for _, layer in ipairs(LAYERS) do self.layers[layer] = {} end
  for _, row in ipairs(self.order) do
    if row.kind == "setting" then self.values[row.name] = row.default end
    if row.kind == "constant" then self.values[row.name] = row.constant end
  end
  return self
end

-------------------------------------------------------------------------------------------------
-- Reading
-------------------------------------------------------------------------------------------------

---"unknown setting 'HEARTBEET', did you mean 'HEARTBEAT'?"
---@param name any
---@return string
function methods:unknown(name)
  return options.unknown("setting", name, self.rows)
end

---The value in force. Of an alias in its own unit; of a name that changes nothing, what it was set to.
---@param name string
---@return any
---@return string? problem  the name is unknown
function methods:get(name)
  local value = self.values[name]
  if value ~= nil then return value end
  local row = self.rows[name]
  if not row then return nil, self:unknown(name) end
  if row.kind == "unused" then
    local ignored = self.ignored[name]
    return ignored and ignored.value
  end
  if row.kind ~= "alias" then return nil end
  value = self.values[row.alias_of[1]]
  if value == nil or not row.is.from_base then return value end
  return row.is.from_base(value)
end

-- What has set a setting, from the strongest source down.
local function change_of(self, name)
  for i = #LAYERS, 1, -1 do
    local change = self.layers[LAYERS[i]][name]
    if change then return change, LAYERS[i] end
  end
end

local function is_set(self, row)
  return change_of(self, row.name) ~= nil
end

local function where_of(self, row)
  local change, layer = change_of(self, row.name)
  if change then return change.where, layer end
  if row.follows and is_set(self, self.rows[row.follows[1]]) then return row.follows[1], "default" end
  return "default", "default"
end

local function describe(self, row)
  local kind = row.kind
  local about = { name = row.name, kind = kind, type = row.type, unit = row.is and row.is.unit, low = row.low,
    high = row.high, choices = row.choices, default = row.default, text = row.text, group = row.group,
    option = row.option, alias_of = row.alias_of, secret = row.secret, lua = row.is and row.is.lua,
    value = self:get(row.name) }
  if kind == "setting" then about.where, about.source = where_of(self, row) end
  if row.follows then about.default_text = ("%s * %s"):format(types.show(row.follows[2]), row.follows[1]) end
  if row.secret then
    if about.value ~= nil then about.value = "***" end
    if about.default ~= nil then about.default = "***" end
  end
  return about
end

---All rows, or those of one kind, in the order of the table. Secrets are "***".
---@param kind? "setting"|"alias"|"constant"|"unused"
---@return table[]
function methods:list(kind)
  local list = {}
  for _, row in ipairs(self.order) do
    if not kind or row.kind == kind then list[#list + 1] = describe(self, row) end
  end
  return list
end

-------------------------------------------------------------------------------------------------
-- Changing
-------------------------------------------------------------------------------------------------

---Changes that come together: all of them, or none.
---@class gaterpc.SettingBatch
---@field private store gaterpc.SettingStore
---@field private layer string
---@field private changes table<string, gaterpc.SettingChange>
---@field private ignored table<string, gaterpc.SettingChange>
local batch_methods = {}
local batch_mt = { __name = "gaterpc.SettingBatch", __index = batch_methods }

---@param layer "file"|"environment"|"script"
---@return gaterpc.SettingBatch
function methods:batch(layer)
  assert(self.layers[layer], layer)
  return setmetatable({ store = self, layer = layer, changes = {}, ignored = {} }, batch_mt)
end

-- "option 'heartbeat' of Client, Majordomo, create_worker"
local function options_of(row)
  local list = {}
  for i, each in ipairs(rows.options(row)) do
    list[i] = ("option '%s' of %s"):format(each.name, table.concat(each.classes, ", "))
  end
  return table.concat(list, " or ")
end

local function too_late(self, row)
  local instead = options_of(row.alias_of and self.rows[row.alias_of[1]] or row)
  return ("setting %s cannot be changed any more: %s; %s"):format(row.name, self.frozen,
    instead == "" and "set it before" or "set it before, or use " .. instead)
end

-- The settings that a name stands for, and the value that they get.
local function resolve(self, row, what, value, is_text)
  local own, wrong = rows.check(row, value, is_text)
  if wrong then return nil, what .. " " .. wrong end
  if row.kind == "setting" then return { row }, own end
  local targets = {}
  for i, name in ipairs(row.alias_of) do targets[i] = self.rows[name] end
  if row.is.to_base then own = row.is.to_base(own) end
  return targets, own
end

---Adds a change. Settings under two names in one batch contradict each other.
---@param name string
---@param value any
---@param where string        "conf.lua:3"
---@param what? string        what to call it in messages; default "setting NAME"
---@param is_text? boolean    the value is text from the environment
---@return true? added
---@return string? problem
function batch_methods:add(name, value, where, what, is_text)
  local store = self.store
  local row = store.rows[name]
  if not row then return nil, store:unknown(name) end
  what = what or "setting " .. name
  if row.kind == "constant" then
    if value == row.constant then return true end
    return nil, ("%s cannot be changed: the peers of the original rely on %s (%s)"):format(
      what, types.show(row.constant), row.text)
  end
  if store.frozen then return nil, too_late(store, row) end
  if row.kind == "unused" then
    self.ignored[name] = { value = value, where = where, name = name }
    return true
  end
  local targets, own = resolve(store, row, what, value, is_text)
  if not targets then return nil, own end
  for _, target in ipairs(targets) do
    local before = self.changes[target.name]
    if before and before.name ~= name then
      return nil, ("%s and %s are the same setting: give one of them"):format(before.name, name)
    end
    self.changes[target.name] = { value = own, where = where, name = name }
  end
  return true
end

---What this batch gives a setting, or what is in force.
---@param name string
---@return any
---@return string? problem
function batch_methods:get(name)
  local row = self.store.rows[name]
  local target = row and row.kind == "alias" and row.alias_of[1] or name
  local change = self.changes[target] or self.ignored[name]
  if not change then return self.store:get(name) end
  if row.is and row.is.from_base then return row.is.from_base(change.value) end
  return change.value
end

local function take_effect(self, row)
  local change = change_of(self, row.name)
  local value
  if change then
    value = change.value
  elseif row.follows then
    value = self.values[row.follows[1]] * row.follows[2]
  else
    value = row.default
  end
  if value == self.values[row.name] then return end
  self.values[row.name] = value
  if row.apply then row.apply(value, self.values) end
  for _, follower in ipairs(row.followers or {}) do take_effect(self, follower) end
end

---Puts the changes in force.
function batch_methods:commit()
  local store = self.store
  for name, change in pairs(self.changes) do store.layers[self.layer][name] = change end
  for name in pairs(self.changes) do take_effect(store, store.rows[name]) end
  local names = {}
  for name in pairs(self.ignored) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    if not store.ignored[name] then
      store.warn(("setting %s (%s) changes nothing here: %s"):format(
        name, self.ignored[name].where, store.rows[name].text))
    end
    store.ignored[name] = self.ignored[name]
  end
end

---No changes from now on. The first who calls it is named by errors.
---@param who string   what was made
---@param where string the place in the script
function methods:freeze(who, where)
  self.frozen = self.frozen or ("a %s exists already (made at %s)"):format(who, where)
end

---An object's own value for a setting, checked like the setting; without one the setting's.
---@param name string
---@param own any
---@param option? string  what the object calls it
---@param level integer   as for error(), of the function that called this one
---@return any
function methods:own_value(name, own, option, level)
  if own == nil then return self.values[name] end
  local value, wrong = rows.check(self.rows[name], own)
  if wrong then
    error((option and ("option '%s' "):format(option) or "setting " .. name .. " ") .. wrong, level + 1)
  end
  return value
end

return M
