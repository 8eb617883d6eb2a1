/* codec_lz4.c - one LZ4 frame, by liblz4. */
#include <lz4frame.h>
#include <stdlib.h>

#include "base/codec.h"
#include "base/err.h"

enum { STEP = 64 << 10 }; /* also the size of a block */

/* The library writes only where there is room for the worst case, hence the stage. */
struct packer {
    LZ4F_cctx *ctx;
    LZ4F_preferences_t preferences;
    bool begun, ended;
    size_t at, len; /* what of the stage is to go out */
    size_t cap;
    uint8_t stage[];
};

static int encoder_new(void **state, int level, uint32_t mtime_s)
{
    (void)mtime_s;
    LZ4F_preferences_t preferences = {
        .frameInfo = {.blockSizeID = LZ4F_max64KB,
                      .blockMode = LZ4F_blockLinked,
                      .contentChecksumFlag = LZ4F_contentChecksumEnabled},
        .compressionLevel = level,
    };
    size_t cap = LZ4F_compressBound(STEP, &preferences) + LZ4F_HEADER_SIZE_MAX;
    struct packer *self = calloc(1, sizeof(*self) + cap);
    if (self == NULL)
        return GR_ENOMEM;
    self->cap = cap;
    self->preferences = preferences;
    if (LZ4F_isError(LZ4F_createCompressionContext(&self->ctx, LZ4F_VERSION))) {
        free(self);
        return GR_ENOMEM;
    }
    *state = self;
    return 0;
}

static void drain(struct packer *self, gr_room *out)
{
    size_t len = gr_least(self->len, out->left);
    memcpy(out->at, self->stage + self->at, len);
    self->at += len;
    self->len -= len;
    *out = gr_room_skip(*out, len);
}

/* Fills the stage, which is empty; it stays so when there is nothing to do. */
static int fill(struct packer *self, enum gr_op op, gr_slice *in)
{
    size_t rc;
    if (!self->begun) {
        rc = LZ4F_compressBegin(self->ctx, self->stage, self->cap, &self->preferences);
        self->begun = true;
    } else if (op == GR_OP_WRITE) {
        size_t len = gr_least(in->len, STEP);
        rc = LZ4F_compressUpdate(self->ctx, self->stage, self->cap, in->data, len, NULL);
        *in = gr_slice_skip(*in, len);
    } else if (op == GR_OP_SYNC) {
        rc = LZ4F_flush(self->ctx, self->stage, self->cap, NULL);
    } else {
        rc = self->ended ? 0 : LZ4F_compressEnd(self->ctx, self->stage, self->cap, NULL);
        self->ended = true;
    }
    if (LZ4F_isError(rc))
        return GR_EINTERNAL; /* its one other error is memory, and it has all that it needs */
    self->at = 0;
    self->len = rc;
    return 0;
}

static int encode(void *state, enum gr_op op, gr_slice *in, gr_room *out)
{
    struct packer *self = state;
    for (;;) {
        drain(self, out);
        if (self->len > 0)
            return GR_MORE;
        if (op == GR_OP_WRITE && in->len == 0)
            return 0;
        int rc = fill(self, op, in);
        if (rc < 0)
            return rc;
        if (op != GR_OP_WRITE && self->len == 0)
            return 0;
    }
}

static void encoder_free(void *state)
{
    struct packer *self = state;
    LZ4F_freeCompressionContext(self->ctx);
    free(self);
}

static int decoder_new(void **state, size_t window_bytes)
{
    (void)window_bytes; /* 64 KiB, and blocks of 4 MiB, by the format */
    LZ4F_dctx *ctx;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
        return GR_ENOMEM;
    *state = ctx;
    return 0;
}

static int decode(void *state, gr_slice *in, gr_room *out, bool *ended, const char **why)
{
    size_t taken = in->len, made = out->left;
    size_t left = LZ4F_decompress(state, out->at, &made, in->data, &taken, NULL);
    if (LZ4F_isError(left)) {
        *why = LZ4F_getErrorName(left);
        return strcmp(*why, "ERROR_allocation_failed") == 0 ? GR_ENOMEM : GR_EDATALOSS;
    }
    *in = gr_slice_skip(*in, taken);
    *out = gr_room_skip(*out, made);
    *ended = left == 0;
    return 0;
}

static void decoder_free(void *state)
{
    LZ4F_freeDecompressionContext(state);
}

/* The magic keeps out frames that are skipped. */
const gr_codec gr_codec_lz4 = {
    .name = "lz4",
    .level_min = 1,
    .level_max = 12,
    .level_default = 1,
    .syncs = true,
    .window_bytes = 64 << 10,
    .encode_small = 8 << 10,
    .decode_small = 32 << 10,
    .magic = {(const uint8_t *)"\x04\x22\x4d\x18", 4},
    .encoder_new = encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
    .decoder_new = decoder_new,
    .decode = decode,
    .decoder_free = decoder_free,
};
