/* logs.c - GET /v1/clusters/{}/logs: parameters and the stream; logtail.h reads.  tensorone-api, loop
 * thread. */
#include <errno.h>

#include "control/rest/http_priv.h"
#include "control/rest/logtail.h"

struct follow {
        struct http_request *q;
        struct log_tail *log;
        bool started;
};

static void follow_end(void *priv)
{
        struct follow *f = priv;

        f->log = log_tail_free(f->log);
        free(f);
}

static ssize_t read_stream(void *priv, char *buf, size_t max)
{
        struct follow *f = priv;

        if (!accounts_key_account(plane_accounts(f->q->plane), f->q->ctx.who.key))
                return -1; /* the key was removed meanwhile */
        return log_tail_read(f->log, buf, max);
}

static void on_opened(void *arg, int r, const char *why)
{
        struct follow *f = arg;

        if (r < 0) {
                http_reply_error(f->q, http_status_of(r), "%s", why);
                return;
        }
        f->started = true;
        http_reply_stream(f->q, "text/plain; charset=utf-8", read_stream);
}

static void on_more(void *arg)
{
        struct follow *f = arg;

        if (f->started)
                http_stream_more(f->q);
}

/* ---- parameters ---- */

static int parse(const struct http_request *q, struct log_tail_conf *c, struct err *e)
{
        const char *tail = http_param(q, "tail"), *stream = http_param(q, "stream");

        c->follow = http_param_true(q, "follow");
        c->filter.timestamps = http_param_true(q, "timestamps");
        c->filter.want[ATTACH_STDOUT] = !str_eq(stream, "stderr");
        c->filter.want[ATTACH_STDERR] = !str_eq(stream, "stdout");
        if (!str_empty(stream) && !str_eq(stream, "stdout") && !str_eq(stream, "stderr"))
                return err_set(e, -EINVAL, "stream: must be stdout or stderr");
        c->has_tail = !str_empty(tail) && !str_eq(tail, "all");
        if (c->has_tail && str_u64(tail, 0, UINT32_MAX, &c->tail) < 0)
                return err_set(e, -EINVAL, "tail: '%.20s' must be a number of lines", tail);
        return log_since(http_param(q, "since"), c->filter.since, e);
}

void handle_logs(struct http_request *q)
{
        struct follow *f = calloc(1, sizeof *f);
        struct log_tail_conf conf = { .plane = q->plane,
                                      .who = &q->ctx.who,
                                      .id = q->arg,
                                      .opened = on_opened,
                                      .more = on_more,
                                      .arg = f };
        struct err e = { 0 };
        int r;

        if (!f) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        f->q = q;
        q->priv = f;
        q->end = follow_end;
        r = plane_cluster(q->plane, &q->ctx.who, q->arg)
                    ? parse(q, &conf, &e)
                    : err_set(&e, -ENOENT, "cluster not found");
        if (r >= 0)
                r = log_tail_new(&conf, &f->log, &e);
        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
}
