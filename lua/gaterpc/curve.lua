---CURVE keys: pairs of a public and a secret key, as text (Z85, 40 characters), and the files that they are
---kept in. The files are those of CZMQ and pyzmq: NAME has the public key, NAME_secret has both.
---
---  local pair = assert(gaterpc.curve.generate())
---  assert(gaterpc.curve.save("ann.key", pair, { name = "Ann" }))
---  local ann = assert(gaterpc.curve.load "ann.key_secret")
---@module "gaterpc.curve"

local core = require "gaterpc.core"
local errors = require "gaterpc.error"
local options = require "gaterpc.options"
local uv = require "luv"

local M = {}

local LARGEST = 64 << 10 -- bytes of a key file
local OTHERS = 63        -- 077: the permissions of group and others
local PRIVATE, PUBLIC = 384, 420 -- 0600, 0644

---A pair of keys, or a public key alone. tostring() shows the public key only.
---@class gaterpc.CurveKeys
---@field public string
---@field secret? string
---@field metadata? table<string, string>  of the file that it came from
local mt = { __name = "gaterpc.CurveKeys" }

function mt:__tostring()
  local secret = self.secret and " and its secret key" or ""
  return ("CURVE key %s%s"):format(tostring(self.public), secret)
end

---Whether it is a key as text. Whether it is public or secret cannot be seen.
---@param text any
---@return boolean
function M.is_key(text)
  return type(text) == "string" and core.curve_is_key(text)
end

---Makes a new pair.
---@return gaterpc.CurveKeys? pair
---@return gaterpc.Error? err  INTERNAL: this libzmq was built without CURVE
function M.generate()
  local public, secret, text = core.curve_generate()
  if not public then return nil, errors.new(secret, text) end
  return setmetatable({ public = public, secret = secret }, mt)
end

---The public key that belongs to a secret one.
---@param secret string
---@return string? public
---@return gaterpc.Error? err  INVALID_ARGUMENT: it is no key
function M.public(secret)
  if type(secret) ~= "string" then error("curve.public takes a key, got " .. type(secret), 2) end
  local public, code, text = core.curve_public(secret)
  if not public then return nil, errors.new(code, text) end
  return public
end

-------------------------------------------------------------------------------------------------
-- Writing
-------------------------------------------------------------------------------------------------

local function check_pair(pair)
  if type(pair) ~= "table" then error("curve.save takes a pair of keys, got " .. type(pair), 3) end
  if not M.is_key(pair.public) then error("curve.save: 'public' is no key of 40 characters in Z85", 3) end
  if pair.secret == nil then return end
  if not M.is_key(pair.secret) then error("curve.save: 'secret' is no key of 40 characters in Z85", 3) end
  if core.curve_public(pair.secret) ~= pair.public then
    error("curve.save: the public key does not belong to the secret key", 3)
  end
end

local function quote(name, value)
  if type(name) ~= "string" or not name:find "^[%w$_@.&+/-]+$" then
    error(("curve.save: '%s' cannot be a name in metadata: letters, digits and _ . - can"):format(tostring(name)), 4)
  end
  value = tostring(value)
  local mark = not value:find('"', 1, true) and '"' or "'"
  if value:find "%c" or value:find(mark, 1, true) then
    error(("curve.save: the value of '%s' in metadata must be one line, without both kinds of quotes"):format(name), 4)
  end
  return ("    %s = %s%s%s\n"):format(name, mark, value, mark)
end

local function metadata_lines(metadata)
  local lines = {}
  for name, value in pairs(metadata or {}) do lines[#lines + 1] = quote(name, value) end
  table.sort(lines)
  return table.concat(lines)
end

local function file_text(title, metadata, pair)
  local secret = pair.secret and ("    secret-key = \"%s\"\n"):format(pair.secret) or ""
  return ("# %s\n\nmetadata\n%scurve\n    public-key = \"%s\"\n%s"):format(title, metadata, pair.public, secret)
end

local function cannot(verb, path, why)
  local missing = why:find "^ENOENT"
  return nil, errors.new(missing and "NOT_FOUND" or "INVALID_ARGUMENT",
    ("cannot %s %s: %s"):format(verb, path, why:match "^%u+: ([^:]+)" or why))
end

-- The file has these permissions from the start, and nothing is overwritten.
local function write_new(path, mode, text)
  local fd, err = uv.fs_open(path, "wx", mode)
  if not fd then return cannot("write", path, err) end
  local written, why = uv.fs_write(fd, text)
  if written == #text then
    written, why = uv.fs_fsync(fd)
  else
    written, why = nil, why or "the disk is full"
  end
  uv.fs_close(fd)
  if written then return true end
  uv.fs_unlink(path)
  return cannot("write", path, why)
end

---Writes `path` with the public key and, when the pair has a secret key, `path`_secret, which its owner
---alone can read. Existing files are never overwritten.
---@param path string
---@param pair gaterpc.CurveKeys
---@param metadata? table<string, string>  what else the files shall say
---@return string? path          of the file with all that was given
---@return gaterpc.Error? err    INVALID_ARGUMENT: it exists, or cannot be written; NOT_FOUND: the folder
function M.save(path, pair, metadata)
  if type(path) ~= "string" then error("curve.save takes the path of a file, got " .. type(path), 2) end
  check_pair(pair)
  local lines = metadata_lines(metadata)
  local secret_path = path .. "_secret"
  if pair.secret then
    local ok, err = write_new(secret_path, PRIVATE,
      file_text("A secret key of CURVE: keep it to yourself.", lines, pair))
    if not ok then return nil, err end
  end
  local ok, err = write_new(path, PUBLIC,
    file_text("A public key of CURVE: it may be given away.", lines, { public = pair.public }))
  if ok then return pair.secret and secret_path or path end
  if pair.secret then uv.fs_unlink(secret_path) end
  return nil, err
end

-------------------------------------------------------------------------------------------------
-- Reading
-------------------------------------------------------------------------------------------------

-- The text of a small regular file, and its permissions.
local function read_file(path)
  local fd, err = uv.fs_open(path, "r", 0)
  if not fd then return cannot("read", path, err) end
  local stat, text
  stat, err = uv.fs_fstat(fd)
  if stat and stat.type ~= "file" then
    stat, err = nil, "it is a " .. stat.type
  elseif stat and stat.size > LARGEST then
    stat, err = nil, "it is too large for a key file"
  end
  if stat then text, err = uv.fs_read(fd, LARGEST, 0) end
  uv.fs_close(fd)
  if not text then return cannot("read", path, err) end
  return text, stat.mode
end

-- `name = value` of ZPL (RFC 4): the value may be quoted; # begins a comment elsewhere.
local function parse_entry(line)
  local name, rest = line:match "^%s+([%w$_@.&+/-]+)%s*=%s*(.*)$"
  if not name then return nil end
  local quoted = rest:match '^"([^"]*)"' or rest:match "^'([^']*)'"
  return name, quoted or rest:gsub("%s*#.*$", ""):gsub("%s+$", "")
end

-- The sections of a file: name -> { name = value }.
local function parse(text)
  local sections, current = { metadata = {}, curve = {} }, nil
  for line in text:gmatch "[^\r\n]+" do
    local section = line:match "^([%w$_@.&+/-]+)%s*$" or line:match "^([%w$_@.&+/-]+)%s*#"
    if section then
      sections[section] = sections[section] or {}
      current = sections[section]
    elseif current then
      local name, value = parse_entry(line)
      if name then current[name] = value end
    end
  end
  return sections
end

local function refuse(path, why)
  return nil, errors.new("INVALID_ARGUMENT", ("%s %s"):format(path, why))
end

---Reads a key file: of ours, of CZMQ or of pyzmq. A file with a secret key is refused when others may
---read it.
---@param path string
---@return gaterpc.CurveKeys? pair  without `secret` when the file has none
---@return gaterpc.Error? err       NOT_FOUND, PERMISSION_DENIED (others may read it), INVALID_ARGUMENT
function M.load(path)
  if type(path) ~= "string" then error("curve.load takes the path of a file, got " .. type(path), 2) end
  local text, mode = read_file(path)
  if not text and M.is_key(path) then -- which is not to be in any message
    return nil, errors.new("INVALID_ARGUMENT", "the path of a key file is wanted, not a key")
  end
  if not text then return nil, mode end
  local sections = parse(text)
  local public, secret = sections.curve["public-key"], sections.curve["secret-key"]
  if secret and mode & OTHERS ~= 0 then
    return nil, errors.new("PERMISSION_DENIED",
      ("%s has a secret key and others have rights to it (mode %03o): chmod 600 %s"):format(path, mode & 511, path))
  end
  if not public then return refuse(path, "is no key file: it has no public-key in a section curve") end
  if not M.is_key(public) then return refuse(path, "has a public-key that is no key in Z85") end
  if secret and core.curve_public(secret) ~= public then
    return refuse(path, "has a secret-key that does not belong to its public-key")
  end
  return setmetatable({ public = public, secret = secret, metadata = sections.metadata }, mt)
end

-------------------------------------------------------------------------------------------------
-- What objects are given: zap_credentials
-------------------------------------------------------------------------------------------------

local FILES = { key = "string", server = "string" }
local TEXTS = { public = "string", secret = "string", server = "string", metadata = "table" }

-- Keys as text, all checked. What is wrong is said without the keys.
local function check_texts(given)
  if not M.is_key(given.secret) then return nil, "'secret' must be a key of 40 characters in Z85" end
  if not M.is_key(given.server) then
    return nil, "'server', the broker's public key, must be a key of 40 characters in Z85"
  end
  local public = core.curve_public(given.secret)
  if given.public and given.public ~= public then return nil, "'public' does not belong to 'secret'" end
  return { public = public, secret = given.secret, server = given.server }
end

local function check_files(given)
  if not given.server then return nil, "'server' must be the path of a file with the broker's public key" end
  local own, err = M.load(given.key)
  if not own then return nil, err.message end
  if not own.secret then return nil, ("%s has no secret key; is it in %s_secret?"):format(given.key, given.key) end
  local server
  server, err = M.load(given.server)
  if not server then return nil, err.message end
  return { public = own.public, secret = own.secret, server = server.public }
end

---The keys of a client's or worker's zap_credentials: all as text, { public?, secret, server }, or all as paths
---of files, { key, server }.
---@package
---@param given table
---@return { public: string, secret: string, server: string }? keys
---@return string? why
function M.credentials(given)
  local known = given.key ~= nil and FILES or TEXTS
  for name, value in pairs(given) do
    if not known[name] then return nil, options.unknown("name", name, known) end
    if type(value) ~= known[name] then
      return nil, ("'%s' must be a %s, got %s"):format(name, known[name], type(value))
    end
  end
  if known == FILES then return check_files(given) end
  return check_texts(given)
end

return M
