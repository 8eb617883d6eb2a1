#!/usr/bin/env gaterpc-host
-- A pipeline: stages that run side by side with bounded queues between them, so a slow stage slows those
-- before it. Closing a queue ends the stage behind it when that has taken everything.
local gaterpc = require "gaterpc"
local task = gaterpc.task

local numbers = gaterpc.Queue { maxsize = 2 }
local squares = gaterpc.BoundedDict { maxsize = 3 } -- results, by number
local machines = gaterpc.Semaphore(2)               -- at most two computations at once
local start = gaterpc.Event()

task.spawn(function()
  start:wait()
  for n = 1, 6 do assert(numbers:put(n)) end
  numbers:close()
end)

local function compute(n)
  task.sleep(n % 3 / 100) -- they end in another order than they begin
  return n * n
end

local workers = {}
for i = 1, 4 do
  workers[i] = task.spawn(function()
    for n in numbers:items() do assert(squares:aset(n, machines:with(compute, n))) end
  end)
end

print("nothing yet", squares:apop(1, 0))
start:set()
for n = 1, 6 do print(n, assert(squares:apop(n, 5))) end -- in the order of the numbers
task.all(workers)
print("all done", #numbers, #squares, machines)
