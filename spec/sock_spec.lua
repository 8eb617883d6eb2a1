-- Sockets that are bound and connected with PLAIN and CURVE, and somebody who decides about peers: the spec.

local curve = require "gaterpc.curve"
local process = require "support.process"
local socks = require "support.socks"

local KEYS, OWN, OTHER = curve.generate(), curve.generate(), curve.generate()

local PLAIN_SERVER = { mechanism = "PLAIN", server = true, domain = "gate" }
local CURVE_SERVER = {
  mechanism = "CURVE", server = true, domain = "gate", public_key = KEYS.public, secret_key = KEYS.secret }
local PLAIN = { mechanism = "PLAIN", user = "ann", password = "unseen" }
local CURVE = {
  mechanism = "CURVE", public_key = OWN.public, secret_key = OWN.secret, server_key = KEYS.public }

describe("sock, security", function()
  local open, zap

  before_each(function() open = {} end)

  after_each(function()
    for _, each in ipairs(open) do each:close() end
    zap = nil
  end)

  local function keep(it)
    open[#open + 1] = it
    return it
  end

  -- A server, and a client that is connecting to it.
  local function pair(server, client, handshake_ms)
    local router, dealer = keep(socks.router()), keep(socks.dealer(handshake_ms))
    assert(router:secure(server))
    assert(dealer:secure(client))
    local address = assert(router:bind "tcp://127.0.0.1:*")
    assert(dealer:connect(address))
    return dealer, router, address
  end

  -- Waits until the dealer is connected or refused, while the ZAP handler, if there is one, answers with the status.
  local function next_event(dealer, status)
    return table.unpack(process.eventually(function()
      if zap and status then zap:answer(status) end
      local event = table.pack(dealer:next_event())
      return event[1] and event[1] ~= "DISCONNECTED" and event
    end, "an event"))
  end

  -- Status, or false: nobody is there to be asked.
  local function outcome(server, client, status)
    if status then zap = keep(socks.zap()) end
    return next_event(pair(server, client), status)
  end

  it("lets in whom the ZAP handler accepts, with what the peer has shown", function()
    zap = keep(socks.zap())
    assert.equal("CONNECTED", (next_event(pair(PLAIN_SERVER, PLAIN), "200")))
    assert.same({ "gate", "PLAIN", "ann", "unseen" },
      { zap.asked.domain, zap.asked.mechanism, table.unpack(zap.asked.credentials) })
    assert.equal("CONNECTED", (next_event(pair(CURVE_SERVER, CURVE), "200")))
    assert.same({ "gate", "CURVE", 32 }, { zap.asked.domain, zap.asked.mechanism, #zap.asked.credentials[1] })
    assert.equal("CONNECTED", (next_event(pair({ server = true, domain = "gate" }, {}), "200")))
    assert.same({ "gate", "NULL" }, { zap.asked.domain, zap.asked.mechanism })
  end)

  for name, case in pairs {
    ["a password"] = { PLAIN_SERVER, PLAIN, "refuses the user or the password" },
    ["a key"] = { CURVE_SERVER, CURVE, "does not accept the public key" },
    ["a peer without credentials"] = {
      { server = true, domain = "gate" }, {}, "does not let us in without credentials" },
  } do
    it("says that the handler refuses " .. name, function()
      local type, code, text = outcome(case[1], case[2], "400")
      assert.same({ "REFUSED", "UNAUTHENTICATED" }, { type, code })
      assert.is_truthy(text:find(case[3], 1, true), text)
    end)

    it("blames nobody when the handler fails at " .. name, function()
      local type, code, text = outcome(case[1], case[2], "500")
      assert.same({ "REFUSED", "UNAVAILABLE" }, { type, code })
      assert.is_truthy(text:find "at present")
    end)
  end

  local SERVERS = { NULL = {}, PLAIN = PLAIN_SERVER, CURVE = CURVE_SERVER }
  local CLIENTS = { NULL = {}, PLAIN = PLAIN, CURVE = CURVE }
  for wanted, server in pairs(SERVERS) do
    for shown, client in pairs(CLIENTS) do
      if wanted ~= shown then
        it(("says so when %s is wanted and %s shown"):format(wanted, shown), function()
          local type, code, text = outcome(server, client)
          assert.same({ "REFUSED", "UNAUTHENTICATED" }, { type, code })
          local expected = shown == "NULL" and "wants credentials" or "does not use " .. shown
          assert.is_truthy(text:find(expected, 1, true), text)
        end)
      end
    end
  end

  it("suspects the key of a server that hangs up", function()
    zap = keep(socks.zap())
    local wrong = {}
    for key, value in pairs(CURVE) do wrong[key] = value end
    wrong.server_key = OTHER.public
    local type, code, text = next_event(pair(CURVE_SERVER, wrong), "200")
    assert.same({ "REFUSED", "UNAUTHENTICATED" }, { type, code })
    assert.is_truthy(text:find("has another key than the server's key", 1, true))
  end)

  it("lets nobody in when nobody is there to be asked", function()
    for _, case in ipairs { { PLAIN_SERVER, PLAIN }, { CURVE_SERVER, CURVE } } do
      assert.equal("REFUSED", (next_event(pair(case[1], case[2]))))
    end
    local dealer = pair({ server = true, domain = "gate" }, {}, 1000) -- who is not answered begins anew
    local other = pair({}, {}) -- a pair that needs nobody, for comparison
    assert.equal("CONNECTED", (next_event(other)))
    assert.is_nil(dealer:next_event())
    zap = keep(socks.zap())
    assert.equal("CONNECTED", (next_event(dealer, "200")))
  end)

  it("does not take a slow handler for a refusal", function()
    zap = keep(socks.zap())
    local dealer = pair(PLAIN_SERVER, PLAIN, 100) -- milliseconds, then it begins anew
    process.eventually(function() return zap:take() end, "the first question")
    process.eventually(function() return dealer:next_event() ~= "REFUSED" and zap:take() end, "another attempt")
    assert.equal("CONNECTED", (next_event(dealer, "200")))
  end)

  it("connects again after a refusal when it is told to", function()
    zap = keep(socks.zap())
    local dealer, _, address = pair(PLAIN_SERVER, PLAIN)
    for _ = 1, 20 do
      assert.equal("REFUSED", (next_event(dealer, "400")))
      dealer:disconnect(address)
      assert(dealer:connect(address))
    end
    assert.equal("CONNECTED", (next_event(dealer, "200")))
  end)

  it("goes back to NULL and forgets the secrets", function()
    local s = keep(socks.dealer())
    for _, security in ipairs { PLAIN, CURVE, PLAIN_SERVER, CURVE_SERVER } do
      assert(s:secure(security))
      local mechanism, password, secret, is_server = s:holds()
      assert.equal(security.mechanism == "PLAIN" and 1 or 2, mechanism)
      assert.equal(security.server or false, is_server)
      if security.password then assert.equal("unseen", password) end
      if security.secret_key then assert.equal(security.secret_key, secret) end
      assert(s:secure { domain = security.domain })
      mechanism, password, secret, is_server = s:holds()
      assert.same({ 0, false }, { mechanism, is_server })
      assert.is_nil(password:find("unseen", 1, true))
      assert.is_nil((password .. secret):find(security.secret_key or "unseen", 1, true))
    end
    assert.equal("CONNECTED", (next_event(pair({}, {}))))
  end)

  it("has another mechanism at each address", function()
    zap = keep(socks.zap())
    local router = keep(socks.router())
    local addresses = {}
    for i, security in ipairs { PLAIN_SERVER, CURVE_SERVER, { server = true, domain = "gate" } } do
      assert(router:secure(security))
      addresses[i] = router:bind "tcp://127.0.0.1:*"
    end
    for i, security in ipairs { PLAIN, CURVE, {} } do
      local dealer = keep(socks.dealer())
      assert(dealer:secure(security))
      assert(dealer:connect(addresses[i]))
      assert.equal("CONNECTED", (next_event(dealer, "200")))
    end
  end)

  it("changes nothing when something is missing or too long", function()
    local s = keep(socks.dealer())
    assert(s:secure(PLAIN))
    for _, wrong in ipairs {
      { mechanism = "PLAIN" }, { mechanism = "PLAIN", user = "ann" },
      { mechanism = "PLAIN", user = "", password = "x" },
      { mechanism = "PLAIN", user = "ann", password = "" },
      { mechanism = "PLAIN", user = "ann", password = ("x"):rep(256) },
      { mechanism = "PLAIN", user = ("x"):rep(256), password = "x" },
      { mechanism = "PLAIN", server = true }, { mechanism = "PLAIN", server = true, domain = "" },
      { mechanism = "CURVE", server = true, public_key = KEYS.public, secret_key = KEYS.secret },
      { server = true, domain = ("x"):rep(256) },
    } do
      assert.same({ nil, "INVALID_ARGUMENT" }, { s:secure(wrong) })
      local mechanism, password = s:holds()
      assert.same({ 1, "unseen" }, { mechanism, password })
    end
    assert(s:secure { mechanism = "PLAIN", user = ("u"):rep(255), password = ("x"):rep(255) })
    assert(s:secure { server = true, domain = "gate" })
    assert.same({ nil, "INVALID_ARGUMENT" }, { s:secure { server = true } }) -- or it would let everybody in
  end)
end)
