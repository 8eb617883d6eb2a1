#include "base/log_ring.h"

#include <string.h>
#include <sys/mman.h>

#include "base/err.h"
#include "base/log.h"

/* Every position is a multiple of 8, so there is always room for `size`. */
struct record {
    uint32_t size; /* with everything, padding too */
    uint8_t level; /* 0: no line, only the rest of the memory before its start */
    uint8_t name_len;
    uint16_t fields_len;
    uint32_t text_len;
    int32_t nsec;
    int64_t sec;
    uint8_t bytes[]; /* name, text, fields */
};

_Static_assert(GR_LOG_NAME < 256 && GR_LOG_FIELDS < 65536 && GR_LOG_OFF < 256, "they fit");

int gr_log_ring_init(gr_log_ring *self, size_t max_lines, size_t max_bytes)
{
    void *data = mmap(NULL, GR_LOG_RING_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
        return GR_ENOMEM;
    self->data = data;
    self->max_lines = max_lines;
    self->max_bytes = max_bytes;
    self->lines = 0;
    self->head = 0;
    atomic_store(&self->tail, 0);
    return 0;
}

void gr_log_ring_free(gr_log_ring *self)
{
    munmap(self->data, GR_LOG_RING_BYTES);
    self->data = NULL;
}

static struct record *record_at(const gr_log_ring *self, uint64_t position)
{
    return (struct record *)(void *)(self->data + position % GR_LOG_RING_BYTES);
}

static uint8_t *append(uint8_t *at, gr_slice bytes)
{
    if (bytes.len > 0)
        memcpy(at, bytes.data, bytes.len);
    return at + bytes.len;
}

bool gr_log_ring_push(gr_log_ring *self, const gr_log_line *line, bool force)
{
    uint64_t tail = atomic_load_explicit(&self->tail, memory_order_relaxed);
    size_t size = sizeof(struct record) + line->name.len + line->text.len + line->fields.len;
    size = (size + 7) & ~(size_t)7;
    size_t left = GR_LOG_RING_BYTES - tail % GR_LOG_RING_BYTES;
    size_t skipped = left < size ? left : 0;
    uint64_t used = tail + skipped + size - self->head;
    if (used > GR_LOG_RING_BYTES)
        return false;
    if (!force && (used > self->max_bytes || self->lines >= self->max_lines))
        return false;

    if (skipped > 0) {
        record_at(self, tail)->size = (uint32_t)skipped;
        record_at(self, tail)->level = 0; /* `size` and `level` are in its first 8 bytes */
        tail += skipped;
    }
    struct record *record = record_at(self, tail);
    record->size = (uint32_t)size;
    record->level = (uint8_t)line->level;
    record->name_len = (uint8_t)line->name.len;
    record->fields_len = (uint16_t)line->fields.len;
    record->text_len = (uint32_t)line->text.len;
    record->nsec = line->nsec;
    record->sec = line->sec;
    append(append(append(record->bytes, line->name), line->text), line->fields);
    self->lines++;
    atomic_store_explicit(&self->tail, tail + size, memory_order_release);
    return true;
}

bool gr_log_ring_read(const gr_log_ring *self, uint64_t *at, uint64_t tail, gr_log_line *line)
{
    if (*at < tail && record_at(self, *at)->level == 0)
        *at += record_at(self, *at)->size;
    if (*at >= tail)
        return false;
    const struct record *record = record_at(self, *at);
    const uint8_t *bytes = record->bytes;
    line->sec = record->sec;
    line->nsec = record->nsec;
    line->level = record->level;
    line->name = gr_slice_of(bytes, record->name_len);
    line->text = gr_slice_of(bytes + record->name_len, record->text_len);
    line->fields = gr_slice_of(bytes + record->name_len + record->text_len, record->fields_len);
    *at += record->size;
    return true;
}

size_t gr_log_ring_count(const gr_log_ring *self, uint64_t from, uint64_t to)
{
    size_t count = 0;
    gr_log_line line;
    while (gr_log_ring_read(self, &from, to, &line))
        count++;
    return count;
}

void gr_log_ring_release(gr_log_ring *self, uint64_t head, size_t lines)
{
    self->head = head;
    self->lines -= lines;
}

uint64_t gr_log_ring_rewind(gr_log_ring *self)
{
    enum { FAR = 256 << 10 };
    uint64_t tail = atomic_load_explicit(&self->tail, memory_order_relaxed);
    if (self->head == tail && tail % GR_LOG_RING_BYTES > FAR) {
        tail += GR_LOG_RING_BYTES - tail % GR_LOG_RING_BYTES;
        self->head = tail;
        atomic_store_explicit(&self->tail, tail, memory_order_release);
    }
    return tail;
}

bool gr_log_ring_is_below(const gr_log_ring *self, uint64_t from, size_t lines, size_t part)
{
    uint64_t used = atomic_load_explicit(&self->tail, memory_order_relaxed) - from;
    return used < self->max_bytes / part && lines < self->max_lines / part;
}
