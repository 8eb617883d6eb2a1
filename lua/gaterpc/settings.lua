---Settings: defaults for everything that has a knob, changed once before the first object is made.
---@module "gaterpc.settings"

local options = require "gaterpc.options"

---name = { default, type, lowest, highest, what it is for }. Times are in seconds.
local known = {
  FRONTEND = { "inproc://gaterpc.frontend", "string", nil, nil,
    "where a client looks for its broker, and a broker binds for clients" },
  BACKEND = { "inproc://gaterpc.backend", "string", nil, nil,
    "where a worker looks for its broker, and a broker binds for workers" },
  DEFAULT_SERVICE = { "GateRPC", "string", nil, nil, "the service of client.method(...)" },
  REPLY_TIMEOUT = { 60.0, "number", 0, 86400, "how long a call, and each item of a stream, may take" },
  CONNECT_TIMEOUT = { 5.0, "number", 0.01, 3600, "calls fail when no broker has answered for so long" },
  HEARTBEAT = { 3.0, "number", 0.05, 3600, "how often a side that has nothing to say beats" },
  LIVENESS = { 3, "integer", 1, 100, "missed beats after which the other side counts as dead" },
  RECONNECT = { 0.1, "number", 0.01, 60, "first pause before a new connection; it doubles, with jitter" },
  RECONNECT_MAX = { 2.0, "number", 0.01, 600, "the longest such pause" },
  WORKER_CREDIT = { 1024, "integer", 1, 65536, "calls that a worker takes at once" },
  CLIENT_MAX_CALLS = { 65536, "integer", 1, 1048576, "calls that a client may have under way" },
  QUEUE_MAXSIZE = { 16384, "integer", 1, 1048576, "requests that may wait for one service" },
  QUEUE_MAXBYTES = { 256 << 20, "integer", 1024, 4294967295, "bytes of all waiting requests of a broker" },
  STREAM_REPLY_MAXSIZE = { 1024, "integer", 2, 65536, "items of a stream that nobody has read yet" },
  STREAM_REPLY_MAXBYTES = { 1 << 20, "integer", 1024, 1 << 30, "bytes of such items" },
  STREAM_IDLE = { 600.0, "number", 1, 86400, "a stream that nobody reads for so long is cancelled" },
  GATE_TIMEOUT = { 59.0, "number", 0.1, 86400, "calls of clients whose dialect names no deadline, and their "
    .. "streams, may take so long; the original's wait 60 s, and 0.1.x does not survive a later answer" },
  GATE01_HEARTBEAT = { 3.0, "number", 0.05, 3600, "how often workers and brokers of the original 0.1.x beat" },
  GATE02_HEARTBEAT = { 5.0, "number", 0.05, 3600, "how often those of the original 0.2.x beat" },
  MDP_HEARTBEAT = { 2.5, "number", 0.05, 3600, "how often workers and brokers of ZeroMQ RFC 7 beat" },
  BUSY_LIMIT = { 1.0, "number", 0, 3600, "a method that does not yield for so long is named in the log; 0: never" },
  REMOTE_TRACEBACK = { true, "boolean", nil, nil, "errors of methods carry the worker's traceback" },
}

local values = {}
for name, row in pairs(known) do values[name] = row[1] end
local frozen_by

local function check(name, value, level)
  local row = known[name]
  if not row then error(options.unknown("setting", name, known), level + 1) end
  local _, expected, low, high = table.unpack(row, 1, 4)
  if expected == "number" and math.type(value) == "integer" then value = value + 0.0 end
  local got = expected == "integer" and math.type(value) or type(value)
  if got ~= expected then
    error(("setting %s must be %s %s, got %s"):format(
      name, expected == "integer" and "an" or "a", expected, math.type(value) or type(value)), level + 1)
  end
  if low and not (value >= low and value <= high) then
    error(("setting %s must be from %s to %s, got %s"):format(name, low, high, value), level + 1)
  end
  return value
end

local function set(name, value, level)
  value = check(name, value, level + 1)
  if frozen_by then
    error(("setting %s cannot be changed any more: a %s exists already; use its options"):format(
      name, frozen_by), level + 1)
  end
  values[name] = value
end

local M = {}

---Changes several settings: Settings.setup { HEARTBEAT = 1 }.
---@param changes table<string, any>
function M.setup(changes)
  if type(changes) ~= "table" then error("Settings.setup takes a table of settings", 2) end
  for name, value in pairs(changes) do set(name, value, 2) end
end

---No changes from now on.
---@param who string  what was made
---@package
function M.freeze(who)
  frozen_by = frozen_by or who
end

---An object's own value for a setting, checked like the setting, or the setting's. Raises at whoever
---called the object's constructor: tail calls on the way there leave no frames.
---@param name string
---@param own any
---@package
function M.pick(name, own)
  if own == nil then return values[name] end
  return check(name, own, 2)
end

---All settings with their texts, sorted by name: { name, value, default, type, low, high, text }.
function M.list()
  local list = {}
  for name, row in pairs(known) do
    list[#list + 1] = { name = name, value = values[name], default = row[1], type = row[2],
      low = row[3], high = row[4], text = row[5] }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

return setmetatable(M, {
  __name = "gaterpc.Settings",
  __index = function(_, name)
    local value = values[name]
    if value == nil then error(options.unknown("setting", name, known), 2) end
    return value
  end,
  __newindex = function(_, name, value) set(name, value, 2) end,
})
