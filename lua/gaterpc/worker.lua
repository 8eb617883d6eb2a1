---Worker: runs the methods of a service, each call in a coroutine of its own.
---@module "gaterpc.worker"

local core = require "gaterpc.core"
local dialect = require "gaterpc.dialect"
local errors = require "gaterpc.error"
local events = require "gaterpc.events"
local huge = require "gaterpc.huge"
local interface = require "gaterpc.interface"
local msgpack = require "gaterpc.msgpack"
local options = require "gaterpc.options"
local settings = require "gaterpc.settings"
local task = require "gaterpc.task"
local pools -- gaterpc.pool, which needs this file

local to_ms = options.to_ms

local M = {}

---@class gaterpc.WorkerOptions
---@field broker? string     address of its backend; default Settings.BACKEND
---@field credit? integer    calls at once; default Settings.WORKER_CREDIT
---@field heartbeat? number  default Settings.HEARTBEAT
---@field liveness? integer  default Settings.LIVENESS
---@field thread_executor? gaterpc.Pool   shared with others; default: a ThreadPoolExecutor of its own
---@field process_executor? gaterpc.Pool  shared with others; default: a ProcessPoolExecutor of its own
---@field reconnect? number  default Settings.RECONNECT
---@field reconnect_max? number  default Settings.RECONNECT_MAX
---@field stream_idle? number    default Settings.STREAM_IDLE
---@field traceback? boolean     default Settings.REMOTE_TRACEBACK
---@field dialect? gaterpc.Dialect   what the broker speaks; default "gh1"
---@field method? string     with the dialect mdp: the one method that is served, as `service.method`, or as
---`service` when it is "call"
---@field zap_mechanism? "CURVE"|"PLAIN"|"NULL"  of the connection; PLAIN is sent inside every message with the dialects
---gate01 and gate02
---@field zap_credentials? table  PLAIN: { user, password }; CURVE: { public =, secret =, server = }, or as paths of
---files { key =, server = }
local known = {
  broker = "string", credit = "integer", heartbeat = "number", liveness = "integer", reconnect = "number",
  reconnect_max = "number", stream_idle = "number", traceback = "boolean", dialect = "string",
  method = "string", zap_mechanism = "string", zap_credentials = "table", thread_executor = "table",
  process_executor = "table",
}

---@class gaterpc.Worker
---@field service string  name of its service
---@field interface table<string, function>  assign methods here
---@field init? fun(self: gaterpc.Worker)  called when it is made, for state of its own
---@field thread_executor gaterpc.Pool    for run_in_executor, and for methods that run = "thread"
---@field process_executor gaterpc.Pool   likewise
local Worker = interface.class "Worker"

-- Kinds of events, as in src/engine/worker.h.
local REQUEST, CANCEL, CREDIT, UP, DOWN, REFUSED, DRAINED, BARRED = 1, 2, 3, 4, 5, 6, 7, 8

local BURST = 128 -- items of one stream before others have their turn
local COMPLAIN = 10 -- seconds between complaints about a broker that does not let the worker in

-- The registration of an object: everything that is not for the methods to see.
local STATE = {}

---@class gaterpc.Registration
---@field object table                          the worker or broker whose methods run
---@field service string
---@field methods table<string, gaterpc.Method>
---@field run fun(registration, method, job, ...)  starts a method
---@field core any                              the engine and its endpoint
---@field jobs table<integer, gaterpc.Job>      running calls, by route
---@field nested integer                        calls that wait for calls of their own
---@field stopped gaterpc.Promise
local registration = {}
local registration_mt = { __name = "gaterpc.Registration", __index = registration }

-------------------------------------------------------------------------------------------------
-- Calls
-------------------------------------------------------------------------------------------------

local function refuse(self, route, code, message)
  self.core:fail(route, code, code, message, "")
end

local function fail(self, job, err, trace)
  local code, class, message = errors.describe(err)
  core.log(30, "gaterpc.worker", ("%s.%s failed: %s"):format(self.service, job.method, trace or message))
  self.core:fail(job.route, code, class, message, self.traceback and trace or "")
end

local function trace_of(job, err)
  local _, _, message = errors.describe(err)
  return errors.whole_traceback(job.co, err, message)
end

local function on_end(job, ok, ...)
  local self = job.registration
  self.jobs[job.route] = nil
  if job.cancelled then return end
  if not ok then
    local err = ...
    return fail(self, job, err, trace_of(job, err))
  end
  return self.finish(self, job, ...)
end

local function end_huge(job, ok, digest)
  local self = job.registration
  self.jobs[job.route] = nil
  if job.cancelled then return end
  if ok then return self.core:finish(job.route, digest) end
  fail(self, job, digest, trace_of(job, digest))
end

-- Compresses and sends in a task of its own, which takes the method's place.
local function send_huge(self, done, data)
  local job = task.job(end_huge)
  job.registration, job.route, job.method, job.entry, job.id = self, done.route, done.method, done.entry, done.id
  job.cancelled, job.blocked = false, false
  self.jobs[job.route] = job
  local function send(module, raw, piece) return self.core:chunk(job.route, module, raw, piece) end
  local function wait()
    job.blocked = true -- CREDIT will come
    task.wait(function() end)
  end
  task.wake(job, huge.transmit, data, send, wait)
  core.want_turn()
end

-- The usual end of a method: its value, or the end of its stream.
local function finish(self, job, value)
  if job.streamed or (job.entry.stream and (value == nil or job.entry.declared)) then
    return self.core:finish(job.route)
  end
  if huge.is(value) then return send_huge(self, job, value) end
  local limit = not job.whole and settings.HUGE_DATA_SIZEOF or nil
  local sent, code, text = self.core:reply(job.route, value, nil, limit)
  if sent == false then return send_huge(self, job, huge.of_packed(code)) end
  if not sent and code ~= "NOT_FOUND" then
    fail(self, job, errors.new("INTERNAL", "the result cannot be sent: " .. text))
  end
end

---Ends a call with HugeData.
---@package
---@param job gaterpc.Job
---@param data table
function registration:send_huge(job, data)
  send_huge(self, job, data)
end

local function end_by_item(job, text)
  local self = job.registration
  job.cancelled = true
  fail(self, job, errors.new("INTERNAL", "an item cannot be sent: " .. text))
  task.kill(job)
end

-- coroutine.yield(value) in a method.
local function on_item(job, value)
  local self = job.registration
  job.streamed = true
  local more, code, text = self.core:item(job.route, value)
  if more then
    job.burst = job.burst + 1
    if job.burst < BURST then return task.go_on(job) end
    self.core:flush(job.route)
    job.burst = 0
    return task.wake(job)
  elseif more == false then
    job.blocked = true -- CREDIT will come
  elseif code ~= "NOT_FOUND" then
    return end_by_item(job, text)
  end
end

local function on_wait(job)
  if job.streamed then job.registration.core:flush(job.route) end
end

-- The guard names who has the thread; at the first start C has said it.
local function on_resume(job)
  job.registration.core:label(job.method)
  job.burst = 0
end

local on = {}

on[REQUEST] = function(self, route, name, deadline_ms, id, whole, ...)
  local method = self.methods[name]
  if not method then
    return refuse(self, route, "NOT_FOUND", ("service %s has no method %s"):format(self.service, name))
  end
  local job = task.job(on_end, on_item)
  job.registration, job.route, job.method, job.entry, job.id = self, route, name, method, id
  job.origin, job.origin_serial = job, job.serial
  job.whole = whole
  job.streamed, job.cancelled, job.blocked, job.burst = false, false, false, 0
  job.on_wait = on_wait
  if deadline_ms > 0 then job.deadline_ms = core.now_ms() + deadline_ms end
  self.jobs[route] = job
  self.start(self, job, method.fn, ...)
  job.on_resume = on_resume
end

on[CANCEL] = function(self, route, code)
  local job = self.jobs[route]
  if not job then return end
  job.cancelled = code
  task.kill(job, errors.new(code, "the call was given up"))
end

on[CREDIT] = function(self, route)
  local job = self.jobs[route]
  if not job or not job.blocked then return end
  job.blocked = false
  task.resume(job)
end

on[UP] = function(self)
  self.up:resolve(true)
  self.complained = nil
  core.log(20, "gaterpc.worker", ("%s is registered at %s"):format(self.service, self.address))
end

on[DOWN] = function(self)
  self.up = task.promise()
  if self.leaving then return end
  core.log(30, "gaterpc.worker", ("%s has lost its broker at %s"):format(self.service, self.address))
end

on[REFUSED] = function(self, code, message)
  self:close(errors.new(code, ("the broker at %s refuses service %s: %s"):format(
    self.address, self.service, message)))
end

on[DRAINED] = function(self)
  self:close()
end

-- The connection was refused, which is tried again: the right key may be added to the broker's.
on[BARRED] = function(self, code, text)
  local err = errors.new(code, ("worker of %s: the broker at %s %s"):format(self.service, self.address, text))
  local up, now = self.up, core.now()
  self.up = task.promise()
  up:reject(err)
  if self.complained and now - self.complained < COMPLAIN then return end
  self.complained = now
  core.log(40, "gaterpc.worker", err.message)
end

function registration:on_ready()
  events.take(self, on)
end

-------------------------------------------------------------------------------------------------
-- Life
-------------------------------------------------------------------------------------------------

-- Registrations that serve, so that they are not collected and a signal can stop them.
local serving = {}

---@package
---@param fields table  object, service, description, methods, described, start, finish
function M.register(fields, given)
  local self = setmetatable(fields, registration_mt)
  self.jobs, self.up, self.stopped, self.nested = {}, task.promise(), task.promise(), 0
  self.finish = self.finish or finish
  local about, code, text = msgpack.pack(msgpack.map {
    description = self.description or "", methods = msgpack.map(self.described) })
  if not about then return nil, errors.new(code, text) end
  local engine
  engine, code, text = core.worker({
    address = given.address, service = self.service, about = about, credit = given.credit,
    heartbeat_ms = to_ms(given.heartbeat), liveness = given.liveness, method = given.method,
    dialect = given.dialect, mechanism = given.mechanism, user = given.user, password = given.password,
    secure = given.secure, secure_user = given.secure_user, secure_password = given.secure_password,
    public_key = given.public_key, secret_key = given.secret_key, server_key = given.server_key,
    idle_ms = to_ms(given.stream_idle),
    reconnect_ms = to_ms(given.reconnect),
    reconnect_max_ms = to_ms(given.reconnect_max),
    hwm = settings.ZMQ_HWM,
    ipv6 = settings.ZMQ_IPV6 and 1 or 0,
  }, self)
  if not engine then return nil, errors.new(code, text) end
  self.core, self.address, self.traceback = engine, given.address, given.traceback
  core.busy_limit(to_ms(settings.BUSY_LIMIT))
  serving[self] = true
  return self
end

local function nest(self, change)
  self.nested = self.nested + change
  if self.core then self.core:nested(self.nested) end
end

---The job, a method's or of a task that a method has spawned, waits for a call of its own. Meanwhile the
---method does not count as far as its worker's credit goes: it may be called by those that it calls.
---@package
---@param job gaterpc.Job
function M.begin_nested(job)
  local origin = task.origin(job)
  if not origin then return end
  job.nested = origin.registration
  nest(job.nested, 1)
end

---@package
---@param job gaterpc.Job
function M.end_nested(job)
  local nested = job.nested
  if not nested then return end
  job.nested = nil
  nest(nested, -1)
end

---Takes no more requests, lets the running ones finish, then ends.
function registration:drain()
  self.leaving = true
  if self.core then self.core:drain() end
end

---Ends at once; running methods are closed.
function registration:close(err)
  if not self.core then return end
  serving[self] = nil
  local engine = self.core
  for _, job in pairs(self.jobs) do
    job.cancelled = "UNAVAILABLE"
    task.kill(job, errors.new("UNAVAILABLE", "the worker was closed"))
  end
  self.core = nil
  if self.pools then self.pools:rest() end
  engine:close()
  self.failure = err
  if err then core.log(40, "gaterpc.worker", tostring(err)) end
  self.up:reject(err or errors.new("UNAVAILABLE", "the worker was closed"))
  self.stopped:resolve(err)
  core.want_turn()
end

---All registrations that serve, for signals.
---@package
function M.serving()
  return serving
end

-------------------------------------------------------------------------------------------------
-- The class
-------------------------------------------------------------------------------------------------

--- The methods of this worker: name -> { doc, signature, idempotent, stream }.
function Worker.interface:get_interfaces()
  return self[STATE].described
end

---Runs a function in an executor, which suspends the calling coroutine only. A call that is cancelled gives
---the job up.
---@async
---@param executor gaterpc.Pool    self.thread_executor, self.process_executor or another one
---@param fn function|string       a string is "module.function"
---@param ... any                  its arguments
---@return any ...                 its results; a gaterpc.StreamReply when it is a generator
function Worker:run_in_executor(executor, fn, ...)
  if not pools.is(executor) then
    error("run_in_executor takes an executor, such as self.thread_executor, got " .. type(executor), 2)
  end
  return executor:run(fn, ...)
end

local function start_method(self, job, fn, ...)
  task.resume(job, fn, self.object, ...)
end

-- A worker of RFC 7 serves one method.
local function check_method(given, methods)
  if (given.dialect == "mdp") ~= (given.method ~= nil) then
    error("create_worker: the dialect mdp and the option 'method' go together", 4)
  end
  if given.method and not methods[given.method] then
    error("create_worker: " .. options.unknown("method", given.method, methods), 4)
  end
end

---Makes a worker; gaterpc.Service:create_worker() is the usual way.
---@package
---@param class table
---@param service { name: string, description?: string }
---@param given? gaterpc.WorkerOptions
function M.new(class, service, given)
  pools = require "gaterpc.pool"
  given = options.check("create_worker", given, known, 3)
  settings.freeze("Worker")
  local function pick(name, setting) return settings.pick(setting, given[name], name) end
  local methods = interface.methods(class)
  check_method(given, methods)
  local self = setmetatable({ service = service.name }, class)
  local own = pools.equip(self, given, 2)
  self[STATE] = {
    methods = pools.place(methods, self, service.name), pools = own,
    described = interface.describe(methods),
    description = service.description,
    options = dialect.apply("create_worker", given, {
      address = pick("broker", "BACKEND"), credit = pick("credit", "WORKER_CREDIT"),
      heartbeat = pick("heartbeat", dialect.heartbeat(given.dialect)), liveness = pick("liveness", "LIVENESS"),
      reconnect = pick("reconnect", "RECONNECT"), reconnect_max = pick("reconnect_max", "RECONNECT_MAX"),
      stream_idle = pick("stream_idle", "STREAM_IDLE"), traceback = pick("traceback", "REMOTE_TRACEBACK"),
      method = given.method,
    }),
  }
  if self.init then self:init() end
  return self
end

function Worker.new()
  error("a worker is made by service:create_worker(Class, options)", 3)
end

function Worker:__tostring()
  return ("worker of %s at %s"):format(self.service, self[STATE].options.address)
end

---Connects and serves, without waiting for anything.
---@return gaterpc.Worker self
function Worker:start()
  local state = self[STATE]
  if state.registration and state.registration.core then error("the worker runs already", 2) end
  local made, err = M.register({
    object = self, service = self.service, description = state.description, methods = state.methods,
    described = state.described, start = start_method, pools = state.pools,
  }, state.options)
  if not made then
    error(errors.new(err.code, ("worker of %s: broker '%s': %s"):format(
      self.service, state.options.address, err.message)), 2)
  end
  state.registration = made
  return self
end

---Waits until a broker has registered the worker.
---@async
---@param timeout? number  seconds; default Settings.CONNECT_TIMEOUT
---@return gaterpc.Worker? self
---@return gaterpc.Error? err  DEADLINE_EXCEEDED; UNAUTHENTICATED or PERMISSION_DENIED when the broker does not want it;
---UNAVAILABLE when it was closed, or the broker cannot authenticate anybody now
function Worker:wait_ready(timeout)
  local made = self[STATE].registration
  if not made then error("the worker was not started", 2) end
  local ok, err = pcall(made.up.await, made.up, timeout or settings.CONNECT_TIMEOUT)
  if ok then return self end
  return nil, err
end

---Serves until stop() or a signal, and then until the running calls have ended. Raises when the broker
---refuses the worker.
---@async
function Worker:run()
  task.check_wait(2)
  local made = self[STATE].registration
  if not (made and made.core) then
    self:start()
    made = self[STATE].registration
  end
  local err = made.stopped:await()
  if err then error(err, 0) end
end

---Takes no more requests; running calls finish, then run() returns.
function Worker:stop()
  local made = self[STATE].registration
  if made then made:drain() end
end

---Ends at once; running methods are closed and their callers get WORKER_LOST.
function Worker:close()
  local made = self[STATE].registration
  if made then made:close() end
end

---True while it serves.
function Worker:is_alive()
  local made = self[STATE].registration
  return made ~= nil and made.core ~= nil
end

---Counters: requests, cancelled, malformed, open, and whether a broker knows it (up).
---@return table
function Worker:stats()
  local made = self[STATE].registration
  if not (made and made.core) then return { requests = 0, cancelled = 0, malformed = 0, open = 0, up = false } end
  return made.core:stats()
end

-------------------------------------------------------------------------------------------------
-- The present call
-------------------------------------------------------------------------------------------------

---@class gaterpc.Call
---@field service string
---@field method string
---@field id integer         the client's number of the call
---@field deadline? number   seconds that are left; nil without a deadline
---@field cancelled boolean  nobody wants the answer any more

---What the running method serves, or nil outside of methods. In tasks that it spawned too.
---@return gaterpc.Call?
function M.call()
  local job = task.current()
  local origin = job and task.origin(job)
  if not origin then return nil end
  return {
    service = origin.registration.service, method = origin.method, id = origin.id,
    deadline = origin.deadline_ms and (origin.deadline_ms - core.now_ms()) / 1000,
    cancelled = origin.cancelled and true or false,
  }
end

M.Worker = Worker

return M
