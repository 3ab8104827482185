/* flow.h - what the three programs here share: one cmocka test per call, named on the command line,
 * so that a test that dies takes nobody along and pytest counts each. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"

/* A call that must work, with its reason when it does not. */
#define ok(call)                                                                                   \
        do {                                                                                       \
                memset(&flow_err, 0, sizeof flow_err);                                             \
                if ((call) < 0)                                                                    \
                        fail_msg("%s: %s", #call, flow_err.msg);                                   \
        } while (0)

static struct err flow_err;

/* "--list" prints the names; a name runs that test; nothing runs all. */
static inline int flow_main(int argc, char **argv, const struct CMUnitTest *tests, size_t n)
{
        if (argc > 1 && strcmp(argv[1], "--list") == 0) {
                for (size_t i = 0; i < n; i++)
                        (void) puts(tests[i].name);
                return 0;
        }
        if (geteuid() != 0) {
                (void) fprintf(stderr, "%s: must be root\n", argv[0]);
                return 1;
        }
        if (argc > 1)
                cmocka_set_test_filter(argv[1]);
        return _cmocka_run_group_tests("flow", tests, n, NULL, NULL);
}

/* Wait for a child that must end by exit(0). */
static inline void child_good(pid_t pid)
{
        int status = -1;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                fail_msg("child: status 0x%x", (unsigned) status);
}

static inline void sleep_ms(unsigned ms)
{
        (void) usleep(ms * 1000);
}
