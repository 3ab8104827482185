/* disk.c - disk files as files: opening, locking, sizes, removal.
 *
 * Runs in operation processes.
 * Always: who holds the flock of a disk file may change what is in it; a mount holds it through the
 * open file that its loop device keeps, so the kernel ends the lock with the mount. */
#include "engine/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "engine/disk/disk_priv.h"

#define NAME_LEN_MAX 200U
#define WAIT_MIN_US  (US_PER_MS / 2)
#define WAIT_MAX_US  (16 * US_PER_MS)
#define PROBE_US     (4 * US_PER_MS) /* how long somebody's disk_in_use() may be in the way */

static uint32_t le32(const uint8_t *p)
{
        return (uint32_t) p[0] | (uint32_t) p[1] << 8 | (uint32_t) p[2] << 16 |
               (uint32_t) p[3] << 24;
}

int disk_super_parse(const uint8_t raw[static DISK_SUPER_SIZE], struct disk_super *ret)
{
        uint32_t compat = le32(raw + 0x5C), incompat = le32(raw + 0x60), log = le32(raw + 0x18);
        uint64_t blocks = le32(raw + 0x04);

        if (raw[0x38] != 0x53 || raw[0x39] != 0xEF || log != 2) /* 1024 << 2 = 4,096 */
                return -EINVAL;
        if (incompat & 0x80) /* 64bit: the high half counts */
                blocks |= (uint64_t) le32(raw + 0x150) << 32;
        if (blocks > INT64_MAX / DISK_BLOCK)
                return -EINVAL;
        ret->size_bytes = blocks * DISK_BLOCK;
        ret->journal = compat & 0x4;
        ret->sparse2 = compat & 0x200;
        ret->fresh = (raw[0x34] | raw[0x35]) == 0; /* mounts since the last check */
        return 0;
}

int disk_super_read(int fd, struct disk_super *ret, struct err *e)
{
        uint8_t raw[DISK_SUPER_SIZE];
        ssize_t n = pread(fd, raw, sizeof raw, DISK_SUPER_OFF);

        if (n < 0)
                return err_errno(e, -errno, "read superblock");
        if ((size_t) n != sizeof raw || disk_super_parse(raw, ret) < 0)
                return err_set(e, -EINVAL, "no ext4 with 4,096-byte blocks in it");
        return 0;
}

int disk_name_check(const char *name, struct err *e)
{
        size_t len = name ? strlen(name) : 0;

        if (len == 0 || len > NAME_LEN_MAX || strchr(name, '/') || name[0] == '.')
                return err_set(e, -EINVAL, "disk name '%.60s': a plain name of at most %u bytes",
                               name ? name : "", NAME_LEN_MAX);
        return 0;
}

int disk_open(int dirfd, const char *name, int flags, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        struct stat st;
        int r = disk_name_check(name, e);

        if (r < 0)
                return r;
        fd = openat(dirfd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "disk %s", name);
        if (!S_ISREG(st.st_mode))
                return err_set(e, -EINVAL, "disk %s: not a regular file", name);
        return fd_take(&fd);
}

int disk_lock(int dirfd, const char *name, uint64_t deadline_us, struct err *e)
{
        uint64_t wait_us = WAIT_MIN_US, soon = clock_mono_us() + PROBE_US;

        if (deadline_us < soon)
                deadline_us = soon;
        for (;;) {
                AUTO(fd) int fd = disk_open(dirfd, name, O_RDWR, e);
                struct timespec step = { .tv_nsec = (long) (wait_us * 1000) };
                struct stat have, want;

                if (fd < 0)
                        return fd;
                if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
                        /* while we waited the name may have gone to another file */
                        if (fstat(fd, &have) == 0 &&
                            fstatat(dirfd, name, &want, AT_SYMLINK_NOFOLLOW) == 0 &&
                            have.st_ino == want.st_ino && have.st_dev == want.st_dev)
                                return fd_take(&fd);
                        continue;
                }
                if (errno != EWOULDBLOCK && errno != EINTR)
                        return err_errno(e, -errno, "disk %s: lock", name);
                if (clock_mono_us() >= deadline_us)
                        return err_set(e, -EBUSY, "disk %s is in use by another mount", name);
                (void) nanosleep(&step, NULL);
                wait_us = wait_us * 2 < WAIT_MAX_US ? wait_us * 2 : WAIT_MAX_US;
        }
}

int disk_in_use(int dirfd, const char *name)
{
        AUTO(fd) int fd = disk_open(dirfd, name, O_RDONLY, NULL);

        if (fd < 0)
                return fd;
        if (flock(fd, LOCK_SH | LOCK_NB) == 0)
                return 0;
        return errno == EWOULDBLOCK ? 1 : -errno;
}

int disk_remove(int dirfd, const char *name)
{
        int r = disk_name_check(name, NULL);

        if (r < 0)
                return r;
        return unlinkat(dirfd, name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

int disk_sizes(int dirfd, const char *name, uint64_t *ret_logical, uint64_t *ret_allocated)
{
        struct stat st;
        int r = disk_name_check(name, NULL);

        if (r < 0)
                return r;
        if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        if (!S_ISREG(st.st_mode))
                return -EINVAL;
        *ret_logical = (uint64_t) st.st_size;
        *ret_allocated = (uint64_t) st.st_blocks * 512;
        return 0;
}
