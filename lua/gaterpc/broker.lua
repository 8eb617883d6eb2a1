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
local security = require "gaterpc.broker_security"
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
---@field users? table<string, string>|string  passwords by name, or the path of a file of them: short for a ZAPService
---and connect_zap { mechanism = "PLAIN" }
---@field access? gaterpc.AccessList|string     who may do what, or the path of a file that says it; default: everything
---@field curve? gaterpc.CurveKeys|string       the pair of keys of addresses with the mechanism CURVE, or a path
---@field gate_timeout? number    seconds; default Settings.GATE_TIMEOUT
local known = {
  frontend = "string", backend = "string", heartbeat = "number", liveness = "integer", queue = "integer",
  queue_bytes = "integer", stream_idle = "number", users = "table|string", gate_timeout = "number",
  access = "table|string", curve = "table|string",
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
---@field user? string          who the client has shown to be, by its connection or its credentials
---@field body string           the arguments as they came: a msgpack array, and behind it a map when there are keywords

local function start_handler(self, job, fn, ...)
  local client_id, client_addr, body, user = self.core:caller()
  task.resume(job, fn, self.object, {
    method = job.method, request_id = job.id, client_id = client_id, client_addr = client_addr, body = body,
    user = user,
  }, ...)
end

-- 1xx: the broker does not tell the client.
local function finish_handler(self, job, status, result)
  if job.streamed or (status == nil and job.entry.stream) then return self.core:finish(job.route) end
  local text
  if math.type(status) ~= "integer" or status < 100 or status > 599 then
    text = ("internal handler %s must return a status from 100 to 599 and a result, got %s"):format(
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
    address = state.backends[1], credit = settings.WORKER_CREDIT, heartbeat = settings.HEARTBEAT,
    liveness = settings.LIVENESS, reconnect = settings.RECONNECT, reconnect_max = settings.RECONNECT_MAX,
    stream_idle = state.stream_idle, traceback = settings.REMOTE_TRACEBACK,
  })
  if not state.handlers then error(err, 0) end
end

-------------------------------------------------------------------------------------------------
-- The class
-------------------------------------------------------------------------------------------------

-- The broker answers these itself; a handler of such a name would never be asked.
local OWN = { "get_services", "query_service", "client_heartbeat", "keepalive", "info" }

local function check_handlers(class, handlers, level)
  for _, name in ipairs(OWN) do
    if handlers[name] then
      error(("%s: the broker has a function '%s' of its own"):format(class.class_name, name), level + 1)
    end
  end
end

function Majordomo.new(class, given)
  given = options.check(class.class_name, given, known)
  check_handlers(class, interface.methods(class), 2)
  settings.freeze("Majordomo")
  local function pick(name, setting) return settings.pick(setting, given[name], name) end
  local self = setmetatable({}, class)
  local state = {
    methods = interface.methods(class),
    frontends = {},
    backends = {},
    wanted_frontend = given.frontend,
    wanted_backend = given.backend,
    stream_idle = pick("stream_idle", "STREAM_IDLE"),
    stopped = task.promise(),
    curve = security.keys(class.class_name, given.curve, 2),
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
    ask_ms = to_ms(settings.ZAP_REPLY_TIMEOUT + 1), -- who asks elsewhere gives up first
    remember_ms = to_ms(settings.ZAP_CACHE),
    hwm = settings.ZMQ_HWM,
    ipv6 = settings.ZMQ_IPV6 and 1 or 0,
  }, self)
  if not engine then error(errors.new(code, text), 2) end
  state.core = engine
  security.add_users(state, given.users, 2)
  if given.access then security.set_access(state, given.access, 2) end
  if self.init then self:init() end
  return self
end

function Majordomo:__tostring()
  return ("broker at %s"):format(table.concat(self[STATE].frontends, ", "))
end

local function check_open(self, level)
  if self[STATE].closed then error("the broker is closed", level + 1) end
end

local function bind(self, side, address, given, level)
  local state = self[STATE]
  check_open(self, level + 1)
  if type(address) ~= "string" then error("bind takes an address, got " .. type(address), level + 1) end
  if state.running then error("bind comes before start and run", level + 1) end
  local secured = security.of_address(state, "bind", address, given, level + 1)
  local bound, code, text = state.core:bind(side, address, secured)
  if not bound then
    error(errors.new(code, ("%s: cannot bind '%s': %s"):format(self.class_name, address, text)), level + 1)
  end
  return bound
end

---Opens a door for clients; before the start, as many as are wanted. Raises when it cannot.
---@param address string  "tcp://127.0.0.1:7777", "ipc:///run/gate", "inproc://name"; "tcp://127.0.0.1:*" takes
---a free port
---@param given? gaterpc.BindOptions
---@return string address  with wildcards filled in
function Majordomo:bind(address, given)
  local bound = bind(self, "front", address, given, 2)
  table.insert(self[STATE].frontends, bound)
  return bound
end

---Opens one more door for workers, beside the option `backend`, or in its place when that is not given.
---@param address string
---@param given? gaterpc.BindOptions
---@return string address  with wildcards filled in
function Majordomo:bind_backend(address, given)
  local bound = bind(self, "back", address, given, 2)
  table.insert(self[STATE].backends, bound)
  return bound
end

---Asks somebody who its peers are; before bind and start. Whoever cannot show that he is somebody is refused with
---UNAUTHENTICATED; when nobody decides, with UNAVAILABLE.
---@param given? gaterpc.ConnectZap
function Majordomo:connect_zap(given)
  check_open(self, 2)
  security.connect_zap(self[STATE], given, 2)
end

---Changes who may do what, at any time. Workers that may not be what they are any more are sent away.
---@param list gaterpc.AccessList|string|nil  a path is read anew by reload() and on SIGHUP; nil: everybody may do
---everything
function Majordomo:set_access(list)
  check_open(self, 2)
  security.set_access(self[STATE], list, 2)
end

---Reads the access list anew when it is a file.
---@return true? done
---@return gaterpc.Error? err  INVALID_ARGUMENT: then it stays as it was
function Majordomo:reload()
  check_open(self, 2)
  return security.reload(self[STATE])
end

---Opens the doors and serves, without waiting for anything.
---@return gaterpc.Majordomo self
function Majordomo:start()
  local state = self[STATE]
  check_open(self, 2)
  if state.running then error("the broker runs already", 2) end
  if state.wanted_frontend or #state.frontends == 0 then
    table.insert(state.frontends, bind(self, "front", state.wanted_frontend or settings.FRONTEND, nil, 2))
  end
  if state.wanted_backend or #state.backends == 0 then
    table.insert(state.backends, 1, bind(self, "back", state.wanted_backend or settings.BACKEND, nil, 2))
  end
  self.started = os.time()
  local started, code, text = state.core:start()
  if not started then error(errors.new(code, text), 2) end
  state.running = true
  serving[self] = true
  start_handlers(self, state)
  core.log(20, "gaterpc.broker", ("serving clients at %s, workers at %s"):format(
    table.concat(state.frontends, ", "), table.concat(state.backends, ", ")))
  return self
end

---The addresses where clients and workers find this broker, once it has started.
---@return string frontend  the first one
---@return string backend   likewise
function Majordomo:addresses()
  return self[STATE].frontends[1], self[STATE].backends[1]
end

---Serves until stop() or a signal.
---@async
function Majordomo:run()
  task.check_wait(2)
  check_open(self, 2)
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
  state.closed = true
  serving[self] = nil
  if state.handlers then state.handlers:close() end
  state.core:close()
  security.close(state)
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
  check_open(self, 2)
  return self[STATE].core:stats()
end

---Brokers that serve, for signals.
---@package
function M.serving()
  return serving
end

M.Majordomo = Majordomo

return M
