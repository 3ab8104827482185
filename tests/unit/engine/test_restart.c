/* test_restart.c - how long a helper waits before it is started again, and how its end is told. */
#include "engine/op/restart.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"

static void count(void *arg)
{
        unsigned *n = arg;

        (*n)++;
}

static void test_pauses(void **state)
{
        /* how long it lived, and what is waited then */
        static const struct {
                uint64_t lived_us, pause_us;
        } t[] = {
                { 0, 100 }, { 0, 200 },  { 49, 400 }, { 0, 500 },
                { 0, 500 }, { 50, 100 }, { 0, 200 },
        };
        unsigned n = 0;
        struct restart r = { .program = "test",
                             .first_us = 100 * US_PER_S,
                             .most_us = 500 * US_PER_S,
                             .steady_us = 50 * US_PER_S,
                             .start = count,
                             .arg = &n };

        (void) state;
        assert_true(sd_event_new(&r.loop) >= 0);
        for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
                restart_begun(&r);
                r.begun_us -= t[i].lived_us * US_PER_S;
                restart_later(&r);
                assert_int_equal(r.pause_us, t[i].pause_us * US_PER_S);
        }
        assert_true(restart_in(&r, 0) >= 0); /* in the place of the pause */
        assert_true(sd_event_run(r.loop, 10 * US_PER_S) > 0);
        assert_int_equal(n, 1);
        restart_later(&r);
        restart_done(&r);
        assert_null(r.timer);
        (void) sd_event_unref(r.loop);
}

static void test_ended(void **state)
{
        static const struct {
                int status, sig;
                const char *why;
        } t[] = { { 3, 0, "ended with status 3" }, { 0, SIGKILL, "was killed by signal 9" } };

        (void) state;
        for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
                int go[2], fd;
                char why[64] = "canary", byte;
                siginfo_t si;
                pid_t pid;

                assert_int_equal(pipe(go), 0);
                pid = fork();
                assert_true(pid >= 0);
                if (pid == 0) {
                        (void) close(go[1]);
                        _exit(read(go[0], &byte, 1) < 0 ? 1 : t[i].status);
                }
                fd = (int) syscall(SYS_pidfd_open, pid, 0);
                assert_true(fd >= 0);
                assert_false(restart_ended(fd, why, sizeof why));
                assert_string_equal(why, "canary");
                if (t[i].sig)
                        assert_int_equal(kill(pid, t[i].sig), 0);
                (void) close(go[0]);
                (void) close(go[1]);
                assert_int_equal(waitid(P_PID, (id_t) pid, &si, WEXITED | WNOWAIT), 0);
                assert_true(restart_ended(fd, why, sizeof why));
                assert_string_equal(why, t[i].why);
                (void) close(fd);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_pauses),
                cmocka_unit_test(test_ended),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
