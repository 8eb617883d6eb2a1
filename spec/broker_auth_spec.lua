-- Who a peer is and what it may do, in the broker's engine.
local engine = require "support.engine"
local mixed = require "support.mixed"

describe("a broker that wants to know its peers", function()
  local world
  local right = { mechanism = "PLAIN", user = "me", password = "secret" }
  local wrong = { mechanism = "PLAIN", user = "me", password = "wrong" }

  local function with(credentials, fields)
    local made = {}
    for _, from in ipairs { credentials, fields or {} } do
      for name, value in pairs(from) do made[name] = value end
    end
    return made
  end

  local function error_of(answer)
    return (select(2, mixed.outcome(answer)) or {})[1]
  end

  before_each(function()
    engine.at(0)
    world = mixed.world()
  end)

  describe("by their connection", function()
    before_each(function()
      world:secure {}
      world.broker:set_user("ann", "10.0.0.1")
    end)

    it("serves those whose connection says who they are, in every dialect", function()
      for _, dialect in ipairs { "gh1", "gate01", "gate02", "mdp" } do
        local service = dialect == "mdp" and "x" or "S" .. dialect
        local w = world:worker(dialect, service)
        if dialect == "gh1" then w:hear "READY" end
        local c = world:client(dialect)
        c:request { service = service }
        w:answer(w:hear "REQUEST", "REPLY", 7)
        assert.equal("7", tostring((mixed.outcome(c:hear "REPLY"))))
      end
      assert.equal(0, world:stats().refused)
      assert.same({}, world.asked)
    end)

    it("tells others at once: clients of ours by a message without a call, too", function()
      world:worker("gh1", "S")
      world.broker:set_user(nil)
      local c = world:client "gh1"
      c:say { type = "HELLO", deadline_ms = 3000, window = 3 }
      local heard = c:hear "ERROR"
      assert.equal(0, heard.id)
      assert.equal("UNAUTHENTICATED", error_of(heard))
      local id = c:request {}
      heard = c:hear "ERROR"
      assert.equal(id, heard.id)
      assert.equal("UNAUTHENTICATED", error_of(heard))
      local w = world:peer("back", "gh1")
      w:say { type = "READY", service = "T", credit = 1 }
      assert.equal("UNAUTHENTICATED", error_of(w:hear "ERROR"))
      local m = world:client "mdp"
      m:request { service = "S" }
      assert.is_truthy(m:hear "REPLY")
      assert.equal(1, world:stats().workers)
      assert.equal(4, world:stats().refused)
      assert.is_truthy(world.broker:refusal():find "did not say who it is")
    end)

    it("lets those of its own process in, who need no name", function()
      world.broker:set_user(nil)
      local w = world:peer("local_back", "gh1")
      w:say { type = "READY", service = "S", credit = 1 }
      w:hear "READY"
      assert.equal(1, world:stats().workers)
      assert.equal(0, world:stats().refused)
    end)

    it("sends those away whose names are not known any more, and lets them in again when they are", function()
      local w = world:worker("gh1", "S")
      w:hear "READY"
      local c = world:client "gh1"
      c:request {}
      local request = w:hear "REQUEST"
      world.broker:set_policy { "bob" }
      assert.equal("WORKER_LOST", error_of(c:hear "ERROR"))
      assert.equal("UNAUTHENTICATED", error_of(c:hear "ERROR"))
      assert.equal("UNAUTHENTICATED", error_of(w:hear "ERROR"))
      w:answer(request, "REPLY", 1)
      assert.equal("UNAUTHENTICATED", error_of(w:hear "ERROR"))
      assert.is_nil(c:hear())
      assert.equal(0, world:stats().workers)
      c:request {}
      assert.equal("UNAUTHENTICATED", error_of(c:hear "ERROR"))
      local late = world:client "gh1" -- a connection that began before, and speaks now
      late:request {}
      assert.equal("UNAUTHENTICATED", error_of(late:hear "ERROR"))
      world.broker:set_policy { "bob", "ann" }
      w:say { type = "READY", service = "S", credit = 1 }
      w:hear "READY"
      c:request {}
      w:hear "REQUEST"
    end)
  end)

  describe("by credentials inside messages", function()
    before_each(function() world:secure { me = "secret", you = "sesame" } end)

    it("asks once, and anew when the answer is old", function()
      local c = world:client "gate01"
      local w = world:worker("gate02", "S", right)
      for _ = 1, 3 do
        c:request(right)
        local request = w:hear "REQUEST"
        w:say(with(right, { type = "REPLY", route = request.route, tag = request.tag, caller = request.caller,
          payload = engine.put_result "\x01" }))
        assert.equal(1, (mixed.outcome(c:hear "REPLY")))
      end
      assert.same({ "me" }, world.asked)
      engine.at(59999)
      c:request(right)
      assert.equal(1, #world.asked)
      engine.at(60000)
      c:request(right)
      assert.equal(2, #world.asked)
    end)

    it("asks nobody about other mechanisms than PLAIN, which the original's ZAP service lets in unseen", function()
      world.users = nil
      for _, mechanism in ipairs { "NULL", "GSSAPI", "CURVE", "PLAINER" } do
        for _, dialect in ipairs { "gate01", "gate02" } do
          local c = world:client(dialect)
          c:request { mechanism = mechanism, user = "me", password = "secret" }
          assert.is_nil(world.broker:question())
          assert.not_equal(1, world:stats().calls)
        end
      end
    end)

    it("asks anew about a refusal after a second, and about everything when policies have changed", function()
      local c = world:client "gate02"
      c:request(wrong)
      c:request(wrong)
      assert.same({ "me" }, world.asked)
      engine.at(1000)
      c:request(wrong)
      assert.equal(2, #world.asked)
      c:request(right)
      c:request(right)
      assert.equal(3, #world.asked)
      world.broker:set_policy(nil)
      c:request(right)
      assert.equal(4, #world.asked)
    end)

    it("keeps the order of messages that wait for the answer, and lets others pass", function()
      local w = world:worker("gate02", "S", right)
      world.users = nil -- nobody answers now
      local slow, quick = world:client "gate01", world:client "gate02"
      world.broker:set_policy(nil)
      for i = 1, 3 do slow:request(with(right, { args = { i } })) end
      local number, mechanism, user, password = world.broker:question()
      assert.same({ "PLAIN", "me", "secret" }, { mechanism, user, password })
      assert.is_nil(world.broker:question())
      quick:request(with({ mechanism = "PLAIN", user = "you", password = "sesame" }, { args = { 9 } }))
      local second = world.broker:question()
      world.broker:answer(second, "yes")
      assert.same({ 9 }, mixed.params(w:hear "REQUEST"))
      assert.is_nil(w:hear())
      world.broker:answer(number, "yes")
      for i = 1, 3 do assert.same({ i }, mixed.params(w:hear "REQUEST")) end
    end)

    it("asks about each of different credentials of one peer, in order", function()
      world.users = nil
      local c = world:client "gate02"
      c:request(wrong)
      c:request(right)
      c:request(wrong)
      world.broker:answer(world.broker:question(), "no")
      assert.equal("UNAUTHENTICATED", error_of(c:hear "REPLY"))
      assert.is_nil(c:hear())
      world.broker:answer(world.broker:question(), "yes")
      assert.matches("ServiceUnAvailableError", error_of(c:hear "REPLY")) -- nobody serves it
      assert.equal("UNAUTHENTICATED", error_of(c:hear "REPLY"))
      assert.is_nil(world.broker:question())
    end)

    it("fails closed when nobody decides, or does not in time", function()
      world.users = nil
      local c, d = world:client "gate02", world:client "gate01"
      c:request(right)
      world.broker:answer(world.broker:question(), "unclear")
      assert.matches("ServiceUnAvailableError", error_of(c:hear "REPLY"))
      engine.at(2000)
      d:request(right)
      world.broker:question()
      world:tick(7999)
      assert.is_nil(d:hear())
      world:tick(8000)
      assert.matches("ServiceUnAvailableError", error_of(d:hear "REPLY"))
      assert.equal(0, world:stats().calls)
    end)

    it("forgets a question whose peer has gone, and hears no answer to what it did not ask", function()
      world.users = nil
      local w = world:peer("back", "gate01")
      w:say(with(right, { type = "READY", service = "S", credit = 1, sender = w.id }))
      local number = world.broker:question()
      for _ = 1, 1024 do w:say(with(right, { type = "HEARTBEAT" })) end
      assert.equal(0, world:stats().peers)
      world.broker:answer(number, "yes")
      world.broker:answer(number + 1, "yes")
      world.broker:answer(0, "yes")
      assert.equal(0, world:stats().workers)
      assert.equal(0, world:stats().peers)
    end)

    it("bounds what waits for an answer", function()
      world.users = nil
      local c = world:client "gate02"
      for _ = 1, 1024 do c:request(right) end
      assert.equal(1, world:stats().peers)
      c:request(right)
      assert.equal(0, world:stats().peers)
      assert.equal(1, world:stats().slow)
    end)

    it("lets no worker become another user", function()
      local w = world:worker("gate02", "S", right)
      local c = world:client "gate02"
      c:request(right)
      local request = w:hear "REQUEST"
      w:say { type = "REPLY", mechanism = "PLAIN", user = "you", password = "sesame", route = request.route,
        tag = request.tag, caller = request.caller, payload = engine.put_result "\x01" }
      assert.equal(0, world:stats().workers)
      assert.equal("WORKER_LOST", error_of(c:hear "REPLY"))
    end)
  end)

  it("drops messages in the name of another peer, whoever that is, and does not disturb it", function()
    local victim = world:client "gate01"
    local w = world:worker("gate01", "S")
    victim:request {}
    local forger = world:peer("front", "gate01")
    forger:send("", "MDPC01", "S", victim.id, ("a"):rep(32), "\xa1m")
    assert.is_nil(forger:hear())
    local false_worker = world:worker("gate01", "T")
    false_worker:say { type = "BYE", sender = w.id }
    assert.is_nil(false_worker:hear())
    assert.equal(2, world:stats().forged)
    assert.equal(2, world:stats().workers)
    local stranger = world:peer("back", "gate01") -- whose first message it is: not even that
    stranger:say { type = "READY", service = "S", credit = 1, sender = w.id }
    assert.is_nil(stranger:hear())
    assert.equal(2, world:stats().workers)
    assert.equal(1, world:stats().malformed)
    w:answer(w:hear "REQUEST", "REPLY", 3)
    assert.equal(3, (mixed.outcome(victim:hear "REPLY")))
  end)

  it("lets no client be a worker by what it says", function()
    for _, dialect in ipairs { "gh1", "gate01", "gate02" } do
      local c = world:client(dialect)
      c:request { service = "Gate", method = "get_services" }
      c:hear "REPLY"
      c:send(engine.build_as(dialect, "worker_to_broker",
        { type = "READY", service = "S", credit = 1, sender = c.id, seed = 1 }))
      assert.equal(0, world:stats().workers)
    end
    assert.equal(3, world:stats().malformed)
  end)

  it("counts answers to calls of other workers, which reach nobody", function()
    local w, other = world:worker("gh1", "S"), world:worker("gh1", "T")
    local c = world:client "gh1"
    c:request {}
    w:hear "READY"
    local request = w:hear "REQUEST"
    other:answer(request, "REPLY", "forged")
    assert.is_nil(c:hear())
    assert.equal(1, world:stats().forged)
    w:answer(request, "REPLY", "right")
    assert.equal("right", (mixed.outcome(c:hear "REPLY")))
    w:answer(request, "REPLY", "second")
    assert.is_nil(c:hear())
    assert.equal(1, world:stats().forged)
    assert.equal(2, world:stats().late)
  end)

  describe("with an access list", function()
    local function list(...)
      world.broker:set_access { ... }
    end

    local function can_register(user, service)
      world.broker:set_user(user)
      local w = world:peer("back", "gh1")
      w:say { type = "READY", service = service, credit = 1 }
      local heard = w:hear()
      return heard.type == "READY" or error_of(heard)
    end

    local function can_call(user, service, method)
      world.broker:set_user(user)
      local c = world:client "gh1"
      c:request { service = service, method = method }
      local heard = c:hear()
      return heard == nil or error_of(heard) or heard.type == "REPLY"
    end

    it("denies what is not in it", function()
      list({ "w", "register", "S" }, { "ann", "call", "S.get" }, { "b*", "call", "S.*" }, { "*", "call", "*.ping" })
      assert.is_true(can_register("w", "S"))
      assert.equal("PERMISSION_DENIED", can_register("w", "S2"))
      assert.equal("PERMISSION_DENIED", can_register("ann", "S"))
      assert.equal("PERMISSION_DENIED", can_register(nil, "S"))
      assert.is_true(can_call("ann", "S", "get"))
      assert.equal("PERMISSION_DENIED", can_call("ann", "S", "set"))
      assert.equal("PERMISSION_DENIED", can_call("ann", "S", "get2"))
      assert.is_true(can_call("bob", "S", "anything"))
      assert.is_true(can_call("ann", "S", "ping"))
      assert.equal("PERMISSION_DENIED", can_call(nil, "S", "ping")) -- "*" is for those who have a name
      assert.equal("PERMISSION_DENIED", can_call("w", "S", "get"))
      assert.equal("PERMISSION_DENIED", can_call("ann", "Nobody", "get")) -- not even whether there is such a service
      assert.is_truthy(world.broker:refusal():find("ann may not call Nobody.get", 1, true))
      assert.equal(8, world:stats().denied)
    end)

    it("covers the functions of the broker itself, but for signs of life", function()
      list({ "ann", "call", "Gate.get_services" })
      assert.is_true(can_call("ann", "Gate", "get_services"))
      assert.equal("PERMISSION_DENIED", can_call("ann", "Gate", "info"))
      assert.equal("PERMISSION_DENIED", can_call("bob", "Gate", "get_services"))
      assert.is_true(can_call("bob", "Gate", "keepalive"))
      assert.is_true(can_call("bob", "Gate", "client_heartbeat"))
    end)

    it("may name those without a name", function()
      list({ "anonymous", "call", "S.get" }, { "anonymous", "register", "S" })
      assert.is_true(can_register(nil, "S"))
      assert.is_true(can_call(nil, "S", "get"))
      assert.equal("PERMISSION_DENIED", can_call(nil, "S", "set"))
      assert.equal("PERMISSION_DENIED", can_call("ann", "S", "get"))
    end)

    it("knows stars anywhere in a pattern, and nothing else that is special", function()
      list({ "u", "call", "a*b*.x*z" }, { "u", "call", "q.?" }, { "u", "call", "[a].c" })
      for name, allowed in pairs {
        ["ab.xz"] = true, ["a--b--.x--z"] = true, ["ab.xzz"] = true, ["ab.x"] = false, ["b.xz"] = false,
        ["abab.xzxz"] = true, ["q.a"] = false, ["q.?"] = true, ["a.c"] = false, ["[a].c"] = true,
      } do
        local service, method = name:match "^(.*)%.(.*)$"
        local got = can_call("u", service, method)
        assert.equal(allowed, got ~= "PERMISSION_DENIED", name)
      end
    end)

    it("takes services and methods apart, whatever dots are in them", function()
      list({ "u", "call", "a.*" }, { "v", "call", "a.b.*" }, { "w", "call", "*.b" }, { "x", "call", "*" })
      local outcomes = {}
      for _, user in ipairs { "u", "v", "w", "x" } do
        for _, call in ipairs { { "a", "b" }, { "a", "b.c" }, { "a.b", "c" }, { "a.b", "b" } } do
          table.insert(outcomes, can_call(user, call[1], call[2]) ~= "PERMISSION_DENIED" and 1 or 0)
        end
      end
      assert.equal("1100" .. "0011" .. "1001" .. "1111", table.concat(outcomes))
    end)

    it("is changed while it runs: workers that may not be there are sent away, their calls fail", function()
      list({ "w", "register", "*" }, { "ann", "call", "*" })
      world.broker:set_user "w"
      local stays, goes = world:worker("gh1", "A"), world:worker("gh1", "B")
      world.broker:set_user "ann"
      local c = world:client "gh1"
      c:request { service = "B" }
      list({ "w", "register", "A" }, { "ann", "call", "A.*" })
      assert.equal("WORKER_LOST", error_of(c:hear "ERROR"))
      goes:hear "READY"
      goes:hear "REQUEST"
      assert.equal("PERMISSION_DENIED", error_of(goes:hear "ERROR"))
      c:request { service = "B" }
      assert.equal("PERMISSION_DENIED", error_of(c:hear "ERROR"))
      c:request { service = "A" }
      stays:hear "READY"
      stays:hear "REQUEST"
      world.broker:set_access(nil)
      assert.is_true(can_register("whoever", "B"))
    end)

    it("is for older dialects, too, by the user of each message", function()
      world:secure { me = "secret", you = "sesame" }
      list({ "me", "register", "S" }, { "you", "call", "S.m" })
      local w = world:worker("gate01", "S", right)
      assert.equal(1, world:stats().workers)
      world:worker("gate02", "T", right)
      assert.equal(1, world:stats().workers)
      for _, dialect in ipairs { "gate01", "gate02" } do
        local c = world:client(dialect)
        c:request(right)
        assert.equal("PERMISSION_DENIED", error_of(c:hear "REPLY"))
        c:request { mechanism = "PLAIN", user = "you", password = "sesame" }
        assert.is_nil(c:hear())
      end
      w:hear "REQUEST"
    end)

    it("remembers its answers, of which a peer cannot make it keep too many", function()
      list({ "ann", "call", "S.*" })
      world.broker:set_user "ann"
      local c = world:client "gh1"
      for i = 1, 20000 do
        c:request { service = "T", method = "m" .. i }
        assert.equal("PERMISSION_DENIED", error_of(c:hear "ERROR"))
      end
    end)
  end)
end)
