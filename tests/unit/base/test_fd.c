/* test_fd.c - files below a directory that links cannot leave; replacing, removing, whole reads. */
#include "base/fd.h"

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

struct place {
        char path[64];
        int fd;
};

/* A directory with: sub/file ("inside"), out -> /etc, up -> .., in -> sub, abs -> /sub/file */
static int setup(void **state)
{
        struct place *p = calloc(1, sizeof *p);

        assert_non_null(p);
        (void) snprintf(p->path, sizeof p->path, "/tmp/test_fd-XXXXXX");
        assert_non_null(mkdtemp(p->path));
        p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(p->fd >= 0);
        assert_int_equal(mkdirat(p->fd, "sub", 0755), 0);
        assert_int_equal(fd_replace_file(p->fd, "sub/file", "inside", 6, 0640, false), 0);
        assert_int_equal(symlinkat("/etc", p->fd, "out"), 0);
        assert_int_equal(symlinkat("..", p->fd, "up"), 0);
        assert_int_equal(symlinkat("sub", p->fd, "in"), 0);
        assert_int_equal(symlinkat("/sub/file", p->fd, "abs"), 0);
        *state = p;
        return 0;
}

static int teardown(void **state)
{
        struct place *p = *state;

        (void) fd_close(p->fd);
        assert_int_equal(fd_rm_rf(AT_FDCWD, p->path), 0);
        assert_int_equal(access(p->path, F_OK), -1);
        free(p);
        return 0;
}

static void test_open(void **state)
{
        static const struct {
                const char *path;
                int beneath, in_root; /* 0: opens */
        } t[] = {
                { "sub/file", 0, 0 },
                { "in/file", -ELOOP, 0 },
                { "abs", -ELOOP, 0 },
                { "out/passwd", -ELOOP, -ENOENT },
                { "up", -ELOOP, 0 }, /* ".." of the root is the root */
                { "sub/../sub/file", 0, 0 },
                { "../etc/passwd", -EXDEV, -ENOENT },
                { "sub/../../x", -EXDEV, -ENOENT },
                { "/etc/passwd", -EXDEV, -ENOENT },
                { "none", -ENOENT, -ENOENT },
                { "sub/file/x", -ENOTDIR, -ENOTDIR },
        };
        const struct place *p = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                int a = fd_open_beneath(p->fd, t[i].path, O_RDONLY, 0);
                int b = fd_open_in_root(p->fd, t[i].path, O_RDONLY, 0);

                if ((a < 0 ? a : 0) != t[i].beneath || (b < 0 ? b : 0) != t[i].in_root)
                        fail_msg("%s: %d %d", t[i].path, a, b);
                if (a >= 0)
                        assert_int_equal(fcntl(a, F_GETFD), FD_CLOEXEC);
                (void) fd_close(a);
                (void) fd_close(b);
        }
}

static void test_magic_links(void **state)
{
        AUTO(fd) int proc = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
        int r;

        (void) state;
        assert_true(proc >= 0);
        r = fd_open_in_root(proc, "exe", O_RDONLY, 0);
        assert_true(r == -ELOOP || r == -EXDEV);
        r = fd_open_beneath(proc, "exe", O_RDONLY, 0);
        assert_true(r == -ELOOP || r == -EXDEV);
}

static void test_mkdir(void **state)
{
        const struct place *p = *state;
        AUTO(fd) int a = fd_mkdir_beneath(p->fd, "x/y//z", 0700);
        AUTO(fd) int b = fd_mkdir_beneath(p->fd, "x/y/z", 0700);
        struct stat st, st2;

        assert_true(a >= 0 && b >= 0);
        assert_int_equal(fstat(a, &st), 0);
        assert_int_equal(fstatat(p->fd, "x/y/z", &st2, 0), 0);
        assert_true(st.st_ino == st2.st_ino && S_ISDIR(st.st_mode));
        assert_int_equal(fd_mkdir_beneath(p->fd, "in/new", 0700), -ELOOP);
        assert_int_equal(fd_mkdir_beneath(p->fd, "../new", 0700), -EXDEV);
        assert_int_equal(fd_mkdir_beneath(p->fd, "sub/file/new", 0700), -ENOTDIR);
        assert_int_equal(faccessat(p->fd, "sub/new", F_OK, 0), -1);
}

static void test_read_file(void **state)
{
        const struct place *p = *state;
        AUTO(free) char *s = NULL;
        size_t n = 0;
        char *untouched = NULL;

        assert_int_equal(fd_read_file(p->fd, "sub/file", 6, &s, &n), 0);
        assert_int_equal(n, 6);
        assert_string_equal(s, "inside");
        assert_int_equal(fd_read_file(p->fd, "sub/file", 5, &untouched, NULL), -EFBIG);
        assert_int_equal(fd_read_file(p->fd, "none", 5, &untouched, NULL), -ENOENT);
        assert_int_equal(fd_read_file(p->fd, "sub", 5, &untouched, NULL), -EISDIR);
        assert_null(untouched);
}

static void test_replace(void **state)
{
        const struct place *p = *state;
        AUTO(free) char *s = NULL, *t = NULL;
        struct stat st;
        char longer[600];

        assert_int_equal(fd_replace_file(p->fd, "f", "one", 3, 0600, true), 0);
        assert_int_equal(fd_replace_file(p->fd, "f.new", "left by a crash", 15, 0600, false), 0);
        assert_int_equal(fd_replace_file(p->fd, "f", "second", 6, 0600, true), 0);
        assert_int_equal(fd_read_file(p->fd, "f", 100, &s, NULL), 0);
        assert_string_equal(s, "second");
        assert_int_equal(fstatat(p->fd, "f.new", &st, 0), -1);
        assert_int_equal(fstatat(p->fd, "f", &st, 0), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        /* a link in the way is replaced, not followed */
        assert_int_equal(symlinkat("sub/file", p->fd, "link"), 0);
        assert_int_equal(fd_replace_file(p->fd, "link", "x", 1, 0600, false), 0);
        assert_int_equal(fd_read_file(p->fd, "sub/file", 100, &t, NULL), 0);
        assert_string_equal(t, "inside");
        /* and a failure leaves nothing */
        assert_int_equal(fd_replace_file(p->fd, "sub", "x", 1, 0600, false), -EISDIR);
        assert_int_equal(fstatat(p->fd, "sub.new", &st, 0), -1);
        assert_int_equal(fd_replace_file(p->fd, "none/f", "x", 1, 0600, false), -ENOENT);
        memset(longer, 'x', sizeof longer - 1);
        longer[sizeof longer - 1] = '\0';
        assert_int_equal(fd_replace_file(p->fd, longer, "x", 1, 0600, false), -ENAMETOOLONG);
}

static void test_write_value(void **state)
{
        const struct place *p = *state;

        assert_int_equal(fd_write_value(p->fd, "none", "1"), -ENOENT);
        assert_int_equal(fd_write_value(p->fd, "sub/file", "IN"), 0);
        assert_int_equal(fd_write_value(p->fd, "sub", "1"), -EISDIR);
}

static void test_rm_rf(void **state)
{
        const struct place *p = *state;
        AUTO(fd) int deep = fd_mkdir_beneath(p->fd, "t/a/b/c", 0700);
        AUTO(free) char *s = NULL;

        assert_true(deep >= 0);
        assert_int_equal(symlinkat("../../../sub", deep, "link"), 0);
        assert_int_equal(fd_replace_file(deep, "f", "x", 1, 0400, false), 0);
        assert_int_equal(fd_rm_rf(p->fd, "t"), 0);
        assert_int_equal(fd_rm_rf(p->fd, "t"), 0); /* gone already */
        assert_int_equal(faccessat(p->fd, "t", F_OK, 0), -1);
        assert_int_equal(fd_read_file(p->fd, "sub/file", 100, &s, NULL), 0); /* behind the link */
        assert_int_equal(fd_rm_rf(p->fd, "in"), 0);                          /* the link alone */
        assert_int_equal(faccessat(p->fd, "sub/file", F_OK, 0), 0);
        assert_int_equal(fd_rm_rf(p->fd, "sub/file"), 0);
        assert_int_equal(faccessat(p->fd, "sub/file", F_OK, 0), -1);
}

/* Deeper than there are descriptors, with files at every level and in the way of what is moved. */
static void test_rm_rf_of_depth(void **state)
{
        const struct place *p = *state;
        int at = fd_mkdir_beneath(p->fd, "t", 0700);

        assert_int_equal(fd_replace_file(at, ".removed-0", "x", 1, 0400, false), 0);
        for (unsigned i = 0; i < 6000; i++) {
                int below;

                assert_int_equal(mkdirat(at, "d", 0700), 0);
                below = openat(at, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_true(below >= 0);
                if (i % 500 == 0)
                        assert_int_equal(fd_replace_file(below, "f", "x", 1, 0400, false), 0);
                (void) fd_close(at);
                at = below;
        }
        (void) fd_close(at);
        assert_int_equal(fd_rm_rf(p->fd, "t"), 0);
        assert_int_equal(faccessat(p->fd, "t", F_OK, 0), -1);
}

static void test_full_transfers(void **state)
{
        static char out[300000], in[300000];
        int p[2];
        pid_t pid;

        (void) state;
        for (size_t i = 0; i < sizeof out; i++)
                out[i] = (char) (i * 7);
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0)
                _exit(fd_write_full(p[1], out, sizeof out) == 0 ? 0 : 1);
        p[1] = fd_close(p[1]);
        assert_int_equal(fd_read_full(p[0], in, sizeof in), sizeof in);
        assert_memory_equal(in, out, sizeof in);
        assert_int_equal(fd_read_full(p[0], in, sizeof in), 0);
        p[0] = fd_close(p[0]);
        assert_int_equal(fd_read_full(-1, in, 1), -EBADF);
        assert_int_equal(fd_write_full(-1, in, 1), -EBADF);
}

static void test_flags(void **state)
{
        int p[2], n, taken;

        (void) state;
        assert_int_equal(pipe2(p, O_CLOEXEC), 0);
        assert_int_equal(fd_set_nonblock(p[0], true), 0);
        assert_int_equal(fd_read_full(p[0], &n, 1), -EAGAIN);
        assert_int_equal(fd_set_nonblock(p[0], false), 0);
        assert_int_equal(fcntl(p[0], F_GETFL) & O_NONBLOCK, 0);
        assert_int_equal(fd_set_cloexec(p[0], false), 0);
        assert_int_equal(fcntl(p[0], F_GETFD), 0);
        assert_int_equal(fd_set_cloexec(p[0], true), 0);
        assert_int_equal(fcntl(p[0], F_GETFD), FD_CLOEXEC);
        taken = fd_take(&p[0]);
        assert_int_equal(p[0], -EBADF);
        errno = ENOTTY;
        assert_int_equal(fd_close(taken), -EBADF);
        assert_int_equal(fd_close(-EBADF), -EBADF);
        assert_int_equal(errno, ENOTTY);
        assert_int_equal(fd_set_nonblock(taken, true), -EBADF);
        assert_int_equal(fd_set_cloexec(taken, true), -EBADF);
        (void) fd_close(p[1]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_open, setup, teardown),
                cmocka_unit_test(test_magic_links),
                cmocka_unit_test_setup_teardown(test_mkdir, setup, teardown),
                cmocka_unit_test_setup_teardown(test_read_file, setup, teardown),
                cmocka_unit_test_setup_teardown(test_replace, setup, teardown),
                cmocka_unit_test_setup_teardown(test_write_value, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rm_rf, setup, teardown),
                cmocka_unit_test_setup_teardown(test_rm_rf_of_depth, setup, teardown),
                cmocka_unit_test(test_full_transfers),
                cmocka_unit_test(test_flags),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
