/* test_logdir.c - a cluster's small files: found again, removed, and never shared with the next one. */
#include "engine/boot/logdir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

struct world {
        char path[32];
        int dir;
};

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        if (!w)
                return -1;
        *state = w;
        (void) snprintf(w->path, sizeof w->path, "/tmp/logdir.XXXXXX");
        if (!mkdtemp(w->path))
                return -1;
        w->dir = open(w->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        return w->dir < 0 ? -1 : 0;
}

static int world_down(void **state)
{
        struct world *w = *state;
        int r = fd_rm_rf(AT_FDCWD, w->path);

        (void) close(w->dir);
        free(w);
        return r;
}

static struct logdir opened(const struct world *w, const char *cluster)
{
        struct logdir l = { { -EBADF, -EBADF }, -EBADF };
        struct err e = { 0 };

        if (logdir_open(w->dir, cluster, &l, &e) < 0)
                fail_msg("%s", e.msg);
        return l;
}

static void removed(const struct world *w, const char *cluster)
{
        struct err e = { 0 };

        if (logdir_remove(w->dir, cluster, &e) < 0)
                fail_msg("%s", e.msg);
        assert_int_equal(faccessat(w->dir, cluster, F_OK, 0), -1);
}

static size_t spares(const struct world *w)
{
        struct stat st;

        return fstatat(w->dir, LOGDIR_SPARES, &st, 0) < 0 ? 0 : st.st_nlink - 2;
}

static off_t size_of(int fd)
{
        struct stat st;

        assert_int_equal(fstat(fd, &st), 0);
        return st.st_size;
}

static void test_logs_stay_and_the_status_does_not(void **state)
{
        struct world *w = *state;
        struct logdir l = opened(w, "a");

        assert_int_equal(write(l.log[0], "one", 3), 3);
        assert_int_equal(write(l.status, "{}", 2), 2);
        logdir_done(&l);
        l = opened(w, "a");
        assert_int_equal(size_of(l.log[0]), 3);
        assert_int_equal(size_of(l.log[1]), 0);
        assert_int_equal(size_of(l.status), 0);
        logdir_done(&l);
}

/* Whoever has the old files open, to read or to write, has nothing in common with the new cluster. */
static void test_a_spare_shares_nothing(void **state)
{
        static const char secret[] = "of the next tenant";
        struct world *w = *state;
        struct logdir old = opened(w, "a"), l;
        int *const was[] = { &old.log[0], &old.log[1], &old.status };
        int *const is[] = { &l.log[0], &l.log[1], &l.status };

        assert_int_equal(write(old.log[0], "mine", 4), 4);
        removed(w, "a");
        assert_int_equal(spares(w), 1);
        l = opened(w, "b");
        assert_int_equal(spares(w), 0); /* that very directory */
        for (size_t i = 0; i < 3; i++) {
                char got[64];

                assert_int_equal(size_of(*is[i]), 0);
                assert_int_equal(write(*is[i], secret, sizeof secret), sizeof secret);
                assert_int_equal(pread(*was[i], got, sizeof got, 0), i == 0 ? 4 : 0);
                assert_int_equal(pwrite(*was[i], "spoiled", 7, 0), 7);
                assert_int_equal(pread(*is[i], got, sizeof got, 0), sizeof secret);
                assert_string_equal(got, secret);
        }
        logdir_done(&old);
        logdir_done(&l);
}

static void test_remove_is_idempotent(void **state)
{
        struct world *w = *state;
        struct logdir l = opened(w, "a");

        logdir_done(&l);
        removed(w, "a");
        removed(w, "a");
        removed(w, "never");
        /* a removal that was killed in the middle */
        l = opened(w, "c");
        logdir_done(&l);
        assert_int_equal(unlinkat(w->dir, "c/log.1", 0), 0);
        removed(w, "c");
        l = opened(w, "d");
        assert_int_equal(size_of(l.log[1]), 0);
        logdir_done(&l);
}

/* A directory that somebody filled with other things is not passed on. */
static void test_spares_hold_three_files(void **state)
{
        struct world *w = *state;
        struct logdir l = opened(w, "a");

        logdir_done(&l);
        (void) close(openat(w->dir, "a/more", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
        removed(w, "a");
        l = opened(w, "b");
        assert_int_equal(faccessat(w->dir, "b/more", F_OK, 0), -1);
        logdir_done(&l);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(test_##name, world_up, world_down)
        const struct CMUnitTest tests[] = {
                T(logs_stay_and_the_status_does_not),
                T(a_spare_shares_nothing),
                T(remove_is_idempotent),
                T(spares_hold_three_files),
        };
#undef T

        return cmocka_run_group_tests(tests, NULL, NULL);
}
