/* rootfs.c - paths inside a cluster's root.  First process, after the root has been switched: what
 * an image or a tenant left there is resolved as the program itself would see it, never outside,
 * and never through a magic link. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

static bool sane_path(const char *path)
{
        const char *p = path;

        if (path[0] != '/' || strlen(path) >= PATH_MAX)
                return false;
        while ((p = strstr(p, "/.."))) {
                if (p[3] == '/' || p[3] == '\0')
                        return false;
                p += 3;
        }
        return true;
}

/* One component below @at, whose own path (for links in it) is @so_far. */
static int step(int root, int at, const char *so_far, const char *name, mode_t mode)
{
        int fd = fd_open_in_root(root, so_far, O_PATH | O_DIRECTORY, 0);

        if (fd != -ENOENT)
                return fd;
        if (mkdirat(at, name, mode) < 0)
                return errno == EEXIST ? -ENOENT : -errno; /* a link that leads nowhere */
        return fd_open_beneath(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
}

int root_mkdirs(int root, const char *path, mode_t mode)
{
        char buf[PATH_MAX];
        AUTO(fd) int at = -EBADF;
        size_t len = 0;

        if (!sane_path(path))
                return -EINVAL;
        at = fd_open_in_root(root, path, O_PATH | O_DIRECTORY, 0);
        if (at != -ENOENT)
                return fd_take(&at);
        at = fd_open_in_root(root, "/", O_PATH | O_DIRECTORY, 0);
        while (at >= 0) {
                size_t n;
                int next;

                path += strspn(path, "/");
                n = strcspn(path, "/");
                if (n == 0)
                        break;
                buf[len++] = '/';
                memcpy(buf + len, path, n);
                buf[len + n] = '\0';
                next = step(root, at, buf, buf + len, mode);
                len += n;
                path += n;
                (void) fd_close(at);
                at = next;
        }
        return fd_take(&at);
}

int root_parent(int root, const char *path, const char **name)
{
        char dir[PATH_MAX];
        const char *slash = strrchr(path, '/');

        if (!sane_path(path) || slash[1] == '\0')
                return -EINVAL;
        (void) snprintf(dir, sizeof dir, "/%.*s", (int) (slash - path), path);
        *name = slash + 1;
        return root_mkdirs(root, dir, 0755);
}

int root_open_plain(int dir, const char *name, mode_t mode)
{
        const int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
        AUTO(fd) int fd = openat(dir, name, flags | O_TRUNC, mode);
        struct stat st;

        if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
                return fd_take(&fd);
        if (fd < 0 && errno != ELOOP && errno != ENXIO && errno != EACCES && errno != ENODEV)
                return -errno;
        fd = fd_close(fd);
        if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
                return -errno;
        fd = openat(dir, name, flags | O_EXCL, mode);
        return fd < 0 ? -errno : fd_take(&fd);
}

int root_write_file(int root, const struct sandbox_file *f, struct err *e)
{
        const char *name = NULL;
        AUTO(fd) int dir = root_parent(root, f->target, &name);
        AUTO(fd) int fd = -EBADF;
        struct stat st;
        int r;

        if (dir >= 0 && f->if_absent && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return 0;
        fd = dir < 0 ? dir : root_open_plain(dir, name, f->mode);
        if (fd < 0)
                return err_errno(e, fd, "write %s", f->target);
        r = fd_write_full(fd, f->content, strlen(f->content));
        if (r >= 0 && fchmod(fd, f->mode) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write %s", f->target) : 0;
}

/* A file to mount over; its content does not matter. */
static int touch(int root, const char *path)
{
        const char *name = NULL;
        AUTO(fd) int dir = -EBADF;
        AUTO(fd) int fd = fd_open_in_root(root, path, O_PATH, 0);

        if (fd != -ENOENT)
                return fd_take(&fd);
        dir = root_parent(root, path, &name);
        if (dir < 0)
                return dir;
        fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        (void) fd_close(fd);
        fd = fd_open_beneath(dir, name, O_PATH | O_NOFOLLOW, 0);
        return fd_take(&fd);
}

/* A link in the image must not lead a mount onto the masked trees, nor onto the root itself, below
 * which the program already is: it would never see the mount, and write to what stop wipes. */
int root_check_target(int root, int fd)
{
        static const unsigned long refused[] = { PROC_SUPER_MAGIC,   SYSFS_MAGIC,
                                                 CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
                                                 DEVPTS_SUPER_MAGIC, 0x19800202 /* mqueue */ };
        struct stat st, top;
        struct statfs fs;

        if (fstatfs(fd, &fs) < 0 || fstat(fd, &st) < 0 || fstat(root, &top) < 0)
                return -errno;
        if (st.st_dev == top.st_dev && st.st_ino == top.st_ino)
                return -EXDEV;
        for (size_t i = 0; i < NELEM(refused); i++)
                if ((unsigned long) fs.f_type == refused[i])
                        return -EXDEV;
        return 0;
}

int root_bind(int root, const struct sandbox_bind *b, uint64_t attrs, struct err *e)
{
        AUTO(fd) int at = -EBADF;
        struct stat st;
        int r;

        if (fstat(b->mnt, &st) < 0)
                return err_errno(e, -errno, "mount for %s", b->target);
        if (b->target[strspn(b->target, "/")] == '\0')
                return err_set(e, -EINVAL, "mount at '%s': that is the root", b->target);
        at = S_ISDIR(st.st_mode) ? root_mkdirs(root, b->target, 0755) : touch(root, b->target);
        r = at < 0 ? at : root_check_target(root, at);
        if (r < 0)
                return err_errno(e, r, "mount at %s", b->target);
        r = mount_restrict(b->mnt, attrs, e);
        if (r >= 0)
                r = mount_attach(b->mnt, at, "", e);
        return r < 0 ? err_wrap(e, r, "mount at %s", b->target) : 0;
}
