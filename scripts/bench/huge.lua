-- The benchmark of HugeData: worker -> broker -> client over ipc, beside the bare library in one thread, in turn.
--   gaterpc-host scripts/bench/huge.lua BARE [SECONDS [ROUNDS]]
-- BARE is bare_codec.c compiled. Three processes; this one is the client. Runs in the repository's folder.
local uv = require "luv"
local codec = require "gaterpc.codec"
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"

local bare, seconds, rounds = arg[1], tonumber(arg[2] or 1), tonumber(arg[3] or 3)
local runs = dofile "scripts/bench/rounds.lua"
local data = dofile "scripts/bench/data.lua"
local SIZE = 32 << 20
local SILENCE = 120 -- seconds that a result may take

local path = data.file(data.mixed(SIZE))
local base = os.tmpname()
os.remove(base)
local broker = runs.start(uv.exepath(), {
  "scripts/bench/broker.lua", "ipc://" .. base .. ".f", "ipc://" .. base .. ".b" })
local front, back = runs.line(broker):match "(%S+)%s+(%S+)"
local worker = runs.start(uv.exepath(), { "scripts/bench/huge_worker.lua", back, path })
runs.line(worker)
local client = gaterpc.Client { broker = front, timeout = SILENCE }

local function run_bare(name, level)
  return runs.run(bare, { name, ("%d"):format(level), path, tostring(seconds) })
end

-- MB/s of what comes out at the client.
local function transfer(method, name)
  local begun, bytes = core.now(), 0
  repeat
    for piece in client:huge("Bulk", method, name):pieces() do bytes = bytes + #piece end
  until core.now() - begun >= seconds
  assert(bytes % SIZE == 0)
  return bytes / (core.now() - begun) / 1e6
end

local function run_ours(name)
  return { encode_mb_s = transfer("whole", name), fed_mb_s = transfer("fed", name) }
end

print(("HugeData, %d MiB, medians of %d rounds of %g s each, in turn; ratios are the medians of the rounds'"):format(
  SIZE >> 20, rounds, seconds))
print "(a) the library in C, one thread; (b) worker, broker and client: a string; (c) likewise, fed by 256 KiB"
print(("%-6s %5s  %9s %9s   %9s %9s %6s %6s"):format("codec", "level", "enc (a)", "dec (a)", "(b) MB/s", "(c) MB/s",
  "b/a", "c/a"))
local only = os.getenv "BENCH_CODEC"
for _, name in ipairs(only and { only } or { "gzip", "zlib", "zstd", "lz4", "bz2", "lzma" }) do
  local level = codec.get(name).level_default
  local a, b = runs.compare(rounds, function() return run_bare(name, level) end, function() return run_ours(name) end)
  local fed = {}
  for i, result in ipairs(b) do fed[i] = { encode_mb_s = result.fed_mb_s } end
  local column, ratio = runs.column, runs.ratio
  print(("%-6s %5d  %9.0f %9.0f   %9.0f %9.0f %6.2f %6.2f"):format(name, level, column(a, "encode_mb_s"),
    column(a, "decode_mb_s"), column(b, "encode_mb_s"), column(b, "fed_mb_s"), ratio(b, a, "encode_mb_s"),
    ratio(fed, a, "encode_mb_s")))
end
client:close()
for _, process in ipairs { worker, broker } do
  process.handle:kill "sigkill"
  process.ended:await(10)
end
for _, each in ipairs { path, base .. ".f", base .. ".b" } do os.remove(each) end
