local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local make = { thread = gaterpc.ThreadPoolExecutor, process = gaterpc.ProcessPoolExecutor }
local pools = {}

-- A pool that is gone when the test is over.
local function new(kind, options)
  local pool = make[kind](options or { max_workers = 2 })
  pools[#pools + 1] = pool
  return pool
end

local function failure(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  assert.is_true(errors.is(err), tostring(err))
  return err
end

local function failure_of_job(pool, fn, ...)
  return failure(pool.run, pool, fn, ...)
end

local function has(text, ...)
  for _, part in ipairs { ... } do
    assert.truthy(text:find(part, 1, true), ("%q is not in: %s"):format(part, text))
  end
end

local function read(path)
  local file <close> = io.open(path)
  return file and file:read "a" or ""
end

-- Appends to a file: what the code in an executor has come to.
local function note(path, text)
  local file <close> = assert(io.open(path, "a"))
  file:write(text, "\n")
end

local function spin()
  while true do end -- luacheck: ignore 542
end

after_each(function()
  local list = pools
  pools = {}
  for _, pool in ipairs(list) do pool:shutdown { cancel = true } end
  process.finish()
end)

for _, kind in ipairs { "thread", "process" } do
  describe(("a %s of an executor"):format(kind), function()
    it("gets arguments and gives all results, nil included", function()
      local pool = new(kind)
      assert.same({ 3, nil, "c", nil, n = 4 }, table.pack(pool:run(function(a, b, ...)
        return a, b, ...
      end, 3, nil, "c", nil)))
      assert.same({ n = 0 }, table.pack(pool:run(function() end)))
    end)

    it("gives values back as calls do", function()
      local value = { 1, 2.0, "x", { y = { gaterpc.null, false } }, bytes = "\xff\0" }
      local back = new(kind):run(function(v) return v end, value)
      assert.same(value, back)
      assert.equal("float", math.type(back[2]))
      assert.is_true(gaterpc.is_kwargs(new(kind):run(function(v) return v end, gaterpc.kwargs { a = 1 })))
    end)

    it("runs a module's function by name", function()
      assert.equal("ababab", new(kind):run("string.rep", "ab", 3))
      assert.equal("NOT_FOUND", failure_of_job(new(kind), "no.such.module.fn").code)
      has(failure_of_job(new(kind), "string.reb").message, "module 'string' has no function 'reb'")
    end)

    it("fails with the code, the message and the place of what was raised", function()
      local pool = new(kind)
      local err = failure_of_job(pool, function() error "oops" end)
      assert.equal("INTERNAL", err.code)
      has(err.message, "executor_spec.lua:", ": oops")
      has(err.traceback, "executor_spec.lua:")
      err = failure_of_job(pool, function() error { code = "NOT_FOUND", class = "Lost", message = "gone" } end)
      assert.same({ "NOT_FOUND", "Lost", "gone" }, { err.code, err.class, err.message })
      err = failure_of_job(pool, function()
        error(require "gaterpc.error".new("PERMISSION_DENIED", "no"))
      end)
      assert.same({ "PERMISSION_DENIED", "no" }, { err.code, err.message })
      assert.equal("INTERNAL", failure_of_job(pool, function() error() end).code)
      assert.equal(1, pool:run(function() return 1 end))
    end)

    it("has its own globals, which last", function()
      local pool = new(kind, { max_workers = 1 })
      rawset(_G, "of_the_host", 1)
      assert.is_nil(pool:run(function() return rawget(_G, "of_the_host") end))
      rawset(_G, "of_the_host", nil)
      pool:run(function() rawset(_G, "kept", 7) end)
      assert.equal(7, pool:run(function() return rawget(_G, "kept") end))
    end)

    it("has what gaterpc offers in an executor, and says what it does not", function()
      local pool = new(kind)
      assert.equal(2, pool:run(function()
        gaterpc.task.sleep(0)
        return #gaterpc.array { 1, 2 }
      end))
      has(failure_of_job(pool, function() gaterpc.Client {} end).message,
        "gaterpc.Client is not available in an executor")
      has(failure_of_job(pool, function() gaterpc.task.spawn(print) end).message, "task.spawn is not available")
      has(failure_of_job(pool, function() require "gaterpc.broker" end).message,
        "module 'gaterpc.broker' is not available")
      assert.is_nil(pool:run(function() return gaterpc.call() end))
      assert.equal("table", pool:run(function() return type(require "luv") end))
    end)

    it("has luv with a loop of its own, from job to job", function()
      local pool = new(kind, { max_workers = 1 })
      for _ = 1, 3 do
        assert.equal(50, pool:run(function()
          local uv = require "luv"
          local n = 0
          for i = 1, 50 do
            local timer = uv.new_timer()
            timer:start(i % 2, 0, function()
              n = n + 1
              timer:close()
            end)
          end
          uv.run()
          return n
        end))
        pool:run(function() -- whose memory is where the coroutine of the first job was
          collectgarbage()
          for _ = 1, 1000 do rawset(_G, "last", coroutine.create(function() end)) end
        end)
      end
      local err = failure_of_job(pool, function()
        local uv = require "luv"
        local timer = uv.new_timer()
        timer:start(0, 0, function()
          timer:close()
          error "in a callback"
        end)
        uv.run()
      end)
      has(err.message, "in a callback")
      has(failure_of_job(pool, function() require "luv".walk(print) end).message, "luv.walk is not available")
      assert.is_true(pool:run(function() return (require "luv".run()) == false end))
      assert.equal(0, pool:stats().replaced)
    end)

    it("cannot give what cannot be sent, and lives on", function()
      local pool = new(kind, { max_workers = 1 })
      local err = failure_of_job(pool, function() return { x = print } end)
      assert.equal("INTERNAL", err.code)
      has(err.message, "the result cannot be sent: a function at argument 1.x cannot be packed")
      local stream = pool:run(function()
        coroutine.yield(1)
        coroutine.yield(print)
      end)
      assert.equal(1, stream:next())
      has(failure(stream.next, stream).message, "an item cannot be sent: a function cannot be packed")
      assert.equal(1, pool:stats().workers)
      assert.equal(0, pool:stats().replaced)
    end)

    it("needs arguments that can be sent", function()
      local pool = new(kind)
      local err = failure(pool.submit, pool, function() end, 1, { print })
      assert.equal("INVALID_ARGUMENT", err.code)
      has(err.message, "argument 2[1]")
      assert.equal(0, pool:stats().submitted)
    end)

    it("starts when there is work, and no more of them than work", function()
      local pool = new(kind, { max_workers = 4 })
      assert.equal(0, pool:stats().workers)
      for _ = 1, 3 do pool:run(function() end) end
      assert.equal(1, pool:stats().workers)
      local before = pool:submit(function() gaterpc.task.sleep(60) end)
      pool:run(function() end)
      assert.equal(2, pool:stats().workers)
      before:cancel()
    end)

    it("has two at once when there are two, and a third waits", function()
      local pool = new(kind, { max_workers = 2 })
      local path = process.dir() .. "/begun"
      local function begin(name)
        note(path, name)
        gaterpc.task.sleep(60)
      end
      local jobs = { pool:submit(begin, "a"), pool:submit(begin, "b"), pool:submit(begin, "c") }
      process.eventually(function() return #read(path) == 4 end, "two jobs that run")
      assert.equal(1, pool:stats().queued)
      assert.equal(2, pool:stats().busy)
      jobs[1]:cancel()
      process.eventually(function() return read(path):find "c" end, "the third job")
      for _, job in ipairs(jobs) do job:cancel() end
    end)

    it("is replaced after max_calls", function()
      local pool = new(kind, { max_workers = 1, max_calls = 3 })
      local seen = {}
      for _ = 1, 7 do
        seen[#seen + 1] = pool:run(function()
          rawset(_G, "calls", (rawget(_G, "calls") or 0) + 1)
          return rawget(_G, "calls")
        end)
      end
      assert.same({ 1, 2, 3, 1, 2, 3, 1 }, seen)
      assert.equal(0, pool:stats().lost)
    end)

    it("runs an init function or module once per state", function()
      local start = 40
      local pool = new(kind, { max_workers = 2, init = function() rawset(_G, "base", start + 2) end })
      assert.equal(42, pool:run(function() return rawget(_G, "base") end))
      local path = process.file("initial.lua", "rawset(_G, 'loads', (rawget(_G, 'loads') or 0) + 1)")
      local before = package.path
      package.path = path:gsub("initial%.lua$", "?.lua") .. ";" .. before
      pool = new(kind, { max_workers = 1, init = "initial" })
      for _ = 1, 2 do assert.equal(1, pool:run(function() return rawget(_G, "loads") end)) end
      package.path = before
    end)

    it("that cannot start fails its jobs, and says why", function()
      local pool = new(kind, { max_workers = 2, init = function() error "no luck" end })
      local err = failure_of_job(pool, function() end)
      assert.equal("UNAVAILABLE", err.code)
      has(err.message, "no executor can be started", "no luck")
      assert.equal("UNAVAILABLE", failure_of_job(pool, function() end).code)
      pool = new(kind, { init = function() coroutine.yield() end })
      has(failure_of_job(pool, function() end).message, "cannot yield")
      pool = new(kind, { init = "no.such.module" })
      has(failure_of_job(pool, function() end).message, "no.such.module")
    end)

    it("keeps to the memory limit, fails the job, and is replaced", function()
      local pool = new(kind, { max_workers = 1, memory_limit = 4 << 20 })
      pool:run(function() rawset(_G, "kept", 1) end)
      local err = failure_of_job(pool, function()
        local text = { "x" }
        for i = 1, math.huge do text[i] = ("x"):rep(1000) .. text[#text] end
      end)
      assert.equal("RESOURCE_EXHAUSTED", err.code)
      has(err.message, "4194304 bytes of memory")
      assert.is_nil(pool:run(function() return rawget(_G, "kept") end))
      assert.equal(1, pool:stats().replaced)
      assert.equal("RESOURCE_EXHAUSTED", failure_of_job(pool, function() return ("x"):rep(5 << 20) end).code)
      -- Arguments are the job's, too.
      assert.equal("RESOURCE_EXHAUSTED", failure_of_job(pool, function() end, ("x"):rep(5 << 20)).code)
      assert.equal("caught", pool:run(function()
        return pcall(string.rep, "x", 5 << 20) and "not" or "caught"
      end))
      assert.is_true(pool:stats().states[1].memory < 1 << 20)
    end)

    it("counts what it does", function()
      local pool = new(kind, { max_workers = 1 })
      local sum = 0
      local function run(fn)
        pcall(pool.run, pool, fn)
        sum = sum + pool:stats().last_ms
      end
      for _ = 1, 4 do run(function() end) end
      run(function() error "x" end)
      run(function() gaterpc.task.sleep(0.02) end)
      local stats = pool:stats()
      assert.same({ kind, 1, 1, 1, 0, 0 },
        { stats.kind, stats.max_workers, stats.workers, stats.idle, stats.busy, stats.queued })
      assert.same({ 6, 5, 1, 0, 0, 0 },
        { stats.submitted, stats.done, stats.failed, stats.cancelled, stats.lost, stats.replaced })
      assert.is_true(stats.last_ms >= 20)
      assert.near(sum / 6, stats.mean_ms, 0.001)
      local state = stats.states[1]
      assert.equal(6, state.calls)
      assert.is_true(state.memory > 10000)
      assert.equal(kind == "process", state.pid > 0)
    end)

    it("gets bytecode once, and forgets what it has not room for", function()
      local pool = new(kind, { max_workers = 1 })
      local first = load "return 'first', ..."
      assert.equal("first", pool:run(first))
      for i = 1, 1100 do assert.equal(i, pool:run(load(("return %d"):format(i)))) end
      assert.same({ "first", 2 }, { pool:run(first, 2) })
      local kept = pool:run(function()
        local count = 0
        for i = 1, 10 do
          local name, dumps = debug.getupvalue(require "gaterpc.portable".learn, i)
          if name == "dumps" then
            for _ in pairs(dumps) do count = count + 1 end
          end
        end
        return count
      end)
      assert.is_true(kept > 0 and kept <= 1024, kept)
    end)

    it("ends with its pool, also when that is forgotten", function()
      local path = process.dir() .. "/ended"
      local function watched()
        rawset(_G, "at_end", setmetatable({}, { __gc = function() note(path, "ended") end }))
      end
      local pool = make[kind] { max_workers = 1 }
      pool:run(watched)
      pool:shutdown()
      assert.equal("ended\n", read(path))
      pool = make[kind] { max_workers = 1 }
      pool:run(watched)
      pool = nil -- luacheck: ignore 311
      process.eventually(function()
        collectgarbage()
        return read(path) == "ended\nended\n"
      end, "the end of the forgotten executor")
    end)
  end)

  describe(("functions on their way to a %s"):format(kind), function()
    it("take their upvalues along: copies, as they are at the time of the call", function()
      local pool = new(kind, { max_workers = 1 })
      local count, list = 10, { 1, { 2 } }
      local function next_count()
        count = count + 1
        list[1] = list[1] + 1
        return count, list[1], list[2][1]
      end
      assert.same({ 11, 2, 2 }, { pool:run(next_count) })
      assert.same({ 11, 2, 2 }, { pool:run(next_count) })
      count, list[1] = 20, 5
      assert.same({ 21, 6, 2 }, { pool:run(next_count) })
      assert.same({ 20, 5 }, { count, list[1] })
    end)

    it("leave alone what an earlier call has kept", function()
      local pool = new(kind, { max_workers = 1 })
      local n = 1
      local function get() return n end
      pool:run(function() rawset(_G, "kept", get) end)
      n = 2
      assert.same({ 1, 2 }, { pool:run(function() return rawget(_G, "kept")(), get() end) })
    end)

    it("take functions along, recursive ones too, and share what they share", function()
      local pool = new(kind)
      local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end
      assert.equal(55, pool:run(function(n) return fib(n) end, 10))
      local is_odd
      local function is_even(n) return n == 0 or is_odd(n - 1) end
      function is_odd(n) return n ~= 0 and is_even(n - 1) end
      assert.is_true(pool:run(is_even, 10))
      local shared = 0
      local function add() shared = shared + 1 end
      local function get() return shared end
      assert.equal(2, pool:run(function()
        add()
        add()
        return get()
      end))
      local tree = { leaf = {} }
      tree.leaf.parent, tree[1] = tree, tree.leaf
      assert.is_true(pool:run(function() return tree.leaf.parent == tree and tree[1] == tree.leaf end))
      local M = {}
      function M.half(n) return n // 2 end
      function M.work(n) return M.half(n) end
      assert.equal(4, pool:run(M.work, 8))
    end)

    it("take all plain values along", function()
      local a, b, c, d, e, f = nil, false, 1.0, math.mininteger, "\xff\0x", gaterpc.null
      local g, h = gaterpc.uint64 "18446744073709551615", gaterpc.bin "x"
      local i, j = gaterpc.map {}, gaterpc.array {}
      local values = table.pack(new(kind):run(function()
        return a, b, math.type(c), d, e, f == gaterpc.null, tostring(g), tostring(h), gaterpc.is_map(i),
          gaterpc.is_array(j)
      end))
      assert.same({ nil, false, "float", math.mininteger, "\xff\0x", true, "18446744073709551615", "x", true, true,
        n = 10 }, values)
    end)

    it("find modules and their functions where they arrive", function()
      local floor, format, pairs_of, G = math.floor, string.format, pairs, _G
      assert.equal("3 true", new(kind):run(function()
        return pairs_of {} and format("%d %s", floor(3.5), tostring(G == _G))
      end))
    end)

    it("find modules that were loaded anew", function()
      local path = process.file("reloaded.lua", "return setmetatable({ n = ... }, {})")
      local before = package.path
      package.path = path:gsub("reloaded%.lua$", "?.lua") .. ";" .. before
      local pool = new(kind)
      for _ = 1, 3 do
        package.loaded.reloaded = nil
        local module = require "reloaded"
        assert.equal("reloaded", pool:run(function() return module.n end))
      end
      package.loaded.reloaded, package.path = nil, before
    end)

    it("do not change the globals by an upvalue that was assigned", function()
      local pool = new(kind, { max_workers = 1 })
      local function lose()
        local had = tostring ~= nil
        _ENV = {} -- luacheck: ignore 111
        return had
      end
      for _ = 1, 2 do assert.is_true(pool:run(lose)) end
      assert.equal("function", pool:run(function() return type(tostring) end))
    end)
  end)

  describe(("a stream from a %s"):format(kind), function()
    it("has all items in order, nil as null, and ends", function()
      local pool = new(kind)
      local stream = pool:run(function(n)
        for i = 1, n do coroutine.yield(i) end
        coroutine.yield(nil)
      end, 5000)
      for i = 1, 5000 do assert.equal(i, stream:next()) end
      assert.equal(gaterpc.null, stream:next())
      assert.is_nil(stream:next())
      local sum = 0
      for i in pool:submit(function(n) for i = 1, n do coroutine.yield(i) end end, 10):await() do sum = sum + i end
      assert.equal(55, sum)
    end)

    it("may be empty, and a value without a yield is none", function()
      local pool = new(kind)
      local function maybe(n)
        for i = 1, n do coroutine.yield(i) end
        return n < 0 and "none" or nil
      end
      assert.is_nil(pool:run(maybe, 0):next())
      assert.equal("none", pool:run(maybe, -1))
    end)

    it("gives the error after the items", function()
      local stream = new(kind):run(function()
        coroutine.yield(1)
        error { code = "DATA_LOSS", message = "torn" }
      end)
      assert.equal(1, stream:next())
      assert.equal("DATA_LOSS", failure(stream.next, stream).code)
      assert.is_nil(stream:next())
    end)

    it("waits for a slow reader, with no more than a window under way", function()
      local pool = new(kind, { max_workers = 1 })
      local path = process.dir() .. "/progress"
      local window = gaterpc.Settings.STREAM_REPLY_MAXSIZE
      local stream <close> = pool:run(function(n)
        for i = 1, n do
          note(path, "")
          coroutine.yield(i)
        end
      end, window * 3)
      local function progress() return #read(path) end
      process.eventually(function() return progress() == window + 1 end, "a full window")
      local other = new(kind, { max_workers = 1 })
      for _ = 1, 20 do other:run(function() gaterpc.task.sleep(0.001) end) end
      assert.equal(window + 1, progress())
      for i = 1, window // 2 + 1 do assert.equal(i, stream:next()) end
      process.eventually(function() return progress() > window + 1 end, "new credit")
    end)

    it("is bounded in bytes, too", function()
      local path = process.dir() .. "/progress"
      local stream <close> = new(kind, { max_workers = 1 }):run(function()
        for _ = 1, 100 do
          note(path, "")
          coroutine.yield(("x"):rep(300000))
        end
      end)
      process.eventually(function() return #read(path) == 5 end, "a full window") -- the fifth of 0.3 MB is beyond 1 MiB
      local count = 0
      for _ in stream do count = count + 1 end
      assert.equal(100, count)
    end)

    it("that is closed closes the generator, and the executor takes the next job", function()
      local pool = new(kind, { max_workers = 1 })
      local path = process.dir() .. "/closed"
      local function endless()
        local _ <close> = setmetatable({}, { __close = function() note(path, "closed") end })
        for i = 1, math.huge do coroutine.yield(i) end
      end
      local stream = pool:run(endless)
      assert.equal(1, stream:next())
      stream:close()
      assert.is_nil(stream:next())
      assert.equal("next", pool:run(function() return "next" end))
      assert.equal("closed\n", read(path))
      assert.equal(0, pool:stats().replaced)
    end)

    it("that nobody holds any more is closed", function()
      local pool = new(kind, { max_workers = 1 })
      pool:run(function() for i = 1, math.huge do coroutine.yield(i) end end):next()
      assert.equal("next", pool:run(function() return "next" end))
    end)
  end)

  describe(("a job of a %s that is given up"):format(kind), function()
    it("before it has begun never begins", function()
      local pool = new(kind, { max_workers = 1 })
      local path = process.dir() .. "/begun"
      pool:run(function() end)
      local first = pool:submit(function() gaterpc.task.sleep(60) end)
      local second = pool:submit(note, path, "begun")
      assert.is_true(second:cancel())
      assert.is_false(second:cancel())
      assert.equal("CANCELLED", failure(second.await, second).code)
      assert.equal(0, pool:stats().queued)
      first:cancel()
      pool:run(function() end)
      assert.equal("", read(path))
    end)

    it("may tidy up in peace as long as its grace lasts", function()
      local pool = new(kind, { max_workers = 1, grace = 60 })
      local path = process.dir() .. "/tidy"
      local function tidy()
        local now = require("gaterpc.core").now
        local enough = now() + 0.5 -- it is told several times meanwhile
        while now() < enough do end
        note(path, "tidy")
      end
      local bodies = {
        spin,
        function() gaterpc.task.sleep(60) end,
        function() for i = 1, math.huge do coroutine.yield(i) end end,
        function()
          pcall(spin)
          pcall(gaterpc.task.sleep, 60) -- raises as often as it is called
        end,
      }
      for i, body in ipairs(bodies) do
        local begun = process.dir() .. "/begun" .. i
        local job = pool:submit(function()
          local _ <close> = setmetatable({}, { __close = tidy })
          note(begun, "")
          body()
        end)
        process.eventually(function() return read(begun) ~= "" end, "job " .. i)
        job:cancel()
        assert.equal("next", pool:run(function() return "next" end))
        assert.equal(("tidy\n"):rep(i), read(path))
      end
      assert.equal(0, pool:stats().replaced)
    end)

    it("stops computing, waiting, and computing in coroutines of its own", function()
      local pool = new(kind, { max_workers = 1, grace = 60 })
      local jobs = {
        spin,
        function() gaterpc.task.sleep(60) end,
        function()
          local inner = coroutine.wrap(function() return coroutine.wrap(spin)() end)
          inner()
        end,
        function() coroutine.resume(coroutine.create(spin)) end,
        function()
          local co = coroutine.create(function()
            local _ <close> = setmetatable({}, { __close = spin })
            coroutine.yield()
          end)
          coroutine.resume(co)
          coroutine.close(co)
        end,
        function()
          coroutine.wrap(function()
            local _ <close> = setmetatable({}, { __close = spin })
            error "the end"
          end)()
        end,
        function() table.sort({ 1, 2, 3 }, spin) end,
        function()
          local uv = require "luv"
          local timer = uv.new_timer()
          timer:start(60000, 0, function() end)
          uv.run()
        end,
        function()
          local uv = require "luv"
          uv.new_timer():start(0, 0, spin)
          uv.run()
        end,
      }
      local path = process.dir() .. "/begun"
      for i, fn in ipairs(jobs) do
        local job = pool:submit(function()
          note(path, i)
          fn()
        end)
        process.eventually(function() return read(path):find(("%d\n"):format(i)) end, "job " .. i)
        assert.is_true(job:cancel())
        assert.equal("CANCELLED", failure(job.await, job).code)
        assert.equal(i, pool:run(function() return i end))
      end
      assert.equal(0, pool:stats().replaced)
    end)

    it("gets an error that it can tell, and its <close> variables run", function()
      local pool = new(kind, { max_workers = 1, grace = 60 })
      local path = process.dir() .. "/closed"
      local job = pool:submit(function()
        local _ <close> = setmetatable({}, { __close = function(_, err)
          for _ = 1, 100000 do end -- luacheck: ignore 542
          note(path, err.code)
        end })
        note(path, "begun")
        spin()
      end)
      process.eventually(function() return read(path) ~= "" end, "the job")
      job:cancel()
      pool:run(function() end)
      assert.equal("begun\nCANCELLED\n", read(path))
    end)

    it("stops although it catches the error again and again", function()
      local pool = new(kind, { max_workers = 1, grace = 0.05 })
      local path = process.dir() .. "/begun"
      local job = pool:submit(function()
        note(path, "begun")
        while true do pcall(spin) end
      end)
      process.eventually(function() return read(path) ~= "" end, "the job")
      job:cancel()
      assert.equal(1, pool:run(function() return 1 end))
    end)

    it("at any moment leaves the executor fit for the next one", function()
      local pool = new(kind, { max_workers = 1 })
      pool:run(function() end)
      for i = 1, 200 do
        local fn = load(("local spins = ... while spins do end return %d"):format(i)) -- its code is new there
        local job = pool:submit(fn, true)
        if i % 4 > 0 then task.sleep(i % 4 / 4000) end
        job:cancel()
        assert.equal(i, pool:run(fn, false))
      end
      assert.same({ 0, 0 }, { pool:stats().failed, pool:stats().replaced })
    end)

    it("by the end of whoever waits for it stops", function()
      local pool = new(kind, { max_workers = 1 })
      local waiting = task.spawn(function() pool:run(spin) end)
      process.eventually(function() return pool:stats().busy == 1 end, "the job")
      waiting:cancel()
      assert.equal(1, pool:run(function() return 1 end))
      assert.equal(1, pool:stats().cancelled)
      local ok, err = pcall(task.timeout, 0.02, function() pool:run(spin) end)
      assert.is_false(ok)
      assert.equal("DEADLINE_EXCEEDED", err.code)
      assert.equal(1, pool:run(function() return 1 end))
    end)
  end)

  describe(("a pool of %ses"):format(kind == "thread" and "thread" or kind), function()
    it("refuses jobs beyond max_queue", function()
      local pool = new(kind, { max_workers = 1, max_queue = 2 })
      pool:run(function() end)
      local jobs = {}
      for i = 1, 3 do jobs[i] = assert(pool:submit(function() gaterpc.task.sleep(60) end)) end
      local job, err = pool:submit(function() end)
      assert.is_nil(job)
      assert.equal("RESOURCE_EXHAUSTED", err.code)
      assert.equal("RESOURCE_EXHAUSTED", failure_of_job(pool, function() end).code)
      for _, each in ipairs(jobs) do each:cancel() end
    end)

    it("maps a list in order, however long", function()
      local pool = new(kind, { max_workers = 2, max_queue = 3 })
      local list = {}
      for i = 1, 500 do list[i] = i end
      local results = pool:map(function(n) return n * n end, list)
      assert.equal(500, results.n)
      for i = 1, 500 do assert.equal(i * i, results[i]) end
      assert.same({ n = 0 }, pool:map(function() end, {}))
    end)

    it("raises the first error of a map and gives up the rest", function()
      local pool = new(kind, { max_workers = 2 })
      local err = failure(pool.map, pool, function(n)
        if n == 3 then error { code = "NOT_FOUND", message = "three" } end
        return n > 3 and gaterpc.task.sleep(60) or n
      end, { 1, 2, 3, 4, 5, 6 })
      assert.equal("three", err.message)
      assert.equal(1, pool:run(function() return 1 end))
    end)

    it("does its jobs before it shuts down, and takes no new ones", function()
      local pool = new(kind, { max_workers = 1 })
      local jobs = {}
      for i = 1, 5 do jobs[i] = pool:submit(function() return i end) end
      pool:shutdown()
      for i = 1, 5 do assert.equal(i, jobs[i]:await()) end
      assert.equal(0, pool:stats().workers)
      local job, err = pool:submit(function() end)
      assert.is_nil(job)
      assert.equal("UNAVAILABLE", err.code)
      pool:shutdown()
    end)

    it("gives up its jobs when it is told to", function()
      local pool = new(kind, { max_workers = 1 })
      local jobs = { pool:submit(spin), pool:submit(function() end) }
      process.eventually(function() return pool:stats().busy == 1 end, "the job")
      pool:shutdown { cancel = true }
      for _, job in ipairs(jobs) do assert.equal("UNAVAILABLE", failure(job.await, job).code) end
      assert.equal(0, pool:stats().workers)
      do
        local closing <close> = make[kind] { max_workers = 1 }
        jobs[3] = closing:submit(spin)
      end
      assert.equal("UNAVAILABLE", failure(jobs[3].await, jobs[3]).code)
    end)

    it("has futures that can be waited for in part", function()
      local pool = new(kind, { max_workers = 1 })
      local job = pool:submit(function() return gaterpc.task.sleep(0.05) or "late" end)
      assert.is_false(job:is_done())
      assert.equal("DEADLINE_EXCEEDED", failure(job.await, job, 0.001).code)
      assert.equal("late", job:await())
      assert.equal("late", job:join())
      assert.is_true(job:is_done())
      assert.is_false(job:cancel())
    end)
  end)
end

describe("functions that cannot travel", function()
  local function message_of(fn)
    local pool = new "thread"
    local err = failure(pool.submit, pool, fn)
    assert.equal("INVALID_ARGUMENT", err.code)
    return err.message
  end

  it("are refused with the name of the upvalue", function()
    local file, co, object = io.stdout, coroutine.create(print), gaterpc.Service { name = "x" }
    local c_function = string.gmatch("", "")
    has(message_of(function() return file end), "the function at", "executor_spec.lua:", "upvalue 'file' is a userdata")
    has(message_of(function() return co end), "upvalue 'co' is a thread")
    has(message_of(function() return c_function() end), "upvalue 'c_function' is a C function")
    has(message_of(function() return object end), "upvalue 'object' is a table with a metatable (gaterpc.Service)")
  end)

  it("are refused with the way to what is inside", function()
    local file = io.stdout
    local function helper() return file end
    local options = { log = { sink = file }, [1] = { helper } }
    has(message_of(function() return helper() end), "upvalue 'helper', upvalue 'file' is a userdata")
    options[1] = nil
    has(message_of(function() return options end), "upvalue 'options', field .log, field .sink is a userdata")
    options.log, options["a b"] = nil, { [2] = file }
    has(message_of(function() return options end), [[upvalue 'options', field ["a b"], field [2] is a userdata]])
    local keyed = { [file] = 1 }
    has(message_of(function() return keyed end), "upvalue 'keyed', a key is a userdata")
  end)

  it("are refused when they are too deep or too many", function()
    local deep = {}
    local at = deep
    for _ = 1, 100 do
      at.x = {}
      at = at.x
    end
    has(message_of(function() return deep end), "deeper than 64 levels")
    local many = {}
    for i = 1, 100001 do many[i] = {} end
    has(message_of(function() return many end), "more than 100000 tables")
  end)

  it("are refused when they are no Lua functions", function()
    has(message_of(string.gmatch("", "")), "a C function cannot go")
    has(message_of "nonsense", "'nonsense' does not name a function")
    local pool = new "thread"
    for _, wrong in ipairs { 1, {}, true } do
      local ok, err = pcall(function() pool:submit(wrong) end)
      assert.is_false(ok)
      has(err, "executor_spec.lua:", "submit takes a function")
    end
  end)
end)

describe("threads of an executor", function()
  it("do not end or change the whole program", function()
    local pool = new "thread"
    has(failure_of_job(pool, function() os.exit(3) end).message, "os.exit would end the whole program")
    has(failure_of_job(pool, function() os.setlocale "C" end).message, "would change the whole program")
    assert.equal("C", pool:run(function() return os.setlocale() end))
    assert.equal("C", pool:run(function() return os.setlocale(nil, "numeric") end))
  end)

  it("start programs that can be stopped by signals", function()
    local mask = new("thread"):run(function()
      local status <close> = io.popen "cat /proc/self/status"
      return status:read("a"):match "SigBlk:%s*(%x+)"
    end)
    assert.equal(0, tonumber(mask, 16))
    assert.is_true(new("thread"):run(function() return os.execute "true" end))
  end)

  it("have states of 200 kB or less", function()
    local pool = new("thread", { max_workers = 1 })
    pool:run("math.abs", 1)
    assert.is_true(pool:stats().states[1].memory < 200000)
  end)
end)

describe("processes of an executor", function()
  it("that end themselves fail their job, and are replaced", function()
    local pool = new("process", { max_workers = 1 })
    local err = failure_of_job(pool, function() os.exit(3) end)
    assert.equal("WORKER_LOST", err.code)
    has(err.message, "the process that ran it has ended with exit code 3")
    has(failure_of_job(pool, function() os.exit(true, true) end).message, "exit code 0")
    assert.equal(1, pool:run(function() return 1 end))
    assert.same({ 2, 2, 1 }, { pool:stats().lost, pool:stats().replaced, pool:stats().workers })
  end)

  it("that are killed fail their job with the signal's number, and the others go on", function()
    local pool = new("process", { max_workers = 2 })
    local uv = require "luv"
    local path = process.dir() .. "/pid"
    local other = pool:submit(function() return gaterpc.task.sleep(0.2) or "other" end)
    local job = pool:submit(function()
      note(path, ("%d"):format(require "luv".os_getpid()))
      spin()
    end)
    process.eventually(function() return read(path):find "\n" end, "the job")
    uv.kill(tonumber(read(path)), "sigkill")
    local err = failure(job.await, job)
    assert.equal("WORKER_LOST", err.code)
    has(err.message, "the process that ran it was ended by signal 9 (SIGKILL)")
    assert.equal("other", other:await())
  end)

  it("that die in a stream give its items first", function()
    local pool = new("process", { max_workers = 1 })
    local stream = pool:run(function()
      for i = 1, 3 do coroutine.yield(i) end
      require "luv".kill(require "luv".os_getpid(), "sigkill")
      spin()
    end)
    for i = 1, 3 do assert.equal(i, stream:next()) end
    assert.equal("WORKER_LOST", failure(stream.next, stream).code)
  end)

  it("that die without a job are replaced when there is one", function()
    local pool = new("process", { max_workers = 1 })
    pool:run(function() end)
    local pid = pool:stats().states[1].pid
    require "luv".kill(pid, "sigkill")
    process.eventually(function() return pool:stats().workers == 0 end, "its end")
    assert.are_not.equal(pid, pool:run(function() return require "luv".os_getpid() end))
    assert.equal(0, pool:stats().lost)
  end)

  it("that cannot be interrupted are killed when their job is given up", function()
    local pool = new("process", { max_workers = 1, grace = 0.05 })
    local path = process.dir() .. "/begun"
    local job = pool:submit(os.execute, ("echo begun >%s; exec sleep 4 >/dev/null 2>&1"):format(path))
    process.eventually(function() return read(path) ~= "" end, "the job")
    local began = core.now()
    job:cancel()
    assert.is_true(core.now() - began < process.limit(1))
    assert.equal("CANCELLED", failure(job.await, job).code)
    assert.equal(1, pool:run(function() return 1 end))
    assert.same({ 0, 1 }, { pool:stats().lost, pool:stats().replaced })
  end)

  it("that say what the host cannot understand are killed", function()
    local pool = new("process", { max_workers = 1 })
    for _, bytes in ipairs { ("\xff"):rep(200), ("\0"):rep(200) } do
      local err = failure_of_job(pool, function(garbage)
        require "luv".fs_write(3, garbage)
        spin()
      end, bytes)
      assert.equal("WORKER_LOST", err.code)
      has(err.message, "signal 9")
    end
    assert.equal(1, pool:run(function() return 1 end))
  end)

  it("that say what is not theirs to say are not listened to", function()
    local pool = new("process", { max_workers = 1 })
    local function frame(kind, id, body)
      return ("<I4BBBxI4I4I4I4I8I8I8I8"):pack(#body, kind, 2, 255, 0, 0, #body, 0, id, 0, 1, 2) .. body
    end
    local nonsense = ""
    for kind = 1, 11 do
      for _, id in ipairs { 0, 1000, -1 >> 1 } do
        for _, body in ipairs { "", "\x90", "\x94\1\2\3\4", "\xc1" } do
          if kind ~= 11 or body ~= "\xc1" then nonsense = nonsense .. frame(kind, id, body) end
        end
      end
    end
    for _ = 1, 2 do
      assert.equal("sense", pool:run(function(bytes)
        assert(require "luv".fs_write(3, bytes) == #bytes)
        return "sense"
      end, nonsense))
    end
    assert.same({ 1, 2, 0 }, { pool:stats().workers, pool:stats().done, pool:stats().replaced })
    local err = failure_of_job(pool, function(bytes) -- an error without a code
      require "luv".fs_write(3, bytes)
      spin()
    end, frame(10, 3, "\x94\1\2\3\4"))
    assert.equal("DATA_LOSS", err.code)
  end)

  it("get no descriptor but their own", function()
    local file <close> = assert(io.open("/etc/hostname"))
    assert.truthy(file)
    local list = new("process"):run(function()
      local found = {}
      local uv = require "luv"
      for fd = 0, 100 do
        local target = uv.fs_readlink(("/proc/self/fd/%d"):format(fd))
        if target then found[fd] = target end
      end
      return found
    end)
    assert.equal("/dev/null", list[0])
    local sockets = 0
    for fd, target in pairs(list) do
      assert.falsy(fd > 2 and target:find("/etc/hostname", 1, true))
      if fd > 2 and target:find "^socket:" then sockets = sockets + 1 end
    end
    assert.truthy(list[3]:find "^socket:")
    assert.equal(1, sockets)
  end)

  it("do not pass their socket on to programs that they start", function()
    assert.equal("0", new("process"):run(function()
      local list <close> = io.popen "ls -l /proc/self/fd | grep -c socket:"
      return list:read "l"
    end))
  end)

  it("are of no use to anybody else", function()
    local stranger = process.command { "--executor" }
    assert.equal(2, stranger:wait_exit())
    has(stranger.err, "--executor is for processes that gaterpc-host starts")
  end)
end)

describe("defaults of executors", function()
  it("are as many threads as cores and four, 32 at most, and as many processes as cores", function()
    local cores = require "luv".available_parallelism()
    assert.equal(math.min(32, cores + 4), gaterpc.ThreadPoolExecutor():stats().max_workers)
    assert.equal(cores, gaterpc.ProcessPoolExecutor():stats().max_workers)
  end)

  it("check their options", function()
    for option, value in pairs { max_workers = 0, max_queue = 0, memory_limit = 10, max_calls = 0, grace = -1 } do
      for _, constructor in pairs(make) do
        local ok, err = pcall(function() constructor { [option] = value } end)
        assert.is_false(ok)
        has(err, "executor_spec.lua:", "must be from")
      end
    end
    local ok, err = pcall(function() make.thread { max_worker = 1 } end)
    assert.is_false(ok)
    has(err, "executor_spec.lua:", "did you mean 'max_workers'?")
  end)
end)
