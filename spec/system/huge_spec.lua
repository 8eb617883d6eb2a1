-- HugeData: large results, compressed and in pieces, from worker to client through a broker.

local codecs = require "support.codecs"
local gaterpc = require "gaterpc"
local peers = require "support.peers"
local process = require "support.process"
local task = gaterpc.task

local Huge = gaterpc.Worker:extend "Huge"
local feeding = {} -- what became of the feeders

function Huge.interface:text(n) return ("0123456789abcdef"):rep(n // 16) end
function Huge.interface:bytes(n) return ("\xff\0\x80x"):rep(n // 4) end
function Huge.interface:list(n)
  local list = {}
  for i = 1, n do list[i] = { i = i } end
  return list
end
function Huge.interface:as(module, value, level)
  return gaterpc.HugeData { data = value, compress_module = module, compress_level = level }
end
function Huge.interface:fed(module, n, bytes)
  local huge = gaterpc.HugeData { compress_module = module }
  task.spawn(function()
    for i = 1, n do
      local put, err = huge.data:put(("%08d"):format(i) .. ("x"):rep(bytes - 8))
      feeding.put = i
      if not put then
        feeding.err = err
        return
      end
    end
    huge.data:close()
  end)
  return huge
end
function Huge.interface:noise(n)
  local huge = gaterpc.HugeData {}
  task.spawn(function()
    for i = 1, n do
      local put, err = huge.data:put(codecs.noise(8192, i))
      if not put then
        local _, again = huge.data:put "more"
        feeding.errs = { err, again }
        break
      end
      feeding.put = i
    end
    huge.data:close()
  end)
  return huge
end
function Huge.interface:failing()
  local huge = gaterpc.HugeData {}
  task.spawn(function()
    huge.data:put(("x"):rep(200000))
    huge.data:close(gaterpc.error("DATA_LOSS", "the disk is gone"))
  end)
  return huge
end

describe("huge data", function()
  local broker, front, back, worker, client, peer_list

  before_each(function()
    feeding, peer_list = {}, {}
    broker = gaterpc.Majordomo { backend = process.ipc "back" }
    broker:bind(process.ipc "front")
    front, back = broker:start():addresses()
  end)

  local function serve(dialect)
    worker = gaterpc.Service { name = "H" }:create_worker(Huge, { broker = back, dialect = dialect }):start()
    assert(worker:wait_ready(process.limit(5)))
  end

  local function connect(dialect, more)
    local given = { broker = front, dialect = dialect, timeout = process.limit(20) }
    for name, value in pairs(more or {}) do given[name] = value end
    client = gaterpc.Client(given)
    return client
  end

  after_each(function()
    for _, each in ipairs(peer_list) do assert.same({}, each:faults()) end
    if client then client:close() end
    if worker then worker:close() end
    broker:close()
    client, worker = nil, nil
    process.finish()
  end)

  for _, module in ipairs(codecs.BUILT_IN) do
    it("carries values of every kind in " .. module, function()
      serve()
      connect()
      for _, value in ipairs { "", "short", ("text"):rep(100000), ("\0\xff"):rep(50000), 5, true, { 1, { a = 2 } } } do
        assert.same(value, client.H.as(module, value))
      end
      assert.equal(gaterpc.null, client.H.as(module, { gaterpc.null })[1])
    end)

    it("can be fed while it flows, in " .. module, function()
      serve()
      connect()
      local bytes = 0
      for piece in client:huge("H", "fed", module, 100, 10000):pieces() do bytes = bytes + #piece end
      assert.equal(1000000, bytes)
      assert.equal(300, #client.H.fed(module, 3, 100))
    end)
  end

  it("is made of large results by itself, and not of small ones", function()
    local host = process.worker("A", [[
      function Class.interface:text(n) return ("0123456789abcdef"):rep(n // 16) end
    ]], back, {})
    assert(host)
    connect()
    for _, n in ipairs { 16, 60000, 65536, 70000, 640000 } do
      local reply = assert(client:huge("A", "text", n))
      assert.equal(n > 65500, getmetatable(reply).__name == "gaterpc.HugeReply" and reply.stream ~= nil)
      assert.equal(n, #reply:value())
    end
    assert.is_true(client.A.text(3200000) == ("0123456789abcdef"):rep(200000))
  end)

  it("comes in pieces, or goes to a file", function()
    serve()
    connect()
    local pieces, largest = {}, 0
    for piece in assert(client:huge("H", "as", "zstd", ("abc"):rep(1000000))):pieces() do
      pieces[#pieces + 1] = piece
      largest = math.max(largest, #piece)
    end
    assert.is_true(table.concat(pieces) == ("abc"):rep(1000000))
    assert.is_true(#pieces > 5 and largest <= 1 << 18)
    local path = process.file("huge.out", "")
    assert.equal(3000000, client:huge("H", "as", "gzip", ("abc"):rep(1000000)):write_to(path))
    assert.is_true(process.read(path) == ("abc"):rep(1000000))
    local _, err = client:huge("H", "as", "gzip", "x"):write_to "/nonexistent/file"
    assert.equal("INTERNAL", err.code)
    local reply = assert(client:huge("H", "as", "gzip", { 1, 2 }))
    local ok, failure = pcall(function() for _ in reply:pieces() do end end) -- luacheck: ignore 512
    assert.is_false(ok)
    assert.equal("INVALID_ARGUMENT", failure.code)
  end)

  it("fails with the feeder's error", function()
    serve()
    connect()
    local _, err = client:try("H", "failing")
    assert.equal("DATA_LOSS", err.code)
    assert.equal("the disk is gone", err.message)
    assert.equal("ok", client.H.as("gzip", "ok"))
  end)

  it("waits for its reader, and ends when nobody reads any more", function()
    serve()
    connect()
    local reply = assert(client:huge("H", "noise", 20000))
    local read = reply:pieces()
    read()
    local last
    process.eventually(function()
      local now = feeding.put
      local still = now == last
      last = now
      task.sleep(0.2)
      return still
    end, "the feeder to wait")
    assert.is_true(last * 8192 < 16 << 20, last .. " chunks are on their way to a reader that stands still")
    reply:close()
    process.eventually(function() return worker:stats().open == 0 end, "the end of the call")
    process.eventually(function() return feeding.errs end, "the feeder's end")
    assert.is_true(feeding.put < 20000)
    for i = 1, 2 do
      assert.equal("CANCELLED", feeding.errs[i].code)
      assert.equal("nobody takes the data any more", feeding.errs[i].message)
    end
  end)

  it("inflates to no more than it may", function()
    local host = process.host([[
      local gaterpc = require "gaterpc"
      gaterpc.Settings.HUGE_DATA_MAXBYTES = "1M"
      local client = gaterpc.Client { broker = ... }
      local value, err = client:try("H", "as", "gzip", ("x"):rep(2 << 20))
      print(value, err.code)
      print(#client.H.as("gzip", ("x"):rep(1 << 19)))
    ]], { args = { front } })
    serve()
    assert.equal(0, host:wait_exit())
    assert.equal("nil\tRESOURCE_EXHAUSTED\n524288\n", host.out)
  end)

  it("wrong options are errors that say what is right", function()
    local function fails(pattern, given)
      local ok, err = pcall(gaterpc.HugeData, given)
      assert.is_false(ok)
      assert.is_truthy(tostring(err):find(pattern), tostring(err))
    end
    fails("did you mean 'gzip'", { data = 1, compress_module = "gzpi" })
    fails("from 0 to 9", { data = 1, compress_module = "gzip", compress_level = 99 })
    fails("did you mean 'compress_level'", { data = 1, compres_level = 1 })
    fails("cannot be packed", { data = print })
  end)

  describe("and the original's programs:", function()
    for _, dialect in ipairs { "gate01", "gate02" } do
      it("a " .. dialect .. " client reads what a worker of ours compresses, of any size", function()
        serve()
        local c = peers.client { dialect = dialect, connect = front }
        peer_list[1] = c
        for _, n in ipairs { 1, 16, 900, 1000, 16000, 45000, 65536, 640000 } do
          local outcome = c:call("H", "as", { "gzip", { ["$repeat"] = { "x", n } } })
          assert.is_true(outcome.huge, outcome.error and outcome.error[2])
          assert.equal(n, type(outcome.result) == "string" and #outcome.result or outcome.result["$len"])
        end
        assert.is_nil(c:call("H", "text", { 640000 }).huge) -- it reads large messages, and faster
        local failed = c:call("H", "failing")
        assert.is_truthy(failed.error)
        assert.is_truthy(c:call("H", "as", { "zstd", "x" }).error)
      end)

      it("a client of ours reads what a " .. dialect .. " worker compresses", function()
        peer_list[1] = peers.worker { dialect = dialect, connect = back, service = "P" }
        process.eventually(function() return broker:stats().workers == 1 end, "the worker")
        connect()
        for _, n in ipairs { 960, 2000, 45000, 640000 } do
          assert.is_true(client.P.huge(n) == ("0123456789abcdef"):rep(n // 16))
        end
        local _, err = client:try("P", "huge_fail")
        assert.same({ "ValueError", "no luck" }, { err.class, err.message:match "no luck" })
        assert.equal(1, client.P.echo(1))
        for _, other in ipairs { "gate01", "gate02" } do
          local c = peers.client { dialect = other, connect = front }
          peer_list[#peer_list + 1] = c
          assert.equal(640000, c:call("P", "huge", { 640000 }).result["$len"])
          assert.is_truthy(c:call("P", "huge_fail").error)
        end
      end)

      it("a worker and a client of ours at a " .. dialect .. " broker", function()
        local python = peers.broker { dialect = dialect, heartbeat = 1000 }
        peer_list[1] = python
        back, front = python.backend, python.frontend
        serve(dialect)
        connect(dialect)
        assert.is_true(client.H.as("gzip", ("ab"):rep(100000)) == ("ab"):rep(100000))
        local _, err = client:try("H", "failing")
        assert.is_truthy(err.message:find "the disk is gone")
        _, err = client:try("H", "as", "zstd", "x")
        assert.is_truthy(err.message:find "gzip only")
      end)
    end
  end)
end)
