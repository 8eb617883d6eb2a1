---The kinds of values that settings may have: how one is checked, read from text, and shown.
---@module "gaterpc.settings_types"

local M = {}

---@class gaterpc.SettingType
---@field lua string         the type for annotations
---@field unit? string
---@field what string        for messages: "must be ..."
---@field ordered? boolean   has a range
---@field check fun(value: any): boolean, any   whether it is one, and the value to keep
---@field parse fun(text: string): boolean, any the same for text from the environment
---@field base? string       of a unit of the original: the type that it is converted to
---@field to_base? fun(value: any): any
---@field from_base? fun(value: any): any

local function decimal(text)
  local number = text:find "^[+-]?[%d.]+[eE]?[+-]?%d*$" and tonumber(text)
  return number ~= nil and number ~= false, number
end

local function is_number(value)
  if type(value) ~= "number" then return false end
  return true, value + 0.0
end

local function is_integer(value)
  local integer = type(value) == "number" and math.tointeger(value)
  return type(integer) == "number", integer
end

local function parse_integer(text)
  if not text:find "^[+-]?%d+$" then return false end
  return is_integer(tonumber(text))
end

local scales = { [""] = 1, K = 1 << 10, M = 1 << 20, G = 1 << 30 }

local function parse_bytes(text)
  local digits, suffix = text:match "^(%d+)([KMG]?)$"
  local is_one, number = parse_integer(digits or "")
  local scale = scales[suffix]
  if not is_one or number > math.maxinteger // scale then return false end
  return true, number * scale
end

local function is_bytes(value)
  if type(value) == "string" then return parse_bytes(value) end
  return is_integer(value)
end

local words = {
  ["true"] = true, yes = true, on = true, ["1"] = true, ["false"] = false, no = false, off = false, ["0"] = false,
}

local function parse_boolean(text)
  local value = words[text:lower()]
  return value ~= nil, value
end

local function of_type(name)
  return function(value) return type(value) == name, value end
end

local function is_address(value)
  return type(value) == "string" and value:find "^%l+://." ~= nil and not value:find "%c", value
end

local function is_service(value)
  return type(value) == "string" and value ~= "" and #value <= 255 and not value:find "[%s%c]", value
end

---@type table<string, gaterpc.SettingType>
M.types = {
  seconds = { lua = "number", unit = "s", what = "a number of seconds", ordered = true,
    check = is_number, parse = decimal },
  number = { lua = "number", what = "a number", ordered = true, check = is_number, parse = decimal },
  integer = { lua = "integer", what = "an integer", ordered = true, check = is_integer, parse = parse_integer },
  bytes = { lua = "integer", unit = "bytes", what = 'an integer of bytes, or a size like "64K", "1M" or "2G"',
    ordered = true, check = is_bytes, parse = parse_bytes },
  boolean = { lua = "boolean", what = "a boolean", check = of_type "boolean", parse = parse_boolean },
  string = { lua = "string", what = "a string", check = of_type "string", parse = of_type "string" },
  address = { lua = "string", what = 'an address like "tcp://127.0.0.1:5555"', check = is_address, parse = is_address },
  service = { lua = "string", what = "a service's name: 1 to 255 printable characters without spaces",
    check = is_service, parse = is_service },
  table = { lua = "table", what = "a table", check = of_type "table", parse = function() return false end },

  -- Units of the original, for aliases.
  milliseconds = { lua = "number", unit = "ms", what = "a number of milliseconds", ordered = true,
    check = is_number, parse = decimal, base = "seconds",
    to_base = function(value) return value / 1000 end,
    from_base = function(value) return math.tointeger(value * 1000) or value * 1000 end },
  flag = { lua = "integer", what = "0 or 1", base = "boolean",
    check = function(value) return value == 0 or value == 1, value end,
    parse = function(text) return text == "0" or text == "1", tonumber(text) end,
    to_base = function(value) return value == 1 end,
    from_base = function(value) return value and 1 or 0 end },
}

---A number or a boolean is itself, an even number of bytes "64K"; a string is quoted, with escapes; of a table the
---names of its fields.
---@param value any
---@param kind? string  its type
---@return string
function M.show(value, kind)
  if value == nil then return "" end
  if type(value) == "string" then
    return '"' .. value:gsub('[%c"\\]', function(c)
      return c:find "%c" and ("\\x%02x"):format(c:byte()) or "\\" .. c
    end) .. '"'
  end
  if type(value) == "table" then
    local names = {}
    for name in pairs(value) do names[#names + 1] = tostring(name) end
    table.sort(names)
    return "{ " .. table.concat(names, ", ") .. " }"
  end
  if kind == "bytes" then
    for _, suffix in ipairs { "G", "M", "K" } do
      if value ~= 0 and value % scales[suffix] == 0 then return value // scales[suffix] .. suffix end
    end
  end
  if math.type(value) == "float" then return ("%.14g"):format(value) end
  return tostring(value)
end

---"string 'abc'", "float 2.5": what somebody gave instead of what was wanted.
---@param value any
---@param is_text? boolean  it comes from where everything is text
---@return string
function M.describe(value, is_text)
  if type(value) == "string" then
    return (is_text and "'" or "string '") .. (#value > 60 and value:sub(1, 57) .. "..." or value) .. "'"
  end
  if type(value) == "number" then return math.type(value) .. " " .. M.show(value) end
  return type(value)
end

return M
