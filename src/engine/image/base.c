/* base.c - see base.h.
 *
 * Two operations that want the first mount of an image meet at a lock on its metadata file; the second
 * finds it mounted.  The kernel opens packs and metadata by the paths of our descriptors, so it is the
 * very files that were checked.  A place is a base mount when an EROFS is mounted there, and nothing
 * else of ours is. */
#include "engine/image/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/disk/loop.h"
#include "engine/idmap.h"
#include "engine/image/store_priv.h"
#include "store/metamount.h"

#define PLACES       "images"
#define PACKS_MAX    128U
#define TRIES        5
#define PLACE_FLAGS  (O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define CLONE_FLAGS  (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH)
#define CLONED_ATTRS (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV)

/* The directory that an image is mounted on, or what is mounted there; made when missing. */
static int open_place(struct image_store *s, const char *name, struct err *e)
{
        AUTO(fd) int places = -EBADF;
        char path[64];
        int fd;

        (void) snprintf(path, sizeof path, PLACES "/%s", name);
        fd = openat(s->inst->run_fd, path, PLACE_FLAGS);
        if (fd >= 0 || errno != ENOENT)
                return fd < 0 ? err_errno(e, -errno, "open %s", path) : fd;
        places = fd_mkdir_beneath(s->inst->run_fd, path, 0700);
        return places < 0 ? err_errno(e, places, "make %s", path) : fd_take(&places);
}

static bool is_mounted(int place)
{
        struct statfs fs;

        return fstatfs(place, &fs) == 0 && fs.f_type == EROFS_SUPER_MAGIC_V1;
}

static int clone_mount(int at, struct err *e)
{
        int fd = open_tree(at, "", CLONE_FLAGS);

        return fd < 0 ? err_errno(e, -errno, "clone the mount of an image") : fd;
}

static int check_digest(int fd, const char *want, struct err *e)
{
        char sha[STORE_HEX_BYTES];
        int r = store_hash_file(fd, sha, e);

        if (r < 0)
                return err_wrap(e, r, "the image's metadata");
        return str_eq(sha, want)
                       ? 0
                       : err_set(e, -EBADMSG,
                                 "the image is damaged on this host's disk; pull it again");
}

/* Metadata and packs of one image, and what the kernel is to open them by. */
struct parts {
        int fd[1 + PACKS_MAX];
        char path[1 + PACKS_MAX][LOOP_PATH_BYTES];
        size_t n;
};

static void parts_done(struct parts *p)
{
        for (size_t i = 0; i < p->n; i++)
                (void) fd_close(p->fd[i]);
        p->n = 0;
}

static inline void parts_done_cleanup(struct parts *p)
{
        parts_done(p);
}

static int open_parts(struct image_store *s, const struct image *i, int meta, struct parts *p,
                      struct err *e)
{
        size_t n = strv_len(i->devices);
        char path[LOOP_PATH_BYTES];

        if (n > PACKS_MAX)
                return err_set(e, -E2BIG, "an image of %zu packs", n);
        /* Opened anew: a loop device keeps what it is given, and with it the lock. */
        (void) snprintf(path, sizeof path, "/proc/self/fd/%d", meta);
        p->fd[p->n] = open(path, O_RDONLY | O_CLOEXEC);
        if (p->fd[p->n++] < 0)
                return err_errno(e, -errno, "metadata");
        for (size_t k = 0; k < n; k++) {
                char name[64];

                (void) snprintf(name, sizeof name, "%s/pack", i->devices[k]);
                p->fd[p->n] = fd_open_beneath(s->layers_fd, name, O_RDONLY, 0);
                if (p->fd[p->n++] < 0)
                        return err_errno(e, p->fd[p->n - 1], "open layers/%s", name);
        }
        for (size_t k = 0; k < p->n; k++)
                (void) snprintf(p->path[k], sizeof p->path[k], "/proc/self/fd/%d", p->fd[k]);
        return 0;
}

/* Instead of the files themselves. */
static int attach_loops(struct parts *p, struct err *e)
{
        for (size_t k = 0; k < p->n; k++) {
                int loop = loop_attach(p->fd[k], LOOP_READ_ONLY | LOOP_DIRECT, p->path[k], e);

                if (loop < 0)
                        return loop;
                (void) fd_close(p->fd[k]);
                p->fd[k] = loop;
        }
        return 0;
}

static int mount_parts(struct parts *p, struct err *e)
{
        const char *packs[PACKS_MAX];

        for (size_t k = 1; k < p->n; k++)
                packs[k - 1] = p->path[k];
        return metamount(p->path[0], packs, p->n - 1, e);
}

static int make_base(struct image_store *s, const struct image *i, int meta, struct err *e)
{
        AUTO(parts_done) struct parts p = { .n = 0 };
        const char *how = s->inst->conf.image_mount;
        bool loop = str_eq(how, "loop");
        int r = check_digest(meta, i->meta_sha, e);

        if (r >= 0)
                r = open_parts(s, i, meta, &p, e);
        if (r >= 0 && !loop) {
                r = mount_parts(&p, e);
                loop = r == -ENOTBLK && !str_eq(how, "file");
        }
        if (loop)
                r = attach_loops(&p, e);
        return loop && r >= 0 ? mount_parts(&p, e) : r;
}

/* Under the lock of the metadata file: the mount of it at its place, or -EAGAIN when somebody else
 * has made it meanwhile. */
static int make_at_place(struct image_store *s, const struct image *i, const char *name,
                         struct err *e)
{
        AUTO(fd) int meta = fd_open_beneath(s->metas_fd, name, O_RDONLY, 0);
        AUTO(fd) int place = -EBADF;
        AUTO(fd) int mnt = -EBADF;

        if (meta < 0)
                return err_errno(e, meta, "open metas/%s", name);
        while (flock(meta, LOCK_EX) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "lock metas/%s", name);
        place = open_place(s, name, e);
        if (place < 0 || is_mounted(place))
                return place < 0 ? place : -EAGAIN;
        mnt = make_base(s, i, meta, e);
        if (mnt < 0)
                return mnt;
        if (move_mount(mnt, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return err_errno(e, -errno, "place the mount of image %s", name);
        return fd_take(&mnt);
}

/* Whoever pulls it next makes the metadata anew. */
static void quarantine(struct image_store *s, uint64_t id)
{
        struct err e = { 0 };
        char why[64];

        (void) snprintf(why, sizeof why, "metas/%llu is not what was written",
                        (unsigned long long) id);
        log_warn("images: %s", why);
        if (catalog_quarantine_image(s, (int64_t) id, why, &e) < 0)
                log_warn("images: %s", e.msg);
}

/* A clone of the base mount, which is made when there is none.  Whoever tidies up in the same instant
 * may take it away before it is cloned. */
static int get_base(struct image_store *s, const struct image *i, struct err *e)
{
        char name[24];
        int r = -EAGAIN;

        (void) snprintf(name, sizeof name, "%llu", (unsigned long long) i->id);
        for (int k = 0; (r == -EAGAIN || r == -EINVAL) && k < TRIES; k++) {
                AUTO(fd) int place = open_place(s, name, e);

                if (place >= 0 && !is_mounted(place)) {
                        (void) fd_close(place);
                        place = make_at_place(s, i, name, e);
                }
                r = place < 0 ? place : clone_mount(place, e);
        }
        if (r == -EBADMSG)
                quarantine(s, i->id);
        return r;
}

bool image_base_is_mounted(struct image_store *s, int64_t id)
{
        AUTO(fd) int place = -EBADF;
        char name[48];

        (void) snprintf(name, sizeof name, PLACES "/%lld", (long long) id);
        place = fd_open_beneath(s->inst->run_fd, name, O_PATH | O_DIRECTORY, 0);
        return place >= 0 && is_mounted(place);
}

int image_base_clone(struct image_store *s, const struct image *i, int userns, struct err *e)
{
        AUTO(fd) int mnt = get_base(s, i, e);
        int r = mnt < 0 ? mnt : idmap_mount(mnt, userns, CLONED_ATTRS, e);

        return r < 0 ? r : fd_take(&mnt);
}

int image_objects_clone(struct image_store *s, struct err *e)
{
        struct mount_attr attr = { .attr_set = CLONED_ATTRS };
        AUTO(fd) int mnt = open_tree(s->objects_fd, "", CLONE_FLAGS);

        if (mnt < 0 || mount_setattr(mnt, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
                return err_errno(e, -errno, "clone the mount of images/objects");
        return fd_take(&mnt);
}

static int drop(int places, const char *name, struct err *e)
{
        char path[320];

        (void) snprintf(path, sizeof path, "/proc/self/fd/%d/%s", places, name);
        if (umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT)
                return err_errno(e, -errno, "unmount image %s", name);
        if (unlinkat(places, name, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != EBUSY)
                return err_errno(e, -errno, "remove " PLACES "/%s", name);
        return 0;
}

static bool is_used(const char *name, const uint64_t *used, size_t n)
{
        uint64_t id;

        if (str_u64(name, 1, UINT64_MAX, &id) < 0)
                return true; /* "." and "..", or not of ours */
        for (size_t i = 0; i < n; i++)
                if (used[i] == id)
                        return true;
        return false;
}

int image_base_tidy(struct image_store *s, const uint64_t *used, size_t n, struct err *e)
{
        AUTO(fd) int places = fd_mkdir_beneath(s->inst->run_fd, PLACES, 0700);
        int fd = places < 0 ? places : openat(places, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;
        int r = 0;

        if (!dir) {
                (void) fd_close(fd);
                return err_errno(e, places < 0 ? places : -errno, "open " PLACES);
        }
        while (r >= 0 && (de = readdir(dir)) != NULL)
                if (!is_used(de->d_name, used, n))
                        r = drop(dirfd(dir), de->d_name, e);
        (void) closedir(dir);
        return r;
}
