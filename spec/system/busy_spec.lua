local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task

local SPIN = process.LONG and 20 or 5
local HEARTBEAT = 0.2 -- with the liveness of 3 a worker that is silent for 0.6 s counts as dead

local BUSY = [[
function Class.interface:spin(seconds)
  local core = require "gaterpc.core"
  local deadline = core.now() + seconds
  local n = 0
  while core.now() < deadline do n = n + 1 end
  return "spun"
end
function Class.interface:spin_in_steps(seconds, steps)
  for i = 1, steps do
    self.interface.spin(self, seconds / steps)
    task.sleep(0)
  end
end
function Class.interface:spin_behind_item(seconds)
  coroutine.yield "before"
  self.interface.spin(self, seconds)
  coroutine.yield "after"
end
function Class.interface:echo(value) return value end
]]

local ECHO = "function Class.interface:echo(value) return value end"

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

describe("a method that does not let go", function()
  local worker, client, front, back

  before_each(function()
    local _
    _, front, back = process.broker("ipc", { heartbeat = HEARTBEAT })
    worker = process.worker("Busy", BUSY, back, { heartbeat = HEARTBEAT })
    client = gaterpc.Client { broker = front, timeout = process.limit(SPIN + 20), heartbeat = HEARTBEAT }
  end)

  after_each(function()
    client:close()
    process.finish()
  end)

  -- Starts a call of the busy worker; its method has the thread when this returns.
  local function start(method, ...)
    local args = table.pack(...)
    assert.equal(1, client.Busy.echo(1))
    local before = worker:cpu()
    local caller = task.spawn(function() return client.Busy[method](table.unpack(args, 1, args.n)) end)
    process.eventually(function() return worker:cpu() > before + 0.05 end, "the method's work")
    return caller
  end

  local function time_of_calls(count)
    local times = {}
    for i = 1, count do
      local began = core.now()
      assert(client.Echo.echo(i) == i)
      times[i] = core.now() - began
    end
    return times
  end

  it("keeps its worker registered also right after the start", function()
    local young = process.worker("Young", BUSY, back, { heartbeat = 0.1 })
    assert.equal("spun", client.Young.spin(0.6))
    assert.equal(0, young:count_log "lost its broker")
  end)

  it("keeps its worker registered, and what was sent meanwhile is answered [limit 120]", function()
    local began = core.now()
    local caller = start("spin", SPIN)
    local meanwhile = {}
    for i = 1, 500 do meanwhile[i] = task.spawn(function() return client.Busy.echo(i) end) end
    assert.equal("spun", caller:join())
    assert.is_true(core.now() - began >= SPIN)
    for i, each in ipairs(meanwhile) do assert.equal(i, each:join()) end
    assert.equal(2, client.Busy.echo(2))
    assert.equal(0, worker:count_log "lost its broker")
    assert.equal(1, worker:count_log "is registered")
  end)

  it("is named in the log [limit 60]", function()
    local caller = start("spin", 2.5)
    local seconds = worker:wait_log "WARNING gaterpc.guard Busy.spin has run ([%d.]+) s without yielding"
    assert.is_true(tonumber(seconds) >= 1)
    caller:join()
    local lines = worker:count_log "without yielding"
    client.Busy.spin_in_steps(1.5, 15)
    assert.equal(lines, worker:count_log "without yielding")
  end)

  it("does not slow down another service [limit 120]", function()
    process.worker("Echo", ECHO, back, { heartbeat = HEARTBEAT })
    time_of_calls(200)
    local idle = median(time_of_calls(500))
    local caller = start("spin", SPIN)
    local busy = median(time_of_calls(500))
    assert.is_false(caller:is_done()) -- else the second figure says nothing
    local ratio = busy / idle
    if os.getenv "GATERPC_FIGURES" then
      print(("median: %.0f us, beside a busy worker %.0f us"):format(idle * 1e6, busy * 1e6))
    end
    assert.is_true(ratio < 2 or busy - idle < 0.001, ("the median is %.1f times higher"):format(ratio))
    caller:join()
  end)

  it("has its items sent before it lets go [limit 60]", function()
    local stream <close> = client.Busy.spin_behind_item(1.5)
    local began = core.now()
    assert.equal("before", stream:next())
    assert.is_true(core.now() - began < 1.4)
    assert.equal("after", stream:next())
  end)

  it("does not keep its client from a timeout [limit 60]", function()
    local caller = start("spin", 2)
    local _, err = client:with({ timeout = 0.1 }):try("Busy", "echo", 1)
    assert.equal("DEADLINE_EXCEEDED", err.code)
    assert.is_false(caller:is_done())
    caller:join()
    assert.equal(1, client.Busy.echo(1))
  end)
end)
