/* test_jsonx.c - JSON and structs by table: every kind there and back, limits, broken input. */
#include "base/jsonx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum colour { RED, GREEN, BLUE, COLOUR_COUNT };
static const char *const colours[] = { "red", "green", "blue" };

struct inner {
        char *name;
        uint32_t n;
};

struct thing {
        char *id;
        char **words;
        uint32_t small;
        uint64_t large;
        bool on;
        enum colour colour;
        struct inner inner;
};

#define I(k) .off = offsetof(struct inner, k)
#define T(k) .off = offsetof(struct thing, k)
static const struct jfield inner_fields[] = {
        { "name", J_STR, I(name), .required = true },
        { "n", J_U32, I(n) },
};
static const struct jfield fields[] = {
        { "id", J_STR, T(id), .max = 8, .required = true },
        { "words", J_STRV, T(words), .max = 3 },
        { "small", J_U32, T(small), .min = 2, .max = 10 },
        { "large", J_U64, T(large) },
        { "on", J_BOOL, T(on) },
        { "colour", J_ENUM, T(colour), .max = COLOUR_COUNT, .names = colours },
        { "inner", J_SUB, T(inner), .max = NELEM(inner_fields), .sub = inner_fields },
};

static int decode(const char *text, struct thing *t, struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse(text, strlen(text), e);

        assert_non_null(j);
        return jsonx_decode(j, fields, NELEM(fields), t, e);
}

static void test_there_and_back(void **state)
{
        static const char text[] = "{\"id\":\"abc\",\"words\":[\"x\",\"\",\"z\"],\"small\":10,"
                                   "\"large\":9223372036854775807,\"on\":true,\"colour\":\"blue\","
                                   "\"inner\":{\"name\":\"n\",\"n\":4294967295}}";
        struct thing t = { 0 };
        AUTO(json_put) json_t *j = NULL;
        AUTO(free) char *back = NULL;

        (void) state;
        assert_int_equal(decode(text, &t, NULL), 0);
        assert_string_equal(t.id, "abc");
        assert_string_equal(t.words[2], "z");
        assert_null(t.words[3]);
        assert_int_equal(t.small, 10);
        assert_true(t.large == INT64_MAX && t.on && t.colour == BLUE);
        assert_int_equal(t.inner.n, UINT32_MAX);
        j = jsonx_encode(fields, NELEM(fields), &t);
        assert_non_null(j);
        back = jsonx_dump(j);
        assert_string_equal(back, text);
        jsonx_done(fields, NELEM(fields), &t);
        assert_null(t.id);
        assert_null(t.words);
        assert_null(t.inner.name);
        jsonx_done(fields, NELEM(fields), &t);
}

static void test_absent(void **state)
{
        struct thing t = { 0 };
        AUTO(json_put) json_t *j = NULL;
        AUTO(free) char *back = NULL;

        (void) state;
        assert_int_equal(decode("{\"id\":\"a\",\"words\":null,\"newer\":[1,{}]}", &t, NULL), 0);
        assert_null(t.words);
        j = jsonx_encode(fields, NELEM(fields), &t);
        back = jsonx_dump(j);
        assert_string_equal(back, "{\"id\":\"a\",\"small\":0,\"large\":0,\"on\":false,"
                                  "\"colour\":\"red\",\"inner\":{\"n\":0}}");
        jsonx_done(fields, NELEM(fields), &t);
}

static void test_refusals(void **state)
{
        static const struct {
                const char *text;
                int r;
                const char *says;
        } rows[] = {
                { "[]", -EINVAL, "an object is expected" },
                { "{}", -EINVAL, "id: is missing" },
                { "{\"id\":null}", -EINVAL, "id: is missing" },
                { "{\"id\":1}", -EINVAL, "id: must be a string" },
                { "{\"id\":\"123456789\"}", -E2BIG, "id: 9 bytes, at most 8 are allowed" },
                { "{\"id\":\"a\",\"words\":\"x\"}", -EINVAL, "words: must be a list of strings" },
                { "{\"id\":\"a\",\"words\":[\"x\",1]}", -EINVAL, "words: must be a list" },
                { "{\"id\":\"a\",\"words\":[\"\",\"\",\"\",\"\"]}", -E2BIG,
                  "4 elements, at most 3" },
                { "{\"id\":\"a\",\"small\":1}", -ERANGE, "small: 1 is outside 2..10" },
                { "{\"id\":\"a\",\"small\":11}", -ERANGE, "small: 11 is outside 2..10" },
                { "{\"id\":\"a\",\"small\":3.0}", -EINVAL, "small: must be a whole number" },
                { "{\"id\":\"a\",\"large\":-1}", -ERANGE, "large: -1 is outside" },
                { "{\"id\":\"a\",\"on\":1}", -EINVAL, "on: must be true or false" },
                { "{\"id\":\"a\",\"colour\":\"pink\"}", -EINVAL,
                  "colour: 'pink' is not a known value" },
                { "{\"id\":\"a\",\"colour\":2}", -EINVAL, "colour: '?'" },
                { "{\"id\":\"a\",\"inner\":[]}", -EINVAL, "inner: must be an object" },
                { "{\"id\":\"a\",\"inner\":{}}", -EINVAL, "inner: name: is missing" },
                { "{\"id\":\"a\",\"inner\":{\"name\":\"x\",\"n\":4294967296}}", -ERANGE,
                  "inner: n: 4294967296 is outside" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(rows); i++) {
                struct thing t = { 0 };
                struct err e = { 0 };
                int r = decode(rows[i].text, &t, &e);

                if (r != rows[i].r || !strstr(e.msg, rows[i].says))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                jsonx_done(fields, NELEM(fields), &t); /* half-filled */
        }
}

static void test_not_json(void **state)
{
        static const struct {
                const char *text;
                size_t len;
        } t[] = {
                { "", 0 },      { "{", 1 },           { "{\"a\":1,\"a\":2}", 13 },
                { "{} x", 4 },  { "\"\\u0000\"", 8 }, { "{\"a\":\"\xff\"}", 9 },
                { "[1\0]", 4 }, { "nul", 3 },
        };
        char deep[8192];
        struct err e = { 0 };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                e.msg[0] = '\0';
                if (jsonx_parse(t[i].text, t[i].len, &e))
                        fail_msg("row %zu was accepted", i);
                assert_memory_equal(e.msg, "not JSON: line ", 15);
        }
        memset(deep, '[', sizeof deep);
        assert_null(jsonx_parse(deep, sizeof deep, &e));
}

static void test_str(void **state)
{
        AUTO(json_put) json_t *j = jsonx_parse("{\"a\":\"x\",\"b\":1}", 15, NULL);

        (void) state;
        assert_string_equal(jsonx_str(j, "a"), "x");
        assert_null(jsonx_str(j, "b"));
        assert_null(jsonx_str(j, "c"));
        assert_null(jsonx_str(NULL, "a"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_there_and_back),
                cmocka_unit_test(test_absent),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_not_json),
                cmocka_unit_test(test_str),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
