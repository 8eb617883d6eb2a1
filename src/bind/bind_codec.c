/* bind_codec.c - compression for Lua: core.encoder{...}, core.decoder{...}, core.digest().
 *
 * While an operation is under way the registry holds the box, and with it the input, because the
 * pool's thread reads the Lua string itself. */
#include <time.h>

#include "base/err.h"
#include "bind/bind.h"
#include "host/state.h"
#include "net/coder.h"

#define CODER  "gaterpc.core.coder"
#define DIGEST "gaterpc.core.digest"

enum { OWNER = 1, INPUT = 2 }; /* user values */

struct box {
    gr_coder *coder;
    gr_state *state;
    const gr_codec *codec;
    int anchor; /* reference to the box itself while an operation is under way, else LUA_NOREF */
    bool encodes;
    bool closing;
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, CODER);
}

static struct box *check_idle(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->coder == NULL || box->closing)
        luaL_error(L, "it is closed");
    if (gr_coder_is_busy(box->coder))
        luaL_error(L, "an operation is under way");
    return box;
}

/* --- an operation has ended ----------------------------------------------------------------- */

static void tell_owner(struct box *box)
{
    gr_state *state = box->state;
    if (!gr_state_push_dispatcher(state))
        return;
    lua_pushliteral(state->L, "work");
    if (gr_bind_push_owner(state->L, box))
        gr_state_call(state->L, 2, 0);
    else
        lua_pop(state->L, 2);
}

static void on_done(void *arg)
{
    struct box *box = arg;
    int anchor = box->anchor;
    gr_loop_enter(box->state->loop);
    box->anchor = LUA_NOREF;
    if (box->closing)
        gr_coder_destroy(&box->coder);
    else
        tell_owner(box);
    luaL_unref(box->state->L, LUA_REGISTRYINDEX, anchor);
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
static struct box *push_box(lua_State *L, const gr_codec *codec)
{
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 2);
    *box = (struct box){.state = gr_state_of(L), .codec = codec, .anchor = LUA_NOREF};
    luaL_setmetatable(L, CODER);
    gr_bind_remember(L, box, 3);
    return box;
}

static int open_box(lua_State *L, struct box *box, const gr_encoder_options *encoder,
                    const gr_decoder_options *decoder)
{
    box->encodes = encoder != NULL;
    gr_coder_options options = {
        .loop = gr_loop_uv(box->state->loop),
        .encoder = encoder,
        .decoder = decoder,
        .done = on_done,
        .arg = box,
    };
    int rc = gr_coder_new(&box->coder, &options);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int
f_encoder(lua_State *L) /* core.encoder(codec, options, owner) -> coder | nil, code, text */
{
    const gr_codec *codec = check_codec(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    gr_encoder_options options = {
        .codec = codec,
        .level = (int)gr_bind_opt_integer(L, 2, "level", codec->level_default),
        .piece_bytes = (uint32_t)gr_bind_opt_integer(L, 2, "piece_bytes", 0),
        .whole = opt_flag(L, 2, "whole"),
        .digest = opt_flag(L, 2, "digest"),
        .mtime_s = (uint32_t)gr_bind_opt_integer(L, 2, "mtime", (lua_Integer)(uint32_t)time(NULL)),
    };
    lua_settop(L, 3);
    return open_box(L, push_box(L, codec), &options, NULL);
}

static int
f_decoder(lua_State *L) /* core.decoder(codec, options, owner) -> coder | nil, code, text */
{
    const gr_codec *codec = check_codec(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_getfield(L, 2, "max_bytes");
    lua_Integer max_bytes = luaL_optinteger(L, -1, 0);
    luaL_argcheck(L, max_bytes >= 0, 2, "max_bytes is negative");
    gr_decoder_options options = {
        .codec = codec,
        .max_bytes = (uint64_t)max_bytes,
        .window_bytes = (size_t)gr_bind_opt_integer(L, 2, "window_bytes", 0),
        .digest = opt_flag(L, 2, "digest"),
    };
    lua_settop(L, 3);
    return open_box(L, push_box(L, codec), NULL, &options);
}

/* --- operations ----------------------------------------------------------------------------- */

/* Keeps the box while the pool has its input. The reference is there before the operation is. */
static int anchored(lua_State *L, struct box *box, bool under_way, int anchor)
{
    if (under_way)
        box->anchor = anchor;
    else
        luaL_unref(L, LUA_REGISTRYINDEX, anchor);
    lua_pushboolean(L, under_way);
    return 1;
}

static int new_anchor(lua_State *L)
{
    lua_pushvalue(L, 1);
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static int m_start(lua_State *L)
/* coder:start("write" | "sync" | "finish", data, max_len) -> true: "work" follows; false: it is
 * done */
{
    static const char *const ops[] = {"write", "sync", "finish", NULL};
    struct box *box = check_idle(L);
    enum gr_op op = (enum gr_op)luaL_checkoption(L, 2, NULL, ops);
    gr_slice in = gr_bind_check_slice(L, 3);
    luaL_argcheck(L, box->encodes || op == GR_OP_WRITE, 2, "a decoder only writes");
    size_t max_len = (size_t)luaL_checkinteger(L, 4);
    luaL_argcheck(L, max_len > 0, 4, "must be positive");
    int anchor = new_anchor(L);
    lua_pushvalue(L, 3);
    lua_setiuservalue(L, 1, INPUT);
    return anchored(L, box, gr_coder_start(box->coder, op, in, max_len), anchor);
}

static int m_go_on(lua_State *L) /* coder:go_on(max_len): the rest of what has stopped early */
{
    struct box *box = check_idle(L);
    size_t max_len = (size_t)luaL_checkinteger(L, 2);
    luaL_argcheck(L, max_len > 0, 2, "must be positive");
    luaL_argcheck(L, gr_coder_outcome(box->coder) == GR_MORE, 1, "there is no rest");
    int anchor = new_anchor(L);
    return anchored(L, box, gr_coder_go_on(box->coder, max_len), anchor);
}

static int fail(lua_State *L, const struct box *box, int rc)
{
    const char *why = gr_coder_why(box->coder);
    const char *text = why != NULL ? why : gr_err_text(rc);
    return gr_bind_fail(L, rc, lua_pushfstring(L, "%s: %s", box->codec->name, text));
}

/* Lets go of the input when there is no rest of it. */
static int begin_result(lua_State *L, const struct box *box)
{
    int rc = gr_coder_outcome(box->coder);
    if (rc != GR_MORE) {
        lua_pushnil(L);
        lua_setiuservalue(L, 1, INPUT);
    }
    return rc;
}

static void push_pieces(lua_State *L, const gr_coder *coder)
{
    gr_slice piece;
    lua_newtable(L);
    for (size_t i = 0; gr_coder_piece(coder, i, &piece); i++) {
        lua_pushlstring(L, (const char *)piece.data, piece.len);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void push_bytes(lua_State *L, const gr_coder *coder)
{
    gr_slice bytes = {0};
    gr_coder_piece(coder, 0, &bytes);
    lua_pushlstring(L, (const char *)bytes.data, bytes.len);
}

static int m_result(lua_State *L)
/* coder:result() -> list of pieces (an encoder) or bytes (a decoder), more | nil, code, text */
{
    struct box *box = check_idle(L);
    int rc = begin_result(L, box);
    if (rc < 0)
        return fail(L, box, rc);
    if (box->encodes)
        push_pieces(L, box->coder);
    else
        push_bytes(L, box->coder);
    lua_pushboolean(L, rc == GR_MORE);
    return 2;
}

static struct box *check_decoder(lua_State *L)
{
    struct box *box = check_idle(L);
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
    const gr_digest *digest = gr_coder_digest(check_idle(L)->coder);
    if (digest != NULL)
        return push_digest(L, digest);
    lua_pushnil(L);
    return 1;
}

/* Closing twice is fine: also __close. What is under way is given up, and freed when it has ended.
 */
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

/* An operation is under way only when the state is being closed: the box is anchored. */
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
        {"start", m_start}, {"go_on", m_go_on},   {"result", m_result}, {"finish", m_finish},
        {"ended", m_ended}, {"digest", m_digest}, {"close", m_close},   {NULL, NULL},
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
