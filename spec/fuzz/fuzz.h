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

/* Up to 12 frames, mostly words of the older dialects, so that many messages are nearly right. `id`
 * is the sender's routing id, which gate01 repeats, `caller` and `tag` name a call of its broker.
 */
static inline gr_msg *take_foreign_msg(struct input *in, gr_slice id, gr_slice caller, gr_slice tag)
{
    static const struct {
        const char *bytes;
        size_t len;
    } words[] = {
        {"", 0},
        {"MDPC01", 6},
        {"MDPW01", 6},
        {"\1", 1},
        {"\2", 1},
        {"\3", 1},
        {"\4", 1},
        {"\5", 1},
        {"S", 1},
        {"S:d", 3},
        {"S:d:3", 5},
        {"S.m", 3},
        {"Gate", 4},
        {"PLAIN", 5},
        {"NULL", 4},
        {"u", 1},
        {"0123456789abcdef0123456789abcdef", 32},
        {"0123456789abcdef", 16},
        {"\x00\x00\x00\x00\x00\x01\x40\x00\x80\x00\x00\x00\x00\x00\x00\x00", 16},
        {"\xa1m", 2},
        {"\xacget_services", 13},
        {"\x90", 1},
        {"\x91\x01", 2},
        {"\x80", 1},
        {"\x81\xa1k\x01", 4},
        {"\x82\xa6result\x05\xa9"
         "exception\xc0",
         19},
        {"GateStreamGenerator", 19},
        {"GateStreamEnd", 13},
        {"GateStreamException", 19},
        {"GateStreamHugData", 17},
        {"\x93\xa1"
         "E\xa1m\xa1t",
         7},
        {"200", 3},
        {"\xc1", 1},
    };
    enum { WORDS = sizeof(words) / sizeof(words[0]) };
    gr_msg *msg;
    CHECK(gr_msg_new(&msg) == 0);
    for (int frames = take_byte(in) % 13; frames > 0; frames--) {
        uint8_t which = take_byte(in);
        gr_slice bytes = which >= 230   ? take_bytes(in)
                         : which >= 200 ? id
                         : which >= 190 ? tag
                         : which >= 180
                             ? caller
                             : gr_slice_of(words[which % WORDS].bytes, words[which % WORDS].len);
        CHECK(gr_msg_add(msg, bytes.data, bytes.len) == 0);
    }
    return msg;
}

static inline gr_msg *build_msg(const gr_envelope *envelope)
{
    gr_msg *msg;
    CHECK(gr_dialect_gh1.build(envelope, GR_CLIENT_TO_BROKER, NULL, &msg) == 0);
    return msg;
}

/* What an engine sends can be read, and comes as the dialect wants it. */
static inline gr_envelope check_out(const gr_msg *msg, size_t first)
{
    gr_envelope envelope;
    CHECK(gr_dialect_gh1.parse(msg, first, GR_CLIENT_TO_BROKER, NULL, &envelope) == 0);
    CHECK(gr_msg_len(msg) == first + (envelope.payload.len > BIGGEST_INLINE ? 2 : 1) ||
          (envelope.flags & GR_FLAG_DETACHED)); /* a peer may detach what is small */
    return envelope;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
