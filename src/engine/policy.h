/* policy.h - who is let in: users with passwords, CURVE keys and addresses of one ZAP domain.
 *
 * Filled by one owner and then shared: those who keep it hold it, from any thread, and nobody
 * changes it any more. Passwords stay here as keyed hashes (BLAKE2b, with a random key of this
 * process), or as the Argon2 strings that they came as (libsodium's crypto_pwhash_str). A check
 * takes the same time whatever is wrong, whether there is such a user or not. Answers no question
 * of what somebody may do: that is access.h. */
#ifndef GR_POLICY_H
#define GR_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

typedef struct gr_policy gr_policy;

enum {
    GR_POLICY_NAME_MAX = 255, /* bytes of a user's name, and of a password */
    GR_POLICY_KEY_LEN = 32,
};

enum gr_verdict {
    GR_REFUSED,
    GR_ADMITTED,
    GR_UNDECIDED, /* it takes gr_policy_check_slowly() */
};

/* A policy that lets nobody in, held once. Returns 0, GR_ENOMEM or GR_ESYSTEM (no random numbers).
 */
int gr_policy_new(gr_policy **out);

/* Holds it once more; each holder ends with gr_policy_release(), which leaves NULL. */
gr_policy *gr_policy_hold(gr_policy *self);
void gr_policy_release(gr_policy **self);

/* Adds a user, or gives it another password. secret is the password, or its Argon2 hash (it begins
 * with "$argon2"). Returns 0, GR_EINVAL (a name or password that is empty or above 255 bytes, a
 * name with a zero, a hash that is none) or GR_ENOMEM. */
int gr_policy_add_user(gr_policy *self, gr_slice user, gr_slice secret);

/* Adds a public CURVE key of the user, who may have several. Returns 0, GR_EINVAL (the name, or the
 * key is another user's) or GR_ENOMEM. */
int gr_policy_add_key(gr_policy *self, gr_slice user, const uint8_t key[GR_POLICY_KEY_LEN]);

/* Lets in whoever has some CURVE key. The user is the key, in Z85, unless it was added. */
void gr_policy_allow_any_key(gr_policy *self);

/* Lets in those who say nothing of themselves (mechanism NULL). They have no name. */
void gr_policy_allow_null(gr_policy *self);

/* Addresses: "10.1.2.3", "::1", either with the length of a prefix ("10.0.0.0/8"), or "ipc". Denied
 * ones are refused; when any are allowed, all others are. An address that is no IP address is
 * compared as it is: the original's brokers give a routing id. Returns 0, GR_EINVAL (also for what
 * looks like an address and is none, like "10.0.0.256", "10.*" or "localhost") or GR_ENOMEM. */
int gr_policy_add_address(gr_policy *self, gr_slice address, bool allow);

/* --- asking ------------------------------------------------------------------------------ */

/* Whether it is one of libzmq's for peers over ipc: "localhost:uid:gid:pid", or without the first
 * word. *user_id is what is in front of ":gid". */
bool gr_policy_is_ipc(gr_slice address, gr_slice *user_id);

bool gr_policy_admits_address(const gr_policy *self, gr_slice address);
bool gr_policy_admits_null(const gr_policy *self);
enum gr_verdict gr_policy_check_plain(const gr_policy *self, gr_slice user, gr_slice password);

/* Computes an Argon2 hash: some 50 ms and 64 MiB, as the hash wants. */
bool gr_policy_check_slowly(const gr_policy *self, gr_slice user, gr_slice password);

/* *user is the name, valid as long as the policy is held; for other keys that are let in it is in
 * z85. */
bool gr_policy_admits_key(const gr_policy *self, gr_slice key, char z85[41], gr_slice *user);

/* Whether it still knows such a user: one with a password or a key, or who is some key himself. */
bool gr_policy_knows(const gr_policy *self, gr_slice user);

/* A keyed hash of credentials, to compare them later without keeping them. */
enum { GR_POLICY_HASH_LEN = 32 };
void gr_policy_hash(const gr_policy *self, gr_slice user, gr_slice password,
                    uint8_t out[GR_POLICY_HASH_LEN]);

#endif
