/* coder.h - an encoder or decoder as a pipe, whose work is done in libuv's pool.
 *
 * Input is put in at one end and pieces are taken at the other; in between a thread of the pool
 * works ahead, until there is as much to take as the options allow. So the library is busy while
 * the loop does other things, and waking threads up, which costs more than to compress 64 KiB
 * fast, happens seldom. A thread is given back to the pool every 20 ms, because files and names of
 * luv use it too. Little work is done at once instead, and small writes are gathered.
 *
 * Used on the loop's thread only. */
#ifndef GR_CODER_H
#define GR_CODER_H

#include <uv.h>

#include "base/codec.h"

typedef struct gr_coder gr_coder;

typedef struct gr_coder_options {
    uv_loop_t *loop;
    const gr_encoder_options *encoder; /* one of these two */
    const gr_decoder_options *decoder;
    size_t piece_bytes; /* of a decoder: the most that one piece of its output holds */
    size_t ahead_bytes; /* what may wait to be taken; the last piece may go beyond */

    /* All from the loop, on its thread. `ready`: what gr_coder_wait() has asked for is there.
     * `idle`: the pool has let go of this coder, and of all input that is done. */
    void (*ready)(void *arg);
    void (*idle)(void *arg);
    void *arg;
} gr_coder_options;

/* Returns 0, GR_EEXHAUSTED, or an error of gr_encoder_new() or gr_decoder_new(). */
int gr_coder_new(gr_coder **out, const gr_coder_options *options);

/* Ends it. While the pool has it, this waits until a thread has let go of the input (one step of
 * the library, some 100 ms at most). `ready` and `idle` are not called any more. */
void gr_coder_destroy(gr_coder **self);

/* Adds input; a decoder knows GR_OP_WRITE only. *kept tells whether the bytes are read later: then
 * they must stay valid until gr_coder_used() counts them. Returns 0 or GR_ENOMEM. */
int gr_coder_put(gr_coder *self, enum gr_op op, gr_slice in, bool *kept);

/* How many of the inputs that were kept are not needed any more, in their order. */
uint64_t gr_coder_used(gr_coder *self);

/* Bytes of input that wait. */
size_t gr_coder_queued(gr_coder *self);

/* The first piece that is ready; it stays until gr_coder_pop(). False when there is none. */
bool gr_coder_peek(gr_coder *self, gr_slice *piece);
void gr_coder_pop(gr_coder *self);

/* 0 when all input is used and every piece taken; GR_MORE when something is ready or being made;
 * or the error that ended it, once every piece before has been taken. */
int gr_coder_status(gr_coder *self);

/* Asks for `ready`, which comes once, when there are pieces or the status is not GR_MORE any more.
 * False when that is so already; then it does not come. */
bool gr_coder_wait(gr_coder *self);

/* The pool has it; `idle` will follow. */
bool gr_coder_is_busy(const gr_coder *self);

/* Makes the pool let go of it soon; it is of no use afterwards. */
void gr_coder_give_up(gr_coder *self);

/* What was wrong, for people; NULL when the error's own text has to do. */
const char *gr_coder_why(const gr_coder *self);

/* Of a decoder whose status is not GR_MORE: gr_decoder_finish(), gr_decoder_ended(). */
int gr_coder_finish(gr_coder *self);
bool gr_coder_ended(const gr_coder *self);

/* NULL when none was asked for. Only when the status is not GR_MORE. */
const gr_digest *gr_coder_digest(const gr_coder *self);

#endif
