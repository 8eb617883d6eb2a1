---Dialects: how workers and clients of ours speak to brokers of the original package, or of RFC 7.
---@module "gaterpc.dialect"

local curve = require "gaterpc.curve"
local options = require "gaterpc.options"
local plain = require "gaterpc.plain"

local M = {}

---What a broker speaks. Ours speaks all of them.
---@alias gaterpc.Dialect
---| "gh1"     # ours
---| "gate01"  # the Python package gaterpc 0.1.x
---| "gate02"  # the Python package gaterpc 0.2.x
---| "mdp"     # ZeroMQ RFC 7, as in the ZeroMQ guide

-- Its keys are the dialects that there are.
local heartbeats = {
  gh1 = "HEARTBEAT", gate01 = "GATE01_HEARTBEAT", gate02 = "GATE02_HEARTBEAT", mdp = "MDP_HEARTBEAT",
}

-- Those whose messages carry credentials.
local inside = { gate01 = true, gate02 = true }

local LONGEST = 255 -- bytes; ZeroMQ takes no more

local function is_word(text)
  return type(text) == "string" and #text >= 1 and #text <= LONGEST and not text:find("\0", 1, true)
end

local function check_plain(who, credentials)
  local user, password = table.unpack(credentials or {}, 1, 2)
  if type(user) ~= "string" or type(password) ~= "string" then
    error(("%s: option 'zap_credentials' must be { user, password } with the mechanism PLAIN"):format(who), 5)
  end
  if not is_word(user) or not is_word(password) then
    error(("%s: option 'zap_credentials': user and password have 1 to %d bytes, none of them 0"):format(
      who, LONGEST), 5)
  end
  return user, password
end

local mechanisms = {}

function mechanisms.NULL(_, name, made)
  if inside[name] then made.mechanism = "NULL" end
end

function mechanisms.PLAIN(who, name, made, credentials)
  local user, password = check_plain(who, credentials)
  plain.check(who, "PLAIN", made.address, 4)
  if inside[name] then
    made.mechanism, made.user, made.password = "PLAIN", user, password
  else
    made.secure, made.secure_user, made.secure_password = "PLAIN", user, password
  end
end

function mechanisms.CURVE(who, _, made, credentials)
  if not credentials then
    error(("%s: the mechanism CURVE needs the option 'zap_credentials': { public =, secret =, server = } or "
      .. "{ key = path, server = path }"):format(who), 4)
  end
  local keys, why = curve.credentials(credentials)
  if not keys then error(("%s: option 'zap_credentials': %s"):format(who, why), 4) end
  made.secure = "CURVE"
  made.public_key, made.secret_key, made.server_key = keys.public, keys.secret, keys.server
end

---The setting that says how often those who speak a dialect beat.
---@package
---@param name? gaterpc.Dialect
---@return string
function M.heartbeat(name)
  return heartbeats[name or "gh1"] or "HEARTBEAT"
end

---Adds what core.worker and core.client need to know of it, from an object's options dialect,
---zap_mechanism and zap_credentials. PLAIN goes inside the messages of gate01 and gate02, and on the connection
---with other dialects; CURVE always goes on the connection. Raises at whoever called the object's constructor.
---@package
---@param who string  for messages
---@param given table
---@param made table  for core.worker or core.client
---@return table made
function M.apply(who, given, made)
  local name = given.dialect or "gh1"
  if not heartbeats[name] then error(("%s: %s"):format(who, options.unknown("dialect", name, heartbeats)), 3) end
  made.dialect = name
  local mechanism = given.zap_mechanism
  if given.zap_credentials and not mechanism then
    error(("%s: option 'zap_credentials' needs 'zap_mechanism'"):format(who), 3)
  end
  if not mechanism then return made end
  local use = mechanisms[mechanism]
  if not use then
    error(("%s: option 'zap_mechanism' must be CURVE, PLAIN or NULL, got '%s'"):format(who, mechanism), 3)
  end
  use(who, name, made, given.zap_credentials)
  return made
end

-- Classes of the original's own errors, without package and module.
local codes = {
  ServiceUnAvailableError = "UNAVAILABLE", BuysWorkersError = "RESOURCE_EXHAUSTED",
  BusyWorkerError = "RESOURCE_EXHAUSTED", TimeoutError = "DEADLINE_EXCEEDED",
}

---What a Python exception means: its class as Python programs name it, without "<class '...'>", and our
---code for it.
---@param code gaterpc.Code   what is known already
---@param class string
---@param message string
---@return gaterpc.Code code
---@return string class
function M.translate(code, class, message)
  local name = class:match("^<class '([%w_.]+)'>$") or class
  local short = name:match("[^.]+$")
  if code ~= "INTERNAL" then return code, name end
  if short == "AttributeError" and message:find("^Function not found") then return "NOT_FOUND", name end
  return codes[short] or code, name
end

return M
