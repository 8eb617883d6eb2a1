-- The handlers of a Majordomo: what they get, what their callers get, for every dialect, and that they hold up nobody.
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local peers = require "support.peers"
local process = require "support.process"
local task = gaterpc.task

local msgpack = gaterpc.message_pack
local dialects = { "gh1", "gate01", "gate02", "mdp" }

-- A broker in a process of its own, with handlers of every kind.
local BROKER = [[
local gaterpc = require "gaterpc"
local core = require "gaterpc.core"
local front, back, heartbeat = ...
local Broker = gaterpc.Majordomo:extend "Broker"
local function about(_, request)
  return 200, { request.method, request.request_id, gaterpc.bin(request.client_id), request.client_addr or "",
    gaterpc.bin(request.body) }
end
Broker.interface.who = gaterpc.interface(about)
Broker.interface.who_thread = gaterpc.interface(about, "thread")
Broker.interface.who_process = gaterpc.interface(about, "process")
function Broker.interface:client(request) return 200, request.client_id end
function Broker.interface:address(request) return 200, request.client_addr end
function Broker.interface:echo(_, ...) return 200, { ... } end
function Broker.interface:status(_, status, value) return status, value end
local quiet = 0
function Broker.interface:quiet() quiet = quiet + 1 return 100 end
function Broker.interface:quiet_calls() return 200, quiet end
function Broker.interface:broken() error "inside" end
function Broker.interface:refuses() error(gaterpc.error("PERMISSION_DENIED", "not you", { class = "Door" })) end
function Broker.interface:nonsense() return "200", 1 end
function Broker.interface:unsayable() return 200, print end
function Broker.interface:nap(_, seconds) gaterpc.task.sleep(seconds) return 200, "rested" end
function Broker.interface:spin(_, seconds)
  local deadline = core.now() + seconds
  while core.now() < deadline do end
  return 200, "spun"
end
local function count(_, _, n) for i = 1, n do coroutine.yield(i) end end
Broker.interface.count = gaterpc.interface(count)
Broker.interface.count_thread = gaterpc.interface(count, "thread")
Broker.interface.count_process = gaterpc.interface(count, "process")
local left = 0
function Broker.interface:endless()
  local _ <close> = setmetatable({}, { __close = function() left = left + 1 end })
  for i = 1, math.huge do coroutine.yield(i) end
end
function Broker.interface:left() return 200, left end
function Broker.interface:breaks() coroutine.yield(1) error "midway" end
function Broker.interface:huge() return 200, gaterpc.HugeData { data = ("0123456789abcdef"):rep(40000) } end
function Broker.interface:big() return 200, ("0123456789abcdef"):rep(40000) end
function Broker.interface:doubles(_, service, n)
  self.own = self.own or gaterpc.Client { broker = front }
  return 200, self.own:call(service, "echo", n) * 2
end
local broker = Broker { backend = back, heartbeat = tonumber(heartbeat) }
for address in front:gmatch "%S+" do broker:bind(address) end
front = broker:start():addresses()
print(broker:addresses())
broker:run()
]]

describe("the handlers of a broker", function()
  local host, front, back

  after_each(process.finish)

  local function open(heartbeat, address)
    host = process.host(BROKER, {
      args = { address or process.ipc "front", process.ipc "back", tostring(heartbeat or 3) }, name = "broker" })
    front, back = host:wait_line "(%S+)\t(%S+)"
    host:wait_log "gaterpc.worker Gate is registered"
  end

  local function connect(dialect, more)
    return process.connect(front, dialect, more)
  end

  for _, dialect in ipairs { "gh1", "gate01", "gate02" } do
    for _, name in ipairs { "who", "who_thread", "who_process" } do
      it(("are told by %s who calls in the dialect %s"):format(name, dialect), function()
        open(3, "tcp://127.0.0.1:*")
        local client, other = connect(dialect), connect(dialect)
        local got = client:call("Gate", name, 1, "two", gaterpc.kwargs { x = 3 })
        assert.equal(name, got[1])
        assert.equal("integer", math.type(got[2]))
        local id, address, body = got[3], got[4], got[5]
        assert.is_true(#id > 0)
        if dialect == "gate01" then assert.truthy(id:find "^gc%-%x+$") end
        if dialect == "gate02" then assert.equal(16, #id) end
        assert.equal("127.0.0.1", address)
        local args, behind = msgpack.unpack(body, 1)
        assert.same({ 1, "two" }, args)
        local kwargs, rest = msgpack.unpack(body, behind)
        assert.same({ x = 3 }, kwargs)
        assert.equal(#body + 1, rest)
        local again = client:call("Gate", name)
        assert.equal(id, again[3])
        assert.are_not.equal(got[2], again[2])
        assert.same({}, (msgpack.unpack(again[5])))
        assert.are_not.equal(id, other:call("Gate", name)[3])
      end)
    end
  end

  it("are told who calls as an RFC 7 client, too", function()
    open(3, "tcp://127.0.0.1:*")
    local client = connect "mdp"
    assert.equal("127.0.0.1", client:call("Gate", "address"))
    local id = client:call("Gate", "client")
    assert.is_true(#id > 0)
    assert.equal(id, client:call("Gate", "client"))
  end)

  it("are told the address of a client in their process, and of one behind ipc as far as it is known", function()
    open(3, process.ipc "front" .. " inproc://front")
    assert.truthy(connect "gh1".Gate.address():find "^localhost:%d+:%d+:%d+$") -- user, group and process
    local Broker = gaterpc.Majordomo:extend "Broker"
    function Broker.interface:who(request) return 200, { request.client_addr, #request.client_id } end
    local broker = Broker { frontend = "inproc://handlers", backend = process.ipc "own" }:start()
    local client = gaterpc.Client { broker = "inproc://handlers" }
    local got = client.Gate.who()
    client:close()
    broker:close()
    assert.same({ "inproc", 8 }, got)
  end)

  it("get large arguments as they came, and what waited in line for them", function()
    open()
    local client = connect "gh1"
    local text = ("0123456789abcdef"):rep(40000)
    local got = client.Gate.who(text)
    assert.same({ text }, (msgpack.unpack(got[5])))
    local calls = {}
    for i = 1, 300 do calls[i] = function() return client.Gate.who(i)[5] end end
    for i, body in ipairs(task.all(calls)) do assert.same({ i }, (msgpack.unpack(body))) end
  end)

  it("do not get in the way of services, whose workers are told nothing of the client", function()
    open()
    process.worker("Echo", "function Class.interface:echo(...) return select('#', ...) end", back)
    for _, dialect in ipairs { "gh1", "gate01", "gate02" } do
      assert.equal(2, connect(dialect).Echo.echo(1, 2))
    end
    assert.equal(4, connect "gh1".Gate.doubles("Echo", 1) + 2)
  end)

  for _, dialect in ipairs(dialects) do
    it(("say 1xx and a %s client hears nothing"):format(dialect), function()
      open()
      local client = connect(dialect)
      client:call("Gate", dialect == "mdp" and "client" or "echo", 1) -- it is connected
      local began = core.now()
      local value, err = client:with({ timeout = 0.5 }):try("Gate", "quiet")
      assert.is_nil(value)
      assert.equal("DEADLINE_EXCEEDED", err.code)
      assert.is_true(core.now() - began > 0.45)
      assert.equal("1", tostring(connect "gh1".Gate.quiet_calls())) -- it has run, once
      assert.equal("2", tostring(client:call("Gate", dialect == "mdp" and "client" or "echo", 2)
        and connect "gh1".Gate.quiet_calls() + 1)) -- and the client can go on
    end)

    it(("fail, and a %s client gets an error at once"):format(dialect), function()
      open()
      local client = connect(dialect)
      local _, err = client:try("Gate", "broken")
      if dialect == "mdp" then return assert.truthy(host:wait_log "(inside)") end -- there is no word for errors
      assert.truthy(err.message:find "inside")
      assert.equal(dialect == "gh1" and "INTERNAL" or err.code, err.code)
      _, err = client:try("Gate", "refuses")
      assert.equal("Door", err.class)
      assert.equal("not you", err.message)
      for _, name in ipairs { "nonsense", "unsayable" } do
        _, err = client:try("Gate", name)
        assert.truthy(err.message:find(name == "nonsense" and "from 100 to 599" or "cannot be sent"), err.message)
      end
      assert.truthy(client:try("Gate", "nothing_like_it") == nil)
      assert.same({ 1 }, client:call("Gate", "echo", 1))
    end)
  end

  it("say 1xx to a client without a time limit, whose call ends at once", function()
    open()
    local client = connect("gh1", { timeout = 0 })
    assert.is_nil(client.Gate.quiet())
    assert.equal(1, client.Gate.quiet_calls())
  end)

  it("give a status that is an error for a gh1 client, and a number for the original's", function()
    open()
    local client = connect "gh1"
    assert.equal("v", client.Gate.status(200, "v"))
    assert.equal("v", client.Gate.status(299, "v"))
    assert.equal("v", client.Gate.status(302, "v"))
    for status, code in pairs { [400] = "INVALID_ARGUMENT", [401] = "UNAUTHENTICATED", [403] = "PERMISSION_DENIED",
      [404] = "NOT_FOUND", [408] = "DEADLINE_EXCEEDED", [429] = "RESOURCE_EXHAUSTED", [503] = "UNAVAILABLE",
      [418] = "INTERNAL", [500] = "INTERNAL" } do
      local value, err = client:try("Gate", "status", status, "why")
      assert.is_nil(value)
      assert.same({ code, status, "why" }, { err.code, err.status, err.message })
    end
    for _, status in ipairs { 99, 600, 200.5, "200", false } do
      local _, err = client:try("Gate", "status", status, "v")
      assert.truthy(err.message:find "a status from 100 to 599")
    end
    local old = peers.client { dialect = "gate01", connect = front }
    local got = old:call("Gate", "status", { 404, "v" })
    assert.same({ 404, "v" }, { got.status, got.result })
    assert.same({}, old:faults())
  end)

  it("are waited for in vain by the original's programs, as 0.1.10 has it: no reply to 1xx", function()
    open()
    for _, dialect in ipairs { "gate01", "gate02" } do
      local old = peers.client { dialect = dialect, connect = front }
      assert.is_true(old:call("Gate", "quiet", {}, {}, { timeout = 500 }).timeout)
      assert.same({ 1 }, old:call("Gate", "echo", { 1 }).result)
      assert.same({}, old:faults())
    end
  end)

  for _, name in ipairs { "count", "count_thread", "count_process" } do
    it(("stream by %s"):format(name), function()
      open()
      for _, dialect in ipairs { "gh1", "gate02" } do
        local sum, client = 0, connect(dialect)
        for i in client:call("Gate", name, 3000) do sum = sum + i end
        assert.equal(3000 * 3001 // 2, sum)
        assert.is_nil(client:call("Gate", name, 0):next()) -- an empty one is one, too
      end
      local _, err = connect "gate01":try("Gate", name, 3) -- which knows no streams of the broker
      assert.truthy(err)
    end)
  end

  it("stream until the client leaves, and a stream that fails says so", function()
    open()
    local client = connect "gh1"
    for i in client.Gate.endless() do
      if i == 5000 then break end
    end
    do
      local stream <close> = client.Gate.endless()
      assert.equal(1, stream:next())
    end
    collectgarbage()
    process.eventually(function() return client.Gate.left() == 2 end, "the end of both")
    local stream = client.Gate.breaks()
    assert.equal(1, stream:next())
    local ok, err = pcall(stream.next, stream)
    assert.is_false(ok)
    assert.truthy(err.message:find "midway")
  end)

  it("return HugeData and large results", function()
    open()
    local text = ("0123456789abcdef"):rep(40000)
    for _, dialect in ipairs { "gh1", "gate02" } do
      local got = connect(dialect):call("Gate", "huge")
      assert.is_true((type(got) == "string" and got or tostring(got)) == text, dialect)
    end
    for _, dialect in ipairs { "gh1", "gate01", "gate02" } do
      assert.is_true(connect(dialect):call("Gate", "big") == text)
    end
  end)

  it("wait without holding up each other, and are cancelled with their call", function()
    open()
    local client = connect "gh1"
    local naps = {}
    for i = 1, 100 do naps[i] = function() return client.Gate.nap(0.5) end end
    local began = core.now()
    assert.equal("rested", task.all(naps)[100])
    assert.is_true(core.now() - began < process.limit(5))
    local _, err = client:with({ timeout = 0.2 }):try("Gate", "nap", 30)
    assert.equal("DEADLINE_EXCEEDED", err.code)
  end)

  -- A handler that has the broker's Lua thread for much longer than a silent peer is borne.
  it("have the thread for seconds, and the broker's traffic and heartbeats go on [limit 60]", function()
    local heartbeat = process.BEAT
    open(heartbeat)
    local worker = process.worker("Echo", "function Class.interface:echo(v) return v end", back,
      { heartbeat = heartbeat })
    local client, other = connect("gh1", { heartbeat = heartbeat }), connect("gh1", { heartbeat = heartbeat })
    assert.equal(1, other.Echo.echo(1))
    local spinner = task.spawn(function() return client.Gate.spin(20 * heartbeat) end)
    process.eventually(function() return host:count_log "Gate.spin has run" > 0 end, "a handler that spins")
    local old = connect "gate01"
    local answers, slowest = 0, 0
    while not spinner:is_done() do
      local began = core.now()
      assert.equal(answers, (answers % 2 == 0 and other or old).Echo.echo(answers))
      answers, slowest = answers + 1, math.max(slowest, core.now() - began)
      assert.same({ "Echo", "Gate" }, other.Gate.get_services()) -- the broker's own answers, too
    end
    assert.equal("spun", spinner:join())
    assert.is_true(answers > 10, answers)
    assert.is_true(slowest < 0.5 * process.SLOW, slowest)
    assert.equal(0, worker:count_log "lost its broker")
    assert.equal(1, worker:count_log "is registered")
    assert.is_true(other:stats().up)
  end)
end)
