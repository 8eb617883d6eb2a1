local msgpack = require "gaterpc.msgpack"
local values = require "support.values"

local pack, unpack, null = msgpack.pack, msgpack.unpack, msgpack.null
local bytes, hex, nest = values.bytes, values.hex, values.nest
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

---The reason why a value is not packed, after a check of the code.
local function reason(expected_code, value)
  local s, code, text = pack(value)
  assert.is_true(s == nil) -- is_nil() would print all of it
  assert.equal(expected_code, code)
  return text
end

describe("msgpack", function()
  describe("numbers", function()
    local shortest = { -- as the format's specification says, byte by byte
      { 0, "00" }, { 1, "01" }, { 127, "7f" }, { 128, "cc80" }, { 255, "ccff" }, { 256, "cd0100" },
      { 65535, "cdffff" }, { 65536, "ce00010000" }, { 4294967295, "ceffffffff" },
      { 4294967296, "cf0000000100000000" }, { math.maxinteger, "cf7fffffffffffffff" },
      { -1, "ff" }, { -32, "e0" }, { -33, "d0df" }, { -128, "d080" }, { -129, "d1ff7f" },
      { -32768, "d18000" }, { -32769, "d2ffff7fff" }, { -2147483648, "d280000000" },
      { -2147483649, "d3ffffffff7fffffff" }, { math.mininteger, "d38000000000000000" },
    }
    for _, case in ipairs(shortest) do
      it(("packs the integer %d in its shortest form"):format(case[1]), function()
        assert.equal(case[2], packed(case[1]))
        assert.equal(case[1], unpacked(case[2]))
        assert.equal("integer", math.type(unpacked(case[2])))
      end)
    end

    it("reads integers of every width, also longer ones than needed", function()
      for digits, value in pairs {
        ["cc00"] = 0, ["cd0001"] = 1, ["ce00000002"] = 2, ["cf0000000000000003"] = 3,
        ["d0ff"] = -1, ["d1fffe"] = -2, ["d2fffffffd"] = -3, ["d3fffffffffffffffc"] = -4,
        ["d005"] = 5, ["d17fff"] = 32767, ["d27fffffff"] = 2147483647,
        ["d37fffffffffffffff"] = math.maxinteger,
      } do
        assert.equal(value, unpacked(digits))
      end
    end)

    it("packs floats as float 64, whatever their value", function()
      assert.equal("cb0000000000000000", packed(0.0))
      assert.equal("cb8000000000000000", packed(-0.0))
      assert.equal("cb3ff0000000000000", packed(1.0))
      assert.equal("cb3ff199999999999a", packed(1.1))
      assert.equal("cb7ff0000000000000", packed(math.huge))
      assert.equal("cbfff0000000000000", packed(-math.huge))
      assert.equal("cb7fefffffffffffff", packed(1.7976931348623157e308))
      assert.equal("cb0000000000000001", packed(4.9406564584124654e-324))
    end)

    it("keeps a float a float", function()
      assert.equal("float", math.type(unpacked "cb4008000000000000"))
      assert.equal("float", math.type(unpacked "ca40400000"))
      assert.equal(3.0, unpacked "ca40400000")
      assert.equal(-math.huge, 1 / unpacked "cb8000000000000000")
      assert.equal(-math.huge, 1 / unpacked "ca80000000")
    end)

    it("carries NaN as a value", function()
      local nan = unpack(pack(0 / 0))
      assert.is_true(nan ~= nan)
      nan = unpacked "ca7fc00000"
      assert.is_true(nan ~= nan)
    end)
  end)

  describe("uint64", function()
    local uint64 = msgpack.uint64

    it("carries integers above 2^63-1 exactly", function()
      for digits, text in pairs {
        ["cf8000000000000000"] = "9223372036854775808",
        ["cfffffffffffffffff"] = "18446744073709551615",
      } do
        assert.equal("userdata", type(unpacked(digits)))
        assert.equal(text, tostring(unpacked(digits)))
        assert.equal(digits, packed(uint64(text)))
        assert.equal(digits, packed(unpacked(digits)))
        assert.equal(uint64(text), unpacked(digits))
      end
    end)

    it("packs small ones as the integers that they are", function()
      assert.equal("00", packed(uint64(0)))
      assert.equal("cc80", packed(uint64("128")))
      assert.equal("cf7fffffffffffffff", packed(uint64(math.maxinteger)))
      assert.equal(math.maxinteger, unpacked "cf7fffffffffffffff")
    end)

    it("compares with its like and with integers", function()
      local big, bigger = uint64("9223372036854775808"), uint64("18446744073709551615")
      assert.is_true(big < bigger and big <= bigger and bigger > big)
      assert.is_false(bigger < big or bigger <= big)
      assert.is_true(big <= uint64("9223372036854775808"))
      assert.is_true(big > math.maxinteger and big > -1 and -1 < big and math.maxinteger <= big)
      assert.is_true(uint64(5) < 6 and 5 <= uint64(5))
      assert.is_false(big == bigger)
      assert.is_false(uint64(5) == io.stdout)
      assert.has_error(function() return big < "x" end)
      assert.has_error(function() return big < 1.5 end)
    end)

    it("can be a key, and says where something below it fails", function()
      local t = unpacked "81cfffffffffffffffff01"
      local key, value = next(t)
      assert.equal("18446744073709551615", tostring(key))
      assert.equal(1, value)
      assert.equal("81cfffffffffffffffff01", packed(t))
      assert.equal("a function at [?] cannot be packed", reason(EINVAL, { [key] = print }))
    end)

    it("is made of nothing but unsigned integers", function()
      for _, wrong in ipairs { "", "-1", "1.0", "0x1", " 1", "18446744073709551616", "99999999999999999999",
        "184467440737095516150", -1, 1.5, {}, "1\0" } do
        assert.has_error(function() uint64(wrong) end)
      end
      assert.has_error(function() uint64() end)
      assert.has_error(function() uint64(io.stdout) end)
      assert.equal("7", tostring(uint64(uint64(7))))
      assert.equal("1", tostring(uint64("0000000000000000000000000001")))
    end)

    it("is the only userdata that can be packed", function()
      assert.equal("a userdata cannot be packed", reason(EINVAL, io.stdout))
    end)
  end)

  describe("strings", function()
    local function str_head(n)
      return n < 32 and ("%02x"):format(0xa0 + n) or n < 256 and ("d9%02x"):format(n)
        or n < 65536 and ("da%04x"):format(n) or ("db%08x"):format(n)
    end
    local function bin_head(n)
      return n < 256 and ("c4%02x"):format(n) or n < 65536 and ("c5%04x"):format(n) or ("c6%08x"):format(n)
    end

    for _, n in ipairs { 0, 1, 31, 32, 255, 256, 65535, 65536 } do
      it(("packs %d bytes with the shortest head"):format(n), function()
        local text = ("x"):rep(n)
        assert.is_true(pack(text) == bytes(str_head(n)) .. text)
        assert.is_true(pack(msgpack.bin(text)) == bytes(bin_head(n)) .. text)
        assert.is_true(unpack(pack(text)) == text)
        assert.is_true(unpack(pack(msgpack.bin(text))) == text)
        if n > 0 then
          local octets = ("\xff"):rep(n)
          assert.is_true(pack(octets) == bytes(bin_head(n)) .. octets)
          assert.is_true(pack(msgpack.str(octets)) == bytes(str_head(n)) .. octets)
          assert.is_true(unpack(pack(octets)) == octets)
        end
      end)
    end

    it("keeps zero bytes", function()
      assert.equal("a3610062", packed "a\0b")
      assert.equal("a\0b", unpacked "a3610062")
    end)

    it("shows what is in a wrapper", function()
      assert.equal("abc", tostring(msgpack.bin "abc"))
      assert.equal("abc", tostring(msgpack.str "abc"))
      assert.has_error(function() msgpack.bin(1) end)
      assert.has_error(function() msgpack.str() end)
    end)

    it("refuses a wrapper that was spoiled", function()
      local bin = msgpack.bin "x"
      bin[1] = 5
      assert.equal("a gaterpc.bin at .a must hold a string", reason(EINVAL, { a = bin }))
    end)

    local utf8_cases = {
      { "24", true }, { "c2a3", true }, { "d0b6", true }, { "e282ac", true }, { "ed9fbf", true },
      { "ee8080", true }, { "efbfbf", true }, { "f0908080", true }, { "f48fbfbf", true }, { "c280", true },
      { "dfbf", true }, { "e0a080", true }, { "f0909080", true }, { "00", true }, { "7f", true },
      { "80", false }, { "bf", false }, { "c0", false }, { "c080", false }, { "c1bf", false }, -- overlong
      { "e08080", false }, { "e09fbf", false }, { "f0808080", false }, { "f08fbfbf", false },
      { "eda080", false }, { "edbfbf", false }, { "edafbfedbfbf", false }, -- surrogates
      { "f4908080", false }, { "f5808080", false }, { "f8888080", false }, { "ff", false }, { "fe", false },
      { "c2", false }, { "e282", false }, { "f09080", false }, { "f0", false }, { "c2c2", false }, -- cut
      { "e28282ac", false }, { "c220", false }, { "e220ac", false }, { "f0908020", false },
    }

    it("knows UTF-8 at every place of a string", function()
      local around = { 0, 1, 3, 6, 7, 8, 9, 15, 16, 17 } -- it looks at eight bytes at a time
      for _, case in ipairs(utf8_cases) do
        for _, before in ipairs(around) do
          for _, after in ipairs(around) do
            local text = ("a"):rep(before) .. bytes(case[1]) .. ("a"):rep(after)
            local first = pack(text):byte()
            local is_str = first >= 0xa0 and first < 0xc0 or first == 0xd9
            assert.equal(case[2], is_str, case[1] .. " after " .. before .. " before " .. after)
          end
        end
      end
    end)

    it("agrees with Lua's utf8.len about random bytes", function()
      math.randomseed(42)
      local pool = { 0x41, 0x80, 0x9f, 0xa0, 0xbf, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0x8f, 0x90 }
      for _ = 1, 20000 do
        local parts = {}
        for i = 1, math.random(1, 12) do parts[i] = string.char(pool[math.random(#pool)]) end
        local text = table.concat(parts)
        local is_str = pack(text):byte() < 0xc0
        assert.equal(utf8.len(text) ~= nil, is_str, hex(text))
      end
    end)
  end)

  describe("containers", function()
    it("packs nil, booleans and null", function()
      assert.equal("c0", packed(nil))
      assert.equal("c0", packed(null))
      assert.equal("c2", packed(false))
      assert.equal("c3", packed(true))
      assert.is_nil(unpacked "c0")
      assert.is_false(unpacked "c2")
      assert.is_true(unpacked "c3")
    end)

    it("packs sequences as arrays and the rest as maps", function()
      assert.equal("90", packed {})
      assert.equal("93010203", packed { 1, 2, 3 })
      assert.equal("81a16101", packed { a = 1 })
      assert.equal("810002", packed { [0] = 2 })
      assert.equal("81ff02", packed { [-1] = 2 })
      assert.equal("81c301", packed { [true] = 1 })
      assert.equal("81c201", packed { [false] = 1 })
      assert.equal("81cb3ff800000000000001", packed { [1.5] = 1 })
      assert.equal("81c401ff01", packed { ["\xff"] = 1 })
      assert.equal("82", packed({ 7, a = 7 }):sub(1, 2))
    end)

    it("finds the sequence however the table was filled", function()
      local t = {}
      for i = 5, 1, -1 do t[i] = i end
      assert.equal("950102030405", packed(t))
      t.x = true
      t.x = nil
      t[5] = nil
      assert.equal("9401020304", packed(t))
    end)

    for _, n in ipairs { 15, 16, 65535, 65536 } do
      it(("packs %d elements with the shortest head"):format(n), function()
        local list, map = {}, msgpack.map {}
        for i = 1, n do
          list[i] = 1
          map[i] = 1
        end
        local head = n < 16 and { "9f", "8f" } or n < 65536 and { "dc%04x", "de%04x" }
          or { "dd%08x", "df%08x" }
        local s = pack(list)
        assert.is_true(s == bytes(head[1]:format(n)) .. ("\1"):rep(n))
        assert.equal(n, #unpack(s))
        s = pack(map)
        assert.equal(head[2]:format(n), hex(s:sub(1, #head[2]:format(n) // 2)))
        local back, count = unpack(s), 0
        for key, value in pairs(back) do
          assert(math.type(key) == "integer" and value == 1)
          count = count + 1
        end
        assert.equal(n, count)
      end)
    end

    it("decodes nil inside a container to null, and back", function()
      local list = unpacked "9301c003"
      assert.same({ 1, null, 3 }, list)
      assert.equal("9301c003", packed(list))
      local map = unpacked "81a161c0"
      assert.equal(null, map.a)
      assert.equal("81a161c0", packed(map))
    end)

    it("keeps the kind of what it decoded", function()
      for _, digits in ipairs { "80", "90", "810101", "8101c0", "8202020303", "81a16180", "81a16190", "9180",
        "9190", "8100a0", "81ff80", "81d1ff7f80", "81c380", "81cb3ff800000000000080" } do
        assert.equal(digits, packed(unpacked(digits)), digits)
      end
      assert.is_nil(getmetatable(unpacked "81a16101"))
      assert.is_nil(getmetatable(unpacked "9101"))
    end)

    it("turns a float key with an integer value into that integer, as Lua does", function()
      local t = unpacked "81cb3ff000000000000005"
      assert.equal(5, t[1])
      assert.equal("810105", packed(t))
      assert.equal(1, unpacked "81cb43e000000000000001"[2 ^ 63])
    end)

    it("lets the last of equal keys win", function()
      assert.same({ a = 2 }, unpacked "82a16101a16102")
      assert.same({ a = null }, unpacked "82a16101c40161c0")
    end)

    it("forces a kind", function()
      assert.equal("80", packed(msgpack.map {}))
      assert.equal("80", packed(msgpack.map()))
      assert.equal("810105", packed(msgpack.map { 5 }))
      assert.equal("810305", packed(msgpack.map { [3] = 5 }))
      assert.equal("90", packed(msgpack.array {}))
      assert.equal("93c0c005", packed(msgpack.array { [3] = 5 }))
      assert.equal("9301c003", packed(msgpack.array { 1, nil, 3 }))
      assert.equal("9401c003c0", packed(msgpack.array(table.pack(1, nil, 3, nil))))
      assert.equal("9101", packed(msgpack.array { 1, 2, 3, n = 1 }))
      assert.equal("90", packed(msgpack.array { n = 0 }))
    end)

    it("refuses an array that is none", function()
      assert.equal("a gaterpc.array has keys other than 1 to n, and n",
        reason(EINVAL, msgpack.array { x = 1 }))
      for _, n in ipairs { -1, 1.0, "1", false } do
        assert.equal("a gaterpc.array has an n that is not a length",
          reason(EINVAL, msgpack.array { n = n }))
      end
      assert.equal(EXHAUSTED, select(2, pack(msgpack.array { n = (1 << 20) + 1 })))
      assert.equal(EXHAUSTED, select(2, pack(msgpack.array { n = math.maxinteger })))
      assert.equal(EXHAUSTED, select(2, pack(msgpack.array { [math.maxinteger] = 1 })))
    end)

    it("tells kinds apart", function()
      for _, map in ipairs { msgpack.map(), msgpack.kwargs(), { a = 1 }, { [0] = 1 }, unpack "\x80" } do
        assert.is_true(msgpack.is_map(map))
        assert.is_false(msgpack.is_array(map))
      end
      for _, array in ipairs { {}, { 1 }, msgpack.array { n = 3 } } do
        assert.is_true(msgpack.is_array(array))
        assert.is_false(msgpack.is_map(array))
      end
      for _, other in ipairs { 1, "x", { 1, nil, 3 }, msgpack.bin "x", msgpack.timestamp(1), null } do
        assert.is_false(msgpack.is_array(other))
        assert.is_false(msgpack.is_map(other))
      end
    end)

    it("marks the table itself, may change its mind, and leaves other metatables alone", function()
      local t = {}
      assert.equal(t, msgpack.map(t))
      assert.equal(t, msgpack.array(t))
      assert.equal("90", packed(t))
      for _, wrong in ipairs { setmetatable({}, {}), msgpack.bin "x", "x" } do
        assert.has_error(function() msgpack.map(wrong) end)
      end
      assert.has_error(function() msgpack.map(nil) end)
    end)

    it("names its metatables", function()
      for _, name in ipairs { "map", "array", "kwargs" } do
        assert.equal("gaterpc." .. name, getmetatable(msgpack[name]()).__name)
        assert.matches("^gaterpc%." .. name .. ": ", tostring(msgpack[name]()))
      end
      assert.equal("gaterpc.uint64", getmetatable(msgpack.uint64(1)).__name)
      assert.equal("gaterpc.bin", getmetatable(msgpack.bin "").__name)
    end)

    it("packs tables with a foreign metatable raw, without calling it", function()
      local function trap() error "called" end
      local mt = { __index = trap, __newindex = trap, __len = trap, __pairs = trap, __eq = trap,
        __metatable = "hidden", __name = "gaterpc.map", __tostring = trap }
      assert.equal("920102", packed(setmetatable({ 1, 2 }, mt)))
      assert.equal("90", packed(setmetatable({}, mt)))
      assert.equal("81a16101", packed(setmetatable({ a = 1 }, mt)))
    end)
  end)

  describe("what cannot be packed", function()
    it("is named with its place", function()
      assert.equal("a function cannot be packed", reason(EINVAL, print))
      assert.equal("a thread at [1] cannot be packed", reason(EINVAL, { coroutine.create(print) }))
      assert.equal("a function at .user.callback cannot be packed",
        reason(EINVAL, { user = { callback = print } }))
      assert.equal('a function at [2]["full name"][true][1.5][-3] cannot be packed',
        reason(EINVAL, { 0, { ["full name"] = { [true] = { [1.5] = { [-3] = print } } } } }))
      assert.equal('a function at ["?[31m"] cannot be packed', reason(EINVAL, { ["\27[31m"] = print }))
      assert.equal('a function at ["имя"] cannot be packed', reason(EINVAL, { ["имя"] = print }))
      assert.equal('a function at ["?"] cannot be packed', reason(EINVAL, { ["\xff"] = print }))
      assert.equal('a function at [""] cannot be packed', reason(EINVAL, { [""] = print }))
      assert.equal('a function at ["' .. ("k"):rep(28) .. '..."] cannot be packed',
        reason(EINVAL, { [("k"):rep(1000)] = print }))
    end)

    it("is named by the end of its place when that is long", function()
      local text = reason(EINVAL, { nest(30, { here = print }) })
      assert.matches("^a function at %.%.%.%[1%].*%[1%]%.here cannot be packed$", text)
      assert.is_true(#text < 160)
    end)

    it("includes tables with holes", function()
      local hint = ": use gaterpc.array or gaterpc.null"
      assert.equal("a table has holes (keys 1 and 3 but not 2)" .. hint, reason(EINVAL, { 1, nil, 3 }))
      assert.equal("a table at [3] has holes (keys 2 and 9 but not 3)" .. hint,
        reason(EINVAL, { 1, 2, { 1, 2, [20] = 1, [9] = 1 } }))
      assert.equal("a table has holes (key 2 but not 1)" .. hint, reason(EINVAL, { nil, 2 }))
      assert.equal(EINVAL, select(2, pack { [math.maxinteger] = 1 }))
    end)

    it("includes keys that msgpack peers could not use", function()
      assert.equal("a table at .a has a null as a key, which cannot be packed",
        reason(EINVAL, { a = { [null] = 1 } }))
      assert.equal("a table has a table as a key, which cannot be packed", reason(EINVAL, { [{}] = 1 }))
      assert.equal("a table has a function as a key, which cannot be packed", reason(EINVAL, { [print] = 1 }))
    end)

    it("ends at depth 64, so also tables that hold themselves", function()
      assert.is_string(pack(nest(64)))
      assert.matches("is nested deeper than 64 levels$", reason(EXHAUSTED, nest(65)))
      assert.is_string(pack(nest(64, msgpack.bin "x"))) -- not a container
      local loop = {}
      loop.loop = loop
      assert.matches("%.loop%.loop is nested deeper than 64 levels$", reason(EXHAUSTED, loop))
    end)

    it("includes strings above 32 MiB", function()
      local text = ("x"):rep(32 << 20)
      assert.equal((32 << 20) + 5, #pack(text))
      text = text .. "x"
      assert.equal("a string at .a is longer than 32 MiB", reason(EXHAUSTED, { a = text }))
      assert.equal(EXHAUSTED, select(2, pack(msgpack.bin(text))))
      assert.equal(EXHAUSTED, select(2, pack(msgpack.ext(1, text))))
      assert.equal(EXHAUSTED, select(2, pack { [text] = 1 }))
    end)

    it("includes more than 2^20 elements", function()
      local t = {}
      for i = 1, 1 << 20 do t[i] = i end
      local s = pack(t)
      assert.equal(1 << 20, #unpack(s))
      assert.is_string(pack(msgpack.map(t)))
      setmetatable(t, nil)
      t[#t + 1] = 1
      assert.equal("a table has more than 1048576 elements", reason(EXHAUSTED, t))
      assert.equal(EXHAUSTED, select(2, pack(msgpack.map(t))))
    end)

    it("leaves nothing behind for the next call", function()
      assert.is_nil((pack { 1, 2, 3, print }))
      assert.equal("01", packed(1))
    end)
  end)
end)
