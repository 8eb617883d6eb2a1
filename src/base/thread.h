/* thread.h - threads that leave signals to the main one, and conditions that wait by the monotonic
 * clock. */
#ifndef GR_THREAD_H
#define GR_THREAD_H

#include <pthread.h>

/* Starts a thread in which all signals are blocked but those of a crash, which the log wants to see
 * before the process ends: the others ask for something, and the main thread answers them. Returns
 * 0 or GR_EEXHAUSTED. */
int gr_thread_start(pthread_t *out, void *(*run)(void *arg), void *arg);

/* pthread_cond_timedwait() on it takes times of CLOCK_MONOTONIC. */
void gr_cond_init(pthread_cond_t *out);

#endif
