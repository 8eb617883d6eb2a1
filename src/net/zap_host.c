#include "net/zap_host.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"

enum {
    MOST_DOORS = 64,
    BUDGET = 256,        /* requests taken from one door before the next has its turn */
    COMPLAIN_MS = 10000, /* refusals are logged at most so often */
};

struct door {
    gr_zap_via via;
    gr_sock *sock;
    char *address; /* as it was bound or connected */
};

/* What another thread wants done; it waits for it. */
struct order {
    int (*run)(gr_zap_host *self, struct order *order);
    gr_slice domain;
    gr_policy **policy;
    const char *address;
    char *bound;
    size_t bound_len;
    int rc;
    bool done;
};

struct gr_zap_host {
    void *ctx;
    int wake_fd;
    pthread_t thread;
    pthread_mutex_t callers; /* one order at a time */
    pthread_mutex_t mutex;   /* guards order, stop and stats */
    pthread_cond_t cond;
    struct order *order;
    bool stop;
    gr_zap_stats stats;

    /* The thread's own. */
    gr_zap *zap;
    struct door doors[MOST_DOORS];
    size_t door_count;
    uint32_t last_number;
    gr_zap_stats logged;
    int64_t log_ms;
};

/* --- doors ------------------------------------------------------------------------------- */

static const gr_sock_options sock_options = {
    .max_message = 64 * 1024, /* of one frame; requests are small */
};

static int open_door(gr_zap_host *self, enum gr_zap_door kind, const char *address, char *bound,
                     size_t bound_len)
{
    if (self->door_count == MOST_DOORS)
        return GR_EEXHAUSTED;
    struct door door = {.via = {.door = kind, .number = ++self->last_number}};
    bool connects = kind == GR_ZAP_REMOTE;
    int rc = gr_sock_new(&door.sock, self->ctx, connects ? GR_SOCK_DEALER : GR_SOCK_ROUTER,
                         &sock_options);
    if (rc == 0)
        rc = connects ? gr_sock_connect(door.sock, address)
                      : gr_sock_bind(door.sock, address, bound, bound_len);
    if (rc == 0) {
        door.address = strdup(connects ? address : bound);
        rc = door.address != NULL ? 0 : GR_ENOMEM;
    }
    if (rc < 0) {
        gr_sock_destroy(&door.sock);
        return rc;
    }
    self->doors[self->door_count++] = door;
    return 0;
}

static void close_door(gr_zap_host *self, size_t i)
{
    gr_sock_destroy(&self->doors[i].sock);
    free(self->doors[i].address);
    self->doors[i] = self->doors[--self->door_count];
}

static struct door *find_door(gr_zap_host *self, enum gr_zap_door kind, const char *address)
{
    for (size_t i = 0; i < self->door_count; i++)
        if (self->doors[i].via.door == kind && strcmp(self->doors[i].address, address) == 0)
            return &self->doors[i];
    return NULL;
}

static gr_sock *sock_of(gr_zap_host *self, gr_zap_via via)
{
    for (size_t i = 0; i < self->door_count; i++)
        if (self->doors[i].via.number == via.number)
            return self->doors[i].sock;
    return NULL;
}

/* Services elsewhere that no domain asks any more. */
static void close_unused(gr_zap_host *self)
{
    for (size_t i = self->door_count; i > 0; i--)
        if (self->doors[i - 1].via.door == GR_ZAP_REMOTE &&
            !gr_zap_asks(self->zap, self->doors[i - 1].via.number))
            close_door(self, i - 1);
}

/* --- orders ------------------------------------------------------------------------------ */

static int set_policy(gr_zap_host *self, struct order *order)
{
    return gr_zap_set_policy(self->zap, order->domain, order->policy);
}

static int remove_domain(gr_zap_host *self, struct order *order)
{
    gr_zap_remove(self->zap, order->domain);
    return 0;
}

static int set_remote(gr_zap_host *self, struct order *order)
{
    struct door *door = find_door(self, GR_ZAP_REMOTE, order->address);
    int rc = door == NULL ? open_door(self, GR_ZAP_REMOTE, order->address, NULL, 0) : 0;
    if (rc < 0)
        return rc;
    door = find_door(self, GR_ZAP_REMOTE, order->address);
    return gr_zap_set_remote(self->zap, order->domain, door->via.number);
}

static int bind_service(gr_zap_host *self, struct order *order)
{
    return open_door(self, GR_ZAP_SERVICE, order->address, order->bound, order->bound_len);
}

static int unbind_service(gr_zap_host *self, struct order *order)
{
    struct door *door = find_door(self, GR_ZAP_SERVICE, order->address);
    if (door != NULL)
        close_door(self, (size_t)(door - self->doors));
    return 0;
}

static void wake(gr_zap_host *self)
{
    uint64_t one = 1;
    while (write(self->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        continue;
}

static int give_order(gr_zap_host *self, struct order *order)
{
    pthread_mutex_lock(&self->callers);
    pthread_mutex_lock(&self->mutex);
    self->order = order;
    wake(self);
    while (!order->done)
        pthread_cond_wait(&self->cond, &self->mutex);
    self->order = NULL;
    pthread_mutex_unlock(&self->mutex);
    pthread_mutex_unlock(&self->callers);
    return order->rc;
}

static void take_order(gr_zap_host *self)
{
    pthread_mutex_lock(&self->mutex);
    struct order *order = self->order;
    if (order != NULL && !order->done) {
        order->rc = order->run(self, order);
        close_unused(self);
        order->done = true;
        pthread_cond_signal(&self->cond);
    }
    pthread_mutex_unlock(&self->mutex);
}

int gr_zap_host_set_policy(gr_zap_host *self, gr_slice domain, gr_policy **policy)
{
    return give_order(self, &(struct order){.run = set_policy, .domain = domain, .policy = policy});
}

void gr_zap_host_remove(gr_zap_host *self, gr_slice domain)
{
    give_order(self, &(struct order){.run = remove_domain, .domain = domain});
}

int gr_zap_host_set_remote(gr_zap_host *self, gr_slice domain, const char *address)
{
    return give_order(self,
                      &(struct order){.run = set_remote, .domain = domain, .address = address});
}

int gr_zap_host_bind(gr_zap_host *self, const char *address, char *bound, size_t bound_len)
{
    return give_order(
        self, &(struct order){
                  .run = bind_service, .address = address, .bound = bound, .bound_len = bound_len});
}

void gr_zap_host_unbind(gr_zap_host *self, const char *bound)
{
    give_order(self, &(struct order){.run = unbind_service, .address = bound});
}

void gr_zap_host_get_stats(gr_zap_host *self, gr_zap_stats *out)
{
    pthread_mutex_lock(&self->mutex);
    *out = self->stats;
    pthread_mutex_unlock(&self->mutex);
}

/* --- the thread -------------------------------------------------------------------------- */

static bool take_in(gr_zap_host *self, const struct door *door, int64_t now_ms)
{
    gr_sock_event event;
    gr_msg *msg;
    while (gr_sock_next_event(door->sock, &event)) /* nothing to be done about it */
        continue;
    for (int i = 0; i < BUDGET; i++) {
        if (gr_sock_recv(door->sock, &msg) < 0)
            return false;
        gr_zap_receive(self->zap, door->via, &msg, now_ms);
    }
    return true;
}

/* Who cannot be told has gone, or does not read: a connection that nobody answers is not let in. */
static void send_all(gr_zap_host *self)
{
    gr_zap_via via;
    gr_msg *msg;
    while (gr_zap_next_out(self->zap, &via, &msg)) {
        gr_sock *sock = sock_of(self, via);
        if (sock != NULL)
            gr_sock_send(sock, &msg);
        gr_msg_destroy(&msg);
    }
}

static void complain(gr_zap_host *self, const gr_zap_stats *stats, int64_t now_ms)
{
    static const char *const name = "gaterpc.zap";
    uint64_t refused = stats->refused - self->logged.refused;
    uint64_t failed = stats->failed - self->logged.failed;
    uint64_t malformed = stats->malformed - self->logged.malformed;
    if (refused + failed + malformed == 0 || self->log_ms > now_ms)
        return;
    if (refused > 0) {
        char last[200];
        gr_zap_last_refused(self->zap, last, sizeof(last));
        gr_log(GR_LOG_WARNING, name, "refused: %llu; the last one: %s", (unsigned long long)refused,
               last);
    }
    if (failed > 0)
        gr_log(GR_LOG_WARNING, name,
               "%llu were not let in, because nobody decided: the ZAP service is gone or slow, or "
               "too many ask",
               (unsigned long long)failed);
    if (malformed > 0)
        gr_log(GR_LOG_WARNING, name, "%llu messages were no ZAP requests",
               (unsigned long long)malformed);
    self->logged = *stats;
    self->log_ms = now_ms + COMPLAIN_MS;
}

static void publish_stats(gr_zap_host *self, int64_t now_ms)
{
    gr_zap_stats stats;
    gr_zap_get_stats(self->zap, &stats);
    complain(self, &stats, now_ms);
    pthread_mutex_lock(&self->mutex);
    self->stats = stats;
    pthread_mutex_unlock(&self->mutex);
}

static long wait_ms(const gr_zap_host *self)
{
    enum { MOST_MS = 10 * 1000 };
    int64_t left_ms = gr_zap_next_due(self->zap) - gr_clock_ms();
    return left_ms < 0 ? 0 : left_ms < MOST_MS ? (long)left_ms : MOST_MS;
}

static void wait_for_more(gr_zap_host *self, bool at_once)
{
    zmq_pollitem_t polls[MOST_DOORS + 1] = {{.fd = self->wake_fd, .events = ZMQ_POLLIN}};
    for (size_t i = 0; i < self->door_count; i++)
        polls[i + 1] =
            (zmq_pollitem_t){.socket = gr_sock_zmq(self->doors[i].sock), .events = ZMQ_POLLIN};
    zmq_poll(polls, (int)self->door_count + 1, at_once ? 0 : wait_ms(self));
    uint64_t count;
    if (polls[0].revents && read(self->wake_fd, &count, sizeof(count)) < 0)
        return; /* it was read already */
}

static bool is_stopped(gr_zap_host *self)
{
    pthread_mutex_lock(&self->mutex);
    bool stop = self->stop;
    pthread_mutex_unlock(&self->mutex);
    return stop;
}

static void *run(void *arg)
{
    gr_zap_host *self = arg;
    bool more = false;
    while (!is_stopped(self)) {
        wait_for_more(self, more);
        take_order(self);
        int64_t now_ms = gr_clock_ms();
        more = false;
        for (size_t i = 0; i < self->door_count; i++)
            more = take_in(self, &self->doors[i], now_ms) || more;
        more = gr_zap_work(self->zap, now_ms) || more;
        gr_zap_tick(self->zap, gr_clock_ms());
        send_all(self);
        publish_stats(self, now_ms);
    }
    while (self->door_count > 0) /* sockets are closed where they were used */
        close_door(self, 0);
    return NULL;
}

/* --- life -------------------------------------------------------------------------------- */

static void release(gr_zap_host *self)
{
    while (self->door_count > 0)
        close_door(self, 0);
    gr_zap_destroy(&self->zap);
    if (self->wake_fd >= 0)
        close(self->wake_fd);
    pthread_cond_destroy(&self->cond);
    pthread_mutex_destroy(&self->mutex);
    pthread_mutex_destroy(&self->callers);
    free(self);
}

int gr_zap_host_new(gr_zap_host **out, void *ctx, const gr_zap_options *options)
{
    gr_zap_host *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    pthread_mutex_init(&self->callers, NULL);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->cond, NULL);
    self->ctx = ctx;
    self->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    char bound[64];
    int rc = self->wake_fd >= 0 ? gr_zap_new(&self->zap, options) : GR_EEXHAUSTED;
    if (rc == 0)
        rc = open_door(self, GR_ZAP_INNER, GR_ZAP_ADDRESS, bound, sizeof(bound));
    if (rc == 0)
        rc = gr_thread_start(&self->thread, run, self);
    if (rc < 0) {
        release(self);
        return rc;
    }
    *out = self;
    return 0;
}

void gr_zap_host_destroy(gr_zap_host **host)
{
    gr_zap_host *self = *host;
    if (self == NULL)
        return;
    pthread_mutex_lock(&self->mutex);
    self->stop = true;
    pthread_mutex_unlock(&self->mutex);
    wake(self);
    pthread_join(self->thread, NULL);
    release(self);
    *host = NULL;
}
