-- Who may do what: the access list by hand, and how it is read from Lua.

local access = require "gaterpc.access"
local process = require "support.process"
local zapspec = require "support.zap"

local function list(...)
  local made = zapspec.access()
  for _, each in ipairs { ... } do assert(made:allow(each[1], each[2], each[3])) end
  return made
end

describe("an access list", function()
  it("denies what it does not allow", function()
    local made = list()
    assert.is_false(made:may("ann", "call", "S", "get"))
    assert.is_false(made:may("ann", "register", "S", ""))
    assert.is_false(made:may("", "call", "S", "get"))
  end)

  it("allows a user one thing, and that is not another thing", function()
    local made = list({ "ann", "call", "S.get" }, { "wil", "register", "S" })
    assert.is_true(made:may("ann", "call", "S", "get"))
    assert.is_true(made:may("ann", "call", "S", "get"), "the second time from memory")
    for _, each in ipairs { { "bob", "call", "S", "get" }, { "ann", "call", "S", "put" }, { "ann", "call", "S", "" },
      { "ann", "call", "", "S.get" }, { "ann", "register", "S.get", "" }, { "ann", "register", "S", "" },
      { "", "call", "S", "get" }, { "an", "call", "S", "get" }, { "annS", "call", "", "get" } } do
      assert.is_false(made:may(table.unpack(each)), table.concat(each, " "))
    end
    assert.is_true(made:may("wil", "register", "S", ""))
    assert.is_false(made:may("wil", "call", "S", ""))
  end)

  it("does not remember an answer for another question that looks alike", function()
    local made = list({ "ab", "register", "c" }, { "a", "call", "b.c" })
    assert.is_true(made:may("ab", "register", "c", ""))
    assert.is_false(made:may("a", "register", "bc", ""))
    assert.is_false(made:may("abc", "register", "", ""))
    assert.is_true(made:may("a", "call", "b", "c"))
    assert.is_false(made:may("a", "call", "bc", ""))
    assert.is_false(made:may("a", "register", "b.c", ""))
  end)

  it("means everybody with a name by *, and those without by anonymous", function()
    local made = list({ "*", "call", "S.*" }, { "anonymous", "call", "S.ping" })
    assert.is_true(made:may("ann", "call", "S", "get"))
    assert.is_true(made:may("", "call", "S", "ping"))
    assert.is_false(made:may("", "call", "S", "get"))
    assert.is_false(list({ "a*", "call", "*" }):may("", "call", "S", "get"), "anonymous is a word, no name")
    assert.is_true(list({ "a*", "call", "*" }):may("ann", "call", "S", "get"))
  end)

  local patterns = {
    { "*", { "", "x", "a.b", "*" }, {} },
    { "S*", { "S", "Sx", "S.get" }, { "", "xS", "s" } },
    { "*S", { "S", "xS", "SS" }, { "Sx", "" } },
    { "a*b*c", { "abc", "aXbYc", "abbcc", "abcbc" }, { "ab", "acb", "abcd" } },
    { "**", { "", "x" }, {} },
    { "a**b", { "ab", "axb" }, { "a", "b" } },
    { "*a*", { "a", "bab" }, { "", "b" } },
    { "S.get", { "S.get" }, { "S_get", "S.gets", "S.ge" } },
    { "\0*", { "\0", "\0x" }, { "", "x" } },
  }
  for n, each in ipairs(patterns) do
    it(("pattern %d, %q"):format(n, each[1]), function()
      local made = list({ "u", "register", each[1] })
      for _, text in ipairs(each[2]) do assert.is_true(made:may("u", "register", text, ""), text) end
      for _, text in ipairs(each[3]) do assert.is_false(made:may("u", "register", text, ""), text) end
    end)
  end

  it("is quick about patterns that are made to be slow", function()
    local made = list({ "u", "register", ("*a"):rep(250) .. "b" })
    local before = os.clock()
    for n = 1, 20 do made:may("u", "register", ("a"):rep(480) .. n, "") end
    assert.is_true(os.clock() - before < process.limit(1))
  end)

  it("denies names that are too long, and takes no patterns that are", function()
    local made = list({ "*", "register", "*" }, { "*", "call", "*" })
    assert.is_true(made:may(("u"):rep(255), "register", ("s"):rep(255), ""))
    assert.is_true(made:may(("u"):rep(255), "call", ("s"):rep(255), ("m"):rep(255)))
    assert.is_false(made:may(("u"):rep(256), "register", "s", ""))
    assert.is_false(made:may("u", "register", ("s"):rep(256), ""))
    assert.is_false(made:may("u", "call", ("s"):rep(256), "m"))
    assert.is_false(made:may("u", "call", "s", ("m"):rep(256)))
    for _, wrong in ipairs {
      { "", "S" }, { "u", "" }, { "u", "S" }, { "u", ".m" }, { "u", "S." }, { ("u"):rep(513), "S" },
      { "u", ("s"):rep(513) },
    } do
      local done, code = made:allow(wrong[1], "call", wrong[2])
      assert.same({ nil, "INVALID_ARGUMENT" }, { done, code })
    end
  end)

  it("forgets what it remembers when it is added to, or asked about too many names", function()
    local made = list()
    assert.is_false(made:may("ann", "call", "S", "get"))
    assert(made:allow("ann", "call", "S.get"))
    assert.is_true(made:may("ann", "call", "S", "get"))
    for n = 1, 20000 do assert.is_false(made:may("ann", "call", "S", "m" .. n)) end
    assert.is_true(made:may("ann", "call", "S", "get"))
  end)
end)

describe("an access list in Lua", function()
  after_each(process.finish)

  local function sorted(permissions)
    local lines = {}
    for n, each in ipairs(permissions) do lines[n] = table.concat(each, " ") end
    table.sort(lines)
    return lines
  end

  it("is made of roles and rules", function()
    assert.same({ "ann call S.get", "ann call S.put", "bob call S.get", "bob call S.put", "wil register S",
      "x call S.get",
      "x call S.put" }, sorted(assert(access.flatten {
        roles = { readers = { "ann", "bob" }, worker = "wil" },
        { role = "readers", user = "x", call = { "S.get", "S.put" } },
        { role = { "worker" }, register = "S" },
      })))
    assert.same({}, access.flatten {})
  end)

  it("names what is wrong where", function()
    local wrong = {
      { 7, "access must be a list" },
      { { roles = 7 }, "'roles' must be a table" },
      { { roles = { a = 7 } }, "'roles' must be a table of lists" },
      { { roles = { a = { 7 } } }, "role 'a'" },
      { { roles = { a = { "" } } }, "1 to 255 bytes" },
      { { rolls = {} }, "did you mean 'roles'" },
      { { { user = "ann" } }, "access%[1%] allows nothing" },
      { { { call = "S.get" } }, "'user' or 'role' is missing" },
      { { { user = "ann", cal = "S" } }, "did you mean 'call'" },
      { { { user = "ann", call = 7 } }, "call" },
      { { { user = "ann", call = { a = "S" } } }, "a list of strings" },
      { { { user = "ann", call = ("s"):rep(256) } }, "got 256" },
      { { { role = "reader", call = "S" }, roles = { readers = {} } }, "did you mean 'readers'" },
      { { "ann" }, "access%[1%]" },
      { { [2] = { user = "ann", call = "S" } }, "without holes" },
      { { [1.5] = {} }, "unknown field" },
    }
    for n, each in ipairs(wrong) do
      local made, problem = access.flatten(each[1])
      assert.is_nil(made, n)
      assert.is_truthy(tostring(problem):find(each[2]), n .. ": " .. tostring(problem))
    end
  end)

  it("is read from a file that can use nothing else", function()
    local function load(text)
      return access.load(process.file("access.lua", text))
    end
    assert.same({ "ann call *" }, sorted(assert(load 'return { { user = "ann", call = "*" } }')))
    for _, each in ipairs { { "return {", "expected" }, { "os.exit(1)", "'os'" }, { "return", "got nil" },
      { "return { {} }", "allows nothing" }, { "\27Lua", "binary" }, { "error {}", "'error'" },
      { "--" .. (" "):rep(1 << 20), "larger than 1 MiB" } } do
      local made, err = load(each[1])
      assert.is_nil(made)
      assert.equal("INVALID_ARGUMENT", err.code)
      assert.is_truthy(err.message:find(each[2], 1, true), err.message)
    end
    assert.equal("INVALID_ARGUMENT", select(2, access.load(process.dir() .. "/missing")).code)
    local made, err = access.load(process.dir())
    assert.is_nil(made, "a folder is no empty file")
    assert.equal("INVALID_ARGUMENT", err.code)
  end)
end)
