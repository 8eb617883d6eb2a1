/* log_priv.h - what the two halves of the log share: log.c, which everybody calls, and
 * log_writer.c, the thread behind it. Nobody else includes this. */
#ifndef GR_LOG_PRIV_H
#define GR_LOG_PRIV_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/log.h"
#include "base/log_ring.h"
#include "base/log_sink.h"

/* Outputs, in the order of gr_log_stats. */
struct gr_log_outputs {
    gr_log_sink *console; /* or NULL */
    gr_log_sink *files[GR_LOG_FILES];
    size_t file_count;
};

/* Outputs that take the place of others, which get the lines before a position of the ring. */
struct gr_log_change {
    bool console, files; /* which of them */
    uint64_t at;
    struct gr_log_outputs to;
    struct gr_log_change *next;
};

/* The one global of the core: a process has one log. */
struct gr_log_shared {
    pthread_mutex_t mutex; /* for everything but what is said to be the writer's */
    pthread_cond_t moved;  /* `written` has grown */
    enum { GR_LOG_IS_OFF, GR_LOG_IS_RUNNING, GR_LOG_IS_STOPPING } state;
    bool wants_wake; /* the writer sleeps, and a new line is a reason to wake */
    bool lingers;    /* it gathers lines for a moment; many are a reason to wake */
    gr_log_ring ring;
    uint64_t written; /* in the ring: everything before it is out of our hands */
    uint64_t lines, dropped;
    uint64_t missing;              /* dropped, and not said yet */
    struct gr_log_change *changes; /* for the writer to apply, in this order */
    int new_console_fd;            /* likewise; -1: none */
    struct gr_log_outputs outputs; /* the writer's; it changes them under the mutex */
};

extern struct gr_log_shared gr_log_shared;

/* Queues a line, with the time of now. Under the mutex. False when it had to be dropped; force: it
 * is one of the log's own, for which there is room. */
bool gr_log_queue(int level, gr_slice name, gr_slice text, gr_slice fields, bool force);

/* Wakes the writer. Signal handlers may call it. */
void gr_log_wake(void);

/* Starts the thread, which gets the outputs. Under the mutex. Returns 0, GR_ESYSTEM or
 * GR_EEXHAUSTED. */
int gr_log_writer_start(pthread_t *out);

/* After the thread has ended: the outputs are nobody's any more. */
void gr_log_writer_ended(void);

void gr_log_destroy_outputs(struct gr_log_outputs *outputs);

#endif
