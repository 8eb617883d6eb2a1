/*
 * bare - what libzmq alone can do, as a yardstick for the RPC benchmark.
 *
 * A caller, a forwarder and a worker exchange one-frame messages and do nothing that an RPC
 * layer would do: no names, no encoding, no deadlines.  Whatever the RPC program costs above
 * these figures is its own work; whatever it costs below that line belongs to libzmq.
 *
 * The three roles, each a process of its own:
 *
 *   bare broker FRONT BACK                     ROUTER-ROUTER forwarder; prints the endpoints
 *                                              it bound as "front=... back=..."
 *   bare worker BACK                           DEALER that echoes calls and feeds streams
 *   bare client FRONT IN_FLIGHT SECONDS [REQUEST_BYTES [PID...]]
 *   bare client-stream FRONT ITEMS WINDOW [REQUEST_BYTES [PID...]]
 *
 * The whole measurement, with a fresh broker and worker (TRANSPORT is ipc or tcp):
 *
 *   bare all TRANSPORT SECONDS [REQUEST_BYTES]            1, 64 and 1000 in flight, a stream
 *   bare one TRANSPORT IN_FLIGHT SECONDS [REQUEST_BYTES]  one of the calls measurements
 *   bare stream TRANSPORT ITEMS WINDOW [REQUEST_BYTES]    one stream
 *
 * Each measurement prints one line on stdout:
 *
 *   bare transport=ipc in_flight=64 calls_per_s=... p50_us=... p99_us=... cpu_us_per_call=...
 *   bare transport=ipc stream=1 items_per_s=... cpu_us_per_item=...
 *
 * CPU is user plus system time of the client and of every PID given to it; all, one and
 * stream give it the broker and the worker.  A client started by hand without PIDs counts
 * itself only.  Exit status: 0 done, 1 failed, 2 usage.
 *
 * Build: cc -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra bare.c -lzmq -o bare
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#define NS_PER_S  UINT64_C(1000000000)
#define NS_PER_MS UINT64_C(1000000)

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

enum {
    HEADER_BYTES = 48,
    DEFAULT_BYTES = 80,
    MAX_BYTES = 1 << 20,
    HIGH_WATER = 100000,
    MAX_OUTSTANDING = 65536, /* below HIGH_WATER: a ROUTER drops what exceeds that */
    BURST = 256,
    STALL_MS = 5000, /* nothing at all for this long while something is due: a failure */
    READY_MS = 100,
    IDLE_MS = 1000,
    WARM_UP_MS = 300,
    STOP_MS = 2000,
};

/* Where things are in the header; integers are in host order, all processes being local. */
enum {
    AT_TYPE = 2,
    AT_FLAGS = 3,
    AT_ID = 8,
    AT_ROUTE = 16,
    AT_ITEMS = 24,  /* u32: items wanted; in an item, its number */
    AT_CREDIT = 28, /* u32: the window in a request, the grant in a credit message */
    AT_SENT = 32,   /* u64: when the client sent it, so that it needs no table of its own */
};

enum { TYPE_REQUEST = 1, TYPE_REPLY = 2, TYPE_ITEM = 3, TYPE_CREDIT = 8 };
enum { FLAG_STREAM = 1, FLAG_LAST = 2 };

/* ---------------------------------------------------------------- small things */

static volatile sig_atomic_t stop_requested;

static void on_stop(int signal_number)
{
    (void)signal_number;
    stop_requested = 1;
}

static void catch_stop(void)
{
    /* No SA_RESTART: a signal has to end a poll. */
    struct sigaction action = {.sa_handler = on_stop};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static uint32_t get_u32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void put_u32(unsigned char *at, uint32_t value)
{
    memcpy(at, &value, sizeof value);
}

static void put_u64(unsigned char *at, uint64_t value)
{
    memcpy(at, &value, sizeof value);
}

static uint64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

__attribute__((format(printf, 1, 2))) static void complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("bare: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

static bool parse_count(const char *text, uint64_t low, uint64_t high, uint64_t *value)
{
    char *end;
    errno = 0;
    if (*text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *value >= low && *value <= high;
}

static bool parse_seconds(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && *value >= 0.05 && *value <= 3600;
}

static bool parse_bytes(const char *text, uint64_t *value)
{
    *value = DEFAULT_BYTES;
    return text == NULL || parse_count(text, HEADER_BYTES, MAX_BYTES, value);
}

/* ---------------------------------------------------------------- sockets */

static bool set_int(void *sock, int option, int value)
{
    return zmq_setsockopt(sock, option, &value, sizeof value) == 0;
}

static void *open_socket(void *ctx, int type)
{
    void *sock = zmq_socket(ctx, type);
    if (sock == NULL)
        return NULL;
    bool ok = set_int(sock, ZMQ_LINGER, 0) && set_int(sock, ZMQ_SNDHWM, HIGH_WATER) &&
              set_int(sock, ZMQ_RCVHWM, HIGH_WATER) && set_int(sock, ZMQ_SNDTIMEO, STALL_MS);
    if (ok && type == ZMQ_ROUTER)
        ok = set_int(sock, ZMQ_ROUTER_HANDOVER, 0) && set_int(sock, ZMQ_ROUTER_MANDATORY, 0);
    if (ok)
        return sock;
    zmq_close(sock);
    return NULL;
}

static void *open_dealer(void *ctx, const char *endpoint)
{
    void *sock = open_socket(ctx, ZMQ_DEALER);
    if (sock != NULL && zmq_connect(sock, endpoint) == 0)
        return sock;
    complain("connect %s: %s", endpoint, zmq_strerror(errno));
    if (sock != NULL)
        zmq_close(sock);
    return NULL;
}

static void *open_router(void *ctx, const char *endpoint)
{
    void *sock = open_socket(ctx, ZMQ_ROUTER);
    if (sock != NULL && zmq_bind(sock, endpoint) == 0)
        return sock;
    complain("bind %s: %s", endpoint, zmq_strerror(errno));
    if (sock != NULL)
        zmq_close(sock);
    return NULL;
}

/* 1: received one message, 0: none waiting, -1: failed.  Leftover frames empty the message,
 * which then is too short for anyone to act upon. */
static int receive(void *sock, zmq_msg_t *msg)
{
    if (zmq_msg_recv(msg, sock, ZMQ_DONTWAIT) < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    while (zmq_msg_more(msg)) {
        if (zmq_msg_recv(msg, sock, ZMQ_DONTWAIT) < 0)
            return -1;
        if (!zmq_msg_more(msg)) {
            zmq_msg_close(msg);
            zmq_msg_init(msg);
        }
    }
    return 1;
}

/* ---------------------------------------------------------------- broker */

enum { SLOT_COUNT = 16384, NO_SLOT = SLOT_COUNT, PEER_BYTES = 15 };

struct peer {
    uint8_t len; /* 0: no peer */
    uint8_t id[PEER_BYTES];
};

struct slot {
    struct peer client;
    uint32_t generation; /* upper half of the route: a late credit must not hit a successor */
    uint32_t next_free;
};

struct broker {
    void *front;
    void *back;
    struct peer worker;
    uint32_t free_head;
    struct slot slots[SLOT_COUNT];
};

static void init_slots(struct broker *b)
{
    for (uint32_t i = 0; i < SLOT_COUNT; i++)
        b->slots[i].next_free = i + 1;
    b->free_head = 0;
}

static uint64_t take_slot(struct broker *b, const struct peer *client)
{
    uint32_t index = b->free_head;
    struct slot *slot = &b->slots[index];
    b->free_head = slot->next_free;
    slot->client = *client;
    slot->generation++;
    return (uint64_t)slot->generation << 32 | index;
}

static struct slot *find_slot(struct broker *b, uint64_t route)
{
    uint32_t index = (uint32_t)route;
    if (index >= SLOT_COUNT)
        return NULL;
    struct slot *slot = &b->slots[index];
    return slot->client.len != 0 && slot->generation == route >> 32 ? slot : NULL;
}

static void free_slot(struct broker *b, struct slot *slot)
{
    slot->client.len = 0;
    slot->next_free = b->free_head;
    b->free_head = (uint32_t)(slot - b->slots);
}

static int receive_from(void *router, struct peer *from, zmq_msg_t *body)
{
    int len = zmq_recv(router, from->id, PEER_BYTES, ZMQ_DONTWAIT);
    if (len < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -1;
    from->len = len <= PEER_BYTES ? (uint8_t)len : 0;
    return receive(router, body) == 1 ? 1 : -1;
}

static int send_to(void *router, const struct peer *to, zmq_msg_t *body)
{
    if (zmq_send(router, to->id, to->len, ZMQ_SNDMORE | ZMQ_DONTWAIT) < 0)
        return -1;
    return zmq_msg_send(body, router, ZMQ_DONTWAIT) < 0 ? -1 : 1;
}

/* Without a worker or a free slot requests stay in the socket: that is the back pressure. */
static bool takes_requests(const struct broker *b)
{
    return b->worker.len != 0 && b->free_head != NO_SLOT;
}

static int forward_request(struct broker *b, zmq_msg_t *body)
{
    struct peer from;
    if (!takes_requests(b))
        return 0;
    int got = receive_from(b->front, &from, body);
    if (got <= 0)
        return got;
    if (from.len == 0 || zmq_msg_size(body) < HEADER_BYTES)
        return 1;
    unsigned char *frame = zmq_msg_data(body);
    if (frame[AT_TYPE] != TYPE_CREDIT)
        put_u64(frame + AT_ROUTE, take_slot(b, &from));
    else if (find_slot(b, get_u64(frame + AT_ROUTE)) == NULL)
        return 1; /* credit for a stream that has ended meanwhile */
    return send_to(b->back, &b->worker, body);
}

static int forward_reply(struct broker *b, zmq_msg_t *body)
{
    struct peer from;
    int got = receive_from(b->back, &from, body);
    if (got <= 0)
        return got;
    if (zmq_msg_size(body) == 1)
        b->worker = from; /* ready */
    if (zmq_msg_size(body) < HEADER_BYTES)
        return 1;
    const unsigned char *frame = zmq_msg_data(body);
    struct slot *slot = find_slot(b, get_u64(frame + AT_ROUTE));
    if (slot == NULL)
        return 1;
    bool more = frame[AT_TYPE] == TYPE_ITEM && !(frame[AT_FLAGS] & FLAG_LAST);
    int sent = send_to(b->front, &slot->client, body);
    if (!more)
        free_slot(b, slot);
    return sent;
}

static int broker_burst(struct broker *b, zmq_msg_t *body)
{
    for (int moved = 0; moved < BURST;) {
        int replies = forward_reply(b, body);
        int requests = replies < 0 ? -1 : forward_request(b, body);
        if (requests < 0)
            return -1;
        if (replies + requests == 0)
            return 0;
        moved += replies + requests;
    }
    return 0;
}

static int broker_loop(struct broker *b)
{
    zmq_pollitem_t items[2] = {{.socket = b->back, .events = ZMQ_POLLIN},
                               {.socket = b->front, .events = ZMQ_POLLIN}};
    zmq_msg_t body;
    int status = 0;
    zmq_msg_init(&body);
    while (!stop_requested && status == 0) {
        if (zmq_poll(items, takes_requests(b) ? 2 : 1, IDLE_MS) >= 0)
            status = broker_burst(b, &body);
        else if (errno != EINTR)
            status = -1;
    }
    zmq_msg_close(&body);
    return stop_requested ? 0 : status;
}

/* The endpoints as bound: with port 0 nobody else knows them. */
static bool announce(const struct broker *b)
{
    char front[256];
    char back[256];
    size_t front_len = sizeof front;
    size_t back_len = sizeof back;
    if (zmq_getsockopt(b->front, ZMQ_LAST_ENDPOINT, front, &front_len) != 0 ||
        zmq_getsockopt(b->back, ZMQ_LAST_ENDPOINT, back, &back_len) != 0)
        return false;
    return printf("front=%s back=%s\n", front, back) > 0 && fflush(stdout) == 0;
}

static int broker_main(char **args)
{
    struct broker *b = calloc(1, sizeof *b);
    void *ctx = zmq_ctx_new();
    int status = EXIT_FAILED;
    catch_stop();
    if (b != NULL && ctx != NULL) {
        init_slots(b);
        b->front = open_router(ctx, args[0]);
        b->back = open_router(ctx, args[1]);
        if (b->front != NULL && b->back != NULL && announce(b)) {
            status = broker_loop(b) == 0 ? EXIT_OK : EXIT_FAILED;
            if (status != EXIT_OK)
                complain("broker: %s", zmq_strerror(errno));
        }
        if (b->front != NULL)
            zmq_close(b->front);
        if (b->back != NULL)
            zmq_close(b->back);
    }
    if (ctx != NULL)
        zmq_ctx_term(ctx);
    free(b);
    return status;
}

/* ---------------------------------------------------------------- worker */

enum { MAX_STREAMS = 16 };

struct stream {
    zmq_msg_t request; /* every item is a copy of it */
    bool active;
    uint32_t sent;
    uint32_t items;
    uint64_t credit;
};

struct worker {
    void *sock;
    bool started; /* a request has come: the broker knows us */
    struct stream streams[MAX_STREAMS];
};

static void start_stream(struct worker *w, zmq_msg_t *request)
{
    const unsigned char *frame = zmq_msg_data(request);
    for (int i = 0; i < MAX_STREAMS; i++) {
        struct stream *s = &w->streams[i];
        if (s->active)
            continue;
        s->active = true;
        s->sent = 0;
        s->items = get_u32(frame + AT_ITEMS);
        s->credit = get_u32(frame + AT_CREDIT);
        zmq_msg_init(&s->request);
        zmq_msg_move(&s->request, request);
        return;
    }
    complain("worker: more than %d streams, one ignored", MAX_STREAMS);
}

static void end_stream(struct stream *s)
{
    zmq_msg_close(&s->request);
    s->active = false;
}

static void add_credit(struct worker *w, const unsigned char *credit)
{
    for (int i = 0; i < MAX_STREAMS; i++) {
        struct stream *s = &w->streams[i];
        if (!s->active)
            continue;
        const unsigned char *request = zmq_msg_data(&s->request);
        if (get_u64(request + AT_ROUTE) == get_u64(credit + AT_ROUTE))
            s->credit += get_u32(credit + AT_CREDIT);
    }
}

static int send_item(void *sock, struct stream *s)
{
    zmq_msg_t item;
    size_t size = zmq_msg_size(&s->request);
    if (zmq_msg_init_size(&item, size) != 0)
        return -1;
    unsigned char *frame = zmq_msg_data(&item);
    memcpy(frame, zmq_msg_data(&s->request), size);
    s->sent++;
    frame[AT_TYPE] = TYPE_ITEM;
    frame[AT_FLAGS] = s->sent >= s->items ? FLAG_LAST : 0;
    put_u32(frame + AT_ITEMS, s->sent);
    if (zmq_msg_send(&item, sock, 0) >= 0)
        return 0;
    zmq_msg_close(&item);
    return -1;
}

/* 1: something is left to send at once, 0: nothing to do, -1: failed. */
static int feed_stream(void *sock, struct stream *s)
{
    for (int i = 0; i < BURST && s->credit > 0; i++) {
        if (send_item(sock, s) != 0)
            return -1;
        s->credit--;
        if (s->sent >= s->items) {
            end_stream(s);
            return 0;
        }
    }
    return s->credit > 0;
}

static int feed_streams(struct worker *w)
{
    int pending = 0;
    for (int i = 0; i < MAX_STREAMS; i++) {
        if (!w->streams[i].active)
            continue;
        int left = feed_stream(w->sock, &w->streams[i]);
        if (left < 0)
            return -1;
        pending |= left;
    }
    return pending;
}

static int serve_one(struct worker *w, zmq_msg_t *msg)
{
    int got = receive(w->sock, msg);
    if (got <= 0 || zmq_msg_size(msg) < HEADER_BYTES)
        return got;
    w->started = true;
    unsigned char *frame = zmq_msg_data(msg);
    if (frame[AT_TYPE] == TYPE_CREDIT) {
        add_credit(w, frame);
    } else if (frame[AT_FLAGS] & FLAG_STREAM) {
        start_stream(w, msg);
    } else {
        frame[AT_TYPE] = TYPE_REPLY;
        return zmq_msg_send(msg, w->sock, 0) < 0 ? -1 : 1;
    }
    return 1;
}

static int serve_burst(struct worker *w, zmq_msg_t *msg)
{
    int got = 1;
    for (int i = 0; i < BURST && got > 0; i++)
        got = serve_one(w, msg);
    return got < 0 ? -1 : feed_streams(w);
}

static int worker_loop(struct worker *w)
{
    zmq_pollitem_t item = {.socket = w->sock, .events = ZMQ_POLLIN};
    zmq_msg_t msg;
    int pending = 0; /* items that need no further credit: do not wait */
    zmq_msg_init(&msg);
    while (!stop_requested && pending >= 0) {
        if (!w->started && zmq_send(w->sock, "", 1, 0) < 0)
            break;
        long timeout = w->started ? IDLE_MS : READY_MS;
        if (pending == 0 && zmq_poll(&item, 1, timeout) < 0 && errno != EINTR)
            break;
        pending = serve_burst(w, &msg);
    }
    zmq_msg_close(&msg);
    return stop_requested ? 0 : -1;
}

static int worker_main(char **args)
{
    struct worker w = {0};
    void *ctx = zmq_ctx_new();
    int status = EXIT_FAILED;
    catch_stop();
    if (ctx == NULL)
        return EXIT_FAILED;
    w.sock = open_dealer(ctx, args[0]);
    if (w.sock != NULL) {
        status = worker_loop(&w) == 0 ? EXIT_OK : EXIT_FAILED;
        if (status != EXIT_OK)
            complain("worker: %s", zmq_strerror(errno));
        for (int i = 0; i < MAX_STREAMS; i++)
            if (w.streams[i].active)
                end_stream(&w.streams[i]);
        zmq_close(w.sock);
    }
    zmq_ctx_term(ctx);
    return status;
}

/* ---------------------------------------------------------------- histogram, meter */

/* Buckets are 1/64 of their octave wide (1.6 %), up to 2^40 ns. */
enum { SUB_BITS = 6, SUB_COUNT = 1 << SUB_BITS, MAX_BITS = 40 };
enum { BUCKETS = (MAX_BITS - SUB_BITS + 1) * SUB_COUNT };

struct histogram {
    uint64_t total;
    uint64_t count[BUCKETS];
};

static void record(struct histogram *h, uint64_t ns)
{
    if (ns >> MAX_BITS)
        ns = (UINT64_C(1) << MAX_BITS) - 1;
    int shift = ns < SUB_COUNT ? 0 : 63 - __builtin_clzll(ns) - SUB_BITS;
    h->count[(uint64_t)shift * SUB_COUNT + (ns >> shift)]++;
    h->total++;
}

/* The middle of the bucket that holds the given share of all values, in microseconds. */
static double percentile_us(const struct histogram *h, double share)
{
    double rank = share * (double)h->total;
    uint64_t seen = 0;
    size_t i = 0;
    while (i < BUCKETS - 1 && (double)(seen += h->count[i]) < rank)
        i++;
    /* The first two octaves are one run of unit buckets; beyond, i / 64 is shift + 1. */
    size_t shift = i < 2 * SUB_COUNT ? 0 : i / SUB_COUNT - 1;
    double low = (double)((uint64_t)(i - shift * SUB_COUNT) << shift);
    return (low + (double)(UINT64_C(1) << shift) / 2) / 1e3;
}

enum { MAX_PIDS = 8 };

/* Time and CPU time of one measured interval. */
struct meter {
    clockid_t clocks[MAX_PIDS + 1];
    int count;
    uint64_t start_ns;
    uint64_t start_cpu;
    double seconds;
    double cpu_us;
};

/* Takes the client itself and the processes named by the arguments after the size. */
static int meter_init(struct meter *m, char **size)
{
    *m = (struct meter){.clocks = {CLOCK_PROCESS_CPUTIME_ID}, .count = 1};
    for (char **arg = size; *arg != NULL && *++arg != NULL;) {
        uint64_t pid;
        if (m->count > MAX_PIDS || !parse_count(*arg, 1, INT32_MAX, &pid))
            return EXIT_USAGE;
        int error = clock_getcpuclockid((pid_t)pid, &m->clocks[m->count++]);
        if (error != 0) {
            complain("process %s: %s", *arg, strerror(error));
            return EXIT_FAILED;
        }
    }
    return EXIT_OK;
}

static bool cpu_ns(const struct meter *m, uint64_t *sum)
{
    *sum = 0;
    for (int i = 0; i < m->count; i++) {
        struct timespec ts;
        if (clock_gettime(m->clocks[i], &ts) != 0) {
            complain("a measured process is gone");
            return false;
        }
        *sum += (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
    }
    return true;
}

static bool meter_start(struct meter *m)
{
    bool ok = cpu_ns(m, &m->start_cpu);
    m->start_ns = now_ns();
    return ok;
}

static bool meter_stop(struct meter *m)
{
    uint64_t cpu;
    uint64_t end = now_ns();
    bool ok = cpu_ns(m, &cpu);
    m->seconds = (double)(end - m->start_ns) / 1e9;
    m->cpu_us = ok ? (double)(cpu - m->start_cpu) / 1e3 : 0;
    return ok;
}

/* ---------------------------------------------------------------- client */

struct client {
    void *ctx;
    void *sock;
    const char *front;
    size_t bytes;
    unsigned char *request; /* what every request looks like before id and time */
    uint64_t sent;
    uint64_t done;
    zmq_msg_t msg; /* the frame received last */
};

static bool client_open(struct client *c, const char *front, size_t bytes)
{
    *c = (struct client){.front = front, .bytes = bytes};
    zmq_msg_init(&c->msg);
    c->request = calloc(1, bytes);
    c->ctx = zmq_ctx_new();
    if (c->request == NULL || c->ctx == NULL)
        return false;
    c->request[AT_TYPE] = TYPE_REQUEST;
    memset(c->request + HEADER_BYTES, 'x', bytes - HEADER_BYTES);
    c->sock = open_dealer(c->ctx, front);
    return c->sock != NULL;
}

static void client_close(struct client *c)
{
    zmq_msg_close(&c->msg);
    if (c->sock != NULL)
        zmq_close(c->sock);
    if (c->ctx != NULL)
        zmq_ctx_term(c->ctx);
    free(c->request);
}

static int transport_len(const char *endpoint)
{
    return (int)strcspn(endpoint, ":");
}

static bool send_request(struct client *c, uint64_t now)
{
    zmq_msg_t msg;
    if (zmq_msg_init_size(&msg, c->bytes) != 0)
        return false;
    unsigned char *frame = zmq_msg_data(&msg);
    memcpy(frame, c->request, c->bytes);
    put_u64(frame + AT_ID, c->sent++);
    put_u64(frame + AT_SENT, now);
    if (zmq_msg_send(&msg, c->sock, 0) >= 0)
        return true;
    complain("client: send: %s", zmq_strerror(errno));
    zmq_msg_close(&msg);
    return false;
}

/* The next frame into c->msg.  Blocks in the poll, but not for ever. */
static const unsigned char *next_frame(struct client *c)
{
    zmq_pollitem_t item = {.socket = c->sock, .events = ZMQ_POLLIN};
    int got;
    while ((got = receive(c->sock, &c->msg)) == 0) {
        int ready = zmq_poll(&item, 1, STALL_MS);
        if (ready == 0) {
            complain("client: nothing received for %d ms", STALL_MS);
            return NULL;
        }
        if (ready < 0 && errno != EINTR)
            break;
    }
    if (got <= 0)
        complain("client: receive: %s", zmq_strerror(errno));
    else if (zmq_msg_size(&c->msg) == c->bytes)
        return zmq_msg_data(&c->msg);
    else
        complain("client: a frame of %zu bytes", zmq_msg_size(&c->msg));
    return NULL;
}

/* There is one path each way, so replies come in the order of the requests. */
static bool next_reply(struct client *c, uint64_t *sent_at)
{
    const unsigned char *frame = next_frame(c);
    if (frame == NULL)
        return false;
    if (frame[AT_TYPE] != TYPE_REPLY || get_u64(frame + AT_ID) != c->done) {
        complain("client: not the reply to request %" PRIu64, c->done);
        return false;
    }
    c->done++;
    *sent_at = get_u64(frame + AT_SENT);
    return true;
}

/* Answers each reply with another request until the time has come. */
static bool keep_calling(struct client *c, uint64_t until, struct histogram *h)
{
    uint64_t sent_at;
    uint64_t now;
    do {
        if (!next_reply(c, &sent_at))
            return false;
        now = now_ns();
        record(h, now - sent_at);
        if (!send_request(c, now))
            return false;
    } while (now < until);
    return true;
}

/* Awaits what is in flight: nothing may be lost, and the broker stays clean for the next. */
static bool settle(struct client *c)
{
    uint64_t sent_at;
    while (c->done < c->sent)
        if (!next_reply(c, &sent_at))
            return false;
    return true;
}

static bool measure_calls(struct client *c, struct meter *m, uint64_t in_flight, double seconds,
                          struct histogram *h)
{
    for (uint64_t i = 0; i < in_flight; i++)
        if (!send_request(c, now_ns()))
            return false;
    if (!keep_calling(c, now_ns() + WARM_UP_MS * NS_PER_MS, h))
        return false;
    memset(h, 0, sizeof *h);
    if (!meter_start(m))
        return false;
    uint64_t until = m->start_ns + (uint64_t)(seconds * 1e9);
    return keep_calling(c, until, h) && meter_stop(m) && settle(c);
}

static int client_main(char **args)
{
    struct client c;
    struct meter m;
    uint64_t in_flight;
    uint64_t bytes;
    double seconds;
    if (!parse_count(args[1], 1, MAX_OUTSTANDING, &in_flight) ||
        !parse_seconds(args[2], &seconds) || !parse_bytes(args[3], &bytes))
        return EXIT_USAGE;
    int status = meter_init(&m, args + 3);
    if (status != EXIT_OK)
        return status;
    struct histogram *h = calloc(1, sizeof *h);
    bool ok = client_open(&c, args[0], bytes) && h != NULL &&
              measure_calls(&c, &m, in_flight, seconds, h);
    if (ok)
        ok = printf("bare transport=%.*s in_flight=%" PRIu64 " calls_per_s=%.0f p50_us=%.2f"
                    " p99_us=%.2f cpu_us_per_call=%.3f\n",
                    transport_len(c.front), c.front, in_flight, (double)h->total / m.seconds,
                    percentile_us(h, 0.5), percentile_us(h, 0.99),
                    m.cpu_us / (double)h->total) > 0 &&
             fflush(stdout) == 0;
    client_close(&c);
    free(h);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static bool send_credit(struct client *c, uint64_t route, uint32_t credit)
{
    unsigned char frame[HEADER_BYTES] = {0};
    frame[AT_TYPE] = TYPE_CREDIT;
    put_u64(frame + AT_ROUTE, route);
    put_u32(frame + AT_CREDIT, credit);
    if (zmq_send(c->sock, frame, sizeof frame, 0) >= 0)
        return true;
    complain("client: send: %s", zmq_strerror(errno));
    return false;
}

static bool consume(struct client *c, uint32_t items, uint32_t window)
{
    uint32_t owed = 0;
    for (uint32_t i = 1; i <= items; i++) {
        const unsigned char *frame = next_frame(c);
        if (frame == NULL)
            return false;
        bool last = frame[AT_FLAGS] & FLAG_LAST;
        if (frame[AT_TYPE] != TYPE_ITEM || get_u32(frame + AT_ITEMS) != i || last != (i == items)) {
            complain("client: not item %" PRIu32, i);
            return false;
        }
        if (++owed < window / 2 || last)
            continue;
        /* The items carry the broker's route; the credit finds its way back by it. */
        if (!send_credit(c, get_u64(frame + AT_ROUTE), owed))
            return false;
        owed = 0;
    }
    return true;
}

/* One plain call comes first: connecting is not part of the stream's time. */
static bool measure_stream(struct client *c, struct meter *m, uint32_t items, uint32_t window)
{
    if (!send_request(c, now_ns()) || !settle(c))
        return false;
    c->request[AT_FLAGS] = FLAG_STREAM;
    put_u32(c->request + AT_ITEMS, items);
    put_u32(c->request + AT_CREDIT, window);
    return meter_start(m) && send_request(c, now_ns()) && consume(c, items, window) &&
           meter_stop(m);
}

static int client_stream_main(char **args)
{
    struct client c;
    struct meter m;
    uint64_t items;
    uint64_t window;
    uint64_t bytes;
    if (!parse_count(args[1], 1, UINT32_MAX - 1, &items) ||
        !parse_count(args[2], 2, MAX_OUTSTANDING, &window) || !parse_bytes(args[3], &bytes))
        return EXIT_USAGE;
    int status = meter_init(&m, args + 3);
    if (status != EXIT_OK)
        return status;
    bool ok = client_open(&c, args[0], bytes) &&
              measure_stream(&c, &m, (uint32_t)items, (uint32_t)window);
    if (ok)
        ok = printf("bare transport=%.*s stream=1 items_per_s=%.0f cpu_us_per_item=%.3f\n",
                    transport_len(c.front), c.front, (double)items / m.seconds,
                    m.cpu_us / (double)items) > 0 &&
             fflush(stdout) == 0;
    client_close(&c);
    return ok ? EXIT_OK : EXIT_FAILED;
}

/* ---------------------------------------------------------------- the whole bench */

/* The processes of one measurement; a pid of 0 is not running. */
struct bench {
    sigset_t waited; /* blocked, and taken with sigtimedwait */
    sigset_t original;
    pid_t broker;
    pid_t worker;
    pid_t client;
    char dir[64]; /* of the ipc sockets, or empty */
    char front[160];
    char back[160];
};

/* Runs this program in another role.  out_fd becomes its stdout unless negative. */
static pid_t spawn(const struct bench *b, char *const *argv, int out_fd)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid < 0)
        complain("fork: %s", strerror(errno));
    if (pid != 0)
        return pid < 0 ? 0 : pid;
    /* Even a killed parent leaves nothing behind that would run on. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || (out_fd >= 0 && dup2(out_fd, STDOUT_FILENO) < 0))
        _exit(EXIT_FAILED);
    sigprocmask(SIG_SETMASK, &b->original, NULL);
    execv("/proc/self/exe", argv);
    _exit(EXIT_FAILED);
}

/* Waits for one of the signals; false when the time is up or the user wants an end. */
static bool await_child(const struct bench *b, uint64_t deadline)
{
    uint64_t now = now_ns();
    if (now >= deadline)
        return false;
    uint64_t left = deadline - now;
    struct timespec ts = {(time_t)(left / NS_PER_S), (long)(left % NS_PER_S)};
    int got = sigtimedwait(&b->waited, NULL, &ts);
    return got == SIGCHLD || (got < 0 && errno == EINTR);
}

/* True when the process has ended; its pid is then forgotten. */
static bool reaped(pid_t *pid, int *status)
{
    if (*pid == 0 || waitpid(*pid, status, WNOHANG) == 0)
        return false;
    *pid = 0;
    return true;
}

static void stop_child(const struct bench *b, pid_t *pid)
{
    int status;
    if (*pid == 0)
        return;
    kill(*pid, SIGTERM);
    for (uint64_t deadline = now_ns() + STOP_MS * NS_PER_MS; !reaped(pid, &status);) {
        if (await_child(b, deadline))
            continue;
        kill(*pid, SIGKILL);
        waitpid(*pid, &status, 0);
        *pid = 0;
        return;
    }
}

/* Reads the broker's announcement; it ends with the line, so no byte too many is taken. */
static bool read_line(int fd, char *line, size_t size)
{
    uint64_t deadline = now_ns() + STALL_MS * NS_PER_MS;
    for (size_t used = 0; used + 1 < size;) {
        struct pollfd item = {.fd = fd, .events = POLLIN};
        uint64_t now = now_ns();
        int ready = now < deadline ? poll(&item, 1, (int)((deadline - now) / NS_PER_MS) + 1) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0 || read(fd, line + used, 1) != 1)
            return false;
        if (line[used] == '\n') {
            line[used] = '\0';
            return true;
        }
        used++;
    }
    return false;
}

static bool start_broker(struct bench *b, char *front, char *back)
{
    char line[400];
    int fds[2];
    char *argv[] = {"bare", "broker", front, back, NULL};
    if (pipe2(fds, O_CLOEXEC) != 0)
        return false;
    b->broker = spawn(b, argv, fds[1]);
    close(fds[1]);
    bool ok = b->broker != 0 && read_line(fds[0], line, sizeof line) &&
              sscanf(line, "front=%159s back=%159s", b->front, b->back) == 2;
    close(fds[0]);
    if (!ok)
        complain("the broker did not start");
    return ok;
}

static bool make_dir(struct bench *b)
{
    const char *base = getenv("TMPDIR");
    if (base == NULL || *base == '\0')
        base = "/tmp";
    int len = snprintf(b->dir, sizeof b->dir, "%s/bare.XXXXXX", base);
    if (len > 0 && (size_t)len < sizeof b->dir && mkdtemp(b->dir) != NULL)
        return true;
    complain("no directory in %s for the sockets", base);
    b->dir[0] = '\0';
    return false;
}

static bool bench_open(struct bench *b, const char *transport)
{
    char front[160] = "tcp://127.0.0.1:0";
    char back[160] = "tcp://127.0.0.1:0";
    *b = (struct bench){0};
    sigemptyset(&b->waited);
    sigaddset(&b->waited, SIGCHLD);
    sigaddset(&b->waited, SIGINT);
    sigaddset(&b->waited, SIGTERM);
    sigprocmask(SIG_BLOCK, &b->waited, &b->original);
    if (strcmp(transport, "ipc") == 0) {
        if (!make_dir(b))
            return false;
        snprintf(front, sizeof front, "ipc://%s/front", b->dir);
        snprintf(back, sizeof back, "ipc://%s/back", b->dir);
    }
    if (!start_broker(b, front, back))
        return false;
    char *argv[] = {"bare", "worker", b->back, NULL};
    b->worker = spawn(b, argv, -1);
    return b->worker != 0;
}

static void bench_close(struct bench *b)
{
    stop_child(b, &b->client);
    stop_child(b, &b->worker);
    stop_child(b, &b->broker);
    if (b->dir[0] != '\0') {
        /* libzmq removes only the socket files whose names it has chosen itself. */
        char path[80];
        snprintf(path, sizeof path, "%s/front", b->dir);
        unlink(path);
        snprintf(path, sizeof path, "%s/back", b->dir);
        unlink(path);
        if (rmdir(b->dir) != 0)
            complain("%s: %s", b->dir, strerror(errno));
    }
    sigprocmask(SIG_SETMASK, &b->original, NULL);
}

/* Runs one client role to its end; it prints the line itself. */
static bool run_client(struct bench *b, char *role, char *count, char *extent, char *bytes,
                       double limit_s)
{
    char broker[16];
    char worker[16];
    char *argv[] = {"bare", role, b->front, count, extent, bytes, broker, worker, NULL};
    int status = 0;
    snprintf(broker, sizeof broker, "%d", (int)b->broker);
    snprintf(worker, sizeof worker, "%d", (int)b->worker);
    uint64_t deadline = now_ns() + (uint64_t)(limit_s * 1e9);
    b->client = spawn(b, argv, -1);
    if (b->client == 0)
        return false;
    while (!reaped(&b->client, &status)) {
        if (reaped(&b->broker, &status) || reaped(&b->worker, &status)) {
            complain("the broker or the worker has died");
            return false;
        }
        if (!await_child(b, deadline)) {
            complain("interrupted, or the client takes too long");
            return false;
        }
    }
    if (WIFSIGNALED(status))
        complain("the client was ended by signal %d", WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_OK;
}

static bool known_transport(const char *name)
{
    return strcmp(name, "ipc") == 0 || strcmp(name, "tcp") == 0;
}

static double calls_limit(double seconds)
{
    return seconds + 30;
}

/* A stream that goes on at all is given ten thousand items a second. */
static double stream_limit(uint64_t items)
{
    return (double)items / 1e4 + 30;
}

static int all_main(char **args)
{
    static const char *const in_flight[] = {"1", "64", "1000"};
    struct bench b;
    double seconds;
    uint64_t bytes;
    char size[24];
    if (!known_transport(args[0]) || !parse_seconds(args[1], &seconds) ||
        !parse_bytes(args[2], &bytes))
        return EXIT_USAGE;
    snprintf(size, sizeof size, "%" PRIu64, bytes);
    bool ok = bench_open(&b, args[0]);
    for (size_t i = 0; ok && i < sizeof in_flight / sizeof *in_flight; i++)
        ok = run_client(&b, "client", (char *)in_flight[i], args[1], size, calls_limit(seconds));
    ok = ok && run_client(&b, "client-stream", "1000000", "1024", size, stream_limit(1000000));
    bench_close(&b);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static int one_main(char **args)
{
    struct bench b;
    uint64_t in_flight;
    uint64_t bytes;
    double seconds;
    char size[24];
    if (!known_transport(args[0]) || !parse_count(args[1], 1, MAX_OUTSTANDING, &in_flight) ||
        !parse_seconds(args[2], &seconds) || !parse_bytes(args[3], &bytes))
        return EXIT_USAGE;
    snprintf(size, sizeof size, "%" PRIu64, bytes);
    bool ok = bench_open(&b, args[0]) &&
              run_client(&b, "client", args[1], args[2], size, calls_limit(seconds));
    bench_close(&b);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static int stream_main(char **args)
{
    struct bench b;
    uint64_t items;
    uint64_t window;
    uint64_t bytes;
    char size[24];
    if (!known_transport(args[0]) || !parse_count(args[1], 1, UINT32_MAX - 1, &items) ||
        !parse_count(args[2], 2, MAX_OUTSTANDING, &window) || !parse_bytes(args[3], &bytes))
        return EXIT_USAGE;
    snprintf(size, sizeof size, "%" PRIu64, bytes);
    bool ok = bench_open(&b, args[0]) &&
              run_client(&b, "client-stream", args[1], args[2], size, stream_limit(items));
    bench_close(&b);
    return ok ? EXIT_OK : EXIT_FAILED;
}

/* ---------------------------------------------------------------- command line */

struct command {
    const char *name;
    int least;
    int most;
    int (*run)(char **args); /* a NULL-terminated list */
    const char *usage;
};

static const struct command commands[] = {
    {"broker", 2, 2, broker_main, "FRONT BACK"},
    {"worker", 1, 1, worker_main, "BACK"},
    {"client", 3, 4 + MAX_PIDS, client_main, "FRONT IN_FLIGHT SECONDS [REQUEST_BYTES [PID...]]"},
    {"client-stream", 3, 4 + MAX_PIDS, client_stream_main,
     "FRONT ITEMS WINDOW [REQUEST_BYTES [PID...]]"},
    {"all", 2, 3, all_main, "ipc|tcp SECONDS [REQUEST_BYTES]"},
    {"one", 3, 4, one_main, "ipc|tcp IN_FLIGHT SECONDS [REQUEST_BYTES]"},
    {"stream", 3, 4, stream_main, "ipc|tcp ITEMS WINDOW [REQUEST_BYTES]"},
};

static int usage(void)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(stderr, "%s bare %s %s\n", i == 0 ? "usage:" : "      ", commands[i].name,
                commands[i].usage);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++) {
        const struct command *command = &commands[i];
        if (strcmp(argv[1], command->name) != 0)
            continue;
        int count = argc - 2;
        if (count < command->least || count > command->most)
            break;
        int status = command->run(argv + 2);
        return status == EXIT_USAGE ? usage() : status;
    }
    return usage();
}
