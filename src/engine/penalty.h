/* penalty.h - how long a refusal is held back: by its source, and the longer the more there were.
 *
 * 50 ms for the first refusal, twice as long for each one after it, up to a limit. A source that
 * was refused nothing for a minute begins anew. Remembers 4096 sources, those that were refused
 * last. Reads no clock. Not thread-safe. */
#ifndef GR_PENALTY_H
#define GR_PENALTY_H

#include "base/buf.h"

typedef struct gr_penalty {
    struct gr_penalty_source *sources; /* a uthash table; the first one was refused longest ago */
    uint32_t most_ms;
} gr_penalty;

/* Notes a refusal and gives the milliseconds that it is to be held back. */
uint32_t gr_penalty_add(gr_penalty *self, gr_slice source, int64_t now_ms);

/* Until when refusals of the source are held back; 0 when it has none. */
int64_t gr_penalty_until(const gr_penalty *self, gr_slice source);

void gr_penalty_clear(gr_penalty *self);

#endif
