#!/usr/bin/env gaterpc-host
-- Settings from a file, from the environment and from the script; options of an object come first.
-- The same file for any script: gaterpc-host --settings examples/settings_file.lua script.lua
local gaterpc = require "gaterpc"
local Settings = gaterpc.Settings

Settings.USER_SETTINGS = (arg[0]:match "^.*/" or "") .. "settings_file.lua"
Settings.setup { LIVENESS = 5, MDP_HEARTBEAT_INTERVAL = 250 } -- stronger than the file; the original's name

for _, row in ipairs(Settings.list()) do
  local where = row.where:gsub("^.*/", "")
  if row.source ~= "default" and row.name ~= "USER_SETTINGS" then print(row.name, row.value, where) end
end

local Clock = gaterpc.Worker:extend "Clock"
function Clock.interface:now() return type(os.time()) end

local broker = gaterpc.Majordomo { queue = 16 }:start() -- this broker's own
local worker = gaterpc.Service { name = Settings.DEFAULT_SERVICE }:create_worker(Clock):start()
worker:wait_ready()
local client <close> = gaterpc.Client {}
print("a call of the default service", client.now())

-- Too late: objects exist, and have taken their values.
local _, err = pcall(function() Settings.HEARTBEAT = 1 end)
print((err:match "a Majordomo exists already"))

worker:stop()
broker:stop()
