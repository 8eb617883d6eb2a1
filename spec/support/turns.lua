---Tasks one step at a time, on a clock that stands until the spec moves it.
---
---  before_each(turns.stop_clock)
---  after_each(turns.start_clock)
---  it("...", function()
---    local waiting = turns.begin(queue.get, queue, 0.1)   -- it runs until it waits, nobody else does
---    turns.pass(99)                                       -- milliseconds
---    assert.equal("waits", waiting:outcome())
---    turns.pass(1)
---    assert.equal("DEADLINE_EXCEEDED", waiting:outcome())
---
---Whoever is woken has its turn in turns.turn() and turns.pass(), not before.
local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"
local luassert = require "luassert"
local uv = require "luv"

local M = {}

local now_ms = 0 -- the test's own limit counts on this clock, too
local real = { now = core.now, now_ms = core.now_ms, set_timer = core.set_timer }

function M.stop_clock()
  now_ms = 0
  core.now_ms = function() return now_ms end
  core.now = function() return now_ms / 1000 end
  core.set_timer = function() end
end

function M.start_clock()
  for name, fn in pairs(real) do core[name] = fn end
  timers.run() -- arms the real timer
end

---@return integer milliseconds since stop_clock()
function M.now_ms()
  return now_ms
end

local function nothing() end

---Runs what is ready, and what that makes ready, to the end of the chain.
---@param rounds? integer  the longest chain; default 12
function M.turn(rounds)
  local job = task.check_wait(2)
  for _ = 1, rounds or 12 do
    task.wake(job)
    task.wait(nothing)
  end
end

local function as_expected(ops)
  for _, op in ipairs(ops) do
    if op.task:outcome() ~= (op.result or "waits") then return false end
  end
  return true
end

---Lets everybody run until all tasks are where a model says that they end, and a little longer. Forgets
---those that have ended.
---@param ops { task: spec.Begun, result?: string }[]
---@param same fun(expected: any, got: any)
function M.settle(ops, same)
  local rounds = 0
  while rounds < 100 and not as_expected(ops) do
    rounds = rounds + 1
    M.turn(1)
  end
  M.turn(2)
  for i = #ops, 1, -1 do
    same(ops[i].result or "waits", ops[i].task:outcome())
    if ops[i].result then table.remove(ops, i) end
  end
end

local function same(expected, got)
  if expected ~= got then
    error(("expected %s, got %s"):format(tostring(expected), tostring(got)), 2)
  end
end

---Calls run(random, same) so many times, each on a new clock. What fails names its seed, with which
---GATERPC_SEED repeats it.
---@param count integer
---@param run fun(random: function, same: fun(expected: any, got: any))
function M.random_runs(count, run)
  local given = tonumber(os.getenv "GATERPC_SEED")
  local first = given or uv.hrtime() & 0x7fffffff
  for seed = first, given and first or first + count - 1 do
    M.stop_clock()
    math.randomseed(seed)
    local ok, err = xpcall(run, debug.traceback, math.random, same)
    if not ok then error(("with GATERPC_SEED=%d: %s"):format(seed, err), 0) end
  end
end

---For models: one of those that have not ended, or nil.
---@param ops { task: spec.Begun }[]
function M.pick(ops, random)
  local op = ops[random(math.max(1, #ops))]
  return op and op.task.job and op
end

---For models: takes one out of a list, and gives it; nil when it is not there.
function M.remove_from(list, op)
  for i, each in ipairs(list) do
    if each == op then return table.remove(list, i) end
  end
end

---Moves the clock without a turn: who is late is only woken.
function M.tick(ms)
  now_ms = now_ms + ms
  timers.run()
end

---Moves the clock and lets everybody run.
function M.pass(ms)
  M.tick(ms)
  M.turn()
end

---@class spec.Begun
---@field values? any[]  what its function has returned, or its error; with field n
local begun = {}
local begun_mt = { __index = begun }

---Starts fn(...) at once, in a task of its own, until it waits or ends.
---@return spec.Begun
function M.begin(fn, ...)
  local self = setmetatable({}, begun_mt)
  self.job = task.job(function(_, ok, ...)
    self.job, self.ok, self.values = nil, ok, table.pack(...)
    if self.ended then self.ended(self) end
  end)
  task.resume(self.job, fn, ...) -- the dispatcher's privilege; here nobody else runs meanwhile
  return self
end

---Cancels it, wherever it stands. Nothing happens when it has ended.
function begun:kill()
  if self.job then task.kill(self.job, errors.new("CANCELLED", "killed")) end
end

---What a call has returned: its value as text, or the code of its error.
---@return string
function M.text_of(value, err)
  return err and err.code or tostring(value)
end

---The code of the error that came in place of a value.
---@return string
function M.code_of(value, err)
  luassert.is_nil(value)
  return err.code
end

---"waits", the value that it has returned as text, or the code of the error it returned or raised.
---@return string
function begun:outcome()
  if self.job then return "waits" end
  local value, err = self.values[1], self.values[2]
  if not self.ok then return errors.is(value) and value.code or tostring(value) end
  return M.text_of(value, err)
end

---The outcomes of several.
---@param ... spec.Begun
---@return string[]
function M.outcomes(...)
  local texts = {}
  for i, each in ipairs { ... } do texts[i] = each:outcome() end
  return texts
end

return M
