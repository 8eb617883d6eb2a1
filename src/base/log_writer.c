/* log_writer.c - the log's thread: from the queue to the outputs, without waiting for any. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log_priv.h"
#include "base/thread.h"

enum {
    STUCK_MS = 500,    /* how long outputs that take nothing hold up the end of the log */
    STOP_MS = 5000,    /* how long those that take little do */
    LINGER_MS = 1,     /* how long lines are gathered, when they come one after the other */
    LOOK_MS = 100,     /* a blocked descriptor may become another one unseen (dup2) */
    PERIOD_MS = 60000, /* between two lines about the same trouble */
    RESCUE_MS = 500,   /* how long gr_log_rescue() waits for the writer */
    STEP_MS = 10,      /* in steps of */
    SINKS = GR_LOG_FILES + 1
};

static const char own_name[] = "gaterpc.log";

#define the gr_log_shared

/* The writer's own. */
static struct {
    gr_log_zone zone;
    int64_t stuck_ms, stop_ms; /* until when it goes on at the end; 0 before the end */
} own;

/* Who has the outputs. A signal handler takes them from NOBODY, or from a writer that is stuck, and
 * never gives them back. */
enum { GONE, NOBODY, WRITER, RESCUER };
static atomic_int owner = GONE;
static _Thread_local bool is_writer;

static atomic_int wake_fd = -1; /* an eventfd, made once */
static atomic_bool reopen;      /* asked for */

static size_t list_sinks(gr_log_sink **list)
{
    size_t count = 0;
    if (the.outputs.console != NULL)
        list[count++] = the.outputs.console;
    for (size_t i = 0; i < the.outputs.file_count; i++)
        list[count++] = the.outputs.files[i];
    return count;
}

void gr_log_destroy_outputs(struct gr_log_outputs *outputs)
{
    gr_log_sink_destroy(&outputs->console);
    for (size_t i = 0; i < outputs->file_count; i++)
        gr_log_sink_destroy(&outputs->files[i]);
    outputs->file_count = 0;
}

/* --- sleep ------------------------------------------------------------------------------- */

void gr_log_wake(void)
{
    static const uint64_t one = 1;
    int saved = errno;
    if (write(atomic_load(&wake_fd), &one, sizeof(one)) < 0)
        errno = saved; /* it has been woken often enough, or there is none yet */
}

void gr_log_reopen(void)
{
    atomic_store(&reopen, true);
    gr_log_wake();
}

/* What ends a sleep: a call, an output that is ready again, or the time for another try. */
struct nap {
    struct pollfd fds[SINKS + 1];
    nfds_t count;
    int timeout_ms; /* -1: none */
};

static void add_reason(struct nap *nap, const gr_log_sink *sink)
{
    int pause_ms = LOOK_MS;
    if (sink->state == GR_SINK_GOOD)
        return;
    if (sink->state == GR_SINK_BLOCKED) {
        nap->fds[nap->count++] = (struct pollfd){.fd = sink->fd, .events = POLLOUT};
    } else {
        int64_t left_ms = sink->retry_ms - gr_clock_ms();
        pause_ms = left_ms > 0 ? (int)left_ms : 0;
    }
    if (nap->timeout_ms < 0 || pause_ms < nap->timeout_ms)
        nap->timeout_ms = pause_ms;
}

static void prepare_nap(struct nap *nap)
{
    gr_log_sink *sinks[SINKS];
    size_t count = list_sinks(sinks);
    nap->fds[0] = (struct pollfd){.fd = atomic_load(&wake_fd), .events = POLLIN};
    nap->count = 1;
    nap->timeout_ms = the.state == GR_LOG_IS_STOPPING ? LOOK_MS : -1;
    for (size_t i = 0; i < count; i++)
        add_reason(nap, sinks[i]);
}

static void sleep_well(struct nap *nap)
{
    uint64_t calls;
    if (poll(nap->fds, nap->count, nap->timeout_ms) > 0 && nap->fds[0].revents != 0 &&
        read(nap->fds[0].fd, &calls, sizeof(calls)) < 0)
        return; /* not a reason to do anything else */
}

/* --- what the log says about itself ------------------------------------------------------ */

static void say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(int level, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t kept = len < 0 ? 0 : (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1;
    gr_log_queue(level, gr_slice_str(own_name), gr_slice_of(text, kept), gr_slice_of(NULL, 0),
                 true);
}

/* Troubles are told once in a period, however often they come; their end when they were told. */
static void report(gr_log_sink *sink)
{
    static const char *const verbs[] = {
        [GR_SINK_FAILED] = "written",
        [GR_SINK_NOT_ROTATED] = "rotated",
        [GR_SINK_NOT_REOPENED] = "opened anew",
    };
    char text[128];
    const char *what = sink->path != NULL ? sink->path : "the console";
    int event = sink->event;
    bool good = event == GR_SINK_RECOVERED;
    int64_t now_ms = gr_clock_ms();
    sink->event = GR_SINK_QUIET;
    if (event == GR_SINK_QUIET || (good && !sink->told) || (!good && now_ms < sink->quiet_ms))
        return;
    sink->told = event == GR_SINK_FAILED;
    if (!good)
        sink->quiet_ms = now_ms + PERIOD_MS;
    pthread_mutex_lock(&the.mutex);
    if (good)
        say(GR_LOG_WARNING, "%s can be written again", what);
    else
        say(GR_LOG_ERROR, "%s cannot be %s: %s", what, verbs[event],
            strerror_r(sink->error, text, sizeof(text)));
    pthread_mutex_unlock(&the.mutex);
}

/* Under the mutex. */
static void say_missing(void)
{
    if (the.missing == 0 || !gr_log_ring_is_below(&the.ring, the.ring.head, the.ring.lines, 2))
        return;
    unsigned long long missing = the.missing;
    the.missing = 0;
    say(GR_LOG_WARNING, "%llu lines were dropped: the queue was full", missing);
}

/* --- writing ----------------------------------------------------------------------------- */

static void drain(gr_log_sink *sink, uint64_t tail)
{
    int64_t now_ms = gr_clock_ms();
    gr_log_line line;
    do {
        if (gr_log_sink_is_empty(sink))
            sink->from = sink->at;
        uint64_t next = sink->at;
        while (gr_log_ring_read(&the.ring, &next, tail, &line) &&
               gr_log_sink_put(sink, &line, &own.zone, now_ms))
            sink->at = next;
    } while (gr_log_sink_write(sink, now_ms) && sink->at < tail);
}

/* An output that takes nothing must not cost the others their lines: when much of the queue is kept
 * for it alone, it loses the oldest ones. */
static void pass_over(gr_log_sink *sink, uint64_t tail)
{
    gr_log_line line;
    uint64_t lost = 0;
    size_t left = gr_log_ring_count(&the.ring, sink->at, tail);
    if (gr_log_ring_is_below(&the.ring, sink->at, left, 2))
        return;
    while (!gr_log_ring_is_below(&the.ring, sink->at, left, 4) &&
           gr_log_ring_read(&the.ring, &sink->at, tail, &line)) {
        left--;
        lost += line.level >= sink->level;
    }
    gr_log_sink_lose(sink, lost);
}

/* Returns whether new lines are of use to anybody now. */
static bool relieve(gr_log_sink **sinks, size_t count, uint64_t tail)
{
    bool any_good = count == 0;
    for (size_t i = 0; i < count; i++)
        any_good = any_good || sinks[i]->state == GR_SINK_GOOD;
    for (size_t i = 0; any_good && i < count; i++)
        if (sinks[i]->at < tail)
            pass_over(sinks[i], tail);
    return any_good;
}

/* How far all outputs have come: *head with reading, *written with writing, in which those that
 * cannot be written do not count. Returns whether nothing at all is pending. */
static bool get_progress(uint64_t tail, uint64_t *head, uint64_t *written)
{
    gr_log_sink *sinks[SINKS];
    size_t count = list_sinks(sinks);
    bool clear = true;
    *head = *written = tail;
    for (size_t i = 0; i < count; i++) {
        const gr_log_sink *sink = sinks[i];
        uint64_t done = gr_log_sink_is_empty(sink) ? sink->at : sink->from;
        *head = sink->at < *head ? sink->at : *head;
        if (sink->state != GR_SINK_FAILING)
            *written = done < *written ? done : *written;
        clear = clear && done == tail;
    }
    return clear;
}

/* --- changes ----------------------------------------------------------------------------- */

/* The output gets what was meant for it, unless it takes too long, and goes. */
static void retire(gr_log_sink **sink, uint64_t until)
{
    if (*sink == NULL)
        return;
    int64_t deadline_ms = gr_clock_ms() + STUCK_MS;
    for (;;) {
        drain(*sink, until);
        bool done = gr_log_sink_is_empty(*sink) && (*sink)->at >= until;
        if (done || gr_clock_ms() >= deadline_ms)
            break;
        struct pollfd ready = {.fd = (*sink)->fd, .events = POLLOUT};
        if ((*sink)->state != GR_SINK_GOOD)
            poll(&ready, (*sink)->state == GR_SINK_BLOCKED, LOOK_MS);
    }
    gr_log_sink_destroy(sink);
}

/* Applies the next change. False when there is none. */
static bool apply_change(void)
{
    struct gr_log_outputs old = the.outputs;
    pthread_mutex_lock(&the.mutex);
    struct gr_log_change *change = the.changes;
    if (change == NULL) {
        pthread_mutex_unlock(&the.mutex);
        return false;
    }
    the.changes = change->next;
    if (change->console)
        the.outputs.console = change->to.console;
    if (change->files) {
        memcpy(the.outputs.files, change->to.files, sizeof(change->to.files));
        the.outputs.file_count = change->to.file_count;
    }
    pthread_mutex_unlock(&the.mutex);
    if (change->console)
        retire(&old.console, change->at);
    for (size_t i = 0; change->files && i < old.file_count; i++)
        retire(&old.files[i], change->at);
    free(change);
    return true;
}

/* --- the thread -------------------------------------------------------------------------- */

/* What the writer is to do in one round, and what came of it. */
struct round {
    uint64_t tail;
    int console_fd;
    uint64_t head, written;
    size_t released; /* lines before the new head */
    bool any_good;   /* an output that takes lines, or none at all */
    bool clear;      /* nothing is pending anywhere */
    bool moved;
};

/* Under the mutex. */
static void begin(struct round *round)
{
    *round = (struct round){.tail = gr_log_ring_tail(&the.ring), .console_fd = the.new_console_fd};
    the.new_console_fd = -1;
    the.wants_wake = the.lingers = false;
}

static void work(struct round *round)
{
    gr_log_sink *sinks[SINKS];
    while (apply_change())
        continue;
    if (round->console_fd >= 0 && the.outputs.console != NULL)
        gr_log_sink_set_fd(the.outputs.console, round->console_fd);
    bool again = atomic_exchange(&reopen, false);
    size_t count = list_sinks(sinks);
    for (size_t i = 0; i < count; i++) {
        if (again)
            gr_log_sink_reopen(sinks[i]);
        drain(sinks[i], round->tail);
        report(sinks[i]);
    }
    round->any_good = relieve(sinks, count, round->tail);
    round->clear = get_progress(round->tail, &round->head, &round->written);
    round->released = gr_log_ring_count(&the.ring, the.ring.head, round->head);
}

/* When nothing is pending, all may go back to the start of the ring. Under the mutex. */
static void rewind_ring(const struct round *round)
{
    if (!round->clear || round->tail != gr_log_ring_tail(&the.ring) || the.changes != NULL)
        return;
    gr_log_sink *sinks[SINKS];
    size_t count = list_sinks(sinks);
    the.written = gr_log_ring_rewind(&the.ring);
    for (size_t i = 0; i < count; i++)
        sinks[i]->at = sinks[i]->from = the.written;
}

/* Under the mutex. */
static void publish(struct round *round)
{
    round->moved = round->written > the.written || round->released > 0;
    gr_log_ring_release(&the.ring, round->head, round->released);
    if (round->written > the.written)
        the.written = round->written;
    say_missing();
    pthread_cond_broadcast(&the.moved);
}

/* The end begins; what cannot be written gets a last chance. */
static void begin_end(int64_t now_ms)
{
    gr_log_sink *sinks[SINKS];
    size_t count = list_sinks(sinks);
    for (size_t i = 0; i < count; i++)
        sinks[i]->retry_ms = 0;
    own.stop_ms = now_ms + STOP_MS;
    own.stuck_ms = now_ms + STUCK_MS;
}

/* Whether the end has come: everything is written, or has had its time. Under the mutex. */
static bool is_over(const struct round *round)
{
    int64_t now_ms = gr_clock_ms();
    if (the.state != GR_LOG_IS_STOPPING)
        return false;
    if (own.stop_ms == 0) {
        begin_end(now_ms);
        if (!round->clear)
            return false;
    }
    if (round->moved)
        own.stuck_ms = now_ms + STUCK_MS;
    bool done = the.written == gr_log_ring_tail(&the.ring) && the.changes == NULL;
    return done || now_ms >= own.stuck_ms || now_ms >= own.stop_ms;
}

/* When a signal handler has them the process is about to end: this thread does nothing any more.
 * Under the mutex. */
static void take_outputs(void)
{
    int nobody = NOBODY;
    if (atomic_compare_exchange_strong(&owner, &nobody, WRITER))
        return;
    pthread_mutex_unlock(&the.mutex);
    for (;;)
        pause();
}

static void give_outputs_back(void)
{
    int writer = WRITER;
    atomic_compare_exchange_strong(&owner, &writer, NOBODY);
}

static void *run(void *unused)
{
    (void)unused;
    is_writer = true;
    pthread_mutex_lock(&the.mutex);
    for (;;) {
        struct round round;
        struct nap nap;
        take_outputs();
        begin(&round);
        pthread_mutex_unlock(&the.mutex);
        work(&round);
        pthread_mutex_lock(&the.mutex);
        publish(&round);
        bool over = is_over(&round);
        bool news = gr_log_ring_tail(&the.ring) != round.tail || the.new_console_fd >= 0 ||
                    the.changes != NULL;
        rewind_ring(&round);
        prepare_nap(&nap);
        give_outputs_back();
        if (over)
            break;
        the.lingers = round.any_good && (news || round.moved);
        the.wants_wake = round.any_good && !the.lingers;
        if (the.lingers)
            nap.timeout_ms = LINGER_MS;
        pthread_mutex_unlock(&the.mutex);
        sleep_well(&nap);
        pthread_mutex_lock(&the.mutex);
    }
    the.state = GR_LOG_IS_OFF;
    pthread_cond_broadcast(&the.moved);
    pthread_mutex_unlock(&the.mutex);
    return NULL;
}

int gr_log_writer_start(pthread_t *out)
{
    if (atomic_load(&wake_fd) < 0) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0)
            return GR_ESYSTEM;
        atomic_store(&wake_fd, fd);
    }
    own.stop_ms = own.stuck_ms = 0;
    own.zone = (gr_log_zone){0};
    tzset(); /* now, because it allocates */

    atomic_store(&owner, NOBODY);
    int rc = gr_thread_start(out, run, NULL);
    if (rc < 0)
        atomic_store(&owner, GONE);
    return rc;
}

void gr_log_writer_ended(void)
{
    int nobody = NOBODY;
    atomic_compare_exchange_strong(&owner, &nobody, GONE);
}

/* --- the end in a hurry ------------------------------------------------------------------ */

static bool seize_from(int whom)
{
    return atomic_compare_exchange_strong(&owner, &whom, RESCUER);
}

/* Takes the outputs, in the end also from a writer that is stuck, or that is us. */
static bool seize_outputs(void)
{
    static _Thread_local bool tried;
    if (tried)
        return false; /* the rescue itself has crashed */
    tried = true;
    for (int waited_ms = 0; waited_ms < RESCUE_MS; waited_ms += STEP_MS) {
        if (seize_from(NOBODY) || (is_writer && seize_from(WRITER)))
            return true;
        if (atomic_load(&owner) == GONE)
            return false;
        poll(NULL, 0, STEP_MS); /* also for another thread's rescue */
    }
    return seize_from(WRITER);
}

static const char *death_by(int signal)
{
    switch (signal) {
    case SIGSEGV:
        return "killed by SIGSEGV";
    case SIGBUS:
        return "killed by SIGBUS";
    case SIGFPE:
        return "killed by SIGFPE";
    case SIGILL:
        return "killed by SIGILL";
    case SIGABRT:
        return "killed by SIGABRT";
    default:
        return "killed by a signal";
    }
}

/* What the writer has not taken yet: the outputs that go get what was meant for them. */
static void rescue_changes(void)
{
    for (struct gr_log_change *change = the.changes; change != NULL; change = change->next) {
        if (change->console && the.outputs.console != NULL)
            gr_log_sink_rescue(the.outputs.console, &the.ring, change->at, NULL, &own.zone);
        if (change->console)
            the.outputs.console = change->to.console;
        for (size_t i = 0; change->files && i < the.outputs.file_count; i++)
            gr_log_sink_rescue(the.outputs.files[i], &the.ring, change->at, NULL, &own.zone);
        if (change->files) {
            memcpy(the.outputs.files, change->to.files, sizeof(change->to.files));
            the.outputs.file_count = change->to.file_count;
        }
    }
}

static void rescue(const gr_log_line *last)
{
    gr_log_sink *sinks[SINKS];
    uint64_t tail = gr_log_ring_tail(&the.ring);
    own.zone.frozen = true;
    rescue_changes();
    size_t count = list_sinks(sinks);
    for (size_t i = 0; i < count; i++)
        gr_log_sink_rescue(sinks[i], &the.ring, tail, last, &own.zone);
}

void gr_log_rescue(int signal)
{
    int saved = errno;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    gr_log_line last = {
        .sec = now.tv_sec,
        .nsec = (int32_t)now.tv_nsec,
        .level = GR_LOG_ERROR,
        .name = gr_slice_str("gaterpc"),
        .text = gr_slice_str(death_by(signal)),
    };
    if (seize_outputs())
        rescue(signal != 0 ? &last : NULL);
    errno = saved;
}
