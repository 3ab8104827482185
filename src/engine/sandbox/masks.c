/* masks.c - covers what of /proc and /sys is hidden or read-only (data/policy/masks.policy).  First
 * process, before any program of the cluster runs, so nothing can move underneath.
 *
 * Both trees are mounts that we made a moment ago and whose type has been checked; rows are opened
 * beneath them without following links, and what covers a row is a node checked to be /dev/null or
 * a tmpfs made here.  Nothing from the image takes part. */
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

struct covers {
        int null, empty;
        bool empty_used; /* attached somewhere: from then on it can be cloned (always from 6.15) */
};

/* A detached mount that covers @at: the tree itself made read-only, or something empty. */
static int cover(const struct policy_mask *m, int at, struct covers *c, struct err *e)
{
        const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
        AUTO(fd) int fd = -EBADF;
        struct stat st;
        int r;

        if (fstat(at, &st) < 0)
                return err_errno(e, -errno, "stat");
        if (m->kind == POLICY_RDONLY)
                fd = open_tree(at, "", flags);
        else if (!S_ISDIR(st.st_mode))
                fd = open_tree(c->null, "", flags);
        else if (c->empty_used)
                fd = open_tree(c->empty, "", flags);
        else
                fd = fcntl(c->empty, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return err_errno(e, -errno, "clone a mount");
        c->empty_used |= S_ISDIR(st.st_mode) && m->kind == POLICY_HIDE;
        r = m->kind == POLICY_RDONLY ? mount_restrict(fd, MOUNT_ATTR_RDONLY, e) : 0;
        return r < 0 ? r : fd_take(&fd);
}

/* The tree that a row is about, and its path in there. */
static int tree_of(const struct mask_base *b, const struct policy_mask *m, const char **path)
{
        if ((*path = str_after(m->path, "/proc/")))
                return b->proc;
        *path = str_after(m->path, "/sys/");
        return b->sys;
}

static int apply(const struct policy_mask *m, const struct mask_base *b, struct covers *c,
                 struct err *e)
{
        const char *path = NULL;
        int tree = tree_of(b, m, &path);
        AUTO(fd) int at = path ? fd_open_beneath(tree, path, O_PATH, 0) : -EINVAL;
        AUTO(fd) int mnt = -EBADF;

        if (at == -ENOENT)
                return 0; /* not in this kernel */
        if (at < 0)
                return err_errno(e, at, "open");
        mnt = cover(m, at, c, e);
        return mnt < 0 ? mnt : mount_attach(mnt, at, "", e);
}

int masks_apply(const struct mask_base *b, const struct policy_mask *rows, size_t n, struct err *e)
{
        struct covers c = { .null = b->null, .empty = b->empty };

        for (size_t i = 0; i < n; i++) {
                int r = apply(&rows[i], b, &c, e);

                if (r < 0)
                        return err_wrap(e, r, "mask %s", rows[i].path);
        }
        return 0;
}
