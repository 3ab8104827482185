/* live.c - other devices for a cluster that runs: nodes, what /proc/driver shows, driver files.
 * A child of an operation process; the cluster's processes are held still meanwhile.
 *
 * It enters the mount namespace of the first process through its pidfd and finds itself at the root of
 * that namespace, whatever directory a process of the cluster has made its own root: no process in
 * there can make or move mounts, so /dev and /proc are those that were put there at the start.  They are
 * opened from that root without following any link, and must be a tmpfs that belongs to the cluster
 * and the kernel's proc.  Names below /dev are the tenant's: nothing of it is followed or believed, a
 * node is what its inode says.
 *
 * Nodes and mounts are made with the host's rights; files of the image's tree only after it has taken on
 * the cluster's own user namespace.  Where the profile has the root read-only, it is writable in
 * between, with nobody there to write; a repetition after a kill closes it, too. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

#define TRIES 16 /* of making a node where the tenant has left something */
#define DEPTH                                                                                      \
        64 /* of directories in /dev; what lies deeper keeps its name, and does not open either */

static bool is_allowed(const struct sandbox_live *l, dev_t rdev)
{
        const struct slice_device *const set[] = { slice_base_devices, l->allowed };
        const size_t n[] = { slice_n_base_devices, l->n_allowed };

        for (size_t k = 0; k < NELEM(set); k++)
                for (size_t i = 0; i < n[k]; i++)
                        if (set[k][i].major == (int32_t) major(rdev) &&
                            (set[k][i].minor < 0 || set[k][i].minor == (int32_t) minor(rdev)))
                                return true;
        return false;
}

/* A directory of the namespace's root that is a mount of its own, of that kind. */
static int open_tree_of(int root, const char *name, long magic, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(root, name, O_RDONLY | O_DIRECTORY, 0);
        struct statfs fs;

        if (fd < 0 || fstatfs(fd, &fs) < 0)
                return err_errno(e, fd < 0 ? fd : -errno, "/%s", name);
        if (fs.f_type != magic)
                return err_set(e, -EINVAL, "/%s is not what it should be", name);
        return fd_take(&fd);
}

/* ---- nodes ---- */

/* Directories that a driver's nodes lie in. */
static bool is_drivers(const char *name)
{
        return str_after(name, "nvidia-caps") || str_eq(name, "dri");
}

static bool is_dots(const char *name)
{
        return str_eq(name, ".") || str_eq(name, "..");
}

/* A directory of the same file system, which pts, shm and mqueue are not; -EXDEV and such: none. */
static int open_below(int dir, const char *name)
{
        AUTO(fd) int sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        struct stat below, here;

        if (sub < 0 || fstat(sub, &below) < 0 || fstat(dir, &here) < 0)
                return -errno;
        return below.st_dev == here.st_dev ? fd_take(&sub) : -EXDEV;
}

/* Take away nodes that are not allowed any more, by all names that the tenant has given them: each is an
 * inode's worth of the tmpfs, so that there are some thousand at most.  Of the driver's directories those
 * that are empty then, too. */
static int prune(const struct sandbox_live *l, int at, unsigned depth, struct err *e)
{
        int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;

        if (!dir) {
                r = err_errno(e, -errno, "read /dev");
                (void) fd_close(fd);
                return r;
        }
        while (r >= 0 && (de = readdir(dir)) != NULL) {
                struct stat st;

                if (is_dots(de->d_name) ||
                    fstatat(dirfd(dir), de->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                if (S_ISCHR(st.st_mode) && !is_allowed(l, st.st_rdev) &&
                    unlinkat(dirfd(dir), de->d_name, 0) < 0 && errno != ENOENT)
                        r = err_errno(e, -errno, "remove /dev/%.40s", de->d_name);
                if (S_ISDIR(st.st_mode) && depth < DEPTH) {
                        AUTO(fd) int sub = open_below(dirfd(dir), de->d_name);

                        if (sub >= 0)
                                r = prune(l, sub, depth + 1, e);
                        if (depth == 0 && is_drivers(de->d_name))
                                (void) unlinkat(dirfd(dir), de->d_name, AT_REMOVEDIR);
                }
        }
        (void) closedir(dir);
        return r;
}

/* A node of ours at @name, whatever was there. */
static int place(int dir, const char *name, const struct stat *want, mode_t mode, uint32_t id)
{
        for (int i = 0; i < TRIES; i++) {
                struct stat st;

                if (mknodat(dir, name, S_IFCHR | mode, want->st_rdev) == 0)
                        return fchownat(dir, name, id, id, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
                if (errno != EEXIST)
                        return -errno;
                if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        continue;
                if (S_ISCHR(st.st_mode) && st.st_rdev == want->st_rdev)
                        return 0;
                if (unlinkat(dir, name, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
                        return -errno;
        }
        return -EBUSY;
}

static int add_node(const struct sandbox_live *l, int dev, const struct sandbox_device *d,
                    struct err *e)
{
        const char *slash = strchr(d->name, '/');
        AUTO(fd) int dir = fcntl(dev, F_DUPFD_CLOEXEC, 3);
        mode_t mode = d->mode ? d->mode & 0777 : 0666, mask;
        struct stat st, here;
        int r;

        if (fstat(d->fd, &st) < 0 || !S_ISCHR(st.st_mode))
                return err_set(e, -EINVAL, "device %s: not a device node", d->name);
        if (slash) {
                char name[64];

                (void) snprintf(name, sizeof name, "%.*s", (int) (slash - d->name), d->name);
                if (mkdirat(dev, name, 0755) < 0 && errno != EEXIST)
                        return err_errno(e, -errno, "device %s", d->name);
                dir = fd_close(dir);
                dir = fd_open_beneath(dev, name, O_RDONLY | O_DIRECTORY, 0);
                if (dir < 0 || fstat(dev, &here) < 0 || fstat(dir, &st) < 0 ||
                    here.st_dev != st.st_dev)
                        return err_set(e, -ENOTDIR, "/dev/%s inside is not a directory", name);
                if (fstat(d->fd, &st) < 0)
                        return err_errno(e, -errno, "device %s", d->name);
        }
        mask = umask(0);
        r = place(dir, slash ? slash + 1 : d->name, &st, mode, l->id_base);
        (void) umask(mask);
        return r < 0 ? err_errno(e, r, "gpuCount: /dev/%s cannot be made inside", d->name) : 0;
}

static int change_dev(const struct sandbox_live *l, int root, struct err *e)
{
        AUTO(fd) int dev = open_tree_of(root, "dev", TMPFS_MAGIC, e);
        struct stat st;
        int r = dev;

        if (r >= 0 && (fstat(dev, &st) < 0 || st.st_uid != l->id_base))
                return err_set(e, -EINVAL, "/dev is not the cluster's");
        if (r >= 0)
                r = prune(l, dev, 0, e);
        for (size_t i = 0; i < l->spec->n_devices && r >= 0; i++)
                r = add_node(l, dev, &l->spec->devices[i], e);
        return r < 0 ? r : 0;
}

/* ---- /proc/driver ---- */

/* What was shown goes, then the new one comes; below both lies an empty directory that covers the
 * kernel's. */
static int change_proc(const struct sandbox_live *l, int root, struct err *e)
{
        AUTO(fd) int proc = open_tree_of(root, "proc", PROC_SUPER_MAGIC, e), at = -EBADF;

        if (proc < 0)
                return proc;
        for (int i = 0; i < TRIES; i++) { /* one, or those that a kill has left */
                AUTO(fd) int old = fd_open_beneath(proc, "driver/nvidia", O_PATH, 0);
                struct statfs fs;

                if (old < 0)
                        break;
                if (fstatfs(old, &fs) < 0 || fs.f_type != TMPFS_MAGIC)
                        return err_set(e, -EINVAL, "/proc/driver is not what it should be");
                old = fd_close(old);
                if (fchdir(proc) < 0 || umount2("driver", MNT_DETACH | UMOUNT_NOFOLLOW) < 0)
                        return err_errno(e, -errno, "take /proc/driver away");
        }
        if (l->proc_mnt < 0)
                return 0;
        at = fd_open_beneath(proc, "driver", O_PATH | O_DIRECTORY, 0);
        if (at < 0)
                return err_errno(e, at, "/proc/driver");
        return mount_attach(l->proc_mnt, at, "", e);
}

/* ---- files ---- */

static int change_files(const struct sandbox_live *l, int root, struct err *e)
{
        struct mount_attr open = { .attr_clr = MOUNT_ATTR_RDONLY };
        struct err sealed = { 0 };
        int r, s;

        if (!policy_of(l->spec->profile)->root_rdonly)
                return inject_all(root, l->spec, NULL, e);
        if (mount_setattr(root, "", AT_EMPTY_PATH, &open, sizeof open) < 0)
                return err_errno(e, -errno, "open the root");
        r = inject_all(root, l->spec, NULL, e);
        s = mounts_seal(l->spec, root, &sealed);
        return s < 0 ? err_copy(e, &sealed) : r;
}

/* ---- all of it ---- */

static int change(const struct sandbox_live *l, struct err *e)
{
        AUTO(fd) int root = -EBADF;
        int r;

        if (setns(l->init_pidfd, CLONE_NEWNS) < 0)
                return err_errno(e, -errno, "enter the cluster's mounts");
        root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_errno(e, -errno, "open /");
        r = change_dev(l, root, e);
        if (r >= 0)
                r = change_proc(l, root, e);
        if (r < 0 || l->spec->n_binds + l->spec->n_symlinks + l->spec->n_libraries == 0)
                return r;
        if (setns(l->init_pidfd, CLONE_NEWUSER) < 0 || setgid(0) < 0 || setuid(0) < 0)
                return err_errno(e, -errno, "enter the cluster's user namespace");
        return change_files(l, root, e);
}

static _Noreturn void child(const struct sandbox_live *l, int out, pid_t parent)
{
        struct err e = { 0 };

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(1);
        if (change(l, &e) >= 0)
                (void) err_set(&e, 0, "%s", "");
        _exit(write(out, &e, sizeof e) == (ssize_t) sizeof e ? 0 : 1);
}

int sandbox_change(const struct sandbox_live *l, struct err *e)
{
        AUTO(fd) int from = -EBADF, to = -EBADF;
        struct err said = { 0 };
        pid_t parent = getpid(), pid;
        int pipefd[2], status;

        if (pipe2(pipefd, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        from = pipefd[0];
        to = pipefd[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0)
                child(l, to, parent);
        to = fd_close(to);
        if (fd_read_full(from, &said, sizeof said) != (ssize_t) sizeof said)
                (void) err_set(&said, -EOWNERDEAD, "the change of its devices was killed");
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                ;
        return said.code < 0 ? err_copy(e, &said) : 0;
}
