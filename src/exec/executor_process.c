/* executor_process.c - executors that are processes: this program anew, at the other end of a
 * socket.
 *
 * Never a fork that goes on: this process has threads and ZeroMQ sockets. The child closes whatever
 * it was born with but the socket, and ends when the socket does. Bytecode is taken from there and
 * from nowhere else, so the child looks who is at the other end. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/log.h"
#include "base/thread.h"
#include "exec/executor_priv.h"

enum { CHILD_FD = 3, LINES = 1024 /* of the log, before others have their turn */ };

struct process {
    gr_executor base;
    uv_process_t process;
    uv_poll_t poll;
    int handles; /* that are not closed yet; it lives as long as they */
    int fd;
    int events; /* that are polled for */
    bool exited;
    bool eof;
    bool more; /* is there, and was left for the next turn */
    gr_frame_reader reader;
    gr_frame_line in;
    gr_frame_line out;
    size_t sent; /* bytes of the first one in out */
};

/* --- the host's end ---------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events);

static void look_out(struct process *self)
{
    bool soon =
        self->out.first != NULL || self->more; /* a socket can be written to nearly always */
    int events = (self->eof ? 0 : UV_READABLE) | (soon ? UV_WRITABLE : 0);
    if (events == self->events)
        return;
    self->events = events;
    if (events != 0)
        uv_poll_start(&self->poll, events, on_poll);
    else
        uv_poll_stop(&self->poll);
}

/* The loop hears of its end. */
static void put_an_end(struct process *self)
{
    if (!self->exited) /* else the number may be another one's */
        uv_process_kill(&self->process, SIGKILL);
}

static void flush(struct process *self)
{
    while (self->out.first != NULL) {
        int rc = gr_frame_write(self->out.first, self->fd, false, &self->sent);
        if (rc == GR_EAGAIN)
            return;
        if (rc < 0) { /* it has gone, or would wait for what never comes */
            gr_frame_line_clear(&self->out);
            self->sent = 0;
            put_an_end(self);
            return;
        }
        gr_frame *frame = gr_frame_line_pop(&self->out);
        gr_frame_destroy(&frame);
        self->sent = 0;
    }
}

static bool is_logger_name(const uint8_t *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] >= 0x7f)
            return false;
    return len > 0;
}

/* A line of the process for our own log, which takes it or not, but does not wait. */
static void pass_on(const gr_frame *frame)
{
    const gr_frame_head *head = &frame->head;
    gr_slice name = gr_slice_of(frame->body, head->b);
    gr_slice text = gr_slice_of(frame->body + head->b, head->c);
    size_t rest = head->len - head->b - head->c;
    gr_log_fields fields;
    gr_log_fields_init(&fields);
    gr_log_add_packed(&fields, gr_slice_of(frame->body + head->b + head->c, rest));
    if (!is_logger_name(name.data, name.len))
        name = gr_slice_str("gaterpc.executor");
    gr_log_bytes(head->a < GR_LOG_OFF ? (int)head->a : GR_LOG_ERROR, (const char *)name.data,
                 name.len, (const char *)text.data, text.len, &fields);
}

/* Returns true when something has come. */
static bool pump(struct process *self)
{
    bool any = false;
    gr_frame *frame;
    int lines = 0, rc = self->eof ? GR_ECLOSED : 0;
    self->reader.emptied = false; /* that was at the end of the last turn */
    while (rc == 0 && lines < LINES &&
           (rc = gr_frame_read(&self->reader, self->fd, false, &frame)) == 0) {
        if (frame->head.type == GR_FRAME_LOG) {
            lines++;
            pass_on(frame);
            gr_frame_destroy(&frame);
            continue;
        }
        gr_frame_line_push(&self->in, &frame);
        any = true;
    }
    self->more = rc == 0;
    if (rc < 0 && rc != GR_EAGAIN && !self->eof) {
        self->eof = true;
        if (rc != GR_ECLOSED)
            gr_log(GR_LOG_ERROR, "gaterpc.executor", "process %d says what cannot be understood",
                   self->base.pid);
        put_an_end(self); /* whatever is left of it is of no use */
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
    bool any = (status < 0 || events & UV_READABLE || self->more) && pump(self);
    look_out(self);
    if (any)
        gr_executor_tell(&self->base);
}

static void end(struct process *self)
{
    self->exited = true;
    do /* what it said last */
        pump(self);
    while (self->more);
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
    put_an_end((struct process *)base);
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
        put_an_end(self);
        waitpid(self->base.pid, NULL, 0); /* its handle goes, too: nobody else would */
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

static struct {
    pthread_mutex_t mutex; /* frames are whole; guards what follows */
    bool stuck;            /* the host does not read */
    unsigned long long lost;
} host = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int write_frame(gr_frame **frame) /* under the mutex */
{
    size_t sent = 0;
    int rc = gr_frame_write(*frame, CHILD_FD, true, &sent);
    if (rc == 0)
        gr_frame_destroy(frame);
    return rc;
}

static int put(void *arg, gr_frame **frame)
{
    (void)arg;
    pthread_mutex_lock(&host.mutex);
    int rc = write_frame(frame);
    pthread_mutex_unlock(&host.mutex);
    return rc;
}

static bool write_line(int level, gr_slice name, gr_slice text, gr_slice fields)
{
    gr_frame *frame;
    if (gr_frame_new(&frame, GR_FRAME_LOG, 0, name.len + text.len + fields.len) < 0)
        return false;
    frame->head.a = (uint32_t)level;
    frame->head.b = (uint32_t)name.len;
    frame->head.c = (uint32_t)text.len;
    gr_slice parts[] = {name, text, fields};
    uint8_t *at = frame->body;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (parts[i].len > 0)
            memcpy(at, parts[i].data, parts[i].len);
        at += parts[i].len;
    }
    int rc = write_frame(&frame);
    gr_frame_destroy(&frame);
    return rc == 0;
}

/* A socket that poll() calls writable has room for the longest line. One that has not for so long
 * is not waited for again before it has. */
static bool has_room(void)
{
    enum { PATIENCE_MS = 1000 };
    struct pollfd poller = {.fd = CHILD_FD, .events = POLLOUT};
    int64_t until_ms = gr_clock_ms() + (host.stuck ? 0 : PATIENCE_MS);
    int ready, left_ms;
    do {
        left_ms = (int)(until_ms - gr_clock_ms());
        ready = poll(&poller, 1, left_ms > 0 ? left_ms : 0);
    } while (ready < 0 && errno == EINTR && left_ms > 0);
    host.stuck = ready <= 0;
    return ready > 0;
}

static bool tell_lost(void)
{
    char text[100];
    int len =
        snprintf(text, sizeof(text), "process %d: %llu lines were lost: the host did not read",
                 (int)getpid(), host.lost);
    host.lost = 0;
    return write_line(GR_LOG_WARNING, gr_slice_str("gaterpc.log"), gr_slice_of(text, (size_t)len),
                      gr_slice_of(NULL, 0));
}

/* The host's log is the log. */
static bool put_line(int level, gr_slice name, gr_slice text, gr_slice fields)
{
    bool taken = true;
    pthread_mutex_lock(&host.mutex);
    if (!has_room())
        host.lost++;
    else
        taken = (host.lost == 0 || tell_lost()) && write_line(level, name, text, fields);
    pthread_mutex_unlock(&host.mutex);
    return taken;
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
    gr_log_set_outlet(put_line);
    gr_port *port;
    pthread_t feeder;
    if (gr_port_new(&port, put, NULL) < 0)
        return EXIT_FAILURE;
    if (gr_thread_start(&feeder, feed, port) < 0)
        return EXIT_FAILURE;
    pthread_setname_np(pthread_self(), GR_EXECUTOR_NAME);
    code(port);
    return EXIT_SUCCESS; /* the feeder ends with the process; the socket stays open as long */
}
