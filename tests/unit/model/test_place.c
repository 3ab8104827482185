/* test_place.c - what fits and what does not, and that the message names the constraint. */
#include "model/place.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/mem.h"

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
        .gpu_note = "no NVIDIA driver on this host",
};

static void test_choose(void **state)
{
        static const struct {
                struct place_want w;
                enum place_limit limit;
                const char *word; /* in the message */
        } t[] = {
                { { 1, 1024, 10, 0, NULL }, PLACE_OK, NULL },
                { { 2, 19904, 60, 0, NULL }, PLACE_OK, NULL },
                { { 3, 1024, 10, 0, NULL }, PLACE_CPU, "minVcpuCount: 3 vCPUs wanted, 2 free" },
                { { 1, 19905, 10, 0, NULL },
                  PLACE_MEMORY,
                  "minMemoryInGb: 20 GB wanted, 19 GB free" },
                { { 1, 1024, 61, 0, NULL },
                  PLACE_DISK,
                  "61 GB wanted, 60 GB free on a host of 100" },
                { { 1, 1024, 10, 1, "NVIDIA A100" },
                  PLACE_GPU,
                  "1 x NVIDIA A100 wanted, this host has no GPU (no NVIDIA" },
                { { 99, 999999, 999, 1, NULL }, PLACE_GPU, "gpuCount 0 would fit" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                size_t cpu[100] = { 77, 77, 77 };
                struct err e = { 0 };
                enum place_limit l = place_choose(&node, &t[i].w, cpu, &e);

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
        struct err e = { 0 };

        (void) state;
        n.cpu_overcommit = n.memory_overcommit = n.disk_overcommit = 2;
        assert_int_equal(place_choose(&n, &w, cpu, &e), PLACE_OK);
        assert_int_equal(cpu[0], 77); /* shares: no CPU is named */
        w.vcpu = 7;
        assert_int_equal(place_choose(&n, &w, cpu, &e), PLACE_CPU);
        assert_non_null(strstr(e.msg, "cpu_overcommit 2"));
        n.vcpu_taken = 100; /* more is sold than there is: the operator took CPUs away */
        w.vcpu = 1;
        assert_int_equal(place_choose(&n, &w, cpu, &e), PLACE_CPU);
        assert_non_null(strstr(e.msg, "0 free"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_choose),
                cmocka_unit_test(test_overcommit),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
