/* test_journal_gpu.c - what is remembered of a GPU, over restarts and in journals of older versions. */
#include "engine/journal/journal_gpu.h"

#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"

struct world {
        char dir[32];
        struct instance inst;
        struct journal *j;
};

static int up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        assert_non_null(w);
        (void) snprintf(w->dir, sizeof w->dir, "/tmp/hvmm-journal-XXXXXX");
        assert_non_null(mkdtemp(w->dir));
        w->inst.data_dir = w->dir;
        w->inst.data_fd = open(w->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        *state = w;
        return 0;
}

static int down(void **state)
{
        struct world *w = *state;

        w->j = journal_close(w->j);
        (void) close(w->inst.data_fd);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static void open_it(struct world *w)
{
        struct err e = { 0 };

        w->j = journal_close(w->j);
        if (journal_open(&w->inst, &w->j, &e) < 0)
                fail_msg("%s", e.msg);
}

static const struct journal_gpu sample = { .uuid = "GPU-1",
                                           .vbios = "92.00.45.00.05",
                                           .inforom = "G506",
                                           .driver = "550.54.15",
                                           .memory_mib = 4,
                                           .first_us = 17,
                                           .quarantine = "a process still holds it",
                                           .cluster = "abc",
                                           .since_us = 18,
                                           .xid = 79,
                                           .xid_us = 19,
                                           .seen_us = 20 };

static void test_kept(void **state)
{
        struct world *w = *state;
        struct journal_gpu g = { .uuid = "canary" }, other = { .uuid = "GPU-2" };

        open_it(w);
        assert_int_equal(journal_gpu_get(w->j, "GPU-1", &g, NULL), 0);
        assert_string_equal(g.uuid, "canary");
        assert_int_equal(journal_gpu_save(w->j, &sample, NULL), 0);
        other.memory_mib = JOURNAL_GPU_UNKNOWN;
        assert_int_equal(journal_gpu_save(w->j, &other, NULL), 0);
        open_it(w);
        assert_int_equal(journal_gpu_get(w->j, "GPU-1", &g, NULL), 1);
        assert_memory_equal(&g, &sample, sizeof g);
        assert_int_equal(journal_gpu_get(w->j, "GPU-2", &g, NULL), 1);
        assert_true(g.memory_mib == JOURNAL_GPU_UNKNOWN);
        g.quarantine[0] = '\0';
        assert_int_equal(journal_gpu_save(w->j, &g, NULL), 0);
        assert_int_equal(journal_gpu_get(w->j, "GPU-2", &other, NULL), 1);
        assert_string_equal(other.quarantine, "");
}

/* A file of the first version, with a cluster in it. */
static void test_older_file(void **state)
{
        static const char old[] =
                "CREATE TABLE meta (id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,"
                " boot_id TEXT NOT NULL); INSERT INTO meta VALUES (1, 6, '');"
                "CREATE TABLE cluster (cluster TEXT PRIMARY KEY, generation INTEGER NOT NULL,"
                " plan TEXT NOT NULL, image_digest TEXT, state TEXT NOT NULL, reason TEXT NOT NULL,"
                " want_generation INTEGER NOT NULL, want_running INTEGER NOT NULL,"
                " want_gone INTEGER NOT NULL, want_plan TEXT, attempt INTEGER NOT NULL,"
                " slot INTEGER NOT NULL, claim TEXT NOT NULL, monitor_pid INTEGER NOT NULL,"
                " monitor_start INTEGER NOT NULL, init_pid INTEGER NOT NULL, init_start INTEGER NOT NULL,"
                " boot_id TEXT NOT NULL, started_us INTEGER NOT NULL, restarts INTEGER NOT NULL,"
                " exit_code INTEGER NOT NULL, oom_kills INTEGER NOT NULL);"
                "PRAGMA user_version = 1;";
        struct world *w = *state;
        struct journal_gpu g;
        char path[64];
        sqlite3 *db;

        (void) snprintf(path, sizeof path, "%s/journal.db", w->dir);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, old, NULL, NULL, NULL), SQLITE_OK);
        (void) sqlite3_close(db);
        open_it(w);
        assert_int_equal(journal_epoch(w->j), 7);
        assert_int_equal(journal_gpu_get(w->j, "GPU-1", &g, NULL), 0);
        assert_int_equal(journal_gpu_save(w->j, &sample, NULL), 0);
        open_it(w); /* and of ours */
        assert_int_equal(journal_gpu_get(w->j, "GPU-1", &g, NULL), 1);
        assert_int_equal(journal_epoch(w->j), 8);
}

static bool is_there(struct world *w, const char *uuid)
{
        struct journal_gpu g;

        return journal_gpu_get(w->j, uuid, &g, NULL) == 1;
}

/* What is long gone is forgotten; not what is in quarantine, and not what a cluster holds. */
static void test_expire(void **state)
{
        static const struct {
                const char *uuid;
                uint64_t seen_us;
                const char *quarantine, *holder;
                bool stays;
        } t[] = {
                { "GPU-new", 1000, "", NULL, true },
                { "GPU-old", 999, "", NULL, false },
                { "GPU-bad", 10, "dust", NULL, true },
                { "GPU-held", 10, "", "{\"GPU-held\":{}}", true },
                { "GPU-hel", 10, "", "{\"GPU-other\":{\"vbios\":\"GPU-hel-\"}}", false },
                { "MIG-0", 0, "", NULL, false },
        };
        struct world *w = *state;
        size_t gone = 0;

        open_it(w);
        for (size_t i = 0; i < NELEM(t); i++) {
                struct journal_gpu g = { .seen_us = t[i].seen_us };
                struct journal_row row = { .plan = (char *) (uintptr_t) "{}",
                                           .state = CS_RUNNING,
                                           .gpus = (char *) (uintptr_t) t[i].holder };

                (void) snprintf(row.cluster, sizeof row.cluster, "c%zu", i);
                (void) snprintf(g.uuid, sizeof g.uuid, "%s", t[i].uuid);
                (void) snprintf(g.quarantine, sizeof g.quarantine, "%s", t[i].quarantine);
                assert_int_equal(journal_gpu_save(w->j, &g, NULL), 0);
                if (t[i].holder)
                        assert_int_equal(journal_save(w->j, &row, true, NULL), 0);
                gone += !t[i].stays;
        }
        assert_int_equal(journal_gpu_expire(w->j, 1000, NULL), gone);
        for (size_t i = 0; i < NELEM(t); i++)
                if (is_there(w, t[i].uuid) != t[i].stays)
                        fail_msg("%s", t[i].uuid);
        assert_int_equal(journal_gpu_expire(w->j, 1000, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_kept, up, down),
                cmocka_unit_test_setup_teardown(test_older_file, up, down),
                cmocka_unit_test_setup_teardown(test_expire, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
