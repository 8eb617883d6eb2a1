/* mp.h - reading msgpack with bounds, token by token.
 *
 * Source of the format: https://github.com/msgpack/msgpack/blob/master/spec.md. Nothing here
 * allocates, recurses without a bound, or believes a length before it has seen that many bytes
 * are there: an array of n elements needs n bytes to follow, a map 2n. msgpack-c packs for us
 * but does not read: its unpacker stops at depth 32 and reserves memory for the length that a
 * message claims. */
#ifndef GR_MP_H
#define GR_MP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* What a value may be at most, in both directions; a typed error beyond. */
enum {
    GR_MP_MAX_DEPTH = 64,
    GR_MP_MAX_BYTES = 32 << 20,   /* one str, bin or ext */
    GR_MP_MAX_ELEMENTS = 1 << 20, /* one array, or pairs of one map */
};

enum gr_mp_type {
    GR_MP_NIL,
    GR_MP_BOOL,
    GR_MP_INT,  /* fits int64_t */
    GR_MP_UINT, /* above INT64_MAX */
    GR_MP_FLOAT,
    GR_MP_STR,
    GR_MP_BIN,
    GR_MP_EXT,
    GR_MP_ARRAY,
    GR_MP_MAP,
};

typedef struct gr_mp_token {
    enum gr_mp_type type;
    int8_t ext; /* the type of a GR_MP_EXT */
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double d;
        gr_slice bytes; /* GR_MP_STR, GR_MP_BIN, GR_MP_EXT: points into the message */
        uint32_t count; /* GR_MP_ARRAY: elements, GR_MP_MAP: pairs, to be read next */
    } as;
} gr_mp_token;

typedef struct gr_mp_reader {
    const uint8_t *at;
    const uint8_t *end;
} gr_mp_reader;

static inline gr_mp_reader gr_mp_read(gr_slice bytes)
{
    /* NULL + 0 is not defined in C */
    return (gr_mp_reader){.at = bytes.data,
                          .end = bytes.len > 0 ? bytes.data + bytes.len : bytes.data};
}

/* Reads one token. Returns 0; GR_EINVAL when the bytes end too early or are not msgpack;
 * GR_EEXHAUSTED beyond GR_MP_MAX_BYTES or GR_MP_MAX_ELEMENTS, whether so many bytes follow or
 * not. On an error the reader has not moved. */
int gr_mp_next(gr_mp_reader *self, gr_mp_token *out);

/* Reads over one whole value, containers included. Errors as above, and GR_EEXHAUSTED beyond
 * GR_MP_MAX_DEPTH. */
int gr_mp_skip(gr_mp_reader *self);

/* What keys a reader of maps takes. */
enum gr_mp_keys {
    GR_MP_KEYS_TEXT,   /* str and bin only */
    GR_MP_KEYS_SCALAR, /* anything but arrays and maps */
};

/* Checks that bytes are exactly one value which a strict reader takes: str is UTF-8 everywhere, and
 * keys are of that kind. Returns 0, GR_EINVAL, or GR_EEXHAUSTED as gr_mp_skip(). */
int gr_mp_check(gr_slice bytes, enum gr_mp_keys keys);

/* Writes what stands before so many bytes, below 4 GiB, of a str or bin: the long form, whatever
 * the length. */
enum { GR_MP_HEAD = 5, GR_MP_STR32 = 0xdb, GR_MP_BIN32 = 0xc6 };
static inline void gr_mp_put_head(uint8_t head[GR_MP_HEAD], uint8_t type, size_t len)
{
    head[0] = type;
    for (int i = 1; i < GR_MP_HEAD; i++)
        head[i] = (uint8_t)(len >> (32 - 8 * i));
}

/* True when the bytes are well-formed UTF-8 (RFC 3629: no surrogates, nothing above 10FFFF). */
bool gr_mp_is_utf8(const uint8_t *data, size_t len);

#endif
