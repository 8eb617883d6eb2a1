---Service: a name under which workers serve.
---@module "gaterpc.service"

local interface = require "gaterpc.interface"
local options = require "gaterpc.options"
local worker = require "gaterpc.worker"

local M = {}

local MAX_DESCRIPTION = 4096 -- as brokers have it

---@class gaterpc.ServiceOptions
---@field name string
---@field description? string  at most 4096 bytes

---@class gaterpc.Service
---@field name string
---@field description string
local methods = {}
local mt = { __name = "gaterpc.Service", __index = methods }

function mt:__tostring()
  return "service " .. self.name
end

---@param given gaterpc.ServiceOptions
---@return gaterpc.Service
function M.new(given)
  given = options.check("Service", given, { name = "string", description = "string" })
  local name = given.name
  if not name then error("Service: option 'name' is missing", 2) end
  if name == "" or #name > 255 or name:find("[%s%c]") then
    error(("Service: '%s' cannot name a service: 1 to 255 printable characters without spaces"):format(name), 2)
  end
  if name == "Gate" then error("Service: the name Gate belongs to the broker", 2) end
  if given.description and #given.description > MAX_DESCRIPTION then
    error(("Service: option 'description' has at most %d bytes, got %d"):format(MAX_DESCRIPTION, #given.description), 2)
  end
  return setmetatable({ name = name, description = given.description or "gate-rpc service" }, mt)
end

---Makes a worker of this service; run() or start() it.
---@param class table  gaterpc.Worker or what its extend() made
---@param given? gaterpc.WorkerOptions
---@return gaterpc.Worker
function methods:create_worker(class, given)
  if not interface.derives(class, worker.Worker) then
    error("create_worker takes a class made by gaterpc.Worker:extend, got " .. tostring(class), 2)
  end
  return worker.new(class, self, given)
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
