/* signals.h - which signals go to which thread: those that ask for something to the loop's, those
 * of a crash to whoever crashes. */
#ifndef GR_SIGNALS_H
#define GR_SIGNALS_H

#include <signal.h>
#include <stddef.h>

/* What a thread other than the main one blocks: all but the signals of a crash, which the log wants
 * to see before the process ends. */
static inline void gr_signals_of_threads(sigset_t *out)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigfillset(out);
    for (size_t i = 0; i < sizeof(crashes) / sizeof(crashes[0]); i++)
        sigdelset(out, crashes[i]);
}

#endif
