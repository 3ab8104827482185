/* connect.c - one connection on stdin and stdout.  vmm-ssh, inside the cluster, a session of the API's.
 *
 * The keeper starts dropbear for it, so that what a session leaves behind has somebody who waits for it; we
 * are between its socket and the session's pipes.  Where no keeper is to be had, dropbear is our own child. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/mem.h"
#include "ssh/ssh_priv.h"

#define TRY_EVERY_NS 20000000L
#define TRIES        100U /* while a cluster starts its keeper may be on its way */

extern char **environ;

/* dropbear wants a socket, and a session has pipes: bytes from one to the other, both ways. */
struct way {
        int from, to;
        size_t start, end;
        bool ended; /* nothing more comes */
        bool shut;  /* and the other side has been told */
        char buf[65536];
};

static void way_read(struct way *w)
{
        ssize_t n = read(w->from, w->buf, sizeof w->buf);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        w->start = 0;
        w->end = n > 0 ? (size_t) n : 0;
        w->ended = n <= 0;
}

static void way_write(struct way *w)
{
        ssize_t n = write(w->to, w->buf + w->start, w->end - w->start);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return;
        w->start += n > 0 ? (size_t) n : 0;
        if (n < 0) { /* nobody listens */
                w->start = w->end = 0;
                w->ended = true;
        }
}

static bool is_empty(const struct way *w)
{
        return w->start == w->end;
}

/* Until dropbear has closed its end and all that it said is out. */
static int pump(int sock, struct err *e)
{
        static struct way in, out; /* too large for a stack that a stranger sizes */

        in = (struct way){ .from = STDIN_FILENO, .to = sock };
        out = (struct way){ .from = sock, .to = STDOUT_FILENO };
        while (!out.ended || !is_empty(&out)) {
                struct pollfd p[] = {
                        { .fd = in.ended || !is_empty(&in) ? -1 : in.from, .events = POLLIN },
                        { .fd = is_empty(&in) ? -1 : in.to, .events = POLLOUT },
                        { .fd = out.ended || !is_empty(&out) ? -1 : out.from, .events = POLLIN },
                        { .fd = is_empty(&out) ? -1 : out.to, .events = POLLOUT },
                };

                if (poll(p, NELEM(p), -1) < 0 && errno != EINTR)
                        return err_errno(e, -errno, "poll");
                if (p[0].revents)
                        way_read(&in);
                if (p[1].revents)
                        way_write(&in);
                if (p[2].revents)
                        way_read(&out);
                if (p[3].revents)
                        way_write(&out);
                if (in.ended && is_empty(&in) && !in.shut) {
                        in.shut = true;
                        (void) shutdown(sock, SHUT_WR);
                }
        }
        return 0;
}

static int set_up(const int sock[2], struct err *e)
{
        if (fd_set_nonblock(sock[0], true) < 0 || fd_set_nonblock(STDOUT_FILENO, true) < 0 ||
            signal(SIGPIPE, SIG_IGN) == SIG_ERR)
                return err_errno(e, -errno, "prepare a connection");
        return 0;
}

/* The variables of the session, with secrets that the keeper was not started with. */
static int env_file(struct err *e)
{
        AUTO(fd) int fd = memfd_create("environment", MFD_CLOEXEC);
        int r = fd < 0 ? -errno : 0;

        for (char **v = environ; *v && r >= 0; v++)
                r = fd_write_full(fd, *v, strlen(*v) + 1);
        return r < 0 ? err_errno(e, r, "a file in memory") : fd_take(&fd);
}

/* 1: the keeper serves the other end of @sock; 0: there is none. */
static int by_keeper(int sock, struct err *e)
{
        const struct timespec pause = { .tv_nsec = TRY_EVERY_NS };
        AUTO(fd) int env = -EBADF, keeper = ssh_find_keeper();
        int fds[SSH_CONNECT_FDS], r;

        for (unsigned i = 0; keeper < 0 && i < TRIES; i++) {
                (void) nanosleep(&pause, NULL);
                keeper = ssh_find_keeper();
        }
        if (keeper < 0)
                return 0;
        env = env_file(e);
        if (env < 0)
                return env;
        fds[0] = sock;
        fds[1] = env;
        fds[2] = STDERR_FILENO;
        r = ssh_say_connect(keeper, fds);
        return r < 0 ? err_errno(e, r, "the SSH server") : 1;
}

static int by_ourselves(int sock, pid_t *ret, struct err *e)
{
        char *const mode[] = { (char[]){ "-i" }, NULL };
        pid_t pid;
        int r;

        (void) prctl(PR_SET_CHILD_SUBREAPER, 1);
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork");
        if (pid == 0) {
                r = dup2(sock, STDIN_FILENO) < 0 || dup2(sock, STDOUT_FILENO) < 0
                            ? err_errno(e, -errno, "a socket as stdin")
                            : ssh_exec_dropbear(mode, environ, e);
                (void) dprintf(STDERR_FILENO, "vmm-ssh: %s\n", e->msg);
                _exit(r < 0 ? 127 : 0);
        }
        *ret = pid;
        return 0;
}

/* What has ended already, too: it is ours. */
static int wait_for(pid_t pid)
{
        int status = 0;
        pid_t r;

        do
                r = waitpid(-1, &status, 0);
        while ((r < 0 && errno == EINTR) || (r > 0 && r != pid));
        if (r != pid)
                return 127;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int ssh_connect(struct err *e)
{
        int sock[2], r;
        pid_t pid = 0;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock) < 0)
                return err_errno(e, -errno, "a socket");
        r = by_keeper(sock[1], e);
        if (r == 0)
                r = by_ourselves(sock[1], &pid, e);
        (void) close(sock[1]);
        if (r >= 0)
                r = set_up(sock, e);
        if (r >= 0)
                r = pump(sock[0], e);
        (void) close(sock[0]); /* of a failure dropbear hears by this */
        if (pid > 0) {
                int code = wait_for(pid);

                return r < 0 ? r : code;
        }
        return r;
}
