#include "exec/executor.h"

#include <utlist.h>

#include "base/clock.h"
#include "base/err.h"
#include "exec/executor_priv.h"

void gr_executor_init(gr_executor *self, const gr_executor_ops *ops,
                      const gr_executor_options *options)
{
    self->ops = ops;
    self->crew = options->crew;
    self->loop = options->loop;
    self->ready = options->ready;
    self->arg = options->arg;
    DL_APPEND(self->crew->members, self);
}

static void part(gr_executor *self)
{
    DL_DELETE(self->crew->members, self);
    self->ops->free(self);
}

void gr_executor_ended(gr_executor *self)
{
    self->ended = true;
    if (self->forgotten)
        part(self);
    else
        self->ready(self->arg, self);
}

void gr_executor_tell(gr_executor *self)
{
    if (!self->forgotten)
        self->ready(self->arg, self);
}

void gr_executor_destroy(gr_executor **executor)
{
    gr_executor *self = *executor;
    gr_frame *quit;
    *executor = NULL;
    if (self == NULL)
        return;
    self->forgotten = true;
    if (self->ended || self->left)
        part(self);
    else if (gr_frame_new(&quit, GR_FRAME_QUIT, 0, 0) < 0)
        self->ops->kill(self);
    else if (self->ops->send(self, &quit) < 0)
        gr_frame_destroy(&quit);
}

int gr_executor_send(gr_executor *self, gr_frame **frame)
{
    return self->ended || self->left ? GR_ECLOSED : self->ops->send(self, frame);
}

gr_frame *gr_executor_next(gr_executor *self)
{
    return self->ops->next(self);
}

void gr_executor_kill(gr_executor *self)
{
    if (!self->ended && !self->left)
        self->ops->kill(self);
}

bool gr_executor_has_ended(const gr_executor *self, gr_executor_end *out)
{
    *out = self->end;
    return self->ended;
}

int gr_executor_pid(const gr_executor *self)
{
    return self->pid;
}

/* True when all have ended. */
static bool reap_all(gr_crew *self)
{
    bool all = true;
    gr_executor *member;
    DL_FOREACH (self->members, member) {
        if (!member->ended)
            member->ended = member->ops->reap(member);
        all = all && member->ended;
    }
    return all;
}

static void kill_all(gr_crew *self)
{
    gr_executor *member;
    DL_FOREACH (self->members, member) {
        if (!member->ended)
            member->ops->kill(member);
    }
}

unsigned gr_crew_end(gr_crew *self, int64_t limit_ms)
{
    enum { PAUSE_MS = 10 };
    unsigned left = 0;
    int64_t until_ms = gr_clock_ms() + limit_ms;
    gr_executor *member, *next;
    kill_all(self);
    while (!reap_all(self) && gr_clock_ms() < until_ms) {
        uv_sleep(PAUSE_MS);
        kill_all(self); /* code may catch the error that interrupts it, once or twice */
    }
    DL_FOREACH_SAFE (self->members, member, next) {
        if (!member->ended) {
            member->left = true;
            left++;
        }
        if (member->forgotten)
            part(member);
    }
    return left;
}
