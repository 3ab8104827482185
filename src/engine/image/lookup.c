/* lookup.c - questions to the catalog: find, list, remove.  Engine process and operations; quick. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "catalog_sql.h"
#include "model/imageref.h"
#include "store_priv.h"

#define USED_STEP_US (60 * US_PER_S) /* how precisely the last use is kept */

static int canonical(const char *reference, char **ret, struct err *e)
{
        struct imageref r;
        int rc = imageref_parse(reference, &r, e);

        if (rc < 0)
                return rc;
        *ret = imageref_format(&r);
        return *ret ? 0 : err_set(e, -ENOMEM, "out of memory");
}

#define COLUMNS                                                                                     \
        "n.reference, n.account, n.public, n.created_us, n.used_us, i.id, i.digest, i.description," \
        " (SELECT coalesce(sum(l.bytes), 0) FROM image_layer il JOIN layer l ON l.n = il.layer"     \
        "  WHERE il.image = i.id)"

static const char *text_at(sqlite3_stmt *st, int col)
{
        const char *s = (const char *) sqlite3_column_text(st, col);

        return s ? s : "";
}

static int load_layers(sqlite3 *db, int64_t id, char ***ret, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(
                        db, &st, e,
                        "SELECT layer FROM image_layer WHERE image = ? ORDER BY position DESC",
                        (struct sql_arg[]){ { NULL, id } }, 1);

        if (r < 0)
                return r;
        while ((rc = sqlite3_step(st)) == SQLITE_ROW)
                if (strv_push(ret, text_at(st, 0)) < 0)
                        return err_set(e, -ENOMEM, "out of memory");
        return rc == SQLITE_DONE ? 0 : sql_error(db, e, "layers");
}

static int load_config(const char *text, struct image_config *ret, struct err *e)
{
        AUTO(fetch_image_done) struct fetch_image f = { 0 };
        AUTO(json_put) json_t *j = jsonx_parse(text, strlen(text), e);
        int r = j ? fetch_image_decode(j, &f, e) : -EINVAL;

        if (r < 0)
                return err_wrap(e, r, "images.db");
        *ret = (struct image_config){ TAKE(f.entrypoint),  TAKE(f.command), TAKE(f.env),
                                      TAKE(f.working_dir), TAKE(f.user),    TAKE(f.stop_signal) };
        return 0;
}

/* See image.use: the row's number, which is never given twice, the owner and the name. */
static char *use_of(int64_t id, const char *owner, const char *name)
{
        return str_fmt("%lld %s %s", (long long) id, *owner ? owner : "-", name);
}

/* A row of COLUMNS. */
static int load_image(sqlite3 *db, sqlite3_stmt *st, struct image *ret, struct err *e)
{
        struct image i = {
                .reference = strdup(text_at(st, 0)),
                .account = *text_at(st, 1) ? strdup(text_at(st, 1)) : NULL,
                .use = use_of(sqlite3_column_int64(st, 5), text_at(st, 1), text_at(st, 0)),
                .is_public = sqlite3_column_int(st, 2) != 0,
                .created_us = (uint64_t) sqlite3_column_int64(st, 3),
                .used_us = (uint64_t) sqlite3_column_int64(st, 4),
                .size_bytes = (uint64_t) sqlite3_column_int64(st, 8),
        };
        int r;

        (void) snprintf(i.digest, sizeof i.digest, "%s", text_at(st, 6));
        if (!i.reference || !i.use || (*text_at(st, 1) && !i.account))
                r = err_set(e, -ENOMEM, "out of memory");
        else
                r = load_layers(db, sqlite3_column_int64(st, 5), &i.layers, e);
        if (r >= 0)
                r = load_config(text_at(st, 7), &i.config, e);
        if (r < 0)
                image_done(&i);
        else
                *ret = i;
        return r;
}

/* Remember the use, now and then; somebody else's write lock is no reason to wait. */
static void touch(sqlite3 *db, const struct image *i)
{
        uint64_t now = clock_wall_us();
        const struct sql_arg a[] = { { NULL, (int64_t) now },
                                     { i->reference, 0 },
                                     { i->account ? i->account : "", 0 } };

        if (now < i->used_us + USED_STEP_US)
                return;
        (void) sqlite3_busy_timeout(db, 0);
        (void) sqlite3_exec(db, "PRAGMA synchronous = NORMAL", NULL, NULL, NULL);
        (void) sql_exec(db, NULL, "UPDATE name SET used_us = ? WHERE reference = ? AND account = ?",
                        a, NELEM(a));
        (void) sqlite3_exec(db, "PRAGMA synchronous = FULL", NULL, NULL, NULL);
        (void) sqlite3_busy_timeout(db, 30000);
}

int image_find(struct image_store *s, const char *account, const char *reference, struct image *ret,
               struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        AUTO(free) char *name = NULL;
        struct image found = { 0 };
        sqlite3 *db = NULL;
        int rc, r = canonical(reference, &name, e);

        if (r >= 0)
                r = catalog_db(s, &db, e);
        if (r >= 0) /* one's own, then a public one, then the registry's */
                r = sql_prepare(db, &st, e,
                                "SELECT " COLUMNS " FROM name n JOIN image i ON i.id = n.image"
                                " WHERE n.reference = ?1 AND (n.account IN (?2, '') OR n.public)"
                                " ORDER BY n.account = ?2 AND n.account <> '' DESC,"
                                " n.account <> '' DESC, n.created_us LIMIT 1",
                                (struct sql_arg[]){ { name, 0 }, { account ? account : "", 0 } },
                                2);
        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc == SQLITE_DONE)
                return err_set(e, -ENOENT, "image %s is not on this host", name);
        if (rc != SQLITE_ROW)
                return sql_error(db, e, "find");
        r = load_image(db, st, &found, e);
        if (r < 0)
                return r;
        (void) sqlite3_reset(st);
        touch(db, &found);
        *ret = found;
        return 0;
}

int image_list(struct image_store *s, const char *account, bool is_admin, struct image **ret,
               size_t *ret_n, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        struct image *list = NULL;
        size_t n = 0;
        sqlite3 *db = NULL;
        int rc = SQLITE_DONE, r = catalog_db(s, &db, e);

        if (r >= 0)
                r = sql_prepare(
                        db, &st, e,
                        "SELECT " COLUMNS " FROM name n JOIN image i ON i.id = n.image"
                        " WHERE ?2 OR n.account IN (?1, '') OR n.public"
                        " ORDER BY n.reference, n.account",
                        (struct sql_arg[]){ { account ? account : "", 0 }, { NULL, is_admin } }, 2);
        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                struct image *more = reallocarray(list, n + 1, sizeof *list);

                if (!more) {
                        r = err_set(e, -ENOMEM, "out of memory");
                        break;
                }
                list = more;
                r = load_image(db, st, &list[n], e);
                if (r >= 0)
                        n++;
        }
        if (r >= 0 && rc != SQLITE_DONE)
                r = sql_error(db, e, "list");
        if (r < 0) {
                while (n > 0)
                        image_done(&list[--n]);
                free(list);
                return r;
        }
        *ret = list;
        *ret_n = n;
        return 0;
}

/* Which of the names that the caller may see is meant; its account and image. */
static int choose_name(sqlite3 *db, const char *account, bool is_admin, const char *name,
                       char **ret_account, int64_t *ret_image, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(db, &st, e,
                                "SELECT account, image, public FROM name WHERE reference = ?1"
                                " AND (?3 OR account IN (?2, '') OR public)"
                                " ORDER BY account = ?2 AND account <> '' DESC, account <> '' DESC,"
                                " created_us LIMIT 1",
                                (struct sql_arg[]){ { name, 0 },
                                                    { account ? account : "", 0 },
                                                    { NULL, is_admin } },
                                3);

        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc == SQLITE_DONE)
                return err_set(e, -ENOENT, "there is no image %s", name);
        if (rc != SQLITE_ROW)
                return sql_error(db, e, "remove");
        /* what came from a registry serves every account: only an administrator takes it away */
        if (!is_admin && !(account && *account && str_eq(account, text_at(st, 0))))
                return err_set(e, -EPERM, "image %s belongs to %s", name,
                               *text_at(st, 0) ? "another account" : "all accounts of this host");
        *ret_image = sqlite3_column_int64(st, 1);
        *ret_account = strdup(text_at(st, 0));
        return *ret_account ? 0 : err_set(e, -ENOMEM, "out of memory");
}

/* 1: a cluster runs from this image under this name, or the name is its last one. */
static int held(sqlite3 *db, int64_t image, const char *owner, const char *name,
                char *const *in_use, struct err *e)
{
        AUTO(free) char *use = use_of(image, owner, name);
        int64_t names = 0;
        int r = use ? sql_number(db, &names, e, "SELECT count(*) FROM name WHERE image = ?",
                                 (struct sql_arg[]){ { NULL, image } }, 1)
                    : err_set(e, -ENOMEM, "out of memory");

        for (; r >= 0 && in_use && *in_use; in_use++) {
                if (str_eq(*in_use, use))
                        return 1;
                if (names > 1)
                        continue;
                r = catalog_is_use(db, image, *in_use, e);
                if (r != 0)
                        return r;
        }
        return r < 0 ? r : 0;
}

static int remove_name(struct image_store *s, const char *account, bool is_admin, const char *name,
                       char *const *in_use, struct err *e)
{
        AUTO(free) char *owner = NULL;
        int64_t image = 0;
        int r = choose_name(s->db, account, is_admin, name, &owner, &image, e);

        if (r >= 0)
                r = held(s->db, image, owner, name, in_use, e);
        if (r > 0)
                return err_set(e, -EBUSY, "a cluster runs from image %s", name);
        if (r >= 0)
                r = sql_exec(s->db, e, "DELETE FROM name WHERE reference = ? AND account = ?",
                             (struct sql_arg[]){ { name, 0 }, { owner, 0 } }, 2);
        if (r >= 0)
                r = catalog_condemn(s, e);
        return r;
}

int image_unname(struct image_store *s, const char *account, bool is_admin, const char *reference,
                 char *const *in_use, struct err *e)
{
        AUTO(free) char *name = NULL;
        int r = canonical(reference, &name, e);

        if (r >= 0)
                r = catalog_begin(s, e);
        if (r < 0)
                return r;
        r = remove_name(s, account, is_admin, name, in_use, e);
        if (r >= 0)
                r = catalog_commit(s, e);
        if (r < 0)
                catalog_rollback(s);
        return r;
}

int image_sweep(struct image_store *s, char *const *in_use, struct err *e)
{
        int r = catalog_begin(s, e);

        if (r < 0)
                return r;
        r = catalog_sweep(s, in_use, e);
        if (r >= 0)
                r = catalog_commit(s, e);
        if (r < 0) {
                catalog_rollback(s);
                return r;
        }
        return staging_collect(s, 0, e); /* layers that are nobody's now */
}

int image_unswept(struct image_store *s, struct err *e)
{
        sqlite3 *db = NULL;
        int64_t id = 0;
        int r = catalog_db(s, &db, e);

        return r < 0 ? r
                     : sql_number(db, &id, e,
                                  "SELECT id FROM image WHERE identity LIKE 'gone:%' LIMIT 1", NULL,
                                  0);
}
