-- What the benchmarks share: programs that print name=number, run in turn with ours, and the medians of the rounds.
local uv = require "luv"
local task = require "gaterpc.task"

local M = {}

local SILENCE = 120 -- seconds that a program may say nothing

---Runs a program; M.line() gives what it prints, line by line. `ended` is settled with its exit status.
function M.start(path, args)
  local out = uv.new_pipe()
  local self = { lines = {}, ended = task.promise(), changed = task.promise() }
  local rest = ""
  self.handle, self.pid = uv.spawn(path, { args = args, stdio = { nil, out, 2 } }, function(code)
    self.ended:resolve(code)
  end)
  assert(self.handle, self.pid)
  out:read_start(function(_, data)
    if not data then
      out:close()
      self.ended:await(10)
      return self.changed:resolve()
    end
    rest = rest .. data
    for line in rest:gmatch("([^\n]*)\n") do table.insert(self.lines, line) end
    rest = rest:match("[^\n]*$")
    local changed = self.changed
    self.changed = task.promise()
    changed:resolve()
  end)
  return self
end

---The next line that it prints. Raises when it ends without one, or is silent for two minutes.
function M.line(process)
  while #process.lines == 0 do
    if process.ended:is_settled() then error "a process of the benchmark has failed" end
    process.changed:await(SILENCE)
  end
  return table.remove(process.lines, 1)
end

---The numbers of a line of name=number.
function M.fields(text)
  local found = {}
  for name, value in text:gmatch("([%w_]+)=([%d.]+)") do found[name] = tonumber(value) end
  return found
end

---Runs a program to its end; the numbers of the line that it prints.
function M.run(path, args)
  local process = M.start(path, args)
  local text = M.line(process)
  if process.ended:await(30) ~= 0 then error "a process of the benchmark has failed" end
  return M.fields(text)
end

---Broker, worker and client of ours in a process each, over "ipc" or "tcp"; ... are arguments of client.lua. Gives
---what the client prints.
function M.three(dir, transport, ...)
  local host, base = uv.exepath(), os.tmpname()
  os.remove(base)
  local front = transport == "ipc" and "ipc://" .. base .. ".f" or "tcp://127.0.0.1:*"
  local back = transport == "ipc" and "ipc://" .. base .. ".b" or "tcp://127.0.0.1:*"
  local broker = M.start(host, { dir .. "/broker.lua", front, back })
  front, back = M.line(broker):match("(%S+)%s+(%S+)")
  local worker = M.start(host, { dir .. "/worker.lua", back })
  M.line(worker)
  local args = { dir .. "/client.lua", front, ... }
  table.insert(args, ("%d"):format(broker.pid))
  table.insert(args, ("%d"):format(worker.pid))
  local client = M.start(host, args)
  local text = M.line(client)
  client.ended:await(30)
  for _, process in ipairs { worker, broker } do
    process.handle:kill "sigkill"
    process.ended:await(10)
  end
  os.remove(base .. ".f")
  os.remove(base .. ".b")
  return M.fields(text)
end

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

---The median of one field.
function M.column(results, name)
  local values = {}
  for i, result in ipairs(results) do values[i] = result[name] or 0 end
  return median(values)
end

---The median of the ratios of one field, round by round.
function M.ratio(ours, theirs, name)
  local values = {}
  for i = 1, #ours do values[i] = ours[i][name] / theirs[i][name] end
  return median(values)
end

---Runs both in turn, so many times; gives the results of each.
function M.compare(rounds, run_theirs, run_own)
  local theirs, ours = {}, {}
  for i = 1, rounds do
    theirs[i] = run_theirs()
    ours[i] = run_own()
  end
  return theirs, ours
end

return M
