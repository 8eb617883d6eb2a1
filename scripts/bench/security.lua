-- What security costs: calls/s over tcp with PLAIN and CURVE on the connection, and with PLAIN inside each message of
-- the dialect gate02, beside the same without; in turn and in one run.
--   gaterpc-host scripts/bench/security.lua [SECONDS [ROUNDS]]
local gaterpc = require "gaterpc"
local uv = require "luv"

local seconds, rounds = tonumber(arg[1] or 2), tonumber(arg[2] or 3)
local dir = arg[0]:match("^(.*)/") or "."
local runs = dofile(dir .. "/rounds.lua")

local server, peer = gaterpc.curve.generate(), gaterpc.curve.generate()
uv.os_setenv("BENCH_KEYS", table.concat({ server.public, server.secret, peer.public, peer.secret }, " "))

local function run(kind, in_flight)
  uv.os_setenv("BENCH_SECURITY", kind)
  return runs.three(dir, "tcp", "calls", tostring(in_flight), tostring(seconds))
end

print(("%-14s %9s %13s %13s %7s %9s"):format("over tcp", "in flight", "(a) without", "(b) with", "b/a", "p50 b/a"))
for _, pair in ipairs { { "none", "plain" }, { "none", "curve" }, { "gate02", "gate02-plain" } } do
  for _, in_flight in ipairs { 1, 64, 1000 } do
    local a, b = runs.compare(rounds, function() return run(pair[1], in_flight) end,
      function() return run(pair[2], in_flight) end)
    print(("%-14s %9d %13.0f %13.0f %7.2f %9.2f"):format(pair[2], in_flight, runs.column(a, "calls_per_s"),
      runs.column(b, "calls_per_s"), runs.ratio(b, a, "calls_per_s"), runs.ratio(b, a, "p50_us")))
  end
end
