---inside: what runs in an executor, a thread or process with a Lua state of its own. It takes one job after the
---other; a job may block, that is what an executor is for. src/host/inside.c calls it once.
---@module "gaterpc.inside"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local msgpack = require "gaterpc.msgpack"
local port = require "gaterpc.port"

local create, resume, status, close = coroutine.create, coroutine.resume, coroutine.status, coroutine.close
local pack, unpack = table.pack, table.unpack

port.stop_with(errors.new("CANCELLED", "the job was given up"))

-- What the present job serves: { service =, method =, id = } of a method, and its deadline.
local call, deadline_ms

-------------------------------------------------------------------------------------------------
-- gaterpc, as far as there is one in here
-------------------------------------------------------------------------------------------------

local task = {}

---Blocks this executor for so many seconds; the host goes on. Raises when the job is given up.
---@param seconds number
function task.sleep(seconds)
  if type(seconds) ~= "number" or seconds ~= seconds or seconds < 0 then
    error("a time is a number of seconds, 0 or more", 2)
  end
  local ok, code, text = port.sleep(math.ceil(math.min(seconds, 86400 * 365) * 1000))
  if not ok then error(errors.new(code, text), 2) end
end

local gaterpc = { error = errors, log = require "gaterpc.log", message_pack = msgpack, task = task }
for _, name in ipairs { "null", "map", "array", "is_map", "is_array", "kwargs", "is_kwargs", "bin", "str", "ext",
  "timestamp", "uint64" } do
  gaterpc[name] = msgpack[name]
end

---The call that the job works for, as gaterpc.call() has it in the host; nil when it serves none.
function gaterpc.call()
  if not call then return nil end
  return {
    service = call.service, method = call.method, id = call.id,
    deadline = deadline_ms > 0 and (deadline_ms - core.now_ms()) / 1000 or nil,
    cancelled = port.stopped() ~= nil,
  }
end

setmetatable(gaterpc, {
  __name = "gaterpc",
  __index = function(_, name)
    if name == "HugeData" then return require "gaterpc.huge" end
    error(("gaterpc.%s is not available in an executor"):format(tostring(name)), 2)
  end,
})
setmetatable(task, {
  __name = "gaterpc.task",
  __index = function(_, name)
    error(("gaterpc.task.%s is not available in an executor, where only sleep is"):format(tostring(name)), 2)
  end,
})

package.loaded["gaterpc"] = gaterpc
package.loaded["gaterpc.task"] = task

-- Modules of gaterpc that need the host's loop.
local here = {
  ["gaterpc.error"] = true, ["gaterpc.log"] = true, ["gaterpc.msgpack"] = true, ["gaterpc.options"] = true,
  ["gaterpc.huge_proxy"] = true, ["gaterpc.portable"] = true,
  ["gaterpc.pretty"] = true, ["gaterpc.source"] = true, ["gaterpc.sync_proxy"] = true,
}
table.insert(package.searchers, 2, function(name)
  if name:find("^gaterpc%.") and not here[name] then
    error(("module '%s' is not available in an executor"):format(name), 0)
  end
end)

local portable = require "gaterpc.portable"
local source = require "gaterpc.source"

local function answered(ok, ...)
  if not ok and port.stopped() then error(errors.new(...), 0) end
  return ok, ...
end

-- What is shared is in the host.
require "gaterpc.sync_proxy".setup(function(proxy, operation, ...)
  return answered(port.ask("shared", proxy.data, operation, ...))
end, {})

-- HugeData is loaded when it is needed, which is seldom. Nothing of it can be packed: the host keeps what is fed, and
-- what is returned goes ahead of the results.
local huge_mt = { __name = "gaterpc.HugeData" }
local feed_mt = { __name = "gaterpc.HugeDataFeed", __index = function(_, name)
  return require "gaterpc.huge".feed[name]
end }

package.preload["gaterpc.huge"] = function()
  return require "gaterpc.huge_proxy".setup(huge_mt, function(...) return answered(port.ask(...)) end)
end

local function new_feed(id) return setmetatable({ id = id, ended = false }, feed_mt) end
local function new_huge(id) return setmetatable({ data = new_feed(id) }, huge_mt) end
local function refuse() error("in an executor it can only be the first result, and have data", 0) end
msgpack.register_own_ext { type = -105, name = "HugeDataFeed", metatable = feed_mt, pack = refuse, unpack = new_feed }
msgpack.register_own_ext { type = -106, name = "HugeData", metatable = huge_mt, pack = refuse, unpack = new_huge }

-- What the functions of methods have for a self.
local stand_in_mt = {
  __name = "gaterpc.StandIn",
  __index = function(_, name)
    error(("self.%s is not available in an executor: the worker stays in the host, and only self.service comes"):format(
      tostring(name)), 2)
  end,
}

-------------------------------------------------------------------------------------------------
-- Jobs
-------------------------------------------------------------------------------------------------

local function damaged(code, text)
  error(errors.new(code, "a job that cannot be read: " .. text), 0)
end

local function read(bytes, position)
  local value, next_or_code, text = msgpack.unpack(bytes, position)
  if value == nil and text then damaged(next_or_code, text) end
  return value, next_or_code
end

-- Whether the source of a function yields, by the id of its code.
local yields_of = {}

-- What the present job runs, the id of its code, and whether somebody has said that it is a generator.
local job_fn, job_code, job_stream

local function is_generator()
  if job_stream ~= nil then return job_stream end
  if not job_code then return source.yields(job_fn) end
  if yields_of[job_code] == nil then yields_of[job_code] = source.yields(job_fn) end
  return yields_of[job_code]
end

-- Not in the job's coroutine: the host counts on it, even when the job is given up before it begins.
local function learn(code)
  if code == "" then return end
  local news = read(code, 1)
  if news.forget then yields_of = {} end
  portable.learn(news.codes, news.forget)
end

-- Runs in the job's own coroutine, so that all of its costs and faults are its own.
local function run(description)
  local described, behind = read(description, 1)
  local about = read(description, behind)
  local fn, id = portable.unpack(described)
  job_fn, job_code = fn, id
  if not about then return fn(port.arguments()) end
  call, job_stream = about.call, about.stream
  if not about.service then return fn(port.arguments()) end
  return fn(setmetatable({ service = about.service }, stand_in_mt), port.arguments())
end

-- False when the executor is not fit for more jobs.
local function fail(co, err)
  local refused, limit = port.refused()
  if refused and type(err) == "string" and err:find("not enough memory", 1, true) then
    port.fail(true, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED",
      ("the job needs more than the %d bytes of memory that a state may have"):format(limit), "")
    return false
  end
  local code, class, message = errors.describe(err)
  local trace = errors.whole_traceback(co, err, message)
  close(co) -- only now: a traceback needs the stack
  port.fail(false, port.stopped() or code, class, message, trace)
  return true
end

-- Runs the job to its end, and sends what it yields.
local function drive(co, ...)
  local results, streamed = pack(resume(co, ...)), false
  while results[1] and status(co) == "suspended" do
    streamed = true
    local sent, code, text = port.item(results[2])
    if not sent then
      if not port.stopped() then code, text = "INTERNAL", "an item cannot be sent: " .. text end
      return streamed, { false, errors.new(code, text) }
    end
    results = pack(resume(co))
  end
  return streamed, results
end

local function take(_, due_ms, description, code)
  learn(code)
  call, deadline_ms, job_stream = nil, due_ms, nil
  if due_ms > 0 and core.now_ms() >= due_ms then
    return port.fail(false, "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", "the deadline passed before the job began", "")
  end
  local co = create(run)
  local streamed, results = drive(co, description)
  if not results[1] then
    job_fn = nil -- it may hold much
    return fail(co, results[2])
  end
  local is_stream = streamed or (results[2] == nil and is_generator())
  job_fn = nil
  if not is_stream and getmetatable(results[2]) == huge_mt and results[2].packed then
    local handed, err = pcall(require "gaterpc.huge".hand_over, results[2])
    if not handed then return fail(co, err) end
    results[2] = nil
  end
  local sent, _, text = port.done(is_stream, unpack(results, 2, results.n))
  return sent or fail(co, errors.new("INTERNAL", "the result cannot be sent: " .. text))
end

-------------------------------------------------------------------------------------------------
-- The start
-------------------------------------------------------------------------------------------------

local function keep_program_alive()
  os.exit = function() -- luacheck: ignore 122
    error("os.exit would end the whole program, of which an executor thread is a part", 2)
  end
  local setlocale = os.setlocale
  os.setlocale = function(locale, ...) -- luacheck: ignore 122
    if locale ~= nil then error("os.setlocale would change the whole program, of which a thread is a part", 2) end
    return setlocale(locale, ...)
  end
end

-- A process has a log of its own, whose lines go to the host's.
local function set_levels(settings)
  core.log_level(settings.log_level)
  for name, level in pairs(settings.log_levels) do core.logger_level(name, level) end
end

local function init(settings)
  if settings.module then require(settings.module) end
  if settings.init then portable.unpack(read(settings.init, 1))() end
end

---@param packed string  settings of the executor: see pool.lua
return function(packed)
  local settings = assert(msgpack.unpack(packed))
  package.path, package.cpath = settings.path, settings.cpath
  if settings.kind == "thread" then keep_program_alive() else set_levels(settings) end
  learn(settings.code)
  local co = create(init)
  local ok, err = resume(co, settings)
  if not ok then return fail(co, err) end
  if status(co) ~= "dead" then return fail(co, "the init function of an executor cannot yield") end
  collectgarbage() -- what loading has left
  port.ready()
  local function go_on(id, ...)
    return id ~= nil and take(id, ...)
  end
  while go_on(port.next()) do end -- luacheck: ignore 542
end
