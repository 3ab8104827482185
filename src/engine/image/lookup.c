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

/* For the account ?2, who is an administrator when ?3 is not 0: what others have is not counted. */
#define COLUMNS                                                                                     \
        "n.reference, n.account, n.public, n.created_us, n.used_us, i.id, i.digest, i.description," \
        " (SELECT coalesce(sum(l.content_bytes), 0) FROM image_layer il"                            \
        "  JOIN layer l ON l.n = il.layer WHERE il.image = i.id),"                                  \
        " (SELECT coalesce(sum(l.content_bytes), 0) FROM image_layer il"                            \
        "  JOIN layer l ON l.n = il.layer WHERE il.image = i.id AND EXISTS"                         \
        "  (SELECT 1 FROM image_layer o JOIN name on_ ON on_.image = o.image WHERE o.layer = l.n"   \
        "   AND o.image <> i.id AND (?3 OR on_.account IN (?2, '') OR on_.public))),"               \
        " EXISTS (SELECT 1 FROM image_layer il JOIN layer l ON l.n = il.layer"                      \
        "  WHERE il.image = i.id AND l.objects > 0),"                                               \
        " i.meta_sha, i.devices, i.quarantined, i.domain LIKE 'pull:%'"

enum {
        COL_REFERENCE,
        COL_ACCOUNT,
        COL_PUBLIC,
        COL_CREATED,
        COL_USED,
        COL_ID,
        COL_DIGEST,
        COL_DESCRIPTION,
        COL_SIZE,
        COL_SHARED,
        COL_OBJECTS,
        COL_META_SHA,
        COL_DEVICES,
        COL_QUARANTINED,
        COL_PULLED,
};

static int split_devices(const char *text, char ***ret)
{
        AUTO(free) char *copy = strdup(text);
        char *save = NULL;
        int r = copy ? 0 : -ENOMEM;

        for (char *n = copy ? strtok_r(copy, " ", &save) : NULL; r >= 0 && n;
             n = strtok_r(NULL, " ", &save))
                r = strv_push(ret, n);
        return r;
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
static int load_image(sqlite3_stmt *st, struct image *ret, struct err *e)
{
        const char *owner = sql_text(st, COL_ACCOUNT), *bad = sql_text(st, COL_QUARANTINED);
        struct image i = {
                .reference = strdup(sql_text(st, COL_REFERENCE)),
                .account = *owner ? strdup(owner) : NULL,
                .use = use_of(sqlite3_column_int64(st, COL_ID), owner, sql_text(st, COL_REFERENCE)),
                .is_public = sqlite3_column_int(st, COL_PUBLIC) != 0,
                .is_private = *owner && sqlite3_column_int(st, COL_PULLED) != 0,
                .created_us = (uint64_t) sqlite3_column_int64(st, COL_CREATED),
                .used_us = (uint64_t) sqlite3_column_int64(st, COL_USED),
                .id = (uint64_t) sqlite3_column_int64(st, COL_ID),
                .meta_sha = strdup(sql_text(st, COL_META_SHA)),
                .objects = sqlite3_column_int(st, COL_OBJECTS) != 0,
                .size_bytes = (uint64_t) sqlite3_column_int64(st, COL_SIZE),
                .shared_bytes = (uint64_t) sqlite3_column_int64(st, COL_SHARED),
                .quarantined = *bad ? strdup(bad) : NULL,
        };
        int r;

        (void) snprintf(i.digest, sizeof i.digest, "%s", sql_text(st, COL_DIGEST));
        if (!i.reference || !i.use || !i.meta_sha || (*owner && !i.account) ||
            (*bad && !i.quarantined) || split_devices(sql_text(st, COL_DEVICES), &i.devices) < 0)
                r = err_set(e, -ENOMEM, "out of memory");
        else
                r = load_config(sql_text(st, COL_DESCRIPTION), &i.config, e);
        if (r < 0)
                image_done(&i);
        else
                *ret = i;
        return r;
}

/* It may be pulled again, which heals it; an upload can only be made again by whoever has it. */
static int refuse_damaged(sqlite3_stmt *st, const char *name, struct err *e)
{
        bool pulled = sqlite3_column_int(st, COL_PULLED) != 0;
        const char *why = sql_text(st, COL_QUARANTINED);

        return *why ? err_set(e, pulled ? -ENOENT : -EIO, "image %s is damaged on this host: %s",
                              name, why)
                    : 0;
}

int image_each_damaged(struct image_store *s, image_damaged_fn *fn, void *arg, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        sqlite3 *db = NULL;
        int rc = SQLITE_DONE, r = catalog_db(s, &db, e);

        if (r >= 0)
                r = sql_prepare(db, &st, e,
                                "SELECT id, (SELECT min(reference) FROM name WHERE image = id),"
                                " quarantined FROM image WHERE quarantined <> ''",
                                NULL, 0);
        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW)
                fn(arg, (uint64_t) sqlite3_column_int64(st, 0), sql_text(st, 1), sql_text(st, 2));
        return r < 0 || rc == SQLITE_DONE ? r : sql_error(db, e, "damaged images");
}

/* Remember the use, now and then; somebody else's write lock is no reason to wait. */
static void touch(struct image_store *s, sqlite3 *db, const struct image *i)
{
        uint64_t now = clock_wall_us();
        const struct sql_arg a[] = { { NULL, (int64_t) now },
                                     { i->reference, 0 },
                                     { i->account ? i->account : "", 0 } };

        if (now < i->used_us + USED_STEP_US)
                return;
        recents_forget(s);
        (void) sqlite3_busy_timeout(db, 0);
        (void) sql_exec_lazily(db, NULL,
                               "UPDATE name SET used_us = ? WHERE reference = ? AND account = ?", a,
                               NELEM(a));
        (void) sqlite3_busy_timeout(db, SQL_BUSY_MS);
}

static int find(struct image_store *s, const char *account, const char *reference, bool private,
                struct image *ret, struct err *e)
{
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        AUTO(free) char *name = NULL;
        struct image found = { 0 };
        sqlite3 *db = NULL;
        int rc, r = canonical(reference, &name, e);

        if (r >= 0)
                r = catalog_db(s, &db, e);
        if (r >= 0 && recents_get(s, db, account ? account : "", name, private, &found)) {
                touch(s, db, &found);
                *ret = found;
                return 0;
        }
        if (r >= 0) /* one's own, then a public one, then the registry's */
                r = sql_prepare(db, &st, e,
                                "SELECT " COLUMNS " FROM name n JOIN image i ON i.id = n.image"
                                " WHERE n.reference = ?1 AND (n.account IN (?2, '') OR n.public)"
                                " AND (?4 OR n.account = '' OR i.domain NOT LIKE 'pull:%')"
                                " ORDER BY n.account = ?2 AND n.account <> '' DESC,"
                                " n.account <> '' DESC, n.created_us LIMIT 1",
                                (struct sql_arg[]){ { name, 0 },
                                                    { account ? account : "", 0 },
                                                    { NULL, 0 },
                                                    { NULL, private } },
                                4);
        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc == SQLITE_DONE)
                return err_set(e, -ENOENT, "image %s is not on this host", name);
        if (rc != SQLITE_ROW)
                return sql_error(db, e, "find");
        r = refuse_damaged(st, name, e);
        if (r >= 0)
                r = load_image(st, &found, e);
        if (r < 0)
                return r;
        (void) sqlite3_reset(st);
        recents_put(s, account ? account : "", name, private, &found);
        touch(s, db, &found);
        *ret = found;
        return 0;
}

int image_find(struct image_store *s, const char *account, const char *reference, struct image *ret,
               struct err *e)
{
        return find(s, account, reference, false, ret, e);
}

int image_find_private(struct image_store *s, const char *account, const char *reference,
                       struct image *ret, struct err *e)
{
        return find(s, account, reference, true, ret, e);
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
                r = sql_prepare(db, &st, e,
                                "SELECT " COLUMNS " FROM name n JOIN image i ON i.id = n.image"
                                " WHERE ?3 OR n.account IN (?2, '') OR n.public"
                                " ORDER BY n.reference, n.account",
                                (struct sql_arg[]){ { NULL, 0 },
                                                    { account ? account : "", 0 },
                                                    { NULL, is_admin } },
                                3);
        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                struct image *more = reallocarray(list, n + 1, sizeof *list);

                if (!more) {
                        r = err_set(e, -ENOMEM, "out of memory");
                        break;
                }
                list = more;
                r = load_image(st, &list[n], e);
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
        if (!is_admin && !(account && *account && str_eq(account, sql_text(st, 0))))
                return err_set(e, -EPERM, "image %s belongs to %s", name,
                               *sql_text(st, 0) ? "another account" : "all accounts of this host");
        *ret_image = sqlite3_column_int64(st, 1);
        *ret_account = strdup(sql_text(st, 0));
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
        int objects, r = catalog_begin(s, e);

        if (r < 0)
                return r;
        objects = catalog_sweep(s, in_use, e);
        r = objects < 0 ? objects : catalog_commit(s, e);
        if (r < 0) {
                catalog_rollback(s);
                return r;
        }
        r = staging_collect(s, 0, e); /* layers that are nobody's now */
        return r >= 0 && objects ? collect_objects(s, e) : r;
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
