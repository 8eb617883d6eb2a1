#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/err.h"
#include "base/mp.h"

enum {
    DEFAULT_QUEUE = 4096,
    STAMP = 24, /* "2026-11-24 03:21:54.123 " */
    TEXT = GR_LOG_LINE - STAMP - 1,
    NAME = 256,            /* level and name of the logger; more is cut */
    BATCH = 16,            /* lines that go out with one write */
    STUCK_TIMEOUT_MS = 500 /* how long gr_log_stop() waits for a descriptor that takes nothing */
};

struct line {
    struct timespec when;
    uint64_t missing; /* lines that were dropped just before this one */
    size_t len;
    char text[TEXT]; /* "WARNING gaterpc.broker text", escaped, no newline */
};

/* The one global of the core: a process has one log. The slots from head on, count of them, belong
 * to the writer; all others to whoever holds the mutex. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t filled;
    pthread_cond_t emptied;
    pthread_t thread;
    enum { OFF, RUNNING, STOPPING } state;
    int fd;
    struct line *slots;
    char *out; /* the writer's: a batch, each line perhaps with a notice in front */
    size_t len;
    size_t head;
    size_t count;
    uint64_t queued;  /* lines, since the start */
    uint64_t written; /* those of them that are out */
    uint64_t missing; /* dropped, and no line queued since */
} ring = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .filled = PTHREAD_COND_INITIALIZER,
    .emptied = PTHREAD_COND_INITIALIZER,
};

static atomic_int threshold = GR_LOG_INFO;
static _Atomic uint64_t dropped;

static const char *level_name(int level)
{
    if (level >= GR_LOG_ERROR)
        return "ERROR";
    if (level >= GR_LOG_WARNING)
        return "WARNING";
    return level >= GR_LOG_INFO ? "INFO" : "DEBUG";
}

/* How many bytes at `at` can go out as they are: one printable character, else 0. */
static size_t printable(const char *at, size_t left)
{
    uint8_t lead = (uint8_t)at[0];
    if (lead < 0x80)
        return lead >= 0x20 && lead != 0x7f;
    size_t len = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (left < len || !gr_mp_is_utf8((const uint8_t *)at, len))
        return 0;
    bool is_c1 = lead == 0xc2 && (uint8_t)at[1] < 0xa0; /* terminals obey these, too */
    return is_c1 ? 0 : len;
}

/* Appends text escaped; what does not fit is cut and ends in "...". */
static void add_escaped(struct line *line, const char *text, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const char *end = text + len;
    while (text < end) {
        char escape[4] = {'\\', 'x', digits[(uint8_t)*text >> 4], digits[(uint8_t)*text & 15]};
        const char *piece = text;
        size_t step = printable(text, (size_t)(end - text));
        size_t piece_len = step;
        if (step == 0) {
            step = 1;
            piece = *text == '\n' ? "\\n" : *text == '\t' ? "\\t" : escape;
            piece_len = piece == escape ? 4 : 2;
        }
        if (line->len + piece_len > TEXT - 3) {
            memcpy(line->text + line->len, "...", 3);
            line->len += 3;
            return;
        }
        memcpy(line->text + line->len, piece, piece_len);
        line->len += piece_len;
        text += step;
    }
}

static void fill(struct line *line, int level, const char *name, const char *format, va_list args)
{
    char raw[GR_LOG_LINE]; /* longer than TEXT, so a line that is cut here is cut again below */
    clock_gettime(CLOCK_REALTIME, &line->when);
    line->missing = 0;
    line->len = 0;
    int len = snprintf(raw, NAME, "%s %s ", level_name(level), name);
    size_t used = len < 0 ? 0 : len < NAME ? (size_t)len : NAME - 1;
    size_t room = sizeof(raw) - used - 1;

    len = vsnprintf(raw + used, room + 1, format, args);
    size_t text_len = len < 0 ? 0 : (size_t)len;
    add_escaped(line, raw, used + (text_len < room ? text_len : room));
}

/* Writes "time text\n" to out, which has GR_LOG_LINE bytes. Returns how many it took. */
static size_t render(const struct line *line, char *out)
{
    struct tm parts;
    localtime_r(&line->when.tv_sec, &parts);
    char stamp[64];
    size_t len = strftime(stamp, sizeof(stamp), "%Y-%m-%d %H:%M:%S", &parts);
    snprintf(stamp + len, sizeof(stamp) - len, ".%03d ", (int)(line->when.tv_nsec / 1000000));
    memcpy(out, stamp, STAMP);
    memcpy(out + STAMP, line->text, line->len);
    out[STAMP + line->len] = '\n';
    return STAMP + line->len + 1;
}

static size_t render_missing(uint64_t missing, struct timespec when, char *out)
{
    struct line notice = {.when = when};
    notice.len = (size_t)snprintf(notice.text, TEXT,
                                  "%s gaterpc.log %llu lines were dropped: the queue was full",
                                  level_name(GR_LOG_WARNING), (unsigned long long)missing);
    return render(&notice, out);
}

static bool is_stopping(void)
{
    pthread_mutex_lock(&ring.mutex);
    bool answer = ring.state == STOPPING;
    pthread_mutex_unlock(&ring.mutex);
    return answer;
}

/* Returns false when the bytes cannot be written; some of them may have been. */
static bool write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n >= 0) {
            data += n;
            len -= (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) { /* libuv makes terminals so */
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            if (poll(&ready, 1, STUCK_TIMEOUT_MS) == 0 && is_stopping())
                return false;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static bool write_out(size_t len)
{
    if (ring.fd < 0)
        return false;
    bool ok = write_all(ring.fd, ring.out, len);
    if (!ok && is_stopping())
        ring.fd = -1; /* do not wait again for every batch */
    return ok;
}

/* Writes n slots from `first` on; nobody else touches them meanwhile. */
static void write_batch(size_t first, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        const struct line *line = &ring.slots[(first + i) % ring.len];
        if (line->missing > 0)
            len += render_missing(line->missing, line->when, ring.out + len);
        len += render(line, ring.out + len);
    }
    if (!write_out(len))
        atomic_fetch_add(&dropped, n);
}

/* Lines were dropped, and none has come since to say so. */
static void write_notice(uint64_t missing)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    write_out(render_missing(missing, now, ring.out));
}

static void *writer(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&ring.mutex);
    for (;;) {
        size_t n = ring.count < BATCH ? ring.count : BATCH;
        size_t head = ring.head;
        uint64_t missing = n == 0 ? ring.missing : 0;
        if (n == 0 && missing == 0) {
            if (ring.state == STOPPING)
                break;
            pthread_cond_wait(&ring.filled, &ring.mutex);
            continue;
        }
        ring.missing -= missing;
        pthread_mutex_unlock(&ring.mutex);

        if (n > 0)
            write_batch(head, n);
        else
            write_notice(missing);

        pthread_mutex_lock(&ring.mutex);
        ring.head = (head + n) % ring.len;
        ring.count -= n;
        ring.written += n;
        pthread_cond_broadcast(&ring.emptied);
    }
    ring.state = OFF;
    pthread_mutex_unlock(&ring.mutex);
    return NULL;
}

/* Signals are for the threads that expect them: the writer is born with all of them blocked. */
static int start_thread(void)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&ring.thread, NULL, writer, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed ? GR_ESYSTEM : 0;
}

int gr_log_start(int fd, unsigned queue_len)
{
    size_t len = queue_len > 0 ? queue_len : DEFAULT_QUEUE;
    int rc = GR_EINVAL;
    tzset(); /* now, because it allocates */

    pthread_mutex_lock(&ring.mutex);
    if (ring.state != OFF || ring.slots != NULL)
        goto done;
    rc = GR_ENOMEM;
    ring.slots = calloc(len, sizeof(*ring.slots));
    ring.out = malloc((size_t)BATCH * 2 * GR_LOG_LINE);
    if (ring.slots == NULL || ring.out == NULL)
        goto fail;
    ring.fd = fd;
    ring.len = len;
    ring.head = ring.count = 0;
    ring.queued = ring.written = ring.missing = 0;
    atomic_store(&dropped, 0);
    ring.state = RUNNING;
    rc = start_thread();
    if (rc == 0)
        goto done;
    ring.state = OFF;
fail:
    free(ring.slots);
    free(ring.out);
    ring.slots = NULL;
    ring.out = NULL;
done:
    pthread_mutex_unlock(&ring.mutex);
    return rc;
}

void gr_log_stop(void)
{
    pthread_mutex_lock(&ring.mutex);
    bool is_mine = ring.state == RUNNING;
    if (is_mine) {
        ring.state = STOPPING;
        pthread_cond_signal(&ring.filled);
    }
    pthread_mutex_unlock(&ring.mutex);
    if (!is_mine)
        return;

    pthread_join(ring.thread, NULL);
    pthread_mutex_lock(&ring.mutex);
    free(ring.slots);
    free(ring.out);
    ring.slots = NULL; /* only now may it start again */
    ring.out = NULL;
    pthread_mutex_unlock(&ring.mutex);
}

void gr_log_flush(int timeout_ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }

    pthread_mutex_lock(&ring.mutex);
    uint64_t target = ring.queued;
    int failed = 0;
    while (ring.state != OFF && ring.written < target && !failed)
        failed = pthread_cond_clockwait(&ring.emptied, &ring.mutex, CLOCK_MONOTONIC, &until);
    pthread_mutex_unlock(&ring.mutex);
}

void gr_log_set_level(int level)
{
    atomic_store_explicit(&threshold, level, memory_order_relaxed);
}

int gr_log_level(void)
{
    return atomic_load_explicit(&threshold, memory_order_relaxed);
}

uint64_t gr_log_dropped(void)
{
    return atomic_load(&dropped);
}

/* Puts a copy into the queue. Returns false when nobody would write it. */
static bool push(const struct line *line)
{
    pthread_mutex_lock(&ring.mutex);
    bool is_on = ring.state != OFF;
    if (is_on && ring.count == ring.len) {
        ring.missing++;
        atomic_fetch_add(&dropped, 1);
    } else if (is_on) {
        struct line *slot = &ring.slots[(ring.head + ring.count) % ring.len];
        slot->when = line->when;
        slot->missing = ring.missing;
        slot->len = line->len;
        memcpy(slot->text, line->text, line->len);
        ring.missing = 0;
        ring.queued++;
        if (ring.count++ == 0)
            pthread_cond_signal(&ring.filled);
    }
    pthread_mutex_unlock(&ring.mutex);
    return is_on;
}

void gr_log(int level, const char *name, const char *format, ...)
{
    if (level < gr_log_level())
        return;
    int saved = errno;
    struct line line;
    va_list args;
    va_start(args, format);
    fill(&line, level, name, format, args);
    va_end(args);
    if (!push(&line)) {
        char out[GR_LOG_LINE];
        write_all(STDERR_FILENO, out, render(&line, out));
    }
    errno = saved;
}
