/* wire.h - what peers say to each other, whatever dialect they say it in.
 *
 * An envelope is one message taken apart; a dialect knows how to take apart and put together.
 * Engines work on envelopes, and nobody but a dialect compares command bytes. docs/protocol.md
 * has the grammar. Holds no state; any thread may call it. */
#ifndef GR_WIRE_H
#define GR_WIRE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "wire/msg.h"

enum gr_type {
    GR_HELLO = 1,      /* client <-> broker: here I am, and how often I beat */
    GR_READY = 2,      /* worker <-> broker: I serve this service; you are registered */
    GR_REQUEST = 3,    /* client -> broker -> worker */
    GR_REPLY = 4,      /* worker -> broker -> client: the one result, the call ends */
    GR_ITEM = 5,       /* worker -> broker -> client: some items of a stream */
    GR_END = 6,        /* worker -> broker -> client: the stream is complete, the call ends */
    GR_ERROR = 7,      /* towards the client: the call ends; with id 0: to whom it concerns */
    GR_CREDIT = 8,     /* client -> broker -> worker: so many more items;
                          worker -> broker, without a route: so many calls at once */
    GR_CANCEL = 9,     /* client -> broker -> worker: nobody wants the answer any more */
    GR_HEARTBEAT = 10, /* both ways, when there was nothing else to say */
    GR_BYE = 11,       /* both ways: I am leaving, or: I do not know you */
    GR_CHUNK = 12,     /* worker -> broker -> client: a piece of a compressed result, numbered and
                          counted as an item; END follows the last one */
};

/* Who speaks to whom. gh1 is the same on all four legs, the older dialects are not. */
enum gr_leg { GR_CLIENT_TO_BROKER, GR_BROKER_TO_CLIENT, GR_WORKER_TO_BROKER, GR_BROKER_TO_WORKER };

enum gr_flag {
    GR_FLAG_DETACHED = 0x01, /* the payload is a frame of its own; the dialect's business */
    GR_FLAG_DRAIN = 0x02,    /* BYE: no more requests, running ones will be answered */
    GR_FLAG_RAW = 0x04,      /* CHUNK: what it decodes to is bytes, not a packed value */
    GR_FLAG_WHOLE = 0x08, /* REQUEST: the client would rather have a large result in one message */
};

/* Who somebody says he is, inside the messages of the older dialects; empty: nothing was said. */
typedef struct gr_credentials {
    gr_slice mechanism; /* "NULL" or "PLAIN" */
    gr_slice user;
    gr_slice password;
} gr_credentials;

typedef struct gr_envelope {
    uint8_t type;         /* enum gr_type */
    uint8_t flags;        /* enum gr_flag */
    uint16_t status;      /* ERROR: a negated GR_E...; a REPLY of Gate: three digits */
    uint64_t id;          /* the client's number for the call; 0 is no call */
    uint64_t route;       /* the broker's number for the call; 0 is no call */
    uint32_t deadline_ms; /* REQUEST: how long from now, 0 for no deadline; HELLO, READY: how often
                             the sender beats, 0 for never */
    uint32_t credit;      /* REQUEST, CREDIT: items the client takes; READY, a worker's CREDIT:
                             calls at once */
    uint32_t window;      /* REQUEST, CREDIT: bytes of items the client takes; HELLO, READY: the
                             sender's liveness, how many beats it may miss */
    uint32_t
        split; /* REQUEST: where kwargs begin in the payload; ITEM: the number of the first item */
    uint32_t count; /* ITEM, END: how many items the payload holds */
    gr_slice service;
    gr_slice method;
    gr_slice
        payload; /* REQUEST: an array, and a map behind it when there are kwargs; REPLY, ERROR:
                    the result envelope; ITEM: values one after the other; CHUNK: a piece, its
                    codec is the method; END behind CHUNKs: a digest, or nothing; READY: a map */

    /* What only the older dialects say. */
    gr_slice tag;     /* what names the call there, instead of id or route; see gr_tag_number() */
    gr_slice caller;  /* the client, as its broker names it towards a worker */
    gr_slice address; /* its host, and who it is: between broker and handlers in one process, no */
    gr_slice user;    /* dialect has them */
    gr_slice sender;  /* the routing id of the peer at the client's or worker's end */
    gr_credentials credentials;
    uint64_t seed;   /* to build: makes tags of different makers differ; from parse: the tag's */
    bool in_stream;  /* ERROR: items may have come before it */
    bool bulk;       /* END, ERROR: they were CHUNKs */
    const char *why; /* when parse fails: what is wrong, for the log; lives for ever */
} gr_envelope;

enum { GR_TAG_LEN = 16 };

typedef struct gr_dialect {
    const char *name;
    bool is_ours;       /* it has HELLO, CREDIT and CANCEL, codes, and messages of many items */
    bool one_by_one;    /* an answer does not say which call it is for */
    bool beats_anyway;  /* only heartbeats count as a sign of life, whatever else is said */
    bool echoes;        /* its workers beat in answer to a heartbeat, and only then */
    uint32_t beat_ms;   /* how often its programs beat by default */
    const char *limits; /* what its peers can be told; for the text of an error */

    /* True when the message, from its frame `first` on, is of this dialect, well-formed or not. */
    bool (*recognise)(const gr_msg *msg, size_t first, enum gr_leg leg);

    /* Takes msg apart from its frame `first` on (those before are routing). Slices point into msg,
     * or into scratch, which is emptied first and holds what the dialect does not spell out.
     * Returns 0; GR_EINVAL when it is not a message of this dialect on this leg: then out->why may
     * say more and the rest of *out is undefined; GR_ENOMEM. */
    int (*parse)(const gr_msg *msg, size_t first, enum gr_leg leg, gr_buf *scratch,
                 gr_envelope *out);

    /* Makes the message. The payload is taken from *payload without a copy when it is big and
     * payload is not NULL, else copied from envelope->payload. *out is NULL when the dialect has
     * no word for it. Returns 0, GR_EINVAL (a name above 255 bytes, or what a peer of this dialect
     * could not read: see limits) or GR_ENOMEM. */
    int (*build)(const gr_envelope *envelope, enum gr_leg leg, gr_buf *payload, gr_msg **out);

    /* The result envelope for an error that the broker itself reports of a call of this service.
     * Appends it; returns 0 or GR_ENOMEM. */
    int (*put_error)(gr_buf *out, int error, gr_slice service, gr_slice text);
} gr_dialect;

extern const gr_dialect gr_dialect_gh1;    /* ours, docs/protocol.md */
extern const gr_dialect gr_dialect_gate01; /* the Python package 0.1.x */
extern const gr_dialect gr_dialect_gate02; /* the Python package 0.2.x */
extern const gr_dialect gr_dialect_mdp;    /* ZeroMQ RFC 7, https://rfc.zeromq.org/spec/7/ */

/* The dialect of a peer's first message, from its frame `first` on, or NULL when it is nobody's. */
const gr_dialect *gr_wire_recognise(const gr_msg *msg, size_t first, enum gr_leg leg);

/* The dialect of this name, or NULL. */
const gr_dialect *gr_wire_dialect(const char *name);

/* Writes id, route, deadline and status of the envelope into a gh1 message that goes on to another
 * gh1 peer. Returns 0 or GR_ENOMEM. */
int gr_gh1_readdress(gr_msg *msg, size_t first, const gr_envelope *envelope);

/* For who keeps the payload longer than the scratch that parse was given: when it lies there, *msg
 * is replaced by a gh1 message that says the same, and the envelope's slices point into that one.
 * Returns 0, GR_EINVAL or GR_ENOMEM; then nothing has changed. */
int gr_wire_settle(gr_envelope *envelope, gr_msg **msg, const gr_buf *scratch);

/* Tags that carry a number have the shape of a version 4 UUID (RFC 4122), as the original's do:
 * 64 bits of number, 58 bits of seed. The number of a tag that we have not made is a hash of it. */
void gr_tag_put(uint8_t tag[GR_TAG_LEN], uint64_t number, uint64_t seed);
uint64_t gr_tag_number(gr_slice tag);

/* The part of a seed that a tag can carry, and that part of a tag; 0 when the tag is not like ours.
 */
uint64_t gr_tag_seed(gr_slice tag);
uint64_t gr_tag_seed_of(uint64_t seed);

/* True for a name of a service or method: 1 to 255 bytes of printable UTF-8 without spaces. */
bool gr_wire_is_name(gr_slice name);

/* The result envelope that all dialects share, docs/protocol.md "Results": appends
 * {"result": nil, "exception": [class, message, traceback]} or the bytes before a packed result;
 * {"result": <value> ... gr_wire_put_result_end(). Return 0 or GR_ENOMEM. */
int gr_wire_put_exception(gr_buf *out, gr_slice class_name, gr_slice message, gr_slice traceback);
enum { GR_WIRE_RESULT_BEGIN = 8, GR_WIRE_RESULT_LEN = 19 }; /* bytes before a result, and in all */
int gr_wire_put_result_begin(gr_buf *out);
int gr_wire_put_result_end(gr_buf *out);

/* The other way. Finds the result and the exception, as msgpack, in an envelope; keys in any
 * order, others ignored, a missing one is left empty (len 0). Returns 0, GR_EINVAL or
 * GR_EEXHAUSTED. */
int gr_wire_get_result(gr_slice payload, gr_slice *result, gr_slice *exception);

/* Bulk that fails in gate01: a CHUNK that announces it, one with the exception, then the end, as
 * which an ERROR is built there. */
enum { GR_BULK_LAST_WORDS = 2 };

/* The CHUNKs that go before this envelope; their slices point into it and its payload. Returns how
 * many there are: none unless it is an ERROR of bulk to a gate01 peer. */
int gr_bulk_last_words(const gr_dialect *dialect, const gr_envelope *envelope, gr_slice payload,
                       gr_envelope said[GR_BULK_LAST_WORDS]);

/* The other way, for a CHUNK from a peer of an older dialect. *fails belongs to the call and begins
 * as false. False when the CHUNK has no data and is not to be passed on; one with an exception
 * becomes an ERROR, whose payload lies in scratch. */
bool gr_bulk_hear(gr_envelope *chunk, bool *fails, gr_buf *scratch);

#endif
