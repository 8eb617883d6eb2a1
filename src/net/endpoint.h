/* endpoint.h - an engine joined to its socket, or to a mailbox when the broker lives in this
 * process, under a mutex.
 *
 * The loop's thread and the guard both drive it, never at once. Engines are used between
 * gr_endpoint_lock() and gr_endpoint_unlock() only. */
#ifndef GR_ENDPOINT_H
#define GR_ENDPOINT_H

#include "engine/engine.h"
#include "net/loop.h"
#include "net/sock.h"

typedef struct gr_endpoint_options {
    void *ctx;           /* ZeroMQ context */
    const char *address; /* of the broker; copied */
    gr_sock_options sock;
    const gr_sock_security *security; /* of the connection; not looked at when it is a mailbox;
                                         NULL: none. The socket has what it needs afterwards */
    bool by_socket; /* even when the broker is in this process: its dialect needs routing ids */
    uint32_t heartbeat_ms; /* the guard looks after it four times as often */
    const gr_engine_ops *ops;
    void *engine; /* stays its owner's, must live longer */
    void *owner;  /* whatever gr_endpoint_owner() shall give back */
} gr_endpoint_options;

/* True when a broker of this process has the address: then the endpoint will use a mailbox. An
 * inproc:// address always does. */
bool gr_endpoint_is_local(const char *address);

/* Makes it and starts connecting. Returns 0, GR_EADDRESS, GR_EINVAL (the security), GR_ENOMEM or
 * GR_EEXHAUSTED. */
int gr_endpoint_new(gr_endpoint **out, gr_loop *loop, const gr_endpoint_options *options);

/* Sends what it can, then ends the connection. */
void gr_endpoint_destroy(gr_endpoint **self);

/* Locks the endpoint and gives its engine. */
void *gr_endpoint_lock(gr_endpoint *self);

/* Unlocks it; what the engine has to say goes out at the end of the loop's turn. */
void gr_endpoint_unlock(gr_endpoint *self);

void *gr_endpoint_owner(const gr_endpoint *self);
const char *gr_endpoint_address(const gr_endpoint *self);

#endif
