-- The codecs beside independent programs, and in processes that run out of luck.
local codec = require "gaterpc.codec"
local codecs = require "support.codecs"
local process = require "support.process"
local task = require "gaterpc.task"
local uv = require "luv"

local PYTHON = "/usr/bin/python3"
local IN_PYTHON = { "gzip", "zlib", "bz2", "lzma" }

describe("beside Python", function()
  after_each(process.finish)

  it("each reads what the other writes, at all levels, flushed or not [limit 60]", function()
    local raw = { empty = "", one = "x", text = codecs.hex(100000), records = codecs.records(300000),
      noise = codecs.noise(70000), zeros = ("\0"):rep(1000000) }
    local wrote = 0
    for stem, data in pairs(raw) do
      process.file(stem .. ".raw", data)
      for _, name in ipairs(IN_PYTHON) do
        local info = codec.get(name)
        for level = info.level_min, info.level_max, 2 do
          process.file(("%s.%d.%s"):format(stem, level, name), assert(codec.compress(name, data, { level = level })))
          wrote = wrote + 1
        end
        if info.syncs then
          local list = codecs.pieces_of(name, codecs.slices(data, 20000), { whole = true, piece_bytes = 5000 })
          process.file(("%s.whole.%s"):format(stem, name), table.concat(list))
          wrote = wrote + 1
        end
      end
    end
    local python = process.run(PYTHON, { "spec/system/peers/codecs.py", process.dir() })
    assert.equal(0, python:wait_exit(30), python.err)
    assert.equal(("read %d, wrote %d\n"):format(wrote, 6 * 4 * 4), python.out)
    for stem, data in pairs(raw) do
      for _, name in ipairs(IN_PYTHON) do
        for _, level in ipairs { 0, 1, 6, 9 } do
          local stream = process.read(("%s/%s.%d.%s-py"):format(process.dir(), stem, level, name))
          assert.is_true(data == codec.decompress(name, stream), name)
        end
      end
    end
  end)
end)

describe("the original's fragile reader", function()
  after_each(process.finish)

  local function add_frames(name, frames)
    local parts = {}
    for i, frame in ipairs(frames) do parts[i] = string.pack("<s4", frame) end
    process.file(name .. ".frames", table.concat(parts))
  end

  local function read_all()
    local reader = process.run(PYTHON, { "spec/system/peers/fragile_gunzip.py", process.dir() })
    assert.equal(0, reader:wait_exit(60), reader.err)
    local said, count = {}, 0
    for name, text in reader.out:gmatch "(%S+)%.frames ([^\n]*)" do
      said[name] = text
      count = count + 1
    end
    return said, count
  end

  -- The last four bytes but four of a gzip stream are its CRC-32.
  local function expected(data)
    local stream = assert(codec.compress("gzip", data))
    return ("ok %d %d"):format(#data, (string.unpack("<I4", stream, #stream - 7)))
  end

  it("is as fragile as described: it needs data beside the header, and the trailer in one frame", function()
    local data = codecs.hex(2000)
    local stream = assert(codec.compress("gzip", data, { level = 9 }))
    add_frames("one", { stream })
    add_frames("header", { stream:sub(1, 10), stream:sub(11) })
    add_frames("trailer", { stream:sub(1, -5), stream:sub(-4) })
    add_frames("incomplete", { stream:sub(1, -20) })
    add_frames("crc", { stream:sub(1, -5) .. "xxxx" })
    local named = "\x1f\x8b\x08\x08" .. stream:sub(5, 10) .. "name\0" .. stream:sub(11)
    add_frames("named", { named })
    local said = read_all()
    assert.equal(expected(data), said.one)
    assert.equal("EOFError", said.header)
    assert.equal("error", said.trailer)
    assert.equal("EOFError", said.incomplete)
    assert.equal("ValueError", said.crc)
    assert.equal("error", said.named)
    assert.equal(data, codec.decompress("gzip", named)) -- ours takes it
  end)

  it("takes our whole pieces, each as one frame, from 1 byte to 640 KB [limit 60]", function()
    local sizes = { 1, 2, 3, 9, 10, 11, 100, 351, 352, 353, 831, 832, 833, 952, 953, 999, 1000, 1001, 1663, 1664, 1665,
      2000, 10000, 40000, 65536, 640000 }
    for _ = 1, 15 do sizes[#sizes + 1] = math.random(1, 100000) end
    local wanted, count = {}, 0
    for _, kind in ipairs { "hex", "noise", "records" } do
      for _, size in ipairs(sizes) do
        local data = codecs[kind](size, size)
        for _, piece_bytes in ipairs(size > 100000 and { 1000, 65536 } or { 512, 1000, 1500, 65536 }) do
          for _, level in ipairs { 1, 9 } do
            local name = ("%s-%d-%d-%d"):format(kind, size, piece_bytes, level)
            if not wanted[name] then
              local how = { level = level, piece_bytes = piece_bytes, whole = true }
              add_frames(name, codecs.pieces_of("gzip", data, how))
              wanted[name], count = expected(data), count + 1
            end
          end
        end
      end
    end
    local said, came = read_all()
    for name, text in pairs(wanted) do assert.equal(text, said[name], name) end
    assert.equal(count, came)
  end)
end)

describe("a bomb", function()
  after_each(process.finish)

  for _, name in ipairs(codecs.BUILT_IN) do
    it(("of %s, 10 GiB of zeros, is refused at 256 MiB with bounded memory [limit 40]"):format(name), function()
      local path = process.file("bomb", codecs.bomb(name, name == "lz4" and 2 or 10))
      local host = process.host(([[
        local codec = require "gaterpc.codec"
        local core = require "gaterpc.core"
        local file = assert(io.open(%q, "rb"))
        local bomb = file:read "a"
        file:close()
        collectgarbage()
        io.open("/proc/self/clear_refs", "w"):write("5"):close()
        local function status(what)
          return tonumber(io.open "/proc/self/status":read "a":match(what .. ":%%s*(%%d+)"))
        end
        local before, begun, total = status "VmRSS", core.now(), 0
        local ok, err = pcall(function()
          for bytes in codec.decoder(%q, { digest = true }):chunks(bomb) do total = total + #bytes end
        end)
        print(err.code, total, status "VmHWM" - before, ("%%.2f s"):format(core.now() - begun))
      ]]):format(path, name))
      local code, total, grown = host:wait_line "^(%S+)\t(%d+)\t(%-?%d+)\t"
      assert.equal("RESOURCE_EXHAUSTED", code)
      assert.equal(256 << 20, tonumber(total))
      if process.SLOW == 1 then assert.is_true(tonumber(grown) < 16 << 10, grown .. " kB") end
      assert.equal(0, host:wait_exit())
    end)
  end
end)

describe("a host that ends while the pool is busy", function()
  after_each(process.finish)

  local SCRIPT = [[
    local codec = require "gaterpc.codec"
    local task = require "gaterpc.task"
    local encoders = {}
    for i, name in ipairs { "lzma", "bz2", "gzip", "zstd", "lzma", "bz2" } do
      encoders[i] = codec.encoder(name, { level = name == "zstd" and 19 or 9 })
      encoders[i]:feed(("%d some text %s"):format(i, name):rep(400000))
      encoders[i]:feed(nil)
    end
    local taker = task.spawn(function()
      for _ in encoders[1].take, encoders[1] do end
    end)
    task.sleep(0.05)
    print "busy"
  ]]

  it("by os.exit", function()
    local host = process.host(SCRIPT .. "os.exit(3, true)")
    assert.equal(3, host:wait_exit())
    host = process.host(SCRIPT .. "os.exit(4)")
    assert.equal(4, host:wait_exit())
  end)

  it("by an error", function()
    local host = process.host(SCRIPT .. "error 'enough'")
    assert.equal(1, host:wait_exit())
    assert.truthy(host.err:find "enough")
  end)

  it("by a signal", function()
    local host = process.host(SCRIPT .. "task.sleep(100)")
    host:wait_line "busy"
    host:kill "sigterm"
    assert.equal(143, host:wait_exit())
  end)

  it("after objects were closed", function()
    local host = process.host(SCRIPT .. [[
      taker:cancel()
      for _, each in ipairs(encoders) do each:close() end
      encoders = nil
      collectgarbage()
      os.exit(5, true)
    ]])
    assert.equal(5, host:wait_exit())
  end)

  it("or whose script is over: it waits for whoever takes, not for what nobody takes [limit 30]", function()
    local host = process.host([[
      local codec = require "gaterpc.codec"
      local task = require "gaterpc.task"
      codec.encoder("gzip"):feed(("nobody takes this"):rep(1000000))
      task.spawn(function()
        print(#codec.compress("bz2", ("somebody waits for this"):rep(50000)) > 100)
      end)
    ]])
    assert.equal(0, host:wait_exit(20))
    assert.equal("true\n", host.out)
  end)
end)

describe("the pool", function()
  it("has nothing left when everything is closed: no handle, no memory", function()
    local data = codecs.noise(200000)
    local function handles()
      local enc = codec.encoder "zstd"
      enc:feed(data)
      enc:feed(nil)
      for _ in enc.take, enc do end -- luacheck: ignore 542
      enc:close()
    end
    for _ = 1, 20 do handles() end
    collectgarbage()
    local before = uv.resident_set_memory()
    for _ = 1, 500 do handles() end
    task.sleep(0.01)
    collectgarbage()
    local grown = uv.resident_set_memory() - before
    if process.SLOW == 1 then assert.is_true(grown < 8 << 20, grown) end
  end)
end)
