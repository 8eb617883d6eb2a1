/* majordomo.h - the broker's engine joined to its sockets, in a thread of its own.
 *
 * The thread never waits for Lua: handlers written in Lua are a worker of the service `Gate` that
 * is linked to it by mailbox, like every worker and client in this process. Start, bind and stop
 * from one thread. */
#ifndef GR_MAJORDOMO_H
#define GR_MAJORDOMO_H

#include "engine/broker.h"
#include "net/sock.h"

typedef struct gr_majordomo gr_majordomo;

typedef struct gr_majordomo_options {
    void *ctx; /* ZeroMQ context */
    gr_broker_options broker;
    gr_sock_options sock;
} gr_majordomo_options;

/* Called once from the broker's thread when it has ended by itself (after drain). */
typedef void gr_majordomo_ended_fn(void *arg);

/* Returns 0, GR_ENOMEM or GR_EEXHAUSTED. */
int gr_majordomo_new(gr_majordomo **out, const gr_majordomo_options *options);

/* Leaves at once and frees everything. */
void gr_majordomo_destroy(gr_majordomo **self);

/* Binds a side, before the start; may be said several times. An inproc:// address is for peers of
 * this process; those at other addresses use the mailbox too when they are in this process. bound
 * gets the address with wildcards filled in. Returns 0, GR_EADDRINUSE, GR_EADDRESS, GR_EDENIED,
 * GR_ESYSTEM or GR_ENOMEM. */
int gr_majordomo_bind(gr_majordomo *self, enum gr_via side, const char *address, char *bound,
                      size_t bound_len);

/* See gr_broker_add_user(); before the start. */
int gr_majordomo_add_user(gr_majordomo *self, gr_slice user, gr_slice password);

/* Starts the thread. Returns 0 or GR_EEXHAUSTED. */
int gr_majordomo_start(gr_majordomo *self, gr_majordomo_ended_fn *ended, void *arg);

/* Takes no more requests; ends when the running calls have ended. Any thread. */
void gr_majordomo_drain(gr_majordomo *self);

/* A copy of the counters, a few milliseconds old. Any thread. */
void gr_majordomo_get_stats(gr_majordomo *self, gr_broker_stats *out);

#endif
