---crew: the executors of a pool and the jobs in its line: who runs next, and what becomes of a job that is given
---up or whose executor dies. pool.lua is what users see of it; src/exec has the executors.
---@module "gaterpc.crew"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local events = require "gaterpc.events"
local msgpack = require "gaterpc.msgpack"
local settings = require "gaterpc.settings"
local stream = require "gaterpc.stream"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"

local M = {}

-- Kinds of frames from an executor, as in src/exec/frame.h; 0 is its end.
local ENDED, READY, ITEM, DONE, FAILED, QUESTION = 0, 7, 8, 9, 10, 11

-- What a job's owner gets: its results, a stream of them, or an error object.
local RESULTS, STREAM, ERROR = 1, 2, 3
M.STREAM, M.ERROR = STREAM, ERROR

local MAX_CODES = 1024      -- functions that an executor remembers
local START_TRIES = 3       -- executors that cannot start, one after the other, before jobs fail
local PAUSE, PAUSE_MAX = 0.05, 5 -- before the next one starts, when they die again and again
local PRESS, PRESS_MAX = 0.1, 1  -- how often a job that was given up is told so

---@class gaterpc.CrewJob
---@field id integer
---@field crew gaterpc.Crew
---@field state "queued"|"running"|"given up"|"over"
---@field settle? fun(job: gaterpc.CrewJob, kind: integer, ...)  called once, when its owner still waits
---@field description string           packed, as the next three
---@field codes table<integer, string>
---@field arguments string
---@field split integer
---@field deadline_ms integer          in core.now_ms(), or 0
---@field keep table                   fn, arguments...: what is shared with the executor lives as long as the job
---@field member? gaterpc.Member
---@field feeds? table<string, gaterpc.HugeDataFeed>  that it was lent, by id; as the next, see huge_jobs.lua
---@field huge? gaterpc.HugeData      its first result
---@field told? boolean               its error goes to who reads the data that it was to feed

---One executor.
---@class gaterpc.Member
---@field crew gaterpc.Crew
---@field core any
---@field state "starting"|"idle"|"busy"|"leaving"|"gone"
---@field job? gaterpc.CrewJob
---@field known table<integer, true>  ids of bytecode that it has
---@field asked? gaterpc.Job          what answers its question
local member = {}
local member_mt = { __name = "gaterpc.Member", __index = member }

---@class gaterpc.Crew
---@field kind "thread"|"process"
---@field max_workers integer
---@field max_queue integer
---@field max_calls? integer
---@field memory_limit integer        bytes, or 0
---@field grace number                seconds
---@field init_module? string
---@field init_function? string       described by portable.lua
---@field init_codes table<integer, string>
local crew = {}
local crew_mt = { __name = "gaterpc.Crew", __index = crew }

-- Crews that have jobs or members that are not idle, so that they are not collected.
local active = {} -- luacheck: ignore 241

local on, dispatch, start_member = {}, nil, nil

---Of a job, for people.
---@param job gaterpc.CrewJob
---@return string
function M.name_of(job)
  local fn = job.keep[1]
  if type(fn) == "string" then return fn end
  local info = debug.getinfo(fn, "S")
  return ("the function at %s:%d"):format(info.short_src, info.linedefined)
end
local name_of = M.name_of

-------------------------------------------------------------------------------------------------
-- The line of jobs
-------------------------------------------------------------------------------------------------

local function enqueue(self, job, first)
  job.state, job.before, job.behind = "queued", nil, nil
  if not self.last then
    self.first, self.last = job, job
  elseif first then
    job.behind, self.first.before, self.first = self.first, job, job
  else
    job.before, self.last.behind, self.last = self.last, job, job
  end
  self.queued = self.queued + 1
end

local function dequeue(self, job)
  if job.before then job.before.behind = job.behind else self.first = job.behind end
  if job.behind then job.behind.before = job.before else self.last = job.before end
  job.before, job.behind = nil, nil
  self.queued = self.queued - 1
end

-------------------------------------------------------------------------------------------------
-- The end of a job
-------------------------------------------------------------------------------------------------

-- Is there nothing that it still has to do?
local function look_idle(self)
  if self.open > 0 or self.moving > 0 then return end
  active[self] = nil
  if self.closed and next(self.members) == nil then self.ended:resolve() end
end

-- Nobody waits for the job any more; its executor may still be at it.
local function settle(job, kind, ...)
  local fn = job.settle
  if not fn then return end
  job.settle = nil
  if job.timer then timers.drop(job.timer) end
  job.timer = nil
  fn(job, kind, ...)
end

local function close_job(job)
  local self = job.crew
  if job.state == "over" then return end
  job.state, job.keep = "over", { job.keep[1] } -- its future may live on
  if job.feeds then
    for _, feed in next, job.feeds do feed.jobs[job] = nil end
    job.feeds = nil
  end
  self.jobs[job.id], self.streams[job.id] = nil, nil
  self.open = self.open - 1
  core.hold(false)
end

-- The job is over, for its owner too.
local function finish(job, kind, ...)
  close_job(job)
  settle(job, kind, ...)
end

-- The same for a job whose answer comes, or may have come, as a stream.
local function fail(job, err)
  local reader = job.crew.streams[job.id]
  if job.feeds then
    for _, feed in next, job.feeds do job.told = feed:fail(err) or job.told end
  end
  finish(job, ERROR, err)
  if reader then reader:on_end(err) end
end

-- Tells an executor until it listens. A process that does not is killed; a thread cannot be.
local function press(job)
  local holder = job.member
  job.presser = nil
  if not holder or holder.job ~= job then return end
  local urgent = core.now() >= job.patience
  if urgent and holder.crew.kind == "process" then
    holder.killed = true
    holder.core:kill()
    return
  end
  if urgent and not job.complained then
    job.complained = true
    core.log(30, "gaterpc.executor", ("a thread is still busy with %s, which was given up"):format(name_of(job)))
  end
  holder.core:cancel(job.id, job.why, urgent)
  job.press_pause = math.min(job.press_pause * 1.5, PRESS_MAX)
  job.presser = timers.after(job.press_pause, press, job, true)
end

---Gives a job up: its owner gets the error at once, and its code is stopped. Nothing happens when it is over.
---@param job gaterpc.CrewJob
---@param err gaterpc.Error
function M.give_up(job, err)
  local self = job.crew
  if job.state == "queued" then
    dequeue(self, job)
    self.counts.cancelled = self.counts.cancelled + 1
    fail(job, err)
    return look_idle(self)
  elseif job.state ~= "running" then
    return
  end
  self.counts.cancelled = self.counts.cancelled + 1
  fail(job, err)
  job.state, job.why = "given up", err.code
  job.patience, job.press_pause = core.now() + self.grace, PRESS
  if job.member.asked then task.kill(job.member.asked, err) end
  press(job)
end

local function expire(job)
  job.timer = nil
  M.give_up(job, errors.new("DEADLINE_EXCEEDED", "the deadline passed before the job was done"))
end

-------------------------------------------------------------------------------------------------
-- Members
-------------------------------------------------------------------------------------------------

local moves = { starting = 1, busy = 1, leaving = 1, idle = 0, gone = 0 }

local function set_state(self, state)
  local team = self.crew
  team.moving = team.moving + moves[state] - (self.state and moves[self.state] or 0)
  if team.moving > 0 then active[team] = true end
  self.state = state
end

local function take_off(self)
  for i, other in ipairs(self.crew.idle) do
    if other == self then return table.remove(self.crew.idle, i) end
  end
end

local function kill_late(self)
  if self.state == "leaving" then self.core:kill() end
end

-- It will end by itself, soon.
local function let_go(self)
  set_state(self, "leaving")
  timers.after(self.crew.grace, kill_late, self, true)
end

-- Lets it end; it has nothing to do.
local function dismiss(self)
  take_off(self)
  let_go(self)
  self.core:quit()
end

---Lets all executors end that have nothing to do.
function crew:dismiss_idle()
  for i = #self.idle, 1, -1 do dismiss(self.idle[i]) end
end

-- It can take a job.
local function rest(self)
  local team = self.crew
  if self.state == "leaving" then return end
  if team.max_calls and self.calls >= team.max_calls then
    set_state(self, "idle")
    return dismiss(self)
  end
  set_state(self, "idle")
  team.idle[#team.idle + 1] = self
end

-- Bytecode that the executor does not have yet, packed; "" when it has all.
local function news_for(self, codes)
  local news, forget = nil, false
  for id, dump in next, codes do
    if not self.known[id] then
      if not news and self.known_count >= MAX_CODES then
        self.known, self.known_count, forget = {}, 0, true
      end
      news = news or msgpack.map {}
      news[id] = dump
    end
  end
  if not news then return "" end
  if forget then
    for id, dump in next, codes do news[id] = dump end
  end
  for id in next, news do
    self.known[id] = true
    self.known_count = self.known_count + 1
  end
  return assert(msgpack.pack { codes = news, forget = forget })
end

-- Gives a job to an idle executor. False when that one has just died.
local function start_job(self, job)
  local ok, code, text = self.core:job(
    job.id, job.deadline_ms, job.description, news_for(self, job.codes), job.arguments, job.split)
  if ok then
    job.state, job.member, self.job = "running", self, job
    job.description, job.codes, job.arguments = nil, nil, nil
    set_state(self, "busy")
    return true
  elseif code == "UNAVAILABLE" then
    return false
  end
  self.known, self.known_count = {}, 0 -- what was to be sent has not been
  self.crew.idle[#self.crew.idle + 1] = self
  fail(job, errors.new(code, text))
  return true
end

-- How many more executors there should be, and when.
local function grow(self)
  local wanted = math.min(self.queued - self.starting, self.max_workers - self.size)
  if wanted <= 0 then return end
  local wait = self.not_before - core.now()
  if wait > 0 then
    self.growing = self.growing or timers.after(wait, function()
      self.growing = nil
      dispatch(self)
    end)
    return
  end
  for _ = 1, wanted do
    if not start_member(self) then return end
  end
end

-- Gives waiting jobs to idle executors, and starts more of these.
function dispatch(self)
  while self.first do
    local free = table.remove(self.idle)
    if not free then break end
    local job = self.first
    dequeue(self, job)
    if not start_job(free, job) then enqueue(self, job, true) end -- its end will be told
  end
  if self.first then grow(self) end
  if self.closed and not self.first then self:dismiss_idle() end
  look_idle(self)
end

local function fail_all(self, err)
  while self.first do
    local job = self.first
    dequeue(self, job)
    self.counts.failed = self.counts.failed + 1
    fail(job, err)
  end
end

-- They do not even start, or die with their first job, one after the other: the next one waits, and at last jobs
-- fail.
local function note_bad_end(self, why)
  self.bad_ends = self.bad_ends + 1
  local pause = self.bad_ends > START_TRIES and PAUSE * 2 ^ math.min(self.bad_ends - START_TRIES, 20) or 0
  self.not_before = core.now() + math.min(pause, PAUSE_MAX)
  if self.bad_starts >= START_TRIES then
    self.bad_starts = START_TRIES - 1 -- the next one is tried alone
    fail_all(self, errors.new("UNAVAILABLE", "no executor can be started: " .. why))
  end
end

function start_member(self)
  local new = setmetatable({ crew = self, known = {}, known_count = 0, calls = 0, memory = 0 }, member_mt)
  local engine, code, text = core.executor(self.kind, new)
  local hello = msgpack.map {
    kind = self.kind, path = package.path, cpath = package.cpath, log_level = core.log_level(),
    log_levels = self.kind == "process" and msgpack.map(core.logger_levels()) or nil,
    module = self.init_module, init = self.init_function, code = news_for(new, self.init_codes),
  }
  local ok = engine
  if engine then
    ok, code, text = engine:hello(self.memory_limit, settings.STREAM_REPLY_MAXSIZE, settings.STREAM_REPLY_MAXBYTES,
      assert(msgpack.pack(hello)))
  end
  if not ok then
    self.bad_starts = self.bad_starts + 1
    note_bad_end(self, ("%s: %s"):format(code, text))
    if self.first then grow(self) end
    return false
  end
  new.core = engine
  self.members[new] = true
  self.size, self.starting = self.size + 1, self.starting + 1
  set_state(new, "starting")
  return true
end

-------------------------------------------------------------------------------------------------
-- What executors say
-------------------------------------------------------------------------------------------------

-- A process may say anything: its code can do what it likes with its socket.

local function has_job(self, id)
  return self.job ~= nil and self.job.id == id
end

on[READY] = function(self, _, memory)
  local team = self.crew
  if self.ready then return end
  team.starting, team.bad_starts = team.starting - 1, 0
  self.memory, self.ready = memory, true
  rest(self)
  dispatch(team)
end

local function new_stream(job)
  local team = job.crew
  local reader = stream.new(team.reader, job.id, team.kind, name_of(job), 86400 * 365)
  team.streams[job.id] = reader
  return reader
end

-- One item, as stream.lua reads a message of them.
local page = {}
page.__index = page

function page:next()
  if self.read then return false end
  self.read = true
  if self.code then return nil, self.code, "an item cannot be unpacked: " .. self.text end
  return true, self.value
end

on[ITEM] = function(self, id, bytes, value, code, text)
  local job = self.job
  if not has_job(self, id) or job.state ~= "running" then return end
  local team = job.crew
  if value == nil then value = msgpack.null end
  local reader = team.streams[job.id]
  local is_new = not reader and job.settle
  if is_new then reader = new_stream(job) end
  if not reader then return end -- its reader has gone, and that will be heard
  reader:on_items(setmetatable({ value = value, code = code, text = text }, page), 1, bytes)
  if is_new then settle(job, STREAM, reader) end
end

-- The executor has done its job: counts, and takes the next one.
local function end_job(self, memory, seconds)
  local job, team = self.job, self.crew
  self.job, self.memory, self.calls = nil, memory, self.calls + 1
  local counts = team.counts
  counts.timed, counts.seconds, counts.last = counts.timed + 1, counts.seconds + seconds, seconds
  team.bad_ends = 0
  if job.presser then timers.drop(job.presser) end
  job.presser, job.member = nil, nil
  return job, job.state == "running"
end

on[DONE] = function(self, id, memory, seconds, is_stream, ...)
  local team = self.crew
  if not has_job(self, id) then return end
  local job, is_wanted = end_job(self, memory, seconds)
  rest(self)
  if is_wanted then
    team.counts.done = team.counts.done + 1
    local reader = team.streams[job.id]
    if is_stream and not reader and job.settle then reader = new_stream(job) end
    if reader then
      close_job(job)
      reader:on_end()
      settle(job, STREAM, reader)
    elseif job.huge then
      finish(job, RESULTS, job.huge, select(2, ...))
    else
      finish(job, RESULTS, ...)
    end
  end
  dispatch(team)
end

local function error_of(code, class, message, traceback)
  if not errors.codes[code] or type(class) ~= "string" or type(message) ~= "string" then
    return errors.new("DATA_LOSS", "the error of the job cannot be read")
  end
  return errors.new(code, message, {
    class = class, traceback = type(traceback) == "string" and traceback ~= "" and traceback or nil })
end

on[FAILED] = function(self, id, memory, seconds, last, ...)
  local team = self.crew
  local err = error_of(...)
  if id == 0 and not self.ready then self.start_error = err end -- it cannot start
  if not has_job(self, id) then return end
  local job, is_wanted = end_job(self, memory, seconds)
  if last then
    let_go(self)
    team.counts.replaced = team.counts.replaced + 1
  else
    rest(self)
  end
  if is_wanted then
    team.counts.failed = team.counts.failed + 1
    fail(job, err)
  end
  dispatch(team)
end

local signal_names = { [4] = "SIGILL", [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL",
  [11] = "SIGSEGV", [15] = "SIGTERM" }

local function describe_end(self, exit_code, signal)
  if self.crew.kind == "thread" then return "the thread that ran it has ended" end
  if signal == 0 then return ("the process that ran it has ended with exit code %d"):format(exit_code) end
  local name = signal_names[signal]
  return ("the process that ran it was ended by signal %d%s"):format(signal, name and (" (%s)"):format(name) or "")
end

-- Takes it off the lists. Returns the state that it had.
local function remove_member(self)
  local team, state = self.crew, self.state
  take_off(self)
  set_state(self, "gone")
  team.members[self] = nil
  team.size = team.size - 1
  if not self.ready then team.starting = team.starting - 1 end
  if self.asked then task.kill(self.asked, errors.new("WORKER_LOST", "who asked has gone")) end
  return state
end

on[ENDED] = function(self, exit_code, signal)
  local team, job = self.crew, self.job
  local state = remove_member(self)
  self.job = nil
  local text = describe_end(self, exit_code, signal)
  if job then
    if job.presser then timers.drop(job.presser) end
    job.presser, job.member = nil, nil
    if job.state == "running" then
      team.counts.lost = team.counts.lost + 1
      fail(job, errors.new("WORKER_LOST", text))
    end
  end
  if state ~= "leaving" then
    team.counts.replaced = team.counts.replaced + 1
    if not self.ready then team.bad_starts = team.bad_starts + 1 end
    if not self.killed then
      core.log(30, "gaterpc.executor", ("%s: %s"):format(job and name_of(job) or "an executor without a job",
        self.start_error and tostring(self.start_error) or text))
      if self.calls == 0 then note_bad_end(team, self.start_error and tostring(self.start_error) or text) end
    end
  end
  dispatch(team)
end

-- Questions are answered by whoever knows what they are about; see sync_manager.lua and huge_jobs.lua.
local answers = {}

local function nobody()
  return nil, "NOT_FOUND", "nobody answers such questions of executors"
end

---@package
---@param about string
---@param fn fun(job?: gaterpc.CrewJob, ...): any  in a coroutine of its own, which may wait; returns true, ... or
---nil, code, text
function M.on_question(about, fn)
  answers[about] = fn
end

local function on_answer(asked, ok, ...)
  local self, id = asked.member, asked.question
  self.asked, asked.member = nil, nil -- tasks are pooled
  if self.state == "gone" then return end
  if ok then
    self.core:answer(id, ...)
  else
    local code, _, message = errors.describe((...))
    self.core:answer(id, nil, code, message)
  end
end

on[QUESTION] = function(self, id, about, ...)
  if self.asked or self.job and self.job.state ~= "running" then return end
  local asked = task.job(on_answer)
  asked.member, asked.question, self.asked = self, id, asked
  task.resume(asked, answers[about] or nobody, self.job, ...)
end

---@package
function member:on_ready()
  events.take(self, on)
end

-------------------------------------------------------------------------------------------------
-- The crew
-------------------------------------------------------------------------------------------------

-- What a stream of stream.lua needs of a client.
local function reader_of(self)
  local by_id = { core = {}, is_own = true, settings = {
    window_items = settings.STREAM_REPLY_MAXSIZE, window_bytes = settings.STREAM_REPLY_MAXBYTES } }
  function by_id.core.credit(_, id, items, bytes)
    local job = self.jobs[id]
    if job and job.member then job.member.core:credit(id, items, bytes) end
  end
  function by_id.forget(_, id)
    local job = self.jobs[id]
    self.streams[id] = nil -- its end is no news to whoever has closed it
    if job then M.give_up(job, errors.new("CANCELLED", "the stream was closed")) end
  end
  return by_id
end

---Makes a crew without members. They start when there are jobs.
---@param self table  the fields of gaterpc.Crew
---@return gaterpc.Crew
function M.new(self)
  self.members, self.idle, self.size, self.starting = {}, {}, 0, 0
  self.moving = 0 -- members that are not idle
  self.queued, self.open, self.last_id = 0, 0, 0
  self.jobs, self.streams = {}, setmetatable({}, { __mode = "v" }) -- by id; streams are kept by their readers
  self.bad_ends, self.bad_starts, self.not_before = 0, 0, 0 -- since a job was done, since one could start
  self.closed, self.ended = false, task.promise()
  self.counts = { submitted = 0, done = 0, failed = 0, cancelled = 0, lost = 0, replaced = 0,
    timed = 0, seconds = 0, last = 0 }
  self.reader = reader_of(self)
  return setmetatable(self, crew_mt)
end

---Why there is no place for one more job, or nil.
---@return gaterpc.Error?
function crew:refusal()
  if self.closed then return errors.new("UNAVAILABLE", "the pool was shut down") end
  local soon = #self.idle + self.starting + self.max_workers - self.size -- jobs that need not wait
  if self.queued >= self.max_queue + soon then
    return errors.new("RESOURCE_EXHAUSTED", ("%d jobs wait already"):format(self.queued))
  end
end

---Puts a job into the line.
---@param job table  settle, description, codes, arguments, split, deadline_ms, keep, and what settle needs
---@return gaterpc.CrewJob
function crew:add(job)
  self.last_id = self.last_id + 1
  job.id, job.crew = self.last_id, self
  if job.deadline_ms > 0 then job.timer = timers.after((job.deadline_ms - core.now_ms()) / 1000, expire, job, true) end
  if job.feeds then
    for _, feed in next, job.feeds do feed.jobs[job] = true end
  end
  self.jobs[job.id], self.open, self.counts.submitted = job, self.open + 1, self.counts.submitted + 1
  active[self] = true
  core.hold(true)
  enqueue(self, job)
  dispatch(self)
  return job
end

---The job may take as long as it likes.
---@param job gaterpc.CrewJob
function crew:drop_deadline(job) -- luacheck: ignore 212
  if job.timer then timers.drop(job.timer) end
  job.timer, job.deadline_ms = nil, 0
end

---@param err gaterpc.Error
function crew:give_up_all(err)
  for _, job in pairs(self.jobs) do M.give_up(job, err) end
end

---Takes no more jobs; when those that it has are over, its executors end. Then `ended` is resolved.
function crew:close()
  self.closed = true
  dispatch(self)
end

---@return table  see gaterpc.Pool:stats()
function crew:stats()
  local counts = self.counts
  local stats = {
    kind = self.kind, max_workers = self.max_workers, workers = self.size, idle = #self.idle, busy = 0,
    queued = self.queued, submitted = counts.submitted, done = counts.done, failed = counts.failed,
    cancelled = counts.cancelled, lost = counts.lost, replaced = counts.replaced,
    mean_ms = counts.timed > 0 and counts.seconds * 1000 / counts.timed or 0, last_ms = counts.last * 1000,
    states = {},
  }
  for each in pairs(self.members) do
    if each.state == "busy" then stats.busy = stats.busy + 1 end
    table.insert(stats.states, {
      memory = each.memory, calls = each.calls, state = each.state, pid = each.core:pid() })
  end
  return stats
end

return M
