local errors = require "gaterpc.error"

describe("an error object", function()
  it("prints its code, message and origin", function()
    assert.equal("NOT_FOUND: gone", tostring(errors.new("NOT_FOUND", "gone")))
    assert.equal("NOT_FOUND: gone [S.m]",
      tostring(errors.new("NOT_FOUND", "gone", { service = "S", method = "m" })))
  end)

  it("is told from other tables", function()
    assert.is_true(errors.is(errors.new("INTERNAL", "x")))
    assert.is_true(errors.is(errors("INTERNAL", "x")))
    assert.is_false(errors.is { code = "INTERNAL", message = "x" })
    assert.is_false(errors.is "x")
  end)
end)

describe("what was raised is described", function()
  it("by its own code, class and message", function()
    assert.same({ "NOT_FOUND", "Mine", "text" },
      { errors.describe { code = "NOT_FOUND", class = "Mine", message = "text" } })
    assert.same({ "NOT_FOUND", "NOT_FOUND", "text" }, { errors.describe(errors.new("NOT_FOUND", "text")) })
  end)

  it("as INTERNAL when it has no code that we know", function()
    assert.same({ "INTERNAL", "Error", "text" }, { errors.describe "text" })
    assert.same({ "INTERNAL", "Error", "nil" }, { errors.describe(nil) })
    assert.same({ "INTERNAL", "INTERNAL", "text" }, { errors.describe { code = "NONSENSE", message = "text" } })
  end)

  it("even when it cannot be printed", function()
    local bad = setmetatable({}, { __tostring = function() error "no" end })
    assert.same({ "INTERNAL", "INTERNAL", "an error object that cannot be printed" }, { errors.describe(bad) })
  end)

  it("in one line for people", function()
    assert.equal("text", errors.text "text")
    assert.equal("NOT_FOUND: text", errors.text { code = "NOT_FOUND", message = "text" })
    assert.equal("NOT_FOUND: text", errors.text(errors.new("NOT_FOUND", "text")))
  end)
end)

describe("the traceback of an error that came from elsewhere", function()
  local function raised(fn)
    local co = coroutine.create(fn)
    local _, err = coroutine.resume(co)
    return errors.whole_traceback(co, err, (select(3, errors.describe(err))))
  end
  local brought = errors.new("INTERNAL", "text", { traceback = "text\nstack traceback:\n\tthere.lua:1: in main chunk" })

  it("is not repeated by ours when that tells nothing", function()
    local co = coroutine.create(error)
    coroutine.resume(co, brought)
    assert.equal(brought.traceback, errors.whole_traceback(co, brought, "text"))
  end)

  it("comes before ours", function()
    local trace = raised(function() error(brought) end)
    assert.equal(brought.traceback, trace:sub(1, #brought.traceback))
    assert.truthy(trace:find("error_spec.lua:%d+: in", #brought.traceback))
  end)

  it("of functions in C alone is no traceback", function()
    local co = coroutine.create(error)
    coroutine.resume(co, "text")
    assert.equal("text", errors.traceback(co, "text"))
  end)
end)
