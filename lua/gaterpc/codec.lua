---Compression in pieces: encoders, decoders, and codecs of one's own.
---
---  local enc = codec.encoder("gzip", { level = 1 })
---  for piece in enc:pieces(text) do send(piece) end
---
---  local dec = codec.decoder("gzip", { max_bytes = 64 << 20 })
---  for bytes in dec:chunks(receive) do file:write(bytes) end
---
---The work is done in libuv's pool while the calling coroutine waits; codecs of one's own, which are
---Lua, run here and let others run in between. An object does one operation at a time. To give up
---an operation (its task is cancelled) closes the object.
---@module "gaterpc.codec"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local options = require "gaterpc.options"
local own = require "gaterpc.codec_own"
local task = require "gaterpc.task"

local M = {
  PIECE_BYTES = 64 << 10,       -- default size of pieces
  PIECE_BYTES_MIN = 512,
  PIECE_BYTES_MAX = 64 << 20,
  MAX_BYTES = 256 << 20,        -- default ceiling of what may come out of a decoder
  MAX_LENGTH = 256 << 10,       -- default size of a decoder's steps
}

local STEP_BYTES = 256 << 10 -- an encoder's pieces come in lots of about so many bytes

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
-- Operations
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

-- Only from methods that users call, so level 3 is the user's line.
local function check_ready(self)
  task.check_wait(3)
  if self.closed then error(("the %s is closed"):format(self.what), 3) end
  if self.busy then error(("the %s has an operation under way"):format(self.what), 3) end
end

local function check_bytes(data, who)
  if type(data) ~= "string" then error(("%s takes a string, got %s"):format(who, type(data)), 3) end
end

-- The task that waits is cancelled.
local function give_up(self)
  self.waiting, self.busy = nil, false
  self:close()
end

-- A codec of one's own waits inside of its operation, so it is closed with the coroutine.
local guard_mt = { __close = function(guard)
  if guard.front.busy then give_up(guard.front) end
end }

---The pool has done its work.
---@package
local function on_work(self)
  local job = self.waiting
  self.waiting = nil
  if job then task.wake(job) end
end

local function await(self, under_way)
  if not under_way then return end
  self.waiting = task.current()
  task.wait(give_up, self)
end

-- A failure stays.
local function settle(self, result, more, text)
  self.busy = false
  if result == nil then
    self.failure = errors.new(more, text)
    self.core:close()
    return nil, self.failure
  end
  self.more = more
  return result, more
end

-- One operation, or what is left of the last one: its result, and whether there is more of it.
local function step(self, op, data)
  if self.failure then return nil, self.failure end
  local _ <close> = self.guard
  self.busy = true
  if op then
    await(self, self.core:start(op, data, self.step_bytes))
  else
    await(self, self.core:go_on(self.step_bytes))
  end
  return settle(self, self.core:result())
end

-- A function that gives one string after the other: of a string, or of a function that already does.
local function reader(source, who)
  if type(source) == "function" then
    return function()
      local data, err = source()
      if data == nil and err ~= nil then error(err, 0) end
      if data ~= nil and type(data) ~= "string" then
        error(("%s: its source gave a %s in place of a string"):format(who, type(data)), 0)
      end
      return data
    end
  end
  if type(source) ~= "string" then
    error(("%s takes a string or a function that gives strings, got %s"):format(who, type(source)), 3)
  end
  return function()
    local data = source
    source = nil
    return data
  end
end

local function close(self)
  self.closed = true
  self.core:close()
end

-- Of what has gone in (encoder) or come out (decoder) so far.
local function digest(self)
  if self.closed or self.failure then return nil end
  if self.busy then error(("the %s has an operation under way"):format(self.what), 2) end
  return self.core:digest()
end

-- The part that works: in C, or in Lua for a codec of one's own.
local function open(self, make, make_own, info, given, level)
  if info.compressor then
    self.core = make_own(info, given)
    self.guard = setmetatable({ front = self }, guard_mt)
    return self
  end
  local made, code, text = make(info.name, given, self)
  if not made then error(errors.new(code, ("%s: %s"):format(info.name, text)), level + 1) end
  self.core = made
  return self
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
local Encoder = { on_work = on_work, close = close }
local encoder_mt = { __name = "gaterpc.Encoder", __index = Encoder, __close = close }

local function new_encoder(who, name, given, level)
  local info = find(who, name, level + 1)
  given = options.check(who, given, encoder_options, level + 2)
  check_range(who, given, "piece_bytes", M.PIECE_BYTES_MIN, M.PIECE_BYTES_MAX, level + 1)
  check_range(who, given, "mtime", 0, 0xffffffff, level + 1)
  if info.level_min then check_range(who, given, "level", info.level_min, info.level_max, level + 1) end
  if given.whole and not info.syncs then
    error(("%s: pieces of %s cannot be whole, it has no sync points"):format(who, name), level + 1)
  end
  local self = setmetatable({ what = "encoder", step_bytes = STEP_BYTES }, encoder_mt)
  return open(self, core.encoder, own.encoder, info, given, level + 1)
end

---Makes an encoder.
---@param name string
---@param given? gaterpc.EncoderOptions
---@return gaterpc.Encoder
function M.encoder(name, given)
  local made = new_encoder("codec.encoder", name, given, 2)
  return made
end

-- All pieces of an operation.
local function all_pieces(self, op, data)
  local list, more = step(self, op, data)
  while list and more do
    local rest
    rest, more = step(self)
    if not rest then return nil, more end
    table.move(rest, 1, #rest, #list + 1, list)
  end
  return list, more or nil
end

local function check_encoder(self)
  if self.finished and not self.failure then error("the encoder has finished", 3) end
  if self.more then error("the encoder still has pieces to give: pieces() was left early", 3) end
end

---Takes bytes. Gives the pieces that are complete; the last bytes stay for the next one.
---@async
---@param data string
---@return string[]? pieces
---@return gaterpc.Error? err
function Encoder:write(data)
  check_ready(self)
  check_encoder(self)
  check_bytes(data, "write")
  return all_pieces(self, "write", data)
end

---Brings out what was written, so that the other side can decode all of it; with codecs that have no
---sync points (bz2, one's own), what there is of it. Costs some bytes each time.
---@async
---@return string[]? pieces
---@return gaterpc.Error? err
function Encoder:flush()
  check_ready(self)
  check_encoder(self)
  return all_pieces(self, "sync", "")
end

---Ends the stream and gives its last pieces.
---@async
---@return string[]? pieces
---@return gaterpc.Error? err
function Encoder:finish()
  check_ready(self)
  check_encoder(self)
  self.finished = true
  return all_pieces(self, "finish", "")
end

---The pieces of everything that the source gives, and of the end of the stream: for piece in
---enc:pieces(source). Takes from the source only when the pieces of what it gave before are out.
---Raises when something fails.
---@async
---@param source string|fun(): string?  a function gives one string after the other, and nil at the end
---@return fun(): string?
function Encoder:pieces(source)
  check_ready(self)
  check_encoder(self)
  local read = reader(source, "pieces")
  local list, at = {}, 0
  local function next_lot()
    if self.more then return step(self) end
    if self.finished then return nil end
    local data = read()
    if data then return step(self, "write", data) end
    self.finished = true
    return step(self, "finish", "")
  end
  return function()
    at = at + 1
    while not list[at] do
      check_ready(self)
      local lot, err = next_lot()
      if not lot then
        if err then error(err, 2) end
        return nil
      end
      list, at = lot, 1
    end
    return list[at]
  end
end

---16 bytes (XXH3) of everything that was written. Needs the option `digest`.
---@return string?
Encoder.digest = digest

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
local Decoder = { on_work = on_work, close = close }
local decoder_mt = { __name = "gaterpc.Decoder", __index = Decoder, __close = close }

local function new_decoder(who, name, given, level)
  local info = find(who, name, level + 1)
  given = options.check(who, given, decoder_options, level + 2)
  check_range(who, given, "max_bytes", 1, 1 << 62, level + 1)
  check_range(who, given, "max_length", 1, 1 << 30, level + 1)
  check_range(who, given, "window_bytes", 1 << 10, 0xffffffff, level + 1)
  local self = setmetatable({ what = "decoder", step_bytes = given.max_length or M.MAX_LENGTH }, decoder_mt)
  return open(self, core.decoder, own.decoder, info, given, level + 1)
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
---second result is true there is more of that, which write() without an argument gives.
---@async
---@param data? string
---@return string? bytes  perhaps none
---@return boolean|gaterpc.Error more  or the error: INVALID_ARGUMENT (not such a stream, or bytes behind its
---end), DATA_LOSS (damaged), RESOURCE_EXHAUSTED (more than max_bytes, or a window above window_bytes)
function Decoder:write(data)
  check_ready(self)
  if data ~= nil then
    check_bytes(data, "write")
    if self.more then error("the decoder still has bytes to give: write() without an argument gives them", 2) end
    return step(self, "write", data)
  end
  if self.failure then return nil, self.failure end
  if not self.more then return "", false end
  return step(self)
end

---Says that nothing follows.
---@return true? complete
---@return gaterpc.Error? err  DATA_LOSS: the stream has not come to its end
function Decoder:finish()
  if self.failure then return nil, self.failure end
  check_ready(self)
  if self.more then error("the decoder still has bytes to give: write() without an argument gives them", 2) end
  return settle(self, self.core:finish())
end

---The end of the stream has come, and its checksum was right.
---@return boolean
function Decoder:is_ended()
  return not (self.closed or self.failure or self.busy) and self.core:ended()
end

---What the source decodes to, up to the end of the stream: for bytes in dec:chunks(source). Takes from
---the source only when everything it gave before is out. Raises when something fails, also when
---the source ends before the stream does.
---@async
---@param source string|fun(): string?  a function gives one string after the other, and nil at the end
---@return fun(): string?
function Decoder:chunks(source)
  check_ready(self)
  local read = reader(source, "chunks")
  local finished = false
  local function next_bytes()
    if self.more then return self:write() end
    local data = read()
    if data then return self:write(data) end
    finished = true
    return self:finish()
  end
  return function()
    while not finished do
      local bytes, err = next_bytes()
      if not bytes then error(err, 2) end
      if not finished and bytes ~= "" then return bytes end
    end
  end
end

---16 bytes (XXH3) of everything that came out. Needs the option `digest`.
---@return string?
Decoder.digest = digest

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
  check_bytes(data, "codec.compress")
  local enc <close> = new_encoder("codec.compress", name, given, 2)
  local first, err = enc:write(data)
  if not first then return nil, err end
  local last
  last, err = enc:finish()
  if not last then return nil, err end
  return table.concat(first) .. table.concat(last)
end

---Decompresses a string.
---@async
---@param name string
---@param data string
---@param given? gaterpc.DecoderOptions
---@return string? bytes
---@return gaterpc.Error? err  as Decoder:write() and finish()
function M.decompress(name, data, given)
  check_bytes(data, "codec.decompress")
  local dec <close> = new_decoder("codec.decompress", name, given, 2)
  local list = {}
  local bytes, more = dec:write(data)
  while bytes do
    list[#list + 1] = bytes
    if not more then
      local complete, err = dec:finish()
      if not complete then return nil, err end
      return table.concat(list)
    end
    bytes, more = dec:write()
  end
  return nil, more
end

---16 bytes (XXH3, 128 bits, big-endian) that tell whether bytes have arrived as they were sent. Against
---damage, not against forgery.
---@param data string
---@return string
function M.digest(data)
  check_bytes(data, "codec.digest")
  local made = core.digest()
  made:add(data)
  return made:value()
end

return M
