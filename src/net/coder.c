#include "net/coder.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"

enum {
    STEP_IN = 64 << 10,   /* between two looks at the clock */
    STEP_OUT = 256 << 10, /* likewise */
    TURN_NS = 20000000,   /* how long a coder keeps a thread of the pool */
    GATHERED = 32 << 10,  /* bytes of small writes before they are worth waking a thread */
    AT_ONCE = 64 << 10,   /* bytes that are made without one */
    WAKE = 512 << 10,     /* bytes that are ready before the loop is woken, while there is input, */
    WAKE_NS = 1000000,    /* or so long after the first of them */
    MOST_SPARES = 4,      /* buffers that are kept for later, when they are not above */
    SPARE_CAP = 256 << 10, /* so many bytes */
};

struct input {
    struct input *prev, *next;
    enum gr_op op;
    gr_slice rest;
    gr_buf own; /* where `rest` is when small writes were gathered, else empty */
    bool kept;  /* the bytes are the caller's */
};

struct piece {
    struct piece *prev, *next;
    gr_buf buf;
};

struct gr_coder {
    uv_work_t work;
    uv_async_t async;
    int holders; /* of this memory: our owner or the closing `async`, and `work` */
    bool busy;   /* libuv has `work` */
    bool cheap;  /* an encoder at a level that is not above the default */
    uv_loop_t *loop;
    const gr_codec *codec;
    size_t piece_bytes, ahead_bytes;
    void (*ready)(void *arg);
    void (*idle)(void *arg);
    void *arg;
    gr_buf gathered; /* small writes that are no input yet */

    /* Whoever works: a thread of the pool, or ours when not `busy`. */
    gr_encoder *encoder;
    gr_decoder *decoder;
    struct piece *open; /* the one that is being filled */

    atomic_bool stop;
    pthread_mutex_t mutex; /* over everything below */
    pthread_cond_t left;
    bool working; /* a thread of the pool is in run(), or will be */
    struct input *inputs;
    size_t queued;
    uint64_t used;
    struct piece *pieces; /* those that are ready */
    size_t pieces_bytes;
    int64_t since_ns; /* when the first of them was */
    struct piece *spares;
    int spares_len;
    int err;      /* it stays */
    bool waiting; /* gr_coder_wait() was called */
    bool told;    /* and what it waits for has come */
};

/* --- life ----------------------------------------------------------------------------------- */

static void free_piece(struct piece *piece)
{
    if (piece != NULL)
        gr_buf_clear(&piece->buf);
    free(piece);
}

static void drop_input(gr_coder *self, struct input *input)
{
    DL_DELETE(self->inputs, input);
    self->queued -= input->rest.len;
    self->used += input->kept;
    gr_buf_clear(&input->own);
    free(input);
}

static void free_parts(gr_coder *self)
{
    struct piece *piece, *next;
    while (self->inputs != NULL)
        drop_input(self, self->inputs);
    DL_FOREACH_SAFE (self->pieces, piece, next)
        free_piece(piece);
    DL_FOREACH_SAFE (self->spares, piece, next)
        free_piece(piece);
    free_piece(self->open);
    self->pieces = self->spares = self->open = NULL;
    gr_encoder_destroy(&self->encoder);
    gr_decoder_destroy(&self->decoder);
    gr_buf_clear(&self->gathered);
}

static void release(gr_coder *self)
{
    if (--self->holders > 0)
        return;
    pthread_mutex_destroy(&self->mutex);
    pthread_cond_destroy(&self->left);
    free(self);
}

static int open_inner(gr_coder *self, const gr_coder_options *options)
{
    self->open = calloc(1, sizeof(*self->open));
    if (self->open == NULL)
        return GR_ENOMEM;
    if (options->encoder == NULL) {
        self->codec = options->decoder->codec;
        return gr_decoder_new(&self->decoder, options->decoder);
    }
    self->codec = options->encoder->codec;
    self->cheap = options->encoder->level <= self->codec->level_default;
    return gr_encoder_new(&self->encoder, options->encoder);
}

static void on_async(uv_async_t *async);

int gr_coder_new(gr_coder **out, const gr_coder_options *options)
{
    gr_coder *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->holders = 1;
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->left, NULL);
    atomic_init(&self->stop, false);
    self->work.data = self->async.data = self;
    self->loop = options->loop;
    self->piece_bytes = options->piece_bytes;
    self->ahead_bytes = options->ahead_bytes;
    self->ready = options->ready;
    self->idle = options->idle;
    self->arg = options->arg;
    int rc = open_inner(self, options);
    if (rc == 0 && uv_async_init(self->loop, &self->async, on_async) != 0)
        rc = GR_EEXHAUSTED;
    if (rc < 0) {
        free_parts(self);
        release(self);
        return rc;
    }
    uv_unref((uv_handle_t *)&self->async);
    *out = self;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    release(handle->data);
}

static void wait_for_pool(gr_coder *self)
{
    atomic_store(&self->stop, true);
    if (uv_cancel((uv_req_t *)&self->work) == 0)
        return; /* it had not begun */
    pthread_mutex_lock(&self->mutex);
    while (self->working)
        pthread_cond_wait(&self->left, &self->mutex);
    pthread_mutex_unlock(&self->mutex);
}

void gr_coder_destroy(gr_coder **coder)
{
    gr_coder *self = *coder;
    if (self == NULL)
        return;
    *coder = NULL;
    if (self->busy)
        wait_for_pool(self);
    free_parts(self);
    self->ready = self->idle = NULL;
    uv_close((uv_handle_t *)&self->async, on_closed);
}

/* --- one step, without the mutex ------------------------------------------------------------- */

/* What a step has brought. */
struct outcome {
    int rc;
    bool complete; /* the open piece is */
    bool done;     /* with this input */
};

static struct outcome step(gr_coder *self, struct input *input)
{
    gr_buf *piece = &self->open->buf;
    gr_slice slice = gr_slice_first(input->rest, STEP_IN);
    int rc;
    bool complete;
    if (self->encoder != NULL) {
        enum gr_op op = input->rest.len > STEP_IN ? GR_OP_WRITE : input->op;
        rc = gr_encoder_step(self->encoder, op, &slice, piece);
        complete = rc == GR_MORE || (rc == 0 && op != GR_OP_WRITE && piece->len > 0);
    } else {
        size_t most = gr_least(self->piece_bytes, piece->len + STEP_OUT);
        rc = gr_decoder_step(self->decoder, &slice, piece, most);
        complete = piece->len >= self->piece_bytes;
    }
    input->rest = gr_slice_skip(input->rest, (size_t)(slice.data - input->rest.data));
    return (struct outcome){
        .rc = rc, .complete = complete, .done = rc == 0 && input->rest.len == 0};
}

/* --- the pipe, with the mutex ----------------------------------------------------------------- */

static bool can_work(const gr_coder *self)
{
    return self->err == 0 && self->inputs != NULL && self->pieces_bytes < self->ahead_bytes &&
           !atomic_load(&self->stop);
}

static void fail(gr_coder *self, int err)
{
    self->err = err;
    while (self->inputs != NULL)
        drop_input(self, self->inputs);
}

static void complete_piece(gr_coder *self)
{
    struct piece *next = self->spares;
    if (next != NULL) {
        DL_DELETE(self->spares, next);
        self->spares_len--;
    } else {
        next = calloc(1, sizeof(*next));
    }
    if (next == NULL) {
        fail(self, GR_ENOMEM);
        return;
    }
    if (self->pieces == NULL)
        self->since_ns = gr_clock_ns();
    DL_APPEND(self->pieces, self->open);
    self->pieces_bytes += self->open->buf.len;
    self->open = next;
}

static void settle(gr_coder *self, struct input *input, size_t len, struct outcome outcome)
{
    self->queued -= len - input->rest.len;
    if (outcome.done)
        drop_input(self, input);
    /* what a decoder has is not held back when nothing may follow soon */
    bool drained = self->decoder != NULL && self->inputs == NULL && self->open->buf.len > 0;
    if (outcome.rc >= 0 && (outcome.complete || drained))
        complete_piece(self);
    if (outcome.rc < 0)
        fail(self, outcome.rc);
}

/* To wake a thread costs both sides, so it is worth while only for so much, or after a while. */
static bool is_enough(const gr_coder *self)
{
    return self->pieces_bytes >= gr_least(self->ahead_bytes, WAKE) ||
           (self->pieces != NULL && gr_clock_ns() - self->since_ns >= WAKE_NS);
}

/* Whether somebody is to be told now. */
static bool tell(gr_coder *self)
{
    if (!self->waiting || (self->inputs != NULL && !is_enough(self)))
        return false;
    self->waiting = false;
    self->told = true;
    return true;
}

/* Works until `ahead` bytes are ready or the time is over. Returns whether somebody is to be told.
 */
static bool work(gr_coder *self, size_t ahead, int64_t until_ns)
{
    bool told = false;
    while (!told && can_work(self) && self->pieces_bytes < ahead && gr_clock_ns() < until_ns) {
        struct input *input = self->inputs;
        size_t len = input->rest.len;
        pthread_mutex_unlock(&self->mutex);
        struct outcome outcome = step(self, input);
        pthread_mutex_lock(&self->mutex);
        settle(self, input, len, outcome);
        told = tell(self);
    }
    return told;
}

/* --- the pool -------------------------------------------------------------------------------- */

static void run(uv_work_t *request)
{
    gr_coder *self = request->data;
    int64_t until_ns = gr_clock_ns() + TURN_NS;
    pthread_mutex_lock(&self->mutex);
    while (work(self, self->ahead_bytes, until_ns)) {
        pthread_mutex_unlock(&self->mutex);
        uv_async_send(&self->async);
        pthread_mutex_lock(&self->mutex);
    }
    self->working = false;
    pthread_cond_signal(&self->left);
    pthread_mutex_unlock(&self->mutex);
}

static void after(uv_work_t *request, int status);

static bool is_small(const gr_coder *self)
{
    if (self->decoder != NULL)
        return self->queued <= self->codec->decode_small;
    return self->cheap &&
           self->queued + gr_encoder_held(self->encoder) <= self->codec->encode_small;
}

/* Hands over what can be done, the little that is sooner done than handed over excepted. */
static void start(gr_coder *self)
{
    bool told = false;
    if (self->busy)
        return;
    pthread_mutex_lock(&self->mutex);
    if (is_small(self))
        told = work(self, gr_least(AT_ONCE, self->ahead_bytes), INT64_MAX);
    self->working = self->busy = can_work(self);
    pthread_mutex_unlock(&self->mutex);
    if (told)
        uv_async_send(&self->async);
    if (!self->busy)
        return;
    self->holders++;
    uv_queue_work(self->loop, &self->work, run, after);
}

static bool take_told(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex);
    bool told = self->told;
    self->told = false;
    pthread_mutex_unlock(&self->mutex);
    return told;
}

static void on_async(uv_async_t *async)
{
    gr_coder *self = async->data;
    if (take_told(self) && self->ready != NULL)
        self->ready(self->arg);
}

static void after(uv_work_t *request, int status)
{
    gr_coder *self = request->data;
    (void)status; /* when it was cancelled, `stop` says so too */
    pthread_mutex_lock(&self->mutex);
    self->working = false;
    bool again = can_work(self);
    pthread_mutex_unlock(&self->mutex);
    self->busy = false;
    if (again)
        start(self);
    bool told = take_told(self) && !atomic_load(&self->stop);
    if (!self->busy && self->idle != NULL)
        self->idle(self->arg);
    if (told && self->ready != NULL)
        self->ready(self->arg);
    release(self); /* the owner may have let go of it meanwhile */
}

/* --- in and out ------------------------------------------------------------------------------ */

/* What comes after an error is dropped at once: the status will tell. */
static int add_input(gr_coder *self, enum gr_op op, gr_slice in, gr_buf own)
{
    struct input *input = calloc(1, sizeof(*input));
    if (input == NULL)
        return GR_ENOMEM;
    *input = (struct input){.op = op, .rest = in, .own = own, .kept = own.data == NULL};
    pthread_mutex_lock(&self->mutex);
    DL_APPEND(self->inputs, input);
    self->queued += in.len;
    if (self->err < 0)
        drop_input(self, input);
    pthread_mutex_unlock(&self->mutex);
    return 0;
}

/* Small writes become one input, which is ours. */
static int add_gathered(gr_coder *self)
{
    if (self->gathered.len == 0)
        return 0;
    int rc = add_input(self, GR_OP_WRITE, gr_buf_slice(&self->gathered), self->gathered);
    if (rc == 0)
        gr_buf_steal(&self->gathered);
    return rc;
}

int gr_coder_put(gr_coder *self, enum gr_op op, gr_slice in, bool *kept)
{
    assert(self->encoder != NULL || op == GR_OP_WRITE);
    *kept = false;
    if (self->encoder != NULL && op == GR_OP_WRITE && self->gathered.len + in.len <= GATHERED)
        return gr_buf_append(&self->gathered, in.data, in.len);
    int rc = add_gathered(self);
    if (rc == 0)
        rc = add_input(self, op, in, (gr_buf){0});
    if (rc < 0)
        return rc;
    *kept = true;
    start(self);
    return 0;
}

uint64_t gr_coder_used(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex);
    uint64_t used = self->used;
    pthread_mutex_unlock(&self->mutex);
    return used;
}

size_t gr_coder_queued(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex);
    size_t queued = self->queued;
    pthread_mutex_unlock(&self->mutex);
    return queued;
}

bool gr_coder_peek(gr_coder *self, gr_slice *piece)
{
    pthread_mutex_lock(&self->mutex);
    struct piece *first = self->pieces;
    if (first != NULL)
        *piece = gr_buf_slice(&first->buf);
    pthread_mutex_unlock(&self->mutex);
    return first != NULL;
}

void gr_coder_pop(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex);
    struct piece *first = self->pieces;
    DL_DELETE(self->pieces, first);
    self->pieces_bytes -= first->buf.len;
    bool low = self->pieces_bytes <= self->ahead_bytes / 2;
    first->buf.len = 0;
    if (self->spares_len < MOST_SPARES && first->buf.cap <= SPARE_CAP) {
        DL_APPEND(self->spares, first);
        self->spares_len++;
        first = NULL;
    }
    pthread_mutex_unlock(&self->mutex);
    free_piece(first);
    if (low)
        start(self);
}

int gr_coder_status(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex);
    int rc = self->inputs != NULL || self->pieces != NULL ? GR_MORE : self->err;
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

bool gr_coder_wait(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex);
    self->waiting = self->pieces == NULL && self->inputs != NULL;
    bool waiting = self->waiting;
    pthread_mutex_unlock(&self->mutex);
    return waiting;
}

bool gr_coder_is_busy(const gr_coder *self)
{
    return self->busy;
}

void gr_coder_give_up(gr_coder *self)
{
    atomic_store(&self->stop, true);
    if (self->busy)
        uv_cancel((uv_req_t *)&self->work);
}

const char *gr_coder_why(const gr_coder *self)
{
    return self->decoder != NULL ? gr_decoder_why(self->decoder) : NULL;
}

int gr_coder_finish(gr_coder *self)
{
    return gr_decoder_finish(self->decoder);
}

bool gr_coder_ended(const gr_coder *self)
{
    return gr_decoder_ended(self->decoder);
}

const gr_digest *gr_coder_digest(const gr_coder *self)
{
    return self->encoder != NULL ? gr_encoder_digest(self->encoder)
                                 : gr_decoder_digest(self->decoder);
}
