/* err.c - see err.h.  Control characters never pass: a message may quote a stranger's bytes. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"

/* Write "text" or "text: tail" into e->msg; @tail may be NULL or alias nothing in @e. */
__attribute__((format(printf, 4, 0))) static int compose(struct err *e, int code, const char *tail,
                                                         const char *fmt, va_list ap)
{
        char text[sizeof e->msg];
        size_t n;

        (void) vsnprintf(text, sizeof text, fmt, ap);
        n = strlen(text);
        if (tail && *tail && n + 3 < sizeof text)
                (void) snprintf(text + n, sizeof text - n, ": %s", tail);
        str_tame(text, ' ');
        memcpy(e->msg, text, sizeof text);
        e->code = code;
        return code;
}

int err_set(struct err *e, int code, const char *fmt, ...)
{
        va_list ap;

        if (!e)
                return code;
        va_start(ap, fmt);
        (void) compose(e, code, NULL, fmt, ap);
        va_end(ap);
        return code;
}

int err_errno(struct err *e, int code, const char *fmt, ...)
{
        va_list ap;

        if (!e)
                return code;
        va_start(ap, fmt);
        (void) compose(e, code, strerror(-code), fmt, ap);
        va_end(ap);
        return code;
}

int err_wrap(struct err *e, int code, const char *fmt, ...)
{
        char old[sizeof e->msg];
        va_list ap;

        if (!e)
                return code;
        memcpy(old, e->msg, sizeof old);
        va_start(ap, fmt);
        (void) compose(e, code, old, fmt, ap);
        va_end(ap);
        return code;
}

int err_copy(struct err *e, const struct err *from)
{
        if (e)
                *e = *from;
        return from->code;
}
