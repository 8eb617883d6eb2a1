---pretty: any value as text that a person can read.
---
---Nothing it meets can hurt: metamethods are not called, except __tostring of objects that have a
---__name, in protected mode; depth, entries and strings are limited; control characters are escaped.
---@module "gaterpc.pretty"

local msgpack = require "gaterpc.msgpack"

local M = {}

local WIDTH = 78
local DEPTH = 4          -- tables in tables
local ENTRIES = 100      -- of one table
local ALL_ENTRIES = 2000 -- of all tables of a value
local STRING = 200       -- bytes
local SORTED = 10000     -- keys; a larger table is shown in its own order

local KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then "
  .. "true until while"):gmatch "%a+" do
  KEYWORDS[word] = true
end

local HIDDEN = { zap_credentials = "***" } -- keys whose values are not for every eye

-------------------------------------------------------------------------------------------------
-- Strings
-------------------------------------------------------------------------------------------------

local ESCAPES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\""] = "\\\"", ["\\"] = "\\\\" }

local function escape_bytes(bytes)
  return (bytes:gsub(".", function(byte) return ESCAPES[byte] or ("\\x%02x"):format(byte:byte()) end))
end

-- Escapes what matches `plain`, the control characters that are two bytes of UTF-8, and what is no
-- UTF-8 at all.
local function escape(text, plain)
  local parts, at = {}, 1
  while at <= #text do
    local _, bad = utf8.len(text, at)
    local good = text:sub(at, (bad or #text + 1) - 1):gsub(plain, escape_bytes)
    parts[#parts + 1] = good:gsub("\xc2[\x80-\x9f]", escape_bytes)
    if not bad then break end
    parts[#parts + 1] = escape_bytes(text:sub(bad, bad))
    at = bad + 1
  end
  return table.concat(parts)
end

---Text for a terminal: what could control it is escaped. Tabs stay, and line ends unless `one_line`.
---@param text string
---@param one_line? boolean
---@return string
function M.safe(text, one_line)
  return escape(text, one_line and "[\0-\8\n-\31\127]" or "[\0-\8\v-\31\127]")
end

local function quote(text)
  local rest = ""
  if #text > STRING then
    rest = ("... (%d bytes)"):format(#text)
    local cut = STRING
    while cut > STRING - 4 and text:find("^[\x80-\xbf]", cut + 1) do cut = cut - 1 end -- a whole character
    text = text:sub(1, cut)
  end
  return "\"" .. escape(text, "[%c\"\\]") .. "\"" .. rest
end

-------------------------------------------------------------------------------------------------
-- Values
-------------------------------------------------------------------------------------------------

-- What tostring() says, or that it could not.
local function name_of(value, name)
  local ok, text = pcall(tostring, value)
  if not ok then text = ("<%s whose __tostring fails>"):format(name or type(value)) end
  if #text > 10 * STRING then text = text:sub(1, 10 * STRING) .. "..." end
  return M.safe(text, true)
end

local function scalar(value)
  if type(value) == "string" then return quote(value) end
  if rawequal(value, msgpack.null) then return "null" end
  return name_of(value)
end

local render

local function key_text(key, state)
  if type(key) == "string" and key:find "^[%a_][%w_]*$" and not KEYWORDS[key] then return key end
  if type(key) == "table" then return "[" .. render(key, state, DEPTH, 0) .. "]" end
  return "[" .. scalar(key) .. "]"
end

local RANKS = { number = 1, string = 2, boolean = 3 }

local function key_before(a, b)
  local rank_a, rank_b = RANKS[type(a)] or 4, RANKS[type(b)] or 4
  if rank_a ~= rank_b then return rank_a < rank_b end
  if rank_a <= 2 then return a < b end
  return rank_a == 3 and not a and b
end

-- The keys that are not of the sequence 1 to len, sorted.
local function other_keys(value, len)
  local keys = {}
  for key in next, value do
    if math.type(key) ~= "integer" or key < 1 or key > len then keys[#keys + 1] = key end
  end
  if #keys <= SORTED then table.sort(keys, key_before) end
  return keys
end

local function sequence_length(value)
  local len = 0
  while rawget(value, len + 1) ~= nil do len = len + 1 end
  return len
end

-- Texts of the entries, and whether they are a sequence of simple values.
local function entries_of(value, state, depth, indent)
  local entries, left = {}, 0
  local len = sequence_length(value)
  local keys = other_keys(value, len)
  local simple = #keys == 0
  local function add(text)
    state.left = state.left - 1
    entries[#entries + 1] = text
  end
  local function is_full()
    return #entries >= ENTRIES or state.left <= 0
  end
  for i = 1, len do
    if is_full() then left = left + 1 else
      local item = rawget(value, i)
      simple = simple and type(item) ~= "table"
      add(render(item, state, depth + 1, indent + 2))
    end
  end
  for _, key in ipairs(keys) do
    if is_full() then left = left + 1 else
      local text = key_text(key, state)
      local item = HIDDEN[key] or render(rawget(value, key), state, depth + 1, indent + 2, #text + 3)
      add(text .. " = " .. item)
    end
  end
  if left > 0 then entries[#entries + 1] = ("... %d more"):format(left) end
  return entries, simple
end

local function columns(text)
  return utf8.len(text) or #text
end

-- As many on a line as fit.
local function fill(entries, indent)
  local lines, line = {}, nil
  for i, entry in ipairs(entries) do
    if i < #entries then entry = entry .. "," end
    if line and indent + columns(line) + 1 + columns(entry) <= WIDTH then
      line = line .. " " .. entry
    else
      lines[#lines + 1] = line
      line = entry
    end
  end
  lines[#lines + 1] = line
  return lines
end

local function lay_out(entries, simple, indent, used)
  if #entries == 0 then return "{}" end
  local line = "{ " .. table.concat(entries, ", ") .. " }"
  if not line:find("\n", 1, true) and indent + used + columns(line) < WIDTH then return line end
  local margin = "\n" .. (" "):rep(indent + 2)
  local lines = simple and fill(entries, indent + 2) or entries
  local body = table.concat(lines, (simple and "" or ",") .. margin)
  return ("{%s%s\n%s}"):format(margin, body, (" "):rep(indent))
end

-- Tables that msgpack marks, and that are plain tables otherwise.
local MARKS = { ["gaterpc.map"] = true, ["gaterpc.array"] = true, ["gaterpc.kwargs"] = true }

-- How an object wants to be called: it has a metatable with __name.
local function object_name(value)
  local mt = debug.getmetatable(value)
  local name = type(mt) == "table" and rawget(mt, "__name")
  return type(name) == "string" and not MARKS[name] and name or nil
end

-- `used`: columns that are taken already on the line which the value begins.
function render(value, state, depth, indent, used)
  if type(value) ~= "table" then return scalar(value) end
  local name = object_name(value)
  if name then return name_of(value, name) end
  if state.open[value] then return "<cycle>" end
  if next(value) == nil then return "{}" end
  if depth > DEPTH or state.left <= 0 then return "{...}" end
  state.open[value] = true
  local entries, simple = entries_of(value, state, depth, indent)
  state.open[value] = nil
  return lay_out(entries, simple, indent, used or 0)
end

---@param value any
---@return string  of several lines when it does not fit on one
function M.text(value)
  return render(value, { open = {}, left = ALL_ENTRIES }, 1, 0)
end

return setmetatable(M, { __call = function(_, value) return M.text(value) end })
