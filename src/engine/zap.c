#include "engine/zap.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/heap.h"
#include "engine/events.h"
#include "engine/penalty.h"
#include "engine/zap_message.h"

enum {
    PENALTY_MS = 1000,
    TIMEOUT_MS = 5000,
    MOST_HELD = 4096,  /* refusals; beyond they go out at once */
    MOST_ASKED = 4096, /* questions to services elsewhere */
    MOST_SLOW = 256,   /* hashes that wait */
    MOST_SLOW_OF = 64, /* of these for one source: the others have their turn as well */
    NONCE_LEN = 32,    /* hexadecimal: the original's services take text for an id */
};

struct domain {
    UT_hash_handle hh; /* by the name */
    gr_policy *policy; /* or NULL: a service elsewhere */
    uint32_t remote;
    struct proved *proved;
    size_t name_len;
    char name[GR_ZAP_FIELD_MAX];
};

/* The last password of a user that a slow hash has proved right. */
struct proved {
    UT_hash_handle hh; /* by the name */
    uint8_t hash[GR_POLICY_HASH_LEN];
    size_t name_len;
    char name[GR_POLICY_NAME_MAX];
};

enum state {
    SLOW,  /* its password's hash is to be computed */
    ASKED, /* a service elsewhere was asked; due is when it is given up */
    HELD,  /* the refusal goes out when it is due */
};

struct question {
    gr_zap_via via;
    gr_msg *msg;
    size_t first;           /* frame of the request, behind the empty one */
    gr_zap_request request; /* in msg */
    enum state state;
    gr_due due;
    UT_hash_handle hh; /* ASKED: by the nonce */
    char nonce[NONCE_LEN];
    uint32_t remote; /* ASKED: which service */
    struct question *prev, *next;
};

struct out {
    gr_zap_via via;
    gr_msg *msg;
};

GR_EVENTS(struct out, outs)

struct gr_zap {
    gr_zap_options options;
    struct domain *domains;
    struct question *questions; /* all */
    struct question *asked;     /* by nonce */
    gr_heap heap;               /* HELD and ASKED */
    size_t held_count, slow_count;
    gr_penalty penalty;
    struct outs outs;
    gr_zap_stats stats;
    char last[200];
};

int gr_zap_new(gr_zap **out, const gr_zap_options *options)
{
    if (sodium_init() < 0)
        return GR_ENOMEM;
    gr_zap *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->options = *options;
    if (self->options.penalty_ms == 0)
        self->options.penalty_ms = PENALTY_MS;
    if (self->options.timeout_ms == 0)
        self->options.timeout_ms = TIMEOUT_MS;
    self->penalty.most_ms = self->options.penalty_ms;
    *out = self;
    return 0;
}

/* --- domains ----------------------------------------------------------------------------- */

static void forget_proved(struct domain *domain)
{
    struct proved *proved, *next;
    HASH_ITER (hh, domain->proved, proved, next) {
        HASH_DEL(domain->proved, proved);
        sodium_memzero(proved, sizeof(*proved));
        free(proved);
    }
}

static struct domain *find_domain(const gr_zap *self, gr_slice name)
{
    struct domain *found = NULL;
    if (name.len > 0 && name.len <= GR_ZAP_FIELD_MAX)
        HASH_FIND(hh, self->domains, name.data, name.len, found);
    return found;
}

static int reset_domain(gr_zap *self, gr_slice name, struct domain **out)
{
    if (name.len == 0 || name.len > GR_ZAP_FIELD_MAX)
        return GR_EINVAL;
    struct domain *found = find_domain(self, name);
    if (found == NULL) {
        found = calloc(1, sizeof(*found));
        if (found == NULL)
            return GR_ENOMEM;
        memcpy(found->name, name.data, name.len);
        found->name_len = name.len;
        HASH_ADD_KEYPTR(hh, self->domains, found->name, found->name_len, found);
    }
    gr_policy_release(&found->policy);
    forget_proved(found);
    *out = found;
    return 0;
}

int gr_zap_set_policy(gr_zap *self, gr_slice name, gr_policy **policy)
{
    struct domain *domain;
    int rc = reset_domain(self, name, &domain);
    if (rc < 0)
        return rc;
    domain->policy = *policy;
    *policy = NULL;
    return 0;
}

int gr_zap_set_remote(gr_zap *self, gr_slice name, uint32_t number)
{
    struct domain *domain;
    int rc = reset_domain(self, name, &domain);
    if (rc == 0)
        domain->remote = number;
    return rc;
}

static void remove_domain(gr_zap *self, struct domain *domain)
{
    HASH_DEL(self->domains, domain);
    gr_policy_release(&domain->policy);
    forget_proved(domain);
    free(domain);
}

void gr_zap_remove(gr_zap *self, gr_slice name)
{
    struct domain *found = find_domain(self, name);
    if (found != NULL)
        remove_domain(self, found);
}

bool gr_zap_asks(const gr_zap *self, uint32_t number)
{
    for (const struct domain *at = self->domains; at != NULL; at = at->hh.next)
        if (at->policy == NULL && at->remote == number)
            return true;
    return false;
}

/* --- questions --------------------------------------------------------------------------- */

static void end_question(gr_zap *self, struct question *question)
{
    if (question->state == ASKED)
        HASH_DEL(self->asked, question);
    self->held_count -= question->state == HELD;
    self->slow_count -= question->state == SLOW;
    gr_heap_remove(&self->heap, &question->due);
    DL_DELETE(self->questions, question);
    gr_msg_destroy(&question->msg);
    free(question);
}

void gr_zap_destroy(gr_zap **zap)
{
    gr_zap *self = *zap;
    if (self == NULL)
        return;
    while (self->questions != NULL)
        end_question(self, self->questions);
    struct domain *domain, *next;
    HASH_ITER (hh, self->domains, domain, next)
        remove_domain(self, domain);
    struct out out;
    while (outs_pop(&self->outs, &out))
        gr_msg_destroy(&out.msg);
    free(self->outs.items);
    gr_heap_clear(&self->heap);
    gr_penalty_clear(&self->penalty);
    free(self);
    *zap = NULL;
}

/* Keeps a question until something happens, and takes its message. Returns NULL when memory is
 * short. */
static struct question *keep(gr_zap *self, struct question *question, enum state state)
{
    struct question *kept = malloc(sizeof(*kept));
    if (kept == NULL)
        return NULL;
    *kept = *question;
    kept->state = state;
    question->msg = NULL;
    DL_APPEND(self->questions, kept);
    self->held_count += state == HELD;
    self->slow_count += state == SLOW;
    return kept;
}

/* The other way round: what is left belongs to the caller, who decides about it. */
static struct question take_out(gr_zap *self, struct question *kept)
{
    struct question question = {
        .via = kept->via, .msg = kept->msg, .first = kept->first, .request = kept->request};
    kept->msg = NULL;
    end_question(self, kept);
    return question;
}

/* --- answers ----------------------------------------------------------------------------- */

/* The original's 0.1 brokers find what they asked for by the user: the identity that they gave,
 * also when it is refused. Its brokers know no addresses and give the identity in both places;
 * anybody else's is not to name its user by what the peer says of itself. */
static gr_slice user_field(const struct question *question, gr_slice user)
{
    const gr_zap_request *request = &question->request;
    bool is_original = question->via.door == GR_ZAP_SERVICE && request->identity.len > 0 &&
                       gr_slice_equal(request->identity, request->address);
    return is_original ? request->identity : user;
}

static void answer(gr_zap *self, const struct question *question, const char *status,
                   const char *text, gr_slice user)
{
    struct out out = {.via = question->via};
    if (gr_zap_build_answer(&out.msg, question->msg, question->first, question->request.id, status,
                            text, user_field(question, user)) == 0 &&
        outs_push(&self->outs, &out) < 0)
        gr_msg_destroy(&out.msg);
}

static void admit(gr_zap *self, const struct question *question, gr_slice user)
{
    self->stats.admitted++;
    answer(self, question, "200", "OK", user);
}

/* Nobody decided: refused, and not by a fault of the one who asks. */
static void fail(gr_zap *self, const struct question *question, const char *text)
{
    self->stats.failed++;
    answer(self, question, "500", text, gr_slice_str(""));
}

static void answer_no(gr_zap *self, const struct question *question)
{
    answer(self, question, "400", "NO ACCESS", gr_slice_str(""));
}

static void note_refused(gr_zap *self, const gr_zap_request *request, const char *why)
{
    self->stats.refused++;
    snprintf(self->last, sizeof(self->last), "%.*s in domain %.*s from %.*s: %s",
             (int)gr_least(request->mechanism.len, 16), (const char *)request->mechanism.data,
             (int)gr_least(request->domain.len, 64), (const char *)request->domain.data,
             (int)gr_least(request->address.len, 64), (const char *)request->address.data, why);
}

/* Whom refusals are counted for: over ipc the user, who may have any number of processes. */
static gr_slice source_of(const gr_zap_request *request)
{
    gr_slice user_id;
    return gr_policy_is_ipc(request->address, &user_id) ? user_id : request->address;
}

/* Takes the question's message when it holds the answer back. */
static void refuse(gr_zap *self, struct question *question, const char *why, int64_t now_ms)
{
    note_refused(self, &question->request, why);
    uint32_t penalty_ms = gr_penalty_add(&self->penalty, source_of(&question->request), now_ms);
    struct question *held = self->held_count < MOST_HELD ? keep(self, question, HELD) : NULL;
    if (held == NULL) {
        answer_no(self, question);
    } else if (gr_heap_set(&self->heap, &held->due, now_ms + penalty_ms) < 0) {
        answer_no(self, held);
        end_question(self, held);
    }
}

/* --- deciding ---------------------------------------------------------------------------- */

static struct proved *find_proved(const struct domain *domain, gr_slice user)
{
    struct proved *found = NULL;
    if (user.len > 0 && user.len <= GR_POLICY_NAME_MAX)
        HASH_FIND(hh, domain->proved, user.data, user.len, found);
    return found;
}

static bool is_proved(const struct domain *domain, const gr_zap_request *request)
{
    const struct proved *found = find_proved(domain, request->credentials[0]);
    uint8_t hash[GR_POLICY_HASH_LEN];
    gr_policy_hash(domain->policy, request->credentials[0], request->credentials[1], hash);
    bool same = found != NULL && sodium_memcmp(hash, found->hash, sizeof(hash)) == 0;
    sodium_memzero(hash, sizeof(hash));
    return same;
}

static void note_proved(struct domain *domain, const gr_zap_request *request)
{
    gr_slice user = request->credentials[0];
    struct proved *found = find_proved(domain, user);
    if (found == NULL) {
        found = calloc(1, sizeof(*found));
        if (found == NULL)
            return;
        memcpy(found->name, user.data, user.len);
        found->name_len = user.len;
        HASH_ADD_KEYPTR(hh, domain->proved, found->name, found->name_len, found);
    }
    gr_policy_hash(domain->policy, user, request->credentials[1], found->hash);
}

static enum gr_verdict check(const struct domain *domain, const gr_zap_request *request,
                             char z85[41], gr_slice *user, const char **why)
{
    const gr_policy *policy = domain->policy;
    *user = gr_slice_str("");
    *why = "its address is not allowed";
    if (!gr_policy_admits_address(policy, request->address))
        return GR_REFUSED;
    if (gr_zap_shows(request, "NULL", 0)) {
        *why = "who has nothing to show is not let in";
        return gr_policy_admits_null(policy) ? GR_ADMITTED : GR_REFUSED;
    }
    if (gr_zap_shows(request, "PLAIN", 2)) {
        *why = "user or password are wrong";
        *user = request->credentials[0];
        enum gr_verdict verdict = gr_policy_check_plain(policy, *user, request->credentials[1]);
        return verdict == GR_UNDECIDED && is_proved(domain, request) ? GR_ADMITTED : verdict;
    }
    if (gr_zap_shows(request, "CURVE", 1)) {
        *why = "its key is unknown";
        return gr_policy_admits_key(policy, request->credentials[0], z85, user) ? GR_ADMITTED
                                                                                : GR_REFUSED;
    }
    *why = "there is no such mechanism here";
    return GR_REFUSED;
}

static bool may_wait(const gr_zap *self, const struct question *question)
{
    size_t same = 0;
    if (self->slow_count >= MOST_SLOW)
        return false;
    for (const struct question *at = self->questions; at != NULL; at = at->next)
        same += at->state == SLOW &&
                gr_slice_equal(source_of(&at->request), source_of(&question->request));
    return same < MOST_SLOW_OF;
}

static void ask_elsewhere(gr_zap *self, struct question *question, uint32_t remote, int64_t now_ms);

static void decide(gr_zap *self, struct question *question, int64_t now_ms)
{
    char z85[41];
    gr_slice user;
    const char *why;
    if (!gr_zap_parse(question->msg, question->first, &question->request)) {
        self->stats.malformed++;
        if (question->request.id.len > 0)
            answer_no(self, question);
        return;
    }
    const struct domain *domain = find_domain(self, question->request.domain);
    if (domain == NULL) {
        refuse(self, question, "there is no such domain", now_ms);
        return;
    }
    if (domain->policy == NULL) {
        ask_elsewhere(self, question, domain->remote, now_ms);
        return;
    }
    switch (check(domain, &question->request, z85, &user, &why)) {
    case GR_ADMITTED:
        admit(self, question, user);
        break;
    case GR_REFUSED:
        refuse(self, question, why, now_ms);
        break;
    case GR_UNDECIDED:
        if (!may_wait(self, question) || keep(self, question, SLOW) == NULL)
            fail(self, question, "too many passwords wait to be checked");
        break;
    }
}

/* --- slow hashes ------------------------------------------------------------------------- */

/* When a question's turn comes: a source that was refused waits its penalty first. */
static int64_t turn_of(const gr_zap *self, const struct question *question)
{
    return gr_penalty_until(&self->penalty, source_of(&question->request));
}

/* What the domain says now: it may have changed since the question came. */
static void decide_slowly(gr_zap *self, struct question *question, int64_t now_ms)
{
    const gr_zap_request *request = &question->request;
    char z85[41];
    gr_slice user;
    const char *why = "there is no such domain";
    struct domain *domain = find_domain(self, request->domain);
    enum gr_verdict verdict = GR_REFUSED;
    if (domain != NULL && domain->policy != NULL)
        verdict = check(domain, request, z85, &user, &why);
    if (verdict == GR_UNDECIDED &&
        gr_policy_check_slowly(domain->policy, request->credentials[0], request->credentials[1])) {
        note_proved(domain, request);
        verdict = GR_ADMITTED;
    }
    if (verdict == GR_ADMITTED)
        admit(self, question, user);
    else
        refuse(self, question, why, now_ms);
}

bool gr_zap_work(gr_zap *self, int64_t now_ms)
{
    struct question *at = self->questions;
    while (at != NULL && (at->state != SLOW || turn_of(self, at) > now_ms))
        at = at->next;
    if (at == NULL)
        return false;
    struct question question = take_out(self, at);
    decide_slowly(self, &question, now_ms);
    gr_msg_destroy(&question.msg);
    return true;
}

/* --- services elsewhere ------------------------------------------------------------------ */

static void make_nonce(char nonce[NONCE_LEN])
{
    uint8_t bytes[NONCE_LEN / 2];
    char hex[NONCE_LEN + 1];
    randombytes_buf(bytes, sizeof(bytes));
    sodium_bin2hex(hex, sizeof(hex), bytes, sizeof(bytes));
    memcpy(nonce, hex, NONCE_LEN);
}

/* The same request under a number of ours, without the identity: then a service of ours gives the
 * user's name, where the original's brokers want their own word back. */
static void ask_elsewhere(gr_zap *self, struct question *question, uint32_t remote, int64_t now_ms)
{
    struct out out = {.via = {.door = GR_ZAP_REMOTE, .number = remote}};
    make_nonce(question->nonce);
    question->remote = remote;
    gr_zap_request request = question->request;
    request.id = gr_slice_of(question->nonce, NONCE_LEN);
    request.identity = gr_slice_str("");
    if (HASH_COUNT(self->asked) >= MOST_ASKED || gr_zap_build_request(&out.msg, &request) < 0) {
        fail(self, question, "too many questions wait");
        return;
    }
    struct question *asked = keep(self, question, ASKED);
    if (asked == NULL) {
        gr_msg_destroy(&out.msg);
        fail(self, question, "out of memory");
        return;
    }
    HASH_ADD(hh, self->asked, nonce, NONCE_LEN, asked);
    if (gr_heap_set(&self->heap, &asked->due, now_ms + self->options.timeout_ms) < 0 ||
        outs_push(&self->outs, &out) < 0) {
        gr_msg_destroy(&out.msg);
        fail(self, asked, "out of memory");
        end_question(self, asked);
    }
}

/* The name of whom a service elsewhere has admitted: PLAIN says it, whatever the service calls it,
 * and NULL has none. False when it is none that a broker could be told. */
static bool name_of(const gr_zap_request *request, gr_slice said, char z85[41], gr_slice *name)
{
    *name = said;
    if (gr_zap_shows(request, "NULL", 0))
        *name = gr_slice_str("");
    else if (gr_zap_shows(request, "PLAIN", 2))
        *name = request->credentials[0];
    else if (said.len == 0 && gr_zap_shows(request, "CURVE", 1) &&
             request->credentials[0].len == GR_POLICY_KEY_LEN)
        *name = gr_slice_str(zmq_z85_encode(z85, request->credentials[0].data, GR_POLICY_KEY_LEN));
    return name->len <= GR_ZAP_FIELD_MAX &&
           (name->len == 0 || memchr(name->data, '\0', name->len) == NULL);
}

/* The question that it answers, or NULL. */
static struct question *find_asked(gr_zap *self, uint32_t remote, const gr_msg *msg,
                                   gr_zap_reply *out)
{
    struct question *asked;
    if (!gr_zap_parse_reply(msg, out) || out->id.len != NONCE_LEN)
        return NULL;
    HASH_FIND(hh, self->asked, out->id.data, NONCE_LEN, asked);
    return asked != NULL && asked->remote == remote ? asked : NULL;
}

static bool is_decided_by(const gr_zap *self, gr_slice domain, uint32_t remote)
{
    const struct domain *found = find_domain(self, domain);
    return found != NULL && found->policy == NULL && found->remote == remote;
}

static void on_reply(gr_zap *self, uint32_t remote, const gr_msg *msg, int64_t now_ms)
{
    gr_zap_reply reply;
    struct question *asked = find_asked(self, remote, msg, &reply);
    if (asked == NULL) {
        self->stats.malformed++;
        return;
    }
    struct question question = take_out(self, asked);
    char z85[41];
    gr_slice name;
    if (!is_decided_by(self, question.request.domain, remote))
        refuse(self, &question, "the domain has changed meanwhile", now_ms);
    else if (reply.verdict == GR_REFUSED)
        refuse(self, &question, "the ZAP service says so", now_ms);
    else if (reply.verdict == GR_ADMITTED && name_of(&question.request, reply.user, z85, &name))
        admit(self, &question, name);
    else
        fail(self, &question, "the ZAP service has failed");
    gr_msg_destroy(&question.msg);
}

/* --- the face ---------------------------------------------------------------------------- */

void gr_zap_receive(gr_zap *self, gr_zap_via via, gr_msg **msg, int64_t now_ms)
{
    if (via.door == GR_ZAP_REMOTE) {
        on_reply(self, via.number, *msg, now_ms);
        gr_msg_destroy(msg);
        return;
    }
    struct question question = {.via = via, .msg = *msg, .first = gr_zap_skip_envelope(*msg)};
    *msg = NULL;
    decide(self, &question, now_ms);
    gr_msg_destroy(&question.msg);
}

bool gr_zap_next_out(gr_zap *self, gr_zap_via *via, gr_msg **msg)
{
    struct out out;
    if (!outs_pop(&self->outs, &out))
        return false;
    *via = out.via;
    *msg = out.msg;
    return true;
}

void gr_zap_tick(gr_zap *self, int64_t now_ms)
{
    gr_due *due;
    while ((due = gr_heap_first(&self->heap)) != NULL && due->at_ms <= now_ms) {
        struct question *question = GR_HEAP_ENTRY(due, struct question, due);
        if (question->state == HELD)
            answer_no(self, question);
        else
            fail(self, question, "the ZAP service does not answer");
        end_question(self, question);
    }
}

int64_t gr_zap_next_due(const gr_zap *self)
{
    const gr_due *due = gr_heap_first(&self->heap);
    int64_t at_ms = due != NULL ? due->at_ms : GR_NEVER;
    if (self->slow_count == 0)
        return at_ms;
    for (const struct question *at = self->questions; at != NULL; at = at->next) {
        int64_t turn_ms = at->state == SLOW ? turn_of(self, at) : GR_NEVER;
        if (turn_ms < at_ms)
            at_ms = turn_ms;
    }
    return at_ms;
}

void gr_zap_get_stats(const gr_zap *self, gr_zap_stats *out)
{
    *out = self->stats;
}

void gr_zap_last_refused(const gr_zap *self, char *text, size_t len)
{
    snprintf(text, len, "%s", self->last);
}
