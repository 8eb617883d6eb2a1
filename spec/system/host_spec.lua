-- The command line, as lua(1) has it.
local process = require "support.process"

local function output_of(args, options)
  local host = process.command(args, options)
  assert.equal(0, host:wait_exit(), host.err)
  return host.out
end

describe("gaterpc-host", function()
  after_each(process.finish)

  it("runs statements with -e, in order, and modules with -l", function()
    process.file("mod.lua", "return { name = 'mod' }")
    assert.equal("mod\t3\tmod\n", output_of { "-I", process.dir(), "-l", "mod", "-e", "x = 1", "-ey=2", "-l", "m=mod",
      "-e", "print(mod.name, x + y, m.name)" })
  end)

  it("gives the script its arguments, in arg and as ...", function()
    local path = process.file("args.lua", [[
      print(#arg, arg[1], arg[2], select("#", ...), (...), arg[-1], arg[-2] ~= nil, arg[0])]])
    assert.equal("2\ta b\t-x\t2\ta b\t-W\ttrue\t" .. path .. "\n", output_of { "-W", path, "a b", "-x" })
  end)

  it("skips a first line that starts with #", function()
    local path = process.file("shebang.lua", "#!/usr/bin/env gaterpc-host\nprint 'ran'")
    assert.equal("ran\n", output_of { path })
  end)

  it("runs standard input for - and when it is no terminal", function()
    assert.equal("in\tx\n", output_of({ "-", "x" }, { stdin = "print('in', ...)" }))
    assert.equal("piped\n", output_of({}, { stdin = "print 'piped'" }))
  end)

  it("says what is wrong with a script from standard input", function()
    local host = process.command({ "-" }, { stdin = "x x" })
    assert.equal(1, host:wait_exit())
    assert.equal("gaterpc-host: stdin:1: syntax error near 'x'\n", host.err)
  end)

  it("ends its options at --", function()
    local path = process.file("-odd.lua", "print 'odd'")
    assert.equal("odd\n", output_of({ "--", "-odd.lua" }, { cwd = path:match "^(.*)/" }))
  end)

  it("shows its version with -v", function()
    assert.truthy(output_of({ "-v" }):find "^gaterpc%-host %d+%.%d+%.%d+ .*Lua 5%.4")
  end)

  it("heeds LUA_PATH and LUA_INIT, and with -E does not", function()
    process.file("found.lua", "return 'found'")
    local env = { LUA_PATH = process.dir() .. "/?.lua;;", LUA_INIT = "init = 'init'" }
    local ask = "print(pcall(require, 'found') and 'found', init)"
    assert.equal("found\tinit\n", output_of({ "-e", ask }, { env = env }))
    assert.equal("false\tnil\n", output_of({ "-E", "-e", ask }, { env = env }))
  end)

  it("turns warnings on with -W", function()
    local host = process.command { "-W", "-e", "warn 'careful'" }
    assert.equal(0, host:wait_exit())
    assert.truthy(host.err:find("careful", 1, true))
  end)

  it("does not look for modules beside the script unless told to with -I", function()
    local path = process.file("main.lua", "print(pcall(require, 'beside') and 'found')")
    process.file("beside.lua", "return true")
    assert.equal("false\n", output_of { path })
    assert.equal("found\n", output_of { "-I", process.dir(), path })
  end)

  it("runs the script in a coroutine, so that it may wait", function()
    assert.equal("true\tslept\n", output_of { "-e", [[
      require("gaterpc").task.sleep(0.01) print(coroutine.isyieldable(), "slept")]] })
  end)

  it("stays while a task or a handle of luv has something to come", function()
    -- Each is the last to come in one of the programs.
    assert.equal("main\ntask\n", output_of { "-e", [[
      require("gaterpc").task.spawn(function()
        require("gaterpc").task.sleep(0.02)
        print "task"
      end)
      print "main"]] })
    assert.equal("main\nluv\n", output_of { "-e", [[
      require("luv").new_timer():start(20, 0, function() print "luv" end)
      print "main"]] })
  end)

  it("ends when nothing can come any more, whatever clients are open", function()
    local _, front = process.broker "ipc"
    assert.equal("done\n", output_of { "-e", ([[
      client = require("gaterpc").Client { broker = %q }
      client.Gate.get_services()
      print "done"]]):format(front) })
  end)

  it("gives os.exit's code, and what was printed is not lost", function()
    local host = process.host [[io.write "no newline" os.exit(7)]]
    assert.equal(7, host:wait_exit())
    assert.equal("no newline", host.out)
    host = process.host [[io.write "closed" os.exit(true, true)]]
    assert.equal(0, host:wait_exit())
    assert.equal("closed", host.out)
  end)

  it("runs callbacks of luv as tasks, which may wait", function()
    assert.equal("waited\n", output_of { "-e", [[
      local gaterpc = require "gaterpc"
      local timer = require("luv").new_timer()
      timer:start(1, 0, function()
        gaterpc.task.sleep(0.001)
        print "waited"
        timer:close()
      end)]] })
  end)
end)
