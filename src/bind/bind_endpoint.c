#include "bind/bind_endpoint.h"

#include <string.h>

#include "base/err.h"
#include "bind/bind.h"
#include "bind/bind_curve.h"
#include "engine/pulse.h"
#include "host/state.h"

static const gr_dialect *check_dialect(lua_State *L)
{
    const char *name = gr_bind_opt_string(L, 1, "dialect", "gh1");
    const gr_dialect *dialect = gr_wire_dialect(name);
    if (dialect == NULL)
        luaL_error(L, "there is no dialect %s", name);
    return dialect;
}

/* Empty when it is not there; the options table keeps the string alive. */
static gr_slice opt_slice(lua_State *L, const char *name)
{
    gr_slice text = {0};
    if (lua_getfield(L, 1, name) != LUA_TNIL)
        text = gr_bind_check_slice(L, -1);
    lua_pop(L, 1);
    return text;
}

void gr_bind_endpoint_options(lua_State *L, gr_bind_options *out)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    *out = (gr_bind_options){
        .address = gr_bind_opt_string(L, 1, "address", NULL),
        .heartbeat_ms = (uint32_t)gr_bind_opt_integer(L, 1, "heartbeat_ms", 0),
        .liveness = (uint32_t)gr_bind_opt_integer(L, 1, "liveness", GR_PULSE_LIVENESS),
        .sock.reconnect_ms = (int)gr_bind_opt_integer(L, 1, "reconnect_ms", 0),
        .sock.reconnect_max_ms = (int)gr_bind_opt_integer(L, 1, "reconnect_max_ms", 0),
        .sock.hwm = (int)gr_bind_opt_integer(L, 1, "hwm", 0),
        .sock.ipv6 = gr_bind_opt_integer(L, 1, "ipv6", 0) != 0,
    };
    if (out->address == NULL)
        luaL_error(L, "option address is missing");
    out->foreign = (gr_foreign_options){
        .dialect = check_dialect(L),
        .seed = gr_bind_random(),
        .credentials = {.mechanism = opt_slice(L, "mechanism"),
                        .user = opt_slice(L, "user"),
                        .password = opt_slice(L, "password")},
    };
    out->local = out->foreign.dialect->is_ours && gr_endpoint_is_local(out->address);
    if (out->heartbeat_ms == 0) /* each dialect's programs beat in their own time */
        out->heartbeat_ms = out->foreign.dialect->beat_ms;
}

/* [-0, +0] */
static bool read_key(lua_State *L, const char *name, uint8_t key[GR_CURVE_KEY_LEN])
{
    return gr_bind_read_key(gr_slice_str(gr_bind_opt_string(L, 1, name, "")), key);
}

/* Returns 0 or GR_EINVAL. What is written to out is to be wiped in any case. */
static int read_security(lua_State *L, gr_sock_security *out)
{
    const char *mechanism = gr_bind_opt_string(L, 1, "secure", "NULL");
    if (strcmp(mechanism, "PLAIN") == 0) {
        out->mechanism = GR_MECHANISM_PLAIN;
        out->user = gr_bind_opt_string(L, 1, "secure_user", NULL);
        out->password = gr_bind_opt_string(L, 1, "secure_password", NULL);
    } else if (strcmp(mechanism, "CURVE") == 0) {
        out->mechanism = GR_MECHANISM_CURVE;
        bool is_whole = read_key(L, "public_key", out->public_key);
        is_whole = read_key(L, "secret_key", out->secret_key) && is_whole;
        return read_key(L, "server_key", out->server_key) && is_whole ? 0 : GR_EINVAL;
    }
    return 0;
}

int gr_bind_endpoint_open(lua_State *L, gr_endpoint **out, const gr_bind_options *options,
                          const gr_engine_ops *ops, void *engine, void *box)
{
    gr_state *state = gr_state_of(L);
    gr_sock_security security = {.mechanism = GR_MECHANISM_NULL};
    gr_endpoint_options endpoint = {
        .ctx = state->ctx,
        .address = options->address,
        .sock = options->sock,
        .security = &security,
        .by_socket = !options->foreign.dialect->is_ours,
        .heartbeat_ms = options->heartbeat_ms,
        .ops = ops,
        .engine = engine,
        .owner = box,
    };
    int rc = read_security(L, &security);
    if (rc == 0)
        rc = gr_endpoint_new(out, state->loop, &endpoint);
    explicit_bzero(&security, sizeof(security));
    return rc;
}
