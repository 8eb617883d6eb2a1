/* codec_lzma.c - LZMA2 in a .xz container, by liblzma. */
#include <lzma.h>
#include <stdlib.h>

#include "base/codec.h"
#include "base/err.h"

/* The dictionary of level 6; the levels above have more, which costs every reader memory. */
#define DICTIONARY_BYTES (8u << 20)

static int err_of(lzma_ret rc)
{
    return rc == LZMA_MEM_ERROR ? GR_ENOMEM : GR_EINTERNAL;
}

static void lend(lzma_stream *lzma, const gr_slice *in, const gr_room *out)
{
    lzma->next_in = in->data;
    lzma->avail_in = in->len;
    lzma->next_out = out->at;
    lzma->avail_out = out->left;
}

static void take_back(const lzma_stream *lzma, gr_slice *in, gr_room *out)
{
    *in = gr_slice_of(lzma->next_in, lzma->avail_in);
    *out = (gr_room){lzma->next_out, lzma->avail_out};
}

static lzma_stream *new_stream(void)
{
    lzma_stream *lzma = malloc(sizeof(*lzma));
    if (lzma != NULL)
        *lzma = (lzma_stream)LZMA_STREAM_INIT;
    return lzma;
}

static void free_stream(void *state)
{
    lzma_end(state);
    free(state);
}

static int encoder_new(void **state, int level, uint32_t mtime_s)
{
    (void)mtime_s;
    lzma_options_lzma options;
    lzma_stream *lzma = new_stream();
    if (lzma == NULL)
        return GR_ENOMEM;
    lzma_lzma_preset(&options, (uint32_t)level);
    if (options.dict_size > DICTIONARY_BYTES)
        options.dict_size = DICTIONARY_BYTES;
    lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    lzma_ret rc = lzma_stream_encoder(lzma, filters, LZMA_CHECK_CRC64);
    if (rc != LZMA_OK) {
        free_stream(lzma);
        return err_of(rc);
    }
    *state = lzma;
    return 0;
}

static int encode(void *state, enum gr_op op, gr_slice *in, gr_room *out)
{
    static const lzma_action actions[] = {LZMA_RUN, LZMA_SYNC_FLUSH, LZMA_FINISH};
    if (op == GR_OP_WRITE && in->len == 0)
        return 0;
    lzma_stream *lzma = state;
    lend(lzma, in, out);
    lzma_ret rc = lzma_code(lzma, actions[op]);
    take_back(lzma, in, out);
    if (rc == LZMA_STREAM_END)
        return 0;
    if (rc != LZMA_OK && rc != LZMA_BUF_ERROR)
        return err_of(rc);
    return op == GR_OP_WRITE && in->len == 0 ? 0 : GR_MORE;
}

static int decoder_new(void **state, size_t window_bytes)
{
    enum { BESIDE_WINDOW = 1 << 20 }; /* what the decoder needs for itself, generously */
    lzma_stream *lzma = new_stream();
    if (lzma == NULL)
        return GR_ENOMEM;
    lzma_ret rc = lzma_stream_decoder(lzma, (uint64_t)window_bytes + BESIDE_WINDOW,
                                      LZMA_TELL_UNSUPPORTED_CHECK);
    if (rc != LZMA_OK) {
        free_stream(lzma);
        return err_of(rc);
    }
    *state = lzma;
    return 0;
}

static int decode(void *state, gr_slice *in, gr_room *out, bool *ended, const char **why)
{
    lzma_stream *lzma = state;
    lend(lzma, in, out);
    lzma_ret rc = lzma_code(lzma, LZMA_RUN);
    take_back(lzma, in, out);
    switch (rc) {
    case LZMA_STREAM_END:
        *ended = true;
        return 0;
    case LZMA_OK:
    case LZMA_BUF_ERROR: /* nothing to do */
        return 0;
    case LZMA_MEM_ERROR:
        return GR_ENOMEM;
    case LZMA_MEMLIMIT_ERROR:
        *why = "its dictionary is larger than allowed";
        return GR_EEXHAUSTED;
    case LZMA_FORMAT_ERROR:
        *why = "the first bytes are not those of this format";
        return GR_EINVAL;
    case LZMA_OPTIONS_ERROR:
    case LZMA_UNSUPPORTED_CHECK:
        *why = "it uses a filter or checksum that is not known here";
        return GR_EINVAL;
    default:
        *why = "a block or its checksum is wrong";
        return GR_EDATALOSS;
    }
}

const gr_codec gr_codec_lzma = {
    .name = "lzma",
    .level_min = 0,
    .level_max = 9,
    .level_default = 1,
    .syncs = true,
    .window_bytes = 64 << 20, /* level 9 of others */
    .encode_small = 0,        /* to begin takes 700 us */
    .decode_small = 1 << 10,
    .magic = {(const uint8_t *)"\xfd"
                               "7zXZ",
              6}, /* and a zero */
    .encoder_new = encoder_new,
    .encode = encode,
    .encoder_free = free_stream,
    .decoder_new = decoder_new,
    .decode = decode,
    .decoder_free = free_stream,
};
