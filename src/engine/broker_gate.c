/* broker_gate.c - the service `Gate`, answered by the broker itself.
 *
 * get_services() lists the services, query_service(name) gives a description, client_heartbeat()
 * and keepalive() say that somebody is here, info() names the broker. Handlers written in Lua
 * register as a worker of `Gate` in this process; what is not answered here goes to them. */
#include <stdlib.h>
#include <utlist.h>

#include "base/mp.h"
#include "engine/broker_priv.h"

#include <msgpack/pack.h>

enum { OK = 200, BAD_REQUEST = 400, NOT_FOUND = 404, NOT_IMPLEMENTED = 501 };

static int put(void *data, const char *bytes, size_t len)
{
    return gr_buf_append(data, bytes, len);
}

static int put_str(msgpack_packer *packer, gr_slice text)
{
    int rc = msgpack_pack_str(packer, text.len);
    return rc < 0 || text.len == 0 ? rc : msgpack_pack_str_body(packer, text.data, text.len);
}

static void answer(gr_broker *self, gr_peer *client, const gr_envelope *request, uint16_t status,
                   gr_buf *result, int64_t now_ms)
{
    gr_envelope reply = *request;
    gr_buf payload = {0};
    reply.type = GR_REPLY;
    reply.status = status;
    reply.split = 0;
    if (client->dialect->is_ours) /* an id is all it needs */
        reply = (gr_envelope){.type = GR_REPLY, .id = request->id, .status = status};
    int rc = gr_wire_put_result_begin(&payload);
    if (rc == 0)
        rc = gr_buf_append(&payload, result->data, result->len);
    if (rc == 0)
        rc = gr_wire_put_result_end(&payload);
    if (rc == 0)
        gr_broker_send_envelope(self, client, &reply, &payload, now_ms);
    else
        gr_broker_send_error(self, client, request, rc, gr_slice_str(gr_err_text(rc)), now_ms);
    self->stats.answers++;
    gr_buf_clear(&payload);
    gr_buf_clear(result);
}

static int by_serial(const struct service *a, const struct service *b)
{
    return a->serial < b->serial ? -1 : a->serial > b->serial;
}

static bool is_gate(const struct service *at)
{
    return gr_slice_equal(gr_buf_slice(&at->name), gr_slice_str(GATE));
}

static bool is_listed(const struct service *at)
{
    return !is_gate(at) && !at->member;
}

/* Names in the order of registration. */
static void put_services(gr_broker *self, msgpack_packer *packer, bool with_gate)
{
    size_t count = with_gate;
    for (const struct service *at = self->services; at != NULL; at = at->hh.next)
        count += is_listed(at);
    HASH_SORT(self->services, by_serial);
    msgpack_pack_array(packer, count);
    for (const struct service *at = self->services; at != NULL; at = at->hh.next)
        if (is_listed(at))
            put_str(packer, gr_buf_slice(&at->name));
    if (with_gate)
        put_str(packer, gr_slice_str(GATE));
}

/* `Gate` comes last, as the original has it. */
static void get_services(gr_broker *self, gr_peer *client, const gr_envelope *request,
                         int64_t now_ms)
{
    gr_buf result = {0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &result, put);
    put_services(self, &packer, true);
    answer(self, client, request, OK, &result, now_ms);
}

/* The one argument, when it is a string; or the keyword that the original calls it by. */
static bool get_name(const gr_envelope *request, gr_slice *out)
{
    gr_slice payload = request->payload;
    gr_mp_reader reader = gr_mp_read(gr_slice_of(payload.data, request->split));
    gr_mp_token array, map, key, name;
    if (gr_mp_next(&reader, &array) < 0 || array.type != GR_MP_ARRAY || array.as.count > 1)
        return false;
    if (array.as.count == 0) {
        if (payload.len <= request->split)
            return false;
        reader =
            gr_mp_read(gr_slice_of(payload.data + request->split, payload.len - request->split));
        if (gr_mp_next(&reader, &map) < 0 || map.type != GR_MP_MAP || map.as.count != 1 ||
            gr_mp_next(&reader, &key) < 0 || key.type != GR_MP_STR ||
            !gr_slice_equal(key.as.bytes, gr_slice_str("service_name")))
            return false;
    }
    if (gr_mp_next(&reader, &name) < 0 || (name.type != GR_MP_STR && name.type != GR_MP_BIN))
        return false;
    *out = name.as.bytes;
    return true;
}

static void put_bin(msgpack_packer *packer, const char *text)
{
    msgpack_pack_bin(packer, strlen(text));
    msgpack_pack_bin_body(packer, text, strlen(text));
}

/* gate01 gives the status only, the value is empty. */
static void put_description(const gr_peer *client, msgpack_packer *packer,
                            const struct service *found, gr_slice name)
{
    if (client->dialect == &gr_dialect_gate01)
        put_bin(packer, "");
    else if (found != NULL)
        put_str(packer, gr_buf_slice(&found->description));
    else if (gr_slice_equal(name, gr_slice_str(GATE)))
        put_str(packer, gr_slice_str("the broker itself"));
    else
        msgpack_pack_nil(packer);
}

static void query_service(gr_broker *self, gr_peer *client, const gr_envelope *request,
                          int64_t now_ms)
{
    gr_slice name;
    if (!get_name(request, &name)) {
        gr_broker_send_error(self, client, request, GR_EINVAL,
                             gr_slice_str("query_service takes the name of a service"), now_ms);
        return;
    }
    gr_buf result = {0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &result, put);
    const struct service *found = gr_broker_find_service(self, name);
    put_description(client, &packer, found, name);
    answer(self, client, request, found != NULL ? OK : NOT_FOUND, &result, now_ms);
}

/* gate01 and gate02 want to hear the bytes `heartbeat`, and say whether they did: in the status, or
 * in the result. */
static void client_heartbeat(gr_broker *self, gr_peer *client, const gr_envelope *request,
                             int64_t now_ms)
{
    gr_buf result = {0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &result, put);
    bool is_right = gr_slice_equal(request->payload, gr_slice_str("\x91\xc4\x09heartbeat"));
    bool judged = client->dialect == &gr_dialect_gate01;
    if (client->dialect == &gr_dialect_gate02)
        put_bin(&packer, is_right ? "200" : "400");
    else if (judged)
        put_bin(&packer, "");
    else
        msgpack_pack_true(&packer);
    answer(self, client, request, judged && !is_right ? BAD_REQUEST : OK, &result, now_ms);
}

static void info(gr_broker *self, gr_peer *client, const gr_envelope *request, int64_t now_ms)
{
    gr_buf result = {0};
    msgpack_packer packer;
    uint8_t id[GR_TAG_LEN];
    msgpack_packer_init(&packer, &result, put);
    gr_tag_put(id, self->options.instance, self->options.instance);
    msgpack_pack_map(&packer, 2);
    put_str(&packer, gr_slice_str("my_id"));
    msgpack_pack_bin(&packer, sizeof(id));
    msgpack_pack_bin_body(&packer, id, sizeof(id));
    put_str(&packer, gr_slice_str("services"));
    put_services(self, &packer, false);
    answer(self, client, request, OK, &result, now_ms);
}

/* The Majordomo management interface, https://rfc.zeromq.org/spec/8/, for RFC 7 clients. */
static bool manage(gr_broker *self, gr_peer *client, const gr_envelope *request, int64_t now_ms)
{
    if (!client->dialect->one_by_one || !gr_slice_equal(request->service, gr_slice_str("mmi")))
        return false;
    gr_slice name;
    uint16_t status = NOT_IMPLEMENTED;
    if (gr_slice_equal(request->method, gr_slice_str("service")) && get_name(request, &name)) {
        const struct service *found = gr_broker_find_service(self, name);
        status = found != NULL && gr_broker_is_served(found) ? OK : NOT_FOUND;
    }
    gr_buf result = {0};
    msgpack_packer packer;
    char digits[8];
    msgpack_packer_init(&packer, &result, put);
    snprintf(digits, sizeof(digits), "%u", status);
    put_str(&packer, gr_slice_str(digits));
    answer(self, client, request, OK, &result, now_ms);
    return true;
}

static void refuse_function(gr_broker *self, gr_peer *client, const gr_envelope *request,
                            int64_t now_ms)
{
    if (client->dialect == &gr_dialect_gate01) { /* 501 and nothing, as its own broker does */
        gr_buf result = {0};
        msgpack_packer packer;
        msgpack_packer_init(&packer, &result, put);
        put_bin(&packer, "");
        answer(self, client, request, NOT_IMPLEMENTED, &result, now_ms);
        return;
    }
    char text[400];
    gr_envelope about = *request;
    snprintf(text, sizeof(text), "Gate has no function %.*s", (int)request->method.len,
             (const char *)request->method.data);
    gr_buf payload = {0};
    about.type = GR_ERROR;
    about.status = (uint16_t)-GR_ENOTFOUND;
    if (gr_wire_put_exception(&payload, gr_slice_str(gr_err_code(GR_ENOTFOUND)), gr_slice_str(text),
                              gr_slice_str("")) == 0)
        gr_broker_send_envelope(self, client, &about, &payload, now_ms);
    gr_buf_clear(&payload);
    self->stats.answers++;
}

bool gr_broker_gate(gr_broker *self, gr_peer *client, const gr_envelope *request, int64_t now_ms)
{
    static const struct {
        const char *name;
        void (*run)(gr_broker *, gr_peer *, const gr_envelope *, int64_t);
    } functions[] = {
        {"get_services", get_services},
        {"query_service", query_service},
        {"client_heartbeat", client_heartbeat},
        {"keepalive", client_heartbeat},
        {"info", info},
    };
    if (!gr_slice_equal(request->service, gr_slice_str(GATE)))
        return manage(self, client, request, now_ms);
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (gr_slice_equal(request->method, gr_slice_str(functions[i].name))) {
            functions[i].run(self, client, request, now_ms);
            return true;
        }
    }
    const struct service *handlers = gr_broker_find_service(self, gr_slice_str(GATE));
    if (handlers != NULL && gr_broker_is_served(handlers))
        return false;
    refuse_function(self, client, request, now_ms);
    return true;
}
