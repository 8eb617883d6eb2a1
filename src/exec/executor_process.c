/* executor_process.c - executors that are processes: this program anew, at the other end of a
 * socket.
 *
 * Never a fork that goes on: this process has threads and ZeroMQ sockets. The child closes whatever
 * it was born with but the socket, and ends when the socket does. Bytecode is taken from there and
 * from nowhere else, so the child looks who is at the other end. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "exec/executor_priv.h"

enum { CHILD_FD = 3 };

struct process {
    gr_executor base;
    uv_process_t process;
    uv_poll_t poll;
    int handles; /* that are not closed yet; it lives as long as they */
    int fd;
    int events; /* that are polled for */
    bool exited;
    bool eof;
    gr_frame_reader reader;
    gr_frame_line in;
    gr_frame_line out;
    size_t sent; /* bytes of the first one in out */
};

/* --- the host's end ---------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void look_out(struct process *self)
{
    int events = (self->eof ? 0 : UV_READABLE) | (self->out.first != NULL ? UV_WRITABLE : 0);
    if (events == self->events)
        return;
    self->events = events;
    if (events != 0)
        uv_poll_start(&self->poll, events, on_poll);
    else
        uv_poll_stop(&self->poll);
}

static void flush(struct process *self)
{
    while (self->out.first != NULL) {
        int rc = gr_frame_write(self->out.first, self->fd, false, &self->sent);
        if (rc == GR_EAGAIN)
            return;
        if (rc < 0) { /* its end will be told */
            gr_frame_line_clear(&self->out);
            return;
        }
        gr_frame *frame = gr_frame_line_pop(&self->out);
        gr_frame_destroy(&frame);
        self->sent = 0;
    }
}

/* Returns true when something has come. */
static bool pump(struct process *self)
{
    bool any = false;
    gr_frame *frame;
    int rc = self->eof ? GR_ECLOSED : 0;
    while (rc == 0 && (rc = gr_frame_read(&self->reader, self->fd, false, &frame)) == 0) {
        gr_frame_line_push(&self->in, &frame);
        any = true;
    }
    if (rc != GR_EAGAIN && !self->eof) {
        self->eof = true;
        if (rc != GR_ECLOSED)
            gr_log(GR_LOG_ERROR, "gaterpc.executor", "process %d says what cannot be understood",
                   self->base.pid);
        if (!self->exited) /* whatever is left of it is of no use */
            uv_process_kill(&self->process, SIGKILL);
    }
    return any;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct process *self = poll->data;
    if (self->base.ended)
        return;
    if (events & UV_WRITABLE)
        flush(self);
    bool any = (status < 0 || events & UV_READABLE) && pump(self);
    look_out(self);
    if (any)
        gr_executor_tell(&self->base);
}

static void end(struct process *self)
{
    self->exited = true; /* its number may be another one's by now */
    while (pump(self))   /* what it said last */
        continue;
    uv_poll_stop(&self->poll);
}

static void on_exit_of_child(uv_process_t *handle, int64_t code, int signal)
{
    struct process *self = handle->data;
    if (self->exited)
        return;
    self->base.end = (gr_executor_end){.exit_code = (int)code, .signal = signal};
    end(self);
    gr_executor_ended(&self->base);
}

static int send_frame(gr_executor *base, gr_frame **frame)
{
    struct process *self = (struct process *)base;
    if (self->eof)
        return GR_ECLOSED;
    gr_frame_line_push(&self->out, frame);
    flush(self);
    look_out(self);
    return 0;
}

static gr_frame *next_frame(gr_executor *base)
{
    return gr_frame_line_pop(&((struct process *)base)->in);
}

static void kill_process(gr_executor *base)
{
    uv_process_kill(&((struct process *)base)->process, SIGKILL);
}

static bool reap(gr_executor *base)
{
    struct process *self = (struct process *)base;
    int status;
    pid_t pid = waitpid(base->pid, &status, WNOHANG);
    if (pid == 0 || (pid < 0 && errno == EINTR))
        return false;
    if (pid > 0)
        base->end = (gr_executor_end){
            .exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0,
            .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
        };
    end(self);
    return true;
}

static void on_closed(uv_handle_t *handle)
{
    struct process *self = handle->data;
    if (--self->handles > 0)
        return;
    gr_frame_reader_clear(&self->reader);
    gr_frame_line_clear(&self->in);
    gr_frame_line_clear(&self->out);
    free(self);
}

static void free_process(gr_executor *base)
{
    struct process *self = (struct process *)base;
    uv_close((uv_handle_t *)&self->process, on_closed);
    uv_close((uv_handle_t *)&self->poll, on_closed);
    close(self->fd);
}

static const gr_executor_ops ops = {
    .send = send_frame,
    .next = next_frame,
    .kill = kill_process,
    .reap = reap,
    .free = free_process,
};

/* A standard stream of this process for the child, if there is one. */
static uv_stdio_container_t stdio(int fd)
{
    if (fcntl(fd, F_GETFD) < 0)
        return (uv_stdio_container_t){.flags = UV_IGNORE};
    return (uv_stdio_container_t){.flags = UV_INHERIT_FD, .data.fd = fd};
}

static int spawn(struct process *self, uv_loop_t *loop, int child_fd)
{
    char *args[] = {"gaterpc-host", "--executor", NULL};
    uv_stdio_container_t streams[] = {
        {.flags = UV_IGNORE}, /* /dev/null */
        stdio(STDOUT_FILENO),
        stdio(STDERR_FILENO),
        [CHILD_FD] = {.flags = UV_INHERIT_FD, .data.fd = child_fd},
    };
    uv_process_options_t options = {
        .exit_cb = on_exit_of_child,
        .file = "/proc/self/exe",
        .args = args,
        .stdio_count = sizeof(streams) / sizeof(streams[0]),
        .stdio = streams,
    };
    self->handles = 1; /* whether it starts or not */
    int failed = uv_spawn(loop, &self->process, &options);
    self->process.data = self;
    if (failed)
        return gr_err_of_errno(-failed);
    self->base.pid = self->process.pid;
    uv_unref((uv_handle_t *)&self->process);
    return 0;
}

int gr_executor_new_process(gr_executor **out, const gr_executor_options *options)
{
    int fds[2];
    struct process *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
        free(self);
        return gr_err_of_errno(errno);
    }
    self->fd = fds[0];
    int rc = spawn(self, options->loop, fds[1]);
    close(fds[1]);
    if (rc == 0 && uv_poll_init(options->loop, &self->poll, self->fd) != 0) {
        uv_process_kill(&self->process, SIGKILL);
        rc = GR_EEXHAUSTED;
    }
    if (rc < 0) {
        close(self->fd);
        uv_close((uv_handle_t *)&self->process, on_closed);
        return rc;
    }
    self->handles = 2;
    self->poll.data = self;
    uv_unref((uv_handle_t *)&self->poll);
    look_out(self);
    gr_executor_init(&self->base, &ops, options);
    *out = &self->base;
    return 0;
}

/* --- the child's end --------------------------------------------------------------------- */

static int put(void *arg, gr_frame **frame)
{
    size_t sent = 0;
    (void)arg;
    int rc = gr_frame_write(*frame, CHILD_FD, true, &sent);
    if (rc == 0)
        gr_frame_destroy(frame);
    return rc;
}

/* Brings what the host says. When the host is gone, the code has a moment to stop. */
static void *feed(void *arg)
{
    enum { PAUSE_MS = 50, PATIENCE_MS = 1000 };
    gr_port *port = arg;
    gr_frame_reader *reader = calloc(1, sizeof(*reader));
    gr_frame *frame;
    while (reader != NULL && gr_frame_read(reader, CHILD_FD, true, &frame) == 0)
        gr_port_deliver(port, &frame);
    for (int waited_ms = 0; waited_ms < PATIENCE_MS; waited_ms += PAUSE_MS) {
        gr_port_close(port);
        uv_sleep(PAUSE_MS);
    }
    _exit(EXIT_FAILURE);
}

static void nothing(int number)
{
    (void)number;
}

/* Ctrl-C reaches all processes of a terminal, and a service manager ends them all: but what the
 * host has begun is to be finished while it drains, and it ends the child in time. Handlers are
 * forgotten by programs that the child starts; ignored signals would not be. */
static void leave_signals_to_host(void)
{
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static bool is_child_of_host(void)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    return getsockopt(CHILD_FD, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
           peer.uid == geteuid() && peer.pid == getppid();
}

int gr_executor_serve(gr_executor_code *code)
{
    if (!is_child_of_host()) {
        fprintf(stderr, "gaterpc-host: --executor is for processes that gaterpc-host starts\n");
        return 2;
    }
    fcntl(CHILD_FD, F_SETFD, FD_CLOEXEC);
    close_range(CHILD_FD + 1, ~0U, 0);
    leave_signals_to_host();
    setvbuf(stdout, NULL, _IOLBF, 0); /* it may be killed at any time */
    gr_port *port;
    pthread_t feeder;
    if (gr_port_new(&port, put, NULL) < 0)
        return EXIT_FAILURE;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&feeder, NULL, feed, port);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return EXIT_FAILURE;
    pthread_setname_np(pthread_self(), GR_EXECUTOR_NAME);
    code(port);
    return EXIT_SUCCESS; /* the feeder ends with the process; the socket stays open as long */
}
