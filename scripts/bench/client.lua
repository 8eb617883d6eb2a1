-- The client of the benchmark:
--   client.lua FRONTEND calls IN_FLIGHT SECONDS PID...  calls for so long, so many at a time
--   client.lua FRONTEND stream ITEMS PID...             reads one stream
-- Prints key=value; CPU is that of this process and of the PIDs together.
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local secured = dofile(arg[0]:match("^(.*)/") .. "/secured.lua")
local task = gaterpc.task

local TEXT = ("x"):rep(22) -- makes a request of 80 bytes, as bare.c has it
local SAMPLED = 16         -- coroutines that note how long their calls take

local client = gaterpc.Client(secured.options(arg[1]))

-- Nanoseconds of CPU that the threads of these processes have used.
local function cpu_ns(pids)
  local total = 0
  for _, pid in ipairs(pids) do
    local list = io.popen(("cat /proc/%s/task/*/schedstat"):format(pid))
    for line in list:lines() do total = total + tonumber(line:match("%d+")) end
    list:close()
  end
  return total
end

local function pids_from(first)
  local pids = { ("%d"):format(require("luv").os_getpid()) }
  for i = first, #arg do pids[#pids + 1] = arg[i] end
  return pids
end

local function quantile(sorted, q)
  return sorted[math.max(1, math.ceil(#sorted * q))] or 0
end

local function run_calls(in_flight, seconds, pids)
  local calls, samples = 0, {}
  local stop_at
  local function caller(sampled)
    local echo, now = client.Echo.echo, core.now
    while now() < stop_at do
      local before = sampled and now()
      if echo(TEXT) ~= TEXT then error "the echo is wrong" end
      calls = calls + 1
      if sampled then samples[#samples + 1] = now() - before end
    end
  end
  local function round(length)
    calls, samples = 0, {}
    stop_at = core.now() + length
    local callers = {}
    for i = 1, in_flight do
      callers[i] = function() caller(i <= SAMPLED) end
    end
    task.all(callers)
  end
  round(0.3)
  local cpu, before = cpu_ns(pids), core.now()
  round(seconds)
  local took = core.now() - before
  cpu = cpu_ns(pids) - cpu
  table.sort(samples)
  print(("calls_per_s=%.0f p50_us=%.1f p99_us=%.1f cpu_us_per_call=%.2f"):format(
    calls / took, quantile(samples, 0.5) * 1e6, quantile(samples, 0.99) * 1e6, cpu / 1000 / calls))
end

local function run_stream(items, pids)
  for _ = 1, 2 do client.Echo.echo(TEXT) end
  local cpu, before = cpu_ns(pids), core.now()
  local expected = 1
  for item in client.Echo.count(items) do
    if item ~= expected then error(("item %d came in place of %d"):format(item, expected)) end
    expected = expected + 1
  end
  local took = core.now() - before
  cpu = cpu_ns(pids) - cpu
  if expected ~= items + 1 then error "items are missing" end
  print(("items_per_s=%.0f cpu_us_per_item=%.2f"):format(items / took, cpu / 1000 / items))
end

if arg[2] == "calls" then
  run_calls(tonumber(arg[3]), tonumber(arg[4]), pids_from(5))
else
  run_stream(tonumber(arg[3]), pids_from(4))
end
client:close()
