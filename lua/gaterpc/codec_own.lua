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

-- Runs an operation; its outcome is for result(). Waits inside, so nothing is under way afterwards.
local function run(self, operation)
  local ok, err = pcall(operation, self)
  self.err = not ok and err or nil
  if not ok and not errors.is(err) then error(err, 0) end
  return false
end

-- The first slice of a step comes at once, the others let everybody else run before.
local function let_others_run(self)
  if self.began then task.sleep(0) end
  self.began = true
end

local function common(info, given, make)
  return { name = info.name, make = make, level = given.level or info.level_default,
    summed = given.digest and core.digest() or nil }
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

local Encoder = { digest = digest, close = close }
Encoder.__index = Encoder

---@package
function M.encoder(info, given)
  local self = common(info, given, info.compressor)
  self.piece_bytes = given.piece_bytes or 64 << 10
  self.open, self.open_len, self.at = {}, 0, 1
  return setmetatable(self, Encoder)
end

-- Cuts what is there into pieces; with `all` the last one may be short.
local function cut(self, all)
  if self.open_len < self.piece_bytes and not all then return end
  local text, at = table.concat(self.open), 1
  while #text - at + 1 >= (all and 1 or self.piece_bytes) do
    self.list[#self.list + 1] = text:sub(at, at + self.piece_bytes - 1)
    self.made = self.made + #self.list[#self.list]
    at = at + self.piece_bytes
  end
  self.open, self.open_len = { text:sub(at) }, math.max(0, #text - at + 1)
end

local function put(self, bytes)
  self.open[#self.open + 1] = bytes
  self.open_len = self.open_len + #bytes
end

local function encode(self)
  local made = object(self, { "compress", "flush" })
  self.list, self.made, self.began = {}, 0, false
  while self.at <= #self.data and self.made < self.max_len do
    let_others_run(self)
    local slice = self.data:sub(self.at, self.at + SLICE - 1)
    put(self, bytes_of(self, "INTERNAL", "compress", slice))
    add_digest(self, slice)
    self.at = self.at + #slice
    cut(self)
  end
  self.rest = self.at <= #self.data
  if self.rest or self.op == "write" then return end
  if self.op == "finish" and made then put(self, bytes_of(self, "INTERNAL", "flush")) end
  cut(self, true)
end

function Encoder:start(op, data, max_len)
  self.op, self.data, self.at, self.max_len = op, data, 1, max_len
  return run(self, encode)
end

function Encoder:go_on(max_len)
  self.max_len = max_len
  return run(self, encode)
end

function Encoder:result()
  if self.err then return nil, self.err.code, self.err.message end
  if not self.rest then self.data = "" end
  return self.list, self.rest
end

-------------------------------------------------------------------------------------------------
-- Decoders
-------------------------------------------------------------------------------------------------

local Decoder = { digest = digest, close = close }
Decoder.__index = Decoder

---@package
function M.decoder(info, given, max_bytes)
  local self = common(info, given, info.decompressor)
  self.level = nil
  self.max_bytes, self.total = given.max_bytes or max_bytes, 0
  self.at, self.data = 1, ""
  return setmetatable(self, Decoder)
end

-- At the end of the stream nothing may be left.
local function check_end(self)
  local unused = self.object.unused_data
  if self.at <= #self.data or type(unused) == "string" and unused ~= "" then
    fail(self, "INVALID_ARGUMENT", "there are bytes behind its end")
  end
end

-- Whether the object has more for us that needs no input.
local function has_more(self, bytes, limit)
  local needs_input = self.object.needs_input
  if needs_input == nil then return #bytes >= limit end
  return not needs_input
end

local function decode_slice(self)
  local slice = self.more and "" or self.data:sub(self.at, self.at + SLICE - 1)
  self.at = self.at + #slice
  local limit = math.min(SLICE, self.max_len - self.made, self.max_bytes - self.total + 1)
  local bytes = bytes_of(self, "DATA_LOSS", "decompress", slice, limit)
  if #bytes > limit then
    fail(self, "INTERNAL", "decompress gave %d bytes where at most %d were asked for", #bytes, limit)
  end
  self.total = self.total + #bytes
  if self.total > self.max_bytes then
    fail(self, "RESOURCE_EXHAUSTED", "it inflates to more than the %d bytes that are allowed", self.max_bytes)
  end
  self.eof = self.object.eof == true
  local more = not self.eof and has_more(self, bytes, limit)
  if more and self.more and bytes == "" then
    fail(self, "INTERNAL", "decompress gives nothing, but wants no input either")
  end
  self.more = more
  self.made = self.made + #bytes
  self.parts[#self.parts + 1] = bytes
  add_digest(self, bytes)
end

local function decode(self)
  object(self, { "decompress" })
  self.parts, self.made, self.began = {}, 0, false
  while not self.eof and (self.more or self.at <= #self.data) and self.made < self.max_len do
    let_others_run(self)
    decode_slice(self)
  end
  if self.eof then check_end(self) end
end

function Decoder:start(_, data, max_len)
  self.data, self.at, self.max_len = data, 1, max_len
  return run(self, decode)
end

function Decoder:go_on(max_len)
  self.max_len = max_len
  return run(self, decode)
end

function Decoder:result()
  if self.err then return nil, self.err.code, self.err.message end
  local more = not self.eof and (self.more or self.at <= #self.data)
  if not more then self.data = "" end
  return table.concat(self.parts), more or false
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
