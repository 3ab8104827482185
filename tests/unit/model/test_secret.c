/* test_secret.c - placeholders for secrets: what is one, and what takes its place. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "base/str.h"
#include "model/limits.h"
#include "model/secret.h"

static char *const secrets[] = { (char[]){ "hf=abc" },
                                 (char[]){ "db.pass-1=p{{ TENSORONE_SECRET_hf }}" },
                                 (char[]){ "empty=" }, NULL };

static char **env1(char *s)
{
        static char *v[2];

        v[0] = s;
        v[1] = NULL;
        return v;
}

static void test_expand(void **state)
{
        static const struct {
                const char *in, *out;
        } t[] = {
                { "A=1", "A=1" },
                { "A={{ TENSORONE_SECRET_hf }}", "A=abc" },
                { "A={{ RUNPOD_SECRET_hf }}", "A=abc" },
                { "A={{RUNPOD_SECRET_hf}}", "A=abc" },
                { "A={{\tRUNPOD_SECRET_hf  }}", "A=abc" },
                { "A=x{{ RUNPOD_SECRET_hf }}y{{ TENSORONE_SECRET_hf }}z", "A=xabcyabcz" },
                /* a value is not looked at again */
                { "A={{ RUNPOD_SECRET_db.pass-1 }}", "A=p{{ TENSORONE_SECRET_hf }}" },
                { "A={{ RUNPOD_SECRET_empty }}", "A=" },
                { "A={{{{ RUNPOD_SECRET_hf }}}}", "A={{abc}}" },
                /* what only looks like one */
                { "A={{ SECRET_hf }}", "A={{ SECRET_hf }}" },
                { "A={ RUNPOD_SECRET_hf }", "A={ RUNPOD_SECRET_hf }" },
                { "A={{ RUNPOD_SECRET_hf }", "A={{ RUNPOD_SECRET_hf }" },
                { "A={{ RUNPOD_SECRET_ }}", "A={{ RUNPOD_SECRET_ }}" },
                { "A={{ runpod_secret_hf }}", "A={{ runpod_secret_hf }}" },
                { "A={{\nRUNPOD_SECRET_hf }}", "A={{\nRUNPOD_SECRET_hf }}" },
                { "A={{", "A={{" },
                /* in a name there is none */
                { "{{RUNPOD_SECRET_hf}}=1", "{{RUNPOD_SECRET_hf}}=1" },
                { "{{RUNPOD_SECRET_hf}}", "{{RUNPOD_SECRET_hf}}" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *in = strdup(t[i].in);
                AUTO(secrets_free) char **got = NULL;

                assert_int_equal(secret_expand(env1(in), secrets, SECRET_FAIL, &got, NULL), 0);
                assert_string_equal(got[0], t[i].out);
                assert_null(got[1]);
        }
}

static void test_missing(void **state)
{
        char a[] = "A={{ RUNPOD_SECRET_nope }}", b[] = "B=1";
        char *env[] = { a, b, NULL }, **got = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(secret_expand(env, secrets, SECRET_FAIL, &got, &e), -ENOENT);
        assert_null(got);
        assert_string_equal(e.msg, "env: A names the secret nope, which is not there");
        assert_int_equal(secret_expand(env, NULL, SECRET_LEAVE_OUT, &got, &e), 0);
        assert_string_equal(got[0], "B=1");
        assert_null(got[1]);
        got = secrets_free(got);
        /* no name is the beginning of another */
        assert_int_equal(secret_expand(env1((char[]){ "A={{ RUNPOD_SECRET_h }}" }), secrets,
                                       SECRET_FAIL, &got, &e),
                         -ENOENT);
        assert_null(got);
}

/* A variable may not grow without bound, whatever it is made of. */
static void test_too_long(void **state)
{
        AUTO(strbuf_done) struct strbuf in = { 0 }, value = { 0 };
        char **got = NULL, *one[] = { NULL, NULL };
        struct err e = { 0 };

        (void) state;
        strbuf_str(&value, "s=");
        for (unsigned i = 0; i < LIMIT_SECRET_BYTES; i++)
                strbuf_char(&value, 'v');
        strbuf_str(&in, "LONG=");
        for (unsigned i = 0; i < 4000; i++)
                strbuf_str(&in, "{{ RUNPOD_SECRET_s }}");
        one[0] = value.s;
        assert_int_equal(secret_expand(env1(in.s), one, SECRET_FAIL, &got, &e), -E2BIG);
        assert_null(got);
        assert_non_null(strstr(e.msg, "env: with its secrets, LONG is over"));
        assert_null(strstr(e.msg, "vvvv"));
}

static void test_names(void **state)
{
        char *env[] = { (char[]){ "A={{ RUNPOD_SECRET_x }}{{ RUNPOD_SECRET_y }}" },
                        (char[]){ "B={{ TENSORONE_SECRET_x }}" }, (char[]){ "C=1" }, NULL };
        AUTO(strbuf_done) struct strbuf many = { 0 };
        AUTO(strv_free) char **got = NULL;
        char **none = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(secret_names(env, &got, &e), 0);
        assert_int_equal(strv_len(got), 2);
        assert_true(strv_has(got, "x") && strv_has(got, "y"));
        assert_int_equal(secret_names(env + 2, &none, &e), 0);
        assert_null(none);
        assert_int_equal(secret_names(NULL, &none, &e), 0);
        assert_true(secret_in(env[0] + 2) && !secret_in(env[2] + 2));
        strbuf_str(&many, "A=");
        for (unsigned i = 0; i <= LIMIT_SECRETS; i++)
                strbuf_fmt(&many, "{{ RUNPOD_SECRET_n%u }}", i);
        assert_int_equal(secret_names(env1(many.s), &none, &e), -E2BIG);
}

static void test_check(void **state)
{
        static const struct {
                const char *in;
                int r;
        } t[] = {
                { "A={{ RUNPOD_SECRET_x }}", 0 },
                { "A={{ other }}", 0 },
                { "A={{ RUNPOD_SECRET_ }}", -EINVAL },
                { "A={{ TENSORONE_SECRET_a b }}", -EINVAL },
                { "A={{ TENSORONE_SECRET_a/b }}", -EINVAL },
                { "A={{ TENSORONE_SECRET_x }", -EINVAL },
                { "A={{ TENSORONE_SECRET_x", -EINVAL },
                { "A={{ TENSORONE_SECRET_"
                  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa }}",
                  -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *in = strdup(t[i].in);
                struct err e = { 0 };

                assert_int_equal(secret_check(env1(in), &e), t[i].r);
                assert_true(t[i].r == 0 || strstr(e.msg, "env: A has a placeholder"));
        }
        assert_true(secret_name_ok("a.b-c_D9"));
        assert_false(secret_name_ok(""));
        assert_false(secret_name_ok("a b"));
        assert_false(secret_name_ok("a=b"));
        assert_false(secret_name_ok("\xc3\xa4"));
}

static void test_codec(void **state)
{
        static const char *const bad[] = { "[]", "{\"a b\":\"x\"}", "{\"a\":1}", "{\"\":\"x\"}",
                                           "3" };
        AUTO(json_put) json_t *j = secret_encode(secrets);
        AUTO(secrets_free) char **back = NULL, **none = NULL;
        struct err e = { 0 };

        (void) state;
        assert_int_equal(secret_decode(j, &back, &e), 0);
        assert_int_equal(strv_len(back), 3);
        for (size_t i = 0; i < 3; i++)
                assert_true(strv_has(back, secrets[i]));
        for (size_t i = 0; i < NELEM(bad); i++) {
                AUTO(json_put) json_t *b = json_loads(bad[i], JSON_DECODE_ANY, NULL);

                assert_int_equal(secret_decode(b, &none, &e), -EPROTO);
                assert_null(none);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_expand),   cmocka_unit_test(test_missing),
                cmocka_unit_test(test_too_long), cmocka_unit_test(test_names),
                cmocka_unit_test(test_check),    cmocka_unit_test(test_codec),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
