-- Waits of methods, in real calls, and the page about them.
local process = require "support.process"

describe("a method that waits", function()
  after_each(process.finish)

  it("leaves its line when its call times out, is given up, or its client ends", function()
    local host = process.host [[
      local gaterpc = require "gaterpc"
      local task = gaterpc.task
      gaterpc.Settings.HEARTBEAT = 0.1
      local queue, gate = gaterpc.Queue {}, gaterpc.Semaphore(1)
      local Class = gaterpc.Worker:extend "Class"
      function Class.interface:next_item() return queue:get() end
      function Class.interface:in_turn(seconds) gate:with(task.sleep, seconds) end
      local broker = gaterpc.Majordomo {}:start()
      local worker = gaterpc.Service { name = "S" }:create_worker(Class):start():wait_ready()
      local client = gaterpc.Client {}

      local function wait_for(condition)
        while not condition() do task.sleep(0.005) end
      end
      local function nobody() return not queue.getters.first and not gate.line.first and gate.free == 1 end

      print(select(2, client:with({ timeout = 0.05 }):try("S", "next_item")).code)
      wait_for(nobody)

      local calls = {}
      for i = 1, 20 do calls[i] = task.spawn(function() return client.S.next_item() end) end
      wait_for(function() return worker:stats().open == 20 end)
      for i = 2, 20 do calls[i]:cancel() end
      wait_for(function() return worker:stats().open == 1 end)
      queue:put "for the first"
      print(calls[1]:join(), nobody())

      local holder = task.spawn(function() return client.S.in_turn(60) end)
      wait_for(function() return gate.free == 0 end)
      local other = gaterpc.Client {}
      local last = task.spawn(function() return other:try("S", "in_turn", 60) end)
      wait_for(function() return gate.line.first end)
      other:close()
      last:join()
      wait_for(function() return not gate.line.first end)
      holder:cancel()
      wait_for(nobody)
      client.S.in_turn(0)
      print "free"
      worker:stop()
      broker:stop()
    ]]
    assert.equal(0, host:wait_exit(), host.err)
    assert.equal("DEADLINE_EXCEEDED\nfor the first\ttrue\nfree\n", host.out)
  end)
end)

describe("a script that waits at a queue", function()
  after_each(process.finish)

  it("ends with an error when nobody is left to put, and does not when there is a limit", function()
    local host = process.host [[
      local gaterpc = require "gaterpc"
      print(gaterpc.Queue {}:get(0.01))
      gaterpc.Queue {}:get(math.huge)
    ]]
    assert.equal(1, host:wait_exit())
    assert.equal("nil\tDEADLINE_EXCEEDED: no item came within 0.01 s\n", host.out)
    assert.truthy(host.err:find("can no longer come", 1, true))
    assert.falsy(host.err:find("lua/gaterpc/", 1, true), host.err)
  end)
end)

describe("docs/waiting.md", function()
  after_each(process.finish)

  it("shows a program and what it prints", function()
    local file <close> = assert(io.open "docs/waiting.md")
    local program, output = file:read "a":match "```lua\n(.-)```\n\n```\n(.-)```"
    local host = process.host(program)
    assert.equal(0, host:wait_exit(), host.err)
    assert.equal(output, host.out)
  end)
end)
