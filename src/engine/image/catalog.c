/* catalog.c - images.db: layers, images, names.  Engine and operation processes; SQLite locks.
 *
 * What always holds: what the database names is on the disk in full, because rows are committed,
 * durably, after the files were synced and moved.  Numbers of layers and images are never used twice.
 * Claims are the exception: they only say who fetches what just now, and mean nothing once nobody
 * holds the staging directory of that name. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "base/proc.h"
#include "catalog_sql.h"
#include "store_priv.h"

#include <openssl/evp.h>

#define MODE_TRIES    100
#define MODE_PAUSE_MS 10

#define FORMAT 2 /* 1: layers as directory trees, before there was a release */

static const char schema[] =
        "CREATE TABLE layer (n INTEGER PRIMARY KEY AUTOINCREMENT, domain TEXT NOT NULL,"
        " diff_id TEXT NOT NULL, threshold INTEGER NOT NULL, pack_bytes INTEGER NOT NULL,"
        " pack_sha TEXT NOT NULL, index_sha TEXT NOT NULL, names_sha TEXT NOT NULL,"
        " content_bytes INTEGER NOT NULL,"
        " objects INTEGER NOT NULL, UNIQUE (domain, diff_id, threshold));"
        "CREATE TABLE image (id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL UNIQUE,"
        " domain TEXT NOT NULL, digest TEXT NOT NULL, description TEXT NOT NULL,"
        " meta_sha TEXT NOT NULL, meta_bytes INTEGER NOT NULL, devices TEXT NOT NULL,"
        " quarantined TEXT NOT NULL);"
        "CREATE TABLE image_layer (image INTEGER NOT NULL REFERENCES image(id) ON DELETE CASCADE,"
        " position INTEGER NOT NULL, layer INTEGER NOT NULL REFERENCES layer(n),"
        " PRIMARY KEY (image, position)) WITHOUT ROWID;"
        "CREATE INDEX image_layer_by_layer ON image_layer (layer);"
        "CREATE TABLE name (reference TEXT NOT NULL, account TEXT NOT NULL,"
        " public INTEGER NOT NULL, image INTEGER NOT NULL REFERENCES image(id),"
        " created_us INTEGER NOT NULL, used_us INTEGER NOT NULL,"
        " PRIMARY KEY (reference, account)) WITHOUT ROWID;"
        "CREATE INDEX name_by_image ON name (image);"
        "CREATE TABLE claim (domain TEXT NOT NULL, diff_id TEXT NOT NULL,"
        " threshold INTEGER NOT NULL, op TEXT NOT NULL, turn INTEGER NOT NULL,"
        " PRIMARY KEY (domain, diff_id, threshold)) WITHOUT ROWID;"
        "CREATE TABLE scrub (position TEXT NOT NULL);" /* one row: what was checked last */
        "INSERT INTO scrub VALUES ('');"
        "PRAGMA user_version = 2;";

int sql_error(sqlite3 *db, struct err *e, const char *what)
{
        int rc = sqlite3_errcode(db);
        int r = rc == SQLITE_FULL    ? -ENOSPC
                : rc == SQLITE_NOMEM ? -ENOMEM
                : rc == SQLITE_BUSY  ? -EBUSY
                                     : -EIO;

        return err_set(e, r, "images.db: %s: %s", what, sqlite3_errmsg(db));
}

int sql_run(sqlite3 *db, const char *sql, struct err *e)
{
        return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_error(db, e, sql);
}

/* One that was prepared before and is at rest: compiling SQL takes longer than running it.  Every
 * text is a constant of ours, so there are few. */
static sqlite3_stmt *at_rest(sqlite3 *db, const char *sql)
{
        sqlite3_stmt *st = NULL;

        while ((st = sqlite3_next_stmt(db, st)) != NULL)
                if (!sqlite3_stmt_busy(st) && strcmp(sqlite3_sql(st), sql) == 0)
                        return st;
        return NULL;
}

void sql_close(sqlite3 *db)
{
        sqlite3_stmt *st;

        while (db && (st = sqlite3_next_stmt(db, NULL)) != NULL)
                (void) sqlite3_finalize(st);
        (void) sqlite3_close(db);
}

int sql_prepare(sqlite3 *db, sqlite3_stmt **ret, struct err *e, const char *sql,
                const struct sql_arg *args, size_t n)
{
        sqlite3_stmt *st = at_rest(db, sql);

        if (!st &&
            sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK)
                return sql_error(db, e, sql);
        for (size_t i = 0; i < n; i++) {
                int rc = args[i].text ? sqlite3_bind_text(st, (int) i + 1, args[i].text, -1,
                                                          SQLITE_TRANSIENT)
                                      : sqlite3_bind_int64(st, (int) i + 1, args[i].number);

                if (rc != SQLITE_OK) {
                        (void) sqlite3_clear_bindings(st);
                        return err_set(e, -ENOMEM, "images.db: out of memory");
                }
        }
        *ret = st;
        return 0;
}

int sql_exec(sqlite3 *db, struct err *e, const char *sql, const struct sql_arg *args, size_t n)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int r = sql_prepare(db, &st, e, sql, args, n);

        if (r < 0)
                return r;
        return sqlite3_step(st) == SQLITE_DONE ? 0 : sql_error(db, e, sql);
}

void sql_lazy(sqlite3 *db, bool lazy)
{
        (void) sqlite3_exec(db, lazy ? "PRAGMA synchronous = NORMAL" : "PRAGMA synchronous = FULL",
                            NULL, NULL, NULL);
}

int sql_exec_lazily(sqlite3 *db, struct err *e, const char *sql, const struct sql_arg *args,
                    size_t n)
{
        int r;

        sql_lazy(db, true);
        r = sql_exec(db, e, sql, args, n);
        sql_lazy(db, false);
        return r;
}

const char *sql_text(sqlite3_stmt *st, int col)
{
        const char *s = (const char *) sqlite3_column_text(st, col);

        return s ? s : "";
}

int sql_number(sqlite3 *db, int64_t *ret, struct err *e, const char *sql,
               const struct sql_arg *args, size_t n)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int r = sql_prepare(db, &st, e, sql, args, n), rc;

        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW) {
                *ret = sqlite3_column_int64(st, 0);
                return 1;
        }
        return rc == SQLITE_DONE ? 0 : sql_error(db, e, sql);
}

static int set_up(sqlite3 *db, struct err *e)
{
        int64_t version = 0;
        int r = -EBUSY;

        /* a fresh file that two make a database of at once: SQLite itself does not wait there */
        for (int i = 0; r == -EBUSY && i < MODE_TRIES; i++) {
                if (i > 0)
                        (void) poll(NULL, 0, MODE_PAUSE_MS);
                r = sql_run(db,
                            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
                            "PRAGMA foreign_keys = ON",
                            e);
        }

        if (r >= 0)
                r = sql_number(db, &version, e, "PRAGMA user_version", NULL, 0);
        if (r < 0 || version == FORMAT)
                return r;
        if (version > 0 && version < FORMAT)
                return err_set(
                        e, -ENOTSUP,
                        "images.db is from a version before the first release; remove the images directory and pull anew");
        if (version > FORMAT)
                return err_set(e, -ENOTSUP, "images.db has format %lld: made by a newer release",
                               (long long) version);
        r = sql_run(db, "BEGIN IMMEDIATE", e);
        if (r >= 0) /* somebody may have been faster */
                r = sql_number(db, &version, e, "PRAGMA user_version", NULL, 0);
        if (r >= 0 && version == 0)
                r = sql_run(db, schema, e);
        if (r >= 0)
                r = sql_run(db, "COMMIT", e);
        return r;
}

int catalog_db(struct image_store *s, sqlite3 **ret, struct err *e)
{
        AUTO(free) char *path = NULL;
        sqlite3 *db = NULL;
        int r;

        if (s->db && s->db_pid == getpid()) {
                *ret = s->db;
                return 0;
        }
        path = str_fmt("%s/images/images.db", s->inst->data_dir);
        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        if (sqlite3_open_v2(path, &db,
                            SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                            NULL) != SQLITE_OK) {
                r = err_set(e, -EIO, "%s: %s", path, db ? sqlite3_errmsg(db) : "out of memory");
                sql_close(db);
                return r;
        }
        (void) sqlite3_busy_timeout(db, SQL_BUSY_MS);
        r = set_up(db, e);
        if (r < 0) {
                sql_close(db);
                return r;
        }
        s->db = db; /* a handle of the process that forked us is left alone, never closed */
        s->db_pid = getpid();
        *ret = db;
        return 0;
}

static void end_lazy(struct image_store *s)
{
        if (s->lazy)
                sql_lazy(s->db, false);
        s->lazy = false;
}

int catalog_begin(struct image_store *s, struct err *e)
{
        sqlite3 *db = NULL;
        int r = catalog_db(s, &db, e);

        return r < 0 ? r : sql_run(db, "BEGIN IMMEDIATE", e);
}

int catalog_begin_lazily(struct image_store *s, struct err *e)
{
        sqlite3 *db = NULL;
        int r = catalog_db(s, &db, e);

        if (r < 0)
                return r;
        s->lazy = true;
        sql_lazy(db, true);
        r = sql_run(db, "BEGIN IMMEDIATE", e);
        if (r < 0)
                end_lazy(s);
        return r;
}

int catalog_commit(struct image_store *s, struct err *e)
{
        int r;

        recents_forget(s);
        r = sql_run(s->db, "COMMIT", e);
        if (r >= 0) /* else a rollback follows */
                end_lazy(s);
        return r;
}

void catalog_rollback(struct image_store *s)
{
        (void) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        end_lazy(s);
}

/* The image's description as text, without what must not be stored. */
static char *describe(const struct fetch_image *image)
{
        struct fetch_image plain = *image;
        AUTO(json_put) json_t *j = NULL;

        plain.authorization = NULL;
        j = fetch_image_encode(&plain);
        return j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
}

/* Same domain, same threshold and same description: the same image. */
static int identity_of(const struct catalog_image *c, const char *text, char ret[static 65])
{
        AUTO(free)
        char *all = str_fmt("%s\n%llu\n%s", c->domain, (unsigned long long) c->threshold, text);
        unsigned char md[EVP_MAX_MD_SIZE];
        unsigned n = 0;

        if (!all || EVP_Digest(all, strlen(all), md, &n, EVP_sha256(), NULL) != 1 || n != 32)
                return -ENOMEM;
        hex_encode(md, n, ret);
        return 0;
}

int catalog_find_image(struct image_store *s, const struct catalog_image *c, int64_t *ret_id,
                       struct err *e)
{
        AUTO(free) char *text = describe(c->image);
        sqlite3 *db = NULL;
        char identity[65];
        int r = catalog_db(s, &db, e);

        if (r < 0)
                return r;
        if (!text || identity_of(c, text, identity) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        return sql_number(db, ret_id, e, "SELECT id FROM image WHERE identity = ?",
                          (struct sql_arg[]){ { identity, 0 } }, 1);
}

/* Which layers' packs the metadata names, as text. */
static char *devices_of(const struct catalog_image *c)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        for (size_t i = 0; i < c->n_devices; i++)
                strbuf_fmt(&b, "%s%lld", i ? " " : "", (long long) c->layers[c->devices[i]]);
        return strbuf_take(&b);
}

int catalog_add_image(struct image_store *s, const struct catalog_image *c, int64_t *ret_id,
                      struct err *e)
{
        AUTO(free) char *text = describe(c->image), *devices = devices_of(c);
        char identity[65];
        int64_t id = 0;
        int r;

        if (!text || !devices || identity_of(c, text, identity) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        r = sql_exec(s->db, e,
                     "INSERT INTO image (identity, domain, digest, description, meta_sha,"
                     " meta_bytes, devices, quarantined) VALUES (?, ?, ?, ?, ?, ?, ?, '')",
                     (struct sql_arg[]){ { identity, 0 },
                                         { c->domain, 0 },
                                         { c->image->digest, 0 },
                                         { text, 0 },
                                         { c->meta_sha, 0 },
                                         { NULL, (int64_t) c->meta_bytes },
                                         { devices, 0 } },
                     7);
        if (r < 0)
                return r;
        id = sqlite3_last_insert_rowid(s->db);
        for (size_t i = 0; r >= 0 && i < c->n_layers; i++)
                r = sql_exec(s->db, e, "INSERT INTO image_layer VALUES (?, ?, ?)",
                             (struct sql_arg[]){
                                     { NULL, id }, { NULL, (int64_t) i }, { NULL, c->layers[i] } },
                             3);
        if (r >= 0)
                *ret_id = id;
        return r;
}

int catalog_set_name(struct image_store *s, const char *reference, const char *account,
                     bool is_public, int64_t image, struct err *e)
{
        int64_t now = (int64_t) clock_wall_us();
        const struct sql_arg a[] = { { reference, 0 },    { account ? account : "", 0 },
                                     { NULL, is_public }, { NULL, image },
                                     { NULL, now },       { NULL, now } };

        return sql_exec(s->db, e,
                        "INSERT INTO name VALUES (?, ?, ?, ?, ?, ?)"
                        " ON CONFLICT (reference, account) DO UPDATE SET public = excluded.public,"
                        " image = excluded.image, created_us = excluded.created_us",
                        a, NELEM(a));
}

int catalog_condemn(struct image_store *s, struct err *e)
{
        return sql_run(s->db,
                       "UPDATE image SET identity = 'gone:' || id"
                       " WHERE id NOT IN (SELECT image FROM name)"
                       " AND identity NOT LIKE 'gone:%'",
                       e);
}

/* The image's number that a use begins with; 0: it is a digest. */
static int64_t image_of_use(const char *use)
{
        uint64_t id;

        if (strncmp(use, "sha256:", 7) == 0 || str_u64_prefix(use, 10, &id) < 0 || id > INT64_MAX)
                return 0;
        return (int64_t) id;
}

int catalog_is_use(sqlite3 *db, int64_t image, const char *use, struct err *e)
{
        int64_t id = image_of_use(use), hit = 0;

        if (id)
                return id == image;
        return sql_number(db, &hit, e, "SELECT 1 FROM image WHERE id = ? AND digest = ?",
                          (struct sql_arg[]){ { NULL, image }, { use, 0 } }, 2);
}

int catalog_hold(struct image_store *s, char *const *in_use, struct err *e)
{
        int r = sql_run(s->db,
                        "CREATE TEMP TABLE IF NOT EXISTS held (image INTEGER, digest TEXT);"
                        "DELETE FROM held",
                        e);

        for (; r >= 0 && in_use && *in_use; in_use++)
                r = sql_exec(s->db, e, "INSERT INTO held VALUES (?, ?)",
                             (struct sql_arg[]){ { NULL, image_of_use(*in_use) }, { *in_use, 0 } },
                             2);
        return r;
}

int catalog_sweep(struct image_store *s, char *const *in_use, struct err *e)
{
        int64_t objects = 0;
        int r = catalog_hold(s, in_use, e);

        if (r >= 0)
                r = sql_run(s->db,
                            "DELETE FROM image WHERE identity LIKE 'gone:%'"
                            " AND id NOT IN (SELECT image FROM held)"
                            " AND digest NOT IN (SELECT digest FROM held)",
                            e);
        if (r >= 0)
                r = sql_number(s->db, &objects, e,
                               "SELECT coalesce(sum(objects), 0) FROM layer"
                               " WHERE n NOT IN (SELECT layer FROM image_layer)",
                               NULL, 0);
        if (r >= 0)
                r = sql_run(s->db,
                            "DELETE FROM layer WHERE n NOT IN (SELECT layer FROM image_layer)", e);
        return r < 0 ? r : objects > 0;
}

int catalog_knows(struct image_store *s, enum catalog_table table, const char *name, struct err *e)
{
        static const char *const sql[] = { "SELECT n FROM layer WHERE n = ?",
                                           "SELECT id FROM image WHERE id = ?" };
        int64_t unused;
        uint64_t n;

        if (str_u64(name, 1, INT64_MAX, &n) < 0)
                return 0;
        return sql_number(s->db, &unused, e, sql[table],
                          (struct sql_arg[]){ { NULL, (int64_t) n } }, 1);
}
