/* fuzz_unpack.c - msgpack to Lua and back: what could be unpacked can be packed, and then the bytes
 * no longer change. */
#include <lauxlib.h>
#include <lualib.h>

#include "base/mp.h"
#include "bind/bind_msgpack.h"
#include "fuzz.h"

/* Packs the value on the stack's top, whose memory is the caller's. */
static gr_buf pack(lua_State *L)
{
    gr_buf out = {0};
    gr_pack_error why;
    int top = lua_gettop(L);
    CHECK(gr_lua_pack(L, -1, &out, &why) == 0);
    CHECK(lua_gettop(L) == top);
    return out;
}

static void check_value(lua_State *L, gr_slice bytes)
{
    size_t used = 0;
    int rc = gr_lua_unpack(L, bytes, &used, NULL);
    CHECK(rc == 0 || rc == GR_EINVAL || rc == GR_EEXHAUSTED);
    CHECK(lua_gettop(L) == (rc == 0 ? 1 : 0));
    if (rc < 0)
        return;
    CHECK(used > 0 && used <= bytes.len);
    gr_mp_reader reader = gr_mp_read(bytes);
    CHECK(gr_mp_skip(&reader) == 0 && (size_t)(reader.at - bytes.data) == used);
    gr_buf once = pack(L);
    lua_settop(L, 0);
    CHECK(gr_lua_unpack(L, gr_buf_slice(&once), &used, NULL) == 0);
    CHECK(used == once.len);
    gr_buf twice = pack(L);
    CHECK(once.len == twice.len); /* the order of a map's keys may differ */
    gr_buf_clear(&once);
    gr_buf_clear(&twice);
    lua_settop(L, 0);
}

static void check_args(lua_State *L, gr_slice payload, uint32_t split)
{
    int n = gr_lua_unpack_args(L, payload, split, NULL);
    CHECK(n >= 0 || n == GR_EINVAL || n == GR_EEXHAUSTED);
    CHECK(lua_gettop(L) == (n >= 0 ? n : 0));
    if (n < 0)
        return;
    gr_buf out = {0};
    gr_pack_error why;
    uint32_t new_split = 0;
    int rc = gr_lua_pack_args(L, 1, n, &out, &new_split, &why);
    CHECK(rc == 0);
    CHECK(lua_gettop(L) == n && new_split <= out.len);
    lua_settop(L, 0);
    CHECK(gr_lua_unpack_args(L, gr_buf_slice(&out), new_split, NULL) == n);
    gr_buf_clear(&out);
    lua_settop(L, 0);
}

/* In a protected call, because a string or a table may not fit into memory. */
static int run(lua_State *L)
{
    const gr_slice *input = lua_touserdata(L, 1);
    struct input in = {input->data, input->len};
    lua_settop(L, 0);
    check_value(L, *input);
    uint32_t split = take_byte(&in);
    if (split == 255)
        split = (uint32_t)in.left + take_byte(&in) % 2;
    check_args(L, gr_slice_of(in.at, in.left), split);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gr_slice bytes = gr_slice_of(data, size);
    lua_State *L = luaL_newstate();
    CHECK(L != NULL);
    gr_lua_msgpack_setup(L);
    CHECK(lua_gettop(L) == 0);
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, &bytes);
    CHECK(lua_pcall(L, 1, 0, 0) == LUA_OK);
    CHECK(lua_gettop(L) == 0);
    lua_close(L);
    return 0;
}
