---@meta gaterpc.msgpack_core

---Lua values to msgpack and back (src/bind/bind_msgpack.h). Users have these functions in
---gaterpc.message_pack, where lua/gaterpc/msgpack.lua adds hooks and ext types.
---
---| Lua | msgpack |
---| --- | --- |
---| integer, float | int, float 64 (3.0 stays a float) |
---| string | str when it is well-formed UTF-8, else bin; `str` and `bin` force one |
---| `{}`, a sequence | array; `map` forces a map |
---| an object of a registered ext type | that ext, before everything below |
---| a table with any key that is not a positive integer | map |
---| a table with holes | an error; `array` sends nil for them |
---| `null`, nil | nil |
---| `uint64`, `ext`, `timestamp` | uint 64, ext, ext -1 |
---| anything else | what `prepare_pack` makes of it, or an error |
---
---Decoded values pack into what they came from, except that str and bin are told apart by their
---bytes, float 32 comes back as float 64, and a float key such as 1.0 becomes the integer key 1.
---Limits: depth 64, 32 MiB for a string, 2^20 elements, 250 arguments, 1 GiB packed.
---@class gaterpc.msgpack
---@field null lightuserdata  nil inside a container
local M = {}

---What a call returns with nil when the value or the bytes will not do.
---@alias gaterpc.msgpack.Code
---| "INVALID_ARGUMENT"    # cannot be packed; is not msgpack
---| "RESOURCE_EXHAUSTED"  # a limit, or out of memory
---| "INTERNAL"            # a hook failed; when its error object has a code: that

---@class gaterpc.Bin  packs as bin
---@field [1] string

---@class gaterpc.Str  packs as str, even when it is not UTF-8
---@field [1] string

---@class gaterpc.Ext
---@field type integer  -128 to 127
---@field data string

---A point in time. tostring() gives ISO 8601 in UTC; `==`, `<` and `<=` compare with its like.
---@class gaterpc.Timestamp
---@field seconds integer  since 1970-01-01T00:00:00Z, may be negative: what os.time() gives and os.date() takes
---@field nanoseconds integer  0 to 999999999
---@operator lt(gaterpc.Timestamp): boolean
---@operator le(gaterpc.Timestamp): boolean
local timestamp = {}

---@return number seconds  with a fraction; a double of our days is exact to about 0.2 µs
function timestamp:to_seconds() end

---An unsigned integer, made by decoding one above 2^63-1. Compares with its like (`==`, `<`, `<=`)
---and with integers (`<`, `<=` only: Lua never asks for `==` of unlike types). As the key of a
---table it is an object, equal to nothing but itself.
---@class gaterpc.Uint64: userdata
---@operator lt(gaterpc.Uint64|integer): boolean
---@operator le(gaterpc.Uint64|integer): boolean

---Packs one value. Metatables other than those of this module and of ext types are ignored.
---@param value any
---@return string? bytes
---@return gaterpc.msgpack.Code? code
---@return string? text  names the place: "a function at .user.callback cannot be packed"
function M.pack(value) end

---Unpacks a string that is exactly one value; with a position, the value that starts there.
---@param bytes string
---@param position? integer  from 1 to #bytes + 1
---@return any value  nil when it is msgpack nil, or when there is a code
---@return integer|gaterpc.msgpack.Code|nil next  the position behind the value, if you gave one
---@return string? text
function M.unpack(bytes, position) end

---Reads over one value without making it.
---@param bytes string
---@param position? integer  default: 1
---@return integer? next  the position behind the value
---@return gaterpc.msgpack.Code? code
---@return string? text
function M.skip(bytes, position) end

---Packs the arguments of a call: an array, and behind it a map when the last one is `kwargs`.
---@param ... any
---@return string? bytes
---@return integer|gaterpc.msgpack.Code split  the length of the array in bytes
---@return string? text
function M.pack_args(...) end

---The inverse of pack_args. Keyword arguments come last, as a `kwargs` table, unless empty.
---@param bytes string
---@param split integer
---@return true? ok
---@return any ...  the arguments, or a code and a text
function M.unpack_args(bytes, split) end

---Marks a table to be packed as a map, also when it is empty or a sequence.
---@generic T: table
---@param t? T  default: a new table
---@return T t  the same table
function M.map(t) end

---Marks a table to be packed as an array up to `t.n`, or else up to its largest key, with nil for
---holes. Other keys are an error.
---@generic T: table
---@param t? T  default: a new table
---@return T t  the same table
function M.array(t) end

---Marks a table as keyword arguments: keys must be strings. It is special as the last argument of
---a call; anywhere else it is a map.
---@generic T: table
---@param t? T  default: a new table
---@return T t  the same table
function M.kwargs(t) end

---True for a table that would be packed as a map.
---@param value any
---@return boolean
function M.is_map(value) end

---True for a table that would be packed as an array.
---@param value any
---@return boolean
function M.is_array(value) end

---@param value any
---@return boolean
function M.is_kwargs(value) end

---@param bytes string
---@return gaterpc.Bin
function M.bin(bytes) end

---@param text string
---@return gaterpc.Str
function M.str(text) end

---@param type integer  -128 to 127; -1 is the timestamp's
---@param data string
---@return gaterpc.Ext
function M.ext(type, data) end

---@param seconds integer
---@param nanoseconds? integer  default: 0
---@return gaterpc.Timestamp
function M.timestamp(seconds, nanoseconds) end

---@param seconds number  with a fraction, which is rounded to a nanosecond
---@return gaterpc.Timestamp
function M.timestamp_from(seconds) end

---@return gaterpc.Timestamp  the present time, of the wall clock
function M.timestamp_now() end

---@param value integer|string|gaterpc.Uint64  not negative; a string has decimal digits only
---@return gaterpc.Uint64
function M.uint64(value) end

---For lua/gaterpc/msgpack.lua, which checks what users give.
---@class gaterpc.msgpack.hooks
M.hooks = {}

---@param name string
---@param fn function?
function M.hooks.set(name, fn) end

---@param name string
---@return function?
function M.hooks.get(name) end

---@param type integer  one that is free, like the metatable
---@param name string
---@param metatable table?
---@param pack function?
---@param unpack function?
function M.hooks.set_ext(type, name, metatable, pack, unpack) end

---@param type integer
---@return boolean was_registered
function M.hooks.drop_ext(type) end

---@param key integer|table  a type or a metatable
---@return integer|"own"|nil type  "own" for the metatables of this module
---@return string? name
function M.hooks.ext_of(key) end

---@return boolean  whether the caller was called by a hook
function M.hooks.running() end

return M
