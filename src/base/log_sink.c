#include "base/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    OUT = GR_LOG_LINE + (96 << 10),
    NOTICE = 512,      /* bytes of a formatted notice */
    RETRY_MS = 1000,   /* after a failure */
    ROTATE_MS = 60000, /* after a rotation that failed */
    PIECE = 4096,      /* what a pipe takes without blocking when it says it is ready */
    SUFFIX = 8         /* ".1000", ".new" */
};

/* --- opening ----------------------------------------------------------------------------- */

/* A pipe that nobody reads fails with ENXIO and does not wait. Returns the descriptor or -errno. */
static int open_file(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags,
                  0640);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

/* Looks at what the descriptor is. A file is of the day on which it got its last line. */
static void look_at(gr_log_sink *self)
{
    struct stat info;
    self->regular = fstat(self->fd, &info) == 0 && S_ISREG(info.st_mode);
    self->size = self->regular ? (uint64_t)info.st_size : 0;
    self->rotate_at = self->size > 0 ? gr_log_next_midnight((int64_t)info.st_mtime) : 0;
}

static bool wants_colour(const gr_log_output *output, int fd)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    if (output->colour != GR_LOG_COLOUR_AUTO)
        return output->colour == GR_LOG_COLOUR_ON;
    if (no_color != NULL && no_color[0] != '\0')
        return false;
    return isatty(fd) && (term == NULL || strcmp(term, "dumb") != 0);
}

/* A copy that means the same wherever the process goes. */
static char *absolute(const char *path)
{
    char *copy = NULL, *here = path[0] == '/' ? NULL : getcwd(NULL, 0);
    if (here == NULL)
        return strdup(path);
    if (asprintf(&copy, "%s/%s", here, path) < 0)
        copy = NULL;
    free(here);
    return copy;
}

int gr_log_sink_new(gr_log_sink **out, const gr_log_output *output, int console_fd)
{
    int rc = -ENOMEM;
    gr_log_sink *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return rc;
    self->fd = -1;
    self->level = output->level;
    self->json = output->json;
    if ((self->out = malloc(OUT)) == NULL)
        goto fail;
    if (output->path == NULL) {
        self->fd = console_fd;
        self->colour = wants_colour(output, console_fd);
    } else {
        self->midnight = output->midnight;
        self->rotate_bytes = output->rotate_bytes;
        self->keep = output->keep > 0 ? output->keep : 7;
        self->path = absolute(output->path);
        if (self->path != NULL)
            self->names = malloc(2 * (strlen(self->path) + SUFFIX));
        if (self->path == NULL || self->names == NULL)
            goto fail;
        rc = self->fd = open_file(self->path, 0);
        if (rc < 0)
            goto fail;
    }
    look_at(self);
    *out = self;
    return 0;
fail:
    gr_log_sink_destroy(&self);
    return rc;
}

void gr_log_sink_destroy(gr_log_sink **sink)
{
    gr_log_sink *self = *sink;
    if (self == NULL)
        return;
    if (self->path != NULL && self->fd >= 0)
        close(self->fd);
    free(self->path);
    free(self->names);
    free(self->out);
    free(self);
    *sink = NULL;
}

static bool is_same_file(int a, int b)
{
    struct stat one, two;
    return fstat(a, &one) == 0 && fstat(b, &two) == 0 && one.st_dev == two.st_dev &&
           one.st_ino == two.st_ino;
}

/* Puts another descriptor in place. A line that was written in part is written again from its
 * start, when it goes to another file. */
static void replace_fd(gr_log_sink *self, int fd)
{
    if (self->fd < 0 || !is_same_file(self->fd, fd))
        while (self->done > 0 && self->out[self->done - 1] != '\n')
            self->done--;
    if (self->path != NULL && self->fd >= 0)
        close(self->fd);
    self->fd = fd;
    look_at(self);
    if (self->state == GR_SINK_BLOCKED)
        self->state = GR_SINK_GOOD;
    self->retry_ms = 0;
}

static void tell(gr_log_sink *self, int event, int error)
{
    self->event = event;
    self->error = error;
}

void gr_log_sink_reopen(gr_log_sink *self)
{
    if (self->path == NULL)
        return;
    int fd = open_file(self->path, 0);
    if (fd < 0)
        tell(self, GR_SINK_NOT_REOPENED, -fd);
    else
        replace_fd(self, fd);
}

void gr_log_sink_set_fd(gr_log_sink *self, int fd)
{
    replace_fd(self, fd);
}

void gr_log_sink_lose(gr_log_sink *self, uint64_t count)
{
    self->lost += count;
    atomic_fetch_add_explicit(&self->lost_total, count, memory_order_relaxed);
}

/* --- rotation ---------------------------------------------------------------------------- */

static char *name_of(gr_log_sink *self, int which, const char *suffix, unsigned number)
{
    size_t size = strlen(self->path) + SUFFIX;
    char *name = self->names + (size_t)which * size;
    if (suffix != NULL)
        snprintf(name, size, "%s%s", self->path, suffix);
    else
        snprintf(name, size, "%s.%u", self->path, number);
    return name;
}

/* The new file is made first, under another name: when that fails nothing has happened. */
static int rotate(gr_log_sink *self)
{
    int fd = open_file(name_of(self, 0, ".new", 0), O_TRUNC);
    if (fd < 0)
        return fd;
    int rc = 0;
    for (unsigned i = self->keep; i > 1 && rc == 0; i--)
        if (rename(name_of(self, 0, NULL, i - 1), name_of(self, 1, NULL, i)) != 0 &&
            errno != ENOENT)
            rc = -errno;
    if (rc == 0 && rename(self->path, name_of(self, 1, NULL, 1)) != 0 && errno != ENOENT)
        rc = -errno;
    if (rc == 0 && rename(name_of(self, 0, ".new", 0), self->path) != 0)
        rc = -errno;
    if (rc < 0) {
        unlink(name_of(self, 0, ".new", 0));
        close(fd);
        return rc;
    }
    replace_fd(self, fd);
    return 0;
}

/* When that fails the old file goes on. */
static void try_rotation(gr_log_sink *self, int64_t now_ms)
{
    int rc = rotate(self);
    if (rc < 0) {
        tell(self, GR_SINK_NOT_ROTATED, -rc);
        self->no_rotate_ms = now_ms + ROTATE_MS;
    }
}

/* Whether the file must be another one before it gets `more` bytes of a line from that second. */
static bool is_rotation_due(gr_log_sink *self, int64_t sec, size_t more, int64_t now_ms)
{
    uint64_t size = self->size + (self->len - self->done);
    if (!self->regular || size == 0 || now_ms < self->no_rotate_ms)
        return false;
    if (self->midnight && self->rotate_at > 0 && sec >= self->rotate_at)
        return true;
    return self->rotate_bytes > 0 && size + more > self->rotate_bytes;
}

/* --- lines ------------------------------------------------------------------------------- */

static size_t format(const gr_log_sink *self, const gr_log_line *line, gr_log_zone *zone, char *out)
{
    return self->json ? gr_log_format_json(line, zone, out)
                      : gr_log_format_text(line, self->colour, zone, out);
}

static size_t format_notice(const gr_log_sink *self, const gr_log_line *before, gr_log_zone *zone,
                            char *out)
{
    char text[100];
    int len = snprintf(text, sizeof(text), "%llu lines were lost: this output did not take them",
                       (unsigned long long)self->lost);
    gr_log_line line = {
        .sec = before->sec,
        .nsec = before->nsec,
        .level = GR_LOG_WARNING,
        .name = gr_slice_str("gaterpc.log"),
        .text = gr_slice_of(text, (size_t)len),
    };
    return format(self, &line, zone, out);
}

bool gr_log_sink_put(gr_log_sink *self, const gr_log_line *line, gr_log_zone *zone, int64_t now_ms)
{
    if (line->level < self->level)
        return true;
    size_t most = NOTICE + 6 * (line->name.len + line->text.len + line->fields.len) + 512;
    if (OUT - self->len < most)
        return false;

    char *at = self->out + self->len;
    size_t len = self->lost > 0 ? format_notice(self, line, zone, at) : 0;
    len += format(self, line, zone, at + len);
    if (is_rotation_due(self, line->sec, len, now_ms)) {
        if (!gr_log_sink_is_empty(self))
            return false; /* and formatted again afterwards */
        memmove(self->out, at, len);
        self->len = self->done = 0;
        try_rotation(self, now_ms);
    }
    if (self->midnight && self->rotate_at == 0)
        self->rotate_at = gr_log_next_midnight(line->sec);
    self->len += len;
    self->lost = 0;
    atomic_fetch_add_explicit(&self->lines, 1, memory_order_relaxed);
    return true;
}

/* --- writing ----------------------------------------------------------------------------- */

/* How much of it is whole lines, of at most PIECE bytes; a longer line is cut. */
static size_t piece_of(const char *data, size_t len)
{
    if (len <= PIECE)
        return len;
    const char *end = memrchr(data, '\n', PIECE);
    return end != NULL ? (size_t)(end + 1 - data) : PIECE;
}

/* One write, which does not wait: a console that is a pipe or a terminal blocks, but not when it is
 * ready and gets little. Returns the number of bytes or -errno. */
static ssize_t write_some(gr_log_sink *self)
{
    const char *data = self->out + self->done;
    size_t len = self->len - self->done;
    if (!self->regular) {
        struct pollfd ready = {.fd = self->fd, .events = POLLOUT};
        if (self->fd >= 0 && poll(&ready, 1, 0) == 0)
            return -EAGAIN;
        if (self->path == NULL)
            len = piece_of(data, len);
    }
    ssize_t n = write(self->fd, data, len);
    return n > 0 ? n : n == 0 ? -EIO : -errno;
}

static void fail(gr_log_sink *self, int error, int64_t now_ms)
{
    tell(self, GR_SINK_FAILED, error);
    self->state = GR_SINK_FAILING;
    self->retry_ms = now_ms + RETRY_MS;
    atomic_store_explicit(&self->trouble, error, memory_order_relaxed);
}

/* With another descriptor it may be right: a disk came back, a pipe has a reader again. */
static bool retry(gr_log_sink *self, int64_t now_ms)
{
    if (now_ms < self->retry_ms)
        return false;
    if (self->path == NULL)
        return true;
    int fd = open_file(self->path, 0);
    if (fd < 0)
        fail(self, -fd, now_ms);
    else
        replace_fd(self, fd);
    return fd >= 0;
}

bool gr_log_sink_write(gr_log_sink *self, int64_t now_ms)
{
    if (self->state == GR_SINK_FAILING && !retry(self, now_ms))
        return gr_log_sink_is_empty(self);
    while (!gr_log_sink_is_empty(self)) {
        ssize_t n = write_some(self);
        if (n > 0) {
            self->done += (size_t)n;
            self->size += (uint64_t)n;
        } else if (n == -EAGAIN) {
            self->state = GR_SINK_BLOCKED;
            return false;
        } else if (n != -EINTR) {
            fail(self, (int)-n, now_ms);
            return false;
        }
    }
    if (self->state == GR_SINK_FAILING) {
        tell(self, GR_SINK_RECOVERED, 0);
        atomic_store_explicit(&self->trouble, 0, memory_order_relaxed);
    }
    self->state = GR_SINK_GOOD;
    self->len = self->done = 0;
    return true;
}

/* --- the end in a hurry ------------------------------------------------------------------ */

static bool write_now(gr_log_sink *self)
{
    int patience = 5;
    while (!gr_log_sink_is_empty(self)) {
        ssize_t n = write_some(self);
        struct pollfd ready = {.fd = self->fd, .events = POLLOUT};
        if (n > 0)
            self->done += (size_t)n;
        else if (n == -EAGAIN && patience-- > 0)
            poll(&ready, 1, 50);
        else if (n != -EINTR)
            return false;
    }
    self->len = self->done = 0;
    return true;
}

static bool put_now(gr_log_sink *self, const gr_log_line *line, gr_log_zone *zone)
{
    return gr_log_sink_put(self, line, zone, 0) ||
           (write_now(self) && gr_log_sink_put(self, line, zone, 0));
}

void gr_log_sink_rescue(gr_log_sink *self, const gr_log_ring *ring, uint64_t tail,
                        const gr_log_line *last, gr_log_zone *zone)
{
    gr_log_line line;
    self->midnight = false;
    self->rotate_bytes = 0;
    self->lost = 0;
    while (gr_log_ring_read(ring, &self->at, tail, &line))
        if (!put_now(self, &line, zone))
            return;
    if (last == NULL || put_now(self, last, zone))
        write_now(self);
}
