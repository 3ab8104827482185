/* scratch.h - a growing table that may be larger than memory.
 *
 * With a file behind it (unlinked, in the staging directory) its pages are page cache that the kernel
 * writes out under pressure; without one it is anonymous memory.  Space is allocated before it is
 * touched, so that a full disk is -ENOSPC and never SIGBUS.  Growing moves the table: keep offsets,
 * not pointers. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

struct scratch {
        uint8_t *p;
        uint64_t len, cap, max;
        int fd;
};

/* @fd is borrowed and empty, or -EBADF.  More than @max bytes are -E2BIG. */
void scratch_init(struct scratch *s, int fd, uint64_t max);
void scratch_done(struct scratch *s);

/* Room for @n more bytes, zeroed; *@ret is where they begin, valid until the next call. */
int scratch_add(struct scratch *s, uint64_t n, void *ret, struct err *e);

static inline void scratch_done_cleanup(struct scratch *s)
{
        scratch_done(s);
}
