/* bind_worker.c - the worker's engine for Lua: core.worker{...} -> registration. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/mp.h"
#include "bind/bind.h"
#include "bind/bind_endpoint.h"
#include "bind/bind_msgpack.h"
#include "engine/worker.h"
#include "host/state.h"

#define WORKER "gaterpc.core.worker"

enum { QUICK_NS = 100 * 1000 }; /* items that follow each other faster than this are gathered */

struct box {
    gr_worker *engine;
    gr_endpoint *endpoint;
    const gr_dialect *dialect;
    gr_buf scratch;  /* kept for the next payload */
    gr_msg *current; /* of the event that is being turned into Lua values, see bind_client.c */
    gr_worker_event event; /* likewise; points into it */
    char *service;
    size_t service_len;
    uint64_t item_route; /* the stream that had the last item, and when */
    int64_t item_ns;
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, WORKER);
}

static struct box *check_open(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->endpoint == NULL)
        luaL_error(L, "the worker is closed");
    return box;
}

/* --- answers ----------------------------------------------------------------------------- */

static int pack_result(lua_State *L, gr_buf *out, gr_pack_error *why)
{
    why->text[0] = '\0';
    int rc = gr_wire_put_result_begin(out);
    if (rc == 0)
        rc = gr_lua_pack(L, 3, out, why);
    if (rc == 0)
        rc = gr_wire_put_result_end(out);
    return rc;
}

/* What packing has failed with, for Lua. NOT_FOUND is for calls that are over, not for hooks. */
static int fail_packing(lua_State *L, int rc, const gr_pack_error *why)
{
    return gr_bind_fail(L, rc == GR_ENOTFOUND ? GR_ELUA : rc,
                        why->text[0] != '\0' ? why->text : NULL);
}

/* The result alone, for who sends it in another way. */
static int push_packed(lua_State *L, struct box *box, gr_buf *payload)
{
    lua_pushboolean(L, 0);
    lua_pushlstring(L, (const char *)payload->data + GR_WIRE_RESULT_BEGIN,
                    payload->len - GR_WIRE_RESULT_LEN);
    gr_bind_keep_buf(&box->scratch, payload);
    return 2;
}

static int m_reply(lua_State *L)
/* worker:reply(route, value, status, limit) -> true | nil, code, text; NOT_FOUND when the call is
 * over | false, packed: the value is larger than the limit when packed, nothing was sent */
{
    struct box *box = check_open(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    luaL_checkany(L, 3);
    uint16_t status = (uint16_t)luaL_optinteger(L, 4, 0);
    lua_Integer limit = luaL_optinteger(L, 5, GR_BIND_MAX_PAYLOAD);
    gr_pack_error why;
    gr_buf payload = gr_bind_take_buf(&box->scratch);
    int rc = pack_result(L, &payload, &why);
    bool is_packed = rc == 0;
    if (is_packed && payload.len > (size_t)limit + GR_WIRE_RESULT_LEN)
        return push_packed(L, box, &payload);
    if (box->endpoint == NULL) { /* a hook has closed the worker */
        rc = GR_ENOTFOUND;
        is_packed = true;
    } else if (is_packed) {
        gr_worker *worker = gr_endpoint_lock(box->endpoint);
        rc = gr_worker_reply(worker, route, status, &payload, gr_clock_ms());
        gr_endpoint_unlock(box->endpoint);
    }
    gr_bind_keep_buf(&box->scratch, &payload);
    if (!is_packed)
        return fail_packing(L, rc, &why);
    if (rc < 0)
        return gr_bind_fail(L, rc, rc == GR_EINVAL ? box->dialect->limits : NULL);
    lua_pushboolean(L, 1);
    return 1;
}

static int m_fail(lua_State *L) /* worker:fail(route, code, class, message, traceback) */
{
    struct box *box = check_open(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    int error = gr_err_of_code(luaL_checkstring(L, 3));
    gr_slice class = gr_bind_check_slice(L, 4), message = gr_bind_check_slice(L, 5);
    gr_slice trace = gr_bind_check_slice(L, 6);
    gr_buf payload = gr_bind_take_buf(&box->scratch);
    int rc = gr_wire_put_exception(&payload, class, message, trace);
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    if (rc == 0)
        gr_worker_error(worker, route, error, &payload, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    gr_bind_keep_buf(&box->scratch, &payload);
    return 0;
}

/* Items that follow each other at once are gathered; one that stands alone goes out at once. */
static bool is_lone(struct box *box, uint64_t route)
{
    int64_t now_ns = gr_clock_ns();
    bool lone = route != box->item_route || now_ns - box->item_ns > QUICK_NS;
    box->item_route = route;
    box->item_ns = now_ns;
    return lone;
}

static int pack_item(lua_State *L, gr_buf *out, gr_pack_error *why)
{
    int rc = gr_lua_pack(L, 3, out, why);
    if (rc == 0 && out->len > GR_BIND_MAX_PAYLOAD) {
        snprintf(why->text, sizeof(why->text), "an item is larger than 64 MiB when packed");
        rc = GR_EEXHAUSTED;
    }
    return rc;
}

/* 1: go on, 0: wait for credit */
static int send_item(struct box *box, uint64_t route, gr_slice item)
{
    bool lone = is_lone(box, route);
    int64_t now_ms = box->item_ns / 1000000;
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    int rc = gr_worker_item(worker, route, item, now_ms);
    if (rc == 0 || (rc > 0 && lone))
        gr_worker_flush(worker, route, now_ms);
    gr_endpoint_unlock(box->endpoint);
    return rc;
}

static int m_item(lua_State *L)
/* worker:item(route, value) -> true (go on) | false (wait for credit) | nil, code, text */
{
    struct box *box = check_open(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    luaL_checkany(L, 3);
    gr_pack_error why;
    gr_buf payload = gr_bind_take_buf(&box->scratch);
    int rc = pack_item(L, &payload, &why);
    bool is_packed = rc == 0;
    if (box->endpoint == NULL) { /* a hook has closed the worker */
        rc = GR_ENOTFOUND;
        is_packed = true;
    } else if (is_packed) {
        rc = send_item(box, route, gr_buf_slice(&payload));
    }
    gr_bind_keep_buf(&box->scratch, &payload);
    if (!is_packed)
        return fail_packing(L, rc, &why);
    if (rc < 0)
        return gr_bind_fail(L, rc, rc == GR_EINVAL ? box->dialect->limits : NULL);
    lua_pushboolean(L, rc);
    return 1;
}

static int m_flush(lua_State *L) /* worker:flush(route) */
{
    struct box *box = check_open(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    gr_worker_flush(worker, route, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    return 0;
}

static int m_chunk(lua_State *L)
/* worker:chunk(route, codec, raw, piece) -> true (go on) | false (wait for credit) | nil, code,
 * text
 */
{
    struct box *box = check_open(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    gr_slice codec = gr_bind_check_slice(L, 3), piece = gr_bind_check_slice(L, 5);
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    int rc = gr_worker_chunk(worker, route, codec, lua_toboolean(L, 4), piece, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    if (rc < 0)
        return gr_bind_fail(
            L, rc, rc == GR_EINVAL ? "this dialect carries one packed value in gzip only" : NULL);
    lua_pushboolean(L, rc);
    return 1;
}

static int m_finish(lua_State *L) /* worker:finish(route[, digest]): the stream is complete */
{
    struct box *box = check_open(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    size_t len;
    const char *digest = luaL_optlstring(L, 3, "", &len);
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    gr_worker_end(worker, route, gr_slice_of(digest, len), gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    return 0;
}

/* --- events ------------------------------------------------------------------------------ */

static void set_label(lua_State *L, const struct box *box, gr_slice method)
{
    gr_loop_set_label(gr_state_of(L)->loop, gr_slice_of(box->service, box->service_len), method);
}

static void refuse(struct box *box, const gr_worker_event *event, int error, const char *said)
{
    char text[sizeof(gr_pack_error) + 40];
    if (said[0] != '\0')
        snprintf(text, sizeof(text), "the arguments cannot be unpacked: %s", said);
    else
        snprintf(text, sizeof(text), "the arguments are %s",
                 error == GR_EEXHAUSTED ? "beyond the limits for values"
                                        : "not an array, or not valid msgpack");
    if (said[0] != '\0')
        gr_log(GR_LOG_WARNING, "gaterpc.worker", "%s.%.*s failed: %s", box->service,
               (int)event->method.len, (const char *)event->method.data, text);
    gr_buf payload = {0};
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    if (gr_wire_put_exception(&payload, gr_slice_str(gr_err_code(error)), gr_slice_str(text),
                              gr_slice_str("")) == 0)
        gr_worker_error(worker, event->route, error, &payload, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    gr_buf_clear(&payload);
}

static int push_request(lua_State *L, struct box *box, const gr_worker_event *event)
/* kind, route, method, deadline_ms, id, whole, args... | 0: refused or too late, it was not for Lua
 */
{
    int top = lua_gettop(L);
    gr_pack_error why;
    lua_pushinteger(L, GR_WORKER_REQUEST);
    lua_pushinteger(L, (lua_Integer)event->route);
    lua_pushlstring(L, (const char *)event->method.data, event->method.len);
    lua_pushinteger(L, event->deadline_ms);
    lua_pushinteger(L, (lua_Integer)event->id);
    lua_pushboolean(L, event->whole);
    set_label(L, box, event->method); /* before, because hooks take their time too */
    int args = gr_lua_unpack_args(L, event->payload, event->split, &why);
    if (args >= 0 && box->endpoint != NULL)
        return 6 + args;
    lua_settop(L, top);
    if (box->endpoint != NULL) /* a hook may have closed the worker */
        refuse(box, event, args, why.text);
    return 0;
}

/* kind, code, message */
static int push_refused(lua_State *L, const gr_worker_event *event)
{
    gr_slice result, exception = {0}, message = {0};
    gr_mp_token array, text;
    if (gr_wire_get_result(event->payload, &result, &exception) == 0) {
        gr_mp_reader reader = gr_mp_read(exception);
        if (gr_mp_next(&reader, &array) == 0 && array.type == GR_MP_ARRAY && array.as.count > 1 &&
            gr_mp_skip(&reader) == 0 && gr_mp_next(&reader, &text) == 0 && text.type == GR_MP_STR)
            message = text.as.bytes;
    }
    lua_pushinteger(L, GR_WORKER_REFUSED);
    lua_pushstring(L, gr_err_code(event->status));
    lua_pushlstring(L, message.len > 0 ? (const char *)message.data : "", message.len);
    return 3;
}

static int m_caller(lua_State *L)
/* worker:caller() -> client_id, client_addr or nil, body, user or nil: of the request that next()
 * has just given, when the worker is the broker's own; else nothing */
{
    struct box *box = check_open(L);
    const gr_worker_event *event = &box->event;
    if (box->current == NULL || event->client.len == 0)
        return 0;
    lua_pushlstring(L, (const char *)event->client.data, event->client.len);
    if (event->address.len > 0)
        lua_pushlstring(L, (const char *)event->address.data, event->address.len);
    else
        lua_pushnil(L);
    lua_pushlstring(L, (const char *)event->payload.data, event->payload.len);
    if (event->user.len == 0)
        return 3;
    lua_pushlstring(L, (const char *)event->user.data, event->user.len);
    return 4;
}

static int push_event(lua_State *L, struct box *box, const gr_worker_event *event)
{
    switch (event->type) {
    case GR_WORKER_REQUEST:
        return push_request(L, box, event);
    case GR_WORKER_CANCEL: /* kind, route, code */
        lua_pushinteger(L, event->type);
        lua_pushinteger(L, (lua_Integer)event->route);
        lua_pushstring(L, gr_err_code(event->status));
        return 3;
    case GR_WORKER_CREDIT: /* kind, route */
        lua_pushinteger(L, event->type);
        lua_pushinteger(L, (lua_Integer)event->route);
        return 2;
    case GR_WORKER_REFUSED:
        return push_refused(L, event);
    case GR_WORKER_BARRED: /* kind, code, text */
        lua_pushinteger(L, event->type);
        lua_pushstring(L, gr_err_code(event->status));
        lua_pushstring(L, event->text);
        return 3;
    default:
        lua_pushinteger(L, event->type);
        return 1;
    }
}

static int m_next(lua_State *L) /* worker:next() -> kind, ... | nothing */
{
    struct box *box = check_box(L);
    int pushed = 0;
    gr_bind_check_no_hook(L);
    luaL_checkstack(L, 16, NULL);
    gr_msg_destroy(&box->current); /* kept for caller(), or left over when an error came between */
    while (pushed == 0 && box->endpoint != NULL) {
        gr_worker_event event;
        gr_worker *worker = gr_endpoint_lock(box->endpoint);
        bool got = gr_worker_next_event(worker, &event);
        gr_endpoint_unlock(box->endpoint);
        if (!got)
            break;
        box->current = event.msg;
        box->event = event;
        pushed = push_event(L, box, &event);
        if (pushed == 0 || event.client.len == 0)
            gr_msg_destroy(&box->current);
    }
    return pushed;
}

/* --- life -------------------------------------------------------------------------------- */

static int f_worker(lua_State *L)
/* core.worker(options, owner) -> worker | nil, code, text; options.about is packed msgpack */
{
    gr_bind_options options;
    gr_bind_endpoint_options(L, &options);
    const char *service = gr_bind_opt_string(L, 1, "service", "");
    lua_getfield(L, 1, "about");
    gr_worker_options engine = {
        .service = gr_slice_str(service),
        .about = gr_bind_check_slice(L, -1),
        .credit = (uint32_t)gr_bind_opt_integer(L, 1, "credit", 0),
        .idle_ms = (uint32_t)gr_bind_opt_integer(L, 1, "idle_ms", 0),
        .heartbeat_ms = options.heartbeat_ms,
        .liveness = options.liveness,
        .local = options.local,
        .foreign = options.foreign,
        .method = gr_slice_str(gr_bind_opt_string(L, 1, "method", "")),
    };
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = (struct box){0};
    luaL_setmetatable(L, WORKER);
    gr_bind_remember(L, box, 2);
    box->dialect = options.foreign.dialect;
    box->service = strdup(service);
    box->service_len = strlen(service);
    int rc = box->service != NULL ? gr_worker_new(&box->engine, &engine) : GR_ENOMEM;
    if (rc == GR_EINVAL)
        return gr_bind_fail(
            L, rc, "the name of a service has 1 to 255 printable characters without spaces");
    if (rc == 0)
        rc = gr_bind_endpoint_open(L, &box->endpoint, &options, &gr_worker_ops, box->engine, box);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int m_drain(lua_State *L) /* worker:drain() */
{
    struct box *box = check_open(L);
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    gr_worker_drain(worker, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    return 0;
}

static int
m_nested(lua_State *L) /* worker:nested(count): so many calls wait for calls of their own */
{
    struct box *box = check_open(L);
    uint32_t count = (uint32_t)luaL_checkinteger(L, 2);
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    gr_worker_nested(worker, count, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    return 0;
}

static int m_label(lua_State *L) /* worker:label(method): it has the thread again */
{
    set_label(L, check_open(L), gr_bind_check_slice(L, 2));
    return 0;
}

static int m_close(lua_State *L) /* closing twice is fine */
{
    struct box *box = check_box(L);
    if (box->endpoint != NULL) {
        gr_worker *worker = gr_endpoint_lock(box->endpoint);
        gr_worker_leave(worker, gr_clock_ms());
        gr_endpoint_unlock(box->endpoint);
    }
    gr_endpoint_destroy(&box->endpoint);
    gr_worker_destroy(&box->engine);
    gr_buf_clear(&box->scratch);
    return 0;
}

static int m_gc(lua_State *L)
{
    struct box *box = check_box(L);
    m_close(L);
    gr_msg_destroy(&box->current);
    free(box->service);
    box->service = NULL;
    return 0;
}

static int m_stats(lua_State *L)
/* worker:stats() -> {requests =, cancelled =, malformed =, open =, up =} */
{
    struct box *box = check_open(L);
    gr_worker_stats stats;
    gr_worker *worker = gr_endpoint_lock(box->endpoint);
    gr_worker_get_stats(worker, &stats);
    bool up = gr_worker_is_up(worker);
    gr_endpoint_unlock(box->endpoint);
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, (lua_Integer)stats.requests);
    lua_setfield(L, -2, "requests");
    lua_pushinteger(L, (lua_Integer)stats.cancelled);
    lua_setfield(L, -2, "cancelled");
    lua_pushinteger(L, (lua_Integer)stats.malformed);
    lua_setfield(L, -2, "malformed");
    lua_pushinteger(L, (lua_Integer)stats.open);
    lua_setfield(L, -2, "open");
    lua_pushboolean(L, up);
    lua_setfield(L, -2, "up");
    return 1;
}

void gr_bind_worker(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"reply", m_reply}, {"chunk", m_chunk},   {"fail", m_fail},     {"item", m_item},
        {"flush", m_flush}, {"finish", m_finish}, {"next", m_next},     {"drain", m_drain},
        {"label", m_label}, {"caller", m_caller}, {"nested", m_nested}, {"stats", m_stats},
        {"close", m_close}, {NULL, NULL},
    };
    gr_bind_class(L, WORKER, methods, m_gc);
    lua_pushcfunction(L, f_worker);
    lua_setfield(L, -2, "worker");
}
