/* wire_mdp.c - ZeroMQ RFC 7, the Majordomo protocol 0.1 of the ZeroMQ guide:
 * https://rfc.zeromq.org/spec/7/
 *
 * Bodies are frames of bytes. A service `Name.method` is the method of that service, a name without
 * a dot its method `call`. Frames of a request are strings as arguments; text, numbers and booleans
 * travel as text, nil as an empty frame, a list as one frame for each. Streams, keyword arguments
 * and errors have no form: an error is the frames ERROR, class and message. */
#include <inttypes.h>
#include <stdio.h>

#include "base/err.h"
#include "wire/wire_frames.h"

#define CALL "call"

static bool recognise(const gr_msg *msg, size_t first, enum gr_leg leg)
{
    gr_frames frames;
    if (!gr_frames_begin(msg, first, leg, &frames))
        return false;
    if (leg == GR_CLIENT_TO_BROKER)
        return true;
    return leg == GR_WORKER_TO_BROKER && gr_frames_command(&frames) != 0;
}

/* --- parsing ----------------------------------------------------------------------------- */

/* `Name.method` in two; the last dot counts. */
static void split_name(gr_slice name, gr_envelope *out)
{
    size_t dot = name.len;
    while (dot > 0 && name.data[dot - 1] != '.')
        dot--;
    if (dot < 2 || dot == name.len) {
        out->service = name;
        out->method = gr_slice_str(CALL);
    } else {
        out->service = gr_slice_of(name.data, dot - 1);
        out->method = gr_slice_of(name.data + dot, name.len - dot);
    }
}

/* A frame as a str when it is UTF-8, else as a bin. */
static int put_frame(gr_buf *out, gr_slice frame)
{
    uint8_t head[GR_MP_HEAD];
    if (frame.len > GR_MP_MAX_BYTES)
        return GR_EINVAL;
    gr_mp_put_head(head, gr_mp_is_utf8(frame.data, frame.len) ? GR_MP_STR32 : GR_MP_BIN32,
                   frame.len);
    int rc = gr_buf_append(out, head, sizeof(head));
    return rc < 0 ? rc : gr_buf_append(out, frame.data, frame.len);
}

static int put_frames(gr_buf *out, gr_frames *frames)
{
    gr_slice frame;
    int rc = 0;
    while (rc == 0 && gr_frames_next(frames, &frame))
        rc = put_frame(out, frame);
    return rc;
}

static int parse_args(gr_frames *frames, gr_buf *scratch, gr_envelope *out)
{
    uint8_t head[3] = {0xdc, 0, (uint8_t)gr_frames_left(frames)};
    int rc = gr_buf_append(scratch, head, sizeof(head));
    if (rc == 0)
        rc = put_frames(scratch, frames);
    out->payload = gr_buf_slice(scratch);
    out->split = (uint32_t)scratch->len;
    return rc;
}

/* One frame is a string, more are a list of them. */
static int parse_result(gr_frames *frames, gr_buf *scratch, gr_envelope *out)
{
    uint8_t head[3] = {0xdc, 0, (uint8_t)gr_frames_left(frames)};
    out->type = GR_REPLY;
    int rc = gr_wire_put_result_begin(scratch);
    if (rc == 0 && gr_frames_left(frames) == 0)
        rc = gr_buf_append(scratch, "\xc0", 1);
    if (rc == 0 && gr_frames_left(frames) > 1)
        rc = gr_buf_append(scratch, head, sizeof(head));
    if (rc == 0)
        rc = put_frames(scratch, frames);
    if (rc == 0)
        rc = gr_wire_put_result_end(scratch);
    out->payload = gr_buf_slice(scratch);
    return rc;
}

static int parse_service(gr_frames *frames, gr_envelope *out)
{
    gr_slice name;
    if (!gr_frames_next(frames, &name) || name.len == 0 || name.len > 255 ||
        !gr_mp_is_utf8(name.data, name.len)) {
        out->why = "a service's name has 1 to 255 bytes of UTF-8";
        return GR_EINVAL;
    }
    split_name(name, out);
    return 0;
}

static int parse_address(gr_frames *frames, gr_envelope *out)
{
    gr_slice empty;
    if (!gr_frames_next(frames, &out->tag) || !gr_frames_next(frames, &empty) || empty.len > 0) {
        out->why = "the client's address and an empty frame are not there";
        return GR_EINVAL;
    }
    out->route = gr_tag_number(out->tag);
    out->seed = gr_tag_seed(out->tag);
    return 0;
}

static int parse_worker(gr_frames *frames, enum gr_leg leg, gr_buf *scratch, gr_envelope *out)
{
    int rc = gr_frames_type(frames, leg, out);
    if (rc == 0 && out->type == GR_READY) {
        out->credit = 1;
        rc = parse_service(frames, out);
        return rc == 0 && gr_frames_left(frames) > 0 ? GR_EINVAL : rc;
    }
    if (rc < 0 || (out->type != GR_REQUEST && out->type != GR_REPLY))
        return rc;
    rc = parse_address(frames, out);
    if (rc < 0)
        return rc;
    return out->type == GR_REQUEST ? parse_args(frames, scratch, out)
                                   : parse_result(frames, scratch, out);
}

static int parse(const gr_msg *msg, size_t first, enum gr_leg leg, gr_buf *scratch,
                 gr_envelope *out)
{
    gr_frames frames;
    *out = (gr_envelope){.why = "frames are missing, or some that RFC 7 does not have there"};
    scratch->len = 0;
    if (!gr_frames_begin(msg, first, leg, &frames))
        return GR_EINVAL;
    if (leg == GR_WORKER_TO_BROKER || leg == GR_BROKER_TO_WORKER)
        return parse_worker(&frames, leg, scratch, out);
    out->tag = gr_frames_peek(&frames, 0); /* an answer repeats the name as it was said */
    int rc = parse_service(&frames, out);
    if (rc < 0)
        return rc;
    out->type = GR_REQUEST;
    return leg == GR_CLIENT_TO_BROKER ? parse_args(&frames, scratch, out)
                                      : parse_result(&frames, scratch, out);
}

/* --- building ---------------------------------------------------------------------------- */

static void add_name(gr_builder *made, const gr_envelope *envelope)
{
    char name[255];
    bool plain = envelope->method.len == 0 || gr_slice_equal(envelope->method, gr_slice_str(CALL));
    size_t len = envelope->service.len;
    size_t all = plain ? len : len + 1 + envelope->method.len;
    if (len == 0 || all > sizeof(name)) {
        made->rc = GR_EINVAL;
        return;
    }
    memcpy(name, envelope->service.data, len);
    if (!plain) {
        name[len] = '.';
        memcpy(name + len + 1, envelope->method.data, envelope->method.len);
    }
    gr_build_add(made, gr_slice_of(name, all));
}

/* A value as one frame; GR_EINVAL for what is not a text, a number, a boolean or nil. */
static void add_value(gr_builder *made, const gr_mp_token *token)
{
    char text[40];
    switch (token->type) {
    case GR_MP_NIL:
        text[0] = '\0';
        break;
    case GR_MP_BOOL:
        strcpy(text, token->as.b ? "true" : "false");
        break;
    case GR_MP_INT:
        snprintf(text, sizeof(text), "%" PRId64, token->as.i);
        break;
    case GR_MP_UINT:
        snprintf(text, sizeof(text), "%" PRIu64, token->as.u);
        break;
    case GR_MP_FLOAT:
        snprintf(text, sizeof(text), "%.17g", token->as.d);
        break;
    case GR_MP_STR:
    case GR_MP_BIN:
        gr_build_add(made, token->as.bytes);
        return;
    default:
        made->rc = GR_EINVAL;
        return;
    }
    gr_build_text(made, text);
}

static void add_values(gr_builder *made, gr_mp_reader *reader, uint32_t count)
{
    gr_mp_token token;
    for (; count > 0 && made->rc == 0; count--) {
        made->rc = gr_mp_next(reader, &token);
        if (made->rc == 0)
            add_value(made, &token);
    }
}

static void add_args(gr_builder *made, const gr_envelope *envelope, gr_slice payload)
{
    gr_mp_reader reader = gr_mp_read(payload);
    gr_mp_token array;
    bool has_kwargs =
        payload.len > envelope->split &&
        !gr_slice_equal(gr_slice_of(payload.data + envelope->split, payload.len - envelope->split),
                        gr_slice_of("\x80", 1));
    if (gr_mp_next(&reader, &array) < 0 || array.type != GR_MP_ARRAY || has_kwargs)
        made->rc = GR_EINVAL;
    else
        add_values(made, &reader, array.as.count);
}

static void add_result(gr_builder *made, gr_slice payload)
{
    gr_slice result, exception;
    gr_mp_token token;
    if (made->rc < 0)
        return;
    made->rc = gr_wire_get_result(payload, &result, &exception);
    if (made->rc < 0)
        return;
    if (exception.len > 1) {
        gr_mp_reader reader = gr_mp_read(exception);
        gr_build_text(made, "ERROR");
        if (gr_mp_next(&reader, &token) == 0 && token.type == GR_MP_ARRAY)
            add_values(made, &reader, token.as.count < 2 ? token.as.count : 2);
        return;
    }
    gr_mp_reader reader = gr_mp_read(result);
    if (result.len == 0)
        gr_build_text(made, "");
    else if ((made->rc = gr_mp_next(&reader, &token)) == 0 && token.type != GR_MP_ARRAY)
        add_value(made, &token);
    else if (made->rc == 0 && token.as.count == 0)
        gr_build_text(made, "");
    else
        add_values(made, &reader, token.as.count);
}

static void add_answer(gr_builder *made, const gr_envelope *envelope, gr_slice payload)
{
    if (envelope->type != GR_REPLY && envelope->type != GR_ERROR)
        made->rc = GR_EINVAL; /* there are no streams */
    add_result(made, payload);
}

static bool from_worker(gr_builder *made, const gr_envelope *envelope, gr_slice payload)
{
    int command = gr_build_command(made, envelope, GR_WORKER_TO_BROKER);
    if (command == GR_CMD_READY) {
        add_name(made, envelope);
    } else if (command == GR_CMD_REPLY) {
        gr_build_add(made, envelope->tag);
        gr_build_text(made, "");
        add_answer(made, envelope, payload);
        return envelope->tag.len > 0;
    }
    return command != 0;
}

static bool to_worker(gr_builder *made, const gr_envelope *envelope, gr_slice payload)
{
    int command = gr_build_command(made, envelope, GR_BROKER_TO_WORKER);
    if (command == GR_CMD_REQUEST) {
        gr_build_tag(made, envelope, envelope->route, false); /* an address is to be given back */
        gr_build_text(made, "");
        add_args(made, envelope, payload);
    }
    return command != 0;
}

static int build(const gr_envelope *envelope, enum gr_leg leg, gr_buf *payload, gr_msg **out)
{
    gr_slice bytes = payload != NULL ? gr_buf_slice(payload) : envelope->payload;
    gr_builder made = gr_build_begin(leg);
    bool said;
    if (leg == GR_WORKER_TO_BROKER) {
        said = from_worker(&made, envelope, bytes);
    } else if (leg == GR_BROKER_TO_WORKER) {
        said = to_worker(&made, envelope, bytes);
    } else if (leg == GR_CLIENT_TO_BROKER) {
        said = envelope->type == GR_REQUEST;
        add_name(&made, envelope);
        add_args(&made, envelope, bytes);
    } else {
        said = gr_is_answer(envelope) && envelope->tag.len > 0;
        gr_build_add(&made, envelope->tag);
        add_answer(&made, envelope, bytes);
    }
    return gr_build_end(&made, said, out);
}

static int put_error(gr_buf *out, int error, gr_slice service, gr_slice text)
{
    (void)service;
    return gr_wire_put_exception(out, gr_slice_str(gr_err_code(error)), text, gr_slice_str(""));
}

const gr_dialect gr_dialect_mdp = {
    .name = "mdp",
    .one_by_one = true,
    .beat_ms = 2500,
    .limits = "RFC 7 carries texts, numbers and booleans and lists of these, no keyword arguments, "
              "maps or streams",
    .recognise = recognise,
    .parse = parse,
    .build = build,
    .put_error = put_error,
};
