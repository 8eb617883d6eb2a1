/* port.h - an executor as the code in it sees it: jobs come in, answers go out.
 *
 * One thread runs the code and calls everything here but what is said to be the feeder's. The
 * feeder is whoever brings what the host says: the host's loop itself for a thread, a thread that
 * reads the socket in a process. So a cancel reaches code that computes: its thread gets a signal,
 * and the handler calls `interrupt`. Two owners; the last one to leave frees it. */
#ifndef GR_PORT_H
#define GR_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "exec/frame.h"

typedef struct gr_port gr_port;

/* Brings a frame to the host and takes it. Returns 0, or GR_ECLOSED when nobody is there: then it
 * is still yours. From the port's thread. */
typedef int gr_port_put_fn(void *arg, gr_frame **frame);

/* Makes the running code ask gr_port_stop() soon; from a signal handler on the port's thread. */
typedef void gr_port_interrupt_fn(void *arg);

/* Makes a port with one owner. Returns 0 or GR_ENOMEM. */
int gr_port_new(gr_port **out, gr_port_put_fn *put, void *arg);

void gr_port_ref(gr_port *self);
void gr_port_unref(gr_port **self);

/* --- the feeder --- */

/* What the host said; takes the frame. */
void gr_port_deliver(gr_port *self, gr_frame **frame);

/* The host has gone, or wants the end at once: whatever waits fails with GR_ECLOSED, and code that
 * runs is interrupted. To be repeated until it has ended. */
void gr_port_close(gr_port *self);

/* --- the thread of the port --- */

/* The calling thread is the port's from now on, until gr_port_leave(). */
void gr_port_enter(gr_port *self, gr_port_interrupt_fn *interrupt, void *arg);
void gr_port_leave(gr_port *self);

/* Waits for the next job, or at first for HELLO; the frame is yours. Returns 0, or GR_ECLOSED when
 * none will come. */
int gr_port_next(gr_port *self, gr_frame **out);

/* Sends and takes a frame. Returns 0, or GR_ECLOSED: then it is still yours. */
int gr_port_put(gr_port *self, gr_frame **frame);

/* Sends and takes an item of the running job, when there is credit for it. Returns 0, GR_ECLOSED,
 * or the error that the job is to stop with: then it is still yours. */
int gr_port_put_item(gr_port *self, gr_frame **frame);

/* Sends and takes a question and waits for its answer, which is yours. Errors as above. */
int gr_port_ask(gr_port *self, gr_frame **question, gr_frame **answer);

/* Waits so many milliseconds. Returns 0, or an error as above. */
int gr_port_sleep(gr_port *self, int64_t wait_ms);

/* The running job has ended: what is said about it from now on means nothing. */
void gr_port_end_job(gr_port *self);

/* The error that the running job is to stop with: GR_ECANCELLED, GR_EDEADLINE, ..., GR_ECLOSED; 0
 * for go on. */
int gr_port_stop(const gr_port *self);

/* True once each time that the job is asked to stop. */
bool gr_port_take_interrupt(gr_port *self);

/* True when the job was asked nicely and has not stopped. */
bool gr_port_stop_is_urgent(const gr_port *self);

#endif
