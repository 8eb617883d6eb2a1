#include "bind/bind_endpoint.h"

#include "bind/bind.h"
#include "engine/pulse.h"
#include "host/state.h"

void gr_bind_endpoint_options(lua_State *L, gr_bind_options *out)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    *out = (gr_bind_options){
        .address = gr_bind_opt_string(L, 1, "address", NULL),
        .heartbeat_ms = (uint32_t)gr_bind_opt_integer(L, 1, "heartbeat_ms", GR_PULSE_MS),
        .liveness = (uint32_t)gr_bind_opt_integer(L, 1, "liveness", GR_PULSE_LIVENESS),
        .sock.reconnect_ms = (int)gr_bind_opt_integer(L, 1, "reconnect_ms", 0),
        .sock.reconnect_max_ms = (int)gr_bind_opt_integer(L, 1, "reconnect_max_ms", 0),
        .sock.hwm = (int)gr_bind_opt_integer(L, 1, "hwm", 0),
        .sock.ipv6 = gr_bind_opt_integer(L, 1, "ipv6", 0) != 0,
    };
    if (out->address == NULL)
        luaL_error(L, "option address is missing");
    out->local = gr_endpoint_is_local(out->address);
}

int gr_bind_endpoint_open(lua_State *L, gr_endpoint **out, const gr_bind_options *options,
                          const gr_engine_ops *ops, void *engine, void *box)
{
    gr_state *state = gr_state_of(L);
    gr_endpoint_options endpoint = {
        .ctx = state->ctx,
        .address = options->address,
        .sock = options->sock,
        .heartbeat_ms = options->heartbeat_ms,
        .ops = ops,
        .engine = engine,
        .owner = box,
    };
    return gr_endpoint_new(out, state->loop, &endpoint);
}
