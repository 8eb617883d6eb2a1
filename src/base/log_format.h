/* log_format.h - a log line as bytes: text for people or a JSON object for programs.
 *
 *   2026-11-24T03:21:54.123+01:00 WARNING gaterpc.broker text key=value other="two words"
 *   {"time":"2026-11-24T03:21:54.123+01:00","level":"warning","logger":"gaterpc.broker",
 *    "message":"text","fields":{"key":"value"}}                                    on one line
 *
 * What peers sent can forge neither a line nor a command of a terminal: control characters (C0,
 * DEL, C1), line and paragraph separators, marks that turn the direction of writing, and bytes that
 * are not UTF-8 are escaped, in JSON too, which stays valid. Allocates nothing and takes no lock,
 * so a signal handler may format with a frozen gr_log_zone. */
#ifndef GR_LOG_FORMAT_H
#define GR_LOG_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/log_fields.h"
#include "base/log_names.h"

enum {
    GR_LOG_TEXT = 8192, /* bytes of a message; a longer one is cut and ends in "..." */
    /* The longest line: each byte may become six ("\u0007"), and the frame around them. */
    GR_LOG_LINE = 6 * (GR_LOG_NAME + GR_LOG_TEXT + GR_LOG_FIELDS) + 512
};

typedef struct gr_log_line {
    int64_t sec; /* of the real time */
    int32_t nsec;
    int level;
    gr_slice name;
    gr_slice text;
    gr_slice fields; /* gr_log_fields, packed; empty when there are none */
} gr_log_line;

/* What is known of the local time. Zeroed: nothing. */
typedef struct gr_log_zone {
    bool frozen;         /* ask nobody: localtime_r() may take a lock */
    int64_t from, until; /* the seconds for which offset holds */
    int offset;          /* seconds east of Greenwich */
    int64_t shown;       /* the second that text shows */
    char text[20];       /* "2026-11-24T03:21:54" */
} gr_log_zone;

/* "DEBUG", "INFO", "WARNING" or "ERROR". */
const char *gr_log_level_name(int level);

/* Writes the line and its newline to out, which has GR_LOG_LINE bytes; returns how many it took. */
size_t gr_log_format_text(const gr_log_line *line, bool colour, gr_log_zone *zone, char *out);
size_t gr_log_format_json(const gr_log_line *line, gr_log_zone *zone, char *out);

/* The first second of the local day after the one that sec belongs to. */
int64_t gr_log_next_midnight(int64_t sec);

#endif
