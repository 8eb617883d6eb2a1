/* log.h - log lines through a bounded queue to a writer thread.
 *
 * gr_log() formats into a slot of the queue and returns: it never waits for a disk or a pipe.
 * When the queue is full the line is dropped and counted, and the writer says how many are
 * missing. Control characters are escaped, because lines quote what peers sent. Any thread may
 * log, at any time: before gr_log_start() and after gr_log_stop() lines go straight to stderr. */
#ifndef GR_LOG_H
#define GR_LOG_H

#include <stdarg.h>
#include <stdint.h>

enum gr_log_level { GR_LOG_DEBUG = 10, GR_LOG_INFO = 20, GR_LOG_WARNING = 30, GR_LOG_ERROR = 40 };

/* The longest line; what is longer is cut and ends in "...". */
enum { GR_LOG_LINE = 1024 };

/* Starts the writer thread, which writes to the file descriptor fd and does not close it; queue_len
 * lines may wait, 0 for 4096. Returns 0, GR_EINVAL when it runs already, GR_ENOMEM or
 * GR_ESYSTEM. */
int gr_log_start(int fd, unsigned queue_len);

/* Writes out what is queued and ends the thread. Nothing happens when it does not run. */
void gr_log_stop(void);

/* Waits until everything that was logged before the call has been written, at most timeout_ms. */
void gr_log_flush(int timeout_ms);

/* Lines below this level are not queued. Default: GR_LOG_INFO. */
void gr_log_set_level(int level);
int gr_log_level(void);

/* How many lines were dropped since the start. */
uint64_t gr_log_dropped(void);

/* Logs one line. name is the logger's ("gaterpc.broker"). */
void gr_log(int level, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
