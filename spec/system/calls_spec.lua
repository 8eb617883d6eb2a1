local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

-- The program that the project was designed around, as it was first written down; only the addresses are others.
local SERVICE = [[
#!/usr/bin/env gaterpc-host
local gaterpc = require "gaterpc"

local Kv = gaterpc.Worker:extend "Kv"
local store = {}

--- Store a value and return the one it replaced.
---@param key string
function Kv.interface:set(key, value)
  local old = store[key]
  store[key] = value
  return old
end

--- Stream the integers 0 .. maximum-1, one reply each.
---@param maximum integer
function Kv.interface:count(maximum)
  for i = 0, maximum - 1 do coroutine.yield(i) end
end

local service = gaterpc.Service { name = "SRkv", description = "a key-value store" }
service:create_worker(Kv, { broker = "tcp://127.0.0.1:5555" }):run()
]]

local BROKER = [[
local gaterpc = require "gaterpc"
-- the broker, with one internal handler of its own
local Broker = gaterpc.Majordomo:extend "Broker"
function Broker.interface:uptime(request) return 200, os.time() - self.started end
local broker = Broker { backend = "tcp://127.0.0.1:5555" }
broker:bind "tcp://127.0.0.1:7777"
broker:run()
]]

local CLIENT = [[
gaterpc = require "gaterpc"
client = gaterpc.Client { broker = "tcp://127.0.0.1:7777" }
client.SRkv.set("a", {1, 2})       -- client.service.method(...); client.method(...) = default service
for i in client.SRkv.count(3) do print(i) end
print(table.concat(client.SRkv.set("a", 3), ","))
print(math.type(client.Gate.uptime()))
print(pcall(client.SRkv.test, "a", gaterpc.kwargs { time = os.time() }))
]]

-- Methods for the tests below.
local METHODS = [[
local stored
function Class.interface:pack(...) return gaterpc.array(table.pack(...)) end
function Class.interface:echo(value) return value end
function Class.interface:nothing() end
function Class.interface:both() return 1, 2 end
function Class.interface:kwargs(...)
  local last = select(select("#", ...), ...)
  return { is = gaterpc.is_kwargs(last), count = select("#", ...), last = last }
end
function Class.interface:call() return gaterpc.call() end
function Class.interface:call_in_task() return task.spawn(gaterpc.call):join() end
function Class.interface:put(value) stored = value end
function Class.interface:get() return stored end
function Class.interface:sleep(seconds)
  task.sleep(seconds)
  return seconds
end
function Class.interface:cleanup(seconds)
  local _ <close> = setmetatable({}, { __close = function() stored = "closed" end })
  task.sleep(seconds)
end
function Class.interface:fail_text() error "went wrong" end
function Class.interface:fail_plain() error("went wrong", 0) end
function Class.interface:fail_table() error { code = "NOT_FOUND", message = "no such user", class = "UserError" } end
function Class.interface:fail_class() error { class = "UserError", message = "no such user" } end
function Class.interface:fail_object() error(gaterpc.error("PERMISSION_DENIED", "not for you")) end
function Class.interface:fail_number() error(42) end
function Class.interface:fail_nil() error() end
function Class.interface:fail_other()
  error(setmetatable({}, { __tostring = function() return "a strange one" end }))
end
function Class.interface:fail_worse() error(setmetatable({}, { __tostring = function() error "twice" end })) end
function Class.interface:fail_code() error { code = "NO_SUCH_CODE", message = "odd" } end
function Class.interface:fail_deep()
  local function deeper(n) if n == 0 then error "deep down" end deeper(n - 1) return 1 end
  deeper(5)
end
function Class.interface:overflow() local function f() return 1 + f() end return f() end
]]

-- Where broker and worker live. Each gives the address for clients; `more` are options of the worker.
local places = {}

local here = {} -- what lives in this process

local function keep(object)
  here[#here + 1] = object
  return object
end

local function class_of(text)
  return assert(load("local gaterpc, task, Class = ... " .. text .. " return Class", "=service"))(
    gaterpc, task, gaterpc.Worker:extend "Class")
end

local function start_here(service, text, backend, options)
  options = options or {}
  options.broker = backend
  return keep(gaterpc.Service { name = service }:create_worker(class_of(text), options):start():wait_ready())
end

local serial = 0

places["in this process"] = function(service, text, options)
  serial = serial + 1
  local front, back = ("inproc://calls.front%d"):format(serial), ("inproc://calls.back%d"):format(serial)
  keep(gaterpc.Majordomo { frontend = front, backend = back }:start())
  start_here(service, text, back, options)
  return front, back
end

for _, kind in ipairs { "ipc", "tcp" } do
  places["in processes over " .. kind] = function(service, text, options)
    local _, front, back = process.broker(kind)
    process.worker(service, text, back, options)
    return front, back
  end
end

local function connect(front, options)
  options = options or {}
  options.broker = front
  return keep(gaterpc.Client(options))
end

local function finish()
  for i = #here, 1, -1 do here[i]:close() end
  here = {}
  process.finish()
end

describe("a call", function()
  after_each(finish)

  for _, kind in ipairs { "ipc", "tcp" } do
    it("works as the design has it, over " .. kind, function()
      local front, back = process.ipc "front", process.ipc "back"
      if kind == "tcp" then front, back = "tcp://127.0.0.1:*", "tcp://127.0.0.1:*" end
      local function put(text)
        return (text:gsub("tcp://127.0.0.1:7777", front):gsub("tcp://127.0.0.1:5555", back))
      end
      local broker = process.host(put(BROKER), { name = "broker" })
      front, back = broker:wait_log "serving clients at (%S+), workers at (%S+)"
      local service = process.host(put(SERVICE), { name = "service" })
      service:wait_log "SRkv is registered"
      local client = process.host(put(CLIENT), { name = "client" })
      assert.equal(0, client:wait_exit(), client.err)
      assert.equal("0\n1\n2\n1,2\ninteger\n"
        .. "false\tNOT_FOUND: service SRkv has no method test [SRkv.test]\n", client.out)
      service:kill "sigterm"
      assert.equal(0, service:wait_exit())
      broker:kill "sigterm"
      assert.equal(0, broker:wait_exit())
    end)
  end

  for place, start in pairs(places) do
    describe(place, function()
      local client

      before_each(function()
        client = connect(start("T", METHODS), { service = "T", timeout = process.limit(5) })
      end)

      it("takes any number of arguments, nil among them", function()
        assert.same({ n = 0 }, { n = #client.T.pack() })
        assert.same({ 1, gaterpc.null, "x", gaterpc.null }, client.T.pack(1, nil, "x", nil))
        local many = {}
        for i = 1, 250 do many[i] = i end
        assert.same(many, client.T.pack(table.unpack(many)))
      end)

      it("returns nil and false as results", function()
        assert.same({ n = 1 }, table.pack(client.T.nothing()))
        assert.same({ n = 1 }, table.pack(client.T.echo(nil)))
        assert.is_false(client.T.echo(false))
        assert.same({ false, n = 1 }, table.pack(client:try("T", "echo", false)))
        assert.same({ n = 1 }, table.pack(client:try("T", "echo", nil)))
      end)

      it("returns the first of several results", function()
        assert.same({ 1, n = 1 }, table.pack(client.T.both()))
      end)

      it("brings keyword arguments", function()
        assert.same({ is = true, count = 3, last = { a = 1, b = "two" } },
          client.T.kwargs(1, 2, gaterpc.kwargs { a = 1, b = "two" }))
        assert.same({ is = true, count = 1, last = { a = 1 } }, client.T.kwargs(gaterpc.kwargs { a = 1 }))
        assert.same({ is = false, count = 2, last = { a = 1 } }, client.T.kwargs(1, { a = 1 }))
      end)

      it("can be written in every way there is", function()
        assert.equal(7, client.T.echo(7))
        assert.equal(7, client.T:echo(7))
        assert.equal(7, client.echo(7))
        assert.equal(7, client:echo(7))
        assert.equal(7, client:call("T", "echo", 7))
        assert.equal(7, client:try("T", "echo", 7))
        assert.equal(7, client:with({ timeout = 3 }).T.echo(7))
        assert.equal(7, client:with({ service = "T" }).echo(7))
      end)

      it("has a timeout, and the method is closed then", function()
        assert.equal(1, client.T.echo(1)) -- what is not sent in time is not called at all
        local value, err = client:with({ timeout = 0.05 }):try("T", "cleanup", 60)
        assert.is_nil(value)
        assert.equal("DEADLINE_EXCEEDED", err.code)
        process.eventually(function() return client.T.get() == "closed" end, "the end of the method")
        assert.equal(0, client.T.sleep(0)) -- the worker serves on
      end)

      it("leaves a worker well when a thousand callers are cancelled at once", function()
        local callers = {}
        for i = 1, 1000 do callers[i] = task.spawn(function() client.T.sleep(60) end) end
        process.eventually(function() return client:stats().open == 1000 end, "the calls")
        assert.equal(1, client.T.echo(1)) -- the worker has all of them
        for _, each in ipairs(callers) do each:cancel() end
        for i = 1, 1000 do callers[i] = function() return client.T.echo(i) end end
        local results = task.all(callers)
        for i = 1, 1000 do assert(results[i] == i) end
      end)

      it("is closed when its caller is cancelled", function()
        local caller = task.spawn(function() client.T.cleanup(60) end)
        process.eventually(function() return client:stats().open > 0 end, "the call")
        assert.equal(1, client.T.echo(1)) -- it has begun
        assert.is_true(caller:cancel())
        process.eventually(function() return client.T.get() == "closed" end, "the end of the method")
      end)

      it("tells the method what it serves", function()
        local about = client:with({ timeout = 30 }).T.call()
        assert.equal("T", about.service)
        assert.equal("call", about.method)
        assert.equal("integer", math.type(about.id))
        assert.is_true(about.deadline > 20 and about.deadline <= 30)
        assert.is_false(about.cancelled)
        assert.equal("call_in_task", client.T.call_in_task().method)
        assert.is_nil(client:with({ timeout = 0 }).T.call().deadline)
        assert.is_nil(gaterpc.call())
      end)

      it("fails with what the method raised", function()
        local function failure(method)
          local value, err = client:try("T", method)
          assert.is_nil(value)
          assert.is_true(gaterpc.error.is(err))
          assert.equal("T", err.service)
          assert.equal(method, err.method)
          return err
        end
        local err = failure "fail_text"
        assert.equal("INTERNAL", err.code)
        assert.equal("Error", err.class)
        assert.matches("went wrong$", err.message)
        assert.matches("%d+: went wrong", err.message)
        assert.matches("stack traceback:\n.*in .*'error'", err.traceback)
        assert.equal("went wrong", failure("fail_plain").message)
        err = failure "fail_table"
        assert.same({ "NOT_FOUND", "UserError", "no such user" }, { err.code, err.class, err.message })
        err = failure "fail_class"
        assert.same({ "INTERNAL", "UserError", "no such user" }, { err.code, err.class, err.message })
        err = failure "fail_object"
        assert.same({ "PERMISSION_DENIED", "PERMISSION_DENIED", "not for you" },
          { err.code, err.class, err.message })
        assert.equal("PERMISSION_DENIED: not for you [T.fail_object]", tostring(err))
        assert.equal("42", failure("fail_number").message)
        assert.equal("nil", failure("fail_nil").message)
        assert.equal("a strange one", failure("fail_other").message)
        assert.equal("an error object that cannot be printed", failure("fail_worse").message)
        assert.equal("INTERNAL", failure("fail_code").code)
        assert.equal(6, select(2, failure("fail_deep").traceback:gsub("deeper", "")))
        assert.matches("stack overflow", failure("overflow").message)
        assert.equal("fine", client.T.echo "fine")
      end)

      it("raises the same when it is called by dots", function()
        local ok, err = pcall(client.T.fail_table)
        assert.is_false(ok)
        assert.equal("NOT_FOUND: no such user [T.fail_table]", tostring(err))
        assert.equal("UserError", err.class)
      end)

      it("fails at once when there is no such service or method", function()
        local began = core.now()
        local _, err = client:try("Nobody", "echo")
        assert.equal("NOT_FOUND", err.code)
        assert.matches("Nobody", err.message)
        _, err = client:try("T", "no_such_method")
        assert.equal("NOT_FOUND", err.code)
        assert.matches("no_such_method", err.message)
        _, err = client:try("Gate", "no_such_function")
        assert.equal("NOT_FOUND", err.code)
        assert.is_true(core.now() - began < process.limit(2)) -- not after the timeout of 5 s
      end)

      it("refuses names that cannot be", function()
        local _, err = client:try("with space", "echo")
        assert.equal("INVALID_ARGUMENT", err.code)
        _, err = client:try("T", "")
        assert.equal("INVALID_ARGUMENT", err.code)
        _, err = client:try("T", ("x"):rep(256))
        assert.equal("INVALID_ARGUMENT", err.code)
        assert.has_error(function() client:try("T", 5) end, "a service and a method are strings, got string and number")
      end)

      it("comes back right when 10,000 are in flight [limit 30]", function()
        local N, calls = 10000, {}
        for i = 1, N do calls[i] = function() return client.T.echo(i) end end
        local results = task.all(calls)
        for i = 1, N do assert(results[i] == i) end
        assert.equal(0, client:stats().open)
      end)

      it("asks the broker itself", function()
        local services = client.Gate.get_services()
        assert.equal("T", services[1])
        assert.equal("Gate", services[#services])
        assert.equal("gate-rpc service", client.Gate.query_service "T")
        local _, err = client:try("Gate", "query_service", "Nobody")
        assert.equal("NOT_FOUND", err.code)
      end)
    end)
  end
end)

-------------------------------------------------------------------------------------------------

local NESTED_A = [[
local client
function Class:init() client = gaterpc.Client { broker = FRONT } end
function Class.interface:outer(n) return "outer " .. client.B.middle(n) end
function Class.interface:inner(n) return "inner " .. n end
function Class.interface:left() return gaterpc.call().deadline end
function Class.interface:items(n) for i = 1, n do coroutine.yield(i) end end
function Class.interface:sum_of_middle(n)
  local sum = 0
  for each in client.B.doubled(n) do sum = sum + each end
  return sum
end
function Class.interface:raises() error { code = "NOT_FOUND", message = "deep inside" } end
function Class.interface:down(n) return n == 0 and 0 or 1 + client.A.down(n - 1) end
function Class.interface:all(n)
  local calls = {}
  for i = 1, n do calls[i] = function() return client.A.inner(i) end end
  return task.all(calls).n
end
]]

local NESTED_B = [[
local client
function Class:init() client = gaterpc.Client { broker = FRONT } end
function Class.interface:middle(n) return "middle " .. client.A.inner(n) end
function Class.interface:left() return { gaterpc.call().deadline, client.A.left() } end
function Class.interface:doubled(n) for each in client.A.items(n) do coroutine.yield(each * 2) end end
function Class.interface:passes_on()
  local result = client.A.raises()
  return result
end
function Class.interface:late() return client:with({ timeout = 60 }).B.hangs() end
function Class.interface:hangs() task.sleep(60) end
]]

describe("nested calls", function()
  after_each(finish)

  local function start(options)
    serial = serial + 1
    local front, back = ("inproc://calls.front%d"):format(serial), ("inproc://calls.back%d"):format(serial)
    keep(gaterpc.Majordomo { frontend = front, backend = back }:start())
    local prefix = ("local FRONT = %q "):format(front)
    start_here("A", prefix .. NESTED_A, back, options)
    start_here("B", prefix .. NESTED_B, back, options)
    return connect(front, { timeout = process.limit(5) })
  end

  local function start_processes(options)
    local _, front, back = process.broker "ipc"
    local prefix = ("local FRONT = %q "):format(front)
    process.worker("A", prefix .. NESTED_A, back, options)
    process.worker("B", prefix .. NESTED_B, back, options)
    return connect(front, { timeout = process.limit(5) })
  end

  for name, start_all in pairs { ["in one process"] = start, ["in processes"] = start_processes } do
    for _, credit in ipairs { 1, 2, 1024 } do
      it(("A -> B -> A do not deadlock %s, with a credit of %d"):format(name, credit), function()
        local client = start_all { credit = credit }
        assert.equal("outer middle inner 1", client.A.outer(1))
        assert.equal(10, client.A.down(10))
        assert.equal(2550, client.A.sum_of_middle(50))
        assert.equal(20, client.A.all(20))
        local calls = {}
        for i = 1, 50 do calls[i] = function() return client.A.outer(i) end end
        local results = task.all(calls)
        for i = 1, 50 do assert.equal("outer middle inner " .. i, results[i]) end
      end)
    end

    it("inherit the deadline " .. name, function()
      local client = start_all()
      local left = client:with({ timeout = 10 }).B.left()
      assert.is_true(left[1] <= 10 and left[1] > 5)
      assert.is_true(left[2] <= left[1] and left[2] > 5)
      local _, err = client:with({ timeout = 0.1 }):try("B", "late")
      assert.equal("DEADLINE_EXCEEDED", err.code)
    end)

    it("pass an error on " .. name, function()
      local client = start_all()
      local _, err = client:try("B", "passes_on")
      assert.equal("NOT_FOUND", err.code)
      assert.equal("deep inside", err.message)
      assert.equal("B", err.service)
      assert.equal("passes_on", err.method)
      local lines = select(2, err.traceback:gsub("deep inside\nstack traceback:\n\t%[C%]: in function 'error'\n", ""))
      assert.equal(2, lines)
      assert.not_matches("gaterpc/%a+%.lua", err.traceback)
    end)
  end
end)

-------------------------------------------------------------------------------------------------

describe("many", function()
  after_each(finish)

  local HUNDRED = [[
local gaterpc = require "gaterpc"
local service_of = {}
for i = 1, 100 do
  local Class = gaterpc.Worker:extend "Class"
  function Class.interface:who(x) return i * 1000 + x end
  service_of[i] = gaterpc.Service { name = "S" .. i }:create_worker(Class, { broker = arg[1] or BACK }):start()
end
for i = 1, 100 do assert(service_of[i]:wait_ready()) end
]]
  local ASK = [[
local calls = {}
for i = 1, 100 do calls[i] = function() return client["S" .. i].who(i) end end
local results = gaterpc.task.all(calls)
for i = 1, 100 do assert(results[i] == i * 1001) end
print(results.n)
]]

  it("services in one worker's process answer all at once", function()
    local _, front, back = process.broker "ipc"
    process.host(HUNDRED .. "print 'ready'", { args = { back }, name = "services" }):wait_line "ready"
    local client = process.client(ASK, front)
    assert.equal(0, client:wait_exit(), client.err)
    assert.equal("100\n", client.out)
  end)

  it("services in the broker's process answer all at once", function()
    local front = process.ipc "front"
    local host = process.host(([[
      local BACK = "inproc://back"
      local broker = require "gaterpc".Majordomo { frontend = %q, backend = BACK }:start()
    ]]):format(front) .. HUNDRED .. [[
      local client = gaterpc.Client { broker = broker:addresses() }
    ]] .. ASK .. "print 'ready'", { name = "all" })
    host:wait_line "ready"
    local client = process.client(ASK, front)
    assert.equal(0, client:wait_exit(), client.err)
    assert.equal("100\n", client.out)
    host:kill "sigterm"
    assert.equal(0, host:wait_exit())
  end)

  it("brokers, workers and clients share a process", function()
    local clients = {}
    for b = 1, 3 do
      serial = serial + 1
      local front, back = process.ipc "front", ("inproc://many.back%d"):format(serial)
      keep(gaterpc.Majordomo { frontend = front, backend = back }:start())
      for w = 1, 3 do
        start_here("Who", ("function Class.interface:who(x) return x * 100 + %d end"):format(b * 10 + w), back)
      end
      for _ = 1, 4 do clients[#clients + 1] = { b, connect(front) } end
    end
    local calls, seen = {}, {}
    for i, each in ipairs(clients) do
      for n = 1, 30 do
        calls[#calls + 1] = function()
          local result = each[2].Who.who(i * 100 + n)
          assert.equal(i * 100 + n, result // 100)
          assert.equal(each[1], result % 100 // 10)
          seen[result % 100] = true
        end
      end
    end
    task.all(calls)
    for b = 1, 3 do for w = 1, 3 do assert.is_true(seen[b * 10 + w]) end end
  end)

  it("workers of a service share the load over processes", function()
    local _, front, back = process.broker "tcp"
    for w = 1, 3 do
      process.worker("Who", ("function Class.interface:who(x) task.sleep(0.01) return x * 10 + %d end"):format(w), back)
    end
    local scripts = {}
    for c = 1, 3 do
      scripts[c] = process.client([[
        local calls, seen = {}, {}
        for i = 1, 60 do
          calls[i] = function()
            local result = client.Who.who(i)
            assert(result // 10 == i)
            seen[result % 10] = true
          end
        end
        task.all(calls)
        print(#seen)
      ]], front)
    end
    for _, each in ipairs(scripts) do
      assert.equal(0, each:wait_exit(), each.err)
      assert.equal("3\n", each.out)
    end
  end)
end)
