#!/usr/bin/env gaterpc-host
-- Compression without a service: in pieces and back, a bomb that does not go off, a codec of one's own.
local codec = require "gaterpc.codec"

local lines = {}
for i = 1, 50000 do lines[i] = ("%d bottles of beer on the wall\n"):format(i) end
local text = table.concat(lines)

-- In pieces: memory stays bounded however long the text is, and another thread does the work.
local enc = codec.encoder("zstd", { level = 3, piece_bytes = 1024, digest = true })
local dec = codec.decoder("zstd", { max_bytes = 4 << 20, digest = true })
local pieces, bytes = {}, 0
for piece in enc:pieces(text) do pieces[#pieces + 1] = piece end
for part in dec:chunks(pieces) do bytes = bytes + #part end
print("in pieces:", #pieces > 1, #pieces[1], bytes == #text, enc:digest() == dec:digest())

-- All at once. What comes from elsewhere has a ceiling.
local bomb = codec.compress("gzip", ("\0"):rep(2 << 20))
print("a bomb:", codec.decompress("gzip", bomb, { max_bytes = 1 << 20 }))

-- One's own: objects with compress and flush, and with decompress.
local turned = {}
for i = 97, 122 do
  turned[string.char(i)] = string.char((i - 97 + 13) % 26 + 97)
end
local rot13 = { rest = "", flush = function() return "" end }
function rot13.compress(_, data) return (data:gsub("%l", turned)) end
function rot13:decompress(data, max)
  data = self.rest .. data
  self.rest = data:sub(max + 1)
  return (data:sub(1, max):gsub("%l", turned))
end
local function new() return setmetatable({}, { __index = rot13 }) end

codec.register { name = "rot13", compressor = new, decompressor = new }
print("one's own:", codec.compress("rot13", "hello"), codec.decompress("rot13", "uryyb"))
