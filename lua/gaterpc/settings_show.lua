---Settings as text, for gaterpc-host --print-settings and for the pages that scripts/manual.lua makes.
---@module "gaterpc.settings_show"

local settings = require "gaterpc.settings"
local types = require "gaterpc.settings_types"

local M = {}

---"0.05 to 60", "one of "a", "b"", or nothing.
---@param row table  of Settings.list()
---@return string
function M.range(row)
  if row.low then return types.show(row.low, row.type) .. " to " .. types.show(row.high, row.type) end
  local shown = {}
  for i, each in ipairs(row.choices or {}) do shown[i] = types.show(each, row.type) end
  return shown[1] and "one of " .. table.concat(shown, ", ") or ""
end

---@param row table
---@return string
function M.default(row)
  return row.default_text or types.show(row.default, row.type)
end

local columns = {
  { "setting", function(row) return row.name end },
  { "value", function(row) return types.show(row.value, row.type) end },
  { "unit", function(row) return row.unit or "" end },
  { "range", M.range },
  { "default", M.default },
  { "from", function(row) return row.where end },
}

---All settings, one a line, in columns.
---@return string
function M.lines()
  local lines, widths = { {} }, {}
  for i, column in ipairs(columns) do lines[1][i] = column[1] end
  for _, row in ipairs(settings.list()) do
    local line = {}
    for i, column in ipairs(columns) do line[i] = column[2](row) end
    lines[#lines + 1] = line
  end
  for i in ipairs(columns) do
    widths[i] = 0
    for _, line in ipairs(lines) do widths[i] = math.max(widths[i], #line[i]) end
  end
  for i, line in ipairs(lines) do
    local padded = {}
    for at, text in ipairs(line) do padded[at] = text .. (" "):rep(widths[at] - #text) end
    lines[i] = table.concat(padded, "  "):gsub("%s+$", "")
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
