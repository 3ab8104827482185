/* test_gql_lex.c - words, numbers, strings and where they are. */
#include "control/graphql/lex.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

/* All tokens as text: kind letter and source, a blank between. */
static int spell_out(const char *src, size_t len, char *out, size_t room, struct gql_fault *f)
{
        static const char letter[TOK_COUNT] = { '?', '$', 'p', 'n', 'i', 'f', 's', 'b' };
        struct lexer l = { .src = src, .len = (uint32_t) len };
        size_t n = 0;

        out[0] = '\0';
        for (;;) {
                struct token t;
                int r = lex_next(&l, &t, f);

                if (r < 0)
                        return r;
                if (t.kind == TOK_EOF)
                        return 0;
                n += (size_t) snprintf(out + n, room - n, "%s%c%.*s", n ? " " : "", letter[t.kind],
                                       (int) t.at.len, src + t.at.off);
        }
}

static void test_tokens(void **state)
{
        static const struct {
                const char *in, *out;
        } t[] = {
                { "", "" },
                { " ,,\t\r\n\xef\xbb\xbf# all of it\n", "" },
                { "{a,b}", "p{ na nb p}" },
                { "a:b(c:$d)", "na p: nb p( nc p: p$ nd p)" },
                { "...F ... on X", "p... nF p... non nX" },
                { "[1!]=&|@x", "p[ i1 p! p] p= p& p| p@ nx" },
                { "0 -0 7 -12 1.5 -1.5e3 1e9 2E-2 0.0",
                  "i0 i-0 i7 i-12 f1.5 f-1.5e3 f1e9 f2E-2 f0.0" },
                { "_a a1 A_b__c", "n_a na1 nA_b__c" },
                { "\"\" \"a b\" \"\\\"\" \"\\u0041\"", "s\"\" s\"a b\" s\"\\\"\" s\"\\u0041\"" },
                { "\"\"\"\"\"\" \"\"\"a\"b\"\"\"", "b\"\"\"\"\"\" b\"\"\"a\"b\"\"\"" },
                { "\"\"\"x\\\"\"\"y\"\"\"", "b\"\"\"x\\\"\"\"y\"\"\"" },
                { "a#c\rb", "na nb" },
        };
        char out[512];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct gql_fault f = { 0 };
                int r = spell_out(t[i].in, strlen(t[i].in), out, sizeof out, &f);

                if (r < 0 || strcmp(out, t[i].out) != 0)
                        fail_msg("row %zu: r=%d '%s' %s", i, r, out, f.err.msg);
        }
}

static void test_refused(void **state)
{
        static const struct {
                const char *in;
                uint32_t off;
                const char *why;
        } t[] = {
                { "a ?", 2, "unexpected character '?'" },
                { "a .. b", 2, "unexpected character '.'" },
                { "\x01", 0, "unexpected byte 0x01" },
                { "\xc3\xa9", 0, "unexpected byte 0xc3" },
                { "01", 1, "a number cannot go on like this" },
                { "-", 1, "a number ends in the middle" },
                { "1.", 2, "a number ends in the middle" },
                { "1.x", 2, "a number cannot go on like this" },
                { "1e", 2, "a number ends in the middle" },
                { "1e+", 3, "a number ends in the middle" },
                { "1a", 1, "a number cannot go on like this" },
                { "1.5.5", 3, "a number cannot go on like this" },
                { "-a", 1, "a number cannot go on like this" },
                { "\"abc", 0, "a string is not closed on its line" },
                { "\"abc\n\"", 0, "a string is not closed on its line" },
                { "\"a\x01\"", 2, "control character 0x01" },
                { "\"\\x\"", 1, "an escape that does not exist" },
                { "\"\\u12\"", 1, "an escape that does not exist" },
                { "\"\\u{}\"", 1, "an escape that does not exist" },
                { "\"\\u{110000}\"", 1, "an escape that does not exist" },
                { "\"\\u{12", 1, "an escape that does not exist" },
                { "\"\\ud800\"", 1, "an escape that does not exist" },
                { "\"\\ud800\\u0041\"", 1, "an escape that does not exist" },
                { "\"\\udc00\"", 1, "an escape that does not exist" },
                { "\"\\u0000\"", 1, "the character NUL" },
                { "\"\\u{0}\"", 1, "the character NUL" },
                { "\"\\", 1, "an escape that does not exist" },
                { "\"\"\"abc\"\"", 0, "a block string is not closed" },
                { "\"\"\"\\\"\"\"", 0, "a block string is not closed" },
        };
        char out[512];

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct gql_fault f = { 0 };
                int r = spell_out(t[i].in, strlen(t[i].in), out, sizeof out, &f);

                if (r != -EINVAL || f.off != t[i].off || !strstr(f.err.msg, t[i].why) ||
                    strcmp(f.code, "GRAPHQL_PARSE_FAILED") != 0)
                        fail_msg("row %zu '%s': r=%d off=%u %s", i, t[i].in, r, f.off, f.err.msg);
        }
}

static void test_nul_bytes(void **state)
{
        struct gql_fault f = { 0 };
        char out[64];

        (void) state;
        assert_int_equal(spell_out("a\0b", 3, out, sizeof out, &f), -EINVAL);
        assert_string_equal(f.err.msg, "unexpected byte 0x00");
        assert_int_equal(spell_out("\"\"\"\0\"\"\"", 7, out, sizeof out, &f), -EINVAL);
        assert_int_equal(spell_out("\"\0\"", 3, out, sizeof out, &f), -EINVAL);
}

static void test_unquote(void **state)
{
        static const struct {
                const char *in, *out;
                bool block;
        } t[] = {
                { "\"\"", "", false },
                { "\"a\\n\\t\\\"\\\\\\/\\b\\f\\r\"", "a\n\t\"\\/\b\f\r", false },
                { "\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\\u{1f600}\"",
                  "A\303\251\342\202\254\360\237\230\200\360\237\230\200", false },
                { "\"\"\"\"\"\"", "", true },
                { "\"\"\"one\"\"\"", "one", true },
                { "\"\"\"\n    a\n      b\n\n    c\n  \"\"\"", "a\n  b\n\nc", true },
                { "\"\"\"first\n    second\r\n    third\"\"\"", "first\nsecond\nthird", true },
                { "\"\"\"\n\n\n\"\"\"", "", true },
                { "\"\"\"a \\\"\"\" b\\n\"\"\"", "a \"\"\" b\\n", true },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                lex_unquote(t[i].in, (struct slice){ 0, (uint32_t) strlen(t[i].in) }, t[i].block,
                            &b);
                if (strcmp(b.s ? b.s : "", t[i].out) != 0)
                        fail_msg("row %zu: '%s'", i, b.s);
        }
}

static void test_position(void **state)
{
        static const struct {
                const char *src;
                uint32_t off, line, column;
        } t[] = {
                { "abc", 0, 1, 1 },    { "abc", 2, 1, 3 },  { "a\nb", 2, 2, 1 },
                { "a\r\nb", 3, 2, 1 }, { "a\rb", 2, 2, 1 }, { "a\n\n\nbc", 5, 4, 2 },
                { "a", 99, 1, 100 },   { "", 0, 1, 1 },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                uint32_t line = 0, column = 0;

                lex_position(t[i].src, (uint32_t) strlen(t[i].src), t[i].off, &line, &column);
                if (line != t[i].line || column != t[i].column)
                        fail_msg("row %zu: %u:%u", i, line, column);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_tokens),    cmocka_unit_test(test_refused),
                cmocka_unit_test(test_nul_bytes), cmocka_unit_test(test_unquote),
                cmocka_unit_test(test_position),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
