---Client: calls services at a broker.
---
---  local client = gaterpc.Client { broker = "tcp://127.0.0.1:7777" }
---  print(client.SRkv.set("a", 1))                     -- raises when it fails
---  local value, err = client:try("SRkv", "get", "a")  -- or gives nil, err
---@module "gaterpc.client"

local core = require "gaterpc.core"
local dialect = require "gaterpc.dialect"
local errors = require "gaterpc.error"
local events = require "gaterpc.events"
local huge = require "gaterpc.huge"
local options = require "gaterpc.options"
local settings = require "gaterpc.settings"
local stream = require "gaterpc.stream"
local task = require "gaterpc.task"
local worker = require "gaterpc.worker"

local to_ms = options.to_ms

local M = {}

---@class gaterpc.ClientOptions
---@field broker? string       address of its frontend; default Settings.FRONTEND
---@field service? string      the service of client.method(...); default Settings.DEFAULT_SERVICE
---@field timeout? number      seconds for a call, and for each item of a stream; 0: no limit
---@field connect_timeout? number  default Settings.CONNECT_TIMEOUT
---@field heartbeat? number    default Settings.HEARTBEAT
---@field liveness? integer    default Settings.LIVENESS
---@field reconnect? number    default Settings.RECONNECT
---@field reconnect_max? number  default Settings.RECONNECT_MAX
---@field max_calls? integer   default Settings.CLIENT_MAX_CALLS
---@field window? integer      items of a stream that nobody has read; default Settings.STREAM_REPLY_MAXSIZE
---@field window_bytes? integer  their bytes; default Settings.STREAM_REPLY_MAXBYTES
---@field dialect? gaterpc.Dialect   what the broker speaks; default "gh1"
---@field zap_mechanism? "CURVE"|"PLAIN"|"NULL"  of the connection; PLAIN is sent inside every message with the dialects
---gate01 and gate02
---@field zap_credentials? table  PLAIN: { user, password }; CURVE: { public =, secret =, server = }, or as paths of
---files { key =, server = }
local known = {
  broker = "string", service = "string", timeout = "number", connect_timeout = "number", heartbeat = "number",
  liveness = "integer", max_calls = "integer", window = "integer", window_bytes = "integer", reconnect = "number",
  reconnect_max = "number", dialect = "string", zap_mechanism = "string", zap_credentials = "table",
}

-- Kinds of events, as in src/engine/client.h.
local REPLY, ITEM, END, FAILED, CHUNK = 1, 2, 3, 4, 7

-------------------------------------------------------------------------------------------------
-- The connection: what a client and its views (client:with) share
-------------------------------------------------------------------------------------------------

---@class gaterpc.Connection
---@field core any                       the engine and its endpoint
---@field address string
---@field waiting table<integer, gaterpc.Job>  calls without a first answer
---@field streams table<integer, gaterpc.StreamReply>  open streams, kept by their readers only
---@field settings table
---@field closed? boolean
local connection = {}
local connection_mt = { __name = "gaterpc.Connection", __index = connection }

local on = {}

local function begin(self, id, job)
  self.waiting[id] = job
  worker.begin_nested(job)
end

local function take(self, id)
  local job = self.waiting[id]
  if not job then return nil end
  self.waiting[id] = nil
  worker.end_nested(job)
  return job
end

-- What the status of an internal handler of a broker means as a code.
local code_of_status = {
  [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED", [404] = "NOT_FOUND",
  [408] = "DEADLINE_EXCEEDED", [429] = "RESOURCE_EXHAUSTED", [503] = "UNAVAILABLE",
}

on[REPLY] = function(self, id, value, status)
  local job = take(self, id)
  if not job then return end
  if status < 400 then return task.resume(job, REPLY, value) end
  local code = code_of_status[status] or "INTERNAL"
  task.resume(job, FAILED, code, code, value ~= nil and tostring(value) or ("status " .. status), nil, status)
end

on[FAILED] = function(self, id, code, class, message, traceback)
  local job = take(self, id)
  if class then code, class = dialect.translate(code, class, message or "") end
  if traceback == "" then traceback = nil end
  if job then return task.resume(job, FAILED, code, class, message or "", traceback) end
  local reader = self.streams[id]
  if reader then
    reader:on_end(errors.new(code, message or "", {
      class = class, traceback = traceback, service = reader.service, method = reader.method }))
  end
end

-- The first item makes a stream of the call.
local function start_stream(self, id)
  local job = self.waiting[id]
  return job and stream.new(self, id, job.service, job.method, job.timeout)
end

on[ITEM] = function(self, id, items, count, bytes)
  local reader = self.streams[id]
  if reader then return reader:on_items(items, count, bytes) end
  reader = start_stream(self, id)
  if not reader then return end -- given up meanwhile
  self.streams[id] = reader
  reader:on_items(items, count, bytes)
  task.resume(take(self, id), ITEM, reader)
end

-- A compressed result: a stream of pieces for who decodes them.
on[CHUNK] = function(self, id, piece, codec, raw)
  local reader = self.streams[id]
  if reader then return reader:on_items(huge.items(piece), 1, #piece) end
  reader = start_stream(self, id)
  if not reader then return end
  self.streams[id] = reader
  reader.codec, reader.raw = codec, raw
  reader:on_items(huge.items(piece), 1, #piece)
  task.resume(take(self, id), CHUNK, reader)
end

on[END] = function(self, id, items, count, bytes, digest)
  local reader = self.streams[id]
  local is_new = not reader
  if is_new then reader = start_stream(self, id) end
  if not reader then return end
  reader.digest = digest
  if count > 0 then reader:on_items(items, count, bytes) end
  reader:on_end()
  if is_new then task.resume(take(self, id), ITEM, reader) end
end

function connection:on_ready()
  events.take(self, on)
end

---Gives a call up.
function connection:forget(id)
  take(self, id)
  self.streams[id] = nil
  self.core:cancel(id)
end

-- Answers come back through task.wait(): kind, then what `on` passed.
local function call(self, service, method, timeout, ...)
  local job = task.check_wait(4)
  if self.closed then return FAILED, "UNAVAILABLE", "UNAVAILABLE", "the client is closed" end
  local timeout_ms = timeout > 0 and math.max(1, timeout * 1000 // 1 | 0) or 0
  local origin = task.origin(job)
  if origin and origin.deadline_ms then
    local left_ms = origin.deadline_ms - core.now_ms()
    if left_ms <= 0 then
      return FAILED, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "the deadline of the calling method has passed"
    end
    if timeout_ms == 0 or left_ms < timeout_ms then timeout_ms = left_ms end
  end
  local own = self.settings
  local id, code, text = self.core:call(service, method, timeout_ms, own.window_items, own.window_bytes, ...)
  if not id then return FAILED, code, code, text end
  begin(self, id, job)
  job.service, job.method, job.timeout = service, method, timeout > 0 and timeout or 86400 * 365
  return task.wait(connection.forget, self, id)
end

-------------------------------------------------------------------------------------------------
-- The client
-------------------------------------------------------------------------------------------------

---@class gaterpc.Client
---@field [string] gaterpc.ServiceProxy  a service, or a method of the default service
local methods = {}

-- What is private is behind keys that are no strings: every string may name a service.
local CONNECTION, TIMEOUT, SERVICE = {}, {}, {}

local function failure(self, service, method, code, class, message, traceback, status)
  if code == "UNAVAILABLE" and message == "no broker answers there" then
    message = "no broker answers at " .. self[CONNECTION].address
  end
  return errors.new(code, message, {
    class = class, traceback = traceback, status = status, service = service, method = method })
end

local function invoke_end(self, service, method, kind, ...)
  if kind == REPLY then return (...) end
  if kind == ITEM then return stream.results((...)) end
  if kind == CHUNK then return huge.value((...)) end
  error(failure(self, service, method, ...), 0)
end

local function invoke(self, service, method, ...)
  return invoke_end(self, service, method, call(self[CONNECTION], service, method, self[TIMEOUT], ...))
end

local function try_end(self, service, method, kind, ...)
  if kind == REPLY then return (...) end
  if kind == ITEM then return (...) end
  if kind == CHUNK then
    local ok, value = pcall(huge.value, (...))
    if ok then return value end
    if errors.is(value) then return nil, value end
    error(value, 0)
  end
  return nil, failure(self, service, method, ...)
end

local function huge_end(self, service, method, kind, ...)
  if kind == REPLY then return huge.reply(nil, (...)) end
  if kind == CHUNK then return huge.reply((...)) end
  if kind ~= ITEM then return nil, failure(self, service, method, ...) end
  local reader = ...
  reader:close()
  return nil, errors.new("INVALID_ARGUMENT", "the method answers with a stream", { service = service, method = method })
end

local function check_names(service, method)
  if type(service) ~= "string" or type(method) ~= "string" then
    error(("a service and a method are strings, got %s and %s"):format(type(service), type(method)), 3)
  end
end

---Calls service.method(...) and waits for the answer; raises when it fails.
---@async
---@param service string
---@param method string
---@return any result  a gaterpc.StreamReply when the method streams
function methods:call(service, method, ...)
  check_names(service, method)
  return invoke(self, service, method, ...)
end

---Calls service.method(...) and waits for the answer, without raising.
---@async
---@param service string
---@param method string
---@return any result         may rightly be nil or false: test err
---@return gaterpc.Error? err
function methods:try(service, method, ...)
  check_names(service, method)
  return try_end(self, service, method, call(self[CONNECTION], service, method, self[TIMEOUT], ...))
end

---Calls service.method(...) for a large string, which is to be had piece by piece or written to a file.
---@async
---@param service string
---@param method string
---@return gaterpc.HugeReply? reply
---@return gaterpc.Error? err
function methods:huge(service, method, ...)
  check_names(service, method)
  return huge_end(self, service, method, call(self[CONNECTION], service, method, self[TIMEOUT], ...))
end

---The same client with other limits for the calls made through it: client:with { timeout = 0.5 }.SRkv.get("a").
---@param changes { timeout?: number, service?: string }
---@return gaterpc.Client
function methods:with(changes)
  options.check("with", changes, { timeout = "number", service = "string" })
  return M.view(self[CONNECTION], changes.timeout or self[TIMEOUT], changes.service or self[SERVICE])
end

---Counters of this connection: calls, late, malformed, open, and whether a broker answers (up).
---@return table
function methods:stats()
  if self[CONNECTION].closed then error("the client is closed", 2) end
  return self[CONNECTION].core:stats()
end

---Ends the connection. Calls that wait fail with UNAVAILABLE.
function methods:close()
  local shared = self[CONNECTION]
  shared.closed = true
  shared.core:close()
  for id in pairs(shared.waiting) do
    task.wake(take(shared, id), FAILED, "UNAVAILABLE", "UNAVAILABLE", "the client was closed")
  end
  for id, reader in pairs(shared.streams) do
    shared.streams[id] = nil
    reader:on_end(errors.new("UNAVAILABLE", "the client was closed",
      { service = reader.service, method = reader.method }))
  end
  core.want_turn()
end

---@class gaterpc.ServiceProxy
---@field [string] fun(...): any
---@operator call: any

local function proxy_of(client, name)
  local proxy = {}
  return setmetatable(proxy, {
    __name = "gaterpc.ServiceProxy",
    __index = function(_, method)
      check_names(name, method)
      local function run(...)
        if rawequal((...), proxy) then return invoke(client, name, method, select(2, ...)) end -- svc:method()
        return invoke(client, name, method, ...)
      end
      rawset(proxy, method, run)
      return run
    end,
    __call = function(_, ...) -- client.method(...), and client:method(...)
      if rawequal((...), client) then return invoke(client, client[SERVICE], name, select(2, ...)) end
      return invoke(client, client[SERVICE], name, ...)
    end,
    __tostring = function() return "service " .. name end,
  })
end

local client_mt = { __name = "gaterpc.Client", __close = methods.close }

function client_mt:__index(name)
  local method = methods[name]
  if method then return method end
  if type(name) ~= "string" then return nil end
  local proxy = proxy_of(self, name)
  rawset(self, name, proxy)
  return proxy
end

function client_mt:__newindex(name)
  error(("a client has no field '%s' to be set; its options are given to gaterpc.Client{}"):format(tostring(name)), 2)
end

function client_mt:__tostring()
  return "client of " .. self[CONNECTION].address
end

---@package
function M.view(shared, timeout, service)
  return setmetatable({ [CONNECTION] = shared, [TIMEOUT] = timeout, [SERVICE] = service }, client_mt)
end

---Makes a client. It connects in the background; calls wait for the connection.
---@param given? gaterpc.ClientOptions
---@return gaterpc.Client
function M.new(given)
  given = options.check("Client", given, known)
  settings.freeze("Client")
  local function pick(name, setting) return settings.pick(setting, given[name], name) end
  local shared = setmetatable({
    address = pick("broker", "FRONTEND"),
    waiting = {},
    streams = setmetatable({}, { __mode = "v" }),
    settings = {
      window_items = pick("window", "STREAM_REPLY_MAXSIZE"),
      window_bytes = pick("window_bytes", "STREAM_REPLY_MAXBYTES"),
    },
  }, connection_mt)
  local engine, code, text = core.client(dialect.apply("Client", given, {
    address = shared.address,
    heartbeat_ms = to_ms(pick("heartbeat", dialect.heartbeat(given.dialect))),
    liveness = pick("liveness", "LIVENESS"),
    connect_timeout_ms = to_ms(pick("connect_timeout", "CONNECT_TIMEOUT")),
    max_calls = pick("max_calls", "CLIENT_MAX_CALLS"),
    reconnect_ms = to_ms(pick("reconnect", "RECONNECT")),
    reconnect_max_ms = to_ms(pick("reconnect_max", "RECONNECT_MAX")),
    hwm = settings.ZMQ_HWM,
    ipv6 = settings.ZMQ_IPV6 and 1 or 0,
  }), shared)
  if not engine then
    error(errors.new(code, ("Client: broker '%s': %s"):format(shared.address, text)), 2)
  end
  shared.core = engine
  return M.view(shared, pick("timeout", "REPLY_TIMEOUT"), pick("service", "DEFAULT_SERVICE"))
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
