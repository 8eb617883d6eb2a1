#include "base/log_format.h"

#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mp.h"

static const char digits[] = "0123456789abcdef";

/* Where a line grows. Nothing is written behind `end`; by the size of GR_LOG_LINE all fits. */
struct out {
    char *at;
    char *end;
};

static void put(struct out *out, const char *text, size_t len)
{
    size_t room = (size_t)(out->end - out->at);
    if (len > room)
        len = room;
    memcpy(out->at, text, len);
    out->at += len;
}

static void put_char(struct out *out, char c)
{
    if (out->at < out->end)
        *out->at++ = c;
}

static void put_text(struct out *out, const char *text)
{
    put(out, text, strlen(text));
}

static void put_integer(struct out *out, int64_t value)
{
    char text[24];
    size_t n = sizeof(text);
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do
        text[--n] = (char)('0' + left % 10);
    while ((left /= 10) > 0);
    if (value < 0)
        text[--n] = '-';
    put(out, text + n, sizeof(text) - n);
}

/* --- the time ---------------------------------------------------------------------------- */

static void put_two(char *at, int value)
{
    at[0] = (char)('0' + value / 10);
    at[1] = (char)('0' + value % 10);
}

/* The Gregorian calendar from days since 1970; the method is Howard Hinnant's "civil_from_days". */
static void date_of(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int of_era = (int)(days - era * 146097);
    int year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int shifted = (5 * of_year + 2) / 153; /* March is 0 */
    *day = of_year - (153 * shifted + 2) / 5 + 1;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = (int)(year_of_era + era * 400) + (*month <= 2);
}

/* Offsets change at quarters of an hour, so one is asked for once in a quarter. */
static void find_offset(gr_log_zone *zone, int64_t sec)
{
    if ((sec >= zone->from && sec < zone->until) || zone->frozen)
        return;
    struct tm parts;
    time_t when = (time_t)sec;
    if (localtime_r(&when, &parts) == NULL)
        return;
    zone->offset = (int)parts.tm_gmtoff;
    zone->from = sec - ((sec % 900) + 900) % 900;
    zone->until = zone->from + 900;
    zone->text[0] = '\0';
}

static void show_second(gr_log_zone *zone, int64_t sec)
{
    int64_t local = sec + zone->offset;
    int64_t days = local / 86400 - (local % 86400 < 0);
    int second = (int)(local - days * 86400), year, month, day;
    date_of(days, &year, &month, &day);
    memcpy(zone->text, "0000-00-00T00:00:00", 20);
    put_two(zone->text, year / 100 % 100);
    put_two(zone->text + 2, year % 100);
    put_two(zone->text + 5, month);
    put_two(zone->text + 8, day);
    put_two(zone->text + 11, second / 3600);
    put_two(zone->text + 14, second / 60 % 60);
    put_two(zone->text + 17, second % 60);
    zone->shown = sec;
}

static void put_time(struct out *out, const gr_log_line *line, gr_log_zone *zone)
{
    find_offset(zone, line->sec);
    if (zone->text[0] == '\0' || zone->shown != line->sec)
        show_second(zone, line->sec);
    int minutes = (zone->offset < 0 ? -zone->offset : zone->offset) / 60;
    int ms = line->nsec / 1000000;
    char rest[] = ".000+00:00";
    rest[1] = (char)('0' + ms / 100);
    put_two(rest + 2, ms % 100);
    rest[4] = zone->offset < 0 ? '-' : '+';
    put_two(rest + 5, minutes / 60);
    put_two(rest + 8, minutes % 60);
    put(out, zone->text, 19);
    put(out, rest, 10);
}

int64_t gr_log_next_midnight(int64_t sec)
{
    struct tm parts;
    time_t when = (time_t)sec;
    if (localtime_r(&when, &parts) == NULL)
        return sec + 86400;
    parts.tm_mday++;
    parts.tm_hour = parts.tm_min = parts.tm_sec = 0;
    parts.tm_isdst = -1;
    int64_t midnight = (int64_t)mktime(&parts);
    return midnight > sec ? midnight : sec + 86400;
}

/* --- strings ----------------------------------------------------------------------------- */

/* Marks for the direction of writing, and separators that some programs take for a newline. */
static bool is_trick(uint32_t c)
{
    return (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0x061c || c == 0xfeff;
}

/* The character at `at`: its length, and its number in *c; 0 when the bytes are not UTF-8. */
static size_t decode(const uint8_t *at, size_t left, uint32_t *c)
{
    uint8_t lead = at[0];
    *c = lead;
    if (lead < 0x80)
        return 1;
    size_t len = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (left < len || !gr_mp_is_utf8(at, len))
        return 0;
    *c = lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++)
        *c = *c << 6 | (at[i] & 0x3f);
    return len;
}

static void put_hex(struct out *out, const char *before, uint32_t value, int count)
{
    put_text(out, before);
    for (int i = count - 1; i >= 0; i--)
        put_char(out, digits[value >> (4 * i) & 15]);
}

enum style { PLAIN, QUOTED, JSON };

/* A character that cannot stand for itself. */
static void put_escape(struct out *out, const uint8_t *at, size_t len, uint32_t c, enum style style)
{
    static const char *const names[] = {['\n'] = "\\n", ['\t'] = "\\t", ['\r'] = "\\r"};
    if (c < sizeof(names) / sizeof(names[0]) && names[c] != NULL) {
        put_text(out, names[c]);
    } else if (c == '"' || c == '\\') {
        put_char(out, '\\');
        put_char(out, (char)c);
    } else if (style == JSON && len > 0) {
        put_hex(out, "\\u", c, 4);
    } else if (c >= 0x100 && len > 0) {
        put_hex(out, "\\u{", c, 4);
        put_char(out, '}');
    } else { /* C0, DEL, C1, or a byte that is not UTF-8 */
        for (size_t i = 0; i < (len > 0 ? len : 1); i++)
            put_hex(out, style == JSON ? "\\\\x" : "\\x", at[i], 2);
    }
}

static bool is_shown(uint32_t c, enum style style)
{
    if (c < 0x80)
        return c >= 0x20 && c != 0x7f && (style == PLAIN || (c != '"' && c != '\\'));
    return c >= 0xa0 && !is_trick(c);
}

static void put_escaped(struct out *out, gr_slice text, enum style style)
{
    const uint8_t *at = text.data, *end = at + text.len, *shown = at;
    while (at < end) {
        while (at < end && *at < 0x80 && is_shown(*at, style))
            at++;
        if (at == end)
            break;
        uint32_t c;
        size_t len = decode(at, (size_t)(end - at), &c);
        if (len > 0 && is_shown(c, style)) {
            at += len;
            continue;
        }
        put(out, (const char *)shown, (size_t)(at - shown));
        put_escape(out, at, len, c, style);
        at += len > 0 ? len : 1;
        shown = at;
    }
    put(out, (const char *)shown, (size_t)(at - shown));
}

/* Words that cannot be mistaken for anything else need no quotes in text. */
static bool is_bare(gr_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!letter && !(c >= '0' && c <= '9') && (c == '\0' || strchr("_.:/+-@*", c) == NULL))
            return false;
    }
    return text.len > 0;
}

static void put_quoted(struct out *out, gr_slice text, bool json)
{
    if (!json && is_bare(text)) {
        put(out, (const char *)text.data, text.len);
        return;
    }
    put_char(out, '"');
    put_escaped(out, text, json ? JSON : QUOTED);
    put_char(out, '"');
}

/* --- fields ------------------------------------------------------------------------------ */

static bool put_value(struct out *out, gr_mp_reader *reader, bool json, int depth);

/* The pairs of a map or elements of an array; between and after a name as the format has it. */
static bool put_elements(struct out *out, gr_mp_reader *reader, const gr_mp_token *container,
                         bool json, int depth)
{
    bool map = container->type == GR_MP_MAP;
    for (uint32_t i = 0; i < container->as.count; i++) {
        gr_mp_token key;
        if (i > 0)
            put_char(out, depth > 0 || json ? ',' : ' ');
        if (map) {
            if (gr_mp_next(reader, &key) < 0 || key.type != GR_MP_STR)
                return false;
            put_quoted(out, key.as.bytes, json);
            put_char(out, json ? ':' : '=');
        }
        if (!put_value(out, reader, json, depth + 1))
            return false;
    }
    return true;
}

static bool put_value(struct out *out, gr_mp_reader *reader, bool json, int depth)
{
    gr_mp_token token;
    if (depth > GR_LOG_FIELD_DEPTH + 2 || gr_mp_next(reader, &token) < 0)
        return false;
    bool ok = true;
    switch (token.type) {
    case GR_MP_STR:
        put_quoted(out, token.as.bytes, json);
        break;
    case GR_MP_INT:
        put_integer(out, token.as.i);
        break;
    case GR_MP_EXT: /* GR_LOG_EXT_FLOAT */
        put(out, (const char *)token.as.bytes.data, token.as.bytes.len);
        break;
    case GR_MP_BOOL:
        put_text(out, token.as.b ? "true" : "false");
        break;
    case GR_MP_ARRAY:
    case GR_MP_MAP:
        put_char(out, token.type == GR_MP_MAP ? '{' : '[');
        ok = put_elements(out, reader, &token, json, depth);
        put_char(out, token.type == GR_MP_MAP ? '}' : ']');
        break;
    default:
        put_text(out, json ? "null" : "nil");
    }
    return ok;
}

/* --- lines ------------------------------------------------------------------------------- */

const char *gr_log_level_name(int level)
{
    if (level >= GR_LOG_ERROR)
        return "ERROR";
    if (level >= GR_LOG_WARNING)
        return "WARNING";
    return level >= GR_LOG_INFO ? "INFO" : "DEBUG";
}

static void put_level(struct out *out, int level, bool colour)
{
    static const char *const grey = "\033[90m", *const blue = "\033[34m",
                             *const yellow = "\033[33m", *const red = "\033[31m";
    if (colour)
        put_text(out, level >= GR_LOG_ERROR     ? red
                      : level >= GR_LOG_WARNING ? yellow
                      : level >= GR_LOG_INFO    ? blue
                                                : grey);
    put_text(out, gr_log_level_name(level));
    if (colour)
        put_text(out, "\033[0m");
}

size_t gr_log_format_text(const gr_log_line *line, bool colour, gr_log_zone *zone, char *start)
{
    struct out out = {.at = start, .end = start + GR_LOG_LINE - 1};
    put_time(&out, line, zone);
    put_char(&out, ' ');
    put_level(&out, line->level, colour);
    put_char(&out, ' ');
    put_escaped(&out, line->name, PLAIN);
    put_char(&out, ' ');
    put_escaped(&out, line->text, PLAIN);
    gr_mp_reader reader = gr_mp_read(line->fields);
    gr_mp_token map;
    if (line->fields.len > 0 && gr_mp_next(&reader, &map) == 0 && map.type == GR_MP_MAP) {
        put_char(&out, ' ');
        put_elements(&out, &reader, &map, false, 0);
    }
    *out.at++ = '\n';
    return (size_t)(out.at - start);
}

static const char *json_level(int level)
{
    if (level >= GR_LOG_ERROR)
        return "error";
    if (level >= GR_LOG_WARNING)
        return "warning";
    return level >= GR_LOG_INFO ? "info" : "debug";
}

size_t gr_log_format_json(const gr_log_line *line, gr_log_zone *zone, char *start)
{
    struct out out = {.at = start, .end = start + GR_LOG_LINE - 1};
    put_text(&out, "{\"time\":\"");
    put_time(&out, line, zone);
    put_text(&out, "\",\"level\":\"");
    put_text(&out, json_level(line->level));
    put_text(&out, "\",\"logger\":");
    put_quoted(&out, line->name, true);
    put_text(&out, ",\"message\":");
    put_quoted(&out, line->text, true);
    if (line->fields.len > 0) {
        gr_mp_reader reader = gr_mp_read(line->fields);
        put_text(&out, ",\"fields\":");
        put_value(&out, &reader, true, 0);
    }
    put_char(&out, '}');
    *out.at++ = '\n';
    return (size_t)(out.at - start);
}
