/* reply.c - a request's parameters and its answers: JSON, errors, streams.  Runs in tensorone-api on
 * the loop thread. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/jsonx.h"
#include "control/graphql/out.h"
#include "control/rest/http_priv.h"

#define STREAM_BLOCK (64U << 10)

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
        plane_audit_end(q->plane, &q->audit, status < MHD_HTTP_BAD_REQUEST ? "done" : "refused",
                        NULL);
        q->status = status;
        q->response = response;
        request_resume(q);
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
        if (r && status == MHD_HTTP_SERVICE_UNAVAILABLE) /* a budget is full, the engine is away */
                (void) MHD_add_response_header(r, MHD_HTTP_HEADER_RETRY_AFTER, "1");
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

/* The text may quote what a client sent, or a piece of it that ends within a character: what is not
 * UTF-8 shows as such. */
void http_reply_error(struct http_request *q, unsigned status, const char *fmt, ...)
{
        struct strbuf b = { 0 }, out = { 0 };
        AUTO(free) char *text = NULL;
        va_list ap;

        va_start(ap, fmt);
        strbuf_vfmt(&b, fmt, ap);
        va_end(ap);
        text = strbuf_take(&b);
        if (!q->answered) /* what is wrong with a body may quote it, and it may hold a password */
                plane_audit_end(q->plane, &q->audit, "refused",
                                text && str_after(text, "not JSON") ? "the body is not JSON"
                                                                    : text);
        strbuf_fmt(&out, "{\"error\":\"%s\",\"message\":", error_word(status));
        out_str(&out, text ? text : "", text ? strlen(text) : 0);
        strbuf_str(&out, ",\"errors\":[{\"message\":");
        out_str(&out, text ? text : "", text ? strlen(text) : 0);
        strbuf_str(&out, "}]}");
        http_reply_buf(q, status, "application/json", &out);
}

/* An answer that waits for the disk. */
struct later {
        struct http_request *q;
        unsigned status;
        json_t *answer;
};

static void on_fence(int r, void *arg)
{
        struct later *l = arg;
        struct strbuf none = { 0 };

        if (l->q) {
                l->q->end = NULL;
                if (r < 0)
                        http_reply_error(l->q, MHD_HTTP_INTERNAL_SERVER_ERROR,
                                         "the change could not be written down and was not made");
                else if (l->answer)
                        http_reply_json(l->q, l->status, json_incref(l->answer));
                else
                        http_reply_buf(l->q, l->status, "application/json", &none);
        }
        json_decref(l->answer);
        free(l);
}

static void on_end(void *priv)
{
        ((struct later *) priv)->q = NULL;
}

void http_reply_durable(struct http_request *q, unsigned status, json_t *answer)
{
        struct later *l = calloc(1, sizeof *l);

        if (!l) {
                json_decref(answer);
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        *l = (struct later){ q, status, answer };
        q->priv = l;
        q->end = on_end;
        plane_fence(q->plane, on_fence, l);
}

json_t *http_body_json(const struct http_request *q, struct err *e)
{
        json_t *j = jsonx_parse(q->body.s ? q->body.s : "", q->body.len, e);
        char *near = j ? NULL : strstr(e->msg, " near ");

        if (near)
                *near = '\0';
        return j;
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
        case -ESTALE:
        case -EDQUOT:
        case -EBUSY:
        case -EPROTO:
                return MHD_HTTP_CONFLICT;
        case -ENOSPC:
                return MHD_HTTP_INSUFFICIENT_STORAGE;
        case -ENOTCONN:
        case -ENOKEY:
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
        request_resume(st->q);
        return 0;
}

static ssize_t on_stream(void *arg, uint64_t pos, char *buf, size_t max)
{
        struct stream *st = arg;
        struct http_request *q = st->q;
        const union MHD_ConnectionInfo *info;
        ssize_t n = st->gone || http_closing(q->server) ? -1 : st->read(q->priv, buf, max);

        (void) pos;
        /* also for a client that has gone: libmicrohttpd then finds out by itself and closes.
         * (Ended with an error, a connection that was suspended keeps its socket until every older
         * one has ended.) */
        if (n < 0)
                return MHD_CONTENT_READER_END_OF_STREAM;
        if (n > 0)
                return n;
        request_suspend(q);
        info = MHD_get_connection_info(q->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
        if (info && !q->hangup)
                (void) sd_event_add_io(plane_loop(q->plane), &q->hangup, info->connect_fd,
                                       EPOLLRDHUP, on_hangup, st);
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
        plane_audit_end(q->plane, &q->audit, "begun", NULL); /* its last line says how it ends */
        (void) MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
        (void) MHD_add_response_header(r, "X-Accel-Buffering", "no");
        http_reply(q, MHD_HTTP_OK, r);
}

void http_stream_more(struct http_request *q)
{
        if (q->answered)
                request_resume(q);
}

void http_upload_more(struct http_request *q)
{
        if (!q->answered)
                request_resume(q);
}
