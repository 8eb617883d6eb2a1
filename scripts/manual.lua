-- Prints the table of settings for docs/manual.md; with --check FILE it exits with 1 when the file's table is
-- another one, and with --write FILE puts it in.
local settings = require "gaterpc".Settings

local function cell(value)
  if type(value) == "string" then return '`"' .. value .. '"`' end
  if value == nil then return "" end
  return "`" .. tostring(value) .. "`"
end

local lines = { "| setting | type | default | range | what it is for |", "| --- | --- | --- | --- | --- |" }
for _, row in ipairs(settings.list()) do
  local range = row.low and ("%s to %s"):format(row.low, row.high) or ""
  local kind = row.type == "number" and "seconds" or row.type
  lines[#lines + 1] = ("| `%s` | %s | %s | %s | %s |"):format(row.name, kind, cell(row.default), range, row.text)
end
local page = table.concat(lines, "\n") .. "\n"

local mode, path = ...
if not mode then return io.write(page) end

local file <close> = assert(io.open(path))
local before, old, after = file:read("a"):match("^(.*<!%-%- settings %-%->\n)(.*)(<!%-%- end of settings %-%->.*)$")
assert(before, path .. " has no marks for the table")
if mode == "--write" then
  local out <close> = assert(io.open(path, "w"))
  out:write(before, page, after)
elseif old ~= page then
  io.stderr:write(path, ": the table of settings is out of date: scripts/manual.lua --write ", path, "\n")
  os.exit(1)
end
