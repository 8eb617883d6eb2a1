---events: what an engine of the core has to say, handed to whoever owns it.
---@module "gaterpc.events"

local M = {}

---Takes everything that owner.core has to say: `core:next()` gives kind, ... and nothing at the end. Ends when the
---owner has let go of that core.
---@param owner { core: any }
---@param handlers table<integer, fun(owner: any, ...)>  by kind; others are ignored
function M.take(owner, handlers)
  local core = owner.core
  local function handle(kind, ...)
    if not kind then return false end
    local handler = handlers[kind]
    if handler then handler(owner, ...) end
    return true
  end
  while owner.core == core and handle(core:next()) do end -- luacheck: ignore 542
end

return M
