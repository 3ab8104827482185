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

#define MIB (1024 * 1024ULL)
#define GIB (1024 * MIB)

static void test_progress(void **state)
{
        static const struct {
                size_t width;
                struct progress_state s;
                const char *want;
        } t[] = {
                { 60,
                  { "pulling", 50, 100, 0, false },
                  "pulling [####################....................]  50%" },
                { 60, { "pulling", 0, 0, 0, false }, "pulling" },
                { 60, { "pulling", 0, 0, 7, true }, "pulling" },
                { 60, { "pulling", 1536, 0, 0, true }, "pulling 1.5 KiB" },
                { 60, { "pulling", 1536, 0, 2 * MIB, true }, "pulling 1.5 KiB 2.0 MiB/s" },
                { 25, { "pulling", 50, 100, 0, false }, "pulling [#####.....]  50%" },
                { 24, { "pulling", 50, 100, 0, false }, "pulling  50%" },
                { 22, { "pulling", 50, 100, 0, false }, "pulling  50%" },
                { 10, { "pulling", 50, 100, 0, false }, "pulling  5" },
                { 3, { "pulling", 50, 100, 0, false }, "pul" },
                { 0, { "pulling", 50, 100, 0, false }, "" },
                { 60,
                  { "pulling", 200, 100, 0, false },
                  "pulling [########################################] 100%" },
                { 9999,
                  { "pulling", 1, 3, 0, false },
                  "pulling [#############...........................]  33%" },
                { 60,
                  { "p\033[2J\r", 1, 2, 0, false },
                  "p?[2J? [####################....................]  50%" },
                { 39,
                  { "downloading", 123 * MIB, GIB + GIB / 5, 45 * MIB, true },
                  "downloading [#.........]  10% 45 MiB/s" },
                { 49,
                  { "downloading", 123 * MIB, GIB + GIB / 5, 45 * MIB, true },
                  "downloading [#..........]  10% 123 MiB of 1.2 GiB" },
                { 79,
                  { "downloading", 123 * MIB, GIB + GIB / 5, 45 * MIB, true },
                  "downloading [##..................]  10% 123 MiB of 1.2 GiB 45 MiB/s ETA 25s" },
                /* the bar stays as long as it was when numbers grow, come and go */
                { 79,
                  { "downloading", 5 * MIB / 2, GIB + GIB / 5, 0, true },
                  "downloading [....................]   0% 2.5 MiB of 1.2 GiB" },
                { 79,
                  { "downloading", 1001 * MIB, GIB + GIB / 5, 1000 * 1024, true },
                  "downloading [################....]  81% 1.0 GiB of 1.2 GiB 1.0 MiB/s ETA 3m54s" },
                { 199,
                  { "downloading", GIB, 4 * GIB, 200 * 1024, true },
                  "downloading [##########..............................]  25% 1.0 GiB of 4.0 GiB "
                  "200 KiB/s ETA 4h22m" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char buf[PROGRESS_BYTES];

                (void) progress_text(t[i].width, &t[i].s, buf);
                assert_true(strlen(buf) <= t[i].width);
                if (!str_eq(buf, t[i].want))
                        fail_msg("row %zu: '%s'", i, buf);
        }
}

static void test_progress_line(void **state)
{
        static const struct {
                struct progress_state s;
                const char *want;
        } t[] = {
                { { "waiting", 0, 0, 0, true }, "waiting" },
                { { "pulling", 43, 100, 0, false }, "pulling 43%" },
                { { "pulling", 3, 100, 0, false }, "pulling 3%" },
                { { "pulling", 100, 100, 9, true }, "pulling 100% 100 B of 100 B 9 B/s" },
                { { "pulling", 10 * MIB, 100 * MIB, MIB, true },
                  "pulling 10% 10 MiB of 100 MiB 1.0 MiB/s ETA 1m30s" },
                { { "pulling", 999, 1024000, 0, true }, "pulling 0% 999 B of 1.0 MiB" },
                { { "pulling", 1000, UINT64_MAX, 1, true }, "pulling 0% 1.0 KiB of 16 EiB 1 B/s" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char buf[PROGRESS_BYTES];

                (void) progress_line(&t[i].s, buf);
                if (!str_eq(buf, t[i].want))
                        fail_msg("row %zu: '%s'", i, buf);
        }
}

/* Every width, every value: fits, and never runs over its buffer. */
static void test_progress_fits(void **state)
{
        static const uint64_t totals[] = { 0, 1, 7, 1000, 1023 * MIB, UINT64_MAX };
        char buf[PROGRESS_BYTES], many[100];

        (void) state;
        memset(many, 'x', sizeof many - 1);
        many[sizeof many - 1] = '\0';
        for (size_t w = 0; w < 300; w++)
                for (size_t i = 0; i < NELEM(totals) * 3 * 2; i++) {
                        uint64_t total = totals[i / 6];
                        struct progress_state s = { i % 2 ? "verifying" : many,
                                                    total / 2 * (i / 2 % 3), total, total / 7000,
                                                    w % 3 };

                        assert_true(strlen(progress_text(w, &s, buf)) <= w);
                        assert_true(strlen(progress_line(&s, buf)) < sizeof buf);
                }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_table),         cmocka_unit_test(test_size),
                cmocka_unit_test(test_progress),      cmocka_unit_test(test_progress_line),
                cmocka_unit_test(test_progress_fits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
