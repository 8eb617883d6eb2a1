---StreamReply: the items of a streaming method, in order, as they come.
---@module "gaterpc.stream"

local core = require "gaterpc.core"
local task = require "gaterpc.task"
local timers = require "gaterpc.timers"
local errors = require "gaterpc.error"
local worker = require "gaterpc.worker"

local M = {}

---@class gaterpc.StreamReply
---@field private client gaterpc.Client
---@field private id integer
---@field private items? any        the message that is being read
---@field private queue any[]       messages behind it, with their bytes
---@field private ended boolean     the last message is there
---@field private closed boolean    nobody reads any more
---@field private failed? gaterpc.Error
---@field private job? gaterpc.Job  who waits for the next item
---@field private last_read number  when it was read last, see M.sweep
local stream = {}
local mt = { __name = "gaterpc.StreamReply", __index = stream }

-- Does this Lua close the fourth value of a for loop when the loop's variable is captured and the
-- loop is left by break? 5.4.4 of Debian 12 does not (fixed in 5.4.5, "'break' may not properly
-- close variable in a 'for' loop"), and then such a value does more harm than good.
local function loops_close()
  local was_closed = false
  local closable = setmetatable({}, { __close = function() was_closed = true end })
  local function each(_, last) return not last and 1 or nil end
  local captured
  for i in each, nil, nil, closable do -- luacheck: ignore 512
    captured = function() return i end
    break
  end
  return was_closed and captured ~= nil
end
local LOOPS_CLOSE = loops_close()

-- Streams that are open, without keeping them alive. A stream that its reader has left by break is
-- garbage: when one has not been read for a while, garbage is collected so that its method ends.
local open_streams = setmetatable({}, { __mode = "k" })
local sweeper

local SWEEP, PATIENCE, PATIENCE_MAX = 0.3, 0.3, 30

local function sweep()
  sweeper = nil
  local now, any, overdue = core.now(), false, false
  for each in pairs(open_streams) do
    any = true
    if not each.job and now - each.last_read > each.patience then
      overdue = true
      each.patience = math.min(each.patience * 2, PATIENCE_MAX)
    end
  end
  if overdue then collectgarbage() end
  if any then sweeper = timers.after(SWEEP, sweep, nil, true) end
end

---@package
---@param client gaterpc.Client
---@param id integer
---@param timeout number  seconds that next() waits
function M.new(client, id, service, method, timeout)
  local self = setmetatable({
    client = client, id = id, service = service, method = method, timeout = timeout,
    queue = {}, first = 1, last = 0, read_items = 0, read_bytes = 0,
    ended = false, closed = false, last_read = core.now(), patience = PATIENCE,
  }, mt)
  open_streams[self] = true
  if not sweeper then sweeper = timers.after(SWEEP, sweep, nil, true) end
  return self
end

---What a call gives: the stream, and for a for loop the value to be closed where Lua does it right.
---@package
function M.results(self)
  if LOOPS_CLOSE then return self, nil, nil, self end
  return self
end

-- From the client ---------------------------------------------------------------------------

-- Nobody waits any more; gives who did.
local function take(self)
  local job = self.job
  if not job then return nil end
  self.job = nil
  worker.end_nested(job)
  return job
end

local function wake(self)
  local job = take(self)
  if job then task.resume(job, true) end
end

---@package
function stream:on_items(items, count, bytes)
  self.last = self.last + 1
  self.queue[self.last] = { items, count, bytes }
  return wake(self)
end

---@package
function stream:on_end(err)
  self.ended, self.failed = true, err
  open_streams[self] = nil
  return wake(self)
end

-- For the reader ------------------------------------------------------------------------------

-- Gives the worker new credit when half of the window was read.
local function account(self, count, bytes)
  self.read_items = self.read_items + count
  self.read_bytes = self.read_bytes + bytes
  local client = self.client
  local limits = client.settings
  if self.ended then return end
  if self.read_items * 2 >= limits.window_items or self.read_bytes * 2 >= limits.window_bytes then
    client.core:credit(self.id, self.read_items, self.read_bytes)
    self.read_items, self.read_bytes = 0, 0
  end
end

-- The next message to read from, or nil.
local function turn_page(self)
  local done = self.page
  if done then account(self, done[2], done[3]) end
  local page = self.queue[self.first]
  self.page = page
  if not page then return nil end
  self.queue[self.first] = nil
  self.first = self.first + 1
  self.items = page[1]
  return page[1]
end

local function wait(self, seconds)
  local job = task.check_wait(3)
  if self.job then error("another coroutine waits for this stream", 3) end
  self.job = job
  if not self.client.is_own then worker.begin_nested(job) end -- an executor's work is the method's own
  local timer = timers.after(seconds, function() task.wake(take(self), false) end)
  local came = task.wait(function()
    take(self)
    timers.drop(timer)
  end)
  timers.drop(timer)
  if not came then
    self:close()
    error(errors.new("DEADLINE_EXCEEDED", ("no item came within %g s"):format(seconds),
      { service = self.service, method = self.method }), 3)
  end
end

local function read(self, seconds)
  while true do
    local items = self.items or turn_page(self)
    if items then
      local more, value, text = items:next()
      if more then
        self.last_read = core.now()
        return value
      end
      self.items = nil
      if more == nil then
        self:close()
        error(errors.new(value, text, { service = self.service, method = self.method }), 3)
      end
    elseif self.failed then
      local err = self.failed
      self.failed = nil -- said once; afterwards the stream is at its end
      error(err, 3)
    elseif self.ended or self.closed then
      return nil
    else
      wait(self, seconds)
    end
  end
end

---The next item; nil at the end. Raises the method's error, or DEADLINE_EXCEEDED (the stream is then
---closed). An item that is nil on the wire comes as gaterpc.null.
---@async
---@param timeout? number  seconds to wait for it; default: the call's
---@return any
function stream:next(timeout)
  if timeout then timeout = task.check_seconds(timeout, 2) end
  return read(self, timeout or self.timeout)
end

function mt:__call()
  return read(self, self.timeout)
end

---Has the next message come? Then next() does not wait, and raises nothing.
---@package
function stream:is_ready()
  return self.queue[self.first] ~= nil
end

---Ends the stream: the worker closes the method, whose <close> variables run.
function stream:close()
  if self.closed then return end
  self.closed = true
  self.queue, self.first, self.last, self.items, self.page = {}, 1, 0, nil, nil
  if not self.ended then
    open_streams[self] = nil
    self.client:forget(self.id)
  end
  wake(self)
end

mt.__close = stream.close
mt.__gc = stream.close

function mt:__tostring()
  return ("stream of %s.%s%s"):format(self.service, self.method,
    (self.closed or self.ended) and " (ended)" or "")
end

---@param value any
function M.is(value)
  return getmetatable(value) == mt
end

return M
