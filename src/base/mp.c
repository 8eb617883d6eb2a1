#include "base/mp.h"

#include <endian.h>

#include "base/err.h"

/* What follows the first bytes c0 to df, before any body: WIDTH bytes of a number or a length,
 * then one byte of an ext's type. */
struct head {
    int8_t width; /* -1: not msgpack */
    int8_t has_ext;
    int8_t type; /* enum gr_mp_type */
};

static const struct head heads[32] = {
    {0, 0, GR_MP_NIL},   {-1, 0, 0},          {0, 0, GR_MP_BOOL},  {0, 0, GR_MP_BOOL},
    {1, 0, GR_MP_BIN},   {2, 0, GR_MP_BIN},   {4, 0, GR_MP_BIN},   {1, 1, GR_MP_EXT},
    {2, 1, GR_MP_EXT},   {4, 1, GR_MP_EXT},   {4, 0, GR_MP_FLOAT}, {8, 0, GR_MP_FLOAT},
    {1, 0, GR_MP_UINT},  {2, 0, GR_MP_UINT},  {4, 0, GR_MP_UINT},  {8, 0, GR_MP_UINT},
    {1, 0, GR_MP_INT},   {2, 0, GR_MP_INT},   {4, 0, GR_MP_INT},   {8, 0, GR_MP_INT},
    {0, 1, GR_MP_EXT},   {0, 1, GR_MP_EXT},   {0, 1, GR_MP_EXT},   {0, 1, GR_MP_EXT},
    {0, 1, GR_MP_EXT},   {1, 0, GR_MP_STR},   {2, 0, GR_MP_STR},   {4, 0, GR_MP_STR},
    {2, 0, GR_MP_ARRAY}, {4, 0, GR_MP_ARRAY}, {2, 0, GR_MP_MAP},   {4, 0, GR_MP_MAP},
};

static uint64_t load(const uint8_t *at, int width)
{
    uint16_t two;
    uint32_t four;
    uint64_t eight;
    switch (width) {
    case 1:
        return at[0];
    case 2:
        memcpy(&two, at, sizeof(two));
        return be16toh(two);
    case 4:
        memcpy(&four, at, sizeof(four));
        return be32toh(four);
    case 8:
        memcpy(&eight, at, sizeof(eight));
        return be64toh(eight);
    default:
        return 0;
    }
}

static int64_t sign_extend(uint64_t bits, int width)
{
    switch (width) {
    case 1:
        return (int8_t)bits;
    case 2:
        return (int16_t)bits;
    case 4:
        return (int32_t)bits;
    default:
        return (int64_t)bits;
    }
}

static double real_of(uint64_t bits, int width)
{
    if (width == 8) {
        double d;
        memcpy(&d, &bits, sizeof(d));
        return d;
    }
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof(f));
    return f;
}

/* The body of a str, bin or ext, which starts at `at`. */
static int take_bytes(gr_mp_reader *self, const uint8_t *at, uint64_t len, gr_mp_token *out)
{
    if (len > GR_MP_MAX_BYTES)
        return GR_EEXHAUSTED;
    if (len > (size_t)(self->end - at))
        return GR_EINVAL;
    out->as.bytes = gr_slice_of(at, (size_t)len);
    self->at = at + len;
    return 0;
}

/* The head of an array or a map whose content starts at `at`. */
static int take_count(gr_mp_reader *self, const uint8_t *at, uint64_t count, gr_mp_token *out)
{
    if (count > GR_MP_MAX_ELEMENTS)
        return GR_EEXHAUSTED;
    uint64_t least = out->type == GR_MP_MAP ? count * 2 : count;
    if (least > (size_t)(self->end - at))
        return GR_EINVAL;
    out->as.count = (uint32_t)count;
    self->at = at;
    return 0;
}

static int next_fixed(gr_mp_reader *self, uint8_t first, gr_mp_token *token)
{
    const uint8_t *body = self->at + 1;
    if (first < 0x80 || first >= 0xe0) {
        token->type = GR_MP_INT;
        token->as.i = (int8_t)first;
        self->at = body;
        return 0;
    }
    if (first >= 0xa0) {
        token->type = GR_MP_STR;
        return take_bytes(self, body, first & 0x1f, token);
    }
    token->type = first < 0x90 ? GR_MP_MAP : GR_MP_ARRAY;
    return take_count(self, body, first & 0x0f, token);
}

static int next_headed(gr_mp_reader *self, uint8_t first, gr_mp_token *token)
{
    struct head head = heads[first - 0xc0];
    if (head.width < 0 || self->end - self->at < 1 + head.width + head.has_ext)
        return GR_EINVAL;
    uint64_t number = load(self->at + 1, head.width);
    const uint8_t *body = self->at + 1 + head.width + head.has_ext;

    token->type = (enum gr_mp_type)head.type;
    switch (token->type) {
    case GR_MP_NIL:
        break;
    case GR_MP_BOOL:
        token->as.b = first == 0xc3;
        break;
    case GR_MP_INT:
        token->as.i = sign_extend(number, head.width);
        break;
    case GR_MP_UINT:
        token->as.u = number;
        if (number <= INT64_MAX)
            token->type = GR_MP_INT; /* the same bits in as.i */
        break;
    case GR_MP_FLOAT:
        token->as.d = real_of(number, head.width);
        break;
    case GR_MP_EXT:
        token->ext = (int8_t)body[-1];
        if (head.width == 0) /* fixext 1, 2, 4, 8, 16 */
            number = (uint64_t)1 << (first - 0xd4);
        return take_bytes(self, body, number, token);
    case GR_MP_STR:
    case GR_MP_BIN:
        return take_bytes(self, body, number, token);
    case GR_MP_ARRAY:
    case GR_MP_MAP:
        return take_count(self, body, number, token);
    }
    self->at = body;
    return 0;
}

int gr_mp_next(gr_mp_reader *self, gr_mp_token *out)
{
    if (self->at == self->end)
        return GR_EINVAL;
    uint8_t first = *self->at;
    gr_mp_token token = {.ext = 0};
    int rc = first >= 0xc0 && first < 0xe0 ? next_headed(self, first, &token)
                                           : next_fixed(self, first, &token);
    if (rc == 0)
        *out = token;
    return rc;
}

/* Most of what there is: small numbers and short strings. Returns false when the value is
 * something else, or something wrong. */
static bool skip_short(gr_mp_reader *self)
{
    if (self->at == self->end)
        return false;
    uint8_t first = *self->at;
    size_t len = first < 0x80 || first >= 0xe0 ? 1
                 : (first & 0xe0) == 0xa0      ? 1 + (first & 0x1f)
                                               : 0;
    if (len == 0 || len > (size_t)(self->end - self->at))
        return false;
    self->at += len;
    return true;
}

int gr_mp_skip(gr_mp_reader *self)
{
    gr_mp_reader reader = *self;
    uint32_t left[GR_MP_MAX_DEPTH + 1]; /* values still to come, for each open container */
    int depth = 0;
    left[0] = 1;
    do {
        gr_mp_token token;
        left[depth]--;
        if (!skip_short(&reader)) {
            int rc = gr_mp_next(&reader, &token);
            if (rc < 0)
                return rc;
            if (token.type == GR_MP_ARRAY || token.type == GR_MP_MAP) {
                if (depth == GR_MP_MAX_DEPTH)
                    return GR_EEXHAUSTED;
                left[++depth] = token.type == GR_MP_MAP ? token.as.count * 2 : token.as.count;
            }
        }
        while (depth > 0 && left[depth] == 0)
            depth--;
    } while (left[depth] > 0);
    *self = reader;
    return 0;
}

/* How many bytes the character at `at` has, which does not start with an ASCII byte; 0 when it is
 * not well-formed. The second byte's range rules out overlong forms, surrogates and what lies
 * above 10FFFF (RFC 3629, section 4). */
static size_t wide_character(const uint8_t *at, size_t left)
{
    uint8_t lead = at[0];
    size_t len = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead < 0xc2 || lead > 0xf4 || left < len || at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

bool gr_mp_is_utf8(const uint8_t *data, size_t len)
{
    const uint64_t high_bits = 0x8080808080808080u;
    while (len > 0) {
        uint64_t eight;
        size_t step = 1;
        if (len >= sizeof(eight)) {
            memcpy(&eight, data, sizeof(eight));
            if ((eight & high_bits) == 0) {
                data += sizeof(eight);
                len -= sizeof(eight);
                continue;
            }
        }
        if (*data >= 0x80)
            step = wide_character(data, len);
        if (step == 0)
            return false;
        data += step;
        len -= step;
    }
    return true;
}

static bool is_key(const gr_mp_token *token, enum gr_mp_keys keys)
{
    if (keys == GR_MP_KEYS_TEXT)
        return token->type == GR_MP_STR || token->type == GR_MP_BIN;
    return token->type != GR_MP_ARRAY && token->type != GR_MP_MAP;
}

int gr_mp_check(gr_slice bytes, enum gr_mp_keys keys)
{
    struct {
        uint32_t left; /* values still to come */
        bool is_map;   /* then a key comes when an even number is left */
    } open[GR_MP_MAX_DEPTH + 1] = {{.left = 1}};
    gr_mp_reader reader = gr_mp_read(bytes);
    int depth = 0;
    do {
        gr_mp_token token;
        int rc = gr_mp_next(&reader, &token);
        if (rc < 0)
            return rc;
        if (open[depth].is_map && open[depth].left % 2 == 0 && !is_key(&token, keys))
            return GR_EINVAL;
        if (token.type == GR_MP_STR && !gr_mp_is_utf8(token.as.bytes.data, token.as.bytes.len))
            return GR_EINVAL;
        open[depth].left--;
        if (token.type == GR_MP_ARRAY || token.type == GR_MP_MAP) {
            if (depth == GR_MP_MAX_DEPTH)
                return GR_EEXHAUSTED;
            depth++;
            open[depth].is_map = token.type == GR_MP_MAP;
            open[depth].left = open[depth].is_map ? token.as.count * 2 : token.as.count;
        }
        while (depth > 0 && open[depth].left == 0)
            depth--;
    } while (open[depth].left > 0);
    return reader.at == reader.end ? 0 : GR_EINVAL;
}
