#include "bind/bind_log_fields.h"

#include <lauxlib.h>
#include <stdio.h>
#include <string.h>

enum { MARK = 3 }; /* bytes of "..." */

/* --- fields ------------------------------------------------------------------------------ */

/* A key of a table that can be a name: a text or a number. It is on the stack as long as it is
 * used, because a __tostring of some value may take it out of the table. */
struct key {
    int at;           /* on the stack */
    const char *text; /* NULL: the number */
    size_t len;
    lua_Integer number;
};

static bool put_value(lua_State *L, gr_log_fields *fields, int index, int depth);

static int to_string(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    return 1;
}

void gr_bind_push_text(lua_State *L, int index)
{
    if (lua_type(L, index) == LUA_TSTRING) {
        lua_pushvalue(L, index);
        return;
    }
    index = lua_absindex(L, index);
    lua_pushcfunction(L, to_string);
    lua_pushvalue(L, index);
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        lua_pop(L, 1);
        lua_pushfstring(L, "(a %s that cannot be shown)", luaL_typename(L, index));
    }
}

static bool put_as_text(lua_State *L, gr_log_fields *fields, int index)
{
    size_t len;
    gr_bind_push_text(L, index);
    const char *text = lua_tolstring(L, -1, &len);
    bool ok = gr_log_put_string(fields, text, len);
    lua_pop(L, 1);
    return ok;
}

static int compare(const struct key *a, const struct key *b)
{
    if (a->text == NULL || b->text == NULL)
        return a->text == NULL && b->text == NULL
                   ? (a->number > b->number) - (a->number < b->number)
                   : (a->text != NULL) - (b->text != NULL);
    size_t len = a->len < b->len ? a->len : b->len;
    int order = memcmp(a->text, b->text, len);
    return order != 0 ? order : (a->len > b->len) - (a->len < b->len);
}

static void insert(struct key *keys, size_t count, struct key key)
{
    while (count > 0 && compare(&keys[count - 1], &key) > 0) {
        keys[count] = keys[count - 1];
        count--;
    }
    keys[count] = key;
}

static bool is_name(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TSTRING || lua_isinteger(L, index);
}

static struct key key_on_top(lua_State *L)
{
    struct key key = {.at = lua_gettop(L)};
    if (lua_isinteger(L, -1))
        key.number = lua_tointeger(L, -1);
    else
        key.text = lua_tolstring(L, -1, &key.len);
    return key;
}

/* Collects names, sorted; other keys cannot be shown. *more: there are others. Returns how many.
 * [-0, +n] */
static size_t collect_keys(lua_State *L, int index, struct key *keys, bool *more)
{
    size_t count = 0, seen = 0;
    *more = false;
    luaL_checkstack(L, GR_LOG_FIELD_COUNT + 10, "too many fields in each other");
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        if (seen++ == GR_LOG_FIELD_COUNT) {
            *more = true;
            lua_pop(L, 1);
            break;
        }
        if (!is_name(L, -1)) {
            *more = true;
            continue;
        }
        insert(keys, count++, key_on_top(L));
        lua_pushvalue(L, -1); /* one stays, one is for lua_next() */
    }
    return count;
}

/* Pushes the value of a key. [-0, +1] */
static void push_field(lua_State *L, int index, const struct key *key)
{
    lua_pushvalue(L, key->at);
    lua_rawget(L, index);
}

static bool put_key_value(lua_State *L, gr_log_fields *fields, int index, const struct key *key,
                          int depth)
{
    if (key->text != NULL && gr_log_is_secret(key->text, key->len))
        return gr_log_put_string(fields, "***", 3);
    push_field(L, index, key);
    bool ok = put_value(L, fields, -1, depth);
    lua_pop(L, 1);
    return ok;
}

static const char *name_of(const struct key *key, char *number, size_t size, size_t *len)
{
    *len = key->len;
    if (key->text != NULL)
        return key->text;
    *len = (size_t)snprintf(number, size, LUA_INTEGER_FMT, (LUAI_UACINT)key->number);
    return number;
}

static bool put_map(lua_State *L, gr_log_fields *fields, int index, int depth)
{
    struct key keys[GR_LOG_FIELD_COUNT];
    char number[32];
    size_t mark, len;
    bool more;
    uint32_t done = 0;
    int top = lua_gettop(L);
    if (!gr_log_put_map(fields, &mark))
        return false;
    size_t count = collect_keys(L, index, keys, &more);
    for (; done < count; done++) {
        size_t before = fields->len;
        const char *name = name_of(&keys[done], number, sizeof(number), &len);
        if (!gr_log_put_string(fields, name, len) ||
            !put_key_value(L, fields, index, &keys[done], depth)) {
            fields->len = before;
            more = true;
            break;
        }
    }
    lua_settop(L, top);
    size_t before = fields->len;
    if (more && gr_log_put_string(fields, "...", MARK) && gr_log_put_bool(fields, true))
        done++;
    else
        fields->len = before;
    gr_log_end_container(fields, mark, done);
    return true;
}

static bool put_array(lua_State *L, gr_log_fields *fields, int index, lua_Unsigned count, int depth)
{
    size_t mark;
    uint32_t done = 0;
    if (!gr_log_put_array(fields, &mark))
        return false;
    while (done < count && done < GR_LOG_FIELD_COUNT) {
        lua_rawgeti(L, index, done + 1);
        bool ok = put_value(L, fields, -1, depth);
        lua_pop(L, 1);
        if (!ok)
            break;
        done++;
    }
    if (done < count && gr_log_put_string(fields, "...", MARK))
        done++;
    gr_log_end_container(fields, mark, done);
    return true;
}

/* All its keys, as far as one looks, are from 1 to count. */
static bool is_sequence(lua_State *L, int index, lua_Unsigned count)
{
    int seen = 0;
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        bool ok = lua_isinteger(L, -1) && (lua_Unsigned)lua_tointeger(L, -1) - 1 < count;
        if (!ok || ++seen == GR_LOG_FIELD_COUNT) {
            lua_pop(L, 1);
            return ok;
        }
    }
    return true;
}

static bool put_table(lua_State *L, gr_log_fields *fields, int index, int depth)
{
    if (luaL_getmetafield(L, index, "__tostring") != LUA_TNIL) {
        lua_pop(L, 1);
        return put_as_text(L, fields, index); /* an error object, for instance */
    }
    if (depth >= GR_LOG_FIELD_DEPTH)
        return gr_log_put_string(fields, "...", MARK);
    lua_Unsigned count = lua_rawlen(L, index);
    if (is_sequence(L, index, count)) /* the empty table, too */
        return put_array(L, fields, index, count, depth + 1);
    return put_map(L, fields, index, depth + 1);
}

static bool put_value(lua_State *L, gr_log_fields *fields, int index, int depth)
{
    size_t len;
    const char *text;
    index = lua_absindex(L, index);
    luaL_checkstack(L, 10, "too many fields in each other");
    switch (lua_type(L, index)) {
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &len);
        return gr_log_put_string(fields, text, len);
    case LUA_TNUMBER:
        return lua_isinteger(L, index) ? gr_log_put_integer(fields, lua_tointeger(L, index))
                                       : gr_log_put_float(fields, lua_tonumber(L, index));
    case LUA_TBOOLEAN:
        return gr_log_put_bool(fields, lua_toboolean(L, index));
    case LUA_TNIL:
        return gr_log_put_nil(fields);
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, index) == NULL)
            return gr_log_put_nil(fields); /* gaterpc.null */
        break;
    case LUA_TTABLE:
        return put_table(L, fields, index, depth);
    default:
        break;
    }
    return put_as_text(L, fields, index);
}

/* [-0, +n] */
static void put_fields(lua_State *L, gr_log_fields *fields, int index)
{
    struct key keys[GR_LOG_FIELD_COUNT];
    char number[32];
    bool more;
    size_t count = collect_keys(L, index, keys, &more), len;
    for (size_t i = 0; i < count; i++) {
        size_t before = fields->len;
        const char *name = name_of(&keys[i], number, sizeof(number), &len);
        if (!gr_log_put_name(fields, name, len))
            return;
        if (!put_key_value(L, fields, index, &keys[i], 0)) {
            gr_log_drop_field(fields, before);
            return;
        }
    }
    if (more)
        gr_log_cut_fields(fields);
}

void gr_bind_put_fields(lua_State *L, gr_log_fields *fields, int index)
{
    int top = lua_gettop(L);
    put_fields(L, fields, index);
    lua_settop(L, top);
}

void gr_bind_put_arguments(lua_State *L, gr_log_fields *fields, int first, int count)
{
    size_t before = fields->len, mark;
    bool ok = gr_log_put_name(fields, "arguments", 9);
    if (!ok)
        return;
    ok = gr_log_put_array(fields, &mark);
    for (int i = 0; ok && i < count; i++)
        ok = put_value(L, fields, first + i, 1);
    if (ok)
        gr_log_end_container(fields, mark, (uint32_t)count);
    else
        gr_log_drop_field(fields, before);
}
