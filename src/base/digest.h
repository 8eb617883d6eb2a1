/* digest.h - 128 bits that tell whether bytes have arrived as they were sent.
 *
 * XXH3: against damage and lost pieces, not against forgery; whoever can change the bytes on
 * the way can change an unkeyed digest too, so a slow one would protect no better. Not
 * thread-safe; a digest belongs to one owner at a time. */
#ifndef GR_DIGEST_H
#define GR_DIGEST_H

#include "base/buf.h"

enum { GR_DIGEST_LEN = 16 };

typedef struct gr_digest gr_digest;

/* Of no bytes yet. Returns 0 or GR_ENOMEM. */
int gr_digest_new(gr_digest **out);
void gr_digest_destroy(gr_digest **self);

void gr_digest_add(gr_digest *self, gr_slice bytes);

/* Of everything added so far, in XXH's canonical order (big-endian); more may be added afterwards.
 */
void gr_digest_get(const gr_digest *self, uint8_t out[GR_DIGEST_LEN]);

#endif
