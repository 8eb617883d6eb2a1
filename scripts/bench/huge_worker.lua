-- The worker of the benchmark of HugeData: huge_worker.lua BACKEND FILE.
local gaterpc = require "gaterpc"

local CHUNK = 256 << 10
local file <close> = assert(io.open(arg[2], "rb"))
local text = file:read "a"
local chunks = {}
for from = 1, #text, CHUNK do chunks[#chunks + 1] = text:sub(from, from + CHUNK - 1) end

local Bulk = gaterpc.Worker:extend "Bulk"

function Bulk.interface:whole(module)
  return gaterpc.HugeData { data = text, compress_module = module }
end

function Bulk.interface:fed(module)
  local huge = gaterpc.HugeData { compress_module = module }
  gaterpc.task.spawn(function()
    for _, chunk in ipairs(chunks) do
      if not huge.data:put(chunk) then return end
    end
    huge.data:close()
  end)
  return huge
end

local worker = gaterpc.Service { name = "Bulk" }:create_worker(Bulk, { broker = arg[1] })
worker:start()
worker:wait_ready(30)
print "ready"
io.stdout:flush()
worker:run()
