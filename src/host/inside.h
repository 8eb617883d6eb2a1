/* inside.h - the Lua state of an executor: made for it, seen by nobody else.
 *
 * It has Lua's own libraries, luv with a loop of its own, and of gaterpc what
 * lua/gaterpc/inside.lua offers; that file runs the jobs. What its Lua code allocates is counted
 * and can be limited. */
#ifndef GR_INSIDE_H
#define GR_INSIDE_H

#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "exec/port.h"

typedef struct gr_inside {
    gr_port *port;
    lua_State *L;
    lua_State *volatile running; /* the coroutine that a signal shall interrupt; NULL at first */
    size_t used;                 /* bytes that the state has */
    size_t limit;                /* or 0 */
    bool limited;                /* the limit holds: the code of a job runs */
    bool refused;                /* the job has reached it */
    gr_frame *job;               /* whose arguments are not unpacked yet */
    struct gr_inside_luv *volatile luv; /* NULL before luv is required */
    gr_buf scratch;                     /* memory for what is packed */
    int64_t began_ns;
    uint64_t job_id;
    uint64_t questions;
} gr_inside;

/* Runs jobs until the port is closed or has no more. A gr_executor_code. */
void gr_inside_run(gr_port *port);

/* What a lua_State belongs to; in all its coroutines. */
static inline gr_inside *gr_inside_of(lua_State *L)
{
    return *(gr_inside **)lua_getextraspace(L);
}

/* [-0, +1] Opens luv in an executor's state. */
int gr_inside_open_luv(lua_State *L);

/* Makes luv.run return when the job is to stop. Signal handlers may call it. */
void gr_inside_wake_luv(struct gr_inside_luv *luv);

#endif
