/* bind_endpoint.h - what the bindings of client and worker share: a box around an engine and its
 * endpoint. */
#ifndef GR_BIND_ENDPOINT_H
#define GR_BIND_ENDPOINT_H

#include <lua.h>

#include "engine/foreign.h"
#include "net/endpoint.h"

/* A packed argument list, result or item is no larger than this, and no frame that is received is
 * much larger. */
enum { GR_BIND_MAX_PAYLOAD = 64 << 20 };

typedef struct gr_bind_options {
    const char *address;
    uint32_t heartbeat_ms;
    uint32_t liveness;
    bool local;
    gr_sock_options sock;
    gr_foreign_options foreign;
} gr_bind_options;

/* Reads address, heartbeat_ms, liveness, reconnect_ms, reconnect_max_ms, hwm, ipv6, dialect,
 * mechanism, user and password from the table at index 1, which must live as long as the options.
 * Raises when one is of the wrong type. */
void gr_bind_endpoint_options(lua_State *L, gr_bind_options *out);

/* Joins an engine to its endpoint. Reads also how the connection is secured from the table at index
 * 1: secure ("PLAIN", "CURVE" or nothing), secure_user and secure_password, or public_key,
 * secret_key and server_key in Z85. Returns as gr_endpoint_new(). */
int gr_bind_endpoint_open(lua_State *L, gr_endpoint **out, const gr_bind_options *options,
                          const gr_engine_ops *ops, void *engine, void *box);

#endif
