/* state.h - the Lua state of the host, and the one door from C into it.
 *
 * Everything that C has to tell Lua goes through one function, the dispatcher, which
 * lua/gaterpc/task.lua sets: dispatch(what, ...). C never resumes or yields a coroutine. */
#ifndef GR_STATE_H
#define GR_STATE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

#include "exec/executor.h"
#include "net/loop.h"
#include "net/zap_host.h"

typedef struct gr_state {
    lua_State *L;
    gr_loop *loop;
    gr_crew crew;     /* the executors */
    void *ctx;        /* ZeroMQ context */
    gr_zap_host *zap; /* who is let in; NULL until somebody asks */
    int dispatcher;   /* reference in the registry, or LUA_NOREF */
    int exit_code;
    bool exiting; /* gr_state_exit() was called */
    bool closing; /* gr_state_destroy() was called */
} gr_state;

/* Makes the loop, the context and the state with all modules. environment: false ignores LUA_PATH,
 * LUA_CPATH and LUA_INIT (the -E option). Returns 0, GR_ENOMEM, GR_EEXHAUSTED or GR_ELUA. */
int gr_state_new(gr_state **out, bool environment);

/* Closes the state, and the loop as its last act: endpoints go before it, and luv's handles find a
 * state to the end. */
void gr_state_destroy(gr_state **self);

/* Makes require find the Lua files of this project; for any state. [-0, +n] Returns 0. */
int gr_state_set_path(lua_State *L);

/* Calls fn(L) when the state is closed, after the finalizers of everything that was made later.
 * [-0, +0] */
void gr_state_at_end(lua_State *L, lua_CFunction fn);

/* The state that a lua_State belongs to; in all its coroutines. */
static inline gr_state *gr_state_of(lua_State *L)
{
    return *(gr_state **)lua_getextraspace(L);
}

/* Calls the function below nargs arguments. An error is printed with its traceback and ends the
 * host with exit code 1. [-(nargs + 1), +nresults on success] Returns 0, GR_ENOMEM or GR_ELUA. */
int gr_state_call(lua_State *L, int nargs, int nresults);

/* Pushes the dispatcher, for arguments and gr_state_call(). False before it is set. [-0, +1 or 0]
 */
bool gr_state_push_dispatcher(gr_state *self);

/* Tells the dispatcher what has happened to the owner of a box, see gr_bind_remember(); from
 * callbacks of the loop. Nothing happens when the owner has gone. */
void gr_state_tell_owner(gr_state *self, const char *what, void *box);

/* Ends the host after this turn of the loop. The first code that is not 0 stays. */
void gr_state_exit(gr_state *self, int code);

/* Makes a running Lua function raise "interrupted!" soon, when gr_state_interrupt() is called;
 * for all coroutines made from now on. */
void gr_state_allow_interrupts(gr_state *self);

/* Signal handlers may call it. */
void gr_state_interrupt(void);

/* Takes the interrupt back, when no function ran that it could hit: true for whoever comes first.
 */
bool gr_state_take_interrupt(void);

#endif
