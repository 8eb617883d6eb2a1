---gaterpc: services, workers, clients and a Majordomo broker on ZeroMQ. Runs inside gaterpc-host.
---@module "gaterpc"

local broker = require "gaterpc.broker"
local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local interface = require "gaterpc.interface"
local msgpack = require "gaterpc.msgpack"
local options = require "gaterpc.options"
local pool = require "gaterpc.pool"
local worker = require "gaterpc.worker"

---Hashes a password (Argon2, libsodium's crypto_pwhash_str), for files of users; takes some 50 ms.
---@param text string
---@return string? hash
---@return gaterpc.Error? err
local function hash_password(text)
  if type(text) ~= "string" or text == "" then error("hash_password takes a password", 2) end
  local hash, code, why = core.hash_password(text)
  if not hash then return nil, errors.new(code, why) end
  return hash
end

local M = {
  AMajordomo = broker.Majordomo,
  AsyncZAPService = require "gaterpc.zap_service",
  BoundedDict = require "gaterpc.bounded_dict",
  Client = require "gaterpc.client",
  HugeData = require "gaterpc.huge",
  Majordomo = broker.Majordomo,
  ProcessPoolExecutor = pool.ProcessPoolExecutor,
  Event = require "gaterpc.event",
  Queue = require "gaterpc.queue",
  Semaphore = require "gaterpc.semaphore",
  Service = require "gaterpc.service",
  Settings = require "gaterpc.settings",
  StreamReply = require "gaterpc.stream",
  SyncManager = require "gaterpc.sync_manager",
  ThreadPoolExecutor = pool.ThreadPoolExecutor,
  Worker = worker.Worker,
  ZAPService = require "gaterpc.zap_service",
  call = worker.call,
  codec = require "gaterpc.codec",
  curve = require "gaterpc.curve",
  error = require "gaterpc.error",
  hash_password = hash_password,
  interface = interface.mark,
  log = require "gaterpc.log",
  message_pack = msgpack,
  task = require "gaterpc.task",
}

-- Values that Lua has no word for; see gaterpc.msgpack.
for _, name in ipairs { "null", "map", "array", "is_map", "is_array", "kwargs", "is_kwargs", "bin", "str", "ext",
  "timestamp", "timestamp_from", "timestamp_now", "uint64" } do
  M[name] = msgpack[name]
end

return setmetatable(M, {
  __name = "gaterpc",
  __index = function(_, name)
    error(options.unknown("name gaterpc." .. tostring(name) .. ", field", name, M), 2)
  end,
})
