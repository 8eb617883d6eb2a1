---Compression in pieces: encoders, decoders, and codecs of one's own.
---
---  local enc = codec.encoder("gzip", { level = 1 })
---  for piece in enc:pieces(text) do send(piece) end
---
---  local dec = codec.decoder("gzip", { max_bytes = 64 << 20 })
---  for bytes in dec:chunks(receive) do file:write(bytes) end
---
---The work is done in libuv's pool, ahead of the coroutine that takes the results, but not far;
---codecs of one's own, which are Lua, run here and let others run in between. One task at a time takes
---from an object; when it is cancelled while it waits, the object is closed.
---@module "gaterpc.codec"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local options = require "gaterpc.options"
local own = require "gaterpc.codec_own"
local pipe = require "gaterpc.codec_pipe"

local M = {
  PIECE_BYTES = 64 << 10,       -- default size of pieces
  PIECE_BYTES_MIN = 512,
  PIECE_BYTES_MAX = 64 << 20,
  MAX_BYTES = 256 << 20,        -- default ceiling of what may come out of a decoder
  MAX_LENGTH = 256 << 10,       -- default size of a decoder's steps
}

---What is known of a codec.
---@class gaterpc.Codec
---@field name string
---@field level_default? integer
---@field level_min? integer
---@field level_max? integer
---@field syncs boolean           flush() lets the other side decode everything that was written
---@field window_bytes? integer   memory that a stream may ask its decoder for, unless options say otherwise
---@field compressor? fun(level: integer?): table  of a codec of one's own
---@field decompressor? fun(): table

---@type table<string, gaterpc.Codec>
local codecs = {}
for _, each in ipairs(core.codecs()) do codecs[each.name] = each end

---The codec of this name, for names that come from elsewhere.
---@param name any
---@return gaterpc.Codec? codec
---@return gaterpc.Error? err  INVALID_ARGUMENT
function M.get(name)
  local found = codecs[name]
  if found then return found end
  return nil, errors.new("INVALID_ARGUMENT", options.unknown("codec", name, codecs))
end

---All names, sorted.
---@return string[]
function M.names()
  local names = {}
  for name in pairs(codecs) do names[#names + 1] = name end
  table.sort(names)
  return names
end

---A codec of one's own.
---@class gaterpc.CodecOptions
---@field name string
---@field compressor fun(level: integer?): table  makes an object with :compress(data) and :flush(), which both
---give bytes; flush ends the stream
---@field decompressor fun(): table  makes an object with :decompress(data, max_length), which gives at most so
---many bytes and is called with "" for more; with a field `eof` that becomes true at the end of the stream (without,
---a stream ends where its bytes end), and perhaps `needs_input` and `unused_data` as in Python
---@field level? integer  the default for compressor(level)
local known = { name = "string", compressor = "function", decompressor = "function", level = "integer" }

---Adds a codec of one's own. Its objects run on the Lua thread.
---@param given gaterpc.CodecOptions
---@return gaterpc.Codec
function M.register(given)
  options.check("codec.register", given, known)
  for _, field in ipairs { "name", "compressor", "decompressor" } do
    if given[field] == nil then error("codec.register: option '" .. field .. "' is missing", 2) end
  end
  local name = given.name
  if not name:find("^[%w_][%w_.%-]*$") or #name > 255 then
    error(("codec.register: '%s' cannot name a codec: letters, digits, '_', '.' and '-', at most 255"):format(name), 2)
  end
  if codecs[name] then error(("codec.register: there is a codec '%s' already"):format(name), 2) end
  codecs[name] = { name = name, compressor = given.compressor, decompressor = given.decompressor,
    level_default = given.level, syncs = false }
  return codecs[name]
end

-------------------------------------------------------------------------------------------------
-- Options
-------------------------------------------------------------------------------------------------

local function check_range(who, given, name, low, high, level)
  local value = given[name]
  if value and (value < low or value > high) then
    error(("%s: option '%s' must be from %d to %d, got %d"):format(who, name, low, high, value), level + 1)
  end
end

local function find(who, name, level)
  local found, err = M.get(name)
  if not found then error(("%s: %s"):format(who, err.message), level + 1) end
  return found
end

-------------------------------------------------------------------------------------------------
-- Encoders
-------------------------------------------------------------------------------------------------

---@class gaterpc.EncoderOptions
---@field level? integer        default the codec's own, its fastest (bz2: 9)
---@field piece_bytes? integer  the most bytes of a piece; default 65536
---@field whole? boolean        each piece can be decoded when it comes, without waiting for the next one; not bz2
---@field digest? boolean       of the bytes that go in, see Encoder:digest()
---@field mtime? integer        for the header of gzip, seconds since 1970; default now
local encoder_options = {
  level = "integer", piece_bytes = "integer", whole = "boolean", digest = "boolean", mtime = "integer",
}

---@class gaterpc.Encoder
---@field package core gaterpc.core.coder
local Encoder = { on_work = pipe.on_work, close = pipe.close }
local encoder_mt = { __name = "gaterpc.Encoder", __index = Encoder, __close = pipe.close }

local function new_encoder(who, name, given, level)
  local info = find(who, name, level + 1)
  given = options.check(who, given, encoder_options, level + 2)
  check_range(who, given, "piece_bytes", M.PIECE_BYTES_MIN, M.PIECE_BYTES_MAX, level + 1)
  check_range(who, given, "mtime", 0, 0xffffffff, level + 1)
  if info.level_min then check_range(who, given, "level", info.level_min, info.level_max, level + 1) end
  if given.whole and not info.syncs then
    error(("%s: pieces of %s cannot be whole, it has no sync points"):format(who, name), level + 1)
  end
  local self = setmetatable({ what = "encoder", lot = {}, lot_at = 1 }, encoder_mt)
  local whole = setmetatable({ piece_bytes = given.piece_bytes or M.PIECE_BYTES }, { __index = given })
  return pipe.open(self, core.encoder, own.encoder, info, whole, level + 1)
end

---Makes an encoder.
---@param name string
---@param given? gaterpc.EncoderOptions
---@return gaterpc.Encoder
function M.encoder(name, given)
  local made = new_encoder("codec.encoder", name, given, 2)
  return made
end

local function check_unfinished(self)
  if self.finished and not self.failure then error("the encoder has finished", 3) end
end

local function finish_encoder(self)
  self.finished = true
  return pipe.put(self, "finish", "")
end

-- All pieces of what was put in, those that were made before and not taken yet among them.
local function all_pieces(self, op, data)
  local list = table.move(self.lot, self.lot_at, #self.lot, 1, {})
  self.lot, self.lot_at = {}, 1
  local done, err = pipe.put(self, op, data)
  while done do
    local lot
    lot, err = pipe.take(self)
    if not lot then break end
    table.move(lot, 1, #lot, #list + 1, list)
  end
  if err then return nil, err end
  return list
end

---Takes bytes. Gives the pieces that are complete; the last bytes stay for the next one.
---@async
---@param data string
---@return string[]? pieces
---@return gaterpc.Error? err
function Encoder:write(data)
  pipe.check_ready(self)
  check_unfinished(self)
  pipe.check_bytes(data, "write")
  return all_pieces(self, "write", data)
end

---Brings out what was written, so that the other side can decode all of it; with codecs that have no
---sync points (bz2, one's own), what there is of it. Costs some bytes each time.
---@async
---@return string[]? pieces
---@return gaterpc.Error? err
function Encoder:flush()
  pipe.check_ready(self)
  check_unfinished(self)
  return all_pieces(self, "sync", "")
end

---Ends the stream and gives its last pieces.
---@async
---@return string[]? pieces
---@return gaterpc.Error? err
function Encoder:finish()
  pipe.check_ready(self)
  check_unfinished(self)
  self.finished = true
  return all_pieces(self, "finish", "")
end

---Puts bytes in without waiting; take() gives the pieces, in this or another task. How much waits is
---the caller's business: queued() tells.
---@param data? string  nil ends the stream
---@return true? done
---@return gaterpc.Error? err
function Encoder:feed(data)
  pipe.check_open(self)
  check_unfinished(self)
  if data == nil then return finish_encoder(self) end
  pipe.check_bytes(data, "feed")
  return pipe.put(self, "write", data)
end

-- The next piece, one by one.
local function next_piece(self, next_lot)
  while not self.lot[self.lot_at] do
    local lot, err = next_lot(self)
    if not lot then return nil, err end
    self.lot, self.lot_at = lot, 1
  end
  self.lot_at = self.lot_at + 1
  return self.lot[self.lot_at - 1]
end

---Waits for the next piece of what was fed.
---@async
---@return string? piece       nil without an error: the stream has ended
---@return gaterpc.Error? err
function Encoder:take()
  pipe.check_ready(self)
  return next_piece(self, pipe.take_fed)
end

---Bytes that were put in and wait for their turn, those that are gathered not counted.
---@return integer
Encoder.queued = pipe.queued

---The pieces of everything that the source gives, and of the end of the stream: for piece in
---enc:pieces(source). Raises when something fails.
---@async
---@param source string|string[]|fun(): string?  a function gives one string after the other, and nil at the
---end; it is called only when everything before is out
---@param is_ready? fun(): boolean  says that the function will not wait; then it is called earlier
---@return fun(): string?
function Encoder:pieces(source, is_ready)
  pipe.check_ready(self)
  check_unfinished(self)
  local read, may_wait = pipe.reader(source, is_ready, "pieces")
  local function next_lot() return pipe.take_pumped(self, read, may_wait, finish_encoder) end
  return pipe.each(self, function() return next_piece(self, next_lot) end)
end

---16 bytes (XXH3) of everything that was written. Needs the option `digest`.
---@return string?
Encoder.digest = pipe.digest

-------------------------------------------------------------------------------------------------
-- Decoders
-------------------------------------------------------------------------------------------------

---@class gaterpc.DecoderOptions
---@field max_bytes? integer     the most that may come out in all; default 256 MiB
---@field max_length? integer    the most that comes out at once; default 262144
---@field window_bytes? integer  memory that the stream may ask for; default 8 MiB (zstd), 64 MiB (lzma)
---@field digest? boolean        of the bytes that come out, see Decoder:digest()
local decoder_options = {
  max_bytes = "integer", max_length = "integer", window_bytes = "integer", digest = "boolean",
}

---@class gaterpc.Decoder
---@field package core gaterpc.core.coder
local Decoder = { on_work = pipe.on_work, close = pipe.close }
local decoder_mt = { __name = "gaterpc.Decoder", __index = Decoder, __close = pipe.close }

local function new_decoder(who, name, given, level)
  local info = find(who, name, level + 1)
  given = options.check(who, given, decoder_options, level + 2)
  check_range(who, given, "max_bytes", 1, 1 << 62, level + 1)
  check_range(who, given, "max_length", 1, 1 << 30, level + 1)
  check_range(who, given, "window_bytes", 1 << 10, 0xffffffff, level + 1)
  local self = setmetatable({ what = "decoder" }, decoder_mt)
  local whole = setmetatable({ max_bytes = given.max_bytes or M.MAX_BYTES,
    max_length = given.max_length or M.MAX_LENGTH }, { __index = given })
  return pipe.open(self, core.decoder, own.decoder, info, whole, level + 1)
end

---Makes a decoder.
---@param name string
---@param given? gaterpc.DecoderOptions
---@return gaterpc.Decoder
function M.decoder(name, given)
  local made = new_decoder("codec.decoder", name, given, 2)
  return made
end

---Takes bytes, cut in any way, and gives at most `max_length` bytes of what they decode to. When the
---second result is true there may be more of that, which write() without an argument gives.
---@async
---@param data? string
---@return string? bytes  perhaps none
---@return boolean|gaterpc.Error more  or the error: INVALID_ARGUMENT (not such a stream, or bytes behind its
---end), DATA_LOSS (damaged), RESOURCE_EXHAUSTED (more than max_bytes, or a window above window_bytes)
function Decoder:write(data)
  pipe.check_ready(self)
  if data ~= nil then
    pipe.check_bytes(data, "write")
    if not self.failure then pipe.check_drained(self) end
    pipe.put(self, "write", data)
  end
  local bytes, err = pipe.take(self)
  if err then return nil, err end
  if not bytes then return "", false end
  return bytes, self.core:pending()
end

-- Nothing follows, and everything is taken.
local function finish_decoder(self)
  local complete, code, text = self.core:finish()
  if not complete then return pipe.fail(self, code, text) end
  return true
end

-- What a reader gets: bytes, or behind the last ones nil, and the error of a stream that is incomplete.
local function or_end(self, bytes, err)
  if not bytes and not err then
    local _, incomplete = finish_decoder(self)
    return nil, incomplete
  end
  return bytes, err
end

---Says that nothing follows.
---@return true? complete
---@return gaterpc.Error? err  DATA_LOSS: the stream has not come to its end
function Decoder:finish()
  pipe.check_open(self)
  if self.failure then return nil, self.failure end
  pipe.check_drained(self)
  return finish_decoder(self)
end

---Puts bytes in without waiting; take() gives what they decode to, in this or another task. How much
---waits is the caller's business: queued() tells.
---@param data? string  nil: nothing follows
---@return true? done
---@return gaterpc.Error? err
function Decoder:feed(data)
  pipe.check_open(self)
  if self.finished then error("nothing can follow: feed() has said so", 2) end
  if data == nil then
    self.finished = true
    pipe.on_work(self)
    return true
  end
  pipe.check_bytes(data, "feed")
  return pipe.put(self, "write", data)
end

---Waits for the next bytes of what was fed, at most `max_length`.
---@async
---@return string? bytes       nil without an error: the stream has come to its end, and nothing follows
---@return gaterpc.Error? err  as of write() and finish()
function Decoder:take()
  pipe.check_ready(self)
  return or_end(self, pipe.take_fed(self))
end

---Bytes that were put in and wait for their turn.
---@return integer
Decoder.queued = pipe.queued

---The end of the stream has come, and its checksum was right.
---@return boolean
function Decoder:is_ended()
  return not (self.closed or self.failure or self.core:pending()) and self.core:ended()
end

---What the source decodes to, up to the end of the stream: for bytes in dec:chunks(source). Raises when
---something fails, also when the source ends before the stream does.
---@async
---@param source string|string[]|fun(): string?  a function gives one string after the other, and nil at the
---end; it is called only when everything before is out
---@param is_ready? fun(): boolean  says that the function will not wait; then it is called earlier
---@return fun(): string?
function Decoder:chunks(source, is_ready)
  pipe.check_ready(self)
  local read, may_wait = pipe.reader(source, is_ready, "chunks")
  local function stop() self.finished = true end
  return pipe.each(self, function() return or_end(self, pipe.take_pumped(self, read, may_wait, stop)) end)
end

---16 bytes (XXH3) of everything that came out. Needs the option `digest`.
---@return string?
Decoder.digest = pipe.digest

-------------------------------------------------------------------------------------------------
-- All at once
-------------------------------------------------------------------------------------------------

---Compresses a string.
---@async
---@param name string
---@param data string
---@param given? gaterpc.EncoderOptions
---@return string? compressed
---@return gaterpc.Error? err
function M.compress(name, data, given)
  pipe.check_bytes(data, "codec.compress")
  local enc <close> = new_encoder("codec.compress", name, given, 2)
  enc.finished = true
  local list, err = all_pieces(enc, "finish", data)
  if not list then return nil, err end
  return table.concat(list)
end

---Decompresses a string.
---@async
---@param name string
---@param data string
---@param given? gaterpc.DecoderOptions
---@return string? bytes
---@return gaterpc.Error? err  as Decoder:write() and finish()
function M.decompress(name, data, given)
  pipe.check_bytes(data, "codec.decompress")
  local dec <close> = new_decoder("codec.decompress", name, given, 2)
  local list = {}
  dec:feed(data)
  dec:feed(nil)
  while true do
    local bytes, err = dec:take()
    if err then return nil, err end
    if not bytes then return table.concat(list) end
    list[#list + 1] = bytes
  end
end

---16 bytes (XXH3, 128 bits, big-endian) that tell whether bytes have arrived as they were sent. Against
---damage, not against forgery.
---@param data string
---@return string
function M.digest(data)
  pipe.check_bytes(data, "codec.digest")
  local made = core.digest()
  made:add(data)
  return made:value()
end

return M
