local engine = require "support.engine"
local uv = require "luv"

local DRAIN = 2 -- a flag of BYE

local c

---The broker says something to the client.
local function hear(envelope)
  c:receive(engine.build(envelope))
end

---What the client has said since the last time: the types, then the messages.
local function said()
  local outs = engine.outs(c)
  return engine.types(outs), outs
end

---What happened since the last time, likewise.
local function happened()
  local events = engine.events(c)
  return engine.types(events), events
end

---A client at 0 ms, not connected.
local function make(options)
  engine.at(0)
  c = assert(engine.client(options))
  return c
end

---A client whose HELLO the broker has answered; hello: fields of the broker's.
local function start(options, hello)
  make(options)
  c:connected()
  local welcome = { type = "HELLO", route = 1, deadline_ms = 3000, window = 3 }
  for name, value in pairs(hello or {}) do welcome[name] = value end
  hear(welcome)
  assert.equal("HELLO", (said()))
  assert.equal("UP", (happened()))
  return c
end

local function call(more)
  local request = { service = "S", method = "run" }
  for name, value in pairs(more or {}) do request[name] = value end
  return c:call(request)
end

local function tick(ms) engine.pass(c, ms) end

---The one event that there is, a FAILED of this call.
local function assert_failed(code, id, text)
  local types, events = happened()
  assert.equal("FAILED", types)
  assert.same({ code, id }, { events[1].code, events[1].id })
  if text then assert.is_truthy(events[1].text:find(text, 1, true)) end
end

before_each(function() start() end)

describe("client, connection", function()
  it("says HELLO when it is connected, and how it beats", function()
    make { heartbeat_ms = 500, liveness = 4 }
    assert.equal("", (said()))
    c:connected()
    local types, outs = said()
    assert.equal("HELLO", types)
    assert.same({ 500, 4 }, { outs[1].deadline_ms, outs[1].window })
    c:connected()
    assert.equal("", (said()))
  end)

  it("beats every 3 s and lets 3 be missed when nothing else is said", function()
    make()
    c:connected()
    local outs = select(2, said())
    assert.same({ 3000, 3 }, { outs[1].deadline_ms, outs[1].window })
  end)

  it("promises no beats inside the broker's process", function()
    make { ["local"] = true, heartbeat_ms = 500 }
    c:connected()
    local outs = select(2, said())
    assert.same({ 0, 0 }, { outs[1].deadline_ms, outs[1].window })
    hear { type = "HELLO", deadline_ms = 100, window = 1 }
    assert.is_nil(c:next_due())
    tick(1000000)
    assert.equal("", (said()))
    assert.is_true(c:is_up())
  end)

  it("is up when the broker answers, which is an event once", function()
    make()
    assert.is_false(c:is_up())
    c:connected()
    assert.is_false(c:is_up())
    hear { type = "HELLO", route = 1 }
    hear { type = "HELLO", route = 1 }
    assert.is_true(c:is_up())
    assert.equal("UP", (happened()))
    c:disconnected()
    assert.is_false(c:is_up())
    assert.equal("DOWN", (happened()))
    c:disconnected()
    assert.equal("", (happened()))
  end)

  it("is not made by what comes while there is none", function()
    c:disconnected()
    happened()
    hear { type = "HELLO", route = 1 }
    assert.is_false(c:is_up())
    assert.equal("", (happened()))
    local id = call()
    c:connected()
    assert.equal("HELLO REQUEST", (said()))
    hear { type = "REPLY", id = id }
    assert.equal("REPLY", (happened()))
  end)

  it("takes the calls with it that were sent", function()
    local id = call()
    said()
    c:disconnected()
    local types, events = happened()
    assert.equal("DOWN FAILED", types)
    assert.same({ "UNAVAILABLE", id }, { events[2].code, events[2].id })
    assert.equal("", (said()))
    c:connected()
    assert.equal("HELLO", (said()))
    hear { type = "REPLY", id = id }
    assert.equal("", (happened()))
    assert.equal(1, c:stats().late)
  end)

  it("forgets what was not sent when it ends", function()
    call()
    c:disconnected()
    assert.equal("", (said()))
  end)

  it("fails what was sent before the broker answered, too", function()
    make()
    c:connected()
    local id = call()
    assert.equal("HELLO REQUEST", (said()))
    c:disconnected()
    assert_failed("UNAVAILABLE", id)
  end)
end)

describe("client, calls", function()
  it("have numbers of their own and carry what was asked", function()
    local first = call { service = "Math", method = "add", payload = "args", split = 3, timeout_ms = 500,
      credit = 8, window = 9 }
    local second = call()
    assert.is_true(first > 0 and second > first)
    local types, outs = said()
    assert.equal("REQUEST REQUEST", types)
    local request = outs[1]
    assert.same({ first, "Math", "add", "args", 3, 500, 8, 9 }, { request.id, request.service, request.method,
      request.payload, request.split, request.deadline_ms, request.credit, request.window })
    assert.same({ second, 0, 1, 1 }, { outs[2].id, outs[2].deadline_ms, outs[2].credit, outs[2].window })
    assert.same({ 2, 2 }, { c:stats().calls, c:stats().open })
  end)

  it("give a large payload a frame of its own", function()
    call { payload = ("x"):rep(20000) }
    local head, rest = c:next_out()
    assert.equal(48 + 4, #head)
    assert.equal(("x"):rep(20000), rest)
  end)

  it("end with the reply, once", function()
    local id = call()
    hear { type = "REPLY", id = id, status = 201, payload = "result" }
    local types, events = happened()
    assert.equal("REPLY", types)
    assert.same({ id, 201, "result" }, { events[1].id, events[1].status, events[1].payload })
    for i, type in ipairs { "REPLY", "ERROR", "END", "ITEM" } do
      hear { type = type, id = id }
      assert.equal(i, c:stats().late)
    end
    assert.equal("", (happened()))
    assert.equal(0, c:stats().open)
  end)

  it("end with the error that came", function()
    local id = call()
    local payload = engine.put_exception("E", "text", "trace")
    hear { type = "ERROR", id = id, status = 10, payload = payload }
    local types, events = happened()
    assert.equal("FAILED", types)
    assert.same({ id, "WORKER_LOST", payload }, { events[1].id, events[1].code, events[1].payload })
    assert.equal(0, c:stats().open)
  end)

  it("are refused with a bad name, and beyond their number", function()
    assert.same({ nil, "INVALID_ARGUMENT" }, { call { service = "" } })
    assert.same({ nil, "INVALID_ARGUMENT" }, { call { method = "a b" } })
    start { max_calls = 2 }
    local first = call()
    call()
    assert.same({ nil, "RESOURCE_EXHAUSTED" }, { call() })
    assert.same({ 2, 2 }, { c:stats().calls, c:stats().open })
    hear { type = "REPLY", id = first }
    assert.is_number((call()))
    assert.equal("REQUEST REQUEST REQUEST", (said()))
  end)

  it("fail exactly when their time is up, and the worker is told", function()
    local slow, none, quick = call { timeout_ms = 500 }, call(), call { timeout_ms = 400 }
    said()
    assert.equal(400, c:next_due())
    tick(399)
    assert.equal("", (happened()))
    tick(400)
    assert_failed("DEADLINE_EXCEEDED", quick)
    local types, outs = said()
    assert.equal("CANCEL", types)
    assert.equal(quick, outs[1].id)
    assert.equal(500, c:next_due())
    tick(500)
    assert_failed("DEADLINE_EXCEEDED", slow)
    hear { type = "REPLY", id = slow }
    assert.equal("", (happened()))
    assert.equal(1, c:stats().late)
    hear { type = "REPLY", id = none }
    assert.equal("REPLY", (happened()))
  end)

  it("that were answered have no deadline any more", function()
    local id = call { timeout_ms = 500 }
    hear { type = "REPLY", id = id }
    happened()
    assert.equal(3000, c:next_due())
    tick(500)
    assert.equal("", (happened()))
  end)

  it("may be given up: the worker is told and no event comes", function()
    local id = call { timeout_ms = 500 }
    said()
    c:cancel(id)
    c:cancel(id)
    local types, outs = said()
    assert.equal("CANCEL", types)
    assert.equal(id, outs[1].id)
    tick(500)
    hear { type = "REPLY", id = id }
    c:disconnected()
    assert.equal("DOWN", (happened()))
    assert.same({ 0, 1 }, { c:stats().open, c:stats().late })
    assert.same({ nil, "NOT_FOUND" }, { c:credit(id, 1, 1) })
  end)

  it("keep the client busy, and so do events", function()
    assert.is_false(c:is_busy())
    local id = call()
    assert.is_true(c:is_busy())
    hear { type = "REPLY", id = id }
    assert.is_true(c:is_busy())
    assert.equal(1, c:events())
    happened()
    assert.equal(0, c:events())
    assert.is_false(c:is_busy())
  end)

  it("may be many at once, answered in any order", function()
    local open = {}
    for i = 1, 1000 do open[i] = call { timeout_ms = 1000 + i } end
    for i = 1, 1000 do
      local k = i * 7919 % 1000 + 1
      hear { type = "REPLY", id = open[k], payload = tostring(k) }
    end
    local _, events = happened()
    assert.equal(1000, #events)
    for i, event in ipairs(events) do
      local k = i * 7919 % 1000 + 1
      assert.same({ open[k], tostring(k) }, { event.id, event.payload })
    end
    assert.equal(0, c:stats().open)
    assert.equal(3000, c:next_due())
  end)
end)

describe("client, without a broker", function()
  before_each(function() make { connect_timeout_ms = 1000 } end)

  it("holds requests back, in order, until it is connected", function()
    local ids = { call { payload = "a" }, call { payload = "b" }, call { payload = "c" } }
    assert.equal("", (said()))
    c:connected()
    local types, outs = said()
    assert.equal("HELLO REQUEST REQUEST REQUEST", types)
    for i, id in ipairs(ids) do assert.equal(id, outs[i + 1].id) end
    hear { type = "REPLY", id = ids[2] }
    assert.equal(ids[2], select(2, happened())[1].id)
  end)

  it("does not send what was given up or timed out meanwhile", function()
    local kept, given_up, late = call(), call(), call { timeout_ms = 500 }
    c:cancel(given_up)
    tick(500)
    assert_failed("DEADLINE_EXCEEDED", late)
    assert.equal("", (said()))
    c:connected()
    local types, outs = said()
    assert.equal("HELLO REQUEST", types)
    assert.equal(kept, outs[2].id)
  end)

  it("sends the credit of a held request behind it", function()
    local id = call()
    assert.is_true(c:credit(id, 5, 6))
    assert.equal("", (said()))
    c:connected()
    local types, outs = said()
    assert.equal("HELLO REQUEST CREDIT", types)
    assert.same({ id, 5, 6 }, { outs[3].id, outs[3].credit, outs[3].window })
  end)

  it("fails calls when nobody answers in time", function()
    engine.at(300)
    local first = call()
    engine.at(900)
    local second = call()
    assert.equal(1300, c:next_due())
    tick(1299)
    assert.equal("", (happened()))
    tick(1300)
    local types, events = happened()
    assert.equal("FAILED FAILED", types)
    assert.equal(first + second, events[1].id + events[2].id)
    assert.same({ "UNAVAILABLE", "no broker answers there" }, { events[1].code, events[1].text })
    assert.is_nil(c:next_due())
    engine.at(5000)
    local third = call() -- has its own time
    tick(5999)
    assert.equal("", (happened()))
    tick(6000)
    assert_failed("UNAVAILABLE", third)
    c:connected()
    assert.equal("HELLO", (said()))
  end)

  it("waits 5 s for one when nothing else is said", function()
    make()
    local id = call()
    tick(4999)
    assert.equal("", (happened()))
    tick(5000)
    assert_failed("UNAVAILABLE", id)
  end)

  it("fails calls when somebody is there, but says nothing; a broker is told to forget them", function()
    local id = call()
    engine.at(500)
    c:connected()
    said()
    tick(1000)
    assert_failed("UNAVAILABLE", id, "no broker answers")
    local types, outs = said()
    assert.equal("CANCEL", types)
    assert.equal(id, outs[1].id)
    hear { type = "HELLO", route = 1 }
    assert.equal("UP", (happened()))
  end)

  it("lets calls live that a broker answered, however long they take", function()
    local id = call()
    c:connected()
    hear { type = "HELLO", route = 1, deadline_ms = 0 }
    happened()
    tick(1000000)
    assert.equal("", (happened()))
    hear { type = "REPLY", id = id }
    assert.equal("REPLY", (happened()))
  end)

  it("has as much time again when the broker was there and has gone", function()
    start({ connect_timeout_ms = 1000 })
    local sent = call()
    engine.at(5000)
    c:disconnected()
    local held = call()
    local _, events = happened()
    assert.equal(sent, events[2].id)
    tick(5999)
    assert.equal("", (happened()))
    tick(6000)
    assert_failed("UNAVAILABLE", held)
  end)

  it("counts the time from when the broker went, also when it never quite came back", function()
    start({ connect_timeout_ms = 1000 })
    engine.at(5000)
    c:disconnected()
    engine.at(5100)
    local held = call()
    engine.at(5200)
    c:connected()
    engine.at(5300)
    c:disconnected() -- the call had been sent
    local types, events = happened()
    assert.equal("DOWN FAILED", types)
    assert.equal(held, events[2].id)
    local next_one = call()
    tick(6299)
    assert.equal("", (happened()))
    tick(6300)
    assert_failed("UNAVAILABLE", next_one)
  end)

  it("does not keep requests in memory whose calls have failed", function()
    local before = uv.resident_set_memory()
    for round = 1, 700 do -- address sanitizer keeps 256 MiB of what was freed
      call { payload = ("x"):rep(1 << 20) }
      tick(round * 1000)
      assert.equal("FAILED", (happened()))
    end
    assert.is_true(uv.resident_set_memory() - before < 450 << 20)
  end)

  it("holds as many calls as it may have, and no more", function()
    make { max_calls = 2 }
    call()
    call()
    assert.same({ nil, "RESOURCE_EXHAUSTED" }, { call() })
  end)
end)

describe("client, a broker that was started anew", function()
  it("has forgotten what was sent to the old one", function()
    local id = call()
    happened()
    hear { type = "HELLO", route = 1 }
    assert.equal("", (happened()))
    hear { type = "HELLO", route = 2 }
    assert_failed("UNAVAILABLE", id, "anew")
    assert.is_true(c:is_up())
    local again = call()
    hear { type = "HELLO", route = 2 }
    assert.equal("", (happened()))
    hear { type = "REPLY", id = again }
    assert.equal("REPLY", (happened()))
  end)

  it("is greeted again when it says that it does not know us", function()
    local id = call()
    said()
    hear { type = "BYE" }
    local types, events = happened()
    assert.equal("DOWN FAILED", types)
    assert.same({ "UNAVAILABLE", id }, { events[2].code, events[2].id })
    assert.equal("HELLO", (said()))
    local again = call()
    assert.equal("REQUEST", (said()))
    hear { type = "HELLO", route = 2 }
    assert.equal("UP", (happened()))
    hear { type = "REPLY", id = again }
    assert.equal("REPLY", (happened()))
  end)

  it("may say so twice without harm to calls made in between", function()
    hear { type = "BYE" }
    local id = call()
    hear { type = "BYE" } -- for what we said before our HELLO
    assert.equal("DOWN", (happened()))
    assert.equal("HELLO REQUEST", (said()))
    hear { type = "HELLO", route = 2 }
    hear { type = "REPLY", id = id }
    assert.equal("UP REPLY", (happened()))
  end)

  it("is greeted again when it answers our beats with BYE: it has not heard the HELLO", function()
    hear { type = "BYE" }
    local id = call()
    said()
    happened()
    for beat = 1, 3 do
      tick(3000 * beat)
      assert.equal("HEARTBEAT", (said()))
      hear { type = "BYE" }
      assert.equal("HELLO", (said()))
      if beat == 1 then assert_failed("UNAVAILABLE", id) end
    end
    hear { type = "HELLO", route = 2 }
    assert.equal("UP", (happened()))
  end)

  it("is not what a broker is that shuts down: running calls will be answered", function()
    local id = call()
    hear { type = "BYE", flags = DRAIN }
    assert.equal("", (happened()))
    hear { type = "REPLY", id = id }
    assert.equal("REPLY", (happened()))
  end)
end)

describe("client, streams", function()
  local id

  local function open(more)
    id = call(more or { credit = 3, window = 100 })
    said()
  end

  local function item(seq, count, payload)
    hear { type = "ITEM", id = id, split = seq, count = count, payload = payload or "" }
  end

  it("come as events, the end last", function()
    open()
    item(0, 1, "a")
    item(1, 2, "bc")
    assert.is_true(c:credit(id, 2, 50))
    hear { type = "END", id = id, split = 3, count = 1, payload = "d" }
    local types, events = happened()
    assert.equal("ITEM ITEM END", types)
    for i, expected in ipairs { { 1, "a" }, { 2, "bc" }, { 1, "d" } } do
      assert.same(expected, { events[i].count, events[i].payload })
      assert.equal(id, events[i].id)
    end
    local credit = select(2, said())[1]
    assert.same({ "CREDIT", id, 2, 50 }, { credit.type, credit.id, credit.credit, credit.window })
    assert.equal(0, c:stats().open)
    assert.same({ nil, "NOT_FOUND" }, { c:credit(id, 1, 1) })
    item(4, 1)
    assert.equal(1, c:stats().late)
  end)

  it("may be empty", function()
    open()
    hear { type = "END", id = id }
    assert.equal("END", (happened()))
  end)

  it("may end with an error or a reply", function()
    open()
    item(0, 1)
    hear { type = "ERROR", id = id, status = 9, payload = engine.put_exception("E", "m", "") }
    assert.equal("ITEM FAILED", (happened()))
    open()
    item(0, 1)
    hear { type = "REPLY", id = id }
    assert.equal("ITEM REPLY", (happened()))
  end)

  for what, seq in pairs { missing = 2, repeated = 0 } do
    for _, type in ipairs { "ITEM", "END" } do
      it(("fail when an item is %s before an %s, and the worker is told"):format(what, type), function()
        open()
        item(0, 1)
        happened()
        hear { type = type, id = id, split = seq, count = 1 }
        assert_failed("DATA_LOSS", id, "missing")
        local types, outs = said()
        assert.equal("CANCEL", types)
        assert.equal(id, outs[1].id)
        item(1, 1)
        assert.equal("", (happened()))
        assert.same({ 0, 1 }, { c:stats().open, c:stats().late })
      end)
    end
  end

  it("fail when more items come than were asked for", function()
    open()
    item(0, 3)
    assert.equal("ITEM", (happened()))
    item(3, 1)
    assert_failed("DATA_LOSS", id, "more items")
    assert.equal("CANCEL", (said()))
    open()
    item(0, 4)
    assert_failed("DATA_LOSS", id)
    open()
    c:credit(id, 1, 0)
    item(0, 4)
    assert.equal("ITEM", (happened()))
    hear { type = "END", id = id, split = 4, count = 1 }
    assert_failed("DATA_LOSS", id)
    open {}
    item(0, 1)
    item(1, 1)
    assert.equal("ITEM FAILED", (happened()))
  end)

  it("have no deadline once they have begun", function()
    open { credit = 3, timeout_ms = 500 }
    engine.at(400)
    item(0, 1)
    tick(500)
    tick(2000)
    assert.equal("ITEM", (happened()))
    hear { type = "END", id = id, split = 1 }
    assert.equal("END", (happened()))
  end)

  it("have a deadline until they have begun", function()
    open { credit = 3, timeout_ms = 500 }
    tick(500)
    assert_failed("DEADLINE_EXCEEDED", id)
  end)

  it("are given up like calls", function()
    open()
    item(0, 1)
    happened()
    c:cancel(id)
    assert.equal("CANCEL", (said()))
    item(1, 1)
    assert.equal("", (happened()))
  end)

  it("fail with the connection", function()
    open()
    item(0, 1)
    c:disconnected()
    assert.equal("ITEM DOWN FAILED", (happened()))
  end)
end)

describe("client, heartbeats", function()
  it("are sent when nothing else was", function()
    start { heartbeat_ms = 1000 }
    tick(999)
    assert.equal("", (said()))
    assert.equal(1000, c:next_due())
    tick(1000)
    assert.equal("HEARTBEAT", (said()))
    engine.at(1500)
    call()
    tick(2000)
    assert.equal("REQUEST", (said()))
    tick(2500)
    assert.equal("HEARTBEAT", (said()))
  end)

  it("are expected as often as the broker says, whatever our own are", function()
    start({ heartbeat_ms = 60000 }, { deadline_ms = 200, window = 2 })
    local id = call()
    said()
    assert.equal(400, c:next_due())
    tick(399)
    assert.is_true(c:is_up())
    hear { type = "HEARTBEAT" }
    tick(798)
    assert.is_true(c:is_up())
    tick(799)
    assert.is_false(c:is_up())
    local types, events = happened()
    assert.equal("DOWN FAILED", types)
    assert.same({ "UNAVAILABLE", id }, { events[2].code, events[2].id })
    assert.equal("", (said()))
    assert.is_true(c:take_reconnect())
    assert.is_false(c:take_reconnect())
    assert.is_nil(c:next_due())
    c:disconnected()
    c:connected()
    assert.equal("HELLO", (said()))
  end)

  it("are not missed in a time in which we did not run ourselves, which may happen three times", function()
    engine.check_absences(start)
  end)

  it("are expected as often as our own until the broker has answered", function()
    make { heartbeat_ms = 1000, liveness = 2 }
    engine.at(5000)
    c:connected()
    tick(6999)
    assert.is_false(c:take_reconnect())
    tick(7000)
    assert.is_true(c:take_reconnect())
    assert.equal("", (happened()))
  end)

  it("may be any message, even one that cannot be read", function()
    start(nil, { deadline_ms = 200, window = 2 })
    local says = {
      function() hear { type = "HEARTBEAT" } end, function() c:receive("garbage") end,
      function() hear { type = "REPLY", id = 7 } end, function() hear { type = "BYE", flags = DRAIN } end,
      function() hear { type = "CHUNK" } end,
    }
    for i, say in ipairs(says) do
      tick(i * 399)
      say()
    end
    tick((#says + 1) * 399)
    assert.is_true(c:is_up())
  end)

  it("are not expected from a broker that never beats", function()
    start(nil, { deadline_ms = 0 })
    tick(1000000000)
    assert.is_true(c:is_up())
  end)

  it("are not sent without a connection", function()
    c:disconnected()
    assert.is_nil(c:next_due())
    tick(100000)
    assert.equal("", (said()))
    assert.is_false(c:take_reconnect())
  end)
end)

describe("client, the end", function()
  it("says good-bye when there is a connection", function()
    c:leave()
    local types, outs = said()
    assert.equal("BYE", types)
    assert.equal(0, outs[1].flags)
    make()
    c:leave()
    assert.equal("", (said()))
  end)

  it("leaves nothing behind", function() -- for the sanitizers
    make()
    for i = 1, 100 do call { timeout_ms = i, payload = ("x"):rep(20000) } end
    tick(50)
    c:connected()
    for i = 1, 100 do call { timeout_ms = i, payload = ("x"):rep(20000) } end
    hear { type = "REPLY", id = 150, payload = ("y"):rep(20000) }
    c:close()
    assert.has_error(function() c:tick() end)
  end)
end)

describe("client, what makes no sense", function()
  it("is counted and dropped", function()
    for i, frames in ipairs { { "" }, { "garbage" }, { "a", "b", "c" }, {} } do
      c:receive(table.unpack(frames))
      assert.equal(i, c:stats().malformed)
    end
    assert.equal("", (happened()))
    assert.equal("", (said()))
  end)

  it("is ignored when it is a message for somebody else, or for nobody", function()
    for type in ("READY REQUEST CREDIT CANCEL CHUNK HEARTBEAT"):gmatch "%u+" do hear { type = type } end
    hear { type = "ERROR", id = 99, status = 6, payload = engine.put_exception("E", "", "") }
    assert.equal("", (happened()))
    assert.equal("", (said()))
    assert.same({ 0, 2 }, { c:stats().malformed, c:stats().late })
  end)
end)

describe("client, refused", function()
  it("fails all calls that wait for a connection at once, and says why", function()
    make()
    local first, second = call(), call { timeout_ms = 1000 }
    c:refused "UNAUTHENTICATED"
    local types, events = happened()
    assert.equal("FAILED FAILED", types)
    local ids = {}
    for i, event in ipairs(events) do
      ids[i] = event.id
      assert.same({ "UNAUTHENTICATED", "says no", true }, { event.code, event.text, event.refused })
    end
    table.sort(ids)
    assert.same({ first, second }, ids)
    assert.equal(0, c:stats().open)
  end)

  it("has new calls wait for the next attempt: they fail with it, or go out", function()
    make()
    call()
    c:refused "UNAUTHENTICATED"
    happened()
    local id = call()
    assert.equal("", (happened()))
    c:refused "UNAVAILABLE"
    assert_failed("UNAVAILABLE", id, "says no")
    call()
    c:connected()
    assert.equal("HELLO REQUEST", (said()))
  end)

  it("sends nothing of the calls that failed when it is let in later", function()
    make()
    call()
    c:refused "UNAUTHENTICATED"
    c:connected()
    assert.equal("HELLO", (said()))
  end)

  it("fails all calls when the broker answers HELLO with an error, each with a message of its own", function()
    make()
    c:connected()
    said()
    local ids = { call(), call() }
    said()
    hear { type = "ERROR", status = 7, payload = engine.put_exception("UNAUTHENTICATED", "who are you?", "") }
    local types, events = happened()
    assert.equal("FAILED FAILED", types)
    table.sort(events, function(a, b) return a.id < b.id end)
    for i, event in ipairs(events) do
      assert.same({ "UNAUTHENTICATED", ids[i], "who are you?" },
        { event.code, event.id, (select(2, engine.exception_of(event.payload))) })
    end
    assert.equal("CANCEL CANCEL", (said()))
    assert.equal(0, c:stats().late)
  end)

  it("takes an error without a call for nothing else when no call waits", function()
    hear { type = "ERROR", status = 6, payload = engine.put_exception("PERMISSION_DENIED", "no", "") }
    assert.equal("", (happened()))
    assert.is_true(c:is_up())
  end)
end)
