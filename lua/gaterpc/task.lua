---Tasks: coroutines that wait. The only place that resumes a coroutine of the project.
---
---A waiting coroutine yields a private tag, so what a method yields as an item of its stream cannot
---be confused with it. coroutine.resume and wrap pass the tag outward, so coroutines of users may
---wait too. C reports outcomes to the dispatcher at the end of this file, and this file decides
---who runs.
---@module "gaterpc.task"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local hooks = require "gaterpc.msgpack_core".hooks
local timers = require "gaterpc.timers"

local raw_resume, raw_yield, raw_wrap = coroutine.resume, coroutine.yield, coroutine.wrap
local create, close, status, isyieldable = coroutine.create, coroutine.close, coroutine.status, coroutine.isyieldable
local pack, unpack = table.pack, table.unpack

local M = {}

local WAIT = setmetatable({}, { __name = "gaterpc.wait" })
local DONE = setmetatable({}, { __name = "gaterpc.done" })
local INTERRUPT = setmetatable({}, { __name = "gaterpc.interrupt" })

---What runs: a coroutine with what belongs to its present work. Jobs are pooled, so whoever keeps one
---must forget it when it ends.
---@class gaterpc.Job
---@field co thread
---@field alive boolean
---@field on_end fun(job: gaterpc.Job, ok: boolean, ...)
---@field on_item fun(job: gaterpc.Job, value: any)  what happens to a value that it yields
---@field on_wait? fun(job: gaterpc.Job)             before it waits
---@field on_resume? fun(job: gaterpc.Job)           before it goes on
---@field stop? fun(key: any, id: any)               gives up what it waits for
---@field woken? table                               its place among those that are ready
---@field handle? gaterpc.Task                       the public face, when there is one
---@field serial integer                             counts the uses of a pooled job
---@field origin? gaterpc.Job                        the method that it works for, see M.origin
---@field origin_serial? integer                     that one's serial
---@field deadline_ms? integer                       of a method: when its call ends, in core.now_ms()

---@type gaterpc.Job?
local current
local pool, pool_len = {}, 0 -- jobs that have ended, with their coroutines
local POOL_MAX = 1024

-- Jobs to resume: a ring of job, argument pack.
local ready, ready_first, ready_last = {}, 1, 0
local NOBODY = { alive = false }

-------------------------------------------------------------------------------------------------
-- Running
-------------------------------------------------------------------------------------------------

-- Without line numbers: when `return gaterpc.Client { wrong }` ends a user's function, its own line is gone from the
-- stack, and error(text, 2) would name the one that is next, which is here.
local body = load(string.dump(function(yield, done)
  local function body(fn, ...)
    return body(yield(done, fn(...)))
  end
  return body
end, true), "=task", "b")(raw_yield, DONE)

-- Reports an error that nobody is left to catch; set by host.lua.
local fatal

local function recycle(job)
  job.alive = false
  if pool_len < POOL_MAX then
    pool_len = pool_len + 1
    pool[pool_len] = job
  end
end

local function step(job, ok, tag, ...)
  if tag == WAIT then
    local on_wait = job.on_wait
    if on_wait then return on_wait(job) end
    return
  end
  if not ok then
    job.alive = false
    job:on_end(false, tag)
    close(job.co) -- only now: a traceback needs the stack; <close> variables run here
    return
  end
  if tag == DONE then
    job:on_end(true, ...)
    return recycle(job)
  end
  return job:on_item(tag, ...)
end

local function resume(job, ...)
  if not job.alive then return end
  local before = current
  current = job
  job.stop, job.woken = nil, nil
  local on_resume = job.on_resume
  if on_resume then on_resume(job) end
  step(job, raw_resume(job.co, ...))
  current = before
end

---Lets the job go on after a yield, from its on_item. A tail call, so a stream of any length does not
---grow the stack.
---@package
function M.go_on(job)
  return step(job, raw_resume(job.co))
end

local function item_of_no_stream(job)
  M.kill(job, errors.new("INTERNAL", "coroutine.yield outside of a streaming method: nobody takes the value"))
end

---Makes a job without starting it.
---@package
---@param on_end fun(job: gaterpc.Job, ok: boolean, ...)
---@param on_item? fun(job: gaterpc.Job, value: any)
---@return gaterpc.Job
function M.job(on_end, on_item)
  local job
  if pool_len > 0 then
    job = pool[pool_len]
    pool[pool_len] = nil
    pool_len = pool_len - 1
  else
    job = { co = create(body), serial = 0 }
  end
  job.alive, job.serial = true, job.serial + 1
  job.on_end, job.on_item = on_end, on_item or item_of_no_stream
  job.on_wait, job.on_resume, job.stop, job.doomed = nil, nil, nil, nil
  job.handle, job.origin, job.deadline_ms = nil, nil, nil
  return job
end

---Starts or continues a job now. Only from the dispatcher, never from inside another job.
---@package
M.resume = resume

---Lets a job continue as soon as the present one waits or ends. The first wake-up counts: another one
---before the job has its turn (its time is up too) would end its next wait.
---@package
---@param job gaterpc.Job
function M.wake(job, ...)
  if job.woken then return end
  ready_last = ready_last + 1
  local entry = { job, select("#", ...), ... }
  ready[ready_last], job.woken = entry, entry
end
local wake = M.wake

---Runs everything that is ready, in order; new arrivals of this round have the next one.
local function run_ready()
  local last = ready_last
  while ready_first <= last do
    local entry = ready[ready_first]
    ready[ready_first] = nil
    ready_first = ready_first + 1
    resume(entry[1], unpack(entry, 3, 2 + entry[2]))
  end
  if ready_first <= ready_last then
    core.want_turn()
  else
    ready_first, ready_last = 1, 0
  end
end

---Ends a job from outside: what it waits for is given up, its coroutine is closed and its <close>
---variables run. Nothing happens when it has ended. A job that is running (it cancels itself, or
---something that it called) cannot be closed and goes on to its next wait.
---@package
---@param job gaterpc.Job
---@return boolean ended
function M.kill(job, ...)
  if not job.alive then return false end
  if status(job.co) ~= "suspended" then
    job.doomed = pack(...)
    return false
  end
  job.alive = false
  if job.stop then job.stop(job.stop_key, job.stop_id) end
  local before = current
  current = job -- so that what its <close> variables call knows whose it is
  local ok, err = close(job.co)
  current = before
  if not ok then core.log(40, "gaterpc.task", "an error while a cancelled task was closed: " .. tostring(err)) end
  job:on_end(false, ...)
  return true
end

-------------------------------------------------------------------------------------------------
-- Waiting
-------------------------------------------------------------------------------------------------

local CANNOT_WAIT = "cannot wait here: inside table.sort, string.gsub, require, a metamethod called from C "
  .. "or a <close> variable of a cancelled task"

local function cannot_wait(otherwise)
  return hooks.running() and "cannot wait here: inside a hook of message_pack" or otherwise
end

---The job that runs, or nil outside of tasks (in a finalizer, for instance).
---@package
---@return gaterpc.Job?
function M.current()
  return current
end

---The running method that a job works for: its own or that of the task's parents. Nil when there is
---none, or when it has ended (jobs are pooled, so it may run another one already).
---@package
---@param job gaterpc.Job
---@return gaterpc.Job?
function M.origin(job)
  local origin = job.origin
  if origin and origin.serial == job.origin_serial and (origin.alive or origin == job) then return origin end
end

---Raises when the caller cannot wait here.
---@package
---@param level integer as in error()
---@return gaterpc.Job
function M.check_wait(level)
  if not current then error(cannot_wait "cannot wait here: no task is running", level + 1) end
  if not isyieldable() then
    error(cannot_wait(CANNOT_WAIT), level + 1)
  end
  if current.doomed then
    local doomed = current.doomed
    error(doomed[1] or errors.new("CANCELLED", "the task was cancelled"), 0)
  end
  return current
end

local function awake(first, ...)
  if first == INTERRUPT then error((...), 0) end
  return first, ...
end

---Suspends the job until somebody wakes or resumes it; returns what that one passes. `stop(key, id)`
---is called when the job is killed or interrupted instead, also between its wake-up and its turn.
---@package
function M.wait(stop, key, id)
  current.stop, current.stop_key, current.stop_id = stop, key, id
  return awake(raw_yield(WAIT))
end

---Makes a waiting job raise err where it waits. Only from the dispatcher.
---@package
---@param job gaterpc.Job
---@return boolean interrupted  false when it does not wait
function M.interrupt(job, err)
  if not job.alive or not job.stop or status(job.co) ~= "suspended" then return false end
  job.stop(job.stop_key, job.stop_id)
  if job.woken then job.woken[1] = NOBODY end -- or it would be resumed in its next wait, too
  resume(job, INTERRUPT, err)
  return true
end

-- coroutine.resume for coroutines of users: a wait inside passes through to the job.

local closing_mt = {
  __close = function(self)
    if self.co and status(self.co) == "suspended" then close(self.co) end
  end,
}

local pass

-- When the job is killed during the wait, the inner coroutine is closed too.
local function pass_wait(co)
  local guard <close> = setmetatable({ co = co }, closing_mt)
  if not isyieldable() then
    current.stop(current.stop_key, current.stop_id) -- or it would wake the job from another wait
    error(cannot_wait(CANNOT_WAIT), 3)
  end
  local values = pack(raw_resume(co, raw_yield(WAIT)))
  while values[1] and values[2] == WAIT do values = pack(raw_resume(co, raw_yield(WAIT))) end
  guard.co = nil
  return unpack(values, 1, values.n)
end

function pass(co, ok, tag, ...)
  if tag == WAIT then return pass_wait(co) end
  return ok, tag, ...
end

function coroutine.resume(co, ...)
  return pass(co, raw_resume(co, ...))
end

local function unwrap(ok, ...)
  if ok then return ... end
  error((...), 0)
end

local function unwrap_position(co, ok, ...)
  if ok then return ... end
  local err = ...
  if status(co) == "dead" then close(co) end -- as coroutine.wrap does: <close> variables run
  if type(err) == "string" then
    local info = debug.getinfo(2, "Sl")
    if info and info.currentline > 0 then
      err = ("%s:%d: %s"):format(info.short_src, info.currentline, err)
    end
  end
  return unwrap(false, err)
end

function coroutine.wrap(fn)
  if type(fn) ~= "function" then return raw_wrap(fn) end -- for its error message
  local co = create(fn)
  return function(...)
    return unwrap_position(co, pass(co, raw_resume(co, ...)))
  end
end

-------------------------------------------------------------------------------------------------
-- Time
-------------------------------------------------------------------------------------------------

local function check_seconds(seconds, level)
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then
    error("a time is a number of seconds, 0 or more", level + 1)
  end
  return math.min(seconds, 86400 * 365)
end
M.check_seconds = check_seconds

---Suspends the calling coroutine for so many seconds.
---@async
---@param seconds number
function M.sleep(seconds)
  seconds = check_seconds(seconds, 2)
  local job = M.check_wait(2)
  M.wait(timers.drop, timers.after(seconds, wake, job))
end

-------------------------------------------------------------------------------------------------
-- Promises
-------------------------------------------------------------------------------------------------

---@class gaterpc.Promise
---@field private waiting? gaterpc.Job[]
---@field private listeners? function[]
---@field private outcome? table  pack(ok, ...)
local promise = {}
local promise_mt = { __name = "gaterpc.Promise", __index = promise }

---A value that is not there yet.
---@return gaterpc.Promise
function M.promise()
  return setmetatable({}, promise_mt)
end

local function settle(self, ...)
  if self.outcome then return false end
  self.outcome = pack(...)
  local waiting, listeners = self.waiting, self.listeners
  self.waiting, self.listeners = nil, nil
  for _, job in ipairs(waiting or {}) do wake(job, true) end
  for _, listener in ipairs(listeners or {}) do listener() end
  return true
end

---Gives the promise its values; only the first resolve or reject counts.
---@return boolean counted
function promise:resolve(...)
  return settle(self, true, ...)
end

---Makes every await raise err.
---@return boolean counted
function promise:reject(err)
  return settle(self, false, err)
end

---@return boolean
function promise:is_settled()
  return self.outcome ~= nil
end

local function leave(self, job)
  for i, other in ipairs(self.waiting or {}) do
    if other == job then return table.remove(self.waiting, i) end
  end
end

---Waits for the promise's values, or raises what it was rejected with.
---@async
---@param timeout? number  seconds; then it raises DEADLINE_EXCEEDED
---@return any ...
function promise:await(timeout)
  if timeout then timeout = check_seconds(timeout, 2) end -- before there is anything to undo
  if not self.outcome then
    local job = M.check_wait(2)
    self.waiting = self.waiting or {}
    table.insert(self.waiting, job)
    local timer = timeout and timers.after(timeout, function()
      leave(self, job)
      wake(job, false)
    end)
    local came = M.wait(function()
      leave(self, job)
      if timer then timers.drop(timer) end
    end)
    if timer then timers.drop(timer) end
    if not came then error(errors.new("DEADLINE_EXCEEDED", "nothing came in time"), 2) end
  end
  local outcome = self.outcome
  if outcome[1] then return unpack(outcome, 2, outcome.n) end
  error(outcome[2], 0)
end

-------------------------------------------------------------------------------------------------
-- Tasks
-------------------------------------------------------------------------------------------------

---@class gaterpc.Task
---@field private job gaterpc.Job
---@field private promise gaterpc.Promise
---@field private joined boolean
local task = {}
local task_mt = { __name = "gaterpc.Task", __index = task }

local function end_task(job, ok, ...)
  local self = job.handle
  if ok then
    self.promise:resolve(...)
    return
  end
  local err = ...
  local somebody_cares = self.quiet or self.promise.waiting or self.promise.listeners
  self.promise:reject(err)
  if not somebody_cares then fatal(job.co, err) end
end

---Starts fn(...) as a task of its own. It runs as soon as the caller waits. An error in it goes to
---whoever joins it; when nobody does at that moment it ends the host, as in a script.
---@param fn function
---@return gaterpc.Task
function M.spawn(fn, ...)
  if type(fn) ~= "function" then error("task.spawn takes a function, got " .. type(fn), 2) end
  local job = M.job(end_task)
  local self = setmetatable({ job = job, promise = M.promise() }, task_mt)
  job.handle = self
  if current then
    job.origin, job.origin_serial = current.origin, current.origin_serial
  end
  wake(job, fn, ...)
  return self
end

---Waits for the task's results, or raises its error.
---@async
---@param timeout? number  seconds; then it raises DEADLINE_EXCEEDED and the task goes on
---@return any ...
function task:join(timeout)
  if self.job == current and not self.promise.outcome then error("a task cannot join itself", 2) end
  return self.promise:await(timeout)
end

---Ends the task: its <close> variables run, and whoever joins it gets CANCELLED.
---@return boolean cancelled  false when it had ended already
function task:cancel()
  if self.promise.outcome then return false end
  self.quiet = true
  return M.kill(self.job, errors.new("CANCELLED", "the task was cancelled"))
end

---@return boolean
function task:is_done()
  return self.promise:is_settled()
end

local function start_all(list, who)
  if type(list) ~= "table" then error(who .. " takes a list of functions and tasks", 3) end
  local tasks = {}
  for i, item in ipairs(list) do
    if getmetatable(item) == task_mt then
      tasks[i] = item
    elseif type(item) == "function" then
      tasks[i] = M.spawn(item)
    else
      error(("%s: item %d is a %s, not a function or task"):format(who, i, type(item)), 3)
    end
    tasks[i].quiet = true
  end
  return tasks
end

local function cancel_all(tasks)
  for _, each in ipairs(tasks) do each:cancel() end
end

-- Waits until a task has ended for which `enough` is true, and returns it, or until all have ended.
-- Whoever leaves early cancels the rest.
local function watch(tasks, enough)
  local _ <close> = setmetatable({}, { __close = function() cancel_all(tasks) end })
  local signal, left = M.promise(), #tasks
  local function settled(each)
    left = left - 1
    if enough(each) then signal:resolve(each) elseif left == 0 then signal:resolve(nil) end
  end
  for _, each in ipairs(tasks) do
    local promised = each.promise
    if promised.outcome then
      settled(each)
    else
      promised.listeners = promised.listeners or {}
      table.insert(promised.listeners, function() settled(each) end)
    end
  end
  return left > 0 and signal:await() or signal.outcome and signal.outcome[2] or nil
end

---Runs all functions (or waits for all tasks) at once. Returns the first result of each, in order;
---raises the first error, after the others were cancelled.
---@async
---@param list (function|gaterpc.Task)[]
---@return any[] results  with field n
function M.all(list)
  local tasks = start_all(list, "task.all")
  local failed = watch(tasks, function(each) return not each.promise.outcome[1] end)
  if failed then error(failed.promise.outcome[2], 0) end
  local results = { n = #tasks }
  for i, each in ipairs(tasks) do results[i] = each.promise.outcome[2] end
  return results
end

---Runs all functions at once until the first ends, and cancels the others. Returns its results and
---then its index; raises when it failed.
---@async
---@param list (function|gaterpc.Task)[]
---@return integer index
---@return any ... results
function M.race(list)
  local tasks = start_all(list, "task.race")
  if #tasks == 0 then error("task.race: an empty list never ends", 2) end
  local first = watch(tasks, function() return true end)
  local outcome = first.promise.outcome
  if not outcome[1] then error(outcome[2], 0) end
  for i, each in ipairs(tasks) do
    if each == first then return i, unpack(outcome, 2, outcome.n) end
  end
end

---Runs fn(...) for at most so many seconds. Then it is cancelled and DEADLINE_EXCEEDED raised.
---@async
---@param seconds number
---@param fn function
---@return any ...
function M.timeout(seconds, fn, ...)
  seconds = check_seconds(seconds, 2)
  if type(fn) ~= "function" then error("task.timeout takes a function, got " .. type(fn), 2) end
  M.check_wait(2)
  local inner = M.spawn(fn, ...)
  inner.quiet = true
  local _ <close> = setmetatable({}, { __close = function() inner:cancel() end })
  local ok, err = pcall(inner.promise.await, inner.promise, seconds)
  if not inner.promise.outcome then
    if errors.is(err) and err.code == "DEADLINE_EXCEEDED" then
      error(errors.new("DEADLINE_EXCEEDED", ("it took longer than %g s"):format(seconds)), 2)
    end
    if not ok then error(err, 0) end
  end
  return inner.promise:await()
end

-------------------------------------------------------------------------------------------------
-- The dispatcher: everything that C reports comes in here
-------------------------------------------------------------------------------------------------

local events = {}

-- An endpoint has events, a broker has ended, or work in libuv's pool is done: their owners know what to do.
function events.ready(owner) owner:on_ready() end
function events.ended(owner) owner:on_ended() end
function events.work(owner) owner:on_work() end
function events.due() timers.run() end
function events.turn() end -- somebody is ready to run, see below

-- A callback of luv, to run as a task.
function events.call(fn, ...) M.spawn(fn, ...) end

---Sets what happens on "signal" and "idle".
---@package
function M.on(event, fn)
  events[event] = fn
end

core.set_dispatcher(function(what, ...)
  events[what](...)
  run_ready()
end)

---Sets what happens to an error that nobody catches: fn(coroutine, err).
---@package
function M.on_fatal(fn)
  fatal = fn
end

return M
