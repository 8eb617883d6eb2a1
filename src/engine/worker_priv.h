/* worker_priv.h - what the two files of the worker's engine share; nobody else includes it.
 *
 *   worker.c       the registration at the broker, and what goes to and fro
 *   worker_call.c  calls: from the request to every way to end */
#ifndef GR_WORKER_PRIV_H
#define GR_WORKER_PRIV_H

#include <uthash.h>

#include "base/heap.h"
#include "engine/events.h"
#include "engine/pulse.h"
#include "engine/worker.h"

enum state {
    DOWN,     /* no connection */
    GREETING, /* READY is under way */
    UP,       /* registered */
};

struct call {
    uint64_t route;
    gr_due due;
    int64_t active_ms; /* when the stream last moved */
    int64_t granted;   /* items that may be sent */
    int64_t window;    /* bytes of items likewise; the last item may overdraw it */
    uint32_t seq;      /* number of the first item in the batch */
    uint32_t count;    /* items in the batch */
    bool streaming;
    bool bulk;    /* of pieces */
    bool blocked; /* the owner was told to wait for credit */
    gr_buf batch;
    gr_buf names; /* older dialects: how the broker names the call and its client */
    size_t tag_len;
    UT_hash_handle hh;
};

GR_EVENTS(gr_worker_event, events)

struct gr_worker {
    gr_worker_options options; /* its slices point into names */
    gr_buf names;
    enum state state;
    bool reconnect;
    bool beaten; /* since READY */
    bool draining;
    bool drain_agreed; /* the broker has confirmed that no more requests come */
    bool drained;      /* DRAINED was said */
    gr_pulse pulse;
    gr_heap heap;
    struct call *calls;
    struct call *free_calls; /* through hh.next */
    size_t batches;          /* calls with gathered items */
    uint32_t nested;         /* calls that wait for calls of their own */
    uint32_t announced;      /* the credit that the broker knows of */
    uint32_t promised;       /* the most that it has heard of since READY */
    gr_foreign foreign;
    gr_buf scratch;
    uint64_t last_route; /* older dialects: routes are ours */
    int64_t rest_ms;     /* when to come back to a broker that has dropped us, or GR_NEVER */
    bool throttled;      /* streams wait until more was sent */
    gr_msg_queue out;
    struct events events;
    gr_worker_stats stats;
};

/* worker.c */
void gr_worker_emit(gr_worker *self, gr_worker_event event);

/* Signs the envelope and puts it in line. Returns as gr_dialect.build. */
int gr_worker_send(gr_worker *self, gr_envelope *envelope, gr_buf *payload, int64_t now_ms);

/* A call has begun: the broker hears of a higher credit only when it takes us to be full. */
void gr_worker_announce_credit(gr_worker *self, int64_t now_ms);

/* A call has ended; the last one while draining is what DRAINED waits for. */
void gr_worker_finish_drain(gr_worker *self);

/* worker_call.c */
void gr_worker_on_request(gr_worker *self, gr_envelope *request, gr_msg **msg, int64_t now_ms);
void gr_worker_on_credit(gr_worker *self, const gr_envelope *credit, int64_t now_ms);
void gr_worker_on_cancel(gr_worker *self, const gr_envelope *cancel);
void gr_worker_cancel_calls(gr_worker *self, int status);
void gr_worker_expire_calls(gr_worker *self, int64_t now_ms);
void gr_worker_flush_calls(gr_worker *self, int64_t now_ms);

/* Something was sent: streams that waited for that may go on. */
void gr_worker_unthrottle(gr_worker *self);
void gr_worker_free_calls(gr_worker *self);

#endif
