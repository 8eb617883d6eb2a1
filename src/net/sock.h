/* sock.h - a ZeroMQ socket that moves whole messages and never blocks.
 *
 * Sets every option that this project relies on (no linger beyond two seconds, bounded
 * message size, handshake limit, own reconnect pace; ZMQ_HEARTBEAT_* stays off, it can abort
 * libzmq 4.3.4, issue 4767). A socket is used under its owner's mutex, or by one thread. */
#ifndef GR_SOCK_H
#define GR_SOCK_H

#include <stdbool.h>

#include "wire/msg.h"

typedef struct gr_sock gr_sock;

enum gr_sock_type { GR_SOCK_DEALER, GR_SOCK_ROUTER };

typedef struct gr_sock_options {
    size_t max_message; /* bytes of one frame a peer may send, beyond it is disconnected; 0: 64 MiB
                           and 64 KiB */
    int reconnect_ms;   /* first pause before a new connection; 0: 100 */
    int reconnect_max_ms; /* the pause doubles up to this; 0: 2000 */
    int handshake_ms;     /* a connection that is not through by then is closed; 0: 10000 */
    int hwm;              /* messages that may wait for a connection, each way; 0: 8192 */
    bool ipv6;            /* addresses may name IPv6 hosts */
} gr_sock_options;

/* Who may talk over the connections that are bound or made next. Names as in RFC 26 and 27. */
enum gr_mechanism { GR_MECHANISM_NULL, GR_MECHANISM_PLAIN, GR_MECHANISM_CURVE };

enum { GR_CURVE_KEY_LEN = 32 };

typedef struct gr_sock_security {
    enum gr_mechanism mechanism;
    bool server; /* we let others in: PLAIN and CURVE need one server and one client */

    /* Server: who decides is asked about this domain, at inproc://zeromq.zap.01 of the same
     * context; also for NULL, unless it is NULL. Nobody is let in when nobody answers. PLAIN and
     * CURVE must have one. A socket that has had one keeps to having one: libzmq cannot forget it.
     */
    const char *domain;

    const char *user, *password; /* client, PLAIN: 1 to 255 bytes each */

    uint8_t public_key[GR_CURVE_KEY_LEN], secret_key[GR_CURVE_KEY_LEN]; /* CURVE: our own pair */
    uint8_t server_key[GR_CURVE_KEY_LEN]; /* client, CURVE: the server's public key */
} gr_sock_security;

enum gr_sock_event_type {
    GR_SOCK_CONNECTED,    /* a handshake is through */
    GR_SOCK_DISCONNECTED, /* a connection that was through has ended; fd names it */
    GR_SOCK_REFUSED,      /* of a DEALER: the other side does not let us in, as far as one can know;
                             libzmq may not try again: disconnect, and connect again after a while */
};

typedef struct gr_sock_event {
    enum gr_sock_event_type type;
    int fd;
    int error; /* REFUSED: GR_EUNAUTHENTICATED, or GR_EUNAVAILABLE when nobody could decide */
    const char *text; /* REFUSED: goes on behind "the broker"; lives for ever */
} gr_sock_event;

/* ctx is a ZeroMQ context. Returns 0, GR_EEXHAUSTED (descriptors), GR_ECLOSED or GR_ENOMEM. */
int gr_sock_new(gr_sock **out, void *ctx, enum gr_sock_type type, const gr_sock_options *options);
void gr_sock_destroy(gr_sock **self);

/* What holds for gr_sock_bind() and gr_sock_connect() from now on; at first NULL without a domain.
 * The socket has it until it is told otherwise, then it forgets the secrets. Returns 0, or
 * GR_EINVAL when something is missing or too long: then nothing has changed. */
int gr_sock_secure(gr_sock *self, const gr_sock_security *security);

/* ROUTER: whether a connection may take over the routing id of another one that is still there, as
 * peers that keep their id and connect anew do. At first it may. Before binding. */
void gr_sock_set_handover(gr_sock *self, bool handover);

/* Binds; bound, when not NULL, gets the address with wildcards filled in. Returns 0,
 * GR_EADDRINUSE, GR_EADDRESS, GR_EDENIED or GR_ESYSTEM. */
int gr_sock_bind(gr_sock *self, const char *address, char *bound, size_t bound_len);

/* The routing id of connections that are made from now on; empty: one that ZeroMQ makes up. */
void gr_sock_set_id(gr_sock *self, gr_slice id);

/* Connects. When the connection ends libzmq makes a new one, but what goes on there belongs to
 * another conversation: disconnect and connect again once everything was received. (ZMQ_IMMEDIATE
 * would end the conversation too, but drops what came before the end and was not received yet.)
 * Returns 0 or GR_EADDRESS. */
int gr_sock_connect(gr_sock *self, const char *address);

/* Ends the connection; what waits to be sent is dropped. */
void gr_sock_disconnect(gr_sock *self, const char *address);

/* Receives a message. Returns 0, GR_EAGAIN, GR_ENOMEM or GR_ECLOSED. */
int gr_sock_recv(gr_sock *self, gr_msg **out);

/* Sends and takes *msg. Returns 0; GR_EAGAIN (nobody to send to now), GR_EUNAVAILABLE (no such
 * peer) or GR_ECLOSED: then the message is still yours, whole. */
int gr_sock_send(gr_sock *self, gr_msg **msg);

/* True when a message can be received. Re-arms the descriptor's edge: read it last. */
bool gr_sock_readable(gr_sock *self);

/* Descriptors to poll for input, edge-triggered (ZMQ_FD), of the socket and of its events. */
int gr_sock_fd(const gr_sock *self);
int gr_sock_event_fd(const gr_sock *self);

/* Next event of the connections; false when there is none. Re-arms that descriptor's edge. */
bool gr_sock_next_event(gr_sock *self, gr_sock_event *out);

/* The ZeroMQ sockets themselves, for zmq_poll(): messages, and events. */
void *gr_sock_zmq(gr_sock *self);
void *gr_sock_event_zmq(gr_sock *self);

#endif
