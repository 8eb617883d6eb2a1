/* frame.h - what the host and an executor say to each other: a fixed head and a body of bytes.
 *
 * Between threads a frame changes hands; to a process it is written to a socket as it lies in
 * memory, because both ends are the same program on the same machine. Frames never come from a
 * network. */
#ifndef GR_FRAME_H
#define GR_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum gr_frame_type {
    /* To an executor. */
    GR_FRAME_HELLO = 1, /* the first: number memory limit in bytes or 0; a items and b bytes of a
                           stream that may be under way; body: settings for Lua */
    GR_FRAME_JOB, /* id; number deadline in gr_clock_ms() or 0; body: description, a bytes; code, b
                     bytes; arguments, of which c bytes are positional */
    GR_FRAME_CANCEL, /* id; a the error as a positive number; flag: whatever the code does */
    GR_FRAME_CREDIT, /* id; a items and b bytes that were read */
    GR_FRAME_ANSWER, /* id of the question; body: results, of which c bytes are positional */
    GR_FRAME_QUIT,   /* ends when the jobs that it has are done */

    /* From an executor. */
    GR_FRAME_READY, /* takes jobs */
    GR_FRAME_ITEM,  /* id; body: one value */
    GR_FRAME_DONE,  /* id; flag: the job is a stream; body: results, of which c bytes are positional
                     */
    GR_FRAME_FAILED,   /* id, 0 when it could not start; flag: it takes no more jobs and ends; body:
                          code, class, message, traceback */
    GR_FRAME_QUESTION, /* id, to be echoed; body: arguments, of which c bytes are positional */
    GR_FRAME_LOG, /* of a process: a level; body: the logger's name, b bytes; text, c bytes; fields
                     as log_fields.h packs them */
    GR_FRAME_TYPES,
};

enum { GR_FRAME_LOG_MAX = 16 << 10 }; /* of a LOG */
enum { GR_FRAME_MAX = 160 << 20 };    /* bytes of a body: 64 MiB of values, twice, and code */

typedef struct gr_frame_head {
    uint32_t len; /* of the body */
    uint8_t type;
    uint8_t flag; /* true or false, see above; a process may send any byte */
    uint32_t a, b, c;
    uint64_t id;
    uint64_t number;
    uint64_t memory;  /* from an executor: bytes that its Lua state has */
    uint64_t took_ns; /* DONE, FAILED: how long the job ran */
} gr_frame_head;

typedef struct gr_frame {
    struct gr_frame *prev, *next;
    gr_frame_head head;
    uint8_t body[];
} gr_frame;

/* Makes a frame with room for len bytes; everything else is zero. Returns 0, GR_ENOMEM, or
 * GR_EEXHAUSTED beyond GR_FRAME_MAX. */
int gr_frame_new(gr_frame **out, enum gr_frame_type type, uint64_t id, size_t len);

/* The same for a head that came from elsewhere. GR_EINVAL when it is none. */
int gr_frame_of_head(gr_frame **out, const gr_frame_head *head);

void gr_frame_destroy(gr_frame **self);

static inline gr_slice gr_frame_body(const gr_frame *self)
{
    return gr_slice_of(self->body, self->head.len);
}

/* A line of frames; zeroed it is empty. Not thread-safe. */
typedef struct gr_frame_line {
    gr_frame *first;
} gr_frame_line;

/* Takes the frame. */
void gr_frame_line_push(gr_frame_line *self, gr_frame **frame);

/* The first one, which is yours then, or NULL. */
gr_frame *gr_frame_line_pop(gr_frame_line *self);

void gr_frame_line_clear(gr_frame_line *self);

/* --- over a socket --- */

/* Takes frames out of what a socket gives. Zeroed it is fresh. */
typedef struct gr_frame_reader {
    gr_frame *frame; /* whose body is incomplete */
    size_t filled;   /* bytes of it */
    gr_frame_head head;
    size_t head_filled;
    size_t at, end; /* of what is read and not looked at yet */
    bool emptied;   /* the socket has just had less than was asked for */
    uint8_t bytes[16 * 1024];
} gr_frame_reader;

/* Reads the next frame, which is yours. Returns 0; GR_EAGAIN when `wait` is false and it is not all
 * there; GR_ECLOSED at the end; GR_EINVAL when the other side does not keep to the rules;
 * GR_ENOMEM. */
int gr_frame_read(gr_frame_reader *self, int fd, bool wait, gr_frame **out);

void gr_frame_reader_clear(gr_frame_reader *self);

/* Writes the frame from byte *sent on, and advances *sent. Returns 0 when it is out; GR_EAGAIN when
 * `wait` is false and the socket is full; GR_ECLOSED. */
int gr_frame_write(const gr_frame *frame, int fd, bool wait, size_t *sent);

#endif
