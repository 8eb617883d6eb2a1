---Where settings come from before a script runs: a settings file, and the environment.
---@module "gaterpc.settings_sources"

local options = require "gaterpc.options"

local M = {}

local PREFIX = "GATERPC_"

---Variables that begin so and are no settings.
M.other_variables = {
  HISTORY = "file of the prompt's history",
  FIGURES = "of the tests", LOG = "of the tests", LONG = "of the tests", SEED = "of the tests",
  SLOW = "of the tests", STEPS = "of the tests",
}

-------------------------------------------------------------------------------------------------
-- The environment
-------------------------------------------------------------------------------------------------

local function sorted_names(environment)
  local names = {}
  for variable in pairs(environment) do
    local name = variable:match("^" .. PREFIX .. "(.*)$")
    if name then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

local function unknown(store, name)
  local known = {}
  for _, from in ipairs { store.rows, M.other_variables } do
    for each in pairs(from) do known[each] = true end
  end
  local near = options.nearest(name, known)
  return ("environment variable %s%s names no setting%s"):format(
    PREFIX, name, near and (", did you mean %s%s?"):format(PREFIX, near) or "")
end

---Takes GATERPC_<NAME> from an environment. Unknown names get a warning: who starts the host does not always
---own the whole environment.
---@param store gaterpc.SettingStore
---@param environment table<string, string>
---@return true? taken
---@return string? problem
function M.environment(store, environment)
  local batch = store:batch "environment"
  local warnings = {}
  for _, name in ipairs(sorted_names(environment)) do
    local variable = PREFIX .. name
    if store.rows[name] then
      if name ~= "USER_SETTINGS" then
        local what = "environment variable " .. variable
        local added, problem = batch:add(name, environment[variable], variable, what, true)
        if not added then return nil, problem end
      end
    elseif not M.other_variables[name] then
      warnings[#warnings + 1] = unknown(store, name)
    end
  end
  batch:commit()
  for _, text in ipairs(warnings) do store.warn(text) end
  return true
end

---The settings file that an environment names, or nil.
---@param environment table<string, string>
---@return string?
function M.file_of(environment)
  local path = environment[PREFIX .. "USER_SETTINGS"]
  return path ~= "" and path or nil
end

-------------------------------------------------------------------------------------------------
-- A file
-------------------------------------------------------------------------------------------------

-- What a settings file may use: nothing that reaches beyond it. Copies, so that it cannot change ours.
local function tools()
  local allowed = {
    assert = assert, error = error, ipairs = ipairs, next = next, pairs = pairs, select = select,
    tonumber = tonumber, tostring = tostring, type = type,
    os = { getenv = os.getenv, time = os.time, date = os.date, clock = os.clock },
  }
  for _, name in ipairs { "math", "string", "table", "utf8" } do
    allowed[name] = {}
    for key, value in pairs(_G[name]) do allowed[name][key] = value end
  end
  return allowed
end

-- The line of the file that is running: 1 this function, 2 a metamethod, 3 the file.
local function place()
  local info = debug.getinfo(3, "Sl")
  return ("%s:%d"):format(info.source:sub(2), info.currentline)
end

-- The globals of a settings file: reading gives its tools and the settings, writing sets them.
local function environment_of(batch)
  local allowed = tools()
  return setmetatable({}, {
    __index = function(_, name)
      if allowed[name] ~= nil then return allowed[name] end
      local value, problem = batch:get(name)
      if problem and rawget(_G, name) ~= nil then problem = ("a settings file cannot use '%s'"):format(name) end
      if problem then error(place() .. ": " .. problem, 0) end
      return value
    end,
    __newindex = function(_, name, value)
      local where = place()
      if name == "USER_SETTINGS" then error(where .. ": a settings file cannot name another one", 0) end
      local added, problem = batch:add(name, value, where)
      if not added then error(where .. ": " .. problem, 0) end
    end,
  })
end

---Runs a settings file, which is Lua text that assigns settings. Nothing is changed when it fails.
---@param store gaterpc.SettingStore
---@param path string
---@return true? taken
---@return string? problem
function M.file(store, path)
  local batch = store:batch "file"
  local chunk, err = loadfile(path, "t", environment_of(batch))
  if not chunk then -- bytecode is refused without a name
    return nil, ("settings file: %s%s"):format(err:find "binary chunk" and path .. ": " or "", err)
  end
  local ok, result = pcall(chunk)
  if ok and result ~= nil then
    ok, result = false, path .. ": it assigns settings, as in HEARTBEAT = 1, and returns nothing"
  end
  if not ok and type(result) ~= "string" then result = ("%s: it raised a %s"):format(path, type(result)) end
  if not ok then return nil, "settings file: " .. result end
  batch:commit()
  return true
end

return M
