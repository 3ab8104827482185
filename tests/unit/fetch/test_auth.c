/* test_auth.c - WWW-Authenticate, token URLs and answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "base/str.h"
#include "fetch/auth.h"

static void test_parse(void **state)
{
        static const struct {
                const char *in;
                int r;
                enum auth_kind kind;
                const char *realm, *service, *scope;
        } t[] = {
                { "Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x/y:pull\"", 0,
                  AUTH_BEARER, "https://a/t", "s", "repository:x/y:pull" },
                { "bearer  realm = \"https://a/t\" , service=s", 0, AUTH_BEARER, "https://a/t", "s",
                  NULL },
                { "Basic realm=\"it \\\"is\\\" so\"", 0, AUTH_BASIC, "it \"is\" so", NULL, NULL },
                { "Basic", 0, AUTH_BASIC, NULL, NULL, NULL },
                { "Basic realm=\"b\", Bearer realm=\"c\",service=\"d\"", 0, AUTH_BEARER, "c", "d",
                  NULL },
                { "Bearer realm=\"c\", Basic realm=\"b\"", 0, AUTH_BEARER, "c", NULL, NULL },
                { "Negotiate, Basic realm=\"b\"", 0, AUTH_BASIC, "b", NULL, NULL },
                { "Digest realm=\"x\", nonce=\"y\"", 0, AUTH_NONE, NULL, NULL, NULL },
                { "Bearer realm=\"a\",realm=\"b\"", 0, AUTH_BEARER, "a", NULL, NULL },
                { "Bearer realm=\"a,b\",scope=\"repository:x:pull,push\"", 0, AUTH_BEARER, "a,b",
                  NULL, "repository:x:pull,push" },
                { "", 0, AUTH_NONE, NULL, NULL, NULL },
                { " , ,", 0, AUTH_NONE, NULL, NULL, NULL },
                { "Bearer realm=\"open", -EINVAL, AUTH_NONE, NULL, NULL, NULL },
                { "Bearer realm=\"open\\", -EINVAL, AUTH_NONE, NULL, NULL, NULL },
                { "\"quoted\"", -EINVAL, AUTH_NONE, NULL, NULL, NULL },
                { "Bearer =x", -EINVAL, AUTH_NONE, NULL, NULL, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct auth_challenge c = { 0 };
                int r = auth_parse(t[i].in, &c, NULL);

                if (r != t[i].r)
                        fail_msg("row %zu '%s': r=%d", i, t[i].in, r);
                if (r >= 0 &&
                    (c.kind != t[i].kind ||
                     (c.kind && (!str_eq(c.realm, t[i].realm) || !str_eq(c.service, t[i].service) ||
                                 !str_eq(c.scope, t[i].scope)))))
                        fail_msg("row %zu '%s': kind=%d realm=%s service=%s scope=%s", i, t[i].in,
                                 (int) c.kind, c.realm, c.service, c.scope);
                auth_challenge_done(&c);
        }
}

static void test_better_header_wins(void **state)
{
        struct auth_challenge c = { 0 };

        (void) state;
        assert_int_equal(auth_parse("Bearer realm=\"one\"", &c, NULL), 0);
        assert_int_equal(auth_parse("Basic realm=\"two\"", &c, NULL), 0);
        assert_int_equal(c.kind, AUTH_BEARER);
        assert_string_equal(c.realm, "one");
        auth_challenge_done(&c);
}

static void test_token_url(void **state)
{
        static const struct {
                const char *realm, *service, *scope, *account;
                int r;
                const char *url;
        } t[] = {
                { "https://auth/token", "reg", NULL, NULL, 0,
                  "https://auth/token?service=reg&scope=repository%3aa%2fb%3apull" },
                { "https://auth/token?x=1", NULL, "s p", "ada", 0,
                  "https://auth/token?x=1&scope=s+p&account=ada" },
                { "https://auth/token", "a&b=c#", "s", NULL, 0,
                  "https://auth/token?service=a%26b%3dc%23&scope=s" },
                { NULL, NULL, NULL, NULL, -EPROTO, NULL },
                { "", NULL, NULL, NULL, -EPROTO, NULL },
                { "/token", NULL, NULL, NULL, -EPROTO, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct auth_challenge c = { AUTH_BEARER, str_dup(t[i].realm), str_dup(t[i].service),
                                            str_dup(t[i].scope) };
                AUTO(free) char *url = NULL;
                int r = auth_token_url(&c, "a/b", t[i].account, &url, NULL);

                if (r != t[i].r || (r >= 0 && strcasecmp(url, t[i].url) != 0))
                        fail_msg("row %zu: r=%d url=%s", i, r, url);
                auth_challenge_done(&c);
        }
}

static void test_token_answer(void **state)
{
        static const struct {
                const char *in;
                int r;
                const char *out;
        } t[] = {
                { "{\"token\":\"abc\"}", 0, "Bearer abc" },
                { "{\"access_token\":\"abc\",\"expires_in\":3}", 0, "Bearer abc" },
                { "{\"token\":\"\",\"access_token\":\"x\"}", 0, "Bearer x" },
                { "{\"token\":\"a b\"}", -EPROTO, NULL },
                { "{\"token\":\"a\\r\\nX: y\"}", -EPROTO, NULL },
                { "{\"token\":7}", -EPROTO, NULL },
                { "{}", -EPROTO, NULL },
                { "[]", -EPROTO, NULL },
                { "", -EPROTO, NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *out = NULL;
                int r = auth_token_parse(t[i].in, strlen(t[i].in), &out, NULL);

                if (r != t[i].r || !str_eq(out, t[i].out))
                        fail_msg("row %zu '%s': r=%d out=%s", i, t[i].in, r, out);
        }
}

static void test_basic(void **state)
{
        AUTO(free) char *a = auth_basic("Aladdin", "open sesame"), *b = auth_basic("u", NULL);

        (void) state;
        assert_string_equal(a, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_string_equal(b, "Basic dTo=");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),     cmocka_unit_test(test_better_header_wins),
                cmocka_unit_test(test_token_url), cmocka_unit_test(test_token_answer),
                cmocka_unit_test(test_basic),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
