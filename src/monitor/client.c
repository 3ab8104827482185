/* client.c - those who are attached: their packets, their queues, and what they are told.
 *
 * Runs in vmm-monitor.  What always holds: a client costs one slot of fixed size and can fill only
 * its own queue; a queue holds whole packets, the last MON_OUT_RESERVE bytes of it are kept for
 * EOF, ERROR and EXIT; nothing is sent before hello but ERROR, nothing after EXIT.  Log followers
 * have no queue of lines: they are fed from the files at the pace of their socket. */
#include "monitor/monitor_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"

#define CLOSE_READS 32
#define BACKLOG_MAX 4096U /* more than any listener of ours lets wait */
#define PUMP_ROUNDS 4     /* full queues of log lines sent to one client in one turn of the loop */

static const char stranger[] = "this user may not attach";
static const char is_over[] = "the process has ended";

/* By its zero id: a free slot is an untouched page. */
static bool is_free(const struct client *c)
{
        return c->w.id == 0;
}

/* Greeted and not being thrown out. */
static bool is_served(const struct client *c)
{
        return !is_free(c) && c->greeted && !c->dying;
}

/* ---- the queue ----------------------------------------------------------------------------- */

static size_t queued(const struct client *c)
{
        return c->out_end - c->out_start;
}

/* Free bytes for ordinary packets, header included. */
static size_t room(const struct client *c)
{
        size_t max = sizeof c->out - MON_OUT_RESERVE;

        return queued(c) < max ? max - queued(c) : 0;
}

/* The free end of the queue, made contiguous. */
static uint8_t *tail(struct client *c, size_t *ret_cap)
{
        if (c->out_start > 0) {
                memmove(c->out, c->out + c->out_start, queued(c));
                c->out_end -= c->out_start;
                c->out_start = 0;
        }
        *ret_cap = sizeof c->out - c->out_end;
        return c->out + c->out_end;
}

size_t client_budget(const struct client *c)
{
        size_t fits = room(c);

        fits = fits > sizeof(struct attach_header) ? fits - sizeof(struct attach_header) : 0;
        return fits < c->credit ? fits : c->credit;
}

static void put_error(struct client *c, const char *sentence)
{
        size_t cap;
        uint8_t *p = tail(c, &cap);

        c->out_end += attach_put_error(p, cap, sentence);
}

/* The connection goes on; only one request was in vain. */
static void put_refusal(struct client *c, const char *sentence)
{
        size_t cap, n;
        uint8_t *p = tail(c, &cap);

        n = attach_put_error(p, cap, sentence);
        if (n > 0)
                attach_put_header(p, ATTACH_ERROR, ATTACH_ERROR_REFUSED, (uint32_t) n - 8);
        c->out_end += n;
}

/* Where a kept session's output goes on. */
static void put_offset(struct client *c)
{
        size_t cap;
        uint8_t *p = tail(c, &cap);

        c->out_end += attach_put_follow(p, cap, c->pos);
}

static void put_eof(struct client *c, enum attach_channel ch)
{
        size_t cap;
        uint8_t *p = tail(c, &cap);

        c->out_end += attach_put_eof(p, cap, ch);
}

/* ---- coming and going ---------------------------------------------------------------------- */

/* The slot is free afterwards and its pages are given back.  #syscalls madvise */
static void client_gone(struct monitor *m, struct client *c)
{
        bool owner = m->owner == c;

        if (m->input == c)
                stdin_forget(m);
        watch_close(m, &c->w);
        if (madvise(c, sizeof *c, MADV_DONTNEED) < 0) /* pages larger than ours */
                memset(c, 0, sizeof *c);
        if (owner)
                owner_gone(m);
}

/* Say why, then throw it out as soon as that is sent or its time is up. */
static void client_fail(struct monitor *m, struct client *c, uint64_t now_us, const char *why)
{
        if (c->dying)
                return;
        put_error(c, why);
        c->dying = true;
        c->in_len = 0;
        c->in_eof = false;
        c->deadline_us = now_us + MON_DYING_US;
        if (m->input == c)
                stdin_forget(m);
        if (m->owner == c)
                owner_gone(m);
}

/* Unread bytes of the peer would turn our end into an error on its side: take them first, as far
 * as they are there.  #syscalls recvfrom */
static void take_unread(struct monitor *m, int fd)
{
        for (int i = 0; i < CLOSE_READS; i++)
                if (recv(fd, m->chunk, sizeof m->chunk, MSG_DONTWAIT) <= 0)
                        break;
}

/* Turn somebody away who has no slot.  The socket is new and empty, so it takes the sentence at
 * once, and the peer reads that, however late, before it sees the end.  #syscalls sendto close */
static void reject(struct monitor *m, int fd, const char *why)
{
        uint8_t buf[ATTACH_PARSER_MIN];
        size_t n = attach_put_error(buf, sizeof buf, why);

        (void) send(fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        take_unread(m, fd);
        (void) fd_close(fd);
}

static struct client *free_slot(struct monitor *m)
{
        for (struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++)
                if (is_free(c))
                        return c;
        for (struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++)
                if (c->dying) {
                        client_gone(m, c);
                        return c;
                }
        return NULL;
}

static void put_hello(const struct monitor *m, struct client *c)
{
        struct attach_hello h = { .version = ATTACH_VERSION };
        size_t cap;
        uint8_t *p = tail(c, &cap);

        h.flags = (m->opt.pty >= 0 ? ATTACH_F_TTY : 0) | (stdin_open(m) ? ATTACH_F_INPUT : 0);
        if (m->has_log) {
                h.log_start = ring_start(&m->ring);
                h.log_end = ring_end(&m->ring);
        }
        c->out_end += attach_put_hello(p, cap, &h);
}

/* Who connect()ed, not who holds the socket.  #syscalls getsockopt */
static bool may_attach(const struct monitor *m, int fd)
{
        struct ucred cred;
        socklen_t len = sizeof cred;

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) >= 0 &&
               (cred.uid == 0 || cred.uid == m->opt.peer);
}

/* One connection a call; epoll tells of the next.  When the host has no descriptor or memory left
 * for it, it waits in the backlog for a moment: we would be woken for it without end.
 * #syscalls accept4 */
void client_accept(struct monitor *m, uint64_t now_us)
{
        struct client *c;
        int fd = accept4(m->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                (void) watch_set(m, &m->listen, 0);
                m->accept_us = now_us + MON_ACCEPT_US;
        }
        if (fd < 0)
                return;
        if (!may_attach(m, fd)) {
                reject(m, fd, stranger);
                return;
        }
        c = free_slot(m);
        if (!c) {
                reject(m, fd, "too many clients are attached");
                return;
        }
        m->generation++;
        c->w = (struct watch){ .fd = fd,
                               .id = (uint64_t) m->generation << 32 |
                                     (uint32_t) (SRC_CLIENT + (c - m->clients)) };
        c->deadline_us = now_us + MON_HELLO_US;
        c->progress_us = now_us;
        attach_parser_init(&c->parser, c->in_buf, sizeof c->in_buf);
        put_hello(m, c);
}

/* ---- packets ------------------------------------------------------------------------------- */

struct call {
        struct monitor *m;
        struct client *c;
        const struct attach_packet *p;
        uint64_t now_us;
};

/* NULL, or why the client is thrown out. */
typedef const char *packet_fn(const struct call *k);

static const char *on_hello(const struct call *k)
{
        struct monitor *m = k->m;
        struct client *c = k->c;
        struct attach_hello h;

        if (c->greeted || attach_get_hello(k->p, &h) < 0)
                return "one hello, at the beginning";
        if (h.version != ATTACH_VERSION)
                return "this monitor speaks version 1 of the attach protocol";
        if ((h.flags & ATTACH_F_STDIO) && m->opt.exec && m->owner_seen && !kept_open(m))
                return "this session has, or had, its client";
        if ((h.flags & ATTACH_F_STDIO) && m->opt.keep > 0 && m->owner)
                client_fail(m, m->owner, k->now_us, "another client has taken this session over");
        if ((h.flags & ATTACH_F_INPUT) && m->input)
                return "another client writes stdin";
        c->flags = h.flags;
        c->greeted = true;
        c->deadline_us = 0;
        c->credit = ATTACH_WINDOW;
        if (h.flags & ATTACH_F_INPUT)
                m->input = c;
        if (!(h.flags & ATTACH_F_STDIO))
                return NULL;
        if (m->opt.exec) {
                owner_come(m, c, &h);
                if (m->opt.keep > 0)
                        put_offset(c);
                if (!m->input) /* it will never write: the process sees the end of its input */
                        stdin_close(m);
        }
        for (size_t i = 0; i < NELEM(m->out); i++)
                if (m->out[i].ended && !(i == 1 && m->opt.pty >= 0) && !kept_behind(m, c))
                        put_eof(c, i == 0 ? ATTACH_STDOUT : ATTACH_STDERR);
        return NULL;
}

static const char *on_data(const struct call *k)
{
        if (k->m->input != k->c || k->p->channel != ATTACH_STDIN)
                return "data for stdin without the input flag";
        if (k->c->in_eof)
                return "data behind the end of stdin";
        k->c->in = k->p->payload;
        k->c->in_len = k->p->length;
        stdin_flush(k->m);
        return NULL;
}

static const char *on_eof(const struct call *k)
{
        if (k->m->input != k->c || k->p->channel != ATTACH_STDIN)
                return "end of stdin without the input flag";
        k->c->in_eof = true;
        stdin_flush(k->m);
        return NULL;
}

static const char *on_resize(const struct call *k)
{
        uint16_t rows, cols;

        if (attach_get_resize(k->p, &rows, &cols) < 0)
                return "broken resize packet";
        stdio_resize(k->m, rows, cols);
        return NULL;
}

static const char *on_leave(const struct call *k)
{
        k->m->left = k->m->left || k->m->owner == k->c;
        return NULL;
}

/* A refused signal is no reason to throw anybody out. */
static const char *on_signal(const struct call *k)
{
        char text[96];
        int sig, r;

        if (attach_get_signal(k->p, &sig) < 0)
                return "broken signal packet";
        r = k->m->opt.exec ? stdio_signal(k->m, sig) : -EOPNOTSUPP;
        if (r < 0 && room(k->c) > sizeof text) {
                (void) snprintf(text, sizeof text, "signal %d: %s", sig, strerrordesc_np(-r));
                put_refusal(k->c, text);
        }
        return NULL;
}

static const char *on_follow(const struct call *k)
{
        if (!k->m->has_log)
                return "this session keeps no log";
        if (attach_get_follow(k->p, &k->c->pos) < 0)
                return "broken follow packet";
        ring_seek(&k->m->ring, &k->c->pos);
        k->c->follow = true;
        return NULL;
}

static const char *on_credit(const struct call *k)
{
        uint32_t more;

        if (attach_get_credit(k->p, &more) < 0)
                return "broken credit packet";
        k->c->credit = more > UINT32_MAX - k->c->credit ? UINT32_MAX : k->c->credit + more;
        return NULL;
}

/* An empty cell is a packet that only a monitor sends. */
static packet_fn *const handlers[] = {
        [ATTACH_HELLO] = on_hello,   [ATTACH_DATA] = on_data,     [ATTACH_EOF] = on_eof,
        [ATTACH_RESIZE] = on_resize, [ATTACH_SIGNAL] = on_signal, [ATTACH_FOLLOW] = on_follow,
        [ATTACH_CREDIT] = on_credit, [ATTACH_LEAVE] = on_leave,
};
static_assert(NELEM(handlers) == ATTACH_TYPE_COUNT, "one handler per type");

/* Handle what lies in the buffer.  A client that keeps to its window of stdin is always parsed, so
 * its CREDIT and SIGNAL come through while the process takes no input; of one that does not, the
 * payload stays where it is and nothing more is parsed before there is room for it. */
static void parse(struct monitor *m, struct client *c, uint64_t now_us)
{
        struct attach_packet p;

        while (!c->dying && c->in_len == 0) {
                const struct call k = { m, c, &p, now_us };
                const char *why = NULL;
                int r = attach_parser_next(&c->parser, &p);

                if (r == 0)
                        return;
                c->progress_us = now_us;
                if (r < 0)
                        why = "not a packet of the attach protocol";
                else if (!c->greeted && p.type != ATTACH_HELLO)
                        why = "hello comes first";
                else if (!handlers[p.type])
                        why = "only the monitor sends this packet";
                else
                        why = handlers[p.type](&k);
                if (why)
                        client_fail(m, c, now_us, why);
        }
}

/* False: the peer has left.  #syscalls recvfrom */
static bool receive(struct monitor *m, struct client *c, uint64_t now_us)
{
        size_t len;
        void *p = attach_parser_space(&c->parser, &len);
        ssize_t n = recv(c->w.fd, p, len, MSG_DONTWAIT);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR;
        if (n == 0)
                return false;
        attach_parser_commit(&c->parser, (size_t) n);
        parse(m, c, now_us);
        return true;
}

/* A peer that closes its writing side has left too: the end of stdin is a packet. */
void client_event(struct monitor *m, struct client *c, uint32_t events, uint64_t now_us)
{
        bool reading = !c->dying && c->in_len == 0;

        if ((events & EPOLLIN) && reading) {
                if (!receive(m, c, now_us))
                        client_gone(m, c);
        } else if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR)) {
                client_gone(m, c);
        }
}

/* ---- output -------------------------------------------------------------------------------- */

void client_output(struct monitor *m, enum attach_channel ch, const void *data, size_t len)
{
        if (m->opt.keep > 0)
                kept_add(m, data, len);
        for (struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++) {
                size_t cap;
                uint8_t *p;

                if (!is_served(c) || !(c->flags & ATTACH_F_STDIO))
                        continue;
                if (client_budget(c) < len) { /* never an exec's: what is read was measured */
                        client_fail(m, c, clock_mono_us(),
                                    "dropped: output came faster than it was read");
                        continue;
                }
                p = tail(c, &cap);
                c->out_end += attach_put(p, cap, ATTACH_DATA, ch, data, len);
                c->credit -= (uint32_t) len;
                if (m->opt.keep > 0)
                        c->pos = m->kept_end;
        }
}

void client_channel_ended(struct monitor *m, enum attach_channel ch)
{
        for (struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++)
                if (is_served(c) &&
                    (ch == ATTACH_STDIN ? c == m->input : (c->flags & ATTACH_F_STDIO) != 0))
                        put_eof(c, ch);
}

static bool is_behind(const struct monitor *m, const struct client *c)
{
        return c->follow && !c->dying && c->pos < ring_end(&m->ring);
}

/* As many whole lines as fit into an empty queue. */
static void put_log(struct monitor *m, struct client *c)
{
        const size_t head = sizeof(struct attach_header) + 8;
        size_t cap, n;
        uint8_t *p;

        if (!is_behind(m, c) || room(c) < head + ATTACH_LOG_LINE)
                return;
        p = tail(c, &cap);
        n = ring_read(&m->ring, &c->pos, p + head, room(c) - head);
        if (n == 0)
                return;
        c->out_end += attach_put_log_header(p, c->pos, (uint32_t) n) + n;
        c->pos += n;
}

/* What a kept session's new owner has missed, as far as its credit goes. */
static void put_kept(struct monitor *m, struct client *c)
{
        while (kept_behind(m, c) && client_budget(c) > 0) {
                const uint8_t *data;
                size_t n = kept_get(m, c->pos, &data), max = client_budget(c), cap;
                uint8_t *p = tail(c, &cap);

                n = n < max ? n : max;
                c->out_end += attach_put(p, cap, ATTACH_DATA, ATTACH_STDOUT, data, n);
                c->credit -= (uint32_t) n;
                c->pos += n;
        }
}

/* The exit is told when nothing else will follow; to the mere observers of an exec session at
 * once. */
static void put_exit(struct monitor *m, struct client *c)
{
        bool observer = m->opt.exec && !(c->flags & ATTACH_F_STDIO);
        size_t cap;
        uint8_t *p;

        if (!m->exited || c->exit_sent || is_behind(m, c) || kept_behind(m, c) || !is_served(c))
                return;
        if (m->phase != PH_LINGER && !observer)
                return;
        p = tail(c, &cap);
        c->out_end += attach_put_exit(p, cap, m->exit_code, m->exit_signal);
        c->exit_sent = true;
}

/* The writer of stdin may go on. */
static void put_credit(struct monitor *m, struct client *c)
{
        size_t cap;
        uint8_t *p;

        if (m->in_taken < MON_CREDIT_STEP || !is_served(c) || c->exit_sent ||
            room(c) < sizeof(struct attach_header) + sizeof m->in_taken)
                return;
        p = tail(c, &cap);
        c->out_end += attach_put_credit(p, cap, m->in_taken);
        m->in_taken = 0;
}

/* Send what the socket takes.  A peer that reads no more may still have said something before it
 * left: that is found when it has been read to its end.  #syscalls sendto */
static void flush(struct client *c, uint64_t now_us)
{
        while (queued(c) > 0) {
                ssize_t n = send(c->w.fd, c->out + c->out_start, queued(c),
                                 MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return;
                if (n < 0)
                        break;
                c->out_start += (size_t) n;
                c->progress_us = now_us;
        }
        c->out_start = c->out_end = 0;
}

/* When the owner of an ended exec session has been still for too long. */
static uint64_t stuck_us(const struct monitor *m, const struct client *c)
{
        uint64_t since_us = c->progress_us > m->exit_us ? c->progress_us : m->exit_us;

        return m->exited && c == m->owner ? since_us + MON_STUCK_US : UINT64_MAX;
}

/* False: this client is over. */
static bool settle_one(struct monitor *m, struct client *c, uint64_t now_us)
{
        uint32_t events = EPOLLRDHUP;

        if (!c->greeted && !c->dying && now_us >= c->deadline_us)
                client_fail(m, c, now_us, "no hello in time");
        if (now_us >= stuck_us(m, c))
                client_fail(m, c, now_us, "nothing was read for too long");
        if (c == m->input)
                put_credit(m, c);
        for (int i = 0; i < PUMP_ROUNDS; i++) {
                put_log(m, c);
                put_kept(m, c);
                put_exit(m, c);
                flush(c, now_us);
                if (queued(c) > 0 || !(is_behind(m, c) || kept_behind(m, c)))
                        break;
        }
        if (c->dying && (queued(c) == 0 || now_us >= c->deadline_us))
                return false;
        if (!c->dying && c->in_len == 0)
                events |= EPOLLIN;
        if (queued(c) > 0 || is_behind(m, c))
                events |= EPOLLOUT;
        return watch_set(m, &c->w, events) == 0;
}

void client_settle(struct monitor *m, uint64_t now_us)
{
        if (m->accept_us > 0 && now_us >= m->accept_us) {
                m->accept_us = 0;
                (void) watch_set(m, &m->listen, EPOLLIN);
        }
        for (struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++) {
                if (!is_free(c) && !c->dying && c->in_len == 0)
                        parse(m, c, now_us); /* what waited behind stdin */
                if (!is_free(c) && !settle_one(m, c, now_us))
                        client_gone(m, c);
        }
}

bool client_all_told(const struct monitor *m)
{
        for (const struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++)
                if (!is_free(c) && (queued(c) > 0 || (is_served(c) && !c->exit_sent)))
                        return false;
        return true;
}

uint64_t client_deadline(const struct monitor *m, uint64_t until)
{
        if (m->accept_us > 0 && m->accept_us < until)
                until = m->accept_us;
        for (const struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++) {
                if (is_free(c))
                        continue;
                if (c->deadline_us > 0 && c->deadline_us < until)
                        until = c->deadline_us;
                if (stuck_us(m, c) < until)
                        until = stuck_us(m, c);
        }
        return until;
}

/* ---- the end ------------------------------------------------------------------------------- */

/* Whoever has connected since the last turn would be reset with the listener, and could not tell
 * that from a monitor that was killed.  Nobody is let in any more (ECONNREFUSED), and who is in has
 * an answer.  #syscalls shutdown accept4 */
static void close_listener(struct monitor *m)
{
        (void) shutdown(m->listen.fd, SHUT_RD);
        for (unsigned i = 0; i < BACKLOG_MAX; i++) {
                int fd = accept4(m->listen.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (fd >= 0)
                        reject(m, fd, may_attach(m, fd) ? is_over : stranger);
                else if (errno != EINTR && errno != ECONNABORTED)
                        break;
        }
        watch_close(m, &m->listen);
}

void client_close_all(struct monitor *m)
{
        for (struct client *c = m->clients; c < m->clients + MON_CLIENTS; c++) {
                if (is_free(c))
                        continue;
                if (!c->greeted && !c->dying) {
                        put_error(c, is_over);
                        flush(c, 0);
                }
                take_unread(m, c->w.fd);
                watch_close(m, &c->w);
        }
        close_listener(m); /* last: their descriptors may be needed */
}
