---Timers: what is to be called later, on the one timer that C has for Lua.
---@module "gaterpc.timers"

local core = require "gaterpc.core"

local M = {}

-- A binary heap of { at_ms, serial, fn, key, place, background }.
local timers, timers_len, timer_serial = {}, 0, 0
local foreground = 0 -- timers that keep the host running

local function before(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end

local function put(timer, place)
  timers[place] = timer
  timer[5] = place
end

local function rise(timer, place)
  while place > 1 and before(timer, timers[place // 2]) do
    put(timers[place // 2], place)
    place = place // 2
  end
  put(timer, place)
end

local function sink(timer, place)
  while true do
    local child = place * 2
    if child > timers_len then break end
    if child < timers_len and before(timers[child + 1], timers[child]) then child = child + 1 end
    if not before(timers[child], timer) then break end
    put(timers[child], place)
    place = child
  end
  put(timer, place)
end

local function arm()
  core.set_timer(timers_len > 0 and timers[1][1] or nil, foreground > 0)
end

-- The first whole millisecond that is not before the time. The clock counts finer than that, so adding
-- to core.now_ms() would be early; a nanosecond is forgiven, which is how far doubles may be off.
local function due_ms(seconds)
  if seconds <= 0 then return core.now_ms() end
  return math.ceil((core.now() + seconds) * 1000 - 1e-6)
end

---Calls fn(key) from the dispatcher after so many seconds, never earlier.
---@param seconds number
---@param fn fun(key: any)
---@param key any
---@param background? boolean  it does not keep the host running
---@return table timer
function M.after(seconds, fn, key, background)
  timer_serial = timer_serial + 1
  local timer = { due_ms(seconds), timer_serial, fn, key, 0, background }
  timers_len = timers_len + 1
  rise(timer, timers_len)
  if not background then foreground = foreground + 1 end
  if timer[5] == 1 or foreground == 1 then arm() end
  return timer
end

---Takes a timer back. Nothing happens when it has run.
---@param timer table
function M.drop(timer)
  local place = timer[5]
  if not place then return end
  timer[5] = nil
  local last = timers[timers_len]
  timers[timers_len] = nil
  timers_len = timers_len - 1
  if not timer[6] then foreground = foreground - 1 end
  if last ~= timer then
    if place > 1 and before(last, timers[place // 2]) then rise(last, place) else sink(last, place) end
  end
  if place == 1 or foreground == 0 then arm() end
end

---Runs what is due; the dispatcher's business.
function M.run()
  local now = core.now_ms()
  while timers_len > 0 and timers[1][1] <= now do
    local timer = timers[1]
    M.drop(timer)
    timer[3](timer[4])
  end
  arm()
end

return M
