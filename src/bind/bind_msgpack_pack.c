#include "bind/bind_msgpack.h"

#include <msgpack/pack.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/mp.h"

enum {
    STACK_PER_LEVEL = 8,
    PATH = 56, /* of a place such as .user["full name"][3]; longer ones lose their front */
    KEY = 28,  /* of one string key in there */
};

struct packer {
    msgpack_packer mp;
    lua_State *L;
    gr_buf *out;
    size_t limit; /* of out's length */
    int rc;       /* the first error of append(), which then only fails */
    /* What goes into the error text. The path grows from back to front on the way out. */
    bool is_path_full;
    size_t path_at;
    const char *subject;
    char root[24]; /* "argument 3", "kwargs" or nothing */
    char problem[128];
    char path[PATH + 1];
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
    self->is_path_full = false;
    self->path_at = PATH;
    self->path[PATH] = '\0';
    self->root[0] = '\0';
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

static void prepend(struct packer *self, const char *text, size_t len)
{
    if (self->is_path_full)
        return;
    if (self->path_at < len + 3) {
        text = "...";
        len = 3;
        self->is_path_full = true;
    }
    self->path_at -= len;
    memcpy(self->path + self->path_at, text, len);
}

static bool is_name(const char *text, size_t len)
{
    static const char tail[] = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    return len > 0 && len <= KEY && (text[0] < '0' || text[0] > '9') && strspn(text, tail) == len;
}

static void prepend_string_key(struct packer *self, int key)
{
    char out[KEY + 8];
    size_t len;
    const char *text = lua_tolstring(self->L, key, &len);
    bool is_cut = len > KEY;
    if (is_name(text, len)) {
        int n = snprintf(out, sizeof(out), ".%s", text);
        prepend(self, out, (size_t)n);
        return;
    }
    bool is_text = !is_cut && gr_mp_is_utf8((const uint8_t *)text, len);
    char shown[KEY];
    size_t shown_len = is_cut ? KEY : len;
    for (size_t i = 0; i < shown_len; i++) {
        uint8_t byte = (uint8_t)text[i];
        bool is_plain = byte >= 0x80 ? is_text : byte >= 0x20 && byte != 0x7f;
        shown[i] = is_plain ? text[i] : '?';
    }
    int n = snprintf(out, sizeof(out), "[\"%.*s%s\"]", (int)shown_len, shown, is_cut ? "..." : "");
    prepend(self, out, (size_t)n);
}

/* For the error text: what failed was in the container's field with the key at this index. */
static void prepend_key(struct packer *self, int key)
{
    char out[48] = "[?]";
    switch (lua_type(self->L, key)) {
    case LUA_TSTRING:
        prepend_string_key(self, key);
        return;
    case LUA_TBOOLEAN:
        snprintf(out, sizeof(out), "[%s]", lua_toboolean(self->L, key) ? "true" : "false");
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(self->L, key))
            snprintf(out, sizeof(out), "[%lld]", (long long)lua_tointeger(self->L, key));
        else
            snprintf(out, sizeof(out), "[%.14g]", lua_tonumber(self->L, key));
        break;
    }
    prepend(self, out, strlen(out));
}

static void prepend_index(struct packer *self, lua_Integer i)
{
    char out[24];
    int n = snprintf(out, sizeof(out), "[%lld]", (long long)i);
    prepend(self, out, (size_t)n);
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
            prepend_index(self, i);
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

static int pack_map(struct packer *self, int index, lua_Integer count, int depth)
{
    lua_State *L = self->L;
    if (count > GR_MP_MAX_ELEMENTS)
        return too_many(self);
    int rc = msgpack_pack_map(&self->mp, (size_t)count);
    int key = lua_gettop(L) + 1;
    lua_pushnil(L);
    while (rc == 0 && lua_next(L, index)) {
        rc = pack_key(self, key);
        if (rc < 0)
            break;
        rc = pack_value(self, key + 1, depth);
        if (rc < 0)
            prepend_key(self, key);
        else
            lua_pop(L, 1);
    }
    return rc;
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
    return fail_holes(self, index);
}

static int pack_table(struct packer *self, int index, int depth)
{
    if (!lua_checkstack(self->L, STACK_PER_LEVEL))
        return fail(self, GR_ENOMEM, "table", "needs more stack than there is");
    enum gr_lua_kind kind = gr_lua_kind(self->L, index);
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
        if (is_uint64(L, index))
            return pack_uint64(self, index);
        break;
    }
    return fail(self, GR_EINVAL, lua_typename(L, type), "cannot be packed");
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
    const char *path = self->path + self->path_at;
    const char *at = self->root[0] != '\0' || path[0] != '\0' ? " at " : "";
    snprintf(error->text, sizeof(error->text), "a %s%s%s%s %s", self->subject, at, self->root, path,
             self->problem);
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
    snprintf(self->root, sizeof(self->root), "kwargs");
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
            snprintf(self->root, sizeof(self->root), "argument %d", i - first + 1);
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
