local gaterpc = require "gaterpc"
local turns = require "support.turns"

local Event = gaterpc.Event

describe("an event", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  it("is not set until somebody sets it, and then until it is cleared", function()
    local event = Event()
    assert.is_false(event:is_set())
    event:set()
    event:set()
    assert.is_true(event:is_set())
    assert.is_true(event:wait())
    assert.is_true(event:wait(0))
    assert.equal("event that is set", tostring(event))
    event:clear()
    assert.is_false(event:is_set())
    local happened, err = event:wait(0)
    assert.is_nil(happened)
    assert.equal("DEADLINE_EXCEEDED: the event was not set within 0 s", tostring(err))
    assert.equal("event that is not set", tostring(event))
  end)

  it("wakes all who wait, though it is cleared before their turn", function()
    local event = Event {}
    local list = {}
    for i = 1, 3 do list[i] = turns.begin(event.wait, event) end
    event:set()
    event:clear()
    local late = turns.begin(event.wait, event)
    turns.turn()
    for i = 1, 3 do assert.equal("true", list[i]:outcome()) end
    assert.equal("waits", late:outcome())
    event:set()
    turns.turn()
    assert.equal("true", late:outcome())
  end)

  it("that is set may be waited for after it was closed, and others end", function()
    local event = Event()
    local waiting = turns.begin(event.wait, event)
    event:close()
    turns.turn()
    assert.equal("UNAVAILABLE", waiting:outcome())
    assert.equal("event that is not set (closed)", tostring(event))
    event:set()
    assert.is_true(event:wait())
  end)

  it("takes no options", function()
    local ok, err = pcall(function() local _ = Event { set = true } end)
    assert.is_false(ok)
    assert.truthy(err:find "^spec/event_spec.lua:%d+: Event: unknown option 'set'")
  end)
end)

describe("random interleavings of an event", function()
  after_each(turns.start_clock)

  local function run(random, same)
    local event, ops, line, set, now = Event(), {}, {}, false, 0
    local actions = {
      function()
        local op = { timeout = ({ nil, 0, random(1, 30) })[random(3)] }
        op.due = op.timeout and now + op.timeout
        op.task = turns.begin(event.wait, event, op.timeout and op.timeout / 1000)
        ops[#ops + 1] = op
        if set then
          op.result = "true"
        elseif op.timeout == 0 then
          op.result = "DEADLINE_EXCEEDED"
        else
          line[op] = true
        end
      end,
      function()
        event:set()
        set = true
        for op in pairs(line) do op.result = "true" end
        line = {}
      end,
      function()
        event:clear()
        set = false
      end,
      function()
        local op = turns.pick(ops, random)
        if not op then return end
        op.task:kill()
        op.result, line[op] = "CANCELLED", nil
      end,
      function()
        local ms = random(1, 12)
        now = now + ms
        turns.tick(ms)
        for op in pairs(line) do
          if op.due and op.due <= now then op.result, line[op] = "DEADLINE_EXCEEDED", nil end
        end
      end,
    }
    for _ = 1, random(30, 80) do
      for _ = 1, random(4) do
        actions[random(#actions)]()
        same(set, event:is_set())
      end
      if random(3) > 1 then turns.settle(ops, same) end
    end
    for _, op in ipairs(ops) do op.task:kill() end
    same(nil, event.line.first)
  end

  it("are those of a plain model [limit 60]", function() turns.random_runs(200, run) end)
end)
