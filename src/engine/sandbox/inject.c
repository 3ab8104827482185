/* inject.c - what the host adds to a cluster's root: a GPU driver's libraries and programs, links to
 * them, and their lines in the loader's cache.  First process, after the root has been switched.
 *
 * The root is fresh and nobody runs in it yet, but all that is in it came from a stranger: where a
 * file is to appear there may lie a link, a directory, a FIFO; where a directory is wanted, an absolute
 * link.  So directories are resolved as the program would see them, never outside and never through a
 * magic link; in the last component nothing is followed, and what is no plain file is replaced.
 * Checked and used is the same descriptor.  The worst that an image can do is to hide the driver from
 * itself.
 *
 * The loader's cache is written by us (ldcache.c), because nothing of the image's may run for it and
 * its own ldconfig may lie. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/ldcache.h"
#include "engine/sandbox/sandbox_priv.h"

#define CACHE     "/etc/ld.so.cache"
#define CONF      "/etc/ld.so.conf.d/00-gpu-driver.conf" /* for an ldconfig that runs later */
#define DIRS_MAX  16U
#define DIR_BYTES 512U

#if defined(__x86_64__)
#define MULTIARCH "/usr/lib/x86_64-linux-gnu"
#elif defined(__aarch64__)
#define MULTIARCH "/usr/lib/aarch64-linux-gnu"
#endif

/* Where images keep libraries: the first that is there.  The last one is made when none is. */
static const char *const lib_dirs[] = { MULTIARCH, "/usr/lib64", "/usr/lib", "/usr/lib64" };
static const char *const lib32_dirs[] = { "/usr/lib/i386-linux-gnu", "/usr/lib32", "/usr/lib32" };

struct inject {
        int root;
        const char *lib, *lib32;
        /* the directory of the last target: neighbours come one after the other */
        char dir[PATH_MAX];
        int dir_fd;
        bool dir_ok; /* to be put something into */
};

static const char *first_there(int root, const char *const *dirs, size_t n)
{
        for (size_t i = 0; i + 1 < n; i++) {
                AUTO(fd) int fd = fd_open_in_root(root, dirs[i], O_PATH | O_DIRECTORY, 0);

                if (fd >= 0)
                        return dirs[i];
        }
        return dirs[n - 1];
}

/* @path with "@lib/" and "@lib32/" as this image has them. */
static int expand(const struct inject *j, const char *path, char ret[static PATH_MAX])
{
        const char *name, *dir = "";
        int n;

        if ((name = str_after(path, SANDBOX_LIB)))
                dir = j->lib;
        else if ((name = str_after(path, SANDBOX_LIB32)))
                dir = j->lib32;
        else
                name = path;
        n = snprintf(ret, PATH_MAX, "%s%s%s", dir, *dir ? "/" : "", name);
        return n < 0 || n >= PATH_MAX || ret[0] != '/' ? -EINVAL : 0;
}

/* Descriptor (borrowed) of the directory that holds @path. */
static int parent(struct inject *j, const char *path, const char **name)
{
        const char *slash = strrchr(path, '/');
        size_t len = (size_t) (slash - path);

        *name = slash + 1;
        if (**name == '\0' || str_eq(*name, ".") || str_eq(*name, ".."))
                return -EINVAL;
        if (j->dir_fd >= 0 && strlen(j->dir) == len && memcmp(j->dir, path, len) == 0)
                return j->dir_fd;
        j->dir_fd = fd_close(j->dir_fd);
        j->dir_fd = root_parent(j->root, path, name);
        j->dir_ok = false;
        memcpy(j->dir, path, len);
        j->dir[len] = '\0';
        return j->dir_fd;
}

/* Make room for something of ours; a directory is not taken away. */
static int clear(int dir, const char *name)
{
        if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
                return 0;
        return errno == EPERM ? -EISDIR : -errno;
}

/* Whether parent()'s directory is one to put something into. */
static int check_parent(struct inject *j)
{
        int r = j->dir_ok ? 0 : root_check_target(j->root, j->dir_fd);

        if (r == -EXDEV && str_eq(j->dir, "")) /* the root itself cannot be mounted on, but in */
                r = 0;
        j->dir_ok = r >= 0;
        return r;
}

/* A plain file to mount over; its content does not matter. */
static int file_target(struct inject *j, int dir, const char *name)
{
        struct stat st;
        int r = check_parent(j);

        if (r < 0)
                return r;
        for (int i = 0; i < 2; i++) { /* as it is, or once more when it has given way */
                AUTO(fd) int fd = -EBADF;

                if (mknodat(dir, name, S_IFREG | 0644, 0) < 0 && errno != EEXIST)
                        return -errno;
                fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
                if (fd < 0 || fstat(fd, &st) < 0)
                        return -errno;
                if (S_ISREG(st.st_mode))
                        return fd_take(&fd);
                r = clear(dir, name);
                if (r < 0)
                        return r;
        }
        return -EEXIST;
}

static int dir_target(struct inject *j, int dir, const char *name)
{
        AUTO(fd) int fd = -EBADF;
        int r = mkdirat(dir, name, 0755) < 0 ? -errno : 0;

        if (r < 0 && r != -EEXIST)
                return r;
        fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && (errno == ENOTDIR || errno == ELOOP)) {
                r = clear(dir, name);
                if (r < 0 || mkdirat(dir, name, 0755) < 0)
                        return r < 0 ? r : -errno;
                fd = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        if (fd < 0)
                return -errno;
        r = root_check_target(j->root, fd);
        return r < 0 ? r : fd_take(&fd);
}

static int inject_bind(struct inject *j, const struct sandbox_bind *b, struct err *e)
{
        AUTO(fd) int at = -EBADF;
        const char *name = NULL;
        char path[PATH_MAX];
        struct stat st, there;
        int r = expand(j, b->target, path);

        if (r < 0)
                return err_errno(e, r, "driver file %.200s", b->target);
        if (fstat(b->mnt, &st) < 0)
                return err_errno(e, -errno, "driver file %s", path);
        r = parent(j, path, &name);
        if (r >= 0)
                r = at = S_ISDIR(st.st_mode) ? dir_target(j, r, name) : file_target(j, r, name);
        if (r < 0)
                return err_errno(e, r, "image: no driver file can be shown at %s", path);
        /* there already: the cluster runs, and has had GPUs before */
        if (fstat(at, &there) == 0 && there.st_dev == st.st_dev && there.st_ino == st.st_ino)
                return 0;
        r = mount_attach(b->mnt, at, "", e);
        return r < 0 ? err_wrap(e, r, "driver file %s", path) : 0;
}

static int inject_symlink(struct inject *j, const struct sandbox_symlink *s, struct err *e)
{
        const char *name = NULL;
        char path[PATH_MAX];
        int dir = -EBADF, r = expand(j, s->link, path);

        if (r < 0)
                return err_errno(e, r, "driver link %.200s", s->link);
        r = dir = parent(j, path, &name);
        if (r >= 0)
                r = check_parent(j);
        if (r < 0)
                return err_errno(e, r, "image: no driver file can be shown at %.300s", path);
        if (symlinkat(s->target, dir, name) < 0) {
                r = errno == EEXIST ? clear(dir, name) : -errno;
                if (r >= 0 && symlinkat(s->target, dir, name) < 0)
                        r = -errno;
        }
        return r < 0 ? err_errno(e, r, "image: no link can be made at %.300s", path) : 0;
}

/* ---- loader cache ---------------------------------------------------------------------------- */

/* The image's cache, when it is a plain file of a size that makes sense; NULL: none. */
static char *read_old(int root, size_t *ret_len)
{
        AUTO(fd)
        int fd = fd_open_in_root(root, CACHE, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        AUTO(free) char *buf = NULL;
        struct stat st;
        ssize_t n;

        *ret_len = 0;
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 ||
            st.st_size > (off_t) LDCACHE_MAX_BYTES)
                return NULL;
        buf = malloc((size_t) st.st_size);
        n = buf ? fd_read_full(fd, buf, (size_t) st.st_size) : -1;
        if (n <= 0)
                return NULL;
        *ret_len = (size_t) n;
        return TAKE(buf);
}

static int write_plain(int root, const char *path, const void *data, size_t len, struct err *e)
{
        const char *name = NULL;
        AUTO(fd) int dir = root_parent(root, path, &name);
        AUTO(fd) int fd = dir < 0 ? dir : root_open_plain(dir, name, 0644);
        int r = fd < 0 ? fd : fd_write_full(fd, data, len);

        if (r >= 0 && fchmod(fd, 0644) < 0)
                r = -errno;
        return r < 0 ? err_errno(e, r, "write %s", path) : 0;
}

/* Directories that an ldconfig of the image's would not look into by itself. */
static void add_dir(const struct inject *j, const char *path, char (*dirs)[DIR_BYTES], size_t *n)
{
        const char *slash = strrchr(path, '/');
        char dir[DIR_BYTES];
        int len = snprintf(dir, sizeof dir, "%.*s", (int) (slash - path), path);

        if (len <= 0 || len >= (int) sizeof dir || str_eq(dir, j->lib) || str_eq(dir, j->lib32))
                return;
        for (size_t i = 0; i < *n; i++)
                if (str_eq(dirs[i], dir))
                        return;
        if (*n < DIRS_MAX)
                memcpy(dirs[(*n)++], dir, sizeof dir);
}

static int write_conf(const struct inject *j, const struct ldcache_entry *lib, size_t n,
                      struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        char dirs[DIRS_MAX][DIR_BYTES];
        size_t n_dirs = 0;

        for (size_t i = 0; i < n; i++)
                add_dir(j, lib[i].path, dirs, &n_dirs);
        if (n_dirs == 0)
                return 0;
        strbuf_str(&b, "# The GPU driver's libraries.  Written at every start.\n");
        for (size_t i = 0; i < n_dirs; i++)
                strbuf_fmt(&b, "%s\n", dirs[i]);
        if (b.failed)
                return err_set(e, -ENOMEM, "out of memory");
        return write_plain(j->root, CONF, b.s, b.len, e);
}

static int write_cache(int root, const struct ldcache_entry *lib, size_t n, struct err *e)
{
        AUTO(free) char *old = NULL;
        AUTO(free) void *new = NULL;
        size_t old_len, len = 0;
        int r;

        old = read_old(root, &old_len);
        r = ldcache_merge(old, old_len, lib, n, &new, &len, e);
        if (r == -EBADMSG) /* the loader passes over it, and so do we */
                r = ldcache_merge(NULL, 0, lib, n, &new, &len, e);
        return r < 0 ? r : write_plain(root, CACHE, new, len, e);
}

static int inject_libraries(const struct inject *j, const struct sandbox_spec *s, struct err *e)
{
        AUTO(free) struct ldcache_entry *lib = calloc(s->n_libraries + 1, sizeof *lib);
        AUTO(strv_free) char **paths = NULL;
        int r = lib ? 0 : err_set(e, -ENOMEM, "out of memory");

        for (size_t i = 0; i < s->n_libraries && r >= 0; i++) {
                char path[PATH_MAX];

                r = expand(j, s->libraries[i].path, path);
                if (r >= 0)
                        r = strv_push(&paths, path);
                if (r < 0)
                        return err_errno(e, r, "library %s", s->libraries[i].name);
        }
        for (size_t i = 0; i < s->n_libraries && r >= 0; i++)
                lib[i] = (struct ldcache_entry){ s->libraries[i].name, paths[i],
                                                 s->libraries[i].is_32 ? LDCACHE_32
                                                                       : LDCACHE_NATIVE };
        if (r >= 0)
                r = write_cache(j->root, lib, s->n_libraries, e);
        return r < 0 ? r : write_conf(j, lib, s->n_libraries, e);
}

static bool has_any(const struct sandbox_spec *s)
{
        size_t n = s->n_symlinks + s->n_libraries;

        for (size_t i = 0; i < s->n_binds; i++)
                n += s->binds[i].host;
        return n > 0;
}

/* Links and the cache first: they want nothing but names, and the mounts may still be made. */
int inject_all(int root, const struct sandbox_spec *s, const struct inject_wait *w, struct err *e)
{
        struct inject j = { .root = root, .dir_fd = -EBADF };
        int r = 0;

        if (has_any(s)) {
                j.lib = first_there(root, lib_dirs, NELEM(lib_dirs));
                j.lib32 = first_there(root, lib32_dirs, NELEM(lib32_dirs));
        }
        for (size_t i = 0; i < s->n_symlinks && r >= 0; i++)
                r = inject_symlink(&j, &s->symlinks[i], e);
        if (r >= 0 && s->n_libraries > 0)
                r = inject_libraries(&j, s, e);
        if (r >= 0 && w)
                r = w->fn(w->arg, e);
        for (size_t i = 0; i < s->n_binds && r >= 0; i++)
                if (s->binds[i].host)
                        r = inject_bind(&j, &s->binds[i], e);
        j.dir_fd = fd_close(j.dir_fd);
        return r;
}
