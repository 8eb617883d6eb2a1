/* fuzz_log.c - log lines of whatever a process sends: each is one line without control characters,
 * and one JSON object. */
#include <string.h>

#include "base/log_fields.h"
#include "base/log_format.h"
#include "fuzz.h"

struct text {
    const char *at, *end;
};

static char next(struct text *in)
{
    return in->at < in->end ? *in->at++ : '\0';
}

static void check_string(struct text *in) /* behind its first quote */
{
    char c;
    while ((c = next(in)) != '"') {
        CHECK((unsigned char)c >= ' ' && c != 0x7f);
        if (c != '\\')
            continue;
        c = next(in);
        CHECK(c != '\0' && strchr("\"\\/bfnrtu", c) != NULL);
        for (int i = 0; c == 'u' && i < 4; i++) {
            char digit = next(in);
            CHECK(digit != '\0' && strchr("0123456789abcdef", digit) != NULL);
        }
    }
}

/* A number, true, false or null. */
static void check_word(struct text *in)
{
    static const char *const names[] = {"true", "false", "null"};
    char word[64];
    size_t len = strspn(in->at, "0123456789+-.eE"
                                "truefalsn");
    CHECK(len > 0 && len < sizeof(word));
    memcpy(word, in->at, len);
    word[len] = '\0';
    in->at += len;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(word, names[i]) == 0)
            return;
    char *end;
    CHECK((word[0] >= '0' && word[0] <= '9') || (word[0] == '-' && word[1] >= '0'));
    strtod(word, &end);
    CHECK(*end == '\0');
}

static void check_value(struct text *in)
{
    char c = next(in);
    if (c == '"') {
        check_string(in);
    } else if (c != '{' && c != '[') {
        in->at--;
        check_word(in);
    } else if (*in->at == c + 2) { /* ']' and '}' are two behind '[' and '{' */
        in->at++;
    } else {
        char open = c;
        do {
            if (open == '{') {
                CHECK(next(in) == '"');
                check_string(in);
                CHECK(next(in) == ':');
            }
            check_value(in);
            c = next(in);
        } while (c == ',');
        CHECK(c == open + 2);
    }
}

static void check_json(const char *line, size_t len)
{
    struct text in = {.at = line, .end = line + len};
    check_value(&in);
    CHECK(in.at == in.end - 1 && *in.at == '\n');
}

static void check_text(const char *line, size_t len)
{
    CHECK(line[len - 1] == '\n');
    for (size_t i = 0; i + 1 < len; i++)
        CHECK((unsigned char)line[i] >= ' ' && line[i] != 0x7f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char out[GR_LOG_LINE + 1];
    struct input in = {.at = data, .left = size};
    gr_log_zone zone = {.frozen = true};
    gr_log_fields fields;
    gr_log_line line = {.sec = (int64_t)take_number(&in) * 86400, .level = take_byte(&in)};
    line.name = gr_slice_first(take_bytes(&in), GR_LOG_NAME);
    line.text = take_bytes(&in);
    gr_log_fields_init(&fields);
    if (take_byte(&in) & 1)
        gr_log_add_integer(&fields, "before", -1);
    gr_log_add_packed(&fields, gr_slice_of(in.at, in.left));
    gr_log_add_string(&fields, "behind", "x", 1);
    line.fields = gr_slice_of(fields.bytes, fields.len);
    size_t len = gr_log_format_json(&line, &zone, out);
    out[len] = '\0';
    check_json(out, len);
    check_text(out, gr_log_format_text(&line, false, &zone, out));
    return 0;
}
