/* dns_child.c - see dns_child.h.
 *
 * What is said over its connection is a level: settings, and a name for each slot that is taken.  A new
 * process is told all of it again.  It never says anything itself. */
#include "engine/dns_child.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/frame.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/proc.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/net/net.h"

#define PROGRAM     "vmm-dns"
#define RESTART_US  US_PER_S
#define SERVERS_US  (10 * US_PER_S) /* how often the host's resolv.conf is looked at */
#define DESCRIPTORS 4096            /* a socket for each query that is under way */

struct dns_child {
        struct dns_child_spec spec;
        int pidfd;
        struct frame_conn *conn;
        sd_event_source *exit_src, *conn_src, *start_src, *servers_src;
        char *settings; /* as they were said last */
};

/* ---- in the child ---- */

__attribute__((noreturn)) static void child(const struct dns_child *c, pid_t engine, int prog,
                                            int sock)
{
        const struct rlimit none = { 0, 0 }, many = { DESCRIPTORS, DESCRIPTORS };
        const char *stream = getenv("JOURNAL_STREAM"); /* it writes into the same journal */
        char number[3][16], journal[64];
        char *argv[] = { (char *) (uintptr_t) PROGRAM,
                         (char *) (uintptr_t) "--fd",
                         number[0],
                         (char *) (uintptr_t) "--udp-fd",
                         number[1],
                         (char *) (uintptr_t) "--tcp-fd",
                         number[2],
                         NULL };
        char *env[] = { (char *) (uintptr_t) "LANG=C.UTF-8", stream ? journal : NULL, NULL };
        const int fds[] = { sock, c->spec.udp, c->spec.tcp };
        int keep[] = { sock, c->spec.udp, c->spec.tcp, prog }, /* sorted below */
                null = open("/dev/null", O_RDWR | O_CLOEXEC);
        sigset_t empty;

        (void) sigemptyset(&empty);
        (void) sigprocmask(SIG_SETMASK, &empty, NULL);
        (void) setpriority(PRIO_PROCESS, 0, 0);
        (void) setrlimit(RLIMIT_CORE, &none);
        (void) setrlimit(RLIMIT_NOFILE, &many); /* a lower limit of ours stays */
        (void) snprintf(journal, sizeof journal, "JOURNAL_STREAM=%s", stream ? stream : "");
        if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
            fd_close_except(3, keep, NELEM(keep)) < 0)
                _exit(126);
        for (size_t i = 0; i < NELEM(number); i++) {
                (void) snprintf(number[i], sizeof number[i], "%d", fds[i]);
                if (fd_set_cloexec(fds[i], false) < 0)
                        _exit(126);
        }
        if (proc_drop(CLAIM_DNS_UID, engine) < 0)
                _exit(126);
        (void) syscall(SYS_execveat, prog, "", argv, env, AT_EMPTY_PATH);
        _exit(127);
}

/* ---- in the engine ---- */

static void unwatch(struct dns_child *c)
{
        c->exit_src = sd_event_source_disable_unref(c->exit_src);
        c->conn_src = sd_event_source_disable_unref(c->conn_src);
        c->conn = frame_conn_free(c->conn);
        c->pidfd = fd_close(c->pidfd);
        free(TAKE(c->settings));
}

static int on_writable(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct dns_child *c = arg;
        int r = frame_flush(c->conn);

        (void) fd;
        (void) revents;
        if (r < 0 || !frame_pending(c->conn)) /* one that is gone is noticed by on_exit_event() */
                (void) sd_event_source_set_io_events(s, 0);
        return 0;
}

/* One that does not read its messages is of no use, and another is told everything again. */
static void say(struct dns_child *c, const json_t *msg)
{
        int r = c->conn && msg ? frame_send(c->conn, msg, NULL, 0) : -ENOTCONN;

        if (r == -ENOBUFS || (r < 0 && c->conn))
                (void) syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
        else if (r >= 0 && frame_pending(c->conn))
                (void) sd_event_source_set_io_events(c->conn_src, EPOLLOUT);
}

static void say_name(void *arg, uint32_t slot, const char *account, const char *cluster)
{
        struct dns_child *c = arg;
        struct net_lease lease = { 0 };
        AUTO(json_put) json_t *msg = NULL;

        if (!c->conn || net_lease_of(c->spec.host->net, slot, &lease) < 0)
                return;
        msg = account ? json_pack("{s:s, s:s, s:s*, s:s, s:s}", "type", "name", "address",
                                  lease.ipv4_text, "address6",
                                  *lease.ipv6_text ? lease.ipv6_text : NULL, "account", account,
                                  "cluster", cluster)
                      : json_pack("{s:s, s:s}", "type", "forget", "address", lease.ipv4_text);
        net_lease_done(&lease);
        say(c, msg);
}

void dns_child_name(void *dns_child, uint32_t slot, const char *account, const char *cluster)
{
        say_name(dns_child, slot, account, cluster);
}

static void say_settings(struct dns_child *c)
{
        struct err e = { 0 };
        AUTO(json_put) json_t *msg = net_resolver_settings(c->spec.host->net, &e);
        AUTO(free) char *text = msg ? jsonx_dump(msg) : NULL;

        if (!msg)
                log_warn(PROGRAM ": %s", e.msg);
        if (!text || str_eq(text, c->settings))
                return;
        free(c->settings);
        c->settings = TAKE(text);
        say(c, msg);
}

static int on_servers(sd_event_source *s, uint64_t usec, void *arg)
{
        (void) usec;
        say_settings(arg);
        (void) sd_event_source_set_time_relative(s, SERVERS_US);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

static int on_start(sd_event_source *s, uint64_t usec, void *arg);

static void start_later(struct dns_child *c)
{
        int r;

        unwatch(c);
        c->start_src = sd_event_source_disable_unref(c->start_src);
        r = sd_event_add_time_relative(c->spec.loop, &c->start_src, CLOCK_MONOTONIC, RESTART_US,
                                       US_PER_MS, on_start, c);
        if (r < 0)
                log_error(PROGRAM ": timer: %s", strerror(-r));
}

static int on_exit_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct dns_child *c = arg;
        siginfo_t si = { 0 };

        (void) s;
        (void) fd;
        (void) revents;
        if (waitid(P_PIDFD, (id_t) c->pidfd, &si, WEXITED | WNOHANG) == 0 && si.si_pid == 0)
                return 0;
        log_error(PROGRAM " %s %d; starting it again",
                  si.si_code == CLD_EXITED ? "ended with status" : "was killed by signal",
                  si.si_status);
        start_later(c);
        return 0;
}

static int watch(struct dns_child *c, int sock)
{
        int r = frame_conn_new(sock, &c->conn);

        if (r >= 0)
                r = sd_event_add_io(c->spec.loop, &c->exit_src, c->pidfd, EPOLLIN, on_exit_event,
                                    c);
        if (r >= 0)
                r = sd_event_add_io(c->spec.loop, &c->conn_src, frame_conn_fd(c->conn), 0,
                                    on_writable, c);
        return r;
}

static int spawn(struct dns_child *c, struct err *e)
{
        AUTO(free) char *path = str_fmt("%s/" PROGRAM, c->spec.host->inst->libexec);
        AUTO(fd) int prog = path ? open(path, O_PATH | O_CLOEXEC) : -1;
        AUTO(fd) int ours = -EBADF, theirs = -EBADF;
        pid_t engine = getpid(), pid;
        int pair[2], r;

        if (prog < 0)
                return err_errno(e, -errno, "%s", path ? path : PROGRAM);
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return err_errno(e, -errno, "socketpair");
        ours = pair[0];
        theirs = pair[1];
        pid = fork();
        if (pid < 0)
                return err_errno(e, -errno, "fork " PROGRAM);
        if (pid == 0)
                child(c, engine, prog, theirs);
        c->pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        r = c->pidfd < 0 ? -errno : watch(c, fd_take(&ours));
        if (r >= 0) {
                say_settings(c);
                c->spec.each(c->spec.arg, say_name, c);
                return 0;
        }
        (void) kill(pid, SIGKILL); /* not reaped yet, so the number is still its own */
        (void) waitpid(pid, NULL, 0);
        unwatch(c);
        return err_errno(e, r, "watch " PROGRAM);
}

static int on_start(sd_event_source *s, uint64_t usec, void *arg)
{
        struct dns_child *c = arg;
        struct err e = { 0 };

        (void) s;
        (void) usec;
        c->start_src = sd_event_source_disable_unref(c->start_src);
        if (spawn(c, &e) < 0) {
                log_error("%s", e.msg);
                start_later(c);
        }
        return 0;
}

int dns_child_start(const struct dns_child_spec *spec, struct dns_child **ret, struct err *e)
{
        AUTO(dns_child_stop) struct dns_child *c = calloc(1, sizeof *c);
        int r;

        if (!c) {
                (void) close(spec->udp);
                (void) close(spec->tcp);
                return err_set(e, -ENOMEM, "out of memory");
        }
        c->spec = *spec;
        c->pidfd = -EBADF;
        r = spawn(c, e);
        if (r >= 0)
                r = sd_event_add_time_relative(spec->loop, &c->servers_src, CLOCK_MONOTONIC,
                                               SERVERS_US, US_PER_S, on_servers, c);
        if (r < 0)
                return r;
        *ret = TAKE(c);
        return 0;
}

struct dns_child *dns_child_stop(struct dns_child *c)
{
        if (!c)
                return NULL;
        if (c->pidfd >= 0) {
                (void) syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
                (void) waitid(P_PIDFD, (id_t) c->pidfd, &(siginfo_t){ 0 }, WEXITED);
        }
        unwatch(c);
        c->start_src = sd_event_source_disable_unref(c->start_src);
        c->servers_src = sd_event_source_disable_unref(c->servers_src);
        (void) fd_close(c->spec.udp);
        (void) fd_close(c->spec.tcp);
        free(c);
        return NULL;
}
