---Codecs of users: their objects behind the same interface as the encoders and decoders in C.
---They run on the Lua thread, a slice at a time, and others have their turn in between. What they give
---is checked like everything else that comes from elsewhere.
---@module "gaterpc.codec_own"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local task = require "gaterpc.task"

local M = {}

local SLICE = 64 << 10 -- what goes in or comes out between two turns of others

-- Raised inside of an operation, and caught at its end.
local function fail(self, code, format, ...)
  error(errors.new(code, self.name .. ": " .. format:format(...)), 0)
end

-- The user's object, made by the first operation.
local function object(self, methods)
  if self.object then return self.object end
  local ok, made = pcall(self.make, self.level)
  if not ok then fail(self, "INTERNAL", "it cannot be made: %s", errors.text(made)) end
  for _, method in ipairs(methods) do
    local has, found = pcall(function() return made[method] end)
    if not has or found == nil then fail(self, "INTERNAL", "its object has no method '%s'", method) end
  end
  self.object = made
  return made
end

-- Calls a method of the user's, which gives bytes. A plain error gets `code`.
local function bytes_of(self, code, method, ...)
  local ok, bytes = pcall(self.object[method], self.object, ...)
  if not ok then
    if errors.is(bytes) then error(bytes, 0) end
    fail(self, code, "%s", errors.text(bytes))
  end
  if type(bytes) ~= "string" then
    fail(self, "INTERNAL", "%s gave a %s in place of a string", method, type(bytes))
  end
  return bytes
end

-- Runs a part of the work, which may wait. Results as take() has them.
local function run(self, work)
  local ok, result = pcall(work, self)
  if ok then return result end
  if not errors.is(result) then error(result, 0) end
  self.inputs, self.queued_bytes = {}, 0
  return nil, result.code, result.message
end

-- Others have their turn whenever a slice's worth of bytes went in or came out.
local function let_others_run(self)
  if self.worked < SLICE then return end
  self.worked = 0
  task.sleep(0)
end

local function common(info, given, make)
  return { name = info.name, make = make, summed = given.digest and core.digest() or nil,
    inputs = {}, queued_bytes = 0, worked = 0 }
end

-- Inputs are { op, data, at }: what comes next of data is at `at`.
local function put(self, op, data)
  self.inputs[#self.inputs + 1] = { op = op, data = data, at = 1 }
  self.queued_bytes = self.queued_bytes + #data
  return true
end

local function next_slice(self, input)
  local slice = input.data:sub(input.at, input.at + SLICE - 1)
  input.at = input.at + #slice
  self.queued_bytes = self.queued_bytes - #slice
  return slice
end

local function queued(self)
  return self.queued_bytes
end

local function add_digest(self, bytes)
  if self.summed then self.summed:add(bytes) end
end

local function digest(self)
  return self.summed and self.summed:value()
end

local function close(self)
  self.object = nil
end

-------------------------------------------------------------------------------------------------
-- Encoders
-------------------------------------------------------------------------------------------------

local Encoder = { put = put, queued = queued, digest = digest, close = close }
Encoder.__index = Encoder

---@package
function M.encoder(info, given)
  local self = common(info, given, info.compressor)
  self.level = given.level or info.level_default
  self.piece_bytes = given.piece_bytes
  self.open, self.open_len = {}, 0 -- what is not yet a piece
  return setmetatable(self, Encoder)
end

local function add(self, bytes)
  self.open[#self.open + 1] = bytes
  self.open_len = self.open_len + #bytes
end

-- Moves what is there into pieces; with `all` the last one may be short.
local function cut(self, pieces, all)
  local least = all and 1 or self.piece_bytes
  if self.open_len < least then return end
  local text, at = table.concat(self.open), 1
  while #text - at + 1 >= least do
    pieces[#pieces + 1] = text:sub(at, at + self.piece_bytes - 1)
    at = at + self.piece_bytes
  end
  self.open, self.open_len = { text:sub(at) }, math.max(0, #text - at + 1)
end

local function encode_some(self, input, pieces)
  if input.at <= #input.data then
    local slice = next_slice(self, input)
    add(self, bytes_of(self, "INTERNAL", "compress", slice))
    add_digest(self, slice)
    self.worked = self.worked + #slice
  end
  if input.at <= #input.data then return cut(self, pieces) end
  table.remove(self.inputs, 1)
  if input.op == "finish" then add(self, bytes_of(self, "INTERNAL", "flush")) end
  cut(self, pieces, input.op ~= "write")
end

local function encode(self)
  local pieces = {}
  object(self, { "compress", "flush" })
  while self.inputs[1] and #pieces == 0 do
    let_others_run(self)
    encode_some(self, self.inputs[1], pieces)
  end
  return #pieces > 0 and pieces or nil
end

function Encoder:take()
  return run(self, encode)
end

function Encoder:pending()
  return self.inputs[1] ~= nil
end

-------------------------------------------------------------------------------------------------
-- Decoders
-------------------------------------------------------------------------------------------------

local Decoder = { put = put, queued = queued, digest = digest, close = close }
Decoder.__index = Decoder

---@package
function M.decoder(info, given)
  local self = common(info, given, info.decompressor)
  self.max_bytes, self.total = given.max_bytes, 0
  self.max_length = given.max_length
  return setmetatable(self, Decoder)
end

-- Whether the object has more for us that needs no input.
local function has_more(self, bytes, limit)
  local needs_input = self.object.needs_input
  if needs_input == nil then return #bytes >= limit end
  return not needs_input
end

local function check_length(self, bytes, limit)
  if #bytes > limit then
    fail(self, "INTERNAL", "decompress gave %d bytes where at most %d were asked for", #bytes, limit)
  end
  self.total = self.total + #bytes
  if self.total > self.max_bytes then
    fail(self, "RESOURCE_EXHAUSTED", "it inflates to more than the %d bytes that are allowed", self.max_bytes)
  end
end

-- At the end of the stream nothing may be left.
local function check_end(self)
  self.eof = self.object.eof == true
  if not self.eof then return end
  local unused = self.object.unused_data
  if self.inputs[1] or type(unused) == "string" and unused ~= "" then
    fail(self, "INVALID_ARGUMENT", "there are bytes behind its end")
  end
end

local function decode_some(self)
  local input, slice = self.inputs[1], ""
  if not self.more then
    slice = next_slice(self, input)
    if input.at > #input.data then table.remove(self.inputs, 1) end
  end
  local limit = math.min(SLICE, self.max_length, self.max_bytes - self.total + 1)
  local bytes = bytes_of(self, "DATA_LOSS", "decompress", slice, limit)
  check_length(self, bytes, limit)
  check_end(self)
  local more = not self.eof and has_more(self, bytes, limit)
  if more and self.more and bytes == "" then
    fail(self, "INTERNAL", "decompress gives nothing, but wants no input either")
  end
  self.more = more
  self.worked = self.worked + math.max(#slice, #bytes)
  add_digest(self, bytes)
  return bytes
end

local function decode(self)
  object(self, { "decompress" })
  if self.eof and self.inputs[1] then fail(self, "INVALID_ARGUMENT", "there are bytes behind its end") end
  while self.more or self.inputs[1] do
    let_others_run(self)
    local bytes = decode_some(self)
    if bytes ~= "" then return bytes end
  end
end

function Decoder:take()
  return run(self, decode)
end

function Decoder:pending()
  return self.more or self.inputs[1] ~= nil
end

-- A codec that knows no end of its own ends where its bytes end.
function Decoder:finish()
  if self.eof or self.object and self.object.eof == nil then return true end
  return nil, "DATA_LOSS", self.name .. ": it ends too early"
end

function Decoder:ended()
  return self.eof or false
end

return M
