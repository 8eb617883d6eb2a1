/* broker_priv.h - what the files of the broker's engine share; nobody else includes it.
 *
 *   broker.c          which message means what
 *   broker_peer.c     peers, what goes out to them, and who does not read it
 *   broker_service.c  services, their workers, who is next
 *   broker_call.c     calls: dispatch, waiting, every way to end
 *   broker_bridge.c   calls between peers of different dialects
 *   broker_gate.c     the service `Gate`, answered by the broker itself
 *   broker_auth.c     who a peer is, and what it may do */
#ifndef GR_BROKER_PRIV_H
#define GR_BROKER_PRIV_H

#include <uthash.h>

#include "base/heap.h"
#include "engine/broker.h"
#include "engine/events.h"
#include "engine/pulse.h"

#define GATE "Gate"

enum { MAX_ATTEMPTS = 3 }; /* the first dispatch and two more */

struct service;
struct call;

/* Peer, worker and client are one: a connection can be either, by what it says first. */
enum role { NEW, CLIENT, WORKER };

struct question;
struct verdict;

struct gr_peer {
    enum gr_via via;
    enum role role;
    bool dead;    /* in the graveyard: messages to it may still be queued */
    bool stalled; /* it does not read; its messages go to the backlog */
    bool listed;  /* in stalled_peers */
    int fd;       /* of its connection, or -1 */
    const gr_dialect *dialect;
    gr_pulse pulse;
    gr_due due;         /* heartbeat or death */
    struct call *calls; /* CLIENT: those it made; WORKER: those it runs */
    size_t call_count;
    uint64_t serial; /* number of its last call, where the dialect has none */
    gr_msg_queue backlog;
    gr_buf user;               /* who it is; empty: nobody in particular */
    gr_buf address;            /* where it is, for who decides about it */
    bool vouched;              /* its connection says who it is */
    bool revoked;              /* ... and that is nobody any more */
    struct question *question; /* its credentials are being checked */
    gr_msg_queue held;         /* what it has said meanwhile */
    gr_peer *next_dead, *next_stalled;

    /* WORKER: its place in the struct service */
    struct service *service;
    uint32_t credit;
    uint32_t outstanding;
    bool draining;
    gr_peer *prev, *next; /* others of the service with as many calls, least recently used first */

    UT_hash_handle hh; /* by key */
    size_t key_len;
    uint8_t key[]; /* via, then the routing id */
};

struct method {
    UT_hash_handle hh;
    size_t name_len;
    char name[];
};

struct service {
    gr_buf name, description;
    uint32_t serial; /* order of registration */
    uint32_t workers;
    uint32_t leaving;  /* those of them that take no more requests */
    gr_peer **buckets; /* workers with i calls that may take one more, for i < bucket_count */
    uint32_t bucket_count;
    uint32_t lowest;      /* no bucket below holds anybody */
    struct call *waiting; /* first in, first out, through queue_prev and queue_next */
    uint32_t waiting_count;
    struct method *idempotent;
    bool single;   /* RFC 7: its workers know one method and do not hear its name */
    bool member;   /* one of a group */
    bool internal; /* Gate: its worker is in this process and is told who calls */
    bool group;    /* the `Name` of RFC 7 services `Name.method`, for people; nobody serves it */
    UT_hash_handle hh;
};

struct call {
    struct { /* the key */
        gr_peer *client;
        uint64_t id;
    } from;
    UT_hash_handle hh;
    uint32_t slot, generation; /* together the route */
    struct service *service;
    gr_peer *worker; /* NULL while it waits */
    gr_msg *request; /* while it waits, and kept when the method is idempotent */
    bool bulk;       /* its stream is CHUNKs */
    bool idempotent;
    bool streaming;
    uint8_t attempts;
    uint32_t credit, window; /* given since the request, for a worker that has not heard of them */
    int64_t deadline_ms;     /* or GR_NEVER */
    struct bridge *bridge;   /* when client or worker are not of our own dialect, see below */
    int64_t active_ms;       /* when its stream last moved */
    gr_due due;
    struct call *queue_prev, *queue_next;   /* in service->waiting */
    struct call *client_prev, *client_next; /* in client->calls */
    struct call *worker_prev, *worker_next; /* in worker->calls */
};

/* What a call needs between dialects. */
struct bridge {
    gr_envelope
        about; /* id, tag, caller, service and method that answers repeat; slices of names */
    gr_buf names;
    gr_buf told; /* the client's name that the worker was told, and has to give back */

    /* Items of a worker that knows no credit, for a client that gives it. */
    gr_buf held;
    size_t held_at;    /* where the first one that was not sent begins */
    uint32_t seq;      /* its number */
    int64_t granted;   /* items that may be sent */
    int64_t window;    /* bytes of items likewise */
    bool fails;        /* gate01 has announced an exception of bulk */
    uint8_t last_type; /* GR_END or GR_ERROR: the worker is through */
    gr_buf last;       /* the ERROR's payload */

    /* Credit that the broker gives in the name of a client that knows none. */
    uint32_t owed_items, owed_bytes;
};

struct out {
    gr_peer *peer;
    gr_msg *msg;
};

GR_EVENTS(struct out, outs)

struct slots {
    struct call **calls; /* by slot; NULL where free */
    uint32_t *generations;
    uint32_t *free_slots;
    uint32_t free_count, len, cap;
    uint32_t first_generation; /* differs between brokers: a route of one does not fit the other */
};

struct gr_broker {
    gr_broker_options options;
    bool draining;
    gr_peer *peers;
    gr_peer *graveyard;
    gr_peer *stalled_peers;
    int64_t retry_ms; /* when to try them again, or GR_NEVER */
    gr_peer *last_out;
    gr_peer **by_fd[2]; /* of GR_VIA_FRONT and GR_VIA_BACK */
    size_t by_fd_len[2];
    gr_heap peer_heap;
    gr_heap call_heap;
    struct slots slots;
    struct call *calls;      /* by client and id */
    struct call *free_calls; /* through queue_next */
    struct service *services;
    uint32_t service_serial;
    size_t waiting_bytes;
    size_t held_bytes; /* of items that wait for credit, see struct bridge */
    uint32_t waiting;
    uint32_t workers;
    struct outs outs;
    gr_broker_stats stats;
    gr_buf scratch;             /* of the message that is being handled, see gr_dialect.parse */
    bool secured;               /* see gr_broker_secure() */
    gr_access *access;          /* NULL: everybody may do everything */
    gr_policy *policy;          /* NULL: names of connections are not looked at */
    struct verdict *verdicts;   /* by a hash of credentials */
    struct question *questions; /* the oldest first */
    struct question *unasked;   /* the first of them that was not pulled yet */
    uint64_t last_question;
    size_t asking_bytes; /* of all messages that wait for an answer */
    uint8_t hash_key[32];
    char fault[160];   /* of the last malformed message */
    char refusal[256]; /* of the last one refused, denied or forged */
};

/* broker_peer.c */
void gr_broker_send(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms);

/* Returns as gr_dialect.build: GR_EINVAL when a peer of this dialect cannot be told. */
int gr_broker_send_envelope(gr_broker *self, gr_peer *peer, const gr_envelope *envelope,
                            gr_buf *payload, int64_t now_ms);

/* A gh1 message, to a gh1 peer. */
void gr_broker_forward(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                       int64_t now_ms);

/* Ends the call that `about` names for its client: id, or what the client's dialect has instead. */
void gr_broker_send_error(gr_broker *self, gr_peer *client, const gr_envelope *about, int error,
                          gr_slice text, int64_t now_ms);

/* A message that is nothing but its type. */
void gr_broker_send_empty(gr_broker *self, gr_peer *peer, enum gr_type type, uint8_t flags,
                          int64_t now_ms);
bool gr_broker_is_local(const gr_peer *peer);

/* As gr_broker_forward(), to a worker in this process, which is told who calls: the client's
 * routing id and its address stand in frames of their own before the message. */
void gr_broker_introduce(gr_broker *self, gr_peer *worker, const gr_peer *client,
                         const gr_envelope *envelope, gr_msg **msg, int64_t now_ms);

/* Workers are, clients are not. */
bool gr_broker_is_at_back(const gr_peer *peer);

/* The peer's pulse has changed: looks after it in time. */
void gr_broker_watch(gr_broker *self, gr_peer *peer);

/* Ends its calls and its registration. It is freed when no message to it is left. */
void gr_broker_remove_peer(gr_broker *self, gr_peer *peer, int64_t now_ms);

/* Puts what waited for peers that did not read back in line. Only when the line is empty: then the
 * order of their messages is kept. Who has read everything since the last time leaves the list. */
void gr_broker_retry_stalled(gr_broker *self, int64_t now_ms);
void gr_broker_free_peers(gr_broker *self);

/* broker_service.c */
struct service *gr_broker_find_service(const gr_broker *self, gr_slice name);

/* The service that a request is for. Returns 0, GR_ENOTFOUND or GR_EUNAVAILABLE; then *why says how
 * its name goes on in a text: "is not registered". */
int gr_broker_look_up(const gr_broker *self, const gr_envelope *request, struct service **out,
                      const char **why);
int gr_broker_register(gr_broker *self, gr_peer *peer, const gr_envelope *ready, const char **why);
void gr_broker_unregister(gr_broker *self, gr_peer *peer, int64_t now_ms);
bool gr_broker_is_served(const struct service *service);
gr_peer *gr_broker_choose(const struct service *service);
void gr_broker_worker_takes(struct service *service, gr_peer *worker);
void gr_broker_worker_gives_back(struct service *service, gr_peer *worker);
void gr_broker_worker_drains(gr_peer *worker);
void gr_broker_worker_credit(struct service *service, gr_peer *worker, uint32_t credit);
bool gr_broker_is_idempotent(const struct service *service, gr_slice method);
void gr_broker_free_services(gr_broker *self);

/* broker_call.c */
void gr_broker_on_request(gr_broker *self, gr_peer *client, const gr_envelope *request,
                          gr_msg **msg, int64_t now_ms);
void gr_broker_on_answer(gr_broker *self, gr_peer *worker, const gr_envelope *answer, gr_msg **msg,
                         int64_t now_ms);
void gr_broker_on_credit(gr_broker *self, gr_peer *client, const gr_envelope *credit, gr_msg **msg,
                         int64_t now_ms);
void gr_broker_on_cancel(gr_broker *self, gr_peer *client, const gr_envelope *cancel,
                         int64_t now_ms);
void gr_broker_drop_client_calls(gr_broker *self, gr_peer *client, int64_t now_ms);
void gr_broker_lose_worker_calls(gr_broker *self, gr_peer *worker, int64_t now_ms);
void gr_broker_fail_waiting(gr_broker *self, struct service *service, const char *text,
                            int64_t now_ms);
void gr_broker_serve_waiting(gr_broker *self, struct service *service, int64_t now_ms);
void gr_broker_expire_calls(gr_broker *self, int64_t now_ms);
void gr_broker_fail_all_calls(gr_broker *self, const char *text, int64_t now_ms);
void gr_broker_free_calls(gr_broker *self);

void gr_broker_end_call(gr_broker *self, struct call *at, int64_t now_ms);
void gr_broker_fail_call(gr_broker *self, struct call *at, int error, const char *text,
                         int64_t now_ms);

/* Tells the worker that nobody wants the answer any more. */
void gr_broker_tell_worker(gr_broker *self, const struct call *at, int64_t now_ms);

/* The worker has answered everything, the client has not read everything. */
void gr_broker_release_worker(gr_broker *self, struct call *at, int64_t now_ms);

uint64_t gr_broker_route_of(const struct call *at);

/* broker_bridge.c: what is needed when client and worker are not both of our own dialect. */

/* Remembers how the client names its call. Returns 0 or GR_ENOMEM. */
int gr_bridge_open(struct call *at, const gr_envelope *request);
void gr_bridge_close(gr_broker *self, struct call *at);

/* What answers to this call repeat. */
gr_envelope gr_bridge_about(const struct call *at);

/* The request of a client of another dialect as a gh1 message, routing id first. Returns 0 or
 * GR_ENOMEM. */
int gr_bridge_import(const gr_envelope *request, gr_msg **out);

/* The gh1 message as one for the worker, without a routing id. Returns as gr_dialect.build. */
int gr_bridge_export(gr_broker *self, struct call *at, gr_peer *worker, const gr_msg *request,
                     const gr_envelope *hop, gr_msg **out);

/* True when the worker gives back the client's name that it was told. */
bool gr_bridge_is_about(const struct call *at, const gr_envelope *answer);

void gr_bridge_answer(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms);
void gr_bridge_credit(gr_broker *self, struct call *at, const gr_envelope *credit, int64_t now_ms);

/* The client reads again: gives the credit that was held back. */
void gr_bridge_resume(gr_broker *self, gr_peer *client, int64_t now_ms);

/* broker_auth.c */
enum identity {
    KNOWN,
    STRANGER, /* it has not shown who it is, or not rightly */
    FORGER,   /* it speaks in another one's name */
    UNSURE,   /* nobody could decide */
    WAITING,  /* somebody was asked */
};

enum identity gr_broker_identify(gr_broker *self, gr_peer *peer, const gr_envelope *envelope,
                                 int64_t now_ms);

/* Keeps a message until the peer's question is answered. Takes *msg, or the peer is removed. */
void gr_broker_hold(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms);

/* Nobody waits for the answer any more. */
void gr_broker_drop_question(gr_broker *self, gr_peer *peer);
void gr_broker_expire_questions(gr_broker *self, int64_t now_ms);
int64_t gr_broker_next_question_due(const gr_broker *self);

/* Puts down why, for the log. what: "may not call", ... */
void gr_broker_note_refused(gr_broker *self, const gr_peer *peer, const char *what, gr_slice a,
                            gr_slice b);

bool gr_broker_may_register(gr_broker *self, gr_peer *peer, gr_slice service);
bool gr_broker_may_call(gr_broker *self, gr_peer *peer, const gr_envelope *request);

/* Ends what the peer is, and says why, as far as its dialect has a word for it. */
void gr_broker_turn_away(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, int error,
                         const char *why, int64_t now_ms);
void gr_broker_free_auth(gr_broker *self);

/* broker_gate.c: true when the broker answered the request itself. */
bool gr_broker_gate(gr_broker *self, gr_peer *client, const gr_envelope *request, int64_t now_ms);

#endif
