/* access.h - who may do what: which user may register which service, and call what.
 *
 * A list of permissions; what is not in it is denied. In patterns `*` stands for any bytes, also
 * none. The user pattern `*` means everybody who has a name; "anonymous" are those who have none.
 * Services are registered by their names. What is called is "service.method", so functions of the
 * broker itself are "Gate.get_services"; the method is what stands behind the last dot, and "*"
 * alone is every method of every service. Answers are remembered, because every request asks. Not
 * thread-safe; a list belongs to one owner. */
#ifndef GR_ACCESS_H
#define GR_ACCESS_H

#include <stdbool.h>

#include "base/buf.h"

typedef struct gr_access gr_access;

enum gr_action { GR_MAY_REGISTER, GR_MAY_CALL };

enum { GR_ACCESS_PATTERN_MAX = 512 }; /* bytes of a pattern */

/* A list that allows nothing. Returns 0 or GR_ENOMEM. */
int gr_access_new(gr_access **out);
void gr_access_destroy(gr_access **self);

/* Adds a permission. Returns 0, GR_EINVAL (a pattern that is empty or too long, or names no method)
 * or GR_ENOMEM. */
int gr_access_allow(gr_access *self, gr_slice user, enum gr_action action, gr_slice what);

/* user: "" for none. method: "" to register a service. Names that are too long are denied. */
bool gr_access_may(gr_access *self, gr_slice user, enum gr_action action, gr_slice service,
                   gr_slice method);

#endif
