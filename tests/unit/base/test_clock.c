/* test_clock.c - RFC 3339 in and out. */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/mem.h"

static void test_format(void **state)
{
        static const struct {
                uint64_t us;
                const char *text;
        } t[] = {
                { 0, "1970-01-01T00:00:00.000000Z" },
                { 1795359287123456, "2026-11-22T14:54:47.123456Z" },
                { 951782399999999, "2000-02-28T23:59:59.999999Z" },
                { 951782400000000, "2000-02-29T00:00:00.000000Z" },
                { 253402300799000001, "9999-12-31T23:59:59.000001Z" },
        };
        char buf[32];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t back = 0;

                clock_format(t[i].us, buf, sizeof buf);
                assert_string_equal(buf, t[i].text);
                assert_int_equal(clock_parse(buf, &back), 0);
                assert_int_equal(back, t[i].us);
        }
}

static void test_parse(void **state)
{
        static const struct {
                const char *in;
                int r;
                uint64_t us;
        } t[] = {
                { "2026-11-22", 0, 1795305600000000 },
                { "2026-11-22T14:54:47Z", 0, 1795359287000000 },
                { "2026-11-22t14:54:47z", 0, 1795359287000000 },
                { "2026-11-22 14:54:47", 0, 1795359287000000 },
                { "2026-11-22T16:24:47+01:30", 0, 1795359287000000 },
                { "2026-11-22T09:54:47-05:00", 0, 1795359287000000 },
                { "2026-11-22T14:54:47.5Z", 0, 1795359287500000 },
                { "2026-11-22T14:54:47.1234567899Z", 0, 1795359287123456 },
                { "2024-02-29", 0, 1709164800000000 },
                { "", -EINVAL, 0 },
                { "tomorrow", -EINVAL, 0 },
                { "2026-13-01", -EINVAL, 0 },
                { "2026-02-30", -EINVAL, 0 },
                { "2026-04-31T00:00:00Z", -EINVAL, 0 },
                { "2026-11-22T", -EINVAL, 0 },
                { "2026-11-22T25:00:00Z", -EINVAL, 0 },
                { "2026-11-22T14:54:47+0130", -EINVAL, 0 },
                { "2026-11-22T14:54:47+24:00", -EINVAL, 0 },
                { "2026-11-22T14:54:47+ 1:30", -EINVAL, 0 },
                { "2026-11-22T14:54:47+-1:30", -EINVAL, 0 },
                { "2026-11-22T14:54:47Zx", -EINVAL, 0 },
                { "2026-11-22x", -EINVAL, 0 },
                { "1969-12-31", -EINVAL, 0 },
                { "1970-01-01T00:00:00+00:01", -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t got = 7777;
                int r = clock_parse(t[i].in, &got);

                if (r != t[i].r || got != (r < 0 ? 7777 : t[i].us))
                        fail_msg("row %zu '%s': r=%d %llu", i, t[i].in, r,
                                 (unsigned long long) got);
        }
}

static void test_running(void **state)
{
        uint64_t a = clock_mono_us(), b = clock_mono_us();

        (void) state;
        assert_true(b >= a && a > 0);
        assert_true(clock_wall_us() > 1577836800ULL * US_PER_S);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_format),
                cmocka_unit_test(test_parse),
                cmocka_unit_test(test_running),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
