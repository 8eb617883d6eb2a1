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

local M = {
  BoundedDict = require "gaterpc.bounded_dict",
  Client = require "gaterpc.client",
  HugeData = require "gaterpc.huge",
  Majordomo = broker.Majordomo,
  ProcessPoolExecutor = pool.ProcessPoolExecutor,
  AMajordomo = broker.Majordomo,
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
  AsyncZAPService = require "gaterpc.zap_service",
  hash_password = hash_password,
  call = worker.call,
  codec = require "gaterpc.codec",
  curve = require "gaterpc.curve",
  error = require "gaterpc.error",
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
