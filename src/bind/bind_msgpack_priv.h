/* bind_msgpack_priv.h - what packing and unpacking have in common: the place of a value, for error
 * texts, and the functions of users that take part. For bind_msgpack*.c only. */
#ifndef GR_BIND_MSGPACK_PRIV_H
#define GR_BIND_MSGPACK_PRIV_H

#include <lauxlib.h>
#include <stdatomic.h>

#include "bind/bind_msgpack.h"

/* --- places ------------------------------------------------------------------------------ */

enum { GR_LUA_PATH = 56 }; /* of a place; longer ones lose their front */

/* A place such as .user["full name"][3]. It grows from back to front, on the way out of what
 * failed. */
typedef struct gr_lua_path {
    bool is_full;
    size_t at;
    char root[24]; /* "argument 3", "kwargs" or nothing */
    char text[GR_LUA_PATH + 1];
} gr_lua_path;

static inline void gr_lua_path_start(gr_lua_path *self)
{
    self->is_full = false;
    self->at = GR_LUA_PATH;
    self->root[0] = '\0';
    self->text[GR_LUA_PATH] = '\0';
}

/* [-0, +0] What failed was in the field whose key is at this index, or in the i-th element. Never
 * raises. */
void gr_lua_path_add_key(gr_lua_path *self, lua_State *L, int key);
void gr_lua_path_add_index(gr_lua_path *self, lua_Integer i);

enum { GR_LUA_PLACE = GR_LUA_PATH + 32 };

/* Writes " at argument 3.user", or nothing when the whole value failed. */
void gr_lua_path_print(const gr_lua_path *self, char out[GR_LUA_PLACE]);

/* --- hooks ------------------------------------------------------------------------------- */

enum gr_lua_hook {
    GR_HOOK_PREPARE_PACK,
    GR_HOOK_UNPACK_OBJECT,
    GR_HOOK_UNPACK_OBJECT_PAIRS,
    GR_HOOK_UNPACK_LIST,
    GR_HOOKS,
};

/* The name that users know: "prepare_pack". */
const char *gr_lua_hook_name(enum gr_lua_hook hook);

/* What a state has for packing and unpacking. It lives as long as the state. */
typedef struct gr_lua_hooks {
    bool is_set[GR_HOOKS];
    int ext_types; /* so many are registered */
    int depth;     /* of hooks that run; one may pack, which runs another */
} gr_lua_hooks;

/* A hook or an ext type was set in some state of this process. Until then nobody has to look for
 * any, which would be felt with small values. */
extern atomic_bool gr_lua_hooks_are_used;

/* [-0, +0] The hooks of this state, or NULL when there never were any. Needs a free stack slot.
 * Never raises. */
gr_lua_hooks *gr_lua_hooks_find(lua_State *L);

static inline gr_lua_hooks *gr_lua_hooks_of(lua_State *L)
{
    bool are_used = atomic_load_explicit(&gr_lua_hooks_are_used, memory_order_relaxed);
    return are_used ? gr_lua_hooks_find(L) : NULL;
}

/* What went wrong in a hook: "script.lua:3: boom". */
enum { GR_LUA_SAID = 240 };

/* [-1, +1; on an error -1, +0] Calls a hook with the value on top, which its first result replaces.
 * A hook that was removed meanwhile changes nothing. Returns 0; on an error of the hook what its
 * error object's code stands for, else GR_ELUA, and fills in said. Never raises, and the hook
 * cannot yield. Checks the stack itself. */
int gr_lua_hook_run(lua_State *L, enum gr_lua_hook hook, char said[GR_LUA_SAID]);

/* A registered ext type is a table with these elements. */
enum { GR_EXT_TYPE = 1, GR_EXT_NAME, GR_EXT_METATABLE, GR_EXT_PACK, GR_EXT_UNPACK };

/* [-0, +1 when it returns true] Pushes what is registered for an ext type, or for the metatable on
 * the top. Needs four free stack slots. Never raises. */
bool gr_lua_ext_push_by_type(lua_State *L, int type);
bool gr_lua_ext_push_by_metatable(lua_State *L);

/* Copies the name of the ext type on the top. */
enum { GR_LUA_EXT_NAME = 32 };
void gr_lua_ext_name(lua_State *L, char out[GR_LUA_EXT_NAME]);

/* [-2, +1; on an error -2, +0] Calls an ext type's function, which is below its argument. As
 * gr_lua_hook_run(). */
int gr_lua_hook_call(lua_State *L, char said[GR_LUA_SAID]);

/* [-0, +1] Pushes the table of functions for lua/gaterpc/msgpack.lua. */
void gr_lua_push_hook_functions(lua_State *L);

/* --- other parts of the module ----------------------------------------------------------- */

/* [-0, +0] The kind that the metatable on the top stands for. Needs a free stack slot. */
enum gr_lua_kind gr_lua_kind_of_metatable(lua_State *L);

/* [-0, +1] Pushes a timestamp; nanoseconds are from 0 to 999999999. Needs three free stack slots.
 */
void gr_lua_push_timestamp(lua_State *L, lua_Integer seconds, lua_Integer nanoseconds);

extern const luaL_Reg gr_lua_timestamp_functions[]; /* of the module */
extern const luaL_Reg gr_lua_timestamp_meta[];      /* of the metatable */
extern const luaL_Reg gr_lua_timestamp_methods[];   /* of the values */

#endif
