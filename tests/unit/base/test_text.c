/* test_text.c - what a manual page's source is made of (test_cli_parse has the near names). */
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

static void test_roff(void **state)
{
        static const struct {
                const char *in, *out;
        } t[] = {
                { "", "" },
                { "plain", "plain" },
                { ".Sh x\n'y\na.b", "\\&.Sh x\n\\&'y\na.b" },
                { "a-b \"q\" ~/x \\n", "a\\-b \\(dqq\\(dq \\(ti/x \\en" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                text_roff(t[i].in, &b);
                assert_string_equal(b.s ? b.s : "", t[i].out);
        }
}

static void test_sentences(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(strbuf_done) struct strbuf q = { 0 };
        size_t longest = 0, n = 0;

        (void) state;
        text_sentences("first one. Second", &b);
        assert_string_equal(b.s, "First one.\nSecond\n");
        strbuf_drop_front(&b, b.len);
        for (int i = 0; i < 100; i++)
                strbuf_str(&q, i ? " word" : "word");
        text_sentences(q.s, &b);
        for (const char *p = b.s; *p; p++) {
                n = *p == '\n' ? 0 : n + 1;
                longest = n > longest ? n : longest;
        }
        assert_in_range(longest, 60, 79);
}

static void test_quoted(void **state)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) state;
        text_quoted("Ar \"x\"", &b);
        assert_string_equal(b.s, " \"Ar \\(dqx\\(dq\"");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_roff),
                cmocka_unit_test(test_sentences),
                cmocka_unit_test(test_quoted),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
