-- The log: lines/s of one thread into one file, beside one write(2) for each of the same lines in C.
--   gaterpc-host scripts/bench/log.lua LINES [LINES_TO_WRITE [ROUNDS]]
-- LINES is lines.c compiled. Nothing is dropped: whoever logs waits when half of the queue is full.
local core = require "gaterpc.core"
local log = require "gaterpc.log"
local uv = require "luv"

local lines, count, rounds = arg[1], tonumber(arg[2] or 200000), tonumber(arg[3] or 3)
local folder = uv.exepath():match "^(.*)/"
package.cpath = folder .. "/spec/?.so;" .. package.cpath
local c = require "logspec"

local dir = assert(uv.fs_mkdtemp "/tmp/gaterpc-bench-XXXXXX")
local path, copy = dir .. "/log", dir .. "/copy"

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

local function remove_files()
  os.remove(path)
  os.remove(copy)
end

local function bare()
  local pipe <close> = assert(io.popen(("'%s' '%s' '%s'"):format(lines, path, copy)))
  local per_s, cpu_ns = pipe:read("a"):match "lines_per_s=(%d+) cpu_ns=(%d+)"
  return tonumber(per_s), tonumber(cpu_ns)
end

local BURST = 2000 -- fits into the queue; then we look whether there is room

-- Lines/s until all are in the file; of one line, the CPU nanoseconds of both threads, and those that a call took.
local function ours(format, put)
  remove_files()
  assert(log.setup { console = false, queue = 100000, queue_bytes = 8 << 20,
    files = { { path = path, format = format } } })
  local before = log.stats().dropped
  local start, cpu, calls = core.now(), os.clock(), 0
  for _ = 1, count // BURST do
    local from = core.now()
    put(BURST)
    calls = calls + core.now() - from
    while log.stats().waiting_bytes > 4 << 20 do log.flush() end
  end
  while not log.flush() do end -- luacheck: ignore 542
  local seconds = core.now() - start
  assert(log.stats().dropped == before)
  return count / seconds, (os.clock() - cpu) / count * 1e9, calls / count * 1e9
end

local function plain(n)
  local info = log.info
  for _ = 1, n do info "a worker is registered at tcp://127.0.0.1:5555" end
end

local function with_format(n)
  for i = 1, n do log.info("call %d of %s has ended", i, "SRkv") end
end

local function with_fields(n)
  for i = 1, n do log.info("call ended", { id = i, service = "SRkv", seconds = 0.25 }) end
end

print(("\nlog, %d lines into one file, medians of %d rounds; b/a is the median of the rounds' ratios"):format(
  count, rounds))
print(("%-16s %13s %7s  %13s %7s %8s   %6s %8s"):format("", "(a) write(2)/s", "CPU ns", "(b) lines/s", "CPU ns",
  "call ns", "b/a", "CPU b/a"))
for _, case in ipairs { { "text", "text", plain }, { "text, %d and %s", "text", with_format },
  { "text, 3 fields", "text", with_fields }, { "JSON, 3 fields", "json", with_fields } } do
  local a, a_cpu, b, b_cpu, call, ratio, cpu_ratio = {}, {}, {}, {}, {}, {}, {}
  for i = 1, rounds do
    b[i], b_cpu[i], call[i] = ours(case[2], case[3])
    a[i], a_cpu[i] = bare()
    ratio[i], cpu_ratio[i] = b[i] / a[i], b_cpu[i] / a_cpu[i]
  end
  print(("%-16s %14.0f %7.0f  %13.0f %7.0f %8.0f   %6.2f %8.2f"):format(case[1], median(a), median(a_cpu), median(b),
    median(b_cpu), median(call), median(ratio), median(cpu_ratio)))
end
remove_files()
uv.fs_rmdir(dir)

-- Below the level: what a call costs that writes nothing.
local function cost_in_lua(n)
  local debug = log.debug
  local start = core.now()
  for i = 1, n do debug("call %d of %s has ended", i, "SRkv") end
  return (core.now() - start) / n * 1e9
end

local in_c, in_lua = {}, {}
for i = 1, rounds do in_c[i], in_lua[i] = c.cost(10000000, 10), cost_in_lua(1000000) end
print(("below the level: %.2f ns a call in C, %.0f ns in Lua"):format(median(in_c), median(in_lua)))
