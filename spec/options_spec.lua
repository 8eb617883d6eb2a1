local options = require "gaterpc.options"

describe("options", function()
  local known = { broker = "string", timeout = "number", liveness = "integer", both = "string|table", all = "any" }

  local function message_of(given)
    local _, err = pcall(function() options.check("Thing", given, known, 2) end)
    return err
  end

  it("pass when they are known and of their types", function()
    local given = { broker = "x", timeout = 1, liveness = 3, both = {}, all = print }
    assert.equal(given, options.check("Thing", given, known))
    assert.same({}, options.check("Thing", nil, known))
  end)

  it("name the nearest known one for a slip, and none for nonsense", function()
    assert.truthy(message_of({ borker = "x" }):find("unknown option 'borker', did you mean 'broker'?", 1, true))
    assert.truthy(message_of({ BROKER = "x" }):find("did you mean 'broker'?", 1, true))
    assert.falsy(message_of({ xyzzy_plugh = 1 }):find("did you mean", 1, true))
    assert.truthy(message_of({ "x" }):find("unknown option '1'", 1, true))
  end)

  it("say what type they take and what they got", function()
    assert.truthy(message_of({ liveness = 1.5 }):find("option 'liveness' must be an integer, got float", 1, true))
    assert.truthy(message_of({ both = 1 }):find("must be a string or table, got integer", 1, true))
    assert.truthy(message_of("x"):find("Thing takes a table of options, got string", 1, true))
  end)

  it("find the nearest name whatever its case", function()
    assert.equal("timeout", options.nearest("Timeuot", known))
    assert.is_nil(options.nearest("q", known))
  end)
end)
