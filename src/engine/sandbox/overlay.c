/* overlay.c - a cluster's root file system: read-only layers, and its own disk on top.  Operation
 * process, root on the host.
 *
 * Overlayfs keeps the rights of whoever mounts it for its work on the writable layer.  On an
 * idmapped disk the host's id 0 does not exist, so the mount is made with the file system ids of
 * the cluster's root (which own the disk's top directory) and the host's capabilities.
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

#define STRING_MAX  255U  /* of one fsconfig() value */
#define OPTIONS_MAX 4000U /* of mount(2), less than a page */

struct overlay {
        enum overlay_way way;
        int lower; /* the working directory while layers are looked up */
        const char *const *layers;
        size_t n;
        char upper[40], work[40];
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

static bool plain_name(const char *s)
{
        for (const char *p = s; *p; p++)
                if (*p == ':' || *p == ',' || *p == '\\' || *p == '"' || (unsigned char) *p <= ' ')
                        return false;
        return s[0] != '\0' && s[0] != '/' && strncmp(s, "..", 2) != 0 && !strstr(s, "/..");
}

static int text(int fs, const char *key, const char *value)
{
        return fsconfig(fs, FSCONFIG_SET_STRING, key, value, 0) < 0 ? -errno : 0;
}

static char *joined(const struct overlay *o)
{
        struct strbuf b = { 0 };

        for (size_t i = 0; i < o->n; i++)
                strbuf_fmt(&b, "%s%s", i ? ":" : "", o->layers[i]);
        return strbuf_take(&b);
}

/* All in one value where that fits, else one layer at a time, which kernels from 6.8 on take. */
static int set_layers(int fs, const struct overlay *o, const char *all)
{
        int r = 0;

        if (strlen(all) <= STRING_MAX)
                return text(fs, "lowerdir", all);
        for (size_t i = 0; i < o->n && r >= 0; i++)
                r = text(fs, "lowerdir+", o->layers[i]);
        return r;
}

static int by_fsconfig(const struct overlay *o, const char *all)
{
        AUTO(fd) int fs = fsopen("overlay", FSOPEN_CLOEXEC);
        int r = fs < 0 ? -errno : text(fs, "source", "overlay");

        if (r >= 0)
                r = set_layers(fs, o, all);
        if (r >= 0)
                r = text(fs, "upperdir", o->upper);
        if (r >= 0)
                r = text(fs, "workdir", o->work);
        if (r >= 0) /* rename of an image's directory works; dpkg does that */
                r = text(fs, "redirect_dir", "on");
        if (r >= 0)
                r = text(fs, "metacopy", "off");
        if (r >= 0)
                r = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        if (r >= 0)
                r = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV);
        return r == -1 ? -errno : r;
}

/* mount(2) takes a page of options but wants a place: @dir of the throw-away namespace. */
static int by_mount(const struct overlay *o, const char *all, const char *dir)
{
        static const char format[] = "lowerdir=%s,upperdir=%s,workdir=%s,"
                                     "redirect_dir=on,metacopy=off";
        AUTO(free) char *options = str_fmt(format, all, o->upper, o->work);
        int fd;

        if (!options)
                return -ENOMEM;
        if (strlen(options) > OPTIONS_MAX)
                return -E2BIG;
        if (mount("overlay", dir, "overlay", MS_NODEV, options) < 0)
                return -errno;
        fd = open_tree(AT_FDCWD, dir, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

/* Attach both mounts below a tmpfs of this (throw-away) namespace, then try again. */
static int attached(struct overlay *o, const char *all, int upper_mnt, struct err *e)
{
        AUTO(fd) int fs = -EBADF;
        AUTO(fd) int lower = -EBADF, upper = -EBADF;
        int r;

        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return err_errno(e, -errno, "private mounts");
        fs = mount_make("tmpfs", NULL, 0, e);
        if (fs < 0)
                return fs;
        /* over whatever directory: nobody else sees this namespace */
        r = mount_attach(fs, AT_FDCWD, "/proc", e);
        if (r < 0)
                return r;
        if (mkdirat(fs, "l", 0755) < 0 || mkdirat(fs, "u", 0755) < 0 || mkdirat(fs, "o", 0755) < 0)
                return err_errno(e, -errno, "directories for an overlay");
        lower = open_tree(o->lower, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        upper = open_tree(upper_mnt, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        r = mount_attach(lower < 0 ? o->lower : lower, fs, "l", e);
        if (r >= 0)
                r = mount_attach(upper < 0 ? upper_mnt : upper, fs, "u", e);
        if (r < 0)
                return r;
        if (chdir("/proc/l") < 0)
                return err_errno(e, -errno, "enter the layers");
        (void) snprintf(o->upper, sizeof o->upper, "/proc/u/upper");
        (void) snprintf(o->work, sizeof o->work, "/proc/u/work");
        r = o->way == OVERLAY_OPTIONS ? -EINVAL : by_fsconfig(o, all);
        if (r == -EINVAL)
                r = by_mount(o, all, "/proc/o");
        return r < 0 ? err_errno(e, r, "overlay of %zu layers", o->n) : r;
}

/* The same in a mount namespace of its own; the caller's comes back whatever happens. */
static int by_namespace(struct overlay *o, const char *all, int upper_mnt, struct err *e)
{
        AUTO(fd) int home = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
        AUTO(fd) int mnt = -EBADF;

        if (home < 0)
                return err_errno(e, -errno, "open the mount namespace");
        if (unshare(CLONE_NEWNS) < 0)
                return err_errno(e, -errno, "mount namespace for an overlay");
        mnt = attached(o, all, upper_mnt, e);
        if (setns(home, CLONE_NEWNS) < 0) /* also takes us back to its root directory */
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

static int mount_overlay(struct overlay *o, int upper_mnt, struct err *e)
{
        AUTO(free) char *all = joined(o);
        int r;

        if (!all)
                return err_set(e, -ENOMEM, "overlay: out of memory");
        r = make_dirs(upper_mnt);
        if (r < 0)
                return err_errno(e, r, "directories of the container disk");
        if (fchdir(o->lower) < 0)
                return err_errno(e, -errno, "enter the layers");
        r = o->way == OVERLAY_ANY || o->way == OVERLAY_DETACHED ? by_fsconfig(o, all) : -EINVAL;
        if (r == -EINVAL && o->way != OVERLAY_DETACHED)
                return by_namespace(o, all, upper_mnt, e);
        return r < 0 ? err_errno(e, r, "overlay of %zu layers", o->n) : r;
}

int overlay_make(int lower_mnt, const char *const *layers, size_t n_layers, int upper_mnt,
                 enum overlay_way way, struct err *e)
{
        struct overlay o = { .way = way, .lower = lower_mnt, .layers = layers, .n = n_layers };
        AUTO(fd) int cwd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        AUTO(fd) int mnt = -EBADF;
        struct stat st;
        int r;

        if (n_layers == 0)
                return err_set(e, -EINVAL, "overlay: no layer");
        for (size_t i = 0; i < n_layers; i++)
                if (!plain_name(layers[i]))
                        return err_set(e, -EINVAL, "overlay: layer name '%s'", layers[i]);
        if (cwd < 0 || fstat(upper_mnt, &st) < 0)
                return err_errno(e, -errno, "overlay");
        (void) snprintf(o.upper, sizeof o.upper, "/proc/self/fd/%d/upper", upper_mnt);
        (void) snprintf(o.work, sizeof o.work, "/proc/self/fd/%d/work", upper_mnt);
        r = fs_ids(st.st_uid, st.st_gid);
        if (r >= 0)
                mnt = mount_overlay(&o, upper_mnt, e);
        else
                (void) err_errno(e, r, "overlay: ids %u:%u", st.st_uid, st.st_gid);
        if (fs_ids(0, 0) < 0 || fchdir(cwd) < 0)
                return err_errno(e, -errno, "overlay: return to own ids and directory");
        return r < 0 ? r : fd_take(&mnt);
}

enum overlay_way overlay_probe(void)
{
        static const char *const layer[] = { "lower" };
        AUTO(fd) int fs = mount_make("tmpfs", NULL, 0, NULL);
        AUTO(fd) int mnt = -EBADF;

        if (fs < 0 || mkdirat(fs, "lower", 0755) < 0)
                return OVERLAY_ANY;
        mnt = overlay_make(fs, layer, 1, fs, OVERLAY_DETACHED, NULL);
        return mnt == -EINVAL ? OVERLAY_NAMESPACE : OVERLAY_ANY;
}
