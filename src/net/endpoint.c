#include <stdlib.h>
#include <utlist.h>

#include "base/err.h"
#include "net/endpoint_priv.h"

enum { RELINK_MS = 50, RETRY_MS = 100, RETRY_MAX_MS = 2000, MAX_EVENTS = 4096 };

bool gr_endpoint_is_local(const char *address)
{
    gr_link *link;
    if (strncmp(address, "inproc://", 9) == 0)
        return true;
    if (gr_link_open(&link, address, NULL, NULL) < 0)
        return false;
    gr_link_close(&link);
    return true;
}

/* From the hub's thread. */
static void wake_by_link(void *arg)
{
    gr_endpoint *self = arg;
    atomic_store(&self->poked, true);
    uv_async_send(&self->loop->async);
}

/* --- with the mutex held ----------------------------------------------------------------- */

static void set_connected(gr_endpoint *self, bool connected, int64_t now_ms)
{
    if (self->connected == connected)
        return;
    self->connected = connected;
    if (connected) {
        self->ops->connected(self->engine, now_ms);
    } else {
        gr_msg_destroy(&self->pending);
        self->ops->disconnected(self->engine, now_ms);
    }
}

static void try_link(gr_endpoint *self, int64_t now_ms)
{
    if (self->link != NULL || self->relink_ms > now_ms)
        return;
    self->relink_ms = now_ms + RELINK_MS;
    if (gr_link_open(&self->link, self->address, wake_by_link, self) == 0)
        set_connected(self, true, now_ms);
}

static void lose_link(gr_endpoint *self, int64_t now_ms)
{
    gr_link_close(&self->link);
    self->relink_ms = now_ms + RELINK_MS;
    set_connected(self, false, now_ms);
}

static int send_one(gr_endpoint *self, gr_msg **msg)
{
    return self->link != NULL ? gr_link_send(self->link, msg) : gr_sock_send(self->sock, msg);
}

/* What cannot be sent now stays first in line. */
static void flush(gr_endpoint *self)
{
    if (!self->connected)
        return;
    while (self->pending != NULL || self->ops->next_out(self->engine, &self->pending)) {
        if (send_one(self, &self->pending) < 0)
            return;
    }
}

static int recv_one(gr_endpoint *self, gr_msg **msg)
{
    if (self->link == NULL)
        return gr_sock_recv(self->sock, msg);
    *msg = gr_link_recv(self->link);
    return *msg != NULL ? 0 : GR_EAGAIN;
}

static int connect_sock(gr_endpoint *self)
{
    gr_slice id = self->ops->routing_id(self->engine);
    if (id.len > 0)
        gr_sock_set_id(self->sock, id);
    self->retry_ms = GR_NEVER;
    return gr_sock_connect(self->sock, self->address);
}

/* The pause before the next attempt: doubled, and up to a quarter longer. */
static int64_t next_pause(gr_endpoint *self)
{
    int doubled =
        self->pause_ms > self->reconnect_max_ms / 2 ? self->reconnect_max_ms : self->pause_ms * 2;
    self->pause_ms = self->pause_ms > 0 ? doubled : self->reconnect_ms;
    return self->pause_ms + gr_clock_ns() / 1024 % (self->pause_ms / 4 + 1);
}

/* libzmq tries again after some refusals and not after others, so it is done here after all. */
static void be_refused(gr_endpoint *self, const gr_sock_event *event, int64_t now_ms)
{
    gr_sock_disconnect(self->sock, self->address);
    self->retry_ms = now_ms + next_pause(self);
    self->ops->refused(self->engine, event->error, event->text, now_ms);
}

static void watch_sock(gr_endpoint *self, int64_t now_ms)
{
    gr_sock_event event;
    if (self->retry_ms <= now_ms && connect_sock(self) < 0)
        self->retry_ms = now_ms + next_pause(self);
    while (!self->parted && gr_sock_next_event(self->sock, &event)) {
        if (event.type == GR_SOCK_CONNECTED) {
            self->pause_ms = 0;
            set_connected(self, true, now_ms);
        } else if (event.type == GR_SOCK_DISCONNECTED) {
            self->parted = self->connected;
        } else if (!self->connected) {
            be_refused(self, &event, now_ms);
        }
    }
}

static void watch_connection(gr_endpoint *self, int64_t now_ms)
{
    if (self->sock != NULL) {
        watch_sock(self, now_ms);
        return;
    }
    if (self->link != NULL && gr_link_is_over(self->link))
        lose_link(self, now_ms);
    try_link(self, now_ms);
}

/* Ends the conversation and begins another one, over a connection of its own. */
static void begin_anew(gr_endpoint *self, int64_t now_ms)
{
    self->parted = false;
    set_connected(self, false, now_ms);
    if (self->sock == NULL)
        return;
    gr_sock_disconnect(self->sock, self->address);
    if (connect_sock(self) < 0)
        self->retry_ms = now_ms + next_pause(self);
}

/* The broker has fallen silent, for instance, behind a connection that looks alive. */
static void reconnect(gr_endpoint *self)
{
    if (self->ops->take_reconnect(self->engine))
        begin_anew(self, gr_clock_ms());
}

/* Returns true when nothing is left to receive. */
static bool receive(gr_endpoint *self, int64_t now_ms)
{
    gr_msg *msg;
    for (int i = 0; i < BUDGET && self->ops->events(self->engine) < MAX_EVENTS; i++) {
        if ((self->sock == NULL && self->link == NULL) || recv_one(self, &msg) < 0)
            return true;
        self->ops->receive(self->engine, &msg, now_ms);
    }
    return false;
}

/* The news of an end overtakes what was said before it: first that is heard, an answer for
 * instance. */
static void take_in(gr_endpoint *self, int64_t now_ms)
{
    watch_connection(self, now_ms);
    if (!receive(self, now_ms) || !self->parted)
        return;
    begin_anew(self, now_ms);
}

static void drive(gr_endpoint *self, int64_t now_ms)
{
    take_in(self, now_ms);
    if (self->ops->next_due(self->engine) <= now_ms)
        self->ops->tick(self->engine, now_ms);
    reconnect(self);
}

/* Read last, because every send and receive consumes the descriptor's edge. */
static bool has_input(gr_endpoint *self)
{
    if (self->ops->events(self->engine) >= MAX_EVENTS)
        return false; /* the owner is to take some first */
    if (self->link !=
        NULL) /* which wakes us when its queue was empty, not for what we left in it */
        return gr_link_readable(self->link);
    if (self->parted)
        return true;
    return self->sock != NULL && gr_sock_readable(self->sock);
}

/* --- by the loop and the guard ----------------------------------------------------------- */

bool gr_endpoint_pump(gr_endpoint *self, int64_t now_ms)
{
    pthread_mutex_lock(&self->mutex);
    drive(self, now_ms);
    bool events = self->ops->events(self->engine) > 0;
    pthread_mutex_unlock(&self->mutex);
    self->touched = true;
    return events;
}

void gr_endpoint_settle(gr_endpoint *self)
{
    pthread_mutex_lock(&self->mutex);
    reconnect(self);
    flush(self);
    int64_t due_ms = self->ops->next_due(self->engine);
    if (self->sock == NULL && self->link == NULL && self->relink_ms < due_ms)
        due_ms = self->relink_ms;
    if (self->retry_ms < due_ms)
        due_ms = self->retry_ms;
    bool busy = self->ops->is_busy(self->engine) || self->pending != NULL;
    bool more = self->ops->events(self->engine) > 0;
    more = has_input(self) || more;
    pthread_mutex_unlock(&self->mutex);

    self->loop->busy += (unsigned)busy - (unsigned)self->busy;
    self->busy = busy;
    self->due_ms = due_ms;
    self->touched = false;
    self->want = self->want || more;
}

bool gr_endpoint_stand_in(gr_endpoint *self, int64_t now_ms)
{
    pthread_mutex_lock(&self->mutex);
    take_in(self, now_ms);
    self->ops->tick(self->engine, now_ms);
    reconnect(self);
    flush(self);
    bool wake = self->ops->events(self->engine) > 0;
    wake = has_input(self) || wake;
    pthread_mutex_unlock(&self->mutex);
    return wake;
}

void *gr_endpoint_lock(gr_endpoint *self)
{
    pthread_mutex_lock(&self->mutex);
    return self->engine;
}

void gr_endpoint_unlock(gr_endpoint *self)
{
    bool events = self->ops->events(self->engine) > 0;
    pthread_mutex_unlock(&self->mutex);
    self->touched = true;
    self->want = self->want || events;
}

/* --- life -------------------------------------------------------------------------------- */

/* Never receives here: that would consume an edge and not look again, see
 * docs/architecture.md, "Threads". */
static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    ((gr_endpoint *)poll->data)->want = true;
}

static int start_poll(gr_endpoint *self, int which, int fd)
{
    uv_poll_t *poll = malloc(sizeof(*poll));
    if (poll == NULL)
        return GR_ENOMEM;
    if (uv_poll_init(&self->loop->uv, poll, fd) != 0) {
        free(poll);
        return GR_ESYSTEM;
    }
    poll->data = self;
    self->polls[which] = poll;
    uv_poll_start(poll, UV_READABLE, on_poll);
    uv_unref((uv_handle_t *)poll);
    return 0;
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static int open_sock(gr_endpoint *self, const gr_endpoint_options *options)
{
    const gr_sock_options *sock = &options->sock;
    self->reconnect_ms = sock->reconnect_ms > 0 ? sock->reconnect_ms : RETRY_MS;
    self->reconnect_max_ms = sock->reconnect_max_ms > 0 ? sock->reconnect_max_ms : RETRY_MAX_MS;
    int rc = gr_sock_new(&self->sock, options->ctx, GR_SOCK_DEALER, sock);
    if (rc == 0 && options->security != NULL)
        rc = gr_sock_secure(self->sock, options->security);
    if (rc == 0)
        rc = connect_sock(self);
    if (rc == 0)
        rc = start_poll(self, 0, gr_sock_fd(self->sock));
    if (rc == 0)
        rc = start_poll(self, 1, gr_sock_event_fd(self->sock));
    return rc;
}

static void release(gr_endpoint *self)
{
    for (int i = 0; i < 2; i++)
        if (self->polls[i] != NULL)
            uv_close((uv_handle_t *)self->polls[i], free_handle);
    gr_link_close(&self->link);
    gr_sock_destroy(&self->sock);
    gr_msg_destroy(&self->pending);
    pthread_mutex_destroy(&self->mutex);
    free(self->address);
    free(self);
}

int gr_endpoint_new(gr_endpoint **out, gr_loop *loop, const gr_endpoint_options *options)
{
    gr_endpoint *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    pthread_mutex_init(&self->mutex, NULL);
    self->loop = loop;
    self->owner = options->owner;
    self->ops = options->ops;
    self->engine = options->engine;
    self->heartbeat_ms = options->heartbeat_ms;
    self->due_ms = self->retry_ms = GR_NEVER;
    self->touched = self->want = true;
    self->address = strdup(options->address);
    int rc = self->address != NULL ? 0 : GR_ENOMEM;
    bool local = gr_endpoint_is_local(options->address);
    if (local && options->by_socket && strncmp(options->address, "inproc://", 9) == 0)
        rc = GR_EADDRESS;
    if (rc == 0 && local && !options->by_socket)
        try_link(self, gr_clock_ms());
    else if (rc == 0)
        rc = open_sock(self, options);
    if (rc < 0) {
        release(self);
        return rc;
    }
    pthread_mutex_lock(&loop->list_mutex);
    DL_APPEND(loop->endpoints, self);
    pthread_mutex_unlock(&loop->list_mutex);
    gr_guard_hurry(loop->guard, self->heartbeat_ms);
    *out = self;
    return 0;
}

void gr_endpoint_destroy(gr_endpoint **endpoint)
{
    gr_endpoint *self = *endpoint;
    if (self == NULL)
        return;
    pthread_mutex_lock(&self->loop->list_mutex);
    DL_DELETE(self->loop->endpoints, self);
    pthread_mutex_unlock(&self->loop->list_mutex);
    if (self->loop->cursor == self)
        self->loop->cursor = self->next;
    flush(self); /* nobody else knows it any more */
    if (self->busy)
        self->loop->busy--;
    release(self);
    *endpoint = NULL;
}

void *gr_endpoint_owner(const gr_endpoint *self)
{
    return self->owner;
}

const char *gr_endpoint_address(const gr_endpoint *self)
{
    return self->address;
}
