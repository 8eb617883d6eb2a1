/* zap_message.h - the frames of ZAP requests and replies (https://rfc.zeromq.org/spec/27/).
 *
 * In front of them stand routing ids and an empty frame, the envelope. Holds no state. */
#ifndef GR_ZAP_MESSAGE_H
#define GR_ZAP_MESSAGE_H

#include <stdbool.h>

#include "engine/policy.h"
#include "wire/msg.h"

enum {
    GR_ZAP_FIELD_MAX = 255, /* bytes of every field but credentials */
    GR_ZAP_CREDENTIAL_MAX = 4096,
    GR_ZAP_CREDENTIALS = 2, /* at most */
};

/* Section "Request format"; slices of the message. */
typedef struct gr_zap_request {
    gr_slice version, id, domain, address, identity, mechanism;
    gr_slice credentials[GR_ZAP_CREDENTIALS];
    size_t credential_count;
} gr_zap_request;

/* Section "Reply format"; slices of the message. */
typedef struct gr_zap_reply {
    gr_slice id, user;
    enum gr_verdict verdict; /* status 200, 400, or any other: nobody has decided */
} gr_zap_reply;

/* The number of the first frame behind the envelope; 0 when there is none, or too much of it. */
size_t gr_zap_skip_envelope(const gr_msg *msg);

/* Takes the request from frame `first` on apart. False when it is none, or above a bound; then *out
 * has what could be read, the id mostly. */
bool gr_zap_parse(const gr_msg *msg, size_t first, gr_zap_request *out);

/* The request shows this mechanism, with so many credentials. */
bool gr_zap_shows(const gr_zap_request *self, const char *mechanism, size_t credentials);

/* Makes the reply to the request in msg, with its envelope. Returns 0 or GR_ENOMEM. */
int gr_zap_build_answer(gr_msg **out, const gr_msg *msg, size_t first, gr_slice id,
                        const char *status, const char *text, gr_slice user);

/* Makes a request for whoever is asked over a DEALER; its version need not be filled in. Returns 0
 * or GR_ENOMEM. */
int gr_zap_build_request(gr_msg **out, const gr_zap_request *request);

/* Takes a reply that came over a DEALER apart. False when it is none. */
bool gr_zap_parse_reply(const gr_msg *msg, gr_zap_reply *out);

#endif
