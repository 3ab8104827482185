/* test_gpu_type.c - which type a GPU is of, and what a wish means. */
#include "model/gpu_type.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/str.h"

/* A GPU by the driver's name and profile; heap strings are not needed for reading. */
static struct gpu gpu(const char *name, const char *profile, bool divided)
{
        return (struct gpu){ .name = (char *) (uintptr_t) name,
                             .mig_profile = (char *) (uintptr_t) profile,
                             .mig_mode = divided,
                             .memory_mib = 24564,
                             .state = GS_OK };
}

static void test_types(void **state)
{
        struct gpu list[] = {
                gpu("NVIDIA A100-SXM4-80GB", NULL, false),
                gpu("NVIDIA Frobnicator 7", NULL, false),
                gpu("A100-SXM4-80GB", NULL, false), /* as older drivers say it */
                gpu("NVIDIA A100-SXM4-80GB", NULL, true),
                gpu("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "1g.10gb", false),
                gpu("NVIDIA A100-SXM4-80GB", "1g.10gb", false),
                gpu("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "3g.40gb", false),
        };
        struct gpu_fleet f = { .gpus = list, .n = NELEM(list) };
        static const struct {
                const char *id, *display;
                uint32_t gib, cores;
                uint64_t members;
        } want[] = {
                { "NVIDIA A100-SXM4-80GB", "A100 SXM", 80, 6912, 0x05 },
                { "NVIDIA Frobnicator 7", "Frobnicator 7", 24, 0, 0x02 },
                { "NVIDIA A100-SXM4-80GB 1g.10gb", "A100 SXM 1g.10gb", 10, 0, 0x30 },
                { "NVIDIA A100-SXM4-80GB 3g.40gb", "A100 SXM 3g.40gb", 40, 0, 0x40 },
        };
        struct gpu_types t;

        (void) state;
        assert_int_equal(gpu_types_init(&f, &t, NULL), 0);
        assert_int_equal(t.n, NELEM(want));
        for (size_t i = 0; i < NELEM(want); i++) {
                assert_string_equal(t.list[i].id, want[i].id);
                assert_string_equal(t.list[i].display, want[i].display);
                assert_int_equal(t.list[i].memory_gib, want[i].gib);
                assert_int_equal(t.list[i].cuda_cores, want[i].cores);
                assert_int_equal(t.list[i].members, want[i].members);
        }
        assert_null(gpu_types_of(&t, 3)); /* divided: not for rent */
        assert_ptr_equal(gpu_types_of(&t, 5), &t.list[2]);
        assert_ptr_equal(gpu_types_find(&t, "nvidia a100-sxm4-80gb 3g.40gb"), &t.list[3]);
        assert_null(gpu_types_find(&t, "NVIDIA A100"));
        gpu_types_done(&t);
}

static void test_wishes(void **state)
{
        struct gpu list[] = {
                gpu("NVIDIA A100-SXM4-80GB", NULL, false),         /* 01 */
                gpu("NVIDIA A100 80GB PCIe", NULL, false),         /* 02 */
                gpu("NVIDIA A10", NULL, false),                    /* 04 */
                gpu("NVIDIA GeForce RTX 4080", NULL, false),       /* 08 */
                gpu("NVIDIA GeForce RTX 4080 SUPER", NULL, false), /* 10 */
                gpu("NVIDIA Frobnicator 7", NULL, false),          /* 20 */
                gpu("NVIDIA A100-SXM4-80GB", "1g.10gb", false),    /* 40 */
                gpu("NVIDIA Frobnicator 7", "1g.10gb", false),     /* 80 */
                gpu("NVIDIA A100-SXM4-80GB", "1g.10gb+me", false), /* 100 */
                gpu("NVIDIA H200", NULL, false),                   /* 200 */
                gpu("NVIDIA H200 NVL", NULL, false),               /* 400 */
                gpu("Tesla T4", NULL, false),                      /* 800 */
                gpu("NVIDIA GeForce RTX 6070", NULL, false),       /* 1000: not in the table */
        };
        struct gpu_fleet f = { .gpus = list, .n = NELEM(list) };
        static const struct {
                const char *wish;
                uint64_t set;
        } t[] = {
                { "NVIDIA A100-SXM4-80GB", 0x01 },
                { "nvidia a100 sxm4 80gb", 0x01 },
                { "  A100-SXM4-80GB  ", 0x01 },
                { "A100 SXM", 0x01 },
                { "A100 PCIe", 0x02 },
                { "NVIDIA A100", 0x03 },
                { "a100", 0x03 },
                { "A10", 0x04 },
                { "A1", 0 },
                { "A100 S", 0 },
                { "RTX 4080", 0x08 },
                { "NVIDIA GeForce RTX 4080", 0x08 },
                { "RTX 4080 SUPER", 0x10 },
                { "4080", 0x08 },
                { "NVIDIA 4080", 0x08 },
                { "nvidia 4080-super", 0x10 },
                { "GeForce 4080", 0 },
                { "RTX", 0 },
                { "GeForce RTX", 0 },
                { "408", 0 },
                { "6070", 0x1000 },
                { "GeForce RTX 6070", 0x1000 },
                { "Tesla T4", 0x800 },
                { "NVIDIA Frobnicator 7", 0x20 },
                { "frobnicator 7", 0x20 },
                { "Frobnicator", 0 },
                { "NVIDIA A100 1g.10gb", 0x40 },
                { "A100 1G.10GB", 0x40 },
                { "NVIDIA A100-SXM4-80GB MIG 1g.10gb", 0x40 },
                { "A100 SXM 1g.10gb", 0x40 },
                { "A100 1g.10gb+me", 0x100 },
                { "A100 1g.1gb", 0 },
                { "A100 2g.20gb", 0 },
                { "A100 MIG", 0 },
                { "1g.10gb", 0 },
                { "Frobnicator 7 1g.10gb", 0x80 },
                { "Frobnicator 7 MIG 1g.10gb", 0x80 },
                { "NVIDIA H200", 0x200 },
                { "H200 NVL", 0x400 },
                { "NVIDIA T4", 0x800 },
                { "A100 SXM (simulated)", 0x01 },
                { "A100 1g.10gb (simulated)", 0x40 },
                { "(simulated)", 0 },
                { "any", 0x1e3f },
                { "", 0x1e3f },
                { NULL, 0x1e3f },
                { "NVIDIA", 0 },
                { "NVIDIA ", 0 },
                { "-", 0 },
        };
        struct gpu_types types;

        (void) state;
        assert_int_equal(gpu_types_init(&f, &types, NULL), 0);
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t got = gpu_types_match(&types, t[i].wish);

                if (got != t[i].set)
                        fail_msg("'%s': %llx", t[i].wish ? t[i].wish : "NULL",
                                 (unsigned long long) got);
        }
        gpu_types_done(&types);
}

/* Every product is found by its own names, and no two have the same id or display name. */
static void test_table(void **state)
{
        (void) state;
        for (size_t i = 0; i < gpu_products_n; i++) {
                const struct gpu_product *p = &gpu_products[i];

                assert_ptr_equal(gpu_product_find(p->id), p);
                assert_true(p->memory_gib > 0 && p->cuda_cores > 0);
                for (size_t k = 0; k < i; k++)
                        assert_string_not_equal(gpu_products[k].display, p->display);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_types),
                cmocka_unit_test(test_wishes),
                cmocka_unit_test(test_table),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
