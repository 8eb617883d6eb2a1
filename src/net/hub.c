#include "net/hub.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <uthash.h>

#include "base/err.h"
#include "engine/events.h"

GR_EVENTS(gr_hub_event, items)

struct address {
    enum gr_via via;
    gr_hub *hub;
    UT_hash_handle hh;
    char text[];
};

/* Two owners: the hub and the endpoint. Its mutex guards what follows it. */
struct gr_link {
    uint64_t id;
    enum gr_via via;
    atomic_int owners;
    UT_hash_handle hh; /* in hub->links, under the hub's mutex */

    pthread_mutex_t mutex;
    gr_hub *hub;           /* NULL when it has gone */
    gr_link_wake_fn *wake; /* NULL when the endpoint has gone */
    void *arg;
    gr_msg_queue queue; /* hub to endpoint */
};

struct gr_hub {
    pthread_mutex_t mutex; /* guards links and items; taken inside a link's or the registry's */
    gr_link *links;
    struct items items; /* endpoints to hub */
    bool signalled;
    int fd;
};

/* The hubs of this process by address: what a connect() in the same process can find. */
static struct {
    pthread_mutex_t mutex;
    struct address *addresses;
    uint64_t last_id;
} registry = {.mutex = PTHREAD_MUTEX_INITIALIZER};

int gr_hub_new(gr_hub **out)
{
    gr_hub *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (self->fd < 0) {
        free(self);
        return GR_EEXHAUSTED;
    }
    pthread_mutex_init(&self->mutex, NULL);
    *out = self;
    return 0;
}

static void drop_link(gr_link *link)
{
    if (atomic_fetch_sub(&link->owners, 1) > 1)
        return;
    gr_msg_queue_clear(&link->queue);
    pthread_mutex_destroy(&link->mutex);
    free(link);
}

static void withdraw(gr_hub *self)
{
    struct address *address, *next;
    pthread_mutex_lock(&registry.mutex);
    HASH_ITER (hh, registry.addresses, address, next) {
        if (address->hub == self) {
            HASH_DEL(registry.addresses, address);
            free(address);
        }
    }
    pthread_mutex_unlock(&registry.mutex);
}

void gr_hub_destroy(gr_hub **hub)
{
    gr_hub *self = *hub;
    if (self == NULL)
        return;
    withdraw(self); /* from here on there are no new links */
    gr_link *link;
    for (;;) {
        pthread_mutex_lock(&self->mutex);
        link = self->links;
        if (link != NULL)
            HASH_DEL(self->links, link);
        pthread_mutex_unlock(&self->mutex);
        if (link == NULL)
            break;
        pthread_mutex_lock(&link->mutex);
        link->hub = NULL;
        if (link->wake != NULL)
            link->wake(link->arg);
        pthread_mutex_unlock(&link->mutex);
        drop_link(link);
    }
    gr_hub_event event;
    while (items_pop(&self->items, &event))
        gr_msg_destroy(&event.msg);
    free(self->items.items);
    close(self->fd);
    pthread_mutex_destroy(&self->mutex);
    free(self);
    *hub = NULL;
}

int gr_hub_publish(gr_hub *self, const char *address, enum gr_via via)
{
    size_t len = strlen(address);
    struct address *added = calloc(1, sizeof(*added) + len + 1), *found;
    if (added == NULL)
        return GR_ENOMEM;
    memcpy(added->text, address, len);
    added->hub = self;
    added->via = via;
    pthread_mutex_lock(&registry.mutex);
    HASH_FIND(hh, registry.addresses, address, len, found);
    if (found == NULL)
        HASH_ADD_KEYPTR(hh, registry.addresses, added->text, len, added);
    pthread_mutex_unlock(&registry.mutex);
    if (found == NULL)
        return 0;
    free(added);
    return GR_EADDRINUSE;
}

int gr_hub_fd(const gr_hub *self)
{
    return self->fd;
}

static void signal_hub(gr_hub *self)
{
    uint64_t one = 1;
    if (write(self->fd, &one, sizeof(one)) < 0)
        return; /* full: then it is readable, which is all we want */
}

void gr_hub_wake(gr_hub *self)
{
    pthread_mutex_lock(&self->mutex);
    if (!self->signalled)
        signal_hub(self);
    self->signalled = true;
    pthread_mutex_unlock(&self->mutex);
}

static int push(gr_hub *self, const gr_hub_event *event)
{
    pthread_mutex_lock(&self->mutex);
    int rc = items_push(&self->items, event);
    if (rc == 0 && !self->signalled) {
        self->signalled = true;
        signal_hub(self);
    }
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

bool gr_hub_next(gr_hub *self, gr_hub_event *out)
{
    uint64_t count;
    pthread_mutex_lock(&self->mutex);
    bool got = items_pop(&self->items, out);
    if (!got && self->signalled)
        self->signalled = read(self->fd, &count, sizeof(count)) < 0;
    pthread_mutex_unlock(&self->mutex);
    return got;
}

int gr_hub_send(gr_hub *self, const uint8_t id[8], gr_msg **msg)
{
    uint64_t key;
    gr_link *link;
    int rc = GR_EUNAVAILABLE;
    memcpy(&key, id, sizeof(key));
    pthread_mutex_lock(&self->mutex);
    HASH_FIND(hh, self->links, &key, sizeof(key), link);
    if (link != NULL)
        atomic_fetch_add(&link->owners, 1);
    pthread_mutex_unlock(&self->mutex);
    if (link == NULL)
        return rc;
    pthread_mutex_lock(&link->mutex);
    if (link->wake != NULL) {
        bool was_empty = link->queue.len == 0;
        rc = gr_msg_queue_push(&link->queue, msg);
        if (was_empty)
            link->wake(link->arg);
    }
    pthread_mutex_unlock(&link->mutex);
    drop_link(link);
    return rc;
}

/* --- the other side ---------------------------------------------------------------------- */

int gr_link_open(gr_link **out, const char *address, gr_link_wake_fn *wake, void *arg)
{
    gr_link *link = calloc(1, sizeof(*link));
    if (link == NULL)
        return GR_ENOMEM;
    pthread_mutex_init(&link->mutex, NULL);
    atomic_init(&link->owners, 2);
    link->wake = wake;
    link->arg = arg;

    struct address *found;
    pthread_mutex_lock(&registry.mutex);
    HASH_FIND(hh, registry.addresses, address, strlen(address), found);
    if (found != NULL) {
        gr_hub *hub = found->hub;
        link->id = ++registry.last_id;
        link->via = found->via;
        link->hub = hub;
        pthread_mutex_lock(&hub->mutex);
        HASH_ADD(hh, hub->links, id, sizeof(link->id), link);
        pthread_mutex_unlock(&hub->mutex);
    }
    pthread_mutex_unlock(&registry.mutex);
    if (found == NULL) {
        pthread_mutex_destroy(&link->mutex);
        free(link);
        return GR_EUNAVAILABLE;
    }
    *out = link;
    return 0;
}

static gr_hub_event event_of(const gr_link *self, enum gr_hub_event_type type, gr_msg *msg)
{
    gr_hub_event event = {.type = type, .via = self->via, .msg = msg};
    memcpy(event.id, &self->id, sizeof(event.id));
    return event;
}

void gr_link_close(gr_link **link)
{
    gr_link *self = *link;
    if (self == NULL)
        return;
    bool listed = false;
    pthread_mutex_lock(&self->mutex);
    self->wake = NULL;
    gr_hub *hub = self->hub;
    if (hub != NULL) { /* cannot go away while we hold the mutex that it needs to let go of us */
        gr_hub_event gone = event_of(self, GR_HUB_GONE, NULL);
        push(hub, &gone);
        gr_link *found;
        pthread_mutex_lock(&hub->mutex);
        HASH_FIND(hh, hub->links, &self->id, sizeof(self->id), found);
        listed = found != NULL;
        if (listed)
            HASH_DEL(hub->links, self);
        pthread_mutex_unlock(&hub->mutex);
    }
    pthread_mutex_unlock(&self->mutex);
    if (listed)
        drop_link(self); /* the hub's share */
    drop_link(self);
    *link = NULL;
}

int gr_link_send(gr_link *self, gr_msg **msg)
{
    int rc = GR_ECLOSED;
    pthread_mutex_lock(&self->mutex);
    if (self->hub != NULL) {
        gr_hub_event event = event_of(self, GR_HUB_MESSAGE, *msg);
        rc = push(self->hub, &event);
        if (rc == 0)
            *msg = NULL;
    }
    pthread_mutex_unlock(&self->mutex);
    return rc;
}

gr_msg *gr_link_recv(gr_link *self)
{
    pthread_mutex_lock(&self->mutex);
    gr_msg *msg = gr_msg_queue_pop(&self->queue);
    pthread_mutex_unlock(&self->mutex);
    return msg;
}

bool gr_link_readable(gr_link *self)
{
    pthread_mutex_lock(&self->mutex);
    bool readable = self->hub == NULL || self->queue.len > 0;
    pthread_mutex_unlock(&self->mutex);
    return readable;
}

bool gr_link_is_over(gr_link *self)
{
    pthread_mutex_lock(&self->mutex);
    bool over = self->hub == NULL && self->queue.len == 0;
    pthread_mutex_unlock(&self->mutex);
    return over;
}
