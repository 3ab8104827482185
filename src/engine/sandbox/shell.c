/* shell.c - making a shell, the operation's part; what the two children do is drawn in launcher.c.
 *
 * Always holds: when it fails, launcher and first process are gone before it returns; when it is
 * killed, both see the end of their socket and go by themselves. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/sandbox/sandbox_priv.h"

int *sandbox_shell_fd(struct sandbox_shell *s, size_t i)
{
        int *const fds[SANDBOX_SHELL_FDS] = { &s->launcher_pidfd, &s->first_pidfd, &s->up,
                                              &s->report,         &s->dev,         &s->shm };

        return fds[i];
}

void sandbox_shell_init(struct sandbox_shell *s)
{
        *s = (struct sandbox_shell){ .launcher_pidfd = -EBADF,
                                     .first_pidfd = -EBADF,
                                     .up = -EBADF,
                                     .report = -EBADF,
                                     .dev = -EBADF,
                                     .shm = -EBADF };
}

void sandbox_shell_done(struct sandbox_shell *s)
{
        for (size_t i = 0; i < SANDBOX_SHELL_FDS; i++)
                (void) fd_close(*sandbox_shell_fd(s, i));
        sandbox_shell_init(s);
}

bool sandbox_shell_ready(const struct sandbox_shell *s)
{
        struct pollfd p[] = { { .fd = s->launcher_pidfd, .events = POLLIN },
                              { .fd = s->first_pidfd, .events = POLLIN } };

        return s->up >= 0 && s->first_pidfd >= 0 && poll(p, NELEM(p), 0) == 0;
}

void shell_kill(struct sandbox_shell *s)
{
        kill_wait(s->launcher_pidfd);
        kill_wait(s->first_pidfd);
        sandbox_shell_done(s);
}

/* In the child: nothing but two calls for each descriptor and the last one. */
_Noreturn static void become_launcher(const struct launch *l, int birth)
{
        char number[16], *argv[] = { (char[]){ "vmm-launch" }, number, NULL }, *env[] = { NULL };
        struct note n = { .type = NOTE_ERROR };
        int r = birth_inherit(l);

        (void) snprintf(number, sizeof number, "%d", birth);
        if (r >= 0)
                r = fd_set_cloexec(birth, false);
        if (r >= 0) {
                (void) syscall(SYS_execveat, l->launcher, "", argv, env, AT_EMPTY_PATH);
                r = -errno;
        }
        n.err.code = err_errno(&n.err, r, "exec vmm-launch");
        (void) note_send(l->up, &n, NULL, 0);
        _exit(127);
}

/* The launcher's and the first process's ends of the sockets belong to @l. */
static int fork_launcher(struct launch *l, struct sandbox_shell *s, struct err *e)
{
        AUTO(fd) int birth = -EBADF;
        int up[2], report[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, up) < 0)
                return err_errno(e, -errno, "socketpair");
        s->up = up[0];
        l->up = up[1];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, report) < 0)
                return err_errno(e, -errno, "socketpair");
        s->report = report[0];
        l->report = report[1];
        birth = birth_write(l, e);
        if (birth < 0)
                return birth;
        s->launcher = clone_into(0, l->place->monitor_slice, &s->launcher_pidfd);
        if (s->launcher == 0)
                become_launcher(l, birth);
        return s->launcher < 0 ? err_errno(e, -errno, "fork the launcher") : 0;
}

/* It ended without a word. */
static int no_child(const struct sandbox_shell *s, struct err *e)
{
        siginfo_t how = { 0 };

        if (waitid(P_PIDFD, (id_t) s->launcher_pidfd, &how, WEXITED | WNOWAIT) == 0 &&
            how.si_code == CLD_EXITED && how.si_status == LAUNCH_OTHER_BUILD)
                return err_set(e, -EPROTO,
                               "vmm-launch is of another version; restart hypervisor-vmm");
        return err_set(e, -EOWNERDEAD, "the launcher was killed");
}

/* The launcher has a child, or ends. */
static int await_child(struct sandbox_shell *s, struct err *e)
{
        struct note n = { .type = NOTE_NONE };
        int fd = -EBADF, r = note_recv_one(s->up, &n, &fd);

        if (r < 0)
                return err_errno(e, r, "hear from the launcher");
        if (r == 0)
                return no_child(s, e);
        if (n.type != NOTE_CHILD || fd < 0) {
                (void) fd_close(fd);
                return n.type == NOTE_ERROR && n.err.code < 0
                               ? err_copy(e, &n.err)
                               : err_set(e, -EPROTO, "unexpected note from the launcher");
        }
        s->first = n.pid;
        s->first_pidfd = fd;
        return 0;
}

/* From here on the first process is ours to kill, so it may begin. */
static int await_ready(struct sandbox_shell *s, struct err *e)
{
        struct note go = { .type = NOTE_GO }, n = { .type = NOTE_NONE };
        int fd = -EBADF, r;

        (void) note_send(s->report, &go, NULL, 0); /* when it has ended, its own note says why */
        r = note_recv_one(s->report, &n, &fd);
        if (r == -ECONNRESET) /* it ended before it took our GO; what it said comes behind that */
                r = note_recv_one(s->report, &n, &fd);
        (void) fd_close(fd);
        if (r < 0)
                return err_errno(e, r, "hear from the first process");
        if (r == 0)
                return err_set(e, -EOWNERDEAD, "the first process was killed");
        if (n.type == NOTE_ERROR && n.err.code < 0)
                return err_copy(e, &n.err);
        return n.type == NOTE_READY ? 0
                                    : err_set(e, -EPROTO, "unexpected note from the first process");
}

/* Both children, up to the point where they wait. */
static int give_birth(struct launch *l, struct sandbox_shell *s, struct err *e)
{
        int r = fork_launcher(l, s, e);

        l->up = fd_close(l->up);
        l->report = fd_close(l->report);
        if (r >= 0)
                r = await_child(s, e);
        if (r >= 0)
                r = await_ready(s, e);
        if (r < 0)
                shell_kill(s);
        return r;
}

static int check_place(const struct sandbox_place *p, struct err *e)
{
        if (str_empty(p->libexec))
                return err_set(e, -EINVAL, "sandbox: incomplete order");
        if (p->id_base == 0 || p->id_base > UINT32_MAX - SANDBOX_IDS || p->monitor_uid == 0)
                return err_set(e, -EINVAL, "sandbox: ids of the host");
        return 0;
}

int shell_make(const struct sandbox_place *p, int join, struct sandbox_shell *ret, struct err *e)
{
        struct launch l = { .place = p,
                            .join = join,
                            .launcher = -EBADF,
                            .program = -EBADF,
                            .up = -EBADF,
                            .report = -EBADF,
                            .proc = -EBADF,
                            .label = -EBADF,
                            .mnt = { -EBADF, -EBADF, -EBADF, -EBADF, -EBADF } };
        struct sandbox_shell s;
        int r = check_place(p, e);

        static_assert(MNT_COUNT == 5, "initializer");
        sandbox_shell_init(&s);
        if (r >= 0)
                r = launch_prepare(&l, e);
        if (r >= 0 && join < 0)
                r = mounts_make(l.view, p->id_base, l.mnt, e);
        if (r >= 0)
                r = give_birth(&l, &s, e);
        if (r >= 0) {
                s.dev = fd_take(&l.mnt[MNT_DEV]);
                s.shm = fd_take(&l.mnt[MNT_SHM]);
                *ret = s;
        }
        (void) fd_close(l.launcher);
        (void) fd_close(l.program);
        for (size_t i = 0; i < MNT_COUNT; i++)
                (void) fd_close(l.mnt[i]);
        return r < 0 ? r : 0;
}

int sandbox_shell_make(const struct sandbox_place *p, struct sandbox_shell *ret, struct err *e)
{
        return shell_make(p, -EBADF, ret, e);
}
