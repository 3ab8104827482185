/* loop.c - the event loop of vmm-monitor, the exit of its child, and the end.
 *
 * What always holds: handlers do a bounded piece of work; everything that follows from the new
 * state (who is watched, who is told what) is derived once per turn by settle(), so that no
 * handler has to think of the others.  Phases only go forward:
 *
 *   RUN -> DRAIN    the child was reaped (an exec session's status is written here)
 *   DRAIN -> LINGER stdout and stderr have ended, or 500 ms have passed and they are empty
 *                   (a cluster's status is written here, when its log is whole)
 *   LINGER -> DONE  every client has its EXIT, or had its time */
#include "monitor/monitor_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

#define BATCH 16

uint64_t wall_ns(void)
{
        struct timespec ts = { 0 };

        (void) clock_gettime(CLOCK_REALTIME, &ts);
        return (uint64_t) ts.tv_sec * 1000000000U + (uint64_t) ts.tv_nsec;
}

/* #syscalls epoll_ctl */
int watch_set(struct monitor *m, struct watch *w, uint32_t events)
{
        struct epoll_event ev = { .events = events, .data.u64 = w->id };
        int op = events == 0 ? EPOLL_CTL_DEL : w->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

        if (w->fd < 0 || w->events == events)
                return 0;
        if (epoll_ctl(m->epoll, op, w->fd, &ev) < 0)
                return -errno;
        w->events = events;
        return 0;
}

/* Out of the set first: somebody else may hold the same open file. */
void watch_close(struct monitor *m, struct watch *w)
{
        (void) watch_set(m, w, 0);
        w->fd = fd_close(w->fd);
        w->events = 0;
}

/* ---- the child ----------------------------------------------------------------------------- */

/* One line, then fsync: the engine may read it after a crash of the host.  A pipe cannot be
 * synced, which is no loss.  #syscalls write fsync */
static void write_status(struct monitor *m)
{
        char line[ATTACH_STATUS_MAX];
        int n = snprintf(line, sizeof line,
                         "{\"pid\":%u,\"code\":%d,\"signal\":%d,\"at_us\":%llu,\"oom\":false}\n",
                         m->opt.pid, m->exit_code, m->exit_signal,
                         (unsigned long long) m->exit_wall_us);

        if (fd_write_full(m->opt.status, line, (size_t) n) < 0 ||
            (fsync(m->opt.status) < 0 && errno != EINVAL))
                m->result = 2;
        m->opt.status = fd_close(m->opt.status);
}

/* #syscalls waitid */
static void on_child(struct monitor *m, uint64_t now_us)
{
        siginfo_t si = { 0 };

        if (waitid(P_PIDFD, (id_t) m->child.fd, &si, WEXITED | WNOHANG | __WALL) < 0 ||
            si.si_pid == 0)
                return; /* woken for nothing; main.c has made sure that it is our child */
        m->exit_signal = si.si_code == CLD_EXITED ? 0 : si.si_status;
        m->exit_code = si.si_code == CLD_EXITED ? si.si_status : 128 + si.si_status;
        m->exit_us = now_us;
        m->exit_wall_us = clock_wall_us();
        m->exited = true;
        m->phase = PH_DRAIN;
        watch_close(m, &m->child);
        m->pty_peer = fd_close(m->pty_peer); /* from here on the pty may hang up */
        if (m->opt.exec)
                write_status(m);
}

/* ---- phases -------------------------------------------------------------------------------- */

static void settle_log(struct monitor *m, uint64_t now_us)
{
        if (!m->has_log)
                return;
        if (!ring_waiting(&m->ring)) {
                m->partial_us = 0;
        } else if (m->partial_us == 0) {
                m->partial_us = now_us + MON_PARTIAL_US;
        } else if (now_us >= m->partial_us) {
                ring_push(&m->ring, wall_ns());
                m->partial_us = 0;
        }
}

static void settle_drain(struct monitor *m, uint64_t now_us)
{
        if (now_us >= m->exit_us + MON_DRAIN_US)
                stdio_last_call(m);
        if (m->opt.exec && !m->owner_seen && now_us >= m->exit_us + MON_NOBODY_US)
                stdio_hangup(m);
        if (!stdio_ended(m))
                return;
        if (!m->opt.exec)
                write_status(m);
        m->phase = PH_LINGER;
        m->linger_us = now_us + (m->opt.exec ? MON_STUCK_US : MON_LINGER_US);
}

static void settle(struct monitor *m)
{
        uint64_t now_us = clock_mono_us();

        kept_settle(m, now_us);
        if (m->phase == PH_DRAIN)
                settle_drain(m, now_us);
        settle_log(m, now_us);
        client_settle(m, now_us);
        stdio_settle(m);
        if (m->phase == PH_LINGER &&
            ((client_all_told(m) && !kept_waits(m)) || now_us >= m->linger_us))
                m->phase = PH_DONE;
}

/* Milliseconds until something is due, -1: nothing is. */
static int next_timeout(const struct monitor *m)
{
        uint64_t due = m->partial_us ? m->partial_us : UINT64_MAX, now_us, ms;

        if (m->phase == PH_DRAIN && !m->overdue && m->exit_us + MON_DRAIN_US < due)
                due = m->exit_us + MON_DRAIN_US;
        if (m->phase == PH_DRAIN && m->opt.exec && !m->owner_seen &&
            m->exit_us + MON_NOBODY_US < due)
                due = m->exit_us + MON_NOBODY_US;
        if (m->phase == PH_LINGER && m->linger_us < due)
                due = m->linger_us;
        if (m->phase == PH_DRAIN && m->overdue && stdio_ready(m))
                return 0; /* a queue has emptied: the last call goes on */
        if (m->keep_until_us > 0 && m->keep_until_us < due)
                due = m->keep_until_us;
        if (stdio_held_until(m) < due)
                due = stdio_held_until(m);
        due = client_deadline(m, due);
        if (due == UINT64_MAX)
                return -1;
        now_us = clock_mono_us();
        if (due <= now_us)
                return 0;
        ms = (due - now_us) / US_PER_MS + 1;
        return ms > INT32_MAX ? INT32_MAX : (int) ms;
}

static void dispatch(struct monitor *m, const struct epoll_event *ev)
{
        uint32_t src = (uint32_t) ev->data.u64;
        uint64_t now_us = clock_mono_us();

        if (src >= SRC_CLIENT) {
                struct client *c = &m->clients[src - SRC_CLIENT];

                /* The slot may have changed hands earlier in this batch of events. */
                if (c->w.id == ev->data.u64)
                        client_event(m, c, ev->events, now_us);
                return;
        }
        switch ((enum source) src) {
        case SRC_CHILD:
                on_child(m, now_us);
                break;
        case SRC_LISTEN:
                client_accept(m, now_us);
                break;
        case SRC_IN:
        case SRC_OUT:
        case SRC_ERR:
                stdio_event(m, (enum source) src);
                break;
        case SRC_NONE:
        case SRC_CLIENT:
                break;
        }
}

/* #syscalls epoll_wait epoll_pwait clock_gettime exit_group */
int monitor_run(struct monitor *m)
{
        struct epoll_event ev[BATCH];

        for (;;) {
                int n;

                settle(m);
                if (m->phase == PH_DONE)
                        break;
                n = epoll_wait(m->epoll, ev, BATCH, next_timeout(m));
                for (int i = 0; i < n; i++)
                        dispatch(m, &ev[i]);
        }
        client_close_all(m);
        return m->result;
}
