/* msg.h - a multipart message that owns its frames.
 *
 * Frames are zmq_msg_t, so a payload is never copied on its way from socket to socket. A message
 * belongs to one thread at a time; whoever holds the pointer owns it, T ** takes it. */
#ifndef GR_MSG_H
#define GR_MSG_H

#include <stddef.h>
#include <zmq.h>

#include "base/buf.h"

/* A message with more frames is cut there and marked as cut: nothing of ours has so many. */
enum { GR_MSG_MAX_FRAMES = 64 };

typedef struct gr_msg gr_msg;

/* Makes a message without frames. Returns 0 or GR_ENOMEM. */
int gr_msg_new(gr_msg **out);
void gr_msg_destroy(gr_msg **self);

size_t gr_msg_len(const gr_msg *self);

/* Bytes of all frames together. */
size_t gr_msg_bytes(const gr_msg *self);

/* Frame i, which must be below gr_msg_len(); stays valid until the frame is changed. */
gr_slice gr_msg_frame(const gr_msg *self, size_t i);
zmq_msg_t *gr_msg_zmq(gr_msg *self, size_t i);

/* The frame's bytes, to be changed in place. NULL when the frame is shared with another message
 * (gr_msg_copy), which must not see the change. */
uint8_t *gr_msg_own(gr_msg *self, size_t i);

/* Appends a frame with a copy of data. Returns 0, GR_ENOMEM or GR_EEXHAUSTED (64 frames). */
int gr_msg_add(gr_msg *self, const void *data, size_t len);

/* Appends a frame of len bytes to be filled in through *data. Errors as gr_msg_add(). */
int gr_msg_add_space(gr_msg *self, size_t len, uint8_t **data);

/* Appends a frame that takes over the memory of buf, without a copy; buf is empty afterwards.
 * Errors as gr_msg_add(); then buf is untouched. */
int gr_msg_add_buf(gr_msg *self, gr_buf *buf);

/* Moves *frame in as the last one; it is an empty frame afterwards. When there are 64 already it is
 * closed instead and the message is marked as cut. Returns 0 or GR_ENOMEM. */
int gr_msg_add_zmq(gr_msg *self, zmq_msg_t *frame);

/* Replaces frame i (the routing id, mostly) by a copy of data. Returns 0 or GR_ENOMEM. */
int gr_msg_set(gr_msg *self, size_t i, const void *data, size_t len);

/* Puts a copy of data in front of all frames. Returns 0, GR_ENOMEM or GR_EEXHAUSTED. */
int gr_msg_prepend(gr_msg *self, const void *data, size_t len);

/* Drops the first frame, if there is one. */
void gr_msg_drop_first(gr_msg *self);

/* True when frames were lost because there were more than 64. */
int gr_msg_is_cut(const gr_msg *self);

/* A second message that shares the bytes of the frames. Returns 0 or GR_ENOMEM. */
int gr_msg_copy(const gr_msg *self, gr_msg **out);

/* A first-in first-out queue of messages, by value; zeroed it is empty. */
typedef struct gr_msg_queue {
    gr_msg **items;
    size_t head;
    size_t len;
    size_t cap; /* a power of two */
    size_t bytes;
} gr_msg_queue;

/* Appends and takes *msg. Returns 0 or GR_ENOMEM; then the message is still yours. */
int gr_msg_queue_push(gr_msg_queue *self, gr_msg **msg);

/* Takes the first one out, or returns NULL. */
gr_msg *gr_msg_queue_pop(gr_msg_queue *self);

/* The first one, which stays in, or NULL. */
gr_msg *gr_msg_queue_peek(const gr_msg_queue *self);

/* Destroys what is in it and frees its memory. */
void gr_msg_queue_clear(gr_msg_queue *self);

#endif
