---The broker against a crowd of peers that do whatever comes to their mind, and a model that knows
---what may come of it. GATERPC_SEED repeats a run, GATERPC_STEPS makes it longer.

local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"
local uv = require "luv"

local STEPS = tonumber(os.getenv "GATERPC_STEPS" or 100000)
local PEERS = 50 -- of each kind
local HEARTBEAT_MS, LIVENESS, IDLE_MS, QUEUE_LEN, MAX_CALLS = 1000, 3, 3000, 40, 20
local SERVICES = { "A", "B", "C", "D" }
local METHODS = { "once", "again" }
local ABOUT = assert(msgpack.pack { methods = { again = { idempotent = true } } })
local DRAIN = 2
local NEVER = math.maxinteger

local function prng(seed)
  local state = seed
  return function(n) -- 1..n
    state = state * 6364136223846793005 + 1442695040888963407
    return (state >> 33) % n + 1
  end
end

-------------------------------------------------------------------------------------------------
-- The model
-------------------------------------------------------------------------------------------------

---strict: everybody reads at once, so that what the broker says tells what it thinks.
local function new_world(seed, strict)
  local world = {
    random = prng(seed), strict = strict, now = 0, loose = false, step = 0,
    clients = {}, workers = {}, peers = {}, -- peers: by door and routing id
    calls = {}, -- those that are open, by their payload, which is unique
    open = 0, serial = 0, dispatched = {}, known_services = {}, late = 0,
    answered = 0, asked = 0, redispatched = 0,
  }
  engine.at(0)
  world.broker = assert(engine.broker {
    instance = seed, heartbeat_ms = HEARTBEAT_MS, liveness = LIVENESS, idle_ms = IDLE_MS,
    queue_len = QUEUE_LEN, max_calls = MAX_CALLS })
  for i = 1, PEERS do
    local kind = i % 5 == 0 and "local_" or ""
    local c = { via = kind .. "front", id = "p" .. i, is_local = kind ~= "", open = {}, ids = {}, dups = {},
      given_up = {}, last_id = 0 }
    local w = { via = kind .. "back", id = "p" .. i, is_local = kind ~= "", is_worker = true, running = {},
      count = 0, credit = 0, ready = {} }
    world.clients[i], world.workers[i] = c, w
    world.peers[c.via .. c.id], world.peers[w.via .. w.id] = c, w
  end
  return world
end

local function fail(text, ...)
  error(text:format(...), 0)
end

local function check(truth, text, ...)
  if not truth then fail(text, ...) end
end

local function is_open(world, call)
  return world.calls[call.payload] == call
end

local function close_call(world, call)
  world.calls[call.payload] = nil
  world.open = world.open - 1
  call.client.open[call.id] = nil
end

local function forget_running(w)
  for _, run in pairs(w.running) do run.call.worker = nil end
  w.running, w.count = {}, 0
end

---The broker no longer knows the peer.
local function forget(world, peer)
  peer.role = nil
  if peer.is_worker then
    forget_running(peer)
    peer.registered, peer.ready = false, {}
  else
    for _, call in pairs(peer.open) do close_call(world, call) end
    peer.dups, peer.given_up = {}, {}
  end
end

local function is_served(world, service)
  for _, w in ipairs(world.workers) do
    if w.registered and w.service == service and not w.draining then return true end
  end
  return false
end

---Workers that could take a call of the service, at least how many calls they have.
local function fewest_calls(world, service)
  local fewest
  for _, w in ipairs(world.workers) do
    if w.registered and w.service == service and not w.draining and w.count < w.credit
      and (not fewest or w.count < fewest) then
      fewest = w.count
    end
  end
  return fewest
end

-------------------------------------------------------------------------------------------------
-- What the broker says
-------------------------------------------------------------------------------------------------

local hears = {}

local function on_end(world, c, message)
  local call = c.open[message.id]
  if message.type == "ERROR" and message.text == "another call has this id" then
    local dups = c.dups[message.id]
    check(dups and dups > 0, "%s hears of an id that it had not used twice", c.id)
    c.dups[message.id] = dups - 1
    return
  end
  if not call then
    check(not world.strict and c.given_up[message.id], "%s %s hears %s for %d, which is not open (%s)",
      c.via, c.id, message.type, message.id, message.text)
    c.given_up[message.id] = nil
    return
  end
  if message.type == "ERROR" and message.class ~= "worker" then -- the broker's own
    local code = message.code
    local is_stale = call.items > 0 and world.now >= call.moved + IDLE_MS
    if code == "DEADLINE_EXCEEDED" then
      check(world.now >= call.deadline or is_stale or not world.strict, "a call ended before its deadline")
    elseif code == "NOT_FOUND" then
      check(not world.known_services[call.service], "service %s is said to be unknown", call.service)
    elseif code == "UNAVAILABLE" then
      check(not world.strict or not is_served(world, call.service), "service %s has workers", call.service)
    elseif code == "WORKER_LOST" then
      check(call.attempts > 0 or world.loose or not world.strict, "a call was lost that nobody had")
    else
      check(code == "RESOURCE_EXHAUSTED", "a call ended with %s", code)
    end
  elseif not call.gate then
    check(message.payload == call.payload or message.trace == call.payload, "the wrong call was answered")
    check(message.split == call.items or message.type ~= "END", "an end with a wrong number")
  end
  world.answered = world.answered + 1
  close_call(world, call)
end

hears.REPLY, hears.END, hears.ERROR = on_end, on_end, on_end

function hears.ITEM(world, c, message)
  local call = c.open[message.id]
  if not call then
    check(not world.strict and c.given_up[message.id], "%s hears an item of a call that is over", c.id)
    return
  end
  check(message.payload == call.payload, "an item reached the wrong call")
  check(message.split == call.items, "item %d came when %d was next", message.split, call.items)
  call.items, call.moved = call.items + 1, world.now
end

function hears.REQUEST(world, w, message)
  local call = world.calls[message.payload]
  check(w.registered or not world.strict, "%s hears a request but has not registered", w.id)
  check(w.count < w.credit, "%s gets a call above its credit of %d", w.id, w.credit)
  check(w.running[message.route] == nil, "a route is given twice")
  check(message.service == w.service, "a request of %s reached a worker of %s", message.service, w.service)
  if world.strict and (call or not world.loose) then -- when a client dies in this tick, its calls are over
    check(call, "a request is given to a worker, but its call is over: %s", message.payload)
    check(not w.draining, "%s drains and hears a request", w.id)
    check(call.worker == nil, "a call is given to two workers")
    check(call.items == 0, "a stream is given to another worker")
    if not world.loose then
      local fewest = fewest_calls(world, w.service)
      check(w.count == fewest, "%s has %d calls, but another only %d", w.id, w.count, fewest)
    end
    if call.unsure then
      world.redispatched = world.redispatched + 1
    elseif call.attempts == 0 then
      check(call.serial > (world.dispatched[w.service] or 0), "%s is not first in, first out", w.service)
      world.dispatched[w.service] = call.serial
    else
      check(call.method == "again", "a call of a method that is not idempotent is given away again")
      world.redispatched = world.redispatched + 1
    end
  end
  call = call or { payload = message.payload, attempts = 0, items = 0 }
  call.attempts = call.attempts + 1
  check(call.attempts <= 3, "a call is given to a fourth worker")
  if call.deadline and call.deadline ~= NEVER and world.strict then
    local left = call.deadline - world.now
    check(left > 0, "a call is given to a worker after its deadline")
    check(message.deadline_ms == left, "%d ms are left, not %d", left, message.deadline_ms)
  end
  call.worker = w
  w.running[message.route], w.count = { call = call, sent = 0 }, w.count + 1
end

function hears.CANCEL(world, w, message)
  local run = w.running[message.route]
  check(run or not world.strict, "%s hears of the end of a call that it does not have", w.id)
  if not run then return end
  local call = run.call
  local is_over = not is_open(world, call) or world.now >= math.min(call.deadline, call.moved + IDLE_MS)
  check(is_over or not world.strict, "a call is cancelled that is not over")
  call.worker = nil
  w.running[message.route], w.count = nil, w.count - 1
end

function hears.CREDIT(world, w, message)
  check(w.running[message.route] or not world.strict, "%s hears of credit for no call", w.id)
end

function hears.READY(world, w)
  local ready = table.remove(w.ready, 1)
  check(ready, "%s is registered, but had not asked", w.id)
  forget_running(w)
  w.registered, w.draining, w.service, w.credit = true, false, ready.service, ready.credit
  w.draining = ready.draining or false
  world.known_services[w.service] = true
end

function hears.HELLO() end
function hears.HEARTBEAT() end
function hears.BYE() end

local function deliver(world, via, id, ...)
  local peer = world.peers[via .. id]
  if peer.deaf then return world.broker:stalled() end
  if not world.strict and world.random(2000) == 1 then
    forget(world, peer)
    return world.broker:unreachable()
  end
  local message = engine.parse(...)
  if message.type == "ERROR" then
    message.code = engine.code(message.status)
    message.class, message.text, message.trace = engine.exception_of(message.payload)
  end
  local handler = hears[message.type]
  check(handler, "%s hears %s", id, message.type)
  check(peer.role, "%s hears %s, but the broker does not know it", id, message.type)
  handler(world, peer, message)
end

local function pump(world)
  engine.each_out(world.broker, function(...) deliver(world, ...) end)
end

-------------------------------------------------------------------------------------------------
-- What the peers say
-------------------------------------------------------------------------------------------------

---A message that can be read.
local function say(world, peer, envelope, pulse)
  if not peer.role then
    peer.role = "NEW"
    peer.wait = peer.is_local and NEVER or HEARTBEAT_MS * LIVENESS
  end
  if pulse and not peer.is_local then
    envelope.deadline_ms, envelope.window = pulse[1], pulse[2]
    peer.wait = pulse[1] == 0 and NEVER or math.max(pulse[1], 50) * math.max(pulse[2], 1)
  end
  peer.heard = world.now
  if not peer.is_worker and envelope.type ~= "HEARTBEAT" then peer.role = "CLIENT" end
  check(world.broker:receive(peer.via, peer.id, engine.build(envelope)), "%s was not let in", peer.id)
end

local pulses = { { 0, 0 }, { 200, 4 }, { 1000, 3 }, { 5000, 2 }, { 10, 0 } }

local function some(world, list)
  return list[world.random(#list)]
end

local function some_running(world, w)
  local skip = world.random(8)
  for route, run in pairs(w.running) do
    skip = skip - 1
    if skip <= 0 then return route, run end
  end
  return next(w.running)
end

local worker_steps, client_steps = {}, {}

function worker_steps.ready(world, w)
  if w.registered and world.random(20) > 1 then return worker_steps.answer(world, w) end
  local ready = { service = some(world, SERVICES), credit = world.random(8) }
  forget_running(w)
  w.registered = false
  w.ready[#w.ready + 1] = ready
  w.role = w.role and "WORKER"
  say(world, w, { type = "READY", service = ready.service, credit = ready.credit, payload = ABOUT },
    some(world, pulses))
  w.role = "WORKER"
end

function worker_steps.heartbeat(world, w)
  say(world, w, { type = "HEARTBEAT" })
end

local function answer(world, w, type)
  local route, run = some_running(world, w)
  if not route then return end
  local call = run.call
  w.running[route], w.count, call.worker = nil, w.count - 1, nil
  local payload, status = call.payload, 0
  if type == "ERROR" then payload, status = engine.put_exception("worker", "failed", call.payload), 9 end
  say(world, w, { type = type, route = route, status = status, payload = payload, split = run.sent })
end

function worker_steps.answer(world, w) answer(world, w, "REPLY") end
worker_steps.answer_more = worker_steps.answer
function worker_steps.error(world, w) answer(world, w, "ERROR") end
function worker_steps.finish(world, w) answer(world, w, "END") end

function worker_steps.item(world, w)
  local route, run = some_running(world, w)
  if not route then return end
  say(world, w, { type = "ITEM", route = route, split = run.sent, count = 1, payload = run.call.payload })
  run.sent = run.sent + 1
end
worker_steps.item_more = worker_steps.item

---An answer to a call that is not its own, or never was.
function worker_steps.late(world, w)
  local route = world.random(1 << 31)
  local other = some(world, world.workers)
  if other ~= w then route = next(other.running) or route end
  if w.running[route] then return end
  say(world, w, { type = some(world, { "REPLY", "ERROR", "ITEM", "CHUNK", "END" }), route = route, payload = "late" })
  world.late = world.late + 1
end

function worker_steps.bye(world, w)
  say(world, w, { type = "BYE" })
  forget(world, w)
end

function worker_steps.drain(world, w)
  if world.random(4) > 1 then return end
  say(world, w, { type = "BYE", flags = DRAIN })
  if w.role ~= "WORKER" then return forget(world, w) end
  local last = w.ready[#w.ready]
  if last then last.draining = true else w.draining = true end
end

---What cannot be read, or makes no sense.
local function nonsense(world, peer, types)
  if world.random(2) == 1 then
    local stranger = not peer.role or peer.role == "NEW"
    world.broker:receive(peer.via, peer.id, ("G"):rep(world.random(60)))
    if stranger then forget(world, peer) end
  else
    say(world, peer, { type = some(world, types), id = world.random(100), route = world.random(1 << 40) })
  end
end

function worker_steps.nonsense(world, w)
  nonsense(world, w, { "HELLO", "REQUEST", "CANCEL" })
end

---It takes so many calls at once from now on.
function worker_steps.credit(world, w)
  local credit = world.random(10)
  local registration = w.ready[#w.ready] or w -- it may have registered anew without having read so
  if not world.strict then credit = math.max(credit, registration.credit) end -- what is under way counts
  if w.role == "WORKER" then registration.credit = credit end
  say(world, w, { type = "CREDIT", credit = credit })
end

function worker_steps.gone(world, w)
  if not w.is_local or world.random(3) > 1 then return end
  world.broker:local_gone(w.via, w.id)
  forget(world, w)
end

function client_steps.hello(world, c)
  say(world, c, { type = "HELLO" }, some(world, pulses))
end

function client_steps.heartbeat(world, c)
  say(world, c, { type = "HEARTBEAT" })
end

function client_steps.request(world, c)
  local again = world.strict and world.random(30) == 1 and next(c.open)
  c.last_id = c.last_id + 1
  local id = again or c.last_id
  local service, method = world.random(50) == 1 and "Nobody" or some(world, SERVICES), some(world, METHODS)
  local gate = world.random(50) == 1
  if gate then service, method = "Gate", "client_heartbeat" end
  local deadline_ms = world.random(3) == 1 and 0 or world.random(2000)
  world.serial = world.serial + 1
  local payload = ("%s/%s/%d/%d"):format(c.via, c.id, id, world.serial)
  if again then
    c.dups[id] = (c.dups[id] or 0) + 1
  else
    local call = {
      client = c, id = id, service = service, method = method, payload = payload, gate = gate,
      serial = world.serial, deadline = deadline_ms > 0 and world.now + deadline_ms or NEVER,
      attempts = 0, items = 0, moved = NEVER - IDLE_MS,
    }
    c.open[id], world.calls[payload] = call, call
    world.open, world.asked = world.open + 1, world.asked + 1
  end
  say(world, c, { type = "REQUEST", id = id, service = service, method = method, payload = payload,
    deadline_ms = deadline_ms, credit = 1, window = 1 })
end
client_steps.request_more, client_steps.request_yet_more = client_steps.request, client_steps.request

function client_steps.credit(world, c)
  local id, call = next(c.open)
  if call and call.items > 0 then call.moved = world.now end
  say(world, c, { type = "CREDIT", id = id or 1, credit = 1, window = 1 })
end

function client_steps.cancel(world, c)
  local id, call = next(c.open)
  if world.random(4) == 1 then
    id, call = world.random(1000), nil
    if c.open[id] then return end
  end
  if call then
    close_call(world, call)
    c.given_up[id] = true
  end
  say(world, c, { type = "CANCEL", id = id or 1 })
end

function client_steps.bye(world, c)
  if world.random(10) > 1 then return end
  say(world, c, { type = "BYE", flags = world.random(2) == 1 and DRAIN or 0 })
  forget(world, c)
end

function client_steps.nonsense(world, c)
  nonsense(world, c, { "READY", "REPLY", "ITEM", "END", "ERROR", "CHUNK" })
end

function client_steps.gone(world, c)
  if not c.is_local or world.random(10) > 1 then return end
  world.broker:local_gone(c.via, c.id)
  forget(world, c)
end

-------------------------------------------------------------------------------------------------
-- Time
-------------------------------------------------------------------------------------------------

local function each_peer(world, f)
  for i = 1, PEERS do
    f(world.clients[i])
    f(world.workers[i])
  end
end

local function tick(world, ms)
  world.now = world.now + ms
  engine.at(world.now)
  each_peer(world, function(peer)
    if peer.role and peer.wait ~= NEVER and peer.heard + peer.wait <= world.now then
      world.loose = true
      forget(world, peer)
    end
  end)
  if world.loose then -- what was given to a worker that died in the same moment is given away again
    for _, call in pairs(world.calls) do call.unsure = call.method == "again" end
  end
  world.broker:tick()
end

---Whatever is due meanwhile is done in time.
local function pass(world, ms)
  local till = world.now + ms
  repeat
    local due = world.broker:next_due() or till
    tick(world, math.min(math.max(due, world.now + 1), till) - world.now)
    pump(world)
  until world.now == till
end

---What must be true between two steps.
local function check_world(world)
  local stats = world.broker:stats()
  local peers, workers = 0, 0
  each_peer(world, function(peer)
    if peer.role then peers = peers + 1 end
    if peer.role == "WORKER" then workers = workers + 1 end
  end)
  check(stats.peers == peers, "%d peers, not %d", stats.peers, peers)
  check(stats.workers == workers, "%d workers, not %d", stats.workers, workers)
  check(stats.late >= world.late, "%d answers were late, not only %d", world.late, stats.late)
  if not world.strict then
    return check(stats.calls <= world.open, "%d calls, but only %d are open", stats.calls, world.open)
  end
  check(stats.late == world.late, "%d answers were late, not %d", world.late, stats.late)
  check(stats.calls == world.open, "%d calls, but %d are open", stats.calls, world.open)
  local waiting, count = {}, 0
  for _, call in pairs(world.calls) do
    if not call.worker then
      waiting[call.service] = (waiting[call.service] or 0) + 1
      count = count + 1
    end
  end
  check(stats.waiting == count, "%d wait, not %d", stats.waiting, count)
  for service, number in pairs(waiting) do
    check(number <= QUEUE_LEN + PEERS * 8, "too many wait for %s", service)
    check(not fewest_calls(world, service), "calls of %s wait, but a worker is free", service)
    check(is_served(world, service), "calls of %s wait for nobody", service)
  end
end

local function check_deadlines(world)
  for _, call in pairs(world.calls) do
    check(call.items > 0 or call.deadline > world.now, "a call outlived its deadline")
    check(call.items == 0 or call.moved + IDLE_MS > world.now, "a stream outlived its time")
  end
end

-------------------------------------------------------------------------------------------------
-- A run
-------------------------------------------------------------------------------------------------

local function names_of(steps)
  local names = {}
  for name in pairs(steps) do names[#names + 1] = name end
  table.sort(names)
  return names
end
local worker_names, client_names = names_of(worker_steps), names_of(client_steps)

local function step(world)
  local random = world.random
  local dice = random(100)
  world.loose = false
  if dice <= 10 then
    pass(world, random(100) == 1 and random(4000) or random(20) - 1)
    if world.strict then check_deadlines(world) end
    return
  elseif dice <= 12 and not world.strict then
    local peer = some(world, random(2) == 1 and world.clients or world.workers)
    peer.deaf = not peer.deaf and random(3) == 1
  elseif dice <= 56 then
    local w = some(world, world.workers)
    local name = some(world, worker_names)
    if (name == "bye" or name == "nonsense" or name == "ready") and random(4) > 1 and w.registered then
      name = "answer"
    end
    worker_steps[name](world, w)
  else
    client_steps[some(world, client_names)](world, some(world, world.clients))
  end
  if world.strict or random(3) == 1 then pump(world) end
end

---Everything ends: first by time, then because the workers leave, then everybody.
local function finish(world)
  each_peer(world, function(peer) peer.deaf = false end)
  for _ = 1, 30 do
    each_peer(world, function(peer)
      if peer.role then say(world, peer, { type = "HEARTBEAT" }) end
    end)
    pump(world)
    pass(world, 190)
  end
  for _, call in pairs(world.calls) do
    check(call.deadline == NEVER and call.items == 0, "%s is open after its time", call.payload)
  end
  for _, w in ipairs(world.workers) do
    if w.role then worker_steps.bye(world, w) end
  end
  pump(world)
  check(world.open == 0, "%d calls were not answered", world.open)
  local stats = world.broker:stats()
  check(stats.calls == 0 and stats.waiting == 0 and stats.workers == 0,
    "%d calls, %d waiting, %d workers are left", stats.calls, stats.waiting, stats.workers)
  for _, c in ipairs(world.clients) do
    if c.role then
      say(world, c, { type = "BYE" })
      forget(world, c)
    end
  end
  pump(world)
  check(world.broker:stats().peers == 0, "%d peers are left", world.broker:stats().peers)
  check(world.broker:next_due() == nil or not world.strict, "the broker waits for something")
end

local function run(strict)
  local seed = tonumber(os.getenv "GATERPC_SEED") or uv.hrtime() & 0x7fffffff
  local world = new_world(seed, strict)
  local ok, err = xpcall(function()
    for number = 1, STEPS do
      world.step = number
      step(world)
      if number % 64 == 0 then check_world(world) end
    end
    finish(world)
  end, function(text)
    local where = ("in step %d of the run with GATERPC_SEED=%d"):format(world.step, seed)
    return ("%s\n%s\n%s"):format(text, where, debug.traceback())
  end)
  if not ok then error(err, 0) end
  return world
end

describe("broker, in a crowd", function()
  it("answers every request exactly once, and to whom it belongs [limit 30]", function()
    local world = run(true)
    -- Did it see enough? These grow with the steps.
    assert.is_true(world.asked > STEPS / 20)
    assert.is_true(world.answered > STEPS / 40)
    assert.is_true(world.redispatched > STEPS / 1000)
    assert.is_true(world.late > STEPS / 100)
  end)

  it("does so when peers do not read for a while, or vanish [limit 30]", function()
    local world = run(false)
    assert.is_true(world.asked > STEPS / 20)
    assert.is_true(world.answered > STEPS / 100)
  end)
end)
