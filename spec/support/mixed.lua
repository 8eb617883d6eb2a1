---A broker engine with peers of any dialect around it, driven by hand.
---
---  local world = mixed.world { gate01_ms = 1000 }
---  local w = world:worker("gate01", "S")
---  local c = world:client "gate02"
---  c:request { method = "m", args = { 1 } }
---  w:hear "REQUEST"

local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"

local M = {}
local world, peer = {}, {}
local world_mt, peer_mt = { __index = world }, { __index = peer }

---@param options? table  fields of gr_broker_options
function M.world(options)
  local made = { instance = 4711 }
  for name, value in pairs(options or {}) do made[name] = value end
  return setmetatable({ broker = assert(engine.broker(made)), peers = {}, serial = 0 }, world_mt)
end

local prefixes = { gate01 = { front = "gc-", back = "gw-" } }

function world:peer(via, dialect, id)
  self.serial = self.serial + 1
  local digits = ("%032x"):format(self.serial)
  id = id or ((prefixes[dialect] or {})[via] or "") .. digits:sub(dialect == "gate02" and 17 or 1)
  local made = { world = self, via = via, dialect = dialect, id = id, box = {}, calls = 0, beats = 0 }
  setmetatable(made, peer_mt)
  self.peers[via .. " " .. id] = made
  return made
end

---From now on peers must say who they are, and somebody decides about what is inside messages: `users` are
---passwords by name.
function world:secure(users)
  self.broker:secure()
  self.users, self.asked = users, {}
end

---Answers the broker's questions.
function world:judge()
  local number, mechanism, user, password = self.broker:question()
  while number do
    table.insert(self.asked, user)
    local right = mechanism == "PLAIN" and self.users[user] == password and password ~= nil
    self.broker:answer(number, right and "yes" or "no")
    number, mechanism, user, password = self.broker:question()
  end
end

---A client of the dialect.
function world:client(dialect, id)
  return self:peer("front", dialect, id)
end

---A worker of the dialect that is registered; more are fields of its READY.
function world:worker(dialect, service, more, id)
  local made = self:peer("back", dialect, id)
  local ready = { type = "READY", service = service, credit = 8, deadline_ms = 3000, window = 3, sender = made.id }
  if dialect == "mdp" then ready.method = "m" end
  for name, value in pairs(more or {}) do ready[name] = value end
  made:say(ready)
  return made
end

---Gives every peer what the broker has for it.
function world:pump()
  engine.each_out(self.broker, function(via, id, ...)
    local to = self.peers[via .. " " .. id]
    if to and to.stalled then
      self.broker:stalled()
    elseif to then
      table.insert(to.box, { ... })
    end
  end)
end

function world:tick(ms)
  engine.pass(self.broker, ms)
end

function world:stats()
  return self.broker:stats()
end

function peer:leg(to_broker)
  local front = self.via == "front"
  if to_broker then return front and "client_to_broker" or "worker_to_broker" end
  return front and "broker_to_client" or "broker_to_worker"
end

function peer:send(...)
  local taken = self.world.broker:receive(self.via, self.id, ...)
  if self.world.users then self.world:judge() end
  return taken
end

function peer:say(envelope)
  local said = { sender = self.id, seed = 99 }
  for name, value in pairs(envelope) do said[name] = value end
  return self:send(assert(engine.build_as(self.dialect, self:leg(true), said)))
end

---Calls: method, args, kwargs, and other fields of the envelope. Gives the call's id.
function peer:request(call)
  self.calls = self.calls + 1
  local args = msgpack.pack(msgpack.array(call.args or {}))
  local kwargs = call.kwargs and msgpack.pack(msgpack.map(call.kwargs)) or ""
  local said = {
    type = "REQUEST", id = self.calls, service = call.service or "S", method = call.method or "m", credit = 1000,
    window = 1 << 20, payload = args .. kwargs, split = #args,
  }
  for _, name in ipairs { "credit", "window", "deadline_ms", "mechanism", "user", "password" } do
    if call[name] then said[name] = call[name] end
  end
  self:say(said)
  return self.calls
end

---Answers what was heard with REPLY, ITEM, CHUNK, END or ERROR; a value is packed, a piece is not.
function peer:answer(request, type, value, ...)
  local said = { type = type, route = request.route, tag = request.tag, caller = request.caller, in_stream = false }
  if type == "REPLY" then
    said.payload = engine.put_result(msgpack.pack(value))
  elseif type == "ITEM" then
    said.payload, said.count, said.split = msgpack.pack(value), 1, (...)
  elseif type == "CHUNK" then
    said.payload, said.count, said.split, said.method = value, 1, ...
  elseif type == "ERROR" then
    said.payload, said.status, said.in_stream = engine.put_exception(value, "message", "traceback"), 9, (...) or false
  else
    said.split = value
  end
  if self.dialect == "gh1" then said.tag, said.caller = nil, nil end
  self:say(said)
end

---What the peer was sent next, as an envelope; nil when there is nothing. Heartbeats only when asked for; they
---are counted in `beats`.
function peer:hear(type)
  self.world:pump()
  local frames = table.remove(self.box, 1)
  if not frames then
    if type then error(("%s hears nothing, not %s"):format(self.dialect, type), 2) end
    return nil
  end
  local heard, code, why = engine.parse_as(self.dialect, self:leg(false), nil, table.unpack(frames))
  if not heard then error(("%s cannot read what it was sent: %s %s"):format(self.dialect, code, why), 2) end
  heard.frames = frames
  if heard.type == "HEARTBEAT" then self.beats = self.beats + 1 end
  if heard.type == "HEARTBEAT" and type ~= "HEARTBEAT" then return self:hear(type) end
  if type and heard.type ~= type then error(("%s hears %s, not %s"):format(self.dialect, heard.type, type), 2) end
  return heard
end

---The value and the exception's texts of an answer.
function M.outcome(answer)
  local result, exception = engine.get_result(answer.payload)
  local value = result and #result > 0 and msgpack.unpack(result) or nil
  local texts = exception and #exception > 1 and msgpack.unpack(exception) or nil
  return value, texts
end

---The arguments and keywords of a request.
function M.params(request)
  local args = msgpack.unpack(request.payload:sub(1, request.split))
  local rest = request.payload:sub(request.split + 1)
  return args, #rest > 0 and msgpack.unpack(rest) or {}
end

return M
