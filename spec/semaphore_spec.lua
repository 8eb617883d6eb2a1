local errors = require "gaterpc.error"
local gaterpc = require "gaterpc"
local task = gaterpc.task
local turns = require "support.turns"

local Semaphore = gaterpc.Semaphore
local code_of = turns.code_of

describe("a semaphore", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  it("gives as many permits as it has", function()
    local semaphore = Semaphore(2)
    assert.is_true(semaphore:acquire())
    assert.is_true(semaphore:try_acquire())
    local _, err = semaphore:try_acquire()
    assert.equal("RESOURCE_EXHAUSTED: 2 of 2 permits are taken", tostring(err))
    assert.equal("DEADLINE_EXCEEDED", code_of(semaphore:acquire(0)))
    assert.equal("semaphore with 0 of 2 permits free", tostring(semaphore))
    semaphore:release()
    assert.is_true(semaphore:acquire(0))
  end)

  it("gives a permit that comes back to the first who waits, and to nobody else", function()
    local semaphore = Semaphore(1)
    semaphore:acquire()
    local first, second = turns.begin(semaphore.acquire, semaphore), turns.begin(semaphore.acquire, semaphore)
    semaphore:release()
    assert.equal("RESOURCE_EXHAUSTED", code_of(semaphore:try_acquire()))
    turns.turn()
    assert.equal("true", first:outcome())
    assert.equal("waits", second:outcome())
    second:kill()
    semaphore:release()
    assert.is_true(semaphore:try_acquire())
  end)

  it("never lets more tasks in than it has permits", function()
    turns.start_clock()
    local semaphore = Semaphore(3)
    local inside, most, done = 0, 0, 0
    local tasks = {}
    for i = 1, 100 do
      tasks[i] = function()
        local _ <close> = semaphore:hold()
        inside = inside + 1
        most = math.max(most, inside)
        if i % 3 > 0 then task.sleep(i % 2 / 1000) end
        inside = inside - 1
        done = done + 1
      end
    end
    task.all(tasks)
    assert.equal(3, most)
    assert.equal(100, done)
    assert.equal("semaphore with 3 of 3 permits free", tostring(semaphore))
  end)

  it("takes a held permit back when the block ends, fails or is cancelled", function()
    local semaphore = Semaphore(1)
    local function hold(fn)
      local permit <close> = assert(semaphore:hold())
      fn(permit)
    end
    hold(function() assert.is_nil((semaphore:try_acquire())) end)
    pcall(hold, function() error "x" end)
    local waiting = turns.begin(hold, function() task.sleep(60) end)
    local next_one = turns.begin(semaphore.acquire, semaphore)
    assert.equal("waits", next_one:outcome())
    waiting:kill()
    turns.turn()
    assert.equal("true", next_one:outcome())
  end)

  it("takes a held permit back once, however often it is released", function()
    local semaphore = Semaphore(2)
    semaphore:acquire()
    do
      local permit <close> = semaphore:hold()
      permit:release()
      permit:release()
      assert.equal("semaphore with 1 of 2 permits free", tostring(semaphore))
    end
    assert.equal("semaphore with 1 of 2 permits free", tostring(semaphore))
  end)

  it("gives hold() the same errors as acquire()", function()
    local semaphore = Semaphore(1)
    semaphore:acquire()
    assert.equal("DEADLINE_EXCEEDED", code_of(semaphore:hold(0)))
    semaphore:close()
    assert.equal("UNAVAILABLE", code_of(semaphore:hold()))
  end)

  it("runs a function with a permit, and passes arguments, results and errors", function()
    local semaphore = Semaphore(1)
    assert.same({ 1, nil, 3, n = 3 }, table.pack(semaphore:with(function(...)
      assert.is_nil((semaphore:try_acquire()))
      return ...
    end, 1, nil, 3)))
    local failed = { code = "NOT_FOUND" }
    local ok, err = pcall(semaphore.with, semaphore, function() error(failed) end)
    assert.is_false(ok)
    assert.equal(failed, err)
    assert.equal("semaphore with 1 of 1 permits free", tostring(semaphore))
    semaphore:close()
    ok, err = pcall(semaphore.with, semaphore, function() end)
    assert.is_false(ok)
    assert.is_true(errors.is(err))
    assert.equal("UNAVAILABLE", err.code)
  end)

  it("can be released after it was closed, and promises are kept", function()
    local semaphore = Semaphore(1)
    semaphore:acquire()
    local promised, waiting = turns.begin(semaphore.acquire, semaphore), turns.begin(semaphore.acquire, semaphore)
    semaphore:release()
    semaphore:close()
    turns.turn()
    assert.equal("true", promised:outcome())
    assert.equal("UNAVAILABLE", waiting:outcome())
    assert.equal("UNAVAILABLE", code_of(semaphore:acquire()))
    assert.equal("UNAVAILABLE", code_of(semaphore:try_acquire()))
    semaphore:release()
    assert.equal("semaphore with 1 of 1 permits free (closed)", tostring(semaphore))
  end)

  it("raises for wrong use, at the caller's line", function()
    local semaphore = Semaphore(1)
    local cases = {
      ["released more often than acquired"] = function() semaphore:release() end,
      ["semaphore:with takes a function, got nil"] = function() semaphore:with() end,
      ["an integer of 1 or more, got 0"] = function() local _ = Semaphore(0) end,
      ["an integer of 1 or more, got 1.5"] = function() local _ = Semaphore(1.5) end,
      ["an integer of 1 or more, got nil"] = function() local _ = Semaphore() end,
    }
    for text, fn in pairs(cases) do
      local ok, err = pcall(fn)
      assert.is_false(ok)
      assert.truthy(err:find "^spec/semaphore_spec.lua:%d+: " and err:find(text, 1, true), err)
    end
    assert.is_true(semaphore:try_acquire())
  end)
end)

describe("random interleavings of a semaphore", function()
  after_each(turns.start_clock)

  -- The model: who waits and who was woken, in order, and how many have a permit.
  local function run(random, same)
    local permits = random(1, 3)
    local semaphore = Semaphore(permits)
    local ops, line, taken, now = {}, {}, 0, 0

    local function wake()
      for _, op in ipairs(line) do
        if not op.woken and taken < permits then
          op.woken = true
          taken = taken + 1
        end
      end
    end

    local actions = {
      function()
        local op = { timeout = ({ nil, 0, random(1, 30) })[random(3)] }
        op.due = op.timeout and now + op.timeout
        op.task = turns.begin(semaphore.acquire, semaphore, op.timeout and op.timeout / 1000)
        ops[#ops + 1] = op
        if taken < permits then
          taken, op.result = taken + 1, "true"
        elseif op.timeout == 0 then
          op.result = "DEADLINE_EXCEEDED"
        else
          table.insert(line, op)
        end
      end,
      function()
        local free = taken < permits
        same(free, semaphore:try_acquire() == true)
        if free then taken = taken + 1 end
      end,
      function()
        local held = taken
        for _, op in ipairs(line) do
          if op.woken then held = held - 1 end
        end
        if held == 0 then return end
        semaphore:release()
        taken = taken - 1
        wake()
      end,
      function()
        local op = turns.pick(ops, random)
        if not op then return end
        op.task:kill()
        op.result = "CANCELLED"
        turns.remove_from(line, op)
        if op.woken then
          taken = taken - 1
          wake()
        end
      end,
      function()
        local ms = random(1, 12)
        now = now + ms
        turns.tick(ms)
        for i = #line, 1, -1 do
          local op = line[i]
          if not op.woken and op.due and op.due <= now then
            op.result = "DEADLINE_EXCEEDED"
            table.remove(line, i)
          end
        end
      end,
    }

    for _ = 1, random(30, 80) do
      for _ = 1, random(4) do
        actions[random(#actions)]()
        same(permits - taken, semaphore.free)
      end
      if random(3) > 1 then
        while line[1] and line[1].woken do table.remove(line, 1).result = "true" end
        turns.settle(ops, same)
      end
    end
    for _, op in ipairs(ops) do op.task:kill() end
    same(nil, semaphore.line.first)
  end

  it("are those of a plain model [limit 60]", function() turns.random_runs(200, run) end)
end)
