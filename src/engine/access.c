#include "engine/access.h"

#include <stdlib.h>
#include <uthash.h>

#include "base/err.h"

enum { MOST = 255 };

struct gr_access_user {
    UT_hash_handle hh; /* by the name */
    size_t name_len;
    size_t password_len;
    uint8_t name[MOST];
    uint8_t password[MOST]; /* zeros behind it */
};

int gr_access_add(gr_access *self, gr_slice user, gr_slice password)
{
    struct gr_access_user *added;
    if (user.len == 0 || user.len > MOST || password.len == 0 || password.len > MOST)
        return GR_EINVAL;
    HASH_FIND(hh, self->users, user.data, user.len, added);
    if (added == NULL) {
        added = calloc(1, sizeof(*added));
        if (added == NULL)
            return GR_ENOMEM;
        memcpy(added->name, user.data, user.len);
        added->name_len = user.len;
        HASH_ADD_KEYPTR(hh, self->users, added->name, added->name_len, added);
    }
    memset(added->password, 0, sizeof(added->password));
    memcpy(added->password, password.data, password.len);
    added->password_len = password.len;
    return 0;
}

/* Looks at every byte that a password may have, whatever the first difference. */
static bool is_same(const uint8_t right[MOST], size_t right_len, gr_slice tried)
{
    volatile size_t different = right_len ^ tried.len;
    for (size_t i = 0; i < MOST; i++)
        different |= (size_t)(right[i] ^ (i < tried.len ? tried.data[i] : 0));
    return different == 0;
}

bool gr_access_allows(const gr_access *self, const gr_credentials *credentials)
{
    static const struct gr_access_user nobody;
    struct gr_access_user *found = NULL;
    if (self->users == NULL)
        return true;
    if (!gr_slice_equal(credentials->mechanism, gr_slice_str("PLAIN")))
        return false;
    if (credentials->user.len > 0)
        HASH_FIND(hh, self->users, credentials->user.data, credentials->user.len, found);
    const struct gr_access_user *user = found != NULL ? found : &nobody;
    return is_same(user->password, user->password_len, credentials->password) && found != NULL;
}

void gr_access_clear(gr_access *self)
{
    struct gr_access_user *user, *next;
    HASH_ITER (hh, self->users, user, next) {
        HASH_DEL(self->users, user);
        explicit_bzero(user->password, sizeof(user->password));
        free(user);
    }
}
