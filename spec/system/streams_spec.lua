local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local SOON = 2 -- it takes up to 0.6 s until a forgotten stream is found; the rest is for slow machines

local METHODS = [[
local begun, closed, produced = 0, 0, 0
local function count_end()
  begun = begun + 1
  return setmetatable({}, { __close = function() closed = closed + 1 end })
end
function Class.interface:closed() return closed end
function Class.interface:running() return begun - closed end
function Class.interface:produced() return produced end
function Class.interface:range(n)
  local _ <close> = count_end()
  for i = 1, n do coroutine.yield(i) end
end
function Class.interface:endless(size)
  local _ <close> = count_end()
  local pad = ("x"):rep(size or 0)
  local i = 0
  produced = 0
  while true do
    i = i + 1
    produced = i
    coroutine.yield(size and { i, pad } or i)
  end
end
function Class.interface:slow(n, pause)
  local _ <close> = count_end()
  for i = 1, n do
    task.sleep(pause)
    coroutine.yield(i)
  end
end
function Class.interface:one_and_no_more()
  local _ <close> = count_end()
  coroutine.yield(1)
  task.sleep(60)
end
function Class.interface:empty(really) if not really then coroutine.yield(1) end end
Class.interface.declared = gaterpc.interface(function() end, { stream = true })
Class.interface.late_value = gaterpc.interface(function() coroutine.yield(1) return 2 end, { stream = true })
function Class.interface:breaks(n)
  local _ <close> = count_end()
  for i = 1, n do coroutine.yield(i) end
  error { code = "NOT_FOUND", message = "no more" }
end
function Class.interface:nils() coroutine.yield(nil) coroutine.yield(false) coroutine.yield(3) end
function Class.interface:several() coroutine.yield(1, 2) coroutine.yield(3, 4) end
local inner
function Class.interface:doubled(service, n)
  local _ <close> = count_end()
  inner = inner or gaterpc.Client { broker = FRONT }
  for v in inner[service].range(n) do coroutine.yield(v * 2) end
end
function Class.interface:doubled_endless(service)
  local _ <close> = count_end()
  inner = inner or gaterpc.Client { broker = FRONT }
  local stream <close> = inner[service].endless()
  for v in stream do coroutine.yield(v * 2) end
end
function Class.interface:with_coroutine(n)
  local each = coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end)
  for i in each do coroutine.yield(i * 10) end
end
]]

describe("a stream", function()
  local broker, worker, client, front, back

  before_each(function()
    broker, front, back = process.broker "ipc"
    worker = process.worker("S", ("local FRONT = %q "):format(front) .. METHODS, back)
    client = gaterpc.Client { broker = front, service = "S", timeout = process.limit(8) }
  end)

  after_each(function()
    client:close()
    process.finish()
  end)

  local function all(stream)
    local items = {}
    for item in stream do items[#items + 1] = item end
    return items
  end

  it("brings a million items, complete and in order [limit 60]", function()
    local reader = process.client([[
      local expected = 0
      local core = require "gaterpc.core"
      local began = core.now()
      for i in client.S.range(1000000) do
        expected = expected + 1
        if i ~= expected then error(("got %s instead of %d"):format(i, expected)) end
      end
      print(expected, (expected / (core.now() - began)) // 1)
    ]], front)
    assert.equal(0, reader:wait_exit(60), reader.err)
    local count, rate = reader.out:match "(%d+)\t(%d+)"
    assert.equal("1000000", count)
    if os.getenv "GATERPC_FIGURES" then print(("%s items/s"):format(rate)) end
  end)

  it("with a slow reader is held back, and nobody gathers its items [limit 60]", function()
    local MIB = 1 << 20
    local long = process.LONG and 30 or 6
    local reader = process.client([[
      client.S.closed()
      print "idle"
      io.read "l"
      local n = 0
      for item in client.S.endless(1000) do
        n = n + 1
        assert(item[1] == n)
        if n == 1 then print "first" end
        task.sleep(0.1)
      end
    ]], front, nil, { keep_stdin = true })
    reader:wait_line "idle"
    local all_three = { broker = broker, worker = worker, client = reader }
    local idle, most = {}, {}
    for name, each in pairs(all_three) do idle[name], most[name] = each:rss(), 0 end
    reader:write "go\n"
    reader:wait_line "first"
    local began = core.now()
    process.eventually(function()
      for name, each in pairs(all_three) do most[name] = math.max(most[name], each:rss() - idle[name]) end
      return core.now() - began > long
    end, "the end of the time", long + 10)
    for name, growth in pairs(most) do
      if os.getenv "GATERPC_FIGURES" then print(("%s grew by %.1f MiB"):format(name, growth / MIB)) end
      assert.is_true(growth < 32 * MIB * process.SLOW, ("%s grew by %.1f MiB"):format(name, growth / MIB))
    end
    assert.is_true(client.S.produced() < 5000) -- it would be millions
  end)

  describe("ends its method when its reader", function()
    -- Each leaves a stream of the endless method after three items.
    local leaves = {}

    leaves["breaks"] = function()
      local stream <close> = client.S.endless()
      for i in stream do if i == 3 then break end end
    end
    leaves["breaks out of a plain for"] = function()
      for i in client.S.endless() do if i == 3 then break end end
    end
    leaves["breaks out of a plain for whose variable is captured"] = function()
      local captured
      for i in client.S.endless() do
        captured = function() return i end
        if i == 3 then break end
      end
      assert.equal(3, captured())
    end
    leaves["returns"] = function()
      local function find()
        local stream <close> = client.S.endless()
        for i in stream do if i == 3 then return i end end
      end
      assert.equal(3, find())
    end
    leaves["returns from a plain for"] = function()
      local function find()
        for i in client.S.endless() do if i == 3 then return i end end
      end
      assert.equal(3, find())
    end
    leaves["raises an error"] = function()
      assert.is_false(pcall(function()
        local stream <close> = client.S.endless()
        for i in stream do if i == 3 then error "enough" end end
      end))
    end
    leaves["raises an error in a plain for"] = function()
      assert.is_false(pcall(function()
        for i in client.S.endless() do if i == 3 then error "enough" end end
      end))
    end
    leaves["leaves by goto"] = function()
      do
        local stream <close> = client.S.endless()
        for i in stream do if i == 3 then goto out end end
      end
      ::out::
    end
    leaves["leaves a plain for by goto"] = function()
      for i in client.S.endless() do if i == 3 then goto out end end
      ::out::
    end
    leaves["forgets it"] = function()
      local stream = client.S.endless()
      for _ = 1, 3 do stream:next() end
    end
    leaves["forgets it and garbage is collected"] = function()
      local stream = client.S.endless()
      for _ = 1, 3 do stream:next() end
      stream = nil -- luacheck: ignore 311
      collectgarbage()
    end
    leaves["never reads it"] = function()
      client.S.endless()
    end
    leaves["closes it"] = function()
      local stream = client.S.endless()
      for _ = 1, 3 do stream:next() end
      stream:close()
      stream:close()
      assert.is_nil(stream:next())
    end
    leaves["is cancelled"] = function()
      local reader = task.spawn(function()
        for _ in client.S.endless() do task.sleep(0) end
      end)
      process.eventually(function() return client.S.produced() > 3 end, "some items")
      assert.is_true(reader:cancel())
    end
    leaves["is cancelled while it waits for the first item"] = function()
      local reader = task.spawn(function() client.S.slow(10, 60) end)
      process.eventually(function() return client.S.running() == 1 end, "the begin")
      assert.is_true(reader:cancel())
    end
    leaves["is cancelled while it waits for another item"] = function()
      local had
      local reader = task.spawn(function()
        for i in client.S.one_and_no_more() do had = i end
      end)
      process.eventually(function() return had end, "the first item")
      assert.is_true(reader:cancel())
    end

    for how, leave in pairs(leaves) do
      it(how, function()
        leave()
        process.eventually(function() return client.S.closed() == 1 end, "the end of the method", SOON)
        assert.equal(0, client.S.running())
        assert.equal(0, client:stats().open)
      end)
    end

    it("closes the client", function()
      local other = gaterpc.Client { broker = front }
      local stream = other.S.endless()
      assert.equal(1, stream:next())
      other:close()
      process.eventually(function() return client.S.closed() == 1 end, "the end of the method", SOON)
      assert.has_error(function() while stream:next() do end end) -- items that had come, then UNAVAILABLE
      assert.is_nil(stream:next())
    end)

    it("is killed", function()
      local reader = process.client([[
        for i in client.S.endless(100) do if i[1] == 10 then print "some" end end
      ]], front)
      reader:wait_line "some"
      reader:kill "sigkill"
      process.eventually(function() return client.S.closed() == 1 end, "the end of the method", SOON)
    end)

    it("ends without a word, waiting for an item", function()
      local reader = process.client([[
        for i in client.S.slow(2, 0.01) do print(i) if i == 2 then os.exit(3) end end
      ]], front)
      assert.equal(3, reader:wait_exit())
      process.eventually(function() return client.S.closed() == 1 end, "the end of the method", SOON)
    end)
  end)

  it("fails with WORKER_LOST when its worker is killed", function()
    local stream <close> = client.S.slow(1000, 0.01)
    assert.equal(1, stream:next())
    worker:kill "sigkill"
    local ok, err = pcall(all, stream)
    assert.is_false(ok)
    assert.equal("WORKER_LOST", err.code)
    assert.equal("slow", err.method)
    assert.is_nil(stream:next())
  end)

  it("fails with UNAVAILABLE when the broker is killed", function()
    local stream <close> = client.S.slow(1000, 0.01)
    assert.equal(1, stream:next())
    broker:kill "sigkill"
    local ok, err = pcall(all, stream)
    assert.is_false(ok)
    assert.equal("UNAVAILABLE", err.code)
  end)

  it("may be empty", function()
    assert.same({}, all(client.S.empty(true)))
    assert.same({ 1 }, all(client.S.empty()))
    assert.same({}, all(client.S.range(0)))
    assert.same({}, all(client.S.declared()))
    assert.same({ 1 }, all(client.S.late_value()))
  end)

  it("brings its items before the error", function()
    for _, count in ipairs { 0, 1, 300, 3000 } do
      local items = {}
      local ok, err = pcall(function()
        for i in client.S.breaks(count) do items[#items + 1] = i end
      end)
      assert.is_false(ok)
      assert.equal("NOT_FOUND", err.code)
      assert.equal("no more", err.message)
      assert.equal("breaks", err.method)
      assert.equal(count, #items)
      assert.equal(count, items[count] or 0)
    end
    process.eventually(function() return client.S.closed() == 4 end, "the end of the methods", SOON)
  end)

  it("raises its error once", function()
    local stream = client.S.breaks(1)
    assert.equal(1, stream:next())
    assert.has_error(function() stream:next() end)
    assert.is_nil(stream:next())
  end)

  it("brings large items", function()
    local count = 0
    for item in client.S.endless(100000) do
      count = count + 1
      assert(item[1] == count and #item[2] == 100000)
      if count == 300 then break end
    end
    assert.equal(300, count)
  end)

  it("can be read beside another", function()
    local one, two <close>, three = client.S.range(5000), client.S.endless(), client.S.slow(5, 0.01)
    for i = 1, 5000 do
      assert.equal(i, one())
      assert.equal(i, two())
      if i % 1000 == 0 then assert.equal(i // 1000, three()) end
    end
    assert.is_nil(one())
    assert.is_nil(three())
  end)

  it("can be read a thousand times at once [limit 30]", function()
    local readers = {}
    for i = 1, 1000 do
      readers[i] = function() return #all(client.S.range(i % 10)) end
    end
    local counts = task.all(readers)
    for i = 1, 1000 do assert(counts[i] == i % 10) end
    process.eventually(function() return client.S.running() == 0 end, "the end of all methods")
  end)

  it("has a time limit for each item", function()
    local stream = client.S.one_and_no_more()
    assert.equal(1, stream:next())
    local ok, err = pcall(stream.next, stream, 0.02)
    assert.is_false(ok)
    assert.equal("DEADLINE_EXCEEDED", err.code)
    assert.is_nil(stream:next()) -- it is closed
    process.eventually(function() return client.S.closed() == 1 end, "the end of the method", SOON)
    ok, err = pcall(function()
      for _ in client:with({ timeout = 0.5 }).S.slow(3, 60) do error "too early" end -- luacheck: ignore 512
    end)
    assert.is_false(ok)
    assert.equal("DEADLINE_EXCEEDED", err.code)
  end)

  it("may take longer than the timeout of a call, as long as items come", function()
    local timeout = process.limit(0.5)
    assert.equal(10, #all(client:with({ timeout = timeout }).S.slow(10, timeout / 5)))
  end)

  it("brings nil as gaterpc.null, and false", function()
    local stream = client.S.nils()
    assert.equal(gaterpc.null, stream:next())
    assert.is_false(stream:next())
    assert.equal(3, stream:next())
    assert.is_nil(stream:next())
  end)

  it("takes the first of several values", function()
    assert.same({ 1, 3 }, all(client.S.several()))
  end)

  it("is given by :try too", function()
    local stream, err = client:try("S", "range", 3)
    assert.is_nil(err)
    assert.is_true(gaterpc.StreamReply.is(stream))
    assert.equal("stream of S.range", tostring(stream))
    assert.same({ 1, 2, 3 }, all(stream))
    assert.equal("stream of S.range (ended)", tostring(stream))
  end)

  it("can have one reader at a time", function()
    local stream <close> = client.S.one_and_no_more()
    assert.equal(1, stream:next())
    local first = task.spawn(function() return stream:next() end)
    task.sleep(0)
    assert.has_error(function() stream:next() end, "another coroutine waits for this stream")
    first:cancel()
  end)

  it("can be read by a coroutine of the user's", function()
    local each = coroutine.wrap(function()
      for i in client.S.slow(3, 0.01) do coroutine.yield(i) end
    end)
    assert.equal(1, each())
    assert.equal(2, each())
    assert.equal(3, each())
    assert.same({ 10, 20, 30 }, all(client.S.with_coroutine(3)))
  end)

  it("may come from another stream in a method", function()
    process.worker("Q", ("local FRONT = %q "):format(front) .. METHODS, back)
    for _, service in ipairs { "S", "Q" } do -- itself, and another process
      local sum = 0
      for i in client.S.doubled(service, 2000) do sum = sum + i end
      assert.equal(2000 * 2001, sum)
    end
    do
      local stream <close> = client.S.doubled_endless("Q")
      for i in stream do if i == 100 then break end end
    end
    process.eventually(function() return client.S.running() == 0 end, "the end of the outer method", SOON)
    process.eventually(function() return client.Q.running() == 0 end, "the end of the inner method", SOON)
  end)
end)

describe("streams in one process", function()
  it("end their methods when a reader breaks", function()
    local Class = gaterpc.Worker:extend "Class"
    local running = 0
    function Class.interface:endless()
      running = running + 1
      local _ <close> = setmetatable({}, { __close = function() running = running - 1 end })
      local i = 0
      while true do
        i = i + 1
        coroutine.yield(i)
      end
    end
    local front, back = "inproc://streams.front", "inproc://streams.back"
    local broker <close> = setmetatable({ gaterpc.Majordomo { frontend = front, backend = back }:start() },
      { __close = function(t) t[1]:close() end })
    local worker = gaterpc.Service { name = "S" }:create_worker(Class, { broker = back }):start():wait_ready()
    local client <close> = gaterpc.Client { broker = front }
    for i in client.S.endless() do if i == 5000 then break end end
    assert.equal(1, running)
    process.eventually(function() return running == 0 end, "the end of the method", SOON)
    worker:close()
    assert.equal(0, broker[1]:stats().calls)
  end)
end)
