/* fuzz_zap.c - questions about who is let in, changes of who decides, and what a service elsewhere
 * says, all at any time.
 *
 * Whatever comes: a question that can be read is answered once, nobody is let in whom what holds at
 * that moment does not let in, who is let in is named rightly, and in the end nothing is left. */
#include <sodium.h>

#include "base/clock.h"
#include "engine/zap.h"
#include "fuzz.h"

enum { MOST_ASKED = 64, DOMAINS = 3, NONCES = 8, NONCE_LEN = 32, ANY_DOOR = 9 };

enum decider { NOBODY, USERS, EVERYBODY, ELSEWHERE, DECIDERS };

struct asked {
    uint8_t domain, address, mechanism, user, password;
    bool service, named, answered;
};

struct world {
    gr_zap *zap;
    int64_t now_ms;
    enum decider deciders[DOMAINS];
    struct asked asked[MOST_ASKED];
    size_t count;
    char nonces[NONCES][NONCE_LEN];
    uint32_t nonce_count;
    bool said_yes; /* the service elsewhere, just now */
};

static const char *const domains[DOMAINS + 1] = {"gate", "b", "c", "none"};
static const char *const addresses[] = {"10.0.0.1", "10.9.0.1", "::1", "localhost:0:0:7", "gc-1"};
static const char *const mechanisms[] = {"NULL", "PLAIN", "CURVE", "GSSAPI", "?"};
static const char *const users[] = {"quick", "slow", "nobody", ""};
static const char *const passwords[] = {"p", "q", "wrong", ""};
static const char key[GR_POLICY_KEY_LEN + 1] = "0123456789abcdef0123456789abcdef";

enum { ADDRESSES = 5, MECHANISMS = 5, WORDS = 4, DENIED = 1, PLAIN = 1, CURVE = 2 };

static char slow_hash[crypto_pwhash_STRBYTES];

static gr_policy *make_policy(enum decider decider)
{
    gr_policy *policy;
    CHECK(gr_policy_new(&policy) == 0);
    CHECK(gr_policy_add_address(policy, gr_slice_str("10.9.0.0/16"), false) == 0);
    if (decider == EVERYBODY) {
        gr_policy_allow_null(policy);
        gr_policy_allow_any_key(policy);
        return policy;
    }
    CHECK(gr_policy_add_user(policy, gr_slice_str("quick"), gr_slice_str("p")) == 0);
    CHECK(gr_policy_add_user(policy, gr_slice_str("slow"), gr_slice_str(slow_hash)) == 0);
    CHECK(gr_policy_add_key(policy, gr_slice_str("quick"), (const uint8_t *)key) == 0);
    return policy;
}

static void change(struct world *world, struct input *in)
{
    uint8_t domain = take_byte(in) % DOMAINS;
    enum decider decider = take_byte(in) % DECIDERS;
    gr_slice name = gr_slice_str(domains[domain]);
    world->deciders[domain] = decider;
    if (decider == NOBODY) {
        gr_zap_remove(world->zap, name);
    } else if (decider == ELSEWHERE) {
        CHECK(gr_zap_set_remote(world->zap, name, domain) == 0);
        CHECK(gr_zap_asks(world->zap, domain));
    } else {
        gr_policy *policy = make_policy(decider);
        CHECK(gr_zap_set_policy(world->zap, name, &policy) == 0 && policy == NULL);
    }
}

/* --- what is right ----------------------------------------------------------------------- */

static bool is_admitted(const struct world *world, const struct asked *asked)
{
    enum decider decider = asked->domain < DOMAINS ? world->deciders[asked->domain] : NOBODY;
    if (decider == NOBODY)
        return false;
    if (decider == ELSEWHERE)
        return world->said_yes;
    if (asked->address == DENIED)
        return false;
    if (decider == EVERYBODY)
        return asked->mechanism == 0 || asked->mechanism == CURVE;
    return asked->mechanism == CURVE ||
           (asked->mechanism == PLAIN && asked->user < 2 && asked->user == asked->password);
}

static void check_user(const struct world *world, const struct asked *asked, gr_slice user)
{
    if (asked->named) /* by the original's broker, which knows it by this */
        check_same_slice(user, gr_slice_str(addresses[asked->address]));
    else if (asked->mechanism == 0)
        CHECK(user.len == 0);
    else if (asked->mechanism == PLAIN)
        check_same_slice(user, gr_slice_str(users[asked->user]));
    else if (asked->mechanism == CURVE && world->deciders[asked->domain] == USERS)
        check_same_slice(user, gr_slice_str("quick"));
    else if (asked->mechanism == CURVE && world->deciders[asked->domain] == EVERYBODY)
        CHECK(user.len == 40);
}

static void check_answer(struct world *world, const gr_msg *msg)
{
    enum { PEER, EMPTY, VERSION, ID, STATUS, TEXT, USER, METADATA, FRAMES };
    CHECK(gr_msg_len(msg) == FRAMES && gr_msg_frame(msg, EMPTY).len == 0);
    check_same_slice(gr_msg_frame(msg, VERSION), gr_slice_str("1.0"));
    check_same_slice(gr_msg_frame(msg, PEER), gr_slice_str("peer"));
    CHECK(gr_msg_frame(msg, METADATA).len == 0);
    gr_slice id = gr_msg_frame(msg, ID), status = gr_msg_frame(msg, STATUS);
    CHECK(id.len == 1 && id.data[0] < world->count);
    struct asked *asked = &world->asked[id.data[0]];
    CHECK(!asked->answered);
    asked->answered = true;
    if (gr_slice_equal(status, gr_slice_str("200"))) {
        CHECK(is_admitted(world, asked));
        check_user(world, asked, gr_msg_frame(msg, USER));
        return;
    }
    CHECK(gr_slice_equal(status, gr_slice_str("400")) ||
          gr_slice_equal(status, gr_slice_str("500")));
    CHECK(gr_msg_frame(msg, USER).len == 0 || asked->named);
}

static void check_question(struct world *world, const gr_msg *msg)
{
    enum { EMPTY, VERSION, ID, DOMAIN, ADDRESS, IDENTITY, LEAST };
    CHECK(gr_msg_len(msg) > LEAST && gr_msg_frame(msg, EMPTY).len == 0);
    CHECK(gr_msg_frame(msg, ID).len == NONCE_LEN && gr_msg_frame(msg, IDENTITY).len == 0);
    memcpy(world->nonces[world->nonce_count++ % NONCES], gr_msg_frame(msg, ID).data, NONCE_LEN);
}

static void pump(struct world *world)
{
    gr_zap_via via;
    gr_msg *msg;
    while (gr_zap_next_out(world->zap, &via, &msg)) {
        if (via.door == GR_ZAP_REMOTE)
            check_question(world, msg);
        else if (via.number != ANY_DOOR)
            check_answer(world, msg);
        gr_msg_destroy(&msg);
    }
}

/* --- what comes -------------------------------------------------------------------------- */

static void add(gr_msg *msg, gr_slice bytes)
{
    CHECK(gr_msg_add(msg, bytes.data, bytes.len) == 0);
}

static void ask(struct world *world, struct input *in)
{
    if (world->count == MOST_ASKED)
        return;
    uint8_t flags = take_byte(in), id = (uint8_t)world->count;
    struct asked asked = {
        .domain = flags & 1 ? take_byte(in) % (DOMAINS + 1) : 0,
        .address = flags & 2 ? take_byte(in) % ADDRESSES : 0,
        .mechanism = flags & 4 ? take_byte(in) % MECHANISMS : PLAIN,
        .user = flags & 8 ? take_byte(in) % WORDS : 0,
        .password = flags & 16 ? take_byte(in) % WORDS : 0,
        .service = flags & 32,
        .named = (flags & 96) == 96,
    };
    world->asked[world->count++] = asked;
    gr_msg *msg;
    CHECK(gr_msg_new(&msg) == 0);
    add(msg, gr_slice_str("peer"));
    add(msg, gr_slice_str(""));
    add(msg, gr_slice_str("1.0"));
    add(msg, gr_slice_of(&id, 1));
    add(msg, gr_slice_str(domains[asked.domain]));
    add(msg, gr_slice_str(addresses[asked.address]));
    add(msg, gr_slice_str(asked.named ? addresses[asked.address] : "identity"));
    add(msg, gr_slice_str(mechanisms[asked.mechanism]));
    if (asked.mechanism == PLAIN) {
        add(msg, gr_slice_str(users[asked.user]));
        /* the slow user's password is "q", and so each is at the place of its user */
        add(msg, gr_slice_str(passwords[asked.password]));
    } else if (asked.mechanism != 0) {
        add(msg, gr_slice_of(key, GR_POLICY_KEY_LEN));
    }
    gr_zap_via via = {.door = asked.service ? GR_ZAP_SERVICE : GR_ZAP_INNER, .number = 1};
    gr_zap_receive(world->zap, via, &msg, world->now_ms);
    CHECK(msg == NULL);
    bool is_elsewhere = asked.domain < DOMAINS && world->deciders[asked.domain] == ELSEWHERE;
    bool is_slow = asked.mechanism == PLAIN && asked.user == 1;
    pump(world);
    if (is_admitted(world, &asked) && !is_elsewhere && !is_slow)
        CHECK(world->asked[id].answered);
}

/* Nearly a question, or nothing like one. Who is answered by this door is not looked at. */
static void ask_anything(struct world *world, struct input *in)
{
    static const char *const words[] = {"",     "1.0",   "2.0",   "gate",  "10.0.0.1", "gc-1",
                                        "NULL", "PLAIN", "CURVE", "quick", "p",        "peer"};
    gr_msg *msg;
    CHECK(gr_msg_new(&msg) == 0);
    for (int frames = take_byte(in) % 20; frames > 0; frames--) {
        uint8_t which = take_byte(in);
        if (which == 255)
            add(msg, long_payload(0));
        else
            add(msg, which >= 200 ? take_bytes(in) : gr_slice_str(words[which % 12]));
    }
    gr_zap_via via = {.door = take_byte(in) & 1 ? GR_ZAP_SERVICE : GR_ZAP_INNER,
                      .number = ANY_DOOR};
    gr_zap_receive(world->zap, via, &msg, world->now_ms);
    CHECK(msg == NULL);
    pump(world);
}

static void reply(struct world *world, struct input *in)
{
    static const char *const statuses[] = {"200", "400", "300", "500"};
    uint8_t flags = take_byte(in), which = take_byte(in);
    gr_slice status = pick_slice(in,
                                 (gr_slice[]){gr_slice_str(statuses[0]), gr_slice_str(statuses[1]),
                                              gr_slice_str(statuses[2]), gr_slice_str(statuses[3])},
                                 4);
    gr_msg *msg;
    CHECK(gr_msg_new(&msg) == 0);
    add(msg, flags & 1 ? take_bytes(in) : gr_slice_str(""));
    add(msg, flags & 2 ? take_bytes(in) : gr_slice_str("1.0"));
    add(msg, flags & 4 ? take_bytes(in) : gr_slice_of(world->nonces[which % NONCES], NONCE_LEN));
    add(msg, status);
    if (!(flags & 8))
        add(msg, gr_slice_str("text"));
    add(msg, flags & 16 ? take_bytes(in) : gr_slice_str("user"));
    add(msg, gr_slice_str(""));
    if (flags & 32)
        add(msg, gr_slice_str(""));
    world->said_yes = gr_slice_equal(status, gr_slice_str("200"));
    gr_zap_via via = {.door = GR_ZAP_REMOTE, .number = which / NONCES % (DOMAINS + 1)};
    gr_zap_receive(world->zap, via, &msg, world->now_ms);
    CHECK(msg == NULL);
    pump(world);
    world->said_yes = false;
}

static void tick(struct world *world, uint32_t ms)
{
    world->now_ms += ms;
    gr_zap_tick(world->zap, world->now_ms);
    pump(world);
}

static void work(struct world *world)
{
    gr_zap_work(world->zap, world->now_ms);
    pump(world);
}

/* The loop may sleep when nothing is due, and everything is answered in the end. */
static void finish(struct world *world)
{
    int64_t due;
    for (int i = 0; (due = gr_zap_next_due(world->zap)) != GR_NEVER; i++) {
        CHECK(i < 10000);
        if (due > world->now_ms)
            world->now_ms = due;
        work(world);
        tick(world, 0);
    }
    for (size_t i = 0; i < world->count; i++)
        CHECK(world->asked[i].answered);
}

static void step(struct world *world, struct input *in)
{
    uint8_t what = take_byte(in);
    switch (what % 8) {
    default:
        ask(world, in);
        break;
    case 3:
        ask_anything(world, in);
        break;
    case 4:
        reply(world, in);
        break;
    case 5:
        change(world, in);
        break;
    case 6:
        tick(world, take_number(in) % 70000);
        break;
    case 7:
        work(world);
        break;
    }
}

static void try_policy(struct input *in)
{
    gr_policy *policy;
    CHECK(gr_policy_new(&policy) == 0);
    gr_slice pattern = take_bytes(in), address = take_bytes(in);
    bool allow = take_byte(in) & 1;
    if (gr_policy_add_address(policy, pattern, allow) < 0)
        CHECK(gr_policy_admits_address(policy, address));
    else if (gr_slice_equal(pattern, address))
        CHECK(gr_policy_admits_address(policy, address) == allow);
    else
        gr_policy_admits_address(policy, address);
    gr_policy_release(&policy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct world world = {.now_ms = 1000000};
    if (slow_hash[0] == '\0')
        CHECK(sodium_init() >= 0 && crypto_pwhash_str(slow_hash, "q", 1, crypto_pwhash_OPSLIMIT_MIN,
                                                      crypto_pwhash_MEMLIMIT_MIN) == 0);
    uint8_t first = take_byte(&in);
    if (first % 16 == 15) {
        try_policy(&in);
        return 0;
    }
    gr_zap_options options = {.penalty_ms = first, .timeout_ms = take_number(&in)};
    CHECK(gr_zap_new(&world.zap, &options) == 0);
    while (in.left > 0)
        step(&world, &in);
    if (first & 128)
        finish(&world);
    gr_zap_destroy(&world.zap);
    return 0;
}
