#include "base/codec.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"

enum {
    SLICE = 64 << 10,      /* input per step, so that the digest finds it in the cache */
    FIRST_ROOM = 16 << 10, /* a buffer for output begins with it and doubles */
    MOST = 1 << 30,        /* some libraries count in unsigned int */
    WHY_LEN = 160,
};

static const gr_codec *const codecs[] = {
    &gr_codec_gzip, &gr_codec_zlib, &gr_codec_zstd, &gr_codec_lz4,
    &gr_codec_bz2,  &gr_codec_lzma, NULL,
};

const gr_codec *const *gr_codec_list(void)
{
    return codecs;
}

const gr_codec *gr_codec_find(const char *name)
{
    for (size_t i = 0; codecs[i] != NULL; i++)
        if (strcmp(codecs[i]->name, name) == 0)
            return codecs[i];
    return NULL;
}

/* Room behind what is in the buffer, which never grows beyond max. */
static int open_room(gr_buf *buf, size_t max, gr_room *room)
{
    if (buf->len == buf->cap) {
        size_t more = buf->len > FIRST_ROOM ? buf->len : FIRST_ROOM;
        int rc = gr_buf_reserve(buf, gr_least(more, max - buf->len));
        if (rc < 0)
            return rc;
    }
    *room = (gr_room){buf->data + buf->len, gr_least(gr_least(buf->cap, max) - buf->len, MOST)};
    return 0;
}

/* --- encoders ------------------------------------------------------------------------------- */

struct gr_encoder {
    const gr_codec *codec;
    void *state; /* the library's, from the first step to the last */
    int level;
    uint32_t mtime_s;
    size_t piece_bytes;
    size_t whole_bytes; /* input of a whole piece; 0: pieces are cut where they are full */
    size_t held;        /* bytes taken since the last sync */
    bool syncing;       /* a sync has begun and its piece was full */
    bool ended;
    gr_digest *digest;
};

/* What fits into a piece in any case, with header, trailer, and blocks that do not shrink. */
static size_t whole_bytes(size_t piece_bytes)
{
    enum { EDGES = 160 };
    return piece_bytes - piece_bytes / 128 - EDGES;
}

static int check_options(const gr_encoder_options *options)
{
    const gr_codec *codec = options->codec;
    int level = options->level;
    if (level != GR_LEVEL_DEFAULT && (level < codec->level_min || level > codec->level_max))
        return GR_EINVAL;
    if (options->piece_bytes != 0 &&
        (options->piece_bytes < GR_PIECE_BYTES_MIN || options->piece_bytes > GR_PIECE_BYTES_MAX))
        return GR_EINVAL;
    return options->whole && !codec->syncs ? GR_EINVAL : 0;
}

int gr_encoder_new(gr_encoder **out, const gr_encoder_options *options)
{
    int rc = check_options(options);
    if (rc < 0)
        return rc;
    gr_encoder *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->codec = options->codec;
    self->level =
        options->level == GR_LEVEL_DEFAULT ? options->codec->level_default : options->level;
    self->mtime_s = options->mtime_s;
    self->piece_bytes = options->piece_bytes > 0 ? options->piece_bytes : GR_PIECE_BYTES;
    self->whole_bytes = options->whole ? whole_bytes(self->piece_bytes) : 0;
    if (options->digest && gr_digest_new(&self->digest) < 0) {
        gr_encoder_destroy(&self);
        return GR_ENOMEM;
    }
    *out = self;
    return 0;
}

static void end_encoder(gr_encoder *self)
{
    if (self->state != NULL)
        self->codec->encoder_free(self->state);
    self->state = NULL;
    self->ended = true;
}

void gr_encoder_destroy(gr_encoder **encoder)
{
    gr_encoder *self = *encoder;
    if (self == NULL)
        return;
    end_encoder(self);
    gr_digest_destroy(&self->digest);
    free(self);
    *encoder = NULL;
}

/* Lets the library work until op is done or the piece is full. */
static int encode(gr_encoder *self, enum gr_op op, gr_slice *in, gr_buf *piece)
{
    int rc = GR_MORE;
    while (rc == GR_MORE && piece->len < self->piece_bytes) {
        gr_room room;
        rc = open_room(piece, self->piece_bytes, &room);
        if (rc < 0)
            return rc;
        gr_slice taken = *in;
        rc = self->codec->encode(self->state, op, in, &room);
        piece->len = (size_t)(room.at - piece->data);
        taken.len -= in->len;
        self->held += taken.len;
        if (self->digest != NULL)
            gr_digest_add(self->digest, taken);
    }
    return rc;
}

static int sync_all(gr_encoder *self, gr_buf *piece)
{
    gr_slice none = {0};
    self->syncing = true;
    int rc = encode(self, GR_OP_SYNC, &none, piece);
    if (rc != 0)
        return rc;
    self->syncing = false;
    self->held = 0;
    return 0;
}

/* Whole pieces are synced only when more follows, so the last one has data beside the trailer. */
static int write_all(gr_encoder *self, gr_slice *in, gr_buf *piece)
{
    while (in->len > 0) {
        size_t most = SLICE;
        if (self->whole_bytes > 0) {
            if (self->held == self->whole_bytes) {
                int rc = sync_all(self, piece);
                return rc < 0 ? rc : GR_MORE;
            }
            most = gr_least(most, self->whole_bytes - self->held);
        }
        gr_slice slice = gr_slice_first(*in, most);
        int rc = encode(self, GR_OP_WRITE, &slice, piece);
        *in = gr_slice_skip(*in, (size_t)(slice.data - in->data));
        if (rc != 0)
            return rc;
    }
    return 0;
}

static int run_encoder(gr_encoder *self, enum gr_op op, gr_slice *in, gr_buf *piece)
{
    gr_slice none = {0};
    int rc = 0;
    if (self->state == NULL)
        rc = self->codec->encoder_new(&self->state, self->level, self->mtime_s);
    if (rc == 0 && self->syncing)
        rc = sync_all(self, piece);
    if (rc == 0)
        rc = write_all(self, in, piece);
    if (rc == 0 && op == GR_OP_SYNC && self->held > 0)
        rc = sync_all(self, piece);
    if (rc == 0 && op == GR_OP_FINISH)
        rc = encode(self, GR_OP_FINISH, &none, piece);
    return rc;
}

int gr_encoder_step(gr_encoder *self, enum gr_op op, gr_slice *in, gr_buf *piece)
{
    if (self->ended)
        return GR_ECLOSED;
    int rc = run_encoder(self, op, in, piece);
    if (rc < 0 || (rc == 0 && op == GR_OP_FINISH))
        end_encoder(self);
    return rc;
}

size_t gr_encoder_held(const gr_encoder *self)
{
    return self->held;
}

const gr_digest *gr_encoder_digest(const gr_encoder *self)
{
    return self->digest;
}

/* --- decoders ------------------------------------------------------------------------------- */

struct gr_decoder {
    const gr_codec *codec;
    void *state;
    uint64_t max_bytes;
    size_t window_bytes;
    uint64_t total;
    uint64_t taken;
    bool full; /* the last step filled its room: there may be more without input */
    bool ended;
    int err; /* it stays */
    char why[WHY_LEN];
    gr_digest *digest;
};

int gr_decoder_new(gr_decoder **out, const gr_decoder_options *options)
{
    gr_decoder *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->codec = options->codec;
    self->max_bytes = options->max_bytes > 0 ? options->max_bytes : GR_INFLATED_BYTES;
    self->window_bytes =
        options->window_bytes > 0 ? options->window_bytes : options->codec->window_bytes;
    if (options->digest && gr_digest_new(&self->digest) < 0) {
        gr_decoder_destroy(&self);
        return GR_ENOMEM;
    }
    *out = self;
    return 0;
}

/* The library's memory is not needed any more. */
static void let_go(gr_decoder *self)
{
    if (self->state != NULL)
        self->codec->decoder_free(self->state);
    self->state = NULL;
}

void gr_decoder_destroy(gr_decoder **decoder)
{
    gr_decoder *self = *decoder;
    if (self == NULL)
        return;
    let_go(self);
    gr_digest_destroy(&self->digest);
    free(self);
    *decoder = NULL;
}

static int fail(gr_decoder *self, int err, const char *why)
{
    snprintf(self->why, sizeof(self->why), "%s", why != NULL ? why : gr_err_text(err));
    self->err = err;
    let_go(self);
    return err;
}

static int fail_at_ceiling(gr_decoder *self)
{
    char why[WHY_LEN];
    snprintf(why, sizeof(why), "it inflates to more than the %" PRIu64 " bytes that are allowed",
             self->max_bytes);
    return fail(self, GR_EEXHAUSTED, why);
}

/* Only looks, because the libraries want to see these bytes too. */
static int check_magic(gr_decoder *self, gr_slice in)
{
    gr_slice magic = self->codec->magic;
    if (self->taken >= magic.len)
        return 0;
    magic = gr_slice_skip(magic, (size_t)self->taken);
    if (!gr_slice_equal(gr_slice_first(magic, in.len), gr_slice_first(in, magic.len)))
        return fail(self, GR_EINVAL, "the first bytes are not those of this format");
    return 0;
}

static int decode(gr_decoder *self, gr_slice *in, gr_buf *out, size_t max_len)
{
    gr_room room;
    int rc = open_room(out, max_len, &room);
    if (rc < 0)
        return fail(self, rc, NULL);
    uint64_t allowed = self->max_bytes - self->total;
    if (room.left > allowed)
        room.left = (size_t)allowed + 1; /* the one that shows that it is too much */
    gr_slice given = gr_slice_first(*in, MOST);
    gr_slice made = gr_slice_of(room.at, 0);
    const char *why = NULL;
    rc = self->codec->decode(self->state, &given, &room, &self->ended, &why);
    size_t taken = (size_t)(given.data - in->data);
    *in = gr_slice_skip(*in, taken);
    self->taken += taken;
    if (rc < 0)
        return fail(self, rc, why);
    made.len = (size_t)(room.at - made.data);
    if (made.len > allowed)
        return fail_at_ceiling(self);
    self->full = room.left == 0;
    self->total += made.len;
    out->len += made.len;
    if (self->digest != NULL)
        gr_digest_add(self->digest, made);
    return 0;
}

int gr_decoder_step(gr_decoder *self, gr_slice *in, gr_buf *out, size_t max_len)
{
    if (self->err < 0)
        return self->err;
    int rc = self->ended ? 0 : check_magic(self, *in);
    if (rc == 0 && self->state == NULL && !self->ended) {
        rc = self->codec->decoder_new(&self->state, self->window_bytes);
        if (rc < 0)
            fail(self, rc, NULL);
    }
    while (rc == 0 && !self->ended && (in->len > 0 || self->full)) {
        if (out->len >= max_len)
            return GR_MORE;
        rc = decode(self, in, out, max_len);
    }
    if (rc < 0 || !self->ended)
        return rc;
    let_go(self);
    return in->len > 0 ? fail(self, GR_EINVAL, "there are bytes behind its end") : 0;
}

int gr_decoder_finish(gr_decoder *self)
{
    if (self->err < 0 || self->ended)
        return self->err;
    return fail(self, GR_EDATALOSS, "it ends too early");
}

bool gr_decoder_ended(const gr_decoder *self)
{
    return self->ended;
}

uint64_t gr_decoder_total(const gr_decoder *self)
{
    return self->total;
}

const char *gr_decoder_why(const gr_decoder *self)
{
    return self->err < 0 ? self->why : NULL;
}

const gr_digest *gr_decoder_digest(const gr_decoder *self)
{
    return self->digest;
}
