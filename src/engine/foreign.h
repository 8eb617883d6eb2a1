/* foreign.h - what the engines of worker and client need when they speak an older dialect: a name
 * for each connection, and credentials. A zeroed one speaks gh1 and has neither. */
#ifndef GR_FOREIGN_H
#define GR_FOREIGN_H

#include "wire/wire.h"

typedef struct gr_foreign_options {
    const gr_dialect *dialect;  /* NULL: gh1 */
    uint64_t seed;              /* a random number: ids and tags are made of it */
    gr_credentials credentials; /* sent in every message; copied */
} gr_foreign_options;

typedef struct gr_foreign {
    const gr_dialect *dialect;
    uint64_t seed;
    uint32_t connections; /* each has a routing id of its own */
    gr_credentials credentials;
    gr_buf texts; /* of the credentials */
    size_t id_len;
    char id[3 + 2 * GR_TAG_LEN + 1]; /* the present routing id */
} gr_foreign;

/* Returns 0 or GR_ENOMEM. */
int gr_foreign_init(gr_foreign *self, const gr_foreign_options *options);
void gr_foreign_clear(gr_foreign *self);

/* A new routing id: "gc-" or "gw-" and 32 hexadecimal digits for gate01, 16 bytes for gate02, none
 * for the others. */
gr_slice gr_foreign_new_id(gr_foreign *self, const char *prefix);

/* Fills in sender, credentials and seed. */
void gr_foreign_sign(const gr_foreign *self, gr_envelope *envelope);

#endif
