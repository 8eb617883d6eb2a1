---access: lists of who may do what, for a Majordomo's option `access`.
---
---  access = {
---    roles = { workers = { "w1", "w2" }, readers = { "ann", "bob" } },
---    { role = "workers", register = "SRkv" },
---    { role = "readers", call = { "SRkv.get", "SRkv.count", "Gate.get_services" } },
---    { user = "admin", register = "*", call = "*" },
---    { user = "anonymous", call = "SRkv.get" },        -- who has no name
---  }
---
---What is not allowed is denied. `*` stands for any text in users, services and methods; the user "*" is everybody
---who has a name.
---@module "gaterpc.access"

local errors = require "gaterpc.error"
local options = require "gaterpc.options"

local M = {}

local LARGEST = 1 << 20 -- bytes of a file

---@class gaterpc.AccessRule
---@field user? string|string[]      whom it is for; a pattern
---@field role? string|string[]      or the name of a role
---@field register? string|string[]  patterns of services
---@field call? string|string[]      patterns of service.method, or "*"; functions of the broker itself are "Gate.name".
---The method is what stands behind the last dot
local RULE = { user = "string|table", role = "string|table", register = "string|table", call = "string|table" }

---@class gaterpc.AccessList
---@field roles? table<string, string[]>  users by role
---@field [integer] gaterpc.AccessRule

local function fail(format, ...)
  error(format:format(...), 0)
end

-- A string or a list of them, as a list.
local function list_of(where, value)
  if value == nil then return {} end
  if type(value) == "string" then value = { value } end
  local count = 0
  for _ in pairs(value) do count = count + 1 end
  if count ~= #value then fail("%s must be a string or a list of strings", where) end
  for _, each in ipairs(value) do
    if type(each) ~= "string" or each == "" or #each > 255 then
      fail("%s: a name or pattern has 1 to 255 bytes, got %s", where, type(each) == "string" and #each or type(each))
    end
  end
  return value
end

local function read_roles(given)
  if given == nil then return {} end
  if type(given) ~= "table" then fail("access: 'roles' must be a table of users by role, got %s", type(given)) end
  local roles = {}
  for name, users in pairs(given) do
    if type(name) ~= "string" or type(users) ~= "table" and type(users) ~= "string" then
      fail "access: 'roles' must be a table of lists of users by role"
    end
    roles[name] = list_of(("access: role '%s'"):format(name), users)
  end
  return roles
end

local function users_of(where, rule, roles)
  local users = { table.unpack(list_of(where .. ": 'user'", rule.user)) }
  for _, role in ipairs(list_of(where .. ": 'role'", rule.role)) do
    if not roles[role] then fail("%s: %s", where, options.unknown("role", role, roles)) end
    table.move(roles[role], 1, #roles[role], #users + 1, users)
  end
  if #users == 0 and rule.user == nil and rule.role == nil then fail("%s: 'user' or 'role' is missing", where) end
  return users
end

local function flatten(list)
  if type(list) ~= "table" then fail("access must be a list of rules, got %s", type(list)) end
  local roles, permissions, count = read_roles(list.roles), {}, 0
  for key in pairs(list) do
    if key ~= "roles" and math.type(key) ~= "integer" then
      fail("access: %s", options.unknown("field", key, { roles = true }))
    end
    count = count + (key ~= "roles" and 1 or 0)
  end
  if count ~= #list then fail "access must be a list of rules, without holes" end
  for i, rule in ipairs(list) do
    local where = ("access[%d]"):format(i)
    options.check(where, rule, RULE, 0)
    if rule.register == nil and rule.call == nil then fail("%s allows nothing: give 'register' or 'call'", where) end
    for _, user in ipairs(users_of(where, rule, roles)) do
      for _, action in ipairs { "register", "call" } do
        for _, what in ipairs(list_of(("%s: '%s'"):format(where, action), rule[action])) do
          if action == "call" and what ~= "*" and not what:find "^.+%.[^.]+$" then
            fail("%s: 'call' takes service.method, or \"*\" for everything, got '%s'", where, what)
          end
          permissions[#permissions + 1] = { user, action, what }
        end
      end
    end
  end
  return permissions
end

---Makes permissions of a list: { user, "register"|"call", what }, as core.majordomo takes them.
---@param list gaterpc.AccessList
---@return table[]? permissions
---@return string? problem
function M.flatten(list)
  local ok, result = pcall(flatten, list)
  if ok then return result end
  return nil, result
end

---Reads a list from a file: Lua text that returns it, and can use nothing else.
---@param path string
---@return table[]? permissions
---@return gaterpc.Error? err  INVALID_ARGUMENT, and what is wrong where
function M.load(path)
  local file, why = io.open(path, "rb")
  if not file then return nil, errors.new("INVALID_ARGUMENT", "access list: " .. why) end
  local text, unreadable = file:read(LARGEST + 1)
  file:close()
  local function refuse(problem)
    return nil, errors.new("INVALID_ARGUMENT", ("access list %s: %s"):format(path, problem))
  end
  if unreadable then return refuse(unreadable) end
  text = text or ""
  if #text > LARGEST then return refuse "it is larger than 1 MiB" end
  local chunk, syntax = load(text, "@" .. path, "t", {})
  if not chunk then return refuse(syntax) end
  local ok, list = pcall(chunk)
  if not ok then return refuse(tostring(list)) end
  local permissions, problem = M.flatten(list)
  if not permissions then return refuse(problem) end
  return permissions
end

return M
