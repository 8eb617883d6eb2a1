---@meta gaterpc.port

---An executor as its own Lua files see it (src/bind/bind_port.c); there is none in the host. What can fail returns
---nil, code, text: CANCELLED, DEADLINE_EXCEEDED and so on when the job is to stop, UNAVAILABLE when the host has
---gone.
---@class gaterpc.port
local port = {}

---Says that jobs are welcome.
function port.ready() end

---Waits for a job. Nothing when no more will come.
---@return integer? id
---@return integer deadline_ms  in core.now_ms(), or 0
---@return string description   packed, as crew.lua has made it
---@return string code          likewise, or ""
function port.next() end

---The arguments of the job, once.
---@return any ...
function port.arguments() end

---Sends an item of the job's stream, when there is credit for it.
---@param value any
---@return true? sent
---@return string? code
---@return string? text
function port.item(value) end

---Ends the job with its results.
---@param is_stream boolean  they are a stream, even when there was no item
---@return true? sent
---@return string? code  INVALID_ARGUMENT, RESOURCE_EXHAUSTED: they cannot be packed, and the job has not ended
---@return string? text
function port.done(is_stream, ...) end

---Ends the job with an error.
---@param last boolean  no more jobs after this one
---@param code gaterpc.Code
---@param class string
---@param message string
---@param traceback string
---@return true? sent
---@return string? code
---@return string? text
function port.fail(last, code, class, message, traceback) end

---Asks the host and waits for what it answers.
---@return any ...
function port.ask(...) end

---@param milliseconds integer
---@return true? slept
---@return string? code
---@return string? text
function port.sleep(milliseconds) end

---@return string? code  that the job is to end with; nil for go on
function port.stopped() end

---Sets the error that interrupted code gets.
---@param err any
function port.stop_with(err) end

---@return boolean refused  the job has reached the memory limit
---@return integer limit    bytes, 0 for none
function port.refused() end

return port
