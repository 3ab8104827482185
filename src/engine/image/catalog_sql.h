/* catalog_sql.h - a few words of SQLite for catalog.c and lookup.c. */
#pragma once
#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

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
/* First column of the first row: 1; 0: no row. */
int sql_number(sqlite3 *db, int64_t *ret, struct err *e, const char *sql,
               const struct sql_arg *args, size_t n);
