/* broker.h - the broker's engine: who serves the next request.
 *
 * Keeps peers, services with their waiting requests, and calls in flight; forwards messages
 * without a look at their payload. Messages and the time go in, messages are pulled out; it
 * holds no socket and reads no clock. Messages carry the peer's routing id as their first frame.
 * Nothing a peer sends ends the process: what cannot be understood is counted and dropped.
 * Not thread-safe. */
#ifndef GR_BROKER_H
#define GR_BROKER_H

#include "engine/access.h"
#include "engine/policy.h"
#include "wire/wire.h"

typedef struct gr_broker gr_broker;
typedef struct gr_peer gr_peer;

/* The door a message comes through or leaves by. */
enum gr_via {
    GR_VIA_FRONT,       /* the ROUTER for clients */
    GR_VIA_BACK,        /* the ROUTER for workers */
    GR_VIA_LOCAL_FRONT, /* clients in this process, by mailbox */
    GR_VIA_LOCAL_BACK,  /* workers in this process, by mailbox */
    GR_VIAS,
};

typedef struct gr_broker_options {
    uint64_t instance;     /* a random number: clients see by it that a broker was started anew */
    uint32_t heartbeat_ms; /* 0: GR_PULSE_MS */
    uint32_t liveness;     /* beats of ours that a peer may miss; 0: GR_PULSE_LIVENESS */
    uint32_t queue_len;    /* requests that may wait for one service; 0: 16384 */
    size_t queue_bytes;    /* bytes of all waiting requests; 0: 256 MiB */
    size_t backlog_bytes;  /* bytes that may wait for one peer that does not read; 0: 64 MiB */
    uint32_t max_services; /* 0: 10000 */
    uint32_t max_peers;    /* clients and workers together; 0: 100000 */
    uint32_t max_calls;    /* of one client at once; 0: 65536 */
    uint32_t idle_ms;      /* a stream that has not moved for so long ends; 0: 660000 */

    /* For peers of the older dialects, which say nothing of themselves. */
    uint32_t call_ms;   /* a call ends after so long, and a stream that has not moved; 0: 59000, as
                           their clients wait 60 s and gate01 does not survive a later answer */
    uint32_t gate01_ms; /* how often their workers beat, or wait for a beat; 0: 3000 */
    uint32_t gate02_ms; /* 0: 5000 */
    uint32_t mdp_ms;    /* 0: 2500 */

    uint32_t ask_ms;      /* how long an answer about credentials may take; 0: 6000 */
    uint32_t remember_ms; /* how long it holds; 0: 60000 */
} gr_broker_options;

typedef struct gr_broker_stats {
    uint64_t requests;   /* taken from clients */
    uint64_t answers;    /* REPLY, END and ERROR to clients */
    uint64_t items;      /* stream messages forwarded */
    uint64_t late;       /* answers of workers to calls that were over, or not theirs */
    uint64_t malformed;  /* messages that could not be read, or made no sense from this peer */
    uint64_t redispatch; /* requests given to another worker after the first one went away */
    uint64_t lost;       /* calls that ended with WORKER_LOST */
    uint64_t slow;       /* peers dropped because they did not read */
    uint64_t refused;    /* messages of peers that have not shown who they are */
    uint64_t denied;     /* registrations and calls that the access list does not allow */
    uint64_t forged; /* messages in the name of another peer, or answers to another one's call */
    uint64_t cut;    /* streams of gate01 clients that ended early, which they cannot be told */
    uint32_t peers, workers, services, calls, waiting;
} gr_broker_stats;

/* Returns 0 or GR_ENOMEM. */
int gr_broker_new(gr_broker **out, const gr_broker_options *options);
void gr_broker_destroy(gr_broker **self);

/* What was wrong with the last malformed message, and who sent it, for the log. */
void gr_broker_last_malformed(const gr_broker *self, char *text, size_t len);

/* The same for the last one that was refused, denied or forged. */
void gr_broker_last_refused(const gr_broker *self, char *text, size_t len);

/* The peer that msg came from, or NULL when it is new. */
gr_peer *gr_broker_find_peer(const gr_broker *self, enum gr_via via, const gr_msg *msg);

/* Makes a peer for msg. NULL when there are too many or memory is short: drop the message. */
gr_peer *gr_broker_add_peer(gr_broker *self, enum gr_via via, const gr_msg *msg, int64_t now_ms);

/* Who a new peer is by its connection (libzmq's User-Id; empty when that says nothing), and where
 * from. Before its first message. Returns 0 or GR_ENOMEM: then it is nobody. */
int gr_broker_set_user(gr_broker *self, gr_peer *peer, gr_slice user, gr_slice address);

/* Peers of the older dialects keep their routing id when they connect anew. True when msg may come
 * over such a connection: ended ones are to be reported first, then gr_broker_follow() says whose
 * it is: the peer's, or NULL when a new peer has begun with it. */
bool gr_broker_may_move(const gr_peer *peer);
gr_peer *gr_broker_follow(gr_broker *self, gr_peer *peer, const gr_msg *msg, int64_t now_ms);

/* Handles a message of the peer; it is taken. */
void gr_broker_receive(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms);

/* The connection with this file descriptor (ZMQ_SRCFD) has ended, and so has its peer. */
void gr_broker_disconnected(gr_broker *self, enum gr_via via, int fd, int64_t now_ms);

/* The local peer with this routing id has gone. */
void gr_broker_local_gone(gr_broker *self, enum gr_via via, gr_slice id, int64_t now_ms);

/* Gives the next message to send, routing id first; false when there is none. When it could not be
 * sent, give it back with gr_broker_stalled() (the peer does not read: it will be tried again)
 * or say gr_broker_unreachable() (there is no such peer) before the next call. */
bool gr_broker_next_out(gr_broker *self, enum gr_via *via, gr_msg **msg);
void gr_broker_stalled(gr_broker *self, gr_msg **msg, int64_t now_ms);
void gr_broker_unreachable(gr_broker *self, int64_t now_ms);

/* --- who may do what --------------------------------------------------------------------- */

/* From now on peers must say who they are: by their connection, see gr_broker_set_user(), or by
 * credentials inside each message, where the dialect has them. Those in this process need not. */
void gr_broker_secure(gr_broker *self);

/* Credentials inside messages are checked by somebody else, who is asked. Slices stay valid until
 * the question is answered or gr_broker_tick() gives it up. */
typedef struct gr_broker_question {
    uint64_t number;
    gr_credentials credentials; /* of PLAIN */
    gr_slice address;           /* of the peer */
} gr_broker_question;

/* The next question; false when there is none. The peer's messages wait for the answer. */
bool gr_broker_next_question(gr_broker *self, gr_broker_question *out);

/* GR_UNDECIDED: nobody could decide, so the peer is refused for now. */
void gr_broker_answer(gr_broker *self, uint64_t number, enum gr_verdict verdict, int64_t now_ms);

/* The policies have changed: what was answered before does not hold any more. Peers whose
 * connection gave them a name that `policy` does not know are sent away; NULL: all stay. The policy
 * is taken. */
void gr_broker_set_policy(gr_broker *self, gr_policy **policy, int64_t now_ms);

/* From now on this list holds, or none (NULL): then everybody may do everything. Workers whose
 * registration it does not allow are sent away. Peers in this process may do everything. The list
 * is taken. */
void gr_broker_set_access(gr_broker *self, gr_access **access, int64_t now_ms);

/* Time has passed: heartbeats, deadlines, dead peers, stalled peers. */
void gr_broker_tick(gr_broker *self, int64_t now_ms);

/* When to call gr_broker_tick() next, or GR_NEVER. */
int64_t gr_broker_next_due(const gr_broker *self);

/* Takes no more requests and no more workers; running calls go on. */
void gr_broker_drain(gr_broker *self, int64_t now_ms);

/* Ends all calls with UNAVAILABLE and says good-bye to all peers. */
void gr_broker_leave(gr_broker *self, int64_t now_ms);

/* Calls that have not ended. */
size_t gr_broker_open_calls(const gr_broker *self);

void gr_broker_get_stats(const gr_broker *self, gr_broker_stats *out);

#endif
