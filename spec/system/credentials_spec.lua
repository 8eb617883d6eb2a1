-- Clients and workers that show credentials on the connection: at a server of this spec, which says who is let in, and
-- at one of pyzmq.

local curve = require "gaterpc.curve"
local engine = require "support.engine"
local gaterpc = require "gaterpc"
local has = require "support.has"
local json = require "dkjson"
local process = require "support.process"
local socks = require "support.socks"
local task = gaterpc.task

local KEYS, OWN, OTHER = curve.generate(), curve.generate(), curve.generate()
local FOR_EVER = { connect_timeout = 600, timeout = 0, reconnect = 0.01, reconnect_max = 0.05 }

local PLAIN = { zap_mechanism = "PLAIN", zap_credentials = { "ann", "right" } }
local CURVE = { zap_mechanism = "CURVE",
  zap_credentials = { public = OWN.public, secret = OWN.secret, server = KEYS.public } }

local SERVERS = {
  NULL = { server = true, domain = "gate" },
  PLAIN = { mechanism = "PLAIN", server = true, domain = "gate" },
  CURVE = { mechanism = "CURVE", server = true, domain = "gate", public_key = KEYS.public, secret_key = KEYS.secret },
}

local function with(...)
  local all = {}
  for _, options in ipairs { ... } do
    for name, value in pairs(options) do all[name] = value end
  end
  return all
end

---A broker of few words: lets in whom `status` says, answers HELLO, READY and REQUEST.
local server = {}
local server_mt = { __index = server }

local function start_server(security)
  local self = setmetatable({ zap = socks.zap(), router = socks.router(), status = "200", heard = {} }, server_mt)
  assert(self.router:secure(security))
  self.address = assert(self.router:bind "tcp://127.0.0.1:*")
  self.task = task.spawn(function()
    while not self.closed do
      self.zap:answer(self.status)
      self:serve(self.router:recv())
      task.sleep(0.002)
    end
  end)
  return self
end

local function parse(...)
  local ok, envelope = pcall(engine.parse, ...)
  return ok and envelope or {}
end

function server:serve(id, ...)
  if not id then return end
  local said = parse(...)
  self.heard[#self.heard + 1] = said.type or select("#", ...)
  local refuses = self.refuses
  if refuses and (said.type == "HELLO" or said.type == "READY") then
    return self.router:send(id, engine.build { type = "ERROR", status = refuses,
      payload = engine.put_exception(engine.code(refuses), "not you", "") })
  end
  if said.type == "HELLO" or said.type == "READY" then
    self.router:send(id, engine.build { type = said.type, route = 1, deadline_ms = 3000, window = 3 })
  elseif said.type == "REQUEST" then
    self.router:send(id, engine.build { type = "REPLY", id = said.id, payload = engine.put_result "\xa2hi" })
  end
end

function server:close()
  self.closed = true
  self.task:join()
  self.router:close()
  self.zap:close()
end

describe("credentials #system", function()
  local all, it_serves

  before_each(function() all = {} end)

  after_each(function()
    for _, each in ipairs(all) do each:close() end
    if it_serves then it_serves:close() end
    it_serves = nil
    process.finish()
  end)

  local function keep(made)
    all[#all + 1] = made
    return made
  end

  local function serve(name)
    it_serves = start_server(SERVERS[name])
    return it_serves
  end

  local function client(...)
    return keep(gaterpc.Client(with({ broker = it_serves and it_serves.address }, FOR_EVER, ...)))
  end

  local function worker(...)
    local Class = gaterpc.Worker:extend "Class"
    local options = with({ broker = it_serves and it_serves.address, reconnect = 0.01, reconnect_max = 0.05 }, ...)
    return keep(gaterpc.Service { name = "S" }:create_worker(Class, options):start())
  end

  for name, options in pairs { PLAIN = PLAIN, CURVE = CURVE } do
    it(name .. " lets a client and a worker in that show the right ones", function()
      serve(name)
      assert.equal("hi", client(options).S.run())
      assert(worker(options):wait_ready(600))
      assert.equal(name, it_serves.zap.asked.mechanism)
    end)

    it(name .. ": a client's calls fail at once while it is refused, and go out when it is not", function()
      local where = serve(name)
      where.status = "400"
      local c = client(options)
      local waiting = {}
      for i = 1, 3 do waiting[i] = task.spawn(function() return c:try("S", "run") end) end
      for i = 1, 3 do
        local value, err = waiting[i]:join()
        assert.same({ nil, "UNAUTHENTICATED" }, { value, err.code })
        has(err.message, "the broker at " .. where.address)
      end
      for _ = 1, 30 do -- every attempt is an answer
        assert.equal("UNAUTHENTICATED", select(2, c:try("S", "run")).code)
      end
      where.status = "200"
      process.eventually(function() return c:try("S", "run") == "hi" end, "an answer")
      assert.equal(0, c:stats().open)
    end)

    it(name .. ": a failing authenticator is nobody's fault", function()
      serve(name).status = "500"
      assert.equal("UNAVAILABLE", select(2, client(options):try("S", "run")).code)
      assert.equal("UNAVAILABLE", select(2, worker(options):wait_ready(600)).code)
    end)

    it(name .. ": a worker hears of it from wait_ready, and is ready when it is let in", function()
      local where = serve(name)
      where.status = "400"
      local w = worker(options)
      for _ = 1, 3 do
        local ok, err = w:wait_ready(600)
        assert.same({ nil, "UNAUTHENTICATED" }, { ok, err.code })
        has(err.message, "worker of S: the broker at " .. where.address)
      end
      assert.is_true(w:is_alive())
      where.status = "200"
      process.eventually(function() return w:wait_ready(600) end, "its registration")
    end)
  end

  it("says what to do when the other side wants another mechanism", function()
    serve "PLAIN"
    local _, err = client():try("S", "run")
    assert.equal("UNAUTHENTICATED", err.code)
    has(err.message, "wants credentials: zap_mechanism")
    _, err = client(CURVE):try("S", "run")
    assert.equal("UNAUTHENTICATED", err.code)
    has(err.message, "does not use CURVE")
  end)

  it("suspects the pinned key when the server hangs up", function()
    serve "CURVE"
    local wrong = with(CURVE, { zap_credentials = with(CURVE.zap_credentials, { server = OTHER.public }) })
    local _, err = client(wrong):try("S", "run")
    assert.equal("UNAUTHENTICATED", err.code)
    has(err.message, "it has another key than the server's key in zap_credentials")
    assert.equal("UNAUTHENTICATED", select(2, worker(wrong):wait_ready(600)).code)
    assert.is_nil(it_serves.zap.asked)
  end)

  it("takes keys from files", function()
    serve "CURVE"
    local path = process.dir() .. "/ann.key"
    assert(curve.save(path, OWN))
    assert(curve.save(process.dir() .. "/server.key", { public = KEYS.public }))
    local files = { key = path .. "_secret", server = process.dir() .. "/server.key" }
    assert.equal("hi", client { zap_mechanism = "CURVE", zap_credentials = files }.S.run())
  end)

  it("goes on the connection with RFC 7, and CURVE with the original's dialects", function()
    local where = serve "PLAIN"
    local c = client(PLAIN, { dialect = "mdp" })
    task.spawn(c.try, c, "S.run", "call") -- nobody answers
    process.eventually(function() return #where.heard > 0 end, "a message")
    assert.equal("PLAIN", where.zap.asked.mechanism)
    where:close()
    where = serve "CURVE"
    for i, dialect in ipairs { "gate01", "gate02" } do
      c = client(CURVE, { dialect = dialect })
      task.spawn(c.try, c, "S", "run")
      process.eventually(function() return #where.heard >= i end, "a message")
    end
    assert.equal("CURVE", where.zap.asked.mechanism)
  end)

  it("is not used in the broker's process, where there is no connection", function()
    local broker = keep(gaterpc.Majordomo { backend = "inproc://credentials.back" })
    broker:bind "inproc://credentials.front"
    broker:start()
    local w = worker(PLAIN, { broker = "inproc://credentials.back" })
    assert(w:wait_ready())
    assert.is_table(client(CURVE, { broker = "inproc://credentials.front" }).S.get_interfaces())
  end)

  it("an error instead of READY ends the worker: wait_ready and run say so", function()
    serve("NULL").refuses = 6
    local w = worker()
    local ok, err = w:wait_ready(600)
    assert.same({ nil, "PERMISSION_DENIED" }, { ok, err.code })
    has(err.message, "not you")
    assert.is_false(w:is_alive())
    assert.equal("PERMISSION_DENIED", select(2, w:wait_ready(600)).code)
    local raised = select(2, pcall(w.run, worker()))
    assert.equal("PERMISSION_DENIED", raised.code)
  end)

  it("an error instead of HELLO fails what waits", function()
    serve("NULL").refuses = 7
    local _, err = client():try("S", "nothing")
    assert.same({ "UNAUTHENTICATED", "not you" }, { err.code, err.message })
  end)

  it("a refused worker is in the log once, not at every attempt", function()
    local where = serve "PLAIN"
    where.status = "400"
    local host = process.host(([[
      local gaterpc = require "gaterpc"
      local w = gaterpc.Service { name = "S" }:create_worker(gaterpc.Worker:extend "Class", {
        broker = %q, zap_mechanism = "PLAIN", zap_credentials = { "ann", "wrong" },
        reconnect = 0.01, reconnect_max = 0.02 }):start()
      for _ = 1, 20 do print(select(2, w:wait_ready()).code) end
      w:close()
    ]]):format(where.address))
    host:wait_exit()
    assert.equal(("UNAUTHENTICATED\n"):rep(20), host.out)
    assert.equal(1, host:count_log "refuses the user or the password of zap_credentials")
  end)

  it("wrong options are errors that say what is right, at the line that gives them", function()
    local pair = { public = OWN.public, secret = OWN.secret, server = KEYS.public }
    local Class, service = gaterpc.Worker:extend "Class", gaterpc.Service { name = "S" }
    for _, case in ipairs {
      { "must be { user, password }", "PLAIN", nil }, { "must be { user, password }", "PLAIN", { "ann" } },
      { "must be { user, password }", "PLAIN", { "ann", 1 } }, { "1 to 255 bytes", "PLAIN", { "", "x" } },
      { "1 to 255 bytes", "PLAIN", { "ann", ("x"):rep(256) } }, { "1 to 255 bytes", "PLAIN", { "ann", "x\0" } },
      { "needs the option 'zap_credentials'", "CURVE", nil },
      { "'secret' must be", "CURVE", {} }, { "'server', the broker's public key, must be", "CURVE", OWN },
      { "did you mean 'server'", "CURVE", with(pair, { sever = "x" }) },
      { "'public' does not belong", "CURVE", with(pair, { public = OTHER.public }) },
      { "'secret' must be a string, got number", "CURVE", { secret = 1 } },
      { "no such file", "CURVE", { key = "/nowhere", server = "/nowhere" } },
      { "'server' must be the path", "CURVE", { key = "/nowhere" } },
      { "unknown name 'secret'", "CURVE", { key = "/nowhere", secret = OWN.secret } },
      { "not a key", "CURVE", { key = OWN.secret, server = "/nowhere" } },
      { "must be CURVE, PLAIN or NULL", "Curve", pair },
    } do
      local options = { zap_mechanism = case[2], zap_credentials = case[3], broker = "tcp://127.0.0.1:1" }
      for _, make in ipairs { function() gaterpc.Client(options) end,
        function() service:create_worker(Class, options) end } do
        local ok, err = pcall(make)
        assert.is_false(ok)
        has(err, "credentials_spec.lua:", case[1])
        assert.is_nil(err:find(OWN.secret, 1, true))
      end
    end
    has(select(2, pcall(gaterpc.Client, { zap_credentials = {} })), "needs 'zap_mechanism'")
  end)

  it("a public key file in place of the secret one is noticed", function()
    local path = process.dir() .. "/ann.key"
    assert(curve.save(path, OWN))
    local ok, err = pcall(gaterpc.Client, { zap_mechanism = "CURVE", zap_credentials = { key = path, server = path } })
    assert.is_false(ok)
    has(err, path .. " has no secret key; is it in " .. path .. "_secret?")
  end)

  it("secrets are in no text: not in the log, in errors, in what the prompt shows, nor in ps", function()
    local where = serve "PLAIN"
    where.status = "400"
    local host = process.host(([[
      local gaterpc, curve = require "gaterpc", require "gaterpc".curve
      local pretty = require "gaterpc.pretty"
      gaterpc.log.level "debug"
      local PASSWORD, SECRET = "Unmistakable" .. "Password", io.read "l"
      local SERVER = curve.generate().public
      local all = {
        { zap_mechanism = "PLAIN", zap_credentials = { "ann", PASSWORD } },
        { zap_mechanism = "CURVE", zap_credentials = { secret = SECRET, server = SERVER } },
        { zap_mechanism = "PLAIN", zap_credentials = { "ann", PASSWORD }, dialect = "gate02" },
      }
      local Class = gaterpc.Worker:extend "Class"
      function Class.interface:run() end
      local function show(value) print(tostring(value), pretty(value), pretty { value }) end
      for _, options in ipairs(all) do
        options.broker = %q
        show(options)
        local client = gaterpc.Client(options)
        show(client)
        show(select(2, client:try("S", "run")))
        print(select(2, xpcall(function() client.S.run() end, debug.traceback)))
        show(client:stats())
        client:close()
        local worker = gaterpc.Service { name = "S" }:create_worker(Class, options):start()
        show(worker)
        show(select(2, worker:wait_ready()))
        print(pretty(worker:stats()))
        worker:close()
        options.liveness = "x"
        print(pcall(gaterpc.Client, options))
        options.liveness = nil
        options.broker = "tcp://10.255.255.1:1"
        print(pcall(gaterpc.Client, options))
      end
      print(pcall(gaterpc.Client, { zap_mechanism = "PLAIN", zap_credentials = { [2] = PASSWORD } }))
      print(pcall(gaterpc.Client, { zap_mechanism = "PLAIN", zap_credentials = { PASSWORD = PASSWORD } }))
      print(pcall(gaterpc.Client, { zap_mechanism = "CURVE",
        zap_credentials = { secret = SECRET .. "x", server = "x" } }))
      print(pcall(gaterpc.Client, { zap_mechanism = "CURVE", zap_credentials = { key = SECRET, server = SECRET } }))
      print(pcall(gaterpc.Client, { zap_mechanism = "CURVE", zap_credentials = { secret = SECRET, public = SECRET,
        server = SERVER } }))
      local pool = gaterpc.ProcessPoolExecutor { max_workers = 1 }
      print(pool:run(function() return "inside" end))
      print "ready"
      io.read "l"
    ]]):format(where.address), { keep_stdin = true })
    local secret = OWN.secret
    host:write(secret .. "\n")
    host:wait_line("^ready", 30)
    has(host.out, "UNAUTHENTICATED", "does not use CURVE", "'public' does not belong", "inside")
    has(host.err, "refuses the user or the password")
    local texts = { host.out, host.err }
    local pids = { host.pid }
    for pid in process.read(("/proc/%d/task/%d/children"):format(host.pid, host.pid)):gmatch "%d+" do
      pids[#pids + 1] = pid
    end
    assert.is_true(#pids > 1)
    for _, pid in ipairs(pids) do
      for _, name in ipairs { "cmdline", "environ" } do
        texts[#texts + 1] = process.read(("/proc/%d/%s"):format(pid, name))
      end
    end
    for _, text in ipairs(texts) do
      assert.is_nil(text:find("UnmistakablePassword", 1, true))
      assert.is_nil(text:find(secret, 1, true))
    end
  end)

  describe("at our broker in another process", function()
    local Class = gaterpc.Worker:extend "Class"
    function Class.interface:echo(value) return value end -- luacheck: ignore 212

    -- A broker at free addresses; the text says who is let in, and makes `broker` and `how`, options of bind.
    local function start(text, front, back)
      local host = process.host(([[
        local gaterpc = require "gaterpc"
        local zap = gaterpc.ZAPService {}
        %s
        local front = broker:bind(%q, how)
        local back = broker:bind_backend(%q, how)
        broker:start()
        print(front, back)
        broker:run()
      ]]):format(text, front or "tcp://127.0.0.1:*", back or "tcp://127.0.0.1:*"), { name = "broker" })
      local at_front, at_back = host:wait_line "(%S+)\t(%S+)"
      return host, { broker = at_front }, { broker = at_back }
    end

    local function serve_at(at, options, name)
      local given = with(at, options, { reconnect = 0.01, reconnect_max = 0.05 })
      return keep(gaterpc.Service { name = name or "S" }:create_worker(Class, given):start())
    end

    local CURVE_BROKER = [[
      local dir = %q
      zap:configure_curve("gate", dir .. "/clients")
      local broker = gaterpc.Majordomo { curve = dir .. "/server.key_secret" }
      assert(zap:start())
      broker:connect_zap { mechanism = "CURVE" }
      local how = nil
    ]]

    local function make_keys(...)
      local dir = process.dir()
      if not require "luv".fs_stat(dir .. "/clients") then
        assert(require "luv".fs_mkdir(dir .. "/clients", 448))
        assert(curve.save(dir .. "/server.key", KEYS))
      end
      for _, name in ipairs { ... } do
        assert.equal(0, process.command({ "--keygen", dir .. "/" .. name .. ".key" }):wait_exit())
      end
      local function of(name)
        return { zap_mechanism = "CURVE",
          zap_credentials = { key = dir .. "/" .. name .. ".key_secret", server = dir .. "/server.key" } }
      end
      local function admit(name)
        local file = assert(io.open(dir .. "/clients/" .. name .. ".key", "w"))
        file:write(process.read(dir .. "/" .. name .. ".key"))
        file:close()
      end
      return dir, of, admit
    end

    it("CURVE: workers and clients of every dialect come in with their keys, and strangers do not", function()
      local dir, of, admit = make_keys("ann", "bob", "eve")
      admit "ann"
      admit "bob"
      local _, front, back = start(CURVE_BROKER:format(dir))
      local w = serve_at(back, of "bob")
      assert(w:wait_ready(600))
      assert.equal(7, client(front, of "ann").S.echo(7))
      for _, dialect in ipairs { "gate01", "gate02" } do
        assert.equal(7, client(front, of "ann", { dialect = dialect }).S.echo(7))
      end
      local _, err = client(front, of "eve"):try("S", "echo", 1)
      assert.equal("UNAUTHENTICATED", err.code)
      has(err.message, front.broker, "does not accept the public key")
      assert.equal("UNAUTHENTICATED", select(2, serve_at(back, of "eve", "T"):wait_ready(600)).code)
      assert.equal("UNAUTHENTICATED", select(2, client(front):try("S", "echo", 1)).code)
    end)

    it("CURVE: whose key is added gets in without a new start", function()
      local dir, of, admit = make_keys("ann", "bob")
      admit "bob"
      local host, front, back = start(CURVE_BROKER:format(dir))
      assert(serve_at(back, of "bob"):wait_ready(600))
      local c = client(front, of "ann")
      assert.equal("UNAUTHENTICATED", select(2, c:try("S", "echo", 1)).code)
      admit "ann"
      host:kill "sighup"
      process.eventually(function() return c:try("S", "echo", 1) == 1 end, "an answer")
    end)

    it("CURVE: a broker that comes back with another key is noticed, and one with the old key is good again", function()
      local dir, of, admit = make_keys("ann")
      admit "ann"
      local host, front, back = start(CURVE_BROKER:format(dir))
      local c = client(front, of "ann")
      assert.equal("NOT_FOUND", select(2, c:try("S", "echo", 1)).code)
      host:kill "sigterm"
      host:wait_exit()
      assert(curve.save(dir .. "/evil.key", OTHER))
      host = start(CURVE_BROKER:format(dir):gsub("server.key", "evil.key"), front.broker, back.broker)
      process.eventually(function()
        return select(2, c:try("S", "echo", 1)).message:find "it has another key than the server's key"
      end, "a suspicion")
      host:kill "sigterm"
      host:wait_exit()
      start(CURVE_BROKER:format(dir), front.broker, back.broker)
      process.eventually(function() return select(2, c:try("S", "echo", 1)).code == "NOT_FOUND" end, "its own answer")
    end)

    local PLAIN_BROKER = [[
      zap:configure_plain("gate", { ann = "right", bob = "right too" })
      local broker = gaterpc.Majordomo { access = {
        { user = "bob", register = "S" },
        { user = "ann", call = "S.echo" },
      } }
      assert(zap:start())
      broker:connect_zap { mechanism = "PLAIN" }
      local how = { mechanism = "PLAIN" }
    ]]
    local BOB = { zap_mechanism = "PLAIN", zap_credentials = { "bob", "right too" } }

    it("PLAIN: users come in with their passwords, and do what they may", function()
      local _, front, back = start(PLAIN_BROKER)
      assert(serve_at(back, BOB):wait_ready(600))
      local ann = client(front, PLAIN)
      assert.equal(7, ann.S.echo(7))
      assert.equal("PERMISSION_DENIED", select(2, ann:try("S", "get_interfaces")).code)
      local _, err = client(front, { zap_mechanism = "PLAIN", zap_credentials = { "ann", "wrong" } }):try("S", "echo")
      assert.equal("UNAUTHENTICATED", err.code)
      has(err.message, "refuses the user or the password")
    end)

    it("a worker that may not register its service is told at once, and ends", function()
      local _, _, back = start(PLAIN_BROKER)
      for _, case in ipairs { { BOB, "Other" }, { PLAIN, "S" } } do
        local w = serve_at(back, case[1], case[2])
        local ok, err = w:wait_ready(600)
        assert.same({ nil, "PERMISSION_DENIED" }, { ok, err.code })
        has(err.message, back.broker, case[2])
        assert.is_false(w:is_alive())
      end
    end)
  end)

  describe("at a server of pyzmq", function()
    local function python(...)
      local run = process.run("/usr/bin/python3", { "spec/system/peers/auth.py", ... }, { keep_stdin = true })
      local function said(name)
        return process.eventually(function()
          for line in run.out:gmatch "[^\n]+\n" do
            local value = json.decode(line)[name]
            if value then return value end
          end
        end, name)
      end
      return said
    end

    it("PLAIN is understood", function()
      local said = python("--plain", "ann:right")
      local at = { broker = said "bound" }
      local wrong = with(PLAIN, at, { zap_credentials = { "ann", "wrong" } })
      assert.equal("UNAUTHENTICATED", select(2, client(wrong):try("S", "run")).code)
      assert.equal("UNAUTHENTICATED", select(2, worker(wrong):wait_ready(600)).code)
      client(PLAIN, at, { timeout = 0.01 }):try("S", "run")
      assert.equal("ann", said "heard")
    end)

    it("CURVE is understood, with keys in our files on both sides", function()
      local dir = process.dir()
      assert(curve.save(dir .. "/server.key", KEYS))
      assert(require "luv".fs_mkdir(dir .. "/clients", 448))
      assert(curve.save(dir .. "/clients/ann.key", { public = OWN.public }))
      local said = python("--curve", dir .. "/server.key_secret", "--clients", dir .. "/clients")
      local at = { broker = said "bound" }
      local stranger = { public = OTHER.public, secret = OTHER.secret, server = KEYS.public }
      assert.equal("UNAUTHENTICATED", select(2, client(CURVE, at, { zap_credentials = stranger }):try("S", "run")).code)
      client(CURVE, at, { timeout = 0.01 }):try("S", "run")
      assert.equal(OWN.public, said "heard")
    end)
  end)
end)
