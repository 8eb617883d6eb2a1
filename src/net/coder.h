/* coder.h - an encoder or decoder whose work is done in libuv's pool, while the loop goes on.
 *
 * One operation at a time. Long ones give the pool's thread back every 10 ms and queue up again,
 * so files and names of luv, which share the pool, do not have to wait for them. What is sooner
 * done than handed over is done at once, and small writes are gathered. Used on the loop's thread
 * only; its memory is touched by the pool between gr_coder_start() and `done`. */
#ifndef GR_CODER_H
#define GR_CODER_H

#include <uv.h>

#include "base/codec.h"

typedef struct gr_coder gr_coder;

typedef struct gr_coder_options {
    uv_loop_t *loop;
    const gr_encoder_options *encoder; /* one of these two */
    const gr_decoder_options *decoder;
    void (*done)(void *arg); /* an operation has ended; on the loop's thread, from the loop */
    void *arg;
} gr_coder_options;

/* Returns 0, or an error of gr_encoder_new() or gr_decoder_new(). */
int gr_coder_new(gr_coder **out, const gr_coder_options *options);

/* Ends it. When an operation is under way, this waits until the pool's thread has let go of the
 * input (one step of the library, some 100 ms at most), and `done` is not called. */
void gr_coder_destroy(gr_coder **self);

/* Begins an operation on `in`, which must stay valid until the outcome is not GR_MORE. It stops
 * early when max_len bytes of output are there; an encoder then ends its piece first. A decoder
 * knows GR_OP_WRITE only. Returns true when it is under way and `done` will come, false when it has
 * ended already. Must not be called while one is under way. */
bool gr_coder_start(gr_coder *self, enum gr_op op, gr_slice in, size_t max_len);

/* The same for the rest of an operation that has stopped early. */
bool gr_coder_go_on(gr_coder *self, size_t max_len);

bool gr_coder_is_busy(const gr_coder *self);

/* Makes an operation that is under way end soon, with GR_ECANCELLED. `done` comes all the same;
 * the coder is of no use afterwards. */
void gr_coder_give_up(gr_coder *self);

/* How the last operation has ended: 0, GR_MORE when it stopped early, or an error. */
int gr_coder_outcome(const gr_coder *self);

/* What was wrong, for people; NULL when the error's own text has to do. */
const char *gr_coder_why(const gr_coder *self);

/* What it has made: piece `index` of the last operation, from 0. Valid until the next one. False
 * when there are not so many. A decoder makes one. */
bool gr_coder_piece(const gr_coder *self, size_t index, gr_slice *piece);

/* Of a decoder, when no operation is under way: gr_decoder_finish(), gr_decoder_ended(). */
int gr_coder_finish(gr_coder *self);
bool gr_coder_ended(const gr_coder *self);

/* NULL when none was asked for. */
const gr_digest *gr_coder_digest(const gr_coder *self);

#endif
