/*
 * bare_codec - what the compression libraries can do in one thread, as a yardstick for
 * gaterpc.codec.
 *
 *   bare_codec CODEC LEVEL FILE SECONDS
 *
 * Compresses the file again and again, from memory, into a buffer of 64 KiB that nobody reads, and
 * then decompresses it, likewise. Prints one line:
 *
 *   encode_mb_s=... decode_mb_s=... bytes=...
 *
 * Megabytes are those of the file; bytes is the compressed size. Exit status: 0 done, 1 failed.
 */
#include <bzlib.h>
#include <lz4frame.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zlib.h>
#include <zstd.h>

enum { OUT = 64 << 10 };

struct bytes {
    uint8_t *data;
    size_t len;
};

static uint8_t *out; /* OUT bytes, or more for the first compression */
static size_t out_len;

static void fail(const char *what)
{
    fprintf(stderr, "bare_codec: %s\n", what);
    exit(1);
}

/* Without `kept` everything goes into the same OUT bytes, else behind each other. */
static uint8_t *place(size_t made, bool kept)
{
    return kept ? out + made : out;
}

static size_t room(size_t made, bool kept)
{
    return kept ? out_len - made : OUT;
}

/* --- one whole compression or decompression; returns the bytes made --------------------------- */

static size_t deflate_all(struct bytes in, int level, int bits, bool kept)
{
    z_stream z = {.next_in = in.data, .avail_in = (uInt)in.len};
    size_t made = 0;
    int rc;
    if (deflateInit2(&z, level, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        fail("deflateInit2");
    do {
        z.next_out = place(made, kept);
        z.avail_out = (uInt)room(made, kept);
        rc = deflate(&z, Z_FINISH);
        made = z.total_out;
    } while (rc == Z_OK);
    deflateEnd(&z);
    return made;
}

static size_t inflate_all(struct bytes in, int bits)
{
    z_stream z = {.next_in = in.data, .avail_in = (uInt)in.len};
    int rc;
    if (inflateInit2(&z, bits) != Z_OK)
        fail("inflateInit2");
    do {
        z.next_out = out;
        z.avail_out = OUT;
        rc = inflate(&z, Z_NO_FLUSH);
    } while (rc == Z_OK);
    size_t made = z.total_out;
    inflateEnd(&z);
    return made;
}

static size_t zstd_all(struct bytes in, int level, bool kept)
{
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
    ZSTD_inBuffer from = {in.data, in.len, 0};
    size_t made = 0, left;
    while (from.pos < from.size) {
        ZSTD_outBuffer to = {place(made, kept), room(made, kept), 0};
        ZSTD_compressStream2(ctx, &to, &from, ZSTD_e_continue);
        made += to.pos;
    }
    do {
        ZSTD_outBuffer to = {place(made, kept), room(made, kept), 0};
        left = ZSTD_compressStream2(ctx, &to, &from, ZSTD_e_end);
        made += to.pos;
    } while (left > 0 && !ZSTD_isError(left));
    ZSTD_freeCCtx(ctx);
    return made;
}

static size_t unzstd_all(struct bytes in)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    ZSTD_inBuffer from = {in.data, in.len, 0};
    size_t made = 0, left;
    do {
        ZSTD_outBuffer to = {out, OUT, 0};
        left = ZSTD_decompressStream(ctx, &to, &from);
        made += to.pos;
    } while (left > 0 && !ZSTD_isError(left));
    ZSTD_freeDCtx(ctx);
    return made;
}

static size_t lz4_all(struct bytes in, int level, bool kept)
{
    enum { STEP = 64 << 10 };
    static uint8_t stage[2 * STEP + 1024];
    LZ4F_preferences_t preferences = {
        .frameInfo = {.blockSizeID = LZ4F_max64KB,
                      .contentChecksumFlag = LZ4F_contentChecksumEnabled},
        .compressionLevel = level,
    };
    LZ4F_cctx *ctx;
    if (LZ4F_isError(LZ4F_createCompressionContext(&ctx, LZ4F_VERSION)))
        fail("LZ4F_createCompressionContext");
    uint8_t *to = kept ? out : stage;
    size_t made = LZ4F_compressBegin(ctx, to, sizeof(stage), &preferences);
    for (size_t at = 0; at < in.len; at += STEP) {
        size_t len = in.len - at < STEP ? in.len - at : STEP;
        to = kept ? out + made : stage;
        made += LZ4F_compressUpdate(ctx, to, sizeof(stage), in.data + at, len, NULL);
    }
    made += LZ4F_compressEnd(ctx, kept ? out + made : stage, sizeof(stage), NULL);
    LZ4F_freeCompressionContext(ctx);
    return made;
}

static size_t unlz4_all(struct bytes in)
{
    LZ4F_dctx *ctx;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
        fail("LZ4F_createDecompressionContext");
    size_t at = 0, made = 0, left;
    do {
        size_t now = OUT, taken = in.len - at;
        left = LZ4F_decompress(ctx, out, &now, in.data + at, &taken, NULL);
        at += taken;
        made += now;
    } while (left > 0 && !LZ4F_isError(left));
    LZ4F_freeDecompressionContext(ctx);
    return made;
}

static size_t bz2_all(struct bytes in, int level, bool kept)
{
    bz_stream bz = {.next_in = (char *)in.data, .avail_in = (unsigned)in.len};
    size_t made = 0;
    int rc;
    if (BZ2_bzCompressInit(&bz, level, 0, 0) != BZ_OK)
        fail("BZ2_bzCompressInit");
    do {
        size_t given = room(made, kept);
        bz.next_out = (char *)place(made, kept);
        bz.avail_out = (unsigned)given;
        rc = BZ2_bzCompress(&bz, BZ_FINISH);
        made += given - bz.avail_out;
    } while (rc == BZ_FINISH_OK);
    BZ2_bzCompressEnd(&bz);
    return made;
}

static size_t unbz2_all(struct bytes in)
{
    bz_stream bz = {.next_in = (char *)in.data, .avail_in = (unsigned)in.len};
    size_t made = 0;
    int rc;
    if (BZ2_bzDecompressInit(&bz, 0, 0) != BZ_OK)
        fail("BZ2_bzDecompressInit");
    do {
        bz.next_out = (char *)out;
        bz.avail_out = OUT;
        rc = BZ2_bzDecompress(&bz);
        made += OUT - bz.avail_out;
    } while (rc == BZ_OK);
    BZ2_bzDecompressEnd(&bz);
    return made;
}

static size_t code_lzma(lzma_stream *lzma, struct bytes in, bool kept)
{
    size_t made = 0;
    lzma_ret rc;
    lzma->next_in = in.data;
    lzma->avail_in = in.len;
    do {
        lzma->next_out = place(made, kept);
        lzma->avail_out = room(made, kept);
        rc = lzma_code(lzma, LZMA_FINISH);
        made = (size_t)lzma->total_out;
    } while (rc == LZMA_OK);
    lzma_end(lzma);
    return made;
}

static size_t lzma_all(struct bytes in, int level, bool kept)
{
    lzma_stream lzma = LZMA_STREAM_INIT;
    if (lzma_easy_encoder(&lzma, (uint32_t)level, LZMA_CHECK_CRC64) != LZMA_OK)
        fail("lzma_easy_encoder");
    return code_lzma(&lzma, in, kept);
}

static size_t unlzma_all(struct bytes in)
{
    lzma_stream lzma = LZMA_STREAM_INIT;
    if (lzma_stream_decoder(&lzma, UINT64_MAX, 0) != LZMA_OK)
        fail("lzma_stream_decoder");
    return code_lzma(&lzma, in, false);
}

/* --- measuring ------------------------------------------------------------------------------- */

static size_t encode(const char *codec, int level, struct bytes in, bool kept)
{
    if (strcmp(codec, "gzip") == 0 || strcmp(codec, "zlib") == 0)
        return deflate_all(in, level, codec[0] == 'g' ? 31 : 15, kept);
    if (strcmp(codec, "zstd") == 0)
        return zstd_all(in, level, kept);
    if (strcmp(codec, "lz4") == 0)
        return lz4_all(in, level, kept);
    return strcmp(codec, "bz2") == 0 ? bz2_all(in, level, kept) : lzma_all(in, level, kept);
}

static size_t decode(const char *codec, struct bytes in)
{
    if (strcmp(codec, "gzip") == 0 || strcmp(codec, "zlib") == 0)
        return inflate_all(in, codec[0] == 'g' ? 31 : 15);
    if (strcmp(codec, "zstd") == 0)
        return unzstd_all(in);
    if (strcmp(codec, "lz4") == 0)
        return unlz4_all(in);
    return strcmp(codec, "bz2") == 0 ? unbz2_all(in) : unlzma_all(in);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct bytes read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0)
        fail("cannot read the file");
    struct bytes all = {.len = (size_t)ftell(file)};
    rewind(file);
    all.data = malloc(all.len);
    if (all.data == NULL || fread(all.data, 1, all.len, file) != all.len)
        fail("cannot read the file");
    fclose(file);
    return all;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        fail("usage: bare_codec CODEC LEVEL FILE SECONDS");
    const char *codec = argv[1];
    int level = atoi(argv[2]);
    struct bytes data = read_file(argv[3]);
    double seconds = atof(argv[4]);
    out_len = data.len * 2 + (1 << 20);
    out = malloc(out_len);
    if (out == NULL)
        fail("out of memory");
    struct bytes packed = {.len = encode(codec, level, data, true)};
    packed.data = malloc(packed.len);
    memcpy(packed.data, out, packed.len);

    double begun = now_s(), took;
    int rounds = 0;
    do {
        encode(codec, level, data, false);
        took = now_s() - begun;
        rounds++;
    } while (took < seconds);
    printf("encode_mb_s=%.1f ", (double)data.len * rounds / took / 1e6);
    begun = now_s();
    rounds = 0;
    do {
        if (decode(codec, packed) != data.len)
            fail("what comes back is not what went in");
        took = now_s() - begun;
        rounds++;
    } while (took < seconds);
    printf("decode_mb_s=%.1f bytes=%zu\n", (double)data.len * rounds / took / 1e6, packed.len);
    return 0;
}
