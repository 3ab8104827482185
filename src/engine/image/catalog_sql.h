/* catalog_sql.h - a few words of SQLite for the files that know what is in images.db. */
#pragma once
#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

#define SQL_BUSY_MS 30000 /* a publisher holds the lock for renames and one commit */

struct sql_arg {
        const char *text; /* or, when NULL: */
        int64_t number;
};

/* Statements are kept at rest for the next use; sql_close() ends them. */
static inline void sql_rest_cleanup(sqlite3_stmt **st)
{
        if (!*st)
                return;
        (void) sqlite3_reset(*st);
        (void) sqlite3_clear_bindings(*st);
}

void sql_close(sqlite3 *db);

int sql_error(sqlite3 *db, struct err *e, const char *what);
int sql_run(sqlite3 *db, const char *sql, struct err *e);
int sql_prepare(sqlite3 *db, sqlite3_stmt **ret, struct err *e, const char *sql,
                const struct sql_arg *args, size_t n);
int sql_exec(sqlite3 *db, struct err *e, const char *sql, const struct sql_arg *args, size_t n);
/* Alone, and not flushed: a power cut may undo it, a kill may not. */
int sql_exec_lazily(sqlite3 *db, struct err *e, const char *sql, const struct sql_arg *args,
                    size_t n);
/* What is written from here on is not flushed; or is again.  Only between transactions: inside of one
 * SQLite refuses. */
void sql_lazy(sqlite3 *db, bool lazy);
/* A column of the present row; NULL is "". */
const char *sql_text(sqlite3_stmt *st, int col);
/* First column of the first row: 1; 0: no row. */
int sql_number(sqlite3 *db, int64_t *ret, struct err *e, const char *sql,
               const struct sql_arg *args, size_t n);
