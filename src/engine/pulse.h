/* pulse.h - heartbeats of one connection: when to send one, when the other side counts as dead.
 *
 * Each side says in HELLO or READY how often it beats and how many beats may be missed, and is
 * judged by what it said, so unequal settings do no harm. Anything heard counts as a beat, and
 * time in which we ourselves did not run (a stopped process, a paused machine) counts for nobody.
 * Reads no clock; a zero interval switches a direction off (peers in one process). */
#ifndef GR_PULSE_H
#define GR_PULSE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

/* Bounds on what the other side may ask for, and its defaults when it says nothing. */
enum {
    GR_PULSE_MIN_MS = 50,
    GR_PULSE_MAX_MS = 3600 * 1000,
    GR_PULSE_MS = 3000,
    GR_PULSE_LIVENESS = 3,
    GR_PULSE_MAX_LIVENESS = 100,
    GR_PULSE_MAX_ABSENCES = 3, /* who never runs in time must find the dead as well */
};

typedef struct gr_pulse {
    int64_t sent_ms;  /* when we last sent anything */
    int64_t heard_ms; /* when we last heard anything */
    uint32_t beat_ms; /* we beat so often; 0 never */
    uint32_t wait_ms; /* the other side is dead after so long without a word; 0 never */
    uint8_t absences; /* how often we did not run since we last heard anything */
} gr_pulse;

static inline uint32_t gr_pulse_clamp(uint32_t value, uint32_t low, uint32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* Takes over what the other side said of itself: its interval and its liveness, both clamped. */
static inline void gr_pulse_expect(gr_pulse *self, uint32_t interval_ms, uint32_t liveness)
{
    if (interval_ms == 0) {
        self->wait_ms = 0;
        return;
    }
    self->wait_ms = gr_pulse_clamp(interval_ms, GR_PULSE_MIN_MS, GR_PULSE_MAX_MS) *
                    gr_pulse_clamp(liveness, 1, GR_PULSE_MAX_LIVENESS);
}

/* We wake for every beat of ours at the latest. Whoever wakes a quarter of a beat later was away
 * since he last sent or heard anything, and words of others may still be on their way to him. */
static inline void gr_pulse_excuse(gr_pulse *self, int64_t now_ms)
{
    int64_t awake_ms = self->sent_ms > self->heard_ms ? self->sent_ms : self->heard_ms;
    bool away = self->beat_ms > 0 && now_ms - awake_ms > self->beat_ms + self->beat_ms / 4;
    if (away && self->absences < GR_PULSE_MAX_ABSENCES) {
        self->heard_ms += now_ms - awake_ms;
        self->absences++;
    }
}

/* We say something. */
static inline void gr_pulse_say(gr_pulse *self, int64_t now_ms)
{
    gr_pulse_excuse(self, now_ms);
    self->sent_ms = now_ms;
}

/* The other side has said something. */
static inline void gr_pulse_hear(gr_pulse *self, int64_t now_ms)
{
    self->heard_ms = now_ms;
    self->absences = 0;
}

static inline int64_t gr_pulse_beat_due(const gr_pulse *self)
{
    return self->beat_ms > 0 ? self->sent_ms + self->beat_ms : GR_NEVER;
}

static inline int64_t gr_pulse_dead_due(const gr_pulse *self)
{
    return self->wait_ms > 0 ? self->heard_ms + self->wait_ms : GR_NEVER;
}

/* When to look again: the earlier of the two. */
static inline int64_t gr_pulse_due(const gr_pulse *self)
{
    int64_t beat = gr_pulse_beat_due(self);
    int64_t dead = gr_pulse_dead_due(self);
    return beat < dead ? beat : dead;
}

static inline bool gr_pulse_should_beat(const gr_pulse *self, int64_t now_ms)
{
    return gr_pulse_beat_due(self) <= now_ms;
}

/* To be asked when gr_pulse_due() has come, and after everything that is there was read. */
static inline bool gr_pulse_is_dead(gr_pulse *self, int64_t now_ms)
{
    gr_pulse_excuse(self, now_ms);
    return gr_pulse_dead_due(self) <= now_ms;
}

#endif
