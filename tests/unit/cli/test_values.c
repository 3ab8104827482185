/* test_values.c - option values into request fields (src/cli/values.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "cli/values.h"

static void test_env(void **state)
{
        static const struct {
                const char *in, *want; /* NULL: refused */
        } t[] = {
                { "A=1", "[{\"key\":\"A\",\"value\":\"1\"}]" },
                { "A=", "[{\"key\":\"A\",\"value\":\"\"}]" },
                { "A=1,B=2", "[{\"key\":\"A\",\"value\":\"1\"},{\"key\":\"B\",\"value\":\"2\"}]" },
                { "A=1,2,3", "[{\"key\":\"A\",\"value\":\"1,2,3\"}]" },
                { "A=b=c", "[{\"key\":\"A\",\"value\":\"b=c\"}]" },
                { "A=x,,B=", "[{\"key\":\"A\",\"value\":\"x,\"},{\"key\":\"B\",\"value\":\"\"}]" },
                { "_a1=x", "[{\"key\":\"_a1\",\"value\":\"x\"}]" },
                { "A", NULL },
                { "=1", NULL },
                { "1A=1", NULL },
                { "A-B=1", NULL },
                { "", NULL },
                { "A=\xff", NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(json_put) json_t *input = json_object();
                AUTO(free) char *text = NULL;
                struct cli c = { 0 };
                int r;

                c.opt[OPT_ENV].given = true;
                assert_int_equal(strv_push(&c.opt[OPT_ENV].list, t[i].in), 0);
                r = values_env(&c, OPT_ENV, input, NULL);
                cli_done(&c);
                if (!t[i].want) {
                        assert_int_equal(r, -EINVAL);
                        assert_null(json_object_get(input, "env"));
                        continue;
                }
                assert_int_equal(r, 0);
                text = jsonx_dump(json_object_get(input, "env"));
                assert_string_equal(text, t[i].want);
        }
}

static void test_split(void **state)
{
        static const struct {
                const char *in;
                size_t n;
                const char *first, *last;
        } t[] = {
                { NULL, 0, NULL, NULL },
                { "", 0, NULL, NULL },
                { "NVIDIA A100", 1, "NVIDIA A100", "NVIDIA A100" },
                { "NVIDIA A100, NVIDIA H100 ,L4", 3, "NVIDIA A100", "L4" },
                { ",,a,,", 1, "a", "a" },
                { "  ,b", 1, "b", "b" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strv_free) char **v = NULL;

                assert_int_equal(values_split(t[i].in, &v, NULL), 0);
                assert_int_equal(strv_len(v), t[i].n);
                if (t[i].n == 0)
                        continue;
                assert_string_equal(v[0], t[i].first);
                assert_string_equal(v[t[i].n - 1], t[i].last);
        }
}

static void test_fields(void **state)
{
        static const struct field_row rows[] = {
                { OPT_IMAGE_NAME, "imageName" },
                { OPT_MEM, "minMemoryInGb" },
                { OPT_COST, "deployCost" },
                { OPT_START_SSH, "startSsh" },
        };
        AUTO(json_put) json_t *all = json_object(), *sparse = json_object();
        char *argv[] = { (char[]){ "create" }, (char[]){ "cluster" }, (char[]){ "--startSSH" },
                         NULL };
        struct cli c = { 0 };

        (void) state;
        assert_int_equal(cli_parse(&c, 3, argv, NULL), 0);
        assert_int_equal(values_json(&c, rows, NELEM(rows), false, all, NULL), 0);
        assert_int_equal(values_json(&c, rows, NELEM(rows), true, sparse, NULL), 0);
        assert_int_equal(json_object_size(all), 2); /* the memory's preset, and what was given */
        assert_int_equal(json_integer_value(json_object_get(all, "minMemoryInGb")), 20);
        assert_int_equal(json_object_size(sparse), 1);
        assert_true(json_is_true(json_object_get(sparse, "startSsh")));
        cli_done(&c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_env),
                cmocka_unit_test(test_split),
                cmocka_unit_test(test_fields),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
