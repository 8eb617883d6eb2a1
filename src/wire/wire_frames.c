#include "wire/wire_frames.h"

#include "base/err.h"

static const char client_protocol[] = "MDPC01";
static const char worker_protocol[] = "MDPW01";

static const char *protocol_of(enum gr_leg leg)
{
    return leg == GR_CLIENT_TO_BROKER || leg == GR_BROKER_TO_CLIENT ? client_protocol
                                                                    : worker_protocol;
}

static bool is_text(gr_slice frame, const char *text)
{
    return gr_slice_equal(frame, gr_slice_str(text));
}

/* --- reading ----------------------------------------------------------------------------- */

bool gr_frames_next(gr_frames *self, gr_slice *out)
{
    if (self->at == self->len)
        return false;
    *out = gr_msg_frame(self->msg, self->at++);
    return true;
}

bool gr_frames_begin(const gr_msg *msg, size_t first, enum gr_leg leg, gr_frames *out)
{
    *out = (gr_frames){.msg = msg, .at = first, .len = gr_msg_len(msg)};
    gr_slice empty, protocol;
    return !gr_msg_is_cut(msg) && out->len > first + 2 && gr_frames_next(out, &empty) &&
           empty.len == 0 && gr_frames_next(out, &protocol) && is_text(protocol, protocol_of(leg));
}

int gr_frames_command(gr_frames *self)
{
    gr_slice command;
    if (!gr_frames_next(self, &command) || command.len != 1 || command.data[0] < GR_CMD_READY ||
        command.data[0] > GR_CMD_DISCONNECT)
        return 0;
    return command.data[0];
}

int gr_frames_type(gr_frames *self, enum gr_leg leg, gr_envelope *out)
{
    static const uint8_t from_worker[] = {
        [GR_CMD_READY] = GR_READY,
        [GR_CMD_REPLY] = GR_REPLY,
        [GR_CMD_HEARTBEAT] = GR_HEARTBEAT,
        [GR_CMD_DISCONNECT] = GR_BYE,
    };
    static const uint8_t to_worker[] = {
        [GR_CMD_REQUEST] = GR_REQUEST,
        [GR_CMD_HEARTBEAT] = GR_HEARTBEAT,
        [GR_CMD_DISCONNECT] = GR_BYE,
    };
    int command = gr_frames_command(self);
    out->type = leg == GR_WORKER_TO_BROKER ? from_worker[command] : to_worker[command];
    if (out->type != 0)
        return 0;
    out->why = "no command that is said in this direction";
    return GR_EINVAL;
}

gr_slice gr_frames_routing_id(const gr_msg *msg, size_t first)
{
    return first > 0 ? gr_msg_frame(msg, first - 1) : gr_slice_of(NULL, 0);
}

size_t gr_frames_count_credentials(const gr_frames *self)
{
    if (gr_frames_left(self) == 0)
        return 0;
    gr_slice mechanism = gr_frames_peek(self, 0);
    if (is_text(mechanism, "NULL"))
        return 1;
    return is_text(mechanism, "PLAIN") && gr_frames_left(self) >= 3 ? 3 : 0;
}

void gr_frames_credentials(gr_frames *self, gr_credentials *out)
{
    size_t count = gr_frames_count_credentials(self);
    if (count > 0)
        gr_frames_next(self, &out->mechanism);
    if (count == 3) {
        gr_frames_next(self, &out->user);
        gr_frames_next(self, &out->password);
    }
}

static bool read_function(gr_slice frame, gr_slice *out)
{
    gr_mp_reader reader = gr_mp_read(frame);
    gr_mp_token token;
    if (gr_mp_next(&reader, &token) < 0 || token.type != GR_MP_STR || reader.at != reader.end)
        return false;
    *out = token.as.bytes;
    return true;
}

static bool is_map(gr_slice packed)
{
    return packed.len > 0 &&
           ((packed.data[0] & 0xf0) == 0x80 || packed.data[0] == 0xde || packed.data[0] == 0xdf);
}

static bool is_array(gr_slice packed)
{
    return packed.len > 0 &&
           ((packed.data[0] & 0xf0) == 0x90 || packed.data[0] == 0xdc || packed.data[0] == 0xdd);
}

static const uint8_t no_args[] = {0x90};
static const uint8_t no_kwargs[] = {0x80};

static bool is_empty_map(gr_slice packed)
{
    return packed.len == 1 && packed.data[0] == no_kwargs[0];
}

/* What is wrong inside the parameters is for whoever unpacks them to say: then it is answered. */
int gr_frames_params(gr_frames *self, gr_buf *scratch, gr_envelope *out)
{
    gr_slice function, args = {no_args, 1}, kwargs = {no_kwargs, 1};
    if (!gr_frames_next(self, &function) || !read_function(function, &out->method)) {
        out->why = "the function's name is missing or not a msgpack str";
        return GR_EINVAL;
    }
    if (gr_frames_left(self) > 2) {
        out->why = "there are more than two frames of parameters";
        return GR_EINVAL;
    }
    bool lone = gr_frames_left(self) == 1;
    if (lone && is_map(gr_frames_peek(self, 0))) {
        gr_frames_next(self, &kwargs);
    } else {
        gr_frames_next(self, &args);
        gr_frames_next(self, &kwargs);
    }
    out->split = (uint32_t)args.len;
    out->payload = args;
    if (is_empty_map(kwargs))
        return 0;
    int rc = gr_buf_append(scratch, args.data, args.len);
    if (rc == 0)
        rc = gr_buf_append(scratch, kwargs.data, kwargs.len);
    out->payload = gr_buf_slice(scratch);
    return rc;
}

bool gr_frames_are_params(const gr_frames *self)
{
    gr_slice function;
    size_t left = gr_frames_left(self);
    if (left < 1 || left > 3 || !read_function(gr_frames_peek(self, 0), &function))
        return false;
    return left < 3 || (is_array(gr_frames_peek(self, 1)) && is_map(gr_frames_peek(self, 2)));
}

#define STREAM     "GateStreamGenerator"
#define STREAM_END "GateStreamEnd"
#define STREAM_ERR "GateStreamException"
#define HUGE       "GateStreamHugData" /* so it is spelled */
#define HUGE_END   "HugeDataEND"

int gr_frames_exception(gr_slice exception, gr_buf *scratch, gr_envelope *out)
{
    static const uint8_t before[] = "\x82\xa6result\xc0\xa9"
                                    "exception";
    out->type = GR_ERROR;
    out->status = -GR_EINTERNAL;
    out->in_stream = true;
    int rc = gr_buf_append(scratch, before, sizeof(before) - 1);
    if (rc == 0)
        rc = gr_buf_append(scratch, exception.data, exception.len);
    out->payload = gr_buf_slice(scratch);
    return rc;
}

/* Behind the tag of a stream, or of compressed bulk. */
static int read_stream(gr_frames *self, bool bulk, gr_buf *scratch, gr_envelope *out)
{
    gr_slice data;
    gr_frames_next(self, &data);
    out->bulk = bulk;
    if (gr_frames_left(self) == 1 && is_text(data, STREAM_ERR)) {
        gr_frames_next(self, &data);
        return gr_frames_exception(data, scratch, out);
    }
    out->type = bulk ? GR_CHUNK : GR_ITEM;
    out->count = 1;
    out->payload = data;
    if (gr_frames_left(self) == 0 &&
        (is_text(data, STREAM_END) || (bulk && is_text(data, HUGE_END)))) {
        out->type = GR_END;
        out->count = 0;
        out->payload = gr_slice_of(NULL, 0);
    }
    return 0;
}

int gr_frames_body(gr_frames *self, gr_buf *scratch, gr_envelope *out)
{
    gr_slice frame;
    if (!gr_frames_next(self, &frame)) {
        out->why = "an answer without a body";
        return GR_EINVAL;
    }
    out->type = GR_REPLY;
    out->payload = frame;
    int rc = 0;
    if (gr_frames_left(self) > 0 && (is_text(frame, STREAM) || is_text(frame, HUGE)))
        rc = read_stream(self, is_text(frame, HUGE), scratch, out);
    if (rc == 0 && gr_frames_left(self) > 0) {
        out->why = "the body of an answer has frames that nobody knows";
        return GR_EINVAL;
    }
    return rc;
}

/* The text after the last separator, which is cut off from *text. */
static gr_slice cut_last(gr_slice *text, uint8_t separator)
{
    size_t at = text->len;
    while (at > 0 && text->data[at - 1] != separator)
        at--;
    gr_slice last = gr_slice_of(text->data + at, text->len - at);
    text->len = at > 0 ? at - 1 : 0;
    return last;
}

static bool read_number(gr_slice digits, uint32_t *out)
{
    uint64_t number = 0;
    if (digits.len == 0 || digits.len > 9)
        return false;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return false;
        number = number * 10 + (digits.data[i] - '0');
    }
    *out = (uint32_t)number;
    return true;
}

int gr_frames_ready(gr_slice text, int fields, gr_buf *scratch, gr_envelope *out)
{
    int colons = 0;
    for (size_t i = 0; i < text.len; i++)
        colons += text.data[i] == ':';
    out->credit = 1;
    if (colons != fields - 1 || !gr_mp_is_utf8(text.data, text.len) ||
        (fields == 3 && !read_number(cut_last(&text, ':'), &out->credit))) {
        out->why = "READY's text is not name:description, or name:description:number";
        return GR_EINVAL;
    }
    gr_slice description = cut_last(&text, ':');
    out->service = text;
    int rc = gr_put_about(scratch, description);
    out->payload = gr_buf_slice(scratch);
    return rc;
}

/* --- READY's payload ---------------------------------------------------------------------- */

int gr_put_about(gr_buf *out, gr_slice description)
{
    static const uint8_t before[] = "\x81\xab"
                                    "description";
    uint8_t head[GR_MP_HEAD];
    gr_mp_put_head(head, GR_MP_STR32, description.len);
    int rc = gr_buf_append(out, before, sizeof(before) - 1);
    if (rc == 0)
        rc = gr_buf_append(out, head, sizeof(head));
    return rc < 0 ? rc : gr_buf_append(out, description.data, description.len);
}

gr_slice gr_get_description(gr_slice about)
{
    gr_mp_reader reader = gr_mp_read(about);
    gr_mp_token map, key, value;
    if (gr_mp_next(&reader, &map) < 0 || map.type != GR_MP_MAP)
        return gr_slice_of(NULL, 0);
    for (uint32_t left = map.as.count; left > 0; left--) {
        if (gr_mp_next(&reader, &key) < 0 || key.type != GR_MP_STR)
            break;
        if (!gr_slice_equal(key.as.bytes, gr_slice_str("description"))) {
            if (gr_mp_skip(&reader) < 0)
                break;
            continue;
        }
        if (gr_mp_next(&reader, &value) == 0 && value.type == GR_MP_STR)
            return value.as.bytes;
        break;
    }
    return gr_slice_of(NULL, 0);
}

gr_slice gr_get_exception(gr_slice payload)
{
    gr_slice result, exception;
    if (gr_wire_get_result(payload, &result, &exception) < 0)
        return gr_slice_of(NULL, 0);
    return is_array(exception) ? exception : gr_slice_of(NULL, 0);
}

/* --- writing ----------------------------------------------------------------------------- */

gr_builder gr_build_begin(enum gr_leg leg)
{
    gr_builder self = {0};
    self.rc = gr_msg_new(&self.msg);
    gr_build_text(&self, "");
    gr_build_text(&self, protocol_of(leg));
    return self;
}

void gr_build_add(gr_builder *self, gr_slice frame)
{
    if (self->rc == 0)
        self->rc = gr_msg_add(self->msg, frame.data, frame.len);
}

void gr_build_text(gr_builder *self, const char *text)
{
    gr_build_add(self, gr_slice_str(text));
}

bool gr_is_answer(const gr_envelope *envelope)
{
    return envelope->type == GR_REPLY || envelope->type == GR_ERROR || envelope->type == GR_ITEM ||
           envelope->type == GR_CHUNK || envelope->type == GR_END;
}

static int command_of(const gr_envelope *envelope, bool to_worker)
{
    switch (envelope->type) {
    case GR_READY: /* a broker has no other answer to it */
        return to_worker ? GR_CMD_HEARTBEAT : GR_CMD_READY;
    case GR_HEARTBEAT:
        return GR_CMD_HEARTBEAT;
    case GR_BYE:
        return envelope->flags & GR_FLAG_DRAIN ? 0 : GR_CMD_DISCONNECT;
    case GR_REQUEST:
        return to_worker ? GR_CMD_REQUEST : 0;
    default:
        return !to_worker && gr_is_answer(envelope) ? GR_CMD_REPLY : 0;
    }
}

int gr_build_command(gr_builder *self, const gr_envelope *envelope, enum gr_leg leg)
{
    int command = command_of(envelope, leg == GR_BROKER_TO_WORKER);
    uint8_t byte = (uint8_t)command;
    if (command != 0)
        gr_build_add(self, gr_slice_of(&byte, 1));
    return command;
}

void gr_build_credentials(gr_builder *self, const gr_credentials *credentials)
{
    if (credentials->mechanism.len == 0)
        return;
    gr_build_add(self, credentials->mechanism);
    if (!is_text(credentials->mechanism, "PLAIN"))
        return;
    gr_build_add(self, credentials->user);
    gr_build_add(self, credentials->password);
}

void gr_build_tag(gr_builder *self, const gr_envelope *envelope, uint64_t number, bool as_text)
{
    static const char digits[] = "0123456789abcdef";
    if (envelope->tag.len > 0) {
        gr_build_add(self, envelope->tag);
        return;
    }
    uint8_t tag[GR_TAG_LEN];
    char text[2 * GR_TAG_LEN];
    gr_tag_put(tag, number, envelope->seed);
    for (int i = 0; i < GR_TAG_LEN; i++) {
        text[2 * i] = digits[tag[i] >> 4];
        text[2 * i + 1] = digits[tag[i] & 0x0f];
    }
    gr_build_add(self, as_text ? gr_slice_of(text, sizeof(text)) : gr_slice_of(tag, sizeof(tag)));
}

static void add_function(gr_builder *self, gr_slice name)
{
    uint8_t packed[2 + 255] = {0xd9, (uint8_t)name.len};
    size_t head = 2;
    if (name.len > 255) {
        self->rc = GR_EINVAL;
        return;
    }
    if (name.len < 32) {
        packed[0] = (uint8_t)(0xa0 | name.len);
        head = 1;
    }
    memcpy(packed + head, name.data, name.len);
    gr_build_add(self, gr_slice_of(packed, head + name.len));
}

/* Keywords go to a function as its parameters' names: they must be str, and gate02 keeps names that
 * begin with two underscores for itself. */
static bool are_keywords(gr_slice packed, bool reserved)
{
    gr_mp_reader reader = gr_mp_read(packed);
    gr_mp_token map, key;
    if (gr_mp_next(&reader, &map) < 0 || map.type != GR_MP_MAP)
        return false;
    for (uint32_t left = map.as.count; left > 0; left--)
        if (gr_mp_next(&reader, &key) < 0 || key.type != GR_MP_STR || gr_mp_skip(&reader) < 0 ||
            (reserved && key.as.bytes.len > 1 && memcmp(key.as.bytes.data, "__", 2) == 0))
            return false;
    return true;
}

void gr_build_params(gr_builder *self, const gr_envelope *envelope, gr_slice payload,
                     enum gr_mp_keys keys, bool always)
{
    if (self->rc < 0)
        return;
    size_t split = envelope->split < payload.len ? envelope->split : payload.len;
    gr_slice args = gr_slice_of(payload.data, split);
    gr_slice kwargs = gr_slice_of(no_kwargs, 1);
    if (payload.len > split)
        kwargs = gr_slice_of(payload.data + split, payload.len - split);
    if (!gr_mp_is_utf8(envelope->method.data, envelope->method.len) || !is_array(args) ||
        gr_mp_check(args, keys) < 0 || gr_mp_check(kwargs, keys) < 0 ||
        !are_keywords(kwargs, always)) {
        self->rc = GR_EINVAL;
        return;
    }
    bool has_args = args.len > 1 || args.data[0] != no_args[0];
    bool has_kwargs = !is_empty_map(kwargs);
    add_function(self, envelope->method);
    if (has_args || has_kwargs || always)
        gr_build_add(self, args);
    if (has_kwargs || always)
        gr_build_add(self, kwargs);
}

void gr_build_payload(gr_builder *self, gr_slice payload, gr_buf *owned)
{
    enum { TAKE_ABOVE = 16 * 1024 };
    if (owned == NULL || payload.data != owned->data || payload.len != owned->len ||
        payload.len < TAKE_ABOVE)
        gr_build_add(self, payload);
    else if (self->rc == 0)
        self->rc = gr_msg_add_buf(self->msg, owned);
}

int gr_build_end(gr_builder *self, bool said, gr_msg **out)
{
    if (!said)
        self->rc = 0;
    if (self->rc < 0 || !said)
        gr_msg_destroy(&self->msg);
    if (self->rc == 0)
        *out = self->msg;
    return self->rc;
}
