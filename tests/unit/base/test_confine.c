/* Each rung of confine.h, by what a process that climbed down can do: in a child, which prints what it
 * found otherwise.  Needs no rights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../in_child.h"
#include "base/confine.h"
#include "base/mem.h"
#include "base/str.h"

#define KILLED 1000 /* by SIGSYS */

/* What @fn returns in a child, KILLED, or the negative number of another signal. */
static int child(int (*fn)(void *), void *arg)
{
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                _exit(fn(arg));
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFSIGNALED(status))
                return WTERMSIG(status) == SIGSYS ? KILLED : -WTERMSIG(status);
        return WEXITSTATUS(status);
}

/* ---- limits ---- */

static int limits(void *arg)
{
        struct rlimit l;

        (void) arg;
        CHECK(confine_limit(RLIMIT_NOFILE, 64, NULL) == 0);
        CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur == 64 && l.rlim_max == 64);
        CHECK(confine_limit(RLIMIT_NOFILE, 4096, NULL) == 0); /* kept, not raised and no failure */
        CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur == 64 && l.rlim_max == 64);
        CHECK(confine_limit(-1, 1, NULL) == -EINVAL);
        return 0;
}

static void test_limits(void **state)
{
        (void) state;
        assert_int_equal(child(limits, NULL), 0);
}

/* ---- capabilities ---- */

static bool status_says(const char *line)
{
        char text[4096] = "";
        int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        ssize_t n = read(fd, text, sizeof text - 1);

        (void) close(fd);
        return n > 0 && strstr(text, line);
}

static int capabilities(void *arg)
{
        (void) arg;
        CHECK(confine_capabilities(NULL) == 0);
        CHECK(status_says("CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\n"
                          "CapEff:\t0000000000000000\n"));
        CHECK(status_says("CapAmb:\t0000000000000000\n"));
        CHECK(geteuid() != 0 || status_says("CapBnd:\t0000000000000000\n"));
        CHECK(confine_capabilities(NULL) == 0); /* again, now without the right to */
        return 0;
}

static void test_capabilities(void **state)
{
        (void) state;
        assert_int_equal(child(capabilities, NULL), 0);
}

/* ---- Landlock ---- */

struct tree {
        char dir[64], read[80], write[80], make[80], none[80];
};

static void put(const char *dir, const char *name)
{
        char path[128];
        int fd;

        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
        assert_int_equal(write(fd, "text", 4), 4);
        (void) close(fd);
}

static int tree_up(void **state)
{
        static struct tree t;
        char *const dirs[] = { t.read, t.write, t.make, t.none };
        static const char *const names[] = { "read", "write", "make", "none" };

        (void) snprintf(t.dir, sizeof t.dir, "/tmp/hvmm-confine.XXXXXX");
        if (!mkdtemp(t.dir))
                return -1;
        for (size_t i = 0; i < NELEM(dirs); i++) {
                (void) snprintf(dirs[i], sizeof t.read, "%s/%s", t.dir, names[i]);
                if (mkdir(dirs[i], 0755) < 0)
                        return -1;
                put(dirs[i], "file");
        }
        *state = &t;
        return 0;
}

static int tree_down(void **state)
{
        const struct tree *t = *state;
        const char *const dirs[] = { t->read, t->write, t->make, t->none };
        static const char *const files[] = { "file", "new", "moved" };
        char path[128];

        for (size_t i = 0; i < NELEM(dirs); i++) {
                for (size_t k = 0; k < NELEM(files); k++) {
                        (void) snprintf(path, sizeof path, "%s/%s", dirs[i], files[k]);
                        (void) unlink(path);
                }
                (void) rmdir(dirs[i]);
        }
        return rmdir(t->dir);
}

static int at(const char *dir, const char *name, int flags)
{
        char path[128];
        int fd;

        (void) snprintf(path, sizeof path, "%s/%s", dir, name);
        fd = open(path, flags | O_CLOEXEC, 0644);
        if (fd >= 0)
                (void) close(fd);
        return fd;
}

static int names(void *arg)
{
        const struct tree *t = arg;
        const struct confine_path rows[] = {
                { "/tmp/hvmm-confine.is-not-there", CONFINE_READ },
                { t->read, CONFINE_READ },
                { t->write, CONFINE_READ | CONFINE_WRITE },
                { t->make, CONFINE_READ | CONFINE_WRITE | CONFINE_MAKE },
        };
        char from[128], to[128];
        char *const argv[] = { from, NULL };

        CHECK(confine_landlock(rows, NELEM(rows), 0, NULL) == confine_landlock_abi());
        CHECK(at(t->read, "file", O_RDONLY) >= 0);
        FAILS(at(t->read, "file", O_WRONLY), EACCES);
        FAILS(at(t->read, "new", O_WRONLY | O_CREAT), EACCES);
        CHECK(at(t->write, "file", O_WRONLY) >= 0);
        CHECK(at(t->write, "file", O_WRONLY | O_TRUNC) >= 0);
        FAILS(at(t->write, "new", O_WRONLY | O_CREAT), EACCES);
        CHECK(at(t->make, "new", O_WRONLY | O_CREAT) >= 0);
        FAILS(at(t->none, "file", O_RDONLY), EACCES);
        FAILS(at("/etc", "passwd", O_RDONLY), EACCES);
        (void) snprintf(from, sizeof from, "%s/new", t->make);
        (void) snprintf(to, sizeof to, "%s/moved", t->make);
        CHECK(rename(from, to) == 0 && unlink(to) == 0);
        (void) snprintf(from, sizeof from, "%s/file", t->read);
        FAILS(unlink(from), EACCES);
        FAILS(execv(from, argv), EACCES); /* no row gives that */
        CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
        return 0;
}

/* A row of a file, which has no entries to make. */
static int one_file(void *arg)
{
        const struct tree *t = arg;
        char path[128];
        const struct confine_path rows[] = { { path, CONFINE_READ | CONFINE_WRITE | CONFINE_MAKE |
                                                             CONFINE_DEVICE } };

        (void) snprintf(path, sizeof path, "%s/file", t->write);
        CHECK(confine_landlock(rows, NELEM(rows), 0, NULL) >= 0);
        CHECK(at(t->write, "file", O_RDWR) >= 0);
        FAILS(at(t->write, "new", O_WRONLY | O_CREAT), EACCES);
        return 0;
}

static void test_names(void **state)
{
        if (confine_landlock_abi() == 0)
                skip(); /* the ladder has no such rung here, which doctor says */
        assert_int_equal(child(names, *state), 0);
        assert_int_equal(child(one_file, *state), 0);
}

struct reach {
        unsigned reach;
        int tcp_port, peer; /* somebody's listener; a process that is not ours to signal */
        struct sockaddr_un name;
        socklen_t len;
};

static int reaching(void *arg)
{
        const struct reach *w = arg;
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        int abi = confine_landlock(NULL, 0, w->reach, NULL);
        int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        CHECK(tcp >= 0 && other >= 0 && local >= 0);
        if (abi >= CONFINE_ABI_TCP) {
                FAILS(bind(tcp, (const struct sockaddr *) &a, sizeof a), EACCES);
                a.sin_port = htons((uint16_t) w->tcp_port);
                if (w->reach & CONFINE_CONNECT)
                        CHECK(connect(other, (const struct sockaddr *) &a, sizeof a) == 0);
                else
                        FAILS(connect(other, (const struct sockaddr *) &a, sizeof a), EACCES);
        }
        if (abi >= CONFINE_ABI_SCOPE) {
                FAILS(connect(local, (const struct sockaddr *) &w->name, w->len), EPERM);
                if (w->reach & CONFINE_SIGNAL)
                        CHECK(kill(w->peer, 0) == 0);
                else
                        FAILS(kill(w->peer, 0), EPERM);
        }
        return 0;
}

static void test_reach(void **state)
{
        struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
        struct reach w = { .peer = getpid(), .name = { .sun_family = AF_UNIX } };
        int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int local = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        socklen_t len = sizeof a;

        (void) state;
        w.len = (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 +
                             (size_t) snprintf(w.name.sun_path + 1, 64, "hvmm-confine.%d",
                                               getpid()));
        assert_int_equal(bind(tcp, (const struct sockaddr *) &a, sizeof a), 0);
        assert_int_equal(listen(tcp, 4), 0);
        assert_int_equal(getsockname(tcp, (struct sockaddr *) &a, &len), 0);
        assert_int_equal(bind(local, (const struct sockaddr *) &w.name, w.len), 0);
        assert_int_equal(listen(local, 4), 0);
        w.tcp_port = ntohs(a.sin_port);
        for (w.reach = 0; w.reach <= (CONFINE_CONNECT | CONFINE_SIGNAL); w.reach++)
                assert_int_equal(child(reaching, &w), 0);
        (void) close(tcp);
        (void) close(local);
}

/* ---- system calls ---- */

static const struct confine_call own[] = {
        CONFINE_ALLOW_IF(getpriority, 1, 5),
        CONFINE_ALLOW_IF32(setpriority, 1, 5),
        CONFINE_KILL(getpgid),
        CONFINE_ALLOW(wait4),
};

static int climb(void)
{
        const struct confine_calls lists[] = { CONFINE_CALLS(own), confine_calls_runtime,
                                               confine_calls_io, confine_calls_deadly };

        return confine_filter(lists, NELEM(lists), SCMP_ACT_ERRNO(EDOM), NULL);
}

static int arguments(void *arg)
{
        (void) arg;
        CHECK(climb() == 0);
        /* past the filter the kernel knows neither kind */
        FAILS(syscall(SYS_getpriority, 77L, 5L), EINVAL);
        FAILS(syscall(SYS_getpriority, 77L, 6L), EDOM);
        FAILS(syscall(SYS_getpriority, 77L, 5L | 1L << 32), EDOM);
        FAILS(syscall(SYS_setpriority, 77L, 5L, 0L), EINVAL);
        FAILS(syscall(SYS_setpriority, 77L, 5L | 1L << 32, 0L),
              EINVAL); /* the kernel takes an int */
        FAILS(syscall(SYS_setpriority, 77L, 4L, 0L), EDOM);
        FAILS(syscall(SYS_getppid + 400L), EDOM);
        FAILS(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), EDOM);
        return 0;
}

static void *thread(void *arg)
{
        return arg;
}

/* Threads go on being made; no process is, and no limit is set. */
static int shared_lists(void *arg)
{
        struct rlimit l = { 1, 1 };
        pthread_t t;

        (void) arg;
        CHECK(climb() == 0);
        CHECK(pthread_create(&t, NULL, thread, NULL) == 0 && pthread_join(t, NULL) == 0);
        FAILS(syscall(SYS_clone, (long) SIGCHLD, 0L, 0L, 0L, 0L), EDOM);
        FAILS(syscall(SYS_clone, (long) (CLONE_THREAD | CLONE_NEWUSER), 0L, 0L, 0L, 0L), EDOM);
        FAILS(syscall(SYS_clone3, NULL, 0L), ENOSYS);
        FAILS(syscall(SYS_prlimit64, 0L, (long) RLIMIT_CORE, &l, NULL), EDOM);
        CHECK(syscall(SYS_prlimit64, 0L, (long) RLIMIT_CORE, NULL, &l) == 0);
        FAILS(syscall(SYS_ioctl, 0L, 0x5412L /* TIOCSTI */, 0L), EDOM);
        return 0;
}

static int forbidden(void *arg)
{
        CHECK(climb() == 0);
        (void) syscall(*(int *) arg, -1L, 0L, 0L, 0L, 0L, 0L);
        return 2; /* it went on */
}

static void test_calls(void **state)
{
        static const int never[] = { SYS_execve,
                                     SYS_execveat,
                                     SYS_fork,
                                     SYS_ptrace,
                                     SYS_mount,
                                     SYS_setns,
                                     SYS_unshare,
                                     SYS_bpf,
                                     SYS_perf_event_open,
                                     SYS_io_uring_setup,
                                     SYS_keyctl,
                                     SYS_init_module,
                                     SYS_kexec_load,
                                     SYS_open_by_handle_at };
        int pgid = SYS_getpgid;

        (void) state;
        assert_int_equal(child(arguments, NULL), 0);
        assert_int_equal(child(shared_lists, NULL), 0);
        assert_int_equal(child(forbidden, &pgid), KILLED);
        for (size_t i = 0; i < NELEM(never) + confine_calls_deadly.n; i++) {
                int nr = i < NELEM(never) ? never[i]
                                          : confine_calls_deadly.rows[i - NELEM(never)].nr;

                if (child(forbidden, &nr) != KILLED)
                        fail_msg("call %d does not end the program", nr);
        }
}

/* What ends a program is in no list that lets it through: libseccomp would take the first. */
static void test_lists_do_not_contradict(void **state)
{
        const struct confine_calls *const lists[] = { &confine_calls_runtime, &confine_calls_io };

        (void) state;
        for (size_t d = 0; d < confine_calls_deadly.n; d++) {
                assert_int_equal(confine_calls_deadly.rows[d].action, SCMP_ACT_KILL_PROCESS);
                for (size_t l = 0; l < NELEM(lists); l++)
                        for (size_t i = 0; i < lists[l]->n; i++)
                                assert_int_not_equal(lists[l]->rows[i].nr,
                                                     confine_calls_deadly.rows[d].nr);
        }
}

/* ---- all of it ---- */

static const struct confine_call reading[] = { CONFINE_ALLOW(openat), CONFINE_ALLOW(prctl) };

static int descended(void *arg)
{
        const struct tree *t = arg;
        const struct confine_path rows[] = { { "/proc", CONFINE_READ }, { t->read, CONFINE_READ } };
        const struct confine_calls lists[] = { CONFINE_CALLS(reading), confine_calls_runtime,
                                               confine_calls_io, confine_calls_deadly };
        const struct confine c = { .program = "test",
                                   .nofile = 64,
                                   .paths = rows,
                                   .n_paths = NELEM(rows),
                                   .calls = lists,
                                   .n_calls = NELEM(lists),
                                   .otherwise = SCMP_ACT_ERRNO(EDOM) };
        int abi = confine_landlock_abi(); /* there is no asking afterwards */
        struct rlimit l;

        CHECK(confine_descend(&c, NULL) == 0);
        CHECK(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
        CHECK(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
        CHECK(getrlimit(RLIMIT_CORE, &l) == 0 && l.rlim_max <= 1);
        CHECK(getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_max == 64);
        if (confine_sanitized())
                return 0;
        FAILS(socket(AF_UNIX, SOCK_STREAM, 0), EDOM);
        CHECK(at(t->read, "file", O_RDONLY) >= 0);
        if (abi > 0)
                FAILS(at(t->none, "file", O_RDONLY), EACCES);
        return 0;
}

/* A rung that breaks says which program's, and what. */
static int broken(void *arg)
{
        static const struct confine_call bad[] = { { -12345, SCMP_ACT_ALLOW, CONFINE_ANY, 0, 0 } };
        const struct confine_calls lists[] = { CONFINE_CALLS(bad) };
        const struct confine c = {
                .program = "test", .calls = lists, .n_calls = 1, .otherwise = SCMP_ACT_ALLOW
        };
        struct err e = { 0 };

        (void) arg;
        CHECK(confine_descend(&c, &e) < 0);
        CHECK(str_after(e.msg, "sandbox of test: system call filter: call -12345"));
        return 0;
}

static void test_descend(void **state)
{
        assert_int_equal(child(descended, *state), 0);
        if (!confine_sanitized())
                assert_int_equal(child(broken, NULL), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_capabilities),
                cmocka_unit_test_setup_teardown(test_names, tree_up, tree_down),
                cmocka_unit_test(test_reach),
                cmocka_unit_test(test_calls),
                cmocka_unit_test(test_lists_do_not_contradict),
                cmocka_unit_test_setup_teardown(test_descend, tree_up, tree_down),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
