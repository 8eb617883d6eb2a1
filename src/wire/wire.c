#include "wire/wire.h"

#include "base/err.h"
#include "base/mp.h"

/* In the order in which they are tried: what gate01 and gate02 say looks like RFC 7 too. */
static const gr_dialect *const dialects[] = {&gr_dialect_gh1, &gr_dialect_gate01,
                                             &gr_dialect_gate02, &gr_dialect_mdp};

enum { DIALECTS = sizeof(dialects) / sizeof(dialects[0]) };

const gr_dialect *gr_wire_recognise(const gr_msg *msg, size_t first, enum gr_leg leg)
{
    for (int i = 0; i < DIALECTS; i++)
        if (dialects[i]->recognise(msg, first, leg))
            return dialects[i];
    return NULL;
}

const gr_dialect *gr_wire_dialect(const char *name)
{
    for (int i = 0; i < DIALECTS; i++)
        if (strcmp(dialects[i]->name, name) == 0)
            return dialects[i];
    return NULL;
}

int gr_wire_settle(gr_envelope *envelope, gr_msg **msg, const gr_buf *scratch)
{
    gr_msg *own;
    gr_envelope said;
    if (envelope->payload.len == 0 || envelope->payload.data != scratch->data)
        return 0;
    int rc = gr_dialect_gh1.build(envelope, GR_CLIENT_TO_BROKER, NULL, &own);
    if (rc < 0)
        return rc;
    rc = gr_dialect_gh1.parse(own, 0, GR_CLIENT_TO_BROKER, NULL, &said);
    if (rc < 0) {
        gr_msg_destroy(&own);
        return rc;
    }
    gr_msg_destroy(msg);
    *msg = own;
    *envelope = said;
    return 0;
}

/* --- tags -------------------------------------------------------------------------------- */

/* Bytes 6 and 8 hold the version and the variant of the UUID in their upper bits. The number's
 * upper 48 bits come first, its lower 16 last, the seed stands in between. */

void gr_tag_put(uint8_t tag[GR_TAG_LEN], uint64_t number, uint64_t seed)
{
    for (int i = 0; i < 6; i++)
        tag[i] = (uint8_t)(number >> (56 - 8 * i));
    tag[6] = (uint8_t)(0x40 | (seed >> 54 & 0x0f));
    tag[7] = (uint8_t)(seed >> 46);
    tag[8] = (uint8_t)(0x80 | (seed >> 40 & 0x3f));
    for (int i = 0; i < 5; i++)
        tag[9 + i] = (uint8_t)(seed >> (32 - 8 * i));
    tag[14] = (uint8_t)(number >> 8);
    tag[15] = (uint8_t)number;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* A tag of 16 bytes, or of 32 hexadecimal digits, as 16 bytes in the shape of ours. */
static bool get_tag(gr_slice tag, uint8_t out[GR_TAG_LEN])
{
    if (tag.len == GR_TAG_LEN) {
        memcpy(out, tag.data, GR_TAG_LEN);
    } else if (tag.len == 2 * GR_TAG_LEN) {
        for (int i = 0; i < GR_TAG_LEN; i++) {
            int high = hex_digit(tag.data[2 * i]), low = hex_digit(tag.data[2 * i + 1]);
            if (high < 0 || low < 0)
                return false;
            out[i] = (uint8_t)(high << 4 | low);
        }
    } else {
        return false;
    }
    return out[6] >> 4 == 4 && out[8] >> 6 == 2;
}

uint64_t gr_tag_number(gr_slice tag)
{
    uint8_t bytes[GR_TAG_LEN];
    uint64_t number = 0;
    if (get_tag(tag, bytes)) {
        for (int i = 0; i < 6; i++)
            number = number << 8 | bytes[i];
        return number << 16 | (uint64_t)bytes[14] << 8 | bytes[15];
    }
    number = 0xcbf29ce484222325; /* FNV-1a, http://www.isthe.com/chongo/tech/comp/fnv/ */
    for (size_t i = 0; i < tag.len; i++)
        number = (number ^ tag.data[i]) * 0x100000001b3;
    return number;
}

uint64_t gr_tag_seed_of(uint64_t seed)
{
    return seed & (((uint64_t)1 << 58) - 1);
}

uint64_t gr_tag_seed(gr_slice tag)
{
    uint8_t bytes[GR_TAG_LEN];
    if (!get_tag(tag, bytes))
        return 0;
    uint64_t seed = (uint64_t)(bytes[6] & 0x0f) << 54 | (uint64_t)bytes[7] << 46 |
                    (uint64_t)(bytes[8] & 0x3f) << 40;
    for (int i = 0; i < 5; i++)
        seed |= (uint64_t)bytes[9 + i] << (32 - 8 * i);
    return seed;
}

/* --- names and results ------------------------------------------------------------------- */

bool gr_wire_is_name(gr_slice name)
{
    if (name.len == 0 || name.len > 255 || !gr_mp_is_utf8(name.data, name.len))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (name.data[i] <= ' ' || name.data[i] == 0x7f)
            return false;
    return true;
}

/* The envelope's fixed bytes, see docs/protocol.md "Results". */
static const uint8_t result_begin[] = "\x82\xa6result";
static const uint8_t result_end[] = "\xa9"
                                    "exception\xc0";
static const uint8_t exception_begin[] = "\x82\xa6result\xc0\xa9"
                                         "exception\x93";

static int put_str(gr_buf *out, gr_slice text)
{
    uint8_t head[GR_MP_HEAD];
    int rc;
    gr_mp_put_head(head, GR_MP_STR32, text.len);
    if (text.len < 32) {
        head[0] = (uint8_t)(0xa0 | text.len);
        rc = gr_buf_append(out, head, 1);
    } else if (text.len < 256) {
        uint8_t short_head[2] = {0xd9, (uint8_t)text.len};
        rc = gr_buf_append(out, short_head, 2);
    } else if (text.len < 65536) {
        uint8_t middle_head[3] = {0xda, (uint8_t)(text.len >> 8), (uint8_t)text.len};
        rc = gr_buf_append(out, middle_head, 3);
    } else {
        rc = gr_buf_append(out, head, sizeof(head));
    }
    return rc < 0 ? rc : gr_buf_append(out, text.data, text.len);
}

int gr_wire_put_exception(gr_buf *out, gr_slice class_name, gr_slice message, gr_slice traceback)
{
    gr_slice texts[] = {class_name, message, traceback};
    int rc = gr_buf_append(out, exception_begin, sizeof(exception_begin) - 1);
    for (int i = 0; i < 3 && rc == 0; i++)
        rc = put_str(out, texts[i]);
    return rc;
}

int gr_wire_put_result_begin(gr_buf *out)
{
    return gr_buf_append(out, result_begin, sizeof(result_begin) - 1);
}

int gr_wire_put_result_end(gr_buf *out)
{
    return gr_buf_append(out, result_end, sizeof(result_end) - 1);
}

int gr_wire_get_result(gr_slice payload, gr_slice *result, gr_slice *exception)
{
    gr_mp_reader reader = gr_mp_read(payload);
    gr_mp_token token;
    int rc = gr_mp_next(&reader, &token);
    if (rc < 0)
        return rc;
    if (token.type != GR_MP_MAP)
        return GR_EINVAL;

    *result = *exception = gr_slice_of(NULL, 0);
    for (uint32_t left = token.as.count; left > 0; left--) {
        gr_mp_token key;
        rc = gr_mp_next(&reader, &key);
        if (rc < 0)
            return rc;
        if (key.type != GR_MP_STR)
            return GR_EINVAL;
        gr_slice value = {.data = reader.at};
        rc = gr_mp_skip(&reader);
        if (rc < 0)
            return rc;
        value.len = (size_t)(reader.at - value.data);
        if (gr_slice_equal(key.as.bytes, gr_slice_str("result")))
            *result = value;
        else if (gr_slice_equal(key.as.bytes, gr_slice_str("exception")))
            *exception = value;
    }
    return reader.at == reader.end ? 0 : GR_EINVAL;
}
