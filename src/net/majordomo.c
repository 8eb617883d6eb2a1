#include "net/majordomo.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/zap_message.h"
#include "net/hub.h"
#include "net/zap_host.h"

enum {
    BUDGET = 256,        /* messages taken from one door before the next has its turn */
    COMPLAIN_MS = 10000, /* drops are logged at most so often */
    PARTING_MS = 1000    /* what a peer said before it went is looked for at most so long */
};

enum { POLL_FRONT, POLL_BACK, POLL_FRONT_EVENTS, POLL_BACK_EVENTS, POLL_HUB, POLL_ZAP, POLLS };

/* Connections that have ended, by descriptor, in order. */
struct parted {
    int *fds;
    size_t len, cap;
    int64_t since_ms;
};

struct gr_majordomo {
    gr_broker *broker;
    gr_sock *socks[2]; /* GR_VIA_FRONT, GR_VIA_BACK */
    gr_hub *hub;
    void *ctx;
    gr_sock_options sock_options;
    gr_sock *zap; /* to who checks credentials inside messages, or NULL */
    char domain[256];
    pthread_t thread;
    bool running;
    atomic_bool drain, stop;
    gr_majordomo_ended_fn *ended;
    void *arg;
    pthread_mutex_t mutex; /* guards what follows */
    gr_broker_stats stats;
    bool has_policy, has_access; /* new ones, for the thread to take */
    gr_policy *policy;
    gr_access *access;

    /* The thread's own. */
    struct parted parted[2];
    gr_broker_stats logged;
    int64_t log_ms;
};

int gr_majordomo_new(gr_majordomo **out, const gr_majordomo_options *options)
{
    gr_majordomo *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    pthread_mutex_init(&self->mutex, NULL);
    self->ctx = options->ctx;
    self->sock_options = options->sock;
    int rc = gr_broker_new(&self->broker, &options->broker);
    for (int i = 0; i < 2 && rc == 0; i++)
        rc = gr_sock_new(&self->socks[i], options->ctx, GR_SOCK_ROUTER, &options->sock);
    if (rc == 0)
        rc = gr_hub_new(&self->hub);
    if (rc < 0) {
        gr_majordomo_destroy(&self);
        return rc;
    }
    *out = self;
    return 0;
}

void gr_majordomo_destroy(gr_majordomo **majordomo)
{
    gr_majordomo *self = *majordomo;
    if (self == NULL)
        return;
    if (self->running) {
        atomic_store(&self->stop, true);
        gr_hub_wake(self->hub);
        pthread_join(self->thread, NULL);
    }
    gr_hub_destroy(&self->hub);
    gr_sock_destroy(&self->socks[0]);
    gr_sock_destroy(&self->socks[1]);
    gr_sock_destroy(&self->zap);
    gr_broker_destroy(&self->broker);
    gr_policy_release(&self->policy);
    gr_access_destroy(&self->access);
    free(self->parted[0].fds);
    free(self->parted[1].fds);
    pthread_mutex_destroy(&self->mutex);
    free(self);
    *majordomo = NULL;
}

int gr_majordomo_secure(gr_majordomo *self, const char *domain, bool handover)
{
    size_t len = strlen(domain);
    if (len == 0 || len >= sizeof(self->domain))
        return GR_EINVAL;
    memcpy(self->domain, domain, len + 1);
    int rc = self->zap == NULL
                 ? gr_sock_new(&self->zap, self->ctx, GR_SOCK_DEALER, &self->sock_options)
                 : 0;
    if (rc == 0)
        rc = gr_sock_connect(self->zap, GR_ZAP_ADDRESS);
    if (rc < 0)
        return rc;
    gr_broker_secure(self->broker);
    gr_sock_set_handover(self->socks[0], handover);
    gr_sock_set_handover(self->socks[1], handover);
    return 0;
}

int gr_majordomo_bind(gr_majordomo *self, enum gr_via side, const char *address,
                      const gr_sock_security *security, char *bound, size_t bound_len)
{
    int rc = 0;
    if (strncmp(address, "inproc://", 9) != 0) {
        rc = gr_sock_secure(self->socks[side], security);
        if (rc == 0)
            rc = gr_sock_bind(self->socks[side], address, bound, bound_len);
    } else if (strlen(address) >= bound_len) {
        rc = GR_EADDRESS;
    } else {
        strcpy(bound, address);
    }
    if (rc < 0)
        return rc;
    return gr_hub_publish(self->hub, bound,
                          side == GR_VIA_FRONT ? GR_VIA_LOCAL_FRONT : GR_VIA_LOCAL_BACK);
}

void gr_majordomo_set_policy(gr_majordomo *self, gr_policy **policy)
{
    pthread_mutex_lock(&self->mutex);
    gr_policy_release(&self->policy);
    self->policy = *policy;
    self->has_policy = true;
    pthread_mutex_unlock(&self->mutex);
    *policy = NULL;
    gr_hub_wake(self->hub);
}

void gr_majordomo_set_access(gr_majordomo *self, gr_access **access)
{
    pthread_mutex_lock(&self->mutex);
    gr_access_destroy(&self->access);
    self->access = *access;
    self->has_access = true;
    pthread_mutex_unlock(&self->mutex);
    *access = NULL;
    gr_hub_wake(self->hub);
}

/* --- the thread -------------------------------------------------------------------------- */

static int add_parted(struct parted *parted, int fd, int64_t now_ms)
{
    if (parted->len == parted->cap) {
        size_t cap = parted->cap > 0 ? parted->cap * 2 : 64;
        int *fds = realloc(parted->fds, cap * sizeof(*fds));
        if (fds == NULL)
            return GR_ENOMEM;
        parted->fds = fds;
        parted->cap = cap;
    }
    if (parted->len == 0)
        parted->since_ms = now_ms;
    parted->fds[parted->len++] = fd;
    return 0;
}

/* The news of an end overtakes what was said before it: a worker that answers and goes must not
 * count as lost with the call. So an end is only put down here, for part(). */
static void watch_connections(gr_majordomo *self, int64_t now_ms)
{
    for (int via = 0; via < 2; via++) {
        gr_sock_event event;
        while (gr_sock_next_event(self->socks[via], &event))
            if (event.type == GR_SOCK_DISCONNECTED &&
                add_parted(&self->parted[via], event.fd, now_ms) < 0)
                gr_broker_disconnected(self->broker, via, event.fd, now_ms);
    }
}

/* Takes leave of those that have gone; everything they said has been heard. */
static void part(gr_majordomo *self, enum gr_via via, int64_t now_ms)
{
    struct parted *parted = &self->parted[via];
    for (size_t i = 0; i < parted->len; i++)
        gr_broker_disconnected(self->broker, via, parted->fds[i], now_ms);
    parted->len = 0;
}

/* A new connection has the descriptor of one that has gone: now that one must be forgotten. */
static void part_from(gr_majordomo *self, enum gr_via via, const gr_msg *msg, int64_t now_ms)
{
    if (via > GR_VIA_BACK || self->parted[via].len == 0)
        return;
    struct parted *parted = &self->parted[via];
    int fd = zmq_msg_get(gr_msg_zmq((gr_msg *)msg, gr_msg_len(msg) - 1), ZMQ_SRCFD);
    for (size_t i = 0; i < parted->len; i++) {
        if (parted->fds[i] != fd)
            continue;
        gr_broker_disconnected(self->broker, via, fd, now_ms);
        parted->len--;
        memmove(parted->fds + i, parted->fds + i + 1, (parted->len - i) * sizeof(int));
        return;
    }
}

/* What libzmq knows of the connection that msg came over; empty when it is nothing. */
static gr_slice property_of(const gr_msg *msg, const char *name)
{
    const char *value = zmq_msg_gets(gr_msg_zmq((gr_msg *)msg, gr_msg_len(msg) - 1), name);
    return gr_slice_str(value != NULL ? value : "");
}

static gr_peer *add_peer(gr_majordomo *self, enum gr_via via, const gr_msg *msg, int64_t now_ms)
{
    gr_peer *peer = gr_broker_add_peer(self->broker, via, msg, now_ms);
    if (peer != NULL && via <= GR_VIA_BACK)
        gr_broker_set_user(self->broker, peer, property_of(msg, "User-Id"),
                           property_of(msg, "Peer-Address"));
    return peer;
}

/* A new peer is only made after the events of connections have been read: then an end that is
 * reported later cannot mean an older connection with the same descriptor. */
static void take_in(gr_majordomo *self, enum gr_via via, gr_msg **msg, int64_t now_ms)
{
    gr_peer *peer = gr_broker_find_peer(self->broker, via, *msg);
    if (peer == NULL || gr_broker_may_move(peer)) {
        watch_connections(self, now_ms);
        part_from(self, via, *msg, now_ms);
        peer = gr_broker_find_peer(self->broker, via, *msg); /* it may have parted by now */
        if (peer != NULL)
            peer = gr_broker_follow(self->broker, peer, *msg, now_ms);
    }
    if (peer == NULL)
        peer = add_peer(self, via, *msg, now_ms);
    if (peer != NULL)
        gr_broker_receive(self->broker, peer, msg, now_ms);
    else
        gr_msg_destroy(msg);
}

static bool take_from_sock(gr_majordomo *self, enum gr_via via, int64_t now_ms)
{
    gr_msg *msg;
    for (int i = 0; i < BUDGET; i++) {
        if (gr_sock_recv(self->socks[via], &msg) < 0) {
            part(self, via, now_ms);
            return false;
        }
        take_in(self, via, &msg, now_ms);
    }
    if (now_ms - self->parted[via].since_ms > PARTING_MS)
        part(self, via, now_ms);
    return true;
}

static bool take_from_hub(gr_majordomo *self, int64_t now_ms)
{
    gr_hub_event event;
    for (int i = 0; i < BUDGET; i++) {
        if (!gr_hub_next(self->hub, &event))
            return false;
        if (event.type == GR_HUB_GONE)
            gr_broker_local_gone(self->broker, event.via, gr_slice_of(event.id, sizeof(event.id)),
                                 now_ms);
        else if (gr_msg_prepend(event.msg, event.id, sizeof(event.id)) == 0)
            take_in(self, event.via, &event.msg, now_ms);
        gr_msg_destroy(&event.msg);
    }
    return true;
}

static int send_to_link(gr_majordomo *self, gr_msg **msg)
{
    uint8_t id[8];
    gr_slice frame = gr_msg_frame(*msg, 0);
    if (frame.len != sizeof(id))
        return GR_EUNAVAILABLE;
    memcpy(id, frame.data, sizeof(id));
    gr_msg_drop_first(*msg);
    return gr_hub_send(self->hub, id, msg);
}

/* Whoever cannot be reached has gone, but what it said before that is heard first. */
static void lose(gr_majordomo *self, enum gr_via via, int64_t now_ms)
{
    if (via <= GR_VIA_BACK)
        take_from_sock(self, via, now_ms);
    gr_broker_unreachable(self->broker, now_ms);
}

static void send_all(gr_majordomo *self, int64_t now_ms)
{
    enum gr_via via;
    gr_msg *msg;
    while (gr_broker_next_out(self->broker, &via, &msg)) {
        int rc =
            via <= GR_VIA_BACK ? gr_sock_send(self->socks[via], &msg) : send_to_link(self, &msg);
        if (rc == GR_EAGAIN)
            gr_broker_stalled(self->broker, &msg, now_ms);
        else if (rc < 0)
            lose(self, via, now_ms);
        gr_msg_destroy(&msg);
    }
}

/* --- credentials inside messages --------------------------------------------------------- */

enum { NUMBER_LEN = 16 }; /* hexadecimal */

static int build_question(gr_msg **out, const char *domain, const gr_broker_question *question)
{
    char number[NUMBER_LEN + 1];
    snprintf(number, sizeof(number), "%016llx", (unsigned long long)question->number);
    const gr_credentials *credentials = &question->credentials;
    return gr_zap_build_request(out, &(gr_zap_request){
                                         .id = gr_slice_str(number),
                                         .domain = gr_slice_str(domain),
                                         .address = question->address,
                                         .mechanism = credentials->mechanism,
                                         .credentials = {credentials->user, credentials->password},
                                         .credential_count = 2,
                                     });
}

static void ask(gr_majordomo *self, int64_t now_ms)
{
    gr_broker_question question;
    gr_msg *msg = NULL;
    while (gr_broker_next_question(self->broker, &question)) {
        if (build_question(&msg, self->domain, &question) < 0 || gr_sock_send(self->zap, &msg) < 0)
            gr_broker_answer(self->broker, question.number, GR_UNDECIDED, now_ms);
        gr_msg_destroy(&msg);
    }
}

static void hear_answer(gr_majordomo *self, const gr_msg *msg, int64_t now_ms)
{
    gr_zap_reply reply;
    char number[NUMBER_LEN + 1] = "";
    if (!gr_zap_parse_reply(msg, &reply) || reply.id.len != NUMBER_LEN)
        return;
    memcpy(number, reply.id.data, NUMBER_LEN);
    gr_broker_answer(self->broker, strtoull(number, NULL, 16), reply.verdict, now_ms);
}

static void take_answers(gr_majordomo *self, int64_t now_ms)
{
    gr_msg *msg;
    gr_sock_event event;
    if (self->zap == NULL)
        return;
    while (gr_sock_next_event(self->zap, &event)) /* nothing to be done about it */
        continue;
    while (gr_sock_recv(self->zap, &msg) == 0) {
        hear_answer(self, msg, now_ms);
        gr_msg_destroy(&msg);
    }
}

static void take_rules(gr_majordomo *self, int64_t now_ms)
{
    pthread_mutex_lock(&self->mutex);
    bool has_policy = self->has_policy, has_access = self->has_access;
    gr_policy *policy = has_policy ? self->policy : NULL;
    gr_access *access = has_access ? self->access : NULL;
    self->has_policy = self->has_access = false;
    if (has_policy)
        self->policy = NULL;
    if (has_access)
        self->access = NULL;
    pthread_mutex_unlock(&self->mutex);
    if (has_policy)
        gr_broker_set_policy(self->broker, &policy, now_ms);
    if (has_access)
        gr_broker_set_access(self->broker, &access, now_ms);
}

static void complain(gr_majordomo *self, const gr_broker_stats *stats, int64_t now_ms)
{
    if (self->log_ms + COMPLAIN_MS > now_ms)
        return;
    static const char *const name = "gaterpc.broker";
    uint64_t malformed = stats->malformed - self->logged.malformed;
    uint64_t slow = stats->slow - self->logged.slow;
    uint64_t lost = stats->lost - self->logged.lost;
    uint64_t refused = stats->refused - self->logged.refused;
    uint64_t denied = stats->denied - self->logged.denied;
    uint64_t forged = stats->forged - self->logged.forged;
    uint64_t cut = stats->cut - self->logged.cut;
    if (malformed + slow + lost + refused + denied + forged + cut == 0)
        return;
    if (malformed > 0) {
        char fault[200];
        gr_broker_last_malformed(self->broker, fault, sizeof(fault));
        gr_log(GR_LOG_WARNING, name, "%llu messages could not be understood and were dropped; %s",
               (unsigned long long)malformed, fault);
    }
    if (refused + denied + forged > 0) {
        char last[256];
        gr_broker_last_refused(self->broker, last, sizeof(last));
        gr_log(GR_LOG_WARNING, name,
               "refused: %llu messages without right credentials, %llu that the access list does "
               "not allow, %llu in another one's name; the last one: %s",
               (unsigned long long)refused, (unsigned long long)denied, (unsigned long long)forged,
               last);
    }
    if (cut > 0)
        gr_log(GR_LOG_WARNING, name,
               "%llu streams of gate01 clients ended early, which they cannot be told",
               (unsigned long long)cut);
    if (slow > 0)
        gr_log(GR_LOG_WARNING, name, "%llu peers were dropped because they did not read",
               (unsigned long long)slow);
    if (lost > 0)
        gr_log(GR_LOG_WARNING, name, "%llu calls ended because their worker went away",
               (unsigned long long)lost);
    self->logged = *stats;
    self->log_ms = now_ms;
}

static void publish_stats(gr_majordomo *self, int64_t now_ms)
{
    gr_broker_stats stats;
    gr_broker_get_stats(self->broker, &stats);
    complain(self, &stats, now_ms);
    pthread_mutex_lock(&self->mutex);
    self->stats = stats;
    pthread_mutex_unlock(&self->mutex);
}

static long wait_ms(const gr_majordomo *self)
{
    enum { MOST_MS = 60 * 1000 };
    int64_t left_ms = gr_broker_next_due(self->broker) - gr_clock_ms();
    return left_ms < 0 ? 0 : left_ms < MOST_MS ? (long)left_ms : MOST_MS;
}

static void serve(gr_majordomo *self)
{
    zmq_pollitem_t polls[POLLS] = {
        [POLL_FRONT] = {.socket = gr_sock_zmq(self->socks[0]), .events = ZMQ_POLLIN},
        [POLL_BACK] = {.socket = gr_sock_zmq(self->socks[1]), .events = ZMQ_POLLIN},
        [POLL_FRONT_EVENTS] = {.socket = gr_sock_event_zmq(self->socks[0]), .events = ZMQ_POLLIN},
        [POLL_BACK_EVENTS] = {.socket = gr_sock_event_zmq(self->socks[1]), .events = ZMQ_POLLIN},
        [POLL_HUB] = {.fd = gr_hub_fd(self->hub), .events = ZMQ_POLLIN},
    };
    int count = POLL_ZAP;
    if (self->zap != NULL)
        polls[count++] = (zmq_pollitem_t){.socket = gr_sock_zmq(self->zap), .events = ZMQ_POLLIN};
    bool more = false;
    while (!atomic_load(&self->stop)) {
        zmq_poll(polls, count, more ? 0 : wait_ms(self)); /* when interrupted, look at all doors */
        int64_t now_ms = gr_clock_ms();
        if (polls[POLL_FRONT_EVENTS].revents || polls[POLL_BACK_EVENTS].revents)
            watch_connections(self, now_ms);
        take_rules(self, now_ms);
        take_answers(self, now_ms);
        more = take_from_sock(self, GR_VIA_BACK, now_ms);
        more = take_from_sock(self, GR_VIA_FRONT, now_ms) || more;
        more = take_from_hub(self, now_ms) || more;
        if (atomic_load(&self->drain))
            gr_broker_drain(self->broker, now_ms);
        ask(self, now_ms);
        send_all(self, now_ms);
        if (gr_broker_next_due(self->broker) <= now_ms) {
            gr_broker_tick(self->broker, now_ms);
            send_all(self, now_ms);
        }
        publish_stats(self, now_ms);
        if (atomic_load(&self->drain) && gr_broker_open_calls(self->broker) == 0)
            break;
    }
    int64_t now_ms = gr_clock_ms();
    gr_broker_leave(self->broker, now_ms);
    send_all(self, now_ms);
}

static void *run(void *arg)
{
    gr_majordomo *self = arg;
    serve(self);
    publish_stats(self, gr_clock_ms());
    self->ended(self->arg);
    return NULL;
}

int gr_majordomo_start(gr_majordomo *self, gr_majordomo_ended_fn *ended, void *arg)
{
    self->ended = ended;
    self->arg = arg;
    int rc = gr_thread_start(&self->thread, run, self);
    self->running = rc == 0;
    return rc;
}

void gr_majordomo_drain(gr_majordomo *self)
{
    atomic_store(&self->drain, true);
    gr_hub_wake(self->hub);
}

void gr_majordomo_get_stats(gr_majordomo *self, gr_broker_stats *out)
{
    pthread_mutex_lock(&self->mutex);
    *out = self->stats;
    pthread_mutex_unlock(&self->mutex);
}
