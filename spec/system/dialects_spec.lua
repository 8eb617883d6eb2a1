-- Workers and clients of ours that speak the older dialects, at a broker of ours, over real sockets: every
-- dialect of one side with every dialect of the other.

local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local dialects = { "gh1", "gate01", "gate02", "mdp" }
local rich = { gh1 = true, gate01 = true, gate02 = true }

local Any = gaterpc.Worker:extend "Any"

function Any.interface:echo(value) return value end
function Any.interface:test(...)
  local args = { ... }
  local kwargs = gaterpc.is_kwargs(args[#args]) and table.remove(args) or {}
  return { args = gaterpc.array(args), kwargs = gaterpc.map(kwargs) }
end
function Any.interface:count(n) for i = 0, n - 1 do coroutine.yield(i) end end
function Any.interface:stream_fail()
  coroutine.yield(0)
  error(gaterpc.error("INTERNAL", "midway", { class = "ValueError" }))
end
function Any.interface:fail(text) error(gaterpc.error("INTERNAL", text, { class = "ValueError" })) end
function Any.interface:integers() return gaterpc.map { [5] = 1 } end
function Any.interface:big(n)
  for i = 1, n do coroutine.yield(("%08d"):format(i) .. ("x"):rep(1000)) end
end

describe("dialects over sockets", function()
  local broker, front, back, workers

  before_each(function()
    workers = {}
    broker = gaterpc.Majordomo { backend = process.ipc "back" }
    broker:bind(process.ipc "front")
    front, back = broker:start():addresses()
  end)

  after_each(function()
    for _, each in ipairs(workers) do each:close() end
    broker:close()
    process.finish()
  end)

  local function serve(dialect, more)
    local given = { broker = back, dialect = dialect, method = dialect == "mdp" and "echo" or nil }
    for name, value in pairs(more or {}) do given[name] = value end
    local made = gaterpc.Service { name = "S", description = "a: b" }:create_worker(Any, given):start()
    workers[#workers + 1] = made
    assert(made:wait_ready(process.limit(5)))
    return made
  end

  local function connect(dialect, more)
    return process.connect(front, dialect, more)
  end

  for _, of_worker in ipairs(dialects) do
    for _, of_client in ipairs(dialects) do
      it(("a %s client and a %s worker"):format(of_client, of_worker), function()
        serve(of_worker)
        local client = connect(of_client)
        assert.equal("x", client.S.echo "x")
        assert.equal("y", client.S.echo "y")
        local big = ("0123456789abcdef"):rep(40000)
        assert.is_true(client.S.echo(big) == big)
        if not (rich[of_client] and rich[of_worker]) then return end
        assert.same({ args = {}, kwargs = {} }, client.S.test())
        assert.same({ args = { 1, "two" }, kwargs = {} }, client.S.test(1, "two"))
        assert.same({ args = {}, kwargs = { x = 1 } }, client.S.test(gaterpc.kwargs { x = 1 }))
        assert.same({ args = { 1 }, kwargs = { x = 1 } }, client.S.test(1, gaterpc.kwargs { x = 1 }))
        local got = {}
        for i in client.S.count(5) do got[#got + 1] = i end
        assert.same({ 0, 1, 2, 3, 4 }, got)
        for _ in client.S.count(0) do error "an empty stream has no items" end
        local _, err = client:try("S", "fail", "no luck")
        assert.equal("ValueError", err.class)
        assert.equal("no luck", err.message)
        _, err = client:try("S", "nothing")
        assert.is_truthy(err.message:find "no method nothing")
        _, err = client:try("Nobody", "m")
        assert.is_truthy(err.code == "NOT_FOUND" or err.code == "UNAVAILABLE")
        local stream = client.S.stream_fail()
        assert.equal(0, stream:next())
        local ok, failure = pcall(stream.next, stream)
        if of_client == "gate01" or of_worker == "gate01" then
          assert.is_true(ok)
        else
          assert.equal("ValueError", failure.class)
        end
        local calls = {}
        for i = 1, 50 do calls[i] = function() return client.S.echo(i) end end
        local results = task.all(calls)
        for i = 1, 50 do assert.equal(i, results[i]) end
      end)
    end
  end

  it("a result that the client's dialect cannot carry is an error for the caller", function()
    serve "gh1"
    assert.same({ [5] = 1 }, connect("gate02").S.integers())
    local _, err = connect("gate01"):try("S", "integers")
    assert.equal("INVALID_ARGUMENT", err.class)
    assert.is_truthy(err.message:find "keys are strings")
    _, err = connect("mdp"):try("S", "count", "3")
    assert.is_nil(err) -- an RFC 7 client gets frames, also of an error
    serve "gate01"
    workers[1]:stop()
    process.eventually(function() return not workers[1]:is_alive() end, "the end of the gh1 worker")
    _, err = connect("gate02"):try("S", "integers")
    assert.is_truthy(err.message:find "keys are strings")
  end)

  it("a fast stream of a worker that knows no credit waits for the socket", function()
    serve "gate02"
    local client, n = connect "gh1", 0
    for item in client.S.big(5000) do
      n = n + 1
      assert.equal(n, tonumber(item:sub(1, 8)))
    end
    assert.equal(5000, n)
  end)

  it("credentials are sent, and wrong ones refused", function()
    broker:close()
    broker = gaterpc.Majordomo { backend = process.ipc "back2", users = { me = "right" } }
    broker:bind(process.ipc "front2")
    front, back = broker:start():addresses()
    local plain = { zap_mechanism = "PLAIN", zap_credentials = { "me", "right" } }
    for _, dialect in ipairs { "gate01", "gate02" } do
      local worker = serve(dialect, plain)
      assert.equal(1, connect(dialect, plain).S.echo(1))
      local wrong = { zap_mechanism = "PLAIN", zap_credentials = { "me", "wrong" } }
      local _, err = connect(dialect, wrong):try("S", "echo", 1)
      assert.equal("UNAUTHENTICATED", err.class)
      _, err = connect(dialect):try("S", "echo", 1)
      assert.equal("UNAUTHENTICATED", err.class)
      worker:close()
    end
    assert.is_true(broker:stats().refused >= 4)
  end)

  it("wrong options are errors that say what is right", function()
    local service = gaterpc.Service { name = "S" }
    local function fails(pattern, ...)
      local ok, err = pcall(...)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find(pattern), tostring(err))
    end
    fails("unknown dialect 'gate1', did you mean 'gate01'", gaterpc.Client, { dialect = "gate1" })
    fails("zap_credentials' must be", gaterpc.Client, { dialect = "gate01", zap_mechanism = "PLAIN" })
    fails("needs 'zap_mechanism'", gaterpc.Client, { dialect = "gate01", zap_credentials = { "a", "b" } })
    fails("must be CURVE, PLAIN or NULL", gaterpc.Client, { zap_mechanism = "GSSAPI" })
    fails("needs the option 'zap_credentials'", gaterpc.Client, { dialect = "gate01", zap_mechanism = "CURVE" })
    fails("go together", service.create_worker, service, Any, { dialect = "mdp" })
    fails("go together", service.create_worker, service, Any, { method = "echo" })
    fails("did you mean 'echo'", service.create_worker, service, Any, { dialect = "mdp", method = "ehco" })
    fails("inproc", gaterpc.Client, { dialect = "gate01", broker = "inproc://x" })
    fails("passwords by name, all of them strings", gaterpc.Majordomo, { users = { 1, 2 } })
  end)
end)
