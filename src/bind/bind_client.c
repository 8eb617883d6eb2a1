/* bind_client.c - the client's engine for Lua: core.client{...} -> connection. */
#include <stdlib.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/mp.h"
#include "bind/bind.h"
#include "bind/bind_endpoint.h"
#include "bind/bind_msgpack.h"
#include "engine/client.h"

#define CLIENT "gaterpc.core.client"
#define ITEMS  "gaterpc.core.items"

struct box {
    gr_client *engine;
    gr_endpoint *endpoint;
    const gr_dialect *dialect;
    gr_buf scratch; /* kept for the next payload */
    /* Of the event that is being turned into Lua values: an error must not lose it. Only m_next()
     * and the collector end it, because a hook or a finalizer may close the client meanwhile. */
    gr_msg *current;
};

/* Items of a stream that came in one message, decoded one by one. */
struct items {
    gr_msg *msg;
    gr_mp_reader reader;
    uint32_t left;
    bool is_decoding;
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, CLIENT);
}

static struct box *check_open(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->endpoint == NULL)
        luaL_error(L, "the client is closed");
    return box;
}

/* --- items ------------------------------------------------------------------------------- */

static void push_items(lua_State *L, struct box *box, const gr_client_event *event)
{
    struct items *items = lua_newuserdatauv(L, sizeof(*items), 0);
    *items = (struct items){
        .msg = box->current, .reader = gr_mp_read(event->payload), .left = event->count};
    box->current = NULL;
    luaL_setmetatable(L, ITEMS);
}

/* A hook has failed: nil, code, text. */
static int fail_unpacked(lua_State *L, int rc, const char *what, const gr_pack_error *why)
{
    lua_pushnil(L);
    lua_pushstring(L, gr_err_code(rc));
    lua_pushfstring(L, "%s cannot be unpacked: %s", what, why->text);
    return 3;
}

static int items_next(lua_State *L) /* items:next() -> true, value | false | nil, code, text */
{
    struct items *items = luaL_checkudata(L, 1, ITEMS);
    if (items->left == 0) {
        gr_msg_destroy(&items->msg);
        lua_pushboolean(L, 0);
        return 1;
    }
    if (items->is_decoding)
        return gr_bind_fail(L, GR_EDATALOSS, "an item cannot be read while another is unpacked");
    lua_pushboolean(L, 1);
    size_t used;
    gr_pack_error why;
    gr_slice rest = gr_slice_of(items->reader.at, (size_t)(items->reader.end - items->reader.at));
    items->is_decoding = true; /* and so it stays when memory has run out: no item gets lost */
    int rc = gr_lua_unpack(L, rest, &used, &why);
    items->is_decoding = false;
    if (rc < 0 && why.text[0] != '\0')
        return fail_unpacked(L, rc, "an item", &why);
    if (rc < 0)
        return gr_bind_fail(L, GR_EDATALOSS, "an item of the stream is not valid msgpack");
    items->reader.at += used;
    items->left--;
    if (lua_isnil(L, -1)) { /* nil would end a loop over the stream */
        lua_pop(L, 1);
        lua_pushlightuserdata(L, NULL);
    }
    return 2;
}

static int items_gc(lua_State *L)
{
    struct items *items = luaL_checkudata(L, 1, ITEMS);
    gr_msg_destroy(&items->msg);
    return 0;
}

static int items_close(lua_State *L)
{
    struct items *items = luaL_checkudata(L, 1, ITEMS);
    if (items->is_decoding)
        return 0;
    items->left = 0;
    return items_gc(L);
}

/* --- calls ------------------------------------------------------------------------------- */

static const char *text_of_einval(const struct box *box, const gr_client_request *request)
{
    if (gr_wire_is_name(request->service) && gr_wire_is_name(request->method))
        return box->dialect->limits;
    return "a name of a service or method has 1 to 255 printable characters without spaces";
}

static int m_call(lua_State *L)
/* client:call(service, method, timeout_ms, credit, window, ...) -> id | nil, code, text */
{
    enum { FIRST_ARG = 7 };
    struct box *box = check_open(L);
    gr_client_request request = {
        .service = gr_bind_check_slice(L, 2),
        .method = gr_bind_check_slice(L, 3),
        .timeout_ms = (uint32_t)luaL_checkinteger(L, 4),
        .credit = (uint32_t)luaL_checkinteger(L, 5),
        .window = (uint32_t)luaL_checkinteger(L, 6),
    };
    gr_pack_error why;
    gr_buf payload = gr_bind_take_buf(&box->scratch);
    uint64_t id = 0;
    int rc = gr_lua_pack_args(L, FIRST_ARG, lua_gettop(L), &payload, &request.split, &why);
    bool is_packed = rc == 0;
    bool is_too_large = payload.len > GR_BIND_MAX_PAYLOAD;
    bool is_open = box->endpoint != NULL; /* no longer, when a hook has closed it */
    if (is_packed && !is_too_large && is_open) {
        gr_client *client = gr_endpoint_lock(box->endpoint);
        rc = gr_client_call(client, &request, &payload, gr_clock_ms(), &id);
        gr_endpoint_unlock(box->endpoint);
    }
    gr_bind_keep_buf(&box->scratch, &payload);
    if (!is_open)
        return gr_bind_fail(L, GR_ECLOSED, "the client is closed");
    if (!is_packed)
        return gr_bind_fail(L, rc, why.text);
    if (is_too_large)
        return gr_bind_fail(L, GR_EEXHAUSTED, "the arguments are larger than 64 MiB when packed");
    if (rc == GR_EINVAL)
        return gr_bind_fail(L, rc, text_of_einval(box, &request));
    if (rc == GR_EEXHAUSTED)
        return gr_bind_fail(L, rc, "this client has as many calls under way as it may");
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushinteger(L, (lua_Integer)id);
    return 1;
}

static int m_credit(lua_State *L) /* client:credit(id, items, bytes) */
{
    struct box *box = check_open(L);
    uint64_t id = (uint64_t)luaL_checkinteger(L, 2);
    uint32_t items = (uint32_t)luaL_checkinteger(L, 3);
    uint32_t bytes = (uint32_t)luaL_checkinteger(L, 4);
    gr_client *client = gr_endpoint_lock(box->endpoint);
    gr_client_credit(client, id, items, bytes, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    return 0;
}

static int m_cancel(lua_State *L) /* client:cancel(id); also after the end, also when closed */
{
    struct box *box = check_box(L);
    uint64_t id = (uint64_t)luaL_checkinteger(L, 2);
    if (box->endpoint == NULL)
        return 0;
    gr_client *client = gr_endpoint_lock(box->endpoint);
    gr_client_cancel(client, id, gr_clock_ms());
    gr_endpoint_unlock(box->endpoint);
    return 0;
}

/* --- events ------------------------------------------------------------------------------ */

/* [-0, +n] The texts of an exception, ["class", "message", "traceback"], as far as they are there.
 */
static int push_exception(lua_State *L, gr_slice exception)
{
    gr_mp_reader reader = gr_mp_read(exception);
    gr_mp_token array, text;
    if (gr_mp_next(&reader, &array) < 0 || array.type != GR_MP_ARRAY)
        return 0;
    int pushed = 0;
    while (pushed < 3 && (uint32_t)pushed < array.as.count) {
        if (gr_mp_next(&reader, &text) < 0 || (text.type != GR_MP_STR && text.type != GR_MP_BIN))
            break;
        lua_pushlstring(L, (const char *)text.as.bytes.data, text.as.bytes.len);
        pushed++;
    }
    return pushed;
}

static int push_failed(lua_State *L, uint64_t id, int status, gr_slice exception, const char *text)
/* "failed", id, code, class, message, traceback */
{
    lua_pushinteger(L, GR_CLIENT_FAILED);
    lua_pushinteger(L, (lua_Integer)id);
    lua_pushstring(L, gr_err_code(status));
    int pushed = push_exception(L, exception);
    if (pushed == 0) {
        lua_pushstring(L, gr_err_code(status));
        lua_pushstring(L, text != NULL ? text : gr_err_text(status));
        pushed = 2;
    }
    return 3 + pushed;
}

static int push_barred(lua_State *L, struct box *box, const gr_client_event *event)
/* "failed", id, code, class, message */
{
    lua_pushinteger(L, GR_CLIENT_FAILED);
    lua_pushinteger(L, (lua_Integer)event->id);
    lua_pushstring(L, gr_err_code(event->status));
    lua_pushvalue(L, -1);
    lua_pushfstring(L, "the broker at %s %s", gr_endpoint_address(box->endpoint), event->text);
    return 5;
}

static bool is_nil(gr_slice value)
{
    return value.len == 0 || (value.len == 1 && value.data[0] == 0xc0);
}

/* "failed", id, code, class, message */
static int push_hook_failed(lua_State *L, uint64_t id, int rc, const gr_pack_error *why)
{
    lua_pushinteger(L, GR_CLIENT_FAILED);
    lua_pushinteger(L, (lua_Integer)id);
    fail_unpacked(L, rc, "the result", why); /* nil, code, text */
    lua_pushvalue(L, -2);
    lua_replace(L, -4);
    return 5;
}

static int push_reply(lua_State *L, const gr_client_event *event) /* kind, id, value, status */
{
    gr_slice result, exception = {0};
    gr_pack_error why;
    why.text[0] = '\0';
    int rc = gr_wire_get_result(event->payload, &result, &exception);
    if (rc == 0 && !is_nil(exception))
        return push_failed(L, event->id, GR_EINTERNAL, exception, NULL);
    lua_pushinteger(L, GR_CLIENT_REPLY);
    lua_pushinteger(L, (lua_Integer)event->id);
    if (rc == 0 && result.len == 0)
        lua_pushnil(L);
    else if (rc == 0)
        rc = gr_lua_unpack(L, result, NULL, &why);
    if (rc < 0 && why.text[0] != '\0')
        return push_hook_failed(L, event->id, rc, &why);
    if (rc < 0) {
        lua_pop(L, 2);
        return push_failed(L, event->id, GR_EDATALOSS, exception,
                           rc == GR_EEXHAUSTED ? "the result is beyond the limits for values"
                                               : "the result is not valid msgpack");
    }
    lua_pushinteger(L, event->status);
    return 4;
}

static int push_event(lua_State *L, struct box *box, const gr_client_event *event)
{
    gr_slice result, exception = {0};
    switch (event->type) {
    case GR_CLIENT_REPLY:
        return push_reply(L, event);
    case GR_CLIENT_FAILED:
        if (event->msg != NULL && gr_wire_get_result(event->payload, &result, &exception) < 0)
            exception = gr_slice_of(NULL, 0);
        if (event->refused)
            return push_barred(L, box, event);
        return push_failed(L, event->id, event->status, exception, event->text);
    case GR_CLIENT_ITEM:
    case GR_CLIENT_END: /* kind, id, items, count, bytes */
        lua_pushinteger(L, event->type);
        lua_pushinteger(L, (lua_Integer)event->id);
        lua_pushinteger(L, event->count);
        lua_pushinteger(L, (lua_Integer)event->payload.len);
        push_items(L, box, event);
        lua_insert(L, -3);
        if (event->type == GR_CLIENT_ITEM || event->count > 0 || event->payload.len == 0)
            return 5;
        lua_pushlstring(L, (const char *)event->payload.data, event->payload.len);
        return 6;         /* a digest */
    case GR_CLIENT_CHUNK: /* kind, id, piece, codec, raw */
        lua_pushinteger(L, event->type);
        lua_pushinteger(L, (lua_Integer)event->id);
        lua_pushlstring(L, (const char *)event->payload.data, event->payload.len);
        lua_pushlstring(L, (const char *)event->codec.data, event->codec.len);
        lua_pushboolean(L, event->raw);
        return 5;
    default:
        lua_pushinteger(L, event->type);
        return 1;
    }
}

static int m_next(lua_State *L) /* client:next() -> kind, ... | nothing */
{
    struct box *box = check_box(L);
    if (box->endpoint == NULL)
        return 0;
    gr_bind_check_no_hook(L);
    luaL_checkstack(L, 16, NULL);
    gr_client_event event;
    gr_client *client = gr_endpoint_lock(box->endpoint);
    bool got = gr_client_next_event(client, &event);
    gr_endpoint_unlock(box->endpoint);
    if (!got)
        return 0;
    gr_msg_destroy(&box->current);
    box->current = event.msg;
    int pushed = push_event(L, box, &event);
    gr_msg_destroy(&box->current);
    return pushed;
}

/* --- life -------------------------------------------------------------------------------- */

static int f_client(lua_State *L) /* core.client(options, owner) -> client | nil, code, text */
{
    gr_bind_options options;
    gr_bind_endpoint_options(L, &options);
    gr_client_options engine = {
        .heartbeat_ms = options.heartbeat_ms,
        .liveness = options.liveness,
        .connect_timeout_ms = (uint32_t)gr_bind_opt_integer(L, 1, "connect_timeout_ms", 0),
        .max_calls = (uint32_t)gr_bind_opt_integer(L, 1, "max_calls", 0),
        .local = options.local,
        .foreign = options.foreign,
    };
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = (struct box){0};
    luaL_setmetatable(L, CLIENT);
    box->dialect = options.foreign.dialect;
    gr_bind_remember(L, box, 2);
    int rc = gr_client_new(&box->engine, &engine);
    if (rc == 0)
        rc = gr_bind_endpoint_open(L, &box->endpoint, &options, &gr_client_ops, box->engine, box);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int m_close(lua_State *L) /* closing twice is fine */
{
    struct box *box = check_box(L);
    if (box->endpoint != NULL) {
        gr_client *client = gr_endpoint_lock(box->endpoint);
        gr_client_leave(client, gr_clock_ms());
        gr_endpoint_unlock(box->endpoint);
    }
    gr_endpoint_destroy(&box->endpoint);
    gr_client_destroy(&box->engine);
    gr_buf_clear(&box->scratch);
    return 0;
}

static int m_gc(lua_State *L)
{
    gr_msg_destroy(&check_box(L)->current);
    return m_close(L);
}

static int
m_stats(lua_State *L) /* client:stats() -> {calls =, late =, malformed =, open =, up =} */
{
    struct box *box = check_open(L);
    gr_client_stats stats;
    gr_client *client = gr_endpoint_lock(box->endpoint);
    gr_client_get_stats(client, &stats);
    bool up = gr_client_is_up(client);
    gr_endpoint_unlock(box->endpoint);
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, (lua_Integer)stats.calls);
    lua_setfield(L, -2, "calls");
    lua_pushinteger(L, (lua_Integer)stats.late);
    lua_setfield(L, -2, "late");
    lua_pushinteger(L, (lua_Integer)stats.malformed);
    lua_setfield(L, -2, "malformed");
    lua_pushinteger(L, (lua_Integer)stats.open);
    lua_setfield(L, -2, "open");
    lua_pushboolean(L, up);
    lua_setfield(L, -2, "up");
    return 1;
}

void gr_bind_client(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"call", m_call},   {"credit", m_credit}, {"cancel", m_cancel}, {"next", m_next},
        {"stats", m_stats}, {"close", m_close},   {NULL, NULL},
    };
    static const luaL_Reg items[] = {{"next", items_next}, {"close", items_close}, {NULL, NULL}};
    gr_bind_class(L, CLIENT, methods, m_gc);
    gr_bind_class(L, ITEMS, items, items_gc);
    lua_pushcfunction(L, f_client);
    lua_setfield(L, -2, "client");
}
