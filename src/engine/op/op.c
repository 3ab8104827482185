/* op.c - see op.h.  The engine's side, on the loop.
 *
 * Theory of operation.  Parent and child share a socketpair.  The child's last frame is
 * {"op":"done","r":N,"message":S}; whatever else it sends is a report.  The operation is over when
 * the pidfd says that the child has ended AND its socket is drained, in whatever order the two
 * come; the verdict is the done frame, or the way it died. */
#include "engine/op/op.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/op/op_priv.h"

#define QUIET_US (20 * US_PER_MS)

struct op *op_free(struct op *op)
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

/* What did not fit into the socket at once.  A child that is gone shows in the reading. */
static void send_rest(struct op *op)
{
        if (frame_flush(op->conn) < 0 || !frame_pending(op->conn))
                (void) sd_event_source_set_io_events(op->conn_src, EPOLLIN);
}

static int on_socket(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct op *op = arg;

        (void) s;
        (void) fd;
        if (revents & EPOLLOUT)
                send_rest(op);
        if (!(revents & ~(uint32_t) EPOLLOUT))
                return 0;
        for (int i = 0; i < 32 || frame_ready(op->conn); i++) {
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

static void kill_child(const struct op *op)
{
        (void) syscall(SYS_pidfd_send_signal, op->pidfd, SIGKILL, NULL, 0);
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
        kill_child(op);
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
        kill_child(op);
}

/* Kill and reap a child that nobody waits for. */
static struct op *discard(struct op *op)
{
        kill_child(op);
        (void) waitid(P_PIDFD, (id_t) op->pidfd, &op->how, WEXITED);
        return op_free(op);
}

/* From here on the operation is the loop's. */
static int adopt(struct op_runner *w, struct op *op, const struct op_spec *spec, struct err *e)
{
        int r;

        (void) snprintf(op->name, sizeof op->name, "%s", spec->name);
        op->report = spec->report;
        op->done = spec->done;
        op->arg = spec->arg;
        r = sd_event_add_io(w->loop, &op->conn_src, frame_conn_fd(op->conn), EPOLLIN, on_socket,
                            op);
        if (r >= 0)
                r = sd_event_add_io(w->loop, &op->pid_src, op->pidfd, EPOLLIN, on_exit_event, op);
        if (r >= 0 && spec->timeout_us)
                r = sd_event_add_time_relative(w->loop, &op->time_src, CLOCK_MONOTONIC,
                                               spec->timeout_us, US_PER_MS, on_deadline, op);
        return r < 0 ? err_errno(e, r, "%s: watch", spec->name) : 0;
}

int op_start(struct op_runner *w, const struct op_spec *spec, struct op **ret, struct err *e)
{
        struct op *op = NULL;
        int r = op_fork(w, spec, &op, e);

        if (r < 0)
                return r;
        r = adopt(w, op, spec, e);
        if (r < 0) {
                (void) discard(op);
                return r;
        }
        *ret = op;
        return 0;
}

/* A spare child that still lives, or NULL. */
static struct op *take_spare(struct op_runner *w)
{
        while (w->spares) {
                struct op *op = w->spares;
                struct pollfd p = { .fd = op->pidfd, .events = POLLIN };

                w->spares = op->next;
                w->n_spares--;
                op->next = NULL;
                if (poll(&p, 1, 0) == 0)
                        return op;
                (void) discard(op);
        }
        return NULL;
}

static int on_refill(sd_event_source *s, void *arg)
{
        const struct op_spec spec = { .name = "spare" };
        struct op_runner *w = arg;
        struct err e = { 0 };
        struct op *op = NULL;

        (void) s;
        if (w->n_spares >= w->want_spares)
                return 0;
        if (op_fork(w, &spec, &op, &e) < 0) {
                log_warn("%s", e.msg);
                return 0; /* the next order forks for itself and asks again */
        }
        op->next = w->spares;
        w->spares = op;
        w->n_spares++;
        if (w->n_spares < w->want_spares) /* one a turn: the loop stays responsive */
                (void) sd_event_source_set_enabled(w->refill_src, SD_EVENT_ONESHOT);
        return 0;
}

/* In a pause: a fork takes the CPU from the operation that has just been given its order. */
static void refill_soon(struct op_runner *w)
{
        (void) sd_event_source_set_time_relative(w->quiet_src, QUIET_US);
        (void) sd_event_source_set_enabled(w->quiet_src, SD_EVENT_ONESHOT);
}

static int on_quiet(sd_event_source *s, uint64_t usec, void *arg)
{
        struct op_runner *w = arg;

        (void) s;
        (void) usec;
        return sd_event_source_set_enabled(w->refill_src, SD_EVENT_ONESHOT);
}

int op_order(struct op_runner *w, const struct op_spec *spec, const json_t *order, const int *fds,
             size_t n_fds, struct op **ret, struct err *e)
{
        struct op_spec waiting = *spec;
        struct op *op = take_spare(w);
        int r = 0;

        waiting.body = NULL;
        waiting.n_keep = 0;
        if (!op)
                r = op_fork(w, &waiting, &op, e);
        if (r < 0)
                return r;
        refill_soon(w);
        r = adopt(w, op, spec, e);
        if (r >= 0) {
                r = frame_send(op->conn, order, fds, n_fds);
                if (r >= 0 && frame_pending(op->conn)) /* larger than the socket buffer */
                        r = sd_event_source_set_io_events(op->conn_src, EPOLLIN | EPOLLOUT);
                if (r < 0)
                        (void) err_errno(e, r, "%s: hand over the order", spec->name);
        }
        if (r < 0) {
                (void) discard(op);
                return r;
        }
        *ret = op;
        return 0;
}

/* What is open now stays open in every child. */
static int remember_fds(struct op_runner *w)
{
        DIR *dir = opendir("/proc/self/fd");
        struct dirent *de;
        int r = dir ? 0 : -errno;

        while (r >= 0 && (de = readdir(dir)) != NULL) {
                uint64_t fd;
                int *grown;

                if (str_u64(de->d_name, 3, INT32_MAX, &fd) < 0 || (int) fd == dirfd(dir))
                        continue;
                grown = realloc(w->keep, (w->n_keep + 1) * sizeof *grown);
                if (!grown) {
                        r = -ENOMEM;
                        break;
                }
                w->keep = grown;
                w->keep[w->n_keep++] = (int) fd;
        }
        if (dir)
                (void) closedir(dir);
        return r;
}

int op_runner_new(sd_event *loop, op_order_fn *on_order, void *order_arg, size_t spares,
                  struct op_runner **ret, struct err *e)
{
        AUTO(op_runner_free) struct op_runner *w = calloc(1, sizeof *w);
        int r;

        if (!w)
                return err_set(e, -ENOMEM, "out of memory");
        w->loop = loop;
        w->on_order = on_order;
        w->order_arg = order_arg;
        w->want_spares = spares;
        r = remember_fds(w);
        if (r >= 0)
                r = sd_event_add_defer(loop, &w->refill_src, on_refill, w);
        if (r >= 0)
                r = sd_event_source_set_priority(w->refill_src, SD_EVENT_PRIORITY_IDLE);
        if (r >= 0)
                r = sd_event_add_time_relative(loop, &w->quiet_src, CLOCK_MONOTONIC, QUIET_US,
                                               US_PER_MS, on_quiet, w);
        if (r < 0)
                return err_errno(e, r, "operations");
        *ret = TAKE(w);
        return 0;
}

struct op_runner *op_runner_free(struct op_runner *w)
{
        if (!w)
                return NULL;
        sd_event_source_disable_unref(w->refill_src);
        sd_event_source_disable_unref(w->quiet_src);
        while (w->spares) {
                struct op *op = w->spares;

                w->spares = op->next;
                (void) discard(op);
        }
        free(w->keep);
        free(w);
        return NULL;
}
