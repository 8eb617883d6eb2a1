---pool: ThreadPoolExecutor and ProcessPoolExecutor, which run functions beside the host's Lua thread.
---
---  local pool = gaterpc.ProcessPoolExecutor { max_workers = 4 }
---  local job = pool:submit(function(n) return n * n end, 7)
---  print(job:await())             --> 49
---  pool:shutdown()
---
---Who runs next, and what becomes of a job whose executor dies, is decided in crew.lua.
---@module "gaterpc.pool"

local core = require "gaterpc.core"
local crew = require "gaterpc.crew"
local errors = require "gaterpc.error"
local huge_jobs = require "gaterpc.huge_jobs"
local msgpack = require "gaterpc.msgpack"
local options = require "gaterpc.options"
local portable = require "gaterpc.portable"
local settings = require "gaterpc.settings"
local stream = require "gaterpc.stream"
local task = require "gaterpc.task"

local M = {}

---@class gaterpc.PoolOptions
---@field max_workers? integer   executors at most; default: threads min(32, cores + 4), processes cores
---@field max_queue? integer     jobs that may wait; default Settings.EXECUTOR_QUEUE
---@field memory_limit? integer  bytes that the Lua state of each may have; default: none
---@field max_calls? integer     jobs after which an executor is replaced; default: never
---@field init? string|function  a module to be required, or a function to be run, in each new state
---@field grace? number          seconds that a job that was given up has to stop; default Settings.EXECUTOR_GRACE
local known = {
  max_workers = "integer", max_queue = "integer", memory_limit = "integer", max_calls = "integer",
  init = "string|function", grace = "number",
}

local MIN_MEMORY = 1 << 20 -- a state without a job has about a tenth of it

---@class gaterpc.Pool
---@field private crew gaterpc.Crew
local methods = {}
local mt = { __name = "gaterpc.Pool", __index = methods }

-------------------------------------------------------------------------------------------------
-- Making pools
-------------------------------------------------------------------------------------------------

local function cores()
  return require("luv").available_parallelism()
end

local defaults = {
  thread = function() return math.min(32, cores() + 4) end,
  process = cores,
}

local function check_range(who, given, name, low, high, level)
  local value = given[name]
  if value and not (value >= low and value <= high) then
    error(("%s: option '%s' must be from %s to %s, got %s"):format(who, name, low, high, value), level + 1)
  end
  return value
end

local function new(kind, who, given)
  given = options.check(who, given, known, 3)
  settings.freeze(who)
  local fields = {
    kind = kind,
    max_workers = check_range(who, given, "max_workers", 1, 1024, 2) or defaults[kind](),
    max_queue = settings.pick("EXECUTOR_QUEUE", given.max_queue, "max_queue"),
    memory_limit = check_range(who, given, "memory_limit", MIN_MEMORY, 1 << 46, 2) or 0,
    max_calls = check_range(who, given, "max_calls", 1, 1 << 53, 2),
    grace = settings.pick("EXECUTOR_GRACE", given.grace, "grace"),
    init_codes = {},
  }
  local init = given.init
  if type(init) == "function" then
    fields.init_function, fields.init_codes = portable.pack(init)
  else
    fields.init_module = init
  end
  return setmetatable({ crew = crew.new(fields), name = who }, mt)
end

---Makes a pool of threads, each with a Lua state of its own. They start when there are jobs.
---@param given? gaterpc.PoolOptions
---@return gaterpc.Pool
function M.ThreadPoolExecutor(given)
  return new("thread", "ThreadPoolExecutor", given)
end

---Makes a pool of processes. They start when there are jobs; one that dies fails its job only.
---@param given? gaterpc.PoolOptions
---@return gaterpc.Pool
function M.ProcessPoolExecutor(given)
  return new("process", "ProcessPoolExecutor", given)
end

---@param value any
---@return boolean
function M.is(value)
  return getmetatable(value) == mt
end

-------------------------------------------------------------------------------------------------
-- Submitting jobs
-------------------------------------------------------------------------------------------------

local MAX_ARGUMENTS = 64 << 20 -- bytes
local NOTHING = assert(msgpack.pack(nil))

-- What the job is about: of a method its service, and whether it is a stream; whose call it serves.
local function about(origin, stand_in)
  if not origin and not stand_in then return NOTHING end
  local packed, code, text = msgpack.pack(msgpack.map {
    service = stand_in and stand_in.service, stream = stand_in and stand_in.stream,
    call = origin and { service = origin.registration.service, method = origin.method, id = origin.id },
  })
  return packed or error(errors.new(code, text), 0)
end

-- Fills in what travels.
local function pack(job, origin, stand_in, fn, ...)
  local description, codes = portable.pack(fn)
  local arguments, split, text = msgpack.pack_args(...)
  if arguments and #arguments > MAX_ARGUMENTS then
    arguments, split, text = nil, "RESOURCE_EXHAUSTED", "they are larger than 64 MiB when packed"
  end
  if not arguments then error(errors.new(split, "the arguments of a job: " .. text), 0) end
  job.description, job.codes = description .. about(origin, stand_in), codes
  job.arguments, job.split, job.keep = arguments, split, { fn, ... }
end

---Puts a job into the line, where it may be settled at once. Raises when the function or the arguments cannot travel.
---@param job table  settle, and what that needs
---@param stand_in? { service: string, stream: boolean }  for a method
---@return gaterpc.CrewJob? job
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED, UNAVAILABLE, DEADLINE_EXCEEDED
local function add_job(self, job, stand_in, fn, ...)
  local err = self.crew:refusal()
  if err then return nil, err end
  local current = task.current()
  local origin = current and task.origin(current)
  huge_jobs.lend(job, pack, origin, stand_in, fn, ...)
  job.deadline_ms = origin and not huge_jobs.is_under_way(job) and origin.deadline_ms or 0
  if job.deadline_ms > 0 and job.deadline_ms <= core.now_ms() then
    return nil, errors.new("DEADLINE_EXCEEDED", "the deadline of the calling method has passed")
  end
  return self.crew:add(job)
end

local function check_function(fn, who)
  if type(fn) ~= "function" and type(fn) ~= "string" then
    error(("%s takes a function or \"module.function\", got %s"):format(who, type(fn)), 3)
  end
end

---A job that runs, or has run.
---@class gaterpc.Future
---@field private job gaterpc.CrewJob
---@field private promise gaterpc.Promise
local future = {}
local future_mt = { __name = "gaterpc.Future", __index = future }

-- An error is not to get lost because nobody asks for it. Only those that fail need a finalizer.
local failed_future_mt = { __name = "gaterpc.Future", __index = future }

function failed_future_mt:__gc()
  if self.awaited then return end
  core.log(30, "gaterpc.executor", ("%s has failed, and nobody has asked: %s"):format(
    crew.name_of(self.job), tostring(self.job.err)))
end

local function settle_future(job, kind, ...)
  if kind ~= crew.ERROR then return job.promise:resolve(...) end
  local err = ...
  job.promise:reject(err)
  if err.code ~= "CANCELLED" and not job.told then
    job.err = err
    setmetatable(job.future, failed_future_mt)
  end
end

---Starts a job.
---@param fn function|string  a string is "module.function"
---@param ... any             its arguments
---@return gaterpc.Future? future
---@return gaterpc.Error? err  RESOURCE_EXHAUSTED: too many wait; UNAVAILABLE: shut down; DEADLINE_EXCEEDED
function methods:submit(fn, ...)
  check_function(fn, "submit")
  local promise = task.promise()
  local job = { settle = settle_future, promise = promise }
  job.future = setmetatable({ job = job, promise = promise }, future_mt)
  local added, err = add_job(self, job, nil, fn, ...)
  if not added then return nil, err end
  return job.future
end

---Waits for the job's results, or raises its error. A generator gives a gaterpc.StreamReply.
---@async
---@param timeout? number  seconds; then it raises DEADLINE_EXCEEDED and the job goes on
---@return any ...
function future:await(timeout)
  self.awaited = true
  return self.promise:await(timeout)
end

future.join = future.await

---Gives the job up: whoever waits gets CANCELLED, and its code is stopped.
---@return boolean cancelled  false when it was over already
function future:cancel()
  if self.job.state ~= "queued" and self.job.state ~= "running" then return false end
  crew.give_up(self.job, errors.new("CANCELLED", "the job was cancelled"))
  return true
end

---@return boolean
function future:is_done()
  return self.promise:is_settled()
end

function future_mt:__tostring()
  return ("future of %s (%s)"):format(crew.name_of(self.job), self.job.state)
end
failed_future_mt.__tostring = future_mt.__tostring

local function wake_waiter(job, kind, ...)
  task.wake(job.waiter, kind, ...)
end

local function abandon(job)
  job.settle = nil
  crew.give_up(job, errors.new("CANCELLED", "whoever waited for the job has gone"))
end

local function unwrap(kind, ...)
  if kind == crew.ERROR then error((...), 0) end
  if kind == crew.STREAM then return stream.results((...)) end
  return ...
end

local function run(self, stand_in, fn, ...)
  local job, err = add_job(self, { settle = wake_waiter, waiter = task.check_wait(3) }, stand_in, fn, ...)
  if not job then error(err, 0) end
  return unwrap(task.wait(abandon, job))
end

---Runs a function and waits for its results. A job whose caller is cancelled is given up.
---@async
---@param fn function|string  a string is "module.function"
---@param ... any
---@return any ...  a gaterpc.StreamReply when it is a generator
function methods:run(fn, ...)
  check_function(fn, "run")
  return run(self, nil, fn, ...)
end

---Runs fn(item) for every item of a list, as many at once as there are executors. Returns the first result
---of each, in order; raises the first error, after the others were given up.
---@async
---@param fn function|string
---@param list any[]
---@return any[] results  with field n
function methods:map(fn, list)
  check_function(fn, "map")
  if type(list) ~= "table" then error("map takes a function and a list, got " .. type(list), 2) end
  task.check_wait(2)
  local results, started, n = { n = #list }, {}, 0
  local _ <close> = setmetatable({}, { __close = function()
    for _, each in next, started do each:cancel() end
  end })
  for i = 1, #list do
    while n < #list and n < i + self.crew.max_workers * 4 do
      local each, err = self:submit(fn, list[n + 1])
      if not each and (err.code ~= "RESOURCE_EXHAUSTED" or n < i) then error(err, 0) end
      if not each then break end
      n = n + 1
      started[n] = each
    end
    results[i] = started[i]:await()
    started[i] = nil
  end
  return results
end

-------------------------------------------------------------------------------------------------
-- The end of a pool
-------------------------------------------------------------------------------------------------

---Takes no more jobs. Those that it has are done first.
---@async
---@param given? { wait?: boolean, cancel?: boolean }  wait = false: returns at once; cancel = true: gives up all
---jobs, also those that run
function methods:shutdown(given)
  given = options.check("shutdown", given, { wait = "boolean", cancel = "boolean" })
  if given.wait ~= false then task.check_wait(2) end
  if given.cancel then self.crew:give_up_all(errors.new("UNAVAILABLE", "the pool was shut down")) end
  self.crew:close()
  if given.wait == false then return end
  core.hold(true)
  local _ <close> = setmetatable({}, { __close = function() core.hold(false) end })
  self.crew.ended:await()
end

function mt:__close()
  self:shutdown { wait = false, cancel = true }
end

function mt:__tostring()
  return ("%s of %d, %d at work"):format(self.name, self.crew.max_workers, self.crew.size - #self.crew.idle)
end

---Counters, and what each executor has.
---@return { kind: string, max_workers: integer, workers: integer, idle: integer, busy: integer, queued: integer,
---submitted: integer, done: integer, failed: integer, cancelled: integer, lost: integer, replaced: integer,
---mean_ms: number, last_ms: number, states: { memory: integer, calls: integer, state: string, pid: integer }[] }
function methods:stats()
  return self.crew:stats()
end

-------------------------------------------------------------------------------------------------
-- Methods of workers and brokers
-------------------------------------------------------------------------------------------------

-- The pools that a worker or broker has made for itself.
local own_pools = {}
own_pools.__index = own_pools

---Gives up what runs in them; their executors end.
function own_pools:rest()
  for _, pool in ipairs(self) do
    pool.crew:give_up_all(errors.new("UNAVAILABLE", "the worker was closed"))
    pool.crew:dismiss_idle()
  end
end

---Gives a worker or broker its pools: those of its options, or its own.
---@package
---@param object table
---@param given table    its options
---@param level integer  as in error()
---@return gaterpc.Pool[] own  with a method rest()
function M.equip(object, given, level)
  local own = setmetatable({}, own_pools)
  for _, kind in ipairs { "thread", "process" } do
    local name = kind .. "_executor"
    local pool = given[name]
    if pool ~= nil and not M.is(pool) then
      error(("option '%s' must be a pool of executors, got %s"):format(name, type(pool)), level + 1)
    end
    object[name] = pool or new(kind, kind == "thread" and "ThreadPoolExecutor" or "ProcessPoolExecutor")
    own[#own + 1] = not pool and object[name] or nil
  end
  return own
end

local function pass_on(reply, ...)
  if not stream.is(reply) then return reply, ... end
  local _ <close> = reply
  for item in reply do coroutine.yield(item) end
end

---Methods whose place is not the host's Lua thread, replaced by what runs them in their place.
---@package
---@param methods_of_class table<string, gaterpc.Method>
---@param object table     has the pools
---@param service string
---@return table<string, gaterpc.Method>
function M.place(methods_of_class, object, service)
  local placed = {}
  for name, method in pairs(methods_of_class) do
    placed[name] = method
    if method.run ~= "inline" then
      local which, fn = method.run .. "_executor", method.fn
      local stand_in = { service = service, stream = method.stream }
      placed[name] = setmetatable({
        fn = function(_, ...) return pass_on(run(object[which], stand_in, fn, ...)) end,
      }, { __index = method })
    end
  end
  return placed
end

return M
