#include "engine/penalty.h"

#include <stdlib.h>
#include <uthash.h>

enum { FIRST_MS = 50, FORGET_MS = 60 * 1000, MOST_SOURCES = 4096, NAME_MAX_BYTES = 64 };

struct gr_penalty_source {
    UT_hash_handle hh; /* by the name */
    int64_t last_ms, until_ms;
    uint32_t next_ms;
    size_t name_len;
    uint8_t name[NAME_MAX_BYTES];
};

static struct gr_penalty_source *find(const gr_penalty *self, gr_slice source)
{
    struct gr_penalty_source *found;
    gr_slice name = gr_slice_first(source, NAME_MAX_BYTES);
    HASH_FIND(hh, self->sources, name.len > 0 ? name.data : (const uint8_t *)"", name.len, found);
    return found;
}

static void forget(gr_penalty *self, struct gr_penalty_source *source)
{
    HASH_DEL(self->sources, source);
    free(source);
}

static struct gr_penalty_source *add(gr_penalty *self, gr_slice name)
{
    if (HASH_COUNT(self->sources) >= MOST_SOURCES)
        forget(self, self->sources);
    struct gr_penalty_source *added = calloc(1, sizeof(*added));
    if (added == NULL)
        return NULL;
    if (name.len > 0)
        memcpy(added->name, name.data, name.len);
    added->name_len = name.len;
    HASH_ADD(hh, self->sources, name, added->name_len, added);
    return added;
}

uint32_t gr_penalty_add(gr_penalty *self, gr_slice source, int64_t now_ms)
{
    struct gr_penalty_source *found = find(self, source);
    uint32_t penalty_ms = FIRST_MS;
    if (found != NULL && now_ms - found->last_ms < FORGET_MS)
        penalty_ms = found->next_ms;
    if (found != NULL)
        forget(self, found); /* the new one stands last */
    if (penalty_ms > self->most_ms)
        penalty_ms = self->most_ms;
    found = add(self, gr_slice_first(source, NAME_MAX_BYTES));
    if (found == NULL)
        return self->most_ms;
    found->last_ms = now_ms;
    found->until_ms = now_ms + penalty_ms;
    found->next_ms = 2 * penalty_ms;
    return penalty_ms;
}

int64_t gr_penalty_until(const gr_penalty *self, gr_slice source)
{
    const struct gr_penalty_source *found = find(self, source);
    return found != NULL ? found->until_ms : 0;
}

void gr_penalty_clear(gr_penalty *self)
{
    while (self->sources != NULL)
        forget(self, self->sources);
}
