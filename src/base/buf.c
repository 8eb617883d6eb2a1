#include "base/buf.h"

#include <stdlib.h>

#include "base/err.h"

enum { FIRST_CAP = 256 };

int gr_buf_reserve(gr_buf *self, size_t more)
{
    if (self->cap - self->len >= more)
        return 0;
    if (more > SIZE_MAX / 4 || self->len > SIZE_MAX / 4)
        return GR_ENOMEM;

    size_t cap = self->cap > 0 ? self->cap : FIRST_CAP;
    while (cap - self->len < more)
        cap *= 2;
    uint8_t *data = realloc(self->data, cap);
    if (data == NULL)
        return GR_ENOMEM;
    self->data = data;
    self->cap = cap;
    return 0;
}

void gr_buf_clear(gr_buf *self)
{
    free(self->data);
    *self = (gr_buf){0};
}
