-- HugeData between real processes: how much memory it takes, and what a hostile worker can do with it.
-- GATERPC_LONG=1 sends a whole GiB, GATERPC_FIGURES=1 says what was measured.

local codecs = require "support.codecs"
local process = require "support.process"

local MIB = 1 << 20
local TOTAL = process.LONG and 1024 * MIB or 64 * MIB
local FIGURES = os.getenv "GATERPC_FIGURES"

local METHODS = [[
  -- Half noise, half zeros, so that half of it is on the way.
  local function feed(data, bytes)
    local uv, half = require "luv", 1 << 17
    for _ = 1, bytes // (2 * half) do
      if not data:put(uv.random(half) .. ("\0"):rep(half)) then return end
    end
    data:close()
  end
  function Class.interface:fed(where, bytes, module)
    local huge = gaterpc.HugeData { compress_module = module }
    if where == "host" then
      task.spawn(function() feed(huge.data, bytes) end)
    else
      self[where .. "_executor"]:submit(feed, huge.data, bytes)
    end
    return huge
  end
  function Class.interface:executor()
    return self.process_executor:run(function() return require "luv".os_getpid() end)
  end
]]

local READERS = {
  ["pieces()"] = [[
    local bytes = 0
    for piece in reply:pieces() do bytes = bytes + #piece end
    return bytes
  ]],
  ["write_to()"] = "return assert(reply:write_to(args[1]))",
}

describe("huge data of " .. TOTAL // MIB .. " MiB", function()
  after_each(process.finish)

  for _, case in ipairs { { "host", "zstd", "pieces()" }, { "thread", "gzip", "pieces()" },
    { "process", "lz4", "write_to()" } } do
    local where, module, how = table.unpack(case)
    it(("fed in a %s, in %s, read by %s, takes 64 MiB at most in any process [limit 120]"):format(where, module, how),
      function()
        local broker, front, back = process.broker "ipc"
        local worker = process.worker("H", METHODS, back, { })
        local path = process.dir() .. "/out"
        local reader = process.client(([[
          local core = require "gaterpc.core"
          local args = { ... }
          local function read(bytes)
            local reply = client:huge("H", "fed", %q, bytes, %q)
            %s
          end
          assert(read(1 << 20) == 1 << 20)
          print("idle", client.H.executor())
          io.read "l"
          local began = core.now()
          local bytes = read(%d)
          print("read", bytes, core.now() - began)
          io.read "l"
        ]]):format(where, module, READERS[how], TOTAL), front, { timeout = process.limit(60) },
          { args = { path }, keep_stdin = true, env = { GATERPC_HUGE_DATA_MAXBYTES = "2G" } })
        local pids = { broker = broker.pid, worker = worker.pid, client = reader.pid,
          executor = tonumber(reader:wait_line "idle\t(%d+)") }
        local idle = {}
        for name, pid in pairs(pids) do
          process.reset_peak(pid)
          idle[name] = process.peak_rss(pid)
        end
        reader:write "go\n"
        local bytes, seconds = reader:wait_line("read\t(%d+)\t(%S+)", 110)
        assert.equal(TOTAL, tonumber(bytes))
        if how == "write_to()" then assert.equal(TOTAL, require "luv".fs_stat(path).size) end
        for name, pid in pairs(pids) do
          local growth = process.peak_rss(pid) - idle[name]
          if FIGURES then print(("%s: the %s grew by %.1f MiB"):format(where, name, growth / MIB)) end
          assert.is_true(growth < 64 * MIB * process.SLOW, ("the %s grew by %.1f MiB"):format(name, growth / MIB))
        end
        if FIGURES then print(("%s, %s: %.0f MB/s"):format(where, module, TOTAL / seconds / 1e6)) end
      end)
  end
end)

describe("10 MiB that inflate to 10 GiB", function()
  after_each(process.finish)

  -- What a worker sends that does not compress but sends what it likes.
  local HOSTILE = [[
    local file = io.open(%q, "rb")
    local bomb = file:read "a"
    file:close()
    local codec, encoder = require "gaterpc.codec", nil
    encoder = codec.encoder
    local fake = { digest = function() return ("\0"):rep(16) end }
    function fake.pieces()
      local from = 1
      return function()
        local piece = bomb:sub(from, from + 65535)
        from = from + #piece
        return piece ~= "" and piece or nil
      end
    end
    local mt = { __index = fake, __close = function() end }
    local hostile
    function codec.encoder(...) return hostile and setmetatable({}, mt) or encoder(...) end
    function Class.interface:get(module, is_bomb)
      hostile = is_bomb
      return gaterpc.HugeData { data = not is_bomb and ("good"):rep(100000) or nil, compress_module = module }
    end
  ]]

  for _, module in ipairs { "gzip", "bz2" } do
    it(("in %s are refused at the ceiling, and the client lives on [limit 60]"):format(module), function()
      local bomb = codecs.bomb(module, 10)
      local _, front, back = process.broker "ipc"
      process.worker("H", HOSTILE:format(process.file("bomb", bomb)), back)
      local client = process.client(([[
        local core = require "gaterpc.core"
        local good = client.H.get(%q, false)
        local begun, cpu, inflated = core.now(), os.clock(), 0
        local value, err = client:try("H", "get", %q, true)
        local seconds = core.now() - begun
        cpu = os.clock() - cpu
        local ok, failure = pcall(function()
          for piece in client:huge("H", "get", %q, true):pieces() do inflated = inflated + #piece end
        end)
        print(value, err.code, err.method, ok, failure.code, inflated, client.H.get(%q, false) == good)
        print(err.message)
        print(seconds, cpu)
      ]]):format(module, module, module, module), front, { timeout = process.limit(20) })
      assert.equal(0, client:wait_exit(50), client.err)
      local said, message, seconds, cpu = client.out:match "^(.-)\n(.-)\n(%S+)\t(%S+)\n$"
      local values = {}
      for value in said:gmatch "[^\t]+" do values[#values + 1] = value end
      assert.same({ "nil", "RESOURCE_EXHAUSTED", "get", "false", "RESOURCE_EXHAUSTED" }, { table.unpack(values, 1, 5) })
      assert.equal("true", values[7])
      assert.is_true(tonumber(values[6]) <= 256 * MIB)
      assert.truthy(message:find "268435456")
      if FIGURES then
        print(("%s, %d bytes: refused after %.2f s, %.2f s of CPU: %s"):format(module, #bomb,
          tonumber(seconds), tonumber(cpu), message))
      end
      assert.is_true(tonumber(cpu) < 2 * process.SLOW, cpu) -- which says more than seconds on a busy machine
    end)
  end
end)
