local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"
local turns = require "support.turns"

-- A value whose closing is noted in the list.
local function noting(list, what)
  return setmetatable({}, { __close = function() list[#list + 1] = what end })
end

local function code_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return errors.is(err) and err.code or err
end

describe("task.spawn", function()
  it("runs when the caller waits, not before", function()
    local list = {}
    local spawned = task.spawn(function() list[1] = "ran" end)
    assert.same({}, list)
    spawned:join()
    assert.same({ "ran" }, list)
  end)

  it("passes arguments in and all results out, nil included", function()
    assert.same({ 1, nil, 3, nil, n = 4 }, table.pack(task.spawn(function(...) return ... end, 1, nil, 3, nil):join()))
  end)

  it("runs tasks in the order in which they became ready", function()
    local list = {}
    for i = 1, 5 do task.spawn(function() list[#list + 1] = i end) end
    task.sleep(0)
    assert.same({ 1, 2, 3, 4, 5 }, list)
  end)

  it("gives its error to whoever joins, again and again", function()
    local failing = task.spawn(function() error { code = "NOT_FOUND", message = "gone" } end)
    for _ = 1, 2 do
      local ok, err = pcall(failing.join, failing)
      assert.is_false(ok)
      assert.equal("gone", err.message)
    end
  end)

  it("runs <close> variables of a task that fails", function()
    local list = {}
    local failing = task.spawn(function()
      local _ <close> = noting(list, "closed")
      error "x"
    end)
    pcall(failing.join, failing)
    assert.same({ "closed" }, list)
  end)

  it("does not grow the stack however deep tasks spawn tasks", function()
    local depth = 0
    local function deeper()
      depth = depth + 1
      if depth < 1000 then return task.spawn(deeper):join() end
    end
    task.spawn(deeper):join()
    assert.equal(1000, depth)
  end)

  it("leaves nothing behind: 100,000 tasks", function()
    local function round()
      for _ = 1, 100 do
        for _ = 1, 500 do task.spawn(function() task.sleep(0) end) end
        task.sleep(0.001)
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before = round()
    assert.is_true(round() - before < 1024)
  end)
end)

describe("a task that is cancelled", function()
  it("runs its <close> variables, inner ones first", function()
    local list = {}
    local waiting = task.spawn(function()
      local _ <close> = noting(list, "outer")
      local _ <close> = noting(list, "inner")
      task.sleep(60)
      list[#list + 1] = "never"
    end)
    task.sleep(0)
    assert.is_true(waiting:cancel())
    assert.same({ "inner", "outer" }, list)
    assert.equal("CANCELLED", code_of(waiting.join, waiting))
    assert.is_false(waiting:cancel())
  end)

  it("is closed in coroutines of its own that wait, too", function()
    local list = {}
    local waiting = task.spawn(function()
      for _ in coroutine.wrap(function()
        local _ <close> = noting(list, "in the coroutine")
        task.sleep(60)
      end) do error "nothing comes" end
    end)
    task.sleep(0)
    waiting:cancel()
    assert.same({ "in the coroutine" }, list)
  end)

  it("gives up its timer and its place among waiters", function()
    local promise = task.promise()
    local first = task.spawn(function() return promise:await() end)
    local second = task.spawn(function() return promise:await() end)
    task.sleep(0)
    first:cancel()
    promise:resolve "value"
    assert.equal("value", second:join())
  end)

  it("before it has begun never begins", function()
    local ran = false
    local spawned = task.spawn(function() ran = true end)
    spawned:cancel()
    task.sleep(0)
    assert.is_false(ran)
  end)

  it("may not wait in its <close> variables, and that is all that happens", function()
    local said
    local waiting = task.spawn(function()
      local _ <close> = setmetatable({}, { __close = function() said = select(2, pcall(task.sleep, 1)) end })
      task.sleep(60)
    end)
    task.sleep(0)
    waiting:cancel()
    assert.truthy(said:find("cannot wait here", 1, true))
  end)

  it("by itself ends at its next wait", function()
    local list, self = {}, nil
    self = task.spawn(function()
      self:cancel()
      list[#list + 1] = "goes on"
      task.sleep(0)
      list[#list + 1] = "never"
    end)
    assert.equal("CANCELLED", code_of(self.join, self))
    assert.same({ "goes on" }, list)
  end)
end)

describe("task.sleep", function()
  it("wakes in the order of times, and of calls for equal ones", function()
    turns.stop_clock()
    finally(turns.start_clock)
    local list = {}
    for i, seconds in ipairs { 0.03, 0.01, 0.02, 0.01, 0 } do
      turns.begin(function()
        task.sleep(seconds)
        list[#list + 1] = i
      end)
    end
    for _ = 1, 3 do turns.pass(10) end
    assert.same({ 5, 2, 4, 3, 1 }, list)
  end)

  it("never wakes early", function()
    for _, seconds in ipairs { 0.001, 0.0125, 0.03 } do
      local before = core.now_ms()
      task.sleep(seconds)
      assert.is_true(core.now_ms() - before >= math.floor(seconds * 1000))
    end
  end)

  it("never wakes early by the finest clock, whatever else makes the loop turn", function()
    local turning = task.spawn(function() while true do task.sleep(0) end end)
    for i = 1, 100 do
      local before = core.now()
      task.sleep(0.001)
      assert.is_true(core.now() - before >= 0.001 - 1e-6, i)
    end
    turning:cancel()
  end)

  it("refuses what is no time", function()
    for _, wrong in ipairs { -1, 0 / 0, "1s", {} } do
      assert.has_error(function() task.sleep(wrong) end)
    end
  end)
end)

describe("task.all", function()
  it("gives the first results in the order of the list, nil included", function()
    local results = task.all {
      function() task.sleep(0.01) return "slow", "second" end,
      function() return nil end,
      task.spawn(function() return "task" end),
    }
    assert.same({ "slow", nil, "task", n = 3 }, results)
    assert.same({ n = 0 }, task.all {})
  end)

  it("raises the first error and cancels the others", function()
    local list = {}
    local ok, err = pcall(task.all, {
      function()
        local _ <close> = noting(list, "cancelled")
        task.sleep(60)
      end,
      function() error "first" end,
    })
    assert.is_false(ok)
    assert.truthy(err:find "first")
    assert.same({ "cancelled" }, list)
  end)

  it("is quick with 20,000", function()
    local list = {}
    for i = 1, 20000 do list[i] = function() task.sleep(0) return i end end
    assert.equal(20000, task.all(list)[20000])
  end)

  it("is cancelled with its caller", function()
    local list = {}
    local outer = task.spawn(function()
      task.all { function()
        local _ <close> = noting(list, "closed")
        task.sleep(60)
      end }
    end)
    task.sleep(0)
    task.sleep(0)
    outer:cancel()
    assert.same({ "closed" }, list)
  end)
end)

describe("task.race", function()
  it("gives the index and the results of the first, and cancels the others", function()
    local list = {}
    local function slow()
      local _ <close> = noting(list, "cancelled")
      task.sleep(60)
    end
    assert.same({ 2, "fast", nil, 3, n = 4 }, table.pack(task.race { slow, function() return "fast", nil, 3 end }))
    assert.same({ "cancelled" }, list)
  end)

  it("raises when the first fails, and for an empty list", function()
    assert.has_error(function() task.race { function() error "failed" end } end)
    assert.has_error(function() task.race {} end)
  end)
end)

describe("task.timeout", function()
  it("gives the results of what ends in time", function()
    assert.same({ 1, nil, 2, n = 3 }, table.pack(task.timeout(10, function(a) return a, nil, 2 end, 1)))
  end)

  it("raises DEADLINE_EXCEEDED and closes what does not", function()
    local list = {}
    assert.equal("DEADLINE_EXCEEDED", code_of(task.timeout, 0.01, function()
      local _ <close> = noting(list, "closed")
      task.sleep(60)
    end))
    assert.same({ "closed" }, list)
  end)

  it("passes on errors, one's own DEADLINE_EXCEEDED too", function()
    local ok, err = pcall(task.timeout, 10, function() error(errors.new("DEADLINE_EXCEEDED", "its own")) end)
    assert.is_false(ok)
    assert.equal("its own", err.message)
  end)
end)

describe("a promise", function()
  it("gives its values to all who wait, before and after", function()
    local promise = task.promise()
    local waiting = task.spawn(function() return promise:await() end)
    task.sleep(0)
    assert.is_false(promise:is_settled())
    assert.is_true(promise:resolve(1, nil, 3))
    assert.is_false(promise:resolve "again")
    assert.is_false(promise:reject "too late")
    assert.same({ 1, nil, 3, n = 3 }, table.pack(waiting:join()))
    assert.same({ 1, nil, 3, n = 3 }, table.pack(promise:await()))
  end)

  it("raises what it was rejected with", function()
    local promise = task.promise()
    promise:reject(errors.new("NOT_FOUND", "x"))
    assert.equal("NOT_FOUND", code_of(promise.await, promise))
  end)

  it("can be waited for with a time limit", function()
    local promise = task.promise()
    assert.equal("DEADLINE_EXCEEDED", code_of(promise.await, promise, 0.001))
    promise:resolve "later"
    assert.equal("later", promise:await(1))
  end)
end)

describe("a promise that was waited for with a time that is none", function()
  it("does not wake the one who asked from what it waits for next", function()
    for _, nonsense in ipairs { 0 / 0, -1, "soon" } do
      local first, second = task.promise(), task.promise()
      assert.truthy(code_of(first.await, first, nonsense):find("a number of seconds", 1, true))
      first:resolve "of the first"
      task.spawn(function() second:resolve "of the second" end)
      assert.equal("of the second", second:await())
      assert.is_false(pcall(first.await, first, nonsense)) -- also when it need not wait
    end
  end)
end)

describe("a task that was woken and has not run", function()
  -- A task that waits for the promise and then sleeps; tells how it was woken both times.
  local function waiting_twice(promise, timeout)
    return task.spawn(function()
      local first = table.pack(pcall(promise.await, promise, timeout))
      local before = core.now()
      task.sleep(0.02)
      return first[2], core.now() - before
    end)
  end

  it("is not woken again by its time-out", function()
    local promise = task.promise()
    local waiting = waiting_twice(promise, 0.1)
    task.sleep(0)
    local before = core.now()
    promise:resolve "value"
    while core.now() - before < 0.11 do end -- luacheck: ignore 542
    local first, slept = waiting:join()
    assert.equal("value", first)
    assert.is_true(slept >= 0.02)
  end)

  it("is not woken again after an interrupt", function()
    local promise = task.promise()
    local waiting = waiting_twice(promise)
    task.sleep(0)
    timers.after(0, function()
      promise:resolve "value"
      task.interrupt(waiting.job, "interrupted")
    end)
    local first, slept = waiting:join()
    assert.equal("interrupted", first)
    assert.is_true(slept >= 0.02)
  end)
end)

describe("coroutines of users", function()
  it("may wait inside wrap and resume, at any depth, and yield their own values", function()
    local function values()
      for i = 1, 3 do
        task.sleep(0)
        coroutine.yield(i, i * i)
      end
      return "end"
    end
    local outer = coroutine.wrap(function()
      local inner = coroutine.create(values)
      while true do
        local ok, a, b = coroutine.resume(inner)
        assert(ok, a)
        if coroutine.status(inner) == "dead" then return a end
        coroutine.yield(a + b)
      end
    end)
    assert.same({ 2, 6, 12, "end" }, { outer(), outer(), outer(), outer() })
  end)

  it("get arguments and give errors as ever", function()
    local co = coroutine.create(function(a)
      local b = coroutine.yield(a + 1)
      task.sleep(0)
      error { b }
    end)
    assert.same({ true, 2 }, { coroutine.resume(co, 1) })
    local ok, err = coroutine.resume(co, "b")
    assert.is_false(ok)
    assert.same({ "b" }, err)
    assert.same({ false, "cannot resume dead coroutine" }, { coroutine.resume(co) })
  end)

  it("run their <close> variables when a wrapped one fails", function()
    local list = {}
    local failing = coroutine.wrap(function()
      local _ <close> = noting(list, "closed")
      task.sleep(0)
      error "oops"
    end)
    assert.truthy(select(2, pcall(failing)):find "oops")
    assert.same({ "closed" }, list)
  end)

  it("may wait in pcall, metamethods, iterators and <close>", function()
    local list = {}
    local sum = setmetatable({}, { __add = function(_, n) task.sleep(0) return n end })
    assert.equal(5, sum + 5)
    for i in function(_, i)
      task.sleep(0)
      return i < 2 and i + 1 or nil
    end, nil, 0 do list[#list + 1] = i end
    do
      local _ <close> = setmetatable({}, { __close = function()
        task.sleep(0)
        list[#list + 1] = "closed"
      end })
    end
    assert.same({ 1, 2, "closed" }, list)
    assert.same({ true, "x" }, { pcall(function() task.sleep(0) return "x" end) })
  end)
end)
