/* test_args.c - dockerArgs and environment lists as clients write them. */
#include "control/plane/args.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/str.h"
#include "model/limits.h"

/* Words joined by '|', "-" for a vector that is not there. */
static char *joined(char *const *v)
{
        struct strbuf b = { 0 };

        if (!v)
                return strdup("-");
        for (size_t i = 0; v[i]; i++)
                strbuf_fmt(&b, "%s%s", i ? "|" : "", v[i]);
        return strbuf_take(&b);
}

static void test_docker_args(void **state)
{
        static const struct {
                const char *in;
                int r;
                const char *entrypoint, *command;
                bool set;
        } t[] = {
                { NULL, 0, "-", "-", false },
                { "", 0, "-", "-", false },
                { "   ", 0, "-", "", false },
                { "python run.py", 0, "-", "python|run.py", true },
                { "bash -c 'a \"b\" $c; d'", 0, "-", "bash|-c|a \"b\" $c; d", true },
                { "a \"b c\"\\ d", 0, "-", "a|b c d", true },
                { "bash -c 'open", -EINVAL, "-", "-", false },
                { "{\"cmd\": [\"a\", \"b c\"]}", 0, "-", "a|b c", true },
                { " {\"cmd\":[],\"entrypoint\":[\"/bin/sh\",\"-c\"]}", 0, "/bin/sh|-c", "-", true },
                { "{\"entrypoint\":[\"x\"]}", 0, "x", "-", true },
                { "{\"cmd\": \"a b\"}", -EINVAL, "-", "-", false },
                { "{\"cmd\": [1]}", -EINVAL, "-", "-", false },
                { "{\"other\": [\"x\"]}", 0, "-", "{other:|[x]}", true }, /* no object of ours */
                { "{ echo hi; }", 0, "-", "{|echo|hi;|}", true },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(strv_free) char **entrypoint = NULL, **command = NULL;
                AUTO(free) char *e_text = NULL, *c_text = NULL;
                bool set = true;
                int r = docker_args_parse(t[i].in, &entrypoint, &command, &set, NULL);

                e_text = joined(entrypoint);
                c_text = joined(command);
                if (r != t[i].r || set != t[i].set || !str_eq(e_text, t[i].entrypoint) ||
                    !str_eq(c_text, t[i].command))
                        fail_msg("row %zu '%s': r=%d set=%d %s / %s", i, t[i].in, r, set, e_text,
                                 c_text);
        }
}

static void test_too_long(void **state)
{
        AUTO(free) char *text = malloc(LIMIT_ARGS_BYTES + 2);
        AUTO(strv_free) char **entrypoint = NULL, **command = NULL;
        struct err e = { 0 };
        bool set;

        (void) state;
        memset(text, 'x', LIMIT_ARGS_BYTES + 1);
        text[LIMIT_ARGS_BYTES + 1] = '\0';
        assert_int_equal(docker_args_parse(text, &entrypoint, &command, &set, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "dockerArgs: 131072 bytes, at most 131071"));
        for (size_t i = 0; i + 1 < LIMIT_ARGS_BYTES; i += 2)
                text[i + 1] = ' ';
        text[LIMIT_ARGS_BYTES] = '\0';
        assert_int_equal(docker_args_parse(text, &entrypoint, &command, &set, &e), -E2BIG);
        assert_non_null(strstr(e.msg, "dockerArgs: more than 1024 words"));
}

static void test_env_merge(void **state)
{
        char *base[] = { (char[]){ "A=1" }, (char[]){ "B=x=y" }, NULL };
        char *over[] = { (char[]){ "B=2" }, (char[]){ "C=" }, NULL };
        AUTO(strv_free) char **v = NULL, **w = NULL;
        AUTO(free) char *text = NULL, *none = NULL;

        (void) state;
        assert_int_equal(env_merge(base, over, &v), 0);
        text = joined(v);
        assert_string_equal(text, "A=1|B=2|C=");
        assert_int_equal(env_merge(NULL, NULL, &w), 0);
        none = joined(w);
        assert_string_equal(none, "");
}

static void test_env_check(void **state)
{
        static const struct {
                const char *in;
                int r;
        } t[] = {
                { "A=1", 0 },         { "a.b-c_1=", 0 },    { "=x", -EINVAL }, { "A", -EINVAL },
                { "A B=1", -EINVAL }, { "A\n=1", -EINVAL }, { "", -EINVAL },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(free) char *one = strdup(t[i].in);
                char *v[] = { one, NULL };

                if (env_check(v, NULL) != t[i].r)
                        fail_msg("row %zu '%s'", i, t[i].in);
        }
        assert_int_equal(env_check(NULL, NULL), 0);
}

static void test_cuda(void **state)
{
        static const struct {
                const char *least, *exact, *allowed, *have;
                int r;
                const char *why;
        } t[] = {
                { NULL, NULL, NULL, NULL, 0, "" },
                { "", "", "", "12.4", 0, "" },
                { "12.4", NULL, NULL, "12.4", 0, "" },
                { "12", "11.8", NULL, "12.4", 0, "" },
                { "12.10", NULL, NULL, "12.4", -ENOSPC,
                  "minCudaVersion: 12.10 wanted, this host's driver has CUDA 12.4" },
                { NULL, "13.0", NULL, "12.4", -ENOSPC,
                  "cudaVersion: 13.0 wanted, this host's driver has CUDA 12.4" },
                { NULL, NULL, "12.4", "12.4", 0, "" },
                { NULL, NULL, "12.5", "12.4", -ENOSPC,
                  "allowedCudaVersions: 12.5 wanted, this host's driver has CUDA 12.4" },
                { "11.0", NULL, NULL, NULL, -ENOSPC,
                  "minCudaVersion: 11.0 wanted, this host has no driver" },
                { "new", NULL, NULL, "12.4", -EINVAL,
                  "minCudaVersion: 'new' is no version such as 12.4" },
                { NULL, "12.", NULL, "12.4", -EINVAL,
                  "cudaVersion: '12.' is no version such as 12.4" },
                { NULL, NULL, "12.4.1", "12.4", -EINVAL,
                  "allowedCudaVersions: '12.4.1' is no version such as 12.4" },
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char *allowed[] = { (char *) (uintptr_t) t[i].allowed, NULL };
                const struct cuda_wish w = { { t[i].least, t[i].exact },
                                             t[i].allowed ? allowed : NULL };
                struct err e = { 0 };
                int r = cuda_check(&w, t[i].have, &e);

                if (r != t[i].r || !str_eq(e.msg, t[i].why))
                        fail_msg("row %zu: %d %s", i, r, e.msg);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_docker_args), cmocka_unit_test(test_too_long),
                cmocka_unit_test(test_env_merge),   cmocka_unit_test(test_env_check),
                cmocka_unit_test(test_cuda),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
