#include "host/history.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"

struct gr_history {
    History *list;
    char *path;   /* NULL: in memory only */
    size_t lines; /* of the file */
};

static void give_up(gr_history *self, const char *what)
{
    gr_log(GR_LOG_WARNING, "gaterpc.repl", "the history is not kept: %s %s: %s", what, self->path,
           strerror(errno));
    free(self->path);
    self->path = NULL;
}

/* What libedit could not decode later must not come in. */
static bool is_text(const char *line)
{
    return *line != '\0' && mbstowcs(NULL, line, 0) != (size_t)-1;
}

/* Returns false when the line is refused or was the last one already. */
static bool enter(gr_history *self, const char *line)
{
    HistEvent event;
    if (!is_text(line))
        return false;
    if (history(self->list, &event, H_FIRST) == 0 && strcmp(event.str, line) == 0)
        return false;
    return history(self->list, &event, H_ENTER, line) >= 0;
}

/* Makes the folders that the file shall be in. */
static void make_folders(const char *path)
{
    char folder[PATH_MAX];
    if (snprintf(folder, sizeof(folder), "%s", path) >= (int)sizeof(folder))
        return;
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(folder, 0700); /* that it is there already is fine; the rest shows at open() */
        *slash = '/';
    }
}

static void read_file(gr_history *self, FILE *file)
{
    char *line = NULL;
    size_t size = 0;
    ssize_t len;
    self->lines = 0;
    while ((len = getline(&line, &size, file)) > 0) {
        if (line[len - 1] == '\n')
            line[len - 1] = '\0';
        enter(self, line);
        self->lines++;
    }
    free(line);
}

/* Replaces the file by what is in memory, which is never too much. */
static int rewrite_file(gr_history *self)
{
    char name[PATH_MAX];
    if (snprintf(name, sizeof(name), "%s.XXXXXX", self->path) >= (int)sizeof(name))
        return -1;
    int fd = mkstemp(name); /* mode 0600 */
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL)
        return -1;
    HistEvent event;
    self->lines = 0;
    for (int rc = history(self->list, &event, H_LAST); rc == 0;
         rc = history(self->list, &event, H_PREV)) {
        fprintf(file, "%s\n", event.str);
        self->lines++;
    }
    if (fclose(file) != 0 || rename(name, self->path) != 0) {
        unlink(name);
        return -1;
    }
    return 0;
}

static void load(gr_history *self)
{
    HistEvent event;
    struct stat about;
    int fd = open(self->path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0) {
        give_up(self, "cannot open");
        return;
    }
    if (fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) { /* /dev/null, say */
        close(fd);
        free(self->path);
        self->path = NULL;
        return;
    }
    history(self->list, &event, H_CLEAR);
    FILE *file = fdopen(fd, "r");
    if (file == NULL) {
        close(fd);
        return;
    }
    read_file(self, file);
    fclose(file);
    if (self->lines > GR_HISTORY_MAX && rewrite_file(self) < 0)
        give_up(self, "cannot rewrite");
}

int gr_history_new(gr_history **out, const char *path)
{
    HistEvent event;
    gr_history *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    self->list = history_init();
    self->path = path != NULL ? strdup(path) : NULL;
    if (self->list == NULL || (path != NULL && self->path == NULL)) {
        gr_history_destroy(&self);
        return GR_ENOMEM;
    }
    history(self->list, &event, H_SETSIZE, GR_HISTORY_MAX);
    if (self->path != NULL) {
        make_folders(self->path);
        load(self);
    }
    *out = self;
    return 0;
}

void gr_history_destroy(gr_history **history)
{
    gr_history *self = *history;
    if (self == NULL)
        return;
    if (self->path != NULL && self->lines > GR_HISTORY_MAX)
        load(self); /* the file has the lines of other sessions, too */
    if (self->list != NULL)
        history_end(self->list);
    free(self->path);
    free(self);
    *history = NULL;
}

void gr_history_add(gr_history *self, const char *line)
{
    if (!enter(self, line) || self->path == NULL)
        return;
    int fd = open(self->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || dprintf(fd, "%s\n", line) < 0)
        give_up(self, "cannot write");
    if (fd >= 0)
        close(fd);
    self->lines++;
}

History *gr_history_list(gr_history *self)
{
    return self->list;
}
