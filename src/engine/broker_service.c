/* broker_service.c - services, their workers, who is next.
 *
 * A service keeps its workers in buckets by the number of calls they run, least recently used
 * first, so the next one is found in constant time: least outstanding, then least recently used. */
#include <stdlib.h>
#include <utlist.h>

#include "base/mp.h"
#include "engine/broker_priv.h"

enum { MAX_METHODS = 4096, MAX_CREDIT = 65536, MAX_DESCRIPTION = 4096 };

struct service *gr_broker_find_service(const gr_broker *self, gr_slice name)
{
    struct service *found;
    HASH_FIND(hh, self->services, name.data, name.len, found);
    return found;
}

static bool is_served_alone(const struct service *service)
{
    return service != NULL && service->single && gr_broker_is_served(service);
}

/* `Name.method`, as services of RFC 7 are kept; empty when that is too long. */
static gr_slice join(gr_slice name, gr_slice method, uint8_t key[255])
{
    size_t len = name.len + 1 + method.len;
    if (len > 255 || name.len == 0)
        return gr_slice_of(NULL, 0);
    memcpy(key, name.data, name.len);
    key[name.len] = '.';
    if (method.len > 0)
        memcpy(key + name.len + 1, method.data, method.len);
    return gr_slice_of(key, len);
}

/* The RFC 7 service `Name.method`, or NULL. */
static struct service *find_single(const gr_broker *self, gr_slice name, gr_slice method)
{
    uint8_t key[255];
    struct service *found = gr_broker_find_service(self, join(name, method, key));
    return is_served_alone(found) ? found : NULL;
}

int gr_broker_look_up(const gr_broker *self, const gr_envelope *request, struct service **out,
                      const char **why)
{
    struct service *found = gr_broker_find_service(self, request->service);
    bool is_call = gr_slice_equal(request->method, gr_slice_str("call"));
    if (found == NULL || !gr_broker_is_served(found) || (found->single && !is_call)) {
        struct service *single = find_single(self, request->service, request->method);
        if (single != NULL)
            found = single;
    }
    *out = found;
    if (found == NULL) {
        *why = "is not registered";
        return GR_ENOTFOUND;
    }
    bool knows = !found->single || is_call || found->name.len > request->service.len;
    if (gr_broker_is_served(found) && knows)
        return 0;
    bool other = found->group || !knows; /* somebody may serve other methods of it */
    *why = other ? "has no such method now" : "has no worker now";
    return other ? GR_ENOTFOUND : GR_EUNAVAILABLE;
}

static void forget_methods(struct service *service)
{
    struct method *method, *next;
    HASH_ITER (hh, service->idempotent, method, next) {
        HASH_DEL(service->idempotent, method);
        free(method);
    }
}

static void free_service(struct service *service)
{
    forget_methods(service);
    gr_buf_clear(&service->name);
    gr_buf_clear(&service->description);
    free(service->buckets);
    free(service);
}

static struct service *add_service(gr_broker *self, gr_slice name)
{
    struct service *added = calloc(1, sizeof(*added));
    if (added == NULL)
        return NULL;
    if (gr_buf_append(&added->name, name.data, name.len) < 0) {
        free_service(added);
        return NULL;
    }
    added->serial = ++self->service_serial;
    added->internal = gr_slice_equal(name, gr_slice_str(GATE));
    HASH_ADD_KEYPTR(hh, self->services, added->name.data, added->name.len, added);
    return added;
}

/* The name under which a worker's service is kept: RFC 7 workers have one for each method. */
static gr_slice key_of(const gr_envelope *ready, uint8_t key[255])
{
    if (ready->method.len == 0 || gr_slice_equal(ready->method, gr_slice_str("call")))
        return ready->service;
    gr_slice joined = join(ready->service, ready->method, key);
    return joined.len > 0 ? joined : ready->service;
}

void gr_broker_free_services(gr_broker *self)
{
    struct service *at, *next;
    HASH_ITER (hh, self->services, at, next) {
        HASH_DEL(self->services, at);
        free_service(at);
    }
}

/* --- the buckets ------------------------------------------------------------------------- */

static bool has_room(const gr_peer *worker)
{
    return !worker->draining && worker->outstanding < worker->credit;
}

static void enter_bucket(struct service *service, gr_peer *worker)
{
    if (!has_room(worker))
        return;
    DL_APPEND(service->buckets[worker->outstanding], worker);
    if (worker->outstanding < service->lowest)
        service->lowest = worker->outstanding;
}

static void leave_bucket(struct service *service, gr_peer *worker)
{
    if (has_room(worker))
        DL_DELETE(service->buckets[worker->outstanding], worker);
}

static void find_lowest(struct service *service)
{
    while (service->lowest < service->bucket_count && service->buckets[service->lowest] == NULL)
        service->lowest++;
}

static int need_buckets(struct service *service, uint32_t count)
{
    if (count <= service->bucket_count)
        return 0;
    gr_peer **buckets = realloc(service->buckets, count * sizeof(gr_peer *));
    if (buckets == NULL)
        return GR_ENOMEM;
    for (uint32_t i = service->bucket_count; i < count; i++)
        buckets[i] = NULL;
    if (service->lowest == service->bucket_count)
        service->lowest = count;
    service->buckets = buckets;
    service->bucket_count = count;
    return 0;
}

bool gr_broker_is_served(const struct service *service)
{
    return service->workers > service->leaving;
}

gr_peer *gr_broker_choose(const struct service *service)
{
    return service->lowest < service->bucket_count ? service->buckets[service->lowest] : NULL;
}

void gr_broker_worker_takes(struct service *service, gr_peer *worker)
{
    leave_bucket(service, worker);
    worker->outstanding++;
    enter_bucket(service, worker);
    find_lowest(service);
}

void gr_broker_worker_gives_back(struct service *service, gr_peer *worker)
{
    leave_bucket(service, worker);
    worker->outstanding--;
    enter_bucket(service, worker);
}

void gr_broker_worker_drains(gr_peer *worker)
{
    if (worker->draining)
        return;
    leave_bucket(worker->service, worker);
    worker->draining = true;
    worker->service->leaving++;
    find_lowest(worker->service);
}

void gr_broker_worker_credit(struct service *service, gr_peer *worker, uint32_t credit)
{
    credit = gr_pulse_clamp(credit, 1, MAX_CREDIT);
    if (need_buckets(service, credit) < 0)
        return;
    leave_bucket(service, worker);
    worker->credit = credit;
    enter_bucket(service, worker);
    find_lowest(service);
}

/* --- registration ------------------------------------------------------------------------ */

bool gr_broker_is_idempotent(const struct service *service, gr_slice method)
{
    struct method *found;
    HASH_FIND(hh, service->idempotent, method.data, method.len, found);
    return found != NULL;
}

static int add_idempotent(struct service *service, gr_slice name)
{
    if (gr_broker_is_idempotent(service, name))
        return 0;
    if (HASH_COUNT(service->idempotent) >= MAX_METHODS)
        return GR_EEXHAUSTED;
    struct method *method = calloc(1, sizeof(*method) + name.len);
    if (method == NULL)
        return GR_ENOMEM;
    memcpy(method->name, name.data, name.len);
    method->name_len = name.len;
    HASH_ADD_KEYPTR(hh, service->idempotent, method->name, method->name_len, method);
    return 0;
}

/* What is read from READY is first only checked, with service NULL, then taken over: a worker that
 * is refused changes nothing. */

/* One method of the table: {"idempotent": bool, others}. */
static int read_method(gr_mp_reader *reader, struct service *service, gr_slice name)
{
    gr_mp_token map, key;
    int rc = gr_mp_next(reader, &map);
    if (rc < 0 || map.type != GR_MP_MAP)
        return GR_EINVAL;
    for (uint32_t left = map.as.count; left > 0; left--) {
        if (gr_mp_next(reader, &key) < 0 || key.type != GR_MP_STR)
            return GR_EINVAL;
        gr_mp_reader value_at = *reader;
        gr_mp_token value;
        rc = gr_mp_skip(reader);
        if (rc < 0)
            return rc;
        if (!gr_slice_equal(key.as.bytes, gr_slice_str("idempotent")))
            continue;
        gr_mp_next(&value_at, &value);
        if (service != NULL && value.type == GR_MP_BOOL && value.as.b)
            rc = add_idempotent(service, name);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_methods(gr_mp_reader *reader, struct service *service)
{
    gr_mp_token map, name;
    if (gr_mp_next(reader, &map) < 0 || map.type != GR_MP_MAP)
        return GR_EINVAL;
    if (map.as.count > MAX_METHODS)
        return GR_EEXHAUSTED;
    for (uint32_t left = map.as.count; left > 0; left--) {
        if (gr_mp_next(reader, &name) < 0 || name.type != GR_MP_STR ||
            !gr_wire_is_name(name.as.bytes))
            return GR_EINVAL;
        int rc = read_method(reader, service, name.as.bytes);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* What the worker says of the service: {"description": str, "methods": {name: {...}}, others}. */
static int read_about(gr_slice about, struct service *service)
{
    if (about.len == 0)
        return 0;
    gr_mp_reader reader = gr_mp_read(about);
    gr_mp_token map, key, value;
    if (gr_mp_next(&reader, &map) < 0 || map.type != GR_MP_MAP)
        return GR_EINVAL;
    for (uint32_t left = map.as.count; left > 0; left--) {
        if (gr_mp_next(&reader, &key) < 0 || key.type != GR_MP_STR)
            return GR_EINVAL;
        int rc;
        if (gr_slice_equal(key.as.bytes, gr_slice_str("description"))) {
            rc = gr_mp_next(&reader, &value);
            if (rc < 0 || value.type != GR_MP_STR || value.as.bytes.len > MAX_DESCRIPTION)
                return GR_EINVAL;
            if (service != NULL) {
                service->description.len = 0;
                rc = gr_buf_append(&service->description, value.as.bytes.data, value.as.bytes.len);
            }
        } else if (gr_slice_equal(key.as.bytes, gr_slice_str("methods"))) {
            rc = read_methods(&reader, service);
        } else {
            rc = gr_mp_skip(&reader);
        }
        if (rc < 0)
            return rc;
    }
    return reader.at == reader.end ? 0 : GR_EINVAL;
}

static int check_ready(const gr_broker *self, const gr_peer *peer, const gr_envelope *ready,
                       const char **why)
{
    if (!gr_wire_is_name(ready->service)) {
        *why = "a service's name has 1 to 255 printable characters without spaces";
        return GR_EINVAL;
    }
    if (gr_slice_equal(ready->service, gr_slice_str(GATE)) && !gr_broker_is_local(peer)) {
        *why = "the name Gate belongs to the broker";
        return GR_EDENIED;
    }
    uint8_t space[255];
    const struct service *known = gr_broker_find_service(self, key_of(ready, space));
    if (known == NULL && HASH_COUNT(self->services) >= self->options.max_services) {
        *why = "the broker has as many services as it takes";
        return GR_EEXHAUSTED;
    }
    if (known != NULL && known->workers > 0 && known->single != (ready->method.len > 0)) {
        *why = "workers of RFC 7 and others cannot share a service: they hear no method's name";
        return GR_EDENIED;
    }
    return 0;
}

static struct service *find_or_add(gr_broker *self, const gr_envelope *ready)
{
    uint8_t space[255];
    gr_slice key = key_of(ready, space);
    struct service *found = gr_broker_find_service(self, key);
    if (found == NULL)
        found = add_service(self, key);
    if (found == NULL)
        return NULL;
    if (found->workers == 0)
        found->single = ready->method.len > 0;
    found->member = key.len > ready->service.len;
    if (found->member &&
        gr_broker_find_service(self, ready->service) == NULL) { /* for people to see */
        struct service *group = add_service(self, ready->service);
        if (group != NULL)
            group->group = true;
    }
    return found;
}

int gr_broker_register(gr_broker *self, gr_peer *peer, const gr_envelope *ready, const char **why)
{
    int rc = check_ready(self, peer, ready, why);
    if (rc < 0)
        return rc;
    rc = read_about(ready->payload, NULL);
    if (rc < 0) {
        *why = "what the worker says of the service cannot be read";
        return rc;
    }
    struct service *joined = find_or_add(self, ready);
    if (joined == NULL)
        return GR_ENOMEM;
    uint32_t credit = gr_pulse_clamp(ready->credit, 1, MAX_CREDIT);
    rc = need_buckets(joined, credit);
    if (rc == 0)
        rc = read_about(ready->payload, joined);
    if (rc < 0) {
        *why = "the broker cannot keep what the worker says of the service";
        return rc;
    }
    joined->group = false;
    peer->role = WORKER;
    peer->service = joined;
    peer->credit = credit;
    peer->outstanding = 0;
    peer->draining = false;
    joined->workers++;
    self->workers++;
    enter_bucket(joined, peer);
    return 0;
}

void gr_broker_unregister(gr_broker *self, gr_peer *peer, int64_t now_ms)
{
    struct service *left = peer->service;
    gr_broker_worker_drains(peer); /* nothing may be given to it while its calls go to others */
    left->leaving--;
    left->workers--;
    self->workers--;
    gr_broker_lose_worker_calls(self, peer, now_ms);
    peer->service = NULL;
    if (!gr_broker_is_served(left))
        gr_broker_fail_waiting(self, left, "the last worker has gone", now_ms);
    if (left->workers == 0)
        forget_methods(left);
}
