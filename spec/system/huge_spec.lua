-- HugeData: large results, compressed and in pieces, from worker to client through a broker.

local codecs = require "support.codecs"
local gaterpc = require "gaterpc"
local peers = require "support.peers"
local process = require "support.process"
local task = gaterpc.task
local uv = require "luv"

local Huge = gaterpc.Worker:extend "Huge"
local feeding = {} -- what became of the feeders

function Huge.interface:text(n) return ("0123456789abcdef"):rep(n // 16) end
function Huge.interface:bytes(n) return ("\xff\0\x80x"):rep(n // 4) end
function Huge.interface:list(n)
  local list = {}
  for i = 1, n do list[i] = { i = i } end
  return list
end
function Huge.interface:as(module, value, level)
  return gaterpc.HugeData { data = value, compress_module = module, compress_level = level }
end
function Huge.interface:fed(module, n, bytes)
  local huge = gaterpc.HugeData { compress_module = module }
  task.spawn(function()
    for i = 1, n do
      local put, err = huge.data:put(("%08d"):format(i) .. ("x"):rep(bytes - 8))
      feeding.put = i
      if not put then
        feeding.err = err
        return
      end
    end
    huge.data:close()
  end)
  return huge
end
function Huge.interface:noise(n)
  local huge = gaterpc.HugeData {}
  task.spawn(function()
    for i = 1, n do
      local put, err = huge.data:put(codecs.noise(8192, i))
      if not put then
        local _, again = huge.data:put "more"
        feeding.errs = { err, again }
        break
      end
      feeding.put = i
    end
    huge.data:close()
  end)
  return huge
end
function Huge.interface:failing()
  local huge = gaterpc.HugeData {}
  task.spawn(function()
    huge.data:put(("x"):rep(200000))
    huge.data:close(gaterpc.error("DATA_LOSS", "the disk is gone"))
  end)
  return huge
end


-- Methods of a test, which get huge data that is returned to the client.
local methods = {}
function Huge.interface:lent(name, module)
  local huge = gaterpc.HugeData { compress_module = module }
  feeding.feed = huge.data
  return methods[name](self, huge) or huge
end
for _, kind in ipairs { "thread", "process" } do
  Huge.interface["made_" .. kind] = gaterpc.interface(function(_, value, module)
    return gaterpc.HugeData { data = value, compress_module = module }
  end, kind)
end

local function numbered(n, bytes)
  local list = {}
  for i = 1, n do list[i] = ("%08d"):format(i) .. ("x"):rep(bytes - 8) end
  return table.concat(list)
end

local function feed(data, n, bytes)
  for i = 1, n do
    if not data:put(("%08d"):format(i) .. ("x"):rep(bytes - 8)) then return end
  end
  data:close()
end

describe("huge data", function()
  local broker, front, back, worker, client, peer_list

  before_each(function()
    feeding, peer_list = {}, {}
    broker = gaterpc.Majordomo { backend = process.ipc "back" }
    broker:bind(process.ipc "front")
    front, back = broker:start():addresses()
  end)

  local function serve(dialect)
    worker = gaterpc.Service { name = "H" }:create_worker(Huge, { broker = back, dialect = dialect }):start()
    assert(worker:wait_ready(process.limit(5)))
  end

  local function connect(dialect, more)
    local given = { broker = front, dialect = dialect, timeout = process.limit(20) }
    for name, value in pairs(more or {}) do given[name] = value end
    client = gaterpc.Client(given)
    return client
  end

  after_each(function()
    for _, each in ipairs(peer_list) do assert.same({}, each:faults()) end
    if client then client:close() end
    if worker then worker:close() end
    broker:close()
    client, worker = nil, nil
    process.finish()
  end)

  for _, module in ipairs(codecs.BUILT_IN) do
    it("carries values of every kind in " .. module, function()
      serve()
      connect()
      for _, value in ipairs { "", "short", ("text"):rep(100000), ("\0\xff"):rep(50000), 5, true, { 1, { a = 2 } } } do
        assert.same(value, client.H.as(module, value))
      end
      assert.equal(gaterpc.null, client.H.as(module, { gaterpc.null })[1])
    end)

    it("can be fed while it flows, in " .. module, function()
      serve()
      connect()
      local bytes = 0
      for piece in client:huge("H", "fed", module, 100, 10000):pieces() do bytes = bytes + #piece end
      assert.equal(1000000, bytes)
      assert.equal(300, #client.H.fed(module, 3, 100))
    end)
  end

  it("is made of large results by itself, and not of small ones", function()
    local host = process.worker("A", [[
      function Class.interface:text(n) return ("0123456789abcdef"):rep(n // 16) end
    ]], back, {})
    assert(host)
    connect()
    for _, n in ipairs { 16, 60000, 65536, 70000, 640000 } do
      local reply = assert(client:huge("A", "text", n))
      assert.equal(n > 65500, getmetatable(reply).__name == "gaterpc.HugeReply" and reply.stream ~= nil)
      assert.equal(n, #reply:value())
    end
    assert.is_true(client.A.text(3200000) == ("0123456789abcdef"):rep(200000))
  end)

  it("is read once, and says so rather than that it is damaged", function()
    serve()
    connect()
    local read, closed = assert(client:huge("H", "as", "gzip", "abc")), assert(client:huge("H", "as", "gzip", "abc"))
    assert.equal("abc", read:value())
    closed:close()
    for _, reply in ipairs { read, closed } do
      for _, method in ipairs { "value", "pieces", "write_to" } do
        local ok, err = pcall(function() local _ = reply[method](reply, "/dev/null") end)
        assert.is_false(ok)
        assert.truthy(tostring(err):find("huge_spec.lua:%d+: the reply was read or closed before"), tostring(err))
      end
    end
  end)

  it("is written to a path and nothing else", function()
    serve()
    connect()
    local reply <close> = assert(client:huge("H", "as", "gzip", "abc"))
    local ok, err = pcall(function() local _ = reply:write_to() end)
    assert.is_false(ok)
    assert.truthy(err:find("huge_spec.lua:%d+: write_to takes a path, got nil"), err)
    assert.equal("abc", reply:value())
  end)

  it("that is fed is returned once", function()
    serve()
    connect()
    local kept
    function methods.kept(_, huge)
      if kept then return kept end
      kept = huge
      task.spawn(function()
        huge.data:put "bytes"
        huge.data:close()
      end)
    end
    assert.equal("bytes", client.H.lent("kept", "gzip"))
    local value, err = client:try("H", "lent", "kept", "gzip")
    assert.is_nil(value)
    assert.equal("INTERNAL", err.code)
    assert.truthy(err.message:find("can be returned once", 1, true))
  end)

  it("comes in pieces, or goes to a file", function()
    serve()
    connect()
    local pieces, largest = {}, 0
    for piece in assert(client:huge("H", "as", "zstd", ("abc"):rep(1000000))):pieces() do
      pieces[#pieces + 1] = piece
      largest = math.max(largest, #piece)
    end
    assert.is_true(table.concat(pieces) == ("abc"):rep(1000000))
    assert.is_true(#pieces > 5 and largest <= 1 << 18)
    local path = process.file("huge.out", "")
    assert.equal(3000000, client:huge("H", "as", "gzip", ("abc"):rep(1000000)):write_to(path))
    assert.is_true(process.read(path) == ("abc"):rep(1000000))
    local _, err = client:huge("H", "as", "gzip", "x"):write_to "/nonexistent/file"
    assert.equal("INTERNAL", err.code)
    local reply = assert(client:huge("H", "as", "gzip", { 1, 2 }))
    local ok, failure = pcall(function() for _ in reply:pieces() do end end) -- luacheck: ignore 512
    assert.is_false(ok)
    assert.equal("INVALID_ARGUMENT", failure.code)
  end)

  it("fails with the feeder's error", function()
    serve()
    connect()
    local _, err = client:try("H", "failing")
    assert.equal("DATA_LOSS", err.code)
    assert.equal("the disk is gone", err.message)
    assert.equal("ok", client.H.as("gzip", "ok"))
  end)

  it("waits for its reader, and ends when nobody reads any more", function()
    serve()
    connect()
    local reply = assert(client:huge("H", "noise", 20000))
    local read = reply:pieces()
    read()
    local last
    process.eventually(function()
      local now = feeding.put
      local still = now == last
      last = now
      task.sleep(0.2)
      return still
    end, "the feeder to wait")
    assert.is_true(last * 8192 < 16 << 20, last .. " chunks are on their way to a reader that stands still")
    reply:close()
    process.eventually(function() return worker:stats().open == 0 end, "the end of the call")
    process.eventually(function() return feeding.errs end, "the feeder's end")
    assert.is_true(feeding.put < 20000)
    for i = 1, 2 do
      assert.equal("CANCELLED", feeding.errs[i].code)
      assert.equal("nobody takes the data any more", feeding.errs[i].message)
    end
  end)

  it("inflates to no more than it may", function()
    serve()
    local host = process.host([[
      local gaterpc = require "gaterpc"
      gaterpc.Settings.HUGE_DATA_MAXBYTES = "1M"
      local client = gaterpc.Client { broker = ... }
      local value, err = client:try("H", "as", "gzip", ("x"):rep(2 << 20))
      print(value, err.code)
      print(#client.H.as("gzip", ("x"):rep(1 << 19)))
    ]], { args = { front } })
    assert.equal(0, host:wait_exit())
    assert.equal("nil\tRESOURCE_EXHAUSTED\n524288\n", host.out)
  end)

  it("wrong options are errors that say what is right", function()
    local function fails(pattern, given)
      local ok, err = pcall(gaterpc.HugeData, given)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find(pattern), tostring(err))
    end
    fails("did you mean 'gzip'", { data = 1, compress_module = "gzpi" })
    fails("from 0 to 9", { data = 1, compress_module = "gzip", compress_level = 99 })
    fails("did you mean 'compress_level'", { data = 1, compres_level = 1 })
    fails("cannot be packed", { data = print })
  end)

  for _, kind in ipairs { "thread", "process" } do
    describe(("and a %s of an executor:"):format(kind), function()
      local pool = kind .. "_executor"

      before_each(function()
        serve()
        connect()
      end)

      it("feeds what it was given as an argument or an upvalue, whole or its data only", function()
        local n, bytes = 50, 100001
        methods.by_data = function(self, huge)
          self[pool]:submit(feed, huge.data, n, bytes)
        end
        methods.by_huge = function(self, huge)
          self[pool]:submit(function(given) given.data:put "x" given.data:close() end, huge)
        end
        methods.by_upvalue = function(self, huge)
          self[pool]:submit(function() huge.data:put(("x"):rep((5 << 20) + 1)) huge.data:close() end)
        end
        for _, module in ipairs { "gzip", "zstd" } do
          assert.is_true(client.H.lent("by_data", module) == numbered(n, bytes))
          assert.equal("x", client.H.lent("by_huge", module))
          assert.is_true(client.H.lent("by_upvalue", module) == ("x"):rep((5 << 20) + 1)) -- of several puts
        end
        process.eventually(function() return worker[pool]:stats().busy == 0 end, "the end of all jobs")
      end)

      it("stays behind until its reader follows, and hears when nobody reads any more", function()
        methods.endless = function(self, huge)
          feeding.job = self[pool]:submit(function(data)
            local n = 0
            while true do
              local put, err = data:put(("%08d"):format(n):rep(4096))
              if not put then return n, err.code, err.message end
              n = n + 1
            end
          end, huge.data)
        end
        local reply = assert(client:huge("H", "lent", "endless", "lz4"))
        local read = reply:pieces()
        for _ = 1, 10 do read() end
        process.eventually(function() return #feeding.feed.chunks == 16 end, "the data to wait for its reader")
        assert.is_false(feeding.job:is_done())
        reply:close()
        local n, code, text = feeding.job:await(process.limit())
        assert.same({ "CANCELLED", "nobody takes the data any more" }, { code, text })
        assert.is_true(n > 16)
      end)

      it("may end the data with an error, and puts nothing behind the end", function()
        methods.ends = function(self, huge)
          feeding.job = self[pool]:submit(function(data)
            data:put "some"
            data:close(require "gaterpc".error("NOT_FOUND", "the tape is torn"))
            data:close()
            return pcall(data.put, data, "more")
          end, huge.data)
        end
        local _, err = client:try("H", "lent", "ends")
        assert.same({ "NOT_FOUND", "the tape is torn" }, { err.code, err.message })
        local ok, text = feeding.job:await()
        assert.is_false(ok)
        assert.truthy(text:find "the data was closed", text)
      end)

      it("that fails ends the data with its error", function()
        methods.fails = function(self, huge)
          self[pool]:submit(function(data)
            data:put(("x"):rep(300000))
            error "no more tape"
          end, huge.data)
        end
        local _, err = client:try("H", "lent", "fails")
        assert.equal("INTERNAL", err.code)
        assert.truthy(err.message:find "no more tape")
        local has_put = gaterpc.SyncManager.Value(false)
        methods.is_cancelled = function(self, huge)
          feeding.job = self[pool]:submit(function(data)
            data:put "x"
            has_put:set(true)
            while true do end -- luacheck: ignore 542
          end, huge.data)
        end
        local call = task.spawn(function() return client:try("H", "lent", "is_cancelled") end)
        assert.is_true(has_put:wait(false))
        feeding.job:cancel()
        _, err = call:join()
        assert.equal("CANCELLED", err.code)
      end)

      it("that has done its job leaves the data open for others", function()
        methods.in_turn = function(self, huge)
          huge.data:put "host "
          self[pool]:run(function(data) data:put "one " end, huge.data)
          self[pool]:run(function() huge.data:put "two " end)
          huge.data:put "host"
          huge.data:close()
          -- what fails afterwards is no matter of the data
          assert(not pcall(self[pool].run, self[pool], function(data) error(data) end, huge.data))
        end
        assert.equal("host one two host", client.H.lent "in_turn")
      end)

      it("may take longer than the call's deadline when its data is on its way, and not before", function()
        local limit, bytes = process.limit(1), 0
        methods.slow = function(self, huge)
          self[pool]:submit(function(data, seconds)
            for _ = 1, 4 do
              data:put(require "luv".random(100000)) -- more than a piece
              require "gaterpc".task.sleep(seconds / 2)
            end
            data:close()
          end, huge.data, limit)
        end
        worker[pool]:run("os.time")
        local slow = client:with { timeout = limit }
        for piece in assert(slow:huge("H", "lent", "slow", "lz4")):pieces() do bytes = bytes + #piece end
        assert.equal(400000, bytes)
        methods.never_returns = function(self, huge)
          feeding.job = self[pool]:submit(function(data)
            while data:put "x" do end -- luacheck: ignore 542
          end, huge.data)
          error "it has not come to that"
        end
        assert.is_nil((slow:try("H", "lent", "never_returns")))
        local ok, err = pcall(feeding.job.await, feeding.job, process.limit())
        assert.is_false(ok)
        assert.equal("DEADLINE_EXCEEDED", err.code)
        process.eventually(function() return worker[pool]:stats().busy == 0 end, "the end of the job")
      end)

      it("returns it, and it comes as asked", function()
        for _, module in ipairs(codecs.BUILT_IN) do
          for _, value in ipairs { "", "short", ("text"):rep(700000), ("\xff"):rep(70000), 5, { 1, { a = 2 } } } do
            local reply = assert(client:huge("H", "made_" .. kind, value, module))
            assert.equal(module, reply.stream.codec)
            assert.same(value, reply:value())
          end
        end
        methods.long = function(self) -- more than a value of msgpack
          return self[pool]:run(function() return gaterpc.HugeData { data = ("12345"):rep(7 << 20) } end)
        end
        assert.is_true(client.H.lent("long", "zstd") == ("12345"):rep(7 << 20))
        local made = worker[pool]:run(function() return gaterpc.HugeData { data = "x", compress_module = "bz2" } end)
        assert.equal("huge data in bz2", tostring(made))
      end)

      it("is told what is wrong, at its own line", function()
        local function fails(pattern, fn, ...)
          local ok, err = pcall(worker[pool].run, worker[pool], fn, ...)
          assert.is_false(ok)
          assert.truthy(tostring(err):find(pattern), tostring(err))
        end
        fails("huge_spec.*did you mean 'gzip'", function()
          local made = gaterpc.HugeData { data = 1, compress_module = "gzpi" }
          return made
        end)
        fails("huge_spec.*from 0 to 9", function()
          local made = gaterpc.HugeData { data = 1, compress_module = "gzip", compress_level = 99 }
          return made
        end)
        fails("huge_spec.*it needs data", function()
          local made = gaterpc.HugeData {}
          return made
        end)
        fails("huge_spec.*cannot be packed", function()
          local made = gaterpc.HugeData { data = print }
          return made
        end)
        fails("put takes a string, got number", function(data) data:put(5) end, gaterpc.HugeData {}.data)
        fails("what is to be fed can go to an executor", function() end, gaterpc.HugeData { data = 1 })
        fails("cannot be sent.*only be the first result", function(data) return data end, gaterpc.HugeData {})
        fails("the result cannot be sent.*only be the first result", function()
          return 1, gaterpc.HugeData { data = 1 }
        end)
        local ok, err = pcall(client.H.text, gaterpc.HugeData {})
        assert.is_false(ok)
        assert.truthy(err.message:find "only jobs of its executors can have it")
      end)

      it("cannot put into what was lent to another job", function()
        local huge = gaterpc.HugeData {}
        local function keep(data) KEPT = KEPT or data end -- luacheck: ignore 111 113
        local one = gaterpc[kind == "thread" and "ThreadPoolExecutor" or "ProcessPoolExecutor"] { max_workers = 1 }
        one:run(keep, huge.data)
        local ok, err = pcall(one.run, one, function() return KEPT:put "x" end) -- luacheck: ignore 113
        one:shutdown()
        assert.is_false(ok)
        assert.same({ "NOT_FOUND", "the data was lent to another job" }, { err.code, err.message })
        assert.equal(0, #huge.data.chunks)
      end)
    end)
  end

  it("fails with WORKER_LOST when the process that feeds it is killed, whatever it was doing", function()
    serve()
    connect()
    for _, how in ipairs { "puts", "computes", "waits" } do
      local has_put = gaterpc.SyncManager.Value(false)
      methods[how] = function(self, huge)
        self.process_executor:submit(function(data, what)
          data:put "some"
          has_put:set(require "luv".os_getpid())
          while what == "puts" do data:put(("x"):rep(100000)) end
          while what == "computes" do end -- luacheck: ignore 542
          require "gaterpc".task.sleep(100)
        end, huge.data, how)
      end
      local call = task.spawn(function() return client:try("H", "lent", how, "lz4") end)
      assert.equal(0, uv.kill(has_put:wait(false), "sigkill"))
      local _, err = call:join()
      assert.equal("WORKER_LOST", err.code)
      assert.truthy(err.message:find "SIGKILL")
    end
    assert.equal("ok", client.H.as("gzip", "ok"))
  end)

  describe("and the original's programs:", function()
    for _, dialect in ipairs { "gate01", "gate02" } do
      it("a " .. dialect .. " client reads what a worker of ours compresses, of any size", function()
        serve()
        local c = peers.client { dialect = dialect, connect = front }
        peer_list[1] = c
        for _, n in ipairs { 1, 16, 900, 1000, 16000, 45000, 65536, 640000 } do
          local outcome = c:call("H", "as", { "gzip", { ["$repeat"] = { "x", n } } })
          assert.is_true(outcome.huge, outcome.error and outcome.error[2])
          assert.equal(n, type(outcome.result) == "string" and #outcome.result or outcome.result["$len"])
        end
        assert.is_nil(c:call("H", "text", { 640000 }).huge) -- it reads large messages, and faster
        local failed = c:call("H", "failing")
        assert.is_truthy(failed.error)
        assert.is_truthy(c:call("H", "as", { "zstd", "x" }).error)
      end)

      it("a client of ours reads what a " .. dialect .. " worker compresses", function()
        peer_list[1] = peers.worker { dialect = dialect, connect = back, service = "P" }
        process.eventually(function() return broker:stats().workers == 1 end, "the worker")
        connect()
        for _, n in ipairs { 960, 2000, 45000, 640000 } do
          assert.is_true(client.P.huge(n) == ("0123456789abcdef"):rep(n // 16))
        end
        local _, err = client:try("P", "huge_fail")
        assert.same({ "ValueError", "no luck" }, { err.class, err.message:match "no luck" })
        assert.equal(1, client.P.echo(1))
        for _, other in ipairs { "gate01", "gate02" } do
          local c = peers.client { dialect = other, connect = front }
          peer_list[#peer_list + 1] = c
          assert.equal(640000, c:call("P", "huge", { 640000 }).result["$len"])
          assert.is_truthy(c:call("P", "huge_fail").error)
        end
      end)

      it("a worker and a client of ours at a " .. dialect .. " broker", function()
        local python = peers.broker { dialect = dialect, heartbeat = 1000 }
        peer_list[1] = python
        back, front = python.backend, python.frontend
        serve(dialect)
        connect(dialect)
        assert.is_true(client.H.as("gzip", ("ab"):rep(100000)) == ("ab"):rep(100000))
        local _, err = client:try("H", "failing")
        assert.is_truthy(err.message:find "the disk is gone")
        _, err = client:try("H", "as", "zstd", "x")
        assert.is_truthy(err.message:find "gzip only")
      end)
    end
  end)
end)
