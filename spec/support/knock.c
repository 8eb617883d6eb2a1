/* knock.c - knocks at a door with wrong credentials, many times, and says how often it was let in.
 *
 *   knock ADDRESS COUNT plain USER            passwords that are all different
 *   knock ADDRESS COUNT curve SERVER_KEY      keys that are all different
 *
 * Prints "refused N admitted M silent K": by ERROR, by a handshake that succeeded, by nothing
 * within a handshake's time. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <zmq.h>

enum { AT_ONCE = 32, PATIENCE_MS = 15000 };

struct knock {
    void *sock, *events;
};

static unsigned long refused, admitted, silent, serial;

static void *ctx;

static void set_credentials(void *sock, char **argv)
{
    if (strcmp(argv[3], "plain") == 0) {
        char password[32];
        snprintf(password, sizeof(password), "wrong-%lu", serial);
        zmq_setsockopt(sock, ZMQ_PLAIN_USERNAME, argv[4], strlen(argv[4]));
        zmq_setsockopt(sock, ZMQ_PLAIN_PASSWORD, password, strlen(password));
        return;
    }
    char public_key[41], secret_key[41];
    zmq_curve_keypair(public_key, secret_key);
    zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, public_key, 41);
    zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, secret_key, 41);
    zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, argv[4], 41);
}

static void begin(struct knock *self, char **argv)
{
    char address[64];
    int none = 0, never = -1;
    snprintf(address, sizeof(address), "inproc://knock.%lu", ++serial);
    self->sock = zmq_socket(ctx, ZMQ_DEALER);
    zmq_setsockopt(self->sock, ZMQ_LINGER, &none, sizeof(none));
    zmq_setsockopt(self->sock, ZMQ_RECONNECT_IVL, &never, sizeof(never));
    set_credentials(self->sock, argv);
    zmq_socket_monitor(self->sock, address, ZMQ_EVENT_ALL);
    self->events = zmq_socket(ctx, ZMQ_PAIR);
    zmq_connect(self->events, address);
    zmq_connect(self->sock, argv[1]);
}

static void end(struct knock *self)
{
    zmq_socket_monitor(self->sock, NULL, 0);
    zmq_close(self->sock);
    zmq_close(self->events);
    self->sock = NULL;
}

/* True when the knock is over. */
static bool hear(struct knock *self)
{
    uint8_t frame[256];
    uint16_t event = 0;
    if (zmq_recv(self->events, frame, sizeof(frame), ZMQ_DONTWAIT) < 6)
        return false;
    memcpy(&event, frame, sizeof(event));
    zmq_recv(self->events, frame, sizeof(frame), ZMQ_DONTWAIT);
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        refused++;
    else if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
        admitted++;
    else if (event == ZMQ_EVENT_DISCONNECTED || event == ZMQ_EVENT_CLOSED)
        silent++;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    unsigned long count = strtoul(argv[2], NULL, 10), begun = 0, over = 0;
    struct knock knocks[AT_ONCE] = {0};
    int quiet = eventfd(0, 0); /* stands in for places that are free */
    ctx = zmq_ctx_new();
    while (over < count) {
        zmq_pollitem_t polls[AT_ONCE];
        for (int i = 0; i < AT_ONCE; i++) {
            if (knocks[i].sock == NULL && begun < count) {
                begin(&knocks[i], argv);
                begun++;
            }
            bool is_open = knocks[i].sock != NULL;
            polls[i] = (zmq_pollitem_t){.socket = is_open ? knocks[i].events : NULL,
                                        .fd = quiet,
                                        .events = is_open ? ZMQ_POLLIN : 0};
        }
        if (zmq_poll(polls, AT_ONCE, PATIENCE_MS) <= 0)
            break;
        for (int i = 0; i < AT_ONCE; i++) {
            if (knocks[i].sock != NULL && polls[i].revents && hear(&knocks[i])) {
                end(&knocks[i]);
                over++;
            }
        }
    }
    printf("refused %lu admitted %lu silent %lu\n", refused, admitted, silent);
    fflush(stdout);
    return over == count ? 0 : 1;
}
