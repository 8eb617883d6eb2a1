#include "engine/worker.h"

#include <stdlib.h>
#include <uthash.h>

#include "base/heap.h"
#include "engine/events.h"
#include "engine/pulse.h"

enum {
    CREDIT = 1024,
    IDLE_MS = 600 * 1000,
    MOST_CREDIT = 65536,     /* brokers believe no more */
    SPARE_CREDIT = 16,       /* a broker may overrun our credit by so many before it is refused */
    BATCH_BYTES = 16 * 1024, /* gathered items are sent at the latest then */
    BATCH_ITEMS = 256,
    MAX_GRANT = 1 << 30,
    OUT_LEN = 256, /* where there is no credit, streams wait while so much waits to be sent */
    OUT_BYTES = 1 << 20,
    REST_MS = 1000, /* before coming back to a broker that did not want us */
    SHORT_REST_MS = 100,
};

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

int gr_worker_new(gr_worker **out, const gr_worker_options *options)
{
    if (!gr_wire_is_name(options->service))
        return GR_EINVAL;
    gr_worker *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->rest_ms = GR_NEVER;
    int rc = gr_foreign_init(&self->foreign, &options->foreign);
    if (rc == 0)
        rc = gr_buf_reserve(&self->names,
                            options->service.len + options->about.len + options->method.len);
    if (rc < 0) {
        gr_worker_destroy(&self);
        return rc;
    }
    self->options = *options;
    self->options.service = gr_buf_keep(&self->names, options->service);
    self->options.about = gr_buf_keep(&self->names, options->about);
    self->options.method = gr_buf_keep(&self->names, options->method);
    if (self->options.credit == 0)
        self->options.credit = CREDIT;
    if (self->options.heartbeat_ms == 0)
        self->options.heartbeat_ms = self->foreign.dialect->beat_ms;
    if (self->options.liveness == 0)
        self->options.liveness = GR_PULSE_LIVENESS;
    if (self->options.idle_ms == 0)
        self->options.idle_ms = IDLE_MS;
    *out = self;
    return 0;
}

static void free_call(struct call *call)
{
    gr_buf_clear(&call->batch);
    gr_buf_clear(&call->names);
    free(call);
}

void gr_worker_destroy(gr_worker **worker)
{
    gr_worker *self = *worker;
    if (self == NULL)
        return;
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        HASH_DEL(self->calls, call);
        free_call(call);
    }
    while ((call = self->free_calls) != NULL) {
        self->free_calls = call->hh.next;
        free_call(call);
    }
    gr_worker_event event;
    while (events_pop(&self->events, &event))
        gr_msg_destroy(&event.msg);
    free(self->events.items);
    gr_msg_queue_clear(&self->out);
    gr_heap_clear(&self->heap);
    gr_buf_clear(&self->names);
    gr_buf_clear(&self->scratch);
    gr_foreign_clear(&self->foreign);
    free(self);
    *worker = NULL;
}

static struct call *find(const gr_worker *self, uint64_t route)
{
    struct call *call;
    HASH_FIND(hh, self->calls, &route, sizeof(route), call);
    return call;
}

static struct call *add_call(gr_worker *self, const gr_envelope *request)
{
    struct call *call = self->free_calls;
    gr_buf batch = {0}, names = {0};
    if (call != NULL) {
        self->free_calls = call->hh.next;
        batch = call->batch; /* empty, but it has its memory */
        names = call->names;
    } else {
        call = malloc(sizeof(*call));
    }
    if (call == NULL)
        return NULL;
    *call = (struct call){.route = request->route,
                          .granted = request->credit,
                          .window = request->window,
                          .batch = batch,
                          .names = names};
    if (!self->foreign.dialect->is_ours)
        call->granted = call->window = INT64_MAX / 2;
    HASH_ADD(hh, self->calls, route, sizeof(call->route), call);
    return call;
}

static void emit(gr_worker *self, gr_worker_event event)
{
    if (events_push(&self->events, &event) < 0)
        gr_msg_destroy(&event.msg);
}

/* How a broker of an older dialect names the call and its client. */
static void address(const struct call *call, gr_envelope *envelope)
{
    if (call->names.len == 0)
        return;
    envelope->tag = gr_slice_of(call->names.data, call->tag_len);
    envelope->caller =
        gr_slice_of(call->names.data + call->tag_len, call->names.len - call->tag_len);
    envelope->in_stream = call->streaming;
    envelope->bulk = call->bulk;
}

static int send_envelope(gr_worker *self, gr_envelope *envelope, gr_buf *payload, int64_t now_ms);

static void send_last_words(gr_worker *self, const gr_envelope *envelope, const gr_buf *payload,
                            int64_t now_ms)
{
    gr_envelope said[GR_BULK_LAST_WORDS];
    gr_slice bytes = payload != NULL ? gr_buf_slice(payload) : envelope->payload;
    int count = gr_bulk_last_words(self->foreign.dialect, envelope, bytes, said);
    for (int i = 0; i < count; i++)
        send_envelope(self, &said[i], NULL, now_ms);
}

static int send_envelope(gr_worker *self, gr_envelope *envelope, gr_buf *payload, int64_t now_ms)
{
    gr_msg *msg;
    send_last_words(self, envelope, payload, now_ms);
    gr_foreign_sign(&self->foreign, envelope);
    int rc = self->foreign.dialect->build(envelope, GR_WORKER_TO_BROKER, payload, &msg);
    if (rc < 0 || msg == NULL)
        return rc;
    rc = gr_msg_queue_push(&self->out, &msg);
    gr_msg_destroy(&msg);
    if (!self->foreign.dialect->beats_anyway || envelope->type == GR_HEARTBEAT)
        self->pulse.sent_ms = now_ms;
    return rc;
}

static void send_beat(gr_worker *self, int64_t now_ms)
{
    gr_envelope beat = {.type = GR_HEARTBEAT};
    send_envelope(self, &beat, NULL, now_ms);
}

/* The last call has ended while draining: now we may go. */
static void finish_drain(gr_worker *self)
{
    if (!self->draining || self->drained || HASH_COUNT(self->calls) > 0)
        return;
    if (!self->drain_agreed && self->state != DOWN)
        return;
    self->drained = true;
    emit(self, (gr_worker_event){.type = GR_WORKER_DRAINED});
}

static void end_call(gr_worker *self, struct call *call)
{
    enum { KEEP_BATCH = 64 * 1024 };
    gr_heap_remove(&self->heap, &call->due);
    HASH_DEL(self->calls, call);
    if (call->count > 0)
        self->batches--;
    call->batch.len = call->names.len = 0;
    if (call->batch.cap > KEEP_BATCH)
        gr_buf_clear(&call->batch);
    call->hh.next = self->free_calls;
    self->free_calls = call;
    finish_drain(self);
}

static void cancel_call(gr_worker *self, struct call *call, int status)
{
    self->stats.cancelled++;
    emit(self, (gr_worker_event){.type = GR_WORKER_CANCEL, .route = call->route, .status = status});
    end_call(self, call);
}

static void cancel_all(gr_worker *self, int status)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next)
        cancel_call(self, call, status);
}

static void send_ready(gr_worker *self, int64_t now_ms)
{
    gr_envelope ready = {
        .type = GR_READY,
        .credit = self->options.credit,
        .window = self->options.local ? 0 : self->options.liveness,
        .deadline_ms = self->options.local ? 0 : self->options.heartbeat_ms,
        .service = self->options.service,
        .method = self->options.method,
        .payload = self->options.about,
    };
    send_envelope(self, &ready, NULL, now_ms);
    self->pulse.sent_ms = now_ms;
    self->announced = self->promised = self->options.credit;
    self->state = GREETING;
    self->beaten = false;
}

static void connected(void *engine, int64_t now_ms)
{
    gr_worker *self = engine;
    if (self->state != DOWN || self->draining)
        return;
    self->pulse = (gr_pulse){.sent_ms = now_ms, .heard_ms = now_ms};
    if (!self->options.local) {
        self->pulse.beat_ms = self->options.heartbeat_ms;
        gr_pulse_expect(&self->pulse, self->options.heartbeat_ms, self->options.liveness);
    }
    if (self->foreign.dialect->echoes)
        self->pulse.beat_ms = 0;
    self->rest_ms = GR_NEVER;
    send_ready(self, now_ms);
}

static void lose_broker(gr_worker *self)
{
    bool was_up = self->state == UP;
    self->state = DOWN;
    cancel_all(self, GR_EUNAVAILABLE);
    gr_msg_queue_clear(&self->out);
    if (was_up)
        emit(self, (gr_worker_event){.type = GR_WORKER_DOWN});
    finish_drain(self);
}

static void disconnected(void *engine, int64_t now_ms)
{
    (void)now_ms;
    gr_worker *self = engine;
    if (self->state != DOWN)
        lose_broker(self);
}

static int begin_stream(gr_worker *self, struct call *call, int64_t now_ms)
{
    call->active_ms = now_ms;
    if (call->streaming)
        return 0;
    int rc = gr_heap_set(&self->heap, &call->due, now_ms + self->options.idle_ms);
    call->streaming = rc == 0; /* the idle limit stands instead of the deadline */
    return rc;
}

/* An item has gone. Where nobody gives credit, what waits to go holds a stream back. Returns 1 when
 * more may follow. */
static int spend(gr_worker *self, struct call *call, size_t len)
{
    call->granted--;
    call->window -= (int64_t)len;
    call->blocked = call->granted <= 0 || call->window <= 0;
    if (!self->foreign.dialect->is_ours) {
        call->blocked = self->out.len >= OUT_LEN || self->out.bytes >= OUT_BYTES;
        self->throttled = self->throttled || call->blocked;
    }
    return call->blocked ? 0 : 1;
}

/* A message of its own. */
static int send_lone(gr_worker *self, struct call *call, gr_envelope *lone, int64_t now_ms)
{
    size_t len = lone->payload.len;
    lone->route = call->route;
    lone->split = call->seq;
    lone->count = 1;
    address(call, lone);
    int rc = send_envelope(self, lone, NULL, now_ms);
    if (rc == 0)
        rc = begin_stream(self, call, now_ms);
    if (rc < 0)
        return rc;
    call->seq++;
    return spend(self, call, len);
}

static int finish(gr_worker *self, gr_envelope *envelope, gr_buf *payload, int64_t now_ms)
{
    struct call *call = find(self, envelope->route);
    if (call == NULL)
        return GR_ENOTFOUND;
    address(call, envelope);
    gr_worker_flush(self, envelope->route, now_ms);
    int rc = send_envelope(self, envelope, payload, now_ms);
    if (rc == 0)
        end_call(self, call);
    return rc;
}

int gr_worker_reply(gr_worker *self, uint64_t route, uint16_t status, gr_buf *payload,
                    int64_t now_ms)
{
    gr_envelope reply = {.type = GR_REPLY, .route = route, .status = status};
    return finish(self, &reply, payload, now_ms);
}

int gr_worker_error(gr_worker *self, uint64_t route, int error, gr_buf *payload, int64_t now_ms)
{
    gr_envelope envelope = {.type = GR_ERROR, .route = route, .status = (uint16_t)-error};
    return finish(self, &envelope, payload, now_ms);
}

static void send_batch(gr_worker *self, struct call *call, uint8_t type, int64_t now_ms)
{
    gr_envelope items = {
        .type = type,
        .route = call->route,
        .split = call->seq,
        .count = call->count,
        .payload = gr_buf_slice(&call->batch),
    };
    address(call, &items);
    if (call->batch.len > BATCH_BYTES)
        send_envelope(self, &items, &call->batch, now_ms); /* takes the memory */
    else
        send_envelope(self, &items, NULL, now_ms);
    call->batch.len = 0;
    call->seq += call->count;
    if (call->count > 0)
        self->batches--;
    call->count = 0;
}

int gr_worker_chunk(gr_worker *self, uint64_t route, gr_slice codec, bool raw, gr_slice piece,
                    int64_t now_ms)
{
    struct call *call = find(self, route);
    if (call == NULL)
        return GR_ENOTFOUND;
    if (!self->foreign.dialect->is_ours && (raw || !gr_slice_equal(codec, gr_slice_str("gzip"))))
        return GR_EINVAL;
    gr_envelope chunk = {
        .type = GR_CHUNK, .flags = raw ? GR_FLAG_RAW : 0, .method = codec, .payload = piece};
    int rc = send_lone(self, call, &chunk, now_ms);
    call->bulk = call->bulk || rc >= 0;
    return rc;
}

int gr_worker_item(gr_worker *self, uint64_t route, gr_slice item, int64_t now_ms)
{
    struct call *call = find(self, route);
    if (call == NULL)
        return GR_ENOTFOUND;
    gr_envelope lone = {.type = GR_ITEM, .payload = item};
    if (!self->foreign.dialect->is_ours)
        return send_lone(self, call, &lone, now_ms);
    int rc = gr_buf_append(&call->batch, item.data, item.len);
    if (rc < 0)
        return rc;
    if (call->count++ == 0)
        self->batches++;
    rc = begin_stream(self, call, now_ms);
    if (rc < 0)
        return rc;
    if (call->count >= BATCH_ITEMS || call->batch.len >= BATCH_BYTES)
        send_batch(self, call, GR_ITEM, now_ms);
    return spend(self, call, item.len);
}

void gr_worker_flush(gr_worker *self, uint64_t route, int64_t now_ms)
{
    struct call *call = find(self, route);
    if (call != NULL && call->count > 0)
        send_batch(self, call, GR_ITEM, now_ms);
}

int gr_worker_end(gr_worker *self, uint64_t route, gr_slice digest, int64_t now_ms)
{
    struct call *call = find(self, route);
    if (call == NULL)
        return GR_ENOTFOUND;
    if (call->bulk) {
        gr_envelope end = {.type = GR_END, .route = route, .split = call->seq, .payload = digest};
        return finish(self, &end, NULL, now_ms);
    }
    send_batch(self, call, GR_END, now_ms);
    end_call(self, call);
    return 0;
}

static uint32_t present_credit(const gr_worker *self)
{
    uint32_t most = self->options.credit > MOST_CREDIT ? self->options.credit : MOST_CREDIT;
    return self->nested < most - self->options.credit ? self->options.credit + self->nested : most;
}

/* The broker hears of a higher credit only when it takes us to be full. */
static void announce_credit(gr_worker *self, int64_t now_ms)
{
    uint32_t credit = present_credit(self);
    if (self->state == DOWN || self->draining || credit == self->announced ||
        (credit > self->announced && HASH_COUNT(self->calls) < self->announced))
        return;
    gr_envelope envelope = {.type = GR_CREDIT, .credit = credit};
    if (send_envelope(self, &envelope, NULL, now_ms) < 0)
        return;
    self->announced = credit;
    if (credit > self->promised)
        self->promised = credit;
}

void gr_worker_nested(gr_worker *self, uint32_t count, int64_t now_ms)
{
    self->nested = count;
    announce_credit(self, now_ms);
}

void gr_worker_drain(gr_worker *self, int64_t now_ms)
{
    if (self->draining)
        return;
    self->draining = true;
    if (self->state != DOWN) {
        gr_envelope bye = {.type = GR_BYE, .flags = GR_FLAG_DRAIN};
        send_envelope(self, &bye, NULL, now_ms);
        self->drain_agreed = !self->foreign.dialect->is_ours; /* there is no word for it */
    }
    finish_drain(self);
}

void gr_worker_leave(gr_worker *self, int64_t now_ms)
{
    if (self->state == DOWN)
        return;
    gr_envelope bye = {.type = GR_BYE};
    send_envelope(self, &bye, NULL, now_ms);
}

/* Ends a call, which `about` names, with an error of our own. */
static void refuse(gr_worker *self, const gr_envelope *about, int error, const char *text,
                   int64_t now_ms)
{
    gr_buf payload = {0};
    gr_envelope envelope = {.type = GR_ERROR,
                            .route = about->route,
                            .tag = about->tag,
                            .caller = about->caller,
                            .in_stream = about->in_stream,
                            .bulk = about->bulk,
                            .status = (uint16_t)-error};
    if (gr_wire_put_exception(&payload, gr_slice_str(gr_err_code(error)), gr_slice_str(text),
                              gr_slice_str("")) == 0)
        send_envelope(self, &envelope, &payload, now_ms);
    gr_buf_clear(&payload);
}

/* Remembers how a broker of an older dialect names the call. */
static int adopt(gr_worker *self, struct call *call, gr_envelope *request, gr_msg **msg)
{
    if (self->foreign.dialect->is_ours)
        return 0;
    call->tag_len = request->tag.len;
    int rc = gr_buf_append(&call->names, request->tag.data, request->tag.len);
    if (rc == 0)
        rc = gr_buf_append(&call->names, request->caller.data, request->caller.len);
    return rc < 0 ? rc : gr_wire_settle(request, msg, &self->scratch); /* events outlive it */
}

static int begin_call(gr_worker *self, gr_envelope *request, gr_msg **msg, int64_t now_ms)
{
    struct call *call = add_call(self, request);
    if (call == NULL)
        return GR_ENOMEM;
    int rc = adopt(self, call, request, msg);
    if (rc == 0 && request->deadline_ms > 0)
        rc = gr_heap_set(&self->heap, &call->due, now_ms + request->deadline_ms);
    if (rc < 0)
        end_call(self, call);
    return rc;
}

static void on_request(gr_worker *self, gr_envelope *request, gr_msg **msg, int64_t now_ms)
{
    bool ours = self->foreign.dialect->is_ours;
    if (self->state != UP)
        return; /* of an older registration: nobody waits for the answer */
    if (!ours)
        request->route = ++self->last_route;
    if (self->foreign.dialect->one_by_one)
        request->method = self->options.method;
    if (find(self, request->route) != NULL || request->route == 0) {
        self->stats.malformed++;
        return;
    }
    if (self->draining && !ours) {
        refuse(self, request, GR_EUNAVAILABLE, "the worker is shutting down", now_ms);
        return;
    }
    if (HASH_COUNT(self->calls) >= (uint64_t)self->promised + SPARE_CREDIT) {
        refuse(self, request, GR_EEXHAUSTED, "the worker has more calls than it takes", now_ms);
        return;
    }
    uint64_t route = request->route;
    int rc = begin_call(self, request, msg, now_ms);
    if (rc < 0) {
        refuse(self, request, rc, gr_err_text(rc), now_ms);
        return;
    }
    self->stats.requests++;
    announce_credit(self, now_ms);
    emit(self, (gr_worker_event){
                   .type = GR_WORKER_REQUEST,
                   .route = route,
                   .id = request->id,
                   .deadline_ms = request->deadline_ms,
                   .split = request->split,
                   .whole = !ours || (request->flags & GR_FLAG_WHOLE) || self->options.local,
                   .method = request->method,
                   .payload = request->payload,
                   .msg = *msg,
               });
    *msg = NULL;
}

static void unblock(gr_worker *self, struct call *call)
{
    call->blocked = false;
    emit(self, (gr_worker_event){.type = GR_WORKER_CREDIT, .route = call->route});
}

static void on_credit(gr_worker *self, const gr_envelope *credit, int64_t now_ms)
{
    struct call *call = find(self, credit->route);
    if (call == NULL)
        return;
    call->active_ms = now_ms;
    if (call->granted < MAX_GRANT)
        call->granted += credit->credit;
    if (call->window < MAX_GRANT)
        call->window += credit->window;
    if (call->blocked && call->granted > 0 && call->window > 0)
        unblock(self, call);
}

static void come_up(gr_worker *self)
{
    if (self->state != GREETING)
        return;
    self->state = UP;
    emit(self, (gr_worker_event){.type = GR_WORKER_UP});
}

static void on_ready(gr_worker *self, const gr_envelope *ready)
{
    if (!self->options.local)
        gr_pulse_expect(&self->pulse, ready->deadline_ms, ready->window);
    come_up(self);
}

/* DISCONNECT of an older dialect: a new connection, after a while. */
static void on_dismissal(gr_worker *self, int64_t now_ms)
{
    int64_t rest_ms = self->state == UP ? SHORT_REST_MS : REST_MS;
    lose_broker(self);
    if (!self->draining)
        self->rest_ms = now_ms + rest_ms;
}

static void on_bye(gr_worker *self, const gr_envelope *bye, int64_t now_ms)
{
    if (!self->foreign.dialect->is_ours) {
        on_dismissal(self, now_ms);
        return;
    }
    if (bye->flags & GR_FLAG_DRAIN) {
        self->drain_agreed = true;
        finish_drain(self);
        return;
    }
    if (self->state == GREETING && !self->draining) {
        if (self->beaten)
            send_ready(self, now_ms); /* it has not taken the first one */
        return;                       /* otherwise it answers what we said before */
    }
    lose_broker(self);
    if (!self->draining)
        send_ready(self, now_ms); /* it has forgotten us; had it left, the connection would end */
}

static void on_error(gr_worker *self, const gr_envelope *error, gr_msg **msg)
{
    emit(self, (gr_worker_event){
                   .type = GR_WORKER_REFUSED,
                   .status = -(int)error->status,
                   .payload = error->payload,
                   .msg = *msg,
               });
    *msg = NULL;
}

static void receive(void *engine, gr_msg **msg, int64_t now_ms)
{
    gr_worker *self = engine;
    gr_envelope envelope;
    if (self->state == DOWN) { /* left over from a connection that has ended */
        gr_msg_destroy(msg);
        return;
    }
    self->pulse.heard_ms = now_ms;
    if (self->foreign.dialect->parse(*msg, 0, GR_BROKER_TO_WORKER, &self->scratch, &envelope) < 0) {
        self->stats.malformed++;
        gr_msg_destroy(msg);
        return;
    }
    if (!self->foreign.dialect->is_ours && envelope.type != GR_BYE)
        come_up(self); /* that it speaks to us is all the answer that READY gets */
    struct call *call;
    switch (envelope.type) {
    case GR_REQUEST:
        on_request(self, &envelope, msg, now_ms);
        break;
    case GR_CREDIT:
        on_credit(self, &envelope, now_ms);
        break;
    case GR_CANCEL:
        call = find(self, envelope.route);
        if (call != NULL)
            cancel_call(self, call, GR_ECANCELLED);
        break;
    case GR_READY:
        on_ready(self, &envelope);
        break;
    case GR_BYE:
        on_bye(self, &envelope, now_ms);
        break;
    case GR_ERROR:
        on_error(self, &envelope, msg);
        break;
    case GR_HEARTBEAT:
        if (self->foreign.dialect->echoes)
            send_beat(self, now_ms);
        break;
    default:
        break; /* what a worker does not understand */
    }
    gr_msg_destroy(msg);
}

/* A plain call has a deadline, which the broker keeps as well. A stream has none, but must move:
 * its reader says how long it waits for an item, and a reader that is gone gives no credit. */
static void expire_calls(gr_worker *self, int64_t now_ms)
{
    gr_due *due;
    while ((due = gr_heap_first(&self->heap)) != NULL && due->at_ms <= now_ms) {
        struct call *call = GR_HEAP_ENTRY(due, struct call, due);
        int64_t limit_ms = call->active_ms + self->options.idle_ms;
        if (call->streaming && limit_ms > now_ms) {
            gr_heap_set(&self->heap, due, limit_ms);
            continue;
        }
        gr_envelope about = {.route = call->route};
        address(call, &about);
        if (call->streaming)
            refuse(self, &about, GR_EDEADLINE, "the stream has not moved for too long", now_ms);
        cancel_call(self, call, GR_EDEADLINE);
    }
}

static void flush_all(gr_worker *self, int64_t now_ms)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        if (self->batches == 0)
            break;
        if (call->count > 0)
            send_batch(self, call, GR_ITEM, now_ms);
    }
}

static void tick(void *engine, int64_t now_ms)
{
    gr_worker *self = engine;
    expire_calls(self, now_ms);
    if (self->batches > 0)
        flush_all(self, now_ms); /* a method computes on behind its last item */
    if (self->rest_ms <= now_ms) {
        self->rest_ms = GR_NEVER;
        self->reconnect = true;
    }
    if (self->state == DOWN)
        return;
    if (gr_pulse_is_dead(&self->pulse, now_ms)) {
        lose_broker(self);
        self->reconnect = true;
        return;
    }
    if (gr_pulse_should_beat(&self->pulse, now_ms)) {
        send_beat(self, now_ms);
        self->beaten = true;
    }
}

static int64_t next_due(const void *engine)
{
    const gr_worker *self = engine;
    int64_t due = self->state == DOWN ? self->rest_ms : gr_pulse_due(&self->pulse);
    const gr_due *first = gr_heap_first(&self->heap);
    return first != NULL && first->at_ms < due ? first->at_ms : due;
}

/* Enough was sent: streams may go on. */
static void unthrottle(gr_worker *self)
{
    struct call *call, *next;
    self->throttled = false;
    HASH_ITER (hh, self->calls, call, next)
        if (call->blocked)
            unblock(self, call);
}

static bool next_out(void *engine, gr_msg **msg)
{
    gr_worker *self = engine;
    *msg = gr_msg_queue_pop(&self->out);
    if (self->throttled && self->out.len < OUT_LEN / 2 && self->out.bytes < OUT_BYTES / 2)
        unthrottle(self);
    return *msg != NULL;
}

static gr_slice routing_id(void *engine)
{
    gr_worker *self = engine;
    return gr_foreign_new_id(&self->foreign, "gw-");
}

static size_t count_events(const void *engine)
{
    return ((const gr_worker *)engine)->events.len;
}

static bool take_reconnect(void *engine)
{
    gr_worker *self = engine;
    bool reconnect = self->reconnect;
    self->reconnect = false;
    return reconnect;
}

/* A worker serves until it has drained. */
static bool is_busy(const void *engine)
{
    const gr_worker *self = engine;
    return !self->drained || self->events.len > 0;
}

bool gr_worker_next_event(gr_worker *self, gr_worker_event *out)
{
    return events_pop(&self->events, out);
}

bool gr_worker_is_up(const gr_worker *self)
{
    return self->state == UP;
}

void gr_worker_get_stats(const gr_worker *self, gr_worker_stats *out)
{
    *out = self->stats;
    out->open = HASH_COUNT(self->calls);
}

const gr_engine_ops gr_worker_ops = {
    .routing_id = routing_id,
    .connected = connected,
    .disconnected = disconnected,
    .receive = receive,
    .tick = tick,
    .next_due = next_due,
    .next_out = next_out,
    .events = count_events,
    .take_reconnect = take_reconnect,
    .is_busy = is_busy,
};
