/* spec.h - what the C modules of specs share. What fails gives nil and the code for users. */
#ifndef GR_SPEC_H
#define GR_SPEC_H

#include <lauxlib.h>
#include <lua.h>

#include "base/buf.h"
#include "base/err.h"

/* [-0, +2] */
static inline int fail(lua_State *L, int err)
{
    lua_pushnil(L);
    lua_pushstring(L, gr_err_code(err));
    return 2;
}

/* [-0, +1 or 2] True when rc is no error. */
static inline int done(lua_State *L, int rc)
{
    if (rc < 0)
        return fail(L, rc);
    lua_pushboolean(L, 1);
    return 1;
}

static inline gr_slice check_slice(lua_State *L, int index)
{
    size_t len;
    const char *data = luaL_checklstring(L, index, &len);
    return gr_slice_of(data, len);
}

/* [-0, +1] */
static inline void push_slice(lua_State *L, gr_slice slice)
{
    lua_pushlstring(L, slice.len > 0 ? (const char *)slice.data : "", slice.len);
}

#endif
