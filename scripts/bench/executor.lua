-- Executors beside methods in the worker: calls of a function that returns its argument, broker and client in
-- the same process; then without either; then what a state takes. All in one run, in turn, medians of rounds.
--   gaterpc-host scripts/bench/executor.lua [SECONDS [ROUNDS]]
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local uv = require "luv"

local seconds, rounds = tonumber(arg[1] or 1), tonumber(arg[2] or 3)
local TEXT = ("x"):rep(22)

gaterpc.log.level "warning"
gaterpc.Settings.BUSY_LIMIT = 0

local Echo = gaterpc.Worker:extend "Echo"
local function echo(_, value) return value end
local function work(_, n)
  local sum = 0
  for i = 1, n do sum = (sum + i) % 7 end
  return sum
end
for _, place in ipairs { "inline", "thread", "process" } do
  Echo.interface[place] = gaterpc.interface(echo, place)
  Echo.interface["work_" .. place] = gaterpc.interface(work, place)
end
local cores = uv.available_parallelism()
local pools = {
  thread = gaterpc.ThreadPoolExecutor { max_workers = cores },
  process = gaterpc.ProcessPoolExecutor { max_workers = cores },
}
gaterpc.Majordomo {}:start()
gaterpc.Service { name = "Echo" }:create_worker(Echo, {
  thread_executor = pools.thread, process_executor = pools.process }):start():wait_ready()
local client = gaterpc.Client {}

-- Calls per second of fn, so many at a time.
local function rate(in_flight, fn)
  local calls, callers, stop_at = 0, {}, core.now() + seconds
  for i = 1, in_flight do
    callers[i] = function()
      while core.now() < stop_at do
        if fn(TEXT) ~= TEXT then error "the echo is wrong" end
        calls = calls + 1
      end
    end
  end
  local began = core.now()
  gaterpc.task.all(callers)
  return calls / (core.now() - began)
end

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function of_pool(kind)
  local plain = function(value) return value end
  return function(text) return pools[kind]:run(plain, text) end
end

local rows = {
  { "method in the worker", client.Echo.inline }, { "method in a thread", client.Echo.thread },
  { "method in a process", client.Echo.process }, { "pool:run, threads", of_pool "thread" },
  { "pool:run, processes", of_pool "process" },
}
print(("medians of %d rounds of %g s each, in turn; broker, worker and client in one process; %d executors"):format(
  rounds, seconds, cores))
print(("%-22s %9s  %10s %12s"):format("", "in flight", "calls/s", "x in worker"))
for _, in_flight in ipairs { 1, 64 } do
  local rates = {}
  for _ = 1, rounds do
    for i, row in ipairs(rows) do
      rates[i] = rates[i] or {}
      table.insert(rates[i], rate(in_flight, row[2]))
    end
  end
  for i, row in ipairs(rows) do
    print(("%-22s %9d  %10.0f %12.2f"):format(row[1], in_flight, median(rates[i]), median(rates[i]) / median(rates[1])))
  end
end

-- 64 calls that compute, one after the other and at once, while a method in the worker answers.
local CALLS = 64

local function seconds_of(callers, method, n)
  local list, left = {}, CALLS
  for i = 1, callers do
    list[i] = function()
      while left > 0 do
        left = left - 1
        method(n)
      end
    end
  end
  local began = core.now()
  gaterpc.task.all(list)
  return core.now() - began
end

for _, kind in ipairs { "thread", "process" } do
  local method = client.Echo["work_" .. kind]
  local n = math.ceil(1e6 * 0.02 / (seconds_of(1, method, 1e6) / CALLS)) -- 20 ms each
  local ratios, answers, slowest = {}, 0, 0
  for i = 1, rounds do
    local alone, done = seconds_of(1, method, n), false
    local other = gaterpc.task.spawn(function()
      while not done do
        local began = core.now()
        client.Echo.inline(TEXT)
        answers, slowest = answers + 1, math.max(slowest, core.now() - began)
        gaterpc.task.sleep(0.001)
      end
    end)
    ratios[i] = alone / seconds_of(CALLS, method, n)
    done = true
    other:join()
  end
  print(("%d calls of 20 ms in a %-8s %5.2f times as fast at once as one after the other; meanwhile %d answers of the "
    .. "worker, the slowest in %.1f ms"):format(CALLS, kind, median(ratios), answers, slowest * 1000))
end

local ITEMS = 200000
for kind, pool in pairs(pools) do
  local began, count = core.now(), 0
  for _ in pool:run(function(n) for i = 1, n do coroutine.yield(i) end end, ITEMS) do count = count + 1 end
  assert(count == ITEMS)
  print(("items of a stream from a %-8s %10.0f items/s"):format(kind, count / (core.now() - began)))
end

local function status(pid, name)
  local file <close> = assert(io.open(("/proc/%s/%s"):format(pid, "smaps_rollup")))
  return tonumber(file:read("a"):match(name .. ":%s*(%d+) kB"))
end

-- What executors take that have done nothing much.
local before = status("self", "Pss")
local many = gaterpc.ThreadPoolExecutor { max_workers = 16 }
local jobs = {}
for i = 1, 16 do jobs[i] = many:submit(function() gaterpc.task.sleep(0.5) end) end
for _, job in ipairs(jobs) do job:await() end
print(("a thread: %.0f kB of Lua memory, %.0f kB of the program's"):format(
  many:stats().states[1].memory / 1024, (status("self", "Pss") - before) / 16))
local fresh = gaterpc.ProcessPoolExecutor { max_workers = 1 }
fresh:run("math.abs", 1)
local state = fresh:stats().states[1]
print(("a process: %.0f kB of Lua memory, %d kB resident, %d kB of it its own"):format(
  state.memory / 1024, status(state.pid, "Rss"), status(state.pid, "Private_Dirty")))
os.exit(0)
