/* engine.h - what an endpoint must know of an engine to join it to a socket.
 *
 * An engine is a state machine without I/O: messages and the time go in, messages are pulled
 * out. The client's and the worker's engine have this face; the broker's has two sockets and a
 * face of its own (broker.h). */
#ifndef GR_ENGINE_H
#define GR_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/msg.h"

typedef struct gr_engine_ops {
    /* The routing id for the connection that is made next; empty: any. Valid until the next call.
     */
    gr_slice (*routing_id)(void *engine);

    /* The connection to the broker is there, or gone. */
    void (*connected)(void *engine, int64_t now_ms);
    void (*disconnected)(void *engine, int64_t now_ms);

    /* The broker does not let us in: error and text are those of a GR_SOCK_REFUSED. There is no
     * connection; it is tried again after a while. */
    void (*refused)(void *engine, int error, const char *text, int64_t now_ms);

    /* A message came; it is taken. */
    void (*receive)(void *engine, gr_msg **msg, int64_t now_ms);

    /* Time has passed: heartbeats, deadlines. */
    void (*tick)(void *engine, int64_t now_ms);

    /* When to call tick next, or GR_NEVER. */
    int64_t (*next_due)(const void *engine);

    /* Gives the next message to send; false when there is none. */
    bool (*next_out)(void *engine, gr_msg **msg);

    /* How many events wait for their owner. */
    size_t (*events)(const void *engine);

    /* True once when the connection must be made anew, because the broker fell silent for instance.
     */
    bool (*take_reconnect)(void *engine);

    /* True while somebody waits for it: the process must go on. */
    bool (*is_busy)(const void *engine);
} gr_engine_ops;

#endif
