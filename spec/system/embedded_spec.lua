-- Broker, workers and clients in this process: the threads of ours under the eyes of a sanitizer.
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local Echo = gaterpc.Worker:extend "Echo"

function Echo.interface:echo(value)
  return value
end

function Echo.interface:count(n)
  for i = 1, n do coroutine.yield(i) end
end

function Echo.interface:spin(seconds)
  local deadline = core.now() + seconds
  while core.now() < deadline do end -- luacheck: ignore 542
  return "spun"
end

local serial = 0

local function addresses(transport)
  serial = serial + 1
  if transport == "tcp" then return "tcp://127.0.0.1:*", "tcp://127.0.0.1:*" end
  if transport == "ipc" then return process.ipc "front", process.ipc "back" end
  return ("inproc://front%d"):format(serial), ("inproc://back%d"):format(serial)
end

describe("in one process", function()
  local broker, worker, client

  local function open(transport, heartbeat)
    local front, back = addresses(transport)
    broker = gaterpc.Majordomo { backend = back, heartbeat = heartbeat }
    broker:bind(front)
    broker:start()
    front, back = broker:addresses()
    worker = gaterpc.Service { name = "Echo" }:create_worker(Echo, { broker = back, heartbeat = heartbeat })
    assert(worker:start():wait_ready(process.limit(5)))
    client = gaterpc.Client { broker = front, heartbeat = heartbeat, timeout = process.limit(10) }
  end

  after_each(function()
    client:close()
    worker:close()
    broker:close()
    process.finish()
  end)

  for _, transport in ipairs { "inproc", "ipc", "tcp" } do
    it(("calls and streams work over %s"):format(transport), function()
      open(transport)
      assert.equal("x", client.Echo.echo "x")
      local callers = {}
      for i = 1, 300 do
        callers[i] = function() return client.Echo.echo(i) end
      end
      for i, value in ipairs(task.all(callers)) do assert.equal(i, value) end
      local expected = 0
      for item in client.Echo.count(5000) do
        expected = expected + 1
        assert.equal(expected, item)
      end
      assert.equal(5000, expected)
    end)

    it(("no message is forgotten in bursts of any size over %s, with no timer to help [limit 40]"):format(transport),
      function()
        open(transport, 60) -- no heartbeat within the test's time
        math.randomseed(serial)
        local left = process.SLOW > 1 and 2000 or 20000
        while left > 0 do
          local burst = math.random(1, math.random(2) == 1 and 4 or 600)
          left = left - burst
          local callers = {}
          for i = 1, burst do
            callers[i] = function() return client.Echo.echo(i) end
          end
          for i, value in ipairs(task.all(callers)) do assert.equal(i, value) end
        end
      end)
  end

  it("the guard keeps worker and client alive while Lua spins for many heartbeats", function()
    open("ipc", process.BEAT)
    assert.equal("spun", client.Echo.spin(10 * process.BEAT))
    assert.is_true(client:stats().up)
    assert.is_true(worker:stats().up)
    assert.equal("after", client.Echo.echo "after")
    assert.equal(0, broker:stats().lost)
  end)

  it("a client that is closed frees everything: 200 come and go", function()
    open "inproc"
    local front = broker:addresses()
    for i = 1, 200 do
      local other <close> = gaterpc.Client { broker = front }
      assert.equal(i, other.Echo.echo(i))
    end
    process.eventually(function() return broker:stats().peers <= 2 end, "the broker forgets them")
  end)

  it("stop lets running calls finish", function()
    open "ipc"
    local call = task.spawn(function() return client.Echo.spin(0.05) end)
    process.eventually(function() return broker:stats().requests > 0 end, "the call is on its way")
    worker:stop()
    broker:stop()
    assert.equal("spun", call:join())
    process.eventually(function() return not worker:is_alive() end, "the worker has stopped")
  end)
end)
