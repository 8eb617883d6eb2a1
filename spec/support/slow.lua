---A module for executors to require by name.
local M = {}

---Says that it has begun, and takes a moment.
function M.nap(path)
  local file <close> = assert(io.open(path, "a"))
  file:write "begun\n"
  file:flush()
  require "gaterpc".task.sleep(0.3)
  return "rested"
end

return M
