/* sse.c - a subscription as server-sent events ("distinct connections" of graphql-sse): each answer is an
 * event `next`, the end is an event `complete`.  tensorone-api, loop thread.
 *
 * What always holds: no more is pulled than fits beside OUT_HIGH unsent bytes, and only in its account's turn
 * (turns.h); a comment goes out every
 * PING_US when nothing else does, and a client that takes nothing for STALL_US is cut off. */
#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "control/rest/http_priv.h"
#include "control/rest/subscribe.h"

#define OUT_HIGH (64U << 10)
#define PING_US  (15 * US_PER_S)
#define STALL_US (30 * US_PER_S)

struct sse {
        struct http_request *q;
        struct subscription *sub;
        struct strbuf out;
        sd_event_source *tick;
        uint64_t moved_us; /* when it was last asked for bytes */
        struct turn turn;
        bool fresh; /* there may be something to pull */
        bool started, waits, ended, failed;
};

static void sse_end(void *priv)
{
        struct sse *x = priv;

        turn_leave(&x->turn);
        x->sub = subscription_free(x->sub);
        x->tick = sd_event_source_disable_unref(x->tick);
        strbuf_done(&x->out);
        free(x);
}

static int put(void *arg, const struct strbuf *answer)
{
        struct sse *x = arg;

        strbuf_str(&x->out, "event: next\ndata: ");
        strbuf_add(&x->out, answer->s, answer->len); /* JSON of ours has no line breaks */
        strbuf_str(&x->out, "\n\n");
        return x->out.failed ? -ENOMEM : 0;
}

static void fill(void *arg)
{
        struct sse *x = arg;

        while (x->fresh && !x->ended && x->out.len < OUT_HIGH) {
                int r = subscription_pull(x->sub, put, x);

                x->fresh = r != SUBSCRIPTION_WAIT;
                x->failed = r < 0;
                x->ended = r < 0 || r == SUBSCRIPTION_END;
                if (r == SUBSCRIPTION_END)
                        strbuf_str(&x->out, "event: complete\ndata:\n\n");
        }
        if (x->waits && (x->out.len > 0 || x->ended)) /* its turn has come late */
                http_stream_more(x->q);
}

static ssize_t read_stream(void *priv, char *buf, size_t max)
{
        struct sse *x = priv;
        size_t n;

        x->moved_us = clock_mono_us();
        x->waits = false;
        if (x->fresh && !x->ended && x->out.len < OUT_HIGH && !x->turn.account)
                turn_take(http_turns(x->q->server), x->q->ctx.who.account, &x->turn, fill, x);
        if (x->failed)
                return -1; /* out of memory: the client begins again */
        n = x->out.len < max ? x->out.len : max;
        x->waits = n == 0 && !x->ended;
        if (n == 0)
                return x->ended ? -1 : 0;
        memcpy(buf, x->out.s, n);
        strbuf_drop_front(&x->out, n);
        return (ssize_t) n;
}

static void on_more(void *arg)
{
        struct sse *x = arg;

        x->fresh = true;
        if (x->started && x->waits)
                http_stream_more(x->q);
}

static int on_tick(sd_event_source *s, uint64_t usec, void *arg)
{
        struct sse *x = arg;
        const union MHD_ConnectionInfo *info;

        (void) usec;
        if (x->waits) {
                x->fresh = true; /* the key may be gone */
                strbuf_str(&x->out, ":\n\n");
                http_stream_more(x->q);
        } else if (x->started && clock_mono_us() - x->moved_us > STALL_US) {
                log_info("subscriptions: a stream of account %s is not read; closed",
                         x->q->ctx.who.account);
                info = MHD_get_connection_info(x->q->conn, MHD_CONNECTION_INFO_CONNECTION_FD);
                if (info)
                        (void) shutdown(info->connect_fd, SHUT_RDWR);
        }
        (void) sd_event_source_set_time_relative(s, PING_US);
        return sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
}

bool wants_event_stream(const struct http_request *q)
{
        const char *accept = http_header(q, "Accept");

        return accept && strcasestr(accept, "text/event-stream");
}

void handle_sse(struct http_request *q, struct gql_request *gql)
{
        struct sse *x = calloc(1, sizeof *x);
        struct subscription_conf conf = { .plane = q->plane,
                                          .ctx = &q->ctx,
                                          .all = http_subscriptions(q->server),
                                          .more = on_more,
                                          .arg = x };
        AUTO(strbuf_done) struct strbuf body = { 0 };
        unsigned status = 0;
        int r;

        if (!x) {
                (void) gql_request_free(gql);
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        x->q = q;
        x->fresh = true;
        q->priv = x;
        q->end = sse_end;
        r = subscription_new(&conf, gql, &x->sub, &status, &body);
        if (r == -EINVAL) {
                http_reply_buf(q, status, "application/json", &body);
                return;
        }
        if (r >= 0)
                r = sd_event_add_time_relative(plane_loop(q->plane), &x->tick, CLOCK_MONOTONIC,
                                               PING_US, US_PER_S, on_tick, x);
        if (r < 0) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        x->started = true;
        http_reply_stream(q, "text/event-stream", read_stream);
}
