#include <stdio.h>
#include <string.h>

#include "base/mp.h"
#include "bind/bind_msgpack_priv.h"

enum { KEY = 28 }; /* shown of one string key */

static void prepend(gr_lua_path *self, const char *text, size_t len)
{
    if (self->is_full)
        return;
    if (self->at < len + 3) {
        text = "...";
        len = 3;
        self->is_full = true;
    }
    self->at -= len;
    memcpy(self->text + self->at, text, len);
}

static bool is_name(const char *text, size_t len)
{
    static const char tail[] = "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    return len > 0 && len <= KEY && (text[0] < '0' || text[0] > '9') && strspn(text, tail) == len;
}

static void prepend_string_key(gr_lua_path *self, lua_State *L, int key)
{
    char out[KEY + 8];
    size_t len;
    const char *text = lua_tolstring(L, key, &len);
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

void gr_lua_path_add_key(gr_lua_path *self, lua_State *L, int key)
{
    char out[48] = "[?]";
    switch (lua_type(L, key)) {
    case LUA_TSTRING:
        prepend_string_key(self, L, key);
        return;
    case LUA_TBOOLEAN:
        snprintf(out, sizeof(out), "[%s]", lua_toboolean(L, key) ? "true" : "false");
        break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, key))
            snprintf(out, sizeof(out), "[%lld]", (long long)lua_tointeger(L, key));
        else
            snprintf(out, sizeof(out), "[%.14g]", lua_tonumber(L, key));
        break;
    }
    prepend(self, out, strlen(out));
}

void gr_lua_path_add_index(gr_lua_path *self, lua_Integer i)
{
    char out[24];
    int n = snprintf(out, sizeof(out), "[%lld]", (long long)i);
    prepend(self, out, (size_t)n);
}

void gr_lua_path_print(const gr_lua_path *self, char out[GR_LUA_PLACE])
{
    const char *path = self->text + self->at;
    const char *at = self->root[0] != '\0' || path[0] != '\0' ? " at " : "";
    snprintf(out, GR_LUA_PLACE, "%s%s%s", at, self->root, path);
}
