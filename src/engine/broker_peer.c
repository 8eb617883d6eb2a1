/* broker_peer.c - peers: who they are, what goes out to them, and who does not read it. */
#include <stdlib.h>

#include "engine/broker_priv.h"

enum { RETRY_MS = 5, MAX_FD = 1 << 20, BACKLOG_LEN = 65536 };

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

bool gr_broker_is_at_back(const gr_peer *peer)
{
    return peer->via == GR_VIA_BACK || peer->via == GR_VIA_LOCAL_BACK;
}

void gr_broker_watch(gr_broker *self, gr_peer *peer)
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
        gr_broker_watch(self, peer);
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
void gr_broker_remove_peer(gr_broker *self, gr_peer *peer, int64_t now_ms)
{
    if (peer->dead)
        return;
    peer->dead = true;
    HASH_DEL(self->peers, peer);
    gr_heap_remove(&self->peer_heap, &peer->due);
    forget_fd(self, peer);
    gr_broker_drop_question(self, peer);
    if (peer->listed)
        forget_stalled(self, peer);
    peer->next_dead = self->graveyard;
    self->graveyard = peer;
    if (peer->role == WORKER)
        gr_broker_unregister(self, peer, now_ms);
    else
        gr_broker_drop_client_calls(self, peer, now_ms);
}

static void free_peer(gr_peer *peer)
{
    gr_msg_queue_clear(&peer->backlog); /* also when it had caught up: the memory stays */
    gr_buf_clear(&peer->user);
    gr_buf_clear(&peer->address);
    free(peer);
}

static void free_graveyard(gr_broker *self)
{
    gr_peer *peer;
    while ((peer = self->graveyard) != NULL) {
        self->graveyard = peer->next_dead;
        free_peer(peer);
    }
    self->last_out = NULL;
}

void gr_broker_disconnected(gr_broker *self, enum gr_via via, int fd, int64_t now_ms)
{
    if (via > GR_VIA_BACK || fd < 0 || (size_t)fd >= self->by_fd_len[via])
        return;
    gr_peer *peer = self->by_fd[via][fd];
    if (peer != NULL)
        gr_broker_remove_peer(self, peer, now_ms);
}

void gr_broker_local_gone(gr_broker *self, enum gr_via via, gr_slice id, int64_t now_ms)
{
    gr_peer *peer = find_by_id(self, via, id);
    if (peer != NULL)
        gr_broker_remove_peer(self, peer, now_ms);
}

bool gr_broker_may_move(const gr_peer *peer)
{
    return !peer->dialect->is_ours && !gr_broker_is_local(peer);
}

/* The new connection may come from another host; without memory it is unknown. */
static void move_address(gr_peer *peer, const gr_msg *msg)
{
    zmq_msg_t *last = gr_msg_zmq((gr_msg *)msg, gr_msg_len(msg) - 1);
    const char *address = zmq_msg_gets(last, "Peer-Address");
    peer->address.len = 0;
    if (address != NULL)
        gr_buf_append(&peer->address, address, strlen(address));
}

gr_peer *gr_broker_follow(gr_broker *self, gr_peer *peer, const gr_msg *msg, int64_t now_ms)
{
    if (fd_of(msg) == peer->fd)
        return peer;
    gr_envelope said;
    if (self->secured) { /* whoever it is has not shown that it is the same one */
        gr_broker_remove_peer(self, peer, now_ms);
        return NULL;
    }
    if (peer->role == WORKER &&
        peer->dialect->parse(msg, 1, GR_WORKER_TO_BROKER, &self->scratch, &said) == 0 &&
        said.type == GR_READY) {
        gr_broker_remove_peer(self, peer, now_ms);
        return NULL;
    }
    forget_fd(self, peer);
    remember_fd(self, peer, msg);
    move_address(peer, msg);
    return peer;
}

void gr_broker_free_peers(gr_broker *self)
{
    gr_peer *peer, *next;
    struct out out;
    while (outs_pop(&self->outs, &out))
        gr_msg_destroy(&out.msg);
    free(self->outs.items);
    HASH_ITER (hh, self->peers, peer, next) {
        HASH_DEL(self->peers, peer);
        gr_broker_drop_question(self, peer);
        free_peer(peer);
    }
    free_graveyard(self);
    free(self->by_fd[0]);
    free(self->by_fd[1]);
}

/* --- sending ----------------------------------------------------------------------------- */

void gr_broker_send(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    struct out out = {.peer = peer, .msg = *msg};
    if (!peer->dead && outs_push(&self->outs, &out) == 0) {
        *msg = NULL;
        if (!peer->dialect->beats_anyway) /* else only heartbeats move it, in check_peers() */
            gr_pulse_say(&peer->pulse, now_ms);
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
        envelope, gr_broker_is_at_back(peer) ? GR_BROKER_TO_WORKER : GR_BROKER_TO_CLIENT, payload,
        &msg);
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

void gr_broker_introduce(gr_broker *self, gr_peer *worker, const gr_peer *client,
                         const gr_envelope *envelope, gr_msg **msg, int64_t now_ms)
{
    gr_slice address =
        gr_broker_is_local(client) ? gr_slice_str("inproc") : gr_buf_slice(&client->address);
    const void *text = address.len > 0 ? (const void *)address.data : "";
    const void *user = client->user.len > 0 ? (const void *)client->user.data : "";
    if (gr_gh1_readdress(*msg, 1, envelope) < 0 ||
        gr_msg_set(*msg, 0, user, client->user.len) < 0 ||
        gr_msg_prepend(*msg, text, address.len) < 0 ||
        gr_msg_prepend(*msg, client->key + 1, client->key_len - 1) < 0 ||
        gr_msg_prepend(*msg, worker->key + 1, worker->key_len - 1) < 0)
        gr_msg_destroy(msg);
    else
        gr_broker_send(self, worker, msg, now_ms);
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

void gr_broker_send_empty(gr_broker *self, gr_peer *peer, enum gr_type type, uint8_t flags,
                          int64_t now_ms)
{
    gr_envelope envelope = {.type = (uint8_t)type, .flags = flags};
    gr_broker_send_envelope(self, peer, &envelope, NULL, now_ms);
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
    gr_broker_remove_peer(self, peer, now_ms);
}

void gr_broker_unreachable(gr_broker *self, int64_t now_ms)
{
    if (self->last_out != NULL)
        gr_broker_remove_peer(self, self->last_out, now_ms);
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

void gr_broker_retry_stalled(gr_broker *self, int64_t now_ms)
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
