-- A result of any size that a process of its own makes while it is sent.
local gaterpc = require "gaterpc"

-- Runs in the process: `put` waits there until the reader follows.
local function primes(data, last)
  local composite, lines = {}, {}
  for n = 2, last do
    if not composite[n] then
      lines[#lines + 1] = n
      for multiple = n * n, last, n do composite[multiple] = true end
    end
    if #lines == 1000 or n == last and #lines > 0 then
      if not data:put(table.concat(lines, "\n") .. "\n") then return end -- nobody reads any more
      lines = {}
    end
  end
  data:close()
end

local Maths = gaterpc.Worker:extend "Maths"

function Maths.interface:primes(last)
  local huge = gaterpc.HugeData { compress_module = "zstd" }
  self.process_executor:submit(primes, huge.data, last) -- when it fails, so does the call
  return huge
end

local broker = gaterpc.Majordomo {}:start()
local worker = gaterpc.Service { name = "Maths" }:create_worker(Maths):start():wait_ready()
local client = gaterpc.Client {}
local bytes, last = 0, ""
for piece in client:huge("Maths", "primes", 1000000):pieces() do
  bytes, last = bytes + #piece, (last .. piece):sub(-7)
end
print(bytes, last:match "%d+")
worker:stop()
broker:stop()
