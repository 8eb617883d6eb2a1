---Values as specs write them: bytes as digits, tables in tables.

local M = {}

---"00ff" of "\0\xff".
---@param bytes string
---@return string digits
function M.hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

---The bytes of hexadecimal digits; white space between them does not count.
---@param digits string
---@return string
function M.bytes(digits)
  return (digits:gsub("%s+", ""):gsub("%x%x", function(d) return string.char(tonumber(d, 16)) end))
end

---So many tables in each other, and in the last of them, if it is given, a value.
---@param depth integer
---@param innermost? any
function M.nest(depth, innermost)
  local t = innermost
  for _ = 1, depth do t = { t } end
  return t
end

return M
