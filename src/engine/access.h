/* access.h - who may come in with credentials inside messages: users and their passwords.
 *
 * As long as no user was added, everybody may. Comparing takes the same time whatever is wrong. A
 * zeroed table is an empty one. Not thread-safe. */
#ifndef GR_ACCESS_H
#define GR_ACCESS_H

#include <stdbool.h>

#include "wire/wire.h"

typedef struct gr_access {
    struct gr_access_user *users; /* a uthash table */
} gr_access;

/* Adds a user, or gives it another password. Returns 0, GR_EINVAL (one that is empty or above 255
 * bytes) or GR_ENOMEM. */
int gr_access_add(gr_access *self, gr_slice user, gr_slice password);

/* True when these credentials are good enough. */
bool gr_access_allows(const gr_access *self, const gr_credentials *credentials);

void gr_access_clear(gr_access *self);

#endif
