#!/usr/bin/env gaterpc-host
-- The log: levels by name, fields, a file of JSON lines beside the console, and a secret that stays out of it.
local gaterpc = require "gaterpc"
local log = gaterpc.log.logger "shop.orders"

local path = arg[1] or os.tmpname()
assert(gaterpc.log.setup {
  levels = { shop = "debug", ["gaterpc.worker"] = "warning" }, -- "shop.orders" has the level of "shop"
  console = { level = "warning" },
  files = { { path = path, format = "json", rotate_bytes = 10 << 20, keep = 5 } },
})

local Orders = gaterpc.Worker:extend "Orders"

--- Order something.
function Orders.interface:order(what, user, token)
  log.debug("%s asks for %s", user, what)
  if what == "nothing" then log.warning("a strange order", { user = user, list = {} }) end
  log.info("ordered", { what = what, user = user, auth = { token = token } })
  return true
end

local broker = gaterpc.Majordomo {}:start()
local worker = gaterpc.Service { name = "Orders" }:create_worker(Orders):start()
worker:wait_ready()
local client = gaterpc.Client {}
client.Orders.order("tea", "ann", "s3cret")
client.Orders.order("nothing", "bob\n2026 ERROR forged", "s3cret")
worker:stop()
broker:stop()

gaterpc.log.flush() -- what is logged is written a moment later, by a thread of its own
for line in io.lines(path) do
  if line:find '"logger":"shop' then print((line:gsub('"time":"[^"]*",', ""))) end
end
os.remove(path)
