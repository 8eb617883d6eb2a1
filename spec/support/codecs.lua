---What the specs of codecs share: data that shrinks well, badly and not at all, cuts, and bombs.
local codec = require "gaterpc.codec"

local M = {}

M.BUILT_IN = { "gzip", "zlib", "zstd", "lz4", "bz2", "lzma" }
M.SYNCING = { "gzip", "zlib", "zstd", "lz4", "lzma" }

---Bytes that do not shrink.
---@param len integer
---@param seed? integer
function M.noise(len, seed)
  local state, parts = seed or 1, {}
  for i = 1, (len + 7) // 8 do
    state = state * 6364136223846793005 + 1442695040888963407
    parts[i] = string.pack("<I8", state ~ (state >> 29))
  end
  return table.concat(parts):sub(1, len)
end

local digits = {}
for byte = 0, 255 do digits[string.char(byte)] = ("%02x"):format(byte) end

---Hex digits: they shrink to about a half.
function M.hex(len, seed)
  local text = M.noise((len + 1) // 2, seed):gsub(".", digits)
  return text:sub(1, len)
end

---Records that are much alike.
function M.records(len)
  local parts = {}
  for i = 1, len // 40 + 1 do parts[i] = ("%08d name%03d some text that repeats\n"):format(i, i % 977) end
  return table.concat(parts):sub(1, len)
end

---Data of all three kinds.
function M.mixed(len)
  local third = len // 3
  return M.hex(third) .. M.records(third) .. M.noise(len - 2 * third)
end

---Cuts a string into slices of at most `most` bytes, at random; some are empty.
function M.slices(data, most)
  local list, at = {}, 1
  while at <= #data do
    local len = math.random(0, most)
    list[#list + 1] = data:sub(at, at + len - 1)
    at = at + len
  end
  return list
end

---Appends the pieces that an encoder gave.
function M.append(list, pieces)
  return table.move(pieces, 1, #pieces, #list + 1, list)
end

---The pieces of all that the source gives.
function M.pieces_of(name, source, options)
  local list = {}
  for piece in codec.encoder(name, options):pieces(source) do list[#list + 1] = piece end
  return list
end

---Everything that one slice decodes to, or nil, err.
function M.decode_slice(dec, slice)
  local parts = {}
  local bytes, more = dec:write(slice)
  while bytes and more do
    parts[#parts + 1] = bytes
    bytes, more = dec:write()
  end
  if not bytes then return nil, more end
  return table.concat(parts) .. bytes
end

---Decodes slices one by one, each to its last byte. Returns everything, or nil, err.
function M.decode_slices(name, slices, options)
  local dec <close> = codec.decoder(name, options)
  local parts = {}
  for _, slice in ipairs(slices) do
    local bytes, err = M.decode_slice(dec, slice)
    if not bytes then return nil, err end
    parts[#parts + 1] = bytes
  end
  local complete, err = dec:finish()
  if not complete then return nil, err end
  return table.concat(parts)
end

---Every byte of a string on its own.
function M.bytes(data)
  local list = {}
  for i = 1, #data do list[i] = data:sub(i, i) end
  return list
end

-------------------------------------------------------------------------------------------------
-- Bombs
-------------------------------------------------------------------------------------------------

local bombs = {}

-- 1 MiB of zeros as deflate blocks that end at a whole byte, again and again.
local function deflated(times)
  local enc <close> = codec.encoder("zlib", { level = 9 })
  local list = enc:write(("\0"):rep(1 << 20))
  M.append(list, enc:flush())
  return table.concat(list):sub(3):rep(times)
end

function bombs.gzip(gib) return "\x1f\x8b\x08\0\0\0\0\0\0\xff" .. deflated(gib * 1024) end
function bombs.zlib(gib) return "\x78\xda" .. deflated(gib * 1024) end

-- Blocks that repeat a zero 128 KiB times.
function bombs.zstd(gib)
  return "\x28\xb5\x2f\xfd\0\x58" .. string.pack("<I3B", 1 << 17 << 3 | 1 << 1, 0):rep(gib * 8192)
end

-- Independent blocks of 64 KiB of zeros.
function bombs.lz4(gib)
  local zeros = codec.compress("lz4", ("\0"):rep(64 << 10))
  local block = string.unpack("<s4", zeros, 8)
  local header = "\x60\x40" -- independent blocks of 64 KiB, no checksums
  return "\x04\x22\x4d\x18" .. header .. "\x82" .. string.pack("<s4", block):rep(gib << 14)
end

-- One LZMA2 chunk of 1 MiB of zeros, again and again with a new state.
function bombs.lzma(gib)
  local zeros = codec.compress("lzma", ("\0"):rep(1 << 20), { level = 6 })
  local header_len = 12 + (zeros:byte(13) + 1) * 4
  local control, high, low, size = string.unpack(">BBBI2", zeros, header_len + 1)
  assert(control >= 0xe0 and (control & 0x1f) << 16 | high << 8 | low == (1 << 20) - 1, "not one chunk")
  local chunk = zeros:sub(header_len + 1, header_len + 6 + size + 1)
  local again = string.char(0xa0 | control & 0x1f) .. chunk:sub(2, 5) .. chunk:sub(7)
  return zeros:sub(1, header_len) .. chunk .. again:rep(gib * 1024 - 1)
end

-- 10 GiB of zeros, made once with bzip2 -9; its blocks do not end at whole bytes.
function bombs.bz2()
  local file <close> = assert(io.open("spec/fixtures/zeros-10gib.bz2", "rb"))
  return file:read "a"
end

---A stream of zeros that inflates to so many GiB (bz2: 10).
function M.bomb(name, gib)
  return bombs[name](gib)
end

return M
