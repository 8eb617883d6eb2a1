/* bind_majordomo.c - the broker for Lua: core.majordomo{...} -> majordomo. */
#include <stdlib.h>

#include "base/err.h"
#include "bind/bind.h"
#include "host/state.h"
#include "net/majordomo.h"

#define MAJORDOMO "gaterpc.core.majordomo"

/* The thread's end reaches the loop through an async handle of its own; the handle outlives the
 * box until libuv has closed it. */
struct ended {
    uv_async_t async;
    gr_state *state;
    void *box;
};

struct box {
    gr_majordomo *majordomo;
    struct ended *ended;
    bool running;
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, MAJORDOMO);
}

static struct box *check_open(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->majordomo == NULL)
        luaL_error(L, "the broker is closed");
    return box;
}

static void on_ended(uv_async_t *async)
{
    struct ended *ended = async->data;
    gr_state *state = ended->state;
    gr_loop_enter(state->loop);
    if (!gr_state_push_dispatcher(state))
        return;
    lua_pushliteral(state->L, "ended");
    if (gr_bind_push_owner(state->L, ended->box))
        gr_state_call(state->L, 2, 0);
    else
        lua_pop(state->L, 2);
}

/* From the broker's thread. */
static void wake_loop(void *arg)
{
    uv_async_send(arg);
}

static void free_ended(uv_handle_t *handle)
{
    free(handle->data);
}

static int open_ended(lua_State *L, struct box *box)
{
    struct ended *ended = calloc(1, sizeof(*ended));
    if (ended == NULL)
        return GR_ENOMEM;
    ended->state = gr_state_of(L);
    ended->box = box;
    if (uv_async_init(gr_loop_uv(ended->state->loop), &ended->async, on_ended) != 0) {
        free(ended);
        return GR_EEXHAUSTED;
    }
    ended->async.data = ended;
    uv_unref((uv_handle_t *)&ended->async);
    box->ended = ended;
    return 0;
}

static int
f_majordomo(lua_State *L) /* core.majordomo(options, owner) -> majordomo | nil, code, text */
{
    luaL_checktype(L, 1, LUA_TTABLE);
    gr_majordomo_options options = {
        .ctx = gr_state_of(L)->ctx,
        .sock.hwm = (int)gr_bind_opt_integer(L, 1, "hwm", 0),
        .sock.ipv6 = gr_bind_opt_integer(L, 1, "ipv6", 0) != 0,
        .broker =
            {
                .instance = gr_bind_random(),
                .heartbeat_ms = (uint32_t)gr_bind_opt_integer(L, 1, "heartbeat_ms", 0),
                .liveness = (uint32_t)gr_bind_opt_integer(L, 1, "liveness", 0),
                .queue_len = (uint32_t)gr_bind_opt_integer(L, 1, "queue_len", 0),
                .queue_bytes = (size_t)gr_bind_opt_integer(L, 1, "queue_bytes", 0),
                .max_services = (uint32_t)gr_bind_opt_integer(L, 1, "max_services", 0),
                .max_peers = (uint32_t)gr_bind_opt_integer(L, 1, "max_peers", 0),
                .max_calls = (uint32_t)gr_bind_opt_integer(L, 1, "max_calls", 0),
                .idle_ms = (uint32_t)gr_bind_opt_integer(L, 1, "idle_ms", 0),
                .call_ms = (uint32_t)gr_bind_opt_integer(L, 1, "call_ms", 0),
                .gate01_ms = (uint32_t)gr_bind_opt_integer(L, 1, "gate01_ms", 0),
                .gate02_ms = (uint32_t)gr_bind_opt_integer(L, 1, "gate02_ms", 0),
                .mdp_ms = (uint32_t)gr_bind_opt_integer(L, 1, "mdp_ms", 0),
            },
    };
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = (struct box){0};
    luaL_setmetatable(L, MAJORDOMO);
    gr_bind_remember(L, box, 2);
    int rc = open_ended(L, box);
    if (rc == 0)
        rc = gr_majordomo_new(&box->majordomo, &options);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int
m_bind(lua_State *L) /* majordomo:bind("front" | "back", address) -> address | nil, code, text */
{
    static const char *const sides[] = {"front", "back", NULL};
    struct box *box = check_open(L);
    enum gr_via side = luaL_checkoption(L, 2, NULL, sides) == 0 ? GR_VIA_FRONT : GR_VIA_BACK;
    const char *address = luaL_checkstring(L, 3);
    char bound[512];
    int rc = gr_majordomo_bind(box->majordomo, side, address, bound, sizeof(bound));
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushstring(L, bound);
    return 1;
}

static int m_add_user(lua_State *L)
/* majordomo:add_user(name, password) -> true | nil, code, text; before the start */
{
    struct box *box = check_open(L);
    gr_slice name = gr_bind_check_slice(L, 2), password = gr_bind_check_slice(L, 3);
    luaL_argcheck(L, !box->running, 1, "the broker runs already");
    int rc = gr_majordomo_add_user(box->majordomo, name, password);
    if (rc < 0)
        return gr_bind_fail(L, rc, "names and passwords have 1 to 255 bytes");
    lua_pushboolean(L, 1);
    return 1;
}

static int m_start(lua_State *L) /* majordomo:start() -> true | nil, code, text */
{
    struct box *box = check_open(L);
    luaL_argcheck(L, !box->running, 1, "the broker runs already");
    int rc = gr_majordomo_start(box->majordomo, wake_loop, &box->ended->async);
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    box->running = true;
    gr_loop_hold(gr_state_of(L)->loop);
    lua_pushboolean(L, 1);
    return 1;
}

static int m_drain(lua_State *L) /* majordomo:drain(): "ended" follows */
{
    struct box *box = check_open(L);
    gr_majordomo_drain(box->majordomo);
    return 0;
}

static int m_close(lua_State *L) /* closing twice is fine: also __gc and __close */
{
    struct box *box = check_box(L);
    gr_majordomo_destroy(&box->majordomo);
    if (box->running)
        gr_loop_release(gr_state_of(L)->loop);
    box->running = false;
    if (box->ended != NULL)
        uv_close((uv_handle_t *)&box->ended->async, free_ended);
    box->ended = NULL;
    return 0;
}

static int m_stats(lua_State *L) /* majordomo:stats() -> table of counters */
{
    struct box *box = check_open(L);
    gr_broker_stats stats;
    gr_majordomo_get_stats(box->majordomo, &stats);
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {
        {"requests", stats.requests},
        {"answers", stats.answers},
        {"items", stats.items},
        {"late", stats.late},
        {"malformed", stats.malformed},
        {"redispatch", stats.redispatch},
        {"lost", stats.lost},
        {"slow", stats.slow},
        {"peers", stats.peers},
        {"workers", stats.workers},
        {"services", stats.services},
        {"calls", stats.calls},
        {"waiting", stats.waiting},
        {"refused", stats.refused},
        {"cut", stats.cut},
    };
    lua_createtable(L, 0, 15);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        lua_pushinteger(L, (lua_Integer)fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    return 1;
}

void gr_bind_majordomo(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"bind", m_bind},   {"add_user", m_add_user}, {"start", m_start}, {"drain", m_drain},
        {"stats", m_stats}, {"close", m_close},       {NULL, NULL},
    };
    gr_bind_class(L, MAJORDOMO, methods, m_close);
    lua_pushcfunction(L, f_majordomo);
    lua_setfield(L, -2, "majordomo");
}
