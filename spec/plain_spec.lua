local has = require "support.has"
local plain = require "gaterpc.plain"
local process = require "support.process"

describe("plain", function()
  after_each(process.finish)

  it("knows which addresses stay on this host", function()
    for _, address in ipairs {
      "tcp://127.0.0.1:5555", "tcp://127.255.0.9:*", "tcp://localhost:1", "tcp://[::1]:1", "tcp://::1:1",
      "tcp://[::ffff:127.0.0.1]:1", "ipc:///tmp/x", "ipc://@name", "inproc://x", "tcp://192.168.0.2:0;127.0.0.1:5555",
      "nothing", "",
    } do
      assert.is_false(plain.leaves_host(address), address)
    end
  end)

  it("takes every other address for one that leaves it", function()
    for _, address in ipairs {
      "tcp://10.0.0.1:5555", "tcp://example.org:1", "tcp://*:5555", "tcp://0.0.0.0:1", "tcp://[::]:1",
      "tcp://[fe80::1%eth0]:1", "tcp://127.0.0.1.example.org:1", "tcp://127.evil:1", "tcp://1127.0.0.1:1",
      "tcp://localhost.example.org:1",
      "tcp://127.0.0.1:0;10.0.0.1:5555",
      "tcp://eth0:1", "tcp://", "pgm://eth0;239.1.1.1:1", "tcp://[::ffff:10.0.0.1]:1",
      "ws://10.0.0.1:80",
    } do
      assert.is_true(plain.leaves_host(address), address)
    end
  end)

  -- What a script says and logs.
  local function run(text)
    local host = process.host([[
      local gaterpc = require "gaterpc"
      local PLAIN = { broker = "tcp://10.255.255.1:1", zap_mechanism = "PLAIN", zap_credentials = { "a", "unseen" } }
      local service = gaterpc.Service { name = "S" }
    ]] .. text)
    assert.equal(0, host:wait_exit(), host.err)
    return host
  end

  it("is refused where it can be heard, at the line that asks for it", function()
    local out = run([[
      print(select(2, pcall(function() gaterpc.Client(PLAIN) end)))
      print(select(2, pcall(function() service:create_worker(gaterpc.Worker:extend "W", PLAIN) end)))
      PLAIN.dialect = "gate01"
      print(select(2, pcall(function() gaterpc.Client(PLAIN) end)))
    ]]).out
    local lines = 0
    for line in out:gmatch "[^\n]+" do
      lines = lines + 1
      has(line, "script", ".lua:" .. (lines < 3 and lines + 3 or 7) .. ":",
        "leaves this host: use CURVE", "ZAP_PLAIN_OVER_TCP")
      assert.is_nil(line:find("unseen", 1, true))
    end
    assert.equal(3, lines)
  end)

  it("is warned of once for each address when a setting allows it", function()
    local host = run [[
      gaterpc.Settings.ZAP_PLAIN_OVER_TCP = true
      for _ = 1, 2 do
        gaterpc.Client(PLAIN):close()
        PLAIN.dialect = "gate02"
      end
      PLAIN.broker = "tcp://10.255.255.2:1"
      gaterpc.Client(PLAIN):close()
    ]]
    assert.equal(1, host:count_log "unencrypted over tcp://10%.255%.255%.1:1")
    assert.equal(1, host:count_log "unencrypted over tcp://10%.255%.255%.2:1")
    assert.is_nil(host.err:find("unseen", 1, true))
  end)
end)
