/* log_sink.h - where lines of the log go: the console or a file, its rotation and its troubles.
 *
 * A sink formats lines into a buffer and writes that without ever waiting for a reader: when a
 * descriptor takes nothing the sink is BLOCKED, when a write fails it is FAILING and tries again
 * after a second. A disk that hangs is the one thing that holds its writer up. A sink belongs to
 * the log's writer, or to the signal handler that has taken over from it; the counters may be read
 * by anybody. */
#ifndef GR_LOG_SINK_H
#define GR_LOG_SINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/log_format.h"
#include "base/log_ring.h"

typedef struct gr_log_sink {
    char *path; /* NULL: the console */
    int fd;
    bool regular;
    bool json, colour, midnight;
    int level;
    uint64_t rotate_bytes; /* 0: never by size */
    unsigned keep;

    uint64_t at;   /* in the ring: the next line for it */
    uint64_t from; /* in the ring: where what is pending began */
    char *out;     /* formatted and, from `done` on, not written yet */
    size_t len, done;
    uint64_t lost; /* lines that it has not got, and that it has not been told of */

    uint64_t size;        /* bytes in the file */
    int64_t rotate_at;    /* seconds; 0 as long as there is no line */
    int64_t no_rotate_ms; /* a rotation has failed; not again before */

    enum { GR_SINK_GOOD, GR_SINK_BLOCKED, GR_SINK_FAILING } state;
    int64_t retry_ms;
    enum {
        GR_SINK_QUIET,
        GR_SINK_FAILED,
        GR_SINK_RECOVERED,
        GR_SINK_NOT_ROTATED,
        GR_SINK_NOT_REOPENED
    } event;          /* what happened last, for the log to tell and to reset */
    int error;        /* its errno */
    bool told;        /* that it has failed */
    int64_t quiet_ms; /* no trouble is told before */

    _Atomic uint64_t lines;      /* that it got */
    _Atomic uint64_t lost_total; /* that it has not got */
    atomic_int trouble;          /* the errno of a failing sink, else 0 */
    char *names;                 /* room for two names of old files */
} gr_log_sink;

/* Opens it; the console writes to console_fd. Returns 0 or a negative errno. */
int gr_log_sink_new(gr_log_sink **out, const gr_log_output *output, int console_fd);

/* Closes files; the console's descriptor stays open. What is pending is lost. */
void gr_log_sink_destroy(gr_log_sink **self);

/* Takes a line into the buffer. False when the buffer has to be written first. */
bool gr_log_sink_put(gr_log_sink *self, const gr_log_line *line, gr_log_zone *zone, int64_t now_ms);

/* Writes the buffer. True when nothing is left of it. */
bool gr_log_sink_write(gr_log_sink *self, int64_t now_ms);

static inline bool gr_log_sink_is_empty(const gr_log_sink *self)
{
    return self->done == self->len;
}

/* Opens the file anew, by its name. The old one stays when that fails. */
void gr_log_sink_reopen(gr_log_sink *self);

/* For the console: writes there from now on. */
void gr_log_sink_set_fd(gr_log_sink *self, int fd);

/* count lines were passed over. */
void gr_log_sink_lose(gr_log_sink *self, uint64_t count);

/* For signal handlers: writes what is pending, what is in the ring up to `tail`, and the last line,
 * waiting a little for a reader, without rotation. */
void gr_log_sink_rescue(gr_log_sink *self, const gr_log_ring *ring, uint64_t tail,
                        const gr_log_line *last, gr_log_zone *zone);

#endif
