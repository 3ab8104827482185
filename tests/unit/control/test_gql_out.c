/* test_gql_out.c - numbers and strings as JSON text. */
#include "control/graphql/out.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/jsonx.h"
#include "base/proc.h"
#include "control/graphql/arena.h"

static const char *text(struct strbuf *b)
{
        strbuf_str(b, ""); /* the writer leaves the NUL to its user */
        if (b->s)
                b->s[b->len] = '\0';
        return b->s ? b->s : "";
}

static void test_numbers(void **state)
{
        static const struct {
                double v;
                const char *text;
        } t[] = {
                { 0, "0" },
                { 8, "8" },
                { -8, "-8" },
                { 0.44, "0.44" },
                { 3.59, "3.59" },
                { -0.5, "-0.5" },
                { 0.1, "0.1" },
                { 1e-6, "0.000001" },
                { 1e21, "1e+21" },
                { 1e-7, "1e-07" },
                { 123456.789, "123456.789" },
                { 0.30000000000000004, "0.30000000000000004" },
                { 9007199254740993.0, "9007199254740992" },
                { 1.0 / 3, "0.3333333333333333" },
                { 100, "100" },
                { 1e9, "1000000000" },
                { 12.8, "12.8" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                out_num(&b, t[i].v);
                if (strcmp(text(&b), t[i].text) != 0)
                        fail_msg("row %zu: %s, not %s", i, text(&b), t[i].text);
                assert_true(strtod(text(&b), NULL) == t[i].v);
        }
}

static void test_not_numbers(void **state)
{
        static const double t[] = { NAN, INFINITY, -INFINITY };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                out_num(&b, t[i]);
                assert_string_equal(text(&b), "null");
        }
}

/* Any double reads back as itself. */
static void test_round_trip(void **state)
{
        (void) state;
        for (int i = 0; i < 20000; i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                uint64_t bits;
                double v;

                assert_int_equal(rand_bytes(&bits, sizeof bits), 0);
                memcpy(&v, &bits, sizeof v);
                if (i % 2)
                        v = (double) (bits % 10000000) / 1000;
                if (!isfinite(v))
                        continue;
                out_num(&b, v);
                if (strtod(text(&b), NULL) != v)
                        fail_msg("%.17g became %s", v, text(&b));
        }
}

static void test_integers(void **state)
{
        static const int64_t t[] = { 0, 1, 9, 10, 99, 100, 12345, -1, -10, INT64_MAX, INT64_MIN };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                char want[32];

                (void) snprintf(want, sizeof want, "%lld", (long long) t[i]);
                out_int(&b, t[i]);
                assert_string_equal(text(&b), want);
        }
}

static void test_strings(void **state)
{
        static const struct {
                const char *in, *out;
        } t[] = {
                { "", "\"\"" },
                { "abc", "\"abc\"" },
                { "a\"b\\c/", "\"a\\\"b\\\\c/\"" },
                { "\n\r\t\b\f\x1f\x7f", "\"\\n\\r\\t\\b\\f\\u001f\x7f\"" },
                { "\303\251\342\202\254\360\237\230\200",
                  "\"\303\251\342\202\254\360\237\230\200\"" },
                { "\xff", "\"\xef\xbf\xbd\"" },
                { "a\xc3", "\"a\xef\xbf\xbd\"" },
                { "\xc0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\"" },
                { "\xed\xa0\x80x", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdx\"" },
                { "\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"" },
                { "\xe2\x82", "\"\xef\xbf\xbd\xef\xbf\xbd\"" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                out_str(&b, t[i].in, strlen(t[i].in));
                if (strcmp(text(&b), t[i].out) != 0)
                        fail_msg("row %zu: %s", i, text(&b));
        }
}

/* Whatever bytes go in, a JSON reader takes what comes out. */
static void test_any_bytes(void **state)
{
        (void) state;
        for (int i = 0; i < 5000; i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                AUTO(json_put) json_t *j = NULL;
                unsigned char in[24];

                assert_int_equal(rand_bytes(in, sizeof in), 0);
                out_str(&b, (const char *) in, in[0] % sizeof in);
                j = json_loadb(b.s, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
                assert_non_null(j);
        }
}

static void test_arena(void **state)
{
        AUTO(arena_done) struct arena a = { 0 };

        (void) state;
        for (size_t i = 0; i < 5000; i++) {
                char *p = arena_alloc(&a, i % 700);

                assert_non_null(p);
                assert_int_equal((uintptr_t) p % 16, 0);
                for (size_t k = 0; k < i % 700; k++)
                        assert_int_equal(p[k], 0);
                memset(p, 0xee, i % 700);
        }
        assert_string_equal(arena_strn(&a, "abcdef", 3), "abc");
        assert_non_null(arena_alloc(&a, 1 << 20));
        assert_null(arena_array(&a, SIZE_MAX / 2, 16));
        assert_true(a.failed);
        assert_null(arena_alloc(&a, 1));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_numbers),    cmocka_unit_test(test_not_numbers),
                cmocka_unit_test(test_round_trip), cmocka_unit_test(test_integers),
                cmocka_unit_test(test_strings),    cmocka_unit_test(test_any_bytes),
                cmocka_unit_test(test_arena),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
