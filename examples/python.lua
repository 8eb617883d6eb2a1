-- Beside the Python package gaterpc: a broker that serves its clients and workers, old (0.1) and new (0.2); a worker
-- and a client as they would stand at a Python broker. Here all three talk to each other, through real sockets.
local gaterpc = require "gaterpc"

local folder = os.tmpname()
os.remove(folder)
local front, back = "ipc://" .. folder .. ".front", "ipc://" .. folder .. ".back"

local broker = gaterpc.Majordomo { backend = back, users = { kv = "not a secret" } }
broker:bind(front)
broker:start()

local Kv = gaterpc.Worker:extend "Kv"
local store = {}
function Kv.interface:set(key, value) store[key] = value end
function Kv.interface:get(key) return store[key] end
function Kv.interface:count(n) for i = 1, n do coroutine.yield(i) end end

-- What the Python side calls zap_mechanism and zap_credentials goes into every message.
local plain = { "kv", "not a secret" }
local worker = gaterpc.Service { name = "SRkv" }:create_worker(Kv, {
  broker = back, dialect = "gate01", zap_mechanism = "PLAIN", zap_credentials = plain }):start()
assert(worker:wait_ready())

for _, dialect in ipairs { "gate01", "gate02" } do
  local client <close> = gaterpc.Client {
    broker = front, dialect = dialect, zap_mechanism = "PLAIN", zap_credentials = plain }
  client.SRkv.set("speaks", dialect)
  local sum = 0
  for i in client.SRkv.count(3) do sum = sum + i end
  print(client.SRkv.get "speaks", sum) --> gate01 6, then gate02 6
end
worker:stop()
broker:stop()
