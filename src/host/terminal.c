#include "host/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include "base/err.h"
#include "base/log.h"
#include "host/history.h"
#include "host/keys.h"

enum {
    END_OF_INPUT = 0x04, /* what libedit gives for Ctrl-D on an empty line */
    TYPED = 4096
};

/* Prompts may contain parts without width between two of these, see EL_PROMPT_ESC. */
static const char literal = '\1';

struct gr_terminal {
    gr_terminal_line *line;
    void *arg;
    EditLine *el;
    gr_history *history;
    FILE *screen; /* a descriptor of its own, so that nobody closes or buffers it for us */
    char *prompt;
    bool editing; /* a line is read */
    bool hidden;  /* and is not on the screen at the moment */
    bool partial; /* the last output did not end its line */

    char typed[TYPED]; /* read and not given to libedit yet */
    size_t typed_len;
    size_t key_at, key_len; /* the key at the start of `typed` that libedit gets now */

    int log_fd;      /* where the log writes: the other end of log_pipe while editing */
    int log_pipe[2]; /* -1 when the log does not go to the terminal */

    uv_poll_t input, log;
    uv_idle_t again; /* something is left for the next turn */
    uv_signal_t resized, suspended, continued;
    int handles; /* that are not closed yet */
};

/* For gr_terminal_restore(): the modes before a line is read. */
static struct termios modes;
static volatile sig_atomic_t modes_changed;
static gr_terminal *the_terminal;

/* --- keys -------------------------------------------------------------------------------- */

/* libedit reads a character. When it wants more than the key has, it gets the end of input, and the
 * command is given up. */
static int next_character(EditLine *el, wchar_t *out)
{
    gr_terminal *self;
    el_get(el, EL_CLIENTDATA, &self);
    if (self->key_at >= self->key_len)
        return 0;
    mbstate_t state = {0};
    size_t n = mbrtowc(out, self->typed + self->key_at, self->key_len - self->key_at, &state);
    if (n == (size_t)-1 || n == (size_t)-2) {
        *out = L'?';
        n = 1;
    }
    self->key_at += n > 0 ? n : 1;
    return 1;
}

/* --- the screen -------------------------------------------------------------------------- */

static char *prompt_of(EditLine *el)
{
    gr_terminal *self;
    el_get(el, EL_CLIENTDATA, &self);
    return self->prompt;
}

static int columns_of(const gr_terminal *self)
{
    struct winsize size;
    if (ioctl(fileno(self->screen), TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        return size.ws_col;
    return 80;
}

/* Where libedit's cursor is, counted from the start of the prompt. */
struct place {
    int row, column, columns;
};

static void advance(struct place *at, wchar_t c)
{
    int width = wcwidth(c);
    if (c == L'\t')
        width = 8 - at->column % 8;
    else if (c < 0x20 || c == 0x7f)
        width = 2; /* ^A */
    else if (width < 0)
        width = 7; /* \U+0085 */
    at->column += width;
    if (c == L'\n' || at->column == at->columns) {
        at->row++;
        at->column = 0;
    } else if (at->column > at->columns) {
        at->row++;
        at->column = width;
    }
}

static void advance_prompt(struct place *at, const char *prompt)
{
    mbstate_t state = {0};
    bool visible = true;
    size_t left = strlen(prompt);
    while (left > 0) {
        wchar_t c;
        size_t n = mbrtowc(&c, prompt, left, &state);
        if (n == 0 || n > left)
            return;
        if (c == (wchar_t)literal)
            visible = !visible;
        else if (visible)
            advance(at, c);
        prompt += n;
        left -= n;
    }
}

static int row_of_cursor(gr_terminal *self)
{
    struct place at = {.columns = columns_of(self)};
    const LineInfoW *line = el_wline(self->el);
    advance_prompt(&at, self->prompt);
    for (const wchar_t *c = line->buffer; c < line->cursor; c++)
        advance(&at, *c);
    return at.row;
}

/* Takes the line off the screen; the cursor is then where the prompt began. */
static void erase(gr_terminal *self)
{
    char *clear = NULL;
    el_get(self->el, EL_GETTC, "cd", &clear);
    if (clear == NULL || clear[0] == '\0') { /* a terminal that cannot: go on below */
        fputs("\n", self->screen);
    } else {
        int up = row_of_cursor(self);
        fputc('\r', self->screen);
        if (up > 0)
            fprintf(self->screen, "\033[%dA", up);
        fputs("\033[J", self->screen);
    }
    fflush(self->screen);
}

/* Goes to a line of its own. */
static void start_line(gr_terminal *self)
{
    fflush(stdout);
    if (self->partial)
        fputs("\n", self->screen);
    self->partial = false;
    fflush(self->screen);
}

static void on_again(uv_idle_t *again);

static void show(gr_terminal *self)
{
    if (!self->hidden)
        return;
    start_line(self);
    self->hidden = false;
    el_set(self->el, EL_REFRESH);
}

void gr_terminal_hide(gr_terminal *self, bool partial)
{
    if (self->editing && !self->hidden) {
        erase(self);
        self->hidden = true;
        uv_idle_start(&self->again, on_again);
    }
    self->partial = partial;
}

/* --- the log ----------------------------------------------------------------------------- */

/* Writes what the log has left in the pipe. */
static void pass_log_on(gr_terminal *self)
{
    char text[4096];
    ssize_t n;
    while (self->log_pipe[0] >= 0 && (n = read(self->log_pipe[0], text, sizeof(text))) > 0) {
        gr_terminal_hide(self, false);
        for (ssize_t done = 0, more; done < n; done += more) {
            more = write(STDERR_FILENO, text + done, (size_t)(n - done));
            if (more < 0)
                return; /* nothing is left to complain to */
        }
    }
}

static void on_log(uv_poll_t *log, int status, int events)
{
    (void)status;
    (void)events;
    pass_log_on(log->data);
}

/* The log's thread writes to log_fd at any time; what that is we change under its feet. */
static void divert_log(gr_terminal *self, int fd)
{
    if (self->log_pipe[0] >= 0)
        dup3(fd, self->log_fd, O_CLOEXEC);
}

/* Without this pipe all works as well, only that lines of the log disturb what is typed. The log
 * keeps log_fd for good: nobody knows when its thread has written to it for the last time. */
static void take_log(gr_terminal *self)
{
    static int own_fd = -1;
    if (!isatty(STDERR_FILENO) || pipe2(self->log_pipe, O_CLOEXEC | O_NONBLOCK) != 0)
        return;
    if (own_fd < 0)
        own_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    self->log_fd = own_fd;
    gr_log_set_console_fd(own_fd);
}

static void leave_log(gr_terminal *self)
{
    if (self->log_pipe[0] < 0)
        return;
    divert_log(self, STDERR_FILENO);
    pass_log_on(self);
    close(self->log_pipe[0]);
    close(self->log_pipe[1]);
    self->log_pipe[0] = -1;
}

/* --- reading a line ---------------------------------------------------------------------- */

static void on_input(uv_poll_t *input, int status, int events);
static void on_resized(uv_signal_t *handle, int number);
static void on_suspended(uv_signal_t *handle, int number);
static void on_continued(uv_signal_t *handle, int number);

static int set_prompt(gr_terminal *self, const char *prompt)
{
    char *copy = strdup(prompt);
    if (copy == NULL)
        return GR_ENOMEM;
    for (char *c = copy; *c != '\0'; c++) /* libedit knows but one mark for both sides */
        if (*c == '\2')
            *c = literal;
    free(self->prompt);
    self->prompt = copy;
    return 0;
}

static void start_editing(gr_terminal *self)
{
    modes_changed = tcgetattr(STDIN_FILENO, &modes) == 0;
    divert_log(self, self->log_pipe[1]);
    start_line(self);
    el_set(self->el, EL_UNBUFFERED, 1); /* raw mode, and the prompt */
    self->editing = true;
    self->hidden = false;
    uv_poll_start(&self->input, UV_READABLE, on_input);
    uv_signal_start(&self->resized, on_resized, SIGWINCH);
    uv_signal_start(&self->suspended, on_suspended, SIGTSTP);
    uv_signal_start(&self->continued, on_continued, SIGCONT);
    if (self->typed_len > 0)
        uv_idle_start(&self->again, on_again);
}

static void stop_editing(gr_terminal *self)
{
    uv_poll_stop(&self->input);
    uv_signal_stop(&self->resized);
    uv_signal_stop(&self->suspended);
    uv_signal_stop(&self->continued);
    uv_idle_stop(&self->again);
    el_set(self->el, EL_UNBUFFERED, 0);
    modes_changed = 0;
    self->editing = false;
    divert_log(self, STDERR_FILENO);
    pass_log_on(self);
}

static void end_of_input(gr_terminal *self)
{
    show(self);
    self->typed_len = 0;
    self->partial = true;
    stop_editing(self);
    start_line(self);
    self->line(self->arg, NULL, 0);
}

/* The line is complete, and libedit has left it. `text` ends with its newline. */
static void give(gr_terminal *self, const char *text, size_t len)
{
    char *copy = strndup(text, len - 1); /* libedit's is gone when the next line is read */
    stop_editing(self);
    self->line(self->arg, copy, copy != NULL ? strlen(copy) : 0);
    free(copy);
}

/* Lets libedit handle the first key. Returns false when that ended the line; *self may then be
 * gone. */
static bool press(gr_terminal *self, size_t key_len)
{
    int len = 0;
    const char *text = NULL;
    self->key_at = 0;
    self->key_len = key_len;
    if (gr_key_is_known(self->typed, key_len))
        text = el_gets(self->el, &len);
    self->typed_len -= key_len; /* with what libedit did not want of it */
    memmove(self->typed, self->typed + key_len, self->typed_len);
    if (text == NULL || len <= 0)
        return true;
    if (text[len - 1] == '\n' || text[len - 1] == '\r') {
        give(self, text, (size_t)len);
        return false;
    }
    if (len == 1 && text[0] == END_OF_INPUT) {
        end_of_input(self);
        return false;
    }
    return true;
}

/* A line at a time: what was typed ahead is left for its turn. */
static void work_off(gr_terminal *self)
{
    size_t len;
    show(self);
    while ((len = gr_key_length(self->typed, self->typed_len)) > 0)
        if (!press(self, len))
            return;
}

static void on_again(uv_idle_t *again)
{
    uv_idle_stop(again);
    work_off(again->data);
}

static void on_input(uv_poll_t *input, int status, int events)
{
    gr_terminal *self = input->data;
    struct pollfd ready = {.fd = STDIN_FILENO, .events = POLLIN};
    (void)events;
    if (status >= 0 && poll(&ready, 1, 0) == 0)
        return; /* somebody else was quicker */
    ssize_t n = read(STDIN_FILENO, self->typed + self->typed_len, TYPED - self->typed_len);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* the terminal is gone */
        end_of_input(self);
        return;
    }
    self->typed_len += (size_t)n;
    work_off(self);
}

int gr_terminal_read(gr_terminal *self, const char *prompt)
{
    if (self->editing)
        return 0;
    int rc = set_prompt(self, prompt);
    if (rc == 0)
        start_editing(self);
    return rc;
}

int gr_terminal_drop(gr_terminal *self, const char *prompt)
{
    if (!self->editing)
        return 0;
    if (!self->hidden)
        erase(self);
    self->hidden = true;
    const LineInfoW *line = el_wline(self->el);
    el_cursor(self->el, (int)(line->lastchar - line->cursor)); /* what follows is behind it */
    show(self);
    fputs("^C", self->screen);
    self->typed_len = 0;
    self->partial = true;
    el_set(self->el, EL_UNBUFFERED, 0);
    int rc = set_prompt(self, prompt);
    start_line(self);
    el_set(self->el, EL_UNBUFFERED, 1);
    return rc;
}

void gr_terminal_remember(gr_terminal *self, const char *line)
{
    gr_history_add(self->history, line);
}

/* --- signals ----------------------------------------------------------------------------- */

static void on_resized(uv_signal_t *handle, int number)
{
    gr_terminal *self = handle->data;
    (void)number;
    if (!self->hidden)
        erase(self);
    self->hidden = true;
    el_resize(self->el);
    show(self);
}

/* Ctrl-Z: the shell gets its terminal back. */
static void on_suspended(uv_signal_t *handle, int number)
{
    gr_terminal *self = handle->data;
    el_set(self->el, EL_PREP_TERM, 0);
    divert_log(self, STDERR_FILENO);
    uv_signal_stop(handle);
    raise(number);
    uv_signal_start(handle, on_suspended, number);
}

static void on_continued(uv_signal_t *handle, int number)
{
    gr_terminal *self = handle->data;
    (void)number;
    el_set(self->el, EL_PREP_TERM,
           0); /* whoever stopped us has changed them behind libedit's back */
    el_set(self->el, EL_PREP_TERM, 1);
    divert_log(self, self->log_pipe[1]);
    self->hidden = true;
    show(self);
}

/* os.exit(), say from a timer. */
static void at_exit(void)
{
    gr_terminal_restore();
}

void gr_terminal_restore(void)
{
    char text[4096];
    gr_terminal *self = the_terminal;
    ssize_t n;
    if (!modes_changed)
        return;
    modes_changed = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &modes);
    if (write(STDOUT_FILENO, "\n", 1) < 0) /* so that the shell's prompt is not behind ours */
        return;
    if (self == NULL || self->log_pipe[0] < 0)
        return;
    divert_log(self, STDERR_FILENO);
    while ((n = read(self->log_pipe[0], text, sizeof(text))) > 0)
        if (write(STDERR_FILENO, text, (size_t)n) < 0)
            return;
}

/* --- life -------------------------------------------------------------------------------- */

static int open_editor(gr_terminal *self)
{
    int fd = isatty(STDOUT_FILENO) ? STDOUT_FILENO : STDERR_FILENO;
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    self->screen = own < 0 ? NULL : fdopen(own, "w");
    if (self->screen == NULL)
        return GR_ESYSTEM;
    self->el = el_init("gaterpc-host", stdin, self->screen, stderr);
    if (self->el == NULL)
        return GR_ESYSTEM;
    el_set(self->el, EL_CLIENTDATA, self);
    el_set(self->el, EL_GETCFN, next_character);
    el_set(self->el, EL_PROMPT_ESC, prompt_of, literal);
    el_set(self->el, EL_EDITOR, "emacs");
    el_set(self->el, EL_SIGNAL, 0); /* signals are the host's */
    el_set(self->el, EL_HIST, history, gr_history_list(self->history));
    gr_keys_bind(self->el);
    return 0;
}

static int open_handles(gr_terminal *self, uv_loop_t *loop)
{
    int flags = fcntl(STDIN_FILENO, F_GETFL);
    if (uv_poll_init(loop, &self->input, STDIN_FILENO) != 0)
        return GR_ESYSTEM;
    fcntl(STDIN_FILENO, F_SETFL, flags); /* libuv made it non-blocking, for its other users, too */
    self->handles++;
    uv_idle_init(loop, &self->again);
    uv_signal_init(loop, &self->resized);
    uv_signal_init(loop, &self->suspended);
    uv_signal_init(loop, &self->continued);
    self->handles += 4;
    self->input.data = self->again.data = self;
    self->resized.data = self->suspended.data = self->continued.data = self;
    uv_unref((uv_handle_t *)&self->again);
    uv_unref((uv_handle_t *)&self->resized);
    uv_unref((uv_handle_t *)&self->suspended);
    uv_unref((uv_handle_t *)&self->continued);
    if (self->log_pipe[0] >= 0 && uv_poll_init(loop, &self->log, self->log_pipe[0]) == 0) {
        self->handles++;
        self->log.data = self;
        uv_unref((uv_handle_t *)&self->log);
        uv_poll_start(&self->log, UV_READABLE, on_log);
    }
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    gr_terminal *self = handle->data;
    if (--self->handles == 0)
        free(self);
}

static void close_handles(gr_terminal *self)
{
    uv_handle_t *all[] = {
        (uv_handle_t *)&self->input,     (uv_handle_t *)&self->again,
        (uv_handle_t *)&self->resized,   (uv_handle_t *)&self->suspended,
        (uv_handle_t *)&self->continued, (uv_handle_t *)&self->log,
    };
    int open = self->handles; /* they were opened in this order */
    for (int i = 0; i < open; i++)
        uv_close(all[i], on_closed);
    if (open == 0)
        free(self);
}

/* libedit and wide characters need to know what the terminal's bytes mean. */
static void set_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1)
        setlocale(LC_CTYPE, "C.UTF-8");
}

int gr_terminal_new(gr_terminal **out, uv_loop_t *loop, const char *history_path,
                    gr_terminal_line *line, void *arg)
{
    static bool has_exit_handler;
    if (the_terminal != NULL || !isatty(STDIN_FILENO) ||
        (!isatty(STDOUT_FILENO) && !isatty(STDERR_FILENO)))
        return GR_EINVAL;
    gr_terminal *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->line = line;
    self->arg = arg;
    self->log_pipe[0] = self->log_pipe[1] = -1;
    the_terminal = self;
    set_locale();
    if (!has_exit_handler)
        has_exit_handler = atexit(at_exit) == 0;

    int rc = gr_history_new(&self->history, history_path);
    if (rc == 0)
        rc = set_prompt(self, "");
    if (rc == 0)
        rc = open_editor(self);
    if (rc == 0) {
        take_log(self);
        rc = open_handles(self, loop);
    }
    if (rc < 0) {
        gr_terminal_destroy(&self);
        return rc;
    }
    *out = self;
    return 0;
}

void gr_terminal_destroy(gr_terminal **terminal)
{
    gr_terminal *self = *terminal;
    if (self == NULL)
        return;
    if (self->editing) {
        show(self);
        self->partial = true;
        stop_editing(self);
        start_line(self);
    }
    leave_log(self);
    if (self->el != NULL)
        el_end(self->el);
    if (self->screen != NULL)
        fclose(self->screen);
    gr_history_destroy(&self->history);
    free(self->prompt);
    the_terminal = NULL;
    close_handles(self);
    *terminal = NULL;
}
