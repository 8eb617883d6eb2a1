-- Keys of CURVE: made, kept in files, read again, and used by a client.
--
--   gaterpc-host examples/keys.lua
--
-- `gaterpc-host --keygen ann.key` makes the same files from a shell.

local gaterpc = require "gaterpc"
local curve = gaterpc.curve
local uv = require "luv"

local folder = assert(uv.fs_mkdtemp "/tmp/gaterpc-keys-XXXXXX")

local server = assert(curve.generate())                  -- on the broker's host
assert(curve.save(folder .. "/server.key", server))
local ann = assert(curve.generate())                     -- on the client's
assert(curve.save(folder .. "/ann.key", ann, { name = "Ann" }))

for _, name in ipairs { "ann.key", "ann.key_secret" } do -- one to give away, one to keep
  local keys = assert(curve.load(folder .. "/" .. name))
  print(name, keys.metadata.name, keys.secret and "has the secret key" or "has the public key only")
end
print(ann.public == curve.public(ann.secret))            -- the public key follows from the secret one
print(tostring(ann):find(ann.secret, 1, true))           -- which is not shown

uv.fs_chmod(folder .. "/ann.key_secret", tonumber("644", 8))
local _, err = curve.load(folder .. "/ann.key_secret")   -- others could read it
print(err.code)
uv.fs_chmod(folder .. "/ann.key_secret", tonumber("600", 8))

local client = gaterpc.Client { broker = "tcp://127.0.0.1:7777", zap_mechanism = "CURVE",
  zap_credentials = { key = folder .. "/ann.key_secret", server = folder .. "/server.key" } }
print(client)
client:close()

for name in uv.fs_scandir_next, uv.fs_scandir(folder) do os.remove(folder .. "/" .. name) end
uv.fs_rmdir(folder)
