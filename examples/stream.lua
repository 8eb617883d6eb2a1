#!/usr/bin/env gaterpc-host
-- Streams: a method yields, its caller reads. A slow reader holds the method back, and a reader that
-- leaves ends it.
local gaterpc = require "gaterpc"

local Numbers = gaterpc.Worker:extend "Numbers"

--- All Fibonacci numbers, as long as somebody reads them.
function Numbers.interface:fibonacci()
  local _ <close> = setmetatable({}, { __close = function() self.closed = true end })
  local a, b = 0, 1
  while true do
    coroutine.yield(a)
    a, b = b, a + b
  end
end

function Numbers.interface:was_closed()
  return self.closed
end

local broker = gaterpc.Majordomo {}:start()
local worker = gaterpc.Service { name = "Numbers" }:create_worker(Numbers):start():wait_ready()
local client <close> = gaterpc.Client {}

do -- the usual way: <close> ends the stream however the block is left
  local numbers <close> = client.Numbers.fibonacci()
  for n in numbers do
    if n > 50 then break end
    print(n)
  end
end
while not client.Numbers.was_closed() do gaterpc.task.sleep(0.01) end
print("the method was closed")

worker:stop()
broker:stop()
