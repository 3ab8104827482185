/* test_out.c - tables, sizes and the progress line (src/cli/out.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/str.h"
#include "cli/out.h"

static void test_table(void **state)
{
        static const char *const headers[] = { "ID", "LONG NAME" };
        static const char *const cells[] = { "abcd", "x", "\u00e9", "a\tb\033[1mc\n", NULL, "" };
        AUTO(table_free) struct table *t = NULL;
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) state;
        assert_int_equal(table_new(headers, 2, &t), 0);
        for (size_t i = 0; i < NELEM(cells); i++)
                assert_int_equal(table_cell(t, cells[i]), 0);
        assert_int_equal(table_text(t, &b), 0);
        assert_string_equal(b.s, "ID  \tLONG NAME\t\n"
                                 "abcd\tx        \t\n"
                                 "\u00e9   \ta?b?[1mc?\t\n"
                                 "    \t         \t\n");
}

static void test_size(void **state)
{
        static const struct {
                uint64_t bytes;
                const char *want;
        } t[] = {
                { 0, "0 B" },
                { 999, "999 B" },
                { 1000, "1.0 kB" },
                { 1500, "1.5 kB" },
                { 999949, "999.9 kB" },
                { 999950, "1.0 MB" },
                { 77300000, "77.3 MB" },
                { 1000000000, "1.0 GB" },
                { UINT64_MAX, "18.4 EB" },
        };
        char buf[16];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++)
                assert_string_equal(size_text(t[i].bytes, buf), t[i].want);
}

static void test_progress(void **state)
{
        static const struct {
                size_t width;
                uint64_t done, total;
                bool bytes;
                const char *want;
        } t[] = {
                { 60, 50, 100, false, "pulling [####################....................]  50%" },
                { 60, 0, 0, false, "pulling" },
                { 60, 1500, 0, true, "pulling 1.5 kB" },
                { 60, 500, 1000, true,
                  "pulling [###############...............]  50% 500 B / 1.0 kB" },
                { 25, 50, 100, false, "pulling [#####.....]  50%" },
                { 24, 50, 100, false, "pulling  50%" },
                { 22, 50, 100, false, "pulling  50%" },
                { 10, 50, 100, false, "pulling  5" },
                { 3, 50, 100, false, "pul" },
                { 0, 50, 100, false, "" },
                { 60, 200, 100, false, "pulling [########################################] 100%" },
                { 9999, 1, 3, false, "pulling [#############...........................]  33%" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char buf[256];

                (void) progress_text(t[i].width, "pulling", t[i].done, t[i].total, t[i].bytes, buf);
                assert_true(strlen(buf) <= t[i].width);
                if (!str_eq(buf, t[i].want))
                        fail_msg("row %zu: '%s'", i, buf);
        }
}

/* Every width, every value: fits, and never runs over its buffer. */
static void test_progress_fits(void **state)
{
        static const uint64_t totals[] = { 0, 1, 7, 1000, UINT64_MAX };
        char buf[256];

        (void) state;
        for (size_t w = 0; w < 300; w++)
                for (size_t i = 0; i < NELEM(totals); i++)
                        for (uint64_t done = 0; done < 3; done++)
                                assert_true(
                                        strlen(progress_text(w, "verifying", totals[i] / 2 * done,
                                                             totals[i], w % 2, buf)) <= w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_table),
                cmocka_unit_test(test_size),
                cmocka_unit_test(test_progress),
                cmocka_unit_test(test_progress_fits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
