/* worker.h - the worker's engine: one registration at a broker, and the calls it was given.
 *
 * Sends READY when connected, beats, keeps the deadlines of running calls and the credit of
 * their streams, and gathers items that queue up into one message. Every REQUEST event is to be
 * ended by gr_worker_reply(), _error() or _end(), unless a CANCEL event for it comes first.
 * Holds no socket and reads no clock. Not thread-safe. */
#ifndef GR_WORKER_H
#define GR_WORKER_H

#include "engine/engine.h"
#include "engine/foreign.h"
#include "wire/wire.h"

typedef struct gr_worker gr_worker;

typedef struct gr_worker_options {
    gr_slice service;      /* its name; copied */
    gr_slice about;        /* the payload of READY, a map as in docs/protocol.md; copied */
    uint32_t credit;       /* calls at once; 0: 1024 */
    uint32_t heartbeat_ms; /* 0: the dialect's */
    uint32_t liveness;     /* beats of ours that the broker may miss; 0: GR_PULSE_LIVENESS */
    uint32_t idle_ms;      /* a stream whose client gives no credit for so long is cancelled; 0:
                              600000 */
    bool local;            /* in the broker's process: no heartbeats */
    gr_foreign_options foreign; /* the broker's dialect when it is not gh1 */
    gr_slice method; /* RFC 7: the one method that is served, as `service.method`; copied; "call"
                        is served as `service` */
} gr_worker_options;

enum gr_worker_event_type {
    GR_WORKER_REQUEST = 1, /* run it */
    GR_WORKER_CANCEL,      /* stop it; its answer would be dropped */
    GR_WORKER_CREDIT,      /* its stream may go on */
    GR_WORKER_UP,          /* the broker has registered us; no call */
    GR_WORKER_DOWN,        /* the broker is gone, CANCEL came for all calls; no call */
    GR_WORKER_REFUSED, /* the broker does not want us: status, and an exception in msg; no call */
    GR_WORKER_DRAINED, /* after gr_worker_drain(): nothing runs, nothing will come; no call */
    GR_WORKER_BARRED,  /* the broker does not let us in: status and text; tried again; no call */
};

typedef struct gr_worker_event {
    enum gr_worker_event_type type;
    uint64_t route;   /* the number of the call */
    int status;       /* CANCEL: GR_ECANCELLED, GR_EDEADLINE or GR_EUNAVAILABLE; REFUSED; BARRED */
    const char *text; /* BARRED: goes on behind "the broker"; lives for ever */
    uint64_t id;      /* REQUEST: the client's number of the call */
    uint32_t deadline_ms; /* REQUEST: from now on; 0 for none */
    uint32_t split;       /* REQUEST: where kwargs begin in the payload */
    bool whole;           /* REQUEST: a large result had better come in one message */
    gr_slice method;      /* REQUEST: points into msg */
    gr_slice payload;     /* REQUEST, REFUSED: points into msg */
    gr_slice client;      /* REQUEST to a handler of the broker: the routing id of who calls, and */
    gr_slice address;     /* its host, "" when that is unknown, and */
    gr_slice user;        /* who it has shown to be, "" for nobody; they point into msg */
    gr_msg *msg;          /* yours, to destroy; may be NULL */
} gr_worker_event;

typedef struct gr_worker_stats {
    uint64_t requests;
    uint64_t cancelled;
    uint64_t malformed;
    uint64_t open;
} gr_worker_stats;

/* Returns 0, GR_EINVAL (the service's name) or GR_ENOMEM. */
int gr_worker_new(gr_worker **out, const gr_worker_options *options);
void gr_worker_destroy(gr_worker **self);

extern const gr_engine_ops gr_worker_ops;

/* Ends a call with a packed result envelope; status is 0 or an internal handler's three digits.
 * The payload is taken when it is big, else copied; clear it in any case. Returns 0,
 * GR_ENOTFOUND when the call is over (cancelled), GR_EINVAL when the broker's dialect cannot carry
 * it (see its limits), or GR_ENOMEM; in the last two cases the call is still open. */
int gr_worker_reply(gr_worker *self, uint64_t route, uint16_t status, gr_buf *payload,
                    int64_t now_ms);

/* Ends a call with an error (a GR_E...) whose envelope with the exception is the payload.
 * Returns as gr_worker_reply(). */
int gr_worker_error(gr_worker *self, uint64_t route, int error, gr_buf *payload, int64_t now_ms);

/* Appends one packed item to the stream of a call. It is sent by gr_worker_flush(), when many have
 * gathered, or with the end. Returns 1 when more may follow, 0 when the credit is used up: then
 * a CREDIT event comes. GR_ENOTFOUND when the call is over, GR_EINVAL as above, GR_ENOMEM. */
int gr_worker_item(gr_worker *self, uint64_t route, gr_slice item, int64_t now_ms);

/* Sends the items that have gathered. Nothing happens when there are none. */
void gr_worker_flush(gr_worker *self, uint64_t route, int64_t now_ms);

/* Sends one piece of a compressed result, in place of items; codec is its name, raw says that it
 * decodes to bytes and not to one packed value. Returns as gr_worker_item(). */
int gr_worker_chunk(gr_worker *self, uint64_t route, gr_slice codec, bool raw, gr_slice piece,
                    int64_t now_ms);

/* Ends a stream. The digest is that of what the pieces decode to, empty behind items. Returns as
 * gr_worker_reply(). */
int gr_worker_end(gr_worker *self, uint64_t route, gr_slice digest, int64_t now_ms);

/* So many of the running calls wait for calls of their own now. They do not count as far as the
 * credit goes: a worker with a credit of 1 may be called by those that it calls. */
void gr_worker_nested(gr_worker *self, uint32_t count, int64_t now_ms);

/* Asks the broker for no more requests; DRAINED comes when the running ones have ended. */
void gr_worker_drain(gr_worker *self, int64_t now_ms);

/* Says good-bye to the broker, whatever runs. */
void gr_worker_leave(gr_worker *self, int64_t now_ms);

/* Takes the next event; false when there is none. */
bool gr_worker_next_event(gr_worker *self, gr_worker_event *out);

bool gr_worker_is_up(const gr_worker *self);
void gr_worker_get_stats(const gr_worker *self, gr_worker_stats *out);

#endif
