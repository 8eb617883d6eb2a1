#include "base/digest.h"

#include <stdlib.h>
#include <xxhash.h>

#include "base/err.h"

struct gr_digest {
    XXH3_state_t *state; /* needs more alignment than malloc gives */
};

int gr_digest_new(gr_digest **out)
{
    gr_digest *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->state = XXH3_createState();
    if (self->state == NULL) {
        free(self);
        return GR_ENOMEM;
    }
    XXH3_128bits_reset(self->state);
    *out = self;
    return 0;
}

void gr_digest_destroy(gr_digest **digest)
{
    gr_digest *self = *digest;
    if (self == NULL)
        return;
    XXH3_freeState(self->state);
    free(self);
    *digest = NULL;
}

void gr_digest_add(gr_digest *self, gr_slice bytes)
{
    if (bytes.len > 0)
        XXH3_128bits_update(self->state, bytes.data, bytes.len);
}

void gr_digest_get(const gr_digest *self, uint8_t out[GR_DIGEST_LEN])
{
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(self->state));
    memcpy(out, canonical.digest, GR_DIGEST_LEN);
}
