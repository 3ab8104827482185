/* dbspace.c - see dbspace.h.  Runs in the engine (journal) and in tensorone-api (store's writer).
 *
 * What always holds: nothing is begun without several times its size free on the disk, because a log
 * that could not be copied into the database would use up its own reserve. */
#include "base/dbspace.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"

#define LOG_BYTES   (8 << 20) /* SQLite copies the log back every 4 MiB or so */
#define PAGES_BYTES (2 << 20) /* free pages made at a time */
#define PAGES_LOW   256       /* of 4 KiB: then more are made */
#define PLENTY      (4ULL * (LOG_BYTES + PAGES_BYTES))

static int query(sqlite3 *db, const char *sql, int64_t *ret, struct err *e)
{
        sqlite3_stmt *st = NULL;
        int r = 0;

        if (sqlite3_prepare_v2(db, sql, -1, &st, NULL) != SQLITE_OK ||
            sqlite3_step(st) != SQLITE_ROW)
                r = err_set(e, -EIO, "%s: %s", sql, sqlite3_errmsg(db));
        else
                *ret = sqlite3_column_int64(st, 0);
        (void) sqlite3_finalize(st);
        return r;
}

static bool has_plenty(int fd)
{
        struct statvfs fs;

        return fstatvfs(fd, &fs) == 0 && fs.f_bavail * fs.f_frsize >= PLENTY;
}

/* Closing a descriptor drops this process's locks on that file: right for the log, which SQLite does
 * not lock, and wrong for the database itself. */
static int keep_log(const char *path, bool *ret_plenty, struct err *e)
{
        AUTO(free) char *log = str_fmt("%s-wal", path);
        AUTO(fd) int fd = log ? open(log, O_RDWR | O_NOFOLLOW | O_CLOEXEC) : -1;
        struct stat st;

        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, log ? -errno : -ENOMEM, "open %s-wal", path);
        *ret_plenty = has_plenty(fd);
        if (st.st_blocks * 512 >= LOG_BYTES)
                return 0;
        if (!*ret_plenty)
                return err_set(e, -ENOSPC, "%s: no space to keep for it", path);
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, LOG_BYTES) < 0 && errno != EOPNOTSUPP)
                return err_errno(e, -errno, "allocate %s", log);
        return 0;
}

/* A table of junk that goes away again leaves its pages behind, and they have blocks. */
static int keep_pages(sqlite3 *db, const char *path, bool plenty, struct err *e)
{
        static const char *const steps[] = {
                "DROP TABLE IF EXISTS ballast",
                "BEGIN IMMEDIATE",
                "CREATE TABLE ballast (junk BLOB)",
                "INSERT INTO ballast VALUES (randomblob(2097152))",
                "COMMIT",
                "PRAGMA wal_checkpoint(PASSIVE)", /* now the blocks are the database's own */
                "DROP TABLE ballast",
        };
        int64_t have = 0;
        int r = query(db, "PRAGMA freelist_count", &have, e);

        static_assert(PAGES_BYTES == 2097152, "the size in the statement");
        if (r < 0 || have >= PAGES_LOW)
                return r;
        if (!plenty)
                return err_set(e, -ENOSPC, "%s: no space to keep for it", path);
        for (size_t i = 0; i < NELEM(steps); i++) {
                if (sqlite3_exec(db, steps[i], NULL, NULL, NULL) == SQLITE_OK)
                        continue;
                r = err_set(e, -EIO, "%s: keep free pages: %s", path, sqlite3_errmsg(db));
                if (!sqlite3_get_autocommit(db))
                        (void) sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
                return r;
        }
        (void) sqlite3_db_release_memory(db); /* the junk need not stay in the cache */
        return 0;
}

int dbspace_keep(sqlite3 *db, const char *path, struct err *e)
{
        bool plenty = false;
        int r = keep_log(path, &plenty, e);

        return r < 0 ? r : keep_pages(db, path, plenty, e);
}
