/* log_ring.h - the queue of the log: lines as bytes in a ring, bounded by their number and bytes.
 *
 * Positions only grow. Whoever holds the log's mutex pushes at the tail; everything from head to
 * tail stays where it is until the head is moved, and may be read without a lock by whoever moves
 * it. A reader has a position of its own. */
#ifndef GR_LOG_RING_H
#define GR_LOG_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log_format.h"

enum {
    GR_LOG_RING_BYTES = 16 << 20, /* of addresses; memory is taken as it is used */
    GR_LOG_RING_MAX = 8 << 20,    /* the most that max_bytes can be */
};

typedef struct gr_log_ring {
    uint8_t *data;
    _Atomic size_t max_lines, max_bytes; /* may be changed at any time */
    size_t lines;                        /* from head to tail */
    uint64_t head;
    _Atomic uint64_t tail; /* set when the line is complete: a signal handler may read up to it */
} gr_log_ring;

/* Returns 0 or GR_ENOMEM. */
int gr_log_ring_init(gr_log_ring *self, size_t max_lines, size_t max_bytes);
void gr_log_ring_free(gr_log_ring *self);

/* Copies the line. False when it has no room; force: the bounds do not count, for the few lines of
 * the log about itself. */
bool gr_log_ring_push(gr_log_ring *self, const gr_log_line *line, bool force);

/* Reads the line at *at, which moves behind it; false at `tail`. The line points into the ring. */
bool gr_log_ring_read(const gr_log_ring *self, uint64_t *at, uint64_t tail, gr_log_line *line);

/* How many lines there are from one position to another. */
size_t gr_log_ring_count(const gr_log_ring *self, uint64_t from, uint64_t to);

/* Gives up what is before `head`; lines is how many that are. */
void gr_log_ring_release(gr_log_ring *self, uint64_t head, size_t lines);

/* When it is empty: goes to the start of the memory again, which is warm. Returns the position that
 * head and tail have then. */
uint64_t gr_log_ring_rewind(gr_log_ring *self);

static inline uint64_t gr_log_ring_tail(const gr_log_ring *self)
{
    return atomic_load_explicit(&self->tail, memory_order_acquire);
}

/* True when less than a part (2: half) of the room is taken by what is from `from` to the tail. */
bool gr_log_ring_is_below(const gr_log_ring *self, uint64_t from, size_t lines, size_t part);

#endif
