#include "exec/frame.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <utlist.h>

#include "base/err.h"

int gr_frame_new(gr_frame **out, enum gr_frame_type type, uint64_t id, size_t len)
{
    if (len > GR_FRAME_MAX)
        return GR_EEXHAUSTED;
    gr_frame *self = malloc(sizeof(*self) + len);
    if (self == NULL)
        return GR_ENOMEM;
    memset(self, 0, sizeof(*self)); /* padding too: it is written to sockets */
    self->head.len = (uint32_t)len;
    self->head.type = (uint8_t)type;
    self->head.id = id;
    *out = self;
    return 0;
}

int gr_frame_of_head(gr_frame **out, const gr_frame_head *head)
{
    if (head->type < GR_FRAME_HELLO || head->type >= GR_FRAME_TYPES || head->len > GR_FRAME_MAX)
        return GR_EINVAL;
    uint64_t parts = (uint64_t)head->a + head->b + head->c;
    bool is_divided = head->type == GR_FRAME_JOB;
    if (head->c > head->len || (is_divided && parts > head->len))
        return GR_EINVAL;
    if (head->type == GR_FRAME_LOG && (head->len > GR_FRAME_LOG_MAX || parts - head->a > head->len))
        return GR_EINVAL;
    int rc = gr_frame_new(out, head->type, head->id, head->len);
    if (rc == 0)
        (*out)->head = *head;
    return rc;
}

void gr_frame_destroy(gr_frame **self)
{
    free(*self);
    *self = NULL;
}

void gr_frame_line_push(gr_frame_line *self, gr_frame **frame)
{
    DL_APPEND(self->first, *frame);
    *frame = NULL;
}

gr_frame *gr_frame_line_pop(gr_frame_line *self)
{
    gr_frame *frame = self->first;
    if (frame != NULL)
        DL_DELETE(self->first, frame);
    return frame;
}

void gr_frame_line_clear(gr_frame_line *self)
{
    gr_frame *frame;
    while ((frame = gr_frame_line_pop(self)) != NULL)
        gr_frame_destroy(&frame);
}

/* --- over a socket ----------------------------------------------------------------------- */

static_assert(offsetof(gr_frame, body) == offsetof(gr_frame, head) + sizeof(gr_frame_head),
              "head and body are written in one piece");

/* Returns the number of bytes, or an error as gr_frame_read(). */
static ssize_t receive(int fd, void *into, size_t len, bool wait)
{
    ssize_t n;
    do
        n = recv(fd, into, len, wait ? 0 : MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        return n;
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? GR_EAGAIN : GR_ECLOSED;
}

/* Moves bytes that were read to where they belong. */
static size_t fill(gr_frame_reader *self, void *into, size_t missing)
{
    size_t there = self->end - self->at;
    size_t len = there < missing ? there : missing;
    if (len > 0)
        memcpy(into, self->bytes + self->at, len);
    self->at += len;
    return len;
}

/* Looks at what was read; 0 when a frame is complete, else GR_EAGAIN, GR_EINVAL or GR_ENOMEM. */
static int assemble(gr_frame_reader *self)
{
    if (self->frame == NULL) {
        self->head_filled += fill(self, (uint8_t *)&self->head + self->head_filled,
                                  sizeof(self->head) - self->head_filled);
        if (self->head_filled < sizeof(self->head))
            return GR_EAGAIN;
        int rc = gr_frame_of_head(&self->frame, &self->head);
        if (rc < 0)
            return rc;
        self->head_filled = 0;
        self->filled = 0;
    }
    size_t missing = self->frame->head.len - self->filled;
    self->filled += fill(self, self->frame->body + self->filled, missing);
    return self->filled == self->frame->head.len ? 0 : GR_EAGAIN;
}

int gr_frame_read(gr_frame_reader *self, int fd, bool wait, gr_frame **out)
{
    int rc;
    while ((rc = assemble(self)) == GR_EAGAIN) {
        size_t missing = self->frame != NULL ? self->frame->head.len - self->filled : 0;
        bool is_large = missing >= sizeof(self->bytes);
        bool emptied = self->emptied;
        self->emptied = false;
        if (emptied && !wait)
            return GR_EAGAIN; /* saves asking */
        ssize_t n = is_large ? receive(fd, self->frame->body + self->filled, missing, wait)
                             : receive(fd, self->bytes, sizeof(self->bytes), wait);
        if (n < 0)
            return (int)n;
        if (is_large) {
            self->filled += (size_t)n;
        } else {
            self->at = 0;
            self->end = (size_t)n;
            self->emptied = (size_t)n < sizeof(self->bytes);
        }
    }
    if (rc < 0)
        return rc;
    *out = self->frame;
    self->frame = NULL;
    return 0;
}

void gr_frame_reader_clear(gr_frame_reader *self)
{
    gr_frame_destroy(&self->frame);
}

int gr_frame_write(const gr_frame *frame, int fd, bool wait, size_t *sent)
{
    size_t len = sizeof(frame->head) + frame->head.len;
    const uint8_t *bytes = (const uint8_t *)&frame->head;
    while (*sent < len) {
        ssize_t n = send(fd, bytes + *sent, len - *sent, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT));
        if (n >= 0)
            *sent += (size_t)n;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return GR_EAGAIN;
        else if (errno != EINTR)
            return GR_ECLOSED;
    }
    return 0;
}
