local errors = require "gaterpc.error"
local json = require "support.json"
local msgpack = require "gaterpc.msgpack"
local process = require "support.process"
local spec = require "support.log"

describe("the log", function()
  local log

  before_each(function() log = spec.start() end)
  after_each(spec.stop)

  local function json_file(options)
    options = options or {}
    options.path, options.format = process.dir() .. "/json", "json"
    assert(log.setup { files = { options } })
    return options.path
  end

  -- The one line of a new JSON file.
  local function json_line(write)
    local path = json_file()
    write()
    spec.flush()
    local list = spec.lines_of(path)
    assert.equal(1, #list)
    return json.read(list[1]), list[1]
  end

  describe("writes a line", function()
    it("of time, level, logger, text and fields", function()
      log.info("signed in", { user = "ann", port = 7777 })
      assert.truthy(spec.lines()[1]:find
        "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d[+-]%d%d:%d%d INFO lua signed in port=7777 user=ann$")
    end)

    it("as JSON with fields of their own types", function()
      local got = json_line(function()
        log.warning("signed in", { user = "ann", port = 7777, load = 0.5, whole = 3.0, ok = true, no = false,
          none = msgpack.null, list = { 1, "two" }, map = { a = { b = 1 } }, empty = {}, small = -1 << 63 })
      end)
      assert.truthy(got.time:find "^%d+%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%d[+-]%d%d:%d%d$")
      got.time = nil
      assert.same({ level = "warning", logger = "lua", message = "signed in", fields = { user = "ann", port = 7777,
        load = 0.5, whole = 3.0, ok = true, no = false, none = json.null, list = { 1, "two" },
        map = { a = { b = 1 } }, empty = {}, small = -1 << 63 } }, got)
      assert.equal("float", math.type(got.fields.whole))
      assert.equal("integer", math.type(got.fields.port))
    end)

    it("as JSON without fields when there are none", function()
      local got = json_line(function() log.error "text" end)
      assert.is_nil(got.fields)
      assert.equal("error", got.level)
    end)

    it("with the date that the calendar says, to the millisecond", function()
      for _, sec in ipairs { 0, 951782399, 951782400, 1709164799, 1709164800, 1709251200, 4107542399, 4107542400,
        13601088000, 1700000000, 1735689599, 1735689600 } do
        spec.set_clock(sec, 7)
        log.info "x"
        assert.equal(os.date("%Y-%m-%dT%H:%M:%S.007", sec), spec.lines()[1]:sub(1, 23))
      end
      for i = 1, 300 do
        local sec = i * 86400 * 311 + i
        spec.set_clock(sec, 999)
        log.info "x"
        assert.equal(os.date("%Y-%m-%dT%H:%M:%S.999", sec), spec.lines()[1]:sub(1, 23))
      end
    end)

    it("with floats that read back as they were", function()
      local path, floats = json_file(), { 0.1, 1 / 3, 1e300, -2.5e-310, 123456789.123, 2 ^ 53, -0.0, 5e-324 }
      for _, float in ipairs(floats) do log.info("x", { f = float }) end
      spec.flush()
      for i, line in ipairs(spec.lines_of(path)) do assert.equal(floats[i], json.read(line).fields.f) end
    end)

    it("with floats that JSON has no number for as strings", function()
      local got = json_line(function() log.info("x", { a = 1 / 0, b = -1 / 0, c = 0 / 0 }) end)
      assert.equal("inf", got.fields.a)
      assert.equal("-inf", got.fields.b)
      assert.truthy(got.fields.c:find "nan")
    end)

    it("with a point in floats whatever the locale says", function()
      local before = os.setlocale(nil, "numeric")
      finally(function() os.setlocale(before, "numeric") end)
      os.setlocale("de_DE.UTF-8", "numeric") -- where there is none nothing is different
      log.info("x", { f = 0.5 })
      assert.equal("INFO lua x f=0.5", spec.line())
    end)

    it("whose fields have quotes where they are needed", function()
      log.info("x", { a = "", b = "two words", c = 'say "no"', d = "a=b", e = "tcp://127.0.0.1:5555", f = "back\\slash",
        ["two words"] = 1 })
      assert.equal([[INFO lua x a="" b="two words" c="say \"no\"" d="a=b" e=tcp://127.0.0.1:5555 f="back\\slash" ]]
        .. [["two words"=1]], spec.line())
    end)

    it("with fields in the order of their names, every time", function()
      for _ = 1, 5 do
        local fields = {}
        for _, i in ipairs { 5, 3, 9, 1, 7 } do fields["key" .. i] = i end
        fields[2], fields[1] = "two", "one"
        log.info("x", fields)
        assert.equal("INFO lua x 1=one 2=two key1=1 key3=3 key5=5 key7=7 key9=9", spec.line())
      end
    end)
  end)

  describe("takes a format", function()
    it("only when there is something to format", function()
      log.info "100% sure, %d of them"
      assert.equal("INFO lua 100% sure, %d of them", spec.line())
      for _, text in ipairs { "100% sure", "50% done", "%s", "%d of %s", "%", "%y" } do
        log.info(text, { n = 1 })
        assert.equal(("INFO lua %s n=1"):format(text), spec.line())
      end
      log.info("%d%% of %s", 5, "all")
      assert.equal("INFO lua 5% of all", spec.line())
    end)

    it("and a table behind its arguments is fields", function()
      log.info("%s is %d", "it", 7, { n = 1 })
      assert.equal("INFO lua it is 7 n=1", spec.line())
    end)

    it("and a table that it wants is an argument", function()
      log.info("failed: %s", errors.new("INTERNAL", "oops"))
      assert.equal("INFO lua failed: INTERNAL: oops", spec.line())
      log.info("failed: %s", errors.new("INTERNAL", "oops"), { n = 1 })
      assert.equal("INFO lua failed: INTERNAL: oops n=1", spec.line())
    end)

    it("and loses nothing when that fails", function()
      log.info("%d of %d", "x", true)
      assert.equal("INFO lua %d of %d arguments=[x,true]", spec.line())
      log.info("%d of %d", 5, { n = 1 })
      assert.equal("INFO lua %d of %d n=1 arguments=[5]", spec.line())
      log.info("%y", 1, 2, { n = 1 })
      assert.equal("INFO lua %y n=1 arguments=[1,2]", spec.line())
    end)

    it("and anything else than a string is shown as one", function()
      log.info(nil)
      log.info()
      log.info(42)
      log.info(errors.new("INTERNAL", "oops"))
      local got = spec.lines()
      for i, text in ipairs { "nil", "nil", "42", "INTERNAL: oops" } do
        assert.equal("INFO lua " .. text, got[i]:match " (.*)$")
      end
    end)
  end)

  describe("never raises", function()
    local function bad(what) return setmetatable({}, { __tostring = function() return what() end }) end

    it("over a value that cannot be shown", function()
      local fails = bad(function() error "no" end)
      log.info(fails)
      assert.equal("INFO lua (a table that cannot be shown)", spec.line())
      log.info("%s", fails)
      assert.truthy(spec.line():find("^INFO lua %%s "))
      log.info("x", { a = fails, b = bad(function() return {} end), c = bad(coroutine.yield), d = print,
        e = io.stdout })
      assert.truthy(spec.line():find('^INFO lua x a="%(a table that cannot be shown%)" b="%(a table that cannot be '
        .. 'shown%)" c="%(a table that cannot be shown%)" d="function: [%w: ]+" e="file %(0x%x+%)"$'))
    end)

    it("over a table in itself", function()
      local t = {}
      t.t = t
      log.info("x", t)
      assert.equal("INFO lua x t={t={t={t={t=...}}}}", spec.line())
    end)

    it("over metamethods, which it does not use", function()
      local t = setmetatable({ a = 1 }, { __index = error, __pairs = error, __len = error })
      log.info("x", t)
      assert.equal("INFO lua x a=1", spec.line())
      log.info("x", { t = t })
      assert.equal("INFO lua x t={a=1}", spec.line())
    end)

    it("over fields that go while they are shown", function()
      local fields, inner, names = {}, {}, {}
      for i = 1, 10 do names[i] = ("name_number_%02d_"):format(i):rep(4) end
      local function forget()
        for name in pairs(fields) do fields[name] = nil end
        for name in pairs(inner) do inner[name] = nil end
        names = {}
        collectgarbage()
        collectgarbage()
        return "gone"
      end
      for _, name in ipairs(names) do fields[name], inner[name] = bad(forget), bad(forget) end
      fields.a = inner
      local first = names[1]
      log.info("x", fields)
      local line = spec.line()
      assert.truthy(line:find(("INFO lua x a={%s=gone,"):format(first), 1, true), line)
      for i = 2, 10 do
        assert.equal(2, select(2, line:gsub(("name_number_%02d_"):format(i):rep(4) .. "=nil", "")), line)
      end
    end)

    it("over keys that are no names", function()
      log.info("x", { [1.5] = 1, [true] = 2, [{}] = 3 })
      assert.equal("INFO lua x ...=true", spec.line())
      log.info("x", { a = { [1.5] = 1, b = 2 } })
      assert.equal("INFO lua x a={b=2,...=true}", spec.line())
    end)
  end)

  describe("bounds", function()
    it("the depth of fields", function()
      log.info("x", { a = { { { { { 1 } } } } } })
      assert.equal("INFO lua x a=[[[[...]]]]", spec.line())
    end)

    it("the number of fields and of elements", function()
      local many, list = {}, {}
      for i = 1, 1000 do many["f" .. i], list[i] = i, i end
      log.info("x", many)
      local line = spec.line()
      assert.equal(64, select(2, line:gsub(" f%d+=%d+", "")))
      assert.truthy(line:find " %.%.%.=true$")
      log.info("x", { list = list, map = many })
      line = spec.line()
      assert.truthy(line:find("62,63,64,...]", 1, true))
      assert.equal(64, select(2, line:match("map=(.*)"):gsub("f%d+=%d+", "")))
      assert.truthy(line:find(",...=true}", 1, true))
    end)

    it("a list with holes is not cut at the first one", function()
      log.info("x", { list = { [1] = "a", [100] = "b" }, other = { 1, nil, 3 } })
      assert.equal("INFO lua x list={1=a,100=b} other=[1,nil,3]", spec.line())
    end)

    it("the size of strings and of all fields", function()
      local got = json_line(function() log.info("x", { a = ("ä"):rep(1000), b = "after" }) end)
      assert.equal(("ä"):rep(512) .. "...", got.fields.a)
      assert.equal("after", got.fields.b)
      local big = {}
      for i = 1, 60 do big[("k%02d"):format(i)] = ("x"):rep(200) end
      log.info("x", big)
      local line = spec.lines()[2]:sub(-300)
      assert.truthy(line:find("x %.%.%.=true$"))
      log.info("x", { big = big, z = 1 })
      line = spec.lines()[1]
      assert.truthy(line:find("x,...=true} ...=true", 1, true) or line:find("x,...=true}", 1, true))
      assert.is_true(#line < 5000)
    end)

    it("the length of a text, not within a character", function()
      local got = json_line(function() log.info(("ä"):rep(5000)) end)
      assert.equal(("ä"):rep(4094) .. "...", got.message)
      spec.lines()
      log.info(("a"):rep(8192))
      assert.equal("INFO lua " .. ("a"):rep(8192), spec.line())
      log.info("%s", ("a"):rep(8193))
      assert.equal("INFO lua " .. ("a"):rep(8189) .. "...", spec.line())
    end)
  end)

  describe("escapes what a peer may have sent", function()
    local shown = {
      { "two\nlines\r\n", [[two\nlines\r\n]], [[two\nlines\r\n]] },
      { "tab\tbell\a", [[tab\tbell\x07]], [[tab\tbell\u0007]] },
      { "\27[31mred\27]0;title\a", [[\x1b[31mred\x1b]0;title\x07]], [[\u001b[31mred\u001b]0;title\u0007]] },
      { "\0zero\127", [[\x00zero\x7f]], [[\u0000zero\u007f]] },
      { "C1 \u{85}\u{9b}31m", [[C1 \xc2\x85\xc2\x9b31m]], [[C1 \u0085\u009b31m]] },
      { "raw \x9b31m", [[raw \x9b31m]], [[raw \\x9b31m]] },
      { "bad \xff\xc3(", [[bad \xff\xc3(]], [[bad \\xff\\xc3(]] },
      { "overlong \xc0\x8a", [[overlong \xc0\x8a]], [[overlong \\xc0\\x8a]] },
      { "cut \xe2\x82", [[cut \xe2\x82]], [[cut \\xe2\\x82]] },
      { "surrogate \xed\xa0\x80", [[surrogate \xed\xa0\x80]], [[surrogate \\xed\\xa0\\x80]] },
      { "turned \u{202e}txt.exe\u{2066}", [[turned \u{202e}txt.exe\u{2066}]], [[turned \u202etxt.exe\u2066]] },
      { "separators \u{2028}\u{2029}\u{feff}", [[separators \u{2028}\u{2029}\u{feff}]],
        [[separators \u2028\u2029\ufeff]] },
      { "grüße, 世界 🚀", "grüße, 世界 🚀", "grüße, 世界 🚀" },
    }

    it("in texts", function()
      for _, case in ipairs(shown) do
        log.info(case[1])
        assert.equal("INFO lua " .. case[2], spec.line())
      end
    end)

    it("in JSON, which stays valid", function()
      local path = json_file()
      for _, case in ipairs(shown) do log.info(case[1], { [case[1]] = case[1] }) end
      spec.flush()
      local list = spec.lines_of(path)
      assert.equal(#shown, #list)
      for i, case in ipairs(shown) do
        assert.truthy(list[i]:find('"message":"' .. case[3] .. '"', 1, true), list[i])
        assert.truthy(list[i]:find(('{"%s":"%s"}'):format(case[3], case[3]), 1, true), list[i])
        json.read(list[i])
      end
    end)

    it("in fields, their names and nested ones", function()
      for _, case in ipairs(shown) do
        log.info("x", { [case[1]] = case[1], n = { case[1], { [case[1]] = 1 } } })
        local line = spec.line()
        assert.is_nil(line:find "%c")
        assert.truthy(line:find('"' .. case[2]:gsub('"', '\\"') .. '"="', 1, true), line)
      end
    end)

    it("so that random bytes never make a second line or a control character", function()
      local path = json_file()
      math.randomseed(7)
      local count = 2000
      for _ = 1, count do
        local bytes = {}
        for i = 1, math.random(0, 40) do
          bytes[i] = math.random(4) == 1 and utf8.char(math.random(0x20, 0x10ffff)) or string.char(math.random(0, 255))
        end
        local text = table.concat(bytes)
        log.info(text, { [text] = text, list = { text } })
        if spec.core.log_stats().waiting > 1000 then spec.flush() end
      end
      local console = spec.lines()
      local list = spec.lines_of(path)
      assert.equal(count, #console)
      assert.equal(count, #list)
      for i = 1, count do
        for _, line in ipairs { console[i], list[i] } do
          assert.is_nil(line:find "[%c\127]", line)
          assert.truthy(utf8.len(line), line)
          assert.is_nil(line:find "\xc2[\x80-\x9f]", line)
        end
        local read = json.read(list[i])
        assert.equal(read.message, read.fields.list[1])
      end
    end)
  end)

  describe("keeps a secret", function()
    local secrets = { "password", "passwd", "secret", "token", "credentials", "secret_key", "zap_credentials",
      "PASSWORD", "Token", "db_password", "api-token", "zap.credentials" }

    it("of these names", function()
      for _, name in ipairs(secrets) do assert.is_true(spec.is_secret(name), name) end
      for _, name in ipairs { "passwords", "tokens", "nosecret", "user", "", "_", "keytoken", "secret_keys" } do
        assert.is_false(spec.is_secret(name), name)
      end
    end)

    it("at any depth, whatever its type", function()
      for _, name in ipairs(secrets) do
        for _, value in ipairs { "hunter2", 424242, { "hunter2", a = 424242 } } do
          log.info("x", { [name] = value, deep = { { [name] = value } } })
          log.info("%s", "x", { [name] = value })
          log.info("%d", "x", { [name] = value })
          log.info("50% done", { [name] = value })
          log.info("%d", "x", { { [name] = value } }, 1)
          local text = table.concat(spec.lines(), "\n")
          assert.is_nil(text:find "hunter2")
          assert.is_nil(text:find "424242")
          assert.equal(6, select(2, text:gsub("%*%*%*", "")))
        end
      end
    end)

    it("for C code, too", function()
      spec.add("user", "ann", "password", "hunter2", "token", 424242, "secret", 0.424242, "passwd", true, "n", 1,
        "f", 0.5, "ok", false)
      assert.equal("INFO spec from C user=ann password=*** token=*** secret=*** passwd=*** n=1 f=0.5 ok=false",
        spec.line())
    end)

    it("and says when there is no room for a field of C code", function()
      local args = {}
      for i = 1, 10 do table.move({ "f" .. i, ("x"):rep(1000) }, 1, 2, #args + 1, args) end
      spec.add(table.unpack(args))
      local line = spec.line()
      assert.truthy(line:find("f4=x+ %.%.%.=true$"))
    end)
  end)

  describe("has loggers", function()
    it("with names, called with a dot or a colon", function()
      local own = log.logger "shop.orders"
      assert.equal(own, log.logger "shop.orders")
      assert.equal("shop.orders", own.name)
      own.info("a %d", 1)
      own:info("a %d", 1)
      own:info("a", { n = 1 })
      own:info()
      local got = spec.lines()
      for i, text in ipairs { "a 1", "a 1", "a n=1", "nil" } do
        assert.equal("INFO shop.orders " .. text, got[i]:match " (.*)$")
      end
    end)

    it("that inherit levels by their names", function()
      local names = { "tree", "tree.a", "tree.a.b", "treehouse" }
      local function levels()
        local list = {}
        for i, name in ipairs(names) do list[i] = log.logger(name):level() end
        return table.concat(list, " ")
      end
      assert.equal("info info info info", levels())
      log.logger("tree"):level "error"
      assert.equal("error error error info", levels())
      log.logger("tree.a.b"):level "debug"
      assert.equal("error error debug info", levels())
      log.level "warning"
      assert.equal("error error debug warning", levels())
      assert(log.setup { level = "info", levels = { tree = "inherit", ["tree.a"] = "off" } })
      assert.equal("info off debug info", levels())
      assert(log.setup { levels = { ["tree.a"] = "inherit", ["tree.a.b"] = "inherit" } })
      assert.equal("info info info info", levels())
    end)

    it("that write only what their level lets through", function()
      finally(function() log.logger("leaf.x"):level "inherit" end)
      local leaf, other = log.logger "leaf.x", log.logger "leaf"
      leaf:level "debug"
      leaf:debug "yes"
      other:debug "no"
      log.debug "no"
      assert.is_true(leaf:wants "debug")
      assert.is_false(other:wants "debug")
      assert.is_false(log.wants "debug")
      leaf:level "off"
      leaf:error "no"
      assert.equal("DEBUG leaf.x yes", spec.line())
    end)

    it("whose arguments are not looked at below their level", function()
      local asked = 0
      local value = setmetatable({}, { __tostring = function() asked = asked + 1 return "x" end })
      log.debug("%s", value, { value })
      assert.equal(0, asked)
      log.info("%s", value)
      assert.equal(1, asked)
    end)

    it("and not for names that are none", function()
      for _, name in ipairs { "", ".", "a.", ".a", "a..b", "a b", "a\n", ("a"):rep(101), 5, {} } do
        assert.is_false(pcall(log.logger, name))
      end
      assert.is_false(pcall(log.logger))
    end)
  end)

  describe("setup", function()
    -- What it raises, and whether that is this file's fault.
    local function refusal(options)
      local ok, err = pcall(function() log.setup(options) end)
      assert.is_false(ok)
      local place, text = err:match "^(.-):%d+: (.*)$"
      assert.truthy(place:find "log_spec.lua$", err)
      return text
    end

    it("names what is wrong, and what is near", function()
      assert.equal("log.setup: unknown option 'file', did you mean 'files'?", refusal { file = {} })
      assert.equal("log.setup: files[1]: unknown option 'rotat', did you mean 'rotate'?",
        refusal { files = { { path = "x", rotat = "midnight" } } })
      assert.equal("log.setup: files[2]: option 'format' must be 'json' or 'text', got 'xml'",
        refusal { files = { { path = "x" }, { path = "y", format = "xml" } } })
      assert.equal("log.setup: files[1]: option 'keep' must be from 1 to 1000, got 0",
        refusal { files = { { path = "x", keep = 0 } } })
      assert.equal("log.setup: files[1]: option 'path' is missing", refusal { files = { {} } })
      assert.equal("log.setup: files[2]: 'x' is there twice", refusal { files = { { path = "x" }, { path = "x" } } })
      assert.equal("log.setup: 'files' is a list of tables, each with its path", refusal { files = { path = "x" } })
      assert.equal("log.setup: console: unknown option 'color', did you mean 'colour'?",
        refusal { console = { color = true } })
      assert.equal("a level is debug, info, warning, error, off or inherit, got verbose", refusal { level = "verbose" })
      assert.equal("log.setup: option 'queue' must be from 16 to 1048576, got 1", refusal { queue = 1 })
      assert.truthy(refusal { levels = { ["a..b"] = "info" } }:find "^a logger's name is words")
      assert.truthy(refusal("x"):find "takes a table of options, got string")
    end)

    it("raises wrong levels where they are", function()
      local ok, err = pcall(function() log.level "loud" end)
      assert.is_false(ok)
      assert.truthy(err:find "log_spec.lua:%d+: a level is debug")
      ok, err = pcall(function() log.logger("x"):level(7) end)
      assert.is_false(ok)
      assert.truthy(err:find "log_spec.lua:%d+: a level is debug")
    end)

    it("opens all files or changes nothing", function()
      local good = process.dir() .. "/good"
      local ok, err = log.setup { level = "debug", console = false, files = { { path = good },
        { path = process.dir() .. "/no/such/place" } } }
      assert.is_nil(ok)
      assert.equal("INTERNAL", err.code)
      assert.equal(process.dir() .. "/no/such/place cannot be opened: No such file or directory", err.message)
      assert.equal("info", log.level())
      log.info "still here"
      assert.equal("INFO lua still here", spec.line())
      assert.same({}, spec.lines_of(good))
    end)

    it("says that a folder is no file, and that nobody reads a pipe", function()
      local _, err = log.setup { files = { { path = process.dir() } } }
      assert.truthy(err.message:find "Is a directory")
      assert.equal(true, os.execute("mkfifo " .. process.dir() .. "/pipe"))
      _, err = log.setup { files = { { path = process.dir() .. "/pipe" } } }
      assert.truthy(err.message:find "nobody reads this pipe")
    end)

    it("makes files that only the owner writes and only the group reads", function()
      local path = process.dir() .. "/file"
      assert(log.setup { files = { { path = path } } })
      local info = require "luv".fs_stat(path)
      assert.equal(0, info.mode & 0x1ff & ~416) -- 0640
    end)

    it("appends to a file that is there", function()
      local path = process.file("file", "before\n")
      assert(log.setup { files = { { path = path } } })
      log.info "after"
      spec.flush()
      local list = spec.lines_of(path)
      assert.equal("before", list[1])
      assert.truthy(list[2]:find "after$")
    end)

    it("gives each output what its level lets through", function()
      local path = process.dir() .. "/file"
      assert(log.setup { level = "debug", console = { level = "warning" }, files = { { path = path } } })
      log.debug "one"
      log.warning "two"
      local got = spec.lines()
      assert.equal(1, #got)
      assert.truthy(got[1]:find "two$")
      assert.equal(2, #spec.lines_of(path))
      assert(log.setup { files = { { path = path, level = "error" } } })
      assert.is_false(log.wants "info") -- nobody would write it
      assert.is_true(log.wants "warning")
      assert(log.setup { console = false, files = {} })
      assert.is_false(log.wants "error")
      assert(log.setup { console = true })
      assert.is_true(log.wants "debug")
    end)

    it("leaves what it is not told about as it is", function()
      local path = process.dir() .. "/file"
      assert(log.setup { files = { { path = path } } })
      assert(log.setup { console = { format = "json" } })
      assert(log.setup {})
      assert(log.setup())
      log.info "x"
      assert.equal("x", json.read(spec.lines()[1]).message)
      assert.equal(1, #spec.lines_of(path))
    end)

    it("loses and doubles no line when outputs change", function()
      local names, n = {}, 0
      for i = 1, 30 do
        names[i] = process.dir() .. "/file" .. i
        assert(log.setup { files = { { path = names[i] } }, console = i % 3 ~= 0 and { level = "debug" } or nil })
        for _ = 1, math.random(0, 50) do
          n = n + 1
          log.info("line", { n = n })
        end
      end
      local got = spec.lines()
      assert.equal(n, #got)
      local expected = 0
      for _, name in ipairs(names) do
        for _, line in ipairs(spec.lines_of(name)) do
          expected = expected + 1
          assert.equal(expected, tonumber(line:match "n=(%d+)$"))
          assert.equal(expected, tonumber(got[expected]:match "n=(%d+)$"))
        end
      end
      assert.equal(n, expected)
    end)

    it("colours levels only where it is told to, or on a terminal", function()
      log.error "plain"
      assert(log.setup { console = { colour = true } })
      log.error "red"
      log.info "\27[0m"
      local got = spec.lines()
      assert.truthy(got[1]:find " ERROR lua plain$")
      assert.truthy(got[2]:find(" \27[31mERROR\27[0m lua red", 1, true))
      assert.equal(2, select(2, got[3]:gsub("\27", "")))
    end)
  end)

  describe("rotates", function()
    local function numbers_of(path)
      local list = {}
      for _, line in ipairs(spec.lines_of(path)) do list[#list + 1] = tonumber(line:match "n=(%d+)$") end
      return list
    end

    it("by size, keeps as many old files as it shall, and never makes one longer", function()
      local path = process.dir() .. "/file"
      assert(log.setup { files = { { path = path, rotate_bytes = 4096, keep = 3 } } })
      for n = 1, 400 do log.info("line", { n = n }) end
      spec.flush()
      local last = 400
      for _, name in ipairs { path, path .. ".1", path .. ".2", path .. ".3" } do
        local list = numbers_of(name)
        assert.equal(last, list[#list])
        for i = 2, #list do assert.equal(list[i - 1] + 1, list[i]) end
        last = list[1] - 1
        assert.is_true(#spec.read_file(name) <= 4096)
        assert.is_true(name == path or #spec.read_file(name) > 4000)
      end
      assert.is_true(last > 0)
      assert.is_nil(io.open(path .. ".4"))
      assert.is_nil(io.open(path .. ".new"))
    end)

    it("a line that is longer than a file shall be has one of its own", function()
      local path = process.dir() .. "/file"
      assert(log.setup { files = { { path = path, rotate_bytes = 1024, keep = 5 } } })
      log.info("a", { n = 1 })
      log.info(("x"):rep(3000), { n = 2 })
      log.info("b", { n = 3 })
      spec.flush()
      assert.same({ 1 }, numbers_of(path .. ".2"))
      assert.same({ 2 }, numbers_of(path .. ".1"))
      assert.same({ 3 }, numbers_of(path))
    end)

    it("counts what was in the file before", function()
      local path = process.file("file", ("x"):rep(2000) .. " n=0\n")
      assert(log.setup { files = { { path = path, rotate_bytes = 2048 } } })
      log.info("line", { n = 1 })
      log.info("line", { n = 2 })
      spec.flush()
      assert.same({ 0 }, numbers_of(path .. ".1"))
      assert.same({ 1, 2 }, numbers_of(path))
    end)

    it("with the first line of a day", function()
      local path = process.dir() .. "/file"
      local midnight = os.time { year = 2026, month = 3, day = 5, hour = 0 }
      assert(log.setup { files = { { path = path, rotate = "midnight", keep = 2 } } })
      local n = 0
      local function at(sec, ms)
        n = n + 1
        spec.set_clock(sec, ms)
        log.info("line", { n = n })
      end
      at(midnight - 7200)
      at(midnight - 1, 999)
      at(midnight)
      at(midnight + 86399, 999)
      at(midnight + 86400)
      at(midnight + 86400 * 9 + 5) -- there was nothing to write for a while
      spec.flush()
      assert.same({ 6 }, numbers_of(path))
      assert.same({ 5 }, numbers_of(path .. ".1"))
      assert.same({ 3, 4 }, numbers_of(path .. ".2"))
      assert.is_nil(io.open(path .. ".3"))
    end)

    it("at midnight also when lines are far from each other in one batch", function()
      local path = process.dir() .. "/file"
      local midnight = os.time { year = 2026, month = 7, day = 1, hour = 0 }
      assert(log.setup { files = { { path = path, rotate = "midnight", keep = 50 } } })
      for day = 0, 19 do
        for i = 1, 10 do
          spec.set_clock(midnight + day * 86400 + i * 8000)
          log.info("line", { n = day * 10 + i })
        end
      end
      spec.flush()
      for day = 0, 19 do
        local list = numbers_of(day == 19 and path or path .. "." .. 19 - day)
        assert.equal(10, #list)
        assert.equal(day * 10 + 1, list[1])
      end
    end)

    it("a file of yesterday at once, after a restart", function()
      local path = process.file("file", "old n=0\n")
      local yesterday = os.time() - 86400
      assert(require "luv".fs_utime(path, yesterday, yesterday))
      assert(log.setup { files = { { path = path, rotate = "midnight" } } })
      log.info("line", { n = 1 })
      spec.flush()
      assert.same({ 0 }, numbers_of(path .. ".1"))
      assert.same({ 1 }, numbers_of(path))
    end)

    it("a file of today goes on after a restart", function()
      local path = process.file("file", "old n=0\n")
      spec.set_clock(require "luv".fs_stat(path).mtime.sec)
      assert(log.setup { files = { { path = path, rotate = "midnight" } } })
      log.info("line", { n = 1 })
      spec.flush()
      assert.same({ 0, 1 }, numbers_of(path))
      assert.is_nil(io.open(path .. ".1"))
    end)

    it("by the local day, also when the clocks change", function()
      local host = process.host(spec.CPATH .. [[
        local spec = require "logspec"
        local path = arg[1]
        spec.start(2)
        local core = spec.core
        core.log_setup { console = false, files = { { path = path, midnight = true, keep = 20 } } }
        -- 2026-03-29 has 23 hours there, 2026-10-25 has 25; seconds before and at the midnights
        for _, midnight in ipairs { 1774738800, 1774821600, 1792879200, 1792969200 } do
          for _, sec in ipairs { midnight - 1, midnight } do
            spec.set_clock(sec)
            core.log(20, "x", "line")
          end
        end
        spec.stop()]], { args = { process.dir() .. "/file" }, env = { TZ = "CET-1CEST,M3.5.0,M10.5.0/3" } })
      assert.equal(0, host:wait_exit())
      local function times_of(name)
        local list = {}
        for i, line in ipairs(spec.lines_of(name)) do list[i] = line:match "^%S+" end
        return list
      end
      local path = process.dir() .. "/file"
      assert.same({ "2026-03-28T23:59:59.000+01:00" }, times_of(path .. ".5"))
      assert.same({ "2026-03-29T00:00:00.000+01:00", "2026-03-29T23:59:59.000+02:00" }, times_of(path .. ".4"))
      assert.same({ "2026-03-30T00:00:00.000+02:00", "2026-10-24T23:59:59.000+02:00" },
        { times_of(path .. ".3")[1], times_of(path .. ".2")[1] })
      assert.same({ "2026-10-25T00:00:00.000+02:00", "2026-10-25T23:59:59.000+01:00" }, times_of(path .. ".1"))
      assert.same({ "2026-10-26T00:00:00.000+01:00" }, times_of(path))
    end)

    it("goes on with the old file when there can be no other", function()
      local dir = process.dir() .. "/dir"
      assert(require "luv".fs_mkdir(dir, 493))
      local path = dir .. "/file"
      assert(log.setup { files = { { path = path, rotate_bytes = 1024 } } })
      assert(require "luv".fs_mkdir(path .. ".new", 493)) -- in the way
      for n = 1, 50 do log.info("line", { n = n }) end
      local got = table.concat(spec.lines(), "\n") .. table.concat(spec.lines(), "\n") -- that line may come later
      assert.equal(50, #numbers_of(path))
      assert.equal(1, select(2, got:gsub("cannot be rotated: Is a directory", "")))
    end)
  end)

  describe("takes lines from anybody:", function()
    it("threads", function()
      local path = json_file()
      spec.threads(4, 1000, 10)
      spec.flush()
      local last = {}
      for _, line in ipairs(spec.lines_of(path)) do
        local read = json.read(line)
        local thread = read.message:match "^thread (%d)"
        assert.equal((last[thread] or 0) + 1, read.fields.line)
        last[thread] = read.fields.line
      end
      assert.same({ ["1"] = 1000, ["2"] = 1000, ["3"] = 1000, ["4"] = 1000 }, last)
    end)

    it("other Lua states in other threads", function()
      local path = json_file()
      spec.states(4, ([[
        package.path = %q
        local log = require "gaterpc.log"
        local own = log.logger("state.n" .. ...)
        for i = 1, 500 do
          own:info("line %%d", i, { i = i, list = { i, password = "x" } })
          own:debug "not wanted"
          if i %% 100 == 0 then own:level(i %% 200 == 0 and "info" or "warning") own:level "info" end
        end
        assert(log.wants "info" and not log.wants "debug")
        assert(log.stats().lines >= 500)
        assert(log.flush())]]):format(package.path))
      local count = {}
      for _, line in ipairs(spec.lines_of(path)) do
        local read = json.read(line)
        count[read.logger] = (count[read.logger] or 0) + 1
        assert.equal(count[read.logger], read.fields.i)
      end
      assert.same({ ["state.n1"] = 500, ["state.n2"] = 500, ["state.n3"] = 500, ["state.n4"] = 500 }, count)
    end)

    it("threads while the outputs change and files are opened anew", function()
      local script = ([[
        package.path = %q
        local log = require "gaterpc.log"
        local number = ...
        for i = 1, 200 do
          log.info("line", { thread = number, i = i })
          if i %% 20 == 0 then log.reopen() end
          if number == 1 and i %% 10 == 0 then
            assert(log.setup { files = { { path = %q .. i // 10 %% 3 } } })
          end
        end]]):format(package.path, process.dir() .. "/file")
      spec.states(3, script)
      assert.equal(600, #spec.lines())
    end)
  end)

  it("goes round its memory, with an output that keeps it from starting anew [limit 30]", function()
    local pipe, path = process.dir() .. "/pipe", process.dir() .. "/file"
    assert(os.execute("mkfifo " .. pipe))
    local uv = require "luv"
    local fd = assert(uv.fs_open(pipe, uv.constants.O_RDONLY | uv.constants.O_NONBLOCK, 0)) -- and does not read
    finally(function() uv.fs_close(fd) end)
    assert(log.setup { console = false, files = { { path = pipe }, { path = path } }, queue_bytes = 8 << 20 })
    local text, count = ("x"):rep(997), 40000 -- more than twice the memory
    for n = 1, count do
      log.info(text, { n = n })
      if n % 500 == 0 then
        process.eventually(function()
          local stats = log.stats()
          return stats.outputs[2].lines >= n - 1000 and stats.waiting_bytes < 6 << 20
        end, "the writer")
      end
    end
    process.eventually(function() return log.stats().outputs[2].lines >= count end, "the last line")
    assert.equal(0, log.stats().dropped)
    local expected = 0
    process.eventually(function() return spec.read_file(path):sub(-20):find("n=" .. count .. "\n", 1, true) end, "it")
    for _, line in ipairs(spec.lines_of(path)) do
      expected = expected + 1
      assert.equal("INFO lua " .. text .. " n=" .. expected, line:match " (.*)$")
    end
    assert.equal(count, expected)
  end)

  it("counts its lines", function()
    local before = log.stats()
    log.info "x"
    log.debug "not wanted"
    spec.flush()
    local stats = log.stats()
    assert.equal(before.lines + 1, stats.lines)
    assert.equal(0, stats.dropped)
    assert.equal(0, stats.waiting)
    assert.same({ { lines = 1, lost = 0 } }, stats.outputs)
  end)
end)
