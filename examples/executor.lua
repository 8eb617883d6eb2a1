#!/usr/bin/env gaterpc-host
-- Methods that compute, in threads and processes, while the worker goes on answering.
local gaterpc = require "gaterpc"

local Primes = gaterpc.Worker:extend "Primes"

local function is_prime(n)
  for d = 2, math.floor(n ^ 0.5) do if n % d == 0 then return false end end
  return n > 1
end

--- Count the primes from first to last, in a thread of the worker's. self.service is all that comes along of self.
Primes.interface.count = gaterpc.interface(function(self, first, last)
  local found = 0
  for n = first, last do found = found + (is_prime(n) and 1 or 0) end
  return ("%s has counted %d"):format(self.service, found)
end, "thread")

--- Stream the primes up to last, from a process.
Primes.interface.list = gaterpc.interface(function(_, last)
  for n = 2, last do if is_prime(n) then coroutine.yield(n) end end
end, "process")

--- Use an executor in the midst of a method that runs in the worker itself.
function Primes.interface:check(n)
  return is_prime(n) == self:run_in_executor(self.process_executor, is_prime, n)
end

local broker = gaterpc.Majordomo {}:start()
local worker = gaterpc.Service { name = "Primes" }:create_worker(Primes):start():wait_ready()
local client = gaterpc.Client {}
print(client.Primes.count(1, 100000))
for n in client.Primes.list(12) do print(n) end
print("checked", client.Primes.check(97))
local pool <close> = gaterpc.ThreadPoolExecutor { max_workers = 2 } -- one's own, for anything
print("mapped", table.unpack(pool:map(is_prime, { 7, 8, 9 })))
worker:stop() broker:stop()
