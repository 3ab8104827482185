/* dev.c - a cluster's /dev and what else can be mounted ahead.  Operation process or the filling of
 * a pool; root on the host.
 *
 * The tmpfs and its nodes are made here, with the host's rights, and handed on as a detached mount:
 * nodes in a file system that belongs to the cluster's own user namespace would not open.  Fresh
 * inodes per cluster, rather than the host's nodes bind-mounted, also mean that locks, watches and
 * times on /dev/null are nothing that two clusters share.  What may be opened is up to the
 * cluster's device rules; the caller has checked the inodes that further devices are copied from.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/sandbox/sandbox_priv.h"

/* Terminals: the kernel has 4,096 for all instances of devpts together (kernel.pty.max).
 * Inodes of a tmpfs are small and still memory: that of /dev/shm is set with its size. */
#define PTYS   "256"
#define INODES "4096"

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static const struct dev_node {
        const char *name;
        unsigned major, minor;
} base_nodes[] = {
        { "null", 1, 3 },   { "zero", 1, 5 },    { "full", 1, 7 },
        { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 },
};

static const char *const links[][2] = {
        { "fd", "/proc/self/fd" },       { "stdin", "/proc/self/fd/0" },
        { "stdout", "/proc/self/fd/1" }, { "stderr", "/proc/self/fd/2" },
        { "ptmx", "pts/ptmx" },
};

static const struct dev_dir {
        const char *name;
        mode_t mode;
} dirs[] = { { "pts", 0755 }, { "shm", 01777 }, { "mqueue", 01777 } };

static int own(int dir, const char *name, uint32_t id)
{
        return fchownat(dir, name, id, id, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int node(int dir, const char *name, mode_t type, dev_t rdev, uint32_t id)
{
        if (mknodat(dir, name, type | 0666, rdev) < 0)
                return -errno;
        return own(dir, name, id);
}

static int base_content(int dir, uint32_t id, struct err *e)
{
        int r = 0;

        for (size_t i = 0; i < NELEM(base_nodes) && r >= 0; i++)
                r = node(dir, base_nodes[i].name, S_IFCHR,
                         makedev(base_nodes[i].major, base_nodes[i].minor), id);
        for (size_t i = 0; i < NELEM(links) && r >= 0; i++)
                r = symlinkat(links[i][1], dir, links[i][0]) < 0 ? -errno
                                                                 : own(dir, links[i][0], id);
        for (size_t i = 0; i < NELEM(dirs) && r >= 0; i++)
                r = mkdirat(dir, dirs[i].name, dirs[i].mode) < 0 ? -errno
                                                                 : own(dir, dirs[i].name, id);
        return r < 0 ? err_errno(e, r, "fill /dev") : 0;
}

/* "nvidia0" or one directory deep, "nvidia-caps/nvidia-cap1". */
static int further(int dir, const struct sandbox_device *d, uint32_t id, struct err *e)
{
        const char *slash = strchr(d->name, '/');
        char parent[64];
        struct stat st;
        int r;

        if (fstat(d->fd, &st) < 0)
                return err_errno(e, -errno, "device %s", d->name);
        if (!S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
                return err_set(e, -EINVAL, "device %s: not a device node", d->name);
        if (d->name[0] == '.' || d->name[0] == '/' || strstr(d->name, "/."))
                return err_set(e, -EINVAL, "device %s: not a name below /dev", d->name);
        if (slash) {
                r = snprintf(parent, sizeof parent, "%.*s", (int) (slash - d->name), d->name);
                if (r >= (int) sizeof parent || strchr(slash + 1, '/'))
                        return err_set(e, -EINVAL, "device %s: name too deep", d->name);
                if (mkdirat(dir, parent, 0755) < 0 && errno != EEXIST)
                        return err_errno(e, -errno, "device %s", d->name);
        }
        r = node(dir, d->name, st.st_mode & S_IFMT, st.st_rdev, id);
        if (r >= 0 && d->mode && d->mode != 0666 && fchmodat(dir, d->name, d->mode, 0) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "device %s", d->name) : 0;
}

/* An instance whose slaves, made by the cluster, belong to whoever opens them there. */
static int own_devpts(uint32_t id, struct err *e)
{
        char tty[16];
        const char *const options[][2] = { { "newinstance", NULL }, { "ptmxmode", "0666" },
                                           { "mode", "0620" },      { "gid", tty },
                                           { "max", PTYS },         { NULL, NULL } };
        AUTO(fd) int fd = -EBADF;

        (void) snprintf(tty, sizeof tty, "%u", id + SANDBOX_TTY_GID);
        fd = mount_make("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, e);
        if (fd < 0)
                return fd;
        if (own(fd, "ptmx", id) < 0 || fchownat(fd, "", id, id, AT_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "own /dev/pts");
        return fd_take(&fd);
}

/* A tmpfs root that belongs to the cluster's root. */
static int own_tmpfs(const char *id, const char *mode, const char *size, unsigned attrs,
                     struct err *e)
{
        const char *const options[][2] = {
                { "mode", mode }, { "size", size },        { "uid", id },
                { "gid", id },    { "nr_inodes", INODES }, { NULL, NULL }
        };

        return mount_make("tmpfs", options, attrs, e);
}

/* tmpfs for /sys/fs/cgroup; made read-only once it is filled. */
static int cgroup_tmpfs(const struct cgroup_view *v, const char *id, struct err *e)
{
        AUTO(fd) int fd = own_tmpfs(id, "0755", "4k", QUIET, e);
        int r = fd < 0 ? fd : cgroup_dirs(v, fd);

        if (fd >= 0 && r < 0)
                return err_errno(e, r, "directories for /sys/fs/cgroup");
        return fd_take(&fd);
}

int mounts_make(const struct cgroup_view *v, uint32_t id_base, int mnt[MNT_COUNT], struct err *e)
{
        mode_t mask = umask(0);
        char id[16];
        int r;

        (void) snprintf(id, sizeof id, "%u", id_base);
        r = mnt[MNT_DEV] = own_tmpfs(id, "0755", "1m", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, e);
        if (r >= 0)
                r = base_content(mnt[MNT_DEV], id_base, e);
        if (r >= 0)
                r = mnt[MNT_PTS] = own_devpts(id_base, e);
        if (r >= 0)
                r = mnt[MNT_SHM] = own_tmpfs(id, "1777", "64m", QUIET, e);
        if (r >= 0)
                r = mnt[MNT_EMPTY] = own_tmpfs(id, "0555", "4k", QUIET | MOUNT_ATTR_RDONLY, e);
        if (r >= 0)
                r = mnt[MNT_CGROUP] = cgroup_tmpfs(v, id, e);
        (void) umask(mask);
        return r < 0 ? r : 0;
}

static int resize(int mnt, uint64_t bytes, struct err *e)
{
        AUTO(fd) int fs = fspick(mnt, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
        char size[32], inodes[32];

        (void) snprintf(size, sizeof size, "%llu", (unsigned long long) bytes);
        (void) snprintf(inodes, sizeof inodes, "%llu",
                        (unsigned long long) (bytes / SANDBOX_BYTES_PER_INODE));
        if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "size", size, 0) < 0 ||
            fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", inodes, 0) < 0 ||
            fsconfig(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
                return err_errno(e, -errno, "size of /dev/shm");
        return 0;
}

int mounts_finish(const struct sandbox_spec *s, uint32_t id_base, int dev, int shm, struct err *e)
{
        mode_t mask = umask(0);
        int r = 0;

        for (size_t i = 0; i < s->n_devices && r >= 0; i++)
                r = further(dev, &s->devices[i], id_base, e);
        (void) umask(mask);
        return r < 0 ? r : resize(shm, s->shm_bytes, e);
}
