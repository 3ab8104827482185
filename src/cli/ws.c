/* ws.c - see ws.h.  Runs in tensoronecli.  The peer is the API, but it relays what a tenant's
 * process writes, so message sizes are bounded before memory is taken. */
#include "cli/ws.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>
#include <wslay/wslay.h>

#include "base/clock.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/api.h"
#include "cli/cli.h"

#define MESSAGE_MAX  (16U << 20)
#define HEAD_MAX     16384U
#define REFUSAL_MAX  65536U
#define HANDSHAKE_US (30 * US_PER_S)

struct ws {
        CURL *curl;
        int fd; /* borrowed from curl */
        wslay_event_context_ptr ctx;
        struct strbuf early; /* bytes that came with the handshake's answer */
        bool eof;
        ws_message_fn *on_message;
        void *arg;
        int r;         /* of on_message */
        struct err *e; /* the caller's, during ws_process() */
};

int ws_accept_key(const char *key, char ret[static 29])
{
        AUTO(free) char *text = str_fmt("%s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned len = 0;

        if (!text || EVP_Digest(text, strlen(text), digest, &len, EVP_sha1(), NULL) != 1)
                return -ENOMEM;
        return EVP_EncodeBlock((unsigned char *) ret, digest, (int) len) == 28 ? 0 : -EINVAL;
}

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags, void *arg)
{
        struct ws *w = arg;
        size_t n = 0;
        CURLcode code;

        (void) flags;
        if (w->early.len > 0) {
                n = w->early.len < len ? w->early.len : len;
                memcpy(buf, w->early.s, n);
                strbuf_drop_front(&w->early, n);
                return (ssize_t) n;
        }
        code = curl_easy_recv(w->curl, buf, len, &n);
        if (code == CURLE_OK && n > 0)
                return (ssize_t) n;
        if (code == CURLE_AGAIN) {
                wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
                return -1;
        }
        w->eof = true;
        wslay_event_set_error(ctx, WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static ssize_t on_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t len, int flags,
                       void *arg)
{
        struct ws *w = arg;
        size_t n = 0;
        CURLcode code = curl_easy_send(w->curl, data, len, &n);

        (void) flags;
        if (code == CURLE_OK && n > 0)
                return (ssize_t) n;
        wslay_event_set_error(ctx, code == CURLE_AGAIN || code == CURLE_OK
                                           ? WSLAY_ERR_WOULDBLOCK
                                           : WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static int on_genmask(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, void *arg)
{
        (void) arg;
        if (rand_bytes(buf, len) >= 0)
                return 0;
        wslay_event_set_error(ctx, WSLAY_ERR_CALLBACK_FAILURE);
        return -1;
}

static void on_msg(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *m,
                   void *arg)
{
        struct ws *w = arg;

        (void) ctx;
        if (wslay_is_ctrl_frame(m->opcode) || w->r < 0)
                return;
        w->r = w->on_message(w->arg, m->msg, m->msg_length, w->e);
}

static int connect_to(struct ws *w, const struct api *a, const char *url, struct err *e)
{
        curl_socket_t fd = CURL_SOCKET_BAD;
        CURLcode code;
        int r;

        w->curl = curl_easy_init();
        if (!w->curl || curl_easy_setopt(w->curl, CURLOPT_URL, url) != CURLE_OK ||
            !api_trust(a, w->curl))
                return err_set(e, -ENOMEM, "out of memory");
        (void) curl_easy_setopt(w->curl, CURLOPT_PROTOCOLS_STR, "http,https");
        (void) curl_easy_setopt(w->curl, CURLOPT_CONNECT_ONLY, 1L);
        (void) curl_easy_setopt(w->curl, CURLOPT_HTTPPROXYTUNNEL, 1L);
        (void) curl_easy_setopt(w->curl, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
        (void) curl_easy_setopt(w->curl, CURLOPT_NOSIGNAL, 1L);
        (void) curl_easy_setopt(w->curl, CURLOPT_CONNECTTIMEOUT, 10L);
        (void) curl_easy_setopt(w->curl, CURLOPT_TCP_KEEPALIVE, 1L);
        code = curl_easy_perform(w->curl);
        r = code == CURLE_OK ? 0 : api_trust_error(a, w->curl, (int) code, e);
        if (r < 0)
                return r;
        if (code != CURLE_OK)
                return err_set(e, -ECONNREFUSED, "the API cannot be reached: %s",
                               curl_easy_strerror(code));
        code = curl_easy_getinfo(w->curl, CURLINFO_ACTIVESOCKET, &fd);
        if (code != CURLE_OK || fd == CURL_SOCKET_BAD)
                return err_set(e, -EIO, "the connection to the API has no socket");
        w->fd = fd;
        return 0;
}

static int wait_fd(int fd, short events, uint64_t deadline_us, struct err *e)
{
        uint64_t now = clock_mono_us();
        struct pollfd p = { .fd = fd, .events = events };
        int r = now < deadline_us ? poll(&p, 1, (int) ((deadline_us - now) / US_PER_MS) + 1) : 0;

        if (r == 0)
                return err_set(e, -ETIMEDOUT, "the API did not answer in time");
        return r < 0 && errno != EINTR ? err_errno(e, -errno, "poll") : 0;
}

static int send_all(struct ws *w, const struct strbuf *b, uint64_t deadline_us, struct err *e)
{
        for (size_t off = 0; off < b->len;) {
                size_t n = 0;
                CURLcode code = curl_easy_send(w->curl, b->s + off, b->len - off, &n);
                int r = 0;

                off += n;
                if (code == CURLE_AGAIN)
                        r = wait_fd(w->fd, POLLOUT, deadline_us, e);
                else if (code != CURLE_OK)
                        r = err_set(e, -EIO, "the connection to the API failed: %s",
                                    curl_easy_strerror(code));
                if (r < 0)
                        return r;
        }
        return 0;
}

/* More bytes into w->early; 0 at the end of the stream. */
static int receive_some(struct ws *w, uint64_t deadline_us, struct err *e)
{
        for (;;) {
                char buf[4096];
                size_t n = 0;
                CURLcode code = curl_easy_recv(w->curl, buf, sizeof buf, &n);
                int r;

                if (code == CURLE_OK) {
                        strbuf_add(&w->early, buf, n);
                        return w->early.failed ? err_set(e, -ENOMEM, "out of memory") : n > 0;
                }
                if (code != CURLE_AGAIN)
                        return err_set(e, -EIO, "the connection to the API failed: %s",
                                       curl_easy_strerror(code));
                r = wait_fd(w->fd, POLLIN, deadline_us, e);
                if (r < 0)
                        return r;
        }
}

/* The value of header @name in @head, on the heap; NULL when it is not there. */
static char *header_value(const char *head, const char *name)
{
        size_t n = strlen(name);

        for (const char *p = strstr(head, "\r\n"); p && p[2]; p = strstr(p + 2, "\r\n")) {
                const char *v = p + 2, *end;

                if (strncasecmp(v, name, n) != 0 || v[n] != ':')
                        continue;
                v += n + 1;
                v += strspn(v, " \t");
                end = strstr(v, "\r\n");
                while (end && end > v && (end[-1] == ' ' || end[-1] == '\t'))
                        end--;
                return end ? strndup(v, (size_t) (end - v)) : NULL;
        }
        return NULL;
}

/* The API said no: read its reason until the length, the end, or REFUSAL_MAX. */
static int refusal(struct ws *w, const char *head, long status, uint64_t deadline_us, struct err *e)
{
        AUTO(free) char *length = header_value(head, "Content-Length");
        uint64_t want = REFUSAL_MAX;
        size_t skip = 0;
        char *brace;

        (void) str_u64(length, 0, REFUSAL_MAX, &want);
        while (w->early.len < want && receive_some(w, deadline_us, NULL) > 0)
                ;
        /* a chunked body: the one object in it begins at its brace and is short enough */
        brace = w->early.s ? strchr(w->early.s, '{') : NULL;
        if (!length && brace) {
                char *last = strrchr(brace, '}');

                skip = (size_t) (brace - w->early.s);
                if (last)
                        w->early.len = (size_t) (last - w->early.s) + 1;
        }
        return api_refusal(status, w->early.s ? w->early.s + skip : NULL, w->early.len - skip, e);
}

/* "HTTP/1.1 101 ..." -> 101; 0 when it is something else. */
static long status_of(const char *head)
{
        const char *p = str_after(head, "HTTP/1.1 ");
        char digits[4] = "";
        uint64_t n = 0;

        if (p && strlen(p) >= 3)
                memcpy(digits, p, 3);
        return str_u64(digits, 100, 999, &n) >= 0 ? (long) n : 0;
}

static int check_answer(struct ws *w, const char *key, const char *subprotocol,
                        uint64_t deadline_us, struct err *e)
{
        AUTO(free) char *head = NULL, *accept = NULL, *proto = NULL;
        char expected[29];
        const char *end = NULL;
        long status;
        int r;

        while (!end) {
                r = receive_some(w, deadline_us, e);
                if (r < 0)
                        return r;
                end = w->early.s ? strstr(w->early.s, "\r\n\r\n") : NULL;
                if (!end && (r == 0 || w->early.len > HEAD_MAX))
                        return err_set(e, -EPROTO,
                                       "the server does not speak the "
                                       "TensorOne API");
        }
        head = strndup(w->early.s, (size_t) (end - w->early.s) + 2);
        if (!head)
                return err_set(e, -ENOMEM, "out of memory");
        strbuf_drop_front(&w->early, (size_t) (end - w->early.s) + 4);
        status = status_of(head);
        if (status != 101)
                return refusal(w, head, status, deadline_us, e);
        accept = header_value(head, "Sec-WebSocket-Accept");
        proto = header_value(head, "Sec-WebSocket-Protocol");
        r = ws_accept_key(key, expected);
        if (r < 0)
                return err_set(e, r, "out of memory");
        if (!str_eq(accept, expected) || !str_eq(proto, subprotocol))
                return err_set(e, -EPROTO, "the server does not speak %s", subprotocol);
        return 0;
}

/* "https://host:1/base" + path -> "host:1" and "/base/path", borrowed from @url. */
static const char *split_url(const char *url, size_t *ret_host_len, const char **ret_host)
{
        const char *host = strstr(url, "://");

        *ret_host = host ? host + 3 : url;
        *ret_host_len = strcspn(*ret_host, "/");
        return *ret_host + *ret_host_len;
}

static int handshake(struct ws *w, const struct api *a, const char *url, const char *subprotocol,
                     struct err *e)
{
        uint64_t deadline = clock_mono_us() + HANDSHAKE_US;
        AUTO(strbuf_done) struct strbuf b = { 0 };
        unsigned char nonce[16];
        char key[25];
        const char *host, *target;
        size_t host_len;
        int r = rand_bytes(nonce, sizeof nonce);

        if (r < 0)
                return err_errno(e, r, "random numbers");
        (void) EVP_EncodeBlock((unsigned char *) key, nonce, sizeof nonce);
        target = split_url(url, &host_len, &host);
        strbuf_fmt(&b, "GET %s HTTP/1.1\r\nHost: %.*s\r\n", target, (int) host_len, host);
        strbuf_fmt(&b,
                   "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Protocol: %s\r\n"
                   "User-Agent: " CLI_PROGRAM "/" HVMM_VERSION "\r\n",
                   key, subprotocol);
        if (api_key(a))
                strbuf_fmt(&b, "Authorization: Bearer %s\r\n", api_key(a));
        strbuf_str(&b, "\r\n");
        if (b.failed)
                return err_set(e, -ENOMEM, "out of memory");
        r = send_all(w, &b, deadline, e);
        explicit_bzero(b.s, b.len);
        return r < 0 ? r : check_answer(w, key, subprotocol, deadline, e);
}

int ws_open(struct api *a, const char *path, const char *subprotocol, ws_message_fn *on_message,
            void *arg, struct ws **ret, struct err *e)
{
        static const struct wslay_event_callbacks callbacks = {
                .recv_callback = on_recv,
                .send_callback = on_send,
                .genmask_callback = on_genmask,
                .on_msg_recv_callback = on_msg,
        };
        AUTO(ws_free) struct ws *w = calloc(1, sizeof *w);
        AUTO(free) char *url = str_fmt("%s%s", api_base(a), path);
        int r;

        if (!w || !url)
                return err_set(e, -ENOMEM, "out of memory");
        w->on_message = on_message;
        w->arg = arg;
        r = connect_to(w, a, url, e);
        if (r >= 0)
                r = handshake(w, a, url, subprotocol, e);
        if (r < 0)
                return r;
        if (wslay_event_context_client_init(&w->ctx, &callbacks, w) != 0)
                return err_set(e, -ENOMEM, "out of memory");
        wslay_event_config_set_max_recv_msg_length(w->ctx, MESSAGE_MAX);
        *ret = TAKE(w);
        return 0;
}

struct ws *ws_free(struct ws *w)
{
        if (!w)
                return NULL;
        if (w->ctx)
                wslay_event_context_free(w->ctx);
        if (w->curl)
                curl_easy_cleanup(w->curl);
        strbuf_done(&w->early);
        free(w);
        return NULL;
}

int ws_fd(const struct ws *w)
{
        return w->fd;
}

bool ws_wants_write(const struct ws *w)
{
        return wslay_event_want_write(w->ctx);
}

size_t ws_queued(const struct ws *w)
{
        return wslay_event_get_queued_msg_length(w->ctx);
}

static int queue(struct ws *w, const struct wslay_event_msg *m)
{
        int r = wslay_event_queue_msg(w->ctx, m);

        return r == 0 ? 0 : r == WSLAY_ERR_NOMEM ? -ENOMEM : -EPIPE;
}

int ws_send(struct ws *w, uint8_t channel, const void *data, size_t len)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        struct wslay_event_msg m = { .opcode = WSLAY_BINARY_FRAME };

        strbuf_char(&b, (char) channel);
        strbuf_add(&b, data, len);
        if (b.failed)
                return -ENOMEM;
        m.msg = (const uint8_t *) b.s;
        m.msg_length = b.len;
        return queue(w, &m);
}

int ws_ping(struct ws *w)
{
        struct wslay_event_msg m = { .opcode = WSLAY_PING };

        return queue(w, &m);
}

int ws_process(struct ws *w, struct err *e)
{
        int r;

        w->e = e;
        w->r = 0;
        r = wslay_event_recv(w->ctx);
        w->e = NULL;
        if (w->r < 0)
                return w->r;
        if (wslay_event_send(w->ctx) != 0)
                w->eof = true;
        if (wslay_event_get_close_received(w->ctx))
                return 1;
        if (r != 0 || w->eof)
                return err_set(e, -ECONNRESET, "the connection to the API was lost");
        return 0;
}
