/* test_frame.c - messages and descriptors over a socketpair, in every fragmentation. */
#include "base/frame.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"

struct world {
        struct frame_conn *a, *b;
};

static int up(void **state)
{
        struct world *w = calloc(1, sizeof *w);
        int p[2];

        if (!w || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
                return -1;
        *state = w;
        return frame_conn_new(p[0], &w->a) < 0 || frame_conn_new(p[1], &w->b) < 0 ? -1 : 0;
}

static int down(void **state)
{
        struct world *w = *state;

        (void) frame_conn_free(w->a);
        (void) frame_conn_free(w->b);
        free(w);
        return 0;
}

static void test_round_trip(void **state)
{
        struct world *w = *state;
        AUTO(json_put) json_t *j = json_pack("{s:s, s:i}", "type", "x", "n", 42);
        AUTO(frame_msg_done) struct frame_msg m = { 0 };
        int p[2];
        char c;

        assert_int_equal(pipe(p), 0);
        assert_int_equal(frame_send(w->a, j, &p[1], 1), 0);
        (void) close(p[1]);
        assert_int_equal(frame_recv(w->b, &m, NULL), 1);
        assert_true(json_equal(j, m.json));
        assert_int_equal(m.n_fds, 1);
        assert_int_equal(write(m.fds[0], "k", 1), 1);
        assert_int_equal(read(p[0], &c, 1), 1);
        (void) close(p[0]);
}

/* Descriptors stay with their own message when many are read at once. */
static void test_many_with_fds(void **state)
{
        struct world *w = *state;

        for (int i = 0; i < 20; i++) {
                AUTO(json_put) json_t *j = json_pack("{s:i}", "n", i);
                AUTO(fd) int fd = dup(0);

                assert_int_equal(frame_send(w->a, j, &fd, i % 3 == 0), 0);
        }
        for (int i = 0; i < 20; i++) {
                AUTO(frame_msg_done) struct frame_msg m = { 0 };

                assert_int_equal(frame_recv(w->b, &m, NULL), 1);
                assert_int_equal(json_integer_value(json_object_get(m.json, "n")), i);
                assert_int_equal(m.n_fds, i % 3 == 0);
        }
}

/* Who takes some of them learns that there are more, for no event will say so. */
static void test_more_are_ready(void **state)
{
        struct world *w = *state;
        AUTO(json_put) json_t *j = json_pack("{s:s}", "type", "x");
        int n = 0;

        assert_false(frame_ready(w->b));
        for (int i = 0; i < 100; i++)
                assert_int_equal(frame_send(w->a, j, NULL, 0), 0);
        assert_false(frame_ready(w->b)); /* nothing was read */
        do {
                AUTO(frame_msg_done) struct frame_msg m = { 0 };

                assert_int_equal(frame_recv(w->b, &m, NULL), 1);
                n++;
        } while (frame_ready(w->b));
        assert_int_equal(n, 100);
}

static void test_every_split(void **state)
{
        static const char wire[] = "\0\0\0\7\1\0\0\0{\"n\":1}\0\0\0\2\1\0\0\0{}";

        (void) state;
        for (size_t cut = 1; cut < sizeof wire - 1; cut++) {
                AUTO(frame_conn_free) struct frame_conn *c = NULL;
                struct frame_msg m;
                int p[2], got = 0;

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
                assert_int_equal(frame_conn_new(p[0], &c), 0);
                assert_int_equal(write(p[1], wire, cut), cut);
                while (frame_recv(c, &m, NULL) == 1) {
                        frame_msg_done(&m);
                        got++;
                }
                assert_int_equal(write(p[1], wire + cut, sizeof wire - 1 - cut),
                                 sizeof wire - 1 - cut);
                while (frame_recv(c, &m, NULL) == 1) {
                        frame_msg_done(&m);
                        got++;
                }
                assert_int_equal(got, 2);
                (void) close(p[1]);
                assert_int_equal(frame_recv(c, &m, NULL), -EPIPE);
        }
}

static void test_broken(void **state)
{
        static const struct {
                const char *bytes;
                size_t len;
        } t[] = {
                { "\0\0\0\2\2\0\0\0{}", 10 },                  /* version */
                { "\xff\0\0\2\1\0\0\0{}", 10 },                /* length */
                { "\0\0\0\2\1\xff\0\0{}", 10 },                /* descriptors */
                { "\0\0\0\2\1\1\0\0{}", 10 },                  /* one announced, none came */
                { "\0\0\0\2\1\0\0\0{x", 10 },                  /* not JSON */
                { "\0\0\0\x0b\1\0\0\0{\"a\":1,\"a\":2}", 22 }, /* cut, then twice the same key */
        };

        (void) state;
        for (size_t i = 0; i < NELEM(t); i++) {
                AUTO(frame_conn_free) struct frame_conn *c = NULL;
                struct frame_msg m;
                struct err e = { 0 };
                int p[2];

                assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, p), 0);
                assert_int_equal(frame_conn_new(p[0], &c), 0);
                assert_int_equal(write(p[1], t[i].bytes, t[i].len), t[i].len);
                if (frame_recv(c, &m, &e) != -EPROTO || !*e.msg)
                        fail_msg("row %zu was not refused", i);
                (void) close(p[1]);
        }
}

/* More than a socket buffer: queued, flushed as the peer reads. */
static void test_large(void **state)
{
        struct world *w = *state;
        size_t len = 3U << 20;
        AUTO(free) char *big = malloc(len + 1);
        AUTO(json_put) json_t *j = NULL;
        AUTO(frame_msg_done) struct frame_msg m = { 0 };
        int r = 0;

        memset(big, 'x', len);
        big[len] = '\0';
        j = json_pack("{s:s}", "s", big);
        assert_int_equal(frame_send(w->a, j, NULL, 0), 0);
        assert_true(frame_pending(w->a));
        for (int i = 0; i < 1000 && r == 0; i++) {
                r = frame_recv(w->b, &m, NULL);
                assert_int_equal(frame_flush(w->a), 0);
        }
        assert_int_equal(r, 1);
        assert_true(json_equal(j, m.json));
}

static void test_deadline(void **state)
{
        struct world *w = *state;
        struct frame_msg m;

        assert_int_equal(frame_recv_wait(w->b, &m, clock_mono_us() + 20000, NULL), -ETIMEDOUT);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_round_trip, up, down),
                cmocka_unit_test_setup_teardown(test_many_with_fds, up, down),
                cmocka_unit_test_setup_teardown(test_more_are_ready, up, down),
                cmocka_unit_test(test_every_split),
                cmocka_unit_test(test_broken),
                cmocka_unit_test_setup_teardown(test_large, up, down),
                cmocka_unit_test_setup_teardown(test_deadline, up, down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
