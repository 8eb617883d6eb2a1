local gaterpc = require "gaterpc"
local turns = require "support.turns"

local BoundedDict = gaterpc.BoundedDict
local code_of, outcomes, remove_from, text_of = turns.code_of, turns.outcomes, turns.remove_from, turns.text_of

-- All entries in the order of pairs(): { key, value, key, value, ... }
local function entries_of(dict)
  local list = {}
  for key, value in pairs(dict) do
    list[#list + 1] = key
    list[#list + 1] = value
  end
  return list
end

local function full_dict(maxsize)
  local dict = BoundedDict { maxsize = maxsize or 2 }
  for i = 1, maxsize or 2 do assert(dict:set(i, i)) end
  return dict
end

describe("a bounded dictionary", function()
  it("holds values, false too, under keys of any type", function()
    local dict = BoundedDict {}
    local table_key, value = {}, {}
    for _, key in ipairs { "text", "", 1, 2.5, true, false, table_key, print } do
      assert.is_true(dict:set(key, value))
      assert.equal(value, dict:get(key))
      assert.is_true(dict:contains(key))
      assert.equal(value, dict:aget(key))
    end
    assert.equal(8, #dict)
    assert.is_true(dict:set(1.0, false)) -- the same key as 1
    assert.equal(8, #dict)
    assert.is_false(dict:get(1, "default"))
    assert.is_false(dict:aget(1))
    assert.is_false(dict:apop(1))
    assert.is_false(dict:contains(1))
  end)

  it("gives a default for what is not there, and nil without one", function()
    local dict = BoundedDict {}
    assert.is_nil(dict:get "a")
    assert.equal(0, dict:get("a", 0))
    assert.is_nil(dict:pop "a")
    assert.is_false(dict:pop("a", false))
  end)

  it("pops a value once", function()
    local dict = BoundedDict {}
    dict:set("a", 1)
    assert.equal(1, dict:pop("a", 2))
    assert.equal(2, dict:pop("a", 2))
    assert.equal(0, #dict)
  end)

  it("refuses a new key when it is full, and replaces values all the same", function()
    local dict = full_dict(2)
    assert.is_true(dict:full())
    local _, err = dict:set(3, 3)
    assert.equal("RESOURCE_EXHAUSTED: the dictionary is full: 2 entries", tostring(err))
    assert.equal("DEADLINE_EXCEEDED", code_of(dict:aset(3, 3, 0)))
    assert.is_true(dict:set(1, "one"))
    assert.is_true(dict:aset(2, "two"))
    assert.same({ 1, "one", 2, "two" }, entries_of(dict))
    assert.equal("dictionary of 2 of 2 entries", tostring(dict))
    dict:pop(1)
    assert.is_false(dict:full())
    assert.is_true(dict:set(3, 3))
  end)

  it("holds 1000 entries unless it is told otherwise; 0 is no bound", function()
    local dict, unbound = BoundedDict(), BoundedDict { maxsize = 0 }
    for i = 1, 1000 do assert.is_true(dict:set(i, i)) end
    assert.is_true(dict:full())
    for i = 1, 3000 do assert(unbound:set(i, i)) end
    assert.is_false(unbound:full())
    assert.equal("dictionary of 3000 entries", tostring(unbound))
  end)

  it("is iterated in the order in which the keys came", function()
    local dict = BoundedDict {}
    for i, key in ipairs { "z", "a", "m", 1 } do dict:set(key, i) end
    dict:set("a", "new") -- keeps its place
    dict:pop "z"
    dict:set("z", 5) -- comes anew
    assert.same({ "a", "new", "m", 3, 1, 4, "z", 5 }, entries_of(dict))
    assert.same({}, entries_of(BoundedDict {}))
  end)

  it("may be changed during a loop: keys taken out are not visited", function()
    local function visited(change)
      local dict, list = BoundedDict {}, {}
      for i = 1, 6 do dict:set(i, i) end
      for key in pairs(dict) do
        list[#list + 1] = key
        change(dict, key)
      end
      return list
    end
    assert.same({ 1, 2, 3, 4, 5, 6 }, visited(function(dict, key) dict:pop(key) end))
    assert.same({ 1, 3, 5 }, visited(function(dict, key) dict:pop(key + 1) end))
    assert.same({ 1, 4 }, visited(function(dict, key)
      for i = key, key + 2 do dict:pop(i) end
    end))
    assert.same({ 1, 2 }, visited(function(dict, key) if key == 2 then dict:clear() end end))
    assert.same({ 1, 2, 3, 4, 5, 6 }, visited(function(dict, key) dict:set(key, "new") end))
  end)

  it("ends an iteration for good", function()
    local dict = BoundedDict {}
    dict:set("a", 1)
    local next_entry = pairs(dict)
    assert.equal("a", (next_entry()))
    assert.is_nil(next_entry())
    assert.is_nil(next_entry())
  end)

  it("forgets everything in clear()", function()
    local dict = full_dict(3)
    local seen = setmetatable({ {} }, { __mode = "v" })
    dict:set(1, seen[1])
    dict:clear()
    collectgarbage()
    assert.is_nil(seen[1])
    assert.equal(0, #dict)
    assert.same({}, entries_of(dict))
    assert.is_nil(dict:get(2))
    for i = 4, 6 do assert.is_true(dict:set(i, i)) end
  end)

  it("keeps nothing of what was taken out", function()
    local dict = BoundedDict { maxsize = 2 }
    dict:set("stays", 1)
    local function pass(count)
      for i = 1, count do
        dict:set({}, i)
        for key in pairs(dict) do
          if key ~= "stays" then dict:pop(key) end
        end
      end
      collectgarbage()
      collectgarbage()
      return collectgarbage "count"
    end
    local before = pass(1000)
    assert.is_true(pass(50000) - before < 16)
  end)

  it("raises for wrong use, at the caller's line", function()
    local dict = BoundedDict {}
    local nan = 0 / 0
    local cases = {
      { "a key is any value but nil and NaN",
        function() local _ = dict:set(nil, 1) end, function() local _ = dict:set(nan, 1) end,
        function() local _ = dict:aset(nan, 1) end, function() local _ = dict:get() end,
        function() local _ = dict:pop(nan) end, function() local _ = dict:aget(nil) end,
        function() local _ = dict:apop(nan) end, function() local _ = dict:contains(nil) end },
      { "a value is never nil", function() local _ = dict:set("a", nil) end, function() local _ = dict:aset("a") end },
      { "BoundedDict: unknown option 'maxsise', did you mean 'maxsize'",
        function() local _ = BoundedDict { maxsise = 1 } end },
      { "BoundedDict: option 'maxsize' must be 1 or more, or 0 for no bound, got -5",
        function() local _ = BoundedDict { maxsize = -5 } end },
      { "a time is a number of seconds, 0 or more", function() local _ = BoundedDict { timeout = -1 } end },
      { "BoundedDict: option 'timeout' must be a number, got string",
        function() local _ = BoundedDict { timeout = "1" } end },
    }
    for _, case in ipairs(cases) do
      for i = 2, #case do
        local ok, err = pcall(case[i])
        assert.is_false(ok)
        assert.truthy(err:find "^spec/bounded_dict_spec.lua:%d+: " and err:find(case[1], 1, true), err)
      end
    end
    assert.equal(0, #dict)
  end)

  it("does not limit waits in time unless told to, and its own limit gives way to a call's", function()
    turns.stop_clock()
    finally(turns.start_clock)
    local dict = BoundedDict { maxsize = 1, timeout = 0.05 }
    local get, pop = turns.begin(dict.aget, dict, "x"), turns.begin(dict.apop, dict, "x")
    local patient = turns.begin(dict.aget, dict, "x", math.huge)
    local shorter, longer = turns.begin(dict.aget, dict, "x", 0.01), turns.begin(dict.aget, dict, "x", 0.1)
    dict:set("y", 1)
    local set = turns.begin(dict.aset, dict, "z", 1)
    turns.pass(10)
    assert.equal("DEADLINE_EXCEEDED", shorter:outcome())
    turns.pass(39)
    assert.same({ "waits", "waits", "waits" }, outcomes(get, pop, set))
    turns.pass(1)
    assert.same({ "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED" }, outcomes(get, pop, set))
    turns.pass(50)
    assert.same({ "waits", "DEADLINE_EXCEEDED" }, outcomes(patient, longer))
    patient:kill()
  end)
end)

describe("waiting at a bounded dictionary", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  it("gives the default when the time is up, and only then", function()
    local dict = BoundedDict {}
    local get, pop = turns.begin(dict.aget, dict, "x", 0.01, "default"), turns.begin(dict.apop, dict, "x", 0.01, false)
    assert.equal("default", dict:aget("x", 0, "default"))
    turns.pass(9)
    assert.same({ "waits", "waits" }, outcomes(get, pop))
    turns.pass(1)
    assert.same({ "default", "false" }, outcomes(get, pop))
    local closed = turns.begin(dict.aget, dict, "x", 0.01, "default")
    dict:close()
    turns.turn()
    assert.equal("UNAVAILABLE", closed:outcome())
  end)

  it("for a key gives its value to all who get it", function()
    local dict = BoundedDict {}
    local a, b, other = turns.begin(dict.aget, dict, "x"), turns.begin(dict.aget, dict, "x"),
      turns.begin(dict.aget, dict, "y")
    dict:set("x", 1)
    turns.turn()
    assert.same({ "1", "1", "waits" }, outcomes(a, b, other))
    assert.equal(1, dict:get "x")
    other:kill()
  end)

  it("for a key gives the value that was set, also when it was replaced or popped since", function()
    local dict = BoundedDict {}
    local a = turns.begin(dict.aget, dict, "x")
    dict:set("x", 1)
    local b = turns.begin(dict.aget, dict, "x")
    dict:set("x", 2)
    dict:pop "x"
    turns.turn()
    assert.same({ "1", "1" }, outcomes(a, b))
  end)

  it("for a key serves in order, and whoever pops takes it from those behind", function()
    local dict = BoundedDict {}
    local get1, pop1 = turns.begin(dict.aget, dict, "x"), turns.begin(dict.apop, dict, "x")
    local get2, pop2 = turns.begin(dict.aget, dict, "x"), turns.begin(dict.apop, dict, "x")
    dict:set("x", 1)
    assert.is_false(dict:contains "x")
    assert.is_nil(dict:pop "x")
    turns.turn()
    assert.same({ "1", "1", "waits", "waits" }, outcomes(get1, pop1, get2, pop2))
    dict:set("x", 2)
    turns.turn()
    assert.same({ "2", "2" }, outcomes(get2, pop2))
    assert.equal(0, #dict)
    assert.is_nil(next(dict.lines))
  end)

  it("for a key hands each of several values to one who pops", function()
    local dict = BoundedDict {}
    local a, b = turns.begin(dict.apop, dict, "x"), turns.begin(dict.apop, dict, "x")
    dict:set("x", 1)
    dict:set("x", 2)
    turns.turn()
    assert.same({ "1", "2" }, outcomes(a, b))
  end)

  it("puts a value back whose apop is cancelled before its turn", function()
    local dict = BoundedDict { maxsize = 1 }
    local a = turns.begin(dict.apop, dict, "x")
    dict:set("x", 1)
    assert.is_true(dict:full()) -- its place is kept
    a:kill()
    assert.same({ "x", 1 }, entries_of(dict))
    assert.is_true(dict:full())
  end)

  it("gives it to those behind, if there are any", function()
    local dict = BoundedDict { maxsize = 1 }
    local a, b, c = turns.begin(dict.apop, dict, "x"), turns.begin(dict.aget, dict, "x"),
      turns.begin(dict.apop, dict, "x")
    dict:set("x", 1)
    a:kill()
    turns.turn()
    assert.same({ "1", "1" }, outcomes(b, c))
    assert.is_false(dict:full())
  end)

  it("leaves the newer value when an older one would come back, and gives its place away", function()
    local dict = BoundedDict { maxsize = 2 }
    local a = turns.begin(dict.apop, dict, "x")
    dict:set("x", "old")
    dict:set("x", "new")
    local setter = turns.begin(dict.aset, dict, "y", 1)
    assert.equal("waits", setter:outcome())
    a:kill()
    turns.turn()
    assert.equal("true", setter:outcome())
    assert.same({ "x", "new", "y", 1 }, entries_of(dict))
  end)

  it("for a place is in order, and not for those who come later", function()
    local dict = full_dict(2)
    local a, b = turns.begin(dict.aset, dict, "a", 1), turns.begin(dict.aset, dict, "b", 2)
    dict:pop(1)
    assert.is_true(dict:full())
    assert.equal("RESOURCE_EXHAUSTED", code_of(dict:set("c", 3)))
    local c = turns.begin(dict.aset, dict, "c", 3)
    turns.turn()
    assert.same({ "true", "waits", "waits" }, outcomes(a, b, c))
    dict:clear()
    turns.turn()
    assert.same({ "b", 2, "c", 3 }, entries_of(dict))
  end)

  it("for a place is in order also when there are enough for all", function()
    local dict = full_dict(3)
    local a = turns.begin(dict.aset, dict, "a", 1)
    dict:clear()
    local b = turns.begin(dict.aset, dict, "b", 2)
    turns.turn()
    assert.same({ "true", "true" }, outcomes(a, b))
    assert.same({ "a", 1, "b", 2 }, entries_of(dict))
  end)

  it("for a place sets nothing when it is cancelled before its turn", function()
    local dict = full_dict(1)
    local a, b = turns.begin(dict.aset, dict, "a", 1), turns.begin(dict.aset, dict, "b", 2)
    dict:pop(1)
    a:kill()
    turns.turn()
    assert.equal("true", b:outcome())
    assert.same({ "b", 2 }, entries_of(dict))
  end)

  it("for a place ends when the key appears before: to replace needs none", function()
    local dict = full_dict(2)
    local first, between, second = turns.begin(dict.aset, dict, "x", 1), turns.begin(dict.aset, dict, "y", 2),
      turns.begin(dict.aset, dict, "x", 3)
    local reader = turns.begin(dict.aget, dict, "x")
    dict:pop(1)
    turns.turn()
    assert.same({ "true", "waits", "true", "3" }, outcomes(first, between, second, reader))
    assert.same({ 2, 2, "x", 3 }, entries_of(dict))
    between:kill()
    assert.is_nil(next(dict.lines))
  end)

  it("passes a place on when its key was there", function()
    local dict = full_dict(2)
    local popper = turns.begin(dict.apop, dict, "x")
    dict:pop(1)
    dict:set("x", "old") -- on its way to the popper, keeps a place
    local setter, other = turns.begin(dict.aset, dict, "x", "new"), turns.begin(dict.aset, dict, "y", 1)
    dict:pop(2) -- a place for the setter
    popper:kill() -- the old value is back
    assert.equal("old", dict:get "x")
    turns.turn()
    assert.same({ "true", "true" }, outcomes(setter, other))
    assert.same({ "x", "new", "y", 1 }, entries_of(dict))
  end)

  it("for a place is over with its value set, though the task is cancelled before its turn", function()
    local dict = full_dict(1)
    local popper = turns.begin(dict.apop, dict, "x")
    dict:pop(1)
    dict:set("x", "old") -- on its way to the popper, keeps the place
    local setter = turns.begin(dict.aset, dict, "x", "new")
    popper:kill() -- the old value is back, and replaced
    setter:kill()
    turns.turn()
    assert.same({ "x", "new" }, entries_of(dict))
    dict:pop "x"
    assert.is_true(dict:set("y", 1))
    assert.equal("RESOURCE_EXHAUSTED", code_of(dict:set("z", 2)))
  end)

  it("for a place brings the value to those who wait for the key", function()
    local dict = full_dict(1)
    local pop, set = turns.begin(dict.apop, dict, "x"), turns.begin(dict.aset, dict, "x", 5)
    local next_set = turns.begin(dict.aset, dict, "y", 6)
    dict:pop(1)
    turns.turn()
    assert.same({ "5", "true", "true" }, outcomes(pop, set, next_set))
    assert.same({ "y", 6 }, entries_of(dict))
  end)
end)

describe("a bounded dictionary that is closed", function()
  before_each(turns.stop_clock)
  after_each(turns.start_clock)

  it("can be read and emptied, not set", function()
    local dict = full_dict(2)
    dict:close()
    assert.equal("UNAVAILABLE", code_of(dict:set(1, "new")))
    assert.equal("UNAVAILABLE", code_of(dict:aset(3, "new")))
    assert.equal(1, dict:get(1))
    assert.equal(1, dict:aget(1))
    assert.equal(1, dict:apop(1))
    assert.equal("UNAVAILABLE", code_of(dict:aget(1)))
    assert.equal("UNAVAILABLE", code_of(dict:apop(1)))
    assert.is_nil(dict:get(1))
    assert.same({ 2, 2 }, entries_of(dict))
    assert.equal("dictionary of 1 of 2 entries (closed)", tostring(dict))
  end)

  it("refuses a setter that was promised a place, and keeps what was on its way", function()
    local dict = full_dict(2)
    local popper = turns.begin(dict.apop, dict, "x")
    dict:pop(1)
    dict:set("x", 1)
    local setter = turns.begin(dict.aset, dict, "y", 2)
    dict:pop(2)
    dict:close()
    turns.turn()
    assert.same({ "1", "UNAVAILABLE" }, outcomes(popper, setter))
    assert.equal(0, #dict)
  end)
end)

-- The same without care for speed: lists, and every rule spelled out.
local model_mt = {}
model_mt.__index = model_mt

-- line: who waits, setters and getters, in the order of arrival. ready: who was woken, likewise.
local function new_model(maxsize)
  return setmetatable({ maxsize = maxsize, entries = {}, line = {}, ready = {}, now = 0, closed = false }, model_mt)
end

function model_mt:find(key)
  for i, entry in ipairs(self.entries) do
    if entry.key == key then return entry, i end
  end
end

-- A place is kept by each setter that was promised one and each value on its way.
function model_mt:places()
  local places = self.maxsize - #self.entries
  for _, op in ipairs(self.ready) do
    if op.keeps_place then places = places - 1 end
  end
  return places
end

function model_mt:promised()
  for _, op in ipairs(self.ready) do
    if op.kind == "set" and op.keeps_place then return true end
  end
  return false
end

function model_mt:make_ready(op, keeps_place, answer)
  remove_from(self.line, op)
  op.keeps_place, op.answer = keeps_place, answer
  table.insert(self.ready, op)
end

function model_mt:wake()
  for _, op in ipairs { table.unpack(self.line) } do
    if op.kind == "set" and self:places() > 0 then self:make_ready(op, true) end
  end
end

function model_mt:arrive(key, value)
  for _, op in ipairs { table.unpack(self.line) } do
    if op.key == key then
      if op.kind == "set" then
        value = op.value
        self:make_ready(op, false, "true")
      else
        self:make_ready(op, op.kind == "pop", tostring(value))
        op.value = value
        if op.kind == "pop" then return end
      end
    end
  end
  table.insert(self.entries, { key = key, value = value })
end

function model_mt:late(op)
  return op.default or "DEADLINE_EXCEEDED"
end

function model_mt:aset(op)
  local entry = self:find(op.key)
  if self.closed then
    op.result = "UNAVAILABLE"
  elseif entry then
    entry.value, op.result = op.value, "true"
  elseif self:places() > 0 and (op.timeout == 0 or not self:promised()) then
    op.result = "true"
    self:arrive(op.key, op.value)
  elseif op.timeout == 0 then
    op.result = "DEADLINE_EXCEEDED"
  else
    table.insert(self.line, op)
    self:wake()
  end
end

function model_mt:await(op)
  local entry, i = self:find(op.key)
  if entry then
    op.result = tostring(entry.value)
    if op.kind == "pop" then
      table.remove(self.entries, i)
      self:wake()
    end
  elseif self.closed then
    op.result = "UNAVAILABLE"
  elseif op.timeout == 0 then
    op.result = self:late(op)
  else
    table.insert(self.line, op)
  end
end

function model_mt:set(key, value)
  local entry = self:find(key)
  if entry then
    entry.value = value
  elseif self:places() > 0 then
    self:arrive(key, value)
  else
    return "RESOURCE_EXHAUSTED"
  end
  return "true"
end

function model_mt:pop(key)
  local entry, i = self:find(key)
  if not entry then return "none" end
  table.remove(self.entries, i)
  self:wake()
  return tostring(entry.value)
end

function model_mt:clear()
  self.entries = {}
  self:wake()
end

function model_mt:kill(op)
  op.result = "CANCELLED"
  remove_from(self.line, op)
  if not remove_from(self.ready, op) or not op.keeps_place then return end
  if op.kind == "pop" and not self:find(op.key) then
    self:arrive(op.key, op.value)
  else
    self:wake()
  end
end

function model_mt:tick(ms)
  self.now = self.now + ms
  for _, op in ipairs { table.unpack(self.line) } do
    if op.due and op.due <= self.now then
      remove_from(self.line, op)
      op.result = self:late(op)
    end
  end
end

function model_mt:turn()
  while self.ready[1] do
    local op = table.remove(self.ready, 1)
    op.result = op.answer
    if op.kind == "set" and op.keeps_place then
      op.result = "true"
      self:set(op.key, op.value)
    end
    if op.keeps_place then self:wake() end
  end
end

describe("random interleavings of a bounded dictionary", function()
  after_each(turns.start_clock)

  local function run(random, same)
    local maxsize = random(0, 3)
    local dict = BoundedDict { maxsize = maxsize }
    local model = new_model(maxsize == 0 and math.huge or maxsize)
    local ops, value = {}, 0

    local function new_op(kind)
      value = value + 1
      local op = { kind = kind, key = random(3), value = value, now = model.now,
        timeout = ({ nil, 0, random(1, 30), random(1, 30) })[random(4)] }
      op.due = op.timeout and model.now + op.timeout
      ops[#ops + 1] = op
      return op, op.timeout and op.timeout / 1000
    end

    local function begin_set()
      local op, seconds = new_op "set"
      op.task = turns.begin(dict.aset, dict, op.key, op.value, seconds)
      model:aset(op)
    end

    local function begin_get()
      local op, seconds = new_op(random(2) == 1 and "get" or "pop")
      op.default = random(3) == 1 and "default" or nil
      op.task = turns.begin(op.kind == "get" and dict.aget or dict.apop, dict, op.key, seconds, op.default)
      model:await(op)
    end

    local actions = {
      begin_set, begin_set, begin_get, begin_get, begin_get,
      function()
        local key = random(3)
        value = value + 1
        same(model:set(key, value), text_of(dict:set(key, value)))
      end,
      function()
        local key = random(3)
        same(model:pop(key), text_of(dict:pop(key, "none")))
      end,
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
      function()
        if random(4) > 1 then return end
        model:clear()
        dict:clear()
      end,
    }

    local function check()
      local i = 0
      for key, each in pairs(dict) do
        i = i + 1
        same(model.entries[i] and model.entries[i].key, key)
        same(model.entries[i].value, each)
      end
      same(#model.entries, i)
      same(i, #dict)
      same(model:places() <= 0, dict:full())
    end

    for _ = 1, random(20, 60) do
      for _ = 1, random(4) do
        actions[random(#actions)]()
        check()
      end
      if random(3) > 1 then
        model:turn()
        turns.settle(ops, same)
        check()
      end
    end
    for _, op in ipairs(ops) do op.task:kill() end
    same(nil, next(dict.lines))
    same(nil, dict.setters.first)
    same(0, dict.promised + dict.taken)
  end

  it("are those of a plain model [limit 60]", function() turns.random_runs(300, run) end)
end)
