#include "host/inside.h"

#include <lauxlib.h>
#include <lualib.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "bind/bind.h"
#include "host/state.h"

/* ThreadSanitizer holds signals back from code that computes. There, a hook looks at all times,
 * which makes Lua half as fast; else a signal sets one when it is needed. */
#ifdef __SANITIZE_THREAD__
enum { LOOKS_ALWAYS = true };
#else
enum { LOOKS_ALWAYS = false };
#endif

/* --- memory ------------------------------------------------------------------------------ */

static void *allocate(void *arg, void *block, size_t old_len, size_t len)
{
    gr_inside *self = arg;
    size_t old = block != NULL ? old_len : 0; /* without a block it is the kind of object */
    if (len == 0) {
        self->used -= old;
        free(block);
        return NULL;
    }
    if (self->limited && len > old && self->used - old + len > self->limit) {
        self->refused = true;
        return NULL;
    }
    void *moved = realloc(block, len);
    if (moved != NULL)
        self->used = self->used - old + len;
    return moved;
}

/* --- interrupts -------------------------------------------------------------------------- */

/* Code that was asked nicely gets the error once, and may tidy up; after that every instruction
 * fails. What runs outside of coroutines is our own, and must not fail. */
static void on_hook(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    gr_inside *self = gr_inside_of(L);
    bool stop = gr_port_stop(self->port) != 0 && L != self->L;
    bool urgent = stop && gr_port_stop_is_urgent(self->port);
    if (urgent)
        lua_sethook(L, on_hook, LUA_MASKCOUNT, 1);
    else if (!LOOKS_ALWAYS)
        lua_sethook(L, NULL, 0, 0);
    if (!stop || !(gr_port_take_interrupt(self->port) || urgent))
        return;
    gr_bind_push_stopped(L);
    lua_error(L);
}

/* From a signal handler, on the thread that may be in the midst of running->L: what lua_sethook()
 * is made for. */
static void interrupt(void *arg)
{
    gr_inside *self = arg;
    if (self->running != NULL && !LOOKS_ALWAYS)
        lua_sethook(self->running, on_hook, LUA_MASKCOUNT, 1);
    if (self->running != NULL && self->luv != NULL)
        gr_inside_wake_luv(self->luv);
}

/* coroutine.resume, wrap and close as Lua has them, but that they tell which coroutine runs. */

static int resume(lua_State *L, lua_State *co, int nargs) /* results, or -1 and the error on top */
{
    gr_inside *self = gr_inside_of(L);
    lua_State *before = self->running;
    int results;
    if (!lua_checkstack(co, nargs)) {
        lua_pushliteral(L, "too many arguments to resume");
        return -1;
    }
    lua_xmove(L, co, nargs);
    self->running = co;
    self->limited = self->limited || (L == self->L && self->limit > 0); /* not our own code */
    int status = lua_resume(co, L, nargs, &results);
    self->limited = self->limited && L != self->L;
    self->running = before;
    if (status != LUA_OK && status != LUA_YIELD) {
        lua_xmove(co, L, 1);
        return -1;
    }
    if (!lua_checkstack(L, results + 1)) {
        lua_pop(co, results);
        lua_pushliteral(L, "too many results to resume");
        return -1;
    }
    lua_xmove(co, L, results);
    return results;
}

static int f_resume(lua_State *L) /* coroutine.resume(co, ...) */
{
    lua_State *co = lua_tothread(L, 1);
    luaL_argexpected(L, co != NULL, 1, "coroutine");
    int results = resume(L, co, lua_gettop(L) - 1);
    lua_pushboolean(L, results >= 0);
    lua_insert(L, results >= 0 ? -results - 1 : -2);
    return results >= 0 ? results + 1 : 2;
}

/* After an error the coroutine's <close> variables run, which may change it: then it moves to L.
 * [-0, +1] */
static int reset(lua_State *L, lua_State *co)
{
    gr_inside *self = gr_inside_of(L);
    lua_State *before = self->running;
    self->running = co;
    int status = lua_resetthread(co);
    self->running = before;
    lua_xmove(co, L, 1);
    return status;
}

static int wrapped(lua_State *L)
{
    lua_State *co = lua_tothread(L, lua_upvalueindex(1));
    int results = resume(L, co, lua_gettop(L));
    if (results >= 0)
        return results;
    int status = lua_status(co);
    if (status != LUA_OK && status != LUA_YIELD) { /* its own error, not one of resume() */
        lua_pop(L, 1);
        status = reset(L, co);
    }
    if (status != LUA_ERRMEM && lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

static int f_wrap(lua_State *L) /* coroutine.wrap(fn) */
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    lua_pushcclosure(L, wrapped, 1);
    return 1;
}

static int f_close(lua_State *L) /* coroutine.close(co), its first upvalue being Lua's own */
{
    gr_inside *self = gr_inside_of(L);
    lua_State *before = self->running;
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    if (lua_tothread(L, 2) != NULL)
        self->running = lua_tothread(L, 2);
    int status = lua_pcall(L, lua_gettop(L) - 1, LUA_MULTRET, 0);
    self->running = before;
    return status == LUA_OK ? lua_gettop(L) : lua_error(L);
}

static void watch_coroutines(lua_State *L)
{
    luaL_requiref(L, LUA_COLIBNAME, luaopen_coroutine, 1);
    lua_pushcfunction(L, f_resume);
    lua_setfield(L, -2, "resume");
    lua_pushcfunction(L, f_wrap);
    lua_setfield(L, -2, "wrap");
    lua_getfield(L, -1, "close");
    lua_pushcclosure(L, f_close, 1);
    lua_setfield(L, -2, "close");
    lua_pop(L, 1);
}

/* --- life -------------------------------------------------------------------------------- */

static int open_all(lua_State *L)
{
    luaL_openlibs(L);
    gr_state_set_path(L);
    watch_coroutines(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, gr_inside_open_luv);
    lua_setfield(L, -2, "luv");
    gr_bind_preload_inside(L);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "gaterpc.inside");
    lua_call(L, 1, 1);
    lua_pushvalue(L, 1);
    lua_call(L, 1, 0); /* the settings in, all jobs done out */
    return 0;
}

static int traceback(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void serve(gr_inside *self, const gr_frame *hello)
{
    lua_State *L = self->L;
    self->limit = (size_t)hello->head.number;
    *(gr_inside **)lua_getextraspace(L) = self;
    if (LOOKS_ALWAYS)
        lua_sethook(L, on_hook, LUA_MASKCOUNT, 1000);
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, open_all);
    lua_pushlstring(L, (const char *)hello->body, hello->head.len);
    self->running = L;
    if (lua_pcall(L, 1, 0, 1) != LUA_OK)
        gr_log(GR_LOG_ERROR, "gaterpc.executor", "an executor has failed: %s", lua_tostring(L, -1));
    self->running = NULL; /* before the state goes: a signal may come at any time */
    lua_close(L);
}

void gr_inside_run(gr_port *port)
{
    gr_inside self = {.port = port};
    gr_frame *hello;
    gr_port_enter(port, interrupt, &self);
    if (gr_port_next(port, &hello) == 0) {
        self.L = lua_newstate(allocate, &self);
        if (self.L != NULL)
            serve(&self, hello);
        gr_frame_destroy(&hello);
    }
    gr_frame_destroy(&self.job);
    gr_buf_clear(&self.scratch);
    gr_port_leave(port);
}
