/* catalog_layer.c - layers in images.db, and who is fetching one.  Operation processes. */
#include <errno.h>

#include "catalog_sql.h"
#include "store_priv.h"

#define KEY(k)                                                                                     \
        { (k)->domain, 0 }, { (k)->diff_id, 0 },                                                   \
        {                                                                                          \
                NULL, (int64_t) (k)->threshold                                                     \
        }

int catalog_find_layer(struct image_store *s, const struct catalog_key *k, int64_t *ret_n,
                       struct catalog_layer *ret, struct err *e)
{
        const struct sql_arg a[] = { KEY(k) };
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        struct catalog_layer l = { 0 };
        sqlite3 *db = NULL;
        int rc, r = catalog_db(s, &db, e);

        if (r >= 0)
                r = sql_prepare(db, &st, e,
                                "SELECT n, pack_bytes, content_bytes, objects, index_sha, names_sha"
                                " FROM layer WHERE domain = ? AND diff_id = ? AND threshold = ?",
                                a, NELEM(a));
        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc == SQLITE_DONE)
                return 0;
        if (rc != SQLITE_ROW)
                return sql_error(db, e, "layer");
        l.pack_bytes = (uint64_t) sqlite3_column_int64(st, 1);
        l.content_bytes = (uint64_t) sqlite3_column_int64(st, 2);
        l.objects = (uint32_t) sqlite3_column_int64(st, 3);
        (void) snprintf(l.index_sha, sizeof l.index_sha, "%s", sql_text(st, 4));
        (void) snprintf(l.names_sha, sizeof l.names_sha, "%s", sql_text(st, 5));
        *ret_n = sqlite3_column_int64(st, 0);
        *ret = l;
        return 1;
}

int catalog_add_layer(struct image_store *s, const struct catalog_key *k,
                      const struct catalog_layer *l, int64_t *ret_n, struct err *e)
{
        const struct sql_arg a[] = { KEY(k),
                                     { NULL, (int64_t) l->pack_bytes },
                                     { l->index_sha, 0 },
                                     { l->names_sha, 0 },
                                     { NULL, (int64_t) l->content_bytes },
                                     { NULL, l->objects } };
        int r = sql_exec(s->db, e,
                         "INSERT INTO layer (domain, diff_id, threshold, pack_bytes, pack_sha,"
                         " index_sha, names_sha, content_bytes, objects)"
                         " VALUES (?, ?, ?, ?, '', ?, ?, ?, ?)", /* the scrub notes pack_sha */
                         a, NELEM(a));

        if (r >= 0)
                *ret_n = sqlite3_last_insert_rowid(s->db);
        return r;
}

#define QUARANTINE(which)                                                                          \
        "UPDATE image SET quarantined = ?, identity = 'bad:' || id WHERE " which                   \
        " AND quarantined = ''"

/* In a transaction of its own: @sql, a QUARANTINE(), with @why and @arg; and the layer @n if not 0. */
static int quarantine(struct image_store *s, const char *sql, int64_t arg, int64_t n,
                      const char *why, struct err *e)
{
        int r = catalog_begin(s, e);

        if (r < 0)
                return r;
        r = sql_exec(s->db, e, sql, (struct sql_arg[]){ { why, 0 }, { NULL, arg } }, 2);
        if (r >= 0 && n)
                r = sql_exec(s->db, e, "UPDATE layer SET diff_id = 'bad:' || n WHERE n = ?",
                             (struct sql_arg[]){ { NULL, n } }, 1);
        if (r >= 0)
                r = catalog_condemn(s, e);
        if (r >= 0)
                r = catalog_commit(s, e);
        if (r < 0)
                catalog_rollback(s);
        return r;
}

int catalog_quarantine_layer(struct image_store *s, int64_t n, const char *why, struct err *e)
{
        return quarantine(s, QUARANTINE("id IN (SELECT image FROM image_layer WHERE layer = ?)"), n,
                          n, why, e);
}

int catalog_quarantine_image(struct image_store *s, int64_t id, const char *why, struct err *e)
{
        return quarantine(s, QUARANTINE("id = ?"), id, 0, why, e);
}

int catalog_claim_owner(struct image_store *s, const struct catalog_key *k, char ret_op[static 16],
                        int64_t *ret_turn, struct err *e)
{
        const struct sql_arg a[] = { KEY(k) };
        AUTO(sql_rest) sqlite3_stmt *st = NULL;
        int rc, r = sql_prepare(s->db, &st, e,
                                "SELECT op, turn FROM claim"
                                " WHERE domain = ? AND diff_id = ? AND threshold = ?",
                                a, NELEM(a));

        if (r < 0)
                return r;
        rc = sqlite3_step(st);
        if (rc == SQLITE_DONE)
                return 0;
        if (rc != SQLITE_ROW)
                return sql_error(s->db, e, "claim");
        (void) snprintf(ret_op, 16, "%s", sql_text(st, 0));
        *ret_turn = sqlite3_column_int64(st, 1);
        return 1;
}

int catalog_claim_turn(struct image_store *s, int64_t *ret, struct err *e)
{
        int r = sql_number(s->db, ret, e, "SELECT coalesce(max(turn), 0) + 1 FROM claim", NULL, 0);

        return r < 0 ? r : 0;
}

int catalog_claim(struct image_store *s, const struct catalog_key *k, const char *op, int64_t turn,
                  struct err *e)
{
        const struct sql_arg a[] = { KEY(k), { op, 0 }, { NULL, turn } };

        return sql_exec(s->db, e, "INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?)", a,
                        NELEM(a));
}

int catalog_unclaim(struct image_store *s, const char *op, struct err *e)
{
        return sql_exec(s->db, e, "DELETE FROM claim WHERE op = ?", (struct sql_arg[]){ { op, 0 } },
                        1);
}
