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

static int add_all(gr_msg *msg, const gr_slice frames[], size_t len)
{
    int rc = 0;
    for (size_t i = 0; i < len && rc == 0; i++)
        rc = gr_msg_add(msg, frames[i].data, frames[i].len);
    return rc;
}

int gr_zap_build_answer(gr_msg **out, const gr_msg *msg, size_t first, gr_slice id,
                        const char *status, const char *text, gr_slice user)
{
    const gr_slice rest[] = {gr_slice_str("1.0"), id,   gr_slice_str(status),
                             gr_slice_str(text),  user, gr_slice_str("")};
    gr_msg *answer;
    int rc = gr_msg_new(&answer);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < first && rc == 0; i++) {
        gr_slice frame = gr_msg_frame(msg, i);
        rc = gr_msg_add(answer, frame.data, frame.len);
    }
    if (rc == 0)
        rc = add_all(answer, rest, sizeof(rest) / sizeof(rest[0]));
    if (rc < 0)
        gr_msg_destroy(&answer);
    else
        *out = answer;
    return rc;
}

int gr_zap_build_request(gr_msg **out, const gr_zap_request *request)
{
    const gr_slice head[] = {gr_slice_str(""),  gr_slice_str("1.0"), request->id,
                             request->domain,   request->address,    request->identity,
                             request->mechanism};
    gr_msg *asked;
    int rc = gr_msg_new(&asked);
    if (rc < 0)
        return rc;
    rc = add_all(asked, head, sizeof(head) / sizeof(head[0]));
    if (rc == 0)
        rc = add_all(asked, request->credentials, request->credential_count);
    if (rc < 0)
        gr_msg_destroy(&asked);
    else
        *out = asked;
    return rc;
}

bool gr_zap_parse_reply(const gr_msg *msg, gr_zap_reply *out)
{
    enum { DELIMITER, VERSION, ID, STATUS, TEXT, USER, METADATA, FRAMES };
    if (gr_msg_len(msg) != FRAMES || gr_msg_frame(msg, DELIMITER).len != 0 ||
        !gr_slice_equal(gr_msg_frame(msg, VERSION), gr_slice_str("1.0")) ||
        gr_msg_frame(msg, USER).len > GR_ZAP_FIELD_MAX)
        return false;
    gr_slice status = gr_msg_frame(msg, STATUS);
    *out = (gr_zap_reply){
        .id = gr_msg_frame(msg, ID), .user = gr_msg_frame(msg, USER), .verdict = GR_UNDECIDED};
    if (gr_slice_equal(status, gr_slice_str("200")))
        out->verdict = GR_ADMITTED;
    else if (gr_slice_equal(status, gr_slice_str("400")))
        out->verdict = GR_REFUSED;
    return true;
}
