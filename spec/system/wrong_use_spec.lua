-- Wrong use: one clear message, no traceback of ours, no hang, the right exit code.
local has = require "support.has"
local process = require "support.process"

-- Runs a script that must fail, and gives what it says.
local function failure_of(script, options)
  local host = process.host(script, options)
  assert.equal(1, host:wait_exit())
  assert.falsy(host.err:find("lua/gaterpc/", 1, true), host.err)
  return host.err
end

local HEAD = "local gaterpc = require 'gaterpc' "

describe("wrong use", function()
  after_each(process.finish)

  -- What is wrong, the script's second line, and what must be said about it.
  local cases = {
    { "a client's bad address", "gaterpc.Client { broker = 'nonsense' }", ":2:", "option 'broker' must be an address",
      "'nonsense'" },
    { "an address that ZeroMQ refuses", "gaterpc.Client { broker = 'tcp://nonsense' }", "INVALID_ARGUMENT",
      "'tcp://nonsense'" },
    { "a broker's bad address", "gaterpc.Majordomo {}:bind 'tcp://nonsense'", "cannot bind 'tcp://nonsense'" },
    { "a worker's bad address",
      "gaterpc.Service { name = 'S' }:create_worker(gaterpc.Worker, { broker = 'udp//x' }):run()", "'udp//x'" },
    { "an unknown option", "gaterpc.Client { brokr = 'x' }", ":2:", "'brokr'", "did you mean 'broker'" },
    { "an option of the wrong type", "gaterpc.Client { timeout = 'soon' }", ":2:", "'timeout' must be a number",
      "got string" },
    { "an option out of range", "gaterpc.Client { liveness = 0 }", ":2:", "from 1 to 100" },
    { "options that are no table", "gaterpc.Client 'tcp://x'", ":2:", "takes a table of options, got string" },
    { "an unknown setting", "gaterpc.Settings.HEARTBEET = 1", ":2:", "'HEARTBEET'", "did you mean 'HEARTBEAT'" },
    { "an unknown setting that is read", "print(gaterpc.Settings.REPLY_TIMOUT)", ":2:", "'REPLY_TIMEOUT'" },
    { "a setting of the wrong type", "gaterpc.Settings.setup { LIVENESS = 2.5 }", ":2:", "an integer, got float" },
    { "a setting that comes too late", "gaterpc.Client {} gaterpc.Settings.HEARTBEAT = 1", ":2:",
      "a Client exists already" },
    { "a misspelt name", "gaterpc.Clinet {}", ":2:", "did you mean 'Client'" },
    { "a service without a name", "gaterpc.Service {}", ":2:", "'name' is missing" },
    { "a service with spaces", "gaterpc.Service { name = 'a b' }", ":2:", "'a b' cannot name a service" },
    { "a service that is the broker's own", "gaterpc.Service { name = 'Gate' }", ":2:", "belongs to the broker" },
    { "a service that says too much", "gaterpc.Service { name = 'S', description = ('x'):rep(4097) }", ":2:",
      "'description' has at most 4096 bytes, got 4097" },
    { "a class extended with a dot", "gaterpc.Worker.extend 'Kv'", ":2:", "Worker:extend takes a name, got nil" },
    { "a class without a name", "gaterpc.Worker:extend ''", ":2:", "Worker:extend takes a name, got an empty one" },
    { "a folder for a broker's socket that is not there", "gaterpc.Majordomo {}:bind 'ipc:///nowhere/at/all'",
      "INVALID_ARGUMENT", "there is no such file or folder" },
    { "a broker's socket with a long name", "gaterpc.Majordomo {}:bind('ipc:///tmp/' .. ('x'):rep(300))",
      "INVALID_ARGUMENT", "the name is too long" },
    { "an unknown option of bind", "gaterpc.Majordomo {}:bind('tcp://127.0.0.1:*', { mechansm = 'NULL' })", ":2:",
      "did you mean 'mechanism'?" },
    { "an unknown option of connect_zap", "gaterpc.Majordomo {}:connect_zap { mechansm = 'NULL' }", ":2:",
      "did you mean 'mechanism'?" },
    { "a handler in the place of the broker's own",
      "local B = gaterpc.Majordomo:extend 'B' function B.interface.get_services() end B {}", ":2:",
      "B: the broker has a function 'get_services' of its own" },
    { "an error in the last call of a task", "gaterpc.task.spawn(function() return gaterpc.Client(5) end)",
      "gaterpc-host: Client takes a table of options, got number\n" },
    { "a broker's keys that are not there", "gaterpc.Majordomo { curve = '/nowhere/at/all' }", "/nowhere/at/all" },
    { "a broker's keys that are none", "gaterpc.Majordomo { curve = {} }", ":2:", "must have the keys 'public'" },
    { "a closed broker's stats", "local b = gaterpc.Majordomo {} b:close() b:stats()", ":2:", "the broker is closed" },
    { "a closed broker's start", "local b = gaterpc.Majordomo {} b:close() b:start()", ":2:", "the broker is closed" },
    { "a closed broker's run", "local b = gaterpc.Majordomo {} b:close() b:run()", ":2:", "the broker is closed" },
    { "a closed broker's access", "local b = gaterpc.Majordomo {} b:close() b:set_access {}", ":2:",
      "the broker is closed" },
    { "a task that joins itself", "local t t = gaterpc.task.spawn(function() t:join() end) gaterpc.task.sleep(0.01)",
      ":2:", "a task cannot join itself" },
    { "a shared dict used as a table", "gaterpc.SyncManager.Dict {}.a = 5", ":2:", "a Dict has no field 'a'" },
    { "a shared dict's key that is none", "gaterpc.SyncManager.Dict {}:get(0 / 0)", ":2:", "got NaN" },
    { "an option of a manager", "gaterpc.SyncManager { Queue = 5 }", ":2:", "unknown option 'Queue'" },
    { "a worker of no class", "gaterpc.Service { name = 'S' }:create_worker {}", ":2:", "gaterpc.Worker:extend" },
    { "a method that is no function", "gaterpc.Worker:extend 'W'.interface.x = 1", ":2:",
      "'x' must be a function" },
    { "a method with a strange name", "gaterpc.Worker:extend 'W'.interface['a b'] = print", ":2:",
      "'a b' cannot name a method" },
    { "a sleep of nonsense", "gaterpc.task.sleep(-1)", ":2:", "a number of seconds" },
    { "a spawned number", "gaterpc.task.spawn(1)", ":2:", "task.spawn takes a function, got number" },
    { "a call with a number for a name", "gaterpc.Client {}:call(1, 'x')", ":2:", "are strings, got number" },
    { "a value that cannot be sent", "gaterpc.Client {}.S.m(1, { { x = print } })", "INVALID_ARGUMENT",
      "function", "x" },
    { "no broker there", "gaterpc.Client { broker = 'ipc:///nowhere/at/all', connect_timeout = 0.05 }.S.m()",
      "UNAVAILABLE", "no broker answers at ipc:///nowhere/at/all" },
    { "a wait inside table.sort", "table.sort({ 1, 2, 3 }, function() gaterpc.task.sleep(0) end)", ":2:",
      "cannot wait here", "table.sort" },
    { "a wait inside string.gsub", "(('x'):gsub('x', function() gaterpc.task.sleep(0) end))", ":2:",
      "cannot wait here", "string.gsub" },
    { "a wait inside a string's metamethod",
      "print(tostring(setmetatable({}, { __tostring = function() gaterpc.task.sleep(0) end })))", ":2:",
      "cannot wait here" },
    { "a wait at a queue inside table.sort",
      "local q = gaterpc.Queue {} table.sort({ 1, 2, 3 }, function() return q:get() end)", ":2:", "cannot wait here",
      "table.sort" },
    { "a queue's misspelt option", "gaterpc.Queue { max_size = 1 }", ":2:", "unknown option 'max_size'", "'maxsize'" },
    { "a nil item", "gaterpc.Queue {}:put()", ":2:", "any value but nil" },
    { "a call inside table.sort", "table.sort({ 1, 2 }, gaterpc.Client {}.S.m)", ":2:", "cannot wait here" },
    { "a yield with nobody to take it", "coroutine.yield(1)", "nobody takes the value" },
    { "an error in a callback of luv",
      "local t = require 'luv'.new_timer() t:start(1, 0, function() error 'in a callback' end)", ":2: in a callback",
      "stack traceback" },
    { "an error in a spawned task", "gaterpc.task.spawn(function() error 'in a task' end)", ":2: in a task",
      "stack traceback" },
    { "an error with a table", "error { code = 'NOT_FOUND', message = 'no such thing' }", "no such thing" },
    { "a wait for what cannot come", "gaterpc.task.promise():await()", "can no longer come" },
    { "an unknown option of a worker", "gaterpc.Service { name = 'S' }:create_worker(gaterpc.Worker, { brokr = 'x' })",
      ":2:", "did you mean 'broker'?" },
    { "an executor that is none",
      "gaterpc.Service { name = 'S' }:create_worker(gaterpc.Worker, { thread_executor = {} })", ":2:",
      "'thread_executor' must be a pool of executors, got table" },
    { "a broker's executor that is none", "gaterpc.Majordomo { process_executor = {} }", ":2:",
      "'process_executor' must be a pool of executors, got table" },
    { "a place that is none", "gaterpc.interface(print, 'thred')", ":2:", "'thred'", "did you mean 'thread'?" },
    { "an unknown option of a pool", "gaterpc.ThreadPoolExecutor { max_worker = 1 }", ":2:", "'max_workers'" },
    { "a pool of nobody", "gaterpc.ProcessPoolExecutor { max_workers = 0 }", ":2:", "from 1 to 1024, got 0" },
    { "a job of no function", "gaterpc.ThreadPoolExecutor {}:submit(1)", ":2:", "takes a function", "got number" },
    { "a job that cannot travel", "local f = io.stdout gaterpc.ThreadPoolExecutor {}:submit(function() return f end)",
      "INVALID_ARGUMENT", ":2", "upvalue 'f' is a userdata" },
    { "an executor that is a number",
      "gaterpc.Service { name = 'S' }:create_worker(gaterpc.Worker):run_in_executor(1, print)", ":2:",
      "takes an executor, such as self.thread_executor, got number" },
    { "a shutdown with a wrong option", "gaterpc.ThreadPoolExecutor {}:shutdown { wiat = true }", ":2:", "'wait'" },
    { "luv's own loop", "require 'luv'.run()", ":2:", "luv.run belongs to the host" },
  }

  for _, case in ipairs(cases) do
    local what, line = case[1], case[2]
    it(what .. " gives one clear message", function()
      if line:sub(1, 1) == "(" then line = "local _ = " .. line end
      has(failure_of(HEAD .. "\n" .. line), table.unpack(case, 3))
    end)
  end

  it("an address in use is said to be in use", function()
    local address = process.ipc "taken"
    local script = HEAD .. ("\ngaterpc.Majordomo { frontend = %q, backend = %q }:start() print 'up' io.stdout:flush()")
    local first = process.host(script:format(address, process.ipc "back"))
    first:wait_line "up"
    -- ZeroMQ takes over the file of an ipc address, so in tcp:
    local second = process.host(HEAD .. [[
      local a = gaterpc.Majordomo {}
      local bound = a:bind "tcp://127.0.0.1:*"
      gaterpc.Majordomo {}:bind(bound)]])
    assert.equal(1, second:wait_exit())
    has(second.err, "cannot bind 'tcp://127.0.0.1:", "the address is in use")
  end)

  it("a script that is missing is named", function()
    local host = process.command { "/nowhere/script.lua" }
    assert.equal(1, host:wait_exit())
    has(host.err, "/nowhere/script.lua", "No such file")
    assert.equal(1, select(2, host.err:gsub("\n", "")))
  end)

  it("a syntax error is shown with its line, without a traceback", function()
    local err = failure_of "local x = \nlocal = 2"
    has(err, ":2:")
    assert.equal(1, select(2, err:gsub("\n", "")))
  end)

  it("an unknown option of the command line is wrong usage", function()
    for _, option in ipairs { "-x", "--help-me", "-vx", "-l", "-e" } do
      local host = process.command { option }
      assert.equal(2, host:wait_exit())
      has(host.err, option:sub(1, 2), "usage: gaterpc-host")
    end
  end)

  it("bytecode is not run", function()
    has(failure_of(string.dump(function() print "no" end)), "attempt to load a binary chunk")
  end)
end)
