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

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "control/resolve/resolve.h"
#include "model/limits.h"

#define IDLE_TIMEOUT_S    120U
#define CONNECTIONS_MAX   4096U
#define CONNECTION_BYTES  (192U << 10) /* request line and headers; touched as needed */
#define ANONYMOUS_MAX     (256U << 10) /* body of a request without a key */
#define BODIES_MAX        (256U << 20) /* of all requests together */
#define DISCARD_MAX_BYTES (64U << 20)  /* of a body over the limit, read so that the 413 arrives */
#define STREAM_BLOCK      (64U << 10)

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

static void suspend(struct http_request *q)
{
        if (q->suspended)
                return;
        q->suspended = true;
        MHD_suspend_connection(q->conn);
}

static void resume(struct http_request *q)
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

/* ---- who asks ---- */

static bool from_cluster(const struct http_request *q, const struct caller *who)
{
        const union MHD_ConnectionInfo *info =
                MHD_get_connection_info(q->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
        const struct cluster *c = plane_cluster(q->plane, who, who->cluster);
        const struct sockaddr *sa = info ? info->client_addr : NULL;
        struct sockaddr_in in;
        char text[INET_ADDRSTRLEN];

        if (!c || !c->address || !sa || sa->sa_family != AF_INET)
                return false;
        memcpy(&in, sa, sizeof in);
        return inet_ntop(AF_INET, &in.sin_addr, text, sizeof text) && str_eq(text, c->address);
}

static const char *key_of(const struct http_request *q)
{
        const char *h = http_header(q, "Authorization");

        if (str_empty(h))
                return http_param(q, "api_key");
        return strncasecmp(h, "Bearer ", 7) == 0 ? h + 7 + strspn(h + 7, " ") : h;
}

static void identify(struct http_request *q)
{
        const char *key = key_of(q);
        struct caller who;

        if (!str_empty(key)) {
                q->bad_key = !accounts_check(plane_accounts(q->plane), key, &who);
                if (!q->bad_key)
                        q->ctx.who = who;
        }
        /* on the cluster network only the cluster's own key, from its own address, counts */
        if (q->inner && (str_empty(key) || q->bad_key || q->ctx.who.right != KEY_CLUSTER ||
                         !from_cluster(q, &q->ctx.who)))
                q->bad_key = true;
        if (q->bad_key)
                q->ctx.who = (struct caller){ 0 };
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
                http_reply_error(q, status,
                                 q->bad_key ? "unauthorized: this API key is not valid here"
                                            : "unauthorized: an API key is needed");
        else if (status == MHD_HTTP_FORBIDDEN)
                http_reply_error(q, status, "forbidden: this API key may not do that");
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
        if (q->route->need == KEY_NONE || q->ctx.who.right >= q->route->need)
                return 0;
        return q->ctx.who.right == KEY_NONE ? MHD_HTTP_UNAUTHORIZED : MHD_HTTP_FORBIDDEN;
}

/* ---- libmicrohttpd's callbacks ---- */

static size_t body_limit(const struct http_request *q)
{
        return q->ctx.who.right == KEY_NONE ? ANONYMOUS_MAX : LIMIT_QUERY_BYTES;
}

/* Put body bytes away; returns what is left for later. */
static size_t take_body(struct http_request *q, const char *data, size_t len)
{
        if (q->route && q->route->upload && !q->response) {
                size_t took = q->route->upload(q, data, len);

                if (took < len && !q->answered)
                        suspend(q);
                return q->answered ? 0 : len - took;
        }
        if (q->response || q->too_big || q->body.len + len > body_limit(q) ||
            q->server->body_bytes + len > BODIES_MAX) {
                q->too_big = q->too_big || !q->response;
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
        identify(q);
        status = match(q, method, url);
        if (status == 0)
                status = check_right(q);
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
                else if (q->body.failed)
                        http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                else
                        q->route->handle(q);
        }
        if (q->response)
                return queue(q);
        suspend(q);
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

/* ---- parameters ---- */

const char *http_param(const struct http_request *q, const char *name)
{
        return MHD_lookup_connection_value(q->conn, MHD_GET_ARGUMENT_KIND, name);
}

const char *http_header(const struct http_request *q, const char *name)
{
        return MHD_lookup_connection_value(q->conn, MHD_HEADER_KIND, name);
}

bool http_param_true(const struct http_request *q, const char *name)
{
        const char *v = http_param(q, name);

        return str_eq(v, "1") || str_eq(v, "true") || str_eq(v, "yes");
}

struct collect {
        const char *name;
        char **v;
        int r;
};

static enum MHD_Result on_param(void *arg, enum MHD_ValueKind kind, const char *key,
                                const char *value)
{
        struct collect *c = arg;

        (void) kind;
        if (str_eq(key, c->name))
                c->r = strv_push(&c->v, value ? value : "");
        return c->r < 0 ? MHD_NO : MHD_YES;
}

int http_params(const struct http_request *q, const char *name, char ***ret)
{
        struct collect c = { .name = name };

        (void) MHD_get_connection_values(q->conn, MHD_GET_ARGUMENT_KIND, on_param, &c);
        if (c.r < 0)
                (void) strv_free(c.v);
        else
                *ret = c.v;
        return c.r;
}

/* ---- answers ---- */

void http_reply(struct http_request *q, unsigned status, struct MHD_Response *response)
{
        if (q->answered || !response) {
                if (response)
                        MHD_destroy_response(response);
                return;
        }
        q->answered = true;
        q->status = status;
        q->response = response;
        resume(q);
}

void http_reply_buf(struct http_request *q, unsigned status, const char *type, struct strbuf *b)
{
        size_t len = b->len;
        char *text = strbuf_take(b);
        struct MHD_Response *r =
                text ? MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE) : NULL;

        if (!r) {
                static const char sorry[] =
                        "{\"error\":\"out of memory\",\"message\":\"out of memory\"}";

                free(text);
                status = MHD_HTTP_INTERNAL_SERVER_ERROR;
                r = MHD_create_response_from_buffer(sizeof sorry - 1, (void *) (uintptr_t) sorry,
                                                    MHD_RESPMEM_PERSISTENT);
        }
        if (r)
                (void) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
        if (r && status == MHD_HTTP_UNAUTHORIZED)
                (void) MHD_add_response_header(r, MHD_HTTP_HEADER_WWW_AUTHENTICATE, "Bearer");
        http_reply(q, status, r);
}

void http_reply_json(struct http_request *q, unsigned status, json_t *j)
{
        AUTO(json_put) json_t *own = j;
        struct strbuf b = { 0 };
        AUTO(free) char *text = own ? jsonx_dump(own) : NULL;

        if (text)
                strbuf_str(&b, text);
        else
                b.failed = true;
        http_reply_buf(q, status, "application/json", &b);
}

static const char *error_word(unsigned status)
{
        static const struct {
                unsigned status;
                const char *word;
        } words[] = {
                { 400, "bad request" }, { 401, "unauthorized" },       { 403, "forbidden" },
                { 404, "not found" },   { 405, "method not allowed" }, { 409, "conflict" },
                { 413, "too large" },   { 503, "unavailable" },
        };

        for (size_t i = 0; i < NELEM(words); i++)
                if (words[i].status == status)
                        return words[i].word;
        return "error";
}

void http_reply_error(struct http_request *q, unsigned status, const char *fmt, ...)
{
        struct strbuf b = { 0 };
        AUTO(free) char *text = NULL;
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(&b, fmt, ap);
        va_end(ap);
        text = strbuf_take(&b);
        http_reply_json(q, status,
                        json_pack("{s:s, s:s, s:[{s:s}]}", "error", error_word(status), "message",
                                  text ? text : "", "errors", "message", text ? text : ""));
}

unsigned http_status_of(int r)
{
        switch (r) {
        case -ENOENT:
                return MHD_HTTP_NOT_FOUND;
        case -EACCES:
                return MHD_HTTP_UNAUTHORIZED;
        case -EPERM:
                return MHD_HTTP_FORBIDDEN;
        case -EINVAL:
        case -ERANGE:
                return MHD_HTTP_BAD_REQUEST;
        case -E2BIG:
        case -EFBIG:
                return MHD_HTTP_CONTENT_TOO_LARGE;
        case -EEXIST:
        case -EBUSY:
        case -EPROTO:
                return MHD_HTTP_CONFLICT;
        case -ENOSPC:
                return MHD_HTTP_INSUFFICIENT_STORAGE;
        case -ENOTCONN:
        case -EAGAIN:
                return MHD_HTTP_SERVICE_UNAVAILABLE;
        case -ETIMEDOUT:
                return MHD_HTTP_GATEWAY_TIMEOUT;
        case -EOPNOTSUPP:
                return MHD_HTTP_NOT_IMPLEMENTED;
        default:
                return MHD_HTTP_INTERNAL_SERVER_ERROR;
        }
}

/* ---- streams ---- */

struct stream {
        struct http_request *q;
        ssize_t (*read)(void *priv, char *buf, size_t max);
        bool gone;
};

/* The client has hung up while there was nothing to send. */
static int on_hangup(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct stream *st = arg;

        (void) s;
        (void) fd;
        (void) revents;
        st->gone = true;
        resume(st->q);
        return 0;
}

static ssize_t on_stream(void *arg, uint64_t pos, char *buf, size_t max)
{
        struct stream *st = arg;
        struct http_request *q = st->q;
        const union MHD_ConnectionInfo *info;
        ssize_t n = st->gone || q->server->closing ? -1 : st->read(q->priv, buf, max);

        (void) pos;
        /* also for a client that has gone: libmicrohttpd then finds out by itself and closes.
         * (Ended with an error, a connection that was suspended keeps its socket until every older
         * one has ended.) */
        if (n < 0)
                return MHD_CONTENT_READER_END_OF_STREAM;
        if (n > 0)
                return n;
        suspend(q);
        info = MHD_get_connection_info(q->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (info && !q->hangup)
                (void) sd_event_add_io(q->server->loop, &q->hangup, info->connect_fd, EPOLLRDHUP,
                                       on_hangup, st);
        return 0;
}

void http_reply_stream(struct http_request *q, const char *type,
                       ssize_t (*read)(void *priv, char *buf, size_t max))
{
        struct stream *st = calloc(1, sizeof *st);
        struct MHD_Response *r = NULL;

        if (st) {
                *st = (struct stream){ q, read, false };
                r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, on_stream, st,
                                                      free);
        }
        if (!r) {
                free(st);
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        (void) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
        (void) MHD_add_response_header(r, "X-Accel-Buffering", "no");
        http_reply(q, MHD_HTTP_OK, r);
}

void http_stream_more(struct http_request *q)
{
        if (q->answered)
                resume(q);
}

void http_upload_more(struct http_request *q)
{
        if (!q->answered)
                resume(q);
}

/* ---- the server ---- */

/* A follower holds four descriptors; the store, the engine and the rest need some too. */
static unsigned connections_max(void)
{
        struct rlimit r;
        rlim_t n = getrlimit(RLIMIT_NOFILE, &r) < 0 ? 1024 : r.rlim_cur;

        return n / 4 < CONNECTIONS_MAX ? (unsigned) (n / 4) : CONNECTIONS_MAX;
}

static int start(struct http_daemon *d, int fd, struct err *e)
{
        const union MHD_DaemonInfo *info;
        int r;

        d->mhd = MHD_start_daemon(
                MHD_USE_EPOLL | MHD_USE_SUSPEND_RESUME | MHD_ALLOW_UPGRADE | MHD_USE_ERROR_LOG, 0,
                NULL, NULL, on_access, d, MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, NULL,
                MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_LIMIT,
                connections_max(), MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_BYTES,
                MHD_OPTION_END);
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
                resume(q);
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
        r = resolve_schema_new(&s->schema, e);
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

struct gql_schema *http_schema(const struct http_server *s)
{
        return s->schema;
}

void http_session_add(struct http_server *s, struct http_session *x)
{
        x->prev = NULL;
        x->next = s->sessions;
        if (x->next)
                x->next->prev = x;
        s->sessions = x;
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
