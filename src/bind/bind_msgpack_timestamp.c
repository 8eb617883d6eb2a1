/* bind_msgpack_timestamp.c - points in time: {seconds =, nanoseconds =} since 1970, UTC. */
#include <stdio.h>
#include <time.h>

#include "bind/bind_msgpack_priv.h"

enum { BILLION = 1000000000 };

struct stamp {
    lua_Integer seconds;
    lua_Integer nanoseconds;
};

void gr_lua_push_timestamp(lua_State *L, lua_Integer seconds, lua_Integer nanoseconds)
{
    lua_createtable(L, 0, 2);
    lua_pushinteger(L, seconds);
    lua_setfield(L, -2, "seconds");
    lua_pushinteger(L, nanoseconds);
    lua_setfield(L, -2, "nanoseconds");
    gr_lua_push_kind(L, GR_LUA_TIMESTAMP);
    lua_setmetatable(L, -2);
}

static bool get_integer(lua_State *L, int index, const char *name, lua_Integer *value)
{
    lua_pushstring(L, name);
    lua_rawget(L, index);
    bool is_integer = lua_isinteger(L, -1);
    *value = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return is_integer;
}

/* False when the value is none, or was spoiled. */
static bool to_stamp(lua_State *L, int index, struct stamp *stamp)
{
    return lua_istable(L, index) && gr_lua_kind(L, index) == GR_LUA_TIMESTAMP &&
           get_integer(L, index, "seconds", &stamp->seconds) &&
           get_integer(L, index, "nanoseconds", &stamp->nanoseconds) && stamp->nanoseconds >= 0 &&
           stamp->nanoseconds < BILLION;
}

static struct stamp check_stamp(lua_State *L, int index)
{
    struct stamp stamp;
    luaL_argexpected(L, to_stamp(L, index, &stamp), index, "gaterpc.timestamp");
    return stamp;
}

static int f_timestamp(lua_State *L) /* timestamp(seconds, nanoseconds = 0) -> timestamp */
{
    lua_Integer seconds = luaL_checkinteger(L, 1);
    lua_Integer nanoseconds = luaL_optinteger(L, 2, 0);
    luaL_argcheck(L, nanoseconds >= 0 && nanoseconds < BILLION, 2, "must be from 0 to 999999999");
    gr_lua_push_timestamp(L, seconds, nanoseconds);
    return 1;
}

static int f_from(lua_State *L) /* timestamp_from(seconds, maybe with a fraction) -> timestamp */
{
    if (lua_isinteger(L, 1)) {
        gr_lua_push_timestamp(L, lua_tointeger(L, 1), 0);
        return 1;
    }
    lua_Number number = luaL_checknumber(L, 1);
    /* not for NaN either */
    luaL_argcheck(L, number >= -0x1p63 && number < 0x1p63, 1, "is no time that fits 64 bits");
    lua_Integer seconds = (lua_Integer)number;
    if ((lua_Number)seconds > number)
        seconds--;
    lua_Integer nanoseconds = (lua_Integer)((number - (lua_Number)seconds) * BILLION + 0.5);
    if (nanoseconds == BILLION) { /* only where there are fractions, far from the end */
        seconds++;
        nanoseconds = 0;
    }
    gr_lua_push_timestamp(L, seconds, nanoseconds);
    return 1;
}

static int f_now(lua_State *L) /* timestamp_now() -> timestamp */
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    gr_lua_push_timestamp(L, now.tv_sec, now.tv_nsec);
    return 1;
}

static int m_to_seconds(lua_State *L) /* t:to_seconds() -> float */
{
    struct stamp stamp = check_stamp(L, 1);
    lua_pushnumber(L, (lua_Number)stamp.seconds + (lua_Number)stamp.nanoseconds / BILLION);
    return 1;
}

/* 2026-11-24T03:21:54.123000000Z; a year has four digits or more. */
static int meta_tostring(lua_State *L)
{
    struct stamp stamp = {0};
    struct tm parts;
    char text[96];
    if (!to_stamp(L, 1, &stamp)) {
        lua_pushliteral(L, "gaterpc.timestamp(spoiled)");
        return 1;
    }
    time_t seconds = (time_t)stamp.seconds;
    if (gmtime_r(&seconds, &parts) == NULL) { /* a year beyond what fits an int */
        lua_pushfstring(L, "gaterpc.timestamp(%I, %I)", stamp.seconds, stamp.nanoseconds);
        return 1;
    }
    long long year = parts.tm_year + 1900LL;
    snprintf(text, sizeof(text), "%s%04lld-%02d-%02dT%02d:%02d:%02d.%09lldZ", year < 0 ? "-" : "",
             year < 0 ? -year : year, parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min,
             parts.tm_sec, (long long)stamp.nanoseconds);
    lua_pushstring(L, text);
    return 1;
}

static int compare(const struct stamp *a, const struct stamp *b)
{
    if (a->seconds != b->seconds)
        return a->seconds < b->seconds ? -1 : 1;
    return (a->nanoseconds > b->nanoseconds) - (a->nanoseconds < b->nanoseconds);
}

static int meta_eq(lua_State *L)
{
    struct stamp a, b;
    lua_pushboolean(L, to_stamp(L, 1, &a) && to_stamp(L, 2, &b) && compare(&a, &b) == 0);
    return 1;
}

static int meta_lt(lua_State *L)
{
    struct stamp a = check_stamp(L, 1), b = check_stamp(L, 2);
    lua_pushboolean(L, compare(&a, &b) < 0);
    return 1;
}

static int meta_le(lua_State *L)
{
    struct stamp a = check_stamp(L, 1), b = check_stamp(L, 2);
    lua_pushboolean(L, compare(&a, &b) <= 0);
    return 1;
}

const luaL_Reg gr_lua_timestamp_functions[] = {
    {"timestamp", f_timestamp}, {"timestamp_from", f_from}, {"timestamp_now", f_now}, {NULL, NULL}};
const luaL_Reg gr_lua_timestamp_meta[] = {{"__tostring", meta_tostring},
                                          {"__eq", meta_eq},
                                          {"__lt", meta_lt},
                                          {"__le", meta_le},
                                          {NULL, NULL}};
const luaL_Reg gr_lua_timestamp_methods[] = {{"to_seconds", m_to_seconds}, {NULL, NULL}};
