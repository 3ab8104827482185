/* main.c - vmm-monitor: the parent of a cluster's first process, or of an exec'd one.
 *
 * Started by the launcher with its uid and gid already dropped and with nothing but descriptors
 * (model/attach.h has the command line).  It climbs down one ladder: options, descriptors, log,
 * everything else closed, signals, privileges, seccomp, then it serves.  A failure before that is
 * one line on stderr and exit status 1; afterwards nothing but the exit of the child ends it. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "model/limits.h"
#include "monitor/filter.h"
#include "monitor/monitor_priv.h"

#define FIRST_FD 3

enum opt_kind { OPT_TEXT, OPT_NUMBER, OPT_FD, OPT_FLAG };

static const struct opt_row {
        const char *name;
        enum opt_kind kind;
        size_t off;
} opt_rows[] = {
        { "--id", OPT_TEXT, offsetof(struct options, id) },
        { "--pid", OPT_NUMBER, offsetof(struct options, pid) },
        { "--peer", OPT_NUMBER, offsetof(struct options, peer) },
        { "--pidfd", OPT_FD, offsetof(struct options, pidfd) },
        { "--listen", OPT_FD, offsetof(struct options, listen) },
        { "--status", OPT_FD, offsetof(struct options, status) },
        { "--pty", OPT_FD, offsetof(struct options, pty) },
        { "--in", OPT_FD, offsetof(struct options, in) },
        { "--out", OPT_FD, offsetof(struct options, out) },
        { "--err", OPT_FD, offsetof(struct options, err) },
        { "--log0", OPT_FD, offsetof(struct options, log0) },
        { "--log1", OPT_FD, offsetof(struct options, log1) },
        { "--log-rate", OPT_NUMBER, offsetof(struct options, log_rate) },
        { "--keep", OPT_NUMBER, offsetof(struct options, keep) },
        { "--exec", OPT_FLAG, offsetof(struct options, exec) },
};

static int *fd_of(struct options *o, const struct opt_row *row)
{
        return (int *) (void *) ((char *) o + row->off);
}

static int option_set(struct options *o, const struct opt_row *row, const char *value,
                      struct err *e)
{
        void *field = (char *) o + row->off;
        uint64_t v;

        if (row->kind == OPT_TEXT) {
                memcpy(field, &value, sizeof value);
                return 0;
        }
        if (str_u64(value, row->kind == OPT_FD ? FIRST_FD : 0, INT32_MAX, &v) < 0)
                return err_set(e, -EINVAL, "%s: '%s' is not a number that fits", row->name, value);
        *(uint32_t *) field = (uint32_t) v; /* int and uint32_t below INT32_MAX are the same bits */
        return 0;
}

static int options_parse(struct options *o, char **argv, struct err *e)
{
        *o = (struct options){ .pidfd = -EBADF,
                               .listen = -EBADF,
                               .status = -EBADF,
                               .pty = -EBADF,
                               .in = -EBADF,
                               .out = -EBADF,
                               .err = -EBADF,
                               .log0 = -EBADF,
                               .log1 = -EBADF };
        for (argv++; *argv; argv++) {
                const struct opt_row *row = NULL;
                int r;

                for (size_t i = 0; i < NELEM(opt_rows); i++)
                        if (strcmp(*argv, opt_rows[i].name) == 0)
                                row = &opt_rows[i];
                if (!row)
                        return err_set(e, -EINVAL, "unknown option '%s'", *argv);
                if (row->kind == OPT_FLAG) {
                        *((bool *) o + row->off) = true;
                        continue;
                }
                if (!argv[1])
                        return err_set(e, -EINVAL, "%s wants a value", row->name);
                r = option_set(o, row, *++argv, e);
                if (r < 0)
                        return r;
        }
        if (!o->id || o->pid == 0 || o->pidfd < 0 || o->listen < 0 || o->status < 0)
                return err_set(e, -EINVAL,
                               "--id, --pid, --pidfd, --listen and --status are needed");
        if ((o->pty >= 0) == (o->out >= 0) || (o->out >= 0) != (o->err >= 0) ||
            (o->pty >= 0 && o->in >= 0))
                return err_set(e, -EINVAL, "either --pty, or --out and --err and perhaps --in");
        if ((o->log0 >= 0) != (o->log1 >= 0) || (o->exec && o->log0 >= 0))
                return err_set(e, -EINVAL, "--log0 and --log1 go together, and not with --exec");
        if (o->keep > 0 && (!o->exec || o->pty < 0))
                return err_set(e, -EINVAL, "--keep is for --exec with --pty");
        return 0;
}

/* Every named descriptor is open and named once; what serves the loop does not block; all others
 * are closed, whatever the launcher left open.  #syscalls fcntl close_range (before the filter) */
static int keep_descriptors(struct options *o, struct err *e)
{
        int keep[NELEM(opt_rows)], r;
        size_t n = 0;

        for (size_t i = 0; i < NELEM(opt_rows); i++) {
                int fd = opt_rows[i].kind == OPT_FD ? *fd_of(o, &opt_rows[i]) : -EBADF;

                if (fd < 0)
                        continue;
                if (fcntl(fd, F_GETFD) < 0)
                        return err_errno(e, -errno, "%s %d", opt_rows[i].name, fd);
                if (fd != o->log0 && fd != o->log1 && fd != o->status && fd != o->pidfd &&
                    fd_set_nonblock(fd, true) < 0)
                        return err_errno(e, -errno, "%s %d: non-blocking", opt_rows[i].name, fd);
                for (size_t k = 0; k < n; k++)
                        if (keep[k] == fd)
                                return err_set(e, -EINVAL, "descriptor %d has two names", fd);
                keep[n++] = fd;
        }
        r = fd_close_except(FIRST_FD, keep, n);
        return r < 0 ? err_errno(e, r, "close_range") : 0;
}

/* The exit must be told also when the log has filled the disk: the status line has its block from
 * the start, as far as the file system (or a pipe) can.  #syscalls fallocate (before the filter) */
static int status_reserve(int fd, struct err *e)
{
        if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, ATTACH_STATUS_MAX) < 0 &&
            (errno == ENOSPC || errno == EDQUOT))
                return err_errno(e, -errno, "reserve the status file");
        return 0;
}

/* #syscalls epoll_create1 ioctl waitid (before the filter) */
static int monitor_start(struct monitor *m, struct err *e)
{
        struct options *o = &m->opt;
        siginfo_t si = { 0 };
        int r;

        if (waitid(P_PIDFD, (id_t) o->pidfd, &si, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
                return err_errno(e, -errno, "process %u is not a child", o->pid);
        r = status_reserve(o->status, e);
        if (r < 0)
                return r;
        m->has_log = o->log0 >= 0;
        if (m->has_log) {
                r = ring_open(&m->ring, o->log0, o->log1, LIMIT_LOG_BYTES / 2, e);
                if (r < 0)
                        return r;
        }
        m->pty_peer = -EBADF;
        if (o->pty >= 0) {
                m->pty_peer = ioctl(o->pty, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
                if (m->pty_peer < 0)
                        return err_errno(e, -errno, "open the other side of the pty");
        }
        m->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (m->epoll < 0)
                return err_errno(e, -errno, "epoll");
        m->phase = PH_RUN;
        m->child = (struct watch){ .fd = o->pidfd, .id = SRC_CHILD };
        m->listen = (struct watch){ .fd = o->listen, .id = SRC_LISTEN };
        stdio_start(m);
        r = watch_set(m, &m->child, EPOLLIN);
        if (r >= 0)
                r = watch_set(m, &m->listen, EPOLLIN);
        return r < 0 ? err_errno(e, r, "epoll") : 0;
}

/* Only the exit of the child ends a monitor, so whatever a terminal or a shutdown sends is
 * ignored; a closed pipe or a full file is an error code.  SIGCHLD must not be ignored, or the
 * kernel would throw the exit status away.  #syscalls rt_sigaction (before the filter) */
static int signals_set(struct err *e)
{
        static const int ignored[] = { SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGPIPE, SIGUSR1,
                                       SIGUSR2, SIGALRM, SIGTSTP, SIGTTIN, SIGTTOU, SIGXFSZ };

        for (size_t i = 0; i < NELEM(ignored); i++)
                if (signal(ignored[i], SIG_IGN) == SIG_ERR)
                        return err_errno(e, -errno, "ignore signal %d", ignored[i]);
        if (signal(SIGCHLD, SIG_DFL) == SIG_ERR)
                return err_errno(e, -errno, "SIGCHLD");
        return 0;
}

/* Leave the launcher's terminal, directory and standard descriptors.  The old stderr stays as
 * *ret_stderr until nothing can fail any more.  #syscalls setsid chdir openat dup3 (before) */
static int surroundings_leave(int *ret_stderr, struct err *e)
{
        AUTO(fd) int null = -EBADF, old = -EBADF;

        (void) setsid(); /* fails when the launcher has done it */
        if (chdir("/") < 0)
                return err_errno(e, -errno, "chdir");
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null < 0)
                return err_errno(e, -errno, "/dev/null");
        old = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, FIRST_FD); /* none: then nobody reads us */
        for (int fd = 0; fd < FIRST_FD; fd++)
                if (null != fd && dup2(null, fd) < 0)
                        return err_errno(e, -errno, "/dev/null as %d", fd);
        if (null < FIRST_FD)
                (void) fd_take(&null);
        *ret_stderr = fd_take(&old);
        return 0;
}

static int monitor_descend(struct monitor *m, int *ret_stderr, struct err *e)
{
        int r = signals_set(e);

        if (r < 0)
                return r;
        r = keep_descriptors(&m->opt, e);
        if (r < 0)
                return r;
        r = monitor_start(m, e);
        if (r < 0)
                return r;
        r = surroundings_leave(ret_stderr, e);
        if (r < 0)
                return r;
        r = filter_drop(m->opt.exec, e);
        if (r < 0)
                return r;
        return filter_install(m->opt.pidfd, e);
}

int main(int argc, char **argv)
{
        struct monitor *m =
                mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int say = STDERR_FILENO, r;
        struct err e = { 0 };

        if (argc < 1 || m == MAP_FAILED)
                return 1;
        if (getuid() == 0 || geteuid() == 0)
                r = err_set(&e, -EPERM, "refuses to run as root");
        else
                r = options_parse(&m->opt, argv, &e);
        if (r >= 0)
                r = monitor_descend(m, &say, &e);
        if (r < 0) {
                (void) dprintf(say, "vmm-monitor%s%s: %s\n", m->opt.id ? " " : "",
                               m->opt.id ? m->opt.id : "", e.msg);
                return 1;
        }
        (void) fd_close(say);
        return monitor_run(m);
}
