local gaterpc = require "gaterpc"
local pretty = require "gaterpc.pretty"

local function lines_of(text)
  local lines = {}
  for line in (text .. "\n"):gmatch "([^\n]*)\n" do lines[#lines + 1] = line end
  return lines
end

describe("pretty", function()
  describe("simple values", function()
    it("are as Lua writes them", function()
      assert.equal("nil", pretty(nil))
      assert.equal("true", pretty(true))
      assert.equal("1", pretty(1))
      assert.equal("1.0", pretty(1.0))
      assert.equal("-inf", pretty(-math.huge))
      assert.truthy(pretty(print):find "^function: ")
      assert.truthy(pretty(coroutine.create(print)):find "^thread: ")
      assert.truthy(pretty(io.stdout):find "^file %(0x")
    end)

    it("of msgpack have their names", function()
      assert.equal("null", pretty(gaterpc.null))
      assert.equal("{ null, a = null }", pretty { gaterpc.null, a = gaterpc.null })
      assert.equal(tostring(gaterpc.bin "ab"), pretty(gaterpc.bin "ab"))
      assert.equal("gaterpc.ext(5, 2 bytes)", pretty(gaterpc.ext(5, "ab")))
      local unsigned = gaterpc.message_pack.unpack("\xcf" .. ("\xff"):rep(8))
      assert.equal("18446744073709551615", pretty(unsigned))
    end)
  end)

  describe("strings", function()
    it("are quoted on one line", function()
      assert.equal([["a\"b\\c'd"]], pretty "a\"b\\c'd")
      assert.equal([["\n\r\t\x00\x1b[31m\x7f"]], pretty "\n\r\t\0\27[31m\127")
    end)

    it("keep UTF-8, and show other bytes as numbers", function()
      assert.equal('"Gr\u{fc}\u{df}e \u{1f600}"', pretty "Gr\u{fc}\u{df}e \u{1f600}")
      assert.equal([["\xffa\xc3"]], pretty "\xffa\xc3")
      assert.equal([["\xc2\x9b31m"]], pretty "\u{9b}31m") -- a control sequence for some terminals
      assert.equal([["\xed\xa0\x80"]], pretty "\xed\xa0\x80") -- half of a pair of UTF-16
    end)

    it("come back when they are read as Lua", function()
      for _ = 1, 200 do
        local bytes = {}
        for i = 1, math.random(0, 30) do bytes[i] = string.char(math.random(0, 255)) end
        local text = table.concat(bytes)
        assert.equal(text, load("return " .. pretty(text))())
      end
    end)

    it("are cut after 200 bytes, not inside a character", function()
      assert.equal('"' .. ("x"):rep(200) .. '"', pretty(("x"):rep(200)))
      assert.equal('"' .. ("x"):rep(200) .. '"... (201 bytes)', pretty(("x"):rep(201)))
      assert.equal('"' .. ("x"):rep(199) .. '"... (203 bytes)', pretty(("x"):rep(199) .. "\u{20ac}y"))
      assert.truthy(#pretty(("\x80"):rep(999)) < 900) -- each is four bytes then
    end)
  end)

  describe("tables", function()
    it("are on one line when they fit", function()
      assert.equal("{}", pretty {})
      assert.equal("{ 1, 2, { 3 } }", pretty { 1, 2, { 3 } })
      assert.equal('{ 1, nothing = {}, x = "y" }', pretty { 1, x = "y", nothing = {} })
      local text = pretty { ("a"):rep(70) }
      assert.equal(76, #text)
      assert.is_nil(text:find "\n")
      assert.truthy(pretty({ ("a"):rep(73) }):find "\n")
    end)

    it("have sorted keys: numbers, strings, booleans, the others", function()
      assert.equal('{ 1, [-1] = 2, [2.5] = 3, [10] = 4, B = 5, a = 6, ["a b"] = 7, ["end"] = 8, '
        .. "[false] = 9,\n", (pretty {
          1, [-1] = 2, [2.5] = 3, [10] = 4, B = 5, a = 6, ["a b"] = 7, ["end"] = 8, [false] = 9, [true] = 10,
          [{ 1 }] = 11,
        }:gsub("\n  ", " "):gsub("{ ?1,", "{ 1,"):gsub("%[true%].*", ""):gsub(" $", "\n")))
    end)

    it("of many lines have a line for each entry", function()
      local value = { name = ("n"):rep(40), other = ("o"):rep(40), inner = { list = { 1, 2 } } }
      assert.same({
        "{",
        "  inner = { list = { 1, 2 } },",
        '  name = "' .. ("n"):rep(40) .. '",',
        '  other = "' .. ("o"):rep(40) .. '"',
        "}",
      }, lines_of(pretty(value)))
    end)

    it("that are long sequences fill lines of 78 columns", function()
      local list = {}
      for i = 1, 60 do list[i] = i end
      local lines = lines_of(pretty(list))
      assert.equal(6, #lines)
      for _, line in ipairs(lines) do assert.is_true(#line <= 78) end
      assert.equal("  1, 2, 3, ", lines[2]:sub(1, 11))
      assert.same(list, load("return " .. pretty(list))())
    end)

    it("are cut after 100 entries", function()
      local list, map = {}, {}
      for i = 1, 250 do
        list[i] = 0
        map["k" .. i] = true
      end
      assert.truthy(pretty(list):find("0,%s+%.%.%. 150 more\n}$"))
      local text = pretty(map)
      assert.truthy(text:find("... 150 more\n", 1, true))
      assert.equal(103, #lines_of(text))
    end)

    it("are not entered below four levels", function()
      assert.equal("{ { { { {...} } } } }", pretty { { { { { 1 } } } } })
      assert.equal("{ { { { {} } } } }", pretty { { { { {} } } } })
    end)

    it("that contain themselves end", function()
      local loop = {}
      loop.me, loop.list = loop, { loop }
      assert.equal("{ list = { <cycle> }, me = <cycle> }", pretty(loop))
      local shared = { 1 }
      assert.equal("{ { 1 }, { 1 } }", pretty { shared, shared })
    end)

    it("of any size take little time and space", function()
      local wide = {}
      for i = 1, 100 do wide[i] = wide[i - 1] and { wide[i - 1], i } or { i } end
      for i = 1, 200 do wide["x" .. i] = wide end
      local level = {}
      for i = 1, 100 do level[i] = { i, {} } end
      for _ = 1, 3 do
        local above = {}
        for i = 1, 100 do above[i] = level end
        level = above
      end
      assert.is_true(#pretty { wide, level } < 200000)
    end)
  end)

  describe("objects", function()
    it("are what their __tostring says", function()
      assert.equal("NOT_FOUND: no such user", pretty(gaterpc.error("NOT_FOUND", "no such user")))
      assert.equal("{ { it } }", (pretty { { setmetatable({}, { __name = "x", __tostring = function()
        return "{ it }" end }) } }:gsub("^{ ", ""):gsub(" }$", "")))
    end)

    it("have their name at least", function()
      assert.truthy(pretty(gaterpc.task.promise()):find "^gaterpc.Promise: 0x")
    end)

    it("may have a __tostring that raises, or gives no string", function()
      for _, bad in ipairs { function() error "no" end, function() return {} end, function() end, 5 } do
        assert.equal("<My.Class whose __tostring fails>",
          pretty(setmetatable({}, { __name = "My.Class", __tostring = bad })))
      end
    end)

    it("cannot write control characters", function()
      local object = setmetatable({}, { __name = "x", __tostring = function() return "a\27[31m\nb" end })
      assert.equal([[a\x1b[31m\nb]], pretty(object))
    end)

    it("are not asked for fields", function()
      local strict = setmetatable({ 1 }, {
        __index = function() error "no" end, __len = function() error "no" end, __pairs = function() error "no" end,
        __metatable = "locked",
      })
      assert.equal("{ 1 }", pretty(strict))
    end)

    it("of msgpack's containers are plain tables", function()
      assert.equal("{ a = 1 }", pretty(gaterpc.map { a = 1 }))
      assert.equal("{ a = 1 }", pretty(gaterpc.kwargs { a = 1 }))
      assert.equal("{}", pretty(gaterpc.map {}))
    end)
  end)

  it("makes any text safe for a terminal", function()
    assert.equal("a\tb\nc\\x1b", pretty.safe "a\tb\nc\27")
    assert.equal("a\tb\\nc\\r\\xff", pretty.safe("a\tb\nc\r\xff", true))
  end)
end)
