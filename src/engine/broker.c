#include <stdlib.h>

#include "engine/broker_priv.h"

enum {
    QUEUE_LEN = 16384,
    QUEUE_BYTES = 256 << 20,
    BACKLOG_BYTES = 64 << 20,
    BACKLOG_LEN = 65536,
    MAX_SERVICES = 10000,
    MAX_PEERS = 100000,
    MAX_CALLS = 65536,
    IDLE_MS = 660 * 1000, /* above the worker's own limit, which knows more */
    RETRY_MS = 5,
    MAX_FD = 1 << 20,
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
    if (self->options.queue_bytes == 0)
        self->options.queue_bytes = QUEUE_BYTES;
    if (self->options.backlog_bytes == 0)
        self->options.backlog_bytes = BACKLOG_BYTES;
    self->retry_ms = GR_NEVER;
    self->slots.first_generation = (uint32_t)(options->instance ^ options->instance >> 32);
    *out = self;
    return 0;
}

/* --- peers ------------------------------------------------------------------------------- */

enum { KEY_MAX = 1 + 255 }; /* via and a routing id, which ZeroMQ bounds */

static size_t make_key(enum gr_via via, gr_slice id, uint8_t key[KEY_MAX])
{
    if (id.len > KEY_MAX - 1)
        return 0;
    key[0] = (uint8_t)via;
    if (id.len > 0)
        memcpy(key + 1, id.data, id.len);
    return id.len + 1;
}

static gr_peer *find_by_id(const gr_broker *self, enum gr_via via, gr_slice id)
{
    uint8_t key[KEY_MAX];
    size_t key_len = make_key(via, id, key);
    gr_peer *peer;
    HASH_FIND(hh, self->peers, key, key_len, peer);
    return peer;
}

gr_peer *gr_broker_find_peer(const gr_broker *self, enum gr_via via, const gr_msg *msg)
{
    return gr_msg_len(msg) > 0 ? find_by_id(self, via, gr_msg_frame(msg, 0)) : NULL;
}

bool gr_broker_is_local(const gr_peer *peer)
{
    return peer->via == GR_VIA_LOCAL_FRONT || peer->via == GR_VIA_LOCAL_BACK;
}

static void watch(gr_broker *self, gr_peer *peer)
{
    int64_t due_ms = gr_pulse_due(&peer->pulse);
    if (due_ms == GR_NEVER)
        gr_heap_remove(&self->peer_heap, &peer->due);
    else
        gr_heap_set(&self->peer_heap, &peer->due, due_ms);
}

/* Later messages of the connection are told apart by the routing id alone; the descriptor serves
 * to find the peer when ZeroMQ reports that the connection has ended. */
static void remember_fd(gr_broker *self, gr_peer *peer, gr_msg *msg)
{
    if (gr_broker_is_local(peer))
        return;
    int fd = zmq_msg_get(gr_msg_zmq(msg, gr_msg_len(msg) - 1), ZMQ_SRCFD);
    if (fd < 0 || fd >= MAX_FD)
        return;
    size_t len = self->by_fd_len[peer->via];
    if ((size_t)fd >= len) {
        size_t new_len = ((size_t)fd + 64) * 2;
        gr_peer **by_fd = realloc(self->by_fd[peer->via], new_len * sizeof(gr_peer *));
        if (by_fd == NULL)
            return;
        memset(by_fd + len, 0, (new_len - len) * sizeof(gr_peer *));
        self->by_fd[peer->via] = by_fd;
        self->by_fd_len[peer->via] = new_len;
    }
    peer->fd = fd;
    self->by_fd[peer->via][fd] = peer;
}

gr_peer *gr_broker_add_peer(gr_broker *self, enum gr_via via, const gr_msg *msg, int64_t now_ms)
{
    if (gr_msg_len(msg) == 0 || HASH_COUNT(self->peers) >= self->options.max_peers)
        return NULL;
    uint8_t key[KEY_MAX];
    size_t key_len = make_key(via, gr_msg_frame(msg, 0), key);
    gr_peer *peer = key_len > 0 ? calloc(1, sizeof(*peer) + key_len) : NULL;
    if (peer == NULL)
        return NULL;
    peer->via = via;
    peer->fd = -1;
    peer->dialect = &gr_dialect_gh1;
    peer->key_len = key_len;
    memcpy(peer->key, key, key_len);
    peer->pulse = (gr_pulse){.sent_ms = now_ms, .heard_ms = now_ms};
    if (!gr_broker_is_local(peer)) {
        peer->pulse.beat_ms = self->options.heartbeat_ms;
        gr_pulse_expect(&peer->pulse, self->options.heartbeat_ms, self->options.liveness);
        watch(self, peer);
    }
    HASH_ADD_KEYPTR(hh, self->peers, peer->key, peer->key_len, peer);
    remember_fd(self, peer, (gr_msg *)msg);
    return peer;
}

static void forget_stalled(gr_broker *self, gr_peer *peer)
{
    for (gr_peer **at = &self->stalled_peers; *at != NULL; at = &(*at)->next_stalled) {
        if (*at == peer) {
            *at = peer->next_stalled;
            break;
        }
    }
    peer->stalled = false;
    gr_msg_queue_clear(&peer->backlog);
}

/* Messages to a removed peer may still be in outs, so it waits in the graveyard until they are
 * gone. */
static void remove_peer(gr_broker *self, gr_peer *peer, int64_t now_ms)
{
    if (peer->dead)
        return;
    peer->dead = true;
    HASH_DEL(self->peers, peer);
    gr_heap_remove(&self->peer_heap, &peer->due);
    if (peer->fd >= 0 && self->by_fd[peer->via][peer->fd] == peer)
        self->by_fd[peer->via][peer->fd] = NULL;
    if (peer->stalled)
        forget_stalled(self, peer);
    peer->next_dead = self->graveyard;
    self->graveyard = peer;
    if (peer->role == WORKER)
        gr_broker_unregister(self, peer, now_ms);
    else
        gr_broker_drop_client_calls(self, peer, now_ms);
}

static void free_graveyard(gr_broker *self)
{
    gr_peer *peer;
    while ((peer = self->graveyard) != NULL) {
        self->graveyard = peer->next_dead;
        gr_msg_queue_clear(&peer->backlog); /* also when it had caught up: the memory stays */
        free(peer);
    }
    self->last_out = NULL;
}

void gr_broker_disconnected(gr_broker *self, enum gr_via via, int fd, int64_t now_ms)
{
    if (via > GR_VIA_BACK || fd < 0 || (size_t)fd >= self->by_fd_len[via])
        return;
    gr_peer *peer = self->by_fd[via][fd];
    if (peer != NULL)
        remove_peer(self, peer, now_ms);
}

void gr_broker_local_gone(gr_broker *self, enum gr_via via, gr_slice id, int64_t now_ms)
{
    gr_peer *peer = find_by_id(self, via, id);
    if (peer != NULL)
        remove_peer(self, peer, now_ms);
}

void gr_broker_destroy(gr_broker **broker)
{
    gr_broker *self = *broker;
    if (self == NULL)
        return;
    gr_peer *peer, *next;
    struct out out;
    while (outs_pop(&self->outs, &out))
        gr_msg_destroy(&out.msg);
    free(self->outs.items);
    gr_broker_free_calls(self);
    gr_broker_free_services(self);
    HASH_ITER (hh, self->peers, peer, next) {
        HASH_DEL(self->peers, peer);
        gr_msg_queue_clear(&peer->backlog);
        free(peer);
    }
    free_graveyard(self);
    free(self->by_fd[0]);
    free(self->by_fd[1]);
    gr_heap_clear(&self->peer_heap);
    gr_heap_clear(&self->call_heap);
    free(self);
    *broker = NULL;
}

/* --- sending ----------------------------------------------------------------------------- */

void gr_broker_send(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    struct out out = {.peer = peer, .msg = *msg};
    if (!peer->dead && outs_push(&self->outs, &out) == 0) {
        *msg = NULL;
        peer->pulse.sent_ms = now_ms;
    }
    gr_msg_destroy(msg);
}

void gr_broker_send_envelope(gr_broker *self, gr_peer *peer, const gr_envelope *envelope,
                             gr_buf *payload, int64_t now_ms)
{
    gr_msg *msg;
    if (peer->dialect->build(envelope, payload, &msg) < 0)
        return;
    if (gr_msg_prepend(msg, peer->key + 1, peer->key_len - 1) < 0)
        gr_msg_destroy(&msg);
    else
        gr_broker_send(self, peer, &msg, now_ms);
}

void gr_broker_forward(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                       int64_t now_ms)
{
    if (peer->dialect->readdress(*msg, 1, envelope) < 0 ||
        gr_msg_set(*msg, 0, peer->key + 1, peer->key_len - 1) < 0)
        gr_msg_destroy(msg);
    else
        gr_broker_send(self, peer, msg, now_ms);
}

void gr_broker_send_error(gr_broker *self, gr_peer *peer, uint64_t id, int error, const char *text,
                          int64_t now_ms)
{
    gr_buf payload = {0};
    gr_envelope envelope = {.type = GR_ERROR, .id = id, .status = (uint16_t)-error};
    if (gr_wire_put_exception(&payload, gr_slice_str(gr_err_code(error)), gr_slice_str(text),
                              gr_slice_str("")) == 0)
        gr_broker_send_envelope(self, peer, &envelope, &payload, now_ms);
    gr_buf_clear(&payload);
    self->stats.answers += id != 0;
}

static void send_empty(gr_broker *self, gr_peer *peer, enum gr_type type, uint8_t flags,
                       int64_t now_ms)
{
    gr_envelope envelope = {.type = (uint8_t)type, .flags = flags};
    gr_broker_send_envelope(self, peer, &envelope, NULL, now_ms);
}

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

bool gr_broker_next_out(gr_broker *self, enum gr_via *via, gr_msg **msg)
{
    struct out out;
    while (outs_pop(&self->outs, &out)) {
        if (out.peer->dead) {
            gr_msg_destroy(&out.msg);
        } else if (out.peer->stalled) {
            self->last_out = out.peer;
            gr_broker_stalled(self, &out.msg, out.peer->pulse.sent_ms);
        } else {
            self->last_out = out.peer;
            *via = out.peer->via;
            *msg = out.msg;
            return true;
        }
    }
    if (self->graveyard != NULL)
        free_graveyard(self);
    return false;
}

void gr_broker_stalled(gr_broker *self, gr_msg **msg, int64_t now_ms)
{
    gr_peer *peer = self->last_out;
    if (!peer->stalled) {
        peer->stalled = true;
        peer->next_stalled = self->stalled_peers;
        self->stalled_peers = peer;
        if (self->retry_ms == GR_NEVER)
            self->retry_ms = now_ms + RETRY_MS;
    }
    if (peer->backlog.len < BACKLOG_LEN && peer->backlog.bytes < self->options.backlog_bytes &&
        gr_msg_queue_push(&peer->backlog, msg) == 0)
        return;
    gr_msg_destroy(msg);
    self->stats.slow++;
    remove_peer(self, peer, now_ms);
}

void gr_broker_unreachable(gr_broker *self, int64_t now_ms)
{
    if (self->last_out != NULL)
        remove_peer(self, self->last_out, now_ms);
}

/* Puts what waited for peers that did not read back in line. Only when the line is empty: then the
 * order of their messages is kept. */
static void retry_stalled(gr_broker *self)
{
    self->retry_ms = GR_NEVER;
    gr_peer *peer;
    while ((peer = self->stalled_peers) != NULL) {
        self->stalled_peers = peer->next_stalled;
        peer->stalled = false;
        gr_msg *msg;
        while ((msg = gr_msg_queue_pop(&peer->backlog)) != NULL) {
            struct out out = {.peer = peer, .msg = msg};
            if (outs_push(&self->outs, &out) < 0)
                gr_msg_destroy(&msg);
        }
    }
}

/* --- receiving --------------------------------------------------------------------------- */

static void on_hello(gr_broker *self, gr_peer *peer, const gr_envelope *hello, int64_t now_ms)
{
    peer->role = CLIENT;
    if (!gr_broker_is_local(peer))
        gr_pulse_expect(&peer->pulse, hello->deadline_ms, hello->window);
    send_welcome(self, peer, GR_HELLO, now_ms);
    watch(self, peer);
}

static void on_ready(gr_broker *self, gr_peer *peer, const gr_envelope *ready, int64_t now_ms)
{
    if (self->draining)
        return;                 /* the worker will find our successor */
    if (peer->role == WORKER) { /* it has started anew behind the same connection */
        gr_broker_unregister(self, peer, now_ms);
        peer->role = NEW;
    }
    if (!gr_broker_is_local(peer))
        gr_pulse_expect(&peer->pulse, ready->deadline_ms, ready->window);
    const char *why = NULL;
    int rc = gr_broker_register(self, peer, ready, &why);
    if (rc < 0) {
        gr_broker_send_error(self, peer, 0, rc, why != NULL ? why : gr_err_text(rc), now_ms);
        return;
    }
    send_welcome(self, peer, GR_READY, now_ms);
    watch(self, peer);
    gr_broker_serve_waiting(self, peer->service, now_ms);
}

static void on_bye(gr_broker *self, gr_peer *peer, const gr_envelope *bye, int64_t now_ms)
{
    if (peer->role == WORKER && (bye->flags & GR_FLAG_DRAIN)) {
        gr_broker_worker_drains(peer);
        send_empty(self, peer, GR_BYE, GR_FLAG_DRAIN, now_ms);
        if (!gr_broker_is_served(peer->service))
            gr_broker_fail_waiting(self, peer->service, "the last worker is leaving", now_ms);
        return;
    }
    remove_peer(self, peer, now_ms);
}

static void client_says(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                        int64_t now_ms)
{
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

void gr_broker_receive(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    gr_envelope envelope;
    if (peer->dialect->parse(*msg, 1, &envelope) < 0) {
        self->stats.malformed++;
        if (peer->role == NEW)
            remove_peer(self, peer, now_ms); /* never said a word that we understand */
        gr_msg_destroy(msg);
        return;
    }
    peer->pulse.heard_ms = now_ms;
    if (envelope.type == GR_HEARTBEAT && peer->role == NEW) {
        send_empty(self, peer, GR_BYE, 0, now_ms); /* we have forgotten it: it shall say again */
    } else if (envelope.type == GR_BYE) {
        on_bye(self, peer, &envelope, now_ms);
    } else if (envelope.type != GR_HEARTBEAT) {
        if (peer->via == GR_VIA_BACK || peer->via == GR_VIA_LOCAL_BACK)
            worker_says(self, peer, &envelope, msg, now_ms);
        else
            client_says(self, peer, &envelope, msg, now_ms);
    }
    gr_msg_destroy(msg);
}

/* --- time -------------------------------------------------------------------------------- */

static void check_peers(gr_broker *self, int64_t now_ms)
{
    gr_due *due;
    while ((due = gr_heap_first(&self->peer_heap)) != NULL && due->at_ms <= now_ms) {
        gr_peer *peer = GR_HEAP_ENTRY(due, gr_peer, due);
        if (gr_pulse_is_dead(&peer->pulse, now_ms)) {
            remove_peer(self, peer, now_ms);
            continue;
        }
        if (gr_pulse_should_beat(&peer->pulse, now_ms)) {
            peer->pulse.sent_ms = now_ms; /* also when memory is too short for it */
            if (peer->role != NEW)        /* nothing to say to a stranger */
                send_empty(self, peer, GR_HEARTBEAT, 0, now_ms);
        }
        watch(self, peer);
    }
}

void gr_broker_tick(gr_broker *self, int64_t now_ms)
{
    if (self->retry_ms <= now_ms && self->outs.len == 0)
        retry_stalled(self); /* first: there may be something else to say at every tick */
    gr_broker_expire_calls(self, now_ms);
    check_peers(self, now_ms);
}

int64_t gr_broker_next_due(const gr_broker *self)
{
    int64_t due_ms = self->retry_ms;
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
            send_empty(self, peer, GR_BYE, GR_FLAG_DRAIN, now_ms);
}

void gr_broker_leave(gr_broker *self, int64_t now_ms)
{
    self->draining = true;
    gr_broker_fail_all_calls(self, "the broker is shutting down", now_ms);
    for (gr_peer *peer = self->peers; peer != NULL; peer = peer->hh.next)
        if (peer->role != NEW)
            send_empty(self, peer, GR_BYE, 0, now_ms);
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
