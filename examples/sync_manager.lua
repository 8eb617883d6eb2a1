#!/usr/bin/env gaterpc-host
-- A queue to executors and one back, a shared count, and a dict: all in the host, used from everywhere.
local gaterpc = require "gaterpc"
local task = gaterpc.task

local manager = gaterpc.SyncManager()
local work, results = manager.Queue(8), manager.Queue(8) -- whoever puts the ninth waits
local done, by_length = manager.Value(0), manager.Dict()

local function count_letters()
  for text in work:each() do
    local letters = #text:gsub("%A", "")
    results:put { text, letters }
    by_length:add(letters)
    done:add()
  end
  return "no more work"
end

local threads = gaterpc.ThreadPoolExecutor { max_workers = 2 }
local processes = gaterpc.ProcessPoolExecutor { max_workers = 2 }
local jobs = { threads:submit(count_letters), processes:submit(count_letters) }

task.spawn(function()
  for _, text in ipairs { "one", "two", "three", "four", "five", "six", "seven" } do work:put(text) end
  work:close()
end)

local found = {}
for i = 1, 7 do found[i] = table.concat(results:get(), " ") end -- waits for each, and only this coroutine does
table.sort(found)
print(table.concat(found, ", "))
print(jobs[1]:await(), jobs[2]:await(), done:get() .. " done")
print("with three letters", by_length:get(3), "with four", by_length:get(4), "with five", by_length:get(5))
print("nothing left", results:get(0.01))
