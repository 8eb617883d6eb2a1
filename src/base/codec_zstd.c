/* codec_zstd.c - one Zstandard frame, by libzstd. */
#include <zstd.h>
#include <zstd_errors.h>

#include "base/codec.h"
#include "base/err.h"

/* What RFC 8878 wants every decoder to take; no level that is offered needs more. */
#define WINDOW_BYTES (8u << 20)

static int encoder_new(void **state, int level, uint32_t mtime_s)
{
    (void)mtime_s;
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    if (ctx == NULL)
        return GR_ENOMEM;
    if (ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1))) {
        ZSTD_freeCCtx(ctx);
        return GR_EINTERNAL;
    }
    *state = ctx;
    return 0;
}

static int encode(void *state, enum gr_op op, gr_slice *in, gr_room *out)
{
    static const ZSTD_EndDirective directives[] = {ZSTD_e_continue, ZSTD_e_flush, ZSTD_e_end};
    ZSTD_inBuffer from = {in->data, in->len, 0};
    ZSTD_outBuffer to = {out->at, out->left, 0};
    size_t left = ZSTD_compressStream2(state, &to, &from, directives[op]);
    if (ZSTD_isError(left))
        return ZSTD_getErrorCode(left) == ZSTD_error_memory_allocation ? GR_ENOMEM : GR_EINTERNAL;
    *in = gr_slice_skip(*in, from.pos);
    *out = gr_room_skip(*out, to.pos);
    return (op == GR_OP_WRITE ? in->len : left) > 0 ? GR_MORE : 0;
}

static void encoder_free(void *state)
{
    ZSTD_freeCCtx(state);
}

static int log_of(size_t bytes)
{
    int log = 0;
    while (bytes >> log > 1)
        log++;
    return log;
}

static int decoder_new(void **state, size_t window_bytes)
{
    ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
    int log = log_of(window_bytes);
    if (log < bounds.lowerBound)
        log = bounds.lowerBound;
    if (log > bounds.upperBound)
        log = bounds.upperBound;
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    if (ctx == NULL)
        return GR_ENOMEM;
    ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, log);
    *state = ctx;
    return 0;
}

static int err_of(size_t code)
{
    switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_memory_allocation:
        return GR_ENOMEM;
    case ZSTD_error_frameParameter_windowTooLarge:
        return GR_EEXHAUSTED;
    case ZSTD_error_frameParameter_unsupported:
    case ZSTD_error_dictionary_wrong:
        return GR_EINVAL;
    default:
        return GR_EDATALOSS;
    }
}

static int decode(void *state, gr_slice *in, gr_room *out, bool *ended, const char **why)
{
    ZSTD_inBuffer from = {in->data, in->len, 0};
    ZSTD_outBuffer to = {out->at, out->left, 0};
    size_t left = ZSTD_decompressStream(state, &to, &from);
    if (ZSTD_isError(left)) {
        *why = ZSTD_getErrorName(left);
        return err_of(left);
    }
    *in = gr_slice_skip(*in, from.pos);
    *out = gr_room_skip(*out, to.pos);
    *ended = left == 0;
    return 0;
}

static void decoder_free(void *state)
{
    ZSTD_freeDCtx(state);
}

/* The magic keeps out frames of old versions, and those that are skipped. */
const gr_codec gr_codec_zstd = {
    .name = "zstd",
    .level_min = 1,
    .level_max = 19,
    .level_default = 1,
    .syncs = true,
    .window_bytes = WINDOW_BYTES,
    .encode_small = 4 << 10,
    .decode_small = 16 << 10,
    .magic = {(const uint8_t *)"\x28\xb5\x2f\xfd", 4},
    .encoder_new = encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
    .decoder_new = decoder_new,
    .decode = decode,
    .decoder_free = decoder_free,
};
