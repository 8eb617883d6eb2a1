#include "base/err.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <zmq.h>

static const struct {
    int err;
    const char *code;
    const char *text;
} list[] = {
#define ROW(symbol, number, code, text) {symbol, code, text},
    GR_ERRORS(ROW)
#undef ROW
};

#define LIST_LEN (sizeof(list) / sizeof(list[0]))

const char *gr_err_code(int err)
{
    if (err == 0)
        return "OK";
    for (size_t i = 0; i < LIST_LEN; i++)
        if (list[i].err == err)
            return list[i].code;
    return "INTERNAL";
}

const char *gr_err_text(int err)
{
    if (err == 0)
        return "success";
    for (size_t i = 0; i < LIST_LEN; i++)
        if (list[i].err == err)
            return list[i].text;
    return "an error that this version does not know";
}

int gr_err_of_code(const char *code)
{
    for (size_t i = 0; i < LIST_LEN; i++)
        if (strcmp(list[i].code, code) == 0)
            return list[i].err;
    return GR_EINTERNAL;
}

int gr_err_of_errno(int number)
{
    switch (number) {
    case EAGAIN:
        return GR_EAGAIN;
    case ENOMEM:
        return GR_ENOMEM;
    case EADDRINUSE:
        return GR_EADDRINUSE;
    case EINVAL:
    case EADDRNOTAVAIL:
    case ENODEV:
    case EPROTONOSUPPORT:
    case ENOCOMPATPROTO:
        return GR_EADDRESS;
    case ENOENT:
    case ENOTDIR:
        return GR_ENOPATH;
    case ENAMETOOLONG:
        return GR_ELONG;
    case EMFILE:
    case ENFILE:
    case EMTHREAD:
        return GR_EEXHAUSTED;
    case EHOSTUNREACH:
        return GR_EUNAVAILABLE;
    case EACCES:
    case EPERM:
        return GR_EDENIED;
    case ENOTSOCK:
    case ETERM:
        return GR_ECLOSED;
    default:
        return GR_ESYSTEM;
    }
}
