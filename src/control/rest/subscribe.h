/* subscribe.h - GraphQL subscriptions, whatever carries them (sse.c): where what has happened comes from.
 *
 * Sources are pulled, never pushed: each is a journal, a file or a state that keeps its past by itself, so
 * a subscription holds a place in it and nothing else.  A reader that is slow is behind, and costs no memory.
 * tensorone-api, loop thread; nothing here blocks. */
#pragma once
#include "control/rest/http.h"

struct subscription;

struct subscription_conf {
        struct plane *plane;
        struct resolve_ctx *ctx; /* of @gql, borrowed as long as the subscription lives */
        struct subscriptions *all;
        void (*more)(void *arg); /* there may be something to pull; not called from inside a call */
        void *arg;
};

/* Those of one server, for the limits of accounts. */
struct subscriptions *subscriptions_new(void);
struct subscriptions *subscriptions_free(struct subscriptions *s); /* none is open any more */

/* A socket that carries any number of them.  Full: those of its account are as many as may be, itself
 * included where it has joined (nobody's, which have not shown a key yet, count together), or all are. */
struct subscription_seat {
        struct subscription_seat *prev, *next;
        const char *account; /* borrowed; may change in place */
};
bool subscriptions_full(const struct subscriptions *s, const struct subscription_seat *mine);
void subscriptions_join(struct subscriptions *s, struct subscription_seat *mine,
                        const char *account);
void subscriptions_leave(struct subscriptions *s, struct subscription_seat *mine);

/* @gql is taken in every case.  0; -EINVAL: it is refused, with an answer as gql_subscribe() has it; or
 * -ENOMEM. */
int subscription_new(const struct subscription_conf *conf, struct gql_request *gql,
                     struct subscription **ret, unsigned *ret_status, struct strbuf *ret_body);
struct subscription *subscription_free(struct subscription *s);

/* One answer ({"data":...}) for @put; a negative return of it ends the pull. */
typedef int subscription_put_fn(void *arg, const struct strbuf *answer);
/* Pull what there is, not too much at once.  SUBSCRIPTION_END: that was all, for ever; where it is no good end,
 * the last answer was an error.  Or a negative errno: what @put returned, or -ENOMEM. */
enum { SUBSCRIPTION_WAIT, SUBSCRIPTION_MORE, SUBSCRIPTION_END };
int subscription_pull(struct subscription *s, subscription_put_fn *put, void *arg);
