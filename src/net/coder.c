#include "net/coder.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"

enum {
    STEP_IN = 64 << 10,   /* between two looks at the clock */
    STEP_OUT = 256 << 10, /* likewise */
    TURN_NS = 10000000,   /* how long an operation keeps a thread of the pool */
    GATHERED = 32 << 10,  /* bytes of small writes before they are worth a hop to the pool */
    AT_ONCE_OUT = 64 << 10,
};

struct gr_coder {
    uv_work_t work;
    uv_loop_t *loop;
    const gr_codec *codec;
    gr_encoder *encoder;
    gr_decoder *decoder;
    void (*done)(void *arg);
    void *arg;
    bool cheap; /* an encoder at a level that is not above the default */

    enum gr_op op;
    gr_slice in;
    gr_buf gathered;
    size_t gathered_at; /* how much of it the encoder has had */
    size_t max_len;
    size_t made;
    int outcome;

    gr_buf *pieces; /* complete ones, the open one, and then spares */
    size_t pieces_len;
    size_t pieces_cap;

    bool busy;
    bool orphaned; /* gr_coder_destroy() was called, only `work` is still needed */
    atomic_bool stop;
    pthread_mutex_t mutex; /* over `running` */
    pthread_cond_t ended;
    bool running; /* in the pool, or in its queue */
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* --- life ----------------------------------------------------------------------------------- */

static void free_parts(gr_coder *self)
{
    gr_encoder_destroy(&self->encoder);
    gr_decoder_destroy(&self->decoder);
    gr_buf_clear(&self->gathered);
    for (size_t i = 0; i < self->pieces_cap; i++)
        gr_buf_clear(&self->pieces[i]);
    free(self->pieces);
    self->pieces = NULL;
    self->pieces_cap = 0;
}

static void free_coder(gr_coder *self)
{
    free_parts(self);
    pthread_mutex_destroy(&self->mutex);
    pthread_cond_destroy(&self->ended);
    free(self);
}

/* The open piece and `more` behind it have a place. */
static int open_places(gr_coder *self, size_t more)
{
    if (self->pieces_len + more < self->pieces_cap)
        return 0;
    size_t cap = self->pieces_cap > 0 ? self->pieces_cap * 2 : 4;
    gr_buf *pieces = realloc(self->pieces, cap * sizeof(*pieces));
    if (pieces == NULL)
        return GR_ENOMEM;
    memset(pieces + self->pieces_cap, 0, (cap - self->pieces_cap) * sizeof(*pieces));
    self->pieces = pieces;
    self->pieces_cap = cap;
    return 0;
}

static int open_inner(gr_coder *self, const gr_coder_options *options)
{
    int rc = open_places(self, 0);
    if (rc < 0)
        return rc;
    if (options->encoder == NULL) {
        self->codec = options->decoder->codec;
        return gr_decoder_new(&self->decoder, options->decoder);
    }
    self->codec = options->encoder->codec;
    self->cheap = options->encoder->level <= self->codec->level_default;
    return gr_encoder_new(&self->encoder, options->encoder);
}

int gr_coder_new(gr_coder **out, const gr_coder_options *options)
{
    gr_coder *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->ended, NULL);
    atomic_init(&self->stop, false);
    self->work.data = self;
    self->loop = options->loop;
    self->done = options->done;
    self->arg = options->arg;
    int rc = open_inner(self, options);
    if (rc < 0) {
        free_coder(self);
        return rc;
    }
    *out = self;
    return 0;
}

static void wait_for_pool(gr_coder *self)
{
    if (uv_cancel((uv_req_t *)&self->work) == 0)
        return; /* it had not begun */
    pthread_mutex_lock(&self->mutex);
    while (self->running)
        pthread_cond_wait(&self->ended, &self->mutex);
    pthread_mutex_unlock(&self->mutex);
}

void gr_coder_destroy(gr_coder **coder)
{
    gr_coder *self = *coder;
    if (self == NULL)
        return;
    *coder = NULL;
    if (!self->busy) {
        free_coder(self);
        return;
    }
    atomic_store(&self->stop, true);
    wait_for_pool(self);
    free_parts(self);
    self->orphaned = true; /* libuv will come back for `work` */
}

/* --- one step ------------------------------------------------------------------------------- */

static gr_buf *open_piece(gr_coder *self)
{
    return &self->pieces[self->pieces_len];
}

static int complete_piece(gr_coder *self)
{
    int rc = open_places(self, 1);
    if (rc < 0)
        return rc;
    self->made += open_piece(self)->len;
    self->pieces_len++;
    return 0;
}

static int encode_slice(gr_coder *self, gr_slice *from, enum gr_op op)
{
    gr_slice slice = gr_slice_of(from->data, least(from->len, STEP_IN));
    int rc = gr_encoder_step(self->encoder, op, &slice, open_piece(self));
    from->len -= (size_t)(slice.data - from->data);
    from->data = slice.data;
    bool complete = rc == GR_MORE || (rc == 0 && op != GR_OP_WRITE && open_piece(self)->len > 0);
    int failed = complete ? complete_piece(self) : 0;
    return failed < 0 ? failed : rc;
}

static gr_slice rest_of_gathered(const gr_coder *self)
{
    return gr_slice_of(self->gathered.data + self->gathered_at,
                       self->gathered.len - self->gathered_at);
}

static int encode_gathered(gr_coder *self)
{
    gr_slice rest = rest_of_gathered(self);
    int rc = encode_slice(self, &rest, GR_OP_WRITE);
    self->gathered_at = self->gathered.len - rest.len;
    if (rest.len == 0)
        self->gathered.len = self->gathered_at = 0;
    return rc < 0 ? rc : GR_MORE;
}

static int encode_step(gr_coder *self)
{
    if (self->gathered.len > 0)
        return encode_gathered(self);
    bool last = self->in.len <= STEP_IN;
    int rc = encode_slice(self, &self->in, last ? self->op : GR_OP_WRITE);
    return rc == 0 && !last ? GR_MORE : rc;
}

static int decode_step(gr_coder *self)
{
    gr_buf *out = open_piece(self);
    gr_slice slice = gr_slice_of(self->in.data, least(self->in.len, STEP_IN));
    int rc = gr_decoder_step(self->decoder, &slice, out, least(self->max_len, out->len + STEP_OUT));
    self->in.len -= (size_t)(slice.data - self->in.data);
    self->in.data = slice.data;
    self->made = out->len;
    return rc == 0 && self->in.len > 0 ? GR_MORE : rc;
}

static int step(gr_coder *self)
{
    return self->encoder != NULL ? encode_step(self) : decode_step(self);
}

/* --- in the pool ---------------------------------------------------------------------------- */

static bool is_unfinished(const gr_coder *self)
{
    return self->outcome == GR_MORE && self->made < self->max_len;
}

static void run(uv_work_t *work)
{
    gr_coder *self = work->data;
    int64_t until_ns = gr_clock_ns() + TURN_NS;
    do
        self->outcome = step(self);
    while (is_unfinished(self) && !atomic_load(&self->stop) && gr_clock_ns() < until_ns);
    pthread_mutex_lock(&self->mutex);
    self->running = false;
    pthread_cond_signal(&self->ended);
    pthread_mutex_unlock(&self->mutex);
}

static void after(uv_work_t *work, int status);

static void queue(gr_coder *self)
{
    pthread_mutex_lock(&self->mutex); /* also hands the memory over */
    self->running = true;
    pthread_mutex_unlock(&self->mutex);
    uv_queue_work(self->loop, &self->work, run, after);
}

static void after(uv_work_t *work, int status)
{
    gr_coder *self = work->data;
    pthread_mutex_lock(&self->mutex); /* and takes it back */
    self->running = false;
    pthread_mutex_unlock(&self->mutex);
    if (self->orphaned) {
        free_coder(self);
        return;
    }
    if (status != 0 || atomic_load(&self->stop)) {
        self->outcome = GR_ECANCELLED;
    } else if (is_unfinished(self)) {
        queue(self);
        return;
    }
    self->busy = false;
    self->done(self->arg);
}

/* --- operations ----------------------------------------------------------------------------- */

/* The open piece comes first again, the ones that were taken become spares. */
static void begin_pieces(gr_coder *self)
{
    gr_buf open = *open_piece(self);
    *open_piece(self) = self->pieces[0];
    self->pieces[0] = open;
    if (self->decoder != NULL)
        self->pieces[0].len = 0;
    for (size_t i = 1; i <= self->pieces_len; i++)
        self->pieces[i].len = 0;
    self->pieces_len = 0;
    self->made = 0;
}

static bool can_gather(const gr_coder *self)
{
    return self->op == GR_OP_WRITE &&
           self->gathered.len - self->gathered_at + self->in.len <= GATHERED;
}

static bool is_small(const gr_coder *self)
{
    if (self->decoder != NULL)
        return self->in.len <= self->codec->decode_small;
    size_t waiting = self->gathered.len + self->in.len + gr_encoder_held(self->encoder);
    return self->cheap && waiting <= self->codec->encode_small;
}

static void run_at_once(gr_coder *self)
{
    size_t max_len = self->max_len;
    self->max_len = least(max_len, AT_ONCE_OUT);
    do
        self->outcome = step(self);
    while (is_unfinished(self));
    self->max_len = max_len;
}

static bool begin(gr_coder *self, size_t max_len)
{
    begin_pieces(self);
    self->max_len = max_len;
    self->outcome = GR_MORE;
    if (self->encoder != NULL && can_gather(self)) {
        self->outcome = gr_buf_append(&self->gathered, self->in.data, self->in.len);
        return false;
    }
    if (is_small(self))
        run_at_once(self);
    if (!is_unfinished(self))
        return false;
    self->busy = true;
    queue(self);
    return true;
}

bool gr_coder_start(gr_coder *self, enum gr_op op, gr_slice in, size_t max_len)
{
    assert(!self->busy && (self->encoder != NULL || op == GR_OP_WRITE));
    self->op = op;
    self->in = in;
    return begin(self, max_len);
}

bool gr_coder_go_on(gr_coder *self, size_t max_len)
{
    assert(!self->busy && self->outcome == GR_MORE);
    return begin(self, max_len);
}

bool gr_coder_is_busy(const gr_coder *self)
{
    return self->busy;
}

void gr_coder_give_up(gr_coder *self)
{
    if (!self->busy)
        return;
    atomic_store(&self->stop, true);
    uv_cancel((uv_req_t *)&self->work);
}

int gr_coder_outcome(const gr_coder *self)
{
    return self->outcome;
}

const char *gr_coder_why(const gr_coder *self)
{
    return self->decoder != NULL ? gr_decoder_why(self->decoder) : NULL;
}

bool gr_coder_piece(const gr_coder *self, size_t index, gr_slice *piece)
{
    size_t len = self->decoder != NULL && self->made > 0 ? 1 : self->pieces_len;
    if (index >= len)
        return false;
    *piece = gr_buf_slice(&self->pieces[index]);
    return true;
}

int gr_coder_finish(gr_coder *self)
{
    return gr_decoder_finish(self->decoder);
}

bool gr_coder_ended(const gr_coder *self)
{
    return self->decoder != NULL && gr_decoder_ended(self->decoder);
}

const gr_digest *gr_coder_digest(const gr_coder *self)
{
    return self->encoder != NULL ? gr_encoder_digest(self->encoder)
                                 : gr_decoder_digest(self->decoder);
}
