/* log_crash.c - when the process crashes the log gets what it has been told, and the last line. */
#include <signal.h>
#include <stdlib.h>

#include "base/log.h"

static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

enum { COUNT = sizeof(crashes) / sizeof(crashes[0]), STACK = 64 << 10 };

static struct sigaction before[COUNT];
static void (*before_rescue)(void);

/* Then what was there before gets it: a fault happens again as soon as we return, and a core dump
 * shows the place. A signal that somebody has sent must be sent again. */
static void on_crash(int number, siginfo_t *info, void *context)
{
    (void)context;
    if (before_rescue != NULL)
        before_rescue();
    gr_log_rescue(number);
    for (size_t i = 0; i < COUNT; i++)
        sigaction(crashes[i], &before[i], NULL);
    if (info->si_code <= 0 || number == SIGABRT)
        raise(number); /* it is blocked until we return */
}

void gr_log_catch_crashes(void (*first)(void))
{
    static char memory[STACK];
    stack_t stack = {.ss_sp = memory, .ss_size = STACK}, old;
    if (sigaltstack(NULL, &old) == 0 && (old.ss_flags & SS_DISABLE))
        sigaltstack(&stack, NULL); /* or a sanitizer's own */
    before_rescue = first;
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < COUNT; i++) {
        sigaction(crashes[i], &action, &before[i]);
        if (before[i].sa_handler == SIG_IGN)
            sigaction(crashes[i], &before[i], NULL); /* the process would live on */
    }
}
