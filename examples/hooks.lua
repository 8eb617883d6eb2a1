#!/usr/bin/env gaterpc-host
-- Objects that travel as themselves, and what becomes of everything else: hooks of message_pack.
local gaterpc = require "gaterpc"
local message_pack = gaterpc.message_pack

local Point = { __name = "Point" }
Point.__index = Point
Point.__tostring = function(p) return ("(%g, %g)"):format(p.x, p.y) end
local function point(x, y) return setmetatable({ x = x, y = y }, Point) end

message_pack.register_ext { -- both sides do this
  type = 1, name = "Point", metatable = Point,
  pack = function(p) return string.pack(">dd", p.x, p.y) end,
  unpack = function(bytes) return point(string.unpack(">dd", bytes)) end,
}
message_pack.prepare_pack = function(value) return "a " .. io.type(value) end -- files, as we send nothing else
message_pack.unpack_object_hook = function(map)
  if map.celsius and map.celsius < -273.15 then error { code = "INVALID_ARGUMENT", message = "too cold" } end
  return map
end

local Plane = gaterpc.Worker:extend "Plane"
function Plane.interface:middle(a, b) return point((a.x + b.x) / 2, (a.y + b.y) / 2) end
function Plane.interface:log() return { to = io.stdout, at = gaterpc.timestamp(0) } end
function Plane.interface:heat(by) return by.celsius end

local broker = gaterpc.Majordomo {}:start()
local worker = gaterpc.Service { name = "Plane" }:create_worker(Plane):start()
local client = gaterpc.Client {}
worker:wait_ready()
print("an object:   ", client.Plane.middle(point(0, 0), point(3, 4)))
print("a file:      ", client.Plane.log().to)
print("a timestamp: ", client.Plane.log().at)
print("a hook fails:", select(2, client:try("Plane", "heat", { celsius = -300 })))
worker:stop()
broker:stop()
