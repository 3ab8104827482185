/* syscalls.c - every system call by number, with arguments that do no harm.  Inside a cluster.
 *
 * A child of its own for each: "NUMBER RESULT", where RESULT is the errno's name, "ok", or a signal
 * (ALRM: it waits, so it is let in).  Whether it waits is asked of its state, not of a clock: on a
 * machine that stands still a refusal takes its time, too.  -1 as a descriptor and addresses that
 * nothing is mapped at let what is allowed get as far as the kernel's own checks and no further. */
#include "attack.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define LAST    600
#define LOOK_US 10000
#define ASLEEP  20  /* so often in a row: it does not only pass through */
#define LIMIT_S 100 /* for one that neither sleeps nor ends */

/* What -1 would do harm with, or what would hide what we want to know. */
static const struct {
        long nr;
        long arg[3];
} plain[] = {
        { SYS_kill, { 1 << 30, 0, 0 } },
        { SYS_tkill, { 1 << 30, 0, 0 } },
        { SYS_exit, { 0, 0, 0 } },
        { SYS_exit_group, { 0, 0, 0 } },
        { SYS_clone, { 17, 0, 0 } },
        { SYS_futex, { 4096, 1, 1 } }, /* wake */
        { SYS_brk, { 0, 0, 0 } },
        { SYS_umask, { 022, 0, 0 } },
        { SYS_alarm, { 0, 0, 0 } },
        { SYS_socket, { 1, 1, 0 } },
        { SYS_socketpair, { 1, 1, 0 } },
        { SYS_personality, { 0, 0, 0 } },
        { SYS_unshare, { 0, 0, 0 } },
        { SYS_mknod, { 0, 0x8000, 0 } },
        { SYS_mknodat, { -100, 0, 0x8000 } },
        { SYS_setpgid, { 0, 0, 0 } },
        { SYS_close_range, { 1000, 1001, 0 } },
        { SYS_munmap, { 4096, 4096, 0 } },
        { SYS_munlockall, { 0, 0, 0 } },
        { SYS_setfsuid, { 0, 0, 0 } },
        { SYS_setfsgid, { 0, 0, 0 } },
        { SYS_ptrace, { 16, 1 << 30, 0 } }, /* attach to nobody */
        { SYS_prctl, { 3, 0, 0 } },         /* is it dumpable? */
        { SYS_sync, { 0, 0, 0 } },
};

static void one(long nr)
{
        long a[6] = { -1, -1, -1, -1, -1, -1 }, r;
        char text[64];
        int n;

        for (size_t i = 0; i < NELEM(plain); i++)
                if (plain[i].nr == nr)
                        memcpy(a, plain[i].arg, sizeof plain[i].arg);
        errno = 0;
        r = syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
        if ((nr == SYS_fork || nr == SYS_vfork || nr == SYS_clone) && r == 0)
                _exit(0);
        n = snprintf(text, sizeof text, "%ld %s\n", nr,
                     r >= 0 || r < -1 || errno == 0 ? "ok" : strerrorname_np(errno));
        (void) !write(STDOUT_FILENO, text, (size_t) n);
        _exit(0);
}

/* Whatever the call left standing in the child's session ends with it. */
static void child(long nr)
{
        static const struct itimerval t = { .it_value = { .tv_sec = LIMIT_S } };
        static const struct rlimit core = { 0, 0 };

        (void) setrlimit(RLIMIT_CORE, &core);
        (void) signal(SIGALRM, SIG_DFL);
        (void) setitimer(ITIMER_REAL, &t, NULL);
        one(nr);
}

/* The letter of its state; 0: nothing is there. */
static char state_of(pid_t pid)
{
        char text[256], path[32];
        const char *p;
        ssize_t n;
        int fd;

        (void) snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        (void) close(fd);
        if (n <= 0)
                return 0;
        text[n] = 0;
        p = strrchr(text, ')');
        return p && p[1] == ' ' ? p[2] : 0;
}

/* Until it has ended, by us if it sleeps.  What is refused never does. */
static int watch(pid_t pid, int *status)
{
        for (int asleep = 0; asleep < ASLEEP;) {
                pid_t r = waitpid(pid, status, WNOHANG);

                if (r != 0)
                        return r == pid ? 0 : -1;
                asleep = state_of(pid) == 'S' ? asleep + 1 : 0;
                (void) usleep(asleep ? LOOK_US : LOOK_US / 20);
        }
        (void) kill(pid, SIGALRM);
        return waitpid(pid, status, 0) == pid ? 0 : -1;
}

static const char *end_of(int status, long nr)
{
        if (WIFSIGNALED(status))
                return sigabbrev_np(WTERMSIG(status));
        return nr == SYS_exit || nr == SYS_exit_group ? "ok" : NULL;
}

int syscalls(int argc, char **argv)
{
        (void) argc, (void) argv;
        setvbuf(stdout, NULL, _IONBF, 0);
        for (long nr = 0; nr <= LAST; nr++) {
                pid_t pid = fork();
                const char *end;
                int status = 0;

                if (pid == 0)
                        child(nr);
                if (pid < 0 || watch(pid, &status) < 0)
                        return 1;
                end = end_of(status, nr);
                if (end) /* ended without a word, or by a signal while it waited */
                        printf("%ld %s\n", nr, end);
        }
        puts("done");
        return 0;
}
