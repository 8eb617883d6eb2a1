/* wire_gh1.c - our own dialect: one frame, whose fields stand at fixed offsets, so that the broker
 * writes route and deadline in place and forwards the same frame. A payload above 16 KiB is a
 * second frame and is never copied. docs/protocol.md has the same table. */
#include "base/err.h"
#include "wire/wire.h"

enum {
    MAGIC = 'G',
    VERSION = 1,
    DETACH_ABOVE = 16 * 1024,

    AT_MAGIC = 0,
    AT_VERSION = 1,
    AT_TYPE = 2,
    AT_FLAGS = 3,
    AT_SERVICE_LEN = 4,
    AT_METHOD_LEN = 5,
    AT_STATUS = 6,
    AT_ID = 8,
    AT_ROUTE = 16,
    AT_DEADLINE = 24,
    AT_CREDIT = 28,
    AT_WINDOW = 32,
    AT_SPLIT = 36,
    AT_COUNT = 40,
    AT_PAYLOAD_LEN = 44,
    HEADER_LEN = 48,
};

/* Numbers are big-endian on the wire. */

static void put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put_u32(uint8_t *at, uint32_t value)
{
    put_u16(at, (uint16_t)(value >> 16));
    put_u16(at + 2, (uint16_t)value);
}

static void put_u64(uint8_t *at, uint64_t value)
{
    put_u32(at, (uint32_t)(value >> 32));
    put_u32(at + 4, (uint32_t)value);
}

static uint16_t get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get_u32(const uint8_t *at)
{
    return (uint32_t)get_u16(at) << 16 | get_u16(at + 2);
}

static uint64_t get_u64(const uint8_t *at)
{
    return (uint64_t)get_u32(at) << 32 | get_u32(at + 4);
}

static bool is_header(gr_slice head)
{
    return head.len >= HEADER_LEN && head.data[AT_MAGIC] == MAGIC &&
           head.data[AT_VERSION] == VERSION && head.data[AT_TYPE] >= GR_HELLO &&
           head.data[AT_TYPE] <= GR_CHUNK;
}

static int get_payload(const gr_msg *msg, size_t first, gr_slice head, size_t names_end,
                       gr_slice *out)
{
    size_t payload_len = get_u32(head.data + AT_PAYLOAD_LEN);
    bool detached = head.data[AT_FLAGS] & GR_FLAG_DETACHED;
    if (gr_msg_len(msg) != first + (detached ? 2 : 1) || gr_msg_is_cut(msg))
        return GR_EINVAL;
    if (detached)
        *out = gr_msg_frame(msg, first + 1);
    else
        *out = gr_slice_of(head.data + names_end, head.len - names_end);
    if (detached && head.len != names_end)
        return GR_EINVAL;
    return out->len == payload_len ? 0 : GR_EINVAL;
}

static bool recognise(const gr_msg *msg, size_t first, enum gr_leg leg)
{
    (void)leg;
    return gr_msg_len(msg) > first && is_header(gr_msg_frame(msg, first));
}

static int parse(const gr_msg *msg, size_t first, enum gr_leg leg, gr_buf *scratch,
                 gr_envelope *out)
{
    (void)leg;
    (void)scratch;
    out->why = "gh1: lengths and frames do not fit the header";
    if (gr_msg_len(msg) <= first)
        return GR_EINVAL;
    gr_slice head = gr_msg_frame(msg, first);
    if (!is_header(head))
        return GR_EINVAL;

    const uint8_t *at = head.data;
    size_t service_len = at[AT_SERVICE_LEN];
    size_t method_len = at[AT_METHOD_LEN];
    size_t names_end = HEADER_LEN + service_len + method_len;
    if (head.len < names_end)
        return GR_EINVAL;
    gr_slice payload;
    int rc = get_payload(msg, first, head, names_end, &payload);
    if (rc < 0)
        return rc;

    *out = (gr_envelope){
        .type = at[AT_TYPE],
        .flags = at[AT_FLAGS],
        .status = get_u16(at + AT_STATUS),
        .id = get_u64(at + AT_ID),
        .route = get_u64(at + AT_ROUTE),
        .deadline_ms = get_u32(at + AT_DEADLINE),
        .credit = get_u32(at + AT_CREDIT),
        .window = get_u32(at + AT_WINDOW),
        .split = get_u32(at + AT_SPLIT),
        .count = get_u32(at + AT_COUNT),
        .service = gr_slice_of(at + HEADER_LEN, service_len),
        .method = gr_slice_of(at + HEADER_LEN + service_len, method_len),
        .payload = payload,
    };
    if (out->type != GR_REQUEST || out->split <= payload.len)
        return 0;
    out->why = "gh1: the arguments end behind the payload";
    return GR_EINVAL;
}

static void put_header(uint8_t *at, const gr_envelope *envelope, size_t payload_len, bool detached)
{
    int flags = envelope->flags & ~GR_FLAG_DETACHED;
    at[AT_MAGIC] = MAGIC;
    at[AT_VERSION] = VERSION;
    at[AT_TYPE] = envelope->type;
    at[AT_FLAGS] = (uint8_t)(detached ? flags | GR_FLAG_DETACHED : flags);
    at[AT_SERVICE_LEN] = (uint8_t)envelope->service.len;
    at[AT_METHOD_LEN] = (uint8_t)envelope->method.len;
    put_u16(at + AT_STATUS, envelope->status);
    put_u64(at + AT_ID, envelope->id);
    put_u64(at + AT_ROUTE, envelope->route);
    put_u32(at + AT_DEADLINE, envelope->deadline_ms);
    put_u32(at + AT_CREDIT, envelope->credit);
    put_u32(at + AT_WINDOW, envelope->window);
    put_u32(at + AT_SPLIT, envelope->split);
    put_u32(at + AT_COUNT, envelope->count);
    put_u32(at + AT_PAYLOAD_LEN, (uint32_t)payload_len);
}

static uint8_t *put_slice(uint8_t *at, gr_slice bytes)
{
    if (bytes.len > 0)
        memcpy(at, bytes.data, bytes.len);
    return at + bytes.len;
}

static int build(const gr_envelope *envelope, enum gr_leg leg, gr_buf *payload, gr_msg **out)
{
    (void)leg;
    gr_slice bytes = payload != NULL ? gr_buf_slice(payload) : envelope->payload;
    if (envelope->service.len > 255 || envelope->method.len > 255 || bytes.len > UINT32_MAX)
        return GR_EINVAL;

    gr_msg *msg;
    int rc = gr_msg_new(&msg);
    if (rc < 0)
        return rc;
    bool detached = bytes.len > DETACH_ABOVE;
    size_t len = HEADER_LEN + envelope->service.len + envelope->method.len;
    uint8_t *at;
    rc = gr_msg_add_space(msg, detached ? len : len + bytes.len, &at);
    if (rc < 0)
        goto fail;
    put_header(at, envelope, bytes.len, detached);
    at = put_slice(at + HEADER_LEN, envelope->service);
    at = put_slice(at, envelope->method);
    if (!detached)
        put_slice(at, bytes);
    else if (payload != NULL)
        rc = gr_msg_add_buf(msg, payload);
    else
        rc = gr_msg_add(msg, bytes.data, bytes.len);
    if (rc < 0)
        goto fail;
    *out = msg;
    return 0;

fail:
    gr_msg_destroy(&msg);
    return rc;
}

/* A frame that is shared (the broker keeps requests of idempotent methods) gets a copy of its own;
 * a detached payload stays shared. */
static uint8_t *own_header(gr_msg *msg, size_t first)
{
    uint8_t *at = gr_msg_own(msg, first);
    if (at != NULL)
        return at;
    gr_slice head = gr_msg_frame(msg, first);
    if (gr_msg_set(msg, first, head.data, head.len) < 0)
        return NULL;
    return (uint8_t *)zmq_msg_data(gr_msg_zmq(msg, first));
}

int gr_gh1_readdress(gr_msg *msg, size_t first, const gr_envelope *envelope)
{
    uint8_t *at = own_header(msg, first);
    if (at == NULL)
        return GR_ENOMEM;
    put_u16(at + AT_STATUS, envelope->status);
    put_u64(at + AT_ID, envelope->id);
    put_u64(at + AT_ROUTE, envelope->route);
    put_u32(at + AT_DEADLINE, envelope->deadline_ms);
    return 0;
}

static int put_error(gr_buf *out, int error, gr_slice service, gr_slice text)
{
    (void)service;
    return gr_wire_put_exception(out, gr_slice_str(gr_err_code(error)), text, gr_slice_str(""));
}

const gr_dialect gr_dialect_gh1 = {
    .name = "gh1",
    .is_ours = true,
    .beat_ms = 3000,
    .limits = "names have at most 255 bytes, a payload 4 GiB",
    .recognise = recognise,
    .parse = parse,
    .build = build,
    .put_error = put_error,
};
