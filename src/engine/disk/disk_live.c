/* disk_live.c - growing a disk that is mounted.
 *
 * Runs in operation processes; the mount that is used may be a tenant's.
 * Always: nothing of the mount's own tree is opened by name.  The file system is reached through a
 * second mount of the very same superblock, made from the loop device that holds our file, and its
 * top directory alone is opened.
 *
 * Theory of operation: the file grows, the loop device is told, then ext4.  Each step done twice is
 * done once, so a kill anywhere is mended by the next call, or by the next mount's disk_grow(). */
#include "engine/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/disk/disk_priv.h"
#include "engine/disk/loop.h"

/* In no public kernel header: fs/ext4/ext4.h. */
#define EXT4_IOC_RESIZE_FS _IOW('f', 16, uint64_t)

/* What ext4 asks for; some machines keep it from root. */
static bool may_resize(void)
{
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct d[2] = { { 0 } };

        if (syscall(SYS_capget, &h, d) < 0)
                return false;
        return d[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective & CAP_TO_MASK(CAP_SYS_RESOURCE);
}

static int check(int fd, struct disk_super *ret, struct err *e)
{
        int r = disk_super_read(fd, ret, e);

        if (r < 0)
                return r;
        if (ret->sparse2)
                return err_set(
                        e, -EOPNOTSUPP,
                        "it was made by an older version, which no kernel grows while it is mounted; restart the cluster first");
        if (!may_resize())
                return err_set(
                        e, -EPERM,
                        "this host does not let its engine grow a disk that is mounted (CAP_SYS_RESOURCE); stop the cluster, update it, and start it again");
        return 0;
}

int disk_grow_mounted_check(int dirfd, const char *name, struct err *e)
{
        AUTO(fd) int fd = disk_open(dirfd, name, O_RDONLY, e);
        struct disk_super super;

        return fd < 0 ? fd : check(fd, &super, e);
}

int disk_fs_size(int dirfd, const char *name, uint64_t *ret_bytes, struct err *e)
{
        AUTO(fd) int fd = disk_open(dirfd, name, O_RDONLY, e);
        struct disk_super super;
        int r = fd < 0 ? fd : disk_super_read(fd, &super, e);

        if (r < 0)
                return r;
        *ret_bytes = super.size_bytes;
        return 0;
}

static int resize(const char *device, bool journal, uint64_t size_bytes, struct err *e)
{
        AUTO(fd) int mnt = disk_mount_ext4(device, journal, e);
        AUTO(fd) int top = -EBADF;
        uint64_t blocks = size_bytes / DISK_BLOCK;

        if (mnt < 0)
                return mnt;
        top = openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (top < 0 || ioctl(top, EXT4_IOC_RESIZE_FS, &blocks) < 0)
                return err_errno(e, -errno, "grow the file system");
        return 0;
}

int disk_grow_mounted(int dirfd, const char *name, uint64_t size_bytes, struct err *e)
{
        AUTO(fd) int file = disk_open(dirfd, name, O_RDWR, e), loop = -EBADF;
        struct disk_super super;
        char path[LOOP_PATH_BYTES];
        struct stat st;
        bool full = false;
        int r = file < 0 ? file : check(file, &super, e);

        if (r >= 0)
                r = disk_size_check(size_bytes, e);
        if (r < 0)
                return r;
        if (fstat(file, &st) < 0)
                return err_errno(e, -errno, "stat");
        loop = disk_find_loop(&st, path);
        if (loop < 0)
                return err_errno(e, loop, "find its loop device");
        r = disk_grow_file(file, size_bytes, &full, e);
        if (r < 0)
                return r;
        if (ioctl(loop, LOOP_SET_CAPACITY, 0) < 0)
                return err_errno(e, -errno, "tell the loop device");
        r = resize(path, super.journal, size_bytes, e);
        if (r >= 0 && full) /* some file systems can zero a range only by a hole */
                r = disk_allocate(file, 0, size_bytes, e);
        if (r >= 0 && super.journal && fsync(file) < 0)
                r = err_errno(e, -errno, "fsync");
        return r < 0 ? r : 0;
}
