-- What the tests of the original Python package do, with our programs, in processes of their own: test, atest,
-- test_generator, test_agenerator, test_huge_data, get_interfaces and heartbeats; by clients that speak gh1, and by
-- those that speak as the original does. What stands elsewhere:
--   its recorded frames, byte for byte        transcripts_spec.lua, bridge_bulk_spec.lua
--   peers in Python, of both versions         system/python_spec.lua
--   every dialect with every other            system/dialects_spec.lua
--   values, arguments, keywords               system/values_spec.lua, system/calls_spec.lua
--   streams: order, windows, ends, a million  system/streams_spec.lua
--   HugeData: codecs, limits, who gives up    system/huge_spec.lua
--   missed heartbeats, lost brokers, workers  system/life_spec.lua, system/busy_spec.lua, broker_spec.lua
--   executors and SyncManager                 system/executor_spec.lua
--   handlers of the broker                    system/handlers_spec.lua
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local dialects = { "gh1", "gate01", "gate02" }

local METHODS = [[
local running, most, open = 0, 0, 0
local function count_open()
  open = open + 1
  return setmetatable({}, { __close = function() open = open - 1 end })
end

--- The arguments, positional ones and keywords.
function Class.interface:test(...)
  local args = { ... }
  local kwargs = gaterpc.is_kwargs(args[#args]) and table.remove(args) or {}
  return { args = gaterpc.array(args), kwargs = gaterpc.map(kwargs) }
end
--- The same after a while, which depends on the first one.
---@param first integer
function Class.interface:atest(first, ...)
  running = running + 1
  most = math.max(most, running)
  task.sleep(first % 7 / 100)
  running = running - 1
  return { first, ... }
end
function Class.interface:most() return most end
function Class.interface:test_generator(maximum)
  local _ <close> = count_open()
  for i = 0, maximum - 1 do coroutine.yield(i) end
end
function Class.interface:test_agenerator(maximum)
  local _ <close> = count_open()
  for i = 0, maximum - 1 do
    if i % 10 == 0 then task.sleep(0.001) end
    coroutine.yield(i)
  end
end
function Class.interface:open() return open end
-- n bytes of hexadecimal digits that look random, as os.urandom(n / 2).hex() does.
function Class.interface:test_huge_data(n, seed)
  local parts, x = {}, seed or 1
  for i = 1, n // 8 do
    x = (x * 1103515245 + 12345) & 0x7fffffff
    parts[i] = ("%08x"):format(x)
  end
  return table.concat(parts)
end
]]

-- The same digits, made here.
local function hex(n, seed)
  local parts, x = {}, seed
  for i = 1, n // 8 do
    x = (x * 1103515245 + 12345) & 0x7fffffff
    parts[i] = ("%08x"):format(x)
  end
  return table.concat(parts)
end

describe("what the original tests", function()
  local worker, front, back

  after_each(process.finish)

  local function open(kind, options)
    local _
    _, front, back = process.broker(kind or "ipc", options)
    worker = process.worker("GateRPC", METHODS, back, options)
  end

  local function connect(dialect, more)
    return process.connect(front, dialect, more or { timeout = process.limit(20) })
  end

  for _, dialect in ipairs(dialects) do
    it(("calls at once of a %s client get their own answers, from one worker [limit 60]"):format(dialect), function()
      open()
      local client = connect(dialect)
      local calls, n = {}, 500
      for i = 1, n do calls[i] = function() return client.atest(i, "a" .. i) end end
      for i, got in ipairs(task.all(calls)) do assert.same({ i, "a" .. i }, got) end
      assert.is_true(client.most() > 50, client.most()) -- and really at once
      for i = 1, n do calls[i] = function() return client.test(i, gaterpc.kwargs { n = i }) end end
      for i, got in ipairs(task.all(calls)) do assert.same({ args = { i }, kwargs = { n = i } }, got) end
    end)

    it(("many generators at once of a %s client, those that wait and those that do not [limit 60]"):format(dialect),
      function()
        open()
        local client = connect(dialect)
        local readers = {}
        for i = 1, 60 do
          readers[i] = function()
            local method, n, expected = i % 2 == 0 and "test_generator" or "test_agenerator", 20 * i, 0
            for item in client[method](n) do
              assert(item == expected, "an item is not the next one")
              expected = expected + 1
            end
            return expected == n
          end
        end
        for _, complete in ipairs(task.all(readers)) do assert.is_true(complete) end
        assert.equal(0, client.open())
      end)

    it(("generators that a %s client leaves early hold up nobody, and end [limit 60]"):format(dialect), function()
      open()
      local client = connect(dialect)
      local readers = {}
      for i = 1, 40 do
        readers[i] = function()
          local method = i % 2 == 0 and "test_generator" or "test_agenerator"
          local stream <close> = client[method](dialect == "gh1" and 100000000 or 2000) -- the original cannot cancel
          for item in stream do
            if item == i then return item end
          end
        end
      end
      for i, item in ipairs(task.all(readers)) do assert.equal(i, item) end
      assert.same({ args = { "on" }, kwargs = {} }, client.test "on")
      process.eventually(function() return client.open() == 0 end, "the end of the generators")
    end)

    it(("640 kB of hex for a %s client, one and several at once, over tcp [limit 60]"):format(dialect), function()
      open "tcp"
      local client = connect(dialect)
      assert.is_true(client.test_huge_data(640000, 1) == hex(640000, 1))
      local calls = {}
      for i = 1, 6 do calls[i] = function() return client.test_huge_data(640000, i) == hex(640000, i) end end
      for _, right in ipairs(task.all(calls)) do assert.is_true(right) end
      local echoed = client.test(hex(640000, 7))
      assert.is_true(echoed.args[1] == hex(640000, 7)) -- as an argument, too
    end)
  end

  it("heartbeats alone keep worker and client for many times their patience [limit 60]", function()
    local beat = 0.1 * process.SLOW
    open("ipc", { heartbeat = beat, liveness = 3 })
    local list = {}
    for _, dialect in ipairs(dialects) do
      list[dialect] = connect(dialect, { heartbeat = beat, liveness = 3, timeout = process.limit(20) })
      assert.same({ 1 }, list[dialect].atest(1))
    end
    task.sleep(beat * 15) -- silence is what is tested here
    assert.is_true(list.gh1:stats().up)
    for _, dialect in ipairs(dialects) do assert.same({ 1 }, list[dialect].atest(1)) end
    assert.equal(1, worker:count_log "is registered")
    assert.equal(0, worker:count_log "lost its broker")
    assert.is_true(list.gh1.Gate.client_heartbeat())
    local began = core.now()
    worker:pause() -- and without them it is missed
    local _, err = list.gh1:try("GateRPC", "atest", 1)
    worker:resume()
    assert.equal("WORKER_LOST", err.code)
    assert.is_true(core.now() - began < process.limit(5))
  end)

  it("get_interfaces tells of each method its text and signature", function()
    open()
    for _, dialect in ipairs(dialects) do
      local all = connect(dialect).get_interfaces()
      for name, about in pairs(all) do
        assert.equal("string", type(about.signature), name)
        assert.truthy(about.signature:find "^%(.*%)$", name)
        assert.equal("boolean", type(about.idempotent), name)
        assert.equal("boolean", type(about.stream), name)
      end
      assert.equal("The arguments, positional ones and keywords.", all.test.doc)
      assert.equal("(...)", all.test.signature)
      assert.equal("(maximum)", all.test_generator.signature)
      assert.same({ true, true, false }, { all.test_generator.stream, all.test_agenerator.stream, all.atest.stream })
      assert.truthy(all.get_interfaces)
      assert.equal("(first, ...)", all.atest.signature:gsub(": integer", ""))
    end
  end)
end)
