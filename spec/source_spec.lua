local interface = require "gaterpc.interface"
local source = require "gaterpc.source"
local process = require "support.process"

local Class = interface.class "Class"

--- First line.
---  A second one, indented.
---@param a integer
function Class.interface:documented(a, b, ...)
  return a, b, ...
end

-- An ordinary comment is none.
function Class.interface:bare()
  return 1 -- coroutine.yield in a comment
end

--- Above an assignment.
Class.interface.marked = interface.mark(function(self, x)
  for i = 1, x do coroutine.yield(i, self) end
end, { idempotent = true })

describe("what is read of a function's source", function()
  after_each(process.finish)

  it("is the comment of three dashes right above it", function()
    assert.equal("First line.\n A second one, indented.\n@param a integer", source.doc(Class.interface.documented))
    assert.is_nil(source.doc(Class.interface.bare))
    assert.equal("Above an assignment.", source.doc(Class.interface.marked))
    assert.is_nil(source.doc(print))
  end)

  it("is its parameters, without self", function()
    assert.equal("(a, b, ...)", source.signature(Class.interface.documented))
    assert.equal("()", source.signature(Class.interface.bare))
    assert.equal("(b, ...)", source.signature(Class.interface.documented, 1))
    assert.equal("(...)", source.signature(print))
  end)

  it("is whether it yields", function()
    assert.is_true(source.yields(Class.interface.marked))
    assert.is_false(source.yields(Class.interface.bare))
    assert.is_false(source.yields(print))
    assert.is_true(source.yields(assert(load "local x = 1\ncoroutine.yield(x)")))
    assert.is_false(source.yields(assert(load "local x = 1\nreturn x")))
  end)

  it("works for chunks out of strings, and not at all without a source", function()
    local fn = load "\n--- Said.\nlocal function f(x) return x end\nreturn f"()
    assert.equal("Said.", source.doc(fn))
    assert.is_nil(source.doc(load("return function() end", "=stdin")()))
  end)

  it("does not break when the file has become shorter", function()
    local path = process.file("short.lua", ("\n"):rep(50) .. "return function() end")
    local fn = dofile(path)
    process.file("short.lua", "x")
    assert.is_nil(source.doc(fn))
    assert.is_false(source.yields(fn))
  end)
end)

describe("an interface", function()
  it("holds functions and marked functions, and gives the functions", function()
    assert.equal("function", type(Class.interface.documented))
    assert.is_nil(Class.interface.unknown)
    local methods = interface.methods(Class)
    assert.is_true(methods.marked.idempotent)
    assert.is_true(methods.marked.stream)
    assert.is_false(methods.bare.stream)
  end)

  it("is inherited by classes that extend, which may put their own in its place", function()
    local Child = Class:extend "Child"
    function Child.interface:bare() return 2 end
    local methods = interface.methods(Child)
    assert.equal(2, methods.bare.fn())
    assert.equal(Class.interface.documented, methods.documented.fn)
    assert.equal(1, Class.interface.bare())
    assert.is_true(interface.derives(Child, Class))
    assert.is_false(interface.derives(Class, Child))
    assert.is_false(interface.derives({}, Class))
  end)

  it("describes its methods", function()
    local described = interface.describe(interface.methods(Class))
    assert.equal("(x)", described.marked.signature)
    assert.is_true(described.marked.idempotent)
    assert.is_nil(described.bare.doc)
  end)
end)
