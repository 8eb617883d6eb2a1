/* wire_frames.h - what the dialects of many frames share; only they include it.
 *
 * All three come from ZeroMQ RFC 7: an empty frame, the protocol's name, then on a worker's legs a
 * command of one byte. gate01 and gate02 put msgpack, credentials and tags for streams behind it;
 * docs/protocol.md has the tables. Holds no state; any thread may call it. */
#ifndef GR_WIRE_FRAMES_H
#define GR_WIRE_FRAMES_H

#include "base/mp.h"
#include "wire/wire.h"

enum gr_command {
    GR_CMD_READY = 1,
    GR_CMD_REQUEST = 2,
    GR_CMD_REPLY = 3,
    GR_CMD_HEARTBEAT = 4,
    GR_CMD_DISCONNECT = 5,
};

#define GR_GATE "Gate" /* the broker's own service */

/* --- reading --- */

typedef struct gr_frames {
    const gr_msg *msg;
    size_t at;
    size_t len; /* one past the last frame */
} gr_frames;

static inline size_t gr_frames_left(const gr_frames *self)
{
    return self->len - self->at;
}

/* The frame i places further on, which must be there. */
static inline gr_slice gr_frames_peek(const gr_frames *self, size_t i)
{
    return gr_msg_frame(self->msg, self->at + i);
}

/* Takes the next frame; false when there is none. */
bool gr_frames_next(gr_frames *self, gr_slice *out);

/* True when the message begins like RFC 7 on this leg; then *out stands behind the protocol. */
bool gr_frames_begin(const gr_msg *msg, size_t first, enum gr_leg leg, gr_frames *out);

/* The next frame as a command; 0 when it is none. */
int gr_frames_command(gr_frames *self);

/* Likewise, into out->type, when it is one that is said on this leg of a worker's. Returns 0 or
 * GR_EINVAL (out->why). */
int gr_frames_type(gr_frames *self, enum gr_leg leg, gr_envelope *out);

/* The routing id in front of the frame `first`; empty when there is none. */
gr_slice gr_frames_routing_id(const gr_msg *msg, size_t first);

/* How many frames of credentials come next, and takes them. */
size_t gr_frames_count_credentials(const gr_frames *self);
void gr_frames_credentials(gr_frames *self, gr_credentials *out);

/* function [args] [kwargs] of gate01 and gate02. A lone map is keyword arguments. Returns 0,
 * GR_EINVAL (out->why) or GR_ENOMEM. */
int gr_frames_params(gr_frames *self, gr_buf *scratch, gr_envelope *out);

/* True when the frames that are left are a function and parameters and nothing else. */
bool gr_frames_are_params(const gr_frames *self);

/* What stands behind the id of the call in an answer of gate01 and gate02. Returns as above. */
int gr_frames_body(gr_frames *self, gr_buf *scratch, gr_envelope *out);

/* Makes an ERROR of the envelope, with a packed exception; the payload goes into scratch. Returns
 * 0 or GR_ENOMEM. */
int gr_frames_exception(gr_slice exception, gr_buf *scratch, gr_envelope *out);

/* name:description[:number], fields of them; the number into credit. READY's payload goes into
 * scratch. Returns as above. */
int gr_frames_ready(gr_slice text, int fields, gr_buf *scratch, gr_envelope *out);

/* --- writing --- */

/* REPLY, ERROR, ITEM, CHUNK or END. */
bool gr_is_answer(const gr_envelope *envelope);

typedef struct gr_builder {
    gr_msg *msg;
    int rc; /* of the first failure; the rest does nothing then */
} gr_builder;

/* The empty frame and the protocol's name. */
gr_builder gr_build_begin(enum gr_leg leg);
void gr_build_add(gr_builder *self, gr_slice frame);
void gr_build_text(gr_builder *self, const char *text);

/* The command for the envelope on this leg of a worker's; returns it, or 0 when there is none. */
int gr_build_command(gr_builder *self, const gr_envelope *envelope, enum gr_leg leg);
void gr_build_credentials(gr_builder *self, const gr_credentials *credentials);

/* The envelope's tag, or one made of number and seed; as_text: in 32 hexadecimal digits. */
void gr_build_tag(gr_builder *self, const gr_envelope *envelope, uint64_t number, bool as_text);

/* The function, and the parameters: both frames always, or only those that say something. */
void gr_build_params(gr_builder *self, const gr_envelope *envelope, gr_slice payload,
                     enum gr_mp_keys keys, bool always);

/* A payload as a frame of its own; takes the memory of *owned when it is that and big. */
void gr_build_payload(gr_builder *self, gr_slice payload, gr_buf *owned);

/* Hands the message out, or NULL when nothing was said. Returns rc; then nothing was made. */
int gr_build_end(gr_builder *self, bool said, gr_msg **out);

/* {"description": text}, as READY's payload has it in gh1. Returns 0 or GR_ENOMEM. */
int gr_put_about(gr_buf *out, gr_slice description);

/* The description in READY's payload; empty when there is none. */
gr_slice gr_get_description(gr_slice about);

/* The three texts of a result envelope's exception, as one packed array; empty when there is none.
 */
gr_slice gr_get_exception(gr_slice payload);

#endif
