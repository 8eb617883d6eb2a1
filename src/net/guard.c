/* guard.c - the thread that keeps endpoints alive while Lua is busy.
 *
 * Four times per heartbeat it looks whether the loop's thread still comes round. When Lua has had
 * it for half a heartbeat, the guard receives, beats and sends in its place, and says in the log
 * which method does not let go. It never runs Lua. */
#include <stdlib.h>
#include <utlist.h>

#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/pulse.h"
#include "net/endpoint_priv.h"

struct gr_guard {
    gr_loop *loop;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    bool stop;
    uint32_t heartbeat_ms; /* the shortest of the endpoints */
};

/* --- the log line ------------------------------------------------------------------------ */

struct complaint {
    int64_t since_ms; /* which entry into Lua it is about */
    int64_t next_ms;  /* when to complain next: 1, 2, 4 ... times the limit */
    int64_t pause_ms;
};

static void complain(gr_loop *loop, struct complaint *about, int64_t since_ms, int64_t now_ms)
{
    uint32_t limit_ms = atomic_load(&loop->busy_limit_ms);
    if (about->since_ms != since_ms) {
        *about = (struct complaint){
            .since_ms = since_ms, .next_ms = since_ms + limit_ms, .pause_ms = limit_ms};
    }
    if (limit_ms == 0 || now_ms < about->next_ms)
        return;
    char label[LABEL_LEN + 1] = "the script";
    pthread_mutex_lock(&loop->label_mutex);
    if (loop->label_len > 0) {
        memcpy(label, loop->label, loop->label_len);
        label[loop->label_len] = '\0';
    }
    pthread_mutex_unlock(&loop->label_mutex);
    gr_log(GR_LOG_WARNING, "gaterpc.guard", "%s has run %.1f s without yielding", label,
           (double)(now_ms - since_ms) / 1000);
    about->next_ms = now_ms + about->pause_ms;
    about->pause_ms *= 2;
}

/* --- the thread -------------------------------------------------------------------------- */

static void stand_in(gr_loop *loop, int64_t since_ms, int64_t now_ms)
{
    bool wake = false;
    gr_endpoint *endpoint;
    pthread_mutex_lock(&loop->list_mutex);
    DL_FOREACH (loop->endpoints, endpoint) {
        if (now_ms - since_ms < endpoint->heartbeat_ms / 2)
            continue;
        if (gr_endpoint_stand_in(endpoint, now_ms)) {
            atomic_store(&endpoint->poked, true);
            wake = true;
        }
    }
    pthread_mutex_unlock(&loop->list_mutex);
    if (wake)
        uv_async_send(&loop->async);
}

static void look_after(gr_loop *loop, struct complaint *about)
{
    int64_t since_ms = atomic_load(&loop->busy_since_ms);
    int64_t now_ms = gr_clock_ms();
    if (since_ms == 0)
        return;
    complain(loop, about, since_ms, now_ms);
    stand_in(loop, since_ms, now_ms);
}

/* Returns false when the guard is to end. */
static bool nap(struct gr_guard *self)
{
    pthread_mutex_lock(&self->mutex);
    uint32_t pause_ms = gr_pulse_clamp(self->heartbeat_ms / 4, 10, 500);
    int64_t until_ns = gr_clock_ns() + (int64_t)pause_ms * 1000000;
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    if (!self->stop) /* looking too early, because it was woken, does no harm */
        pthread_cond_timedwait(&self->changed, &self->mutex, &until);
    bool go_on = !self->stop;
    pthread_mutex_unlock(&self->mutex);
    return go_on;
}

static void *run(void *arg)
{
    struct gr_guard *self = arg;
    struct complaint about = {0};
    while (nap(self))
        look_after(self->loop, &about);
    return NULL;
}

static void release(struct gr_guard *self)
{
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->mutex);
    free(self);
}

int gr_guard_new(struct gr_guard **out, gr_loop *loop)
{
    struct gr_guard *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->loop = loop;
    self->heartbeat_ms = GR_PULSE_MS;
    pthread_mutex_init(&self->mutex, NULL);
    gr_cond_init(&self->changed);
    int rc = gr_thread_start(&self->thread, run, self);
    if (rc < 0) {
        release(self);
        return rc;
    }
    *out = self;
    return 0;
}

void gr_guard_destroy(struct gr_guard **guard)
{
    struct gr_guard *self = *guard;
    if (self == NULL)
        return;
    pthread_mutex_lock(&self->mutex);
    self->stop = true;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
    pthread_join(self->thread, NULL);
    release(self);
    *guard = NULL;
}

void gr_guard_hurry(struct gr_guard *self, uint32_t heartbeat_ms)
{
    pthread_mutex_lock(&self->mutex);
    if (heartbeat_ms > 0 && heartbeat_ms < self->heartbeat_ms) {
        self->heartbeat_ms = heartbeat_ms;
        pthread_cond_signal(&self->changed); /* its nap may be longer than it has now */
    }
    pthread_mutex_unlock(&self->mutex);
}
