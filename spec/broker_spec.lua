local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"

local DRAIN = 2 -- a flag of BYE
local OK, NOT_FOUND = 200, 404

local bench

---A broker at 0 ms.
local function start(options)
  engine.at(0)
  bench = engine.bench(options)
  return bench
end

before_each(function() start() end)

local function about(fields)
  return (assert(msgpack.pack(fields)))
end

---READY's payload for a service with one idempotent method, "run".
local IDEMPOTENT = about { description = "", methods = { run = { idempotent = true } } }

local function assert_error(code, id, message)
  assert.equal("ERROR", message and message.type)
  assert.equal(code, message.code)
  assert.equal(code, message.class)
  assert.equal(id, message.id)
  assert.is_true(#message.text > 0)
end

local function ids(messages)
  local list = {}
  for i, each in ipairs(messages) do list[i] = each.id end
  return list
end

---Answers a request that the worker heard.
local function answer(worker, request, more)
  local reply = { type = "REPLY", route = request.route, payload = "done" }
  for name, value in pairs(more or {}) do reply[name] = value end
  worker:say(reply)
end

describe("broker, registration", function()
  it("answers READY with how it beats and which broker it is", function()
    start { instance = 77, heartbeat_ms = 500, liveness = 4 }
    local w = bench:peer("back", "w")
    w:ready "S"
    local ready = w:hear "READY"
    assert.equal(77, ready.route)
    assert.equal(500, ready.deadline_ms)
    assert.equal(4, ready.window)
    assert.same({ 1, 1, 1 }, { bench:stats().peers, bench:stats().workers, bench:stats().services })
  end)

  it("beats every 3 s and may miss 3 when nothing else is said", function()
    local w = bench:peer("back", "w")
    w:ready "S"
    local ready = w:hear "READY"
    assert.equal(3000, ready.deadline_ms)
    assert.equal(3, ready.window)
  end)

  it("answers HELLO likewise", function()
    start { instance = 78, heartbeat_ms = 600, liveness = 5 }
    local c = bench:client "c"
    c:say { type = "HELLO", deadline_ms = 100, window = 3 }
    local hello = c:hear "HELLO"
    assert.same({ 78, 600, 5 }, { hello.route, hello.deadline_ms, hello.window })
  end)

  it("promises no beats to peers in its own process", function()
    local w, c = bench:peer("local_back", "w"), bench:client("c", "local_front")
    w:ready "S"
    c:say { type = "HELLO" }
    for _, welcome in ipairs { w:hear "READY", c:hear "HELLO" } do
      assert.same({ 0, 0 }, { welcome.deadline_ms, welcome.window })
    end
  end)

  it("refuses a service without a proper name", function()
    for _, name in ipairs { "", "a b", "a\n", "\xff" } do
      local w = bench:peer("back", "w" .. name)
      w:ready(name)
      assert_error("INVALID_ARGUMENT", 0, w:hear())
    end
    assert.same({ 0, 0 }, { bench:stats().workers, bench:stats().services })
  end)

  it("keeps the name Gate for itself and workers of its own process", function()
    local stranger = bench:peer("back", "w")
    stranger:ready "Gate"
    assert_error("PERMISSION_DENIED", 0, stranger:hear())
    assert.equal(0, bench:stats().workers)
    bench:worker("w", "Gate", nil, "local_back")
    assert.equal(1, bench:stats().workers)
  end)

  it("takes so many services and no more, but any number of workers for those", function()
    start { max_services = 2 }
    bench:worker("a", "A")
    bench:worker("b", "B")
    local c = bench:peer("back", "c")
    c:ready "C"
    assert_error("RESOURCE_EXHAUSTED", 0, c:hear())
    bench:worker("b2", "B")
    assert.same({ 3, 2 }, { bench:stats().workers, bench:stats().services })
  end)

  local unreadable = {
    ["no map"] = about { 1, 2 },
    ["ending early"] = about({ description = "x" }):sub(1, -2),
    ["going on behind its end"] = about { description = "x" } .. "\0",
    ["a key that is no string"] = "\x81\x01\x02",
    ["a description that is no string"] = about { description = 1 },
    ["a description that is bytes"] = about { description = "\xff" },
    ["a description above 4096 bytes"] = about { description = ("x"):rep(4097) },
    ["methods that are no map"] = about { methods = 1 },
    ["a method without a name"] = about { methods = { [""] = msgpack.map {} } },
    ["a method whose name is no string"] = "\x81\xa7methods\x81\x01\x80",
    ["a method that is no map"] = about { methods = { run = 1 } },
    ["a method with a key that is no string"] = "\x81\xa7methods\x81\xa3run\x81\x01\x02",
    ["a value inside a method that is not msgpack"] = "\x81\xa7methods\x81\xa3run\x81\xa1x\xc1",
    ["another value that is not msgpack"] = "\x81\xa1x\xc1",
    ["a value too deep"] = "\x81\xa1x" .. ("\x91"):rep(65) .. "\xc0",
  }
  for what, payload in pairs(unreadable) do
    it("refuses a description of a service with " .. what, function()
      local w = bench:peer("back", "w")
      w:ready("S", { payload = payload })
      local refusal = w:hear "ERROR"
      assert.equal(what:find "too deep" and "RESOURCE_EXHAUSTED" or "INVALID_ARGUMENT", refusal.code)
      assert.same({ 0, 0 }, { bench:stats().workers, bench:stats().services })
      w:ready("S", { payload = about { description = "x" } })
      w:hear "READY"
    end)
  end

  it("takes a description of 4096 bytes, and fields that it does not know", function()
    bench:worker("w", "S", { payload = about {
      description = ("x"):rep(4096), more = { 1, { 2 } },
      methods = { run = { doc = { "x" }, idempotent = false } } } })
  end)

  it("refuses more than 4096 methods", function()
    local methods = msgpack.map {}
    for i = 1, 4096 do methods["m" .. i] = { idempotent = true } end
    bench:worker("w", "S", { payload = about { methods = methods } })
    methods.one_more = { idempotent = true }
    local w = bench:peer("back", "w2")
    w:ready("S", { payload = about { methods = methods } })
    assert_error("RESOURCE_EXHAUSTED", 0, w:hear())
    w:ready("S", { payload = about { methods = { another = { idempotent = true } } } })
    assert_error("RESOURCE_EXHAUSTED", 0, w:hear())
  end)

  it("keeps what it knew of a service when a worker is refused", function()
    bench:worker("w", "S", { payload = about { description = "good" } })
    local bad = bench:peer("back", "bad")
    bad:ready("S", { payload = about({ description = "bad" }) .. "\0" })
    bad:hear "ERROR"
    bad:ready("S", { payload = "\x82\xa7methods\x81\xa3run\x81\xaaidempotent\xc3\xa1x\xc1" })
    bad:hear "ERROR"
    local c = bench:client "c"
    c:request(1, "Gate", { method = "query_service", payload = about { "S" }, split = 3 })
    local description = engine.get_result(c:hear("REPLY").payload)
    assert.equal("good", (msgpack.unpack(description)))
    c:request(2, "S")
    bench:peer("back", "w"):say { type = "BYE" }
    assert_error("WORKER_LOST", 2, c:hear())
  end)

  it("does not forget a known service because a worker is refused", function()
    bench:worker("w", "S"):say { type = "BYE" }
    local bad = bench:peer("back", "bad")
    bad:ready("S", { payload = "\xc1" })
    bad:hear "ERROR"
    local c = bench:client "c"
    c:request(1, "S")
    assert_error("UNAVAILABLE", 1, c:hear())
    assert.equal(1, bench:stats().services)
  end)

  it("does not make a service of a refused worker that described it", function()
    local bad = bench:peer("back", "bad")
    bad:ready("S", { payload = about({ description = "bad" }) .. "\0" })
    bad:hear "ERROR"
    assert.equal(0, bench:stats().services)
  end)

  it("lets a worker register anew, for the same service or another; what it ran is lost", function()
    local w, c = bench:worker("w", "S", { credit = 2 }), bench:client "c"
    c:request(1, "S")
    local old = w:hear "REQUEST"
    w:ready "S"
    assert_error("WORKER_LOST", 1, c:hear())
    w:hear "READY"
    answer(w, old)
    assert.equal(1, bench:stats().late)
    c:request(2, "S")
    answer(w, w:hear "REQUEST")
    assert.equal(2, c:hear("REPLY").id)
    w:ready "T"
    w:hear "READY"
    c:request(3, "S")
    assert_error("UNAVAILABLE", 3, c:hear())
    c:request(4, "T")
    assert.equal(4, w:hear("REQUEST").id)
    assert.same({ 1, 2 }, { bench:stats().workers, bench:stats().services })
  end)

  it("no longer knows a worker that registers anew and is refused", function()
    local w = bench:worker("w", "S")
    w:ready "not a name"
    assert_error("INVALID_ARGUMENT", 0, w:hear())
    assert.equal(0, bench:stats().workers)
    local c = bench:client "c"
    c:request(1, "S")
    assert_error("UNAVAILABLE", 1, c:hear())
    w:say { type = "HEARTBEAT" }
    w:hear "BYE"
    w:ready "S"
    w:hear "READY"
    c:request(2, "S")
    w:hear "REQUEST"
  end)

  it("serves at once what waited for a worker that registers", function()
    local a, c = bench:worker("a", "S"), bench:client "c"
    for id = 1, 3 do c:request(id, "S") end
    assert.same({ 1 }, ids(a:take()))
    local b = bench:peer("back", "b")
    b:ready("S", { credit = 2 })
    assert.equal("READY REQUEST REQUEST", b:types())
    assert.equal(0, bench:stats().waiting)
  end)

  it("takes a worker without credit as one that serves one call at a time", function()
    local w, c = bench:worker("w", "S", { credit = 0 }), bench:client "c"
    c:request(1, "S")
    c:request(2, "S")
    assert.same({ 1 }, ids(w:take()))
  end)

  it("bounds the credit of a worker", function()
    local w, c = bench:worker("w", "S", { credit = 0xffffffff }), bench:client "c"
    for id = 1, 10 do c:request(id, "S") end
    assert.equal(10, #w:take())
    w:say { type = "CREDIT", credit = 0xffffffff }
    for id = 11, 20 do c:request(id, "S") end
    assert.equal(10, #w:take())
  end)

  it("lets a worker raise its credit, which serves what waits", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    for id = 1, 5 do c:request(id, "S") end
    w:say { type = "CREDIT", credit = 3 }
    assert.same({ 1, 2, 3 }, ids(w:take()))
    w:say { type = "CREDIT", credit = 4 }
    assert.same({ 4 }, ids(w:take()))
    assert.equal(1, bench:stats().waiting)
  end)

  it("lets a worker lower its credit, below what it runs too", function()
    local w, c = bench:worker("w", "S", { credit = 4 }), bench:client "c"
    local x = bench:worker("x", "S", { credit = 4 })
    for id = 1, 6 do c:request(id, "S") end
    local running = w:take()
    assert.equal(3, #running)
    assert.equal(3, #x:take())
    w:say { type = "CREDIT", credit = 2 }
    c:request(7, "S")
    assert.same({ 7 }, ids(x:take()))
    answer(w, running[1])
    c:request(8, "S")
    assert.is_nil(w:hear())
    answer(w, running[2])
    assert.same({ 8 }, ids(w:take()))
    w:say { type = "CREDIT", credit = 0 } -- at least one
    answer(w, running[3])
    c:request(9, "S")
    assert.is_nil(w:hear())
    assert.equal(1, bench:stats().waiting)
  end)

  it("gives a worker that leaves no request for its credit, nor one that it does not know", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    bench:worker("x", "S")
    for id = 1, 3 do c:request(id, "S") end
    w:take()
    w:say { type = "BYE", flags = DRAIN }
    w:hear "BYE"
    w:say { type = "CREDIT", credit = 9 }
    local stranger = bench:peer("back", "stranger")
    stranger:say { type = "CREDIT", credit = 9 }
    assert.is_nil(w:hear())
    assert.is_nil(stranger:hear())
    assert.equal(1, bench:stats().waiting)
    assert.equal(0, bench:stats().malformed)
  end)
end)

describe("broker, requests", function()
  it("takes a request to a worker and the reply back to who asked", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(5, "S", { method = "add", payload = "args", split = 2, credit = 7, window = 8 })
    local request = w:hear "REQUEST"
    assert.same({ 5, "S", "add", "args", 2, 7, 8, 0 }, { request.id, request.service, request.method,
      request.payload, request.split, request.credit, request.window, request.deadline_ms })
    assert.is_true(request.route ~= 0)
    w:say { type = "REPLY", route = request.route, id = 99, status = 200, payload = "sum" }
    local reply = c:hear "REPLY"
    assert.same({ 5, "sum", 200 }, { reply.id, reply.payload, reply.status })
    local stats = bench:stats()
    assert.same({ 1, 1, 0, 0 }, { stats.requests, stats.answers, stats.calls, stats.late })
    assert.equal(0, bench.broker:open_calls())
  end)

  it("takes errors and payloads of their own frame back as well", function()
    local w, c = bench:worker("w", "S", { credit = 2 }), bench:client "c"
    c:request(1, "S", { payload = ("a"):rep(20000) })
    c:request(2, "S")
    local first, second = w:hear "REQUEST", w:hear "REQUEST"
    assert.equal(("a"):rep(20000), first.payload)
    local failed = engine.put_exception("E", "text", "")
    w:say { type = "ERROR", route = second.route, status = 9, payload = failed }
    w:say { type = "REPLY", route = first.route, payload = ("r"):rep(20000) }
    local failure = c:hear "ERROR"
    assert.same({ 2, "INTERNAL", "E", "text" }, { failure.id, failure.code, failure.class, failure.text })
    assert.equal(("r"):rep(20000), c:hear("REPLY").payload)
  end)

  it("keeps equal ids of different clients apart", function()
    local w = bench:worker("w", "S", { credit = 3 })
    local clients = { bench:client "a", bench:client "b", bench:client("a", "local_front") }
    for i, c in ipairs(clients) do c:request(1, "S", { payload = tostring(i) }) end
    local requests = w:take()
    for i = 3, 1, -1 do answer(w, requests[i], { payload = requests[i].payload }) end
    for i, c in ipairs(clients) do assert.equal(tostring(i), c:hear("REPLY").payload) end
  end)

  it("serves clients and workers in its own process like others", function()
    local w, c = bench:worker("x", "S", nil, "local_back"), bench:client("x", "local_front")
    c:request(1, "S")
    answer(w, w:hear "REQUEST")
    assert.equal(1, c:hear("REPLY").id)
  end)

  it("refuses at once what nobody registered, what nobody serves now, and bad names", function()
    bench:worker("w", "Left"):say { type = "BYE" }
    local c = bench:client "c"
    c:request(1, "Nobody")
    assert_error("NOT_FOUND", 1, c:hear())
    c:request(2, "Left")
    assert_error("UNAVAILABLE", 2, c:hear())
    c:request(3, "no name")
    assert_error("INVALID_ARGUMENT", 3, c:hear())
    c:request(4, "Left", { method = "" })
    assert_error("INVALID_ARGUMENT", 4, c:hear())
    local stats = bench:stats()
    assert.same({ 4, 4, 0 }, { stats.requests, stats.answers, stats.calls })
  end)

  it("says the name of the service when it refuses, however long that is", function()
    local c = bench:client "c"
    c:request(1, ("n"):rep(255))
    assert.is_truthy(c:hear("ERROR").text:find(("n"):rep(255) .. " is not registered", 1, true))
  end)

  it("refuses an id that is under way and lets the first call go on", function()
    local w, c = bench:worker("w", "S", { credit = 2 }), bench:client "c"
    c:request(1, "S")
    c:request(1, "S")
    assert_error("INVALID_ARGUMENT", 1, c:hear())
    local requests = w:take()
    assert.equal(1, #requests)
    answer(w, requests[1])
    assert.equal(1, c:hear("REPLY").id)
    c:request(1, "S") -- it is free again
    w:hear "REQUEST"
  end)

  it("refuses an id whose call waits in line too", function()
    local c = bench:client "c"
    bench:worker("w", "S")
    c:request(1, "S")
    c:request(2, "S")
    c:request(2, "S")
    assert_error("INVALID_ARGUMENT", 2, c:hear())
    assert.equal(1, bench:stats().waiting)
  end)

  it("drops and counts a request without an id", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(0, "S")
    assert.is_nil(c:hear())
    assert.is_nil(w:hear())
    assert.same({ 0, 1 }, { bench:stats().requests, bench:stats().malformed })
  end)

  it("lets a client have so many calls and no more, waiting ones included", function()
    start { max_calls = 3 }
    local w, c, other = bench:worker("w", "S", { credit = 2 }), bench:client "c", bench:client "d"
    for id = 1, 4 do c:request(id, "S") end
    assert_error("RESOURCE_EXHAUSTED", 4, c:hear())
    other:request(1, "S")
    assert.is_nil(other:hear())
    answer(w, w:hear "REQUEST")
    c:hear "REPLY"
    c:request(5, "S")
    assert.is_nil(c:hear())
  end)

  it("takes so many peers and no more", function()
    start { max_peers = 2 }
    local w = bench:worker("w", "S")
    assert.is_true(bench:client("a"):request(1, "S"))
    assert.is_false(bench:client("b"):request(1, "S"))
    assert.is_true(bench:client("a"):request(2, "S"))
    bench:client("a"):say { type = "BYE" }
    assert.is_true(bench:client("b"):request(1, "S"))
    assert.equal(2, bench:stats().peers)
    w:take()
  end)

  it("takes routing ids of up to 255 bytes, and an empty one", function()
    bench:worker(("w"):rep(255), "S")
    bench:worker("", "S")
    assert.is_false(bench:peer("back", ("w"):rep(256)):ready "S")
    assert.equal(2, bench:stats().workers)
  end)
end)

describe("broker, who is next", function()
  ---Who gets each of `count` requests.
  local function spread(workers, count, first)
    local c, got = bench:client "c", {}
    for id = first or 1, (first or 1) + count - 1 do
      c:request(id, "S")
      bench:pump()
      for name, w in pairs(workers) do
        local request = w:hear()
        if request then
          got[#got + 1] = name
          w.last = request
          w.running = w.running or {}
          table.insert(w.running, request)
        end
      end
    end
    return table.concat(got)
  end

  it("is the worker with the fewest calls", function()
    local workers = { a = bench:worker("a", "S", { credit = 9 }), b = bench:worker("b", "S", { credit = 9 }) }
    assert.equal("abab", spread(workers, 4))
    answer(workers.b, workers.b.running[1])
    answer(workers.b, workers.b.running[2])
    assert.equal("bbab", spread(workers, 4, 5)) -- a 2 b 0, a 2 b 1, a 2 b 2 where a waited longer, ...
  end)

  it("is, among those with equally many, who was used least recently", function()
    local workers = {}
    for name in ("abc"):gmatch "." do workers[name] = bench:worker(name, "S", { credit = 9 }) end
    assert.equal("abc", spread(workers, 3))
    for _, name in ipairs { "b", "c", "a" } do answer(workers[name], workers[name].last) end
    assert.equal("bca", spread(workers, 3, 4))
  end)

  it("is nobody who has as many calls as it takes", function()
    local workers = { a = bench:worker("a", "S", { credit = 1 }), b = bench:worker("b", "S", { credit = 3 }) }
    assert.equal("abbb", spread(workers, 4))
    assert.equal("", spread(workers, 1, 5))
    assert.equal(1, bench:stats().waiting)
  end)

  it("gives workers of different credit each what it takes", function()
    local credits, total = { 1, 5, 2, 9, 3 }, 20
    local workers = {}
    for i, credit in ipairs(credits) do workers[i] = bench:worker("w" .. i, "S", { credit = credit }) end
    local c = bench:client "c"
    for id = 1, total + 1 do c:request(id, "S") end
    for i, w in ipairs(workers) do assert.equal(credits[i], #w:take()) end
    assert.equal(1, bench:stats().waiting)
  end)

  it("does not look at workers of other services", function()
    local s, t = bench:worker("s", "S"), bench:worker("t", "T", { credit = 9 })
    local c = bench:client "c"
    c:request(1, "S")
    c:request(2, "S")
    c:request(3, "T")
    assert.same({ 1 }, ids(s:take()))
    assert.same({ 3 }, ids(t:take()))
  end)
end)

describe("broker, the line", function()
  it("is first in, first out", function()
    local w, c, d = bench:worker("w", "S"), bench:client "c", bench:client "d"
    for id = 1, 3 do
      c:request(id, "S")
      d:request(id + 10, "S")
    end
    assert.equal(5, bench:stats().waiting)
    local order = {}
    for i = 1, 6 do
      local request = w:hear "REQUEST"
      order[i] = request.id
      answer(w, request)
    end
    assert.same({ 1, 11, 2, 12, 3, 13 }, order)
    assert.same({ 0, 0 }, { bench:stats().waiting, bench:stats().calls })
  end)

  it("is bounded by number, for each service", function()
    start { queue_len = 2 }
    local w, c = bench:worker("w", "S"), bench:client "c"
    bench:worker("t", "T")
    for id = 1, 4 do c:request(id, "S") end
    assert_error("RESOURCE_EXHAUSTED", 4, c:hear())
    for id = 5, 7 do c:request(id, "T") end
    assert.is_nil(c:hear())
    answer(w, w:hear "REQUEST")
    c:hear "REPLY"
    c:request(8, "S")
    assert.is_nil(c:hear())
    c:request(9, "S")
    assert_error("RESOURCE_EXHAUSTED", 9, c:hear())
  end)

  it("is bounded by bytes, of all services together", function()
    local size = #engine.build { type = "REQUEST", service = "S", method = "run" } + #"c"
    start { queue_bytes = 3 * size + 10 }
    local w, c = bench:worker("w", "S"), bench:client "c"
    bench:worker("t", "T")
    c:request(1, "S")
    c:request(2, "S")
    c:request(3, "S", { payload = ("x"):rep(10) })
    c:request(4, "T")
    c:request(5, "T")
    assert.is_nil(c:hear())
    c:request(6, "T")
    assert_error("RESOURCE_EXHAUSTED", 6, c:hear())
    c:say { type = "CANCEL", id = 3 }
    c:request(7, "S", { payload = ("x"):rep(11) })
    assert_error("RESOURCE_EXHAUSTED", 7, c:hear())
    c:request(8, "S", { payload = ("x"):rep(10) })
    assert.is_nil(c:hear())
    assert.same({ 1 }, ids(w:take()))
    assert.equal(3, bench:stats().waiting)
  end)

  it("holds 16384 requests of a service when nothing else is said", function()
    start { max_calls = 20000 }
    bench:worker("w", "S")
    local c = bench:client "c"
    for id = 1, 16385 do c:request(id, "S") end
    assert.is_nil(c:hear())
    c:request(16386, "S")
    assert_error("RESOURCE_EXHAUSTED", 16386, c:hear())
    assert.equal(16384, bench:stats().waiting)
  end)

  it("fails when the last worker has gone", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    for id = 1, 3 do c:request(id, "S") end
    w:say { type = "BYE" }
    assert_error("WORKER_LOST", 1, c:hear())
    assert_error("UNAVAILABLE", 2, c:hear())
    assert_error("UNAVAILABLE", 3, c:hear())
    assert.same({ 0, 0 }, { bench:stats().waiting, bench:stats().calls })
  end)

  it("is not given to the worker on behalf of a client that has gone", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    for id = 1, 50 do c:request(id, "S") end
    w:hear "REQUEST"
    c:say { type = "BYE" }
    assert.equal("CANCEL", w:types())
    assert.same({ 0, 0, 1 }, { bench:stats().waiting, bench:stats().calls, bench:stats().peers })
  end)
end)

describe("broker, deadlines", function()
  it("travel with the request, less the time it waited", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S", { deadline_ms = 1000 })
    c:request(2, "S", { deadline_ms = 1000 })
    c:request(3, "S")
    local first = w:hear "REQUEST"
    assert.equal(1000, first.deadline_ms)
    engine.at(400)
    answer(w, first)
    local second = w:hear "REQUEST"
    assert.equal(600, second.deadline_ms)
    engine.at(900)
    answer(w, second)
    assert.equal(0, w:hear("REQUEST").deadline_ms)
  end)

  it("end a waiting request exactly when they pass", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    c:request(2, "S", { deadline_ms = 500 })
    assert.equal(500, bench.broker:next_due())
    bench:tick(499)
    assert.is_nil(c:hear())
    bench:tick(500)
    assert_error("DEADLINE_EXCEEDED", 2, c:hear())
    assert.equal(0, bench:stats().waiting)
    answer(w, w:hear "REQUEST")
    assert.is_nil(w:hear())
  end)

  it("end a running request, and the worker is told", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S", { deadline_ms = 500 })
    local request = w:hear "REQUEST"
    bench:tick(499)
    assert.is_nil(w:hear())
    bench:tick(500)
    assert_error("DEADLINE_EXCEEDED", 1, c:hear())
    assert.equal(request.route, w:hear("CANCEL").route)
    answer(w, request)
    assert.is_nil(c:hear())
    assert.same({ 1, 0 }, { bench:stats().late, bench:stats().calls })
  end)

  it("free the worker for the next one in line", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S", { deadline_ms = 500 })
    c:request(2, "S")
    w:hear "REQUEST"
    bench:tick(500)
    w:hear "CANCEL"
    assert.equal(2, w:hear("REQUEST").id)
  end)

  it("are kept in order of time, not of arrival", function()
    bench:worker("w", "S", { credit = 100 })
    local c = bench:client "c"
    local order = { 300, 100, 250, 50, 200, 150, 350, 10 }
    for id, ms in ipairs(order) do c:request(id, "S", { deadline_ms = ms }) end
    table.sort(order)
    for _, ms in ipairs(order) do
      assert.equal(ms, bench.broker:next_due())
      bench:tick(ms - 1)
      assert.is_nil(c:hear())
      bench:tick(ms)
      assert.equal(1, #c:take())
    end
    assert.equal(0, bench:stats().calls)
  end)

  it("do not let a request that is over go to a worker when the broker comes late", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    for id = 1, 20 do c:request(id, "S", { deadline_ms = 500 + id }) end
    c:request(21, "S", { deadline_ms = 5000 })
    w:hear "REQUEST"
    engine.at(600)
    bench.broker:tick()
    w:hear "CANCEL"
    assert.equal(21, w:hear("REQUEST").id)
    assert.is_nil(w:hear())
    assert.equal(20, #c:take())
  end)

  it("do not let a request that is over go to a worker that becomes free before the tick", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    c:request(2, "S", { deadline_ms = 500 })
    c:request(3, "S", { deadline_ms = 501 })
    local first = w:hear "REQUEST"
    engine.at(500)
    answer(w, first)
    assert.equal(3, w:hear("REQUEST").id)
    assert_error("DEADLINE_EXCEEDED", 2, c:hear())
    assert.equal(1, c:hear("REPLY").id)
  end)

  it("of a request that was answered in time are forgotten", function()
    local w, c = bench:worker("w", "S", { deadline_ms = 0 }), bench:client "c"
    c:request(1, "S", { deadline_ms = 500 })
    answer(w, w:hear "REQUEST")
    c:hear "REPLY"
    bench:tick(500)
    assert.equal("", c:types())
    assert.is_true(bench.broker:next_due() > 500)
  end)
end)

describe("broker, CANCEL", function()
  it("takes a waiting request out of the line, without an answer", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    for id = 1, 3 do c:request(id, "S") end
    c:say { type = "CANCEL", id = 2 }
    assert.equal(1, bench:stats().waiting)
    answer(w, w:hear "REQUEST")
    assert.equal(3, w:hear("REQUEST").id)
    c:hear "REPLY"
    assert.is_nil(c:hear())
  end)

  it("tells the worker of a running one, and its place is free", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    c:request(2, "S")
    local request = w:hear "REQUEST"
    c:say { type = "CANCEL", id = 1 }
    local cancel = w:hear "CANCEL"
    assert.equal(request.route, cancel.route)
    assert.equal(2, w:hear("REQUEST").id)
    answer(w, request)
    assert.is_nil(c:hear())
    assert.equal(1, bench:stats().late)
  end)

  it("ends a stream likewise", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    local request = w:hear "REQUEST"
    w:say { type = "ITEM", route = request.route, count = 1 }
    c:hear "ITEM"
    c:say { type = "CANCEL", id = 1 }
    w:hear "CANCEL"
    w:say { type = "ITEM", route = request.route, count = 1 }
    assert.is_nil(c:hear())
    assert.same({ 0, 1 }, { bench:stats().calls, bench:stats().late })
  end)

  it("means nothing for a call that is over, was never made, or is another client's", function()
    local w, c, d = bench:worker("w", "S", { credit = 2 }), bench:client "c", bench:client "d"
    c:request(1, "S")
    answer(w, w:hear "REQUEST")
    c:hear "REPLY"
    c:say { type = "CANCEL", id = 1 }
    c:say { type = "CANCEL", id = 9 }
    c:request(2, "S")
    local request = w:hear "REQUEST"
    d:say { type = "CANCEL", id = 2 }
    d:say { type = "CANCEL", id = 2, route = request.route }
    assert.is_nil(w:hear())
    answer(w, request)
    c:hear "REPLY"
    assert.equal(0, bench:stats().late)
  end)
end)

describe("broker, answers", function()
  local w, x, c

  before_each(function()
    w, x, c = bench:worker("w", "S", { credit = 4 }), bench:worker("x", "T", { credit = 4 }), bench:client "c"
  end)

  it("of a worker to another worker's call are dropped and counted", function()
    c:request(1, "S")
    local request = w:hear "REQUEST"
    for i, type in ipairs { "REPLY", "ITEM", "END", "ERROR" } do
      x:say { type = type, route = request.route, count = 1 }
      assert.equal(i, bench:stats().late)
    end
    assert.is_nil(c:hear())
    answer(w, request)
    c:hear "REPLY"
  end)

  it("that come a second time are dropped and counted", function()
    for i, type in ipairs { "REPLY", "END", "ERROR" } do
      c:request(i, "S")
      local request = w:hear "REQUEST"
      w:say { type = type, route = request.route }
      w:say { type = type, route = request.route }
      assert.equal("ERROR" == type and "ERROR" or type, c:hear(type).type)
      assert.is_nil(c:hear())
      assert.equal(i, bench:stats().late)
    end
  end)

  it("with a route that never was are dropped and counted", function()
    c:request(1, "S")
    local request = w:hear "REQUEST"
    local good = request.route
    for i, route in ipairs { 0, 1, good + 1, good + (1 << 32), good & 0xffffffff, -1 } do
      w:say { type = "REPLY", route = route }
      assert.equal(i, bench:stats().late)
    end
    assert.is_nil(c:hear())
  end)

  it("to an older call in the same place are dropped and counted", function()
    c:request(1, "S")
    local old = w:hear "REQUEST"
    c:say { type = "CANCEL", id = 1 }
    w:hear "CANCEL"
    c:request(2, "S")
    local new = w:hear "REQUEST"
    assert.equal(old.route & 0xffffffff, new.route & 0xffffffff) -- the same slot, another generation
    answer(w, old)
    assert.is_nil(c:hear())
    assert.equal(1, bench:stats().late)
    answer(w, new)
    assert.equal(2, c:hear("REPLY").id)
  end)

  it("of who is no worker are dropped and counted", function()
    c:request(1, "S")
    local request = w:hear "REQUEST"
    local stranger = bench:peer("back", "stranger")
    stranger:say { type = "REPLY", route = request.route }
    assert.equal(1, bench:stats().late)
    c:say { type = "REPLY", route = request.route, id = 1 }
    assert.equal(1, bench:stats().malformed)
    assert.is_nil(c:hear())
  end)

  it("to a client that has gone are dropped and counted, and the worker was told", function()
    c:request(1, "S")
    local request = w:hear "REQUEST"
    c:say { type = "BYE" }
    assert.equal(request.route, w:hear("CANCEL").route)
    answer(w, request)
    assert.equal(1, bench:stats().late)
    c:request(1, "S") -- the same id at the same address, but a new client
    local new = w:hear "REQUEST"
    answer(w, request)
    assert.is_nil(c:hear())
    answer(w, new)
    c:hear "REPLY"
  end)

  it("meant for another broker do not fit the calls of this one", function()
    local routes = {}
    for instance = 1, 8 do
      start { instance = instance * 0x123456789abcdef }
      local other, client = bench:worker("w", "S"), bench:client "c"
      client:request(1, "S")
      local route = other:hear("REQUEST").route
      assert.is_nil(routes[route])
      routes[route] = true
    end
  end)
end)

describe("broker, a worker that goes away", function()
  local function lose(w) w:say { type = "BYE" } end

  it("takes calls with it", function()
    local w, c = bench:worker("w", "S", { credit = 2 }), bench:client "c"
    bench:worker("spare", "S", { credit = 9 })
    for id = 1, 4 do c:request(id, "S") end
    lose(w)
    assert_error("WORKER_LOST", 1, c:hear())
    assert_error("WORKER_LOST", 3, c:hear())
    assert.is_nil(c:hear())
    local stats = bench:stats()
    assert.same({ 2, 2, 0, 1 }, { stats.lost, stats.calls, stats.redispatch, stats.workers })
  end)

  it("leaves idempotent ones to another, twice, with what remains of their deadline", function()
    local c, last = bench:client "c"
    local workers = {}
    for i = 1, 4 do workers[i] = bench:worker("w" .. i, "S", { payload = IDEMPOTENT }) end
    c:request(1, "S", { payload = "args", split = 4, deadline_ms = 1000, credit = 5, window = 6 })
    for i = 1, 3 do
      engine.at(i * 100)
      local request = workers[i]:hear "REQUEST"
      assert.same({ 1, "args", 4, 5, 6 },
        { request.id, request.payload, request.split, request.credit, request.window })
      assert.equal(i == 1 and 1000 or 1000 - i * 100 + 100, request.deadline_ms)
      last = request
      lose(workers[i])
    end
    assert.is_truthy(last)
    assert.is_nil(workers[4]:hear())
    assert_error("WORKER_LOST", 1, c:hear())
    assert.same({ 2, 1 }, { bench:stats().redispatch, bench:stats().lost })
  end)

  it("leaves idempotent ones to another, which may answer", function()
    local c = bench:client "c"
    local w1 = bench:worker("w1", "S", { payload = IDEMPOTENT })
    local w2 = bench:worker("w2", "S")
    c:request(1, "S", { payload = ("big"):rep(10000) })
    local first = w1:hear "REQUEST"
    lose(w1)
    local again = w2:hear "REQUEST"
    assert.equal(("big"):rep(10000), again.payload)
    assert.equal(first.id, again.id)
    answer(w2, again)
    assert.equal(1, c:hear("REPLY").id)
    assert.same({ 1, 0, 0 }, { bench:stats().redispatch, bench:stats().lost, bench:stats().calls })
  end)

  it("leaves only those methods that were said to be idempotent", function()
    local c = bench:client "c"
    local w = bench:worker("w", "S", { credit = 4, payload = about {
      methods = { yes = { idempotent = true }, no = { idempotent = false }, number = { idempotent = 1 } } } })
    bench:worker("spare", "S", { credit = 0 })
    for id, method in ipairs { "yes", "no", "number", "other", "ye", "yess" } do
      if id <= 4 then c:request(id, "S", { method = method }) end
    end
    w:take()
    c:take()
    lose(w)
    local failed = ids(c:take())
    assert.is_true(#failed >= 2)
    for _, id in ipairs(failed) do assert.not_equal(1, id) end
  end)

  it("fails idempotent ones too when nobody else is there", function()
    local w, c = bench:worker("w", "S", { payload = IDEMPOTENT }), bench:client "c"
    c:request(1, "S")
    lose(w)
    assert_error("WORKER_LOST", 1, c:hear())
    assert.same({ 0, 1 }, { bench:stats().redispatch, bench:stats().lost })
  end)

  it("fails idempotent ones too when all others are leaving", function()
    local w, c = bench:worker("w", "S", { payload = IDEMPOTENT }), bench:client "c"
    bench:worker("x", "S"):say { type = "BYE", flags = DRAIN }
    c:request(1, "S")
    w:hear "REQUEST"
    lose(w)
    assert_error("WORKER_LOST", 1, c:hear())
    assert.equal(0, bench:stats().waiting)
  end)

  it("puts idempotent ones first in line, in their order, when the others are busy", function()
    local c = bench:client "c"
    local busy = bench:worker("busy", "S")
    c:request(1, "S")
    local w = bench:worker("w", "S", { credit = 3, payload = IDEMPOTENT })
    for id = 2, 7 do c:request(id, "S") end
    assert.same({ 2, 3, 4 }, ids(w:take()))
    lose(w)
    local order = {}
    for i = 1, 7 do
      local request = busy:hear "REQUEST"
      order[i] = request.id
      answer(busy, request)
    end
    assert.same({ 1, 2, 3, 4, 5, 6, 7 }, order)
    assert.equal(3, bench:stats().redispatch)
  end)

  it("gives the oldest to those who are free", function()
    local c = bench:client "c"
    local w = bench:worker("w", "S", { credit = 4, payload = IDEMPOTENT })
    for id = 1, 4 do c:request(id, "S") end
    local x = bench:worker("x", "S", { credit = 2 })
    lose(w)
    assert.same({ 1, 2 }, ids(x:take()))
    assert.equal(2, bench:stats().waiting)
  end)

  it("does not leave a stream to another after its first item", function()
    local c = bench:client "c"
    local w = bench:worker("w", "S", { payload = IDEMPOTENT })
    local spare = bench:worker("spare", "S")
    c:request(1, "S")
    local request = w:hear "REQUEST"
    w:say { type = "ITEM", route = request.route, count = 1 }
    c:hear "ITEM"
    lose(w)
    assert_error("WORKER_LOST", 1, c:hear())
    assert.is_nil(spare:hear())
  end)

  it("lets a call that waits for another worker be cancelled, expire, and lose its client", function()
    local c, d = bench:client "c", bench:client "d"
    local w = bench:worker("w", "S", { credit = 3, payload = IDEMPOTENT })
    c:request(1, "S")
    c:request(2, "S", { deadline_ms = 1000 })
    d:request(3, "S")
    local spare = bench:worker("spare", "S")
    c:request(4, "S")
    assert.equal(4, spare:hear("REQUEST").id)
    lose(w)
    assert.equal(3, bench:stats().waiting)
    c:say { type = "CANCEL", id = 1 }
    assert.equal(2, bench:stats().waiting)
    bench:tick(1000)
    assert_error("DEADLINE_EXCEEDED", 2, c:hear())
    d:say { type = "BYE" }
    assert.same({ 0, 1 }, { bench:stats().waiting, bench:stats().calls })
  end)

  it("forgets what was idempotent when the last worker has gone", function()
    local w = bench:worker("w", "S", { payload = IDEMPOTENT })
    lose(w)
    w = bench:worker("w", "S")
    local spare, c = bench:worker("spare", "S"), bench:client "c"
    c:request(1, "S")
    lose(w)
    assert_error("WORKER_LOST", 1, c:hear())
    assert.is_nil(spare:hear())
  end)

  it("is one that does not beat, or that cannot be reached", function()
    local w, c = bench:worker("w", "S", { deadline_ms = 100, window = 2 }), bench:client "c"
    c:request(1, "S")
    bench:tick(199)
    assert.is_nil(c:hear())
    bench:tick(200)
    assert_error("WORKER_LOST", 1, c:hear())
    w:ready("S", { deadline_ms = 0 })
    assert.equal("back", (bench.broker:next_out()))
    bench.broker:unreachable()
    c:request(2, "S")
    assert_error("UNAVAILABLE", 2, c:hear())
    assert.equal(0, bench:stats().workers)
  end)

  it("in this process is one that is said to be gone", function()
    local w, c = bench:worker("w", "S", nil, "local_back"), bench:client("c", "local_front")
    c:request(1, "S")
    bench.broker:local_gone("local_front", "w") -- another door
    bench.broker:local_gone("local_back", "nobody")
    assert.equal(2, bench:stats().peers)
    bench.broker:local_gone("local_back", "w")
    assert_error("WORKER_LOST", 1, c:hear())
    assert.is_nil(w:hear())
    bench.broker:local_gone("local_front", "c")
    assert.equal(0, bench:stats().peers)
  end)
end)

describe("broker, drain of a worker", function()
  it("gives it no more requests; what runs is answered", function()
    local w, x = bench:worker("w", "S", { credit = 2 }), bench:worker("x", "S", { credit = 9 })
    local c = bench:client "c"
    c:request(1, "S")
    local running = w:hear "REQUEST"
    w:say { type = "BYE", flags = DRAIN }
    assert.equal(DRAIN, w:hear("BYE").flags)
    for id = 2, 5 do c:request(id, "S") end
    assert.is_nil(w:hear())
    assert.equal(4, #x:take())
    answer(w, running)
    assert.equal(1, c:hear("REPLY").id)
    assert.is_nil(w:hear())
    w:say { type = "BYE" }
    assert.equal(1, bench:stats().workers)
    assert.equal(0, bench:stats().lost)
  end)

  it("may be asked for twice", function()
    local w = bench:worker("w", "S")
    w:say { type = "BYE", flags = DRAIN }
    w:say { type = "BYE", flags = DRAIN }
    assert.equal("BYE BYE", w:types())
    w:say { type = "BYE" }
    assert.equal(0, bench:stats().workers)
  end)

  it("fails what waits when it was the last one, and what comes after", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    c:request(2, "S")
    local running = w:hear "REQUEST"
    w:say { type = "BYE", flags = DRAIN }
    assert_error("UNAVAILABLE", 2, c:hear())
    c:request(3, "S")
    assert_error("UNAVAILABLE", 3, c:hear())
    answer(w, running)
    assert.equal(1, c:hear("REPLY").id)
  end)

  it("fails what waits when all others leave too, one after the other", function()
    local w, x, c = bench:worker("w", "S"), bench:worker("x", "S"), bench:client "c"
    for id = 1, 3 do c:request(id, "S") end
    w:say { type = "BYE", flags = DRAIN }
    assert.is_nil(c:hear())
    x:say { type = "BYE", flags = DRAIN }
    assert_error("UNAVAILABLE", 3, c:hear())
    c:request(4, "S")
    assert_error("UNAVAILABLE", 4, c:hear())
    assert.equal(0, bench:stats().waiting)
  end)

  it("fails what waits when only leaving ones remain", function()
    local w, x, c = bench:worker("w", "S"), bench:worker("x", "S"), bench:client "c"
    for id = 1, 3 do c:request(id, "S") end
    w:say { type = "BYE", flags = DRAIN }
    x:say { type = "BYE" }
    assert.same({ 2, 3 }, ids(c:take()))
    assert.equal(0, bench:stats().waiting)
  end)

  it("ends when it registers anew", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    w:say { type = "BYE", flags = DRAIN }
    w:hear "BYE"
    w:ready "S"
    w:hear "READY"
    c:request(1, "S")
    assert.equal(1, w:hear("REQUEST").id)
    w:say { type = "BYE", flags = DRAIN }
    w:say { type = "BYE" }
    c:request(2, "S")
    assert.equal("ERROR ERROR", c:types())
  end)

  it("of who is no worker is a good-bye", function()
    local stranger = bench:peer("back", "x")
    stranger:say { type = "BYE", flags = DRAIN }
    assert.equal(0, bench:stats().peers)
    assert.is_nil(stranger:hear())
  end)
end)

describe("broker, drain of itself", function()
  it("fails what waits, refuses what comes, and lets run what runs", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    c:request(2, "S")
    local running = w:hear "REQUEST"
    bench.broker:drain()
    assert_error("UNAVAILABLE", 2, c:hear())
    assert.equal(DRAIN, c:hear("BYE").flags)
    c:request(3, "S")
    assert_error("UNAVAILABLE", 3, c:hear())
    c:request(4, "Gate", { method = "client_heartbeat" })
    assert_error("UNAVAILABLE", 4, c:hear())
    assert.equal(1, bench.broker:open_calls())
    answer(w, running)
    assert.equal(1, c:hear("REPLY").id)
    assert.equal(0, bench.broker:open_calls())
    assert.is_nil(w:hear())
  end)

  it("takes no more workers", function()
    bench.broker:drain()
    local w = bench:peer("back", "w")
    w:ready "S"
    assert.is_nil(w:hear())
    assert.same({ 0, 0 }, { bench:stats().workers, bench:stats().services })
  end)

  it("may be asked for twice", function()
    local c = bench:client "c"
    c:say { type = "HELLO" }
    bench.broker:drain()
    bench.broker:drain()
    assert.equal("HELLO BYE", c:types())
  end)

  it("still gives idempotent calls to another worker", function()
    local c = bench:client "c"
    local w, x = bench:worker("w", "S", { payload = IDEMPOTENT }), bench:worker("x", "S")
    c:request(1, "S")
    bench.broker:drain()
    w:say { type = "BYE" }
    answer(x, x:hear "REQUEST")
    assert.equal("BYE REPLY", c:types())
  end)

  it("leaves with an answer to every call and a good-bye to everybody", function()
    local w, x, c = bench:worker("w", "S"), bench:worker("x", "T"), bench:client "c"
    local d, stranger = bench:client "d", bench:peer("back", "stranger")
    d:say { type = "HELLO" }
    stranger:say { type = "REPLY", route = 1 }
    c:request(1, "S")
    c:request(2, "S")
    bench.broker:leave()
    assert.equal("REQUEST CANCEL BYE", w:types())
    assert.equal("BYE", x:types())
    assert.equal("HELLO BYE", d:types())
    assert.equal("", stranger:types())
    local got = c:take()
    assert.equal("ERROR ERROR BYE", engine.types(got))
    assert.same({ "UNAVAILABLE", "UNAVAILABLE", 0 }, { got[1].code, got[2].code, got[3].flags })
    assert.same({ 0, 0 }, { bench:stats().calls, bench:stats().waiting })
    c:request(3, "S")
    assert_error("UNAVAILABLE", 3, c:hear())
  end)
end)

describe("broker, heartbeats", function()
  it("go to a peer that heard nothing for a while", function()
    start { heartbeat_ms = 1000 }
    local w, c = bench:worker("w", "S", { deadline_ms = 0 }), bench:client "c"
    c:say { type = "HELLO", deadline_ms = 0 }
    c:hear "HELLO"
    bench:tick(999)
    assert.equal("", w:types())
    bench:tick(1000)
    assert.equal("HEARTBEAT", w:types())
    assert.equal("HEARTBEAT", c:types())
    engine.at(1500)
    c:request(1, "S")
    w:hear "REQUEST"
    bench:tick(2000)
    assert.equal("", w:types()) -- the request was as good
    assert.equal("HEARTBEAT", c:types())
    bench:tick(2500)
    assert.equal("HEARTBEAT", w:types())
    assert.equal(3000, bench.broker:next_due())
  end)

  it("of a peer are expected as often as it said, whatever our own are", function()
    start { heartbeat_ms = 100, liveness = 2 }
    bench:worker("slow", "S", { deadline_ms = 5000, window = 4 })
    bench:worker("fast", "S", { deadline_ms = 200, window = 3 })
    bench:pass(599)
    assert.equal(2, bench:stats().workers)
    bench:pass(600)
    assert.equal(1, bench:stats().workers)
    bench:pass(19999)
    assert.equal(1, bench:stats().workers)
    bench:pass(20000)
    assert.equal(0, bench:stats().workers)
  end)

  it("of a client are expected likewise; its calls end with it", function()
    local w, c = bench:worker("w", "S", { deadline_ms = 0 }), bench:client "c"
    c:say { type = "HELLO", deadline_ms = 100, window = 2 }
    c:request(1, "S")
    local request = w:hear "REQUEST"
    bench:pass(199)
    assert.equal("", w:types())
    bench:pass(200)
    assert.equal(request.route, w:hear("CANCEL").route)
    assert.same({ 1, 0 }, { bench:stats().peers, bench:stats().calls })
  end)

  it("may be any message that can be read", function()
    local w, c = bench:worker("w", "S", { deadline_ms = 0, credit = 9 }), bench:client "c"
    c:say { type = "HELLO", deadline_ms = 100, window = 2 }
    local says = {
      { type = "HEARTBEAT" }, { type = "REQUEST", id = 1, service = "S", method = "run" },
      { type = "CREDIT", id = 1 }, { type = "CANCEL", id = 1 }, { type = "CANCEL", id = 2 },
      { type = "CHUNK" },
      { type = "HELLO", deadline_ms = 100, window = 2 },
    }
    for i, envelope in ipairs(says) do
      bench:pass(i * 199)
      c:say(envelope)
    end
    assert.equal(2, bench:stats().peers)
    engine.at((#says + 1) * 199)
    c:send "garbage"
    bench:pass((#says + 1) * 199 + 1)
    assert.equal(1, bench:stats().peers)
    w:take()
  end)

  it("are bounded in what a peer may promise", function()
    bench:worker("quick", "S", { deadline_ms = 1, window = 0 }) -- 50 ms, once
    bench:worker("lazy", "S", { deadline_ms = 0xffffffff, window = 0xffffffff }) -- an hour, 100 times
    bench:pass(49)
    assert.equal(2, bench:stats().workers)
    bench:pass(50)
    assert.equal(1, bench:stats().workers)
    bench:pass(3600 * 1000 * 100 - 1)
    assert.equal(1, bench:stats().workers)
    bench:pass(3600 * 1000 * 100)
    assert.equal(0, bench:stats().workers)
  end)

  it("are not missed in a time in which the broker itself did not run, which may happen three times", function()
    start { heartbeat_ms = 100 }
    local one = bench:worker("one", "S", { deadline_ms = 100, window = 2 })
    bench:worker("two", "S", { deadline_ms = 100, window = 2 })
    bench:tick(5000)
    assert.equal(2, bench:stats().workers)
    bench:pass(5199)
    assert.equal(2, bench:stats().workers)
    one:say { type = "HEARTBEAT" }
    bench:pass(5200)
    assert.equal(1, bench:stats().workers)
    for i = 2, 5 do
      bench:tick(i * 5000)
      assert.equal(i < 5 and 1 or 0, bench:stats().workers)
    end
  end)

  it("are not missed either when the first thing that the broker does is to say something", function()
    start { heartbeat_ms = 100 }
    bench:worker("w", "S", { deadline_ms = 100, window = 2 })
    engine.at(5000)
    bench:client("c"):request(1, "S")
    bench:tick(5000)
    assert.equal(1, bench:stats().workers)
  end)

  it("are not expected of a peer that says that it never beats", function()
    bench:worker("w", "S", { deadline_ms = 0 })
    bench:pass(3600 * 1000 * 1000)
    assert.equal(1, bench:stats().workers)
  end)

  it("are expected as often as our own from a client that never said HELLO", function()
    start { heartbeat_ms = 100, liveness = 2 }
    bench:client("c"):request(1, "S")
    bench:pass(199)
    assert.equal(1, bench:stats().peers)
    bench:pass(200)
    assert.equal(0, bench:stats().peers)
  end)

  it("neither go to peers in this process nor are they expected from there", function()
    local w, c = bench:worker("w", "S", nil, "local_back"), bench:client("c", "local_front")
    c:say { type = "HELLO" }
    c:hear "HELLO"
    assert.is_nil(bench.broker:next_due())
    bench:pass(3600 * 1000)
    assert.equal("", w:types())
    assert.equal("", c:types())
    assert.equal(2, bench:stats().peers)
  end)

  it("do not go to strangers, who are forgotten after a while", function()
    local stranger = bench:peer("back", "x")
    stranger:say { type = "REPLY", route = 1 }
    bench:pass(3000)
    assert.equal("", stranger:types())
    bench:pass(8999)
    assert.equal(1, bench:stats().peers)
    bench:pass(9000)
    assert.equal(0, bench:stats().peers)
  end)

  it("of strangers are answered with BYE, so that they register anew", function()
    local w, c = bench:worker("w", "S", { deadline_ms = 100, window = 1 }), bench:client "c"
    c:say { type = "HELLO", deadline_ms = 100, window = 1 }
    bench:pass(200)
    assert.equal(0, bench:stats().peers)
    w:take()
    c:take()
    w:say { type = "HEARTBEAT" }
    c:say { type = "HEARTBEAT" }
    assert.equal(0, w:hear("BYE").flags)
    assert.equal(0, c:hear("BYE").flags)
    w:ready "S"
    w:hear "READY"
    c:say { type = "HELLO", deadline_ms = 3000, window = 3 }
    c:hear "HELLO"
    c:request(1, "S")
    answer(w, w:hear "REQUEST")
    c:hear "REPLY"
  end)

  it("let a broker sleep when nobody is there", function()
    assert.is_nil(bench.broker:next_due())
    bench:worker("w", "S"):say { type = "BYE" }
    assert.is_nil(bench.broker:next_due())
  end)
end)

describe("broker, what makes no sense", function()
  it("is counted, and its sender stays when it was known", function()
    local w, c = bench:worker("w", "S"), bench:client "c"
    c:request(1, "S")
    for i, send in ipairs {
      function() c:send "" end,
      function() c:send() end,
      function() w:send("garbage", "more") end,
      function() c:say { type = "READY", service = "S" } end,
      function() c:say { type = "CHUNK" } end,
      function() w:say { type = "HELLO" } end,
      function() w:say { type = "REQUEST", id = 1, service = "S", method = "m" } end,
      function() w:say { type = "CANCEL" } end,
    } do
      send()
      assert.equal(i, bench:stats().malformed)
    end
    answer(w, w:hear "REQUEST")
    assert.equal(1, c:hear("REPLY").id)
  end)

  it("from a stranger is counted, and the stranger forgotten", function()
    local stranger = bench:peer("back", "x")
    stranger:send "garbage"
    assert.same({ 1, 0 }, { bench:stats().malformed, bench:stats().peers })
    stranger:send("garbage", "again")
    assert.same({ 2, 0 }, { bench:stats().malformed, bench:stats().peers })
    assert.is_nil(stranger:hear())
    stranger:ready "S"
    stranger:hear "READY"
  end)

  it("cannot be a request for a reply of another: only workers answer, only clients ask", function()
    local w = bench:worker("w", "S")
    local evil = bench:peer("back", "evil")
    evil:request(1, "S")
    assert.is_nil(w:hear())
    assert.is_nil(evil:hear())
    assert.equal(1, bench:stats().malformed)
  end)
end)

describe("broker, streams", function()
  local w, c, request

  local function open(options, more)
    start(options)
    w, c = bench:worker("w", "S", { deadline_ms = 0, credit = 2 }), bench:client "c"
    c:say { type = "HELLO" }
    c:hear "HELLO"
    c:request(1, "S", more)
    request = w:hear "REQUEST"
  end

  local function item(seq)
    w:say { type = "ITEM", route = request.route, split = seq, count = 1, payload = "i" .. seq }
  end

  it("come in order, with their numbers, and end", function()
    open()
    for seq = 0, 4 do item(seq) end
    w:say { type = "END", route = request.route, split = 5, count = 2, payload = "last" }
    for seq = 0, 4 do
      local got = c:hear "ITEM"
      assert.same({ 1, seq, 1, "i" .. seq }, { got.id, got.split, got.count, got.payload })
    end
    local last = c:hear "END"
    assert.same({ 1, 5, 2, "last" }, { last.id, last.split, last.count, last.payload })
    local stats = bench:stats()
    assert.same({ 5, 1, 0 }, { stats.items, stats.answers, stats.calls })
    item(7)
    assert.is_nil(c:hear())
    assert.equal(1, bench:stats().late)
  end)

  it("may end with an error", function()
    open()
    item(0)
    w:say { type = "ERROR", route = request.route, status = 9, payload = engine.put_exception("E", "m", "") }
    assert.equal("ITEM ERROR", c:types())
    assert.equal(0, bench:stats().calls)
  end)

  it("get the credit that the client gives, under their route", function()
    open()
    c:say { type = "CREDIT", id = 1, credit = 10, window = 20 }
    local credit = w:hear "CREDIT"
    assert.same({ request.route, 1, 10, 20 }, { credit.route, credit.id, credit.credit, credit.window })
  end)

  it("get no credit of others, and none when they are over", function()
    open()
    local other = bench:client "other"
    other:say { type = "CREDIT", id = 1, route = request.route, credit = 10 }
    c:say { type = "CREDIT", id = 2, route = request.route, credit = 10 }
    assert.is_nil(w:hear())
    w:say { type = "END", route = request.route }
    c:say { type = "CREDIT", id = 1, credit = 10 }
    assert.is_nil(w:hear())
  end)

  it("get the credit that was given while their request waited", function()
    open()
    c:request(2, "S")
    c:request(3, "S", { credit = 4, window = 5 })
    assert.equal(2, w:hear("REQUEST").id)
    c:say { type = "CREDIT", id = 3, credit = 10, window = 20 }
    c:say { type = "CREDIT", id = 3, credit = 1, window = 2 }
    assert.is_nil(w:hear())
    w:say { type = "END", route = request.route }
    local waited = w:hear "REQUEST"
    assert.same({ 3, 4, 5 }, { waited.id, waited.credit, waited.window })
    local credit = w:hear "CREDIT"
    assert.same({ waited.route, 11, 22 }, { credit.route, credit.credit, credit.window })
    assert.is_nil(w:hear())
  end)

  it("get all their credit again at another worker", function()
    start()
    local first = bench:worker("first", "S", { payload = IDEMPOTENT })
    local second = bench:worker("second", "S")
    c = bench:client "c"
    c:request(1, "S", { credit = 4, window = 5 })
    first:hear "REQUEST"
    c:say { type = "CREDIT", id = 1, credit = 10, window = 20 }
    assert.equal(10, first:hear("CREDIT").credit)
    first:say { type = "BYE" }
    assert.equal(4, second:hear("REQUEST").credit)
    local credit = second:hear "CREDIT"
    assert.same({ 10, 20 }, { credit.credit, credit.window })
  end)

  it("have no deadline once they have begun", function()
    open({ idle_ms = 10000 }, { deadline_ms = 500 })
    engine.at(400)
    item(0)
    c:hear "ITEM"
    bench:tick(500)
    bench:tick(10399)
    assert.equal("ITEM", (item(1) or c:types()):gsub("HEARTBEAT ?", ""):gsub(" $", ""))
    assert.equal(1, bench:stats().calls)
  end)

  it("end when they do not move for too long", function()
    open { idle_ms = 10000 }
    item(0)
    bench:tick(9999)
    item(1)
    bench:tick(19998)
    assert.equal(1, bench:stats().calls)
    c:say { type = "CREDIT", id = 1, credit = 1 }
    bench:tick(29997)
    assert.equal(1, bench:stats().calls)
    w:take()
    c:take()
    bench:tick(29998)
    assert.equal("CANCEL", w:hear().type)
    assert_error("DEADLINE_EXCEEDED", 1, c:hear())
    assert.equal(0, bench:stats().calls)
  end)

  it("end when they do not move for too long, though their call's deadline is further away", function()
    open({ idle_ms = 10000 }, { deadline_ms = 3600 * 1000 })
    item(0)
    c:hear "ITEM"
    bench:tick(9999)
    assert.equal(1, bench:stats().calls)
    bench:tick(10000)
    assert.equal(0, bench:stats().calls)
  end)

  it("may take as long as they want to begin when they have no deadline", function()
    open { idle_ms = 10000 }
    bench:tick(1000000)
    assert.equal(1, bench:stats().calls)
    item(0)
    bench:tick(1009999)
    assert.equal(1, bench:stats().calls)
    bench:tick(1010000)
    assert.equal(0, bench:stats().calls)
  end)
end)

describe("broker, a peer that does not read", function()
  local w, c

  local function reply(id, payload)
    c:request(id, "S")
    answer(w, w:hear "REQUEST", { payload = payload })
  end

  local function payloads(messages)
    local list = {}
    for i, each in ipairs(messages) do list[i] = each.payload end
    return table.concat(list)
  end

  local function open(options)
    start(options)
    w, c = bench:worker("w", "S", { deadline_ms = 0 }), bench:client "c"
    c:say { type = "HELLO" }
    c:hear "HELLO"
    bench.stalled["front c"] = true
  end

  it("gets everything later, in order", function()
    open()
    for id, payload in ipairs { "a", "b", "c" } do reply(id, payload) end
    bench:pump()
    assert.equal(5, bench.broker:next_due())
    bench:tick(4)
    assert.equal("", payloads(c:take()))
    bench:tick(5)
    reply(4, "d")
    bench:pump() -- still stalled: all go back in line
    reply(5, "e")
    assert.equal("", payloads(c:take()))
    bench.stalled = {}
    reply(6, "f")
    assert.equal("", payloads(c:take())) -- not before its turn
    bench:tick(10)
    reply(7, "g")
    assert.equal("abcdefg", payloads(c:take()))
    bench:tick(15)
    reply(8, "h")
    assert.equal("h", payloads(c:take()))
    assert.equal(0, bench:stats().slow)
  end)

  it("may read some, then stall again, in order", function()
    open()
    for id, payload in ipairs { "a", "b", "c", "d" } do reply(id, payload) end
    bench:pump()
    bench:tick(5)
    local got = {}
    for i = 1, 2 do
      local via, _, frame = bench.broker:next_out()
      assert.equal("front", via)
      got[i] = engine.parse(frame).payload
    end
    bench:pump()
    reply(5, "e")
    bench:pump()
    bench.stalled = {}
    bench:tick(10)
    assert.equal("abcde", table.concat(got) .. payloads(c:take()))
  end)

  it("holds nobody else up", function()
    open()
    reply(1, "a")
    bench:pump()
    local d = bench:client "d"
    d:request(1, "S")
    answer(w, w:hear "REQUEST")
    d:hear "REPLY"
  end)

  it("is tried again every 5 ms, and not when nobody waits", function()
    open()
    c:say { type = "HELLO" }
    bench:pump()
    for ms = 5, 50, 5 do
      assert.equal(ms, bench.broker:next_due())
      bench:tick(ms)
      bench:pump()
    end
    bench.stalled = {}
    bench:tick(55)
    bench:pump()
    bench:tick(60) -- once more, to see that everything went out
    assert.equal(3000, bench.broker:next_due())
  end)

  it("is not tried again before what is in line was sent", function()
    open()
    reply(1, "a")
    bench:pump()
    bench.stalled = {}
    reply(2, "b") -- not pumped
    bench:tick(5)
    assert.equal("", payloads(c:take()))
    bench:tick(6)
    assert.equal("ab", payloads(c:take()))
  end)

  it("is tried again though there is something else to say at every tick", function()
    open()
    reply(1, "a")
    bench:pump()
    bench.stalled = {}
    for id = 2, 9 do c:request(id, "S", { deadline_ms = id * 10 }) end
    bench:pump()
    bench:tick(20)
    assert.equal("REPLY ERROR", c:types())
  end)

  it("is dropped, and its calls, when too many bytes wait for it", function()
    open { backlog_bytes = 1000 }
    c:request(100, "S")
    local running = w:hear "REQUEST"
    answer(w, running, { type = "ITEM", count = 1, payload = ("x"):rep(1000) })
    bench:pump()
    assert.equal(0, bench:stats().slow)
    c:say { type = "HELLO" }
    bench:pump()
    assert.equal(running.route, w:hear("CANCEL").route)
    local stats = bench:stats()
    assert.same({ 1, 1, 0 }, { stats.slow, stats.peers, stats.calls })
    bench:tick(5)
    bench.stalled = {}
    assert.equal("", c:types())
    c:say { type = "HELLO" } -- it is a new one
    assert.equal("HELLO", c:types())
  end)

  it("is dropped when too many messages wait for it", function()
    open()
    for _ = 1, 65536 do c:say { type = "HELLO" } end
    bench:pump()
    assert.equal(0, bench:stats().slow)
    c:say { type = "HELLO" }
    bench:pump()
    assert.equal(1, bench:stats().slow)
  end)

  it("may be a worker: its calls are lost when it is dropped", function()
    start { backlog_bytes = 1 }
    w, c = bench:worker("w", "S", { credit = 2 }), bench:client "c"
    bench.stalled["back w"] = true
    c:request(1, "S")
    bench:pump()
    assert.is_nil(c:hear())
    c:request(2, "S")
    bench:pump()
    assert.equal("ERROR ERROR", c:types())
    assert.same({ 1, 0, 2 }, { bench:stats().slow, bench:stats().workers, bench:stats().lost })
  end)

  it("may go away, and others who stall with it do not mind", function()
    open()
    local d, e = bench:client "d", bench:client "e"
    for _, each in ipairs { d, e } do
      bench.stalled[each.key] = true
      each:say { type = "HELLO" }
    end
    c:say { type = "HELLO" }
    bench:pump()
    d:say { type = "BYE" }
    bench.stalled = {}
    bench:tick(5)
    assert.equal("HELLO", c:types())
    assert.equal("HELLO", e:types())
    assert.equal("", d:types())
  end)

  it("leaves no memory behind when it has caught up and goes", function() -- for the sanitizers
    open()
    reply(1, "a")
    bench:pump()
    bench.stalled = {}
    bench:tick(5)
    assert.equal("a", payloads(c:take()))
    c:say { type = "BYE" }
    assert.equal("", c:types())
    assert.equal(1, bench:stats().peers)
  end)

  it("is forgotten when it turns out to be unreachable", function()
    open()
    c:request(1, "S")
    w:hear "REQUEST"
    c:say { type = "HELLO" }
    bench.broker:next_out()
    bench.broker:unreachable()
    assert.equal("CANCEL", w:types())
    assert.same({ 1, 0 }, { bench:stats().peers, bench:stats().calls })
  end)
end)

describe("broker, the service Gate", function()
  local c

  before_each(function() c = bench:client "c" end)

  local function ask(method, ...)
    local args = about(msgpack.array { ... })
    c:request(1, "Gate", { method = method, payload = args, split = #args })
    local reply = c:hear()
    if reply.type == "ERROR" then return reply.code, reply.text end
    assert.equal("REPLY", reply.type)
    assert.equal(1, reply.id)
    local result, exception = engine.get_result(reply.payload)
    assert.equal("\xc0", exception)
    return reply.status, (msgpack.unpack(result))
  end

  it("lists services in the order of their registration, itself last", function()
    assert.same({ OK, { "Gate" } }, { ask "get_services" })
    for _, name in ipairs { "B", "A", "C", "longer name" } do
      if name:find " " then name = "Gate" end
      bench:worker("w" .. name, name, nil, "local_back")
    end
    bench:worker("w2", "A")
    bench:peer("local_back", "wB"):say { type = "BYE" }
    assert.same({ OK, { "B", "A", "C", "Gate" } }, { ask "get_services" })
    assert.same({ OK, { "B", "A", "C", "Gate" } }, { ask("get_services", 1) })
  end)

  it("tells what a service is about", function()
    bench:worker("w", "S", { payload = about { description = "does things" } })
    bench:worker("x", "Plain")
    assert.same({ OK, "does things" }, { ask("query_service", "S") })
    assert.same({ OK, "" }, { ask("query_service", "Plain") })
    assert.same({ NOT_FOUND }, { ask("query_service", "Nobody") })
    assert.same({ NOT_FOUND }, { ask("query_service", "") })
    bench:worker("y", "S", { payload = about { description = "does more" } })
    assert.same({ OK, "does more" }, { ask("query_service", "S") })
  end)

  it("refuses a query for anything but one name", function()
    for _, args in ipairs { {}, { 1 }, { "S", "T" }, { { "S" } } } do
      local code, text = ask("query_service", table.unpack(args))
      assert.equal("INVALID_ARGUMENT", code)
      assert.is_truthy(text)
    end
    for _, payload in ipairs { "", "\xc1", "\x91", "\x81\xa1S\x01" } do
      c:request(2, "Gate", { method = "query_service", payload = payload, split = #payload })
      assert_error("INVALID_ARGUMENT", 2, c:hear())
    end
    c:request(3, "Gate", { method = "query_service", payload = "\x91\xa1S", split = 2 })
    assert_error("INVALID_ARGUMENT", 3, c:hear()) -- the name is not in the arguments
  end)

  it("answers a client's heartbeat", function()
    assert.same({ OK, true }, { ask("client_heartbeat", "heartbeat") })
  end)

  it("has no other functions", function()
    local code, text = ask "shutdown"
    assert.equal("NOT_FOUND", code)
    assert.is_truthy(text:find("shutdown", 1, true))
    assert.is_truthy(select(2, ask(("f"):rep(255))):find(("f"):rep(255), 1, true))
  end)

  it("leaves other functions to the worker of Gate in this process", function()
    local handlers = bench:worker("gate", "Gate", { credit = 9 }, "local_back")
    c:request(1, "Gate", { method = "uptime" })
    answer(handlers, handlers:hear "REQUEST", { status = 201 })
    assert.equal(201, c:hear("REPLY").status)
    assert.equal(OK, (ask "get_services"))
    assert.is_nil(handlers:hear())
    handlers:say { type = "BYE" }
    assert.equal("NOT_FOUND", (ask "uptime"))
  end)

  it("tells that worker, and no other, who calls", function()
    local handlers = bench:worker("gate", "Gate", { credit = 2 }, "local_back")
    local other = bench:worker("other", "S", { credit = 9 }, "local_back")
    local near, old = bench:client("near", "local_front"), bench:client "gc-01"
    near:request(1, "Gate", { method = "f", payload = ("x"):rep(20000) })
    old:send("", "MDPC01", "Gate", "gc-01", ("0"):rep(32), "\xa1f")
    c:request(3, "Gate", { method = "f" }) -- waits
    c:request(4, "S")
    assert.is_nil(other:hear("REQUEST").client)
    local first, second = handlers:hear "REQUEST", handlers:hear "REQUEST"
    assert.same({ "near", "inproc", "", 20000 }, { first.client, first.address, first.user, #first.payload })
    assert.same({ "gc-01", "" }, { second.client, second.address }) -- ZeroMQ knows no address here
    assert.is_nil(handlers:hear())
    answer(handlers, first)
    assert.equal(c.id, handlers:hear("REQUEST").client)
  end)

  it("gives no reply of 1xx to a client that has a time limit", function()
    local handlers = bench:worker("gate", "Gate", { credit = 9 }, "local_back")
    local worker = bench:worker("w", "S")
    c:request(1, "Gate", { method = "f", deadline_ms = 1000 })
    answer(handlers, handlers:hear "REQUEST", { status = 199 })
    assert.is_nil(c:hear())
    assert.equal(0, bench:stats().calls)
    c:request(2, "Gate", { method = "f" })
    answer(handlers, handlers:hear "REQUEST", { status = 100 })
    assert.equal(2, c:hear("REPLY").id)
    c:request(3, "S", { deadline_ms = 1000 })
    answer(worker, worker:hear "REQUEST", { status = 100 }) -- which means nothing elsewhere
    assert.equal(3, c:hear("REPLY").id)
  end)

  it("counts its answers like others", function()
    ask "get_services"
    ask("query_service", 1)
    ask "nothing"
    local stats = bench:stats()
    assert.same({ 3, 3, 0 }, { stats.requests, stats.answers, stats.calls })
  end)
end)

it("broker: messages to a peer that has gone are dropped", function()
  local w, c = bench:worker("w", "S"), bench:client "c"
  c:request(1, "S")
  c:say { type = "HELLO" }
  c:say { type = "BYE" }
  assert.equal("", c:types())
  assert.equal("REQUEST CANCEL", w:types())
  w:say { type = "BYE" }
  assert.equal(0, bench:stats().peers)
end)

it("broker: everything that is there at its end is freed", function() -- for the sanitizers
  start { max_calls = 100 }
  local c = bench:client "c"
  bench:worker("w", "S", { credit = 3, payload = IDEMPOTENT })
  for id = 1, 50 do c:request(id, "S", { deadline_ms = 1000, payload = ("x"):rep(20000) }) end
  bench.stalled["front c"] = true
  c:say { type = "HELLO" }
  bench:pump()
  c:say { type = "HELLO" }
  bench:client("gone"):say { type = "HELLO" }
  bench:client("gone"):say { type = "BYE" }
  bench.broker:close()
  assert.has_error(function() bench.broker:tick() end)
end)
