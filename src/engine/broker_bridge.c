/* broker_bridge.c - calls between peers of different dialects.
 *
 * Inside the broker a request is a gh1 message, whoever made it: it waits, is kept and is
 * dispatched as one. At the edges it is said anew, headers only; values are the same msgpack in all
 * dialects but RFC 7. The broker also stands in where one side knows no credit: it holds a stream
 * back for a client that gives credit, and gives credit for a client that does not. */
#include <stdlib.h>

#include "base/mp.h"
#include "engine/broker_priv.h"

enum {
    ITEMS = 1024, /* credit in the name of others */
    BYTES = 1 << 20,
    CALLER = 3, /* the frame of a REQUEST to a gate01 or gate02 worker that names the client */
};

/* --- names ------------------------------------------------------------------------------- */

int gr_bridge_open(struct call *at, const gr_envelope *request)
{
    struct bridge *bridge = calloc(1, sizeof(*bridge));
    if (bridge == NULL)
        return GR_ENOMEM;
    size_t len =
        request->tag.len + request->caller.len + request->service.len + request->method.len;
    if (gr_buf_reserve(&bridge->names, len + 1) < 0) {
        free(bridge);
        return GR_ENOMEM;
    }
    bridge->about.id = at->from.id;
    bridge->about.tag = gr_buf_keep(&bridge->names, request->tag);
    bridge->about.caller = gr_buf_keep(&bridge->names, request->caller);
    bridge->about.service = gr_buf_keep(&bridge->names, request->service);
    bridge->about.method = gr_buf_keep(&bridge->names, request->method);
    at->bridge = bridge;
    return 0;
}

void gr_bridge_close(gr_broker *self, struct call *at)
{
    struct bridge *bridge = at->bridge;
    if (bridge == NULL)
        return;
    self->held_bytes -= bridge->held.len - bridge->held_at;
    gr_buf_clear(&bridge->names);
    gr_buf_clear(&bridge->told);
    gr_buf_clear(&bridge->held);
    gr_buf_clear(&bridge->last);
    free(bridge);
    at->bridge = NULL;
}

gr_envelope gr_bridge_about(const struct call *at)
{
    gr_envelope about = {.id = at->from.id};
    if (at->bridge != NULL)
        about = at->bridge->about;
    about.in_stream = at->streaming;
    about.bulk = at->bulk;
    return about;
}

/* --- requests ---------------------------------------------------------------------------- */

int gr_bridge_import(const gr_envelope *request, gr_msg **out)
{
    gr_envelope own = *request;
    gr_msg *msg;
    own.flags |= GR_FLAG_WHOLE; /* some are slow at compressed bulk, all read large messages */
    own.credit = ITEMS;
    own.window = BYTES;
    int rc = gr_dialect_gh1.build(&own, GR_CLIENT_TO_BROKER, NULL, &msg);
    if (rc < 0)
        return rc;
    rc = gr_msg_prepend(msg, "", 0);
    if (rc < 0)
        gr_msg_destroy(&msg);
    else
        *out = msg;
    return rc;
}

int gr_bridge_export(gr_broker *self, struct call *at, gr_peer *worker, const gr_msg *request,
                     const gr_envelope *hop, gr_msg **out)
{
    gr_envelope envelope;
    int rc = gr_dialect_gh1.parse(request, 1, GR_CLIENT_TO_BROKER, &self->scratch, &envelope);
    if (rc < 0)
        return rc;
    if (at->bridge == NULL)
        rc = gr_bridge_open(at, &envelope);
    if (rc < 0)
        return rc;
    struct bridge *bridge = at->bridge;
    bridge->granted = (int64_t)envelope.credit + at->credit;
    bridge->window = (int64_t)envelope.window + at->window;
    envelope.route = hop->route;
    envelope.seed = self->options.instance;
    envelope.caller = bridge->about.caller;
    if (envelope.caller.len == 0)
        envelope.caller = gr_slice_of(at->from.client->key + 1, at->from.client->key_len - 1);
    rc = worker->dialect->build(&envelope, GR_BROKER_TO_WORKER, NULL, out);
    if (rc == 0 && !worker->dialect->one_by_one) {
        gr_slice caller = gr_msg_frame(*out, CALLER);
        bridge->told.len = 0;
        rc = gr_buf_append(&bridge->told, caller.data, caller.len);
    }
    return rc;
}

bool gr_bridge_is_about(const struct call *at, const gr_envelope *answer)
{
    return at->bridge == NULL || gr_slice_equal(gr_buf_slice(&at->bridge->told), answer->caller);
}

/* --- answers to a client of our own dialect ---------------------------------------------- */

/* How much of what is held may be sent now: its items and their bytes. */
static uint32_t measure(const struct bridge *bridge, size_t *bytes)
{
    gr_mp_reader reader = gr_mp_read(
        gr_slice_of(bridge->held.data + bridge->held_at, bridge->held.len - bridge->held_at));
    const uint8_t *begin = reader.at;
    uint32_t count = 0;
    while (reader.at < reader.end && count < bridge->granted &&
           reader.at - begin < bridge->window && gr_mp_skip(&reader) == 0)
        count++;
    *bytes = (size_t)(reader.at - begin);
    return count;
}

static void finish_held(gr_broker *self, struct call *at, int64_t now_ms)
{
    struct bridge *bridge = at->bridge;
    gr_envelope last = {.type = bridge->last_type, .id = at->from.id, .split = bridge->seq};
    if (last.type == GR_ERROR)
        last.status = -GR_EINTERNAL;
    gr_broker_send_envelope(self, at->from.client, &last,
                            last.type == GR_ERROR ? &bridge->last : NULL, now_ms);
    self->stats.answers++;
    gr_broker_end_call(self, at, now_ms);
}

/* Pieces of bulk are held as one bin each, and go one by one, without that. */
static gr_envelope next_held(struct call *at, size_t *bytes)
{
    struct bridge *bridge = at->bridge;
    gr_envelope items = {.type = GR_ITEM, .id = at->from.id, .split = bridge->seq};
    gr_mp_reader reader = gr_mp_read(
        gr_slice_of(bridge->held.data + bridge->held_at, bridge->held.len - bridge->held_at));
    const uint8_t *begin = reader.at;
    gr_mp_token piece;
    if (!at->bulk) {
        items.count = measure(bridge, bytes);
        items.payload = gr_slice_of(begin, *bytes);
    } else if (bridge->granted > 0 && bridge->window > 0 && gr_mp_next(&reader, &piece) == 0) {
        items.type = GR_CHUNK;
        items.method = gr_slice_str("gzip"); /* the only one that the older dialects can mean */
        items.count = 1;
        items.payload = piece.as.bytes;
        *bytes = (size_t)(reader.at - begin);
    }
    return items;
}

static void send_held(gr_broker *self, struct call *at, int64_t now_ms)
{
    struct bridge *bridge = at->bridge;
    while (bridge->held.len > bridge->held_at) {
        size_t bytes = 0;
        gr_envelope items = next_held(at, &bytes);
        if (items.count == 0)
            return;
        gr_broker_send_envelope(self, at->from.client, &items, NULL, now_ms);
        bridge->seq += items.count;
        bridge->granted -= items.count;
        bridge->window -= (int64_t)bytes;
        bridge->held_at += bytes;
        self->held_bytes -= bytes;
        at->active_ms = now_ms;
    }
    bridge->held.len = bridge->held_at = 0;
    if (bridge->last_type != 0)
        finish_held(self, at, now_ms);
}

/* Drops what was sent from the front, now and then. */
static int hold(gr_broker *self, struct bridge *bridge, gr_slice head, gr_slice item)
{
    size_t len = head.len + item.len;
    if (bridge->held_at > bridge->held.len / 2) {
        bridge->held.len -= bridge->held_at;
        memmove(bridge->held.data, bridge->held.data + bridge->held_at, bridge->held.len);
        bridge->held_at = 0;
    }
    if (bridge->held.len - bridge->held_at + len > self->options.backlog_bytes ||
        self->held_bytes + len > self->options.queue_bytes)
        return GR_EEXHAUSTED;
    int rc = gr_buf_reserve(&bridge->held, len);
    if (rc < 0)
        return rc;
    gr_buf_append(&bridge->held, head.data, head.len);
    gr_buf_append(&bridge->held, item.data, item.len);
    self->held_bytes += len;
    return 0;
}

static void end_of_worker(gr_broker *self, struct call *at, const gr_envelope *answer,
                          int64_t now_ms)
{
    struct bridge *bridge = at->bridge;
    bridge->last_type = answer->type;
    if (answer->type == GR_ERROR)
        gr_buf_append(&bridge->last, answer->payload.data, answer->payload.len);
    gr_broker_release_worker(self, at, now_ms);
    send_held(self, at, now_ms);
}

static bool is_value(gr_slice packed)
{
    gr_mp_reader reader = gr_mp_read(packed);
    return gr_mp_skip(&reader) == 0 && reader.at == reader.end;
}

static const char reads_too_slowly[] =
    "the stream is not read as fast as its worker sends, and this "
    "worker cannot be told to wait";

static void take_item(gr_broker *self, struct call *at, gr_slice item, int64_t now_ms)
{
    if (!is_value(item))
        gr_broker_fail_call(self, at, GR_EDATALOSS, "an item of the stream is not msgpack", now_ms);
    else if (hold(self, at->bridge, gr_slice_of(NULL, 0), item) < 0)
        gr_broker_fail_call(self, at, GR_EEXHAUSTED, reads_too_slowly, now_ms);
    else
        send_held(self, at, now_ms);
}

static void take_piece(gr_broker *self, struct call *at, gr_slice piece, int64_t now_ms)
{
    uint8_t head[GR_MP_HEAD];
    gr_mp_put_head(head, GR_MP_BIN32, piece.len);
    if (piece.len > GR_MP_MAX_BYTES ||
        hold(self, at->bridge, gr_slice_of(head, sizeof(head)), piece) < 0)
        gr_broker_fail_call(self, at, GR_EEXHAUSTED, reads_too_slowly, now_ms);
    else
        send_held(self, at, now_ms);
}

static void answer_ours(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms)
{
    gr_envelope reply = {.type = answer->type, .id = at->from.id, .payload = answer->payload};
    switch (answer->type) {
    case GR_ITEM:
    case GR_CHUNK:
        at->streaming = true;
        self->stats.items++;
        if (answer->type == GR_ITEM)
            take_item(self, at, answer->payload, now_ms);
        else
            take_piece(self, at, answer->payload, now_ms);
        break;
    case GR_END:
    case GR_ERROR:
        end_of_worker(self, at, answer, now_ms);
        break;
    default:
        gr_broker_send_envelope(self, at->from.client, &reply, NULL, now_ms);
        self->stats.answers++;
        gr_broker_end_call(self, at, now_ms);
        break;
    }
}

/* --- answers to a client of another dialect ---------------------------------------------- */

static void pay(gr_broker *self, struct call *at, int64_t now_ms)
{
    struct bridge *bridge = at->bridge;
    if (at->worker == NULL || !at->worker->dialect->is_ours || at->from.client->stalled ||
        (bridge->owed_items < ITEMS / 2 && bridge->owed_bytes < BYTES / 2))
        return;
    gr_envelope credit = {.type = GR_CREDIT,
                          .id = at->from.id,
                          .route = gr_broker_route_of(at),
                          .credit = bridge->owed_items,
                          .window = bridge->owed_bytes};
    gr_broker_send_envelope(self, at->worker, &credit, NULL, now_ms);
    bridge->owed_items = bridge->owed_bytes = 0;
}

void gr_bridge_resume(gr_broker *self, gr_peer *client, int64_t now_ms)
{
    for (struct call *at = client->calls; at != NULL; at = at->client_next)
        if (at->bridge != NULL)
            pay(self, at, now_ms);
}

/* The client's dialect has no form for what the worker says. */
static void fail_unsayable(gr_broker *self, struct call *at, int rc, int64_t now_ms)
{
    const gr_dialect *dialect = at->from.client->dialect;
    gr_broker_tell_worker(self, at, now_ms);
    gr_broker_fail_call(self, at, rc, rc == GR_EINVAL ? dialect->limits : gr_err_text(rc), now_ms);
}

/* One message for each item. Returns 0, or an error of build: then some may have been sent. */
static int send_items(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms)
{
    gr_mp_reader reader = gr_mp_read(answer->payload);
    gr_envelope item = gr_bridge_about(at);
    item.type = GR_ITEM;
    for (uint32_t left = answer->count; left > 0; left--) {
        const uint8_t *begin = reader.at;
        if (gr_mp_skip(&reader) < 0)
            return GR_EDATALOSS;
        item.payload = gr_slice_of(begin, (size_t)(reader.at - begin));
        int rc = gr_broker_send_envelope(self, at->from.client, &item, NULL, now_ms);
        if (rc < 0)
            return rc;
        at->streaming = true;
    }
    at->bridge->owed_items += answer->count;
    at->bridge->owed_bytes += (uint32_t)answer->payload.len;
    return 0;
}

static void stream_other(gr_broker *self, struct call *at, const gr_envelope *answer,
                         int64_t now_ms)
{
    int rc = send_items(self, at, answer, now_ms);
    gr_envelope end = gr_bridge_about(at);
    end.type = GR_END;
    if (rc == 0 && answer->type == GR_END)
        rc = gr_broker_send_envelope(self, at->from.client, &end, NULL, now_ms);
    self->stats.items += answer->count > 0;
    at->active_ms = now_ms;
    if (rc < 0) {
        fail_unsayable(self, at, rc, now_ms);
    } else if (answer->type == GR_END) {
        self->stats.answers++;
        gr_broker_end_call(self, at, now_ms);
    } else {
        pay(self, at, now_ms);
    }
}

/* A piece from a worker of our own: readable for the original only as one value in gzip. */
static int pass_piece(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms)
{
    gr_envelope piece = gr_bridge_about(at);
    if (!gr_slice_equal(answer->method, gr_slice_str("gzip")) || (answer->flags & GR_FLAG_RAW))
        return GR_EINVAL;
    piece.type = GR_CHUNK;
    piece.payload = answer->payload;
    at->bridge->owed_items++;
    at->bridge->owed_bytes += (uint32_t)answer->payload.len;
    return gr_broker_send_envelope(self, at->from.client, &piece, NULL, now_ms);
}

/* Between two of the older dialects pieces are gathered: where the original cuts them, its own
 * readers stumble; one piece they all can read. */
static void bulk_other(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms)
{
    int rc;
    at->streaming = true;
    at->active_ms = now_ms;
    self->stats.items++;
    if (at->worker->dialect->is_ours)
        rc = pass_piece(self, at, answer, now_ms);
    else
        rc = hold(self, at->bridge, gr_slice_of(NULL, 0), answer->payload);
    if (rc < 0)
        fail_unsayable(self, at, rc, now_ms);
    else
        pay(self, at, now_ms);
}

static void end_bulk_other(gr_broker *self, struct call *at, int64_t now_ms)
{
    gr_envelope said = gr_bridge_about(at);
    said.type = GR_CHUNK;
    said.payload = gr_buf_slice(&at->bridge->held);
    if (said.payload.len > 0)
        gr_broker_send_envelope(self, at->from.client, &said, NULL, now_ms);
    said.type = GR_END;
    gr_broker_send_envelope(self, at->from.client, &said, NULL, now_ms);
    self->stats.answers++;
    gr_broker_end_call(self, at, now_ms);
}

static void end_other(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms)
{
    gr_envelope reply = gr_bridge_about(at);
    reply.type = answer->type;
    reply.status = answer->status;
    reply.payload = answer->payload;
    int rc = gr_broker_send_envelope(self, at->from.client, &reply, NULL, now_ms);
    if (rc < 0) {
        fail_unsayable(self, at, rc, now_ms);
        return;
    }
    self->stats.answers++;
    gr_broker_end_call(self, at, now_ms);
}

static void answer_other(gr_broker *self, struct call *at, const gr_envelope *answer,
                         int64_t now_ms)
{
    if (answer->type == GR_CHUNK)
        bulk_other(self, at, answer, now_ms);
    else if (answer->type == GR_END && at->bulk)
        end_bulk_other(self, at, now_ms);
    else if (answer->type == GR_ITEM || answer->type == GR_END)
        stream_other(self, at, answer, now_ms);
    else
        end_other(self, at, answer, now_ms);
}

/* --- both -------------------------------------------------------------------------------- */

void gr_bridge_answer(gr_broker *self, struct call *at, const gr_envelope *answer, int64_t now_ms)
{
    gr_envelope heard;
    if (answer->type == GR_CHUNK && !at->worker->dialect->is_ours) {
        heard = *answer;
        at->streaming = true;
        if (!gr_bulk_hear(&heard, &at->bridge->fails, &self->scratch))
            return;
        answer = &heard;
    }
    if (at->from.client->dialect->is_ours)
        answer_ours(self, at, answer, now_ms);
    else
        answer_other(self, at, answer, now_ms);
}

void gr_bridge_credit(gr_broker *self, struct call *at, const gr_envelope *credit, int64_t now_ms)
{
    at->bridge->granted += credit->credit;
    at->bridge->window += credit->window;
    at->active_ms = now_ms;
    send_held(self, at, now_ms);
}
