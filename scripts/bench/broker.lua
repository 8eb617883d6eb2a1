-- The broker of the benchmark: broker.lua FRONTEND BACKEND; prints its addresses.
local secured = dofile(arg[0]:match("^(.*)/") .. "/secured.lua")

local broker, front, back = secured.broker(arg[1], arg[2])
print(front, back)
io.stdout:flush()
broker:run()
