/* test_ring.c - the log of two files: lines, turns, offsets, restarts, full disks. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "base/mem.h"
#include "monitor/ring.h"

#define HALF   (64U << 10)
#define T0_NS  1795359287123456789ULL /* 2026-11-22T14:54:47.123456789Z */
#define STAMP  "2026-11-22T14:54:47.123456789Z"
#define PREFIX 41U /* bytes around the text of a line */

struct world {
        char dir[32];
        int dirfd, fd[2];
        struct ring *ring;
};

static int ring_again(struct world *w)
{
        free(w->ring);
        w->ring = calloc(1, sizeof *w->ring);
        return ring_open(w->ring, w->fd[0], w->fd[1], HALF, NULL);
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);

        strcpy(w->dir, "/tmp/hvmm-ring-XXXXXX");
        if (!mkdtemp(w->dir))
                return -1;
        w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        w->fd[0] = openat(w->dirfd, "log.0", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        w->fd[1] = openat(w->dirfd, "log.1", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        *state = w;
        return ring_again(w);
}

static int world_down(void **state)
{
        struct world *w = *state;

        free(w->ring);
        (void) unlinkat(w->dirfd, "log.0", 0);
        (void) unlinkat(w->dirfd, "log.1", 0);
        fd_close(w->dirfd);
        fd_close(w->fd[0]);
        fd_close(w->fd[1]);
        (void) rmdir(w->dir);
        free(w);
        return 0;
}

static void add(struct world *w, enum attach_channel c, const char *text)
{
        ring_add(w->ring, c, text, strlen(text), T0_NS);
}

static size_t content(int fd, char *buf, size_t cap)
{
        ssize_t n = pread(fd, buf, cap - 1, 0);

        assert_true(n >= 0);
        buf[n] = '\0';
        return (size_t) n;
}

static void test_lines(void **state)
{
        struct world *w = *state;
        char buf[4096];

        add(w, ATTACH_STDOUT, "one\ntw");
        assert_true(ring_waiting(w->ring));
        add(w, ATTACH_STDERR, "err\n");
        add(w, ATTACH_STDOUT, "o\n\nthree");
        ring_push(w->ring, T0_NS);
        assert_false(ring_waiting(w->ring));
        ring_push(w->ring, T0_NS); /* nothing to push */
        add(w, ATTACH_STDOUT, "\nlast");
        ring_close(w->ring, ATTACH_STDOUT, T0_NS + 1000000000);
        ring_close(w->ring, ATTACH_STDERR, T0_NS);
        content(w->fd[0], buf, sizeof buf);
        assert_string_equal(buf, "#log 0\n" STAMP " stdout F one\n" STAMP " stderr F err\n" STAMP
                                 " stdout F two\n" STAMP " stdout F \n" STAMP
                                 " stdout P three\n" STAMP " stdout F \n"
                                 "2026-11-22T14:54:48.123456789Z stdout F last\n");
        assert_int_equal(ring_start(w->ring), 0);
        assert_int_equal(ring_end(w->ring), strlen(buf) - 7);
}

static void test_close_ends_a_part(void **state)
{
        struct world *w = *state;
        char buf[4096];

        add(w, ATTACH_STDERR, "half");
        ring_push(w->ring, T0_NS);
        ring_close(w->ring, ATTACH_STDERR, T0_NS);
        ring_close(w->ring, ATTACH_STDERR, T0_NS); /* once is enough */
        content(w->fd[0], buf, sizeof buf);
        assert_string_equal(buf, "#log 0\n" STAMP " stderr P half\n" STAMP " stderr F \n");
}

/* Line lengths around the limit, fed in pieces of several sizes: the text is never longer than
 * 16 KiB, and joined parts give the line back. */
static void test_long_lines(void **state)
{
        static const size_t lens[] = { 0, 1, 16383, 16384, 16385, 32768, 32769, 40000 };
        static const size_t steps[] = { 1, 4096, 16384, 50000 };
        static char line[50001];
        AUTO(free) char *file = malloc(1 << 20);

        for (size_t i = 0; i < NELEM(lens); i++) {
                for (size_t j = 0; j < NELEM(steps); j++) {
                        struct world *w;
                        size_t parts = lens[i] <= 16384 ? 1 : (lens[i] + 16383) / 16384, got = 0;
                        char *p;

                        world_down(state);
                        assert_int_equal(world_up(state), 0);
                        w = *state;
                        memset(line, 'x', lens[i]);
                        line[lens[i]] = '\n';
                        for (size_t at = 0; at < lens[i] + 1; at += steps[j])
                                ring_add(w->ring, ATTACH_STDOUT, line + at,
                                         steps[j] < lens[i] + 1 - at ? steps[j] : lens[i] + 1 - at,
                                         T0_NS);
                        content(w->fd[0], file, 1 << 20);
                        p = strchr(file, '\n') + 1;
                        for (size_t k = 0; k < parts; k++) {
                                char *nl = strchr(p, '\n');

                                assert_non_null(nl);
                                assert_int_equal(p[38], k + 1 == parts ? 'F' : 'P');
                                assert_true((size_t) (nl - p) <= PREFIX - 1 + 16384);
                                got += (size_t) (nl - p) - (PREFIX - 1);
                                p = nl + 1;
                        }
                        assert_int_equal(*p, '\0');
                        assert_int_equal(got, lens[i]);
                }
        }
}

/* Read everything from @pos on; returns the number of lines and checks that they are whole. */
static unsigned read_all(struct world *w, uint64_t pos, char *first, size_t first_len)
{
        static char buf[ATTACH_LOG_LINE];
        unsigned lines = 0;

        for (;;) {
                size_t n = ring_read(w->ring, &pos, buf, sizeof buf);

                if (n == 0)
                        break;
                assert_int_equal(buf[n - 1], '\n');
                if (lines == 0)
                        (void) snprintf(first, first_len, "%.*s",
                                        (int) (strchr(buf, '\n') - buf) - (int) (PREFIX - 1),
                                        buf + PREFIX - 1);
                for (size_t i = 0; i < n; i++)
                        lines += buf[i] == '\n';
                pos += n;
        }
        assert_int_equal(pos, ring_end(w->ring));
        return lines;
}

/* 20 bytes of text, so that a line is 61 bytes and an offset tells its number. */
static void add_numbered(struct world *w, unsigned from, unsigned to)
{
        for (unsigned i = from; i < to; i++) {
                char text[32];

                (void) snprintf(text, sizeof text, "line %015u\n", i);
                add(w, ATTACH_STDOUT, text);
        }
}

static void test_turns(void **state)
{
        struct world *w = *state;
        const unsigned n = 5000, line = 61;
        char first[64], want[64];
        struct stat st;
        uint64_t pos;

        add_numbered(w, 0, n);
        assert_int_equal(ring_end(w->ring), (uint64_t) n * line);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(fstat(w->fd[i], &st), 0);
                assert_true(st.st_size <= HALF);
        }
        assert_int_equal(ring_start(w->ring) % line, 0);
        assert_true(ring_end(w->ring) - ring_start(w->ring) > HALF / 2);
        /* from the very beginning: the oldest kept line */
        (void) snprintf(want, sizeof want, "line %015u", (unsigned) ring_start(w->ring) / line);
        assert_int_equal(read_all(w, 0, first, sizeof first),
                         (ring_end(w->ring) - ring_start(w->ring)) / line);
        assert_string_equal(first, want);
        /* seek: old, a line's start, the middle, the last byte, the end, beyond */
        const struct {
                uint64_t ask, want;
        } t[] = {
                { 0, ring_start(w->ring) },
                { ring_start(w->ring), ring_start(w->ring) },
                { ring_start(w->ring) + 1, ring_start(w->ring) + line },
                { 4900ULL * line, 4900ULL * line },
                { 4900ULL * line + 1, 4901ULL * line },
                { 4901ULL * line - 1, 4901ULL * line },
                { 5000ULL * line - 1, 5000ULL * line },
                { 5000ULL * line, 5000ULL * line },
                { UINT64_MAX, 5000ULL * line },
        };
        for (size_t i = 0; i < NELEM(t); i++) {
                pos = t[i].ask;
                ring_seek(w->ring, &pos);
                if (pos != t[i].want)
                        fail_msg("row %zu: %llu", i, (unsigned long long) pos);
        }
}

static void test_goes_on_after_restart(void **state)
{
        struct world *w = *state;
        char first[64];

        for (unsigned round = 0; round < 30; round++) {
                uint64_t end = ring_end(w->ring), start = ring_start(w->ring);

                assert_int_equal(ring_again(w), 0);
                assert_int_equal(ring_end(w->ring), end);
                assert_int_equal(ring_start(w->ring), start);
                add_numbered(w, round * 100, round * 100 + 100);
        }
        assert_int_equal(ring_end(w->ring), 3000 * 61);
        (void) read_all(w, 2990 * 61, first, sizeof first);
        assert_string_equal(first, "line 000000000002990");
}

static void test_what_a_crash_leaves(void **state)
{
        static const struct {
                const char *log0, *log1;
                uint64_t start, end;
                unsigned active;
        } t[] = {
                { "", "", 0, 0, 0 },
                { "#log 0\n", "", 0, 0, 0 },
                { "#log 0\nab\n", "", 0, 3, 0 },
                { "#log 0\nab\ntorn", "", 0, 3, 0 },
                { "#log 0\ntorn only", "", 0, 0, 0 },
                { "#log 0\nab\n", "#log 3\ncd\n", 0, 6, 1 },
                { "#log 100\nab\n", "#log 40\ncd\n", 40, 103, 0 }, /* a gap between them */
                { "#log 100\nab\n", "#lo", 100, 103, 0 },          /* torn header */
                { "#lo", "#log 7\nab\n", 7, 10, 1 },
                { "garbage", "more garbage\n", 0, 0, 0 },
        };
        struct world *w = *state;

        for (size_t i = 0; i < NELEM(t); i++) {
                const char *text[2] = { t[i].log0, t[i].log1 };

                for (int f = 0; f < 2; f++) {
                        assert_int_equal(ftruncate(w->fd[f], 0), 0);
                        assert_int_equal(pwrite(w->fd[f], text[f], strlen(text[f]), 0),
                                         strlen(text[f]));
                }
                assert_int_equal(ring_again(w), 0);
                if (ring_start(w->ring) != t[i].start || ring_end(w->ring) != t[i].end ||
                    w->ring->active != t[i].active)
                        fail_msg("row %zu: %llu..%llu active %u", i,
                                 (unsigned long long) ring_start(w->ring),
                                 (unsigned long long) ring_end(w->ring), w->ring->active);
                add_numbered(w, 0, 3);
                assert_int_equal(ring_end(w->ring), t[i].end + 3 * 61);
        }
}

/* A stretch of zeros, as an unclean host shutdown can leave it: readers get past it. */
static void test_spoilt_stretch(void **state)
{
        struct world *w = *state;
        char first[64];
        uint64_t hole;

        add_numbered(w, 0, 10);
        hole = 7 + ring_end(w->ring);
        assert_int_equal(ftruncate(w->fd[0], (off_t) hole + 40000), 0);
        assert_int_equal(pwrite(w->fd[0], "\n", 1, (off_t) hole + 40000), 1);
        assert_int_equal(ring_again(w), 0);
        add_numbered(w, 10, 20);
        assert_true(read_all(w, hole - 7, first, sizeof first) >= 10);
}

static void test_write_errors_lose_lines_only(void **state)
{
        struct world *w = *state;
        struct rlimit old, small = { 1000, 1000 };
        uint64_t end;
        char buf[4096];

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        small.rlim_max = old.rlim_max;
        (void) signal(SIGXFSZ, SIG_IGN);
        add_numbered(w, 0, 10);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        add_numbered(w, 10, 40); /* the file may hold 16 of them */
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        end = ring_end(w->ring);
        assert_int_equal(end, 16 * 61);
        assert_int_equal(w->ring->lost, 24 * 61);
        assert_int_equal(content(w->fd[0], buf, sizeof buf), 7 + end); /* no torn line */
        add_numbered(w, 40, 41);
        assert_int_equal(w->ring->lost, 0);
        content(w->fd[0], buf, sizeof buf);
        assert_string_equal(buf + 7 + end,
                            STAMP " stderr F [log: 1464 bytes lost: File too large]\n" STAMP
                                  " stdout F line 000000000000040\n");
}

static void test_dates(void **state)
{
        static const struct {
                uint64_t s;
                const char *stamp;
        } t[] = {
                { 0, "1970-01-01T00:00:00.000000007Z" },
                { 951782399, "2000-02-28T23:59:59.000000007Z" },
                { 951782400, "2000-02-29T00:00:00.000000007Z" },
                { 1709251199, "2024-02-29T23:59:59.000000007Z" },
                { 1735689599, "2024-12-31T23:59:59.000000007Z" },
                { 4102444800, "2100-01-01T00:00:00.000000007Z" },
        };
        struct world *w = *state;
        char buf[8192];

        for (size_t i = 0; i < NELEM(t); i++) {
                uint64_t at = 7 + ring_end(w->ring);

                ring_add(w->ring, ATTACH_STDOUT, "\n", 1, t[i].s * 1000000000 + 7);
                content(w->fd[0], buf, sizeof buf);
                assert_memory_equal(buf + at, t[i].stamp, strlen(t[i].stamp));
        }
}

static void test_refuses(void **state)
{
        struct world *w = *state;
        struct ring *r = calloc(1, sizeof *r);
        struct err e = { 0 };
        int pipes[2];

        assert_int_equal(pipe(pipes), 0);
        assert_int_equal(ring_open(r, w->fd[0], pipes[0], HALF, &e), -EINVAL);
        assert_string_equal(e.msg, "log.1: not a regular file");
        assert_int_equal(ring_open(r, w->fd[0], w->fd[1], 1000, &e), -EINVAL);
        fd_close(pipes[0]);
        fd_close(pipes[1]);
        free(r);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
        const struct CMUnitTest tests[] = {
                T(test_lines),
                T(test_close_ends_a_part),
                T(test_long_lines),
                T(test_turns),
                T(test_goes_on_after_restart),
                T(test_what_a_crash_leaves),
                T(test_spoilt_stretch),
                T(test_write_errors_lose_lines_only),
                T(test_dates),
                T(test_refuses),
        };
#undef T

        return cmocka_run_group_tests(tests, NULL, NULL);
}
