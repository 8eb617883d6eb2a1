/* majordomo.h - the broker's engine joined to its sockets, in a thread of its own.
 *
 * The thread never waits for Lua: handlers written in Lua are a worker of the service `Gate` that
 * is linked to it by mailbox, like every worker and client in this process. Nor does it wait for
 * who checks credentials: that one is asked over a socket of this process. Start, bind and stop
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

/* Peers must say who they are: by the connection, or by credentials inside each message, about
 * which this process's ZAP handler is asked, in this domain. Nobody can take over a routing id any
 * more, unless handover. Before binding. Returns 0, GR_EINVAL or GR_ENOMEM. */
int gr_majordomo_secure(gr_majordomo *self, const char *domain, bool handover);

/* Binds a side, before the start; may be said several times. An inproc:// address is for peers of
 * this process; those at other addresses use the mailbox too when they are in this process. bound
 * gets the address with wildcards filled in. Returns 0, GR_EADDRINUSE, GR_EADDRESS, GR_EDENIED,
 * GR_EINVAL (security), GR_ESYSTEM or GR_ENOMEM. */
int gr_majordomo_bind(gr_majordomo *self, enum gr_via side, const char *address,
                      const gr_sock_security *security, char *bound, size_t bound_len);

/* See gr_broker_set_policy() and gr_broker_set_access(); what is given is taken. Any thread. */
void gr_majordomo_set_policy(gr_majordomo *self, gr_policy **policy);
void gr_majordomo_set_access(gr_majordomo *self, gr_access **access);

/* Starts the thread. Returns 0 or GR_EEXHAUSTED. */
int gr_majordomo_start(gr_majordomo *self, gr_majordomo_ended_fn *ended, void *arg);

/* Takes no more requests; ends when the running calls have ended. Any thread. */
void gr_majordomo_drain(gr_majordomo *self);

/* A copy of the counters, a few milliseconds old. Any thread. */
void gr_majordomo_get_stats(gr_majordomo *self, gr_broker_stats *out);

#endif
