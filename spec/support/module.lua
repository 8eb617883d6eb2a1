---Loads a C module of the specs, which lies next to the host that runs them: require "support.module" "engine"
local folder = require "luv".exepath():match "^(.*)/"
package.cpath = folder .. "/spec/?.so;" .. package.cpath

return function(name)
  local ok, module = pcall(require, name)
  if not ok then error(("spec/%s.so is missing next to the host; `make` builds it\n%s"):format(name, module), 0) end
  return module
end
