/* fuzz_msgpack.c - the bounded reader: skipping a value and walking through it agree, nothing lies
 * outside of the bytes, and a result envelope is made of values. */
#include "base/mp.h"
#include "fuzz.h"

/* Reads over one value token by token. The levels are counted as gr_mp_skip() promises. */
static int walk(gr_mp_reader *reader, int depth)
{
    const uint8_t *before = reader->at;
    gr_mp_token token;
    int rc = gr_mp_next(reader, &token);
    if (rc < 0) {
        CHECK(rc == GR_EINVAL || rc == GR_EEXHAUSTED);
        CHECK(reader->at == before);
        return rc;
    }
    CHECK(reader->at > before && reader->at <= reader->end);
    uint64_t inner = 0;
    switch (token.type) {
    case GR_MP_STR:
    case GR_MP_BIN:
    case GR_MP_EXT:
        CHECK(token.as.bytes.data > before);
        CHECK(token.as.bytes.data + token.as.bytes.len == reader->at);
        CHECK(token.as.bytes.len <= GR_MP_MAX_BYTES);
        break;
    case GR_MP_UINT:
        CHECK(token.as.u > INT64_MAX);
        break;
    case GR_MP_ARRAY:
    case GR_MP_MAP:
        CHECK(token.as.count <= GR_MP_MAX_ELEMENTS);
        inner = (uint64_t)token.as.count * (token.type == GR_MP_MAP ? 2 : 1);
        CHECK(inner <= (size_t)(reader->end - reader->at));
        if (depth == GR_MP_MAX_DEPTH)
            return GR_EEXHAUSTED;
        break;
    default:
        break;
    }
    for (; rc == 0 && inner > 0; inner--)
        rc = walk(reader, depth + 1);
    return rc;
}

static void check_skip(gr_slice bytes)
{
    gr_mp_reader skipped = gr_mp_read(bytes);
    gr_mp_reader walked = gr_mp_read(bytes);
    while (skipped.at < skipped.end) {
        const uint8_t *before = skipped.at;
        int rc = gr_mp_skip(&skipped);
        CHECK(rc == walk(&walked, 0));
        if (rc < 0) {
            CHECK(skipped.at == before);
            return;
        }
        CHECK(skipped.at == walked.at);
    }
}

static void check_value(gr_slice whole, gr_slice value)
{
    if (value.len == 0)
        return;
    CHECK(value.data >= whole.data && value.data + value.len <= whole.data + whole.len);
    gr_mp_reader reader = gr_mp_read(value);
    CHECK(gr_mp_skip(&reader) == 0 && reader.at == reader.end);
}

static void check_result(gr_slice bytes)
{
    gr_slice result, exception;
    int rc = gr_wire_get_result(bytes, &result, &exception);
    CHECK(rc == 0 || rc == GR_EINVAL || rc == GR_EEXHAUSTED);
    if (rc < 0)
        return;
    check_value(bytes, result);
    check_value(bytes, exception);
}

static void check_built_result(gr_slice bytes)
{
    gr_buf out = {0};
    gr_slice result, exception;
    gr_mp_reader reader = gr_mp_read(bytes);
    bool one = gr_mp_skip(&reader) == 0 && reader.at == reader.end;
    CHECK(gr_wire_put_result_begin(&out) == 0);
    CHECK(gr_buf_append(&out, bytes.data, bytes.len) == 0);
    CHECK(gr_wire_put_result_end(&out) == 0);
    if (one && gr_wire_get_result(gr_buf_slice(&out), &result, &exception) == 0)
        check_same_slice(result, bytes);
    out.len = 0;
    CHECK(gr_wire_put_exception(&out, bytes, bytes, bytes) == 0);
    CHECK(gr_wire_get_result(gr_buf_slice(&out), &result, &exception) == 0);
    CHECK(result.len == 1 && exception.len > 3 * bytes.len);
    gr_buf_clear(&out);
}

/* UTF-8 by the definition: code points, shortest form, no surrogates. */
static bool is_utf8(gr_slice text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < text.len;) {
        uint8_t lead = text.data[i++];
        int len = lead < 0x80   ? 1
                  : lead < 0xc0 ? 0
                  : lead < 0xe0 ? 2
                  : lead < 0xf0 ? 3
                  : lead < 0xf8 ? 4
                                : 0;
        if (len == 0)
            return false;
        uint32_t code = len == 1 ? lead : lead & (0x7f >> len);
        for (int left = len - 1; left > 0; left--) {
            if (i == text.len || (text.data[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | (text.data[i++] & 0x3f);
        }
        if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    gr_slice bytes = gr_slice_of(data, size);
    check_skip(bytes);
    check_result(bytes);
    check_built_result(bytes);
    CHECK(gr_mp_is_utf8(data, size) == is_utf8(bytes));
    return 0;
}
