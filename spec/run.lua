-- Runs busted inside the host: gaterpc-host spec/run.lua [busted's options] [files or folders].
-- Each test has a time limit, which `limit(seconds)` in its description ("... [limit 60]") raises.

local core = require "gaterpc.core"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"

local now = core.now -- the real clock, whatever a spec puts in its place
local LIMIT = 10 * tonumber(os.getenv "GATERPC_SLOW" or 1) -- sanitizers are slow

package.path = "spec/?.lua;" .. package.path
core.log_level(tonumber(os.getenv "GATERPC_LOG" or 50)) -- tests provoke warnings
local busted = require "busted.core"()
package.loaded["busted.core"] = function() return busted end

local function limit_of(element)
  local own = tostring(element.name):match("%[limit (%d+)%]")
  return own and tonumber(own) * LIMIT / 10 or LIMIT
end

-- A test that waits is interrupted where it waits; one that spins, by a hook.
local function limited(run, element)
  return function(...)
    local limit = limit_of(element)
    local text = ("this test took longer than its %g s"):format(limit)
    local job = task.current()
    local timer = timers.after(limit, function() task.interrupt(job, text) end)
    local deadline = now() + limit
    debug.sethook(function()
      if now() > deadline + 1 then error(text, 2) end
    end, "", 1000000)
    local _ <close> = setmetatable({}, { __close = function()
      timers.drop(timer)
      debug.sethook()
    end })
    return run(...)
  end
end

local safe = busted.safe
function busted.safe(descriptor, run, element)
  if descriptor == "it" then run = limited(run, element) end
  return safe(descriptor, run, element)
end

-- busted ends with os.exit; ours goes through the host, so that sanitizers see everything closed.
local finished = task.promise()
os.exit = function(code) -- luacheck: ignore 122
  core.exit(code == true and 0 or tonumber(code) or 1)
  finished:await()
end

if #arg == 0 then rawset(arg, 1, "spec") end
require "busted.runner" { standalone = false, output = "utfTerminal", shuffle = true }
core.exit(0)
