/* http.c - see http.h.  Runs in tensorone-api on the loop thread.
 *
 * Theory of operation.  libmicrohttpd (external epoll) shows us one epoll descriptor; when it is
 * readable, or its timeout passes, MHD_run() calls on_access() for each connection with something
 * to do.  A request that has to wait is suspended; http_reply() stores the answer, resumes the
 * connection, and on_access(), called again, queues it.
 *
 * What always holds: a request is suspended or it is libmicrohttpd's turn, never both; it is freed
 * in on_completed() only; the query string is never logged, for it may hold a key. */
#include "control/rest/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "control/rest/http_priv.h"
#include "control/rest/subscribe.h"
#include "control/rest/tickets.h"
#include "model/limits.h"

#define IDLE_TIMEOUT_S    120U
#define CONNECTIONS_MAX   4096U
#define CLUSTER_CONNS_MAX 32U          /* one cluster at api.internal must not shut others out */
#define CONNECTION_BYTES  (192U << 10) /* request line and headers; touched as needed */
#define ANONYMOUS_MAX     (256U << 10) /* body of a request without a key */
#define BODIES_MAX        (256U << 20) /* of all requests together ... */
#define ACCOUNT_BODIES    (32U << 20)  /* ... of those of one account ... */
#define ANONYMOUS_BODIES  (8U << 20)   /* ... and of those without a key, */
#define BODY_SMALL                                                                                 \
        (8U << 10)                    /* but for so much of each: who fills his share with large
                                        * ones does not shut out ordinary ones */
#define DISCARD_MAX_BYTES (64U << 20) /* of a body over the limit, read so that the 413 arrives */

struct http_daemon {
        struct http_server *server;
        struct MHD_Daemon *mhd;
        sd_event_source *io, *timer;
        bool inner;
};

struct http_server {
        sd_event *loop;
        struct plane *plane;
        struct gql_schema *schema;
        struct turns *turns;
        struct subscriptions *subscriptions;
        struct tickets *tickets;
        struct http_daemon outer, inner;
        struct http_request *requests;
        struct http_session *sessions;
        size_t body_bytes; /* held by all requests */
        bool closing;
};

/* ---- the loop ---- */

/* libmicrohttpd has work at once, later, or only when a descriptor says so. */
static void arm(struct http_daemon *d)
{
        MHD_UNSIGNED_LONG_LONG ms;

        if (!d->mhd)
                return;
        if (MHD_get_timeout(d->mhd, &ms) != MHD_YES) {
                (void) sd_event_source_set_enabled(d->timer, SD_EVENT_OFF);
                return;
        }
        (void) sd_event_source_set_time_relative(d->timer, ms * US_PER_MS);
        (void) sd_event_source_set_enabled(d->timer, SD_EVENT_ONESHOT);
}

/* A resumed connection moves only when libmicrohttpd is run again; nothing else wakes it. */
static void kick(struct http_daemon *d)
{
        (void) sd_event_source_set_time(d->timer, 0);
        (void) sd_event_source_set_enabled(d->timer, SD_EVENT_ONESHOT);
}

static void run_daemon(struct http_daemon *d)
{
        (void) MHD_run(d->mhd);
        arm(d);
}

static int on_daemon_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        (void) s;
        (void) fd;
        (void) revents;
        run_daemon(arg);
        return 0;
}

static int on_daemon_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        (void) s;
        (void) usec;
        run_daemon(arg);
        return 0;
}

/* ---- one request ---- */

static struct http_daemon *daemon_of(const struct http_request *q)
{
        return q->inner ? &q->server->inner : &q->server->outer;
}

void request_suspend(struct http_request *q)
{
        if (q->suspended)
                return;
        q->suspended = true;
        MHD_suspend_connection(q->conn);
}

void request_resume(struct http_request *q)
{
        if (!q->suspended)
                return;
        q->suspended = false;
        q->hangup = sd_event_source_disable_unref(q->hangup);
        MHD_resume_connection(q->conn);
        kick(daemon_of(q));
}

static void drop_body(struct http_request *q)
{
        q->server->body_bytes -= q->body.len;
        strbuf_done(&q->body);
}

static struct http_request *request_free(struct http_request *q)
{
        if (!q)
                return NULL;
        if (q->prev)
                q->prev->next = q->next;
        else if (q->server->requests == q)
                q->server->requests = q->next;
        if (q->next)
                q->next->prev = q->prev;
        if (q->end)
                q->end(q->priv);
        plane_audit_end(q->plane, &q->audit, "begun", "nobody waited for the answer");
        q->hangup = sd_event_source_disable_unref(q->hangup);
        if (q->response)
                MHD_destroy_response(q->response);
        drop_body(q);
        free(q->arg);
        free(q);
        return NULL;
}

static struct http_request *request_new(struct http_daemon *d, struct MHD_Connection *conn)
{
        struct http_request *q = calloc(1, sizeof *q);

        if (!q)
                return NULL;
        q->server = d->server;
        q->plane = d->server->plane;
        q->ctx.plane = q->plane;
        q->inner = d->inner;
        q->conn = conn;
        q->next = d->server->requests;
        if (q->next)
                q->next->prev = q;
        d->server->requests = q;
        return q;
}

/* ---- what is told of it ---- */

/* What this request does is told, whatever becomes of it. */
static void begin_audit(struct http_request *q)
{
        AUTO(free) char *operation = NULL;

        if (!q->route || !q->route->audit || q->ctx.who.right == KEY_NONE)
                return;
        operation = str_eq(q->route->audit, "audit.exec")
                            ? str_dup("exec")
                            : str_fmt("%s %s", q->route->method, q->route->path);
        audit_begin(&q->audit, &q->ctx.who, q->route->audit, operation, q->arg);
}

static void handle(struct http_request *q)
{
        plane_audit_enter(q->plane, &q->audit);
        q->route->handle(q);
        plane_audit_leave(q->plane);
}

/* ---- matching ---- */

static bool path_matches(const char *pattern, const char *path, char **ret_arg)
{
        const char *hole = strstr(pattern, "{}");
        size_t head, n;

        if (!hole)
                return str_eq(pattern, path);
        head = (size_t) (hole - pattern);
        if (strncmp(pattern, path, head) != 0)
                return false;
        n = strcspn(path + head, "/");
        if (n == 0 || !str_eq(hole + 2, path + head + n))
                return false;
        *ret_arg = strndup(path + head, n);
        return *ret_arg != NULL;
}

/* The status that refuses the request, or 0 and q->route. */
static unsigned match(struct http_request *q, const char *method, const char *path)
{
        bool known = false;

        for (size_t i = 0; i < http_n_routes; i++) {
                const struct http_route *r = &http_routes[i];

                if ((q->inner && !r->inner) || !path_matches(r->path, path, &q->arg))
                        continue;
                known = true;
                if (str_eq(r->method, method) ||
                    (str_eq(method, "HEAD") && str_eq(r->method, "GET"))) {
                        q->route = r;
                        return 0;
                }
                free(q->arg);
                q->arg = NULL;
        }
        return known ? MHD_HTTP_METHOD_NOT_ALLOWED : MHD_HTTP_NOT_FOUND;
}

static void refuse(struct http_request *q, unsigned status)
{
        if (status == MHD_HTTP_UNAUTHORIZED)
                http_reply_error(
                        q, status,
                        q->bad_ticket || *q->ticket
                                ? "unauthorized: a ticket opens one session, once, within 30 seconds, in its own cluster, from the page that asked for it"
                        : q->bad_key ? "unauthorized: this API key is not valid here"
                                     : "unauthorized: an API key is needed");
        else if (status == MHD_HTTP_FORBIDDEN)
                http_reply_error(q, status, "%s", key_needed[q->route->need]);
        else if (status == MHD_HTTP_NOT_FOUND)
                http_reply_error(q, status, "there is nothing at this path");
        else
                http_reply_error(q, status, "this path does not take that method");
}

/* May the caller use this route at all? */
static unsigned check_right(const struct http_request *q)
{
        if (q->bad_key)
                return MHD_HTTP_UNAUTHORIZED;
        if (*q->ticket && (q->route->handle != handle_exec || !str_eq(q->arg, q->ticket)))
                return MHD_HTTP_UNAUTHORIZED;
        if (q->route->need == KEY_NONE || q->ctx.who.right >= q->route->need)
                return 0;
        return q->ctx.who.right == KEY_NONE ? MHD_HTTP_UNAUTHORIZED : MHD_HTTP_FORBIDDEN;
}

/* ---- libmicrohttpd's callbacks ---- */

static size_t body_limit(const struct http_request *q)
{
        return q->ctx.who.right == KEY_NONE ? ANONYMOUS_MAX : LIMIT_QUERY_BYTES;
}

/* Would @len more bytes be more than what everybody together, or he who asks, may make us hold? */
static bool over_budget(const struct http_request *q, size_t len)
{
        const char *account = q->ctx.who.account; /* "" without a key */
        size_t held = len;

        if (q->server->body_bytes + len > BODIES_MAX)
                return true;
        if (q->body.len + len <= BODY_SMALL)
                return false;
        for (const struct http_request *o = q->server->requests; o; o = o->next)
                if (str_eq(o->ctx.who.account, account))
                        held += o->body.len;
        return held > (*account ? ACCOUNT_BODIES : ANONYMOUS_BODIES);
}

/* Put body bytes away; returns what is left for later. */
static size_t take_body(struct http_request *q, const char *data, size_t len)
{
        if (q->route && q->route->upload && !q->response) {
                size_t took = q->route->upload(q, data, len);

                if (took < len && !q->answered)
                        request_suspend(q);
                return q->answered ? 0 : len - took;
        }
        if (!q->response && !q->no_room) {
                q->too_big = q->too_big || q->body.len + len > body_limit(q);
                q->no_room = !q->too_big && over_budget(q, len);
        }
        if (q->response || q->too_big || q->no_room) {
                q->discarded += len;
                drop_body(q);
                return 0;
        }
        strbuf_add(&q->body, data, len);
        q->server->body_bytes += len;
        return 0;
}

static enum MHD_Result queue(struct http_request *q)
{
        return MHD_queue_response(q->conn, q->status, q->response);
}

static enum MHD_Result first_call(struct http_daemon *d, struct MHD_Connection *conn,
                                  const char *url, const char *method, void **con_cls)
{
        struct http_request *q = request_new(d, conn);
        unsigned status;

        if (!q)
                return MHD_NO;
        *con_cls = q;
        request_identify(q);
        status = match(q, method, url);
        if (status == 0)
                status = check_right(q);
        begin_audit(q);
        if (status)
                refuse(q, status);
        else if (q->route->upload)
                (void) q->route->upload(q, NULL, 0); /* may refuse before the body comes */
        /* a streamed body is not wanted any more: answer before it; anything else is read first,
         * for many clients do not look at an answer before they have sent all */
        if (q->response && q->route && q->route->upload)
                return queue(q);
        return MHD_YES;
}

static enum MHD_Result on_access(void *arg, struct MHD_Connection *conn, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *len, void **con_cls)
{
        struct http_request *q = *con_cls;

        (void) version;
        if (!q)
                return first_call(arg, conn, url, method, con_cls);
        if (*len > 0) {
                *len = take_body(q, data, *len);
                if (q->discarded > DISCARD_MAX_BYTES)
                        return MHD_NO;
                return MHD_YES;
        }
        if (!q->started && !q->response) {
                q->started = true;
                q->eof = true;
                if (q->too_big)
                        http_reply_error(q, MHD_HTTP_CONTENT_TOO_LARGE,
                                         "the request body is over %zu bytes", body_limit(q));
                else if (q->no_room)
                        http_reply_error(q, MHD_HTTP_SERVICE_UNAVAILABLE,
                                         "too many large requests at once; try again%s",
                                         q->ctx.who.right == KEY_NONE ? ", or with an API key"
                                                                      : "");
                else if (q->body.failed)
                        http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                else
                        handle(q);
        }
        if (q->response)
                return queue(q);
        request_suspend(q);
        return MHD_YES;
}

static void on_completed(void *arg, struct MHD_Connection *conn, void **con_cls,
                         enum MHD_RequestTerminationCode code)
{
        (void) arg;
        (void) conn;
        (void) code;
        *con_cls = request_free(*con_cls);
}

static void on_mhd_log(void *arg, const char *fmt, va_list ap)
{
        char line[256];

        (void) arg;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void) vsnprintf(line, sizeof line, fmt, ap);
#pragma GCC diagnostic pop
        log_debug("http: %s", line);
}

/* ---- the server ---- */

/* A follower holds four descriptors; the store, the engine and the rest need some too. */
static unsigned connections_max(void)
{
        struct rlimit r;
        rlim_t n = getrlimit(RLIMIT_NOFILE, &r) < 0 ? 1024 : r.rlim_cur;

        return n / 4 < CONNECTIONS_MAX ? (unsigned) (n / 4) : CONNECTIONS_MAX;
}

/* A client whose machine is gone says nothing for ever; what it follows or runs here shall not live
 * as long.  Connections have it from their listener. */
static int watch_peers(int fd, struct err *e)
{
        static const struct {
                int level, option, value;
        } o[] = {
                { SOL_SOCKET, SO_KEEPALIVE, 1 },
                { IPPROTO_TCP, TCP_KEEPIDLE, 60 },
                { IPPROTO_TCP, TCP_KEEPINTVL, 15 },
                { IPPROTO_TCP, TCP_KEEPCNT, 4 },
        };

        for (size_t i = 0; i < NELEM(o); i++)
                if (setsockopt(fd, o[i].level, o[i].option, &o[i].value, sizeof o[i].value) < 0)
                        return err_errno(e, -errno, "listener");
        return 0;
}

static int start(struct http_daemon *d, int fd, struct err *e)
{
        const union MHD_DaemonInfo *info;
        int r = watch_peers(fd, e);

        if (r < 0) {
                (void) fd_close(fd);
                return r;
        }
        d->mhd = MHD_start_daemon(
                MHD_USE_EPOLL | MHD_USE_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0,
                NULL, NULL, on_access, d, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
                MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_LIMIT,
                connections_max(), MHD_OPTION_PER_IP_CONNECTION_LIMIT,
                d->inner ? CLUSTER_CONNS_MAX : 0U, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                (size_t) CONNECTION_BYTES, MHD_OPTION_END);
        if (!d->mhd) {
                (void) fd_close(fd);
                return err_set(e, -EIO, "the HTTP server does not start");
        }
        info = MHD_get_daemon_info(d->mhd, MHD_DAEMON_INFO_EPOLL_FD);
        r = sd_event_add_io(d->server->loop, &d->io, info->epoll_fd, EPOLLIN, on_daemon_io, d);
        if (r >= 0)
                r = sd_event_add_time_relative(d->server->loop, &d->timer, CLOCK_MONOTONIC, 0, 1,
                                               on_daemon_timer, d);
        return r < 0 ? err_errno(e, r, "event source") : 0;
}

static void stop(struct http_daemon *d)
{
        struct http_request *next;

        if (!d->mhd)
                return;
        /* waiting requests get an answer, waiting streams their end */
        for (struct http_request *q = d->server->requests; q; q = next) {
                next = q->next;
                if (q->inner != d->inner)
                        continue;
                if (!q->answered && q->started)
                        http_reply_error(q, MHD_HTTP_SERVICE_UNAVAILABLE, "the API is stopping");
                request_resume(q);
        }
        (void) MHD_run(d->mhd);
        d->io = sd_event_source_disable_unref(d->io);
        d->timer = sd_event_source_disable_unref(d->timer);
        MHD_stop_daemon(d->mhd); /* closes the listener, ends what is left */
        d->mhd = NULL;
}

int http_new(const struct http_conf *conf, struct http_server **ret, struct err *e)
{
        AUTO(http_free) struct http_server *s = calloc(1, sizeof *s);
        int r;

        if (!s) {
                (void) fd_close(conf->listen_fd);
                return err_set(e, -ENOMEM, "out of memory");
        }
        s->loop = conf->loop;
        s->plane = conf->plane;
        s->outer.server = s->inner.server = s;
        s->inner.inner = true;
        s->subscriptions = subscriptions_new();
        s->tickets = tickets_new();
        r = s->subscriptions && s->tickets ? resolve_schema_new(&s->schema, e)
                                           : err_set(e, -ENOMEM, "out of memory");
        if (r >= 0)
                r = turns_new(s->loop, NULL, &s->turns, e);
        if (r < 0) {
                (void) fd_close(conf->listen_fd);
                return r;
        }
        r = start(&s->outer, conf->listen_fd, e);
        if (r < 0)
                return r;
        *ret = TAKE(s);
        return 0;
}

struct http_server *http_free(struct http_server *s)
{
        if (!s)
                return NULL;
        s->closing = true;
        while (s->sessions)
                s->sessions->end(s->sessions);
        stop(&s->inner);
        stop(&s->outer);
        s->turns = turns_free(s->turns);
        s->subscriptions = subscriptions_free(s->subscriptions);
        s->tickets = tickets_free(s->tickets);
        s->schema = gql_schema_free(s->schema);
        free(s);
        return NULL;
}

void http_set_inner(struct http_server *s, int fd)
{
        struct err e = { 0 };

        stop(&s->inner);
        if (start(&s->inner, fd, &e) < 0)
                log_error("api.internal: %s", e.msg);
}

bool http_closing(const struct http_server *s)
{
        return s->closing;
}

struct gql_schema *http_schema(const struct http_server *s)
{
        return s->schema;
}

struct turns *http_turns(const struct http_server *s)
{
        return s->turns;
}

struct subscriptions *http_subscriptions(const struct http_server *s)
{
        return s->subscriptions;
}

struct tickets *http_tickets(const struct http_server *s)
{
        return s->tickets;
}

void http_session_add(struct http_server *s, struct http_session *x)
{
        x->prev = NULL;
        x->next = s->sessions;
        if (x->next)
                x->next->prev = x;
        s->sessions = x;
}

void http_keys_removed(struct http_server *s)
{
        for (struct http_session *x = s->sessions, *next; x; x = next) {
                next = x->next;
                if (!str_empty(x->key) && !accounts_key_account(plane_accounts(s->plane), x->key))
                        x->key_is_gone(x);
        }
}

void http_session_remove(struct http_server *s, struct http_session *x)
{
        if (s->outer.mhd) /* its connection is given back by the next run */
                kick(&s->outer);
        if (x->prev)
                x->prev->next = x->next;
        else
                s->sessions = x->next;
        if (x->next)
                x->next->prev = x->prev;
}
