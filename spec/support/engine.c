/* engine.c - broker, worker and client for specs, driven by hand: no socket, no clock.
 *
 * engine.at(ms) says what time it is, for all of them. A message is its frames, one string each;
 * an envelope is a table with the fields of gr_envelope, its type by name. What fails gives nil
 * and the code for users. Fields that nobody knows are errors. */
#include <lauxlib.h>
#include <lua.h>

#include "base/err.h"
#include "base/mp.h"
#include "engine/broker.h"
#include "engine/client.h"
#include "engine/worker.h"
#include "spec.h"

/* The words that specs use for types; "?" for none. */
static const char *type_name(int type)
{
    static const char *const names[] = {
        "?",     "HELLO",  "READY",  "REQUEST",   "REPLY", "ITEM",  "END",
        "ERROR", "CREDIT", "CANCEL", "HEARTBEAT", "BYE",   "CHUNK",
    };
    return type > 0 && type <= GR_CHUNK ? names[type] : names[0];
}

#define BROKER "engine.broker"
#define WORKER "engine.worker"
#define CLIENT "engine.client"

int luaopen_engine(lua_State *L);

static int64_t now_ms; /* of all engines */

static const char *const vias[] = {"front", "back", "local_front", "local_back", NULL};

static const char *const types[] = {
    [GR_HELLO] = "HELLO",         [GR_READY] = "READY",   [GR_REQUEST] = "REQUEST",
    [GR_REPLY] = "REPLY",         [GR_ITEM] = "ITEM",     [GR_END] = "END",
    [GR_ERROR] = "ERROR",         [GR_CREDIT] = "CREDIT", [GR_CANCEL] = "CANCEL",
    [GR_HEARTBEAT] = "HEARTBEAT", [GR_BYE] = "BYE",       [GR_CHUNK] = "CHUNK",
};

/* --- values ------------------------------------------------------------------------------ */

static void set_integer(lua_State *L, const char *name, uint64_t value)
{
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, name);
}

static void set_slice(lua_State *L, const char *name, gr_slice value)
{
    push_slice(L, value);
    lua_setfield(L, -2, name);
}

/* A table of options that is read field by field; what nobody asked for is an error. */
struct fields {
    lua_State *L;
    int index;
    int known;
};

static struct fields read_fields(lua_State *L, int index)
{
    if (lua_isnoneornil(L, index)) {
        lua_settop(L, index - 1);
        lua_newtable(L);
    }
    luaL_checktype(L, index, LUA_TTABLE);
    return (struct fields){.L = L, .index = index};
}

static int push_field(struct fields *self, const char *name)
{
    int type = lua_getfield(self->L, self->index, name);
    self->known += type != LUA_TNIL;
    return type;
}

static uint64_t get_integer(struct fields *self, const char *name)
{
    if (push_field(self, name) != LUA_TNIL && !lua_isinteger(self->L, -1))
        luaL_error(self->L, "%s is no integer", name);
    uint64_t value = (uint64_t)lua_tointeger(self->L, -1);
    lua_pop(self->L, 1);
    return value;
}

static bool get_bool(struct fields *self, const char *name)
{
    push_field(self, name);
    bool value = lua_toboolean(self->L, -1);
    lua_pop(self->L, 1);
    return value;
}

/* [-0, +1] The slice lives as long as the value that stays on the stack. */
static gr_slice get_slice(struct fields *self, const char *name)
{
    if (push_field(self, name) == LUA_TNIL)
        lua_pushliteral(self->L, "");
    return check_slice(self->L, -1);
}

static void check_fields(struct fields *self)
{
    int count = 0;
    lua_pushnil(self->L);
    while (lua_next(self->L, self->index)) {
        lua_pop(self->L, 1);
        count++;
    }
    if (count != self->known)
        luaL_error(self->L, "a field of the table is unknown");
}

/* --- messages ---------------------------------------------------------------------------- */

/* The strings at first..last as a message; nils behind them do not count. */
static gr_msg *check_msg(lua_State *L, int first, int last)
{
    while (last >= first && lua_isnil(L, last))
        last--;
    for (int i = first; i <= last; i++)
        luaL_checkstring(L, i);
    gr_msg *msg;
    if (gr_msg_new(&msg) < 0)
        luaL_error(L, "out of memory");
    for (int i = first; i <= last; i++) {
        gr_slice bytes = check_slice(L, i);
        zmq_msg_t frame;
        zmq_msg_init_size(&frame, bytes.len);
        memcpy(zmq_msg_data(&frame), bytes.data, bytes.len);
        gr_msg_add_zmq(msg, &frame); /* as a socket does it: above 64 frames the message is cut */
        zmq_msg_close(&frame);
    }
    return msg;
}

/* [-0, +n] */
static int push_frames(lua_State *L, const gr_msg *msg)
{
    int len = (int)gr_msg_len(msg);
    luaL_checkstack(L, len + 4, NULL);
    for (int i = 0; i < len; i++) {
        gr_slice frame = gr_msg_frame(msg, (size_t)i);
        lua_pushlstring(L, (const char *)frame.data, frame.len);
    }
    return len;
}

static int push_frames_of(lua_State *L, gr_msg *msg)
{
    int pushed = push_frames(L, msg);
    gr_msg_destroy(&msg);
    return pushed;
}

static uint8_t get_type(struct fields *self)
{
    lua_State *L = self->L;
    int type = 0;
    if (push_field(self, "type") == LUA_TNUMBER) {
        type = (int)lua_tointeger(L, -1);
    } else {
        const char *name = luaL_checkstring(L, -1);
        for (type = GR_CHUNK; type > 0 && strcmp(name, type_name(type)) != 0; type--)
            ;
        if (type == 0)
            luaL_error(L, "there is no type %s", name);
    }
    lua_pop(L, 1);
    return (uint8_t)type;
}

/* [-0, +9] The values that the envelope's slices point into. */
static gr_envelope check_envelope(lua_State *L, int index, bool *take)
{
    struct fields fields = read_fields(L, index);
    gr_envelope envelope = {
        .type = get_type(&fields),
        .flags = (uint8_t)get_integer(&fields, "flags"),
        .status = (uint16_t)get_integer(&fields, "status"),
        .id = get_integer(&fields, "id"),
        .route = get_integer(&fields, "route"),
        .deadline_ms = (uint32_t)get_integer(&fields, "deadline_ms"),
        .credit = (uint32_t)get_integer(&fields, "credit"),
        .window = (uint32_t)get_integer(&fields, "window"),
        .split = (uint32_t)get_integer(&fields, "split"),
        .count = (uint32_t)get_integer(&fields, "count"),
    };
    envelope.seed = get_integer(&fields, "seed");
    *take = get_bool(&fields, "take");
    envelope.in_stream = get_bool(&fields, "in_stream");
    envelope.bulk = get_bool(&fields, "bulk");
    envelope.tag = get_slice(&fields, "tag");
    envelope.caller = get_slice(&fields, "caller");
    envelope.sender = get_slice(&fields, "sender");
    envelope.credentials.mechanism = get_slice(&fields, "mechanism");
    envelope.credentials.user = get_slice(&fields, "user");
    envelope.credentials.password = get_slice(&fields, "password");
    envelope.service = get_slice(&fields, "service");
    envelope.method = get_slice(&fields, "method");
    envelope.payload = get_slice(&fields, "payload");
    check_fields(&fields);
    return envelope;
}

static void push_envelope(lua_State *L, const gr_envelope *envelope)
{
    lua_createtable(L, 0, 13);
    lua_pushstring(L, type_name(envelope->type));
    lua_setfield(L, -2, "type");
    set_integer(L, "flags", envelope->flags);
    set_integer(L, "status", envelope->status);
    set_integer(L, "id", envelope->id);
    set_integer(L, "route", envelope->route);
    set_integer(L, "deadline_ms", envelope->deadline_ms);
    set_integer(L, "credit", envelope->credit);
    set_integer(L, "window", envelope->window);
    set_integer(L, "split", envelope->split);
    set_integer(L, "count", envelope->count);
    set_slice(L, "service", envelope->service);
    set_slice(L, "method", envelope->method);
    set_slice(L, "payload", envelope->payload);
    if (envelope->tag.len == 0 && envelope->caller.len == 0 && envelope->sender.len == 0 &&
        envelope->credentials.mechanism.len == 0)
        return;
    set_slice(L, "tag", envelope->tag);
    set_slice(L, "caller", envelope->caller);
    set_slice(L, "sender", envelope->sender);
    set_slice(L, "mechanism", envelope->credentials.mechanism);
    set_slice(L, "user", envelope->credentials.user);
    set_slice(L, "password", envelope->credentials.password);
    set_integer(L, "seed", envelope->seed);
    lua_pushboolean(L, envelope->in_stream);
    lua_setfield(L, -2, "in_stream");
    lua_pushboolean(L, envelope->bulk);
    lua_setfield(L, -2, "bulk");
}

/* --- the codec --------------------------------------------------------------------------- */

static const char *const legs[] = {"client_to_broker", "broker_to_client", "worker_to_broker",
                                   "broker_to_worker", NULL};

static const gr_dialect *check_dialect(lua_State *L, int index)
{
    const gr_dialect *dialect = gr_wire_dialect(luaL_checkstring(L, index));
    luaL_argcheck(L, dialect != NULL, index, "there is no such dialect");
    return dialect;
}

static enum gr_leg check_leg(lua_State *L, int index)
{
    return (enum gr_leg)luaL_checkoption(L, index, NULL, legs);
}

static int build(lua_State *L, const gr_dialect *dialect, enum gr_leg leg, int index)
{
    bool take;
    gr_envelope envelope = check_envelope(L, index, &take);
    gr_buf payload = {0};
    gr_msg *msg;
    if (take && gr_buf_append(&payload, envelope.payload.data, envelope.payload.len) < 0)
        return luaL_error(L, "out of memory");
    int rc = dialect->build(&envelope, leg, take ? &payload : NULL, &msg);
    gr_buf_clear(&payload);
    return rc < 0 ? fail(L, rc) : msg == NULL ? 0 : push_frames_of(L, msg);
}

static int
f_build(lua_State *L) /* engine.build(envelope) -> frames...; take: the payload is given away */
{
    return build(L, &gr_dialect_gh1, GR_CLIENT_TO_BROKER, 1);
}

static int f_build_as(lua_State *L)
/* engine.build_as(dialect, leg, envelope) -> frames... | nil, code | nothing: no word for it */
{
    const gr_dialect *dialect = check_dialect(L, 1);
    return build(L, dialect, check_leg(L, 2), 3);
}

static int parse(lua_State *L, const gr_dialect *dialect, enum gr_leg leg, gr_msg *msg,
                 size_t first)
{
    gr_envelope envelope = {0};
    gr_buf scratch = {0};
    int rc = dialect->parse(msg, first, leg, &scratch, &envelope);
    if (rc == 0)
        push_envelope(L, &envelope);
    gr_msg_destroy(&msg);
    gr_buf_clear(&scratch);
    if (rc == 0)
        return 1;
    fail(L, rc);
    lua_pushstring(L, envelope.why);
    return 3;
}

static int f_parse(lua_State *L) /* engine.parse(frames...) -> envelope | nil, code, why */
{
    return parse(L, &gr_dialect_gh1, GR_CLIENT_TO_BROKER, check_msg(L, 1, lua_gettop(L)), 0);
}

static int f_parse_as(lua_State *L)
/* engine.parse_as(dialect, leg, routing_id or nil, frames...) -> envelope | nil, code, why */
{
    const gr_dialect *dialect = check_dialect(L, 1);
    enum gr_leg leg = check_leg(L, 2);
    bool routed = !lua_isnil(L, 3);
    return parse(L, dialect, leg, check_msg(L, routed ? 3 : 4, lua_gettop(L)), routed);
}

static int f_readdress(lua_State *L) /* engine.readdress(envelope, frames...) -> frames... */
{
    int last = lua_gettop(L);
    bool take;
    gr_envelope envelope = check_envelope(L, 1, &take);
    gr_msg *msg = check_msg(L, 2, last);
    int rc = gr_gh1_readdress(msg, 0, &envelope);
    if (rc == 0)
        return push_frames_of(L, msg);
    gr_msg_destroy(&msg);
    return fail(L, rc);
}

static int f_recognise(lua_State *L)
/* engine.recognise(leg, routing_id, frames...) -> name | nil */
{
    enum gr_leg leg = check_leg(L, 1);
    gr_msg *msg = check_msg(L, 2, lua_gettop(L));
    const gr_dialect *dialect = gr_wire_recognise(msg, 1, leg);
    lua_pushstring(L, dialect != NULL ? dialect->name : NULL);
    gr_msg_destroy(&msg);
    return 1;
}

static int f_tag(lua_State *L) /* engine.tag(number, seed) -> 16 bytes */
{
    uint8_t tag[GR_TAG_LEN];
    gr_tag_put(tag, (uint64_t)luaL_checkinteger(L, 1), (uint64_t)luaL_checkinteger(L, 2));
    lua_pushlstring(L, (const char *)tag, sizeof(tag));
    return 1;
}

static int f_read_tag(lua_State *L) /* engine.read_tag(tag) -> number, seed */
{
    gr_slice tag = check_slice(L, 1);
    lua_pushinteger(L, (lua_Integer)gr_tag_number(tag));
    lua_pushinteger(L, (lua_Integer)gr_tag_seed(tag));
    return 2;
}

static int f_is_name(lua_State *L)
{
    lua_pushboolean(L, gr_wire_is_name(check_slice(L, 1)));
    return 1;
}

static int f_type_name(lua_State *L) /* engine.type_name(number) -> name */
{
    lua_Integer type = luaL_checkinteger(L, 1);
    luaL_argcheck(L, type >= GR_HELLO && type <= GR_CHUNK, 1, "there is no such type");
    lua_pushstring(L, types[type]);
    return 1;
}

static int f_code(lua_State *L) /* engine.code(status on the wire) -> code for users */
{
    lua_pushstring(L, gr_err_code(-(int)luaL_checkinteger(L, 1)));
    return 1;
}

static int
f_put_exception(lua_State *L) /* engine.put_exception(class, message, traceback) -> payload */
{
    gr_slice class_name = check_slice(L, 1);
    gr_slice message = check_slice(L, 2);
    gr_slice traceback = check_slice(L, 3);
    gr_buf out = {0};
    gr_wire_put_exception(&out, class_name, message, traceback);
    lua_pushlstring(L, (const char *)out.data, out.len);
    gr_buf_clear(&out);
    return 1;
}

static int f_put_result(lua_State *L) /* engine.put_result(packed) -> payload */
{
    gr_slice packed = check_slice(L, 1);
    gr_buf out = {0};
    gr_wire_put_result_begin(&out);
    gr_buf_append(&out, packed.data, packed.len);
    gr_wire_put_result_end(&out);
    lua_pushlstring(L, (const char *)out.data, out.len);
    gr_buf_clear(&out);
    return 1;
}

static int
f_get_result(lua_State *L) /* engine.get_result(payload) -> result, exception | nil, code */
{
    gr_slice result, exception;
    int rc = gr_wire_get_result(check_slice(L, 1), &result, &exception);
    if (rc < 0)
        return fail(L, rc);
    lua_pushlstring(L, result.len > 0 ? (const char *)result.data : "", result.len);
    lua_pushlstring(L, exception.len > 0 ? (const char *)exception.data : "", exception.len);
    return 2;
}

/* --- the broker -------------------------------------------------------------------------- */

struct broker_box {
    gr_broker *engine;
    gr_msg *last; /* what next_out() gave, until it is known whether it could be sent */
    char user[64], address[64]; /* of connections that are made from now on */
};

static struct broker_box *check_broker(lua_State *L)
{
    struct broker_box *box = luaL_checkudata(L, 1, BROKER);
    luaL_argcheck(L, box->engine != NULL, 1, "it is closed");
    return box;
}

static enum gr_via check_via(lua_State *L, int index)
{
    return (enum gr_via)luaL_checkoption(L, index, NULL, vias);
}

static int f_broker(lua_State *L) /* engine.broker{fields of gr_broker_options} */
{
    struct fields fields = read_fields(L, 1);
    gr_broker_options options = {
        .instance = get_integer(&fields, "instance"),
        .heartbeat_ms = (uint32_t)get_integer(&fields, "heartbeat_ms"),
        .liveness = (uint32_t)get_integer(&fields, "liveness"),
        .queue_len = (uint32_t)get_integer(&fields, "queue_len"),
        .queue_bytes = (size_t)get_integer(&fields, "queue_bytes"),
        .backlog_bytes = (size_t)get_integer(&fields, "backlog_bytes"),
        .max_services = (uint32_t)get_integer(&fields, "max_services"),
        .max_peers = (uint32_t)get_integer(&fields, "max_peers"),
        .max_calls = (uint32_t)get_integer(&fields, "max_calls"),
        .idle_ms = (uint32_t)get_integer(&fields, "idle_ms"),
        .call_ms = (uint32_t)get_integer(&fields, "call_ms"),
        .gate01_ms = (uint32_t)get_integer(&fields, "gate01_ms"),
        .gate02_ms = (uint32_t)get_integer(&fields, "gate02_ms"),
        .mdp_ms = (uint32_t)get_integer(&fields, "mdp_ms"),
    };
    check_fields(&fields);
    struct broker_box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = (struct broker_box){0};
    luaL_setmetatable(L, BROKER);
    int rc = gr_broker_new(&box->engine, &options);
    return rc < 0 ? fail(L, rc) : 1;
}

static int broker_receive(lua_State *L)
/* broker:receive(via, routing_id, frames...) -> true | false: it takes no more peers */
{
    struct broker_box *box = check_broker(L);
    enum gr_via via = check_via(L, 2);
    gr_msg *msg = check_msg(L, 3, lua_gettop(L));
    gr_peer *peer = gr_broker_find_peer(box->engine, via, msg);
    if (peer == NULL) {
        peer = gr_broker_add_peer(box->engine, via, msg, now_ms);
        if (peer != NULL)
            gr_broker_set_user(box->engine, peer, gr_slice_str(box->user),
                               gr_slice_str(box->address));
    }
    if (peer != NULL)
        gr_broker_receive(box->engine, peer, &msg, now_ms);
    bool leaked = peer != NULL && msg != NULL;
    gr_msg_destroy(&msg);
    if (leaked)
        return luaL_error(L, "gr_broker_receive() has not taken the message");
    lua_pushboolean(L, peer != NULL);
    return 1;
}

static int
broker_next_out(lua_State *L) /* broker:next_out() -> via, routing_id, frames... | nothing */
{
    struct broker_box *box = check_broker(L);
    enum gr_via via;
    gr_msg_destroy(&box->last);
    if (!gr_broker_next_out(box->engine, &via, &box->last))
        return 0;
    lua_pushstring(L, vias[via]);
    return 1 + push_frames(L, box->last);
}

static int
broker_stalled(lua_State *L) /* broker:stalled(): the last message could not be sent now */
{
    struct broker_box *box = check_broker(L);
    luaL_argcheck(L, box->last != NULL, 1, "there is no last message");
    gr_broker_stalled(box->engine, &box->last, now_ms);
    if (box->last != NULL)
        return luaL_error(L, "gr_broker_stalled() has not taken the message");
    return 0;
}

static int
broker_unreachable(lua_State *L) /* broker:unreachable(): nobody is there for the last message */
{
    struct broker_box *box = check_broker(L);
    luaL_argcheck(L, box->last != NULL, 1, "there is no last message");
    gr_broker_unreachable(box->engine, now_ms);
    gr_msg_destroy(&box->last);
    return 0;
}

static int broker_local_gone(lua_State *L) /* broker:local_gone(via, routing_id) */
{
    struct broker_box *box = check_broker(L);
    gr_broker_local_gone(box->engine, check_via(L, 2), check_slice(L, 3), now_ms);
    return 0;
}

static int broker_tick(lua_State *L)
{
    gr_broker_tick(check_broker(L)->engine, now_ms);
    return 0;
}

static int push_due(lua_State *L, int64_t due_ms) /* milliseconds | nil: never */
{
    if (due_ms == INT64_MAX)
        lua_pushnil(L);
    else
        lua_pushinteger(L, due_ms);
    return 1;
}

static int broker_next_due(lua_State *L)
{
    return push_due(L, gr_broker_next_due(check_broker(L)->engine));
}

static int broker_drain(lua_State *L)
{
    gr_broker_drain(check_broker(L)->engine, now_ms);
    return 0;
}

static int broker_leave(lua_State *L)
{
    gr_broker_leave(check_broker(L)->engine, now_ms);
    return 0;
}

static int broker_open_calls(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)gr_broker_open_calls(check_broker(L)->engine));
    return 1;
}

static int broker_secure(lua_State *L) /* broker:secure() */
{
    gr_broker_secure(check_broker(L)->engine);
    return 0;
}

static int broker_set_user(lua_State *L)
/* broker:set_user(user, address): whose connections are made from now on; nil, nil: nobody's */
{
    struct broker_box *box = check_broker(L);
    snprintf(box->user, sizeof(box->user), "%s", luaL_optstring(L, 2, ""));
    snprintf(box->address, sizeof(box->address), "%s", luaL_optstring(L, 3, ""));
    return 0;
}

static int broker_question(lua_State *L)
/* broker:question() -> number, mechanism, user, password, address | nothing */
{
    gr_broker_question question;
    if (!gr_broker_next_question(check_broker(L)->engine, &question))
        return 0;
    const gr_slice texts[] = {question.credentials.mechanism, question.credentials.user,
                              question.credentials.password, question.address};
    lua_pushinteger(L, (lua_Integer)question.number);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        lua_pushlstring(L, texts[i].len > 0 ? (const char *)texts[i].data : "", texts[i].len);
    return 5;
}

static int broker_answer(lua_State *L) /* broker:answer(number, "no" | "yes" | "unclear") */
{
    static const char *const verdicts[] = {"no", "yes", "unclear", NULL};
    gr_broker_answer(check_broker(L)->engine, (uint64_t)luaL_checkinteger(L, 2),
                     (enum gr_verdict)luaL_checkoption(L, 3, NULL, verdicts), now_ms);
    return 0;
}

static int broker_set_policy(lua_State *L) /* broker:set_policy({ name, ... } or nil) */
{
    struct broker_box *box = check_broker(L);
    gr_policy *policy = NULL;
    lua_settop(L, 2);
    if (!lua_isnil(L, 2) && gr_policy_new(&policy) == 0)
        for (lua_Integer i = 1; lua_rawgeti(L, 2, i) == LUA_TSTRING; i++)
            gr_policy_add_user(policy, check_slice(L, -1), gr_slice_str("x"));
    gr_broker_set_policy(box->engine, &policy, now_ms);
    return 0;
}

static int
broker_set_access(lua_State *L) /* broker:set_access({ { user, action, what }, ... } or nil) */
{
    struct broker_box *box = check_broker(L);
    gr_access *access = NULL;
    lua_settop(L, 2);
    if (!lua_isnil(L, 2) && gr_access_new(&access) == 0) {
        for (lua_Integer i = 1; lua_rawgeti(L, 2, i) == LUA_TTABLE; i++) {
            lua_rawgeti(L, 3, 1);
            lua_rawgeti(L, 3, 2);
            lua_rawgeti(L, 3, 3);
            bool registers = strcmp(luaL_checkstring(L, 5), "register") == 0;
            gr_access_allow(access, check_slice(L, 4), registers ? GR_MAY_REGISTER : GR_MAY_CALL,
                            check_slice(L, 6));
            lua_settop(L, 2);
        }
    }
    gr_broker_set_access(box->engine, &access, now_ms);
    return 0;
}

static int broker_refusal(lua_State *L) /* broker:refusal() -> text: the last one refused */
{
    char text[300];
    gr_broker_last_refused(check_broker(L)->engine, text, sizeof(text));
    lua_pushstring(L, text);
    return 1;
}

static int broker_fault(lua_State *L) /* broker:fault() -> text: the last malformed message */
{
    char text[200];
    gr_broker_last_malformed(check_broker(L)->engine, text, sizeof(text));
    lua_pushstring(L, text);
    return 1;
}

static int broker_stats(lua_State *L) /* broker:stats() -> the fields of gr_broker_stats */
{
    gr_broker_stats stats;
    gr_broker_get_stats(check_broker(L)->engine, &stats);
    lua_createtable(L, 0, 13);
    set_integer(L, "requests", stats.requests);
    set_integer(L, "answers", stats.answers);
    set_integer(L, "items", stats.items);
    set_integer(L, "late", stats.late);
    set_integer(L, "refused", stats.refused);
    set_integer(L, "denied", stats.denied);
    set_integer(L, "forged", stats.forged);
    set_integer(L, "cut", stats.cut);
    set_integer(L, "malformed", stats.malformed);
    set_integer(L, "redispatch", stats.redispatch);
    set_integer(L, "lost", stats.lost);
    set_integer(L, "slow", stats.slow);
    set_integer(L, "peers", stats.peers);
    set_integer(L, "workers", stats.workers);
    set_integer(L, "services", stats.services);
    set_integer(L, "calls", stats.calls);
    set_integer(L, "waiting", stats.waiting);
    return 1;
}

static int broker_close(lua_State *L)
{
    struct broker_box *box = luaL_checkudata(L, 1, BROKER);
    gr_msg_destroy(&box->last);
    gr_broker_destroy(&box->engine);
    return 0;
}

/* --- what workers and clients share ------------------------------------------------------ */

struct box {
    const gr_engine_ops *ops;
    union {
        void *any;
        gr_worker *worker;
        gr_client *client;
    } engine;
    gr_msg *last; /* what is being turned into Lua values */
};

static struct box *check_open(lua_State *L, struct box *box)
{
    luaL_argcheck(L, box->engine.any != NULL, 1, "it is closed");
    return box;
}

static struct box *check_either(lua_State *L)
{
    struct box *box = luaL_testudata(L, 1, WORKER);
    return check_open(L, box != NULL ? box : luaL_checkudata(L, 1, CLIENT));
}

static int m_routing_id(lua_State *L) /* it:routing_id() -> string: of the next connection */
{
    struct box *box = check_either(L);
    gr_slice id = box->ops->routing_id(box->engine.any);
    lua_pushlstring(L, id.len > 0 ? (const char *)id.data : "", id.len);
    return 1;
}

static int m_connected(lua_State *L)
{
    struct box *box = check_either(L);
    box->ops->connected(box->engine.any, now_ms);
    return 0;
}

static int m_disconnected(lua_State *L)
{
    struct box *box = check_either(L);
    box->ops->disconnected(box->engine.any, now_ms);
    return 0;
}

static int m_refused(lua_State *L) /* it:refused(code) */
{
    struct box *box = check_either(L);
    box->ops->refused(box->engine.any, gr_err_of_code(luaL_checkstring(L, 2)), "says no", now_ms);
    return 0;
}

static int m_receive(lua_State *L) /* it:receive(frames...) */
{
    struct box *box = check_either(L);
    gr_msg *msg = check_msg(L, 2, lua_gettop(L));
    box->ops->receive(box->engine.any, &msg, now_ms);
    bool leaked = msg != NULL;
    gr_msg_destroy(&msg);
    if (leaked)
        return luaL_error(L, "receive() has not taken the message");
    return 0;
}

static int m_tick(lua_State *L)
{
    struct box *box = check_either(L);
    box->ops->tick(box->engine.any, now_ms);
    return 0;
}

static int m_next_due(lua_State *L)
{
    struct box *box = check_either(L);
    return push_due(L, box->ops->next_due(box->engine.any));
}

static int m_next_out(lua_State *L) /* it:next_out() -> frames... | nothing */
{
    struct box *box = check_either(L);
    gr_msg_destroy(&box->last);
    if (!box->ops->next_out(box->engine.any, &box->last))
        return 0;
    int pushed = push_frames(L, box->last);
    gr_msg_destroy(&box->last);
    return pushed;
}

static int m_events(lua_State *L) /* it:events() -> how many wait */
{
    struct box *box = check_either(L);
    lua_pushinteger(L, (lua_Integer)box->ops->events(box->engine.any));
    return 1;
}

static int m_take_reconnect(lua_State *L)
{
    struct box *box = check_either(L);
    lua_pushboolean(L, box->ops->take_reconnect(box->engine.any));
    return 1;
}

static int m_is_busy(lua_State *L)
{
    struct box *box = check_either(L);
    lua_pushboolean(L, box->ops->is_busy(box->engine.any));
    return 1;
}

static struct box *new_box(lua_State *L, const char *type, const gr_engine_ops *ops)
{
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = (struct box){.ops = ops};
    luaL_setmetatable(L, type);
    return box;
}

static void set_message(lua_State *L, struct box *box, gr_slice payload)
{
    if (box->last != NULL)
        set_slice(L, "payload", payload);
    gr_msg_destroy(&box->last);
}

/* --- the worker -------------------------------------------------------------------------- */

static gr_worker *check_worker(lua_State *L)
{
    return check_open(L, luaL_checkudata(L, 1, WORKER))->engine.worker;
}

/* [-0, +4] dialect, seed, mechanism, user, password, as gr_foreign_options has them. */
static gr_foreign_options get_foreign(struct fields *fields)
{
    gr_foreign_options foreign = {.seed = get_integer(fields, "seed")};
    gr_slice name = get_slice(fields, "dialect");
    if (name.len > 0)
        foreign.dialect = check_dialect(fields->L, -1);
    foreign.credentials.mechanism = get_slice(fields, "mechanism");
    foreign.credentials.user = get_slice(fields, "user");
    foreign.credentials.password = get_slice(fields, "password");
    return foreign;
}

static int f_worker(lua_State *L) /* engine.worker{fields of gr_worker_options} | nil, code */
{
    struct fields fields = read_fields(L, 1);
    gr_worker_options options = {
        .credit = (uint32_t)get_integer(&fields, "credit"),
        .heartbeat_ms = (uint32_t)get_integer(&fields, "heartbeat_ms"),
        .liveness = (uint32_t)get_integer(&fields, "liveness"),
        .idle_ms = (uint32_t)get_integer(&fields, "idle_ms"),
        .local = get_bool(&fields, "local"),
    };
    options.service = get_slice(&fields, "service");
    options.about = get_slice(&fields, "about");
    options.method = get_slice(&fields, "method");
    options.foreign = get_foreign(&fields);
    check_fields(&fields);
    struct box *box = new_box(L, WORKER, &gr_worker_ops);
    int rc = gr_worker_new(&box->engine.worker, &options);
    return rc < 0 ? fail(L, rc) : 1;
}

static gr_buf check_payload(lua_State *L, int index)
{
    gr_slice bytes = check_slice(L, index);
    gr_buf payload = {0};
    if (gr_buf_append(&payload, bytes.data, bytes.len) < 0)
        luaL_error(L, "out of memory");
    return payload;
}

static int worker_reply(lua_State *L) /* worker:reply(route, payload, status) -> true | nil, code */
{
    gr_worker *worker = check_worker(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    uint16_t status = (uint16_t)luaL_optinteger(L, 4, 0);
    gr_buf payload = check_payload(L, 3);
    int rc = gr_worker_reply(worker, route, status, &payload, now_ms);
    gr_buf_clear(&payload);
    return done(L, rc);
}

static int worker_error(lua_State *L) /* worker:error(route, code, payload) -> true | nil, code */
{
    gr_worker *worker = check_worker(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    int error = gr_err_of_code(luaL_checkstring(L, 3));
    gr_buf payload = check_payload(L, 4);
    int rc = gr_worker_error(worker, route, error, &payload, now_ms);
    gr_buf_clear(&payload);
    return done(L, rc);
}

static int
worker_chunk(lua_State *L) /* worker:chunk(route, codec, raw, bytes) -> more | nil, code */
{
    gr_worker *worker = check_worker(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    int rc = gr_worker_chunk(worker, route, check_slice(L, 3), lua_toboolean(L, 4),
                             check_slice(L, 5), now_ms);
    if (rc < 0)
        return fail(L, rc);
    lua_pushboolean(L, rc);
    return 1;
}

static int worker_item(lua_State *L) /* worker:item(route, bytes) -> more | nil, code */
{
    gr_worker *worker = check_worker(L);
    uint64_t route = (uint64_t)luaL_checkinteger(L, 2);
    int rc = gr_worker_item(worker, route, check_slice(L, 3), now_ms);
    if (rc < 0)
        return fail(L, rc);
    lua_pushboolean(L, rc);
    return 1;
}

static int worker_flush(lua_State *L) /* worker:flush(route) */
{
    gr_worker *worker = check_worker(L);
    gr_worker_flush(worker, (uint64_t)luaL_checkinteger(L, 2), now_ms);
    return 0;
}

static int worker_finish(
    lua_State *L) /* worker:finish(route[, digest]) -> true | nil, code; gr_worker_end() */
{
    gr_worker *worker = check_worker(L);
    size_t len;
    const char *digest = luaL_optlstring(L, 3, "", &len);
    return done(L, gr_worker_end(worker, (uint64_t)luaL_checkinteger(L, 2),
                                 gr_slice_of(digest, len), now_ms));
}

static int worker_nested(lua_State *L) /* worker:nested(count) */
{
    gr_worker *worker = check_worker(L);
    gr_worker_nested(worker, (uint32_t)luaL_checkinteger(L, 2), now_ms);
    return 0;
}

static int worker_drain(lua_State *L)
{
    gr_worker_drain(check_worker(L), now_ms);
    return 0;
}

static int worker_leave(lua_State *L)
{
    gr_worker_leave(check_worker(L), now_ms);
    return 0;
}

static int worker_is_up(lua_State *L)
{
    lua_pushboolean(L, gr_worker_is_up(check_worker(L)));
    return 1;
}

static int worker_next_event(lua_State *L) /* worker:next_event() -> {type =, ...} | nil */
{
    static const char *const names[] = {
        [GR_WORKER_REQUEST] = "REQUEST", [GR_WORKER_CANCEL] = "CANCEL",
        [GR_WORKER_CREDIT] = "CREDIT",   [GR_WORKER_UP] = "UP",
        [GR_WORKER_DOWN] = "DOWN",       [GR_WORKER_REFUSED] = "REFUSED",
        [GR_WORKER_DRAINED] = "DRAINED", [GR_WORKER_BARRED] = "BARRED",
    };
    struct box *box = check_open(L, luaL_checkudata(L, 1, WORKER));
    gr_worker_event event;
    if (!gr_worker_next_event(box->engine.worker, &event))
        return 0;
    box->last = event.msg;
    lua_createtable(L, 0, 9);
    lua_pushstring(L, names[event.type]);
    lua_setfield(L, -2, "type");
    set_integer(L, "route", event.route);
    set_integer(L, "status", (uint64_t)event.status);
    if (event.status != 0) {
        lua_pushstring(L, gr_err_code(event.status));
        lua_setfield(L, -2, "code");
    }
    set_integer(L, "id", event.id);
    set_integer(L, "deadline_ms", event.deadline_ms);
    set_integer(L, "split", event.split);
    lua_pushstring(L, event.text);
    lua_setfield(L, -2, "text");
    set_slice(L, "method", event.method);
    set_slice(L, "client", event.client);
    set_slice(L, "address", event.address);
    set_slice(L, "user", event.user);
    set_message(L, box, event.payload);
    return 1;
}

static int worker_stats(lua_State *L)
{
    gr_worker_stats stats;
    gr_worker_get_stats(check_worker(L), &stats);
    lua_createtable(L, 0, 4);
    set_integer(L, "requests", stats.requests);
    set_integer(L, "cancelled", stats.cancelled);
    set_integer(L, "malformed", stats.malformed);
    set_integer(L, "open", stats.open);
    return 1;
}

static int worker_close(lua_State *L)
{
    struct box *box = luaL_checkudata(L, 1, WORKER);
    gr_msg_destroy(&box->last);
    gr_worker_destroy(&box->engine.worker);
    return 0;
}

/* --- the client -------------------------------------------------------------------------- */

static gr_client *check_client(lua_State *L)
{
    return check_open(L, luaL_checkudata(L, 1, CLIENT))->engine.client;
}

static int f_client(lua_State *L) /* engine.client{fields of gr_client_options} | nil, code */
{
    struct fields fields = read_fields(L, 1);
    gr_client_options options = {
        .heartbeat_ms = (uint32_t)get_integer(&fields, "heartbeat_ms"),
        .liveness = (uint32_t)get_integer(&fields, "liveness"),
        .connect_timeout_ms = (uint32_t)get_integer(&fields, "connect_timeout_ms"),
        .max_calls = (uint32_t)get_integer(&fields, "max_calls"),
        .local = get_bool(&fields, "local"),
    };
    options.foreign = get_foreign(&fields);
    check_fields(&fields);
    struct box *box = new_box(L, CLIENT, &gr_client_ops);
    int rc = gr_client_new(&box->engine.client, &options);
    return rc < 0 ? fail(L, rc) : 1;
}

static int client_call(lua_State *L)
/* client:call{fields of gr_client_request, payload =} -> id | nil, code */
{
    gr_client *client = check_client(L);
    struct fields fields = read_fields(L, 2);
    gr_client_request request = {
        .split = (uint32_t)get_integer(&fields, "split"),
        .timeout_ms = (uint32_t)get_integer(&fields, "timeout_ms"),
        .credit = (uint32_t)get_integer(&fields, "credit"),
        .window = (uint32_t)get_integer(&fields, "window"),
    };
    request.service = get_slice(&fields, "service");
    request.method = get_slice(&fields, "method");
    get_slice(&fields, "payload");
    check_fields(&fields);
    gr_buf payload = check_payload(L, -1);
    uint64_t id = 0;
    int rc = gr_client_call(client, &request, &payload, now_ms, &id);
    gr_buf_clear(&payload);
    if (rc < 0)
        return fail(L, rc);
    lua_pushinteger(L, (lua_Integer)id);
    return 1;
}

static int client_credit(lua_State *L) /* client:credit(id, items, bytes) -> true | nil, code */
{
    gr_client *client = check_client(L);
    uint64_t id = (uint64_t)luaL_checkinteger(L, 2);
    uint32_t items = (uint32_t)luaL_checkinteger(L, 3);
    uint32_t bytes = (uint32_t)luaL_checkinteger(L, 4);
    return done(L, gr_client_credit(client, id, items, bytes, now_ms));
}

static int client_cancel(lua_State *L) /* client:cancel(id) */
{
    gr_client *client = check_client(L);
    gr_client_cancel(client, (uint64_t)luaL_checkinteger(L, 2), now_ms);
    return 0;
}

static int client_leave(lua_State *L)
{
    gr_client_leave(check_client(L), now_ms);
    return 0;
}

static int client_is_up(lua_State *L)
{
    lua_pushboolean(L, gr_client_is_up(check_client(L)));
    return 1;
}

static int client_next_event(lua_State *L) /* client:next_event() -> {type =, ...} | nil */
{
    static const char *const names[] = {
        [GR_CLIENT_REPLY] = "REPLY",   [GR_CLIENT_ITEM] = "ITEM", [GR_CLIENT_END] = "END",
        [GR_CLIENT_FAILED] = "FAILED", [GR_CLIENT_UP] = "UP",     [GR_CLIENT_DOWN] = "DOWN",
        [GR_CLIENT_CHUNK] = "CHUNK",
    };
    struct box *box = check_open(L, luaL_checkudata(L, 1, CLIENT));
    gr_client_event event;
    if (!gr_client_next_event(box->engine.client, &event))
        return 0;
    box->last = event.msg;
    lua_createtable(L, 0, 7);
    lua_pushstring(L, names[event.type]);
    lua_setfield(L, -2, "type");
    set_integer(L, "id", event.id);
    set_integer(L, "status", (uint64_t)event.status);
    if (event.type == GR_CLIENT_FAILED) {
        lua_pushstring(L, gr_err_code(event.status));
        lua_setfield(L, -2, "code");
    }
    set_integer(L, "count", event.count);
    lua_pushstring(L, event.text);
    lua_setfield(L, -2, "text");
    lua_pushboolean(L, event.refused);
    lua_setfield(L, -2, "refused");
    set_message(L, box, event.payload);
    return 1;
}

static int client_stats(lua_State *L)
{
    gr_client_stats stats;
    gr_client_get_stats(check_client(L), &stats);
    lua_createtable(L, 0, 4);
    set_integer(L, "calls", stats.calls);
    set_integer(L, "late", stats.late);
    set_integer(L, "malformed", stats.malformed);
    set_integer(L, "open", stats.open);
    return 1;
}

static int client_close(lua_State *L)
{
    struct box *box = luaL_checkudata(L, 1, CLIENT);
    gr_msg_destroy(&box->last);
    gr_client_destroy(&box->engine.client);
    return 0;
}

/* --- the module -------------------------------------------------------------------------- */

static int f_at(lua_State *L) /* engine.at(ms): it is that late now, for all engines */
{
    now_ms = luaL_checkinteger(L, 1);
    return 0;
}

static int f_now(lua_State *L)
{
    lua_pushinteger(L, now_ms);
    return 1;
}

static void make_class(lua_State *L, const char *type, const luaL_Reg *methods,
                       const luaL_Reg *more, lua_CFunction close)
{
    luaL_newmetatable(L, type);
    luaL_setfuncs(L, methods, 0);
    if (more != NULL)
        luaL_setfuncs(L, more, 0);
    lua_pushvalue(L, -1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, close);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__gc");
    lua_setfield(L, -2, "close");
    lua_pop(L, 1);
}

int luaopen_engine(lua_State *L)
{
    static const luaL_Reg broker[] = {
        {"receive", broker_receive},       {"next_out", broker_next_out},
        {"stalled", broker_stalled},       {"unreachable", broker_unreachable},
        {"local_gone", broker_local_gone}, {"tick", broker_tick},
        {"next_due", broker_next_due},     {"drain", broker_drain},
        {"leave", broker_leave},           {"open_calls", broker_open_calls},
        {"stats", broker_stats},           {"secure", broker_secure},
        {"set_user", broker_set_user},     {"question", broker_question},
        {"answer", broker_answer},         {"set_policy", broker_set_policy},
        {"set_access", broker_set_access}, {"refusal", broker_refusal},
        {"fault", broker_fault},           {NULL, NULL},
    };
    static const luaL_Reg either[] = {
        {"routing_id", m_routing_id},
        {"connected", m_connected},
        {"disconnected", m_disconnected},
        {"refused", m_refused},
        {"receive", m_receive},
        {"tick", m_tick},
        {"next_due", m_next_due},
        {"next_out", m_next_out},
        {"events", m_events},
        {"take_reconnect", m_take_reconnect},
        {"is_busy", m_is_busy},
        {NULL, NULL},
    };
    static const luaL_Reg worker[] = {
        {"reply", worker_reply},
        {"error", worker_error},
        {"item", worker_item},
        {"chunk", worker_chunk},
        {"flush", worker_flush},
        {"drain", worker_drain},
        {"finish", worker_finish},
        {"leave", worker_leave},
        {"stats", worker_stats},
        {"is_up", worker_is_up},
        {"next_event", worker_next_event},
        {"nested", worker_nested},
        {NULL, NULL},
    };
    static const luaL_Reg client[] = {
        {"call", client_call},
        {"credit", client_credit},
        {"cancel", client_cancel},
        {"leave", client_leave},
        {"stats", client_stats},
        {"is_up", client_is_up},
        {"next_event", client_next_event},
        {NULL, NULL},
    };
    static const luaL_Reg functions[] = {
        {"at", f_at},
        {"now", f_now},
        {"build", f_build},
        {"build_as", f_build_as},
        {"parse_as", f_parse_as},
        {"tag", f_tag},
        {"read_tag", f_read_tag},
        {"parse", f_parse},
        {"readdress", f_readdress},
        {"recognise", f_recognise},
        {"is_name", f_is_name},
        {"type_name", f_type_name},
        {"code", f_code},
        {"put_exception", f_put_exception},
        {"put_result", f_put_result},
        {"get_result", f_get_result},
        {"broker", f_broker},
        {"worker", f_worker},
        {"client", f_client},
        {NULL, NULL},
    };
    make_class(L, BROKER, broker, NULL, broker_close);
    make_class(L, WORKER, either, worker, worker_close);
    make_class(L, CLIENT, either, client, client_close);
    luaL_newlib(L, functions);
    return 1;
}
