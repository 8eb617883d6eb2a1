---The engines of the broker, the worker and the client, for specs that drive them by hand.
---
---  local bench = engine.bench { heartbeat_ms = 1000 }   -- a broker
---  local w, c = bench:worker("w", "Math"), bench:client "c"
---  c:say { type = "REQUEST", id = 1, service = "Math", method = "add" }
---  local request = w:hear "REQUEST"                     -- the next thing it was sent
---
---The module itself is spec/support/engine.c.

local msgpack = require "gaterpc.msgpack"
local luassert = require "luassert"

local engine = require "support.module" "engine"

local M = setmetatable({}, { __index = engine })

---An exception as an ERROR carries it: class, message, traceback; nothing when the payload has none.
function M.exception_of(payload)
  local result, exception = engine.get_result(payload)
  if not result or #exception < 2 then return end
  return table.unpack((assert(msgpack.unpack(exception))))
end

---The frames of a message as a table of its fields; an ERROR gets `code`, `class` and `text`.
function M.read(...)
  local envelope = assert(engine.parse(...))
  if envelope.type == "ERROR" then
    envelope.code = engine.code(envelope.status)
    envelope.class, envelope.text = M.exception_of(envelope.payload)
  end
  return envelope
end

---Makes it `ms`, and lets an engine tick whenever something was due until then. A tick alone, after a long
---time, is what a process sees that did not run.
function M.pass(it, ms)
  local last
  local due = it:next_due()
  while due and due <= ms and due ~= last do
    engine.at(due)
    it:tick()
    last, due = due, it:next_due()
  end
  engine.at(ms)
  it:tick()
end

---Checks what a worker or client makes of times in which it did not run.
---@param start fun(options: table, greeting: table): any  one that is up at 0 ms; greeting: fields of the broker's
function M.check_absences(start)
  local function beat_fast() return start({ heartbeat_ms = 100 }, { deadline_ms = 100, window = 2 }) end
  local it = beat_fast()
  engine.at(5000)
  it:tick()
  luassert.is_true(it:is_up())
  M.pass(it, 5199)
  luassert.is_true(it:is_up())
  M.pass(it, 5200)
  luassert.is_false(it:is_up())

  it = beat_fast()
  for i = 1, 4 do
    engine.at(i * 5000)
    it:tick()
    luassert.equal(i < 4, it:is_up())
  end
end

---Everything that an engine of a worker or client wants to send.
---@param read? fun(...: string): table  makes a table of a message's frames; default: M.read
function M.outs(it, read)
  read = read or M.read
  local outs = {}
  local function add(...)
    if ... == nil then return false end
    outs[#outs + 1] = read(...)
    return true
  end
  while add(it:next_out()) do end -- luacheck: ignore 542
  return outs
end

---Calls fn(via, id, frames...) for everything that a broker wants to send.
function M.each_out(broker, fn)
  local function take(via, id, ...)
    if not via then return false end
    fn(via, id, ...)
    return true
  end
  while take(broker:next_out()) do end -- luacheck: ignore 542
end

---All events that wait.
function M.events(it)
  local events = {}
  for event in it.next_event, it do events[#events + 1] = event end
  return events
end

---The types of a list of messages or events: "READY BYE".
function M.types(list)
  local types = {}
  for i, each in ipairs(list) do types[i] = each.type end
  return table.concat(types, " ")
end

-------------------------------------------------------------------------------------------------
-- A broker and peers made by hand
-------------------------------------------------------------------------------------------------

local bench, peer = {}, {}
local bench_mt, peer_mt = { __index = bench }, { __index = peer }

---@param options? table  fields of gr_broker_options
function M.bench(options)
  return setmetatable({ broker = assert(engine.broker(options)), boxes = {}, stalled = {} }, bench_mt)
end

---A peer at one of the broker's doors: "front", "back", "local_front", "local_back".
function bench:peer(via, id)
  local key = via .. " " .. id
  self.boxes[key] = self.boxes[key] or {}
  return setmetatable({ bench = self, via = via, id = id, key = key }, peer_mt)
end

---A client that calls without saying HELLO first.
function bench:client(id, via)
  return self:peer(via or "front", id)
end

---A worker that is registered; more are fields of its READY.
function bench:worker(id, service, more, via)
  local made = self:peer(via or "back", id)
  made:ready(service, more)
  made:hear "READY"
  return made
end

-- A worker of Gate is told who calls: three frames before the message.
local function read_out(via, ...)
  if via ~= "local_back" or select("#", ...) < 4 then return M.read(...) end
  local message = M.read(select(4, ...))
  message.client, message.address, message.user = ...
  return message
end

---Lets the broker send what it has to, into the boxes of the peers. Those in bench.stalled, by key, do not
---read.
function bench:pump()
  M.each_out(self.broker, function(via, id, ...)
    local key = via .. " " .. id
    if self.stalled[key] then
      self.broker:stalled()
    else
      local box = self.boxes[key] or {}
      self.boxes[key] = box
      box[#box + 1] = read_out(via, ...)
    end
  end)
end

---Makes it `ms` and lets the broker tick.
function bench:tick(ms)
  engine.at(ms)
  self.broker:tick()
end

---The same, and what was due until then was done in time.
function bench:pass(ms)
  M.pass(self.broker, ms)
end

function bench:stats()
  return self.broker:stats()
end

---Sends an envelope to the broker.
function peer:say(envelope)
  return self.bench.broker:receive(self.via, self.id, assert(engine.build(envelope)))
end

---Sends frames to the broker.
function peer:send(...)
  return self.bench.broker:receive(self.via, self.id, ...)
end

---Registers as a worker; more: fields of READY.
function peer:ready(service, more)
  local ready = { type = "READY", service = service, credit = 1, deadline_ms = 3000, window = 3 }
  for name, value in pairs(more or {}) do ready[name] = value end
  return self:say(ready)
end

---Calls; more: fields of REQUEST.
function peer:request(id, service, more)
  local request = { type = "REQUEST", id = id, service = service, method = "run", credit = 1, window = 1 }
  for name, value in pairs(more or {}) do request[name] = value end
  return self:say(request)
end

---What the peer was sent and has not looked at: a list, which is forgotten.
function peer:take()
  self.bench:pump()
  local box = self.bench.boxes[self.key]
  self.bench.boxes[self.key] = {}
  return box
end

---The next message that the peer was sent; nil when there is none. An error when it has another type.
function peer:hear(type)
  self.bench:pump()
  local message = table.remove(self.bench.boxes[self.key], 1)
  if type and (message or {}).type ~= type then
    error(("%s hears %s, not %s"):format(self.id, message and message.type or "nothing", type), 2)
  end
  return message
end

---The types of what the peer was sent and has not looked at.
function peer:types()
  return M.types(self:take())
end

return M
