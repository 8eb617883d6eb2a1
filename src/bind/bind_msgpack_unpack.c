#include "bind/bind_msgpack_priv.h"

#include <endian.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mp.h"

enum {
    STACK_PER_LEVEL = 10,
    FEW_KEYS = 256,
    MAX_STEPS = 1 << 26, /* 0.1 s, or 1.5 s in an order that is bad for the cache */
};

struct unpacker {
    lua_State *L;
    gr_mp_reader in;
    /* Values that the open containers have announced and not delivered. Each takes a byte at
     * least, so tables are never made for more elements than there are bytes left, all levels
     * of nesting together. */
    size_t owed;
    /* What a lua_State has to walk along chains of colliding numbers, see count_collisions(). */
    uint64_t steps;
    gr_lua_hooks *hooks; /* NULL when there never were any */
    /* What goes into the text of a hook's error. */
    bool is_hooks_error;
    gr_lua_path path;
    char who[GR_LUA_EXT_NAME + 32];
    char said[GR_LUA_SAID];
};

static void start(struct unpacker *self, lua_State *L, gr_slice bytes)
{
    self->L = L;
    self->in = gr_mp_read(bytes);
    self->owed = 0;
    self->steps = 0;
    self->hooks = gr_lua_hooks_of(L);
    self->is_hooks_error = false;
    gr_lua_path_start(&self->path);
}

/* Fills in error, which may be NULL. */
static int give_up(struct unpacker *self, int rc, gr_pack_error *error)
{
    if (error == NULL)
        return rc;
    error->text[0] = '\0';
    if (!self->is_hooks_error)
        return rc;
    char place[GR_LUA_PLACE];
    gr_lua_path_print(&self->path, place);
    snprintf(error->text, sizeof(error->text), "%s%s: %s", self->who, place, self->said);
    return rc;
}

/* Hooks. */

static bool has_hook(const struct unpacker *self, enum gr_lua_hook hook)
{
    return self->hooks != NULL && self->hooks->is_set[hook];
}

/* [-1, +1] Gives the container on top to a hook and takes what the hook makes of it. */
static int run_hook(struct unpacker *self, enum gr_lua_hook hook)
{
    int rc = gr_lua_hook_run(self->L, hook, self->said);
    if (rc == 0)
        return 0;
    self->is_hooks_error = true;
    snprintf(self->who, sizeof(self->who), "%s", gr_lua_hook_name(hook));
    return rc;
}

static int open_container(struct unpacker *self, size_t values, int depth)
{
    if (depth > GR_MP_MAX_DEPTH)
        return GR_EEXHAUSTED;
    self->owed += values;
    if (self->owed > (size_t)(self->in.end - self->in.at))
        return GR_EINVAL;
    return lua_checkstack(self->L, STACK_PER_LEVEL) ? 0 : GR_ENOMEM;
}

static int next_owed(struct unpacker *self, gr_mp_token *token)
{
    self->owed--;
    return gr_mp_next(&self->in, token);
}

static int push_token(struct unpacker *self, const gr_mp_token *token, int depth);

/* [-0, +1] One value inside a container. On an error there may be more on the stack. */
static int push_inner(struct unpacker *self, int depth)
{
    gr_mp_token token;
    int rc = next_owed(self, &token);
    if (rc < 0)
        return rc;
    if (token.type != GR_MP_NIL)
        rc = push_token(self, &token, depth);
    else
        lua_pushlightuserdata(self->L, NULL);
    bool is_hooks = self->hooks != NULL && token.type >= GR_MP_EXT;
    if (is_hooks && rc == 0 && lua_isnil(self->L, -1)) {
        lua_pop(self->L, 1);
        lua_pushlightuserdata(self->L, NULL);
    }
    return rc;
}

static int push_array(struct unpacker *self, uint32_t count, int depth)
{
    int rc = open_container(self, count, depth);
    if (rc < 0)
        return rc;
    lua_createtable(self->L, (int)count, 0);
    for (uint32_t i = 1; i <= count; i++) {
        rc = push_inner(self, depth);
        if (rc < 0) {
            gr_lua_path_add_index(&self->path, i);
            return rc;
        }
        lua_rawseti(self->L, -2, i);
    }
    return has_hook(self, GR_HOOK_UNPACK_LIST) ? run_hook(self, GR_HOOK_UNPACK_LIST) : 0;
}

static void push_string(lua_State *L, gr_slice bytes)
{
    lua_pushlstring(L, (const char *)bytes.data, bytes.len);
}

static void push_uint64(lua_State *L, uint64_t value)
{
    memcpy(lua_newuserdatauv(L, sizeof(value), 0), &value, sizeof(value));
    gr_lua_push_kind(L, GR_LUA_UINT64);
    lua_setmetatable(L, -2);
}

struct key {
    bool is_integer;
    bool is_number;
    uint64_t hash; /* of a number, as in ltable.c of Lua 5.4.3 and later */
};

static uint64_t hash_of_float(double d)
{
    int exponent;
    lua_Integer mantissa;
    d = frexp(d, &exponent) * -(double)INT_MIN;
    if (!lua_numbertointeger(d, &mantissa)) /* an infinity */
        return 0;
    unsigned sum = (unsigned)exponent + (unsigned)mantissa;
    return sum <= INT_MAX ? sum : ~sum;
}

static void push_integer_key(lua_State *L, lua_Integer i, struct key *key)
{
    *key = (struct key){.is_integer = true, .is_number = true, .hash = (uint64_t)i};
    lua_pushinteger(L, i);
}

/* Lua turns a float key with an integer value into that integer. Doing it here tells us. */
static int push_float_key(lua_State *L, double d, struct key *key)
{
    lua_Integer i;
    if (isnan(d))
        return GR_EINVAL;
    if (lua_numbertointeger(d, &i) && (double)i == d) {
        push_integer_key(L, i, key);
        return 0;
    }
    *key = (struct key){.is_number = true, .hash = hash_of_float(d)};
    lua_pushnumber(L, d);
    return 0;
}

static int push_key(struct unpacker *self, struct key *key)
{
    gr_mp_token token;
    int rc = next_owed(self, &token);
    if (rc < 0)
        return rc;
    *key = (struct key){0};
    switch (token.type) {
    case GR_MP_STR:
    case GR_MP_BIN:
        push_string(self->L, token.as.bytes);
        return 0;
    case GR_MP_INT:
        push_integer_key(self->L, token.as.i, key);
        return 0;
    case GR_MP_BOOL:
        lua_pushboolean(self->L, token.as.b);
        return 0;
    case GR_MP_UINT:
        push_uint64(self->L, token.as.u);
        return 0;
    case GR_MP_FLOAT:
        return push_float_key(self->L, token.as.d, key);
    default:
        return GR_EINVAL;
    }
}

/* Lengths of a table's chains of keys that collide; NULL as long as the keys are few. */
struct chains {
    uint32_t keys;
    uint32_t positions;
    uint32_t *lengths;
};

/* [-0, +0; once -0, +1 below the table and the key on top]
 * Lua hashes numbers without a seed, so a peer can choose keys that fall into one chain of the
 * table: 131072 of them, 1.3 MB, kept a program busy for 14 s, and time grows with the square. So
 * the chains are counted the way Lua makes them, and a message that takes too many steps is
 * refused. */
static int count_collisions(struct unpacker *self, struct chains *chains, uint32_t count,
                            uint64_t hash)
{
    if (++chains->keys <= FEW_KEYS)
        return 0;
    if (chains->lengths == NULL) {
        uint32_t size = 1;
        while (size < count)
            size *= 2;
        chains->positions = (size - 1) | 1;
        chains->lengths = lua_newuserdatauv(self->L, chains->positions * sizeof(uint32_t), 0);
        memset(chains->lengths, 0, chains->positions * sizeof(uint32_t));
        lua_insert(self->L, -3);
    }
    self->steps += chains->lengths[hash % chains->positions]++;
    return self->steps > MAX_STEPS ? GR_EEXHAUSTED : 0;
}

/* [-0, +1, or 2 when *chains came to hold memory: then the map is on top] */
static int push_pairs(struct unpacker *self, uint32_t count, int depth, struct chains *chains)
{
    lua_State *L = self->L;
    bool is_ambiguous = count == 0;
    lua_createtable(L, 0, (int)count);
    int table = lua_gettop(L);
    for (uint32_t i = 0; i < count; i++) {
        struct key key;
        int rc = push_key(self, &key);
        if (rc == 0 && key.is_number)
            rc = count_collisions(self, chains, count, key.hash);
        if (rc < 0)
            return rc;
        rc = push_inner(self, depth);
        if (rc < 0) {
            gr_lua_path_add_key(&self->path, L, table + (chains->lengths != NULL) + 1);
            return rc;
        }
        is_ambiguous = is_ambiguous || key.is_integer;
        lua_rawset(L, -3);
    }
    if (is_ambiguous) {
        gr_lua_push_kind(L, GR_LUA_MAP);
        lua_setmetatable(L, -2);
    }
    return 0;
}

/* [-0, +1] A map that no hook sees. */
static int push_plain_map(struct unpacker *self, uint32_t count, int depth)
{
    struct chains chains = {0};
    int rc = open_container(self, (size_t)count * 2, depth);
    if (rc == 0)
        rc = push_pairs(self, count, depth, &chains);
    if (rc == 0 && chains.lengths != NULL)
        lua_remove(self->L, -2);
    return rc;
}

/* [-0, +1] The list of pairs, each {key, value}, that unpack_object_pairs_hook takes. The pair on
 * top is there before what it holds, so that its key can be named. */
static int push_list_of_pairs(struct unpacker *self, uint32_t count, int depth)
{
    lua_State *L = self->L;
    int rc = open_container(self, (size_t)count * 2, depth);
    if (rc < 0)
        return rc;
    lua_createtable(L, (int)count, 0);
    for (uint32_t i = 1; i <= count; i++) {
        struct key key;
        lua_createtable(L, 2, 0);
        int pair = lua_gettop(L);
        rc = push_key(self, &key);
        if (rc < 0)
            return rc;
        lua_rawseti(L, pair, 1);
        rc = push_inner(self, depth);
        if (rc < 0) {
            lua_rawgeti(L, pair, 1);
            gr_lua_path_add_key(&self->path, L, -1);
            return rc;
        }
        lua_rawseti(L, pair, 2);
        lua_rawseti(L, -2, i);
    }
    return 0;
}

static int push_map(struct unpacker *self, uint32_t count, int depth)
{
    if (has_hook(self, GR_HOOK_UNPACK_OBJECT_PAIRS)) {
        int rc = push_list_of_pairs(self, count, depth);
        return rc == 0 ? run_hook(self, GR_HOOK_UNPACK_OBJECT_PAIRS) : rc;
    }
    int rc = push_plain_map(self, count, depth);
    return rc == 0 && has_hook(self, GR_HOOK_UNPACK_OBJECT) ? run_hook(self, GR_HOOK_UNPACK_OBJECT)
                                                            : rc;
}

static int push_timestamp(lua_State *L, gr_slice bytes)
{
    uint32_t four = 0;
    uint64_t eight = 0;
    int64_t seconds;
    uint32_t nanoseconds = 0;
    if (bytes.len == 4) {
        memcpy(&four, bytes.data, 4);
        seconds = be32toh(four);
    } else if (bytes.len == 8) {
        memcpy(&eight, bytes.data, 8);
        nanoseconds = (uint32_t)(be64toh(eight) >> 34);
        seconds = (int64_t)(be64toh(eight) & 0x3ffffffff);
    } else if (bytes.len == 12) {
        memcpy(&four, bytes.data, 4);
        memcpy(&eight, bytes.data + 4, 8);
        nanoseconds = be32toh(four);
        seconds = (int64_t)be64toh(eight);
    } else {
        return GR_EINVAL;
    }
    if (nanoseconds > 999999999)
        return GR_EINVAL;
    gr_lua_push_timestamp(L, seconds, nanoseconds);
    return 0;
}

/* [-1, +1] What the unpack function of the ext type's entry, which is on top, makes of the bytes.
 */
static int push_registered(struct unpacker *self, gr_slice bytes)
{
    lua_State *L = self->L;
    char name[GR_LUA_EXT_NAME];
    gr_lua_ext_name(L, name);
    lua_rawgeti(L, -1, GR_EXT_UNPACK);
    lua_replace(L, -2);
    push_string(L, bytes);
    int rc = gr_lua_hook_call(L, self->said);
    if (rc < 0) {
        self->is_hooks_error = true;
        snprintf(self->who, sizeof(self->who), "the unpack function of %s", name);
    }
    return rc;
}

static bool push_entry(struct unpacker *self, int8_t type)
{
    if (self->hooks == NULL || !gr_lua_ext_push_by_type(self->L, type))
        return false;
    if (lua_rawgeti(self->L, -1, GR_EXT_UNPACK) == LUA_TFUNCTION) {
        lua_pop(self->L, 1);
        return true;
    }
    lua_pop(self->L, 2);
    return false;
}

static int push_ext(struct unpacker *self, int8_t type, gr_slice bytes)
{
    lua_State *L = self->L;
    if (type == -1)
        return push_timestamp(L, bytes);
    if (push_entry(self, type))
        return push_registered(self, bytes);
    lua_createtable(L, 0, 2);
    gr_lua_push_kind(L, GR_LUA_EXT);
    lua_pushinteger(L, type);
    lua_setfield(L, -3, "type");
    push_string(L, bytes);
    lua_setfield(L, -3, "data");
    lua_setmetatable(L, -2);
    return 0;
}

static int push_token(struct unpacker *self, const gr_mp_token *token, int depth)
{
    lua_State *L = self->L;
    switch (token->type) {
    case GR_MP_NIL:
        lua_pushnil(L);
        return 0;
    case GR_MP_BOOL:
        lua_pushboolean(L, token->as.b);
        return 0;
    case GR_MP_INT:
        lua_pushinteger(L, token->as.i);
        return 0;
    case GR_MP_UINT:
        push_uint64(L, token->as.u);
        return 0;
    case GR_MP_FLOAT:
        lua_pushnumber(L, token->as.d);
        return 0;
    case GR_MP_STR:
    case GR_MP_BIN:
        push_string(L, token->as.bytes);
        return 0;
    case GR_MP_EXT:
        return push_ext(self, token->ext, token->as.bytes);
    case GR_MP_ARRAY:
        return push_array(self, token->as.count, depth + 1);
    case GR_MP_MAP:
        return push_map(self, token->as.count, depth + 1);
    }
    return GR_EINVAL;
}

int gr_lua_unpack(lua_State *L, gr_slice bytes, size_t *used, gr_pack_error *error)
{
    struct unpacker self;
    gr_mp_token token;
    int top = lua_gettop(L);
    start(&self, L, bytes);
    int rc = lua_checkstack(L, STACK_PER_LEVEL) ? gr_mp_next(&self.in, &token) : GR_ENOMEM;
    if (rc == 0)
        rc = push_token(&self, &token, 0);
    if (rc < 0) {
        lua_settop(L, top);
        return give_up(&self, rc, error);
    }
    if (used != NULL)
        *used = (size_t)(self.in.at - bytes.data);
    return 0;
}

/* [-0, +n] The positional arguments, which must be all of the bytes. */
static int push_args(struct unpacker *self)
{
    lua_State *L = self->L;
    gr_mp_token token;
    int rc = gr_mp_next(&self->in, &token);
    if (rc < 0)
        return rc;
    if (token.type != GR_MP_ARRAY)
        return GR_EINVAL;
    int n = (int)token.as.count;
    if (n > GR_LUA_MAX_ARGS)
        return GR_EEXHAUSTED;
    if (!lua_checkstack(L, n + STACK_PER_LEVEL))
        return GR_ENOMEM;
    self->owed = token.as.count;
    for (int i = 1; i <= n; i++) {
        rc = next_owed(self, &token);
        if (rc == 0)
            rc = push_token(self, &token, 1);
        if (rc < 0) {
            snprintf(self->path.root, sizeof(self->path.root), "argument %d", i);
            return rc;
        }
    }
    return self->in.at == self->in.end ? n : GR_EINVAL;
}

/* [-0, +0 or 1] The keyword arguments, which must be all of the bytes. Returns how many it pushed.
 */
static int push_kwargs(struct unpacker *self)
{
    lua_State *L = self->L;
    gr_mp_token token;
    int rc = gr_mp_next(&self->in, &token);
    if (rc < 0)
        return rc;
    if (token.type != GR_MP_MAP)
        return GR_EINVAL;
    memcpy(self->path.root, "kwargs", sizeof("kwargs"));
    if (token.as.count > 0)
        rc = push_plain_map(self, token.as.count, 1);
    if (rc < 0)
        return rc;
    if (self->in.at != self->in.end)
        return GR_EINVAL;
    if (token.as.count == 0)
        return 0;
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            return GR_EINVAL;
    }
    gr_lua_push_kind(L, GR_LUA_KWARGS);
    lua_setmetatable(L, -2);
    return 1;
}

int gr_lua_unpack_args(lua_State *L, gr_slice payload, uint32_t split, gr_pack_error *error)
{
    struct unpacker self;
    int top = lua_gettop(L);
    start(&self, L, gr_slice_of(payload.data, split < payload.len ? split : payload.len));
    if (split > payload.len)
        return give_up(&self, GR_EINVAL, error);
    if (!lua_checkstack(L, STACK_PER_LEVEL))
        return give_up(&self, GR_ENOMEM, error);
    int n = push_args(&self);
    int extra = 0;
    if (n >= 0 && split < payload.len) {
        start(&self, L, gr_slice_of(payload.data + split, payload.len - split));
        extra = push_kwargs(&self);
    }
    if (n >= 0 && extra >= 0)
        return n + extra;
    lua_settop(L, top);
    return give_up(&self, n < 0 ? n : extra, error);
}
