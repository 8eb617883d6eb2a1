local process = require "support.process"
local pty = require "support.pty"
local uv = require "luv"

-- Fast heartbeats: a client that does not beat is dead after five of them.
local BEAT = { heartbeat = process.BEAT, liveness = 5 }

local METHODS = [[
local store = {}
function Class.interface:set(key, value)
  local old = store[key]
  store[key] = value
  return old
end
function Class.interface:count(maximum)
  for i = 0, maximum - 1 do coroutine.yield(i) end
end
function Class.interface:sleep(seconds)
  local _ <close> = setmetatable({}, { __close = function() store.sleep = "closed" end })
  task.sleep(seconds)
end
function Class.interface:fail()
  error("line one\nline two")
end
]]

local read_file = process.read

---A prompt that is ready.
local function prompt(args, options)
  local terminal = pty.host(args or {}, options)
  terminal:wait_prompt()
  return terminal
end

---A prompt with a client of SRkv, which is served by other processes.
local function prompt_with_client(options)
  local _, front, back = process.broker("ipc", options)
  process.worker("SRkv", METHODS, back, options)
  local terminal = prompt()
  terminal:enter(("client = gaterpc.Client { broker = %q, heartbeat = %g, liveness = %d }"):format(
    front, options and options.heartbeat or 3, options and options.liveness or 3))
  terminal:wait_prompt()
  return terminal, front
end

---Types a line and waits for the one line that it prints.
local function ask(terminal, line, answer)
  terminal:enter(line)
  terminal:wait_line(answer)
  terminal:wait_prompt()
end

describe("prompt #system", function()
  after_each(pty.finish)

  describe("values", function()
    it("shows expressions and keeps them in _ and _1, _2", function()
      local terminal = prompt()
      ask(terminal, "1 + 1", "2")
      ask(terminal, "_ * 21", "42")
      ask(terminal, "= 'a', nil, { 1, { b = true } }", '"a"     nil     { 1, { b = true } }')
      ask(terminal, "_1, _2, _3[1]", '"a"     nil     1')
      ask(terminal, "_3, _", '1       "a"')
      ask(terminal, "5", "5")
      ask(terminal, "_3", "nil")
    end)

    it("runs statements, and shows nothing for them", function()
      local terminal = prompt()
      terminal:enter "x = 7"
      terminal:wait_prompt()
      terminal:enter ""
      terminal:wait_prompt()
      terminal:enter "-- nothing"
      terminal:wait_prompt()
      ask(terminal, "for i = 1, 2 do x = x + i end print(x)", "10")
      assert.is_nil(terminal:text():find "nil")
    end)

    it("continues what is not complete", function()
      local terminal = prompt()
      terminal:enter "for i = 1, 2 do"
      terminal:wait_prompt ">> "
      terminal:enter "  print('i = ' .. i)"
      terminal:wait_prompt ">> "
      terminal:enter "end"
      terminal:wait_line "i = 2"
      terminal:wait_prompt()
      terminal:enter "1 +"
      terminal:wait_prompt ">> "
      ask(terminal, "2", "3")
      terminal:enter "function f("
      terminal:wait_prompt ">> "
      terminal:type "\3"
      terminal:wait_prompt() -- the function is forgotten
      ask(terminal, "f", "nil")
    end)

    it("edits with arrows, words and characters of several bytes", function()
      local terminal = prompt()
      terminal:type "'Gr\u{fc}\u{df}e'\27[D\27[D\27[D\127\127r\u{fc}"
      terminal:wait_prompt "> 'Gr\u{fc}\u{df}e'"
      terminal:enter ""
      terminal:wait_line '"Gr\u{fc}\u{df}e"'
      terminal:wait_prompt()
      -- Home, End, a function key that means nothing, Ctrl-Left twice, Delete
      terminal:type "aa + 2\27[H1\27[F\27[15~0\27[[A\27[1;5D\27[1;5D\27[3~"
      terminal:wait_prompt "> aa + 20"
    end)

    it("is not disturbed by keys that make no sense", function()
      local terminal = prompt()
      terminal:type(("\27"):rep(5000) .. "x" .. "\27[" .. ("1;"):rep(100))
      terminal:type "\21\xff\xc3\127\127\1\24\24\11"
      terminal:enter "21 * 2 --\22\27[A"
      terminal:wait_line "42"
      terminal:wait_prompt()
    end)

    it("honours _PROMPT and _PROMPT2", function()
      local terminal = prompt()
      terminal:enter "_PROMPT, _PROMPT2 = 'lua: ', '...  '"
      terminal:wait_prompt "lua: "
      terminal:enter "_PROMPT = setmetatable({}, { __tostring = function() return"
      terminal:wait_prompt "...  "
      terminal:enter "'\\1\\27[1m\\2table:\\1\\27[m\\2 ' end })"
      terminal:wait_prompt "table: "
    end)
  end)

  describe("errors", function()
    it("show one line, with the user's functions and nothing of ours", function()
      local terminal = prompt()
      ask(terminal, "error 'boom'", "stdin:1: boom")
      ask(terminal, "x x", "stdin:1: syntax error near 'x'")
      ask(terminal, "error({ code = 1 })", "error object { code = 1 }")
      ask(terminal, "error(setmetatable({}, { __tostring = function() return 'a\\27b' end }))", "a\\x1bb")
      ask(terminal, "coroutine.yield(1)",
        "INTERNAL: coroutine.yield outside of a streaming method: nobody takes the value")
      terminal:enter "function f(x) return x.y + 1 end"
      terminal:wait_prompt()
      terminal:enter "print(f({}))"
      terminal:wait_line "stdin:1: attempt to perform arithmetic on a nil value (field 'y')"
      terminal:wait_line "  stdin:1: in function 'f'"
      terminal:wait_prompt()
      assert.is_nil(terminal:text():find("gaterpc/", 1, true))
    end)

    it("of tasks are shown and end nothing", function()
      local terminal = prompt()
      terminal:enter "t = gaterpc.task.spawn(function() gaterpc.task.sleep(0.05) error 'late' end)"
      terminal:wait_line "a task has failed: stdin:1: late"
      terminal:wait_prompt()
      ask(terminal, "t:is_done()", "true")
    end)

    it("of remote methods show the remote traceback", function()
      local terminal = prompt_with_client()
      terminal:enter "client.SRkv.fail()"
      terminal:wait_match "^INTERNAL: .*line one\\nline two %[SRkv%.fail%]$"
      terminal:wait_line "  stack traceback:"
      terminal:wait_match "^  .*%.lua:%d+: in "
      terminal:wait_prompt()
      terminal:enter "client:try('SRkv', 'nothing')"
      terminal:wait_match "^nil     NOT_FOUND: "
      terminal:wait_prompt()
    end)
  end)

  describe("calls", function()
    it("wait for their answers and read streams", function()
      local terminal, front = prompt_with_client()
      ask(terminal, 'client.SRkv.set("a", { 1, 2 })', "nil")
      ask(terminal, 'client.SRkv.set("a", 3)', "{ 1, 2 }")
      terminal:enter "for i in client.SRkv.count(3) do print('item', i) end"
      for i = 0, 2 do terminal:wait_line("item    " .. i) end
      terminal:wait_prompt()
      terminal:enter "client.SRkv.count(3)"
      terminal:wait_match "^stream of SRkv%.count"
      terminal:wait_prompt()
      ask(terminal, "_:next(), _:next()", "0       1")
      ask(terminal, "client", "client of " .. front)
    end)

    it("are cancelled by Ctrl-C while heartbeats go on", function()
      local terminal, front = prompt_with_client(BEAT)
      terminal:enter(("other = gaterpc.Client { broker = %q, heartbeat = %g, liveness = %d }"):format(
        front, BEAT.heartbeat, BEAT.liveness))
      terminal:wait_prompt()
      ask(terminal, "other.SRkv.set('b', 1)", "nil")
      terminal:enter(("watch = gaterpc.task.spawn(function() for i = 1, 20 do gaterpc.task.sleep(%g)"):format(
        BEAT.heartbeat))
      terminal:enter "  steady = other:stats().up and client:stats().up end"
      terminal:enter "  print 'many beats have passed' end) client.SRkv.sleep(60)"
      terminal:wait_line "many beats have passed"
      terminal:type "\3"
      terminal:wait_line "interrupted!"
      terminal:wait_prompt()
      ask(terminal, "steady, client:stats().open, other:stats().up", "true    0       true")
      ask(terminal, "client.SRkv.set('sleep')", '"closed"') -- the method was told
      assert.is_nil(terminal:text():find "UNAVAILABLE")
    end)
  end)

  it("keeps its client alive while nothing, or half a line, is typed", function()
    local front = process.ipc "front"
    local broker = process.host(([[
      local gaterpc = require "gaterpc"
      local broker = gaterpc.Majordomo { frontend = %q, backend = %q, heartbeat = %g, liveness = %d }
      broker:start()
      print "ready"
      while broker:stats().peers == 0 do gaterpc.task.sleep(0.01) end
      local lowest = 1
      for _ = 1, 200 do
        gaterpc.task.sleep(%g)
        lowest = math.min(lowest, broker:stats().peers)
      end
      print("lowest", lowest)
    ]]):format(front, process.ipc "back", BEAT.heartbeat, BEAT.liveness, BEAT.heartbeat / 10))
    broker:wait_line "ready"
    local terminal = prompt()
    terminal:enter(("client = gaterpc.Client { broker = %q, heartbeat = %g, liveness = %d }"):format(
      front, BEAT.heartbeat, BEAT.liveness))
    terminal:wait_prompt()
    terminal:type "client:stats()"
    terminal:wait_prompt "> client:stats()"
    assert.equal("1", broker:wait_line "lowest\t(%d+)")
    ask(terminal, ".up", "true")
  end)

  describe("Ctrl-C", function()
    it("drops the line that is typed, however long it is", function()
      local terminal = prompt({}, { columns = 40 })
      terminal:type(("x"):rep(100) .. "\27[D\27[D")
      terminal:wait_line(("x"):rep(22))
      terminal.seen = 1 -- the same line again
      terminal:type "\3"
      terminal:wait_line(("x"):rep(22) .. "^C")
      terminal:wait_prompt()
      ask(terminal, "1", "1")
    end)

    it("at the prompt does not hit the line that comes after it", function()
      local terminal = prompt()
      terminal:type "\3"
      terminal:wait_line "> ^C"
      terminal:wait_prompt()
      ask(terminal, "(function() for _ = 1, 1e6 do end return 'done' end)()", '"done"')
    end)

    -- ThreadSanitizer gives signals only to code that calls the C library now and then.
    local unless_tsan = uv.exepath():find "thread" and pending or it

    unless_tsan("stops code that never waits", function()
      local terminal = prompt()
      terminal:enter "print 'go' while true do end"
      terminal:wait_line "go"
      terminal:type "\3"
      terminal:wait_line "interrupted!"
      terminal:wait_prompt()
      terminal:enter "print 'go' coroutine.wrap(function() while true do end end)()"
      terminal:wait_line "go"
      terminal:type "\3"
      terminal:wait_line "interrupted!"
      terminal:wait_prompt()
      ask(terminal, "1", "1")
    end)

    it("stops what waits for ever, and what catches the first one", function()
      local terminal = prompt()
      terminal:enter "print 'go' gaterpc.task.promise():await()"
      terminal:wait_line "go"
      terminal:type "\3"
      terminal:wait_line "interrupted!"
      terminal:wait_prompt()
      terminal:enter "print 'go' while true do print(pcall(gaterpc.task.sleep, 60)) end"
      terminal:wait_line "go"
      terminal:type "\3"
      terminal:wait_line "^Cfalse CANCELLED: interrupted!"
      terminal:type "\3"
      terminal:wait_line "interrupted!"
      terminal:wait_prompt()
    end)
  end)

  describe("output", function()
    it("of timers appears above the line that is typed", function()
      local terminal = prompt()
      terminal:enter "function when_there_is(path) while not io.open(path) do gaterpc.task.sleep(0.01) end end"
      terminal:wait_prompt()
      terminal:enter(("gaterpc.task.spawn(function() when_there_is %q"):format(process.dir() .. "/go"))
      terminal:wait_prompt ">> "
      terminal:enter "print 'from a timer' io.write('and', ' more') end)"
      terminal:wait_prompt()
      terminal:type "half"
      terminal:wait_prompt "> half"
      process.file("go", "")
      terminal:wait_line "from a timer"
      terminal:wait_line "and more"
      terminal:wait_prompt "> half"
      assert.is_nil(terminal:text():find("> half\n", 1, true)) -- the old one is gone
      terminal:type "\21" -- Ctrl-U
      ask(terminal, "1", "1")
    end)

    it("of timers and the log leaves a line of several rows alone", function()
      local terminal = prompt({}, { columns = 40 })
      terminal:enter "gaterpc.task.spawn(function()"
      terminal:wait_prompt ">> "
      terminal:enter(("while not io.open %q do"):format(process.dir() .. "/go"))
      terminal:wait_prompt ">> "
      terminal:enter "gaterpc.task.sleep(0.01) end"
      terminal:wait_prompt ">> "
      terminal:enter "gaterpc.log.error('logged') io.stderr:write('an error\\n') end) print 'started'"
      terminal:wait_line "started"
      terminal:wait_prompt()
      terminal:type(("%s..%s\27[D\27[D"):format(("a"):rep(50), ("b"):rep(50)))
      process.file("go", "")
      terminal:wait_match "ERROR lua$"
      terminal:wait_line "logged" -- on the next row
      terminal:wait_line("> " .. ("a"):rep(38))
      terminal:wait_line(("a"):rep(12) .. ".." .. ("b"):rep(26))
      terminal:wait_line(("b"):rep(24))
      local text = terminal:text()
      assert.truthy(text:find("\nan error\n", 1, true))
      local _, count = text:gsub("> aaa", "")
      assert.equal(1, count)
    end)

    it("without a newline is not overwritten by the prompt", function()
      local terminal = prompt()
      terminal:enter "do io.write 'abc' end"
      terminal:wait_line "abc"
      terminal:wait_prompt()
    end)
  end)

  it("leaves the terminal to the line that runs", function()
    local terminal = prompt()
    terminal:enter "io.write 'name? ' return io.read()"
    terminal:wait_prompt "name? "
    terminal:enter "you"
    terminal:wait_line '"you"'
    terminal:wait_prompt()
  end)

  it("runs lines that were typed ahead, one after the other", function()
    local terminal = prompt()
    terminal:type "gaterpc.task.sleep(0.1)\rx = 1\rx + 1\rprint('x', x)\r"
    terminal:wait_line "2"
    terminal:wait_line "x       1"
    terminal:wait_prompt()
  end)

  describe("the end", function()
    it("comes with Ctrl-D on an empty line, with code 0", function()
      local terminal = prompt()
      terminal:type "ab\1\4" -- Ctrl-D deletes a
      terminal:wait_prompt "> b"
      terminal:type "\21\4"
      assert.equal(0, terminal:wait_exit())
    end)

    it("drains what serves", function()
      local terminal = prompt()
      terminal:enter(("broker = gaterpc.Majordomo { frontend = %q, backend = %q } broker:start()"):format(
        process.ipc "front", process.ipc "back"))
      terminal:wait_prompt()
      terminal:type "\4"
      assert.equal(0, terminal:wait_exit())
    end)

    -- The line runs for ever, so it is the signal that tells.
    for _, line in ipairs { "1", "gaterpc.task.promise():await()" } do
      it("comes when the terminal goes away during " .. line, function()
        local terminal = pty.shell "echo $$; exec $HOST"
        local pid = terminal:wait_match "^(%d+)$"
        terminal:wait_prompt()
        terminal:enter("print 'go' return " .. line)
        terminal:wait_line "go"
        terminal.process:kill "sigkill"
        process.eventually(function()
          local file <close> = io.open(("/proc/%s/stat"):format(pid))
          return not file or file:read "a":find("%) Z ")
        end, "the host's end")
      end)
    end

    for _, case in ipairs {
      { "SIGTERM", 143, "" },
      { "SIGTERM while it serves", 0, "broker = gaterpc.Majordomo {} broker:start() " },
      { "SIGTERM while a line runs", 143, "gaterpc.task.sleep(60)", "" },
    } do
      it("restores the terminal after " .. case[1], function()
        local terminal = pty.shell("stty -a > $OUT.1; $HOST; echo code $?; stty -a > $OUT.2", {
          env = { OUT = process.dir() .. "/stty" } })
        terminal:wait_prompt()
        terminal:enter "'pid', (require 'luv'.os_getpid())"
        local pid = tonumber(terminal:wait_match '^"pid"%s+(%d+)')
        terminal:wait_prompt()
        terminal:enter("print 'go' " .. case[3])
        terminal:wait_line "go"
        terminal:wait_prompt(case[4])
        uv.kill(pid, "sigterm")
        terminal:wait_line("code " .. case[2])
        terminal:wait_exit()
        assert.equal(read_file(process.dir() .. "/stty.1"), read_file(process.dir() .. "/stty.2"))
      end)
    end

    it("restores the terminal after os.exit() from a timer", function()
      local terminal = pty.shell("stty -a > $OUT.1; $HOST; echo code $?; stty -a > $OUT.2", {
        env = { OUT = process.dir() .. "/stty" } })
      terminal:wait_prompt()
      terminal:enter "gaterpc.task.spawn(function() gaterpc.task.sleep(0.1) gaterpc.log.info 'bye' os.exit(3) end)"
      terminal:wait_match "INFO lua bye$"
      terminal:wait_line "code 3"
      terminal:wait_exit()
      assert.equal(read_file(process.dir() .. "/stty.1"), read_file(process.dir() .. "/stty.2"))
    end)
  end)

  describe("the history", function()
    it("survives a restart, in a file of the user's own", function()
      local env = { GATERPC_HISTORY = false, XDG_STATE_HOME = process.dir() .. "/state" }
      local first = prompt({}, { env = env })
      ask(first, "'one'", '"one"')
      ask(first, "'two'", '"two"')
      ask(first, "'two'", '"two"')
      first:type "\4"
      assert.equal(0, first:wait_exit())
      local path = process.dir() .. "/state/gaterpc/history"
      assert.equal("'one'\n'two'\n", read_file(path))
      assert.equal(tonumber("600", 8), uv.fs_stat(path).mode & tonumber("777", 8))

      local second = prompt({}, { env = env })
      second:type "\27[A\27[A"
      second:wait_prompt "> 'one'"
      second:type "\27[B"
      second:wait_prompt "> 'two'"
      second:type "\21on\18" -- Ctrl-R
      second:wait_prompt "> 'one'"
      second:enter ""
      second:wait_line '"one"'
    end)

    it("is where HOME is without XDG_STATE_HOME", function()
      local terminal = prompt({}, {
        env = { GATERPC_HISTORY = false, XDG_STATE_HOME = false, HOME = process.dir() } })
      ask(terminal, "1", "1")
      assert.equal("1\n", read_file(process.dir() .. "/.local/state/gaterpc/history"))
    end)

    it("keeps 1000 lines", function()
      local lines = {}
      for i = 1, 1500 do lines[i] = ("x = %d\n"):format(i) end
      local path = process.file("history", table.concat(lines))
      local terminal = prompt({}, { env = { GATERPC_HISTORY = path } })
      ask(terminal, "1", "1")
      terminal:type "\4"
      terminal:wait_exit()
      local text = read_file(path)
      local _, count = text:gsub("\n", "")
      assert.equal(1000, count)
      assert.equal("x = 502\n", text:match "^[^\n]*\n")
      assert.equal("x = 1500\n1\n", text:sub(-11))
    end)

    it("that cannot be kept is no reason to stop", function()
      local terminal = prompt({}, { env = { GATERPC_HISTORY = "/proc/none/history" } })
      ask(terminal, "1", "1")
      terminal:wait_prompt()
      process.eventually(function() return terminal:text():find "the history is not kept" end, "a word of it")
    end)
  end)

  describe("-i", function()
    it("keeps the globals of the script before it, and arg", function()
      local script = process.file("script.lua", "greeting = 'hello ' .. ... local function no() end")
      local terminal = prompt { "-i", script, "world" }
      ask(terminal, "greeting, arg[1], no", '"hello world"   "world" nil')
    end)

    it("keeps the tasks of the script running", function()
      local script = process.file("script.lua", [[
        ticks = 0
        require "gaterpc".task.spawn(function()
          while true do
            require "gaterpc".task.sleep(0.01)
            ticks = ticks + 1
          end
        end)]])
      local terminal = prompt { "-i", script }
      ask(terminal, "while ticks < 20 do gaterpc.task.sleep(0.01) end return 'twenty'", '"twenty"')
    end)

    it("does not come to the prompt when the script fails", function()
      local terminal = pty.host { "-i", process.file("script.lua", "error 'no'") }
      assert.equal(1, terminal:wait_exit())
      assert.truthy(terminal:text():find "script.lua:1: no")
    end)

    it("lets Ctrl-C end the script before it", function()
      local script = process.file("script.lua", "print 'go' require 'gaterpc'.task.sleep(60)")
      local terminal = pty.host { "-i", script }
      terminal:wait_line "go"
      terminal:type "\3"
      assert.equal(130, terminal:wait_exit())
    end)

    it("reads lines from a pipe without prompts, and waits for it", function()
      local host = process.command({ "-i" }, { keep_stdin = true })
      host:write "1 + 1\nfor i = 1, 2 do\nprint('i', i)\nend\nerror 'boom'\n"
      host:wait_line "^2$"
      host:wait_line "^i\t2$"
      host:wait_log "^stdin:1: boom$"
      host:write "gaterpc.task.sleep(0.05) return 'slept'"
      host:write "\n{ 1 }"
      host:wait_line '^"slept"$'
      host:close_stdin()
      host:wait_line "^{ 1 }$"
      assert.equal(0, host:wait_exit())
      assert.equal('2\ni\t1\ni\t2\n"slept"\n{ 1 }\n', host.out)
    end)

    it("reads lines from a file", function()
      local path = process.file("lines", "x = 20\nx + 1\nif x then")
      local host = process.run("sh", { "-c", '"$0" -i < "$1"', uv.exepath(), path })
      assert.equal(0, host:wait_exit())
      assert.equal("21\n", host.out)
      assert.equal("stdin:1: 'end' expected near <eof>\n", host.err)
    end)
  end)

  describe("a pipe without a script", function()
    it("is one script", function()
      local host = process.command({}, {
        stdin = "#!/usr/bin/env gaterpc-host\nlocal x = 1\nprint(x)\nreturn x + 1" })
      assert.equal(0, host:wait_exit())
      assert.equal("1\n", host.out)
    end)

    it("ends with its error", function()
      local host = process.command({}, { stdin = "print(1)\nerror 'boom'\nprint(2)" })
      assert.equal(1, host:wait_exit())
      assert.equal("1\n", host.out)
      assert.truthy(host.err:find "stdin:2: boom")
    end)
  end)
end)
