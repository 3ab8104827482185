/* journal.c - see journal.h.  Engine process only; forked operations must not touch the handle.
 *
 * WAL with synchronous=NORMAL survives the death of the process at any instant; a durable save
 * switches to FULL for that one commit, which also makes everything before it durable. */
#include "engine/journal/journal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/dbspace.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/journal/journal_priv.h"

/* Row i brings a journal of version i to version i + 1, for good: what was written once stays readable. */
static const char *const schema[] = {
        "CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL,"
        "                   boot_id TEXT NOT NULL);"
        "INSERT INTO meta VALUES (1, 0, '');"
        "CREATE TABLE cluster (cluster TEXT PRIMARY KEY, generation INTEGER NOT NULL,"
        " plan TEXT NOT NULL, image_digest TEXT, state TEXT NOT NULL, reason TEXT NOT NULL,"
        " want_generation INTEGER NOT NULL, want_running INTEGER NOT NULL,"
        " want_gone INTEGER NOT NULL, want_plan TEXT, attempt INTEGER NOT NULL,"
        " slot INTEGER NOT NULL, claim TEXT NOT NULL, monitor_pid INTEGER NOT NULL,"
        " monitor_start INTEGER NOT NULL, init_pid INTEGER NOT NULL, init_start INTEGER NOT NULL,"
        " boot_id TEXT NOT NULL, started_us INTEGER NOT NULL, restarts INTEGER NOT NULL,"
        " exit_code INTEGER NOT NULL, oom_kills INTEGER NOT NULL);",
        "ALTER TABLE cluster ADD COLUMN gpus TEXT;"
        "ALTER TABLE cluster ADD COLUMN gpu_receipts TEXT;",
        JOURNAL_GPU_SCHEMA,
        JOURNAL_GPU_SEEN,
        "ALTER TABLE cluster ADD COLUMN net_account INTEGER NOT NULL DEFAULT 0;",
        "ALTER TABLE cluster ADD COLUMN ports TEXT;",
        "ALTER TABLE cluster ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;",
        "ALTER TABLE cluster ADD COLUMN ssh_keys TEXT;",
};

enum { COL_COUNT = 28 };

static const char save_sql[] =
        "INSERT OR REPLACE INTO cluster VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)";
static const char list_sql[] =
        "SELECT cluster, generation, plan, image_digest, state, reason, want_generation,"
        " want_running, want_gone, want_plan, attempt, slot, claim, monitor_pid, monitor_start,"
        " init_pid, init_start, boot_id, started_us, restarts, exit_code, oom_kills, gpus,"
        " gpu_receipts, net_account, ports, ready, ssh_keys"
        " FROM cluster ORDER BY rowid";

int journal_err(struct journal *j, struct err *e, const char *what)
{
        int rc = sqlite3_errcode(j->db);

        return err_set(e,
                       rc == SQLITE_FULL    ? -ENOSPC
                       : rc == SQLITE_NOMEM ? -ENOMEM
                                            : -EIO,
                       "journal: %s: %s", what, sqlite3_errmsg(j->db));
}

int journal_exec(struct journal *j, const char *sql, struct err *e)
{
        return sqlite3_exec(j->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : journal_err(j, e, sql);
}

static int query_u64(struct journal *j, const char *sql, uint64_t *ret, struct err *e)
{
        sqlite3_stmt *st = NULL;
        int r = 0;

        if (sqlite3_prepare_v2(j->db, sql, -1, &st, NULL) != SQLITE_OK ||
            sqlite3_step(st) != SQLITE_ROW)
                r = journal_err(j, e, sql);
        else
                *ret = (uint64_t) sqlite3_column_int64(st, 0);
        (void) sqlite3_finalize(st);
        return r;
}

static int migrate(struct journal *j, struct err *e)
{
        uint64_t version = 0;
        char done[48];
        int r = query_u64(j, "PRAGMA user_version", &version, e);

        if (r < 0)
                return r;
        if (version > NELEM(schema))
                return err_set(e, -EINVAL,
                               "journal: was written by a newer version (%llu, this one knows %zu)",
                               (unsigned long long) version, NELEM(schema));
        if (version == NELEM(schema))
                return 0;
        (void) snprintf(done, sizeof done, "PRAGMA user_version = %zu", NELEM(schema));
        r = journal_exec(j, "BEGIN IMMEDIATE", e);
        for (; r >= 0 && version < NELEM(schema); version++)
                r = journal_exec(j, schema[version], e);
        if (r >= 0)
                r = journal_exec(j, done, e);
        if (r >= 0)
                r = journal_exec(j, "COMMIT", e);
        return r;
}

/* Count this start and notice a reboot. */
static int begin_epoch(struct journal *j, struct err *e)
{
        char boot_id[37], sql[160];
        sqlite3_stmt *st = NULL;
        int r = proc_boot_id(boot_id);

        if (r < 0)
                return err_errno(e, r, "journal: boot id");
        if (sqlite3_prepare_v2(j->db, "SELECT boot_id <> ?1 AND boot_id <> '' FROM meta", -1, &st,
                               NULL) != SQLITE_OK ||
            sqlite3_bind_text(st, 1, boot_id, -1, SQLITE_STATIC) != SQLITE_OK ||
            sqlite3_step(st) != SQLITE_ROW)
                r = journal_err(j, e, "read meta");
        else
                j->rebooted = sqlite3_column_int(st, 0) != 0;
        (void) sqlite3_finalize(st);
        if (r < 0)
                return r;
        (void) snprintf(sql, sizeof sql, "UPDATE meta SET epoch = epoch + 1, boot_id = '%s'",
                        boot_id);
        r = journal_exec(j, sql, e);
        return r < 0 ? r : query_u64(j, "SELECT epoch FROM meta", &j->epoch, e);
}

/* Plans hold keys and variables of tenants.  SQLite gives its other files the mode of this one. */
static int make_private(int dir, struct err *e)
{
        const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
        AUTO(fd) int fd = openat(dir, "journal.db", flags, 0600);

        if (fd < 0 || fchmod(fd, 0600) < 0)
                return err_errno(e, -errno, "journal: journal.db");
        if (fchmodat(dir, "journal.db-wal", 0600, 0) < 0 && errno != ENOENT)
                return err_errno(e, -errno, "journal: journal.db-wal");
        return 0;
}

int journal_open(const struct instance *inst, struct journal **ret, struct err *e)
{
        AUTO(journal_close) struct journal *j = calloc(1, sizeof *j);
        AUTO(free) char *path = str_fmt("%s/journal.db", inst->data_dir);
        int r;

        if (!j || !path)
                return err_set(e, -ENOMEM, "out of memory");
        r = make_private(inst->data_fd, e);
        if (r < 0)
                return r;
        if (sqlite3_open_v2(path, &j->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) !=
            SQLITE_OK)
                return journal_err(j, e, path);
        /* exclusive before the log is looked at: its index then needs no file, hence no space */
        r = journal_exec(j, "PRAGMA locking_mode=EXCLUSIVE", e);
        if (r >= 0)
                r = journal_exec(j, "PRAGMA journal_mode=WAL", e);
        if (r >= 0)
                r = journal_exec(j, "PRAGMA synchronous=FULL", e);
        if (r >= 0)
                r = migrate(j, e);
        if (r >= 0)
                r = begin_epoch(j, e);
        if (r >= 0)
                r = journal_exec(j, "PRAGMA synchronous=NORMAL", e);
        if (r < 0)
                return r;
        if (sqlite3_prepare_v2(j->db, save_sql, -1, &j->save, NULL) != SQLITE_OK ||
            sqlite3_prepare_v2(j->db, "DELETE FROM cluster WHERE cluster = ?1", -1, &j->forget,
                               NULL) != SQLITE_OK)
                return journal_err(j, e, "prepare");
        j->path = TAKE(path);
        journal_tend(j);
        *ret = TAKE(j);
        return 0;
}

void journal_tend(struct journal *j)
{
        struct err e = { 0 };
        bool cramped = dbspace_keep(j->db, j->path, &e) < 0;

        if (cramped && !j->cramped)
                log_warn("journal: %s", e.msg);
        j->cramped = cramped;
}

struct journal *journal_close(struct journal *j)
{
        if (!j)
                return NULL;
        (void) sqlite3_finalize(j->save);
        (void) sqlite3_finalize(j->forget);
        (void) sqlite3_finalize(j->gpu_save);
        (void) sqlite3_finalize(j->gpu_get);
        (void) sqlite3_close(j->db);
        free(j->path);
        free(j);
        return NULL;
}

uint64_t journal_epoch(const struct journal *j)
{
        return j->epoch;
}

bool journal_rebooted(const struct journal *j)
{
        return j->rebooted;
}

void journal_row_done(struct journal_row *r)
{
        free(r->plan);
        free(r->image_digest);
        free(r->want_plan);
        free(r->gpus);
        free(r->gpu_receipts);
        free(r->ports);
        free(r->ssh_keys);
        *r = (struct journal_row){ 0 };
}

static void bind_text(sqlite3_stmt *st, int *col, const char *s)
{
        (void) sqlite3_bind_text(st, (*col)++, s, -1, SQLITE_STATIC);
}

static void bind_u64(sqlite3_stmt *st, int *col, uint64_t v)
{
        (void) sqlite3_bind_int64(st, (*col)++, (sqlite3_int64) v);
}

static int step_done(struct journal *j, sqlite3_stmt *st, const char *what, struct err *e)
{
        int r = sqlite3_step(st) == SQLITE_DONE ? 0 : journal_err(j, e, what);

        (void) sqlite3_reset(st);
        (void) sqlite3_clear_bindings(st);
        return r;
}

int journal_save(struct journal *j, const struct journal_row *r, bool durable, struct err *e)
{
        sqlite3_stmt *st = j->save;
        int c = 1, rc;

        bind_text(st, &c, r->cluster);
        bind_u64(st, &c, r->generation);
        bind_text(st, &c, r->plan);
        bind_text(st, &c, r->image_digest);
        bind_text(st, &c, cluster_state_name(r->state));
        bind_text(st, &c, r->reason);
        bind_u64(st, &c, r->want_generation);
        bind_u64(st, &c, r->want_running);
        bind_u64(st, &c, r->want_gone);
        bind_text(st, &c, r->want_plan);
        bind_u64(st, &c, r->attempt);
        bind_u64(st, &c, r->slot);
        bind_text(st, &c, r->claim);
        bind_u64(st, &c, (uint64_t) r->monitor.pid);
        bind_u64(st, &c, r->monitor.start_ticks);
        bind_u64(st, &c, (uint64_t) r->init.pid);
        bind_u64(st, &c, r->init.start_ticks);
        bind_text(st, &c, r->monitor.boot_id);
        bind_u64(st, &c, r->started_us);
        bind_u64(st, &c, r->restarts);
        (void) sqlite3_bind_int(st, c++, r->exit_code);
        bind_u64(st, &c, r->oom_kills);
        bind_text(st, &c, r->gpus);
        bind_text(st, &c, r->gpu_receipts);
        bind_u64(st, &c, r->net_account);
        bind_text(st, &c, r->ports);
        bind_u64(st, &c, r->ready);
        bind_text(st, &c, r->ssh_keys);
        assert(c == COL_COUNT + 1);
        if (durable && (rc = journal_exec(j, "PRAGMA synchronous=FULL", e)) < 0)
                return rc;
        rc = step_done(j, st, "save a cluster", e);
        if (durable)
                (void) journal_exec(j, "PRAGMA synchronous=NORMAL", NULL);
        return rc;
}

int journal_forget(struct journal *j, const char *cluster, struct err *e)
{
        (void) sqlite3_bind_text(j->forget, 1, cluster, -1, SQLITE_STATIC);
        return step_done(j, j->forget, "forget a cluster", e);
}

static const char *text(sqlite3_stmt *st, int c)
{
        return (const char *) sqlite3_column_text(st, c);
}

static uint64_t u64(sqlite3_stmt *st, int c)
{
        return (uint64_t) sqlite3_column_int64(st, c);
}

static void copy(char *to, size_t size, const char *from)
{
        (void) snprintf(to, size, "%s", from ? from : "");
}

static int read_row(sqlite3_stmt *st, struct journal_row *r)
{
        copy(r->cluster, sizeof r->cluster, text(st, 0));
        r->generation = u64(st, 1);
        r->plan = str_dup(text(st, 2));
        r->image_digest = str_dup(text(st, 3));
        r->state = cluster_state_parse(text(st, 4));
        copy(r->reason, sizeof r->reason, text(st, 5));
        r->want_generation = u64(st, 6);
        r->want_running = u64(st, 7) != 0;
        r->want_gone = u64(st, 8) != 0;
        r->want_plan = str_dup(text(st, 9));
        r->attempt = u64(st, 10);
        r->slot = (uint32_t) u64(st, 11);
        copy(r->claim, sizeof r->claim, text(st, 12));
        r->monitor.pid = (pid_t) u64(st, 13);
        r->monitor.start_ticks = u64(st, 14);
        r->init.pid = (pid_t) u64(st, 15);
        r->init.start_ticks = u64(st, 16);
        copy(r->monitor.boot_id, sizeof r->monitor.boot_id, text(st, 17));
        copy(r->init.boot_id, sizeof r->init.boot_id, text(st, 17));
        r->started_us = u64(st, 18);
        r->restarts = (uint32_t) u64(st, 19);
        r->exit_code = (int32_t) u64(st, 20);
        r->oom_kills = u64(st, 21);
        r->gpus = str_dup(text(st, 22));
        r->gpu_receipts = str_dup(text(st, 23));
        r->net_account = (uint32_t) u64(st, 24);
        r->ports = str_dup(text(st, 25));
        r->ready = u64(st, 26) != 0;
        r->ssh_keys = str_dup(text(st, 27));
        return r->plan && r->state != CS_NONE && (!text(st, 22) || r->gpus) &&
                               (!text(st, 25) || r->ports)
                       ? 0
                       : -EINVAL;
}

int journal_each(struct journal *j, journal_each_fn *fn, void *arg, struct err *e)
{
        sqlite3_stmt *st = NULL;
        int r = 0, rc = SQLITE_ROW;

        if (sqlite3_prepare_v2(j->db, list_sql, -1, &st, NULL) != SQLITE_OK)
                return journal_err(j, e, "list clusters");
        while (r >= 0 && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                struct journal_row row = { 0 };

                r = read_row(st, &row);
                if (r < 0)
                        r = err_set(e, r, "journal: the row of cluster %s is damaged", row.cluster);
                else
                        r = fn(arg, &row, e);
                journal_row_done(&row);
        }
        if (r >= 0 && rc != SQLITE_DONE)
                r = journal_err(j, e, "list clusters");
        (void) sqlite3_finalize(st);
        return r < 0 ? r : 0;
}
