/* spam.c - a peer that sends nonsense: spam ADDRESS COUNT SEED SERVICE.
 *
 * Sends COUNT messages of 1 to 64 frames: random bytes, real messages of the dialect gh1, real ones
 * cut short or with bytes changed, frames too many, frames of up to 1 MiB. Takes a new connection
 * every 500 messages. Prints "sent COUNT". */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { HEADER = 48, PER_CONNECTION = 500, BIG = 1 << 20 };

static uint64_t state;
static const char *own_service;

static uint32_t next_random(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static uint32_t below(uint32_t limit)
{
    return next_random() % limit;
}

/* A message as a peer would send it: header, names, payload. Types 1 to 12, some ids twice. */
static size_t put_real(uint8_t *at)
{
    const char *const names[] = {own_service, "echo", "Gate", "get_services", "count", "Nobody"};
    static const uint8_t payloads[][8] = {{0x90},
                                          {0x91, 0xa1, 'x'},
                                          {0x80},
                                          {0xdd, 0xff, 0xff, 0xff, 0xff},
                                          {0x93, 0x01, 0x02, 0xc3}};
    static const size_t payload_lens[] = {1, 3, 1, 5, 4};
    const char *service = names[below(6)], *method = names[below(6)];
    uint32_t payload = below(5);
    memset(at, 0, HEADER);
    at[0] = 'G';
    at[1] = 1;
    at[2] = (uint8_t)(1 + below(12));
    at[3] = below(10) == 0 ? (uint8_t)next_random() & 0xfe : 0;
    at[4] = (uint8_t)strlen(service);
    at[5] = (uint8_t)strlen(method);
    at[15] = (uint8_t)below(32);
    at[19] = (uint8_t)below(2);
    at[23] = (uint8_t)below(64);
    at[26] = (uint8_t)below(256); /* deadline */
    at[30] = (uint8_t)below(256); /* credit */
    at[33] = (uint8_t)below(256); /* window */
    at[39] = (uint8_t)(below(2) ? payload_lens[payload] : below(8));
    at[43] = (uint8_t)below(4);
    at[47] = (uint8_t)payload_lens[payload];
    size_t len = HEADER;
    memcpy(at + len, service, at[4]);
    len += at[4];
    memcpy(at + len, method, at[5]);
    len += at[5];
    memcpy(at + len, payloads[payload], payload_lens[payload]);
    return len + payload_lens[payload];
}

static size_t put_frame(uint8_t *at)
{
    uint32_t kind = below(10);
    size_t len = put_real(at);
    if (kind < 4)
        return len;
    if (kind < 6) /* cut short */
        return below((uint32_t)len);
    if (kind < 8) { /* some bytes changed */
        for (uint32_t i = 1 + below(4); i > 0; i--)
            at[below((uint32_t)len)] = (uint8_t)next_random();
        return len;
    }
    len = below(200) == 0 ? below(BIG) : below(300);
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)next_random();
    return len;
}

static int send_one(void *sock, uint8_t *buffer)
{
    uint32_t frames = below(4) > 0 ? 1 : 1 + below(64);
    for (uint32_t i = 1; i <= frames; i++) {
        size_t len = put_frame(buffer);
        if (zmq_send(sock, buffer, len, i < frames ? ZMQ_SNDMORE : 0) < 0)
            return -1;
    }
    return 0;
}

static void *connect_to(void *ctx, const char *address)
{
    int linger = 2000, timeout = 20000;
    void *sock = zmq_socket(ctx, ZMQ_DEALER);
    zmq_setsockopt(sock, ZMQ_LINGER, &linger, sizeof(linger));
    zmq_setsockopt(sock, ZMQ_SNDTIMEO, &timeout, sizeof(timeout));
    zmq_connect(sock, address);
    return sock;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    own_service = argv[4];
    long count = atol(argv[2]);
    state = (uint64_t)atol(argv[3]);
    uint8_t *buffer = malloc(BIG + HEADER + 600);
    void *ctx = zmq_ctx_new();
    void *sock = connect_to(ctx, argv[1]);
    for (long i = 1; i <= count; i++) {
        if (send_one(sock, buffer) != 0) {
            fprintf(stderr, "message %ld could not be sent: %s\n", i, zmq_strerror(zmq_errno()));
            return 1;
        }
        if (i % PER_CONNECTION == 0) {
            zmq_close(sock);
            sock = connect_to(ctx, argv[1]);
        }
    }
    zmq_close(sock);
    zmq_ctx_term(ctx);
    free(buffer);
    printf("sent %ld\n", count);
    return 0;
}
