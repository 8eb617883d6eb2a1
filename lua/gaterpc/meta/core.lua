---@meta gaterpc.core

---What C offers to the Lua files of this project; users have no need of it. Functions that can fail in
---normal use return nil, code, text (codes as in gaterpc.error); wrong arguments raise.
---@class gaterpc.core
local core = {}

---Sets the function that C calls for everything: dispatcher(what, ...), see gaterpc.task.
---@param dispatcher fun(what: string, ...)
function core.set_dispatcher(dispatcher) end

---@return number seconds of the monotonic clock
function core.now() end

---@return integer milliseconds of the monotonic clock
function core.now_ms() end

---@param bytes string
---@return boolean is_text  they are UTF-8
function core.is_text(bytes) end

---Has "due" dispatched at that time. One timer; nil stops it.
---@param at_ms integer?
---@param keep boolean  the host waits for it
function core.set_timer(at_ms, keep) end

---Has "turn" dispatched soon, without waiting.
function core.want_turn() end

---Keeps the host running although nothing happens; counted.
---@param on boolean  false takes one back
function core.hold(on) end

---Ends the host after this turn. The first code that is not 0 stays.
---@param code? integer
function core.exit(code) end

---@param ms integer  a method that does not yield for so long is named in the log; 0: never
function core.busy_limit(ms) end

-- What follows, up to flush_log, works in every lua_State of the process.

---@param level integer  10 debug, 20 info, 30 warning, 40 error
---@param name string    the logger
---@param text string
---@param fields? table  see docs/logging.md
function core.log(level, name, text, fields) end

---Puts a function per level into self: self.info(text, ...), which may be called with a colon as well.
---@param self table
---@param name string    the logger
---@param levels table<string, integer>
---@return table self
function core.logger(self, name, levels) end

---@param level? integer  the root's; lines below it are dropped
---@return integer
function core.log_level(level) end

---@param name string
---@param level? integer  100 off, -1 as its parent
---@return integer? level
---@return string? code   RESOURCE_EXHAUSTED: there are too many loggers
---@return string? text
function core.logger_level(name, level) end

---@return table<string, integer> levels  that were set, of loggers by name; not the root's
function core.logger_levels() end

---@param name string
---@param level integer
---@return boolean  a line of that level would be written
function core.log_wants(name, level) end

---@class gaterpc.core.log_output
---@field path? string    none for the console
---@field level? integer
---@field json? boolean
---@field midnight? boolean
---@field rotate_bytes? integer
---@field keep? integer
---@field colour? boolean

---@param setup { console?: false|gaterpc.core.log_output, files?: gaterpc.core.log_output[], queue?: integer,
---queue_bytes?: integer }
---@return boolean? ok
---@return string? code   INTERNAL: a file cannot be opened; INVALID_ARGUMENT; UNAVAILABLE: the log does not run
---@return string? text
function core.log_setup(setup) end

---Opens all files anew, by their names.
function core.log_reopen() end

---@return { lines: integer, dropped: integer, waiting: integer, waiting_bytes: integer,
---outputs: { path?: string, lines: integer, lost: integer, error?: string }[] }
function core.log_stats() end

---Waits until what was logged so far is written, a second at most.
---@return boolean done
function core.flush_log() end

---@param fd integer
---@return boolean
function core.isatty(fd) end

---Ctrl-C stops running Lua code from now on.
function core.allow_interrupts() end

---The prompt's terminal; lines are dispatched as "line", text (no text at the end of input).
---@class gaterpc.core.terminal
local terminal = {}

---@param history? string  path of its file
---@return gaterpc.core.terminal? terminal
---@return string? code
---@return string? text
function core.terminal(history) end

---Shows the prompt and reads a line.
---@param prompt string
function terminal:read(prompt) end

---Forgets what was typed and shows the prompt anew.
---@param prompt string
function terminal:drop(prompt) end

---Takes the line that is being typed off the screen, because something will be written.
---@param partial boolean  what is written does not end its line
function terminal:hide(partial) end

---Adds a line to the history.
---@param line string
function terminal:remember(line) end

function terminal:close() end

-------------------------------------------------------------------------------------------------

---A client's engine and its connection. `owner:on_ready()` is called when there are events.
---@class gaterpc.core.client
local client = {}

---@param options table  address, heartbeat_ms, liveness, dialect, mechanism, user, password,
---connect_timeout_ms, max_calls, reconnect_ms, reconnect_max_ms, hwm, ipv6 (0 or 1), secure ("PLAIN" with
---secure_user and secure_password, "CURVE" with public_key, secret_key and server_key in Z85; of the connection)
---@param owner table
---@return gaterpc.core.client? client
---@return string? code
---@return string? text
function core.client(options, owner) end

---@param service string
---@param method string
---@param timeout_ms integer  0: none
---@param credit integer      items that may come unasked
---@param window integer      their bytes
---@return integer? id
---@return string? code
---@return string? text
function client:call(service, method, timeout_ms, credit, window, ...) end

---@param id integer
---@param items integer
---@param bytes integer
function client:credit(id, items, bytes) end

---Gives a call up. Nothing happens when it is over, or the client is closed.
---@param id integer
function client:cancel(id) end

---The next event: kind, then by kind, as in src/engine/client.h: 1 id, value, status; 2 and 3 id, items,
---count, bytes; 4 id, code, class, message, traceback; 5 and 6 nothing. Nothing when there is none.
---@return integer? kind
---@return any ...
function client:next() end

---@return { calls: integer, late: integer, malformed: integer, open: integer, up: boolean }
function client:stats() end

function client:close() end

---Items of a stream that came in one message.
---@class gaterpc.core.items
local items = {}

---@return boolean? more  false at the end; nil when they are damaged
---@return any value_or_code
---@return string? text
function items:next() end

function items:close() end

-------------------------------------------------------------------------------------------------

---A worker's engine and its connection. `owner:on_ready()` is called when there are events.
---@class gaterpc.core.worker
local worker = {}

---@param options table  address, service, method, about (packed), credit, heartbeat_ms, liveness, dialect,
---mechanism, user, password, idle_ms, reconnect_ms, reconnect_max_ms, hwm, ipv6 (0 or 1), secure and what belongs to
---it, as for core.client
---@param owner table
---@return gaterpc.core.worker? worker
---@return string? code
---@return string? text
function core.worker(options, owner) end

---Ends a call with its result.
---@param route integer
---@param value any
---@param status? integer  three digits, of internal handlers
---@return true? sent
---@return string? code  NOT_FOUND when the call is over
---@return string? text
function worker:reply(route, value, status) end

---Ends a call with an error.
---@param route integer
---@param code gaterpc.Code
---@param class string
---@param message string
---@param traceback string
function worker:fail(route, code, class, message, traceback) end

---@param route integer
---@param value any
---@return boolean? more  false: wait for credit
---@return string? code
---@return string? text
function worker:item(route, value) end

---Sends the items that have gathered.
---@param route integer
function worker:flush(route) end

---Ends a stream.
---@param route integer
function worker:finish(route) end

---Who makes the call that next() has just given, when this is the broker's own worker; else nothing.
---@return string? client_id
---@return string? client_addr  nil: unknown
---@return string? body         the packed arguments
---@return string? user         nil: nobody in particular
function worker:caller() end

---Tells the guard which method has the thread.
---@param method string
function worker:label(method) end

---Tells the broker how many calls wait for calls of their own, so do not count against the credit.
---@param count integer
function worker:nested(count) end

---The next event: kind, then by kind, as in src/engine/worker.h: 1 route, method, deadline_ms, id, arguments;
---2 route, code; 3 route; 6 code, message; 8 code, text; others nothing. Nothing when there is none.
---@return integer? kind
---@return any ...
function worker:next() end

function worker:drain() end

---@return { requests: integer, cancelled: integer, malformed: integer, open: integer, up: boolean }
function worker:stats() end

function worker:close() end

-------------------------------------------------------------------------------------------------

---A broker in its thread. `owner:on_ended()` is called when it has ended after drain().
---@class gaterpc.core.majordomo
local majordomo = {}

---@param options table  heartbeat_ms, liveness, queue_len, queue_bytes, max_services, max_peers, max_calls, idle_ms,
---call_ms, gate01_ms, gate02_ms, mdp_ms, hwm, ipv6 (0 or 1)
---@param owner table
---@return gaterpc.core.majordomo? majordomo
---@return string? code
---@return string? text
function core.majordomo(options, owner) end

---@param side "front"|"back"
---@param address string
---@return string? bound
---@return string? code
---@return string? text
function majordomo:bind(side, address) end

---Peers of the older dialects need PLAIN credentials from now on; before the start.
---@param name string
---@param password string
---@return true? added
---@return string? code
---@return string? text
function majordomo:add_user(name, password) end

---@return true? started
---@return string? code
---@return string? text
function majordomo:start() end

function majordomo:drain() end

---@return table<string, integer> counters  as in src/engine/broker.h
function majordomo:stats() end

function majordomo:close() end

-------------------------------------------------------------------------------------------------

---A thread or process that runs jobs, one at a time. `owner:on_ready()` is called when it has said something.
---@class gaterpc.core.executor
local executor = {}

---Starts one.
---@param kind "thread"|"process"
---@param owner table
---@return gaterpc.core.executor? executor
---@return string? code
---@return string? text
function core.executor(kind, owner) end

---The first thing to be said.
---@param memory_limit integer  bytes, 0 for none
---@param window integer        items of a stream that may be under way
---@param window_bytes integer
---@param settings string       packed, for inside.lua
---@return true? sent
---@return string? code  UNAVAILABLE: it has ended
---@return string? text
function executor:hello(memory_limit, window, window_bytes, settings) end

---@param id integer
---@param deadline_ms integer   in core.now_ms(), or 0
---@param description string    packed, as the next two
---@param code string
---@param arguments string
---@param split integer         bytes of the positional ones
---@return true? sent
---@return string? code
---@return string? text
function executor:job(id, deadline_ms, description, code, arguments, split) end

---Tells a running job to stop; to be repeated.
---@param id integer
---@param code gaterpc.Code
---@param urgent boolean  it has had its chance to tidy up
function executor:cancel(id, code, urgent) end

---@param id integer
---@param count integer  items that were read
---@param bytes integer
function executor:credit(id, count, bytes) end

---Answers a question.
---@param id integer
function executor:answer(id, ...) end

---No more jobs will come.
function executor:quit() end

---Ends a process now, a thread as soon as it can be interrupted.
function executor:kill() end

---What it has said: kind, then by kind, as in src/exec/frame.h: 0 exit_code, signal (it has ended); 7 id, memory;
---8 id, bytes, value; 9 id, memory, seconds, is_stream, results; 10 id, memory, seconds, last, code, class, message,
---traceback; 11 id, arguments. Nothing when there is nothing.
---@return integer? kind
---@return any ...
function executor:next() end

---@return integer pid  0 for a thread
function executor:pid() end

---Lets it do the job that it has, and forgets it.
function executor:close() end

---An encoder or decoder whose work is done in libuv's pool, see gaterpc.codec and src/net/coder.h.
---@class gaterpc.core.coder
local coder = {}

---@param codec string    a name of core.codecs()
---@param options table   level, piece_bytes, whole, digest, mtime
---@param owner table     `owner:on_work()` is called when there is something to take
---@return gaterpc.core.coder? coder
---@return string? code
---@return string? text
function core.encoder(codec, options, owner) end

---@param codec string
---@param options table   max_bytes, max_length, window_bytes, digest
---@param owner table
---@return gaterpc.core.coder? coder
---@return string? code
---@return string? text
function core.decoder(codec, options, owner) end

---@param op "write"|"sync"|"finish"  a decoder only writes
---@param data string
---@return true? done
---@return string? code
---@return string? text
function coder:put(op, data) end

---What is ready: pieces (an encoder) or bytes (a decoder); false: on_work() follows; nil without a code:
---everything that was put in is used and taken.
---@return string[]|string|false|nil output
---@return string? code
---@return string? text
function coder:take() end

---@return boolean pending  take() will not give nil
function coder:pending() end

---@return integer bytes  that were put in and are not used yet
function coder:queued() end

---Of a decoder from which everything is taken.
---@return true? complete
---@return string? code
---@return string? text
function coder:finish() end

---@return boolean
function coder:ended() end

---@return string? digest  16 bytes
function coder:digest() end

function coder:close() end

---@class gaterpc.core.digest
local digest = {}

---@return gaterpc.core.digest? digest
---@return string? code
---@return string? text
function core.digest() end

---@param bytes string
function digest:add(bytes) end

---@return string 16 bytes
function digest:value() end

---@return gaterpc.Codec[]
function core.codecs() end

-- Keys of CURVE, in Z85.

---@return string? public
---@return string secret_or_code
---@return string? text
function core.curve_generate() end

---@param secret string
---@return string? public
---@return string? code  INVALID_ARGUMENT: it is no key
---@return string? text
function core.curve_public(secret) end

---@param text string
---@return boolean
function core.curve_is_key(text) end

return core
