/* worker_call.c - calls: from the request to every way to end. */
#include <stdlib.h>

#include "engine/worker_priv.h"

enum {
    SPARE_CREDIT = 16,       /* a broker may overrun our credit by so many before it is refused */
    BATCH_BYTES = 16 * 1024, /* gathered items are sent at the latest then */
    BATCH_ITEMS = 256,
    MAX_GRANT = 1 << 30,
    OUT_LEN = 256, /* where there is no credit, streams wait while so much waits to be sent */
    OUT_BYTES = 1 << 20,
};

/* --- the table --------------------------------------------------------------------------- */

static struct call *find(const gr_worker *self, uint64_t route)
{
    struct call *call;
    HASH_FIND(hh, self->calls, &route, sizeof(route), call);
    return call;
}

static void free_call(struct call *call)
{
    gr_buf_clear(&call->batch);
    gr_buf_clear(&call->names);
    free(call);
}

void gr_worker_free_calls(gr_worker *self)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        HASH_DEL(self->calls, call);
        free_call(call);
    }
    while ((call = self->free_calls) != NULL) {
        self->free_calls = call->hh.next;
        free_call(call);
    }
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
    gr_worker_finish_drain(self);
}

static void cancel_call(gr_worker *self, struct call *call, int status)
{
    self->stats.cancelled++;
    gr_worker_emit(
        self, (gr_worker_event){.type = GR_WORKER_CANCEL, .route = call->route, .status = status});
    end_call(self, call);
}

void gr_worker_on_cancel(gr_worker *self, const gr_envelope *cancel)
{
    struct call *call = find(self, cancel->route);
    if (call != NULL)
        cancel_call(self, call, GR_ECANCELLED);
}

void gr_worker_cancel_calls(gr_worker *self, int status)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next)
        cancel_call(self, call, status);
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

/* --- requests ---------------------------------------------------------------------------- */

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
        gr_worker_send(self, &envelope, &payload, now_ms);
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

void gr_worker_on_request(gr_worker *self, gr_envelope *request, gr_msg **msg, int64_t now_ms)
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
    gr_worker_announce_credit(self, now_ms);
    gr_worker_emit(self,
                   (gr_worker_event){
                       .type = GR_WORKER_REQUEST,
                       .route = route,
                       .id = request->id,
                       .deadline_ms = request->deadline_ms,
                       .split = request->split,
                       .whole = !ours || (request->flags & GR_FLAG_WHOLE) || self->options.local,
                       .method = request->method,
                       .payload = request->payload,
                       .client = self->options.local ? request->caller : gr_slice_of(NULL, 0),
                       .address = request->address,
                       .user = request->user,
                       .msg = *msg,
                   });
    *msg = NULL;
}

/* --- answers ----------------------------------------------------------------------------- */

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
    int rc = gr_worker_send(self, lone, NULL, now_ms);
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
    int rc = gr_worker_send(self, envelope, payload, now_ms);
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
        gr_worker_send(self, &items, &call->batch, now_ms); /* takes the memory */
    else
        gr_worker_send(self, &items, NULL, now_ms);
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

/* --- credit and deadlines ---------------------------------------------------------------- */

static void unblock(gr_worker *self, struct call *call)
{
    call->blocked = false;
    gr_worker_emit(self, (gr_worker_event){.type = GR_WORKER_CREDIT, .route = call->route});
}

void gr_worker_on_credit(gr_worker *self, const gr_envelope *credit, int64_t now_ms)
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

void gr_worker_unthrottle(gr_worker *self)
{
    struct call *call, *next;
    if (self->out.len >= OUT_LEN / 2 || self->out.bytes >= OUT_BYTES / 2)
        return;
    self->throttled = false;
    HASH_ITER (hh, self->calls, call, next)
        if (call->blocked)
            unblock(self, call);
}

/* A plain call has a deadline, which the broker keeps as well. A stream has none, but must move:
 * its reader says how long it waits for an item, and a reader that is gone gives no credit. */
void gr_worker_expire_calls(gr_worker *self, int64_t now_ms)
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

void gr_worker_flush_calls(gr_worker *self, int64_t now_ms)
{
    struct call *call, *next;
    HASH_ITER (hh, self->calls, call, next) {
        if (self->batches == 0)
            break;
        if (call->count > 0)
            send_batch(self, call, GR_ITEM, now_ms);
    }
}
