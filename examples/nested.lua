#!/usr/bin/env gaterpc-host
-- Services that call each other: A calls B, which calls A again. A method that waits for an answer
-- does not keep its worker from other calls, and a deadline goes along from call to call.
local gaterpc = require "gaterpc"

local broker = gaterpc.Majordomo {}:start()
local client <close> = gaterpc.Client {}

local A = gaterpc.Worker:extend "A"

--- A word for `n` bottles: asks B, which asks us.
function A.interface:song(n)
  return client.B.verse(n)
end

function A.interface:plural(n)
  return n == 1 and "bottle" or "bottles"
end

local B = gaterpc.Worker:extend "B"

function B.interface:verse(n)
  return ("%d %s, %.0f s left"):format(n, client.A.plural(n), gaterpc.call().deadline)
end

local workers = {
  gaterpc.Service { name = "A" }:create_worker(A):start():wait_ready(),
  gaterpc.Service { name = "B" }:create_worker(B):start():wait_ready(),
}
for n = 3, 1, -1 do
  print(client:with({ timeout = 30 }).A.song(n))
end

for _, worker in ipairs(workers) do worker:stop() end
broker:stop()
