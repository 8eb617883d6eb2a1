---huge_jobs: HugeData and the jobs of executors, seen from the host: jobs that feed it, and jobs that return it.
---
---A feed stays in the host. It is lent to a job by its function or its arguments, and only that job can put into it.
---@module "gaterpc.huge_jobs"

local crew = require "gaterpc.crew"
local errors = require "gaterpc.error"
local huge = require "gaterpc.huge"
local msgpack = require "gaterpc.msgpack"
local portable = require "gaterpc.portable"

local M = {}

-- Types that msgpack keeps for itself. Here they are only packed, so nobody far away can send any.
local FEED, HUGE = -105, -106

-------------------------------------------------------------------------------------------------
-- Lending
-------------------------------------------------------------------------------------------------

local borrower -- the job whose function and arguments are being packed

local function lend(feed)
  if not borrower then error("stays in the host: only jobs of its executors can have it", 0) end
  local id = require("luv").random(16)
  borrower.feeds = borrower.feeds or {}
  borrower.feeds[id] = feed
  return id
end

local function lend_huge(self)
  if not self.data then error("with data it is a whole result; what is to be fed can go to an executor", 0) end
  return lend(self.data)
end

-- With the first feed: programs without one pack and unpack without ext types.
huge.before_feeds(function()
  for type, how in pairs { [FEED] = { "HugeDataFeed", huge.feed_metatable, lend },
    [HUGE] = { "HugeData", huge.metatable, lend_huge } } do
    msgpack.register_own_ext { type = type, name = how[1], metatable = how[2], pack = how[3] }
    portable.allow(how[2])
  end
end)

---Calls pack(job, ...), and lends the job what is packed by that. Raises what it raises.
---@param job table
---@param pack fun(job: table, ...)
function M.lend(job, pack, ...)
  borrower = job
  local ok, err = pcall(pack, job, ...)
  borrower = nil
  if not ok then error(err, 0) end
end

---Is any of it on its way to a reader? Then it may take longer than the call's deadline, and so may the job.
---@param job table
function M.is_under_way(job)
  if not job.feeds then return false end
  for _, feed in next, job.feeds do
    if feed.begun then return true end
  end
  return false
end

-------------------------------------------------------------------------------------------------
-- What jobs ask
-------------------------------------------------------------------------------------------------

local operations = {}

local function feed_of(job, id)
  local feed = job.feeds and job.feeds[id]
  if feed then return feed end
  return nil, "NOT_FOUND", "the data was lent to another job"
end

function operations.put(job, id, chunk)
  local feed, code, text = feed_of(job, id)
  if not feed then return nil, code, text end
  if feed.ended then return nil, "UNAVAILABLE", "the data was closed" end
  local put, err = feed:put(chunk)
  if not put then return nil, err.code, err.message end
  return true
end

function operations.close(job, id, code, class, message)
  local feed = feed_of(job, id)
  if feed then feed:close(code and errors.new(code, message, { class = class })) end
  return true
end

function operations.check(_, module, level)
  local checked, text = huge.check(module, level)
  if not checked then return nil, "INVALID_ARGUMENT", text end
  return true
end

function operations.add(job, piece)
  job.parts = job.parts or {}
  table.insert(job.parts, piece)
  return true
end

operations["return"] = function(job, module, level)
  job.huge, job.parts = huge.of_packed(job.parts or {}, module, level), nil
  return true
end

crew.on_question("huge", function(job, operation, ...)
  local fn = operations[operation]
  if not fn or not job then return nil, "INVALID_ARGUMENT", "there is no such operation, or no job" end
  return fn(job, ...)
end)

return M
