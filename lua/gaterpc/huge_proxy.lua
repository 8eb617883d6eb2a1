---huge_proxy: HugeData as executors have it. What they return goes to the host, which compresses and sends it. What
---the host has lent them to be fed stays there, and each put is a question to the host.
---@module "gaterpc.huge_proxy"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local msgpack = require "gaterpc.msgpack"
local options = require "gaterpc.options"

local M = {}

local PIECE = 1 << 20 -- bytes of one question

-- ask("huge", operation, ...) -> true, ... | nil, code, text: over the port; and what HugeData is known by.
local ask, mt

-------------------------------------------------------------------------------------------------
-- Both sides
-------------------------------------------------------------------------------------------------

---A string of any length as msgpack, without a copy of it; others have the limits of values.
---@package
---@return (string|string[])? packed
---@return string? code
---@return string? text
function M.pack(value)
  if type(value) ~= "string" or #value < 1 << 16 then return msgpack.pack(value) end
  return { string.pack(">BI4", core.is_text(value) and 0xdb or 0xc6, #value), value }
end

-- Options of HugeData.
M.options = { data = "any", compress_module = "string", compress_level = "integer" }

-------------------------------------------------------------------------------------------------
-- To be fed
-------------------------------------------------------------------------------------------------

local feed = {}
M.feed = feed

local function put_piece(id, piece)
  local put, code, text = ask("huge", "put", id, piece)
  if put or code == "CANCELLED" then return put, code, text end
  error(errors.new(code, text), 3)
end

-- As gaterpc.HugeDataFeed:put() in the host; it blocks the executor.
function feed:put(chunk)
  if type(chunk) ~= "string" then error("put takes a string, got " .. type(chunk), 2) end
  if self.ended then error("the data was closed", 2) end
  for from = 1, #chunk, PIECE do
    local put, code, text = put_piece(self.id, #chunk > PIECE and chunk:sub(from, from + PIECE - 1) or chunk)
    if not put then return nil, errors.new(code, text) end
  end
  return true
end

function feed:close(err)
  if self.ended then return end
  self.ended = true
  if err == nil then
    ask("huge", "close", self.id)
  else
    ask("huge", "close", self.id, errors.describe(err))
  end
end

-------------------------------------------------------------------------------------------------
-- To be returned
-------------------------------------------------------------------------------------------------

---@param given gaterpc.HugeDataOptions
function M.new(given)
  given = options.check("HugeData", given, M.options)
  if given.data == nil then
    error("HugeData: in an executor it needs data; what is to be fed is made in the host and given to the job", 2)
  end
  local known, _, text = ask("huge", "check", given.compress_module, given.compress_level)
  if not known then error(text, 2) end
  local packed
  packed, _, text = M.pack(given.data)
  if not packed then error("HugeData: " .. text, 2) end
  return setmetatable({ module = given.compress_module, level = given.compress_level, packed = packed }, mt)
end

local function must(done, code, text)
  if not done then error(errors.new(code, text), 0) end
end

---Sends it to the host, as the result of the present job. Raises when that fails.
---@package
function M.hand_over(self)
  local packed = type(self.packed) == "table" and self.packed or { self.packed }
  for _, part in ipairs(packed) do
    for from = 1, #part, PIECE do must(ask("huge", "add", part:sub(from, from + PIECE - 1))) end
  end
  must(ask("huge", "return", self.module, self.level))
end

-------------------------------------------------------------------------------------------------
-- The start
-------------------------------------------------------------------------------------------------

---In an executor, once: see inside.lua.
---@package
---@param metatable table
---@param fn fun(...): true?, ...
function M.setup(metatable, fn)
  mt, ask = metatable, fn
  return M
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
