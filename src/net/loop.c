#include "net/loop.h"

#include <stdlib.h>
#include <utlist.h>

#include "base/err.h"
#include "net/endpoint_priv.h"

enum { BUSY_LIMIT_MS = 1000 };

static void on_idle(uv_idle_t *idle)
{
    (void)idle; /* its being active keeps the loop from blocking */
}

static void on_engine_timer(uv_timer_t *timer)
{
    gr_loop *self = timer->data;
    gr_endpoint *endpoint;
    int64_t now_ms = gr_clock_ms();
    self->armed_ms = GR_NEVER;
    DL_FOREACH (self->endpoints, endpoint) {
        if (endpoint->due_ms <= now_ms)
            endpoint->want = true;
    }
}

static void arm(gr_loop *self, int64_t due_ms)
{
    if (due_ms >= self->armed_ms)
        return;
    int64_t wait_ms = due_ms - gr_clock_ms();
    self->armed_ms = due_ms;
    uv_timer_start(&self->engine_timer, on_engine_timer, wait_ms > 0 ? (uint64_t)wait_ms : 0, 0);
}

/* Everything goes out, and nothing is left unread. Returns true when there is more to do. */
static bool settle(gr_loop *self)
{
    gr_endpoint *endpoint;
    bool more = self->want_turn || self->owner_is_due;
    int64_t due_ms = GR_NEVER;
    DL_FOREACH (self->endpoints, endpoint) {
        if (endpoint->touched)
            gr_endpoint_settle(endpoint);
        more =
            more || endpoint->want; /* a new one too: its sockets wake nobody before a first read */
        if (endpoint->due_ms < due_ms)
            due_ms = endpoint->due_ms;
    }
    arm(self, due_ms);
    if (more)
        uv_idle_start(&self->idle, on_idle);
    else
        uv_idle_stop(&self->idle);
    if (self->busy > 0)
        uv_ref((uv_handle_t *)&self->keep);
    else
        uv_unref((uv_handle_t *)&self->keep);
    return more;
}

/* Before the loop blocks. */
static void on_prepare(uv_prepare_t *prepare)
{
    gr_loop *self = prepare->data;
    settle(self);
    gr_loop_set_label(self, (gr_slice){0}, (gr_slice){0});
    atomic_store(&self->busy_since_ms, 0);
}

static void tell_due(gr_loop *self)
{
    self->owner_is_due = false;
    self->owner_due_ms = GR_NEVER;
    uv_timer_stop(&self->owner_timer);
    self->owner.due(self->owner.arg);
}

static void on_check(uv_check_t *check)
{
    gr_loop *self = check->data;
    gr_loop_enter(self);
    if (self->want_turn) {
        self->want_turn = false;
        self->owner.turn(self->owner.arg);
    }
    self->cursor = self->endpoints; /* Lua may close any endpoint meanwhile */
    while (self->cursor != NULL) {
        gr_endpoint *endpoint = self->cursor;
        self->cursor = endpoint->next;
        if (!endpoint->want && !atomic_load(&endpoint->poked))
            continue;
        atomic_store(&endpoint->poked, false);
        endpoint->want = false;
        if (gr_endpoint_pump(endpoint, gr_clock_ms()))
            self->owner.ready(self->owner.arg, endpoint);
    }
    /* Last: an answer that is there is no time-out, however late we look. */
    if (self->owner_is_due || self->owner_due_ms <= gr_clock_ms())
        tell_due(self);
}

static void on_async(uv_async_t *async)
{
    (void)async; /* who is meant is marked as poked */
}

static void on_owner_timer(uv_timer_t *timer)
{
    gr_loop *self = timer->data;
    self->owner_is_due = true;
}

static void init_handles(gr_loop *self)
{
    uv_prepare_init(&self->uv, &self->prepare);
    uv_check_init(&self->uv, &self->check);
    uv_idle_init(&self->uv, &self->idle);
    uv_timer_init(&self->uv, &self->engine_timer);
    uv_timer_init(&self->uv, &self->owner_timer);
    self->prepare.data = self->check.data = self->engine_timer.data = self->owner_timer.data = self;
    uv_prepare_start(&self->prepare, on_prepare);
    uv_check_start(&self->check, on_check);
    uv_unref((uv_handle_t *)&self->prepare);
    uv_unref((uv_handle_t *)&self->check);
    uv_unref((uv_handle_t *)&self->async);
    uv_unref((uv_handle_t *)&self->keep);
    uv_unref((uv_handle_t *)&self->engine_timer);
}

int gr_loop_new(gr_loop **out, const gr_loop_owner *owner)
{
    gr_loop *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->owner = *owner;
    self->armed_ms = self->owner_due_ms = GR_NEVER;
    atomic_init(&self->busy_limit_ms, BUSY_LIMIT_MS);
    pthread_mutex_init(&self->list_mutex, NULL);
    pthread_mutex_init(&self->label_mutex, NULL);
    if (uv_loop_init(&self->uv) != 0) {
        free(self);
        return GR_EEXHAUSTED;
    }
    int rc = 0;
    if (uv_async_init(&self->uv, &self->async, on_async) != 0 ||
        uv_async_init(&self->uv, &self->keep, on_async) != 0)
        rc = GR_EEXHAUSTED;
    if (rc == 0)
        rc = gr_guard_new(&self->guard, self);
    if (rc < 0) {
        uv_loop_close(&self->uv);
        free(self);
        return rc;
    }
    init_handles(self);
    *out = self;
    return 0;
}

static void close_handle(uv_handle_t *handle, void *arg)
{
    (void)arg;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void gr_loop_destroy(gr_loop **loop)
{
    gr_loop *self = *loop;
    if (self == NULL)
        return;
    gr_guard_destroy(&self->guard);
    uv_walk(&self->uv, close_handle, NULL);
    uv_run(&self->uv, UV_RUN_DEFAULT);
    uv_loop_close(&self->uv);
    pthread_mutex_destroy(&self->list_mutex);
    pthread_mutex_destroy(&self->label_mutex);
    free(self);
    *loop = NULL;
}

void gr_loop_calm(gr_loop *self)
{
    enum { MOST_MS = 100 };
    int64_t until_ms = gr_clock_ms() + MOST_MS;
    uv_run(&self->uv, UV_RUN_NOWAIT);
    while (self->uv.active_reqs.count > 0 && gr_clock_ms() < until_ms) {
        uv_sleep(1);
        uv_run(&self->uv, UV_RUN_NOWAIT);
    }
}

uv_loop_t *gr_loop_uv(gr_loop *self)
{
    return &self->uv;
}

bool gr_loop_turn(gr_loop *self)
{
    uv_run(&self->uv, UV_RUN_ONCE);
    return settle(self) || uv_loop_alive(&self->uv);
}

void gr_loop_run(gr_loop *self)
{
    while (gr_loop_turn(self))
        if (atomic_exchange(&self->stop, false))
            return;
}

void gr_loop_stop(gr_loop *self)
{
    atomic_store(&self->stop, true);
    uv_async_send(&self->async);
}

void gr_loop_set_timer(gr_loop *self, int64_t at_ms, bool keep)
{
    if (keep)
        uv_ref((uv_handle_t *)&self->owner_timer);
    else
        uv_unref((uv_handle_t *)&self->owner_timer);
    if (at_ms == self->owner_due_ms)
        return;
    self->owner_due_ms = at_ms;
    if (at_ms == GR_NEVER) {
        uv_timer_stop(&self->owner_timer);
        return;
    }
    int64_t wait_ms = at_ms - gr_clock_ms();
    if (wait_ms <= 0) { /* libuv would run it in this round of timers, and one after it, for ever */
        uv_timer_stop(&self->owner_timer);
        self->want_turn = true;
        return;
    }
    uv_update_time(&self->uv);
    uv_timer_start(&self->owner_timer, on_owner_timer, (uint64_t)wait_ms, 0);
}

void gr_loop_want_turn(gr_loop *self)
{
    self->want_turn = true;
}

void gr_loop_hold(gr_loop *self)
{
    self->busy++;
}

void gr_loop_release(gr_loop *self)
{
    self->busy--;
}

void gr_loop_enter(gr_loop *self)
{
    int64_t now_ms = gr_clock_ms();
    atomic_store(&self->last_turn_ms, now_ms);
    if (atomic_load(&self->busy_since_ms) == 0)
        atomic_store(&self->busy_since_ms, now_ms);
}

/* On the way of every request, so without printf. */
static void put_label(gr_loop *self, gr_slice text)
{
    size_t room = LABEL_LEN - self->label_len;
    size_t len = text.len < room ? text.len : room;
    if (len > 0)
        memcpy(self->label + self->label_len, text.data, len);
    self->label_len += len;
}

void gr_loop_set_label(gr_loop *self, gr_slice service, gr_slice method)
{
    pthread_mutex_lock(&self->label_mutex);
    self->label_len = 0;
    if (service.len > 0) {
        put_label(self, service);
        put_label(self, gr_slice_of(".", 1));
        put_label(self, method);
    }
    pthread_mutex_unlock(&self->label_mutex);
}

void gr_loop_set_busy_limit(gr_loop *self, uint32_t limit_ms)
{
    atomic_store(&self->busy_limit_ms, limit_ms);
}
