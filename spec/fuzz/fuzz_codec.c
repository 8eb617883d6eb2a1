/* fuzz_codec.c - decoders of whatever comes, cut in any way: they keep to their limits, and their
 * errors stay. And encoders: what comes out of them goes back in, and is the same. */
#include "base/codec.h"
#include "base/err.h"
#include "fuzz.h"

enum { CEILING = 1 << 20, BIGGEST_WINDOW = 1 << 22 };

static const gr_codec *pick_codec(uint8_t byte)
{
    const gr_codec *const *codecs = gr_codec_list();
    size_t count = 0;
    while (codecs[count] != NULL)
        count++;
    return codecs[byte % count];
}

/* Lengths of cuts and pieces, out of a number: the input itself is for the decoder. */
static size_t next_len(uint32_t *state, size_t most)
{
    *state = *state * 1664525 + 1013904223;
    return (*state >> 8) % most + 1;
}

static gr_decoder *new_decoder(const gr_codec *codec)
{
    gr_decoder *decoder;
    gr_decoder_options options = {
        .codec = codec, .max_bytes = CEILING, .window_bytes = BIGGEST_WINDOW, .digest = true};
    CHECK(gr_decoder_new(&decoder, &options) == 0);
    return decoder;
}

static void check_failed(gr_decoder *decoder, int rc)
{
    gr_buf out = {0};
    gr_slice none = {0};
    CHECK(rc == GR_EINVAL || rc == GR_EDATALOSS || rc == GR_EEXHAUSTED);
    CHECK(gr_decoder_why(decoder) != NULL && gr_decoder_why(decoder)[0] != '\0');
    CHECK(gr_decoder_step(decoder, &none, &out, 1) == rc && out.len == 0);
    CHECK(gr_decoder_finish(decoder) == rc);
}

/* One slice until it is used. Appends to `all` when that is not NULL. */
static int decode_slice(gr_decoder *decoder, gr_slice slice, size_t max_len, gr_buf *all)
{
    gr_buf out = {0};
    int rc;
    do {
        out.len = 0;
        rc = gr_decoder_step(decoder, &slice, &out, max_len);
        CHECK(out.len <= max_len && (rc != GR_MORE || out.len == max_len));
        if (all != NULL && rc >= 0)
            CHECK(gr_buf_append(all, out.data, out.len) == 0);
    } while (rc == GR_MORE);
    gr_buf_clear(&out);
    CHECK(rc < 0 || slice.len == 0);
    CHECK(gr_decoder_total(decoder) <= CEILING);
    return rc;
}

static int decode_all(gr_decoder *decoder, gr_slice in, uint32_t cuts, gr_buf *all)
{
    int rc = 0;
    while (rc == 0 && in.len > 0) {
        size_t len = next_len(&cuts, cuts & 1 ? 8 : 4096);
        if (len > in.len)
            len = in.len;
        rc = decode_slice(decoder, gr_slice_of(in.data, len), next_len(&cuts, 70000), all);
        in = gr_slice_skip(in, len);
    }
    return rc;
}

static void check_decoder(const gr_codec *codec, uint32_t cuts, gr_slice in)
{
    gr_decoder *decoder = new_decoder(codec);
    int rc = decode_all(decoder, in, cuts, NULL);
    bool ended = gr_decoder_ended(decoder);
    if (rc == 0)
        rc = gr_decoder_finish(decoder);
    CHECK(rc < 0 || ended);
    if (rc < 0)
        check_failed(decoder, rc);
    gr_decoder_destroy(&decoder);
}

static void encode_all(gr_encoder *encoder, gr_slice in, uint32_t cuts, uint32_t piece_bytes,
                       gr_buf *all)
{
    gr_buf piece = {0};
    enum gr_op op = GR_OP_WRITE;
    while (op != GR_OP_FINISH) {
        size_t len = next_len(&cuts, 1024);
        op = len % 4 == 0 ? GR_OP_SYNC : GR_OP_WRITE;
        if (len >= in.len) {
            len = in.len;
            op = GR_OP_FINISH;
        }
        gr_slice slice = gr_slice_of(in.data, len);
        in = gr_slice_skip(in, len);
        int rc = GR_MORE;
        while (rc == GR_MORE) {
            rc = gr_encoder_step(encoder, op, &slice, &piece);
            CHECK(rc >= 0 && piece.len <= piece_bytes && (rc != GR_MORE || piece.len > 0));
            if (rc == 0 && op == GR_OP_WRITE)
                break;
            CHECK(gr_buf_append(all, piece.data, piece.len) == 0);
            piece.len = 0;
        }
        CHECK(slice.len == 0);
    }
    gr_slice none = {0};
    CHECK(gr_encoder_step(encoder, GR_OP_WRITE, &none, &piece) == GR_ECLOSED);
    gr_buf_clear(&piece);
}

static void check_encoder(const gr_codec *codec, uint32_t cuts, gr_slice in)
{
    gr_encoder *encoder;
    int levels = codec->level_max - codec->level_min + 1;
    gr_encoder_options options = {
        .codec = codec,
        .level = codec->level_min + (int)(cuts % (uint32_t)levels) / 3,
        .piece_bytes = GR_PIECE_BYTES_MIN + cuts % 1000,
        .whole = codec->syncs && (cuts & 16),
        .digest = true,
    };
    gr_buf packed = {0}, back = {0};
    CHECK(gr_encoder_new(&encoder, &options) == 0);
    encode_all(encoder, in, cuts, options.piece_bytes, &packed);

    gr_decoder *decoder = new_decoder(codec);
    options.level = GR_LEVEL_DEFAULT;
    CHECK(decode_all(decoder, gr_buf_slice(&packed), cuts * 7, &back) == 0);
    CHECK(gr_decoder_finish(decoder) == 0);
    check_same_slice(in, gr_buf_slice(&back));
    uint8_t one[GR_DIGEST_LEN], other[GR_DIGEST_LEN];
    gr_digest_get(gr_encoder_digest(encoder), one);
    gr_digest_get(gr_decoder_digest(decoder), other);
    CHECK(memcmp(one, other, GR_DIGEST_LEN) == 0);
    gr_encoder_destroy(&encoder);
    gr_decoder_destroy(&decoder);
    gr_buf_clear(&packed);
    gr_buf_clear(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint8_t what = take_byte(&in);
    uint32_t cuts = (uint32_t)take_byte(&in) << 8 | take_byte(&in);
    gr_slice rest = gr_slice_of(in.at, in.left);
    if (what & 0x80)
        check_encoder(pick_codec(what & 0x7f), cuts, rest);
    else
        check_decoder(pick_codec(what), cuts, rest);
    return 0;
}
