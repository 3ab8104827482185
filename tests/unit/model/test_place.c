/* test_place.c - what fits and what does not, and that the message names the constraint. */
#include "model/place.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

static const struct gpu_fleet no_gpus = { .note = (char[]){ "no NVIDIA driver on this host" } };
static const bool taken[] = { true, false, false, true };

static const struct place_node node = {
        .cpu_taken = taken,
        .n_cpus = 4,
        .cpu_overcommit = 1,
        .memory_overcommit = 1,
        .disk_overcommit = 1,
        .vcpu_taken = 2,
        .memory_mib = 24000,
        .memory_taken_mib = 4096,
        .disk_gib = 100,
        .disk_taken_gib = 40,
        .gpus = &no_gpus,
};

static void test_choose(void **state)
{
        static const struct {
                struct place_want w;
                enum place_limit limit;
                const char *word; /* in the message */
        } t[] = {
                { { .vcpu = 1, .memory_mib = 1024, .disk_gib = 10 }, PLACE_OK, NULL },
                { { .vcpu = 2, .memory_mib = 19904, .disk_gib = 60 }, PLACE_OK, NULL },
                { { .vcpu = 3, .memory_mib = 1024, .disk_gib = 10 },
                  PLACE_CPU,
                  "minVcpuCount: 3 vCPUs wanted, 2 free" },
                { { .vcpu = 1, .memory_mib = 19905, .disk_gib = 10 },
                  PLACE_MEMORY,
                  "minMemoryInGb: 20 GB wanted, 19 GB free" },
                { { .vcpu = 1, .memory_mib = 1024, .disk_gib = 61 },
                  PLACE_DISK,
                  "61 GB wanted, 60 GB free on a host of 100" },
                { { .vcpu = 1, .memory_mib = 1024, .gpu_count = 1, .gpu_type = "NVIDIA A100" },
                  PLACE_GPU,
                  "1 x NVIDIA A100 wanted, this host has no GPU (no NVIDIA" },
                { { .vcpu = 99, .memory_mib = 999999, .disk_gib = 999, .gpu_count = 1 },
                  PLACE_GPU,
                  "gpuCount 0 would fit" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                size_t cpu[100] = { 77, 77, 77 };
                struct err e = { 0 };
                struct place_choice c = { .cpus = cpu };
                enum place_limit l = place_choose(&node, &t[i].w, &c, &e);

                if (l != t[i].limit || (t[i].word && !strstr(e.msg, t[i].word)))
                        fail_msg("row %zu: %d, %s", i, l, e.msg);
                if (l == PLACE_OK)
                        assert_int_equal(cpu[0], 1);
                if (l == PLACE_OK && t[i].w.vcpu == 2)
                        assert_int_equal(cpu[1], 2);
                assert_int_equal(cpu[t[i].w.vcpu > 2 ? 2 : t[i].w.vcpu], 77);
        }
}

static void test_overcommit(void **state)
{
        struct place_node n = node;
        struct place_want w = { .vcpu = 6, .memory_mib = 40000, .disk_gib = 100 };
        size_t cpu[8] = { 77 };
        struct place_choice c = { .cpus = cpu };
        struct err e = { 0 };

        (void) state;
        n.cpu_overcommit = n.memory_overcommit = n.disk_overcommit = 2;
        assert_int_equal(place_choose(&n, &w, &c, &e), PLACE_OK);
        assert_int_equal(cpu[0], 77); /* shares: no CPU is named */
        w.vcpu = 7;
        assert_int_equal(place_choose(&n, &w, &c, &e), PLACE_CPU);
        assert_non_null(strstr(e.msg, "cpu_overcommit 2"));
        n.vcpu_taken = 100; /* more is sold than there is: the operator took CPUs away */
        w.vcpu = 1;
        assert_int_equal(place_choose(&n, &w, &c, &e), PLACE_CPU);
        assert_non_null(strstr(e.msg, "0 free"));
}

/* ---- NUMA nodes ---- */

#define CPUS 8

/* Two nodes of four CPUs and 16,000 MiB, in turn: 0, 2, 4, 6 are node 0's. */
static struct place_node two_nodes(const bool *cpu_taken, uint64_t taken_0, uint64_t taken_1)
{
        static const uint8_t of[CPUS] = { 0, 1, 0, 1, 0, 1, 0, 1 };
        struct place_node n = { .cpu_taken = cpu_taken,
                                .cpu_numa = of,
                                .n_cpus = CPUS,
                                .cpu_overcommit = 1,
                                .memory_overcommit = 1,
                                .disk_overcommit = 1,
                                .memory_mib = 32000,
                                .memory_taken_mib = taken_0 + taken_1,
                                .disk_gib = 100,
                                .n_numa = 2 };

        n.numa[0] = (struct place_numa){ 0, 16000, taken_0 };
        n.numa[1] = (struct place_numa){ 4, 16000, taken_1 }; /* numbers need not follow */
        return n;
}

static void test_numa(void **state)
{
        static const struct {
                const char *taken; /* one digit per CPU */
                uint64_t taken_0, taken_1;
                uint32_t vcpu;
                uint64_t memory_mib, near;
                uint64_t mems;
                const char *cpus;
        } t[] = {
                { "00000000", 0, 0, 2, 1000, 0, 0x01, "02" },     /* equals: the first */
                { "01000000", 0, 0, 2, 1000, 0, 0x10, "35" },     /* the fuller one */
                { "00000000", 0, 9000, 2, 1000, 0, 0x10, "13" },  /* fuller by memory */
                { "01000000", 0, 9000, 2, 9000, 0, 0x01, "02" },  /* which has not enough */
                { "01010000", 0, 0, 3, 1000, 0, 0x01, "024" },    /* nor CPUs */
                { "00000000", 0, 0, 5, 1000, 0, 0, "02461" },     /* more than one has */
                { "10000000", 0, 0, 5, 1000, 0, 0, "13572" },     /* the emptier one first */
                { "00000000", 0, 0, 1, 20000, 0, 0, "0" },        /* memory of both */
                { "00000000", 0, 0, 2, 1000, 0x10, 0x10, "13" },  /* where it is already */
                { "00000000", 0, 15500, 2, 1000, 0x10, 0, "13" }, /* no memory there, but CPUs */
                { "01010100", 0, 0, 3, 1000, 0x10, 0, "702" },    /* as far as they go */
                { "00000000", 0, 0, 3, 1000, 0x11, 0x11, "012" }, /* both in turn */
                { "00000000", 0, 0, 2, 1000, 0x100, 0x01, "02" }, /* a node that is not there */
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                bool cpu_taken[CPUS];
                size_t cpu[CPUS];
                struct place_choice c = { .cpus = cpu };
                struct place_want w = { .vcpu = t[i].vcpu,
                                        .memory_mib = t[i].memory_mib,
                                        .near = t[i].near };
                struct place_node n;
                struct err e = { 0 };
                char got[CPUS + 1] = "";

                for (size_t k = 0; k < CPUS; k++)
                        cpu_taken[k] = t[i].taken[k] == '1';
                n = two_nodes(cpu_taken, t[i].taken_0, t[i].taken_1);
                if (place_choose(&n, &w, &c, &e) != PLACE_OK)
                        fail_msg("row %zu: %s", i, e.msg);
                for (uint32_t k = 0; k < w.vcpu; k++)
                        got[k] = (char) ('0' + cpu[k]);
                if (strcmp(got, t[i].cpus) != 0 || c.mems != t[i].mems)
                        fail_msg("row %zu: CPUs %s, nodes %llx", i, got,
                                 (unsigned long long) c.mems);
        }
}

/* ---- GPUs ---- */

#define GPUS 6

/* Four A100 on two nodes, joined in pairs, then two L4 that are not. */
static void make_fleet(struct gpu_fleet *f, struct gpu *list, struct gpu_link *links)
{
        static char uuid[GPUS][8] = { "GPU-0", "GPU-1", "GPU-2", "GPU-3", "GPU-4", "GPU-5" };
        static char a100[] = "NVIDIA A100-SXM4-80GB", l4[] = "NVIDIA L4";

        for (uint32_t i = 0; i < GPUS; i++) {
                list[i] = (struct gpu){ .uuid = uuid[i],
                                        .name = i < 4 ? a100 : l4,
                                        .state = GS_OK,
                                        .numa_node = i < 2 ? 0 : 4 };
                for (uint32_t k = 0; k < GPUS; k++)
                        links[i * GPUS + k] = (struct gpu_link){
                                .path = GP_SYS, .nvlinks = i < 4 && k < 4 && i / 2 == k / 2 ? 4 : 0
                        };
        }
        *f = (struct gpu_fleet){ .gpus = list, .n = GPUS, .links = links };
}

static void test_gpus(void **state)
{
        static const struct {
                uint64_t free;
                uint32_t count;
                const char *type;
                uint64_t keep;
                uint64_t set, mems; /* set 0: refused */
                const char *text;   /* the type, or why */
        } t[] = {
                { 0x3f, 2, "NVIDIA A100", 0, 0x03, 0x01, "NVIDIA A100-SXM4-80GB" },
                { 0x3e, 2, "A100", 0, 0x0c, 0x10, "NVIDIA A100-SXM4-80GB" },
                { 0x3e, 1, "A100 SXM", 0, 0x02, 0x01, "NVIDIA A100-SXM4-80GB" },
                { 0x3f, 1, "NVIDIA H200, L4", 0, 0x10, 0x10, "NVIDIA L4" },
                { 0x3f, 3, "L4,A100", 0, 0x07, 0x11, "NVIDIA A100-SXM4-80GB" },
                { 0x3f, 1, NULL, 0, 0x10, 0x10, "NVIDIA L4" }, /* spoils the least */
                { 0x3f, 2, "A100", 0x04, 0x0c, 0x10, "NVIDIA A100-SXM4-80GB" },
                { 0x00, 2, "H200", 0x0c, 0x0c, 0x10, "NVIDIA A100-SXM4-80GB" }, /* the same */
                { 0x00, 1, "A100", 0x0c, 0x04, 0x10, "NVIDIA A100-SXM4-80GB" }, /* fewer */
                { 0x01, 2, "A100", 0, 0, 0, "gpuCount: 2 x A100 wanted, 1 of 4 free" },
                { 0x3f, 5, "A100", 0, 0, 0, "gpuCount: 5 x A100 wanted, this host has 4, 4 free" },
                { 0x3f, 1, "H200", 0, 0, 0,
                  "gpuTypeId: H200 is not on this host; it has NVIDIA A100-SXM4-80GB, NVIDIA L4" },
                { 0x0f, 3, "L4,H200", 0, 0, 0,
                  "gpuCount: 3 wanted of L4 (this host has 2, 0 free), H200 (not on this host)" },
                { 0x30, 3, "", 0, 0, 0, "gpuCount: 3 x GPU wanted, 2 of 6 free" },
                { 0x33, 3, "any", 0, 0, 0, "gpuCount: 3 x any wanted, 2 of one type are free" },
        };
        static const bool none_taken[CPUS];
        struct gpu list[GPUS];
        struct gpu_link links[GPUS * GPUS];
        struct gpu_fleet f;
        struct gpu_types types;
        AUTO(gpu_chooser_free) struct gpu_chooser *chooser = NULL;

        (void) state;
        make_fleet(&f, list, links);
        assert_int_equal(gpu_types_init(&f, &types, NULL), 0);
        assert_int_equal(gpu_chooser_new(&f, &types, &chooser, NULL), 0);
        for (size_t i = 0; i < NELEM(t); i++) {
                size_t cpu[CPUS];
                struct place_choice c = { .cpus = cpu };
                struct place_want w = { .vcpu = 1,
                                        .memory_mib = 100,
                                        .gpu_count = t[i].count,
                                        .gpu_type = t[i].type,
                                        .gpu_keep = t[i].keep };
                struct place_node n = two_nodes(none_taken, 0, 0);
                struct err e = { 0 };
                enum place_limit l;

                n.gpus = &f;
                n.gpu_types = &types;
                n.chooser = chooser;
                n.gpus_free = t[i].free;
                l = place_choose(&n, &w, &c, &e);
                if (t[i].set ? l != PLACE_OK || c.gpus != t[i].set || c.mems != t[i].mems ||
                                       strcmp(c.gpu_type->id, t[i].text) != 0
                             : l != PLACE_GPU || strcmp(e.msg, t[i].text) != 0)
                        fail_msg("row %zu: %d, GPUs %llx, nodes %llx, %s", i, l,
                                 (unsigned long long) c.gpus, (unsigned long long) c.mems, e.msg);
        }
        list[1].state = GS_QUARANTINED;
        {
                struct place_choice c = { .cpus = (size_t[CPUS]){ 0 } };
                struct place_want w = { .vcpu = 1, .gpu_count = 4, .gpu_type = "A100" };
                struct place_node n = two_nodes(none_taken, 0, 0);
                struct err e = { 0 };

                n.gpus = &f;
                n.gpu_types = &types;
                n.chooser = chooser;
                n.gpus_free = 0x3d;
                assert_int_equal(place_choose(&n, &w, &c, &e), PLACE_GPU);
                assert_string_equal(e.msg,
                                    "gpuCount: 4 x A100 wanted, 3 of 4 free, 1 out of order");
        }
        gpu_types_done(&types);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_choose),
                cmocka_unit_test(test_overcommit),
                cmocka_unit_test(test_numa),
                cmocka_unit_test(test_gpus),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
