/* launch.c - see sandbox.h; the operation's and the launcher's part.
 *
 *   operation                 launcher                      first process
 *   make /dev, pipes
 *   clone3 ------------------> enter the monitor's group
 *                              enter the network namespace
 *                              clone3 ---------------------> enter the cluster's group
 *                              id map, oom score             (in parallel)
 *                              GO -------------------------> mounts, user, limits, rights
 *   <- CHILD pid, pidfd        wait                          EXEC, execve
 *                              <- end of file: it runs
 *                              drop everything, execve vmm-monitor
 *   <- end of file: started
 *
 * Always holds: whoever fails says so in one note and takes its children along.  The launcher
 * watches the operation's end of the socket, so an operation that is killed leaves no half-built
 * cluster; and an operation whose launcher vanished kills the first process by its pidfd. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/idmap.h"
#include "engine/sandbox/sandbox_priv.h"

/* A cluster goes before the host's own services when the host runs out of memory. */
#define OOM_SCORE "100"

/* ---- notes */

int note_send(int sock, const struct note *n, int fd)
{
        union {
                struct cmsghdr h;
                char buf[CMSG_SPACE(sizeof(int))];
        } c = { .buf = { 0 } };
        struct note copy = *n;
        struct iovec v = { &copy, sizeof copy };
        struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

        if (fd >= 0) {
                m.msg_control = &c;
                m.msg_controllen = sizeof c.buf;
                c.h.cmsg_level = SOL_SOCKET;
                c.h.cmsg_type = SCM_RIGHTS;
                c.h.cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(&c.h), &fd, sizeof fd);
        }
        return sendmsg(sock, &m, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int note_recv(int sock, struct note *n, int *fd)
{
        union {
                struct cmsghdr h;
                char buf[CMSG_SPACE(sizeof(int))];
        } c;
        struct iovec v = { n, sizeof *n };
        struct msghdr m = { .msg_iov = &v,
                            .msg_iovlen = 1,
                            .msg_control = &c,
                            .msg_controllen = sizeof c.buf };
        struct cmsghdr *h;
        ssize_t len;

        do
                len = recvmsg(sock, &m, MSG_CMSG_CLOEXEC);
        while (len < 0 && errno == EINTR);
        *fd = -EBADF;
        if (len <= 0)
                return len < 0 ? -errno : 0;
        h = CMSG_FIRSTHDR(&m);
        if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
                memcpy(fd, CMSG_DATA(h), sizeof *fd);
        if ((size_t) len != sizeof *n) {
                *fd = fd_close(*fd);
                return -EPROTO;
        }
        n->err.msg[sizeof n->err.msg - 1] = '\0';
        return 1;
}

/* ---- the policy, compiled */

/* The one piece of state here: written once at engine start, inherited by every fork. */
static struct filter *filter;

int sandbox_prepare(struct err *e)
{
        return filter ? 0 : filter_build(policy_rows, policy_n_rows, &filter, e);
}

/* ---- launcher */

static long clone_into(uint64_t flags, int cgroup, int *pidfd)
{
        struct clone_args a = { .flags = flags | CLONE_PIDFD,
                                .pidfd = (uint64_t) (uintptr_t) pidfd,
                                .exit_signal = SIGCHLD };

        if (cgroup >= 0) {
                a.flags |= CLONE_INTO_CGROUP;
                a.cgroup = (unsigned) cgroup;
        }
        return syscall(SYS_clone3, &a, sizeof a);
}

static int v2_dir(const struct slice_enter *s)
{
        return s ? s->v2_dir : -EBADF;
}

static void kill_wait(int pidfd)
{
        if (pidfd < 0)
                return;
        (void) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
        while (waitid(P_PIDFD, (id_t) pidfd, &(siginfo_t){ 0 }, WEXITED) < 0 && errno == EINTR)
                ;
}

/* The namespaces that the child gets through us, because entering them takes the host's rights; the
 * network namespace is left again at once, its descriptor waits in *@back. */
static int enter_for_child(const struct launch *l, int *back, struct err *e)
{
        if (l->join >= 0)
                return setns(l->join, CLONE_NEWPID) < 0
                               ? err_errno(e, -errno, "join the cluster's processes")
                               : 0;
        if (l->s->netns < 0)
                return 0;
        *back = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (*back < 0 || setns(l->s->netns, CLONE_NEWNET) < 0)
                return err_errno(e, -errno, "enter the network namespace");
        return 0;
}

static uint64_t child_flags(const struct launch *l)
{
        if (l->join >= 0)
                return 0;
        return CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS |
               (l->s->netns < 0 ? CLONE_NEWNET : 0);
}

/* The child waits for its id map; meanwhile it moves into its group. */
static int bless_child(const struct launch *l, pid_t pid, int sock, struct err *e)
{
        const struct note go = { .type = NOTE_GO };
        AUTO(fd) int dir = -EBADF;
        char path[32];
        int r;

        (void) snprintf(path, sizeof path, "/proc/%d", (int) pid);
        dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (dir < 0)
                return err_errno(e, -errno, "open %s", path);
        r = fd_write_value(dir, "oom_score_adj", OOM_SCORE);
        if (r < 0 && r != -EACCES) /* refused when ours is higher already: then it stays so */
                return err_errno(e, r, "oom_score_adj");
        if (l->join >= 0)
                return 0; /* an exec session joins a namespace that has its map */
        r = idmap_write(dir, l->s->id_base);
        if (r < 0)
                return err_errno(e, r, "map ids to %u", l->s->id_base);
        return note_send(sock, &go, -EBADF) < 0 ? err_set(e, -EPIPE, "the first process has ended")
                                                : 0;
}

/* What the child tells us until its execve: 1 when it has happened, 0 to go on. */
static int child_note(struct launch *l, int sock, bool *ready, struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = note_recv(sock, &n, &fd);

        if (r < 0)
                return err_errno(e, r, "hear from the first process");
        if (r == 0)
                return *ready ? 1 : err_set(e, -ECHILD, "the first process ended while it was set up");
        if (n.type == NOTE_PTY && fd >= 0 && l->s->tty && l->monitor_io[0] < 0) {
                l->monitor_io[0] = fd;
                return 0;
        }
        (void) fd_close(fd);
        if (n.type == NOTE_ERROR && n.err.code < 0)
                return err_copy(e, &n.err);
        if (n.type != NOTE_EXEC)
                return err_set(e, -EPROTO, "unexpected note from the first process");
        *ready = true;
        return 0;
}

/* Until the child runs its program; ends early when the operation is gone. */
static int await_exec(struct launch *l, int sock, struct err *e)
{
        bool ready = false;
        int r = 0;

        while (r == 0) {
                struct pollfd p[] = { { .fd = sock, .events = POLLIN }, { .fd = l->up } };

                if (poll(p, NELEM(p), -1) < 0 && errno != EINTR)
                        return err_errno(e, -errno, "poll");
                if (p[1].revents)
                        return err_set(e, -EPIPE, "the operation has ended");
                if (p[0].revents)
                        r = child_note(l, sock, &ready, e);
        }
        return r;
}

/* "--name N", with the descriptor inherited. */
static int pass_fd(char ***argv, const char *name, int fd)
{
        char text[16];
        int r = fd_set_cloexec(fd, false);

        (void) snprintf(text, sizeof text, "%d", fd);
        if (r >= 0)
                r = strv_push(argv, name);
        return r < 0 ? r : strv_push(argv, text);
}

static int monitor_argv(const struct launch *l, pid_t pid, int pidfd, char ***argv)
{
        const struct sandbox_spec *s = l->s;
        const struct {
                const char *name;
                int fd;
        } rows[] = {
                { "--pidfd", pidfd },
                { "--listen", s->listen_fd },
                { "--status", s->status_fd },
                { s->tty ? "--pty" : "--in", l->monitor_io[0] },
                { "--out", s->tty ? -EBADF : l->monitor_io[1] },
                { "--err", s->tty ? -EBADF : l->monitor_io[2] },
                { "--log0", l->join < 0 ? s->log_fd[0] : -EBADF },
                { "--log1", l->join < 0 ? s->log_fd[1] : -EBADF },
        };
        const char *const plain[] = { "vmm-monitor", "--id", s->cluster, "--pid" };
        char text[16];
        int r = 0;

        for (size_t i = 0; i < NELEM(plain) && r >= 0; i++)
                r = strv_push(argv, plain[i]);
        (void) snprintf(text, sizeof text, "%d", (int) pid);
        if (r >= 0)
                r = strv_push(argv, text);
        for (size_t i = 0; i < NELEM(rows) && r >= 0; i++)
                if (rows[i].fd >= 0)
                        r = pass_fd(argv, rows[i].name, rows[i].fd);
        if (r >= 0 && l->join >= 0)
                r = strv_push(argv, "--exec");
        return r;
}

/* Give everything up and become vmm-monitor; comes back only with an error. */
static int become_monitor(struct launch *l, pid_t pid, int pidfd, struct err *e)
{
        AUTO(strv_free) char **argv = NULL;
        char *env[] = { NULL };
        int r;

        if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
                return err_errno(e, -errno, "close_range");
        r = monitor_argv(l, pid, pidfd, &argv);
        if (r < 0)
                return err_errno(e, r, "vmm-monitor's arguments");
        r = confine_monitor(l->s->monitor_uid, e);
        if (r < 0)
                return err_wrap(e, r, "vmm-monitor");
        (void) syscall(SYS_execveat, l->program, "", argv, env, AT_EMPTY_PATH);
        return err_errno(e, -errno, "exec vmm-monitor");
}

/* The engine's terminal, or the pipe of whoever started it, is nothing to hold on to. */
static int detach(const struct launch *l, struct err *e)
{
        AUTO(fd) int null = open("/dev/null", O_RDWR | O_CLOEXEC | O_NOCTTY);
        int r = null < 0 ? -errno : 0;

        for (int i = 0; i < 3 && r >= 0; i++)
                if (dup2(null, i) < 0)
                        r = -errno;
        if (r >= 0 && (setsid() < 0 || chdir("/") < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0))
                r = -errno;
        if (r < 0)
                return err_errno(e, r, "detach the launcher");
        confine_signals();
        if (l->s->monitor_slice && l->s->monitor_slice->v2_dir < 0)
                r = slice_enter_self(l->s->monitor_slice);
        return r < 0 ? err_errno(e, r, "enter the monitor's group") : 0;
}

/* Returns only on failure; *@pidfd is the child, when there is one. */
static int launcher_run(struct launch *l, int *pidfd, struct err *e)
{
        struct note child = { .type = NOTE_CHILD };
        AUTO(fd) int back = -EBADF;
        int sock[2], r = detach(l, e);

        if (r >= 0)
                r = enter_for_child(l, &back, e);
        if (r < 0)
                return r;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
                return err_errno(e, -errno, "socketpair");
        child.pid = (pid_t) clone_into(child_flags(l), v2_dir(l->s->slice), pidfd);
        if (child.pid < 0)
                return err_errno(e, -errno, "make the cluster's namespaces");
        if (child.pid == 0) {
                (void) close(sock[0]);
                l->report = sock[1];
                first_run(l);
        }
        (void) close(sock[1]);
        for (int i = 0; i < 3; i++)
                l->io[i] = fd_close(l->io[i]);
        if (back >= 0 && setns(back, CLONE_NEWNET) < 0)
                return err_errno(e, -errno, "leave the network namespace");
        r = bless_child(l, child.pid, sock[0], e);
        if (r >= 0 && note_send(l->up, &child, *pidfd) < 0)
                r = err_set(e, -EPIPE, "the operation has ended");
        if (r >= 0)
                r = await_exec(l, sock[0], e);
        return r < 0 ? r : become_monitor(l, child.pid, *pidfd, e);
}

_Noreturn static void launcher(struct launch *l)
{
        struct note n = { .type = NOTE_ERROR };
        int pidfd = -EBADF;

        n.err.code = launcher_run(l, &pidfd, &n.err);
        kill_wait(pidfd); /* refused after the rights were dropped: then the operation does it */
        (void) note_send(l->up, &n, -EBADF);
        _exit(127);
}

/* ---- operation */

static int make_pipes(struct launch *l, struct err *e)
{
        for (int i = 0; i < 3; i++) {
                int p[2], in = i == 0 ? 0 : 1; /* the program's end */

                if (pipe2(p, O_CLOEXEC) < 0)
                        return err_errno(e, -errno, "pipe");
                l->io[i] = p[in];
                l->monitor_io[i] = p[1 - in];
                if (fchown(p[in], l->s->id_base, l->s->id_base) < 0)
                        return err_errno(e, -errno, "hand over the pipes");
        }
        return 0;
}

static int open_monitor(const char *libexec, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/vmm-monitor", libexec);
        AUTO(fd) int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;
        struct stat st;

        if (!path)
                return err_set(e, -ENOMEM, "out of memory");
        if (fd < 0 || fstat(fd, &st) < 0)
                return err_errno(e, -errno, "open %s", path);
        if (!S_ISREG(st.st_mode) || !(st.st_mode & S_IXOTH))
                return err_set(e, -EACCES, "%s cannot be executed by everybody", path);
        return fd_take(&fd);
}

static int check_spec(const struct sandbox_spec *s, struct err *e)
{
        if (str_empty(s->cluster) || str_empty(s->libexec) || !s->argv || !s->argv[0] || !s->env)
                return err_set(e, -EINVAL, "sandbox: incomplete order");
        if (s->id_base == 0 || s->id_base > UINT32_MAX - SANDBOX_IDS || s->monitor_uid == 0)
                return err_set(e, -EINVAL, "sandbox: ids of the host");
        return 0;
}

/* Notes from the launcher until its end of file, which is the monitor's execve. */
static int await_start(int sock, struct sandbox_proc *p, struct err *e)
{
        for (;;) {
                struct note n = { .type = NOTE_NONE };
                int fd = -EBADF, r = note_recv(sock, &n, &fd);

                if (r < 0)
                        return err_errno(e, r, "hear from the launcher");
                if (r == 0)
                        return p->init_pidfd >= 0 ? 0 : err_set(e, -ECHILD, "the launcher was killed");
                if (n.type == NOTE_ERROR && n.err.code < 0) {
                        (void) fd_close(fd);
                        return err_copy(e, &n.err);
                }
                if (n.type != NOTE_CHILD || fd < 0 || p->init_pidfd >= 0) {
                        (void) fd_close(fd);
                        return err_set(e, -EPROTO, "unexpected note from the launcher");
                }
                p->init = n.pid;
                p->init_pidfd = fd;
        }
}

/* Nothing may stay: first the launcher, who could still clone, then its child. */
static void undo(struct sandbox_proc *p)
{
        struct pollfd gone = { .fd = p->init_pidfd, .events = POLLIN };

        kill_wait(p->monitor_pidfd);
        if (p->init_pidfd >= 0) { /* somebody else's child by now: wait for its end, not its status */
                (void) syscall(SYS_pidfd_send_signal, p->init_pidfd, SIGKILL, NULL, 0);
                while (poll(&gone, 1, -1) < 0 && errno == EINTR)
                        ;
        }
        sandbox_proc_done(p);
}

static int spawn(struct launch *l, struct sandbox_proc *ret, struct err *e)
{
        struct sandbox_proc p = { .monitor_pidfd = -EBADF, .init_pidfd = -EBADF };
        int sock[2], r;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0)
                return err_errno(e, -errno, "socketpair");
        p.monitor = (pid_t) clone_into(0, v2_dir(l->s->monitor_slice), &p.monitor_pidfd);
        if (p.monitor == 0) {
                (void) close(sock[0]);
                l->up = sock[1];
                launcher(l);
        }
        r = p.monitor < 0 ? err_errno(e, -errno, "fork the launcher") : 0;
        (void) close(sock[1]);
        if (r >= 0)
                r = await_start(sock[0], &p, e);
        (void) close(sock[0]);
        if (r < 0) {
                undo(&p);
                return r;
        }
        *ret = p;
        return 0;
}

static int launch(const struct sandbox_spec *s, int join, struct sandbox_proc *ret, struct err *e)
{
        struct launch l = { .s = s,
                            .join = join,
                            .program = -EBADF,
                            .up = -EBADF,
                            .report = -EBADF,
                            .dev = -EBADF,
                            .io = { -EBADF, -EBADF, -EBADF },
                            .monitor_io = { -EBADF, -EBADF, -EBADF } };
        int r = check_spec(s, e);

        if (r >= 0)
                r = sandbox_prepare(e);
        l.filter = filter;
        if (r >= 0)
                r = l.program = open_monitor(s->libexec, e);
        if (r >= 0 && join < 0)
                r = l.dev = dev_make(s, e);
        if (r >= 0 && !s->tty)
                r = make_pipes(&l, e);
        if (r >= 0)
                r = spawn(&l, ret, e);
        (void) fd_close(l.program);
        (void) fd_close(l.dev);
        for (int i = 0; i < 3; i++) {
                (void) fd_close(l.io[i]);
                (void) fd_close(l.monitor_io[i]);
        }
        return r < 0 ? r : 0;
}

int sandbox_start(const struct sandbox_spec *s, struct sandbox_proc *ret, struct err *e)
{
        return launch(s, -EBADF, ret, e);
}

int sandbox_exec(const struct sandbox_spec *s, int init_pidfd, struct sandbox_proc *ret,
                 struct err *e)
{
        if (init_pidfd < 0)
                return err_set(e, -EBADF, "sandbox: no first process to join");
        return launch(s, init_pidfd, ret, e);
}

void sandbox_proc_done(struct sandbox_proc *p)
{
        p->monitor_pidfd = fd_close(p->monitor_pidfd);
        p->init_pidfd = fd_close(p->init_pidfd);
}
