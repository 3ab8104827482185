/* collect.c - objects that no layer needs any more.  Operation processes and engine start.
 *
 * What always holds: an object of a layer that the database knows stays.  Publishers hold a shared lock
 * on objects/ from before they move the first one until their layers are known; the exclusive one is
 * ours from before the layers are listed until the last object is gone.  Whoever has this lock may wait
 * for the database's, never the other way round.
 *
 * Theory of operation.  layers/<n>/objects names a layer's objects, in rows of 40 bytes that publish.c
 * wrote.  All of them are read, their digests sorted, and what is below objects/ is looked up.  Names that
 * are not what their hash says mark nothing.  The layer's index, when that is sound, has the sizes of its
 * objects, and everything of such a size stays; else everything stays, until the layer goes. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
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
#include "store/layer_objects.h"
#include "store_priv.h"

#define PATIENCE_US (2 * US_PER_S)
#define PAUSE_MS    10

struct collection {
        struct image_store *store;
        uint8_t **names; /* files, whole */
        size_t n, cap;
        const uint8_t **marks; /* digests in their rows */
        size_t n_marks, cap_marks;
        uint64_t *sizes; /* of objects whose names are damaged */
        size_t n_sizes, cap_sizes;
        int64_t blind; /* a layer of whose objects nothing is known, or 0 */
        uint64_t removed;
};

static void collection_done_cleanup(struct collection *c)
{
        for (size_t i = 0; i < c->n; i++)
                free(c->names[i]);
        free((void *) c->names);
        free((void *) c->marks);
        free(c->sizes);
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

struct row {
        int64_t n;
        uint32_t objects;
        char index_sha[STORE_HEX_BYTES], names_sha[STORE_HEX_BYTES];
};

static bool is_sha(const uint8_t *p, size_t len, const char *want)
{
        uint8_t sha[EVP_MAX_MD_SIZE];
        char hex[STORE_HEX_BYTES];

        if (EVP_Digest(p, len, sha, NULL, EVP_sha256(), NULL) != 1)
                return false;
        hex_encode(sha, LAYER_SHA_BYTES, hex);
        return str_eq(hex, want);
}

/* The names of one layer, read and not mapped: a rotten disk says so, and does not kill us. */
static int read_names(int dir, const struct row *l, uint8_t **ret, struct err *e)
{
        size_t len = OBJECTS_HEADER_BYTES + (size_t) l->objects * OBJECTS_ROW_BYTES;
        AUTO(fd) int fd = fd_open_beneath(dir, STORE_OBJECTS, O_RDONLY, 0);
        AUTO(free) uint8_t *p = NULL;
        struct stat st;
        ssize_t got;

        if (fd < 0)
                return err_errno(e, fd, "names of its objects");
        if (fstat(fd, &st) < 0)
                return err_errno(e, -errno, "names of its objects");
        if (st.st_size != (off_t) len)
                return err_set(e, -EBADMSG, "names of its objects are damaged");
        p = malloc(len);
        if (!p)
                return err_set(e, -ENOMEM, "out of memory");
        got = fd_read_full(fd, p, len);
        if (got < 0)
                return err_errno(e, (int) got, "names of its objects");
        if ((size_t) got != len || !is_sha(p, len, l->names_sha))
                return err_set(e, -EBADMSG, "names of its objects are damaged");
        *ret = TAKE(p);
        return 0;
}

static int mark_names(struct collection *c, int dir, const struct row *l, struct err *e)
{
        void *all = (void *) c->names;
        int r = grow(&all, c->n, &c->cap, sizeof *c->names);

        c->names = all;
        if (r < 0)
                return err_set(e, r, "out of memory");
        r = read_names(dir, l, &c->names[c->n], e);
        if (r < 0)
                return r;
        c->n++;
        for (uint32_t i = 0; r >= 0 && i < l->objects; i++)
                r = add_mark(c,
                             c->names[c->n - 1] + OBJECTS_HEADER_BYTES +
                                     (size_t) i * OBJECTS_ROW_BYTES,
                             e);
        return r;
}

static int mark_sizes(struct collection *c, int dir, const struct row *l, struct err *e)
{
        struct catalog_layer index_only = { 0 };
        struct check_result found;
        int r;

        memcpy(index_only.index_sha, l->index_sha, sizeof index_only.index_sha);
        r = check_known(dir, &index_only, &found, e);
        if (r < 0)
                return r;
        for (uint32_t i = 0; r >= 0 && i < found.index.n_objects; i++) {
                void *sizes = c->sizes;

                r = grow(&sizes, c->n_sizes, &c->cap_sizes, sizeof *c->sizes);
                c->sizes = sizes;
                if (r >= 0)
                        c->sizes[c->n_sizes++] = layer_index_object(&found.index, i);
        }
        check_result_done(&found);
        return r < 0 ? err_set(e, r, "out of memory") : 0;
}

/* Not for want of something that we lack. */
static bool is_lost(int r)
{
        return r == -EBADMSG || r == -ENOENT || r == -EIO || r == -EUCLEAN;
}

static int mark_layer(struct collection *c, const struct row *l, struct err *e)
{
        struct err why = { 0 };
        AUTO(fd) int dir = -EBADF;
        char name[24];
        int r;

        (void) snprintf(name, sizeof name, "%lld", (long long) l->n);
        dir = fd_open_beneath(c->store->layers_fd, name, O_RDONLY | O_DIRECTORY, 0);
        r = dir < 0 ? err_errno(&why, dir, "its directory") : mark_names(c, dir, l, &why);
        if (r >= 0)
                return 0;
        if (!is_lost(r))
                return err_wrap(e, err_copy(e, &why), "layers/%s", name);
        r = dir < 0 ? dir : mark_sizes(c, dir, l, e);
        if (r < 0 && !is_lost(r))
                return err_wrap(e, r, "layers/%s", name);
        log_warn("images: layers/%s: %s; %s stay", name, why.msg,
                 r < 0 ? "all objects" : "objects that have the size of one of its own");
        if (r < 0)
                c->blind = l->n;
        return 0;
}

static int mark_all(struct collection *c, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(c->store->db, &st, e,
                                "SELECT n, objects, index_sha, names_sha FROM layer"
                                " WHERE objects > 0",
                                NULL, 0);

        if (r < 0)
                return r;
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
                struct row l = { .n = sqlite3_column_int64(st, 0),
                                 .objects = (uint32_t) sqlite3_column_int64(st, 1) };

                (void) snprintf(l.index_sha, sizeof l.index_sha, "%s", sql_text(st, 2));
                (void) snprintf(l.names_sha, sizeof l.names_sha, "%s", sql_text(st, 3));
                r = mark_layer(c, &l, e);
                if (r < 0)
                        return r;
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

static int compare_sizes(const void *a, const void *b)
{
        const uint64_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

/* It may be one whose name is lost. */
static bool may_be_needed(const struct collection *c, int shard, const char *name)
{
        struct stat st;
        uint64_t size;

        if (c->n_sizes == 0 || fstatat(shard, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return false;
        size = (uint64_t) st.st_size;
        return bsearch(&size, c->sizes, c->n_sizes, sizeof *c->sizes, compare_sizes) != NULL;
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
                if (is_marked(c, name, *f) || may_be_needed(c, fd, *f))
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

        if (r < 0 || c->blind)
                return r;
        if (c->n_marks > 0)
                qsort((void *) c->marks, c->n_marks, sizeof *c->marks, compare_marks);
        if (c->n_sizes > 0)
                qsort(c->sizes, c->n_sizes, sizeof *c->sizes, compare_sizes);
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

int collect_is_blind(struct image_store *s, int64_t *ret_layer, struct err *e)
{
        AUTO(collection_done) struct collection c = { .store = s };
        int r = mark_all(&c, e);

        *ret_layer = c.blind;
        return r < 0 ? r : c.blind != 0;
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
