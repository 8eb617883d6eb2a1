#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "bind/bind_msgpack_priv.h"

atomic_bool gr_lua_hooks_are_used;

static const char hooks_key; /* its address is the key of the hooks in the registry */

/* User values of the hooks' userdata: the functions, by gr_lua_hook, and then these. */
enum { FIRST_FUNCTION = 1, BY_TYPE = FIRST_FUNCTION + GR_HOOKS, BY_METATABLE, USER_VALUES };

static const char *const names[GR_HOOKS + 1] = {
    [GR_HOOK_PREPARE_PACK] = "prepare_pack",
    [GR_HOOK_UNPACK_OBJECT] = "unpack_object_hook",
    [GR_HOOK_UNPACK_OBJECT_PAIRS] = "unpack_object_pairs_hook",
    [GR_HOOK_UNPACK_LIST] = "unpack_list_hook",
};

const char *gr_lua_hook_name(enum gr_lua_hook hook)
{
    return names[hook];
}

/* [-0, +1] */
static gr_lua_hooks *push_hooks(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &hooks_key);
    return lua_touserdata(L, -1); /* NULL for nil */
}

gr_lua_hooks *gr_lua_hooks_find(lua_State *L)
{
    gr_lua_hooks *self = push_hooks(L);
    lua_pop(L, 1);
    return self;
}

bool gr_lua_in_hook(lua_State *L)
{
    gr_lua_hooks *self = lua_checkstack(L, 1) ? gr_lua_hooks_of(L) : NULL;
    return self != NULL && self->depth > 0;
}

/* --- calling ----------------------------------------------------------------------------- */

struct failure {
    int rc;
    char *said;
};

/* What does not fit ends in "...", and not within a character of UTF-8. */
static void say(char said[GR_LUA_SAID], const char *text)
{
    static const char dots[] = "...";
    int n = snprintf(said, GR_LUA_SAID, "%s", text);
    if (n < GR_LUA_SAID)
        return;
    size_t end = GR_LUA_SAID - sizeof(dots);
    while (end > 0 && ((uint8_t)said[end] & 0xc0) == 0x80)
        end--;
    memcpy(said + end, dots, sizeof(dots));
}

/* [protected] describe(error value, failure): as gaterpc.error's describe() does it. The error
 * object may be anybody's, with metamethods of its own. */
static int describe(lua_State *L)
{
    struct failure *failure = lua_touserdata(L, 2);
    lua_settop(L, 1);
    if (lua_istable(L, 1)) {
        if (lua_getfield(L, 1, "code") == LUA_TSTRING)
            failure->rc = gr_err_of_code(lua_tostring(L, -1));
        lua_getfield(L, 1, "message");
    }
    const char *text = lua_type(L, -1) == LUA_TSTRING && lua_gettop(L) > 1
                           ? lua_tostring(L, -1)
                           : luaL_tolstring(L, 1, NULL);
    if (strncmp(text, "attempt to yield", 16) == 0)
        text = "it cannot wait or yield";
    say(failure->said, text);
    return 0;
}

/* [-1, +0] The error value is on top. */
static int fail(lua_State *L, int status, char said[GR_LUA_SAID])
{
    struct failure failure = {.rc = GR_ELUA, .said = said};
    if (status == LUA_ERRMEM) {
        lua_pop(L, 1);
        say(said, gr_err_text(GR_ENOMEM));
        return GR_ENOMEM;
    }
    lua_pushcfunction(L, describe);
    lua_insert(L, -2);
    lua_pushlightuserdata(L, &failure);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK) {
        lua_pop(L, 1);
        say(said, "it raised an error object that cannot be printed");
    }
    return failure.rc;
}

static int call(lua_State *L, gr_lua_hooks *self, char said[GR_LUA_SAID])
{
    int base = lua_gettop(L) - 2;
    self->depth++;
    int status = lua_pcall(L, 1, LUA_MULTRET, 0);
    int rc = status == LUA_OK ? 0 : fail(L, status, said);
    self->depth--;
    if (rc == 0 && lua_gettop(L) == base) { /* rather forgotten than meant */
        say(said, "it returned nothing");
        rc = GR_ELUA;
    }
    lua_settop(L, rc == 0 ? base + 1 : base);
    return rc;
}

int gr_lua_hook_call(lua_State *L, char said[GR_LUA_SAID])
{
    if (!lua_checkstack(L, 4)) {
        lua_pop(L, 2);
        say(said, "there is no stack for it");
        return GR_ENOMEM;
    }
    gr_lua_hooks *self = gr_lua_hooks_of(L);
    if (self->depth < GR_LUA_MAX_HOOKS)
        return call(L, self, said);
    lua_pop(L, 2);
    snprintf(said, GR_LUA_SAID, "hooks run within hooks, more than %d of them", GR_LUA_MAX_HOOKS);
    return GR_EEXHAUSTED;
}

int gr_lua_hook_run(lua_State *L, enum gr_lua_hook hook, char said[GR_LUA_SAID])
{
    if (!lua_checkstack(L, 4)) {
        lua_pop(L, 1);
        say(said, "there is no stack for it");
        return GR_ENOMEM;
    }
    push_hooks(L);
    if (lua_getiuservalue(L, -1, FIRST_FUNCTION + (int)hook) == LUA_TNIL) {
        lua_pop(L, 2);
        return 0;
    }
    lua_replace(L, -2);
    lua_insert(L, -2);
    return gr_lua_hook_call(L, said);
}

/* --- ext types --------------------------------------------------------------------------- */

static bool has_ext_types(lua_State *L)
{
    gr_lua_hooks *self = gr_lua_hooks_of(L);
    return self != NULL && self->ext_types > 0;
}

/* [-1, +1 when it returns true] Pushes the entry for the key on top. */
static bool push_entry(lua_State *L, int table)
{
    push_hooks(L);
    lua_getiuservalue(L, -1, table);
    lua_pushvalue(L, -3);
    bool is_there = lua_rawget(L, -2) == LUA_TTABLE;
    lua_replace(L, -4);
    lua_pop(L, is_there ? 2 : 3);
    return is_there;
}

bool gr_lua_ext_push_by_type(lua_State *L, int type)
{
    if (!has_ext_types(L))
        return false;
    lua_pushinteger(L, type);
    return push_entry(L, BY_TYPE);
}

bool gr_lua_ext_push_by_metatable(lua_State *L)
{
    if (!has_ext_types(L))
        return false;
    lua_pushvalue(L, -1);
    return push_entry(L, BY_METATABLE);
}

void gr_lua_ext_name(lua_State *L, char out[GR_LUA_EXT_NAME])
{
    lua_rawgeti(L, -1, GR_EXT_NAME);
    const char *name = lua_tostring(L, -1);
    snprintf(out, GR_LUA_EXT_NAME, "%s", name != NULL ? name : "?");
    lua_pop(L, 1);
}

/* --- for lua/gaterpc/msgpack.lua --------------------------------------------------------- */

/* [-0, +1] Makes them at the first time. */
static gr_lua_hooks *make_hooks(lua_State *L)
{
    gr_lua_hooks *self = push_hooks(L);
    if (self != NULL)
        return self;
    lua_pop(L, 1);
    self = lua_newuserdatauv(L, sizeof(*self), USER_VALUES - 1);
    *self = (gr_lua_hooks){0};
    lua_newtable(L);
    lua_setiuservalue(L, -2, BY_TYPE);
    lua_newtable(L);
    lua_setiuservalue(L, -2, BY_METATABLE);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &hooks_key);
    atomic_store(&gr_lua_hooks_are_used, true);
    return self;
}

static int f_set(lua_State *L) /* hooks.set(name, function or nil) */
{
    int hook = luaL_checkoption(L, 1, NULL, names);
    if (!lua_isnil(L, 2))
        luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    gr_lua_hooks *self = make_hooks(L);
    self->is_set[hook] = !lua_isnil(L, 2);
    lua_pushvalue(L, 2);
    lua_setiuservalue(L, 3, FIRST_FUNCTION + hook);
    return 0;
}

static int f_get(lua_State *L) /* hooks.get(name) -> function | nil */
{
    int hook = luaL_checkoption(L, 1, NULL, names);
    if (push_hooks(L) == NULL)
        return 1;
    lua_getiuservalue(L, -1, FIRST_FUNCTION + hook);
    return 1;
}

static int f_set_ext(lua_State *L)
/* hooks.set_ext(type, name, metatable, pack, unpack): a type that is not registered yet */
{
    enum { TYPE = 1, METATABLE = 3, LAST = 5, HOOKS, ENTRY };
    lua_Integer type = luaL_checkinteger(L, TYPE);
    lua_settop(L, LAST);
    gr_lua_hooks *self = make_hooks(L);
    lua_createtable(L, LAST, 0);
    for (int i = TYPE; i <= LAST; i++) {
        lua_pushvalue(L, i);
        lua_rawseti(L, ENTRY, i);
    }
    lua_getiuservalue(L, HOOKS, BY_TYPE);
    lua_pushvalue(L, ENTRY);
    lua_rawseti(L, -2, type);
    self->ext_types++;
    if (lua_isnil(L, METATABLE))
        return 0;
    lua_getiuservalue(L, HOOKS, BY_METATABLE);
    lua_pushvalue(L, METATABLE);
    lua_pushvalue(L, ENTRY);
    lua_rawset(L, -3);
    return 0;
}

static int f_drop_ext(lua_State *L) /* hooks.drop_ext(type) -> it was registered */
{
    enum { TYPE = 1, ENTRY, HOOKS };
    lua_Integer type = luaL_checkinteger(L, TYPE);
    lua_settop(L, 1);
    if (type < INT8_MIN || type > INT8_MAX || !gr_lua_ext_push_by_type(L, (int)type)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    push_hooks(L)->ext_types--;
    lua_getiuservalue(L, HOOKS, BY_TYPE);
    lua_pushnil(L);
    lua_rawseti(L, -2, type);
    lua_getiuservalue(L, HOOKS, BY_METATABLE);
    lua_rawgeti(L, ENTRY, GR_EXT_METATABLE);
    if (!lua_isnil(L, -1)) {
        lua_pushnil(L);
        lua_rawset(L, -3);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* hooks.ext_of(type or metatable) -> type, name | nothing; "own" for our own metatables */
static int f_ext_of(lua_State *L)
{
    lua_settop(L, 1);
    if (lua_istable(L, 1) && gr_lua_kind_of_metatable(L) != GR_LUA_PLAIN) {
        lua_pushliteral(L, "own");
        return 1;
    }
    bool is_there = lua_istable(L, 1) ? gr_lua_ext_push_by_metatable(L)
                                      : gr_lua_ext_push_by_type(L, (int)luaL_checkinteger(L, 1));
    if (!is_there)
        return 0;
    lua_rawgeti(L, 2, GR_EXT_TYPE);
    lua_rawgeti(L, 2, GR_EXT_NAME);
    return 2;
}

static int f_running(lua_State *L) /* hooks.running() -> boolean: the caller is in a hook */
{
    lua_pushboolean(L, gr_lua_in_hook(L));
    return 1;
}

void gr_lua_push_hook_functions(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"set", f_set},         {"get", f_get},
        {"set_ext", f_set_ext}, {"drop_ext", f_drop_ext},
        {"ext_of", f_ext_of},   {"running", f_running},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
}
