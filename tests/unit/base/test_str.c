/* test_str.c - strings, numbers with limits, shell words, environment vectors. */
#include "base/str.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_u64(void **state)
{
        static const struct {
                const char *in;
                uint64_t min, max;
                int r;
                uint64_t v;
        } t[] = {
                { "0", 0, 10, 0, 0 },
                { "10", 0, 10, 0, 10 },
                { "11", 0, 10, -ERANGE, 0 },
                { "4", 5, 10, -ERANGE, 0 },
                { "", 0, 10, -EINVAL, 0 },
                { NULL, 0, 10, -EINVAL, 0 },
                { "-1", 0, 10, -EINVAL, 0 },
                { "+1", 0, 10, -EINVAL, 0 },
                { " 1", 0, 10, -EINVAL, 0 },
                { "1 ", 0, 10, -EINVAL, 0 },
                { "0x1", 0, 10, -EINVAL, 0 },
                { "18446744073709551615", 0, UINT64_MAX, 0, UINT64_MAX },
                { "18446744073709551616", 0, UINT64_MAX, -ERANGE, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t got = 7777; /* canary: failure must not write */
                int r = str_u64(t[i].in, t[i].min, t[i].max, &got);

                if (r != t[i].r || got != (r < 0 ? 7777 : t[i].v))
                        fail_msg("row %zu: r=%d got=%llu", i, r, (unsigned long long) got);
        }
}

static void test_u64_prefix(void **state)
{
        static const struct {
                const char *in;
                unsigned base;
                int r;
                uint64_t v;
        } t[] = {
                { "12 kB", 10, 0, 12 },
                { "\t 7\n8", 10, 0, 7 },
                { "0000000180004a07", 16, 0, 0x180004a07 },
                { "fF", 16, 0, 255 },
                { "1f", 10, 0, 1 },
                { "ffffffffffffffff", 16, 0, UINT64_MAX },
                { "10000000000000000", 16, -ERANGE, 0 },
                { "18446744073709551616", 10, -ERANGE, 0 },
                { "", 10, -EINVAL, 0 },
                { "f", 10, -EINVAL, 0 },
                { "-1", 10, -EINVAL, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t got = 7777;
                int r = str_u64_prefix(t[i].in, t[i].base, &got);

                if (r != t[i].r || got != (r < 0 ? 7777 : t[i].v))
                        fail_msg("row %zu: r=%d got=%llu", i, r, (unsigned long long) got);
        }
}

static void test_units(void **state)
{
        static const struct {
                const char *in;
                int r_us, r_bytes;
                uint64_t us, bytes;
        } t[] = {
                { "5", 0, 0, 5000000, 5 },
                { "500ms", 0, -EINVAL, 500000, 0 },
                { "5m", 0, -EINVAL, 300000000, 0 },
                { "2h", 0, -EINVAL, 7200000000, 0 },
                { "20G", -EINVAL, 0, 0, 20ULL << 30 },
                { "1K", -EINVAL, 0, 0, 1024 },
                { "G", -EINVAL, -EINVAL, 0, 0 },
                { "-5", -EINVAL, -EINVAL, 0, 0 },
                { "99999999999999T", -EINVAL, -ERANGE, 0, 0 },
                { "999999999999999999d", -ERANGE, -EINVAL, 0, 0 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t us = 7, bytes = 7;
                int a = str_duration_us(t[i].in, &us), b = str_bytes(t[i].in, &bytes);

                if (a != t[i].r_us || us != (a < 0 ? 7 : t[i].us))
                        fail_msg("'%s': duration r=%d %llu", t[i].in, a, (unsigned long long) us);
                if (b != t[i].r_bytes || bytes != (b < 0 ? 7 : t[i].bytes))
                        fail_msg("'%s': bytes r=%d %llu", t[i].in, b, (unsigned long long) bytes);
        }
}

static void test_shell(void **state)
{
        static const struct {
                const char *in, *out; /* words joined by '|'; NULL: refused */
        } t[] = {
                { "", "" },
                { "   ", "" },
                { "python run.py", "python|run.py" },
                { "bash -c 'echo  \"a b\"; x'", "bash|-c|echo  \"a b\"; x" },
                { "a\\ b c", "a b|c" },
                { "\"a\\\"b\" ''", "a\"b|" },
                { "a'b'\"c\"d", "abcd" },
                { "x \"\\n\"", "x|\\n" },
                { "open 'quote", NULL },
                { "open \"quote", NULL },
                { "tab\there\nnewline", "tab|here|newline" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strv_free) char **v = NULL;
                AUTO(strbuf_done) struct strbuf b = { 0 };
                int r = strv_split_shell(t[i].in, 3, &v, NULL);

                assert_int_equal(r, t[i].out ? 0 : -EINVAL);
                if (!t[i].out) {
                        assert_null(v);
                        continue;
                }
                for (size_t k = 0; v[k]; k++)
                        strbuf_fmt(&b, "%s%s", k ? "|" : "", v[k]);
                assert_string_equal(b.s ? b.s : "", t[i].out);
        }
}

static void test_shell_max(void **state)
{
        AUTO(strv_free) char **v = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(strv_split_shell("a b c", 2, &v, &e), -E2BIG);
        assert_string_equal(e.msg, "more than 2 words");
        assert_null(v);
        assert_int_equal(strv_split_shell(" a b ", 2, &v, &e), 0);
        assert_int_equal(strv_len(v), 2);
}

static void test_env(void **state)
{
        AUTO(strv_free) char **v = NULL;

        (void) state;
        assert_int_equal(strv_env_set(&v, "A", "1"), 0);
        assert_int_equal(strv_env_set(&v, "AB", "2"), 0);
        assert_int_equal(strv_env_set(&v, "A", "x=y"), 0);
        assert_int_equal(strv_len(v), 2);
        assert_string_equal(strv_env_get(v, "A"), "x=y");
        assert_string_equal(strv_env_get(v, "AB"), "2");
        assert_null(strv_env_get(v, "B"));
}

static void test_strbuf(void **state)
{
        struct strbuf b = { 0 };
        AUTO(free) char *s = NULL;

        (void) state;
        for (int i = 0; i < 1000; i++)
                strbuf_fmt(&b, "%d,", i);
        strbuf_drop_front(&b, 2);
        assert_true(strncmp(b.s, "1,2,", 4) == 0);
        s = strbuf_take(&b);
        assert_int_equal(strlen(s), 3890 - 2);
        free(s);
        s = strbuf_take(&b);
        assert_string_equal(s, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_u64),       cmocka_unit_test(test_u64_prefix),
                cmocka_unit_test(test_units),     cmocka_unit_test(test_shell),
                cmocka_unit_test(test_shell_max), cmocka_unit_test(test_env),
                cmocka_unit_test(test_strbuf),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
