/* fuzz_client.c - a client between a broker that says anything and an owner that does.
 *
 * Every call ends exactly once: by REPLY, END, FAILED or because its owner has cancelled it; and
 * all of them end when there is no broker. No stream gives more items than were asked for. */
#include "engine/client.h"
#include "fuzz.h"

enum { CALLS = 4096, MAX_OUTS = 100000 };

struct call {
    bool open;
    uint64_t granted; /* items that were asked for */
    uint64_t items;
};

struct world {
    gr_client *client;
    int64_t now_ms;
    struct call calls[CALLS]; /* by id */
    uint32_t open;
    uint64_t last_id;
    bool up;
};

/* --- what comes out ---------------------------------------------------------------------- */

static void check_events(struct world *world)
{
    gr_client_event event;
    while (gr_client_next_event(world->client, &event)) {
        struct call *call = &world->calls[event.id % CALLS];
        CHECK(event.id <= world->last_id);
        switch (event.type) {
        case GR_CLIENT_ITEM:
        case GR_CLIENT_CHUNK:
        case GR_CLIENT_END:
            CHECK(event.msg != NULL);
            call->items += event.count;
            CHECK(call->items <= call->granted);
            break;
        case GR_CLIENT_REPLY:
            CHECK(event.msg != NULL);
            break;
        case GR_CLIENT_FAILED:
            CHECK((event.msg != NULL) != (event.text != NULL));
            break;
        case GR_CLIENT_UP:
        case GR_CLIENT_DOWN:
            CHECK(event.id == 0 && world->up == (event.type == GR_CLIENT_DOWN));
            world->up = event.type == GR_CLIENT_UP;
            break;
        default:
            CHECK(false);
        }
        if (event.id != 0) {
            CHECK(call->open);
            call->open = event.type == GR_CLIENT_ITEM || event.type == GR_CLIENT_CHUNK;
            world->open -= !call->open;
        }
        gr_msg_destroy(&event.msg);
    }
    gr_client_stats stats;
    gr_client_get_stats(world->client, &stats);
    CHECK(stats.open == world->open && stats.calls == world->last_id);
    CHECK(gr_client_is_up(world->client) == world->up);
    CHECK(gr_client_ops.events(world->client) == 0);
    CHECK(gr_client_ops.is_busy(world->client) == (world->open > 0));
}

static void pump(struct world *world)
{
    gr_msg *msg;
    int outs = 0;
    while (gr_client_ops.next_out(world->client, &msg)) {
        CHECK(++outs < MAX_OUTS);
        gr_envelope got = check_out(msg, 0);
        switch (got.type) {
        case GR_REQUEST:
        case GR_CREDIT:
        case GR_CANCEL:
            CHECK(got.id > 0 && got.id <= world->last_id);
            break;
        default:
            CHECK(got.type == GR_HELLO || got.type == GR_HEARTBEAT || got.type == GR_BYE);
            break;
        }
        gr_msg_destroy(&msg);
    }
}

/* --- what goes in ------------------------------------------------------------------------ */

static void call(struct world *world, struct input *in)
{
    uint8_t fields = take_byte(in);
    gr_client_request request = {
        .service = fields & 1 ? take_bytes(in) : gr_slice_str("S"),
        .method = fields & 2 ? take_bytes(in) : gr_slice_str("m"),
        .timeout_ms = fields & 4 ? take_number(in) : 0,
        .credit = fields & 8 ? take_number(in) % 1000 : 0,
        .window = fields & 16 ? take_number(in) : 0,
    };
    gr_buf payload = {0};
    gr_slice bytes = fields & 32 ? long_payload(0x90) : gr_slice_str("\x90");
    CHECK(gr_buf_append(&payload, bytes.data, bytes.len) == 0);
    uint64_t id = 0;
    int rc = gr_client_call(world->client, &request, &payload, world->now_ms, &id);
    gr_buf_clear(&payload);
    if (rc < 0) {
        CHECK(rc == GR_EINVAL || rc == GR_EEXHAUSTED);
        return;
    }
    CHECK(id == world->last_id + 1);
    world->last_id = id;
    world->calls[id % CALLS] =
        (struct call){.open = true, .granted = request.credit > 0 ? request.credit : 1};
    world->open++;
}

/* One of the last calls. */
static uint64_t take_id(struct world *world, struct input *in)
{
    uint8_t back = take_byte(in) % 32;
    return back < world->last_id ? world->last_id - back : 0;
}

static void hear(struct world *world, struct input *in)
{
    const gr_slice payloads[] = {gr_slice_str(""), gr_slice_str("\x90"), long_payload(0x90)};
    uint8_t fields = take_byte(in);
    gr_envelope envelope = {
        .type = (uint8_t)(take_byte(in) % 12 + 1),
        .id = take_id(world, in),
        .deadline_ms = fields & 1 ? take_number(in) : 0,
        .count = fields & 2 ? take_number(in) : 1,
        .window = fields & 4 ? take_number(in) : 3,
        .flags = fields & 8 ? take_byte(in) & (uint8_t)~GR_FLAG_DETACHED : 0,
        .status = fields & 16 ? (uint16_t)take_number(in) : 0,
        .payload = fields & 32 ? pick_slice(in, payloads, 3) : payloads[1],
        .route = fields & 64 ? take_byte(in) : 0,
    };
    if (envelope.type == GR_REQUEST) /* its split would have to fit its payload */
        envelope.type = GR_ITEM;
    envelope.split =
        fields & 128 ? take_number(in) : (uint32_t)world->calls[envelope.id % CALLS].items;
    gr_msg *msg = build_msg(&envelope);
    gr_client_ops.receive(world->client, &msg, world->now_ms);
    CHECK(msg == NULL);
}

static void change(struct world *world, struct input *in, bool cancel)
{
    uint64_t id = take_id(world, in);
    struct call *at = &world->calls[id % CALLS];
    if (cancel) {
        gr_client_cancel(world->client, id, world->now_ms);
        world->open -= at->open;
        at->open = false;
        return;
    }
    uint32_t items = take_number(in) % 1000;
    int rc = gr_client_credit(world->client, id, items, take_number(in), world->now_ms);
    CHECK(rc == (at->open ? 0 : GR_ENOTFOUND));
    at->granted += items;
}

static void tick(struct world *world, int64_t ms)
{
    world->now_ms += ms;
    gr_client_ops.tick(world->client, world->now_ms);
    CHECK(gr_client_ops.next_due(world->client) > world->now_ms);
}

static void step(struct world *world, struct input *in)
{
    uint8_t what = take_byte(in);
    gr_msg *msg;
    switch (what % 16) {
    default:
        hear(world, in);
        break;
    case 5:
    case 6:
        call(world, in);
        break;
    case 7:
    case 8:
        change(world, in, what % 16 == 8);
        break;
    case 9:
    case 10:
        tick(world, take_number(in) % 20000);
        break;
    case 11:
        gr_client_ops.connected(world->client, world->now_ms);
        break;
    case 12:
        if (what < 64)
            gr_client_ops.disconnected(world->client, world->now_ms);
        else if (gr_client_ops.take_reconnect(world->client))
            CHECK(!gr_client_ops.take_reconnect(world->client));
        break;
    case 13:
        msg = take_raw_msg(in);
        gr_client_ops.receive(world->client, &msg, world->now_ms);
        CHECK(msg == NULL);
        break;
    case 14:
        if (what >= 240)
            gr_client_leave(world->client, world->now_ms);
        break;
    case 15:
        pump(world);
        break;
    }
    check_events(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    static struct world world;
    memset(&world, 0, sizeof(world));
    world.now_ms = 1000000;
    uint8_t small = take_byte(&in);
    gr_client_options options = {
        .heartbeat_ms = take_number(&in),
        .liveness = take_byte(&in),
        .connect_timeout_ms = take_number(&in),
        .max_calls = small & 1 ? 3 : CALLS / 2,
        .local = small & 2,
    };
    CHECK(gr_client_new(&world.client, &options) == 0);
    while (in.left > 0 && world.last_id < CALLS - 1)
        step(&world, &in);
    if (small & 4) {
        pump(&world);
        gr_client_ops.disconnected(world.client, world.now_ms);
        check_events(&world);
        tick(&world, (int64_t)options.connect_timeout_ms + 5000);
        check_events(&world);
        CHECK(world.open == 0);
    }
    gr_client_destroy(&world.client);
    return 0;
}
