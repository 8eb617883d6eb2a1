/* bind_curve.h - keys of CURVE that come from Lua, in Z85, for those who need their bytes. */
#ifndef GR_BIND_CURVE_H
#define GR_BIND_CURVE_H

#include "base/buf.h"
#include "net/sock.h"

enum { GR_BIND_KEY_LEN = 40 }; /* in Z85 */

/* False when it is no key. Leaves no copy of it but out. */
bool gr_bind_read_key(gr_slice text, uint8_t out[GR_CURVE_KEY_LEN]);

#endif
