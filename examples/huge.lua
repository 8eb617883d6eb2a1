-- Large results: compressed by themselves, on request, or fed while they flow; read whole, in pieces, into a file.
local gaterpc = require "gaterpc"

local Files = gaterpc.Worker:extend "Files"

function Files.interface:zeros(n) return gaterpc.HugeData { data = ("0"):rep(n), compress_module = "zstd" } end

function Files.interface:lines(n)
  local huge = gaterpc.HugeData { compress_module = "lz4" }
  gaterpc.task.spawn(function()
    for i = 1, n do
      if not huge.data:put(("line %d\n"):format(i)) then return end -- nobody reads any more
    end
    huge.data:close()
  end)
  return huge -- goes out while it is fed; a slow reader slows the feeding
end

local broker = gaterpc.Majordomo {}:start()
local worker = gaterpc.Service { name = "Files" }:create_worker(Files):start()
assert(worker:wait_ready())
local client = gaterpc.Client {}

print(#client.Files.zeros(3000000))                        --> 3000000, as if it were any result

local bytes, ended = 0, ""
for piece in assert(client:huge("Files", "lines", 10000)):pieces() do
  bytes, ended = bytes + #piece, piece:sub(-11)
end
print(bytes, (ended:gsub("\n", "")))

local path = os.tmpname()
print(client:huge("Files", "zeros", 1000000):write_to(path)) --> 1000000, without blocking
os.remove(path)
worker:stop()
broker:stop()
