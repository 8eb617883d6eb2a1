-- Compressed results between clients and workers of different dialects: pieces, their end, and every way in which
-- they fail.

local engine = require "support.engine"
local mixed = require "support.mixed"
local msgpack = require "gaterpc.msgpack"

local dialects = { "gh1", "gate01", "gate02" }

describe("bulk", function()
  local world

  before_each(function()
    engine.at(1000)
    world = mixed.world()
  end)

  ---What a client of any dialect makes of it: its pieces, and how they end: "END", or the exception's texts.
  local function gather(c)
    local pieces = {}
    while true do
      local heard = assert(c:hear(), "nothing ends the pieces")
      if heard.payload == "HugeDataException" then -- gate01: the exception, and an end
        local texts = msgpack.unpack(c:hear "CHUNK".payload)
        c:hear "END"
        return pieces, texts
      elseif heard.type == "CHUNK" then
        pieces[#pieces + 1] = heard.payload
      elseif heard.type == "ERROR" then
        return pieces, select(2, mixed.outcome(heard))
      elseif heard.type == "END" then
        return pieces, "END"
      end -- else an answer to something else
    end
  end

  ---A worker's compressed result fails.
  local function fail(w, request)
    if w.dialect ~= "gate01" then return w:answer(request, "ERROR", "ValueError", true) end
    w:answer(request, "CHUNK", "HugeDataException")
    w:answer(request, "CHUNK", msgpack.pack { "ValueError", "message", "traceback" })
    w:answer(request, "END", 0)
  end

  for _, of_client in ipairs(dialects) do
    for _, of_worker in ipairs(dialects) do
      describe(("from a worker of %s to a client of %s"):format(of_worker, of_client), function()
        local c, w, request

        before_each(function()
          w = world:worker(of_worker, "S")
          c = world:client(of_client)
          if of_worker == "gh1" then w:hear "READY" end
          c:request {}
          request = w:hear "REQUEST"
          w:answer(request, "CHUNK", "one", 0, "gzip")
          w:answer(request, "CHUNK", "two", 1, "gzip")
        end)

        it("comes whole and in order", function()
          if of_worker == "gate02" then w:answer(request, "CHUNK", "") end -- as its workers do
          w:answer(request, "END", 2)
          local pieces, ending = gather(c)
          assert.equal("onetwo", table.concat(pieces))
          assert.equal("END", ending)
          assert.is_nil(c:hear())
          assert.equal(0, world:stats().calls)
        end)

        it("fails with the worker's exception", function()
          fail(w, request)
          local pieces, texts = gather(c)
          assert.is_true(("onetwo"):sub(1, #table.concat(pieces)) == table.concat(pieces))
          assert.same({ "ValueError", "message", "traceback" }, texts)
          assert.is_nil(c:hear())
          assert.equal(0, world:stats().calls)
          assert.equal(0, world:stats().cut)
        end)

        it("fails with the broker's words when the worker goes away", function()
          w:say { type = "BYE" }
          local _, texts = gather(c)
          assert.is_truthy(texts[2]:find "the worker went away with the call", texts[2])
          assert.is_nil(c:hear())
          assert.equal(0, world:stats().calls)
          assert.equal(0, world:stats().cut)
        end)

        it("fails with the broker's words when it stands still", function()
          if of_client == "gh1" then return end -- its reader decides how long it waits
          for ms = 2000, 61000, 1000 do
            w:say { type = "HEARTBEAT" }
            c:request { service = "Gate", method = "get_services" } -- a sign of life
            world:tick(ms)
          end
          local _, texts = gather(c)
          assert.is_truthy(texts[1]:find("TimeoutError", 1, true), texts[1])
          assert.equal(0, world:stats().calls)
        end)
      end)
    end
  end

  for _, of_client in ipairs { "gate01", "gate02" } do
    it("that a client of " .. of_client .. " could not read becomes an error that says so", function()
      for _, how in ipairs { { "zstd", 0 }, { "gzip", "RAW" } } do
        local w, c = world:worker("gh1", "S" .. how[1]), world:client(of_client)
        w:hear "READY"
        c:request { service = "S" .. how[1] }
        local request = w:hear "REQUEST"
        local flags = how[2] == "RAW" and 0x04 or 0
        w:say {
          type = "CHUNK", route = request.route, method = how[1], payload = "x", count = 1, split = 0, flags = flags,
        }
        w:hear "CANCEL"
        local _, texts = gather(c)
        assert.equal(3, #texts)
        assert.equal(0, world:stats().calls)
      end
    end)
  end
end)
