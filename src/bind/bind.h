/* bind.h - what the bindings share: boxes, checked arguments, failures.
 *
 * A binding checks and converts, nothing else. A box is the userdata around one C object; its
 * first user value is the Lua object that owns it. */
#ifndef GR_BIND_H
#define GR_BIND_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

/* Puts the modules gaterpc.core and gaterpc.msgpack_core where require finds them. [-0, +0] */
void gr_bind_preload(lua_State *L);

/* The same for the state of an executor: a smaller gaterpc.core, and gaterpc.port. [-0, +0] */
void gr_bind_preload_inside(lua_State *L);
int gr_bind_open_port(lua_State *L);

/* [-0, +1] In an executor: the error that code gets when its job is to stop. */
void gr_bind_push_stopped(lua_State *L);

/* Functions of gaterpc.core, added to the table on the stack's top by their modules. [-0, +0] */
void gr_bind_client(lua_State *L);
void gr_bind_worker(lua_State *L);
void gr_bind_majordomo(lua_State *L);
void gr_bind_codec(lua_State *L);
void gr_bind_curve(lua_State *L);
void gr_bind_repl(lua_State *L);
void gr_bind_executor(lua_State *L);
void gr_bind_zap(lua_State *L);
void gr_bind_log(lua_State *L); /* for any lua_State of the process, in any thread */

/* Returns nil, code, text to Lua. text NULL: the error's own. [-0, +3] */
int gr_bind_fail(lua_State *L, int err, const char *text);

/* Makes a class: a metatable with __name, __index, __gc and __close (both `close`). [-0, +0] */
void gr_bind_class(lua_State *L, const char *type, const luaL_Reg *methods, lua_CFunction close);

/* Remembers the userdata on the stack's top as `box`, weakly, and the value below it as its owner.
 * gr_bind_push_owner() pushes that owner and returns true, or pushes nothing. */
void gr_bind_remember(lua_State *L, void *box, int owner);
bool gr_bind_push_owner(lua_State *L, void *box);

/* Fields of the options table at `index`; they raise when the type is wrong. */
const char *gr_bind_opt_string(lua_State *L, int index, const char *name, const char *fallback);
lua_Integer gr_bind_opt_integer(lua_State *L, int index, const char *name, lua_Integer fallback);

/* A random number, never 0. */
uint64_t gr_bind_random(void);

/* A buffer that is kept from one message to the next: taken, it is the caller's alone, because what
 * packs into it may be called again by a hook. Keeping frees what is large or there twice. */
gr_buf gr_bind_take_buf(gr_buf *kept);
void gr_bind_keep_buf(gr_buf *kept, gr_buf *buf);

/* Raises in a hook: events are taken by the dispatcher only, one at a time. */
void gr_bind_check_no_hook(lua_State *L);

/* A string argument as a slice; it lives as long as its stack slot. */
gr_slice gr_bind_check_slice(lua_State *L, int index);

#endif
