#!/usr/bin/env gaterpc-host
-- A key-value store as a service. Start as many of it as you like.
--   gaterpc-host examples/service.lua [where the broker takes workers]
local gaterpc = require "gaterpc"

local Kv = gaterpc.Worker:extend "Kv"

function Kv:init()
  self.store = {}
end

--- Store a value and return the one it replaced.
---@param key string
function Kv.interface:set(key, value)
  local old = self.store[key]
  self.store[key] = value
  return old
end

--- The value of a key. It may run twice without harm, so it outlives the death of a worker.
Kv.interface.get = gaterpc.interface(function(self, key)
  return self.store[key]
end, { idempotent = true })

--- Stream the integers 0 .. maximum-1, one reply each.
---@param maximum integer
function Kv.interface:count(maximum)
  for i = 0, maximum - 1 do coroutine.yield(i) end
end

--- Keyword arguments come as a table behind the others.
function Kv.interface:test(text, options)
  return ("%s at %d"):format(text, options.time)
end

local service = gaterpc.Service { name = "SRkv", description = "a key-value store" }
service:create_worker(Kv, { broker = arg[1] or "tcp://127.0.0.1:5555" }):run()
