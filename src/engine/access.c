#include "engine/access.h"

#include <stdlib.h>
#include <uthash.h>

#include "base/err.h"

enum { LONGEST = 255, MOST_REMEMBERED = 8192, KEY_MAX = 3 + 3 * LONGEST };

struct permission {
    struct permission *next;
    enum gr_action action;
    gr_slice user, service, method; /* patterns, in bytes; the method's only to call */
    uint8_t bytes[];
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

/* Takes the pattern of what is called apart at its last dot. */
static int split(gr_slice what, gr_slice *service, gr_slice *method)
{
    const uint8_t *dot = memrchr(what.data, '.', what.len);
    *service = *method = what;
    if (dot == NULL)
        return gr_slice_equal(what, gr_slice_str("*")) ? 0 : GR_EINVAL;
    *service = gr_slice_first(what, (size_t)(dot - what.data));
    *method = gr_slice_skip(what, service->len + 1);
    return service->len > 0 && method->len > 0 ? 0 : GR_EINVAL;
}

int gr_access_allow(gr_access *self, gr_slice user, enum gr_action action, gr_slice what)
{
    if (user.len == 0 || what.len == 0 || user.len > GR_ACCESS_PATTERN_MAX ||
        what.len > GR_ACCESS_PATTERN_MAX)
        return GR_EINVAL;
    struct permission *added = malloc(sizeof(*added) + user.len + what.len);
    if (added == NULL)
        return GR_ENOMEM;
    memcpy(added->bytes, user.data, user.len);
    memcpy(added->bytes + user.len, what.data, what.len);
    added->action = action;
    added->user = gr_slice_of(added->bytes, user.len);
    added->service = gr_slice_of(added->bytes + user.len, what.len);
    added->method = gr_slice_str("");
    if (action == GR_MAY_CALL && split(added->service, &added->service, &added->method) < 0) {
        free(added);
        return GR_EINVAL;
    }
    added->next = self->permissions;
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

static bool is_for(const struct permission *self, gr_slice user)
{
    return user.len > 0 ? matches(self->user, user)
                        : gr_slice_equal(self->user, gr_slice_str("anonymous"));
}

static bool is_permitted(const gr_access *self, gr_slice user, enum gr_action action,
                         gr_slice service, gr_slice method)
{
    for (const struct permission *at = self->permissions; at != NULL; at = at->next)
        if (at->action == action && is_for(at, user) && matches(at->service, service) &&
            (action == GR_MAY_REGISTER || matches(at->method, method)))
            return true;
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
    if (user.len > LONGEST || service.len > LONGEST || method.len > LONGEST)
        return false;
    key[0] = (uint8_t)action;
    key[1] = (uint8_t)user.len;
    key[2] = (uint8_t)service.len;
    size_t len = put(key, put(key, put(key, 3, user), service), method);
    HASH_FIND(hh, self->answers, key, len, found);
    if (found != NULL)
        return found->allowed;
    bool allowed = is_permitted(self, user, action, service, method);
    remember(self, key, len, allowed);
    return allowed;
}
