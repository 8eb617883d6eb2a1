-- Settings are frozen by the first object of a process: changes are tried in processes of their own.
local process = require "support.process"
local settings = require "gaterpc.settings"

describe("Settings", function()
  after_each(process.finish)

  it("have a default of their own type, within their bounds, and a text", function()
    local list = settings.list()
    assert.is_true(#list > 10)
    for _, row in ipairs(list) do
      local got = row.type == "integer" and math.type(row.default) or type(row.default)
      assert.equal(row.type, got, row.name)
      if row.low then assert.is_true(row.default >= row.low and row.default <= row.high, row.name) end
      assert.is_true(#row.text > 10)
      assert.equal(row.value, settings[row.name])
    end
  end)

  it("are changed one by one or several at once, before the first object", function()
    local host = process.host [[
      local Settings = require "gaterpc".Settings
      Settings.HEARTBEAT = 1
      Settings.setup { LIVENESS = 5, DEFAULT_SERVICE = "Mine" }
      print(Settings.HEARTBEAT, Settings.LIVENESS, Settings.DEFAULT_SERVICE)]]
    assert.equal(0, host:wait_exit())
    assert.equal("1.0\t5\tMine\n", host.out)
  end)

  it("are what objects start from, and options of an object come first", function()
    local host = process.host [[
      local gaterpc = require "gaterpc"
      gaterpc.Settings.CONNECT_TIMEOUT = 0.01
      gaterpc.Settings.DEFAULT_SERVICE = "Mine"
      print(select(2, pcall(gaterpc.Client {}.method)))
      print(select(2, pcall(gaterpc.Client { service = "Own" }.method)))]]
    assert.equal(0, host:wait_exit())
    assert.truthy(host.out:find("[Mine.method]", 1, true))
    assert.truthy(host.out:find("[Own.method]", 1, true))
  end)

  it("are in the manual, with the present defaults", function()
    local host = process.command { "scripts/manual.lua", "--check", "docs/manual.md" }
    assert.equal(0, host:wait_exit(), host.err)
  end)
end)
