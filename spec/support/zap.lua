---Policies and the answers to ZAP requests, driven by hand: see spec/support/zap.c.

local zapspec = require "support.module" "zapspec"

local M = setmetatable({}, { __index = zapspec })

---Adds what `given` says to a policy: users, keys, allow, deny, null, any_key.
function M.policy(given)
  local policy = zapspec.policy()
  for user, secret in pairs(given.users or {}) do assert(policy:user(user, secret)) end
  for key, user in pairs(given.keys or {}) do assert(policy:key(user, key)) end
  for _, address in ipairs(given.allow or {}) do assert(policy:address(address, true)) end
  for _, address in ipairs(given.deny or {}) do assert(policy:address(address, false)) end
  if given.null then policy:null() end
  if given.any_key then policy:any_key() end
  return policy
end

---An answer as a table, or nil.
function M.read(door, number, ...)
  if not door then return end
  local frames = table.pack(...)
  local first = 1
  while frames[first] ~= "" do first = first + 1 end
  return { door = door, number = number, frames = frames, count = frames.n - first, to = frames[1],
    version = frames[first + 1], id = frames[first + 2], status = frames[first + 3], text = frames[first + 4],
    user = frames[first + 5], metadata = frames[first + 6] }
end

---The next message that leaves, or nil.
function M.next(zap)
  return M.read(zap:next_out())
end

---Asks; what is not given is as in an ordinary question of libzmq. Credentials are the list part.
function M.ask(zap, given)
  local identity = given.identity or ""
  return zap:receive(given.door or "inner", given.number or 1, given.from or "peer", "", "1.0", given.id or "1",
    given.domain or "gate", given.address or "127.0.0.1", identity, given.mechanism or "PLAIN", table.unpack(given))
end

---Asks and gives the answer that leaves at once, or nil.
function M.answer(zap, given)
  M.ask(zap, given)
  return M.next(zap)
end

return M
