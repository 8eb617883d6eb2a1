#include "base/heap.h"

#include <stdlib.h>

#include "base/err.h"

enum { FIRST_CAP = 64 };

static void put(gr_heap *self, gr_due *due, size_t place)
{
    self->dues[place] = due;
    due->place = place;
}

static void rise(gr_heap *self, gr_due *due, size_t place)
{
    while (place > 1 && self->dues[place / 2]->at_ms > due->at_ms) {
        put(self, self->dues[place / 2], place);
        place /= 2;
    }
    put(self, due, place);
}

static void sink(gr_heap *self, gr_due *due, size_t place)
{
    for (;;) {
        size_t child = place * 2;
        if (child > self->len)
            break;
        if (child < self->len && self->dues[child + 1]->at_ms < self->dues[child]->at_ms)
            child++;
        if (self->dues[child]->at_ms >= due->at_ms)
            break;
        put(self, self->dues[child], place);
        place = child;
    }
    put(self, due, place);
}

static int grow(gr_heap *self)
{
    if (self->len + 1 < self->cap)
        return 0;
    size_t cap = self->cap > 0 ? self->cap * 2 : FIRST_CAP;
    gr_due **dues = realloc(self->dues, cap * sizeof(gr_due *));
    if (dues == NULL)
        return GR_ENOMEM;
    self->dues = dues;
    self->cap = cap;
    return 0;
}

int gr_heap_set(gr_heap *self, gr_due *due, int64_t at_ms)
{
    if (due->place == 0) {
        int rc = grow(self);
        if (rc < 0)
            return rc;
        due->at_ms = at_ms;
        self->len++;
        rise(self, due, self->len);
        return 0;
    }
    int64_t before = due->at_ms;
    due->at_ms = at_ms;
    if (at_ms < before)
        rise(self, due, due->place);
    else
        sink(self, due, due->place);
    return 0;
}

void gr_heap_remove(gr_heap *self, gr_due *due)
{
    size_t place = due->place;
    if (place == 0)
        return;
    due->place = 0;
    gr_due *last = self->dues[self->len--];
    if (last == due)
        return;
    if (place > 1 && self->dues[place / 2]->at_ms > last->at_ms)
        rise(self, last, place);
    else
        sink(self, last, place);
}

void gr_heap_clear(gr_heap *self)
{
    free(self->dues);
    *self = (gr_heap){0};
}
