-- The broker of the benchmark: broker.lua FRONTEND BACKEND; prints its addresses.
local gaterpc = require "gaterpc"

local broker = gaterpc.Majordomo { backend = arg[2] }
broker:bind(arg[1])
broker:start()
print(broker:addresses())
io.stdout:flush()
broker:run()
