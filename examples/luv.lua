#!/usr/bin/env gaterpc-host
-- A method that reads a file and talks TCP with luv, while other calls go on. A callback of luv runs
-- as a task of its own; a promise takes what it got to the method that waits.
local gaterpc = require "gaterpc"
local uv = require "luv"

local function await(start, ...) -- for a function of luv that takes a callback last
  local promise, args = gaterpc.task.promise(), { ... }
  args[#args + 1] = function(err, value) promise:resolve(err, value) end
  assert(start(table.unpack(args)))
  local err, value = promise:await()
  return assert(not err, err) and value
end

local Files = gaterpc.Worker:extend "Files"

--- Sends the first bytes of a file to a server, and returns its answer.
function Files.interface:send_file(path, port)
  local fd = await(uv.fs_open, path, "r", 0)
  local text = await(uv.fs_read, fd, 26, 0)
  await(uv.fs_close, fd)
  local tcp <close> = setmetatable({ uv.new_tcp() }, { __close = function(t) t[1]:close() end })
  await(uv.tcp_connect, tcp[1], "127.0.0.1", port)
  await(uv.write, tcp[1], text)
  return await(uv.read_start, tcp[1])
end

local server = uv.new_tcp() -- answers in upper case
server:bind("127.0.0.1", 0)
server:listen(16, function()
  local peer = uv.new_tcp()
  server:accept(peer)
  peer:read_start(function(_, data) if data then peer:write(data:upper()) else peer:close() end end)
end)
gaterpc.Majordomo {}:start()
gaterpc.Service { name = "Files" }:create_worker(Files):start():wait_ready()
print(gaterpc.Client {}.Files.send_file(arg[0], server:getsockname().port))
os.exit(0)
