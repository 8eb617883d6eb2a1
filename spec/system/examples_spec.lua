local process = require "support.process"
local uv = require "luv"

---Runs an example and returns what it has printed.
local function output_of(file, ...)
  local host = process.host("examples/" .. file, { args = { ... } })
  local code = host:wait_exit(10)
  assert.equal(0, code, host.err)
  return host.out
end

-- Broker and service in processes of their own, and both addresses.
local function start_kv()
  local front, back = process.ipc "front", process.ipc "back"
  local broker = process.host("examples/broker.lua", { args = { front, back } })
  local service = process.host("examples/service.lua", { args = { back } })
  service:wait_log "SRkv is registered"
  return broker, service, front
end

local function end_well(...)
  for _, each in ipairs { ... } do
    each:kill "sigterm"
    assert.equal(0, each:wait_exit())
  end
end

local expected = {}

expected["quickstart.lua"] = function(file)
  local lines = {}
  for line in output_of(file):gmatch "[^\n]+" do lines[#lines + 1] = line end
  local methods = table.move(lines, 9, #lines, 1, {}) -- in any order
  table.sort(methods)
  assert.same({
    "a call:    \thello, world", "a stream:  \t1", "a stream:  \t4", "a stream:  \t9", "a stream:  \t16",
    "a stream:  \t25", "an error:  \tINVALID_ARGUMENT: this one always fails [Greeter.broken]",
    "its methods:" }, table.move(lines, 1, 8, 1, {}))
  assert.same({ "\tbroken()\t",
    "\tget_interfaces()\tThe methods of this worker: name -> { doc, signature, idempotent, stream }.",
    "\thello(name)\tSay hello to somebody.", "\tsquares(n)\tStream the squares of 1 .. n, one reply each." },
    methods)
end

expected["huge.lua"] = function(file)
  assert.equal("3000000\n98894\tline 10000\n1000000\n", output_of(file))
end

expected["keys.lua"] = function(file)
  assert.equal([[
ann.key	Ann	has the public key only
ann.key_secret	Ann	has the secret key
true
nil
PERMISSION_DENIED
client of tcp://127.0.0.1:7777
]], output_of(file))
end

expected["huge_executor.lua"] = function(file)
  assert.equal("538468\t999983\n", output_of(file))
end

expected["python.lua"] = function(file)
  assert.equal("gate01\t6\ngate02\t6\n", output_of(file))
end

expected["client.lua"] = function(file)
  local broker, service, front = start_kv()
  assert.equal([[
replaced	nil
replaced	2
the default service	three
item	0
item	1
item	2
keyword arguments	now at 12
nothing there	nil	nil
no such method	nil	NOT_FOUND
the broker itself	true
]], output_of(file, front))
  end_well(service, broker)
end

-- These two are run with client.lua; alone they serve until somebody ends them.
expected["service.lua"] = function()
  local _, service = start_kv()
  end_well(service)
end
expected["broker.lua"] = function()
  local broker = start_kv()
  end_well(broker)
end

expected["stream.lua"] = function(file)
  assert.equal("0\n1\n1\n2\n3\n5\n8\n13\n21\n34\nthe method was closed\n", output_of(file))
end

expected["nested.lua"] = function(file)
  local text = output_of(file):gsub("%d+ s left", "some s left")
  assert.equal("3 bottles, some s left\n2 bottles, some s left\n1 bottle, some s left\n", text)
end

expected["logging.lua"] = function(file)
  local host = process.host("examples/" .. file)
  assert.equal(0, host:wait_exit(10), host.err)
  assert.equal([[
{"level":"debug","logger":"shop.orders","message":"ann asks for tea"}
{"level":"info","logger":"shop.orders","message":"ordered","fields":{"auth":{"token":"***"},"user":"ann","what":"tea"}}
{"level":"debug","logger":"shop.orders","message":"bob\n2026 ERROR forged asks for nothing"}
{"level":"warning","logger":"shop.orders","message":"a strange order",]]
    .. [["fields":{"list":[],"user":"bob\n2026 ERROR forged"}}]] .. "\n" .. [[
{"level":"info","logger":"shop.orders","message":"ordered",]]
    .. [["fields":{"auth":{"token":"***"},"user":"bob\n2026 ERROR forged","what":"nothing"}}]] .. "\n", host.out)
  assert.truthy(host.err:find('^%S+ WARNING shop.orders a strange order list=%[%] user="bob\\n2026 ERROR forged"\n$'))
end

expected["secure.lua"] = function(file)
  local text = output_of(file):gsub("tcp://127.0.0.1:%d+", "ADDRESS")
  assert.equal([[
ann	open	gold
ann	close	nil	PERMISSION_DENIED: this user may not call this method [Vault.close]
eve	open	nil	UNAUTHENTICATED: the broker at ADDRESS does not accept the public key of zap_credentials [Vault.open]
eve	close	nil	UNAUTHENTICATED: the broker at ADDRESS does not accept the public key of zap_credentials [Vault.close]
]], text)
end

expected["hooks.lua"] = function(file)
  assert.equal([[
an object:   	(1.5, 2)
a file:      	a file
a timestamp: 	1970-01-01T00:00:00.000000000Z
a hook fails:	INVALID_ARGUMENT: the arguments cannot be unpacked: unpack_object_hook at argument 1: too cold ]]
    .. "[Plane.heat]\n", output_of(file))
end

expected["luv.lua"] = function(file)
  assert.equal("#!/USR/BIN/ENV GATERPC-HOS\n", output_of(file))
end

expected["codec.lua"] = function(file)
  assert.equal([[
in pieces:	true	1024	true	true
a bomb:	nil	RESOURCE_EXHAUSTED: gzip: it inflates to more than the 1048576 bytes that are allowed
one's own:	uryyb	hello
]], output_of(file))
end

expected["tasks.lua"] = function(file)
  assert.equal([[
spawn	3
all	a	b	c
race	2	quick
timeout	false	DEADLINE_EXCEEDED: it took longer than 0.01 s
closed
cancel	true
]], output_of(file))
end

expected["executor.lua"] = function(file)
  assert.equal("Primes has counted 9592\n2\n3\n5\n7\n11\nchecked\ttrue\nmapped\ttrue\tfalse\tfalse\n", output_of(file))
end

expected["sync_manager.lua"] = function(file)
  assert.equal([[
five 4, four 4, one 3, seven 5, six 3, three 5, two 3
no more work	no more work	7 done
with three letters	3	with four	2	with five	2
nothing left	nil	DEADLINE_EXCEEDED: the queue is empty
]], output_of(file))
end

local function read_file(name)
  local file <close> = assert(io.open(name))
  return file:read "a"
end

expected["settings.lua"] = function(file)
  assert.equal([[
DEFAULT_SERVICE	Clock	settings_file.lua:8
HEARTBEAT	0.25	settings.lua:8
LIVENESS	5	settings.lua:8
STREAM_IDLE	120.0	settings_file.lua:5
WORKER_CREDIT	256	settings_file.lua:7
QUEUE_MAXBYTES	67108864	settings_file.lua:6
a call of the default service	number
a Majordomo exists already
]], output_of(file))
end

-- For any script.
expected["settings_file.lua"] = function(file)
  local host = process.command { "--settings", "examples/" .. file, "-e",
    "print(require('gaterpc').Settings.HEARTBEAT)" }
  assert.equal(0, host:wait_exit(), host.err)
  assert.equal("0.5\n", host.out)
end


expected["pipeline.lua"] = function(file)
  assert.equal([[
nothing yet	nil	DEADLINE_EXCEEDED: the key was not set within 0 s
1	1
2	4
3	9
4	16
5	25
6	36
all done	0	0	semaphore with 2 of 2 permits free
]], output_of(file))
end

describe("the examples", function()
  after_each(process.finish)

  it("are in the manual pages as they are", function()
    assert.truthy(read_file("docs/logging.md"):find("```lua\n" .. read_file("examples/logging.lua") .. "```", 1, true))
  end)

  for file in uv.fs_scandir_next, assert(uv.fs_scandir "examples") do
    it(("%s does what it says"):format(file), function()
      assert.is_function(expected[file], "no expectation is listed for it")
      expected[file](file)
    end)

    it(("%s has fewer than 40 lines"):format(file), function()
      local count = 0
      for _ in io.lines("examples/" .. file) do count = count + 1 end
      assert.is_true(count < 40)
    end)
  end
end)
