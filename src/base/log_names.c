#include "base/log_names.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"
#include "base/log.h"

enum { SLOTS = 2 * GR_LOGGERS }; /* of the hash table; at most half of them are taken */

static gr_logger root = {.wanted = GR_LOG_INFO, .own = GR_LOG_INFO};
static gr_logger all[GR_LOGGERS];
static _Atomic(gr_logger *) slots[SLOTS];

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* for changes, and what follows */
static size_t count;
static int gate = GR_LOG_DEBUG;

atomic_int gr_log_floor = GR_LOG_INFO;

/* --- finding ----------------------------------------------------------------------------- */

static size_t hash(const char *name, size_t len)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)name[i]) * 16777619u;
    return h % SLOTS;
}

/* Its logger, or NULL; *slot is then where it would be. */
static gr_logger *find(const char *name, size_t len, size_t *slot)
{
    size_t i = hash(name, len);
    gr_logger *found;
    while ((found = atomic_load_explicit(&slots[i], memory_order_acquire)) != NULL) {
        if (found->len == len && memcmp(found->name, name, len) == 0)
            return found;
        i = (i + 1) % SLOTS;
    }
    *slot = i;
    return NULL;
}

static size_t parent_len(const char *name, size_t len)
{
    while (len > 0 && name[len - 1] != '.')
        len--;
    return len > 0 ? len - 1 : 0;
}

/* Under the mutex. Gives the nearest ancestor when there is no room. */
static gr_logger *make(const char *name, size_t len)
{
    size_t slot;
    gr_logger *self = len == 0 ? &root : find(name, len, &slot);
    if (self != NULL)
        return self;
    gr_logger *parent = make(name, parent_len(name, len));
    if (count == GR_LOGGERS)
        return parent;
    self = &all[count++];
    atomic_init(&self->wanted, atomic_load_explicit(&parent->wanted, memory_order_relaxed));
    self->own = GR_LOG_INHERIT;
    self->parent = parent;
    self->len = len;
    memcpy(self->name, name, len);
    find(name, len, &slot); /* the parent may have taken the one that was free */
    atomic_store_explicit(&slots[slot], self, memory_order_release);
    return self;
}

gr_logger *gr_logger_of(const char *name, size_t len)
{
    size_t slot;
    if (len > GR_LOG_NAME)
        len = GR_LOG_NAME;
    gr_logger *self = len == 0 ? &root : find(name, len, &slot);
    if (self != NULL)
        return self;
    pthread_mutex_lock(&mutex);
    self = make(name, len);
    pthread_mutex_unlock(&mutex);
    return self;
}

/* --- levels ------------------------------------------------------------------------------ */

static int level_of(const gr_logger *self)
{
    while (self->own == GR_LOG_INHERIT)
        self = self->parent;
    return self->own;
}

static int update_one(gr_logger *self)
{
    int level = level_of(self);
    if (level < gate)
        level = gate;
    atomic_store_explicit(&self->wanted, level, memory_order_relaxed);
    return level;
}

static void update(void)
{
    int lowest = update_one(&root);
    for (size_t i = 0; i < SLOTS; i++) {
        gr_logger *self = atomic_load_explicit(&slots[i], memory_order_relaxed);
        int level = self != NULL ? update_one(self) : GR_LOG_OFF;
        if (level < lowest)
            lowest = level;
    }
    atomic_store_explicit(&gr_log_floor, lowest, memory_order_relaxed);
}

int gr_logger_level(const gr_logger *self)
{
    pthread_mutex_lock(&mutex);
    int level = level_of(self);
    pthread_mutex_unlock(&mutex);
    return level;
}

int gr_logger_set_level(const char *name, size_t len, int level)
{
    if (len > GR_LOG_NAME)
        return GR_EINVAL;
    pthread_mutex_lock(&mutex);
    gr_logger *self = make(name, len);
    int rc = self->len == len ? 0 : GR_EEXHAUSTED;
    if (rc == 0) {
        self->own = self == &root && level == GR_LOG_INHERIT ? GR_LOG_INFO : level;
        update();
    }
    pthread_mutex_unlock(&mutex);
    return rc;
}

void gr_logger_each(void (*fn)(void *arg, const char *name, size_t len, int level), void *arg)
{
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < count; i++)
        if (all[i].own != GR_LOG_INHERIT)
            fn(arg, all[i].name, all[i].len, all[i].own);
    pthread_mutex_unlock(&mutex);
}

void gr_log_names_set_gate(int level)
{
    pthread_mutex_lock(&mutex);
    gate = level;
    update();
    pthread_mutex_unlock(&mutex);
}
