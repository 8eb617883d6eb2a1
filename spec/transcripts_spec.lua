-- The broker in the place of the original's: the recorded clients and workers say what they said, and our broker
-- must say to each of them what theirs did.
--
-- Two things differ always, and are mapped here: towards workers our broker names a call by an id of its own
-- (nobody else can forge it), and an error that the broker reports itself has no Python traceback.

local engine = require "support.engine"
local msgpack = require "gaterpc.msgpack"
local vectors = require "support.vectors"

---Where our broker says something else, and why; docs/protocol.md, "Deviations", explains each. A number is a
---fault of the original, as docs/protocol.md counts them.
local deviations = {
  ["0.1.10-call-kwargs"] = 2, -- a lone map is keyword arguments
  ["0.1.10-busy"] = "queue", ["0.1.10-concurrent-5"] = "queue", ["0.2.12-busy-timeout"] = "queue",
  ["0.1.10-busy-after-stream"] = 10, ["0.2.12-busy-after-stream"] = 10,
  ["0.1.10-worker-expired"] = 9, ["0.1.10-worker-silent-request"] = 9,
  ["0.2.12-worker-disconnect"] = 19,
  ["0.2.12-worker-silent"] = "patience",
  ["0.2.12-gate-unknown-function"] = 20,
  ["0.2.12-gate-info"] = "our own id",
  ["0.1.10-late-reply"] = "recorder", ["0.2.12-late-reply"] = "recorder", -- a broker made by hand
}

-- Internal handlers in Lua are not the engine's business; bulk and the ZAP service have specs of their own.
local elsewhere = { "gate%-custom", "gate%-quiet", "huge", "biglist", "zap", "malformed", "robustness", "simpleclient",
  "worker%-offline", "worker%-broker", "broker%-cancelled", "worker%-stop" }

local function is_elsewhere(name)
  for _, pattern in ipairs(elsewhere) do
    if name:find(pattern) then return true end
  end
end

-- An error of the broker itself, without its traceback.
local function without_traceback(frame)
  local result, exception = engine.get_result(frame)
  if not result or #exception < 2 then return frame end
  local texts = msgpack.unpack(exception)
  if not texts or not tostring(texts[1]):find "ServiceUnAvailable" and not tostring(texts[1]):find "Bus?yW?" then
    return frame
  end
  return engine.put_exception(texts[1], texts[2], "")
end

---Plays a recording to a broker of ours. Gives what each peer was told by theirs, and by ours.
local function play(dialect, name)
  local broker = assert(engine.broker { instance = 12345 })
  local ours, theirs, names, known = {}, {}, {}, {}

  local function note(list, peer, frames)
    list[peer] = list[peer] or {}
    local copy = table.move(frames, 1, #frames, 1, {})
    copy[#copy] = without_traceback(copy[#copy])
    table.insert(list[peer], table.concat(copy, " | "))
  end

  local function pump()
    engine.each_out(broker, function(via, peer, ...)
      local frames = { ... }
      if via == "back" and frames[3] == "\4" then return end -- heartbeats have their own time
      if via == "back" and frames[3] == "\2" and #names > 0 then
        local recorded = names[#names] -- the request that was just made
        names[recorded] = { caller = frames[4], tag = frames[6] }
        frames[4], frames[6] = recorded.caller, recorded.tag
      end
      note(ours, peer, frames)
    end)
  end

  local function receive(message)
    local frames = message.frames
    local envelope = vectors.parse(dialect, message)
    local via = message.leg == "client_to_broker" and "front" or "back"
    if envelope and message.leg == "client_to_broker" then
      names[#names + 1] = { tag = envelope.tag, caller = dialect == "gate01" and envelope.caller or message.peer }
    elseif envelope and envelope.tag and envelope.tag ~= "" then
      for _, recorded in ipairs(names) do
        local made = names[recorded]
        if made and recorded.tag == envelope.tag then
          frames = table.move(frames, 1, #frames, 1, {})
          local at = dialect == "gate01" and 5 or 4
          frames[at + 2] = made.tag
          if frames[at] == recorded.caller then frames[at] = made.caller end
        end
      end
    end
    broker:receive(via, message.peer, table.unpack(frames))
    pump()
  end

  -- Workers that greeted in an earlier recording; there was always one.
  local function greet(peer, service)
    broker:receive("back", peer, engine.build_as(dialect, "worker_to_broker", {
      type = "READY", service = service, sender = peer, credit = name:find "busy" and 1 or 5000,
      payload = msgpack.pack { description = "interop worker" } }))
  end

  engine.at(0)
  local wanted = "GateRPC"
  for _, message in ipairs(vectors.read(name)) do
    if message.leg == "client_to_broker" and message.frames[3] ~= "Gate" then wanted = message.frames[3] end
  end
  for _, message in ipairs(vectors.read(name)) do
    if (message.leg or ""):find "worker" and not known[message.peer] then
      known[message.peer] = true
      if message.frames[3] ~= "\1" then greet(message.peer, wanted) end
    end
  end
  if not next(known) and not name:find "worker%-expired" then greet("gw-" .. ("0"):rep(32), "GateRPC") end
  pump()
  ours = {}
  for _, message in ipairs(vectors.read(name)) do
    engine.at(message.ms)
    broker:tick()
    pump()
    if (message.leg or ""):find "to_broker" then
      receive(message)
    elseif message.leg and not (message.leg == "broker_to_worker" and message.frames[3] == "\4") then
      note(theirs, message.peer, message.frames)
    end
  end
  return ours, theirs
end

-- What was made by hand to be wrong, for the original's broker.
local hostile = { "malformed-frontend", "malformed-requests", "worker-malformed", "zap-client-to-plain-broker" }

for version, dialect in pairs(vectors.dialects) do
  describe("the broker takes what killed or confused the original " .. version .. ":", function()
    for _, name in ipairs(hostile) do
      it(name .. ", and answers what is valid in between", function()
        local recording = version .. "-" .. name
        local ours = play(dialect, recording)
        if name == "malformed-requests" then return end -- their worker dies of some, and another one answers
        local answered = {}
        for _, list in pairs(ours) do
          for _, said in ipairs(list) do answered[said] = true end
        end
        for _, message in ipairs(vectors.read(recording)) do
          if message.leg == "broker_to_client" and message.note:find "valid" and #message.frames > 4 then
            local frames = table.move(message.frames, 1, #message.frames, 1, {})
            frames[#frames] = without_traceback(frames[#frames])
            -- a worker that their request had killed is alive here
            if not frames[#frames]:find "ServiceUnAvailable" then
              assert.is_true(answered[table.concat(frames, " | ")], message.note .. " " .. message.seq)
            end
          end
        end
      end)
    end
  end)

  describe("the broker in the place of the original " .. version, function()
    for _, name in ipairs(vectors.names(version)) do
      if not is_elsewhere(name) and deviations[name] ~= "recorder" then
        it("says the same in " .. name, function()
          local ours, theirs = play(dialect, name)
          if deviations[name] then
            assert.are_not.same(theirs, ours, "it deviates no longer: " .. name)
          else
            assert.same(theirs, ours)
          end
        end)
      end
    end
  end)
end
