local process = require "support.process"

describe("the log", function()
  after_each(process.finish)

  it("writes everything that was logged before the end, in order, one line each", function()
    local host = process.host [[
      local log = require("gaterpc").log
      for i = 1, 1000 do log.info("line %d", i) end
      log.warning("two\nlines and a bell \a")
    ]]
    assert.equal(0, host:wait_exit())
    local expected = 0
    for i in host.err:gmatch("INFO lua line (%d+)\n") do
      expected = expected + 1
      assert.equal(expected, tonumber(i))
    end
    assert.equal(1000, expected)
    assert.truthy(host.err:find("two\\nlines and a bell \\x07\n", 1, true))
  end)

  it("is written out by os.exit too", function()
    local host = process.host [[
      require("gaterpc").log.info "the last words"
      os.exit(3)
    ]]
    assert.equal(3, host:wait_exit())
    assert.truthy(host.err:find("the last words", 1, true))
  end)

  it("drops what is below its level", function()
    local host = process.host [[
      local log = require("gaterpc").log
      log.debug "too little"
      log.level "error"
      log.warning "too little"
      log.error "enough"
    ]]
    assert.equal(0, host:wait_exit())
    assert.falsy(host.err:find("too little", 1, true))
    assert.truthy(host.err:find("ERROR lua enough", 1, true))
  end)

  it("never waits for a reader that does not read: lines are dropped, counted and said", function()
    local host = process.run("/bin/sh", { "-c", [[
      exec "$0" -e 'local gaterpc = require "gaterpc"
        for i = 1, 200000 do gaterpc.log.info(("x"):rep(200)) end
        print "not blocked" io.stdout:flush()' 2>&1 >/dev/null | (sleep 2; cat) ]], require("luv").exepath() })
    assert.equal(0, host:wait_exit(30))
    assert.truthy(host.out:find("lines were dropped", 1, true))
  end)
end)
