---A log for specs: lua/gaterpc/log.lua on a second copy of the C code, beside the host's own log.
---
---  local spec = require "support.log"
---  local log = spec.start()          -- its console is a file; spec.stop() in after_each
---  log.info "text"
---  assert.same({ "... INFO lua text" }, spec.lines())
---
---The C module, spec/support/log.c, lies next to the host that runs the specs.
local uv = require "luv"
local process = require "support.process"

local folder = uv.exepath():match "^(.*)/"
local c = require "support.module" "logspec"

local M = setmetatable({}, { __index = c })

---For scripts of other processes: what makes `require "logspec"` work there.
M.CPATH = ("package.cpath = %q .. package.cpath\n"):format(folder .. "/spec/?.so;")

local log, path, fd, read

local function load_log()
  local env = setmetatable({ require = function(name) return name == "gaterpc.core" and c.core or require(name) end },
    { __index = _G })
  return assert(loadfile("lua/gaterpc/log.lua", "t", env))()
end

---Starts it, with the level "info" and a console of text.
---@return gaterpc.Log
function M.start()
  log = log or load_log()
  path = process.file("console", "")
  fd = assert(uv.fs_open(path, "a", 384))
  read = 0
  assert(c.start(fd) == 0)
  return log
end

function M.stop()
  c.stop()
  c.set_clock(nil)
  uv.fs_close(fd)
  log.level "info"
  process.finish()
end

function M.read_file(name)
  local file <close> = assert(io.open(name, "rb"))
  return file:read "a"
end

---Waits until everything is written.
function M.flush()
  if not c.flush(math.tointeger(process.limit() * 1000 // 1)) then error("the log is not written", 2) end
end

---A file's lines. The last one must have its newline.
function M.lines_of(name)
  local list, text = {}, M.read_file(name)
  assert(text == "" or text:sub(-1) == "\n", "the last line has no end")
  for line in text:gmatch "([^\n]*)\n" do list[#list + 1] = line end
  return list
end

---What the console got since the last call, line by line.
function M.lines()
  M.flush()
  local all = M.lines_of(path)
  local new = table.move(all, read + 1, #all, 1, {})
  read = #all
  return new
end

---The next line of the console, without its time.
function M.line()
  local new = M.lines()
  if #new ~= 1 then error(("one line expected, got %d:\n%s"):format(#new, table.concat(new, "\n")), 2) end
  return (new[1]:gsub("^%S+ ", ""))
end

return M
