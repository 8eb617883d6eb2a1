local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local function has(text, ...)
  for _, part in ipairs { ... } do
    assert.truthy(text:find(part, 1, true), ("%q is not in: %s"):format(part, text))
  end
end

-- The code of nil, err.
local function code(value, err, ...)
  assert.is_nil(value)
  assert.is_true(errors.is(err), tostring(err))
  assert.equal(0, select("#", ...))
  return err.code
end

local function message_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(err)
end

local make = { thread = gaterpc.ThreadPoolExecutor, process = gaterpc.ProcessPoolExecutor }
local manager, pools

before_each(function()
  manager, pools = gaterpc.SyncManager(), {}
end)

after_each(function()
  manager:close()
  for _, pool in ipairs(pools) do pool:shutdown { cancel = true } end
  process.finish()
end)

local function new(kind, options)
  local pool = make[kind](options or { max_workers = 2 })
  pools[#pools + 1] = pool
  return pool
end

-- Where the operations are: fn(...) runs there.
local places = { host = function(fn, ...) return fn(...) end }
for kind in pairs(make) do
  places[kind] = function(fn, ...) return new(kind):run(fn, ...) end
end

for place, run in pairs(places) do
  describe(("from a %s"):format(place), function()
    it("finalizers may use what is shared, also those that run while an answer is read", function()
      local dict, ended = manager.Dict(), manager.Value(0)
      local values = {}
      for i = 1, 200 do values["key " .. i] = ("value %d "):format(i):rep(10) end
      dict:update(values)
      assert.same({ true, 500 }, { run(function(d, count, expected)
        local function drop() setmetatable({}, { __gc = function() count:add(1) end }) end
        local same = true
        collectgarbage "generational" -- a young collection comes soon
        for _ = 1, 50 do
          for _ = 1, 10 do drop() end
          local items = d:items()
          for key, value in pairs(expected) do same = same and items[key] == value end
        end
        collectgarbage()
        collectgarbage "incremental"
        return same, count:get()
      end, dict, ended, values) })
    end)

    it("a queue gives what was put, first in first out, as copies", function()
      local queue = manager.Queue()
      local value = { 1, { x = "y" } }
      queue:put(value)
      value[1] = 2
      assert.same({ 3, { 1, { x = "y" } }, true, nil, 0 }, { run(function(q)
        q:put(true)
        q:put(nil)
        local size = q:size()
        return size, q:get(), q:get(), q:get(), q:size()
      end, queue) })
    end)

    it("a queue says that it is empty, full or closed", function()
      local queue = manager.Queue(2)
      assert.same({ "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "UNAVAILABLE", 1, 2,
        "UNAVAILABLE" }, run(function(q)
        local codes = {}
        local function note(value, err) table.insert(codes, err and err.code or value) end
        note(q:get(0))
        note(q:get(0.001))
        q:put(1)
        q:put(2)
        note(q:put(3, 0.001))
        q:close()
        note(q:put(4))
        note(q:get())
        note(q:get())
        note(q:get())
        return codes
      end, queue))
    end)

    it("a queue's each ends with the queue", function()
      local queue = manager:Queue()
      for i = 1, 3 do queue:put(i) end
      queue:close()
      assert.equal(6, run(function(q)
        local sum = 0
        for i in q:each() do sum = sum + i end
        return sum
      end, queue))
    end)

    it("a dict has its operations", function()
      local dict = manager.Dict { a = 1, [1] = "one" }
      local results = run(function(d)
        d:set("b", { 2 })
        d:set(true, false)
        d:set("gone", 1)
        d:set("gone", nil)
        d:update { [7] = "seven", [9] = "nine" }
        return {
          d:get "a", d:get(1), d:get "b"[1], d:get(true), tostring(d:get "none"), d:size(), d:pop "a",
          tostring(d:get "a"), d:add "n", d:add("n", 1.5), d:set_default("n", 0), d:set_default("m", 5),
          d:replace("m", 4, 0), d:replace("m", 5, 6), d:get "m", d:replace("new", nil, 1), d:get "new", d:items(),
        }
      end, dict)
      assert.same({ 1, "one", 2, false, "nil", 6, 1, "nil", 1, 2.5, 2.5, 5, false, true, 6, true, 1 },
        table.move(results, 1, 17, 1, {}))
      assert.same({ [1] = "one", b = { 2 }, [true] = false, n = 2.5, m = 6, new = 1, [7] = "seven", [9] = "nine" },
        results[18])
      assert.equal(0, run(function(d)
        d:clear()
        return d:size()
      end, dict))
    end)

    it("a list has its operations", function()
      local list = manager.List { "a", "b" }
      local results = run(function(l)
        l:append "c"
        l:insert(1, "first")
        l:set(2, "A")
        l:extend { "d", "e" }
        return {
          l:get(1), l:get(2), l:get(-1), tostring(l:get(99)), l:size(), l:pop(), l:pop(1), tostring(l:pop(99)),
          table.concat(l:items(), " "), select(2, l:set(99, 1)).code, select(2, l:insert(99, 1)).code,
        }
      end, list)
      assert.same({ "first", "A", "e", "nil", 6, "e", "first", "nil", "A b c d", "INVALID_ARGUMENT",
        "INVALID_ARGUMENT" }, results)
      list:clear()
      assert.same({}, list:items())
    end)

    it("a value has its operations", function()
      local value = manager.Value(10)
      assert.same({ 10, 11, 8.5, "text", false, true, "new" }, run(function(v)
        local results = { v:get(), v:add(), v:add(-2.5) }
        v:set "text"
        results[4] = v:get()
        results[5], results[6] = v:replace("other", "new"), v:replace("text", "new")
        results[7] = v:get()
        return results
      end, value))
      assert.is_nil(manager.Value():get())
      assert.equal("INVALID_ARGUMENT", run(function(v) return select(2, v:add()).code end, value))
    end)

    it("waits end when what they wait for comes, when it is late, and when it is closed", function()
      local queue, dict, value = manager.Queue(1), manager.Dict(), manager.Value "old"
      local results = task.all {
        function() return run(function(q) return q:get() end, queue) end,
        function() return run(function(d) return d:wait "key" end, dict) end,
        function() return run(function(v) return v:wait "old" end, value) end,
        function()
          task.sleep(0.02)
          queue:put "put"
          dict:set("key", "set")
          value:set "new"
        end,
      }
      assert.same({ "put", "set", "new", n = 4 }, results)
      assert.same({ "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED" }, run(function(d, v)
        return { select(2, d:wait("other", 0.001)).code, select(2, v:wait("new", 0)).code }
      end, dict, value))
      results = task.all {
        function() return run(function(q) return select(2, q:get()).code end, queue) end,
        function() return run(function(d) return select(2, d:wait "other").code end, dict) end,
        function() return run(function(v) return select(2, v:wait "new").code end, value) end,
        function()
          task.sleep(0.02)
          manager:close()
        end,
      }
      assert.same({ "UNAVAILABLE", "UNAVAILABLE", "UNAVAILABLE", n = 4 }, results)
      assert.equal("UNAVAILABLE", run(function(d) return select(2, d:get "key").code end, dict))
    end)
  end)
end

for kind in pairs(make) do
  describe(("what is shared with a %s"):format(kind), function()
    it("comes as an argument, an upvalue, in a table, in a queue, and as a result", function()
      local value = manager.Value(0)
      local queue = manager.Queue()
      queue:put { value }
      local back = new(kind):run(function(argument)
        value:add()
        argument.deep.value:add()
        queue:get()[1]:add()
        return { argument.deep.value }, 1
      end, { deep = { value = value } })
      assert.equal(3, value:get())
      assert.equal(value, back[1])
      assert.are_not.equal(value, manager.Value(0))
      assert.equal(4, back[1]:add())
      assert.truthy(tostring(back[1]):find "^Value %x+$")
    end)

    it("counts right, however many count", function()
      local value, dict = manager.Value(0), manager.Dict()
      local pool = new(kind)
      pool:map(function(n)
        for i = 1, n do
          value:add()
          dict:add(i % 3)
        end
      end, { 50, 50, 50, 50 })
      for _ = 1, 50 do value:add() end
      assert.equal(250, value:get())
      assert.equal(200, dict:get(0) + dict:get(1) + dict:get(2))
    end)

    it("is a pipe between host and executors, with a bound", function()
      local work, results = manager.Queue(4), manager.Queue(4)
      local pool = new(kind)
      local jobs = {}
      for i = 1, 2 do
        jobs[i] = pool:submit(function()
          for n in work:each() do results:put(n * n) end
        end)
      end
      task.spawn(function()
        for n = 1, 100 do
          assert(work:put(n))
          assert.is_true(work:size() <= 4)
        end
        work:close()
      end)
      local sum = 0
      for _ = 1, 100 do sum = sum + results:get() end
      assert.equal(338350, sum)
      for _, job in ipairs(jobs) do job:await() end
    end)

    it("is not lost with an executor that dies or is given up while it waits", function()
      local queue, ready = manager.Queue(), manager.Value(0)
      local pool = new(kind, { max_workers = 1 })
      local job = pool:submit(function()
        ready:add()
        return queue:get()
      end)
      ready:wait(0)
      task.sleep(0.01)
      if kind == "process" then
        require "luv".kill(pool:stats().states[1].pid, "sigkill")
        assert.equal("WORKER_LOST", select(2, pcall(job.await, job)).code)
      else
        job:cancel()
        assert.equal("CANCELLED", select(2, pcall(job.await, job)).code)
      end
      queue:put "still there"
      task.sleep(0.01) -- whoever still waits for it has it now
      assert.equal("still there", queue:get(1))
      job = pool:submit(function()
        ready:add()
        local ok, err = pcall(queue.get, queue)
        error(ok and "not stopped" or err)
      end)
      ready:wait(1)
      task.sleep(0.01)
      job:cancel()
      queue:put(1)
      task.sleep(0.01)
      assert.equal(1, queue:get(1))
      assert.equal(2, pool:run(function() return 2 end))
    end)

    it("lives as long as a job that has it, and no longer than its last holder", function()
      local pool = new(kind, { max_workers = 1 })
      local code_later = pool:submit(function(value)
        gaterpc.task.sleep(0.05)
        rawset(_G, "kept", value)
        return value:get()
      end, manager.Value "here")
      collectgarbage()
      collectgarbage()
      assert.equal("here", code_later:await())
      code_later = nil -- luacheck: ignore 311
      process.eventually(function()
        collectgarbage()
        return pool:run(function()
          local _, err = rawget(_G, "kept"):get()
          return err and err.code == "NOT_FOUND"
        end)
      end, "the end of the value")
    end)

    it("can be used by an init function", function()
      local value = manager.Value(0)
      local pool = new(kind, { max_workers = 2, init = function() value:add() end })
      pool:run(function() end)
      assert.equal(1, value:get())
    end)
  end)
end

describe("coroutines that wait for a queue", function()
  it("are served in the order in which they came", function()
    local queue, got = manager.Queue(1), {}
    local takers = {}
    for i = 1, 4 do takers[i] = task.spawn(function() got[i] = queue:get() end) end
    task.sleep(0)
    for i = 1, 4 do queue:put(i) end
    task.all(takers)
    assert.same({ 1, 2, 3, 4 }, got)
  end)

  it("pass their turn on when they are cancelled just as it comes", function()
    local queue = manager.Queue()
    local first = task.spawn(function() return queue:get() end)
    local second = task.spawn(function() return queue:get() end)
    task.sleep(0)
    queue:put "value"
    first:cancel()
    assert.equal("value", second:join(1))
    first = task.spawn(function() return queue:get(60) end)
    second = task.spawn(function() return queue:get(60) end)
    task.sleep(0)
    first:cancel()
    queue:put "next"
    assert.equal("next", second:join(1))
  end)

  it("do not keep the others from running", function()
    local queue = manager.Queue()
    local waiting = task.spawn(function() return queue:get() end)
    local began = core.now()
    task.sleep(0.01)
    assert.is_true(core.now() - began < process.limit(1))
    queue:put(1)
    assert.equal(1, waiting:join())
  end)

  it("keep a bound when many put", function()
    local queue, largest = manager.Queue(3), 0
    local putters = {}
    for i = 1, 20 do
      putters[i] = task.spawn(function()
        for n = 1, 10 do
          queue:put(n)
          largest = math.max(largest, queue:size())
        end
      end)
    end
    for _ = 1, 200 do queue:get() end
    task.all(putters)
    assert.equal(3, largest)
    assert.equal("DEADLINE_EXCEEDED", code(queue:get(0)))
  end)
end)

describe("SyncManager itself", function()
  it("has objects of its own", function()
    local queue = gaterpc.SyncManager.Queue(1)
    queue:put(1)
    assert.equal(1, queue:get())
    assert.equal(2, gaterpc.SyncManager.Value(2):get())
    has(message_of(function() return gaterpc.SyncManager.Quewe end), "did you mean 'Queue'?")
  end)

  it("closes what it has made when its block is left", function()
    local queue
    do
      local m <close> = gaterpc.SyncManager()
      queue = m.Queue()
    end
    assert.equal("UNAVAILABLE", code(queue:get()))
  end)
end)

describe("wrong use of what is shared", function()
  it("raises at the caller's line", function()
    local queue, dict, list, value = manager.Queue(), manager.Dict(), manager.List(), manager.Value(1)
    local cases = {
      { function() manager.Queue(0) end, "room for 1 to 1048576 values, got 0" },
      { function() manager.Queue "x" end, "got x" },
      { function() manager.Dict(1) end, "a Dict begins with a table of values, got number" },
      { function() manager.List "x" end, "a List begins with a table" },
      { function() queue:get(-1) end, "a number of seconds, 0 or more" },
      { function() queue:put(1, "soon") end, "a number of seconds" },
      { function() dict:get {} end, "a key is a string, number or boolean, got table" },
      { function() dict:set(0 / 0, 1) end, "a key is a string, number or boolean" },
      { function() dict:update(1) end, "update takes a table, got number" },
      { function() dict:add("x", "y") end, "add takes a number, got string" },
      { function() list:get "x" end, "an index is an integer, got x" },
      { function() list:extend(1) end, "extend takes a list, got number" },
      { function() value:add {} end, "add takes a number, got table" },
    }
    for _, case in ipairs(cases) do has(message_of(case[1]), "sync_manager_spec.lua:", case[2]) end
    has(message_of(function() queue:put(print) end), "INVALID_ARGUMENT", "a function cannot be packed")
    has(message_of(function() manager.Value(print) end), "INVALID_ARGUMENT")
    manager:close()
    has(message_of(function() manager.Queue() end), "sync_manager_spec.lua:", "the manager is closed")
  end)

  it("of an object of another program says that it is not here", function()
    local queue = manager.Queue()
    local stranger = gaterpc.ext(queue.type, ("x"):rep(16))
    local msgpack = gaterpc.message_pack
    stranger = msgpack.unpack(msgpack.pack(stranger))
    assert.equal("NOT_FOUND", code(stranger:get()))
    assert.equal(queue, msgpack.unpack(msgpack.pack(queue)))
    for _, data in ipairs { "", "short", ("\0"):rep(40) } do
      local odd = msgpack.unpack(msgpack.pack(gaterpc.ext(queue.type, data)))
      assert.equal("NOT_FOUND", code(odd:get()))
      assert.is_string(tostring(odd))
    end
  end)

  it("does not reach what is not an operation", function()
    local queue = manager.Queue()
    local text = new("thread"):run(function(q)
      local port = require "gaterpc.port"
      local results = {}
      for _, name in ipairs { "new", "nonsense", "closed", "__index" } do
        results[#results + 1] = select(3, port.ask("shared", q.data, name))
      end
      results[#results + 1] = select(2, port.ask("shared", "x", "get"))
      results[#results + 1] = select(2, port.ask("nonsense", q.data, "get"))
      results[#results + 1] = select(2, port.ask())
      return results
    end, queue)
    for i = 1, 4 do has(text[i], "a Queue has no operation") end
    assert.same({ "NOT_FOUND", "NOT_FOUND", "NOT_FOUND" }, { table.unpack(text, 5) })
    assert.equal("DEADLINE_EXCEEDED", code(queue:get(0)))
  end)
end)
