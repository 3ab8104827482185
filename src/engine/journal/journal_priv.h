/* journal_priv.h - shared by the files of this folder. */
#pragma once
#include <sqlite3.h>

#include "engine/journal/journal.h"

struct journal {
        sqlite3 *db;
        sqlite3_stmt *save, *forget, *gpu_save, *gpu_get;
        char *path;
        bool cramped; /* there was no room to keep, and that was said */
        uint64_t epoch;
        bool rebooted;
};

/* Returns a negative errno and says "journal: @what: why". */
int journal_err(struct journal *j, struct err *e, const char *what);
int journal_exec(struct journal *j, const char *sql, struct err *e);

/* journal_gpu.c */
#define JOURNAL_GPU_SCHEMA                                                                         \
        "CREATE TABLE gpu (uuid TEXT PRIMARY KEY, vbios TEXT NOT NULL, inforom TEXT NOT NULL,"     \
        " driver TEXT NOT NULL, memory_mib INTEGER NOT NULL, first_us INTEGER NOT NULL,"           \
        " quarantine TEXT NOT NULL, cluster TEXT NOT NULL, since_us INTEGER NOT NULL,"             \
        " xid INTEGER NOT NULL, xid_us INTEGER NOT NULL);"
/* What older versions have written was seen as late as now: it goes a month after that. */
#define JOURNAL_GPU_SEEN                                                                           \
        "ALTER TABLE gpu ADD COLUMN seen_us INTEGER NOT NULL DEFAULT 0;"                           \
        "UPDATE gpu SET seen_us = CAST(strftime('%s', 'now') AS INTEGER) * 1000000;"
