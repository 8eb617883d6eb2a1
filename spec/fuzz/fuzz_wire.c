/* fuzz_wire.c - gh1: any frames are refused or understood; what is understood is built again. */
#include "fuzz.h"

enum { MAX_FRAMES = 70 };

/* Frames: a byte of how many, then for each two bytes of length and the bytes. */
static gr_msg *take_msg(struct input *in)
{
    gr_msg *msg;
    CHECK(gr_msg_new(&msg) == 0);
    for (int frames = take_byte(in) % MAX_FRAMES; frames > 0; frames--) {
        size_t len = (size_t)take_byte(in) << 8;
        len |= take_byte(in);
        if (len > in->left)
            len = in->left;
        zmq_msg_t frame;
        CHECK(zmq_msg_init_size(&frame, len) == 0);
        if (len > 0)
            memcpy(zmq_msg_data(&frame), in->at, len);
        CHECK(gr_msg_add_zmq(msg, &frame) == 0);
        zmq_msg_close(&frame);
        in->at += len;
        in->left -= len;
    }
    return msg;
}

static void check_within(const gr_msg *msg, size_t first, gr_slice bytes)
{
    for (size_t i = first; i < gr_msg_len(msg); i++) {
        gr_slice frame = gr_msg_frame(msg, i);
        if (bytes.data >= frame.data && bytes.data + bytes.len <= frame.data + frame.len)
            return;
    }
    CHECK(bytes.len == 0);
}

static void check_rebuilt(const gr_envelope *envelope)
{
    gr_envelope again;
    gr_msg *msg = build_msg(envelope);
    CHECK(gr_dialect_gh1.parse(msg, 0, GR_CLIENT_TO_BROKER, NULL, &again) == 0);
    check_same_body(envelope, &again);
    check_same_address(envelope, &again);
    CHECK(!!(again.flags & GR_FLAG_DETACHED) == (again.payload.len > BIGGEST_INLINE));
    gr_msg_destroy(&msg);
}

static void check_readdressed(gr_msg *msg, size_t first, const gr_envelope *envelope, bool shared)
{
    gr_envelope hop = {
        .status = 7, .id = 0x0102030405060708, .route = ~(uint64_t)0, .deadline_ms = 9};
    gr_envelope again;
    gr_msg *copy = NULL;
    if (shared)
        CHECK(gr_msg_copy(msg, &copy) == 0);
    CHECK(gr_gh1_readdress(msg, first, &hop) == 0);
    CHECK(gr_dialect_gh1.parse(msg, first, GR_CLIENT_TO_BROKER, NULL, &again) == 0);
    check_same_address(&hop, &again);
    if (shared) { /* the other one has not changed */
        CHECK(gr_dialect_gh1.parse(copy, first, GR_CLIENT_TO_BROKER, NULL, &again) == 0);
        check_same_address(envelope, &again);
    }
    gr_msg_destroy(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    size_t first = take_byte(&in) % 3;
    bool shared = take_byte(&in) & 1;
    gr_msg *msg = take_msg(&in);
    gr_envelope envelope;
    int rc = gr_dialect_gh1.parse(msg, first, GR_CLIENT_TO_BROKER, NULL, &envelope);
    CHECK(rc == 0 || rc == GR_EINVAL);
    CHECK(rc < 0 || gr_dialect_gh1.recognise(msg, first, GR_CLIENT_TO_BROKER));
    if (rc == 0) {
        check_within(msg, first, envelope.service);
        check_within(msg, first, envelope.method);
        check_within(msg, first, envelope.payload);
        CHECK(envelope.type >= GR_HELLO && envelope.type <= GR_CHUNK);
        CHECK(envelope.type != GR_REQUEST || envelope.split <= envelope.payload.len);
        if (gr_wire_is_name(envelope.service))
            CHECK(envelope.service.len > 0 &&
                  !memchr(envelope.service.data, ' ', envelope.service.len));
        check_rebuilt(&envelope);
        gr_envelope longer = envelope;
        longer.payload = long_payload(data[0]);
        check_rebuilt(&longer);
        check_readdressed(msg, first, &envelope, shared); /* the slices may be void now */
    }
    gr_msg_destroy(&msg);
    return 0;
}
