-- What the benchmarks of codecs and of HugeData send. Reads this repository's sources, so it runs in its folder.
local codecs = dofile "spec/support/codecs.lua"

local M = { hex = codecs.hex }

---A quarter each: hex digits, the text of this repository's sources, noise, and records that are much alike.
function M.mixed(len)
  local quarter, parts = len // 4, {}
  parts[1] = codecs.hex(2 << 20, 2):rep(quarter >> 21)
  local files = {}
  for _, pattern in ipairs { "src/*/*.c", "lua/gaterpc/*.lua", "docs/*.md" } do
    local list <close> = io.popen("cat " .. pattern)
    files[#files + 1] = list:read "a"
  end
  local sources = table.concat(files)
  parts[2] = sources:rep(quarter // #sources + 1):sub(1, quarter)
  parts[3] = codecs.noise(quarter, 3)
  local records = {}
  for i = 1, quarter // 64 do
    records[i] = ("%010d %-20s %08x %-22s\n"):format(i, "name" .. i % 977, i * 2654435761 & 0xffffffff, "active")
  end
  parts[4] = table.concat(records):sub(1, quarter)
  return table.concat(parts)
end

---Writes it into a file of its own.
---@return string path
function M.file(data)
  local path = os.tmpname()
  local file <close> = assert(io.open(path, "wb"))
  file:write(data)
  return path
end

return M
