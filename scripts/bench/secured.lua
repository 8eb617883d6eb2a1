-- What the environment says of security, for the benchmark's broker, worker and client:
--   BENCH_SECURITY = "none" | "plain" | "curve" (on the connection) | "gate02" | "gate02-plain" (inside messages)
--   BENCH_KEYS     = the server's and the peers' keys: "public secret public secret"
local gaterpc = require "gaterpc"

local M = {}

local kind = os.getenv "BENCH_SECURITY" or "none"
local server_public, server_secret, public, secret = (os.getenv "BENCH_KEYS" or ""):match "(%S+) (%S+) (%S+) (%S+)"

local on_connection = { plain = "PLAIN", curve = "CURVE" }

---A broker that serves at these addresses.
function M.broker(front, back)
  local options = { backend = "inproc://bench" }
  if kind == "curve" then options.curve = { public = server_public, secret = server_secret } end
  local broker = gaterpc.Majordomo(options)
  if on_connection[kind] or kind == "gate02-plain" then
    local zap = gaterpc.ZAPService {}:configure_plain("gate", { me = "right" })
    if kind == "curve" then zap:configure_curve("gate", { me = public }) end
    assert(zap:start())
    broker:connect_zap { mechanism = kind == "curve" and "CURVE" or "PLAIN" }
  end
  local bound = { mechanism = on_connection[kind] or "NULL" }
  front, back = broker:bind(front, bound), broker:bind_backend(back, bound)
  return broker:start(), front, back
end

---Options of a worker or client at this address.
function M.options(address)
  local options = { broker = address, zap_mechanism = on_connection[kind] }
  if kind == "curve" then
    options.zap_credentials = { public = public, secret = secret, server = server_public }
  elseif kind == "plain" then
    options.zap_credentials = { "me", "right" }
  elseif kind:find "^gate02" then
    options.dialect = "gate02"
  end
  if kind == "gate02-plain" then options.zap_mechanism, options.zap_credentials = "PLAIN", { "me", "right" } end
  return options
end

return M
