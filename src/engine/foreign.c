#include "engine/foreign.h"

#include <stdio.h>

int gr_foreign_init(gr_foreign *self, const gr_foreign_options *options)
{
    const gr_credentials *given = &options->credentials;
    *self = (gr_foreign){.dialect = options->dialect, .seed = options->seed};
    if (self->dialect == NULL)
        self->dialect = &gr_dialect_gh1;
    int rc = gr_buf_reserve(&self->texts,
                            given->mechanism.len + given->user.len + given->password.len + 1);
    if (rc < 0)
        return rc;
    self->credentials.mechanism = gr_buf_keep(&self->texts, given->mechanism);
    self->credentials.user = gr_buf_keep(&self->texts, given->user);
    self->credentials.password = gr_buf_keep(&self->texts, given->password);
    return 0;
}

void gr_foreign_clear(gr_foreign *self)
{
    if (self->texts.len > 0)
        explicit_bzero(self->texts.data, self->texts.len);
    gr_buf_clear(&self->texts);
}

gr_slice gr_foreign_new_id(gr_foreign *self, const char *prefix)
{
    uint8_t tag[GR_TAG_LEN];
    self->id_len = 0;
    gr_tag_put(tag, self->seed * 0x9e3779b97f4a7c15 + ++self->connections, self->seed);
    if (self->dialect == &gr_dialect_gate01) {
        self->id_len = (size_t)snprintf(self->id, sizeof(self->id), "%s", prefix);
        for (int i = 0; i < GR_TAG_LEN; i++)
            self->id_len += (size_t)snprintf(self->id + self->id_len, 3, "%02x", tag[i]);
    } else if (self->dialect == &gr_dialect_gate02) {
        tag[6] = (uint8_t)(0x50 | (tag[6] & 0x0f)); /* the original's are version 5 UUIDs */
        memcpy(self->id, tag, sizeof(tag));
        self->id_len = sizeof(tag);
    }
    return gr_slice_of(self->id, self->id_len);
}

void gr_foreign_sign(const gr_foreign *self, gr_envelope *envelope)
{
    envelope->seed = self->seed;
    envelope->sender = gr_slice_of(self->id, self->id_len);
    envelope->credentials = self->credentials;
}
