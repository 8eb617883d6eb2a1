/* fuzz_hooks.c - packing and unpacking with hooks and ext types that do anything: raise, yield,
 * give nothing, call us again, change what is packed, remove themselves. Whatever they do, the
 * stack is as it should be, errors have a code and a text, and what was packed is msgpack. */
#include <lauxlib.h>
#include <lualib.h>
#include <string.h>

#include "base/mp.h"
#include "bind/bind_msgpack_priv.h"
#include "fuzz.h"

static struct input in; /* what the hooks do next; one input at a time */

static int call_budget;

static void check_error(int rc, const gr_pack_error *error)
{
    CHECK(rc < 0 && gr_err_of_code(gr_err_code(rc)) < 0);
    CHECK(memchr(error->text, '\0', sizeof(error->text)) != NULL);
}

static void check_packed(gr_slice bytes)
{
    gr_mp_reader reader = gr_mp_read(bytes);
    CHECK(gr_mp_skip(&reader) == 0 && reader.at == reader.end);
}

static void pack_again(lua_State *L, int index)
{
    gr_buf out = {0};
    gr_pack_error error;
    int top = lua_gettop(L);
    int rc = gr_lua_pack(L, index, &out, &error);
    CHECK(lua_gettop(L) == top);
    if (rc == 0)
        check_packed(gr_buf_slice(&out));
    else
        check_error(rc, &error);
    gr_buf_clear(&out);
}

static void unpack_again(lua_State *L, gr_slice bytes)
{
    gr_pack_error error;
    int top = lua_gettop(L);
    int rc = gr_lua_unpack(L, bytes, NULL, &error);
    CHECK(lua_gettop(L) == top + (rc == 0));
    if (rc < 0) {
        check_error(rc, &error);
        lua_pushnil(L);
    }
}

static void set_hook(lua_State *L, int which, lua_CFunction fn)
{
    gr_lua_push_hook_functions(L);
    lua_getfield(L, -1, "set");
    lua_pushstring(L, gr_lua_hook_name((enum gr_lua_hook)which));
    if (fn != NULL)
        lua_pushcfunction(L, fn);
    else
        lua_pushnil(L);
    lua_call(L, 2, 0);
    lua_pop(L, 1);
}

static int raise_table(lua_State *L)
{
    lua_createtable(L, 0, 2);
    lua_pushstring(L, gr_err_code(-(int)(take_byte(&in) % 20)));
    lua_setfield(L, -2, "code");
    gr_slice text = take_bytes(&in);
    lua_pushlstring(L, (const char *)text.data, text.len);
    lua_setfield(L, -2, "message");
    return lua_error(L);
}

/* Adds keys to a table, or takes them away, and has Lua forget those that are gone. */
static void change(lua_State *L, int index)
{
    if (!lua_istable(L, index))
        return;
    bool adds = take_byte(&in) % 2 == 0;
    for (int i = take_byte(&in); i > 0; i--) {
        lua_pushinteger(L, i);
        if (adds)
            lua_pushinteger(L, i);
        else
            lua_pushnil(L);
        lua_rawset(L, index);
    }
    if (!adds) {
        lua_pushnil(L);
        lua_setfield(L, index, "a");
    }
    lua_gc(L, LUA_GCCOLLECT);
}

static int hook(lua_State *L)
{
    gr_slice text;
    lua_settop(L, 1);
    CHECK(gr_lua_in_hook(L));
    if (--call_budget < 0)
        return 1;
    switch (take_byte(&in) % 16) {
    case 0:
        return luaL_error(L, "boom");
    case 1:
        return raise_table(L);
    case 2:
        return 0;
    case 3:
        lua_pushnil(L);
        return 1;
    case 4:
        return lua_yield(L, 1);
    case 5:
        text = take_bytes(&in);
        lua_pushlstring(L, (const char *)text.data, text.len);
        return 1;
    case 6:
        pack_again(L, 1);
        return 1;
    case 7:
        unpack_again(L, take_bytes(&in));
        return 1;
    case 8:
        lua_rawgetp(L, LUA_REGISTRYINDEX, &in); /* the value that is packed */
        change(L, 2);
        return 1;
    case 9:
        set_hook(L, take_byte(&in) % GR_HOOKS, take_byte(&in) % 2 == 0 ? hook : NULL);
        return 1;
    case 10:
        lua_createtable(L, 1, 0);
        lua_pushcfunction(L, hook);
        lua_rawseti(L, -2, 1);
        return 1;
    case 11:
        lua_pushcfunction(L, hook);
        return 1;
    case 12:
        lua_pushnil(L);
        return lua_error(L);
    default:
        return 1;
    }
}

/* Type 5, of tables with a metatable that is in the registry. */
static void register_ext(lua_State *L)
{
    gr_lua_push_hook_functions(L);
    lua_getfield(L, -1, "set_ext");
    lua_pushinteger(L, 5);
    lua_pushliteral(L, "Point");
    luaL_newmetatable(L, "fuzz.Point");
    lua_pushcfunction(L, hook);
    lua_pushcfunction(L, hook);
    lua_call(L, 5, 0);
    lua_pop(L, 1);
}

/* The value on top, with some things in it that only hooks can pack. */
static void spice(lua_State *L)
{
    lua_createtable(L, 0, 4);
    lua_pushcfunction(L, hook);
    lua_setfield(L, -2, "a");
    lua_insert(L, -2);
    lua_setfield(L, -2, "b");
    lua_newtable(L);
    luaL_setmetatable(L, "fuzz.Point");
    lua_setfield(L, -2, "c");
    lua_newuserdatauv(L, 8, 0);
    lua_rawseti(L, -2, 7);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &in);
}

static void check_args(lua_State *L, gr_slice payload)
{
    gr_pack_error error;
    gr_buf out = {0};
    uint32_t split = 0;
    int top = lua_gettop(L);
    int n = gr_lua_unpack_args(L, payload, (uint32_t)payload.len, &error);
    CHECK(lua_gettop(L) == top + (n >= 0 ? n : 0));
    if (n < 0) {
        check_error(n, &error);
        return;
    }
    int rc = gr_lua_pack_args(L, top + 1, top + n, &out, &split, &error);
    CHECK(lua_gettop(L) == top + n);
    if (rc == 0)
        check_packed(gr_slice_of(out.data, split));
    else
        check_error(rc, &error);
    gr_buf_clear(&out);
    lua_settop(L, top);
}

static int run(lua_State *L)
{
    lua_settop(L, 0);
    uint8_t which = take_byte(&in);
    for (int i = 0; i < GR_HOOKS; i++) {
        if (which & (1 << i))
            set_hook(L, i, hook);
    }
    if (which & (1 << GR_HOOKS))
        register_ext(L);
    else
        luaL_newmetatable(L, "fuzz.Point");
    lua_settop(L, 0);
    gr_slice bytes = take_bytes(&in);
    unpack_again(L, bytes);
    spice(L);
    pack_again(L, -1);
    check_args(L, bytes);
    CHECK(!gr_lua_in_hook(L));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    in = (struct input){data, size};
    call_budget = 500;
    lua_State *L = luaL_newstate();
    CHECK(L != NULL);
    gr_lua_msgpack_setup(L);
    lua_pushcfunction(L, run);
    int status = lua_pcall(L, 0, 0, 0);
    CHECK(status == LUA_OK);
    CHECK(lua_gettop(L) == 0);
    lua_close(L);
    return 0;
}
