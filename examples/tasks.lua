#!/usr/bin/env gaterpc-host
-- Tasks: several things at once, without threads and without callbacks.
local gaterpc = require "gaterpc"
local task = gaterpc.task

local function later(seconds, value)
  return function()
    task.sleep(seconds)
    return value
  end
end

-- A task runs beside the script; join() waits for its results, or raises its error.
local one = task.spawn(function(a, b) return a + b end, 1, 2)
print("spawn", one:join())

-- All at once: it takes as long as the longest. The first error would end the others.
print("all", table.unpack(task.all { later(0.02, "a"), later(0.01, "b"), later(0.03, "c") }))

-- The first one wins, the others are cancelled. Its index comes first.
print("race", task.race { later(30, "slow"), later(0.01, "quick") })

-- A limit for anything that waits.
local ok, err = pcall(task.timeout, 0.01, later(30))
print("timeout", ok, err)

-- A task that is cancelled runs its <close> variables.
local sleeper = task.spawn(function()
  local _ <close> = setmetatable({}, { __close = function() print("closed") end })
  task.sleep(30)
end)
task.sleep(0) -- let it begin
print("cancel", sleeper:cancel())
