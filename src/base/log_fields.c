#include "base/log_fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/mp.h"

enum {
    HEADER = 5,               /* of a map or array: the tag and 32 bits */
    ROOM = GR_LOG_FIELDS - 5, /* the field "..." = true always has a place */
};

bool gr_log_is_secret(const char *name, size_t len)
{
#define SECRET(name)                                                                               \
    {                                                                                              \
        name, sizeof(name) - 1, name[sizeof(name) - 2]                                             \
    }
    static const struct {
        const char *name;
        size_t len;
        char last; /* most names differ here */
    } secrets[] = {
        SECRET("password"),    SECRET("passwd"),     SECRET("secret"),          SECRET("token"),
        SECRET("credentials"), SECRET("secret_key"), SECRET("zap_credentials"),
    };
#undef SECRET
    for (size_t i = 0; i < sizeof(secrets) / sizeof(secrets[0]); i++) {
        size_t n = secrets[i].len;
        if (len < n || (name[len - 1] | 0x20) != secrets[i].last ||
            strncasecmp(name + len - n, secrets[i].name, n) != 0)
            continue;
        if (len == n || strchr("_-.", name[len - n - 1]) != NULL)
            return true;
    }
    return false;
}

/* --- packing ----------------------------------------------------------------------------- */

/* Appends a tag and a number of n bytes, big end first, when `more` bytes fit behind them. */
static bool put_tagged(gr_log_fields *self, uint8_t tag, uint64_t value, size_t n, size_t more)
{
    if (self->len + 1 + n + more > ROOM)
        return false;
    uint8_t *at = self->bytes + self->len;
    *at++ = tag;
    for (size_t i = n; i > 0; i--)
        *at++ = (uint8_t)(value >> (8 * (i - 1)));
    self->len += 1 + n;
    return true;
}

static void put_bytes(gr_log_fields *self, const void *data, size_t len)
{
    if (len > 0)
        memcpy(self->bytes + self->len, data, len);
    self->len += len;
}

bool gr_log_put_string(gr_log_fields *self, const char *text, size_t len)
{
    static const char cut[] = "...";
    size_t kept = len;
    if (kept > GR_LOG_FIELD_STRING) {
        kept = GR_LOG_FIELD_STRING;
        while (kept > GR_LOG_FIELD_STRING - 4 && ((uint8_t)text[kept] & 0xc0) == 0x80)
            kept--; /* not within a character */
    }
    size_t total = kept + (kept < len ? 3 : 0);
    if (!put_tagged(self, 0xdb, total, 4, total))
        return false;
    put_bytes(self, text, kept);
    put_bytes(self, cut, total - kept);
    return true;
}

bool gr_log_put_integer(gr_log_fields *self, int64_t value)
{
    return put_tagged(self, 0xd3, (uint64_t)value, 8, 0);
}

/* The shortest digits that give the same number again; a comma of the locale becomes a point. */
static size_t float_text(char *out, size_t size, double value)
{
    for (int precision = 15;; precision += 2) {
        snprintf(out, size, "%.*g", precision, value);
        if (precision == 17 || strtod(out, NULL) == value)
            break;
    }
    size_t len = strlen(out);
    for (size_t i = 0; i < len; i++)
        if (strchr("0123456789+-e", out[i]) == NULL)
            out[i] = '.';
    if (strpbrk(out, ".e") == NULL) { /* 3.0 is not 3 */
        memcpy(out + len, ".0", 3);
        len += 2;
    }
    return len;
}

bool gr_log_put_float(gr_log_fields *self, double value)
{
    char text[40];
    if (isnan(value))
        return gr_log_put_string(self, "nan", 3); /* JSON has no numbers for these */
    if (isinf(value))
        return value > 0 ? gr_log_put_string(self, "inf", 3) : gr_log_put_string(self, "-inf", 4);
    size_t len = float_text(text, sizeof(text), value);
    if (!put_tagged(self, 0xc7, len << 8 | GR_LOG_EXT_FLOAT, 2, len))
        return false;
    put_bytes(self, text, len);
    return true;
}

bool gr_log_put_bool(gr_log_fields *self, bool value)
{
    return put_tagged(self, value ? 0xc3 : 0xc2, 0, 0, 0);
}

bool gr_log_put_nil(gr_log_fields *self)
{
    return put_tagged(self, 0xc0, 0, 0, 0);
}

bool gr_log_put_array(gr_log_fields *self, size_t *mark)
{
    *mark = self->len;
    return put_tagged(self, 0xdd, 0, 4, 0);
}

bool gr_log_put_map(gr_log_fields *self, size_t *mark)
{
    *mark = self->len;
    return put_tagged(self, 0xdf, 0, 4, 0);
}

void gr_log_end_container(gr_log_fields *self, size_t mark, uint32_t count)
{
    for (int i = 0; i < 4; i++)
        self->bytes[mark + 1 + (size_t)i] = (uint8_t)(count >> (24 - 8 * i));
}

/* --- fields ------------------------------------------------------------------------------ */

static void set_count(gr_log_fields *self, uint32_t count)
{
    self->count = count;
    gr_log_end_container(self, 0, count);
}

void gr_log_cut_fields(gr_log_fields *self)
{
    static const uint8_t mark[] = {0xa3, '.', '.', '.', 0xc3}; /* "..." = true */
    size_t start;
    if (self->cut)
        return;
    if (self->len == 0)
        gr_log_put_map(self, &start);
    self->cut = true;
    put_bytes(self, mark, sizeof(mark));
    set_count(self, self->count + 1);
}

bool gr_log_put_name(gr_log_fields *self, const char *name, size_t len)
{
    size_t start;
    if (self->cut)
        return false;
    if (self->len == 0)
        gr_log_put_map(self, &start);
    if (self->count == GR_LOG_FIELD_COUNT || !gr_log_put_string(self, name, len)) {
        gr_log_cut_fields(self);
        return false;
    }
    set_count(self, self->count + 1);
    return true;
}

void gr_log_drop_field(gr_log_fields *self, size_t before)
{
    self->len = before > 0 ? before : HEADER;
    set_count(self, self->count - 1);
    gr_log_cut_fields(self);
}

/* Puts the name, and "***" when it is a secret one. True when a value has to follow. */
static bool put_open_name(gr_log_fields *self, const char *name)
{
    size_t before = self->len, len = strlen(name);
    if (!gr_log_put_name(self, name, len))
        return false;
    if (!gr_log_is_secret(name, len))
        return true;
    if (!gr_log_put_string(self, "***", 3))
        gr_log_drop_field(self, before);
    return false;
}

void gr_log_add_string(gr_log_fields *self, const char *name, const char *text, size_t len)
{
    size_t before = self->len;
    if (put_open_name(self, name) && !gr_log_put_string(self, text, len))
        gr_log_drop_field(self, before);
}

void gr_log_add_integer(gr_log_fields *self, const char *name, int64_t value)
{
    size_t before = self->len;
    if (put_open_name(self, name) && !gr_log_put_integer(self, value))
        gr_log_drop_field(self, before);
}

void gr_log_add_float(gr_log_fields *self, const char *name, double value)
{
    size_t before = self->len;
    if (put_open_name(self, name) && !gr_log_put_float(self, value))
        gr_log_drop_field(self, before);
}

void gr_log_add_bool(gr_log_fields *self, const char *name, bool value)
{
    size_t before = self->len;
    if (put_open_name(self, name) && !gr_log_put_bool(self, value))
        gr_log_drop_field(self, before);
}

/* --- from elsewhere ---------------------------------------------------------------------- */

static bool copy_value(gr_log_fields *self, gr_mp_reader *reader, int depth);

/* Its digits are taken for a number again: nothing else gets into a line. */
static bool copy_float(gr_log_fields *self, gr_slice text)
{
    char digits[40], *end;
    if (text.len == 0 || text.len >= sizeof(digits))
        return false;
    memcpy(digits, text.data, text.len);
    digits[text.len] = '\0';
    double value = strtod(digits, &end);
    return *end == '\0' && gr_log_put_float(self, value);
}

static bool copy_elements(gr_log_fields *self, gr_mp_reader *reader, const gr_mp_token *container,
                          int depth)
{
    bool is_map = container->type == GR_MP_MAP;
    gr_mp_token key;
    size_t mark;
    if (depth >= GR_LOG_FIELD_DEPTH || container->as.count > GR_LOG_FIELD_COUNT + 1)
        return false;
    if (!(is_map ? gr_log_put_map(self, &mark) : gr_log_put_array(self, &mark)))
        return false;
    for (uint32_t i = 0; i < container->as.count; i++) {
        bool hidden = false;
        if (is_map) {
            if (gr_mp_next(reader, &key) < 0 || key.type != GR_MP_STR)
                return false;
            const char *name = (const char *)key.as.bytes.data;
            hidden = gr_log_is_secret(name, key.as.bytes.len);
            if (!gr_log_put_string(self, name, key.as.bytes.len))
                return false;
        }
        if (hidden ? gr_mp_skip(reader) < 0 || !gr_log_put_string(self, "***", 3)
                   : !copy_value(self, reader, depth + 1))
            return false;
    }
    gr_log_end_container(self, mark, container->as.count);
    return true;
}

static bool copy_value(gr_log_fields *self, gr_mp_reader *reader, int depth)
{
    gr_mp_token token;
    if (gr_mp_next(reader, &token) < 0)
        return false;
    switch (token.type) {
    case GR_MP_STR:
        return gr_log_put_string(self, (const char *)token.as.bytes.data, token.as.bytes.len);
    case GR_MP_INT:
        return gr_log_put_integer(self, token.as.i);
    case GR_MP_EXT:
        return token.ext == GR_LOG_EXT_FLOAT && copy_float(self, token.as.bytes);
    case GR_MP_BOOL:
        return gr_log_put_bool(self, token.as.b);
    case GR_MP_NIL:
        return gr_log_put_nil(self);
    case GR_MP_ARRAY:
    case GR_MP_MAP:
        return copy_elements(self, reader, &token, depth);
    default:
        return false;
    }
}

void gr_log_add_packed(gr_log_fields *self, gr_slice packed)
{
    gr_mp_reader reader = gr_mp_read(packed);
    gr_mp_token map, key;
    if (packed.len == 0)
        return;
    if (gr_mp_next(&reader, &map) < 0 || map.type != GR_MP_MAP) {
        gr_log_cut_fields(self);
        return;
    }
    for (uint32_t i = 0; i < map.as.count; i++) {
        size_t before = self->len;
        if (gr_mp_next(&reader, &key) < 0 || key.type != GR_MP_STR) {
            gr_log_cut_fields(self);
            return;
        }
        const char *name = (const char *)key.as.bytes.data;
        if (!gr_log_put_name(self, name, key.as.bytes.len))
            return;
        bool hidden = gr_log_is_secret(name, key.as.bytes.len);
        if (hidden ? gr_mp_skip(&reader) < 0 || !gr_log_put_string(self, "***", 3)
                   : !copy_value(self, &reader, 0)) {
            gr_log_drop_field(self, before);
            return;
        }
    }
}
