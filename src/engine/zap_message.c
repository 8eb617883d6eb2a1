#include "engine/zap_message.h"

enum { MOST_ENVELOPE = 8 }; /* frames in front of the empty one */

size_t gr_zap_skip_envelope(const gr_msg *msg)
{
    size_t len = gr_msg_len(msg);
    for (size_t i = 0; i < len && i <= MOST_ENVELOPE; i++) {
        gr_slice frame = gr_msg_frame(msg, i);
        if (i > 0 && frame.len == 0)
            return i + 1;
        if (frame.len > GR_ZAP_FIELD_MAX)
            return 0;
    }
    return 0;
}

bool gr_zap_parse(const gr_msg *msg, size_t first, gr_zap_request *out)
{
    size_t len = gr_msg_len(msg);
    gr_slice *fields[] = {&out->version, &out->id,       &out->domain,
                          &out->address, &out->identity, &out->mechanism};
    enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };
    *out = (gr_zap_request){0};
    if (first == 0 || len < first + FIELDS || len > first + FIELDS + GR_ZAP_CREDENTIALS ||
        gr_msg_is_cut(msg))
        return false;
    for (size_t i = 0; i < FIELDS; i++) {
        *fields[i] = gr_msg_frame(msg, first + i);
        if (fields[i]->len > GR_ZAP_FIELD_MAX)
            return false;
    }
    out->credential_count = len - first - FIELDS;
    for (size_t i = 0; i < out->credential_count; i++) {
        out->credentials[i] = gr_msg_frame(msg, first + FIELDS + i);
        if (out->credentials[i].len > GR_ZAP_CREDENTIAL_MAX)
            return false;
    }
    return gr_slice_equal(out->version, gr_slice_str("1.0"));
}

bool gr_zap_shows(const gr_zap_request *self, const char *mechanism, size_t credentials)
{
    return gr_slice_equal(self->mechanism, gr_slice_str(mechanism)) &&
           self->credential_count == credentials;
}

int gr_zap_build_answer(gr_msg **out, const gr_msg *msg, size_t first, gr_slice id,
                        const char *status, const char *text, gr_slice user)
{
    gr_msg *answer;
    int rc = gr_msg_new(&answer);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < first && rc == 0; i++) {
        gr_slice frame = gr_msg_frame(msg, i);
        rc = gr_msg_add(answer, frame.data, frame.len);
    }
    const gr_slice rest[] = {gr_slice_str("1.0"), id,   gr_slice_str(status),
                             gr_slice_str(text),  user, gr_slice_str("")};
    for (size_t i = 0; i < sizeof(rest) / sizeof(rest[0]) && rc == 0; i++)
        rc = gr_msg_add(answer, rest[i].data, rest[i].len);
    if (rc < 0)
        gr_msg_destroy(&answer);
    else
        *out = answer;
    return rc;
}

int gr_zap_build_forward(gr_msg **out, const gr_msg *msg, size_t first, gr_slice id)
{
    enum { ID = 1, IDENTITY = 4 };
    gr_msg *asked;
    int rc = gr_msg_new(&asked);
    if (rc < 0)
        return rc;
    rc = gr_msg_add(asked, "", 0);
    for (size_t i = first; i < gr_msg_len(msg) && rc == 0; i++) {
        gr_slice frame = gr_msg_frame(msg, i);
        if (i - first == ID)
            frame = id;
        if (i - first == IDENTITY)
            frame = gr_slice_str("");
        rc = gr_msg_add(asked, frame.data, frame.len);
    }
    if (rc < 0)
        gr_msg_destroy(&asked);
    else
        *out = asked;
    return rc;
}
