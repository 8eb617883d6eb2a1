---Sockets with their security, and a ZAP handler that the spec answers for: see spec/support/sock.c.

local process = require "support.process"

local socks = require "support.module" "socks"

local M = setmetatable({}, { __index = socks })

local zap = {}
local zap_mt = { __index = zap }

---@class Zap
---@field asked table  the last question: domain, address, mechanism, credentials

---Somebody who decides about the peers of all sockets of this module.
---@return Zap
function M.zap()
  local made = process.eventually(socks.zap, "the end of the one before") -- ZeroMQ takes a while to close it
  return setmetatable({ sock = made }, zap_mt)
end

---Takes a question that waits, without answering it.
---@return boolean
function zap:take()
  if self.open then self:reply "300" end
  local frames = table.pack(self.sock:recv())
  if not frames[1] then return false end
  self.open = frames[2]
  self.asked = { domain = frames[3], address = frames[4], mechanism = frames[6],
    credentials = { table.unpack(frames, 7, frames.n) } }
  return true
end

---@package
function zap:reply(status)
  self.sock:send("1.0", self.open, status, "", status == "200" and "somebody" or "", "")
  self.open = nil
end

---Answers what waits with the status.
function zap:answer(status)
  if self.open then self:reply(status) end
  while self:take() do self:reply(status) end
end

function zap:close()
  self.sock:close()
end

return M
