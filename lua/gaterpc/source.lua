---What can be read of a function in its source: the comment above it, its parameters, and whether it
---yields.
---@module "gaterpc.source"

local M = {}

local MAX_FILE = 4 << 20

-- Lines of a source, by what debug.getinfo calls it. Weak, because files change and are large.
local cache = setmetatable({}, { __mode = "v" })

local function split(text)
  local lines = {}
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do lines[#lines + 1] = line end
  return lines
end

local function lines_of(source)
  local lines = cache[source]
  if lines then return lines end
  local kind = source:sub(1, 1)
  if kind == "=" then return nil end
  if kind == "@" then
    local file = io.open(source:sub(2), "r")
    if not file then return nil end
    local size = file:seek("end") or MAX_FILE -- read() makes room for what it is asked for
    file:seek("set")
    local text = file:read(math.min(size, MAX_FILE))
    file:close()
    lines = split(text or "")
  else
    lines = split(source)
  end
  cache[source] = lines
  return lines
end

---The text of the `---` lines right above a function, without dashes, or nil.
---@param fn function
---@return string?
function M.doc(fn)
  local info = debug.getinfo(fn, "S")
  local lines = lines_of(info.source)
  if not lines then return nil end
  local found = {}
  for i = info.linedefined - 1, 1, -1 do
    local text = (lines[i] or ""):match("^%s*%-%-%-%s?(.*)$") -- the file may have changed since
    if not text then break end
    table.insert(found, 1, text)
  end
  return #found > 0 and table.concat(found, "\n") or nil
end

---The parameters as "(key, value, ...)", without self.
---@param fn function
---@param skip? integer  leading parameters to leave out besides self, default 0
---@return string
function M.signature(fn, skip)
  local info = debug.getinfo(fn, "u")
  local names = {}
  for i = 1, info.nparams do
    local name = debug.getlocal(fn, i)
    if not (i == 1 and name == "self") then names[#names + 1] = name end
  end
  for _ = 1, skip or 0 do table.remove(names, 1) end
  if info.isvararg then names[#names + 1] = "..." end
  return "(" .. table.concat(names, ", ") .. ")"
end

---True when the function's text has a coroutine.yield. A guess: a comment or an inner coroutine
---deceives it, and then interface(fn, { stream = ... }) says it right.
---@param fn function
---@return boolean
function M.yields(fn)
  local info = debug.getinfo(fn, "S")
  local lines = lines_of(info.source)
  if not lines then return false end
  local first, last = info.linedefined, info.lastlinedefined
  if first == 0 then first, last = 1, #lines end -- a chunk
  for i = first, math.min(last, #lines) do
    local code = lines[i]:gsub("%-%-.*$", "")
    if code:find("coroutine%s*%.%s*yield") or code:find("%f[%w_]yield%s*%(") then return true end
  end
  return false
end

return M
