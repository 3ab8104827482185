/* jail.c - see jail.h.  Child of the engine, between fork and exec; one thread. */
#include "engine/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"

#define ROWS_MAX 24U

static int new_tmpfs(struct err *e)
{
        static const char *const options[][2] = { { "size", "64k" },
                                                  { "nr_inodes", "128" },
                                                  { "mode", "755" } };
        AUTO(fd) int fs = (int) syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
        int mnt;

        if (fs < 0)
                return err_errno(e, -errno, "tmpfs");
        for (size_t i = 0; i < NELEM(options); i++)
                if (syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, options[i][0], options[i][1],
                            0) < 0)
                        return err_errno(e, -errno, "tmpfs %s", options[i][0]);
        if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return err_errno(e, -errno, "tmpfs");
        mnt = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
                            MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        return mnt < 0 ? err_errno(e, -errno, "tmpfs") : mnt;
}

/* A copy of the mount, attached nowhere yet; -EBADF: there is nothing at this path. */
static int clone_row(const struct jail_row *row, struct err *e)
{
        struct mount_attr a = { .attr_set = MOUNT_ATTR_NOSUID };
        int fd = (int) syscall(SYS_open_tree, AT_FDCWD, row->path,
                               OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE |
                                       AT_SYMLINK_NOFOLLOW);

        if (fd < 0)
                return errno == ENOENT ? -EBADF : err_errno(e, -errno, "%s", row->path);
        if (row->kind == JAIL_READ)
                a.attr_set |= MOUNT_ATTR_RDONLY;
        if (row->kind == JAIL_WRITE)
                a.attr_set |= MOUNT_ATTR_NOEXEC;
        if (row->kind != JAIL_DEVICE)
                a.attr_set |= MOUNT_ATTR_NODEV;
        if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof a) < 0) {
                int r = -errno;

                (void) close(fd);
                return err_errno(e, r, "%s", row->path);
        }
        return fd;
}

/* The directory that is to hold the last component of @path, which *@ret_name then is. */
static int parent_of(int root, const char *path, const char **ret_name, struct err *e)
{
        char dir[PATH_MAX];
        const char *slash = strrchr(path, '/');
        int fd;

        if (!slash || !slash[1] || strlen(path) >= sizeof dir)
                return err_set(e, -EINVAL, "'%s' is no path for a private root", path);
        *ret_name = slash + 1;
        if (slash == path)
                return openat(root, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
        memcpy(dir, path + 1, (size_t) (slash - path) - 1);
        dir[slash - path - 1] = '\0';
        fd = fd_mkdir_beneath(root, dir, 0755);
        return fd < 0 ? err_errno(e, fd, "making /%s", dir) : fd;
}

static int show_link(int parent, const char *name, const char *path, struct err *e)
{
        char to[PATH_MAX];
        ssize_t n = readlink(path, to, sizeof to - 1);

        if (n < 0)
                return err_errno(e, -errno, "%s", path);
        to[n] = '\0';
        return symlinkat(to, parent, name) < 0 ? err_errno(e, -errno, "link %s", path) : 0;
}

static int show(int root, const char *path, int tree, struct err *e)
{
        const char *name = NULL;
        AUTO(fd) int parent = parent_of(root, path, &name, e);
        AUTO(fd) int at = -EBADF;
        struct stat st;

        if (parent < 0)
                return parent;
        if (fstat(tree, &st) < 0)
                return err_errno(e, -errno, "%s", path);
        if (S_ISLNK(st.st_mode))
                return show_link(parent, name, path, e);
        if (S_ISDIR(st.st_mode))
                at = fd_mkdir_beneath(parent, name, 0755);
        else
                at = openat(parent, name, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0644);
        if (at < 0)
                return err_errno(e, S_ISDIR(st.st_mode) ? at : -errno, "a place for %s", path);
        if (syscall(SYS_move_mount, tree, "", at, "",
                    MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "mounting %s", path);
        return 0;
}

static int fill(int root, const struct jail_row *rows, const int *trees, size_t n, struct err *e)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n; i++)
                if (trees[i] >= 0)
                        r = show(root, rows[i].path, trees[i], e);
        return r;
}

/* Links are read in the old tree, so the new root covers nothing but /proc until it is complete. */
static int change_root(const struct jail_row *rows, const int *trees, size_t n, struct err *e)
{
        struct mount_attr ro = { .attr_set = MOUNT_ATTR_RDONLY };
        AUTO(fd) int root = new_tmpfs(e);
        int r;

        if (root < 0)
                return root;
        if (syscall(SYS_move_mount, root, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "mounting the new root");
        r = fill(root, rows, trees, n, e);
        if (r < 0)
                return r;
        if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
                return err_errno(e, -errno, "changing the root");
        if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
                return err_errno(e, -errno, "leaving the host's root");
        if (syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &ro, sizeof ro) < 0)
                return err_errno(e, -errno, "making the root read-only");
        return 0;
}

int jail_enter(const struct jail_row *rows, size_t n, struct err *e)
{
        int trees[ROWS_MAX], r = 0;

        if (n > NELEM(trees))
                return err_set(e, -E2BIG, "private root: more than %u rows", ROWS_MAX);
        for (size_t i = 0; i < n; i++)
                trees[i] = -EBADF;
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return err_errno(e, -errno, "a mount namespace of its own");
        for (size_t i = 0; r >= 0 && i < n; i++) {
                int fd = clone_row(&rows[i], e);

                trees[i] = fd;
                r = fd == -EBADF ? 0 : fd;
        }
        if (r >= 0)
                r = change_root(rows, trees, n, e);
        for (size_t i = 0; i < n; i++)
                (void) fd_close(trees[i]);
        return r;
}
