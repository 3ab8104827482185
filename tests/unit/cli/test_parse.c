/* test_parse.c - words into an invocation (src/cli/parse.c), and the tables themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/str.h"
#include "base/text.h"
#include "cli/cli.h"

#define ARGS 32

/* A line as a shell would split it, and the vector that the parser permutes. */
struct line {
        char **words, *argv[ARGS + 1];
};

static int parse(struct cli *c, const char *text, struct line *l, struct err *e)
{
        int n = 0;

        assert_int_equal(strv_split_shell(text, ARGS, &l->words, NULL), 0);
        for (; l->words[n]; n++) {
                assert_true(n < ARGS);
                l->argv[n] = l->words[n];
        }
        return cli_parse(c, n, l->argv, e);
}

static void drop(struct cli *c, struct line *l)
{
        cli_done(c);
        l->words = strv_free(l->words);
}

static void test_values(void **state)
{
        struct line l = { 0 };
        struct cli c = { 0 };
        struct err e = { 0 };

        (void) state;
        assert_int_equal(parse(&c,
                               "-o json create clusters --gpuCount=0 --mem 32 --cost 0.5 "
                               "--env A=1 --env B=2 --startSSH --secureCloud=false --name -",
                               &l, &e),
                         0);
        assert_string_equal(c.verb->noun, "clusters");
        assert_string_equal(c.opt[OPT_OUTPUT].s, "json");
        assert_true(c.opt[OPT_GPU_COUNT].given);
        assert_int_equal(c.opt[OPT_GPU_COUNT].n, 0);
        assert_int_equal(c.opt[OPT_MEM].n, 32);
        assert_true(c.opt[OPT_COST].f > 0.49 && c.opt[OPT_COST].f < 0.51);
        assert_int_equal(strv_len(c.opt[OPT_ENV].list), 2);
        assert_string_equal(c.opt[OPT_ENV].list[1], "B=2");
        assert_true(c.opt[OPT_START_SSH].b);
        assert_false(c.opt[OPT_SECURE_CLOUD].b);
        assert_true(c.opt[OPT_SECURE_CLOUD].given);
        assert_string_equal(c.opt[OPT_NAME].s, "-");
        /* presets */
        assert_int_equal(c.opt[OPT_CONTAINER_DISK].n, 20);
        assert_false(c.opt[OPT_CONTAINER_DISK].given);
        assert_string_equal(c.opt[OPT_VOLUME_PATH].s, "/runpod");
        assert_null(c.opt[OPT_ARGS].s);
        drop(&c, &l);
}

static void test_operands_and_command(void **state)
{
        static const struct {
                const char *line;
                size_t operands;
                const char *first, *command0, *command1;
                bool tty;
        } t[] = {
                { "exec -it c1 -- ls -l", 1, "c1", "ls", "-l", true },
                { "exec c1 -it -- ls -- x", 1, "c1", "ls", "--", true },
                { "exec c1 ls -t", 1, "c1", "ls", "-t", false },
                { "exec -t c1 -- -t", 1, "c1", "-t", NULL, true },
                { "stop cluster a b -- --wait", 3, "a", NULL, NULL, false },
                { "logs -f c1", 1, "c1", NULL, NULL, false },
                { "logs c1 -f --tail 5", 1, "c1", NULL, NULL, false },
                { "image import x -", 2, "x", NULL, NULL, false },
                { "image list", 0, NULL, NULL, NULL, false },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct line l = { 0 };
                struct cli c = { 0 };
                struct err e = { 0 };

                if (parse(&c, t[i].line, &l, &e) < 0)
                        fail_msg("'%s': %s", t[i].line, e.msg);
                if (c.n_operands != t[i].operands ||
                    (t[i].first && !str_eq(c.operands[0], t[i].first)))
                        fail_msg("'%s': %zu operands", t[i].line, c.n_operands);
                if (t[i].command0 && (!c.command || !str_eq(c.command[0], t[i].command0) ||
                                      !str_eq(c.command[1], t[i].command1)))
                        fail_msg("'%s': wrong command", t[i].line);
                assert_int_equal(c.opt[OPT_TTY].b, t[i].tty);
                drop(&c, &l);
        }
}

static void test_refusals(void **state)
{
        static const struct {
                const char *line, *message; /* what the message contains */
        } t[] = {
                { "creat cluster", "did you mean \"create\"" },
                { "create", "create what?" },
                { "create clustre", "did you mean \"create cluster\"" },
                { "create cluster extra", "unexpected \"extra\"" },
                { "create cluster --clusterCount 2", "unknown option \"--clusterCount\"" },
                { "create clusters --clusterCount 0", "outside 1..1000" },
                { "create cluster --mem 1e3", "not a whole number" },
                { "create cluster --mem ''", "not a whole number" },
                { "create cluster --cost nan", "not an amount" },
                { "create cluster --cost -1", "not an amount" },
                { "create cluster --cost inf", "not an amount" },
                { "get cluster --output", "--output needs a value" },
                { "get cluster -o", "-o needs a value" },
                { "get cluster -ojson2", "not one of: table json" },
                { "get cluster -o ''", "not one of" },
                { "get cluster -o 'table json'", "not one of" },
                { "get cluster --allfields=1", "neither true nor false" },
                { "get cluster -ax", "unknown option \"-x\"" },
                { "--wat get cluster", "unknown option" },
                { "logs", "usage: tensoronecli logs CLUSTER" },
                { "image rm", "usage: tensoronecli image rm IMAGE..." },
                { "image frobnicate", "image takes one of: import, pull, ls, rm" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct line l = { 0 };
                struct cli c = { 0 };
                struct err e = { 0 };

                if (parse(&c, t[i].line, &l, &e) >= 0)
                        fail_msg("'%s' was accepted", t[i].line);
                if (!strstr(e.msg, t[i].message))
                        fail_msg("'%s': \"%s\"", t[i].line, e.msg);
                drop(&c, &l);
        }
}

static void test_help_forms(void **state)
{
        static const struct {
                const char *line, *group;
                bool help, version, verb;
        } t[] = {
                { "", NULL, true, false, false },
                { "help", NULL, true, false, false },
                { "--help", NULL, true, false, false },
                { "--version", NULL, false, true, false },
                { "create --help", "create", true, false, false },
                { "help create", "create", true, false, false },
                { "create clusters -h", NULL, true, false, true },
                { "help logs", NULL, true, false, true },
                { "exec --help", NULL, true, false, true },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct line l = { 0 };
                struct cli c = { 0 };
                struct err e = { 0 };

                if (parse(&c, t[i].line, &l, &e) < 0)
                        fail_msg("'%s': %s", t[i].line, e.msg);
                if (c.help != t[i].help || c.version != t[i].version ||
                    !str_eq(c.group, t[i].group) || (c.verb != NULL) != t[i].verb)
                        fail_msg("'%s'", t[i].line);
                drop(&c, &l);
        }
}

static void test_nearest(void **state)
{
        static const char *const words[] = { "create", "get", "start", "stop", "restart", "logs" };
        static const struct {
                const char *word, *want;
        } t[] = {
                { "craete", "create" }, { "crate", "create" }, { "creates", "create" },
                { "strat", "start" },   { "log", "logs" },     { "re", "restart" },
                { "xyzzy", NULL },      { "", NULL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                const char *got = text_nearest(t[i].word, words, NELEM(words));

                if (!str_eq(got, t[i].want))
                        fail_msg("'%s' -> %s", t[i].word, got ? got : "nothing");
        }
}

/* What every row must keep for parser, help, man page and completion to agree. */
static void test_tables(void **state)
{
        bool used[OPT_COUNT] = { false };

        (void) state;
        for (const enum opt_id *o = global_options; *o != OPT_NONE; o++)
                used[*o] = true;
        for (size_t i = 0; i < n_verbs; i++) {
                const struct verb *v = &verbs[i];

                assert_non_null(v->run);
                assert_non_null(v->operands);
                assert_true(v->summary[0] >= 'a' && v->summary[0] <= 'z');
                assert_ptr_equal(verb_find(v->word, v->noun), v);
                for (const enum opt_id *a = v->opts; *a != OPT_NONE; a++) {
                        used[*a] = true;
                        for (const enum opt_id *b = v->opts; b < a; b++) {
                                assert_string_not_equal(options[*a].name, options[*b].name);
                                if (options[*a].letter)
                                        assert_int_not_equal(options[*a].letter,
                                                             options[*b].letter);
                        }
                }
        }
        for (enum opt_id id = OPT_NONE + 1; id < OPT_COUNT; id++) {
                const struct option *o = &options[id];
                uint64_t n;

                if (!used[id] || !o->name || !o->help || o->kind == OPT_KIND_NONE)
                        fail_msg("option %d (%s)", (int) id, o->name ? o->name : "?");
                assert_int_equal(o->arg == NULL, o->kind == OPT_KIND_BOOL);
                if (o->kind == OPT_KIND_INT && o->preset)
                        assert_int_equal(str_u64(o->preset, o->min, o->max, &n), 0);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_values),   cmocka_unit_test(test_operands_and_command),
                cmocka_unit_test(test_refusals), cmocka_unit_test(test_help_forms),
                cmocka_unit_test(test_nearest),  cmocka_unit_test(test_tables),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
