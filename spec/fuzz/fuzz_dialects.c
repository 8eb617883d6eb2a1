/* fuzz_dialects.c - gate01, gate02 and RFC 7: any frames are refused or understood; what is
 * understood can be said again, means the same then, and can be said in gh1. */
#include "fuzz.h"

static const gr_dialect *const dialects[] = {&gr_dialect_gate01, &gr_dialect_gate02,
                                             &gr_dialect_mdp};

static void check_same(const gr_envelope *a, const gr_envelope *b)
{
    CHECK(a->type == b->type || (a->type == GR_ERROR && b->type == GR_END));
    CHECK(a->id == b->id && a->route == b->route);
    CHECK(gr_slice_equal(a->service, b->service));
    CHECK(gr_slice_equal(a->method, b->method));
    if (a->type == GR_REQUEST)
        CHECK(gr_slice_equal(a->payload, b->payload) && a->split == b->split);
}

static void check_again(const gr_dialect *dialect, enum gr_leg leg, const gr_envelope *envelope,
                        gr_slice id)
{
    gr_msg *msg;
    gr_buf scratch = {0};
    gr_envelope again;
    gr_envelope said = *envelope;
    if (said.sender.len == 0)
        said.sender = id;
    int rc = dialect->build(&said, leg, NULL, &msg);
    CHECK(rc == 0 || rc == GR_EINVAL || rc == GR_EEXHAUSTED);
    if (rc == 0 && msg != NULL) {
        CHECK(dialect->parse(msg, 0, leg, &scratch, &again) == 0);
        check_same(envelope, &again);
    }
    if (rc == 0)
        gr_msg_destroy(&msg);
    gr_buf_clear(&scratch);
}

static void check_gh1(const gr_envelope *envelope)
{
    gr_msg *msg;
    gr_envelope own;
    if (gr_dialect_gh1.build(envelope, GR_CLIENT_TO_BROKER, NULL, &msg) < 0)
        return;
    CHECK(gr_dialect_gh1.parse(msg, 0, GR_CLIENT_TO_BROKER, NULL, &own) == 0);
    CHECK(own.type == envelope->type && gr_slice_equal(own.payload, envelope->payload));
    gr_msg_destroy(&msg);
}

/* The last use of the envelope and the scratch. */
static void check_settled(gr_envelope *envelope, gr_msg **msg, gr_buf *scratch)
{
    gr_buf before = {0};
    uint8_t type = envelope->type;
    CHECK(gr_buf_append(&before, envelope->payload.data, envelope->payload.len) == 0);
    if (gr_wire_settle(envelope, msg, scratch) == 0) {
        gr_buf_clear(scratch);
        CHECK(envelope->type == type);
        CHECK(gr_slice_equal(envelope->payload, gr_buf_slice(&before)));
    }
    gr_buf_clear(&before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    gr_slice id = gr_slice_str("gw-0123456789");
    const gr_dialect *dialect = dialects[take_byte(&in) % 3];
    enum gr_leg leg = (enum gr_leg)(take_byte(&in) % 4);
    gr_msg *msg = take_foreign_msg(&in, id, id, id);
    gr_buf scratch = {0};
    gr_envelope envelope;
    CHECK(gr_msg_prepend(msg, id.data, id.len) == 0);
    const gr_dialect *found = gr_wire_recognise(msg, 1, leg);
    CHECK(found == NULL || found->recognise(msg, 1, leg));
    int rc = dialect->parse(msg, 1, leg, &scratch, &envelope);
    CHECK(rc == 0 || (rc == GR_EINVAL && envelope.why != NULL));
    if (rc == 0) {
        CHECK(envelope.type >= GR_HELLO && envelope.type <= GR_CHUNK);
        CHECK(envelope.type != GR_REQUEST || envelope.split <= envelope.payload.len);
        check_gh1(&envelope);
        if (envelope.type != GR_CHUNK)
            check_again(dialect, leg, &envelope, id);
        check_settled(&envelope, &msg, &scratch);
    }
    gr_msg_destroy(&msg);
    gr_buf_clear(&scratch);
    return 0;
}
