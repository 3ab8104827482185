/* test_op.c - operations from both ends: results, reports, cancel, deadline, death, orders handed to
 * spares, and what a child has of its engine. */
#include "engine/op/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"

#define SPARES     3U
#define PATIENCE_S 20

/* One engine's side, and what it heard. */
struct world {
        sd_event *loop;
        struct op_runner *runner;
        struct op *op;
        int dones, r;
        struct err err;
        int reports;
        json_int_t last; /* "n" of the last report */
        bool ordered;    /* each report's n was one more than the one before */
        int fd;          /* of the last report that brought one */
};

/* --- bodies, in the child ----------------------------------------------------------------------- */

static int send_n(struct frame_conn *out, json_int_t n, const int *fds, size_t n_fds)
{
        AUTO(json_put) json_t *j = json_pack("{s:I}", "n", n);

        return op_report(out, j, fds, n_fds);
}

static int body_good(struct frame_conn *out, void *arg, struct err *e)
{
        (void) e;
        (void) send_n(out, 1, NULL, 0);
        return arg ? *(int *) arg : 0;
}

static int body_bad(struct frame_conn *out, void *arg, struct err *e)
{
        (void) out;
        return err_set(e, -ENOSPC, "%s", (const char *) arg);
}

static int body_talks(struct frame_conn *out, void *arg, struct err *e)
{
        (void) e;
        for (int i = 1; i <= *(int *) arg; i++)
                if (send_n(out, i, NULL, 0) < 0)
                        return -EIO;
        return 0;
}

static int body_hangs(struct frame_conn *out, void *arg, struct err *e)
{
        (void) arg;
        (void) e;
        (void) send_n(out, getpid(), NULL, 0);
        for (;;)
                (void) pause();
        return 0;
}

static int body_exits(struct frame_conn *out, void *arg, struct err *e)
{
        (void) out;
        (void) arg;
        (void) e;
        _exit(3);
}

static int body_dies(struct frame_conn *out, void *arg, struct err *e)
{
        (void) arg;
        (void) e;
        (void) send_n(out, 1, NULL, 0); /* heard although the end came right behind it */
        return raise(SIGKILL);
}

/* Which of the descriptors in the list are open here: a bit each. */
static int body_looks(struct frame_conn *out, void *arg, struct err *e)
{
        json_int_t open = 0;

        (void) e;
        for (const int *fd = arg; *fd >= 0; fd++)
                if (fcntl(*fd, F_GETFD) >= 0)
                        open |= 1 << (fd - (const int *) arg);
        return send_n(out, open, NULL, 0);
}

static int body_gives(struct frame_conn *out, void *arg, struct err *e)
{
        AUTO(fd) int fd = memfd_create("given", MFD_CLOEXEC);

        (void) arg;
        (void) e;
        if (write(fd, "given", 5) != 5)
                return -EIO;
        return send_n(out, 1, &fd, 1);
}

/* Signals are as a program expects them, whatever the engine's loop has blocked. */
static int body_signals(struct frame_conn *out, void *arg, struct err *e)
{
        sigset_t set;
        int sig = 0;

        (void) arg;
        (void) e;
        (void) sigprocmask(SIG_SETMASK, NULL, &set);
        (void) prctl(PR_GET_PDEATHSIG, &sig);
        return send_n(out, !sigismember(&set, SIGTERM) && sig == SIGKILL, NULL, 0);
}

/* An order: how long its text is, and how many descriptors came. */
static int on_order(struct frame_conn *out, struct frame_msg *order, void *arg, struct err *e)
{
        const char *text = order ? jsonx_str(order->json, "text") : NULL;

        (void) arg;
        if (!order)
                return 0;
        if (str_eq(text, "hang"))
                return body_hangs(out, NULL, e);
        return send_n(out, (json_int_t) (strlen(text) + (order->n_fds << 32)), NULL, 0);
}

/* --- the engine's side --------------------------------------------------------------------------- */

static void on_report(void *arg, const struct frame_msg *m)
{
        struct world *w = arg;
        json_int_t n = json_integer_value(json_object_get(m->json, "n"));

        w->ordered &= n == w->last + 1;
        w->last = n;
        w->reports++;
        if (m->n_fds == 1)
                w->fd = fcntl(m->fds[0], F_DUPFD_CLOEXEC, 3);
}

static void on_done(void *arg, int r, const struct err *e)
{
        struct world *w = arg;

        w->dones++;
        w->r = r;
        w->err = *e;
}

static int world_up(void **state)
{
        struct world *w = calloc(1, sizeof *w);
        sigset_t set;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGTERM);
        (void) sigprocmask(SIG_BLOCK, &set, NULL);
        if (!w || sd_event_new(&w->loop) < 0 ||
            op_runner_new(w->loop, on_order, NULL, SPARES, &w->runner, NULL) < 0)
                return -1;
        w->ordered = true;
        w->fd = -EBADF;
        *state = w;
        return 0;
}

static int world_down(void **state)
{
        struct world *w = *state;

        (void) op_runner_free(w->runner);
        w->loop = sd_event_unref(w->loop);
        w->fd = fd_close(w->fd);
        free(w);
        /* nobody is left: every child was reaped */
        return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : -1;
}

static void turn_until(struct world *w, bool (*there)(const struct world *w))
{
        uint64_t until = clock_mono_us() + PATIENCE_S * US_PER_S;

        while (!there(w)) {
                assert_true(sd_event_run(w->loop, 10 * US_PER_MS) >= 0);
                if (clock_mono_us() > until)
                        fail_msg("it never came: dones %d reports %d", w->dones, w->reports);
        }
}

static bool is_done(const struct world *w)
{
        return w->dones > 0;
}

static bool has_report(const struct world *w)
{
        return w->reports > 0;
}

static struct op_spec spec_of(struct world *w, op_body_fn *body, void *arg)
{
        return (struct op_spec){ .name = "test",
                                 .body = body,
                                 .body_arg = arg,
                                 .report = on_report,
                                 .done = on_done,
                                 .arg = w };
}

static void start(struct world *w, op_body_fn *body, void *arg)
{
        struct op_spec spec = spec_of(w, body, arg);
        struct err e = { 0 };

        if (op_start(w->runner, &spec, &w->op, &e) < 0)
                fail_msg("%s", e.msg);
        assert_int_equal(w->dones, 0); /* later, on the loop */
}

static void order(struct world *w, size_t len, size_t n_fds)
{
        AUTO(free) char *text = malloc(len + 1);
        AUTO(json_put) json_t *j = NULL;
        struct op_spec spec = spec_of(w, NULL, NULL);
        struct err e = { 0 };
        int fds[4];

        assert_non_null(text);
        memset(text, 'x', len);
        text[len] = '\0';
        j = json_pack("{s:s}", "text", text);
        for (size_t i = 0; i < n_fds; i++)
                fds[i] = memfd_create("order", MFD_CLOEXEC);
        w->dones = w->reports = 0;
        if (op_order(w->runner, &spec, j, fds, n_fds, &w->op, &e) < 0)
                fail_msg("%s", e.msg);
        for (size_t i = 0; i < n_fds; i++)
                (void) close(fds[i]);
        turn_until(w, is_done);
        assert_int_equal(w->r, 0);
        assert_true(w->last == (json_int_t) (len + (n_fds << 32)));
}

/* Every child of this process gets the signal. */
static void signal_children(int sig)
{
        AUTO(free) char *text = NULL;
        char path[64], *save = NULL;

        (void) snprintf(path, sizeof path, "/proc/self/task/%d/children", (int) getpid());
        assert_true(fd_read_file(AT_FDCWD, path, 4096, &text, NULL) >= 0);
        for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
                (void) kill((pid_t) strtol(w, NULL, 10), sig);
}

/* --- tests ------------------------------------------------------------------------------------------ */

static void test_results(void **state)
{
        struct world *w = *state;
        int value = 42;

        start(w, body_good, &value);
        turn_until(w, is_done);
        assert_int_equal(w->dones, 1);
        assert_int_equal(w->r, 42);
        assert_int_equal(w->reports, 1);

        w->dones = 0;
        start(w, body_bad, (void *) (uintptr_t) "the disk is full");
        turn_until(w, is_done);
        assert_int_equal(w->r, -ENOSPC);
        assert_string_equal(w->err.msg, "the disk is full");

        w->dones = 0;
        start(w, body_bad, (void *) (uintptr_t) "bytes of a stranger: \xff\xfe");
        turn_until(w, is_done);
        assert_int_equal(w->r, -ENOSPC);
        assert_true(*w->err.msg);
}

/* A child that does not read holds up nobody but itself. */
static void test_a_large_order_does_not_block(void **state)
{
        struct world *w = *state;
        const size_t len = 4U << 20; /* as large as an order can be */
        AUTO(free) char *text = calloc(1, len + 1);
        AUTO(json_put) json_t *j = NULL;
        struct op_spec spec = spec_of(w, NULL, NULL);
        struct err e = { 0 };
        uint64_t before;

        memset(text, 'x', len);
        j = json_pack("{s:s}", "text", text);
        order(w, 1, 0);
        for (int i = 0; i < 20; i++) /* spares are there again */
                (void) sd_event_run(w->loop, 10000);
        signal_children(SIGSTOP);
        w->dones = w->reports = 0;
        before = clock_mono_us();
        if (op_order(w->runner, &spec, j, NULL, 0, &w->op, &e) < 0)
                fail_msg("%s", e.msg);
        /* generous: who waited for the child would not come back */
        assert_true(clock_mono_us() - before < 5 * US_PER_S);
        assert_int_equal(w->dones, 0);
        (void) sd_event_run(w->loop, 10000);
        signal_children(SIGCONT);
        turn_until(w, is_done);
        assert_int_equal(w->r, 0);
        assert_true(w->last == (json_int_t) len);

        signal_children(SIGSTOP);
        w->dones = w->reports = 0;
        if (op_order(w->runner, &spec, j, NULL, 0, &w->op, &e) < 0)
                fail_msg("%s", e.msg);
        signal_children(SIGKILL); /* in the middle of its order */
        turn_until(w, is_done);
        assert_int_equal(w->r, -EOWNERDEAD);
}

static void test_reports_come_first_and_in_order(void **state)
{
        struct world *w = *state;
        int many = 20000; /* far more than a socket holds */

        start(w, body_talks, &many);
        turn_until(w, is_done);
        assert_int_equal(w->r, 0);
        assert_int_equal(w->reports, many);
        assert_true(w->ordered);
}

static void test_descriptors_of_reports(void **state)
{
        struct world *w = *state;
        char text[8] = "";

        start(w, body_gives, NULL);
        turn_until(w, is_done);
        assert_true(w->fd >= 0);
        assert_int_equal(pread(w->fd, text, sizeof text, 0), 5);
        assert_string_equal(text, "given");
}

static void test_cancel(void **state)
{
        struct world *w = *state;

        start(w, body_hangs, NULL);
        turn_until(w, has_report);
        op_cancel(w->op);
        op_cancel(w->op); /* twice is once */
        assert_int_equal(w->dones, 0);
        turn_until(w, is_done);
        assert_int_equal(w->r, -ECANCELED);
        assert_int_equal(w->dones, 1);
        assert_int_equal(kill((pid_t) w->last, 0), -1);
        op_cancel(NULL);

        w->dones = 0; /* before its body has begun */
        start(w, body_hangs, NULL);
        op_cancel(w->op);
        turn_until(w, is_done);
        assert_int_equal(w->r, -ECANCELED);
}

static void test_deadline(void **state)
{
        struct world *w = *state;
        struct op_spec spec = spec_of(w, body_hangs, NULL);
        uint64_t begin = clock_mono_us();

        spec.timeout_us = 50 * US_PER_MS;
        assert_true(op_start(w->runner, &spec, &w->op, NULL) >= 0);
        turn_until(w, is_done);
        assert_int_equal(w->r, -ETIMEDOUT);
        assert_string_equal(w->err.msg, "test: took too long and was ended");
        assert_true(clock_mono_us() - begin >= 50 * US_PER_MS);
        assert_int_equal(kill((pid_t) w->last, 0), -1);
}

static void test_death(void **state)
{
        struct world *w = *state;

        start(w, body_hangs, NULL);
        turn_until(w, has_report);
        assert_int_equal(kill((pid_t) w->last, SIGKILL), 0);
        turn_until(w, is_done);
        assert_int_equal(w->r, -EOWNERDEAD);
        assert_string_equal(w->err.msg, "test: the operation was killed by signal 9");

        w->dones = w->reports = 0;
        start(w, body_dies, NULL);
        turn_until(w, is_done);
        assert_int_equal(w->r, -EOWNERDEAD);
        assert_int_equal(w->reports, 1);

        w->dones = 0;
        start(w, body_exits, NULL);
        turn_until(w, is_done);
        assert_int_equal(w->r, -EOWNERDEAD);
        assert_string_equal(w->err.msg, "test: the operation ended with status 3");
}

static void test_orders(void **state)
{
        struct world *w = *state;
        static const size_t sizes[] = { 0, 1, 4096, 1 << 20, 7 << 20 };

        for (int warm = 0; warm < 2; warm++) { /* without a spare, then with one */
                for (size_t i = 0; i < NELEM(sizes); i++) {
                        order(w, sizes[i], i % 4);
                        if (warm)
                                (void) sd_event_run(w->loop, 200 * US_PER_MS);
                }
        }
}

static size_t children(pid_t *ret, size_t max)
{
        AUTO(free) char *text = NULL;
        size_t n = 0;
        char *save = NULL;

        if (fd_read_file(AT_FDCWD, "/proc/thread-self/children", 4096, &text, NULL) < 0)
                return 0;
        for (char *p = strtok_r(text, " ", &save); p && n < max; p = strtok_r(NULL, " ", &save)) {
                uint64_t v;

                if (str_u64(p, 1, INT32_MAX, &v) >= 0)
                        ret[n++] = (pid_t) v;
        }
        return n;
}

static bool has_spares(const struct world *w)
{
        pid_t pids[16];

        (void) w;
        return children(pids, NELEM(pids)) == SPARES;
}

static void test_dead_spares(void **state)
{
        struct world *w = *state;
        pid_t pids[16];
        size_t n;

        order(w, 10, 0); /* the first order asks for spares */
        turn_until(w, has_spares);
        n = children(pids, NELEM(pids));
        for (size_t i = 0; i < n; i++)
                assert_int_equal(kill(pids[i], SIGKILL), 0);
        for (size_t i = 0; i < n; i++)
                while (waitid(P_PID, (id_t) pids[i], &(siginfo_t){ 0 }, WEXITED | WNOWAIT) < 0)
                        assert_int_equal(errno, EINTR);
        order(w, 10, 1);
        turn_until(w, has_spares); /* new ones */
        order(w, 10, 1);
}

static void test_a_spare_has_no_later_descriptors(void **state)
{
        struct world *w = *state;
        int fds[8] = { -1, -1, -1, -1, -1, -1, -1, -1 };
        struct op_spec spec = spec_of(w, body_looks, fds);
        AUTO(fd) int late = memfd_create("late", MFD_CLOEXEC);
        AUTO(fd) int kept = memfd_create("kept", MFD_CLOEXEC);
        AUTO(fd) int high = fcntl(late, F_DUPFD_CLOEXEC, 500);
        AUTO(fd) int higher = fcntl(kept, F_DUPFD_CLOEXEC, 900);
        const int keep[] = { higher, kept };

        fds[0] = late;
        fds[1] = kept;
        fds[2] = high;
        fds[3] = higher;
        fds[4] = 0; /* open since before the runner */
        fds[5] = 2;
        spec.keep = keep;
        spec.n_keep = NELEM(keep);
        assert_true(op_start(w->runner, &spec, &w->op, NULL) >= 0);
        turn_until(w, is_done);
        assert_int_equal(w->last, 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5);
}

static void test_signals(void **state)
{
        struct world *w = *state;

        start(w, body_signals, NULL);
        turn_until(w, is_done);
        assert_int_equal(w->last, 1);
}

/* The engine's own death takes everything along: running operations, orders, and spares. */
static void test_dies_with_the_engine(void **state)
{
        struct world *w = *state;
        int pipes[2];
        pid_t engine;
        char c;

        assert_int_equal(pipe(pipes), 0);
        engine = fork();
        assert_true(engine >= 0);
        if (engine == 0) {
                AUTO(json_put) json_t *j = json_pack("{s:s}", "text", "hang");
                sd_event *loop = NULL;
                struct op_runner *runner = NULL;
                struct world mine = { .ordered = true, .fd = -EBADF };
                struct op_spec spec = spec_of(&mine, body_hangs, NULL);

                (void) close(pipes[0]);
                if (sd_event_new(&loop) < 0 || /* the pipe's end is open in all of them */
                    op_runner_new(loop, on_order, NULL, SPARES, &runner, NULL) < 0 ||
                    op_start(runner, &spec, &mine.op, NULL) < 0 ||
                    op_order(runner, &spec, j, NULL, 0, &mine.op, NULL) < 0)
                        _exit(1);
                while (mine.reports < 2 || !has_spares(&mine)) {
                        pid_t pids[16];

                        if (sd_event_run(loop, 10 * US_PER_MS) < 0)
                                _exit(1);
                        if (mine.reports == 2 && children(pids, NELEM(pids)) == SPARES + 2)
                                break;
                }
                (void) raise(SIGKILL);
        }
        (void) close(pipes[1]);
        (void) w;
        {
                struct pollfd p = { .fd = pipes[0], .events = POLLIN };

                /* end of file once the last of them is gone */
                assert_int_equal(poll(&p, 1, PATIENCE_S * 1000), 1);
                assert_int_equal(read(pipes[0], &c, 1), 0);
        }
        (void) close(pipes[0]);
        assert_int_equal(waitpid(engine, NULL, 0), engine);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(test_##name, world_up, world_down)
        const struct CMUnitTest tests[] = {
                T(results),
                T(reports_come_first_and_in_order),
                T(descriptors_of_reports),
                T(cancel),
                T(deadline),
                T(death),
                T(orders),
                T(a_large_order_does_not_block),
                T(dead_spares),
                T(a_spare_has_no_later_descriptors),
                T(signals),
                T(dies_with_the_engine),
        };
#undef T

        return cmocka_run_group_tests(tests, NULL, NULL);
}
