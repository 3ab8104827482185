/* overlay.c - a cluster's root file system: a read-only image, and its own disk on top.  Operation
 * process, root on the host.
 *
 * Overlayfs keeps the rights of whoever mounts it for its work on the writable layer.  On an
 * idmapped disk the host's id 0 does not exist, so the mount is made with the file system ids of
 * the cluster's root (which own the disk's top directory) and the host's capabilities.
 *
 * An image may keep the content of large files beside its tree: then the tree is marked with
 * attributes that only we can write (metacopy, redirect), and the objects are a lower layer without
 * names of its own, from which overlayfs takes data alone.
 *
 * What a cluster writes to its container disk is thrown away when it ends, so none of it needs to be on
 * the disk before that: "volatile" spares every unmount, and every fsync(2) inside, a sync of it.
 * Volumes are mounts of their own and keep their promises.
 *
 * Kernels from 6.15 on take layers from detached mounts.  Older ones want them in the caller's
 * mount namespace: then a throw-away one is made, in which they are attached below a tmpfs. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

struct overlay {
        enum overlay_way way;
        int lower, data, upper_mnt; /* data: -EBADF when there are no objects */
        char lowerdir[96], upper[40], work[40];
};

/* File system ids of @uid and @gid, keeping every capability: the change drops those for files. */
static int fs_ids(uid_t uid, gid_t gid)
{
        struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct d[2];

        (void) setfsgid(gid);
        (void) setfsuid(uid);
        if ((uid_t) setfsuid((uid_t) -1) != uid || (gid_t) setfsgid((gid_t) -1) != gid)
                return -EPERM;
        if (syscall(SYS_capget, &h, d) < 0)
                return -errno;
        for (int i = 0; i < 2; i++)
                d[i].effective = d[i].permitted;
        return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

static int text(int fs, const char *key, const char *value)
{
        return fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

/* redirect_dir: rename of an image's directory works; dpkg does that.  metacopy follows the marks of
 * the image's tree. */
static const char *metacopy(const struct overlay *o)
{
        return o->data >= 0 ? "on" : "off";
}

/* -EINVAL: an option is not understood, mount(2) may be; -EOPNOTSUPP: together they were refused.  Then
 * the work directory may bear the mark of a volatile overlay, and nothing else can be mounted on it. */
static int by_fsconfig(const struct overlay *o)
{
        const char *const options[][2] = { { "source", "overlay" },  { "lowerdir", o->lowerdir },
                                           { "upperdir", o->upper }, { "workdir", o->work },
                                           { "redirect_dir", "on" }, { "metacopy", metacopy(o) } };
        AUTO(fd) int fs = fsopen("overlay", FSOPEN_CLOEXEC);
        int r = fs < 0 ? -errno : 0;

        for (size_t i = 0; i < NELEM(options) && r >= 0; i++)
                r = text(fs, options[i][0], options[i][1]);
        if (r >= 0)
                r = fsconfig(fs, FSCONFIG_SET_FLAG, "volatile", NULL, 0);
        if (r >= 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                r = errno == EINVAL ? -EOPNOTSUPP : -errno;
        if (r >= 0)
                r = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
        return r == -1 ? -errno : r;
}

/* mount(2) wants a place: @dir of the throw-away namespace. */
static int by_mount(const struct overlay *o, const char *dir)
{
        AUTO(free)
        char *options =
                str_fmt("lowerdir=%s,upperdir=%s,workdir=%s,redirect_dir=on,metacopy=%s,volatile",
                        o->lowerdir, o->upper, o->work, metacopy(o));
        int fd;

        if (!options)
                return -ENOMEM;
        if (mount("overlay", dir, "overlay", MS_NODEV, options) < 0)
                return -errno;
        fd = open_tree(AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* @mnt, or a clone of it where that can be made, at @name. */
static int attach_clone(int mnt, int dir, const char *name, struct err *e)
{
        AUTO(fd) int fd = -EBADF;

        if (mnt < 0)
                return 0;
        if (mkdirat(dir, name, 0755) < 0)
                return err_errno(e, -errno, "directories for an overlay");
        fd = open_tree(mnt, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        return mount_attach(fd < 0 ? mnt : fd, dir, name, e);
}

/* Attach the mounts below a tmpfs of this (throw-away) namespace, then try again. */
static int attached(struct overlay *o, struct err *e)
{
        AUTO(fd) int fs = -EBADF;
        int r;

        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return err_errno(e, -errno, "private mounts");
        fs = mount_make("tmpfs", NULL, 0, e);
        if (fs < 0)
                return fs;
        /* over whatever directory: nobody else sees this namespace */
        r = mount_attach(fs, AT_FDCWD, "/proc", e);
        if (r >= 0)
                r = attach_clone(o->lower, fs, "l", e);
        if (r >= 0)
                r = attach_clone(o->data, fs, "d", e);
        if (r >= 0)
                r = attach_clone(o->upper_mnt, fs, "u", e);
        if (r < 0)
                return r;
        if (mkdirat(fs, "o", 0755) < 0)
                return err_errno(e, -errno, "directories for an overlay");
        (void) snprintf(o->lowerdir, sizeof o->lowerdir, "/proc/l%s",
                        o->data >= 0 ? "::/proc/d" : "");
        (void) snprintf(o->upper, sizeof o->upper, "/proc/u/upper");
        (void) snprintf(o->work, sizeof o->work, "/proc/u/work");
        r = o->way == OVERLAY_OPTIONS ? -EINVAL : by_fsconfig(o);
        if (r == -EINVAL)
                r = by_mount(o, "/proc/o");
        return r < 0 ? err_errno(e, r, "overlay") : r;
}

/* The same in a mount namespace of its own; the caller's comes back whatever happens. */
static int by_namespace(struct overlay *o, struct err *e)
{
        AUTO(fd) int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
        AUTO(fd) int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        AUTO(fd) int mnt = -EBADF;

        if (home < 0 || cwd < 0)
                return err_errno(e, -errno, "open the mount namespace");
        if (unshare(CLONE_NEWNS) < 0)
                return err_errno(e, -errno, "mount namespace for an overlay");
        mnt = attached(o, e);
        if (setns(home, CLONE_NEWNS) < 0 || fchdir(cwd) < 0)
                return err_errno(e, -errno, "return to the mount namespace");
        return fd_take(&mnt);
}

static int make_dirs(int upper_mnt)
{
        if (mkdirat(upper_mnt, "upper", 0755) < 0 && errno != EEXIST)
                return -errno;
        if (mkdirat(upper_mnt, "work", 0700) < 0 && errno != EEXIST)
                return -errno;
        return 0;
}

static int mount_overlay(struct overlay *o, struct err *e)
{
        int r = make_dirs(o->upper_mnt);

        if (r < 0)
                return err_errno(e, r, "directories of the container disk");
        r = o->way == OVERLAY_ANY || o->way == OVERLAY_DETACHED ? by_fsconfig(o) : -EINVAL;
        if ((r == -EINVAL || r == -EOPNOTSUPP) && o->way != OVERLAY_DETACHED)
                return by_namespace(o, e);
        return r < 0 ? err_errno(e, r, "overlay") : r;
}

int overlay_make(int lower_mnt, int data_mnt, int upper_mnt, enum overlay_way way, struct err *e)
{
        struct overlay o = {
                .way = way, .lower = lower_mnt, .data = data_mnt, .upper_mnt = upper_mnt
        };
        AUTO(fd) int mnt = -EBADF;
        struct stat st;
        size_t n;
        int r;

        if (fstat(upper_mnt, &st) < 0)
                return err_errno(e, -errno, "overlay");
        n = (size_t) snprintf(o.lowerdir, sizeof o.lowerdir, "/proc/self/fd/%d", lower_mnt);
        if (data_mnt >= 0)
                (void) snprintf(o.lowerdir + n, sizeof o.lowerdir - n, "::/proc/self/fd/%d",
                                data_mnt);
        (void) snprintf(o.upper, sizeof o.upper, "/proc/self/fd/%d/upper", upper_mnt);
        (void) snprintf(o.work, sizeof o.work, "/proc/self/fd/%d/work", upper_mnt);
        r = fs_ids(st.st_uid, st.st_gid);
        if (r >= 0)
                mnt = mount_overlay(&o, e);
        else
                (void) err_errno(e, r, "overlay: ids %u:%u", st.st_uid, st.st_gid);
        if (fs_ids(0, 0) < 0)
                return err_errno(e, -errno, "overlay: return to own ids");
        return r < 0 ? r : fd_take(&mnt);
}

/* An overlay of directories of a new tmpfs: what overlay_make() says to it. */
static int try_out(bool data, enum overlay_way way)
{
        AUTO(fd) int lower = mount_make("tmpfs", NULL, 0, NULL);
        AUTO(fd) int upper = mount_make("tmpfs", NULL, 0, NULL);
        AUTO(fd) int objects = data ? mount_make("tmpfs", NULL, 0, NULL) : -EBADF;
        AUTO(fd) int mnt = -EBADF;

        if (lower < 0 || upper < 0 || (data && objects < 0))
                return -EIO;
        mnt = overlay_make(lower, objects, upper, way, NULL);
        return mnt < 0 ? mnt : 0;
}

enum overlay_way overlay_probe(void)
{
        int r = try_out(false, OVERLAY_DETACHED);

        return r == -EINVAL || r == -EOPNOTSUPP ? OVERLAY_NAMESPACE : OVERLAY_ANY;
}

bool sandbox_overlay_objects(void)
{
        return try_out(true, OVERLAY_NAMESPACE) >=
               0; /* a kernel without complains once, not twice */
}
