/* test_usage.c - the engine's command line and what is generated from its tables
 * (src/engine/usage.c, manual.c, conf.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>

#include "../accepted.h"
#include "base/conf.h"
#include "base/fd.h"
#include "engine/instance.h"
#include "engine/usage.h"

static void test_parse(void **state)
{
        static const struct {
                enum usage_verb_id id;
                const char *argv[8];
                int r;
                const char *dir, *listen, *config, *operand, *says;
        } t[] = {
                { VERB_STANDALONE,
                  { "--data-dir", "/d", "--listen", "a:1" },
                  0,
                  "/d",
                  "a:1",
                  NULL,
                  NULL,
                  NULL },
                { VERB_STANDALONE,
                  { "--listen=a:1", "--config=c", "--data-dir=/d" },
                  0,
                  "/d",
                  "a:1",
                  "c",
                  NULL,
                  NULL },
                { VERB_STANDALONE,
                  { "--data-dir", "/d" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "--listen is needed" },
                { VERB_STANDALONE,
                  { "--data-dir" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "--data-dir wants a value: DIR" },
                { VERB_STANDALONE,
                  { "--data-dir=" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "--data-dir wants a value" },
                { VERB_STANDALONE,
                  { "--data-dir", "a", "--data-dir=b" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "given twice" },
                { VERB_STANDALONE,
                  { "--datadir", "a" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "did you mean --data-dir?" },
                { VERB_STANDALONE,
                  { "--data-directory=a" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "unknown argument" },
                { VERB_STANDALONE,
                  { "x" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "unknown argument 'x'" },
                { VERB_DOCTOR, { NULL }, 0, NULL, NULL, NULL, NULL, NULL },
                { VERB_DOCTOR, { "x" }, -EINVAL, NULL, NULL, NULL, NULL, "unknown argument 'x'" },
                { VERB_HELP, { "doctor" }, 0, NULL, NULL, NULL, "doctor", NULL },
                { VERB_HELP,
                  { "a", "b" },
                  -EINVAL,
                  NULL,
                  NULL,
                  NULL,
                  NULL,
                  "unknown argument 'b'" },
                { VERB_COMPLETION, { NULL }, -EINVAL, NULL, NULL, NULL, NULL, "SHELL is needed" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                struct usage_args a = { .operand = "canary" };
                struct err e = { 0 };
                int r = usage_parse(t[i].id, (char **) (uintptr_t) t[i].argv, &a, &e);

                if (r != t[i].r ||
                    (r < 0 && (!strstr(e.msg, t[i].says) || !str_eq(a.operand, "canary"))))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
                if (r >= 0 && (!str_eq(a.flag[0], t[i].dir) || !str_eq(a.flag[1], t[i].listen) ||
                               !str_eq(a.flag[2], t[i].config) || !str_eq(a.operand, t[i].operand)))
                        fail_msg("row %zu: wrong values", i);
        }
}

/* --help wins over whatever else is wrong, for every verb. */
static void test_help_of_every_verb(void **state)
{
        AUTO(strbuf_done) struct strbuf all = { 0 };

        (void) state;
        usage_all(&all);
        for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++) {
                const char *argv[] = { "--help", "--nonsense", NULL };
                const struct usage_verb *v = &usage_verbs[id];
                AUTO(strbuf_done) struct strbuf b = { 0 };
                struct usage_args a = { .help = false };

                assert_int_equal(usage_parse(id, (char **) (uintptr_t) argv, &a, NULL), 0);
                assert_true(a.help);
                assert_int_equal(usage_find(v->name), id);
                usage_help(id, &b);
                assert_false(b.failed);
                for (const struct usage_flag *f = v->flags; f < v->flags + USAGE_FLAGS && f->name;
                     f++)
                        assert_non_null(strstr(b.s, f->help));
                assert_int_equal(strstr(all.s, v->summary) != NULL, !v->hidden);
        }
        assert_int_equal(usage_find("nope"), VERB_NONE);
}

static void test_near(void **state)
{
        (void) state;
        assert_string_equal(usage_near("standalnoe"), "standalone");
        assert_string_equal(usage_near("doc"), "doctor");
        assert_string_equal(usage_near("confg"), "config");
        assert_null(usage_near("frobnicate"));
        assert_null(usage_near("completion")); /* hidden */
}

static void test_manual_pages(void **state)
{
        static const char *const lint[] = { "mandoc", "-Tlint", "-Wwarning", NULL };
        static const char *const pages[] = { "hypervisor-vmm", "hypervisor-vmm.conf" };
        size_t n;
        const struct conf_option *o = instance_options(&n);

        (void) state;
        for (size_t i = 0; i < NELEM(pages); i++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };

                assert_int_equal(manual_page(pages[i], &b), 0);
                assert_false(b.failed);
                accepted_by(lint, b.s);
                for (size_t k = 0; i == 1 && k < n; k++) {
                        AUTO(free) char *item = str_fmt(".It Cm %s\n", o[k].key);

                        assert_non_null(strstr(b.s, item));
                }
                for (enum usage_verb_id id = VERB_NONE + 1; i == 0 && id < VERB_COUNT; id++) {
                        AUTO(free) char *item = str_fmt(".Ss %s\n", usage_verbs[id].name);

                        assert_int_equal(strstr(b.s, item) != NULL, !usage_verbs[id].hidden);
                        for (const struct usage_flag *f = usage_verbs[id].flags;
                             f < usage_verbs[id].flags + USAGE_FLAGS && f->name; f++) {
                                AUTO(free)
                                char *tag = str_fmt(".It Fl Fl %s Ar %s\n", f->name + 2,
                                                    usage_arg_title(f->arg));

                                assert_non_null(strstr(b.s, tag));
                        }
                }
        }
        assert_int_equal(manual_page("other", &(struct strbuf){ 0 }), -EINVAL);
}

static void test_completion(void **state)
{
        static const char *const shells[] = { "bash", "zsh", "fish" };

        (void) state;
        for (size_t s = 0; s < NELEM(shells); s++) {
                const char *const check[] = { shells[s], "-n", NULL };
                AUTO(strbuf_done) struct strbuf b = { 0 };

                assert_int_equal(usage_completion(shells[s], &b), 0);
                assert_false(b.failed);
                accepted_by(check, b.s);
                for (enum usage_verb_id id = VERB_NONE + 1; id < VERB_COUNT; id++) {
                        const struct usage_verb *v = &usage_verbs[id];

                        if (v->hidden)
                                continue;
                        assert_non_null(strstr(b.s, v->name));
                        for (size_t f = 0; f < USAGE_FLAGS && v->flags[f].name; f++)
                                assert_non_null(strstr(b.s, v->flags[f].name + 2));
                }
                assert_null(strstr(b.s, "(null)"));
        }
        assert_int_equal(usage_completion("tcsh", &(struct strbuf){ 0 }), -EINVAL);
}

/* What is shipped is what the program prints, and what it prints it reads: as the defaults. */
static void test_sample(void **state)
{
        char path[] = "/tmp/test_usage-XXXXXX";
        AUTO(strbuf_done) struct strbuf b = { 0 };
        AUTO(free) char *shipped = NULL;
        struct engine_conf sample = { 0 }, plain = { 0 };
        struct err e = { 0 };
        size_t n;
        const struct conf_option *o = instance_options(&n);
        int fd = mkstemp(path), r;

        (void) state;
        manual_sample(&b);
        assert_false(b.failed);
        assert_true(fd >= 0);
        assert_int_equal(fd_write_full(fd, b.s, b.len), 0);
        (void) close(fd);
        r = conf_load(path, o, n, &sample, NULL, NULL, &e);
        (void) unlink(path);
        if (r < 0)
                fail_msg("%s", e.msg);
        assert_int_equal(conf_load(NULL, o, n, &plain, NULL, NULL, NULL), 0);
        for (size_t i = 0; i < n; i++) {
                const char *x = (const char *) &sample + o[i].off,
                           *y = (const char *) &plain + o[i].off;

                if (o[i].kind == CONF_STR)
                        assert_string_equal(*(char *const *) (const void *) x,
                                            *(char *const *) (const void *) y);
                else
                        assert_memory_equal(x, y, o[i].kind == CONF_BOOL ? 1 : 4);
        }
        conf_done(o, n, &sample);
        conf_done(o, n, &plain);

        r = fd_read_file(AT_FDCWD, SOURCE_ROOT "/data/hypervisor-vmm.conf", 1 << 20, &shipped,
                         NULL);
        assert_true(r >= 0);
        if (!str_eq(shipped, b.s))
                fail_msg(
                        "data/hypervisor-vmm.conf is not what 'hypervisor-vmm config' prints: make it again with that");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parse),      cmocka_unit_test(test_help_of_every_verb),
                cmocka_unit_test(test_near),       cmocka_unit_test(test_manual_pages),
                cmocka_unit_test(test_completion), cmocka_unit_test(test_sample),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
