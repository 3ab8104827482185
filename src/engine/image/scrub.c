/* scrub.c - see scrub.h.
 *
 * Theory of operation.  Files are visited in a fixed order, round and round: layers by number, metadata
 * by number, objects by name.  So what was checked longest ago comes next, and one row of the database
 * remembers where we are.  Files are read past the page cache, which would answer for a rotten disk.
 *
 * What is damaged stays where it is: clusters that run from it go on.  Images that use it are
 * quarantined; rows of damaged layers lose their diff id, so that the next pull fetches them; a damaged
 * object gets a mode of its own, so that the next layer that brings it replaces it.  All of this may be
 * done twice, which is what happens after a kill. */
#include "engine/image/scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "catalog_sql.h"
#include "store/bytes.h"
#include "store/erofs.h"
#include "store/layer_objects.h"
#include "store_priv.h"

#define CHUNK_BYTES (1U << 20)
#define ALIGN_BYTES 4096U
#define FILE_BYTES  (64U << 10) /* what a small file costs */
#define BATCH_US    (60 * US_PER_S)
#define RATE_LEAST  (32ULL << 20) /* in a second */
#define RATE_MOST   (1ULL << 50)  /* more than any disk; a double holds it */

struct scrub {
        struct image_store *store;
        struct image_scrub *spec;
        void *buf;
        uint64_t began_us;
        char position[80];
};

/* --- reading --- */

/* What file systems say when the disk below has changed. */
static bool is_damage(int r)
{
        return r == -EIO || r == -EUCLEAN || r == -EBADMSG;
}

static int open_direct(int dir, const char *name)
{
        int fd = fd_open_beneath(dir, name, O_RDONLY | O_DIRECT, 0);

        return fd == -EINVAL ? fd_open_beneath(dir, name, O_RDONLY, 0) : fd;
}

/* A file system may find out only now that it cannot. */
static ssize_t read_direct(int fd, void *buf, off_t at)
{
        ssize_t n;

        do
                n = pread(fd, buf, CHUNK_BYTES, at);
        while (n < 0 && errno == EINTR);
        if (n >= 0 || errno != EINVAL || fcntl(fd, F_SETFL, 0) < 0)
                return n;
        (void) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        return pread(fd, buf, CHUNK_BYTES, at);
}

/* Not faster than allowed, on average since the call began. */
static void pace(struct scrub *x, uint64_t bytes)
{
        uint64_t due, now = clock_mono_us();

        x->spec->read += bytes;
        if (!x->spec->rate)
                return;
        due = x->began_us + (uint64_t) ((double) x->spec->read / (double) x->spec->rate * 1e6);
        if (due > now)
                (void) poll(NULL, 0,
                            (int) ((due - now) / 1000 > 10000 ? 10000 : (due - now) / 1000));
}

static int digest_file(struct scrub *x, int fd, EVP_MD_CTX *md, uint8_t ret[LAYER_SHA_BYTES],
                       struct err *e)
{
        uint8_t sha[EVP_MAX_MD_SIZE];
        bool direct = (fcntl(fd, F_GETFL) & O_DIRECT) != 0;
        ssize_t n;

        if (!direct)
                (void) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        if (EVP_DigestInit_ex(md, EVP_sha256(), NULL) != 1)
                return err_set(e, -ENOMEM, "SHA-256 failed");
        for (off_t at = 0; (n = read_direct(fd, x->buf, at)) != 0; at += n) {
                if (n < 0)
                        return err_errno(e, is_damage(-errno) ? -EBADMSG : -errno,
                                         "cannot be read");
                if (EVP_DigestUpdate(md, x->buf, (size_t) n) != 1)
                        return err_set(e, -ENOMEM, "SHA-256 failed");
                if (!direct)
                        (void) posix_fadvise(fd, at, n, POSIX_FADV_DONTNEED);
                pace(x, (uint64_t) n);
        }
        pace(x, FILE_BYTES);
        if (EVP_DigestFinal_ex(md, sha, NULL) != 1)
                return err_set(e, -ENOMEM, "SHA-256 failed");
        memcpy(ret, sha, LAYER_SHA_BYTES);
        return 0;
}

/* -EBADMSG: it cannot be read; -ENOENT. */
static int hash_file(struct scrub *x, int dir, const char *name, char ret[static STORE_HEX_BYTES],
                     struct err *e)
{
        AUTO(fd) int fd = open_direct(dir, name);
        EVP_MD_CTX *md = fd < 0 ? NULL : EVP_MD_CTX_new();
        uint8_t sha[LAYER_SHA_BYTES];
        int r;

        if (fd < 0)
                return err_errno(e, is_damage(fd) ? -EBADMSG : fd, "cannot be opened");
        r = md ? digest_file(x, fd, md, sha, e) : err_set(e, -ENOMEM, "out of memory");
        EVP_MD_CTX_free(md);
        if (r >= 0)
                hex_encode(sha, sizeof sha, ret);
        return r;
}

/* --- quarantine --- */

static int tell_images(struct scrub *x, const char *sql, int64_t key, const char *why,
                       struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc = SQLITE_DONE,
            r = sql_prepare(x->store->db, &st, e, sql, (struct sql_arg[]){ { NULL, key } }, 1);

        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                const char *name = (const char *) sqlite3_column_text(st, 1);

                log_warn("image %s is damaged on this disk and is not used any more: %s",
                         name ? name : "without a name", why);
                if (x->spec->fn)
                        x->spec->fn(x->spec->arg, (uint64_t) sqlite3_column_int64(st, 0),
                                    name ? name : "", why);
        }
        return r < 0 || rc == SQLITE_DONE ? r : sql_error(x->store->db, e, "images");
}

static int damaged_layer(struct scrub *x, int64_t n, const char *why, struct err *e)
{
        int r = tell_images(x,
                            "SELECT DISTINCT i.id,"
                            " (SELECT min(reference) FROM name WHERE image = i.id)"
                            " FROM image_layer il JOIN image i ON i.id = il.image"
                            " WHERE il.layer = ? AND i.quarantined = ''",
                            n, why, e);

        return r < 0 ? r : catalog_quarantine_layer(x->store, n, why, e);
}

static int damaged_meta(struct scrub *x, int64_t id, const char *why, struct err *e)
{
        int r = tell_images(x,
                            "SELECT id, (SELECT min(reference) FROM name WHERE image = id)"
                            " FROM image WHERE id = ? AND quarantined = ''",
                            id, why, e);

        return r < 0 ? r : catalog_quarantine_image(x->store, id, why, e);
}

/* --- layers --- */

struct layer_row {
        int64_t n;
        uint64_t pack_bytes;
        uint32_t objects;
        char pack_sha[STORE_HEX_BYTES], index_sha[STORE_HEX_BYTES], names_sha[STORE_HEX_BYTES];
};

static void copy_sha(sqlite3_stmt *st, int col, char ret[static STORE_HEX_BYTES])
{
        const char *s = (const char *) sqlite3_column_text(st, col);

        (void) snprintf(ret, STORE_HEX_BYTES, "%s", s ? s : "");
}

/* The first one behind @after; 0: there is none. */
static int next_layer(struct scrub *x, int64_t after, struct layer_row *ret, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(x->store->db, &st, e,
                                "SELECT n, pack_bytes, objects, pack_sha, index_sha, names_sha"
                                " FROM layer WHERE n > ? AND diff_id NOT LIKE 'bad:%'"
                                " ORDER BY n LIMIT 1",
                                (struct sql_arg[]){ { NULL, after } }, 1);

        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
                return rc == SQLITE_DONE ? 0 : sql_error(x->store->db, e, "layers");
        ret->n = sqlite3_column_int64(st, 0);
        ret->pack_bytes = (uint64_t) sqlite3_column_int64(st, 1);
        ret->objects = (uint32_t) sqlite3_column_int64(st, 2);
        copy_sha(st, 3, ret->pack_sha);
        copy_sha(st, 4, ret->index_sha);
        copy_sha(st, 5, ret->names_sha);
        return 1;
}

static int row_is_there(struct scrub *x, const char *sql, int64_t key, struct err *e)
{
        int64_t one;

        return sql_number(x->store->db, &one, e, sql, (struct sql_arg[]){ { NULL, key } }, 1);
}

/* Against @want; "": *@ret_new is its hash, for the first time. */
static int check_file(struct scrub *x, int dir, const char *name, const char *want,
                      const char *what, char ret_new[static STORE_HEX_BYTES], struct err *e)
{
        struct err why = { 0 };
        int r = hash_file(x, dir, name, ret_new, &why);

        if (r == -ENOENT || r == -EBADMSG)
                return err_set(e, -EBADMSG, "%s %s", what, why.msg);
        if (r < 0)
                return err_copy(e, &why);
        if (*want && !str_eq(want, ret_new))
                return err_set(e, -EBADMSG, "%s has changed on the disk", what);
        return 0;
}

static int note_pack(struct scrub *x, const struct layer_row *l, const char *sha, struct err *e)
{
        return *l->pack_sha
                       ? 0
                       : sql_exec(x->store->db, e,
                                  "UPDATE layer SET pack_sha = ? WHERE n = ? AND pack_sha = ''",
                                  (struct sql_arg[]){ { sha, 0 }, { NULL, l->n } }, 2);
}

/* All objects that it names must be there, whole; what is in them is looked at in their turn. */
static int check_names(struct scrub *x, int dir, struct err *e)
{
        AUTO(fd) int fd = fd_open_beneath(dir, STORE_OBJECTS, O_RDONLY, 0);
        uint8_t row[OBJECTS_ROW_BYTES];
        static const uint8_t none[OBJECTS_ROW_BYTES];

        if (fd < 0)
                return err_errno(e, fd, "names of its objects");
        for (off_t at = OBJECTS_HEADER_BYTES;
             pread(fd, row, sizeof row, at) == (ssize_t) sizeof row; at += (off_t) sizeof row) {
                char path[EROFS_OBJECT_PATH_BYTES];
                struct stat st;

                if (memcmp(row, none, sizeof none) == 0)
                        continue;
                erofs_object_path(row, path);
                if (fstatat(x->store->objects_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                    !S_ISREG(st.st_mode) || (uint64_t) st.st_size != get64(row + LAYER_SHA_BYTES))
                        return err_set(e, -EBADMSG, "object %s is missing or too short", path);
        }
        return 0;
}

static int check_layer_files(struct scrub *x, const struct layer_row *l, int dir, struct err *e)
{
        char sha[STORE_HEX_BYTES];
        struct stat st;
        int r = check_file(x, dir, STORE_INDEX, l->index_sha, "its index", sha, e);

        if (r >= 0 && l->objects) {
                r = check_file(x, dir, STORE_OBJECTS, l->names_sha, "the list of its objects", sha,
                               e);
                if (r >= 0)
                        r = check_names(x, dir, e);
        }
        if (r >= 0 && (fstatat(dir, STORE_PACK, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
                       (uint64_t) st.st_size != l->pack_bytes))
                r = err_set(e, -EBADMSG, "its pack is missing or too short");
        if (r >= 0)
                r = check_file(x, dir, STORE_PACK, l->pack_sha, "its pack", sha, e);
        return r < 0 ? r : note_pack(x, l, sha, e);
}

static int scrub_layer(struct scrub *x, const struct layer_row *l, struct err *e)
{
        struct err why = { 0 };
        AUTO(fd) int dir = -EBADF;
        char name[24], text[700];
        int r;

        (void) snprintf(name, sizeof name, "%lld", (long long) l->n);
        dir = fd_open_beneath(x->store->layers_fd, name, O_RDONLY | O_DIRECTORY, 0);
        r = dir == -ENOENT   ? err_set(&why, -EBADMSG, "it is missing")
            : is_damage(dir) ? err_set(&why, -EBADMSG, "its directory cannot be opened")
            : dir < 0        ? err_errno(&why, dir, "layers/%s", name)
                             : check_layer_files(x, l, dir, &why);
        if (r != -EBADMSG)
                return r < 0 ? err_copy(e, &why) : 0;
        /* files go after their rows: with the row still here it is no removal */
        r = row_is_there(x, "SELECT n FROM layer WHERE n = ?", l->n, e);
        (void) snprintf(text, sizeof text, "layers/%s: %s", name, why.msg);
        return r <= 0 ? r : damaged_layer(x, l->n, text, e);
}

/* --- metadata --- */

static int next_meta(struct scrub *x, int64_t after, int64_t *ret_id,
                     char ret_sha[static STORE_HEX_BYTES], struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(x->store->db, &st, e,
                                "SELECT id, meta_sha FROM image WHERE id > ? AND quarantined = ''"
                                " ORDER BY id LIMIT 1",
                                (struct sql_arg[]){ { NULL, after } }, 1);

        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
                return rc == SQLITE_DONE ? 0 : sql_error(x->store->db, e, "images");
        *ret_id = sqlite3_column_int64(st, 0);
        copy_sha(st, 1, ret_sha);
        return 1;
}

static int scrub_meta(struct scrub *x, int64_t id, const char *want, struct err *e)
{
        struct err why = { 0 };
        char name[24], text[700], sha[STORE_HEX_BYTES];
        int r;

        (void) snprintf(name, sizeof name, "%lld", (long long) id);
        r = check_file(x, x->store->metas_fd, name, want, "its metadata", sha, &why);
        if (r != -EBADMSG)
                return r < 0 ? err_copy(e, &why) : 0;
        r = row_is_there(x, "SELECT id FROM image WHERE id = ?", id, e);
        (void) snprintf(text, sizeof text, "metas/%s: %s", name, why.msg);
        return r <= 0 ? r : damaged_meta(x, id, text, e);
}

/* --- objects --- */

/* The first name of @list behind @after, or NULL. */
static const char *next_name(char **list, const char *after)
{
        const char *best = NULL;

        for (char **n = list; *n; n++)
                if (strcmp(*n, after) > 0 && (!best || strcmp(*n, best) < 0))
                        best = *n;
        return best;
}

/* The object "ab/cdef..." behind @after, which is one or "". */
static int next_object(struct scrub *x, const char *after, char ret[static STORE_HEX_BYTES + 1],
                       struct err *e)
{
        AUTO(strv_free) char **shards = NULL;
        char shard[8];
        const char *rest = strchr(after, '/');
        int r = staging_list(x->store->objects_fd, &shards);

        (void) snprintf(shard, sizeof shard, "%.2s", after);
        rest = rest ? rest + 1 : "";
        for (const char *s = r < 0     ? NULL
                             : rest[0] ? shard
                                       : next_name(shards, "");
             s; s = next_name(shards, s), rest = "") {
                AUTO(strv_free) char **names = NULL;
                AUTO(fd)
                int fd = fd_open_beneath(x->store->objects_fd, s, O_RDONLY | O_DIRECTORY, 0);
                const char *name;

                if (fd == -ENOENT)
                        continue;
                r = fd < 0 ? fd : staging_list(fd, &names);
                if (r < 0)
                        break;
                name = next_name(names, rest);
                if (!name)
                        continue;
                (void) snprintf(ret, STORE_HEX_BYTES + 1, "%.2s/%.62s", s, name);
                return 1;
        }
        return r < 0 ? err_errno(e, r, "reading images/objects") : 0;
}

/* 1: the layer's table has a row with it. */
static int layer_names(struct scrub *x, int64_t n, const uint8_t sha[LAYER_SHA_BYTES])
{
        AUTO(fd) int fd = -EBADF;
        uint8_t row[OBJECTS_ROW_BYTES];
        char path[40];

        (void) snprintf(path, sizeof path, "%lld/" STORE_OBJECTS, (long long) n);
        fd = fd_open_beneath(x->store->layers_fd, path, O_RDONLY, 0);
        if (fd < 0)
                return 0; /* being removed, or damaged itself, which its own turn finds */
        for (off_t at = OBJECTS_HEADER_BYTES;
             pread(fd, row, sizeof row, at) == (ssize_t) sizeof row; at += (off_t) sizeof row)
                if (memcmp(row, sha, LAYER_SHA_BYTES) == 0)
                        return 1;
        return 0;
}

/* With nobody adding any: mark it, then every layer that names it. */
static int damaged_object(struct scrub *x, const char *path, const uint8_t sha[LAYER_SHA_BYTES],
                          const char *why, struct err *e)
{
        AUTO(fd) int lock = collect_lock_out(x->store, e);
        struct layer_row l = { .n = 0 };
        int r;

        if (lock < 0)
                return lock == -EAGAIN ? err_set(e, lock, "objects are being added") : lock;
        if (fchmodat(x->store->objects_fd, path, STORE_DAMAGED_MODE, 0) < 0 && !is_damage(-errno))
                return errno == ENOENT ? 0 : err_errno(e, -errno, "objects/%s", path);
        while ((r = next_layer(x, l.n, &l, e)) > 0) {
                if (!l.objects || !layer_names(x, l.n, sha))
                        continue;
                r = damaged_layer(x, l.n, why, e);
                if (r < 0)
                        break;
        }
        return r;
}

static int scrub_object(struct scrub *x, const char *path, struct err *e)
{
        char hex[STORE_HEX_BYTES], sha[STORE_HEX_BYTES], text[700];
        uint8_t name[LAYER_SHA_BYTES];
        struct err why = { 0 };
        int r;

        (void) snprintf(hex, sizeof hex, "%.2s%s", path, path + 3);
        if (store_sha_parse(hex, name) < 0)
                return 0; /* not ours; the collection removes it */
        r = hash_file(x, x->store->objects_fd, path, sha, &why);
        if (r == -ENOENT)
                return 0; /* collected; if it is needed, its layer's turn finds that it is missing */
        if (r < 0 && r != -EBADMSG)
                return err_copy(e, &why);
        if (r >= 0 && str_eq(hex, sha))
                return 0;
        (void) snprintf(text, sizeof text, "object %s %s", path,
                        r < 0 ? why.msg : "does not match its name: it has changed on the disk");
        return damaged_object(x, path, name, text, e);
}

/* --- the round --- */

static int remember(struct scrub *x, struct err *e)
{
        const struct sql_arg a[] = { { x->position, 0 } };

        return sql_exec_lazily(x->store->db, e, "UPDATE scrub SET position = ?", a, NELEM(a));
}

static int recall(struct scrub *x, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        sqlite3 *db = NULL;
        int64_t total = 0;
        int r = catalog_db(x->store, &db, e);

        if (r >= 0)
                r = sql_number(db, &total, e,
                               "SELECT (SELECT coalesce(sum(content_bytes), 0) FROM layer)"
                               " + (SELECT coalesce(sum(meta_bytes), 0) FROM image)",
                               NULL, 0);
        if (r >= 0)
                r = sql_prepare(db, &st, e, "SELECT position FROM scrub", NULL, 0);
        if (r < 0)
                return r;
        x->spec->total = (uint64_t) total;
        if (sqlite3_step(st) == SQLITE_ROW && sqlite3_column_text(st, 0))
                (void) snprintf(x->position, sizeof x->position, "%s",
                                (const char *) sqlite3_column_text(st, 0));
        return 0;
}

/* Number behind the letter, when that is what the position is at; else where such things begin. */
static int64_t number_at(const struct scrub *x, char letter)
{
        uint64_t n;

        if (x->position[0] != letter || str_u64(x->position + 2, 0, INT64_MAX, &n) < 0)
                return 0;
        return (int64_t) n;
}

/* The next file, or the files of the next layer.  0: it was the round's last. */
static int step(struct scrub *x, struct err *e)
{
        char sha[STORE_HEX_BYTES], path[STORE_HEX_BYTES + 1], at = x->position[0];
        struct layer_row l;
        int64_t id = 0;
        int r = 0;

        if (at == '\0' || at == 'l')
                r = next_layer(x, number_at(x, 'l'), &l, e);
        if (r > 0) {
                r = scrub_layer(x, &l, e);
                (void) snprintf(x->position, sizeof x->position, "l %lld", (long long) l.n);
                return r < 0 ? r : 1;
        }
        if (r >= 0 && at != 'o')
                r = next_meta(x, number_at(x, 'm'), &id, sha, e);
        if (r > 0) {
                r = scrub_meta(x, id, sha, e);
                (void) snprintf(x->position, sizeof x->position, "m %lld", (long long) id);
                return r < 0 ? r : 1;
        }
        if (r >= 0)
                r = next_object(x, at == 'o' ? x->position + 2 : "", path, e);
        if (r > 0) {
                r = scrub_object(x, path, e);
                (void) snprintf(x->position, sizeof x->position, "o %s", path);
                return r < 0 ? r : 1;
        }
        x->position[0] = '\0';
        return r;
}

void image_scrub_due(struct image_scrub *x, uint64_t total, uint64_t period_us)
{
        double part = period_us > BATCH_US ? (double) BATCH_US / (double) period_us : 1;
        double rate = 2 * (double) total / (double) period_us * (double) US_PER_S;

        x->bytes = (part < 1 ? (uint64_t) ((double) total * part) : total) + 1;
        x->rate = rate < (double) RATE_LEAST  ? RATE_LEAST
                  : rate < (double) RATE_MOST ? (uint64_t) rate
                                              : RATE_MOST;
}

int image_scrub(struct image_store *s, struct image_scrub *spec, struct err *e)
{
        AUTO(free) void *buf = aligned_alloc(ALIGN_BYTES, CHUNK_BYTES);
        struct scrub x = { .store = s, .spec = spec, .buf = buf, .began_us = clock_mono_us() };
        int more = 1, r;

        spec->read = 0;
        if (!buf)
                return err_set(e, -ENOMEM, "out of memory");
        r = recall(&x, e);
        while (r >= 0 && more && spec->read < spec->bytes) {
                r = more = step(&x, e);
                if (r >= 0)
                        r = remember(&x, e);
        }
        return r < 0 ? err_wrap(e, r, "checking the image store") : !more;
}
