/* executor_thread.c - executors that are threads of this program. */
#include <pthread.h>
#include <stdlib.h>

#include "base/err.h"
#include "base/thread.h"
#include "exec/executor_priv.h"

/* What the thread and the loop share. Two owners; the last one to leave frees it. */
struct shared {
    gr_executor_code *code;
    gr_port *port;
    pthread_mutex_t mutex; /* guards what follows */
    int owners;
    gr_frame_line out;
    uv_async_t *wake; /* NULL when the loop has left */
    bool ended;       /* the thread can be joined without waiting */
};

struct thread {
    gr_executor base;
    struct shared *shared;
    pthread_t thread;
    uv_async_t async;
    bool joined;
};

static void leave(struct shared *shared)
{
    pthread_mutex_lock(&shared->mutex);
    bool is_last = --shared->owners == 0;
    pthread_mutex_unlock(&shared->mutex);
    if (!is_last)
        return;
    gr_frame_line_clear(&shared->out);
    gr_port_unref(&shared->port);
    pthread_mutex_destroy(&shared->mutex);
    free(shared);
}

/* --- the thread -------------------------------------------------------------------------- */

static int put(void *arg, gr_frame **frame)
{
    struct shared *shared = arg;
    pthread_mutex_lock(&shared->mutex);
    bool is_heard = shared->wake != NULL;
    bool is_first = shared->out.first == NULL; /* of a line that the loop takes whole */
    if (is_heard)
        gr_frame_line_push(&shared->out, frame);
    if (is_heard && is_first)
        uv_async_send(shared->wake);
    pthread_mutex_unlock(&shared->mutex);
    return is_heard ? 0 : GR_ECLOSED;
}

static void *run(void *arg)
{
    struct shared *shared = arg;
    pthread_setname_np(pthread_self(), GR_EXECUTOR_NAME);
    shared->code(shared->port);
    pthread_mutex_lock(&shared->mutex);
    shared->ended = true;
    if (shared->wake != NULL)
        uv_async_send(shared->wake);
    pthread_mutex_unlock(&shared->mutex);
    leave(shared);
    return NULL;
}

/* --- the loop ---------------------------------------------------------------------------- */

static bool reap(gr_executor *base)
{
    struct thread *self = (struct thread *)base;
    pthread_mutex_lock(&self->shared->mutex);
    bool ended = self->shared->ended;
    pthread_mutex_unlock(&self->shared->mutex);
    if (ended && !self->joined)
        pthread_join(self->thread, NULL);
    self->joined = self->joined || ended;
    return ended;
}

static void on_async(uv_async_t *async)
{
    struct thread *self = async->data;
    if (self->base.ended)
        return;
    if (reap(&self->base))
        gr_executor_ended(&self->base);
    else
        gr_executor_tell(&self->base);
}

static int send_frame(gr_executor *base, gr_frame **frame)
{
    struct thread *self = (struct thread *)base;
    gr_port_deliver(self->shared->port, frame);
    return 0;
}

static gr_frame *next_frame(gr_executor *base)
{
    struct thread *self = (struct thread *)base;
    pthread_mutex_lock(&self->shared->mutex);
    gr_frame *frame = gr_frame_line_pop(&self->shared->out);
    pthread_mutex_unlock(&self->shared->mutex);
    return frame;
}

static void kill_thread(gr_executor *base)
{
    struct thread *self = (struct thread *)base;
    gr_port_close(self->shared->port);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void free_thread(gr_executor *base)
{
    struct thread *self = (struct thread *)base;
    pthread_mutex_lock(&self->shared->mutex);
    self->shared->wake = NULL;
    pthread_mutex_unlock(&self->shared->mutex);
    if (!self->joined)
        pthread_detach(self->thread);
    leave(self->shared);
    uv_close((uv_handle_t *)&self->async, on_closed);
}

static const gr_executor_ops ops = {
    .send = send_frame,
    .next = next_frame,
    .kill = kill_thread,
    .reap = reap,
    .free = free_thread,
};

static int new_shared(struct shared **out, gr_executor_code *code, uv_async_t *wake)
{
    struct shared *shared = calloc(1, sizeof(*shared));
    if (shared == NULL)
        return GR_ENOMEM;
    int rc = gr_port_new(&shared->port, put, shared);
    if (rc < 0) {
        free(shared);
        return rc;
    }
    pthread_mutex_init(&shared->mutex, NULL);
    shared->code = code;
    shared->wake = wake;
    shared->owners = 1;
    *out = shared;
    return 0;
}

static int start(struct thread *self)
{
    self->shared->owners++;
    int rc = gr_thread_start(&self->thread, run, self->shared);
    if (rc < 0)
        self->shared->owners--;
    return rc;
}

int gr_executor_new_thread(gr_executor **out, const gr_executor_options *options)
{
    struct thread *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    if (uv_async_init(options->loop, &self->async, on_async) != 0) {
        free(self);
        return GR_EEXHAUSTED;
    }
    self->async.data = self;
    uv_unref((uv_handle_t *)&self->async);
    int rc = new_shared(&self->shared, options->code, &self->async);
    if (rc == 0)
        rc = start(self);
    if (rc < 0) {
        if (self->shared != NULL)
            leave(self->shared);
        uv_close((uv_handle_t *)&self->async, on_closed);
        return rc;
    }
    gr_executor_init(&self->base, &ops, options);
    *out = &self->base;
    return 0;
}
