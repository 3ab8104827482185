/* edge_run.c - see edge_run.h.  Engine process, loop thread. */
#include "engine/edge_run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "edge/config.h"
#include "engine/claim/claim.h"
#include "engine/edge_files.h"
#include "engine/jail.h"

#define CHECK_US    (20 * US_PER_S)
#define WORDS_BYTES 8192U
#define PROG_FD     5  /* behind those that config.h names */
#define ASIDE_FD    16 /* where descriptors wait until these numbers are free */

static const char *const places[] = { "/usr/sbin/haproxy", "/usr/local/sbin/haproxy" };

static int open_program(struct err *e)
{
        for (size_t i = 0; i < NELEM(places); i++) {
                int fd = open(places[i], O_PATH | O_CLOEXEC);

                if (fd >= 0 || errno != ENOENT)
                        return fd >= 0 ? fd : err_errno(e, -errno, "%s", places[i]);
        }
        return err_set(
                e, -ENOENT,
                "%s is not there: install the package haproxy, or switch the edge off ([edge] listen = none)",
                places[0]);
}

unsigned edge_run_descriptors(void)
{
        struct rlimit l = { 0, 0 };

        (void) getrlimit(RLIMIT_NOFILE, &l);
        return l.rlim_max > 1U << 20 ? 1U << 20 : (unsigned) l.rlim_max;
}

/* ---- in the child ---- */

__attribute__((noreturn)) static void fail(const char *what, int code)
{
        log_error("haproxy: %s: %s", what, strerror(code < 0 ? -code : errno));
        _exit(126);
}

/* Its descriptors get the numbers that its configuration names; all others are closed. */
static void arrange(const int from[3])
{
        int aside[3];

        for (int i = 0; i < 3; i++)
                aside[i] = fcntl(from[i], F_DUPFD_CLOEXEC, ASIDE_FD);
        for (int i = 0; i < 3; i++)
                if (aside[i] < 0 || dup2(aside[i], EDGE_LISTEN_FD + i) < 0)
                        fail("descriptors", 0);
        (void) fd_close_from(PROG_FD + 1);
        (void) fd_set_cloexec(PROG_FD, true);
}

static void enter_root(const char *dir)
{
        const struct jail_row rows[] = {
                { "/usr/lib", JAIL_READ }, /* the loader and libraries, and the links to them */
                { "/usr/lib64", JAIL_READ },
                { "/usr/local/lib", JAIL_READ },
                { "/lib", JAIL_READ },
                { "/lib64", JAIL_READ },
                { "/etc/ld.so.cache", JAIL_READ },
                { "/etc/ssl/openssl.cnf", JAIL_READ },
                { "/dev/urandom", JAIL_DEVICE },
                { dir, JAIL_READ }, /* configuration, certificates, routes */
        };
        struct err e = { 0 };

        if (jail_enter(rows, NELEM(rows), &e) >= 0)
                return;
        log_error("haproxy: %s", e.msg);
        _exit(126);
}

/* @words: where its standard error goes, -EBADF: where ours does. */
__attribute__((noreturn)) static void child(const struct edge_run *r, pid_t engine, int prog,
                                            bool check, int words)
{
        const struct rlimit none = { 0, 0 }, many = { r->descriptors, r->descriptors };
        const char *stream = getenv("JOURNAL_STREAM"); /* it writes into the same journal */
        AUTO(free) char *config = str_fmt("%s/" EDGE_CONFIG_FILE, r->dir);
        AUTO(free) char *journal = str_fmt("JOURNAL_STREAM=%s", stream ? stream : "");
        const int from[3] = { r->listen, r->admin, prog };
        char *argv[] = { (char *) (uintptr_t) "haproxy",
                         (char *) (uintptr_t) "-db",
                         (char *) (uintptr_t) "-f",
                         config,
                         check ? (char *) (uintptr_t) "-c" : NULL,
                         NULL };
        char *env[] = { (char *) (uintptr_t) "LANG=C.UTF-8", stream ? journal : NULL, NULL };
        int null = open("/dev/null", O_RDWR | O_CLOEXEC), r2;
        sigset_t empty;

        (void) sigemptyset(&empty);
        (void) sigprocmask(SIG_SETMASK, &empty, NULL);
        (void) setpriority(PRIO_PROCESS, 0, 0);
        (void) setrlimit(RLIMIT_CORE, &none); /* keys are in its memory */
        (void) setrlimit(RLIMIT_NOFILE, &many);
        if (!config || !journal || null < 0 || dup2(null, 0) < 0 ||
            dup2(words >= 0 ? words : null, 1) < 0 || (words >= 0 && dup2(words, 2) < 0))
                fail("standard streams", 0);
        arrange(from);
        enter_root(r->dir);
        r2 = proc_drop(CLAIM_EDGE_UID, engine);
        if (r2 < 0)
                fail("rights", r2);
        (void) syscall(SYS_execveat, PROG_FD, "", argv, env, AT_EMPTY_PATH);
        fail("execve", 0);
}

/* ---- in the engine ---- */

static int spawn(const struct edge_run *r, bool check, int words, struct err *e)
{
        AUTO(fd) int prog = open_program(e);
        pid_t engine = getpid(), pid;
        int fd;

        if (prog < 0)
                return prog;
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork haproxy");
        if (pid == 0)
                child(r, engine, prog, check, words);
        fd = (int) syscall(SYS_pidfd_open, pid, 0);
        if (fd >= 0)
                return fd;
        fd = -errno;
        (void) kill(pid, SIGKILL); /* not reaped yet, so the number is still its own */
        (void) waitpid(pid, NULL, 0);
        return err_errno(e, fd, "watch haproxy");
}

/* The first complaint in what it has written, without its decoration. */
static void complaint(char *text, struct err *e)
{
        char *line = strstr(text, "[ALERT]");
        char *said = line ? strstr(line, ") : ") : NULL;

        said = said ? said + 4 : text;
        said[strcspn(said, "\n")] = '\0';
        (void) err_set(e, -EINVAL, "HAProxy does not take its configuration: %.180s", said);
}

/* Read until it has closed its end; NUL-terminated. */
static int read_words(int fd, uint64_t until_us, char *buf, size_t size)
{
        size_t len = 0;

        buf[0] = '\0';
        for (;;) {
                uint64_t now = clock_mono_us();
                struct pollfd p = { .fd = fd, .events = POLLIN };
                char rest[512];
                ssize_t n;

                if (now >= until_us || poll(&p, 1, (int) ((until_us - now) / US_PER_MS) + 1) == 0)
                        return -ETIMEDOUT;
                n = len + 1 < size ? read(fd, buf + len, size - len - 1)
                                   : read(fd, rest, sizeof rest);
                if (n < 0 && errno != EINTR)
                        return -errno;
                if (n == 0)
                        return 0;
                if (n > 0 && len + 1 < size) {
                        len += (size_t) n;
                        buf[len] = '\0';
                }
        }
}

int edge_run_check(const struct edge_run *r, struct err *e)
{
        AUTO(fd) int ours = -EBADF;
        AUTO(fd) int theirs = -EBADF;
        AUTO(fd) int pidfd = -EBADF;
        char text[WORDS_BYTES];
        siginfo_t si = { 0 };
        int p[2], res;

        if (pipe2(p, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        ours = p[0];
        theirs = p[1];
        pidfd = spawn(r, true, theirs, e);
        if (pidfd < 0)
                return pidfd;
        theirs = fd_close(theirs);
        res = read_words(ours, clock_mono_us() + CHECK_US, text, sizeof text);
        if (res < 0)
                (void) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        (void) waitid(P_PIDFD, (id_t) pidfd, &si, WEXITED);
        if (res < 0)
                return err_errno(e, res, "HAProxy does not say whether it takes its configuration");
        if (si.si_code == CLD_EXITED && si.si_status == 0)
                return 0;
        complaint(text, e);
        return -EINVAL;
}

int edge_run_start(const struct edge_run *r, struct err *e)
{
        return spawn(r, false, -EBADF, e);
}
