/* access.c - reading a cluster's logs and running further processes in it.
 * exec_body runs in an operation process, everything else on the loop. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/str.h"
#include "engine/boot/session.h"
#include "engine/fleet/kept.h"
#include "engine/fleet/unit.h"
#include "engine/op/listen.h"
#include "model/limits.h"
#include "model/secret.h"

#define EXEC_TIMEOUT_US (30 * US_PER_S)
#define MAX_STARTING    64

struct exec_session {
        struct exec_session *next;
        struct fleet *fleet;
        char id[KEPT_ID_BYTES];
        char cluster[16];
        char *account; /* whose cluster it is */
        char **argv, **env;
        char *cwd, *user;
        bool tty;
        uint16_t rows, cols;
        uint32_t keep_s;
        uint32_t slot;
        char apparmor[APPARMOR_NAME_MAX]; /* as its first process */
        int init_pidfd;
        struct plan *plan; /* borrowed; valid in the forked child */
        struct op *op;
        int fd; /* connection to the session's monitor */
        fleet_exec_fn *done;
        void *arg;
};

static struct exec_session *session_free(struct exec_session *x)
{
        if (!x)
                return NULL;
        (void) strv_free(x->argv);
        (void) secrets_free(x->env);
        free(x->account);
        free(x->cwd);
        free(x->user);
        (void) fd_close(x->init_pidfd);
        (void) fd_close(x->fd);
        free(x);
        return NULL;
}

DEFINE_AUTO(struct exec_session *, session_free)

int fleet_logs(struct fleet *f, const char *cluster, int ret_fds[static 3], struct err *e)
{
        struct unit *u = unit_find(f, cluster);
        AUTO(fd) int a = -EBADF;
        AUTO(fd) int b = -EBADF;
        char path[64];
        int conn;

        if (!u)
                return err_set(e, -ENOENT, "cluster %s is not on this host", cluster);
        (void) snprintf(path, sizeof path, "%s/log.0", cluster);
        a = fd_open_beneath(f->spec.host->clusters, path, O_RDONLY, 0);
        (void) snprintf(path, sizeof path, "%s/log.1", cluster);
        b = fd_open_beneath(f->spec.host->clusters, path, O_RDONLY, 0);
        if (a < 0 || b < 0) { /* it has never run: an empty log, not an error */
                (void) fd_close(a);
                (void) fd_close(b);
                a = memfd_create("log", MFD_CLOEXEC);
                b = memfd_create("log", MFD_CLOEXEC);
                if (a < 0 || b < 0)
                        return err_errno(e, -errno, "open the log");
        }
        ret_fds[0] = fd_take(&a);
        ret_fds[1] = fd_take(&b);
        if (u->row.state != CS_RUNNING)
                return 2;
        boot_socket_name(cluster, u->row.attempt, path);
        conn = op_connect(f->spec.host->inst->run_fd, path, NULL);
        if (conn < 0)
                return 2; /* it is ending just now; what it wrote is in the files */
        ret_fds[2] = conn;
        return 3;
}

static void session_socket(const struct exec_session *x, char ret[static 64])
{
        (void) snprintf(ret, 64, x->keep_s ? KEPT_SOCKET : "x-%s.sock", x->id);
}

static int exec_start(struct exec_session *x, int listener, int status, struct sandbox_proc *ret,
                      struct err *e)
{
        const struct host *host = x->fleet->spec.host;
        struct slice_enter enter = { .v2_dir = -EBADF }, monitor = { .v2_dir = -EBADF };
        const struct sandbox_place place = { .id_base = claim_id_base(x->slot),
                                             .monitor_uid = claim_monitor_uid(x->slot),
                                             .libexec = host->inst->libexec,
                                             .netns = -EBADF,
                                             .sysfs_mnt = -EBADF,
                                             .slice = &enter,
                                             .monitor_slice = &monitor };
        const struct sandbox_spec spec = {
                .cluster = x->cluster,
                .root_mnt = -EBADF,
                .argv = x->argv,
                .argv_field = "cmd",
                .env = x->env,
                .cwd = x->cwd,
                .user = x->user,
                .profile = plan_profile(x->plan),
                .apparmor = x->apparmor,
                .tty = x->tty,
                .rows = x->rows,
                .cols = x->cols,
                .listen_fd = listener,
                .status_fd = status,
                .log_fd = { -EBADF, -EBADF },
                .keep_s = x->keep_s,
        };
        char name[32];
        int r;

        boot_monitor_slice_name(x->slot, name);
        r = slice_enter_open(host->slices, name, &monitor, e);
        boot_slice_name(x->slot, name);
        if (r >= 0)
                r = slice_enter_open(host->slices, name, &enter, e);
        if (r >= 0)
                r = sandbox_exec(&spec, &place, x->init_pidfd, ret, e);
        slice_enter_done(&enter);
        slice_enter_done(&monitor);
        return r;
}

static int exec_body(struct frame_conn *out, void *arg, struct err *e)
{
        struct exec_session *x = arg;
        struct sandbox_proc proc = { .monitor_pidfd = -EBADF, .init_pidfd = -EBADF };
        int run = x->fleet->spec.host->inst->run_fd, r;
        AUTO(json_put) json_t *j = json_pack("{s:s}", "exec", "started");
        AUTO(fd) int status = memfd_create("status", MFD_CLOEXEC);
        AUTO(fd) int listener = -EBADF;
        AUTO(fd) int conn = -EBADF;
        char name[64];

        if (status < 0 || !j)
                return err_set(e, -ENOMEM, "out of memory");
        session_socket(x, name);
        listener = op_listen(run, name, e);
        if (listener < 0)
                return listener;
        conn = op_connect(run, name, e); /* waits in the backlog until the monitor accepts */
        if (!x->keep_s)                  /* from here on the name is not needed */
                (void) unlinkat(run, name, 0);
        if (conn < 0)
                return conn;
        r = exec_start(x, listener, status, &proc, e);
        if (r >= 0)
                r = op_report(out, j, &conn, 1);
        sandbox_proc_done(&proc);
        return r;
}

static void on_exec_report(void *arg, const struct frame_msg *m)
{
        struct exec_session *x = arg;

        if (m->n_fds == 1 && x->fd < 0)
                x->fd = fcntl(m->fds[0], F_DUPFD_CLOEXEC, 3);
}

static void unlink_session(struct exec_session *x)
{
        for (struct exec_session **at = &x->fleet->execs; *at; at = &(*at)->next) {
                if (*at != x)
                        continue;
                *at = x->next;
                return;
        }
}

static void on_exec_done(void *arg, int r, const struct err *err)
{
        struct exec_session *x = arg;
        struct fleet *f = x->fleet;
        char name[64];

        if (r < 0) { /* it may have been killed before it took the name away */
                session_socket(x, name);
                (void) unlinkat(f->spec.host->inst->run_fd, name, 0);
                kept_drop(f, x->id);
        } else if (x->keep_s) {
                kept_watch(f, x->id);
        }
        x->op = NULL;
        f->running_ops--;
        unlink_session(x);
        if (x->done)
                x->done(x->arg, r, x->id, r >= 0 ? fd_take(&x->fd) : -EBADF, err);
        (void) session_free(x);
        if (!f->closing)
                unit_settle_waiting(f);
}

/* The cluster's own environment and image defaults, then what the caller adds. */
static int exec_env(struct unit *u, const struct fleet_exec *x, char ***ret, struct err *e)
{
        AUTO(secrets_free) char **own = NULL;
        struct image image = { 0 };
        struct published ports;
        char ip[48];
        int r = unit_find_image(u, &image, e);

        if (r == -ENOENT) /* its name was taken away while it runs: our variables alone */
                r = 0;
        if (r >= 0)
                r = secret_expand(u->plan.env, x->secrets, SECRET_LEAVE_OUT, &own, e);
        if (r >= 0)
                r = session_env(&u->plan, own, &image.config, ret, e);
        unit_ports(u, &ports);
        if (r >= 0)
                r = session_ports(&ports, unit_public_ip(u, ip), ret, e);
        for (char **v = x->env; r >= 0 && v && *v; v++) {
                char *eq = strchr(*v, '=');
                AUTO(free) char *key = eq ? strndup(*v, (size_t) (eq - *v)) : NULL;

                if (!eq || eq == *v)
                        r = err_set(e, -EINVAL, "env: '%.64s' is not KEY=VALUE", eq ? "" : *v);
                else if (!key || strv_env_set(ret, key, eq + 1) < 0)
                        r = err_set(e, -ENOMEM, "out of memory");
        }
        image_done(&image);
        return r;
}

/* Root inside can stop a session's process while it is on its way, which is noticed at the end of its time
 * only.  So an account may have as many that are being started as are still free for all others: each of
 * them is a process.  Sessions that run do not count here. */
static int check_room(const struct fleet *f, const char *account, struct err *e)
{
        size_t all = 0, mine = 0;

        for (const struct exec_session *o = f->execs; o; o = o->next) {
                all++;
                mine += str_eq(o->account, account);
        }
        if (all < MAX_STARTING && mine < MAX_STARTING - all)
                return 0;
        return err_set(e, -EBUSY, "%zu sessions are being started; try again", mine ? mine : all);
}

static int name_session(struct exec_session *s, uint32_t keep_s, struct err *e)
{
        struct fleet *f = s->fleet;
        const char *id;
        int r;

        if (!keep_s) {
                (void) snprintf(s->id, sizeof s->id, "%s-%llu", s->cluster,
                                (unsigned long long) ++f->counter);
                return 0;
        }
        if (!s->tty || keep_s > KEPT_LONGEST_S)
                return err_set(e, -EINVAL, "keep: 1 to %u seconds, of a session with a terminal",
                               KEPT_LONGEST_S);
        r = kept_new(f, s->cluster, &id, e);
        if (r < 0)
                return r;
        (void) snprintf(s->id, sizeof s->id, "%s", id);
        s->keep_s = keep_s;
        return 0;
}

int fleet_attach(struct fleet *f, const char *cluster, const char *session, int *ret_fd,
                 struct err *e)
{
        return kept_connect(f, cluster ? cluster : "", session, ret_fd, e);
}

int fleet_exec(struct fleet *f, const char *cluster, const struct fleet_exec *x,
               fleet_exec_fn *done, void *arg, struct err *e)
{
        struct unit *u = unit_find(f, cluster);
        AUTO(session_free) struct exec_session *s = calloc(1, sizeof *s);
        struct op_spec spec = { .name = "exec",
                                .body = exec_body,
                                .timeout_us = EXEC_TIMEOUT_US,
                                .report = on_exec_report,
                                .done = on_exec_done };
        int r;

        if (!s)
                return err_set(e, -ENOMEM, "out of memory");
        s->fd = s->init_pidfd = -EBADF;
        if (!u || u->row.state != CS_RUNNING)
                return err_set(e, -EAGAIN, "cluster %s is not running (%s)", cluster,
                               u ? cluster_state_name(u->row.state) : "unknown");
        if (u->unreadable)
                return err_set(e, -EINVAL, "cluster %s: its plan cannot be read", cluster);
        if (strv_len(x->argv) == 0)
                return err_set(e, -EINVAL, "cmd: name a command to run");
        r = check_room(f, u->plan.account, e);
        if (r < 0)
                return r;
        s->fleet = f;
        s->plan = &u->plan;
        s->slot = u->row.slot;
        memcpy(s->apparmor, u->apparmor, sizeof s->apparmor);
        s->tty = x->tty;
        s->rows = x->rows;
        s->cols = x->cols;
        s->done = done;
        s->arg = arg;
        (void) snprintf(s->cluster, sizeof s->cluster, "%s", cluster);
        s->account = str_dup(u->plan.account);
        s->argv = strv_dup(x->argv);
        s->cwd = str_dup(x->cwd);
        s->user = str_dup(x->user);
        s->init_pidfd = fcntl(u->init_pidfd, F_DUPFD_CLOEXEC, 3);
        if (!s->argv || (u->plan.account && !s->account) || s->init_pidfd < 0)
                return err_set(e, -ENOMEM, "out of memory");
        r = exec_env(u, x, &s->env, e);
        if (r >= 0)
                r = name_session(s, x->keep_s, e);
        if (r < 0)
                return r;
        spec.body_arg = spec.arg = s;
        spec.keep = &s->init_pidfd;
        spec.n_keep = 1;
        r = op_start(f->spec.runner, &spec, &s->op, e);
        if (r < 0) {
                kept_drop(f, s->id);
                return r;
        }
        f->running_ops++;
        s->next = f->execs;
        f->execs = s;
        s = NULL;
        return 0;
}

void exec_free_all(struct fleet *f)
{
        for (struct exec_session *x = f->execs; x; x = x->next) {
                x->done = NULL;
                op_cancel(x->op);
        }
}
