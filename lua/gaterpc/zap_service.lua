---ZAPService: who is let in. It answers libzmq about connections to brokers of this process, these brokers about
---credentials inside messages, and, when it has an address, brokers elsewhere, those of the Python package too.
---
---  local zap = gaterpc.ZAPService { addr = "ipc:///run/gate.zap" }     -- addr only for brokers elsewhere
---  zap:configure_plain("gate", { ann = "secret", bob = "$argon2id$..." })
---  zap:configure_curve("gate", "/etc/gate/keys")
---  zap:deny "10.1.2.3"
---  assert(zap:start())
---@module "gaterpc.zap_service"

local core = require "gaterpc.core"
local curve = require "gaterpc.curve"
local errors = require "gaterpc.error"
local options = require "gaterpc.options"
local plain = require "gaterpc.plain"
local settings = require "gaterpc.settings"

local M = {}

local WARNING, INFO = 30, 20
local KEYS = "public keys by name, a folder, or \"*\""
local LARGEST = 16 << 20 -- bytes of a file of users

---@class gaterpc.ZAPServiceOptions
---@field addr? string  where brokers elsewhere ask; default Settings.ZAP_ADDR, without it they cannot

---@class gaterpc.ZAPService
---@field private domains table<string, { users?: table|string, keys?: table|string, null?: boolean }>
local methods = {}
local mt = { __name = "gaterpc.ZAPService", __index = methods }

-- By domain: services that have started; brokers that want to hear of changes; services elsewhere, as
-- { address =, engines = }.
local owners, watchers, elsewhere = {}, {}, {}

-------------------------------------------------------------------------------------------------
-- What it is told
-------------------------------------------------------------------------------------------------

local function check_domain(who, domain)
  if domain == nil then return settings.ZAP_DEFAULT_DOMAIN end
  if type(domain) ~= "string" or domain == "" or #domain > 255 then
    error(("%s: a domain is a string of 1 to 255 bytes, got %s"):format(who, type(domain)), 3)
  end
  if domain == "*" then
    error(who .. ": there is no domain for all domains: give each its name, or none for ZAP_DEFAULT_DOMAIN", 3)
  end
  return domain
end

local function is_list_of_strings(value)
  if type(value) ~= "table" then return false end
  local count = 0
  for _, each in pairs(value) do
    count = count + 1
    if type(each) ~= "string" then return false end
  end
  return count == #value
end

local function check_table(who, what, given, takes_lists)
  if type(given) ~= "table" then error(("%s takes %s, got %s"):format(who, what, type(given)), 3) end
  for name, value in pairs(given) do
    if type(name) ~= "string" or type(value) ~= "string" and not (takes_lists and is_list_of_strings(value)) then
      error(("%s takes %s"):format(who, what), 3)
    end
  end
end

-- Changes what the service was told. One that runs says it at once; when it cannot, nothing has changed.
local function change(self, domain, name, value, level)
  local given = self.domains[domain]
  self.domains[domain] = { users = given and given.users, keys = given and given.keys, null = given and given.null,
    [name] = value }
  if not self.running then return self end
  local ok, err = self:reload()
  if ok then return self end
  self.domains[domain] = given
  error(err, level + 1)
end

---Lets users in by PLAIN. Passwords may be given as they are, or as gaterpc.hash_password() gives them. A path names a
---file with a line `name:password or hash` for each, which is read anew by reload() and on SIGHUP.
---@param domain? string                        default Settings.ZAP_DEFAULT_DOMAIN
---@param users table<string, string>|string    passwords by name, or the path of a file
---@return gaterpc.ZAPService self
function methods:configure_plain(domain, users)
  domain = check_domain("configure_plain", domain)
  if type(users) ~= "string" then check_table("configure_plain", "passwords by name, or a path", users) end
  return change(self, domain, "users", users, 2)
end

---Lets users in by CURVE, whose public keys are known.
---@param domain? string                       default Settings.ZAP_DEFAULT_DOMAIN
---@param keys table<string, string|string[]>|string  public keys in Z85 by name; or a folder, whose files
---NAME.key have them; or "*": everybody who knows the server's key, whose name is then his own key
---@return gaterpc.ZAPService self
function methods:configure_curve(domain, keys)
  domain = check_domain("configure_curve", domain)
  if type(keys) ~= "string" then check_table("configure_curve", KEYS, keys, true) end
  return change(self, domain, "keys", keys, 2)
end

---Lets everybody in who says nothing of himself. He has no name.
---@param domain? string  default Settings.ZAP_DEFAULT_DOMAIN
---@return gaterpc.ZAPService self
function methods:configure_null(domain)
  return change(self, check_domain("configure_null", domain), "null", true, 2)
end

local function add_addresses(self, who, name, addresses)
  local before = self[name]
  local list = table.move(before, 1, #before, 1, {})
  for i = 1, addresses.n do
    if type(addresses[i]) ~= "string" then
      error(("%s takes addresses, got %s"):format(who, type(addresses[i])), 3)
    end
    local scratch <close> = assert(core.policy())
    local ok, _, text = scratch:add_address(addresses[i], true)
    if not ok then error(("%s: '%s': %s"):format(who, addresses[i], text), 3) end
    list[#list + 1] = addresses[i]
  end
  self[name] = list
  if not self.running then return self end
  local ok, err = self:reload()
  if ok then return self end
  self[name] = before
  error(err, 3)
end

---From now on only these addresses are let in: "10.1.2.3", "10.0.0.0/8", "::1", "ipc".
---@param ... string
---@return gaterpc.ZAPService self
function methods:allow(...)
  return add_addresses(self, "allow", "allowed", table.pack(...))
end

---These addresses are never let in.
---@param ... string
---@return gaterpc.ZAPService self
function methods:deny(...)
  return add_addresses(self, "deny", "denied", table.pack(...))
end

-------------------------------------------------------------------------------------------------
-- Making policies of it
-------------------------------------------------------------------------------------------------

-- Raise error objects or texts, which reload() returns.

local function check(what, ok, code, text)
  if not ok then error(errors.new(code, ("%s: %s"):format(what, text)), 0) end
end

local function lines_of(path)
  local file, why = io.open(path, "rb")
  if not file then error(errors.new("INVALID_ARGUMENT", "users: " .. why), 0) end
  local text, problem = file:read(LARGEST + 1)
  file:close()
  if problem then error(errors.new("INVALID_ARGUMENT", ("users: %s: %s"):format(path, problem)), 0) end
  text = text or ""
  if #text > LARGEST then error(errors.new("INVALID_ARGUMENT", path .. ": a file of users has at most 16 MiB"), 0) end
  return text:gmatch "([^\r\n]*)\r?\n?"
end

-- A line that cannot be read is named by its number: what is in it may be a password.
local function read_users(path)
  local users, number = {}, 0
  local function refuse(problem)
    error(errors.new("INVALID_ARGUMENT", ("%s:%d: %s"):format(path, number, problem)), 0)
  end
  for line in lines_of(path) do
    number = number + 1
    local is_entry = line:find "%S" and not line:find "^%s*#"
    local name, secret = line:match "^([^:]+):(.+)$"
    if is_entry and not name then refuse "a line is name:password, or name:hash" end
    if is_entry and users[name] then refuse(("the user '%s' again"):format(name)) end
    if is_entry then users[name] = secret end
  end
  return users
end

local function add_users(policy, users)
  if type(users) == "string" then users = read_users(users) end
  for name, secret in pairs(users) do
    check(("user '%s'"):format(name), policy:add_user(name, secret))
  end
end

local function read_keys(folder)
  local uv = require "luv"
  local handle, why = uv.fs_scandir(folder)
  if not handle then error(errors.new("INVALID_ARGUMENT", "keys: " .. why), 0) end
  local names, keys = {}, {}
  for file in uv.fs_scandir_next, handle do -- to its end, or luv leaks
    names[#names + 1] = file:match "^(.+)%.key$"
  end
  for _, name in ipairs(names) do
    local pair, err = curve.load(folder .. "/" .. name .. ".key")
    if not pair then error(err, 0) end
    keys[name] = pair.public
  end
  return keys
end

local function add_keys(policy, keys)
  if keys == "*" then return policy:allow_any_key() end
  if type(keys) == "string" then keys = read_keys(keys) end
  for name, given in pairs(keys) do
    for _, key in ipairs(type(given) == "table" and given or { given }) do
      check(("the key of '%s'"):format(name), policy:add_key(name, key))
    end
  end
end

local function policy_of(self, given)
  local policy, code, text = core.policy()
  check("policy", policy, code, text)
  if given.users then add_users(policy, given.users) end
  if given.keys then add_keys(policy, given.keys) end
  if given.null then policy:allow_null() end
  for _, address in ipairs(self.allowed) do check("allow", policy:add_address(address, true)) end
  for _, address in ipairs(self.denied) do check("deny", policy:add_address(address, false)) end
  return policy
end

local function policies_of(self)
  local policies = {}
  for domain, given in pairs(self.domains) do policies[domain] = policy_of(self, given) end
  return policies
end

local function tell_watchers(domain, policy)
  for engine in pairs(watchers[domain] or {}) do engine:set_policy(policy) end
end

local function start_handler()
  local penalty_ms = math.max(options.to_ms(settings.ZAP_PENALTY), 1) -- 0 would be the default
  check("ZAP", core.zap_start(penalty_ms, options.to_ms(settings.ZAP_REPLY_TIMEOUT)))
end

local function put_in_force(self, policies)
  for domain in pairs(policies) do
    if owners[domain] and owners[domain] ~= self then
      error(errors.new("UNAVAILABLE", ("another ZAPService of this process has the domain '%s'"):format(domain)), 0)
    end
    if elsewhere[domain] then
      error(errors.new("UNAVAILABLE", ("a broker of this process asks %s about the domain '%s'"):format(
        elsewhere[domain].address, domain)), 0)
    end
  end
  for domain, policy in pairs(policies) do
    owners[domain] = self
    self.current[domain] = policy
    check("ZAP", core.zap_set_policy(domain, policy))
    tell_watchers(domain, policy)
  end
end

-------------------------------------------------------------------------------------------------
-- Life
-------------------------------------------------------------------------------------------------

-- What a function says by error() with an error object, as nil, err.
local function guarded(fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then return true end
  if errors.is(err) then return nil, err end
  error(err, 0)
end

---Reads files of users and keys anew, and puts what they say in force. When one cannot be read nothing has changed.
---@return true? done
---@return gaterpc.Error? err  INVALID_ARGUMENT: what is wrong where; UNAVAILABLE: another service has the domain
function methods:reload()
  return guarded(function() put_in_force(self, policies_of(self)) end)
end

---Begins to answer.
---@return gaterpc.ZAPService? self
---@return gaterpc.Error? err  as reload(), and why the address cannot be used
function methods:start()
  if self.running then error("the ZAP service runs already", 2) end
  if self.addr then plain.check("ZAPService", self:takes_passwords() and "PLAIN" or nil, self.addr, 2) end
  local ok, err = guarded(function()
    local policies = policies_of(self)
    start_handler()
    put_in_force(self, policies)
    if self.addr then
      local bound, code, text = core.zap_bind(self.addr)
      check(("ZAPService at '%s'"):format(self.addr), bound, code, text)
      self.bound = bound
    end
  end)
  if not ok then
    self:stop()
    return nil, err
  end
  self.running = true
  M.running[self] = true
  local also = self.bound and ", also for brokers elsewhere, at " .. self.bound or ""
  core.log(INFO, "gaterpc.zap", ("decides about %s%s"):format(table.concat(self:names(), ", "), also))
  return self
end

---Ends. From now on nobody is let in by its domains.
function methods:stop()
  self.running = false
  M.running[self] = nil
  if self.bound then core.zap_unbind(self.bound) end
  self.bound = nil
  for domain in pairs(self.current) do
    owners[domain], self.current[domain] = nil, nil
    core.zap_set_policy(domain, nil)
    tell_watchers(domain, nil)
  end
end

mt.__close = methods.stop

---@return string? address  where brokers elsewhere ask it, once it has started
function methods:address()
  return self.bound
end

---@private
function methods:takes_passwords()
  for _, given in pairs(self.domains) do
    if given.users then return true end
  end
  return false
end

---@package
---@return string[] domains
function methods:names()
  local names = {}
  for domain in pairs(self.domains) do names[#names + 1] = domain end
  table.sort(names)
  return names
end

function mt:__tostring()
  return ("ZAP service for %s"):format(table.concat(self:names(), ", "))
end

---Counters of this process: how many were admitted, refused, and not decided about; malformed requests.
---@return { admitted: integer, refused: integer, failed: integer, malformed: integer }
function methods.stats()
  return core.zap_stats()
end

---Makes a service that lets nobody in yet.
---@param given? gaterpc.ZAPServiceOptions
---@return gaterpc.ZAPService
function M.new(given)
  given = options.check("ZAPService", given, { addr = "string" })
  settings.freeze("ZAPService")
  return setmetatable({
    addr = settings.pick("ZAP_ADDR", given.addr, "addr"), domains = {}, allowed = {}, denied = {}, current = {},
  }, mt)
end

---@package
---@param value any
---@return boolean
function M.is(value)
  return getmetatable(value) == mt
end

---Services that have started.
---@package
M.running = {}

---SIGHUP: reads all files anew; what cannot be read leaves things as they were.
---@package
function M.reload_all()
  for self in pairs(M.running) do
    local ok, err = self:reload()
    if ok then
      core.log(INFO, "gaterpc.zap", tostring(self) .. ": read anew")
    else
      core.log(WARNING, "gaterpc.zap", ("%s stays as it was: %s"):format(self, err))
    end
  end
end

-------------------------------------------------------------------------------------------------
-- For brokers
-------------------------------------------------------------------------------------------------

local function watch(engine, domain)
  local owner = owners[domain]
  if not owner then
    error(errors.new("NOT_FOUND", ("no ZAPService of this process has the domain '%s': start one first, or give "
      .. "the address of one elsewhere"):format(domain)), 0)
  end
  watchers[domain] = watchers[domain] or setmetatable({}, { __mode = "k" })
  watchers[domain][engine] = true
  engine:set_policy(owner.current[domain])
end

local function ask_elsewhere(engine, domain, address)
  if owners[domain] then
    error(errors.new("INVALID_ARGUMENT", ("a ZAPService of this process has the domain '%s' already"):format(
      domain)), 0)
  end
  local known = elsewhere[domain]
  if known and known.address ~= address then
    error(errors.new("INVALID_ARGUMENT", ("another broker of this process asks %s about the domain '%s'"):format(
      known.address, domain)), 0)
  end
  local done, code, text = core.zap_set_remote(domain, address)
  check(("ZAP service at '%s'"):format(address), done, code, text)
  elsewhere[domain] = known or { address = address, engines = setmetatable({}, { __mode = "k" }) }
  elsewhere[domain].engines[engine] = true
end

---Who decides about a domain for a broker: a service of this process, or the one at an address.
---@package
---@param engine any         of core.majordomo
---@param domain string
---@param address? string
---@return true? done
---@return gaterpc.Error? err
function M.connect(engine, domain, address)
  return guarded(function()
    start_handler()
    if address then return ask_elsewhere(engine, domain, address) end
    watch(engine, domain)
  end)
end

---A broker has ended.
---@package
---@param engine any
function M.disconnect(engine)
  for _, engines in pairs(watchers) do engines[engine] = nil end
  for domain, asked in pairs(elsewhere) do
    asked.engines[engine] = nil
    if not next(asked.engines) then
      elsewhere[domain] = nil
      core.zap_set_policy(domain, nil)
    end
  end
end

---The domain of brokers that let everybody in.
---@package
M.OPEN = "gaterpc.open"

---@package
function M.open()
  local policy, code, text = core.policy()
  if not policy then error(errors.new(code, text), 0) end
  policy:allow_null()
  start_handler()
  check("ZAP", core.zap_set_policy(M.OPEN, policy))
end

return setmetatable(M, { __call = function(_, given) return M.new(given) end })
