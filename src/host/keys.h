/* keys.h - what a terminal sends for one key, so that libedit gets whole keys only.
 *
 * libedit waits for the rest of an escape sequence in read(), and of a sequence that it does not
 * know it inserts the end. Pure functions on bytes. */
#ifndef GR_KEYS_H
#define GR_KEYS_H

#include <histedit.h>
#include <stdbool.h>
#include <stddef.h>

/* How many bytes the key at the start of text has; 0 when the rest of it is still to come. Escape,
 * Ctrl-X and Ctrl-V wait for the key after them. */
size_t gr_key_length(const char *text, size_t len);

/* Whether libedit may have this key: it is none of several bytes that start with Escape, or bound.
 */
bool gr_key_is_known(const char *key, size_t len);

/* Binds the keys that have commands here, and unbinds those that make libedit read others. */
void gr_keys_bind(EditLine *el);

#endif
