#include "net/sock.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

enum {
    MAX_MESSAGE = (64 << 20) + (64 << 10),
    RECONNECT_MS = 100,
    RECONNECT_MAX_MS = 2000,
    HANDSHAKE_MS = 10000,
    LINGER_MS = 2000, /* a peer on a busy machine shall hear the last words */
    HIGH_WATER = 8192,
    BACKLOG = 1024,
    KEEPALIVE_S = 60,
    EVENTS = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED,
    REFUSALS = ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
               ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    ZAP_ENFORCE_DOMAIN = 93, /* a domain that nobody answers for lets nobody in; zmq.h names it for
                                draft builds only, but the library has it */
    MAX_TEXT = 255,          /* of a user, a password, a domain */
    MAX_BREAKS = 2,          /* handshakes that end without a word, before that is a refusal */
};

struct gr_sock {
    void *zmq;
    void *events; /* a PAIR with what happens to connections */
    bool ipv6;
    enum gr_mechanism mechanism;
    size_t password_len; /* of the secrets that libzmq's options have */
    bool has_key, has_domain;
    int breaks; /* handshakes in a row that ended without a word */
};

static void set_int(gr_sock *self, int option, int value)
{
    zmq_setsockopt(self->zmq, option, &value, sizeof(value));
}

static void set_options(gr_sock *self, enum gr_sock_type type, const gr_sock_options *options)
{
    int64_t max_message = options->max_message > 0 ? (int64_t)options->max_message : MAX_MESSAGE;
    zmq_setsockopt(self->zmq, ZMQ_MAXMSGSIZE, &max_message, sizeof(max_message));
    set_int(self, ZMQ_LINGER, LINGER_MS);
    set_int(self, ZMQ_SNDHWM, options->hwm > 0 ? options->hwm : HIGH_WATER);
    set_int(self, ZMQ_RCVHWM, options->hwm > 0 ? options->hwm : HIGH_WATER);
    set_int(self, ZMQ_BACKLOG, BACKLOG);
    set_int(self, ZMQ_TCP_KEEPALIVE, 1); /* for peers that do not beat, and whose host has gone */
    set_int(self, ZMQ_TCP_KEEPALIVE_IDLE, KEEPALIVE_S);
    set_int(self, ZMQ_TCP_KEEPALIVE_INTVL, KEEPALIVE_S / 4);
    set_int(self, ZMQ_TCP_KEEPALIVE_CNT, 4);
    set_int(self, ZMQ_HANDSHAKE_IVL,
            options->handshake_ms > 0 ? options->handshake_ms : HANDSHAKE_MS);
    set_int(self, ZMQ_RECONNECT_IVL,
            options->reconnect_ms > 0 ? options->reconnect_ms : RECONNECT_MS);
    set_int(self, ZMQ_RECONNECT_IVL_MAX,
            options->reconnect_max_ms > 0 ? options->reconnect_max_ms : RECONNECT_MAX_MS);
    if (type == GR_SOCK_ROUTER) {
        set_int(self, ZMQ_ROUTER_MANDATORY, 1); /* tells who cannot be reached, or does not read */
        set_int(self, ZMQ_ROUTER_HANDOVER, 1);  /* peers that keep their id over reconnects */
    }
}

static int open_events(gr_sock *self, void *ctx, int events)
{
    static atomic_uint serial;
    char address[64];
    snprintf(address, sizeof(address), "inproc://gaterpc.events.%u", atomic_fetch_add(&serial, 1));
    if (zmq_socket_monitor(self->zmq, address, events) != 0)
        return gr_err_of_errno(errno);
    self->events = zmq_socket(ctx, ZMQ_PAIR);
    if (self->events == NULL || zmq_connect(self->events, address) != 0)
        return gr_err_of_errno(errno);
    int none = 0;
    zmq_setsockopt(self->events, ZMQ_LINGER, &none, sizeof(none));
    return 0;
}

int gr_sock_new(gr_sock **out, void *ctx, enum gr_sock_type type, const gr_sock_options *options)
{
    gr_sock *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->zmq = zmq_socket(ctx, type == GR_SOCK_ROUTER ? ZMQ_ROUTER : ZMQ_DEALER);
    int rc = self->zmq != NULL ? 0 : gr_err_of_errno(errno);
    if (rc == 0) {
        self->ipv6 = options->ipv6;
        set_options(self, type, options);
        rc = open_events(self, ctx, type == GR_SOCK_DEALER ? EVENTS | REFUSALS : EVENTS);
    }
    if (rc < 0) {
        gr_sock_destroy(&self);
        return rc;
    }
    *out = self;
    return 0;
}

void gr_sock_destroy(gr_sock **sock)
{
    gr_sock *self = *sock;
    if (self == NULL)
        return;
    if (self->zmq != NULL) {
        zmq_socket_monitor(self->zmq, NULL, 0);
        zmq_close(self->zmq);
    }
    if (self->events != NULL)
        zmq_close(self->events);
    free(self);
    *sock = NULL;
}

static bool fits(const char *text)
{
    return text != NULL && text[0] != '\0' && strlen(text) <= MAX_TEXT;
}

/* libzmq ends the process when a PLAIN server enforces an empty domain, and asks nobody when a
 * CURVE server does. */
static bool is_sound(const gr_sock *self, const gr_sock_security *security)
{
    if (security->domain != NULL ? !fits(security->domain) : self->has_domain)
        return false;
    if (security->server && security->mechanism != GR_MECHANISM_NULL)
        return security->domain != NULL;
    return security->mechanism != GR_MECHANISM_PLAIN ||
           (fits(security->user) && fits(security->password));
}

/* libzmq has no word for it, so the secrets are written over: a string of the same length stays
 * where it is. The servers' options leave the mechanism at NULL. */
static void forget_secrets(gr_sock *self)
{
    uint8_t none[MAX_TEXT] = {0};
    if (self->password_len > 0)
        zmq_setsockopt(self->zmq, ZMQ_PLAIN_PASSWORD, none, self->password_len);
    if (self->has_key)
        zmq_setsockopt(self->zmq, ZMQ_CURVE_SECRETKEY, none, GR_CURVE_KEY_LEN);
    self->password_len = 0;
    self->has_key = false;
    set_int(self, ZMQ_PLAIN_SERVER, 0);
    set_int(self, ZMQ_CURVE_SERVER, 0);
}

static int use_plain(gr_sock *self, const gr_sock_security *security)
{
    if (security->server) {
        set_int(self, ZMQ_PLAIN_SERVER, 1);
        return 0;
    }
    self->password_len = strlen(security->password);
    int rc = zmq_setsockopt(self->zmq, ZMQ_PLAIN_USERNAME, security->user, strlen(security->user));
    return rc |
           zmq_setsockopt(self->zmq, ZMQ_PLAIN_PASSWORD, security->password, self->password_len);
}

static int use_curve(gr_sock *self, const gr_sock_security *security)
{
    self->has_key = true;
    set_int(self, ZMQ_CURVE_SERVER, security->server);
    int rc = zmq_setsockopt(self->zmq, ZMQ_CURVE_PUBLICKEY, security->public_key, GR_CURVE_KEY_LEN);
    rc |= zmq_setsockopt(self->zmq, ZMQ_CURVE_SECRETKEY, security->secret_key, GR_CURVE_KEY_LEN);
    if (!security->server)
        rc |=
            zmq_setsockopt(self->zmq, ZMQ_CURVE_SERVERKEY, security->server_key, GR_CURVE_KEY_LEN);
    return rc;
}

/* libzmq copies these options when a socket is bound or connected, so each address may have others.
 */
int gr_sock_secure(gr_sock *self, const gr_sock_security *security)
{
    if (!is_sound(self, security))
        return GR_EINVAL;
    forget_secrets(self);
    self->mechanism = security->mechanism;
    self->breaks = 0;
    set_int(self, ZAP_ENFORCE_DOMAIN, security->server);
    int rc = 0;
    if (security->domain != NULL) {
        self->has_domain = true;
        rc = zmq_setsockopt(self->zmq, ZMQ_ZAP_DOMAIN, security->domain, strlen(security->domain));
    }
    if (security->mechanism == GR_MECHANISM_PLAIN)
        rc |= use_plain(self, security);
    else if (security->mechanism == GR_MECHANISM_CURVE)
        rc |= use_curve(self, security);
    return rc == 0 ? 0 : GR_EINVAL;
}

void gr_sock_set_handover(gr_sock *self, bool handover)
{
    set_int(self, ZMQ_ROUTER_HANDOVER, handover);
}

/* With ZMQ_IPV6 a socket that is bound to an IPv4 address calls it tcp://[::ffff:127.0.0.1]:port,
 * which peers without the option do not understand. So such addresses do without. */
static void choose_family(gr_sock *self, const char *address)
{
    size_t digits = strncmp(address, "tcp://", 6) == 0 ? strspn(address + 6, "0123456789.") : 0;
    bool is_ipv4 = digits > 0 && address[6 + digits] == ':';
    set_int(self, ZMQ_IPV6, self->ipv6 && !is_ipv4);
}

int gr_sock_bind(gr_sock *self, const char *address, char *bound, size_t bound_len)
{
    choose_family(self, address);
    if (zmq_bind(self->zmq, address) != 0)
        return gr_err_of_errno(errno);
    if (bound != NULL && zmq_getsockopt(self->zmq, ZMQ_LAST_ENDPOINT, bound, &bound_len) != 0)
        return gr_err_of_errno(errno);
    return 0;
}

void gr_sock_set_id(gr_sock *self, gr_slice id)
{
    zmq_setsockopt(self->zmq, ZMQ_ROUTING_ID, id.data, id.len);
}

int gr_sock_connect(gr_sock *self, const char *address)
{
    choose_family(self, address);
    return zmq_connect(self->zmq, address) == 0 ? 0 : gr_err_of_errno(errno);
}

/* What waits to be sent is dropped; what has come should have been received before. News of the old
 * connection, and of one that libzmq may have made in its place meanwhile, is of no use any more.
 */
void gr_sock_disconnect(gr_sock *self, const char *address)
{
    gr_sock_event event;
    set_int(self, ZMQ_LINGER, 0);
    zmq_disconnect(self->zmq, address);
    set_int(self, ZMQ_LINGER, LINGER_MS);
    while (gr_sock_next_event(self, &event))
        continue;
}

static int recv_frame(gr_sock *self, zmq_msg_t *frame)
{
    while (zmq_msg_recv(frame, self->zmq, ZMQ_DONTWAIT) < 0) {
        if (errno != EINTR)
            return gr_err_of_errno(errno);
    }
    return 0;
}

int gr_sock_recv(gr_sock *self, gr_msg **out)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    int rc = recv_frame(self, &frame);
    if (rc < 0) {
        zmq_msg_close(&frame);
        return rc;
    }
    gr_msg *msg = NULL;
    rc = gr_msg_new(&msg);
    bool more = true;
    while (more) { /* the rest of a message is there when its first frame is */
        more = zmq_msg_more(&frame);
        if (rc == 0)
            rc = gr_msg_add_zmq(msg, &frame);
        if (more && recv_frame(self, &frame) < 0)
            break;
    }
    zmq_msg_close(&frame);
    if (rc < 0) {
        gr_msg_destroy(&msg);
        return rc;
    }
    *out = msg;
    return 0;
}

int gr_sock_send(gr_sock *self, gr_msg **msg)
{
    size_t len = gr_msg_len(*msg);
    for (size_t i = 0; i < len; i++) {
        int flags = i + 1 < len ? ZMQ_DONTWAIT | ZMQ_SNDMORE : ZMQ_DONTWAIT;
        while (zmq_msg_send(gr_msg_zmq(*msg, i), self->zmq, flags) < 0) {
            if (errno == EINTR)
                continue;
            if (i == 0)
                return gr_err_of_errno(errno);
            break; /* the peer went in between: ZeroMQ drops what was begun */
        }
    }
    gr_msg_destroy(msg);
    return 0;
}

bool gr_sock_readable(gr_sock *self)
{
    int events = 0;
    size_t len = sizeof(events);
    return zmq_getsockopt(self->zmq, ZMQ_EVENTS, &events, &len) == 0 && (events & ZMQ_POLLIN);
}

static int fd_of(void *zmq)
{
    int fd = -1;
    size_t len = sizeof(fd);
    zmq_getsockopt(zmq, ZMQ_FD, &fd, &len);
    return fd;
}

int gr_sock_fd(const gr_sock *self)
{
    return fd_of(self->zmq);
}

int gr_sock_event_fd(const gr_sock *self)
{
    return fd_of(self->events);
}

/* The first frame is the event in two bytes and its value in four, in the machine's own order
 * (zmq_socket_monitor(3)); the second is the address. */
static bool read_event(gr_sock *self, uint16_t *event, int32_t *value)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    bool got = false;
    if (zmq_msg_recv(&frame, self->events, ZMQ_DONTWAIT) >= 0) {
        got = zmq_msg_size(&frame) == sizeof(*event) + sizeof(*value);
        if (got) {
            const char *data = zmq_msg_data(&frame);
            memcpy(event, data, sizeof(*event));
            memcpy(value, data + sizeof(*event), sizeof(*value));
        }
        while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, self->events, ZMQ_DONTWAIT) >= 0)
            continue;
    }
    zmq_msg_close(&frame);
    return got;
}

static void refuse(gr_sock_event *out, int error, const char *text)
{
    *out = (gr_sock_event){.type = GR_SOCK_REFUSED, .error = error, .text = text};
}

/* Whoever decides has said no: the status is one of RFC 27. */
static void explain_denial(const gr_sock *self, int32_t status, gr_sock_event *out)
{
    static const char *const texts[] = {
        [GR_MECHANISM_NULL] = "does not let us in without credentials, or from this host",
        [GR_MECHANISM_PLAIN] = "refuses the user or the password of zap_credentials",
        [GR_MECHANISM_CURVE] = "does not accept the public key of zap_credentials",
    };
    if (status == 400)
        refuse(out, GR_EUNAUTHENTICATED, texts[self->mechanism]);
    else
        refuse(out, GR_EUNAVAILABLE, "cannot find out at present whom it may let in");
}

static void explain_misunderstanding(const gr_sock *self, int32_t detail, gr_sock_event *out)
{
    static const char *const texts[] = {
        [GR_MECHANISM_NULL] = "wants credentials: zap_mechanism and zap_credentials",
        [GR_MECHANISM_PLAIN] = "does not use PLAIN: zap_mechanism must be another one, or none",
        [GR_MECHANISM_CURVE] = "does not use CURVE: zap_mechanism must be another one, or none",
    };
    if (detail == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
        refuse(out, GR_EUNAUTHENTICATED, texts[self->mechanism]);
    else if (self->mechanism == GR_MECHANISM_CURVE)
        refuse(out, GR_EUNAUTHENTICATED,
               "has another key than the server's key in zap_credentials, or is an impostor");
    else
        refuse(out, GR_EUNAVAILABLE, "does not keep to ZeroMQ's protocol in the handshake");
}

/* A server with another key hangs up, and one with another mechanism may; but so does one that is
 * ending. Who has no credentials is told by another event, or waits. */
static bool explain_break(gr_sock *self, int32_t number, gr_sock_event *out)
{
    if (self->mechanism == GR_MECHANISM_NULL || (number != EPIPE && number != ECONNRESET) ||
        ++self->breaks < MAX_BREAKS)
        return false;
    if (self->mechanism == GR_MECHANISM_CURVE)
        refuse(out, GR_EUNAUTHENTICATED,
               "hangs up in the handshake: it has another key than the server's key in "
               "zap_credentials, or does not use CURVE");
    else
        refuse(out, GR_EUNAUTHENTICATED,
               "hangs up in the handshake: it does not use PLAIN, or nobody there knows passwords");
    return true;
}

static bool explain(gr_sock *self, uint16_t event, int32_t value, gr_sock_event *out)
{
    switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        self->breaks = 0;
        *out = (gr_sock_event){.type = GR_SOCK_CONNECTED, .fd = value};
        return true;
    case ZMQ_EVENT_DISCONNECTED:
        *out = (gr_sock_event){.type = GR_SOCK_DISCONNECTED, .fd = value};
        return true;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        explain_denial(self, value, out);
        return true;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        explain_misunderstanding(self, value, out);
        return true;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return explain_break(self, value, out);
    default:
        return false;
    }
}

bool gr_sock_next_event(gr_sock *self, gr_sock_event *out)
{
    uint16_t event;
    int32_t value;
    while (read_event(self, &event, &value))
        if (explain(self, event, value, out))
            return true;
    return false;
}

void *gr_sock_zmq(gr_sock *self)
{
    return self->zmq;
}

void *gr_sock_event_zmq(gr_sock *self)
{
    return self->events;
}
