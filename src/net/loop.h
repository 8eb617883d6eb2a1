/* loop.h - the one place where the Lua thread blocks: a libuv loop that endpoints hang on.
 *
 * The same loop runs luv's handles, timers of tasks and the terminal. Endpoints are received
 * from in the loop's check phase and sent from in its prepare phase; whoever owns the loop is
 * told which endpoint has events and pulls them. A guard thread keeps the endpoints alive
 * while Lua is busy. One thread uses a loop, except where it says otherwise. */
#ifndef GR_LOOP_H
#define GR_LOOP_H

#include <stdbool.h>
#include <uv.h>

#include "base/buf.h"

typedef struct gr_loop gr_loop;
typedef struct gr_endpoint gr_endpoint;

/* The owner of a loop. All are called on the loop's thread, from gr_loop_run(). */
typedef struct gr_loop_owner {
    /* The endpoint has events: pull them. */
    void (*ready)(void *arg, gr_endpoint *endpoint);
    /* The timer set by gr_loop_set_timer() is due; after everybody who is ready. */
    void (*due)(void *arg);
    /* gr_loop_want_turn() was said. */
    void (*turn)(void *arg);
    void *arg;
} gr_loop_owner;

/* Makes a loop and starts its guard. Returns 0, GR_ENOMEM or GR_EEXHAUSTED. */
int gr_loop_new(gr_loop **out, const gr_loop_owner *owner);

/* Ends the guard and closes every handle that is left, luv's too. Endpoints must be gone. */
void gr_loop_destroy(gr_loop **self);

/* Lets handles that are closing be closed, and gives libuv's threads a moment to finish. To be
 * called before whatever their callbacks need goes away. */
void gr_loop_calm(gr_loop *self);

/* For handles of others. */
uv_loop_t *gr_loop_uv(gr_loop *self);

/* Runs until nothing is left that could bring work: no busy endpoint, no timer, no handle. */
void gr_loop_run(gr_loop *self);

/* Runs until something has happened, at least once through. Returns false when nothing is left. */
bool gr_loop_turn(gr_loop *self);

/* Makes gr_loop_run() return after this turn. Any thread, and signal handlers, may call it. */
void gr_loop_stop(gr_loop *self);

/* Calls owner.due at at_ms (gr_clock_ms); GR_NEVER for not at all. Keeps the loop running when
 * `keep`. */
void gr_loop_set_timer(gr_loop *self, int64_t at_ms, bool keep);

/* Calls owner.turn in the next turn, which comes without waiting. */
void gr_loop_want_turn(gr_loop *self);

/* Keeps the loop running although it has nothing to do; counted. */
void gr_loop_hold(gr_loop *self);
void gr_loop_release(gr_loop *self);

/* To be said at every entry into Lua: the guard measures from here how long Lua has the thread. */
void gr_loop_enter(gr_loop *self);

/* Which method has the thread now, for the guard's log; empty slices for nobody. Copied. */
void gr_loop_set_label(gr_loop *self, gr_slice service, gr_slice method);

/* How long Lua may have the thread before the guard says so, in ms; 0 for never. Default 1000. */
void gr_loop_set_busy_limit(gr_loop *self, uint32_t limit_ms);

#endif
