#include <stdlib.h>

#include "engine/broker_priv.h"

enum {
    QUEUE_LEN = 16384,
    QUEUE_BYTES = 256 << 20,
    BACKLOG_BYTES = 64 << 20,
    MAX_SERVICES = 10000,
    MAX_PEERS = 100000,
    MAX_CALLS = 65536,
    ASK_MS = 6000, /* a service elsewhere has 5 s */
    REMEMBER_MS = 60 * 1000,
    IDLE_MS = 660 * 1000, /* above the worker's own limit, which knows more */
    CALL_MS = 59 * 1000,
    SILENT_MS = 60 * 1000, /* a gate01 or gate02 client beats more often */
};

static void set_default(uint32_t *option, uint32_t value)
{
    if (*option == 0)
        *option = value;
}

int gr_broker_new(gr_broker **out, const gr_broker_options *options)
{
    gr_broker *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->options = *options;
    set_default(&self->options.heartbeat_ms, GR_PULSE_MS);
    set_default(&self->options.liveness, GR_PULSE_LIVENESS);
    set_default(&self->options.queue_len, QUEUE_LEN);
    set_default(&self->options.max_services, MAX_SERVICES);
    set_default(&self->options.max_peers, MAX_PEERS);
    set_default(&self->options.max_calls, MAX_CALLS);
    set_default(&self->options.idle_ms, IDLE_MS);
    set_default(&self->options.call_ms, CALL_MS);
    set_default(&self->options.gate01_ms, gr_dialect_gate01.beat_ms);
    set_default(&self->options.gate02_ms, gr_dialect_gate02.beat_ms);
    set_default(&self->options.mdp_ms, gr_dialect_mdp.beat_ms);
    set_default(&self->options.ask_ms, ASK_MS);
    set_default(&self->options.remember_ms, REMEMBER_MS);
    if (self->options.queue_bytes == 0)
        self->options.queue_bytes = QUEUE_BYTES;
    if (self->options.backlog_bytes == 0)
        self->options.backlog_bytes = BACKLOG_BYTES;
    self->retry_ms = GR_NEVER;
    self->slots.first_generation = (uint32_t)(options->instance ^ options->instance >> 32);
    *out = self;
    return 0;
}

void gr_broker_destroy(gr_broker **broker)
{
    gr_broker *self = *broker;
    if (self == NULL)
        return;
    gr_broker_free_calls(self);
    gr_broker_free_services(self);
    gr_broker_free_peers(self);
    gr_heap_clear(&self->peer_heap);
    gr_heap_clear(&self->call_heap);
    gr_buf_clear(&self->scratch);
    gr_broker_free_auth(self);
    free(self);
    *broker = NULL;
}

/* --- receiving --------------------------------------------------------------------------- */

/* The answer to HELLO and READY: how this broker beats, and which one it is. */
static void send_welcome(gr_broker *self, gr_peer *peer, enum gr_type type, int64_t now_ms)
{
    gr_envelope welcome = {.type = (uint8_t)type, .route = self->options.instance};
    if (!gr_broker_is_local(peer)) {
        welcome.deadline_ms = self->options.heartbeat_ms;
        welcome.window = self->options.liveness;
    }
    gr_broker_send_envelope(self, peer, &welcome, NULL, now_ms);
}

static void on_hello(gr_broker *self, gr_peer *peer, const gr_envelope *hello, int64_t now_ms)
{
    peer->role = CLIENT;
    if (!gr_broker_is_local(peer))
        gr_pulse_expect(&peer->pulse, hello->deadline_ms, hello->window);
    send_welcome(self, peer, GR_HELLO, now_ms);
    gr_broker_watch(self, peer);
}

static uint32_t own_beat_of(const gr_broker *self, const gr_dialect *dialect)
{
    if (dialect == &gr_dialect_gate01)
        return self->options.gate01_ms;
    return dialect == &gr_dialect_gate02 ? self->options.gate02_ms : self->options.mdp_ms;
}

/* How the peer beats: it says so, or its dialect does. Then one more may be missed: the original
 * lets a worker live that beats when its time is just up. */
static void expect_beats(gr_broker *self, gr_peer *peer, const gr_envelope *greeting)
{
    if (gr_broker_is_local(peer))
        return;
    if (peer->dialect->is_ours) {
        gr_pulse_expect(&peer->pulse, greeting->deadline_ms, greeting->window);
        return;
    }
    uint32_t beat_ms = own_beat_of(self, peer->dialect);
    gr_pulse_expect(&peer->pulse, beat_ms, self->options.liveness + 1);
    if (beat_ms < peer->pulse.beat_ms)
        peer->pulse.beat_ms = beat_ms;
}

static void on_ready(gr_broker *self, gr_peer *peer, const gr_envelope *ready, int64_t now_ms)
{
    if (self->draining)
        return;                 /* the worker will find our successor */
    if (peer->role == WORKER) { /* it has started anew behind the same connection */
        gr_broker_unregister(self, peer, now_ms);
        peer->role = NEW;
        if (!peer->dialect
                 ->is_ours) { /* to them it is a mistake, and they are told to begin anew */
            gr_broker_send_empty(self, peer, GR_BYE, 0, now_ms);
            return;
        }
    }
    if (!gr_broker_may_register(self, peer, ready->service)) {
        gr_broker_turn_away(self, peer, ready, GR_EDENIED,
                            "this user may not register this service", now_ms);
        return;
    }
    expect_beats(self, peer, ready);
    const char *why = NULL;
    int rc = gr_broker_register(self, peer, ready, &why);
    if (rc < 0) {
        gr_broker_turn_away(self, peer, ready, rc, why != NULL ? why : gr_err_text(rc), now_ms);
        return;
    }
    gr_pulse_say(&peer->pulse, now_ms);
    send_welcome(self, peer, GR_READY, now_ms);
    gr_broker_watch(self, peer);
    gr_broker_serve_waiting(self, peer->service, now_ms);
}

static void on_bye(gr_broker *self, gr_peer *peer, const gr_envelope *bye, int64_t now_ms)
{
    if (peer->role == WORKER && (bye->flags & GR_FLAG_DRAIN)) {
        gr_broker_worker_drains(peer);
        gr_broker_send_empty(self, peer, GR_BYE, GR_FLAG_DRAIN, now_ms);
        if (!gr_broker_is_served(peer->service))
            gr_broker_fail_waiting(self, peer->service, "the last worker is leaving", now_ms);
        return;
    }
    gr_broker_remove_peer(self, peer, now_ms);
}

static void client_says(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                        int64_t now_ms)
{
    if (peer->role == NEW && !peer->dialect->is_ours) {
        peer->pulse.beat_ms = 0; /* there is no word for it */
        peer->pulse.wait_ms = peer->dialect->one_by_one || gr_broker_is_local(peer) ? 0 : SILENT_MS;
        gr_broker_watch(self, peer);
    }
    peer->role = CLIENT; /* a client may call without a HELLO */
    switch (envelope->type) {
    case GR_HELLO:
        on_hello(self, peer, envelope, now_ms);
        break;
    case GR_REQUEST:
        gr_broker_on_request(self, peer, envelope, msg, now_ms);
        break;
    case GR_CREDIT:
        gr_broker_on_credit(self, peer, envelope, msg, now_ms);
        break;
    case GR_CANCEL:
        gr_broker_on_cancel(self, peer, envelope, now_ms);
        break;
    default:
        self->stats.malformed++;
        break;
    }
}

static void worker_says(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                        int64_t now_ms)
{
    switch (envelope->type) {
    case GR_READY:
        on_ready(self, peer, envelope, now_ms);
        break;
    case GR_REPLY:
    case GR_ITEM:
    case GR_END:
    case GR_ERROR:
    case GR_CHUNK:
        if (peer->role == WORKER)
            gr_broker_on_answer(self, peer, envelope, msg, now_ms);
        else
            self->stats.late++;
        break;
    case GR_CREDIT:
        if (peer->role == WORKER) {
            gr_broker_worker_credit(peer->service, peer, envelope->credit);
            gr_broker_serve_waiting(self, peer->service, now_ms);
        }
        break;
    default:
        self->stats.malformed++;
        break;
    }
}

static void note_malformed(gr_broker *self, const gr_peer *peer, const char *why)
{
    char id[2 * 32 + 1] = "";
    for (size_t i = 1; i < peer->key_len && i <= 32; i++)
        snprintf(id + 2 * (i - 1), 3, "%02x", peer->key[i]);
    snprintf(self->fault, sizeof(self->fault), "%s: %s, from peer %s", peer->dialect->name,
             why != NULL ? why : "frames are missing", id);
    self->stats.malformed++;
}

void gr_broker_last_malformed(const gr_broker *self, char *text, size_t len)
{
    snprintf(text, len, "%s", self->fault);
}

/* A peer that has not said what it is may turn out to speak another dialect than it seemed. */
static int parse(gr_broker *self, gr_peer *peer, const gr_msg *msg, gr_envelope *out)
{
    enum gr_leg leg = gr_broker_is_at_back(peer) ? GR_WORKER_TO_BROKER : GR_CLIENT_TO_BROKER;
    if (peer->role == NEW) {
        const gr_dialect *dialect = gr_wire_recognise(msg, 1, leg);
        out->why = "in no dialect that is spoken here";
        if (dialect == NULL)
            return GR_EINVAL;
        peer->dialect = dialect;
    }
    return peer->dialect->parse(msg, 1, leg, &self->scratch, out);
}

/* Where a dialect has no numbers for calls, or does not like ours. */
static void number(gr_peer *peer, gr_envelope *envelope)
{
    if (peer->dialect->one_by_one)
        envelope->id = ++peer->serial;
    else if (envelope->id == 0)
        envelope->id = 1;
}

/* True when the peer is who it says. Takes *msg when that is not clear yet. */
static bool is_identified(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                          int64_t now_ms)
{
    switch (gr_broker_identify(self, peer, envelope, now_ms)) {
    case KNOWN:
        return true;
    case WAITING:
        gr_broker_hold(self, peer, msg, now_ms);
        return false;
    case FORGER: /* nothing is said: the answer would go to the one whose name it is */
        self->stats.forged++;
        return false;
    case UNSURE:
        self->stats.refused++;
        gr_broker_turn_away(self, peer, envelope, GR_EUNAVAILABLE,
                            "nobody could check who this is: the ZAP service does not answer",
                            now_ms);
        return false;
    case STRANGER:
        break;
    }
    self->stats.refused++;
    gr_broker_turn_away(self, peer, envelope, GR_EUNAUTHENTICATED,
                        peer->dialect->is_ours
                            ? "this broker wants to know who calls: give zap_mechanism and "
                              "zap_credentials, at an address that asks for them"
                            : "user or password are wrong, or missing",
                        now_ms);
    return false;
}

static void handle(gr_broker *self, gr_peer *peer, gr_envelope *envelope, gr_msg **msg,
                   int64_t now_ms)
{
    if (!peer->dialect->is_ours && envelope->type == GR_REQUEST)
        number(peer, envelope);
    if (!is_identified(self, peer, envelope, msg, now_ms))
        return;
    if (envelope->type == GR_HEARTBEAT && peer->role == NEW)
        gr_broker_send_empty(self, peer, GR_BYE, 0,
                             now_ms); /* we have forgotten it: it shall say again */
    else if (envelope->type == GR_BYE)
        on_bye(self, peer, envelope, now_ms);
    else if (envelope->type != GR_HEARTBEAT && gr_broker_is_at_back(peer))
        worker_says(self, peer, envelope, msg, now_ms);
    else if (envelope->type != GR_HEARTBEAT)
        client_says(self, peer, envelope, msg, now_ms);
}

void gr_broker_receive(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    enum { KEEP_SCRATCH = 64 * 1024 };
    gr_envelope envelope;
    if (peer->question != NULL) {
        gr_broker_hold(self, peer, msg, now_ms);
        return;
    }
    if (parse(self, peer, *msg, &envelope) < 0) {
        note_malformed(self, peer, envelope.why);
        if (peer->role == NEW)
            gr_broker_remove_peer(self, peer, now_ms); /* never said a word that we understand */
    } else {
        gr_pulse_hear(&peer->pulse, now_ms);
        handle(self, peer, &envelope, msg, now_ms);
    }
    gr_msg_destroy(msg);
    if (self->scratch.cap > KEEP_SCRATCH)
        gr_buf_clear(&self->scratch);
}

/* --- time -------------------------------------------------------------------------------- */

static void check_peers(gr_broker *self, int64_t now_ms)
{
    gr_due *due;
    while ((due = gr_heap_first(&self->peer_heap)) != NULL && due->at_ms <= now_ms) {
        gr_peer *peer = GR_HEAP_ENTRY(due, gr_peer, due);
        if (gr_pulse_is_dead(&peer->pulse, now_ms)) {
            gr_broker_remove_peer(self, peer, now_ms);
            continue;
        }
        if (gr_pulse_should_beat(&peer->pulse, now_ms)) {
            gr_pulse_say(&peer->pulse, now_ms); /* also when memory is too short for it */
            if (peer->role != NEW)              /* nothing to say to a stranger */
                gr_broker_send_empty(self, peer, GR_HEARTBEAT, 0, now_ms);
        }
        gr_broker_watch(self, peer);
    }
}

void gr_broker_tick(gr_broker *self, int64_t now_ms)
{
    if (self->retry_ms <= now_ms && self->outs.len == 0)
        gr_broker_retry_stalled(
            self, now_ms); /* first: there may be something else to say at every tick */
    gr_broker_expire_questions(self, now_ms);
    gr_broker_expire_calls(self, now_ms);
    check_peers(self, now_ms);
}

int64_t gr_broker_next_due(const gr_broker *self)
{
    int64_t due_ms = self->retry_ms;
    int64_t question_ms = gr_broker_next_question_due(self);
    if (question_ms < due_ms)
        due_ms = question_ms;
    const gr_due *call = gr_heap_first(&self->call_heap);
    if (call != NULL && call->at_ms < due_ms)
        due_ms = call->at_ms;
    const gr_due *peer = gr_heap_first(&self->peer_heap);
    return peer != NULL && peer->at_ms < due_ms ? peer->at_ms : due_ms;
}

void gr_broker_drain(gr_broker *self, int64_t now_ms)
{
    if (self->draining)
        return;
    self->draining = true;
    for (struct service *at = self->services; at != NULL; at = at->hh.next)
        gr_broker_fail_waiting(self, at, "the broker is shutting down", now_ms);
    for (gr_peer *peer = self->peers; peer != NULL; peer = peer->hh.next)
        if (peer->role == CLIENT)
            gr_broker_send_empty(self, peer, GR_BYE, GR_FLAG_DRAIN, now_ms);
}

void gr_broker_leave(gr_broker *self, int64_t now_ms)
{
    self->draining = true;
    gr_broker_fail_all_calls(self, "the broker is shutting down", now_ms);
    for (gr_peer *peer = self->peers; peer != NULL; peer = peer->hh.next)
        if (peer->role != NEW)
            gr_broker_send_empty(self, peer, GR_BYE, 0, now_ms);
}

size_t gr_broker_open_calls(const gr_broker *self)
{
    return HASH_COUNT(self->calls);
}

void gr_broker_get_stats(const gr_broker *self, gr_broker_stats *out)
{
    *out = self->stats;
    out->peers = HASH_COUNT(self->peers);
    out->workers = self->workers;
    out->services = HASH_COUNT(self->services);
    out->calls = HASH_COUNT(self->calls);
    out->waiting = self->waiting;
}
