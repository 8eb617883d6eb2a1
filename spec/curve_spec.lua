local curve = require "gaterpc.curve"
local has = require "support.has"
local process = require "support.process"
local pretty = require "gaterpc.pretty"
local uv = require "luv"

local function mode_of(path)
  return ("%03o"):format(assert(uv.fs_stat(path)).mode & 511)
end

local function python(text, ...)
  local run = process.run("/usr/bin/python3", { "-c", text, ... })
  assert.equal(0, run:wait_exit())
  return run.out
end

-- A key file by hand.
local function file(text, name)
  local path = process.file(name or "some.key", text)
  assert(uv.fs_chmod(path, 384))
  return path
end

local function failure(code, ...)
  local value, err = ...
  assert.is_nil(value)
  assert.equal(code, err.code, err.message)
  return err.message
end

describe("curve", function()
  after_each(process.finish)

  it("makes pairs of keys that belong together, each time another one", function()
    local pair, other = curve.generate(), curve.generate()
    assert.is_true(curve.is_key(pair.public) and curve.is_key(pair.secret))
    assert.equal(pair.public, curve.public(pair.secret))
    assert.are_not.equal(pair.secret, other.secret)
    assert.are_not.equal(pair.public, other.public)
  end)

  it("knows a key when it sees one", function()
    local key = curve.generate().public
    for _, wrong in ipairs { "", key:sub(2), key .. "0", key:sub(2) .. "\\", key:sub(2) .. "\0", key:sub(2) .. " ",
      ("#"):rep(40) } do
      assert.is_false(curve.is_key(wrong))
      failure("INVALID_ARGUMENT", curve.public(wrong))
    end
    assert.is_false(curve.is_key(nil))
    assert.is_false(curve.is_key(12))
    assert.is_true(curve.is_key(("0"):rep(40)))
  end)

  it("derives the public key that the ZeroMQ manual has for its example", function()
    assert.equal("Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID", curve.public "D:)Q[IlAW!ahhC2ac:9*A}h:p?([4%wOTJ%JR%cs")
  end)

  it("shows a pair without its secret key", function()
    local pair = curve.generate()
    for _, text in ipairs { tostring(pair), pretty(pair), pretty { pair } } do
      has(text, pair.public)
      assert.is_nil(text:find(pair.secret, 1, true))
    end
  end)

  it("saves a pair as two files, of which only the owner can read the secret one", function()
    local pair, path = curve.generate(), process.dir() .. "/ann.key"
    assert.equal(path .. "_secret", curve.save(path, pair, { name = "Ann", note = "it's # hers" }))
    assert.same({ "600", "644" }, { mode_of(path .. "_secret"), mode_of(path) })
    assert.is_nil(process.read(path):find(pair.secret, 1, true))
    local public, both = assert(curve.load(path)), assert(curve.load(path .. "_secret"))
    assert.same({ pair.public, nil }, { public.public, public.secret })
    assert.same({ pair.public, pair.secret }, { both.public, both.secret })
    assert.same({ name = "Ann", note = "it's # hers" }, both.metadata)
    assert.same(both.metadata, public.metadata)
  end)

  it("saves a public key alone", function()
    local path = process.dir() .. "/ann.key"
    assert.equal(path, curve.save(path, { public = curve.generate().public }))
    assert.is_nil(uv.fs_stat(path .. "_secret"))
  end)

  it("never overwrites, and leaves nothing half-made", function()
    local path = process.dir() .. "/ann.key"
    local pair = curve.generate()
    assert(curve.save(path, pair))
    has(failure("INVALID_ARGUMENT", curve.save(path, curve.generate())), "exists", path)
    assert.equal(pair.secret, curve.load(path .. "_secret").secret)
    os.remove(path .. "_secret")
    failure("INVALID_ARGUMENT", curve.save(path, curve.generate()))
    assert.is_nil(uv.fs_stat(path .. "_secret"))
    assert(uv.fs_symlink(process.dir() .. "/elsewhere", process.dir() .. "/link"))
    failure("INVALID_ARGUMENT", curve.save(process.dir() .. "/link", { public = pair.public }))
    assert.is_nil(uv.fs_stat(process.dir() .. "/elsewhere"))
    failure("NOT_FOUND", curve.save(process.dir() .. "/nowhere/ann.key", pair))
  end)

  it("raises at whoever saves what is no pair", function()
    local pair, path = curve.generate(), process.dir() .. "/ann.key"
    for part, wrong in pairs {
      ["takes a pair"] = { path, pair.public },
      ["takes the path"] = { 1, pair },
      ["'public' is no key"] = { path, { secret = pair.secret } },
      ["'secret' is no key"] = { path, { public = pair.public, secret = "hidden" } },
      ["does not belong"] = { path, { public = pair.public, secret = curve.generate().secret } },
      ["cannot be a name"] = { path, pair, { ["a b"] = 1 } },
      ["must be one line"] = { path, pair, { a = "x\ny" } },
    } do
      local ok, err = pcall(curve.save, table.unpack(wrong))
      assert.is_false(ok)
      has(err, part)
      assert.is_nil(err:find(pair.secret, 1, true))
    end
    assert.is_nil(uv.fs_stat(path))
    assert.is_nil(uv.fs_stat(path .. "_secret"))
  end)

  it("refuses a secret key that others can read, and says what to do", function()
    local path = process.dir() .. "/ann.key"
    assert(curve.save(path, curve.generate()))
    for _, mode in ipairs { 420, 416, 388, 402 } do
      assert(uv.fs_chmod(path .. "_secret", mode))
      has(failure("PERMISSION_DENIED", curve.load(path .. "_secret")), "chmod 600 " .. path .. "_secret")
    end
    assert(uv.fs_chmod(path .. "_secret", 256)) -- 0400
    assert(curve.load(path .. "_secret"))
  end)

  it("says what is wrong with a file", function()
    local pair = curve.generate()
    local public = ("    public-key = \"%s\"\n"):format(pair.public)
    has(failure("NOT_FOUND", curve.load(process.dir() .. "/none")), "no such file")
    has(failure("INVALID_ARGUMENT", curve.load(process.dir())), "directory")
    assert.is_nil(failure("INVALID_ARGUMENT", curve.load(pair.secret)):find(pair.secret, 1, true))
    has(failure("INVALID_ARGUMENT", curve.load(file(("x"):rep(70000)))), "too large")
    has(failure("INVALID_ARGUMENT", curve.load(file "")), "is no key file")
    has(failure("INVALID_ARGUMENT", curve.load(file("metadata\n" .. public))), "is no key file")
    has(failure("INVALID_ARGUMENT", curve.load(file "curve\n    public-key = \"short\"\n")), "no key in Z85")
    local stranger = curve.generate().secret
    local message = failure("INVALID_ARGUMENT",
      curve.load(file(("curve\n%s    secret-key = \"%s\"\n"):format(public, stranger))))
    has(message, "does not belong")
    assert.is_nil(message:find(stranger, 1, true))
    has(failure("INVALID_ARGUMENT", curve.load(file "\0\xff\ncurve\n  public-key=\n")), "no key in Z85")
  end)

  it("reads files of pyzmq, and pyzmq reads ours", function()
    local dir = process.dir()
    python("import sys, zmq.auth; zmq.auth.create_certificates(sys.argv[1], 'bob', {'mail': 'bob@example.org'})", dir)
    assert(uv.fs_chmod(dir .. "/bob.key_secret", 384))
    local bob = assert(curve.load(dir .. "/bob.key_secret"))
    assert.equal(bob.public, curve.load(dir .. "/bob.key").public)
    assert.equal("bob@example.org", bob.metadata.mail)
    local pair = curve.generate()
    assert(curve.save(dir .. "/ann.key", pair, { name = "Ann" }))
    local files = { dir .. "/ann.key", dir .. "/ann.key_secret", dir .. "/bob.key_secret" }
    local out = python([[
import sys, zmq.auth
for path in sys.argv[1:]:
    public, secret = zmq.auth.load_certificate(path)
    print(public.decode(), secret and secret.decode())]], table.unpack(files))
    assert.equal(("%s None\n%s %s\n%s %s\n"):format(
      pair.public, pair.public, pair.secret, bob.public, bob.secret), out)
  end)

  it("reads ZPL as CZMQ writes it", function()
    local pair = curve.generate()
    local path = file(("#   comment\r\n    a = 1\r\nmetadata\r\n    email = \"ph@imatix.com\"\r\n"
      .. "    plain = a b   # why\r\ncurve\r\n"
      .. "    public-key = '%s'\r\n    secret-key = \"%s\"\r\n"):format(pair.public, pair.secret))
    local got = assert(curve.load(path))
    assert.same({ pair.public, pair.secret }, { got.public, got.secret })
    assert.same({ email = "ph@imatix.com", plain = "a b" }, got.metadata)
  end)

  describe("--keygen", function()
    local function run(...)
      local host = process.command { ... }
      return host:wait_exit(), host.out, host.err
    end

    it("makes a pair of files and says so, but never overwrites", function()
      local path = process.dir() .. "/host.key"
      local code, out, err = run("--keygen", path)
      assert.same({ 0, "" }, { code, err })
      has(out, path .. ": the public key", path .. "_secret: with the secret key")
      local pair = assert(curve.load(path .. "_secret"))
      assert.equal("600", mode_of(path .. "_secret"))
      assert.is_nil(out:find(pair.secret, 1, true))
      code, out, err = run("--keygen=" .. path)
      assert.same({ 1, "" }, { code, out })
      has(err, "gaterpc-host: cannot write", "exists")
      assert.equal(pair.secret, curve.load(path .. "_secret").secret)
    end)

    it("is a mistake without a path, or with two", function()
      local code, _, err = run "--keygen"
      assert.equal(2, code)
      has(err, "an argument is missing after '--keygen'")
      code, _, err = run("--keygen", "a", "--keygen", "b")
      assert.equal(2, code)
      has(err, "one pair at a time")
      assert.equal(2, (run "--keygenx"))
    end)
  end)
end)
