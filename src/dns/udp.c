/* udp.c - queries in one datagram: answered at once, or passed on to a server and back.  vmm-dns.
 *
 * Each query that is passed on has a socket of its own, connected to its server, and so a port that
 * the kernel picked at random and a number of ours that it picked as well: who wants to forge an
 * answer has to guess both, and the question.  The answer goes back as it came, but for its number. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "dns/dnsd.h"

#define DATAGRAMS_A_TURN 64

struct query {
        struct dnsd *d;
        struct account *account;  /* held: whose it is, whoever has the address by now */
        struct query **at, *next; /* in d->asked */
        struct sockaddr_in client;
        uint8_t client_id[2];
        int fd;
        size_t server; /* the one that was asked last */
        sd_event_source *io, *timer;
        size_t len, end; /* of the message; of its question */
        uint8_t msg[];   /* as it goes out */
};

/* The cluster that asked; NULL: it has gone, and its address may be another's. */
static struct name *asker(const struct query *q)
{
        struct name *from = names_by_address(q->d->names, ntohl(q->client.sin_addr.s_addr));

        return from && from->account == q->account ? from : NULL;
}

static struct query *query_free(struct query *q)
{
        struct name *from;

        if (!q)
                return NULL;
        from = asker(q);
        if (from && from->queries) /* one of its account that has come since has none of these */
                from->queries--;
        q->account->queries--;
        names_account_leave(q->d->names, q->account);
        q->d->queries--;
        *q->at = q->next;
        if (q->next)
                q->next->at = q->at;
        q->io = sd_event_source_disable_unref(q->io);
        q->timer = sd_event_source_disable_unref(q->timer);
        q->fd = fd_close(q->fd);
        free(q);
        return NULL;
}

void udp_end(struct dnsd *d)
{
        while (d->asked)
                (void) query_free(d->asked);
}

static void reply(struct query *q, uint8_t *answer, size_t len)
{
        if (!asker(q))
                return;
        memcpy(answer, q->client_id, sizeof q->client_id);
        (void) sendto(q->d->udp, answer, len, MSG_DONTWAIT, (const struct sockaddr *) &q->client,
                      sizeof q->client);
}

static int on_answer(sd_event_source *s, int fd, uint32_t revents, void *arg);

static void give_up(struct query *q)
{
        uint8_t answer[DNS_HEADER + DNS_NAME_TEXT + 8];

        reply(q, answer, answer_failure(q->msg, q->end, answer));
        (void) query_free(q);
}

/* The next server is asked; none is left: the client hears so. */
static void ask_next(struct query *q)
{
        const struct sockaddr_storage *to;

        for (; (to = names_server(q->d->names, q->server)); q->server++) {
                q->io = sd_event_source_disable_unref(q->io);
                q->fd = fd_close(q->fd);
                q->fd = socket(to->ss_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                if (q->fd < 0 || connect(q->fd, (const struct sockaddr *) to, server_len(to)) < 0 ||
                    send(q->fd, q->msg, q->len, 0) < 0)
                        continue;
                if (sd_event_add_io(q->d->loop, &q->io, q->fd, EPOLLIN, on_answer, q) < 0 ||
                    sd_event_source_set_time_relative(q->timer, DNSD_TRY_US) < 0 ||
                    sd_event_source_set_enabled(q->timer, SD_EVENT_ONESHOT) < 0)
                        continue;
                return;
        }
        give_up(q);
}

static int on_answer(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        uint8_t buf[DNS_MESSAGE];
        struct query *q = arg;
        ssize_t n = recv(fd, buf, sizeof buf, 0);

        (void) s;
        (void) revents;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0) { /* nobody is there */
                q->server++;
                ask_next(q);
                return 0;
        }
        if (!dns_answers(buf, (size_t) n, q->msg, q->end))
                return 0; /* forged, or late */
        reply(q, buf, (size_t) n);
        (void) query_free(q);
        return 0;
}

static int on_silence(sd_event_source *s, uint64_t usec, void *arg)
{
        struct query *q = arg;

        (void) s;
        (void) usec;
        q->server++;
        ask_next(q);
        return 0;
}

/* Too many under way, or too fast: not answered, as if the datagram had been lost, which a resolver knows how to
 * live with. */
static void forward(struct dnsd *d, struct name *from, const struct sockaddr_in *client,
                    const uint8_t *msg, size_t len, size_t end)
{
        struct query *q;

        if (from->queries >= DNSD_QUERIES_EACH ||
            !dnsd_has_place(from->account->queries, d->queries, DNSD_QUERIES) ||
            !dnsd_may_ask(from->account, clock_mono_us(), 1))
                return;
        q = calloc(1, sizeof *q + len);
        if (!q)
                return;
        q->d = d;
        q->account = names_account_hold(from->account);
        q->client = *client;
        q->fd = -EBADF;
        q->len = len;
        q->end = end;
        q->at = &d->asked;
        q->next = d->asked;
        if (q->next)
                q->next->at = &q->next;
        d->asked = q;
        memcpy(q->msg, msg, len);
        memcpy(q->client_id, msg, sizeof q->client_id);
        d->queries++;
        from->account->queries++;
        from->queries++;
        if (getrandom(q->msg, sizeof q->client_id, 0) != sizeof q->client_id ||
            sd_event_add_time_relative(d->loop, &q->timer, CLOCK_MONOTONIC, DNSD_TRY_US, 0,
                                       on_silence, q) < 0) {
                (void) query_free(q);
                return;
        }
        ask_next(q);
}

static void on_datagram(struct dnsd *d, const struct sockaddr_in *client, const uint8_t *msg,
                        size_t len)
{
        struct name *from = names_by_address(d->names, ntohl(client->sin_addr.s_addr));
        uint8_t answer[DNS_UDP_PLAIN];
        struct dns_question q;
        int n;

        if (!from)
                return;
        n = answer_query(d->names, from, msg, len, answer, sizeof answer, &q);
        if (n > 0)
                (void) sendto(d->udp, answer, (size_t) n, MSG_DONTWAIT,
                              (const struct sockaddr *) client, sizeof *client);
        else if (n == 0)
                forward(d, from, client, msg, len, q.end);
}

int on_udp(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        uint8_t buf[DNS_MESSAGE];
        struct dnsd *d = arg;

        (void) s;
        (void) revents;
        for (int i = 0; i < DATAGRAMS_A_TURN; i++) {
                struct sockaddr_in client = { .sin_family = AF_UNSPEC };
                socklen_t size = sizeof client;
                ssize_t n = recvfrom(fd, buf, sizeof buf, MSG_DONTWAIT, (struct sockaddr *) &client,
                                     &size);

                if (n <
                    0) /* whatever it is, the next one may come: an error here would end the watch */
                        return 0;
                if (size == sizeof client && client.sin_family == AF_INET)
                        on_datagram(d, &client, buf, (size_t) n);
        }
        return 0;
}
