/* disk_mount.c - a disk file as a detached mount: lock, loop device, ext4.
 *
 * Runs in operation processes.  #syscalls fsopen fsconfig fsmount flock ioctl openat
 * Always: until the mount exists everything hangs on descriptors of this process (the loop device
 * has autoclear), afterwards everything hangs on the mount; nothing is left behind by a kill at any
 * point, and nothing has to be undone by name.
 *
 * A disk without a journal is one that is thrown away at stop (disk_make() says so): a write there is
 * never waited for by anybody after a crash, so it gets no write barriers, and its loop device
 * goes through the page cache, where pages of an unlinked file die without ever reaching the disk.
 * A disk with a journal is a volume: barriers, and direct I/O where the host's file system can, so
 * that "written" means written and nothing is cached twice. */
#include "engine/disk/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/disk/disk_priv.h"
#include "engine/disk/loop.h"

/* In no public kernel header: fs/ext4/ext4.h. */
#define EXT4_IOC_SHUTDOWN     _IOR('X', 125, uint32_t)
#define EXT4_SHUTDOWN_NOFLUSH 2U

/* --- mounting ------------------------------------------------------------------------------ */

/* What ext4 itself says is in the context's log, or only in the kernel's. */
static int mount_failed(int fs, int code, const char *what, struct err *e)
{
        char said[256];
        ssize_t n = read(fs, said, sizeof said - 1);

        if (n <= 0)
                return err_errno(e, code, "%s", what);
        said[n] = '\0';
        said[strcspn(said, "\n")] = '\0';
        return err_errno(e, code, "%s (%s)", what, said);
}

int disk_mount_ext4(const char *device, bool journal, struct err *e)
{
        static const char *const volume[] = { NULL };
        static const char *const thrown_away[] = { "nobarrier", NULL };
        AUTO(fd) int fs = (int) syscall(SYS_fsopen, "ext4", FSOPEN_CLOEXEC);
        int mnt;

        if (fs < 0)
                return err_errno(e, -errno, "fsopen ext4");
        if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", device, 0) < 0 ||
            syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "errors", "remount-ro", 0) < 0)
                return mount_failed(fs, -errno, "ext4 options", e);
        for (const char *const *o = journal ? volume : thrown_away; *o; o++)
                if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, *o, NULL, 0) < 0)
                        return mount_failed(fs, -errno, *o, e);
        if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return mount_failed(fs, -errno, "mount ext4", e);
        mnt = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
        return mnt < 0 ? mount_failed(fs, -errno, "fsmount ext4", e) : mnt;
}

int disk_mount(int dirfd, const char *name, uint64_t deadline_us, struct err *e)
{
        AUTO(fd) int file = disk_lock(dirfd, name, deadline_us, e);
        AUTO(fd) int loop = -EBADF;
        struct disk_super super;
        char path[LOOP_PATH_BYTES];
        int r, mnt;

        if (file < 0)
                return file;
        r = disk_super_read(file, &super, e);
        if (r < 0)
                return err_wrap(e, r, "disk %s", name);
        loop = loop_attach(file, super.journal ? LOOP_DIRECT : 0, path, e);
        if (loop < 0)
                return err_wrap(e, loop, "disk %s", name);
        mnt = disk_mount_ext4(path, super.journal, e);
        if (mnt < 0)
                return err_wrap(e, mnt, "disk %s", name);
        /* mkfs makes it for e2fsck, which can make it again; to a tenant it is only in the way of
         * programs that want an empty directory */
        if (super.fresh)
                (void) unlinkat(mnt, "lost+found", AT_REMOVEDIR);
        return mnt;
}

/* --- throwing away ------------------------------------------------------------------------- */

/* The loop device on this file; -ENOENT: none. */
int disk_find_loop(const struct stat *file, char *ret_path)
{
        AUTO(fd) int block = open("/sys/block", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = block < 0 ? NULL : fdopendir(block);
        int found = -ENOENT;
        struct dirent *de;

        if (!dir)
                return -errno;
        (void) fd_take(&block);
        while (found == -ENOENT && (de = readdir(dir)) != NULL) {
                AUTO(fd) int loop = -EBADF;
                struct loop_info64 info;

                if (!str_after(de->d_name, "loop") ||
                    snprintf(ret_path, 32, "/dev/%.20s", de->d_name) >= 32)
                        continue;
                loop = open(ret_path, O_RDONLY | O_CLOEXEC);
                if (loop >= 0 && ioctl(loop, LOOP_GET_STATUS64, &info) == 0 &&
                    info.lo_inode == file->st_ino && info.lo_device == file->st_dev)
                        found = fd_take(&loop);
        }
        (void) closedir(dir);
        return found;
}

int disk_abandon(int dirfd, const char *name, struct err *e)
{
        AUTO(fd) int file = disk_open(dirfd, name, O_RDONLY, e), loop = -EBADF, mnt = -EBADF;
        uint32_t how = EXT4_SHUTDOWN_NOFLUSH;
        AUTO(fd) int top = -EBADF;
        struct disk_super super;
        struct stat st;
        char path[32];
        int r;

        if (file == -ENOENT)
                return 0;
        if (file < 0 || (r = disk_super_read(file, &super, e)) < 0)
                return file < 0 ? file : err_wrap(e, r, "disk %s", name);
        if (super.journal)
                return err_set(e, -EINVAL, "disk %s is a volume: it is not to be thrown away",
                               name);
        if (fstat(file, &st) < 0)
                return err_errno(e, -errno, "disk %s: stat", name);
        loop = disk_find_loop(&st, path);
        if (loop < 0)
                return loop == -ENOENT ? 0
                                       : err_errno(e, loop, "disk %s: find its loop device", name);
        mnt = disk_mount_ext4(path, false, e); /* another mount of the very same superblock */
        if (mnt < 0)
                return err_wrap(e, mnt, "disk %s", name);
        top = openat(mnt, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (top < 0 || ioctl(top, EXT4_IOC_SHUTDOWN, &how) < 0)
                return err_errno(e, -errno, "disk %s: shut the file system down", name);
        return 0;
}
