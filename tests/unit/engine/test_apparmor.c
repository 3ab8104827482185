/* Profiles: the text, AppArmor's own parser over it, the cache and what is written to the kernel, which
 * is a directory of files here.  What the kernel makes of it is shown by the lab. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/fd.h"
#include "engine/sandbox/apparmor_priv.h"
#include "model/limits.h"

struct world {
        char dir[32];
        int fd, kernel, cache, notes;
        struct apparmor *a;
};

static void make_file(int dir, const char *name, const char *text)
{
        assert_int_equal(fd_replace_file(dir, name, text, strlen(text), 0600, false), 0);
}

static bool is_there(int dir, const char *name)
{
        return faccessat(dir, name, F_OK, 0) == 0;
}

static struct apparmor *open_world(struct world *w)
{
        struct apparmor *a = NULL;
        struct err e = { 0 };
        const struct apparmor in = { .kernel = dup(w->kernel),
                                     .cache = dup(w->cache),
                                     .notes = dup(w->notes),
                                     .parser = "/usr/sbin/apparmor_parser",
                                     .features = "/etc/apparmor.d/abi/3.0" };

        if (apparmor_open_at(&in, &a, &e) < 0)
                fail_msg("%s", e.msg);
        return a;
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w)
                return -1;
        (void) snprintf(w->dir, sizeof w->dir, "/tmp/hvmm-test-XXXXXX");
        if (!mkdtemp(w->dir))
                return -1;
        w->fd = open(w->dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
        w->kernel = fd_mkdir_beneath(w->fd, "kernel", 0700);
        w->cache = fd_mkdir_beneath(w->fd, "cache", 0700);
        w->notes = fd_mkdir_beneath(w->fd, "run/abc/apparmor", 0700);
        make_file(w->kernel, ".replace", "");
        make_file(w->kernel, ".remove", "");
        w->a = open_world(w);
        *state = w;
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;

        (void) apparmor_close(w->a);
        (void) fd_close(w->kernel);
        (void) fd_close(w->cache);
        (void) fd_close(w->notes);
        (void) fd_close(w->fd);
        (void) fd_rm_rf(AT_FDCWD, w->dir);
        free(w);
        return 0;
}

static void content(int dir, const char *name, char **ret, size_t *ret_len)
{
        assert_int_equal(fd_read_file(dir, name, 4U << 20, ret, ret_len), 0);
}

/* What was written to the kernel since the last time. */
static void told(const struct world *w, const char *file, const char *want)
{
        AUTO(free) char *text = NULL;
        size_t len;

        content(w->kernel, file, &text, &len);
        assert_string_equal(text, want);
        make_file(w->kernel, file, "");
}

static void test_names(void **state)
{
        static const struct {
                uint32_t slot;
                enum security_profile p;
                const char *name;
        } t[] = { { 1, SECURITY_NONE, "hvmm-1" },
                  { 12, SECURITY_STANDARD, "hvmm-12" },
                  { LIMIT_SLOTS, SECURITY_STRICT, "hvmm-4094-strict" },
                  { 7, SECURITY_COMPAT, "hvmm-7-compat" } };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                char name[APPARMOR_NAME_MAX];

                apparmor_name(t[i].slot, t[i].p, name);
                assert_string_equal(name, t[i].name);
        }
}

/* Every peer is the profile itself or what is unconfined, never a pattern over other slots. */
static void test_text(void **state)
{
        (void) state;
        for (int p = SECURITY_NONE + 1; p < SECURITY_PROFILE_COUNT; p++) {
                AUTO(strbuf_done) struct strbuf b = { 0 };
                const char *at;
                size_t own = 0;

                apparmor_text("hvmm-3-x", (enum security_profile) p, &b);
                assert_non_null(strstr(b.s, "\nprofile hvmm-3-x flags=(mediate_deleted) {\n"));
                assert_null(strchr(b.s, '%'));
                for (at = strstr(b.s, "peer="); at; at = strstr(at + 1, "peer=")) {
                        bool mine = str_after(at, "peer=hvmm-3-x,\n") != NULL;

                        assert_true(mine || str_after(at, "peer=unconfined,\n"));
                        own += mine;
                }
                assert_true(own >= 2);
                assert_int_equal(strstr(b.s, "ptrace (trace") == NULL, p == SECURITY_STRICT);
                assert_int_equal(strstr(b.s, "\ncapability net_bind_service,\n") == NULL,
                                 p == SECURITY_STRICT);
                assert_int_equal(strstr(b.s, "\ncapability net_raw,\n") != NULL,
                                 p == SECURITY_COMPAT);
                assert_non_null(strstr(b.s, "\ncapability chown,\n"));
                assert_null(strstr(b.s, "sys_admin"));
        }
}

/* All of them, and each is another text to the kernel. */
static void test_parser(void **state)
{
        struct world *w = *state;
        AUTO(free) char *last = NULL;
        size_t last_len = 0;

        for (int p = SECURITY_NONE + 1; p < SECURITY_PROFILE_COUNT; p++) {
                char name[APPARMOR_NAME_MAX];
                char *binary = NULL;
                struct err e = { 0 };
                size_t len = 0;

                apparmor_name(LIMIT_SLOTS, (enum security_profile) p, name);
                if (apparmor_compile(w->a, name, (enum security_profile) p, &binary, &len, &e) < 0)
                        fail_msg("%s: %s", name, e.msg);
                assert_true(len > 1000 && memmem(binary, len, name, strlen(name) + 1));
                assert_false(len == last_len && memcmp(binary, last, len) == 0);
                free(last);
                last = binary;
                last_len = len;
        }
}

static void test_parser_fails(void **state)
{
        static const struct {
                const char *parser, *features, *says;
        } t[] = { { "/nonexistent", NULL, "exit status 127: No such file or directory" },
                  { "/usr/sbin/apparmor_parser", "/nonexistent", "/nonexistent" } };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                struct apparmor a = *w->a;
                char *binary = NULL;
                struct err e = { 0 };
                size_t len = 77;

                a.parser = t[i].parser;
                a.features = t[i].features;
                assert_int_equal(
                        apparmor_compile(&a, "hvmm-1", SECURITY_STANDARD, &binary, &len, &e), -EIO);
                assert_null(binary);
                if (!strstr(e.msg, t[i].says) || strchr(e.msg, '\n'))
                        fail_msg("row %zu: %s", i, e.msg);
        }
}

static void test_prepare(void **state)
{
        struct world *w = *state;
        AUTO(free) char *sent = NULL, *again = NULL, *kept = NULL;
        struct err e = { 0 };
        size_t n_sent, n_again, n_kept;
        char file[64];

        assert_int_equal(apparmor_prepare(w->a, 12, SECURITY_NONE, &e), 0);
        assert_true(is_there(w->notes, "hvmm-12"));
        (void) snprintf(file, sizeof file, "%s-hvmm-12", w->a->key);
        content(w->cache, file, &kept, &n_kept);
        content(w->kernel, ".replace", &sent, &n_sent);
        assert_true(n_sent == n_kept && memcmp(sent, kept, n_sent) == 0);

        /* from now on out of the cache */
        w->a->parser = "/nonexistent";
        make_file(w->kernel, ".replace", "");
        assert_int_equal(apparmor_prepare(w->a, 12, SECURITY_STANDARD, &e), 0);
        content(w->kernel, ".replace", &again, &n_again);
        assert_true(n_again == n_kept && memcmp(again, kept, n_kept) == 0);

        /* and what is not there names the profile; its note stays, since nobody knows */
        assert_int_equal(apparmor_prepare(w->a, 12, SECURITY_STRICT, &e), -EIO);
        assert_non_null(strstr(e.msg, "AppArmor profile hvmm-12-strict: "));
        assert_true(is_there(w->notes, "hvmm-12-strict"));
}

static void test_limits(void **state)
{
        struct world *w = *state;

        assert_int_equal(apparmor_prepare(w->a, 0, SECURITY_STANDARD, NULL), -EINVAL);
        assert_int_equal(apparmor_prepare(w->a, LIMIT_SLOTS + 1, SECURITY_STANDARD, NULL), -EINVAL);
        assert_int_equal(apparmor_prepare(w->a, 1, SECURITY_PROFILE_COUNT, NULL), -EINVAL);
        assert_int_equal(apparmor_prepare(NULL, 1, SECURITY_STANDARD, NULL), 0);
        assert_int_equal(apparmor_remove(NULL, 1, NULL), 0);
        told(w, ".replace", "");
}

static void test_remove(void **state)
{
        struct world *w = *state;
        struct err e = { 0 };
        char file[64];

        assert_int_equal(apparmor_prepare(w->a, 1, SECURITY_STANDARD, &e), 0);
        assert_int_equal(apparmor_prepare(w->a, 12, SECURITY_COMPAT, &e), 0);
        assert_int_equal(apparmor_remove(w->a, 2, &e), 0); /* had none */
        told(w, ".remove", "");
        assert_int_equal(apparmor_remove(w->a, 12, &e), 0);
        told(w, ".remove", "hvmm-12-compat");
        assert_false(is_there(w->notes, "hvmm-12-compat"));
        assert_true(is_there(w->notes, "hvmm-1"));
        assert_int_equal(apparmor_remove(w->a, 12, &e), 0);
        told(w, ".remove", "");
        (void) snprintf(file, sizeof file, "%s-hvmm-12-compat", w->a->key);
        assert_true(is_there(w->cache, file));
        assert_int_equal(apparmor_remove(w->a, 1, &e), 0);
        told(w, ".remove", "hvmm-1");

        /* a kernel that refuses: the note stays for the next try */
        make_file(w->notes, "hvmm-9", "");
        assert_int_equal(unlinkat(w->kernel, ".remove", 0), 0);
        assert_int_equal(mkdirat(w->kernel, ".remove", 0700), 0);
        assert_int_equal(apparmor_remove(w->a, 9, &e), -EISDIR);
        assert_true(is_there(w->notes, "hvmm-9"));
}

static void test_tidy(void **state)
{
        struct world *w = *state;
        char own[64], tmp[80];

        (void) snprintf(own, sizeof own, "%s-hvmm-1", w->a->key);
        (void) snprintf(tmp, sizeof tmp, ".%s.tmp", own);
        make_file(w->cache, own, "x");
        make_file(w->cache, tmp, "x");
        make_file(w->cache, "0123456789abcdef-hvmm-1", "x");
        (void) apparmor_close(w->a);
        w->a = open_world(w);
        assert_true(is_there(w->cache, own));
        assert_false(is_there(w->cache, tmp));
        assert_false(is_there(w->cache, "0123456789abcdef-hvmm-1"));
}

struct seen {
        uint32_t slots[8];
        size_t n;
};

static int see(void *arg, uint32_t slot)
{
        struct seen *s = arg;

        s->slots[s->n++] = slot;
        return 0;
}

static void test_left(void **state)
{
        struct world *w = *state;
        AUTO(fd) int run = fd_open_beneath(w->fd, "run", O_PATH | O_DIRECTORY, 0);
        struct seen s = { .n = 0 };
        struct err e = { 0 };

        make_file(w->notes, "hvmm-5-strict", "");
        make_file(w->notes, "hvmm-0", "");
        make_file(w->notes, "hvmm-99999", "");
        make_file(w->notes, "other", "");
        assert_int_equal(apparmor_left(run, "abc", see, &s), 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(s.slots[0], 5);
        assert_int_equal(apparmor_left(run, "xyz", see, &s), 0);
        assert_int_equal(s.n, 1);
        assert_int_equal(apparmor_forget(w->a, run, "abc", 5, &e), 0);
        told(w, ".remove", "hvmm-5-strict");
        assert_false(is_there(w->notes, "hvmm-5-strict"));
}

static void test_label(void **state)
{
        char label[APPARMOR_NAME_MAX] = "canary";

        (void) state;
        assert_int_equal(apparmor_label(getpid(), label), 0);
        assert_string_equal(label, ""); /* none of ours, with AppArmor or without */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_text),
                cmocka_unit_test_setup_teardown(test_parser, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_parser_fails, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_prepare, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_limits, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_remove, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_tidy, world_up, world_down),
                cmocka_unit_test_setup_teardown(test_left, world_up, world_down),
                cmocka_unit_test(test_label),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
