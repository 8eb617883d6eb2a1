-- ZAP over real sockets: our service asked as the original's brokers ask, and our broker asking services that answer
-- as the original's do.

local bytes = require "support.values".bytes
local gaterpc = require "gaterpc"
local json = require "dkjson"
local peers = require "support.peers"
local process = require "support.process"

local ZAPService, curve = gaterpc.ZAPService, gaterpc.curve

local function hex(text)
  return (text:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"

-- A key as the bytes that it has in messages; see https://rfc.zeromq.org/spec/32/
local function decode(key)
  return (key:gsub(".....", function(five)
    local value = 0
    for c in five:gmatch "." do value = value * 85 + Z85:find(c, 1, true) - 1 end
    return (">I4"):pack(value)
  end))
end

---spec/system/peers/zap.py
local python = {}
local python_mt = { __index = python }

local function start_python(...)
  local run = process.run("/usr/bin/python3", { "spec/system/peers/zap.py", ... }, { keep_stdin = true,
    name = "zap.py" })
  local made = setmetatable({ run = run, count = 0 }, python_mt)
  made:wait(function(line) return line.bound or line.ready end)
  return made
end

function python:lines()
  local list = {}
  for line in self.run.out:gmatch "[^\n]+\n" do list[#list + 1] = assert(json.decode(line)) end
  return list
end

---The first line for which is(line) holds.
function python:wait(is, seconds)
  return process.eventually(function()
    for _, line in ipairs(self:lines()) do
      assert(not line.fault, line.fault)
      if is(line) then return line end
    end
    assert(self.run:is_running(), self.run.err)
  end, "a line of zap.py", seconds)
end

function python:set(options)
  self.count = self.count + 1
  options.op, options.n = "set", self.count
  self.run:write(json.encode(options) .. "\n")
  self:wait(function(line) return line.done == self.count end)
end

---How often it was asked.
function python:asked()
  local count = 0
  for _, line in ipairs(self:lines()) do count = count + (line.asked and 1 or 0) end
  return count
end

---Asks with these frames behind the empty one; gives status, user and the id of the answer, or nothing within `wait`.
function python:ask(...)
  local frames = { "" }
  for i, frame in ipairs { ... } do frames[i + 1] = hex(frame) end
  local id = frames[3]
  local before = #self:lines()
  self.run:write(json.encode { op = "ask", frames = frames } .. "\n")
  local answer
  process.eventually(function()
    local lines = self:lines()
    for i = before + 1, #lines do
      if lines[i].answer and lines[i].answer[3] == id then answer = lines[i].answer end
    end
    return answer
  end, "an answer")
  assert.same({ "", hex "1.0", "", 7 }, { answer[1], answer[2], answer[7], #answer })
  return bytes(answer[4]), bytes(answer[6])
end

local tags = 0

-- A question as the brokers of both versions ask it about their client "who".
local ask_as = {
  ["0.1"] = function(from, who, ...)
    tags = tags + 1
    return from:ask("1.0", ("%032x"):format(tags), "gate", who, who, ...)
  end,
  ["0.2"] = function(from, who, ...)
    tags = tags + 1
    return from:ask("1.0", ("%016d-%016d"):format(tags, tags), "gate", who, who, ...)
  end,
}

describe("ZAP #system", function()
  local open

  local function keep(made)
    open[#open + 1] = made
    return made
  end

  before_each(function() open = {} end)

  after_each(function()
    for i = #open, 1, -1 do (open[i].stop or open[i].close)(open[i]) end
    process.finish()
  end)

  local function serve(configure, options)
    local service = ZAPService(options or { addr = process.ipc "zap" })
    if configure then configure(service) end
    assert(service:start())
    return keep(service), service:address() and start_python("--dialect", "gate01", "--connect", service:address())
  end

  describe("our service", function()
    for version, ask in pairs(ask_as) do
      it("answers a broker of the original " .. version, function()
        local _, broker = serve(function(s) s:configure_plain(nil, { ["堡垒"] = "哔哔哔哔哔" }) end)
        assert.same({ "200", "gc-1" }, { ask(broker, "gc-1", "PLAIN", "堡垒", "哔哔哔哔哔") })
        assert.same({ "400", "gc-1" }, { ask(broker, "gc-1", "PLAIN", "堡垒", "wrong") })
        assert.same({ "400", "gc-1" }, { ask(broker, "gc-1", "PLAIN", "nobody", "wrong") })
        assert.same({ "400", "gc-1" }, { ask(broker, "gc-1", "NULL") })
        assert.same({ "400", "gc-1" }, { ask(broker, "gc-1", "GSSAPI", "who@WHERE") })
        assert.same({ "200", "gc-1" }, { ask(broker, "gc-1", "PLAIN", "堡垒", "哔哔哔哔哔") })
      end)
    end

    it("answers on when it was told nonsense", function()
      local _, broker = serve(function(s) s:configure_null():configure_plain(nil, { ann = "right" }) end)
      for _, frames in ipairs { { "" }, { "", "" }, { "00" }, { "", "312e30" }, { "", "", "", "", "", "", "",
        "" } } do
        broker.run:write(json.encode { op = "ask", frames = frames } .. "\n")
      end
      assert.equal("400", broker:ask("2.0", "x", "gate", "", "", "NULL"))
      assert.same({ "200", "" }, { broker:ask("1.0", "y", "gate", "10.0.0.1", "", "NULL") })
      assert.same({ "200", "ann" }, { broker:ask("1.0", "z", "gate", "10.0.0.1", "admin", "PLAIN", "ann", "right") })
    end)

    it("checks slow passwords without keeping others waiting, and several domains", function()
      local hash = assert(gaterpc.hash_password "slow one")
      local _, broker = serve(function(s)
        s:configure_plain("gate", { ann = hash, bob = "quick" })
        s:configure_plain("other", { eve = "apple" })
      end)
      assert.equal("200", broker:ask("1.0", "1", "gate", "a", "", "PLAIN", "ann", "slow one"))
      assert.equal("400", broker:ask("1.0", "2", "gate", "a", "", "PLAIN", "ann", "slow two"))
      assert.equal("200", broker:ask("1.0", "3", "gate", "a", "", "PLAIN", "ann", "slow one"))
      assert.equal("200", broker:ask("1.0", "4", "other", "a", "", "PLAIN", "eve", "apple"))
      assert.equal("400", broker:ask("1.0", "5", "gate", "b", "", "PLAIN", "eve", "apple"))
      assert.equal("400", broker:ask("1.0", "6", "third", "c", "", "PLAIN", "eve", "apple"))
    end)

    it("lets in by key: named ones, those of a folder, or any", function()
      local ann, bob = assert(curve.generate()), assert(curve.generate())
      local service, broker = serve(function(s) s:configure_curve(nil, { ann = { ann.public } }) end)
      assert.same({ "200", "ann" }, { broker:ask("1.0", "1", "gate", "a", "", "CURVE", decode(ann.public)) })
      assert.equal("400", (broker:ask("1.0", "2", "gate", "a", "", "CURVE", decode(bob.public))))
      service:configure_curve(nil, "*")
      assert.same({ "200", bob.public }, { broker:ask("1.0", "3", "gate", "a", "", "CURVE", decode(bob.public)) })
    end)

    it("reads files of users anew, and keeps the old ones when it cannot", function()
      local path = process.file("users", "# ours\n\nann:one\r\nbob:with:colons\n")
      local service, broker = serve(function(s) s:configure_plain(nil, path) end)
      local function is(user, password)
        tags = tags + 1
        return broker:ask("1.0", "t" .. tags, "gate", "a" .. tags, "", "PLAIN", user, password) == "200"
      end
      assert.is_true(is("ann", "one"))
      assert.is_true(is("bob", "with:colons"))
      process.file("users", "ann:two\n")
      assert.is_true(is("ann", "one"), "not before it is told to")
      assert(service:reload())
      assert.is_true(is("ann", "two"))
      assert.is_false(is("bob", "with:colons"))
      for _, broken in ipairs { { "ann:three\n\n\nann\n", "users:4: a line is" }, { "ann:1\nann:2\n",
        "users:2: the user 'ann' again" },
        { "ann:$argon2id$nonsense\n", "user 'ann'" }, { ("a"):rep(256) .. ":x\n", "1 to 255 bytes" }, { ":x\n",
          "users:1" } } do
        process.file("users", broken[1])
        local done, err = service:reload()
        assert.is_nil(done)
        assert.equal("INVALID_ARGUMENT", err.code)
        assert.is_truthy(err.message:find(broken[2], 1, true), err.message)
        assert.is_nil(err.message:find("nonsense", 1, true), "no secret")
        assert.is_true(is("ann", "two"))
      end
      assert(os.remove(path))
      assert.equal("INVALID_ARGUMENT", select(2, service:reload()).code)
      assert(require "luv".fs_mkdir(path, 448))
      assert.equal("INVALID_ARGUMENT", select(2, service:reload()).code, "a folder is no empty file")
      assert.is_true(is("ann", "two"))
    end)

    it("names the file of a folder that is no key, and keeps nothing of the folder", function() -- luv might: a leak
      local folder = process.dir() .. "/keys"
      assert(require "luv".fs_mkdir(folder, 448))
      process.file("keys/bob.key", "nonsense")
      local started, err = ZAPService {}:configure_curve(nil, folder):start()
      assert.is_nil(started)
      assert.is_truthy(err.message:find("bob.key", 1, true), err.message)
    end)

    it("reads a folder of keys anew", function()
      local folder = process.dir() .. "/keys"
      assert(require "luv".fs_mkdir(folder, 448))
      local ann = assert(curve.generate())
      assert(curve.save(folder .. "/ann.key", { public = ann.public }))
      process.file("keys/readme", "no key")
      local service = serve(function(s) s:configure_curve(nil, folder) end)
      process.file("keys/bob.key", "nonsense")
      assert.equal("INVALID_ARGUMENT", select(2, service:reload()).code)
      assert(os.remove(folder .. "/bob.key"))
      assert(curve.save(folder .. "/bob.key", { public = ann.public }))
      local _, err = service:reload()
      assert.is_truthy(err.message:find "a key belongs to one user", err.message)
      assert(os.remove(folder .. "/bob.key"))
      assert(service:reload())
    end)

    it("keeps what it was told when it is told something wrong while it runs", function()
      local service, broker = serve(function(s) s:configure_plain(nil, { ann = "right" }) end)
      local wrong = {
        function() service:configure_plain(nil, process.dir() .. "/missing") end,
        function() service:configure_plain(nil, { ann = ("x"):rep(256) }) end,
        function() service:configure_plain("new", { ann = "" }) end,
        function() service:configure_curve(nil, { ann = "no key" }) end,
        function() service:configure_curve(nil, process.dir() .. "/missing") end,
        function() service:deny("10.0.0.1", "10.0.0.256") end,
        function() service:allow "localhost" end,
        function() service:allow(7) end,
        function() service:configure_plain(nil, { ann = { "a", "list" } }) end,
        function() service:configure_plain(nil, { "ann" }) end,
        function() service:configure_curve(nil, { ann = { 7 } }) end,
        function() service:configure_plain("*", { ann = "right" }) end,
        function() service:configure_null "" end,
      }
      for n, each in ipairs(wrong) do
        assert.is_false(pcall(each), n)
        assert(service:reload())
        assert.equal("200", (ask_as["0.1"](broker, "10.0.0.1", "PLAIN", "ann", "right")), n)
      end
    end)

    it("names the mistake and the place of it", function()
      local service = ZAPService {}
      local ok, err = pcall(service.deny, service, "10.0.*")
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find("deny: '10.0.*'", 1, true), err)
      ok, err = pcall(function() service:configure_plain("*", {}) end)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find "zap_spec.lua:%d+: configure_plain: there is no domain for all", err)
    end)

    it("lets in and keeps out by address", function()
      local service, broker = serve(function(s) s:configure_null():allow("10.0.0.0/8", "ipc"):deny "10.6.6.6" end)
      local function is(address)
        tags = tags + 1
        return (broker:ask("1.0", "t" .. tags, "gate", address, "", "NULL")) == "200"
      end
      assert.is_true(is "10.1.1.1")
      assert.is_true(is "::ffff:10.1.1.1")
      assert.is_true(is "localhost:0:0:1")
      assert.is_false(is "10.6.6.6")
      assert.is_false(is "11.1.1.1")
      service:deny "ipc"
      assert.is_false(is "localhost:0:0:1")
    end)

    it("has a domain for itself until it stops", function()
      local one, broker = serve(function(s) s:configure_plain(nil, { ann = "one" }) end)
      local two = ZAPService {}:configure_plain(nil, { ann = "two" })
      local started, err = two:start()
      assert.is_nil(started)
      assert.equal("UNAVAILABLE", err.code)
      assert.equal("200", (ask_as["0.1"](broker, "a", "PLAIN", "ann", "one")))
      assert.error_matches(function() one:start() end, "runs already")
      one:stop()
      one:stop()
      keep(assert(two:start()))
      two:stop()
      assert(two:start())
    end)

    it("says why it cannot start", function()
      serve(function(s) s:configure_null() end, { addr = "ipc://" .. process.dir() .. "/zap" })
      local address = "ipc://" .. process.dir() .. "/missing/zap"
      local started, err = ZAPService { addr = address }:configure_null "other":start()
      assert.is_nil(started)
      assert.is_truthy(err.message:find(address, 1, true))
      ZAPService {}:configure_null "other":start():stop() -- nothing is left of it
      local far = ZAPService { addr = "tcp://0.0.0.0:*" }:configure_plain("far", { ann = "secret" })
      assert.error_matches(function() far:start() end, "ZAP_PLAIN_OVER_TCP")
    end)

    it("takes changes while it is asked, and answers every question", function()
      local service, broker = serve(function(s) s:configure_plain(nil, { ann = "right" }) end)
      local QUESTIONS = 2000
      for n = 1, QUESTIONS do
        broker.run:write(json.encode { op = "ask", frames = { "", hex "1.0", hex("q" .. n), hex "gate", hex "a", "",
          hex "PLAIN", hex "ann", hex "right" } } .. "\n")
        if n % 20 == 0 then
          service:configure_plain(nil, { ann = "right", ["user" .. n] = "x" })
          local other <close> = ZAPService { addr = process.ipc "other" }:configure_null "other"
          assert(other:start())
          assert.is_table(service.stats())
        end
      end
      process.eventually(function()
        local count = 0
        for _ in broker.run.out:gmatch '"answer"' do count = count + 1 end
        return count == QUESTIONS
      end, "all answers", 20)
      for _, line in ipairs(broker:lines()) do
        if line.answer then assert.equal("200", bytes(line.answer[4])) end
      end
    end)

    it("starts and stops a hundred times without leaving anything behind", function()
      local function fds()
        local count = 0
        for _ in require "luv".fs_scandir_next, require "luv".fs_scandir "/proc/self/fd" do count = count + 1 end
        return count
      end
      local function cycle()
        local service <close> = ZAPService { addr = process.ipc "zap" }:configure_plain("cycle", { ann = "x" })
        assert(service:start())
      end
      for _ = 1, 5 do cycle() end
      local before
      process.eventually(function()
        local now = fds()
        local settled = now == before
        before = now
        return settled
      end, "closed sockets")
      for _ = 1, 100 do cycle() end
      process.eventually(function() return fds() <= before + 2 end, "closed sockets")
    end)
  end)

  describe("a host", function()
    local SERVICE = [[
      local gaterpc = require "gaterpc"
      local service = gaterpc.ZAPService { addr = %q }:configure_plain(nil, %q)
      assert(service:start())
      print "ready"
      gaterpc.task.sleep(1000)
    ]]

    it("reads files of users anew when it gets SIGHUP, and keeps the old ones when it cannot", function()
      local address, path = process.ipc "zap", process.file("users", "ann:one\n")
      local host = process.host(SERVICE:format(address, path))
      host:wait_line "ready"
      local broker = start_python("--dialect", "gate01", "--connect", address)
      local ask = ask_as["0.2"]
      assert.equal("200", (ask(broker, "a", "PLAIN", "ann", "one")))
      process.file("users", "ann:two\n")
      host:kill "sighup"
      host:wait_log "ZAP service for gate: read anew"
      assert.equal("200", (ask(broker, "a", "PLAIN", "ann", "two")))
      assert.equal("400", (ask(broker, "a", "PLAIN", "ann", "one")))
      process.file("users", "nonsense with secret\n")
      host:kill "sighup"
      host:wait_log "stays as it was: .*users:1: a line is name:password"
      assert.equal("200", (ask(broker, "b", "PLAIN", "ann", "two")))
      assert.is_nil(host.err:find("secret", 1, true))
      assert.equal(1, host:count_log "refused: 1; the last one: PLAIN in domain gate from a: user or password")
      host:kill "sigterm"
      host:wait_exit()
    end)

    for how, text in pairs { ["its script fails"] = "error 'on purpose'", ["os.exit is called"] = "os.exit(3)",
      ["its script is over"] = "", ["it is told to"] = "gaterpc.task.sleep(1000)" } do
      it("ends while questions wait when " .. how, function()
        local address = process.ipc "zap"
        local host = process.host(([[
          local gaterpc = require "gaterpc"
          local hash = assert(gaterpc.hash_password "slow")
          local service = gaterpc.ZAPService { addr = %q }:configure_plain(nil, { ann = hash })
          assert(service:start())
          print "ready"
          io.read()
          %s
        ]]):format(address, text), { keep_stdin = true })
        host:wait_line "ready"
        local broker = start_python("--dialect", "gate01", "--connect", address)
        for n = 1, 100 do
          broker.run:write(json.encode { op = "ask", frames = { "", hex "1.0", hex("q" .. n), hex "gate",
            hex("a" .. n), "",
            hex "PLAIN", hex "ann", hex "slow" } } .. "\n")
        end
        broker:wait(function(line) return line.answer end)
        host:write "\n"
        if how == "it is told to" then host:kill "sigterm" end
        local code = host:wait_exit()
        assert.equal(({ ["its script fails"] = 1, ["os.exit is called"] = 3,
          ["its script is over"] = 0 })[how] or code, code)
      end)
    end
  end)

  describe("our broker asks a service elsewhere", function()
    local function start_broker(address, patience)
      local front, secure = process.ipc "front", process.ipc "secure"
      local host = process.host(([[
        local gaterpc = require "gaterpc"
        gaterpc.Settings.setup { ZAP_REPLY_TIMEOUT = %g, ZAP_CACHE = 0.01 }
        local broker = gaterpc.Majordomo {}
        broker:connect_zap { addr = %q }
        broker:bind(%q)
        broker:bind(%q, { mechanism = "PLAIN" })
        broker:start()
        print "ready"
        broker:run()
      ]]):format(patience or process.limit(1), address, front, secure), { name = "broker" })
      host:wait_line "ready"
      return host, front, secure
    end

    local function start_service(version, address)
      return start_python("--dialect", version, "--plain", "ann:right", "--bind", address)
    end

    for _, version in ipairs { "gate01", "gate02" } do
      it("of the original, " .. version .. ", for peers of that version", function()
        local address = process.ipc "zap"
        local service = start_service(version, address)
        local _, front = start_broker(address)
        local right = peers.client { dialect = version, connect = front, plain = "ann:right" }
        assert.is_table(right:call("Gate", "get_services").result)
        local wrong = peers.client { dialect = version, connect = front, plain = "ann:wrong" }
        assert.is_truthy(wrong:said()[1].refused or wrong:call("Gate", "get_services").error)
        local asked = service:wait(function(line) return line.asked end)
        assert.same({ "ann", "right" }, asked.asked)
        assert.is_true(asked.empty)
        assert.equal("", asked.identity)
        assert.is_truthy(asked.address:find "^localhost:%d+:%d+:%d+$", asked.address)
      end)

      it("of " .. version .. " that dies and comes back", function()
        local address = process.ipc "zap"
        local service = start_service(version, address)
        local host, front = start_broker(address)
        local client = peers.client { dialect = version, connect = front, plain = "ann:right" }
        service.run:kill "sigkill"
        service.run:wait_exit()
        process.eventually(function() return client:call("Gate", "get_services").error end, "a refusal")
        host:wait_log "nobody decided"
        service = start_service(version, address)
        process.eventually(function() return client:call("Gate", "get_services").result end, "a recovery")
        assert.is_true(service:asked() > 0)
      end)
    end

    it("that is slow, and that answers nonsense", function()
      local address = process.ipc "zap"
      local service = start_service("gate02", address)
      local _, front = start_broker(address, 0.4)
      local client = peers.client { dialect = "gate02", connect = front, plain = "ann:right" }
      local function fails()
        return process.eventually(function() return client:call("Gate", "get_services").error end, "a refusal")
      end
      local function recovers()
        service:set {}
        process.eventually(function() return client:call("Gate", "get_services").result end, "a recovery")
      end
      service:set { delay = 2000 }
      fails()
      recovers()
      for _, frames in ipairs { { "" }, { "", "1.0", "ID" }, { "", "1.0", "ID", "200", "OK", "" }, { "", "2.0",
        "ID", "200", "OK", "ann", "" },
        { "", "1.0", "other", "200", "OK", "ann", "" }, { "x", "1.0", "ID", "200", "OK", "ann", "" },
        { "", "1.0", "ID", "200", "OK", "ann", "", "" } } do
        service:set { frames = frames }
        fails()
      end
      recovers()
      for _, status in ipairs { "300", "500", "999" } do
        service:set { status = status }
        fails()
      end
      recovers()
    end)

    it("about connections of ours", function()
      local address = process.ipc "zap"
      local service = start_service("gate01", address)
      local _, _, secure = start_broker(address)
      local function try(password)
        local client <close> = gaterpc.Client { broker = secure, zap_mechanism = "PLAIN",
          zap_credentials = { "ann", password }, timeout = process.limit(5), reconnect = 0.05, reconnect_max = 0.1 }
        local result, err = client:try("Gate", "get_services")
        return result and true, err and err.code
      end
      assert.same({ true }, { try "right" })
      assert.same({ nil, "UNAUTHENTICATED" }, { try "wrong" })
      service.run:kill "sigkill"
      service.run:wait_exit()
      local _, code = try "right"
      assert.equal("UNAVAILABLE", code)
      start_service("gate01", address)
      process.eventually(function() return (try "right") end, "a recovery")
    end)

    it("and no two brokers of a process different ones about one domain", function()
      local one, two = process.ipc "zap", process.ipc "zap"
      local first, second = gaterpc.Majordomo {}, keep(gaterpc.Majordomo {})
      first:connect_zap { addr = one, domain = "shared" }
      assert.error_matches(function() second:connect_zap { addr = two, domain = "shared" } end,
        "asks .* about the domain")
      local service = ZAPService {}:configure_null "shared"
      assert.equal("UNAVAILABLE", select(2, service:start()).code)
      first:close()
      second:connect_zap { addr = two, domain = "shared" }
      second:close()
      keep(assert(service:start()))
    end)

    it("one after another, as many as there may be: those that nobody needs are closed", function()
      for _ = 1, 100 do
        local broker = gaterpc.Majordomo {}
        broker:connect_zap { addr = process.ipc "zap", domain = "shared" }
        broker:close()
      end
    end)

    it("but sends no passwords over the network", function()
      local broker = keep(gaterpc.Majordomo {})
      assert.error_matches(function() broker:connect_zap { addr = "tcp://10.0.0.1:5555" } end, "ZAP_PLAIN_OVER_TCP")
    end)
  end)

  -- A client in another process: those of this one are let in without a question.
  local function outside(at, credentials)
    return process.host(([[
      local gaterpc = require "gaterpc"
      local mechanism, credentials = %s
      local client = gaterpc.Client {
        broker = %q, zap_mechanism = mechanism, zap_credentials = credentials, timeout = 3 }
      local result, err = client:try("Gate", "get_services")
      print("outcome " .. (result and "in" or err.code))
      while io.read() do
        result, err = client:try("Gate", "get_services")
        print("outcome " .. (result and "in" or err.code))
      end
    ]]):format(credentials, at), { keep_stdin = true, name = "outside" })
  end

  it("two brokers of one process have users of their own, and one that ends leaves the other alone", function()
    local service = serve(function(s) s:configure_plain("both", { ann = "right" }) end, {})
    local function start_broker(options)
      options.backend = process.ipc "back"
      local broker = keep(gaterpc.Majordomo(options))
      if not options.users then broker:connect_zap { domain = "both" } end
      broker:bind(process.ipc "front", { mechanism = "PLAIN" })
      broker:start()
      return broker, (broker:addresses())
    end
    local function try(at, user, password)
      return outside(at, ("'PLAIN', { %q, %q }"):format(user, password)):wait_line "outcome (%S+)"
    end
    local one, at_one = start_broker {}
    local _, at_two = start_broker { users = { bob = "other" } }
    local _, at_three = start_broker {}
    assert.equal("in", try(at_one, "ann", "right"))
    assert.equal("UNAUTHENTICATED", try(at_two, "ann", "right"))
    assert.equal("in", try(at_two, "bob", "other"))
    assert.equal("in", try(at_three, "ann", "right"))
    one:close()
    assert(service:reload(), "a broker that has ended is not told")
    assert.equal("in", try(at_two, "bob", "other"))
    assert.equal("in", try(at_three, "ann", "right"))
    service:configure_plain("both", { ann = "new" })
    assert.equal("UNAUTHENTICATED", try(at_three, "ann", "right"))
    service:stop()
    assert.are_not.equal("in", try(at_three, "ann", "new"))
    assert.equal("in", try(at_two, "bob", "other"))
  end)

  it("any key is let in, also after a reload", function()
    local keys, own = assert(curve.generate()), assert(curve.generate())
    local service = serve(function(s) s:configure_curve("any", "*") end, {})
    local broker = keep(gaterpc.Majordomo { curve = keys, backend = process.ipc "back" })
    broker:connect_zap { mechanism = "CURVE", domain = "any" }
    broker:bind(process.ipc "front")
    broker:start()
    local client = outside((broker:addresses()), ("'CURVE', { public = %q, secret = %q, server = %q }"):format(
      own.public, own.secret, keys.public))
    assert.equal("in", client:wait_line "outcome (%S+)")
    assert(service:reload())
    client:write "again\n"
    assert.equal("in", client:wait_line "outcome (%S+)")
    service:configure_curve("any", { ann = keys.public })
    client:write "again\n"
    assert.are_not.equal("in", client:wait_line "outcome (%S+)")
  end)
end)
