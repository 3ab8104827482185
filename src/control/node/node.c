/* node.c - see node.h.  Runs in tensorone-api on the loop thread.
 *
 * What always holds: without a connection there is exactly one of a pending retry timer or a
 * connection attempt; every request in `requests` belongs to the present connection. */
#include "control/node/node.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/frame.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/map.h"
#include "base/str.h"
#include "control/node/node_priv.h"

#define RETRY_FIRST_US (20 * US_PER_MS)
#define RETRY_LAST_US  (2 * US_PER_S)
#define BATCH          64 /* messages per turn of the loop */
#define PROTOCOL       1

struct request {
        struct node *node;
        int64_t number;
        node_done_fn *done;
        node_progress_fn *progress;
        void *arg;
        sd_event_source *timeout; /* NULL: none */
};

struct node {
        sd_event *loop;
        char *path;
        const struct node_ops *ops;
        void *arg;
        struct frame_conn *conn; /* NULL: not connected */
        sd_event_source *io, *retry;
        uint64_t retry_us;
        bool hello, synced, complained;
        struct map *requests; /* number as text -> struct request */
        int64_t last_number;
};

static void connect_now(struct node *n);

/* ---- requests ---- */

static void number_key(int64_t number, char ret[24])
{
        (void) snprintf(ret, 24, "%lld", (long long) number);
}

static struct request *request_take(struct node *n, int64_t number)
{
        char key[24];

        number_key(number, key);
        return map_del(n->requests, key);
}

static struct request *request_free(struct request *q)
{
        q->timeout = sd_event_source_disable_unref(q->timeout);
        free(q);
        return NULL;
}

/* @q is off the map already: its done function may ask again. */
static void request_end(struct request *q, struct node_reply *reply)
{
        node_done_fn *done = q->done;
        void *arg = q->arg;

        (void) request_free(q);
        done(arg, reply);
}

static void fail_all(struct node *n, int r, const char *message)
{
        for (;;) {
                struct map_entry *i = map_first(n->requests);
                struct node_reply reply = { .r = r, .message = message };

                if (!i)
                        return;
                request_end(map_del(n->requests, map_key(i)), &reply);
        }
}

static int on_timeout(sd_event_source *s, uint64_t usec, void *arg)
{
        struct request *q = arg;
        struct node_reply reply = { .r = -ETIMEDOUT,
                                    .message = "the engine did not answer in time" };

        (void) s;
        (void) usec;
        if (request_take(q->node, q->number))
                request_end(q, &reply);
        return 0;
}

/* ---- sending ---- */

static int update_events(struct node *n)
{
        return sd_event_source_set_io_events(n->io,
                                             frame_pending(n->conn) ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

static void lose(struct node *n, const char *why)
{
        bool was = n->conn != NULL;

        n->io = sd_event_source_disable_unref(n->io);
        n->conn = frame_conn_free(n->conn);
        n->synced = n->hello = false;
        if (was && !n->complained)
                log_warn("node %s: %s; trying again", n->path, why);
        n->complained = true;
        fail_all(n, -ENOTCONN, "the engine is not connected; it may be starting again");
        if (was)
                n->ops->lost(n->arg);
        (void) sd_event_source_set_time_relative(n->retry, n->retry_us);
        (void) sd_event_source_set_enabled(n->retry, SD_EVENT_ONESHOT);
        n->retry_us = n->retry_us * 2 > RETRY_LAST_US ? RETRY_LAST_US : n->retry_us * 2;
}

/* Steals @msg.  A failed send is a lost connection; the loop notices at the next read, because
 * the owner may be in the middle of something. */
static int post(struct node *n, json_t *msg, const int *fds, size_t n_fds)
{
        AUTO(json_put) json_t *m = msg;
        int r;

        if (!m)
                return -ENOMEM;
        if (!n->conn)
                return -ENOTCONN;
        r = frame_send(n->conn, m, fds, n_fds);
        if (r >= 0)
                return update_events(n);
        (void) shutdown(frame_conn_fd(n->conn), SHUT_RDWR);
        return r;
}

/* The engine hears of it too: what nobody waits for need not go on. */
void node_cancel(struct node *n, int64_t number)
{
        struct request *q = request_take(n, number);

        if (!q)
                return;
        (void) request_free(q);
        if (n->synced)
                (void) post(n,
                            json_pack("{s:s, s:I}", "type", "cancel", "req", (json_int_t) number),
                            NULL, 0);
}

void node_assign(struct node *n, const char *cluster, uint64_t generation, bool run,
                 const json_t *plan, const json_t *credentials, const json_t *secrets,
                 const char *ssh_keys)
{
        if (n->synced)
                (void) post(n,
                            json_pack("{s:s, s:s, s:I, s:s, s:O, s:O*, s:O*, s:s*}", "type",
                                      "assign", "cluster", cluster, "generation",
                                      (json_int_t) generation, "desired",
                                      run ? "running" : "stopped", "plan", plan, "credentials",
                                      credentials, "secrets", secrets, "ssh_keys", ssh_keys),
                            NULL, 0);
}

static void post_generation(struct node *n, const char *type, const char *cluster,
                            uint64_t generation)
{
        if (n->conn)
                (void) post(n,
                            json_pack("{s:s, s:s, s:I}", "type", type, "cluster", cluster,
                                      "generation", (json_int_t) generation),
                            NULL, 0);
}

void node_tombstone(struct node *n, const char *cluster, uint64_t generation)
{
        if (n->synced)
                post_generation(n, "tombstone", cluster, generation);
}

void node_forget(struct node *n, const char *cluster, uint64_t generation)
{
        post_generation(n, "forget", cluster, generation);
}

void node_keys(struct node *n, const char *account, const json_t *keys)
{
        if (n->synced)
                (void) post(n,
                            json_pack("{s:s, s:s, s:O}", "type", "keys", "account", account, "keys",
                                      keys),
                            NULL, 0);
}

void node_keys_said(struct node *n)
{
        if (n->synced)
                (void) post(n, json_pack("{s:s, s:b}", "type", "keys", "complete", 1), NULL, 0);
}

int64_t node_request(struct node *n, const char *op, json_t *args, const int *fds, size_t n_fds,
                     uint64_t timeout_us, node_done_fn *done, node_progress_fn *progress, void *arg,
                     struct err *e)
{
        struct request *q;
        char key[24];
        int r;

        if (!n->synced) {
                json_decref(args);
                return err_set(e, -ENOTCONN, "the engine is not connected; try again in a moment");
        }
        q = calloc(1, sizeof *q);
        if (!q) {
                json_decref(args);
                return err_set(e, -ENOMEM, "out of memory");
        }
        *q = (struct request){ n, ++n->last_number, done, progress, arg, NULL };
        number_key(q->number, key);
        r = map_set(n->requests, key, q);
        if (r >= 0 && timeout_us)
                r = sd_event_add_time_relative(n->loop, &q->timeout, CLOCK_MONOTONIC, timeout_us, 0,
                                               on_timeout, q);
        if (r >= 0)
                r = post(n,
                         json_pack("{s:s, s:I, s:s, s:o}", "type", "request", "req",
                                   (json_int_t) q->number, "op", op, "args", args),
                         fds, n_fds);
        else
                json_decref(args);
        if (r >= 0)
                return q->number;
        (void) map_del(n->requests, key);
        (void) request_free(q);
        return err_errno(e, r, "ask the engine for %s", op);
}

/* ---- receiving ---- */

static void on_hello(struct node *n, struct frame_msg *m)
{
        const char *node = jsonx_str(m->json, "node");
        const json_t *raw = json_object_get(m->json, "inventory");
        struct node_inventory inv = { 0 };
        struct err e = { 0 };
        int r = 0;

        if (json_integer_value(json_object_get(m->json, "version")) != PROTOCOL)
                r = err_set(&e, -EPROTO, "the engine speaks another version of the node protocol");
        else if (str_empty(node) || strlen(node) > NODE_ID_LEN)
                r = err_set(&e, -EPROTO, "hello without a node name");
        if (r >= 0)
                r = node_inventory_decode(raw, &inv, &e);
        if (r < 0) {
                lose(n, e.msg);
                return;
        }
        n->hello = true;
        n->ops->hello(n->arg, node, &inv, raw);
        node_inventory_done(&inv);
        (void) post(n, json_pack("{s:s, s:i}", "type", "welcome", "version", PROTOCOL), NULL, 0);
}

static void on_synced(struct node *n, struct frame_msg *m)
{
        (void) m;
        n->synced = true;
        n->complained = false;
        n->retry_us = RETRY_FIRST_US;
        log_info("node %s: connected", n->path);
        n->ops->synced(n->arg);
}

static void on_facts(struct node *n, struct frame_msg *m)
{
        struct node_facts f = { 0 };
        struct err e = { 0 };

        if (node_facts_decode(m->json, &f, &e) < 0) {
                log_warn("node %s: %s", n->path, e.msg);
                return;
        }
        n->ops->facts(n->arg, &f);
        node_facts_done(&f);
}

static void on_gpus(struct node *n, struct frame_msg *m)
{
        struct node_gpus g = { 0 };
        struct err e = { 0 };

        if (node_gpus_decode(m->json, &g, &e) < 0) {
                log_warn("node %s: %s", n->path, e.msg);
                return;
        }
        n->ops->gpus(n->arg, &g);
        node_gpus_done(&g);
}

static void on_report(struct node *n, struct frame_msg *m)
{
        struct node_report r = { 0 };
        struct err e = { 0 };

        if (node_report_decode(m->json, &r, &e) < 0) {
                log_warn("node %s: %s", n->path, e.msg); /* one bad report, not the connection */
                return;
        }
        n->ops->report(n->arg, &r);
        node_report_done(&r);
}

static void on_telemetry(struct node *n, struct frame_msg *m)
{
        struct gpu_telemetry *t = NULL;
        struct err e = { 0 };
        size_t count = 0;

        if (node_telemetry_decode(m->json, &t, &count, &e) < 0)
                log_warn("node %s: %s", n->path, e.msg);
        else
                n->ops->telemetry(n->arg, t, count);
}

static void on_event(struct node *n, struct frame_msg *m)
{
        struct node_event ev = { 0 };
        struct err e = { 0 };

        if (node_event_decode(m->json, &ev, &e) < 0)
                log_warn("node %s: %s", n->path, e.msg);
        else
                n->ops->event(n->arg, &ev);
}

static void on_security(struct node *n, struct frame_msg *m)
{
        struct node_security s = { 0 };
        struct err e = { 0 };

        if (node_security_decode(m->json, &s, &e) < 0)
                log_warn("node %s: %s", n->path, e.msg);
        else
                n->ops->security(n->arg, &s);
}

static void on_inner(struct node *n, struct frame_msg *m)
{
        if (m->n_fds >= 1)
                n->ops->inner(n->arg, fd_take(&m->fds[0]));
}

static void on_reply(struct node *n, struct frame_msg *m)
{
        json_int_t err_no = json_integer_value(json_object_get(m->json, "errno"));
        const char *text = jsonx_str(m->json, "message");
        struct request *q = request_take(n, json_integer_value(json_object_get(m->json, "req")));
        struct node_reply reply = { .fds = m->fds, .n_fds = m->n_fds };

        if (!q)
                return; /* cancelled or too late; the descriptors are closed with the message */
        if (json_is_true(json_object_get(m->json, "ok"))) {
                reply.result = json_object_get(m->json, "result");
        } else {
                reply.r = err_no > 0 && err_no < 4096 ? (int) -err_no : -EIO;
                reply.message = str_empty(text) ? "the engine refused" : text;
        }
        request_end(q, &reply);
}

static void on_progress(struct node *n, struct frame_msg *m)
{
        struct node_progress g = { 0 };
        const struct request *q;
        char key[24];

        number_key(json_integer_value(json_object_get(m->json, "req")), key);
        q = map_get(n->requests, key);
        if (q && q->progress && node_progress_decode(m->json, &g) >= 0)
                q->progress(q->arg, &g);
}

static const struct {
        const char *type;
        bool before_hello;
        void (*fn)(struct node *n, struct frame_msg *m);
} handlers[] = {
        { "hello", true, on_hello },          { "facts", false, on_facts },
        { "gpus", false, on_gpus },           { "report", false, on_report },
        { "synced", false, on_synced },       { "inner", false, on_inner },
        { "reply", false, on_reply },         { "progress", false, on_progress },
        { "telemetry", false, on_telemetry }, { "event", false, on_event },
        { "security", false, on_security },
};

static void dispatch(struct node *n, struct frame_msg *m)
{
        const char *type = jsonx_str(m->json, "type");

        for (size_t i = 0; i < NELEM(handlers); i++) {
                if (!str_eq(type, handlers[i].type))
                        continue;
                if (handlers[i].before_hello != n->hello)
                        handlers[i].fn(n, m);
                return;
        }
}

/* Loop handler: a bounded number of messages. */
static int on_io(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct node *n = arg;

        (void) s;
        (void) fd;
        if (revents & EPOLLOUT && frame_flush(n->conn) < 0) {
                lose(n, "the connection broke");
                return 0;
        }
        for (int i = 0; n->conn && (i < BATCH || frame_ready(n->conn)); i++) {
                AUTO(frame_msg_done) struct frame_msg m = { 0 };
                struct err e = { 0 };
                int r = frame_recv(n->conn, &m, &e);

                if (r < 0)
                        lose(n, str_empty(e.msg) ? strerror(-r) : e.msg);
                else if (r > 0)
                        dispatch(n, &m);
                if (r <= 0)
                        break;
        }
        return n->conn ? update_events(n) : 0;
}

/* ---- the connection ---- */

static int dial(struct node *n, struct err *e)
{
        struct sockaddr_un sa = { .sun_family = AF_UNIX };
        AUTO(fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        int r;

        if (fd < 0)
                return err_errno(e, -errno, "socket");
        (void) snprintf(sa.sun_path, sizeof sa.sun_path, "%s", n->path);
        if (connect(fd, (const struct sockaddr *) &sa, sizeof sa) < 0)
                return err_errno(e, -errno, "connect");
        r = frame_conn_new(fd_take(&fd), &n->conn);
        if (r < 0)
                return err_errno(e, r, "connection");
        r = sd_event_add_io(n->loop, &n->io, frame_conn_fd(n->conn), EPOLLIN, on_io, n);
        return r < 0 ? err_errno(e, r, "event source") : 0;
}

static void connect_now(struct node *n)
{
        struct err e = { 0 };

        if (dial(n, &e) >= 0)
                return;
        if (!n->complained)
                log_warn("node %s: %s; trying again", n->path, e.msg);
        n->complained = true;
        lose(n, e.msg);
}

static int on_retry(sd_event_source *s, uint64_t usec, void *arg)
{
        (void) s;
        (void) usec;
        connect_now(arg);
        return 0;
}

int node_new(sd_event *loop, const char *path, const struct node_ops *ops, void *arg,
             struct node **ret, struct err *e)
{
        AUTO(node_free) struct node *n = calloc(1, sizeof *n);
        struct sockaddr_un sa;
        int r;

        if (!n)
                return err_set(e, -ENOMEM, "out of memory");
        if (strlen(path) >= sizeof sa.sun_path)
                return err_set(e, -ENAMETOOLONG, "--node: a socket path has at most %zu bytes",
                               sizeof sa.sun_path - 1);
        n->ops = ops;
        n->arg = arg;
        n->loop = loop;
        n->retry_us = RETRY_FIRST_US;
        n->path = strdup(path);
        n->requests = map_new();
        if (!n->path || !n->requests)
                return err_set(e, -ENOMEM, "out of memory");
        r = sd_event_add_time_relative(loop, &n->retry, CLOCK_MONOTONIC, 0, 1, on_retry, n);
        if (r < 0)
                return err_errno(e, r, "timer");
        *ret = TAKE(n);
        return 0;
}

struct node *node_free(struct node *n)
{
        if (!n)
                return NULL;
        if (n->requests)
                fail_all(n, -ECANCELED, "the API is stopping");
        n->requests = map_free(n->requests);
        n->io = sd_event_source_disable_unref(n->io);
        n->retry = sd_event_source_disable_unref(n->retry);
        n->conn = frame_conn_free(n->conn);
        free(n->path);
        free(n);
        return NULL;
}

bool node_connected(const struct node *n)
{
        return n->synced;
}
