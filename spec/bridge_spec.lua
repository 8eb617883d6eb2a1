-- Clients and workers of every dialect at one broker: what they say reaches the other side, in the other
-- side's words.

local engine = require "support.engine"
local mixed = require "support.mixed"
local msgpack = require "gaterpc.msgpack"

local dialects = { "gh1", "gate01", "gate02", "mdp" }
local words = { gh1 = true, gate01 = true, gate02 = true } -- these have keywords, streams, errors

describe("bridge", function()
  local world

  before_each(function()
    engine.at(1000)
    world = mixed.world()
  end)

  for _, of_client in ipairs(dialects) do
    for _, of_worker in ipairs(dialects) do
      describe(("from %s to %s"):format(of_client, of_worker), function()
        local c, w
        local both = words[of_client] and words[of_worker]

        before_each(function()
          w = world:worker(of_worker, "S")
          c = world:client(of_client)
          if of_worker == "gh1" then w:hear "READY" end
        end)

        ---Makes a call that reaches the worker.
        local function reach(call)
          c:request(call)
          local request = w:hear "REQUEST"
          if of_worker ~= "mdp" then assert.equal("m", request.method) end
          return request
        end

        it("carries arguments and the result", function()
          local request = reach { args = { "a", "b" } }
          assert.same({ "a", "b" }, (mixed.params(request)))
          w:answer(request, "REPLY", "value")
          assert.equal("value", (mixed.outcome(c:hear "REPLY")))
          assert.equal(0, world:stats().calls)
        end)

        it("carries a call without arguments", function()
          local request = reach {}
          local args, kwargs = mixed.params(request)
          assert.same({}, args)
          assert.same({}, kwargs)
          w:answer(request, "REPLY", "")
          assert.equal("", (mixed.outcome(c:hear "REPLY")))
        end)

        it("carries 640 kB of text and bytes", function()
          for _, big in ipairs { ("0123456789abcdef"):rep(40000), ("\xff\0\x80x"):rep(160000) } do
            local request = reach { args = { big } }
            assert.is_true(mixed.params(request)[1] == big)
            w:answer(request, "REPLY", big)
            assert.is_true(mixed.outcome(c:hear "REPLY") == big)
          end
        end)

        it("fails at once for an unknown service", function()
          c:request { service = "Nobody" }
          local answer = c:hear()
          if of_client == "mdp" then
            assert.same({ "ERROR", "NOT_FOUND" }, { answer.frames[4], answer.frames[5] })
            return
          end
          local _, texts = mixed.outcome(answer)
          assert.is_truthy(texts[1]:find(of_client == "gh1" and "NOT_FOUND" or "ServiceUnAvailableError"))
          assert.is_truthy(texts[2]:find "Nobody")
        end)

        if both then
          it("carries keywords, alone and behind arguments", function()
            for _, args in ipairs { {}, { 1, msgpack.null, { 2 } } } do
              local request = reach { args = args, kwargs = { x = 1, y = "z" } }
              local got, kwargs = mixed.params(request)
              assert.same(args, got)
              assert.same({ x = 1, y = "z" }, kwargs)
              w:answer(request, "REPLY", { ok = true })
              assert.same({ ok = true }, (mixed.outcome(c:hear "REPLY")))
            end
          end)

          it("carries an error with class, message and traceback", function()
            w:answer(reach {}, "ERROR", "ValueError")
            local _, texts = mixed.outcome(c:hear())
            assert.same({ "ValueError", "message", "traceback" }, texts)
          end)

          it("carries a stream in order, and its end", function()
            local request = reach {}
            for i = 0, 4 do w:answer(request, "ITEM", "item " .. i, i) end
            w:answer(request, "END", 5)
            for i = 0, 4 do
              local item = c:hear "ITEM"
              assert.equal("item " .. i, (msgpack.unpack(item.payload)))
              if of_client == "gh1" then assert.equal(i, item.split) end
            end
            c:hear "END"
            assert.is_nil(c:hear())
            assert.equal(0, world:stats().calls)
          end)

          it("carries an empty stream", function()
            w:answer(reach {}, "END", 0)
            c:hear "END"
            assert.is_nil(c:hear())
          end)

          it("carries an error in mid-stream as far as there is a word for it", function()
            local request = reach {}
            w:answer(request, "ITEM", 1, 0)
            w:answer(request, "ERROR", "ValueError", true)
            c:hear "ITEM"
            local last = c:hear()
            if of_client == "gate01" or of_worker == "gate01" then
              assert.equal("END", last.type)
            else
              assert.equal("ERROR", last.type)
              assert.same({ "ValueError", "message", "traceback" }, select(2, mixed.outcome(last)))
            end
            assert.is_nil(c:hear())
          end)

          it("ends a call when its worker goes", function()
            reach {}
            w:say { type = "BYE" }
            local _, texts = mixed.outcome(c:hear())
            assert.equal("WORKER_LOST", texts[1])
          end)
        else
          it("says at once what has no form", function()
            if of_worker == "mdp" and of_client ~= "mdp" then
              for _, call in ipairs { { kwargs = { x = 1 } }, { args = { { 1 } } }, { args = { { a = 1 } } } } do
                c:request(call)
                local _, texts = mixed.outcome(c:hear())
                assert.equal("INVALID_ARGUMENT", texts[1])
                assert.is_truthy(texts[2]:find "RFC 7")
              end
              assert.is_nil(w:hear())
            elseif of_client == "mdp" and of_worker ~= "mdp" then
              local request = reach {}
              w:answer(request, "ITEM", 1, 0)
              assert.same({ "ERROR", "INVALID_ARGUMENT" }, table.move(c:hear().frames, 4, 5, 1, {}))
              if of_worker == "gh1" then w:hear "CANCEL" end
              request = reach {}
              w:answer(request, "REPLY", { a = 1 })
              assert.same({ "ERROR", "INVALID_ARGUMENT" }, table.move(c:hear().frames, 4, 5, 1, {}))
              if of_worker == "gh1" then w:hear "CANCEL" end
              request = reach {}
              w:answer(request, "ERROR", "ValueError")
              assert.same({ "ERROR", "ValueError", "message" }, table.move(c:hear().frames, 4, 6, 1, {}))
            end
            assert.equal(0, world:stats().calls)
          end)
        end

        it("keeps calls apart that are under way at once", function()
          if of_client == "mdp" or of_worker == "mdp" or of_worker == "gate01" then return end
          local requests = {}
          for i = 1, 5 do
            c:request { args = { i } }
            requests[i] = w:hear "REQUEST"
          end
          for _, i in ipairs { 3, 1, 5, 2, 4 } do w:answer(requests[i], "REPLY", i) end
          for _, i in ipairs { 3, 1, 5, 2, 4 } do
            local answer = c:hear "REPLY"
            assert.equal(i, (mixed.outcome(answer)))
            assert.equal(i, of_client == "gh1" and answer.id or (engine.read_tag(answer.tag)))
          end
        end)
      end)
    end
  end

  it("gives a gate01 worker one request at a time, and the next when the stream has ended", function()
    local w, c = world:worker("gate01", "S"), world:client "gate02"
    c:request { args = { 1 } }
    c:request { args = { 2 } }
    local request = w:hear "REQUEST"
    w:answer(request, "ITEM", 1)
    assert.is_nil(w:hear())
    w:answer(request, "ITEM", 2)
    assert.is_nil(w:hear())
    w:answer(request, "END")
    assert.same({ 2 }, (mixed.params(w:hear "REQUEST")))
  end)

  it("gives a gate02 worker as many requests as it says", function()
    local w, c = world:worker("gate02", "S", { credit = 3 }), world:client "gate01"
    for i = 1, 5 do c:request { args = { i } } end
    for i = 1, 3 do assert.same({ i }, (mixed.params(w:hear "REQUEST"))) end
    assert.is_nil(w:hear())
  end)

  it("holds items back for a client that gives credit, and passes them on when it does", function()
    local w, c = world:worker("gate01", "S"), world:client "gh1"
    c:request { credit = 2, window = 1000 }
    local request = w:hear "REQUEST"
    for i = 1, 5 do w:answer(request, "ITEM", i) end
    w:answer(request, "END")
    assert.equal(1, c:hear("ITEM").count)
    assert.equal(1, c:hear("ITEM").count)
    assert.is_nil(c:hear())
    c:request {} -- the worker is free, though its stream has not been read to the end
    w:hear "REQUEST"
    c:say { type = "CREDIT", id = 1, credit = 2, window = 1000 }
    local items = c:hear "ITEM"
    assert.same({ 2, 2, "\3\4" }, { items.count, items.split, items.payload })
    assert.is_nil(c:hear())
    c:say { type = "CREDIT", id = 1, credit = 100, window = 1000 }
    assert.equal("\5", c:hear("ITEM").payload)
    c:hear "END"
  end)

  it("fails a stream that nobody reads and nobody can hold back", function()
    world = mixed.world { backlog_bytes = 1000 }
    local w, c = world:worker("gate02", "S"), world:client "gh1"
    c:request { credit = 1, window = 100 }
    local request = w:hear "REQUEST"
    for _ = 1, 20 do w:answer(request, "ITEM", ("x"):rep(90)) end
    c:hear "ITEM"
    local _, texts = mixed.outcome(c:hear "ERROR")
    assert.equal("RESOURCE_EXHAUSTED", texts[1])
    assert.equal(0, world:stats().calls)
  end)

  it("holds no more for all clients together than for all that wait", function()
    world = mixed.world { queue_bytes = 1000 }
    local c, failed = world:client "gh1", 0
    for i = 1, 5 do
      local w = world:worker("gate02", "S" .. i)
      c:request { service = "S" .. i, credit = 1, window = 100 }
      local request = w:hear "REQUEST"
      for _ = 1, 5 do w:answer(request, "ITEM", ("x"):rep(90)) end
    end
    while true do
      local heard = c:hear()
      if not heard then break end
      if heard.type == "ERROR" then failed = failed + 1 end
    end
    assert.equal(3, failed) -- two streams, and the first items of all, are within it
    world.broker:receive("front", c.id, engine.build { type = "BYE" })
    local w, d = world:worker("gate02", "S"), world:client "gh1"
    d:request { credit = 1, window = 100 } -- what the other one held has been given back
    local request = w:hear "REQUEST"
    for _ = 1, 5 do w:answer(request, "ITEM", ("x"):rep(90)) end
    d:hear "ITEM"
    assert.is_nil(d:hear())
  end)

  it("gives credit in the name of a client that knows none, and none while it does not read", function()
    local w, c = world:worker("gh1", "S"), world:client "gate02"
    w:hear "READY"
    c:request {}
    local request = w:hear "REQUEST"
    assert.equal(1024, request.credit)
    for i = 0, 511 do w:answer(request, "ITEM", i, i) end
    assert.same({ "CREDIT", 512 }, { (function(heard) return heard.type, heard.credit end)(w:hear()) })
    c.stalled = true
    world:pump()
    w:answer(request, "ITEM", 512, 512)
    world:pump()
    for i = 513, 1100 do w:answer(request, "ITEM", i, i) end
    assert.is_nil(w:hear())
    c.stalled = false
    world:tick(1005)
    world:pump()
    world:tick(1010)
    assert.equal("CREDIT", w:hear().type)
  end)

  it("drops answers to another broker's calls, and forged ones", function()
    local w, c = world:worker("gate01", "S"), world:client "gate01"
    c:request {}
    local request = w:hear "REQUEST"
    local number = engine.read_tag(request.tag)
    for _, tag in ipairs { engine.tag(number, 1), "x", ("f"):rep(32) } do
      w:answer({ tag = tag, caller = request.caller }, "REPLY", "forged")
    end
    assert.is_nil(c:hear())
    assert.equal(3, world:stats().late)
    w:answer(request, "REPLY", "right")
    assert.equal("right", (mixed.outcome(c:hear "REPLY")))
    w:answer(request, "REPLY", "twice")
    assert.is_nil(c:hear()) -- it would not survive that
  end)

  it("answers a gate01 client in time, never late", function()
    local w, c = world:worker("gate01", "S"), world:client "gate01"
    c:request {}
    local request = w:hear "REQUEST"
    for ms = 9999, 59999, 10000 do
      world:tick(ms)
      w:say { type = "HEARTBEAT" }
    end
    assert.is_nil(c:hear())
    world:tick(60000)
    local _, texts = mixed.outcome(c:hear "REPLY")
    assert.equal("<class 'TimeoutError'>", texts[1])
    w:answer(request, "REPLY", "late")
    assert.is_nil(c:hear())
  end)

  it("lets a stream for the original's clients stand still no longer than they wait", function()
    for _, dialect in ipairs { "gate01", "gate02" } do
      engine.at(1000)
      world = mixed.world()
      local w, c = world:worker("gh1", "S", { deadline_ms = 0 }), world:client(dialect)
      w:hear "READY"
      c:request {}
      w:answer(w:hear "REQUEST", "ITEM", 1, 0)
      c:hear "ITEM"
      for ms = 9999, 59999, 10000 do
        world:tick(ms)
        c:request { service = "Gate", method = "get_services" }
        c:hear "REPLY"
      end
      assert.equal(1, world:stats().calls)
      world:tick(60000)
      assert.equal(dialect == "gate01" and "END" or "ERROR", c:hear().type)
      w:hear "CANCEL"
      assert.equal(dialect == "gate01" and 1 or 0, world:stats().cut)
    end
  end)

  it("gives a second request with the id of an open one no answer, which would end a gate01 client", function()
    local w, c = world:worker("gate02", "S"), world:client "gate01"
    c:request {}
    local request = w:hear "REQUEST"
    c.calls = 0
    c:request {}
    assert.is_nil(w:hear())
    assert.equal(1, world:stats().malformed)
    w:answer(request, "REPLY", 1)
    c:hear "REPLY"
    assert.is_nil(c:hear())
  end)

  it("tells the original's clients that all workers were busy, when a call has waited in vain", function()
    local w, c, d = world:worker("gate02", "S", { credit = 1 }), world:client "gate01", world:client "gate02"
    c:request {}
    w:hear "REQUEST"
    c:request {}
    d:request {}
    for ms = 4000, 60000, 4000 do
      world:tick(ms)
      w:say { type = "HEARTBEAT" }
    end
    local classes = {}
    for i = 1, 2 do classes[i] = select(2, mixed.outcome(c:hear "REPLY"))[1] end
    table.sort(classes)
    assert.same({ "<class 'TimeoutError'>", "<class 'gaterpc.exceptions.BuysWorkersError'>" }, classes)
    assert.equal("BusyWorkerError", select(2, mixed.outcome(d:hear "REPLY"))[1])
  end)

  describe("heartbeats of", function()
    it("a gate01 worker that beats every 9 s only are enough", function()
      local w = world:worker("gate01", "S")
      for ms = 10000, 100000, 9000 do
        for step = ms - 8000, ms, 1000 do world:tick(step) end
        w:say { type = "HEARTBEAT" }
      end
      assert.equal(1, world:stats().workers)
    end)

    for dialect, limit in pairs { gate01 = 12000, gate02 = 20000, mdp = 10000 } do
      it(("a %s worker that stops are missed in time"):format(dialect), function()
        world:worker(dialect, "S")
        world:tick(1000 + limit - 1)
        assert.equal(1, world:stats().workers)
        world:tick(1000 + limit)
        assert.equal(0, world:stats().workers)
      end)
    end

    it("the broker come within the worker's own time, whatever else is said", function()
      for dialect, every in pairs { gate01 = 3000, gate02 = 3000, mdp = 2500 } do
        engine.at(1000)
        world = mixed.world()
        local w, c = world:worker(dialect, "S"), world:client "gh1"
        w:hear "HEARTBEAT" -- at once: it waits for a sign of life
        for ms = 1500, 10900, 100 do
          world:tick(ms)
          if dialect ~= "mdp" then -- there, everything counts
            c:request {}
            w:answer(w:hear "REQUEST", "REPLY", 1)
          end
          w:say { type = "HEARTBEAT" }
        end
        while w:hear() do end -- luacheck: ignore 542
        assert.equal(9900 // every, w.beats - 1, dialect)
      end
    end)
  end)

  describe("a worker", function()
    it("that greets twice is told to begin anew, and may", function()
      for _, dialect in ipairs { "gate01", "gate02", "mdp" } do
        world = mixed.world()
        local w = world:worker(dialect, "S")
        local ready = { type = "READY", service = "S", credit = 1, method = dialect == "mdp" and "m" or "" }
        w:say(ready)
        w:hear "BYE"
        assert.equal(0, world:stats().workers)
        w:say(ready)
        assert.equal(1, world:stats().workers)
      end
    end)

    it("that the broker has forgotten is told so when it beats", function()
      for _, dialect in ipairs { "gate01", "gate02", "mdp" } do
        local w = world:peer("back", dialect)
        w:say { type = "HEARTBEAT" }
        w:hear "BYE"
      end
    end)

    it("of RFC 7 is one method of a service that people see once", function()
      world:worker("mdp", "Math", { method = "add" })
      world:worker("mdp", "Math", { method = "mul" })
      local plain = world:worker("mdp", "echo", { method = "call" })
      local c = world:client "gate02"
      c:request { service = "Gate", method = "get_services" }
      assert.same({ "Math", "echo", "Gate" }, (mixed.outcome(c:hear "REPLY")))
      c:request { service = "Math", method = "sub" }
      assert.equal("ServiceUnAvailableError", select(2, mixed.outcome(c:hear "REPLY"))[1])
      c:request { service = "echo", method = "call", args = { "x" } }
      plain:answer(plain:hear "REQUEST", "REPLY", "y")
      assert.equal("y", (mixed.outcome(c:hear "REPLY")))
      c:request { service = "echo", method = "other" }
      assert.is_truthy(select(2, mixed.outcome(c:hear "REPLY")))
    end)

    it("of RFC 7 cannot share a service with others, which hear the method's name", function()
      world:worker("gate01", "S")
      world:worker("mdp", "S", { method = "call" }):hear "BYE"
      assert.equal(1, world:stats().workers)
    end)
  end)

  describe("the service Gate", function()
    local function ask(c, method, args, kwargs)
      c:request { service = "Gate", method = method, args = args, kwargs = kwargs }
      return c:hear "REPLY"
    end

    it("answers gate01 in three frames, with a status", function()
      world:worker("gate01", "S")
      local c = world:client "gate01"
      local answer = ask(c, "get_services")
      assert.same({ "get_services", "200" }, table.move(answer.frames, 6, 7, 1, {}))
      assert.same({ "S", "Gate" }, (mixed.outcome(answer)))
      assert.equal(200, ask(c, "query_service", { "S" }).status)
      assert.equal(404, ask(c, "query_service", { "T" }).status)
      assert.equal(501, ask(c, "query_service", {}).status)
      assert.equal(501, ask(c, "no_such_function").status)
      assert.equal(400, ask(c, "client_heartbeat", { "heartbeat" }).status)
      assert.equal(200, ask(c, "client_heartbeat", { msgpack.bin "heartbeat" }).status)
    end)

    it("answers gate02 with values", function()
      world:worker("gate01", "S", { payload = msgpack.pack { description = "what it is" } })
      local c = world:client "gate02"
      assert.equal("what it is", (mixed.outcome(ask(c, "query_service", { "S" }))))
      assert.equal("what it is", (mixed.outcome(ask(c, "query_service", {}, { service_name = "S" }))))
      assert.equal("200", (mixed.outcome(ask(c, "keepalive", { msgpack.bin "heartbeat" }))))
      assert.equal("400", (mixed.outcome(ask(c, "keepalive", { "heartbeat" }))))
      local info = mixed.outcome(ask(c, "info"))
      assert.same({ "S" }, info.services)
      assert.equal(16, #info.my_id)
      assert.equal("NOT_FOUND", select(2, mixed.outcome(ask(c, "no_such_function")))[1])
    end)

    it("tells RFC 7 clients whether a service is there", function()
      world:worker("mdp", "echo", { method = "call" })
      local c = world:client "mdp"
      for name, status in pairs { echo = "200", Nobody = "404" } do
        c:request { service = "mmi", method = "service", args = { name } }
        assert.same({ "mmi.service", status }, table.move(c:hear().frames, 3, 4, 1, {}))
      end
      c:request { service = "mmi", method = "other" }
      assert.equal("501", c:hear().frames[4])
    end)
  end)

  describe("credentials", function()
    local right = { mechanism = "PLAIN", user = "me", password = "secret" }

    before_each(function() world:secure { me = "secret" } end)

    local function with(credentials, fields)
      for name, value in pairs(credentials) do fields[name] = value end
      return fields
    end

    for _, dialect in ipairs { "gate01", "gate02" } do
      it("are asked of " .. dialect .. " clients, who hear it at once when they are wrong", function()
        world:worker("gate02", "S", with(right, {}))
        local c = world:client(dialect)
        for _, wrong in ipairs {
          {}, { mechanism = "NULL" }, { mechanism = "PLAIN", user = "me", password = "secreT" },
          { mechanism = "PLAIN", user = "you", password = "secret" },
          { mechanism = "PLAIN", user = "me", password = "" },
          { mechanism = "PLAIN", user = "", password = "" },
        } do
          c:request(with(wrong, {}))
          assert.equal("UNAUTHENTICATED", select(2, mixed.outcome(c:hear "REPLY"))[1])
        end
        assert.equal(6, world:stats().refused)
        c:request(with(right, {}))
        assert.equal(1, world:stats().calls)
      end)

      it("are asked of " .. dialect .. " workers with every message", function()
        local w = world:worker(dialect, "S")
        w:hear "BYE"
        assert.equal(0, world:stats().workers)
        w:say(with(right, { type = "READY", service = "S", credit = 1 }))
        assert.equal(1, world:stats().workers)
        w:say { type = "HEARTBEAT", mechanism = "PLAIN", user = "me", password = "wrong" }
        assert.equal(0, world:stats().workers)
      end)
    end

    it("are in no log line", function()
      local c = world:client "gate01"
      c:send("", "MDPC01", "S", c.id, "PLAIN", "me", "top-secret", ("a"):rep(32), "\xc1")
      assert.is_truthy(world.broker:fault():find "gate01")
      assert.is_nil(world.broker:fault():find "secret")
    end)
  end)

  describe("a malformed message", function()
    it("is dropped, counted and explained, and the next one is served", function()
      for _, dialect in ipairs { "gate01", "gate02" } do
        world = mixed.world()
        local w, c = world:worker(dialect, "S"), world:client(dialect)
        c:request {}
        w:answer(w:hear "REQUEST", "REPLY", 1)
        c:hear "REPLY"
        local id = dialect == "gate01" and { c.id, ("a"):rep(32) } or { ("\x40\x80"):rep(8) }
        local head = { "", "MDPC01", "S", table.unpack(id) }
        local wrong = {
          { "hello" }, { "", "MDPC01" }, { "", "MDPC01", "S" }, { "x", table.unpack(head, 2) }, head,
          { "", "MDPC02", table.unpack(head, 3) }, { table.unpack(head, 2) },
        }
        for _, rest in ipairs { { "\xc1" }, { "m" }, { "\xa1m", "\x90", "\x80", "\x01" } } do
          wrong[#wrong + 1] = table.move(rest, 1, #rest, #head + 1, { table.unpack(head) })
        end
        wrong[#wrong + 1] = { "", "MDPC01", "\xff\xfe", table.unpack(wrong[#wrong], 4) }
        for i, frames in ipairs(wrong) do
          c:send(table.unpack(frames))
          assert.equal(i, world:stats().malformed, dialect .. " " .. i)
          assert.is_truthy(world.broker:fault():find(dialect .. ": .+ from peer %x+"))
        end
        for _, params in ipairs { { "\x01" }, { "\xc1" }, { "\x90", "\x90" }, { "\x90", "\x81\x01\x02" } } do
          c:send(table.unpack(table.move({ "\xa1m", table.unpack(params) }, 1, 1 + #params, #head + 1,
            { table.unpack(head) })))
          assert.is_truthy(select(2, mixed.outcome(c:hear "REPLY"))) -- an error, at once
        end
        c:request {}
        w:answer(w:hear "REQUEST", "REPLY", 2)
        assert.equal(2, (mixed.outcome(c:hear "REPLY")))
      end
    end)
  end)
end)
