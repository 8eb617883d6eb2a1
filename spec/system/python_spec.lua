-- The original's programs, as far as their protocol's description goes, with ours: clients and workers of every
-- dialect, written in Python without our code, at our broker; our workers and clients at their brokers.

local gaterpc = require "gaterpc"
local peers = require "support.peers"
local process = require "support.process"
local values = require "support.values"
local task = gaterpc.task

local BIG = 640000

local function mentions(text)
  return function(line) return line.n == nil and require "dkjson".encode(line):find(text, 1, true) end
end

describe("Python peers #system", function()
  local all

  before_each(function() all = {} end)

  after_each(function()
    for _, each in ipairs(all) do
      if each.close then each:close() end
      if each.faults then assert.same({}, each.allowed or each:faults()) end
    end
    process.finish()
  end)

  local function keep(made)
    all[#all + 1] = made
    return made
  end

  describe("at our broker", function()
    local broker, front, back

    local function open(options)
      options = options or {}
      options.backend = options.backend or process.ipc "back"
      broker = gaterpc.Majordomo(options)
      broker:bind(process.ipc "front")
      front, back = broker:start():addresses()
    end

    after_each(function()
      if broker then broker:close() end
      broker = nil
    end)

    local function registered(count)
      process.eventually(function() return broker:stats().workers == count end, count .. " workers")
    end

    for _, of_worker in ipairs { "gate01", "gate02", "mdp" } do
      for _, of_client in ipairs { "gate01", "gate02", "mdp", "gh1" } do
        it(("a %s client calls a %s worker"):format(of_client, of_worker), function()
          open()
          local single = of_worker == "mdp" or of_client == "mdp"
          local worker = keep(peers.worker {
            dialect = of_worker, connect = back, service = of_worker == "mdp" and "S.echo" or "S" })
          registered(1)
          if of_client == "gh1" then
            local c = keep(gaterpc.Client { broker = front })
            assert.equal("x", c.S.echo "x")
            if single then return end
            assert.same({ name = "test", args = { 1 }, kwargs = { x = 2 } }, c.S.test(1, gaterpc.kwargs { x = 2 }))
            local items = {}
            for i in c.S.count(600) do items[#items + 1] = i end
            assert.equal(600, #items)
            for _ in c.S.empty() do error "no items" end
            local _, err = c:try("S", "fail", "no luck")
            assert.same({ "ValueError", "INTERNAL" }, { err.class, err.code })
            assert.is_truthy(err.traceback:find "worker.py")
            assert.is_true(c.S.big_text(BIG) == ("0123456789abcdef"):rep(BIG // 16))
            assert.is_true(c.S.big_bytes(BIG) == ("\xff\0\x80x"):rep(BIG // 4))
            _, err = c:with { timeout = process.limit(1) }:try("S", "nosuch")
            assert.equal(of_worker == "gate01" and "NOT_FOUND" or "DEADLINE_EXCEEDED", err.code)
            local stream = c:with { timeout = process.limit(1) }.S.stream_fail(1)
            assert.equal(0, stream:next())
            local _, failure = pcall(stream.next, stream)
            assert.equal(of_worker == "gate02" and "ValueError" or "DEADLINE_EXCEEDED", failure.class)
            assert.equal("free again", c.S.echo "free again")
            return
          end
          local c = keep(peers.client { dialect = of_client, connect = front })
          local echoed = c:call("S", "echo", { "x" })
          if of_client == "mdp" then
            assert.same({ "x" }, echoed.frames)
          else
            assert.equal("x", echoed.result)
          end
          local big = c:call("S", "echo", { { ["$repeat"] = { "ab", BIG // 2 } } })
          assert.equal(BIG, (big.result or big.frames[1])["$len"])
          if single then return end
          assert.same({ name = "test", args = {}, kwargs = {} }, c:call("S", "test").result)
          assert.same({ name = "test", args = { 1, "b" }, kwargs = {} }, c:call("S", "test", { 1, "b" }).result)
          assert.same({ name = "test", args = {}, kwargs = { x = 1 } }, c:call("S", "test", {}, { x = 1 }).result)
          assert.same({ name = "test", args = { 1 }, kwargs = { x = 1 } }, c:call("S", "test", { 1 }, { x = 1 }).result)
          assert.same({ 0, 1, 2, 3 }, c:call("S", "count", { 4 }).items)
          assert.is_true(c:call("S", "empty").ended)
          assert.is_truthy(c:call("S", "fail", { "no luck" }).error[1]:find "ValueError")
          assert.equal("bytes", c:call("S", "big_bytes", { BIG }).result["$type"])
          assert.equal(BIG, c:call("S", "big_text", { BIG }).result["$len"])
          assert.is_truthy(c:call("Nobody", "f").error[1]:find "ServiceUnAvailableError")
          if of_worker == "gate02" then
            local failed = c:call("S", "stream_fail", { 2 })
            assert.same({ 0, 1 }, failed.items)
            assert.is_truthy(of_client == "gate01" and failed.ended or failed.error[1] == "ValueError")
            local keys = c:call("S", "integers")
            assert.equal(of_client == "gate01" and "INVALID_ARGUMENT" or nil, keys.error and keys.error[1])
          else
            assert.is_truthy(c:call("S", "nosuch").error[2]:find "Function not found")
          end
          assert.is_truthy(worker.process:is_running())
        end)
      end
    end

    for _, dialect in ipairs { "gate01", "gate02" } do
      it("a " .. dialect .. " client calls a worker of ours, and the broker's own service", function()
        local Broker = gaterpc.Majordomo:extend "Broker"
        function Broker.interface:hello(_, ...) return 200, { ... } end
        function Broker.interface:broken() error "inside" end
        broker = Broker { backend = process.ipc "back" }
        broker:bind(process.ipc "front")
        front, back = broker:start():addresses()
        local Own = gaterpc.Worker:extend "Own"
        function Own.interface:echo(value) return value end
        function Own.interface:count(n) for i = 0, n - 1 do coroutine.yield(i) end end
        function Own.interface:late() gaterpc.task.sleep(2) return "late" end
        local service = gaterpc.Service { name = "S", description = "d" }
        local worker = keep(service:create_worker(Own, { broker = back }):start())
        assert(worker:wait_ready(process.limit(5)))
        local c = keep(peers.client { dialect = dialect, connect = front })
        assert.equal("x", c:call("S", "echo", { "x" }).result)
        local streamed = c:call("S", "count", { 3000 })
        assert.equal(3000, #streamed.items)
        assert.equal(2999, streamed.items[3000])
        local listed = c:call("Gate", "get_services")
        assert.same({ "S", "Gate" }, listed.result)
        assert.same({ 1, "b" }, c:call("Gate", "hello", { 1, "b" }).result)
        assert.is_truthy(c:call("Gate", "broken").error[2]:find "inside")
        if dialect == "gate01" then
          assert.equal(200, listed.status)
          assert.equal(404, c:call("Gate", "query_service", { "T" }).status)
        else
          assert.equal("d", c:call("Gate", "query_service", { "S" }).result)
        end
        assert.is_true(c:call("S", "late", {}, {}, { timeout = 200 }).timeout or false)
        c.allowed = {} -- 0.1 does not survive what it did itself: a time limit shorter than the work
      end)

      it("a " .. dialect .. " worker is known again after each of ten reconnects with the same id", function()
        open()
        local worker = keep(peers.worker { dialect = dialect, connect = back })
        local c = keep(gaterpc.Client { broker = front })
        registered(1)
        for i = 1, 10 do
          worker:send { op = "reconnect" }
          worker:await(function() return #worker:said() > 0 end)
          process.eventually(function()
            local value = c:with { timeout = 1 }:try("S", "echo", i)
            return value == i
          end, "an answer after reconnect " .. i)
        end
        registered(1)
      end)

      it("a " .. dialect .. " worker lives for many heartbeats, and is missed when it stops them [limit 30]", function()
        local beat = 0.2 * process.SLOW
        local its_back, its_front = process.ipc "its-back", process.ipc "its-front"
        local host = process.host([[
          local gaterpc = require "gaterpc"
          local back, front, beat = ...
          gaterpc.Settings.setup { GATE01_HEARTBEAT = tonumber(beat), GATE02_HEARTBEAT = tonumber(beat) }
          local broker = gaterpc.Majordomo { backend = back }
          broker:bind(front)
          broker:run()
        ]], { args = { its_back, its_front, tostring(beat) } })
        local worker = keep(peers.worker { dialect = dialect, connect = its_back, heartbeat = beat * 1000 // 1 | 0 })
        local c = keep(gaterpc.Client { broker = its_front })
        process.eventually(function() return c:try("S", "echo", 1) == 1 end, "the worker")
        for i = 1, 15 do
          task.sleep(beat / 2) -- twice its patience in all
          assert.equal(i, c.S.echo(i))
        end
        worker:send { op = "stop_heartbeat" }
        process.eventually(function()
          local _, err = c:with { timeout = process.limit(3) }:try("S", "ignore")
          return err and (err.code == "WORKER_LOST" or err.code == "UNAVAILABLE")
        end, "its loss")
        worker.allowed = {}
        host:kill "sigterm"
      end)
    end

    it("credentials are checked for every message, and a wrong one is told at once", function()
      open { users = { me = "right" } }
      for _, dialect in ipairs { "gate01", "gate02" } do
        local worker = keep(peers.worker { dialect = dialect, connect = back, plain = "me:right" })
        registered(1)
        local c = keep(peers.client { dialect = dialect, connect = front, plain = "me:right" })
        assert.equal(1, c:call("S", "echo", { 1 }).result)
        assert.same({ 0, 1 }, c:call("S", "count", { 2 }).items)
        local bad = keep(peers.client { dialect = dialect, connect = front, plain = "me:wrong" })
        assert.equal("UNAUTHENTICATED", bad:said()[1].refused[1])
        local forger = keep(peers.worker { dialect = dialect, connect = back, plain = "me:wrong", id = "forger" })
        forger:await(mentions "disconnect", "its dismissal")
        assert.equal(1, c:call("S", "echo", { 1 }).result)
        worker:stop()
        broker:close()
        open { users = { me = "right" }, backend = process.ipc("back" .. dialect) }
      end
    end)

    it("a worker that dies with a call fails it at once", function()
      open()
      for _, dialect in ipairs { "gate01", "gate02" } do
        keep(peers.worker { dialect = dialect, connect = back })
        registered(1)
        local c = keep(peers.client { dialect = dialect, connect = front })
        assert.equal("WORKER_LOST", c:call("S", "die").error[1])
        registered(0)
      end
    end)
  end)

  for _, dialect in ipairs { "gate01", "gate02", "mdp" } do
    describe("of a " .. dialect .. " broker", function()
      local broker

      local Own = gaterpc.Worker:extend "Own"
      function Own.interface:echo(value) return value end
      function Own.interface:count(n) for i = 0, n - 1 do coroutine.yield(i) end end
      function Own.interface:fail(text) error(gaterpc.error("INTERNAL", text, { class = "Oops" })) end

      local function serve(more)
        local given = { broker = broker.backend, dialect = dialect, method = dialect == "mdp" and "echo" or nil }
        for name, value in pairs(more or {}) do given[name] = value end
        local worker = keep(gaterpc.Service { name = "S" }:create_worker(Own, given):start())
        assert(worker:wait_ready(process.limit(10)))
        return worker
      end

      it("serve a worker and a client of ours, and their own", function()
        broker = keep(peers.broker { dialect = dialect, heartbeat = 1000, flood = 1 })
        serve()
        local c = keep(gaterpc.Client { broker = broker.frontend, dialect = dialect })
        assert.equal("x", c.S.echo "x")
        assert.is_true(c.S.echo(("ab"):rep(BIG // 2)) == ("ab"):rep(BIG // 2))
        local python = keep(peers.client { dialect = dialect, connect = broker.frontend })
        if dialect == "mdp" then
          assert.same({ "x" }, python:call("S", "echo", { "x" }).frames)
          return
        end
        assert.equal("x", python:call("S", "echo", { "x" }).result)
        assert.same({ 0, 1, 2 }, python:call("S", "count", { 3 }).items)
        assert.same({ "Oops", "no" }, table.move(python:call("S", "fail", { "no" }).error, 1, 2, 1, {}))
        local items = {}
        for i in c.S.count(500) do items[#items + 1] = i end
        assert.equal(500, #items)
        local _, err = c:try("S", "fail", "no")
        assert.equal("Oops", err.class)
        _, err = c:try("Nobody", "f")
        assert.equal("UNAVAILABLE", err.code)
        assert.same({ "S", "Gate" }, c.Gate.get_services())
        keep(peers.worker { dialect = dialect, connect = broker.backend, service = "P" })
        process.eventually(function() return (c:try("P", "echo", 1)) == 1 end, "a worker that came later")
      end)

      it("that dismisses a worker of ours, or falls silent, gets it back", function()
        broker = keep(peers.broker { dialect = dialect, heartbeat = 300 })
        serve { heartbeat = 0.3 }
        local c = keep(gaterpc.Client { broker = broker.frontend, dialect = dialect, heartbeat = 0.3 })
        assert.equal("x", c.S.echo "x")
        for _, trouble in ipairs { { op = "disconnect_all" }, { op = "pause", ms = 2000 } } do
          broker:send(trouble)
          local greetings = #broker:said()
          process.eventually(function()
            return #broker:said() > greetings and (c:with { timeout = 1 }:try("S", "echo", "y")) == "y"
          end, "the worker's return")
        end
      end)

      if dialect ~= "mdp" then
        it("that asks for credentials gets them from worker and client", function()
          broker = keep(peers.broker { dialect = dialect, heartbeat = 500, plain = "me:right", flood = 1 })
          local plain = { zap_mechanism = "PLAIN", zap_credentials = { "me", "right" } }
          serve(plain)
          plain.broker, plain.dialect = broker.frontend, dialect
          local c = keep(gaterpc.Client(plain))
          assert.equal("x", c.S.echo "x")
          local items = {}
          for i in c.S.count(3) do items[#items + 1] = i end
          assert.same({ 0, 1, 2 }, items)
        end)
      end
    end)
  end

  it("complain about what the original does not survive", function()
    local broker = peers.broker { dialect = "gate01" }
    local worker = peers.worker { dialect = "gate01", connect = broker.backend, id = "w" }
    local c = peers.client { dialect = "gate01", connect = broker.frontend, id = "c" }
    assert.equal(1, c:call("S", "echo", { 1 }).result)
    local frames = {}
    local reply = { "", "MDPW01", "\3", "gw-w", "gc-c", "", ("0"):rep(32), "\x82\xa6result\1\xa9exception\xc0" }
    for i, each in ipairs(reply) do frames[i] = values.hex(each) end
    worker:send { op = "raw", frames = frames }
    assert.is_truthy(c:await(function(line) return line.fault end, "a fault", true).fault:find "too many")
    assert.equal(3, (c.process:wait_exit()))
  end)
end)
