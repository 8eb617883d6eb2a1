/* log.h - log lines through a bounded queue to a writer thread, and from there to a console and
 * files.
 *
 * gr_log() copies into the queue and returns: it never waits for a disk or a reader. When the queue
 * is full the line is dropped and counted, and the log says how many are missing as soon as there
 * is room. Before gr_log_start() and after gr_log_stop() lines go straight to standard error, as
 * text. Any thread may call everything here; a process has one log. Loggers have names and levels,
 * see log_names.h; lines have fields, see log_fields.h, and formats, see log_format.h. */
#ifndef GR_LOG_H
#define GR_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/log_fields.h"
#include "base/log_names.h"

/* Lines have a level from 1 to 99; a logger or an output with GR_LOG_OFF takes none. */
enum gr_log_level {
    GR_LOG_DEBUG = 10,
    GR_LOG_INFO = 20,
    GR_LOG_WARNING = 30,
    GR_LOG_ERROR = 40,
    GR_LOG_OFF = 100
};

/* Logs one line. name is the logger's ("gaterpc.broker"). Arguments are only looked at when some
 * logger wants the level: one comparison otherwise. */
#define gr_log(level, name, ...)                                                                   \
    do {                                                                                           \
        if ((int)(level) >= atomic_load_explicit(&gr_log_floor, memory_order_relaxed))             \
            gr_log_with((level), (name), NULL, __VA_ARGS__);                                       \
    } while (0)

/* The same with fields, or NULL. */
void gr_log_with(int level, const char *name, const gr_log_fields *fields, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The line as it is, whatever its logger wants: for a caller that has asked its logger already. */
void gr_log_bytes(int level, const char *name, size_t name_len, const char *text, size_t text_len,
                  const gr_log_fields *fields);

/* Takes a line in place of standard error while the log does not run; false: it goes there all the
 * same. Any thread may call it. */
typedef bool gr_log_outlet_fn(int level, gr_slice name, gr_slice text, gr_slice fields);

/* Sets it; before there are other threads. NULL: standard error. */
void gr_log_set_outlet(gr_log_outlet_fn *outlet);

/* --- life -------------------------------------------------------------------------------- */

/* Starts the writer thread with one output: text on a console, the file descriptor fd, which stays
 * the caller's. Returns 0, GR_EINVAL when it runs already, GR_ENOMEM or GR_ESYSTEM. */
int gr_log_start(int fd);

/* Writes out what is queued, for at most five seconds, or half a second in which no output takes
 * anything, and ends the thread. Nothing happens when it does not run. */
void gr_log_stop(void);

/* Waits until what was logged before the call has been written, at most timeout_ms. Returns true
 * when it has been. */
bool gr_log_flush(int timeout_ms);

/* --- outputs ----------------------------------------------------------------------------- */

typedef struct gr_log_output {
    const char *path; /* of a file; NULL for the console */
    int level;        /* what is below it is not written here; 0: everything */
    bool json;        /* else text */
    enum { GR_LOG_COLOUR_AUTO, GR_LOG_COLOUR_ON, GR_LOG_COLOUR_OFF } colour; /* of the console */
    bool midnight;         /* a new file with the first line of a day, local time */
    uint64_t rotate_bytes; /* a new file before this one gets longer; 0: never */
    unsigned keep;         /* old files: path.1, the youngest, to path.keep; 0 for 7 */
} gr_log_output;

enum { GR_LOG_FILES = 16, GR_LOG_KEEP_MAX = 1000 };

typedef struct gr_log_setup {
    bool set_console;             /* false: it stays as it is */
    const gr_log_output *console; /* NULL: no console */
    bool set_files;
    const gr_log_output *files;
    size_t file_count;  /* at most GR_LOG_FILES */
    size_t queue_lines; /* that may wait; 0: as it is. At first 8192 */
    size_t queue_bytes; /* of them, at most 8 MiB; 0: as it is. At first 2 MiB */
} gr_log_setup;

/* Changes where lines go. What was logged before still goes to the old outputs. Returns 0;
 * GR_EINVAL, GR_ESYSTEM when a file cannot be opened, GR_ENOMEM, GR_ECLOSED when the log does not
 * run, GR_EEXHAUSTED when it cannot follow: then nothing has changed and `why` says why. */
int gr_log_configure(const gr_log_setup *setup, char *why, size_t why_size);

/* The console writes to another descriptor from now on. */
void gr_log_set_console_fd(int fd);

/* Opens all files anew, by their names, before the next line is written: for whoever moves them
 * away. Signal handlers may call it. */
void gr_log_reopen(void);

/* --- counters ---------------------------------------------------------------------------- */

typedef struct gr_log_output_stats {
    char path[256]; /* "" is the console; a longer one is cut */
    uint64_t lines; /* that it got */
    uint64_t lost;  /* that it has not got, because it took nothing for too long */
    int error;      /* errno when writing fails at the moment, else 0 */
} gr_log_output_stats;

typedef struct gr_log_stats {
    uint64_t lines;   /* that were queued since the start */
    uint64_t dropped; /* because the queue was full */
    size_t waiting;   /* lines in the queue */
    size_t waiting_bytes;
    size_t output_count;
    gr_log_output_stats outputs[GR_LOG_FILES + 1];
} gr_log_stats;

void gr_log_get_stats(gr_log_stats *out);

/* --- the end in a hurry ------------------------------------------------------------------ */

/* Writes what is queued, from a signal handler, for a process that ends at once: the writer thread
 * does nothing afterwards. Waits at most half a second for the writer, and a little for readers.
 * signal: is named in a last line; 0: no such line. */
void gr_log_rescue(int signal);

/* SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT have first() called, when it is not NULL, and then
 * gr_log_rescue(), on a stack of its own in the thread that calls this; then they do what they did
 * before, which is to end the process. One that is ignored stays so. */
void gr_log_catch_crashes(void (*first)(void));

/* Times of lines come from here instead of the clock; NULL: the clock again. For specs. */
void gr_log_set_clock(void (*now)(int64_t *sec, int32_t *nsec));

#endif
