#include "bind/bind_endpoint.h"

#include "bind/bind.h"
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

int gr_bind_endpoint_open(lua_State *L, gr_endpoint **out, const gr_bind_options *options,
                          const gr_engine_ops *ops, void *engine, void *box)
{
    gr_state *state = gr_state_of(L);
    gr_endpoint_options endpoint = {
        .ctx = state->ctx,
        .address = options->address,
        .sock = options->sock,
        .by_socket = !options->foreign.dialect->is_ours,
        .heartbeat_ms = options->heartbeat_ms,
        .ops = ops,
        .engine = engine,
        .owner = box,
    };
    return gr_endpoint_new(out, state->loop, &endpoint);
}
