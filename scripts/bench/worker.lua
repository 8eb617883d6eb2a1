-- The worker of the benchmark: worker.lua BACKEND.
local gaterpc = require "gaterpc"
local secured = dofile(arg[0]:match("^(.*)/") .. "/secured.lua")

local Echo = gaterpc.Worker:extend "Echo"

function Echo.interface:echo(text)
  return text
end

function Echo.interface:count(n)
  for i = 1, n do coroutine.yield(i) end
end

local worker = gaterpc.Service { name = "Echo" }:create_worker(Echo, secured.options(arg[1]))
worker:start()
worker:wait_ready(30)
print "ready"
io.stdout:flush()
worker:run()
