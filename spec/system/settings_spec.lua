-- What a real host makes of settings: files, environment, command line, options.
local has = require "support.has"
local process = require "support.process"
local uv = require "luv"

-- What a command line prints when it ends well, and its log.
local function output_of(args, options)
  local host = process.command(args, options)
  assert.equal(0, host:wait_exit(), host.err)
  return host.out, host.err
end

-- What it says when it must not run anything.
local function failure_of(args, options)
  local host = process.command(args, options)
  assert.equal(1, host:wait_exit(), host.err)
  assert.equal("", host.out)
  assert.equal(1, select(2, host.err:gsub("\n", "")), host.err)
  assert.falsy(host.err:find("lua/gaterpc", 1, true), host.err)
  return host.err
end

local function print_settings(args, options)
  local rows = {}
  for line in output_of({ "--print-settings", table.unpack(args) }, options):gmatch "[^\n]+" do
    rows[line:match "^%S+"] = line
  end
  return rows
end

describe("settings of a host", function()
  after_each(process.finish)

  it("come from file, environment, script and option, each stronger than the ones before", function()
    local file = process.file("conf.lua", "DEFAULT_SERVICE = 'File'")
    local env = { GATERPC_DEFAULT_SERVICE = "Environment", GATERPC_CONNECT_TIMEOUT = "0.01" }
    local function service(options)
      options.args = { "-e", ([[
        local gaterpc = require "gaterpc"
        %s
        print(gaterpc.Settings.DEFAULT_SERVICE, select(2, pcall(gaterpc.Client { %s }.method)))]]):format(
          options.script or "", options.option or "") }
      if options.file then table.move({ "--settings", file, table.unpack(options.args) }, 1, 4, 1, options.args) end
      local in_settings, in_call = output_of(options.args,
        { env = options.env or { GATERPC_CONNECT_TIMEOUT = "0.01" } }):match "^(%S+)\t.*%[(%S+)%.method%]\n$"
      if not options.option then assert.equal(in_settings, in_call) end
      return in_call
    end
    local script, option = "gaterpc.Settings.DEFAULT_SERVICE = 'Script'", "service = 'Option'"
    assert.equal("GateRPC", service {})
    assert.equal("File", service { file = true })
    assert.equal("Environment", service { env = env })
    assert.equal("Environment", service { file = true, env = env })
    assert.equal("Script", service { file = true, env = env, script = script })
    assert.equal("Script", service { script = script })
    assert.equal("Option", service { file = true, env = env, script = script, option = option })
    assert.equal("Option", service { option = option })
  end)

  it("are read from the file of the command line, else from that of the environment", function()
    local one = process.file("one.lua", "LIVENESS = 11")
    local two = process.file("two.lua", "LIVENESS = 12 WORKER_CREDIT = 12")
    local ask = "local S = require('gaterpc').Settings print(S.LIVENESS, S.WORKER_CREDIT, S.USER_SETTINGS)"
    local env = { GATERPC_USER_SETTINGS = two }
    assert.equal("12\t12\t" .. two .. "\n", output_of({ "-e", ask }, { env = env }))
    assert.equal("11\t1024\t" .. one .. "\n", output_of({ "--settings", one, "-e", ask }, { env = env }))
    assert.equal("11\t1024\t" .. one .. "\n", output_of({ "--settings=" .. one, "-e", ask }, { env = env }))
    assert.equal("3\t1024\tnil\n", output_of({ "-E", "-e", ask }, { env = env }))
    assert.equal("3\t1024\tnil\n", output_of({ "-e", ask }, { env = { GATERPC_USER_SETTINGS = "" } }))
    assert.equal("11\t1024\t" .. one .. "\n", output_of({ "-E", "--settings", one, "-e", ask }, { env = env }))
  end)

  it("are there before LUA_INIT and before modules that the command line asks for", function()
    process.file("mod.lua", "return require('gaterpc').Settings.LIVENESS")
    assert.equal("11\n11\n", output_of({ "-I", process.dir(), "-l", "mod", "-e", "print(mod)" },
      { env = { GATERPC_LIVENESS = "11", LUA_INIT = "print(require('gaterpc').Settings.LIVENESS)" } }))
  end)

  it("may come from a file that the script names: over the other file, under the environment", function()
    local one = process.file("one.lua", "LIVENESS = 11 WORKER_CREDIT = 11 QUEUE_MAXSIZE = 11")
    local two = process.file("two.lua", "LIVENESS = LIVENESS + 1 WORKER_CREDIT = 12")
    for _, statement in ipairs { "S.USER_SETTINGS = %q", "S.setup { USER_SETTINGS = %q }" } do
      assert.equal("12\t20\t11\t" .. two .. "\n", output_of({ "--settings", one, "-e",
        "local S = require('gaterpc').Settings " .. statement:format(two) ..
        " print(S.LIVENESS, S.WORKER_CREDIT, S.QUEUE_MAXSIZE, S.USER_SETTINGS)" },
        { env = { GATERPC_WORKER_CREDIT = "20" } }))
    end
    process.file("bad.lua", "\nLIVENESS = 0")
    local host = process.host(([[
      local S = require("gaterpc").Settings
      print(pcall(function() S.USER_SETTINGS = %q end))
      print(S.LIVENESS, S.USER_SETTINGS)]]):format(process.dir() .. "/bad.lua"))
    assert.equal(0, host:wait_exit())
    has(host.out, "false", ":2: settings file: ", "bad.lua:2: setting LIVENESS must be from 1 to 100", "\n3\tnil\n")
  end)

  for what, case in pairs {
    ["an unknown name in the file"] = { file = "\nHEARTBEET = 1",
      ":2: unknown setting 'HEARTBEET', did you mean 'HEARTBEAT'" },
    ["a wrong value in the file"] = { file = "LIVENESS = 'x'", ":1: setting LIVENESS must be an integer" },
    ["a syntax error in the file"] = { file = "LIVENESS =", ":1: unexpected symbol" },
    ["milliseconds for seconds"] = { file = "HEARTBEAT = 3000", "milliseconds go to MDP_HEARTBEAT_INTERVAL" },
    ["text in the environment"] = { env = { GATERPC_HEARTBEAT = "abc" },
      "environment variable GATERPC_HEARTBEAT must be a number of seconds, got 'abc'" },
    ["a constant in the environment"] = { env = { GATERPC_MDP_CLIENT = "MDPC02" },
      "GATERPC_MDP_CLIENT cannot be changed" },
    ["two names in the environment"] = { env = { GATERPC_HEARTBEAT = "1", GATERPC_MDP_HEARTBEAT_INTERVAL = "1000" },
      "HEARTBEAT and MDP_HEARTBEAT_INTERVAL are the same setting" },
    ["a missing file"] = { path = "/nowhere/conf.lua", "/nowhere/conf.lua", "No such file" },
    ["a folder for a file"] = { path = "/tmp", "/tmp", "Is a directory" },
    ["a missing file in the environment"] = { env = { GATERPC_USER_SETTINGS = "/nowhere/conf.lua" },
      "/nowhere/conf.lua" },
  } do
    it("that are wrong end it with one line, before anything runs: " .. what, function()
      local args = { "-e", "print 'ran'" }
      local path = case.path or case.file and process.file("conf.lua", case.file)
      if path then args = { "--settings", path, "-e", "print 'ran'" } end
      has(failure_of(args, { env = case.env }), "gaterpc-host: ", table.unpack(case))
    end)
  end

  it("that the command line asks for in a wrong way are wrong usage", function()
    local one = process.file("one.lua", "")
    for _, args in ipairs { { "--settings" }, { "--settings=" }, { "--setting", one }, { "--settingsx", one },
      { "--settings", one, "--settings", one }, { "--print-settingsx" }, { "--print" } } do
      local host = process.command(args)
      assert.equal(2, host:wait_exit())
      has(host.err, args[3] and "there can be one settings file" or "'--", "usage: gaterpc-host", "--settings FILE")
    end
  end)

  it("get a warning in the log for a variable that is none, and for a name that changes nothing", function()
    local out, log = output_of({ "-e", "require('gaterpc').Settings.DEFAULT_LOGGING = {} print 'ran'" }, { env = {
      GATERPC_HEARTBEET = "1", GATERPC_EVENT_LOOP_POLICY = "uvloop", GATERPC_HISTORY = "", GATERPC_SLOW = "1",
      GATERPC_LOG = "50" } })
    assert.equal("ran\n", out)
    has(log, "WARNING gaterpc.settings environment variable GATERPC_HEARTBEET names no setting",
      "did you mean GATERPC_HEARTBEAT?",
      "setting EVENT_LOOP_POLICY (GATERPC_EVENT_LOOP_POLICY) changes nothing here: the host has one loop",
      "setting DEFAULT_LOGGING ((command line):1) changes nothing here")
    assert.equal(3, select(2, log:gsub("\n", "")), log)
    assert.equal("", select(2, output_of({ "-E", "-e", "" }, { env = { GATERPC_HEARTBEET = "1" } })))
  end)

  it("are printed with values, units, ranges, defaults and where they come from", function()
    local file = process.file("conf.lua", "\nQUEUE_MAXBYTES = '64M'\nMESSAGE_MAX = 100")
    local rows = print_settings({ "--settings", file, "-e", "print 'ran'" },
      { env = { GATERPC_MDP_HEARTBEAT_INTERVAL = "500", GATERPC_TIMEOUT = "7" } })
    assert.truthy(rows.QUEUE_MAXBYTES:find "^QUEUE_MAXBYTES +64M +bytes +1K to %d+ +256M +/.*/conf%.lua:2$")
    assert.truthy(rows.HEARTBEAT:find "^HEARTBEAT +0%.5 +s +0%.05 to 60 +3 +GATERPC_MDP_HEARTBEAT_INTERVAL$")
    assert.truthy(rows.REPLY_TIMEOUT:find "^REPLY_TIMEOUT +14 +s +0 to 86400 +2 %* TIMEOUT +TIMEOUT$")
    assert.truthy(rows.WORKER_CREDIT:find "^WORKER_CREDIT +100 .*conf%.lua:3$")
    assert.truthy(rows.CLIENT_MAX_CALLS:find "^CLIENT_MAX_CALLS +100 .*conf%.lua:3$")
    assert.truthy(rows.LIVENESS:find "^LIVENESS +3 +1 to 100 +3 +default$")
    assert.is_nil(rows.ran)
    has(failure_of({ "--print-settings" }, { env = { GATERPC_LIVENESS = "x" } }), "GATERPC_LIVENESS must be an integer")
  end)

  it("are listed for scripts, with the place that set them", function()
    local host = process.host [[
      local Settings = require "gaterpc".Settings
      Settings.setup { LIVENESS = 5 }
      Settings.MDP_HEARTBEAT_INTERVAL = 500
      for _, row in ipairs(Settings.list()) do
        if row.source ~= "default" then print(row.name, row.value, row.unit, row.source, row.where) end
      end]]
    assert.equal(0, host:wait_exit(), host.err)
    assert.truthy(host.out:find "^HEARTBEAT\t0%.5\ts\tscript\t%S+:3\nLIVENESS\t5\tnil\tscript\t%S+:2\n$", host.out)
  end)

  it("are changed by setup all or none", function()
    local host = process.host [[
      local Settings = require "gaterpc".Settings
      Settings.setup()
      print(pcall(Settings.setup, { LIVENESS = 5, HEARTBEAT = 0 }))
      print(pcall(Settings.setup, { LIVENESS = 5, NONSENSE = 0 }))
      print(pcall(Settings.setup, { LIVENESS = 5, "x" }))
      print(pcall(Settings.setup, "x"))
      print(Settings.LIVENESS)]]
    assert.equal(0, host:wait_exit(), host.err)
    assert.equal(4, select(2, host.out:gsub("false\t", "")))
    has(host.out, "setting HEARTBEAT must be", "unknown setting 'NONSENSE'", "unknown setting '1'", "got string",
      "\n3\n")
  end)

  it("cannot be changed after the first object: which, where, and what else to do is said", function()
    for what, script in pairs {
      Client = "local c = gaterpc.Client {}", Majordomo = "local b = gaterpc.Majordomo {}",
      Worker = "local w = gaterpc.Service { name = 'S' }:create_worker(gaterpc.Worker)",
    } do
      local head = "local gaterpc = require 'gaterpc'\n" .. script
      local host = process.host(head .. [[

        local S = gaterpc.Settings
        print(pcall(function() S.HEARTBEAT = 1 end))
        print(pcall(function() S.setup { BUSY_LIMIT = 1 } end))
        print(pcall(function() S.USER_SETTINGS = "/nowhere" end))
        print(S.HEARTBEAT)]], { name = what })
      assert.equal(0, host:wait_exit(), host.err)
      has(host.out, ("a %s exists already (made at "):format(what), ".lua:2)",
        "setting HEARTBEAT cannot be changed any more", "option 'heartbeat' of Client, Majordomo, create_worker",
        "setting BUSY_LIMIT cannot be changed any more", "setting USER_SETTINGS cannot be changed any more",
        "\n3.0\n")
    end
  end)

  it("have the options that the table tells of, checked like the settings", function()
    local host = process.host [[
      local gaterpc = require "gaterpc"
      local make = {
        Client = gaterpc.Client, Majordomo = gaterpc.Majordomo,
        ThreadPoolExecutor = gaterpc.ThreadPoolExecutor, ProcessPoolExecutor = gaterpc.ProcessPoolExecutor,
        ZAPService = gaterpc.ZAPService,
        create_worker = function(given) return gaterpc.Service { name = "S" }:create_worker(gaterpc.Worker, given) end,
      }
      local count = 0
      for _, row in ipairs(gaterpc.Settings.list()) do
        for class, name in pairs(row.option or {}) do
          count = count + 1
          make[class] { [name] = row.default }
          local ok, err = pcall(make[class], { [name] = print })
          if ok or not err:find("option '" .. name .. "' must be", 1, true) then error(err or row.name) end
          if row.high then
            ok, err = pcall(make[class], { [name] = row.high + 1 })
            if ok or not err:find("option '" .. name .. "' must be from", 1, true) then error(err or row.name) end
          end
        end
      end
      print(count > 20)]]
    assert.equal(0, host:wait_exit(), host.err)
    assert.equal("true\n", host.out)
  end)
end)

describe("a setting of a host", function()
  after_each(process.finish)

  it("DEBUG puts debug lines into the log", function()
    local ask = { "-e", "require('gaterpc').log.debug 'a detail'" }
    assert.equal("", select(2, output_of(ask)))
    has(select(2, output_of(ask, { env = { GATERPC_DEBUG = "1" } })), "DEBUG lua a detail")
  end)

  it("REMOTE_TRACEBACK is overridden by a worker's option", function()
    local host = process.host([[
      local gaterpc = require "gaterpc"
      local Class = gaterpc.Worker:extend "Class"
      function Class.interface:fail() error "broken" end
      local broker = gaterpc.Majordomo {}:start()
      for name, traceback in pairs { On = true, Off = false, Default = 0 } do
        if traceback == 0 then traceback = nil end
        gaterpc.Service { name = name }:create_worker(Class, { traceback = traceback }):start():wait_ready()
        local _, err = gaterpc.Client {}:try(name, "fail")
        print(name, err.traceback ~= nil)
      end
      os.exit(0, true)]], { env = { GATERPC_REMOTE_TRACEBACK = "no" } })
    assert.equal(0, host:wait_exit(), host.err)
    has(host.out, "On\ttrue\n", "Off\tfalse\n", "Default\tfalse\n")
  end)

  it("STREAM_IDLE is overridden by a worker's option", function()
    local host = process.host [[
      local gaterpc = require "gaterpc"
      local Class = gaterpc.Worker:extend "Class"
      function Class.interface:count()
        local _ <close> = setmetatable({}, { __close = function() print "closed" end })
        for i = 1, 1000000 do coroutine.yield(i) end
      end
      gaterpc.Majordomo {}:start()
      gaterpc.Service { name = "S" }:create_worker(Class, { stream_idle = 1 }):start():wait_ready()
      local s <close> = gaterpc.Client { window = 2 }.S.count()
      local ok, err = pcall(function() gaterpc.task.sleep(1.8) for _ in s do end end)
      print(ok, err.code)
      os.exit(0, true)]]
    assert.equal(0, host:wait_exit(), host.err)
    has(host.out, "closed\n", "false\tDEADLINE_EXCEEDED\n")
  end)

  it("RECONNECT is overridden by options of clients and workers", function()
    local front, back = process.ipc "front", process.ipc "back"
    local host = process.host(([[
      local gaterpc = require "gaterpc"
      local front, back = %q, %q
      local service = gaterpc.Service { name = "S" }
      local slow = gaterpc.Client { broker = front, connect_timeout = 0.3 }
      local slow_worker = service:create_worker(gaterpc.Worker, { broker = back }):start()
      local quick = gaterpc.Client { broker = front, connect_timeout = 60, reconnect = 0.02, reconnect_max = 0.02 }
      local quick_worker = service:create_worker(gaterpc.Worker,
        { broker = back, reconnect = 0.02, reconnect_max = 0.02 }):start()
      print(select(2, slow:try("S", "get_interfaces")).code) -- all have tried by now, and found nobody
      io.stdout:flush()
      print(#quick.Gate.get_services() >= 0, quick_worker:wait_ready(60) ~= nil)
      print(select(2, slow:try("S", "get_interfaces")).code, slow_worker:wait_ready(0.01))
      os.exit(0, true)]]):format(front, back), { env = { GATERPC_RECONNECT = "60", GATERPC_RECONNECT_MAX = "600" } })
    host:wait_line "UNAVAILABLE"
    process.broker("ipc", { frontend = front, backend = back })
    assert.equal(0, host:wait_exit(), host.err)
    has(host.out, "true\ttrue\n", "UNAVAILABLE\tnil\tDEADLINE_EXCEEDED")
  end)

  it("ZMQ_IPV6 lets addresses name IPv6 hosts", function()
    local probe = assert(require("luv").new_tcp())
    local has_ipv6 = probe:bind("::1", 0)
    probe:close()
    if not has_ipv6 then return pending "this machine has no IPv6" end
    local with = { env = { GATERPC_ZMQ_CONTEXT_IPV6 = "1" } }
    local script = [[
      local gaterpc = require "gaterpc"
      local broker = gaterpc.Majordomo { backend = "tcp://[::1]:*" }
      local front, ipv4 = broker:bind "tcp://[::1]:*", broker:bind "tcp://127.0.0.1:*"
      broker:start()
      print(ipv4, front, select(2, broker:addresses()))
      broker:run()]]
    local host = process.host(script)
    assert.equal(1, host:wait_exit())
    has(host.err, "cannot bind 'tcp://[::1]:*'")
    local ipv4, front, back = process.host(script, with):wait_line
      "^(tcp://127%.0%.0%.1:%d+)\t(tcp://%[::1%]:%d+)\t(tcp://%[::1%]:%d+)$"
    local call = ([[
      local gaterpc = require "gaterpc"
      local worker = gaterpc.Service { name = "S" }:create_worker(gaterpc.Worker, { broker = %q }):start()
      print(worker:wait_ready(%g) ~= nil)
      for _, front in ipairs { %q, %q } do
        print(type(gaterpc.Client { broker = front, connect_timeout = %g }:try("Gate", "get_services")))
      end
      os.exit(0, true)]]):format(back, process.limit(2), front, ipv4, process.limit(2))
    host = process.host(call, with)
    assert.equal(0, host:wait_exit(), host.err)
    assert.equal("true\ntable\ntable\n", host.out)
  end)

  -- A client is stopped before its answers come, 80 MiB. Those that its broker cannot put into ZeroMQ are more
  -- than the 64 MiB that the broker itself keeps for a peer, when the mark is low.
  it("ZMQ_HWM is how many messages may wait for a peer that does not read [limit 30]", function()
    local function is_dropped(hwm)
      local front, back = process.ipc "front", process.ipc "back"
      local env = { GATERPC_ZMQ_HWM = hwm }
      local broker = process.host(([[
        local gaterpc = require "gaterpc"
        local Broker = gaterpc.Majordomo:extend "Broker"
        function Broker.interface:slow() return 200, self:stats().slow end
        Broker { frontend = %q, backend = %q }:run()]]):format(front, back), { name = "broker", env = env })
      local worker = process.worker("S", [[
        gaterpc.Settings.HUGE_DATA_SIZEOF = "1M" -- what is compressed would not fill anything
        local open, go, size = 0, task.promise(), ("x"):rep(256 << 10)
        function Class.interface:big()
          open = open + 1
          if open == 320 then print "all are here" io.stdout:flush() end
          go:await()
          open = open - 1
          return size
        end
        function Class.interface:release() go:resolve() end
        function Class.interface:open() return open end]], back)
      local client = process.client([[
        for _ = 1, 320 do task.spawn(client.S.big) end]], front)
      worker:wait_line "all are here"
      client:pause()
      local other = process.client([[
        client.S.release()
        while client.S.open() > 0 do end -- its last answer comes behind the big ones
        print(client.Gate.slow())]], front)
      local slow = tonumber(other:wait_line "^(%d+)$")
      client:kill "sigkill"
      broker:kill "sigkill"
      return slow > 0
    end
    assert.is_true(is_dropped "16")
    assert.is_false(is_dropped "4096")
  end)
end)

describe("settings of the log", function()
  after_each(process.finish)

  local function run(script, env, args)
    local host = process.host("local gaterpc = require 'gaterpc'\nlocal log = gaterpc.log\n" .. script, {
      env = env, args = args, name = "shop" })
    assert.equal(0, host:wait_exit(), host.err)
    return host
  end

  it("send it to a file from outside, beside standard error", function()
    local path = process.dir() .. "/host.log"
    local host = run("log.info 'one' log.debug 'two'", { GATERPC_LOG_PATH = path })
    has(process.read(path), "INFO lua one\n")
    has(host.err, "INFO lua one\n")
    assert.is_nil(process.read(path):find "two")
    run("log.info 'three'", { GATERPC_LOG_PATH = path })
    has(process.read(path), "INFO lua one\n", "INFO lua three\n") -- appended
  end)

  it("send it to a folder, where it has the name of the script", function()
    for _, folder in ipairs { process.dir(), process.dir() .. "/" } do
      run("log.info(...)", { GATERPC_LOG_PATH = folder }, { folder })
    end
    local found = 0
    for name in uv.fs_scandir_next, assert(uv.fs_scandir(process.dir())) do
      if name:find "^shop%d+%.log$" then
        has(process.read(process.dir() .. "/" .. name), "INFO lua " .. process.dir())
        found = found + 1
      end
    end
    assert.equal(2, found)
    local host = process.command({ "-e", "require 'gaterpc'.log.info 'x'" }, {
      env = { GATERPC_LOG_PATH = process.dir() } })
    assert.equal(0, host:wait_exit())
    has(process.read(process.dir() .. "/gaterpc-host.log"), "INFO lua x")
  end)

  it("make it JSON, on standard error and in the file", function()
    local path = process.dir() .. "/host.json"
    local host = run("log.info('one', { a = 1 })", { GATERPC_LOG_PATH = path, GATERPC_LOG_FORMAT = "json" })
    for _, text in ipairs { host.err, process.read(path) } do
      has(text, '"level":"info","logger":"lua","message":"one","fields":{"a":1}}\n')
    end
  end)

  it("give its level, whatever DEBUG says", function()
    local function levels(env)
      return run([[io.write(log.level(), " ", tostring(log.wants "debug"))]], env).out
    end
    assert.equal("info false", levels {})
    assert.equal("debug true", levels { GATERPC_DEBUG = "1" })
    assert.equal("error false", levels { GATERPC_LOG_LEVEL = "error" })
    assert.equal("warning false", levels { GATERPC_LOG_LEVEL = "warning", GATERPC_DEBUG = "1" })
    assert.equal("debug true", levels { GATERPC_LOG_LEVEL = "debug" })
  end)

  it("take the whole of log.setup as LOGGING, from a file and a script, before the single ones", function()
    local path, other = process.dir() .. "/a.log", process.dir() .. "/b.log"
    local conf = process.file("conf.lua", ([[
      LOG_LEVEL = "error"
      LOG_PATH = %q
      LOGGING = { level = "warning", console = false, levels = { shop = "debug" },
        files = { { path = %q, format = "json", rotate_bytes = 1 << 20 } } }]]):format(other, path))
    local text = "log.logger 'shop'.debug 'seen' log.info 'unseen' log.warning 'seen, too'"
    local host = run(text, { GATERPC_USER_SETTINGS = conf })
    assert.equal("", host.err)
    local got = process.read(path)
    has(got, '"logger":"shop","message":"seen"}', '"message":"seen, too"}')
    assert.is_nil(got:find "unseen")
    assert.equal("", process.read(other))
    host = run(([[
      gaterpc.Settings.setup { LOGGING = { files = { { path = %q } } }, LOG_FORMAT = "json" }
      log.info "from the script"]]):format(other))
    has(process.read(other), "INFO lua from the script\n") -- a file of LOGGING has its own format
    has(host.err, '"message":"from the script"')
  end)

  it("leave what a script has set up alone when they change the level only", function()
    local path = process.dir() .. "/a.log"
    run(([[
      assert(log.setup { files = { { path = %q } } })
      gaterpc.Settings.LOG_LEVEL = "debug"
      log.debug "still here"]]):format(path))
    has(process.read(path), "DEBUG lua still here\n")
  end)

  it("that are wrong are errors before anything runs", function()
    for env, problem in pairs {
      [{ GATERPC_LOG_PATH = "/nowhere/x.log" }] =
        "variable GATERPC_LOG_PATH names a file that cannot be opened: no such file or directory: /nowhere/x.log",
      [{ GATERPC_LOG_PATH = "" }] = "GATERPC_LOG_PATH must be the path of a file or a folder",
      [{ GATERPC_LOG_PATH = "/dev/full/" }] = "cannot be opened",
      [{ GATERPC_LOG_FORMAT = "xml" }] = [[GATERPC_LOG_FORMAT must be one of "text", "json", got 'xml']],
      [{ GATERPC_LOG_LEVEL = "INFO" }] = [[GATERPC_LOG_LEVEL must be one of "debug", "info"]],
      [{ GATERPC_LOGGING = "{}" }] = "GATERPC_LOGGING must be a table, got '{}'",
    } do
      has(failure_of({ "-e", "print 'ran'" }, { env = env }), "gaterpc-host: environment ", problem)
    end
    local wrong = { ["{ version = 1 }"] = "setting LOGGING is not what gaterpc.log.setup takes: ",
      ["{ level = 'loud' }"] = "a level is debug", ["{ files = { { path = '/nowhere/x' } } }"] = "cannot be opened",
      ["{ files = { {} } }"] = "option 'path' is missing", ["'x'"] = "must be a table, got string 'x'" }
    for text, problem in pairs(wrong) do
      local host = process.command { "-e", "require 'gaterpc'.Settings.LOGGING = " .. text .. " print 'ran'" }
      assert.equal(1, host:wait_exit())
      assert.equal("", host.out)
      has(host.err, "(command line):1: setting LOGGING ", problem)
    end
    local out = output_of({ "--print-settings" }, { env = { GATERPC_LOG_LEVEL = "error" } })
    has(out, 'LOG_LEVEL', '"error"', "GATERPC_LOG_LEVEL")
  end)
end)
