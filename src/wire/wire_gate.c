/* wire_gate.c - the Python package gaterpc, 0.1.x (gate01) and 0.2.x (gate02); docs/protocol.md has
 * the tables.
 *
 * gate01: every message of a client or worker repeats its own routing id; a request is named by 32
 * hexadecimal digits, and one that is not UTF-8 ends a worker; an answer too many ends a client;
 * streams have no error; the broker's own service answers in three frames.
 * gate02: a request is named by 16 bytes; a worker says how many requests it takes, and beats only
 * in answer to a beat. */
#include <stdio.h>

#include "base/err.h"
#include "wire/wire_frames.h"

/* In what the two differ. */
struct form {
    bool old; /* gate01 */
    enum gr_mp_keys keys;
    int ready_fields;
    const char *heartbeat; /* the broker's function for it */
};

static const struct form form01 = {
    .old = true, .keys = GR_MP_KEYS_TEXT, .ready_fields = 2, .heartbeat = "client_heartbeat"};
static const struct form form02 = {
    .keys = GR_MP_KEYS_SCALAR, .ready_fields = 3, .heartbeat = "keepalive"};

static bool is_utf8(gr_slice text)
{
    return gr_mp_is_utf8(text.data, text.len);
}

static bool is_gate(gr_slice service)
{
    return gr_slice_equal(service, gr_slice_str(GR_GATE));
}

/* --- recognising ------------------------------------------------------------------------- */

static bool is_hex(gr_slice tag)
{
    for (size_t i = 0; i < tag.len; i++) {
        uint8_t c = tag.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
            return false;
    }
    return tag.len == 2 * GR_TAG_LEN;
}

/* A client's id is its routing id; a forwarder may have changed that one, but then the id still has
 * the client's prefix and 32 digits follow it. */
static bool is_client01(gr_frames *frames, gr_slice routing_id)
{
    gr_slice id;
    if (gr_frames_left(frames) < 2)
        return false;
    frames->at++; /* the service */
    gr_frames_next(frames, &id);
    if (id.len > 0 && gr_slice_equal(id, routing_id))
        return true;
    frames->at += gr_frames_count_credentials(frames);
    return id.len > 3 && memcmp(id.data, "gc-", 3) == 0 && gr_frames_left(frames) > 0 &&
           is_hex(gr_frames_peek(frames, 0));
}

static bool is_worker01(gr_frames *frames, gr_slice routing_id)
{
    int command = gr_frames_command(frames);
    gr_slice id;
    if (command == 0 || !gr_frames_next(frames, &id) || id.len == 0 ||
        !gr_slice_equal(id, routing_id))
        return false;
    return command != GR_CMD_READY || gr_frames_left(frames) > 0; /* else RFC 7: a service's name */
}

static bool recognise01(const gr_msg *msg, size_t first, enum gr_leg leg)
{
    gr_frames frames;
    if (!gr_frames_begin(msg, first, leg, &frames))
        return false;
    gr_slice routing_id = gr_frames_routing_id(msg, first);
    if (leg == GR_CLIENT_TO_BROKER)
        return is_client01(&frames, routing_id);
    return leg == GR_WORKER_TO_BROKER && is_worker01(&frames, routing_id);
}

static bool is_uuid4(gr_slice tag)
{
    return tag.len == GR_TAG_LEN && tag.data[6] >> 4 == 4 && tag.data[8] >> 6 == 2;
}

static bool is_client02(gr_frames *frames)
{
    gr_slice service, tag;
    gr_frames_next(frames, &service);
    frames->at += gr_frames_count_credentials(frames);
    if (!gr_frames_next(frames, &tag) || tag.len != GR_TAG_LEN || !gr_frames_are_params(frames))
        return false;
    return is_uuid4(tag) || gr_frames_left(frames) == 3;
}

static bool is_ready02(gr_frames *frames)
{
    gr_slice text;
    gr_envelope ready;
    gr_buf scratch = {0};
    frames->at += gr_frames_count_credentials(frames);
    bool is = gr_frames_left(frames) == 1 && gr_frames_next(frames, &text) &&
              gr_frames_ready(text, 3, &scratch, &ready) == 0;
    gr_buf_clear(&scratch);
    return is;
}

static bool recognise02(const gr_msg *msg, size_t first, enum gr_leg leg)
{
    gr_frames frames;
    if (!gr_frames_begin(msg, first, leg, &frames))
        return false;
    if (leg == GR_CLIENT_TO_BROKER)
        return is_client02(&frames);
    if (leg != GR_WORKER_TO_BROKER)
        return false;
    switch (gr_frames_command(&frames)) {
    case GR_CMD_READY:
        return is_ready02(&frames);
    case GR_CMD_HEARTBEAT: /* so does RFC 7, and is answered alike */
        return true;
    default:
        return false;
    }
}

/* --- parsing ----------------------------------------------------------------------------- */

static int parse_request(const struct form *form, gr_frames *frames, gr_buf *scratch,
                         gr_envelope *out)
{
    out->type = GR_REQUEST;
    if (!gr_frames_next(frames, &out->service))
        return GR_EINVAL;
    if (form->old && !gr_frames_next(frames, &out->caller))
        return GR_EINVAL;
    out->sender = out->caller;
    gr_frames_credentials(frames, &out->credentials);
    if (!gr_frames_next(frames, &out->tag))
        return GR_EINVAL;
    if (!is_utf8(out->service) || out->service.len > 255) {
        out->why = "a service's name is too long or not UTF-8";
        return GR_EINVAL;
    }
    if (out->tag.len == 0 || out->tag.len > 255 || out->caller.len > 255 ||
        (!form->old && out->tag.len != GR_TAG_LEN)) {
        out->why = "an id of a request or client has the wrong length";
        return GR_EINVAL;
    }
    out->id = gr_tag_number(out->tag);
    return gr_frames_params(frames, scratch, out);
}

/* Of the broker itself to gate01: the function again, three digits, the result. */
static int parse_gate(gr_frames *frames, gr_envelope *out)
{
    gr_slice digits;
    out->type = GR_REPLY;
    gr_frames_next(frames, &out->method);
    gr_frames_next(frames, &digits);
    gr_frames_next(frames, &out->payload);
    if (digits.len != 3)
        return GR_EINVAL;
    for (size_t i = 0; i < 3; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return GR_EINVAL;
        out->status = (uint16_t)(out->status * 10 + (digits.data[i] - '0'));
    }
    return 0;
}

static int parse_answer(const struct form *form, gr_frames *frames, gr_buf *scratch,
                        gr_envelope *out)
{
    if (!gr_frames_next(frames, &out->service) ||
        (form->old && !gr_frames_next(frames, &out->caller)) || !gr_frames_next(frames, &out->tag))
        return GR_EINVAL;
    out->id = gr_tag_number(out->tag);
    out->seed = gr_tag_seed(out->tag);
    if (form->old && is_gate(out->service) && gr_frames_left(frames) == 3)
        return parse_gate(frames, out);
    return gr_frames_body(frames, scratch, out);
}

/* client id, empty, request id */
static int parse_address(gr_frames *frames, gr_envelope *out)
{
    gr_slice empty;
    if (!gr_frames_next(frames, &out->caller) || !gr_frames_next(frames, &empty) || empty.len > 0 ||
        !gr_frames_next(frames, &out->tag)) {
        out->why = "client id, empty frame and request id are not there";
        return GR_EINVAL;
    }
    out->route = gr_tag_number(out->tag);
    out->seed = gr_tag_seed(out->tag);
    return 0;
}

static int parse_ready(const struct form *form, gr_frames *frames, gr_buf *scratch,
                       gr_envelope *out)
{
    gr_slice text;
    if (!gr_frames_next(frames, &text) || gr_frames_left(frames) > 0) {
        out->why = "READY without one text behind it";
        return GR_EINVAL;
    }
    return gr_frames_ready(text, form->ready_fields, scratch, out);
}

static int parse_worker(const struct form *form, gr_frames *frames, enum gr_leg leg,
                        gr_buf *scratch, gr_envelope *out)
{
    int rc = gr_frames_type(frames, leg, out);
    if (rc == 0 && leg == GR_WORKER_TO_BROKER) {
        if (form->old && !gr_frames_next(frames, &out->sender))
            return GR_EINVAL;
        gr_frames_credentials(frames, &out->credentials);
    }
    if (rc == 0 && out->type == GR_READY)
        return parse_ready(form, frames, scratch, out);
    if (rc < 0 || (out->type != GR_REQUEST && out->type != GR_REPLY))
        return rc;
    rc = parse_address(frames, out);
    if (rc < 0)
        return rc;
    return out->type == GR_REQUEST ? gr_frames_params(frames, scratch, out)
                                   : gr_frames_body(frames, scratch, out);
}

static int parse(const struct form *form, const gr_msg *msg, size_t first, enum gr_leg leg,
                 gr_buf *scratch, gr_envelope *out)
{
    gr_frames frames;
    *out = (gr_envelope){.why = "frames are missing"};
    scratch->len = 0;
    if (!gr_frames_begin(msg, first, leg, &frames))
        return GR_EINVAL;
    switch (leg) {
    case GR_CLIENT_TO_BROKER:
        return parse_request(form, &frames, scratch, out);
    case GR_BROKER_TO_CLIENT:
        return parse_answer(form, &frames, scratch, out);
    default:
        return parse_worker(form, &frames, leg, scratch, out);
    }
}

/* --- building ---------------------------------------------------------------------------- */

/* A client says everything as a call; those of the broker's own service are not awaited. */
static bool from_client(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                        gr_slice payload)
{
    static const uint8_t beat[] = "\x91\xc4\x09heartbeat";
    gr_envelope own = {.split = 1,
                       .service = gr_slice_str(GR_GATE),
                       .method = gr_slice_str("get_services"),
                       .seed = envelope->seed};
    const gr_envelope *said = envelope;
    if (envelope->type == GR_HELLO) {
        said = &own;
        payload = gr_slice_of("\x90", 1);
    } else if (envelope->type == GR_HEARTBEAT) {
        said = &own;
        payload = gr_slice_of(beat, sizeof(beat) - 1);
        own.method = gr_slice_str(form->heartbeat);
        own.split = sizeof(beat) - 1;
    } else if (envelope->type != GR_REQUEST) {
        return false;
    }
    gr_build_add(made, said->service);
    if (form->old)
        gr_build_add(made, envelope->sender);
    gr_build_credentials(made, &envelope->credentials);
    gr_build_tag(made, said, said->id, form->old);
    gr_build_params(made, said, payload, form->keys, !form->old);
    return true;
}

/* The reader drops what it cannot read, and goes on waiting: better not to send that. */
static void check_payload(const struct form *form, gr_builder *made, gr_slice payload)
{
    if (made->rc == 0)
        made->rc = gr_mp_check(payload, form->keys);
}

static void add_stream_end(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                           gr_slice payload)
{
    gr_build_text(made, envelope->bulk ? "GateStreamHugData" : "GateStreamGenerator");
    if (envelope->type == GR_END || form->old) { /* gate01 has no other word that ends a stream */
        gr_build_text(made, envelope->bulk && !form->old ? "HugeDataEND" : "GateStreamEnd");
    } else {
        gr_build_text(made, "GateStreamException");
        gr_build_add(made, gr_get_exception(payload));
    }
}

static void add_body(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                     gr_slice payload, gr_buf *owned)
{
    if (envelope->type == GR_END || (envelope->type == GR_ERROR && envelope->in_stream)) {
        add_stream_end(form, made, envelope, payload);
        return;
    }
    if (envelope->type == GR_CHUNK)
        gr_build_text(made, "GateStreamHugData");
    else
        check_payload(form, made, payload);
    if (envelope->type == GR_ITEM)
        gr_build_text(made, "GateStreamGenerator");
    gr_build_payload(made, payload, owned);
}

/* gate01 takes results of the broker's own service in three frames, and never as a stream. */
static void add_gate_body(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                          gr_slice payload, gr_buf *owned)
{
    int status = envelope->type == GR_ERROR ? 501 : envelope->status > 0 ? envelope->status : 200;
    uint8_t digits[3] = {(uint8_t)('0' + status / 100 % 10), (uint8_t)('0' + status / 10 % 10),
                         (uint8_t)('0' + status % 10)};
    if (envelope->type != GR_REPLY && envelope->type != GR_ERROR)
        made->rc = GR_EINVAL;
    check_payload(form, made, payload);
    gr_build_add(made, envelope->method);
    gr_build_add(made, gr_slice_of(digits, sizeof(digits)));
    gr_build_payload(made, payload, owned);
}

static bool to_client(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                      gr_slice payload, gr_buf *owned)
{
    if (!gr_is_answer(envelope) || (envelope->type == GR_ERROR && envelope->tag.len == 0))
        return false;
    gr_build_add(made, envelope->service);
    if (form->old)
        gr_build_add(made, envelope->caller);
    gr_build_tag(made, envelope, envelope->id, form->old);
    if (form->old && is_gate(envelope->service))
        add_gate_body(form, made, envelope, payload, owned);
    else
        add_body(form, made, envelope, payload, owned);
    return true;
}

/* One colon too many, and READY is not heard: those of the description become semicolons. */
static void add_ready(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                      gr_slice payload)
{
    char text[255 + 1 + 255 + 12];
    gr_slice name = envelope->service, description = gr_get_description(payload);
    if (name.len == 0 || name.len > 255 || memchr(name.data, ':', name.len) != NULL) {
        made->rc = GR_EINVAL;
        return;
    }
    if (description.len > 255 || !is_utf8(description))
        description.len = 0;
    memcpy(text, name.data, name.len);
    size_t len = name.len;
    text[len++] = ':';
    for (size_t i = 0; i < description.len; i++)
        text[len++] = description.data[i] == ':' ? ';' : (char)description.data[i];
    if (!form->old)
        len += (size_t)snprintf(text + len, sizeof(text) - len, ":%u", (unsigned)envelope->credit);
    gr_build_add(made, gr_slice_of(text, len));
}

static bool from_worker(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                        gr_slice payload, gr_buf *owned)
{
    int command = gr_build_command(made, envelope, GR_WORKER_TO_BROKER);
    if (command == 0 || (envelope->type == GR_ERROR && envelope->tag.len == 0))
        return false;
    if (form->old)
        gr_build_add(made, envelope->sender);
    gr_build_credentials(made, &envelope->credentials);
    if (command == GR_CMD_READY) {
        add_ready(form, made, envelope, payload);
    } else if (command == GR_CMD_REPLY) {
        gr_build_add(made, envelope->caller);
        gr_build_text(made, "");
        gr_build_tag(made, envelope, envelope->route, form->old);
        add_body(form, made, envelope, payload, owned);
    } else if (command == GR_CMD_DISCONNECT && !form->old) {
        gr_build_text(made, ""); /* without it the original's broker does not listen */
    }
    return true;
}

/* What is not UTF-8 may end a gate01 worker: a caller from elsewhere gets a name that is. */
static void add_caller(const struct form *form, gr_builder *made, gr_slice caller)
{
    static const char digits[] = "0123456789abcdef";
    char text[3 + 2 * 255] = "gc-";
    if (!form->old || (caller.len > 0 && is_utf8(caller))) {
        gr_build_add(made, caller);
        return;
    }
    size_t len = 3;
    for (size_t i = 0; i < caller.len && i < 255; i++) {
        text[len++] = digits[caller.data[i] >> 4];
        text[len++] = digits[caller.data[i] & 0x0f];
    }
    gr_build_add(made, gr_slice_of(text, len));
}

static bool to_worker(const struct form *form, gr_builder *made, const gr_envelope *envelope,
                      gr_slice payload)
{
    int command = gr_build_command(made, envelope, GR_BROKER_TO_WORKER);
    if (command == GR_CMD_REQUEST) {
        add_caller(form, made, envelope->caller);
        gr_build_text(made, "");
        gr_build_tag(made, envelope, envelope->route, form->old);
        gr_build_params(made, envelope, payload, form->keys, !form->old);
    }
    return command != 0;
}

static int build(const struct form *form, const gr_envelope *envelope, enum gr_leg leg,
                 gr_buf *payload, gr_msg **out)
{
    gr_slice bytes = payload != NULL ? gr_buf_slice(payload) : envelope->payload;
    gr_builder made = gr_build_begin(leg);
    bool said;
    if (leg == GR_CLIENT_TO_BROKER)
        said = from_client(form, &made, envelope, bytes);
    else if (leg == GR_BROKER_TO_CLIENT)
        said = to_client(form, &made, envelope, bytes, payload);
    else if (leg == GR_WORKER_TO_BROKER)
        said = from_worker(form, &made, envelope, bytes, payload);
    else
        said = to_worker(form, &made, envelope, bytes);
    return gr_build_end(&made, said, out);
}

/* --- bulk that fails ---------------------------------------------------------------------- */

#define BULK_FAILS "HugeDataException"

int gr_bulk_last_words(const gr_dialect *dialect, const gr_envelope *envelope, gr_slice payload,
                       gr_envelope said[GR_BULK_LAST_WORDS])
{
    if (envelope->type != GR_ERROR || !envelope->bulk || dialect != &gr_dialect_gate01)
        return 0;
    gr_slice pieces[] = {gr_slice_str(BULK_FAILS), gr_get_exception(payload)};
    for (int i = 0; i < GR_BULK_LAST_WORDS; i++) {
        said[i] = *envelope;
        said[i].type = GR_CHUNK;
        said[i].payload = pieces[i];
    }
    return GR_BULK_LAST_WORDS;
}

bool gr_bulk_hear(gr_envelope *chunk, bool *fails, gr_buf *scratch)
{
    if (*fails) {
        if (gr_frames_exception(chunk->payload, scratch, chunk) < 0)
            chunk->payload = gr_slice_of(NULL, 0);
        return true;
    }
    *fails = gr_slice_equal(chunk->payload, gr_slice_str(BULK_FAILS));
    return !*fails && chunk->payload.len > 0; /* gate02 sends an empty one before the end */
}

/* --- the broker's own errors ------------------------------------------------------------- */

static gr_slice text_of(char *into, size_t len, const char *format, gr_slice text)
{
    snprintf(into, len, format, (int)(text.len < 255 ? text.len : 255), (const char *)text.data);
    return gr_slice_str(into);
}

static int put_error01(gr_buf *out, int error, gr_slice service, gr_slice text)
{
    char message[320];
    gr_slice class_name = gr_slice_str(gr_err_code(error));
    if (error == GR_ENOTFOUND || error == GR_EUNAVAILABLE) {
        class_name = gr_slice_str("<class 'gaterpc.exceptions.ServiceUnAvailableError'>");
        text = text_of(message, sizeof(message), "The %.*s Service unavailable.", service);
    } else if (error == GR_EEXHAUSTED) {
        class_name = gr_slice_str("<class 'gaterpc.exceptions.BuysWorkersError'>");
        text = gr_slice_str("No idle workers.");
    } else if (error == GR_EDEADLINE) {
        class_name = gr_slice_str("<class 'TimeoutError'>");
    }
    return gr_wire_put_exception(out, class_name, text, gr_slice_str(""));
}

static int put_error02(gr_buf *out, int error, gr_slice service, gr_slice text)
{
    char message[360];
    gr_slice class_name = gr_slice_str(gr_err_code(error));
    if (error == GR_ENOTFOUND || error == GR_EUNAVAILABLE) {
        class_name = gr_slice_str("ServiceUnAvailableError");
        text = text_of(message, sizeof(message),
                       "ServiceUnAvailableError('The %.*s Service unavailable.')", service);
    } else if (error == GR_EEXHAUSTED) {
        class_name = gr_slice_str("BusyWorkerError");
        text = gr_slice_str("BusyWorkerError('No idle worker.')");
    } else if (error == GR_EDEADLINE) {
        class_name = gr_slice_str("TimeoutError");
        text = text_of(message, sizeof(message), "TimeoutError('%.*s')", text);
    }
    return gr_wire_put_exception(out, class_name, text, gr_slice_str(""));
}

/* --- the two tables ---------------------------------------------------------------------- */

static int parse01(const gr_msg *msg, size_t first, enum gr_leg leg, gr_buf *scratch,
                   gr_envelope *out)
{
    return parse(&form01, msg, first, leg, scratch, out);
}

static int parse02(const gr_msg *msg, size_t first, enum gr_leg leg, gr_buf *scratch,
                   gr_envelope *out)
{
    return parse(&form02, msg, first, leg, scratch, out);
}

static int build01(const gr_envelope *envelope, enum gr_leg leg, gr_buf *payload, gr_msg **out)
{
    return build(&form01, envelope, leg, payload, out);
}

static int build02(const gr_envelope *envelope, enum gr_leg leg, gr_buf *payload, gr_msg **out)
{
    return build(&form02, envelope, leg, payload, out);
}

const gr_dialect gr_dialect_gate01 = {
    .name = "gate01",
    .beats_anyway = true,
    .beat_ms = 3000,
    .limits = "a gate01 peer reads maps only when their keys are strings",
    .recognise = recognise01,
    .parse = parse01,
    .build = build01,
    .put_error = put_error01,
};

const gr_dialect gr_dialect_gate02 = {
    .name = "gate02",
    .beats_anyway = true,
    .echoes = true,
    .beat_ms = 5000,
    .limits = "a gate02 peer reads no map with a container as its key, and no keyword that begins "
              "with two underscores",
    .recognise = recognise02,
    .parse = parse02,
    .build = build02,
    .put_error = put_error02,
};
