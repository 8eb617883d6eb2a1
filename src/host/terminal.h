/* terminal.h - lines from a terminal, edited by libedit, while the loop goes on.
 *
 * gr_terminal_read() shows a prompt and returns; the line comes to the owner's callback in a later
 * turn of the loop. Only between the two is the terminal in raw mode and read from: at other times
 * programs that run at the prompt have it as they know it. libedit is given whole keys only, so
 * that it never waits for the rest of one (an escape sequence, a character of several bytes); its
 * commands that read more keys by themselves are not bound. Nothing here blocks.
 *
 * Whoever else writes to the terminal says gr_terminal_hide() first: the line in work disappears
 * and is back in the next turn. Lines of the log are held back for that by themselves.
 *
 * There is one terminal in a process, used by the loop's thread; gr_terminal_restore() is for
 * anybody. */
#ifndef GR_TERMINAL_H
#define GR_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

typedef struct gr_terminal gr_terminal;

/* A line without its newline, or NULL at the end of input. The text belongs to the terminal and
 * lives during the call, in which the terminal may be read again or destroyed. */
typedef void gr_terminal_line(void *arg, const char *text, size_t len);

/* Opens standard input, and standard output or error, as a terminal. history: path of its file, or
 * NULL. Returns 0; GR_EINVAL when they are no terminal or there is one already; GR_ENOMEM,
 * GR_ESYSTEM. */
int gr_terminal_new(gr_terminal **out, uv_loop_t *loop, const char *history, gr_terminal_line *line,
                    void *arg);

/* Leaves the terminal as it was. Memory is freed when the loop has closed the handles. */
void gr_terminal_destroy(gr_terminal **self);

/* Shows the prompt and reads a line; keeps the loop running until it came. Parts of the prompt that
 * take no place on the screen are put between \1 and \2. Nothing happens when a line is read
 * already. Returns 0 or GR_ENOMEM. */
int gr_terminal_read(gr_terminal *self, const char *prompt);

/* Drops what was typed, as after Ctrl-C, and starts anew. Nothing happens when no line is read.
 * Returns 0 or GR_ENOMEM. */
int gr_terminal_drop(gr_terminal *self, const char *prompt);

/* To be said before something is written to standard output or error; `partial` when that does not
 * end with a newline, for which the prompt then cares. */
void gr_terminal_hide(gr_terminal *self, bool partial);

/* Appends a line to the history. */
void gr_terminal_remember(gr_terminal *self, const char *line);

/* Gives the terminal its modes back, and the lines of the log that were held back, for a process
 * that ends in a hurry. Signal handlers may call it; exit() does. */
void gr_terminal_restore(void);

#endif
