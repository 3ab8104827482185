/* test_keys.c - src/edge/keys.c: which commands follow what a control plane tells, and the whole of the map. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/jsonx.h"
#include "edge/keys.h"

#define A      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B      "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define KEY_A  "{\"id\":\"ka\",\"sha256\":\"" A "\",\"opens\":true}"
#define KEY_B  "{\"id\":\"kb\",\"sha256\":\"" B "\",\"opens\":true}"
#define READ_B "{\"id\":\"kb\",\"sha256\":\"" B "\",\"opens\":false}"

static int set(struct keys *k, const char *account, const char *list, struct strbuf *b)
{
        json_t *j = json_loads(list, JSON_DECODE_ANY, NULL);
        struct err e = { 0 };
        int r = keys_set(k, account, j, b, &e);

        json_decref(j);
        return r;
}

static void test_changes(void **state)
{
        static const struct {
                const char *account, *list;
                int r;
                const char *says;
        } t[] = {
                { "x", "[" KEY_A "]", 2, "add map /k " A " x\nadd map /k ka x\n" },
                { "x", "[" KEY_A "]", 0, "" },
                { "x", "[" READ_B "," KEY_A "]", 1, "add map /k " B " -\n" },
                { "x", "[" KEY_A "," KEY_B "]", 3,
                  "del map /k " B "\nadd map /k " B " x\nadd map /k kb x\n" },
                { "x", "[" KEY_B "]", 2, "del map /k " A "\ndel map /k ka\n" },
                { "x", "[]", 2, "del map /k " B "\ndel map /k kb\n" },
                { "x", "{}", -EINVAL, "" },
                { "x y", "[" KEY_A "]", -EINVAL, "" },
                { "", "[]", -EINVAL, "" },
                { NULL, "[]", -EINVAL, "" },
                { "x", "[{\"id\":\"a b\",\"sha256\":\"" A "\"}]", -EINVAL, "" },
                { "x", "[{\"id\":\"a;b\",\"sha256\":\"" A "\"}]", -EINVAL, "" },
                { "x", "[{\"id\":\"a\",\"sha256\":\"abc\"}]", -EINVAL, "" },
                { "x", "[{\"id\":\"a\"}]", -EINVAL, "" },
                { "x", "[1]", -EINVAL, "" },
        };
        struct keys *k = keys_new("/k");

        (void) state;
        assert_non_null(k);
        for (size_t i = 0; i < NELEM(t); i++) {
                struct strbuf b = { 0 };
                int r = set(k, t[i].account, t[i].list, &b);

                if (r != t[i].r || strcmp(b.s ? b.s : "", t[i].says) != 0)
                        fail_msg("row %zu: %d: %s", i, r, b.s);
                strbuf_done(&b);
        }
        (void) keys_free(k);
}

/* Whoever is not told of between begin and end is gone. */
static void test_all_of_them(void **state)
{
        struct keys *k = keys_new("/k");
        struct strbuf b = { 0 };

        (void) state;
        keys_begin(k);
        assert_int_equal(set(k, "x", "[" KEY_A "]", &b), 2);
        assert_int_equal(set(k, "y", "[" READ_B "]", &b), 1);
        assert_false(keys_complete(k));
        assert_int_equal(keys_end(k, &b), 0);
        assert_true(keys_complete(k));
        strbuf_done(&b);
        keys_begin(k);
        assert_int_equal(set(k, "y", "[" READ_B "]", &b), 0);
        assert_int_equal(keys_end(k, &b), 2);
        assert_string_equal(b.s, "del map /k " A "\ndel map /k ka\n");
        strbuf_done(&b);
        keys_file(k, &b);
        assert_string_equal(b.s, B " -\n");
        strbuf_done(&b);
        assert_int_equal(keys_fill(k, 4, &b), 2);
        assert_string_equal(b.s, "add map @4 /k <<\n" B " -\n\ncommit map @4 /k\n");
        strbuf_done(&b);
        (void) keys_free(k);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_changes),
                cmocka_unit_test(test_all_of_them),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
