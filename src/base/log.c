#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log_priv.h"

enum {
    QUEUE_LINES = 8192,
    QUEUE_BYTES = 2 << 20,
    QUEUE_LINES_MIN = 16,
    QUEUE_BYTES_MIN = 64 << 10,
    CHANGES = 64, /* that may wait for the writer */
};

#define the gr_log_shared

struct gr_log_shared gr_log_shared = {
    .mutex = PTHREAD_MUTEX_INITIALIZER,
    .moved = PTHREAD_COND_INITIALIZER,
    .new_console_fd = -1,
};

/* What only this half knows. Under the mutex, too. */
static struct {
    pthread_t thread;
    bool started;
    int console_fd;
    int console_level, files_level; /* the lowest of the outputs */
    void (*now)(int64_t *sec, int32_t *nsec);
    gr_log_outlet_fn *outlet;
} own = {.console_fd = STDERR_FILENO};

/* --- a line ------------------------------------------------------------------------------ */

static void get_time(int64_t *sec, int32_t *nsec)
{
    struct timespec now;
    if (own.now != NULL) {
        own.now(sec, nsec);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    *sec = now.tv_sec;
    *nsec = (int32_t)now.tv_nsec;
}

bool gr_log_queue(int level, gr_slice name, gr_slice text, gr_slice fields, bool force)
{
    gr_log_line line = {.level = level, .name = name, .text = text, .fields = fields};
    get_time(&line.sec, &line.nsec); /* here, so that lines are in the order of their times */
    if (gr_log_ring_push(&the.ring, &line, force)) {
        the.lines++;
        return true;
    }
    the.dropped++;
    the.missing++;
    return false;
}

/* Without a writer: to standard error. */
static void write_here(int level, gr_slice name, gr_slice text, gr_slice fields)
{
    gr_log_zone zone = {0};
    gr_log_line line = {.level = level, .name = name, .text = text, .fields = fields};
    char *out = malloc(GR_LOG_LINE);
    if (out == NULL)
        return;
    get_time(&line.sec, &line.nsec);
    size_t len = gr_log_format_text(&line, false, &zone, out);
    for (size_t done = 0; done < len;) {
        ssize_t n = write(STDERR_FILENO, out + done, len - done);
        if (n <= 0 && errno != EINTR)
            break;
        done += n > 0 ? (size_t)n : 0;
    }
    free(out);
}

static void put(int level, gr_slice name, gr_slice text, gr_slice fields)
{
    pthread_mutex_lock(&the.mutex);
    bool is_on = the.state != GR_LOG_IS_OFF;
    if (is_on)
        gr_log_queue(level, name, text, fields, false);
    bool wake = the.wants_wake ||
                (the.lingers && !gr_log_ring_is_below(&the.ring, the.ring.head, the.ring.lines, 4));
    if (wake)
        the.wants_wake = the.lingers = false;
    pthread_mutex_unlock(&the.mutex);
    if (wake)
        gr_log_wake();
    if (!is_on && (own.outlet == NULL || !own.outlet(level, name, text, fields)))
        write_here(level, name, text, fields);
}

/* Copies the start of a long text, up to the end of a character. */
static gr_slice cut_text(const char *text, char *out)
{
    size_t len = GR_LOG_TEXT - 3;
    while (len > GR_LOG_TEXT - 7 && ((uint8_t)text[len] & 0xc0) == 0x80)
        len--;
    memcpy(out, text, len);
    memcpy(out + len, "...", 3);
    return gr_slice_of(out, len + 3);
}

void gr_log_bytes(int level, const char *name, size_t name_len, const char *text, size_t text_len,
                  const gr_log_fields *fields)
{
    int saved = errno;
    gr_slice kept = gr_slice_of(text, text_len);
    char cut[GR_LOG_TEXT];
    if (text_len > GR_LOG_TEXT)
        kept = cut_text(text, cut);
    put(level < 1    ? 1
        : level > 99 ? 99
                     : level,
        gr_slice_of(name, name_len < GR_LOG_NAME ? name_len : GR_LOG_NAME), kept,
        fields != NULL ? gr_slice_of(fields->bytes, fields->len) : gr_slice_of(NULL, 0));
    errno = saved;
}

void gr_log_with(int level, const char *name, const gr_log_fields *fields, const char *format, ...)
{
    size_t name_len = strlen(name);
    if (!gr_logger_wants(gr_logger_of(name, name_len), level))
        return;
    int saved = errno;          /* "%m" */
    char text[GR_LOG_TEXT + 2]; /* one byte too many is seen, and cut */
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t kept = len < 0 ? 0 : (size_t)len < sizeof(text) ? (size_t)len : sizeof(text) - 1;
    gr_log_bytes(level, name, name_len, text, kept, fields);
    errno = saved;
}

void gr_log_set_outlet(gr_log_outlet_fn *outlet)
{
    own.outlet = outlet;
}

/* --- life -------------------------------------------------------------------------------- */

/* Under the mutex. */
static void update_gate(void)
{
    int lowest = own.console_level < own.files_level ? own.console_level : own.files_level;
    gr_log_names_set_gate(lowest);
}

/* Under the mutex. */
static int start(int fd)
{
    if (own.started)
        return GR_EINVAL;
    int rc = gr_log_ring_init(&the.ring, QUEUE_LINES, QUEUE_BYTES);
    if (rc < 0)
        return rc;
    if (gr_log_sink_new(&the.outputs.console, &(gr_log_output){0}, fd) < 0)
        rc = GR_ENOMEM;
    the.written = the.lines = the.dropped = the.missing = 0;
    the.new_console_fd = -1;
    own.console_fd = fd;
    own.console_level = 0;
    own.files_level = GR_LOG_OFF;
    update_gate();
    the.state = GR_LOG_IS_RUNNING;
    if (rc == 0)
        rc = gr_log_writer_start(&own.thread);
    own.started = rc == 0;
    if (rc < 0) {
        the.state = GR_LOG_IS_OFF;
        gr_log_destroy_outputs(&the.outputs);
        gr_log_ring_free(&the.ring);
    }
    return rc;
}

int gr_log_start(int fd)
{
    pthread_mutex_lock(&the.mutex);
    int rc = start(fd);
    pthread_mutex_unlock(&the.mutex);
    return rc;
}

static void free_changes(struct gr_log_change **list)
{
    while (*list != NULL) {
        struct gr_log_change *change = *list;
        *list = change->next;
        gr_log_destroy_outputs(&change->to);
        free(change);
    }
}

void gr_log_stop(void)
{
    pthread_mutex_lock(&the.mutex);
    bool is_mine = the.state == GR_LOG_IS_RUNNING;
    if (is_mine)
        the.state = GR_LOG_IS_STOPPING;
    pthread_mutex_unlock(&the.mutex);
    if (!is_mine)
        return;

    gr_log_wake();
    pthread_join(own.thread, NULL);
    gr_log_writer_ended();
    pthread_mutex_lock(&the.mutex);
    gr_log_destroy_outputs(&the.outputs);
    free_changes(&the.changes);
    gr_log_ring_free(&the.ring);
    own.console_level = 0; /* standard error takes everything */
    update_gate();
    own.started = false; /* only now may it start again */
    pthread_mutex_unlock(&the.mutex);
}

bool gr_log_flush(int timeout_ms)
{
    int64_t until_ns = gr_clock_ns() + (int64_t)timeout_ms * 1000000;
    struct timespec until = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000};
    pthread_mutex_lock(&the.mutex);
    uint64_t target = the.state != GR_LOG_IS_OFF ? gr_log_ring_tail(&the.ring) : 0;
    int failed = 0;
    if (target > 0)
        gr_log_wake(); /* it may gather lines */
    while (the.state != GR_LOG_IS_OFF && the.written < target && !failed)
        failed = pthread_cond_clockwait(&the.moved, &the.mutex, CLOCK_MONOTONIC, &until);
    bool done = the.state == GR_LOG_IS_OFF || the.written >= target;
    pthread_mutex_unlock(&the.mutex);
    return done;
}

/* --- outputs ----------------------------------------------------------------------------- */

static int check(const gr_log_setup *setup, char *why, size_t size)
{
    if (setup->file_count > GR_LOG_FILES) {
        snprintf(why, size, "at most %d files, got %zu", GR_LOG_FILES, setup->file_count);
        return GR_EINVAL;
    }
    if (setup->queue_lines != 0 && setup->queue_lines < QUEUE_LINES_MIN) {
        snprintf(why, size, "the queue must have room for %d lines", QUEUE_LINES_MIN);
        return GR_EINVAL;
    }
    if (setup->queue_bytes != 0 &&
        (setup->queue_bytes < QUEUE_BYTES_MIN || setup->queue_bytes > GR_LOG_RING_MAX)) {
        snprintf(why, size, "the queue must have from %d to %d bytes", QUEUE_BYTES_MIN,
                 GR_LOG_RING_MAX);
        return GR_EINVAL;
    }
    return 0;
}

static int open_sink(gr_log_sink **out, const gr_log_output *output, char *why, size_t size)
{
    char text[128];
    pthread_mutex_lock(&the.mutex);
    int console_fd = own.console_fd;
    pthread_mutex_unlock(&the.mutex);
    int error = -gr_log_sink_new(out, output, console_fd);
    if (error == 0)
        return 0;
    snprintf(why, size, "%s cannot be opened: %s",
             output->path != NULL ? output->path : "the console",
             error == ENXIO ? "nobody reads this pipe" : strerror_r(error, text, sizeof(text)));
    return error == ENOMEM ? GR_ENOMEM : GR_ESYSTEM;
}

static int open_outputs(struct gr_log_change *change, const gr_log_setup *setup, char *why,
                        size_t size)
{
    int rc = 0;
    change->console = setup->set_console;
    change->files = setup->set_files;
    if (setup->set_console && setup->console != NULL)
        rc = open_sink(&change->to.console, setup->console, why, size);
    for (size_t i = 0; rc == 0 && setup->set_files && i < setup->file_count; i++) {
        rc = open_sink(&change->to.files[i], &setup->files[i], why, size);
        if (rc == 0)
            change->to.file_count++;
    }
    return rc;
}

static int lowest_level(const gr_log_output *outputs, size_t count)
{
    int lowest = GR_LOG_OFF;
    for (size_t i = 0; i < count; i++)
        if (outputs[i].level < lowest)
            lowest = outputs[i].level;
    return lowest;
}

/* Appends it to those that the writer has not taken yet. Under the mutex. */
static int hand_over(struct gr_log_change *change, const gr_log_setup *setup)
{
    struct gr_log_change **end = &the.changes;
    for (int i = 0; *end != NULL; end = &(*end)->next)
        if (++i == CHANGES)
            return GR_EEXHAUSTED;
    change->at = gr_log_ring_tail(&the.ring);
    if (change->to.console != NULL) {
        change->to.console->at = change->to.console->from = change->at;
        if (change->to.console->fd != own.console_fd)
            gr_log_sink_set_fd(change->to.console, own.console_fd); /* it was changed meanwhile */
    }
    for (size_t i = 0; i < change->to.file_count; i++)
        change->to.files[i]->at = change->to.files[i]->from = change->at;
    *end = change; /* now that it is complete */
    if (setup->set_console)
        own.console_level = lowest_level(setup->console, setup->console != NULL);
    if (setup->set_files)
        own.files_level = lowest_level(setup->files, setup->file_count);
    update_gate();
    if (setup->queue_lines > 0)
        atomic_store(&the.ring.max_lines, setup->queue_lines);
    if (setup->queue_bytes > 0)
        atomic_store(&the.ring.max_bytes, setup->queue_bytes);
    return 0;
}

int gr_log_configure(const gr_log_setup *setup, char *why, size_t why_size)
{
    int rc = check(setup, why, why_size);
    if (rc < 0)
        return rc;
    struct gr_log_change *change = calloc(1, sizeof(*change));
    if (change == NULL) {
        snprintf(why, why_size, "%s", gr_err_text(GR_ENOMEM));
        return GR_ENOMEM;
    }
    rc = open_outputs(change, setup, why, why_size);
    pthread_mutex_lock(&the.mutex);
    if (rc == 0 && the.state != GR_LOG_IS_RUNNING) {
        snprintf(why, why_size, "the log does not run");
        rc = GR_ECLOSED;
    }
    if (rc == 0 && (rc = hand_over(change, setup)) < 0)
        snprintf(why, why_size, "the log is busy with %d changes", CHANGES);
    pthread_mutex_unlock(&the.mutex);
    if (rc == 0)
        gr_log_wake();
    else
        free_changes(&change);
    return rc;
}

void gr_log_set_console_fd(int fd)
{
    pthread_mutex_lock(&the.mutex);
    own.console_fd = fd;
    the.new_console_fd = fd;
    pthread_mutex_unlock(&the.mutex);
    gr_log_wake();
}

/* --- counters ---------------------------------------------------------------------------- */

static void add_output(gr_log_stats *stats, const gr_log_sink *sink)
{
    gr_log_output_stats *out = &stats->outputs[stats->output_count++];
    snprintf(out->path, sizeof(out->path), "%s", sink->path != NULL ? sink->path : "");
    out->lines = atomic_load_explicit(&sink->lines, memory_order_relaxed);
    out->lost = atomic_load_explicit(&sink->lost_total, memory_order_relaxed);
    out->error = atomic_load_explicit(&sink->trouble, memory_order_relaxed);
}

void gr_log_get_stats(gr_log_stats *out)
{
    pthread_mutex_lock(&the.mutex);
    *out = (gr_log_stats){.lines = the.lines, .dropped = the.dropped};
    if (the.state != GR_LOG_IS_OFF) {
        out->waiting = the.ring.lines;
        out->waiting_bytes = (size_t)(gr_log_ring_tail(&the.ring) - the.ring.head);
    }
    const struct gr_log_outputs *console = &the.outputs, *files = &the.outputs;
    for (const struct gr_log_change *change = the.changes; change != NULL; change = change->next) {
        console = change->console ? &change->to : console;
        files = change->files ? &change->to : files;
    }
    if (console->console != NULL)
        add_output(out, console->console);
    for (size_t i = 0; i < files->file_count; i++)
        add_output(out, files->files[i]);
    pthread_mutex_unlock(&the.mutex);
}

void gr_log_set_clock(void (*now)(int64_t *sec, int32_t *nsec))
{
    pthread_mutex_lock(&the.mutex);
    own.now = now;
    pthread_mutex_unlock(&the.mutex);
}
