/* stdio.c - the process's stdin, stdout and stderr, as pipes or as one pty.
 *
 * Runs in vmm-monitor.  What always holds: a cluster's output is read as it comes, whoever
 * listens, up to a rate: what is faster waits in its pipe, and the process with it, so that no line is
 * lost and no log wears out the host's disk; an exec session's is read only as fast as its client takes it, so its pipe fills and
 * the process waits.  With a pty, out[0] is the master and stdin too, and out[1] has ended from
 * the start. */
#include "monitor/monitor_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

static bool has_tty(const struct monitor *m)
{
        return m->opt.pty >= 0;
}

static enum attach_channel channel_of(const struct monitor *m, const struct output *o)
{
        return o == &m->out[0] ? ATTACH_STDOUT : ATTACH_STDERR;
}

void stdio_start(struct monitor *m)
{
        bool tty = has_tty(m);

        m->stdin = (struct watch){ .fd = tty ? -EBADF : m->opt.in, .id = SRC_IN };
        m->out[0].w = (struct watch){ .fd = tty ? m->opt.pty : m->opt.out, .id = SRC_OUT };
        m->out[1].w = (struct watch){ .fd = tty ? -EBADF : m->opt.err, .id = SRC_ERR };
        m->out[1].ended = tty;
}

/* ---- output -------------------------------------------------------------------------------- */

/* How much may be read now. */
static size_t budget(const struct monitor *m, const struct output *o)
{
        size_t n = sizeof m->chunk;

        if (o->ended || m->held)
                return 0;
        if (m->opt.exec) {
                size_t fits = m->owner && !kept_behind(m, m->owner) ? client_budget(m->owner) : 0;

                n = fits < n ? fits : n;
        }
        return m->overdue && o->last_bytes < n ? o->last_bytes : n;
}

static void output_end(struct monitor *m, struct output *o)
{
        enum attach_channel ch = channel_of(m, o);

        if (o->ended)
                return;
        o->ended = true;
        watch_close(m, &o->w);
        if (m->has_log)
                ring_close(&m->ring, ch, wall_ns());
        client_channel_ended(m, ch);
}

/* Everybody inside has closed the tty, or it was hung up on purpose (as getty does).  While the
 * process lives somebody may open it again, so we open our side again first.
 * #syscalls ioctl */
static bool pty_reopen(struct monitor *m)
{
        if (m->exited)
                return false;
        m->pty_peer = fd_close(m->pty_peer);
        m->pty_peer = ioctl(m->out[0].w.fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        return m->pty_peer >= 0;
}

/* A leaky bucket, kept as the time at which it will be empty. */
static void charge(struct monitor *m, size_t n)
{
        uint64_t rate = m->opt.log_rate, ahead, now_ns;

        if (!m->has_log || rate == 0)
                return;
        now_ns = clock_mono_us() * 1000U;
        ahead = MON_LOG_AHEAD * 1000000000ULL / rate;
        if (m->log_ns + ahead < now_ns)
                m->log_ns = now_ns - ahead;
        m->log_ns += n * 1000000000ULL / rate;
        m->held = m->phase == PH_RUN && m->log_ns > now_ns;
}

uint64_t stdio_held_until(const struct monitor *m)
{
        return m->held ? m->log_ns / 1000U + 1 : UINT64_MAX;
}

/* One read.  False: nothing there now.  #syscalls read */
static bool output_read(struct monitor *m, struct output *o)
{
        size_t max = budget(m, o);
        ssize_t n;

        if (max == 0)
                return false;
        n = read(o->w.fd, m->chunk, max);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return false;
        if (n < 0 && errno == EIO && has_tty(m) && pty_reopen(m))
                return false;
        if (n <= 0) {
                output_end(m, o);
                return false;
        }
        if (m->overdue)
                o->last_bytes -= (size_t) n;
        if (m->has_log)
                ring_add(&m->ring, channel_of(m, o), m->chunk, (size_t) n, wall_ns());
        charge(m, (size_t) n);
        client_output(m, channel_of(m, o), m->chunk, (size_t) n);
        return true;
}

bool stdio_ended(const struct monitor *m)
{
        return m->out[0].ended && m->out[1].ended;
}

bool stdio_ready(const struct monitor *m)
{
        return budget(m, &m->out[0]) > 0 || budget(m, &m->out[1]) > 0;
}

/* What was in the pipe when time was up is still handed on, as fast as the client takes it; then
 * the channel ends, whoever holds its other end.  Bounded by what a pipe can hold. */
void stdio_last_call(struct monitor *m)
{
        if (!m->overdue) {
                m->overdue = true;
                m->out[0].last_bytes = m->out[1].last_bytes = MON_DRAIN_BYTES;
        }
        for (struct output *o = m->out; o < m->out + 2; o++) {
                while (budget(m, o) > 0)
                        if (!output_read(m, o) && !o->ended)
                                output_end(m, o);
                if (o->last_bytes == 0)
                        output_end(m, o);
        }
}

void stdio_hangup(struct monitor *m)
{
        stdin_close(m);
        m->pty_peer = fd_close(m->pty_peer);
        for (struct output *o = m->out; o < m->out + 2; o++)
                output_end(m, o);
}

/* ---- input --------------------------------------------------------------------------------- */

static int stdin_fd(const struct monitor *m)
{
        return has_tty(m) ? m->out[0].w.fd : m->stdin.fd;
}

bool stdin_open(const struct monitor *m)
{
        return stdin_fd(m) >= 0;
}

/* A tty's input cannot end while its output goes on: the client's EOF is typed as ^D instead. */
void stdin_close(struct monitor *m)
{
        watch_close(m, &m->stdin);
}

void stdin_forget(struct monitor *m)
{
        m->input = NULL;
        m->in_start = m->in_end = 0;
        m->in_taken = 0;
}

/* Anything to be written, be it the end. */
static bool stdin_pending(const struct monitor *m)
{
        const struct client *c = m->input;

        return c && (m->in_start < m->in_end || c->in_len > 0 || c->in_eof);
}

/* Into the queue, as much of the client's packet as fits. */
static void stdin_refill(struct monitor *m, struct client *c)
{
        size_t n;

        if (m->in_start == m->in_end) {
                m->in_start = m->in_end = 0;
        } else if (c->in_len > sizeof m->in - m->in_end) {
                memmove(m->in, m->in + m->in_start, m->in_end - m->in_start);
                m->in_end -= m->in_start;
                m->in_start = 0;
        }
        n = sizeof m->in - m->in_end;
        n = c->in_len < n ? c->in_len : n;
        if (n == 0)
                return;
        memcpy(m->in + m->in_end, c->in, n);
        m->in_end += n;
        c->in += n;
        c->in_len -= n;
}

/* Nobody will read it; its writer may go on. */
static void stdin_drop(struct monitor *m)
{
        struct client *c = m->input;

        m->in_taken += (uint32_t) (m->in_end - m->in_start + c->in_len);
        m->in_start = m->in_end = 0;
        c->in_len = 0;
        c->in_eof = false;
}

/* The process has closed its end. */
static void stdin_broken(struct monitor *m)
{
        stdin_drop(m);
        if (has_tty(m))
                return;
        stdin_close(m);
        client_channel_ended(m, ATTACH_STDIN);
}

/* #syscalls write */
void stdin_flush(struct monitor *m)
{
        static const uint8_t eot = 4;

        while (stdin_pending(m)) {
                struct client *c = m->input;
                bool end;
                ssize_t n;

                stdin_refill(m, c);
                end = m->in_start == m->in_end;
                if (end && !has_tty(m)) {
                        c->in_eof = false;
                        stdin_close(m);
                        return;
                }
                if (!stdin_open(m)) {
                        stdin_drop(m);
                        return;
                }
                n = end ? write(stdin_fd(m), &eot, 1)
                        : write(stdin_fd(m), m->in + m->in_start, m->in_end - m->in_start);
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        stdin_broken(m);
                if (n < 0)
                        return;
                if (end) {
                        c->in_eof = false;
                } else {
                        m->in_start += (size_t) n;
                        m->in_taken += (uint32_t) n;
                }
        }
}

/* ---- the loop's side ----------------------------------------------------------------------- */

void stdio_event(struct monitor *m, enum source src)
{
        if (src == SRC_IN || (src == SRC_OUT && has_tty(m)))
                stdin_flush(m);
        if (src == SRC_OUT || src == SRC_ERR)
                (void) output_read(m, &m->out[src == SRC_ERR]);
}

void stdio_settle(struct monitor *m)
{
        bool pending = stdin_pending(m);

        if (m->held) /* what is left in the pipe of one that has ended is not much */
                m->held = m->phase == PH_RUN && m->log_ns > clock_mono_us() * 1000U;
        for (struct output *o = m->out; o < m->out + 2; o++) {
                uint32_t events = budget(m, o) > 0 ? EPOLLIN : 0;

                if (has_tty(m) && pending && !o->ended)
                        events |= EPOLLOUT;
                if (watch_set(m, &o->w, events) < 0)
                        output_end(m, o);
        }
        if (watch_set(m, &m->stdin, pending ? EPOLLOUT : 0) < 0)
                stdin_close(m);
}

/* #syscalls ioctl */
void stdio_resize(struct monitor *m, uint16_t rows, uint16_t cols)
{
        struct winsize ws = { .ws_row = rows, .ws_col = cols };

        if (has_tty(m) && m->out[0].w.fd >= 0)
                (void) ioctl(m->out[0].w.fd, TIOCSWINSZ, &ws);
}

/* Through the pty the kernel signals the foreground job for us, whoever it belongs to; otherwise
 * our own rights decide.  #syscalls ioctl pidfd_send_signal */
int stdio_signal(struct monitor *m, int sig)
{
        if (m->exited)
                return -ESRCH;
        if (has_tty(m) && m->out[0].w.fd >= 0 &&
            (sig == SIGINT || sig == SIGQUIT || sig == SIGTSTP))
                return ioctl(m->out[0].w.fd, TIOCSIG, sig) < 0 ? -errno : 0;
        return syscall(SYS_pidfd_send_signal, m->child.fd, sig, NULL, 0) < 0 ? -errno : 0;
}
