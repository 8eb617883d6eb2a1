/* broker_gate.c - the service `Gate`, answered by the broker itself.
 *
 * get_services() lists the services, query_service(name) gives a description, client_heartbeat()
 * says that somebody is here. Handlers written in Lua register as a worker of `Gate` in this
 * process; what is not answered here goes to them. */
#include <stdlib.h>
#include <utlist.h>

#include "base/mp.h"
#include "engine/broker_priv.h"

#include <msgpack/pack.h>

enum { OK = 200, NOT_FOUND = 404 };

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
    gr_envelope reply = {.type = GR_REPLY, .id = request->id, .status = status};
    gr_buf payload = {0};
    int rc = gr_wire_put_result_begin(&payload);
    if (rc == 0)
        rc = gr_buf_append(&payload, result->data, result->len);
    if (rc == 0)
        rc = gr_wire_put_result_end(&payload);
    if (rc == 0)
        gr_broker_send_envelope(self, client, &reply, &payload, now_ms);
    else
        gr_broker_send_error(self, client, request->id, rc, gr_err_text(rc), now_ms);
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

/* Names in the order of registration, `Gate` last, as the original has it. */
static void get_services(gr_broker *self, gr_peer *client, const gr_envelope *request,
                         int64_t now_ms)
{
    gr_buf result = {0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &result, put);
    size_t count = 1;
    for (const struct service *at = self->services; at != NULL; at = at->hh.next)
        count += !is_gate(at);
    HASH_SORT(self->services, by_serial);
    msgpack_pack_array(&packer, count);
    for (const struct service *at = self->services; at != NULL; at = at->hh.next)
        if (!is_gate(at))
            put_str(&packer, gr_buf_slice(&at->name));
    put_str(&packer, gr_slice_str(GATE));
    answer(self, client, request, OK, &result, now_ms);
}

/* The one argument, when it is a string. */
static bool get_name(const gr_envelope *request, gr_slice *out)
{
    gr_mp_reader reader = gr_mp_read(gr_slice_of(request->payload.data, request->split));
    gr_mp_token array, name;
    if (gr_mp_next(&reader, &array) < 0 || array.type != GR_MP_ARRAY || array.as.count != 1)
        return false;
    if (gr_mp_next(&reader, &name) < 0 || (name.type != GR_MP_STR && name.type != GR_MP_BIN))
        return false;
    *out = name.as.bytes;
    return true;
}

static void query_service(gr_broker *self, gr_peer *client, const gr_envelope *request,
                          int64_t now_ms)
{
    gr_slice name;
    if (!get_name(request, &name)) {
        gr_broker_send_error(self, client, request->id, GR_EINVAL,
                             "query_service takes the name of a service", now_ms);
        return;
    }
    gr_buf result = {0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &result, put);
    const struct service *found = gr_broker_find_service(self, name);
    if (found != NULL)
        put_str(&packer, gr_buf_slice(&found->description));
    else if (gr_slice_equal(name, gr_slice_str(GATE)))
        put_str(&packer, gr_slice_str("the broker itself"));
    else
        msgpack_pack_nil(&packer);
    answer(self, client, request, found != NULL ? OK : NOT_FOUND, &result, now_ms);
}

static void client_heartbeat(gr_broker *self, gr_peer *client, const gr_envelope *request,
                             int64_t now_ms)
{
    gr_buf result = {0};
    msgpack_packer packer;
    msgpack_packer_init(&packer, &result, put);
    msgpack_pack_true(&packer);
    answer(self, client, request, OK, &result, now_ms);
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
    };
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (gr_slice_equal(request->method, gr_slice_str(functions[i].name))) {
            functions[i].run(self, client, request, now_ms);
            return true;
        }
    }
    const struct service *handlers = gr_broker_find_service(self, gr_slice_str(GATE));
    if (handlers != NULL && gr_broker_is_served(handlers))
        return false;
    char text[400];
    snprintf(text, sizeof(text), "Gate has no function %.*s", (int)request->method.len,
             (const char *)request->method.data);
    gr_broker_send_error(self, client, request->id, GR_ENOTFOUND, text, now_ms);
    return true;
}
