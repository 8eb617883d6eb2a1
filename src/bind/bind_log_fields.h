/* bind_log_fields.h - Lua tables to the fields of log lines.
 *
 * Access is raw, so that no code of the user runs but a __tostring, and what that raises is caught:
 * whatever the values are, there is a line. Bounds are those of base/log_fields.h. Names come in
 * their order; values of secret names never get in. */
#ifndef GR_BIND_LOG_FIELDS_H
#define GR_BIND_LOG_FIELDS_H

#include <lua.h>

#include "base/log_fields.h"

/* The table at `index` as fields. [-0, +0] */
void gr_bind_put_fields(lua_State *L, gr_log_fields *fields, int index);

/* One field "arguments" with the values from `first` on, for a format that could not be used. [-0,
 * +0] */
void gr_bind_put_arguments(lua_State *L, gr_log_fields *fields, int first, int count);

/* Pushes a text for any value. [-0, +1] */
void gr_bind_push_text(lua_State *L, int index);

#endif
