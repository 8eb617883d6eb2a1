#!/usr/bin/env gaterpc-host
-- The broker, between clients and workers, with one internal handler of its own.
--   gaterpc-host examples/broker.lua [address for clients] [address for workers]
local gaterpc = require "gaterpc"

local Broker = gaterpc.Majordomo:extend "Broker"

--- Seconds since the start. Called as client.Gate.uptime(); 200 says that all is well.
function Broker.interface:uptime(request)
  gaterpc.log.debug("%s asks, call %d of %s", request.client_addr, request.request_id, request.method)
  return 200, os.time() - self.started
end

local broker = Broker { backend = arg[2] or "tcp://127.0.0.1:5555" }
broker:bind(arg[1] or "tcp://127.0.0.1:7777")
broker:run()
