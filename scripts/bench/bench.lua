-- The benchmark: ours beside bare libzmq, in turn and in one run, because this is about ratios.
--   gaterpc-host scripts/bench/bench.lua BARE [SECONDS [ROUNDS]]
-- BARE is bare.c compiled: client, ROUTER-ROUTER forwarder and worker in C with frames of the same
-- number and size. Ours has the client and the method in Lua. Three processes each.
local uv = require "luv"
local task = require "gaterpc.task"

local bare, seconds, rounds = arg[1], tonumber(arg[2] or 2), tonumber(arg[3] or 3)
local dir = arg[0]:match("^(.*)/") or "."
local host = uv.exepath()
local STREAM_ITEMS = 1000000

-- Runs a program; lines() gives what it prints, line by line.
local function start(path, args)
  local out = uv.new_pipe()
  local self = { lines = {}, ended = task.promise(), changed = task.promise() }
  local rest = ""
  self.handle, self.pid = uv.spawn(path, { args = args, stdio = { nil, out, 2 } }, function(code)
    self.ended:resolve(code)
  end)
  assert(self.handle, self.pid)
  out:read_start(function(_, data)
    if not data then
      out:close()
      self.ended:await(10)
      return self.changed:resolve()
    end
    rest = rest .. data
    for line in rest:gmatch("([^\n]*)\n") do table.insert(self.lines, line) end
    rest = rest:match("[^\n]*$")
    local changed = self.changed
    self.changed = task.promise()
    changed:resolve()
  end)
  return self
end

local function line(process)
  while #process.lines == 0 do
    if process.ended:is_settled() then error "a process of the benchmark has failed" end
    process.changed:await(120)
  end
  return table.remove(process.lines, 1)
end

local function fields(text)
  local found = {}
  for name, value in text:gmatch("([%w_]+)=([%d.]+)") do found[name] = tonumber(value) end
  return found
end

local function run_bare(...)
  local process = start(bare, { ... })
  local text = line(process)
  process.ended:await(30)
  return fields(text)
end

local function run_ours(transport, ...)
  local base = os.tmpname()
  os.remove(base)
  local front = transport == "ipc" and "ipc://" .. base .. ".f" or "tcp://127.0.0.1:*"
  local back = transport == "ipc" and "ipc://" .. base .. ".b" or "tcp://127.0.0.1:*"
  local broker = start(host, { dir .. "/broker.lua", front, back })
  front, back = line(broker):match("(%S+)%s+(%S+)")
  local worker = start(host, { dir .. "/worker.lua", back })
  line(worker)
  local args = { dir .. "/client.lua", front, ... }
  table.insert(args, ("%d"):format(broker.pid))
  table.insert(args, ("%d"):format(worker.pid))
  local client = start(host, args)
  local text = line(client)
  client.ended:await(30)
  for _, process in ipairs { worker, broker } do
    process.handle:kill "sigkill"
    process.ended:await(10)
  end
  os.remove(base .. ".f")
  os.remove(base .. ".b")
  return fields(text)
end

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function column(results, name)
  local values = {}
  for i, result in ipairs(results) do values[i] = result[name] or 0 end
  return median(values)
end

local function ratio(ours, theirs, name)
  local values = {}
  for i = 1, #ours do values[i] = ours[i][name] / theirs[i][name] end
  return median(values)
end

local function compare(run_theirs, run_own)
  local theirs, ours = {}, {}
  for i = 1, rounds do
    theirs[i] = run_theirs()
    ours[i] = run_own()
  end
  return theirs, ours
end

print(("medians of %d rounds of %g s each, in turn; b/a is the median of the rounds' ratios"):format(rounds, seconds))
print(("%-4s %9s  %11s %9s %9s %8s   %11s %9s %9s %8s   %6s %8s"):format("", "in flight",
  "(a) calls/s", "p50 us", "p99 us", "CPU us", "(b) calls/s", "p50 us", "p99 us", "CPU us", "b/a", "p50 b/a"))
for _, transport in ipairs { "ipc", "tcp" } do
  for _, in_flight in ipairs { 1, 64, 1000 } do
    local a, b = compare(
      function() return run_bare("one", transport, tostring(in_flight), tostring(seconds)) end,
      function() return run_ours(transport, "calls", tostring(in_flight), tostring(seconds)) end)
    print(("%-4s %9d  %11.0f %9.0f %9.0f %8.2f   %11.0f %9.0f %9.0f %8.2f   %6.2f %8.2f"):format(transport, in_flight,
      column(a, "calls_per_s"), column(a, "p50_us"), column(a, "p99_us"), column(a, "cpu_us_per_call"),
      column(b, "calls_per_s"), column(b, "p50_us"), column(b, "p99_us"), column(b, "cpu_us_per_call"),
      ratio(b, a, "calls_per_s"), ratio(b, a, "p50_us")))
  end
  local a, b = compare(
    function() return run_bare("stream", transport, tostring(STREAM_ITEMS), "1024") end,
    function() return run_ours(transport, "stream", tostring(STREAM_ITEMS)) end)
  print(("%-4s %9s  %11.0f %9s %9s %8.2f   %11.0f %9s %9s %8.2f   %6.2f"):format(transport, "stream/s",
    column(a, "items_per_s"), "", "", column(a, "cpu_us_per_item"),
    column(b, "items_per_s"), "", "", column(b, "cpu_us_per_item"), ratio(b, a, "items_per_s")))
end
