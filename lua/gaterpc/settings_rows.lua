---The rows of the table of settings: read from what is written there, and checked when they are loaded, so that
---a slip in the table does not wait for somebody to use it.
---@module "gaterpc.settings_rows"

local options = require "gaterpc.options"
local types = require "gaterpc.settings_types"

local M = {}

---@class gaterpc.SettingRow
---@field [1] string  its name
---@field name string
---@field kind "setting"|"alias"|"constant"|"unused"
---@field type? string
---@field is gaterpc.SettingType
---@field default? any
---@field text string
---@field group? string
---@field low? number
---@field high? number
---@field choices? any[]
---@field option? table<string, string>
---@field follows? { [1]: string, [2]: number }
---@field secret? boolean
---@field hint? string
---@field wrong? fun(value: any): string?
---@field apply? fun(value: any, values: table<string, any>)
---@field alias_of? string[]
---@field constant? any
---@field unused? boolean

-------------------------------------------------------------------------------------------------
-- Checking a value
-------------------------------------------------------------------------------------------------

-- In the unit of the row.
local function range_of(row)
  return types.show(row.low, row.type), types.show(row.high, row.type) .. (row.is.unit == "s" and " s" or
    row.is.unit == "ms" and " ms" or "")
end

local function is_choice(row, value)
  for _, each in ipairs(row.choices) do
    if each == value then return true end
  end
  return false
end

local function choices_of(row)
  local shown = {}
  for i, each in ipairs(row.choices) do shown[i] = types.show(each) end
  return table.concat(shown, ", ")
end

-- What is wrong, and what was given, unless it is a secret.
local function problem(row, must, given, is_text)
  if row.secret then return "must be " .. must end
  return ("must be %s, got %s"):format(must, types.describe(given, is_text))
end

---A value as the row wants it; or nil and what is wrong, as in "must be an integer, got 'x'". The value may be
---false: test the text.
---@param row gaterpc.SettingRow
---@param given any
---@param is_text? boolean  it comes from the environment
---@return any value
---@return string? wrong
function M.check(row, given, is_text)
  local ok, value = row.is[is_text and "parse" or "check"](given)
  if not ok then return nil, problem(row, row.is.what, given, is_text) end
  if row.low and not (value >= row.low and value <= row.high) then
    local wrong = problem(row, ("from %s to %s"):format(range_of(row)), given, is_text)
    return nil, row.hint and wrong .. "; " .. row.hint or wrong
  end
  if row.choices and not is_choice(row, value) then
    return nil, problem(row, "one of " .. choices_of(row), given, is_text)
  end
  local wrong = row.wrong and row.wrong(value)
  if wrong then return nil, wrong end
  return value
end

---The options that come before a setting, by name.
---@param row { option?: table<string, string> }
---@return { name: string, classes: string[] }[]
function M.options(row)
  local by_name, list = {}, {}
  for class, name in pairs(row.option or {}) do
    local entry = by_name[name]
    if not entry then
      entry = { name = name, classes = {} }
      by_name[name] = entry
      list[#list + 1] = entry
    end
    table.insert(entry.classes, class)
  end
  for _, entry in ipairs(list) do table.sort(entry.classes) end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-------------------------------------------------------------------------------------------------
-- The table: every row is checked when it is loaded
-------------------------------------------------------------------------------------------------

local fields = {
  setting = { low = "number", high = "number", choices = "table", option = "table", follows = "table",
    secret = "boolean", hint = "string", wrong = "function", apply = "function" },
  alias = { alias_of = "string|table" },
  constant = { constant = "any" },
  unused = { unused = "boolean", secret = "boolean" },
}

local function require_that(condition, row, text, ...)
  if not condition then error(("settings table, row %s: %s"):format(tostring(row[1]), text:format(...)), 0) end
end

local function kind_of(row)
  return row.alias_of ~= nil and "alias" or row.constant ~= nil and "constant" or row.unused and "unused" or "setting"
end

local function check_fields(row, kind)
  local positions = kind == "setting" and 4 or kind == "alias" and 3 or 2
  local given = {}
  for field, value in pairs(row) do
    if math.type(field) == "integer" then
      require_that(field >= 1 and field <= positions, row, "a row of this kind has %d fields without names", positions)
    else
      given[field] = value
    end
  end
  local ok, err = pcall(options.check, "it", given, fields[kind], 0)
  require_that(ok, row, "%s", err)
  return positions
end

-- Makes a row of what is written in the table.
local function read_row(given, group)
  require_that(type(given[1]) == "string" and given[1]:find "^%u[%u%d_]*$", given, "a name is in capitals")
  local kind = kind_of(given)
  local positions = check_fields(given, kind)
  local row = { name = given[1], kind = kind, group = group, text = given[positions] }
  require_that(type(row.text) == "string" and #row.text > 5, given, "there is no text")
  for field, value in pairs(given) do
    if type(field) == "string" then row[field] = value end
  end
  if kind == "setting" or kind == "alias" then
    row.type = given[2]
    row.is = types.types[row.type]
    require_that(row.is, given, "unknown type '%s'", tostring(row.type))
  end
  if kind == "setting" then row.default = given[3] end
  if type(row.alias_of) == "string" then row.alias_of = { row.alias_of } end
  return row
end

local function check_setting(row)
  require_that(not row.is.base, { row.name }, "type %s is for aliases", row.type)
  require_that(row.is.ordered or not (row.low or row.high), { row.name }, "type %s has no range", row.type)
  if row.is.ordered then
    require_that(row.low and row.high and row.low <= row.high, { row.name }, "its range is missing or empty")
  end
  for _, choice in ipairs(row.choices or {}) do
    require_that((row.is.check(choice)), { row.name }, "one of its choices is not %s", row.is.what)
  end
  for class, name in pairs(row.option or {}) do
    require_that(type(class) == "string" and type(name) == "string", { row.name }, "option is { Class = 'name' }")
  end
  if row.default ~= nil then
    local value, wrong = M.check(row, row.default)
    require_that(not wrong, { row.name }, "its default %s", wrong)
    row.default = value
  end
end

local function check_follows(by_name, row)
  local leader = by_name[row.follows[1]]
  require_that(leader and leader.kind == "setting" and not leader.follows, { row.name }, "it follows no setting")
  require_that(row.default == leader.default * row.follows[2], { row.name }, "its default does not follow %s",
    leader.name)
  leader.followers = leader.followers or {}
  table.insert(leader.followers, row)
end

-- An alias has the range that all of its settings have, in its own unit.
local function check_alias(by_name, row)
  for _, name in ipairs(row.alias_of) do
    local target = by_name[name]
    require_that(target and target.kind == "setting", { row.name }, "%s is no setting", tostring(name))
    require_that((row.is.base or row.type) == target.type, { row.name }, "type %s is not that of %s", row.type, name)
    local from = row.is.from_base or function(value) return value end
    if target.low then
      row.low = math.max(row.low or -math.huge, from(target.low))
      row.high = math.min(row.high or math.huge, from(target.high))
    end
    row.secret = row.secret or target.secret
    row.choices = target.choices
    if row.default == nil and target.default ~= nil then row.default = from(target.default) end
  end
end

---Reads a table of rows; raises when one is wrong.
---@param list table  as in settings_table.lua
---@return table<string, gaterpc.SettingRow> by_name
---@return gaterpc.SettingRow[] in_order
function M.read(list)
  local by_name, in_order, group = {}, {}, nil
  for _, given in ipairs(list) do
    if given.group and given[1] == nil then
      group = given.group
    else
      local row = read_row(given, group)
      require_that(not by_name[row.name], given, "it is there twice")
      by_name[row.name] = row
      table.insert(in_order, row)
    end
  end
  for _, row in ipairs(in_order) do
    if row.kind == "setting" then check_setting(row) end
  end
  for _, row in ipairs(in_order) do
    if row.kind == "alias" then check_alias(by_name, row) end
    if row.follows then check_follows(by_name, row) end
  end
  return by_name, in_order
end

return M
