/* schema.h - the SQL of each version of the store, in the dialect that SQLite and PostgreSQL
 * share. */
#pragma once
#include <stddef.h>

/* Script n brings a store of version n to version n + 1. */
extern const char *const store_migrations[];
extern const size_t store_n_migrations;
