/* mounts.c - what the cluster's program sees below /.  First process, root of its own user
 * namespace and nobody outside it.
 *
 * In two steps.  Ahead of the program, /proc, /sys and /dev are built in an empty read-only tmpfs
 * that takes the place of the host's tree.  Order matters there: procfs (and a sysfs of ours) can
 * only be made while the host's are still in the mount namespace, because the kernel shows no more
 * than what was visible before.  Later, the cluster's root is mounted over that tmpfs and the three
 * are moved onto it: nothing has to be taken away then, which would wait for the kernel's grace
 * period.  What lies below the root is empty, and the kernel treats the topmost mount as the
 * namespace's root everywhere (for newcomers, "..", nested namespaces), as after switch_root.
 *
 * Names that an image can hold are looked up only once the host's tree is gone.  Everything is
 * attached by descriptor; /proc, /sys and /dev must be real directories. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"
#include "model/sshdir.h"

#define ATTR_PSEUDO (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

int mount_make(const char *type, const char *const (*options)[2], unsigned attrs, struct err *e)
{
        AUTO(fd) int fs = fsopen(type, FSOPEN_CLOEXEC);
        int r = fs < 0 ? -1 : 0, mnt;

        for (; r >= 0 && options && (*options)[0]; options++)
                r = fsconfig(fs, (*options)[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG,
                             (*options)[0], (*options)[1], 0);
        if (r >= 0)
                r = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
        mnt = r < 0 ? -1 : fsmount(fs, FSMOUNT_CLOEXEC, attrs);
        return mnt < 0 ? err_errno(e, -errno, "make a %s", type) : mnt;
}

int mount_restrict(int mnt, uint64_t attrs, struct err *e)
{
        struct mount_attr attr = { .attr_set = attrs };

        if (mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                return err_errno(e, -errno, "restrict a mount");
        return 0;
}

int mount_attach(int mnt, int dir, const char *path, struct err *e)
{
        unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (*path ? 0 : MOVE_MOUNT_T_EMPTY_PATH);

        if (move_mount(mnt, "", dir, path, flags) < 0)
                return err_errno(e, -errno, "attach a mount%s%s", *path ? " at " : "", path);
        return 0;
}

/* A directory of the image's that we mount on: real, no link, made when missing. */
static int mountpoint(int root, const char *name, struct err *e)
{
        int fd = fd_open_beneath(root, name, O_PATH | O_DIRECTORY, 0);

        if (fd == -ENOENT && mkdirat(root, name, 0755) == 0)
                fd = fd_open_beneath(root, name, O_PATH | O_DIRECTORY, 0);
        if (fd == -ELOOP || fd == -ENOTDIR)
                return err_set(e, fd, "image: /%s is not a directory of its own", name);
        return fd < 0 ? err_errno(e, fd, "image: /%s", name) : fd;
}

static int attach_at(int mnt, int root, const char *name, struct err *e)
{
        AUTO(fd) int at = mountpoint(root, name, e);

        return at < 0 ? at : mount_attach(mnt, at, "", e);
}

/* Device nodes that lie on a disk or in an image never work.  Under no_new_privs set-id bits and
 * file capabilities give nothing anyway; nosuid makes the kernel pass over them instead of refusing
 * to run a program (Debian's ping asks for NET_RAW, which no one here has, and does without). */
uint64_t mount_attrs_for(const struct sandbox_spec *s)
{
        return MOUNT_ATTR_NODEV | (policy_of(s->profile)->new_privs ? 0 : MOUNT_ATTR_NOSUID);
}

/* @mnt becomes / and the host's tree goes away, so that no descriptor-less way leads back. */
static int switch_root(int mnt, uint64_t attrs, struct err *e)
{
        int r = mount_restrict(mnt, attrs, e);

        if (r >= 0)
                r = mount_attach(mnt, AT_FDCWD, "/", e);
        if (r < 0)
                return err_wrap(e, r, "root");
        if (fchdir(mnt) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
                return err_errno(e, -errno, "switch the root");
        if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
                return err_errno(e, -errno, "let the host's root go");
        return 0;
}

static int dev_mounts(const struct launch *l, int root, struct err *e)
{
        static const struct {
                enum mnt mnt;
                const char *name;
        } rows[] = { { MNT_PTS, "pts" }, { MNT_SHM, "shm" } };
        AUTO(fd) int mqueue = mount_make("mqueue", NULL, ATTR_PSEUDO, e);
        int dev = l->mnt[MNT_DEV], r = mqueue < 0 ? mqueue : attach_at(dev, root, "dev", e);

        for (size_t i = 0; i < NELEM(rows) && r >= 0; i++)
                r = mount_attach(l->mnt[rows[i].mnt], dev, rows[i].name, e);
        if (r >= 0) /* shows the queues of our ipc namespace, so only we can make it */
                r = mount_attach(mqueue, dev, "mqueue", e);
        return r < 0 ? err_wrap(e, r, "/dev") : 0;
}

/* A node that really is /dev/null: what masks are made of. */
static int open_null(int dev, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(dev, "null", O_PATH, 0);
        struct stat st;

        if (fd < 0)
                return err_errno(e, fd, "/dev/null");
        if (fstat(fd, &st) < 0 || !S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
                return err_set(e, -ENODEV, "/dev/null is not the null device");
        return fd_take(&fd);
}

static int check_magic(int fd, long magic, const char *what, struct err *e)
{
        struct statfs fs;

        if (fstatfs(fd, &fs) < 0)
                return err_errno(e, -errno, "%s", what);
        if (fs.f_type != magic)
                return err_set(e, -EINVAL, "%s is not what it should be", what);
        return 0;
}

static int kernel_mounts(const struct launch *l, int root, int proc, int sys, struct err *e)
{
        const struct policy *all = policy_of(SECURITY_NONE);
        AUTO(fd) int null = -EBADF;
        int r = check_magic(proc, PROC_SUPER_MAGIC, "/proc", e);

        if (r >= 0)
                r = check_magic(sys, SYSFS_MAGIC, "/sys", e);
        if (r >= 0)
                r = mount_restrict(sys, ATTR_PSEUDO | MOUNT_ATTR_RDONLY, e);
        if (r >= 0)
                r = attach_at(sys, root, "sys", e);
        if (r >= 0)
                r = cgroup_mount(l, sys, e);
        if (r >= 0)
                r = attach_at(proc, root, "proc", e);
        if (r < 0)
                return r;
        null = open_null(l->mnt[MNT_DEV], e);
        if (null < 0)
                return null;
        return masks_apply(&(struct mask_base){ proc, sys, null, l->mnt[MNT_EMPTY] }, all->masks,
                           all->n_masks, e);
}

/* An empty tree with three directories. */
static int make_skeleton(struct err *e)
{
        static const char *const options[][2] = { { "mode", "0755" },
                                                  { "size", "4k" },
                                                  { NULL, NULL } };
        static const char *const names[] = { "dev", "proc", "sys" };
        AUTO(fd) int fd = mount_make("tmpfs", options, ATTR_PSEUDO, e);

        for (size_t i = 0; fd >= 0 && i < NELEM(names); i++)
                if (mkdirat(fd, names[i], 0555) < 0)
                        return err_errno(e, -errno, "make %s", names[i]);
        return fd_take(&fd);
}

int mounts_prepare(const struct launch *l, struct tree *ret, struct err *e)
{
        AUTO(fd) int proc = mount_make("proc", NULL, ATTR_PSEUDO, e);
        AUTO(fd) int sys = -EBADF;
        AUTO(fd) int skeleton = -EBADF;
        AUTO(fd) int root = -EBADF;
        int r;

        if (proc < 0)
                return proc;
        if (l->place->sysfs_mnt >=
            0) /* only the owner of a network namespace can show its devices */
                sys = fcntl(l->place->sysfs_mnt, F_DUPFD_CLOEXEC, 3);
        else
                sys = mount_make("sysfs", NULL, ATTR_PSEUDO | MOUNT_ATTR_RDONLY, e);
        if (sys < 0)
                return l->place->sysfs_mnt >= 0 ? err_errno(e, -errno, "/sys") : sys;
        skeleton = make_skeleton(e);
        r = skeleton < 0 ? skeleton : switch_root(skeleton, MOUNT_ATTR_RDONLY, e);
        if (r < 0)
                return r;
        root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (root < 0)
                return err_errno(e, -errno, "open /");
        r = dev_mounts(l, root, e);
        if (r >= 0)
                r = kernel_mounts(l, root, proc, sys, e);
        if (r >= 0)
                *ret = (struct tree){ l->mnt[MNT_DEV], fd_take(&proc), fd_take(&sys) };
        return r;
}

/* @mnt over what is / now, and into it. */
static int enter_root(int mnt, uint64_t attrs, struct err *e)
{
        int r = mount_restrict(mnt, attrs, e);

        if (r >= 0)
                r = mount_attach(mnt, AT_FDCWD, "/", e);
        if (r < 0)
                return err_wrap(e, r, "root");
        if (fchdir(mnt) < 0 || chroot(".") < 0)
                return err_errno(e, -errno, "enter the root");
        r = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        return r < 0 ? err_errno(e, -errno, "open /") : r;
}

/* What the profile hides beside the common ones. */
static int own_masks(const struct policy *p, const struct tree *t, struct err *e)
{
        static const char *const options[][2] = { { "mode", "0555" },
                                                  { "size", "4k" },
                                                  { NULL, NULL } };
        AUTO(fd) int null = -EBADF, empty = -EBADF;

        if (p->n_masks == 0)
                return 0;
        null = open_null(t->dev, e);
        if (null < 0)
                return null;
        empty = mount_make("tmpfs", options, ATTR_PSEUDO | MOUNT_ATTR_RDONLY, e);
        if (empty < 0)
                return empty;
        return masks_apply(&(struct mask_base){ t->proc, t->sys, null, empty }, p->masks,
                           p->n_masks, e);
}

/* Directories that lie in memory, which is the cluster's; its group counts it. */
static int memory_mounts(const struct sandbox_spec *s, int root, struct err *e)
{
        const struct policy *p = policy_of(s->profile);

        for (size_t i = 0; i < p->n_memory; i++) {
                const struct policy_memory *m = &p->memory[i];
                const uint64_t bytes = s->memory_bytes / 100 * m->share_pct;
                char size[32], inodes[32];
                const char *const options[][2] = { { "mode", m->mode },
                                                   { "size", size },
                                                   { "nr_inodes", inodes },
                                                   { NULL, NULL } };
                AUTO(fd) int at = root_mkdirs(root, m->path, 0755);
                AUTO(fd) int mnt = -EBADF;
                int r = at < 0 ? at : root_check_target(root, at);

                (void) snprintf(size, sizeof size, "%llu", (unsigned long long) bytes);
                (void) snprintf(inodes, sizeof inodes, "%llu",
                                (unsigned long long) (bytes / SANDBOX_BYTES_PER_INODE));
                if (r < 0)
                        return err_errno(e, r, "memory at %s", m->path);
                mnt = mount_make("tmpfs", options, (unsigned) mount_attrs_for(s), e);
                r = mnt < 0 ? mnt : mount_attach(mnt, at, "", e);
                if (r < 0)
                        return err_wrap(e, r, "memory at %s", m->path);
        }
        return 0;
}

int mounts_seal(const struct sandbox_spec *s, int root, struct err *e)
{
        if (!policy_of(s->profile)->root_rdonly)
                return 0;
        return mount_restrict(root, MOUNT_ATTR_RDONLY, e);
}

int mounts_enter(const struct sandbox_spec *s, const struct tree *t, struct err *e)
{
        const struct {
                int mnt;
                const char *name;
        } rows[] = { { t->dev, "dev" }, { t->sys, "sys" }, { t->proc, "proc" } };
        AUTO(fd) int root = enter_root(s->root_mnt, mount_attrs_for(s), e);
        int r = root;

        for (size_t i = 0; i < NELEM(rows) && r >= 0; i++)
                r = attach_at(rows[i].mnt, root, rows[i].name, e);
        if (r >= 0)
                r = own_masks(policy_of(s->profile), t, e);
        if (r >= 0) /* ahead of a volume that lies below one of them */
                r = memory_mounts(s, root, e);
        for (size_t i = 0; i < s->n_binds && r >= 0; i++)
                if (!s->binds[i].host)
                        r = root_bind(root, &s->binds[i], mount_attrs_for(s), e);
        return r < 0 ? r : fd_take(&root);
}

/* What the image's own /etc/passwd calls it. */
static void root_home(int root, char ret[static PATH_MAX])
{
        struct user u = { .home = "" };
        int r = user_resolve(root, "root", &u, NULL);

        (void) snprintf(ret, PATH_MAX, "%s",
                        r < 0 || *u.home != '/' || strstr(u.home, "/..") ? "/root" : u.home);
}

/* Where the root cannot be written later it is a link to one in memory, so that it can change. */
static int home_file(int root, const struct sandbox_spec *s, const struct sandbox_file *f,
                     struct err *e)
{
        struct sandbox_file file = *f;
        AUTO(fd) int dir = -EBADF;
        char home[PATH_MAX], path[PATH_MAX];
        const char *name = NULL;

        root_home(root, home);
        if (snprintf(path, sizeof path, "%s%s", home, f->target + 1) >= (int) sizeof path)
                return err_set(e, -ENAMETOOLONG, "%s: root's home is too long", f->target);
        file.target = path;
        if (!policy_of(s->profile)->root_rdonly)
                return root_write_file(root, &file, e);
        file.target = SSH_AUTHORIZED;
        dir = root_parent(root, path, &name);
        if (dir < 0 || (unlinkat(dir, name, 0) < 0 && errno != ENOENT) ||
            symlinkat(SSH_AUTHORIZED, dir, name) < 0)
                return err_errno(e, dir < 0 ? dir : -errno, "write %s", path);
        return root_write_file(root, &file, e);
}

int mounts_fill(int root, const struct sandbox_spec *s, const struct inject_wait *w, struct err *e)
{
        int r = inject_all(root, s, w, e);

        for (size_t i = 0; i < s->n_files && r >= 0; i++)
                r = *s->files[i].target == '~' ? home_file(root, s, &s->files[i], e)
                                               : root_write_file(root, &s->files[i], e);
        return r;
}
