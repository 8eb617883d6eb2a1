/* bind_codec.c - compression for Lua: core.encoder{...}, core.decoder{...}, core.digest().
 *
 * The pool's thread reads the Lua strings themselves: the box keeps them until they are used, and
 * the registry keeps the box while the pool has it. */
#include <time.h>

#include "base/err.h"
#include "bind/bind.h"
#include "host/state.h"
#include "net/coder.h"

#define CODER  "gaterpc.core.coder"
#define DIGEST "gaterpc.core.digest"

enum {
    INPUTS = 2,            /* the user value with the strings that are still to be read */
    AHEAD_BYTES = 1 << 20, /* what may be ready before it is taken */
};

struct box {
    gr_coder *coder;
    gr_state *state;
    const gr_codec *codec;
    uint64_t kept, freed; /* strings that came and went */
    int anchor;           /* the reference that keeps the box, or LUA_NOREF */
    bool encodes;
    bool closing;
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, CODER);
}

static struct box *check_open(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->coder == NULL || box->closing)
        luaL_error(L, "it is closed");
    return box;
}

static struct box *check_settled(lua_State *L)
{
    struct box *box = check_open(L);
    if (gr_coder_status(box->coder) == GR_MORE)
        luaL_error(L, "there is more to take");
    return box;
}

/* --- what the pool needs ---------------------------------------------------------------------- */

/* Lets go of the strings that have been read. The box is at `index`. */
static void free_inputs(lua_State *L, int index, struct box *box)
{
    uint64_t used = gr_coder_used(box->coder);
    if (used == box->freed)
        return;
    lua_getiuservalue(L, index, INPUTS);
    for (; box->freed < used; box->freed++) {
        lua_pushnil(L);
        lua_rawseti(L, -2, (lua_Integer)box->freed + 1);
    }
    lua_pop(L, 1);
}

/* When there is no memory for the reference, the box may be collected: then __gc waits. */
static void anchor(lua_State *L, struct box *box)
{
    if (box->anchor != LUA_NOREF || !gr_coder_is_busy(box->coder))
        return;
    lua_pushvalue(L, 1);
    box->anchor = luaL_ref(L, LUA_REGISTRYINDEX);
}

static void on_idle(void *arg)
{
    struct box *box = arg;
    lua_State *L = box->state->L;
    if (lua_checkstack(L, 4)) {
        if (lua_rawgeti(L, LUA_REGISTRYINDEX, box->anchor) == LUA_TUSERDATA)
            free_inputs(L, lua_gettop(L), box);
        lua_pop(L, 1);
    }
    int reference = box->anchor;
    box->anchor = LUA_NOREF;
    if (box->closing)
        gr_coder_destroy(&box->coder);
    luaL_unref(L, LUA_REGISTRYINDEX, reference);
}

static void on_ready(void *arg)
{
    struct box *box = arg;
    gr_loop_enter(box->state->loop);
    gr_state_tell_owner(box->state, "work", box);
}

/* --- making one ----------------------------------------------------------------------------- */

static const gr_codec *check_codec(lua_State *L, int index)
{
    const char *name = luaL_checkstring(L, index);
    const gr_codec *codec = gr_codec_find(name);
    if (codec == NULL)
        luaL_argerror(L, index, "no such codec");
    return codec;
}

static bool opt_flag(lua_State *L, int index, const char *name)
{
    lua_getfield(L, index, name);
    bool on = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return on;
}

/* (codec, options, owner): the box is pushed. */
static struct box *push_box(lua_State *L, const gr_codec *codec, bool encodes)
{
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 2);
    *box = (struct box){
        .state = gr_state_of(L), .codec = codec, .encodes = encodes, .anchor = LUA_NOREF};
    luaL_setmetatable(L, CODER);
    gr_bind_remember(L, box, 3);
    lua_newtable(L);
    lua_setiuservalue(L, -2, INPUTS);
    return box;
}

static int open_box(lua_State *L, struct box *box, gr_coder_options *options)
{
    options->loop = gr_loop_uv(box->state->loop);
    options->ahead_bytes = AHEAD_BYTES;
    options->ready = on_ready;
    options->idle = on_idle;
    options->arg = box;
    int rc = gr_coder_new(&box->coder, options);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int f_encoder(lua_State *L)
/* core.encoder(codec, options, owner) -> coder | nil, code, text */
{
    const gr_codec *codec = check_codec(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    gr_encoder_options encoder = {
        .codec = codec,
        .level = (int)gr_bind_opt_integer(L, 2, "level", codec->level_default),
        .piece_bytes = (uint32_t)gr_bind_opt_integer(L, 2, "piece_bytes", 0),
        .whole = opt_flag(L, 2, "whole"),
        .digest = opt_flag(L, 2, "digest"),
        .mtime_s = (uint32_t)gr_bind_opt_integer(L, 2, "mtime", (lua_Integer)(uint32_t)time(NULL)),
    };
    gr_coder_options options = {.encoder = &encoder};
    lua_settop(L, 3);
    return open_box(L, push_box(L, codec, true), &options);
}

static int f_decoder(lua_State *L)
/* core.decoder(codec, options, owner) -> coder | nil, code, text */
{
    const gr_codec *codec = check_codec(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_getfield(L, 2, "max_bytes");
    lua_Integer max_bytes = luaL_optinteger(L, -1, 0);
    luaL_argcheck(L, max_bytes >= 0, 2, "max_bytes is negative");
    gr_decoder_options decoder = {
        .codec = codec,
        .max_bytes = (uint64_t)max_bytes,
        .window_bytes = (size_t)gr_bind_opt_integer(L, 2, "window_bytes", 0),
        .digest = opt_flag(L, 2, "digest"),
    };
    gr_coder_options options = {
        .decoder = &decoder,
        .piece_bytes = (size_t)gr_bind_opt_integer(L, 2, "max_length", GR_PIECE_BYTES),
    };
    luaL_argcheck(L, options.piece_bytes > 0, 2, "max_length is 0");
    lua_settop(L, 3);
    return open_box(L, push_box(L, codec, false), &options);
}

/* --- in and out ------------------------------------------------------------------------------ */

static int fail(lua_State *L, const struct box *box, int rc)
{
    const char *why = gr_coder_why(box->coder);
    const char *text = why != NULL ? why : gr_err_text(rc);
    return gr_bind_fail(L, rc, lua_pushfstring(L, "%s: %s", box->codec->name, text));
}

static int m_put(lua_State *L)
/* coder:put("write" | "sync" | "finish", data) -> true | nil, code, text; a decoder only writes */
{
    static const char *const ops[] = {"write", "sync", "finish", NULL};
    struct box *box = check_open(L);
    enum gr_op op = (enum gr_op)luaL_checkoption(L, 2, NULL, ops);
    gr_slice in = gr_bind_check_slice(L, 3);
    luaL_argcheck(L, box->encodes || op == GR_OP_WRITE, 2, "a decoder only writes");
    bool kept;
    lua_getiuservalue(L, 1, INPUTS);
    lua_pushvalue(L, 3);
    lua_rawseti(L, -2, (lua_Integer)box->kept + 1); /* before the pool has it */
    int rc = gr_coder_put(box->coder, op, in, &kept);
    if (kept)
        box->kept++;
    anchor(L, box);
    if (rc < 0)
        return fail(L, box, rc);
    lua_pushboolean(L, 1);
    return 1;
}

/* The pieces that are ready; not for ever, should the pool be faster than we are. */
static int push_pieces(lua_State *L, struct box *box)
{
    gr_slice piece;
    size_t len = 0;
    lua_newtable(L);
    for (lua_Integer i = 1; len < AHEAD_BYTES && gr_coder_peek(box->coder, &piece); i++) {
        len += piece.len;
        lua_pushlstring(L, (const char *)piece.data, piece.len);
        lua_rawseti(L, -2, i);
        gr_coder_pop(box->coder);
    }
    return 1;
}

static int push_bytes(lua_State *L, struct box *box, gr_slice bytes)
{
    lua_pushlstring(L, (const char *)bytes.data, bytes.len);
    gr_coder_pop(box->coder);
    return 1;
}

static int m_take(lua_State *L)
/* coder:take() -> list of pieces (an encoder) or bytes (a decoder) | false: "work" follows | nil:
 * everything is taken | nil, code, text */
{
    struct box *box = check_open(L);
    gr_slice piece;
    while (!gr_coder_peek(box->coder, &piece)) {
        if (gr_coder_wait(box->coder)) {
            lua_pushboolean(L, 0);
            return 1;
        }
        int rc = gr_coder_status(box->coder);
        if (rc < 0)
            return fail(L, box, rc);
        if (rc == 0) {
            free_inputs(L, 1, box);
            lua_pushnil(L);
            return 1;
        }
    }
    int count = box->encodes ? push_pieces(L, box) : push_bytes(L, box, piece);
    free_inputs(L, 1, box);
    anchor(L, box);
    return count;
}

static int m_pending(lua_State *L) /* coder:pending() -> boolean: take() will not give nil */
{
    lua_pushboolean(L, gr_coder_status(check_open(L)->coder) != 0);
    return 1;
}

static int
m_queued(lua_State *L) /* coder:queued() -> bytes that were put in and are not used yet */
{
    lua_pushinteger(L, (lua_Integer)gr_coder_queued(check_open(L)->coder));
    return 1;
}

static struct box *check_decoder(lua_State *L)
{
    struct box *box = check_settled(L);
    luaL_argcheck(L, !box->encodes, 1, "not a decoder");
    return box;
}

static int m_finish(lua_State *L) /* coder:finish() -> true | nil, code, text: of a decoder */
{
    struct box *box = check_decoder(L);
    int rc = gr_coder_finish(box->coder);
    if (rc < 0)
        return fail(L, box, rc);
    lua_pushboolean(L, 1);
    return 1;
}

static int m_ended(lua_State *L) /* coder:ended() -> boolean: of a decoder */
{
    lua_pushboolean(L, gr_coder_ended(check_decoder(L)->coder));
    return 1;
}

static int push_digest(lua_State *L, const gr_digest *digest)
{
    uint8_t bytes[GR_DIGEST_LEN];
    gr_digest_get(digest, bytes);
    lua_pushlstring(L, (const char *)bytes, sizeof(bytes));
    return 1;
}

static int m_digest(lua_State *L) /* coder:digest() -> 16 bytes | nil */
{
    const gr_digest *digest = gr_coder_digest(check_settled(L)->coder);
    if (digest != NULL)
        return push_digest(L, digest);
    lua_pushnil(L);
    return 1;
}

/* Closing twice is fine: also __close. What the pool has is given up, and freed when it lets go. */
static int m_close(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->coder != NULL && gr_coder_is_busy(box->coder)) {
        box->closing = true;
        gr_coder_give_up(box->coder);
        return 0;
    }
    gr_coder_destroy(&box->coder);
    return 0;
}

/* The pool has it only when the state is being closed, because it is anchored. */
static int m_gc(lua_State *L)
{
    gr_coder_destroy(&check_box(L)->coder);
    return 0;
}

/* --- digests and the list ------------------------------------------------------------------- */

static gr_digest **check_digest(lua_State *L)
{
    gr_digest **box = luaL_checkudata(L, 1, DIGEST);
    if (*box == NULL)
        luaL_error(L, "it is closed");
    return box;
}

static int f_digest(lua_State *L) /* core.digest() -> digest | nil, code, text */
{
    gr_digest **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    luaL_setmetatable(L, DIGEST);
    int rc = gr_digest_new(box);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int d_add(lua_State *L) /* digest:add(bytes) */
{
    gr_digest *digest = *check_digest(L);
    gr_digest_add(digest, gr_bind_check_slice(L, 2));
    return 0;
}

static int d_value(lua_State *L) /* digest:value() -> 16 bytes */
{
    return push_digest(L, *check_digest(L));
}

static int d_close(lua_State *L)
{
    gr_digest_destroy(luaL_checkudata(L, 1, DIGEST));
    return 0;
}

static void set_integer(lua_State *L, const char *name, lua_Integer value)
{
    lua_pushinteger(L, value);
    lua_setfield(L, -2, name);
}

static int f_codecs(lua_State *L) /* core.codecs() -> list of { name, level_min, ... } */
{
    const gr_codec *const *codecs = gr_codec_list();
    lua_newtable(L);
    for (int i = 0; codecs[i] != NULL; i++) {
        lua_createtable(L, 0, 6);
        lua_pushstring(L, codecs[i]->name);
        lua_setfield(L, -2, "name");
        set_integer(L, "level_min", codecs[i]->level_min);
        set_integer(L, "level_max", codecs[i]->level_max);
        set_integer(L, "level_default", codecs[i]->level_default);
        set_integer(L, "window_bytes", (lua_Integer)codecs[i]->window_bytes);
        lua_pushboolean(L, codecs[i]->syncs);
        lua_setfield(L, -2, "syncs");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

void gr_bind_codec(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"encoder", f_encoder}, {"decoder", f_decoder}, {"digest", f_digest},
        {"codecs", f_codecs},   {NULL, NULL},
    };
    static const luaL_Reg methods[] = {
        {"put", m_put},       {"take", m_take},     {"pending", m_pending},
        {"queued", m_queued}, {"finish", m_finish}, {"ended", m_ended},
        {"digest", m_digest}, {"close", m_close},   {NULL, NULL},
    };
    static const luaL_Reg digest_methods[] = {{"add", d_add}, {"value", d_value}, {NULL, NULL}};
    gr_bind_class(L, CODER, methods, m_close);
    luaL_getmetatable(L, CODER);
    lua_pushcfunction(L, m_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    gr_bind_class(L, DIGEST, digest_methods, d_close);
    luaL_setfuncs(L, functions, 0);
}
