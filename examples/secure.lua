#!/usr/bin/env gaterpc-host
-- Broker, worker and client in three processes, with CURVE: who has no key that is known is not let in.
local gaterpc = require "gaterpc"
local role, dir, address = table.unpack(arg)
local function keys(name) return { key = dir .. "/" .. name .. ".key_secret", server = dir .. "/server.key" } end

if role == "worker" then
  local Vault = gaterpc.Worker:extend "Vault"
  function Vault.interface:open() return "gold" end
  gaterpc.Service { name = "Vault" }:create_worker(Vault, {
    broker = address, zap_mechanism = "CURVE", zap_credentials = keys "wes" }):run()
elseif role == "client" then
  for _, name in ipairs { "ann", "eve" } do
    local client = gaterpc.Client { broker = address, zap_mechanism = "CURVE", zap_credentials = keys(name) }
    for _, method in ipairs { "open", "close" } do print(name, method, client:try("Vault", method)) end
  end
else
  local uv = require "luv"
  dir = assert(uv.fs_mkdtemp "/tmp/secure-XXXXXX")
  for _, name in ipairs { "server", "wes", "ann", "eve" } do
    assert(gaterpc.curve.save(dir .. "/" .. name .. ".key", assert(gaterpc.curve.generate())))
  end
  assert(os.rename(dir .. "/eve.key", dir .. "/eve.unknown")) -- the broker lets in whose NAME.key is there
  assert(gaterpc.ZAPService {}:configure_curve("gate", dir):start())
  local broker = gaterpc.Majordomo { curve = dir .. "/server.key_secret", backend = "tcp://127.0.0.1:*", access = {
    { user = "wes", register = "Vault" }, { user = "ann", call = "Vault.open" } } }
  broker:connect_zap { mechanism = "CURVE" }
  local front = broker:bind "tcp://127.0.0.1:*"
  local _, back = broker:start():addresses()
  local worker = uv.spawn(uv.exepath(), { args = { arg[0], "worker", dir, back } })
  while broker:stats().workers == 0 do gaterpc.task.sleep(0.01) end
  local done = gaterpc.task.promise()
  uv.spawn(uv.exepath(), { args = { arg[0], "client", dir, front }, stdio = { nil, 1, 2 } },
    function() done:resolve() end)
  done:await()
  worker:kill "sigterm"
  broker:close()
  os.execute("rm -r " .. dir)
end
