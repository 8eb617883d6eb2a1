/* bind_zap.c - who is let in, for Lua: core.policy() -> policy, and the ZAP handler of this
 * process. */
#include <sodium.h>

#include "base/err.h"
#include "bind/bind_curve.h"
#include "bind/bind_zap.h"
#include "host/state.h"
#include "net/zap_host.h"

#define POLICY "gaterpc.core.policy"

/* --- policies ---------------------------------------------------------------------------- */

struct box {
    gr_policy *policy;
};

static gr_policy *check_policy(lua_State *L, int index)
{
    struct box *box = luaL_checkudata(L, index, POLICY);
    if (box->policy == NULL)
        luaL_error(L, "the policy is closed");
    return box->policy;
}

gr_policy *gr_bind_hold_policy(lua_State *L, int index)
{
    return lua_isnoneornil(L, index) ? NULL : gr_policy_hold(check_policy(L, index));
}

static int f_policy(lua_State *L) /* core.policy() -> policy | nil, code, text */
{
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    box->policy = NULL;
    luaL_setmetatable(L, POLICY);
    int rc = gr_policy_new(&box->policy);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int done(lua_State *L, int rc, const char *text)
{
    if (rc < 0)
        return gr_bind_fail(L, rc, rc == GR_EINVAL ? text : NULL);
    lua_pushboolean(L, 1);
    return 1;
}

static int m_add_user(lua_State *L) /* policy:add_user(name, secret) -> true | nil, code, text */
{
    gr_policy *policy = check_policy(L, 1);
    return done(
        L, gr_policy_add_user(policy, gr_bind_check_slice(L, 2), gr_bind_check_slice(L, 3)),
        "names and passwords have 1 to 255 bytes, and a hash is one of crypto_pwhash_str()");
}

static int m_add_key(lua_State *L)
/* policy:add_key(name, public key in Z85) -> true | nil, code, text */
{
    gr_policy *policy = check_policy(L, 1);
    gr_slice name = gr_bind_check_slice(L, 2), text = gr_bind_check_slice(L, 3);
    uint8_t key[GR_POLICY_KEY_LEN];
    if (!gr_bind_read_key(text, key))
        return gr_bind_fail(L, GR_EINVAL, "a CURVE key is Z85 text of 40 characters");
    return done(L, gr_policy_add_key(policy, name, key),
                "a name has 1 to 255 bytes, and a key belongs to one user");
}

static int m_add_address(lua_State *L)
/* policy:add_address(address, allow) -> true | nil, code, text */
{
    gr_policy *policy = check_policy(L, 1);
    return done(L, gr_policy_add_address(policy, gr_bind_check_slice(L, 2), lua_toboolean(L, 3)),
                "no IP address, perhaps with the length of a prefix, nor \"ipc\"");
}

static int m_allow_any_key(lua_State *L) /* policy:allow_any_key() */
{
    gr_policy_allow_any_key(check_policy(L, 1));
    return 0;
}

static int m_allow_null(lua_State *L) /* policy:allow_null() */
{
    gr_policy_allow_null(check_policy(L, 1));
    return 0;
}

static int m_close(lua_State *L) /* closing twice is fine: also __gc and __close */
{
    struct box *box = luaL_checkudata(L, 1, POLICY);
    gr_policy_release(&box->policy);
    return 0;
}

static int f_hash_password(lua_State *L) /* core.hash_password(text) -> hash | nil, code, text */
{
    size_t len;
    const char *text = luaL_checklstring(L, 1, &len);
    char hash[crypto_pwhash_STRBYTES];
    if (sodium_init() < 0)
        return gr_bind_fail(L, GR_ESYSTEM, NULL);
    if (crypto_pwhash_str(hash, text, len, crypto_pwhash_OPSLIMIT_INTERACTIVE,
                          crypto_pwhash_MEMLIMIT_INTERACTIVE) != 0)
        return gr_bind_fail(L, GR_ENOMEM, NULL);
    lua_pushstring(L, hash);
    return 1;
}

/* --- the handler ------------------------------------------------------------------------- */

static int f_zap_start(lua_State *L)
/* core.zap_start(penalty_ms, timeout_ms) -> true | nil, code, text: once; more often does nothing
 */
{
    gr_state *state = gr_state_of(L);
    gr_zap_options options = {.penalty_ms = (uint32_t)luaL_checkinteger(L, 1),
                              .timeout_ms = (uint32_t)luaL_checkinteger(L, 2)};
    int rc = state->zap == NULL ? gr_zap_host_new(&state->zap, state->ctx, &options) : 0;
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : done(L, 0, NULL);
}

static gr_zap_host *check_host(lua_State *L)
{
    gr_zap_host *host = gr_state_of(L)->zap;
    if (host == NULL)
        luaL_error(L, "the ZAP handler was not started");
    return host;
}

static int f_zap_set_policy(lua_State *L)
/* core.zap_set_policy(domain, policy or nil) -> true | nil, code, text; nil: nobody is let in */
{
    gr_zap_host *host = check_host(L);
    gr_slice domain = gr_bind_check_slice(L, 1);
    gr_policy *policy = gr_bind_hold_policy(L, 2);
    if (policy == NULL) {
        gr_zap_host_remove(host, domain);
        return done(L, 0, NULL);
    }
    int rc = gr_zap_host_set_policy(host, domain, &policy);
    gr_policy_release(&policy); /* when it was not taken */
    return done(L, rc, "a domain has 1 to 255 bytes");
}

static int f_zap_set_remote(lua_State *L)
/* core.zap_set_remote(domain, address) -> true | nil, code, text */
{
    gr_zap_host *host = check_host(L);
    gr_slice domain = gr_bind_check_slice(L, 1);
    return done(L, gr_zap_host_set_remote(host, domain, luaL_checkstring(L, 2)),
                "a domain has 1 to 255 bytes");
}

static int f_zap_bind(lua_State *L) /* core.zap_bind(address) -> address | nil, code, text */
{
    gr_zap_host *host = check_host(L);
    char bound[512];
    int rc = gr_zap_host_bind(host, luaL_checkstring(L, 1), bound, sizeof(bound));
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushstring(L, bound);
    return 1;
}

static int f_zap_unbind(lua_State *L) /* core.zap_unbind(address) */
{
    gr_zap_host_unbind(check_host(L), luaL_checkstring(L, 1));
    return 0;
}

static int f_zap_stats(lua_State *L) /* core.zap_stats() -> table of counters */
{
    gr_zap_stats stats = {0};
    if (gr_state_of(L)->zap != NULL)
        gr_zap_host_get_stats(gr_state_of(L)->zap, &stats);
    const struct {
        const char *name;
        uint64_t value;
    } fields[] = {{"admitted", stats.admitted},
                  {"refused", stats.refused},
                  {"failed", stats.failed},
                  {"malformed", stats.malformed}};
    lua_createtable(L, 0, 4);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        lua_pushinteger(L, (lua_Integer)fields[i].value);
        lua_setfield(L, -2, fields[i].name);
    }
    return 1;
}

void gr_bind_zap(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"add_user", m_add_user},
        {"add_key", m_add_key},
        {"add_address", m_add_address},
        {"allow_any_key", m_allow_any_key},
        {"allow_null", m_allow_null},
        {"close", m_close},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"policy", f_policy},
        {"hash_password", f_hash_password},
        {"zap_start", f_zap_start},
        {"zap_set_policy", f_zap_set_policy},
        {"zap_set_remote", f_zap_set_remote},
        {"zap_bind", f_zap_bind},
        {"zap_unbind", f_zap_unbind},
        {"zap_stats", f_zap_stats},
        {NULL, NULL},
    };
    gr_bind_class(L, POLICY, methods, m_close);
    luaL_setfuncs(L, functions, 0);
}
