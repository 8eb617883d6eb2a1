#!/usr/bin/env gaterpc-host
-- Calls the service of service.lua by way of the broker of broker.lua.
--   gaterpc-host examples/client.lua [where the broker takes clients]
local gaterpc = require "gaterpc"

local client <close> = gaterpc.Client { broker = arg[1] or "tcp://127.0.0.1:7777", service = "SRkv" }

-- A call looks like any other call; only this coroutine waits. It raises when it fails.
print("replaced", client.SRkv.set("a", { 1, 2 }))
print("replaced", #client.SRkv.set("a", "three"))
print("the default service", client.get("a"))

-- A method that yields gives a stream.
for i in client.SRkv.count(3) do print("item", i) end

print("keyword arguments", client.SRkv.test("now", gaterpc.kwargs { time = 12 }))

-- Without raising, and with a time limit of its own.
local value, err = client:with({ timeout = 2 }):try("SRkv", "get", "b")
print("nothing there", value, err)
value, err = client:try("SRkv", "remove", "b")
print("no such method", value, err.code)

print("the broker itself", client.Gate.uptime() >= 0)
