local gaterpc = require "gaterpc"
local nest = require "support.values".nest
local process = require "support.process"
local task = gaterpc.task
local null = gaterpc.null

local METHODS = [[
local msgpack = gaterpc.message_pack
function Class.interface:echo(value) return value end
function Class.interface:type(value) return math.type(value) or type(value) end
function Class.interface:make(code) return load("local gaterpc = require 'gaterpc' return " .. code)() end
function Class.interface:make_item(code)
  coroutine.yield "first"
  coroutine.yield(load("return " .. code)())
  coroutine.yield "never"
end
function Class.interface:measure(t)
  local depth = 0
  while type(t) == "table" do t, depth = t[1], depth + 1 end
  return depth
end
function Class.interface:count(...) return select("#", ...) end
function Class.interface:length(...)
  local sum = 0
  for i = 1, select("#", ...) do sum = sum + #select(i, ...) end
  return sum
end
]]

local function list(count)
  local t = {}
  for i = 1, count do t[i] = i end
  return t
end

describe("values", function()
  local worker, client

  before_each(function()
    local _, front, back = process.broker "ipc"
    worker = process.worker("V", METHODS, back)
    client = gaterpc.Client { broker = front, service = "V", timeout = process.limit(9) }
  end)

  after_each(function()
    client:close()
    process.finish()
  end)

  -- What a refused value must not do: end the connection or the worker.
  local function still_well()
    assert.equal("well", client.V.echo "well")
    assert.is_true(worker:is_running())
    assert.equal(0, client:stats().open)
  end

  describe("come back as they were sent:", function()
    it("integers of every width", function()
      local values = { 0, math.maxinteger, math.mininteger }
      for shift = 1, 62 do
        for around = -1, 1 do
          values[#values + 1] = (1 << shift) + around
          values[#values + 1] = -(1 << shift) + around
        end
      end
      local echoed = client.V.echo(values)
      for i, value in ipairs(values) do
        assert.equal(value, echoed[i])
        assert.equal("integer", math.type(echoed[i]))
      end
      assert.equal(math.maxinteger, client.V.echo(math.maxinteger))
      assert.equal("integer", client.V.type(-1))
    end)

    it("floats", function()
      for _, value in ipairs { 0.0, 3.0, -0.5, 1e308, 5e-324, 1 / 3, math.pi, math.huge, -math.huge, 2.0 ^ 53 } do
        assert.equal(value, client.V.echo(value))
        assert.equal("float", math.type(client.V.echo(value)))
        assert.equal("float", client.V.type(value))
      end
      local nan = client.V.echo(0 / 0)
      assert.is_true(nan ~= nan)
      local zero = client.V.echo(-0.0)
      assert.equal(-math.huge, 1 / zero)
      assert.equal(math.huge, 1 / client.V.echo(0.0))
    end)

    it("strings, with anything in them", function()
      local all = {}
      for i = 0, 255 do all[i + 1] = string.char(i) end
      for _, value in ipairs { "", "a", "a\0b", "\0", "grün", "\xff\xfe", "\xc0\x80", "\xed\xa0\x80", "ab\xc3", "日本語",
        table.concat(all), ("x"):rep(31), ("x"):rep(32), ("x"):rep(255), ("x"):rep(256), ("\xff"):rep(65535),
        ("x"):rep(65536) } do
        assert.is_true(client.V.echo(value) == value)
      end
    end)

    it("a string of 1 MiB, and one of 32 MiB", function()
      for _, size in ipairs { 1 << 20, 32 << 20 } do
        local value = ("0123456789abcdef"):rep(size // 16)
        assert.is_true(client.V.echo(value) == value)
      end
    end)

    it("booleans and nil", function()
      assert.is_true(client.V.echo(true))
      assert.is_false(client.V.echo(false))
      assert.is_nil(client.V.echo(nil))
      assert.is_nil(client.V.echo(null))
      assert.equal("nil", client.V.type(null))
    end)

    it("arrays and maps, empty ones too", function()
      assert.is_true(gaterpc.is_array(client.V.echo {}))
      assert.is_true(gaterpc.is_map(client.V.echo(gaterpc.map {})))
      assert.same({ 1, "two", { 3 } }, client.V.echo { 1, "two", { 3 } })
      assert.same({ a = 1, b = { c = {} } }, client.V.echo { a = 1, b = { c = {} } })
      assert.same({ [1] = "x", [3] = "z", y = 1 }, client.V.echo { [1] = "x", [3] = "z", y = 1 })
      local inner = client.V.echo { empty_map = gaterpc.map {}, empty_array = {} }
      assert.is_true(gaterpc.is_map(inner.empty_map))
      assert.is_true(gaterpc.is_array(inner.empty_array))
      inner = client.V.echo(client.V.echo(inner)) -- they keep their kind
      assert.is_true(gaterpc.is_map(inner.empty_map))
    end)

    it("nil inside of containers", function()
      local echoed = client.V.echo { 1, null, 3, null }
      assert.equal(4, #echoed)
      assert.equal(null, echoed[2])
      assert.equal(null, echoed[4])
      assert.equal(null, client.V.echo({ a = null }).a)
      echoed = client.V.echo(gaterpc.array { 1, nil, 3, n = 5 })
      assert.equal(5, #echoed)
      assert.equal(null, echoed[2])
      assert.equal(null, echoed[5])
    end)

    it("keys of any kind that a map may have", function()
      local echoed = client.V.echo { [true] = 1, [false] = 2, [-5] = 3, ["\xff"] = 4, [1.5] = 5, [""] = 6 }
      assert.same({ [true] = 1, [false] = 2, [-5] = 3, ["\xff"] = 4, [1.5] = 5, [""] = 6 }, echoed)
    end)

    it("tables 60 deep, and 63 deep", function()
      for _, depth in ipairs { 60, 63 } do
        assert.equal(depth, client.V.measure(nest(depth)))
        local echoed, measured = client.V.echo(nest(depth)), 0
        while echoed do echoed, measured = echoed[1], measured + 1 end
        assert.equal(depth, measured)
      end
    end)

    it("tables with as many elements as may be", function()
      local echoed = client.V.echo(list(1 << 20))
      assert.equal(1 << 20, #echoed)
      assert.equal(1 << 20, echoed[1 << 20])
    end)

    it("uint64, ext and timestamp", function()
      local big = gaterpc.uint64 "18446744073709551615"
      assert.equal("18446744073709551615", tostring(client.V.echo(big)))
      assert.is_true(client.V.echo(big) == big)
      assert.equal(math.maxinteger, client.V.echo(gaterpc.uint64(math.maxinteger)))
      local ext = client.V.echo(gaterpc.ext(42, "\0\1\2"))
      assert.equal(42, ext.type)
      assert.equal("\0\1\2", ext.data)
      for _, at in ipairs { { 0, 0 }, { 1, 999999999 }, { 1 << 33, 5 }, { (1 << 35) + 1, 5 }, { -1, 0 } } do
        local echoed = client.V.echo(gaterpc.timestamp(at[1], at[2]))
        assert.equal(at[1], echoed.seconds)
        assert.equal(at[2], echoed.nanoseconds)
      end
    end)

    it("strings that are said to be bin or str", function()
      assert.equal("text", client.V.echo(gaterpc.bin "text"))
      assert.equal("\xff", client.V.echo(gaterpc.str "\xff"))
    end)
  end)

  describe("that cannot be sent", function()
    -- Every one as an argument, a result and an item of a stream.
    local refused = {
      ["a function"] = { "INVALID_ARGUMENT", print, "print", "function" },
      ["a coroutine"] = { "INVALID_ARGUMENT", coroutine.create(print), "coroutine.create(print)", "thread" },
      ["a file"] = { "INVALID_ARGUMENT", io.stdout, "io.stdout", "userdata" },
      ["a function inside"] = { "INVALID_ARGUMENT", { user = { callback = print } },
        "{ user = { callback = print } }", "%.user%.callback" },
      ["a hole"] = { "INVALID_ARGUMENT", { 1, nil, 3 }, "{ 1, nil, 3 }", "holes" },
      ["a table that holds itself"] = { "RESOURCE_EXHAUSTED", (function()
        local t = {}
        t[1] = t
        return t
      end)(), "(function() local t = {} t[1] = t return t end)()", "deeper" },
      ["a table too deep"] = { "RESOURCE_EXHAUSTED", nest(65),
        "(function() local t = 1 for i = 1, 65 do t = { t } end return t end)()", "deeper" },
      ["a string too long"] = { "RESOURCE_EXHAUSTED", ("x"):rep((32 << 20) + 1),
        "('x'):rep((32 << 20) + 1)", "32 MiB" },
      ["too many elements"] = { "RESOURCE_EXHAUSTED", list((1 << 20) + 1),
        "(function() local t = {} for i = 1, (1 << 20) + 1 do t[i] = i end return t end)()", "1048576" },
      ["65 MiB altogether"] = { "RESOURCE_EXHAUSTED", { ("x"):rep(31 << 20), ("y"):rep(31 << 20), ("z"):rep(3 << 20) },
        "{ ('x'):rep(31 << 20), ('y'):rep(31 << 20), ('z'):rep(3 << 20) }", "64 MiB" },
    }

    for what, row in pairs(refused) do
      local code, value, source, text = table.unpack(row)

      it(("%s: as an argument it is the caller's error"):format(what), function()
        local result, err = client:try("V", "echo", value)
        assert.is_nil(result)
        assert.equal(code, err.code)
        assert.matches(text, err.message)
        still_well()
      end)

      it(("%s: as a result it is the method's error, unless it is only large"):format(what), function()
        local result, err = client:try("V", "make", source)
        if text == "64 MiB" then -- it comes compressed, in pieces
          assert.same({ 31 << 20, 31 << 20, 3 << 20 }, { #result[1], #result[2], #result[3] })
          return still_well()
        end
        assert.is_nil(result)
        assert.equal("INTERNAL", err.code)
        assert.matches("the result cannot be sent: ", err.message)
        assert.matches(text, err.message)
        still_well()
      end)

      it(("%s: as an item it ends the stream with the method's error"):format(what), function()
        local stream <close> = client.V.make_item(source)
        assert.equal("first", stream:next())
        local ok, err = pcall(stream.next, stream)
        assert.is_false(ok)
        assert.equal("INTERNAL", err.code)
        assert.matches(text, err.message)
        assert.is_nil(stream:next())
        still_well()
      end)
    end

    it("more than 250 arguments are the caller's error", function()
      local _, err = client:try("V", "count", table.unpack(list(251)))
      assert.equal("RESOURCE_EXHAUSTED", err.code)
      assert.equal(250, client.V.count(table.unpack(list(250))))
    end)

    it("keyword arguments with other keys than strings are the caller's error", function()
      local _, err = client:try("V", "count", gaterpc.kwargs { 1, 2 })
      assert.equal("INVALID_ARGUMENT", err.code)
      still_well()
    end)
  end)

  it("of 60 MiB in one call arrive, while small calls go on", function()
    local big = task.spawn(function()
      return client.V.length(("x"):rep(30 << 20), ("y"):rep(30 << 20))
    end)
    for i = 1, 100 do assert.equal(i, client.V.echo(i)) end
    assert.equal(60 << 20, big:join())
  end)
end)
