-- Who may do what, with a real broker: mechanisms, roles, attackers, and what they find out.
local gaterpc = require "gaterpc"
local peers = require "support.peers"
local process = require "support.process"
local task = gaterpc.task

local LONG = os.getenv "GATERPC_LONG"
local KNOCK = (arg[-1] or "build/gaterpc-host"):gsub("gaterpc%-host$", "spec/knock")

local BROKER = [[
local gaterpc = require "gaterpc"
local task = gaterpc.task
local server, zap = %s, gaterpc.ZAPService {}
zap:configure_plain("gate", { ann = "ann's password", wes = "wes's password",
  hal = arg[1] == "hashed" and gaterpc.hash_password "hal's" or nil })
zap:configure_curve("gate", %s)
assert(zap:start())
local Broker = gaterpc.Majordomo:extend "Broker"
function Broker.interface:stats() return 200, gaterpc.map(self:stats()) end
function Broker.interface:zap() return 200, gaterpc.map(zap:stats()) end
local broker = Broker {
  frontend = "inproc://front", curve = server,
  access = {
    roles = { workers = { "wes", "max" }, readers = { "ann", "hal" } },
    { role = "workers", register = "Kv" },
    { user = "eve", register = "Eve", call = "Eve.*" },
    { role = "readers", call = { "Kv.*", "Gate.get_services", "Eve.*" } },
    { user = "max", call = "Kv.get" },
  },
}
broker:connect_zap { mechanism = "PLAIN" }
for _, mechanism in ipairs { "PLAIN", "CURVE", "NULL" } do
  print(mechanism, broker:bind("tcp://127.0.0.1:*", { mechanism = mechanism }),
    broker:bind_backend("tcp://127.0.0.1:*", { mechanism = mechanism }))
end
broker:start()
print "ready"
-- What it counts is asked for from within: nobody else may.
local client = gaterpc.Client { broker = "inproc://front" }
for line in io.lines() do
  local counters = line == "zap" and client.Gate.zap() or client.Gate.stats()
  local parts = {}
  for name, value in pairs(counters) do parts[#parts + 1] = name .. "=" .. value end
  print("counters", table.concat(parts, " "))
end
broker:run()
]]

local function literal(pair)
  return ("{ public = %q, secret = %q }"):format(pair.public, pair.secret)
end

describe("a secured broker", function()
  local server, keys, broker, addresses, objects

  setup(function()
    server, keys = gaterpc.curve.generate(), {}
    for _, name in ipairs { "ann", "wes", "eve", "nobody" } do keys[name] = gaterpc.curve.generate() end
  end)

  -- "hashed": it also knows hal, whose password it has as a hash. Then a wrong password of anybody costs one.
  local function open(...)
    local known = {}
    for _, name in ipairs { "ann", "wes", "eve" } do known[#known + 1] = ("%s = %q"):format(name, keys[name].public) end
    broker = process.host(BROKER:format(literal(server), "{ " .. table.concat(known, ", ") .. " }"), {
      name = "broker", keep_stdin = true, env = { GATERPC_ZAP_PENALTY = "0" }, args = { ... } })
    addresses, objects = {}, {}
    for _ = 1, 3 do
      local mechanism, front, back = broker:wait_line "^(%u+)\t(%S+)\t(%S+)$"
      addresses[mechanism] = { front = front, back = back }
    end
    broker:wait_line "ready"
  end

  after_each(function()
    for _, each in ipairs(objects) do each:close() end
    process.finish()
  end)

  local function counters(what)
    broker.stdin:write(what .. "\n")
    local found = {}
    for name, value in broker:wait_line("^counters\t(.*)$"):gmatch "(%w+)=(%d+)" do found[name] = tonumber(value) end
    return found
  end

  local function curve(name, server_key)
    return { public = keys[name].public, secret = keys[name].secret, server = server_key or server.public }
  end

  local credentials = {
    ["PLAIN of ann"] = function() return "PLAIN", { "ann", "ann's password" } end,
    ["PLAIN of wes"] = function() return "PLAIN", { "wes", "wes's password" } end,
    ["PLAIN of hal, hashed"] = function() return "PLAIN", { "hal", "hal's" } end,
    ["a wrong password"] = function() return "PLAIN", { "ann", "wes's password" } end,
    ["a wrong password for a hash"] = function() return "PLAIN", { "hal", "hal'S" } end,
    ["an unknown user"] = function() return "PLAIN", { "nobody", "ann's password" } end,
    ["CURVE of ann"] = function() return "CURVE", curve "ann" end,
    ["CURVE of wes"] = function() return "CURVE", curve "wes" end,
    ["an unknown key"] = function() return "CURVE", curve "nobody" end,
    ["another server's key"] = function() return "CURVE", curve("ann", keys.nobody.public) end,
    ["nothing"] = function() end,
  }

  local function client(mechanism, what)
    local shown, secrets = credentials[what]()
    local made = gaterpc.Client { broker = addresses[mechanism].front, zap_mechanism = shown, zap_credentials = secrets,
      connect_timeout = process.limit(5) }
    table.insert(objects, made)
    return made
  end

  local Kv = gaterpc.Worker:extend "Kv"
  function Kv.interface:get(key) return "value of " .. key end
  function Kv.interface:set() return true end

  -- What becomes of a worker: true, or the error's code.
  local function worker(mechanism, what, service)
    local shown, secrets = credentials[what]()
    local made = gaterpc.Service { name = service or "Kv" }:create_worker(Kv, {
      broker = addresses[mechanism].back, zap_mechanism = shown, zap_credentials = secrets })
    table.insert(objects, made)
    made:start()
    local ready, err = made:wait_ready(process.limit(10))
    return ready and true or err.code, made
  end

  it("lets in who shows the right thing, at every address, in every role", function()
    open "hashed"
    for mechanism, names in pairs { PLAIN = { "PLAIN of ann", "PLAIN of hal, hashed" }, CURVE = { "CURVE of ann" } } do
      local ready, made = worker(mechanism, mechanism .. " of wes")
      assert.is_true(ready)
      for _, name in ipairs(names) do assert.equal("value of x", client(mechanism, name).Kv.get "x") end
      made:close()
    end
    assert.equal(0, counters("stats").refused)
    assert.equal(0, counters("zap").refused)
  end)

  it("refuses everybody else at once, and says so", function()
    open "hashed"
    local refused = {
      PLAIN = { "a wrong password", "a wrong password for a hash", "an unknown user", "CURVE of ann", "nothing" },
      CURVE = { "PLAIN of ann", "an unknown key", "nothing" },
      NULL = { "PLAIN of ann", "CURVE of ann", "nothing" },
    }
    for mechanism, names in pairs(refused) do
      for _, what in ipairs(names) do
        local name = what .. " at " .. mechanism
        local result, err = client(mechanism, what):try("Gate", "get_services")
        assert.is_nil(result, name)
        assert.equal("UNAUTHENTICATED", err.code, name)
        assert.equal("UNAUTHENTICATED", worker(mechanism, what), name)
      end
    end
    local _, err = client("CURVE", "another server's key"):try("Gate", "get_services")
    assert.truthy(err.code == "UNAUTHENTICATED" or err.code == "UNAVAILABLE", tostring(err))
    local admitted = counters("zap").admitted -- at the address for NULL, whose broker then refuses them
    assert.truthy(admitted <= 2 * 3, admitted)
    assert.equal(1, counters("stats").workers) -- the broker's own handlers
  end)

  it("lets each do what the list says, and nothing else", function()
    open()
    assert.is_true((worker("CURVE", "CURVE of wes")))
    assert.equal("PERMISSION_DENIED", (worker("PLAIN", "PLAIN of ann")))
    assert.equal("PERMISSION_DENIED", (worker("CURVE", "CURVE of wes", "Other")))
    local ann, wes = client("PLAIN", "PLAIN of ann"), client("CURVE", "CURVE of wes")
    assert.equal("value of x", ann.Kv.get "x")
    assert.same({ "Kv", "Gate" }, ann.Gate.get_services())
    for _, call in ipairs { { ann, "Gate", "stats" }, { wes, "Kv", "get" }, { wes, "Gate", "get_services" } } do
      local result, err = call[1]:try(call[2], call[3], "x")
      assert.is_nil(result)
      assert.equal("PERMISSION_DENIED", err.code)
    end
    assert.truthy(counters("stats").denied >= 5)
  end)

  -- A client that works all the time; stop() gives how often it did.
  local function busy_client(mechanism, what)
    local caller, going, done = client(mechanism, what), true, 0
    caller.Kv.get "warm"
    local failure
    local job = task.spawn(function()
      while going and not failure do
        local value, err = caller:try("Kv", "get", "x")
        if value ~= "value of x" then failure = tostring(err or value) end
        done = done + 1
      end
    end)
    return function()
      going = false
      job:join()
      assert.is_nil(failure)
      return done
    end
  end

  local function knock(address, count, ...)
    local knocker = process.run(KNOCK, { address, tostring(count), ... }, { name = "knock" })
    return knocker:wait_line("^(refused.*)$", 120)
  end

  it("lets nobody in by thousands of wrong passwords and keys, and serves others meanwhile [limit 240]", function()
    open()
    assert.is_true((worker("CURVE", "CURVE of wes")))
    local stop = busy_client("PLAIN", "PLAIN of ann")
    local passwords, curves = LONG and 10000 or 2000, LONG and 1000 or 200
    assert.equal(("refused %d admitted 0 silent 0"):format(passwords),
      knock(addresses.PLAIN.front, passwords, "plain", "ann"))
    assert.equal(("refused %d admitted 0 silent 0"):format(curves),
      knock(addresses.CURVE.back, curves, "curve", server.public))
    assert.is_true(stop() > 100)
    assert.equal(passwords + curves, counters("zap").refused)
    local lines = broker:count_log "gaterpc.zap refused: %d+"
    assert.is_true(lines >= 1 and lines <= 20, lines)
    assert.equal("value of new", client("CURVE", "CURVE of ann").Kv.get "new")
  end)

  it("does not spend itself on hashes that are tried, and lets the right one in between [limit 60]", function()
    open "hashed"
    assert.is_true((worker("CURVE", "CURVE of wes")))
    assert.equal("value of x", client("PLAIN", "PLAIN of hal, hashed").Kv.get "x")
    local stop = busy_client("CURVE", "CURVE of ann")
    local knocker = process.run(KNOCK, { addresses.PLAIN.front, "40", "plain", "hal" }, { name = "knock" })
    assert.equal("value of y", client("PLAIN", "PLAIN of hal, hashed").Kv.get "y")
    assert.equal("refused 40 admitted 0 silent 0", knocker:wait_line("^(refused.*)$", 120))
    assert.is_true(stop() > 10)
  end)

  for _, dialect in ipairs { "gate01", "gate02" } do
    it("asks programs of the Python package for the password inside each message: " .. dialect, function()
      open()
      local back, front = addresses.NULL.back, addresses.NULL.front
      local function program(kind, password)
        local is_worker = kind == "worker"
        local made = peers[kind] { dialect = dialect, connect = is_worker and back or front,
          service = is_worker and "Kv" or nil, plain = password }
        table.insert(objects, { close = function() made:stop() end })
        return made
      end
      program("worker", "wes:wes's password")
      process.eventually(function() return counters("stats").workers == 2 end, "a registered worker")
      program("worker", "ann:ann's password") -- a user who may not register
      program("worker", "wes:wrong")
      local caller = program("client", "ann:ann's password")
      assert.equal(1, caller:call("Kv", "echo", { 1 }).result)
      assert.same({ 0, 1, 2 }, caller:call("Kv", "count", { 3 }).items)
      assert.equal("PERMISSION_DENIED", caller:call("Gate", "stats", {}).error[1])
      assert.equal("UNAUTHENTICATED", program("client", "ann:wrong"):said()[1].refused[1])
      process.eventually(function() return counters("stats").denied >= 2 end, "the refusal of the worker")
      assert.equal(2, counters("stats").workers) -- and the broker's own handlers
    end)
  end

  it("keeps a routing id for the connection that has it", function()
    open()
    assert.is_true((worker("CURVE", "CURVE of wes")))
    local thief = process.run("/usr/bin/python3", { "-c", [[
import sys, zmq
ctx = zmq.Context()
def connect(rid):
    sock = ctx.socket(zmq.DEALER)
    sock.setsockopt(zmq.IDENTITY, rid)
    sock.setsockopt(zmq.LINGER, 0)
    sock.connect(sys.argv[1])
    return sock
def call(sock, rid, number):
    tag = b"%032x" % number
    sock.send_multipart([b"", b"MDPC01", b"Gate", rid, b"PLAIN", b"ann", b"ann's password", tag, b"\xacget_services"])
    return tag
rid = b"gc-" + b"1" * 32
victim = connect(rid)
call(victim, rid, 1)
assert victim.poll(10000), "no answer before"
victim.recv_multipart()
thieves = [connect(rid) for _ in range(5)]
for thief in thieves:
    thief.send_multipart([b"", b"MDPC01", b"Gate", rid, b"PLAIN", b"eve", b"x", b"2" * 32, b"\xacget_services"])
for number in range(10, 60):
    tag = call(victim, rid, number)
    assert victim.poll(10000), "the victim was disturbed"
    assert tag in victim.recv_multipart()
assert not any(thief.poll(0) for thief in thieves), "a thief heard something"
print("undisturbed")
]], addresses.NULL.front }, { name = "thief" })
    thief:wait_line("undisturbed", 30)
  end)

  it("lets no secret out: not into logs, errors, descriptions, settings, process lists", function()
    open "hashed"
    local secrets = { "ann's password", "wes's password", "hal's", server.secret, keys.ann.secret, keys.wes.secret,
      "$argon2" }
    local ready, made = worker("CURVE", "CURVE of wes")
    assert.is_true(ready)
    local texts = { tostring(made), require("gaterpc.pretty")(made) }
    for what in pairs(credentials) do
      for _, mechanism in ipairs { "PLAIN", "CURVE", "NULL" } do
        local caller = client(mechanism, what)
        local _, err = caller:try("Kv", "get_interfaces")
        texts[#texts + 1] = tostring(err) .. (err and tostring(err.traceback) or "")
        texts[#texts + 1] = tostring(caller) .. require("gaterpc.pretty")(caller)
      end
    end
    texts[#texts + 1] = require("gaterpc.pretty")(client("CURVE", "CURVE of ann").Kv.get_interfaces())
    texts[#texts + 1] = broker.err
    for _, file in ipairs { "cmdline", "environ" } do
      local proc <close> = assert(io.open(("/proc/%d/%s"):format(broker.pid, file)))
      texts[#texts + 1] = proc:read "a"
    end
    local shown = process.command({ "--print-settings" }, { name = "settings" })
    shown:wait_exit()
    texts[#texts + 1] = shown.out
    for _, text in ipairs(texts) do
      for _, secret in ipairs(secrets) do assert.is_nil(text:find(secret, 1, true), text) end
    end
  end)
end)

describe("security of a broker", function()
  after_each(process.finish)

  local function fails(pattern, fn, ...)
    local ok, err = pcall(fn, ...)
    assert.is_false(ok)
    assert.is_truthy(tostring(err):find(pattern), tostring(err))
  end

  it("is not there by half: what would let everybody in by mistake is an error", function()
    local pair = gaterpc.curve.generate()
    local broker = gaterpc.Majordomo { curve = pair, backend = "inproc://security.back" }
    fails("connect_zap first", broker.bind, broker, "tcp://127.0.0.1:*", { mechanism = "CURVE" })
    fails("connect_zap first", broker.bind, broker, "tcp://127.0.0.1:*", { mechanism = "PLAIN" })
    broker:close()
    broker = gaterpc.Majordomo {}
    fails("no ZAPService of this process has the domain 'gate'", broker.connect_zap, broker, { mechanism = "CURVE" })
    fails("must be NULL, PLAIN or CURVE", broker.connect_zap, broker, { mechanism = "curve" })
    fails("did you mean 'mechanism'", broker.connect_zap, broker, { mechanisn = "CURVE" })
    local zap <close> = assert(gaterpc.ZAPService {}:configure_plain("gate", { a = "b" }):start())
    broker:connect_zap { mechanism = "CURVE" }
    fails("called already", broker.connect_zap, broker, {})
    fails("CURVE needs the option 'curve'", broker.bind, broker, "tcp://127.0.0.1:*")
    fails("connect_zap comes before", broker.connect_zap, broker, {})
    broker:close()
    broker = gaterpc.Majordomo {}
    broker:connect_zap { mechanism = "PLAIN" }
    fails("leaves this host", broker.bind, broker, "tcp://*:*")
    fails("leaves this host", broker.bind, broker, "tcp://0.0.0.0:*", { mechanism = "PLAIN" })
    broker:close()
    assert.is_truthy(tostring(zap))
  end)

  it("has lists that are checked, with what is wrong in them", function()
    for pattern, list in pairs {
      ["access%[1%]: 'user' or 'role' is missing"] = { { call = "*" } },
      ["access%[1%] allows nothing"] = { { user = "a" } },
      ["access%[2%]: unknown role 'reader', did you mean 'readers'"] = {
        roles = { readers = { "a" } }, { role = "readers", call = "*" }, { role = "reader", call = "*" } },
      ["did you mean 'call'"] = { { user = "a", cal = "*" } },
      ["did you mean 'roles'"] = { role = {} },
      ["without holes"] = { [2] = { user = "a", call = "*" } },
      ["1 to 255 bytes"] = { { user = "", call = "*" } },
      ["'call' takes service.method, or \"%*\" for everything, got 'Kv'"] = { { user = "a", call = { "*", "Kv" } } },
      ["got 'Kv%.'"] = { { user = "a", call = "Kv." } },
      ["must be a string or a list"] = { { user = "a", call = { x = "y" } } },
    } do
      fails(pattern, gaterpc.Majordomo, { access = list })
    end
    fails("access list: .*No such file", gaterpc.Majordomo, { access = "/nowhere/access.lua" })
    local code = process.file("code.lua", "os.exit(1) return {}")
    fails("attempt to index a nil value .global 'os'", gaterpc.Majordomo, { access = code })
  end)

  it("reads lists and users anew on SIGHUP, and keeps what it has when they cannot be read", function()
    local users, access = process.file("users", "# who\nann:one\nwes:w\n"), process.file("access.lua",
      'return { { user = "wes", register = "*" }, { user = "ann", call = "S.get" } }')
    local host = process.host(([[
      local gaterpc = require "gaterpc"
      local broker = gaterpc.Majordomo { users = %q, access = %q, backend = "inproc://back" }
      print(broker:bind("tcp://127.0.0.1:*", { mechanism = "PLAIN" }))
      print(broker:bind_backend("tcp://127.0.0.1:*", { mechanism = "PLAIN" }))
      broker:run()]]):format(users, access), { name = "broker" })
    local front, back = host:wait_line "^(tcp%S+)$", host:wait_line "^(tcp%S+)$"
    host:wait_log "serving clients"
    local Any = gaterpc.Worker:extend "Any"
    function Any.interface:get() return "got" end
    function Any.interface:set() return "set" end
    local worker = gaterpc.Service { name = "S" }:create_worker(Any, {
      broker = back, zap_mechanism = "PLAIN", zap_credentials = { "wes", "w" } }):start()
    assert(worker:wait_ready(10))
    local function try(user, password, method)
      local client = gaterpc.Client { broker = front, zap_mechanism = "PLAIN", zap_credentials = { user, password } }
      local result, err = client:try("S", method)
      client:close()
      return result or err.code
    end
    local function reload(path, text, line)
      local file <close> = assert(io.open(path, "w"))
      file:write(text)
      file:close()
      host:kill "sighup"
      host:wait_log(line)
    end
    assert.equal("got", try("ann", "one", "get"))
    assert.equal("PERMISSION_DENIED", try("ann", "one", "set"))
    reload(access, 'return { { user = "*", register = "*", call = "S.*" } }', "access list .* read anew")
    assert.equal("set", try("ann", "one", "set"))
    reload(access, "return {", "the access list stays as it was: .*access.lua:1")
    assert.equal("set", try("ann", "one", "set"))
    local open = gaterpc.Client { broker = front, zap_mechanism = "PLAIN", zap_credentials = { "ann", "one" } }
    assert.equal("got", open.S.get())
    reload(users, "ann:one\nwes:w\nbob:two\n", "ZAP service.*read anew")
    assert.equal("got", try("bob", "two", "get"))
    reload(users, "ann:one\nsecret without a colon\n", "stays as it was: .*users:2: a line is name:password")
    assert.is_nil(host.err:find("secret without", 1, true))
    assert.equal("got", try("bob", "two", "get"))
    reload(users, "wes:w\nbob:two\n", "ZAP service.*read anew")
    assert.equal("UNAUTHENTICATED", try("ann", "one", "get"))
    assert.equal("UNAUTHENTICATED", select(2, open:try("S", "get")).code) -- the connection that is there, too
    assert.equal("got", try("bob", "two", "get"))
    open:close()
    worker:close()
  end)
end)
