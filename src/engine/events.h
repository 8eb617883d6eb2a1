/* events.h - a growing ring of events of one engine. A macro, because events differ in type:
 * GR_EVENTS(gr_client_event, events) makes the type `struct events` with events_push() and
 * events_pop(). Zeroed it is empty. */
#ifndef GR_EVENTS_H
#define GR_EVENTS_H

#include <stdbool.h>
#include <stdlib.h>

#include "base/err.h"

#define GR_EVENTS(type, name)                                                                      \
    struct name {                                                                                  \
        type *items;                                                                               \
        size_t head, len, cap; /* cap is a power of two */                                         \
    };                                                                                             \
                                                                                                   \
    static inline int name##_grow(struct name *self)                                               \
    {                                                                                              \
        size_t cap = self->cap > 0 ? self->cap * 2 : 64;                                           \
        type *items = malloc(cap * sizeof(type));                                                  \
        if (items == NULL)                                                                         \
            return GR_ENOMEM;                                                                      \
        for (size_t i = 0; i < self->len; i++)                                                     \
            items[i] = self->items[(self->head + i) & (self->cap - 1)];                            \
        free(self->items);                                                                         \
        self->items = items;                                                                       \
        self->head = 0;                                                                            \
        self->cap = cap;                                                                           \
        return 0;                                                                                  \
    }                                                                                              \
                                                                                                   \
    static inline int name##_push(struct name *self, const type *event)                            \
    {                                                                                              \
        if (self->len == self->cap && name##_grow(self) < 0)                                       \
            return GR_ENOMEM;                                                                      \
        self->items[(self->head + self->len++) & (self->cap - 1)] = *event;                        \
        return 0;                                                                                  \
    }                                                                                              \
                                                                                                   \
    static inline bool name##_pop(struct name *self, type *out)                                    \
    {                                                                                              \
        if (self->len == 0)                                                                        \
            return false;                                                                          \
        *out = self->items[self->head];                                                            \
        self->head = (self->head + 1) & (self->cap - 1);                                           \
        self->len--;                                                                               \
        return true;                                                                               \
    }

#endif
