/* gpuhost_child.c - vmm-gpu as a process: started, listened to, replaced.  Engine process, loop thread.
 *
 * It is believed to live as long as it says something every few seconds.  One that hangs in the driver
 * may not even die of SIGKILL: it is not waited for, the next one starts beside it, and its end is
 * noticed whenever it comes.  Its timer runs behind its messages, so that an engine that was held up
 * itself reads first and judges afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/frame.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/gpu/gpuhost_priv.h"
#include "engine/instance.h"
#include "engine/op/restart.h"

#define PROGRAM           "vmm-gpu"
#define PAUSE_FIRST_US    (250 * US_PER_MS)
#define PAUSE_MAX_US      (60 * US_PER_S)
#define STEADY_US         (60 * US_PER_S) /* after so long a life the pause is short again */
#define END_MS            1000
#define DYING_MAX         4 /* that even SIGKILL does not end; more are not started beside them */
#define MESSAGES_A_TURN   64
#define MESSAGES_A_SECOND 4000U /* 64 GPUs are worth a sixth of that */
#define AFTER_OTHERS      10    /* priority in the loop */
#define TIMER_AFTER       20

/* One that was killed and has not ended yet. */
struct dying {
        struct gpu_child *child;
        int pidfd;
        sd_event_source *src;
};

struct gpu_child {
        struct gpu_child_spec spec;
        int pidfd;
        struct frame_conn *conn;
        sd_event_source *exit_src, *conn_src, *silence_src;
        struct restart again;
        uint64_t heard_us;
        uint64_t counted_us; /* when a second of messages began, and how many there were */
        unsigned count;
        char at_gpu[72], at_call[72]; /* of its last "at"; "" outside of a call */
        struct dying dying[DYING_MAX];
        bool full_said;
};

/* ---- in the child ---- */

static void be_nobody(pid_t engine)
{
        const struct rlimit none = { 0, 0 };
        sigset_t empty;

        (void) sigemptyset(&empty);
        (void) sigprocmask(SIG_SETMASK, &empty, NULL);
        (void) setpriority(PRIO_PROCESS, 0, 0);
        (void) setrlimit(RLIMIT_CORE, &none);
        (void) fd_write_value(AT_FDCWD, "/proc/self/oom_score_adj", "500"); /* it is replaced */
        if (proc_drop(CLAIM_GPU_UID, engine) < 0)
                _exit(126);
}

/* Nothing of ours is open in it but standard error and its connection. */
static void keep_two(int prog, int sock)
{
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        int keep[] = { prog, sock };

        if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
            fd_close_except(3, keep, NELEM(keep)) < 0 || fd_set_cloexec(sock, false) < 0)
                _exit(126);
}

__attribute__((noreturn)) static void child(const struct gpu_driver *d, pid_t engine, int prog,
                                            int sock)
{
        char fd_arg[16], journal[64];
        const char *stream = getenv("JOURNAL_STREAM"); /* it writes into the same journal */
        char *argv[16] = { (char *) (uintptr_t) PROGRAM, (char *) (uintptr_t) "--fd", fd_arg };
        char *env[] = { (char *) (uintptr_t) "PATH=/usr/bin:/bin",
                        (char *) (uintptr_t) "LANG=C.UTF-8", stream ? journal : NULL, NULL };
        const struct {
                const char *option;
                char *value;
        } more[] = { { "--nvml", d->nvml },
                     { "--root", d->root_path },
                     { "--fleet", d->kind == GD_SIMULATED ? d->fleet_file : NULL } };
        size_t n = 3;

        (void) snprintf(fd_arg, sizeof fd_arg, "%d", sock);
        (void) snprintf(journal, sizeof journal, "JOURNAL_STREAM=%s", stream ? stream : "");
        for (size_t i = 0; i < NELEM(more); i++)
                if (more[i].value) {
                        argv[n++] = (char *) (uintptr_t) more[i].option;
                        argv[n++] = more[i].value;
                }
        keep_two(prog, sock);
        be_nobody(engine);
        (void) syscall(SYS_execveat, prog, "", argv, env, AT_EMPTY_PATH);
        _exit(127);
}

/* ---- in the engine ---- */

static int on_dead(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct dying *d = arg;

        (void) s;
        (void) fd;
        (void) revents;
        if (waitid(P_PIDFD, (id_t) d->pidfd, &(siginfo_t){ 0 }, WEXITED | WNOHANG) < 0 &&
            errno != ECHILD)
                return 0;
        d->src = sd_event_source_disable_unref(d->src);
        d->pidfd = fd_close(d->pidfd);
        return 0;
}

static struct dying *free_place(struct gpu_child *c)
{
        for (size_t i = 0; i < DYING_MAX; i++)
                if (c->dying[i].pidfd < 0)
                        return &c->dying[i];
        return NULL;
}

/* Kill the present one and leave it to on_dead(). */
static void let_go(struct gpu_child *c)
{
        struct dying *d = free_place(c);

        c->exit_src = sd_event_source_disable_unref(c->exit_src);
        c->conn_src = sd_event_source_disable_unref(c->conn_src);
        c->silence_src = sd_event_source_disable_unref(c->silence_src);
        c->conn = frame_conn_free(c->conn);
        if (c->pidfd < 0)
                return;
        (void) syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
        if (waitid(P_PIDFD, (id_t) c->pidfd, &(siginfo_t){ 0 }, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            d && sd_event_add_io(c->spec.loop, &d->src, c->pidfd, EPOLLIN, on_dead, d) >= 0) {
                d->pidfd = fd_take(&c->pidfd);
                return;
        }
        c->pidfd = fd_close(c->pidfd);
}

/* The present one is over: say why, and let another follow after a pause that grows. */
static void end(struct gpu_child *c, const struct gpu_child_end *why)
{
        log_error(PROGRAM " %s; starting it again", why->why);
        let_go(c);
        restart_later(&c->again);
        c->spec.ended(c->spec.arg, why);
}

static void name_call(const struct gpu_child *c, struct gpu_child_end *why)
{
        (void) snprintf(why->gpu, sizeof why->gpu, "%s", c->at_gpu);
        (void) snprintf(why->call, sizeof why->call, "%s", c->at_call);
}

static void __attribute__((format(printf, 2, 3)))
end_because(struct gpu_child *c, const char *fmt, ...)
{
        struct gpu_child_end why = { 0 };
        va_list ap;

        va_start(ap, fmt);
        (void) vsnprintf(why.why, sizeof why.why, fmt, ap);
        va_end(ap);
        name_call(c, &why);
        end(c, &why);
}

static int on_exit_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct gpu_child *c = arg;
        char why[64];

        (void) s;
        (void) fd;
        (void) revents;
        if (!restart_ended(c->pidfd, why, sizeof why))
                return 0;
        c->pidfd = fd_close(c->pidfd);
        end_because(c, "%s", why);
        return 0;
}

static int on_silence(sd_event_source *s, uint64_t usec, void *arg)
{
        struct gpu_child *c = arg;
        struct gpu_child_end why = { .hung = true };
        uint64_t silent = clock_mono_us() - c->heard_us;

        (void) usec;
        if (silent < GPU_SILENCE_US) {
                (void) sd_event_source_set_time_relative(s, GPU_SILENCE_US - silent);
                return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        }
        name_call(c, &why);
        (void) snprintf(why.why, sizeof why.why, "has not said a word for %llu s%s%s%s%s",
                        (unsigned long long) (GPU_SILENCE_US / US_PER_S),
                        *c->at_call ? ", in " : "", c->at_call, *c->at_gpu ? " of " : "",
                        c->at_gpu);
        end(c, &why);
        return 0;
}

static bool is_name(const char *s)
{
        static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";

        return s && *s && strlen(s) <= 64 && strspn(s, set) == strlen(s);
}

static int on_at(struct gpu_child *c, const json_t *msg, struct err *e)
{
        const char *gpu = jsonx_str(msg, "gpu"), *call = jsonx_str(msg, "call");

        if (!gpu || (*gpu && !gpu_uuid_ok(gpu)) || !is_name(call))
                return err_set(e, -EPROTO, "at: names no GPU or no call");
        (void) snprintf(c->at_gpu, sizeof c->at_gpu, "%s", gpu);
        (void) snprintf(c->at_call, sizeof c->at_call, "%s", call);
        return 0;
}

static int dispatch(struct gpu_child *c, const json_t *msg, struct err *e)
{
        const char *type = jsonx_str(msg, "type");

        if (c->heard_us - c->counted_us >= US_PER_S) {
                c->counted_us = c->heard_us;
                c->count = 0;
        }
        if (++c->count > MESSAGES_A_SECOND)
                return err_set(e, -EPROTO, "more than %u messages in a second", MESSAGES_A_SECOND);
        if (!type)
                return err_set(e, -EPROTO, "a message without type");
        if (str_eq(type, "at"))
                return on_at(c, msg, e);
        c->at_gpu[0] = c->at_call[0] = '\0';
        return c->spec.message(c->spec.arg, type, msg, e);
}

static int on_conn(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct gpu_child *c = arg;
        int r = 0;

        (void) s;
        (void) fd;
        if ((revents & EPOLLOUT) && c->conn)
                r = frame_flush(c->conn);
        for (int i = 0; r >= 0 && c->conn && (i < MESSAGES_A_TURN || frame_ready(c->conn)); i++) {
                struct frame_msg m;
                struct err e = { 0 };

                r = frame_recv(c->conn, &m, &e);
                if (r == 0)
                        break;
                if (r > 0) {
                        c->heard_us = clock_mono_us();
                        r = dispatch(c, m.json, &e);
                        frame_msg_done(&m);
                }
                if (r < 0 && r != -EPIPE) {
                        end_because(c, "talks nonsense (%.200s)", e.msg);
                        return 0;
                }
        }
        if (r < 0 && c->conn) /* its exit, which follows, says more */
                c->conn_src = sd_event_source_disable_unref(c->conn_src);
        else if (c->conn)
                (void) sd_event_source_set_io_events(
                        c->conn_src, EPOLLIN | (frame_pending(c->conn) ? (uint32_t) EPOLLOUT : 0U));
        return 0;
}

static int watch(struct gpu_child *c)
{
        sd_event *loop = c->spec.loop;
        int r = sd_event_add_io(loop, &c->exit_src, c->pidfd, EPOLLIN, on_exit_event, c);

        if (r >= 0)
                r = sd_event_add_io(loop, &c->conn_src, frame_conn_fd(c->conn), EPOLLIN, on_conn,
                                    c);
        if (r >= 0)
                r = sd_event_add_time_relative(loop, &c->silence_src, CLOCK_MONOTONIC,
                                               GPU_SILENCE_US, 10 * US_PER_MS, on_silence, c);
        if (r >= 0)
                r = sd_event_source_set_priority(c->conn_src, AFTER_OTHERS);
        if (r >= 0) /* what it said last comes before its end */
                r = sd_event_source_set_priority(c->exit_src, AFTER_OTHERS + 1);
        if (r >= 0)
                r = sd_event_source_set_priority(c->silence_src, TIMER_AFTER);
        return r;
}

static int spawn(struct gpu_child *c, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/" PROGRAM, c->spec.host->inst->libexec);
        AUTO(fd) int prog = path ? open(path, O_PATH | O_CLOEXEC) : -1;
        AUTO(fd) int ours = -EBADF, theirs = -EBADF;
        pid_t engine = getpid(), pid;
        int p[2], r;

        if (prog < 0)
                return err_errno(e, -errno, "%s", path ? path : PROGRAM);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, p) < 0)
                return err_errno(e, -errno, "socketpair");
        ours = p[0];
        theirs = p[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork " PROGRAM);
        if (pid == 0)
                child(c->spec.driver, engine, prog, theirs);
        c->pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        r = c->pidfd < 0 ? -errno : frame_conn_new(fd_take(&ours), &c->conn);
        if (r >= 0)
                r = watch(c);
        if (r >= 0)
                return 0;
        (void) kill(pid, SIGKILL); /* not reaped yet, so the number is still its own */
        (void) waitpid(pid, NULL, 0);
        c->pidfd = fd_close(c->pidfd);
        let_go(c);
        return err_errno(e, r, "watch " PROGRAM);
}

static void on_start(void *arg)
{
        struct gpu_child *c = arg;
        struct err e = { 0 };
        int r;

        if (!free_place(c)) { /* each of them sits in the driver */
                if (!c->full_said)
                        log_error(PROGRAM
                                  ": %d of them cannot even be killed; waiting for one to end",
                                  DYING_MAX);
                c->full_said = true;
                r = restart_in(&c->again, PAUSE_MAX_US);
                if (r < 0)
                        log_error(PROGRAM ": timer: %s", strerror(-r));
                return;
        }
        c->full_said = false;
        restart_begun(&c->again);
        c->heard_us = clock_mono_us();
        c->at_gpu[0] = c->at_call[0] = '\0';
        if (spawn(c, &e) < 0)
                end_because(c, "cannot be started: %.200s", e.msg);
        else
                c->spec.started(c->spec.arg);
}

int gpu_child_send(struct gpu_child *c, const json_t *msg)
{
        int r = c->conn && c->conn_src ? frame_send(c->conn, msg, NULL, 0) : -EPIPE;

        if (r >= 0 && frame_pending(c->conn))
                (void) sd_event_source_set_io_events(c->conn_src, EPOLLIN | EPOLLOUT);
        return r;
}

int gpu_child_new(const struct gpu_child_spec *spec, struct gpu_child **ret, struct err *e)
{
        AUTO(gpu_child_free) struct gpu_child *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->spec = *spec;
        c->pidfd = -EBADF;
        for (size_t i = 0; i < DYING_MAX; i++)
                c->dying[i] = (struct dying){ .child = c, .pidfd = -EBADF };
        c->again = (struct restart){ .loop = spec->loop,
                                     .program = PROGRAM,
                                     .first_us = PAUSE_FIRST_US,
                                     .most_us = PAUSE_MAX_US,
                                     .steady_us = STEADY_US,
                                     .start = on_start,
                                     .arg = c };
        r = restart_in(&c->again, 0);
        if (r < 0)
                return err_errno(e, r, PROGRAM ": timer");
        *ret = TAKE(c);
        return 0;
}

/* Those that hang in the driver are left to init. */
static void wait_for_dying(struct gpu_child *c)
{
        uint64_t until = clock_mono_us() + END_MS * US_PER_MS;

        for (size_t i = 0; i < DYING_MAX; i++) {
                struct dying *d = &c->dying[i];
                struct pollfd p = { .fd = d->pidfd, .events = POLLIN };
                uint64_t now = clock_mono_us();

                d->src = sd_event_source_disable_unref(d->src);
                if (d->pidfd >= 0 &&
                    poll(&p, 1, now < until ? (int) ((until - now) / US_PER_MS) : 0) > 0)
                        (void) waitid(P_PIDFD, (id_t) d->pidfd, &(siginfo_t){ 0 },
                                      WEXITED | WNOHANG);
                d->pidfd = fd_close(d->pidfd);
        }
}

struct gpu_child *gpu_child_free(struct gpu_child *c)
{
        if (!c)
                return NULL;
        restart_done(&c->again);
        let_go(c);
        wait_for_dying(c);
        free(c);
        return NULL;
}
