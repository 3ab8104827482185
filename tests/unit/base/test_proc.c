/* test_proc.c - a process is told from a later one with its number; ids and digests. */
#include "base/proc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

static pid_t sleeper(void)
{
        pid_t pid = fork();

        if (pid == 0) {
                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void) prctl(PR_SET_NAME, ") S 1 2 ("); /* a name that looks like fields */
                for (;;)
                        (void) pause();
        }
        assert_true(pid > 0);
        return pid;
}

static void test_the_right_process(void **state)
{
        pid_t pid = sleeper();
        struct proc_id id, other;
        int fd;

        (void) state;
        assert_int_equal(proc_identify(pid, &id), 0);
        assert_int_equal(id.pid, pid);
        assert_int_equal(strlen(id.boot_id), 36);
        fd = proc_open(&id);
        assert_true(fd >= 0);

        other = id;
        other.start_ticks++;
        assert_int_equal(proc_open(&other), -ESRCH);
        other = id;
        other.boot_id[0] = other.boot_id[0] == '0' ? '1' : '0';
        assert_int_equal(proc_open(&other), -ESRCH);
        other = id;
        other.pid = 0;
        assert_int_equal(proc_open(&other), -ESRCH);
        other.pid = -1;
        assert_int_equal(proc_open(&other), -ESRCH);

        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 5000), 1);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        (void) fd_close(fd);
        assert_int_equal(proc_open(&id), -ESRCH);
        assert_int_equal(proc_identify(pid, &id), -ESRCH);
}

static void test_two_have_two_ids(void **state)
{
        struct proc_id me, parent;

        (void) state;
        assert_int_equal(proc_identify(getpid(), &me), 0);
        assert_int_equal(proc_identify(getppid(), &parent), 0);
        assert_true(me.start_ticks >= parent.start_ticks);
        assert_string_equal(me.boot_id, parent.boot_id);
}

static void test_rand_id(void **state)
{
        char a[17], b[17], one[2];
        unsigned seen[128] = { 0 };

        (void) state;
        assert_int_equal(rand_id(a, 16), 0);
        assert_int_equal(rand_id(b, 16), 0);
        assert_string_not_equal(a, b);
        for (int i = 0; i < 2000; i++) {
                assert_int_equal(rand_id(a, 16), 0);
                assert_int_equal(strlen(a), 16);
                assert_int_equal(strspn(a, "abcdefghijklmnopqrstuvwxyz0123456789"), 16);
                assert_true(a[0] >= 'a');
                for (int k = 0; k < 16; k++)
                        seen[(unsigned char) a[k] & 127]++;
        }
        for (const char *p = "az09"; *p; p++)
                assert_true(seen[(unsigned char) *p] > 0);
        assert_int_equal(rand_id(one, 1), 0);
        assert_int_equal(one[1], '\0');
        assert_int_equal(rand_id(one, 0), 0);
        assert_int_equal(one[0], '\0');
}

static void test_hex(void **state)
{
        const unsigned char data[] = { 0x00, 0x0f, 0xa5, 0xff };
        char out[9];

        (void) state;
        hex_encode(data, sizeof data, out);
        assert_string_equal(out, "000fa5ff");
        hex_encode(data, 0, out);
        assert_string_equal(out, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_right_process),
                cmocka_unit_test(test_two_have_two_ids),
                cmocka_unit_test(test_rand_id),
                cmocka_unit_test(test_hex),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
