/* sqlite_row.c - see sqlite_row.h.  Runs in tensorone-api on the writer thread, and on the loop
 * thread while it loads. */
#include "control/store/sqlite_row.h"

#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"

static char *insert_sql(const struct store_table_desc *d, bool replace)
{
        struct strbuf b = { 0 };

        strbuf_fmt(&b, "INSERT INTO %s (", d->name);
        for (size_t i = 0; i < d->n_cols; i++)
                strbuf_fmt(&b, "%s%s", i ? "," : "", d->col[i].name);
        strbuf_str(&b, ") VALUES (");
        for (size_t i = 0; i < d->n_cols; i++)
                strbuf_str(&b, i ? ",?" : "?");
        strbuf_char(&b, ')');
        if (replace) {
                strbuf_str(&b, " ON CONFLICT (");
                for (size_t i = 0; i < d->n_keys; i++)
                        strbuf_fmt(&b, "%s%s", i ? "," : "", d->col[i].name);
                strbuf_str(&b, ") DO UPDATE SET ");
                for (size_t i = d->n_keys; i < d->n_cols; i++)
                        strbuf_fmt(&b, "%s%s=excluded.%s", i > d->n_keys ? "," : "", d->col[i].name,
                                   d->col[i].name);
        }
        return strbuf_take(&b);
}

static char *delete_sql(const struct store_table_desc *d)
{
        struct strbuf b = { 0 };

        strbuf_fmt(&b, "DELETE FROM %s WHERE ", d->name);
        for (size_t i = 0; i < d->n_keys; i++)
                strbuf_fmt(&b, "%s%s=?", i ? " AND " : "", d->col[i].name);
        return strbuf_take(&b);
}

static int prepare(sqlite3 *db, struct sqlite_stmts *st, const struct store_op *op,
                   sqlite3_stmt **ret, struct err *e)
{
        const struct store_table_desc *d = &store_tables[op->table];
        sqlite3_stmt **at = &st->of[op->table][op->kind];
        AUTO(free) char *sql = NULL;

        if (!*at) {
                sql = op->kind == OP_DEL ? delete_sql(d) : insert_sql(d, op->kind == OP_PUT);
                if (!sql)
                        return err_set(e, -ENOMEM, "out of memory");
                if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, at, NULL) !=
                    SQLITE_OK)
                        return err_set(e, -EIO, "store: %s: %s", d->name, sqlite3_errmsg(db));
        }
        *ret = *at;
        return 0;
}

static int bind_one(sqlite3_stmt *s, int at, enum store_kind kind, const json_t *v)
{
        AUTO(free) char *text = NULL;

        if (!v || json_is_null(v))
                return sqlite3_bind_null(s, at);
        switch (kind) {
        case COL_TEXT:
                return sqlite3_bind_text(s, at, json_string_value(v), (int) json_string_length(v),
                                         SQLITE_STATIC);
        case COL_INT:
                return sqlite3_bind_int64(s, at, json_integer_value(v));
        case COL_BOOL:
                return sqlite3_bind_int(s, at, json_is_true(v));
        case COL_JSON:
                text = jsonx_dump(v);
                return text ? sqlite3_bind_text(s, at, text, -1, SQLITE_TRANSIENT) : SQLITE_NOMEM;
        case COL_NONE:
        case COL_KIND_COUNT:
                break;
        }
        return SQLITE_MISUSE;
}

int sqlite_row_apply(sqlite3 *db, struct sqlite_stmts *st, const struct store_op *op, struct err *e)
{
        const struct store_table_desc *d = &store_tables[op->table];
        size_t n = op->kind == OP_DEL ? d->n_keys : d->n_cols;
        sqlite3_stmt *s = NULL;
        int r = prepare(db, st, op, &s, e), rc = SQLITE_OK;

        if (r < 0)
                return r;
        for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
                rc = bind_one(s, (int) i + 1, d->col[i].kind,
                              json_object_get(op->row, d->col[i].name));
        if (rc == SQLITE_OK)
                rc = sqlite3_step(s);
        if (rc != SQLITE_DONE)
                (void) err_set(e, rc == SQLITE_CONSTRAINT ? -EEXIST : -EIO, "store: %s: %s",
                               d->name, sqlite3_errmsg(db));
        (void) sqlite3_reset(s);
        (void) sqlite3_clear_bindings(s);
        return rc == SQLITE_DONE ? 0 : rc == SQLITE_CONSTRAINT ? -EEXIST : -EIO;
}

static json_t *read_one(sqlite3_stmt *s, int at, enum store_kind kind)
{
        const char *text;

        if (sqlite3_column_type(s, at) == SQLITE_NULL)
                return json_null();
        switch (kind) {
        case COL_TEXT:
                return json_stringn_nocheck((const char *) sqlite3_column_text(s, at),
                                            (size_t) sqlite3_column_bytes(s, at));
        case COL_INT:
                return json_integer(sqlite3_column_int64(s, at));
        case COL_BOOL:
                return json_boolean(sqlite3_column_int(s, at) != 0);
        case COL_JSON:
                text = (const char *) sqlite3_column_text(s, at);
                return jsonx_parse(text, (size_t) sqlite3_column_bytes(s, at), NULL);
        case COL_NONE:
        case COL_KIND_COUNT:
                break;
        }
        return NULL;
}

json_t *sqlite_row_read(sqlite3_stmt *s, const struct store_table_desc *d)
{
        AUTO(json_put) json_t *row = json_object();

        for (size_t i = 0; row && i < d->n_cols; i++)
                if (json_object_set_new_nocheck(row, d->col[i].name,
                                                read_one(s, (int) i, d->col[i].kind)) < 0)
                        return NULL;
        return TAKE(row);
}

void sqlite_stmts_done(struct sqlite_stmts *st)
{
        for (int t = 0; t < ST_TABLE_COUNT; t++) {
                for (int k = 0; k < OP_KIND_COUNT; k++) {
                        (void) sqlite3_finalize(st->of[t][k]);
                        st->of[t][k] = NULL;
                }
        }
}
