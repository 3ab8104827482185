/* staging.c - directories that are being written, and what is left of those that were.
 * Operation processes and engine start; root.
 *
 * What always holds: a directory below staging/ belongs to the process that holds a lock on it, and
 * is rubbish when nobody does; what is below layers/ and metas/ and not in the database is rubbish
 * once the database's write lock is ours, because publishers hold that lock while they move. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "catalog_sql.h"
#include "fetchids.h"
#include "store_priv.h"

#define PATIENCE_US (500 * US_PER_MS) /* what was killed just now may take a moment to die */

/* Make a directory of a random name and lock it.  Between the two somebody's recovery may take it
 * for rubbish: then the name is gone and the next one is tried. */
static int try_begin(struct image_store *s, struct staging *g)
{
        struct stat a, b;
        int r = rand_id(g->name, sizeof g->name - 1);

        if (r < 0)
                return r;
        if (mkdirat(s->staging_fd, g->name, 0700) < 0)
                return -errno;
        g->fd = fd_open_beneath(s->staging_fd, g->name, O_RDONLY | O_DIRECTORY, 0);
        if (g->fd < 0)
                return g->fd == -ENOENT ? -EAGAIN : g->fd;
        if (flock(g->fd, LOCK_EX | LOCK_NB) < 0 || fstat(g->fd, &a) < 0 ||
            fstatat(s->staging_fd, g->name, &b, AT_SYMLINK_NOFOLLOW) < 0 || a.st_ino != b.st_ino) {
                g->fd = fd_close(g->fd);
                return -EAGAIN;
        }
        return 0;
}

int staging_begin(struct image_store *s, struct staging *ret, struct err *e)
{
        struct staging g = { .store = s, .fd = -EBADF };
        int r = -EAGAIN;

        for (int i = 0; i < 8 && r == -EAGAIN; i++)
                r = try_begin(s, &g);
        if (r < 0)
                return err_errno(e, r, "making a staging directory");
        *ret = g;
        return 0;
}

int staging_dir(struct staging *g, const char *name, struct err *e)
{
        int fd;

        if (mkdirat(g->fd, name, 0755) < 0)
                return err_errno(e, -errno, "making staging/%s/%s", g->name, name);
        fd = fd_open_beneath(g->fd, name, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return err_errno(e, fd, "opening staging/%s/%s", g->name, name);
        if (fchmod(fd, 0755) < 0) { /* whatever our umask is */
                int r = err_errno(e, -errno, "staging/%s/%s", g->name, name);

                (void) fd_close(fd);
                return r;
        }
        return fd;
}

/* Remove one directory below staging/, without giving up at a first race with a dying fetcher. */
static int remove_staged(struct image_store *s, const char *name)
{
        int r = -EIO;

        for (int i = 0; i < 3 && r < 0; i++)
                r = fd_rm_rf(s->staging_fd, name);
        return r;
}

void staging_drop(struct staging *g, const char *name)
{
        if (unlinkat(g->fd, name, 0) < 0 && errno != ENOENT)
                (void) fd_rm_rf(g->fd, name);
}

bool staging_is_held(struct image_store *s, const char *name)
{
        AUTO(fd) int fd = fd_open_beneath(s->staging_fd, name, O_RDONLY | O_DIRECTORY, 0);

        return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;
}

void staging_end(struct staging *g)
{
        if (!g->store)
                return;
        if (*g->name) {
                int r = remove_staged(g->store, g->name);

                if (r < 0)
                        log_warn("images/staging/%s stays until the next start: %s", g->name,
                                 strerror(-r));
        }
        g->fd = fd_close(g->fd); /* the lock goes last */
        g->store = NULL;
}

/* Names in a directory, except dots. */
int staging_list(int dir_fd, char ***ret)
{
        AUTO(strv_free) char **names = calloc(1, sizeof *names);
        int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *de;
        int r = 0;

        if (!names || !dir) {
                r = !names ? -ENOMEM : -errno;
                if (!dir)
                        (void) fd_close(fd);
                else
                        (void) closedir(dir);
                return r;
        }
        while (r >= 0 && (errno = 0, de = readdir(dir)) != NULL)
                if (strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0)
                        r = strv_push(&names, de->d_name);
        if (r >= 0 && errno)
                r = -errno;
        (void) closedir(dir);
        if (r >= 0)
                *ret = TAKE(names);
        return r;
}

/* Under the write lock: unknown layers become staging directories that nobody holds. */
static int evict_layers(struct image_store *s, struct err *e)
{
        AUTO(strv_free) char **names = NULL;
        int r = staging_list(s->layers_fd, &names);

        if (r < 0)
                return err_errno(e, r, "reading images/layers");
        for (char **n = names; *n; n++) {
                char to[16];

                r = catalog_knows(s, CATALOG_LAYERS, *n, e);
                if (r < 0)
                        return r;
                if (r > 0)
                        continue;
                if (rand_id(to, sizeof to - 1) < 0 ||
                    renameat(s->layers_fd, *n, s->staging_fd, to) < 0)
                        return err_errno(e, -errno, "taking images/layers/%s away", *n);
        }
        return 0;
}

static int evict_metas(struct image_store *s, struct err *e)
{
        AUTO(strv_free) char **names = NULL;
        int r = staging_list(s->metas_fd, &names);

        if (r < 0)
                return err_errno(e, r, "reading images/metas");
        for (char **n = names; *n; n++) {
                r = catalog_knows(s, CATALOG_IMAGES, *n, e);
                if (r < 0)
                        return r;
                if (r == 0 && unlinkat(s->metas_fd, *n, 0) < 0)
                        return err_errno(e, -errno, "removing images/metas/%s", *n);
        }
        return 0;
}

static int evict_unknown(struct image_store *s, struct err *e)
{
        int r = catalog_begin(s, e);

        if (r < 0)
                return r;
        r = evict_layers(s, e);
        if (r >= 0)
                r = evict_metas(s, e);
        catalog_rollback(s); /* nothing was written */
        return r;
}

/* One directory below staging/.  1: somebody is writing it. */
static int collect_one(struct image_store *s, const char *name, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(s->staging_fd, name, O_RDONLY | O_DIRECTORY, 0);
        int r;

        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
                return 1;
        r = remove_staged(s, name);
        return r < 0 ? err_errno(e, r, "removing images/staging/%s", name) : 0;
}

int staging_collect(struct image_store *s, uint64_t patience_us, struct err *e)
{
        uint64_t until = clock_mono_us() + patience_us;
        AUTO(strv_free) char **names = NULL;
        int r = evict_unknown(s, e);

        if (r < 0)
                return r;
        r = staging_list(s->staging_fd, &names);
        if (r < 0)
                return err_errno(e, r, "reading images/staging");
        for (char **n = names; *n; n++) {
                struct err why = { 0 };
                int one = collect_one(s, *n, &why);

                while (one == 1 && clock_mono_us() < until) {
                        (void) poll(NULL, 0, 10);
                        one = collect_one(s, *n, &why);
                }
                if (one <
                    0) /* nobody is waiting for it: no reason not to start, or not to collect */
                        log_warn("%s; it stays", why.msg);
        }
        return 0;
}

/* Under the write lock: claims of operations that were killed. */
static int drop_dead_claims(struct image_store *s, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        AUTO(strv_free) char **ops = NULL;
        int rc, r = sql_prepare(s->db, &st, e, "SELECT DISTINCT op FROM claim", NULL, 0);

        if (r < 0)
                return r;
        while ((rc = sqlite3_step(st)) == SQLITE_ROW)
                if (strv_push(&ops, (const char *) sqlite3_column_text(st, 0)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        if (rc != SQLITE_DONE)
                return sql_error(s->db, e, "claims");
        for (char **op = ops; r >= 0 && op && *op; op++)
                if (!staging_is_held(s, *op))
                        r = catalog_unclaim(s, *op, e);
        return r;
}

static int forget_claims(struct image_store *s, struct err *e)
{
        int r = catalog_begin_lazily(s, e);

        if (r < 0)
                return r;
        r = drop_dead_claims(s, e);
        if (r >= 0)
                r = catalog_commit(s, e);
        if (r < 0)
                catalog_rollback(s);
        return r;
}

int image_recover(struct image_store *s, struct err *e)
{
        struct err why = { 0 };
        int r;

        fetchids_tidy(s->inst);
        r = staging_collect(s, PATIENCE_US, e);
        if (r >= 0)
                r = forget_claims(s, e);
        /* what a damaged layer needs nobody knows, so all stays; but a host starts without this */
        if (r >= 0 && collect_objects(s, &why) < 0)
                log_warn("images: %s", why.msg);
        return r;
}
