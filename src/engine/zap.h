/* zap.h - answers ZAP requests (https://rfc.zeromq.org/spec/27/): who may connect, or whose
 * messages may pass.
 *
 * Requests come from libzmq and from brokers of this process, or from brokers elsewhere, the Python
 * package's mostly, which ask about credentials inside messages. Each names a domain; a policy
 * decides about it, or a service elsewhere is asked. Nobody is let in by a domain that is not
 * there, or by a service that does not answer in time. A refusal is held back the longer, the more
 * often its source was refused. Messages and the time go in, messages are pulled out; it holds no
 * socket and reads no clock. Not thread-safe. */
#ifndef GR_ZAP_H
#define GR_ZAP_H

#include "engine/policy.h"
#include "wire/msg.h"

typedef struct gr_zap gr_zap;

enum gr_zap_door {
    GR_ZAP_INNER,   /* the ROUTER at inproc://zeromq.zap.01 */
    GR_ZAP_SERVICE, /* a ROUTER that brokers elsewhere ask */
    GR_ZAP_REMOTE,  /* a DEALER: a service elsewhere that we ask */
};

/* The socket that a message came by, or is to leave by: the door, and its owner's number for it. */
typedef struct gr_zap_via {
    enum gr_zap_door door;
    uint32_t number;
} gr_zap_via;

typedef struct gr_zap_options {
    uint32_t penalty_ms; /* the longest that a refusal is held back; 0: 1000 */
    uint32_t timeout_ms; /* how long a service elsewhere may take; 0: 5000 */
} gr_zap_options;

typedef struct gr_zap_stats {
    uint64_t admitted;
    uint64_t refused;   /* wrong, unknown or not allowed: 400 */
    uint64_t failed;    /* nobody decided: 500, of which the refused do not know */
    uint64_t malformed; /* no requests at all */
} gr_zap_stats;

/* Returns 0 or GR_ENOMEM. */
int gr_zap_new(gr_zap **out, const gr_zap_options *options);
void gr_zap_destroy(gr_zap **self);

/* Who decides about a domain: a policy, which is taken, or the service behind the DEALER with this
 * number. Returns 0, GR_EINVAL (the name is empty or above 255 bytes) or GR_ENOMEM; then the policy
 * is still yours. */
int gr_zap_set_policy(gr_zap *self, gr_slice domain, gr_policy **policy);
int gr_zap_set_remote(gr_zap *self, gr_slice domain, uint32_t number);

/* From now on the domain lets nobody in, also who waits. */
void gr_zap_remove(gr_zap *self, gr_slice domain);

/* Whether some domain is decided by the service behind the DEALER with this number. */
bool gr_zap_asks(const gr_zap *self, uint32_t number);

/* Handles a message, routing id and what else is in front of the empty frame first; it is taken. */
void gr_zap_receive(gr_zap *self, gr_zap_via via, gr_msg **msg, int64_t now_ms);

/* Gives the next message to send; false when there is none. */
bool gr_zap_next_out(gr_zap *self, gr_zap_via *via, gr_msg **msg);

/* Computes one of the hashes that wait, which takes some 50 ms. False when none waits now. */
bool gr_zap_work(gr_zap *self, int64_t now_ms);

/* Time has passed: refusals that were held back, services that have not answered. */
void gr_zap_tick(gr_zap *self, int64_t now_ms);

/* When to call gr_zap_tick() or gr_zap_work() next, or GR_NEVER. */
int64_t gr_zap_next_due(const gr_zap *self);

void gr_zap_get_stats(const gr_zap *self, gr_zap_stats *out);

/* Whom the last refusal was about, for the log: mechanism, domain, address; never a name or secret.
 */
void gr_zap_last_refused(const gr_zap *self, char *text, size_t len);

#endif
