---What encoders and decoders have in common: a pipe, into which bytes are put at the one end while one task at a
---time takes at the other. `core` is the part that works, `what` its name in messages. Which options there are,
---what ends a pipe and what it gives, is the business of gaterpc.codec, which alone uses this.
---@module "gaterpc.codec_pipe"

local errors = require "gaterpc.error"
local task = require "gaterpc.task"

local M = {}

local QUEUED_BYTES = 1 << 20 -- of a list that is put in ahead of the work

-- The checks of methods that users call: level 3 is their line.
function M.check_open(self)
  if self.closed then error(("the %s is closed"):format(self.what), 3) end
end

function M.check_ready(self)
  task.check_wait(3)
  if self.closed then error(("the %s is closed"):format(self.what), 3) end
  if self.busy then error(("the %s has a taker already"):format(self.what), 3) end
end

function M.check_bytes(data, who)
  if type(data) ~= "string" then error(("%s takes a string, got %s"):format(who, type(data)), 3) end
end

function M.check_drained(self)
  if self.core:pending() then error(("the %s has more to give: take it first"):format(self.what), 3) end
end

-- Whoever waited is cancelled: nobody knows how far things have come.
local function give_up(self)
  self.waiting, self.busy = nil, false
  self:close()
end

-- There may be something to take now.
function M.on_work(self)
  local job = self.waiting
  self.waiting = nil
  if job then task.wake(job) end
end

-- Waits for work; nil and an error when it was closed meanwhile.
local function await(self)
  self.waiting = task.current()
  task.wait(give_up, self)
  if not self.closed then return true end
  self.failure = errors.new("CANCELLED", ("the %s was closed"):format(self.what))
  return nil, self.failure
end

-- A codec of one's own waits inside of take(), so it is closed with the coroutine.
local guard_mt = { __close = function(guard)
  if guard.front.busy then give_up(guard.front) end
end }

-- The part that works: in C, or in Lua for a codec of one's own.
function M.open(self, make, make_own, info, given, level)
  if info.compressor then
    self.core = make_own(info, given)
    self.guard = setmetatable({ front = self }, guard_mt)
    return self
  end
  local made, code, text = make(info.name, given, self)
  if not made then error(errors.new(code, ("%s: %s"):format(info.name, text)), level + 1) end
  self.core = made
  return self
end

-- A failure stays.
function M.fail(self, code, text)
  self.failure = errors.new(code, text)
  self.core:close()
  return nil, self.failure
end

function M.put(self, op, data)
  if self.failure then return nil, self.failure end
  local done, code, text = self.core:put(op, data)
  if not done then return M.fail(self, code, text) end
  M.on_work(self)
  return true
end

local function take_now(self)
  local got, code, text = self.core:take()
  while got == false do
    local open, err = await(self)
    if not open then return nil, err end
    got, code, text = self.core:take()
  end
  self.busy = false
  if code then return M.fail(self, code, text) end
  return got
end

-- The next output: pieces or bytes; nil when everything that was put in is used and taken.
function M.take(self)
  if self.failure then return nil, self.failure end
  self.busy = true
  local _ <close> = self.guard
  return take_now(self)
end

-- Like take(), but waits for more to be put in, and gives nil only at the end.
function M.take_fed(self)
  local got, err = M.take(self)
  while not got and not err and not self.finished do
    self.busy = true
    got, err = await(self)
    if got then got, err = M.take(self) end
  end
  return got, err
end

-- A function that gives one string after the other, and one that says whether it may wait.
function M.reader(source, is_ready, who)
  if type(source) == "string" then source = { source } end
  if type(source) ~= "table" and type(source) ~= "function" then
    error(("%s takes a string, a list of strings or a function that gives strings, got %s"):format(
      who, type(source)), 3)
  end
  local at = 0
  local function next_string()
    at = at + 1
    local data, err
    if type(source) == "function" then data, err = source() else data = source[at] end
    if data == nil and err ~= nil then error(err, 0) end
    if data ~= nil and type(data) ~= "string" then
      error(("%s: its source gave a %s in place of a string"):format(who, type(data)), 0)
    end
    return data
  end
  if type(source) ~= "function" then return next_string, function() return false end end
  return next_string, function() return not (is_ready and is_ready()) end
end

-- Puts in what the source gives, ahead of the work; but what may wait is asked only when everything before is out.
local function pump(self, read, may_wait, finish)
  while not self.finished and not self.failure do
    if self.core:queued() >= QUEUED_BYTES or self.core:pending() and may_wait() then return end
    local data = read()
    if data then M.put(self, "write", data) else finish(self) end
  end
end

-- The next output of what a source gives; nil when it gives no more and everything is taken.
function M.take_pumped(self, read, may_wait, finish)
  repeat
    pump(self, read, may_wait, finish)
    local got, err = M.take(self)
    if got or err then return got, err end
  until self.finished
end

-- What a for loop calls: raises what fails.
function M.each(self, next_output)
  return function()
    M.check_ready(self)
    local got, err = next_output(self)
    if err then error(err, 2) end
    return got
  end
end

function M.close(self)
  self.closed = true
  self.core:close()
  M.on_work(self)
end

function M.digest(self)
  M.check_open(self)
  if self.failure then return nil end
  M.check_drained(self)
  return self.core:digest()
end

function M.queued(self)
  if self.closed or self.failure then return 0 end
  return self.core:queued()
end

return M
