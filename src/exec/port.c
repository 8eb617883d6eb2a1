#include "exec/port.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/thread.h"

/* Nobody else uses it, and nobody notices one that comes late: its default is to do nothing. */
#define INTERRUPT SIGURG

struct gr_port {
    atomic_int owners;
    gr_port_put_fn *put;
    void *put_arg;
    atomic_int stop; /* the running job's: 0 or a negative error */
    atomic_bool urgent;
    atomic_bool interrupted; /* and has not noticed yet */

    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    gr_frame_line jobs;
    gr_frame *answer;
    uint64_t job;      /* that runs, or 0 */
    uint64_t question; /* that has no answer yet, or 0 */
    uint32_t window_items, window_bytes;
    int64_t items, bytes; /* credit of the job */
    bool quitting;        /* no more jobs will come */
    bool closed;          /* nobody is there */
    bool entered;         /* `thread` may get signals */
    pthread_t thread;
    gr_port_interrupt_fn *interrupt;
    void *interrupt_arg;
};

static _Thread_local gr_port *here; /* for the signal handler */

static void on_signal(int number)
{
    (void)number;
    if (here != NULL)
        here->interrupt(here->interrupt_arg);
}

/* Without SA_RESTART: code that waits in a system call shall come back from it. */
static void catch_signal(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(INTERRUPT, &action, NULL);
}

int gr_port_new(gr_port **out, gr_port_put_fn *put, void *arg)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, catch_signal);
    gr_port *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    atomic_init(&self->owners, 1);
    self->put = put;
    self->put_arg = arg;
    pthread_mutex_init(&self->mutex, NULL);
    gr_cond_init(&self->changed);
    *out = self;
    return 0;
}

void gr_port_ref(gr_port *self)
{
    atomic_fetch_add(&self->owners, 1);
}

void gr_port_unref(gr_port **port)
{
    gr_port *self = *port;
    *port = NULL;
    if (self == NULL || atomic_fetch_sub(&self->owners, 1) > 1)
        return;
    gr_frame_line_clear(&self->jobs);
    gr_frame_destroy(&self->answer);
    pthread_cond_destroy(&self->changed);
    pthread_mutex_destroy(&self->mutex);
    free(self);
}

/* --- the feeder; the mutex is held -------------------------------------------------------- */

/* Code gets the error once, and may tidy up: when it is told again, only urgency interrupts it. */
static void interrupt(gr_port *self, int why, bool urgent)
{
    bool first = atomic_exchange(&self->stop, why) == 0;
    atomic_store(&self->urgent, urgent);
    if (first || urgent)
        atomic_store(&self->interrupted, true);
    if (self->entered)
        pthread_kill(self->thread, INTERRUPT);
}

static void cancel(gr_port *self, const gr_frame_head *head)
{
    if (head->id != self->job) {
        for (gr_frame *job = self->jobs.first; job != NULL; job = job->next)
            if (job->head.id == head->id)
                job->head.number = 1; /* it has not begun: its deadline has passed */
        return;
    }
    interrupt(self, -(int)head->a, head->flag);
}

void gr_port_deliver(gr_port *self, gr_frame **frame)
{
    const gr_frame_head *head = &(*frame)->head;
    pthread_mutex_lock(&self->mutex);
    switch (head->type) {
    case GR_FRAME_HELLO:
        self->window_items = head->a;
        self->window_bytes = head->b;
        gr_frame_line_push(&self->jobs, frame);
        break;
    case GR_FRAME_JOB:
        gr_frame_line_push(&self->jobs, frame);
        break;
    case GR_FRAME_CANCEL:
        cancel(self, head);
        break;
    case GR_FRAME_CREDIT:
        if (head->id == self->job) {
            self->items += head->a;
            self->bytes += head->b;
        }
        break;
    case GR_FRAME_ANSWER:
        if (head->id == self->question) {
            self->question = 0;
            self->answer = *frame;
            *frame = NULL;
        }
        break;
    case GR_FRAME_QUIT:
        self->quitting = true;
        break;
    }
    pthread_mutex_unlock(&self->mutex);
    pthread_cond_signal(&self->changed);
    gr_frame_destroy(frame);
}

void gr_port_close(gr_port *self)
{
    pthread_mutex_lock(&self->mutex);
    interrupt(self, GR_ECLOSED, self->closed); /* the second time it is meant */
    self->closed = true;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
}

/* --- the thread of the port --------------------------------------------------------------- */

void gr_port_enter(gr_port *self, gr_port_interrupt_fn *fn, void *arg)
{
    sigset_t set;
    self->interrupt = fn;
    self->interrupt_arg = arg;
    here = self;
    sigemptyset(&set);
    sigaddset(&set, INTERRUPT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_mutex_lock(&self->mutex);
    self->thread = pthread_self();
    self->entered = true;
    pthread_mutex_unlock(&self->mutex);
}

void gr_port_leave(gr_port *self)
{
    sigset_t set;
    pthread_mutex_lock(&self->mutex);
    self->entered = false;
    pthread_mutex_unlock(&self->mutex);
    sigemptyset(&set);
    sigaddset(&set, INTERRUPT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    here = NULL;
}

/* [mutex] The job's own reason to stop, or that nobody is there. Whoever asks gets the error. */
static int why_stop(gr_port *self)
{
    int why = self->closed ? GR_ECLOSED : atomic_load(&self->stop);
    if (why != 0)
        atomic_store(&self->interrupted, false);
    return why;
}

int gr_port_next(gr_port *self, gr_frame **out)
{
    gr_frame *frame = NULL;
    pthread_mutex_lock(&self->mutex);
    while (!self->closed && self->jobs.first == NULL && !self->quitting)
        pthread_cond_wait(&self->changed, &self->mutex);
    if (!self->closed)
        frame = gr_frame_line_pop(&self->jobs);
    if (frame != NULL) {
        self->job = frame->head.id;
        self->items = self->window_items;
        self->bytes = self->window_bytes;
        atomic_store(&self->stop, 0);
        atomic_store(&self->urgent, false);
        atomic_store(&self->interrupted, false);
    }
    pthread_mutex_unlock(&self->mutex);
    *out = frame;
    return frame != NULL ? 0 : GR_ECLOSED;
}

int gr_port_put(gr_port *self, gr_frame **frame)
{
    return self->put(self->put_arg, frame);
}

int gr_port_put_item(gr_port *self, gr_frame **frame)
{
    pthread_mutex_lock(&self->mutex);
    while (why_stop(self) == 0 && (self->items <= 0 || self->bytes <= 0))
        pthread_cond_wait(&self->changed, &self->mutex);
    int rc = why_stop(self);
    self->items--;
    self->bytes -= (*frame)->head.len;
    pthread_mutex_unlock(&self->mutex);
    return rc < 0 ? rc : gr_port_put(self, frame);
}

int gr_port_ask(gr_port *self, gr_frame **question, gr_frame **answer)
{
    pthread_mutex_lock(&self->mutex);
    self->question = (*question)->head.id;
    pthread_mutex_unlock(&self->mutex);
    int rc = gr_port_put(self, question);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&self->mutex);
    while (self->answer == NULL && (rc = why_stop(self)) == 0)
        pthread_cond_wait(&self->changed, &self->mutex);
    if (self->answer != NULL)
        rc = 0;
    *answer = self->answer;
    self->answer = NULL;
    self->question = 0;
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

int gr_port_sleep(gr_port *self, int64_t wait_ms)
{
    int64_t until_ns = gr_clock_ns() + wait_ms * 1000000;
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    int rc, late = 0;
    pthread_mutex_lock(&self->mutex);
    while ((rc = why_stop(self)) == 0 && !late)
        late = pthread_cond_timedwait(&self->changed, &self->mutex, &until);
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

void gr_port_end_job(gr_port *self)
{
    pthread_mutex_lock(&self->mutex);
    self->job = 0;
    atomic_store(&self->stop, self->closed ? GR_ECLOSED : 0);
    atomic_store(&self->urgent, false);
    pthread_mutex_unlock(&self->mutex);
}

int gr_port_stop(const gr_port *self)
{
    return atomic_load(&self->stop);
}

bool gr_port_take_interrupt(gr_port *self)
{
    return atomic_exchange(&self->interrupted, false);
}

bool gr_port_stop_is_urgent(const gr_port *self)
{
    return atomic_load(&self->urgent);
}
