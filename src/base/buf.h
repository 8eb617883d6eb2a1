/* buf.h - a byte buffer that grows, and a view of bytes that somebody else owns.
 *
 * A zeroed gr_buf is an empty one. Not thread-safe; a buffer belongs to one owner. */
#ifndef GR_BUF_H
#define GR_BUF_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline size_t gr_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Bytes that live elsewhere: valid as long as their owner, never with a terminator. */
typedef struct gr_slice {
    const uint8_t *data;
    size_t len;
} gr_slice;

static inline gr_slice gr_slice_of(const void *data, size_t len)
{
    return (gr_slice){.data = data, .len = len};
}

static inline gr_slice gr_slice_str(const char *text)
{
    return gr_slice_of(text, strlen(text));
}

/* The first bytes, at most so many. */
static inline gr_slice gr_slice_first(gr_slice self, size_t most)
{
    return gr_slice_of(self.data, gr_least(self.len, most));
}

/* What is left behind the first `len` bytes. */
static inline gr_slice gr_slice_skip(gr_slice self, size_t len)
{
    return len > 0 ? gr_slice_of(self.data + len, self.len - len) : self;
}

static inline int gr_slice_equal(gr_slice a, gr_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

typedef struct gr_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
} gr_buf;

/* Makes room for more bytes behind len. Returns 0 or GR_ENOMEM; then nothing has changed. */
int gr_buf_reserve(gr_buf *self, size_t more);

/* Appends a copy. Returns 0 or GR_ENOMEM; then nothing has changed. */
static inline int gr_buf_append(gr_buf *self, const void *data, size_t len)
{
    if (self->cap - self->len < len) {
        int rc = gr_buf_reserve(self, len);
        if (rc < 0)
            return rc;
    }
    if (len > 0)
        memcpy(self->data + self->len, data, len);
    self->len += len;
    return 0;
}

/* Appends a copy, for which gr_buf_reserve() has made room, and gives it: it stays where it is
 * until more is reserved. */
static inline gr_slice gr_buf_keep(gr_buf *self, gr_slice bytes)
{
    size_t at = self->len;
    gr_buf_append(self, bytes.data, bytes.len);
    return gr_slice_of(self->data + at, bytes.len);
}

static inline gr_slice gr_buf_slice(const gr_buf *self)
{
    return gr_slice_of(self->data, self->len);
}

/* Gives the memory away, to end with free(); the buffer is empty afterwards. */
static inline uint8_t *gr_buf_steal(gr_buf *self)
{
    uint8_t *data = self->data;
    *self = (gr_buf){0};
    return data;
}

/* Frees the memory; the buffer is empty afterwards. */
void gr_buf_clear(gr_buf *self);

#endif
