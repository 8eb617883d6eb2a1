/* bind_core.c - the module gaterpc.core: the loop, and the functions and classes of the other
 * bindings.
 */
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mp.h"
#include "bind/bind.h"
#include "bind/bind_msgpack.h"
#include "host/state.h"

static int f_set_dispatcher(lua_State *L) /* core.set_dispatcher(function(what, ...)) */
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    gr_state *state = gr_state_of(L);
    luaL_unref(L, LUA_REGISTRYINDEX, state->dispatcher);
    lua_settop(L, 1);
    state->dispatcher = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int f_now(lua_State *L) /* core.now() -> seconds of the monotonic clock, float */
{
    lua_pushnumber(L, (lua_Number)gr_clock_ns() / 1e9);
    return 1;
}

static int f_is_text(lua_State *L) /* core.is_text(bytes) -> boolean: they are UTF-8 */
{
    gr_slice bytes = gr_bind_check_slice(L, 1);
    lua_pushboolean(L, gr_mp_is_utf8(bytes.data, bytes.len));
    return 1;
}

static int f_now_ms(lua_State *L) /* core.now_ms() -> the same in whole milliseconds */
{
    lua_pushinteger(L, gr_clock_ms());
    return 1;
}

static int f_set_timer(lua_State *L)
/* core.set_timer(at_ms or nil, keep): "due" comes then; with keep the host waits for it */
{
    gr_loop_set_timer(gr_state_of(L)->loop, luaL_optinteger(L, 1, GR_NEVER), lua_toboolean(L, 2));
    return 0;
}

static int f_want_turn(lua_State *L) /* core.want_turn(): "turn" is not to be waited for */
{
    gr_loop_want_turn(gr_state_of(L)->loop);
    return 0;
}

static int f_hold(lua_State *L) /* core.hold(on): keep the process running, counted */
{
    gr_loop *loop = gr_state_of(L)->loop;
    if (lua_toboolean(L, 1))
        gr_loop_hold(loop);
    else
        gr_loop_release(loop);
    return 0;
}

static int f_exit(lua_State *L) /* core.exit(code): after this turn */
{
    gr_state_exit(gr_state_of(L), (int)luaL_optinteger(L, 1, 0));
    return 0;
}

static int f_busy_limit(lua_State *L) /* core.busy_limit(ms): when the guard complains; 0 never */
{
    gr_loop_set_busy_limit(gr_state_of(L)->loop, (uint32_t)luaL_checkinteger(L, 1));
    return 0;
}

static int f_isatty(lua_State *L) /* core.isatty(fd) -> boolean */
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int f_allow_interrupts(lua_State *L) /* core.allow_interrupts(): Ctrl-C stops running code */
{
    gr_state_allow_interrupts(gr_state_of(L));
    return 0;
}

/* What needs neither loop nor connection. */
static const luaL_Reg common[] = {
    {"now", f_now},       {"is_text", f_is_text}, {"now_ms", f_now_ms},
    {"isatty", f_isatty}, {NULL, NULL},
};

static int open_core(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"set_dispatcher", f_set_dispatcher},
        {"set_timer", f_set_timer},
        {"want_turn", f_want_turn},
        {"hold", f_hold},
        {"exit", f_exit},
        {"busy_limit", f_busy_limit},
        {"allow_interrupts", f_allow_interrupts},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    luaL_setfuncs(L, common, 0);
    gr_lua_msgpack_setup(L);
    gr_bind_client(L);
    gr_bind_worker(L);
    gr_bind_majordomo(L);
    gr_bind_codec(L);
    gr_bind_curve(L);
    gr_bind_repl(L);
    gr_bind_executor(L);
    gr_bind_zap(L);
    gr_bind_log(L);
    return 1;
}

static int open_core_inside(lua_State *L)
{
    luaL_newlib(L, common);
    gr_lua_msgpack_setup(L);
    gr_bind_log(L);
    return 1;
}

static void preload(lua_State *L, lua_CFunction open_this_core)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, open_this_core);
    lua_setfield(L, -2, "gaterpc.core");
    lua_pushcfunction(L, luaopen_gaterpc_msgpack);
    lua_setfield(L, -2, "gaterpc.msgpack_core");
}

void gr_bind_preload(lua_State *L)
{
    preload(L, open_core);
    lua_pop(L, 1);
}

void gr_bind_preload_inside(lua_State *L)
{
    preload(L, open_core_inside);
    lua_pushcfunction(L, gr_bind_open_port);
    lua_setfield(L, -2, "gaterpc.port");
    lua_pop(L, 1);
}
