/* endpoint_priv.h - what loop.c, endpoint.c and guard.c share; nobody else includes it. */
#ifndef GR_ENDPOINT_PRIV_H
#define GR_ENDPOINT_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "net/endpoint.h"
#include "net/hub.h"

enum { BUDGET = 256, LABEL_LEN = 128 };

struct gr_endpoint {
    gr_loop *loop;
    gr_endpoint *prev, *next; /* in loop->endpoints */
    char *address;
    uint32_t heartbeat_ms;
    void *owner;

    /* The loop's thread only. */
    bool want;    /* to be received from in the next check */
    bool touched; /* to be flushed and looked at in the next prepare */
    bool busy;    /* counted in loop->busy */
    int64_t due_ms;
    uv_poll_t *polls[2]; /* messages, connection events; NULL without a socket */
    atomic_bool poked;   /* the guard or the hub has something for us */

    pthread_mutex_t mutex; /* guards what follows */
    const gr_engine_ops *ops;
    void *engine;
    gr_sock *sock;
    gr_link *link;     /* instead of sock */
    gr_msg *pending;   /* could not be sent yet */
    int64_t relink_ms; /* when to look for the hub again */
    int64_t retry_ms;  /* when to connect again to a broker that does not let us in, or GR_NEVER */
    int pause_ms;      /* before that; it doubles */
    int reconnect_ms, reconnect_max_ms;
    bool connected;
    bool parted; /* the connection has ended, but what came before may be left in the socket */
};

struct gr_guard;

struct gr_loop {
    uv_loop_t uv;
    gr_loop_owner owner;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t idle;
    uv_async_t async;
    uv_timer_t engine_timer; /* the earliest due_ms of the endpoints; does not keep the loop */
    uv_timer_t owner_timer;
    uv_async_t keep; /* referenced while something must keep the loop running */
    int64_t armed_ms;
    int64_t owner_due_ms;
    unsigned busy;     /* busy endpoints and holds */
    bool owner_is_due; /* its timer has run: it is told at the end of the next check */
    bool want_turn;
    atomic_bool stop;

    pthread_mutex_t list_mutex; /* guards endpoints against the guard; the loop's thread writes */
    gr_endpoint *endpoints;
    gr_endpoint *cursor; /* the next one whose turn it is, in check */
    struct gr_guard *guard;

    /* For the guard. */
    _Atomic int64_t busy_since_ms; /* 0 while the loop waits or runs C */
    _Atomic int64_t last_turn_ms;
    atomic_uint busy_limit_ms;
    pthread_mutex_t label_mutex;
    char label[LABEL_LEN]; /* without a terminator */
    size_t label_len;
};

/* endpoint.c: one turn each. Receive what is there; true when the engine has events. */
bool gr_endpoint_pump(gr_endpoint *self, int64_t now_ms);

/* Send what is to be sent; it wants a turn when there is more to receive. */
void gr_endpoint_settle(gr_endpoint *self);

/* The same on the guard's thread, when the loop's is busy; true when the loop must be woken. */
bool gr_endpoint_stand_in(gr_endpoint *self, int64_t now_ms);

/* guard.c */
int gr_guard_new(struct gr_guard **out, gr_loop *loop);
void gr_guard_destroy(struct gr_guard **self);
void gr_guard_hurry(struct gr_guard *self, uint32_t heartbeat_ms);

#endif
