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
    for _, case in ipairs { { "mdp", PLAIN } } do
      local c = client(case[2], { dialect = case[1], timeout = 0.01 })
      c:try("S.run", "call")
    end
    process.eventually(function() return #where.heard > 0 end, "a message")
    assert.equal("PLAIN", where.zap.asked.mechanism)
    where:close()
    where = serve "CURVE"
    for i, dialect in ipairs { "gate01", "gate02" } do
      client(CURVE, { dialect = dialect, timeout = 0.01 }):try("S", "run")
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
