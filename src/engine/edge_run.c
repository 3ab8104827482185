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
#define RECORD      "edge.process"
#define KILL_MS     10000
#define OOM_SCORE   "100" /* as clusters: strangers can make it grow, and it is started again */
#define PROG_FD     5     /* behind those that config.h names */
#define GO_FD       6
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

const char *edge_run_program(void)
{
        for (size_t i = 0; i < NELEM(places); i++)
                if (access(places[i], X_OK) == 0)
                        return places[i];
        return NULL;
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

/* Its descriptors get the numbers that its configuration names, the program and @go the next ones; all others are
 * closed.  @go: -EBADF, there is none. */
static void arrange(const int from[3], int go)
{
        const int all[] = { from[0], from[1], from[2], go };
        int aside[NELEM(all)];

        for (int i = 0; i < (int) NELEM(all); i++)
                aside[i] = all[i] < 0 ? all[i] : fcntl(all[i], F_DUPFD_CLOEXEC, ASIDE_FD);
        for (int i = 0; i < (int) NELEM(all); i++)
                if (all[i] >= 0 && (aside[i] < 0 || dup2(aside[i], EDGE_LISTEN_FD + i) < 0))
                        fail("descriptors", 0);
        (void) fd_close_from(go < 0 ? GO_FD : GO_FD + 1);
        (void) fd_set_cloexec(PROG_FD, true);
}

/* Until we are written down; whoever would do that may have been killed. */
static void wait_for_word(void)
{
        char byte;

        if (read(GO_FD, &byte, 1) != 1)
                _exit(126);
        (void) close(GO_FD);
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

/* @words: where its standard error goes, -EBADF: where ours does; @go: see wait_for_word(), -EBADF: at once. */
__attribute__((noreturn)) static void child(const struct edge_run *r, pid_t engine, int prog,
                                            int words, int go)
{
        const bool check = words >= 0;
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
        if (!check && setsid() < 0) /* ^C is for the engine */
                fail("session", 0);
        (void) setpriority(PRIO_PROCESS, 0, 0);
        (void) fd_write_value(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE);
        (void) setrlimit(RLIMIT_CORE, &none); /* keys are in its memory */
        (void) setrlimit(RLIMIT_NOFILE, &many);
        if (!config || !journal || null < 0 || dup2(null, 0) < 0 ||
            dup2(words >= 0 ? words : null, 1) < 0 || (words >= 0 && dup2(words, 2) < 0))
                fail("standard streams", 0);
        arrange(from, go);
        if (go >= 0)
                wait_for_word();
        enter_root(r->dir);
        r2 = proc_drop(CLAIM_EDGE_UID, check ? engine : 0);
        if (r2 < 0)
                fail("rights", r2);
        (void) syscall(SYS_execveat, PROG_FD, "", argv, env, AT_EMPTY_PATH);
        fail("execve", 0);
}

/* ---- in the engine ---- */

static int spawn(const struct edge_run *r, int words, int go, pid_t *ret_pid, struct err *e)
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
                child(r, engine, prog, words, go);
        *ret_pid = pid;
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
        pid_t pid = 0;
        int p[2], res;

        if (pipe2(p, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        ours = p[0];
        theirs = p[1];
        pidfd = spawn(r, theirs, -EBADF, &pid, e);
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

/* "PID START BOOT MARK\n" */
static int write_down(const struct edge_run *r, pid_t pid, struct err *e)
{
        struct proc_id id;
        AUTO(free) char *text = NULL;
        int res = proc_identify(pid, &id);

        if (res >= 0) {
                text = str_fmt("%d %llu %s %s\n", (int) id.pid, (unsigned long long) id.start_ticks,
                               id.boot_id, r->mark);
                res = text ? fd_replace_file(r->run_fd, RECORD, text, strlen(text), 0600, false)
                           : -ENOMEM;
        }
        return res < 0 ? err_errno(e, res, "write down which process haproxy is") : 0;
}

int edge_run_start(const struct edge_run *r, struct err *e)
{
        AUTO(fd) int theirs = -EBADF;
        AUTO(fd) int ours = -EBADF;
        int p[2], pidfd, res;
        pid_t pid = 0;

        if (pipe2(p, O_CLOEXEC) < 0)
                return err_errno(e, -errno, "pipe");
        theirs = p[0];
        ours = p[1];
        pidfd = spawn(r, -EBADF, theirs, &pid, e);
        if (pidfd < 0)
                return pidfd;
        res = write_down(r, pid, e);
        if (res >= 0 && write(ours, "", 1) == 1)
                return pidfd;
        edge_run_kill(pidfd);
        (void) fd_close(pidfd);
        return res < 0 ? res : err_set(e, -EPIPE, "haproxy has ended before it began");
}

static int read_record(int run_fd, struct proc_id *ret, char mark[static EDGE_MARK_MAX])
{
        AUTO(free) char *text = NULL;
        char *save = NULL, *word[4];
        uint64_t pid;
        int r = fd_read_file(run_fd, RECORD, 512, &text, NULL);

        if (r < 0)
                return r;
        for (size_t i = 0; i < NELEM(word); i++)
                if (!(word[i] = strtok_r(i == 0 ? text : NULL, " \n", &save)))
                        return -EBADMSG;
        if (str_u64(word[0], 1, INT32_MAX, &pid) < 0 ||
            str_u64(word[1], 0, UINT64_MAX, &ret->start_ticks) < 0 ||
            strlen(word[2]) >= sizeof ret->boot_id || strlen(word[3]) >= EDGE_MARK_MAX)
                return -EBADMSG;
        ret->pid = (pid_t) pid;
        (void) snprintf(ret->boot_id, sizeof ret->boot_id, "%s", word[2]);
        (void) snprintf(mark, EDGE_MARK_MAX, "%s", word[3]);
        return 0;
}

static int find(int run_fd, char mark[static EDGE_MARK_MAX])
{
        struct proc_id id = { .pid = 0 };
        int r = read_record(run_fd, &id, mark);

        return r < 0 ? -ESRCH : proc_open(&id);
}

int edge_run_find(int run_fd, struct edge_found *ret)
{
        struct edge_found f = { -EBADF, -EBADF, -EBADF, "" };
        struct pollfd p = { .events = POLLIN };

        f.pidfd = find(run_fd, f.mark);
        if (f.pidfd < 0)
                return -ESRCH;
        p.fd = f.pidfd;
        if (poll(&p, 1, 0) != 0) { /* dead, and nobody has reaped it */
                (void) fd_close(f.pidfd);
                return -ESRCH;
        }
        /* the numbers that arrange() gave them; without the right to take them it is of no use */
        f.listen = (int) syscall(SYS_pidfd_getfd, f.pidfd, EDGE_LISTEN_FD, 0);
        f.admin = (int) syscall(SYS_pidfd_getfd, f.pidfd, EDGE_ADMIN_FD, 0);
        *ret = f;
        return 0;
}

void edge_run_kill(int pidfd)
{
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        if (pidfd < 0)
                return;
        (void) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        (void) poll(&p, 1, KILL_MS);
        (void) waitid(P_PIDFD, (id_t) pidfd, &(siginfo_t){ 0 },
                      WEXITED | WNOHANG); /* ours or not */
}

void edge_run_end(int dirfd)
{
        char mark[EDGE_MARK_MAX];
        AUTO(fd) int pidfd = find(dirfd, mark);

        edge_run_kill(pidfd);
        (void) unlinkat(dirfd, RECORD, 0);
}
