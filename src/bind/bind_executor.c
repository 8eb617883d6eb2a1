/* bind_executor.c - executors for Lua: core.executor(kind, owner) -> executor. */
#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "bind/bind.h"
#include "bind/bind_msgpack.h"
#include "host/inside.h"
#include "host/state.h"

#define EXECUTOR "gaterpc.core.executor"

struct box {
    gr_executor *executor;
    gr_state *state;
    gr_frame *current; /* that is being turned into Lua values */
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, EXECUTOR);
}

static struct box *check_open(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->executor == NULL)
        luaL_error(L, "the executor is closed");
    return box;
}

static void on_ready(void *arg, gr_executor *executor)
{
    struct box *box = arg;
    (void)executor;
    gr_loop_enter(box->state->loop);
    gr_state_tell_owner(box->state, "ready", box);
}

/* --- to the executor --------------------------------------------------------------------- */

static int send_frame(lua_State *L, struct box *box, gr_frame **frame)
{
    int rc = gr_executor_send(box->executor, frame);
    gr_frame_destroy(frame);
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushboolean(L, 1);
    return 1;
}

/* Sends a frame that has no body. */
static int send_head(lua_State *L, struct box *box, const gr_frame_head *head)
{
    gr_frame *frame;
    int rc = gr_frame_of_head(&frame, head);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : send_frame(L, box, &frame);
}

static int m_hello(lua_State *L)
/* executor:hello(memory_limit, window, window_bytes, settings) -> true | nil, code, text; settings
 * are packed */
{
    struct box *box = check_open(L);
    lua_Integer memory_limit = luaL_checkinteger(L, 2);
    lua_Integer window = luaL_checkinteger(L, 3), window_bytes = luaL_checkinteger(L, 4);
    gr_slice settings = gr_bind_check_slice(L, 5);
    gr_frame *frame;
    int rc = gr_frame_new(&frame, GR_FRAME_HELLO, 0, settings.len);
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    memcpy(frame->body, settings.data, settings.len);
    frame->head.number = (uint64_t)memory_limit;
    frame->head.a = (uint32_t)window;
    frame->head.b = (uint32_t)window_bytes;
    return send_frame(L, box, &frame);
}

static int m_job(lua_State *L)
/* executor:job(id, deadline_ms, description, code, arguments, split) -> true | nil, code, text;
 * strings are packed */
{
    struct box *box = check_open(L);
    uint64_t id = (uint64_t)luaL_checkinteger(L, 2);
    uint64_t deadline_ms = (uint64_t)luaL_checkinteger(L, 3);
    gr_slice parts[3];
    size_t len = 0;
    for (int i = 0; i < 3; i++) {
        parts[i] = gr_bind_check_slice(L, 4 + i);
        len += parts[i].len;
    }
    lua_Integer split = luaL_checkinteger(L, 7);
    gr_frame *frame;
    int rc = gr_frame_new(&frame, GR_FRAME_JOB, id, len);
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    uint8_t *at = frame->body;
    for (int i = 0; i < 3; i++) {
        memcpy(at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    frame->head.number = deadline_ms;
    frame->head.a = (uint32_t)parts[0].len;
    frame->head.b = (uint32_t)parts[1].len;
    frame->head.c = (uint32_t)split;
    return send_frame(L, box, &frame);
}

static int m_cancel(lua_State *L) /* executor:cancel(id, code, urgent): to be repeated */
{
    struct box *box = check_open(L);
    gr_frame_head head = {
        .type = GR_FRAME_CANCEL,
        .id = (uint64_t)luaL_checkinteger(L, 2),
        .a = (uint32_t)-gr_err_of_code(luaL_checkstring(L, 3)),
        .flag = lua_toboolean(L, 4),
    };
    return send_head(L, box, &head);
}

static int m_credit(lua_State *L) /* executor:credit(id, items, bytes) */
{
    struct box *box = check_open(L);
    gr_frame_head head = {
        .type = GR_FRAME_CREDIT,
        .id = (uint64_t)luaL_checkinteger(L, 2),
        .a = (uint32_t)luaL_checkinteger(L, 3),
        .b = (uint32_t)luaL_checkinteger(L, 4),
    };
    return send_head(L, box, &head);
}

static int m_answer(lua_State *L) /* executor:answer(id, ...) -> true | nil, code, text */
{
    struct box *box = check_open(L);
    uint64_t id = (uint64_t)luaL_checkinteger(L, 2);
    gr_buf bytes = {0};
    gr_pack_error why;
    uint32_t split;
    gr_frame *frame;
    int rc = gr_lua_pack_args(L, 3, lua_gettop(L), &bytes, &split, &why);
    if (rc < 0)
        return gr_bind_fail(L, rc, why.text);
    rc = gr_frame_new(&frame, GR_FRAME_ANSWER, id, bytes.len);
    if (rc == 0) {
        memcpy(frame->body, bytes.data, bytes.len);
        frame->head.c = split;
    }
    gr_buf_clear(&bytes);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : send_frame(L, box, &frame);
}

static int m_quit(lua_State *L)
/* executor:quit() -> true | nil, code, text: no more jobs will come */
{
    return send_head(L, check_open(L), &(gr_frame_head){.type = GR_FRAME_QUIT});
}

static int m_kill(lua_State *L) /* executor:kill() */
{
    gr_executor_kill(check_open(L)->executor);
    return 0;
}

/* --- from the executor ------------------------------------------------------------------- */

/* [-0, +n] Values of the body. Returns n, or an error that why explains. */
static int push_values(lua_State *L, const gr_frame *frame, gr_pack_error *why)
{
    int n = gr_lua_unpack_args(L, gr_frame_body(frame), frame->head.c, why);
    if (n < 0 && why->text[0] == '\0')
        snprintf(why->text, sizeof(why->text), "they are no msgpack");
    return n;
}

/* kind, id, memory, seconds, last, code, class, message, traceback */
static int push_unreadable(lua_State *L, const gr_frame_head *head, int rc,
                           const gr_pack_error *why)
{
    lua_pushinteger(L, GR_FRAME_FAILED);
    lua_pushinteger(L, (lua_Integer)head->id);
    lua_pushinteger(L, (lua_Integer)head->memory);
    lua_pushnumber(L, (lua_Number)head->took_ns / 1e9);
    lua_pushboolean(L, head->flag);
    lua_pushstring(L, gr_err_code(rc));
    lua_pushstring(L, gr_err_code(rc));
    lua_pushfstring(L, "the results of the job cannot be unpacked: %s", why->text);
    lua_pushliteral(L, "");
    return 9;
}

/* kind, id, memory, seconds, is_stream, results; or last, code, class, message, traceback */
static int push_end(lua_State *L, const gr_frame *frame)
{
    const gr_frame_head *head = &frame->head;
    gr_pack_error why;
    int base = lua_gettop(L);
    lua_pushinteger(L, head->type);
    lua_pushinteger(L, (lua_Integer)head->id);
    lua_pushinteger(L, (lua_Integer)head->memory);
    lua_pushnumber(L, (lua_Number)head->took_ns / 1e9);
    lua_pushboolean(L, head->flag);
    int n = push_values(L, frame, &why);
    if (n >= 0)
        return 5 + n;
    lua_settop(L, base);
    return push_unreadable(L, head, n, &why);
}

/* kind, id, bytes, value; or nil, code, text in place of the value */
static int push_item(lua_State *L, const gr_frame *frame)
{
    gr_pack_error why;
    lua_pushinteger(L, GR_FRAME_ITEM);
    lua_pushinteger(L, (lua_Integer)frame->head.id);
    lua_pushinteger(L, frame->head.len);
    int rc = gr_lua_unpack(L, gr_frame_body(frame), NULL, &why);
    if (rc == 0)
        return 4;
    return 3 + gr_bind_fail(L, rc, why.text[0] != '\0' ? why.text : "it is no msgpack");
}

static int push_frame(lua_State *L, const gr_frame *frame)
{
    const gr_frame_head *head = &frame->head;
    gr_pack_error why;
    switch (head->type) {
    case GR_FRAME_READY: /* kind, 0, memory */
        lua_pushinteger(L, head->type);
        lua_pushinteger(L, 0);
        lua_pushinteger(L, (lua_Integer)head->memory);
        return 3;
    case GR_FRAME_ITEM:
        return push_item(L, frame);
    case GR_FRAME_DONE:
    case GR_FRAME_FAILED:
        return push_end(L, frame);
    case GR_FRAME_QUESTION: { /* kind, id, arguments; without them when they are damaged */
        lua_pushinteger(L, head->type);
        lua_pushinteger(L, (lua_Integer)head->id);
        int n = push_values(L, frame, &why);
        return 2 + (n > 0 ? n : 0);
    }
    }
    return 0; /* not from an executor */
}

static int m_next(lua_State *L)
/* executor:next() -> kind, ...; 0, exit_code, signal when it has ended; nothing when there is none
 */
{
    struct box *box = check_box(L);
    int pushed = 0;
    luaL_checkstack(L, 16, NULL);
    gr_bind_check_no_hook(L);
    while (pushed == 0 && box->executor != NULL) {
        gr_frame_destroy(&box->current); /* left over when an error came between */
        box->current = gr_executor_next(box->executor);
        if (box->current == NULL)
            break;
        pushed = push_frame(L, box->current);
        gr_frame_destroy(&box->current);
    }
    gr_executor_end end;
    if (pushed > 0 || box->executor == NULL || !gr_executor_has_ended(box->executor, &end))
        return pushed;
    gr_executor_destroy(&box->executor);
    lua_pushinteger(L, 0);
    lua_pushinteger(L, end.exit_code);
    lua_pushinteger(L, end.signal);
    return 3;
}

/* --- life -------------------------------------------------------------------------------- */

static int f_executor(lua_State *L)
/* core.executor("thread" | "process", owner) -> executor | nil, code, text */
{
    static const char *const kinds[] = {"thread", "process", NULL};
    int kind = luaL_checkoption(L, 1, NULL, kinds);
    gr_state *state = gr_state_of(L);
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 1);
    *box = (struct box){.state = state};
    luaL_setmetatable(L, EXECUTOR);
    gr_bind_remember(L, box, 2);
    gr_executor_options options = {
        .crew = &state->crew,
        .loop = gr_loop_uv(state->loop),
        .code = gr_inside_run,
        .ready = on_ready,
        .arg = box,
    };
    int rc = kind == 0 ? gr_executor_new_thread(&box->executor, &options)
                       : gr_executor_new_process(&box->executor, &options);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int m_pid(lua_State *L) /* executor:pid() -> integer; 0 for a thread */
{
    lua_pushinteger(L, gr_executor_pid(check_open(L)->executor));
    return 1;
}

static int m_close(lua_State *L)
/* executor:close(): it does the job that it has and ends. Closing twice is fine: also __close */
{
    gr_executor_destroy(&check_box(L)->executor);
    return 0;
}

/* Not in m_close(), which a hook may call while the frame is being read. */
static int m_gc(lua_State *L)
{
    struct box *box = check_box(L);
    gr_executor_destroy(&box->executor);
    gr_frame_destroy(&box->current);
    return 0;
}

void gr_bind_executor(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"hello", m_hello},   {"job", m_job},     {"cancel", m_cancel}, {"credit", m_credit},
        {"answer", m_answer}, {"quit", m_quit},   {"kill", m_kill},     {"next", m_next},
        {"pid", m_pid},       {"close", m_close}, {NULL, NULL},
    };
    gr_bind_class(L, EXECUTOR, methods, m_close);
    luaL_getmetatable(L, EXECUTOR);
    lua_pushcfunction(L, m_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    lua_pushcfunction(L, f_executor);
    lua_setfield(L, -2, "executor");
}
