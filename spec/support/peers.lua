---The Python peers of spec/system/peers: clients, workers and brokers of the older dialects that share no code with
---ours and complain about whatever the original's programs do not survive.
---
---  local c = peers.client { dialect = "gate01", connect = front }
---  c:call("S", "echo", { 1 }).result
---  assert.same({}, c:faults())

local json = require "dkjson"
local process = require "support.process"

local M = {}
local peer = {}
local peer_mt = { __index = peer }

local FOLDER = "spec/system/peers/"

local function start(role, options)
  local args = { FOLDER .. role .. ".py" }
  for name, value in pairs(options) do
    args[#args + 1] = "--" .. name
    if value ~= true then args[#args + 1] = tostring(value) end
  end
  local run = process.run("/usr/bin/python3", args, { keep_stdin = true, name = role .. " " .. options.dialect })
  return setmetatable({ process = run, calls = 0 }, peer_mt)
end

---Everything that it has said, as tables.
function peer:said()
  local list = {}
  for line in self.process.out:gmatch "[^\n]+\n" do list[#list + 1] = assert(json.decode(line, 1, json.null)) end
  return list
end

function peer:faults()
  local faults = {}
  for _, line in ipairs(self:said()) do faults[#faults + 1] = line.fault end
  return faults
end

---Waits until it says something for which `is` is true, and gives that; fails at once when it complains.
---@param is fun(line: table): boolean
function peer:await(is, what, complains)
  local found
  process.eventually(function()
    for _, line in ipairs(self:said()) do
      if is(line) then found = line end
      if line.fault and not complains then error(line.fault, 0) end
    end
    return found or not self.process:is_running()
  end, what or "a line")
  local text = "it has ended, and never said %s\n%s\n%s"
  return found or error(text:format(what or "it", self.process.out, self.process.err), 2)
end

function peer:send(command)
  self.process:write(json.encode(command) .. "\n")
end

---Calls and waits for the outcome: { result =, status = }, { error = { class, message, traceback } },
---{ items = {}, ended =, error = }, { frames = {} } or { timeout = true }.
---@param more? table  further fields of the command
function peer:call(service, method, args, kwargs, more)
  self.calls = self.calls + 1
  local n = self.calls
  local command = { op = "call", n = n, service = service, ["function"] = method, unchecked = true,
    args = setmetatable(args or {}, { __jsontype = "array" }),
    kwargs = setmetatable(kwargs or {}, { __jsontype = "object" }) }
  for name, value in pairs(more or {}) do command[name] = value end
  self:send(command)
  self:await(function(line)
    return line.n == n and (line.result ~= nil or line.error or line["end"] or line.timeout or line.frames)
  end, "an answer")
  local outcome = { items = {} }
  for _, line in ipairs(self:said()) do
    if line.n == n and line.item ~= nil then
      table.insert(outcome.items, line.item)
    elseif line.n == n then
      outcome.ended = line["end"]
      for name, value in pairs(line) do outcome[name] = value end
    end
  end
  return outcome
end

function peer:stop()
  self:send { op = "quit" }
  return self.process:wait_exit()
end

---@param options table  dialect, connect, and others of client.py
function M.client(options)
  local made = start("client", options)
  made:await(function(line) return line.ready or line.refused end, "its services")
  return made
end

---@param options table  dialect, connect, service, and others of worker.py
function M.worker(options)
  local made = start("worker", options)
  made:await(function(line) return line.ready end, "its READY")
  return made
end

---@param options table  dialect, and others of broker.py; gives the fields frontend and backend
function M.broker(options)
  options.frontend = options.frontend or process.ipc "python-front"
  options.backend = options.backend or process.ipc "python-back"
  local made = start("broker", options)
  local line = made:await(function(said) return said.frontend end, "its addresses")
  made.frontend, made.backend = line.frontend, line.backend
  return made
end

return M
