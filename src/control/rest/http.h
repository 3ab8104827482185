/* http.h - the HTTP server of the control plane: libmicrohttpd inside our event loop.
 *
 * A request is read (limits, key), matched with a row of routes.c, and handed to its handler on
 * the loop.  A handler answers at once or later, exactly once; meanwhile the connection is
 * suspended and costs nothing.  Loop thread; nothing here blocks. */
#pragma once
#include <jansson.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "control/account/account.h"
#include "control/graphql/gql.h"
#include "control/plane/plane.h"
#include "control/resolve/resolve.h"
#include "model/limits.h"

struct http_server;
struct http_request;

struct http_conf {
        sd_event *loop;
        struct plane *plane;
        int listen_fd; /* taken over */
};

int http_new(const struct http_conf *conf, struct http_server **ret, struct err *e);
/* Ends what is open: streams, sessions, waiting requests. */
struct http_server *http_free(struct http_server *s);
DEFINE_AUTO(struct http_server *, http_free)

/* Serve api.internal on @fd (taken), in place of an earlier one. */
void http_set_inner(struct http_server *s, int fd);

/* ---- for handlers ---- */

struct http_route {
        const char *method, *path; /* "{}" in a path stands for one component */
        void (*handle)(struct http_request *q);
        /* Streamed body: how many bytes of @data were taken; fewer suspends the upload until
         * http_upload_more().  Called once with no bytes before the first.  NULL: the body is collected, up to LIMIT_QUERY_BYTES. */
        size_t (*upload)(struct http_request *q, const char *data, size_t len);
        enum key_right need; /* KEY_NONE: anyone */
        bool inner;          /* also on api.internal */
        const char *
                audit; /* kind of event that tells of it; NULL: it changes nothing, or tells itself */
};
extern const struct http_route http_routes[];
extern const size_t http_n_routes;

struct http_request {
        struct http_server *server;
        struct plane *plane;
        struct MHD_Connection *conn;
        const struct http_route *route;
        char *arg;              /* the path's "{}", NULL without one */
        struct resolve_ctx ctx; /* whose request it is */
        char ticket[LIMIT_CLUSTER_ID_LEN +
                    1];     /* by a ticket (tickets.h): the cluster that it is for */
        bool inner;         /* came through api.internal */
        struct audit audit; /* of a route that is told of */
        struct strbuf body; /* collected */

        /* the handler's own: @end runs once, when the request is over or abandoned */
        void *priv;
        void (*end)(void *priv);

        /* http.c's */
        struct http_request *prev, *next;
        struct MHD_Response *response;
        unsigned status;
        uint64_t discarded;
        bool started, suspended, too_big, no_room, bad_key, answered, eof;
        bool bad_ticket;
        sd_event_source *hangup; /* while a stream waits */
};

/* Query parameters, borrowed; NULL when absent. */
const char *http_param(const struct http_request *q, const char *name);
bool http_param_true(const struct http_request *q, const char *name);
/* All values of a repeated parameter; -ENOMEM. */
int http_params(const struct http_request *q, const char *name, char ***ret);
const char *http_header(const struct http_request *q, const char *name);
/* The collected body, a new reference; NULL: it is no JSON.  The sentence never quotes it: a password or a secret
 * may stand where it breaks off. */
json_t *http_body_json(const struct http_request *q, struct err *e);

/* Answers.  Each ends the request's waiting. */
void http_reply_json(struct http_request *q, unsigned status, json_t *j); /* steals @j */
void http_reply_buf(struct http_request *q, unsigned status, const char *type,
                    struct strbuf *b); /* takes the content */
void http_reply_error(struct http_request *q, unsigned status, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* http_reply_json(), once all that was changed is on disk.  @j NULL: no body. */
void http_reply_durable(struct http_request *q, unsigned status, json_t *j);
/* The HTTP status for a negative errno. */
unsigned http_status_of(int r);
/* @response is taken; for streams and upgrades. */
void http_reply(struct http_request *q, unsigned status, struct MHD_Response *response);

/* A chunked body made by @read: returns bytes put into @buf, 0: nothing now (http_stream_more()
 * goes on), < 0: the end.  While it waits, a client that hangs up ends it. */
void http_reply_stream(struct http_request *q, const char *type,
                       ssize_t (*read)(void *priv, char *buf, size_t max));
void http_stream_more(struct http_request *q);

void http_upload_more(struct http_request *q);

struct gql_schema *http_schema(const struct http_server *s);
struct turns *http_turns(const struct http_server *s);
struct subscriptions *http_subscriptions(const struct http_server *s);
struct tickets *http_tickets(const struct http_server *s);
/* Something that outlives its request, to be ended with the server. */
struct http_session {
        struct http_session *prev, *next;
        void (*end)(struct http_session *s);
        const char *key;                         /* id of the one that opened it; "": none did */
        void (*key_is_gone)(struct http_session *s); /* may end it */
};
/* A key was removed: what it has opened hears of it. */
void http_keys_removed(struct http_server *s);
void http_session_add(struct http_server *s, struct http_session *x);
void http_session_remove(struct http_server *s, struct http_session *x);
