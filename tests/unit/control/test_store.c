/* test_store.c - the contract of store.h over the real back end: order, durability, all or
 * nothing, failure and recovery; and that tables, columns and records fit each other. */
#include "control/store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "control/plane/record.h"

struct world {
        char dir[32];
        sd_event *loop;
        struct store *store;
        int answers[64]; /* in order */
        size_t n_answers;
        size_t failures, rows;
};

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        *state = w;
        (void) snprintf(w->dir, sizeof w->dir, "/tmp/hvmm-store-XXXXXX");
        if (!mkdtemp(w->dir) || sd_event_new(&w->loop) < 0)
                return -1;
        return store_sqlite_open(w->dir, w->loop, &w->store, NULL);
}

static int world_down(void **state)
{
        struct world *w = *state;

        w->store = store_close(w->store);
        w->loop = sd_event_unref(w->loop);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static void on_done(int r, void *arg)
{
        struct world *w = arg;

        w->answers[w->n_answers++] = r;
}

static void settle(struct world *w, size_t n)
{
        while (w->n_answers < n)
                assert_true(sd_event_run(w->loop, 5 * 1000 * 1000) > 0);
}

static json_t *setting(const char *name, const char *value)
{
        return json_pack("{s:s, s:s}", "name", name, "value", value);
}

static json_t *cpu(const char *n, const char *cluster)
{
        return json_pack("{s:s, s:s, s:s, s:s, s:i, s:i, s:s}", "node", "n", "kind", "cpu",
                         "resource", n, "cluster", cluster, "generation", 1, "amount", 1, "state",
                         "held");
}

static int count(void *arg, const json_t *row, struct err *e)
{
        struct world *w = arg;

        (void) row;
        (void) e;
        w->rows++;
        return 0;
}

static size_t rows_of(struct world *w, enum store_table table)
{
        w->rows = 0;
        assert_int_equal(store_load(w->store, table, count, w, NULL), 0);
        return w->rows;
}

static void put(struct world *w, const char *name, const char *value)
{
        struct store_txn *t = store_txn_new();

        store_put(t, ST_SETTING, setting(name, value));
        store_submit(w->store, t, on_done, w);
}

static void test_order_and_fence(void **state)
{
        struct world *w = *state;
        char value[16];

        store_fence(w->store, on_done, w); /* nothing open: at once */
        assert_int_equal(w->n_answers, 1);
        for (int i = 0; i < 40; i++) {
                (void) snprintf(value, sizeof value, "%d", i);
                put(w, "k", value);
        }
        assert_int_equal(w->n_answers, 1); /* never from inside submit */
        store_fence(w->store, on_done, w);
        settle(w, 42);
        for (size_t i = 0; i < 42; i++)
                assert_int_equal(w->answers[i], 0);
        assert_int_equal(rows_of(w, ST_SETTING), 1);
}

static int last_value(void *arg, const json_t *row, struct err *e)
{
        (void) e;
        (void) snprintf(arg, 16, "%s", jsonx_str(row, "value"));
        return 0;
}

static void test_survives_closing(void **state)
{
        struct world *w = *state;
        char value[16] = "";
        struct stat st;
        AUTO(free) char *path = str_fmt("%s/store.db", w->dir);

        put(w, "a", "1");
        put(w, "a", "2");
        w->store = store_close(w->store); /* waits for what is queued, and answers */
        assert_int_equal(w->n_answers, 2);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        assert_int_equal(store_sqlite_open(w->dir, w->loop, &w->store, NULL), 0);
        assert_int_equal(store_load(w->store, ST_SETTING, last_value, value, NULL), 0);
        assert_string_equal(value, "2");
}

static void on_failure(void *arg, const char *why)
{
        struct world *w = arg;

        assert_non_null(strstr(why, "reservation"));
        w->failures++;
        assert_int_equal(w->n_answers, 4); /* every answer came first */
}

/* One resource, two owners: the second transaction fails as a whole, and so does everything that
 * was built on it; then service goes on. */
static void test_sold_twice(void **state)
{
        struct world *w = *state;
        struct store_txn *a = store_txn_new(), *b = store_txn_new();

        store_on_failure(w->store, on_failure, w);
        store_insert(a, ST_RESERVATION, cpu("0", "one"));
        store_submit(w->store, a, on_done, w);
        store_insert(b, ST_RESERVATION, cpu("1", "two"));
        store_insert(b, ST_RESERVATION, cpu("0", "two"));
        store_submit(w->store, b, on_done, w);
        put(w, "built", "on it");
        store_fence(w->store, on_done, w);
        settle(w, 4);
        while (!w->failures)
                assert_true(sd_event_run(w->loop, 5 * 1000 * 1000) > 0);
        assert_int_equal(w->answers[0], 0);
        assert_int_equal(w->answers[1], -EEXIST);
        assert_true(w->answers[2] < 0 && w->answers[3] < 0);
        assert_int_equal(w->failures, 1);
        assert_int_equal(rows_of(w, ST_RESERVATION), 1);
        assert_int_equal(rows_of(w, ST_SETTING), 0);
        put(w, "after", "it");
        settle(w, 5);
        assert_int_equal(w->answers[4], 0);
        assert_int_equal(rows_of(w, ST_SETTING), 1);
}

static void test_delete(void **state)
{
        struct world *w = *state;
        struct store_txn *t = store_txn_new();

        store_insert(t, ST_RESERVATION, cpu("0", "one"));
        store_insert(t, ST_RESERVATION, cpu("1", "one"));
        store_del(t, ST_RESERVATION,
                  json_pack("{s:s, s:s, s:s}", "node", "n", "kind", "cpu", "resource", "0"));
        store_del(t, ST_RESERVATION,
                  json_pack("{s:s, s:s, s:s}", "node", "n", "kind", "cpu", "resource", "9"));
        store_insert(t, ST_RESERVATION, cpu("0", "two")); /* free again, in the same transaction */
        store_submit(w->store, t, on_done, w);
        settle(w, 1);
        assert_int_equal(w->answers[0], 0);
        assert_int_equal(rows_of(w, ST_RESERVATION), 2);
}

static void test_failed_to_build(void **state)
{
        struct world *w = *state;
        struct store_txn *t = store_txn_new();

        store_put(t, ST_SETTING, setting("a", "b"));
        store_put(t, ST_SETTING, NULL); /* as json_pack() returns when memory is short */
        store_submit(w->store, t, on_done, w);
        settle(w, 1);
        assert_int_equal(w->answers[0], -ENOMEM);
        assert_int_equal(rows_of(w, ST_SETTING), 0);
}

static void test_second_one_is_refused(void **state)
{
        struct world *w = *state;
        struct store *other = NULL;
        struct err e = { 0 };
        pid_t pid = fork(); /* locks of SQLite are the process's */
        int status;

        if (pid == 0) {
                sd_event *loop = NULL;

                if (sd_event_new(&loop) < 0)
                        _exit(2);
                _exit(store_sqlite_open(w->dir, loop, &other, &e) == -EBUSY &&
                                      strstr(e.msg, "another tensorone-api")
                              ? 0
                              : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

static void test_newer_version_is_refused(void **state)
{
        struct world *w = *state;
        AUTO(free) char *path = str_fmt("%s/store.db", w->dir);
        struct err e = { 0 };
        sqlite3 *db = NULL;

        w->store = store_close(w->store);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
        (void) sqlite3_close(db);
        assert_int_equal(store_sqlite_open(w->dir, w->loop, &w->store, &e), -ENOTSUP);
        assert_non_null(strstr(e.msg, "newer"));
        w->store = NULL;
}

/* What the last release has written is kept, and what it did not know is there. */
static void test_older_version_is_brought_up(void **state)
{
        struct world *w = *state;
        AUTO(free) char *path = str_fmt("%s/store.db", w->dir);
        sqlite3 *db = NULL;

        put(w, "a", "1");
        settle(w, 1);
        w->store = store_close(w->store);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(
                sqlite3_exec(db,
                             "DROP TABLE audit; DROP TABLE secret; DROP TABLE registry_auth;"
                             "ALTER TABLE event DROP COLUMN object;"
                             "ALTER TABLE cluster DROP COLUMN gpu_receipts;"
                             "ALTER TABLE cluster DROP COLUMN boot;"
                             "ALTER TABLE cluster DROP COLUMN applied;"
                             "ALTER TABLE cluster DROP COLUMN refused;"
                             "ALTER TABLE cluster DROP COLUMN security_profile;"
                             "ALTER TABLE template DROP COLUMN security_profile;"
                             "ALTER TABLE cluster DROP COLUMN egress;"
                             "ALTER TABLE template DROP COLUMN egress;"
                             "ALTER TABLE cluster DROP COLUMN idle_timeout_s;"
                             "ALTER TABLE cluster DROP COLUMN idle_action;"
                             "ALTER TABLE cluster DROP COLUMN idle;"
                             "ALTER TABLE template DROP COLUMN idle_timeout_s;"
                             "ALTER TABLE template DROP COLUMN idle_action;"
                             "ALTER TABLE cluster DROP COLUMN published;"
                             "ALTER TABLE cluster DROP COLUMN public_ip;"
                             "ALTER TABLE cluster DROP COLUMN ready;"
                             "ALTER TABLE cluster DROP COLUMN ready_generation;"
                             "ALTER TABLE cluster DROP COLUMN start_ssh;"
                             "ALTER TABLE cluster DROP COLUMN readiness_path;"
                             "ALTER TABLE template DROP COLUMN readiness_path;"
                             "ALTER TABLE cluster DROP COLUMN allowed_ips;"
                             "PRAGMA user_version = 1",
                             NULL, NULL, NULL),
                SQLITE_OK);
        (void) sqlite3_close(db);
        assert_int_equal(store_sqlite_open(w->dir, w->loop, &w->store, NULL), 0);
        assert_int_equal(rows_of(w, ST_SETTING), 1);
        assert_int_equal(rows_of(w, ST_REGISTRY_AUTH), 0);
        assert_int_equal(rows_of(w, ST_SECRET), 0);
}

/* Every column of the table is in the database and the other way round, in the same order. */
static void test_columns(void **state)
{
        struct world *w = *state;
        AUTO(free) char *path = str_fmt("%s/store.db", w->dir);
        sqlite3 *db = NULL;

        w->store = store_close(w->store);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        for (int t = 1; t < ST_TABLE_COUNT; t++) {
                AUTO(free)
                char *sql = str_fmt("SELECT name, pk FROM pragma_table_info('%s')",
                                    store_tables[t].name);
                sqlite3_stmt *st = NULL;
                size_t n = 0;

                assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
                for (; sqlite3_step(st) == SQLITE_ROW; n++) {
                        assert_true(n < store_tables[t].n_cols);
                        assert_string_equal(sqlite3_column_text(st, 0),
                                            store_tables[t].col[n].name);
                        assert_int_equal(sqlite3_column_int(st, 1) > 0, n < store_tables[t].n_keys);
                }
                assert_int_equal(n, store_tables[t].n_cols);
                (void) sqlite3_finalize(st);
        }
        (void) sqlite3_close(db);
}

static bool has_column(enum store_table t, const char *name)
{
        for (size_t i = 0; i < store_tables[t].n_cols; i++)
                if (str_eq(store_tables[t].col[i].name, name))
                        return true;
        return false;
}

static int keep_cluster(void *arg, const json_t *row, struct err *e)
{
        return cluster_from_row(row, arg, e);
}

/* A record goes through the store unchanged, and has no member without a column. */
static void test_record(void **state)
{
        struct world *w = *state;
        static const char text[] =
                "{\"id\":\"abc\",\"account\":\"a\",\"name\":\"n\",\"image\":\"i\",\"env\":[\"A=b\"],"
                "\"cpus\":[\"0\",\"1\"],\"desired\":\"running\",\"state\":\"pulling\",\"pod_type\":"
                "\"RESERVED\",\"generation\":3,\"memory_mib\":1024,\"vcpu\":2,\"created_us\":17,"
                "\"locked\":true,\"plan\":{\"x\":[1,{}]}}";
        AUTO(json_put) json_t *in = jsonx_parse(text, sizeof text - 1, NULL);
        AUTO(json_put) json_t *row = NULL, *again = NULL;
        AUTO(cluster_free) struct cluster *c = NULL, *d = NULL;
        struct store_txn *t = store_txn_new();
        const char *key;
        json_t *v;

        assert_int_equal(cluster_from_row(in, &c, NULL), 0);
        row = cluster_to_row(c);
        json_object_foreach(row, key, v)
        {
                if (!has_column(ST_CLUSTER, key))
                        fail_msg("no column for %s", key);
        }
        store_put(t, ST_CLUSTER, json_incref(row));
        store_submit(w->store, t, on_done, w);
        settle(w, 1);
        assert_int_equal(w->answers[0], 0);
        assert_int_equal(store_load(w->store, ST_CLUSTER, keep_cluster, &d, NULL), 0);
        again = cluster_to_row(d);
        assert_true(json_equal(row, again));
        assert_true(d->locked && d->state == CS_PULLING && d->desired == DESIRED_RUNNING);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)

int main(void)
{
        const struct CMUnitTest tests[] = {
                T(test_order_and_fence),
                T(test_survives_closing),
                T(test_sold_twice),
                T(test_delete),
                T(test_failed_to_build),
                T(test_second_one_is_refused),
                T(test_newer_version_is_refused),
                T(test_older_version_is_brought_up),
                T(test_columns),
                T(test_record),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
