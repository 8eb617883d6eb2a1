---log: lines for the host's log, which a thread of its own writes; nothing here waits.
---
---  gaterpc.log.info("listening")
---  gaterpc.log.warning("only %d left", n)
---@module "gaterpc.log"

local core = require "gaterpc.core"

local M = {}

local levels = { debug = 10, info = 20, warning = 30, error = 40 }

local function text_of(format, ...)
  if select("#", ...) == 0 then return tostring(format) end
  local ok, text = pcall(string.format, format, ...)
  return ok and text or tostring(format)
end

for name, level in pairs(levels) do
  M[name] = function(format, ...)
    if level >= core.log_level() then core.log(level, "lua", text_of(format, ...)) end
  end
end

---Lines below this level are dropped. Default "info".
---@param level "debug"|"info"|"warning"|"error"
function M.level(level)
  if not levels[level] then error("a level is debug, info, warning or error, got " .. tostring(level), 2) end
  core.log_level(levels[level])
end

return M
