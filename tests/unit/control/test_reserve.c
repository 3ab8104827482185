/* test_reserve.c - the ledger: nothing twice, what is in use stays, and a long random life in
 * which rows, counts and choices always agree. */
#include "control/place/reserve.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/str.h"

#define N_CPUS 8

static char *cpu_names[] = { (char[]){ "0" }, (char[]){ "1" }, (char[]){ "2" },
                             (char[]){ "3" }, (char[]){ "4" }, (char[]){ "5" },
                             (char[]){ "6" }, (char[]){ "7" }, NULL };
static const struct node_inventory inv = {
        .cpus = cpu_names,
        .memory_mib = 16384,
        .disk_gib = 100,
        .cpu_overcommit = 1,
        .memory_overcommit = 1,
        .disk_overcommit = 1,
};

static const struct gpu_fleet no_gpus;

struct got {
        enum place_limit limit;
        char **cpus, **gpus;
};

static struct got take(struct ledger *l, const struct node_inventory *i, const char *cluster,
                       uint64_t generation, uint32_t vcpu, uint64_t disk)
{
        struct ledger_want w = { .node = "n",
                                 .cluster = cluster,
                                 .generation = generation,
                                 .vcpu = vcpu,
                                 .memory_mib = 1024,
                                 .container_disk_gib = disk,
                                 .volume_gib = 1 };
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        struct ledger_host h = { .inv = i, .gpus = &no_gpus };
        struct got g = { 0 };

        g.limit = ledger_take(l, &h, &w, t, &g.cpus, &g.gpus, NULL);
        return g;
}

static void got_done(struct got *g)
{
        g->cpus = strv_free(g->cpus);
        g->gpus = strv_free(g->gpus);
}

static void stop(struct ledger *l, const char *cluster, bool released, bool gone)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();

        ledger_releasing(l, cluster, t);
        if (released)
                ledger_release(l, cluster, gone, t);
}

static void test_release(void **state)
{
        AUTO(ledger_free) struct ledger *l = ledger_new();
        struct got a = take(l, &inv, "a", 1, 6, 10), b = take(l, &inv, "b", 1, 3, 10), c, d;

        (void) state;
        assert_int_equal(a.limit, PLACE_OK);
        assert_int_equal(strv_len(a.cpus), 6);
        assert_int_equal(b.limit, PLACE_CPU);
        assert_null(b.cpus);
        assert_false(ledger_holds(l, "b"));
        stop(l, "a", false, false);
        c = take(l, &inv, "b", 1, 3, 10); /* not released: not free */
        assert_int_equal(c.limit, PLACE_CPU);
        d = take(l, &inv, "a", 2, 6, 4); /* its own again, the very same, and no less disk yet */
        assert_int_equal(d.limit, PLACE_OK);
        for (size_t i = 0; i < 6; i++)
                assert_string_equal(d.cpus[i], a.cpus[i]);
        got_done(&d);
        stop(l, "a", true, false);
        assert_false(ledger_holds(l, "a"));
        d = take(l, &inv, "b", 1, 8, 99); /* the volume of a is still there */
        assert_int_equal(d.limit, PLACE_DISK);
        d = take(l, &inv, "b", 1, 8, 98);
        assert_int_equal(d.limit, PLACE_OK);
        got_done(&d);
        stop(l, "b", true, true);
        stop(l, "a", true, true);
        d = take(l, &inv, "c", 1, 8, 99);
        assert_int_equal(d.limit, PLACE_OK);
        got_done(&a);
        got_done(&d);
}

static void test_shares(void **state)
{
        struct node_inventory shared = inv;
        AUTO(ledger_free) struct ledger *l = ledger_new();
        struct got a, b, c;

        (void) state;
        shared.cpu_overcommit = 2;
        a = take(l, &shared, "a", 1, 5, 1);
        assert_int_equal(a.limit, PLACE_OK);
        assert_int_equal(strv_len(a.cpus), 0);
        b = take(l, &shared, "b", 1, 12, 1);
        assert_int_equal(b.limit, PLACE_CPU);
        /* the operator turned overcommit off: five CPUs stay unsold while the shares are held */
        c = take(l, &inv, "c", 1, 4, 1);
        assert_int_equal(c.limit, PLACE_CPU);
        c = take(l, &inv, "c", 1, 3, 1);
        assert_int_equal(c.limit, PLACE_OK);
        got_done(&c);
}

/* CPUs of other engines on the machine are not sold, and one that was lost to them is exchanged. */
static void test_elsewhere(void **state)
{
        char *taken[] = { (char[]){ "0" }, (char[]){ "2" }, (char[]){ "77" }, NULL };
        struct node_inventory with = inv;
        AUTO(ledger_free) struct ledger *l = ledger_new();
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        struct ledger_want w = { .node = "n",
                                 .cluster = "b",
                                 .generation = 2,
                                 .vcpu = 2,
                                 .memory_mib = 1024,
                                 .container_disk_gib = 1,
                                 .volume_gib = 1,
                                 .other_cpus = true };
        struct got a = take(l, &inv, "a", 1, 1, 1), b = take(l, &inv, "b", 1, 2, 1), c;
        struct place_node n;
        bool cpu_taken[N_CPUS];
        struct err e = { 0 };

        (void) state;
        assert_string_equal(a.cpus[0], "0"); /* lost as well, and not asked about */
        assert_string_equal(b.cpus[0], "1");
        assert_string_equal(b.cpus[1], "2");
        with.facts.cpus_elsewhere = taken;
        ledger_taken(l, &(struct ledger_host){ .inv = &with, .gpus = &no_gpus }, NULL, cpu_taken,
                     &n);
        assert_int_equal(n.vcpu_taken, 3); /* 0 and 2 are counted once */
        c = take(l, &with, "c", 1, 6, 1);
        assert_int_equal(c.limit, PLACE_CPU);
        got_done(&b);
        b.limit = ledger_take(l, &(struct ledger_host){ .inv = &with, .gpus = &no_gpus }, &w, t,
                              &b.cpus, &b.gpus, NULL);
        assert_int_equal(b.limit, PLACE_OK);
        assert_int_equal(strv_len(b.cpus), 2);
        assert_string_equal(b.cpus[0], "1");
        assert_string_equal(b.cpus[1], "3");
        c = take(l, &with, "c", 1, 4, 1);
        assert_int_equal(c.limit, PLACE_OK);
        assert_string_equal(c.cpus[0],
                            "4"); /* 2 is nobody's of ours any more, and still not free */
        w.vcpu = 3;
        assert_int_equal(ledger_take(l, &(struct ledger_host){ .inv = &with, .gpus = &no_gpus }, &w,
                                     t, &b.cpus, &b.gpus, &e),
                         PLACE_CPU);
        assert_non_null(strstr(e.msg, "1 held by other hosts on this machine"));
        got_done(&a);
        got_done(&b);
        got_done(&c);
}

/* Random events; what the node really uses is kept beside and never overlaps. */
static void test_random_life(void **state)
{
        static const char *const id[] = { "a", "b", "c", "d", "e", "f" };
        const char *in_use[N_CPUS] = { NULL }; /* by whom, on the node */
        bool running[NELEM(id)] = { false }, dirty[NELEM(id)] = { false };
        uint64_t generation[NELEM(id)] = { 0 };
        AUTO(ledger_free) struct ledger *l = ledger_new();
        unsigned seed = 12345, fits = 0;

        (void) state;
        for (int step = 0; step < 20000; step++) {
                size_t k = (size_t) rand_r(&seed) % NELEM(id);
                bool cpu_taken[N_CPUS];
                struct place_node s;

                if (!running[k] && rand_r(&seed) % 2) {
                        struct got g =
                                take(l, &inv, id[k], ++generation[k], 1 + (uint32_t) k % 4, 10);

                        for (size_t i = 0; g.limit == PLACE_OK && g.cpus[i]; i++) {
                                size_t cpu = (size_t) (g.cpus[i][0] - '0');

                                if (in_use[cpu] && in_use[cpu] != id[k])
                                        fail_msg("step %d: CPU %zu of %s given to %s", step, cpu,
                                                 in_use[cpu], id[k]);
                                in_use[cpu] = id[k];
                        }
                        running[k] = g.limit == PLACE_OK;
                        dirty[k] = dirty[k] || running[k];
                        fits += running[k];
                        got_done(&g);
                } else if (running[k]) {
                        stop(l, id[k], false, false);
                        running[k] = false;
                } else if (dirty[k]) { /* the engine has undone it: only now its CPUs are free */
                        for (size_t i = 0; i < N_CPUS; i++)
                                in_use[i] = in_use[i] == id[k] ? NULL : in_use[i];
                        stop(l, id[k], true, rand_r(&seed) % 2);
                        dirty[k] = false;
                }
                ledger_taken(l, &(struct ledger_host){ .inv = &inv, .gpus = &no_gpus }, NULL,
                             cpu_taken, &s);
                assert_true(s.memory_taken_mib <= inv.memory_mib);
                assert_true(s.disk_taken_gib <= inv.disk_gib);
        }
        assert_true(fits > 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_release),
                cmocka_unit_test(test_shares),
                cmocka_unit_test(test_elsewhere),
                cmocka_unit_test(test_random_life),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
