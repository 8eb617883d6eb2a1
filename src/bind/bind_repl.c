/* bind_repl.c - the terminal for Lua: core.terminal(history) -> terminal. */
#include "base/err.h"
#include "bind/bind.h"
#include "host/state.h"
#include "host/terminal.h"

#define TERMINAL "gaterpc.core.terminal"

struct box {
    gr_terminal *terminal;
};

static struct box *check_box(lua_State *L)
{
    return luaL_checkudata(L, 1, TERMINAL);
}

static gr_terminal *check_open(lua_State *L)
{
    struct box *box = check_box(L);
    if (box->terminal == NULL)
        luaL_error(L, "the terminal is closed");
    return box->terminal;
}

/* To Lua as "line", text; without text at the end of input. */
static void on_line(void *arg, const char *text, size_t len)
{
    gr_state *state = arg;
    gr_loop_enter(state->loop);
    if (!gr_state_push_dispatcher(state))
        return;
    lua_pushliteral(state->L, "line");
    if (text != NULL)
        lua_pushlstring(state->L, text, len);
    else
        lua_pushnil(state->L);
    gr_state_call(state->L, 2, 0);
}

static int f_terminal(lua_State *L)
/* core.terminal([history]) -> terminal | nil, code, text: history is the path of its file */
{
    const char *history = luaL_optstring(L, 1, NULL);
    gr_state *state = gr_state_of(L);
    struct box *box = lua_newuserdatauv(L, sizeof(*box), 0);
    box->terminal = NULL; /* a valid closed box before anything can fail */
    luaL_setmetatable(L, TERMINAL);
    int rc = gr_terminal_new(&box->terminal, gr_loop_uv(state->loop), history, on_line, state);
    if (rc == GR_EINVAL)
        return gr_bind_fail(L, rc, "standard input and output are not a terminal that is free");
    return rc < 0 ? gr_bind_fail(L, rc, NULL) : 1;
}

static int m_read(lua_State *L) /* terminal:read(prompt): "line" comes later */
{
    gr_terminal *terminal = check_open(L);
    if (gr_terminal_read(terminal, luaL_checkstring(L, 2)) < 0)
        return luaL_error(L, "not enough memory");
    return 0;
}

static int m_drop(lua_State *L) /* terminal:drop(prompt): forgets what was typed */
{
    gr_terminal *terminal = check_open(L);
    if (gr_terminal_drop(terminal, luaL_checkstring(L, 2)) < 0)
        return luaL_error(L, "not enough memory");
    return 0;
}

static int m_hide(lua_State *L) /* terminal:hide(partial): something will be written; also closed */
{
    struct box *box = check_box(L);
    if (box->terminal != NULL)
        gr_terminal_hide(box->terminal, lua_toboolean(L, 2));
    return 0;
}

static int m_remember(lua_State *L) /* terminal:remember(line): into the history */
{
    gr_terminal *terminal = check_open(L);
    gr_terminal_remember(terminal, luaL_checkstring(L, 2));
    return 0;
}

static int m_close(lua_State *L) /* closing twice is fine: also __gc and __close */
{
    gr_terminal_destroy(&check_box(L)->terminal);
    return 0;
}

void gr_bind_repl(lua_State *L)
{
    static const luaL_Reg methods[] = {
        {"read", m_read},         {"drop", m_drop},   {"hide", m_hide},
        {"remember", m_remember}, {"close", m_close}, {NULL, NULL},
    };
    gr_bind_class(L, TERMINAL, methods, m_close);
    lua_pushcfunction(L, f_terminal);
    lua_setfield(L, -2, "terminal");
}
