local gaterpc = require "gaterpc"
local task = gaterpc.task
local turns = require "support.turns"

local Queue = gaterpc.Queue
local code_of, outcomes, remove_from, text_of = turns.code_of, turns.outcomes, turns.remove_from, turns.text_of

local function message_of(fn, ...)
  local ok, err = pcall(fn, ...)
  assert.is_false(ok)
  return err
end

describe("a queue", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  it("gives items in the order in which they were put, false too", function()
    local queue = Queue {}
    for _, item in ipairs { 1, "two", false, { 4 } } do assert.is_true(queue:put(item)) end
    assert.equal(4, #queue)
    assert.equal(1, queue:get())
    assert.equal("two", queue:try_get())
    assert.is_false(queue:get(0))
    assert.same({ 4 }, queue:get(10))
    assert.equal(0, #queue)
    assert.is_true(queue:empty())
  end)

  it("has no bound unless it is given one", function()
    for _, queue in ipairs { Queue(), Queue {}, Queue { maxsize = 0 } } do
      for i = 1, 5000 do queue:put(i) end
      assert.is_false(queue:full())
      assert.equal(5000, #queue)
    end
  end)

  it("refuses what it cannot do, with a code", function()
    local queue = Queue { maxsize = 2 }
    assert.equal("NOT_FOUND", code_of(queue:try_get()))
    assert.equal("DEADLINE_EXCEEDED", code_of(queue:get(0)))
    assert.is_true(queue:try_put "a")
    assert.is_false(queue:full())
    assert.is_true(queue:try_put "b")
    assert.is_true(queue:full())
    local _, err = queue:try_put "c"
    assert.equal("RESOURCE_EXHAUSTED: the queue is full: 2 items", tostring(err))
    assert.equal("DEADLINE_EXCEEDED", code_of(queue:put("c", 0)))
    assert.equal("queue of 2 of 2 items", tostring(queue))
  end)

  it("raises for wrong use, at the caller's line", function()
    local queue = Queue {}
    for _, fn in ipairs {
      function() local _ = queue:put(nil) end, function() local _ = queue:try_put(nil) end } do
      assert.truthy(message_of(fn):find "^spec/queue_spec.lua:%d+: a queue takes any value but nil")
    end
    assert.truthy(message_of(function() local _ = Queue { maxsise = 1 } end):find(
      "^spec/queue_spec.lua:%d+: Queue: unknown option 'maxsise', did you mean 'maxsize'"))
    assert.truthy(message_of(function() local _ = Queue { maxsize = -1 } end):find(
      "^spec/queue_spec.lua:%d+: Queue: option 'maxsize' must be 1 or more, or 0 for no bound, got %-1"))
    assert.truthy(message_of(function() local _ = Queue { maxsize = 1.5 } end):find("must be an integer", 1, true))
    assert.truthy(message_of(function() local _ = Queue(5) end):find("takes a table of options", 1, true))
  end)

  it("holds a putter until there is a place", function()
    local queue = Queue { maxsize = 1 }
    queue:put "a"
    local b, c = turns.begin(queue.put, queue, "b"), turns.begin(queue.put, queue, "c")
    turns.turn()
    assert.same({ "waits", "waits" }, outcomes(b, c))
    assert.equal("a", queue:get())
    turns.turn()
    assert.same({ "true", "waits" }, outcomes(b, c))
    assert.equal("b", queue:get())
    turns.turn()
    assert.equal("c", queue:get())
    assert.equal(0, #queue)
  end)

  it("lets nobody take what was promised to a getter, and gives him the first item", function()
    local queue = Queue {}
    local getter = turns.begin(queue.get, queue)
    queue:put "a"
    assert.equal("NOT_FOUND", code_of(queue:try_get()))
    assert.is_true(queue:empty())
    assert.equal(1, #queue)
    queue:put "b"
    local other = turns.begin(queue.get, queue)
    turns.turn()
    assert.same({ "a", "b" }, outcomes(getter, other))
  end)

  it("lets nobody put where a place was promised", function()
    local queue = Queue { maxsize = 1 }
    queue:put "a"
    local putter = turns.begin(queue.put, queue, "b")
    queue:get()
    assert.is_true(queue:full())
    assert.equal(0, #queue)
    assert.equal("RESOURCE_EXHAUSTED", code_of(queue:try_put "c"))
    local other = turns.begin(queue.put, queue, "c")
    turns.turn()
    assert.same({ "true", "waits" }, outcomes(putter, other))
    assert.equal("b", queue:get())
  end)

  it("lets nobody put before those who were woken", function()
    local queue = Queue { maxsize = 2 }
    queue:put "a"
    queue:put "b"
    local putter = turns.begin(queue.put, queue, "c")
    queue:get()
    queue:get()
    local other = turns.begin(queue.put, queue, "d")
    turns.turn()
    assert.same({ "true", "true" }, outcomes(putter, other))
    assert.equal("c", queue:get())
    assert.equal("d", queue:get())
  end)

  it("keeps the order of items when a getter is cancelled that had one promised", function()
    local queue = Queue {}
    local first, second = turns.begin(queue.get, queue), turns.begin(queue.get, queue)
    queue:put "a"
    queue:put "b"
    first:kill()
    turns.turn()
    assert.equal("a", second:outcome())
    assert.equal("b", queue:try_get())
  end)

  it("gets nothing from a putter that is cancelled, even after its wake-up", function()
    local queue = Queue { maxsize = 1 }
    queue:put "a"
    local b, c = turns.begin(queue.put, queue, "b"), turns.begin(queue.put, queue, "c")
    queue:get()
    b:kill()
    turns.turn()
    assert.equal("true", c:outcome())
    assert.equal("c", queue:get())
    assert.equal(0, #queue)
  end)

  it("does not grow while items pass through it", function()
    local queue = Queue { maxsize = 4 }
    local function pass(count)
      queue:put(0) -- never empty
      for i = 1, count do
        queue:put(i)
        queue:get()
      end
      queue:get()
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before = pass(1000)
    assert.is_true(pass(100000) - before < 16)
  end)

  it("does not keep an item that was taken", function()
    local queue = Queue { maxsize = 2 }
    local seen = setmetatable({}, { __mode = "v" })
    for i = 1, 10 do
      seen[i] = {}
      queue:put(seen[i])
      queue:get()
    end
    collectgarbage()
    assert.is_nil(next(seen))
  end)
end)

describe("a queue that is closed", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  it("gives what is left, and then ends", function()
    local queue = Queue {}
    queue:put "a"
    queue:put "b"
    queue:close()
    assert.equal("queue of 2 items (closed)", tostring(queue))
    assert.equal("UNAVAILABLE", code_of(queue:put "c"))
    assert.equal("UNAVAILABLE", code_of(queue:try_put "c"))
    assert.equal("a", queue:get())
    assert.equal("b", queue:try_get())
    assert.equal("UNAVAILABLE", code_of(queue:get()))
    assert.equal("UNAVAILABLE", code_of(queue:try_get()))
  end)

  it("ends a for loop when all items were taken", function()
    local queue = Queue { maxsize = 2 }
    local got = {}
    local reader = turns.begin(function()
      for item in queue:items() do got[#got + 1] = item end
      return "end"
    end)
    local writer = turns.begin(function()
      for i = 1, 5 do queue:put(i) end
      queue:close()
    end)
    turns.turn(30)
    assert.same({ "end", "nil" }, outcomes(reader, writer))
    assert.same({ 1, 2, 3, 4, 5 }, got)
  end)

  it("refuses a putter that was promised a place", function()
    local queue = Queue { maxsize = 1 }
    queue:put "a"
    local putter = turns.begin(queue.put, queue, "b")
    queue:get()
    queue:close()
    turns.turn()
    assert.equal("UNAVAILABLE", putter:outcome())
    assert.equal(0, #queue)
  end)

  it("lets a getter have what was promised to one that is cancelled", function()
    local queue = Queue {}
    local list = {}
    for i = 1, 3 do list[i] = turns.begin(queue.get, queue) end
    queue:put "a"
    queue:close()
    local fourth = turns.begin(queue.get, queue)
    assert.same({ "waits", "waits", "waits", "waits" }, outcomes(list[1], list[2], list[3], fourth))
    list[1]:kill()
    turns.turn()
    assert.same({ "CANCELLED", "a", "UNAVAILABLE", "UNAVAILABLE" }, outcomes(list[1], list[2], list[3], fourth))
  end)
end)

-- A queue as one would write it without care for speed: lists, and every rule spelled out.
local model_mt = {}
model_mt.__index = model_mt

local function new_model(maxsize)
  return setmetatable({ maxsize = maxsize, items = {}, getters = {}, putters = {}, closed = false, now = 0 }, model_mt)
end

local function count_woken(list)
  local count = 0
  for _, each in ipairs(list) do
    if each.woken then count = count + 1 end
  end
  return count
end

function model_mt:available() return #self.items - count_woken(self.getters) end
function model_mt:places() return self.maxsize - #self.items - count_woken(self.putters) end

function model_mt:wake()
  for _, each in ipairs(self.getters) do
    if not each.woken and self:available() > 0 then each.woken = true end
  end
  for _, each in ipairs(self.putters) do
    if not each.woken and self:places() > 0 then each.woken = true end
  end
  if self.closed and #self.items == 0 then
    for _, each in ipairs(self.getters) do each.result = each.result or "UNAVAILABLE" end
    self.getters = {}
  end
end

function model_mt:put(op)
  if self.closed then
    op.result = "UNAVAILABLE"
  elseif self:places() > 0 and (count_woken(self.putters) == 0 or op.timeout == 0) then
    op.result = "true"
    table.insert(self.items, op.item)
  elseif op.due == self.now then
    op.result = "DEADLINE_EXCEEDED"
  else
    table.insert(self.putters, op)
  end
  self:wake()
end

function model_mt:get(op)
  if self:available() > 0 and (count_woken(self.getters) == 0 or op.timeout == 0) then
    op.result = tostring(table.remove(self.items, 1))
  elseif self.closed and #self.items == 0 then
    op.result = "UNAVAILABLE"
  elseif op.due == self.now then
    op.result = "DEADLINE_EXCEEDED"
  else
    table.insert(self.getters, op)
  end
  self:wake()
end

function model_mt:try_put(item)
  if self.closed then return "UNAVAILABLE" end
  if self:places() <= 0 then return "RESOURCE_EXHAUSTED" end
  table.insert(self.items, item)
  self:wake()
  return "true"
end

function model_mt:try_get()
  if self:available() > 0 then
    local item = table.remove(self.items, 1)
    self:wake()
    return tostring(item)
  end
  return self.closed and #self.items == 0 and "UNAVAILABLE" or "NOT_FOUND"
end

function model_mt:kill(op)
  op.result = "CANCELLED"
  remove_from(self.getters, op)
  remove_from(self.putters, op)
  self:wake()
end

function model_mt:tick(ms)
  self.now = self.now + ms
  for _, list in ipairs { self.getters, self.putters } do
    for i = #list, 1, -1 do
      local op = list[i]
      if not op.woken and op.due and op.due <= self.now then
        op.result = "DEADLINE_EXCEEDED"
        table.remove(list, i)
      end
    end
  end
end

function model_mt:close()
  self.closed = true
  for _, each in ipairs(self.putters) do
    each.result = "UNAVAILABLE"
  end
  self.putters = {}
  self:wake()
end

-- All who were woken run.
function model_mt:turn()
  repeat
    local ran = false
    for _, lists in ipairs { "getters", "putters" } do
      local first = self[lists][1]
      if first and first.woken then
        ran = true
        table.remove(self[lists], 1)
        if lists == "getters" then
          first.result = tostring(table.remove(self.items, 1))
        else
          first.result = "true"
          table.insert(self.items, first.item)
        end
        self:wake()
      end
    end
  until not ran
end

describe("random interleavings of a queue", function()
  after_each(turns.start_clock)

  local function run(random, same)
    local maxsize = random(0, 3)
    local queue, model = Queue { maxsize = maxsize }, new_model(maxsize == 0 and math.huge or maxsize)
    local ops, item = {}, 0

    local function begin(fn, ...)
      local op = { item = item, timeout = ({ nil, 0, random(1, 30), random(1, 30) })[random(4)] }
      op.due = op.timeout and model.now + op.timeout
      local args = table.pack(...)
      args[args.n + 1] = op.timeout and op.timeout / 1000
      op.task = turns.begin(fn, queue, table.unpack(args, 1, args.n + 1))
      ops[#ops + 1] = op
      return op
    end

    local actions = {
      function() item = item + 1 model:put(begin(queue.put, item)) end,
      function() model:get(begin(queue.get)) end,
      function() item = item + 1 same(model:try_put(item), text_of(queue:try_put(item))) end,
      function() same(model:try_get(), text_of(queue:try_get())) end,
      function()
        local op = turns.pick(ops, random)
        if not op then return end
        model:kill(op)
        op.task:kill()
      end,
      function()
        local ms = random(1, 12)
        model:tick(ms)
        turns.tick(ms)
      end,
    }

    local function check()
      same(#model.items, #queue)
      same(model:places() <= 0, queue:full())
      same(model:available() <= 0, queue:empty())
    end

    local function turn()
      model:turn()
      turns.settle(ops, same)
      check()
    end

    for _ = 1, random(20, 60) do
      for _ = 1, random(4) do
        actions[random(#actions)]()
        check()
      end
      if random(3) > 1 then turn() end
    end
    model:close()
    queue:close()
    turn()
    while #queue > 0 do same(model:try_get(), text_of(queue:try_get())) end
    same(nil, queue.getters.first or queue.putters.first)
    same(0, queue.promised_items + queue.promised_places)
  end

  it("are those of a plain model [limit 60]", function() turns.random_runs(200, run) end)
end)

describe("tasks at a queue", function()
  it("hand 20,000 items from many to many, each once, a writer's in order", function()
    local queue = Queue { maxsize = 7 }
    local got = {}
    local readers, writers = {}, {}
    for i = 1, 5 do
      readers[i] = task.spawn(function()
        for item in queue:items() do got[#got + 1] = item end
      end)
    end
    for writer = 1, 4 do
      writers[writer] = task.spawn(function()
        for i = 1, 5000 do
          assert(queue:put({ writer, i }))
          if i % 97 == 0 then task.sleep(0) end
        end
      end)
    end
    task.all(writers)
    queue:close()
    task.all(readers)
    assert.equal(20000, #got)
    local last = { 0, 0, 0, 0 }
    for _, item in ipairs(got) do
      assert.equal(last[item[1]] + 1, item[2])
      last[item[1]] = item[2]
    end
  end)
end)
