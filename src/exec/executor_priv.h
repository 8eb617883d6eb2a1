/* executor_priv.h - what the two kinds of executors share; nobody else includes it. */
#ifndef GR_EXECUTOR_PRIV_H
#define GR_EXECUTOR_PRIV_H

#include "exec/executor.h"

/* What ps and top show. */
#define GR_EXECUTOR_NAME "gr-executor"

typedef struct gr_executor_ops {
    int (*send)(gr_executor *self, gr_frame **frame);
    gr_frame *(*next)(gr_executor *self);
    void (*kill)(gr_executor *self);
    /* Looks whether it has ended, without the loop, and takes leave of it if so. */
    bool (*reap)(gr_executor *self);
    /* It has ended, or is left behind: closes its handles and frees it when they are closed. */
    void (*free)(gr_executor *self);
} gr_executor_ops;

struct gr_executor {
    const gr_executor_ops *ops;
    gr_executor *prev, *next; /* in the crew */
    gr_crew *crew;
    uv_loop_t *loop;
    gr_executor_ready_fn *ready;
    void *arg;
    bool forgotten; /* by its owner: frees itself when it has ended */
    bool ended;
    bool left; /* behind, by gr_crew_end() */
    gr_executor_end end;
    int pid;
};

/* Fills the common part and joins the crew. */
void gr_executor_init(gr_executor *self, const gr_executor_ops *ops,
                      const gr_executor_options *options);

/* To be said by its backend, once: it has ended and its frames are all here. */
void gr_executor_ended(gr_executor *self);

/* To be said by its backend: there are frames. */
void gr_executor_tell(gr_executor *self);

#endif
