/* sqlite_row.h - rows to SQLite and back, by the column table.  Any thread that holds the
 * connection. */
#pragma once
#include <sqlite3.h>

#include "control/store/store_priv.h"

/* One prepared statement per table and kind of operation, made on first use. */
struct sqlite_stmts {
        sqlite3_stmt *of[ST_TABLE_COUNT][OP_KIND_COUNT];
};

/* 0; -EEXIST: an inserted row is there already; else the back end's failure in *@e. */
int sqlite_row_apply(sqlite3 *db, struct sqlite_stmts *st, const struct store_op *op,
                     struct err *e);

/* The present row of a `SELECT <columns in order>` as a new object, or NULL (out of memory). */
json_t *sqlite_row_read(sqlite3_stmt *s, const struct store_table_desc *d);

void sqlite_stmts_done(struct sqlite_stmts *st);
