/* test_toml.c - reading and replacing top-level strings (src/cli/toml.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "base/str.h"
#include "cli/toml.h"

static void test_get(void **state)
{
        static const struct {
                const char *text;
                int r;
                const char *value;
        } t[] = {
                { "", 0, NULL },
                { "k = \"v\"", 0, "v" },
                { "k=\"v\"\n", 0, "v" },
                { "  k\t= 'lit\\n' # note\r\n", 0, "lit\\n" },
                { "# k = \"no\"\nk = \"yes\"\nk = \"late\"\n", 0, "yes" },
                { "kk = \"no\"\n", 0, NULL },
                { "\"k\" = \"quoted\"\n", 0, "quoted" },
                { "k = \"\"", 0, "" },
                { "k = \"a\\\"b\\\\c\\t\\u00e9\\U0001F600\"", 0, "a\"b\\c\t\u00e9\U0001F600" },
                { "[t]\nk = \"inside\"\n", 0, NULL },
                { "k = 12\n", -EINVAL, NULL },
                { "k = \"open\n", -EINVAL, NULL },
                { "k = \"v\" rest\n", -EINVAL, NULL },
                { "k = \"bad\\q\"\n", -EINVAL, NULL },
                { "k = \"\\u12\"\n", -EINVAL, NULL },
                { "k = \"\\ud800\"\n", -EINVAL, NULL },
                { "k = \"\\u0000\"\n", -EINVAL, NULL },
                { "k = \"x\\\"", -EINVAL, NULL },
                { "k =", -EINVAL, NULL },
                { "k", 0, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *got = NULL;
                struct err e = { 0 };
                int r = toml_get(t[i].text, "k", &got, &e);

                if (r != t[i].r || !str_eq(got, t[i].value))
                        fail_msg("row %zu '%s': %d '%s' %s", i, t[i].text, r, got ? got : "NULL",
                                 e.msg);
        }
}

static void test_set(void **state)
{
        static const struct {
                const char *text, *value, *want;
        } t[] = {
                { NULL, "v", "k = \"v\"\n" },
                { "", "v", "k = \"v\"\n" },
                { "a = \"1\"", "v", "a = \"1\"\nk = \"v\"\n" },
                { "# c\nk = 'old' # gone\nz = \"2\"\n", "v", "# c\nk = \"v\"\nz = \"2\"\n" },
                { "k = 1\nk = 2\n", "v", "k = \"v\"\n" },
                { "[t]\nk = \"in\"\n", "v", "k = \"v\"\n[t]\nk = \"in\"\n" },
                { NULL, "a\"b\\c\n", "k = \"a\\\"b\\\\c\\u000A\"\n" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *got = NULL, *back = NULL;

                assert_int_equal(toml_set(t[i].text, "k", t[i].value, &got), 0);
                assert_string_equal(got, t[i].want);
                assert_int_equal(toml_get(got, "k", &back, NULL), 0);
                assert_string_equal(back, t[i].value);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_get),
                cmocka_unit_test(test_set),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
