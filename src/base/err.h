/* err.h - why something failed, in a sentence that grows outwards.
 *
 * Every fallible function returns int: >= 0 good, negative errno bad.  Where a person will ask
 * "why", the last argument is `struct err *e`, which the caller owns and which may be NULL. */
#pragma once

struct err {
        int code;      /* negative errno of the last err_set() or err_wrap() */
        char msg[508]; /* NUL-terminated, one line, no trailing full stop; cut when too long */
};

/* Replace the message.  @code is a negative errno and is returned, so that a caller can write
 * `return err_set(e, -EINVAL, ...)`.  @fmt may use the old message as an argument only by copy. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same with ": " and strerror(-code) appended. */
int err_errno(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Put "fmt: " before the present message.  Returns @code. */
int err_wrap(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Copy @from to @e when @e is wanted; returns from->code. */
int err_copy(struct err *e, const struct err *from);
