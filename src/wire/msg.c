#include "wire/msg.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/err.h"

/* libzmq hands the memory of messages from thread to thread, and takes care of the order. It is not
 * instrumented, so ThreadSanitizer is told of it: where frames go to libzmq, and where they come
 * from it. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
static char order;
#define GIVE_TO_ZMQ()   __tsan_release(&order)
#define TAKE_FROM_ZMQ() __tsan_acquire(&order)
#else
#define GIVE_TO_ZMQ()   ((void)0)
#define TAKE_FROM_ZMQ() ((void)0)
#endif

/* Frames in the object itself: routing id, header, payload. */
enum { INLINE_FRAMES = 3, FIRST_QUEUE = 16 };

struct gr_msg {
    size_t len;
    size_t cap;
    bool cut;
    bool shared; /* the bytes belong to a copy as well */
    zmq_msg_t *frames;
    zmq_msg_t inline_frames[INLINE_FRAMES];
};

int gr_msg_new(gr_msg **out)
{
    gr_msg *self = malloc(sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->len = 0;
    self->cap = INLINE_FRAMES;
    self->cut = false;
    self->shared = false;
    self->frames = self->inline_frames;
    *out = self;
    return 0;
}

void gr_msg_destroy(gr_msg **self)
{
    gr_msg *msg = *self;
    if (msg == NULL)
        return;
    GIVE_TO_ZMQ();
    for (size_t i = 0; i < msg->len; i++)
        zmq_msg_close(&msg->frames[i]);
    if (msg->frames != msg->inline_frames)
        free(msg->frames);
    free(msg);
    *self = NULL;
}

size_t gr_msg_len(const gr_msg *self)
{
    return self->len;
}

size_t gr_msg_bytes(const gr_msg *self)
{
    size_t bytes = 0;
    for (size_t i = 0; i < self->len; i++)
        bytes += zmq_msg_size(&self->frames[i]);
    return bytes;
}

/* zmq_msg_data() takes a pointer to something that it does not change. */
static uint8_t *frame_data(const gr_msg *self, size_t i)
{
    return zmq_msg_data((zmq_msg_t *)&self->frames[i]);
}

gr_slice gr_msg_frame(const gr_msg *self, size_t i)
{
    return gr_slice_of(frame_data(self, i), zmq_msg_size(&self->frames[i]));
}

zmq_msg_t *gr_msg_zmq(gr_msg *self, size_t i)
{
    GIVE_TO_ZMQ(); /* it may be sent */
    return &self->frames[i];
}

uint8_t *gr_msg_own(gr_msg *self, size_t i)
{
    return self->shared ? NULL : frame_data(self, i);
}

/* zmq_msg_t may be moved by zmq_msg_move() only. */
static void move_frames(zmq_msg_t *to, zmq_msg_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        zmq_msg_init(&to[i]);
        zmq_msg_move(&to[i], &from[i]);
        zmq_msg_close(&from[i]);
    }
}

static int make_room(gr_msg *self)
{
    if (self->len < self->cap)
        return 0;
    if (self->len == GR_MSG_MAX_FRAMES)
        return GR_EEXHAUSTED;
    size_t cap = GR_MSG_MAX_FRAMES;
    zmq_msg_t *frames = malloc(cap * sizeof(zmq_msg_t));
    if (frames == NULL)
        return GR_ENOMEM;
    move_frames(frames, self->frames, self->len);
    self->frames = frames;
    self->cap = cap;
    return 0;
}

int gr_msg_add_space(gr_msg *self, size_t len, uint8_t **data)
{
    int rc = make_room(self);
    if (rc < 0)
        return rc;
    if (zmq_msg_init_size(&self->frames[self->len], len) != 0)
        return GR_ENOMEM;
    *data = frame_data(self, self->len);
    self->len++;
    return 0;
}

int gr_msg_add(gr_msg *self, const void *data, size_t len)
{
    uint8_t *space;
    int rc = gr_msg_add_space(self, len, &space);
    if (rc == 0 && len > 0)
        memcpy(space, data, len);
    return rc;
}

static void free_bytes(void *data, void *hint)
{
    (void)hint;
    free(data);
}

int gr_msg_add_buf(gr_msg *self, gr_buf *buf)
{
    int rc = make_room(self);
    if (rc < 0)
        return rc;
    if (zmq_msg_init_data(&self->frames[self->len], buf->data, buf->len, free_bytes, NULL) != 0)
        return GR_ENOMEM;
    gr_buf_steal(buf);
    self->len++;
    return 0;
}

int gr_msg_add_zmq(gr_msg *self, zmq_msg_t *frame)
{
    int rc = make_room(self);
    TAKE_FROM_ZMQ();
    if (rc == GR_EEXHAUSTED) {
        self->cut = true;
        zmq_msg_close(frame);
        zmq_msg_init(frame);
        return 0;
    }
    if (rc < 0)
        return rc;
    zmq_msg_init(&self->frames[self->len]);
    zmq_msg_move(&self->frames[self->len], frame);
    self->len++;
    return 0;
}

int gr_msg_set(gr_msg *self, size_t i, const void *data, size_t len)
{
    zmq_msg_t frame;
    if (zmq_msg_init_size(&frame, len) != 0)
        return GR_ENOMEM;
    memcpy(zmq_msg_data(&frame), data, len);
    GIVE_TO_ZMQ(); /* the frame that it replaces */
    zmq_msg_move(&self->frames[i], &frame);
    zmq_msg_close(&frame);
    return 0;
}

int gr_msg_prepend(gr_msg *self, const void *data, size_t len)
{
    int rc = gr_msg_add(self, data, len);
    if (rc < 0)
        return rc;
    zmq_msg_t first;
    zmq_msg_init(&first);
    zmq_msg_move(&first, &self->frames[self->len - 1]);
    for (size_t i = self->len - 1; i > 0; i--)
        zmq_msg_move(&self->frames[i], &self->frames[i - 1]);
    zmq_msg_move(&self->frames[0], &first);
    zmq_msg_close(&first);
    return 0;
}

void gr_msg_drop_first(gr_msg *self)
{
    if (self->len == 0)
        return;
    for (size_t i = 1; i < self->len; i++)
        zmq_msg_move(&self->frames[i - 1], &self->frames[i]);
    self->len--;
    GIVE_TO_ZMQ();
    zmq_msg_close(&self->frames[self->len]);
}

int gr_msg_is_cut(const gr_msg *self)
{
    return self->cut;
}

int gr_msg_copy(const gr_msg *self, gr_msg **out)
{
    gr_msg *from = (gr_msg *)self; /* only the mark that the bytes are shared changes */
    gr_msg *copy;
    int rc = gr_msg_new(&copy);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < self->len; i++) {
        rc = make_room(copy);
        if (rc < 0) {
            gr_msg_destroy(&copy);
            return rc;
        }
        zmq_msg_init(&copy->frames[i]);
        zmq_msg_copy(&copy->frames[i], &from->frames[i]);
        copy->len++;
    }
    copy->cut = self->cut;
    copy->shared = from->shared = true;
    *out = copy;
    return 0;
}

static int grow_queue(gr_msg_queue *self)
{
    size_t cap = self->cap > 0 ? self->cap * 2 : FIRST_QUEUE;
    gr_msg **items = malloc(cap * sizeof(gr_msg *));
    if (items == NULL)
        return GR_ENOMEM;
    for (size_t i = 0; i < self->len; i++)
        items[i] = self->items[(self->head + i) & (self->cap - 1)];
    free(self->items);
    self->items = items;
    self->head = 0;
    self->cap = cap;
    return 0;
}

int gr_msg_queue_push(gr_msg_queue *self, gr_msg **msg)
{
    if (self->len == self->cap) {
        int rc = grow_queue(self);
        if (rc < 0)
            return rc;
    }
    self->items[(self->head + self->len) & (self->cap - 1)] = *msg;
    self->len++;
    self->bytes += gr_msg_bytes(*msg);
    *msg = NULL;
    return 0;
}

gr_msg *gr_msg_queue_pop(gr_msg_queue *self)
{
    if (self->len == 0)
        return NULL;
    gr_msg *msg = self->items[self->head];
    self->head = (self->head + 1) & (self->cap - 1);
    self->len--;
    self->bytes -= gr_msg_bytes(msg);
    return msg;
}

gr_msg *gr_msg_queue_peek(const gr_msg_queue *self)
{
    return self->len > 0 ? self->items[self->head] : NULL;
}

void gr_msg_queue_clear(gr_msg_queue *self)
{
    gr_msg *msg;
    while ((msg = gr_msg_queue_pop(self)) != NULL)
        gr_msg_destroy(&msg);
    free(self->items);
    *self = (gr_msg_queue){0};
}
