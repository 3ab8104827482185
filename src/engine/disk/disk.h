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

/* Make @name (below @dirfd, 0600) with an empty ext4 in a file of exactly @size_bytes: sparse, or
 * allocated in full when @allocate (-ENOSPC then names the missing bytes).  Complete or absent: a
 * nameless file gets its name at the end.  @durable: a volume, with a journal, on disk before this
 * returns; otherwise a disk that is thrown away at stop, without a journal, which disk_mount()
 * recognises.  @size_bytes: at least 16 MiB, a multiple of 4,096.  -EEXIST when it is there.
 * Blocks 10-30 ms. */
int disk_make(int dirfd, const char *name, uint64_t size_bytes, bool allocate, bool durable,
              struct err *e);

/* A disk to throw away, copied from a formatted master of this size kept in @dirfd/masters: some
 * small runs, about 0.1 ms.  Makes the master when it is missing. */
int disk_make_fast(int dirfd, const char *name, uint64_t size_bytes, struct err *e);

/* Attach and mount: loop device, ext4, noatime, nodev (set-id bits keep working: they mean ids of
 * the cluster's own user namespace once the caller has idmapped the mount).  Returns a detached
 * mount descriptor that the caller owns; when the last reference to that mount and its clones is
 * gone, the kernel unmounts, frees the loop device and the lock.  Waits for the lock until
 * @deadline_us (monotonic; 0 = do not wait): -EBUSY when another mount still holds the file.  A
 * volume's journal is replayed when it is dirty. */
int disk_mount(int dirfd, const char *name, uint64_t deadline_us, struct err *e);

/* Whether a mount (or disk_grow) holds the file now: 1, 0 or a negative errno. */
int disk_in_use(int dirfd, const char *name);

/* For a disk that is about to be removed: drop what its mount has not written yet, so that the
 * unmount has nothing to write and takes milliseconds instead of as long as the writing would.
 * Whoever still uses the mount gets EIO from now on; call it between the last TERM and KILL.
 * 0 also when nothing holds the file. */
int disk_abandon(int dirfd, const char *name, struct err *e);

/* Grow the file and the ext4 in it; what was allocated in full stays so.  -EINVAL when @size_bytes is
 * smaller, -EBUSY when it is mounted (waits 3 s for an
 * unmount that is still under way).  After a kill, call it again.  Blocks up to seconds. */
int disk_grow(int dirfd, const char *name, uint64_t size_bytes, struct err *e);

/* The same for one that is mounted, at once for whoever uses it.  -EPERM, -EOPNOTSUPP: this kernel does
 * not do it, or not for us; -ENOSPC: the host's disk is full; nothing has changed then.  After a kill,
 * call it again. */
int disk_grow_mounted(int dirfd, const char *name, uint64_t size_bytes, struct err *e);
/* 0, or why disk_grow_mounted() would not even try; changes nothing. */
int disk_grow_mounted_check(int dirfd, const char *name, struct err *e);
/* The size of the ext4 in a disk that nobody has mounted: smaller than its file after a kill. */
int disk_fs_size(int dirfd, const char *name, uint64_t *ret_bytes, struct err *e);

/* Unlink; idempotent. */
int disk_remove(int dirfd, const char *name);

/* For disk accounting: the file's length, and the bytes of blocks it has on the host's disk. */
int disk_sizes(int dirfd, const char *name, uint64_t *ret_logical, uint64_t *ret_allocated);
