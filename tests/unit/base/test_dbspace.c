/* test_dbspace.c - room that a database keeps: it is there after opening, is used before the disk's
 * own, and is made again. */
#include "base/dbspace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/fd.h"

struct world {
        char dir[40], path[64], log[64];
        sqlite3 *db;
};

static void sql(struct world *w, const char *text)
{
        char *msg = NULL;

        if (sqlite3_exec(w->db, text, NULL, NULL, &msg) != SQLITE_OK)
                fail_msg("%s: %s", text, msg);
}

static int64_t number(struct world *w, const char *text)
{
        sqlite3_stmt *st = NULL;
        int64_t n;

        assert_int_equal(sqlite3_prepare_v2(w->db, text, -1, &st, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(st), SQLITE_ROW);
        n = sqlite3_column_int64(st, 0);
        assert_int_equal(sqlite3_finalize(st), SQLITE_OK);
        return n;
}

static void open_db(struct world *w)
{
        assert_int_equal(sqlite3_open(w->path, &w->db), SQLITE_OK);
        sql(w, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
               "CREATE TABLE IF NOT EXISTS t (x BLOB); DELETE FROM t");
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w)
                return -1;
        (void) snprintf(w->dir, sizeof w->dir, "/var/tmp/test-dbspace-XXXXXX");
        if (!mkdtemp(w->dir))
                return -1;
        (void) snprintf(w->path, sizeof w->path, "%s/x.db", w->dir);
        (void) snprintf(w->log, sizeof w->log, "%s/x.db-wal", w->dir);
        *state = w;
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;

        (void) sqlite3_close(w->db);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static int64_t blocks(const char *path)
{
        struct stat st;

        assert_int_equal(stat(path, &st), 0);
        return st.st_blocks * 512;
}

static void keep(struct world *w)
{
        struct err e = { 0 };

        if (dbspace_keep(w->db, w->path, &e) < 0)
                fail_msg("%s", e.msg);
}

static void test_room_is_made_and_used(void **state)
{
        struct world *w = *state;
        int64_t pages, size;

        open_db(w);
        keep(w);
        assert_true(blocks(w->log) >= 8 << 20);
        assert_true(number(w, "PRAGMA freelist_count") >= 256);
        assert_int_equal(number(w, "SELECT count(*) FROM sqlite_master"),
                         1);                     /* nothing of ours stays */
        assert_true(blocks(w->path) >= 2 << 20); /* and it has blocks */
        pages = number(w, "PRAGMA page_count");
        keep(w); /* it is there: nothing happens */
        assert_int_equal(number(w, "PRAGMA page_count"), pages);
        /* what is written now takes no space that is not ours already */
        sql(w, "INSERT INTO t VALUES (randomblob(1000000))");
        sql(w, "PRAGMA wal_checkpoint(PASSIVE)");
        assert_int_equal(number(w, "PRAGMA page_count"), pages);
        size = blocks(w->log);
        for (int i = 0; i < 40; i++) /* ten times the log */
                sql(w, "UPDATE t SET x = randomblob(1000000)");
        assert_int_equal(blocks(w->log), size);
        sql(w, "INSERT INTO t VALUES (randomblob(1000000))");
        assert_true(number(w, "PRAGMA freelist_count") < 256);
        keep(w);
        assert_true(number(w, "PRAGMA freelist_count") >= 256);
}

static void test_after_a_new_start(void **state)
{
        struct world *w = *state;

        open_db(w);
        keep(w);
        sql(w, "CREATE TABLE ballast (junk BLOB)"); /* killed in the middle */
        assert_int_equal(sqlite3_close(w->db), SQLITE_OK);
        open_db(w);
        assert_true(number(w, "PRAGMA freelist_count") >= 256); /* these last */
        sql(w, "INSERT INTO t VALUES (randomblob(2000000))");
        keep(w);
        assert_true(blocks(w->log) >= 8 << 20);
        assert_int_equal(number(w, "SELECT count(*) FROM sqlite_master"), 1);
        sql(w, "PRAGMA integrity_check");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_room_is_made_and_used, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_after_a_new_start, world_up, world_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
