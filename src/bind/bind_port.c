/* bind_port.c - the module gaterpc.port of executor states: jobs in, answers out. Its types are in
 * lua/gaterpc/meta/port.lua. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "bind/bind.h"
#include "bind/bind_endpoint.h"
#include "bind/bind_msgpack.h"
#include "host/inside.h"

static char stopped_key; /* its address names the error in the registry */

void gr_bind_push_stopped(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &stopped_key);
}

/* Moves what was packed into a frame. Returns 0, GR_ENOMEM or GR_EEXHAUSTED. */
static int make_frame(gr_inside *self, gr_frame **out, enum gr_frame_type type, uint64_t id,
                      gr_slice bytes)
{
    int rc =
        bytes.len <= GR_BIND_MAX_PAYLOAD ? gr_frame_new(out, type, id, bytes.len) : GR_EEXHAUSTED;
    if (rc < 0)
        return rc;
    if (bytes.len > 0)
        memcpy((*out)->body, bytes.data, bytes.len);
    (*out)->head.memory = self->used;
    (*out)->head.took_ns = (uint64_t)(gr_clock_ns() - self->began_ns);
    return 0;
}

/* Packs the values at first..top. */
static int make_frame_of_values(lua_State *L, gr_frame **out, enum gr_frame_type type, uint64_t id,
                                int first, gr_pack_error *why)
{
    gr_inside *self = gr_inside_of(L);
    gr_buf packed = gr_bind_take_buf(&self->scratch);
    uint32_t split = 0;
    why->text[0] = '\0';
    int rc = gr_lua_pack_args(L, first, lua_gettop(L), &packed, &split, why);
    if (rc == 0) {
        rc = make_frame(self, out, type, id, gr_buf_slice(&packed));
        if (rc == GR_EEXHAUSTED)
            snprintf(why->text, sizeof(why->text), "it is larger than 64 MiB when packed");
    }
    gr_bind_keep_buf(&self->scratch, &packed);
    if (rc == 0)
        (*out)->head.c = split;
    return rc;
}

/* What push_values() is to unpack, and what came of it: a number of values or an error. */
struct unpacking {
    gr_slice bytes;
    uint32_t split;
    gr_pack_error *why;
    int n;
};

static int unpack(lua_State *L) /* [protected] */
{
    struct unpacking *self = lua_touserdata(L, 1);
    lua_settop(L, 0);
    self->n = gr_lua_unpack_args(L, self->bytes, self->split, self->why);
    return self->n > 0 ? self->n : 0;
}

/* [-0, +n] Values of the frame's body from `from` on. Takes the frame, also when it raises: nobody
 * else may have it, because a finalizer that runs meanwhile may ask something, too. Returns n, or
 * an error that why explains. */
static int push_values(lua_State *L, gr_frame **frame, size_t from, gr_pack_error *why)
{
    struct unpacking values = {
        .bytes = gr_slice_skip(gr_frame_body(*frame), from),
        .split = (*frame)->head.c,
        .why = why,
    };
    lua_pushcfunction(L, unpack);
    lua_pushlightuserdata(L, &values);
    int status = lua_pcall(L, 1, LUA_MULTRET, 0);
    gr_frame_destroy(frame);
    return status == LUA_OK ? values.n : lua_error(L);
}

static void check_may_wait(lua_State *L)
{
    if (gr_lua_in_hook(L))
        luaL_error(L, "a hook cannot wait");
}

static int fail(lua_State *L, int rc, const gr_pack_error *why)
{
    return gr_bind_fail(L, rc, why->text[0] != '\0' ? why->text : NULL);
}

static int f_ready(lua_State *L) /* port.ready(): jobs are welcome */
{
    gr_inside *self = gr_inside_of(L);
    gr_frame *frame;
    int rc = make_frame(self, &frame, GR_FRAME_READY, 0, gr_slice_of(NULL, 0));
    if (rc == 0 && (rc = gr_port_put(self->port, &frame)) < 0)
        gr_frame_destroy(&frame);
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 0;
}

static void push_part(lua_State *L, const gr_frame *job, size_t from, size_t len)
{
    lua_pushlstring(L, (const char *)job->body + from, len);
}

static int f_next(lua_State *L)
/* port.next() -> id, deadline_ms, description, code (packed, for portable.lua) | nothing at the end
 */
{
    gr_inside *self = gr_inside_of(L);
    gr_frame_destroy(&self->job);
    if (gr_port_next(self->port, &self->job) < 0)
        return 0;
    const gr_frame_head *head = &self->job->head;
    self->began_ns = gr_clock_ns();
    self->job_id = head->id;
    self->refused = false;
    lua_pushinteger(L, (lua_Integer)head->id);
    lua_pushinteger(L, (lua_Integer)head->number);
    push_part(L, self->job, 0, head->a);
    push_part(L, self->job, head->a, head->b);
    return 4;
}

/* An error object, as lua/gaterpc/error.lua reads them. */
static int raise_unreadable(lua_State *L, int rc, const gr_pack_error *why)
{
    lua_createtable(L, 0, 2);
    lua_pushstring(L, gr_err_code(rc));
    lua_setfield(L, -2, "code");
    lua_pushfstring(L, "the arguments of the job cannot be unpacked: %s",
                    why->text[0] != '\0' ? why->text : "they are no msgpack");
    lua_setfield(L, -2, "message");
    return lua_error(L);
}

static int f_arguments(lua_State *L) /* port.arguments() -> those of the job, once */
{
    gr_inside *self = gr_inside_of(L);
    gr_frame *job = self->job;
    gr_pack_error why;
    if (job == NULL)
        return 0;
    self->job = NULL;
    int n = push_values(L, &job, (size_t)job->head.a + job->head.b, &why);
    return n < 0 ? raise_unreadable(L, n, &why) : n;
}

static int f_refused(lua_State *L) /* port.refused() -> boolean, limit: the job has reached it */
{
    gr_inside *self = gr_inside_of(L);
    lua_pushboolean(L, self->refused);
    lua_pushinteger(L, (lua_Integer)self->limit);
    return 2;
}

static int f_item(lua_State *L) /* port.item(value) -> true | nil, code, text; waits for credit */
{
    check_may_wait(L);
    gr_inside *self = gr_inside_of(L);
    gr_pack_error why;
    gr_frame *frame = NULL;
    luaL_checkany(L, 1);
    gr_buf packed = gr_bind_take_buf(&self->scratch);
    why.text[0] = '\0';
    int rc = gr_lua_pack(L, 1, &packed, &why);
    if (rc == 0)
        rc = make_frame(self, &frame, GR_FRAME_ITEM, self->job_id, gr_buf_slice(&packed));
    gr_bind_keep_buf(&self->scratch, &packed);
    if (rc == 0)
        rc = gr_port_put_item(self->port, &frame);
    gr_frame_destroy(&frame);
    if (rc < 0)
        return fail(L, rc, &why);
    lua_pushboolean(L, 1);
    return 1;
}

/* Sends the job's last word: the frame's flag, and behind it the values. */
static int end_job(lua_State *L, enum gr_frame_type type)
{
    gr_inside *self = gr_inside_of(L);
    bool flag = lua_toboolean(L, 1);
    gr_frame *frame;
    gr_pack_error why;
    int rc = make_frame_of_values(L, &frame, type, self->job_id, 2, &why);
    if (rc < 0)
        return fail(L, rc, &why);
    frame->head.flag = flag;
    gr_port_end_job(self->port);
    rc = gr_port_put(self->port, &frame);
    gr_frame_destroy(&frame);
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushboolean(L, 1);
    return 1;
}

static int f_done(lua_State *L) /* port.done(is_stream, ...) -> true | nil, code, text */
{
    return end_job(L, GR_FRAME_DONE);
}

static int f_fail(lua_State *L)
/* port.fail(last, code, class, message, traceback) -> true | nil, code, text; last: takes no more
 * jobs */
{
    return end_job(L, GR_FRAME_FAILED);
}

static int f_ask(lua_State *L)
/* port.ask(...) -> true, ... | nil, code, text; waits for the host */
{
    check_may_wait(L);
    gr_inside *self = gr_inside_of(L);
    gr_frame *question = NULL, *answer;
    gr_pack_error why;
    int rc = make_frame_of_values(L, &question, GR_FRAME_QUESTION, ++self->questions, 1, &why);
    if (rc == 0)
        rc = gr_port_ask(self->port, &question, &answer);
    gr_frame_destroy(&question);
    if (rc < 0)
        return fail(L, rc, &why);
    lua_settop(L, 0);
    int n = push_values(L, &answer, 0, &why);
    return n < 0 ? fail(L, n, &why) : n;
}

static int f_sleep(lua_State *L) /* port.sleep(milliseconds) -> true | nil, code, text */
{
    check_may_wait(L);
    gr_inside *self = gr_inside_of(L);
    int rc = gr_port_sleep(self->port, luaL_checkinteger(L, 1));
    if (rc < 0)
        return gr_bind_fail(L, rc, NULL);
    lua_pushboolean(L, 1);
    return 1;
}

static int f_stopped(lua_State *L) /* port.stopped() -> code that the job is to end with, or nil */
{
    int stop = gr_port_stop(gr_inside_of(L)->port);
    lua_pushstring(L, stop != 0 ? gr_err_code(stop) : NULL);
    return 1;
}

static int f_stop_with(lua_State *L) /* port.stop_with(error): what interrupted code gets */
{
    luaL_checkany(L, 1);
    lua_settop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &stopped_key);
    return 0;
}

int gr_bind_open_port(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"ready", f_ready},         {"next", f_next},
        {"arguments", f_arguments}, {"refused", f_refused},
        {"item", f_item},           {"done", f_done},
        {"fail", f_fail},           {"ask", f_ask},
        {"sleep", f_sleep},         {"stopped", f_stopped},
        {"stop_with", f_stop_with}, {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
