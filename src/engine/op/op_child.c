/* op_child.c - the fork, and the child from there to its end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/op/op_priv.h"

int op_report(struct frame_conn *out, const json_t *msg, const int *fds, size_t n_fds)
{
        return frame_send_wait(out, msg, fds, n_fds, 0);
}

/* Close every gap between descriptors that stay. */
static void close_others(const struct op_runner *w, const struct op_spec *spec, int sock)
{
        AUTO(free) int *keep = calloc(w->n_keep + spec->n_keep + 1, sizeof *keep);
        size_t n = w->n_keep;

        if (!keep)
                _exit(1);
        if (n)
                memcpy(keep, w->keep, n * sizeof *keep);
        keep[n++] = sock;
        for (size_t i = 0; i < spec->n_keep; i++)
                keep[n++] = spec->keep[i];
        if (fd_close_except(STDERR_FILENO + 1, keep, n) < 0)
                _exit(1);
}

static int run_order(const struct op_runner *w, struct frame_conn *out, struct err *e)
{
        AUTO(frame_msg_done) struct frame_msg order = { 0 };
        int r = w->on_order(out, NULL, w->order_arg, e);

        if (r >= 0)
                r = frame_recv_wait(out, &order, 0, e);
        return r < 0 ? r : w->on_order(out, &order, w->order_arg, e);
}

/* Signals: the loop's mask is lifted, SIGPIPE stays ignored. */
__attribute__((noreturn)) static void child(struct op_runner *w, const struct op_spec *spec,
                                            pid_t engine, int sock)
{
        struct frame_conn *out = NULL;
        struct err e = { 0 };
        sigset_t none;
        json_t *msg;
        int r;

        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != engine)
                _exit(1); /* the engine is gone: nobody would journal what we do */
        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) signal(SIGTERM, SIG_DFL);
        (void) signal(SIGINT, SIG_DFL);
        (void) setpriority(PRIO_PROCESS, 0, 0); /* the loop's is its own */
        close_others(w, spec, sock);
        (void) prctl(PR_SET_NAME, "hvmm-op");
        if (frame_conn_new(sock, &out) < 0)
                _exit(1);
        r = spec->body ? spec->body(out, spec->body_arg, &e) : run_order(w, out, &e);
        msg = json_pack("{s:s, s:i, s:s}", "op", "done", "r", r, "message", e.msg);
        if (!msg)
                msg = json_pack("{s:s, s:i, s:s}", "op", "done", "r", r, "message",
                                "failed (the message was not valid UTF-8)");
        if (!msg || frame_send_wait(out, msg, NULL, 0, 0) < 0)
                _exit(1);
        _exit(0);
}

/* A clone that gives the pidfd at once; no stack switch, so it behaves as fork(). */
static pid_t fork_pidfd(int *ret_pidfd)
{
        struct clone_args {
                uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
        } a = { .flags = 0x00001000 /* CLONE_PIDFD */,
                .pidfd = (uint64_t) (uintptr_t) ret_pidfd,
                .exit_signal = SIGCHLD };

        return (pid_t) syscall(SYS_clone3, &a, sizeof a);
}

int op_fork(struct op_runner *w, const struct op_spec *spec, struct op **ret, struct err *e)
{
        AUTO(op_free) struct op *op = calloc(1, sizeof *op);
        AUTO(fd) int theirs = -EBADF;
        pid_t engine = getpid();
        int pair[2], r;

        if (!op)
                return err_set(e, -ENOMEM, "out of memory");
        op->pidfd = -EBADF;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_errno(e, -errno, "%s: socketpair", spec->name);
        theirs = pair[1];
        r = frame_conn_new(pair[0], &op->conn);
        if (r < 0)
                return err_errno(e, r, "%s", spec->name);
        op->pid = fork_pidfd(&op->pidfd);
        if (op->pid < 0)
                return err_errno(e, -errno, "%s: fork", spec->name);
        if (op->pid == 0)
                child(w, spec, engine, fd_take(&theirs));
        *ret = TAKE(op);
        return 0;
}
