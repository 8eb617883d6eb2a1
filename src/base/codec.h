/* codec.h - compression as a stream, one interface for all libraries.
 *
 * An encoder takes bytes and makes pieces of at most so many bytes; a decoder takes those, cut in
 * any way, and gives the bytes back in steps of at most so many. Neither does I/O, reads a clock,
 * or starts a thread (net/coder.h runs them in libuv's pool), and neither allocates by what a
 * stream claims about itself: the sum of a decoder's output has a ceiling, and so has the window
 * that a stream may ask for. Not thread-safe; an object belongs to one thread at a time. */
#ifndef GR_CODEC_H
#define GR_CODEC_H

#include <limits.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/digest.h"

enum {
    GR_MORE = 1, /* the buffer is full: go on with another one */
    GR_LEVEL_DEFAULT = INT_MIN,
};

/* Sizes, when options leave them 0. */
#define GR_PIECE_BYTES     (64u << 10)
#define GR_PIECE_BYTES_MIN 512u
#define GR_PIECE_BYTES_MAX (64u << 20)
#define GR_INFLATED_BYTES  (256u << 20)

enum gr_op {
    GR_OP_WRITE,  /* take the input; output comes when the library likes */
    GR_OP_SYNC,   /* and bring out all of it, so that the other side can decode it now */
    GR_OP_FINISH, /* and end the stream */
};

/* Where a library may put bytes. It advances both. */
typedef struct gr_room {
    uint8_t *at;
    size_t left;
} gr_room;

/* What is left behind the first `len` bytes. */
static inline gr_room gr_room_skip(gr_room self, size_t len)
{
    return (gr_room){self.at + len, self.left - len};
}

/* One library. Its functions are called by this module only; `state` is the library's own. */
typedef struct gr_codec {
    const char *name;
    int level_min, level_max, level_default;
    bool syncs;          /* GR_OP_SYNC keeps its promise; without, some bits stay behind */
    size_t window_bytes; /* what a stream may ask for unless options say otherwise */
    size_t encode_small; /* bytes that are sooner done at once, at the default level, than */
    size_t decode_small; /* handed to another thread (34 us) */
    gr_slice magic;      /* every stream begins with it */

    int (*encoder_new)(void **state, int level, uint32_t mtime_s);
    /* One step. `in` is empty unless op is GR_OP_WRITE. Returns GR_MORE when out is full, 0 when
     * all of `in` is taken (GR_OP_WRITE) or everything is out, or GR_ENOMEM, GR_EINTERNAL. */
    int (*encode)(void *state, enum gr_op op, gr_slice *in, gr_room *out);
    void (*encoder_free)(void *state);

    int (*decoder_new)(void **state, size_t window_bytes);
    /* One step, until `in` is used or `out` is full. Sets *ended at the end of the stream, behind
     * which nothing is taken. Returns 0, or an error and why, a static text or one of the state's.
     */
    int (*decode)(void *state, gr_slice *in, gr_room *out, bool *ended, const char **why);
    void (*decoder_free)(void *state);
} gr_codec;

extern const gr_codec gr_codec_gzip, gr_codec_zlib, gr_codec_zstd, gr_codec_lz4, gr_codec_bz2,
    gr_codec_lzma;

/* The codec of this name, or NULL. */
const gr_codec *gr_codec_find(const char *name);

/* All codecs, the last one followed by NULL. */
const gr_codec *const *gr_codec_list(void);

/* --- encoders ------------------------------------------------------------------------------- */

typedef struct gr_encoder gr_encoder;

typedef struct gr_encoder_options {
    const gr_codec *codec;
    int level;            /* GR_LEVEL_DEFAULT, or from level_min to level_max */
    uint32_t mtime_s;     /* for the header of gzip; 0 for unknown */
    uint32_t piece_bytes; /* the most that a piece holds; 0 for GR_PIECE_BYTES */
    bool whole;           /* each piece ends with a sync, so a reader need not keep a rest of it */
    bool digest;          /* of the bytes that go in */
} gr_encoder_options;

/* The library's part is made by the first step, so this costs nothing. Returns 0, GR_ENOMEM, or
 * GR_EINVAL: no such level or piece size, or whole pieces of a codec that cannot sync. */
int gr_encoder_new(gr_encoder **out, const gr_encoder_options *options);
void gr_encoder_destroy(gr_encoder **self);

/* Takes from *in and appends to piece. Returns GR_MORE when the piece is complete: hand it on and
 * call again with an empty one and the rest of the input. Returns 0 when op is done; after
 * GR_OP_WRITE the piece is to be filled further, after the others it is complete (and may be
 * empty). A sync with nothing taken since the last one, or the start, gives nothing. Errors:
 * GR_ENOMEM, GR_EINTERNAL, GR_ECLOSED (after GR_OP_FINISH was done or an error). */
int gr_encoder_step(gr_encoder *self, enum gr_op op, gr_slice *in, gr_buf *piece);

/* Bytes taken since the last sync: what the next one has to bring out. */
size_t gr_encoder_held(const gr_encoder *self);

/* NULL without options.digest. */
const gr_digest *gr_encoder_digest(const gr_encoder *self);

/* --- decoders ------------------------------------------------------------------------------- */

typedef struct gr_decoder gr_decoder;

typedef struct gr_decoder_options {
    const gr_codec *codec;
    uint64_t max_bytes;  /* of all output; 0 for GR_INFLATED_BYTES */
    size_t window_bytes; /* 0 for the codec's own */
    bool digest;         /* of the bytes that come out */
} gr_decoder_options;

/* Returns 0 or GR_ENOMEM. */
int gr_decoder_new(gr_decoder **out, const gr_decoder_options *options);
void gr_decoder_destroy(gr_decoder **self);

/* Takes from *in and appends to out until that holds max_len bytes. Returns GR_MORE when it does;
 * there may be more, also when *in is empty. Returns 0 when all of *in is used. Errors, which stay:
 *   GR_EINVAL     not a stream of this codec, or bytes behind its end (a second one, too)
 *   GR_EDATALOSS  damaged, or its own checksum does not fit
 *   GR_EEXHAUSTED more than max_bytes, or a window above window_bytes
 *   GR_ENOMEM */
int gr_decoder_step(gr_decoder *self, gr_slice *in, gr_buf *out, size_t max_len);

/* Nothing follows. Returns 0 at the end of the stream, the error of an earlier step, or
 * GR_EDATALOSS: it is incomplete. */
int gr_decoder_finish(gr_decoder *self);

/* The end of the stream has been seen, its checksum too. */
bool gr_decoder_ended(const gr_decoder *self);

/* Bytes that came out so far. */
uint64_t gr_decoder_total(const gr_decoder *self);

/* What was wrong, for people; NULL when nothing was. */
const char *gr_decoder_why(const gr_decoder *self);

/* NULL without options.digest. */
const gr_digest *gr_decoder_digest(const gr_decoder *self);

#endif
