/* bind_curve.c - keys of CURVE for Lua: functions of gaterpc.core. Keys are in Z85, 40 characters.
 */
#include <string.h>
#include <zmq.h>

#include "base/err.h"
#include "bind/bind.h"
#include "bind/bind_curve.h"

enum { TEXT_SIZE = GR_BIND_KEY_LEN + 1 };

bool gr_bind_read_key(gr_slice text, uint8_t out[GR_CURVE_KEY_LEN])
{
    char copy[TEXT_SIZE] = {0};
    if (text.len != GR_BIND_KEY_LEN || memchr(text.data, 0, text.len) != NULL)
        return false;
    memcpy(copy, text.data, text.len);
    bool is_valid = zmq_z85_decode(out, copy) != NULL;
    explicit_bzero(copy, sizeof(copy));
    return is_valid;
}

static bool is_key(gr_slice text)
{
    uint8_t raw[GR_CURVE_KEY_LEN];
    bool is_valid = gr_bind_read_key(text, raw);
    explicit_bzero(raw, sizeof(raw));
    return is_valid;
}

static int f_is_key(lua_State *L) /* core.curve_is_key(string) -> boolean */
{
    lua_pushboolean(L, is_key(gr_bind_check_slice(L, 1)));
    return 1;
}

static int f_generate(lua_State *L) /* core.curve_generate() -> public, secret | nil, code, text */
{
    char public_key[TEXT_SIZE], secret_key[TEXT_SIZE];
    luaL_Buffer buffer; /* room for the secret before there is one: nothing can fail behind it */
    char *secret = luaL_buffinitsize(L, &buffer, GR_BIND_KEY_LEN);
    if (zmq_curve_keypair(public_key, secret_key) != 0)
        return gr_bind_fail(L, GR_ESYSTEM, "this libzmq knows no CURVE");
    memcpy(secret, secret_key, GR_BIND_KEY_LEN);
    explicit_bzero(secret_key, sizeof(secret_key));
    luaL_pushresultsize(&buffer, GR_BIND_KEY_LEN);
    lua_pushlstring(L, public_key, GR_BIND_KEY_LEN);
    lua_insert(L, -2);
    return 2;
}

static int f_public(lua_State *L) /* core.curve_public(secret) -> public | nil, code, text */
{
    char public_key[TEXT_SIZE];
    gr_slice secret = gr_bind_check_slice(L, 1);
    if (!is_key(secret))
        return gr_bind_fail(L, GR_EINVAL, "a key has 40 characters of Z85");
    if (zmq_curve_public(public_key, (const char *)secret.data) != 0)
        return gr_bind_fail(L, GR_ESYSTEM, "this libzmq knows no CURVE");
    lua_pushlstring(L, public_key, GR_BIND_KEY_LEN);
    return 1;
}

void gr_bind_curve(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"curve_generate", f_generate},
        {"curve_is_key", f_is_key},
        {"curve_public", f_public},
        {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
}
