---Majordomo: the broker, with internal handlers in Lua.
---
---  local Broker = gaterpc.Majordomo:extend "Broker"
---  function Broker.interface:uptime(request) return 200, os.time() - self.started end
---  local broker = Broker { backend = "tcp://127.0.0.1:5555" }
---  broker:bind "tcp://127.0.0.1:7777"
---  broker:run()
---@module "gaterpc.broker"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local huge = require "gaterpc.huge"
local interface = require "gaterpc.interface"
local options = require "gaterpc.options"
local pools = require "gaterpc.pool"
local settings = require "gaterpc.settings"
local task = require "gaterpc.task"
local worker = require "gaterpc.worker"

local to_ms = options.to_ms

local M = {}

---@class gaterpc.MajordomoOptions
---@field frontend? string     where clients come; also bind(); default Settings.FRONTEND when never bound
---@field backend? string      where workers come; default Settings.BACKEND
---@field heartbeat? number    default Settings.HEARTBEAT
---@field liveness? integer    default Settings.LIVENESS
---@field queue? integer       requests that may wait for one service; default Settings.QUEUE_MAXSIZE
---@field queue_bytes? integer bytes of all that wait; default Settings.QUEUE_MAXBYTES
---@field thread_executor? gaterpc.Pool   of handlers that run = "thread"; default: a ThreadPoolExecutor of its own
---@field process_executor? gaterpc.Pool  likewise
---@field stream_idle? number  default Settings.STREAM_IDLE
---@field users? table<string, string>  passwords by user: peers of the older dialects then need PLAIN credentials
---inside their messages; default: nobody is asked
---@field gate_timeout? number    seconds; default Settings.GATE_TIMEOUT
local known = {
  frontend = "string", backend = "string", heartbeat = "number", liveness = "integer", queue = "integer",
  queue_bytes = "integer", stream_idle = "number", users = "table", gate_timeout = "number",
  thread_executor = "table", process_executor = "table",
}

---@class gaterpc.Majordomo
---@field started integer  os.time() of the start
---@field interface table<string, function>  assign internal handlers here: they are called with the
---request and the caller's arguments, and return a status of three digits and a result
local Majordomo = interface.class "Majordomo"

local STATE = {}
local serving = {}

-------------------------------------------------------------------------------------------------
-- Internal handlers: a worker of the service `Gate` in this process
-------------------------------------------------------------------------------------------------

---What a handler is told of the call, before its arguments.
---@class gaterpc.InternalRequest
---@field method string
---@field request_id integer    the client's number of the call
---@field client_id string      the client's routing id, any bytes. Clients of the older dialects choose their own:
---it says which connection this is, not who is there
---@field client_addr? string   the client's host: "127.0.0.1" over tcp, "inproc" in this process; nil when ZeroMQ does
---not know it
---@field body string           the arguments as they came: a msgpack array, and behind it a map when there are keywords

local function start_handler(self, job, fn, ...)
  local client_id, client_addr, body = self.core:caller()
  task.resume(job, fn, self.object, {
    method = job.method, request_id = job.id, client_id = client_id, client_addr = client_addr, body = body,
  }, ...)
end

-- 1xx: the broker does not tell the client.
local function finish_handler(self, job, status, result)
  if job.streamed or (status == nil and job.entry.stream) then return self.core:finish(job.route) end
  local text
  if math.type(status) ~= "integer" or status < 100 or status > 599 then
    text = ("internal handler %s must return a status of three digits and a result, got %s"):format(
      job.method, tostring(status))
  elseif huge.is(result) and status < 300 and status > 199 then
    return self:send_huge(job, result)
  else
    local sent, code, why = self.core:reply(job.route, result, status)
    if sent == false then code, why = "RESOURCE_EXHAUSTED", "it is larger than 64 MiB when packed" end
    if sent or code == "NOT_FOUND" then return end
    text = "the result cannot be sent: " .. why
  end
  core.log(40, "gaterpc.broker", text)
  self.core:fail(job.route, "INTERNAL", "INTERNAL", text, "")
end

local function start_handlers(self, state)
  if next(state.methods) == nil then return end
  local err
  state.handlers, err = worker.register({
    object = self, service = "Gate", description = "internal handlers", pools = state.pools,
    methods = pools.place(state.methods, self, "Gate"),
    described = interface.describe(state.methods, 1), start = start_handler, finish = finish_handler,
  }, {
    address = state.backend, credit = settings.WORKER_CREDIT, heartbeat = settings.HEARTBEAT,
    liveness = settings.LIVENESS, reconnect = settings.RECONNECT, reconnect_max = settings.RECONNECT_MAX,
    stream_idle = state.stream_idle, traceback = settings.REMOTE_TRACEBACK,
  })
  if not state.handlers then error(err, 0) end
end

-------------------------------------------------------------------------------------------------
-- The class
-------------------------------------------------------------------------------------------------

local function add_users(engine, users)
  for name, password in pairs(users) do
    if type(name) ~= "string" or type(password) ~= "string" then
      error("option 'users' maps names to passwords, both strings", 3)
    end
    local ok, code, text = engine:add_user(name, password)
    if not ok then error(errors.new(code, "option 'users': " .. text), 3) end
  end
end

function Majordomo.new(class, given)
  given = options.check(class.class_name, given, known)
  settings.freeze("Majordomo")
  local function pick(name, setting) return settings.pick(setting, given[name], name) end
  local self = setmetatable({}, class)
  local state = {
    methods = interface.methods(class),
    frontends = {},
    wanted_frontend = given.frontend,
    backend = pick("backend", "BACKEND"),
    stream_idle = pick("stream_idle", "STREAM_IDLE"),
    stopped = task.promise(),
    pools = pools.equip(self, given, 2),
  }
  self[STATE] = state
  local engine, code, text = core.majordomo({
    heartbeat_ms = to_ms(pick("heartbeat", "HEARTBEAT")),
    liveness = pick("liveness", "LIVENESS"),
    queue_len = pick("queue", "QUEUE_MAXSIZE"),
    queue_bytes = pick("queue_bytes", "QUEUE_MAXBYTES"),
    idle_ms = math.ceil(state.stream_idle * 1100),
    call_ms = to_ms(pick("gate_timeout", "GATE_TIMEOUT")),
    gate01_ms = to_ms(settings.GATE01_HEARTBEAT),
    gate02_ms = to_ms(settings.GATE02_HEARTBEAT),
    mdp_ms = to_ms(settings.MDP_HEARTBEAT),
    hwm = settings.ZMQ_HWM,
    ipv6 = settings.ZMQ_IPV6 and 1 or 0,
  }, self)
  if not engine then error(errors.new(code, text), 2) end
  state.core = engine
  add_users(engine, given.users or {})
  if self.init then self:init() end
  return self
end

function Majordomo:__tostring()
  return ("broker at %s"):format(table.concat(self[STATE].frontends, ", "))
end

local function bind(self, side, address, level)
  local bound, code, text = self[STATE].core:bind(side, address)
  if not bound then
    error(errors.new(code, ("%s: cannot bind '%s': %s"):format(self.class_name, address, text)), level + 1)
  end
  return bound
end

---Opens a door for clients; before the start, as many as are wanted. Raises when it cannot.
---@param address string  "tcp://127.0.0.1:7777", "ipc:///run/gate", "inproc://name"; "tcp://127.0.0.1:*" takes
---a free port
---@return string address  with wildcards filled in
function Majordomo:bind(address)
  local state = self[STATE]
  if type(address) ~= "string" then error("bind takes an address, got " .. type(address), 2) end
  if state.running then error("bind comes before start and run", 2) end
  local bound = bind(self, "front", address, 2)
  table.insert(state.frontends, bound)
  return bound
end

---Opens the doors and serves, without waiting for anything.
---@return gaterpc.Majordomo self
function Majordomo:start()
  local state = self[STATE]
  if state.running then error("the broker runs already", 2) end
  if state.wanted_frontend or #state.frontends == 0 then
    table.insert(state.frontends, bind(self, "front", state.wanted_frontend or settings.FRONTEND, 2))
  end
  state.backend = bind(self, "back", state.backend, 2)
  self.started = os.time()
  local started, code, text = state.core:start()
  if not started then error(errors.new(code, text), 2) end
  state.running = true
  serving[self] = true
  start_handlers(self, state)
  core.log(20, "gaterpc.broker", ("serving clients at %s, workers at %s"):format(
    table.concat(state.frontends, ", "), state.backend))
  return self
end

---The addresses where clients and workers find this broker, once it has started.
---@return string frontend  the first one
---@return string backend
function Majordomo:addresses()
  return self[STATE].frontends[1], self[STATE].backend
end

---Serves until stop() or a signal.
---@async
function Majordomo:run()
  task.check_wait(2)
  if not self[STATE].running then self:start() end
  self[STATE].stopped:await()
end

---Takes no more requests; running calls finish, then run() returns.
function Majordomo:stop()
  local state = self[STATE]
  if state.running and not state.stopped:is_settled() then state.core:drain() end
end

---Ends at once; calls that run fail with UNAVAILABLE.
function Majordomo:close()
  local state = self[STATE]
  serving[self] = nil
  if state.handlers then state.handlers:close() end
  state.core:close()
  state.running = false
  state.stopped:resolve()
  core.want_turn()
end

---The broker's thread has ended, after stop().
---@package
function Majordomo:on_ended()
  self:close()
end

---Counters of the broker, see src/engine/broker.h.
---@return table<string, integer>
function Majordomo:stats()
  return self[STATE].core:stats()
end

---Brokers that serve, for signals.
---@package
function M.serving()
  return serving
end

M.Majordomo = Majordomo

return M
