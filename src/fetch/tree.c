/* tree.c - see tree.h.  Runs in vmm-fetch.
 *
 * What always holds: every name is used relative to a directory descriptor that was opened beneath
 * the root and without links; a file is created with O_EXCL; ownership comes before modes and
 * attributes, because chown clears set-id bits and capabilities.
 * The descriptor of the directory used last is kept: tars list a directory's files in a row. */
#include "fetch/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/map.h"
#include "base/str.h"

#define MAX_ID 65535U

/* What is remembered of a directory, by its path. */
struct dir_note {
        bool described, opaque;
        struct timespec mtime; /* when described */
};

struct tree {
        int root;
        struct map *dirs; /* path -> struct dir_note, owned */
        char *cached;     /* the directory that cached_fd is open on; NULL: none */
        int cached_fd;    /* O_PATH */
};

int tree_new(int root_fd, struct tree **ret, struct err *e)
{
        AUTO(tree_free) struct tree *t = calloc(1, sizeof *t);

        if (!t) {
                (void) fd_close(root_fd);
                return err_set(e, -ENOMEM, "out of memory");
        }
        t->root = root_fd;
        t->cached_fd = -EBADF;
        t->dirs = map_new();
        if (!t->dirs)
                return err_set(e, -ENOMEM, "out of memory");
        *ret = TAKE(t);
        return 0;
}

struct tree *tree_free(struct tree *t)
{
        if (!t)
                return NULL;
        for (struct map_entry *m = t->dirs ? map_first(t->dirs) : NULL; m; m = map_next(m))
                free(map_value(m));
        (void) map_free(t->dirs);
        (void) fd_close(t->root);
        (void) fd_close(t->cached_fd);
        free(t->cached);
        free(t);
        return NULL;
}

static int failed(struct err *e, int r, const char *path)
{
        if (r == -ENOSPC || r == -EDQUOT)
                return err_set(e, r, "'%.200s': no space is left on the host's image store", path);
        return err_errno(e, r, "'%.200s'", path);
}

/* Note that a directory exists; @fresh: it was made just now, forget what was known. */
static struct dir_note *note_dir(struct tree *t, const char *path, bool fresh)
{
        struct dir_note *n = map_get(t->dirs, path);

        if (!n) {
                n = calloc(1, sizeof *n);
                if (!n)
                        return NULL;
                if (map_set(t->dirs, path, n) < 0) {
                        free(n);
                        return NULL;
                }
        }
        if (fresh)
                *n = (struct dir_note){ 0 };
        return n;
}

static void forget_parent(struct tree *t)
{
        free(t->cached);
        t->cached = NULL;
        t->cached_fd = fd_close(t->cached_fd);
}

/* Take away whatever has this name.  1: it was a whiteout, 0: anything else or nothing. */
static int clear_name(struct tree *t, int parent, const char *leaf)
{
        struct stat st;

        if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (S_ISDIR(st.st_mode)) {
                AUTO(fd) int keep = fcntl(parent, F_DUPFD_CLOEXEC, 3);

                if (keep < 0)
                        return -errno;
                forget_parent(t); /* it may lie below what goes */
                return fd_rm_rf(keep, leaf);
        }
        if (unlinkat(parent, leaf, 0) < 0)
                return -errno;
        return S_ISCHR(st.st_mode) ? 1 : 0;
}

/* Make @leaf a directory whatever is there.  @path is its whole path, for the notes. */
static int force_dir(struct tree *t, int parent, const char *leaf, const char *path,
                     struct dir_note **ret)
{
        bool fresh = mkdirat(parent, leaf, 0755) == 0;
        int whiteout = 0;

        if (!fresh && errno != EEXIST)
                return -errno;
        if (!fresh) {
                struct stat st;

                if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0)
                        return -errno;
                if (!S_ISDIR(st.st_mode)) {
                        whiteout = clear_name(t, parent, leaf);
                        if (whiteout < 0)
                                return whiteout;
                        if (mkdirat(parent, leaf, 0755) < 0)
                                return -errno;
                        fresh = true;
                }
        }
        *ret = note_dir(t, path, fresh);
        if (!*ret)
                return -ENOMEM;
        if (whiteout > 0)
                (*ret)->opaque = true; /* what lower layers have there stays hidden */
        return 0;
}

/* Make every component of @path a directory; an O_PATH descriptor on the last one. */
static int build_dirs(struct tree *t, const char *path)
{
        AUTO(free) char *copy = strdup(path);
        AUTO(fd) int at = fcntl(t->root, F_DUPFD_CLOEXEC, 3);
        char *part = copy;

        if (!copy)
                return -ENOMEM;
        if (at < 0)
                return -errno;
        while (*part) {
                size_t n = strcspn(part, "/");
                bool last = !part[n];
                struct dir_note *note = NULL;
                int next, r;

                part[n] = '\0';
                r = force_dir(t, at, part, copy, &note);
                if (r < 0)
                        return r;
                next = openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (next < 0)
                        return -errno;
                (void) fd_close(at);
                at = next;
                if (last)
                        break;
                part[n] = '/';
                part += n + 1;
        }
        return fd_take(&at);
}

/* The directory at @path (@n bytes of it), made when missing; borrowed until the next call. */
static int dir_at(struct tree *t, const char *path, size_t n)
{
        AUTO(free) char *dir = NULL;
        int fd;

        if (n == 0)
                return t->root;
        if (t->cached && strncmp(t->cached, path, n) == 0 && !t->cached[n])
                return t->cached_fd;
        dir = strndup(path, n);
        if (!dir)
                return -ENOMEM;
        fd = fd_open_beneath(t->root, dir, O_PATH | O_DIRECTORY, 0);
        if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
                fd = build_dirs(t, dir);
        if (fd < 0)
                return fd;
        forget_parent(t);
        t->cached = TAKE(dir);
        t->cached_fd = fd;
        return fd;
}

/* The parent of a clean, non-empty path, and its last component. */
static int parent_of(struct tree *t, const char *path, const char **ret_leaf)
{
        const char *slash = strrchr(path, '/');

        *ret_leaf = slash ? slash + 1 : path;
        return dir_at(t, path, slash ? (size_t) (slash - path) : 0);
}

bool tree_xattr_allowed(const char *name)
{
        if (strcmp(name, "security.capability") == 0)
                return true;
        return str_after(name, "user.") && !str_after(name, "user.overlay.");
}

/* File capabilities as version 2: the id of the user namespace that version 3 adds belongs to
 * whoever made the layer.  The kernel puts our own namespace's root in its place. */
static int set_capability(int fd, const struct tree_xattr *x)
{
        struct vfs_cap_data cap = { 0 };
        uint32_t magic;

        if (x->size != XATTR_CAPS_SZ_2 && x->size != XATTR_CAPS_SZ_3)
                return 0; /* version 1 or nonsense: no kernel would honour it */
        memcpy(&cap, x->value, sizeof cap);
        memcpy(&magic, &cap.magic_etc, sizeof magic);
        cap.magic_etc = VFS_CAP_REVISION_2 | (magic & VFS_CAP_FLAGS_EFFECTIVE);
        return fsetxattr(fd, x->name, &cap, XATTR_CAPS_SZ_2, 0) < 0 ? -errno : 0;
}

static int set_xattrs(int fd, const char *path, const struct tree_meta *m, struct err *e)
{
        for (size_t i = 0; i < m->n_xattrs; i++) {
                const struct tree_xattr *x = &m->xattrs[i];
                int r = 0;

                if (!tree_xattr_allowed(x->name))
                        continue;
                if (strcmp(x->name, "security.capability") == 0)
                        r = set_capability(fd, x);
                else if (fsetxattr(fd, x->name, x->value, x->size, 0) < 0)
                        r = -errno;
                if (r < 0)
                        return err_errno(e, r, "'%.200s': attribute %.64s", path, x->name);
        }
        return 0;
}

static int check_ids(const char *path, const struct tree_meta *m, struct err *e)
{
        if (m->uid <= MAX_ID && m->gid <= MAX_ID)
                return 0;
        return err_set(e, -ERANGE, "'%.200s': owner %llu:%llu is outside 0..%u", path,
                       (unsigned long long) m->uid, (unsigned long long) m->gid, MAX_ID);
}

/* Owner, mode, attributes of an open file or directory. */
static int dress(int fd, const char *path, const struct tree_meta *m, struct err *e)
{
        int r = check_ids(path, m, e);

        if (r < 0)
                return r;
        if ((m->uid != 0 || m->gid != 0) && fchown(fd, (uid_t) m->uid, (gid_t) m->gid) < 0)
                return failed(e, -errno, path);
        if (fchmod(fd, m->mode & 07777) < 0)
                return failed(e, -errno, path);
        return set_xattrs(fd, path, m, e);
}

int tree_dir(struct tree *t, const char *path, const struct tree_meta *m, struct err *e)
{
        AUTO(fd) int fd = -EBADF;
        struct dir_note *note = NULL;
        int r;

        if (!*path) {
                note = note_dir(t, "", false);
                r = note ? 0 : -ENOMEM;
                fd = openat(t->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        } else {
                const char *leaf;
                int parent = parent_of(t, path, &leaf);

                r = parent < 0 ? parent : force_dir(t, parent, leaf, path, &note);
                if (r >= 0) /* the parent's descriptor may have moved */
                        fd = fd_open_beneath(t->root, path, O_RDONLY | O_DIRECTORY, 0);
        }
        if (r < 0 || fd < 0)
                return failed(e, r < 0 ? r : -errno, *path ? path : "/");
        if (fchown(fd, 0, 0) < 0) /* a second description of the same directory */
                return failed(e, -errno, path);
        note->described = true;
        note->mtime = m->mtime;
        return dress(fd, path, m, e);
}

int tree_file(struct tree *t, const char *path, struct err *e)
{
        const char *leaf;
        int parent, fd, r;

        if (!*path)
                return err_set(e, -EINVAL, "the layer's root is not a directory");
        parent = parent_of(t, path, &leaf);
        if (parent < 0)
                return failed(e, parent, path);
        fd = openat(parent, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST) {
                r = clear_name(t, parent, leaf);
                parent = r < 0 ? r : parent_of(t, path, &leaf);
                if (parent < 0)
                        return failed(e, parent, path);
                fd = openat(parent, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                            0600);
        }
        return fd < 0 ? failed(e, -errno, path) : fd;
}

int tree_file_end(struct tree *t, int fd, const char *path, const struct tree_meta *m,
                  struct err *e)
{
        struct timespec times[2] = { m->mtime, m->mtime };
        int r = dress(fd, path, m, e);

        (void) t;
        if (r >= 0 && futimens(fd, times) < 0)
                r = failed(e, -errno, path);
        return r;
}

/* Make room for a link, fifo or whiteout; the parent to make it in. */
static int room_for(struct tree *t, const char *path, const char **ret_leaf)
{
        int parent, r;

        if (!*path)
                return -EISDIR;
        parent = parent_of(t, path, ret_leaf);
        if (parent < 0)
                return parent;
        r = clear_name(t, parent, *ret_leaf);
        return r < 0 ? r : parent_of(t, path, ret_leaf);
}

/* Owner and times of something that is not opened. */
static int dress_name(int parent, const char *leaf, const char *path, const struct tree_meta *m,
                      struct err *e)
{
        struct timespec times[2] = { m->mtime, m->mtime };
        int r = check_ids(path, m, e);

        if (r < 0)
                return r;
        if (fchownat(parent, leaf, (uid_t) m->uid, (gid_t) m->gid, AT_SYMLINK_NOFOLLOW) < 0 ||
            utimensat(parent, leaf, times, AT_SYMLINK_NOFOLLOW) < 0)
                return failed(e, -errno, path);
        return 0;
}

int tree_symlink(struct tree *t, const char *path, const char *target, const struct tree_meta *m,
                 struct err *e)
{
        const char *leaf;
        int parent = room_for(t, path, &leaf);

        if (parent < 0)
                return failed(e, parent, path);
        if (symlinkat(target, parent, leaf) < 0)
                return failed(e, -errno, path);
        return dress_name(parent, leaf, path, m, e);
}

int tree_fifo(struct tree *t, const char *path, const struct tree_meta *m, struct err *e)
{
        const char *leaf;
        int parent = room_for(t, path, &leaf), r;

        if (parent < 0)
                return failed(e, parent, path);
        if (mkfifoat(parent, leaf, 0600) < 0)
                return failed(e, -errno, path);
        r = dress_name(parent, leaf, path, m, e);
        if (r >= 0 && fchmodat(parent, leaf, m->mode & 07777, 0) < 0)
                r = failed(e, -errno, path);
        if (r >= 0) { /* chmod is no change of content, but be exact */
                struct timespec times[2] = { m->mtime, m->mtime };

                r = utimensat(parent, leaf, times, AT_SYMLINK_NOFOLLOW) < 0
                            ? failed(e, -errno, path)
                            : 0;
        }
        return r;
}

int tree_hardlink(struct tree *t, const char *path, const char *target, struct err *e)
{
        const char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target, *leaf;
        AUTO(free) char *dir = slash ? strndup(target, (size_t) (slash - target)) : strdup(".");
        AUTO(fd) int from = -EBADF;
        struct stat st;
        int parent;

        if (!dir)
                return err_set(e, -ENOMEM, "out of memory");
        if (strcmp(path, target) == 0)
                return 0;
        from = fd_open_beneath(t->root, dir, O_PATH | O_DIRECTORY, 0);
        if (from < 0 || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || S_ISCHR(st.st_mode) ||
            S_ISDIR(st.st_mode))
                return err_set(
                        e, -EINVAL,
                        "'%.150s' is a hard link to '%.150s', which is not a file of this layer",
                        path, target);
        parent = room_for(t, path, &leaf);
        if (parent < 0)
                return failed(e, parent, path);
        return linkat(from, name, parent, leaf, 0) < 0 ? failed(e, -errno, path) : 0;
}

int tree_whiteout(struct tree *t, const char *path, struct err *e)
{
        const char *leaf;
        int parent = parent_of(t, path, &leaf);
        struct stat st;

        if (parent < 0)
                return failed(e, parent, path);
        if (fstatat(parent, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                if (errno != ENOENT || mknodat(parent, leaf, S_IFCHR | 0000, makedev(0, 0)) < 0)
                        return failed(e, -errno, path);
        } else if (S_ISDIR(st.st_mode)) {
                struct dir_note *n = note_dir(t, path, false);

                if (!n)
                        return err_set(e, -ENOMEM, "out of memory");
                n->opaque = true;
        }
        return 0;
}

int tree_opaque(struct tree *t, const char *path, struct err *e)
{
        int fd = dir_at(t, path, strlen(path));
        struct dir_note *n;

        if (fd < 0)
                return failed(e, fd, path);
        n = note_dir(t, path, false);
        if (!n)
                return err_set(e, -ENOMEM, "out of memory");
        n->opaque = true;
        return 0;
}

int tree_finish(struct tree *t, tree_report_fn *fn, void *arg, struct err *e)
{
        for (struct map_entry *m = map_first(t->dirs); m; m = map_next(m)) {
                const struct dir_note *n = map_value(m);
                const char *path = map_key(m);
                struct timespec times[2] = { n->mtime, n->mtime };
                AUTO(fd)
                int fd = fd_open_beneath(t->root, *path ? path : ".", O_RDONLY | O_DIRECTORY, 0);
                int r = 0;

                if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
                        continue; /* replaced since */
                if (fd < 0)
                        return failed(e, fd, path);
                if (futimens(fd, times) < 0) /* 1970 when nothing was said: no clock in a layer */
                        return failed(e, -errno, path);
                if (n->opaque)
                        r = fn(arg, "opaque", path);
                if (r >= 0 && !n->described && *path)
                        r = fn(arg, "implied", path);
                if (r < 0)
                        return err_errno(e, r, "reporting '%.200s'", path);
        }
        return 0;
}
