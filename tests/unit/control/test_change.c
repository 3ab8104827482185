/* test_change.c - what a running cluster holds while it is changed: never less than the engine may
 * still use, exactly the plan when it has answered; and what may be asked for at all. */
#include "control/plane/plane_priv.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/str.h"

#define N_CPUS 8
#define N_GPUS 4

static char *cpu_names[] = { (char[]){ "0" }, (char[]){ "1" }, (char[]){ "2" },
                             (char[]){ "3" }, (char[]){ "4" }, (char[]){ "5" },
                             (char[]){ "6" }, (char[]){ "7" }, NULL };
static struct node_inventory inv = {
        .cpus = cpu_names,
        .memory_mib = 16384,
        .disk_gib = 100,
        .cpu_overcommit = 1,
        .memory_overcommit = 1,
        .disk_overcommit = 1,
};
static struct gpu gpus[N_GPUS] = {
        { .uuid = (char[]){ "GPU-0" }, .name = (char[]){ "NVIDIA X" }, .state = GS_OK },
        { .uuid = (char[]){ "GPU-1" }, .name = (char[]){ "NVIDIA X" }, .state = GS_OK },
        { .uuid = (char[]){ "GPU-2" }, .name = (char[]){ "NVIDIA X" }, .state = GS_OK },
        { .uuid = (char[]){ "GPU-3" }, .name = (char[]){ "NVIDIA X" }, .state = GS_OK },
};
static struct gpu_link links[N_GPUS * N_GPUS];
static const struct gpu_fleet fleet = { .gpus = gpus, .n = N_GPUS, .links = links };
static struct gpu_types types;
static struct gpu_chooser *chooser;
static struct ledger_host host = { &inv, &fleet, &types, NULL };

static struct ledger_want want(const char *cluster, uint32_t vcpu, uint64_t memory_gib,
                               uint64_t disk, uint32_t n_gpus)
{
        return (struct ledger_want){ .node = "n",
                                     .cluster = cluster,
                                     .generation = 1,
                                     .vcpu = vcpu,
                                     .memory_mib = memory_gib * 1024,
                                     .container_disk_gib = disk,
                                     .volume_gib = 1,
                                     .gpu_count = n_gpus };
}

struct has {
        char **cpus, **gpus;
};

static void has_done(struct has *h)
{
        h->cpus = strv_free(h->cpus);
        h->gpus = strv_free(h->gpus);
}

static enum place_limit start(struct ledger *l, const struct ledger_want *w, struct has *ret)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();

        return ledger_take(l, &host, w, t, &ret->cpus, &ret->gpus, NULL);
}

static enum place_limit grow(struct ledger *l, const struct ledger_want *w, const struct has *from,
                             struct has *ret, struct err *e)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();

        return ledger_grow(l, &host, w, from->cpus, from->gpus, t, &ret->cpus, &ret->gpus, e);
}

static void settle(struct ledger *l, const struct ledger_want *w, const struct has *h)
{
        AUTO(store_txn_free) struct store_txn *t = store_txn_new();

        assert_int_equal(ledger_settle(l, w, h->cpus, h->gpus, t), 0);
}

/* What is sold now: CPUs, GiB of memory and disk, GPUs. */
static void assert_taken(const struct ledger *l, uint64_t cpus, uint64_t memory_gib, uint64_t disk,
                         uint32_t n_gpus)
{
        bool taken[N_CPUS];
        struct place_node n;

        ledger_taken(l, &host, NULL, taken, &n);
        assert_int_equal(n.vcpu_taken, cpus);
        assert_int_equal(n.memory_taken_mib, memory_gib * 1024);
        assert_int_equal(n.disk_taken_gib, disk);
        assert_int_equal(n.gpus_taken, n_gpus);
}

static void test_grow_and_shrink(void **state)
{
        AUTO(ledger_free) struct ledger *l = ledger_new();
        struct ledger_want w = want("a", 2, 2, 10, 1), more = want("a", 5, 4, 20, 3),
                           mixed = want("a", 1, 8, 20, 2);
        struct has a = { 0 }, b = { 0 }, c = { 0 };

        (void) state;
        assert_int_equal(start(l, &w, &a), PLACE_OK);
        assert_taken(l, 2, 2, 11, 1);
        assert_int_equal(grow(l, &more, &a, &b, NULL), PLACE_OK);
        assert_taken(l, 5, 4, 21, 3);
        assert_int_equal(strv_len(b.cpus), 5);
        assert_int_equal(strv_len(b.gpus), 3);
        for (size_t i = 0; i < 2; i++) /* what it had stays */
                assert_string_equal(a.cpus[i], b.cpus[i]);
        assert_string_equal(a.gpus[0], b.gpus[0]);
        settle(l, &more, &b);
        assert_taken(l, 5, 4, 21, 3);
        assert_int_equal(grow(l, &mixed, &b, &c, NULL), PLACE_OK);
        assert_taken(l, 5, 8, 21, 3); /* more at once, less when it is true */
        settle(l, &mixed, &c);
        assert_taken(l, 1, 8, 21, 2);
        assert_string_equal(c.cpus[0], a.cpus[0]);
        has_done(&a);
        has_done(&b);
        has_done(&c);
}

/* The engine did not do it: the rows go back to what it has. */
static void test_refused(void **state)
{
        AUTO(ledger_free) struct ledger *l = ledger_new();
        struct ledger_want w = want("a", 4, 4, 10, 2), other = want("a", 2, 8, 10, 0);
        struct has a = { 0 }, b = { 0 };

        (void) state;
        assert_int_equal(start(l, &w, &a), PLACE_OK);
        assert_int_equal(grow(l, &other, &a, &b, NULL), PLACE_OK);
        assert_taken(l, 4, 8, 11, 2);
        settle(l, &w, &a);
        assert_taken(l, 4, 4, 11, 2);
        has_done(&a);
        has_done(&b);
}

static void test_no_room(void **state)
{
        static const struct {
                uint32_t vcpu;
                uint64_t memory, disk;
                uint32_t gpus;
                enum place_limit limit;
                const char *word;
        } t[] = {
                { 6, 2, 10, 1, PLACE_OK, NULL },
                { 7, 2, 10, 1, PLACE_CPU, "7 vCPUs wanted, 6 free" },
                { 2, 12, 10, 1, PLACE_OK, NULL },
                { 2, 13, 10, 1, PLACE_MEMORY, "13 GB wanted, 12 GB free" },
                { 2, 2, 88, 1, PLACE_OK, NULL },
                { 2, 2, 89, 1, PLACE_DISK, "90 GB wanted, 89 GB free" },
                { 2, 2, 10, 3, PLACE_OK, NULL },
                { 2, 2, 10, 4, PLACE_GPU, "gpuCount: 4 x" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(ledger_free) struct ledger *l = ledger_new();
                struct ledger_want mine = want("a", 2, 2, 10, 1), others = want("b", 2, 4, 10, 1),
                                   w = want("a", t[i].vcpu, t[i].memory, t[i].disk, t[i].gpus);
                struct has a = { 0 }, b = { 0 }, c = { 0 };
                struct err e = { 0 };

                assert_int_equal(start(l, &mine, &a), PLACE_OK);
                assert_int_equal(start(l, &others, &b), PLACE_OK);
                if (grow(l, &w, &a, &c, &e) != t[i].limit)
                        fail_msg("row %zu: %s", i, e.msg);
                if (t[i].word && !strstr(e.msg, t[i].word))
                        fail_msg("row %zu: '%s' lacks '%s'", i, e.msg, t[i].word);
                if (t[i].word) /* and nothing is another */
                        assert_taken(l, 4, 6, 22, 2);
                has_done(&a);
                has_done(&b);
                has_done(&c);
        }
}

/* As many GPUs as it has are those, whatever has become of them; free ones are for whoever asks. */
static void test_lost_gpu(void **state)
{
        const struct gpu_fleet rest = { .gpus = gpus + 1, .n = N_GPUS - 1, .links = links };
        const struct ledger_host was = host;
        AUTO(ledger_free) struct ledger *l = ledger_new();
        AUTO(gpu_chooser_free) struct gpu_chooser *of_rest = NULL;
        struct ledger_want w = want("a", 2, 2, 10, 1), same = want("a", 3, 2, 10, 1),
                           more = want("a", 2, 2, 10, 4);
        struct gpu_types types_of_rest;
        struct has a = { 0 }, b = { 0 }, c = { 0 };
        struct err e = { 0 };

        (void) state;
        assert_int_equal(start(l, &w, &a), PLACE_OK);
        assert_string_equal(a.gpus[0], "GPU-0");
        assert_int_equal(gpu_types_init(&rest, &types_of_rest, NULL), 0);
        assert_int_equal(gpu_chooser_new(&rest, &types_of_rest, &of_rest, NULL), 0);
        host = (struct ledger_host){ &inv, &rest, &types_of_rest, of_rest };
        assert_int_equal(grow(l, &same, &a, &b, NULL), PLACE_OK);
        assert_int_equal(strv_len(b.cpus), 3);
        assert_int_equal(strv_len(b.gpus), 1);
        assert_string_equal(b.gpus[0], "GPU-0");
        assert_taken(l, 3, 2, 11, 1);
        settle(l, &same, &b);
        assert_int_equal(grow(l, &more, &b, &c, &e), PLACE_GPU);
        assert_non_null(strstr(e.msg, "this host has 3, 3 free"));
        assert_taken(l, 3, 2, 11, 1);
        host = was;
        more.gpu_count = 5; /* its own one is none of those that are free */
        assert_int_equal(grow(l, &more, &b, &c, &e), PLACE_GPU);
        assert_non_null(strstr(e.msg, "this host has 4, 3 free"));
        gpu_types_done(&types_of_rest);
        has_done(&a);
        has_done(&b);
        has_done(&c);
}

static void test_shares(void **state)
{
        AUTO(ledger_free) struct ledger *l = ledger_new();
        struct ledger_want w = want("a", 5, 1, 1, 0), more = want("a", 11, 1, 1, 0),
                           memory = want("a", 5, 2, 1, 0);
        struct has a = { 0 }, b = { 0 };
        struct err e = { 0 };

        (void) state;
        inv.cpu_overcommit = 2;
        assert_int_equal(start(l, &w, &a), PLACE_OK);
        assert_int_equal(grow(l, &more, &a, &b, NULL), PLACE_OK);
        assert_int_equal(strv_len(b.cpus), 0);
        assert_taken(l, 11, 1, 2, 0);
        settle(l, &w, &a);
        assert_taken(l, 5, 1, 2, 0);
        has_done(&b);
        inv.cpu_overcommit = 1; /* the operator pins from now on: a share cannot grow */
        assert_int_equal(grow(l, &more, &a, &b, &e), PLACE_CPU);
        assert_non_null(strstr(e.msg, "restart"));
        assert_int_equal(grow(l, &memory, &a, &b, NULL), PLACE_OK);
        has_done(&a);
        has_done(&b);
}

/* Several clusters start, change, are refused, settle and stop in any order; what the node may use is
 * kept beside: both plans while a change is open.  Nothing is ever in two hands. */
static void test_random_life(void **state)
{
        static const char *const id[] = { "a", "b", "c", "d" };
        struct {
                struct has now, next;
                struct ledger_want w, to;
                bool runs, open;
        } k[NELEM(id)] = { 0 };
        AUTO(ledger_free) struct ledger *l = ledger_new();
        unsigned seed = 4711, grown = 0, refused = 0;

        (void) state;
        for (int step = 0; step < 20000; step++) {
                size_t i = (size_t) rand_r(&seed) % NELEM(id);
                const char *cpu[N_CPUS] = { NULL };
                struct ledger_want w =
                        want(id[i], 1 + (uint32_t) rand_r(&seed) % 5,
                             1 + (uint64_t) rand_r(&seed) % 8, 5, (uint32_t) rand_r(&seed) % 4);

                if (!k[i].runs) {
                        has_done(&k[i].now);
                        k[i].w = w;
                        k[i].runs = start(l, &w, &k[i].now) == PLACE_OK;
                } else if (!k[i].open && rand_r(&seed) % 4) {
                        k[i].open = grow(l, &w, &k[i].now, &k[i].next, NULL) == PLACE_OK;
                        k[i].to = w;
                        grown += k[i].open;
                } else if (k[i].open && rand_r(&seed) % 3) { /* done */
                        settle(l, &k[i].to, &k[i].next);
                        has_done(&k[i].now);
                        k[i].now = k[i].next;
                        k[i].w = k[i].to;
                        k[i].next = (struct has){ 0 };
                        k[i].open = false;
                } else if (k[i].open) {
                        settle(l, &k[i].w, &k[i].now);
                        has_done(&k[i].next);
                        k[i].open = false;
                        refused++;
                } else {
                        AUTO(store_txn_free) struct store_txn *t = store_txn_new();

                        ledger_release(l, id[i], true, t);
                        k[i].runs = false;
                }
                for (size_t c = 0; c < NELEM(id); c++) {
                        char **const both[] = { k[c].runs ? k[c].now.cpus : NULL,
                                                k[c].open ? k[c].next.cpus : NULL };

                        for (size_t n = 0; n < NELEM(both); n++)
                                for (char **s = both[n]; s && *s; s++) {
                                        size_t at = (size_t) (**s - '0');

                                        if (cpu[at] && cpu[at] != id[c])
                                                fail_msg("step %d: CPU %zu is of %s and %s", step,
                                                         at, cpu[at], id[c]);
                                        cpu[at] = id[c];
                                }
                }
        }
        for (size_t i = 0; i < NELEM(id); i++) {
                has_done(&k[i].now);
                has_done(&k[i].next);
        }
        assert_true(grown > 1000 && refused > 300);
}

#define NO_IDLE                                                                                    \
        {                                                                                          \
                .said = false                                                                      \
        }
#define AS_IS                                                                                      \
        {                                                                                          \
                -1, -1, -1, -1, -1, -1, NULL, NO_IDLE, NULL                                        \
        }

static void test_what_may_be_asked(void **state)
{
        static char *good[] = { (char *) "198.51.100.0/24", NULL },
                    *none[] = { (char *) "none", NULL }, *bad[] = { (char *) "10.0.0.1/8", NULL },
                    *link[] = { (char *) "169.254.169.254", NULL };
        static const struct {
                bool runs;
                uint32_t volume;
                struct update u;
                int r;
                const char *word;
        } t[] = {
                { true, 5, AS_IS, 0, NULL },
                { true, 5, { 1, 1, 10, 5, 0, 7, NULL, NO_IDLE, NULL }, 0, NULL },
                { true,
                  5,
                  { -1, -1, -1, -1, -1, 6, NULL, NO_IDLE, NULL },
                  -ESTALE,
                  "it is at 7 now, not at 6" },
                { true, 5, { 1024, -1, -1, -1, -1, -1, NULL, NO_IDLE, NULL }, 0, NULL },
                { true,
                  5,
                  { 0, -1, -1, -1, -1, -1, NULL, NO_IDLE, NULL },
                  -ERANGE,
                  "vcpuCount: 0 is outside 1..1024" },
                { true,
                  5,
                  { 1025, -1, -1, -1, -1, -1, NULL, NO_IDLE, NULL },
                  -ERANGE,
                  "vcpuCount" },
                { true, 5, { -1, 0, -1, -1, -1, -1, NULL, NO_IDLE, NULL }, -ERANGE, "memoryInGb" },
                { true,
                  5,
                  { -1, 65537, -1, -1, -1, -1, NULL, NO_IDLE, NULL },
                  -ERANGE,
                  "memoryInGb" },
                { true,
                  5,
                  { -1, INT64_MAX, -1, -1, -1, -1, NULL, NO_IDLE, NULL },
                  -ERANGE,
                  "memoryInGb" },
                { true,
                  5,
                  { -1, -1, -1, -1, 65, -1, NULL, NO_IDLE, NULL },
                  -ERANGE,
                  "gpuCount: 65 is outside 0..64" },
                { true,
                  5,
                  { -1, -1, 9, -1, -1, -1, NULL, NO_IDLE, NULL },
                  -EINVAL,
                  "less than the 10 GB it has" },
                { false, 5, { -1, -1, 9, -1, -1, -1, NULL, NO_IDLE, NULL }, 0, NULL },
                { true,
                  5,
                  { -1, -1, 65537, -1, -1, -1, NULL, NO_IDLE, NULL },
                  -ERANGE,
                  "containerDiskInGb" },
                { true,
                  5,
                  { -1, -1, -1, 4, -1, -1, NULL, NO_IDLE, NULL },
                  -EINVAL,
                  "a volume can only grow" },
                { false,
                  5,
                  { -1, -1, -1, 4, -1, -1, NULL, NO_IDLE, NULL },
                  -EINVAL,
                  "a volume can only grow" },
                { true,
                  5,
                  { -1, -1, -1, 0, -1, -1, NULL, NO_IDLE, NULL },
                  -EINVAL,
                  "a volume can only grow" },
                { true,
                  0,
                  { -1, -1, -1, 1, -1, -1, NULL, NO_IDLE, NULL },
                  -EINVAL,
                  "stop it, update it" },
                { false, 0, { -1, -1, -1, 1, -1, -1, NULL, NO_IDLE, NULL }, 0, NULL },
                { true, 5, { -1, -1, -1, -1, -1, -1, good, NO_IDLE, NULL }, 0, NULL },
                { false, 5, { -1, -1, -1, -1, -1, -1, none, NO_IDLE, NULL }, 0, NULL },
                { true,
                  5,
                  { -1, -1, -1, -1, -1, -1, bad, NO_IDLE, NULL },
                  -EINVAL,
                  "egressAllow: 10.0.0.1/8 does not" },
                { false,
                  5,
                  { -1, -1, -1, -1, -1, -1, link, NO_IDLE, NULL },
                  -EINVAL,
                  "clusters never reach link-local" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                const struct cluster c = { .desired = t[i].runs ? DESIRED_RUNNING : DESIRED_STOPPED,
                                           .generation = 7,
                                           .vcpu = 2,
                                           .memory_mib = 2048,
                                           .container_disk_gib = 10,
                                           .volume_gib = t[i].volume };
                struct err e = { 0 };
                int r = update_check(&c, &t[i].u, &e);

                if (r != t[i].r || (t[i].word && !strstr(e.msg, t[i].word)))
                        fail_msg("row %zu: r=%d '%s'", i, r, e.msg);
        }
}

static int world_up(void **state)
{
        (void) state;
        if (gpu_types_init(&fleet, &types, NULL) < 0 ||
            gpu_chooser_new(&fleet, &types, &chooser, NULL) < 0)
                return -1;
        host.chooser = chooser;
        return 0;
}

static int world_down(void **state)
{
        (void) state;
        chooser = gpu_chooser_free(chooser);
        gpu_types_done(&types);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_grow_and_shrink),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_no_room),
                cmocka_unit_test(test_lost_gpu),
                cmocka_unit_test(test_shares),
                cmocka_unit_test(test_random_life),
                cmocka_unit_test(test_what_may_be_asked),
        };

        return cmocka_run_group_tests(tests, world_up, world_down);
}
