/* client.h - the client's engine: calls and their answers.
 *
 * Numbers calls, keeps their deadlines, checks the order of streams, greets the broker and
 * notices when it is gone. Every call ends with exactly one event: REPLY, END or FAILED. Holds
 * no socket and reads no clock. Not thread-safe. */
#ifndef GR_CLIENT_H
#define GR_CLIENT_H

#include "engine/engine.h"
#include "engine/foreign.h"
#include "wire/wire.h"

typedef struct gr_client gr_client;

typedef struct gr_client_options {
    uint32_t heartbeat_ms;       /* 0: the dialect's */
    uint32_t liveness;           /* beats of ours that the broker may miss; 0: GR_PULSE_LIVENESS */
    uint32_t connect_timeout_ms; /* calls fail when no broker has answered for so long; 0: 5000 */
    uint32_t max_calls;          /* calls without an end at once; 0: 65536 */
    bool local;                  /* in the broker's process: no heartbeats */
    gr_foreign_options foreign;  /* the broker's dialect when it is not gh1 */
} gr_client_options;

enum gr_client_event_type {
    GR_CLIENT_REPLY = 1, /* msg holds the result envelope; the call is over */
    GR_CLIENT_ITEM,      /* msg holds `count` items */
    GR_CLIENT_END,       /* msg may hold `count` last items; the call is over */
    GR_CLIENT_FAILED,    /* status says why; msg holds an exception when a peer said so, else it is
                            NULL and text explains; the call is over */
    GR_CLIENT_UP,        /* a broker answers; no call */
    GR_CLIENT_DOWN,      /* the broker is gone; no call */
    GR_CLIENT_CHUNK, /* payload is a piece of a compressed result, codec its name; raw: it decodes
                        to bytes; END follows the last one, with a digest as its payload or none */
};

typedef struct gr_client_event {
    enum gr_client_event_type type;
    uint64_t id;
    int status;       /* FAILED: a GR_E...; REPLY: the status of an internal handler, or 0 */
    uint32_t count;   /* ITEM, END */
    bool raw;         /* CHUNK */
    bool refused;     /* FAILED: text goes on behind "the broker"; it did not let us in */
    gr_slice codec;   /* CHUNK: points into msg, or lives for ever */
    const char *text; /* FAILED without msg: lives for ever */
    gr_msg *msg;      /* yours, to destroy; may be NULL */
    gr_slice payload; /* points into msg */
} gr_client_event;

/* What a call needs; the slices are looked at during gr_client_call() only. */
typedef struct gr_client_request {
    gr_slice service;
    gr_slice method;
    uint32_t split;      /* where kwargs begin in the payload */
    uint32_t timeout_ms; /* 0: no deadline */
    uint32_t credit;     /* items that may come before credit is given; 0: 1 */
    uint32_t window;     /* bytes of items likewise; 0: 1 */
} gr_client_request;

/* Counters since the start, and the number of calls that have not ended. */
typedef struct gr_client_stats {
    uint64_t calls;
    uint64_t late;      /* answers to calls that were over */
    uint64_t malformed; /* messages that could not be read */
    uint64_t open;
} gr_client_stats;

/* Returns 0 or GR_ENOMEM. */
int gr_client_new(gr_client **out, const gr_client_options *options);
void gr_client_destroy(gr_client **self);

extern const gr_engine_ops gr_client_ops;

/* Starts a call. The payload is taken when it is big, else copied; clear it in any case.
 * *id is its number. Returns 0, GR_EINVAL (a name), GR_EEXHAUSTED (max_calls) or GR_ENOMEM. */
int gr_client_call(gr_client *self, const gr_client_request *request, gr_buf *payload,
                   int64_t now_ms, uint64_t *id);

/* Lets so many more items and bytes come. Returns 0, GR_ENOTFOUND when the call is over, or
 * GR_ENOMEM. */
int gr_client_credit(gr_client *self, uint64_t id, uint32_t items, uint32_t bytes, int64_t now_ms);

/* Gives a call up: the worker is told, no event comes any more. Nothing happens when it is over. */
void gr_client_cancel(gr_client *self, uint64_t id, int64_t now_ms);

/* Says good-bye to the broker. */
void gr_client_leave(gr_client *self, int64_t now_ms);

/* Takes the next event; false when there is none. */
bool gr_client_next_event(gr_client *self, gr_client_event *out);

bool gr_client_is_up(const gr_client *self);
void gr_client_get_stats(const gr_client *self, gr_client_stats *out);

#endif
