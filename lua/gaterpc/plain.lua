---PLAIN sends passwords as they are. So it is for addresses that stay on this host, unless somebody says that
---the network is trusted.
---@module "gaterpc.plain"

local core = require "gaterpc.core"
local settings = require "gaterpc.settings"

local M = {}

local warned = {} -- addresses

local function is_local_host(host)
  if host == "localhost" or host == "::1" or host == "0:0:0:0:0:0:0:1" then return true end
  return (host:match "^::ffff:(.*)$" or host):find "^127%.%d+%.%d+%.%d+$" ~= nil
end

---Whether what is said over an address can be heard outside of this host. A name other than localhost counts
---as outside, and so does a wildcard.
---@param address string
---@return boolean
function M.leaves_host(address)
  local scheme, rest = address:match "^(%w+)://(.*)$"
  if not scheme or scheme == "ipc" or scheme == "inproc" then return false end
  local place = rest:match "[^;]*$" -- behind the address to come from
  local host = place:match "^%[([^%]%%]*)" or place:match "^(.*):[^:]*$" or place
  return not is_local_host(host)
end

---Raises when passwords would leave this host and Settings.ZAP_PLAIN_OVER_TCP does not allow it; warns once for each
---address when it does.
---@package
---@param who string      for messages: "Client"
---@param mechanism? string
---@param address string
---@param level integer   as in error()
function M.check(who, mechanism, address, level)
  if mechanism ~= "PLAIN" or not M.leaves_host(address) then return end
  if not settings.ZAP_PLAIN_OVER_TCP then
    error(("%s: PLAIN sends user and password unencrypted, and %s leaves this host: use CURVE, an ipc:// address "
      .. "or tcp://127.0.0.1, or set ZAP_PLAIN_OVER_TCP when the network is trusted"):format(who, address), level + 1)
  end
  if warned[address] then return end
  warned[address] = true
  core.log(30, "gaterpc.plain", ("%s: user and password go unencrypted over %s"):format(who, address))
end

return M
