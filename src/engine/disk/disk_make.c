/* disk_make.c - new disks, copies of ready-made ones, and growing.
 *
 * Runs in operation processes.
 * Always: a disk file gets its name when it is complete (O_TMPFILE, then link), so a kill leaves no
 * half-made disk and no temporary file.  What mkfs writes depends on these arguments only, not on
 * the host's mke2fs.conf. */
#include "engine/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/str.h"
#include "engine/disk/disk_priv.h"

#define MASTERS "masters"
#define COMMON                                                                                     \
        "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,metadata_csum,large_file,huge_file,dir_nlink,extra_isize"
#define ZEROED "root_owner=0:0,nodiscard,assume_storage_prezeroed=1"

/* A volume keeps its journal, its spare superblocks, and room to grow.  A container disk lives until
 * its cluster stops: all its metadata but the spare superblocks lies together, so that copying one is
 * some small runs.  (sparse_super2, which leaves those out, is not grown by a kernel while mounted.) */
static const char *const mkfs_volume[] = { "/sbin/mkfs.ext4",
                                           "-q",
                                           "-F",
                                           "-b",
                                           "4096",
                                           "-I",
                                           "256",
                                           "-i",
                                           "16384",
                                           "-m",
                                           "0",
                                           "-O",
                                           COMMON ",sparse_super,has_journal,resize_inode",
                                           "-E",
                                           ZEROED ",lazy_journal_init=1",
                                           DISK_TOOL_FILE,
                                           NULL };
static const char *const mkfs_thrown_away[] = { "/sbin/mkfs.ext4",
                                                "-q",
                                                "-F",
                                                "-b",
                                                "4096",
                                                "-I",
                                                "256",
                                                "-i",
                                                "16384",
                                                "-m",
                                                "0",
                                                "-O",
                                                COMMON ",sparse_super",
                                                "-G",
                                                "256",
                                                "-E",
                                                ZEROED ",packed_meta_blocks=1",
                                                DISK_TOOL_FILE,
                                                NULL };
static const char *const e2fsck[] = { "/sbin/e2fsck", "-f", "-p", DISK_TOOL_FILE, NULL };
static const char *const resize2fs[] = { "/sbin/resize2fs", DISK_TOOL_FILE, NULL };

#define GROUP_BYTES      (128ULL << 20) /* an ext4 block group */
#define GROW_WAIT_US     (3 * US_PER_S) /* an unmount that is still under way */
#define E2FSCK_CORRECTED 1              /* exit status: errors were there and are repaired */

int disk_size_check(uint64_t size_bytes, struct err *e)
{
        if (size_bytes < DISK_MIN_BYTES || size_bytes > INT64_MAX || size_bytes % DISK_BLOCK)
                return err_set(e, -EINVAL,
                               "disk size %" PRIu64 ": at least %llu bytes, a multiple of %u",
                               size_bytes, (unsigned long long) DISK_MIN_BYTES, DISK_BLOCK);
        return 0;
}

/* A nameless file of that size in @dirfd. */
static int new_file(int dirfd, uint64_t size_bytes, struct err *e)
{
        AUTO(fd) int fd = openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

        if (fd < 0)
                return err_errno(e, -errno, "new disk file");
        if (ftruncate(fd, (off_t) size_bytes) < 0)
                return err_errno(e, -errno, "new disk file of %" PRIu64 " bytes", size_bytes);
        return fd_take(&fd);
}

static int give_name(int fd, int dirfd, const char *name, bool durable, struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        char self[32];

        if (durable && fsync(fd) < 0)
                return err_errno(e, -errno, "fsync");
        (void) snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
        if (linkat(AT_FDCWD, self, dirfd, name, AT_SYMLINK_FOLLOW) < 0)
                return err_errno(e, -errno, "give the disk its name");
        if (!durable)
                return 0;
        dir = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0 || fsync(dir) < 0)
                return err_errno(e, -errno, "fsync of the directory");
        return 0;
}

int disk_allocate(int fd, uint64_t from, uint64_t len, struct err *e)
{
        struct statvfs st;
        int r;

        do
                r = fallocate(fd, 0, (off_t) from, (off_t) len);
        while (r < 0 && errno == EINTR);
        if (r == 0)
                return 0;
        r = -errno;
        if (r == -ENOSPC && fstatvfs(fd, &st) == 0) {
                uint64_t have = (uint64_t) st.f_bavail * st.f_frsize;

                if (have < len)
                        return err_set(e, r,
                                       "no space: %" PRIu64 " bytes wanted, %" PRIu64 " missing",
                                       len, len - have);
        }
        return err_errno(e, r, "allocate %" PRIu64 " bytes", len);
}

static int make(int dirfd, const char *name, uint64_t size_bytes, bool allocate,
                const char *const *mkfs, bool durable, struct err *e)
{
        AUTO(fd) int fd = new_file(dirfd, size_bytes, e);
        int r = fd;

        if (r >= 0 && allocate)
                r = disk_allocate(fd, 0, size_bytes, e);
        if (r >= 0)
                r = disk_tool_run(mkfs, fd, 0, e);
        if (r >= 0 && allocate) /* some file systems can zero a range only by a hole */
                r = disk_allocate(fd, 0, size_bytes, e);
        return r < 0 ? r : give_name(fd, dirfd, name, durable, e);
}

int disk_make(int dirfd, const char *name, uint64_t size_bytes, bool allocate, bool durable,
              struct err *e)
{
        int r = disk_name_check(name, e);

        if (r >= 0)
                r = disk_size_check(size_bytes, e);
        if (r < 0)
                return r;
        if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                return err_set(e, -EEXIST, "disk %s exists already", name);
        r = make(dirfd, name, size_bytes, allocate, durable ? mkfs_volume : mkfs_thrown_away,
                 durable, e);
        return r < 0 ? err_wrap(e, r, "disk %s", name) : 0;
}

/* --- copies of a master -------------------------------------------------------------------- */

static int copy_run(int from, int to, off_t off, off_t end)
{
        while (off < end) {
                off_t in = off, out = off;
                ssize_t n = copy_file_range(from, &in, to, &out, (size_t) (end - off), 0);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -EIO;
                off += n;
        }
        return 0;
}

/* Bytes at @at that are a spare superblock and the group descriptors behind it: 0, or so many.  A disk
 * that is thrown away is never repaired from them, the kernel does not read them, and when it grows the
 * disk it writes them anew. */
static off_t spare_super(int fd, off_t at, off_t size)
{
        uint64_t groups = ((uint64_t) size + GROUP_BYTES - 1) / GROUP_BYTES;
        uint64_t descriptors = (groups * 64 + DISK_BLOCK - 1) / DISK_BLOCK;
        uint64_t group = (uint64_t) at / GROUP_BYTES;
        uint8_t raw[0x5C];

        if (at == 0 || (uint64_t) at % GROUP_BYTES ||
            pread(fd, raw, sizeof raw, at) != (ssize_t) sizeof raw || raw[0x38] != 0x53 ||
            raw[0x39] != 0xEF || (uint64_t) (raw[0x5A] | raw[0x5B] << 8) != group)
                return 0;
        return (off_t) ((1 + descriptors) * DISK_BLOCK);
}

static int copy_sparse(int from, int to, uint64_t size_bytes)
{
        off_t data = 0, hole;

        if (ioctl(to, FICLONE, from) == 0) /* XFS, Btrfs: shares the blocks */
                return 0;
        for (; (data = lseek(from, data, SEEK_DATA)) >= 0; data = hole) {
                int r;

                hole = lseek(from, data, SEEK_HOLE);
                if (hole < 0)
                        return -errno;
                data += spare_super(from, data, (off_t) size_bytes);
                r = copy_run(from, to, data, hole);
                if (r < 0)
                        return r;
        }
        return errno == ENXIO ? 0 : -errno; /* no data beyond here */
}

/* The master for this size, made when missing; two makers at once are both right. */
static int open_master(int dirfd, uint64_t size_bytes, struct err *e)
{
        AUTO(fd) int dir = -EBADF;
        char name[28];
        int fd, r;

        /* the version of the format is part of the name */
        (void) snprintf(name, sizeof name, "%" PRIu64 "-2", size_bytes);
        if (mkdirat(dirfd, MASTERS, 0700) < 0 && errno != EEXIST)
                return err_errno(e, -errno, "make %s", MASTERS);
        dir = openat(dirfd, MASTERS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open %s", MASTERS);
        fd = disk_open(dir, name, O_RDONLY, NULL);
        if (fd != -ENOENT)
                return fd < 0 ? err_errno(e, fd, "open %s/%s", MASTERS, name) : fd;
        r = make(dir, name, size_bytes, false, mkfs_thrown_away, true, e);
        if (r < 0 && r != -EEXIST)
                return err_wrap(e, r, "%s/%s", MASTERS, name);
        return disk_open(dir, name, O_RDONLY, e);
}

/* ext4 leaves out a last block group that is too small to be of use. */
static bool fills(uint64_t ext4_bytes, uint64_t file_bytes)
{
        return ext4_bytes <= file_bytes && file_bytes - ext4_bytes < GROUP_BYTES;
}

/* Whoever administers the host may have mounted or replaced it. */
static int master_check(int fd, uint64_t size_bytes, struct err *e)
{
        struct disk_super super;
        struct stat st;
        int r = disk_super_read(fd, &super, e);

        if (r < 0)
                return r;
        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "stat");
        if ((uint64_t) st.st_size != size_bytes || super.size_bytes != size_bytes ||
            super.journal || !super.fresh)
                return err_set(e, -EINVAL, "not an unused disk of %" PRIu64 " bytes", size_bytes);
        return 0;
}

int disk_make_fast(int dirfd, const char *name, uint64_t size_bytes, struct err *e)
{
        AUTO(fd) int master = -EBADF, fd = -EBADF;
        int r = disk_name_check(name, e);

        if (r >= 0)
                r = disk_size_check(size_bytes, e);
        if (r < 0)
                return r;
        master = open_master(dirfd, size_bytes, e);
        if (master < 0)
                return err_wrap(e, master, "disk %s", name);
        r = master_check(master, size_bytes, e);
        if (r < 0)
                return err_wrap(e, r, "disk %s: %s/%" PRIu64 "-2", name, MASTERS, size_bytes);
        fd = new_file(dirfd, size_bytes, e);
        if (fd < 0)
                return err_wrap(e, fd, "disk %s", name);
        r = copy_sparse(master, fd, size_bytes);
        if (r < 0)
                return err_errno(e, r, "disk %s: copy of the master", name);
        r = give_name(fd, dirfd, name, false, e);
        return r < 0 ? err_wrap(e, r, "disk %s", name) : 0;
}

/* --- growing ------------------------------------------------------------------------------- */

/* The file first: a kill after that leaves a file with room behind its ext4, and the next call goes
 * on from there.  What was allocated in full stays so; @ret_full says that it was. */
int disk_grow_file(int fd, uint64_t size_bytes, bool *ret_full, struct err *e)
{
        struct stat st;
        int r;

        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "stat");
        if ((uint64_t) st.st_size > size_bytes)
                return err_set(e, -EINVAL, "cannot shrink from %lld to %" PRIu64 " bytes",
                               (long long) st.st_size, size_bytes);
        *ret_full = (uint64_t) st.st_blocks * 512 >= (uint64_t) st.st_size;
        if ((uint64_t) st.st_size == size_bytes)
                return 0;
        if (!*ret_full)
                return ftruncate(fd, (off_t) size_bytes) < 0 ? err_errno(e, -errno, "grow the file")
                                                             : 0;
        r = disk_allocate(fd, (uint64_t) st.st_size, size_bytes - (uint64_t) st.st_size, e);
        /* part of it may be there: give it back */
        if (r < 0 && ftruncate(fd, st.st_size) < 0)
                return err_errno(e, -errno, "give back what was allocated");
        return r;
}

static int grow(int fd, uint64_t size_bytes, struct err *e)
{
        struct disk_super super;
        bool full = false;
        int r = disk_super_read(fd, &super, e);

        if (r >= 0)
                r = disk_size_check(size_bytes, e);
        if (r >= 0)
                r = disk_grow_file(fd, size_bytes, &full, e);
        if (r < 0 || super.size_bytes == size_bytes)
                return r;
        r = disk_tool_run(e2fsck, fd, E2FSCK_CORRECTED, e);
        if (r >= 0)
                r = disk_tool_run(resize2fs, fd, 0, e);
        if (r >= 0 && full)
                r = disk_allocate(fd, 0, size_bytes, e);
        if (r >= 0)
                r = disk_super_read(fd, &super, e);
        if (r < 0)
                return r;
        if (!fills(super.size_bytes, size_bytes))
                return err_set(e, -EIO, "resize2fs made it %" PRIu64 " bytes of %" PRIu64,
                               super.size_bytes, size_bytes);
        return fsync(fd) < 0 ? err_errno(e, -errno, "fsync") : 0;
}

int disk_grow(int dirfd, const char *name, uint64_t size_bytes, struct err *e)
{
        AUTO(fd) int fd = disk_lock(dirfd, name, clock_mono_us() + GROW_WAIT_US, e);
        int r;

        if (fd < 0)
                return fd;
        r = grow(fd, size_bytes, e);
        return r < 0 ? err_wrap(e, r, "disk %s", name) : 0;
}
