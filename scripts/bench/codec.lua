-- The benchmark of gaterpc.codec: ours from a coroutine beside the bare library in one thread, in turn.
--   gaterpc-host scripts/bench/codec.lua BARE [SECONDS [ROUNDS]]
-- BARE is bare_codec.c compiled. Ours makes pieces of 64 KiB as Lua strings, with a digest. Runs in the
-- repository's folder, whose sources are a part of the data.
local codec = require "gaterpc.codec"
local core = require "gaterpc.core"
local task = require "gaterpc.task"

local bare, seconds, rounds = arg[1], tonumber(arg[2] or 0.5), tonumber(arg[3] or 3)
local runs = dofile "scripts/bench/rounds.lua"
local made = dofile "scripts/bench/data.lua"
local column, ratio = runs.column, runs.ratio

local function run_bare(...)
  return runs.run(bare, { ... })
end

local function mb_per_s(len, run)
  local begun, count = core.now(), 0
  repeat
    run()
    count = count + 1
  until core.now() - begun >= seconds
  return len * count / (core.now() - begun) / 1e6
end

local AT_ONCE = 4

-- The same work several times at once.
local function many(run)
  return function()
    local tasks = {}
    for i = 1, AT_ONCE do tasks[i] = run end
    task.all(tasks)
  end
end

local function run_ours(name, level, data)
  local pieces
  local function encode()
    local enc <close> = codec.encoder(name, { level = level, digest = true })
    local list = {}
    for piece in enc:pieces(data) do list[#list + 1] = piece end
    pieces = list
  end
  local function decode()
    local dec <close> = codec.decoder(name, { digest = true })
    local len = 0
    for bytes in dec:chunks(pieces) do len = len + #bytes end
    assert(len == #data)
  end
  local found = { encode_mb_s = mb_per_s(#data, encode), decode_mb_s = mb_per_s(#data, decode) }
  if #data < 1 << 20 then -- more takes long
    found.encode_many = mb_per_s(#data * AT_ONCE, many(encode))
    found.decode_many = mb_per_s(#data * AT_ONCE, many(decode))
  end
  return found
end

-- Made when it is their turn: a large heap is collected seldom, so its strings are never in the cache.
local inputs = {
  { name = "640 kB of hex digits", make = function() return made.hex(640000, 1) end },
  { name = "64 MiB, mixed", make = function() return made.mixed(64 << 20) end },
}
local levels = { gzip = { 1, 9 }, zlib = { 1 }, zstd = { 1, 9 }, lz4 = { 1 }, bz2 = { 9 }, lzma = { 1 } }
local only = os.getenv "BENCH_CODEC"

print(("codecs: medians of %d rounds of %g s each, in turn"):format(rounds, seconds))
print(("(a) the library in C, one thread; (b) gaterpc.codec, one coroutine; (c) %d coroutines, all together"):format(
  AT_ONCE))
print(("%-20s %-5s %5s %6s   %8s %8s %5s %5s   %8s %8s %5s %5s"):format("", "codec", "level", "size",
  "enc (a)", "(b) MB/s", "b/a", "c/a", "dec (a)", "(b) MB/s", "b/a", "c/a"))

local function columns(a, b, what)
  local one, all = what .. "_mb_s", {}
  for i, result in ipairs(b) do all[i] = { [one] = result[what .. "_many"] } end
  return ("%8.0f %8.0f %5.2f %5s"):format(column(a, one), column(b, one), ratio(b, a, one),
    all[1][one] and ("%.2f"):format(ratio(all, a, one)) or "")
end

for _, input in ipairs(inputs) do
  local data = input.make()
  collectgarbage()
  local path = made.file(data)
  for _, name in ipairs { "gzip", "zlib", "zstd", "lz4", "bz2", "lzma" } do
    for _, level in ipairs(not only and levels[name] or only == name and levels[name] or {}) do
      local a, b = runs.compare(rounds,
        function() return run_bare(name, ("%d"):format(level), path, tostring(seconds)) end,
        function() return run_ours(name, level, data) end)
      print(("%-20s %-5s %5d %5.1f%%   %s   %s"):format(input.name, name, level, 100 * a[1].bytes / #data,
        columns(a, b, "encode"), columns(a, b, "decode")))
    end
  end
  os.remove(path)
end
