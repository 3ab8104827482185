/* fd.h - descriptors: closed from birth across exec, opened relative to a directory, never by a
 * path that a stranger can bend.  An empty descriptor is -EBADF.  Everything here may block on
 * the file system. */
#pragma once
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/mem.h"

/* Close @fd when it is one; keeps errno; always returns -EBADF. */
int fd_close(int fd);

static inline void fd_cleanup(int *fd)
{
        *fd = fd_close(*fd);
}

/* Hand *@fd on and leave -EBADF behind. */
static inline int fd_take(int *fd)
{
        int r = *fd;

        *fd = -EBADF;
        return r;
}

/* openat2() below @dirfd: no "..", no symbolic or magic link, close-on-exec added to @flags.
 * Returns a descriptor or a negative errno (-ELOOP: a link, -EXDEV: it left the directory). */
int fd_open_beneath(int dirfd, const char *path, int flags, mode_t mode);

/* As if @dirfd were the root: links are followed inside it and cannot leave; magic links refused.
 * This is how a path out of an image is resolved. */
int fd_open_in_root(int dirfd, const char *path, int flags, mode_t mode);

/* Make @path (relative, one or more components) a directory below @dirfd, parents included, and
 * return an O_PATH|O_DIRECTORY descriptor on it.  Existing links are refused. */
int fd_mkdir_beneath(int dirfd, const char *path, mode_t mode);

/* Read at most @max bytes of a small file into a NUL-terminated string that the caller frees.
 * -EFBIG when there is more.  @dirfd may be AT_FDCWD for our own paths. */
int fd_read_file(int dirfd, const char *path, size_t max, char **ret, size_t *ret_len);

/* Write one value into an existing file (sysfs, cgroup, proc): one write(2), no truncation. */
int fd_write_value(int dirfd, const char *path, const char *value);

/* Replace a file of ours: temporary name, write, fsync when @durable, rename, fsync of the
 * directory when @durable.  After a crash there is the old content or the new. */
int fd_replace_file(int dirfd, const char *path, const void *data, size_t len, mode_t mode,
                    bool durable);

/* Whole-buffer transfers that continue after EINTR and short counts.  fd_read_full returns the
 * number of bytes, less than @len only at the end of the file. */
ssize_t fd_read_full(int fd, void *buf, size_t len);
int fd_write_full(int fd, const void *buf, size_t len);

int fd_set_nonblock(int fd, bool on);
int fd_set_cloexec(int fd, bool on);

/* Remove everything below @dirfd/@name and the directory itself; never crosses a mount point and
 * never follows a link.  0 when it is gone, also when it never was. */
int fd_rm_rf(int dirfd, const char *name);

/* Close all descriptors >= @first (close_range(2)). */
int fd_close_from(int first);

/* The same, but for those that @keep names, in any order; negative ones are none.  @keep gets
 * sorted. */
int fd_close_except(int first, int *keep, size_t n);
