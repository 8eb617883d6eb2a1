#include "host/state.h"

#include <luv/luv.h>
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "base/err.h"
#include "base/log.h"
#include "bind/bind.h"
#include "bind/bind_msgpack.h"
#include "net/endpoint.h"

/* Set by a signal handler, cleared by the hook that raises the error. */
static volatile sig_atomic_t interrupted;

/* --- the door ---------------------------------------------------------------------------- */

static int traceback(lua_State *L)
{
    const char *text = luaL_tolstring(L, 1, NULL);
    luaL_traceback(L, L, text, 1);
    return 1;
}

static int fail(lua_State *L)
{
    const char *text = lua_tostring(L, -1);
    fprintf(stderr, "gaterpc-host: %s\n", text != NULL ? text : "out of memory");
    lua_pop(L, 1);
    gr_state_exit(gr_state_of(L), 1);
    return GR_ELUA;
}

int gr_state_call(lua_State *L, int nargs, int nresults)
{
    if (!lua_checkstack(L, 2)) {
        lua_pop(L, nargs + 1);
        return GR_ENOMEM;
    }
    int handler = lua_gettop(L) - nargs; /* its place: under the function */
    lua_pushcfunction(L, traceback);
    lua_insert(L, handler);
    int status = lua_pcall(L, nargs, nresults, handler);
    lua_remove(L, handler);
    return status == LUA_OK ? 0 : fail(L);
}

bool gr_state_push_dispatcher(gr_state *self)
{
    if (self->dispatcher == LUA_NOREF || !lua_checkstack(self->L, 8))
        return false;
    lua_rawgeti(self->L, LUA_REGISTRYINDEX, self->dispatcher);
    return true;
}

void gr_state_tell_owner(gr_state *self, const char *what, void *box)
{
    if (!gr_state_push_dispatcher(self))
        return;
    lua_pushstring(self->L, what);
    if (gr_bind_push_owner(self->L, box))
        gr_state_call(self->L, 2, 0);
    else
        lua_pop(self->L, 2);
}

void gr_state_exit(gr_state *self, int code)
{
    if (self->exit_code == 0)
        self->exit_code = code;
    self->exiting = true;
    gr_loop_stop(self->loop);
}

/* --- the loop's owner -------------------------------------------------------------------- */

static void on_ready(void *arg, gr_endpoint *endpoint)
{
    gr_state_tell_owner(arg, "ready", gr_endpoint_owner(endpoint));
}

static void tell(gr_state *self, const char *what)
{
    if (!gr_state_push_dispatcher(self))
        return;
    lua_pushstring(self->L, what);
    gr_state_call(self->L, 1, 0);
}

static void on_due(void *arg)
{
    tell(arg, "due");
}

static void on_turn(void *arg)
{
    tell(arg, "turn");
}

/* luv's callbacks run as tasks, so that they may wait. Instead of f(...) we call
 * dispatch("call", f, ...). [-(nargs + 1), +0] */
static int call_from_luv(lua_State *L, int nargs, int nresults, int flags)
{
    (void)nresults;
    (void)flags;
    gr_state *self = gr_state_of(L);
    gr_loop_enter(self->loop);
    int function = lua_gettop(L) - nargs;
    if (!lua_checkstack(L, 4) || !gr_state_push_dispatcher(self)) {
        lua_settop(L, function - 1);
        return -LUA_ERRRUN;
    }
    lua_insert(L, function);
    lua_pushliteral(L, "call");
    lua_insert(L, function + 1);
    return gr_state_call(L, nargs + 2, 0) == 0 ? 0 : -LUA_ERRRUN;
}

/* --- interrupts -------------------------------------------------------------------------- */

/* What runs outside of coroutines is our own dispatcher, which must not fail, and hooks of users
 * that it packs and unpacks with, which may. */
static void on_count(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    if (!interrupted || (L == gr_state_of(L)->L && !gr_lua_in_hook(L)))
        return;
    interrupted = 0;
    luaL_error(L, "interrupted!");
}

void gr_state_allow_interrupts(gr_state *self)
{
    enum { INSTRUCTIONS = 10000 };
    lua_sethook(self->L, on_count, LUA_MASKCOUNT, INSTRUCTIONS);
}

void gr_state_interrupt(void)
{
    interrupted = 1;
}

bool gr_state_take_interrupt(void)
{
    bool taken = interrupted;
    interrupted = 0;
    return taken;
}

/* --- where the Lua files are ------------------------------------------------------------- */

/* Next to the program: build/gaterpc-host has ../lua, PREFIX/bin/gaterpc-host has
 * ../share/gaterpc/lua. */
static void push_lua_dir(lua_State *L)
{
    static const char *const places[] = {"/../share/gaterpc/lua", "/../lua"};
    char exe[4096], probe[4200];
    ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
    exe[len > 0 ? len : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash != NULL)
        *slash = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(probe, sizeof(probe), "%s%s/gaterpc/init.lua", exe, places[i]);
        if (access(probe, R_OK) == 0) {
            lua_pushfstring(L, "%s%s", exe, places[i]);
            return;
        }
    }
    lua_pushfstring(L, "%s/../lua", exe);
}

int gr_state_set_path(lua_State *L)
{
    luaL_requiref(L, "package", luaopen_package, 0);
    push_lua_dir(L);
    const char *dir = lua_tostring(L, -1);
    lua_getfield(L, -2, "path");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua;%s", dir, dir, lua_tostring(L, -1));
    lua_setfield(L, -4, "path");
    return 0;
}

/* --- luv --------------------------------------------------------------------------------- */

static int not_here(lua_State *L)
{
    return luaL_error(L, "%s belongs to the host, which runs the loop for you",
                      lua_tostring(L, lua_upvalueindex(1)));
}

/* require "luv": Debian's, on our loop. What would stop, close or walk the loop is closed off
 * (luv 1.44.2's walk asserts on handles that are not its own, luv issue 721). */
static int open_luv(lua_State *L)
{
    static const char *const ours[] = {"run", "stop", "walk", "loop_close"};
    luaopen_luv(L);
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        lua_pushfstring(L, "luv.%s", ours[i]);
        lua_pushcclosure(L, not_here, 1);
        lua_setfield(L, -2, ours[i]);
    }
    return 1;
}

/* --- life -------------------------------------------------------------------------------- */

static int close_loop(lua_State *L)
{
    gr_state *self = gr_state_of(L);
    if (self->closing)
        gr_loop_destroy(&self->loop);
    return 0;
}

void gr_state_at_end(lua_State *L, lua_CFunction fn)
{
    lua_newuserdatauv(L, 0, 0);
    lua_createtable(L, 0, 1);
    lua_pushcfunction(L, fn);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    luaL_ref(L, LUA_REGISTRYINDEX);
}

static int open_all(lua_State *L)
{
    gr_state *self = gr_state_of(L);
    gr_state_at_end(L, close_loop); /* luv's callbacks for handles that are closing find a state */
    luaL_openlibs(L);
    gr_state_set_path(L);
    luv_set_loop(L, gr_loop_uv(self->loop));
    luv_set_callback(L, call_from_luv);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, open_luv);
    lua_setfield(L, -2, "luv");
    gr_bind_preload(L);
    return 0;
}

int gr_state_new(gr_state **out, bool environment)
{
    gr_state *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->dispatcher = LUA_NOREF;
    gr_loop_owner owner = {.ready = on_ready, .due = on_due, .turn = on_turn, .arg = self};
    int rc = gr_loop_new(&self->loop, &owner);
    if (rc == 0)
        self->ctx = zmq_ctx_new();
    if (rc == 0 && self->ctx != NULL)
        self->L = luaL_newstate();
    if (rc == 0 && self->L == NULL)
        rc = GR_ENOMEM;
    if (rc == 0) {
        zmq_ctx_set(self->ctx, ZMQ_MAX_SOCKETS, zmq_ctx_get(self->ctx, ZMQ_SOCKET_LIMIT));
        *(gr_state **)lua_getextraspace(self->L) = self;
        if (!environment) {
            lua_pushboolean(self->L, 1);
            lua_setfield(self->L, LUA_REGISTRYINDEX, "LUA_NOENV");
        }
        lua_pushcfunction(self->L, open_all);
        rc = gr_state_call(self->L, 0, 0);
    }
    if (rc < 0) {
        gr_state_destroy(&self);
        return rc;
    }
    *out = self;
    return 0;
}

static void end_executors(gr_state *self)
{
    enum { LIMIT_MS = 2000 };
    unsigned left = gr_crew_end(&self->crew, LIMIT_MS);
    if (left > 0)
        gr_log(GR_LOG_WARNING, "gaterpc.executor",
               "%u executor threads are left behind: they are in C code that does not end", left);
}

void gr_state_destroy(gr_state **state)
{
    gr_state *self = *state;
    if (self == NULL)
        return;
    self->closing = true;
    self->dispatcher = LUA_NOREF; /* nothing calls into Lua any more */
    end_executors(self);
    if (self->loop != NULL)
        gr_loop_calm(self->loop);
    if (self->L != NULL)
        lua_close(self->L);
    gr_loop_destroy(&self->loop);
    gr_zap_host_destroy(&self->zap);
    if (self->ctx != NULL)
        zmq_ctx_term(self->ctx);
    free(self);
    *state = NULL;
}
