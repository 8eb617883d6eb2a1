#include "bind/bind_msgpack_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mp.h"
#include "bind/bind.h"

/* Addresses of these are keys: metatable_keys[kind] of a kind's metatable in the registry, kind_key
 * of the kind's number in the metatable. */
static const char metatable_keys[GR_LUA_KINDS];
static const char kind_key;

enum gr_lua_kind gr_lua_kind_of_metatable(lua_State *L)
{
    lua_rawgetp(L, -1, &kind_key);
    lua_Integer kind = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return kind > 0 && kind < GR_LUA_KINDS ? (enum gr_lua_kind)kind : GR_LUA_PLAIN;
}

enum gr_lua_kind gr_lua_kind(lua_State *L, int index)
{
    if (!lua_getmetatable(L, index))
        return GR_LUA_PLAIN;
    enum gr_lua_kind kind = gr_lua_kind_of_metatable(L);
    lua_pop(L, 1);
    return kind;
}

void gr_lua_push_kind(lua_State *L, enum gr_lua_kind kind)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &metatable_keys[kind]);
}

gr_lua_shape gr_lua_shape_of(lua_State *L, int index)
{
    gr_lua_shape shape = {0};
    index = lua_absindex(L, index);
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        shape.count++;
        if (!lua_isinteger(L, -1))
            continue;
        lua_Integer key = lua_tointeger(L, -1);
        if (key > 0)
            shape.positive++;
        if (key > shape.largest)
            shape.largest = key;
    }
    if (shape.count > shape.positive)
        shape.kind = GR_LUA_MAP;
    else if (shape.count == shape.largest)
        shape.kind = GR_LUA_ARRAY;
    return shape;
}

static void set_kind(lua_State *L, enum gr_lua_kind kind) /* of the value on top */
{
    gr_lua_push_kind(L, kind);
    lua_setmetatable(L, -2);
}

/* Marks. */

static int mark(lua_State *L, enum gr_lua_kind kind)
{
    if (lua_gettop(L) == 0)
        lua_newtable(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    if (lua_getmetatable(L, 1)) {
        lua_pop(L, 1);
        enum gr_lua_kind before = gr_lua_kind(L, 1);
        luaL_argcheck(L, before >= GR_LUA_MAP && before <= GR_LUA_KWARGS, 1,
                      "the table has another metatable");
    }
    set_kind(L, kind);
    return 1;
}

static int f_map(lua_State *L) /* map(t = {}) -> t */
{
    return mark(L, GR_LUA_MAP);
}

static int f_array(lua_State *L) /* array(t = {}) -> t */
{
    return mark(L, GR_LUA_ARRAY);
}

static int f_kwargs(lua_State *L) /* kwargs(t = {}) -> t */
{
    return mark(L, GR_LUA_KWARGS);
}

/* How the value would be packed: GR_LUA_ARRAY, GR_LUA_MAP or GR_LUA_PLAIN for anything else. */
static enum gr_lua_kind container_kind(lua_State *L, int index)
{
    if (!lua_istable(L, index))
        return GR_LUA_PLAIN;
    enum gr_lua_kind kind = gr_lua_kind(L, index);
    if (kind == GR_LUA_KWARGS)
        return GR_LUA_MAP;
    if (kind == GR_LUA_MAP || kind == GR_LUA_ARRAY)
        return kind;
    return kind == GR_LUA_PLAIN ? gr_lua_shape_of(L, index).kind : GR_LUA_PLAIN;
}

static int f_is_map(lua_State *L) /* is_map(v) -> boolean */
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, container_kind(L, 1) == GR_LUA_MAP);
    return 1;
}

static int f_is_array(lua_State *L) /* is_array(v) -> boolean */
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, container_kind(L, 1) == GR_LUA_ARRAY);
    return 1;
}

static int f_is_kwargs(lua_State *L) /* is_kwargs(v) -> boolean */
{
    luaL_checkany(L, 1);
    lua_pushboolean(L, lua_istable(L, 1) && gr_lua_kind(L, 1) == GR_LUA_KWARGS);
    return 1;
}

/* Wrappers. */

static int wrap(lua_State *L, enum gr_lua_kind kind)
{
    luaL_checktype(L, 1, LUA_TSTRING);
    lua_createtable(L, 1, 0);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    set_kind(L, kind);
    return 1;
}

static int f_bin(lua_State *L) /* bin(s) -> wrapper */
{
    return wrap(L, GR_LUA_BIN);
}

static int f_str(lua_State *L) /* str(s) -> wrapper */
{
    return wrap(L, GR_LUA_STR);
}

static int wrapped_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_rawgeti(L, 1, 1);
    luaL_tolstring(L, -1, NULL);
    return 1;
}

static int f_ext(lua_State *L) /* ext(type, data) -> {type =, data =} */
{
    lua_Integer type = luaL_checkinteger(L, 1);
    luaL_argcheck(L, type >= INT8_MIN && type <= INT8_MAX, 1, "must be from -128 to 127");
    luaL_checktype(L, 2, LUA_TSTRING);
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, type);
    lua_setfield(L, -2, "type");
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, "data");
    set_kind(L, GR_LUA_EXT);
    return 1;
}

static int ext_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_pushstring(L, "type");
    lua_rawget(L, 1);
    lua_pushstring(L, "data");
    lua_rawget(L, 1);
    lua_pushfstring(L, "gaterpc.ext(%I, %I bytes)", lua_tointeger(L, 2),
                    (lua_Integer)lua_rawlen(L, 3));
    return 1;
}

/* Unsigned integers above 2^63-1 (and below, when somebody makes one). */

static bool to_uint64(lua_State *L, int index, uint64_t *value)
{
    if (lua_type(L, index) != LUA_TUSERDATA || lua_rawlen(L, index) != sizeof(*value) ||
        gr_lua_kind(L, index) != GR_LUA_UINT64)
        return false;
    memcpy(value, lua_touserdata(L, index), sizeof(*value));
    return true;
}

static bool parse_uint64(const char *text, size_t len, uint64_t *value)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        if (__builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)(text[i] - '0'), &sum))
            return false;
    }
    *value = sum;
    return len > 0;
}

static int f_uint64(lua_State *L) /* uint64(integer | decimal digits | uint64) -> uint64 */
{
    uint64_t value = 0;
    if (lua_type(L, 1) == LUA_TSTRING) {
        size_t len;
        const char *text = lua_tolstring(L, 1, &len);
        luaL_argcheck(L, parse_uint64(text, len, &value), 1, "not an unsigned 64-bit integer");
    } else if (!to_uint64(L, 1, &value)) {
        lua_Integer number = luaL_checkinteger(L, 1);
        luaL_argcheck(L, number >= 0, 1, "must not be negative");
        value = (uint64_t)number;
    }
    memcpy(lua_newuserdatauv(L, sizeof(value), 0), &value, sizeof(value));
    set_kind(L, GR_LUA_UINT64);
    return 1;
}

static int uint64_tostring(lua_State *L)
{
    uint64_t value;
    char text[24];
    luaL_argexpected(L, to_uint64(L, 1, &value), 1, "gaterpc.uint64");
    snprintf(text, sizeof(text), "%" PRIu64, value);
    lua_pushstring(L, text);
    return 1;
}

static int uint64_eq(lua_State *L)
{
    uint64_t a, b;
    lua_pushboolean(L, to_uint64(L, 1, &a) && to_uint64(L, 2, &b) && a == b);
    return 1;
}

/* -1, 0 or 1 for the operands at 1 and 2, of which one is an uint64 and the other that or an
 * integer. */
static int compare_uint64(lua_State *L)
{
    uint64_t sides[2];
    for (int i = 0; i < 2; i++) {
        if (to_uint64(L, i + 1, &sides[i]))
            continue;
        lua_Integer number = luaL_checkinteger(L, i + 1);
        if (number < 0)
            return i == 0 ? -1 : 1;
        sides[i] = (uint64_t)number;
    }
    return (sides[0] > sides[1]) - (sides[0] < sides[1]);
}

static int uint64_lt(lua_State *L)
{
    lua_pushboolean(L, compare_uint64(L) < 0);
    return 1;
}

static int uint64_le(lua_State *L)
{
    lua_pushboolean(L, compare_uint64(L) <= 0);
    return 1;
}

/* The module's functions. */

enum { SCRATCH_KEPT = 64 << 10 };

static int scratch_gc(lua_State *L)
{
    gr_buf_clear(lua_touserdata(L, 1));
    return 0;
}

/* [-0, +1; on an error -0, +0] Pushes what was packed. While hooks ran the buffer was nobody
 * else's; before this can raise it belongs to the collector again. */
static void push_packed(lua_State *L, gr_buf *kept, const gr_buf *packed, int rc)
{
    gr_buf_clear(kept); /* a hook may have packed, too */
    *kept = *packed;
    if (rc == 0)
        lua_pushlstring(L, (const char *)kept->data, kept->len);
    if (kept->cap > SCRATCH_KEPT)
        gr_buf_clear(kept);
}

static int f_pack(lua_State *L) /* pack(v) -> string | nil, code, text */
{
    gr_pack_error error;
    luaL_checkany(L, 1);
    gr_buf *kept = lua_touserdata(L, lua_upvalueindex(1));
    gr_buf buf = gr_bind_take_buf(kept);
    int rc = gr_lua_pack(L, 1, &buf, &error);
    push_packed(L, kept, &buf, rc);
    return rc == 0 ? 1 : gr_bind_fail(L, rc, error.text);
}

static int f_pack_args(lua_State *L) /* pack_args(...) -> string, split | nil, code, text */
{
    gr_pack_error error;
    uint32_t split = 0;
    gr_buf *kept = lua_touserdata(L, lua_upvalueindex(1));
    gr_buf buf = gr_bind_take_buf(kept);
    int rc = gr_lua_pack_args(L, 1, lua_gettop(L), &buf, &split, &error);
    push_packed(L, kept, &buf, rc);
    if (rc < 0)
        return gr_bind_fail(L, rc, error.text);
    lua_pushinteger(L, split);
    return 2;
}

static const char *why_not(int rc)
{
    if (rc == GR_EINVAL)
        return "not msgpack, cut short, or a key that a Lua table cannot have";
    if (rc == GR_EEXHAUSTED)
        return "deeper than 64 levels, longer than 32 MiB, or more than 1048576 elements";
    return gr_err_text(rc);
}

static int fail_unpack(lua_State *L, int rc, const gr_pack_error *error)
{
    return gr_bind_fail(L, rc, error->text[0] != '\0' ? error->text : why_not(rc));
}

/* The bytes of the string at 1 from the optional position at 2 on. */
static gr_slice check_bytes(lua_State *L)
{
    size_t len;
    luaL_checktype(L, 1, LUA_TSTRING);
    const char *text = lua_tolstring(L, 1, &len);
    lua_Integer pos = luaL_optinteger(L, 2, 1);
    luaL_argcheck(L, pos >= 1 && (lua_Unsigned)pos <= len + 1, 2, "outside the string");
    return gr_slice_of(text + pos - 1, len - (size_t)(pos - 1));
}

/* unpack(s) -> v | nil, code, text; unpack(s, pos) -> v, next position | nil, code, text */
static int f_unpack(lua_State *L)
{
    gr_slice bytes = check_bytes(L);
    size_t used;
    gr_pack_error error;
    bool is_part = !lua_isnoneornil(L, 2);
    int rc = gr_lua_unpack(L, bytes, &used, &error);
    if (rc < 0)
        return fail_unpack(L, rc, &error);
    if (!is_part && used < bytes.len)
        return gr_bind_fail(L, GR_EINVAL, "more bytes follow the value");
    if (!is_part)
        return 1;
    lua_pushinteger(L, luaL_checkinteger(L, 2) + (lua_Integer)used);
    return 2;
}

static int f_unpack_args(lua_State *L) /* unpack_args(s, split) -> true, ... | nil, code, text */
{
    size_t len;
    luaL_checktype(L, 1, LUA_TSTRING);
    const char *text = lua_tolstring(L, 1, &len);
    lua_Integer split = luaL_checkinteger(L, 2);
    luaL_argcheck(L, split >= 0 && (lua_Unsigned)split <= len && split <= UINT32_MAX, 2,
                  "outside the string");
    lua_settop(L, 1);
    lua_pushboolean(L, true);
    gr_pack_error error;
    int rc = gr_lua_unpack_args(L, gr_slice_of(text, len), (uint32_t)split, &error);
    if (rc < 0)
        return fail_unpack(L, rc, &error);
    return rc + 1;
}

static int f_skip(lua_State *L) /* skip(s, pos = 1) -> next position | nil, code, text */
{
    gr_slice bytes = check_bytes(L);
    gr_mp_reader reader = gr_mp_read(bytes);
    int rc = gr_mp_skip(&reader);
    if (rc < 0)
        return gr_bind_fail(L, rc, why_not(rc));
    lua_pushinteger(L, luaL_optinteger(L, 2, 1) + (lua_Integer)(reader.at - bytes.data));
    return 1;
}

static const luaL_Reg uint64_meta[] = {{"__tostring", uint64_tostring},
                                       {"__eq", uint64_eq},
                                       {"__lt", uint64_lt},
                                       {"__le", uint64_le},
                                       {NULL, NULL}};
static const luaL_Reg wrapped_meta[] = {{"__tostring", wrapped_tostring}, {NULL, NULL}};
static const luaL_Reg ext_meta[] = {{"__tostring", ext_tostring}, {NULL, NULL}};

static const struct {
    const char *name;
    const luaL_Reg *meta;
    const char *fields[2]; /* at 1 and 2 of the metatable, for gr_lua_pack() */
    const luaL_Reg *methods;
} kinds[GR_LUA_KINDS] = {
    [GR_LUA_MAP] = {.name = "gaterpc.map"},
    [GR_LUA_ARRAY] = {.name = "gaterpc.array", .fields = {"n"}},
    [GR_LUA_KWARGS] = {.name = "gaterpc.kwargs"},
    [GR_LUA_BIN] = {.name = "gaterpc.bin", .meta = wrapped_meta},
    [GR_LUA_STR] = {.name = "gaterpc.str", .meta = wrapped_meta},
    [GR_LUA_EXT] = {"gaterpc.ext", ext_meta, {"type", "data"}, NULL},
    [GR_LUA_TIMESTAMP] = {"gaterpc.timestamp",
                          gr_lua_timestamp_meta,
                          {"seconds", "nanoseconds"},
                          gr_lua_timestamp_methods},
    [GR_LUA_UINT64] = {.name = "gaterpc.uint64", .meta = uint64_meta},
};

void gr_lua_msgpack_setup(lua_State *L)
{
    luaL_checkstack(L, 4, NULL);
    for (int kind = GR_LUA_MAP; kind < GR_LUA_KINDS; kind++) {
        gr_lua_push_kind(L, (enum gr_lua_kind)kind);
        bool is_done = !lua_isnil(L, -1);
        lua_pop(L, 1);
        if (is_done)
            continue;
        lua_createtable(L, 2, 6);
        lua_pushinteger(L, kind);
        lua_rawsetp(L, -2, &kind_key);
        lua_pushstring(L, kinds[kind].name);
        lua_setfield(L, -2, "__name");
        for (int i = 0; i < 2; i++) {
            lua_pushstring(L, kinds[kind].fields[i]); /* nil for NULL */
            lua_rawseti(L, -2, i + 1);
        }
        if (kinds[kind].meta != NULL)
            luaL_setfuncs(L, kinds[kind].meta, 0);
        if (kinds[kind].methods != NULL) {
            lua_newtable(L);
            luaL_setfuncs(L, kinds[kind].methods, 0);
            lua_setfield(L, -2, "__index");
        }
        lua_rawsetp(L, LUA_REGISTRYINDEX, &metatable_keys[kind]);
    }
}

static const luaL_Reg functions[] = {{"map", f_map},           {"array", f_array},
                                     {"kwargs", f_kwargs},     {"is_map", f_is_map},
                                     {"is_array", f_is_array}, {"is_kwargs", f_is_kwargs},
                                     {"bin", f_bin},           {"str", f_str},
                                     {"ext", f_ext},           {"uint64", f_uint64},
                                     {"unpack", f_unpack},     {"unpack_args", f_unpack_args},
                                     {"skip", f_skip},         {NULL, NULL}};
static const luaL_Reg packing_functions[] = {
    {"pack", f_pack}, {"pack_args", f_pack_args}, {NULL, NULL}};

static void push_scratch(lua_State *L)
{
    gr_buf *buf = lua_newuserdatauv(L, sizeof(*buf), 0);
    *buf = (gr_buf){0};
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, scratch_gc);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
}

int luaopen_gaterpc_msgpack(lua_State *L)
{
    gr_lua_msgpack_setup(L);
    luaL_newlib(L, functions);
    luaL_setfuncs(L, gr_lua_timestamp_functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    gr_lua_push_hook_functions(L);
    lua_setfield(L, -2, "hooks");
    push_scratch(L);
    luaL_setfuncs(L, packing_functions, 1);
    return 1;
}
