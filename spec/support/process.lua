---Real child processes for specs.
---
---  local process = require "support.process"
---  describe("...", function()
---    after_each(process.finish)    -- ends the children, and looks at what they have said
---    it("...", function()
---      local host = process.host [[print "hello"]]
---      host:wait_line "hello"
---      assert.equal(0, host:wait_exit())
---
---Waits are on conditions and have limits, which GATERPC_SLOW multiplies (sanitizers are slow).
local core = require "gaterpc.core"
local task = require "gaterpc.task"
local uv = require "luv"

local M = {}

M.SLOW = tonumber(os.getenv "GATERPC_SLOW" or 1)
M.LONG = os.getenv "GATERPC_LONG" == "1"

---A heartbeat that is short for a test of silence, in seconds, and long beside what a busy machine makes of it.
M.BEAT = 0.1 * math.min(M.SLOW, 3)

local LIMIT = 8 -- seconds for anything that should happen soon

-- What a sanitizer says when it has found something.
local REPORTS = { "ERROR: AddressSanitizer", "runtime error:", "WARNING: ThreadSanitizer", "LeakSanitizer" }

local HOST = uv.exepath()

---@class Process
---@field name string
---@field out string      all of its standard output so far
---@field err string      likewise
---@field pid integer
---@field code? integer   when it has ended
---@field signal? integer
local methods = {}
local mt = { __index = methods }

local children, clients = {}, {}
local dir, serial = nil, 0

-------------------------------------------------------------------------------------------------
-- Files and addresses
-------------------------------------------------------------------------------------------------

---The temporary folder of this test.
---@return string
function M.dir()
  if not dir then dir = assert(uv.fs_mkdtemp("/tmp/gaterpc-XXXXXX")) end
  return dir
end

---Writes a file into it.
---@param name string
---@param text string
---@return string path
function M.file(name, text)
  local path = M.dir() .. "/" .. name
  local file <close> = assert(io.open(path, "w"))
  assert(file:write(text))
  return path
end

---The text of a file.
---@param path string
---@return string
function M.read(path)
  local file <close> = assert(io.open(path))
  return file:read "a"
end

---A free ipc address.
---@param name string
function M.ipc(name)
  serial = serial + 1
  return ("ipc://%s/%s%d"):format(M.dir(), name, serial)
end

local function remove(path)
  local list = assert(uv.fs_scandir(path))
  for name, kind in uv.fs_scandir_next, list do
    if kind == "directory" then remove(path .. "/" .. name) else os.remove(path .. "/" .. name) end
  end
  uv.fs_rmdir(path)
end

-------------------------------------------------------------------------------------------------
-- Waiting
-------------------------------------------------------------------------------------------------

---Seconds, or the usual limit; longer where programs are slow.
function M.limit(seconds)
  return (seconds or LIMIT) * M.SLOW
end

---Waits until check() gives something true, and returns that.
---@param check fun(): any
---@param what string      for the message
---@param seconds? number
function M.eventually(check, what, seconds)
  local deadline = core.now() + M.limit(seconds)
  while true do
    local result = check()
    if result then return result end
    if core.now() > deadline then error("it never came: " .. what, 2) end
    task.sleep(0.005)
  end
end

-- Waits until check() gives something, looking whenever the process has said something or ended.
local function watch(self, check, what, seconds)
  local deadline = core.now() + M.limit(seconds)
  while true do
    local result = check()
    if result then return result end
    local left = deadline - core.now()
    if self.ended or left <= 0 then
      error(("%s: %s: %s\n--- its output\n%s--- its errors\n%s---"):format(
        self.name, self.ended and "it has ended without" or "never came", what,
        self.out:sub(-4000), self.err:sub(-4000)), 3)
    end
    pcall(self.changed.await, self.changed, left)
  end
end

local function has_changed(self)
  local changed = self.changed
  self.changed = task.promise()
  changed:resolve()
end

local function wait_for_line(self, stream, pattern, seconds)
  local found
  watch(self, function()
    local text, from = self[stream], self.read[stream]
    while true do
      local first, last = text:find("[^\n]*\n", from)
      if not first then return false end
      local line = text:sub(first, last - 1)
      from = last + 1
      if line:find(pattern) then
        self.read[stream] = from
        found = { line:match(pattern) }
        return true
      end
    end
  end, ("a line like %q in '%s'"):format(pattern, stream), seconds)
  return table.unpack(found)
end

-------------------------------------------------------------------------------------------------
-- Processes
-------------------------------------------------------------------------------------------------

local function environment(changes)
  local list = {}
  for name, value in pairs(uv.os_environ()) do
    if not name:find("^LUA_") and changes[name] == nil then list[#list + 1] = name .. "=" .. value end
  end
  for name, value in pairs(changes) do
    if value then list[#list + 1] = name .. "=" .. value end
  end
  return list
end

local function collect(self, stream, pipe)
  self.open = self.open + 1
  pipe:read_start(function(_, data)
    if data then
      self[stream] = self[stream] .. data
    else
      pipe:close()
      self.open = self.open - 1
    end
    self.ended = self.code ~= nil and self.open == 0
    has_changed(self)
  end)
end

---Runs a program.
---@param file string
---@param args string[]
---@param options? table  env: changes to the environment, false takes one out; name: for messages; cwd;
---stdin: text to be read; keep_stdin: more will follow
---@return Process
function M.run(file, args, options)
  options = options or {}
  local self = setmetatable({
    name = options.name or table.concat(args, " "):sub(1, 60), out = "", err = "", open = 0,
    read = { out = 1, err = 1 }, changed = task.promise(),
  }, mt)
  local stdin, stdout, stderr = uv.new_pipe(false), uv.new_pipe(false), uv.new_pipe(false)
  local handle, pid = uv.spawn(file, {
    args = args, stdio = { stdin, stdout, stderr }, env = environment(options.env or {}), cwd = options.cwd,
  }, function(code, signal)
    self.code, self.signal = code, signal
    self.handle:close()
    self.ended = self.open == 0
    has_changed(self)
  end)
  assert(handle, pid)
  self.handle, self.pid, self.stdin = handle, pid, stdin
  children[#children + 1] = self
  collect(self, "out", stdout)
  collect(self, "err", stderr)
  if options.stdin then stdin:write(options.stdin) end
  if not options.keep_stdin then self:close_stdin() end
  return self
end

---Runs gaterpc-host with a script: its text, or the name of its file when that ends in ".lua".
---@param script string
---@param options? { args?: string[], env?: table<string, string|false>, name?: string }
---@return Process
function M.host(script, options)
  options = options or {}
  local path = script
  if not script:find("%.lua$") then
    serial = serial + 1
    path = M.file(("%s%d.lua"):format(options.name or "script", serial), script)
  end
  return M.run(HOST, { path, table.unpack(options.args or {}) }, {
    env = options.env, name = options.name or path, keep_stdin = options.keep_stdin })
end

---Runs gaterpc-host with a command line of one's own.
---@param args string[]
---@param options? table
---@return Process
function M.command(args, options)
  return M.run(HOST, args, options)
end

---Waits for the next line of its output that matches; returns the captures, or the match.
---@param pattern string
---@param seconds? number
function methods:wait_line(pattern, seconds)
  return wait_for_line(self, "out", pattern, seconds)
end

---The same for its errors and its log.
function methods:wait_log(pattern, seconds)
  return wait_for_line(self, "err", pattern, seconds)
end

---Waits until it has ended and all of its output is here.
---@param seconds? number
---@return integer code
---@return integer signal
function methods:wait_exit(seconds)
  watch(self, function() return self.ended end, "its end", seconds)
  return self.code, self.signal
end

---@return boolean
function methods:is_running()
  return self.code == nil
end

---@param signal string  "sigterm" and so on
function methods:kill(signal)
  if self.code == nil then self.handle:kill(signal) end
end

---Stops it, and all of its threads have stopped when this returns: the signal alone may take its time.
function methods:pause()
  self:kill "sigstop"
  M.eventually(function()
    local running = 0
    for id in uv.fs_scandir_next, assert(uv.fs_scandir(("/proc/%d/task"):format(self.pid))) do -- to its end: luv leaks
      local file <close> = io.open(("/proc/%d/task/%s/stat"):format(self.pid, id))
      local text = file and file:read "a" -- nil of a thread that has ended meanwhile
      if text and not text:find(") T ", 1, true) then running = running + 1 end
    end
    return running == 0
  end, "its stop")
end

---Lets it go on after pause().
function methods:resume()
  self:kill "sigcont"
end

function methods:write(text)
  self.stdin:write(text)
end

function methods:close_stdin()
  if not self.stdin:is_closing() then self.stdin:close() end
end

---Lines of its log or its errors that match.
---@param pattern string
---@return integer
function methods:count_log(pattern)
  local count = 0
  for line in self.err:gmatch "[^\n]+" do
    if line:find(pattern) then count = count + 1 end
  end
  return count
end

local function read_proc(self, name)
  local file <close> = assert(io.open(("/proc/%d/%s"):format(self.pid, name)))
  return file:read("a")
end

---Bytes of memory that it has now.
---@return integer
function methods:rss()
  return tonumber(read_proc(self, "status"):match("VmRSS:%s*(%d+) kB")) * 1024
end

---From now on peak_rss() counts anew. For processes of processes, too.
---@param pid integer
function M.reset_peak(pid)
  local file <close> = assert(io.open(("/proc/%d/clear_refs"):format(pid), "w"))
  assert(file:write "5")
end

---Bytes of memory that a process has had at most.
---@param pid integer
---@return integer
function M.peak_rss(pid)
  return tonumber(read_proc({ pid = pid }, "status"):match("VmHWM:%s*(%d+) kB")) * 1024
end

---Seconds of processor time that it has used, in its own code and the system's.
---@return number
function methods:cpu()
  local user, system = read_proc(self, "stat"):match("%) %S %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ %S+ (%d+) (%d+)")
  return (tonumber(user) + tonumber(system)) / 100
end

-------------------------------------------------------------------------------------------------
-- The usual cast
-------------------------------------------------------------------------------------------------

-- Options in Lua's own words, for scripts.
local function literal(options)
  local parts = {}
  for name, value in pairs(options) do
    parts[#parts + 1] = name .. " = " .. (type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

---A broker in a process of its own.
---@param kind "ipc"|"tcp"
---@param options? table  gaterpc.MajordomoOptions; to start one anew its addresses
---@return Process
---@return string frontend
---@return string backend
function M.broker(kind, options)
  options = options or {}
  local own = { frontend = "tcp://127.0.0.1:*", backend = "tcp://127.0.0.1:*" }
  if kind == "ipc" then own = { frontend = M.ipc "front", backend = M.ipc "back" } end
  for name, value in pairs(options) do own[name] = value end
  local host = M.host(([[
    local broker = require "gaterpc".Majordomo %s
    broker:start()
    print(broker:addresses())
    broker:run()
  ]]):format(literal(own)), { name = "broker" })
  return host, host:wait_line "(%S+)\t(%S+)"
end

---A worker in a process of its own. The text makes the class `Class`; it is registered when this returns.
---@param service string
---@param text string
---@param backend string
---@param options? table  gaterpc.WorkerOptions
---@param more? table     options of M.host; no_wait: do not wait until it is registered
---@return Process
function M.worker(service, text, backend, options, more)
  local own = { broker = backend }
  for name, value in pairs(options or {}) do own[name] = value end
  more = more or {}
  more.name = more.name or service
  local host = M.host(([[
local gaterpc = require "gaterpc"
local task = gaterpc.task
local Class = gaterpc.Worker:extend "Class"
%s
gaterpc.Service { name = %q }:create_worker(Class, %s):run()
]]):format(text, service, literal(own)), more)
  if not more.no_wait then host:wait_log(service .. " is registered") end
  return host
end

---A script that calls: `client` is there, and `args` after it.
---@param text string
---@param frontend string
---@param options? table  gaterpc.ClientOptions
---@param more? table     options of M.host
---@return Process
function M.client(text, frontend, options, more)
  local own = { broker = frontend }
  for name, value in pairs(options or {}) do own[name] = value end
  more = more or {}
  more.name = more.name or "client"
  return M.host(([[
local gaterpc = require "gaterpc"
local task = gaterpc.task
local client = gaterpc.Client %s
%s
]]):format(literal(own), text), more)
end

-------------------------------------------------------------------------------------------------
-- Before and after
-------------------------------------------------------------------------------------------------

local function check_reports(list)
  for _, child in ipairs(list) do
    for _, report in ipairs(REPORTS) do
      if child.err:find(report, 1, true) then
        error(("a sanitizer complains about '%s':\n%s"):format(child.name, child.err), 0)
      end
    end
  end
end

---A client in this process, closed by finish().
---@param frontend string
---@param dialect? gaterpc.Dialect
---@param more? table  gaterpc.ClientOptions
---@return gaterpc.Client
function M.connect(frontend, dialect, more)
  local given = { broker = frontend, dialect = dialect, timeout = M.limit(10) }
  for name, value in pairs(more or {}) do given[name] = value end
  local client = require("gaterpc").Client(given)
  clients[#clients + 1] = client
  return client
end

---Closes all clients, ends all children, removes what the test has left behind, and fails when a sanitizer complained.
function M.finish()
  for i = #clients, 1, -1 do table.remove(clients, i):close() end
  local list = children
  children = {}
  for _, child in ipairs(list) do
    child:kill("sigkill")
    child:close_stdin()
  end
  for _, child in ipairs(list) do child:wait_exit() end
  if dir then remove(dir) end
  dir = nil
  check_reports(list)
end

return M
