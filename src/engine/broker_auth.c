/* broker_auth.c - who a peer is, and what it may do. */
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "engine/broker_priv.h"

enum {
    MOST_VERDICTS = 8192,
    HASH_LEN = 32,
    HELD_LEN = 1024,       /* messages of one peer that wait for an answer about it */
    RETRY_AFTER_MS = 1000, /* a refusal is remembered so long: the one who decides is not flooded */
};

/* What was answered about credentials. */
struct verdict {
    UT_hash_handle hh;
    uint8_t hash[HASH_LEN];
    enum gr_verdict is;
    int64_t until_ms;
};

struct question {
    struct question *prev, *next;
    uint64_t number;
    gr_peer *peer;
    int64_t due_ms;
    uint8_t hash[HASH_LEN];
    gr_credentials credentials; /* in texts */
    gr_buf texts;
};

/* --- what was answered ------------------------------------------------------------------- */

static void hash_slice(crypto_generichash_state *state, gr_slice bytes)
{
    uint64_t len = bytes.len;
    crypto_generichash_update(state, (const uint8_t *)&len, sizeof(len));
    if (bytes.len > 0)
        crypto_generichash_update(state, bytes.data, bytes.len);
}

/* Credentials are not kept, only what they hash to; addresses count, because they may decide. */
static void hash_credentials(gr_broker *self, const gr_peer *peer,
                             const gr_credentials *credentials, uint8_t out[HASH_LEN])
{
    crypto_generichash_state state;
    crypto_generichash_init(&state, self->hash_key, sizeof(self->hash_key), HASH_LEN);
    hash_slice(&state, credentials->mechanism);
    hash_slice(&state, credentials->user);
    hash_slice(&state, credentials->password);
    hash_slice(&state, gr_buf_slice(&peer->address));
    crypto_generichash_final(&state, out, HASH_LEN);
    sodium_memzero(&state, sizeof(state));
}

static void forget_verdict(gr_broker *self, struct verdict *verdict)
{
    HASH_DEL(self->verdicts, verdict);
    free(verdict);
}

static void forget_verdicts(gr_broker *self)
{
    while (self->verdicts != NULL)
        forget_verdict(self, self->verdicts);
}

static void remember(gr_broker *self, const uint8_t hash[HASH_LEN], enum gr_verdict is,
                     int64_t now_ms)
{
    struct verdict *known;
    HASH_FIND(hh, self->verdicts, hash, HASH_LEN, known);
    if (known == NULL) {
        if (HASH_COUNT(self->verdicts) >= MOST_VERDICTS)
            forget_verdict(self, self->verdicts); /* the oldest */
        known = calloc(1, sizeof(*known));
        if (known == NULL)
            return;
        memcpy(known->hash, hash, HASH_LEN);
        HASH_ADD(hh, self->verdicts, hash, HASH_LEN, known);
    }
    known->is = is;
    known->until_ms = now_ms + (is == GR_ADMITTED ? self->options.remember_ms : RETRY_AFTER_MS);
}

static const struct verdict *find_verdict(gr_broker *self, const uint8_t hash[HASH_LEN],
                                          int64_t now_ms)
{
    struct verdict *known;
    HASH_FIND(hh, self->verdicts, hash, HASH_LEN, known);
    if (known != NULL && known->until_ms <= now_ms) {
        forget_verdict(self, known);
        known = NULL;
    }
    return known;
}

/* --- questions --------------------------------------------------------------------------- */

static void end_question(gr_broker *self, struct question *question)
{
    if (self->unasked == question)
        self->unasked = question->next;
    DL_DELETE(self->questions, question);
    question->peer->question = NULL;
    if (question->texts.len > 0)
        sodium_memzero(question->texts.data, question->texts.len);
    gr_buf_clear(&question->texts);
    free(question);
}

static bool ask(gr_broker *self, gr_peer *peer, const gr_credentials *credentials,
                const uint8_t hash[HASH_LEN], int64_t now_ms)
{
    struct question *asked = calloc(1, sizeof(*asked));
    if (asked == NULL)
        return false;
    if (gr_buf_reserve(&asked->texts, credentials->mechanism.len + credentials->user.len +
                                          credentials->password.len + 1) < 0) {
        free(asked);
        return false;
    }
    asked->credentials.mechanism = gr_buf_keep(&asked->texts, credentials->mechanism);
    asked->credentials.user = gr_buf_keep(&asked->texts, credentials->user);
    asked->credentials.password = gr_buf_keep(&asked->texts, credentials->password);
    memcpy(asked->hash, hash, HASH_LEN);
    asked->number = ++self->last_question;
    asked->due_ms = now_ms + self->options.ask_ms;
    asked->peer = peer;
    peer->question = asked;
    DL_APPEND(self->questions, asked);
    if (self->unasked == NULL)
        self->unasked = asked;
    return true;
}

bool gr_broker_next_question(gr_broker *self, gr_broker_question *out)
{
    struct question *next = self->unasked;
    if (next == NULL)
        return false;
    self->unasked = next->next;
    *out = (gr_broker_question){.number = next->number,
                                .credentials = next->credentials,
                                .address = gr_buf_slice(&next->peer->address)};
    return true;
}

void gr_broker_hold(gr_broker *self, gr_peer *peer, gr_msg **msg, int64_t now_ms)
{
    size_t bytes = gr_msg_bytes(*msg);
    if (peer->held.len < HELD_LEN && self->asking_bytes + bytes <= self->options.queue_bytes &&
        gr_msg_queue_push(&peer->held, msg) == 0) {
        self->asking_bytes += bytes;
        return;
    }
    gr_msg_destroy(msg);
    self->stats.slow++;
    gr_broker_remove_peer(self, peer, now_ms);
}

/* Messages of the peer in their order, until one has to be asked about again. */
static void go_on(gr_broker *self, gr_peer *peer, int64_t now_ms)
{
    gr_msg_queue held = peer->held;
    peer->held = (gr_msg_queue){0};
    gr_msg *msg;
    while ((msg = gr_msg_queue_pop(&held)) != NULL) {
        self->asking_bytes -= gr_msg_bytes(msg);
        if (peer->dead)
            gr_msg_destroy(&msg);
        else
            gr_broker_receive(self, peer, &msg, now_ms);
    }
    gr_msg_queue_clear(&held);
}

static void settle(gr_broker *self, struct question *question, enum gr_verdict verdict,
                   int64_t now_ms)
{
    gr_peer *peer = question->peer;
    remember(self, question->hash, verdict, now_ms);
    end_question(self, question);
    go_on(self, peer, now_ms);
}

void gr_broker_answer(gr_broker *self, uint64_t number, enum gr_verdict verdict, int64_t now_ms)
{
    struct question *at;
    DL_SEARCH_SCALAR(self->questions, at, number, number);
    if (at != NULL && at != self->unasked)
        settle(self, at, verdict, now_ms);
}

void gr_broker_drop_question(gr_broker *self, gr_peer *peer)
{
    gr_msg *msg;
    if (peer->question != NULL)
        end_question(self, peer->question);
    while ((msg = gr_msg_queue_pop(&peer->held)) != NULL) {
        self->asking_bytes -= gr_msg_bytes(msg);
        gr_msg_destroy(&msg);
    }
    gr_msg_queue_clear(&peer->held);
}

int64_t gr_broker_next_question_due(const gr_broker *self)
{
    return self->questions != NULL ? self->questions->due_ms : GR_NEVER;
}

void gr_broker_expire_questions(gr_broker *self, int64_t now_ms)
{
    while (self->questions != NULL && self->questions->due_ms <= now_ms)
        settle(self, self->questions, GR_UNDECIDED, now_ms);
}

/* --- who --------------------------------------------------------------------------------- */

void gr_broker_secure(gr_broker *self)
{
    self->secured = true;
    randombytes_buf(self->hash_key, sizeof(self->hash_key));
}

int gr_broker_set_user(gr_broker *self, gr_peer *peer, gr_slice user, gr_slice address)
{
    if (gr_buf_append(&peer->user, user.data, user.len) < 0 ||
        gr_buf_append(&peer->address, address.data, address.len) < 0) {
        peer->user.len = 0;
        return GR_ENOMEM;
    }
    peer->vouched = user.len > 0;
    peer->revoked = peer->vouched && self->policy != NULL && !gr_policy_knows(self->policy, user);
    return 0;
}

/* In gate01 each message names its sender, whom replies used to go to. */
static bool is_sender(const gr_peer *peer, const gr_envelope *envelope)
{
    return envelope->sender.len == 0 ||
           gr_slice_equal(envelope->sender, gr_slice_of(peer->key + 1, peer->key_len - 1));
}

/* A worker stays who it was when it registered. */
static bool become(gr_peer *peer, gr_slice user)
{
    if (gr_slice_equal(gr_buf_slice(&peer->user), user))
        return true;
    if (peer->role == WORKER)
        return false;
    peer->user.len = 0;
    return gr_buf_append(&peer->user, user.data, user.len) == 0;
}

static void note(gr_broker *self, const gr_peer *peer, const char *what)
{
    gr_broker_note_refused(self, peer, what, gr_slice_str(""), gr_slice_str(""));
}

enum identity gr_broker_identify(gr_broker *self, gr_peer *peer, const gr_envelope *envelope,
                                 int64_t now_ms)
{
    const gr_credentials *credentials = &envelope->credentials;
    uint8_t hash[HASH_LEN];
    if (!is_sender(peer, envelope)) {
        note(self, peer, "spoke in the name of another one");
        return FORGER;
    }
    if (peer->vouched)
        return peer->revoked ? STRANGER : KNOWN;
    if (!self->secured || gr_broker_is_local(peer))
        return KNOWN;
    /* The original's own ZAP service lets everybody in who says NULL or GSSAPI: it is not asked. */
    if (!gr_slice_equal(credentials->mechanism, gr_slice_str("PLAIN"))) {
        note(self, peer, "did not say who it is");
        return STRANGER;
    }
    hash_credentials(self, peer, credentials, hash);
    const struct verdict *known = find_verdict(self, hash, now_ms);
    if (known == NULL)
        return ask(self, peer, credentials, hash, now_ms) ? WAITING : UNSURE;
    if (known->is == GR_ADMITTED && become(peer, credentials->user))
        return KNOWN;
    note(self, peer, "gave wrong credentials");
    return known->is == GR_UNDECIDED ? UNSURE : STRANGER;
}

void gr_broker_note_refused(gr_broker *self, const gr_peer *peer, const char *what, gr_slice a,
                            gr_slice b)
{
    gr_slice user = gr_slice_first(gr_buf_slice(&peer->user), 40);
    gr_slice address = gr_slice_first(gr_buf_slice(&peer->address), 40);
    a = gr_slice_first(a, 40);
    b = gr_slice_first(b, 40);
    snprintf(self->refusal, sizeof(self->refusal), "%.*s%s%.*s %s%s%.*s%s%.*s", (int)user.len,
             (const char *)user.data, address.len > 0 ? " at " : "", (int)address.len,
             (const char *)address.data, what, a.len > 0 ? " " : "", (int)a.len,
             (const char *)a.data, b.len > 0 ? "." : "", (int)b.len, (const char *)b.data);
}

void gr_broker_last_refused(const gr_broker *self, char *text, size_t len)
{
    snprintf(text, len, "%s", self->refusal);
}

/* --- what -------------------------------------------------------------------------------- */

bool gr_broker_may_register(gr_broker *self, gr_peer *peer, gr_slice service)
{
    if (self->access == NULL || gr_broker_is_local(peer) ||
        gr_access_may(self->access, gr_buf_slice(&peer->user), GR_MAY_REGISTER, service,
                      gr_slice_str("")))
        return true;
    self->stats.denied++;
    gr_broker_note_refused(self, peer, "may not register", service, gr_slice_str(""));
    return false;
}

/* To say that one is here is no call. */
static bool is_sign_of_life(const gr_envelope *request)
{
    return gr_slice_equal(request->service, gr_slice_str(GATE)) &&
           (gr_slice_equal(request->method, gr_slice_str("client_heartbeat")) ||
            gr_slice_equal(request->method, gr_slice_str("keepalive")));
}

bool gr_broker_may_call(gr_broker *self, gr_peer *peer, const gr_envelope *request)
{
    if (self->access == NULL || gr_broker_is_local(peer) || is_sign_of_life(request) ||
        gr_access_may(self->access, gr_buf_slice(&peer->user), GR_MAY_CALL, request->service,
                      request->method))
        return true;
    self->stats.denied++;
    gr_broker_note_refused(self, peer, "may not call", request->service, request->method);
    return false;
}

/* --- refusing ---------------------------------------------------------------------------- */

void gr_broker_turn_away(gr_broker *self, gr_peer *peer, const gr_envelope *envelope, int error,
                         const char *why, int64_t now_ms)
{
    static const gr_envelope nothing;
    bool is_call = envelope->type == GR_REQUEST && !gr_broker_is_at_back(peer);
    if (is_call)
        gr_broker_send_error(self, peer, envelope, error, gr_slice_str(why), now_ms);
    else if (peer->dialect->is_ours)
        gr_broker_send_error(self, peer, &nothing, error, gr_slice_str(why), now_ms);
    else if (gr_broker_is_at_back(peer)) /* they have no word for why */
        gr_broker_send_empty(self, peer, GR_BYE, 0, now_ms);
    if (peer->role == WORKER) {
        gr_broker_unregister(self, peer, now_ms);
        peer->role = NEW;
    }
}

static bool is_wanted(gr_broker *self, gr_peer *peer)
{
    return peer->role != WORKER ||
           gr_broker_may_register(self, peer, gr_buf_slice(&peer->service->name));
}

void gr_broker_set_access(gr_broker *self, gr_access **access, int64_t now_ms)
{
    static const gr_envelope nothing;
    gr_access_destroy(&self->access);
    self->access = *access;
    *access = NULL;
    for (gr_peer *peer = self->peers; peer != NULL; peer = peer->hh.next)
        if (!is_wanted(self, peer))
            gr_broker_turn_away(self, peer, &nothing, GR_EDENIED,
                                "this user may not register this service any more", now_ms);
}

void gr_broker_set_policy(gr_broker *self, gr_policy **policy, int64_t now_ms)
{
    static const gr_envelope nothing;
    gr_policy_release(&self->policy);
    self->policy = *policy;
    *policy = NULL;
    forget_verdicts(self);
    for (gr_peer *peer = self->peers; peer != NULL; peer = peer->hh.next) {
        if (!peer->vouched)
            continue;
        bool was_revoked = peer->revoked;
        peer->revoked =
            self->policy != NULL && !gr_policy_knows(self->policy, gr_buf_slice(&peer->user));
        if (peer->revoked && !was_revoked)
            gr_broker_turn_away(self, peer, &nothing, GR_EUNAUTHENTICATED,
                                "this user is not known any more", now_ms);
    }
}

void gr_broker_free_auth(gr_broker *self)
{
    forget_verdicts(self);
    gr_access_destroy(&self->access);
    gr_policy_release(&self->policy);
    sodium_memzero(self->hash_key, sizeof(self->hash_key));
}
