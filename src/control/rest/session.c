/* session.c - see session.h.  tensorone-api, loop thread.
 *
 * Flow control: the monitor is read while little is queued for the client, the client is read
 * while little is queued for the monitor and it takes the answers to its pings.  Neither side can
 * make us hold more than a few hundred KiB beside one message.  Stdin goes out only within the monitor's window, so that the packets of the other kinds,
 * CREDIT above all, never wait behind input that the process does not take. */
#include "control/rest/session.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <wslay/wslay.h>

#include "base/clock.h"
#include "base/fd.h"
#include "model/attach_codec.h"

#define QUEUE_HIGH    (128U << 10) /* bytes waiting for one side that stop reading the other */
#define MESSAGE_MAX   (1U << 20)   /* one WebSocket message */
#define CLOSE_WAIT_US (5 * US_PER_S)
#define MESSAGE_COST  256U         /* what a queued message takes beside its bytes, and more */
#define PONGS_MAX     16U          /* answers to pings that the client does not read */
#define FRAGMENTS_MAX 1024U        /* of one message: each takes memory, however short it is */
#define CREDIT_BYTES  (256U << 10) /* of output, beside the first window ... */
#define CREDIT_STEP   (64U << 10)  /* ... and renewed in such steps */

#define CLOSE_GONE 4404 /* there is no such session, or no more */

enum channel {
        CH_STDIN,
        CH_STDOUT,
        CH_STDERR,
        CH_RESIZE,
        CH_EOF,
        CH_EXIT,
        CH_ERROR,
        CH_SIGNAL,
        CH_SESSION,
        CH_TAKEN
};
static_assert(ATTACH_WINDOW < SESSION_WINDOW && SESSION_WINDOW < ATTACH_KEPT_BYTES,
              "what was not taken can be had once more");

struct session {
        struct http_session base; /* first */
        struct http_server *server;
        sd_event *loop;
        struct plane_use *use;
        char *key;
        int fd; /* borrowed from urh */
        struct MHD_UpgradeResponseHandle *urh;
        wslay_event_context_ptr ws;
        struct strbuf early; /* read before the socket */
        sd_event_source *ws_io, *mon_io, *timer;
        int monitor;
        struct attach_parser parser;
        uint8_t parser_buf[ATTACH_PARSER_MAX];
        struct strbuf out;  /* packets for the monitor */
        struct strbuf in;   /* stdin that waits for its window */
        uint64_t in_window; /* bytes of it that the monitor is ready to take */
        bool in_eof;        /* it ends behind that */
        bool in_closed;     /* the process reads no more */
        uint32_t owed;      /* bytes read and not credited yet */
        bool acks;
        uint64_t ahead;      /* with acks: bytes sent to the client that it has not taken yet */
        char *id;            /* of a kept session */
        size_t pongs;        /* queued; wslay answers pings by itself */
        size_t fragments;    /* of the message that is coming in */
        uint16_t close_code; /* queued behind the last message */
        bool closing, close_queued, dead;
};

/* The client has said goodbye: it has all that there was, and will not come back.  Without this its monitor
 * waits for it, also with an exit that it may not have heard of. */
static void leave(struct session *s)
{
        uint8_t buf[16];
        size_t n = attach_put(buf, sizeof buf, ATTACH_LEAVE, ATTACH_STDIN, NULL, 0);

        if (s->monitor >= 0 && s->out.len == 0)
                (void) send(s->monitor, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void session_end(struct http_session *base)
{
        struct session *s = (struct session *) base;

        s->ws_io = sd_event_source_disable_unref(s->ws_io);
        s->mon_io = sd_event_source_disable_unref(s->mon_io);
        s->timer = sd_event_source_disable_unref(s->timer);
        if (s->id && s->ws && wslay_event_get_close_received(s->ws))
                leave(s);
        if (s->ws)
                wslay_event_context_free(s->ws);
        s->monitor = fd_close(s->monitor);
        s->use = plane_use_free(s->use);
        free(s->key);
        strbuf_done(&s->early);
        strbuf_done(&s->out);
        strbuf_done(&s->in);
        free(s->id);
        (void) MHD_upgrade_action(s->urh, MHD_UPGRADE_ACTION_CLOSE);
        http_session_remove(s->server, base);
        free(s);
}

/* ---- towards the client ---- */

/* wslay sends control frames before messages, so of those that leave only one is no pong while
 * there are any. */
static int ws_flush(struct session *s)
{
        size_t before = wslay_event_get_queued_msg_count(s->ws), left;
        int r = wslay_event_want_write(s->ws) ? wslay_event_send(s->ws) : 0;

        left = before - wslay_event_get_queued_msg_count(s->ws);
        s->pongs -= left < s->pongs ? left : s->pongs;
        return r;
}

static void ws_send(struct session *s, enum channel ch, const void *data, size_t len)
{
        struct strbuf b = { 0 };
        struct wslay_event_msg m = { .opcode = WSLAY_BINARY_FRAME };

        strbuf_char(&b, (char) ch);
        strbuf_add(&b, data, len);
        m.msg = (const uint8_t *) b.s;
        m.msg_length = b.len;
        if (b.failed || wslay_event_queue_msg(s->ws, &m) != 0)
                s->dead = true;
        strbuf_done(&b);
}

static int on_timer(sd_event_source *src, uint64_t usec, void *arg)
{
        (void) src;
        (void) usec;
        session_end(arg);
        return 0;
}

/* Say goodbye; the session ends when that was answered, or after a while. */
static void ws_close(struct session *s, uint16_t code)
{
        if (s->closing)
                return;
        s->closing = true;
        s->close_code = code;
        s->mon_io = sd_event_source_disable_unref(s->mon_io);
        if (!s->id) /* one that is kept hears at the end whether the client has said goodbye */
                s->monitor = fd_close(s->monitor);
        if (sd_event_add_time_relative(s->loop, &s->timer, CLOCK_MONOTONIC, CLOSE_WAIT_US, 0,
                                       on_timer, s) < 0)
                s->dead = true;
}

static void fail(struct session *s, const char *sentence)
{
        if (s->closing)
                return;
        ws_send(s, CH_ERROR, sentence, strlen(sentence));
        ws_close(s, WSLAY_CODE_INTERNAL_SERVER_ERROR);
}

/* Where the output that follows begins, which is all that a client has to know to come back. */
static void on_offset(struct session *s, const struct attach_packet *p)
{
        AUTO(free) char *text = NULL;
        uint64_t offset;

        if (!s->id || attach_get_follow(p, &offset) < 0)
                return;
        text = str_fmt("{\"session\":\"%s\",\"offset\":%llu}", s->id, (unsigned long long) offset);
        if (text)
                ws_send(s, CH_SESSION, text, strlen(text));
        else
                s->dead = true;
}

static void on_exit_packet(struct session *s, const struct attach_packet *p)
{
        char text[64];
        int code, sig;

        if (attach_get_exit(p, &code, &sig) < 0)
                return;
        (void) snprintf(text, sizeof text, "{\"code\":%d,\"signal\":%d}", code, sig);
        ws_send(s, CH_EXIT, text, strlen(text));
        ws_close(s, WSLAY_CODE_NORMAL_CLOSURE);
}

/* Only one request was in vain; whoever made it is told where the program's complaints go. */
static void on_refusal(struct session *s, const char *sentence)
{
        AUTO(free) char *text = str_fmt("exec: %s\r\n", sentence);

        if (text)
                ws_send(s, CH_STDERR, text, strlen(text));
}

static void on_packet(struct session *s, const struct attach_packet *p)
{
        char sentence[512];
        uint32_t more;

        if (p->type == ATTACH_DATA &&
            (p->channel == ATTACH_STDOUT || p->channel == ATTACH_STDERR)) {
                ws_send(s, p->channel == ATTACH_STDOUT ? CH_STDOUT : CH_STDERR, p->payload,
                        p->length);
                if (s->acks)
                        s->ahead += p->length;
                else
                        s->owed += p->length;
        } else if (p->type == ATTACH_FOLLOW) {
                on_offset(s, p);
        } else if (p->type == ATTACH_EXIT) {
                on_exit_packet(s, p);
        } else if (p->type == ATTACH_CREDIT && attach_get_credit(p, &more) >= 0) {
                s->in_window += more;
        } else if (p->type == ATTACH_EOF && p->channel == ATTACH_STDIN) {
                s->in_closed = true;
        } else if (p->type == ATTACH_ERROR && attach_get_error(p, sentence, sizeof sentence) >= 0) {
                if (p->channel == ATTACH_ERROR_REFUSED)
                        on_refusal(s, sentence);
                else
                        fail(s, sentence);
        }
}

static void read_monitor(struct session *s)
{
        struct attach_packet p;
        size_t room;
        void *at = attach_parser_space(&s->parser, &room);
        ssize_t n = recv(s->monitor, at, room, MSG_DONTWAIT);
        int r = 0;

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n > 0) {
                attach_parser_commit(&s->parser, (size_t) n);
                while (!s->closing && (r = attach_parser_next(&s->parser, &p)) > 0)
                        on_packet(s, &p);
        }
        if (n <= 0 || r < 0)
                fail(s, "the session ended without an exit status");
}

/* ---- towards the monitor ---- */

static void mon_packet(struct session *s, const void *packet, size_t len)
{
        if (len > 0 && !s->closing)
                strbuf_add(&s->out, packet, len);
}

/* What the window lets through. */
static void pass_stdin(struct session *s)
{
        uint8_t buf[16];

        if (s->in_closed)
                strbuf_done(&s->in);
        while (s->in.len > 0 && s->in_window > 0) {
                size_t n = s->in.len < ATTACH_WINDOW ? s->in.len : ATTACH_WINDOW;

                n = s->in_window < n ? (size_t) s->in_window : n;
                mon_packet(s, buf, attach_put_header(buf, ATTACH_DATA, ATTACH_STDIN, (uint32_t) n));
                mon_packet(s, s->in.s, n);
                strbuf_drop_front(&s->in, n);
                s->in_window -= n;
        }
        if (s->in.len == 0 && s->in_eof) {
                s->in_eof = false;
                mon_packet(s, buf, attach_put_eof(buf, sizeof buf, ATTACH_STDIN));
        }
}

/* u32, big-endian: more bytes of output that the client is done with. */
static void on_taken(struct session *s, const uint8_t *m, size_t n)
{
        uint64_t more =
                n == 5 ? (uint64_t) m[1] << 24 | (uint64_t) m[2] << 16 | (uint64_t) m[3] << 8 | m[4]
                       : 0;

        if (!s->acks)
                return;
        more = more < s->ahead ? more : s->ahead;
        s->ahead -= more;
        s->owed += (uint32_t) more;
}

static void on_message(wslay_event_context_ptr ws, const struct wslay_event_on_msg_recv_arg *a,
                       void *arg)
{
        struct session *s = arg;
        const uint8_t *m = a->msg;
        size_t n = a->msg_length;
        uint8_t buf[16];

        (void) ws;
        if (a->opcode == WSLAY_PING && !s->closing)
                s->pongs++;
        if (!wslay_is_ctrl_frame(a->opcode))
                s->fragments = 0;
        if (a->opcode != WSLAY_BINARY_FRAME || n < 1 || s->closing)
                return;
        switch ((enum channel) m[0]) {
        case CH_STDIN:
                strbuf_add(&s->in, m + 1, n - 1);
                break;
        case CH_RESIZE:
                if (n == 5)
                        mon_packet(s, buf,
                                   attach_put_resize(buf, sizeof buf, (uint16_t) (m[1] << 8 | m[2]),
                                                     (uint16_t) (m[3] << 8 | m[4])));
                break;
        case CH_EOF:
                s->in_eof = true;
                break;
        case CH_SIGNAL:
                if (n == 2)
                        mon_packet(s, buf, attach_put_signal(buf, sizeof buf, m[1]));
                break;
        case CH_TAKEN:
                on_taken(s, m, n);
                break;
        case CH_STDOUT:
        case CH_STDERR:
        case CH_SESSION:
        case CH_EXIT:
        case CH_ERROR:
        default:
                break; /* nothing that a client sends */
        }
}

static void flush_monitor(struct session *s)
{
        uint8_t buf[16];

        pass_stdin(s);
        if (s->owed >= (s->acks ? CREDIT_STEP / 4 : CREDIT_STEP)) {
                mon_packet(s, buf, attach_put_credit(buf, sizeof buf, s->owed));
                s->owed = 0;
        }
        while (s->out.len > 0 && s->monitor >= 0) {
                ssize_t n = send(s->monitor, s->out.s, s->out.len, MSG_DONTWAIT | MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EPIPE) {
                        strbuf_done(&s->out); /* it has ended; its last words are to be read */
                        return;
                }
                if (n < 0)
                        return;
                strbuf_drop_front(&s->out, (size_t) n);
        }
}

/* ---- the WebSocket ---- */

static bool may_read(const struct session *s)
{
        return s->out.len + s->in.len < QUEUE_HIGH && s->pongs < PONGS_MAX && !s->dead;
}

static void on_frame(wslay_event_context_ptr ws,
                     const struct wslay_event_on_frame_recv_start_arg *a, void *arg)
{
        struct session *s = arg;

        (void) ws;
        if (!wslay_is_ctrl_frame(a->opcode) && ++s->fragments > FRAGMENTS_MAX)
                s->dead = true;
}

static ssize_t on_ws_recv(wslay_event_context_ptr ws, uint8_t *buf, size_t len, int flags,
                          void *arg)
{
        struct session *s = arg;
        ssize_t n;

        (void) flags;
        if (s->early.len > 0) {
                size_t take = len < s->early.len ? len : s->early.len;

                memcpy(buf, s->early.s, take);
                strbuf_drop_front(&s->early, take);
                return (ssize_t) take;
        }
        /* wslay would read on for as long as the client writes */
        if (!may_read(s)) {
                wslay_event_set_error(ws, WSLAY_ERR_WOULDBLOCK);
                return -1;
        }
        do
                n = recv(s->fd, buf, len, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
        if (n > 0)
                return n;
        wslay_event_set_error(ws, n < 0 && errno == EAGAIN ? WSLAY_ERR_WOULDBLOCK
                                                           : WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static ssize_t on_ws_send(wslay_event_context_ptr ws, const uint8_t *data, size_t len, int flags,
                          void *arg)
{
        const struct session *s = arg;
        ssize_t n;

        (void) flags;
        do
                n = send(s->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n >= 0)
                return n;
        wslay_event_set_error(ws,
                              errno == EAGAIN ? WSLAY_ERR_WOULDBLOCK : WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_ws_recv,
        .send_callback = on_ws_send,
        .on_frame_recv_start_callback = on_frame,
        .on_msg_recv_callback = on_message,
};

/* Move what can be moved, then tell the loop what to wait for.  May end the session. */
static void turn(struct session *s)
{
        uint32_t ws_events = 0, mon_events = 0;

        if (ws_flush(s) != 0)
                s->dead = true;
        /* a close frame overtakes queued messages, so it is not queued while there are any */
        if (s->closing && !s->close_queued && wslay_event_get_queued_msg_count(s->ws) == 0) {
                s->close_queued = true;
                if (wslay_event_queue_close(s->ws, s->close_code, NULL, 0) != 0 || ws_flush(s) != 0)
                        s->dead = true;
        }
        flush_monitor(s);
        if (wslay_event_get_close_received(s->ws) && wslay_event_get_close_sent(s->ws))
                s->dead = true;
        if (!wslay_event_want_read(s->ws) && !wslay_event_want_write(s->ws))
                s->dead = true; /* what came was no WebSocket any more, and it has been told so */
        if (s->dead || s->in.failed || s->out.failed) {
                session_end(&s->base);
                return;
        }
        if (wslay_event_want_read(s->ws)) /* who is not read is seen to go away all the same */
                ws_events |= may_read(s) ? EPOLLIN : EPOLLRDHUP;
        if (wslay_event_want_write(s->ws))
                ws_events |= EPOLLOUT;
        if (wslay_event_get_queued_msg_length(s->ws) +
                    wslay_event_get_queued_msg_count(s->ws) * MESSAGE_COST <
            QUEUE_HIGH)
                mon_events |= EPOLLIN;
        if (s->out.len > 0)
                mon_events |= EPOLLOUT;
        (void) sd_event_source_set_io_events(s->ws_io, ws_events);
        if (s->mon_io)
                (void) sd_event_source_set_io_events(s->mon_io, mon_events);
}

static void read_client(struct session *s)
{
        if (wslay_event_want_read(s->ws) && wslay_event_recv(s->ws) != 0)
                s->dead = true;
        if (wslay_event_get_close_received(s->ws) && !s->closing)
                ws_close(s, WSLAY_CODE_NORMAL_CLOSURE);
}

static int on_ws(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
        struct session *s = arg;

        (void) src;
        (void) fd;
        if (revents & EPOLLIN)
                read_client(s);
        if (revents & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
                s->dead = true;
        turn(s);
        return 0;
}

static int on_mon(sd_event_source *src, int fd, uint32_t revents, void *arg)
{
        struct session *s = arg;

        (void) src;
        (void) fd;
        if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
                read_monitor(s);
        turn(s);
        return 0;
}

static void key_is_gone(struct http_session *base)
{
        static const char sentence[] = "the API key that this session was opened with was removed";
        struct session *s = (struct session *) base;

        if (s->closing)
                return;
        leave(s);
        ws_send(s, CH_ERROR, sentence, sizeof sentence - 1);
        ws_close(s, WSLAY_CODE_POLICY_VIOLATION);
        turn(s);
}

static int greet(struct session *s, const struct session_conf *conf)
{
        const struct attach_hello hello = {
                .version = ATTACH_VERSION,
                .flags = ATTACH_F_STDIO | ATTACH_F_INPUT | (conf->resume ? ATTACH_F_RESUME : 0),
                .log_start = conf->from,
        };
        uint8_t buf[64];

        attach_parser_init(&s->parser, s->parser_buf, sizeof s->parser_buf);
        mon_packet(s, buf, attach_put_hello(buf, sizeof buf, &hello));
        mon_packet(s, buf,
                   attach_put_credit(buf, sizeof buf,
                                     s->acks ? SESSION_WINDOW - ATTACH_WINDOW : CREDIT_BYTES));
        return sd_event_add_io(s->loop, &s->mon_io, s->monitor, EPOLLIN, on_mon, s);
}

static int begin(struct session *s, const struct session_conf *conf)
{
        int r = fd_set_nonblock(s->fd, true);

        if (r >= 0 && wslay_event_context_server_init(&s->ws, &callbacks, s) != 0)
                r = -ENOMEM;
        if (r < 0)
                return r;
        wslay_event_config_set_max_recv_msg_length(s->ws, MESSAGE_MAX);
        r = sd_event_add_io(s->loop, &s->ws_io, s->fd, EPOLLIN, on_ws, s);
        return r >= 0 && s->monitor >= 0 ? greet(s, conf) : r;
}

/* NULL: out of memory, and nothing was begun. */
static struct session *open_session(const struct session_conf *conf, int monitor, int *ret)
{
        struct session *s = calloc(1, sizeof *s);

        if (!s) {
                (void) fd_close(monitor);
                (void) plane_use_free(conf->use);
                return NULL;
        }
        s->base.end = session_end;
        s->base.key_is_gone = key_is_gone;
        s->base.key = s->key = str_dup(conf->key);
        s->server = conf->server;
        s->loop = conf->loop;
        s->fd = conf->fd;
        s->urh = conf->urh;
        s->use = conf->use;
        s->monitor = monitor;
        s->in_window = ATTACH_WINDOW;
        s->acks = conf->acks;
        s->id = str_dup(conf->id);
        strbuf_add(&s->early, conf->early, conf->early_len);
        http_session_add(s->server, &s->base);
        *ret = s->early.failed || (conf->key && !s->key) || (conf->id && !s->id) ? -ENOMEM
                                                                                 : begin(s, conf);
        return s;
}

int session_new(const struct session_conf *conf, int monitor)
{
        int r;
        struct session *s = open_session(conf, monitor, &r);

        if (!s)
                return -ENOMEM;
        if (r < 0) {
                session_end(&s->base); /* gives the connection back too */
                return 0;
        }
        if (s->early.len > 0)
                read_client(s);
        turn(s);
        return 0;
}

int session_refuse(const struct session_conf *conf, const char *sentence, bool gone)
{
        int r;
        struct session *s = open_session(conf, -EBADF, &r);

        if (!s)
                return -ENOMEM;
        if (r < 0) {
                session_end(&s->base);
                return 0;
        }
        ws_send(s, CH_ERROR, sentence, strlen(sentence));
        ws_close(s, gone ? CLOSE_GONE : WSLAY_CODE_INTERNAL_SERVER_ERROR);
        turn(s);
        return 0;
}
