/* collect.c - objects that no layer needs any more.  Operation processes and engine start.
 *
 * What always holds: an object of a layer that the database knows stays.  Publishers hold a shared lock
 * on objects/ from before they move the first one until their layers are known; the exclusive one is
 * ours from before the layers are listed until the last object is gone.  Whoever has this lock may wait
 * for the database's, never the other way round.  When the names of one layer cannot be read, nothing is removed.
 *
 * Theory of operation.  layers/<n>/objects names a layer's objects, in rows of 40 bytes that publish.c
 * wrote.  All of them are mapped, their digests sorted, and what is below objects/ is looked up. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "catalog_sql.h"
#include "store/layer_objects.h"
#include "store_priv.h"

#define PATIENCE_US (2 * US_PER_S)
#define PAUSE_MS    10

struct names {
        uint8_t *p;
        size_t len;
};

struct collection {
        struct image_store *store;
        struct names *names;
        size_t n, cap;
        const uint8_t **marks; /* digests in their rows */
        size_t n_marks, cap_marks;
        uint64_t removed;
};

static void collection_done_cleanup(struct collection *c)
{
        for (size_t i = 0; i < c->n; i++)
                (void) munmap(c->names[i].p, c->names[i].len);
        free(c->names);
        free(c->marks);
}

/* Twice the room, when there is none for one more. */
static int grow(void **array, size_t n, size_t *cap, size_t size)
{
        size_t more = *cap ? 2 * *cap : 64;
        void *p;

        if (n < *cap)
                return 0;
        p = reallocarray(*array, more, size);
        if (!p)
                return -ENOMEM;
        *array = p;
        *cap = more;
        return 0;
}

static int add_mark(struct collection *c, const uint8_t *row, struct err *e)
{
        void *marks = (void *) c->marks;
        int r = grow(&marks, c->n_marks, &c->cap_marks, sizeof *c->marks);

        c->marks = marks;
        if (r < 0)
                return err_set(e, r, "out of memory");
        c->marks[c->n_marks++] = row;
        return 0;
}

/* Map the names of one layer and mark them. */
static int mark_layer(struct collection *c, int fd, struct err *e)
{
        void *all = c->names;
        struct stat st;
        uint8_t *p;
        size_t len;
        int r = grow(&all, c->n, &c->cap, sizeof *c->names);

        c->names = all;
        if (r < 0)
                return err_set(e, r, "out of memory");
        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "names of its objects");
        if (st.st_size < (off_t) OBJECTS_HEADER_BYTES ||
            (st.st_size - (off_t) OBJECTS_HEADER_BYTES) % (off_t) OBJECTS_ROW_BYTES != 0)
                return err_set(e, -EBADMSG, "names of its objects are damaged");
        len = (size_t) st.st_size;
        p = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
                return err_errno(e, -errno, "names of its objects");
        c->names[c->n++] = (struct names){ p, len };
        for (size_t at = OBJECTS_HEADER_BYTES; r >= 0 && at < len; at += OBJECTS_ROW_BYTES)
                r = add_mark(c, p + at, e);
        return r;
}

static int mark_all(struct collection *c, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(c->store->db, &st, e, "SELECT n FROM layer WHERE objects > 0", NULL,
                                0);

        if (r < 0)
                return r;
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
                long long n = sqlite3_column_int64(st, 0);
                AUTO(fd) int fd = -EBADF;
                char path[40];

                (void) snprintf(path, sizeof path, "%lld/" STORE_OBJECTS, n);
                fd = fd_open_beneath(c->store->layers_fd, path, O_RDONLY, 0);
                r = fd < 0 ? err_errno(e, fd, "names of its objects") : mark_layer(c, fd, e);
                if (r < 0)
                        return err_wrap(e, r, "layers/%lld", n);
        }
        return rc == SQLITE_DONE ? 0 : sql_error(c->store->db, e, "layers");
}

static int compare_marks(const void *a, const void *b)
{
        const uint8_t *const *x = a, *const *y = b;

        return memcmp(*x, *y, LAYER_SHA_BYTES);
}

static bool is_marked(const struct collection *c, const char *shard, const char *name)
{
        uint8_t sha[LAYER_SHA_BYTES];
        const uint8_t *key = sha;
        char hex[STORE_HEX_BYTES];

        if (c->n_marks == 0 || strlen(name) != sizeof hex - 3)
                return false;
        (void) snprintf(hex, sizeof hex, "%.2s%s", shard, name);
        return store_sha_parse(hex, sha) >= 0 &&
               bsearch(&key, c->marks, c->n_marks, sizeof *c->marks, compare_marks) != NULL;
}

static int collect_shard(struct collection *c, const char *name, struct err *e)
{
        AUTO(fd)
        int fd = fd_open_beneath(c->store->objects_fd, name, O_RDONLY | O_DIRECTORY, 0);
        AUTO(strv_free) char **list = NULL;
        int r = fd < 0 ? fd : staging_list(fd, &list);

        if (r < 0)
                return err_errno(e, r, "reading objects/%s", name);
        for (char **f = list; *f; f++) {
                if (is_marked(c, name, *f))
                        continue;
                if (unlinkat(fd, *f, 0) < 0)
                        return err_errno(e, -errno, "removing objects/%s/%s", name, *f);
                c->removed++;
        }
        (void) unlinkat(c->store->objects_fd, name, AT_REMOVEDIR); /* when it is empty */
        return 0;
}

static int collect(struct collection *c, struct err *e)
{
        AUTO(strv_free) char **shards = NULL;
        int r = mark_all(c, e);

        if (r < 0)
                return r;
        if (c->n_marks > 0)
                qsort(c->marks, c->n_marks, sizeof *c->marks, compare_marks);
        r = staging_list(c->store->objects_fd, &shards);
        if (r < 0)
                return err_errno(e, r, "reading objects");
        for (char **s = shards; r >= 0 && *s; s++)
                r = collect_shard(c, *s, e);
        return r;
}

/* A lock is the open file's: s->objects_fd is shared with other processes. */
static int open_objects(struct image_store *s, struct err *e)
{
        int fd = fd_open_beneath(s->dir_fd, "objects", O_RDONLY | O_DIRECTORY, 0);

        return fd < 0 ? err_errno(e, fd, "opening images/objects") : fd;
}

int collect_hold(struct image_store *s, struct err *e)
{
        AUTO(fd) int fd = open_objects(s, e);

        if (fd < 0)
                return fd;
        while (flock(fd, LOCK_SH) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "locking images/objects");
        return fd_take(&fd);
}

int collect_lock_out(struct image_store *s, struct err *e)
{
        uint64_t until = clock_mono_us() + PATIENCE_US;
        AUTO(fd) int fd = open_objects(s, e);

        if (fd < 0)
                return fd;
        while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                if (errno != EINTR && errno != EWOULDBLOCK)
                        return err_errno(e, -errno, "locking images/objects");
                if (clock_mono_us() > until)
                        return -EAGAIN;
                (void) poll(NULL, 0, PAUSE_MS);
        }
        return fd_take(&fd);
}

int collect_objects(struct image_store *s, struct err *e)
{
        AUTO(collection_done) struct collection c = { .store = s };
        AUTO(fd) int lock = collect_lock_out(s, e);
        int r = lock < 0 ? lock : catalog_begin(s, e);

        if (r == -EAGAIN) {
                log_info(
                        "images: objects are being added; those that nothing uses go another time");
                return 0;
        }

        if (r < 0)
                return r;
        r = collect(&c, e);
        catalog_rollback(s); /* nothing was written */
        if (c.removed > 0)
                log_info("images: %llu objects that nothing uses were removed",
                         (unsigned long long) c.removed);
        return r < 0 ? err_wrap(e, r, "collecting objects") : 0;
}
