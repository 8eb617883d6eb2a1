-- Who is let in: policies, and the answers to ZAP requests (RFC 27), by hand.

local vectors = require "support.vectors"
local zapspec = require "support.zap"

local ask, answer, next_out = zapspec.ask, zapspec.answer, zapspec.next

local KEY, OTHER = ("k"):rep(32), ("o"):rep(32)
local HASH = zapspec.hash "slow one"

-- One that decides about "gate" by a policy of these.
local function zap_of(given, penalty_ms)
  zapspec.at(0)
  local zap = zapspec.zap(penalty_ms)
  if given then assert(zap:set_policy("gate", zapspec.policy(given))) end
  return zap
end

local function status(zap, given)
  local said = answer(zap, given)
  return said and said.status, said and said.user
end

-- The refusals that are due by now.
local function due(zap, ms)
  zapspec.at(ms)
  zap:tick()
  return next_out(zap)
end

describe("a policy", function()
  it("knows the right password, and no other", function()
    local policy = zapspec.policy { users = { ann = "secret", ["堡垒"] = "哔哔" } }
    assert.equal("admitted", policy:plain("ann", "secret"))
    assert.equal("admitted", policy:plain("堡垒", "哔哔"))
    for _, wrong in ipairs { "", "Secret", "secre", "secret ", "secret\0", ("x"):rep(255), ("x"):rep(256),
      ("x"):rep(5000) } do
      assert.equal("refused", policy:plain("ann", wrong))
    end
    for _, unknown in ipairs { "", "bob", "ann\0", "an", "堡", ("a"):rep(256) } do
      assert.equal("refused", policy:plain(unknown, "secret"))
    end
  end)

  it("does not take a part of the name for a part of the password", function()
    local policy = zapspec.policy { users = { ab = "cd" } }
    assert.equal("refused", policy:plain("a", "bcd"))
    assert.equal("refused", policy:plain("abc", "d"))
  end)

  it("takes names and passwords of 1 to 255 bytes, and no zero in a name", function()
    local policy = zapspec.policy {}
    assert(policy:user(("n"):rep(255), ("p"):rep(255)))
    assert.equal("admitted", policy:plain(("n"):rep(255), ("p"):rep(255)))
    for _, wrong in ipairs { { "", "p" }, { "n", "" }, { ("n"):rep(256), "p" }, { "n", ("p"):rep(256) }, { "n\0x",
      "p" } } do
      local done, code = policy:user(wrong[1], wrong[2])
      assert.same({ nil, "INVALID_ARGUMENT" }, { done, code })
    end
    assert.is_false(policy:knows "n")
  end)

  it("gives a user another password", function()
    local policy = zapspec.policy { users = { ann = "old" } }
    assert(policy:user("ann", "new"))
    assert.equal("refused", policy:plain("ann", "old"))
    assert.equal("admitted", policy:plain("ann", "new"))
    assert(policy:user("ann", HASH))
    assert.equal("undecided", policy:plain("ann", "new"))
    assert.is_false(policy:slowly("ann", "new"))
    assert.is_true(policy:slowly("ann", "slow one"))
    assert(policy:user("ann", "new"))
    assert.equal("admitted", policy:plain("ann", "new"))
  end)

  it("takes Argon2 hashes, and nothing that only begins like one", function()
    local policy = zapspec.policy {}
    assert(policy:user("ann", HASH))
    for _, wrong in ipairs { "$argon2", "$argon2id$v=19$m=8,t=1,p=1$", HASH .. "!", HASH:sub(1, 30), HASH .. "\0",
      "$argon2" .. ("x"):rep(240) } do
      local done, code = policy:user("bob", wrong)
      assert.same({ nil, "INVALID_ARGUMENT" }, { done, code })
    end
    assert.is_false(policy:knows "bob")
  end)

  it("does not show by its pace who is there, when some passwords are slow", function()
    local policy = zapspec.policy { users = { ann = HASH, bob = "quick" } }
    for _, each in ipairs { { "ann", "wrong" }, { "nobody", "wrong" }, { "bob", "wrong" }, { "ann", "slow one" } } do
      assert.equal("undecided", policy:plain(each[1], each[2]))
    end
    assert.equal("admitted", policy:plain("bob", "quick"))
    assert.is_true(policy:slowly("ann", "slow one"))
    for _, each in ipairs { { "ann", "wrong" }, { "nobody", "slow one" }, { "bob", "quick" }, { "bob",
      "slow one" }, { "ann", "" } } do
      assert.is_false(policy:slowly(each[1], each[2]))
    end
  end)

  it("knows keys by their users, who may have several, but no key of two", function()
    local policy = zapspec.policy { keys = { [KEY] = "ann" } }
    assert(policy:key("ann", OTHER))
    assert(policy:key("ann", OTHER))
    assert.equal("ann", policy:key_of(KEY))
    assert.equal("ann", policy:key_of(OTHER))
    assert.is_nil(policy:key_of(("x"):rep(32)))
    for _, wrong in ipairs { "", KEY:sub(2), KEY .. "k" } do assert.is_nil(policy:key_of(wrong)) end
    local done, code = policy:key("bob", KEY)
    assert.same({ nil, "INVALID_ARGUMENT" }, { done, code })
    assert.is_false(policy:knows "bob")
    assert.equal("ann", policy:key_of(KEY))
  end)

  it("knows everybody with a key when any key will do, by the key as text", function()
    local policy = zapspec.policy { keys = { [KEY] = "ann" }, any_key = true }
    local name = policy:key_of(OTHER)
    assert.equal(40, #name)
    assert.equal("ann", policy:key_of(KEY))
    assert.is_nil(policy:key_of "short")
    assert.is_true(policy:knows(name), "one who is let in is known")
    assert.is_true(policy:knows "ann")
    for _, wrong in ipairs { "bob", name:sub(2), name .. "0", ("\\"):rep(40), ("\0"):rep(40) } do
      assert.is_false(policy:knows(wrong))
    end
    assert.is_false(zapspec.policy {}:knows(name))
  end)

  describe("looks at addresses:", function()
    local function admits(given, address)
      return zapspec.policy(given):admits(address)
    end

    it("all are let in when none is named", function()
      for _, address in ipairs { "", "10.0.0.1", "::1", "localhost:0:0:1", "gc-1", ("\0"):rep(16) } do
        assert.is_true(admits({}, address))
      end
    end)

    local prefixes = {
      -- pattern, addresses that it has, addresses that it does not have
      { "10.1.2.3", { "10.1.2.3", "::ffff:10.1.2.3" }, { "10.1.2.4", "110.1.2.3", "::10.1.2.3", "10.1.2.3 ", "" } },
      { "10.1.2.3/32", { "10.1.2.3" }, { "10.1.2.2" } },
      { "10.1.2.2/31", { "10.1.2.2", "10.1.2.3" }, { "10.1.2.1", "10.1.2.4" } },
      { "10.9.9.9/8", { "10.0.0.0", "10.255.255.255", "::ffff:10.8.8.8" }, { "11.0.0.0", "9.255.255.255",
        "a00::1" } },
      { "10.0.0.0/9", { "10.127.255.255" }, { "10.128.0.0" } },
      { "0.0.0.0/0", { "1.2.3.4", "255.255.255.255", "::ffff:1.2.3.4" }, { "::1", "gc-1", "localhost:0:0:1", "" } },
      { "::1", { "::1", "0:0:0:0:0:0:0:1", "::0001" }, { "::2", "::", "127.0.0.1" } },
      { "::1/128", { "::1" }, { "::" } },
      { "::/0", { "::1", "fe80::1" }, { "1.2.3.4", "::ffff:1.2.3.4" } },
      { "fe80::/10", { "fe80::1", "fe80::1%eth0", "febf::1%a-very-long-name" }, { "fec0::1", "fe00::1%eth0" } },
      { "2001:db8::/127", { "2001:db8::", "2001:db8::1" }, { "2001:db8::2" } },
      { "::ffff:10.0.0.0/104", { "10.9.9.9", "::ffff:10.1.1.1" }, { "11.0.0.1", "::1" } },
      { "::ffff:10.1.2.3", { "10.1.2.3" }, { "10.1.2.4" } },
      { "::ffff:0.0.0.0/96", { "10.1.2.3" }, { "::1" } },
      { "ipc", { "localhost:1000:1000:77", ":0:0:1" },
        { "localhost", "::1", "localhost:1:2", "localhost:1:2:3:4", ":a:b:c", "::", "", "localhost::1", "x:1:2:3" } },
      { "gc-abc", { "gc-abc" }, { "gc-abcd", "gc-ab", "" } },
      { ("\0\1"):rep(8), { ("\0\1"):rep(8) }, { ("\0\2"):rep(8), "\0\1" } },
    }
    for _, each in ipairs(prefixes) do
      it(("%q"):format(each[1]):gsub("\\0", "."), function()
        for _, address in ipairs(each[2]) do
          assert.is_true(admits({ allow = { each[1] } }, address), address)
          assert.is_false(admits({ deny = { each[1] } }, address), address)
        end
        for _, address in ipairs(each[3]) do
          assert.is_false(admits({ allow = { each[1] } }, address), address)
          assert.is_true(admits({ deny = { each[1] } }, address), address)
        end
      end)
    end

    it("a zero does not end an address", function()
      assert.is_false(admits({ allow = { "10.0.0.1" } }, "10.0.0.1\0x"))
      assert.is_false(admits({ allow = { "::/0" } }, "::1\0"))
      assert.is_false(admits({ allow = { "fe80::/10" } }, "fe80::1%eth0\0"))
    end)

    it("denied ones are refused though they are allowed", function()
      local policy = zapspec.policy { allow = { "10.0.0.0/8", "10.1.2.3" }, deny = { "10.1.2.0/24" } }
      assert.is_true(policy:admits "10.1.3.1")
      assert.is_false(policy:admits "10.1.2.3")
      assert.is_false(policy:admits "11.0.0.1")
    end)

    it("what would never match is an error", function()
      for _, wrong in ipairs { "", "10.0.0.256", "10.0.0", "10.0.*", "*", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/+8",
        "10.0.0.1/08x", "10.0.0.1/8/8", "::1/129", "::ffff:10.0.0.1/8", "10.0.0.1:5555", "[::1]", "1:2:3",
          "localhost",
        "tcp://10.0.0.1", "/8", "10.0.0.1/99999999999999999999", "10.0.0.1/-1", "fe80::1%eth0", "fe80::%/10",
          ("1"):rep(300),
        "10.0.0.0/255.0.0.0" } do
        local done, code = zapspec.policy {}:address(wrong, false)
        assert.same({ nil, "INVALID_ARGUMENT" }, { done, code }, wrong)
      end
    end)
  end)
end)

describe("a ZAP request", function()
  it("of PLAIN is answered with the user's name", function()
    local zap = zap_of { users = { ann = "secret" } }
    local said = answer(zap, { "ann", "secret", id = "id\0\255" })
    assert.same({ "peer", "1.0", "id\0\255", "200", "OK", "ann", "", 6 },
      { said.to, said.version, said.id, said.status, said.text, said.user, said.metadata, said.count })
    assert.same({ 1, 0, 0, 0 }, { zap:stats() })
  end)

  it("with a wrong password is refused, by its penalty later", function()
    local zap = zap_of { users = { ann = "secret" } }
    for n, given in ipairs { { "ann", "wrong" }, { "bob", "secret" }, { "ann", "" }, { "", "" }, { "", "secret" } } do
      given.address = "10.0.0." .. n
      zapspec.at(0)
      assert.is_nil(answer(zap, given))
      assert.equal(50, zap:next_due())
      assert.is_nil(due(zap, 49))
      local said = due(zap, 50)
      assert.same({ "400", "NO ACCESS", "", "" }, { said.status, said.text, said.user, said.metadata })
      assert.is_nil(zap:next_due())
    end
    assert.same({ 0, 5, 0, 0 }, { zap:stats() })
  end)

  it("of CURVE is answered with the user's name, or the key", function()
    local zap = zap_of { keys = { [KEY] = "ann", [OTHER] = "ann" } }
    assert.same({ "200", "ann" }, { status(zap, { KEY, mechanism = "CURVE" }) })
    assert.same({ "200", "ann" }, { status(zap, { OTHER, mechanism = "CURVE" }) })
    assert.is_nil(answer(zap, { ("x"):rep(32), mechanism = "CURVE" }))
    assert.is_nil(answer(zap, { KEY .. "x", mechanism = "CURVE", address = "2" }))
    assert(zap:set_policy("gate", zapspec.policy { any_key = true }))
    local code, user = status(zap, { KEY, mechanism = "CURVE" })
    assert.same({ "200", 40 }, { code, #user })
  end)

  it("of NULL is answered when that is configured, and has no name", function()
    local zap = zap_of { users = { ann = "secret" } }
    assert.is_nil(answer(zap, { mechanism = "NULL" }))
    assert(zap:set_policy("gate", zapspec.policy { null = true }))
    assert.same({ "200", "" }, { status(zap, { mechanism = "NULL" }) })
    assert.is_nil(answer(zap, { "ann", "secret" }))
  end)

  it("of another mechanism, or with credentials of another, is refused", function()
    local zap = zap_of { users = { ann = "secret" }, keys = { [KEY] = "ann" }, null = true }
    local wrong = { { "ann", mechanism = "GSSAPI" }, { "ann", "secret", mechanism = "GSSAPI" }, { mechanism = "" },
      { mechanism = "plain" }, { "ann", "secret", mechanism = "PLAIN\0" }, { "ann" }, {}, { KEY, "x",
        mechanism = "CURVE" },
      { mechanism = "CURVE" }, { "ann", "secret", mechanism = "NULL" }, { "x", mechanism = "NULL" } }
    for n, given in ipairs(wrong) do
      zapspec.at(0)
      given.address = "10.0.0." .. n
      assert.is_nil(answer(zap, given), n)
      assert.equal("400", due(zap, 50).status)
    end
    assert.same({ 0, #wrong, 0, 0 }, { zap:stats() })
  end)

  it("from an address that is not allowed is refused, whatever it knows", function()
    local zap = zap_of { users = { ann = "secret" }, keys = { [KEY] = "ann" }, null = true, deny = { "10.0.0.0/8" } }
    for n, given in ipairs { { "ann", "secret" }, { KEY, mechanism = "CURVE" }, { mechanism = "NULL" } } do
      given.address = "10.0.0." .. n
      assert.is_nil(answer(zap, given))
      given.address = "11.0.0.1"
      assert.equal("200", status(zap, given))
    end
  end)

  it("about a domain that is not there is refused", function()
    local zap = zap_of { users = { ann = "secret" }, null = true }
    for _, domain in ipairs { "", "other", "gat", "gate\0", "*" } do
      assert.is_nil(answer(zap, { "ann", "secret", domain = domain }))
    end
    zap:remove "gate"
    zap:remove "gate"
    assert.is_nil(answer(zap, { "ann", "secret" }))
    assert.same({ nil, "INVALID_ARGUMENT" }, { zap:set_policy("", zapspec.policy {}) })
    assert.same({ nil, "INVALID_ARGUMENT" }, { zap:set_policy(("d"):rep(256), zapspec.policy {}) })
    assert.same({ nil, "INVALID_ARGUMENT" }, { zap:set_remote("", 1) })
    assert(zap:set_policy(("d"):rep(255), zapspec.policy { null = true }))
    assert.equal("200", status(zap, { domain = ("d"):rep(255), mechanism = "NULL" }))
  end)

  it("is answered by another policy as soon as there is one", function()
    local zap = zap_of { users = { ann = "old" } }
    assert.equal("200", status(zap, { "ann", "old" }))
    assert(zap:set_policy("gate", zapspec.policy { users = { ann = "new" } }))
    assert.is_nil(answer(zap, { "ann", "old" }))
    assert.equal("200", status(zap, { "ann", "new" }))
  end)

  it("may have other frames in front of the empty one, and gets them back", function()
    local zap = zap_of { null = true }
    zap:receive("service", 3, "one", "two", "", "1.0", "7", "gate", "", "", "NULL")
    local said = next_out(zap)
    assert.same({ "service", 3, { "one", "two", "", "1.0", "7", "200", "OK", "", "", n = 9 } },
      { said.door, said.number, said.frames })
  end)

  it("that is malformed gets no answer, or a refusal when it can be told", function()
    local zap = zap_of { users = { ann = "secret" }, null = true }
    local function is_malformed(...)
      local _, _, _, before = zap:stats()
      assert.is_true(zap:receive(...))
      local _, _, _, after = zap:stats()
      assert.equal(before + 1, after)
      return next_out(zap)
    end
    local silent = {
      {}, { "peer" }, { "peer", "" }, { "peer", "", "1.0" }, { "peer", "", "1.0", "id" },
      { "peer", "", "1.0", "id", "gate", "", "" }, { "", "1.0", "id", "gate", "addr", "who", "NULL" },
      { "peer", "x", "1.0", "id", "gate", "addr", "who", "NULL" },
      { "peer", "", "1.0", "id", "gate", "", "", "NULL", "1", "2", "3" },
      { "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "", "1.0", "id", "gate", "", "", "NULL" },
      { "peer", ("e"):rep(256), "", "1.0", "id", "gate", "", "", "NULL" },
      { "peer", "", "1.0", "", "gate", ("a"):rep(256), "", "NULL" },
    }
    for n, frames in ipairs(silent) do assert.is_nil(is_malformed("service", 1, table.unpack(frames)), n) end
    local cut = { "peer", "", "1.0", "id", "gate", "", "", "NULL" }
    for i = #cut + 1, 80 do cut[i] = "x" end
    assert.is_nil(is_malformed("service", 1, table.unpack(cut)))
    local told = {
      { "2.0", "id", "gate", "", "", "NULL" }, { "", "id", "gate", "", "", "NULL" }, { "1.0\0", "id", "gate", "",
        "", "NULL" },
      { "1.0", ("i"):rep(256), "gate", "", "", "NULL" }, { "1.0", "id", ("d"):rep(256), "", "", "NULL" },
      { "1.0", "id", "gate", ("a"):rep(256), "", "NULL" }, { "1.0", "id", "gate", "", ("i"):rep(256), "NULL" },
      { "1.0", "id", "gate", "", "", ("M"):rep(256) }, { "1.0", "id", "gate", "", "", "PLAIN", ("u"):rep(4097),
        "secret" },
      { "1.0", "id", "gate", "", "", "PLAIN", "ann", ("p"):rep(4097) },
    }
    for n, frames in ipairs(told) do
      local said = is_malformed("service", 1, "peer", "", table.unpack(frames))
      assert.same({ "400", frames[2] }, { said.status, said.id }, n)
    end
    assert.same({ 0, 0, 0 }, { table.unpack({ zap:stats() }, 1, 3) })
  end)

  it("of one of the original's brokers gets its identity back, also with a refusal; others get the name", function()
    local zap = zap_of { users = { ann = "secret" }, null = true }
    local theirs = { "ann", "secret", door = "service", address = "gc-1", identity = "gc-1" }
    assert.same({ "200", "gc-1" }, { status(zap, theirs) })
    theirs.mechanism, theirs[1], theirs[2] = "NULL", nil, nil
    assert.same({ "200", "gc-1" }, { status(zap, theirs) })
    theirs.mechanism, theirs[1], theirs[2] = nil, "ann", "wrong"
    assert.is_nil(answer(zap, theirs))
    local said = due(zap, 50)
    assert.same({ "400", "gc-1" }, { said.status, said.user })
    theirs.domain = "other"
    assert.is_nil(answer(zap, theirs))
    said = due(zap, 1000)
    assert.same({ "400", "gc-1" }, { said.status, said.user })

    assert.same({ "200", "ann" }, { status(zap, { "ann", "secret", door = "service", identity = "admin" }) },
      "a routing id that a peer has chosen is not its name")
    assert.same({ "200", "ann" }, { status(zap, { "ann", "secret", door = "service", address = "", identity = "" }) })
    assert.same({ "200", "ann" }, { status(zap, { "ann", "secret", address = "x", identity = "x" }) },
      "libzmq and brokers of this process get names")
  end)

  it("that was refused is known to the log, without names and secrets", function()
    local zap = zap_of { users = { ann = "secret" } }
    ask(zap, { "ann", "hunter2", address = "10.0.0.1" })
    local text = zap:last_refused()
    assert.equal("PLAIN in domain gate from 10.0.0.1: user or password are wrong", text)
    ask(zap, { "ann", "hunter2", address = ("a"):rep(255), domain = ("d"):rep(255), mechanism = ("m"):rep(255) })
    assert.is_true(#zap:last_refused() < 200)
  end)
end)

describe("a slow password", function()
  local function slow_zap()
    return zap_of { users = { ann = HASH, bob = "quick" } }
  end

  it("is checked by work(), once", function()
    local zap = slow_zap()
    assert.is_false(zap:work())
    assert.is_nil(answer(zap, { "ann", "slow one" }))
    assert.equal(0, zap:next_due())
    assert.is_true(zap:work())
    local said = next_out(zap)
    assert.same({ "200", "ann" }, { said.status, said.user })
    assert.is_false(zap:work())
    assert.is_nil(zap:next_due())
    assert.same({ "200", "ann" }, { status(zap, { "ann", "slow one" }) }, "it was proved right")
    assert.is_nil(answer(zap, { "ann", "slow two" }))
    assert.is_true(zap:work())
    assert.is_nil(next_out(zap))
    assert.equal("400", due(zap, 50).status)
    assert.equal("200", status(zap, { "ann", "slow one" }), "a wrong one does not change what was proved")
  end)

  it("does not hold up a quick one", function()
    local zap = slow_zap()
    ask(zap, { "ann", "slow one" })
    assert.equal("200", status(zap, { "bob", "quick" }))
  end)

  it("that was proved must be proved anew when the policy is another one", function()
    local zap = slow_zap()
    ask(zap, { "ann", "slow one" })
    zap:work()
    next_out(zap)
    assert(zap:set_policy("gate", zapspec.policy { users = { ann = zapspec.hash "another" } }))
    assert.is_nil(answer(zap, { "ann", "slow one" }))
    assert.is_true(zap:work())
    assert.is_nil(next_out(zap))
    assert.equal("400", due(zap, 50).status)
  end)

  it("is checked one at a time for a source that was wrong, while others have their turn", function()
    local zap = slow_zap()
    for n = 1, 3 do ask(zap, { "ann", "wrong " .. n, id = "w" .. n, address = "10.0.0.1" }) end
    ask(zap, { "ann", "slow one", id = "right", address = "10.0.0.2" })
    assert.is_true(zap:work()) -- w1
    assert.is_true(zap:work())
    assert.equal("right", next_out(zap).id)
    assert.is_false(zap:work())
    assert.equal(50, zap:next_due())
    assert.equal("w1", due(zap, 50).id)
    assert.is_true(zap:work()) -- w2, which is held 100 ms
    assert.is_false(zap:work())
    assert.is_nil(due(zap, 149))
    assert.equal("w2", due(zap, 150).id)
    assert.is_true(zap:work())
  end)

  it("waits with 63 others of its source at most, and 255 at all; then nobody decides", function()
    local zap = slow_zap()
    local function fill(address, count)
      for n = 1, count do ask(zap, { "ann", "wrong " .. n, address = address }) end
      assert.is_nil(next_out(zap))
    end
    for n = 1, 3 do
      fill("10.0.0." .. n, 64)
      assert.equal("500", status(zap, { "ann", "slow one", address = "10.0.0." .. n }))
    end
    fill("10.0.0.4", 64)
    assert.equal("500", status(zap, { "ann", "slow one", address = "10.0.0.5" }))
    assert.equal("200", status(zap, { "bob", "quick", address = "10.0.0.1" }))
    local _, _, failed = zap:stats()
    assert.equal(4, failed)
  end)

  it("counts over ipc for the user who asks, whatever process he has", function()
    local zap = slow_zap()
    for n = 1, 64 do ask(zap, { "ann", "wrong", address = ("localhost:1000:%d:%d"):format(n, n) }) end
    assert.equal("500", status(zap, { "ann", "wrong", address = "localhost:1000:1:99" }))
    assert.is_nil(answer(zap, { "ann", "slow one", address = "localhost:1001:1:99" }))
  end)

  it("that waits is decided by what holds when its turn comes", function()
    local function waiting()
      local zap = slow_zap()
      ask(zap, { "ann", "slow one" })
      return zap
    end
    local zap = waiting()
    zap:remove "gate"
    assert.is_true(zap:work())
    assert.is_nil(next_out(zap))
    assert.equal("400", due(zap, 50).status)

    zap = waiting()
    assert(zap:set_policy("gate", zapspec.policy { users = { ann = HASH }, deny = { "127.0.0.1" } }))
    assert.is_true(zap:work())
    assert.is_nil(next_out(zap), "its address is denied by now")

    zap = waiting()
    assert(zap:set_policy("gate", zapspec.policy { users = { ann = "slow one" } }))
    assert.is_true(zap:work())
    assert.equal("200", next_out(zap).status, "the same password, no longer as a hash")

    zap = waiting()
    assert(zap:set_remote("gate", 1))
    assert.is_true(zap:work())
    assert.is_nil(next_out(zap), "somebody else decides by now, who was not asked")
  end)
end)

describe("a refusal", function()
  it("is held back twice as long each time, up to the limit, and what is right is not", function()
    local zap = zap_of({ users = { ann = "secret" } }, 300)
    local now = 0
    for _, held_ms in ipairs { 50, 100, 200, 300, 300 } do
      zapspec.at(now)
      assert.is_nil(answer(zap, { "ann", "wrong" }))
      assert.equal("200", status(zap, { "ann", "secret" }))
      assert.equal(now + held_ms, zap:next_due())
      assert.is_nil(due(zap, now + held_ms - 1))
      assert.equal("400", due(zap, now + held_ms).status)
      now = now + held_ms
    end
    zapspec.at(now)
    assert.is_nil(answer(zap, { "ann", "wrong", address = "10.0.0.9" }))
    assert.equal(now + 50, zap:next_due(), "another source has its own penalty")
  end)

  it("goes out at once when 4096 are held back, and everything is given back in the end", function()
    local zap = zap_of { users = { ann = "secret" } }
    for n = 1, 4096 do assert.is_nil(answer(zap, { "ann", "wrong", address = "a" .. n })) end
    assert.equal("400", status(zap, { "ann", "wrong", address = "b" }))
    zapspec.at(50)
    zap:tick()
    local count = 0
    while next_out(zap) do count = count + 1 end
    assert.equal(4096, count)
    assert.is_nil(zap:next_due())
    for n = 1, 100 do ask(zap, { "ann", "wrong", address = "c" .. n }) end
    zap:close() -- with 100 of them: the sanitizer would tell
  end)

  it("is forgotten after a minute without another one", function()
    local penalty = zapspec.penalty(1000)
    zapspec.at(0)
    assert.same({ 50, 100, 200, 400, 800, 1000, 1000 }, (function()
      local list = {}
      for i = 1, 7 do list[i] = penalty:add "a" end
      return list
    end)())
    zapspec.at(59999)
    assert.equal(1000, penalty:add "a")
    assert.equal(60999, penalty:until_ms "a")
    zapspec.at(59999 + 60000)
    assert.equal(50, penalty:add "a")
    assert.equal(0, penalty:until_ms "b")
    assert.equal(10, zapspec.penalty(10):add "a")
  end)

  it("is remembered of 4096 sources, the last ones", function()
    local penalty = zapspec.penalty(1000)
    zapspec.at(0)
    penalty:add "first"
    penalty:add "second"
    penalty:add "first" -- now "second" was refused longest ago
    for n = 1, 4094 do penalty:add("s" .. n) end
    assert.equal(50, penalty:until_ms "second")
    penalty:add "one more"
    assert.equal(0, penalty:until_ms "second")
    assert.equal(100, penalty:until_ms "first")
    assert.equal(200, penalty:add "first")
    for _ = 1, 5000 do penalty:add "again" end
    assert.equal(50, penalty:until_ms "s4094", "one source takes one place, however often it is refused")
  end)

  it("counts a source without an address, and long ones by their first 64 bytes", function()
    local penalty = zapspec.penalty(1000)
    zapspec.at(0)
    assert.equal(50, penalty:add "")
    assert.equal(100, penalty:add "")
    assert.equal(50, penalty:add(("x"):rep(64) .. "1"))
    assert.equal(100, penalty:add(("x"):rep(64) .. "2"))
  end)
end)

describe("a service elsewhere", function()
  local function remote_zap()
    zapspec.at(0)
    local zap = zapspec.zap(1000, 5000)
    assert(zap:set_remote("gate", 7))
    return zap
  end

  -- What the service is asked.
  local function question(zap, given)
    ask(zap, given)
    return next_out(zap)
  end

  local function reply(zap, id, status_, user, more)
    more = more or {}
    zap:receive("remote", more.number or 7, more.delimiter or "", more.version or "1.0", id, status_, "text",
      user or "",
      more.metadata or "")
    return next_out(zap)
  end

  it("is asked the same, under a number of ours and without the identity", function()
    local zap = remote_zap()
    local asked = question(zap, { "ann", "secret", id = "1", identity = "who", address = "10.0.0.1" })
    assert.same({ "remote", 7 }, { asked.door, asked.number })
    local id = asked.frames[3]
    assert.equal(32, #id)
    assert.is_truthy(id:find "^%x+$")
    assert.same({ "", "1.0", id, "gate", "10.0.0.1", "", "PLAIN", "ann", "secret", n = 9 }, asked.frames)
    local other = question(zap, { "ann", "secret", id = "1" })
    assert.are_not.equal(id, other.frames[3])
    local said = reply(zap, id, "200", "whatever it calls him")
    assert.same({ "inner", "peer", "1", "200", "ann" }, { said.door, said.to, said.id, said.status, said.user })
  end)

  it("names those whom the mechanism does not name", function()
    local zap = remote_zap()
    assert.equal("ann", reply(zap, question(zap, { KEY, mechanism = "CURVE" }).frames[3], "200", "ann").user)
    assert.equal(40, #reply(zap, question(zap, { KEY, mechanism = "CURVE" }).frames[3], "200", "").user)
    assert.equal("x", reply(zap, question(zap, { "x@Y", mechanism = "GSSAPI" }).frames[3], "200", "x").user)
    assert.equal("", reply(zap, question(zap, { "x@Y", mechanism = "GSSAPI" }).frames[3], "200", "").user)
    assert.equal("", reply(zap, question(zap, { mechanism = "NULL" }).frames[3], "200", "anonymous").user,
      "who says nothing of himself has no name")
  end)

  it("does not make another user of a name with a zero", function()
    local zap = remote_zap()
    assert.equal("500", reply(zap, question(zap, { "admin\0x", "p" }).frames[3], "200", "x").status)
    assert.equal("500", reply(zap, question(zap, { KEY, mechanism = "CURVE" }).frames[3], "200", "admin\0x").status)
    assert.equal("500", reply(zap, question(zap, { ("u"):rep(256), "p" }).frames[3], "200", "x").status)
  end)

  it("refuses, and the penalty is ours", function()
    local zap = remote_zap()
    assert.is_nil(reply(zap, question(zap, { "ann", "wrong" }).frames[3], "400"))
    assert.equal("400", due(zap, 50).status)
    assert.same({ 0, 1, 0, 0 }, { zap:stats() })
  end)

  it("that says anything but 200 and 400 lets nobody in", function()
    local zap = remote_zap()
    for n, code in ipairs { "300", "500", "", "20", "2000", "200\0", "OK", ("2"):rep(300) } do
      local said = reply(zap, question(zap, { "ann", "secret" }).frames[3], code)
      assert.same({ "500", "" }, { said.status, said.user }, n)
    end
    assert.same({ 0, 0, 8, 0 }, { zap:stats() })
  end)

  it("that says something else is not heard, and then is late", function()
    local zap = remote_zap()
    local id = question(zap, { "ann", "secret" }).frames[3]
    local wrong = {
      {}, { "" }, { "", "1.0", id }, { "", "1.0", id, "200", "OK", "" }, { "", "1.0", id, "200", "OK", "", "", "" },
      { "x", "1.0", id, "200", "OK", "", "" }, { "", "2.0", id, "200", "OK", "", "" }, { "", "1.0",
        id:upper() .. "x", "200", "OK", "", "" },
      { "", "1.0", ("0"):rep(32), "200", "OK", "", "" }, { "", "1.0", id:sub(2), "200", "OK", "", "" },
      { "", "1.0", id, "200", "OK", ("u"):rep(256), "" },
    }
    for n, frames in ipairs(wrong) do
      zap:receive("remote", 7, table.unpack(frames))
      assert.is_nil(next_out(zap), n)
    end
    zap:receive("remote", 8, "", "1.0", id, "200", "OK", "", "")
    assert.is_nil(next_out(zap), "it is not the one that was asked")
    assert.same({ 0, 0, 0, #wrong + 1 }, { zap:stats() })
    assert.is_nil(due(zap, 4999))
    local said = due(zap, 5000)
    assert.same({ "500", "1" }, { said.status, said.id })
    assert.is_nil(reply(zap, id, "200", "ann"), "too late")
    assert.same({ 0, 0, 1, #wrong + 2 }, { zap:stats() })
  end)

  it("is heard once", function()
    local zap = remote_zap()
    local id = question(zap, { "ann", "secret" }).frames[3]
    assert.equal("200", reply(zap, id, "200").status)
    assert.is_nil(reply(zap, id, "200"))
  end)

  it("does not let in who asked before the domain was removed or decided by somebody else", function()
    local zap = remote_zap()
    local ids = {}
    for i = 1, 3 do ids[i] = question(zap, { "ann", "secret", id = tostring(i) }).frames[3] end
    zap:remove "gate"
    assert.is_nil(reply(zap, ids[1], "200", "ann"))
    assert.equal("400", due(zap, 50).status)
    assert(zap:set_policy("gate", zapspec.policy { null = true }))
    assert.is_nil(reply(zap, ids[2], "200", "ann"))
    assert.equal("400", due(zap, 200).status)
    assert(zap:set_remote("gate", 8))
    assert.is_nil(reply(zap, ids[3], "200", "ann"))
    assert.equal("400", due(zap, 1000).status)
  end)

  it("is asked at most 4096 at once, in any order; then nobody decides", function()
    local zap = remote_zap()
    local ids = {}
    for n = 1, 4096 do ids[n] = question(zap, { "ann", "secret", id = "q" .. n }).frames[3] end
    assert.equal("500", status(zap, { "ann", "secret" }))
    for n = 4096, 1, -1 do
      local said = reply(zap, ids[n], "200")
      assert.same({ "200", "q" .. n }, { said.status, said.id })
    end
    assert.is_nil(zap:next_due())
    for n = 1, 100 do question(zap, { "ann", "secret", id = "r" .. n }) end
    zap:close()
  end)

  it("is known as long as a domain wants it", function()
    local zap = remote_zap()
    assert(zap:set_remote("other", 7))
    assert.is_true(zap:asks(7))
    assert.is_false(zap:asks(8))
    zap:remove "gate"
    assert.is_true(zap:asks(7))
    assert(zap:set_policy("other", zapspec.policy {}))
    assert.is_false(zap:asks(7))
  end)

  it("that the original's brokers ask through us gets their identity to them", function()
    local zap = remote_zap()
    local id = question(zap, { "ann", "secret", door = "service", address = "gc-1", identity = "gc-1" }).frames[3]
    local said = reply(zap, id, "200", "ann")
    assert.same({ "service", "gc-1" }, { said.door, said.user })
  end)
end)

-------------------------------------------------------------------------------------------------
-- The recorded exchanges: every question of the original's brokers, to an engine of ours with their users
-------------------------------------------------------------------------------------------------

local NAME, PASSWORD = "堡垒", "哔哔哔哔哔"

-- Where we say something else, by what the recorder noted; docs/protocol.md, "Deviations", tells why.
local deviations = {
  GSSAPI = { "200", "400" }, -- theirs lets every principal in
}

-- What the recorded services said, by the question's id.
local function recorded_answers(messages)
  local answers = {}
  for _, message in ipairs(messages) do
    local frames = message.frames
    if message.direction == "zap->broker" then answers[frames[3]] = { status = frames[4], user = frames[6] } end
  end
  return answers
end

-- Frames that a broker sends, as it gets them to a ROUTER; our answer, at once or when its penalty is over.
local function replay(zap, message)
  zapspec.at(message.ms)
  zap:tick()
  assert.is_nil(next_out(zap))
  zap:receive("service", 1, "broker", table.unpack(message.frames))
  if not zap:next_due() then return next_out(zap) end
  return due(zap, message.ms + 5000)
end

describe("the recorded questions of the original", function()
  for version in pairs(vectors.dialects) do
    for _, name in ipairs(vectors.names(version)) do
      local messages = name:find "zap" and vectors.read(name) or {}
      local has_questions = false
      for _, message in ipairs(messages) do has_questions = has_questions or message.direction == "broker->zap" end
      if has_questions then
        it(name .. " are answered as its service did", function()
          local zap = zap_of { users = { [NAME] = PASSWORD }, null = true }
          local theirs = recorded_answers(messages)
          for _, message in ipairs(messages) do
            if message.direction == "broker->zap" then
              local frames, note = message.frames, message.note
              local said, recorded = replay(zap, message), theirs[message.frames[3]]
              if recorded then
                local deviation = deviations[frames[7]]
                if deviation then assert.equal(deviation[1], recorded.status, note) end
                assert.equal(deviation and deviation[2] or recorded.status, said and said.status, note)
                assert.equal(frames[3], said.id)
                if version == "0.1.10" and frames[5] == frames[6] then
                  assert.equal(frames[6], said.user, "its broker looks for the identity")
                end
              else
                assert.is_true(said == nil or said.status == "400", note)
              end
            end
          end
        end)
      end
    end
  end

  it("are 41", function()
    local count = 0
    for version in pairs(vectors.dialects) do
      for _, name in ipairs(vectors.names(version)) do
        for _, message in ipairs(name:find "zap" and vectors.read(name) or {}) do
          count = count + (message.direction == "broker->zap" and 1 or 0)
        end
      end
    end
    assert.equal(41, count)
  end)
end)
