/* journal_gpu.c - see journal_gpu.h.  Engine process only. */
#include "engine/journal/journal_gpu.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "engine/journal/journal_priv.h"

enum { COL_COUNT = 12 };

static const char save_sql[] = "INSERT OR REPLACE INTO gpu VALUES (?,?,?,?,?,?,?,?,?,?,?,?)";
static const char get_sql[] =
        "SELECT uuid, vbios, inforom, driver, memory_mib, first_us, quarantine, cluster, since_us,"
        " xid, xid_us, seen_us FROM gpu WHERE uuid = ?1";

static const char expire_sql[] =
        "DELETE FROM gpu WHERE seen_us < ?1 AND quarantine = '' AND NOT EXISTS"
        " (SELECT 1 FROM cluster WHERE instr(cluster.gpus, '\"' || gpu.uuid || '\"'))";

static void copy(sqlite3_stmt *st, int col, char *to, size_t size)
{
        const char *from = (const char *) sqlite3_column_text(st, col);

        (void) snprintf(to, size, "%s", from ? from : "");
}

static uint64_t u64(sqlite3_stmt *st, int col)
{
        return (uint64_t) sqlite3_column_int64(st, col);
}

static void read_row(sqlite3_stmt *st, struct journal_gpu *r)
{
        *r = (struct journal_gpu){ 0 };
        copy(st, 0, r->uuid, sizeof r->uuid);
        copy(st, 1, r->vbios, sizeof r->vbios);
        copy(st, 2, r->inforom, sizeof r->inforom);
        copy(st, 3, r->driver, sizeof r->driver);
        r->memory_mib = u64(st, 4);
        r->first_us = u64(st, 5);
        copy(st, 6, r->quarantine, sizeof r->quarantine);
        copy(st, 7, r->cluster, sizeof r->cluster);
        r->since_us = u64(st, 8);
        r->xid = (uint32_t) u64(st, 9);
        r->xid_us = u64(st, 10);
        r->seen_us = u64(st, 11);
}

int journal_gpu_get(struct journal *j, const char *uuid, struct journal_gpu *ret, struct err *e)
{
        sqlite3_stmt *st = j->gpu_get;
        int r, rc;

        if (!st && sqlite3_prepare_v2(j->db, get_sql, -1, &j->gpu_get, NULL) != SQLITE_OK)
                return journal_err(j, e, "look up a GPU");
        st = j->gpu_get;
        (void) sqlite3_bind_text(st, 1, uuid, -1, SQLITE_STATIC);
        rc = sqlite3_step(st);
        r = rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : journal_err(j, e, "look up a GPU");
        if (r == 1)
                read_row(st, ret);
        (void) sqlite3_reset(st);
        (void) sqlite3_clear_bindings(st);
        return r;
}

static void bind_text(sqlite3_stmt *st, int *col, const char *s)
{
        (void) sqlite3_bind_text(st, (*col)++, s, -1, SQLITE_STATIC);
}

static void bind_u64(sqlite3_stmt *st, int *col, uint64_t v)
{
        (void) sqlite3_bind_int64(st, (*col)++, (sqlite3_int64) v);
}

int journal_gpu_save(struct journal *j, const struct journal_gpu *row, struct err *e)
{
        sqlite3_stmt *st = j->gpu_save;
        int c = 1, r;

        if (!st && sqlite3_prepare_v2(j->db, save_sql, -1, &j->gpu_save, NULL) != SQLITE_OK)
                return journal_err(j, e, "save a GPU");
        st = j->gpu_save;
        bind_text(st, &c, row->uuid);
        bind_text(st, &c, row->vbios);
        bind_text(st, &c, row->inforom);
        bind_text(st, &c, row->driver);
        bind_u64(st, &c, row->memory_mib);
        bind_u64(st, &c, row->first_us);
        bind_text(st, &c, row->quarantine);
        bind_text(st, &c, row->cluster);
        bind_u64(st, &c, row->since_us);
        bind_u64(st, &c, row->xid);
        bind_u64(st, &c, row->xid_us);
        bind_u64(st, &c, row->seen_us);
        assert(c == COL_COUNT + 1);
        r = journal_exec(j, "PRAGMA synchronous=FULL", e);
        if (r < 0)
                return r;
        r = sqlite3_step(st) == SQLITE_DONE ? 0 : journal_err(j, e, "save a GPU");
        (void) sqlite3_reset(st);
        (void) sqlite3_clear_bindings(st);
        (void) journal_exec(j, "PRAGMA synchronous=NORMAL", NULL);
        return r;
}

int journal_gpu_expire(struct journal *j, uint64_t before_us, struct err *e)
{
        sqlite3_stmt *st = NULL;
        int c = 1, r;

        if (sqlite3_prepare_v2(j->db, expire_sql, -1, &st, NULL) != SQLITE_OK)
                return journal_err(j, e, "forget GPUs");
        bind_u64(st, &c, before_us);
        r = sqlite3_step(st) == SQLITE_DONE ? sqlite3_changes(j->db)
                                            : journal_err(j, e, "forget GPUs");
        (void) sqlite3_finalize(st);
        return r;
}
