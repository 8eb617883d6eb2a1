/* fuzz.h - what the fuzzers share: an input that is read as numbers, bytes and messages. A used-up
 * input gives zeros, so every input means something. */
#ifndef GR_FUZZ_H
#define GR_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "wire/wire.h"

/* An assert that is never compiled out. */
#define CHECK(truth)                                                                               \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #truth);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t take_byte(struct input *in)
{
    if (in->left == 0)
        return 0;
    in->left--;
    return *in->at++;
}

/* Mostly a small number, sometimes one at a border. */
static inline uint32_t take_number(struct input *in)
{
    static const uint32_t borders[] = {0xffffffff, 0xfffffffe, 0x80000000, 0x7fffffff, 65537, 65536,
                                       65535,      3600000,    16385,      16384,      10000, 1000};
    uint8_t byte = take_byte(in);
    if (byte < 200)
        return byte;
    if (byte < 240)
        return (uint32_t)(byte - 199) * 50;
    return borders[byte % (sizeof(borders) / sizeof(borders[0]))];
}

/* At most as many bytes as the next byte says. */
static inline gr_slice take_bytes(struct input *in)
{
    size_t len = take_byte(in);
    if (len > in->left)
        len = in->left;
    gr_slice bytes = gr_slice_of(in->at, len);
    in->at += len;
    in->left -= len;
    return bytes;
}

static inline gr_slice pick_slice(struct input *in, const gr_slice *slices, size_t count)
{
    uint8_t which = take_byte(in);
    return which >= 250 ? take_bytes(in) : slices[which % count];
}

/* A payload that is long enough for a frame of its own; its first byte is `first`. */
static inline gr_slice long_payload(uint8_t first)
{
    static uint8_t bytes[20000];
    bytes[0] = first;
    return gr_slice_of(bytes, sizeof(bytes));
}

enum { BIGGEST_INLINE = 16 * 1024 };

static inline void check_same_slice(gr_slice a, gr_slice b)
{
    CHECK(gr_slice_equal(a, b));
}

/* The same but for what readdress() changes and the mark of a payload of its own. */
static inline void check_same_body(const gr_envelope *a, const gr_envelope *b)
{
    CHECK(a->type == b->type);
    CHECK((a->flags | GR_FLAG_DETACHED) == (b->flags | GR_FLAG_DETACHED));
    CHECK(a->credit == b->credit && a->window == b->window);
    CHECK(a->split == b->split && a->count == b->count);
    check_same_slice(a->service, b->service);
    check_same_slice(a->method, b->method);
    check_same_slice(a->payload, b->payload);
}

static inline void check_same_address(const gr_envelope *a, const gr_envelope *b)
{
    CHECK(a->status == b->status && a->id == b->id);
    CHECK(a->route == b->route && a->deadline_ms == b->deadline_ms);
}

/* One to four frames of raw bytes. */
static inline gr_msg *take_raw_msg(struct input *in)
{
    gr_msg *msg;
    CHECK(gr_msg_new(&msg) == 0);
    for (int frames = take_byte(in) % 5; frames > 0; frames--) {
        gr_slice bytes = take_bytes(in);
        CHECK(gr_msg_add(msg, bytes.data, bytes.len) == 0);
    }
    return msg;
}

static inline gr_msg *build_msg(const gr_envelope *envelope)
{
    gr_msg *msg;
    CHECK(gr_dialect_gh1.build(envelope, NULL, &msg) == 0);
    return msg;
}

/* What an engine sends can be read, and comes as the dialect wants it. */
static inline gr_envelope check_out(const gr_msg *msg, size_t first)
{
    gr_envelope envelope;
    CHECK(gr_dialect_gh1.parse(msg, first, &envelope) == 0);
    CHECK(gr_msg_len(msg) == first + (envelope.payload.len > BIGGEST_INLINE ? 2 : 1) ||
          (envelope.flags & GR_FLAG_DETACHED)); /* a peer may detach what is small */
    return envelope;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
