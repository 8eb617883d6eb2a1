local json = require "support.json"
local process = require "support.process"
local pty = require "support.pty"
local spec = require "support.log"
local uv = require "luv"

local HOST = uv.exepath()

-- Numbers at the ends of lines that match.
local function numbers_in(text, pattern)
  local list = {}
  for line in text:gmatch "[^\n]+" do
    local number = line:match(pattern or "n=(%d+)$")
    if number then list[#list + 1] = tonumber(number) end
  end
  return list
end

local function assert_counts(list, from, to)
  assert.equal(to - from + 1, #list)
  for i, number in ipairs(list) do assert.equal(from + i - 1, number) end
end

-- Lines that a log says were dropped or lost.
local function said_missing(text)
  local sum = 0
  for count in text:gmatch "(%d+) lines were dropped: the queue was full" do sum = sum + tonumber(count) end
  for count in text:gmatch "(%d+) lines were lost: this output did not take them" do sum = sum + tonumber(count) end
  return sum
end

local function fifo(name)
  local path = process.dir() .. "/" .. name
  assert(os.execute("mkfifo " .. path))
  return path
end

-- A reader of a FIFO that does not read before it is told to.
local function open_reader(path)
  local fd = assert(uv.fs_open(path, uv.constants.O_RDONLY | uv.constants.O_NONBLOCK, 0))
  local self = { text = "" }
  function self.read()
    while true do
      local data = uv.fs_read(fd, 65536)
      if not data or data == "" then return self.text end
      self.text = self.text .. data
    end
  end
  function self.close() uv.fs_close(fd) end
  return self
end

describe("the log of a host", function()
  after_each(pty.finish)

  it("has everything that was logged before the end, in order, one line each", function()
    local host = process.host [[
      local log = require("gaterpc").log
      for i = 1, 1000 do log.info("line %d", i) end
      log.warning("two\nlines and a bell \a")
    ]]
    assert.equal(0, host:wait_exit())
    assert_counts(numbers_in(host.err, "INFO lua line (%d+)$"), 1, 1000)
    assert.truthy(host.err:find("two\\nlines and a bell \\x07\n", 1, true))
  end)

  for name, ending in pairs {
    ["at the end of a script"] = "", ["by os.exit"] = "os.exit(0)", ["by os.exit(true, true)"] = "os.exit(true, true)",
    ["by os.exit in a task"] = "gaterpc.task.spawn(function() gaterpc.task.sleep(0) os.exit(0) end)"
  } do
    it("is written out " .. name .. ", all 10000 lines", function()
      local path = process.dir() .. "/file"
      local host = process.host(([[
        local gaterpc = require "gaterpc"
        assert(gaterpc.log.setup { console = false, files = { { path = %q } }, queue = 20000, queue_bytes = 8 << 20 })
        for i = 1, 10000 do gaterpc.log.info("line", { n = i }) end
        %s]]):format(path, ending))
      assert.equal(0, host:wait_exit())
      assert_counts(numbers_in(spec.read_file(path)), 1, 10000)
    end)
  end

  it("is written out when a second signal ends a process that is busy", function()
    local host = process.host [[
      local log = require("gaterpc").log
      log.setup { queue = 20000, queue_bytes = 8 << 20 }
      for i = 1, 5000 do log.info("line", { n = i }) end
      print "go" io.stdout:flush()
      local core = require "gaterpc.core"
      while core.now() do end]]
    host:wait_line "go"
    host:kill "sigterm"
    process.eventually(function()
      host:kill "sigterm"
      return not host:is_running()
    end, "the end")
    assert.equal(143, host:wait_exit())
    assert_counts(numbers_in(host.err), 1, 5000)
  end)

  it("has the level that it was given", function()
    local host = process.host [[
      local log = require("gaterpc").log
      log.debug "too little"
      assert(log.level() == "info")
      log.level "error"
      log.warning "too little"
      log.error "enough"
      log.logger("gaterpc.guard"):level "off"
      require("gaterpc.core").log(40, "gaterpc.guard", "too much")
    ]]
    assert.equal(0, host:wait_exit())
    assert.falsy(host.err:find("too ", 1, true))
    assert.truthy(host.err:find("ERROR lua enough", 1, true))
  end)

  it("lets the levels of C code's loggers be set", function()
    local text = [[
      local gaterpc = require "gaterpc"
      gaterpc.log.setup { levels = { ["gaterpc.guard"] = %q } }
      gaterpc.Settings.setup { BUSY_LIMIT = 0.05, HEARTBEAT = 0.1 } -- the guard looks every 25 ms
      local core = require "gaterpc.core"
      local Busy = gaterpc.Worker:extend "Busy"
      function Busy.interface:spin()
        local deadline = core.now() + %g
        while core.now() < deadline do end
      end
      local broker = gaterpc.Majordomo {}:start()
      local worker = gaterpc.Service { name = "Busy" }:create_worker(Busy):start()
      worker:wait_ready()
      gaterpc.Client {}.Busy.spin()
      os.exit(0)]]
    local host = process.host(text:format("warning", process.limit(0.5)))
    assert.equal(0, host:wait_exit())
    assert.truthy(host.err:find("without yielding", 1, true))
    host = process.host(text:format("error", process.limit(0.5)))
    assert.equal(0, host:wait_exit())
    assert.falsy(host.err:find("without yielding", 1, true))
    assert.truthy(host.err:find("INFO gaterpc.worker", 1, true))
  end)

  it("is no blacker for more loggers than have places: further ones have their parents' level", function()
    local host = process.host [[
      local log = require("gaterpc").log
      log.logger("many"):level "warning"
      for i = 1, 600 do
        local each = log.logger("many.n" .. i)
        assert(each:level() == "warning")
        each:info "no"
        each:warning("line", { n = i })
      end
      local ok, err = pcall(function() log.logger("many.n600"):level "debug" end)
      assert(not ok and err:find "there are too many loggers", err)
      local done, why = log.setup { levels = { ["many.n600"] = "debug" } }
      assert(done == nil and why.code == "RESOURCE_EXHAUSTED")
    ]]
    assert.equal(0, host:wait_exit(), host.err)
    assert_counts(numbers_in(host.err), 1, 600)
    assert.truthy(host.err:find("WARNING many.n600 line n=600", 1, true))
  end)

  it("has colours on a terminal only", function()
    local script = process.file("colour.lua", [[require("gaterpc").log.error "red" ]])
    local red = "\27[31mERROR\27[0m lua red"
    local function output_of(command)
      local child = process.run("script", { "-qec", command .. " " .. script, "-E", "never", "/dev/null" }, {
        env = { TERM = "xterm", NO_COLOR = false } })
      assert.equal(0, child:wait_exit())
      return child.out
    end
    assert.truthy(output_of(HOST):find(red, 1, true))
    assert.is_nil(output_of("NO_COLOR=1 " .. HOST):find("\27", 1, true))
    assert.is_nil(output_of("TERM=dumb " .. HOST):find("\27", 1, true))
    local host = process.host(script)
    host:wait_exit()
    assert.truthy(host.err:find("ERROR lua red", 1, true))
  end)

  describe("never waits for a reader that does not read", function()
    it("of the console: lines are dropped, counted, and that is said", function()
      local path = fifo "pipe"
      local host = process.run("/bin/sh", { "-c", [[exec 2<>"$1"; exec "$0" "$2"]], HOST, path, process.file("s.lua", [[
        require("gaterpc.core").busy_limit(0) -- the guard's lines are not ours
        local log = require("gaterpc").log
        for i = 1, 100000 do log.info(("x"):rep(200), { n = i }) end
        print "not blocked" io.stdout:flush()
        io.read()
        log.setup { queue = 1000000 } -- so that nothing more is dropped
        assert(log.flush())
        print(log.stats().dropped)]]) }, { keep_stdin = true })
      host:wait_line "not blocked"
      local reader = process.run("/bin/cat", { path })
      process.eventually(function() return #reader.out > 0 end, "the first lines")
      host:write "go\n"
      local dropped = tonumber((host:wait_line "^(%d+)$"))
      assert.equal(0, host:wait_exit())
      reader:wait_exit()
      local numbers = numbers_in(reader.out)
      assert.is_true(dropped > 0)
      assert.equal(dropped, said_missing(reader.out))
      assert.equal(100000, #numbers + dropped)
      for i = 2, #numbers do assert.is_true(numbers[i] > numbers[i - 1]) end
    end)

    it("nor at the end, for long", function()
      local path = fifo "pipe"
      local host = process.run("/bin/sh", { "-c", [[exec 2<>"$1"; exec "$0" "$2"]], HOST, path, process.file("s.lua", [[
        local log = require("gaterpc").log
        for i = 1, 3000 do log.info(("x"):rep(200), { n = i }) end]]) })
      assert.equal(0, host:wait_exit())
    end)

    it("of one output: the others get all lines, and calls are answered", function()
      local pipe, good = fifo "pipe", process.dir() .. "/good"
      local reader = open_reader(pipe)
      local host = process.host(([[
        local gaterpc = require "gaterpc"
        local log, task = gaterpc.log, gaterpc.task
        assert(log.setup { console = false, files = { { path = %q }, { path = %q } }, queue = 2000 })
        local Talk = gaterpc.Worker:extend "Talk"
        local n = 0
        function Talk.interface:talk()
          for _ = 1, 100 do
            n = n + 1
            log.info("line", { n = n })
          end
          return n
        end
        local broker = gaterpc.Majordomo {}:start()
        local worker = gaterpc.Service { name = "Talk" }:create_worker(Talk):start()
        worker:wait_ready()
        local client = gaterpc.Client { timeout = 5 }
        for i = 1, 200 do
          assert(client.Talk.talk() == i * 100)
          while log.stats().waiting > 1500 do task.sleep(0.001) end
        end
        local stats = log.stats()
        print("answered", stats.dropped, stats.outputs[1].lost, stats.outputs[2].lost)
        io.stdout:flush()
        io.read()
        os.exit(0)]]):format(pipe, good), { keep_stdin = true })
      local dropped, lost, none = host:wait_line "^answered\t(%d+)\t(%d+)\t(%d+)$"
      process.eventually(function() return #numbers_in(spec.read_file(good)) == 20000 end, "all lines")
      assert.same({ 0, 0 }, { tonumber(dropped), tonumber(none) })
      assert.is_true(tonumber(lost) > 10000)
      reader.read() -- what fits into a pipe, and then what was kept for it
      host:write "go\n"
      process.eventually(function() return reader.read():find("n=20000\n", 1, true) end, "the last line")
      assert.equal(0, host:wait_exit())
      reader.read()
      local function lines_in(text) return select(2, text:gsub("\n", "")) end
      local missing, notices = said_missing(reader.text), select(2, reader.text:gsub("lines were lost: this", ""))
      assert.is_true(missing > 10000)
      assert.equal(lines_in(spec.read_file(good)), lines_in(reader.text) - notices + missing)
      reader.close()
    end)
  end)

  describe("opens its files anew", function()
    -- Takes the file away from a host that writes lines, and waits until it writes to a new one.
    local function rotate(host, path)
      process.eventually(function() return #spec.read_file(path) > 1000 end, "lines")
      assert(os.rename(path, path .. ".old"))
      host:kill "sighup"
      process.eventually(function()
        local file <close> = io.open(path)
        return file and #file:read "a" > 1000
      end, "lines in the new file")
    end

    local function check(old, new)
      local before, after = numbers_in(spec.read_file(old)), numbers_in(spec.read_file(new))
      assert.is_true(#before > 0)
      assert_counts(before, 1, #before)
      assert_counts(after, #before + 1, #before + #after)
      return #before + #after
    end

    it("after SIGHUP, and loses nothing", function()
      local path = process.dir() .. "/file"
      local host = process.host(([[
        local gaterpc = require "gaterpc"
        assert(gaterpc.log.setup { files = { { path = %q } } })
        local n = 0
        gaterpc.task.spawn(function()
          while true do
            n = n + 1
            gaterpc.log.info("line", { n = n })
            gaterpc.task.sleep(0.001)
          end
        end)
        io.stdout:setvbuf "no"
        print "go"
        gaterpc.task.sleep(1000)]]):format(path))
      host:wait_line "go"
      rotate(host, path)
      assert.is_true(host:is_running())
      host:kill "sigterm"
      host:wait_exit()
      local all = check(path .. ".old", path)
      assert_counts(numbers_in(host.err), 1, all) -- the console has them all
    end)

    it("after SIGHUP also while a script is busy", function()
      local path = process.dir() .. "/file"
      local host = process.host(([[
        local log = require "gaterpc".log
        local core = require "gaterpc.core"
        assert(log.setup { console = false, files = { { path = %q } } })
        print "go" io.stdout:flush()
        local n = 0
        while true do
          n = n + 1
          log.info("line", { n = n })
          local pause = core.now() + 0.0005
          while core.now() < pause do end
        end]]):format(path))
      host:wait_line "go"
      rotate(host, path)
      host:kill "sigkill"
      host:wait_exit()
      check(path .. ".old", path)
    end)

    it("when it is told to, and goes on with the old one when it cannot", function()
      local dir = process.dir() .. "/dir"
      local host = process.host(([[
        local log, uv = require "gaterpc".log, require "luv"
        local dir = %q
        uv.fs_mkdir(dir, 493)
        assert(log.setup { files = { { path = dir .. "/file" } } })
        log.info("line", { n = 1 })
        assert(log.flush())
        os.rename(dir, dir .. ".moved")
        log.reopen()
        log.info("line", { n = 2 })
        assert(log.flush())
        uv.fs_mkdir(dir, 493)
        log.reopen()
        log.info("line", { n = 3 })
        assert(log.flush())]]):format(dir))
      assert.equal(0, host:wait_exit(), host.err)
      assert.same({ 1, 2 }, numbers_in(spec.read_file(dir .. ".moved/file")))
      assert.same({ 3 }, numbers_in(spec.read_file(dir .. "/file")))
      assert.equal(1, host:count_log "/file cannot be opened anew: No such file or directory$")
    end)
  end)

  it("finds its files wherever the process goes", function()
    local host = process.run(HOST, { process.file("s.lua", [[
      local log = require "gaterpc".log
      assert(log.setup { files = { { path = "file", rotate_bytes = 1024 } } })
      assert(require "luv".chdir "/")
      for i = 1, 100 do log.info("line", { n = i }) end
      assert(log.flush())
      log.reopen()
      log.info("line", { n = 101 })]]) }, { cwd = process.dir() })
    assert.equal(0, host:wait_exit(), host.err)
    assert.truthy(spec.read_file(process.dir() .. "/file"):find "n=101\n$")
    assert.truthy(spec.read_file(process.dir() .. "/file.1"):find "n=%d+\n$")
  end)

  describe("outlives", function()
    it("a full disk, and says so once", function()
      local good = process.dir() .. "/good"
      local host = process.host(([[
        local log = require "gaterpc".log
        assert(log.setup { files = { { path = "/dev/full" }, { path = %q } } })
        for i = 1, 5000 do
          log.info("line", { n = i })
          if i %% 500 == 0 then log.flush() end
        end
        print(log.stats().outputs[2].error)]]):format(good))
      assert.equal(0, host:wait_exit(40), host.err)
      assert.equal("No space left on device\n", host.out)
      assert_counts(numbers_in(host.err), 1, 5000)
      assert_counts(numbers_in(spec.read_file(good)), 1, 5000)
      assert.equal(1, host:count_log "ERROR gaterpc.log /dev/full cannot be written: No space left on device$")
    end)

    it("a full disk that has space again, without losing a line", function()
      if not os.execute "unshare -rm true 2>/dev/null" then
        return pending "this system lets nobody have file systems of their own"
      end
      local dir = process.dir() .. "/small"
      assert(uv.fs_mkdir(dir, 493))
      local host = process.run("unshare", { "-rm", "/bin/sh", "-c",
        [[mount -t tmpfs -o size=64k none "$1" && exec "$0" "$2" "$1"]], HOST, dir, process.file("s.lua", [[
        local gaterpc = require "gaterpc"
        local log, task, path = gaterpc.log, gaterpc.task, arg[1] .. "/file"
        local ballast = assert(io.open(arg[1] .. "/ballast", "w"))
        ballast:write(("x"):rep(40000))
        ballast:close()
        assert(log.setup { files = { { path = path } } })
        local n = 0
        local function say(count)
          for _ = 1, count do
            n = n + 1
            log.info("line", { n = n })
          end
        end
        say(700) -- more than there is room for
        while not log.stats().outputs[2].error do task.sleep(0.01) end
        say(100)
        os.remove(arg[1] .. "/ballast")
        while log.stats().outputs[2].error do task.sleep(0.01) end
        log.flush()
        local file = io.open(path)
        local expected = 0
        for line in file:lines() do
          if not line:find " gaterpc.log " then
            expected = expected + 1
            assert(line:find("^%d+%-%d+%-%d+T%S+ INFO lua line n=" .. expected .. "$"), line)
          end
        end
        print(expected, log.stats().outputs[2].lost)]]) })
      assert.equal(0, host:wait_exit(), host.err)
      assert.equal("800\t0\n", host.out)
      assert.equal(1, host:count_log "ERROR gaterpc.log .*/file cannot be written: No space left on device$")
      assert.equal(1, host:count_log "WARNING gaterpc.log .*/file can be written again$")
    end)

    it("the reader of a pipe, and finds the next one", function()
      local pipe = fifo "pipe"
      local reader = open_reader(pipe)
      local host = process.host(([[
        local gaterpc = require "gaterpc"
        local log, task = gaterpc.log, gaterpc.task
        assert(log.setup { files = { { path = %q, format = "json" } } })
        io.stdout:setvbuf "no"
        log.info("line", { n = 1 })
        assert(log.flush())
        print "one" io.read()
        log.info("line", { n = 2 })
        while not log.stats().outputs[2].error do task.sleep(0.01) end
        print "broken" io.read()
        while log.stats().outputs[2].error do task.sleep(0.01) end
        log.info("line", { n = 3 })
        assert(log.flush())
        print "whole" io.read()]]):format(pipe), { keep_stdin = true })
      host:wait_line "one"
      assert.equal(1, json.read(reader.read():match "^(.*)\n$").fields.n)
      reader.close()
      host:write "\n"
      host:wait_line "broken"
      reader = open_reader(pipe)
      host:write "\n"
      host:wait_line "whole"
      host:write "\n"
      assert.equal(0, host:wait_exit())
      local numbers = {}
      for line in reader.read():gmatch "[^\n]+" do
        local read = json.read(line)
        if read.logger == "lua" then numbers[#numbers + 1] = read.fields.n end
      end
      reader.close()
      assert.same({ 2, 3 }, numbers)
      assert.equal(1, host:count_log "cannot be written: Broken pipe$")
    end)

    it("a console that is closed", function()
      local path = process.dir() .. "/file"
      local child = process.run("/bin/sh", { "-c", [[exec "$0" "$1" 2>&-]], HOST, process.file("s.lua", ([[
        local log = require "gaterpc".log
        assert(log.setup { files = { { path = %q } } })
        for i = 1, 100 do log.info("line", { n = i }) end]]):format(path)) })
      assert.equal(0, child:wait_exit())
      assert_counts(numbers_in(spec.read_file(path)), 1, 100)
    end)
  end)

  describe("under a load of many threads", function()
    after_each(spec.stop)

    it("rotates and loses no line that it has not counted [limit 30]", function()
      local log = spec.start()
      local path, threads, count = process.dir() .. "/file", 4, 10000
      assert(log.setup { console = false, queue = 3000,
        files = { { path = path, rotate_bytes = 65536, keep = 1000 } } })
      spec.threads(threads, count, 60)
      spec.flush()
      local dropped = log.stats().dropped
      local names, last, lines, said = { path }, {}, 0, 0
      while io.open(path .. "." .. #names) do table.insert(names, path .. "." .. #names) end
      assert.is_true(#names > 5)
      for i = #names, 1, -1 do
        local text = spec.read_file(names[i])
        assert.is_true(#text <= 65536)
        assert.equal("\n", text:sub(-1))
        said = said + said_missing(text)
        for line in text:gmatch "[^\n]+" do
          local thread, n = line:match "INFO spec%.thread thread (%d) x+ line=(%d+)$"
          assert.is_true(thread ~= nil or line:find(" gaterpc.log ", 1, true) ~= nil, line)
          if thread then
            assert.is_true(tonumber(n) > (last[thread] or 0))
            last[thread], lines = tonumber(n), lines + 1
          end
        end
      end
      assert.equal(dropped, said)
      assert.equal(threads * count, lines + dropped)
      assert.is_nil(io.open(path .. ".new"))
    end)
  end)

  describe("of a process that crashes", function()
    -- Whatever a sanitizer would do with the signal is not what this is about.
    local function plain(name)
      local own = os.getenv(name)
      return (own and own .. ":" or "")
        .. "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_sigill=0:handle_abort=0"
    end

    local function crashing(text)
      local file, pipe = process.dir() .. "/file", process.dir() .. "/json"
      local script = process.file("crash.lua", spec.CPATH .. ([[
        local gaterpc = require "gaterpc"
        local log = gaterpc.log
        assert(log.setup { queue = 10000, queue_bytes = 8 << 20, files = { { path = %q },
          { path = %q, format = "json", rotate_bytes = 20000 } } })
        io.stdout:setvbuf "no"
        for i = 1, 3000 do log.info("line", { n = i }) end
        ]]):format(file, pipe) .. text)
      return process.run("/bin/sh", { "-c", [[ulimit -c 0; exec "$0" "$1"]], HOST, script }, {
        env = { ASAN_OPTIONS = plain "ASAN_OPTIONS", TSAN_OPTIONS = plain "TSAN_OPTIONS" } }), file, pipe
    end

    local function check(host, file, name, number)
      local _, signal = host:wait_exit()
      assert.equal(number, signal, host.err:sub(-500))
      for _, text in ipairs { host.err, spec.read_file(file) } do
        assert_counts(numbers_in(text), 1, 3000)
        assert.truthy(text:find(("ERROR gaterpc killed by %s\n$"):format(name)), text:sub(-200))
      end
    end

    for _, where in ipairs { "here", "thread", "stack" } do
      it(("has its last lines and its own end, when it happens %s"):format(where == "here" and "in Lua's thread" or
        where == "thread" and "in another thread" or "because the stack is full"), function()
        local host, file, pipe = crashing(("require('logspec').crash %q"):format(where))
        check(host, file, "SIGSEGV", 11)
        local text = spec.read_file(pipe)
        assert.equal("killed by SIGSEGV", json.read(text:match "([^\n]*)\n$").message)
      end)
    end

    for name, number in pairs { SIGSEGV = 11, SIGBUS = 7, SIGFPE = 8, SIGILL = 4, SIGABRT = 6 } do
      it(("has its last lines, when it gets %s from outside"):format(name), function()
        local host, file = crashing "print 'go' while true do end"
        host:wait_line "go"
        host:kill(name:lower())
        check(host, file, name, number)
      end)
    end

    local unless_tsan = HOST:find "thread" and pending or it -- it has a thread of its own
    unless_tsan("sees the crash of any thread but libzmq's, and leaves other signals to the main one", function()
      local host = process.broker "ipc"
      local function blocks(status, signal)
        return tonumber(status:match "SigBlk:%s*(%x+)", 16) >> (signal - 1) & 1 == 1
      end
      local folder = ("/proc/%d/task"):format(host.pid)
      local function is_right(task)
        local status = spec.read_file(("%s/%s/status"):format(folder, task))
        if status:find "^Name:%s+ZMQ" then return true, 0 end
        for _, signal in ipairs { 4, 6, 7, 8, 11 } do
          if blocks(status, signal) then return false end
        end
        return blocks(status, 15) == (tonumber(task) ~= host.pid), 1
      end
      process.eventually(function() -- libzmq's threads get their names a moment after they have begun
        local ours, wrong = 0, 0
        for task in uv.fs_scandir_next, assert(uv.fs_scandir(folder)) do -- to its end, or luv leaks
          local right, one = is_right(task)
          if right then ours = ours + one else wrong = wrong + 1 end
        end
        return wrong == 0 and ours >= 4 -- main, guard, broker, writer
      end, "threads with the right signals")
    end)

    it("does not wait for a reader that does not read", function()
      local path = fifo "pipe"
      local reader = open_reader(path)
      local host, file = crashing(([[
        assert(log.flush())
        assert(log.setup { console = false, files = { { path = %q }, { path = %q } } })
        for i = 1, 3000 do log.info(("x"):rep(200), { n = 3000 + i }) end
        require("logspec").crash "here"]]):format(path, process.dir() .. "/file"))
      local _, signal = host:wait_exit()
      assert.equal(11, signal)
      local text = spec.read_file(file)
      assert_counts(numbers_in(text), 1, 6000)
      assert.truthy(text:find "killed by SIGSEGV\n$")
      assert.is_true(#reader.read() > 0)
      reader.close()
    end)

    it("is on the terminal, which is as it was, when there was a prompt", function()
      local terminal = pty.shell("ulimit -c 0; stty -a > $OUT.1; $HOST; echo code $?; stty -a > $OUT.2", {
        env = { OUT = process.dir() .. "/stty", ASAN_OPTIONS = plain "ASAN_OPTIONS",
          TSAN_OPTIONS = plain "TSAN_OPTIONS" } })
      terminal:wait_prompt()
      terminal:enter "'pid', (require 'luv'.os_getpid())"
      local pid = tonumber(terminal:wait_match '^"pid"%s+(%d+)')
      terminal:wait_prompt()
      terminal:type "half a line"
      terminal:wait_prompt "> half a line"
      uv.kill(pid, "sigsegv")
      terminal:wait_match "ERROR gaterpc killed by SIGSEGV$"
      terminal:wait_line "code 139"
      terminal:wait_exit()
      assert.equal(spec.read_file(process.dir() .. "/stty.1"), spec.read_file(process.dir() .. "/stty.2"))
    end)
  end)

  it("goes on after kill -9 of nobody but itself: what was written stays", function()
    local path = process.dir() .. "/file"
    local host = process.host(([[
      local log = require "gaterpc".log
      assert(log.setup { files = { { path = %q } } })
      for i = 1, 1000 do log.info("line", { n = i }) end
      assert(log.flush())
      print "go" io.stdout:flush()
      while true do log.info "more" end]]):format(path))
    host:wait_line "go"
    host:kill "sigkill"
    host:wait_exit()
    local list = spec.lines_of and numbers_in(spec.read_file(path))
    assert_counts(list, 1, 1000)
  end)
end)
