/* sandbox.c - see sandbox.h; the operation's part of a start.  What happens between the three
 * processes is drawn in launcher.c.
 *
 * Always holds: when a start fails, launcher and first process are gone before it returns, also
 * when one of them was killed in the middle. */
#include "engine/sandbox/sandbox.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

/* The one piece of state: written once at engine start, inherited by every fork from then on. */
static struct {
        struct filter *filter; /* the policy, compiled */
        struct cgroup_view view;
        enum overlay_way overlay;
} prepared;

int sandbox_prepare(struct err *e)
{
        AUTO(free) char *groups = NULL;
        int r;

        if (prepared.filter)
                return 0;
        r = fd_read_file(AT_FDCWD, "/proc/self/cgroup", 65536, &groups, NULL);
        if (r < 0)
                return err_errno(e, r, "read /proc/self/cgroup");
        cgroup_view_parse(groups, &prepared.view);
        prepared.overlay = overlay_probe();
        return filter_build(policy_rows, policy_n_rows, &prepared.filter, e);
}

int sandbox_overlay(int lower_mnt, const char *const *layers, size_t n_layers, int upper_mnt,
                    struct err *e)
{
        return overlay_make(lower_mnt, layers, n_layers, upper_mnt, prepared.overlay, e);
}

static_assert(MNT_COUNT == SANDBOX_MOUNTS && MNT_COUNT <= NOTE_FDS, "one note carries all");

int sandbox_mounts_make(uint32_t id_base, struct sandbox_mounts *ret, struct err *e)
{
        struct sandbox_mounts m = { { -EBADF, -EBADF, -EBADF, -EBADF, -EBADF } };
        int r = sandbox_prepare(e);

        if (r >= 0)
                r = mounts_make(&prepared.view, id_base, m.fd, e);
        if (r < 0)
                sandbox_mounts_done(&m);
        else
                *ret = m;
        return r;
}

void sandbox_mounts_done(struct sandbox_mounts *m)
{
        for (size_t i = 0; i < MNT_COUNT; i++)
                m->fd[i] = fd_close(m->fd[i]);
}

/* A cluster's first process has no stdin: nobody could ever write it, and a program that reads it
 * (a shell, python) would wait for ever. */
static int make_pipes(struct launch *l, struct err *e)
{
        for (int i = l->join < 0 ? 1 : 0; i < 3; i++) {
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

/* What a start waits for, and what has come so far. */
struct progress {
        int launcher, first; /* our ends */
        struct sandbox_mounts own;
        const struct sandbox_mounts *mounts; /* the order's, or our own */
        int pty;
        bool ready; /* execve comes next */
};

static void progress_done(struct progress *g)
{
        (void) fd_close(g->launcher);
        (void) fd_close(g->first);
        (void) fd_close(g->pty);
        sandbox_mounts_done(&g->own);
}

static inline void progress_done_cleanup(struct progress *g)
{
        progress_done(g);
}

/* The launcher has a child, or ends. */
static int launcher_note(struct progress *g, const struct launch *l, struct sandbox_proc *p,
                         struct err *e)
{
        const struct note go = { .type = NOTE_GO };
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = note_recv_one(g->launcher, &n, &fd);

        if (r < 0)
                return err_errno(e, r, "hear from the launcher");
        if (r == 0)
                return err_set(e, -ECHILD, "the launcher was killed");
        if (n.type != NOTE_CHILD || fd < 0 || p->init_pidfd >= 0) {
                (void) fd_close(fd);
                return n.type == NOTE_ERROR && n.err.code < 0
                               ? err_copy(e, &n.err)
                               : err_set(e, -EPROTO, "unexpected note from the launcher");
        }
        p->init = n.pid;
        p->init_pidfd = fd;
        if (l->join < 0) /* if it has ended already, its own note says why */
                (void) note_send(g->first, &go, g->mounts->fd, MNT_COUNT);
        return 0;
}

/* The first process: 1 when its execve has happened. */
static int first_note(struct progress *g, const struct launch *l, struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = note_recv_one(g->first, &n, &fd);

        if (r == -ECONNRESET) /* it ended before it took our GO; what it said comes behind that */
                r = note_recv_one(g->first, &n, &fd);
        if (r < 0)
                return err_errno(e, r, "hear from the first process");
        if (r == 0)
                return g->ready
                               ? 1
                               : err_set(e, -ECHILD, "the first process ended while it was set up");
        if (n.type == NOTE_PTY && fd >= 0 && l->s->tty && g->pty < 0) {
                g->pty = fd;
                return 0;
        }
        (void) fd_close(fd);
        if (n.type == NOTE_ERROR && n.err.code < 0)
                return err_copy(e, &n.err);
        if (n.type != NOTE_EXEC)
                return err_set(e, -EPROTO, "unexpected note from the first process");
        g->ready = true;
        return 0;
}

static int await_exec(struct progress *g, const struct launch *l, struct sandbox_proc *p,
                      struct err *e)
{
        const struct note run = { .type = NOTE_RUN };
        int r = 0;

        while (r == 0) {
                int first = p->init_pidfd >= 0 ? g->first : -1; /* heard only once we hold it */
                struct pollfd fds[] = { { .fd = g->launcher, .events = POLLIN },
                                        { .fd = first, .events = POLLIN } };

                if (poll(fds, NELEM(fds), -1) < 0) {
                        if (errno != EINTR)
                                return err_errno(e, -errno, "poll");
                        continue;
                }
                if (fds[1].revents)
                        r = first_note(g, l, e);
                else if (fds[0].revents)
                        r = launcher_note(g, l, p, e);
        }
        if (r < 0)
                return r;
        if (note_send(g->launcher, &run, &g->pty, g->pty >= 0 ? 1 : 0) < 0)
                return err_set(e, -ECHILD, "the launcher was killed");
        return 0;
}

/* Nothing may stay: first the launcher, who could still clone, then its child. */
static void undo(struct sandbox_proc *p)
{
        struct pollfd gone = { .fd = p->init_pidfd, .events = POLLIN };

        kill_wait(p->monitor_pidfd);
        if (p->init_pidfd >=
            0) { /* somebody else's child by now: wait for its end, not its status */
                (void) syscall(SYS_pidfd_send_signal, p->init_pidfd, SIGKILL, NULL, 0);
                while (poll(&gone, 1, -1) < 0 && errno == EINTR)
                        ;
        }
        sandbox_proc_done(p);
}

/* The launcher's and the first process's ends of the sockets are closed here once it is forked. */
static int fork_launcher(struct launch *l, struct progress *g, struct sandbox_proc *p,
                         struct err *e)
{
        int up[2], report[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, up) < 0)
                return err_errno(e, -errno, "socketpair");
        g->launcher = up[0];
        l->up = up[1];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) < 0)
                return err_errno(e, -errno, "socketpair");
        g->first = report[0];
        l->report = report[1];
        p->monitor = clone_into(0, l->s->monitor_slice, &p->monitor_pidfd);
        if (p->monitor == 0) {
                (void) close(g->launcher);
                (void) close(g->first);
                launcher_run(l);
        }
        return p->monitor < 0 ? err_errno(e, -errno, "fork the launcher") : 0;
}

static int get_mounts(const struct sandbox_spec *s, struct progress *g, struct err *e)
{
        int r = s->mounts ? 0 : sandbox_mounts_make(s->id_base, &g->own, e);

        g->mounts = s->mounts ? s->mounts : &g->own;
        return r < 0 ? r : mounts_finish(s, g->mounts->fd, e);
}

static int spawn(struct launch *l, struct sandbox_proc *ret, struct err *e)
{
        struct sandbox_proc p = { .monitor_pidfd = -EBADF, .init_pidfd = -EBADF };
        AUTO(progress_done)
        struct progress g = { .launcher = -EBADF,
                              .first = -EBADF,
                              .own = { { -EBADF, -EBADF, -EBADF, -EBADF, -EBADF } },
                              .pty = -EBADF };
        int r = fork_launcher(l, &g, &p, e);

        l->up = fd_close(l->up);
        l->report = fd_close(l->report);
        if (r >= 0 && l->join < 0)
                r = get_mounts(l->s, &g, e); /* while the others are being born */
        if (r >= 0)
                r = await_exec(&g, l, &p, e);
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
                            .view = &prepared.view,
                            .io = { -EBADF, -EBADF, -EBADF },
                            .monitor_io = { -EBADF, -EBADF, -EBADF } };
        int r = check_spec(s, e);

        if (r >= 0)
                r = sandbox_prepare(e);
        l.filter = prepared.filter;
        if (r >= 0)
                r = l.program = open_monitor(s->libexec, e);
        if (r >= 0 && !s->tty)
                r = make_pipes(&l, e);
        if (r >= 0)
                r = spawn(&l, ret, e);
        (void) fd_close(l.program);
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
