/* bind_log.c - the log for Lua. Nothing here knows of the host's state: a lua_State of another
 * thread may use it as well. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "bind/bind.h"
#include "bind/bind_log_fields.h"

/* --- lines ------------------------------------------------------------------------------- */

/* How many arguments the format takes: "%d" and the like, not "%%". */
static int count_conversions(const char *format, size_t len)
{
    int count = 0;
    for (size_t i = 0; i + 1 < len; i++) {
        if (format[i] != '%')
            continue;
        count += format[i + 1] != '%';
        i++;
    }
    return count;
}

/* The upvalues of a logger's function. */
enum { SELF = 1, LOGGER, LEVEL, NAME, FORMAT };

/* A last table is the fields, unless it has a text of its own and the format wants it. */
static bool is_fields(lua_State *L, int index, const char *format, size_t len, int count)
{
    if (!lua_istable(L, index))
        return false;
    if (luaL_getmetafield(L, index, "__tostring") == LUA_TNIL)
        return true;
    lua_pop(L, 1);
    return format == NULL || count > count_conversions(format, len);
}

/* The text of a line with arguments: from `first`, the format, to the top. [-0, +1] */
static void push_formatted(lua_State *L, int first, gr_log_fields *fields)
{
    int top = lua_gettop(L), count = top - first;
    size_t len = 0;
    const char *format = lua_tolstring(L, first, &len);
    bool has_fields = is_fields(L, top, format, len, count);
    if (has_fields) {
        gr_bind_put_fields(L, fields, top);
        count--;
    }
    if (count == 0) {
        gr_bind_push_text(L, first);
        return;
    }
    luaL_checkstack(L, count + 4, "too many arguments");
    lua_pushvalue(L, lua_upvalueindex(FORMAT));
    for (int i = 0; i <= count; i++)
        lua_pushvalue(L, first + i);
    if (lua_pcall(L, count + 1, 1, 0) == LUA_OK)
        return;
    lua_pop(L, 1);
    gr_bind_put_arguments(L, fields, first + 1, count);
    gr_bind_push_text(L, first);
}

static int l_log(lua_State *L) /* logger.info(text, ...), logger:info(text, ...) */
{
    const gr_logger *logger = lua_touserdata(L, lua_upvalueindex(LOGGER));
    int level = (int)lua_tointeger(L, lua_upvalueindex(LEVEL));
    if (!gr_logger_wants(logger, level))
        return 0;
    gr_log_fields fields;
    gr_log_fields_init(&fields);
    int first = lua_istable(L, 1) && lua_rawequal(L, 1, lua_upvalueindex(SELF)) ? 2 : 1;
    if (lua_gettop(L) < first)
        lua_settop(L, first);
    if (lua_gettop(L) > first)
        push_formatted(L, first, &fields);
    else if (lua_type(L, first) != LUA_TSTRING)
        gr_bind_push_text(L, first);
    size_t name_len, len;
    const char *name = lua_tolstring(L, lua_upvalueindex(NAME), &name_len);
    const char *text = lua_tolstring(L, -1, &len);
    gr_log_bytes(level, name, name_len, text, len, &fields);
    return 0;
}

static int f_log_wants(lua_State *L) /* core.log_wants(name, level) -> boolean */
{
    size_t len;
    const char *name = luaL_checklstring(L, 1, &len);
    lua_pushboolean(L, gr_logger_wants(gr_logger_of(name, len), (int)luaL_checkinteger(L, 2)));
    return 1;
}

static int f_logger(lua_State *L)
/* core.logger(self, name, { debug = 10, ... }): puts a function per level into self */
{
    size_t len;
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *name = luaL_checklstring(L, 2, &len);
    luaL_checktype(L, 3, LUA_TTABLE);
    gr_logger *logger = gr_logger_of(name, len);
    lua_settop(L, 3);
    lua_getglobal(L, "string");
    lua_getfield(L, -1, "format");
    lua_pushnil(L);
    while (lua_next(L, 3)) { /* format, method, level */
        lua_Integer level = luaL_checkinteger(L, -1);
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
        lua_pushvalue(L, 1);
        lua_pushlightuserdata(L, logger);
        lua_pushinteger(L, level);
        lua_pushvalue(L, 2);
        lua_pushvalue(L, 5);
        lua_pushcclosure(L, l_log, FORMAT);
        lua_rawset(L, 1);
    }
    lua_settop(L, 1);
    return 1;
}

static int f_log(lua_State *L) /* core.log(level, name, text[, fields]) */
{
    size_t name_len, len;
    int level = (int)luaL_checkinteger(L, 1);
    const char *name = luaL_checklstring(L, 2, &name_len);
    const char *text = luaL_checklstring(L, 3, &len);
    if (!gr_logger_wants(gr_logger_of(name, name_len), level))
        return 0;
    gr_log_fields fields;
    gr_log_fields_init(&fields);
    if (lua_istable(L, 4))
        gr_bind_put_fields(L, &fields, 4);
    gr_log_bytes(level, name, name_len, text, len, &fields);
    return 0;
}

/* --- levels ------------------------------------------------------------------------------ */

static int f_log_level(lua_State *L) /* core.log_level([level]) -> level of the root */
{
    if (!lua_isnoneornil(L, 1))
        gr_logger_set_level("", 0, (int)luaL_checkinteger(L, 1));
    lua_pushinteger(L, gr_logger_level(gr_logger_of("", 0)));
    return 1;
}

static int f_logger_level(lua_State *L)
/* core.logger_level(name[, level]) -> level | nil, code, text; -1: as its parent */
{
    size_t len;
    const char *name = luaL_checklstring(L, 1, &len);
    if (!lua_isnoneornil(L, 2)) {
        int rc = gr_logger_set_level(name, len, (int)luaL_checkinteger(L, 2));
        if (rc == GR_EEXHAUSTED)
            return gr_bind_fail(L, rc, "there are too many loggers");
        luaL_argcheck(L, rc == 0, 1, "the name is too long");
    }
    lua_pushinteger(L, gr_logger_level(gr_logger_of(name, len)));
    return 1;
}

/* Under the log's lock nothing may raise: names are collected in C first. */
struct levels {
    size_t count;
    struct {
        size_t len;
        int level;
        char name[GR_LOG_NAME];
    } of[GR_LOGGERS];
};

static void collect_level(void *arg, const char *name, size_t len, int level)
{
    struct levels *levels = arg;
    memcpy(levels->of[levels->count].name, name, len);
    levels->of[levels->count].len = len;
    levels->of[levels->count++].level = level;
}

static int f_logger_levels(lua_State *L)
/* core.logger_levels() -> { name = level, ... }: those that were set, but the root's */
{
    struct levels *levels = lua_newuserdatauv(L, sizeof(*levels), 0);
    levels->count = 0;
    gr_logger_each(collect_level, levels);
    lua_newtable(L);
    for (size_t i = 0; i < levels->count; i++) {
        lua_pushlstring(L, levels->of[i].name, levels->of[i].len);
        lua_pushinteger(L, levels->of[i].level);
        lua_rawset(L, -3);
    }
    return 1;
}

/* --- outputs ----------------------------------------------------------------------------- */

static bool opt_boolean(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

/* The table on the stack's top, which keeps the strings alive. */
static gr_log_output get_output(lua_State *L)
{
    int at = lua_gettop(L);
    gr_log_output out = {
        .path = gr_bind_opt_string(L, at, "path", NULL),
        .level = (int)gr_bind_opt_integer(L, at, "level", 0),
        .json = opt_boolean(L, at, "json"),
        .midnight = opt_boolean(L, at, "midnight"),
        .rotate_bytes = (uint64_t)gr_bind_opt_integer(L, at, "rotate_bytes", 0),
        .keep = (unsigned)gr_bind_opt_integer(L, at, "keep", 0),
    };
    lua_getfield(L, at, "colour");
    if (!lua_isnil(L, -1))
        out.colour = lua_toboolean(L, -1) ? GR_LOG_COLOUR_ON : GR_LOG_COLOUR_OFF;
    lua_settop(L, at);
    return out;
}

static int f_log_setup(lua_State *L)
/* core.log_setup { console = false | output, files = { output, ... }, queue =, queue_bytes = }
   -> true | nil, code, text. An output: path, level, json, midnight, rotate_bytes, keep, colour */
{
    char why[512] = "";
    gr_log_output console, files[GR_LOG_FILES];
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, GR_LOG_FILES + 8, NULL);
    gr_log_setup setup = {
        .files = files,
        .queue_lines = (size_t)gr_bind_opt_integer(L, 1, "queue", 0),
        .queue_bytes = (size_t)gr_bind_opt_integer(L, 1, "queue_bytes", 0),
    };
    lua_getfield(L, 1, "console");
    setup.set_console = !lua_isnil(L, -1);
    if (lua_istable(L, -1)) {
        console = get_output(L);
        setup.console = &console;
    }
    lua_getfield(L, 1, "files");
    setup.set_files = lua_istable(L, -1);
    int list = lua_gettop(L);
    lua_Unsigned count = setup.set_files ? lua_rawlen(L, list) : 0;
    luaL_argcheck(L, count <= GR_LOG_FILES, 1, "there can be 16 files");
    for (; setup.file_count < count; setup.file_count++) {
        lua_rawgeti(L, list, (lua_Integer)setup.file_count + 1);
        files[setup.file_count] = get_output(L);
    }
    int rc = gr_log_configure(&setup, why, sizeof(why));
    if (rc < 0)
        return gr_bind_fail(L, rc, why);
    lua_pushboolean(L, 1);
    return 1;
}

static int f_log_reopen(lua_State *L) /* core.log_reopen() */
{
    (void)L;
    gr_log_reopen();
    return 0;
}

static int f_flush_log(lua_State *L) /* core.flush_log() -> boolean: waits a second at most */
{
    lua_pushboolean(L, gr_log_flush(1000));
    return 1;
}

static void set_count(lua_State *L, const char *name, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

static int f_log_stats(lua_State *L)
/* core.log_stats() -> { lines, dropped, waiting, waiting_bytes, outputs = { { path, lines, lost,
   error } } } */
{
    gr_log_stats stats;
    gr_log_get_stats(&stats);
    lua_newtable(L);
    set_count(L, "lines", stats.lines);
    set_count(L, "dropped", stats.dropped);
    set_count(L, "waiting", stats.waiting);
    set_count(L, "waiting_bytes", stats.waiting_bytes);
    lua_newtable(L);
    for (size_t i = 0; i < stats.output_count; i++) {
        const gr_log_output_stats *output = &stats.outputs[i];
        lua_newtable(L);
        if (output->path[0] != '\0') {
            lua_pushstring(L, output->path);
            lua_setfield(L, -2, "path");
        }
        set_count(L, "lines", output->lines);
        set_count(L, "lost", output->lost);
        if (output->error != 0) {
            char text[128];
            lua_pushstring(L, strerror_r(output->error, text, sizeof(text)));
            lua_setfield(L, -2, "error");
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "outputs");
    return 1;
}

void gr_bind_log(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"log", f_log},
        {"log_level", f_log_level},
        {"logger", f_logger},
        {"logger_level", f_logger_level},
        {"logger_levels", f_logger_levels},
        {"log_wants", f_log_wants},
        {"log_setup", f_log_setup},
        {"log_reopen", f_log_reopen},
        {"log_stats", f_log_stats},
        {"flush_log", f_flush_log},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
