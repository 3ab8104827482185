/* disk.h - container disks and volumes: files with an ext4 inside, ids 0..65535 on disk.
 *
 * A disk is used by one mount at a time: the backing file is flock()ed through the very file that
 * the loop device holds, so the kernel drops the lock when, and only when, the last mount of it is
 * gone, also after any crash.  Loop devices are bound with autoclear.  All calls block (ms). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Make @name (below @dirfd, 0600) with an empty ext4 of exactly @size_bytes: sparse, or allocated
 * in full when @allocate (-ENOSPC then names the missing bytes).  Complete or absent: made under a
 * temporary name and renamed.  Durable when @durable.  -EEXIST when it is there. */
int disk_make(int dirfd, const char *name, uint64_t size_bytes, bool allocate, bool durable,
              struct err *e);

/* The same from a formatted master of this size kept in @dirfd/masters: a sparse copy, ~5 ms
 * instead of ~140.  Makes the master when it is missing. */
int disk_make_fast(int dirfd, const char *name, uint64_t size_bytes, struct err *e);

/* Attach and mount: loop device, ext4, nodev nosuid-not (set-id bits of the owner's files work
 * inside its user namespace), noatime.  Returns a detached mount descriptor that the caller owns;
 * closing the last reference unmounts and frees the loop device.  Waits for the lock until
 * @deadline_us (monotonic; 0 = do not wait): -EBUSY when another mount still holds the file. */
int disk_mount(int dirfd, const char *name, uint64_t deadline_us, struct err *e);

/* Whether a mount holds the file now: 1, 0 or a negative errno. */
int disk_in_use(int dirfd, const char *name);

/* Grow the file and the ext4 in it (not mounted).  -EINVAL when @size_bytes is smaller. */
int disk_grow(int dirfd, const char *name, uint64_t size_bytes, struct err *e);

/* Unlink; idempotent. */
int disk_remove(int dirfd, const char *name);

/* Bytes that this file may still allocate, for disk accounting: logical size and blocks in use. */
int disk_sizes(int dirfd, const char *name, uint64_t *ret_logical, uint64_t *ret_allocated);
