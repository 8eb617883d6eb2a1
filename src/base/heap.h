/* heap.h - times to come, the earliest first.
 *
 * An intrusive binary heap: the owner embeds a gr_due in its object and the heap keeps
 * pointers to it, so adding and removing are O(log n) and allocate only when the heap grows.
 * Reads no clock. Not thread-safe; a heap belongs to one owner. */
#ifndef GR_HEAP_H
#define GR_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gr_due {
    int64_t at_ms; /* monotonic milliseconds */
    size_t place;  /* its index in the heap, from 1; 0 when it is in no heap */
} gr_due;

typedef struct gr_heap {
    gr_due **dues; /* dues[1] is the earliest */
    size_t len;
    size_t cap;
} gr_heap;

/* Puts due in for at_ms, or moves it there when it is in. Returns 0 or GR_ENOMEM (only when it
 * was not in; then it still is not). */
int gr_heap_set(gr_heap *self, gr_due *due, int64_t at_ms);

/* Takes due out; nothing happens when it is not in. */
void gr_heap_remove(gr_heap *self, gr_due *due);

/* The earliest one, which stays in, or NULL. */
static inline gr_due *gr_heap_first(const gr_heap *self)
{
    return self->len > 0 ? self->dues[1] : NULL;
}

/* Frees the heap's own memory; what was in it is not touched. */
void gr_heap_clear(gr_heap *self);

/* The object around a due. */
#define GR_HEAP_ENTRY(due, type, member) ((type *)((char *)(due)-offsetof(type, member)))

#endif
