/* executor.h - one executor, a thread or a process, as the host's loop sees it.
 *
 * Frames go in and are pulled out; what they mean is decided elsewhere. It runs code whose state
 * nobody else sees (a lua_State, but nothing here knows that): `gr_executor_code`, which talks
 * through a port. One job at a time is its user's business too. Everything here is called on the
 * loop's thread. */
#ifndef GR_EXECUTOR_H
#define GR_EXECUTOR_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "exec/frame.h"
#include "exec/port.h"

typedef struct gr_executor gr_executor;

/* All executors of a loop. Zeroed it is empty. */
typedef struct gr_crew {
    gr_executor *members;
} gr_crew;

/* The code of a thread, from its start to its end. It calls gr_port_enter() and gr_port_leave(). */
typedef void gr_executor_code(gr_port *port);

/* Called from the loop: there are frames, or it has ended. */
typedef void gr_executor_ready_fn(void *arg, gr_executor *executor);

typedef struct gr_executor_options {
    gr_crew *crew;
    uv_loop_t *loop;
    gr_executor_code *code; /* of a thread */
    gr_executor_ready_fn *ready;
    void *arg;
} gr_executor_options;

/* How it ended. */
typedef struct gr_executor_end {
    int exit_code; /* of a process */
    int signal;    /* that ended the process, or 0 */
} gr_executor_end;

/* Starts a thread. Returns 0, GR_ENOMEM or GR_EEXHAUSTED. */
int gr_executor_new_thread(gr_executor **out, const gr_executor_options *options);

/* Starts a process: this program anew, with --executor and a socket. Errors as above, and
 * GR_ESYSTEM. */
int gr_executor_new_process(gr_executor **out, const gr_executor_options *options);

/* Lets it end when it has done its job, and forgets it: `ready` is not called any more. NULL is
 * fine. */
void gr_executor_destroy(gr_executor **self);

/* Sends and takes a frame. Returns 0, or GR_ECLOSED: then it is still yours. */
int gr_executor_send(gr_executor *self, gr_frame **frame);

/* The next frame, which is yours, or NULL. */
gr_frame *gr_executor_next(gr_executor *self);

/* Ends a process now, and a thread as soon as its code can be interrupted. */
void gr_executor_kill(gr_executor *self);

/* True when it has ended and every frame was pulled. */
bool gr_executor_has_ended(const gr_executor *self, gr_executor_end *out);

/* The id of a process; 0 for a thread. */
int gr_executor_pid(const gr_executor *self);

/* Ends all of them: processes are killed; threads are interrupted and waited for, limit_ms at most.
 * The loop need not run any more. Returns how many threads could not be ended: they are left to run
 * until the program has ended. */
unsigned gr_crew_end(gr_crew *self, int64_t limit_ms);

/* The other end of gr_executor_new_process(): runs the code on the calling thread until the host
 * has no more jobs or is gone. Returns the exit code of the process. */
int gr_executor_serve(gr_executor_code *code);

#endif
