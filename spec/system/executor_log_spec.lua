-- What jobs in processes log: it comes out in the host's log, whatever they are up to.
local has = require "support.has"
local json = require "support.json"
local process = require "support.process"

local HEAD = [[
local core = require "gaterpc.core"
local gaterpc = require "gaterpc"
local path = ...
assert(gaterpc.log.setup { files = { { path = path, format = "json" } }, console = { level = "warning" } })
local pool = gaterpc.ProcessPoolExecutor { max_workers = 1 }
]]

-- A frame of src/exec/frame.h as it lies in memory, to a host that expects it from its own code.
local FRAME = [[
local function frame(level, name, text, fields, lie)
  local body = name .. text .. fields
  local head = ("<I4BBBxI4I4I4xxxxI8I8I8I8"):pack(#body, 12, 0, 0, level, lie or #name, #text, 0, 0, 0, 0)
  assert(require "luv".fs_write(3, head .. body) == #head + #body)
end
]]

describe("the log of a job in a process", function()
  after_each(process.finish)

  -- Runs a script with the HEAD. Gives the lines of its log file as tables, and the host.
  local function run(script, more)
    local path = process.dir() .. "/host.log"
    local host = process.host(HEAD .. FRAME .. script, { args = { path, more } })
    assert.equal(0, host:wait_exit(60), host.err)
    local lines = {}
    for line in process.read(path):gmatch "[^\n]+" do lines[#lines + 1] = json.read(line) end
    return lines, host
  end

  it("is the host's: files, formats, levels of outputs, before the result comes", function()
    local lines, host = run [[
      pool:run(function()
        local log = require "gaterpc".log
        log.info("one", { a = 1, b = { 2.5, true }, password = "x" })
        log.logger "shop".warning("%d left", 2, { token = "x", deep = { secret = "x" } })
      end)
      gaterpc.log.flush()
      print(select(2, io.open(path):read "a":gsub("\n", "")))
    ]]
    assert.equal("2\n", host.out)
    assert.same({ "lua", "info", "one", { a = 1, b = { 2.5, true }, password = "***" } },
      { lines[1].logger, lines[1].level, lines[1].message, lines[1].fields })
    assert.same({ "shop", "warning", "2 left", { token = "***", deep = { secret = "***" } } },
      { lines[2].logger, lines[2].level, lines[2].message, lines[2].fields })
    assert.equal(1, select(2, host.err:gsub("\n", "")), host.err) -- a warning, once
    has(host.err, "WARNING shop 2 left")
  end)

  it("has the levels that the host's loggers had when the process started", function()
    local lines = run [[
      gaterpc.log.level "warning"
      gaterpc.log.logger "shop":level "debug"
      gaterpc.log.logger "shop.noise":level "off"
      local function speak()
        local log = require "gaterpc".log
        for _, name in ipairs { "other", "shop.orders", "shop.noise" } do
          for _, level in ipairs { "debug", "info", "warning" } do log.logger(name)[level](level) end
        end
      end
      pool:run(speak)
    ]]
    local got = {}
    for i, line in ipairs(lines) do got[i] = line.logger .. " " .. line.message end
    assert.same({ "other warning", "shop.orders debug", "shop.orders info", "shop.orders warning" }, got)
  end)

  it("is as bounded as any other, and keeps text that is no text", function()
    local lines = run [[
      pool:run(function()
        local log, many = require "gaterpc".log, {}
        for i = 1, 100 do many["n" .. i] = ("y"):rep(3000) end
        log.info(("x"):rep(100000), many)
        log.info "two\nlines \xff"
      end)
    ]]
    assert.equal(8192, #lines[1].message)
    assert.is_true(lines[1].fields["..."])
    assert.truthy(lines[2].message:find "^two\nlines ")
  end)

  it("is there when the process ends itself at once, or is killed", function()
    local lines = run [[
      pcall(pool.run, pool, function() require "gaterpc".log.info "before exit" os.exit(3) end)
      pcall(pool.run, pool, function()
        require "gaterpc".log.info "before kill"
        local uv = require "luv"
        uv.kill(uv.os_getpid(), "sigkill")
      end)
    ]]
    local seen = {}
    for _, line in ipairs(lines) do seen[line.message] = true end
    assert.is_true(seen["before exit"])
    assert.is_true(seen["before kill"])
  end)

  it("may be much at once, and the host goes on", function()
    local lines, host = run([[
      gaterpc.log.setup { queue = 100000, queue_bytes = 8 << 20 }
      local slowest, done = 0, false
      local ticker = gaterpc.task.spawn(function()
        while not done do
          local began = core.now()
          gaterpc.task.sleep(0.001)
          slowest = math.max(slowest, core.now() - began)
        end
      end)
      pool:run(function() local log = require "gaterpc".log for i = 1, 30000 do log.info("line %d", i) end end)
      done = true
      ticker:join()
      print(slowest)
    ]])
    local count = 0
    for _, line in ipairs(lines) do
      if line.message:find "^line" then
        count = count + 1
        assert.equal("line " .. count, line.message) -- in order
      end
    end
    assert.equal(30000, count)
    assert.is_true(tonumber(host.out) < 0.5 * process.SLOW, host.out)
  end)

  it("is read to its end in portions, also when the process says no more", function()
    local _, host = run [[
      pool:run(function() end) -- it has started
      local job = pool:submit(function()
        local one = ("<I4BBBxI4I4I4xxxxI8I8I8I8"):pack(5, 12, 0, 0, 20, 4, 1, 0, 0, 0, 0) .. "namex"
        assert(require "luv".fs_write(3, one:rep(1060)) == #one * 1060) -- a portion, and a rest in the reader
        require "gaterpc".task.sleep(60)
      end)
      local began = core.now()
      while core.now() < began + 0.5 do end -- so that all of it is there at once
      while gaterpc.log.stats().lines < 1060 and core.now() < began + 20 do gaterpc.task.sleep(0.01) end
      print(gaterpc.log.stats().lines)
      job:cancel()
    ]]
    assert.equal("1060\n", host.out)
  end)

  it("does not hold up the job when the host is busy: lines are lost, and counted [limit 60]", function()
    local lines, host = run [[
      pool:run(function() end) -- it has started
      local began = core.now()
      local job = pool:submit(function(n)
        local core, log = require "gaterpc.core", require "gaterpc".log
        local began = core.now()
        for i = 1, n do log.info("line") end
        return core.now() - began
      end, 50000)
      gaterpc.task.sleep(0)
      while core.now() < began + 4 do end
      print(job:await())
      pool:run(function() require "gaterpc".log.info "line" end)
    ]]
    local seen, lost = 0, 0
    for _, line in ipairs(lines) do
      if line.message == "line" then seen = seen + 1 end
      lost = lost + tonumber(line.message:match "^process %d+: (%d+) lines were lost" or 0)
    end
    assert.equal(50001, seen + lost)
    assert.is_true(lost > 0)
    if process.SLOW == 1 then assert.is_true(tonumber(host.out) < 3.5, host.out) end
    has(host.err, "lines were lost: the host did not read")
  end)

  it("that lies about its sizes ends the process, and nothing else", function()
    for _, lie in ipairs { "1000", "4294967295" } do
      local lines, host = run([[
        local lie = tonumber((select(2, ...)))
        print(select(2, pcall(pool.run, pool, function() frame(20, "name", "text", "", lie) while true do end end)))
        print(pool:run(function() return "on" end))
      ]], lie)
      has(host.out, "WORKER_LOST", "\non\n")
      local said = {}
      for i, line in ipairs(lines) do said[i] = line.message end
      has(table.concat(said, "\n"), "says what cannot be understood")
    end
    local _, host = run [[
      print(select(2, pcall(pool.run, pool, function() frame(20, "name", ("x"):rep(20000), "") while true do end end)))
    ]]
    has(host.out, "WORKER_LOST")
  end)

  it("that is forged becomes whole lines, and no more than lines", function()
    local lines, host = run [[
      pool:run(function()
        local deep = ("\x81\xa1a"):rep(1000) .. "\xc0"
        for _, fields in ipairs { "\xc1", "\x93\1\2\3", "\xdf\xff\xff\xff\xff", deep, "\x81\xa1f\xc7\3\1\n\"}",
          "\x81\1\2", "\x81\xa1f\xc7\3\0011.5", "\x81\xa8password\xa1x", "\x81\xa1m\xcf" .. ("\xff"):rep(8) } do
          frame(0xffffffff, "na\nme ERROR", "te\nxt", fields)
        end
        frame(0, "", "", "")
      end)
    ]]
    assert.equal(10, #lines)
    for i = 1, 9 do
      assert.same({ "error", "gaterpc.executor", "te\nxt" }, { lines[i].level, lines[i].logger, lines[i].message })
    end
    assert.same({ ["..."] = true }, lines[1].fields)
    assert.same({ ["..."] = true }, lines[5].fields)
    assert.same({ f = 1.5 }, lines[7].fields)
    assert.same({ password = "***" }, lines[8].fields)
    assert.equal("debug", lines[10].level)
    for line in host.err:gmatch "[^\n]+" do has(line, "ERROR gaterpc.executor te\\nxt") end
  end)

  it("that is forged is as deep as any other, or not there", function()
    local lines = run [[
      pool:run(function()
        for depth = 1, 12 do
          frame(20, "deep", "text", "\x81\xa1f" .. ("\x91"):rep(depth) .. "\7")
          frame(20, "deep", "text", ("\x81\xa1f"):rep(depth) .. "\7")
        end
      end)
    ]]
    assert.equal(24, #lines)
    assert.same({ f = { { { { 7 } } } } }, lines[7].fields)
    assert.same({ ["..."] = true }, lines[9].fields)
    assert.same({ f = { f = { f = { f = { f = 7 } } } } }, lines[10].fields)
    for i = 11, 24 do assert.same({ ["..."] = true }, lines[i].fields) end
  end)
end)
