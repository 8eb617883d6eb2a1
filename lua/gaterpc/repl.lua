---repl: the prompt.
---@module "gaterpc.repl"
local M = {}
function M.run_pipe(file)
  local chunk, err = load(file:read("a"), "=stdin", "t")
  if not chunk then error(err, 0) end
  chunk()
end
return M
