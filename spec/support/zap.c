/* zap.c - the module `zapspec`: policies, penalties, access lists and the answers to ZAP requests,
 * driven by hand: no socket, no clock.
 *
 * zapspec.at(ms) says what time it is. A message is its frames, one string each. What fails gives
 * nil and the code for users. */
#include <lauxlib.h>
#include <lua.h>
#include <sodium.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/err.h"
#include "engine/access.h"
#include "engine/engine.h"
#include "engine/penalty.h"
#include "engine/zap.h"
#include "spec.h"

#define POLICY  "zapspec.policy"
#define ZAP     "zapspec.zap"
#define PENALTY "zapspec.penalty"
#define ACCESS  "zapspec.access"

int luaopen_zapspec(lua_State *L);

static int64_t now_ms;

static const char *const doors[] = {"inner", "service", "remote", NULL};
static const char *const verdicts[] = {"refused", "admitted", "undecided"};
static const char *const actions[] = {"register", "call", NULL};

/* [-0, +1] A closed box of this class. */
static void *push_box(lua_State *L, size_t size, const char *class)
{
    void *box = lua_newuserdatauv(L, size, 0);
    memset(box, 0, size);
    luaL_setmetatable(L, class);
    return box;
}

/* --- policies ---------------------------------------------------------------------------- */

static gr_policy *check_policy(lua_State *L, int index)
{
    gr_policy **box = luaL_checkudata(L, index, POLICY);
    luaL_argcheck(L, *box != NULL, index, "it is closed");
    return *box;
}

static int f_policy(lua_State *L)
{
    gr_policy **box = push_box(L, sizeof(*box), POLICY);
    int rc = gr_policy_new(box);
    return rc < 0 ? done(L, rc) : 1;
}

static int policy_user(lua_State *L)
{
    return done(L, gr_policy_add_user(check_policy(L, 1), check_slice(L, 2), check_slice(L, 3)));
}

static int policy_key(lua_State *L)
{
    gr_slice key = check_slice(L, 3);
    luaL_argcheck(L, key.len == GR_POLICY_KEY_LEN, 3, "a key has 32 bytes");
    return done(L, gr_policy_add_key(check_policy(L, 1), check_slice(L, 2), key.data));
}

static int policy_address(lua_State *L) /* policy:address(text, allow) */
{
    return done(L,
                gr_policy_add_address(check_policy(L, 1), check_slice(L, 2), lua_toboolean(L, 3)));
}

static int policy_any_key(lua_State *L)
{
    gr_policy_allow_any_key(check_policy(L, 1));
    return 0;
}

static int policy_null(lua_State *L)
{
    gr_policy_allow_null(check_policy(L, 1));
    return 0;
}

static int policy_plain(lua_State *L) /* policy:plain(user, password) -> verdict */
{
    gr_policy *policy = check_policy(L, 1);
    lua_pushstring(L,
                   verdicts[gr_policy_check_plain(policy, check_slice(L, 2), check_slice(L, 3))]);
    return 1;
}

static int policy_slowly(lua_State *L)
{
    gr_policy *policy = check_policy(L, 1);
    lua_pushboolean(L, gr_policy_check_slowly(policy, check_slice(L, 2), check_slice(L, 3)));
    return 1;
}

static int policy_admits(lua_State *L) /* policy:admits(address) */
{
    lua_pushboolean(L, gr_policy_admits_address(check_policy(L, 1), check_slice(L, 2)));
    return 1;
}

static int policy_key_of(lua_State *L) /* policy:key_of(key) -> user or nil */
{
    char z85[41];
    gr_slice user;
    if (!gr_policy_admits_key(check_policy(L, 1), check_slice(L, 2), z85, &user))
        return 0;
    push_slice(L, user);
    return 1;
}

static int policy_knows(lua_State *L)
{
    lua_pushboolean(L, gr_policy_knows(check_policy(L, 1), check_slice(L, 2)));
    return 1;
}

static int policy_close(lua_State *L)
{
    gr_policy **box = luaL_checkudata(L, 1, POLICY);
    gr_policy_release(box);
    return 0;
}

static int f_hash(lua_State *L) /* zapspec.hash(password) -> an Argon2 hash that costs little */
{
    char hash[crypto_pwhash_STRBYTES];
    gr_slice text = check_slice(L, 1);
    if (sodium_init() < 0 ||
        crypto_pwhash_str(hash, (const char *)text.data, text.len, crypto_pwhash_OPSLIMIT_MIN,
                          crypto_pwhash_MEMLIMIT_MIN) != 0)
        return luaL_error(L, "no hash");
    lua_pushstring(L, hash);
    return 1;
}

/* --- answers ----------------------------------------------------------------------------- */

static gr_zap *check_zap(lua_State *L)
{
    gr_zap **box = luaL_checkudata(L, 1, ZAP);
    luaL_argcheck(L, *box != NULL, 1, "it is closed");
    return *box;
}

static int f_zap(lua_State *L) /* zapspec.zap([penalty_ms], [timeout_ms]) */
{
    gr_zap_options options = {.penalty_ms = (uint32_t)luaL_optinteger(L, 1, 0),
                              .timeout_ms = (uint32_t)luaL_optinteger(L, 2, 0)};
    gr_zap **box = push_box(L, sizeof(*box), ZAP);
    int rc = gr_zap_new(box, &options);
    return rc < 0 ? done(L, rc) : 1;
}

static int zap_set_policy(lua_State *L) /* zap:set_policy(domain, policy) */
{
    gr_policy *policy = gr_policy_hold(check_policy(L, 3));
    int rc = gr_zap_set_policy(check_zap(L), check_slice(L, 2), &policy);
    gr_policy_release(&policy);
    return done(L, rc);
}

static int zap_set_remote(lua_State *L) /* zap:set_remote(domain, number) */
{
    return done(
        L, gr_zap_set_remote(check_zap(L), check_slice(L, 2), (uint32_t)luaL_checkinteger(L, 3)));
}

static int zap_remove(lua_State *L)
{
    gr_zap_remove(check_zap(L), check_slice(L, 2));
    return 0;
}

static int zap_asks(lua_State *L)
{
    lua_pushboolean(L, gr_zap_asks(check_zap(L), (uint32_t)luaL_checkinteger(L, 2)));
    return 1;
}

static int zap_receive(lua_State *L) /* zap:receive(door, number, frames...) */
{
    gr_zap *zap = check_zap(L);
    gr_zap_via via = {.door = (enum gr_zap_door)luaL_checkoption(L, 2, NULL, doors),
                      .number = (uint32_t)luaL_checkinteger(L, 3)};
    int last = lua_gettop(L);
    for (int i = 4; i <= last; i++)
        luaL_checkstring(L, i);
    gr_msg *msg;
    if (gr_msg_new(&msg) < 0)
        return luaL_error(L, "out of memory");
    for (int i = 4; i <= last; i++) { /* one too many marks it as cut, as in gr_sock_recv() */
        gr_slice bytes = check_slice(L, i);
        zmq_msg_t frame;
        zmq_msg_init_size(&frame, bytes.len);
        memcpy(zmq_msg_data(&frame), bytes.data, bytes.len);
        gr_msg_add_zmq(msg, &frame);
        zmq_msg_close(&frame);
    }
    gr_zap_receive(zap, via, &msg, now_ms);
    lua_pushboolean(L, msg == NULL);
    return 1;
}

static int zap_next_out(lua_State *L) /* zap:next_out() -> door, number, frames... or nothing */
{
    gr_zap_via via;
    gr_msg *msg;
    luaL_checkstack(L, GR_MSG_MAX_FRAMES + 2, NULL);
    if (!gr_zap_next_out(check_zap(L), &via, &msg))
        return 0;
    lua_pushstring(L, doors[via.door]);
    lua_pushinteger(L, via.number);
    int len = (int)gr_msg_len(msg);
    for (int i = 0; i < len; i++)
        push_slice(L, gr_msg_frame(msg, (size_t)i));
    gr_msg_destroy(&msg);
    return 2 + len;
}

static int zap_work(lua_State *L)
{
    lua_pushboolean(L, gr_zap_work(check_zap(L), now_ms));
    return 1;
}

static int zap_tick(lua_State *L)
{
    gr_zap_tick(check_zap(L), now_ms);
    return 0;
}

static int zap_next_due(lua_State *L) /* zap:next_due() -> ms or nil for never */
{
    int64_t due = gr_zap_next_due(check_zap(L));
    if (due == GR_NEVER)
        return 0;
    lua_pushinteger(L, due);
    return 1;
}

static int zap_stats(lua_State *L) /* zap:stats() -> admitted, refused, failed, malformed */
{
    gr_zap_stats stats;
    gr_zap_get_stats(check_zap(L), &stats);
    lua_pushinteger(L, (lua_Integer)stats.admitted);
    lua_pushinteger(L, (lua_Integer)stats.refused);
    lua_pushinteger(L, (lua_Integer)stats.failed);
    lua_pushinteger(L, (lua_Integer)stats.malformed);
    return 4;
}

static int zap_last_refused(lua_State *L)
{
    char text[200];
    gr_zap_last_refused(check_zap(L), text, sizeof(text));
    lua_pushstring(L, text);
    return 1;
}

static int zap_close(lua_State *L)
{
    gr_zap_destroy(luaL_checkudata(L, 1, ZAP));
    return 0;
}

/* --- penalties --------------------------------------------------------------------------- */

static int f_penalty(lua_State *L) /* zapspec.penalty(most_ms) */
{
    uint32_t most_ms = (uint32_t)luaL_checkinteger(L, 1);
    gr_penalty *box = push_box(L, sizeof(*box), PENALTY);
    box->most_ms = most_ms;
    return 1;
}

static int penalty_add(lua_State *L)
{
    gr_penalty *self = luaL_checkudata(L, 1, PENALTY);
    lua_pushinteger(L, gr_penalty_add(self, check_slice(L, 2), now_ms));
    return 1;
}

static int penalty_until(lua_State *L)
{
    const gr_penalty *self = luaL_checkudata(L, 1, PENALTY);
    lua_pushinteger(L, gr_penalty_until(self, check_slice(L, 2)));
    return 1;
}

static int penalty_close(lua_State *L)
{
    gr_penalty_clear(luaL_checkudata(L, 1, PENALTY));
    return 0;
}

/* --- access ------------------------------------------------------------------------------ */

static gr_access *check_access(lua_State *L)
{
    gr_access **box = luaL_checkudata(L, 1, ACCESS);
    luaL_argcheck(L, *box != NULL, 1, "it is closed");
    return *box;
}

static int f_access(lua_State *L)
{
    gr_access **box = push_box(L, sizeof(*box), ACCESS);
    int rc = gr_access_new(box);
    return rc < 0 ? done(L, rc) : 1;
}

static int access_allow(lua_State *L) /* access:allow(user, action, what) */
{
    return done(L, gr_access_allow(check_access(L), check_slice(L, 2),
                                   (enum gr_action)luaL_checkoption(L, 3, NULL, actions),
                                   check_slice(L, 4)));
}

static int access_may(lua_State *L) /* access:may(user, action, service, method) */
{
    lua_pushboolean(L, gr_access_may(check_access(L), check_slice(L, 2),
                                     (enum gr_action)luaL_checkoption(L, 3, NULL, actions),
                                     check_slice(L, 4), check_slice(L, 5)));
    return 1;
}

static int access_close(lua_State *L)
{
    gr_access_destroy(luaL_checkudata(L, 1, ACCESS));
    return 0;
}

/* --- the module -------------------------------------------------------------------------- */

static int f_at(lua_State *L)
{
    now_ms = luaL_checkinteger(L, 1);
    return 0;
}

static void add_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close)
{
    luaL_newmetatable(L, name);
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_zapspec(lua_State *L)
{
    static const luaL_Reg policy[] = {
        {"user", policy_user},     {"key", policy_key},         {"address", policy_address},
        {"null", policy_null},     {"any_key", policy_any_key}, {"plain", policy_plain},
        {"slowly", policy_slowly}, {"admits", policy_admits},   {"key_of", policy_key_of},
        {"knows", policy_knows},   {"close", policy_close},     {NULL, NULL},
    };
    static const luaL_Reg zap[] = {
        {"set_policy", zap_set_policy},
        {"set_remote", zap_set_remote},
        {"remove", zap_remove},
        {"asks", zap_asks},
        {"receive", zap_receive},
        {"next_out", zap_next_out},
        {"work", zap_work},
        {"tick", zap_tick},
        {"next_due", zap_next_due},
        {"stats", zap_stats},
        {"close", zap_close},
        {"last_refused", zap_last_refused},
        {NULL, NULL},
    };
    static const luaL_Reg penalty[] = {
        {"add", penalty_add}, {"until_ms", penalty_until}, {NULL, NULL}};
    static const luaL_Reg access[] = {{"allow", access_allow}, {"may", access_may}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"at", f_at},           {"policy", f_policy}, {"hash", f_hash}, {"zap", f_zap},
        {"penalty", f_penalty}, {"access", f_access}, {NULL, NULL},
    };
    add_class(L, POLICY, policy, policy_close);
    add_class(L, ZAP, zap, zap_close);
    add_class(L, PENALTY, penalty, penalty_close);
    add_class(L, ACCESS, access, access_close);
    luaL_newlib(L, functions);
    return 1;
}
