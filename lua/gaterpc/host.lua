---host: what gaterpc-host does with its command line. Called once, by src/host/main.c.
---@module "gaterpc.host"

local broker = require "gaterpc.broker"
local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local settings = require "gaterpc.settings"
local task = require "gaterpc.task"
local worker = require "gaterpc.worker"

local main_job
local interactive -- there is a prompt, or will be

local function report(co, err)
  io.stdout:flush()
  io.stderr:write("gaterpc-host: ", errors.traceback(co, errors.text(err)), "\n")
  core.exit(1)
end
task.on_fatal(report)

-- As Lua's own, but no line of the log is lost, and to close the state is left to the host.
local exit = os.exit
function os.exit(code, close) -- luacheck: ignore 122
  if close and task.current() and coroutine.isyieldable() then
    core.exit(code == false and 1 or math.tointeger(code) or 0)
    task.wait(function() end)
  end
  core.flush_log()
  exit(code)
end

local function run_chunk(chunk, err, ...)
  if not chunk then
    io.stderr:write("gaterpc-host: ", err, "\n")
    core.exit(1)
    return false
  end
  chunk(...)
  return true
end

local actions = {}

function actions.I(dir)
  package.path = dir .. "/?.lua;" .. dir .. "/?/init.lua;" .. package.path
end

function actions.l(module)
  local global, name = module:match("^([%a_][%w_]*)=(.+)$")
  _G[global or module:match("[^.]+$")] = require(name or module)
  return true
end

function actions.e(statement)
  return run_chunk(load(statement, "=(command line)", "t"))
end

local function load_settings(request)
  local environment = request.environment and require "luv".os_environ() or {}
  local loaded, err = settings.load(request.settings, environment)
  if loaded then return true end
  io.stderr:write("gaterpc-host: ", err, "\n")
  core.exit(1)
  return false
end

local function run_init(environment)
  if not environment then return true end
  for _, name in ipairs { "LUA_INIT_5_4", "LUA_INIT" } do
    local init = os.getenv(name)
    if init and init:sub(1, 1) == "@" then return run_chunk(loadfile(init:sub(2), "t")) end
    if init then return run_chunk(load(init, "=" .. name, "t")) end
  end
  return true
end

local function run_script()
  local chunk, err = loadfile(arg[0] ~= "-" and arg[0] or nil, "t")
  return run_chunk(chunk, err, table.unpack(arg))
end

local function serving()
  return next(worker.serving()) ~= nil or next(broker.serving()) ~= nil
end

-- The first SIGTERM or SIGINT drains what serves; a script that serves nobody is just ended. The
-- second one seldom comes here: main.c ends the process, if there was no prompt.
local draining
local function drain()
  draining = true
  for each in pairs(worker.serving()) do
    if each.service ~= "Gate" then each:drain() end
  end
  for each in pairs(broker.serving()) do each:stop() end
end

-- Whoever ends the prompt of a terminal wants to be back in the shell.
local function run_prompt()
  local repl = require "gaterpc.repl"
  local by_user = repl.run()
  interactive = false
  task.on_fatal(report)
  if not by_user or not core.isatty(0) then return end
  if serving() then return drain() end
  core.exit(0)
end

local function run_keygen(path)
  local curve = require "gaterpc.curve"
  local pair, err = curve.generate()
  local made
  if pair then made, err = curve.save(path, pair) end
  if made then
    return io.write(("%s: the public key, to be given away\n%s: with the secret key, to be kept\n"):format(path, made))
  end
  io.stderr:write("gaterpc-host: ", err.message, "\n")
  core.exit(1)
end

local function main(request)
  if request.keygen then return run_keygen(request.keygen) end
  if not load_settings(request) then return end
  if request.print_settings then return io.write(require "gaterpc.settings_show".lines()) end
  if not run_init(request.environment) then return end
  for _, action in ipairs(request.actions) do
    if actions[action.kind](action.text) == false then return end
  end
  if request.script and not run_script() then return end
  local bare = not request.script and #request.actions == 0 and not request.version
  if request.interactive then
    run_prompt()
  elseif bare then
    require("gaterpc.repl").run_pipe(io.stdin)
  end
end

local function on_main_end(job, ok, err)
  main_job = nil
  if not ok then report(job.co, err) end
end

task.on("start", function(request)
  interactive = request.interactive
  main_job = task.job(on_main_end)
  task.resume(main_job, main, request)
end)

-- Files of users, keys and access lists; main.c has the log's opened anew.
local function reload()
  require("gaterpc.zap_service").reload_all()
  for each in pairs(broker.serving()) do each:reload() end
end

local numbers = { sighup = 1, sigint = 2, sigterm = 15 }

task.on("signal", function(name)
  if name == "sighup" and not interactive then return reload() end -- at the prompt it means that nobody is there
  if interactive then
    local repl = require "gaterpc.repl"
    if name == "sigint" and repl.interrupt() then return end
    repl.close()
  end
  if serving() and not draining then return drain() end
  core.exit(128 + numbers[name])
end)

-- Nothing can happen any more, but the script has not come to its end.
task.on("idle", function()
  if main_job then
    report(main_job.co, "the script waits for something that can no longer come")
  end
end)
