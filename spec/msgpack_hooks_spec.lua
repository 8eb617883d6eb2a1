local msgpack = require "gaterpc.msgpack"
local gaterpc = require "gaterpc"
local nest = require "support.values".nest
local task = gaterpc.task

local pack, unpack, null = msgpack.pack, msgpack.unpack, msgpack.null
local EINVAL, EXHAUSTED, INTERNAL = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "INTERNAL"

local HOOKS = { "prepare_pack", "unpack_object_hook", "unpack_object_pairs_hook", "unpack_list_hook" }

local function forget_all()
  for _, name in ipairs(HOOKS) do msgpack[name] = nil end
  for type = -128, 127 do
    local is_own = type == -1 or type >= -110 and type <= -101
    if not is_own then msgpack.unregister_ext(type) end
  end
end

-- Packs with nothing set, and unpacks with what the test has set.
local function unpacked(value)
  local kept = msgpack.prepare_pack
  msgpack.prepare_pack = nil
  local bytes = assert(pack(value))
  msgpack.prepare_pack = kept
  return unpack(bytes)
end

---Code and text of a failure.
local function failure(value, ...)
  assert.is_nil(value)
  return ...
end

local function packed(value)
  local bytes, code, text = pack(value)
  assert.is_nil(code, text)
  return unpack(bytes)
end

local function fails(expected_code, expected_text, ...)
  local code, text = failure(...)
  assert.equal(expected_text, text)
  assert.equal(expected_code, code)
end

-- The message of a raised error, which must name a line of this file.
local function misuse(fn)
  local ok, err = pcall(fn)
  assert.is_false(ok)
  local line, message = err:match("msgpack_hooks_spec%.lua:(%d+): (.*)")
  assert.is_string(line, err)
  return message
end

describe("msgpack hooks", function()
  before_each(forget_all)
  after_each(forget_all)

  describe("as settings", function()
    it("are nil, take a function, and take nil again", function()
      for _, name in ipairs(HOOKS) do
        local function hook(value) return value end
        assert.is_nil(msgpack[name])
        msgpack[name] = hook
        assert.equal(hook, msgpack[name])
        msgpack[name] = nil
        assert.is_nil(msgpack[name])
      end
    end)

    it("are what gaterpc.message_pack has", function()
      assert.equal(gaterpc.message_pack, msgpack)
    end)

    it("refuse everything but functions, at the caller's line", function()
      for _, wrong in ipairs { 5, "name", {}, true, setmetatable({}, { __call = print }) } do
        assert.equal("message_pack.prepare_pack must be a function or nil, got " .. type(wrong),
          misuse(function() msgpack.prepare_pack = wrong end))
      end
    end)

    it("have no other names, and the nearest one is told", function()
      assert.equal("unknown name in message_pack: 'prepare_pak', did you mean 'prepare_pack'?",
        misuse(function() msgpack.prepare_pak = print end))
      assert.equal("unknown name in message_pack: 'unpak', did you mean 'unpack'?",
        misuse(function() return msgpack.unpak end))
      assert.equal("unknown name in message_pack: 'unpack_object_list_hook', did you mean 'unpack_list_hook'?",
        misuse(function() msgpack.unpack_object_list_hook = print end))
      assert.matches("^unknown name in message_pack: '1'", misuse(function() msgpack[1] = print end))
    end)

    it("for maps exclude each other", function()
      msgpack.unpack_object_hook = function(map) return map end
      assert.equal("message_pack.unpack_object_hook is set: only one of it and unpack_object_pairs_hook can be",
        misuse(function() msgpack.unpack_object_pairs_hook = print end))
      msgpack.unpack_object_hook = nil
      msgpack.unpack_object_pairs_hook = function(pairs) return pairs end
      assert.equal("message_pack.unpack_object_pairs_hook is set: only one of it and unpack_object_hook can be",
        misuse(function() msgpack.unpack_object_hook = print end))
      msgpack.unpack_object_hook = nil -- it is not set anyway
    end)
  end)

  describe("prepare_pack", function()
    it("sees what cannot be packed, and only that", function()
      local seen = {}
      msgpack.prepare_pack = function(value)
        seen[#seen + 1] = type(value)
        return type(value)
      end
      local co = coroutine.create(print)
      assert.same({ "function", { "thread" }, "userdata", 1, "x", { a = true } },
        packed { print, { co }, io.stdout, 1, "x", { a = true } })
      assert.same({ "function", "thread", "userdata" }, seen)
      packed { msgpack.bin "x", msgpack.ext(5, "x"), msgpack.timestamp(1), msgpack.uint64(5), null,
        setmetatable({}, { __name = "foreign" }), 1.5, false }
      assert.equal(3, #seen)
      assert.equal("function", packed(print))
    end)

    it("sees a table with holes", function()
      msgpack.prepare_pack = msgpack.array
      assert.same({ 1, null, 3 }, packed { 1, nil, 3 })
      msgpack.prepare_pack = function(value) return value end
      fails(EINVAL, "a table at .a cannot be packed: prepare_pack: it gave 8 values that cannot be packed either",
        pack { a = { 1, nil, 3 } })
    end)

    it("does not see keys", function()
      msgpack.prepare_pack = function() error "called" end
      fails(EINVAL, "a table has a function as a key, which cannot be packed", pack { [print] = 1 })
    end)

    it("may give anything that can be packed, tables with more to prepare too", function()
      local depth_of = {}
      local function tree(depth)
        local co = coroutine.create(print)
        depth_of[co] = depth
        return co
      end
      msgpack.prepare_pack = function(value)
        local depth = depth_of[value]
        return depth == 0 and "leaf" or { depth, inner = tree(depth - 1) }
      end
      local value = packed(tree(30))
      for depth = 30, 1, -1 do
        assert.equal(depth, value[1])
        value = value.inner
      end
      assert.equal("leaf", value)
      msgpack.prepare_pack = function() return nil end
      assert.same({ null }, packed { print })
    end)

    it("may give a value that it must see again, up to 8 times", function()
      local left
      msgpack.prepare_pack = function()
        left = left - 1
        return left > 0 and print or "done"
      end
      left = 8
      assert.same({ "done" }, packed { print })
      left = 9
      fails(EINVAL, "a function at [1] cannot be packed: prepare_pack: it gave 8 values that cannot be packed either",
        pack { print })
    end)

    it("has 8 rounds for each value, whatever lies around it or came before", function()
      local rounds = {}
      msgpack.prepare_pack = function(value) -- a userdata of depth n becomes {thread of n - 1, thread of n - 1}
        rounds[value] = (rounds[value] or 0) + 1
        if rounds[value] < 5 then return value end
        local _, depth = coroutine.resume(value)
        if depth == 0 then return "leaf" end
        local function inner() return coroutine.create(function() return depth - 1 end) end
        return { inner(), inner() }
      end
      local function leaves(t) return t == "leaf" and 1 or leaves(t[1]) + leaves(t[2]) end
      assert.equal(16, leaves(packed(coroutine.create(function() return 4 end))))
      rounds = {}
      assert.same({ "leaf", "leaf", "leaf" }, packed { coroutine.create(function() return 0 end),
        coroutine.create(function() return 0 end), coroutine.create(function() return 0 end) })
    end)

    it("cannot lead beyond the limits", function()
      msgpack.prepare_pack = function(value) return { value } end
      assert.matches("is nested deeper than 64 levels$", select(2, failure(pack(print))))
      assert.equal(EXHAUSTED, (failure(pack(print))))
      msgpack.prepare_pack = function() return nest(63, 1) end
      assert.is_string(pack { print })
      msgpack.prepare_pack = function() return nest(64, 1) end
      assert.equal(EXHAUSTED, (failure(pack { print })))
      msgpack.prepare_pack = function() return ("x"):rep((32 << 20) + 1) end
      fails(EXHAUSTED, "a string at [1] is longer than 32 MiB", pack { print })
    end)

    it("works in arguments, positional and by keyword", function()
      msgpack.prepare_pack = function() return "prepared" end
      local bytes, split = msgpack.pack_args(print, { a = print }, msgpack.kwargs { k = print })
      local ok, first, second, kwargs = msgpack.unpack_args(bytes, split)
      assert.is_true(ok)
      assert.equal("prepared", first)
      assert.same({ a = "prepared" }, second)
      assert.is_true(msgpack.is_kwargs(kwargs))
      assert.equal("prepared", kwargs.k)
    end)
  end)

  describe("unpack_object_hook", function()
    it("takes each map, the inner ones first, and gives what stands for it", function()
      local order = {}
      msgpack.unpack_object_hook = function(map)
        order[#order + 1] = map.name
        return map.name
      end
      assert.equal("outer", unpacked { name = "outer", inner = { name = "inner", innermost = { { name = "it" } } } })
      assert.same({ "it", "inner", "outer" }, order)
    end)

    it("does not take arrays, wrappers and scalars", function()
      msgpack.unpack_object_hook = function() error "called" end
      for _, value in ipairs { 1, "x", { 1, { 2 } }, msgpack.ext(1, "x"), msgpack.timestamp(1), {}, true } do
        assert.is_nil((select(2, unpacked(value))))
      end
    end)

    it("can give anything, nil too, which is null inside of containers", function()
      msgpack.unpack_object_hook = function(map) return map.is end
      assert.same({ false, null, print and 5 }, unpacked { { is = false }, msgpack.map {}, { is = 5 } })
      assert.is_false(unpacked { is = false })
      local value, code = unpacked(msgpack.map {})
      assert.is_nil(value)
      assert.is_nil(code)
      msgpack.unpack_object_hook = function() return print, "and more, which is ignored" end
      assert.same({ print }, unpacked { { a = 1 } })
      assert.equal(1, select("#", unpacked { a = 1 }))
    end)

    it("takes maps of the kind that they have without it", function()
      msgpack.unpack_object_hook = function(map) return map end
      for _, bytes in ipairs { "\x80", "\x81\1\1", "\x81\xa1a\x80" } do
        assert.equal(bytes, pack((unpack(bytes))))
      end
    end)

    it("does not take arguments as a whole", function()
      local seen = 0
      msgpack.unpack_object_hook = function(map)
        seen = seen + 1
        return map.name or "map"
      end
      msgpack.unpack_list_hook = function() error "called" end
      local ok, first, kwargs = msgpack.unpack_args(msgpack.pack_args({ name = "first" },
        msgpack.kwargs { a = { name = "inner" }, b = 1 }))
      assert.is_true(ok)
      assert.equal("first", first)
      assert.is_true(msgpack.is_kwargs(kwargs))
      assert.same({ a = "inner", b = 1 }, setmetatable(kwargs, nil))
      assert.equal(2, seen)
    end)

    it("gives nil as an argument when it returns nil", function()
      msgpack.unpack_object_hook = function() return nil end
      local results = table.pack(msgpack.unpack_args(msgpack.pack_args({ a = 1 }, 2, { a = 1 })))
      assert.equal(4, results.n)
      assert.same({ true, nil, 2, nil, n = 4 }, results)
    end)

    it("sees a kwargs table that is not the last argument as a map", function()
      msgpack.unpack_object_hook = function(map) return map.a end
      assert.same({ true, 1, 2 }, { msgpack.unpack_args(msgpack.pack_args(msgpack.kwargs { a = 1 }, 2)) })
    end)
  end)

  describe("unpack_object_pairs_hook", function()
    it("takes the pairs of each map in the order of the bytes, equal keys too", function()
      msgpack.unpack_object_pairs_hook = function(list) return list end
      assert.same({ { "b", 1 }, { "a", 2 }, { "b", 3 } }, (unpack "\x83\xa1b\1\xa1a\2\xa1b\3"))
      assert.same({}, (unpack "\x80"))
      assert.same({ { 1, { { "x", null } } }, { true, { 5 } } }, (unpack "\x82\1\x81\xa1x\xc0\xc3\x91\5"))
    end)

    it("keeps what keys may be", function()
      msgpack.unpack_object_pairs_hook = function(list) return list end
      for _, bytes in ipairs { "\x81\xc0\1", "\x81\x90\1", "\x81\x80\1", "\x81\xca\x7f\xc0\0\0\1" } do
        assert.equal(EINVAL, (failure(unpack(bytes))))
      end
      local key = unpack("\x81\xcf\xff\xff\xff\xff\xff\xff\xff\xff\1")[1][1]
      assert.equal("18446744073709551615", tostring(key))
    end)

    it("leaves keyword arguments alone", function()
      msgpack.unpack_object_pairs_hook = function(list) return #list end
      local _, kwargs = msgpack.unpack_args(msgpack.pack_args(msgpack.kwargs { a = { x = 1, y = 2 } }))
      assert.is_true(msgpack.is_kwargs(kwargs))
      assert.equal(2, kwargs.a)
    end)

    it("has the limits of depth, elements and bytes", function()
      msgpack.unpack_object_pairs_hook = function(list) return list end
      assert.equal(EXHAUSTED, (failure(unpack(("\x81\1"):rep(65) .. "\1"))))
      assert.is_table((unpack(("\x81\1"):rep(64) .. "\1")))
      assert.equal(EINVAL, (failure(unpack "\xde\xff\xff\1\1")))
      assert.equal(EINVAL, (failure(unpack "\x82\1\1\1")))
    end)
  end)

  describe("unpack_list_hook", function()
    it("takes each array, the inner ones first, and gives what stands for it", function()
      msgpack.unpack_list_hook = table.concat
      assert.equal("abcd", unpacked { "a", { "b", { "c" } }, "d" })
      assert.same({ x = "ab" }, unpacked { x = { "a", { "b" } } })
    end)

    it("works together with the one for maps", function()
      msgpack.unpack_list_hook = function(list) return { list = list } end
      msgpack.unpack_object_hook = function(map) return { map = map } end
      assert.same({ map = { a = { list = { { map = { b = 1 } } } } } }, unpacked { a = { { b = 1 } } })
    end)
  end)

  describe("an error in a hook", function()
    it("is a failure with the hook's name and words, and the place", function()
      msgpack.prepare_pack = function() error "boom" end
      local code, text = failure(pack { user = { callback = print } })
      assert.equal(INTERNAL, code)
      assert.matches("^a function at %.user%.callback cannot be packed: prepare_pack: .*_spec%.lua:%d+: boom$", text)
      code, text = failure(msgpack.pack_args(1, { print }))
      assert.equal(INTERNAL, code)
      assert.matches("^a function at argument 2%[1%] cannot be packed: prepare_pack: .*boom$", text)

      msgpack.unpack_object_hook = function(map) return map.bad and error("boom", 0) or map end
      fails(INTERNAL, 'unpack_object_hook at .user["full name"][2]: boom',
        unpacked { user = { ["full name"] = { 1, { bad = true } } } })
      fails(INTERNAL, "unpack_object_hook: boom", unpacked { bad = true })
      local ok
      ok, code, text = msgpack.unpack_args(msgpack.pack_args(1, { { bad = true } }))
      assert.is_nil(ok)
      assert.equal(INTERNAL, code)
      assert.equal("unpack_object_hook at argument 2[1]: boom", text)
      fails(INTERNAL, "unpack_object_hook at kwargs.key: boom",
        msgpack.unpack_args(msgpack.pack_args(1, msgpack.kwargs { key = { bad = true } })))
      msgpack.unpack_object_hook = nil

      msgpack.unpack_object_pairs_hook = function(list) return list[1][1] == "bad" and error("boom", 0) or list end
      fails(INTERNAL, "unpack_object_pairs_hook at .user[true]: boom", unpacked { user = { [true] = { bad = 1 } } })

      msgpack.unpack_list_hook = function(list) return #list == 0 and error("boom", 0) or list end
      fails(INTERNAL, "unpack_list_hook at [2]: boom", unpacked { 1, {} })
    end)

    it("names the key in a map with many numbers as keys", function()
      msgpack.unpack_list_hook = function() error("boom", 0) end
      local map = { [5000] = {} }
      for i = 1, 1000 do map[-i] = i end
      fails(INTERNAL, "unpack_list_hook at [5000]: boom", unpacked(map))
    end)

    it("has the code and message of an error object", function()
      local raised
      msgpack.unpack_list_hook = function() error(raised) end
      raised = gaterpc.error("INVALID_ARGUMENT", "no such colour")
      fails(EINVAL, "unpack_list_hook: no such colour", unpacked {})
      raised = { code = "PERMISSION_DENIED", message = "not for you" }
      fails("PERMISSION_DENIED", "unpack_list_hook: not for you", unpacked {})
      raised = { code = "WHATEVER", message = "text" }
      fails(INTERNAL, "unpack_list_hook: text", unpacked {})
      raised = setmetatable({ code = EINVAL }, { __tostring = function() return "as text" end })
      fails(EINVAL, "unpack_list_hook: as text", unpacked {})
    end)

    it("may be any value, however nasty", function()
      local raised
      local function trap() error "again" end
      msgpack.unpack_list_hook = function() error(raised) end
      local texts = { [true] = "true", [false] = "false", [12] = "12", [print] = "function: .*", [{}] = "table: .*" }
      for value, text in pairs(texts) do
        raised = value
        assert.matches("^unpack_list_hook: " .. text .. "$", select(2, failure(unpacked {})))
      end
      raised = nil
      fails(INTERNAL, "unpack_list_hook: nil", unpacked {})
      for _, mt in ipairs { { __index = trap }, { __tostring = trap }, { __tostring = function() return {} end },
        { __index = function() coroutine.yield() end } } do
        raised = setmetatable({}, mt)
        fails(INTERNAL, "unpack_list_hook: it raised an error object that cannot be printed", unpacked {})
      end
    end)

    it("is cut when it is long, but not within a character", function()
      local prefix = #"unpack_list_hook: "
      for shift = 0, 3 do
        msgpack.unpack_list_hook = function() error(("x"):rep(shift) .. ("日"):rep(1000), 0) end
        local _, text = failure(unpacked {})
        assert.is_true(#text - prefix < 240 and #text - prefix > 230)
        assert.equal("...", text:sub(-3))
        assert.is_truthy(utf8.len(text))
      end
    end)

    it("of memory is RESOURCE_EXHAUSTED", function()
      -- With this text lua_error() raises the memory error itself.
      msgpack.unpack_list_hook = function() error("not enough memory", 0) end
      fails(EXHAUSTED, "unpack_list_hook: out of memory", unpacked {})
      msgpack.prepare_pack = msgpack.unpack_list_hook
      fails(EXHAUSTED, "a function cannot be packed: prepare_pack: out of memory", pack(print))
    end)

    it("of the stack is one too", function()
      local function deeper() return 1 + deeper() end
      msgpack.unpack_list_hook = deeper
      assert.matches("stack overflow", select(2, failure(unpacked {})))
      msgpack.unpack_list_hook = function(list) return table.unpack(list, 1, 900000) end -- very many results
      assert.equal(1, unpacked { 1 })
    end)

    it("is also to return nothing at all", function()
      msgpack.prepare_pack = function() end
      fails(INTERNAL, "a function at .a cannot be packed: prepare_pack: it returned nothing", pack { a = print })
      msgpack.unpack_object_hook = function() end
      fails(INTERNAL, "unpack_object_hook at [1]: it returned nothing", unpacked { { a = 1 } })
    end)

    it("leaves nothing behind for the next value", function()
      msgpack.prepare_pack = function() error "boom" end
      assert.is_nil((pack { 1, 2, 3, { "x", print } }))
      assert.equal("\x91\1", pack { 1 })
      msgpack.prepare_pack = nil
      msgpack.unpack_list_hook = function() error "boom" end
      assert.is_nil((unpack "\x91\1"))
      assert.equal(1, unpack "\1")
      local code, text = failure(unpack "\xc1")
      assert.equal(EINVAL, code)
      assert.matches("^not msgpack", text) -- not what the hook said before
    end)
  end)

  describe("waiting in a hook", function()
    local function in_coroutine(fn, ...)
      local co = coroutine.create(fn)
      local ok, value, code, text = coroutine.resume(co, ...)
      assert.is_true(ok, value)
      assert.equal("dead", coroutine.status(co))
      assert.is_nil(value)
      return code, text
    end

    it("by coroutine.yield is an error", function()
      msgpack.unpack_list_hook = function() coroutine.yield() end
      local code, text = in_coroutine(unpack, "\x90")
      assert.equal(INTERNAL, code)
      assert.equal("unpack_list_hook: it cannot wait or yield", text)
      msgpack.prepare_pack = msgpack.unpack_list_hook
      code, text = in_coroutine(pack, print)
      assert.equal(INTERNAL, code)
      assert.equal("a function cannot be packed: prepare_pack: it cannot wait or yield", text)
    end)

    it("for time, a task, a promise or a call is an error that says where one is", function()
      local promise, other = task.promise(), task.spawn(function() task.sleep(0) end)
      local client <close> = gaterpc.Client { broker = "inproc://nobody" }
      for _, wait in ipairs {
        function() task.sleep(0) end, function() promise:await() end, function() other:join() end,
        function() client.S.m() end, function() coroutine.wrap(function() task.sleep(0) end)() end,
        function() coroutine.wrap(function() client.S.m() end)() end,
        function() coroutine.wrap(function() promise:await(1) end)() end,
      } do
        msgpack.unpack_list_hook = wait
        local code, text = in_coroutine(unpack, "\x90")
        assert.equal(INTERNAL, code)
        assert.matches("cannot wait here: inside a hook of message_pack$", text)
      end
      assert.equal(0, client:stats().open)
      other:join()
    end)

    it("does not wake the task at a later wait", function()
      msgpack.unpack_list_hook = function() coroutine.wrap(function() task.sleep(0.001) end)() end
      local woken = task.promise()
      local waiting = task.spawn(function()
        assert.is_nil((unpack "\x90"))
        return woken:await()
      end)
      task.sleep(0.02)
      assert.is_false(waiting:is_done())
      woken:resolve "rightly"
      assert.equal("rightly", waiting:join())
    end)

    it("is nothing that coroutines of its own may not do among themselves", function()
      msgpack.unpack_list_hook = function(list)
        local sum = 0
        for value in coroutine.wrap(function() for _, each in ipairs(list) do coroutine.yield(each) end end) do
          sum = sum + value
        end
        return sum
      end
      assert.equal(10, unpacked { 1, 2, { 3, 4 } })
    end)
  end)

  describe("that pack and unpack themselves", function()
    it("do not disturb what called them", function()
      msgpack.prepare_pack = function(value)
        local bytes = pack { ("x"):rep(100000), type(value), msgpack.map {} }
        local small, split = msgpack.pack_args(1, 2)
        assert.is_true(msgpack.unpack_args(small, split))
        return { #bytes, unpack(bytes)[2] }
      end
      local back = packed { ("a"):rep(1000), print, { b = coroutine.create(print) }, ("c"):rep(1000) }
      assert.same({ ("a"):rep(1000), { 100016, "function" }, { b = { 100014, "thread" } }, ("c"):rep(1000) }, back)
      assert.equal("\x93\1\2\3", pack { 1, 2, 3 })
    end)

    it("may do so a few levels deep", function()
      local function depth_of(value) return type(value) == "table" and 1 + depth_of(value[1]) or 0 end
      local made = 0
      msgpack.unpack_list_hook = function(list)
        if made == 20 then return list end
        made = made + 1
        return unpack "\x91\1"
      end
      assert.equal(1, depth_of(unpacked { 1 }))
      assert.equal(20, made)
    end)

    it("without an end fail with a code", function()
      local last
      msgpack.unpack_list_hook = function(list)
        local value, code, text = unpack "\x90"
        last = last or { code, text }
        return value or list
      end
      assert.is_table(unpacked {})
      assert.same({ EXHAUSTED, "unpack_list_hook: hooks run within hooks, more than 32 of them" }, last)
      last = nil
      msgpack.prepare_pack = function()
        local bytes, code, text = pack(print)
        last = last or { code, text }
        return bytes or "end"
      end
      assert.is_string(pack(print))
      assert.same({ EXHAUSTED,
        "a function cannot be packed: prepare_pack: hooks run within hooks, more than 32 of them" }, last)
    end)
  end)

  describe("that remove or replace hooks", function()
    it("are heard from then on", function()
      msgpack.unpack_list_hook = function()
        msgpack.unpack_list_hook = nil
        return "hooked"
      end
      assert.same({ "hooked", { 2 } }, unpacked { { 1 }, { 2 } })
      msgpack.prepare_pack = function(value)
        msgpack.prepare_pack = nil
        return value
      end
      fails(EINVAL, "a function cannot be packed", pack(print))
    end)
  end)

  describe("that change what is packed", function()
    local function collect()
      collectgarbage()
      collectgarbage()
    end

    it("get an error when they take the present key away", function()
      local map
      msgpack.prepare_pack = function()
        for key in pairs(map) do map[key] = nil end
        for i = 1, 100 do map[i] = i end -- makes Lua forget the old keys
        for i = 1, 100 do map[i] = nil end
        collect()
        return 1
      end
      map = { a = print, b = print, c = print }
      fails(EINVAL, "a table was changed by a hook while it was packed", pack(map))
      map = { a = print }
      fails(EINVAL, "a table at .x was changed by a hook while it was packed", pack { x = map })
    end)

    it("get an error when there are more or fewer keys than before", function()
      local map
      local function add()
        for i = 1, 50 do map["new" .. i] = i end
        return 1
      end
      msgpack.prepare_pack = add
      for _ = 1, 20 do
        map = { a = print, b = 1, c = print, d = 2 }
        local bytes, _, text = pack(map)
        if bytes then assert.equal(#bytes + 1, msgpack.skip(bytes)) else assert.matches("changed", text) end
      end
      msgpack.prepare_pack = function()
        map.b, map.d = nil, nil
        return 1
      end
      for _ = 1, 20 do
        map = { a = print, b = 1, c = print, d = 2 }
        local bytes, _, text = pack(map)
        if bytes then assert.equal(#bytes + 1, msgpack.skip(bytes)) else assert.matches("changed", text) end
      end
      map = msgpack.map { print, 1, 2, 3 } -- in order, so it is sure that the others come after
      msgpack.prepare_pack = function()
        map[2] = nil
        return 1
      end
      fails(EINVAL, "a table was changed by a hook while it was packed", pack(map))
    end)

    it("change the elements of arrays that are still to come", function()
      local list = { print, 2, 3 }
      msgpack.prepare_pack = function()
        list[2], list[3], list[4] = "new", nil, "not seen"
        collect()
        return 1
      end
      assert.same({ 1, "new", null }, packed(list))
    end)

    it("may change values for other values", function()
      local map = { a = print, b = print }
      msgpack.prepare_pack = function()
        map.a, map.b = map.a and 1, map.b and 1
        return 1
      end
      assert.same({ a = 1, b = 1 }, packed(map))
    end)
  end)
end)

describe("ext types", function()
  before_each(forget_all)
  after_each(forget_all)

  local Point = { __name = "Point" }

  local function point(x, y) return setmetatable({ x = x, y = y }, Point) end
  local function pack_point(p) return string.pack(">i4i4", p.x, p.y) end
  local function unpack_point(bytes) return point(string.unpack(">i4i4", bytes)) end

  local function register(changes)
    local given = { type = 5, name = "Point", metatable = Point, pack = pack_point, unpack = unpack_point }
    for name, value in pairs(changes or {}) do given[name] = value or nil end
    return msgpack.register_ext(given)
  end

  it("make objects of bytes and bytes of objects", function()
    register()
    assert.equal("\xd7\5\0\0\0\1\xff\xff\xff\xff", pack(point(1, -1)))
    local back = packed { at = point(3, 4), list = { point(5, 6) } }
    assert.equal(Point, getmetatable(back.at))
    assert.equal(4, back.at.y)
    assert.equal(5, back.list[1].x)
    local bytes, split = msgpack.pack_args(point(1, 2), msgpack.kwargs { p = point(3, 4) })
    local _, first, kwargs = msgpack.unpack_args(bytes, split)
    assert.equal(2, first.y)
    assert.equal(3, kwargs.p.x)
  end)

  it("that nobody registered are gaterpc.ext", function()
    register()
    local ext = unpack "\xd4\6x"
    assert.equal(6, ext.type)
    assert.equal("x", ext.data)
    assert.equal(5, unpack(pack(msgpack.ext(5, pack_point(point(1, 2)))))["x"] + 4)
  end)

  it("are forgotten again", function()
    register { type = 9, metatable = {} } -- another one, which stays
    register()
    assert.is_true(msgpack.unregister_ext(5))
    assert.is_false(msgpack.unregister_ext(5))
    assert.same({ x = 1, y = 2 }, packed(point(1, 2))) -- a plain table, as ever
    assert.equal(5, unpack("\xd4\5x").type)
    register { type = 6 }
    assert.equal("\xd7\6", pack(point(1, 2)):sub(1, 2))
    register { type = 5, metatable = {}, name = "Other" }
  end)

  it("may go one way only", function()
    register { unpack = false }
    local ext = packed(point(1, 2))
    assert.equal(5, ext.type)
    assert.equal(pack_point(point(1, 2)), ext.data)
    msgpack.unregister_ext(5)
    register { pack = false, metatable = false }
    assert.equal(2, unpack(pack(msgpack.ext(5, pack_point(point(1, 2))))).y)
    assert.same({ x = 1, y = 2 }, packed(point(1, 2)))
  end)

  it("take userdata too", function()
    register { metatable = getmetatable(io.stdout), name = "file", pack = tostring, unpack = false }
    assert.matches("^file %(0x", packed(io.stdout).data)
    msgpack.prepare_pack = function() error "called" end
    assert.matches("^file %(0x", packed { io.stdout }[1].data)
  end)

  it("come after what is built in and before everything else", function()
    local seen = {}
    register { pack = function(value)
      seen[#seen + 1] = value
      return "x"
    end }
    msgpack.prepare_pack = function() return "prepared" end
    local sequence, holes = setmetatable({ 1, 2 }, Point), setmetatable({ 1, nil, 3 }, Point)
    packed { sequence, holes, msgpack.bin "x", msgpack.map {}, msgpack.timestamp(1), msgpack.uint64(1) }
    assert.equal(sequence, seen[1])
    assert.equal(holes, seen[2])
    assert.equal(2, #seen)
  end)

  it("give what hooks for maps do not see", function()
    register { unpack = function(bytes) return { bytes = bytes } end }
    msgpack.unpack_object_hook = function(map) return { seen = map } end
    assert.same({ seen = { p = { bytes = "x" } } }, (unpack "\x81\xa1p\xd4\5x"))
  end)

  it("can give nil, which is null inside of containers", function()
    register { unpack = function() return nil end }
    assert.same({ null }, (unpack "\x91\xd4\5x"))
    assert.equal(1, select("#", unpack "\xd4\5x"))
  end)

  it("may be negative but for the timestamp's, which is built in", function()
    register { type = -2 }
    register { type = -128, metatable = {} }
    register { type = 127, metatable = {} }
    assert.equal("\xd7\xfe", pack(point(1, 2)):sub(1, 2))
    assert.equal("register_ext: ext type -1 is the timestamp, which is built in",
      misuse(function() register { type = -1 } end))
    assert.equal("unregister_ext: ext type -1 is the timestamp, which is built in",
      misuse(function() msgpack.unregister_ext(-1) end))
    for _, type in ipairs { -101, -105, -110 } do
      assert.equal("register_ext: the ext types from -110 to -101 are gaterpc's own",
        misuse(function() register { type = type } end))
      assert.equal("unregister_ext: the ext types from -110 to -101 are gaterpc's own",
        misuse(function() msgpack.unregister_ext(type) end))
    end
  end)

  it("are refused when something is wrong with them, at the caller's line", function()
    local function wrong(text, given)
      assert.equal(text, misuse(function() msgpack.register_ext(given) end))
    end
    wrong("register_ext takes a table of options, got nil", nil)
    wrong("register_ext takes a table of options, got number", 5)
    wrong("register_ext: unknown option 'metatabel', did you mean 'metatable'?", { type = 5, metatabel = {} })
    wrong("register_ext: an ext type is an integer from -128 to 127, got nil", { unpack = print })
    wrong("register_ext: an ext type is an integer from -128 to 127, got 128", { type = 128, unpack = print })
    wrong("register_ext: an ext type is an integer from -128 to 127, got -129", { type = -129, unpack = print })
    wrong("register_ext: option 'type' must be an integer, got float", { type = 5.0, unpack = print })
    wrong("register_ext: option 'metatable' must be a table, got string", { type = 5, metatable = "Point" })
    wrong("register_ext: option 'pack' must be a function, got boolean", { type = 5, pack = true })
    wrong("register_ext: metatable and pack come together", { type = 5, metatable = {} })
    wrong("register_ext: metatable and pack come together", { type = 5, pack = print })
    wrong("register_ext: neither pack nor unpack is given", { type = 5 })
    for _, name in ipairs { "map", "array", "kwargs" } do
      wrong("register_ext: this metatable is built in", { type = 5, metatable = getmetatable(msgpack[name]()),
        pack = print })
    end
    register()
    wrong("register_ext: type 5 is registered already, for Point", { type = 5, unpack = print })
    wrong("register_ext: the metatable is registered already, for Point (type 5)",
      { type = 6, metatable = Point, pack = print })
    assert.equal("unregister_ext: an ext type is an integer from -128 to 127, got Point",
      misuse(function() msgpack.unregister_ext "Point" end))
    assert.equal("\xd7\5", pack(point(1, 2)):sub(1, 2)) -- it is as it was
  end)

  it("whose pack function fails make an error with the name, its words and the place", function()
    register { pack = function(p) return p.x and error("boom", 0) or p.y end }
    fails(INTERNAL, "a Point at .a[1] cannot be packed: its pack function: boom", pack { a = { point(1) } })
    for value, type in pairs { [5] = "number", [true] = "boolean", [print] = "function" } do
      fails(INTERNAL, "a Point cannot be packed: its pack function gave no string but a " .. type,
        pack(point(nil, value)))
    end
    fails(EXHAUSTED, "a Point cannot be packed: its pack function gave more than 32 MiB",
      pack(point(nil, ("x"):rep((32 << 20) + 1))))
    fails(INTERNAL, "a Point at argument 2 cannot be packed: its pack function: boom",
      msgpack.pack_args(1, point(1)))
    msgpack.unregister_ext(5)
    register { name = ("n"):rep(100), pack = function() end }
    fails(INTERNAL, "a " .. ("n"):rep(31) .. " cannot be packed: its pack function: it returned nothing",
      pack(point(1)))
    msgpack.unregister_ext(5)
    msgpack.register_ext { type = 5, metatable = Point, pack = function() error("boom", 0) end }
    fails(INTERNAL, "a ext type 5 cannot be packed: its pack function: boom", pack(point(1)))
  end)

  it("whose unpack function fails make an error with the name, its words and the place", function()
    register { unpack = function(bytes) return bytes ~= "x" and bytes or error { code = EINVAL, message = "bad" } end }
    fails(EINVAL, "the unpack function of Point at [2]: bad", unpack "\x92\1\xd4\5x")
    fails(EINVAL, "the unpack function of Point at argument 1.p: bad",
      msgpack.unpack_args(msgpack.pack_args { p = msgpack.ext(5, "x") }))
    msgpack.unregister_ext(5)
    register { unpack = function() end }
    fails(INTERNAL, "the unpack function of Point: it returned nothing", unpack "\xd4\5x")
  end)

  it("may be forgotten by their own functions", function()
    register {
      pack = function(p)
        msgpack.unregister_ext(5)
        collectgarbage()
        return p.x
      end,
      name = "Poi" .. "nt" .. tostring(5),
    }
    fails(INTERNAL, "a Point5 cannot be packed: its pack function gave no string but a number", pack(point(1)))
    register {
      unpack = function()
        msgpack.unregister_ext(5)
        collectgarbage()
        error("gone", 0)
      end,
    }
    fails(INTERNAL, "the unpack function of Point: gone", unpack "\xd4\5x")
    assert.equal(5, unpack("\xd4\5x").type)
  end)

  it("can hold each other, a few levels deep", function()
    local Node = {}
    msgpack.register_ext {
      type = 7, name = "Node", metatable = Node,
      pack = function(node) return assert(pack { node.value, node.next or null }) end,
      unpack = function(bytes)
        local both = assert(unpack(bytes))
        return setmetatable({ value = both[1], next = both[2] ~= null and both[2] or nil }, Node)
      end,
    }
    local list
    for i = 1, 25 do list = setmetatable({ value = i, next = list }, Node) end
    local back, count = packed(list), 0
    while back do
      count = count + back.value
      back = back.next
    end
    assert.equal(25 * 26 // 2, count)
  end)
end)

describe("timestamps", function()
  local timestamp, from = msgpack.timestamp, msgpack.timestamp_from

  it("compare by time", function()
    local list = { timestamp(math.mininteger), timestamp(-1), timestamp(-1, 999999999), timestamp(0), timestamp(0, 1),
      timestamp(1), timestamp(1, 5), timestamp(math.maxinteger, 999999999) }
    for i, a in ipairs(list) do
      for j, b in ipairs(list) do
        assert.equal(i == j, a == b)
        assert.equal(i < j, a < b)
        assert.equal(i <= j, a <= b)
      end
    end
    assert.is_true(timestamp(5, 6) == timestamp(5, 6))
    assert.is_true(unpack(pack(timestamp(5, 6))) == timestamp(5, 6))
    assert.is_false(timestamp(5) == msgpack.ext(1, "x"))
    assert.has_error(function() return timestamp(5) < 6 end)
    assert.has_error(function() return 4 <= timestamp(5) end)
    local spoiled = timestamp(5)
    spoiled.seconds = "5"
    assert.is_false(spoiled == timestamp(5))
    assert.has_error(function() return spoiled < timestamp(5) end)
  end)

  it("are made of seconds with a fraction, to the nearest nanosecond", function()
    for seconds, expected in pairs {
      [0] = { 0, 0 }, [1.5] = { 1, 500000000 }, [-1.5] = { -2, 500000000 }, [-0.25] = { -1, 750000000 },
      [0.1] = { 0, 100000000 }, [1e-9] = { 0, 1 }, [4e-10] = { 0, 0 }, [0.9999999999] = { 1, 0 },
      [-1e-10] = { 0, 0 }, [3.0] = { 3, 0 }, [1795490514.123] = { 1795490514, 122999907 },
      [math.maxinteger] = { math.maxinteger, 0 }, [math.mininteger] = { math.mininteger, 0 },
      [-0x1p63] = { math.mininteger, 0 }, [0x1p62] = { 1 << 62, 0 },
    } do
      local made = from(seconds)
      assert.equal(expected[1], made.seconds)
      assert.equal(expected[2], made.nanoseconds)
      assert.equal("integer", math.type(made.seconds))
    end
  end)

  it("are not made of what no time can be", function()
    for _, wrong in ipairs { 0x1p63, -0x1p64, math.huge, -math.huge, 0 / 0, "x", {}, false } do
      assert.has_error(function() from(wrong) end)
    end
    assert.has_error(function() from() end)
    assert.has_error(function() timestamp(1.5) end)
    assert.has_error(function() timestamp(1, 1000000000) end)
    assert.has_error(function() timestamp(1, -1) end)
  end)

  it("give seconds with a fraction, and whole ones for os.date", function()
    assert.equal(1.5, timestamp(1, 500000000):to_seconds())
    assert.equal(-0.25, timestamp(-1, 750000000):to_seconds())
    assert.equal("float", math.type(timestamp(1):to_seconds()))
    for _, seconds in ipairs { 0.0, 1.25, -7.5, 1795490514.125 } do
      assert.equal(seconds, from(seconds):to_seconds())
    end
    local now = os.time()
    assert.equal(now, timestamp(now).seconds)
    assert.equal("2026-11-24 03:21:54", os.date("!%Y-%m-%d %H:%M:%S", timestamp(1795490514).seconds))
    local spoiled = timestamp(1)
    spoiled.nanoseconds = -1
    assert.has_error(function() spoiled:to_seconds() end)
    assert.has_error(function() timestamp(1).to_seconds {} end)
  end)

  it("can be the present one", function()
    local before = os.time()
    local now = msgpack.timestamp_now()
    assert.is_true(now >= timestamp(before) and now <= timestamp(os.time() + 1))
    assert.is_true(now <= gaterpc.timestamp_now())
    assert.equal(gaterpc.timestamp_from, from)
  end)

  it("print years of any length, and what was spoiled", function()
    assert.equal("0001-01-01T00:00:00.000000000Z", tostring(timestamp(-62135596800)))
    assert.equal("0000-12-31T23:59:59.000000001Z", tostring(timestamp(-62135596801, 1)))
    assert.equal("-0001-12-31T00:00:00.000000000Z", tostring(timestamp(-62167219200 - 86400)))
    assert.equal("9999-12-31T23:59:59.000000000Z", tostring(timestamp(253402300799)))
    assert.equal("10000-01-01T00:00:00.000000000Z", tostring(timestamp(253402300800)))
    local spoiled = timestamp(1)
    spoiled.seconds = nil
    assert.equal("gaterpc.timestamp(spoiled)", tostring(spoiled))
  end)
end)

describe("docs/msgpack.md", function()
  before_each(forget_all)
  after_each(forget_all)

  local function text_of(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end

  local page = text_of "docs/msgpack.md"
  local number = 0
  for block in page:gmatch "```lua\n(.-)```" do
    number = number + 1
    if block:sub(1, 2) == "#!" then
      it("shows the example as it is run", function()
        assert.equal(text_of "examples/hooks.lua", block)
      end)
    else
      it(("has code that does what it says: block %d"):format(number), function()
        assert(load(block, "=docs/msgpack.md", "t"))()
        for _, name in ipairs(HOOKS) do assert.is_nil(msgpack[name]) end
      end)
    end
  end
  assert(number == 4)
end)
