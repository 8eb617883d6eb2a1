/* sock.c - the module `socks` for specs: sockets of src/net/sock.h in a ZeroMQ context of their
 * own, and who decides about their peers: socks.zap() is asked at inproc://zeromq.zap.01, and the
 * spec answers.
 *
 * Nothing waits: what is not there yet is nil. What fails gives nil and the code for users. */
#include <lauxlib.h>
#include <lua.h>
#include <string.h>

#include "base/err.h"
#include "net/sock.h"
#include "spec.h"

#define SOCK "socks.sock"
#define ZAP  "socks.zap"

int luaopen_socks(lua_State *L);

static void *context;

/* --- sockets ----------------------------------------------------------------------------- */

static gr_sock *check_sock(lua_State *L)
{
    gr_sock **box = luaL_checkudata(L, 1, SOCK);
    luaL_argcheck(L, *box != NULL, 1, "it is closed");
    return *box;
}

static int f_sock(lua_State *L) /* socks.dealer([handshake_ms]), socks.router() -> sock */
{
    enum gr_sock_type type = (enum gr_sock_type)lua_tointeger(L, lua_upvalueindex(1));
    gr_sock_options options = {.reconnect_ms = 20, .handshake_ms = (int)luaL_optinteger(L, 1, 0)};
    gr_sock **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    luaL_setmetatable(L, SOCK);
    int rc = gr_sock_new(box, context, type, &options);
    return rc < 0 ? done(L, rc) : 1;
}

/* [-0, +1] The string stays on the stack. */
static const char *opt_field(lua_State *L, const char *name)
{
    lua_getfield(L, 2, name);
    return lua_tostring(L, -1);
}

static void read_key(lua_State *L, const char *name, uint8_t *key)
{
    const char *text = opt_field(L, name);
    if (text != NULL && zmq_z85_decode(key, text) == NULL)
        luaL_error(L, "%s is no key", name);
}

static int m_secure(lua_State *L) /* sock:secure{fields of gr_sock_security, keys in Z85} */
{
    static const char *const mechanisms[] = {"NULL", "PLAIN", "CURVE", NULL};
    gr_sock *sock = check_sock(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    gr_sock_security security = {0};
    opt_field(L, "mechanism");
    security.mechanism = (enum gr_mechanism)luaL_checkoption(L, -1, "NULL", mechanisms);
    lua_getfield(L, 2, "server");
    security.server = lua_toboolean(L, -1);
    security.domain = opt_field(L, "domain");
    security.user = opt_field(L, "user");
    security.password = opt_field(L, "password");
    read_key(L, "public_key", security.public_key);
    read_key(L, "secret_key", security.secret_key);
    read_key(L, "server_key", security.server_key);
    return done(L, gr_sock_secure(sock, &security));
}

/* sock:holds() -> mechanism, password, secret key in Z85, whether it is a server: what libzmq has
 */
static int m_holds(lua_State *L)
{
    void *zmq = gr_sock_zmq(check_sock(L));
    int mechanism = -1, plain = 0, curve = 0;
    char password[256] = {0}, secret[41] = {0};
    size_t len = sizeof(mechanism);
    zmq_getsockopt(zmq, ZMQ_MECHANISM, &mechanism, &len);
    len = sizeof(password);
    zmq_getsockopt(zmq, ZMQ_PLAIN_PASSWORD, password, &len);
    lua_pushinteger(L, mechanism);
    lua_pushlstring(L, password, len > 0 ? len - 1 : 0);
    len = sizeof(secret);
    zmq_getsockopt(zmq, ZMQ_CURVE_SECRETKEY, secret, &len);
    lua_pushstring(L, secret);
    len = sizeof(plain);
    zmq_getsockopt(zmq, ZMQ_PLAIN_SERVER, &plain, &len);
    len = sizeof(curve);
    zmq_getsockopt(zmq, ZMQ_CURVE_SERVER, &curve, &len);
    lua_pushboolean(L, plain || curve);
    return 4;
}

static int m_bind(lua_State *L) /* sock:bind(address) -> address */
{
    char bound[256];
    int rc = gr_sock_bind(check_sock(L), luaL_checkstring(L, 2), bound, sizeof(bound));
    if (rc < 0)
        return done(L, rc);
    lua_pushstring(L, bound);
    return 1;
}

static int m_connect(lua_State *L)
{
    return done(L, gr_sock_connect(check_sock(L), luaL_checkstring(L, 2)));
}

static int m_disconnect(lua_State *L)
{
    gr_sock_disconnect(check_sock(L), luaL_checkstring(L, 2));
    return 0;
}

static int m_next_event(lua_State *L) /* sock:next_event() -> type, code, text | nil */
{
    static const char *const types[] = {"CONNECTED", "DISCONNECTED", "REFUSED"};
    gr_sock_event event;
    if (!gr_sock_next_event(check_sock(L), &event)) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushstring(L, types[event.type]);
    if (event.type != GR_SOCK_REFUSED)
        return 1;
    lua_pushstring(L, gr_err_code(event.error));
    lua_pushstring(L, event.text);
    return 3;
}

static int m_send(lua_State *L) /* sock:send(frames...) -> true | nil, code */
{
    gr_sock *sock = check_sock(L);
    gr_msg *msg;
    int rc = gr_msg_new(&msg);
    if (rc < 0)
        return done(L, rc);
    for (int i = 2; i <= lua_gettop(L); i++) {
        size_t len;
        const char *data = luaL_checklstring(L, i, &len);
        gr_msg_add(msg, data, len);
    }
    rc = gr_sock_send(sock, &msg);
    gr_msg_destroy(&msg);
    return done(L, rc);
}

static int m_recv(lua_State *L) /* sock:recv() -> frames... | nil */
{
    gr_msg *msg;
    if (gr_sock_recv(check_sock(L), &msg) < 0) {
        lua_pushnil(L);
        return 1;
    }
    int len = (int)gr_msg_len(msg);
    for (int i = 0; i < len; i++) {
        gr_slice frame = gr_msg_frame(msg, (size_t)i);
        lua_pushlstring(L, (const char *)frame.data, frame.len);
    }
    gr_msg_destroy(&msg);
    return len;
}

static int m_close(lua_State *L)
{
    gr_sock_destroy(luaL_checkudata(L, 1, SOCK));
    return 0;
}

/* --- who decides ------------------------------------------------------------------------- */

static void *check_zap(lua_State *L)
{
    void **box = luaL_checkudata(L, 1, ZAP);
    luaL_argcheck(L, *box != NULL, 1, "it is closed");
    return *box;
}

static int f_zap(lua_State *L) /* socks.zap() -> zap | nil: there is one already */
{
    void **box = lua_newuserdatauv(L, sizeof(*box), 0);
    *box = NULL;
    luaL_setmetatable(L, ZAP);
    *box = zmq_socket(context, ZMQ_REP);
    int none = 0;
    zmq_setsockopt(*box, ZMQ_LINGER, &none, sizeof(none));
    return zmq_bind(*box, "inproc://zeromq.zap.01") == 0 ? 1
                                                         : done(L, gr_err_of_errno(zmq_errno()));
}

static int zap_recv(lua_State *L) /* zap:recv() -> frames... | nil */
{
    void *zap = check_zap(L);
    int count = 0, more = 1;
    while (more) {
        zmq_msg_t frame;
        zmq_msg_init(&frame);
        if (zmq_msg_recv(&frame, zap, ZMQ_DONTWAIT) < 0) {
            lua_pushnil(L);
            return 1;
        }
        more = zmq_msg_more(&frame);
        lua_pushlstring(L, zmq_msg_data(&frame), zmq_msg_size(&frame));
        zmq_msg_close(&frame);
        luaL_checkstack(L, 4, NULL);
        count++;
    }
    return count;
}

static int zap_send(lua_State *L) /* zap:send(frames...) */
{
    void *zap = check_zap(L);
    int last = lua_gettop(L);
    for (int i = 2; i <= last; i++) {
        size_t len;
        const char *data = luaL_checklstring(L, i, &len);
        zmq_send(zap, data, len, ZMQ_DONTWAIT | (i < last ? ZMQ_SNDMORE : 0));
    }
    return 0;
}

static int zap_close(lua_State *L)
{
    void **box = luaL_checkudata(L, 1, ZAP);
    if (*box != NULL)
        zmq_close(*box);
    *box = NULL;
    return 0;
}

/* --- the module -------------------------------------------------------------------------- */

static void make_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close)
{
    luaL_newmetatable(L, name);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
}

static void add_maker(lua_State *L, const char *name, enum gr_sock_type type)
{
    lua_pushinteger(L, type);
    lua_pushcclosure(L, f_sock, 1);
    lua_setfield(L, -2, name);
}

int luaopen_socks(lua_State *L)
{
    static const luaL_Reg sock[] = {
        {"secure", m_secure},
        {"holds", m_holds},
        {"bind", m_bind},
        {"connect", m_connect},
        {"disconnect", m_disconnect},
        {"send", m_send},
        {"next_event", m_next_event},
        {"recv", m_recv},
        {"close", m_close},
        {NULL, NULL},
    };
    static const luaL_Reg zap[] = {
        {"recv", zap_recv}, {"send", zap_send}, {"close", zap_close}, {NULL, NULL}};
    if (context == NULL)
        context = zmq_ctx_new(); /* as long as the process; sockets of specs are closed by them */
    make_class(L, SOCK, sock, m_close);
    make_class(L, ZAP, zap, zap_close);
    lua_newtable(L);
    add_maker(L, "dealer", GR_SOCK_DEALER);
    add_maker(L, "router", GR_SOCK_ROUTER);
    lua_pushcfunction(L, f_zap);
    lua_setfield(L, -2, "zap");
    return 1;
}
