-- What msgpack makes of bytes from outside: hostile ones, ext types, arguments, random values.
local msgpack = require "gaterpc.msgpack"
local values = require "support.values"

local pack, unpack, null = msgpack.pack, msgpack.unpack, msgpack.null
local bytes, hex = values.bytes, values.hex
local EINVAL, EXHAUSTED = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"

local function packed(value)
  local s, code, text = pack(value)
  assert.is_nil(code, text)
  return hex(s)
end

---What `digits` decode to; skip() must agree about where the value ends.
local function unpacked(digits)
  local s = bytes(digits)
  local value, code, text = unpack(s)
  assert.is_nil(code, text)
  assert.equal(#s + 1, msgpack.skip(s))
  return value
end

---The code that unpack() refuses s with.
local function refused(s)
  local value, code, text = unpack(s)
  assert.is_nil(value)
  assert.is_string(text)
  return code
end

---One whole value for each first byte but c1.
local function sample(first)
  local function body(n) return ("\1"):rep(n) end
  local wide = {
    [0xc0] = "", [0xc2] = "", [0xc3] = "", [0xc4] = "\3abc", [0xc5] = "\0\3abc", [0xc6] = "\0\0\0\3abc",
    [0xc7] = "\3\5abc", [0xc8] = "\0\3\5abc", [0xc9] = "\0\0\0\3\5abc", [0xca] = body(4), [0xcb] = body(8),
    [0xcc] = body(1), [0xcd] = body(2), [0xce] = body(4), [0xcf] = body(8), [0xd0] = body(1),
    [0xd1] = body(2), [0xd2] = body(4), [0xd3] = body(8), [0xd4] = body(2), [0xd5] = body(3),
    [0xd6] = body(5), [0xd7] = body(9), [0xd8] = body(17), [0xd9] = "\3abc", [0xda] = "\0\3abc",
    [0xdb] = "\0\0\0\3abc", [0xdc] = "\0\3\1\2\3", [0xdd] = "\0\0\0\3\1\2\3", [0xde] = "\0\2\1\2\2\3",
    [0xdf] = "\0\0\0\2\1\2\2\3",
  }
  local rest = wide[first]
  if first < 0x80 or first >= 0xe0 then
    rest = ""
  elseif first < 0x90 then
    rest = body((first & 15) * 2)
  elseif first < 0xa0 then
    rest = body(first & 15)
  elseif first < 0xc0 then
    rest = body(first & 31)
  end
  return string.char(first) .. rest
end

describe("msgpack from outside", function()
  describe("hostile bytes", function()
    it("are refused when cut, at every position of every kind of value", function()
      for first = 0, 255 do
        if first ~= 0xc1 then
          local s = sample(first)
          unpacked(hex(s))
          for len = 0, #s - 1 do
            assert.equal(EINVAL, refused(s:sub(1, len)), hex(s:sub(1, len)))
            assert.equal(EINVAL, select(2, msgpack.skip(s:sub(1, len))))
          end
        end
      end
    end)

    it("are refused when the first byte is c1", function()
      for _, digits in ipairs { "c1", "91c1", "81c101", "8101c1", "c100" } do
        assert.equal(EINVAL, refused(bytes(digits)))
        assert.equal(EINVAL, select(2, msgpack.skip(bytes(digits))))
      end
    end)

    it("are refused when something follows the value", function()
      for first = 0, 255 do
        if first ~= 0xc1 then assert.equal(EINVAL, refused(sample(first) .. "\0")) end
      end
      local value, code, text = unpack("\1\2")
      assert.same({ n = 3, nil, EINVAL, "more bytes follow the value" }, table.pack(value, code, text))
    end)

    it("cannot claim what is not there", function()
      for digits, code in pairs {
        ["ddffffffff"] = EXHAUSTED, ["dfffffffff"] = EXHAUSTED, ["dbffffffff"] = EXHAUSTED,
        ["c6ffffffff"] = EXHAUSTED, ["c9ffffffff01"] = EXHAUSTED, ["dd00100001"] = EXHAUSTED,
        ["df00100001"] = EXHAUSTED, ["c602000001"] = EXHAUSTED, ["db02000001"] = EXHAUSTED,
        ["c90200000105"] = EXHAUSTED, ["dd00100000"] = EINVAL, ["df00100000"] = EINVAL,
        ["c602000000"] = EINVAL, ["db02000000"] = EINVAL, ["c90200000005"] = EINVAL,
        ["dcffff"] = EINVAL, ["deffff"] = EINVAL, ["9f"] = EINVAL, ["8f"] = EINVAL,
        ["df00000002 0101 02"] = EINVAL, ["dd00000003 0101"] = EINVAL,
      } do
        assert.equal(code, refused(bytes(digits)), digits)
        assert.equal(code, select(2, msgpack.skip(bytes(digits))), digits)
      end
    end)

    it("cannot nest deeper than 64", function()
      for _, digits in ipairs { "91", "8101", "dc0001", "dd00000001", "de000101", "df0000000101" } do
        local level, innermost = bytes(digits), "\x90"
        assert.is_table((unpack(level:rep(63) .. innermost)))
        assert.is_number((msgpack.skip(level:rep(63) .. innermost)))
        assert.is_table((unpack(level:rep(64) .. "\1")))
        for _, depth in ipairs { 64, 65, 100000 } do
          local s = level:rep(depth) .. innermost
          assert.equal(EXHAUSTED, refused(s))
          assert.equal(EXHAUSTED, select(2, msgpack.skip(s)))
        end
      end
    end)

    it("make no tables for elements that cannot come", function()
      local claims = {
        (bytes "dcffff"):rep(24000), -- each level could have 65535 elements, all together cannot
        (bytes "dd00080000"):rep(60) .. ("\1"):rep(1 << 19),
        (bytes "df0003ffff01"):rep(60) .. ("\1"):rep(1 << 19),
      }
      for _, s in ipairs(claims) do
        collectgarbage()
        collectgarbage "stop"
        local before = collectgarbage "count"
        local _, code = unpack(s)
        local kib = collectgarbage "count" - before
        collectgarbage "restart"
        assert.equal(EINVAL, code)
        assert.is_true(kib < 32 * 1024, kib .. " KiB")
      end
    end)

    it("cannot have keys that a table cannot", function()
      for _, digits in ipairs { "81c001", "81ca7fc0000001", "81cb7ff800000000000001",
        "81cbfff800000000000001", "819001", "818001", "81d4050001", "81d6ff0000000001" } do
        assert.equal(EINVAL, refused(bytes(digits)), digits)
        assert.equal(#bytes(digits) + 1, msgpack.skip(bytes(digits)))
      end
    end)

    it("cannot slow a table down by numbers that collide", function()
      local n = 1 << 14
      local ints, floats = { string.pack(">BI4", 0xdf, n) }, { string.pack(">BI4", 0xdf, 1 << 16) }
      for i = 1, n do ints[i + 1] = string.pack(">Bi8B", 0xd3, i * (n - 1) * (2 * n - 1), 1) end
      for i = 1, 1 << 16 do floats[i + 1] = string.pack(">BdB", 0xcb, 1.5 + i * 2 ^ -52, 1) end
      assert.equal(EXHAUSTED, refused(table.concat(ints)))
      assert.equal(EXHAUSTED, refused(table.concat(floats)))
    end)

    it("may have many numbers as keys that do not collide", function()
      local n = 1 << 16
      for _, stride in ipairs { 1, 1000, 4096, 3600, 86400, -7, 0.001 } do
        local parts = { string.pack(">BI4", 0xdf, n) }
        for i = 1, n do
          local key = i * stride
          parts[i + 1] = math.type(key) == "float" and string.pack(">BdB", 0xcb, key, i & 127)
            or string.pack(">Bi8B", 0xd3, key, i & 127)
        end
        local t = unpack(table.concat(parts))
        assert.is_true(msgpack.is_map(t))
        for i = 1, n do assert(t[i * stride] == i & 127) end
      end
    end)

    it("never raise and never crash, when random [limit 60]", function()
      math.randomseed(7)
      for _ = 1, 30000 do
        local parts = {}
        for i = 1, math.random(1, 40) do
          parts[i] = math.random(4) == 1 and sample(math.random(0x80, 0xbf))
            or string.char(math.random(0, 255))
        end
        local s = table.concat(parts)
        local value, next_pos = unpack(s, 1)
        local skipped = msgpack.skip(s)
        if math.type(next_pos) == "integer" then
          assert.equal(next_pos, skipped)
          assert.is_string((pack(value)))
        elseif skipped == nil then
          assert.is_nil(value)
        end
      end
    end)

    it("never raise and never crash, when damaged", function()
      math.randomseed(8)
      local good = pack {
        a = { 1, 2.5, "text", { b = msgpack.timestamp(1, 1) } },
        [1] = msgpack.ext(3, "abcd"),
        list = { null, true, msgpack.uint64("18446744073709551615"), ("x"):rep(300) },
      }
      for _ = 1, 30000 do
        local at = math.random(#good)
        local s = good:sub(1, at - 1) .. string.char(math.random(0, 255)) .. good:sub(at + 1)
        local value, code = unpack(s)
        if value ~= nil then
          assert.is_string((pack(value)))
        else
          assert.is_true(code == nil or code == EINVAL or code == EXHAUSTED)
        end
      end
    end)
  end)

  describe("unpack with a position", function()
    it("reads one value after the other", function()
      local s = bytes "01a161920203"
      assert.same({ 1, 2 }, { unpack(s, 1) })
      assert.same({ "a", 4 }, { unpack(s, 2) })
      assert.same({ { 2, 3 }, 7 }, { unpack(s, 4) })
      assert.same({ 3, 7 }, { unpack(s, 6) })
      assert.equal(4, msgpack.skip(s, 2))
    end)

    it("tells a nil from a failure", function()
      assert.same({ n = 2, nil, 2 }, table.pack(unpack("\xc0", 1)))
      assert.equal(EINVAL, select(2, unpack("\xc0", 2)))
      assert.same({ n = 1, nil }, table.pack(unpack("\xc0")))
    end)

    it("raises when the position or the type is wrong", function()
      for _, pos in ipairs { 0, -1, 3, math.maxinteger, math.mininteger, 1.5, "x" } do
        assert.has_error(function() unpack("\1", pos) end)
        assert.has_error(function() msgpack.skip("\1", pos) end)
      end
      assert.has_error(function() unpack(1) end)
      assert.has_error(function() unpack() end)
      assert.has_error(function() pack() end)
    end)
  end)

  describe("ext types", function()
    local heads = { [0] = "c700", [1] = "d4", [2] = "d5", [3] = "c703", [4] = "d6",
      [8] = "d7", [15] = "c70f", [16] = "d8", [17] = "c711", [255] = "c7ff",
      [256] = "c80100", [65535] = "c8ffff", [65536] = "c900010000" }
    for len, head in pairs(heads) do
      it(("carry %d bytes behind the shortest head"):format(len), function()
        local data = ("\xfe"):rep(len)
        for type, code in pairs { [5] = "05", [127] = "7f", [-128] = "80", [-2] = "fe" } do
          local s = pack(msgpack.ext(type, data))
          assert.is_true(s == bytes(head .. code) .. data)
          local back = unpack(s)
          assert.equal(type, back.type)
          assert.is_true(back.data == data)
          assert.is_true(pack(back) == s)
        end
      end)
    end

    it("print their type and size", function()
      assert.equal("gaterpc.ext(5, 3 bytes)", tostring(msgpack.ext(5, "abc")))
      assert.equal("gaterpc.ext", getmetatable(msgpack.ext(5, "abc")).__name)
    end)

    it("are refused when spoiled", function()
      for _, wrong in ipairs { { 128, "" }, { -129, "" }, { 1.5, "" }, { 1, 5 }, { 1 } } do
        assert.has_error(function() msgpack.ext(wrong[1], wrong[2]) end)
      end
      for field, value in pairs { type = 128, data = 5 } do
        local ext = msgpack.ext(1, "")
        ext[field] = value
        assert.equal("a gaterpc.ext at [1] needs a type from -128 to 127 and a string",
          select(3, pack { ext }))
        ext[field] = nil
        assert.equal(EINVAL, select(2, pack(ext)))
      end
    end)
  end)

  describe("timestamps", function()
    local forms = {
      { 0, 0, "d6ff00000000" }, { 1, 0, "d6ff00000001" }, { 4294967295, 0, "d6ffffffffff" },
      { 4294967296, 0, "d7ff0000000100000000" }, { 0, 1, "d7ff0000000400000000" },
      { 17179869183, 999999999, "d7ffee6b27ffffffffff" }, { 1, 999999999, "d7ffee6b27fc00000001" },
      { 17179869184, 0, "c70cff000000000000000400000000" }, { -1, 0, "c70cff00000000ffffffffffffffff" },
      { -1, 999999999, "c70cff3b9ac9ffffffffffffffffff" },
      { math.mininteger, 1, "c70cff000000018000000000000000" },
      { math.maxinteger, 0, "c70cff000000007fffffffffffffff" },
    }
    for _, form in ipairs(forms) do
      it(("pack %d s and %d ns in the shortest of three forms"):format(form[1], form[2]), function()
        assert.equal(form[3], packed(msgpack.timestamp(form[1], form[2])))
        local back = unpacked(form[3])
        assert.equal(form[1], back.seconds)
        assert.equal(form[2], back.nanoseconds)
        assert.equal("gaterpc.timestamp", getmetatable(back).__name)
        assert.equal(form[3], packed(back))
      end)
    end

    it("are read in longer forms than needed", function()
      assert.equal(5, unpacked("d7ff0000000000000005").seconds)
      assert.equal(5, unpacked("c70cff000000000000000000000005").seconds)
      assert.equal(5, unpacked("c704ff00000005").seconds)
    end)

    it("are refused with other lengths, or a billion nanoseconds", function()
      for _, digits in ipairs { "d4ff00", "d5ff0000", "c700ff", "c705ff0000000000",
        "c70bff" .. ("00"):rep(11), "c70dff" .. ("00"):rep(13), "d8ff" .. ("00"):rep(16),
        "d7ffee6b280000000000", "d7ffffffffffffffffff",
        "c70cff3b9aca000000000000000000" } do
        assert.equal(EINVAL, refused(bytes(digits)), digits)
      end
    end)

    it("print as ISO 8601", function()
      assert.equal("1970-01-01T00:00:00.000000000Z", tostring(msgpack.timestamp(0)))
      assert.equal("1969-12-31T23:59:59.500000000Z", tostring(msgpack.timestamp(-1, 500000000)))
      assert.equal("2026-11-24T03:21:54.000000001Z", tostring(msgpack.timestamp(1795490514, 1)))
      assert.equal("gaterpc.timestamp(9223372036854775807, 0)", tostring(msgpack.timestamp(math.maxinteger)))
    end)

    it("are refused when spoiled", function()
      for _, wrong in ipairs { { 1.5 }, { 0, -1 }, { 0, 1000000000 }, {}, { "x" } } do
        assert.has_error(function() msgpack.timestamp(wrong[1], wrong[2]) end)
      end
      for _, field in ipairs { "seconds", "nanoseconds" } do
        for _, value in ipairs { 1.0, "1", math.mininteger } do
          local stamp = msgpack.timestamp(0)
          stamp[field] = value
          if not (field == "seconds" and value == math.mininteger) then
            assert.equal(EINVAL, select(2, pack(stamp)))
          end
        end
      end
    end)
  end)

  describe("arguments", function()
    local function args(...)
      local s, split, text = msgpack.pack_args(...)
      assert.is_nil(text)
      return hex(s), split
    end

    it("are an array", function()
      assert.same({ "90", 1 }, { args() })
      assert.same({ "91c0", 2 }, { args(nil) })
      assert.same({ "9301c0c0", 4 }, { args(1, nil, nil) })
      assert.same({ "9181a16101", 5 }, { args { a = 1 } })
    end)

    it("have keyword arguments behind the array", function()
      assert.same({ "910181a16102", 2 }, { args(1, msgpack.kwargs { a = 2 }) })
      assert.same({ "9081a16102", 1 }, { args(msgpack.kwargs { a = 2 }) })
      assert.same({ "9080", 1 }, { args(msgpack.kwargs()) })
      assert.same({ "9281a1610201", 6 }, { args(msgpack.kwargs { a = 2 }, 1) }) -- not last: a map
      assert.equal("81a16102", packed(msgpack.kwargs { a = 2 }))
    end)

    it("come back as they were, with nil as nil", function()
      local kwargs = msgpack.kwargs { a = { null } }
      local got = table.pack(msgpack.unpack_args(msgpack.pack_args(1, nil, { null }, nil, kwargs)))
      assert.same({ n = 6, true, 1, nil, { null }, nil, { a = { null } } }, got)
      assert.is_true(msgpack.is_kwargs(got[6]))
      assert.is_false(msgpack.is_kwargs(got[4]))
      assert.same({ true }, { msgpack.unpack_args(bytes "9080", 1) }) -- empty ones are none
      assert.same({ true }, { msgpack.unpack_args(bytes "90", 1) })
    end)

    it("are at most 250", function()
      local most = {}
      for i = 1, 250 do most[i] = i end
      local s, split = msgpack.pack_args(table.unpack(most))
      assert.equal(251, select("#", msgpack.unpack_args(s, split)))
      most[251] = 251
      assert.same({ nil, EXHAUSTED, "a call has more than 250 arguments" },
        { msgpack.pack_args(table.unpack(most)) })
      assert.equal(EXHAUSTED, select(2, msgpack.unpack_args(bytes "dc00fb" .. ("\1"):rep(251), 254)))
    end)

    it("are one level of the depth", function()
      local deepest = {}
      for _ = 1, 62 do deepest = { deepest } end
      local deeper = { deepest }
      local s, split = msgpack.pack_args(deepest)
      assert.is_true((msgpack.unpack_args(s, split)))
      assert.is_number((msgpack.skip(s)))
      assert.equal(EXHAUSTED, select(2, msgpack.pack_args(deeper)))
      s = pack(deeper)
      assert.equal(EXHAUSTED, select(2, msgpack.unpack_args("\x91" .. s, #s + 1)))
    end)

    it("are named when they cannot be packed", function()
      local function why(...) return (select(3, msgpack.pack_args(...))) end
      assert.equal("a function at argument 2 cannot be packed", why(1, print))
      assert.equal("a function at argument 1.x[2] cannot be packed", why { x = { 1, print } })
      assert.equal("a function at kwargs.x cannot be packed", why(1, msgpack.kwargs { x = print }))
      assert.equal("a gaterpc.kwargs at kwargs has a key that is not a string", why(msgpack.kwargs { 1 }))
    end)

    it("are refused when the parts are not one array and one map of names", function()
      for digits, split in pairs { ["01"] = 1, ["80"] = 1, [""] = 0, ["91"] = 1, ["9000"] = 2, ["9090"] = 1,
        ["90c0"] = 1, ["908000"] = 1, ["9081"] = 1, ["90810101"] = 1, ["9081c001"] = 1, ["9180"] = 0,
        ["9101"] = 1, ["9082a16101c301"] = 1 } do
        local ok, code, text = msgpack.unpack_args(bytes(digits), split)
        assert.same({ nil, EINVAL }, { ok, code }, digits)
        assert.is_string(text)
      end
      assert.has_error(function() msgpack.unpack_args("\x90", 2) end)
      assert.has_error(function() msgpack.unpack_args("\x90", -1) end)
    end)
  end)

  describe("random values", function()
    local make

    local function make_table(depth)
      local t, n = {}, math.random(0, 6)
      if math.random(2) == 1 then
        for i = 1, n do t[i] = make(depth - 1) end
        return t
      end
      for _ = 1, n do
        local key = make(0)
        if type(key) ~= "userdata" and key == key then t[key] = make(depth - 1) end
      end
      return msgpack.map(t)
    end

    local leaves = {
      function() return math.random(0) end,
      function() return math.random(-200, 200) end,
      function() return math.random(0) >> math.random(0, 63) end,
      function() return math.random() * 10 ^ math.random(-300, 300) end,
      function() return math.random(2) == 1 end,
      function() return null end,
      function() return ("é"):rep(math.random(0, 40)) end,
      function()
        local octets = {}
        for i = 1, math.random(0, 40) do octets[i] = string.char(math.random(0, 255)) end
        return table.concat(octets)
      end,
      function() return msgpack.uint64("9223372036854775" .. math.random(808, 999)) end,
    }

    function make(depth)
      if depth > 0 and math.random(3) == 1 then return make_table(depth) end
      return leaves[math.random(#leaves)]()
    end

    local function is_same(a, b)
      if type(a) ~= "table" or type(b) ~= "table" then return a == b and math.type(a) == math.type(b) end
      if msgpack.is_map(a) ~= msgpack.is_map(b) then return false end
      for key, value in pairs(a) do
        if not is_same(value, b[key]) then return false end
      end
      for key in pairs(b) do
        if a[key] == nil then return false end
      end
      return true
    end

    it("come back exactly", function()
      local seed = 20261124
      math.randomseed(seed)
      for round = 1, 5000 do
        local value = { make(6) } -- in a table, where nil stays null
        local s, code, text = pack(value)
        assert(s, code, text)
        local back, failed = unpack(s)
        assert.is_nil(failed)
        assert.is_true(is_same(value, back), "round " .. round .. " of seed " .. seed .. ": " .. hex(s))
        assert.equal(#s, #pack(back))
        assert.equal(#s + 1, msgpack.skip(s))
      end
    end)
  end)
end)
