-- Broker, worker and client in one process: what this project does, in one screen.
local gaterpc = require "gaterpc"

local Greeter = gaterpc.Worker:extend "Greeter"

--- Say hello to somebody.
---@param name string
function Greeter.interface:hello(name)
  return "hello, " .. name
end

--- Stream the squares of 1 .. n, one reply each.
---@param n integer
function Greeter.interface:squares(n)
  for i = 1, n do coroutine.yield(i * i) end
end

function Greeter.interface:broken()
  error { code = "INVALID_ARGUMENT", message = "this one always fails" }
end

local broker = gaterpc.Majordomo {}:start()
local service = gaterpc.Service { name = "Greeter", description = "a friendly service" }
local worker = service:create_worker(Greeter):start()
worker:wait_ready()

local client <close> = gaterpc.Client {}
print("a call:    ", client.Greeter.hello("world"))
for square in client.Greeter.squares(5) do print("a stream:  ", square) end
local _, err = client:try("Greeter", "broken")
print("an error:  ", err)
print("its methods:")
for name, about in pairs(client.Greeter.get_interfaces()) do
  print("", name .. about.signature, about.doc and about.doc:match("[^\n]*") or "")
end

worker:stop()
broker:stop()
