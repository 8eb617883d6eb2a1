---broker_security: what a Majordomo does about who its peers are and what they may do: connect_zap(), mechanisms of
---addresses, access lists.
---@module "gaterpc.broker_security"

local access = require "gaterpc.access"
local core = require "gaterpc.core"
local curve = require "gaterpc.curve"
local options = require "gaterpc.options"
local plain = require "gaterpc.plain"
local settings = require "gaterpc.settings"
local zap_service = require "gaterpc.zap_service"

local M = {}

local INFO, WARNING = 20, 30

local mechanisms = { NULL = true, PLAIN = true, CURVE = true }

local function check_mechanism(who, mechanism, level)
  if mechanism ~= nil and not mechanisms[mechanism] then
    error(("%s: option 'mechanism' must be NULL, PLAIN or CURVE, got '%s'"):format(who, mechanism), level + 1)
  end
  return mechanism
end

-------------------------------------------------------------------------------------------------
-- connect_zap
-------------------------------------------------------------------------------------------------

---@class gaterpc.ConnectZap
---@field mechanism? "NULL"|"PLAIN"|"CURVE"  default "PLAIN". PLAIN: peers of the Python package give user and
---password inside their messages, ours on the connection, at addresses that are bound with the mechanism PLAIN or
---CURVE. CURVE: all addresses are bound with it. NULL: everybody is let in, but addresses are looked at
---@field addr? string      of a ZAP service elsewhere; default: a ZAPService of this process
---@field domain? string    default Settings.ZAP_DEFAULT_DOMAIN
---@field handover? boolean a connection may take over the routing id of one that is still there; default false. For
---peers of the Python package whose connections break without notice: anybody who is let in at the connection can then
---cut another one off whose routing id he knows

---@package
---@param state table  of a Majordomo
---@param given gaterpc.ConnectZap
---@param level integer
function M.connect_zap(state, given, level)
  given = options.check("connect_zap", given, {
    mechanism = "string", addr = "string", domain = "string", handover = "boolean" }, level + 2)
  if state.running or state.bound then error("connect_zap comes before bind and start", level + 1) end
  if state.zap then error("connect_zap was called already", level + 1) end
  local mechanism = check_mechanism("connect_zap", given.mechanism, level + 1) or "PLAIN"
  local domain = given.domain or settings.ZAP_DEFAULT_DOMAIN
  if given.addr then plain.check("connect_zap", mechanism, given.addr, level + 1) end
  local ok, err = zap_service.connect(state.core, domain, given.addr)
  if not ok then error(err, level + 1) end
  state.zap = { mechanism = mechanism, domain = domain }
  if mechanism == "NULL" then return end
  local secured, code, text = state.core:secure(domain, given.handover or false)
  if not secured then error(("connect_zap: %s (%s)"):format(text, code), level + 1) end
end

-- The option `users`: a service of the broker's own, for PLAIN.
local own_domains = 0

---@package
function M.add_users(state, users, level)
  if not users then return end
  own_domains = own_domains + 1
  local domain = ("gaterpc.users.%d"):format(own_domains)
  local service = zap_service.new()
  service.addr = nil -- nobody elsewhere is served
  if not pcall(service.configure_plain, service, domain, users) then
    error("option 'users' must be passwords by name, all of them strings, or a path", level + 1)
  end
  local started, err = service:start()
  if not started then error(err, level + 1) end
  state.own_zap = service
  M.connect_zap(state, { mechanism = "PLAIN", domain = domain }, level + 1)
end

-------------------------------------------------------------------------------------------------
-- Addresses
-------------------------------------------------------------------------------------------------

---@class gaterpc.BindOptions
---@field mechanism? "NULL"|"PLAIN"|"CURVE"  what connections to this address must show; default "CURVE" after
---connect_zap { mechanism = "CURVE" }, else "NULL"
---@field curve? gaterpc.CurveKeys|string  the server's pair, or the path of its file NAME_secret; default: the option
---`curve` of the Majordomo

local BIND = { mechanism = "string", curve = "table|string" }

-- Raises when there are no such keys.
local function pair_of(who, given, level)
  if given == nil then
    error(who .. ": CURVE needs the option 'curve', the server's pair of keys", level + 1)
  end
  if type(given) == "string" then
    local pair, err = curve.load(given)
    if not pair then error(err, level + 1) end
    given = pair
  end
  if not curve.is_key(given.public) or not curve.is_key(given.secret) then
    error(who .. ": option 'curve' must have the keys 'public' and 'secret', in Z85", level + 1)
  end
  return given
end

---The option `curve`, read and checked.
---@package
---@param given? gaterpc.CurveKeys|string
---@return gaterpc.CurveKeys?
function M.keys(who, given, level)
  return given and pair_of(who, given, level + 1) or nil
end

---What core.majordomo's bind() is to know of an address.
---@package
---@return table
function M.of_address(state, who, address, given, level)
  given = options.check(who, given, BIND, level + 2)
  state.bound = true
  if address:find "^inproc://" then return { mechanism = "NULL" } end
  local zap = state.zap
  local mechanism = check_mechanism(who, given.mechanism, level + 1) or zap and zap.mechanism == "CURVE" and "CURVE"
    or "NULL"
  if mechanism ~= "NULL" and not zap then
    error(("%s: %s lets nobody in before somebody says whom: call connect_zap first"):format(who, mechanism), level + 1)
  end
  -- Who shows nothing on the connection may still do so in his messages.
  local open = mechanism == "NULL" and not (zap and zap.mechanism == "NULL")
  if open then zap_service.open() end
  local secured = { mechanism = mechanism, domain = open and zap_service.OPEN or zap.domain }
  local passwords = mechanism == "PLAIN" or mechanism == "NULL" and zap and zap.mechanism == "PLAIN"
  plain.check(who, passwords and "PLAIN" or nil, address, level + 1)
  if mechanism == "CURVE" then
    local pair = pair_of(who, given.curve or state.curve, level + 1)
    secured.public, secured.secret = pair.public, pair.secret
  end
  return secured
end

-------------------------------------------------------------------------------------------------
-- Access lists
-------------------------------------------------------------------------------------------------

---@package
---@param list gaterpc.AccessList|string|nil  a path is read anew by reload() and on SIGHUP
function M.set_access(state, list, level)
  local permissions
  if type(list) == "string" then
    local err
    permissions, err = access.load(list)
    if not permissions then error(err, level + 1) end
  elseif list ~= nil then
    local problem
    permissions, problem = access.flatten(list)
    if not permissions then error(problem, level + 1) end
  end
  state.access_path = type(list) == "string" and list or nil
  assert(state.core:set_access(permissions))
end

---Reads the access list's file anew; what cannot be read leaves things as they were.
---@package
---@return true? done
---@return gaterpc.Error? err
function M.reload(state)
  if not state.access_path then return true end
  local permissions, err = access.load(state.access_path)
  if not permissions then
    core.log(WARNING, "gaterpc.broker", ("the access list stays as it was: %s"):format(err))
    return nil, err
  end
  assert(state.core:set_access(permissions))
  core.log(INFO, "gaterpc.broker", ("access list %s: read anew"):format(state.access_path))
  return true
end

---@package
function M.close(state)
  zap_service.disconnect(state.core)
  if state.own_zap then state.own_zap:stop() end
  state.own_zap = nil
end

return M
