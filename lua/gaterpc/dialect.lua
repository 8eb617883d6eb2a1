---Dialects: how workers and clients of ours speak to brokers of the original package, or of RFC 7.
---@module "gaterpc.dialect"

local options = require "gaterpc.options"

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

local function check_credentials(who, mechanism, credentials)
  if mechanism == "PLAIN" then
    local user, password = table.unpack(credentials or {}, 1, 2)
    if type(user) ~= "string" or type(password) ~= "string" then
      error(("%s: option 'zap_credentials' must be { user, password } with the mechanism PLAIN"):format(who), 4)
    end
    return user, password
  end
  if mechanism ~= "NULL" then
    error(("%s: option 'zap_mechanism' must be PLAIN or NULL, got '%s'"):format(who, mechanism), 4)
  end
end

---The setting that says how often those who speak a dialect beat.
---@package
---@param name? gaterpc.Dialect
---@return string
function M.heartbeat(name)
  return heartbeats[name or "gh1"] or "HEARTBEAT"
end

---Adds what core.worker and core.client need to know of it, from an object's options dialect,
---zap_mechanism and zap_credentials. Raises at whoever called the object's constructor.
---@package
---@param who string  for messages
---@param given table
---@param made table  for core.worker or core.client
---@return table made
function M.apply(who, given, made)
  local name = given.dialect or "gh1"
  if not heartbeats[name] then error(("%s: %s"):format(who, options.unknown("dialect", name, heartbeats)), 3) end
  made.dialect = name
  if given.zap_credentials and not given.zap_mechanism then
    error(("%s: option 'zap_credentials' needs 'zap_mechanism'"):format(who), 3)
  end
  if given.zap_mechanism then
    if name ~= "gate01" and name ~= "gate02" then
      error(("%s: only the dialects gate01 and gate02 carry credentials inside messages, not %s"):format(who, name), 3)
    end
    made.mechanism = given.zap_mechanism
    made.user, made.password = check_credentials(who, given.zap_mechanism, given.zap_credentials)
  end
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
