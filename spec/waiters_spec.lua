-- What all waits of BoundedDict, Queue, Semaphore and Event have in common.
local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local gaterpc = require "gaterpc"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"
local turns = require "support.turns"

-- return results(call()): no tail call, so that errors name the line.
local function results(...)
  return ...
end

-- Each kind of wait: how to make a container where it waits, to wait, to give one waiter what it
-- wants, and what is left in the container (nothing when nobody waits and nothing is promised).
local kinds = {}

local function queue_traces(queue)
  return queue.getters.first or queue.putters.first or queue.promised_items > 0 and "items"
    or queue.promised_places > 0 and "places" or nil
end

local function dict_traces(dict)
  return dict.setters.first or next(dict.lines)
    or dict.promised > 0 and "places" or dict.taken > 0 and "values" or nil
end

local function fresh_dict()
  local dict = gaterpc.BoundedDict { maxsize = 2 }
  dict:set("a", 1)
  return dict
end

kinds["queue:get"] = {
  make = function() return gaterpc.Queue {} end,
  wait = function(queue, timeout)
    return results(queue:get(timeout))
  end,
  give = function(queue) assert(queue:put "item") end,
  traces = queue_traces,
}

kinds["queue:put"] = {
  make = function()
    local queue = gaterpc.Queue { maxsize = 1 }
    queue:put "first"
    return queue
  end,
  wait = function(queue, timeout)
    return results(queue:put("item", timeout))
  end,
  give = function(queue) assert(queue:get()) end,
  traces = queue_traces,
}

local next_key = 0
kinds["dict:aset"] = {
  make = function()
    local dict = fresh_dict()
    dict:set("b", 2)
    return dict
  end,
  wait = function(dict, timeout)
    next_key = next_key + 1
    return results(dict:aset(next_key, "value", timeout))
  end,
  give = function(dict) -- takes the oldest entry out
    return dict:pop((pairs(dict)()))
  end,
  traces = dict_traces,
}

kinds["dict:aget"] = {
  make = fresh_dict,
  wait = function(dict, timeout)
    return results(dict:aget("x", timeout))
  end,
  give = function(dict)
    assert(dict:set("x", "value"))
    dict:pop "x"
  end,
  traces = dict_traces,
  gives_all = true,
}

kinds["dict:apop"] = {
  make = fresh_dict,
  wait = function(dict, timeout)
    return results(dict:apop("x", timeout))
  end,
  give = function(dict)
    dict:clear()
    assert(dict:set("x", "value"))
  end,
  traces = dict_traces,
}

kinds["semaphore:acquire"] = {
  make = function()
    local semaphore = gaterpc.Semaphore(1)
    semaphore:acquire()
    return semaphore
  end,
  wait = function(semaphore, timeout)
    return results(semaphore:acquire(timeout))
  end,
  give = function(semaphore) semaphore:release() end,
  traces = function(semaphore) return semaphore.line.first end,
}

kinds["event:wait"] = {
  make = function() return gaterpc.Event() end,
  wait = function(event, timeout)
    return results(event:wait(timeout))
  end,
  give = function(event)
    event:set()
    event:clear()
  end,
  traces = function(event) return event.line.first end,
  gives_all = true,
}

local function each_kind(what, check)
  for name, kind in pairs(kinds) do
    it(("%s: %s"):format(name, what), function() check(kind, kind.make()) end)
  end
end

describe("a wait", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  -- Three that wait, in order.
  local function three(kind, container, timeout)
    local list = {}
    for i = 1, 3 do list[i] = turns.begin(kind.wait, container, timeout) end
    assert.same({ "waits", "waits", "waits" }, turns.outcomes(table.unpack(list)))
    return list
  end

  each_kind("ends when it is given what it waits for", function(kind, container)
    local waiting = turns.begin(kind.wait, container)
    turns.pass(5000)
    assert.equal("waits", waiting:outcome())
    kind.give(container)
    turns.turn()
    assert.not_equal("waits", waiting:outcome())
    assert.equal(1, waiting.values.n)
    assert.is_not_nil(waiting.values[1])
    assert.is_nil(kind.traces(container))
  end)

  each_kind("ends exactly when its time is up", function(kind, container)
    local waiting = turns.begin(kind.wait, container, 0.1)
    turns.pass(99)
    assert.equal("waits", waiting:outcome())
    turns.pass(1)
    assert.equal("DEADLINE_EXCEEDED", waiting:outcome())
    assert.is_nil(waiting.values[1])
    assert.truthy(tostring(waiting.values[2]):find("within 0.1 s", 1, true))
    assert.is_nil(kind.traces(container))
  end)

  each_kind("of 0 seconds does not wait at all", function(kind, container)
    local waiting = turns.begin(kind.wait, container, 0)
    assert.equal("DEADLINE_EXCEEDED", waiting:outcome())
    assert.is_nil(kind.traces(container))
  end)

  each_kind("of math.huge has no limit, and no timer that keeps the host running", function(kind, container)
    local after, started = timers.after, 0
    finally(function() timers.after = after end)
    timers.after = function(...)
      started = started + 1
      return after(...)
    end
    local waiting = turns.begin(kind.wait, container, math.huge)
    assert.equal(0, started)
    local limited = turns.begin(kind.wait, container, 1)
    assert.equal(1, started)
    limited:kill()
    waiting:kill()
  end)

  each_kind("that was served in time does not become late before its turn", function(kind, container)
    local waiting = turns.begin(kind.wait, container, 0.1)
    turns.tick(99)
    kind.give(container)
    turns.pass(1000)
    assert.is_nil(waiting.values[2])
  end)

  each_kind("that is late is not served any more", function(kind, container)
    local late = turns.begin(kind.wait, container, 0.1)
    local patient = turns.begin(kind.wait, container)
    turns.tick(100)
    kind.give(container)
    turns.turn()
    assert.equal("DEADLINE_EXCEEDED", late:outcome())
    assert.is_true(patient.ok)
    assert.is_nil(patient.values[2])
  end)

  each_kind("is served in the order of arrival", function(kind, container)
    local list = three(kind, container)
    local order = {}
    for i, each in ipairs(list) do each.ended = function() order[#order + 1] = i end end
    for i = 1, kind.gives_all and 1 or 3 do
      kind.give(container)
      if i ~= 2 then turns.turn() end -- also two in one turn
    end
    turns.turn()
    assert.same({ 1, 2, 3 }, order)
  end)

  each_kind("that is killed leaves the others in their order", function(kind)
    for killed = 1, 3 do
      local container = kind.make()
      local list = three(kind, container, 60)
      list[killed]:kill()
      local order = {}
      for i, each in ipairs(list) do each.ended = function() order[#order + 1] = i end end
      for _ = 1, kind.gives_all and 1 or 2 do
        kind.give(container)
        turns.turn()
      end
      local expected = { 1, 2, 3 }
      table.remove(expected, killed)
      assert.same(expected, order)
      assert.is_nil(kind.traces(container))
    end
  end)

  each_kind("whose task is killed between wake-up and turn passes its chance to the next", function(kind, container)
    local list = three(kind, container, 60)
    kind.give(container)
    list[1]:kill()
    turns.turn()
    assert.equal("CANCELLED", list[1]:outcome())
    assert.is_true(list[2].ok)
    assert.is_nil(list[2].values[2])
    if not kind.gives_all then
      assert.equal("waits", list[3]:outcome())
      list[3]:kill()
    end
    assert.is_nil(kind.traces(container))
  end)

  each_kind("passes its chance on again when the next is killed too", function(kind, container)
    local list = three(kind, container)
    kind.give(container)
    list[1]:kill()
    list[2]:kill()
    turns.turn()
    assert.is_true(list[3].ok)
    assert.is_nil(list[3].values[2])
    assert.is_nil(kind.traces(container))
  end)

  each_kind("whose task is killed between the end of its time and its turn changes nothing", function(kind, container)
    local list = { turns.begin(kind.wait, container, 0.01), turns.begin(kind.wait, container) }
    turns.tick(10)
    list[1]:kill()
    turns.turn()
    assert.same({ "CANCELLED", "waits" }, turns.outcomes(table.unpack(list)))
    kind.give(container)
    turns.turn()
    assert.is_true(list[2].ok)
    assert.is_nil(kind.traces(container))
  end)

  each_kind("passes its chance on when it is interrupted between wake-up and turn", function(kind, container)
    local list = three(kind, container)
    kind.give(container)
    assert.is_true(task.interrupt(list[1].job, "interrupted"))
    turns.turn()
    assert.equal("interrupted", list[1]:outcome())
    assert.is_true(list[2].ok)
    assert.is_nil(list[2].values[2])
  end)

  each_kind("is left by task.timeout and by cancel", function(kind, container)
    local limited = turns.begin(task.timeout, 0.05, kind.wait, container)
    local cancelled = task.spawn(kind.wait, container)
    turns.turn()
    turns.pass(50)
    assert.equal("DEADLINE_EXCEEDED", limited:outcome())
    assert.is_true(cancelled:cancel())
    assert.is_nil(kind.traces(container))
  end)

  each_kind("may stand in a coroutine of the user's", function(kind, container)
    local waiting = turns.begin(coroutine.wrap(function() return kind.wait(container) end))
    kind.give(container)
    turns.turn()
    assert.is_true(waiting.ok)
    assert.is_nil(waiting.values[2])
    waiting = turns.begin(coroutine.wrap(function() return kind.wait(container) end))
    waiting:kill()
    assert.is_nil(kind.traces(container))
  end)

  each_kind("ends with UNAVAILABLE when the container is closed", function(kind, container)
    local list = three(kind, container, 60)
    container:close()
    container:close()
    turns.turn()
    assert.same({ "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE" }, turns.outcomes(table.unpack(list)))
    assert.equal("UNAVAILABLE", turns.begin(kind.wait, container):outcome())
    assert.is_nil(kind.traces(container))
  end)

  each_kind("ends when the container's <close> variable does", function(kind)
    local waiting
    do
      local container <close> = kind.make()
      waiting = turns.begin(kind.wait, container)
    end
    turns.turn()
    assert.equal("UNAVAILABLE", waiting:outcome())
  end)

  each_kind("refuses what is no time, at the caller's line", function(kind, container)
    for _, wrong in ipairs { -1, 0 / 0, "1", true, {} } do
      local ok, err = pcall(kind.wait, container, wrong)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/waiters_spec.lua:%d+: a time is a number of seconds, 0 or more")
    end
    assert.is_nil(kind.traces(container))
  end)

  each_kind("says at the caller's line that one cannot wait here", function(kind, container)
    turns.start_clock()
    local said = {}
    local function try() said[#said + 1] = select(2, pcall(function() local _ = kind.wait(container) end)) end
    table.sort({ 1, 2 }, try)
    timers.after(0, try) -- from the dispatcher, where no task runs
    task.sleep(0.001)
    assert.truthy(said[1]:find "^spec/waiters_spec.lua:%d+: cannot wait here: inside table.sort")
    assert.truthy(said[#said]:find "^spec/waiters_spec.lua:%d+: cannot wait here: no task is running")
    assert.is_nil(kind.traces(container))
  end)
end)

describe("many waits", function()
  it("leave nothing behind when they are cancelled: 100,000 [limit 60]", function()
    local seen
    local made = {}
    for _, kind in pairs(kinds) do made[#made + 1] = { kind, kind.make() } end
    local function wait(kind, container)
      local mark = {}
      seen[mark] = true
      kind.wait(container, 3600)
      return mark
    end
    local function round()
      seen = setmetatable({}, { __mode = "k" })
      for _ = 1, 50 do
        local list = {}
        for i = 1, 1000 do list[i] = task.spawn(wait, table.unpack(made[i % #made + 1])) end
        task.sleep(0)
        for _, each in ipairs(made) do assert.is_truthy(each[1].traces(each[2])) end
        for i = 1, 1000 do list[(i * 7) % 1000 + 1]:cancel() end
        for _, each in ipairs(made) do assert.is_nil(each[1].traces(each[2])) end
      end
      collectgarbage()
      collectgarbage()
      assert.is_nil(next(seen))
      seen = nil
      return collectgarbage "count"
    end
    local before = round()
    local grown = round() - before -- tables of the scheduler may double; 50,000 waits would be 10 MiB
    assert.is_true(grown < 1024, ("%.0f KiB more"):format(grown))
  end)

  -- Thousands of instructions of the virtual machine, which do not depend on the machine's speed.
  local function cost(fn)
    local before = table.pack(debug.gethook())
    local count = 0
    debug.sethook(function() count = count + 1 end, "", 1000)
    fn()
    debug.sethook(table.unpack(before, 1, before.n))
    return count
  end

  each_kind("come and go in constant time each, at the front, the end and in the middle", function(kind)
    local function come_and_go(count)
      local container, list = kind.make(), {}
      for i = 1, count do list[i] = turns.begin(kind.wait, container) end
      for i = 1, count // 4 do
        list[i]:kill()
        list[count + 1 - i]:kill()
      end
      for i = 1, count, 2 do list[i]:kill() end
      for i = 2, count, 2 do list[i]:kill() end
      assert.is_nil(kind.traces(container))
    end
    local few = cost(function() come_and_go(500) end)
    local many = cost(function() come_and_go(5000) end)
    assert.is_true(many < 13 * few, ("%d and %d"):format(few, many))
  end)

  it("end at real times that are never early", function()
    local event = gaterpc.Event()
    for i = 1, 50 do
      local seconds = i / 10000
      local before = core.now()
      local ok, err = event:wait(seconds)
      assert.is_nil(ok)
      assert.is_true(errors.is(err))
      assert.is_true(core.now() - before >= seconds - 1e-6)
    end
  end)
end)
