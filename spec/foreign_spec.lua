-- The worker's and the client's engine at a broker that speaks an older dialect: what the original's broker does to
-- them, by the recordings and by its faults.

local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"

local vectors = require "support.vectors"

local types = engine.types

local function outs(it, dialect, leg, id)
  return engine.outs(it, function(...)
    local envelope = assert(engine.parse_as(dialect, leg, id, ...))
    envelope.frames = { ... }
    return envelope
  end)
end

describe("a worker engine of", function()
  local w, id

  for _, dialect in ipairs { "gate01", "gate02" } do
    local beat = dialect == "gate01" and 3000 or 5000

    local function open(more)
      engine.at(1000)
      local options = { service = "S", about = msgpack.pack { description = "a: b" }, dialect = dialect, seed = 7 }
      for name, value in pairs(more or {}) do options[name] = value end
      w = assert(engine.worker(options))
      id = w:routing_id()
      w:connected()
    end

    local function said() return outs(w, dialect, "worker_to_broker", id) end
    local function happened() return types(engine.events(w)) end
    local function hear(envelope)
      w:receive(engine.build_as(dialect, "broker_to_worker", envelope))
    end
    local function request(number)
      hear { type = "REQUEST", route = number, seed = 5, method = "m", caller = "gc-1", payload = "\x90", split = 1 }
    end

    describe(dialect, function()
      before_each(function() open() end)

      it("greets with name, description and, if there is one, number", function()
        local ready = said()[1]
        assert.equal("READY", ready.type)
        local last = ready.frames[#ready.frames]
        assert.equal(dialect == "gate01" and "S:a; b" or "S:a; b:1024", last)
        if dialect == "gate01" then assert.equal(id, ready.frames[4]) end
      end)

      it("is registered when the broker speaks to it, for there is no other answer", function()
        assert.equal("", happened())
        hear { type = "HEARTBEAT" }
        assert.equal("UP", happened())
        open()
        request(1)
        assert.equal("UP REQUEST", happened())
      end)

      it("answers as the broker has named call and client, and takes calls in parallel", function()
        said()
        request(1)
        request(2)
        local events = engine.events(w)
        w:reply(events[3].route, engine.put_result "\5")
        w:reply(events[2].route, engine.put_result "\6")
        local answers = said()
        assert.same({ 2, 1 }, { (engine.read_tag(answers[1].tag)), (engine.read_tag(answers[2].tag)) })
        assert.equal("gc-1", answers[1].caller)
        assert.equal(engine.put_result "\5", answers[1].payload)
      end)

      it("beats as its broker wants it, also while it answers all the time", function()
        hear { type = "HEARTBEAT" }
        local beats = 0
        said()
        for ms = 1100, 21000, 100 do
          engine.at(ms)
          w:tick()
          request(ms)
          local events = engine.events(w)
          w:reply(events[#events].route, engine.put_result "\5")
          for _, each in ipairs(said()) do
            if each.type == "HEARTBEAT" then beats = beats + 1 end
          end
        end
        assert.equal(dialect == "gate01" and 6 or 0, beats) -- gate02 beats in answer only
        for _ = 1, 1000 do hear { type = "HEARTBEAT" } end -- a flood, as 0.1 makes it
        assert.equal(dialect == "gate01" and 0 or 1000, #said())
      end)

      it("comes back under a new id when the broker is silent", function()
        hear { type = "HEARTBEAT" }
        engine.events(w)
        engine.pass(w, 1000 + 3 * beat - 1)
        assert.is_false(w:take_reconnect())
        engine.pass(w, 1000 + 3 * beat)
        assert.equal("DOWN", happened())
        assert.is_true(w:take_reconnect())
        local before = id
        id = w:routing_id()
        assert.is_not.equal(before, id)
        said()
        w:connected()
        assert.equal("READY", types(said()))
      end)

      it("comes back when it was dismissed, and not at once when it was never welcome", function()
        for _, step in ipairs { { up = true, rest = 100 }, { up = false, rest = 1000 } } do
          open()
          said()
          if step.up then hear { type = "HEARTBEAT" } end
          hear { type = "BYE" }
          assert.equal(1000 + step.rest, w:next_due())
          engine.at(1000 + step.rest)
          w:tick()
          assert.is_true(w:take_reconnect())
          w:connected()
          local list = said()
          assert.equal("READY", list[#list].type)
        end
      end)

      it("streams item by item, and waits while much waits to be sent", function()
        said()
        request(1)
        local route = engine.events(w)[2].route
        local sent = 0
        while sent < 1000 and w:item(route, "\1") do sent = sent + 1 end
        assert.equal(255, sent)
        assert.equal("", happened())
        for _ = 1, 200 do w:next_out() end
        assert.equal("CREDIT", happened())
        w:finish(route)
        local list = said()
        assert.equal("END", list[#list].type)
      end)

      it("says an error in mid-stream if there is a word for it", function()
        said()
        request(1)
        local route = engine.events(w)[2].route
        w:item(route, "\1")
        w:error(route, "INTERNAL", engine.put_exception("E", "m", "t"))
        local list = said()
        assert.equal(dialect == "gate01" and "ITEM END" or "ITEM ERROR", types(list))
      end)

      it("sends pieces of bulk, in the one codec that the original reads, and their end", function()
        request(1)
        local route = engine.events(w)[2].route
        assert.same({ nil, "INVALID_ARGUMENT" }, { w:chunk(route, "zstd", false, "x") })
        assert.same({ nil, "INVALID_ARGUMENT" }, { w:chunk(route, "gzip", true, "x") })
        said()
        assert.is_true(w:chunk(route, "gzip", false, "one"))
        assert.is_true(w:chunk(route, "gzip", false, "two"))
        w:finish(route, "digest")
        local list = said()
        assert.equal("CHUNK CHUNK END", types(list))
        assert.equal("onetwo", list[1].payload .. list[2].payload)
        assert.is_true(list[3].bulk)
      end)

      local function heard_failure(list)
        if dialect == "gate02" then
          assert.equal("CHUNK ERROR", types(list))
          return { engine.exception_of(list[2].payload) }
        end
        assert.equal("CHUNK CHUNK CHUNK END", types(list))
        assert.equal("HugeDataException", list[2].payload)
        return msgpack.unpack(list[3].payload)
      end

      it("says why bulk fails, whoever ends it", function()
        open { idle_ms = 10000 }
        request(1)
        request(2)
        local events = engine.events(w)
        said()
        w:chunk(events[2].route, "gzip", false, "x")
        w:error(events[2].route, "INTERNAL", engine.put_exception("E", "m", "t"))
        assert.same({ "E", "m", "t" }, heard_failure(said()))
        w:chunk(events[3].route, "gzip", false, "x")
        engine.at(12000)
        hear { type = "HEARTBEAT" }
        w:tick()
        local list = said()
        if list[#list].type == "HEARTBEAT" then list[#list] = nil end
        if list[2].type == "HEARTBEAT" then table.remove(list, 2) end
        assert.equal("DEADLINE_EXCEEDED", heard_failure(list)[1])
      end)

      it("sends no answer that the other side cannot read", function()
        request(1)
        local route = engine.events(w)[2].route
        local bad = dialect == "gate01" and "\x81\x05\x01" or "\x81\x90\x01"
        assert.same({ nil, "INVALID_ARGUMENT" }, { w:reply(route, engine.put_result(bad)) })
        assert.is_true(w:reply(route, engine.put_result "\1")) -- the call is still open
      end)

      it("drains: new requests are refused, running ones answered, then it says good-bye", function()
        said()
        request(1)
        local route = engine.events(w)[2].route
        w:drain()
        request(2)
        local list = said()
        assert.equal("REPLY", types(list))
        assert.equal("UNAVAILABLE", (engine.exception_of(list[1].payload)))
        w:reply(route, engine.put_result "\1")
        assert.equal("DRAINED", happened())
        w:leave()
        assert.equal("REPLY BYE", types(said()))
      end)

      it("sends its credentials in every message", function()
        open { mechanism = "PLAIN", user = "me", password = "secret" }
        request(1)
        w:reply(engine.events(w)[2].route, engine.put_result "\1")
        w:leave()
        for _, each in ipairs(said()) do
          assert.same({ "PLAIN", "me", "secret" }, { each.mechanism, each.user, each.password })
        end
      end)
    end)
  end

  it("RFC 7 serves its one method under the service's name and its own", function()
    engine.at(1000)
    w = assert(engine.worker { service = "Math", method = "add", dialect = "mdp" })
    w:routing_id()
    w:connected()
    assert.same({ "", "MDPW01", "\1", "Math.add" }, { w:next_out() })
    w:receive("", "MDPW01", "\2", "client", "", "1", "2")
    local events = engine.events(w)
    assert.equal("add", events[2].method)
    assert.same({ "1", "2" }, (msgpack.unpack(events[2].payload)))
    w:reply(events[2].route, engine.put_result(msgpack.pack "3"))
    assert.same({ "", "MDPW01", "\3", "client", "", "3" }, { w:next_out() })
  end)
end)

describe("a client engine of", function()
  local c, id

  for _, dialect in ipairs { "gate01", "gate02" } do
    local function said() return outs(c, dialect, "client_to_broker", id) end
    local function hear(envelope)
      envelope.service, envelope.caller = envelope.service or "S", id
      c:receive(engine.build_as(dialect, "broker_to_client", envelope))
    end
    local function call()
      local number = assert(c:call { service = "S", method = "m", payload = "\x90", split = 1, timeout_ms = 60000 })
      local list = said()
      return number, list[#list].tag
    end

    describe(dialect, function()
      before_each(function()
        engine.at(1000)
        c = assert(engine.client { dialect = dialect, seed = 7 })
        id = c:routing_id()
        c:connected()
      end)

      it("asks for the services first, and is up with the answer", function()
        local first = said()[1]
        assert.same({ "Gate", "get_services" }, { first.service, first.method })
        hear { type = "REPLY", service = "Gate", method = "get_services", tag = first.tag,
          payload = engine.put_result "\x90" }
        assert.equal("UP", types(engine.events(c)))
        assert.equal(0, c:stats().late)
      end)

      it("beats with a call to the broker whether it talks or not, as far as that needs it", function()
        said()
        engine.at(1000 + (dialect == "gate01" and 3000 or 5000))
        c:tick()
        local beat = said()[1]
        assert.equal(dialect == "gate01" and "client_heartbeat" or "keepalive", beat.method)
        assert.equal("\x91\xc4\x09heartbeat", beat.payload)
      end)

      it("gets results, errors and streams", function()
        local _, tag = call()
        hear { type = "REPLY", tag = tag, payload = engine.put_result "\5" }
        _, tag = call()
        hear { type = "ITEM", tag = tag, payload = "\1" }
        hear { type = "ITEM", tag = tag, payload = "\2" }
        hear { type = "END", tag = tag }
        assert.equal("UP REPLY ITEM ITEM END", types(engine.events(c)))
        if dialect == "gate01" then return end
        _, tag = call()
        hear { type = "ITEM", tag = tag, payload = "\1" }
        hear { type = "ERROR", in_stream = true, tag = tag, payload = engine.put_exception("E", "m", "t") }
        local events = engine.events(c)
        assert.equal("ITEM FAILED", types(events))
        assert.same({ "E", "m", "t" }, { engine.exception_of(events[2].payload) })
      end)

      it("gets bulk, and why it fails", function()
        local _, tag = call()
        hear { type = "CHUNK", tag = tag, payload = "one" }
        hear { type = "CHUNK", tag = tag, payload = "" } -- gate02 sends one before the end
        hear { type = "END", tag = tag, bulk = true }
        assert.equal("UP CHUNK END", types(engine.events(c)))
        _, tag = call()
        hear { type = "CHUNK", tag = tag, payload = "one" }
        if dialect == "gate01" then
          hear { type = "CHUNK", tag = tag, payload = "HugeDataException" }
          hear { type = "CHUNK", tag = tag, payload = msgpack.pack { "E", "m", "t" } }
          hear { type = "END", tag = tag, bulk = true }
          assert.equal(1, c:stats().late) -- the end
        else
          local payload = engine.put_exception("E", "m", "t")
          hear { type = "ERROR", tag = tag, in_stream = true, bulk = true, payload = payload }
        end
        local events = engine.events(c)
        assert.equal("CHUNK FAILED", types(events))
        assert.equal("INTERNAL", events[2].code)
        assert.same({ "E", "m", "t" }, { engine.exception_of(events[2].payload) })
      end)

      it("ignores answers to calls that are over, of others, and of an earlier client", function()
        local number, tag = call()
        hear { type = "REPLY", tag = tag, payload = engine.put_result "\5" }
        hear { type = "REPLY", tag = tag, payload = engine.put_result "\6" }
        call()
        hear { type = "REPLY", tag = engine.tag(number + 1, 8), payload = engine.put_result "\6" }
        hear { type = "REPLY", tag = ("x"):rep(16), payload = engine.put_result "\6" }
        assert.equal("UP REPLY", types(engine.events(c)))
        assert.equal(3, c:stats().late)
      end)

      it("ends a stream that is not read, because it cannot slow it down", function()
        local _, tag = call()
        for _ = 1, (1 << 16) + 1 do hear { type = "ITEM", tag = tag, payload = "\1" } end
        local events = engine.events(c)
        assert.equal("RESOURCE_EXHAUSTED", engine.code(-events[#events].status & 0xffff))
      end)
    end)
  end

  it("RFC 7 has one call under way, and takes no late answer for the next one's", function()
    engine.at(1000)
    c = assert(engine.client { dialect = "mdp" })
    c:connected()
    assert.equal("UP", types(engine.events(c)))
    for i = 1, 3 do
      local timeout_ms = i == 2 and 500 or 0
      c:call { service = "S", method = "m", payload = "\x91" .. string.char(i), split = 2, timeout_ms = timeout_ms }
    end
    assert.same({ "", "MDPC01", "S.m", "1" }, { c:next_out() })
    assert.is_nil(c:next_out())
    c:receive("", "MDPC01", "S.m", "one")
    assert.same({ "", "MDPC01", "S.m", "2" }, { c:next_out() })
    engine.at(1500)
    c:tick()
    assert.is_true(c:take_reconnect())
    assert.is_nil(c:next_out())
    c:receive("", "MDPC01", "S.m", "late two")
    c:disconnected()
    c:connected()
    assert.same({ "", "MDPC01", "S.m", "3" }, { c:next_out() })
    c:receive("", "MDPC01", "S.m", "three")
    local events = engine.events(c)
    assert.equal("REPLY FAILED DOWN UP REPLY", types(events))
    local result = engine.get_result(events[5].payload)
    assert.equal("three", (msgpack.unpack(result)))
  end)
end)

describe("what the original's programs were told to see them break", function()
  for version, dialect in pairs { ["0.1.10"] = "gate01", ["0.2.12"] = "gate02" } do
    it("does nothing to a client engine: " .. version, function()
      engine.at(1000)
      local c = assert(engine.client { dialect = dialect, seed = 7 })
      local id = c:routing_id()
      c:connected()
      local mine, answers = nil, 0
      for _, message in ipairs(vectors.read(version .. "-client-robustness")) do
        if message.leg == "client_to_broker" then -- the real client called: so do we
          c:call { service = "GateRPC", method = "echo", payload = "\x90", split = 1 }
          local list = outs(c, dialect, "client_to_broker", id)
          mine = list[#list].tag
        else
          local frames = message.frames
          local at = dialect == "gate01" and 5 or 4
          if frames[at] and #frames[at] == #mine then frames[at] = mine end
          c:receive(table.unpack(frames))
          for _, event in ipairs(engine.events(c)) do
            if event.type == "REPLY" then answers = answers + 1 end
          end
        end
      end
      assert.is_true(answers > 10)
    end)

    it("does nothing to a worker engine: " .. version, function()
      engine.at(1000)
      local w = assert(engine.worker { service = "GateRPC", dialect = dialect, seed = 7 })
      w:routing_id()
      w:connected()
      local requests = 0
      for _, message in ipairs(vectors.read(version .. "-worker-robustness")) do
        if message.leg == "broker_to_worker" and message.frames[3] ~= "\5" then
          w:receive(table.unpack(message.frames))
          for _, event in ipairs(engine.events(w)) do
            if event.type == "REQUEST" then requests = requests + 1 end
          end
        end
      end
      assert.is_true(requests >= 4)
      w:receive(engine.build_as(dialect, "broker_to_worker", {
        type = "REQUEST", route = 1, seed = 2, method = "m", caller = "c", payload = "\x90", split = 1 }))
      assert.equal("REQUEST", types(engine.events(w)))
    end)
  end
end)
