/* clock.h - the monotonic clock. Only loops, endpoints and bindings read it; engines are told
 * the time. Any thread may call it. */
#ifndef GR_CLOCK_H
#define GR_CLOCK_H

#include <stdint.h>
#include <time.h>

/* "No such time": later than every time there is. */
#define GR_NEVER INT64_MAX

/* Monotonic nanoseconds since an unknown start (the boot). */
static inline int64_t gr_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Monotonic milliseconds since the same start. */
static inline int64_t gr_clock_ms(void)
{
    return gr_clock_ns() / 1000000;
}

#endif
