/* test_account.c - keys are recognised, by digest only, and survive a reload. */
#include "control/account/account.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/fd.h"
#include "base/str.h"

struct world {
        char dir[32];
        sd_event *loop;
        struct store *store;
        struct accounts *accounts;
        int answers, last;
};

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        *state = w;
        (void) snprintf(w->dir, sizeof w->dir, "/tmp/hvmm-account-XXXXXX");
        if (!mkdtemp(w->dir) || sd_event_new(&w->loop) < 0 ||
            store_sqlite_open(w->dir, w->loop, &w->store, NULL) < 0)
                return -1;
        return accounts_open(w->store, w->dir, &w->accounts, NULL);
}

static int world_down(void **state)
{
        struct world *w = *state;

        w->accounts = accounts_free(w->accounts);
        w->store = store_close(w->store);
        w->loop = sd_event_unref(w->loop);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static void on_done(int r, void *arg)
{
        struct world *w = arg;

        w->answers++;
        w->last = r;
}

static void commit(struct world *w, struct store_txn *t)
{
        int want = w->answers + 1;

        store_submit(w->store, t, on_done, w);
        while (w->answers < want)
                assert_true(sd_event_run(w->loop, 5 * 1000 * 1000) > 0);
        assert_int_equal(w->last, 0);
}

static void test_keys(void **state)
{
        struct world *w = *state;
        struct store_txn *t = store_txn_new();
        const struct account *a = NULL;
        AUTO(str_wipe_free) char *key = NULL, *ro = NULL;
        AUTO(free) char *id = NULL;
        const char *key_id = NULL, *ro_id = NULL;
        struct caller who;
        struct err e = { 0 };

        assert_int_equal(accounts_add(w->accounts, t, "one", true, 5, &a, NULL), 0);
        assert_int_equal(
                accounts_add_key(w->accounts, t, a->id, KEY_ADMIN, "x", 5, &key, &key_id, NULL), 0);
        assert_int_equal(
                accounts_add_key(w->accounts, t, a->id, KEY_READ, NULL, 5, &ro, &ro_id, NULL), 0);
        id = strdup(ro_id);
        assert_int_equal(accounts_add(w->accounts, t, "one", false, 5, &a, &e), -EEXIST);
        assert_int_equal(accounts_add(w->accounts, t, "", false, 5, &a, &e), -EINVAL);
        assert_int_equal(
                accounts_add_key(w->accounts, t, "nobody", KEY_READ, NULL, 5, &ro, &ro_id, &e),
                -ENOENT);
        commit(w, t);
        for (int reload = 0; reload < 2; reload++) {
                assert_true(accounts_check(w->accounts, key, &who));
                assert_int_equal(who.right, KEY_ADMIN);
                assert_true(accounts_check(w->accounts, ro, &who));
                assert_int_equal(who.right, KEY_READ);
                assert_string_equal(who.account, accounts_admin(w->accounts)->id);
                assert_false(accounts_check(w->accounts, "", &who));
                assert_false(accounts_check(w->accounts, NULL, &who));
                assert_false(accounts_check(w->accounts, "hvmm_", &who));
                key[10] ^= 1;
                assert_false(accounts_check(w->accounts, key, &who));
                key[10] ^= 1;
                assert_int_equal(accounts_reload(w->accounts, NULL), 0);
        }
        t = store_txn_new();
        assert_int_equal(accounts_del_key(w->accounts, t, "another", id, &e), -ENOENT);
        assert_int_equal(accounts_del_key(w->accounts, t, accounts_admin(w->accounts)->id, id, &e),
                         0);
        commit(w, t);
        assert_int_equal(accounts_reload(w->accounts, NULL), 0);
        assert_false(accounts_check(w->accounts, ro, &who));
        assert_true(accounts_check(w->accounts, key, &who));
}

static void test_cluster_key(void **state)
{
        struct world *w = *state;
        struct store_txn *t = store_txn_new();
        AUTO(str_wipe_free) char *key = accounts_cluster_key(w->accounts, "abc", 17);
        AUTO(str_wipe_free) char *other = accounts_cluster_key(w->accounts, "abc", 18);
        struct accounts *again = NULL;
        const struct account *a = NULL;
        AUTO(str_wipe_free) char *same = NULL;
        struct caller who;

        assert_string_not_equal(key, other);
        assert_int_equal(accounts_add(w->accounts, t, "one", false, 5, &a, NULL), 0);
        assert_false(accounts_check(w->accounts, key, &who));
        assert_int_equal(accounts_add_cluster_key(w->accounts, t, a->id, "abc", 17, NULL), 0);
        commit(w, t);
        assert_true(accounts_check(w->accounts, key, &who));
        assert_int_equal(who.right, KEY_CLUSTER);
        assert_string_equal(who.cluster, "abc");
        assert_int_equal(accounts_open(w->store, w->dir, &again, NULL), 0); /* the secret is kept */
        same = accounts_cluster_key(again, "abc", 17);
        assert_string_equal(same, key);
        (void) accounts_free(again);
        t = store_txn_new();
        accounts_del_cluster_key(w->accounts, t, "abc");
        commit(w, t);
        assert_false(accounts_check(w->accounts, key, &who));
}

static void test_secret_is_private(void **state)
{
        struct world *w = *state;
        AUTO(free) char *path = str_fmt("%s/cluster-key.secret", w->dir);
        struct accounts *again = NULL;
        struct err e = { 0 };
        AUTO(fd) int fd = open(path, O_WRONLY | O_CLOEXEC | O_TRUNC);

        assert_true(fd >= 0);
        assert_int_equal(accounts_open(w->store, w->dir, &again, &e), -EINVAL);
        assert_non_null(strstr(e.msg, "0 bytes, 32 expected"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)

int main(void)
{
        const struct CMUnitTest tests[] = { T(test_keys), T(test_cluster_key),
                                            T(test_secret_is_private) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
