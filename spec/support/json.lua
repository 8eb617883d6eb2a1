---A strict reader of JSON (RFC 8259) for specs: what it takes, every reader takes. Raises where it does not.
local M = {}

M.null = setmetatable({}, { __tostring = function() return "null" end })

local escapes = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local read_value

local function fail(at, what)
  error(("JSON, byte %d: %s"):format(at, what), 0)
end

local function read_string(text, at)
  local parts = {}
  at = at + 1
  while true do
    local plain, stop = text:match('^([^"\\%c]*)()', at)
    parts[#parts + 1] = plain
    local c = text:sub(stop, stop)
    if c == '"' then
      local all = table.concat(parts)
      return utf8.len(all) and all or fail(stop, "not UTF-8"), stop + 1
    end
    if c ~= "\\" then fail(stop, "a control character or the end in a string") end
    local letter = text:sub(stop + 1, stop + 1)
    if letter == "u" then
      local digits = text:match("^%x%x%x%x", stop + 2) or fail(stop, "no four digits")
      parts[#parts + 1] = utf8.char(tonumber(digits, 16))
      at = stop + 6
    else
      parts[#parts + 1] = escapes[letter] or fail(stop, "an unknown escape")
      at = stop + 2
    end
  end
end

local function read_number(text, at)
  local integer, stop = text:match("^(-?%d+)()", at)
  if not integer or integer:find "^-?0%d" then fail(at, "no value") end
  local fraction, next_stop = text:match("^(%.%d+)()", stop)
  stop = next_stop or stop
  local exponent, last = text:match("^([eE][+-]?%d+)()", stop)
  return (fraction or exponent) and tonumber(integer .. (fraction or "") .. (exponent or "")) or
    math.tointeger(integer), last or stop
end

local function read_list(text, at, closing, read_one)
  local list = {}
  at = at + 1
  if text:sub(at, at) == closing then return list, at + 1 end
  while true do
    at = read_one(list, at)
    local c = text:sub(at, at)
    if c == closing then return list, at + 1 end
    if c ~= "," then fail(at, "no comma") end
    at = at + 1
  end
end

function read_value(text, at)
  local c = text:sub(at, at)
  if c == '"' then return read_string(text, at) end
  if c == "[" then
    return read_list(text, at, "]", function(list, from)
      list[#list + 1], from = read_value(text, from)
      return from
    end)
  end
  if c == "{" then
    return read_list(text, at, "}", function(map, from)
      if text:sub(from, from) ~= '"' then fail(from, "no key") end
      local key
      key, from = read_string(text, from)
      if map[key] ~= nil then fail(from, "a key is there twice: " .. key) end
      if text:sub(from, from) ~= ":" then fail(from, "no colon") end
      map[key], from = read_value(text, from + 1)
      return from
    end)
  end
  for word, value in pairs { ["true"] = true, ["false"] = false, null = M.null } do
    if text:sub(at, at + #word - 1) == word then return value, at + #word end
  end
  return read_number(text, at)
end

---The value of a text, which has nothing else and no spaces between its parts.
function M.read(text)
  local value, stop = read_value(text, 1)
  if stop ~= #text + 1 then fail(stop, "something behind the value") end
  return value
end

return M
