---gaterpc-host in a pseudo terminal, and what its user sees there.
---
---  local pty = require "support.pty"
---  describe("...", function()
---    after_each(pty.finish)
---    it("...", function()
---      local terminal = pty.host {}
---      terminal:wait_prompt()
---      terminal:enter "1 + 1"
---      terminal:wait_line "2"
---
---The terminal is made by script(1) of util-linux. What comes out of it is drawn on a screen, so that
---specs compare what a person would read, however it got there.
local process = require "support.process"
local uv = require "luv"

local M = {}

local HOST = uv.exepath()
local COLUMNS = 80

local terminals = {}

-------------------------------------------------------------------------------------------------
-- The screen: an endless one, so that nothing scrolls away
-------------------------------------------------------------------------------------------------

---@class Screen
---@field rows string[][]  characters
---@field row integer      of the cursor, from 1
---@field column integer   from 0; `columns` when the next character goes to the next row
---@field inserting boolean
local screen = {}
local screen_mt = { __index = screen }

function screen:cells()
  while #self.rows < self.row do self.rows[#self.rows + 1] = {} end
  return self.rows[self.row]
end

function screen:put(char)
  if self.column >= self.columns then
    self.row, self.column = self.row + 1, 0
  end
  local cells = self:cells()
  while #cells < self.column do cells[#cells + 1] = " " end
  if self.inserting then table.insert(cells, self.column + 1, char) else cells[self.column + 1] = char end
  self.column = self.column + 1
end

local controls = {}
controls["\r"] = function(self) self.column = 0 end
controls["\n"] = function(self)
  self.row = self.row + 1
  self:cells()
end
controls["\b"] = function(self) self.column = math.max(0, math.min(self.column, self.columns - 1) - 1) end
controls["\a"] = function(self) self.beeps = self.beeps + 1 end
controls["\t"] = function(self) self.column = math.min(self.columns - 1, self.column // 8 * 8 + 8) end

local function cut(cells, from)
  for i = #cells, from, -1 do cells[i] = nil end
end

local sequences = {}
function sequences.A(self, n) self.row = math.max(1, self.row - n) end
function sequences.B(self, n) self.row = self.row + n end
function sequences.C(self, n) self.column = math.min(self.columns - 1, self.column + n) end
function sequences.D(self, n) self.column = math.max(0, self.column - n) end
function sequences.G(self, n) self.column = n - 1 end
function sequences.K(self) cut(self:cells(), self.column + 1) end
function sequences.J(self)
  cut(self:cells(), self.column + 1)
  cut(self.rows, self.row + 1)
end
function sequences.P(self, n)
  for _ = 1, math.min(n, #self:cells() - self.column) do table.remove(self:cells(), self.column + 1) end
end
sequences["@"] = function(self, n)
  for _ = 1, n do table.insert(self:cells(), self.column + 1, " ") end
end
function sequences.h(self, n) self.inserting = self.inserting or n == 4 end
function sequences.l(self, n) self.inserting = self.inserting and n ~= 4 end
function sequences.m() end

---Draws the first thing of the text; returns how many bytes it was, or nil when it is not complete.
function screen:draw(text, at)
  local n, final, behind = text:match("^\27%[%??(%d*)[%d;]*([%a@])()", at)
  if n then
    assert(sequences[final], "the screen does not know ESC [ " .. n .. final)(self, tonumber(n) or 1)
    return behind
  end
  if text:find("^\27", at) then
    return assert(#text - at < 20 and not text:find("^\27[^%[]", at) and nil, "an unknown sequence")
  end
  local char = text:match("^" .. utf8.charpattern, at)
  if utf8.len(char) then
    if controls[char] then controls[char](self) elseif char:byte() >= 32 then self:put(char) end
    return at + #char
  end
end

function screen:feed(text)
  text = self.rest .. text
  local at = 1
  while at <= #text do
    local behind = self:draw(text, at)
    if not behind then break end
    at = behind
  end
  self.rest = text:sub(at)
end

---A row without the blanks at its end.
function screen:line(row)
  return (table.concat(self.rows[row] or {}):gsub("%s+$", ""))
end

-------------------------------------------------------------------------------------------------
-- The terminal
-------------------------------------------------------------------------------------------------

---@class Terminal
---@field process Process
---@field screen Screen
---@field fed integer   bytes of its output that are on the screen
---@field seen integer  rows above this one were looked at
local methods = {}
local mt = { __index = methods }

-- Brings the screen up to date.
local function look(self)
  local out = self.process.out
  self.screen:feed(out:sub(self.fed + 1))
  self.fed = #out
end

---The rows as text, for messages.
function methods:text()
  look(self)
  local lines = {}
  for row = 1, #self.screen.rows do lines[row] = self.screen:line(row) end
  return table.concat(lines, "\n")
end

local function wait(self, check, what, seconds)
  local ok, err = pcall(process.eventually, function()
    look(self)
    return check()
  end, what, seconds)
  if not ok then error(("%s\n--- the screen\n%s\n---"):format(err, self:text()), 3) end
end

---Types text as it is: "\r" for Enter, "\3" for Ctrl-C.
function methods:type(text)
  self.process:write(text)
end

---Types a line; what is waited for next is below it.
function methods:enter(text)
  look(self)
  self.seen = self.screen.row + 1
  self:type(text .. "\r")
end

---Waits for a line that matches, below those that were waited for before; returns the captures, or
---the line.
---@param pattern string
---@param seconds? number
function methods:wait_match(pattern, seconds)
  local found
  wait(self, function()
    for row = self.seen, #self.screen.rows do
      found = table.pack(self.screen:line(row):match(pattern))
      if found[1] then
        self.seen = row + 1
        return true
      end
    end
  end, ("a line like %q"):format(pattern), seconds)
  return table.unpack(found, 1, found.n)
end

---Waits for a line that is exactly this text, below those that were waited for before.
function methods:wait_line(text, seconds)
  local pattern = "^" .. text:gsub("%p", "%%%0") .. "$"
  return self:wait_match(pattern, seconds)
end

---Waits until the cursor is in a line that is exactly this text, the prompt and what was typed, with
---nothing below; "> " when nothing is said.
function methods:wait_prompt(text, seconds)
  text = (text or "> "):gsub("%s+$", "")
  wait(self, function()
    local current = self.screen
    if current.row < self.seen or current:line(current.row) ~= text then return false end
    return #current.rows <= current.row
  end, ("the cursor at %q"):format(text), seconds)
  self.seen = self.screen.row
end

---Waits for the end of the host.
---@return integer code  128 and the number of a signal
function methods:wait_exit(seconds)
  return (self.process:wait_exit(seconds))
end

local function quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

---Runs a shell command in a new terminal; $HOST is gaterpc-host.
---@param command string
---@param options? { env?: table<string, string|false>, columns?: integer }
---@return Terminal
function M.shell(command, options)
  options = options or {}
  local env = { TERM = "xterm", GATERPC_HISTORY = "", HOST = HOST, SHELL = "/bin/sh", LANG = "C.UTF-8" }
  for name, value in pairs(options.env or {}) do env[name] = value end
  local columns = options.columns or COLUMNS
  local child = process.run("script", { "-qec", ("stty cols %d rows 24; %s"):format(columns, command),
    "-E", "always", "/dev/null" }, { env = env, keep_stdin = true, name = "pty: " .. command })
  local self = setmetatable({
    process = child, fed = 0, seen = 1,
    screen = setmetatable({
      rows = {}, row = 1, column = 0, columns = columns, inserting = false, beeps = 0, rest = "",
    }, screen_mt),
  }, mt)
  terminals[#terminals + 1] = self
  return self
end

---Runs gaterpc-host with these arguments in a new terminal.
---@param args string[]
---@param options? { env?: table<string, string|false>, columns?: integer }
---@return Terminal
function M.host(args, options)
  local words = { "exec", quote(HOST) }
  for _, arg in ipairs(args) do words[#words + 1] = quote(arg) end
  return M.shell(table.concat(words, " "), options)
end

---process.finish(), which does not know that errors of these children are on their screens.
function M.finish()
  local list = terminals
  terminals = {}
  process.finish()
  for _, each in ipairs(list) do
    local out = each.process.out
    if out:find("Sanitizer:", 1, true) or out:find("runtime error:", 1, true) then
      error(("a sanitizer complains about '%s':\n%s"):format(each.process.name, out), 0)
    end
  end
end

return M
