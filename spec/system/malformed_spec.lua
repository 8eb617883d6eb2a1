local gaterpc = require "gaterpc"
local process = require "support.process"
local uv = require "luv"

local COUNT = 100000
local SPAM = uv.exepath():match("^(.*)/") .. "/spec/spam"

local BROKER = [[
local gaterpc = require "gaterpc"
local broker = gaterpc.Majordomo { backend = arg[2] }
broker:bind(arg[1])
broker:start()
print "serving"
io.stdout:flush()
broker:run()
]]

local WORKER = [[
local gaterpc = require "gaterpc"
local Echo = gaterpc.Worker:extend "Echo"
function Echo.interface:echo(value) return value end
function Echo.interface:count(n) for i = 1, n do coroutine.yield(i) end end
local worker = gaterpc.Service { name = "Echo" }:create_worker(Echo, { broker = arg[1] })
worker:start():wait_ready()
print "ready"
io.stdout:flush()
worker:run()
]]

describe("100,000 malformed messages", function()
  local broker, worker, client, front, back

  before_each(function()
    front, back = process.ipc "front", process.ipc "back"
    broker = process.host(BROKER, { name = "broker", args = { front, back } })
    broker:wait_line "serving"
    worker = process.host(WORKER, { name = "worker", args = { back } })
    worker:wait_line "ready"
    client = gaterpc.Client { broker = front, timeout = 30 * process.SLOW }
  end)

  after_each(function()
    client:close()
    process.finish()
  end)

  -- Calls and streams go on, and every answer is right, while `spam` runs.
  local function work_beside(spam)
    local n = 0
    repeat
      n = n + 1
      local value = { n, tostring(n), { deep = { n } } }
      assert.same(value, client.Echo.echo(value))
      if n % 50 == 0 then
        local sum = 0
        for item in client.Echo.count(100) do sum = sum + item end
        assert.equal(5050, sum)
      end
    until spam.ended
    return n
  end

  for _, door in ipairs { "frontend", "backend" } do
    it(("on the %s hurt nobody [limit 120]"):format(door), function()
      local address, service = front, "Echo"
      if door == "backend" then address, service = back, "Ech0" end
      local spam = process.run(SPAM, { address, tostring(COUNT), "42", service }, { name = "spam" })
      local calls = work_beside(spam)
      spam:wait_line("sent " .. COUNT, 60)
      assert.is_true(calls > 10)
      assert.equal("still here", client.Echo.echo "still here")
      assert.is_nil(broker.code)
      assert.is_nil(worker.code)
      broker:kill "sigterm"
      assert.equal(0, broker:wait_exit(20))
      assert.truthy(broker.err:find("messages could not be understood", 1, true))
    end)
  end
end)
