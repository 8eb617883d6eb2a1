-- Makes what the table of settings is shown in: the tables of docs/settings.md, between their marks, and the
-- annotations in lua/gaterpc/meta/settings.lua. `make docs` writes them; with --check it exits with 1 when one
-- is out of date. [--write | --check] [folder of the project]
local Settings = require "gaterpc".Settings
local rows_of = require "gaterpc.settings_rows"
local show = require "gaterpc.settings_show"
local types = require "gaterpc.settings_types"

local function code(text)
  return text == "" and "" or "`" .. text .. "`"
end

local function table_of(head, rows)
  local lines = { "| " .. table.concat(head, " | ") .. " |", "|" .. (" --- |"):rep(#head) }
  for _, row in ipairs(rows) do lines[#lines + 1] = "| " .. table.concat(row, " | ") .. " |" end
  return table.concat(lines, "\n") .. "\n"
end

local function options_of(row)
  local list = {}
  for i, each in ipairs(rows_of.options(row)) do
    list[i] = ("`%s` of %s"):format(each.name, table.concat(each.classes, ", "))
  end
  return table.concat(list, "; ")
end

local function kind_of(row)
  if row.unit == "bytes" then return "bytes" end
  if row.type == "flag" then return "0 or 1" end
  return row.lua .. (row.unit and ", " .. row.unit or "")
end

local tables = {}

function tables.settings()
  local text, group, rows = "", nil, {}
  local function close()
    if group then
      text = ("%s### %s\n\n%s\n"):format(text, group,
        table_of({ "setting", "type, unit", "default", "range", "what it is for", "option that comes first" }, rows))
    end
  end
  for _, row in ipairs(Settings.list()) do
    if row.group ~= group then
      close()
      group, rows = row.group, {}
    end
    rows[#rows + 1] = { code(row.name), kind_of(row), code(show.default(row)), show.range(row), row.text,
      options_of(row) }
  end
  close()
  return text
end

function tables.aliases()
  local rows = {}
  for _, row in ipairs(Settings.list "alias") do
    rows[#rows + 1] = { code(row.name), "`" .. table.concat(row.alias_of, "` and `") .. "`", kind_of(row),
      code(show.default(row)), show.range(row), row.text }
  end
  return table_of({ "name", "is", "type, unit", "default", "range", "what it is for" }, rows)
end

function tables.constants()
  local rows = {}
  for _, row in ipairs(Settings.list "constant") do
    rows[#rows + 1] = { code(row.name), code(types.show(row.value)), row.text }
  end
  return table_of({ "name", "value", "what it is" }, rows)
end

function tables.unused()
  local rows = {}
  for _, row in ipairs(Settings.list "unused") do rows[#rows + 1] = { code(row.name), row.text } end
  return table_of({ "name", "instead" }, rows)
end

-- The page with its tables made anew.
local function page_of(old)
  local missing = {}
  for name in pairs(tables) do missing[name] = true end
  local page = old:gsub("(<!%-%- table: (%l+) %-%->\n).-(<!%-%- end %-%->)", function(first, name, last)
    missing[name] = nil
    local make = assert(tables[name], "the page has a mark for a table that is not there")
    return first .. make() .. last
  end)
  if next(missing) then error("the page has no marks for the table of " .. next(missing)) end
  return page
end

local function annotations_of()
  local lines = {
    "---@meta _",
    "-- Made by scripts/manual.lua from the table of settings: make docs.",
    "",
    "---@class gaterpc.Settings",
  }
  for _, kind in ipairs { "setting", "alias" } do
    for _, row in ipairs(Settings.list(kind)) do
      local optional = kind == "setting" and row.default == nil and "?" or ""
      lines[#lines + 1] = ("---@field %s%s %s  %s%s"):format(row.name, optional, row.lua,
        row.unit and row.unit .. "; " or "", row.text:gsub("`", ""))
    end
  end
  for _, row in ipairs(Settings.list "constant") do
    lines[#lines + 1] = ("---@field %s string  fixed; %s"):format(row.name, row.text:gsub("`", ""))
  end
  for _, row in ipairs(Settings.list "unused") do
    lines[#lines + 1] = ("---@field %s any  changes nothing: %s"):format(row.name, row.text)
  end
  return table.concat(lines, "\n") .. "\n"
end

local files = {
  { "docs/settings.md", page_of },
  { "lua/gaterpc/meta/settings.lua", annotations_of },
}

local mode, folder = ...
if mode ~= "--write" and mode ~= "--check" then
  io.stderr:write("usage: scripts/manual.lua --write | --check [folder]\n")
  os.exit(2)
end

local function read(path)
  local file <close> = io.open(path)
  return file and file:read "a" or ""
end

for _, each in ipairs(files) do
  local path = (folder or ".") .. "/" .. each[1]
  local old = read(path)
  local new = each[2](old)
  if old ~= new and mode == "--check" then
    io.stderr:write(path, " is out of date: make docs\n")
    os.exit(1)
  elseif old ~= new then
    local file <close> = assert(io.open(path, "w"))
    assert(file:write(new))
  end
end
