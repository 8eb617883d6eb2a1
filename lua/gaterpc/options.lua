---Checks options tables: unknown names are errors that name the nearest known one. Makes them fit for the core.
---@module "gaterpc.options"

local M = {}

---How many letters must change to make b of a (Levenshtein), or `limit` when it is that many or more.
local function distance(a, b, limit)
  if math.abs(#a - #b) >= limit then return limit end
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and diagonal or diagonal + 1
      diagonal = row[j]
      row[j] = math.min(cost, row[j] + 1, row[j - 1] + 1)
    end
  end
  return math.min(row[#b], limit)
end

---The known name that is nearest to a wrong one.
---@param name string
---@param known table<string, any>
---@return string?
function M.nearest(name, known)
  local best, best_distance = nil, math.max(3, #name // 2 + 1)
  local names = {}
  for candidate in pairs(known) do names[#names + 1] = candidate end
  table.sort(names)
  for _, candidate in ipairs(names) do
    local d = distance(name:lower(), candidate:lower(), best_distance)
    if d < best_distance then best, best_distance = candidate, d end
  end
  return best
end

---"unknown option 'brokr', did you mean 'broker'?"
---@param what string
---@param name any
---@param known table<string, any>
---@return string
function M.unknown(what, name, known)
  local near = type(name) == "string" and M.nearest(name, known)
  return ("unknown %s '%s'%s"):format(what, tostring(name), near and (", did you mean '" .. near .. "'?") or "")
end

local function type_matches(value, expected)
  if expected == "any" then return true end
  for wanted in expected:gmatch("[^|]+") do
    if wanted == "integer" then
      if math.type(value) == "integer" then return true end
    elseif type(value) == wanted then
      return true
    end
  end
  return false
end

---Checks an options table against a table of name = "type" or "type|type" ("integer", "any" too).
---Raises at the caller of the function that called this one.
---@param who string  for the message: "Client"
---@param given table?
---@param known table<string, string>
---@param level? integer  as in error(); default 3
---@return table given
function M.check(who, given, known, level)
  level = level or 3
  if given == nil then return {} end
  if type(given) ~= "table" then
    error(("%s takes a table of options, got %s"):format(who, type(given)), level)
  end
  for name, value in pairs(given) do
    local expected = known[name]
    if not expected then error(("%s: %s"):format(who, M.unknown("option", name, known)), level) end
    if not type_matches(value, expected) then
      local article = expected:find "^[aeiou]" and "an" or "a"
      error(("%s: option '%s' must be %s %s, got %s"):format(
        who, name, article, expected:gsub("|", " or "), math.type(value) or type(value)), level)
    end
  end
  return given
end

---Seconds as the core has them: whole milliseconds, rounded up.
---@param seconds number
---@return integer
function M.to_ms(seconds)
  return math.ceil(seconds * 1000)
end

return M
