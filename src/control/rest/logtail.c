/* logtail.c - see logtail.h.  tensorone-api, loop thread.
 *
 * Theory of operation.  The engine hands over the two log files and, while the cluster runs, a
 * connection to its monitor.  What is in the files is sent first; a follower then asks the monitor
 * for LOG packets from that absolute offset on.  When the monitor goes (restart, stop), a follower
 * reads what is left in the files and waits for the next report: running again means asking the
 * engine again, stopped or gone ends the stream. */
#include "control/rest/logtail.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "model/attach_codec.h"

#define ASK_TIMEOUT_US (15 * US_PER_S)
#define READ_BLOCK     (64U << 10)
#define OUT_HIGH       (256U << 10) /* unsent bytes above which nothing more is read */

struct log_tail {
        struct log_tail_conf conf;
        char *id;
        bool started;
        int64_t asked; /* request to the engine, 0: none */
        struct log_files files;
        uint64_t pos;     /* next byte to be read */
        bool at_end;      /* the files are read */
        struct strbuf in; /* a line that is not whole yet */
        struct strbuf out;

        int monitor;
        sd_event_source *io;
        struct attach_parser parser;
        uint8_t *parser_buf;
        struct plane_watch *watch;
        struct plane_use *use; /* who follows it uses it */
        bool finished;
        char why[200]; /* the engine's word for a failure */
};

static int ask(struct log_tail *f, struct err *e);

static void drop_monitor(struct log_tail *f)
{
        f->io = sd_event_source_disable_unref(f->io);
        f->monitor = fd_close(f->monitor);
}

struct log_tail *log_tail_free(struct log_tail *f)
{
        if (!f)
                return NULL;
        if (f->asked)
                node_cancel(plane_node(f->conf.plane), f->asked);
        f->watch = plane_watch_free(f->watch);
        f->use = plane_use_free(f->use);
        drop_monitor(f);
        log_files_done(&f->files);
        strbuf_done(&f->in);
        strbuf_done(&f->out);
        free(f->parser_buf);
        free(f->id);
        free(f);
        return NULL;
}

DEFINE_AUTO(struct log_tail *, log_tail_free)

const char *log_tail_error(const struct log_tail *f)
{
        return f->why[0] ? f->why : NULL;
}

/* ---- the monitor ---- */

static void on_log_packet(struct log_tail *f, const struct attach_packet *p)
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
        (void) log_filter_lines(&f->conf.filter, lines, len, &f->out);
        f->pos = offset < f->pos ? f->pos + len : offset + len;
}

static int on_monitor(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct log_tail *f = arg;
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
        f->conf.more(f->conf.arg);
        return 0;
}

/* Say hello and ask for everything from f->pos on. */
static int start_monitor(struct log_tail *f)
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
        return sd_event_add_io(plane_loop(f->conf.plane), &f->io, f->monitor, EPOLLIN, on_monitor,
                               f);
}

/* ---- the stream ---- */

static void read_files(struct log_tail *f)
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
                used = log_filter_lines(&f->conf.filter, f->in.s, f->in.len, &f->out);
                strbuf_drop_front(&f->in, used);
        }
}

/* Whether more may come. */
static bool may_go_on(struct log_tail *f)
{
        const struct cluster *c = plane_cluster(f->conf.plane, f->conf.who, f->id);

        return f->conf.follow && !f->finished && c &&
               (c->desired == DESIRED_RUNNING || f->monitor >= 0 || f->asked);
}

ssize_t log_tail_read(struct log_tail *f, char *buf, size_t max)
{
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
        struct log_tail *f = arg;

        if (!c)
                f->finished = true;
        else if (cluster_runs(c) && f->monitor < 0 && !f->asked)
                (void) ask(f, NULL); /* with the next report, then */
        else if (c->desired != DESIRED_RUNNING)
                f->at_end = false; /* one last look */
        if (f->started)
                f->conf.more(f->conf.arg);
}

static void take_reply(struct log_tail *f, struct node_reply *reply)
{
        log_files_done(&f->files);
        f->files.fd[0] = reply->n_fds > 0 ? fd_take(&reply->fds[0]) : -EBADF;
        f->files.fd[1] = reply->n_fds > 1 ? fd_take(&reply->fds[1]) : -EBADF;
        drop_monitor(f);
        if (f->conf.follow && reply->n_fds > 2)
                f->monitor = fd_take(&reply->fds[2]);
        f->at_end = false;
        if (!f->started && f->conf.has_tail)
                f->pos = log_files_tail(&f->files, &f->conf.filter, f->conf.tail);
}

static void on_files(void *arg, struct node_reply *reply)
{
        struct log_tail *f = arg;
        bool absent = reply->r == -ENOENT; /* the engine has not heard of it yet: an empty log */

        f->asked = 0;
        if (reply->r >= 0)
                take_reply(f, reply);
        if (f->started) {
                f->finished = reply->r < 0 && reply->r != -ENOTCONN && !absent;
                if (f->finished)
                        (void) snprintf(f->why, sizeof f->why, "%s", reply->message);
                f->conf.more(f->conf.arg);
                return;
        }
        f->started = reply->r >= 0 || absent;
        f->conf.opened(f->conf.arg, f->started ? 0 : reply->r, reply->message);
}

static int ask(struct log_tail *f, struct err *e)
{
        int64_t r = node_request(plane_node(f->conf.plane), "logs",
                                 json_pack("{s:s}", "cluster", f->id), NULL, 0, ASK_TIMEOUT_US,
                                 on_files, NULL, f, e);

        if (r > 0)
                f->asked = r;
        return r < 0 ? (int) r : 0;
}

int log_tail_new(const struct log_tail_conf *conf, struct log_tail **ret, struct err *e)
{
        AUTO(log_tail_free) struct log_tail *f = calloc(1, sizeof *f);
        int r = 0;

        if (!f)
                return err_set(e, -ENOMEM, "out of memory");
        f->conf = *conf;
        f->monitor = -EBADF;
        log_files_init(&f->files);
        f->id = strdup(conf->id);
        f->conf.id = f->id;
        if (!f->id)
                return err_set(e, -ENOMEM, "out of memory");
        if (!plane_cluster(conf->plane, conf->who, conf->id))
                return err_set(e, -ENOENT, "cluster not found");
        if (conf->follow) {
                f->use = plane_use_new(conf->plane, f->id);
                r = plane_watch_new(conf->plane, f->id, on_report, f, &f->watch);
        }
        if (r < 0)
                return err_set(e, r, "out of memory");
        r = ask(f, e);
        if (r < 0)
                return r;
        *ret = TAKE(f);
        return 0;
}
