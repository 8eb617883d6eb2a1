#include "bind/bind.h"

#include <sys/random.h>

#include "base/err.h"
#include "bind/bind_msgpack.h"

enum { KEEP = 64 * 1024 };

int gr_bind_fail(lua_State *L, int err, const char *text)
{
    lua_pushnil(L);
    lua_pushstring(L, gr_err_code(err));
    lua_pushstring(L, text != NULL ? text : gr_err_text(err));
    return 3;
}

void gr_bind_class(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction close)
{
    luaL_newmetatable(L, type);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__close");
    lua_pop(L, 1);
}

static char boxes_key; /* its address names the table of boxes in the registry */

void gr_bind_remember(lua_State *L, void *box, int owner)
{
    owner = lua_absindex(L, owner);
    lua_pushvalue(L, owner);
    lua_setiuservalue(L, -2, 1);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &boxes_key) == LUA_TNIL) {
        lua_pop(L, 1);
        lua_newtable(L);
        lua_newtable(L);
        lua_pushliteral(L, "v");
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &boxes_key);
    }
    lua_pushvalue(L, -2);
    lua_rawsetp(L, -2, box);
    lua_pop(L, 1);
}

bool gr_bind_push_owner(lua_State *L, void *box)
{
    int top = lua_gettop(L);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &boxes_key) == LUA_TTABLE &&
        lua_rawgetp(L, -1, box) == LUA_TUSERDATA) {
        lua_getiuservalue(L, -1, 1);
        lua_replace(L, top + 1);
        lua_settop(L, top + 1);
        return true;
    }
    lua_settop(L, top);
    return false;
}

const char *gr_bind_opt_string(lua_State *L, int index, const char *name, const char *fallback)
{
    int type = lua_getfield(L, index, name);
    if (type != LUA_TNIL && type != LUA_TSTRING)
        luaL_error(L, "option %s: a string expected, got %s", name, lua_typename(L, type));
    const char *text = type == LUA_TNIL ? fallback : lua_tostring(L, -1);
    lua_pop(L, 1); /* the options table keeps the string alive */
    return text;
}

lua_Integer gr_bind_opt_integer(lua_State *L, int index, const char *name, lua_Integer fallback)
{
    int type = lua_getfield(L, index, name);
    int is_integer = 0;
    lua_Integer value = type == LUA_TNIL ? fallback : lua_tointegerx(L, -1, &is_integer);
    if (type != LUA_TNIL && (!is_integer || value < 0 || value > UINT32_MAX))
        luaL_error(L, "option %s: an integer from 0 to 4294967295 expected", name);
    lua_pop(L, 1);
    return value;
}

gr_slice gr_bind_check_slice(lua_State *L, int index)
{
    size_t len;
    const char *text = luaL_checklstring(L, index, &len);
    return gr_slice_of(text, len);
}

uint64_t gr_bind_random(void)
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof(number), 0) != sizeof(number))
        number = (uint64_t)(uintptr_t)&number;
    return number | 1;
}

gr_buf gr_bind_take_buf(gr_buf *kept)
{
    gr_buf buf = *kept;
    *kept = (gr_buf){0};
    buf.len = 0;
    return buf;
}

void gr_bind_keep_buf(gr_buf *kept, gr_buf *buf)
{
    if (kept->data != NULL || buf->cap > KEEP) {
        gr_buf_clear(buf);
        return;
    }
    *kept = *buf;
    *buf = (gr_buf){0};
}

void gr_bind_check_no_hook(lua_State *L)
{
    if (gr_lua_in_hook(L))
        luaL_error(L, "events cannot be taken in a hook");
}
