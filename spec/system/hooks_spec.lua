-- Hooks of message_pack on both sides of a call, and what they do at the wrong moment.
local gaterpc = require "gaterpc"
local process = require "support.process"
local pty = require "support.pty"
local uv = require "luv"
local task = gaterpc.task
local message_pack = gaterpc.message_pack

-- Its hooks fail when they meet { fail = ... }, and it sends files by name.
local METHODS = [[
local message_pack = gaterpc.message_pack
local function check(value)
  if type(value) ~= "table" then return value end
  if value.fail == "string" then error("cannot take this", 0) end
  if value.fail == "object" then error(gaterpc.error("PERMISSION_DENIED", "not from you")) end
  if value.fail == "wait" then task.sleep(1) end
  if value.fail == "yield" then coroutine.yield "item" end
  if value.fail == "nothing" then return end
  if value.fail == "not found" then error { code = "NOT_FOUND", message = "nothing there" } end
  return value
end
message_pack.unpack_object_hook = check
message_pack.prepare_pack = function(value) return check(value()) end
local Point = {}
message_pack.register_ext {
  type = 5, name = "Point", metatable = Point,
  pack = function(p) return string.pack("<i4i4", p.x, p.y) end,
  unpack = function(bytes) return setmetatable({ x = string.unpack("<i4", bytes), y = #bytes }, Point) end,
}
local function giving(value) return function() return value end end
function Class.interface:echo(...) return (...) end
function Class.interface:kwargs(kwargs) return gaterpc.is_kwargs(kwargs) and kwargs.t.x end
function Class.interface:is_point(p) return getmetatable(p) == Point and p.x end
function Class.interface:point(x) return setmetatable({ x = x, y = 0 }, Point) end
function Class.interface:give(value) return giving(value) end
function Class.interface:fail(how) return { deep = giving { fail = how } } end
function Class.interface:items(values)
  for i = 1, #values do coroutine.yield(giving(values[i])) end
end
function Class.interface:fail_item(how)
  coroutine.yield "first"
  coroutine.yield(giving { fail = how })
  coroutine.yield "never"
end
function Class.interface:leave(how)
  message_pack.prepare_pack = function()
    self:close()
    if how == "error" then error "boom" end
    return "gone"
  end
  if how == "item" then coroutine.yield(print) end
  return print
end
function Class.interface:leave_by_argument() return "never" end
]]

local LEAVE = [[
message_pack.unpack_list_hook = function(list)
  if list[1] == "leave" then worker:close() end
  if list[2] == "error" then error "boom" end
  return list
end
]]

local function reset()
  for _, name in ipairs { "prepare_pack", "unpack_object_hook", "unpack_object_pairs_hook", "unpack_list_hook" } do
    message_pack[name] = nil
  end
  message_pack.unregister_ext(5)
end

local FAILURES = {
  string = { "INTERNAL", "cannot take this" },
  object = { "PERMISSION_DENIED", "not from you" },
  wait = { "INTERNAL", "cannot wait here: inside a hook of message_pack" },
  yield = { "INTERNAL", "it cannot wait or yield" },
  nothing = { "INTERNAL", "it returned nothing" },
  ["not found"] = { "NOT_FOUND", "nothing there" },
}

describe("hooks", function()
  local worker, client, front, back

  before_each(function()
    local _
    _, front, back = process.broker "ipc"
    worker = process.worker("H", METHODS, back)
    client = gaterpc.Client { broker = front, timeout = process.limit(9) }
  end)

  after_each(function()
    reset()
    client:close()
    process.finish()
  end)

  local function still_well()
    assert.equal("well", client.H.echo "well")
    assert.is_true(worker:is_running())
    assert.equal(0, client:stats().open)
  end

  describe("that do their work", function()
    it("see arguments, keyword arguments and results on both sides", function()
      message_pack.unpack_object_hook = function(map) return map.x and { seen = map.x } or map end
      message_pack.prepare_pack = tostring
      assert.same({ seen = 5 }, client.H.echo { x = 5 })
      assert.matches("^function", client.H.echo(print))
      assert.matches("^thread", client.H.kwargs(gaterpc.kwargs { t = { x = coroutine.create(print) } }))
      assert.same({ { seen = 1 }, 2 }, client.H.give { { x = 1 }, 2 })
      local items = {}
      for item in client.H.items { 1, { x = 2 }, { 3, { x = 4 } } } do items[#items + 1] = item end
      assert.same({ 1, { seen = 2 }, { 3, { seen = 4 } } }, items)
      still_well()
    end)

    it("carry objects as ext types", function()
      local Point = {}
      message_pack.register_ext {
        type = 5, name = "Point", metatable = Point,
        pack = function(p) return string.pack("<i4i4", p[1], 0) end,
        unpack = function(bytes) return setmetatable({ (string.unpack("<i4", bytes)) }, Point) end,
      }
      assert.equal(7, client.H.is_point(setmetatable({ 7 }, Point)))
      assert.equal(Point, getmetatable(client.H.point(8)))
      assert.same({ 9 }, setmetatable(client.H.echo(setmetatable({ 9 }, Point)), nil))
      message_pack.unregister_ext(5)
      assert.equal(5, client.H.point(8).type)
      still_well()
    end)
  end)

  describe("that fail", function()
    for how, row in pairs(FAILURES) do
      local code, text = table.unpack(row)

      it(("(%s) in a worker's arguments are an error reply"):format(how), function()
        for _, call in ipairs { { "unpack_object_hook at argument 2%.a%[2%]: ", 1, { a = { 1, { fail = how } } } },
          { "unpack_object_hook at kwargs%.k: ", gaterpc.kwargs { k = { fail = how } } } } do
          local result, err = client:try("H", "echo", table.unpack(call, 2))
          assert.is_nil(result)
          assert.equal(code, err.code)
          assert.matches("^the arguments cannot be unpacked: " .. call[1], err.message)
          assert.truthy(err.message:find(text, 1, true), err.message)
          assert.equal("H", err.service)
          still_well()
        end
        process.eventually(function()
          return worker:count_log "H%.echo failed: the arguments cannot be unpacked: " == 2
        end, "a line for each")
      end)

      it(("(%s) in a worker's result are the method's error"):format(how), function()
        local result, err = client:try("H", "fail", how)
        assert.is_nil(result)
        assert.equal("INTERNAL", err.code)
        assert.matches("^the result cannot be sent: a function at %.deep cannot be packed: prepare_pack: ", err.message)
        assert.truthy(err.message:find(text, 1, true), err.message)
        still_well()
      end)

      it(("(%s) in a worker's item end the stream with the method's error"):format(how), function()
        local stream <close> = client.H.fail_item(how)
        assert.equal("first", stream:next())
        local ok, err = pcall(stream.next, stream)
        assert.is_false(ok)
        assert.equal("INTERNAL", err.code)
        assert.matches("^an item cannot be sent: a function cannot be packed: prepare_pack: ", err.message)
        assert.truthy(err.message:find(text, 1, true), err.message)
        assert.is_nil(stream:next())
        still_well()
      end)
    end

    it("in a client's arguments are the caller's error", function()
      message_pack.prepare_pack = function() error("boom", 0) end
      local result, err = client:try("H", "echo", { 1, print })
      assert.is_nil(result)
      assert.equal("INTERNAL", err.code)
      assert.equal("a function at argument 1[2] cannot be packed: prepare_pack: boom", err.message)
      local ok, raised = pcall(client.H.echo, print)
      assert.is_false(ok)
      assert.equal("INTERNAL", raised.code)
      still_well()
    end)

    it("in a client's result are what the call raises", function()
      message_pack.unpack_object_hook = function(map) return map.bad and error(map.bad, 0) or map end
      local ok, err = pcall(client.H.echo, { a = { bad = "boom" } })
      assert.is_false(ok)
      assert.equal("INTERNAL", err.code)
      assert.equal("the result cannot be unpacked: unpack_object_hook at .a: boom", err.message)
      assert.equal("echo", err.method)
      assert.same({ good = 1 }, client.H.echo { good = 1 })
      message_pack.unpack_object_hook = function() error(gaterpc.error("INVALID_ARGUMENT", "no such colour")) end
      local _, tried = client:try("H", "echo", { a = 1 })
      assert.equal("INVALID_ARGUMENT", tried.code)
      still_well()
    end)

    it("in a client's item end the stream with their error, and its method", function()
      message_pack.unpack_object_hook = function() error("boom", 0) end
      local stream <close> = client.H.items { 1, 2, { x = 3 }, 4 }
      assert.equal(1, stream:next())
      assert.equal(2, stream:next())
      local ok, err = pcall(stream.next, stream)
      assert.is_false(ok)
      assert.equal("INTERNAL", err.code)
      assert.equal("an item cannot be unpacked: unpack_object_hook: boom", err.message)
      assert.is_nil(stream:next())
      still_well()
    end)
  end)

  describe("that call", function()
    it("cannot wait for it, and the call around them is not disturbed", function()
      local said
      message_pack.prepare_pack = function()
        local inner = coroutine.wrap(function() return pcall(client.H.echo, ("x"):rep(1000)) end)
        said = select(2, pcall(inner))
        return "prepared"
      end
      assert.same({ "before", "prepared", "after" }, client.H.echo { "before", print, "after" })
      assert.matches("cannot wait here: inside a hook of message_pack", tostring(said))
      still_well()
    end)

    it("may start tasks that do", function()
      local other
      message_pack.prepare_pack = function()
        other = task.spawn(function() return client.H.echo "from a task" end)
        return "prepared"
      end
      assert.equal("prepared", client.H.echo(print))
      assert.equal("from a task", other:join())
      still_well()
    end)
  end)

  describe("that close their client", function()
    it("while it packs arguments end the call with UNAVAILABLE", function()
      for _, and_fail in ipairs { true, false } do
        local own = gaterpc.Client { broker = front, timeout = process.limit(9) }
        message_pack.prepare_pack = function()
          own:close()
          return not and_fail and "prepared" or error "boom"
        end
        local _, err = own:try("H", "echo", ("x"):rep(100000), print)
        assert.equal("UNAVAILABLE", err.code)
        assert.equal("the client is closed", err.message)
      end
      still_well()
    end)

    it("while it unpacks a result end the call with UNAVAILABLE", function()
      for _, and_fail in ipairs { true, false } do
        local own = gaterpc.Client { broker = front, timeout = process.limit(9) }
        message_pack.unpack_list_hook = function(list)
          own:close()
          return not and_fail and list or error "boom"
        end
        local value = { "before", { 1 }, ("after"):rep(10000) }
        local _, err = own:try("H", "echo", value)
        assert.equal("UNAVAILABLE", err.code)
        message_pack.unpack_list_hook = nil
      end
      still_well()
    end)

    it("while it unpacks an item end the stream", function()
      local own = gaterpc.Client { broker = front, timeout = process.limit(9) }
      message_pack.unpack_list_hook = function(list)
        own:close()
        collectgarbage()
        return list
      end
      local stream = own.H.items { { 1 }, 2, 3 }
      assert.same({ 1 }, stream:next())
      -- What had come is still read, or the stream has failed; nothing else.
      local ok, err = pcall(function() for _ in stream do end end) -- luacheck: ignore 542
      assert.is_true(ok or err.code == "UNAVAILABLE", err)
      message_pack.unpack_list_hook = nil
      still_well()
    end)
  end)

  it("that close their stream while it unpacks an item end it", function()
    local stream
    message_pack.unpack_list_hook = function(list)
      stream:close()
      collectgarbage()
      return list
    end
    stream = client.H.items { 0, { 1, ("x"):rep(10000) }, 2, 3 }
    assert.equal(0, stream:next())
    assert.equal(1, stream:next()[1])
    assert.is_nil(stream:next())
    message_pack.unpack_list_hook = nil
    still_well()
  end)

  it("that read the stream whose item they unpack fail it, with no item lost or read twice", function()
    local stream, said
    message_pack.unpack_list_hook = function(list)
      said = select(2, pcall(stream.next, stream))
      return list
    end
    stream = client.H.items { 0, { 1 }, 2, { 3 } }
    assert.equal(0, stream:next())
    assert.same({ 1 }, stream:next())
    assert.equal("DATA_LOSS", said.code)
    assert.is_nil(stream:next())
    message_pack.unpack_list_hook = nil
    still_well()
  end)

  describe("that close their worker", function()
    local function leaves(...)
      local _, err = client:try("H", ...)
      assert.matches("^WORKER_LOST", tostring(err))
      assert.equal(0, worker:wait_exit())
      assert.equal(0, worker:count_log "traceback")
    end

    it("while it packs a result lose its calls and nothing else", function() leaves("leave", "result") end)

    it("and fail then, likewise", function() leaves("leave", "error") end)

    it("while it packs an item, likewise", function()
      local ok, err = pcall(function()
        local stream <close> = client.H.leave "item"
        return stream:next()
      end)
      assert.is_false(ok)
      assert.equal("WORKER_LOST", err.code)
      assert.equal(0, worker:wait_exit())
    end)

    for _, and_fail in ipairs { false, true } do
      it(("while it unpacks arguments%s, likewise"):format(and_fail and " and fail then" or ""), function()
        local leaver = process.host(([[
          local gaterpc = require "gaterpc"
          local message_pack = gaterpc.message_pack
          local Class = gaterpc.Worker:extend "Class"
          function Class.interface:never() print "it ran" end
          local worker = gaterpc.Service { name = "L" }:create_worker(Class, { broker = %q })
          %s
          worker:run()
        ]]):format(back, LEAVE))
        leaver:wait_log "L is registered"
        local _, err = client:try("L", "never", { "leave", and_fail and "error" or "" },
          { ("x"):rep(10000), "more" })
        assert.equal("WORKER_LOST", err.code)
        assert.equal(0, leaver:wait_exit())
        assert.equal("", leaver.out)
        still_well()
      end)
    end
  end)

  it("that take their time are named in the log with the method that they work for", function()
    local slow = process.worker("Slow", [[
      gaterpc.Settings.BUSY_LIMIT = 0.05
      gaterpc.message_pack.unpack_list_hook = function(list)
        local core = require "gaterpc.core"
        local deadline = core.now() + list[1]
        while core.now() < deadline do end
        return list
      end
      function Class.interface:take(list) return #list end
    ]], back, { heartbeat = process.BEAT })
    assert.equal(1, client.Slow.take { process.limit(0.5) })
    slow:wait_log "Slow%.take has run %d+%.%d s without yielding"
  end)
end)

describe("hooks in a broker's process", function()
  after_each(process.finish)

  it("that fail are the error of its handlers, and the broker goes on", function()
    local host = process.host [[
      local gaterpc = require "gaterpc"
      local message_pack = gaterpc.message_pack
      message_pack.unpack_list_hook = function(list) return list[1] and list or error("an empty list", 0) end
      message_pack.prepare_pack = function() error("what is this", 0) end
      local Broker = gaterpc.Majordomo:extend "Broker"
      function Broker.interface:size(_, list) return 200, #list end
      function Broker.interface:give() return 200, print end
      local broker = Broker { frontend = "tcp://127.0.0.1:*", backend = "tcp://127.0.0.1:*" }
      broker:start()
      print(broker:addresses())
      broker:run()
    ]]
    local client <close> = gaterpc.Client { broker = host:wait_line "(%S+)\t", timeout = process.limit(9) }
    host:wait_log "Gate is registered"
    for _ = 1, 2 do
      assert.equal(2, client.Gate.size { 1, 2 })
      local _, err = client:try("Gate", "size", {})
      assert.equal("INTERNAL", err.code)
      assert.equal("the arguments cannot be unpacked: unpack_list_hook at argument 1: an empty list", err.message)
      _, err = client:try("Gate", "give")
      assert.equal("INTERNAL", err.code)
      assert.equal("the result cannot be sent: a function cannot be packed: prepare_pack: what is this", err.message)
    end
  end)
end)

describe("a finalizer that closes its client while a result is unpacked", function()
  after_each(process.finish)

  it("does no harm", function()
    local _, front, back = process.broker "ipc"
    process.worker("H", "function Class.interface:echo(value) return value end", back)
    local host = process.client(([[
      local value = {}
      for i = 1, 20000 do value[i] = { i, tostring(i) } end
      collectgarbage "generational"
      for round = 1, 10 do
        local own = gaterpc.Client { broker = "%s" }
        local closed
        own:try("H", "echo", 1)
        setmetatable({}, { __gc = function() closed = true own:close() end })
        local result, err = own:try("H", "echo", value)
        assert(result and #result == 20000 or err.code == "UNAVAILABLE", tostring(err))
        own:close()
      end
      print "done"
      client:close()
    ]]):format(front), front)
    host:wait_line "done"
    assert.equal(0, host:wait_exit())
  end)
end)

describe("a hook that never ends, at the prompt", function()
  after_each(pty.finish)

  -- ThreadSanitizer gives signals only to code that calls the C library now and then.
  local unless_tsan = uv.exepath():find "thread" and pending or it

  unless_tsan("is ended by Ctrl-C, in arguments and in results", function()
    local _, front, back = process.broker "ipc"
    process.worker("H", "function Class.interface:echo(value) return value end", back)
    local terminal = pty.host {}
    terminal:wait_prompt()
    terminal:enter(("client = gaterpc.Client { broker = %q }"):format(front))
    terminal:wait_prompt()
    terminal:enter "function forever() io.write('forever\\n') while true do end end"
    terminal:wait_prompt()
    for _, setting in ipairs { "prepare_pack", "unpack_list_hook" } do
      terminal:enter(("gaterpc.message_pack.%s = forever"):format(setting))
      terminal:wait_prompt()
      terminal:enter "client.H.echo { print }"
      terminal:wait_line "forever"
      terminal:type "\3"
      terminal:wait_prompt()
      terminal:enter "gaterpc.message_pack.prepare_pack = tostring"
      terminal:wait_prompt()
    end
    terminal:enter "gaterpc.message_pack.unpack_list_hook = nil"
    terminal:wait_prompt()
    terminal:enter "#client.H.echo { print }"
    terminal:wait_line "1"
  end)
end)
