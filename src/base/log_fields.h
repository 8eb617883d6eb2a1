/* log_fields.h - the fields of a log line: names with typed values.
 *
 *   gr_log_fields fields;
 *   gr_log_fields_init(&fields);
 *   gr_log_add_string(&fields, "user", name, strlen(name));
 *   gr_log_add_string(&fields, "password", text, strlen(text));      it is written as ***
 *   gr_log_with(GR_LOG_INFO, "gaterpc.zap", &fields, "%s is in", what);
 *
 * They are packed as one msgpack map, so that a thread that logs only copies bytes, and the log's
 * writer makes text or JSON of them. Everything is bounded: what does not fit is left out, and the
 * field "..." says so. Values of secret names are never packed. A struct belongs to one thread. */
#ifndef GR_LOG_FIELDS_H
#define GR_LOG_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum {
    GR_LOG_FIELDS = 4096,       /* bytes of all fields, packed */
    GR_LOG_FIELD_STRING = 1024, /* bytes of one string; a longer one is cut and ends in "..." */
    GR_LOG_FIELD_COUNT = 64,    /* fields, and elements of one container */
    GR_LOG_FIELD_DEPTH = 4,     /* containers in each other, the fields themselves not counted */
};

/* The ext type of a float: its digits as text, so that whoever writes it only copies. */
enum { GR_LOG_EXT_FLOAT = 1 };

typedef struct gr_log_fields {
    size_t len; /* 0 when there are none */
    uint32_t count;
    bool cut;
    uint8_t bytes[GR_LOG_FIELDS];
} gr_log_fields;

static inline void gr_log_fields_init(gr_log_fields *self)
{
    self->len = 0;
    self->count = 0;
    self->cut = false;
}

/* True for the names whose values stay out of the log: password, passwd, secret, token,
 * credentials, secret_key, zap_credentials, in any case, alone or behind one of "_", "-", "."
 * ("db_password"). */
bool gr_log_is_secret(const char *name, size_t len);

/* One field; name ends with a zero. The value of a secret name becomes "***". */
void gr_log_add_string(gr_log_fields *self, const char *name, const char *text, size_t len);
void gr_log_add_integer(gr_log_fields *self, const char *name, int64_t value);
void gr_log_add_float(gr_log_fields *self, const char *name, double value);
void gr_log_add_bool(gr_log_fields *self, const char *name, bool value);

/* Adds what another one has packed (bytes and len), which need not be trusted: everything is
 * checked and bounded anew, values of secret names are hidden. It ends at the first thing that is
 * wrong. */
void gr_log_add_packed(gr_log_fields *self, gr_slice packed);

/* --- for whoever packs containers, as the binding does ------------------------------------ */

/* Starts the next field; its value has to follow. False when there is no room. When the value does
 * not fit, gr_log_drop_field() takes the name back; `before` is what len was before the name. */
bool gr_log_put_name(gr_log_fields *self, const char *name, size_t len);
void gr_log_drop_field(gr_log_fields *self, size_t before);

/* Says that there is more: the field "...", which is the last one. */
void gr_log_cut_fields(gr_log_fields *self);

/* One value or key each. They return false, and add nothing, when there is no room. */
bool gr_log_put_string(gr_log_fields *self, const char *text, size_t len);
bool gr_log_put_integer(gr_log_fields *self, int64_t value);
bool gr_log_put_float(gr_log_fields *self, double value);
bool gr_log_put_bool(gr_log_fields *self, bool value);
bool gr_log_put_nil(gr_log_fields *self);

/* A container: *mark is for its end, when the number of elements, or of pairs, is known. */
bool gr_log_put_array(gr_log_fields *self, size_t *mark);
bool gr_log_put_map(gr_log_fields *self, size_t *mark);
void gr_log_end_container(gr_log_fields *self, size_t mark, uint32_t count);

#endif
