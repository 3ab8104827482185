/* test_gpud.c - what vmm-gpu works out by itself: partitions of a fabric, names of MIG profiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "gpu/gpud.h"

static bool has(const uint64_t *sets, size_t n, uint64_t set)
{
        for (size_t i = 0; i < n; i++)
                if (sets[i] == set)
                        return true;
        return false;
}

static void test_partitions(void **state)
{
        static const struct {
                uint64_t joined;
                size_t n;
                uint64_t in[4], out[2];
        } t[] = {
                { 0, 0, { 0 }, { 1 } },
                { 0x10, 0, { 0 }, { 0x10 } }, /* nothing to divide */
                { 0xff, 15, { 0x01, 0x0c, 0xf0, 0xff }, { 0x06, 0x3c } },
                { 0xff0, 15, { 0x10, 0xc0, 0xf00, 0xff0 }, { 0x18, 0x0f } },
                { 0x0f, 7, { 0x08, 0x03, 0x0c, 0x0f }, { 0x06, 0x07 } },
                { 0xffff, 31, { 0x8000, 0xff00, 0x00f0, 0xffff }, { 0x0ff0, 0x7fff } },
                /* one is missing: what is left can be divided as far as it goes */
                { 0x7f, 12, { 0x40, 0x30, 0x0f, 0x7f }, { 0x60, 0x70 } },
                { UINT64_MAX, 121, { 1, 1ULL << 63, 0xffULL << 56, UINT64_MAX }, { 0x6, 0xffff } },
        };
        uint64_t sets[2 * GPU_MAX];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                size_t n = gpud_partitions(t[i].joined, sets);

                if (n != t[i].n)
                        fail_msg("row %zu: %zu", i, n);
                for (size_t k = 0; k < NELEM(t[i].in); k++)
                        if (t[i].in[k] && !has(sets, n, t[i].in[k]))
                                fail_msg("row %zu: no %zu", i, k);
                for (size_t k = 0; k < NELEM(t[i].out); k++)
                        if (t[i].out[k] && has(sets, n, t[i].out[k]))
                                fail_msg("row %zu: too much %zu", i, k);
        }
}

#define MIB (1ULL << 20)

/* Sizes as the driver reports them. */
static void test_mig_profile(void **state)
{
        static const struct {
                uint64_t gpu_mib;
                uint32_t gpu_slices, compute_slices;
                uint64_t memory_mib;
                const char *want;
        } t[] = {
                { 40960, 1, 1, 4864, "1g.5gb" },      { 40960, 2, 2, 9856, "2g.10gb" },
                { 40960, 3, 3, 19968, "3g.20gb" },    { 40960, 7, 7, 40192, "7g.40gb" },
                { 81920, 1, 1, 9728, "1g.10gb" },     { 81920, 1, 1, 19968, "1g.20gb" },
                { 81920, 4, 4, 40448, "4g.40gb" },    { 81920, 7, 7, 81069, "7g.80gb" },
                { 81920, 2, 1, 19968, "1c.2g.20gb" }, { 143771, 1, 1, 16384, "1g.18gb" },
                { 0, 1, 1, 5000, "1g.0gb" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                const struct nvml_attributes a = { .gpu_slices = t[i].gpu_slices,
                                                   .compute_slices = t[i].compute_slices,
                                                   .memory_mib = t[i].memory_mib };
                char text[32];

                gpud_mig_profile(&a, t[i].gpu_mib * MIB, text);
                if (strcmp(text, t[i].want) != 0)
                        fail_msg("row %zu: %s", i, text);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_partitions),
                cmocka_unit_test(test_mig_profile),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
