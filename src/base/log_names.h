/* log_names.h - loggers by dotted name, and the levels that they inherit.
 *
 * "gaterpc.broker" has the level that was set for it, else that of "gaterpc", else that of the
 * root, whose name is "". A logger lives as long as the process. There are at most GR_LOGGERS of
 * them; further names share their nearest ancestor's. Any thread may call everything here; asking
 * whether a level is wanted takes no lock. */
#ifndef GR_LOG_NAMES_H
#define GR_LOG_NAMES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    GR_LOGGERS = 512,
    GR_LOG_NAME = 100 /* bytes of a name; more is cut */
};

/* "As its parent": what most loggers have. */
enum { GR_LOG_INHERIT = -1 };

typedef struct gr_logger {
    atomic_int wanted; /* lines below it go nowhere */
    /* The rest belongs to log_names.c. */
    int own; /* GR_LOG_INHERIT or the level that was set */
    struct gr_logger *parent;
    size_t len;
    char name[GR_LOG_NAME];
} gr_logger;

/* The lowest level that any logger wants: what is below it needs no further look. */
extern atomic_int gr_log_floor;

/* The logger of that name; never NULL. */
gr_logger *gr_logger_of(const char *name, size_t len);

static inline bool gr_logger_wants(const gr_logger *self, int level)
{
    return level >= atomic_load_explicit(&self->wanted, memory_order_relaxed);
}

/* The level that was set for it or for its next ancestor that has one. */
int gr_logger_level(const gr_logger *self);

/* GR_LOG_INHERIT takes it back; the root then has GR_LOG_INFO. Returns 0, or GR_EEXHAUSTED when the
 * name has no place of its own any more. */
int gr_logger_set_level(const char *name, size_t len, int level);

/* Calls fn for every logger that has a level of its own but the root. fn must not come back here.
 */
void gr_logger_each(void (*fn)(void *arg, const char *name, size_t len, int level), void *arg);

/* What is below this level is written nowhere, whatever the loggers say; the outputs' lowest. */
void gr_log_names_set_gate(int level);

#endif
