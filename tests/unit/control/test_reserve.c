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

/* ---- GPUs and NUMA nodes ---- */

#define N_GPUS 6

/* Four GPUs in two pairs and two instances; CPUs 0-3 and the first pair lie on node 0. */
struct gpu_world {
        struct gpu list[N_GPUS];
        struct gpu_link links[N_GPUS * N_GPUS];
        struct gpu_fleet fleet;
        struct gpu_types types;
        struct gpu_chooser *chooser;
        struct node_numa numa[2];
        uint8_t cpu_numa[N_CPUS];
        struct node_inventory inv;
        struct ledger_host host;
};

static void gpu_world_init(struct gpu_world *w)
{
        static char uuid[N_GPUS][8] = { "GPU-0", "GPU-1", "GPU-2", "GPU-3", "MIG-4", "MIG-5" };
        static char name[] = "NVIDIA A100-SXM4-80GB", profile[] = "1g.10gb";

        *w = (struct gpu_world){ .inv = inv };
        for (uint32_t i = 0; i < N_GPUS; i++) {
                w->list[i] = (struct gpu){ .uuid = uuid[i],
                                           .name = name,
                                           .mig_profile = i < 4 ? NULL : profile,
                                           .state = GS_OK,
                                           .gi = i,
                                           .numa_node = i < 2 ? 0 : 1 };
                for (uint32_t k = 0; k < 4; k++)
                        w->links[i * N_GPUS + k].nvlinks =
                                i < 4 && i != k && i / 2 == k / 2 ? 4 : 0;
        }
        w->fleet = (struct gpu_fleet){ .gpus = w->list, .n = N_GPUS, .links = w->links };
        assert_int_equal(gpu_types_init(&w->fleet, &w->types, NULL), 0);
        assert_int_equal(gpu_chooser_new(&w->fleet, &w->types, &w->chooser, NULL), 0);
        for (uint32_t i = 0; i < N_CPUS; i++)
                w->cpu_numa[i] = (uint8_t) (i / 4);
        w->numa[0] = (struct node_numa){ .node = 0, .memory_mib = 8192 };
        w->numa[1] = (struct node_numa){ .node = 1, .memory_mib = 8192 };
        w->inv.numa = w->numa;
        w->inv.n_numa = 2;
        w->inv.cpu_numa = w->cpu_numa;
        w->host = (struct ledger_host){ &w->inv, &w->fleet, &w->types, w->chooser };
}

static void gpu_world_done(struct gpu_world *w)
{
        (void) gpu_chooser_free(w->chooser);
        gpu_types_done(&w->types);
}

static struct got take_gpus(struct ledger *l, const struct gpu_world *world, const char *cluster,
                            uint64_t generation, uint32_t gpus, const char *type, uint64_t memory)
{
        struct ledger_want w = { .node = "n",
                                 .cluster = cluster,
                                 .generation = generation,
                                 .vcpu = 1,
                                 .memory_mib = memory,
                                 .container_disk_gib = 1,
                                 .gpu_count = gpus,
                                 .gpu_type = type };
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();
        struct got g = { 0 };

        g.limit = ledger_take(l, &world->host, &w, t, &g.cpus, &g.gpus, NULL);
        return g;
}

static void test_gpus_and_nodes(void **state)
{
        struct gpu_world w;
        AUTO(ledger_free) struct ledger *l = ledger_new();
        struct got a, b, c;

        (void) state;
        gpu_world_init(&w);
        a = take_gpus(l, &w, "a", 1, 2, "A100", 6000);
        assert_string_equal(a.gpus[0], "GPU-0");
        assert_string_equal(a.gpus[1], "GPU-1");
        assert_string_equal(a.cpus[0], "0");
        assert_int_equal(ledger_mems(l, "n", "a"), 1);
        b = take_gpus(l, &w, "b", 1, 1, "A100", 1000);
        assert_string_equal(b.gpus[0], "GPU-2");
        assert_string_equal(b.cpus[0], "4");
        assert_int_equal(ledger_mems(l, "n", "b"), 2);
        c = take_gpus(l, &w, "c", 1, 2, "A100", 1000);
        assert_int_equal(c.limit, PLACE_GPU);
        c = take_gpus(l, &w, "c", 1, 2, "A100 1g.10gb", 1000);
        assert_string_equal(c.gpus[0], "MIG-4");
        got_done(&a);
        stop(l, "a", false, false);
        w.list[0].state = GS_LOST; /* it is still the one that has it */
        a = take_gpus(l, &w, "a", 2, 2, "A100", 6000);
        assert_string_equal(a.gpus[0], "GPU-0");
        assert_int_equal(ledger_mems(l, "n", "a"), 1);
        got_done(&a);
        stop(l, "a", true, true);
        assert_int_equal(ledger_mems(l, "n", "a"), 0);
        a = take_gpus(l, &w, "a", 3, 2, "A100", 6000); /* GPU-0 is lost */
        assert_string_equal(a.gpus[0], "GPU-1");
        assert_string_equal(a.gpus[1], "GPU-3");
        assert_int_equal(ledger_mems(l, "n", "a"), 3);
        got_done(&a);
        got_done(&b);
        got_done(&c);
        gpu_world_done(&w);
}

/* Random events, as in test_random_life: no GPU is given out that another one has or that is out of
 * order, and no node's memory is promised twice to those that are bound to it. */
static void test_random_life_of_gpus(void **state)
{
        static const char *const id[] = { "a", "b", "c", "d", "e" };
        static const char *const wish[] = { "A100", "A100 1g.10gb", "H100, A100", NULL };
        const char *has[N_GPUS] = { NULL };
        bool running[NELEM(id)] = { false }, dirty[NELEM(id)] = { false };
        uint64_t generation[NELEM(id)] = { 0 }, bound[NELEM(id)] = { 0 }, memory[NELEM(id)] = { 0 };
        AUTO(ledger_free) struct ledger *l = ledger_new();
        unsigned seed = 4711, fits = 0;
        struct gpu_world w;

        (void) state;
        gpu_world_init(&w);
        for (int step = 0; step < 20000; step++) {
                size_t k = (size_t) rand_r(&seed) % NELEM(id),
                       gpu = (size_t) rand_r(&seed) % N_GPUS;
                uint64_t on[2] = { 0 };

                w.list[gpu].state = rand_r(&seed) % 4 ? GS_OK : GS_UNHEALTHY;
                if (!running[k] && rand_r(&seed) % 2) {
                        bool kept = dirty[k];
                        uint64_t want = 500 + 500 * ((uint64_t) rand_r(&seed) % 8);
                        struct got g = take_gpus(l, &w, id[k], ++generation[k],
                                                 (uint32_t) rand_r(&seed) % 4,
                                                 wish[(size_t) rand_r(&seed) % NELEM(wish)], want);

                        for (size_t i = 0; g.limit == PLACE_OK && g.gpus && g.gpus[i]; i++) {
                                size_t at = (size_t) (g.gpus[i][4] - '0');

                                if (has[at] && has[at] != id[k])
                                        fail_msg("step %d: GPU %zu of %s given to %s", step, at,
                                                 has[at], id[k]);
                                if (!kept && w.list[at].state != GS_OK)
                                        fail_msg("step %d: GPU %zu is out of order", step, at);
                                has[at] = id[k];
                        }
                        if (g.limit == PLACE_OK && !kept) {
                                bound[k] = ledger_mems(l, "n", id[k]);
                                memory[k] = want;
                        }
                        running[k] = g.limit == PLACE_OK;
                        dirty[k] = dirty[k] || running[k];
                        fits += running[k];
                        got_done(&g);
                } else if (running[k]) {
                        stop(l, id[k], false, false);
                        running[k] = false;
                } else if (dirty[k]) {
                        for (size_t i = 0; i < N_GPUS; i++)
                                has[i] = has[i] == id[k] ? NULL : has[i];
                        stop(l, id[k], true, true);
                        dirty[k] = false;
                        bound[k] = 0;
                }
                for (size_t i = 0; i < NELEM(id); i++)
                        if (bound[i] == 1 || bound[i] == 2)
                                on[bound[i] - 1] += memory[i];
                assert_true(on[0] <= 8192 && on[1] <= 8192);
        }
        assert_true(fits > 1000);
        gpu_world_done(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_release),        cmocka_unit_test(test_shares),
                cmocka_unit_test(test_elsewhere),      cmocka_unit_test(test_random_life),
                cmocka_unit_test(test_gpus_and_nodes), cmocka_unit_test(test_random_life_of_gpus),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
