/* unit_ready.c - whether what a cluster has declared answers.  Engine process, loop thread.
 *
 * A cluster that runs is ready once each of its declared ports has taken a connection from the host, by IPv4 or
 * IPv6; one that declares none is ready when it runs.  Nothing is said or read on these connections.  One port
 * is asked at a time, first soon, then less and less often; once all have answered, none is asked again until
 * the first process is another one.  The row keeps it, so an engine that starts again asks only who was not.
 *
 * The port that its readinessPath names is asked for that path, too: one GET is written, and of what comes back
 * twelve bytes are read, in which a status has to stand.  Whoever answers is hostile: nothing else of it is ever
 * read, it has five seconds for all of that, and no answer leads anywhere but to the next question. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/fleet/unit.h"
#include "model/plan.h"
#include "model/ready.h"

#define FIRST_US   (5 * US_PER_MS)
#define SOON_US    (250 * US_PER_MS)
#define SOON_UNTIL (60 * US_PER_S) /* who has not answered by then is asked each second */
#define LATER_US   (1 * US_PER_S)
#define ANSWER_US  (1 * US_PER_S) /* for one connection, */
#define HTTP_US    (5 * US_PER_S) /* and for the answer on it */

struct unit_ready {
        struct unit *unit;
        struct plan_port port[LIMIT_PORTS];
        size_t n, at; /* those before `at` have answered */
        uint64_t since_us, delay_us;
        bool v6;    /* the next connection is by IPv6 */
        int fd;     /* that is being made, */
        bool said;  /* or on which the path was asked for, */
        size_t got; /* and so much of the answer is here */
        char answer[READY_ANSWER_BYTES];
        sd_event_source *hears, *timer;
};

static void hang_up(struct unit_ready *w)
{
        w->hears = sd_event_source_disable_unref(w->hears);
        w->fd = fd_close(w->fd);
        w->said = false;
        w->got = 0;
}

void unit_ready_forget(struct unit *u)
{
        struct unit_ready *w = TAKE(u->asking);

        if (!w)
                return;
        hang_up(w);
        sd_event_source_disable_unref(w->timer);
        free(w);
}

void unit_ready_end(struct unit *u)
{
        unit_ready_forget(u);
        u->row.ready = false;
}

static void ask(struct unit_ready *w);

static int on_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        (void) s;
        (void) usec;
        ask(arg);
        return 0;
}

/* The next question, unless there is an answer before. */
static void ask_in(struct unit_ready *w, uint64_t us)
{
        const uint64_t due = clock_mono_us() + us;
        int r = w->timer ? sd_event_source_set_time(w->timer, due)
                         : sd_event_add_time(w->unit->fleet->spec.loop, &w->timer, CLOCK_MONOTONIC,
                                             due, us / 8, on_timer, w);

        if (r >= 0)
                r = sd_event_source_set_enabled(w->timer, SD_EVENT_ONESHOT);
        if (r < 0)
                log_error("cluster %s: whether it is ready cannot be found out: %s",
                          w->unit->row.cluster, strerror(-r));
}

static void refused(struct unit_ready *w)
{
        const uint64_t now = clock_mono_us();
        uint64_t delay = w->delay_us;

        hang_up(w);
        w->v6 = !w->v6 && *w->unit->address6;
        w->delay_us = delay * 2 < SOON_US ? delay * 2 : SOON_US;
        ask_in(w, now - w->since_us > SOON_UNTIL ? LATER_US : delay);
}

static void answered(struct unit_ready *w)
{
        struct unit *u = w->unit;

        hang_up(w);
        w->at++;
        w->v6 = false;
        if (w->at < w->n) {
                ask_in(w, 0); /* after whatever else waits */
                return;
        }
        unit_ready_forget(u);
        u->row.ready = true;
        (void) unit_save(u, false);
        unit_report(u);
}

/* A new socket has room for all of it. */
static int say(const struct unit_ready *w, const struct ready_path *p)
{
        AUTO(free)
        char *get = str_fmt("GET %s HTTP/1.1\r\nHost: localhost:%u\r\n"
                            "User-Agent: hypervisor-vmm (readiness)\r\n"
                            "Accept: */*\r\nConnection: close\r\n\r\n",
                            p->path, p->port);
        const size_t len = get ? strlen(get) : 0;
        ssize_t n = get ? send(w->fd, get, len, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;

        return n >= 0 && (size_t) n == len ? 0 : -EIO;
}

static void ask_path(struct unit_ready *w, const struct ready_path *p)
{
        w->said = say(w, p) >= 0 && sd_event_source_set_io_events(w->hears, EPOLLIN) >= 0;
        if (w->said)
                ask_in(w, HTTP_US);
        else
                refused(w);
}

/* A few bytes at a time, if it likes. */
static void hear(struct unit_ready *w)
{
        ssize_t n = recv(w->fd, w->answer + w->got, sizeof w->answer - w->got, MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n > 0)
                w->got += (size_t) n;
        if (n > 0 && w->got < sizeof w->answer)
                return;
        if (n > 0 && ready_answer(w->answer))
                answered(w);
        else
                refused(w);
}

static void connected(struct unit_ready *w)
{
        const struct plan *plan = &w->unit->plan; /* which may have been changed meanwhile */
        struct ready_path path = { .port = 0 };

        (void) ready_path_parse(plan->readiness_path, plan->ports, &path, NULL);
        if (path.port == w->port[w->at].private_port)
                ask_path(w, &path);
        else
                answered(w);
}

static int on_answer(sd_event_source *s, int fd, uint32_t events, void *arg)
{
        struct unit_ready *w = arg;
        int why = 0;
        socklen_t len = sizeof why;

        (void) s;
        (void) events;
        if (w->said)
                hear(w);
        else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &len) < 0 || why != 0)
                refused(w);
        else
                connected(w);
        return 0;
}

/* 0: there, or -EINPROGRESS and others. */
static int begin_connect(struct unit_ready *w)
{
        const uint16_t port = htons((uint16_t) w->port[w->at].private_port);
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = port };
        struct sockaddr_in6 to6 = { .sin6_family = AF_INET6, .sin6_port = port };

        w->fd = socket(w->v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (w->fd < 0)
                return -errno;
        if (inet_pton(w->v6 ? AF_INET6 : AF_INET, w->v6 ? w->unit->address6 : w->unit->address,
                      w->v6 ? (void *) &to6.sin6_addr : &to.sin_addr) != 1)
                return -EINVAL;
        return connect(w->fd,
                       w->v6 ? (const struct sockaddr *) &to6 : (const struct sockaddr *) &to,
                       w->v6 ? sizeof to6 : sizeof to) < 0
                       ? -errno
                       : 0;
}

static void ask(struct unit_ready *w)
{
        int r;

        if (w->fd >= 0) { /* no answer in time */
                refused(w);
                return;
        }
        r = begin_connect(w);
        if (r >= 0 || r == -EINPROGRESS) /* one that is there already is told of at once, too */
                r = sd_event_add_io(w->unit->fleet->spec.loop, &w->hears, w->fd, EPOLLOUT,
                                    on_answer, w);
        if (r < 0)
                refused(w);
        else
                ask_in(w, ANSWER_US);
}

void unit_ready_begin(struct unit *u)
{
        struct unit_ready *w;
        int n;

        unit_ready_forget(u);
        if (u->row.ready)
                return;
        w = calloc(1, sizeof *w);
        n = w ? plan_ports(u->plan.ports, w->port, NELEM(w->port), NULL) : -ENOMEM;
        if (n <= 0) {
                free(w);
                u->row.ready = n != -ENOMEM; /* a plan that cannot be read declares none */
                return;
        }
        w->unit = u;
        w->n = (size_t) n;
        w->fd = -EBADF;
        w->since_us = clock_mono_us();
        w->delay_us = FIRST_US * 2;
        u->asking = w;
        ask_in(w, FIRST_US);
}
