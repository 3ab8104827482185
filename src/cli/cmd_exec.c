/* cmd_exec.c - `exec`: a command in a cluster, over the API's tensorone.exec.v1 WebSocket.
 *
 * Theory of operation.  One poll loop over three descriptors: the WebSocket, standard input (while
 * it is wanted and the peer keeps up), and a signalfd.  Messages carry a channel in their first
 * byte (docs/http-api.md).  The loop ends with the `exit` message, whose code becomes ours, or
 * with an error.  The terminal is raw from the handshake until the loop ends, and restored on
 * every way out, signals included.  Runs in tensoronecli. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/clusters.h"
#include "cli/tty.h"
#include "cli/values.h"
#include "cli/ws.h"

#define SUBPROTOCOL "tensorone.exec.v1"
#define QUEUE_MAX   (256U << 10) /* unsent bytes at which we stop reading standard input */
#define PING_US     (30 * US_PER_S)
#define SILENCE_US  (95 * US_PER_S) /* three pings without any answer */

enum channel { CH_STDIN, CH_STDOUT, CH_STDERR, CH_RESIZE, CH_EOF, CH_EXIT, CH_ERROR, CH_SIGNAL };

struct session {
        struct ws *ws;
        bool tty, stdin_open;
        bool told;  /* the exit status came from the server, not from a signal to us */
        int status; /* -1 until the command has ended */
        int sigfd;
        unsigned unheard; /* signals passed on since the peer was last heard */
        uint64_t heard_us, ping_us;
};

static int on_exit_message(struct session *s, const uint8_t *data, size_t len, struct err *e)
{
        AUTO(json_put) json_t *j = jsonx_parse((const char *) data, len, NULL);
        json_int_t code = json_integer_value(json_object_get(j, "code"));
        json_int_t sig = json_integer_value(json_object_get(j, "signal"));

        if (!json_is_object(j) || code < 0 || code > 255 || sig < 0 || sig > 127)
                return err_set(e, -EPROTO, "the API's answer has no exit status");
        s->status = sig > 0 ? 128 + (int) sig : (int) code;
        s->told = true;
        return 0;
}

static int on_message(void *arg, const uint8_t *data, size_t len, struct err *e)
{
        struct session *s = arg;
        int fd = STDERR_FILENO, r;

        s->unheard = 0;
        if (len == 0)
                return 0;
        switch (data[0]) {
        case CH_STDOUT:
                fd = STDOUT_FILENO;
                /* fall through */
        case CH_STDERR:
                r = fd_write_full(fd, data + 1, len - 1);
                return r < 0 ? err_errno(e, r, "standard output") : 0;
        case CH_EXIT:
                return on_exit_message(s, data + 1, len - 1, e);
        case CH_ERROR:
                return err_set(e, -EREMOTEIO, "%.*s", (int) (len - 1 > 400 ? 400 : len - 1),
                               (const char *) data + 1);
        default:
                return 0; /* a newer server may say more */
        }
}

static int send_size(struct session *s)
{
        uint16_t rows, cols;
        uint8_t msg[4];

        if (!s->tty || !tty_size(&rows, &cols))
                return 0;
        msg[0] = (uint8_t) (rows >> 8);
        msg[1] = (uint8_t) rows;
        msg[2] = (uint8_t) (cols >> 8);
        msg[3] = (uint8_t) cols;
        return ws_send(s->ws, CH_RESIZE, msg, sizeof msg);
}

/* A signal for us: resize, pass on, or (with a terminal, or when nobody listens) end. */
static int on_signal(struct session *s, struct err *e)
{
        struct signalfd_siginfo si;
        uint8_t number;

        if (read(s->sigfd, &si, sizeof si) != (ssize_t) sizeof si)
                return 0;
        if (si.ssi_signo == SIGWINCH)
                return send_size(s);
        if (s->tty || s->unheard++ >= 3) {
                s->status = 128 + (int) si.ssi_signo;
                return 0;
        }
        number = (uint8_t) si.ssi_signo;
        return ws_send(s->ws, CH_SIGNAL, &number, 1) < 0 ? err_set(e, -EPIPE, "interrupted") : 0;
}

static int on_stdin(struct session *s, struct err *e)
{
        char buf[32768];
        ssize_t n = read(STDIN_FILENO, buf, sizeof buf);

        if (n < 0 && (errno == EINTR || errno == EAGAIN))
                return 0;
        if (n > 0)
                return ws_send(s->ws, CH_STDIN, buf, (size_t) n) < 0
                               ? err_set(e, -EPIPE, "the connection to the API was lost")
                               : 0;
        /* the end, or a terminal that is gone: the command sees the end of its input */
        s->stdin_open = false;
        return ws_send(s->ws, CH_EOF, NULL, 0) < 0
                       ? err_set(e, -EPIPE, "the connection to the API was lost")
                       : 0;
}

static int keep_alive(struct session *s, struct err *e)
{
        uint64_t now = clock_mono_us();

        if (now - s->heard_us > SILENCE_US)
                return err_set(e, -ETIMEDOUT, "the API has not been heard for %u seconds",
                               (unsigned) (SILENCE_US / US_PER_S));
        if (now - s->ping_us < PING_US)
                return 0;
        s->ping_us = now;
        return ws_ping(s->ws) < 0 ? err_set(e, -EPIPE, "the connection to the API was lost") : 0;
}

static int run_loop(struct session *s, struct err *e)
{
        while (s->status < 0) {
                struct pollfd p[] = {
                        { .fd = ws_fd(s->ws), .events = POLLIN },
                        { .fd = s->sigfd, .events = POLLIN },
                        { .fd = -1, .events = POLLIN },
                };
                int r;

                if (ws_wants_write(s->ws))
                        p[0].events = POLLIN | POLLOUT;
                if (s->stdin_open && ws_queued(s->ws) < QUEUE_MAX)
                        p[2].fd = STDIN_FILENO;
                if (poll(p, NELEM(p), (int) (PING_US / US_PER_MS)) < 0 && errno != EINTR)
                        return err_errno(e, -errno, "poll");
                r = p[1].revents ? on_signal(s, e) : 0;
                if (r >= 0 && p[2].revents)
                        r = on_stdin(s, e);
                if (r >= 0 && p[0].revents & (POLLIN | POLLHUP | POLLERR))
                        s->heard_us = clock_mono_us();
                if (r >= 0)
                        r = keep_alive(s, e);
                if (r >= 0 && s->status < 0)
                        r = ws_process(s->ws, e);
                if (s->status >= 0) /* the exit came; what the connection did then is no matter */
                        return 0;
                if (r == 1)
                        return err_set(e, -ECONNRESET, "the session ended without an exit status");
                if (r < 0)
                        return r;
        }
        return 0;
}

/* The command has ended: let the server say goodbye, and answer, but do not wait for it long. */
static void say_goodbye(struct ws *ws)
{
        uint64_t end = clock_mono_us() + 500 * US_PER_MS, now;

        while (ws_process(ws, NULL) == 0 && (now = clock_mono_us()) < end) {
                struct pollfd p = { .fd = ws_fd(ws), .events = POLLIN };

                (void) poll(&p, 1, (int) ((end - now) / US_PER_MS) + 1);
        }
}

static int build_path(const struct cli *c, const char *id, struct strbuf *path, struct err *e)
{
        uint16_t rows, cols;
        char text[16];

        strbuf_fmt(path, "/v1/clusters/%s/exec", id);
        if (c->opt[OPT_TTY].b)
                api_path_add(path, "tty", "1");
        if (c->opt[OPT_TTY].b && tty_size(&rows, &cols)) { /* the program may look at once */
                (void) snprintf(text, sizeof text, "%u", rows);
                api_path_add(path, "rows", text);
                (void) snprintf(text, sizeof text, "%u", cols);
                api_path_add(path, "cols", text);
        }
        for (char **p = c->command; *p; p++)
                api_path_add(path, "cmd", *p);
        for (char **p = c->opt[OPT_EXEC_ENV].list; p && *p; p++) {
                if (!values_is_env(*p))
                        return err_set(e, -EINVAL, "wrong env value: \"%s\" is not KEY=VALUE", *p);
                api_path_add(path, "env", *p);
        }
        if (c->opt[OPT_CWD].given)
                api_path_add(path, "cwd", c->opt[OPT_CWD].s);
        if (c->opt[OPT_USER].given)
                api_path_add(path, "user", c->opt[OPT_USER].s);
        return path->failed ? err_set(e, -ENOMEM, "out of memory") : 0;
}

/* Signals that the loop takes by descriptor from here on. */
static int catch_signals(bool tty, struct err *e)
{
        sigset_t set;
        int fd;

        (void) sigemptyset(&set);
        (void) sigaddset(&set, SIGINT);
        (void) sigaddset(&set, SIGTERM);
        (void) sigaddset(&set, SIGHUP);
        if (tty) {
                (void) sigaddset(&set, SIGWINCH);
                (void) sigaddset(&set, SIGQUIT);
        }
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return err_errno(e, -errno, "signals");
        fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return fd < 0 ? err_errno(e, -errno, "signals") : fd;
}

int cmd_exec(struct cli *c, struct err *e)
{
        AUTO(strbuf_done) struct strbuf path = { 0 };
        AUTO(free) char *id = NULL;
        AUTO(ws_free) struct ws *ws = NULL;
        AUTO(fd) int sigfd = -EBADF;
        AUTO(tty_restore) struct tty tty = { 0 };
        struct session s = { .tty = c->opt[OPT_TTY].b,
                             .stdin_open = c->opt[OPT_STDIN].b,
                             .status = -1 };
        int r = cluster_find(c->api, c->operands[0], &id, e);

        if (r >= 0)
                r = build_path(c, id, &path, e);
        if (r >= 0)
                r = ws_open(c->api, path.s, SUBPROTOCOL, on_message, &s, &ws, e);
        if (r < 0)
                return r;
        s.ws = ws;
        s.heard_us = s.ping_us = clock_mono_us();
        s.sigfd = sigfd = catch_signals(s.tty, e);
        if (sigfd < 0)
                return sigfd;
        r = s.tty && s.stdin_open ? tty_raw(&tty, e) : 0;
        if (r < 0)
                return r;
        if (send_size(&s) < 0 || (!s.stdin_open && ws_send(ws, CH_EOF, NULL, 0) < 0))
                return err_set(e, -ENOMEM, "out of memory");
        r = run_loop(&s, e);
        if (r < 0)
                return r;
        tty_restore(&tty);
        if (s.told)
                say_goodbye(ws);
        return s.status;
}
