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
    CALL_MS = 59 * 1000,
    SILENT_MS = 60 * 1000, /* a gate01 or gate02 client beats more often */
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
    set_default(&self->options.call_ms, CALL_MS);
    set_default(&self->options.gate01_ms, gr_dialect_gate01.beat_ms);
    set_default(&self->options.gate02_ms, gr_dialect_gate02.beat_ms);
    set_default(&self->options.mdp_ms, gr_dialect_mdp.beat_ms);
    if (self->options.queue_bytes == 0)
        self->options.queue_bytes = QUEUE_BYTES;
    if (self->options.backlog_bytes == 0)
        self->options.backlog_bytes = BACKLOG_BYTES;
    self->retry_ms = GR_NEVER;
    self->slots.first_generation = (uint32_t)(options->instance ^ options->instance >> 32);
    *out = self;
    return 0;
}

int gr_broker_add_user(gr_broker *self, gr_slice user, gr_slice password)
{
    return gr_access_add(&self->access, user, password);
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

static bool is_at_back(const gr_peer *peer)
{
    return peer->via == GR_VIA_BACK || peer->via == GR_VIA_LOCAL_BACK;
}

static void watch(gr_broker *self, gr_peer *peer)
{
    int64_t due_ms = gr_pulse_due(&peer->pulse);
    if (due_ms == GR_NEVER)
        gr_heap_remove(&self->peer_heap, &peer->due);
    else
        gr_heap_set(&self->peer_heap, &peer->due, due_ms);
}

/* The descriptor of the connection that msg came over, or -1. */
static int fd_of(const gr_msg *msg)
{
    int fd = zmq_msg_get(gr_msg_zmq((gr_msg *)msg, gr_msg_len(msg) - 1), ZMQ_SRCFD);
    return fd < 0 || fd >= MAX_FD ? -1 : fd;
}

static void forget_fd(gr_broker *self, gr_peer *peer)
{
    if (peer->fd >= 0 && self->by_fd[peer->via][peer->fd] == peer)
        self->by_fd[peer->via][peer->fd] = NULL;
    peer->fd = -1;
}

/* Later messages of the connection are told apart by the routing id alone; the descriptor serves
 * to find the peer when ZeroMQ reports that the connection has ended. */
static void remember_fd(gr_broker *self, gr_peer *peer, const gr_msg *msg)
{
    if (gr_broker_is_local(peer))
        return;
    int fd = fd_of(msg);
    if (fd < 0)
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
    peer->dialect = &gr_dialect_gh1; /* until it has spoken */
    peer->key_len = key_len;
    memcpy(peer->key, key, key_len);
    peer->pulse = (gr_pulse){.sent_ms = now_ms, .heard_ms = now_ms};
    if (!gr_broker_is_local(peer)) {
        peer->pulse.beat_ms = self->options.heartbeat_ms;
        gr_pulse_expect(&peer->pulse, self->options.heartbeat_ms, self->options.liveness);
        watch(self, peer);
    }
    HASH_ADD_KEYPTR(hh, self->peers, peer->key, peer->key_len, peer);
    remember_fd(self, peer, msg);
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
    peer->stalled = peer->listed = false;
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
    forget_fd(self, peer);
    if (peer->listed)
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
    gr_buf_clear(&self->scratch);
    gr_access_clear(&self->access);
    free(self);
    *broker = NULL;
}

/* --- sending ----------------------------------------------------------------------------- */

void gr_broker_send(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    struct out out = {.peer = peer, .msg = *msg};
    if (!peer->dead && outs_push(&self->outs, &out) == 0) {
        *msg = NULL;
        if (!peer->dialect->beats_anyway) /* else only heartbeats move it, in check_peers() */
            peer->pulse.sent_ms = now_ms;
    }
    gr_msg_destroy(msg);
}

/* Before an error: what the client's dialect wants to hear first; and a stream of gate01, which has
 * no error, is counted. */
static void send_last_words(gr_broker *self, gr_peer *client, const gr_envelope *error,
                            const gr_buf *payload, int64_t now_ms)
{
    gr_envelope said[GR_BULK_LAST_WORDS];
    gr_slice bytes = payload != NULL ? gr_buf_slice(payload) : error->payload;
    int count = gr_bulk_last_words(client->dialect, error, bytes, said);
    for (int i = 0; i < count; i++)
        gr_broker_send_envelope(self, client, &said[i], NULL, now_ms);
    self->stats.cut += client->dialect == &gr_dialect_gate01 && error->in_stream && !error->bulk;
}

int gr_broker_send_envelope(gr_broker *self, gr_peer *peer, const gr_envelope *envelope,
                            gr_buf *payload, int64_t now_ms)
{
    gr_msg *msg;
    if (envelope->type == GR_ERROR)
        send_last_words(self, peer, envelope, payload, now_ms);
    int rc = peer->dialect->build(
        envelope, is_at_back(peer) ? GR_BROKER_TO_WORKER : GR_BROKER_TO_CLIENT, payload, &msg);
    if (rc < 0 || msg == NULL)
        return rc;
    rc = gr_msg_prepend(msg, peer->key + 1, peer->key_len - 1);
    if (rc < 0)
        gr_msg_destroy(&msg);
    else
        gr_broker_send(self, peer, &msg, now_ms);
    return rc;
}

void gr_broker_forward(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, gr_msg **msg,
                       int64_t now_ms)
{
    if (gr_gh1_readdress(*msg, 1, envelope) < 0 ||
        gr_msg_set(*msg, 0, peer->key + 1, peer->key_len - 1) < 0)
        gr_msg_destroy(msg);
    else
        gr_broker_send(self, peer, msg, now_ms);
}

void gr_broker_send_error(gr_broker *self, gr_peer *client, const gr_envelope *about, int error,
                          gr_slice text, int64_t now_ms)
{
    gr_buf payload = {0};
    gr_envelope envelope = *about;
    envelope.type = GR_ERROR;
    envelope.status = (uint16_t)-error;
    if (client->dialect->put_error(&payload, error, about->service, text) == 0)
        gr_broker_send_envelope(self, client, &envelope, &payload, now_ms);
    gr_buf_clear(&payload);
    self->stats.answers += about->id != 0;
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
        if (!peer->listed) {
            peer->next_stalled = self->stalled_peers;
            self->stalled_peers = peer;
        }
        peer->listed = true;
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

static void take_up_backlog(gr_broker *self, gr_peer *peer)
{
    gr_msg *msg;
    peer->stalled = false;
    while ((msg = gr_msg_queue_pop(&peer->backlog)) != NULL) {
        struct out out = {.peer = peer, .msg = msg};
        if (outs_push(&self->outs, &out) < 0)
            gr_msg_destroy(&msg);
    }
}

/* Puts what waited for peers that did not read back in line. Only when the line is empty: then the
 * order of their messages is kept. Who has read everything since the last time leaves the list. */
static void retry_stalled(gr_broker *self, int64_t now_ms)
{
    gr_peer **at = &self->stalled_peers;
    self->retry_ms = GR_NEVER;
    while (*at != NULL) {
        gr_peer *peer = *at;
        if (peer->stalled) {
            take_up_backlog(self, peer);
            self->retry_ms = now_ms + RETRY_MS;
            at = &peer->next_stalled;
        } else {
            *at = peer->next_stalled;
            peer->listed = false;
            gr_bridge_resume(self, peer, now_ms);
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

static void refuse_worker(gr_broker *self, gr_peer *peer, int error, const char *why,
                          int64_t now_ms)
{
    gr_envelope about = {0};
    if (peer->dialect->is_ours)
        gr_broker_send_error(self, peer, &about, error, gr_slice_str(why), now_ms);
    else
        send_empty(self, peer, GR_BYE, 0, now_ms); /* they have no word for why */
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
            send_empty(self, peer, GR_BYE, 0, now_ms);
            return;
        }
    }
    expect_beats(self, peer, ready);
    const char *why = NULL;
    int rc = gr_broker_register(self, peer, ready, &why);
    if (rc < 0) {
        refuse_worker(self, peer, rc, why != NULL ? why : gr_err_text(rc), now_ms);
        return;
    }
    peer->pulse.sent_ms = now_ms;
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
    if (peer->role == NEW && !peer->dialect->is_ours) {
        peer->pulse.beat_ms = 0; /* there is no word for it */
        peer->pulse.wait_ms = peer->dialect->one_by_one || gr_broker_is_local(peer) ? 0 : SILENT_MS;
        watch(self, peer);
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

bool gr_broker_may_move(const gr_peer *peer)
{
    return !peer->dialect->is_ours && !gr_broker_is_local(peer);
}

static bool is_foreign_ready(const gr_msg *msg)
{
    enum { COMMAND = 3, READY = 1 };
    if (gr_msg_len(msg) <= COMMAND)
        return false;
    gr_slice command = gr_msg_frame(msg, COMMAND);
    return command.len == 1 && command.data[0] == READY;
}

gr_peer *gr_broker_follow(gr_broker *self, gr_peer *peer, const gr_msg *msg, int64_t now_ms)
{
    if (fd_of(msg) == peer->fd)
        return peer;
    if (peer->role == WORKER && is_foreign_ready(msg)) {
        remove_peer(self, peer, now_ms);
        return NULL;
    }
    forget_fd(self, peer);
    remember_fd(self, peer, msg);
    return peer;
}

/* A peer that has not said what it is may turn out to speak another dialect than it seemed. */
static int parse(gr_broker *self, gr_peer *peer, const gr_msg *msg, gr_envelope *out)
{
    enum gr_leg leg = is_at_back(peer) ? GR_WORKER_TO_BROKER : GR_CLIENT_TO_BROKER;
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

static bool is_allowed(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, int64_t now_ms)
{
    if (peer->dialect->is_ours || gr_access_allows(&self->access, &envelope->credentials))
        return true;
    self->stats.refused++;
    if (is_at_back(peer)) {
        send_empty(self, peer, GR_BYE, 0, now_ms);
        if (peer->role == WORKER)
            gr_broker_unregister(self, peer, now_ms);
        peer->role = NEW;
    } else if (envelope->type == GR_REQUEST) {
        gr_broker_send_error(self, peer, envelope, GR_EUNAUTHENTICATED,
                             gr_slice_str("user or password are wrong, or missing"), now_ms);
    }
    return false;
}

static void handle(gr_broker *self, gr_peer *peer, gr_envelope *envelope, gr_msg **msg,
                   int64_t now_ms)
{
    if (!peer->dialect->is_ours && envelope->type == GR_REQUEST)
        number(peer, envelope);
    if (!is_allowed(self, peer, envelope, now_ms))
        return;
    if (envelope->type == GR_HEARTBEAT && peer->role == NEW)
        send_empty(self, peer, GR_BYE, 0, now_ms); /* we have forgotten it: it shall say again */
    else if (envelope->type == GR_BYE)
        on_bye(self, peer, envelope, now_ms);
    else if (envelope->type != GR_HEARTBEAT && is_at_back(peer))
        worker_says(self, peer, envelope, msg, now_ms);
    else if (envelope->type != GR_HEARTBEAT)
        client_says(self, peer, envelope, msg, now_ms);
}

void gr_broker_receive(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    enum { KEEP_SCRATCH = 64 * 1024 };
    gr_envelope envelope;
    if (parse(self, peer, *msg, &envelope) < 0) {
        note_malformed(self, peer, envelope.why);
        if (peer->role == NEW)
            remove_peer(self, peer, now_ms); /* never said a word that we understand */
    } else {
        peer->pulse.heard_ms = now_ms;
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
        retry_stalled(self, now_ms); /* first: there may be something else to say at every tick */
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
