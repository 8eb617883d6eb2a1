-- The codecs of gate01 and gate02 against what the original's programs have said to each other: every
-- well-formed message is read, and built again byte for byte.

local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"
local values = require "support.values"
local vectors = require "support.vectors"

-- Files whose messages were made by hand to be wrong; what is well-formed in them counts all the same.
local function is_hostile(name)
  return name:find "malformed" or name:find "robustness" or name:find "worker%-ready%-twice"
    or name:find "worker%-disconnect" or name:find "zap%-null%-broker"
    or name:find "zap%-client%-to%-plain" or name:find "worker%-raw%-request"
end

---What our codec says on purpose in other words than the recording; the reason stands in docs/protocol.md,
---"Deviations".
local function deviation(dialect, message, envelope)
  local last = message.frames[#message.frames]
  if envelope.type == "REQUEST" and dialect == "gate01" and envelope.split < #envelope.payload
    and envelope.payload:sub(1, 1) == "\x90" then
    return "lone keywords"
  end
  if envelope.type == "REQUEST" and dialect == "gate02" and not last:find "^[\x80-\x8f\xde\xdf]" then
    return "absent parameters"
  end
  if envelope.type == "BYE" and dialect == "gate02" and message.leg == "worker_to_broker" and last ~= "" then
    return "DISCONNECT without the empty frame"
  end
end

for version, dialect in pairs(vectors.dialects) do
  describe(dialect .. ", as recorded,", function()
    for _, name in ipairs(vectors.names(version)) do
      it("is read and built again: " .. name, function()
        for _, message in ipairs(vectors.read(name)) do
          if message.leg then
            local envelope, _, why = vectors.parse(dialect, message)
            if not envelope then
              assert.is_truthy(is_hostile(name), ("%s %d is not read: %s"):format(name, message.seq, why))
            else
              local reason = deviation(dialect, message, envelope)
              local again = table.pack(engine.build_as(dialect, message.leg, envelope))
              if not reason and not is_hostile(name) then
                again.n = nil
                assert.same(message.frames, again, ("%s %d"):format(name, message.seq))
              end
            end
          end
        end
      end)
    end

    it("has been built from hundreds of messages", function()
      local count = 0
      for _, name in ipairs(vectors.names(version)) do
        for _, message in ipairs(vectors.read(name)) do
          local envelope = message.leg and not is_hostile(name) and vectors.parse(dialect, message)
          if envelope and not deviation(dialect, message, envelope) then
            local again = { engine.build_as(dialect, message.leg, envelope) }
            if table.concat(again, "|") == table.concat(message.frames, "|") then count = count + 1 end
          end
        end
      end
      assert.is_true(count > 400, count .. " were built again")
    end)

    it("is recognised by the first message of every peer", function()
      for _, name in ipairs(vectors.names(version)) do
        local known = {}
        for _, message in ipairs(vectors.read(name)) do
          local is_reply = message.leg == "worker_to_broker" and message.frames[3] == "\3" -- greeted in another file
          if (message.leg or ""):find "to_broker" and not is_hostile(name) and not known[message.peer]
            and not is_reply then
            known[message.peer] = true
            local found = engine.recognise(message.leg, message.peer, table.unpack(message.frames))
            assert.equal(dialect, found, ("%s %d"):format(name, message.seq))
          end
        end
      end
    end)
  end)
end

describe("a tag", function()
  it("carries a number and a seed, as 16 bytes and as 32 digits", function()
    for _ = 1, 100 do
      local number, seed = math.random(0), math.random(0)
      local tag = engine.tag(number, seed)
      assert.same({ number, seed & (1 << 58) - 1 }, { engine.read_tag(tag) })
      assert.same({ number, seed & (1 << 58) - 1 }, { engine.read_tag(values.hex(tag)) })
      assert.equal(4, tag:byte(7) >> 4) -- a version 4 UUID, by which gate02 is recognised
      assert.equal(2, tag:byte(9) >> 6)
    end
  end)

  it("of others gives some number, always the same", function()
    for _, tag in ipairs { "", "x", "PLAIN", ("z"):rep(32), ("\0"):rep(16), ("f"):rep(32) } do
      local number = engine.read_tag(tag)
      assert.equal(number, (engine.read_tag(tag)))
    end
    assert.is_not.equal(engine.read_tag "a", engine.read_tag "b")
  end)
end)

describe("gate01", function()
  local function request(payload, split)
    return engine.build_as("gate01", "broker_to_worker", {
      type = "REQUEST", route = 7, seed = 9, method = "m", caller = "gc-x", payload = payload, split = split })
  end

  it("is not told maps that its programs cannot read", function()
    for _, value in ipairs { { [5] = 1 }, { { [true] = 1 } }, { a = { b = { [1.5] = 2 } } } } do
      local args = msgpack.pack { msgpack.map(value) }
      assert.same({ nil, "INVALID_ARGUMENT" }, { request(args, #args) })
      local reply = engine.put_result(msgpack.pack(msgpack.map(value)))
      assert.same({ nil, "INVALID_ARGUMENT" }, { engine.build_as("gate01", "broker_to_client", {
        type = "REPLY", tag = "t", service = "S", payload = reply }) })
    end
    local fine = msgpack.pack { msgpack.map { a = { 1, { b = msgpack.null } } } }
    assert.is_truthy(request(fine, #fine))
  end)

  it("gets request ids in 32 digits, and a client's name that is text, whoever calls", function()
    local frames = { engine.build_as("gate01", "broker_to_worker", {
      type = "REQUEST", route = 0x1122334455667788, seed = 3, method = "m", caller = "\0\xff\x01", payload = "\x90",
      split = 1 }) }
    assert.equal("gc-00ff01", frames[4])
    assert.is_truthy(frames[6]:find "^%x+$")
    assert.equal(32, #frames[6])
    assert.equal(0x1122334455667788, (engine.read_tag(frames[6])))
    assert.equal(7, #frames) -- no parameters, no frames
  end)

  it("takes a lone map as keyword arguments", function()
    local map = msgpack.pack { x = 1 }
    local envelope = engine.parse_as("gate01", "client_to_broker", "gc-1", "", "MDPC01", "S", "gc-1", ("a"):rep(32),
      "\xa1m", map)
    assert.equal("\x90" .. map, envelope.payload)
    assert.equal(1, envelope.split)
  end)

  it("says the end of a stream when it fails, for want of another word", function()
    local frames = { engine.build_as("gate01", "broker_to_client", {
      type = "ERROR", in_stream = true, tag = "t", service = "S", caller = "gc-1",
      payload = engine.put_exception("E", "m", "") }) }
    assert.same({ "", "MDPC01", "S", "gc-1", "t", "GateStreamGenerator", "GateStreamEnd" }, frames)
  end)

  it("has no word for credit, cancel and drain", function()
    for _, said in ipairs { { type = "CREDIT" }, { type = "CANCEL" }, { type = "BYE", flags = 2 } } do
      assert.equal(0, select("#", engine.build_as("gate01", "broker_to_worker", said)))
    end
  end)

  it("never gets a stream from the broker's own service", function()
    assert.same({ nil, "INVALID_ARGUMENT" }, { engine.build_as("gate01", "broker_to_client", {
      type = "ITEM", tag = "t", service = "Gate", method = "m", caller = "gc-1", payload = "\x01" }) })
  end)
end)

describe("gate02", function()
  it("is not told keywords that its workers drop, nor containers as keys", function()
    for _, kwargs in ipairs { msgpack.pack { __x = 1 }, "\x81\x90\x01", "\x81\x01\x02", "\x90" } do
      assert.same({ nil, "INVALID_ARGUMENT" }, { engine.build_as("gate02", "broker_to_worker", {
        type = "REQUEST", route = 1, method = "m", caller = "c", payload = "\x90" .. kwargs, split = 1 }) })
    end
  end)

  it("says an error in mid-stream with its triple", function()
    local frames = { engine.build_as("gate02", "broker_to_client", {
      type = "ERROR", in_stream = true, tag = ("t"):rep(16), service = "S",
      payload = engine.put_exception("E", "m", "tb") }) }
    assert.same({ "", "MDPC01", "S", ("t"):rep(16), "GateStreamGenerator", "GateStreamException",
      msgpack.pack { "E", "m", "tb" } }, frames)
    local again = engine.parse_as("gate02", "broker_to_client", nil, table.unpack(frames))
    assert.equal("ERROR", again.type)
    assert.same({ "E", "m", "tb" }, { engine.exception_of(again.payload) })
  end)
end)

describe("mdp", function()
  local function to_client(value)
    return { engine.build_as("mdp", "broker_to_client", {
      type = "REPLY", tag = "S.m", service = "S", method = "m", payload = engine.put_result(msgpack.pack(value)) }) }
  end

  it("takes a name apart at its last dot", function()
    for name, parts in pairs {
      ["S.m"] = { "S", "m" }, echo = { "echo", "call" }, ["a.b.c"] = { "a.b", "c" }, [".x"] = { ".x", "call" },
      ["x."] = { "x.", "call" },
    } do
      local envelope = engine.parse_as("mdp", "client_to_broker", nil, "", "MDPC01", name, "arg")
      assert.same(parts, { envelope.service, envelope.method })
    end
  end)

  it("gives frames as strings, and takes them back", function()
    local envelope = engine.parse_as("mdp", "client_to_broker", nil, "", "MDPC01", "S.m", "a", "", "\xff\0")
    assert.same({ "a", "", "\xff\0" }, (msgpack.unpack(envelope.payload)))
    local frames = { engine.build_as("mdp", "broker_to_worker", {
      type = "REQUEST", route = 1, payload = envelope.payload, split = #envelope.payload }) }
    assert.same({ "a", "", "\xff\0" }, table.move(frames, 6, 8, 1, {}))
  end)

  it("has a frame for texts, numbers, booleans and nil, and one for each of a list", function()
    for expected, value in pairs {
      text = "text", ["5"] = 5, ["-1"] = -1, ["true"] = true, ["1.5"] = 1.5, [""] = msgpack.null,
    } do
      assert.same({ "", "MDPC01", "S.m", expected }, to_client(value))
    end
    assert.same({ "", "MDPC01", "S.m", "a", "2" }, to_client { "a", 2 })
    assert.same({ "", "MDPC01", "S.m", "" }, to_client(msgpack.array {}))
  end)

  it("has none for maps, lists in lists, keywords and streams", function()
    assert.same({ nil, "INVALID_ARGUMENT" }, to_client { a = 1 })
    assert.same({ nil, "INVALID_ARGUMENT" }, to_client { { 1 } })
    assert.same({ nil, "INVALID_ARGUMENT" }, { engine.build_as("mdp", "broker_to_worker", {
      type = "REQUEST", route = 1, payload = "\x90\x81\xa1x\x01", split = 1 }) })
    assert.same({ nil, "INVALID_ARGUMENT" }, { engine.build_as("mdp", "broker_to_client", {
      type = "END", tag = "S.m", service = "S" }) })
  end)

  it("says an error as ERROR, class and message", function()
    assert.same({ "", "MDPC01", "S.m", "ERROR", "NOT_FOUND", "no" }, { engine.build_as("mdp", "broker_to_client", {
      type = "ERROR", tag = "S.m", service = "S", payload = engine.put_exception("NOT_FOUND", "no", "") }) })
  end)
end)
