/* bind_majordomo.c - the broker for Lua: core.majordomo{...} -> majordomo. */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "bind/bind_curve.h"
#include "bind/bind_zap.h"
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

/* Its sockets are its thread's, once there is one. */
static struct box *check_idle(lua_State *L)
{
    struct box *box = check_open(L);
    luaL_argcheck(L, !box->running, 1, "the broker runs already");
    return box;
}

static void on_ended(uv_async_t *async)
{
    struct ended *ended = async->data;
    gr_loop_enter(ended->state->loop);
    gr_state_tell_owner(ended->state, "ended", ended->box);
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
                .ask_ms = (uint32_t)gr_bind_opt_integer(L, 1, "ask_ms", 0),
                .remember_ms = (uint32_t)gr_bind_opt_integer(L, 1, "remember_ms", 0),
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

/* Field `name` of the table at index as bytes of a key in Z85; it must be one. */
static void get_key(lua_State *L, int index, const char *name, uint8_t out[GR_CURVE_KEY_LEN])
{
    gr_slice text = gr_slice_str(gr_bind_opt_string(L, index, name, ""));
    luaL_argcheck(L, gr_bind_read_key(text, out), index, "a key has 40 characters of Z85");
}

/* { mechanism =, domain =, public =, secret = } */
static void get_security(lua_State *L, int index, gr_sock_security *out)
{
    const char *mechanism = gr_bind_opt_string(L, index, "mechanism", "NULL");
    *out =
        (gr_sock_security){.server = true, .domain = gr_bind_opt_string(L, index, "domain", NULL)};
    if (strcmp(mechanism, "PLAIN") == 0)
        out->mechanism = GR_MECHANISM_PLAIN;
    if (strcmp(mechanism, "CURVE") != 0)
        return;
    out->mechanism = GR_MECHANISM_CURVE;
    get_key(L, index, "public", out->public_key);
    get_key(L, index, "secret", out->secret_key);
}

static int m_bind(lua_State *L)
/* majordomo:bind("front" | "back", address, security) -> address | nil, code, text; before start()
 */
{
    static const char *const sides[] = {"front", "back", NULL};
    struct box *box = check_idle(L);
    enum gr_via side = luaL_checkoption(L, 2, NULL, sides) == 0 ? GR_VIA_FRONT : GR_VIA_BACK;
    const char *address = luaL_checkstring(L, 3);
    gr_sock_security security;
    char bound[512];
    luaL_checktype(L, 4, LUA_TTABLE);
    get_security(L, 4, &security);
    int rc = gr_majordomo_bind(box->majordomo, side, address, &security, bound, sizeof(bound));
    explicit_bzero(&security, sizeof(security));
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushstring(L, bound);
    return 1;
}

static int m_secure(lua_State *L)
/* majordomo:secure(domain, handover) -> true | nil, code, text; before binding */
{
    struct box *box = check_idle(L);
    int rc = gr_majordomo_secure(box->majordomo, luaL_checkstring(L, 2), lua_toboolean(L, 3));
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushboolean(L, 1);
    return 1;
}

static int m_set_policy(lua_State *L) /* majordomo:set_policy(policy or nil) */
{
    struct box *box = check_open(L);
    gr_policy *policy = gr_bind_hold_policy(L, 2);
    gr_majordomo_set_policy(box->majordomo, &policy);
    return 0;
}

static int add_permissions(lua_State *L, gr_access *access)
{
    static const char *const actions[] = {"register", "call", NULL};
    int rc = 0;
    for (lua_Integer i = 1; rc == 0 && lua_rawgeti(L, 2, i) == LUA_TTABLE; i++) {
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        lua_rawgeti(L, -3, 3);
        const char *action = lua_tostring(L, -2);
        rc = action == NULL || lua_type(L, -3) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING
                 ? GR_EINVAL
                 : gr_access_allow(access, gr_bind_check_slice(L, -3),
                                   strcmp(action, actions[0]) == 0 ? GR_MAY_REGISTER : GR_MAY_CALL,
                                   gr_bind_check_slice(L, -1));
        lua_settop(L, 2);
    }
    return rc;
}

static int m_set_access(lua_State *L)
/* majordomo:set_access({ { user, "register" | "call", what }, ... } or nil) -> true | nil, code,
 * text
 */
{
    struct box *box = check_open(L);
    gr_access *access = NULL;
    int rc = 0;
    lua_settop(L, 2);
    if (!lua_isnil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
        rc = gr_access_new(&access);
        if (rc == 0)
            rc = add_permissions(L, access);
    }
    if (rc < 0) {
        gr_access_destroy(&access);
        return gr_bind_fail(L, rc, NULL);
    }
    gr_majordomo_set_access(box->majordomo, &access);
    lua_pushboolean(L, 1);
    return 1;
}

static int m_start(lua_State *L) /* majordomo:start() -> true | nil, code, text */
{
    struct box *box = check_idle(L);
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
        {"denied", stats.denied},
        {"forged", stats.forged},
        {"cut", stats.cut},
    };
    lua_createtable(L, 0, 17);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        lua_pushinteger(L, (lua_Integer)fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    return 1;
}

void gr_bind_majordomo(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"bind", m_bind},
        {"secure", m_secure},
        {"set_policy", m_set_policy},
        {"set_access", m_set_access},
        {"start", m_start},
        {"drain", m_drain},
        {"stats", m_stats},
        {"close", m_close},
        {NULL, NULL},
    };
    gr_bind_class(L, MAJORDOMO, methods, m_close);
    lua_pushcfunction(L, f_majordomo);
    lua_setfield(L, -2, "majordomo");
}
