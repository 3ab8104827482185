/* test_generated.c - help, manual page and completion name every verb and option, and the
 * programs that read them accept them (src/cli/help.c, man.c, completion.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>

#include "../accepted.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/help.h"

static void test_man_page(void **state)
{
        static const char *const lint[] = { "mandoc", "-Tlint", "-Wstyle", NULL };
        AUTO(strbuf_done) struct strbuf b = { 0 };

        (void) state;
        man_page(&b);
        assert_false(b.failed);
        accepted_by(lint, b.s);
        for (size_t i = 0; i < n_verbs; i++) {
                char title[64], line[80];

                (void) snprintf(line, sizeof line, ".Ss %s\n",
                                verb_title(&verbs[i], title, sizeof title));
                assert_int_equal(strstr(b.s, line) != NULL, !verbs[i].hidden);
        }
        for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++) {
                char flag[80];

                (void) snprintf(flag, sizeof flag, "Fl Fl %s", options[id].name);
                assert_non_null(strstr(b.s, flag));
        }
}

static void test_completion(void **state)
{
        static const char *const shells[] = { "bash", "zsh", "fish" };

        (void) state;
        for (size_t s = 0; s < NELEM(shells); s++) {
                const char *const check[] = { shells[s], "-n", NULL };
                AUTO(strbuf_done) struct strbuf b = { 0 };

                assert_int_equal(completion_script(shells[s], &b), 0);
                assert_false(b.failed);
                accepted_by(check, b.s);
                for (size_t i = 0; i < n_verbs; i++)
                        if (!verbs[i].hidden)
                                assert_non_null(strstr(b.s, verbs[i].word));
                for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++)
                        assert_non_null(strstr(b.s, options[id].name));
                assert_null(strstr(b.s, "(null)"));
        }
        assert_true(completion_script("tcsh", &(struct strbuf){ 0 }) < 0);
}

static void test_help(void **state)
{
        AUTO(strbuf_done) struct strbuf all = { 0 };

        (void) state;
        help_all(&all);
        for (size_t i = 0; i < n_verbs; i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                char title[64];

                help_verb(&verbs[i], &b);
                assert_false(b.failed);
                for (const enum opt_id *o = verbs[i].opts; *o != OPT_NONE; o++)
                        assert_non_null(strstr(b.s, options[*o].name));
                if (!verbs[i].hidden)
                        assert_non_null(strstr(all.s, verb_title(&verbs[i], title, sizeof title)));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_man_page),
                cmocka_unit_test(test_completion),
                cmocka_unit_test(test_help),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
