/* graphql.c - POST /graphql.  tensorone-api, loop thread.
 * The operation runs in memory, at once but for whoever has taken much of the loop's time (turns.h); its answer
 * leaves when all that it shows is on disk. */
#include <errno.h>

#include "control/graphql/gql.h"
#include "control/rest/http_priv.h"

/* Outlives the request when the client does not wait. */
struct run {
        struct http_request *q; /* NULL: it is gone */
        struct turn turn;
        struct gql_request *gql;
        unsigned status;
        struct strbuf answer;
        bool fenced;
};

static struct run *run_free(struct run *x)
{
        x->gql = gql_request_free(x->gql);
        strbuf_done(&x->answer);
        free(x);
        return NULL;
}

/* Everything up to here is durable, or the store took it back. */
static void on_fence(int r, void *arg)
{
        struct run *x = arg;

        x->fenced = false;
        if (!x->q) {
                (void) run_free(x);
                return;
        }
        if (r < 0) {
                strbuf_done(&x->answer);
                gql_error_body(&x->answer, "STORE_FAILED",
                               "the change could not be written down and was not made; try again");
                x->status = MHD_HTTP_OK;
        }
        http_reply_buf(x->q, x->status, "application/json", &x->answer);
}

static void on_done(void *arg, unsigned status, struct strbuf *body)
{
        struct run *x = arg;

        x->status = status;
        x->answer = *body;
        *body = (struct strbuf){ 0 };
        x->fenced = true;
        plane_fence(x->q->plane, on_fence, x);
}

static void on_end(void *priv)
{
        struct run *x = priv;

        x->q = NULL;
        turn_leave(&x->turn);
        if (!x->fenced)
                (void) run_free(x);
}

/* It has had its turn; from here on the stream is what the request has. */
static void subscribe(struct run *x)
{
        struct http_request *q = x->q;
        struct gql_request *gql = TAKE(x->gql);

        q->priv = NULL;
        q->end = NULL;
        on_end(x);
        handle_sse(q, gql);
}

static void begin(void *arg)
{
        struct run *x = arg;
        struct http_request *q = x->q;

        if (gql_request_new_body(http_schema(q->server), q->body.s ? q->body.s : "", q->body.len,
                                 &q->ctx, &x->gql) < 0)
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
        else if (wants_event_stream(q) && gql_request_is_subscription(x->gql))
                subscribe(x);
        else
                gql_run(x->gql, on_done, x);
}

void handle_graphql(struct http_request *q)
{
        struct run *x = calloc(1, sizeof *x);

        if (!x) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        x->q = q;
        q->priv = x;
        q->end = on_end;
        turn_take(http_turns(q->server), q->ctx.who.account, &x->turn, begin, x);
}
