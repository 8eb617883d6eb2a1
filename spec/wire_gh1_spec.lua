local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"
local goldens = require "fixtures.gh1"
local bytes = require "support.values".bytes

local INVALID, EXHAUSTED = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
local DETACHED, BIGGEST_INLINE = 1, 16 * 1024

local function frames_of(golden)
  local frames = {}
  for i, digits in ipairs(golden.frames) do frames[i] = bytes(digits) end
  return table.unpack(frames)
end

local function full(envelope)
  local all = {
    flags = 0, status = 0, id = 0, route = 0, deadline_ms = 0, credit = 0, window = 0, split = 0, count = 0,
    service = "", method = "", payload = "",
  }
  for name, value in pairs(envelope) do all[name] = value end
  return all
end

---The frame with the byte at `offset`, from 0, replaced.
local function with_byte(frame, offset, byte)
  return frame:sub(1, offset) .. string.char(byte & 0xff) .. frame:sub(offset + 2)
end

local function assert_refused(...)
  local envelope, code = engine.parse(...)
  assert.is_nil(envelope)
  assert.equal(INVALID, code)
end

describe("gh1", function()
  for _, golden in ipairs(goldens) do
    local what = golden.what or golden.envelope.type
    describe(what, function()
      local head, rest = frames_of(golden)

      it("is built as the protocol says", function()
        assert.same({ head, rest }, { engine.build(golden.envelope) })
      end)

      it("is built the same when the payload's memory is given away", function()
        local given = full(golden.envelope)
        given.take = true
        assert.same({ head, rest }, { engine.build(given) })
      end)

      it("is read as the protocol says", function()
        assert.same(full(golden.envelope), engine.parse(head, rest))
        assert.equal("gh1", engine.recognise("client_to_broker", "id", head, rest))
      end)

      it("is refused at every truncation of its frames", function()
        for len = 0, #head - 1 do assert_refused(head:sub(1, len), rest) end
        if not rest then return end
        for _, len in ipairs { 0, 1, #rest - 1 } do assert_refused(head, rest:sub(1, len)) end
      end)

      it("is refused when a frame is longer than it says", function()
        assert_refused(head .. "\0", rest)
        if rest then assert_refused(head, rest .. "\0") end
      end)

      it("is refused with any wrong length of a name or the payload", function()
        for _, offset in ipairs { 4, 5 } do
          for len = 0, 255 do
            if len ~= head:byte(offset + 1) then assert_refused(with_byte(head, offset, len), rest) end
          end
        end
        for offset = 44, 47 do
          for bit = 0, 7 do
            assert_refused(with_byte(head, offset, head:byte(offset + 1) ~ 1 << bit), rest)
          end
        end
      end)

      it("is refused with a frame more or less", function()
        if rest then
          assert_refused(head, rest, "")
          assert_refused(head)
          assert_refused(rest)
        else
          assert_refused(head, "")
          assert_refused()
        end
      end)

      it("is refused when the mark of a payload of its own is wrong", function()
        assert_refused(with_byte(head, 3, head:byte(4) ~ DETACHED), rest)
      end)
    end)
  end

  local request = goldens[3]
  local heartbeat = bytes(goldens[10].frames[1])

  it("has a fixture for each type", function()
    local seen = {}
    for _, golden in ipairs(goldens) do seen[golden.envelope.type] = true end
    for number = 1, 12 do assert.is_true(seen[engine.type_name(number)]) end
  end)

  it("refuses another magic, version or type", function()
    local types = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 }
    for offset, good in pairs { [0] = { 0x47 }, [1] = { 1 }, [2] = types } do
      local is_good = {}
      for _, value in ipairs(good) do is_good[value] = true end
      for value = 0, 255 do
        local changed = with_byte(heartbeat, offset, value)
        if is_good[value] then
          assert.is_table(engine.parse(changed))
        else
          assert_refused(changed)
        end
      end
    end
  end)

  it("refuses a request whose keywords begin behind its payload", function()
    local envelope = { type = "REQUEST", id = 1, service = "s", method = "m", payload = "\x90" }
    envelope.split = 1
    assert.equal(1, engine.parse(engine.build(envelope)).split)
    envelope.split = 2
    assert_refused(engine.build(envelope))
    envelope.payload, envelope.split = ("x"):rep(BIGGEST_INLINE + 1), BIGGEST_INLINE + 1
    assert.is_table(engine.parse(engine.build(envelope)))
    envelope.split = BIGGEST_INLINE + 2
    assert_refused(engine.build(envelope))
  end)

  it("lets the number of an item be larger than its payload", function()
    assert.equal(1 << 31, engine.parse(engine.build { type = "ITEM", split = 1 << 31, count = 1 }).split)
  end)

  for _, take in ipairs { false, true } do
    local how = take and "given" or "copied"
    it("puts a payload above 16 KiB into a frame of its own, " .. how, function()
      local function build(len)
        return engine.build { type = "REPLY", route = 1, service = "s", method = "m", take = take,
          payload = ("x"):rep(len) }
      end
      local head, rest = build(BIGGEST_INLINE)
      assert.equal(48 + 2 + BIGGEST_INLINE, #head)
      assert.is_nil(rest)
      head, rest = build(BIGGEST_INLINE + 1)
      assert.equal(48 + 2, #head)
      assert.equal(("x"):rep(BIGGEST_INLINE + 1), rest)
      assert.equal(DETACHED, engine.parse(head, rest).flags)
      assert.equal(rest, engine.parse(head, rest).payload)
    end)
  end

  it("reads a small payload in a frame of its own too", function()
    local head = engine.build { type = "REPLY", payload = "abc" }
    head = with_byte(head:sub(1, 48), 3, DETACHED)
    assert.equal("abc", engine.parse(head, "abc").payload)
    head = with_byte(head, 47, 0)
    assert.equal("", engine.parse(head, "").payload)
  end)

  it("never marks a payload as detached because the envelope says so", function()
    local head, rest = engine.build { type = "REPLY", flags = DETACHED | 2, payload = "abc" }
    assert.is_nil(rest)
    assert.equal(2, engine.parse(head).flags)
  end)

  it("takes names up to 255 bytes", function()
    local long = ("n"):rep(255)
    local envelope = { type = "REQUEST", id = 1, service = long, method = long, payload = "\x90" }
    assert.same(full(envelope), engine.parse(engine.build(envelope)))
    for _, name in ipairs { "service", "method" } do
      envelope[name] = long .. "n"
      assert.same({ nil, INVALID }, { engine.build(envelope) })
      envelope[name] = long
    end
  end)

  it("refuses a message that was cut at 64 frames", function()
    local many = {}
    for i = 1, 65 do many[i] = heartbeat end
    assert_refused(table.unpack(many))
  end)

  it("refuses bytes that are no message", function()
    assert_refused()
    assert_refused("")
    assert_refused("G")
    assert_refused(("\0"):rep(48))
    assert_refused(("G"):rep(1000))
  end)

  it("writes status, id, route and deadline for the next hop and leaves the rest alone", function()
    local hop = { type = "END", status = 0x0a0b, id = 0x2122232425262728, route = 0x3132333435363738,
      deadline_ms = 0x41424344, credit = 9, window = 9, split = 9, count = 9, service = "x", payload = "y" }
    local expected = full(request.envelope)
    for _, name in ipairs { "status", "id", "route", "deadline_ms" } do expected[name] = hop[name] end
    assert.same(expected, engine.parse(engine.readdress(hop, frames_of(request))))

    local detached = goldens[13]
    expected = full(detached.envelope)
    for _, name in ipairs { "status", "id", "route", "deadline_ms" } do expected[name] = hop[name] end
    assert.same(expected, engine.parse(engine.readdress(hop, frames_of(detached))))
  end)

  it("reads what it built, whatever the numbers", function()
    local random = math.random
    for _ = 1, 2000 do
      local payload = ("p"):rep(random(10) == 1 and random(16000, 17000) or random(0, 50))
      local envelope = {
        type = engine.type_name(random(12)), flags = random(0, 127) * 2, status = random(0, 0xffff),
        id = random(0), route = random(0), deadline_ms = random(0, 0xffffffff),
        credit = random(0, 0xffffffff), window = random(0, 0xffffffff), split = random(0, #payload),
        count = random(0, 0xffffffff),
        service = ("s"):rep(random(0, 255)), method = ("m"):rep(random(0, 255)), payload = payload,
      }
      local got = engine.parse(engine.build(envelope))
      if #payload > BIGGEST_INLINE then envelope.flags = envelope.flags | DETACHED end
      assert.same(envelope, got)
    end
  end)
end)

describe("a name of a service or method", function()
  it("has 1 to 255 bytes", function()
    assert.is_false(engine.is_name "")
    assert.is_true(engine.is_name "a")
    assert.is_true(engine.is_name(("a"):rep(255)))
    assert.is_false(engine.is_name(("a"):rep(256)))
  end)

  it("has neither spaces nor control characters", function()
    for byte = 0, 0x20 do assert.is_false(engine.is_name("a" .. string.char(byte))) end
    for byte = 0x21, 0x7e do assert.is_true(engine.is_name(string.char(byte) .. "a")) end
    assert.is_false(engine.is_name "a\x7f")
  end)

  it("is UTF-8", function()
    assert.is_true(engine.is_name "größe")
    assert.is_true(engine.is_name "計算")
    assert.is_false(engine.is_name "a\xff")
    assert.is_false(engine.is_name "a\xc3")
    assert.is_false(engine.is_name "\xed\xa0\x80") -- a surrogate
  end)
end)

describe("a result envelope", function()
  it("holds a result and no exception", function()
    local payload = engine.put_result(msgpack.pack { 1, "two" })
    assert.same({ result = { 1, "two" }, exception = msgpack.null }, (msgpack.unpack(payload)))
    local result, exception = engine.get_result(payload)
    assert.same({ 1, "two" }, (msgpack.unpack(result)))
    assert.equal("\xc0", exception)
  end)

  it("holds an exception and no result", function()
    for _, len in ipairs { 0, 31, 32, 255, 256, 65535, 65536 } do -- each way to say how long a str is
      local class, text, trace = ("c"):rep(len), ("m"):rep(len + 1), "t"
      local payload = engine.put_exception(class, text, trace)
      assert.same({ result = msgpack.null, exception = { class, text, trace } }, (msgpack.unpack(payload)))
      local result, exception = engine.get_result(payload)
      assert.equal("\xc0", result)
      assert.same({ class, text, trace }, (msgpack.unpack(exception)))
    end
  end)

  it("may have its keys in any order, and others", function()
    local result, exception = engine.get_result "\x83\xa1x\x01\xa9exception\x02\xa6result\x91\x03"
    assert.equal("\x91\x03", result)
    assert.equal("\x02", exception)
  end)

  it("may leave its keys out", function()
    assert.same({ "", "" }, { engine.get_result "\x80" })
  end)

  it("is refused when it is no map, has other keys than strings, or ends early or late", function()
    for _, payload in ipairs { "", "\x90", "\xc0", "\x81\x01\x02", "\x81\xa6result", "\x82\xa6result\x01",
      "\x80\x80", "\x81\xa6result\xc1" } do
      assert.same({ nil, INVALID }, { engine.get_result(payload) })
    end
  end)

  it("is refused beyond the limits for values", function()
    local deep = ("\x91"):rep(64)
    assert.is_string((engine.get_result("\x81\xa6result" .. deep .. "\xc0")))
    assert.same({ nil, EXHAUSTED }, { engine.get_result("\x81\xa6result\x91" .. deep .. "\xc0") })
  end)
end)

describe("the example of docs/protocol.md", function()
  local function blocks()
    local file <close> = assert(io.open "docs/protocol.md")
    local text = file:read("a"):match "## An example(.*)"
    local found = {}
    for block in text:gmatch "```\n(.-)```" do
      local digits = {}
      for line in block:gmatch "[^\n]+" do digits[#digits + 1] = line:match "^[%x ]+" :gsub("   .*", "") end
      found[#found + 1] = bytes(table.concat(digits))
    end
    return table.unpack(found)
  end

  it("is what the codec reads", function()
    local request, reply = blocks()
    local envelope = engine.parse(request)
    assert.equal("REQUEST", envelope.type)
    assert.same({ "Math", "add", 1, 60000, 1024, 1 << 20, 3 }, { envelope.service, envelope.method, envelope.id,
      envelope.deadline_ms, envelope.credit, envelope.window, envelope.split })
    assert.same({ true, 1, 2 }, { msgpack.unpack_args(envelope.payload, envelope.split) })
    envelope = engine.parse(reply)
    assert.equal("REPLY", envelope.type)
    assert.same({ result = 3, exception = msgpack.null }, (msgpack.unpack(envelope.payload)))
  end)
end)
