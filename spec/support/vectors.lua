---The recorded exchanges of the original's programs, spec/fixtures/vectors/*.jsonl.
---
---  for _, message in ipairs(vectors.read "0.1.10-startup") do ... end
---  message = { seq =, ms =, leg =, peer =, frames =, note = }; frames as they travel, without the routing id

local bytes = require "support.values".bytes
local engine = require "support.engine"
local uv = require "luv"

local M = {}

---Versions that were recorded, and what they speak.
M.dialects = { ["0.1.10"] = "gate01", ["0.2.12"] = "gate02" }

local legs = {
  ["client->broker"] = "client_to_broker", ["broker->client"] = "broker_to_client",
  ["worker->broker"] = "worker_to_broker", ["broker->worker"] = "broker_to_worker",
}

local function read(line)
  local frames = {}
  for hex in line:match '"frames": %[(.-)%]':gmatch '"(%x*)"' do frames[#frames + 1] = bytes(hex) end
  local direction = line:match '"direction": "(.-)"'
  return {
    seq = tonumber(line:match '"seq": (%d+)'), ms = math.floor(tonumber(line:match '"t": ([%d.]+)') * 1000),
    direction = direction, leg = legs[direction],
    peer = bytes(line:match '"peer": "(%x*)"'), frames = frames, note = line:match '"note": "(.-)"' or "",
  }
end

---Names of the files of a version, "0.1.10" or "0.2.12", without the ending.
function M.names(version)
  local names = {}
  for entry in uv.fs_scandir_next, uv.fs_scandir "spec/fixtures/vectors" do
    local name = entry:match "^(.*)%.jsonl$"
    if name and name:sub(1, #version) == version then names[#names + 1] = name end
  end
  table.sort(names)
  assert(#names > 50, "the vectors are not where they should be")
  return names
end

---The messages of a file, in order.
---@param name string
function M.read(name)
  local list = {}
  for line in io.lines("spec/fixtures/vectors/" .. name .. ".jsonl") do list[#list + 1] = read(line) end
  return list
end

---A message with a leg, as engine.parse_as() reads it.
---@param dialect string
function M.parse(dialect, message)
  local routed = message.leg:find "to_broker"
  return engine.parse_as(dialect, message.leg, routed and message.peer or nil, table.unpack(message.frames))
end

return M
