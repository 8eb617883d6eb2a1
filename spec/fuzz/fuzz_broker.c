/* fuzz_broker.c - a broker and a few peers who say anything at any time.
 *
 * Whatever they say: no request is answered twice, no worker gets more calls than it takes, what is
 * sent can be read and goes to somebody who is there, time always moves on, and in the end nothing
 * is left. */
#include "engine/broker.h"
#include "fuzz.h"

enum { IDS = 4, FOREIGN = 4, CALLS = 8, ROUTES = 16, MAX_OUTS = 100000, MAX_LATER = 10000 };

struct world {
    gr_broker *broker;
    int64_t now_ms;
    uint32_t asked[GR_VIAS][IDS][CALLS]; /* requests with this id */
    uint32_t answered[GR_VIAS][IDS][CALLS];
    uint64_t routes[ROUTES]; /* the last ones that were given out */
    uint32_t route_count;
    uint8_t caller[64], tag[64]; /* of the last request to a worker of an older dialect */
    size_t caller_len, tag_len;
    bool secured;
    bool vouch; /* connections say who peers are */
    gr_broker_question question;
};

/* --- what is said ------------------------------------------------------------------------ */

/* {"description": "d", "methods": {"again": {"idempotent": true}, "once": {"idempotent": false}}}
 */
static const char about[] = "\x82\xab"
                            "description\xa1"
                            "d\xa7methods\x82\xa5"
                            "again\x81\xaaidempotent\xc3\xa4once\x81\xaaidempotent\xc2";

static gr_envelope take_envelope(struct world *world, struct input *in)
{
    const gr_slice names[] = {
        gr_slice_str("A"),
        gr_slice_str("B"),
        gr_slice_str("Gate"),
        gr_slice_str("once"),
        gr_slice_str("again"),
        gr_slice_str("query_service"),
        gr_slice_str("get_services"),
        gr_slice_str("client_heartbeat"),
    };
    const gr_slice payloads[] = {
        gr_slice_str(""),
        gr_slice_of(about, sizeof(about) - 1),
        gr_slice_str("\x91\xa1"
                     "A"),
        long_payload(0),
    };
    uint8_t fields = take_byte(in);
    gr_envelope envelope = {
        .type = (uint8_t)(take_byte(in) % 12 + 1),
        .id = take_byte(in) % CALLS,
        .deadline_ms = fields & 1 ? take_number(in) : 0,
        .credit = fields & 2 ? take_number(in) : 1,
        .window = fields & 4 ? take_number(in) : 3,
        .flags = fields & 8 ? take_byte(in) & (uint8_t)~GR_FLAG_DETACHED : 0,
        .service = fields & 16 ? pick_slice(in, names, 8) : names[0],
        .method = fields & 32 ? pick_slice(in, names, 8) : names[4],
        .payload = fields & 64 ? pick_slice(in, payloads, 4) : payloads[1],
        .count = 1,
    };
    if (envelope.type == GR_REQUEST)
        envelope.split = fields & 128 ? (uint32_t)envelope.payload.len : 0;
    uint8_t which = fields & 128 ? take_byte(in) : 0;
    envelope.route = which >= 250 ? take_number(in) | (uint64_t)take_number(in) << 32
                                  : world->routes[(world->route_count - 1 - which) % ROUTES];
    return envelope;
}

static gr_msg *addressed(gr_msg *msg, enum gr_via via, uint8_t id)
{
    uint8_t routing_id[2] = {(uint8_t)('0' + via), (uint8_t)('a' + id)};
    CHECK(gr_msg_prepend(msg, routing_id, sizeof(routing_id)) == 0);
    return msg;
}

static gr_peer *add_peer(struct world *world, enum gr_via via, const gr_msg *msg)
{
    static const char *const names[] = {"", "ann", "bob", "eve"};
    gr_peer *peer = gr_broker_add_peer(world->broker, via, msg, world->now_ms);
    if (peer != NULL && world->vouch)
        CHECK(gr_broker_set_user(world->broker, peer,
                                 gr_slice_str(names[gr_msg_frame(msg, 0).data[1] % 4]),
                                 gr_slice_str("10.0.0.1")) == 0);
    return peer;
}

static void deliver(struct world *world, enum gr_via via, gr_msg *msg)
{
    gr_peer *peer = gr_broker_find_peer(world->broker, via, msg);
    if (peer == NULL)
        peer = add_peer(world, via, msg);
    if (peer == NULL) {
        gr_msg_destroy(&msg);
        return;
    }
    gr_broker_receive(world->broker, peer, &msg, world->now_ms);
    CHECK(msg == NULL);
}

static void say(struct world *world, struct input *in)
{
    uint8_t who = take_byte(in);
    enum gr_via via = who % GR_VIAS;
    uint8_t id = who / GR_VIAS % IDS;
    gr_envelope envelope = take_envelope(world, in);
    if (envelope.type == GR_REQUEST && (via == GR_VIA_FRONT || via == GR_VIA_LOCAL_FRONT))
        world->asked[via][id][envelope.id]++;
    deliver(world, via, addressed(build_msg(&envelope), via, id));
}

/* Peers of the older dialects have routing ids of their own, behind the others. */
static void say_foreign(struct world *world, struct input *in)
{
    uint8_t who = take_byte(in);
    enum gr_via via = who & 1 ? GR_VIA_FRONT : GR_VIA_BACK;
    uint8_t id = IDS + who / 2 % FOREIGN;
    uint8_t routing_id[2] = {(uint8_t)('0' + via), (uint8_t)('a' + id)};
    gr_msg *msg = take_foreign_msg(in, gr_slice_of(routing_id, sizeof(routing_id)),
                                   gr_slice_of(world->caller, world->caller_len),
                                   gr_slice_of(world->tag, world->tag_len));
    deliver(world, via, addressed(msg, via, id));
}

static void keep(gr_slice frame, uint8_t out[64], size_t *len)
{
    *len = frame.len < 64 ? frame.len : 64;
    if (*len > 0)
        memcpy(out, frame.data, *len);
}

/* Any dialect, but one that its leg has. */
static void check_foreign(struct world *world, enum gr_via via, const gr_msg *msg)
{
    enum gr_leg leg = via == GR_VIA_FRONT ? GR_BROKER_TO_CLIENT : GR_BROKER_TO_WORKER;
    const gr_dialect *const dialects[] = {&gr_dialect_gh1, &gr_dialect_gate01, &gr_dialect_gate02,
                                          &gr_dialect_mdp};
    gr_buf scratch = {0};
    gr_envelope got;
    bool known = false;
    for (int i = 0; i < 4; i++)
        known = known || dialects[i]->parse(msg, 1, leg, &scratch, &got) == 0;
    CHECK(known);
    gr_buf_clear(&scratch);
    if (via == GR_VIA_BACK && gr_msg_len(msg) > 7) {
        keep(gr_msg_frame(msg, 4), world->caller, &world->caller_len);
        keep(gr_msg_frame(msg, 6), world->tag, &world->tag_len);
    }
}

static void say_anything(struct world *world, struct input *in)
{
    uint8_t who = take_byte(in);
    deliver(world, who % GR_VIAS, addressed(take_raw_msg(in), who % GR_VIAS, who / GR_VIAS % IDS));
}

/* --- what is sent ------------------------------------------------------------------------ */

static void check_front(struct world *world, enum gr_via via, uint8_t id, const gr_envelope *got)
{
    switch (got->type) {
    case GR_REPLY:
    case GR_END:
    case GR_ERROR:
        if (got->id == 0 && world->secured) /* turned away */
            break;
        CHECK(got->id < CALLS && got->id > 0);
        world->answered[via][id][got->id]++;
        CHECK(world->answered[via][id][got->id] <= world->asked[via][id][got->id]);
        break;
    case GR_ITEM:
    case GR_CHUNK:
        CHECK(world->answered[via][id][got->id] < world->asked[via][id][got->id]);
        break;
    default:
        CHECK(got->type == GR_HELLO || got->type == GR_BYE || got->type == GR_HEARTBEAT);
        break;
    }
}

static void check_back(struct world *world, const gr_envelope *got)
{
    switch (got->type) {
    case GR_REQUEST:
        CHECK(got->route != 0 && got->id != 0);
        CHECK(gr_wire_is_name(got->service) && gr_wire_is_name(got->method));
        world->routes[world->route_count++ % ROUTES] = got->route;
        break;
    case GR_CREDIT:
    case GR_CANCEL:
        CHECK(got->route != 0);
        break;
    case GR_ERROR:
        CHECK(got->id == 0);
        break;
    default:
        CHECK(got->type == GR_READY || got->type == GR_BYE || got->type == GR_HEARTBEAT);
        break;
    }
}

/* Takes what is to be sent. `luck` says, bit by bit, what could not be sent. */
static void pump(struct world *world, uint32_t luck)
{
    enum gr_via via;
    gr_msg *msg;
    int outs = 0;
    while (gr_broker_next_out(world->broker, &via, &msg)) {
        CHECK(++outs < MAX_OUTS);
        gr_slice to = gr_msg_frame(msg, 0);
        CHECK(to.len == 2 && to.data[0] == '0' + via && to.data[1] >= 'a' &&
              to.data[1] < 'a' + IDS + FOREIGN);
        CHECK(gr_broker_find_peer(world->broker, via, msg) != NULL);
        uint8_t id = to.data[1] - 'a';
        luck = luck >> 2 | luck << 30;
        if ((luck & 3) == 3) {
            gr_broker_stalled(world->broker, &msg, world->now_ms);
            CHECK(msg == NULL);
            continue;
        }
        if (to.data[1] >= 'a' + IDS) {
            check_foreign(world, via, msg);
            gr_msg_destroy(&msg);
            continue;
        }
        gr_envelope got = check_out(msg, 1);
        if (via == GR_VIA_FRONT || via == GR_VIA_LOCAL_FRONT)
            check_front(world, via, id, &got);
        else
            check_back(world, &got);
        if ((luck & 0xff) == 2)
            gr_broker_unreachable(world->broker, world->now_ms);
        gr_msg_destroy(&msg);
    }
}

/* --- time -------------------------------------------------------------------------------- */

static void tick(struct world *world, uint32_t ms)
{
    world->now_ms += ms;
    gr_broker_tick(world->broker, world->now_ms);
}

/* Once everything was sent, a tick leaves nothing undone: the loop may sleep. */
static void check_sleep(struct world *world)
{
    pump(world, 0);
    tick(world, 0);
    pump(world, 0);
    tick(world, 0);
    CHECK(gr_broker_next_due(world->broker) > world->now_ms);
}

static void check_stats(const struct world *world)
{
    gr_broker_stats stats;
    gr_broker_get_stats(world->broker, &stats);
    CHECK(stats.peers <= GR_VIAS * (IDS + FOREIGN));
    CHECK(stats.workers <= 2 * (IDS + FOREIGN));
    CHECK(stats.calls == gr_broker_open_calls(world->broker));
    CHECK(stats.waiting <= stats.calls);
    CHECK(stats.calls <= stats.requests);
}

/* --- who may do what --------------------------------------------------------------------- */

static void set_access(struct world *world, struct input *in)
{
    const gr_slice words[] = {
        gr_slice_str("*"),   gr_slice_str("anonymous"), gr_slice_str("ann"),
        gr_slice_str("u"),   gr_slice_str("A"),         gr_slice_str("A.*"),
        gr_slice_str("S.m"), gr_slice_str("Gate.*"),    gr_slice_str("B.once")};
    gr_access *access = NULL;
    int rules = take_byte(in) % 8;
    if (rules > 0)
        CHECK(gr_access_new(&access) == 0);
    for (; rules > 1; rules--) {
        gr_slice user = pick_slice(in, words, 4), what = pick_slice(in, words, 9);
        enum gr_action action = take_byte(in) & 1 ? GR_MAY_CALL : GR_MAY_REGISTER;
        gr_access_allow(access, user, action, what);
    }
    gr_broker_set_access(world->broker, &access, world->now_ms);
    CHECK(access == NULL);
}

static void set_policy(struct world *world, uint8_t which)
{
    gr_policy *policy = NULL;
    if (which & 1) {
        CHECK(gr_policy_new(&policy) == 0);
        if (which & 2)
            CHECK(gr_policy_add_user(policy, gr_slice_str("ann"), gr_slice_str("p")) == 0);
        if (which & 4)
            CHECK(gr_policy_add_user(policy, gr_slice_str("bob"), gr_slice_str("p")) == 0);
    }
    gr_broker_set_policy(world->broker, &policy, world->now_ms);
    CHECK(policy == NULL);
}

static void secure(struct world *world, struct input *in)
{
    uint8_t what = take_byte(in);
    world->secured = true;
    switch (what % 8) {
    case 0:
        gr_broker_secure(world->broker);
        break;
    case 1:
        world->vouch = what & 8;
        break;
    case 2:
        set_access(world, in);
        break;
    case 3:
        set_policy(world, what / 8);
        break;
    case 4:
        if (gr_broker_next_question(world->broker, &world->question))
            CHECK(world->question.credentials.mechanism.len > 0 && world->question.number != 0);
        break;
    default: /* also ones that were answered, or never asked */
        gr_broker_answer(world->broker, world->question.number + (what >= 250),
                         (enum gr_verdict)(what / 8 % 3), world->now_ms);
        break;
    }
}

static void step(struct world *world, struct input *in)
{
    static const char gone[] = "0a";
    uint8_t id[sizeof(gone) - 1];
    uint8_t what = take_byte(in);
    switch (what % 16) {
    default:
        say(world, in);
        break;
    case 8:
    case 9:
        pump(world, what >= 128 ? take_number(in) * 2654435761u : 0);
        break;
    case 10:
    case 11:
        tick(world, take_number(in) % 20000);
        break;
    case 12:
        say_anything(world, in);
        break;
    case 5:
    case 6:
    case 7:
        say_foreign(world, in);
        break;
    case 13:
        id[1] = (uint8_t)('a' + take_byte(in) % IDS);
        id[0] = (uint8_t)('0' + GR_VIA_LOCAL_FRONT + what / 16 % 2);
        gr_broker_local_gone(world->broker, id[0] - '0', gr_slice_of(id, sizeof(id)),
                             world->now_ms);
        break;
    case 14:
        if (what >= 240)
            gr_broker_drain(world->broker, world->now_ms);
        else
            secure(world, in);
        break;
    case 15:
        check_sleep(world);
        break;
    }
    check_stats(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    struct world world = {.now_ms = 1000000};
    uint8_t small = take_byte(&in);
    gr_broker_options options = {
        .instance = take_byte(&in),
        .heartbeat_ms = take_number(&in),
        .liveness = take_byte(&in),
        .queue_len = small & 1 ? 2 : 0,
        .queue_bytes = small & 2 ? 300 : 0,
        .backlog_bytes = small & 4 ? 300 : 0,
        .max_services = small & 8 ? 1 : 0,
        .max_peers = small & 16 ? 4 : 0,
        .max_calls = small & 32 ? 2 : 0,
        .idle_ms = small & 64 ? 100 : 0,
    };
    CHECK(gr_broker_new(&world.broker, &options) == 0);
    while (in.left > 0)
        step(&world, &in);
    if (small & 128) {
        check_sleep(&world);
        gr_broker_leave(world.broker, world.now_ms);
        CHECK(gr_broker_open_calls(world.broker) == 0);
        check_sleep(&world);
    }
    gr_broker_destroy(&world.broker);
    return 0;
}
