/* inside_luv.c - require "luv" in an executor: Debian's, on a loop of this executor's own, which
 * its code runs itself.
 *
 * luv calls back on the lua_State that opened it: so that is one that stays, not the coroutine of
 * some job. A callback that fails makes luv.run raise, where luv by itself would end the whole
 * program. */
#include <lauxlib.h>
#include <luv/luv.h>
#include <stdlib.h>

#include "base/err.h"
#include "host/inside.h"
#include "host/state.h"

struct gr_inside_luv {
    gr_inside *inside;
    uv_loop_t loop;
    uv_async_t wake; /* makes luv.run look whether the job is to stop */
};

static char error_key, state_key; /* their addresses are keys in the registry */

static int traceback(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TSTRING)
        luaL_traceback(L, L, lua_tostring(L, 1), 1);
    return 1;
}

/* [-(nargs + 1), +0] */
static int call_back(lua_State *L, int nargs, int nresults, int flags)
{
    gr_inside *self = gr_inside_of(L);
    lua_State *before = self->running;
    int function = lua_gettop(L) - nargs;
    (void)nresults;
    (void)flags;
    if (before == NULL || !lua_checkstack(L, 2)) { /* NULL: the state is being closed */
        lua_settop(L, function - 1);
        return -LUA_ERRRUN;
    }
    lua_pushcfunction(L, traceback);
    lua_insert(L, function);
    self->running = L;
    int status = lua_pcall(L, nargs, 0, function);
    self->running = before;
    if (status != LUA_OK) {
        lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
        uv_stop(&self->luv->loop);
    }
    lua_settop(L, function - 1);
    return -status;
}

static void on_wake(uv_async_t *wake)
{
    struct gr_inside_luv *luv = wake->data;
    if (gr_port_stop(luv->inside->port) != 0)
        uv_stop(&luv->loop);
}

void gr_inside_wake_luv(struct gr_inside_luv *luv)
{
    uv_async_send(&luv->wake);
}

/* luv.run(mode): Lua's own run is the first upvalue */
static int f_run(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &error_key) == LUA_TNIL) {
        lua_pop(L, 1);
        return lua_gettop(L);
    }
    lua_pushnil(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &error_key);
    return lua_error(L);
}

/* luv 1.44.2's walk asserts on handles that are not its own (luv issue 721). */
static int not_here(lua_State *L)
{
    return luaL_error(L, "luv.%s is not available in an executor",
                      lua_tostring(L, lua_upvalueindex(1)));
}

static void change_functions(lua_State *L)
{
    static const char *const ours[] = {"walk", "loop_close"};
    lua_getfield(L, -1, "run");
    lua_pushcclosure(L, f_run, 1);
    lua_setfield(L, -2, "run");
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        lua_pushstring(L, ours[i]);
        lua_pushcclosure(L, not_here, 1);
        lua_setfield(L, -2, ours[i]);
    }
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int close_loop(lua_State *L)
{
    gr_inside *self = gr_inside_of(L);
    if (self->luv == NULL)
        return 0;
    uv_walk(&self->luv->loop, close_handle, NULL);
    uv_run(&self->luv->loop, UV_RUN_DEFAULT);
    uv_loop_close(&self->luv->loop);
    free(self->luv);
    self->luv = NULL;
    return 0;
}

static int open_loop(gr_inside *self)
{
    struct gr_inside_luv *luv = calloc(1, sizeof(*luv));
    if (luv == NULL)
        return GR_ENOMEM;
    luv->inside = self;
    if (uv_loop_init(&luv->loop) != 0) {
        free(luv);
        return GR_EEXHAUSTED;
    }
    if (uv_async_init(&luv->loop, &luv->wake, on_wake) != 0) {
        uv_loop_close(&luv->loop);
        free(luv);
        return GR_EEXHAUSTED;
    }
    luv->wake.data = luv;
    uv_unref((uv_handle_t *)&luv->wake);
    self->luv = luv;
    return 0;
}

int gr_inside_open_luv(lua_State *L)
{
    gr_inside *self = gr_inside_of(L);
    gr_state_at_end(L, close_loop);
    lua_State *stays = lua_newthread(L);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
    if (self->luv == NULL && open_loop(self) < 0)
        return luaL_error(L, "there are no descriptors left for luv's loop");
    luv_set_loop(stays, &self->luv->loop);
    luv_set_callback(stays, call_back);
    lua_pushcfunction(stays, luaopen_luv);
    if (lua_pcall(stays, 0, 1, 0) != LUA_OK) {
        lua_xmove(stays, L, 1);
        return lua_error(L);
    }
    change_functions(stays);
    lua_xmove(stays, L, 1);
    return 1;
}
