/* subscribe.c - see subscribe.h.  tensorone-api, loop thread.
 *
 * What always holds: what is not the caller's, or is not there, looks the same; an event is told when it
 * is on disk; a key that is taken away ends what it has opened. */
#include "control/rest/subscribe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/jsonx.h"
#include "control/rest/logtail.h"
#include "model/attach_codec.h"
#include "model/limits.h"

#define BATCH     32U        /* events of one pull */
#define LOG_BLOCK (4U << 10) /* bytes of a log */

struct source {
        const char *fields[2]; /* in both spellings */
        int (*open)(struct subscription *s, const json_t *in, struct err *e);
        int (*pull)(struct subscription *s, subscription_put_fn *put, void *arg);
};

struct subscription {
        struct subscriptions *all;
        struct subscription *prev, *next;
        struct plane *plane;
        struct resolve_ctx *ctx;
        struct gql_request *gql;
        const struct source *source;
        void (*more)(void *arg);
        void *arg;
        char *cluster, *kind; /* NULL: any */
        struct plane_listen *listen;
        struct plane_watch *watch;
        struct log_tail *log;
        struct strbuf line; /* a record that is not whole yet */
        bool readable;      /* the engine has handed the log over */
        char *why;          /* it has not */
        uint64_t seen_us;   /* of the last event that was pulled */
        bool fresh, ended;  /* of the state of a cluster */
};

struct subscriptions {
        struct subscription *first;
        struct subscription_seat *seats;
};

struct subscriptions *subscriptions_new(void)
{
        return calloc(1, sizeof(struct subscriptions));
}

struct subscriptions *subscriptions_free(struct subscriptions *s)
{
        free(s);
        return NULL;
}

/* ---- sockets ---- */

bool subscriptions_full(const struct subscriptions *s, const struct subscription_seat *mine)
{
        size_t all = 0, same = 0;

        for (const struct subscription_seat *o = s->seats; o; o = o->next) {
                all += o != mine;
                same += o != mine && str_eq(o->account, mine->account);
        }
        return same >= LIMIT_SUBSCRIPTION_SOCKETS || all >= LIMIT_SUBSCRIPTIONS_ALL;
}

void subscriptions_join(struct subscriptions *s, struct subscription_seat *mine,
                        const char *account)
{
        *mine = (struct subscription_seat){ .next = s->seats, .account = account };
        if (mine->next)
                mine->next->prev = mine;
        s->seats = mine;
}

void subscriptions_leave(struct subscriptions *s, struct subscription_seat *mine)
{
        if (mine->prev)
                mine->prev->next = mine->next;
        else
                s->seats = mine->next;
        if (mine->next)
                mine->next->prev = mine->prev;
}

/* ---- answers ---- */

static int put_object(struct subscription *s, const void *obj, subscription_put_fn *put, void *arg)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        int r = gql_emit(s->gql, obj, &b);

        return r < 0 ? r : put(arg, &b);
}

static int put_error(const char *code, const char *text, subscription_put_fn *put, void *arg)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        int r;

        gql_error_body(&b, code, text);
        r = b.failed ? -ENOMEM : put(arg, &b);
        return r < 0 ? r : SUBSCRIPTION_END;
}

static const char *text_of(const json_t *in, const char *key)
{
        const char *s = jsonx_str(in, key);

        return str_empty(s) ? NULL : s;
}

/* ---- events ---- */

static void on_events(void *arg)
{
        struct subscription *s = arg;

        s->more(s->arg);
}

static int events_open(struct subscription *s, const json_t *in, struct err *e)
{
        const char *since = text_of(in, "since"), *kind = text_of(in, "kind"),
                   *cluster = text_of(in, "clusterId");
        int r = kind ? event_kind_check(kind, e) : 0;

        if (r < 0)
                return r;
        s->seen_us = plane_events_newest_us(s->plane);
        if (since && clock_parse(since, &s->seen_us) < 0)
                return err_set(
                        e, -EINVAL,
                        "since: '%.40s' must be a date and time such as 2030-01-31T12:00:00Z",
                        since);
        s->kind = str_dup(kind);
        s->cluster = str_dup(cluster);
        s->listen = plane_listen_new(s->plane, on_events, s);
        if (!s->listen || (kind && !s->kind) || (cluster && !s->cluster))
                return err_set(e, -ENOMEM, "out of memory");
        return 0;
}

/* The journal is walked from its newest event back: of those that are wanted, the oldest stay. */
struct batch {
        const struct event_view *v[BATCH];
        size_t n; /* so many were wanted; v[n - 1] % BATCH is the oldest */
};

static int keep(void *arg, const struct event_view *v)
{
        struct batch *b = arg;

        b->v[b->n++ % BATCH] = v;
        return 0;
}

static int events_pull(struct subscription *s, subscription_put_fn *put, void *arg)
{
        uint64_t until = plane_events_durable_us(s->plane),
                 oldest = plane_events_oldest_us(s->plane);
        const struct event_filter f = { .kind = s->kind,
                                        .cluster = s->cluster,
                                        .since_us = s->seen_us + 1,
                                        .until_us = until,
                                        .limit = UINT32_MAX };
        struct batch b = { .n = 0 };
        size_t n;
        int r;

        if (until <= s->seen_us)
                return SUBSCRIPTION_WAIT;
        if (s->seen_us < oldest)
                return put_error(
                        "EVENTS_LOST",
                        "events that were not read in time are gone: begin again with what is there",
                        put, arg);
        r = plane_events(s->plane, &s->ctx->who, &f, keep, &b);
        n = b.n < BATCH ? b.n : BATCH;
        for (size_t i = 0; r >= 0 && i < n; i++) {
                const struct event_view *v = b.v[(b.n - 1 - i) % BATCH];

                r = put_object(s, v, put, arg);
                if (r >= 0)
                        s->seen_us = v->at_us;
        }
        if (r < 0)
                return r;
        if (b.n > BATCH)
                return SUBSCRIPTION_MORE;
        s->seen_us = until;
        return SUBSCRIPTION_WAIT;
}

/* ---- what a cluster uses ---- */

static void on_cluster(void *arg, const struct cluster *c)
{
        struct subscription *s = arg;

        s->ended = s->ended || !c;
        s->fresh = true;
        s->more(s->arg);
}

static int metrics_open(struct subscription *s, const json_t *in, struct err *e)
{
        const char *id = text_of(in, "clusterId");

        if (!id || !plane_cluster(s->plane, &s->ctx->who, id))
                return err_set(e, -ENOENT, "cluster not found");
        s->cluster = str_dup(id);
        s->fresh = true;
        if (!s->cluster || plane_watch_new(s->plane, id, on_cluster, s, &s->watch) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        return 0;
}

/* Whoever is slow sees fewer of them, and always the newest. */
static int metrics_pull(struct subscription *s, subscription_put_fn *put, void *arg)
{
        const struct cluster *c = plane_cluster(s->plane, &s->ctx->who, s->cluster);
        int r;

        if (!c || s->ended)
                return SUBSCRIPTION_END;
        if (!s->fresh)
                return SUBSCRIPTION_WAIT;
        r = put_object(s, c, put, arg);
        s->fresh = r < 0;
        return r < 0 ? r : SUBSCRIPTION_WAIT;
}

/* ---- logs ---- */

static void on_log(void *arg)
{
        struct subscription *s = arg;

        s->more(s->arg);
}

static void on_log_opened(void *arg, int r, const char *why)
{
        struct subscription *s = arg;

        s->readable = r >= 0;
        if (r < 0)
                s->why = str_dup(why);
        s->ended = r < 0;
        s->more(s->arg);
}

static int logs_open(struct subscription *s, const json_t *in, struct err *e)
{
        const char *stream = text_of(in, "stream"), *id = text_of(in, "clusterId");
        const json_t *tail = json_object_get(in, "tail");
        struct log_tail_conf conf = { .plane = s->plane,
                                      .who = &s->ctx->who,
                                      .id = id ? id : "",
                                      .follow = true,
                                      .filter = { .raw = true },
                                      .has_tail = tail != NULL,
                                      .tail = (uint64_t) json_integer_value(tail),
                                      .opened = on_log_opened,
                                      .more = on_log,
                                      .arg = s };
        int r = log_since(text_of(in, "since"), conf.filter.since, e);

        if (r < 0)
                return r;
        if (json_integer_value(tail) < 0)
                return err_set(e, -ERANGE, "tail: must be a number of lines");
        if (stream && !str_eq(stream, "stdout") && !str_eq(stream, "stderr"))
                return err_set(e, -EINVAL, "stream: must be stdout or stderr");
        conf.filter.want[ATTACH_STDOUT] = !str_eq(stream, "stderr");
        conf.filter.want[ATTACH_STDERR] = !str_eq(stream, "stdout");
        return log_tail_new(&conf, &s->log, e);
}

static int put_line(struct subscription *s, const struct attach_log_line *l,
                    subscription_put_fn *put, void *arg)
{
        char stamp[64];
        const struct log_line_view v = { .time = stamp,
                                         .stream =
                                                 l->channel == ATTACH_STDERR ? "stderr" : "stdout",
                                         .text = l->text,
                                         .text_len = l->text_len,
                                         .whole = l->whole };

        (void) snprintf(stamp, sizeof stamp, "%.*s", (int) l->stamp_len, l->stamp);
        return put_object(s, &v, put, arg);
}

/* What the reader of the file has let through are whole records. */
static int put_lines(struct subscription *s, subscription_put_fn *put, void *arg)
{
        size_t used = 0;
        int r = 0;

        while (r >= 0 && used < s->line.len) {
                struct attach_log_line l;
                int n = attach_log_line_parse(s->line.s + used, s->line.len - used, &l);

                if (n == 0)
                        break;
                r = n < 0 ? n : put_line(s, &l, put, arg);
                used += n > 0 ? (size_t) n : 0;
        }
        strbuf_drop_front(&s->line, used);
        return r;
}

static int logs_pull(struct subscription *s, subscription_put_fn *put, void *arg)
{
        char buf[LOG_BLOCK];
        const char *why;
        ssize_t n;
        int r;

        if (s->ended)
                return put_error("UNAVAILABLE", s->why ? s->why : "the engine gives no log", put,
                                 arg);
        if (!s->readable)
                return SUBSCRIPTION_WAIT;
        n = log_tail_read(s->log, buf, sizeof buf);
        if (n == 0)
                return SUBSCRIPTION_WAIT;
        why = log_tail_error(s->log);
        if (n < 0)
                return why ? put_error("UNAVAILABLE", why, put, arg) : SUBSCRIPTION_END;
        strbuf_add(&s->line, buf, (size_t) n);
        r = s->line.failed ? -ENOMEM : put_lines(s, put, arg);
        return r < 0 ? r : SUBSCRIPTION_MORE;
}

static const struct source sources[] = {
        { { "clusterLogs", "podLogs" }, logs_open, logs_pull },
        { { "clusterEvents", "podEvents" }, events_open, events_pull },
        { { "clusterMetrics", "podMetrics" }, metrics_open, metrics_pull },
};

/* ---- life ---- */

struct subscription *subscription_free(struct subscription *s)
{
        if (!s)
                return NULL;
        if (s->prev)
                s->prev->next = s->next;
        else if (s->all->first == s)
                s->all->first = s->next;
        if (s->next)
                s->next->prev = s->prev;
        s->listen = plane_listen_free(s->listen);
        s->watch = plane_watch_free(s->watch);
        s->log = log_tail_free(s->log);
        strbuf_done(&s->line);
        free(s->why);
        s->gql = gql_request_free(s->gql);
        free(s->cluster);
        free(s->kind);
        free(s);
        return NULL;
}

DEFINE_AUTO(struct subscription *, subscription_free)

static int check_room(const struct subscription *mine, struct err *e)
{
        const char *account = mine->ctx->who.account;
        size_t all = 0, n = 0;

        for (const struct subscription *o = mine->all->first; o; o = o->next) {
                all++;
                n += str_eq(o->ctx->who.account, account);
        }
        if (n >= LIMIT_SUBSCRIPTIONS)
                return err_set(e, -EDQUOT, "an account has at most %u open subscriptions",
                               LIMIT_SUBSCRIPTIONS);
        if (all >= LIMIT_SUBSCRIPTIONS_ALL)
                return err_set(e, -EAGAIN, "too many subscriptions are open; try again");
        return 0;
}

static int source_open(struct subscription *s, struct err *e)
{
        const json_t *args = gql_subscribed_args(s->gql), *in = json_object_get(args, "input");
        const char *field = gql_subscribed(s->gql);

        for (size_t i = 0; i < NELEM(sources); i++) {
                if (!str_eq(field, sources[i].fields[0]) && !str_eq(field, sources[i].fields[1]))
                        continue;
                s->source = &sources[i];
                return sources[i].open(s, in, e);
        }
        return err_set(e, -EOPNOTSUPP, "%s is not available on this engine", field);
}

int subscription_new(const struct subscription_conf *conf, struct gql_request *gql,
                     struct subscription **ret, unsigned *ret_status, struct strbuf *ret_body)
{
        AUTO(subscription_free) struct subscription *s = calloc(1, sizeof *s);
        struct err e = { 0 };
        int r;

        if (!s) {
                (void) gql_request_free(gql);
                return -ENOMEM;
        }
        *s = (struct subscription){ .all = conf->all,
                                    .plane = conf->plane,
                                    .ctx = conf->ctx,
                                    .gql = gql,
                                    .more = conf->more,
                                    .arg = conf->arg };
        r = gql_subscribe(gql, ret_status, ret_body);
        if (r < 0)
                return r;
        r = check_room(s, &e);
        if (r >= 0)
                r = source_open(s, &e);
        if (r < 0) {
                *ret_status = r == -EINVAL || r == -ERANGE ? 400 : 200;
                gql_error_body(ret_body, gql_code_of(r), e.msg);
                return -EINVAL;
        }
        s->next = s->all->first;
        if (s->next)
                s->next->prev = s;
        s->all->first = s;
        *ret = TAKE(s);
        return 0;
}

int subscription_pull(struct subscription *s, subscription_put_fn *put, void *arg)
{
        const struct caller *who = &s->ctx->who;

        if (who->right != KEY_NONE && !accounts_key_account(plane_accounts(s->plane), who->key))
                return put_error("UNAUTHENTICATED", "the key that this was opened with is gone",
                                 put, arg);
        return s->source->pull(s, put, arg);
}
