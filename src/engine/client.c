#include "engine/client.h"

#include <stdlib.h>
#include <uthash.h>

#include "base/heap.h"
#include "engine/events.h"
#include "engine/pulse.h"

enum {
    CONNECT_TIMEOUT_MS = 5000,
    MAX_CALLS = 65536,
    UNREAD = 1 << 16, /* items that may wait for a reader where there is no credit */
};

enum state {
    DOWN,     /* no connection: requests are held back */
    GREETING, /* connected, HELLO is under way */
    UP,       /* the broker has answered */
};

struct call {
    uint64_t id;
    gr_due due;
    uint32_t granted; /* items that may still come */
    uint32_t seq;     /* number of the next item */
    bool sent;
    bool streaming;
    bool bulk_fails; /* gate01 has announced an exception */
    UT_hash_handle hh;
};

/* A message that cannot go out yet. */
struct held {
    uint64_t id; /* of its call */
    gr_msg *msg;
};

GR_EVENTS(gr_client_event, events)
GR_EVENTS(struct held, helds)

struct gr_client {
    gr_client_options options;
    enum state state;
    bool reconnect;
    bool beaten;     /* since HELLO */
    int64_t down_ms; /* since when nobody answers */
    uint64_t broker; /* the broker's instance, from its HELLO */
    uint64_t last_id;
    gr_pulse pulse;
    gr_heap heap;
    struct call *calls;
    struct call *free_calls; /* through hh.next */
    struct helds held;       /* requests made while DOWN, or while another one is under way */
    uint64_t present;        /* the only call under way, where an answer does not name its call */
    gr_foreign foreign;
    gr_buf scratch;
    gr_msg_queue out;
    struct events events;
    gr_client_stats stats;
};

int gr_client_new(gr_client **out, const gr_client_options *options)
{
    gr_client *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->options = *options;
    if (gr_foreign_init(&self->foreign, &options->foreign) < 0) {
        free(self);
        return GR_ENOMEM;
    }
    if (self->options.heartbeat_ms == 0)
        self->options.heartbeat_ms = self->foreign.dialect->beat_ms;
    if (self->options.liveness == 0)
        self->options.liveness = GR_PULSE_LIVENESS;
    if (self->options.connect_timeout_ms == 0)
        self->options.connect_timeout_ms = CONNECT_TIMEOUT_MS;
    if (self->options.max_calls == 0)
        self->options.max_calls = MAX_CALLS;
    *out = self;
    return 0;
}

static void drop_held(gr_client *self)
{
    struct held held;
    while (helds_pop(&self->held, &held))
        gr_msg_destroy(&held.msg);
}

void gr_client_destroy(gr_client **client)
{
    gr_client *self = *client;
    if (self == NULL)
        return;
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        HASH_DEL(self->calls, call);
        free(call);
    }
    while ((call = self->free_calls) != NULL) {
        self->free_calls = call->hh.next;
        free(call);
    }
    gr_client_event event;
    while (events_pop(&self->events, &event))
        gr_msg_destroy(&event.msg);
    free(self->events.items);
    drop_held(self);
    free(self->held.items);
    gr_msg_queue_clear(&self->out);
    gr_heap_clear(&self->heap);
    gr_buf_clear(&self->scratch);
    gr_foreign_clear(&self->foreign);
    free(self);
    *client = NULL;
}

static struct call *find(const gr_client *self, uint64_t id)
{
    struct call *call;
    HASH_FIND(hh, self->calls, &id, sizeof(id), call);
    return call;
}

static struct call *add_call(gr_client *self, uint64_t id)
{
    struct call *call = self->free_calls;
    if (call != NULL)
        self->free_calls = call->hh.next;
    else
        call = malloc(sizeof(*call));
    if (call == NULL)
        return NULL;
    *call = (struct call){.id = id};
    HASH_ADD(hh, self->calls, id, sizeof(call->id), call);
    return call;
}

/* Whether a request may go out now. */
static bool may_send(const gr_client *self)
{
    return self->state != DOWN && self->present == 0 && !self->reconnect;
}

/* Requests that were held back, and credit for them, go out now, unless they are over already. */
static void release_held(gr_client *self)
{
    struct held held;
    while (may_send(self) && helds_pop(&self->held, &held)) {
        struct call *call = find(self, held.id);
        if (call != NULL && gr_msg_queue_push(&self->out, &held.msg) == 0) {
            call->sent = true;
            if (self->foreign.dialect->one_by_one)
                self->present = call->id;
        }
        gr_msg_destroy(&held.msg);
    }
}

static void end_call(gr_client *self, struct call *call)
{
    uint64_t id = call->id;
    gr_heap_remove(&self->heap, &call->due);
    HASH_DEL(self->calls, call);
    call->hh.next = self->free_calls;
    self->free_calls = call;
    if (self->held.len > 0 && HASH_COUNT(self->calls) == 0)
        drop_held(self); /* or it would grow for as long as there is no broker */
    if (id == self->present) {
        self->present = 0;
        if (!self->reconnect)
            release_held(self);
    }
}

/* Out of memory for an event means that its call never ends for its owner; the deadline of a
 * waiting coroutine is then its only end. */
static void emit(gr_client *self, gr_client_event event)
{
    if (events_push(&self->events, &event) < 0)
        gr_msg_destroy(&event.msg);
}

static void fail_call(gr_client *self, struct call *call, int status, const char *text)
{
    emit(self, (gr_client_event){
                   .type = GR_CLIENT_FAILED, .id = call->id, .status = status, .text = text});
    end_call(self, call);
}

static void fail_sent_calls(gr_client *self, const char *text)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next)
        if (call->sent)
            fail_call(self, call, GR_EUNAVAILABLE, text);
}

/* Makes a message; *msg is NULL when the dialect has no word for it. */
static int make(gr_client *self, gr_envelope *envelope, gr_buf *payload, gr_msg **msg)
{
    gr_foreign_sign(&self->foreign, envelope);
    return self->foreign.dialect->build(envelope, GR_CLIENT_TO_BROKER, payload, msg);
}

static int send_envelope(gr_client *self, gr_envelope *envelope, gr_buf *payload, int64_t now_ms)
{
    gr_msg *msg;
    int rc = make(self, envelope, payload, &msg);
    if (rc < 0 || msg == NULL)
        return rc;
    rc = gr_msg_queue_push(&self->out, &msg);
    gr_msg_destroy(&msg);
    if (!self->foreign.dialect->beats_anyway || envelope->type == GR_HEARTBEAT)
        gr_pulse_say(&self->pulse, now_ms);
    return rc;
}

/* For a call that has not been sent. */
static int hold_envelope(gr_client *self, gr_envelope *envelope, gr_buf *payload)
{
    struct held held = {.id = envelope->id};
    int rc = make(self, envelope, payload, &held.msg);
    if (rc < 0 || held.msg == NULL)
        return rc;
    rc = helds_push(&self->held, &held);
    if (rc < 0)
        gr_msg_destroy(&held.msg);
    return rc;
}

static void send_hello(gr_client *self, int64_t now_ms)
{
    gr_envelope hello = {.type = GR_HELLO};
    if (!self->options.local) {
        hello.deadline_ms = self->options.heartbeat_ms;
        hello.window = self->options.liveness;
    }
    send_envelope(self, &hello, NULL, now_ms);
    self->state = GREETING;
    self->beaten = false;
}

/* A broker answers. */
static void come_up(gr_client *self)
{
    if (self->state != GREETING)
        return;
    self->state = UP;
    emit(self, (gr_client_event){.type = GR_CLIENT_UP});
}

static void connected(void *engine, int64_t now_ms)
{
    gr_client *self = engine;
    if (self->state != DOWN)
        return;
    self->pulse = (gr_pulse){.sent_ms = now_ms, .heard_ms = now_ms};
    if (!self->options.local) {
        self->pulse.beat_ms = self->options.heartbeat_ms;
        gr_pulse_expect(&self->pulse, self->options.heartbeat_ms, self->options.liveness);
    }
    if (self->foreign.dialect->one_by_one) /* RFC 7: no beats, no greeting */
        self->pulse.beat_ms = self->pulse.wait_ms = 0;
    send_hello(self, now_ms);
    if (self->foreign.dialect->one_by_one)
        come_up(self);
    release_held(self);
}

static void lose_broker(gr_client *self, const char *text, int64_t now_ms)
{
    bool was_up = self->state == UP;
    self->state = DOWN; /* first: what is held back stays so */
    if (was_up) {
        self->down_ms = now_ms;
        emit(self, (gr_client_event){.type = GR_CLIENT_DOWN});
    }
    fail_sent_calls(self, text);
}

static void disconnected(void *engine, int64_t now_ms)
{
    gr_client *self = engine;
    if (self->state == DOWN)
        return;
    lose_broker(self, "the connection to the broker was lost", now_ms);
    gr_msg_queue_clear(&self->out);
}

/* Nobody has to wait for better times: these calls fail, and those to come try their luck anew. */
static void refused(void *engine, int error, const char *text, int64_t now_ms)
{
    gr_client *self = engine;
    struct call *call, *next;
    (void)now_ms;
    HASH_ITER (hh, self->calls, call, next) {
        emit(self, (gr_client_event){.type = GR_CLIENT_FAILED,
                                     .id = call->id,
                                     .status = error,
                                     .text = text,
                                     .refused = true});
        end_call(self, call);
    }
}

int gr_client_call(gr_client *self, const gr_client_request *request, gr_buf *payload,
                   int64_t now_ms, uint64_t *id)
{
    if (!gr_wire_is_name(request->service) || !gr_wire_is_name(request->method))
        return GR_EINVAL;
    if (HASH_COUNT(self->calls) >= self->options.max_calls)
        return GR_EEXHAUSTED;
    if (HASH_COUNT(self->calls) == 0 && self->state != UP)
        self->down_ms = now_ms;

    struct call *call = add_call(self, self->last_id + 1);
    if (call == NULL)
        return GR_ENOMEM;
    gr_envelope envelope = {
        .type = GR_REQUEST,
        .id = call->id,
        .deadline_ms = request->timeout_ms,
        .credit = request->credit > 0 ? request->credit : 1,
        .window = request->window > 0 ? request->window : 1,
        .split = request->split,
        .service = request->service,
        .method = request->method,
    };
    call->granted = self->foreign.dialect->is_ours ? envelope.credit : UNREAD;
    call->sent = may_send(self);
    int rc = call->sent ? send_envelope(self, &envelope, payload, now_ms)
                        : hold_envelope(self, &envelope, payload);
    if (rc == 0 && call->sent && self->foreign.dialect->one_by_one)
        self->present = call->id;
    if (rc == 0 && request->timeout_ms > 0)
        rc = gr_heap_set(&self->heap, &call->due, now_ms + request->timeout_ms);
    if (rc < 0) {
        end_call(self, call);
        return rc;
    }
    self->last_id = call->id;
    self->stats.calls++;
    *id = call->id;
    return 0;
}

int gr_client_credit(gr_client *self, uint64_t id, uint32_t items, uint32_t bytes, int64_t now_ms)
{
    struct call *call = find(self, id);
    if (call == NULL)
        return GR_ENOTFOUND;
    call->granted += items;
    gr_envelope envelope = {.type = GR_CREDIT, .id = id, .credit = items, .window = bytes};
    return call->sent ? send_envelope(self, &envelope, NULL, now_ms)
                      : hold_envelope(self, &envelope, NULL);
}

static void give_up(gr_client *self, struct call *call, int64_t now_ms)
{
    if (!call->sent)
        return;
    gr_envelope envelope = {.type = GR_CANCEL, .id = call->id};
    send_envelope(self, &envelope, NULL, now_ms);
    if (self->foreign.dialect->one_by_one)
        self->reconnect = true; /* a late answer would be taken for that to the next call */
}

void gr_client_cancel(gr_client *self, uint64_t id, int64_t now_ms)
{
    struct call *call = find(self, id);
    if (call == NULL)
        return;
    give_up(self, call, now_ms);
    end_call(self, call);
}

void gr_client_leave(gr_client *self, int64_t now_ms)
{
    if (self->state == DOWN)
        return;
    gr_envelope bye = {.type = GR_BYE};
    send_envelope(self, &bye, NULL, now_ms);
}

static void on_hello(gr_client *self, const gr_envelope *hello)
{
    if (!self->options.local)
        gr_pulse_expect(&self->pulse, hello->deadline_ms, hello->window);
    if (self->state == UP && hello->route != self->broker)
        fail_sent_calls(self, "the broker was started anew");
    self->broker = hello->route;
    come_up(self);
}

static void pass_on(gr_client *self, gr_client_event event, gr_msg **msg)
{
    event.msg = *msg;
    *msg = NULL;
    emit(self, event);
}

static void on_items(gr_client *self, struct call *call, const gr_envelope *item, gr_msg **msg,
                     int64_t now_ms)
{
    bool ours = self->foreign.dialect->is_ours; /* others do not number items, and know no credit */
    if (!ours && item->count > call->granted) {
        fail_call(self, call, GR_EEXHAUSTED,
                  "the stream is not read as fast as it comes, and this broker cannot be told to "
                  "wait");
        return;
    }
    if (ours && (item->split != call->seq || item->count > call->granted)) {
        give_up(self, call, now_ms);
        fail_call(self, call, GR_EDATALOSS,
                  item->split != call->seq ? "items of the stream are missing"
                                           : "the stream sent more items than it may");
        return;
    }
    call->seq += item->count;
    call->granted -= item->count;
    if (!call->streaming) {
        call->streaming = true;
        gr_heap_remove(&self->heap, &call->due); /* from now on the reader says how long it waits */
    }
    gr_client_event event = {
        .id = call->id, .count = item->count, .payload = item->payload, .type = GR_CLIENT_ITEM};
    if (item->type == GR_CHUNK) {
        event.type = GR_CLIENT_CHUNK;
        event.raw = item->flags & GR_FLAG_RAW;
        event.codec = ours ? item->method : gr_slice_str("gzip");
    }
    if (item->type == GR_END) {
        event.type = GR_CLIENT_END;
        end_call(self, call);
    }
    pass_on(self, event, msg);
}

/* Whether the answer is to one of our calls, and not to a beat or a call of somebody else. */
static bool is_mine(const gr_client *self, const gr_envelope *answer)
{
    const gr_dialect *dialect = self->foreign.dialect;
    return dialect->is_ours || dialect->one_by_one ||
           answer->seed == gr_tag_seed_of(self->foreign.seed);
}

/* Each event has a message of its own, whose payload is found by reading it again. */
static gr_client_event copy_error(gr_client *self, const struct call *call, const gr_msg *msg)
{
    gr_envelope error = {0};
    gr_client_event event = {.type = GR_CLIENT_FAILED, .id = call->id};
    if (gr_msg_copy(msg, &event.msg) == 0)
        self->foreign.dialect->parse(event.msg, 0, GR_BROKER_TO_CLIENT, &self->scratch, &error);
    event.payload = error.payload;
    return event;
}

/* An ERROR that is about no call: the broker wants nothing of us. */
static void on_refusal(gr_client *self, const gr_envelope *error, const gr_msg *msg, int64_t now_ms)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        gr_client_event event = copy_error(self, call, msg);
        event.status = -(int)error->status;
        give_up(self, call, now_ms);
        end_call(self, call);
        emit(self, event);
    }
}

static void on_answer(gr_client *self, gr_envelope *answer, gr_msg **msg, int64_t now_ms)
{
    if (self->foreign.dialect->is_ours && answer->type == GR_ERROR && answer->id == 0) {
        on_refusal(self, answer, *msg, now_ms);
        return;
    }
    if (self->foreign.dialect->one_by_one)
        answer->id = self->present;
    struct call *call = is_mine(self, answer) ? find(self, answer->id) : NULL;
    if (call == NULL) {
        self->stats.late += self->foreign.dialect->is_ours || answer->id != 0; /* 0: of a beat */
        return;
    }
    if (answer->type == GR_CHUNK && !self->foreign.dialect->is_ours &&
        !gr_bulk_hear(answer, &call->bulk_fails, &self->scratch))
        return;
    if (gr_wire_settle(answer, msg, &self->scratch) < 0)
        answer->payload = gr_slice_of(NULL, 0); /* events outlive the scratch */
    gr_client_event event = {.id = call->id, .payload = answer->payload, .status = answer->status};
    switch (answer->type) {
    case GR_CHUNK:
        answer->count = 1; /* whatever it says */
        on_items(self, call, answer, msg, now_ms);
        return;
    case GR_ITEM:
    case GR_END:
        on_items(self, call, answer, msg, now_ms);
        return;
    case GR_REPLY:
        event.type = GR_CLIENT_REPLY;
        break;
    default:
        event.type = GR_CLIENT_FAILED;
        event.status = -(int)answer->status;
        break;
    }
    end_call(self, call);
    pass_on(self, event, msg);
}

static void on_bye(gr_client *self, const gr_envelope *bye, int64_t now_ms)
{
    if (bye->flags & GR_FLAG_DRAIN)
        return; /* running calls will still be answered */
    if (self->state == GREETING && !self->beaten)
        return; /* it answers what we said before HELLO */
    lose_broker(self, "the broker no longer knows this client", now_ms);
    send_hello(self, now_ms);
}

static void receive(void *engine, gr_msg **msg, int64_t now_ms)
{
    gr_client *self = engine;
    gr_envelope envelope;
    if (self->state == DOWN) { /* left over from a connection that has ended */
        gr_msg_destroy(msg);
        return;
    }
    gr_pulse_hear(&self->pulse, now_ms);
    if (self->foreign.dialect->parse(*msg, 0, GR_BROKER_TO_CLIENT, &self->scratch, &envelope) < 0) {
        self->stats.malformed++;
        gr_msg_destroy(msg);
        return;
    }
    if (!self->foreign.dialect->is_ours)
        come_up(self);
    switch (envelope.type) {
    case GR_REPLY:
    case GR_ITEM:
    case GR_END:
    case GR_ERROR:
    case GR_CHUNK:
        on_answer(self, &envelope, msg, now_ms);
        break;
    case GR_HELLO:
        on_hello(self, &envelope);
        break;
    case GR_BYE:
        on_bye(self, &envelope, now_ms);
        break;
    default:
        break; /* a heartbeat, or what a client does not understand */
    }
    gr_msg_destroy(msg);
}

static void expire_calls(gr_client *self, int64_t now_ms)
{
    gr_due *due;
    while ((due = gr_heap_first(&self->heap)) != NULL && due->at_ms <= now_ms) {
        struct call *call = GR_HEAP_ENTRY(due, struct call, due);
        give_up(self, call, now_ms);
        fail_call(self, call, GR_EDEADLINE, "no answer came in time");
    }
}

static void fail_all_calls(gr_client *self, const char *text, int64_t now_ms)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        give_up(self, call, now_ms);
        fail_call(self, call, GR_EUNAVAILABLE, text);
    }
}

static bool waits_for_broker(const gr_client *self)
{
    return self->state != UP && HASH_COUNT(self->calls) > 0;
}

static void tick(void *engine, int64_t now_ms)
{
    gr_client *self = engine;
    expire_calls(self, now_ms);
    if (waits_for_broker(self) && self->down_ms + self->options.connect_timeout_ms <= now_ms)
        fail_all_calls(self, "no broker answers there", now_ms);
    if (self->state == DOWN)
        return;
    if (gr_pulse_is_dead(&self->pulse, now_ms)) {
        lose_broker(self, "the broker has fallen silent", now_ms);
        self->reconnect = true;
        gr_msg_queue_clear(&self->out);
        return;
    }
    if (gr_pulse_should_beat(&self->pulse, now_ms)) {
        gr_envelope beat = {.type = GR_HEARTBEAT};
        send_envelope(self, &beat, NULL, now_ms);
        self->beaten = true;
    }
}

static int64_t next_due(const void *engine)
{
    const gr_client *self = engine;
    int64_t due = self->state == DOWN ? GR_NEVER : gr_pulse_due(&self->pulse);
    const gr_due *first = gr_heap_first(&self->heap);
    if (first != NULL && first->at_ms < due)
        due = first->at_ms;
    if (waits_for_broker(self) && self->down_ms + self->options.connect_timeout_ms < due)
        due = self->down_ms + self->options.connect_timeout_ms;
    return due;
}

static bool next_out(void *engine, gr_msg **msg)
{
    gr_client *self = engine;
    *msg = gr_msg_queue_pop(&self->out);
    return *msg != NULL;
}

static size_t count_events(const void *engine)
{
    return ((const gr_client *)engine)->events.len;
}

static gr_slice routing_id(void *engine)
{
    gr_client *self = engine;
    return gr_foreign_new_id(&self->foreign, "gc-");
}

static bool take_reconnect(void *engine)
{
    gr_client *self = engine;
    bool reconnect = self->reconnect;
    self->reconnect = false;
    return reconnect;
}

static bool is_busy(const void *engine)
{
    const gr_client *self = engine;
    return HASH_COUNT(self->calls) > 0 || self->events.len > 0;
}

bool gr_client_next_event(gr_client *self, gr_client_event *out)
{
    return events_pop(&self->events, out);
}

bool gr_client_is_up(const gr_client *self)
{
    return self->state == UP;
}

void gr_client_get_stats(const gr_client *self, gr_client_stats *out)
{
    *out = self->stats;
    out->open = HASH_COUNT(self->calls);
}

const gr_engine_ops gr_client_ops = {
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
