-- The benchmark: ours beside bare libzmq, in turn and in one run, because this is about ratios.
--   gaterpc-host scripts/bench/bench.lua BARE [SECONDS [ROUNDS]]
-- BARE is bare.c compiled: client, ROUTER-ROUTER forwarder and worker in C with frames of the same
-- number and size. Ours has the client and the method in Lua. Three processes each.
local bare, seconds, rounds = arg[1], tonumber(arg[2] or 2), tonumber(arg[3] or 3)
local dir = arg[0]:match("^(.*)/") or "."
local runs = dofile(dir .. "/rounds.lua")
local column, ratio = runs.column, runs.ratio
local STREAM_ITEMS = 1000000

local function run_bare(...)
  return runs.run(bare, { ... })
end

local function run_ours(transport, ...)
  return runs.three(dir, transport, ...)
end

print(("medians of %d rounds of %g s each, in turn; b/a is the median of the rounds' ratios"):format(rounds, seconds))
print(("%-4s %9s  %11s %9s %9s %8s   %11s %9s %9s %8s   %6s %8s"):format("", "in flight",
  "(a) calls/s", "p50 us", "p99 us", "CPU us", "(b) calls/s", "p50 us", "p99 us", "CPU us", "b/a", "p50 b/a"))
for _, transport in ipairs { "ipc", "tcp" } do
  for _, in_flight in ipairs { 1, 64, 1000 } do
    local a, b = runs.compare(rounds,
      function() return run_bare("one", transport, tostring(in_flight), tostring(seconds)) end,
      function() return run_ours(transport, "calls", tostring(in_flight), tostring(seconds)) end)
    print(("%-4s %9d  %11.0f %9.0f %9.0f %8.2f   %11.0f %9.0f %9.0f %8.2f   %6.2f %8.2f"):format(transport, in_flight,
      column(a, "calls_per_s"), column(a, "p50_us"), column(a, "p99_us"), column(a, "cpu_us_per_call"),
      column(b, "calls_per_s"), column(b, "p50_us"), column(b, "p99_us"), column(b, "cpu_us_per_call"),
      ratio(b, a, "calls_per_s"), ratio(b, a, "p50_us")))
  end
  local a, b = runs.compare(rounds,
    function() return run_bare("stream", transport, tostring(STREAM_ITEMS), "1024") end,
    function() return run_ours(transport, "stream", tostring(STREAM_ITEMS)) end)
  print(("%-4s %9s  %11.0f %9s %9s %8.2f   %11.0f %9s %9s %8.2f   %6.2f"):format(transport, "stream/s",
    column(a, "items_per_s"), "", "", column(a, "cpu_us_per_item"),
    column(b, "items_per_s"), "", "", column(b, "cpu_us_per_item"), ratio(b, a, "items_per_s")))
end
