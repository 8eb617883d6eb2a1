#include "engine/worker_priv.h"

#include <stdlib.h>

enum {
    CREDIT = 1024,
    IDLE_MS = 600 * 1000,
    MOST_CREDIT = 65536, /* brokers believe no more */
    REST_MS = 1000,      /* before coming back to a broker that did not want us */
    SHORT_REST_MS = 100,
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

void gr_worker_destroy(gr_worker **worker)
{
    gr_worker *self = *worker;
    if (self == NULL)
        return;
    gr_worker_free_calls(self);
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

void gr_worker_emit(gr_worker *self, gr_worker_event event)
{
    if (events_push(&self->events, &event) < 0)
        gr_msg_destroy(&event.msg);
}

static void send_last_words(gr_worker *self, const gr_envelope *envelope, const gr_buf *payload,
                            int64_t now_ms)
{
    gr_envelope said[GR_BULK_LAST_WORDS];
    gr_slice bytes = payload != NULL ? gr_buf_slice(payload) : envelope->payload;
    int count = gr_bulk_last_words(self->foreign.dialect, envelope, bytes, said);
    for (int i = 0; i < count; i++)
        gr_worker_send(self, &said[i], NULL, now_ms);
}

int gr_worker_send(gr_worker *self, gr_envelope *envelope, gr_buf *payload, int64_t now_ms)
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
        gr_pulse_say(&self->pulse, now_ms);
    return rc;
}

static void send_beat(gr_worker *self, int64_t now_ms)
{
    gr_envelope beat = {.type = GR_HEARTBEAT};
    gr_worker_send(self, &beat, NULL, now_ms);
}

void gr_worker_finish_drain(gr_worker *self)
{
    if (!self->draining || self->drained || HASH_COUNT(self->calls) > 0)
        return;
    if (!self->drain_agreed && self->state != DOWN)
        return;
    self->drained = true;
    gr_worker_emit(self, (gr_worker_event){.type = GR_WORKER_DRAINED});
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
    gr_worker_send(self, &ready, NULL, now_ms);
    gr_pulse_say(&self->pulse, now_ms);
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
    gr_worker_cancel_calls(self, GR_EUNAVAILABLE);
    gr_msg_queue_clear(&self->out);
    if (was_up)
        gr_worker_emit(self, (gr_worker_event){.type = GR_WORKER_DOWN});
    gr_worker_finish_drain(self);
}

static void disconnected(void *engine, int64_t now_ms)
{
    (void)now_ms;
    gr_worker *self = engine;
    if (self->state != DOWN)
        lose_broker(self);
}

static void refused(void *engine, int error, const char *text, int64_t now_ms)
{
    (void)now_ms;
    gr_worker_emit(engine,
                   (gr_worker_event){.type = GR_WORKER_BARRED, .status = error, .text = text});
}

static uint32_t present_credit(const gr_worker *self)
{
    uint32_t most = self->options.credit > MOST_CREDIT ? self->options.credit : MOST_CREDIT;
    return self->nested < most - self->options.credit ? self->options.credit + self->nested : most;
}

void gr_worker_announce_credit(gr_worker *self, int64_t now_ms)
{
    uint32_t credit = present_credit(self);
    if (self->state == DOWN || self->draining || credit == self->announced ||
        (credit > self->announced && HASH_COUNT(self->calls) < self->announced))
        return;
    gr_envelope envelope = {.type = GR_CREDIT, .credit = credit};
    if (gr_worker_send(self, &envelope, NULL, now_ms) < 0)
        return;
    self->announced = credit;
    if (credit > self->promised)
        self->promised = credit;
}

void gr_worker_nested(gr_worker *self, uint32_t count, int64_t now_ms)
{
    self->nested = count;
    gr_worker_announce_credit(self, now_ms);
}

void gr_worker_drain(gr_worker *self, int64_t now_ms)
{
    if (self->draining)
        return;
    self->draining = true;
    if (self->state != DOWN) {
        gr_envelope bye = {.type = GR_BYE, .flags = GR_FLAG_DRAIN};
        gr_worker_send(self, &bye, NULL, now_ms);
        self->drain_agreed = !self->foreign.dialect->is_ours; /* there is no word for it */
    }
    gr_worker_finish_drain(self);
}

void gr_worker_leave(gr_worker *self, int64_t now_ms)
{
    if (self->state == DOWN)
        return;
    gr_envelope bye = {.type = GR_BYE};
    gr_worker_send(self, &bye, NULL, now_ms);
}

static void come_up(gr_worker *self)
{
    if (self->state != GREETING)
        return;
    self->state = UP;
    gr_worker_emit(self, (gr_worker_event){.type = GR_WORKER_UP});
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
        gr_worker_finish_drain(self);
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
    gr_worker_emit(self, (gr_worker_event){
                             .type = GR_WORKER_REFUSED,
                             .status = -(int)error->status,
                             .payload = error->payload,
                             .msg = *msg,
                         });
    *msg = NULL;
}

/* The broker in this process puts three frames before a request of its own service: who calls.
 * Other messages of gh1 have no third frame. */
static size_t introduction(const gr_worker *self, const gr_msg *msg)
{
    enum { INTRODUCTION = 3, PLAIN = 2 };
    return self->options.local && gr_msg_len(msg) > PLAIN ? INTRODUCTION : 0;
}

static int read_message(gr_worker *self, const gr_msg *msg, gr_envelope *out)
{
    size_t first = introduction(self, msg);
    int rc = self->foreign.dialect->parse(msg, first, GR_BROKER_TO_WORKER, &self->scratch, out);
    if (rc == 0 && first > 0) {
        out->caller = gr_msg_frame(msg, 0);
        out->address = gr_msg_frame(msg, 1);
        out->user = gr_msg_frame(msg, 2);
    }
    return rc;
}

static void receive(void *engine, gr_msg **msg, int64_t now_ms)
{
    gr_worker *self = engine;
    gr_envelope envelope;
    if (self->state == DOWN) { /* left over from a connection that has ended */
        gr_msg_destroy(msg);
        return;
    }
    gr_pulse_hear(&self->pulse, now_ms);
    if (read_message(self, *msg, &envelope) < 0) {
        self->stats.malformed++;
        gr_msg_destroy(msg);
        return;
    }
    if (!self->foreign.dialect->is_ours && envelope.type != GR_BYE)
        come_up(self); /* that it speaks to us is all the answer that READY gets */
    switch (envelope.type) {
    case GR_REQUEST:
        gr_worker_on_request(self, &envelope, msg, now_ms);
        break;
    case GR_CREDIT:
        gr_worker_on_credit(self, &envelope, now_ms);
        break;
    case GR_CANCEL:
        gr_worker_on_cancel(self, &envelope);
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

static void tick(void *engine, int64_t now_ms)
{
    gr_worker *self = engine;
    gr_worker_expire_calls(self, now_ms);
    if (self->batches > 0)
        gr_worker_flush_calls(self, now_ms); /* a method computes on behind its last item */
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

static bool next_out(void *engine, gr_msg **msg)
{
    gr_worker *self = engine;
    *msg = gr_msg_queue_pop(&self->out);
    if (self->throttled)
        gr_worker_unthrottle(self);
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
    .refused = refused,
    .receive = receive,
    .tick = tick,
    .next_due = next_due,
    .next_out = next_out,
    .events = count_events,
    .take_reconnect = take_reconnect,
    .is_busy = is_busy,
};
