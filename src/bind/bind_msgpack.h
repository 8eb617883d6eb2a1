/* bind_msgpack.h - Lua values to msgpack and back, and the module gaterpc.msgpack_core, which
 * lua/gaterpc/msgpack.lua makes into what users see.
 *
 *   integer -> int             float -> float 64, always      true, false -> bool
 *   string -> str when it is UTF-8, else bin                  null, nil -> nil
 *   {} and sequences -> array  any key but 1..n -> map        holes -> an error
 *   uint64, bin, str, ext, timestamp: wrappers, see below     anything else -> an error
 *
 * Decoding inverts this: str and bin become strings, nil inside a container becomes null, an int
 * above 2^63-1 a uint64. A decoded map that would come out differently (it is empty or has an
 * integer key) carries the map metatable, so a round trip is exact but for three things that Lua
 * cannot tell apart: str or bin by their bytes, float 32 from 64, and a float key such as 1.0
 * from the integer key 1. Keys may be bool, int, float, str and bin; of equal keys the last wins
 * (uint64 keys are objects and equal to nothing else).
 *
 * Limits in both directions: those of base/mp.h, GR_LUA_MAX_ARGS arguments and, packing only,
 * GR_LUA_MAX_PACKED bytes, because a small table that holds itself many times over is large
 * once packed. Unpacking also refuses maps whose numeric keys were chosen to collide in Lua's
 * tables (GR_EEXHAUSTED).
 *
 * Access is raw and metamethods are ignored. The only code of users that runs in here are the hooks
 * and the functions of ext types that they have set in this state, see docs/msgpack.md. These may
 * raise, which is an error like any other; they cannot yield; and they may call whatever called us:
 * whoever owns a buffer or a message must be ready for that, also for being closed. As long as none
 * is set nothing of this happens, but for finalizers, which may run whenever unpacking makes
 * something. A lua_State and what belongs to it are used by one thread. */
#ifndef GR_BIND_MSGPACK_H
#define GR_BIND_MSGPACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <lua.h>

#include "base/buf.h"

enum {
    GR_LUA_MAX_ARGS = 250,
    GR_LUA_MAX_PACKED = 1 << 30,
    GR_LUA_MAX_HOOKS = 32, /* that run within each other */
};

/* Why a value could not be packed: one line that names the place, such as
 * "a function at .user.callback cannot be packed". When a hook failed, also its words. */
typedef struct gr_pack_error {
    char text[440];
} gr_pack_error;

/* [-0, +0] Appends the value at index. Returns 0; GR_EINVAL when it cannot be packed,
 * GR_EEXHAUSTED beyond a limit, GR_ENOMEM; when a hook failed, what its error object's code stands
 * for, else GR_ELUA. On an error out keeps its length and *error is filled in. Never raises. */
int gr_lua_pack(lua_State *L, int index, gr_buf *out, gr_pack_error *error);

/* [-0, +0] Appends the values at first..last (none when last < first) as one array, nil being
 * msgpack nil; when the last one is a kwargs table it is left out and appended as a map behind
 * the array. *split is the length of the array in bytes. Errors as above. Never raises. */
int gr_lua_pack_args(lua_State *L, int first, int last, gr_buf *out, uint32_t *split,
                     gr_pack_error *error);

/* [-0, +1] Pushes the value at the front of bytes; *used (may be NULL) is its length. Returns 0;
 * GR_EINVAL when it is not msgpack, ends too early, or has a key that Lua cannot hold,
 * GR_EEXHAUSTED beyond a limit, GR_ENOMEM when the stack cannot grow; when a hook failed, an error
 * as for packing. On an error nothing is pushed, and *error (may be NULL) is what the hook said,
 * with its name and the place, or empty when it was no hook. Raises Lua's memory error and nothing
 * else. */
int gr_lua_unpack(lua_State *L, gr_slice bytes, size_t *used, gr_pack_error *error);

/* [-0, +n] Pushes the elements of the array in the first split bytes of payload, msgpack nil being
 * nil, and behind them the map in the rest, if there is one and it is not empty, as a kwargs
 * table. Hooks see what is in these two, not the two themselves. Returns n, or an error as above:
 * also when a part is not exactly one array or map, and when a keyword is not a string. */
int gr_lua_unpack_args(lua_State *L, gr_slice payload, uint32_t split, gr_pack_error *error);

/* [-0, +0] A hook runs in this state, and we were called by it. Never raises. */
bool gr_lua_in_hook(lua_State *L);

/* [-0, +0] Makes the metatables of this state. The functions above need them; a second call does
 * nothing. */
void gr_lua_msgpack_setup(lua_State *L);

/* [-0, +1] Opens gaterpc.msgpack_core; its types are in lua/gaterpc/meta/msgpack.lua. */
int luaopen_gaterpc_msgpack(lua_State *L);

/* What a value with one of our metatables is. */
enum gr_lua_kind {
    GR_LUA_PLAIN, /* none of ours */
    GR_LUA_MAP,
    GR_LUA_ARRAY, /* nil up to n, or up to the largest key, is msgpack nil */
    GR_LUA_KWARGS,
    GR_LUA_BIN,       /* {string} */
    GR_LUA_STR,       /* {string} */
    GR_LUA_EXT,       /* {type =, data =} */
    GR_LUA_TIMESTAMP, /* {seconds =, nanoseconds =} */
    GR_LUA_UINT64,    /* a userdata of one uint64_t */
    GR_LUA_KINDS,
};

/* [-0, +0] The kind of the value at index. Needs two free stack slots. */
enum gr_lua_kind gr_lua_kind(lua_State *L, int index);

/* [-0, +1] Pushes the metatable of a kind, nil when there was no setup. */
void gr_lua_push_kind(lua_State *L, enum gr_lua_kind kind);

/* The keys of a table. */
typedef struct gr_lua_shape {
    enum gr_lua_kind kind; /* GR_LUA_ARRAY (1..n or empty), GR_LUA_MAP, or GR_LUA_PLAIN: holes */
    lua_Integer count;     /* all keys */
    lua_Integer positive;  /* those that are positive integers */
    lua_Integer largest;   /* the largest of these, or 0 */
} gr_lua_shape;

/* [-0, +0] Looks at the keys of the table at index, whatever its metatable. Needs three free stack
 * slots. */
gr_lua_shape gr_lua_shape_of(lua_State *L, int index);

#endif
