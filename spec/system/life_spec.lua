local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task
local uv = require "luv"

local BEAT = { heartbeat = process.BEAT } -- and a liveness of 3: who is silent for 0.3 s or more counts as dead

local METHODS = [[
local NAME = arg[1]
function Class.interface:name() return NAME end
function Class.interface:put(value)
  task.sleep(0.01)
  return value
end
Class.interface.get = gaterpc.interface(function(self, value)
  task.sleep(0.01)
  return value
end, { idempotent = true })
function Class.interface:hold(seconds)
  task.sleep(seconds)
  return "held"
end
Class.interface.hold_until_there_is = gaterpc.interface(function(self, path)
  while not require("luv").fs_stat(path) do task.sleep(0.01) end
  return NAME
end, { idempotent = true })
function Class.interface:items(n, pause)
  for i = 1, n do
    task.sleep(pause)
    coroutine.yield(i)
  end
end
]]

local function beat(options)
  for name, value in pairs(BEAT) do options[name] = options[name] or value end
  return options
end

local function start_worker(name, back, more)
  return process.worker("L", METHODS, back, beat {}, {
    args = { name }, name = "worker " .. name, no_wait = more and more.no_wait })
end

describe("life and death:", function()
  local clients = {}

  local function connect(front, options)
    options = beat(options or {})
    options.broker, options.service = front, "L"
    options.timeout = options.timeout or process.limit(8)
    local client = gaterpc.Client(options)
    clients[#clients + 1] = client
    return client
  end

  local callers = {} -- tasks that call all the time

  after_each(function()
    for i = #callers, 1, -1 do table.remove(callers, i):cancel() end
    for i = #clients, 1, -1 do table.remove(clients, i):close() end
    process.finish()
  end)

  -- Calls all the time, until stop() gives what became of the calls: code -> count, "OK" when it went well.
  local function load_with(client, method, count)
    local outcome, longest, running, tasks = {}, 0, true, {}
    for i = 1, count do
      tasks[i] = task.spawn(function()
        while running do
          local began = core.now()
          local value, err = client:try("L", method, i)
          local code = err and err.code or "OK"
          outcome[code] = (outcome[code] or 0) + 1
          if not err then assert(value == i) else outcome.message = tostring(err) end
          longest = math.max(longest, core.now() - began)
          if err then task.sleep(0.01) end
        end
      end)
      callers[#callers + 1] = tasks[i]
    end
    return outcome, function()
      running = false
      task.all(tasks)
      return outcome, longest
    end
  end

  local function only(outcome, ...)
    local allowed = { OK = true, message = true }
    for _, code in ipairs { ... } do allowed[code] = true end
    for code in pairs(outcome) do
      assert.is_true(allowed[code], ("%s: %s"):format(code, tostring(outcome.message)))
    end
  end

  for _, kind in ipairs { "ipc", "tcp" } do
    it("a worker is killed under load: its calls go to another, or fail soon, over " .. kind, function()
      local _, front, back = process.broker(kind, BEAT)
      local victim = start_worker("one", back)
      start_worker("two", back)
      local client = connect(front)
      local gets, stop_gets = load_with(client, "get", 50)
      local puts, stop_puts = load_with(client, "put", 50)
      local lost = 0 -- of calls that both workers surely have when one is killed
      for _ = 1, 8 do
        callers[#callers + 1] = task.spawn(function()
          local _, err = client:try("L", "hold", process.limit(30))
          if err and err.code == "WORKER_LOST" then lost = lost + 1 end
        end)
      end
      process.eventually(function() return (gets.OK or 0) > 100 and (puts.OK or 0) > 100 end, "some load")
      victim:kill "sigkill"
      victim:wait_exit()
      process.eventually(function() return lost > 0 end, "the loss of a call")
      local before_gets, before_puts = gets.OK, puts.OK
      process.eventually(function()
        return gets.OK > before_gets + 100 and puts.OK > before_puts + 100
      end, "more load")
      local outcome, longest = stop_gets()
      only(outcome)
      assert.is_true(longest < process.limit(2))
      outcome, longest = stop_puts()
      only(outcome, "WORKER_LOST")
      assert.is_true((outcome.WORKER_LOST or 0) <= 50)
      assert.is_true(longest < process.limit(2))
    end)

    it("the broker is killed and started again: all find it again, over " .. kind, function()
      local broker, front, back = process.broker(kind, BEAT)
      local workers = { start_worker("one", back), start_worker("two", back) }
      local client = connect(front, { connect_timeout = process.limit(4) })
      local puts, stop_puts = load_with(client, "put", 20)
      process.eventually(function() return (puts.OK or 0) > 100 end, "some load")
      local held = task.spawn(function() return select(2, client:try("L", "hold", process.limit(30))) end)
      assert.equal(1, client.L.put(1)) -- the broker has the other call, too
      broker:kill "sigkill"
      broker:wait_exit()
      process.broker(kind, beat { frontend = front, backend = back })
      for _, worker in ipairs(workers) do worker:wait_log "L is registered" end
      local before = puts.OK
      process.eventually(function() return puts.OK > before + 100 end, "more load")
      only(stop_puts(), "UNAVAILABLE", "NOT_FOUND")
      if os.getenv "GATERPC_FIGURES" then for k, v in pairs(puts) do print(k, v) end end
      assert.equal("UNAVAILABLE", held:join().code)
      local outcome, stop = load_with(client, "put", 20)
      process.eventually(function() return (outcome.OK or 0) > 200 end, "calls as before")
      only(stop())
    end)
  end

  it("a worker that stops for a while is replaced, and comes back", function()
    local _, front, back = process.broker("ipc", BEAT)
    local worker = start_worker("one", back)
    local client = connect(front)
    assert.equal("one", client.L.name())
    worker:pause()
    local held = task.spawn(function() return select(2, client:try("L", "hold", 0)) end)
    local err = held:join()
    assert.equal("WORKER_LOST", err.code)
    _, err = client:try("L", "name")
    assert.equal("UNAVAILABLE", err.code) -- there is no other
    start_worker("two", back)
    assert.equal("two", client.L.name())
    worker:resume()
    worker:wait_log "L is registered"
    process.eventually(function() return client.L.name() == "one" end, "an answer of the first worker")
  end)

  it("a call that may run twice outlives a worker that stops", function()
    local _, front, back = process.broker("ipc", BEAT)
    local one = start_worker("one", back)
    local client = connect(front)
    local path = process.dir() .. "/go"
    local call = task.spawn(function() return client.L.hold_until_there_is(path) end)
    process.eventually(function() return client:stats().open == 1 end, "the call")
    assert.equal("one", client.L.name())
    start_worker("two", back)
    one:pause()
    process.file("go", "")
    assert.equal("two", call:join())
    one:resume()
    one:wait_log "L is registered"
    process.eventually(function() return client.L.name() == "one" end, "an answer of the first worker")
  end)

  it("a machine that pauses keeps every call: who did not run himself does not judge the others", function()
    local broker, front, back = process.broker("ipc", BEAT)
    local worker = start_worker("one", back)
    local path = process.dir() .. "/go"
    local caller = process.client([[
      print "here"
      print(client.L.hold_until_there_is(...), client:stats().up)
    ]], front, beat { timeout = process.limit(20) }, { args = { path } })
    local watcher = connect(front)
    caller:wait_line "here"
    process.eventually(function() return watcher:stats().up and watcher.L.name() == "one" end, "the worker")
    watcher:close()
    local all = { broker, worker, caller }
    for _ = 1, 3 do
      for _, each in ipairs(all) do each:pause() end
      task.sleep(process.BEAT * 10)
      for _, each in ipairs(all) do each:resume() end
      task.sleep(process.BEAT * 5)
    end
    process.file("go", "")
    assert.same({ "one", "true" }, { caller:wait_line "(%S+)\t(%S+)" })
    assert.equal(0, worker:count_log "lost its broker")
    assert.equal(1, worker:count_log "is registered")
  end)

  it("a broker that stops for a while is found again", function()
    local broker, front, back = process.broker("tcp", BEAT)
    local worker = start_worker("one", back)
    local client = connect(front)
    assert.equal("one", client.L.name())
    broker:pause()
    local _, err = client:try("L", "name")
    assert.equal("UNAVAILABLE", err.code)
    worker:wait_log "lost its broker"
    broker:resume()
    worker:wait_log "L is registered"
    process.eventually(function() return client:try("L", "name") == "one" end, "an answer")
  end)

  it("SIGTERM lets a worker finish, and no call fails when there is another", function()
    local _, front, back = process.broker("ipc", BEAT)
    local first = start_worker("one", back)
    local client = connect(front)
    local held = {}
    for i = 1, 20 do held[i] = task.spawn(function() return client.L.hold(0.5) end) end
    local stream = client.L.items(10, 0.05)
    local second = start_worker("two", back)
    local puts, stop_puts = load_with(client, "put", 20)
    process.eventually(function() return (puts.OK or 0) > 50 end, "some load")
    first:kill "sigterm"
    assert.equal(0, first:wait_exit())
    for _, each in ipairs(held) do assert.equal("held", each:join()) end
    for i = 1, 10 do assert.equal(i, stream:next()) end
    assert.is_nil(stream:next())
    local before = puts.OK
    process.eventually(function() return puts.OK > before + 50 end, "more load")
    only(stop_puts())
    second:kill "sigterm"
    assert.equal(0, second:wait_exit())
    local _, err = client:try("L", "name")
    assert.equal("UNAVAILABLE", err.code)
    assert.matches("L", err.message)
  end)

  it("SIGTERM lets a broker finish what runs, and refuses the rest", function()
    local broker, front, back = process.broker("ipc", BEAT)
    start_worker("one", back)
    local client = connect(front, { connect_timeout = process.limit(2) })
    local held = task.spawn(function() return client.L.hold(0.5) end)
    process.eventually(function() return client:stats().open == 1 end, "the call")
    assert.equal("one", client.L.name())
    broker:kill "sigterm"
    process.eventually(function()
      local _, err = client:try("L", "name")
      return err and err.code == "UNAVAILABLE"
    end, "a refusal")
    assert.equal("held", held:join())
    assert.equal(0, broker:wait_exit())
  end)

  it("what a broker says as it leaves is heard, though its connection ends at once [limit 60]", function()
    for _ = 1, 20 do
      local broker, front, back = process.broker("ipc", BEAT)
      local worker = start_worker("one", back)
      local client = connect(front)
      local calls = {}
      for i = 1, 10 do calls[i] = task.spawn(function() return client.L.hold(0.05) end) end
      process.eventually(function() return client:stats().open == 10 end, "the calls")
      assert.equal("one", client.L.name()) -- the others are there before it
      broker:kill "sigterm"
      for i = 1, 10 do assert.equal("held", calls[i]:join()) end
      assert.equal(0, broker:wait_exit())
      worker:kill "sigterm"
      client:close()
    end
  end)

  it("SIGTERM ends a process with broker, worker and client", function()
    local front = process.ipc "front"
    local host = process.worker("L", ([[
      gaterpc.Majordomo { frontend = %q, backend = "inproc://back" }:start()
    ]]):format(front) .. METHODS .. [[
      local client = gaterpc.Client { broker = "inproc://gaterpc.frontend" } -- of a broker that never comes
    ]], "inproc://back")
    local client = connect(front)
    local held = task.spawn(function() return client.L.hold(0.3) end)
    assert.equal(1, client.L.put(1))
    host:kill "sigterm"
    assert.equal("held", held:join())
    assert.equal(0, host:wait_exit())
  end)

  it("a second SIGTERM ends a worker at once", function()
    local _, front, back = process.broker("ipc", BEAT)
    local worker = start_worker("one", back)
    local client = connect(front)
    local held = task.spawn(function() return client:try("L", "hold", 60) end)
    assert.equal(1, client.L.put(1))
    worker:kill "sigterm"
    process.eventually(function() return select(2, client:try("L", "name")) end, "its leaving")
    assert.is_true(worker:is_running())
    worker:kill "sigterm"
    assert.equal(143, worker:wait_exit())
    local _, err = held:join()
    assert.equal("WORKER_LOST", err.code)
  end)

  -- ThreadSanitizer holds a signal back until its receiver calls something: here, for ever.
  local unless_tsan = uv.exepath():find "thread" and pending or it
  unless_tsan("a second SIGTERM ends a script that spins", function()
    local host = process.host [[print "here" while true do end]]
    host:wait_line "here"
    host:kill "sigterm"
    host:kill "sigterm"
    process.eventually(function()
      host:kill "sigterm" -- two that come together count as one
      return not host:is_running()
    end, "the end")
    assert.equal(143, host:wait_exit())
  end)

  it("SIGTERM, SIGINT and SIGHUP do no harm to a host that is about to end", function()
    for _, signal in ipairs { "sigterm", "sigint", "sighup" } do
      local pipe = process.dir() .. "/log." .. signal
      local host = process.host([[
        local gaterpc, luv, pipe = require "gaterpc", require "luv", ...
        assert(os.execute("mkfifo " .. pipe))
        assert(luv.fs_open(pipe, luv.constants.O_RDWR, 0)) -- a reader that reads nothing
        gaterpc.log.setup { files = { { path = pipe } }, console = { level = "error" } }
        for _ = 1, 200 do gaterpc.log.info(("x"):rep(1000)) end
        setmetatable({}, { __gc = function() -- nearly the last thing in Lua; then the log waits for the reader
          io.stderr:write "ending\n"
        end })
      ]], { args = { pipe } })
      host:wait_log "ending"
      host:kill(signal)
      assert.same({ 0, 0 }, { host:wait_exit() })
      assert.equal("ending\n", host.err)
    end
  end)

  it("SIGINT and SIGTERM end a script that serves nobody", function()
    for signal, code in pairs { sigint = 130, sigterm = 143 } do
      local host = process.host [[print "here" require "gaterpc".task.sleep(60)]]
      host:wait_line "here"
      host:kill(signal)
      assert.equal(code, host:wait_exit())
      assert.equal("", host.err)
    end
  end)

  it("SIGINT drains a worker as SIGTERM does", function()
    local _, front, back = process.broker("ipc", BEAT)
    local worker = start_worker("one", back)
    local client = connect(front)
    local held = task.spawn(function() return client.L.hold(0.3) end)
    assert.equal(1, client.L.put(1))
    worker:kill "sigint"
    assert.equal("held", held:join())
    assert.equal(0, worker:wait_exit())
  end)

  it("SIGHUP does no harm", function()
    local _, front, back = process.broker("ipc", BEAT)
    local worker = start_worker("one", back)
    worker:kill "sighup"
    assert.equal("one", connect(front).L.name())
  end)

  it("exit codes tell how it ended", function()
    for script, code in pairs {
      [ [[print "fine"]] ] = 0, [ [[error "not fine"]] ] = 1, [ [[os.exit(7)]] ] = 7, [ [[os.exit(true)]] ] = 0,
      [ [[os.exit(false)]] ] = 1, [ [[return 5]] ] = 0, [ [[require "gaterpc".task.spawn(error, "x")]] ] = 1,
    } do
      assert.equal(code, process.host(script):wait_exit(), script)
    end
    assert.equal(2, process.command({ "--no-such-option" }):wait_exit())
    assert.equal(1, process.command({ "/no/such/script.lua" }):wait_exit())
  end)

  for _, kind in ipairs { "ipc", "tcp" } do
    it("a worker and a client wait for a broker that comes later, over " .. kind, function()
      local front, back = process.ipc "front", process.ipc "back"
      if kind == "tcp" then -- addresses that were free a moment ago
        local broker
        broker, front, back = process.broker "tcp"
        broker:kill "sigterm"
        broker:wait_exit()
      end
      local worker = start_worker("one", back, { no_wait = true })
      local client = connect(front, { connect_timeout = process.limit(5) })
      local call = task.spawn(function() return client:try("L", "name") end)
      process.eventually(function() return client:stats().open == 1 end, "the call")
      process.broker(kind, beat { frontend = front, backend = back })
      worker:wait_log "L is registered"
      local name, err = call:join()
      assert.is_true(name == "one" or err.code == "NOT_FOUND") -- the client may come before the worker
      assert.equal("one", client.L.name())
    end)

    it("a call fails when no broker comes, and names the address, over " .. kind, function()
      local front = kind == "ipc" and process.ipc "nobody" or "tcp://127.0.0.1:1"
      local client = connect(front, { connect_timeout = 0.3 })
      for _ = 1, 2 do
        local began = core.now()
        local _, err = client:try("L", "name")
        assert.equal("UNAVAILABLE", err.code)
        assert.matches(front, err.message, 1, true)
        assert.is_true(core.now() - began >= 0.29)
        assert.is_true(core.now() - began < process.limit(2))
      end
    end)
  end

  it("a worker that is not registered says so", function()
    local Class = gaterpc.Worker:extend "Class"
    local worker = gaterpc.Service { name = "L" }:create_worker(Class, { broker = process.ipc "nobody" }):start()
    local ready, err = worker:wait_ready(0.1)
    assert.is_nil(ready)
    assert.equal("DEADLINE_EXCEEDED", err.code)
    assert.is_false(worker:stats().up)
    worker:stop() -- there is nobody to tell
    process.eventually(function() return not worker:is_alive() end, "its end")
  end)

  it("a worker with a name that belongs to the broker is refused", function()
    local _, _, back = process.broker "ipc"
    local host = process.host(([[
      local gaterpc = require "gaterpc"
      local service = gaterpc.Service { name = "Gat" }
      service.name = "Gate" -- which Service{} would not take
      service:create_worker(gaterpc.Worker, { broker = %q }):run()
    ]]):format(back))
    assert.equal(1, host:wait_exit())
    assert.matches("PERMISSION_DENIED: the broker at %S+ refuses service Gate: the name Gate belongs to the broker",
      host.err)
  end)

  it("closing a worker fails its calls at once", function()
    local _, front, back = process.broker("ipc", BEAT)
    process.worker("L", METHODS .. [[
      function Class.interface:close() task.spawn(function() self:close() end) task.sleep(60) end
    ]], back, beat {})
    local _, err = connect(front):try("L", "close")
    assert.equal("WORKER_LOST", err.code)
  end)
end)
