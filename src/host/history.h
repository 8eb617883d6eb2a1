/* history.h - the lines that were typed at the prompt, in memory and in a file.
 *
 * One line of the file is one entry, oldest first. Every entry is appended at once, so that nothing
 * is lost however the process ends and sessions that run side by side share one file; what is more
 * than GR_HISTORY_MAX lines is cut off when the history is opened and when it is closed. A file
 * that cannot be used costs a line in the log, never the session. One thread uses a history. */
#ifndef GR_HISTORY_H
#define GR_HISTORY_H

#include <histedit.h>

enum { GR_HISTORY_MAX = 1000 };

typedef struct gr_history gr_history;

/* Reads the history of the file at path; NULL keeps it in memory only. The file is made with mode
 * 0600 when it is missing, its folders too. Returns 0 or GR_ENOMEM. */
int gr_history_new(gr_history **out, const char *path);
void gr_history_destroy(gr_history **self);

/* Appends a line, unless it is empty or repeats the last one. It must not contain a newline. */
void gr_history_add(gr_history *self, const char *line);

/* For el_set(el, EL_HIST, history, ...). */
History *gr_history_list(gr_history *self);

#endif
