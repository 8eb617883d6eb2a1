/* codec_bz2.c - bzip2, by libbz2. A flush ends a block, but not at a whole byte: the block's last
 * bits come with the next one, so there is no sync. */
#include <bzlib.h>
#include <stdlib.h>

#include "base/codec.h"
#include "base/err.h"

static void lend(bz_stream *bz, const gr_slice *in, const gr_room *out)
{
    bz->next_in = (char *)in->data;
    bz->avail_in = (unsigned)in->len;
    bz->next_out = (char *)out->at;
    bz->avail_out = (unsigned)out->left;
}

static void take_back(const bz_stream *bz, gr_slice *in, gr_room *out)
{
    *in = gr_slice_of(bz->next_in, bz->avail_in);
    *out = (gr_room){(uint8_t *)bz->next_out, bz->avail_out};
}

static int encoder_new(void **state, int level, uint32_t mtime_s)
{
    (void)mtime_s;
    bz_stream *bz = calloc(1, sizeof(*bz));
    if (bz == NULL)
        return GR_ENOMEM;
    if (BZ2_bzCompressInit(bz, level, 0, 0) != BZ_OK) {
        free(bz);
        return GR_ENOMEM;
    }
    *state = bz;
    return 0;
}

static int encode(void *state, enum gr_op op, gr_slice *in, gr_room *out)
{
    static const int actions[] = {BZ_RUN, BZ_FLUSH, BZ_FINISH};
    if (op == GR_OP_WRITE && in->len == 0)
        return 0;
    bz_stream *bz = state;
    lend(bz, in, out);
    int rc = BZ2_bzCompress(bz, actions[op]);
    take_back(bz, in, out);
    if (rc < 0)
        return GR_EINTERNAL;
    if (op == GR_OP_WRITE)
        return in->len > 0 ? GR_MORE : 0;
    return rc == BZ_FLUSH_OK || rc == BZ_FINISH_OK ? GR_MORE : 0;
}

static void encoder_free(void *state)
{
    BZ2_bzCompressEnd(state);
    free(state);
}

static int decoder_new(void **state, size_t window_bytes)
{
    (void)window_bytes; /* blocks of 900 kB by the format */
    bz_stream *bz = calloc(1, sizeof(*bz));
    if (bz == NULL)
        return GR_ENOMEM;
    if (BZ2_bzDecompressInit(bz, 0, 0) != BZ_OK) {
        free(bz);
        return GR_ENOMEM;
    }
    *state = bz;
    return 0;
}

static int decode(void *state, gr_slice *in, gr_room *out, bool *ended, const char **why)
{
    bz_stream *bz = state;
    lend(bz, in, out);
    int rc = BZ2_bzDecompress(bz);
    take_back(bz, in, out);
    switch (rc) {
    case BZ_STREAM_END:
        *ended = true;
        return 0;
    case BZ_OK:
        return 0;
    case BZ_MEM_ERROR:
        return GR_ENOMEM;
    case BZ_DATA_ERROR_MAGIC:
        *why = "the first bytes are not those of this format";
        return GR_EINVAL;
    default:
        *why = "a block or its checksum is wrong";
        return GR_EDATALOSS;
    }
}

static void decoder_free(void *state)
{
    BZ2_bzDecompressEnd(state);
    free(state);
}

const gr_codec gr_codec_bz2 = {
    .name = "bz2",
    .level_min = 1,
    .level_max = 9,
    .level_default = 9,
    .syncs = false,
    .window_bytes = 900000,
    .encode_small = 0, /* a full block takes 50 ms, whichever byte has filled it */
    .decode_small = 0,
    .magic = {(const uint8_t *)"BZh", 3},
    .encoder_new = encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
    .decoder_new = decoder_new,
    .decode = decode,
    .decoder_free = decoder_free,
};
