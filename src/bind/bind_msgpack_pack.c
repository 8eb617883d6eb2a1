#include "bind/bind_msgpack_priv.h"

#include <msgpack/pack.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mp.h"

enum {
    STACK_PER_LEVEL = 10,
    MAX_ROUNDS = 8, /* prepare_pack may give what prepare_pack must see again */
};

struct packer {
    msgpack_packer mp;
    lua_State *L;
    gr_buf *out;
    size_t limit;   /* of out's length */
    int rc;         /* the first error of append(), which then only fails */
    unsigned calls; /* of hooks; whoever loops over a table looks whether there was one */
    int rounds;     /* of prepare_pack, for one value at this depth */
    int rounds_depth;
    /* What goes into the error text. */
    const char *subject;
    gr_lua_path path;
    char name[GR_LUA_EXT_NAME]; /* of an ext type that is the subject */
    char problem[GR_LUA_SAID + 64];
};

static int append(void *data, const char *bytes, size_t len)
{
    struct packer *self = data;
    if (self->rc == 0 && len > self->limit - self->out->len)
        self->rc = GR_EEXHAUSTED;
    if (self->rc == 0)
        self->rc = gr_buf_append(self->out, bytes, len);
    return self->rc;
}

static void start(struct packer *self, lua_State *L, gr_buf *out)
{
    msgpack_packer_init(&self->mp, self, append);
    self->L = L;
    self->out = out;
    self->limit = out->len + GR_LUA_MAX_PACKED;
    self->rc = 0;
    self->calls = 0;
    self->rounds = 0;
    self->rounds_depth = -1;
    gr_lua_path_start(&self->path);
}

static int fail(struct packer *self, int rc, const char *subject, const char *problem)
{
    self->subject = subject;
    snprintf(self->problem, sizeof(self->problem), "%s", problem);
    return rc;
}

static int too_many(struct packer *self)
{
    return fail(self, GR_EEXHAUSTED, "table", "has more than 1048576 elements");
}

static int pack_string(struct packer *self, int index, enum gr_lua_kind kind)
{
    size_t len;
    const char *text = lua_tolstring(self->L, index, &len);
    if (len > GR_MP_MAX_BYTES)
        return fail(self, GR_EEXHAUSTED, "string", "is longer than 32 MiB");
    bool is_str =
        kind == GR_LUA_STR || (kind != GR_LUA_BIN && gr_mp_is_utf8((const uint8_t *)text, len));
    return is_str ? msgpack_pack_str_with_body(&self->mp, text, len)
                  : msgpack_pack_bin_with_body(&self->mp, text, len);
}

static int pack_number(struct packer *self, int index)
{
    if (lua_isinteger(self->L, index))
        return msgpack_pack_int64(&self->mp, lua_tointeger(self->L, index));
    return msgpack_pack_double(&self->mp, lua_tonumber(self->L, index));
}

static int pack_boolean(struct packer *self, int index)
{
    return lua_toboolean(self->L, index) ? msgpack_pack_true(&self->mp)
                                         : msgpack_pack_false(&self->mp);
}

static bool is_uint64(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TUSERDATA && lua_rawlen(L, index) == sizeof(uint64_t) &&
           gr_lua_kind(L, index) == GR_LUA_UINT64;
}

static int pack_uint64(struct packer *self, int index)
{
    uint64_t value;
    memcpy(&value, lua_touserdata(self->L, index), sizeof(value));
    return msgpack_pack_uint64(&self->mp, value);
}

/* [-0, +1] Pushes the field whose name is nth in the list of the metatable of the wrapper at index:
 * names are kept there because pushing one could raise a memory error. */
static void push_field(lua_State *L, int index, int nth)
{
    lua_getmetatable(L, index);
    lua_rawgeti(L, -1, nth);
    lua_remove(L, -2);
    lua_rawget(L, index);
}

static int pack_wrapped(struct packer *self, int index, enum gr_lua_kind kind)
{
    lua_rawgeti(self->L, index, 1);
    if (lua_type(self->L, -1) != LUA_TSTRING)
        return fail(self, GR_EINVAL, kind == GR_LUA_BIN ? "gaterpc.bin" : "gaterpc.str",
                    "must hold a string");
    int rc = pack_string(self, lua_gettop(self->L), kind);
    lua_pop(self->L, 1);
    return rc;
}

static int pack_ext(struct packer *self, int index)
{
    lua_State *L = self->L;
    push_field(L, index, 1);
    push_field(L, index, 2);
    lua_Integer type = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : INT64_MAX;
    if (type < INT8_MIN || type > INT8_MAX || lua_type(L, -1) != LUA_TSTRING)
        return fail(self, GR_EINVAL, "gaterpc.ext", "needs a type from -128 to 127 and a string");
    size_t len;
    const char *data = lua_tolstring(L, -1, &len);
    if (len > GR_MP_MAX_BYTES)
        return fail(self, GR_EEXHAUSTED, "gaterpc.ext", "is longer than 32 MiB");
    int rc = msgpack_pack_ext_with_body(&self->mp, data, len, (int8_t)type);
    lua_pop(L, 2);
    return rc;
}

static int pack_timestamp(struct packer *self, int index)
{
    lua_State *L = self->L;
    push_field(L, index, 1);
    push_field(L, index, 2);
    lua_Integer nanoseconds = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : -1;
    if (!lua_isinteger(L, -2) || nanoseconds < 0 || nanoseconds > 999999999)
        return fail(self, GR_EINVAL, "gaterpc.timestamp",
                    "needs integer seconds and nanoseconds from 0 to 999999999");
    msgpack_timestamp value = {.tv_sec = lua_tointeger(L, -2), .tv_nsec = (uint32_t)nanoseconds};
    lua_pop(L, 2);
    msgpack_pack_timestamp(&self->mp, &value); /* forgets errors of its first half */
    return self->rc;
}

static int pack_value(struct packer *self, int index, int depth);

static bool can_prepare(struct packer *self)
{
    gr_lua_hooks *hooks = gr_lua_hooks_of(self->L);
    return hooks != NULL && hooks->is_set[GR_HOOK_PREPARE_PACK];
}

static int fail_prepare(struct packer *self, int rc, int type, const char *said)
{
    fail(self, rc, lua_typename(self->L, type), "");
    snprintf(self->problem, sizeof(self->problem), "cannot be packed: %s: %s",
             gr_lua_hook_name(GR_HOOK_PREPARE_PACK), said);
    return rc;
}

/* Packs what prepare_pack makes of the value, which has no form in msgpack. */
static int prepare_once(struct packer *self, int index, int depth)
{
    lua_State *L = self->L;
    char said[GR_LUA_SAID];
    int type = lua_type(L, index);
    if (++self->rounds > MAX_ROUNDS)
        return fail_prepare(self, GR_EINVAL, type, "it gave 8 values that cannot be packed either");
    if (!lua_checkstack(L, STACK_PER_LEVEL))
        return fail(self, GR_ENOMEM, lua_typename(L, type), "needs more stack than there is");
    lua_pushvalue(L, index);
    self->calls++;
    int rc = gr_lua_hook_run(L, GR_HOOK_PREPARE_PACK, said);
    if (rc < 0)
        return fail_prepare(self, rc, type, said);
    rc = pack_value(self, lua_gettop(L), depth);
    if (rc == 0)
        lua_pop(L, 1);
    return rc;
}

/* Rounds are counted for each value by itself: what is inside of a prepared table has its own. */
static int prepare(struct packer *self, int index, int depth)
{
    if (!can_prepare(self))
        return fail(self, GR_EINVAL, lua_typename(self->L, lua_type(self->L, index)),
                    "cannot be packed");
    int rounds_depth = self->rounds_depth;
    if (rounds_depth != depth)
        self->rounds = 0;
    self->rounds_depth = depth;
    int rc = prepare_once(self, index, depth);
    self->rounds_depth = rounds_depth;
    return rc;
}

static int fail_registered(struct packer *self, int rc, const char *how, const char *what)
{
    fail(self, rc, self->name, "");
    snprintf(self->problem, sizeof(self->problem), "cannot be packed: its pack function%s%s", how,
             what);
    return rc;
}

/* [-2, +0] The entry of the value's metatable is on top, and that below it. */
static int pack_registered(struct packer *self, int index)
{
    lua_State *L = self->L;
    char said[GR_LUA_SAID];
    gr_lua_ext_name(L, self->name);
    lua_rawgeti(L, -1, GR_EXT_TYPE);
    int8_t type = (int8_t)lua_tointeger(L, -1);
    lua_rawgeti(L, -2, GR_EXT_PACK);
    lua_pushvalue(L, index);
    self->calls++;
    int rc = gr_lua_hook_call(L, said);
    if (rc < 0)
        return fail_registered(self, rc, ": ", said);
    if (lua_type(L, -1) != LUA_TSTRING)
        return fail_registered(self, GR_ELUA, " gave no string but a ", luaL_typename(L, -1));
    size_t len;
    const char *data = lua_tolstring(L, -1, &len);
    if (len > GR_MP_MAX_BYTES)
        return fail_registered(self, GR_EEXHAUSTED, " gave more than 32 MiB", "");
    rc = msgpack_pack_ext_with_body(&self->mp, data, len, type);
    lua_pop(L, 4);
    return rc;
}

static int pack_elements(struct packer *self, int index, lua_Integer n, int depth)
{
    lua_State *L = self->L;
    if (n > GR_MP_MAX_ELEMENTS)
        return too_many(self);
    int rc = msgpack_pack_array(&self->mp, (size_t)n);
    int element = lua_gettop(L) + 1;
    for (lua_Integer i = 1; i <= n && rc == 0; i++) {
        lua_rawgeti(L, index, i);
        rc = pack_value(self, element, depth);
        if (rc < 0)
            gr_lua_path_add_index(&self->path, i);
        else
            lua_pop(L, 1);
    }
    return rc;
}

/* A table with the array metatable: nil is msgpack nil up to n, or up to the largest key. */
static int pack_marked_array(struct packer *self, int index, int depth)
{
    lua_State *L = self->L;
    gr_lua_shape shape = gr_lua_shape_of(L, index);
    push_field(L, index, 1);
    bool has_n = !lua_isnil(L, -1);
    lua_Integer n = has_n ? lua_tointeger(L, -1) : shape.largest;
    if ((has_n && !lua_isinteger(L, -1)) || n < 0)
        return fail(self, GR_EINVAL, "gaterpc.array", "has an n that is not a length");
    if (shape.count - shape.positive != (has_n ? 1 : 0))
        return fail(self, GR_EINVAL, "gaterpc.array", "has keys other than 1 to n, and n");
    lua_pop(L, 1);
    return pack_elements(self, index, n, depth);
}

static int pack_key(struct packer *self, int index)
{
    lua_State *L = self->L;
    int type = lua_type(L, index);
    if (type == LUA_TSTRING)
        return pack_string(self, index, GR_LUA_PLAIN);
    if (type == LUA_TNUMBER)
        return pack_number(self, index);
    if (type == LUA_TBOOLEAN)
        return pack_boolean(self, index);
    if (is_uint64(L, index))
        return pack_uint64(self, index);

    bool is_null = type == LUA_TLIGHTUSERDATA && lua_touserdata(L, index) == NULL;
    char problem[64];
    snprintf(problem, sizeof(problem), "has a %s as a key, which cannot be packed",
             is_null ? "null" : lua_typename(L, type));
    return fail(self, GR_EINVAL, "table", problem);
}

static int fail_changed(struct packer *self)
{
    return fail(self, GR_EINVAL, "table", "was changed by a hook while it was packed");
}

/* [-0, +0] Does the table still have the key on top? If not, lua_next() may raise. */
static bool has_key(lua_State *L, int index)
{
    lua_pushvalue(L, -1);
    bool has = lua_rawget(L, index) != LUA_TNIL;
    lua_pop(L, 1);
    return has;
}

/* The loop counts, because a hook may change the table. */
static int pack_map(struct packer *self, int index, lua_Integer count, int depth)
{
    lua_State *L = self->L;
    if (count > GR_MP_MAX_ELEMENTS)
        return too_many(self);
    int rc = msgpack_pack_map(&self->mp, (size_t)count);
    int key = lua_gettop(L) + 1;
    lua_pushnil(L);
    while (rc == 0 && lua_next(L, index)) {
        if (count-- == 0)
            return fail_changed(self);
        rc = pack_key(self, key);
        if (rc < 0)
            break;
        unsigned calls = self->calls;
        rc = pack_value(self, key + 1, depth);
        if (rc < 0)
            gr_lua_path_add_key(&self->path, L, key);
        else
            lua_pop(L, 1);
        if (rc == 0 && self->calls != calls && !has_key(L, index))
            rc = fail_changed(self);
    }
    return rc == 0 && count > 0 ? fail_changed(self) : rc;
}

static int fail_holes(struct packer *self, int index)
{
    lua_State *L = self->L;
    lua_Integer missing = 1;
    while (lua_rawgeti(L, index, missing) != LUA_TNIL) {
        lua_pop(L, 1);
        missing++;
    }
    lua_pop(L, 1);
    lua_Integer after = LUA_MAXINTEGER;
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        lua_Integer key = lua_tointeger(L, -1);
        if (key > missing && key < after)
            after = key;
    }
    char before[32] = "key";
    if (missing > 1)
        snprintf(before, sizeof(before), "keys %lld and", (long long)missing - 1);
    fail(self, GR_EINVAL, "table", "");
    snprintf(self->problem, sizeof(self->problem),
             "has holes (%s %lld but not %lld): use gaterpc.array or gaterpc.null", before,
             (long long)after, (long long)missing);
    return GR_EINVAL;
}

static int pack_container(struct packer *self, int index, enum gr_lua_kind kind, int depth)
{
    if (depth > GR_MP_MAX_DEPTH)
        return fail(self, GR_EEXHAUSTED, "table", "is nested deeper than 64 levels");
    if (kind == GR_LUA_ARRAY)
        return pack_marked_array(self, index, depth);
    gr_lua_shape shape = gr_lua_shape_of(self->L, index);
    if (kind == GR_LUA_MAP || kind == GR_LUA_KWARGS || shape.kind == GR_LUA_MAP)
        return pack_map(self, index, shape.count, depth);
    if (shape.kind == GR_LUA_ARRAY)
        return pack_elements(self, index, shape.count, depth);
    return can_prepare(self) ? prepare(self, index, depth - 1) : fail_holes(self, index);
}

static int pack_table(struct packer *self, int index, int depth)
{
    if (!lua_checkstack(self->L, STACK_PER_LEVEL))
        return fail(self, GR_ENOMEM, "table", "needs more stack than there is");
    enum gr_lua_kind kind = GR_LUA_PLAIN;
    if (lua_getmetatable(self->L, index)) {
        kind = gr_lua_kind_of_metatable(self->L);
        if (kind == GR_LUA_PLAIN && gr_lua_ext_push_by_metatable(self->L))
            return pack_registered(self, index);
        lua_pop(self->L, 1);
    }
    switch (kind) {
    case GR_LUA_BIN:
    case GR_LUA_STR:
        return pack_wrapped(self, index, kind);
    case GR_LUA_EXT:
        return pack_ext(self, index);
    case GR_LUA_TIMESTAMP:
        return pack_timestamp(self, index);
    default:
        return pack_container(self, index, kind, depth + 1);
    }
}

static int pack_userdata(struct packer *self, int index, int depth)
{
    lua_State *L = self->L;
    if (is_uint64(L, index))
        return pack_uint64(self, index);
    if (lua_getmetatable(L, index)) {
        if (gr_lua_ext_push_by_metatable(L))
            return pack_registered(self, index);
        lua_pop(L, 1);
    }
    return prepare(self, index, depth);
}

/* index is absolute; depth is the number of containers around the value. On an error the stack is
 * left as it is, for the caller at the top to clean up. */
static int pack_value(struct packer *self, int index, int depth)
{
    lua_State *L = self->L;
    int type = lua_type(L, index);
    switch (type) {
    case LUA_TNIL:
        return msgpack_pack_nil(&self->mp);
    case LUA_TBOOLEAN:
        return pack_boolean(self, index);
    case LUA_TNUMBER:
        return pack_number(self, index);
    case LUA_TSTRING:
        return pack_string(self, index, GR_LUA_PLAIN);
    case LUA_TTABLE:
        return pack_table(self, index, depth);
    case LUA_TLIGHTUSERDATA:
        if (lua_touserdata(L, index) == NULL)
            return msgpack_pack_nil(&self->mp);
        break;
    case LUA_TUSERDATA:
        return pack_userdata(self, index, depth);
    }
    return prepare(self, index, depth);
}

/* Puts out and the stack back as they were and says why. */
static int give_up(struct packer *self, int rc, size_t len, int top, gr_pack_error *error)
{
    self->out->len = len;
    lua_settop(self->L, top);
    if (self->rc < 0) {
        snprintf(error->text, sizeof(error->text), "%s",
                 rc == GR_ENOMEM ? gr_err_text(rc) : "the value takes more than 1 GiB when packed");
        return rc;
    }
    char place[GR_LUA_PLACE];
    gr_lua_path_print(&self->path, place);
    snprintf(error->text, sizeof(error->text), "a %s%s %s", self->subject, place, self->problem);
    return rc;
}

int gr_lua_pack(lua_State *L, int index, gr_buf *out, gr_pack_error *error)
{
    struct packer self;
    start(&self, L, out);
    size_t len = out->len;
    int top = lua_gettop(L);
    int rc = lua_checkstack(L, STACK_PER_LEVEL)
                 ? pack_value(&self, lua_absindex(L, index), 0)
                 : fail(&self, GR_ENOMEM, "value", "needs more stack than there is");
    return rc < 0 ? give_up(&self, rc, len, top, error) : 0;
}

static int pack_kwargs(struct packer *self, int index)
{
    lua_State *L = self->L;
    snprintf(self->path.root, sizeof(self->path.root), "kwargs");
    lua_pushnil(L);
    while (lua_next(L, index)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING)
            return fail(self, GR_EINVAL, "gaterpc.kwargs", "has a key that is not a string");
    }
    return pack_value(self, index, 0);
}

static int pack_array_of_args(struct packer *self, int first, int last)
{
    int n = last - first + 1;
    if (n > GR_LUA_MAX_ARGS)
        return fail(self, GR_EEXHAUSTED, "call", "has more than 250 arguments");
    int rc = msgpack_pack_array(&self->mp, (size_t)n);
    for (int i = first; i <= last && rc == 0; i++) {
        rc = pack_value(self, i, 1);
        if (rc < 0)
            snprintf(self->path.root, sizeof(self->path.root), "argument %d", i - first + 1);
    }
    return rc;
}

int gr_lua_pack_args(lua_State *L, int first, int last, gr_buf *out, uint32_t *split,
                     gr_pack_error *error)
{
    struct packer self;
    start(&self, L, out);
    size_t len = out->len;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, STACK_PER_LEVEL))
        return give_up(&self, fail(&self, GR_ENOMEM, "call", "needs more stack than there is"), len,
                       top, error);
    bool has_kwargs =
        last >= first && lua_istable(L, last) && gr_lua_kind(L, last) == GR_LUA_KWARGS;
    int rc = pack_array_of_args(&self, first, has_kwargs ? last - 1 : last);
    size_t array_len = out->len - len;
    if (rc == 0 && has_kwargs)
        rc = pack_kwargs(&self, last);
    if (rc < 0)
        return give_up(&self, rc, len, top, error);
    *split = (uint32_t)array_len;
    return 0;
}
