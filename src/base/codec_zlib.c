/* codec_zlib.c - gzip and zlib, by zlib. */
#include <stdlib.h>
#include <zlib.h>

#include "base/codec.h"
#include "base/err.h"

enum { ZLIB_BITS = 15, GZIP_BITS = 15 + 16, MEM_LEVEL = 8 };

static int err_of(int rc)
{
    return rc == Z_MEM_ERROR ? GR_ENOMEM : GR_EINTERNAL;
}

static void lend(z_stream *z, const gr_slice *in, const gr_room *out)
{
    z->next_in = (Bytef *)in->data;
    z->avail_in = (uInt)in->len;
    z->next_out = out->at;
    z->avail_out = (uInt)out->left;
}

static void take_back(const z_stream *z, gr_slice *in, gr_room *out)
{
    *in = gr_slice_of(z->next_in, z->avail_in);
    *out = (gr_room){z->next_out, z->avail_out};
}

/* --- encoder -------------------------------------------------------------------------------- */

struct packer {
    z_stream z;
    gz_header header;
    bool stored; /* gzip at level 0 */
};

static int new_packer(void **state, int level, int bits)
{
    struct packer *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    int rc = deflateInit2(&self->z, level, Z_DEFLATED, bits, MEM_LEVEL, Z_DEFAULT_STRATEGY);
    if (rc != Z_OK) {
        free(self);
        return err_of(rc);
    }
    *state = self;
    return 0;
}

static int zlib_encoder_new(void **state, int level, uint32_t mtime_s)
{
    (void)mtime_s;
    return new_packer(state, level, ZLIB_BITS);
}

/* The header is that of the original: no flags, its time, an unknown system. */
static int gzip_encoder_new(void **state, int level, uint32_t mtime_s)
{
    enum { UNKNOWN_SYSTEM = 255 };
    int rc = new_packer(state, level, GZIP_BITS);
    if (rc < 0)
        return rc;
    struct packer *self = *state;
    self->stored = level == 0;
    self->header = (gz_header){.time = mtime_s, .os = UNKNOWN_SYSTEM};
    deflateSetHeader(&self->z, &self->header);
    return 0;
}

/* zlib calls level 0 fast in the header, the original does not. */
static void correct_xfl(const struct packer *self, uLong before, gr_room out)
{
    enum { AT_XFL = 8 };
    if (self->stored && before <= AT_XFL && self->z.total_out > AT_XFL)
        out.at[AT_XFL - before] = 0;
}

static int encode(void *state, enum gr_op op, gr_slice *in, gr_room *out)
{
    static const int flush[] = {Z_NO_FLUSH, Z_SYNC_FLUSH, Z_FINISH};
    struct packer *self = state;
    z_stream *z = &self->z;
    uLong before = z->total_out;
    lend(z, in, out);
    int rc = deflate(z, flush[op]);
    correct_xfl(self, before, *out);
    take_back(z, in, out);
    if (rc == Z_STREAM_END || rc == Z_BUF_ERROR) /* the latter: nothing to do */
        return 0;
    if (rc != Z_OK)
        return err_of(rc);
    if (op == GR_OP_WRITE)
        return in->len > 0 ? GR_MORE : 0;
    return op == GR_OP_SYNC && out->left > 0 ? 0 : GR_MORE;
}

static void encoder_free(void *state)
{
    struct packer *self = state;
    deflateEnd(&self->z);
    free(self);
}

/* --- decoder -------------------------------------------------------------------------------- */

static int new_unpacker(void **state, int bits)
{
    z_stream *z = calloc(1, sizeof(*z));
    if (z == NULL)
        return GR_ENOMEM;
    int rc = inflateInit2(z, bits);
    if (rc != Z_OK) {
        free(z);
        return err_of(rc);
    }
    *state = z;
    return 0;
}

static int zlib_decoder_new(void **state, size_t window_bytes)
{
    (void)window_bytes; /* 32 KiB by the format */
    return new_unpacker(state, ZLIB_BITS);
}

static int gzip_decoder_new(void **state, size_t window_bytes)
{
    (void)window_bytes;
    return new_unpacker(state, GZIP_BITS);
}

static int decode(void *state, gr_slice *in, gr_room *out, bool *ended, const char **why)
{
    enum { ZLIB_HEADER_LEN = 2 };
    z_stream *z = state;
    lend(z, in, out);
    int rc = inflate(z, Z_NO_FLUSH);
    take_back(z, in, out);
    *why = z->msg;
    switch (rc) {
    case Z_STREAM_END:
        *ended = true;
        return 0;
    case Z_OK:
    case Z_BUF_ERROR: /* nothing to do */
        return 0;
    case Z_NEED_DICT:
        *why = "it needs a dictionary";
        return GR_EINVAL;
    case Z_DATA_ERROR:
        return z->total_in <= ZLIB_HEADER_LEN ? GR_EINVAL : GR_EDATALOSS;
    default:
        return err_of(rc);
    }
}

static void decoder_free(void *state)
{
    inflateEnd(state);
    free(state);
}

/* --- the codecs ----------------------------------------------------------------------------- */

const gr_codec gr_codec_gzip = {
    .name = "gzip",
    .level_min = 0,
    .level_max = 9,
    .level_default = 1,
    .syncs = true,
    .window_bytes = 32 << 10,
    .encode_small = 2 << 10,
    .decode_small = 4 << 10,
    .magic = {(const uint8_t *)"\x1f\x8b\x08", 3},
    .encoder_new = gzip_encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
    .decoder_new = gzip_decoder_new,
    .decode = decode,
    .decoder_free = decoder_free,
};

const gr_codec gr_codec_zlib = {
    .name = "zlib",
    .level_min = 0,
    .level_max = 9,
    .level_default = 1,
    .syncs = true,
    .window_bytes = 32 << 10,
    .encode_small = 2 << 10,
    .decode_small = 4 << 10,
    .encoder_new = zlib_encoder_new,
    .encode = encode,
    .encoder_free = encoder_free,
    .decoder_new = zlib_decoder_new,
    .decode = decode,
    .decoder_free = decoder_free,
};
