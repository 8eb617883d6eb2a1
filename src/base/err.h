/* err.h - the one list of errors.
 *
 * Functions of the core return 0 or one of these negative numbers. The same list gives
 * the codes that users branch on: the `code` of an error object in Lua and, negated, the
 * status of an ERROR message on the wire (docs/protocol.md). Numbers are part of the
 * protocol: append, never renumber. Holds no state; any thread may call it. */
#ifndef GR_ERR_H
#define GR_ERR_H

/*   symbol        number  code for users         text when nothing better is known */
#define GR_ERRORS(X)                                                                               \
    X(GR_ECANCELLED, -1, "CANCELLED", "the call was cancelled")                                    \
    X(GR_EDEADLINE, -2, "DEADLINE_EXCEEDED", "the deadline passed before an answer came")          \
    X(GR_ENOTFOUND, -3, "NOT_FOUND", "no such service or method")                                  \
    X(GR_EUNAVAILABLE, -4, "UNAVAILABLE", "nobody there to answer")                                \
    X(GR_EEXHAUSTED, -5, "RESOURCE_EXHAUSTED", "a limit was reached")                              \
    X(GR_EDENIED, -6, "PERMISSION_DENIED", "not allowed")                                          \
    X(GR_EUNAUTHENTICATED, -7, "UNAUTHENTICATED", "who are you?")                                  \
    X(GR_EINVAL, -8, "INVALID_ARGUMENT", "not a valid value here")                                 \
    X(GR_EINTERNAL, -9, "INTERNAL", "the method failed")                                           \
    X(GR_ELOST, -10, "WORKER_LOST", "the worker went away with the call")                          \
    X(GR_EDATALOSS, -11, "DATA_LOSS", "the data is damaged or incomplete")                         \
    X(GR_ENOMEM, -12, "RESOURCE_EXHAUSTED", "out of memory")                                       \
    X(GR_EAGAIN, -13, "UNAVAILABLE", "would have to wait")                                         \
    X(GR_EADDRINUSE, -14, "UNAVAILABLE", "the address is in use")                                  \
    X(GR_EADDRESS, -15, "INVALID_ARGUMENT", "not an address that can be used here")                \
    X(GR_ECLOSED, -16, "UNAVAILABLE", "it is closed")                                              \
    X(GR_ESYSTEM, -17, "INTERNAL", "a system call failed")                                         \
    X(GR_ELUA, -18, "INTERNAL", "an error in Lua code")                                            \
    X(GR_ENOPATH, -19, "INVALID_ARGUMENT", "there is no such file or folder")                      \
    X(GR_ELONG, -20, "INVALID_ARGUMENT", "the name is too long")

#define GR_ERR_ENUM(symbol, number, code, text) symbol = number,
enum gr_err { GR_ERRORS(GR_ERR_ENUM) };
#undef GR_ERR_ENUM

/* The code for users ("NOT_FOUND"); "OK" for 0, "INTERNAL" for a number that is not in the list. */
const char *gr_err_code(int err);

/* One line for people. Never NULL. */
const char *gr_err_text(int err);

/* The first error of the list with this code for users, or GR_EINTERNAL when there is none. */
int gr_err_of_code(const char *code);

/* Translates an errno of the system or of libzmq. */
int gr_err_of_errno(int number);

#endif
