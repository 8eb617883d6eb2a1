-- The store of settings with tables of its own, and what must hold for the real table. Settings of a process are
-- frozen by its first object: what a host does with them is in spec/system/settings_spec.lua.
local has = require "support.has"
local process = require "support.process"
local rows = require "gaterpc.settings_rows"
local settings = require "gaterpc.settings"
local show = require "gaterpc.settings_show"
local sources = require "gaterpc.settings_sources"
local store = require "gaterpc.settings_store"
local types = require "gaterpc.settings_types"

local applied, warnings

local function small_table()
  return {
    { group = "One" },
    { "BEAT", "seconds", 3, "how often it beats", low = 0.05, high = 60, option = { Client = "beat", Worker = "beat" },
      hint = "milliseconds go elsewhere" },
    { "LIMIT", "seconds", 30, "how long it may take", low = 0, high = 100 },
    { "REPLY", "seconds", 60, "how long an answer takes", low = 0, high = 200, follows = { "LIMIT", 2 } },
    { group = "Two" },
    { "SIZE", "bytes", 1 << 20, "how large it may be", low = 1024, high = 1 << 30 },
    { "COUNT", "integer", 5, "how many there are", low = 1, high = 10 },
    { "SECOND", "integer", 7, "how many others there are", low = 2, high = 20 },
    { "CODEC", "string", "gzip", "how it is compressed", choices = { "gzip", "zstd" } },
    { "LOUD", "boolean", false, "whether it is loud", apply = function(on) table.insert(applied, on) end },
    { "PLACE", "address", "inproc://x", "where it is to be found" },
    { "KEY", "string", nil, "what opens it", secret = true, choices = { "sesame" } },
    { "LINES", "table", nil, "what the log looks like" },
    { "BEAT_MS", "milliseconds", "the same in another unit", alias_of = "BEAT" },
    { "LOUD_FLAG", "flag", "the same as a number", alias_of = "LOUD" },
    { "BOTH", "integer", "two settings at once", alias_of = { "COUNT", "SECOND" } },
    { "DOOR_KEY", "string", "the same by another name", alias_of = "KEY" },
    { "VERSION", "the version of the protocol", constant = "01" },
    { "FIBERS", "there are no fibers here", unused = true },
    { "PASSWORD", "nobody asks for one here", unused = true, secret = true },
  }
end

local function small_store()
  applied, warnings = {}, {}
  return store.new(small_table(), function(text) table.insert(warnings, text) end)
end

-- Changes one setting; returns nil and what is wrong.
local function give(self, layer, name, value, where)
  local batch = self:batch(layer)
  local added, problem = batch:add(name, value, where or layer)
  if added then batch:commit() end
  return added, problem
end

local function problem_of(...)
  local added, problem = give(small_store(), "script", ...)
  assert.is_nil(added)
  return problem
end

describe("a row of the table", function()
  local function complaint(row)
    local list = small_table()
    list[#list + 1] = row
    local ok, err = pcall(store.new, list, print)
    return not ok and err
  end

  it("is accepted when it is right", function()
    assert.is_false(complaint { "MORE", "integer", 1, "some more of it", low = 1, high = 2 })
    assert.is_false(complaint { "MORE", "some more of it", constant = "x" })
  end)

  for what, case in pairs {
    ["a small name"] = { { "more", "integer", 1, "some more of it", low = 1, high = 2 }, "capitals" },
    ["a name that is there"] = { { "BEAT", "integer", 1, "some more of it", low = 1, high = 2 }, "twice" },
    ["no text"] = { { "MORE", "integer", 1, low = 1, high = 2 }, "no text" },
    ["an unknown type"] = { { "MORE", "int", 1, "some more of it" }, "unknown type 'int'" },
    ["a type for aliases"] = { { "MORE", "milliseconds", 1, "some more of it", low = 1, high = 2 }, "for aliases" },
    ["no range"] = { { "MORE", "seconds", 1, "some more of it" }, "range" },
    ["half a range"] = { { "MORE", "seconds", 1, "some more of it", low = 1 }, "range" },
    ["an empty range"] = { { "MORE", "seconds", 1, "some more of it", low = 2, high = 1 }, "range" },
    ["a range where there is no order"] = { { "MORE", "string", "x", "some more of it", low = 1, high = 2 }, "range" },
    ["a default of another type"] = { { "MORE", "integer", "1", "some more of it", low = 1, high = 2 }, "default" },
    ["a default out of its range"] = { { "MORE", "integer", 3, "some more of it", low = 1, high = 2 }, "default" },
    ["a default that is no choice"] = { { "MORE", "string", "x", "some more of it", choices = { "y" } }, "default" },
    ["a choice of another type"] = { { "MORE", "string", "x", "some more of it", choices = { "x", 1 } }, "choices" },
    ["a misspelt field"] = { { "MORE", "string", "x", "some more of it", choises = {} }, "did you mean 'choices'" },
    ["a field of another type"] = { { "MORE", "string", "x", "some more of it", secret = 1 }, "boolean" },
    ["too many fields"] = { { "MORE", "string", "x", "some more of it", "and more" }, "4 fields" },
    ["a field that its kind has not"] = { { "MORE", "some more of it", constant = "x", low = 1 }, "'low'" },
    ["an alias of nothing"] = { { "MORE", "integer", "some more of it", alias_of = "LESS" }, "LESS is no setting" },
    ["an alias of an alias"] = { { "MORE", "seconds", "some more of it", alias_of = "BEAT_MS" }, "no setting" },
    ["an alias of another type"] = { { "MORE", "integer", "some more of it", alias_of = "BEAT" }, "not that of BEAT" },
    ["a leader that is not there"] =
      { { "MORE", "seconds", 1, "some more of it", low = 1, high = 2, follows = { "X", 1 } }, "follows no setting" },
    ["a default that does not follow"] =
      { { "MORE", "seconds", 1, "some more of it", low = 1, high = 2, follows = { "LIMIT", 2 } }, "does not follow" },
  } do
    it("is refused when the table is loaded: " .. what, function()
      has(complaint(case[1]), "settings table, row " .. case[1][1], case[2])
    end)
  end
end)

describe("a value", function()
  local function check(kind, value)
    local ok, result = types.types[kind].check(value)
    return ok and { result } or nil
  end
  local function parse(kind, text)
    local ok, result = types.types[kind].parse(text)
    return ok and { result } or nil
  end

  it("from a script has the type of its setting", function()
    assert.same({ 3.0 }, check("seconds", 3))
    assert.equal("float", math.type(check("seconds", 3)[1]))
    assert.is_nil(check("seconds", "3"))
    assert.equal("integer", math.type(check("integer", 2 ^ 20)[1]))
    for _, value in ipairs { 2.5, "2", 0 / 0, math.huge, true } do assert.is_nil(check("integer", value)) end
    assert.same({ false }, check("boolean", false))
    assert.is_nil(check("boolean", 0))
    assert.same({ 64 << 10 }, check("bytes", "64K"))
    assert.same({ 64 }, check("bytes", 64))
    for _, value in ipairs { "64k", "64KB", "K", "-1K", "1.5M", "", 0.5 } do assert.is_nil(check("bytes", value)) end
    assert.is_nil(check("bytes", "9223372036854775807G"))
    assert.is_not_nil(check("address", "ipc:///run/a b"))
    for _, value in ipairs { "", "tcp", "tcp://", "//x", "tcp://a\nb", 1 } do assert.is_nil(check("address", value)) end
    for _, value in ipairs { "", "a b", ("x"):rep(256) } do assert.is_nil(check("service", value)) end
  end)

  it("from the environment is text of that type", function()
    assert.same({ 0.5 }, parse("seconds", "0.5"))
    assert.same({ 2000.0 }, parse("seconds", "2e3"))
    for _, text in ipairs { "", "abc", "5s", "0x10", "inf", "nan", "1e", " 1", "1 ", "1,5", "--1" } do
      assert.is_nil(parse("seconds", text), text)
      assert.is_nil(parse("integer", text), text)
    end
    assert.same({ -3 }, parse("integer", "-3"))
    for _, text in ipairs { "1.0", "1e3", "99999999999999999999" } do assert.is_nil(parse("integer", text), text) end
    assert.same({ 2 << 30 }, parse("bytes", "2G"))
    for _, text in ipairs { "true", "yes", "on", "1", "TRUE" } do assert.same({ true }, parse("boolean", text)) end
    for _, text in ipairs { "false", "no", "off", "0" } do assert.same({ false }, parse("boolean", text)) end
    for _, text in ipairs { "", "2", "ja" } do assert.is_nil(parse("boolean", text)) end
    assert.is_nil(parse("table", "{}"))
    assert.is_nil(parse("flag", "true"))
  end)

  it("is shown as one would write it", function()
    assert.equal("64K", types.show(65536, "bytes"))
    assert.equal("65537", types.show(65537, "bytes"))
    assert.equal("0", types.show(0, "bytes"))
    assert.equal("3", types.show(3.0, "seconds"))
    assert.equal("0.05", types.show(0.05, "seconds"))
    assert.equal('"a\\"b\\x01"', types.show 'a"b\1')
    assert.equal("", types.show(nil))
  end)
end)

describe("a store of settings", function()
  it("has the defaults, and says so", function()
    local self = small_store()
    assert.equal(3.0, self:get "BEAT")
    assert.equal(3000, self:get "BEAT_MS")
    assert.equal(0, self:get "LOUD_FLAG")
    assert.equal("01", self:get "VERSION")
    assert.is_nil(self:get "LINES")
    assert.is_nil(select(2, self:get "LINES"))
    assert.equal("default", self:list()[1].where)
    has(select(2, self:get "BEET"), "unknown setting 'BEET', did you mean 'BEAT'?")
  end)

  it("lets file, environment and script win in this order, whichever comes first", function()
    local layers = { "file", "environment", "script" }
    for _, order in ipairs { { 1, 2, 3 }, { 1, 3, 2 }, { 2, 1, 3 }, { 2, 3, 1 }, { 3, 1, 2 }, { 3, 2, 1 } } do
      local self, strongest = small_store(), 0
      for _, i in ipairs(order) do
        give(self, layers[i], "COUNT", i)
        strongest = math.max(strongest, i)
        assert.equal(strongest, self:get "COUNT")
        local row = self:list()[5]
        assert.same({ "COUNT", layers[strongest] }, { row.name, row.source })
      end
    end
  end)

  it("says what is wrong with a value, and what is allowed", function()
    has(problem_of("COUNT", "x"), "setting COUNT must be an integer, got string 'x'")
    has(problem_of("COUNT", 2.5), "must be an integer, got float 2.5")
    has(problem_of("COUNT", 11), "setting COUNT must be from 1 to 10, got integer 11")
    has(problem_of("BEAT", 3000), "from 0.05 to 60 s, got integer 3000; milliseconds go elsewhere")
    has(problem_of("BEAT", 0 / 0), "from 0.05 to 60 s")
    has(problem_of("SIZE", "5T"), '"64K"', "got string '5T'")
    has(problem_of("SIZE", 5), "from 1K to 1G")
    has(problem_of("CODEC", "lzma"), 'one of "gzip", "zstd", got string \'lzma\'')
    has(problem_of("LINES", 1), "must be a table")
    has(problem_of("BET", 1), "unknown setting 'BET', did you mean 'BEAT'?")
    has(problem_of("COUNT", ("x"):rep(1000)), "...'")
  end)

  it("converts the units of other names, both ways", function()
    local self = small_store()
    assert.is_true(give(self, "script", "BEAT_MS", 250))
    assert.same({ 0.25, 250 }, { self:get "BEAT", self:get "BEAT_MS" })
    assert.equal("integer", math.type(self:get "BEAT_MS"))
    assert.is_true(give(self, "script", "LOUD_FLAG", 1))
    assert.same({ true, 1 }, { self:get "LOUD", self:get "LOUD_FLAG" })
    assert.is_true(give(self, "script", "BOTH", 4))
    assert.same({ 4, 4, 4 }, { self:get "COUNT", self:get "SECOND", self:get "BOTH" })
    has(problem_of("BEAT_MS", 5), "setting BEAT_MS must be from 50 to 60000 ms, got integer 5")
    has(problem_of("BOTH", 1), "from 2 to 10")
    has(problem_of("LOUD_FLAG", true), "must be 0 or 1, got boolean")
  end)

  it("is written last by a statement that comes later, whatever name it uses", function()
    local self = small_store()
    give(self, "script", "BEAT_MS", 250)
    give(self, "script", "BEAT", 1)
    assert.equal(1.0, self:get "BEAT")
  end)

  it("takes a setting under one name at a time, when changes come together", function()
    local batch = small_store():batch "script"
    assert.is_true(batch:add("BEAT", 1, "x"))
    local added, problem = batch:add("BEAT_MS", 1000, "x")
    assert.is_nil(added)
    has(problem, "BEAT and BEAT_MS are the same setting")
    assert.is_true(batch:add("BEAT", 2, "x")) -- the same name again is a later statement
  end)

  it("changes nothing before a batch is complete", function()
    local self = small_store()
    local batch = self:batch "script"
    assert.is_true(batch:add("COUNT", 9, "x"))
    assert.is_nil((batch:add("BEAT", 0, "x")))
    assert.equal(5, self:get "COUNT")
    assert.equal(9, batch:get "COUNT")
    assert.equal(9, batch:get "BOTH")
    assert.equal(3.0, batch:get "BEAT")
    batch:commit()
    assert.equal(9, self:get "COUNT")
  end)

  it("lets a default follow another setting until it is set itself", function()
    local self = small_store()
    local function where() return self:list()[3].where end
    assert.same({ 60.0, "default" }, { self:get "REPLY", where() })
    give(self, "environment", "LIMIT", 5)
    assert.same({ 10.0, "LIMIT" }, { self:get "REPLY", where() })
    give(self, "file", "REPLY", 7, "conf.lua:1")
    assert.same({ 7.0, "conf.lua:1" }, { self:get "REPLY", where() })
    give(self, "script", "LIMIT", 6)
    assert.equal(7.0, self:get "REPLY")
  end)

  it("applies a value when it changes, and only then", function()
    local self = small_store()
    give(self, "script", "LOUD", false)
    give(self, "script", "LOUD", true)
    give(self, "file", "LOUD", false)
    give(self, "environment", "LOUD", true)
    assert.same({ true }, applied)
  end)

  it("does not let constants be changed, except to what they are", function()
    local self = small_store()
    assert.is_true(give(self, "script", "VERSION", "01"))
    local added, problem = give(self, "script", "VERSION", "02")
    assert.is_nil(added)
    has(problem, "setting VERSION cannot be changed", '"01"', "the version of the protocol")
    assert.equal("01", self:get "VERSION")
  end)

  it("warns once of a name that changes nothing, and gives back what it got", function()
    local self = small_store()
    assert.is_true(give(self, "file", "FIBERS", 8, "conf.lua:3"))
    assert.is_true(give(self, "script", "FIBERS", 9))
    assert.equal(9, self:get "FIBERS")
    assert.equal(1, #warnings)
    has(warnings[1], "setting FIBERS (conf.lua:3) changes nothing here: there are no fibers here")
  end)

  it("never shows a secret, neither in lists nor in errors nor in warnings", function()
    local self = small_store()
    for _, name in ipairs { "KEY", "DOOR_KEY" } do
      local _, problem = give(self, "script", name, "swordfish")
      has(problem, "must be one of")
      assert.falsy(problem:find("swordfish", 1, true))
      _, problem = give(self, "script", name, { "swordfish" })
      assert.falsy(problem:find("swordfish", 1, true))
    end
    assert.is_true(give(self, "script", "KEY", "sesame"))
    assert.is_true(give(self, "script", "PASSWORD", "sesame"))
    assert.equal("sesame", self:get "DOOR_KEY")
    local seen = 0
    for _, row in ipairs(self:list()) do
      for field, value in pairs(row) do
        if value == "sesame" then error(row.name .. " shows it in " .. field) end
      end
    end
    for _, kind in ipairs { "setting", "alias", "unused" } do
      for _, row in ipairs(self:list(kind)) do
        assert.not_equal("sesame", row.value)
        if row.value == "***" then seen = seen + 1 end
      end
    end
    assert.equal(3, seen)
    assert.falsy(table.concat(warnings):find("sesame", 1, true))
  end)

  it("takes no more changes once it is frozen, and says who exists, where, and what else to do", function()
    local self = small_store()
    self:freeze("Client", "script.lua:3")
    self:freeze("Worker", "script.lua:4")
    for _, name in ipairs { "BEAT", "BEAT_MS" } do
      local _, problem = give(self, "script", name, 1)
      has(problem, "setting " .. name .. " cannot be changed any more",
        "a Client exists already (made at script.lua:3)", "option 'beat' of Client, Worker")
    end
    has(select(2, give(self, "script", "COUNT", 1)), "set it before")
    has(select(2, give(self, "script", "FIBERS", 1)), "cannot be changed any more")
    assert.equal(3.0, self:get "BEAT")
  end)
end)

describe("the environment", function()
  it("sets settings by their types, and wins over the file", function()
    local self = small_store()
    give(self, "file", "COUNT", 2)
    assert.is_true(sources.environment(self, { GATERPC_COUNT = "8", GATERPC_SIZE = "64K", GATERPC_LOUD = "on",
      GATERPC_BEAT_MS = "500", GATERPC_PLACE = "tcp://127.0.0.1:1", GATERPC_FIBERS = "3", COUNT = "1" }))
    assert.same({ 8, 65536, true, 0.5, "tcp://127.0.0.1:1" },
      { self:get "COUNT", self:get "SIZE", self:get "LOUD", self:get "BEAT", self:get "PLACE" })
    assert.equal("GATERPC_COUNT", self:list()[5].where)
    assert.equal(1, #warnings)
    has(warnings[1], "FIBERS (GATERPC_FIBERS)")
  end)

  for variable, case in pairs {
    GATERPC_BEAT = { "abc", "must be a number of seconds, got 'abc'" },
    GATERPC_COUNT = { "11", "must be from 1 to 10, got '11'" },
    GATERPC_LOUD = { "maybe", "must be a boolean, got 'maybe'" },
    GATERPC_PLACE = { "", "must be an address" },
    GATERPC_LINES = { "{}", "must be a table" },
    GATERPC_VERSION = { "02", "cannot be changed" },
    GATERPC_CODEC = { "lzma", "must be one of" },
  } do
    it(("is refused for %s=%s, and then nothing is changed"):format(variable, case[1]), function()
      local self = small_store()
      local taken, problem = sources.environment(self, { [variable] = case[1], GATERPC_SECOND = "9" })
      assert.is_nil(taken)
      has(problem, "environment variable " .. variable .. " " .. case[2])
      assert.equal(7, self:get "SECOND")
    end)
  end

  it("gets a warning for what is no setting, with the nearest name", function()
    local self = small_store()
    assert.is_true(sources.environment(self, { GATERPC_BEET = "1", GATERPC_beat = "1", GATERPC_XYZZYPLUGH = "1",
      GATERPC_ = "1", OTHER_BEET = "1" }))
    assert.equal(4, #warnings)
    local all = table.concat(warnings, "\n")
    has(all, "GATERPC_BEET names no setting, did you mean GATERPC_BEAT?", "GATERPC_beat names no setting, did you",
      "GATERPC_XYZZYPLUGH names no setting")
    assert.falsy(all:find("XYZZYPLUGH names no setting,", 1, true))
  end)

  it("gets none for the variables that this project itself uses", function()
    local uv = require "luv"
    local function each_file(folder, visit)
      for name, kind in uv.fs_scandir_next, assert(uv.fs_scandir(folder)) do
        local path = folder .. "/" .. name
        if kind == "directory" then each_file(path, visit) elseif not path:find "settings" then visit(path) end
      end
    end
    local found, others = {}, 0
    for _, folder in ipairs { "lua", "spec", "scripts", "src" } do
      each_file(folder, function(path)
        local file <close> = assert(io.open(path))
        for name in file:read("a"):gmatch "GATERPC_([%u_]+)" do found[name] = path end
      end)
    end
    for name, path in pairs(found) do
      local is_known = sources.other_variables[name] or pcall(function() return settings[name] end)
      assert.truthy(is_known, ("%s uses GATERPC_%s: list it in settings_sources.lua"):format(path, name))
      if sources.other_variables[name] then others = others + 1 end
    end
    assert.is_true(others >= 5)
  end)
end)

describe("a settings file", function()
  after_each(process.finish)

  local function read(text, self)
    self = self or small_store()
    local taken, problem = sources.file(self, process.file("conf.lua", text))
    return self, taken, problem
  end

  it("is Lua text that assigns settings, with a few tools", function()
    local self = read [[
      local twice = 2
      COUNT = twice * 2
      SECOND = COUNT + math.floor(1.5) + #string.rep("x", 3)
      SIZE = ("%dK"):format(64)
      BEAT_MS = 1000 * (BEAT - 2)
      LOUD = os.getenv "NOWHERE" == nil and type(os.time()) == "number"
      for _, name in ipairs { "zstd" } do CODEC = name end]]
    assert.same({ 4, 8, 65536, 1.0, true, "zstd" }, { self:get "COUNT", self:get "SECOND", self:get "SIZE",
      self:get "BEAT", self:get "LOUD", self:get "CODEC" })
    assert.equal(process.dir() .. "/conf.lua:2", self:list()[5].where)
  end)

  for what, case in pairs {
    ["an unknown name"] = { "\nBEET = 1", ":2: unknown setting 'BEET', did you mean 'BEAT'?" },
    ["a small name"] = { "beat = 1", ":1: unknown setting 'beat', did you mean 'BEAT'?" },
    ["a wrong value"] = { "COUNT = 1\n\nBEAT = 'x'", ":3: setting BEAT must be a number of seconds, got string 'x'" },
    ["a name that is read"] = { "COUNT = SECND", ":1: unknown setting 'SECND', did you mean 'SECOND'?" },
    ["two names of one setting"] = { "BEAT = 1\nBEAT_MS = 1000", ":2: BEAT and BEAT_MS are the same setting" },
    ["a constant"] = { "VERSION = '02'", ":1: setting VERSION cannot be changed" },
    ["require"] = { "COUNT = require 'x'", ":1: a settings file cannot use 'require'" },
    ["io"] = { "COUNT = 2\nlocal f = io.open '/etc/passwd'", ":2: a settings file cannot use 'io'" },
    ["os.execute"] = { "os.execute 'true'", ":1: ", "execute" },
    ["the globals"] = { "COUNT = _G.x", ":1: a settings file cannot use '_G'" },
    ["another file"] = { "USER_SETTINGS = 'x'", ":1: a settings file cannot name another one" },
    ["a syntax error"] = { "COUNT = = 1", ":1: unexpected symbol" },
    ["an error of its own"] = { "COUNT = 2 error 'not today'", ":1: not today" },
    ["an error that is no text"] = { "error { 1 }", "it raised a table" },
    ["a result"] = { "return { COUNT = 1 }", "returns nothing" },
    ["bytecode"] = { string.dump(load "COUNT = 1"), "binary chunk" },
  } do
    it("that is wrong is named with its line, and changes nothing: " .. what, function()
      local self, taken, problem = read("SECOND = 9 " .. case[1])
      if what == "bytecode" then self, taken, problem = read(case[1]) end
      assert.is_nil(taken)
      has(problem, "settings file: ", "conf.lua", table.unpack(case, 2))
      assert.same({ 5, 7 }, { self:get "COUNT", self:get "SECOND" })
    end)
  end

  it("that cannot be read is named with the reason", function()
    has(select(2, sources.file(small_store(), "/nowhere/conf.lua")), "/nowhere/conf.lua", "No such file")
    has(select(2, sources.file(small_store(), process.dir())), process.dir(), "Is a directory")
  end)

  it("cannot change the tools of the program", function()
    local pi = math.pi
    read "math.pi = 3 string.rep = nil os.time = nil"
    assert.equal(pi, math.pi)
    assert.is_function(string.rep)
    assert.is_function(os.time)
  end)
end)

describe("the table of settings", function()
  after_each(process.finish)

  it("has a default of its own type within its bounds, and a text, for everything", function()
    local list = settings.list()
    assert.is_true(#list > 20)
    for _, row in ipairs(list) do
      assert.is_true(#row.text > 10, row.name)
      assert.is_string(row.group)
      if row.default ~= nil then
        assert.is_true((types.types[row.type].check(row.default)), row.name)
        assert.equal(row.lua, row.lua == "integer" and math.type(row.default) or type(row.default), row.name)
      end
      if row.low then assert.is_true(row.default >= row.low and row.default <= row.high, row.name) end
      assert.equal(row.value, settings[row.name])
    end
  end)

  -- The names that the settings module and the README of the Python package have had, from 0.1.1 to 0.2.12.
  local original = [[
    DEBUG ENVIRONMENT EVENT_LOOP_POLICY BASE_PATH RUN_PATH LOG_PATH HEARTBEAT TIMEOUT WINDOWS_MAX_WORKERS WORKER_ADDR
    USER_SETTINGS SECURE CLIENT_TIMEOUT TASK_TIMEOUT ZMQ_HWM ZMQ_CONTEXT ZMQ_SOCK ZMQ_CONTEXT_IPV6 ZMQ_SOCK_HWM
    ZMQ_SOCK_SNDTIMEO ZMQ_SOCK_RCVTIMEO ZAP_VERSION ZAP_DEFAULT_DOMAIN ZAP_MECHANISM_NULL ZAP_MECHANISM_PLAIN
    ZAP_MECHANISM_CURVE ZAP_MECHANISM_GSSAPI ZAP_PLAIN_DEFAULT_USER ZAP_PLAIN_DEFAULT_PASSWORD ZAP_ADDR
    ZAP_INPROC_ADDR ZAP_REPLY_TIMEOUT MDP_HEARTBEAT_INTERVAL MDP_HEARTBEAT_LIVENESS MDP_INTERNAL_SERVICE
    MDP_INTERNAL_SERVICE_PREFIX MDP_REPLY_TIMEOUT MDP_VERSION MDP_CLIENT MDP_WORKER MDP_COMMAND_READY
    MDP_COMMAND_REQUEST MDP_COMMAND_REPLY MDP_COMMAND_HEARTBEAT MDP_COMMAND_DISCONNECT MDP_DESCRIPTION_SEP
    GATE_CLUSTER_NAME GATE_CLUSTER_DESCRIPTION GATE_VERSION GATE_MEMBER GATE_COMMAND_RING GATE_COMMAND_READY
    GATE_COMMAND_REQUEST GATE_COMMAND_REPLY GATE_COMMAND_HEARTBEAT GATE_COMMAND_DISCONNECT GATE_COMMAND_NOTICE
    GATE_COMMAND_INVITE GATE_COMMAND_JOIN GATE_COMMAND_WHISPER GATE_COMMAND_LEAVE GATE_CURVE_PUBKEY GATE_CURVE_KEY
    GATE_IP_VERSION GATE_MULTICAST_GROUP GATE_MULTICAST_PORT GATE_MULTICAST_TTL GATE_MULTICAST_HOP_LIMIT MESSAGE_MAX
    STREAM_REPLY_MAXSIZE STREAM_GENERATOR_TAG STREAM_EXCEPT_TAG STREAM_END_TAG STREAM_END_MESSAGE
    STREAM_HUGE_DATA_TAG HUGE_DATA_SIZEOF HUGE_DATA_COMPRESS_MODULE HUGE_DATA_COMPRESS_LEVEL HUGE_DATA_END_TAG
    HUGE_DATA_EXCEPT_TAG SERVICE_DEFAULT_NAME REPLY_TIMEOUT DEFAULT_LOGGING LOGGING]]

  it("knows every name of the original", function()
    for name in original:gmatch "%S+" do
      local ok, err = pcall(function() return settings[name] end)
      assert.is_true(ok, tostring(err))
    end
  end)

  it("names the nearest one for a name that it does not know", function()
    local ok, err = pcall(function() return settings.HEARTBEET end)
    assert.is_false(ok)
    has(err, "settings_spec.lua:", "unknown setting 'HEARTBEET', did you mean 'HEARTBEAT'?")
  end)

  it("lists options by name", function()
    assert.same({ { name = "a", classes = { "X" } }, { name = "b", classes = { "Y", "Z" } } },
      rows.options { option = { Z = "b", X = "a", Y = "b" } })
    assert.same({}, rows.options {})
  end)

  it("is printed with a line for each setting", function()
    local text = show.lines()
    for _, row in ipairs(settings.list()) do has(text, "\n" .. row.name .. " ") end
    assert.equal(#settings.list() + 1, select(2, text:gsub("\n", "")))
  end)
end)

describe("docs/settings.md", function()
  after_each(process.finish)

  local function read(path)
    local file <close> = assert(io.open(path))
    return file:read "a"
  end

  it("is up to date, and so are the annotations: make docs", function()
    local host = process.command { "scripts/manual.lua", "--check" }
    assert.equal(0, host:wait_exit(), host.err)
  end)

  it("is made anew by make docs when it is not", function()
    local uv = require "luv"
    local folder = process.dir()
    local page, annotations = read "docs/settings.md", read "lua/gaterpc/meta/settings.lua"
    for _, each in ipairs { "docs", "lua", "lua/gaterpc", "lua/gaterpc/meta" } do
      assert(uv.fs_mkdir(folder .. "/" .. each, 448))
    end
    local function check()
      local host = process.command { "scripts/manual.lua", "--check", folder }
      return host:wait_exit(), host.err
    end
    process.file("docs/settings.md", (page:gsub("how often a side", "how seldom a side")))
    process.file("lua/gaterpc/meta/settings.lua", annotations)
    local code, err = check()
    assert.equal(1, code)
    has(err, "docs/settings.md is out of date: make docs")
    process.file("docs/settings.md", page)
    process.file("lua/gaterpc/meta/settings.lua", "")
    code, err = check()
    assert.equal(1, code)
    has(err, "meta/settings.lua is out of date")
    local host = process.command { "scripts/manual.lua", "--write", folder }
    assert.equal(0, host:wait_exit(), host.err)
    assert.equal(page, read(folder .. "/docs/settings.md"))
    assert.equal(annotations, read(folder .. "/lua/gaterpc/meta/settings.lua"))
  end)

  it("shows the settings file of the examples as it is", function()
    has(read "docs/settings.md", "```lua\n" .. read "examples/settings_file.lua" .. "```")
  end)
end)
