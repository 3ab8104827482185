/* exec.c - GET /v1/clusters/{}/exec: the WebSocket side.  tensorone-api, loop thread.
 *
 * The engine starts the session first; only then is the connection upgraded, so that a failure is
 * an ordinary HTTP answer.  From there on session.c carries bytes. */
#include <errno.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/jsonx.h"
#include "control/rest/http_priv.h"
#include "control/rest/session.h"
#include "model/limits.h"

#define PROTOCOL       "tensorone.exec.v1"
#define ASK_TIMEOUT_US (30 * US_PER_S)

struct exec {
        struct http_request *q;
        int64_t asked;
        int monitor;
        struct plane_use *use; /* from the request on */
        char *session; /* the one to come back to, or the new one that is kept; NULL: neither */
        bool resume, acks;
        uint64_t from, keep_s;
        char *refused; /* told in the WebSocket */
        bool gone;
        char accept[UPGRADE_KEY_BYTES];
        struct http_server *server;
        sd_event *loop;
};

static void exec_end(void *priv)
{
        struct exec *x = priv;

        if (x->asked)
                node_cancel(plane_node(x->q->plane), x->asked);
        (void) fd_close(x->monitor);
        (void) plane_use_free(x->use);
        free(x->session);
        free(x->refused);
        free(x);
}

/* The connection is ours now. */
static void on_upgrade(void *arg, struct MHD_Connection *conn, void *con_cls, const char *extra,
                       size_t extra_len, MHD_socket fd, struct MHD_UpgradeResponseHandle *urh)
{
        struct http_request *q = con_cls;
        struct exec *x = q->priv;
        const struct session_conf conf = { .server = x->server,
                                           .loop = x->loop,
                                           .fd = fd,
                                           .urh = urh,
                                           .early = extra,
                                           .early_len = extra_len,
                                           .use = TAKE(x->use),
                                           .id = x->session,
                                           .resume = x->resume,
                                           .from = x->from,
                                           .acks = x->acks,
                                           .key = q->ctx.who.key };

        (void) arg;
        (void) conn;
        if ((x->refused ? session_refuse(&conf, x->refused, x->gone)
                        : session_new(&conf, fd_take(&x->monitor))) < 0)
                (void) MHD_upgrade_action(urh, MHD_UPGRADE_ACTION_CLOSE);
}

/* A page learns nothing of an upgrade that fails, so it is told in the WebSocket. */
static void refuse(struct exec *x, int r, const char *sentence)
{
        if (*x->q->ticket)
                x->refused = str_dup(sentence);
        x->gone = r == -ENOENT;
        if (x->refused)
                upgrade_reply(x->q, PROTOCOL, x->accept, on_upgrade);
        else
                http_reply_error(x->q, http_status_of(r), "%s", sentence);
}

static void on_started(void *arg, struct node_reply *reply)
{
        struct exec *x = arg;
        const char *id = reply->r < 0 ? NULL : jsonx_str(reply->result, "session");

        x->asked = 0;
        if (!accounts_key_account(plane_accounts(x->q->plane), x->q->ctx.who.key)) {
                http_reply_error(x->q, MHD_HTTP_UNAUTHORIZED, "the API key was removed");
                return;
        }
        if (reply->r < 0 || reply->n_fds < 1) {
                refuse(x, reply->r < 0 ? reply->r : -EIO,
                       reply->r < 0 ? reply->message : "the engine gave no session");
                return;
        }
        if (x->keep_s && !x->session) {
                x->session = str_dup(id);
                if (!x->session) {
                        refuse(x, -ENOMEM, "out of memory");
                        return;
                }
        }
        x->monitor = fd_take(&reply->fds[0]);
        upgrade_reply(x->q, PROTOCOL, x->accept, on_upgrade);
}

static json_t *list_of(char *const *v)
{
        json_t *list = json_array();

        for (; v && *v; v++)
                (void) json_array_append_new(list, json_string(*v));
        return list;
}

/* 0: it was not given. */
static int number_param(const struct exec *x, const char *name, uint64_t max, uint64_t *ret,
                        struct err *e)
{
        const char *text = http_param(x->q, name);

        *ret = 0;
        if (text && str_u64(text, 0, max, ret) < 0)
                return err_set(e, -EINVAL, "%s: '%.20s' is not a number from 0 to %llu", name, text,
                               (unsigned long long) max);
        return 0;
}

/* Back to a session that was kept. */
static int ask_again(struct exec *x, const struct cluster *c, struct err *e)
{
        json_t *args;
        int64_t r;

        if (number_param(x, "from", INT64_MAX, &x->from, e) < 0)
                return e->code;
        args = json_pack("{s:s, s:s}", "cluster", c->id, "session", x->session);
        if (!args)
                return err_set(e, -EINVAL, "session: must be UTF-8");
        audit_detail(&x->q->audit, "attach");
        x->resume = true;
        r = node_request(plane_node(x->q->plane), "attach", args, NULL, 0, ASK_TIMEOUT_US,
                         on_started, NULL, x, e);
        x->asked = r > 0 ? r : 0;
        return r < 0 ? (int) r : 0;
}

static int ask(struct exec *x, const struct cluster *c, struct err *e)
{
        AUTO(strv_free) char **argv = NULL, **env = NULL;
        uint64_t rows, cols;
        json_t *args;
        int64_t r;

        if (number_param(x, "rows", UINT16_MAX, &rows, e) < 0 ||
            number_param(x, "cols", UINT16_MAX, &cols, e) < 0 ||
            number_param(x, "keep", UINT16_MAX, &x->keep_s, e) < 0)
                return e->code;
        if (http_params(x->q, "cmd", &argv) < 0 || http_params(x->q, "env", &env) < 0)
                return err_set(e, -ENOMEM, "out of memory");
        if (!argv || strv_len(argv) > LIMIT_ARGV_ENTRIES)
                return err_set(e, -EINVAL, "cmd: give 1 to %u words, each as cmd=WORD",
                               LIMIT_ARGV_ENTRIES);
        if (strv_len(env) > LIMIT_ENV_ENTRIES)
                return err_set(e, -E2BIG, "env: %zu variables, at most %u are allowed",
                               strv_len(env), LIMIT_ENV_ENTRIES);
        audit_detail(&x->q->audit, argv[0]); /* and no more of it: arguments may hold passwords */
        args = json_pack("{s:s, s:o, s:o, s:s?, s:s?, s:b, s:I, s:I, s:I, s:o}", "cluster", c->id,
                         "argv", list_of(argv), "env", list_of(env), "cwd", http_param(x->q, "cwd"),
                         "user", http_param(x->q, "user"), "tty", http_param_true(x->q, "tty"),
                         "rows", (json_int_t) rows, "cols", (json_int_t) cols, "keep_seconds",
                         (json_int_t) x->keep_s, "secrets", plane_session_secrets(x->q->plane, c));
        if (!args)
                return err_set(e, -EINVAL, "cmd, env, cwd, user: must be UTF-8");
        r = node_request(plane_node(x->q->plane), "exec", args, NULL, 0, ASK_TIMEOUT_US, on_started,
                         NULL, x, e);
        x->asked = r > 0 ? r : 0;
        return r < 0 ? (int) r : 0;
}

int cluster_exec_ready(const struct cluster *c, struct err *e)
{
        if (!c)
                return err_set(e, -ENOENT, "cluster not found");
        if (!cluster_runs(c))
                return err_set(e, -EBUSY, "cluster %s is not running (%s)%s%s", c->id,
                               cluster_phase(c), c->reason ? ": " : "", c->reason ? c->reason : "");
        return 0;
}

void handle_exec(struct http_request *q)
{
        const struct cluster *c = plane_cluster(q->plane, &q->ctx.who, q->arg);
        struct exec *x = calloc(1, sizeof *x);
        struct err e = { 0 };
        int r;

        if (!x) {
                http_reply_error(q, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory");
                return;
        }
        *x = (struct exec){
                .q = q, .monitor = -EBADF, .server = q->server, .loop = plane_loop(q->plane)
        };
        q->priv = x;
        q->end = exec_end;
        r = cluster_exec_ready(c, &e);
        if (r >= 0)
                r = upgrade_check(q, PROTOCOL, x->accept, &e);
        if (r >= 0) {
                x->session = str_dup(http_param(q, "session"));
                x->acks = http_param_true(q, "acks");
                r = x->session ? ask_again(x, c, &e) : ask(x, c, &e);
                x->use = plane_use_new(q->plane, c->id);
        }
        if (r < 0)
                http_reply_error(q, http_status_of(r), "%s", e.msg);
}
