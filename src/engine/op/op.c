/* op.c - see op.h.
 *
 * Theory of operation.  Parent and child share a socketpair.  The child's last frame is
 * {"op":"done","r":N,"message":S}; whatever else it sends is a report.  The operation is over when
 * the pidfd says that the child has ended AND its socket is drained, in whatever order the two
 * come; the verdict is the done frame, or the way it died. */
#include "engine/op/op.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"

struct op {
        char name[64];
        pid_t pid;
        int pidfd;
        struct frame_conn *conn;
        sd_event_source *pid_src, *conn_src, *time_src;
        op_report_fn *report;
        op_done_fn *done;
        void *arg;
        int verdict;      /* set by the done frame, a cancel or the deadline */
        bool has_verdict, exited, drained;
        struct err err;
        siginfo_t how;
};

static struct op *op_free(struct op *op)
{
        if (!op)
                return NULL;
        sd_event_source_disable_unref(op->pid_src);
        sd_event_source_disable_unref(op->conn_src);
        sd_event_source_disable_unref(op->time_src);
        (void) frame_conn_free(op->conn);
        (void) fd_close(op->pidfd);
        free(op);
        return NULL;
}

DEFINE_AUTO(struct op *, op_free)

static void set_verdict(struct op *op, int r)
{
        if (op->has_verdict)
                return;
        op->has_verdict = true;
        op->verdict = r;
}

static void finish_when_over(struct op *op)
{
        if (!op->exited || !op->drained)
                return;
        if (!op->has_verdict)
                set_verdict(op, err_set(&op->err, -EOWNERDEAD, "%s: the operation %s %d", op->name,
                                        op->how.si_code == CLD_EXITED ? "ended with status"
                                                                      : "was killed by signal",
                                        op->how.si_status));
        op->done(op->arg, op->verdict, &op->err);
        (void) op_free(op);
}

static void on_frame(struct op *op, const struct frame_msg *m)
{
        const char *kind = jsonx_str(m->json, "op");

        if (!str_eq(kind, "done")) {
                if (op->report)
                        op->report(op->arg, m);
                return;
        }
        set_verdict(op, (int) json_integer_value(json_object_get(m->json, "r")));
        if (op->verdict < 0 && !op->err.code)
                (void) err_set(&op->err, op->verdict, "%s", jsonx_str(m->json, "message"));
}

static int on_readable(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct op *op = arg;

        (void) s;
        (void) fd;
        (void) revents;
        for (int i = 0; i < 32; i++) {
                struct frame_msg m;
                struct err e = { 0 };
                int r = frame_recv(op->conn, &m, &e);

                if (r == 0)
                        return 0;
                if (r < 0) {
                        if (r != -EPIPE)
                                log_warn("%s: %s", op->name, e.msg);
                        op->conn_src = sd_event_source_disable_unref(op->conn_src);
                        op->drained = true;
                        finish_when_over(op);
                        return 0;
                }
                on_frame(op, &m);
                frame_msg_done(&m);
        }
        return 0;
}

static int on_exit_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct op *op = arg;

        (void) s;
        (void) fd;
        (void) revents;
        if (waitid(P_PIDFD, (id_t) op->pidfd, &op->how, WEXITED | WNOHANG) < 0)
                log_warn("%s: waitid: %s", op->name, strerror(errno));
        else if (op->how.si_pid == 0)
                return 0;
        op->pid_src = sd_event_source_disable_unref(op->pid_src);
        op->exited = true;
        finish_when_over(op);
        return 0;
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *arg)
{
        struct op *op = arg;

        (void) s;
        (void) usec;
        if (!op->has_verdict) {
                set_verdict(op, -ETIMEDOUT);
                (void) err_set(&op->err, -ETIMEDOUT, "%s: took too long and was ended", op->name);
        }
        (void) syscall(SYS_pidfd_send_signal, op->pidfd, SIGKILL, NULL, 0);
        return 0;
}

void op_cancel(struct op *op)
{
        if (!op || op->exited)
                return;
        if (!op->has_verdict) {
                set_verdict(op, -ECANCELED);
                (void) err_set(&op->err, -ECANCELED, "%s: cancelled", op->name);
        }
        (void) syscall(SYS_pidfd_send_signal, op->pidfd, SIGKILL, NULL, 0);
}

int op_report(struct frame_conn *out, const json_t *msg, const int *fds, size_t n_fds)
{
        return frame_send_wait(out, msg, fds, n_fds, 0);
}

/* The child, from fork to _exit.  Signals: the loop's mask is lifted, SIGPIPE stays ignored. */
__attribute__((noreturn)) static void child(const struct op_spec *spec, pid_t engine, int sock)
{
        AUTO(frame_conn_free) struct frame_conn *out = NULL;
        struct err e = { 0 };
        sigset_t none;
        json_t *msg;
        int r;

        (void) sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
        (void) signal(SIGTERM, SIG_DFL);
        (void) signal(SIGINT, SIG_DFL);
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != engine)
                _exit(1); /* the engine is gone: nobody would journal what we do */
        (void) prctl(PR_SET_NAME, "hvmm-op");
        if (frame_conn_new(sock, &out) < 0)
                _exit(1);
        r = spec->body(out, spec->body_arg, &e);
        msg = json_pack("{s:s, s:i, s:s%}", "op", "done", "r", r, "message", e.msg,
                        strnlen(e.msg, sizeof e.msg));
        if (!msg) /* a message that is no UTF-8 */
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

static int watch(sd_event *loop, struct op *op, uint64_t timeout_us)
{
        int r = sd_event_add_io(loop, &op->conn_src, frame_conn_fd(op->conn), EPOLLIN, on_readable,
                                op);

        if (r >= 0)
                r = sd_event_add_io(loop, &op->pid_src, op->pidfd, EPOLLIN, on_exit_event, op);
        if (r >= 0 && timeout_us)
                r = sd_event_add_time_relative(loop, &op->time_src, CLOCK_MONOTONIC, timeout_us,
                                               US_PER_MS, on_deadline, op);
        return r;
}

int op_start(sd_event *loop, const struct op_spec *spec, struct op **ret, struct err *e)
{
        AUTO(op_free) struct op *op = calloc(1, sizeof *op);
        AUTO(fd) int theirs = -EBADF;
        pid_t engine = getpid();
        int pair[2], r;

        if (!op)
                return err_set(e, -ENOMEM, "out of memory");
        op->pidfd = -EBADF;
        (void) snprintf(op->name, sizeof op->name, "%s", spec->name);
        op->report = spec->report;
        op->done = spec->done;
        op->arg = spec->arg;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_errno(e, -errno, "%s: socketpair", spec->name);
        theirs = pair[1];
        r = frame_conn_new(pair[0], &op->conn);
        if (r < 0)
                return err_errno(e, r, "%s", spec->name);
        op->pid = fork_pidfd(&op->pidfd);
        if (op->pid < 0)
                return err_errno(e, -errno, "%s: fork", spec->name);
        if (op->pid == 0) {
                (void) fd_close(frame_conn_fd(op->conn));
                child(spec, engine, fd_take(&theirs));
        }
        r = watch(loop, op, spec->timeout_us);
        if (r < 0) {
                (void) syscall(SYS_pidfd_send_signal, op->pidfd, SIGKILL, NULL, 0);
                (void) waitid(P_PIDFD, (id_t) op->pidfd, &op->how, WEXITED);
                return err_errno(e, r, "%s: watch", spec->name);
        }
        *ret = TAKE(op);
        return 0;
}
