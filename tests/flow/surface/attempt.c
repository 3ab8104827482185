/* attempt.c - stands where a program of ours stands once somebody has taken it over: climbs down the
 * program's own ladder (one executable for each, see meson.build), then tries one thing.
 *
 *   attempt down|bare DIR WHAT [ARG]...
 *
 * "bare" leaves the ladder out, which shows that the attempt would succeed.  Prints "did it" or the error;
 * status 0: it was done, 1: refused, 2: the ladder itself failed; a filter may also kill. */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/proc.h"
#include "base/str.h"

/* ---- the ladders ---- */

#if defined(LADDER_API)
#include "control/ladder.h"
static int descend(const char *dir, struct err *e)
{
        return ladder_descend(dir, e);
}
#elif defined(LADDER_GPU)
#include "gpu/ladder.h"
static int descend(const char *dir, struct err *e)
{
        const struct ladder_args a = { .root = "/" };

        (void) dir;
        return ladder_descend(&a, e);
}
#elif defined(LADDER_SCRUB)
#include "gpu/ladder.h"
static int descend(const char *dir, struct err *e)
{
        const struct ladder_args a = { .root = "/", .cuda = true };

        (void) dir;
        return ladder_descend(&a, e);
}
#elif defined(LADDER_DNS)
#include "dns/ladder.h"
static int descend(const char *dir, struct err *e)
{
        (void) dir;
        return ladder_descend(e);
}
#elif defined(LADDER_FETCH)
#include "fetch/ladder.h"
/* Its caller's part first: a user namespace in which an id that is nobody's is root. */
static int descend(const char *dir, struct err *e)
{
        const unsigned id = 0x4FE00000U;
        int root = -EBADF;
        char map[32];

        (void) dir;
        (void) snprintf(map, sizeof map, "0 %u 1", id);
        if (proc_drop(id, getppid()) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0 ||
            unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS) < 0 ||
            fd_write_value(AT_FDCWD, "/proc/self/setgroups", "deny") < 0 ||
            fd_write_value(AT_FDCWD, "/proc/self/uid_map", map) < 0 ||
            fd_write_value(AT_FDCWD, "/proc/self/gid_map", map) < 0)
                return err_errno(e, -errno, "namespaces");
        return ladder_descend(-EBADF, true, &root, e);
}
#elif defined(LADDER_MONITOR)
#include "monitor/filter.h"
static int descend(const char *dir, struct err *e)
{
        int pidfd = (int) syscall(SYS_pidfd_open, getppid(), 0), r;

        (void) dir;
        r = filter_drop(0, e);
        return r < 0 ? r : filter_install(pidfd, e);
}
#endif

/* ---- the attempts: 0, or a negative errno ---- */

static int number(const char *s)
{
        uint64_t v = 0;

        return s && str_u64(s, 0, INT32_MAX, &v) >= 0 ? (int) v : -1;
}

static int result(long r)
{
        return r < 0 ? -errno : 0;
}

/* What it reads is shown, so that a byte of the file proves it. */
static int try_read(char **arg)
{
        char buf[256];
        int fd = open(arg[0], O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf);

        return n < 0 ? -errno : result(write(STDOUT_FILENO, buf, (size_t) n));
}

static int try_write(char **arg)
{
        int fd = open(arg[0], O_WRONLY | O_APPEND | O_CLOEXEC);

        return fd < 0 ? -errno : result(write(fd, "taken", 5));
}

static int try_make(char **arg)
{
        return result(open(arg[0], O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int try_unlink(char **arg)
{
        return result(unlink(arg[0]));
}

static int inet_socket(int type, const char *port, struct sockaddr_in *a)
{
        *a = (struct sockaddr_in){ .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t) number(port)),
                                   .sin_addr = { htonl(INADDR_LOOPBACK) } };
        return socket(AF_INET, type | SOCK_CLOEXEC, 0);
}

static int try_connect(char **arg)
{
        struct sockaddr_in a;
        int fd = inet_socket(SOCK_STREAM, arg[0], &a);

        return fd < 0 ? -errno : result(connect(fd, (struct sockaddr *) &a, sizeof a));
}

static int try_udp(char **arg)
{
        struct sockaddr_in a;
        int fd = inet_socket(SOCK_DGRAM, arg[0], &a);

        return fd < 0 ? -errno
                      : result(sendto(fd, "taken", 5, 0, (struct sockaddr *) &a, sizeof a));
}

static int try_bind(char **arg)
{
        struct sockaddr_in a;
        int fd = inet_socket(SOCK_STREAM, arg[0], &a);

        return fd < 0 ? -errno : result(bind(fd, (struct sockaddr *) &a, sizeof a));
}

static int try_abstract(char **arg)
{
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        size_t n = strlen(arg[0]);
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0 || n + 1 > sizeof a.sun_path)
                return -errno;
        memcpy(a.sun_path + 1, arg[0], n);
        return result(connect(fd, (struct sockaddr *) &a,
                              (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 + n)));
}

static int try_signal(char **arg)
{
        return result(kill(number(arg[0]), SIGUSR1));
}

static int try_trace(char **arg)
{
        return result(ptrace(PTRACE_SEIZE, number(arg[0]), NULL, NULL));
}

static int try_exec(char **arg)
{
        char *argv[] = { (char *) (uintptr_t) "touch", arg[0], NULL }, *env[] = { NULL };

        (void) execve("/usr/bin/touch", argv, env);
        return -errno;
}

static int try_fork(char **arg)
{
        pid_t pid = (pid_t) syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

        (void) arg;
        if (pid == 0)
                _exit(0);
        return pid < 0 ? -errno : result(waitpid(pid, NULL, 0));
}

static int try_namespace(char **arg)
{
        (void) arg;
        return result(unshare(CLONE_NEWUSER));
}

static int try_mount(char **arg)
{
        return result(mount("none", arg[0], "tmpfs", 0, NULL));
}

/* Nothing; whoever started us looks at us from outside until our input ends. */
static int try_wait(char **arg)
{
        char byte;

        (void) arg;
        if (write(STDOUT_FILENO, "here\n", 5) < 0)
                return -errno;
        return result(read(STDIN_FILENO, &byte, 1));
}

static int try_call(char **arg)
{
        return result(syscall(number(arg[0]), 0, 0, 0, 0, 0, 0));
}

static const struct {
        const char *name;
        int (*fn)(char **arg);
        int args;
} attempts[] = {
        { "read", try_read, 1 },           { "write", try_write, 1 },
        { "make", try_make, 1 },           { "unlink", try_unlink, 1 },
        { "connect", try_connect, 1 },     { "udp", try_udp, 1 },
        { "bind", try_bind, 1 },           { "abstract", try_abstract, 1 },
        { "signal", try_signal, 1 },       { "trace", try_trace, 1 },
        { "exec", try_exec, 1 },           { "fork", try_fork, 0 },
        { "namespace", try_namespace, 0 }, { "mount", try_mount, 1 },
        { "call", try_call, 1 },           { "wait", try_wait, 0 },
};

int main(int argc, char **argv)
{
        struct err e = { 0 };

        if (argc < 4)
                return 3;
        if (strcmp(argv[1], "down") == 0 && descend(argv[2], &e) < 0) {
                (void) dprintf(STDERR_FILENO, "%s\n", e.msg);
                return 2;
        }
        for (size_t i = 0; i < NELEM(attempts); i++) {
                int r;

                if (strcmp(attempts[i].name, argv[3]) != 0 || argc != 4 + attempts[i].args)
                        continue;
                r = attempts[i].fn(argv + 4);
                (void) dprintf(STDOUT_FILENO, "%s\n", r < 0 ? strerror(-r) : "did it");
                return r < 0;
        }
        return 3;
}
