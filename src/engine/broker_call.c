/* broker_call.c - calls: dispatch, waiting, every way to end.
 *
 * A call is known to its client by (peer, id) and to its worker by its route: a slot and the
 * slot's generation, so an answer that comes too late cannot hit the slot's next call. */
#include <stdlib.h>
#include <utlist.h>

#include "engine/broker_priv.h"

enum { FIRST_SLOTS = 256 };

/* --- the tables -------------------------------------------------------------------------- */

static int grow_slots(struct slots *slots)
{
    uint32_t cap = slots->cap > 0 ? slots->cap * 2 : FIRST_SLOTS;
    struct call **calls = realloc(slots->calls, cap * sizeof(struct call *));
    if (calls == NULL)
        return GR_ENOMEM;
    slots->calls = calls;
    uint32_t *generations = realloc(slots->generations, cap * sizeof(uint32_t));
    if (generations == NULL)
        return GR_ENOMEM;
    slots->generations = generations;
    uint32_t *free_slots = realloc(slots->free_slots, cap * sizeof(uint32_t));
    if (free_slots == NULL)
        return GR_ENOMEM;
    slots->free_slots = free_slots;
    slots->cap = cap;
    return 0;
}

static int take_slot(struct slots *slots, struct call *owner)
{
    if (slots->free_count == 0 && slots->len == slots->cap) {
        int rc = grow_slots(slots);
        if (rc < 0)
            return rc;
    }
    if (slots->free_count > 0) {
        owner->slot = slots->free_slots[--slots->free_count];
    } else {
        owner->slot = slots->len++;
        slots->generations[owner->slot] = slots->first_generation;
    }
    if (++slots->generations[owner->slot] == 0) /* a route is not 0 */
        slots->generations[owner->slot] = 1;
    owner->generation = slots->generations[owner->slot];
    slots->calls[owner->slot] = owner;
    return 0;
}

static void give_slot(struct slots *slots, const struct call *owner)
{
    slots->calls[owner->slot] = NULL;
    slots->free_slots[slots->free_count++] = owner->slot;
}

uint64_t gr_broker_route_of(const struct call *at)
{
    return (uint64_t)at->generation << 32 | at->slot;
}

static struct call *find_by_route(const gr_broker *self, uint64_t route)
{
    uint32_t slot = (uint32_t)route;
    if (slot >= self->slots.len)
        return NULL;
    struct call *found = self->slots.calls[slot];
    return found != NULL && gr_broker_route_of(found) == route ? found : NULL;
}

static struct call *find_by_client(const gr_broker *self, gr_peer *client, uint64_t id)
{
    struct call key = {.from = {.client = client, .id = id}}, *found;
    HASH_FIND(hh, self->calls, &key.from, sizeof(key.from), found);
    return found;
}

static struct call *add_call(gr_broker *self, gr_peer *client, uint64_t id)
{
    struct call *added = self->free_calls;
    if (added != NULL)
        self->free_calls = added->queue_next;
    else
        added = malloc(sizeof(*added));
    if (added == NULL)
        return NULL;
    *added = (struct call){.from = {.client = client, .id = id}};
    if (take_slot(&self->slots, added) < 0) {
        added->queue_next = self->free_calls;
        self->free_calls = added;
        return NULL;
    }
    HASH_ADD(hh, self->calls, from, sizeof(added->from), added);
    DL_APPEND2(client->calls, added, client_prev, client_next);
    client->call_count++;
    return added;
}

static void leave_queue(gr_broker *self, struct call *at)
{
    DL_DELETE2(at->service->waiting, at, queue_prev, queue_next);
    at->service->waiting_count--;
    self->waiting--;
    self->waiting_bytes -= gr_msg_bytes(at->request);
}

/* Takes the call away from its worker; the worker's place for it is free again. */
static void leave_worker(struct call *at)
{
    gr_peer *worker = at->worker;
    DL_DELETE2(worker->calls, at, worker_prev, worker_next);
    worker->call_count--;
    at->worker = NULL;
    gr_broker_worker_gives_back(at->service, worker);
}

/* Forgets a call, wherever it is. What its worker frees goes to the next one in line. */
void gr_broker_end_call(gr_broker *self, struct call *at, int64_t now_ms)
{
    struct service *service = at->service;
    bool had_worker = at->worker != NULL;
    if (had_worker)
        leave_worker(at);
    else if (at->request != NULL && service != NULL)
        leave_queue(self, at);
    gr_msg_destroy(&at->request);
    gr_bridge_close(self, at);
    gr_heap_remove(&self->call_heap, &at->due);
    give_slot(&self->slots, at);
    HASH_DEL(self->calls, at);
    DL_DELETE2(at->from.client->calls, at, client_prev, client_next);
    at->from.client->call_count--;
    at->queue_next = self->free_calls;
    self->free_calls = at;
    if (had_worker && service->waiting != NULL)
        gr_broker_serve_waiting(self, service, now_ms);
}

void gr_broker_release_worker(gr_broker *self, struct call *at, int64_t now_ms)
{
    struct service *service = at->service;
    gr_msg_destroy(&at->request);
    leave_worker(at);
    if (service->waiting != NULL)
        gr_broker_serve_waiting(self, service, now_ms);
}

void gr_broker_free_calls(gr_broker *self)
{
    struct call *at, *next;
    HASH_ITER (hh, self->calls, at, next) {
        HASH_DEL(self->calls, at);
        gr_msg_destroy(&at->request);
        gr_bridge_close(self, at);
        free(at);
    }
    while ((at = self->free_calls) != NULL) {
        self->free_calls = at->queue_next;
        free(at);
    }
    free(self->slots.calls);
    free(self->slots.generations);
    free(self->slots.free_slots);
}

/* --- ways to end ------------------------------------------------------------------------- */

void gr_broker_fail_call(gr_broker *self, struct call *at, int error, const char *text,
                         int64_t now_ms)
{
    gr_envelope about = gr_bridge_about(at);
    gr_broker_send_error(self, at->from.client, &about, error, gr_slice_str(text), now_ms);
    gr_broker_end_call(self, at, now_ms);
}

/* A call that waited in vain: to the original's clients that means that all workers were busy. */
static void fail_waited(gr_broker *self, struct call *at, int64_t now_ms)
{
    gr_broker_fail_call(self, at, at->from.client->dialect->is_ours ? GR_EDEADLINE : GR_EEXHAUSTED,
                        "no worker was free in time", now_ms);
}

void gr_broker_tell_worker(gr_broker *self, const struct call *at, int64_t now_ms)
{
    gr_envelope cancel = {.type = GR_CANCEL, .route = gr_broker_route_of(at)};
    if (at->worker != NULL)
        gr_broker_send_envelope(self, at->worker, &cancel, NULL, now_ms);
}

/* Those that wait go first: they must not get the places of those that run. */
void gr_broker_drop_client_calls(gr_broker *self, gr_peer *client, int64_t now_ms)
{
    struct call *at, *next;
    DL_FOREACH_SAFE2 (client->calls, at, next, client_next)
        if (at->worker == NULL)
            gr_broker_end_call(self, at, now_ms);
    while ((at = client->calls) != NULL) {
        gr_broker_tell_worker(self, at, now_ms);
        gr_broker_end_call(self, at, now_ms);
    }
}

void gr_broker_fail_waiting(gr_broker *self, struct service *service, const char *text,
                            int64_t now_ms)
{
    while (service->waiting != NULL)
        gr_broker_fail_call(self, service->waiting, GR_EUNAVAILABLE, text, now_ms);
}

void gr_broker_fail_all_calls(gr_broker *self, const char *text, int64_t now_ms)
{
    struct call *at, *next;
    for (struct service *service = self->services; service != NULL; service = service->hh.next)
        gr_broker_fail_waiting(self, service, text, now_ms);
    HASH_ITER (hh, self->calls, at, next) {
        gr_broker_tell_worker(self, at, now_ms);
        gr_broker_fail_call(self, at, GR_EUNAVAILABLE, text, now_ms);
    }
}

/* A stream must move; clients of other dialects wait less long for it. */
static int64_t idle_limit(const gr_broker *self, const struct call *at)
{
    uint32_t idle_ms = self->options.idle_ms, call_ms = self->options.call_ms;
    return !at->from.client->dialect->is_ours && call_ms < idle_ms ? call_ms : idle_ms;
}

void gr_broker_expire_calls(gr_broker *self, int64_t now_ms)
{
    gr_due *due;
    while ((due = gr_heap_first(&self->call_heap)) != NULL && due->at_ms <= now_ms) {
        struct call *at = GR_HEAP_ENTRY(due, struct call, due);
        int64_t limit_ms = at->active_ms + idle_limit(self, at);
        if (at->streaming && limit_ms > now_ms) {
            gr_heap_set(&self->call_heap, due, limit_ms);
            continue;
        }
        if (at->worker == NULL && !at->streaming) {
            fail_waited(self, at, now_ms);
            continue;
        }
        gr_broker_tell_worker(self, at, now_ms);
        gr_broker_fail_call(self, at, GR_EDEADLINE, "the worker did not answer in time", now_ms);
    }
}

/* --- requests ---------------------------------------------------------------------------- */

static gr_envelope hop_to_worker(const struct call *at, int64_t now_ms)
{
    gr_envelope hop = {.id = at->from.id, .route = gr_broker_route_of(at)};
    if (at->deadline_ms != GR_NEVER) {
        int64_t left_ms = at->deadline_ms - now_ms;
        hop.deadline_ms = left_ms > 0 ? (uint32_t)left_ms : 1;
    }
    return hop;
}

static void give_credit(gr_broker *self, struct call *at, int64_t now_ms)
{
    if (at->credit == 0 && at->window == 0)
        return;
    gr_envelope credit = {.type = GR_CREDIT,
                          .id = at->from.id,
                          .route = gr_broker_route_of(at),
                          .credit = at->credit,
                          .window = at->window};
    gr_broker_send_envelope(self, at->worker, &credit, NULL, now_ms);
}

/* The request in the words of a worker that does not speak gh1, addressed to it. */
static int export(gr_broker *self, struct call *at, gr_peer *worker, const gr_msg *request,
                  const gr_envelope *hop, gr_msg **out)
{
    int rc = gr_bridge_export(self, at, worker, request, hop, out);
    if (rc == 0)
        rc = gr_msg_prepend(*out, worker->key + 1, worker->key_len - 1);
    return rc;
}

static void dispatch(gr_broker *self, struct call *at, gr_peer *worker, gr_msg **msg,
                     int64_t now_ms)
{
    gr_envelope hop = hop_to_worker(at, now_ms);
    gr_msg *foreign = NULL;
    if (!worker->dialect->is_ours) {
        int rc = export(self, at, worker, *msg, &hop, &foreign);
        if (rc < 0) {
            gr_msg_destroy(&foreign);
            gr_msg_destroy(msg);
            gr_broker_fail_call(
                self, at, rc, rc == GR_EINVAL ? worker->dialect->limits : gr_err_text(rc), now_ms);
            return;
        }
    }
    gr_broker_worker_takes(at->service, worker);
    at->worker = worker;
    at->attempts++;
    DL_APPEND2(worker->calls, at, worker_prev, worker_next);
    worker->call_count++;
    if (at->idempotent && at->request == NULL && at->attempts < MAX_ATTEMPTS)
        gr_msg_copy(*msg, &at->request); /* without a copy it is just not given to another */
    if (foreign != NULL) {
        gr_msg_destroy(msg);
        gr_broker_send(self, worker, &foreign, now_ms);
    } else {
        if (at->service->internal)
            gr_broker_introduce(self, worker, at->from.client, &hop, msg, now_ms);
        else
            gr_broker_forward(self, worker, &hop, msg, now_ms);
        give_credit(self, at, now_ms);
    }
}

static int wait_in_line(gr_broker *self, struct call *at, gr_msg **msg)
{
    struct service *service = at->service;
    size_t bytes = gr_msg_bytes(*msg);
    if (service->waiting_count >= self->options.queue_len ||
        self->waiting_bytes + bytes > self->options.queue_bytes)
        return GR_EEXHAUSTED;
    at->request = *msg;
    *msg = NULL;
    DL_APPEND2(service->waiting, at, queue_prev, queue_next);
    service->waiting_count++;
    self->waiting++;
    self->waiting_bytes += bytes;
    return 0;
}

void gr_broker_serve_waiting(gr_broker *self, struct service *service, int64_t now_ms)
{
    gr_peer *worker;
    while (service->waiting != NULL && (worker = gr_broker_choose(service)) != NULL) {
        struct call *at = service->waiting;
        if (at->deadline_ms <= now_ms) {
            fail_waited(self, at, now_ms);
            continue;
        }
        leave_queue(self, at);
        gr_msg *msg = at->request;
        at->request = NULL;
        dispatch(self, at, worker, &msg, now_ms);
    }
}

static void set_deadline(gr_broker *self, struct call *at, uint32_t deadline_ms, int64_t now_ms)
{
    at->deadline_ms = deadline_ms > 0 ? now_ms + deadline_ms : GR_NEVER;
    if (deadline_ms > 0)
        gr_heap_set(&self->call_heap, &at->due, at->deadline_ms);
}

/* What is kept and forwarded is a gh1 message, whatever the client speaks. */
static int take_over(gr_peer *client, struct call *at, const gr_envelope *request, gr_msg **msg)
{
    if (client->dialect->is_ours)
        return 0;
    gr_msg *own;
    int rc = gr_bridge_open(at, request);
    if (rc == 0)
        rc = gr_bridge_import(request, &own);
    if (rc < 0)
        return rc;
    gr_msg_destroy(msg);
    *msg = own;
    return 0;
}

static void start_call(gr_broker *self, gr_peer *client, const gr_envelope *request,
                       struct service *service, gr_msg **msg, int64_t now_ms)
{
    struct call *at = add_call(self, client, request->id);
    if (at == NULL) {
        gr_broker_send_error(self, client, request, GR_ENOMEM, gr_slice_str(gr_err_text(GR_ENOMEM)),
                             now_ms);
        return;
    }
    at->service = service;
    at->idempotent = gr_broker_is_idempotent(service, request->method);
    set_deadline(self, at, client->dialect->is_ours ? request->deadline_ms : self->options.call_ms,
                 now_ms);
    int rc = take_over(client, at, request, msg);
    if (rc < 0) {
        gr_broker_fail_call(self, at, rc, gr_err_text(rc), now_ms);
        return;
    }
    gr_peer *worker = service->waiting == NULL ? gr_broker_choose(service) : NULL;
    if (worker != NULL)
        dispatch(self, at, worker, msg, now_ms);
    else if (wait_in_line(self, at, msg) < 0)
        gr_broker_fail_call(self, at, GR_EEXHAUSTED, "too many requests wait for this service",
                            now_ms);
}

static int check_request(const gr_broker *self, gr_peer *client, const gr_envelope *request,
                         const char **why)
{
    if (client->dialect->is_ours && !gr_wire_is_name(request->service)) {
        *why = "a name has 1 to 255 printable characters without spaces";
        return GR_EINVAL;
    }
    if (!gr_wire_is_name(request->method)) {
        *why = "a name has 1 to 255 printable characters without spaces";
        return GR_EINVAL;
    }
    if (find_by_client(self, client, request->id) != NULL) {
        *why = "another call has this id";
        return GR_EINVAL;
    }
    if (self->draining) {
        *why = "the broker is shutting down";
        return GR_EUNAVAILABLE;
    }
    if (client->call_count >= self->options.max_calls) {
        *why = "this client has as many calls under way as it may";
        return GR_EEXHAUSTED;
    }
    return 0;
}

static void refuse(gr_broker *self, gr_peer *client, const gr_envelope *request, int error,
                   const char *what, int64_t now_ms)
{
    char text[400];
    snprintf(text, sizeof(text), "service %.*s %s", (int)request->service.len,
             (const char *)request->service.data, what);
    gr_broker_send_error(self, client, request, error, gr_slice_str(text), now_ms);
}

/* A second answer to the same id ends a gate01 client: then silence is better than an error. */
static bool is_repeated(const gr_broker *self, gr_peer *client, const gr_envelope *request)
{
    return !client->dialect->is_ours && find_by_client(self, client, request->id) != NULL;
}

void gr_broker_on_request(gr_broker *self, gr_peer *client, const gr_envelope *request,
                          gr_msg **msg, int64_t now_ms)
{
    if (request->id == 0 || is_repeated(self, client, request)) {
        self->stats.malformed++;
        return;
    }
    self->stats.requests++;
    const char *why = NULL;
    int rc = check_request(self, client, request, &why);
    if (rc < 0) {
        gr_broker_send_error(self, client, request, rc, gr_slice_str(why), now_ms);
        return;
    }
    if (!gr_broker_may_call(self, client, request)) {
        gr_broker_send_error(self, client, request, GR_EDENIED,
                             gr_slice_str("this user may not call this method"), now_ms);
        return;
    }
    if (gr_broker_gate(self, client, request, now_ms))
        return;
    struct service *service;
    rc = gr_broker_look_up(self, request, &service, &why);
    if (rc < 0)
        refuse(self, client, request, rc, why, now_ms);
    else
        start_call(self, client, request, service, msg, now_ms);
}

void gr_broker_on_credit(gr_broker *self, gr_peer *client, const gr_envelope *credit, gr_msg **msg,
                         int64_t now_ms)
{
    struct call *at = find_by_client(self, client, credit->id);
    if (at == NULL)
        return;
    if (at->bridge != NULL) {
        if (at->worker != NULL || at->streaming)
            gr_bridge_credit(self, at, credit, now_ms);
        else { /* it waits for a second worker */
            at->credit += credit->credit;
            at->window += credit->window;
        }
        return;
    }
    if (!at->streaming) { /* a worker that it is given to later has not heard of it */
        at->credit += credit->credit;
        at->window += credit->window;
    }
    if (at->worker == NULL)
        return;
    at->active_ms = now_ms;
    gr_envelope hop = {.id = at->from.id, .route = gr_broker_route_of(at)};
    gr_broker_forward(self, at->worker, &hop, msg, now_ms);
}

void gr_broker_on_cancel(gr_broker *self, gr_peer *client, const gr_envelope *cancel,
                         int64_t now_ms)
{
    struct call *at = find_by_client(self, client, cancel->id);
    if (at == NULL)
        return;
    gr_broker_tell_worker(self, at, now_ms);
    gr_broker_end_call(self, at, now_ms);
}

/* --- answers ----------------------------------------------------------------------------- */

/* An internal handler wants no answer: the client waits until its time is over. One that would wait
 * for ever is told all the same. */
static bool is_quiet(const struct call *at, const gr_envelope *answer)
{
    return at->service->internal && answer->type == GR_REPLY && answer->status / 100 == 1 &&
           at->deadline_ms != GR_NEVER;
}

void gr_broker_on_answer(gr_broker *self, gr_peer *worker, const gr_envelope *answer, gr_msg **msg,
                         int64_t now_ms)
{
    struct call *at = find_by_route(self, answer->route);
    if (at == NULL || at->worker != worker ||
        (!worker->dialect->is_ours && (answer->seed != gr_tag_seed_of(self->options.instance) ||
                                       !gr_bridge_is_about(at, answer)))) {
        self->stats.late++; /* over already, or never its own */
        if (at != NULL && at->worker != NULL && at->worker != worker) {
            self->stats.forged++;
            gr_broker_note_refused(self, worker, "answered another worker's call to",
                                   gr_buf_slice(&at->service->name), gr_slice_str(""));
        }
        return;
    }
    if (is_quiet(at, answer)) {
        gr_broker_end_call(self, at, now_ms);
        return;
    }
    if (answer->type == GR_ITEM || answer->type == GR_CHUNK) {
        if (!at->streaming) /* instead of the deadline */
            gr_heap_set(&self->call_heap, &at->due, now_ms + idle_limit(self, at));
        at->active_ms = now_ms;
        at->bulk = answer->type == GR_CHUNK;
        gr_msg_destroy(&at->request); /* what has begun to answer is not begun again */
    }
    if (at->bridge != NULL) {
        gr_bridge_answer(self, at, answer, now_ms);
        return;
    }
    gr_envelope hop = {.id = at->from.id, .route = answer->route, .status = answer->status};
    gr_peer *client = at->from.client;
    if (answer->type == GR_ITEM || answer->type == GR_CHUNK) {
        at->streaming = true;
        self->stats.items++;
    } else {
        gr_broker_end_call(self, at, now_ms);
        self->stats.answers++;
    }
    gr_broker_forward(self, client, &hop, msg, now_ms);
}

/* The worker of the call is gone: it is first in line again. */
static void wait_again(gr_broker *self, struct call *at)
{
    struct service *service = at->service;
    leave_worker(at);
    self->stats.redispatch++;
    DL_PREPEND2(service->waiting, at, queue_prev, queue_next);
    service->waiting_count++;
    self->waiting++;
    self->waiting_bytes += gr_msg_bytes(at->request);
}

void gr_broker_lose_worker_calls(gr_broker *self, gr_peer *worker, int64_t now_ms)
{
    struct service *service = worker->service;
    bool served = gr_broker_is_served(service);
    struct call *at, *next;
    DL_FOREACH_SAFE2 (worker->calls, at, next, worker_next) {
        if (served && at->idempotent && at->request != NULL)
            continue;
        self->stats.lost++;
        gr_broker_fail_call(self, at, GR_ELOST, "the worker went away with the call", now_ms);
    }
    while (worker->calls != NULL)
        wait_again(self, worker->calls->worker_prev); /* the newest first: then the oldest leads */
    gr_broker_serve_waiting(self, service, now_ms);
}
