/* logs.c - GET /v1/clusters/{}/logs.  tensorone-api, loop thread.
 *
 * Theory of operation.  The engine hands over the two log files and, while the cluster runs, a
 * connection to its monitor.  What is in the files is sent first; a follower then asks the monitor
 * for LOG packets from that absolute offset on.  When the monitor goes (restart, stop), a follower
 * reads what is left in the files and waits for the next report: running again means asking the
 * engine again, stopped or gone ends the stream. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "control/rest/http_priv.h"
#include "control/rest/logfile.h"
#include "model/attach_codec.h"

#define ASK_TIMEOUT_US (15 * US_PER_S)
#define READ_BLOCK     (64U << 10)
#define OUT_HIGH       (256U << 10) /* unsent bytes above which nothing more is read */

struct follow {
        struct http_request *q;
        char *id;
        bool follow, started;
        int64_t asked; /* request to the engine, 0: none */
        struct log_files files;
        uint64_t pos;     /* next byte to be read */
        bool at_end;      /* the files are read */
        struct strbuf in; /* a line that is not whole yet */
        struct strbuf out;
        struct log_filter filter;
        uint64_t tail;
        bool has_tail;

        int monitor;
        sd_event_source *io;
        struct attach_parser parser;
        uint8_t *parser_buf;
        struct plane_watch *watch;
        struct plane_use *use; /* who follows it uses it */
        bool finished;
};

static void ask(struct follow *f);

static void drop_monitor(struct follow *f)
{
        f->io = sd_event_source_disable_unref(f->io);
        f->monitor = fd_close(f->monitor);
}

static void follow_end(void *priv)
{
        struct follow *f = priv;

        if (f->asked)
                node_cancel(plane_node(f->q->plane), f->asked);
        f->watch = plane_watch_free(f->watch);
        f->use = plane_use_free(f->use);
        drop_monitor(f);
        log_files_done(&f->files);
        strbuf_done(&f->in);
        strbuf_done(&f->out);
        free(f->parser_buf);
        free(f->id);
        free(f);
}

/* ---- the monitor ---- */

static void on_log_packet(struct follow *f, const struct attach_packet *p)
{
        const char *lines;
        uint64_t offset;
        size_t len;

        if (p->type != ATTACH_LOG || attach_get_log(p, &offset, &lines, &len) < 0)
                return;
        if (offset < f->pos) { /* seen in the files already */
                uint64_t skip = f->pos - offset;

                if (skip >= len)
                        return;
                lines += skip;
                len -= (size_t) skip;
        }
        (void) log_filter_lines(&f->filter, lines, len, &f->out);
        f->pos = offset < f->pos ? f->pos + len : offset + len;
}

static int on_monitor(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct follow *f = arg;
        struct attach_packet p;
        size_t room;
        void *at = attach_parser_space(&f->parser, &room);
        ssize_t n = recv(fd, at, room, MSG_DONTWAIT);
        int r = 0;

        (void) s;
        (void) revents;
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n > 0) {
                attach_parser_commit(&f->parser, (size_t) n);
                while ((r = attach_parser_next(&f->parser, &p)) > 0)
                        on_log_packet(f, &p);
        }
        if (n <= 0 || r < 0) {
                drop_monitor(f);
                f->at_end = false; /* what it wrote last is in the files */
        } else if (f->out.len > OUT_HIGH) {
                (void) sd_event_source_set_enabled(f->io, SD_EVENT_OFF);
        }
        http_stream_more(f->q);
        return 0;
}

/* Say hello and ask for everything from f->pos on. */
static int start_monitor(struct follow *f)
{
        const struct attach_hello hello = { .version = ATTACH_VERSION };
        uint8_t buf[64];
        size_t n = attach_put_hello(buf, sizeof buf, &hello);

        n += attach_put_follow(buf + n, sizeof buf - n, f->pos);
        if (send(f->monitor, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t) n)
                return -EPIPE;
        if (!f->parser_buf)
                f->parser_buf = malloc(ATTACH_PARSER_MAX);
        if (!f->parser_buf)
                return -ENOMEM;
        attach_parser_init(&f->parser, f->parser_buf, ATTACH_PARSER_MAX);
        return sd_event_add_io(plane_loop(f->q->plane), &f->io, f->monitor, EPOLLIN, on_monitor, f);
}

/* ---- the stream ---- */

static void read_files(struct follow *f)
{
        char buf[READ_BLOCK];

        while (!f->at_end && f->out.len < OUT_HIGH) {
                uint64_t before = f->pos;
                ssize_t n = log_files_read(&f->files, &f->pos, buf, sizeof buf);
                size_t used;

                if (n <= 0) {
                        f->at_end = true;
                        f->pos -= f->in.len; /* whoever goes on begins at a line */
                        strbuf_done(&f->in);
                        break;
                }
                if (f->pos - (uint64_t) n != before)
                        strbuf_done(&f->in); /* overtaken: the half line is gone */
                strbuf_add(&f->in, buf, (size_t) n);
                used = log_filter_lines(&f->filter, f->in.s, f->in.len, &f->out);
                strbuf_drop_front(&f->in, used);
        }
}

/* Whether more may come. */
static bool may_go_on(struct follow *f)
{
        const struct cluster *c = plane_cluster(f->q->plane, &f->q->ctx.who, f->id);

        return f->follow && !f->finished && c &&
               (c->desired == DESIRED_RUNNING || f->monitor >= 0 || f->asked);
}

static ssize_t read_stream(void *priv, char *buf, size_t max)
{
        struct follow *f = priv;
        size_t n;

        if (!f->at_end)
                read_files(f);
        if (f->at_end && f->monitor >= 0 && !f->io && start_monitor(f) < 0)
                drop_monitor(f);
        n = f->out.len < max ? f->out.len : max;
        if (n > 0) {
                memcpy(buf, f->out.s, n);
                strbuf_drop_front(&f->out, n);
        }
        if (f->io && f->out.len <= OUT_HIGH)
                (void) sd_event_source_set_enabled(f->io, SD_EVENT_ON);
        if (n > 0)
                return (ssize_t) n;
        return may_go_on(f) ? 0 : -1;
}

static void on_report(void *arg, const struct cluster *c)
{
        struct follow *f = arg;

        if (!c)
                f->finished = true;
        else if (cluster_runs(c) && f->monitor < 0 && !f->asked)
                ask(f);
        else if (c->desired != DESIRED_RUNNING)
                f->at_end = false; /* one last look */
        if (f->started)
                http_stream_more(f->q);
}

static void take_reply(struct follow *f, struct node_reply *reply)
{
        log_files_done(&f->files);
        f->files.fd[0] = reply->n_fds > 0 ? fd_take(&reply->fds[0]) : -EBADF;
        f->files.fd[1] = reply->n_fds > 1 ? fd_take(&reply->fds[1]) : -EBADF;
        drop_monitor(f);
        if (f->follow && reply->n_fds > 2)
                f->monitor = fd_take(&reply->fds[2]);
        f->at_end = false;
        if (!f->started && f->has_tail)
                f->pos = log_files_tail(&f->files, &f->filter, f->tail);
}

static void on_files(void *arg, struct node_reply *reply)
{
        struct follow *f = arg;
        bool absent = reply->r == -ENOENT; /* the engine has not heard of it yet: an empty log */

        f->asked = 0;
        if (reply->r >= 0)
                take_reply(f, reply);
        if (f->started) {
                if (reply->r < 0)
                        f->finished = reply->r != -ENOTCONN && !absent;
                http_stream_more(f->q);
                return;
        }
        if (reply->r < 0 && !absent) {
                http_reply_error(f->q, http_status_of(reply->r), "%s", reply->message);
                return;
        }
        f->started = true;
        http_reply_stream(f->q, "text/plain; charset=utf-8", read_stream);
}

static void ask(struct follow *f)
{
        struct err e = { 0 };
        int64_t r =
                node_request(plane_node(f->q->plane), "logs", json_pack("{s:s}", "cluster", f->id),
                             NULL, 0, ASK_TIMEOUT_US, on_files, NULL, f, &e);

        if (r > 0)
                f->asked = r;
        else if (!f->started)
                http_reply_error(f->q, http_status_of((int) r), "%s", e.msg);
}

/* ---- parameters ---- */

static int parse_since(const char *text, char ret[static 32], struct err *e)
{
        uint64_t at, ago;

        if (str_empty(text))
                return 0;
        if (str_duration_us(text, &ago) >= 0)
                at = clock_wall_us() - (ago < clock_wall_us() ? ago : clock_wall_us());
        else if (clock_parse(text, &at) < 0)
                return err_set(
                        e, -EINVAL,
                        "since: '%.40s' must be a time such as 2030-01-31T12:00:00Z or a duration such as 10m",
                        text);
        clock_format(at, ret, 32);
        ret[strcspn(ret, "Z")] = '\0'; /* lines have nanoseconds: compare what both have */
        return 0;
}

static int parse(struct follow *f, struct err *e)
{
        const char *tail = http_param(f->q, "tail"), *stream = http_param(f->q, "stream");

        f->follow = http_param_true(f->q, "follow");
        f->filter.timestamps = http_param_true(f->q, "timestamps");
        f->filter.want[ATTACH_STDOUT] = !str_eq(stream, "stderr");
        f->filter.want[ATTACH_STDERR] = !str_eq(stream, "stdout");
        if (!str_empty(stream) && !str_eq(stream, "stdout") && !str_eq(stream, "stderr"))
                return err_set(e, -EINVAL, "stream: must be stdout or stderr");
        f->has_tail = !str_empty(tail) && !str_eq(tail, "all");
        if (f->has_tail && str_u64(tail, 0, UINT32_MAX, &f->tail) < 0)
                return err_set(e, -EINVAL, "tail: '%.20s' must be a number of lines", tail);
        return parse_since(http_param(f->q, "since"), f->filter.since, e);
}

void handle_logs(struct http_request *q)
{
        struct follow *f = calloc(1, sizeof *f);
        struct err e = { 0 };
        int r = 0;

        if (f) {
                f->q = q;
                f->monitor = -EBADF;
                log_files_init(&f->files);
                q->priv = f;
                q->end = follow_end;
                f->id = strdup(q->arg);
        }
        if (!f || !f->id)
                r = err_set(&e, -ENOMEM, "out of memory");
        else if (!plane_cluster(q->plane, &q->ctx.who, q->arg))
                r = err_set(&e, -ENOENT, "cluster not found");
        else
                r = parse(f, &e);
        if (r >= 0 && f && f->follow) {
                f->use = plane_use_new(q->plane, f->id);
                r = plane_watch_new(q->plane, f->id, on_report, f, &f->watch);
        }
        if (r < 0) {
                http_reply_error(q, http_status_of(r), "%s", e.msg);
                return;
        }
        ask(f);
}
