/* gqlws.c - subscriptions over a WebSocket: the protocol graphql-transport-ws.  tensorone-api, loop thread.
 *
 * Theory of operation.  Sources are pulled (subscribe.h) while less than OUT_HIGH bytes are queued, one
 * subscription after the other; above that neither sources nor the client are read.  A client that takes
 * nothing for STALL_US is told CLOSE_SLOW, should it ever read again, and cut off.  Opening and pulling take
 * their account's turn (turns.h).
 *
 * What always holds: nothing is ended from inside a callback of the plane, which walks its own lists;
 * those only wake the socket's next turn. */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <wslay/wslay.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "control/graphql/out.h"
#include "control/rest/http_priv.h"
#include "control/rest/subscribe.h"

#define PROTOCOL      "graphql-transport-ws"
#define OUT_HIGH      (64U << 10)
#define MESSAGE_MAX   (64U << 10)
#define READ_AT_ONCE  (64U << 10) /* others have their turn, then */
#define MESSAGE_COST  256U        /* what a queued message takes beside its bytes, and more */
#define FRAGMENTS_MAX 256U        /* of one message: each takes memory, however short it is */
#define PONGS_MAX     16U         /* answers to pings that the client does not read */
#define ID_MAX        128U
#define OPENING_MAX   16U /* subscriptions that wait for their turn, with what they were asked for */
#define INIT_US       (10 * US_PER_S)
#define TICK_US       (5 * US_PER_S)
#define STALL_US      (30 * US_PER_S)
#define CLOSE_WAIT_US (10 * US_PER_S)

/* The protocol's, but for CLOSE_SLOW and CLOSE_TOO_MANY. */
enum close_code {
        CLOSE_INVALID = 4400,
        CLOSE_UNAUTHORIZED = 4401,
        CLOSE_FORBIDDEN = 4403,
        CLOSE_INIT_TIMEOUT = 4408,
        CLOSE_DUPLICATE = 4409,
        CLOSE_SLOW = 4413,
        CLOSE_TOO_MANY = 4428,
        CLOSE_INIT_AGAIN = 4429,
};

struct gqlws;

struct sub {
        struct gqlws *w;
        struct sub *next;
        struct subscription *s;
        char *id;
        json_t *payload; /* what it was asked for, until it had its turn: then there is @s */
        struct turn turn;
        bool fresh; /* there may be something to pull */
};

struct gqlws {
        struct http_session base; /* first */
        struct http_server *server;
        struct plane *plane;
        sd_event *loop;
        struct resolve_ctx ctx;
        int fd; /* borrowed from urh */
        struct MHD_UpgradeResponseHandle *urh;
        wslay_event_context_ptr ws;
        struct strbuf early; /* read before the socket */
        sd_event_source *io, *tick, *wake;
        struct sub *subs;
        size_t opening;   /* of those */
        struct turn turn; /* to pull */
        struct subscription_seat seat;
        char address[INET6_ADDRSTRLEN];       /* of the client */
        uint64_t born_us, moved_us, close_us; /* moved: bytes went out, or none had to */
        size_t pongs, fragments, read;
        uint16_t close_code;
        const char *close_reason;
        bool acked, closing, close_queued, dead;
};

static void opened(struct sub *b)
{
        b->w->opening -= b->payload != NULL;
        json_decref(b->payload);
        b->payload = NULL;
}

static void sub_free(struct sub *b)
{
        turn_leave(&b->turn);
        opened(b);
        b->s = subscription_free(b->s);
        free(b->id);
        free(b);
}

static void gqlws_end(struct http_session *base)
{
        struct gqlws *w = (struct gqlws *) base;

        while (w->subs) {
                struct sub *b = w->subs;

                w->subs = b->next;
                sub_free(b);
        }
        turn_leave(&w->turn);
        w->io = sd_event_source_disable_unref(w->io);
        w->tick = sd_event_source_disable_unref(w->tick);
        w->wake = sd_event_source_disable_unref(w->wake);
        if (w->ws)
                wslay_event_context_free(w->ws);
        strbuf_done(&w->early);
        subscriptions_leave(http_subscriptions(w->server), &w->seat);
        (void) MHD_upgrade_action(w->urh, MHD_UPGRADE_ACTION_CLOSE);
        http_session_remove(w->server, base);
        free(w);
}

/* ---- towards the client ---- */

static size_t queued(const struct gqlws *w)
{
        return wslay_event_get_queued_msg_length(w->ws) +
               wslay_event_get_queued_msg_count(w->ws) * MESSAGE_COST;
}

/* wslay sends control frames before messages, so of those that leave only one is no pong while
 * there are any. */
static int flush(struct gqlws *w)
{
        size_t before = wslay_event_get_queued_msg_count(w->ws), left;
        int r = wslay_event_want_write(w->ws) ? wslay_event_send(w->ws) : 0;

        left = before - wslay_event_get_queued_msg_count(w->ws);
        w->pongs -= left < w->pongs ? left : w->pongs;
        return r;
}

static void close_with(struct gqlws *w, enum close_code code, const char *reason)
{
        if (w->closing)
                return;
        w->closing = true;
        w->close_code = (uint16_t) code;
        w->close_reason = reason;
        w->close_us = clock_mono_us();
}

/* @payload may be NULL. */
static int say(struct gqlws *w, const char *type, const char *id, const char *payload, size_t len)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        struct wslay_event_msg m = { .opcode = WSLAY_TEXT_FRAME };

        strbuf_fmt(&b, "{\"type\":\"%s\"", type);
        if (id) {
                strbuf_str(&b, ",\"id\":");
                out_str(&b, id, strlen(id));
        }
        if (payload) {
                strbuf_str(&b, ",\"payload\":");
                strbuf_add(&b, payload, len);
        }
        strbuf_char(&b, '}');
        m.msg = (const uint8_t *) b.s;
        m.msg_length = b.len;
        if (b.failed || wslay_event_queue_msg(w->ws, &m) != 0) {
                w->dead = true;
                return -ENOMEM;
        }
        return 0;
}

/* The errors of an answer that has nothing else. */
static void say_error(struct gqlws *w, const char *id, const struct strbuf *body)
{
        AUTO(json_put) json_t *j = body->s ? jsonx_parse(body->s, body->len, NULL) : NULL;
        AUTO(free) char *text = j ? jsonx_dump(json_object_get(j, "errors")) : NULL;

        if (text)
                (void) say(w, "error", id, text, strlen(text));
        else
                w->dead = true;
}

static int on_answer(void *arg, const struct strbuf *answer)
{
        const struct sub *b = arg;

        return say(b->w, "next", b->id, answer->s, answer->len);
}

/* ---- subscriptions ---- */

static void wake(struct gqlws *w)
{
        (void) sd_event_source_set_enabled(w->wake, SD_EVENT_ONESHOT);
}

static void on_more(void *arg)
{
        struct sub *b = arg;

        b->fresh = true;
        wake(b->w);
}

static struct sub **find(struct gqlws *w, const char *id)
{
        struct sub **at = &w->subs;

        while (*at && !str_eq((*at)->id, id))
                at = &(*at)->next;
        return at;
}

static void drop(struct sub **at)
{
        struct sub *b = *at;

        *at = b->next;
        sub_free(b);
}

/* Pull while there is room.  Those that were asked go to the end, so that none shuts others out. */
static void pull(void *arg)
{
        struct gqlws *w = arg;
        struct sub **at = &w->subs, *tail = NULL, **end = &tail;

        while (*at && !w->closing && !w->dead && queued(w) < OUT_HIGH) {
                struct sub *b = *at;
                int r = SUBSCRIPTION_WAIT;

                if (b->fresh && b->s) {
                        b->fresh = false;
                        r = subscription_pull(b->s, on_answer, b);
                        b->fresh = r == SUBSCRIPTION_MORE;
                }
                if (r < 0) {
                        w->dead = true;
                } else if (r == SUBSCRIPTION_END) {
                        (void) say(w, "complete", b->id, NULL, 0);
                        drop(at);
                        continue;
                }
                *at = b->next; /* it has had its turn */
                b->next = NULL;
                *end = b;
                end = &b->next;
        }
        while (*at)
                at = &(*at)->next;
        *at = tail;
        wake(w); /* it may not be now that the turn has come */
}

static bool has_fresh(const struct gqlws *w)
{
        const struct sub *b = w->subs;

        if (w->closing || w->dead || queued(w) >= OUT_HIGH)
                return false;
        while (b && !(b->fresh && b->s))
                b = b->next;
        return b;
}

static void refuse(struct sub *b, int r, const struct strbuf *body)
{
        struct gqlws *w = b->w;

        if (r == -EINVAL)
                say_error(w, b->id, body);
        else
                w->dead = true;
        drop(find(w, b->id));
}

/* Its turn has come: what it was asked for is read now. */
static void begin_sub(void *arg)
{
        struct sub *b = arg;
        struct gqlws *w = b->w;
        const char *query = jsonx_str(b->payload, "query");
        const struct subscription_conf conf = { .plane = w->plane,
                                                .ctx = &w->ctx,
                                                .all = http_subscriptions(w->server),
                                                .more = on_more,
                                                .arg = b };
        AUTO(strbuf_done) struct strbuf body = { 0 };
        struct gql_request *gql = NULL;
        unsigned status;
        int r = gql_request_new(http_schema(w->server), query, strlen(query),
                                jsonx_str(b->payload, "operationName"),
                                json_object_get(b->payload, "variables"), &w->ctx, &gql);

        opened(b);
        if (r >= 0)
                r = subscription_new(&conf, gql, &b->s, &status, &body);
        wake(w);
        if (r < 0)
                refuse(b, r, &body);
        else
                b->fresh = true;
}

static void subscribe(struct gqlws *w, const char *id, json_t *payload)
{
        struct sub *b = calloc(1, sizeof *b);

        if (b)
                b->id = strdup(id);
        if (!b || !b->id) {
                free(b);
                w->dead = true;
                return;
        }
        b->w = w;
        b->payload = json_incref(payload);
        b->next = w->subs;
        w->subs = b;
        w->opening++;
        turn_take(http_turns(w->server), w->ctx.who.account, &b->turn, begin_sub, b);
}

/* ---- what the client says ---- */

/* Browsers cannot set headers on a WebSocket, so the key may come with the first message. */
static bool take_key(struct gqlws *w, const json_t *payload)
{
        static const char *const names[] = { "Authorization", "authorization", "apiKey",
                                             "api_key" };
        const char *key = NULL;
        struct caller who;

        for (size_t i = 0; i < NELEM(names) && !key; i++)
                key = jsonx_str(payload, names[i]);
        if (str_empty(key))
                return true;
        if (strncasecmp(key, "Bearer ", 7) == 0)
                key += 7 + strspn(key + 7, " ");
        if (!accounts_check(plane_accounts(w->plane), key, &who))
                return false;
        w->ctx.who = who;
        plane_key_used(w->plane, &who, w->address);
        return true;
}

static void on_init(struct gqlws *w, const char *id, json_t *payload)
{
        (void) id;
        if (w->acked) {
                close_with(w, CLOSE_INIT_AGAIN, "Too many initialisation requests");
        } else if (!take_key(w, payload)) {
                close_with(w, CLOSE_FORBIDDEN, "Forbidden");
        } else if (subscriptions_full(http_subscriptions(w->server), &w->seat)) {
                close_with(w, CLOSE_TOO_MANY, "the account has too many WebSockets open");
        } else {
                w->acked = true;
                (void) say(w, "connection_ack", NULL, NULL, 0);
        }
}

static void on_ping(struct gqlws *w, const char *id, json_t *payload)
{
        (void) id;
        (void) payload;
        (void) say(w, "pong", NULL, NULL, 0);
}

static void on_pong(struct gqlws *w, const char *id, json_t *payload)
{
        (void) w;
        (void) id;
        (void) payload;
}

static void on_subscribe(struct gqlws *w, const char *id, json_t *payload)
{
        if (!w->acked)
                close_with(w, CLOSE_UNAUTHORIZED, "Unauthorized");
        else if (str_empty(id) || strlen(id) > ID_MAX || !jsonx_str(payload, "query"))
                close_with(w, CLOSE_INVALID,
                           "subscribe wants an id of 1 to 128 bytes and a payload with a query");
        else if (*find(w, id))
                close_with(w, CLOSE_DUPLICATE, "a subscription of that id exists already");
        else
                subscribe(w, id, payload);
}

static void on_complete(struct gqlws *w, const char *id, json_t *payload)
{
        struct sub **at = id ? find(w, id) : NULL;

        (void) payload;
        if (at && *at)
                drop(at);
}

static const struct {
        const char *type;
        void (*fn)(struct gqlws *w, const char *id, json_t *payload);
} messages[] = {
        { "connection_init", on_init }, { "ping", on_ping },         { "pong", on_pong },
        { "subscribe", on_subscribe },  { "complete", on_complete },
};

static void on_message(wslay_event_context_ptr ws, const struct wslay_event_on_msg_recv_arg *a,
                       void *arg)
{
        struct gqlws *w = arg;
        AUTO(json_put) json_t *j = NULL;
        const char *type;

        (void) ws;
        if (a->opcode == WSLAY_PING && !w->closing)
                w->pongs++;
        if (wslay_is_ctrl_frame(a->opcode))
                return;
        w->fragments = 0;
        if (w->closing || w->dead)
                return;
        if (a->opcode == WSLAY_TEXT_FRAME)
                j = jsonx_parse((const char *) a->msg, a->msg_length, NULL);
        type = jsonx_str(j, "type");
        for (size_t i = 0; type && i < NELEM(messages); i++)
                if (str_eq(type, messages[i].type)) {
                        messages[i].fn(w, jsonx_str(j, "id"), json_object_get(j, "payload"));
                        return;
                }
        close_with(w, CLOSE_INVALID, "Invalid message received");
}

/* ---- the WebSocket ---- */

static bool may_read(const struct gqlws *w)
{
        return queued(w) < OUT_HIGH && w->pongs < PONGS_MAX && w->opening < OPENING_MAX && !w->dead;
}

static void on_frame(wslay_event_context_ptr ws,
                     const struct wslay_event_on_frame_recv_start_arg *a, void *arg)
{
        struct gqlws *w = arg;

        (void) ws;
        if (!wslay_is_ctrl_frame(a->opcode) && ++w->fragments > FRAGMENTS_MAX)
                w->dead = true;
}

static ssize_t on_recv(wslay_event_context_ptr ws, uint8_t *buf, size_t len, int flags, void *arg)
{
        struct gqlws *w = arg;
        ssize_t n;

        (void) flags;
        /* wslay would read on for as long as the client writes */
        if (!may_read(w) || w->read >= READ_AT_ONCE) {
                wslay_event_set_error(ws, WSLAY_ERR_WOULDBLOCK);
                return -1;
        }
        if (w->early.len > 0) {
                size_t take = len < w->early.len ? len : w->early.len;

                memcpy(buf, w->early.s, take);
                strbuf_drop_front(&w->early, take);
                return (ssize_t) take;
        }
        do
                n = recv(w->fd, buf, len, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n > 0) {
                w->read += (size_t) n;
                return n;
        }
        wslay_event_set_error(ws, n < 0 && errno == EAGAIN ? WSLAY_ERR_WOULDBLOCK
                                                           : WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static ssize_t on_send(wslay_event_context_ptr ws, const uint8_t *data, size_t len, int flags,
                       void *arg)
{
        struct gqlws *w = arg;
        ssize_t n;

        (void) flags;
        do
                n = send(w->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0) {
                w->moved_us = clock_mono_us();
                return n;
        }
        wslay_event_set_error(ws,
                              errno == EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_recv,
        .send_callback = on_send,
        .on_frame_recv_start_callback = on_frame,
        .on_msg_recv_callback = on_message,
};

static void send_close(struct gqlws *w)
{
        w->close_queued = true;
        if (wslay_event_queue_close(w->ws, w->close_code, (const uint8_t *) w->close_reason,
                                    w->close_reason ? strlen(w->close_reason) : 0) != 0 ||
            flush(w) != 0)
                w->dead = true;
}

/* Move what can be moved, then tell the loop what to wait for.  May end the session. */
static void turn(struct gqlws *w)
{
        uint32_t events = 0;

        if (has_fresh(w) && !w->turn.account)
                turn_take(http_turns(w->server), w->ctx.who.account, &w->turn, pull, w);
        if (flush(w) != 0)
                w->dead = true;
        /* a close frame overtakes queued messages; a slow client's are given up */
        if (w->closing && !w->close_queued &&
            (w->close_code == CLOSE_SLOW || wslay_event_get_queued_msg_count(w->ws) == 0))
                send_close(w);
        if (wslay_event_get_close_received(w->ws) && wslay_event_get_close_sent(w->ws))
                w->dead = true;
        if (!wslay_event_want_read(w->ws) && !wslay_event_want_write(w->ws))
                w->dead = true; /* what came was no WebSocket any more, and it has been told so */
        if (w->dead) {
                gqlws_end(&w->base);
                return;
        }
        if ((w->early.len > 0 && may_read(w)) || (has_fresh(w) && !w->turn.account))
                wake(w);
        if (wslay_event_want_read(w->ws)) /* who is not read is seen to go away all the same */
                events |= may_read(w) ? EPOLLIN : EPOLLRDHUP;
        if (wslay_event_want_write(w->ws))
                events |= EPOLLOUT;
        (void) sd_event_source_set_io_events(w->io, events);
}

static void read_client(struct gqlws *w)
{
        w->read = 0;
        if (wslay_event_want_read(w->ws) && wslay_event_recv(w->ws) != 0)
                w->dead = true;
        if (wslay_event_get_close_received(w->ws))
                close_with(w, (enum close_code) WSLAY_CODE_NORMAL_CLOSURE, NULL);
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct gqlws *w = arg;

        (void) s;
        (void) fd;
        if (revents & EPOLLIN)
                read_client(w);
        if (revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                w->dead = true;
        turn(w);
        return 0;
}

static int on_wake(sd_event_source *s, void *arg)
{
        struct gqlws *w = arg;

        (void) s;
        if (w->early.len > 0)
                read_client(w);
        turn(w);
        return 0;
}

static void give_up(struct gqlws *w)
{
        log_info("subscriptions: a WebSocket of account %s is not read; closed",
                 w->ctx.who.account);
        close_with(w, CLOSE_SLOW, "the reader is too slow");
}

static int on_tick(sd_event_source *s, uint64_t usec, void *arg)
{
        struct gqlws *w = arg;
        uint64_t now = clock_mono_us();

        (void) usec;
        if (w->closing && now - w->close_us > CLOSE_WAIT_US)
                w->dead = true;
        else if (!w->acked && now - w->born_us > INIT_US)
                close_with(w, CLOSE_INIT_TIMEOUT, "Connection initialisation timeout");
        else if (!wslay_event_want_write(w->ws))
                w->moved_us = now;
        else if (now - w->moved_us > STALL_US && !w->closing)
                give_up(w);
        (void) sd_event_source_set_time_relative(s, TICK_US);
        (void) sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
        turn(w);
        return 0;
}

/* Its subscriptions end when they are pulled. */
static void key_is_gone(struct http_session *base)
{
        struct gqlws *w = (struct gqlws *) base;

        for (struct sub *b = w->subs; b; b = b->next)
                b->fresh = true;
        wake(w);
}

static int begin(struct gqlws *w)
{
        int r = fd_set_nonblock(w->fd, true);

        if (r >= 0 && wslay_event_context_server_init(&w->ws, &callbacks, w) != 0)
                r = -ENOMEM;
        if (r < 0)
                return r;
        wslay_event_config_set_max_recv_msg_length(w->ws, MESSAGE_MAX);
        r = sd_event_add_io(w->loop, &w->io, w->fd, EPOLLIN, on_io, w);
        if (r >= 0)
                r = sd_event_add_time_relative(w->loop, &w->tick, CLOCK_MONOTONIC, TICK_US,
                                               US_PER_S, on_tick, w);
        if (r >= 0) /* the first turn: bytes may have come with the handshake */
                r = sd_event_add_defer(w->loop, &w->wake, on_wake, w);
        return r;
}

/* The connection is ours now. */
static void on_upgrade(void *arg, struct MHD_Connection *conn, void *con_cls, const char *extra,
                       size_t extra_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *urh)
{
        const struct http_request *q = con_cls;
        struct gqlws *w = calloc(1, sizeof *w);

        (void) arg;
        (void) conn;
        if (!w) {
                (void) MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
                return;
        }
        w->base.end = gqlws_end;
        w->base.key = w->ctx.who.key; /* what connection_init brings, too */
        w->base.key_is_gone = key_is_gone;
        w->server = q->server;
        w->plane = q->plane;
        w->loop = plane_loop(q->plane);
        w->ctx = q->ctx;
        w->fd = fd;
        w->urh = urh;
        w->born_us = w->moved_us = clock_mono_us();
        strbuf_add(&w->early, extra, extra_len);
        request_address(q, w->address);
        subscriptions_join(http_subscriptions(w->server), &w->seat, w->ctx.who.account);
        http_session_add(w->server, &w->base);
        if (w->early.failed || begin(w) < 0)
                gqlws_end(&w->base);
}

void handle_graphql_get(struct http_request *q)
{
        const struct subscription_seat seat = { .account = q->ctx.who.account };
        char accept[UPGRADE_KEY_BYTES];
        struct err e = { 0 };

        if (!upgrade_wanted(q))
                http_reply_error(q, MHD_HTTP_METHOD_NOT_ALLOWED,
                                 "queries are POSTed; GET takes a WebSocket with the "
                                 "subprotocol " PROTOCOL);
        else if (upgrade_check(q, PROTOCOL, accept, &e) < 0)
                http_reply_error(q, MHD_HTTP_BAD_REQUEST, "%s", e.msg);
        else if (subscriptions_full(http_subscriptions(q->server), &seat))
                http_reply_error(q, MHD_HTTP_SERVICE_UNAVAILABLE,
                                 "too many WebSockets are open; try again");
        else
                upgrade_reply(q, PROTOCOL, accept, on_upgrade);
}
