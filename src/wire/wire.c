#include "wire/wire.h"

#include "base/err.h"
#include "base/mp.h"

static const gr_dialect *const dialects[] = {&gr_dialect_gh1};

const gr_dialect *gr_wire_recognise(const gr_msg *msg, size_t first)
{
    gr_envelope envelope;
    for (size_t i = 0; i < sizeof(dialects) / sizeof(dialects[0]); i++)
        if (dialects[i]->parse(msg, first, &envelope) == 0)
            return dialects[i];
    return NULL;
}

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
    uint8_t head[5] = {0xdb, (uint8_t)(text.len >> 24), (uint8_t)(text.len >> 16),
                       (uint8_t)(text.len >> 8), (uint8_t)text.len};
    int rc;
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
        rc = gr_buf_append(out, head, 5);
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
