local codec = require "gaterpc.codec"
local codecs = require "support.codecs"
local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local process = require "support.process"
local task = require "gaterpc.task"
local uv = require "luv"

local append, pieces_of = codecs.append, codecs.pieces_of

local SIZES = { 0, 1, 999, 1000, 1001, 65535, 65536, 65537 }
local BIG = 5 << 20

local function check_error(code, pattern, value, err)
  assert.is_nil(value)
  assert.is_true(errors.is(err), tostring(err))
  assert.equal(code, err.code, err.message)
  if pattern then assert.truthy(err.message:find(pattern), err.message) end
end

-- Raised at the caller's line of this file.
local function check_misuse(pattern, fn, ...)
  local args = table.pack(...)
  local ok, err = pcall(function() fn(table.unpack(args, 1, args.n)) end)
  assert.is_false(ok)
  assert.truthy(tostring(err):find("codec_spec.lua:%d+: .*" .. pattern), err)
end

local function encode(name, data, options)
  return assert(codec.compress(name, data, options))
end

-- long strings are not worth a diff
local function check_same(expected, got, what)
  if expected ~= got then
    error(("%s: %d bytes came back in place of %d, or others"):format(what, got and #got or -1, #expected), 2)
  end
end

local function crc32(bytes)
  local crc = 0xffffffff
  for i = 1, #bytes do
    crc = crc ~ bytes:byte(i)
    for _ = 1, 8 do crc = crc >> 1 ~ (crc & 1) * 0xedb88320 end
  end
  return crc ~ 0xffffffff
end

describe("every codec", function()
  local big

  setup(function()
    math.randomseed(20240229)
    big = codecs.mixed(BIG)
  end)

  for _, name in ipairs(codecs.BUILT_IN) do
    for _, kind in ipairs { "noise", "hex", "records" } do
      it(("%s gives back %s of any size, cut in any way"):format(name, kind), function()
        for _, size in ipairs(SIZES) do
          local data = codecs[kind](size)
          local list = pieces_of(name, codecs.slices(data, size // 7 + 1))
          check_same(data, codecs.decode_slices(name, codecs.slices(table.concat(list), 5000)),
            ("%s, %d bytes"):format(name, size))
        end
      end)
    end

    it(("%s gives back 5 MiB, whether they come at once or in slices [limit 40]"):format(name), function()
      check_same(big, codec.decompress(name, encode(name, big)), "at once")
      local list = pieces_of(name, codecs.slices(big, 200000))
      check_same(big, codecs.decode_slices(name, codecs.slices(table.concat(list), 300000)), "in slices")
    end)

    it(("%s takes a byte at a time and gives a byte at a time"):format(name), function()
      local data = codecs.records(3000)
      local bytes = codecs.bytes(encode(name, data))
      check_same(data, codecs.decode_slices(name, bytes, { max_length = 1 }), "both")
      local enc = codec.encoder(name)
      local list = {}
      for i = 1, #data do append(list, enc:write(data:sub(i, i))) end
      append(list, enc:finish())
      check_same(data, codec.decompress(name, table.concat(list)), "encoder")
    end)

    it(("%s has levels that all can be read, and refuses others"):format(name), function()
      local info = codec.get(name)
      local data = codecs.records(30000)
      for level = info.level_min, info.level_max do
        check_same(data, codec.decompress(name, encode(name, data, { level = level })), "level " .. level)
      end
      check_misuse(("'level' must be from %d to %d"):format(info.level_min, info.level_max), codec.encoder, name,
        { level = info.level_max + 1 })
      check_misuse("'level' must be from", codec.encoder, name, { level = info.level_min - 1 })
    end)

    it(("%s makes pieces of at most so many bytes, and full ones but the last"):format(name), function()
      local data = codecs.noise(100000)
      for _, piece_bytes in ipairs { 512, 1000, 65536, 1 << 20 } do
        local list = pieces_of(name, data, { piece_bytes = piece_bytes })
        for i, piece in ipairs(list) do
          assert.is_true(#piece == piece_bytes or i == #list and #piece <= piece_bytes, #piece)
        end
        check_same(data, codec.decompress(name, table.concat(list)), piece_bytes)
      end
    end)

    it(("%s never gives more than max_length at once"):format(name), function()
      local data = codecs.records(300000)
      local count = 0
      local dec = codec.decoder(name, { max_length = 1000 })
      for bytes in dec:chunks(encode(name, data)) do
        assert.is_true(#bytes >= 1 and #bytes <= 1000)
        count = count + 1
      end
      assert.is_true(count >= 300)
    end)

    it(("%s refuses every prefix of a stream as incomplete"):format(name), function()
      for _, data in ipairs { "", codecs.hex(300) } do
        local stream = encode(name, data)
        for len = 0, #stream - 1 do
          check_error("DATA_LOSS", "ends too early", codec.decompress(name, stream:sub(1, len)))
        end
      end
    end)

    it(("%s never gives wrong bytes for a damaged stream [limit 30]"):format(name), function()
      local data = codecs.hex(400)
      local stream = encode(name, data)
      local refused = 0
      for i = 1, #stream do
        for _, change in ipairs { 0x01, 0x10, 0x80, 0xff } do
          local damaged = stream:sub(1, i - 1) .. string.char(stream:byte(i) ~ change) .. stream:sub(i + 1)
          local got, err = codec.decompress(name, damaged)
          if got then
            check_same(data, got, "byte " .. i)
          else
            assert.truthy(("DATA_LOSS INVALID_ARGUMENT RESOURCE_EXHAUSTED"):find(err.code, 1, true), err.code)
            assert.equal(name .. ": ", err.message:sub(1, #name + 2))
            refused = refused + 1
          end
        end
      end
      assert.is_true(refused > #stream * 4 * 0.95, refused) -- the rest is time stamps and padding
    end)

    it(("%s refuses what follows the end: garbage, zeros, a second stream"):format(name), function()
      local stream = encode(name, "first")
      for _, more in ipairs { "x", "\0", "\0\0\0\0", stream, encode(name, "") } do
        check_error("INVALID_ARGUMENT", "behind its end", codec.decompress(name, stream .. more))
        for _, slices in ipairs { { stream, more }, codecs.bytes(stream .. more) } do
          check_error("INVALID_ARGUMENT", "behind its end", codecs.decode_slices(name, slices))
        end
      end
    end)

    it(("%s refuses what does not begin like it, at the first wrong byte"):format(name), function()
      for _, other in ipairs { "hello", "\0\0\0\0\0\0\0\0", ("\xff"):rep(20) } do
        check_error("INVALID_ARGUMENT", nil, codec.decompress(name, other))
      end
      for _, other in ipairs(codecs.BUILT_IN) do
        if other ~= name then check_error("INVALID_ARGUMENT", nil, codec.decompress(name, encode(other, "hello"))) end
      end
    end)

    it(("%s lets through exactly max_bytes"):format(name), function()
      for _, size in ipairs { 1, 1000, 65536, 300000 } do
        local stream = encode(name, codecs.records(size))
        assert.equal(size, #assert(codec.decompress(name, stream, { max_bytes = size })))
        if size > 1 then
          check_error("RESOURCE_EXHAUSTED", ("more than the %d bytes"):format(size - 1),
            codec.decompress(name, stream, { max_bytes = size - 1 }))
        end
      end
    end)

    it(("%s stops a bomb at the ceiling, having given no byte more [limit 30]"):format(name), function()
      local ceiling, total = 64 << 20, 0
      local dec = codec.decoder(name, { max_bytes = ceiling })
      local ok, err = pcall(function()
        for bytes in dec:chunks(codecs.bomb(name, 1)) do total = total + #bytes end
      end)
      assert.is_false(ok)
      assert.equal("RESOURCE_EXHAUSTED", err.code, tostring(err))
      assert.is_true(total <= ceiling and total > ceiling - (1 << 20), total)
      check_error("RESOURCE_EXHAUSTED", nil, dec:write "x") -- and it stays
      check_error("RESOURCE_EXHAUSTED", nil, dec:finish())
    end)

    it(("%s gives both sides the same digest, whatever the cuts"):format(name), function()
      local data = codecs.mixed(200000)
      local enc = codec.encoder(name, { digest = true })
      local list = {}
      for piece in enc:pieces(codecs.slices(data, 30000)) do list[#list + 1] = piece end
      local dec = codec.decoder(name, { digest = true })
      for _ in dec:chunks(codecs.slices(table.concat(list), 9999)) do end -- luacheck: ignore 542
      assert.equal(codec.digest(data), enc:digest())
      assert.equal(codec.digest(data), dec:digest())
      assert.is_nil(codec.encoder(name):digest())
    end)
  end

  for _, name in ipairs(codecs.SYNCING) do
    it(("%s: after a flush everything that was written can be decoded"):format(name), function()
      for _, piece_bytes in ipairs { 512, 65536 } do
        local enc, dec = codec.encoder(name, { piece_bytes = piece_bytes }), codec.decoder(name)
        local written, read = {}, {}
        for _, size in ipairs { 1, 5, 1000, 3, 40000, 1, 200000, 17, 507, 508, 509, 510, 511, 512, 513 } do
          written[#written + 1] = codecs.mixed(size)
          local list = assert(enc:write(written[#written]))
          append(list, assert(enc:flush()))
          for _, piece in ipairs(list) do
            assert.is_true(#piece <= piece_bytes)
            read[#read + 1] = assert(codecs.decode_slice(dec, piece))
          end
          check_same(table.concat(written), table.concat(read), ("%s after %d bytes"):format(name, size))
        end
        assert.is_false(dec:is_ended())
        for _, piece in ipairs(enc:finish()) do assert(dec:write(piece)) end
        assert.is_true(dec:finish())
        assert.is_true(dec:is_ended())
      end
    end)

    it(("%s: a flush with nothing new gives nothing"):format(name), function()
      local enc = codec.encoder(name)
      assert.same({}, enc:flush())
      enc:write "x"
      assert.equal(1, #enc:flush())
      assert.same({}, enc:flush())
      enc:write ""
      assert.same({}, enc:flush())
    end)

    it(("%s: a whole piece needs no other one to be decoded"):format(name), function()
      for _, piece_bytes in ipairs { 512, 1000, 65536 } do
        for _, size in ipairs { 1, 351, 352, 353, 5000, 200000 } do
          local data = codecs.noise(size)
          local dec, read, given = codec.decoder(name), {}, 0
          local list = pieces_of(name, codecs.slices(data, 10000), { piece_bytes = piece_bytes, whole = true })
          for _, piece in ipairs(list) do
            assert.is_true(#piece <= piece_bytes, #piece)
            local bytes = assert(codecs.decode_slice(dec, piece))
            assert.is_true(#bytes > 0, "a piece without anything in it")
            read[#read + 1], given = bytes, given + #bytes
            assert.is_true(given % (piece_bytes - piece_bytes // 128 - 160) == 0 or given == size, given)
          end
          check_same(data, table.concat(read), size)
          assert.is_true(dec:finish())
        end
      end
    end)
  end

  it("bz2 has no sync points, and says so", function()
    assert.is_false(codec.get "bz2".syncs)
    check_misuse("pieces of bz2 cannot be whole", codec.encoder, "bz2", { whole = true })
    local enc = codec.encoder "bz2"
    local data = codecs.mixed(100000)
    local list = enc:write(data)
    append(list, enc:flush())
    assert.is_true(#list > 0)
    append(list, enc:write(data))
    append(list, enc:finish())
    check_same(data .. data, codec.decompress("bz2", table.concat(list)), "flushed")
  end)
end)

describe("gzip", function()
  it("begins with the original's header, whatever the level", function()
    for level = 0, 9 do
      local xfl = level == 9 and 2 or level == 1 and 4 or 0
      local expected = string.pack("<BBBBI4BB", 0x1f, 0x8b, 8, 0, 0x01020304, xfl, 255)
      for _, size in ipairs { 0, 10, 100000 } do
        local stream = encode("gzip", codecs.hex(size), { level = level, mtime = 0x01020304 })
        assert.equal(expected, stream:sub(1, 10))
      end
    end
  end)

  it("carries the present time when nobody says another", function()
    local before = os.time()
    local mtime = string.unpack("<I4", encode("gzip", "x"), 5)
    assert.is_true(mtime >= before and mtime <= os.time())
  end)

  it("takes any legal header, and checks its checksum", function()
    local body = encode("gzip", "hello"):sub(11)
    local header = "\x1f\x8b\x08\x1f\1\2\3\4\2\3" .. "\5\0extra" .. "a name\0" .. "a comment\0"
    local crc = string.pack("<I2", crc32(header) & 0xffff)
    assert.equal("hello", codec.decompress("gzip", header .. crc .. body))
    check_same("hello", codecs.decode_slices("gzip", codecs.bytes(header .. crc .. body)), "bytes")
    check_error("DATA_LOSS", "header crc", codec.decompress("gzip", header .. "\0\0" .. body))
    check_error("DATA_LOSS", "unknown header flags", codec.decompress("gzip", "\x1f\x8b\x08\x20" .. header:sub(5)))
  end)

  it("checks checksum and length at the end", function()
    local stream = encode("gzip", "hello")
    local at_crc, at_len = #stream - 7, #stream - 3
    local function damaged(at) return stream:sub(1, at - 1) .. "!" .. stream:sub(at + 1) end
    check_error("DATA_LOSS", "incorrect data check", codec.decompress("gzip", damaged(at_crc)))
    check_error("DATA_LOSS", "incorrect length check", codec.decompress("gzip", damaged(at_len)))
  end)

  it("refuses the second of a thousand members", function()
    check_error("INVALID_ARGUMENT", "behind its end", codec.decompress("gzip", encode("gzip", "x"):rep(1000)))
  end)
end)

describe("what a stream may ask for", function()
  -- The block header of an xz stream with another size of the dictionary.
  local function with_dictionary(byte)
    local stream = encode("lzma", "hello")
    local len = (stream:byte(13) + 1) * 4
    local header = stream:sub(13, 12 + len - 4):gsub("\x21\x01.", "\x21\x01" .. string.char(byte), 1)
    return stream:sub(1, 12) .. header .. string.pack("<I4", crc32(header)) .. stream:sub(13 + len)
  end

  it("ends at 8 MiB for zstd, and not at the 2 GiB that it can say", function()
    local function frame(exponent)
      return "\x28\xb5\x2f\xfd\0" .. string.char(exponent - 10 << 3) .. string.pack("<I3", 5 << 3 | 1) .. "hello"
    end
    assert.equal("hello", codec.decompress("zstd", frame(10)))
    assert.equal("hello", codec.decompress("zstd", frame(23)))
    for _, exponent in ipairs { 24, 27, 31, 41 } do
      check_error("RESOURCE_EXHAUSTED", "memory", codec.decompress("zstd", frame(exponent)))
    end
    assert.equal("hello", codec.decompress("zstd", frame(27), { window_bytes = 1 << 27 }))
    check_error("RESOURCE_EXHAUSTED", nil, codec.decompress("zstd", frame(21), { window_bytes = 1 << 20 }))
  end)

  it("ends at 64 MiB for lzma, and not at the 4 GiB that it can say", function()
    assert.equal("hello", codec.decompress("lzma", with_dictionary(28))) -- 64 MiB
    for _, byte in ipairs { 29, 30, 39, 40 } do
      check_error("RESOURCE_EXHAUSTED", "dictionary", codec.decompress("lzma", with_dictionary(byte)))
    end
    check_error("RESOURCE_EXHAUSTED", "dictionary",
      codec.decompress("lzma", with_dictionary(28), { window_bytes = 1 << 20 }))
    assert.equal("hello", codec.decompress("lzma", with_dictionary(29), { window_bytes = 96 << 20 }))
  end)

  it("is for every level of ours what every decoder gives", function()
    for _, name in ipairs { "zstd", "lzma" } do
      local stream = encode(name, codecs.records(20000), { level = codec.get(name).level_max })
      assert(codec.decompress(name, stream, { window_bytes = 8 << 20 }))
    end
  end)

  it("does not include a dictionary, a frame to be skipped, or an unknown filter", function()
    local skipped = "\x50\x2a\x4d\x18\4\0\0\0abcd"
    for _, name in ipairs { "zstd", "lz4" } do
      check_error("INVALID_ARGUMENT", nil, codec.decompress(name, skipped))
      check_error("INVALID_ARGUMENT", nil, codec.decompress(name, skipped .. encode(name, "x")))
    end
    check_error("INVALID_ARGUMENT", "dictionary", codec.decompress("zlib", "\x78\xbb\0\0\0\1" .. ("x"):rep(20)))
    check_error("INVALID_ARGUMENT", "dictionary",
      codec.decompress("zlib", "\x78\xbb\0\0\0\1"))
    check_error("INVALID_ARGUMENT", nil, codec.decompress("zstd", "\x28\xb5\x2f\xfd\3\0\1\0\0\0" .. ("x"):rep(20)))
  end)
end)

describe("an encoder", function()
  it("takes at the one end while another task takes at the other", function()
    for _, name in ipairs(codecs.BUILT_IN) do
      local data = codecs.mixed(1 << 20)
      local enc, dec = codec.encoder(name), codec.decoder(name)
      local pump = task.spawn(function()
        for piece in enc.take, enc do dec:feed(piece) end
        dec:feed(nil)
      end)
      local read = {}
      local reader = task.spawn(function()
        for bytes in dec.take, dec do read[#read + 1] = bytes end
      end)
      for _, slice in ipairs(codecs.slices(data, 100000)) do
        assert.is_true(enc:feed(slice))
        task.sleep(0)
      end
      enc:feed(nil)
      pump:join()
      reader:join()
      check_same(data, table.concat(read), name)
    end
  end)

  it("works ahead no further than it must, when nobody takes", function()
    local enc <close> = codec.encoder "gzip"
    enc:feed(codecs.noise(8 << 20))
    process.eventually(function() return enc:queued() < 8 << 20 end, "it has begun")
    local before
    process.eventually(function()
      local now = enc:queued()
      local stands = now == before
      before = now
      if not stands then task.sleep(0.05) end
      return stands
    end, "it stands")
    assert.is_true(enc:queued() > 6 << 20, enc:queued())
  end)

  it("says what is wrong with its use, at the caller's line", function()
    local enc = codec.encoder "gzip"
    check_misuse("unknown codec 'gzp', did you mean 'gzip'", codec.encoder, "gzp")
    check_misuse("unknown codec 'nil'", codec.encoder, nil)
    check_misuse("unknown option 'lvel', did you mean 'level'", codec.encoder, "gzip", { lvel = 1 })
    check_misuse("'piece_bytes' must be from 512 to 67108864, got 511", codec.encoder, "gzip", { piece_bytes = 511 })
    check_misuse("'mtime' must be from 0", codec.encoder, "gzip", { mtime = -1 })
    check_misuse("write takes a string, got nil", enc.write, enc)
    check_misuse("feed takes a string, got number", enc.feed, enc, 1)
    check_misuse("pieces takes a string, a list of strings or a function", enc.pieces, enc, 1)
    enc:write "x"
    enc:finish()
    for _, method in ipairs { "write", "flush", "finish", "feed", "pieces" } do
      check_misuse("the encoder has finished", enc[method], enc, "x")
    end
    enc:close()
    enc:close()
    for _, method in ipairs { "write", "flush", "finish", "feed", "pieces", "take", "digest" } do
      check_misuse("the encoder is closed", enc[method], enc, "x")
    end
    check_misuse("codec.compress takes a string", codec.compress, "gzip", 1)
    check_misuse("codec.decompress: unknown option 'max_byte', did you mean 'max_bytes'", codec.decompress, "gzip", "",
      { max_byte = 1 })
  end)

  it("raises what its source raises, and what is wrong with what it gives", function()
    local function failing() return nil, errors.new("NOT_FOUND", "no file") end
    for _, source in ipairs { failing, function() error(errors.new("NOT_FOUND", "no file")) end } do
      local ok, err = pcall(function() pieces_of("gzip", source) end)
      assert.is_false(ok)
      assert.equal("NOT_FOUND", err.code)
    end
    local ok, err = pcall(function() pieces_of("gzip", function() return 1 end) end)
    assert.is_false(ok)
    assert.truthy(err:find "gave a number in place of a string")
  end)

  it("loses no piece when take() and write() are mixed", function()
    local data = codecs.noise(400000)
    local enc = codec.encoder "gzip"
    enc:feed(data:sub(1, 300000))
    local list = { enc:take() }
    append(list, enc:write(data:sub(300001)))
    append(list, enc:finish())
    check_same(data, codec.decompress("gzip", table.concat(list)), "all")
  end)
end)

describe("a decoder", function()
  it("says what is wrong with its use, at the caller's line", function()
    local dec = codec.decoder("gzip", { max_length = 10 })
    check_misuse("'max_bytes' must be from 1", codec.decoder, "gzip", { max_bytes = 0 })
    check_misuse("'max_length' must be from 1", codec.decoder, "gzip", { max_length = 0 })
    check_misuse("'window_bytes' must be from 1024", codec.decoder, "gzip", { window_bytes = 1 })
    check_misuse("write takes a string, got number", dec.write, dec, 1)
    check_misuse("chunks takes a string, a list of strings or a function", dec.chunks, dec, 1)
    assert.equal(10, #dec:write(encode("gzip", codecs.hex(100))))
    check_misuse("has more to give", dec.write, dec, "x")
    check_misuse("has more to give", dec.finish, dec)
    dec:feed(nil)
    check_misuse("nothing can follow", dec.feed, dec, "x")
    dec:close()
    for _, method in ipairs { "write", "finish", "feed", "chunks", "take", "digest" } do
      check_misuse("the decoder is closed", dec[method], dec, "x")
    end
  end)

  it("takes its time: what it has is given before the source is asked again", function()
    local enc = codec.encoder("gzip")
    local list = {}
    for i = 1, 3 do
      enc:write("part " .. i)
      list[i] = table.concat(enc:flush())
    end
    local asked, seen = 0, {}
    local dec = codec.decoder "gzip"
    local function source()
      assert.equal(asked, #seen)
      asked = asked + 1
      return list[asked]
    end
    pcall(function()
      for bytes in dec:chunks(source) do seen[#seen + 1] = bytes end
    end)
    assert.same({ "part 1", "part 2", "part 3" }, seen)
  end)

  it("raises at the end of chunks() when the stream is not complete", function()
    local stream = encode("gzip", "hello")
    local seen = {}
    local ok, err = pcall(function()
      for bytes in codec.decoder "gzip":chunks(stream:sub(1, -2)) do seen[#seen + 1] = bytes end
    end)
    assert.same({ "hello" }, seen)
    assert.is_false(ok)
    assert.equal("DATA_LOSS", err.code)
  end)

  it("take() ends with nil at the end of the stream, and with an error before it", function()
    local stream = encode("zstd", "hello")
    local dec = codec.decoder "zstd"
    dec:feed(stream)
    dec:feed(nil)
    assert.equal("hello", dec:take())
    assert.is_nil(dec:take())
    dec = codec.decoder "zstd"
    dec:feed(stream:sub(1, -2))
    dec:feed(nil)
    assert.equal("hello", dec:take())
    check_error("DATA_LOSS", "too early", dec:take())
    check_error("DATA_LOSS", "too early", dec:take())
  end)
end)

describe("the pool", function()
  local function busy_encoder(len) -- for a second or so
    local enc = codec.encoder("lzma", { level = 6 })
    enc:feed(codecs.hex(len or 2 << 20))
    enc:feed(nil)
    return enc
  end

  it("does the work while Lua goes on", function()
    local turns, done = 0, false
    local ticking = task.spawn(function()
      while not done do
        task.sleep(0.001)
        turns = turns + 1
      end
    end)
    repeat -- as often as the machine needs, within the test's time
      assert.is_true(#encode("lzma", codecs.hex(300000), { level = 6 }) > 0)
    until turns > 20
    done = true
    ticking:join()
  end)

  it("is shared: a file can be read while many encoders are busy [limit 40]", function()
    local left, running, data = 8, {}, codecs.hex(300000)
    for i = 1, left do
      running[i] = task.spawn(function()
        encode("lzma", data, { level = 6 })
        left = left - 1
      end)
    end
    task.sleep(0.01)
    local came = task.promise()
    uv.fs_stat("Makefile", function(_, stat) came:resolve(stat.size) end)
    assert.is_true(came:await() > 0)
    assert.equal(8, left)
    task.all(running)
  end)

  it("may have an object that is closed, and whoever waits gets CANCELLED", function()
    local enc = busy_encoder()
    local taker = task.spawn(function() return enc:take() end)
    task.sleep(0)
    enc:close()
    local piece, err = taker:join()
    check_error("CANCELLED", "closed", piece, err)
    check_misuse("the encoder is closed", enc.take, enc)
  end)

  it("may have an object whose task is cancelled: it is closed", function()
    local enc = busy_encoder()
    local taker = task.spawn(function() return enc:take() end)
    task.sleep(0)
    assert.is_true(taker:cancel())
    check_misuse("the encoder is closed", enc.take, enc)
  end)

  it("may have an object that nobody knows any more: it is collected when the pool has let go", function()
    local watch = setmetatable({}, { __mode = "v" })
    for i = 1, 5 do watch[i] = busy_encoder(300000) end
    collectgarbage()
    assert.truthy(next(watch), "collected while the pool has it, which waits for the pool")
    process.eventually(function()
      collectgarbage()
      return next(watch) == nil
    end, "all are collected", 20)
  end)

  it("is asked early for what is ready, and late for what may wait", function()
    for _, ready in ipairs { true, false } do
      local given, most, out = 0, 0, 0
      local function source()
        given = given + 1
        most = math.max(most, given * 100000 - out)
        return given <= 20 and codecs.noise(100000, given) or nil
      end
      local enc = codec.encoder "zstd"
      for piece in enc:pieces(source, function() return ready and given <= 20 end) do out = out + #piece end
      enc:close()
      assert.equal(21, given)
      assert.equal(ready, most > 800000, most) -- of what was given, not yet out
    end
  end)

  it("lets one task at a time take", function()
    local enc = busy_encoder()
    local taker = task.spawn(function() return enc:take() end)
    task.sleep(0.001)
    check_misuse("has a taker already", enc.take, enc)
    enc:close()
    taker:join()
  end)

  it("keeps what it reads: inputs may be collected only when they are used", function()
    local enc = codec.encoder("gzip", { digest = true })
    local all = {}
    for i = 1, 40 do
      all[i] = codecs.records(50000 + i)
      enc:feed(codecs.records(50000 + i))
      collectgarbage()
    end
    enc:feed(nil)
    local list = {}
    for piece in enc.take, enc do
      list[#list + 1] = piece
      collectgarbage()
    end
    check_same(table.concat(all), codec.decompress("gzip", table.concat(list)), "all")
    assert.equal(codec.digest(table.concat(all)), enc:digest())
  end)

  it("forgets nobody who waits, when the damage is found while more is put in", function()
    local damaged = encode("gzip", codecs.hex(100000)):sub(1, -9) .. "no trace"
    for _ = 1, 200 do
      local dec <close> = codec.decoder "gzip"
      dec:feed(damaged)
      local enough = core.now() + 0.003
      while core.now() < enough do dec:feed "more" end
      local _, err = task.timeout(process.limit(5), function()
        for _ in dec.take, dec do end -- luacheck: ignore 542
        return dec:take()
      end)
      assert.equal("DATA_LOSS", err.code)
    end
  end)

  it("cannot be waited for where nothing can wait", function()
    local enc = codec.encoder "gzip"
    local ok, err = pcall(table.sort, { 2, 1 }, function() return enc:write "x" end)
    assert.is_false(ok)
    assert.truthy(tostring(err):find "cannot wait here")
  end)
end)

describe("a digest", function()
  it("is that of XXH3 with 128 bits", function()
    local function hex(bytes) return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end)) end
    assert.equal("99aa06d3014798d86001c324468d497f", hex(codec.digest ""))
    assert.equal("06b05ab6733a618578af5f94892f3950", hex(codec.digest "abc"))
  end)
end)

describe("the page about it", function()
  it("has an example that runs", function()
    local file <close> = assert(io.open "docs/huge-data.md")
    local example = file:read "a":match "## Codecs.-```lua\n(.-)```"
    assert.truthy(example:find "codec.encoder")
    assert(load(example, "=docs/huge-data.md", "t"))()
  end)

  it("tells the levels, the sync points and the defaults as they are", function()
    local file <close> = assert(io.open "docs/huge-data.md")
    local page = file:read "a"
    for _, name in ipairs(codecs.BUILT_IN) do
      local info = codec.get(name)
      local row = page:match("\n| `" .. name .. "` |[^\n]*")
      local low, high, default, syncs = row:match "| (%d+) to (%d+) %((%d+)%) | (%l+) |"
      assert.same({ info.level_min, info.level_max, info.level_default, info.syncs },
        { tonumber(low), tonumber(high), tonumber(default), syncs == "yes" }, name)
    end
    assert.truthy(page:find(("| `piece_bytes` | %d |"):format(codec.PIECE_BYTES), 1, true))
    assert.truthy(page:find(("| `max_length` | %d |"):format(codec.MAX_LENGTH), 1, true))
    assert.truthy(page:find(("| `max_bytes` | %d MiB |"):format(codec.MAX_BYTES >> 20), 1, true))
  end)
end)

describe("a codec of one's own", function()
  local serial = 0

  local function register(compressor, decompressor, more)
    serial = serial + 1
    local options = { name = "own" .. serial, compressor = compressor, decompressor = decompressor }
    for name, value in pairs(more or {}) do options[name] = value end
    return codec.register(options).name
  end

  local function rot13(bytes)
    return (bytes:gsub("%a", function(c)
      local base = c:lower() == c and 97 or 65
      return string.char((c:byte() - base + 13) % 26 + base)
    end))
  end

  -- Every byte, and a zero at the end.
  local function zero_ended()
    local compressor = { compress = function(_, data) return rot13(data) end, flush = function() return "\0" end }
    local decompressor = { eof = false, rest = "", unused_data = "" }
    function decompressor:decompress(data, max_length)
      self.rest = self.rest .. data
      local bytes = self.rest:sub(1, max_length)
      self.rest = self.rest:sub(#bytes + 1)
      local zero = bytes:find("\0", 1, true)
      if zero then
        self.eof, self.unused_data = true, bytes:sub(zero + 1) .. self.rest
        bytes = bytes:sub(1, zero - 1)
      end
      return rot13(bytes)
    end
    return compressor, decompressor
  end

  local function zero_ended_codec()
    return register(function() return (zero_ended()) end, function() return select(2, zero_ended()) end)
  end

  it("works like the others: any size, cut in any way, with pieces and digests", function()
    local name = zero_ended_codec()
    for _, size in ipairs { 0, 1, 1000, 65537, 300000 } do
      local data = codecs.hex(size)
      local enc, list = codec.encoder(name, { piece_bytes = 1000, digest = true }), {}
      for piece in enc:pieces(codecs.slices(data, 70000)) do
        assert.is_true(#piece >= 1 and #piece <= 1000)
        list[#list + 1] = piece
      end
      assert.equal(rot13(data) .. "\0", table.concat(list))
      check_same(data, codecs.decode_slices(name, codecs.slices(table.concat(list), 5000), { max_length = 777 }), size)
      assert.equal(codec.digest(data), enc:digest())
    end
    assert.equal("hello", codec.decompress(name, encode(name, "hello")))
    assert.equal(name, codec.get(name).name)
  end)

  it("is refused like the others: incomplete, with a rest, above the ceiling", function()
    local name = zero_ended_codec()
    check_error("DATA_LOSS", "too early", codec.decompress(name, "uryyb"))
    check_error("DATA_LOSS", "too early", codec.decompress(name, ""))
    check_error("INVALID_ARGUMENT", "behind its end", codec.decompress(name, "uryyb\0x"))
    check_error("INVALID_ARGUMENT", "behind its end", codecs.decode_slices(name, { "uryyb\0", "x" }))
    assert.equal(1000, #codec.decompress(name, encode(name, codecs.hex(1000)), { max_bytes = 1000 }))
    check_error("RESOURCE_EXHAUSTED", "more than the 999 bytes",
      codec.decompress(name, encode(name, codecs.hex(1000)), { max_bytes = 999 }))
  end)

  it("is told its level", function()
    local levels = {}
    local name = register(function(level)
      levels[#levels + 1] = level
      return (zero_ended())
    end, function() end, { level = 7 })
    encode(name, "x")
    encode(name, "x", { level = 3 })
    assert.same({ 7, 3 }, levels)
  end)

  it("may go without eof: then its bytes end where they end", function()
    local name = register(function() return (zero_ended()) end, function()
      return { rest = "", decompress = function(self, data, max_length)
        self.rest = self.rest .. data
        local bytes = self.rest:sub(1, max_length)
        self.rest = self.rest:sub(max_length + 1)
        return bytes
      end }
    end)
    assert.equal("hello", codec.decompress(name, "hello"))
    check_same(("x"):rep(200000), codec.decompress(name, ("x"):rep(200000)), "long")
  end)

  it("cannot give more than it was asked for, nor anything but strings, nor nothing for ever", function()
    local function with(decompress, more)
      return register(function() return (zero_ended()) end, function()
        local object = more or {}
        object.decompress = decompress
        return object
      end)
    end
    check_error("INTERNAL", "gave 1000000 bytes where at most 65536",
      codec.decompress(with(function() return ("x"):rep(1000000) end), "x"))
    check_error("RESOURCE_EXHAUSTED", nil,
      codec.decompress(with(function(_, _, max) return ("x"):rep(max) end), "x", { max_bytes = 1000000 }))
    check_error("INTERNAL", "gave a nil in place of a string", codec.decompress(with(function() end), "x"))
    check_error("INTERNAL", "wants no input either",
      codec.decompress(with(function() return "" end, { needs_input = false }), "x"))
    check_error("INTERNAL", "no method 'decompress'", codec.decompress(with(nil), "x"))
    local broken = register(function() return {} end, function() return nil end)
    check_error("INTERNAL", "no method 'compress'", codec.compress(broken, "x"))
    check_error("INTERNAL", "no method 'decompress'", codec.decompress(broken, "x"))
  end)

  it("raises errors of its own: typed ones as they are, others as INTERNAL and DATA_LOSS", function()
    local raised
    local function raising() error(raised, 0) end
    local name = register(function() return { compress = raising, flush = raising } end,
      function() return { decompress = raising } end)
    raised = "broken"
    check_error("INTERNAL", name .. ": broken", codec.compress(name, "x"))
    check_error("DATA_LOSS", name .. ": broken", codec.decompress(name, "x"))
    raised = errors.new("PERMISSION_DENIED", "not today")
    check_error("PERMISSION_DENIED", "not today", codec.compress(name, "x"))
    check_error("PERMISSION_DENIED", "not today", codec.decompress(name, "x"))
    local unmade = register(raising, raising)
    check_error("INTERNAL", "cannot be made: PERMISSION_DENIED", codec.compress(unmade, "x"))
  end)

  it("lets others run between its slices", function()
    local name, turns, done = zero_ended_codec(), 0, false
    local other = task.spawn(function()
      while not done do
        task.sleep(0)
        turns = turns + 1
      end
    end)
    local data = codecs.hex(1 << 20)
    check_same(data, codec.decompress(name, encode(name, data)), "long")
    done = true
    other:join()
    assert.is_true(turns >= 20, turns)
  end)

  it("is closed with its task, in the middle of its work", function()
    local name = zero_ended_codec()
    local enc = codec.encoder(name)
    local writer = task.spawn(function() enc:write(("x"):rep(10 << 20)) end)
    task.sleep(0)
    task.sleep(0)
    assert.is_true(writer:cancel())
    check_misuse("the encoder is closed", enc.write, enc, "x")
  end)

  it("must have a name that is free, and both functions", function()
    local function nothing() end
    check_misuse("there is a codec 'gzip' already", codec.register,
      { name = "gzip", compressor = nothing, decompressor = nothing })
    check_misuse("cannot name a codec", codec.register, { name = "a b", compressor = nothing, decompressor = nothing })
    check_misuse("option 'decompressor' is missing", codec.register, { name = "x", compressor = nothing })
    check_misuse("unknown option 'compress', did you mean 'compressor'", codec.register, { compress = nothing })
    local name = zero_ended_codec()
    check_misuse("it has no sync points", codec.encoder, name, { whole = true })
    local value, err = codec.get "owm1"
    check_error("INVALID_ARGUMENT", "unknown codec 'owm1'", value, err)
  end)
end)
