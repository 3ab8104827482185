/* edge_child.c - see edge_child.h.
 *
 * What HAProxy is told is a level: the table of routes.  A new process begins with it as a file, and
 * whenever a connection to its runtime socket is made, the whole table is said again as a new version of
 * its map, which takes the place of the old one at once; after that, changes alone.
 *
 * A request is led to a cluster in one go: the look-up in the map and connect() follow each other in one thread
 * without anything between them that waits (the template sees to that).  So when a name has been deleted and
 * then all threads have come to a stop for a moment, which is what HAProxy does for any "del server", no
 * connection to its address is begun any more. */
#include "engine/edge_child.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/map.h"
#include "base/proc.h"
#include "base/str.h"
#include "edge/config.h"
#include "edge/routes.h"
#include "edge/runtime.h"
#include "engine/edge_certs.h"
#include "engine/edge_files.h"
#include "engine/edge_run.h"
#include "engine/op/listen.h"
#include "engine/op/restart.h"
#include "engine/tcp_listen.h"
#include "model/plan.h"

#define PROGRAM         "haproxy"
#define RESTART_US      (100 * US_PER_MS)
#define RESTART_MOST_US (5 * US_PER_S)
#define STEADY_US       (10 * US_PER_S)
#define PATIENCE_US     (10 * US_PER_S)
/* All threads stand still for it; it finds nothing to delete. */
#define BARRIER      "del server pages/none\n"
#define BARRIER_SAYS "No such server."
#define HTTPS_PORT   443U
#define OWN_FDS      256U /* of HAProxy, beside clients' */

struct edge_child {
        struct edge_child_spec spec;
        struct edge_files files;
        struct edge_run run;
        struct edge_certs *certs;
        int pidfd;
        sd_event_source *exit_src;
        struct restart again;
        struct routes *routes;
        struct runtime *runtime;
        struct map *
                leaving; /* clusters whose routes are being taken away: the number of the last command */
        /* numbers of commands; 0: not said yet */
        uint64_t prepared;  /* a resync begins, */
        uint64_t before;    /* what was said until it is filled is of no matter, */
        uint64_t committed; /* and it ends */
        bool synced;        /* it has no route that the table has not, or is about to be told */
        bool dying; /* killed, and not gone yet: only its end answers for what it was told */
        char mark[EDGE_MARK_MAX]; /* of all that it reads at its start */
};

/* ---- telling it ---- */

static void drop(struct edge_child *c)
{
        c->dying = true;
        (void) syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
}

static void on_lost(void *arg, const char *why)
{
        struct edge_child *c = arg;

        /* one that is ending is noticed by on_exit_event() as well */
        log_warn(PROGRAM ": %s; starting it again", why);
        drop(c);
}

static void fill(struct edge_child *c, const char *text)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };
        const char *number = strstr(text, ": ");
        uint64_t version = 0;
        size_t n;

        if (!number || str_u64(number + 2, 1, UINT32_MAX, &version) < 0) {
                log_error(PROGRAM ": no new version of the routes: %s", text);
                drop(c);
                return;
        }
        n = routes_fill(c->routes, (unsigned) version, &b);
        strbuf_str(&b, BARRIER);
        c->before = runtime_say(c->runtime, "", 0);
        if (b.failed)
                drop(c);
        else
                c->committed = runtime_say(c->runtime, b.s, n + 1);
}

/* Those whose last command has been answered up to that one.  Whoever is told may begin anew. */
static void let_go(struct edge_child *c, uint64_t answered)
{
        AUTO(strv_free) char **gone = NULL;

        for (struct map_entry *m = map_first(c->leaving); m; m = map_next(m))
                if ((uintptr_t) map_value(m) <= answered && strv_push(&gone, map_key(m)) < 0)
                        log_error(PROGRAM ": out of memory");
        for (char **id = gone; id && *id; id++) {
                (void) map_del(c->leaving, *id);
                c->spec.on_unrouted(c->spec.arg, *id);
        }
}

static void set_synced(struct edge_child *c)
{
        if (c->synced)
                return;
        c->synced = true;
        c->spec.on_unrouted(c->spec.arg, NULL);
}

static void on_answer(void *arg, uint64_t number, const char *text)
{
        struct edge_child *c = arg;

        if (c->dying)
                return;
        let_go(c, number);
        if (number == c->prepared) {
                fill(c, text);
                return;
        }
        if (*text && c->before && number > c->before && !str_eq(text, BARRIER_SAYS)) {
                log_error(PROGRAM ": a change of routes: %s", text);
                drop(c);
                return;
        }
        if (number != c->committed)
                return;
        set_synced(c);
        if (c->spec.on_ready)
                c->spec.on_ready(c->spec.arg);
}

static int talk(struct edge_child *c, struct err *e)
{
        struct runtime_spec spec = { .loop = c->spec.loop,
                                     .fd = op_connect(c->spec.inst->run_fd, EDGE_ADMIN_SOCKET, e),
                                     .patience_us = PATIENCE_US,
                                     .answer = on_answer,
                                     .lost = on_lost,
                                     .arg = c };
        AUTO(free) char *prepare = str_fmt("prepare map %s/" EDGE_ROUTES_FILE "\n", c->files.dir);
        int r = spec.fd < 0 ? spec.fd : runtime_new(&spec, &c->runtime, e);

        if (r < 0)
                return r;
        if (!prepare)
                return err_set(e, -ENOMEM, "out of memory");
        c->before = c->committed = 0;
        c->prepared = runtime_say(c->runtime, prepare, 1);
        return 0;
}

/* The next process knows what the table holds. */
static void start_anew(struct edge_child *c, const char *why)
{
        log_error(PROGRAM ": %s", why);
        drop(c);
}

static void say(struct edge_child *c, const char *cluster, const char *commands, size_t n,
                bool leaves)
{
        uint64_t number = runtime_say(c->runtime, commands, n);

        if (leaves && map_set(c->leaving, cluster, (void *) (uintptr_t) number) < 0)
                start_anew(c, "out of memory");
}

void edge_child_route(struct edge_child *c, const char *cluster, const struct edge_to *to)
{
        struct plan_port list[LIMIT_PORTS];
        uint32_t http[LIMIT_HTTP_PORTS];
        char page[EDGE_PAGE_WORD_MAX];
        bool is_private[LIMIT_HTTP_PORTS];
        struct routes_to is = { .address = to->address,
                                .page = page,
                                .ports = http,
                                .is_private = is_private,
                                .account = to->account,
                                .key = to->key,
                                .allowed_ips = to->allowed_ips };
        AUTO(strbuf_done) struct strbuf b = { 0 };
        bool left = false;
        int n, r;

        edge_page_word(page, to->page, to->percent);
        n = (to->address || *page) && to->ports ? plan_ports(to->ports, list, NELEM(list), NULL)
                                                : 0;
        for (int i = 0; i < n && is.n < NELEM(http); i++) {
                if (list[i].type != PORT_HTTP)
                        continue;
                is_private[is.n] = list[i].is_private;
                http[is.n++] = list[i].private_port;
        }
        r = routes_set(c->routes, cluster, &is, &left, &b);
        if (r >= 0 && left) {
                strbuf_str(&b, BARRIER);
                r++;
        }
        if (r < 0 || b.failed)
                start_anew(c, "out of memory");
        else if (r > 0 && c->runtime)
                say(c, cluster, b.s, (size_t) r, left);
}

bool edge_child_is_unrouted(const struct edge_child *c, const char *cluster)
{
        return c->synced && !map_get(c->leaving, cluster);
}

/* ---- its life ---- */

static void unwatch(struct edge_child *c)
{
        c->exit_src = sd_event_source_disable_unref(c->exit_src);
        c->runtime = runtime_free(c->runtime);
        c->prepared = c->before = c->committed = 0;
        c->dying = false;
        c->pidfd = fd_close(c->pidfd);
}

/* Nobody is there to send anybody anywhere, and the next one begins with the table. */
static void is_dead(struct edge_child *c)
{
        unwatch(c);
        let_go(c, UINT64_MAX);
        set_synced(c);
}

static int on_exit_event(sd_event_source *s, int fd, uint32_t revents, void *arg)
{
        struct edge_child *c = arg;
        char why[64];

        (void) s;
        (void) fd;
        (void) revents;
        if (!restart_ended(c->pidfd, why, sizeof why))
                return 0;
        log_error(PROGRAM " %s; starting it again", why);
        is_dead(c);
        restart_later(&c->again);
        return 0;
}

static int put_routes(const struct edge_child *c, struct err *e)
{
        AUTO(strbuf_done) struct strbuf b = { 0 };

        routes_file(c->routes, &b);
        if (b.failed)
                return err_set(e, -ENOMEM, "out of memory");
        return edge_files_put(&c->files, EDGE_ROUTES_FILE, b.s ? b.s : "", b.len, e);
}

/* One that cannot be talked to is of no use: it is killed, and another one gets a socket of its own. */
static int watch(struct edge_child *c, struct err *e)
{
        struct err why = { 0 };
        int r = sd_event_add_io(c->spec.loop, &c->exit_src, c->pidfd, EPOLLIN, on_exit_event, c);

        if (r < 0)
                return err_errno(e, r, "watch " PROGRAM);
        if (talk(c, &why) < 0)
                start_anew(c, why.msg);
        return 0;
}

static int spawn(struct edge_child *c, struct err *e)
{
        int r = put_routes(c, e);

        if (r >= 0)
                r = c->pidfd = edge_run_start(&c->run, e);
        if (r < 0)
                return r;
        edge_certs_started(c->certs);
        c->synced = true;
        r = watch(c, e);
        if (r >= 0)
                return 0;
        edge_run_kill(c->pidfd);
        unwatch(c);
        return r;
}

/* Its name may have been removed, or others wait there for the one that is dead. */
static int renew_admin(struct edge_child *c, struct err *e)
{
        c->run.admin = fd_close(c->run.admin);
        return c->run.admin = op_listen(c->spec.inst->run_fd, EDGE_ADMIN_SOCKET, e);
}

static void on_restart(void *arg)
{
        struct edge_child *c = arg;
        struct err e = { 0 };

        restart_begun(&c->again);
        if (renew_admin(c, &e) >= 0 && spawn(c, &e) >= 0)
                return;
        log_error(PROGRAM ": %s", e.msg);
        restart_later(&c->again);
}

/* ---- once ---- */

static int open_listeners(struct edge_child *c, struct err *e)
{
        int r = c->run.listen = tcp_listen(INSTANCE_EDGE_LISTEN, c->spec.inst->conf.edge_listen, e);

        return r < 0 ? r : renew_admin(c, e);
}

/* Where a limit of this process allows fewer connections than are wanted, it is fewer. */
static uint32_t fit_connections(struct edge_child *c)
{
        uint32_t want = c->spec.inst->conf.edge_connections, most = edge_run_descriptors(), fit;

        if (most >= want * EDGE_SOCKETS_PER_CLIENT + OWN_FDS)
                most = want * EDGE_SOCKETS_PER_CLIENT + OWN_FDS;
        c->run.descriptors = most;
        fit = most > OWN_FDS + EDGE_SOCKETS_PER_CLIENT ? (most - OWN_FDS) / EDGE_SOCKETS_PER_CLIENT
                                                       : 1;
        if (fit < want)
                log_warn(
                        "[edge] connections: %u instead of %u, because a process may have no more than %u files open here",
                        fit, want, most);
        return fit;
}

/* One that was started with the same may go on. */
static int set_mark(struct edge_child *c, const char *config, struct err *e)
{
        AUTO(free) char *all = str_fmt("%s\n%s", c->spec.inst->conf.edge_listen, config);
        unsigned char hash[EVP_MAX_MD_SIZE];
        size_t n = 0;

        if (!all || EVP_Q_digest(NULL, "SHA256", NULL, all, strlen(all), hash, &n) != 1 ||
            2 * n >= sizeof c->mark)
                return err_set(e, -ENOMEM, "out of memory");
        hex_encode(hash, n, c->mark);
        return 0;
}

/* Nobody has all that there is. */
static uint32_t half_at_most(uint32_t want, uint32_t connections)
{
        uint32_t half = connections > 1 ? connections / 2 : 1;

        return want > half ? half : want;
}

static int put_config(struct edge_child *c, struct err *e)
{
        const struct engine_conf *conf = &c->spec.inst->conf;
        long cpus = sysconf(_SC_NPROCESSORS_ONLN);
        uint32_t connections = fit_connections(c);
        char api[TCP_LISTEN_TEXT];
        unsigned port;
        struct edge_config text = {
                .instance = c->spec.inst->id,
                .dir = c->files.dir,
                .tenant_domain = conf->edge_tenant_domain,
                .api_domain = conf->edge_api_domain,
                .api_address = api,
                .connections = connections,
                .descriptors = c->run.descriptors,
                .threads = conf->edge_threads,
                .address_connections = half_at_most(conf->edge_address_connections, connections),
                .address_requests = conf->edge_address_requests,
                .cluster_connections = half_at_most(conf->edge_cluster_connections, connections),
                .cluster_requests = conf->edge_cluster_requests,
                .log_requests = conf->edge_log_requests,
                .log_levels = getenv("JOURNAL_STREAM") != NULL
        };
        AUTO(free) char *config = NULL;
        int r = tcp_listen_address(c->spec.api_fd, api, &port);

        if (r < 0)
                return err_errno(e, r, "the API's address");
        if (cpus > 0 && text.threads > (uint32_t) cpus)
                text.threads = (uint32_t) cpus;
        config = edge_config_text(&text);
        if (!config)
                return err_set(e, -ENOMEM, "out of memory");
        r = set_mark(c, config, e);
        return r < 0 ? r : edge_files_put(&c->files, EDGE_CONFIG_FILE, config, strlen(config), e);
}

static int prepare(struct edge_child *c, struct err *e)
{
        AUTO(free) char *map = NULL;
        int r = edge_files_open(c->spec.inst, &c->files, e);

        if (r < 0)
                return r;
        c->run.dir = c->files.dir;
        map = str_fmt("%s/" EDGE_ROUTES_FILE, c->files.dir);
        c->routes = map ? routes_new(map, c->spec.inst->conf.edge_tenant_domain) : NULL;
        c->leaving = map_new();
        if (!c->routes || !c->leaving)
                return err_set(e, -ENOMEM, "out of memory");
        /* what an engine before us wrote of them counts until the control plane has spoken */
        if (faccessat(c->files.fd, EDGE_KEYS_FILE, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
                r = edge_files_put(&c->files, EDGE_KEYS_FILE, "", 0, e);
        if (r < 0)
                return r;
        r = edge_certs_new(c->spec.loop, c->spec.inst, &c->files, &c->certs, e);
        return r < 0 ? r : put_config(c, e);
}

static int check(struct edge_child *c, struct err *e)
{
        int r = put_routes(c, e);

        if (r >= 0)
                r = edge_certs_put(c->certs, e);
        return r < 0 ? r : edge_run_check(&c->run, e);
}

static void close_listeners(struct edge_child *c)
{
        c->run.listen = fd_close(c->run.listen);
        c->run.admin = fd_close(c->run.admin);
}

/* One that an engine before us has left.  1: it goes on; 0: there is none, or none any more. */
static int take_over(struct edge_child *c, struct err *e)
{
        struct edge_found found;
        int r;

        if (edge_run_find(c->spec.inst->run_fd, &found) < 0)
                return 0;
        c->pidfd = found.pidfd;
        c->run.listen = found.listen;
        c->run.admin = found.admin;
        if (str_eq(found.mark, c->mark) && found.listen >= 0 && found.admin >= 0) {
                r = watch(c, e);
                if (r < 0)
                        return r;
                log_info(PROGRAM ": found again, it goes on");
                edge_certs_found(c->certs);
                return 1;
        }
        log_info(PROGRAM ": its configuration is another now: starting it anew");
        r = found.listen >= 0 && found.admin >= 0 ? check(c, e) : 0;
        if (r < 0) /* the old one is better than none */
                return r;
        edge_run_kill(c->pidfd);
        c->pidfd = fd_close(c->pidfd);
        close_listeners(c);
        return 0;
}

static int start(struct edge_child *c, struct err *e)
{
        int r = prepare(c, e);

        if (r >= 0)
                r = take_over(c, e);
        if (r != 0)
                return r;
        r = open_listeners(c, e);
        if (r >= 0)
                r = check(c, e);
        return r < 0 ? r : spawn(c, e);
}

static void say_where(const struct edge_child *c)
{
        const struct engine_conf *conf = &c->spec.inst->conf;
        char at[TCP_LISTEN_TEXT];
        unsigned port = 0;

        if (tcp_listen_address(c->run.listen, at, &port) >= 0)
                log_info("edge: https://ID-PORT.proxy.%s:%u and https://%s:%u at %s",
                         conf->edge_tenant_domain, port, conf->edge_api_domain, port, at);
}

char *edge_child_domain(const struct edge_child *c)
{
        const struct engine_conf *conf = &c->spec.inst->conf;
        char at[TCP_LISTEN_TEXT];
        unsigned port = conf->edge_public_port;

        if (!port && tcp_listen_address(c->run.listen, at, &port) < 0)
                port = HTTPS_PORT;
        return port == HTTPS_PORT ? str_fmt("proxy.%s", conf->edge_tenant_domain)
                                  : str_fmt("proxy.%s:%u", conf->edge_tenant_domain, port);
}

int edge_child_start(const struct edge_child_spec *spec, struct edge_child **ret, struct err *e)
{
        AUTO(edge_child_leave) struct edge_child *c = NULL;
        int r;

        *ret = NULL;
        if (!instance_has_edge(spec->inst)) {
                edge_run_end(spec->inst->run_fd); /* it may have had one */
                return 0;
        }
        c = calloc(1, sizeof *c);
        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->spec = *spec;
        c->pidfd = c->files.fd = c->run.listen = c->run.admin = -EBADF;
        c->again = (struct restart){ .loop = spec->loop,
                                     .program = PROGRAM,
                                     .first_us = RESTART_US,
                                     .most_us = RESTART_MOST_US,
                                     .steady_us = STEADY_US,
                                     .start = on_restart,
                                     .arg = c };
        c->run.run_fd = spec->inst->run_fd;
        c->run.mark = c->mark;
        r = start(c, e);
        if (r < 0)
                return err_wrap(e, r, "edge");
        restart_begun(&c->again);
        say_where(c);
        *ret = TAKE(c);
        return 0;
}

struct edge_child *edge_child_leave(struct edge_child *c)
{
        if (!c)
                return NULL;
        unwatch(c);
        restart_done(&c->again);
        close_listeners(c);
        (void) edge_certs_free(c->certs);
        edge_files_done(&c->files);
        (void) routes_free(c->routes);
        (void) map_free(c->leaving);
        free(c);
        return NULL;
}

struct edge_child *edge_child_stop(struct edge_child *c)
{
        if (c)
                edge_run_end(c->spec.inst->run_fd);
        return edge_child_leave(c);
}
