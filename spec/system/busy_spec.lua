local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local process = require "support.process"
local task = gaterpc.task
local uv = require "luv"

local SPIN = process.LONG and 20 or 5
local HEARTBEAT = process.BEAT -- with the liveness of 3 a worker that is silent three times as long counts as dead

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
function Class.interface:spin_until_there_is(path)
  while true do
    local file = io.open(path)
    if file then return file:close() end
  end
end
function Class.interface:spin_behind_item(path)
  coroutine.yield "before"
  self.interface.spin_until_there_is(self, path)
  coroutine.yield "after"
end
function Class.interface:one_now_and_one_in(seconds)
  coroutine.yield "now"
  task.sleep(seconds)
  coroutine.yield "later"
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
    local young = process.worker("Young", BUSY, back, { heartbeat = HEARTBEAT })
    assert.equal("spun", client.Young.spin(HEARTBEAT * 6))
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
    worker:wait_log "Busy.spin has run 2"
    caller:join()
    local lines = worker:count_log "without yielding"
    client.Busy.spin_in_steps(1.5, 15)
    assert.equal(lines, worker:count_log "without yielding")
  end)

  it("does not slow down another service [limit 120]", function()
    process.worker("Echo", ECHO, back, { heartbeat = HEARTBEAT })
    local stranger = process.host [[print "it takes a processor" while true do end]]
    stranger:wait_line "processor"
    time_of_calls(200)
    local ratio
    for round = 1, 4 do -- as often as other programs disturb it
      local idle = median(time_of_calls(300))
      stranger:pause()
      local path = process.dir() .. "/enough" .. round
      local caller = start("spin_until_there_is", path)
      local busy = median(time_of_calls(300))
      process.file("enough" .. round, "")
      caller:join()
      stranger:resume()
      ratio = busy / idle
      if os.getenv "GATERPC_FIGURES" then
        print(("median: beside a stranger %.0f us, beside a busy worker %.0f us"):format(idle * 1e6, busy * 1e6))
      end
      if ratio < 2 then break end
    end
    assert.is_true(ratio < 2, ("the median is %.1f times higher"):format(ratio))
  end)

  it("has its items sent before it lets go [limit 60]", function()
    local stream <close> = client.Busy.spin_behind_item(process.dir() .. "/enough")
    assert.equal("before", stream:next())
    process.file("enough", "")
    assert.equal("after", stream:next())
  end)

  it("does not make a time-out of an answer that is there, when it is the client's own [limit 60]", function()
    local stream <close> = client.Busy.one_now_and_one_in(process.limit(0.1))
    assert.equal("now", stream:next())
    local next = task.spawn(function() return stream:next(process.limit(0.3)) end)
    local call = task.spawn(function() return client:with({ timeout = process.limit(0.3) }):try("Busy", "echo", 1) end)
    task.sleep(0)
    local timer = uv.new_timer()
    timer:start(0, 0, function()
      timer:close()
      local enough = core.now() + process.limit(0.8)
      while core.now() < enough do end
    end)
    assert.equal("later", next:join())
    assert.equal(1, call:join())
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
