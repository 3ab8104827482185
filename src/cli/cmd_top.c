/* cmd_top.c - `top`: the picture of top.c, again and again.
 *
 * Theory of operation.  Signals are blocked and read from a signalfd, so that the terminal is given
 * back in one place: the end of draw_all().  On a terminal the picture is drawn over the old one on
 * the alternate screen; elsewhere it is text.  An API that does not answer is a note in the headline,
 * not the end, once there was a picture.  Runs in tensoronecli. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/gpus.h"
#include "cli/top.h"
#include "cli/tty.h"

#define INTERVAL_MIN_US (100 * US_PER_MS)
#define INTERVAL_MAX_US (3600 * US_PER_S)
#define ANSWER_S        10

#define ENTER "\033[?1049h\033[?25l" /* alternate screen, no cursor */
#define LEAVE "\033[?25h\033[?1049l"

struct top {
        struct cli *c;
        bool screen;   /* standard output is a terminal */
        bool all_gpus; /* the host's GPUs are shown to us */
        int sigfd;
        json_t *host, *mine; /* the last answers */
        struct err why;      /* the last one is an old one */
};

/* ---- asking ---- */

static int ask(struct top *t, struct err *e)
{
        static const char query[] =
                "query top{myself{clusters{id name phase gpuCount latestTelemetry{cpuUtilization "
                "memoryUtilization averageGpuMetrics{percentUtilization memoryUtilization}}"
                "runtime{container{cpuPressurePercent memoryPressurePercent ioPressurePercent}}}}}";
        json_t *data = NULL;
        int r = api_graphql(t->c->api, query, NULL, &data, e);

        if (r < 0)
                return r;
        json_decref(t->mine);
        t->mine = data;
        data = NULL;
        r = t->all_gpus ? gpu_list(t->c->api, &data, e) : -EACCES;
        if (r >= 0) {
                json_decref(t->host);
                t->host = data;
        } else if (!t->host) {
                t->all_gpus = false; /* refused: not the operator's key, and not asked again */
                return 0;
        }
        return t->all_gpus && r < 0 ? r : 0;
}

static void update(struct top *t)
{
        struct err e = { 0 };

        t->why = (struct err){ 0 };
        if (ask(t, &e) < 0)
                t->why = e;
}

/* ---- drawing ---- */

static int draw(struct top *t, struct err *e)
{
        AUTO(strbuf_done) struct strbuf text = { 0 }, b = { 0 };
        struct top_picture p = { .gpus = json_object_get(t->host, "gpus"),
                                 .host = json_array_get(json_object_get(t->host, "machines"), 0),
                                 .clusters = json_object_get(json_object_get(t->mine, "myself"),
                                                             "clusters"),
                                 .note = t->why.code ? t->why.msg : NULL };
        uint16_t rows = 0, cols = 0;
        char now[32];

        clock_format(clock_wall_us(), now, sizeof now);
        now[sizeof "2026-01-31T08:00:00" - 1] = '\0';
        p.time = now + sizeof "2026-01-31T" - 1;
        if (t->screen && tty_size(&rows, &cols)) {
                p.rows = rows;
                p.cols = cols - 1U; /* some terminals wrap when the last one is written */
        }
        top_text(&p, &text);
        if (!t->screen)
                return text.failed ? err_set(e, -ENOMEM, "out of memory")
                                   : out_printf(e, "%s", text.s ? text.s : "");
        strbuf_str(&b, "\033[H");
        for (const char *s = text.s ? text.s : ""; *s;) {
                size_t n = strcspn(s, "\n");

                strbuf_add(&b, s, n);
                strbuf_str(&b, "\033[K");
                s += n + (s[n] == '\n');
                strbuf_str(&b, *s ? "\n" : "");
        }
        strbuf_str(&b, "\033[J");
        return b.failed || text.failed ? err_set(e, -ENOMEM, "out of memory")
                                       : out_printf(e, "%s", b.s);
}

/* ---- waiting ---- */

enum event { EV_TIME, EV_SIZE, EV_END };

static enum event on_signal(struct top *t)
{
        struct signalfd_siginfo si;

        if (read(t->sigfd, &si, sizeof si) != (ssize_t) sizeof si)
                return EV_TIME;
        return si.ssi_signo == SIGWINCH ? EV_SIZE : EV_END;
}

static enum event on_key(bool *keys)
{
        char key;
        ssize_t n = read(STDIN_FILENO, &key, 1);

        if (n == 0)
                *keys = false; /* the terminal has gone; its signal says so */
        return n == 1 && (key == 'q' || key == 'Q') ? EV_END : EV_SIZE;
}

/* Until @until_us (monotonic), or something happens before. */
static enum event wait_for(struct top *t, uint64_t until_us, bool *keys)
{
        struct pollfd p[] = { { .fd = t->sigfd, .events = POLLIN },
                              { .fd = *keys ? STDIN_FILENO : -1, .events = POLLIN } };
        uint64_t now = clock_mono_us(), left = until_us > now ? until_us - now : 0;
        struct timespec ts = { .tv_sec = (time_t) (left / US_PER_S),
                               .tv_nsec = (long) (left % US_PER_S * 1000) };
        int n = ppoll(p, NELEM(p), &ts, NULL);

        if (n <= 0)
                return EV_TIME;
        return p[0].revents ? on_signal(t) : on_key(keys);
}

static int draw_all(struct top *t, uint64_t interval_us, uint64_t times, struct err *e)
{
        bool keys = t->screen && isatty(STDIN_FILENO);
        uint64_t next = clock_mono_us();
        int r = 0;

        for (uint64_t i = 0; r >= 0 && (times == 0 || i < times); i++) {
                enum event ev = EV_SIZE;

                if (i > 0)
                        update(t);
                r = draw(t, e);
                next += interval_us;
                if (next < clock_mono_us())
                        next = clock_mono_us() + interval_us;
                while (r >= 0 && ev == EV_SIZE && i + 1 != times) {
                        ev = wait_for(t, next, &keys);
                        if (ev == EV_SIZE)
                                r = draw(t, e);
                }
                if (ev == EV_END)
                        break;
        }
        return r;
}

static int open_signals(int *ret, struct err *e)
{
        static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH };
        sigset_t set;

        (void) sigemptyset(&set);
        for (size_t i = 0; i < NELEM(signals); i++)
                (void) sigaddset(&set, signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return err_errno(e, -errno, "signals");
        *ret = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return *ret < 0 ? err_errno(e, -errno, "signalfd") : 0;
}

static int interval(const struct cli *c, uint64_t *ret, struct err *e)
{
        const char *word = c->opt[OPT_INTERVAL].s;

        if (str_duration_us(word, ret) < 0 || *ret < INTERVAL_MIN_US || *ret > INTERVAL_MAX_US)
                return err_set(e, -EINVAL, "--interval: \"%s\" is no time from 100ms to 1h", word);
        return 0;
}

static int show(struct top *t, uint64_t interval_us, uint64_t times, struct err *e)
{
        AUTO(tty_restore) struct tty tty = { 0 };
        AUTO(fd) int sigfd = -EBADF;
        int r = open_signals(&sigfd, e);

        if (r < 0)
                return r;
        t->sigfd = sigfd;
        if (!t->screen)
                return draw_all(t, interval_us, times ? times : 1, e);
        r = tty_keys(&tty, e);
        if (r >= 0)
                r = out_printf(e, "%s", ENTER);
        if (r >= 0)
                r = draw_all(t, interval_us, times, e);
        (void) out_printf(NULL, "%s", LEAVE);
        return r;
}

int cmd_top(struct cli *c, struct err *e)
{
        struct top t = { .c = c, .screen = isatty(STDOUT_FILENO), .all_gpus = true };
        uint64_t interval_us = 0;
        int r = interval(c, &interval_us, e);

        if (r < 0)
                return r;
        if (cli_json(c))
                t.screen = false;
        api_set_timeout(c->api, ANSWER_S);
        r = ask(&t, e); /* a wrong key or address is an error as everywhere */
        if (r >= 0 && cli_json(c)) {
                AUTO(json_put)
                json_t *j =
                        json_pack("{s:O*, s:O*}", "host", t.host, "clusters",
                                  json_object_get(json_object_get(t.mine, "myself"), "clusters"));

                r = j ? out_json(j, e) : err_set(e, -ENOMEM, "out of memory");
        } else if (r >= 0) {
                r = show(&t, interval_us, c->opt[OPT_TIMES].given ? c->opt[OPT_TIMES].n : 0, e);
        }
        json_decref(t.host);
        json_decref(t.mine);
        return r;
}
