local engine = require "support.engine"

local DRAIN = 2 -- a flag of BYE
local SPARE = 16 -- calls that the engine takes above its credit

local w

---The broker says something to the worker.
local function hear(envelope)
  w:receive(engine.build(envelope))
end

---What the worker has said since the last time: the types, then the messages.
local function said()
  local outs = engine.outs(w)
  return engine.types(outs), outs
end

---What happened since the last time, likewise.
local function happened()
  local events = engine.events(w)
  return engine.types(events), events
end

---A worker at 0 ms, not connected.
local function make(options)
  engine.at(0)
  options = options or {}
  options.service = options.service or "S"
  w = assert(engine.worker(options))
  return w
end

---A worker that the broker has registered; ready: fields of the broker's READY.
local function start(options, ready)
  make(options)
  w:connected()
  local welcome = { type = "READY", route = 1, deadline_ms = 3000, window = 3 }
  for name, value in pairs(ready or {}) do welcome[name] = value end
  hear(welcome)
  assert.equal("READY", (said()))
  assert.equal("UP", (happened()))
  return w
end

local function request(route, more)
  local envelope = {
    type = "REQUEST", id = 100 + route, route = route, service = "S", method = "run", credit = 1, window = 1 }
  for name, value in pairs(more or {}) do envelope[name] = value end
  hear(envelope)
end

local function tick(ms) engine.pass(w, ms) end

before_each(function() start() end)

describe("worker, registration", function()
  it("says READY when it is connected: what it serves, how it beats, what it takes", function()
    make { service = "Math", about = "\x80", credit = 7, heartbeat_ms = 500, liveness = 4 }
    assert.equal("", (said()))
    w:connected()
    local types, outs = said()
    assert.equal("READY", types)
    local ready = outs[1]
    assert.same({ "Math", "\x80", 7, 500, 4 },
      { ready.service, ready.payload, ready.credit, ready.deadline_ms, ready.window })
    w:connected()
    assert.equal("", (said()))
  end)

  it("takes 1024 calls, beats every 3 s and lets 3 be missed when nothing else is said", function()
    make()
    w:connected()
    local ready = select(2, said())[1]
    assert.same({ 1024, 3000, 3, "" }, { ready.credit, ready.deadline_ms, ready.window, ready.payload })
  end)

  it("promises no beats inside the broker's process", function()
    make { ["local"] = true, heartbeat_ms = 500 }
    w:connected()
    local ready = select(2, said())[1]
    assert.same({ 0, 0 }, { ready.deadline_ms, ready.window })
    hear { type = "READY", deadline_ms = 100, window = 1 }
    assert.is_nil(w:next_due())
    tick(1000000)
    assert.equal("", (said()))
    assert.is_true(w:is_up())
  end)

  it("is refused without a proper name", function()
    for _, name in ipairs { "", "a b", "\xff", ("n"):rep(256) } do
      assert.same({ nil, "INVALID_ARGUMENT" }, { engine.worker { service = name } })
    end
    assert.is_userdata(engine.worker { service = ("n"):rep(255) })
  end)

  it("is up when the broker says so, which is an event once", function()
    make()
    assert.is_false(w:is_up())
    w:connected()
    assert.is_false(w:is_up())
    assert.equal("", (happened()))
    hear { type = "READY" }
    hear { type = "READY" }
    assert.is_true(w:is_up())
    assert.equal("UP", (happened()))
  end)

  it("may be refused by the broker, with a reason", function()
    make()
    w:connected()
    local payload = engine.put_exception("PERMISSION_DENIED", "no", "")
    hear { type = "ERROR", status = 6, payload = payload }
    local types, events = happened()
    assert.equal("REFUSED", types)
    assert.same({ "PERMISSION_DENIED", payload }, { events[1].code, events[1].payload })
    assert.is_false(w:is_up())
  end)

  it("ends with the connection, and so do all calls", function()
    request(1)
    request(2)
    w:item(1, "x")
    happened()
    w:disconnected()
    local types, events = happened()
    assert.equal("CANCEL CANCEL DOWN", types)
    assert.same({ "UNAVAILABLE", "UNAVAILABLE" }, { events[1].code, events[2].code })
    assert.equal(3, events[1].route + events[2].route)
    assert.equal(0, w:stats().open)
    assert.equal(2, w:stats().cancelled)
    assert.same({ nil, "NOT_FOUND" }, { w:reply(1, "") })
    assert.equal("", (said())) -- nothing of the old connection goes to the next one
    w:disconnected()
    assert.equal("", (happened()))
    assert.is_nil(w:next_due())
    w:connected()
    assert.equal("READY", (said()))
    hear { type = "READY" }
    assert.equal("UP", (happened()))
  end)

  it("says nothing about a connection that ended before the broker answered", function()
    make()
    w:connected()
    w:disconnected()
    assert.equal("", (happened()))
    assert.equal("", (said()))
  end)

  it("begins again when the broker has forgotten it", function()
    request(1)
    happened()
    hear { type = "BYE" }
    assert.equal("CANCEL DOWN", (happened()))
    assert.equal("READY", (said()))
    hear { type = "READY" }
    assert.equal("UP", (happened()))
  end)

  it("survives a second BYE before its READY has left", function()
    hear { type = "BYE" }
    hear { type = "BYE" }
    assert.equal("READY", (said()))
    hear { type = "READY" }
    assert.equal("DOWN UP", (happened()))
    assert.is_true(w:is_up())
  end)

  it("survives the BYE of a broker that has left, read after the next one is connected", function()
    w:disconnected()
    w:connected()
    hear { type = "BYE" }
    assert.equal("READY", (said()))
    tick(3000)
    assert.equal("HEARTBEAT", (said()))
    hear { type = "READY" }
    assert.is_true(w:is_up())
  end)

  it("says READY again when the broker answers its beats with BYE: it has not heard the first one", function()
    w:disconnected()
    w:connected()
    said()
    for beat = 1, 3 do
      tick(3000 * beat)
      assert.equal("HEARTBEAT", (said()))
      hear { type = "BYE" }
      assert.equal("READY", (said()))
      hear { type = "BYE" }
      assert.equal("", (said()))
    end
    hear { type = "READY" }
    assert.is_true(w:is_up())
  end)

  it("is not made by what comes while there is no connection", function()
    w:disconnected()
    happened()
    hear { type = "READY" }
    request(1)
    hear { type = "BYE" }
    assert.is_false(w:is_up())
    assert.equal("", (happened()))
    assert.equal("", (said()))
    w:connected()
    assert.equal("READY", (said()))
  end)
end)

describe("worker, calls", function()
  it("come as events with all that the request says", function()
    request(7, { id = 70, method = "add", payload = "args", split = 3, deadline_ms = 500, credit = 9 })
    local types, events = happened()
    assert.equal("REQUEST", types)
    local event = events[1]
    assert.same({ 7, 70, "add", "args", 3, 500 },
      { event.route, event.id, event.method, event.payload, event.split, event.deadline_ms })
    assert.same({ 1, 1 }, { w:stats().requests, w:stats().open })
  end)

  it("may have a payload of their own frame", function()
    request(7, { payload = ("x"):rep(20000) })
    assert.equal(("x"):rep(20000), select(2, happened())[1].payload)
  end)

  it("end with a reply", function()
    request(7)
    assert.is_true(w:reply(7, "result", 201))
    local types, outs = said()
    assert.equal("REPLY", types)
    assert.same({ 7, "result", 201 }, { outs[1].route, outs[1].payload, outs[1].status })
    assert.equal(0, w:stats().open)
    assert.same({ nil, "NOT_FOUND" }, { w:reply(7, "again") })
    assert.equal("", (said()))
  end)

  it("end with an error", function()
    request(7)
    local payload = engine.put_exception("E", "text", "")
    assert.is_true(w:error(7, "PERMISSION_DENIED", payload))
    local types, outs = said()
    assert.equal("ERROR", types)
    assert.same({ 7, "PERMISSION_DENIED", "E", "text" },
      { outs[1].route, outs[1].code, outs[1].class, outs[1].text })
    assert.same({ nil, "NOT_FOUND" }, { w:error(7, "INTERNAL", payload) })
    assert.equal(0, w:stats().open)
  end)

  it("end with the end of an empty stream", function()
    request(7)
    assert.is_true(w:finish(7))
    local types, outs = said()
    assert.equal("END", types)
    assert.same({ 7, 0, 0, "" }, { outs[1].route, outs[1].split, outs[1].count, outs[1].payload })
    assert.same({ nil, "NOT_FOUND" }, { w:finish(7) })
    assert.equal(0, w:stats().open)
  end)

  it("may end with a large payload, which gets a frame of its own", function()
    request(7)
    w:reply(7, ("r"):rep(20000))
    local head, rest = w:next_out()
    assert.equal(48, #head)
    assert.equal(("r"):rep(20000), rest)
  end)

  it("are cancelled by the broker; a late answer finds nothing", function()
    request(7)
    request(8)
    happened()
    hear { type = "CANCEL", route = 7 }
    hear { type = "CANCEL", route = 7 }
    hear { type = "CANCEL", route = 99 }
    local types, events = happened()
    assert.equal("CANCEL", types)
    assert.same({ 7, "CANCELLED" }, { events[1].route, events[1].code })
    assert.same({ nil, "NOT_FOUND" }, { w:reply(7, "") })
    assert.same({ nil, "NOT_FOUND" }, { w:item(7, "") })
    w:flush(7)
    assert.equal("", (said()))
    assert.same({ 1, 1 }, { w:stats().open, w:stats().cancelled })
  end)

  it("are cancelled exactly when their deadline passes", function()
    request(7, { deadline_ms = 500 })
    request(8, { deadline_ms = 400 })
    request(9)
    happened()
    assert.equal(400, w:next_due())
    tick(399)
    assert.equal("", (happened()))
    tick(400)
    assert.equal(8, select(2, happened())[1].route)
    assert.equal(500, w:next_due())
    tick(500)
    local types, events = happened()
    assert.equal("CANCEL", types)
    assert.same({ 7, "DEADLINE_EXCEEDED" }, { events[1].route, events[1].code })
    assert.same({ nil, "NOT_FOUND" }, { w:reply(7, "") })
    assert.equal("", (said())) -- the broker knows the time
    assert.equal(1, w:stats().open)
  end)

  it("that were answered in time have no deadline any more", function()
    request(7, { deadline_ms = 500 })
    happened()
    w:reply(7, "")
    assert.equal(3000, w:next_due())
    tick(500)
    assert.equal("", (happened()))
  end)

  it("are refused when there are many more than the broker may send", function()
    start { credit = 2 }
    for route = 1, 2 + SPARE do request(route) end
    assert.equal("", (said()))
    request(100)
    local types, outs = said()
    assert.equal("ERROR", types)
    assert.same({ 100, "RESOURCE_EXHAUSTED" }, { outs[1].route, outs[1].code })
    assert.equal(2 + SPARE, w:stats().open)
    w:reply(1, "")
    said()
    request(100)
    assert.equal("", (said()))
  end)

  it("with the number 0 or one that runs are dropped and counted", function()
    request(7, { payload = "first" })
    request(7, { payload = "second" })
    request(0)
    local types, events = happened()
    assert.equal("REQUEST", types)
    assert.equal("first", events[1].payload)
    assert.same({ 1, 2, 1 }, { w:stats().requests, w:stats().malformed, w:stats().open })
    w:reply(7, "")
    request(7)
    assert.equal("REQUEST", (happened()))
  end)

  it("of an older registration are not run", function()
    hear { type = "BYE" }
    request(7) -- the broker had sent it before
    assert.equal("DOWN", (happened()))
    assert.equal(0, w:stats().open)
    hear { type = "READY" }
    request(7)
    assert.equal("UP REQUEST", (happened()))
  end)

  it("are the only reason to be busy after a drain", function()
    assert.is_true(w:is_busy())
    w:drain()
    assert.is_true(w:is_busy())
    hear { type = "BYE", flags = DRAIN }
    assert.is_true(w:is_busy()) -- an event waits
    assert.equal(1, w:events())
    happened()
    assert.equal(0, w:events())
    assert.is_false(w:is_busy())
  end)
end)

describe("worker, streams", function()
  it("gather items into one message until they are flushed", function()
    request(7, { credit = 100, window = 100 })
    assert.is_true(w:item(7, "a"))
    assert.is_true(w:item(7, "bc"))
    assert.equal("", (said()))
    w:flush(7)
    w:flush(7)
    local types, outs = said()
    assert.equal("ITEM", types)
    assert.same({ 7, 0, 2, "abc" }, { outs[1].route, outs[1].split, outs[1].count, outs[1].payload })
    w:item(7, "d")
    w:flush(7)
    outs = select(2, said())
    assert.same({ 2, 1, "d" }, { outs[1].split, outs[1].count, outs[1].payload })
    w:item(7, "e")
    w:finish(7)
    types, outs = said()
    assert.equal("END", types)
    assert.same({ 3, 1, "e" }, { outs[1].split, outs[1].count, outs[1].payload })
  end)

  it("send 256 items at the latest", function()
    request(7, { credit = 1000, window = 100000 })
    for i = 1, 600 do
      w:item(7, "x")
      if i % 256 == 0 then
        local types, outs = said()
        assert.equal("ITEM", types)
        assert.same({ i - 256, 256, 256 }, { outs[1].split, outs[1].count, #outs[1].payload })
      else
        assert.equal("", (said()))
      end
    end
    w:finish(7)
    local outs = select(2, said())
    assert.same({ 512, 88 }, { outs[1].split, outs[1].count })
  end)

  it("send 16 KiB at the latest", function()
    request(7, { credit = 1000, window = 1 << 30 })
    local half = ("h"):rep(8 * 1024)
    w:item(7, half)
    assert.equal("", (said()))
    w:item(7, half:sub(2))
    assert.equal("", (said()))
    w:item(7, "x")
    local outs = select(2, said())
    assert.same({ 0, 3, 16384 }, { outs[1].split, outs[1].count, #outs[1].payload })
  end)

  it("send a large item without a copy, in a frame of its own, and go on", function()
    request(7, { credit = 1000, window = 1 << 30 })
    w:item(7, "small")
    w:item(7, ("x"):rep(100000))
    local head, rest = w:next_out()
    assert.equal(48, #head)
    assert.equal("small" .. ("x"):rep(100000), rest)
    w:item(7, "next")
    w:finish(7)
    local outs = select(2, said())
    assert.same({ 2, 1, "next" }, { outs[1].split, outs[1].count, outs[1].payload })
  end)

  it("send what has gathered at the next tick", function()
    request(7, { credit = 10, window = 100 })
    request(8, { credit = 10, window = 100 })
    request(9, { credit = 10, window = 100 })
    w:item(7, "a")
    w:item(9, "b")
    tick(1)
    local types, outs = said()
    assert.equal("ITEM ITEM", types)
    assert.equal(16, outs[1].route + outs[2].route)
    tick(2)
    assert.equal("", (said()))
  end)

  it("send what has gathered before a reply or an error", function()
    request(7, { credit = 10, window = 100 })
    request(8, { credit = 10, window = 100 })
    w:item(7, "a")
    w:item(8, "b")
    w:error(7, "INTERNAL", engine.put_exception("E", "", ""))
    w:reply(8, "r")
    assert.equal("ITEM ERROR ITEM REPLY", (said()))
  end)

  it("stop when the items are used up that the client takes", function()
    request(7, { credit = 2, window = 1000 })
    happened()
    assert.is_true(w:item(7, "a"))
    assert.is_false(w:item(7, "b"))
    hear { type = "CREDIT", route = 7, credit = 0, window = 10 }
    assert.equal("", (happened()))
    hear { type = "CREDIT", route = 7, credit = 2 }
    local types, events = happened()
    assert.equal("CREDIT", types)
    assert.equal(7, events[1].route)
    assert.is_true(w:item(7, "c"))
    assert.is_false(w:item(7, "d"))
  end)

  it("stop when the bytes are used up, which the last item may overdraw", function()
    request(7, { credit = 1000, window = 10 })
    happened()
    assert.is_true(w:item(7, "123456789"))
    assert.is_false(w:item(7, "0123456789")) -- 9 too many
    hear { type = "CREDIT", route = 7, credit = 1, window = 9 }
    assert.equal("", (happened()))
    hear { type = "CREDIT", route = 7, credit = 1, window = 1 }
    assert.equal("CREDIT", (happened()))
    assert.is_false(w:item(7, "1"))
  end)

  it("get no event for credit that they did not wait for", function()
    request(7, { credit = 2, window = 1000 })
    happened()
    w:item(7, "a")
    hear { type = "CREDIT", route = 7, credit = 2, window = 1 }
    hear { type = "CREDIT", route = 99, credit = 2, window = 1 }
    assert.equal("", (happened()))
    assert.is_true(w:item(7, "b"))
    assert.is_true(w:item(7, "c"))
    assert.is_false(w:item(7, "d"))
    hear { type = "CREDIT", route = 7, credit = 1, window = 1 }
    hear { type = "CREDIT", route = 7, credit = 1, window = 1 }
    assert.equal("CREDIT", (happened()))
  end)

  it("bear any amount of credit", function()
    request(7, { credit = 0xffffffff, window = 0xffffffff })
    happened()
    for _ = 1, 10 do hear { type = "CREDIT", route = 7, credit = 0xffffffff, window = 0xffffffff } end
    for _ = 1, 1000 do assert.is_true(w:item(7, "x")) end
    assert.equal("", (happened()))
  end)

  it("begin without credit, one item is the most", function()
    request(7, { credit = 0, window = 0 })
    happened()
    assert.is_false(w:item(7, "a"))
    hear { type = "CREDIT", route = 7, credit = 1, window = 1 }
    assert.equal("", (happened())) -- that pays for the first one
    hear { type = "CREDIT", route = 7, credit = 1, window = 1 }
    assert.equal("CREDIT", (happened()))
  end)

  it("have no deadline once they have begun, but an idle limit, and the client is told", function()
    start({ idle_ms = 10000 }, { deadline_ms = 0 })
    request(7, { credit = 10, window = 100, deadline_ms = 500 })
    happened()
    engine.at(400)
    w:item(7, "a")
    tick(500)
    tick(10399)
    assert.equal("", (happened()))
    hear { type = "CREDIT", route = 7, credit = 1, window = 1 }
    tick(20398)
    w:item(7, "b")
    tick(30397)
    assert.equal("", (happened()))
    said()
    tick(30398)
    local types, events = happened()
    assert.equal("CANCEL", types)
    assert.same({ 7, "DEADLINE_EXCEEDED" }, { events[1].route, events[1].code })
    local outs = select(2, said())
    assert.same({ "ERROR", 7, "DEADLINE_EXCEEDED" }, { outs[1].type, outs[1].route, outs[1].code })
    assert.equal(0, w:stats().open)
  end)

  it("are idle for no longer than the limit when their deadline is further away", function()
    start({ idle_ms = 10000 }, { deadline_ms = 0 })
    request(7, { credit = 10, window = 100, deadline_ms = 3600 * 1000 })
    happened()
    w:item(7, "a")
    tick(9999)
    assert.equal("", (happened()))
    tick(10000)
    assert.equal("CANCEL", (happened()))
  end)

  it("of one worker do not mix", function()
    for route = 1, 5 do request(route, { credit = 1000, window = 100000 }) end
    local expected, got = {}, {}
    for i = 1, 400 do
      local route = i * i % 5 + 1
      w:item(route, ("%d."):format(i))
      expected[route] = (expected[route] or "") .. ("%d."):format(i)
      if i % 7 == 0 then w:flush(route) end
    end
    for route = 1, 5 do w:finish(route) end
    local seq = {}
    for _, out in ipairs(select(2, said())) do
      assert.equal(seq[out.route] or 0, out.split)
      seq[out.route] = out.split + out.count
      got[out.route] = (got[out.route] or "") .. out.payload
    end
    for route = 1, 5 do assert.equal(expected[route] or "", got[route]) end
  end)

  it("that are over leave nothing to a new call", function()
    request(7, { credit = 10, window = 100 })
    w:item(7, "old")
    hear { type = "CANCEL", route = 7 }
    tick(1)
    assert.equal("", (said()))
    request(8, { credit = 10, window = 100 })
    w:item(8, "new")
    w:finish(8)
    local outs = select(2, said())
    assert.same({ 0, 1, "new" }, { outs[1].split, outs[1].count, outs[1].payload })
    tick(2)
    assert.equal("", (said()))
  end)
end)

describe("worker, calls that wait for calls of their own", function()
  ---The credit that the worker has announced since the last time.
  local function announced()
    local credits = {}
    for i, out in ipairs(select(2, said())) do
      assert.equal("CREDIT", out.type)
      assert.equal(0, out.route)
      credits[i] = out.credit
    end
    return table.unpack(credits)
  end

  it("do not count: the broker hears of more credit", function()
    start { credit = 1 }
    request(1)
    assert.is_nil(announced())
    w:nested(1)
    w:nested(1)
    assert.same({ 2 }, { announced() })
    request(2)
    w:nested(2)
    assert.same({ 3 }, { announced() })
    w:nested(1)
    assert.same({ 2 }, { announced() })
    w:nested(0)
    assert.same({ 1 }, { announced() })
  end)

  it("are told of only when the broker takes the worker to be full", function()
    start { credit = 3 }
    request(1)
    request(2)
    w:nested(2)
    assert.is_nil(announced())
    request(3)
    assert.same({ 5 }, { announced() })
    request(4)
    assert.is_nil(announced())
  end)

  it("are not told of without a connection, nor when the worker drains", function()
    start { credit = 1 }
    request(1)
    w:disconnected()
    w:nested(1)
    assert.is_nil(announced())
    w:connected()
    assert.equal(1, select(2, said())[1].credit)
    hear { type = "READY" }
    request(2)
    assert.same({ 2 }, { announced() }) -- the old ones wait still
    w:drain()
    assert.equal("BYE", (said()))
    w:nested(0)
    assert.is_nil(announced())
  end)

  it("raise the credit to 65536 at most, and do not lower one that is above", function()
    start { credit = 1 }
    request(1)
    w:nested(70000)
    assert.same({ 65536 }, { announced() })
    start { credit = 70000 }
    w:nested(5)
    w:nested(0)
    assert.is_nil(announced())
  end)

  it("do not let a request be refused that was under way when they went on", function()
    start { credit = 1 }
    for route = 1, 40 do
      request(route)
      w:nested(route)
    end
    said()
    w:nested(0)
    assert.same({ 1 }, { announced() })
    request(41)
    assert.equal("", (said()))
    assert.equal(41, w:stats().open)
    for route = 42, 60 do request(route) end
    assert.equal("ERROR ERROR ERROR", (said()))
  end)
end)

describe("worker, heartbeats", function()
  it("are sent when nothing else was", function()
    start { heartbeat_ms = 1000 }
    tick(999)
    assert.equal("", (said()))
    assert.equal(1000, w:next_due())
    tick(1000)
    assert.equal("HEARTBEAT", (said()))
    engine.at(1500)
    request(7)
    w:reply(7, "")
    tick(2000)
    assert.equal("REPLY", (said()))
    assert.equal(2500, w:next_due())
    tick(2500)
    assert.equal("HEARTBEAT", (said()))
  end)

  it("are expected as often as the broker says, whatever our own are", function()
    start({ heartbeat_ms = 60000 }, { deadline_ms = 200, window = 2 })
    request(7)
    happened()
    assert.equal(400, w:next_due())
    tick(399)
    assert.is_true(w:is_up())
    hear { type = "HEARTBEAT" }
    tick(798)
    assert.is_true(w:is_up())
    assert.is_false(w:take_reconnect())
    tick(799)
    assert.is_false(w:is_up())
    assert.equal("CANCEL DOWN", (happened()))
    assert.equal("", (said()))
    assert.is_true(w:take_reconnect())
    assert.is_false(w:take_reconnect())
    assert.is_nil(w:next_due())
    w:disconnected()
    w:connected()
    assert.equal("READY", (said()))
  end)

  it("are not missed in a time in which we did not run ourselves, which may happen three times", function()
    engine.check_absences(start)
  end)

  it("are expected as often as our own until the broker has answered", function()
    make { heartbeat_ms = 1000, liveness = 2 }
    engine.at(5000)
    w:connected()
    tick(6999)
    assert.is_false(w:take_reconnect())
    tick(7000)
    assert.is_true(w:take_reconnect())
    assert.equal("", (happened()))
  end)

  it("may be any message, even one that cannot be read", function()
    start(nil, { deadline_ms = 200, window = 2 })
    local says = {
      function() hear { type = "HEARTBEAT" } end, function() request(7) end,
      function() w:receive("garbage") end, function() hear { type = "CREDIT" } end,
      function() hear { type = "CANCEL" } end, function() hear { type = "HELLO" } end,
    }
    for i, say in ipairs(says) do
      tick(i * 399)
      say()
    end
    tick((#says + 1) * 399)
    assert.is_true(w:is_up())
  end)

  it("are not expected from a broker that never beats", function()
    start(nil, { deadline_ms = 0 })
    tick(1000000000)
    assert.is_true(w:is_up())
  end)

  it("are not sent without a connection", function()
    w:disconnected()
    assert.is_nil(w:next_due())
    tick(100000)
    assert.equal("", (said()))
    assert.is_false(w:take_reconnect())
  end)
end)

describe("worker, drain", function()
  it("asks the broker for no more, then waits for what runs", function()
    request(7)
    request(8)
    happened()
    w:drain()
    w:drain()
    local types, outs = said()
    assert.equal("BYE", types)
    assert.equal(DRAIN, outs[1].flags)
    request(9) -- had been sent before
    hear { type = "BYE", flags = DRAIN }
    assert.equal("REQUEST", (happened()))
    w:reply(7, "")
    w:finish(8)
    assert.equal("", (happened()))
    hear { type = "CANCEL", route = 9 }
    assert.equal("CANCEL DRAINED", (happened()))
    assert.equal("REPLY END", (said()))
    assert.is_true(w:is_up())
  end)

  it("waits for the broker to agree, because requests may be under way", function()
    w:drain()
    assert.equal("", (happened()))
    request(7)
    w:reply(7, "")
    assert.equal("REQUEST", (happened()))
    hear { type = "BYE", flags = DRAIN }
    hear { type = "BYE", flags = DRAIN }
    assert.equal("DRAINED", (happened()))
  end)

  it("is over at once without a connection", function()
    make()
    w:drain()
    assert.equal("DRAINED", (happened()))
    assert.equal("", (said()))
    w:connected()
    assert.equal("", (said())) -- it does not register any more
  end)

  it("waits for the broker also while READY is under way", function()
    make()
    w:connected()
    w:drain()
    assert.equal("READY BYE", (said()))
    assert.equal("", (happened()))
    hear { type = "READY" }
    request(7)
    hear { type = "BYE", flags = DRAIN }
    assert.equal("UP REQUEST", (happened()))
    w:reply(7, "")
    assert.equal("DRAINED", (happened()))
  end)

  it("is over when the connection is lost", function()
    request(7)
    w:drain()
    happened()
    w:disconnected()
    local types = happened()
    assert.is_truthy(types:find "CANCEL" and types:find "DOWN" and types:find "DRAINED")
    w:connected()
    assert.equal("", (said()))
  end)

  it("is over when the broker falls silent, or no longer knows us", function()
    w:drain()
    tick(9000)
    assert.equal("DOWN DRAINED", (happened()))
    start()
    w:drain()
    hear { type = "BYE" }
    assert.equal("DOWN DRAINED", (happened()))
    assert.equal("", (said()))
    make()
    w:connected()
    w:drain()
    hear { type = "BYE" }
    assert.equal("DRAINED", (happened()))
  end)

  it("cancels an idle stream as ever", function()
    start({ idle_ms = 1000 }, { deadline_ms = 0 })
    request(7, { credit = 10, window = 10 })
    w:item(7, "x")
    w:drain()
    hear { type = "BYE", flags = DRAIN }
    happened()
    tick(1000)
    assert.equal("CANCEL DRAINED", (happened()))
  end)

  it("may be cut short by leaving", function()
    request(7)
    w:leave()
    local types, outs = said()
    assert.equal("BYE", types)
    assert.equal(0, outs[1].flags)
    make()
    w:leave()
    assert.equal("", (said()))
  end)
end)

describe("worker, what makes no sense", function()
  it("is counted and dropped", function()
    for i, frames in ipairs { { "" }, { "garbage" }, { "a", "b", "c" }, {} } do
      w:receive(table.unpack(frames))
      assert.equal(i, w:stats().malformed)
    end
    assert.equal("", (happened()))
    assert.equal("", (said()))
  end)

  it("is ignored when it is a message for somebody else", function()
    for type in ("HELLO REPLY ITEM END CHUNK HEARTBEAT"):gmatch "%u+" do hear { type = type } end
    assert.equal("", (happened()))
    assert.equal("", (said()))
    assert.equal(0, w:stats().malformed)
  end)

  it("leaves nothing behind when the worker is closed with calls", function() -- for the sanitizers
    for route = 1, 100 do
      request(route, { credit = 10, window = 10, deadline_ms = 100, payload = ("x"):rep(20000) })
      w:item(route, ("y"):rep(1000))
      if route % 3 == 0 then w:finish(route) end
    end
    w:close()
    assert.has_error(function() w:tick() end)
  end)
end)

describe("worker, a request", function()
  it("says who calls when it comes from a broker in the same process, and nowhere else", function()
    local envelope = { type = "REQUEST", id = 9, route = 1, service = "Gate", method = "f", payload = ("x"):rep(20000) }
    start { ["local"] = true }
    w:receive("id", "127.0.0.1", "ann", engine.build(envelope))
    local types, events = happened()
    assert.equal("REQUEST", types)
    assert.same({ "id", "127.0.0.1", "ann", "f" },
      { events[1].client, events[1].address, events[1].user, events[1].method })
    request(2)
    local _, plain = happened()
    assert.equal("", plain[1].client)
    w:receive("id", "127.0.0.1", "rubbish")
    assert.equal(1, w:stats().malformed)
    start()
    w:receive("id", "127.0.0.1", engine.build(envelope))
    assert.equal("", (happened()))
    assert.equal(1, w:stats().malformed)
  end)
end)

describe("worker, refused", function()
  it("tells its owner each time that it is not let in, and why, and registers when it is", function()
    make()
    w:refused "UNAUTHENTICATED"
    w:refused "UNAVAILABLE"
    local types, events = happened()
    assert.equal("BARRED BARRED", types)
    assert.same({ "UNAUTHENTICATED", "says no", "UNAVAILABLE" }, { events[1].code, events[1].text, events[2].code })
    assert.equal("", (said()))
    w:connected()
    assert.equal("READY", (said()))
  end)
end)
