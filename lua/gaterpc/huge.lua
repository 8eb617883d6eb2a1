---HugeData: a result that travels compressed, in pieces, with flow control.
---
---  function Files.interface:read(name) return gaterpc.HugeData { data = read_all(name) } end
---  function Files.interface:dump()                       -- or fed while it flows
---    local huge = gaterpc.HugeData { compress_module = "zstd" }
---    gaterpc.task.spawn(function()
---      for line in lines() do huge.data:put(line) end
---      huge.data:close()
---    end)
---    return huge
---  end
---
---At the other end client.Files.read(name) gives the value; client:huge("Files", "read", name) gives its bytes piece
---by piece.
---@module "gaterpc.huge"

local codec = require "gaterpc.codec"
local errors = require "gaterpc.error"
local msgpack = require "gaterpc.msgpack"
local options = require "gaterpc.options"
local proxy = require "gaterpc.huge_proxy"
local queue = require "gaterpc.queue"
local settings = require "gaterpc.settings"
local task = require "gaterpc.task"

local M = {}

local FEED_MAX = 16 -- chunks that wait to be compressed

-------------------------------------------------------------------------------------------------
-- What a method returns
-------------------------------------------------------------------------------------------------

---@class gaterpc.HugeDataFeed
---@field private chunks gaterpc.Queue
---@field private ended boolean   by close()
---@field private begun boolean   its data is on its way
---@field private jobs table<gaterpc.CrewJob, true>  of executors, that were lent it and are not over
local feed = {}
local feed_mt = { __name = "gaterpc.HugeDataFeed", __index = feed }

local prepare -- what huge_jobs.lua wants done before there are any

---@package
---@param fn fun()
function M.before_feeds(fn)
  prepare = fn
end

local function new_feed()
  if prepare then prepare() end
  prepare = nil
  return setmetatable({ chunks = queue.new { maxsize = FEED_MAX }, ended = false, begun = false, jobs = {} }, feed_mt)
end

---Adds bytes. Waits while enough of them wait to be compressed and sent.
---@async
---@param chunk string
---@return true? put
---@return gaterpc.Error? err  CANCELLED: nobody takes them any more
function feed:put(chunk)
  if type(chunk) ~= "string" then error("put takes a string, got " .. type(chunk), 2) end
  if self.ended then error("the data was closed", 2) end
  if self.chunks:put(chunk) then return true end
  return nil, errors.new("CANCELLED", "nobody takes the data any more")
end

---Ends the data; with an error object or text the call fails with it.
---@param err? any
function feed:close(err)
  if self.ended then return end
  self.ended, self.failure = true, self.failure or err
  self.chunks:close()
end

---A job that was to feed it has failed: then it is not complete, unless it was closed before.
---@package
---@return boolean told  its reader, if there is one, will get the error
function feed:fail(err)
  if self.ended then return false end
  self.failure = self.failure or err
  self.chunks:close()
  return true
end

-- From now on the data may take longer than the call's deadline, and so may the jobs that feed it.
local function begin(self)
  self.begun = true
  for job in next, self.jobs do job.crew:drop_deadline(job) end
end

local function next_chunk(self)
  local chunk = not self.failure and self.chunks:get() or nil
  if self.failure then error(self.failure, 0) end
  return chunk
end

---@class gaterpc.HugeDataOptions
---@field data? any                 a value; without it, bytes are fed through the field `data` of the object
---@field compress_module? string   "gzip", "zlib", "zstd", "lz4", "bz2", "lzma" or one of codec.register; default
---Settings.HUGE_DATA_COMPRESS_MODULE
---@field compress_level? integer   default Settings.HUGE_DATA_COMPRESS_LEVEL for gzip and zlib, else the codec's own

---@class gaterpc.HugeData
---@field data gaterpc.HugeDataFeed?  where to put bytes, when it was made without data
---@field private module string
---@field private level? integer
---@field private packed? string|string[]
local mt = { __name = "gaterpc.HugeData" }

function mt:__tostring()
  return "huge data in " .. self.module
end

local function level_of(info, given)
  local name = info.name
  if given == nil and (name == "gzip" or name == "zlib") then return settings.HUGE_DATA_COMPRESS_LEVEL end
  return given
end

---Checks what to compress with, and fills in the defaults.
---@package
---@param module? string
---@param level? integer
---@return table? fields  module, level
---@return string? text   what is wrong
function M.check(module, level)
  local info, err = codec.get(module or settings.HUGE_DATA_COMPRESS_MODULE)
  if not info then return nil, "HugeData: " .. err.message end
  level = level_of(info, level)
  if level and info.level_min and (level < info.level_min or level > info.level_max) then
    return nil, ("HugeData: option 'compress_level' must be from %d to %d for %s, got %d"):format(
      info.level_min, info.level_max, info.name, level)
  end
  return { module = info.name, level = level }
end

---@param given? gaterpc.HugeDataOptions
---@return gaterpc.HugeData
function M.new(given)
  given = options.check("HugeData", given, proxy.options)
  local self, text = M.check(given.compress_module, given.compress_level)
  if not self then error(text, 2) end
  if given.data == nil then
    self.data = new_feed()
    return setmetatable(self, mt)
  end
  local _
  self.packed, _, text = proxy.pack(given.data)
  if not self.packed then error("HugeData: " .. text, 2) end
  return setmetatable(self, mt)
end

---@param value any
---@return boolean
function M.is(value)
  return getmetatable(value) == mt
end

-- For executors, see huge_jobs.lua.
M.metatable, M.feed_metatable = mt, feed_mt

---Huge data of a value that is packed already, in one string or several.
---@package
---@param packed string|string[]
---@param module? string
---@param level? integer
function M.of_packed(packed, module, level)
  local self, text = M.check(module, level)
  if not self then error(errors.new("INVALID_ARGUMENT", text), 0) end
  self.packed = packed
  return setmetatable(self, mt)
end

---Sends the pieces; runs in a task of its own. `send(module, raw, piece)` as core.worker:chunk.
---@async
---@package
---@return string digest
function M.transmit(self, send, wait)
  if self.data and self.data.begun then
    error(errors.new("INTERNAL", "a HugeData that is fed can be returned once, and this one was"), 0)
  end
  local _ <close> = self.data and self.data.chunks -- then who puts hears that nobody takes any more
  if self.data then begin(self.data) end
  local encoder <close> = codec.encoder(self.module, {
    level = self.level, piece_bytes = settings.HUGE_DATA_SIZEOF, whole = assert(codec.get(self.module)).syncs,
    digest = true })
  local source = self.packed or function() return next_chunk(self.data) end
  for piece in encoder:pieces(source, function() return not self.data.chunks:empty() end) do
    local more, code, text = send(self.module, self.data ~= nil, piece)
    if more == nil then error(errors.new(code, text), 0) end
    if not more then wait() end
  end
  return encoder:digest()
end

-------------------------------------------------------------------------------------------------
-- What a client gets
-------------------------------------------------------------------------------------------------

-- One compressed piece as the items of a message of a stream.
local piece_mt = { __index = { next = function(self)
  local piece = self.piece
  self.piece = nil
  return piece ~= nil, piece
end } }

---@package
function M.items(piece)
  return setmetatable({ piece = piece }, piece_mt)
end

---@class gaterpc.HugeReply
---@field private stream? gaterpc.StreamReply  of compressed pieces
---@field private whole? any                   the value, when it came in one message
---@field private begun? boolean                reading, or closed
local reply = {}
local reply_mt = { __name = "gaterpc.HugeReply", __index = reply }

local function fail(stream, err)
  stream:close()
  err.service, err.method = err.service or stream.service, err.method or stream.method
  error(err, 0)
end

-- Everything that the stream decodes to, bytes by bytes; raises what goes wrong.
local function decoded(stream)
  local found, err = codec.get(stream.codec)
  if not found then fail(stream, errors.new("INVALID_ARGUMENT", "the result is compressed by " .. err.message)) end
  local decoder = codec.decoder(stream.codec, { max_bytes = settings.HUGE_DATA_MAXBYTES, digest = true })
  local read = decoder:chunks(function() return stream:next() end, function() return stream:is_ready() end)
  return function()
    local ok, bytes = pcall(read)
    if not ok then
      decoder:close()
      if errors.is(bytes) then fail(stream, bytes) end
      error(bytes, 0)
    end
    if bytes then return bytes end
    local digest = decoder:digest()
    decoder:close()
    if stream:next() ~= nil then fail(stream, errors.new("DATA_LOSS", "pieces follow the end of the data")) end
    if stream.digest and stream.digest ~= digest then
      fail(stream, errors.new("DATA_LOSS", "the data is not what was sent: its digest differs"))
    end
  end
end

-- How a packed string of this first byte begins.
local heads = { [0xc4] = ">BB", [0xd9] = ">BB", [0xc5] = ">BI2", [0xda] = ">BI2", [0xc6] = ">BI4", [0xdb] = ">BI4" }

-- The head of a packed string: its own length and the string's; nil when it is something else.
local function string_head(bytes)
  local first = bytes:byte()
  if first >= 0xa0 and first <= 0xbf then return 1, first & 0x1f end
  local format = heads[first]
  if not format then return nil end
  local head = string.packsize(format)
  if #bytes < head then return 0 end -- more is needed to know
  local _, len = string.unpack(format, bytes)
  return head, len
end

---The value of a compressed result.
---@async
---@package
function M.value(stream)
  local parts = {}
  for bytes in decoded(stream) do parts[#parts + 1] = bytes end
  local all = table.concat(parts)
  if stream.raw then return all end
  if all == "" then fail(stream, errors.new("DATA_LOSS", "the compressed result is empty")) end
  local head, len = string_head(all)
  if head and head > 0 and #all == head + len then return all:sub(head + 1) end
  local value, code, text = msgpack.unpack(all)
  if value == nil and code then fail(stream, errors.new("DATA_LOSS", "the compressed result: " .. (text or code))) end
  return value
end

---@package
---@param stream? gaterpc.StreamReply
---@param whole? any
function M.reply(stream, whole)
  return setmetatable({ stream = stream, whole = whole }, reply_mt)
end

-- A reply of pieces is read once. Level as in error(), for the caller.
local function begin_reading(self, level)
  if not self.stream then return end
  if self.begun then error("the reply was read or closed before", level + 1) end
  self.begun = true
end

---The whole value.
---@async
---@return any
function reply:value()
  begin_reading(self, 2)
  if not self.stream then return self.whole end
  return M.value(self.stream)
end

local function pieces_of_string(read, stream)
  local bytes = read() or ""
  local head, len = string_head(bytes == "" and "\xc0" or bytes)
  while head == 0 do
    local more = read()
    if not more then break end
    bytes = bytes .. more
    head, len = string_head(bytes)
  end
  if not head or head == 0 then
    fail(stream, errors.new("INVALID_ARGUMENT",
      "the result is no string, and only strings come in pieces: take value()"))
  end
  local first, sum = bytes:sub(head + 1), 0
  return function()
    local piece = first or read()
    first = nil
    if piece == "" then piece = read() end
    sum = sum + #(piece or "")
    if not piece and sum ~= len then
      fail(stream, errors.new("DATA_LOSS", "the string has another length than it says"))
    end
    return piece
  end
end

---The bytes of a string, in pieces: for piece in reply:pieces() do ... end. Raises when something fails.
---@async
---@return fun(): string?
function reply:pieces()
  begin_reading(self, 2)
  if not self.stream then
    local whole = self.whole
    if type(whole) ~= "string" then
      error(errors.new("INVALID_ARGUMENT", "the result is a " .. type(whole) .. ", and only strings come in pieces"), 2)
    end
    return function()
      local piece = whole
      whole = nil
      return piece
    end
  end
  local read = decoded(self.stream)
  if self.stream.raw then return read end
  return pieces_of_string(read, self.stream)
end

-- Calls a function of luv that works in its pool, and waits for it.
local function await_fs(fn, ...)
  local done = task.promise()
  local args = table.pack(...)
  args[args.n + 1] = function(err, result) done:resolve(err, result) end
  fn(table.unpack(args, 1, args.n + 1))
  local err, result = done:await()
  if err then return nil, errors.new("INTERNAL", tostring(err)) end
  return result
end

---Writes the bytes of a string to a file, piece by piece, without blocking.
---@async
---@param path string
---@return integer? bytes
---@return gaterpc.Error? err  also of the call itself
function reply:write_to(path)
  if type(path) ~= "string" then error("write_to takes a path, got " .. type(path), 2) end
  if self.begun then error("the reply was read or closed before", 2) end
  local uv = require "luv"
  local file, err = await_fs(uv.fs_open, path, "w", tonumber("644", 8))
  if not file then
    self:close()
    return nil, err
  end
  local bytes = 0
  local ok, failure = pcall(function()
    for piece in self:pieces() do
      local written = assert(await_fs(uv.fs_write, file, piece, -1))
      if written ~= #piece then error(errors.new("INTERNAL", "the file took a part of the bytes only"), 0) end
      bytes = bytes + written
    end
  end)
  await_fs(uv.fs_close, file)
  if ok then return bytes end
  self:close()
  if errors.is(failure) then return nil, failure end
  error(failure, 0)
end

---Nobody wants the rest; the method's data ends.
function reply:close()
  if not self.stream then return end
  self.begun = true
  self.stream:close()
end
reply_mt.__close = reply.close

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
