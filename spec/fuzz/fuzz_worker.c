/* fuzz_worker.c - a worker between a broker that says anything and an owner that does.
 *
 * A call that was announced ends once: by its owner or by CANCEL. Items leave in order and without
 * gaps, whatever gathers them. */
#include "engine/worker.h"
#include "fuzz.h"

enum { CALLS = 32, MAX_OUTS = 100000 };

struct call {
    bool open;
    uint32_t seq;   /* the next item's number on its way out */
    uint32_t given; /* items from the owner */
};

struct world {
    gr_worker *worker;
    int64_t now_ms;
    struct call calls[CALLS]; /* by route */
    uint32_t open;
    bool up, drained, draining;
};

/* --- what comes out ---------------------------------------------------------------------- */

static void check_events(struct world *world)
{
    gr_worker_event event;
    while (gr_worker_next_event(world->worker, &event)) {
        struct call *call = &world->calls[event.route % CALLS];
        switch (event.type) {
        case GR_WORKER_REQUEST:
            CHECK(world->up && !call->open && event.route > 0 && event.route < CALLS);
            CHECK(event.msg != NULL && event.split <= event.payload.len);
            *call = (struct call){.open = true};
            world->open++;
            break;
        case GR_WORKER_CANCEL:
            CHECK(call->open);
            CHECK(event.status == GR_ECANCELLED || event.status == GR_EDEADLINE ||
                  event.status == GR_EUNAVAILABLE);
            call->open = false;
            world->open--;
            break;
        case GR_WORKER_CREDIT:
            CHECK(call->open && call->given > 0);
            break;
        case GR_WORKER_UP:
            CHECK(!world->up);
            world->up = true;
            break;
        case GR_WORKER_DOWN:
            CHECK(world->up && world->open == 0);
            world->up = false;
            break;
        case GR_WORKER_REFUSED:
            CHECK(event.msg != NULL);
            break;
        case GR_WORKER_DRAINED:
            CHECK(world->draining && !world->drained && world->open == 0);
            world->drained = true;
            break;
        default:
            CHECK(false);
        }
        gr_msg_destroy(&event.msg);
    }
    gr_worker_stats stats;
    gr_worker_get_stats(world->worker, &stats);
    CHECK(stats.open == world->open);
    CHECK(gr_worker_is_up(world->worker) == world->up);
    CHECK(gr_worker_ops.events(world->worker) == 0);
    CHECK(gr_worker_ops.is_busy(world->worker) == !world->drained);
}

static void pump(struct world *world)
{
    gr_msg *msg;
    int outs = 0;
    while (gr_worker_ops.next_out(world->worker, &msg)) {
        CHECK(++outs < MAX_OUTS);
        gr_envelope got = check_out(msg, 0);
        struct call *call = &world->calls[got.route % CALLS];
        switch (got.type) {
        case GR_ITEM:
        case GR_END:
            CHECK(got.split == call->seq && call->seq + got.count <= call->given);
            CHECK(got.type == GR_END || got.count > 0);
            CHECK(got.payload.len >= got.count); /* each item had a byte */
            call->seq += got.count;
            break;
        case GR_REPLY:
        case GR_ERROR:
        case GR_READY:
        case GR_CREDIT:
        case GR_BYE:
        case GR_HEARTBEAT:
            break;
        default:
            CHECK(false);
        }
        gr_msg_destroy(&msg);
    }
}

/* --- what goes in ------------------------------------------------------------------------ */

static void hear(struct world *world, struct input *in)
{
    const gr_slice payloads[] = {gr_slice_str(""), gr_slice_str("\x90"), long_payload(0x90)};
    uint8_t fields = take_byte(in);
    gr_envelope envelope = {
        .type = (uint8_t)(take_byte(in) % 12 + 1),
        .route = take_byte(in) % CALLS,
        .id = 1,
        .deadline_ms = fields & 1 ? take_number(in) : 0,
        .credit = fields & 2 ? take_number(in) : 1,
        .window = fields & 4 ? take_number(in) : 3,
        .flags = fields & 8 ? take_byte(in) & (uint8_t)~GR_FLAG_DETACHED : 0,
        .status = fields & 16 ? (uint16_t)take_number(in) : 0,
        .service = gr_slice_str("S"),
        .method = gr_slice_str("m"),
        .payload = fields & 32 ? pick_slice(in, payloads, 3) : payloads[1],
    };
    gr_msg *msg = build_msg(&envelope);
    if (envelope.type == GR_REQUEST) /* what a new call sends must not be taken for the old one's */
        pump(world);
    gr_worker_ops.receive(world->worker, &msg, world->now_ms);
    CHECK(msg == NULL);
}

static void finish(struct world *world, struct input *in, int how)
{
    uint64_t route = take_byte(in) % CALLS;
    struct call *call = &world->calls[route];
    gr_buf payload = {0};
    gr_slice bytes = take_byte(in) > 250 ? long_payload(0xc0) : gr_slice_str("\xc0");
    CHECK(gr_buf_append(&payload, bytes.data, bytes.len) == 0);
    int rc = how == 0 ? gr_worker_reply(world->worker, route, 200, &payload, world->now_ms)
             : how == 1
                 ? gr_worker_error(world->worker, route, GR_EINTERNAL, &payload, world->now_ms)
                 : gr_worker_end(world->worker, route, gr_slice_of(NULL, 0), world->now_ms);
    CHECK(rc == (call->open ? 0 : GR_ENOTFOUND));
    gr_buf_clear(&payload);
    if (call->open)
        world->open--;
    call->open = false;
}

static void item(struct world *world, struct input *in)
{
    uint64_t route = take_byte(in) % CALLS;
    struct call *call = &world->calls[route];
    for (int left = take_byte(in) % 64; left >= 0; left--) {
        gr_slice bytes = take_byte(in) > 250 ? long_payload(0xc0) : gr_slice_str("\xa3xyz");
        int rc = gr_worker_item(world->worker, route, bytes, world->now_ms);
        CHECK(call->open ? rc == 0 || rc == 1 : rc == GR_ENOTFOUND);
        call->given += rc >= 0;
        if (rc <= 0)
            break;
    }
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
        finish(world, in, what / 16 % 3);
        break;
    case 6:
    case 7:
        item(world, in);
        break;
    case 8:
        gr_worker_flush(world->worker, take_byte(in) % CALLS, world->now_ms);
        break;
    case 9:
    case 10:
        world->now_ms += take_number(in) % 20000;
        gr_worker_ops.tick(world->worker, world->now_ms);
        CHECK(gr_worker_ops.next_due(world->worker) > world->now_ms);
        break;
    case 11:
        gr_worker_ops.connected(world->worker, world->now_ms);
        break;
    case 12:
        if (what < 64)
            gr_worker_ops.disconnected(world->worker, world->now_ms);
        else if (gr_worker_ops.take_reconnect(world->worker))
            CHECK(!gr_worker_ops.take_reconnect(world->worker));
        break;
    case 13:
        msg = take_raw_msg(in);
        gr_worker_ops.receive(world->worker, &msg, world->now_ms);
        CHECK(msg == NULL);
        break;
    case 14:
        if (what >= 192) {
            world->draining = true;
            gr_worker_drain(world->worker, world->now_ms);
        } else if (what >= 160) {
            gr_worker_leave(world->worker, world->now_ms);
        } else {
            gr_worker_nested(world->worker, take_number(in), world->now_ms);
        }
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
    struct world world = {.now_ms = 1000000};
    uint8_t small = take_byte(&in);
    gr_worker_options options = {
        .service = gr_slice_str("S"),
        .about = gr_slice_str("\x80"),
        .credit = small & 1   ? 2
                  : small & 2 ? 20
                              : 0,
        .heartbeat_ms = take_number(&in),
        .liveness = take_byte(&in),
        .idle_ms = small & 4 ? 100 : 0,
        .local = small & 8,
    };
    CHECK(gr_worker_new(&world.worker, &options) == 0);
    while (in.left > 0)
        step(&world, &in);
    if (small & 16) {
        pump(&world);
        gr_worker_ops.disconnected(world.worker, world.now_ms);
        check_events(&world);
        CHECK(world.open == 0 && !world.up);
        CHECK(gr_worker_ops.next_due(world.worker) == INT64_MAX);
    }
    gr_worker_destroy(&world.worker);
    return 0;
}
