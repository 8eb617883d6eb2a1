/* hub.h - peers in the broker's own process, by mailbox instead of a socket.
 *
 * A broker publishes its addresses in a hub; an endpoint that connects to one of them gets a
 * link. What one side puts in, the other side finds, in order. Thread-safe: one thread serves
 * the hub, each link has its own thread on the other side. */
#ifndef GR_HUB_H
#define GR_HUB_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/broker.h"

typedef struct gr_hub gr_hub;
typedef struct gr_link gr_link;

/* --- the broker's side --- */

enum gr_hub_event_type { GR_HUB_MESSAGE, GR_HUB_GONE };

typedef struct gr_hub_event {
    enum gr_hub_event_type type;
    enum gr_via via;
    uint8_t id[8]; /* the routing id of the link */
    gr_msg *msg;   /* MESSAGE: yours, without a routing id; else NULL */
} gr_hub_event;

/* Returns 0, GR_ENOMEM or GR_EEXHAUSTED (descriptors). */
int gr_hub_new(gr_hub **out);

/* Closes all links and withdraws the addresses. */
void gr_hub_destroy(gr_hub **self);

/* Makes the hub known under an address. Returns 0, GR_EADDRINUSE or GR_ENOMEM. */
int gr_hub_publish(gr_hub *self, const char *address, enum gr_via via);

/* A descriptor that is readable when there is an event, to be emptied by gr_hub_next(). */
int gr_hub_fd(const gr_hub *self);

/* Wakes the thread that polls the descriptor. */
void gr_hub_wake(gr_hub *self);

/* Takes the next event; false when there is none. */
bool gr_hub_next(gr_hub *self, gr_hub_event *out);

/* Gives a message, without routing id, to the link with that id; it is taken. Returns 0 or
 * GR_EUNAVAILABLE. */
int gr_hub_send(gr_hub *self, const uint8_t id[8], gr_msg **msg);

/* --- the other side --- */

/* Called from the hub's thread when a message came or the hub has gone; must not block. */
typedef void gr_link_wake_fn(void *arg);

/* Connects to a hub of this process. Returns 0, GR_EUNAVAILABLE when no hub has this address, or
 * GR_ENOMEM. */
int gr_link_open(gr_link **out, const char *address, gr_link_wake_fn *wake, void *arg);

/* Ends the link; wake is not called any more. */
void gr_link_close(gr_link **self);

/* Sends and takes *msg. Returns 0, or GR_ECLOSED or GR_ENOMEM: then it is still yours. */
int gr_link_send(gr_link *self, gr_msg **msg);

/* The next message, or NULL. */
gr_msg *gr_link_recv(gr_link *self);

/* True when there is a message, or the news that the hub has gone. */
bool gr_link_readable(gr_link *self);

/* True when the hub has gone and everything was received. */
bool gr_link_is_over(gr_link *self);

#endif
