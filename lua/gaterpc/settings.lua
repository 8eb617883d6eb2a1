---Settings: defaults for everything that has a knob, changed before the first object is made. The names are in
---settings_table.lua, the rules in docs/settings.md.
---
---  gaterpc.Settings.HEARTBEAT = 1
---  gaterpc.Settings.setup { HEARTBEAT = 1, LIVENESS = 5 }
---@module "gaterpc.settings"

local core = require "gaterpc.core"
local sources = require "gaterpc.settings_sources"
local store = require "gaterpc.settings_store"
local rows = require "gaterpc.settings_table"

local WARNING = 30

local known = store.new(rows, function(text) core.log(WARNING, "gaterpc.settings", text) end)

---@class gaterpc.Settings  its fields are in meta/settings.lua
local M = {}

-- "script.lua:12" of the function at a level, as error() counts them.
local function place(level)
  local info = debug.getinfo(level + 1, "Sl")
  return info and info.currentline > 0 and ("%s:%d"):format(info.short_src, info.currentline) or "the script"
end

-- All names of the table are checked before anything is changed.
local function change(changes, level)
  local where = place(level + 1)
  local batch = known:batch "script"
  local names = {}
  for name in pairs(changes) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local added, problem = batch:add(name, changes[name], where)
    if not added then error(problem, level + 1) end
  end
  if changes.USER_SETTINGS ~= nil then
    local taken, problem = sources.file(known, changes.USER_SETTINGS)
    if not taken then error(problem, level + 1) end
  end
  batch:commit()
end

---Changes several settings, all or none: Settings.setup { HEARTBEAT = 1 }.
---@param changes? table<string, any>
function M.setup(changes)
  if changes == nil then return end
  if type(changes) ~= "table" then error("Settings.setup takes a table of settings, got " .. type(changes), 2) end
  change(changes, 2)
end

---What a host's command line and environment say, before its script runs.
---@param path? string                         a settings file; default: the one that the environment names
---@param environment table<string, string>
---@return true? taken
---@return string? problem
---@package
function M.load(path, environment)
  local from = path and "--settings" or "GATERPC_USER_SETTINGS"
  path = path or sources.file_of(environment)
  if path then
    local taken, problem = sources.file(known, path)
    if not taken then return nil, problem end
    local batch = known:batch "environment"
    batch:add("USER_SETTINGS", path, from)
    batch:commit()
  end
  return sources.environment(known, environment)
end

---No changes from now on.
---@param who string  what was made, by the function that calls this
---@package
function M.freeze(who)
  known:freeze(who, place(3))
end

---An object's own value for a setting, checked like the setting, or the setting's. Raises at whoever
---called the object's constructor: tail calls on the way there leave no frames.
---@param name string
---@param own any
---@param option? string  what the object calls it
---@package
function M.pick(name, own, option)
  return known:own_value(name, own, option, 2)
end

---All settings in the order of docs/settings.md: { name, type, unit, value, default, low, high, choices, where,
---source, text, group, option }; `where` says what has set it, `source` is "default", "file", "environment" or
---"script". Of another kind: the original's names ("alias", "constant", "unused").
---@param kind? "setting"|"alias"|"constant"|"unused"
---@return table[]
function M.list(kind)
  return known:list(kind or "setting")
end

return setmetatable(M, {
  __name = "gaterpc.Settings",
  __index = function(_, name)
    local value, problem = known:get(name)
    if problem then error(problem, 2) end
    return value
  end,
  __newindex = function(_, name, value) change({ [name] = value }, 2) end,
})
