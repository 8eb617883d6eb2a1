#include "engine/access.h"

#include <stdlib.h>
#include <uthash.h>

#include "base/err.h"

enum { MOST_REMEMBERED = 8192, KEY_MAX = 1 + 1 + 255 + GR_ACCESS_PATTERN_MAX };

struct permission {
    struct permission *next;
    enum gr_action action;
    size_t user_len, what_len;
    uint8_t bytes[]; /* user, then what */
};

/* What was found out: an action, a user and a name are the key. */
struct answer {
    UT_hash_handle hh;
    bool allowed;
    uint8_t key[];
};

struct gr_access {
    struct permission *permissions;
    struct answer *answers;
};

int gr_access_new(gr_access **out)
{
    *out = calloc(1, sizeof(**out));
    return *out != NULL ? 0 : GR_ENOMEM;
}

static void forget_answers(gr_access *self)
{
    struct answer *answer, *next;
    HASH_ITER (hh, self->answers, answer, next) {
        HASH_DEL(self->answers, answer);
        free(answer);
    }
}

void gr_access_destroy(gr_access **access)
{
    gr_access *self = *access;
    *access = NULL;
    if (self == NULL)
        return;
    forget_answers(self);
    while (self->permissions != NULL) {
        struct permission *gone = self->permissions;
        self->permissions = gone->next;
        free(gone);
    }
    free(self);
}

int gr_access_allow(gr_access *self, gr_slice user, enum gr_action action, gr_slice what)
{
    if (user.len == 0 || what.len == 0 || user.len > GR_ACCESS_PATTERN_MAX ||
        what.len > GR_ACCESS_PATTERN_MAX)
        return GR_EINVAL;
    struct permission *added = malloc(sizeof(*added) + user.len + what.len);
    if (added == NULL)
        return GR_ENOMEM;
    *added = (struct permission){
        .next = self->permissions, .action = action, .user_len = user.len, .what_len = what.len};
    memcpy(added->bytes, user.data, user.len);
    memcpy(added->bytes + user.len, what.data, what.len);
    self->permissions = added;
    forget_answers(self);
    return 0;
}

/* `*` stands for any bytes. After a mismatch only the last star seen can take one more. */
static bool matches(gr_slice pattern, gr_slice text)
{
    size_t p = 0, t = 0, star = SIZE_MAX, from = 0;
    while (t < text.len) {
        if (p < pattern.len && pattern.data[p] == '*') {
            star = p++;
            from = t;
        } else if (p < pattern.len && pattern.data[p] == text.data[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) {
            p = star + 1;
            t = ++from;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.data[p] == '*')
        p++;
    return p == pattern.len;
}

static bool is_permitted(const gr_access *self, gr_slice user, enum gr_action action, gr_slice what)
{
    gr_slice who = user.len > 0 ? user : gr_slice_str("anonymous");
    for (const struct permission *at = self->permissions; at != NULL; at = at->next) {
        gr_slice pattern = gr_slice_of(at->bytes, at->user_len);
        if (at->action != action ||
            (user.len == 0 ? !gr_slice_equal(pattern, who) : !matches(pattern, who)))
            continue;
        if (matches(gr_slice_of(at->bytes + at->user_len, at->what_len), what))
            return true;
    }
    return false;
}

static size_t put(uint8_t *key, size_t at, gr_slice bytes)
{
    if (bytes.len > 0)
        memcpy(key + at, bytes.data, bytes.len);
    return at + bytes.len;
}

static void remember(gr_access *self, const uint8_t *key, size_t len, bool allowed)
{
    if (HASH_COUNT(self->answers) >= MOST_REMEMBERED) /* somebody tries names */
        forget_answers(self);
    struct answer *added = malloc(sizeof(*added) + len);
    if (added == NULL)
        return;
    added->allowed = allowed;
    memcpy(added->key, key, len);
    HASH_ADD_KEYPTR(hh, self->answers, added->key, len, added);
}

bool gr_access_may(gr_access *self, gr_slice user, enum gr_action action, gr_slice service,
                   gr_slice method)
{
    uint8_t key[KEY_MAX];
    struct answer *found;
    if (user.len > 255 || service.len + 1 + method.len > GR_ACCESS_PATTERN_MAX)
        return false;
    key[0] = (uint8_t)action;
    key[1] = (uint8_t)user.len;
    size_t what = put(key, 2, user), len = put(key, what, service);
    if (action == GR_MAY_CALL) {
        key[len++] = '.';
        len = put(key, len, method);
    }
    HASH_FIND(hh, self->answers, key, len, found);
    if (found != NULL)
        return found->allowed;
    bool allowed = is_permitted(self, user, action, gr_slice_of(key + what, len - what));
    remember(self, key, len, allowed);
    return allowed;
}
