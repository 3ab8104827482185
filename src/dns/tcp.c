/* tcp.c - queries over a connection, each with its length before it.  vmm-dns.
 *
 * A connection does one thing at a time: it reads a query, answers it or carries it to a server and
 * the answer back, and reads the next.  Each step has a deadline; what is late is closed. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "dns/dnsd.h"

#define STEP_US (10U * 1000000U) /* an idle client, a slow server */
#define PREFIX  2U               /* a message's length */
#define ACCEPTS 16               /* in one turn */

enum step { STEP_NONE, STEP_QUERY, STEP_ASK, STEP_WAIT, STEP_REPLY, STEP_COUNT };

struct conn {
        struct dnsd *d;
        struct account *account; /* held */
        struct conn **at, *next; /* in d->open */
        uint32_t client;
        enum step step;
        int fd, up; /* to the client; to a server, or none */
        size_t server;
        sd_event_source *io, *up_io, *timer;
        size_t have, want;                                      /* bytes of `buf` */
        size_t end;                                             /* of the question */
        uint8_t query[PREFIX + DNS_HEADER + DNS_NAME_TEXT + 8]; /* up to its question */
        uint8_t buf[PREFIX + DNS_MESSAGE];
};

static struct conn *conn_free(struct conn *c)
{
        struct name *from;

        if (!c)
                return NULL;
        from = names_by_address(c->d->names, c->client);
        if (from && from->account == c->account && from->connections)
                from->connections--;
        c->account->connections--;
        names_account_leave(c->d->names, c->account);
        c->d->connections--;
        *c->at = c->next;
        if (c->next)
                c->next->at = c->at;
        c->io = sd_event_source_disable_unref(c->io);
        c->up_io = sd_event_source_disable_unref(c->up_io);
        c->timer = sd_event_source_disable_unref(c->timer);
        c->fd = fd_close(c->fd);
        c->up = fd_close(c->up);
        free(c);
        return NULL;
}

void tcp_end(struct dnsd *d)
{
        while (d->open)
                (void) conn_free(d->open);
}

static void watch(struct conn *c, enum step step)
{
        c->step = step;
        (void) sd_event_source_set_time_relative(c->timer, STEP_US);
        (void) sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
        (void) sd_event_source_set_io_events(c->io, step == STEP_QUERY   ? EPOLLIN
                                                    : step == STEP_REPLY ? EPOLLOUT
                                                                         : 0);
        if (c->up_io)
                (void) sd_event_source_set_io_events(c->up_io, step == STEP_ASK    ? EPOLLOUT
                                                               : step == STEP_WAIT ? EPOLLIN
                                                                                   : 0);
}

static void read_next(struct conn *c)
{
        c->have = 0;
        c->want = PREFIX;
        watch(c, STEP_QUERY);
}

/* What lies in `buf` behind its prefix goes to the client. */
static void reply(struct conn *c, size_t len)
{
        c->buf[0] = (uint8_t) (len >> 8);
        c->buf[1] = (uint8_t) len;
        c->have = 0;
        c->want = PREFIX + len;
        c->up_io = sd_event_source_disable_unref(c->up_io);
        c->up = fd_close(c->up);
        watch(c, STEP_REPLY);
}

static int on_up(sd_event_source *s, int fd, uint32_t revents, void *arg);

/* The query, whole in `buf`, goes to the next server that takes a connection. */
static void ask_next(struct conn *c)
{
        const struct sockaddr_storage *to;

        for (; (to = names_server(c->d->names, c->server)); c->server++) {
                c->up_io = sd_event_source_disable_unref(c->up_io);
                c->up = fd_close(c->up);
                c->up = socket(to->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                if (c->up < 0 ||
                    (connect(c->up, (const struct sockaddr *) to, server_len(to)) < 0 &&
                     errno != EINPROGRESS))
                        continue;
                if (sd_event_add_io(c->d->loop, &c->up_io, c->up, EPOLLOUT, on_up, c) < 0)
                        continue;
                c->have = 0;
                watch(c, STEP_ASK);
                return;
        }
        reply(c, answer_failure(c->query + PREFIX, c->end, c->buf + PREFIX));
}

/* A whole query.  < 0: the client is not worth an answer. */
static int on_query(struct conn *c)
{
        const struct name *from = names_by_address(c->d->names, c->client);
        uint8_t answer[DNS_MESSAGE];
        struct dns_question q;
        int n;

        if (!from || from->account != c->account)
                return -EPERM; /* it has left meanwhile */
        n = answer_query(c->d->names, from, c->buf + PREFIX, c->want - PREFIX, answer,
                         sizeof answer, &q);
        if (n < 0)
                return n;
        if (n > 0) {
                memcpy(c->buf + PREFIX, answer, (size_t) n);
                reply(c, (size_t) n);
                return 0;
        }
        if (!dnsd_may_ask(c->account, clock_mono_us(), DNSD_ASK_TCP))
                return -EAGAIN;
        c->end = q.end;
        memcpy(c->query, c->buf, PREFIX + q.end);
        c->server = 0;
        ask_next(c);
        return 0;
}

/* Read on towards `want`: first a prefix, then what it says.  1: a message is whole; 0: not yet. */
static int fill(struct conn *c, int fd)
{
        ssize_t n = recv(fd, c->buf + c->have, c->want - c->have, MSG_DONTWAIT);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        if (n == 0)
                return -EPIPE;
        c->have += (size_t) n;
        if (c->have < PREFIX || c->want > PREFIX)
                return c->have == c->want && c->want > PREFIX;
        c->want += (size_t) (c->buf[0] << 8 | c->buf[1]);
        return c->want > PREFIX ? 0 : -EBADMSG;
}

/* 1: all of it is out; 0: not yet. */
static int drain(struct conn *c, int fd)
{
        ssize_t n = send(fd, c->buf + c->have, c->want - c->have, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? 0 : -errno;
        c->have += (size_t) n;
        return c->have == c->want;
}

static int on_client(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct conn *c = arg;
        int r = 0;

        (void) s;
        if (c->step == STEP_QUERY) {
                r = fill(c, fd);
                if (r > 0)
                        r = on_query(c);
        } else if (c->step == STEP_REPLY) {
                r = drain(c, fd);
                if (r > 0)
                        read_next(c);
        } else if (revents & (EPOLLHUP | EPOLLERR)) {
                r = -EPIPE;
        }
        if (r < 0)
                (void) conn_free(c);
        return 0;
}

static int on_up(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct conn *c = arg;
        int r;

        (void) s;
        (void) revents;
        if (c->step == STEP_ASK) {
                r = drain(c, fd);
                if (r > 0) {
                        c->have = 0;
                        c->want = PREFIX;
                        watch(c, STEP_WAIT);
                }
        } else {
                r = fill(c, fd);
                if (r > 0 &&
                    !dns_answers(c->buf + PREFIX, c->want - PREFIX, c->query + PREFIX, c->end))
                        r = -EBADMSG;
                if (r > 0)
                        reply(c, c->want - PREFIX);
        }
        if (r >= 0)
                return 0;
        if (c->step == STEP_ASK && c->have == 0) { /* the query is still there for another */
                c->server++;
                ask_next(c);
        } else {
                reply(c, answer_failure(c->query + PREFIX, c->end, c->buf + PREFIX));
        }
        return 0;
}

static int on_late(sd_event_source *s, uint64_t usec, void *arg)
{
        (void) s;
        (void) usec;
        (void) conn_free(arg);
        return 0;
}

static void start(struct dnsd *d, int client, uint32_t address)
{
        struct name *from = names_by_address(d->names, address);
        struct conn *c;

        if (!from || from->connections >= DNSD_CONNECTIONS_EACH ||
            !dnsd_has_place(from->account->connections, d->connections, DNSD_CONNECTIONS) ||
            !(c = calloc(1, sizeof *c))) {
                (void) close(client);
                return;
        }
        c->d = d;
        c->account = names_account_hold(from->account);
        c->client = address;
        c->fd = client;
        c->up = -EBADF;
        c->at = &d->open;
        c->next = d->open;
        if (c->next)
                c->next->at = &c->next;
        d->open = c;
        d->connections++;
        from->account->connections++;
        from->connections++;
        if (sd_event_add_io(d->loop, &c->io, client, EPOLLIN, on_client, c) < 0 ||
            sd_event_add_time_relative(d->loop, &c->timer, CLOCK_MONOTONIC, STEP_US, 0, on_late,
                                       c) < 0) {
                (void) conn_free(c);
                return;
        }
        read_next(c);
}

int on_tcp(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct dnsd *d = arg;

        (void) s;
        (void) revents;
        for (int i = 0; i < ACCEPTS; i++) {
                struct sockaddr_in a = { .sin_family = AF_UNSPEC };
                socklen_t size = sizeof a;
                int client =
                        accept4(fd, (struct sockaddr *) &a, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);

                if (client < 0)
                        return 0; /* none, or one that has gone again */
                if (size == sizeof a && a.sin_family == AF_INET)
                        start(d, client, ntohl(a.sin_addr.s_addr));
                else
                        (void) close(client);
        }
        return 0;
}
