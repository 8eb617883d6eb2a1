/* log.c - a log of its own for specs: the module `logspec` has a second copy of the log, beside the
 * host's, that specs start, stop and fill as they like, and a clock that they set.
 *
 * logspec.core has what the log adds to gaterpc.core, for lua/gaterpc/log.lua. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "bind/bind.h"

enum { THREADS = 16 };

int luaopen_logspec(lua_State *L);

/* --- life -------------------------------------------------------------------------------- */

static int f_start(lua_State *L) /* start(fd): a log with a text console */
{
    lua_pushinteger(L, gr_log_start((int)luaL_checkinteger(L, 1)));
    return 1;
}

static int f_stop(lua_State *L)
{
    (void)L;
    gr_log_stop();
    return 0;
}

static int f_flush(lua_State *L) /* flush(ms) -> boolean */
{
    lua_pushboolean(L, gr_log_flush((int)luaL_checkinteger(L, 1)));
    return 1;
}

static _Atomic int64_t clock_sec, clock_nsec;

static void fake_clock(int64_t *sec, int32_t *nsec)
{
    *sec = atomic_load(&clock_sec);
    *nsec = (int32_t)atomic_load(&clock_nsec);
}

static int f_set_clock(lua_State *L) /* set_clock(seconds or nil, [ms]) */
{
    if (lua_isnoneornil(L, 1)) {
        gr_log_set_clock(NULL);
        return 0;
    }
    atomic_store(&clock_sec, luaL_checkinteger(L, 1));
    atomic_store(&clock_nsec, luaL_optinteger(L, 2, 0) * 1000000);
    gr_log_set_clock(fake_clock);
    return 0;
}

/* --- threads ----------------------------------------------------------------------------- */

struct work {
    pthread_t thread;
    int number, lines, size;
    const char *script; /* Lua instead of lines from C */
    char error[200];
};

static void *log_lines(void *arg)
{
    struct work *work = arg;
    char filler[1000];
    memset(filler, 'x', sizeof(filler));
    for (int i = 1; i <= work->lines; i++) {
        gr_log_fields fields;
        gr_log_fields_init(&fields);
        gr_log_add_integer(&fields, "line", i);
        gr_log_with(GR_LOG_INFO, "spec.thread", &fields, "thread %d %.*s", work->number, work->size,
                    filler);
    }
    return NULL;
}

static int open_core(lua_State *L)
{
    lua_newtable(L);
    gr_bind_log(L);
    return 1;
}

/* A state with no host behind it. */
static void *run_script(void *arg)
{
    struct work *work = arg;
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, open_core);
    lua_setfield(L, -2, "gaterpc.core");
    lua_settop(L, 0);
    int rc = luaL_loadstring(L, work->script);
    lua_pushinteger(L, work->number);
    if (rc != LUA_OK || lua_pcall(L, 1, 0, 0) != LUA_OK)
        strncpy(work->error, luaL_tolstring(L, -1, NULL), sizeof(work->error) - 1);
    lua_close(L);
    return NULL;
}

static int run_all(lua_State *L, void *(*run)(void *), int count, const struct work *like)
{
    static struct work works[THREADS];
    luaL_argcheck(L, count >= 1 && count <= THREADS, 1, "1 to 16 threads");
    for (int i = 0; i < count; i++) {
        works[i] = *like;
        works[i].number = i + 1;
        if (gr_thread_start(&works[i].thread, run, &works[i]) < 0)
            abort();
    }
    for (int i = 0; i < count; i++)
        pthread_join(works[i].thread, NULL);
    for (int i = 0; i < count; i++)
        if (works[i].error[0] != '\0')
            return luaL_error(L, "%s", works[i].error);
    return 0;
}

static int f_threads(lua_State *L) /* threads(count, lines, size): each logs so many lines */
{
    struct work like = {
        .lines = (int)luaL_checkinteger(L, 2),
        .size = (int)luaL_checkinteger(L, 3),
    };
    return run_all(L, log_lines, (int)luaL_checkinteger(L, 1), &like);
}

static int f_states(lua_State *L) /* states(count, script): each runs it in a state of its own */
{
    struct work like = {.script = luaL_checkstring(L, 2)};
    return run_all(L, run_script, (int)luaL_checkinteger(L, 1), &like);
}

/* --- figures ----------------------------------------------------------------------------- */

static int f_cost(lua_State *L) /* cost(n, level) -> ns of one call of gr_log() */
{
    lua_Integer n = luaL_checkinteger(L, 1);
    int level = (int)luaL_checkinteger(L, 2);
    int64_t start = gr_clock_ns();
    for (lua_Integer i = 0; i < n; i++)
        gr_log(level, "spec.cost", "line %lld", (long long)i);
    lua_pushnumber(L, (lua_Number)(gr_clock_ns() - start) / (lua_Number)n);
    return 1;
}

/* --- the end ----------------------------------------------------------------------------- */

__attribute__((no_sanitize("address", "thread", "undefined"))) static void *crash(void *unused)
{
    (void)unused;
    volatile int *volatile nowhere = NULL;
    *nowhere = 1;
    return NULL;
}

/* Leaves no room for the handler but its own stack. */
__attribute__((no_sanitize("address", "thread", "undefined"))) static int
overflow(volatile char *above)
{
    static volatile int64_t depth = INT64_MAX;
    volatile char here[4096];
    here[0] = above != NULL ? above[0] : 0;
    return depth-- > 0 ? overflow(here) + here[0] : 0;
}

static int f_crash(lua_State *L) /* crash("here" | "thread" | "stack") */
{
    const char *where = luaL_checkstring(L, 1);
    pthread_t thread;
    if (strcmp(where, "thread") == 0 && pthread_create(&thread, NULL, crash, NULL) == 0)
        pthread_join(thread, NULL);
    if (strcmp(where, "stack") == 0)
        lua_pushinteger(L, overflow(NULL));
    crash(NULL);
    return 0;
}

static int f_is_secret(lua_State *L)
{
    size_t len;
    const char *name = luaL_checklstring(L, 1, &len);
    lua_pushboolean(L, gr_log_is_secret(name, len));
    return 1;
}

/* add(name, value, ...): a line with these fields, as C code adds them */
static int f_add(lua_State *L)
{
    gr_log_fields fields;
    gr_log_fields_init(&fields);
    for (int i = 1; i < lua_gettop(L); i += 2) {
        const char *name = luaL_checkstring(L, i);
        size_t len;
        if (lua_isboolean(L, i + 1))
            gr_log_add_bool(&fields, name, lua_toboolean(L, i + 1));
        else if (lua_isinteger(L, i + 1))
            gr_log_add_integer(&fields, name, lua_tointeger(L, i + 1));
        else if (lua_type(L, i + 1) == LUA_TNUMBER)
            gr_log_add_float(&fields, name, lua_tonumber(L, i + 1));
        else {
            const char *text = luaL_checklstring(L, i + 1, &len);
            gr_log_add_string(&fields, name, text, len);
        }
    }
    gr_log_with(GR_LOG_INFO, "spec", &fields, "from C");
    return 0;
}

int luaopen_logspec(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"start", f_start},
        {"stop", f_stop},
        {"flush", f_flush},
        {"set_clock", f_set_clock},
        {"threads", f_threads},
        {"states", f_states},
        {"cost", f_cost},
        {"crash", f_crash},
        {"is_secret", f_is_secret},
        {"add", f_add},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
    lua_newtable(L);
    gr_bind_log(L);
    lua_setfield(L, -2, "core");
    return 1;
}
