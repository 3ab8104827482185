/* main.c - tensorone-api: the control plane.  Options, the order of starting and stopping.
 *
 * One event loop and one thread that writes the store.  It runs unprivileged, opens what it needs
 * first (listener, key files), climbs down (ladder.c), and says ready when it serves. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "control/ladder.h"
#include "control/plane/plane.h"
#include "control/rest/http.h"

#define READY_WAIT_US (3 * US_PER_S) /* for the engine; then ready without it */

struct options {
        const char *listen, *listen_fd, *node, *data_dir, *key_file, *key_fd, *seal_file, *seal_fd,
                *ready_fd, *audit_keep, *cluster_domain, *log_level;
};

static const struct option_row {
        const char *name, *arg, *help;
        size_t off;
} option_rows[] = {
        { "--listen", "HOST:PORT", "address of the HTTP API (numeric)",
          offsetof(struct options, listen) },
        { "--listen-fd", "N", "inherited listening socket, instead of --listen",
          offsetof(struct options, listen_fd) },
        { "--node", "PATH", "the engine's node socket", offsetof(struct options, node) },
        { "--data-dir", "DIR", "directory of the store; it belongs to this program's user",
          offsetof(struct options, data_dir) },
        { "--admin-key-file", "FILE",
          "where the administrator's key goes at the first start (0600)",
          offsetof(struct options, key_file) },
        { "--admin-key-fd", "N", "the same as an inherited open file",
          offsetof(struct options, key_fd) },
        { "--seal-key-file", "FILE",
          "the key that seals secrets in the store, made at the first start (0600)",
          offsetof(struct options, seal_file) },
        { "--seal-key-fd", "N", "the same as an inherited open file",
          offsetof(struct options, seal_fd) },
        { "--ready-fd", "N", "gets one byte when the API serves",
          offsetof(struct options, ready_fd) },
        { "--audit-keep", "TIME", "how long audit and security events are kept, 90d unless given",
          offsetof(struct options, audit_keep) },
        { "--cluster-domain", "DOMAIN[:PORT]",
          "clusters' web ports are at https://ID-PORT.DOMAIN[:PORT]; told to tenants",
          offsetof(struct options, cluster_domain) },
        { "--log-level", "LEVEL", "error, warning, info or debug",
          offsetof(struct options, log_level) },
};

struct api {
        struct options opt;
        sd_event *loop;
        struct plane *plane;
        struct http_server *http;
        int listen_fd, ready_fd, inner_fd; /* inner_fd: came before the server was there */
        int key_fd, seal_fd;
        sd_event_source *ready_timer;
        bool synced, ready;
        int fence; /* 1: waiting, <= 0: the result */
};

static int usage(FILE *to)
{
        (void) fprintf(to, "usage: tensorone-api [OPTION VALUE]...\n\n");
        for (size_t i = 0; i < NELEM(option_rows); i++)
                (void) fprintf(to, "  %-16s %-10s %s\n", option_rows[i].name, option_rows[i].arg,
                               option_rows[i].help);
        return to == stdout ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int parse_options(struct options *o, char **argv, struct err *e)
{
        for (; *argv; argv += 2) {
                const struct option_row *row = NULL;

                for (size_t i = 0; i < NELEM(option_rows) && !row; i++)
                        if (str_eq(*argv, option_rows[i].name))
                                row = &option_rows[i];
                if (!row)
                        return err_set(e, -EINVAL, "unknown option '%s'", *argv);
                if (!argv[1])
                        return err_set(e, -EINVAL, "%s: needs %s", row->name, row->arg);
                memcpy((char *) o + row->off, &argv[1], sizeof argv[1]);
        }
        if (!o->node || !o->data_dir || (!o->listen == !o->listen_fd))
                return err_set(e, -EINVAL,
                               "--node, --data-dir and one of --listen and --listen-fd are needed");
        return 0;
}

/* A descriptor by number that we were given: it is ours, and nobody else inherits it. */
static int inherited(const char *name, const char *text, int *ret, struct err *e)
{
        uint64_t n;

        *ret = -EBADF;
        if (!text)
                return 0;
        if (str_u64(text, 3, 65535, &n) < 0 || fcntl((int) n, F_GETFD) < 0)
                return err_set(e, -EBADF, "%s: '%s' is not an open descriptor", name, text);
        *ret = (int) n;
        return fd_set_cloexec(*ret, true);
}

static int open_listener(const char *where, int *ret, struct err *e)
{
        AUTO(free) char *host = str_dup(where);
        struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                  .ai_socktype = SOCK_STREAM };
        struct addrinfo *ai = NULL;
        char *colon = host ? strrchr(host, ':') : NULL;
        AUTO(fd) int fd = -EBADF;
        uint64_t port;
        int one = 1, r;

        if (!colon)
                return err_set(e, -EINVAL, "--listen: '%s' must be HOST:PORT", where);
        *colon = '\0';
        if (host[0] == '[' && colon > host + 1 && colon[-1] == ']') {
                colon[-1] = '\0';
                memmove(host, host + 1, strlen(host));
        }
        /* getaddrinfo() takes what is over modulo 65536 */
        if (str_u64(colon + 1, 0, 65535, &port) < 0)
                return err_set(e, -EINVAL, "--listen: '%s': a port is 0 to 65535", where);
        r = getaddrinfo(host, colon + 1, &hints, &ai);
        if (r != 0)
                return err_set(e, -EINVAL, "--listen: '%s': %s", where, gai_strerror(r));
        fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
            bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, SOMAXCONN) < 0) {
                r = -errno;
                freeaddrinfo(ai);
                return err_errno(e, r, "listen on %s", where);
        }
        freeaddrinfo(ai);
        *ret = fd_take(&fd);
        return 0;
}

/* ---- the administrator's key ---- */

/* By descriptor, else by name; neither: *@ret is -EBADF. */
static int open_key_file(const char *option, const char *fd, const char *file, int *ret,
                         struct err *e)
{
        int r = inherited(option, fd, ret, e);

        if (r < 0 || *ret >= 0 || !file)
                return r;
        *ret = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        return *ret < 0 ? err_errno(e, -errno, "open %s", file) : 0;
}

static void on_fence(int r, void *arg)
{
        ((struct api *) arg)->fence = r < 0 ? r : 0;
}

/* Turn the loop until what was submitted is on disk. */
static int wait_durable(struct api *a)
{
        a->fence = 1;
        plane_fence(a->plane, on_fence, a);
        while (a->fence > 0) {
                int r = sd_event_run(a->loop, UINT64_MAX);

                if (r < 0)
                        return r;
        }
        return a->fence;
}

static int write_key(int fd, const char *key)
{
        int r = ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0 ? -errno : 0;

        if (r >= 0)
                r = fd_write_full(fd, key, strlen(key));
        if (r >= 0)
                r = fd_write_full(fd, "\n", 1);
        return r < 0 ? r : fsync(fd) < 0 ? -errno : 0;
}

/* A store without an administrator, or an empty key file: make a key.  The file is written first:
 * a crash in between leaves a file whose key is not known, and the next start makes another. */
static int ensure_admin(struct api *a, struct err *e)
{
        struct accounts *all = plane_accounts(a->plane);
        const struct account *admin = accounts_admin(all);
        AUTO(store_txn_free) struct store_txn *t = plane_txn(a->plane);
        AUTO(str_wipe_free) char *key = NULL;
        AUTO(fd) int fd = fd_take(&a->key_fd);
        const char *id;
        struct stat st;
        uint64_t now = clock_wall_us();
        char old[128] = "";
        struct caller who;
        int r = 0;

        if (fd < 0)
                return 0;
        if (!t || fstat(fd, &st) < 0)
                return err_errno(e, t ? -errno : -ENOMEM, "admin key file");
        if (pread(fd, old, sizeof old - 1, 0) > 0) {
                old[strcspn(old, "\r\n")] = '\0';
                r = accounts_check(all, old, &who);
                explicit_bzero(old, sizeof old);
                if (r)
                        return 0; /* it is known */
        }
        if (!admin)
                r = accounts_add(all, t, "admin", true, now, &admin, e);
        if (r >= 0)
                r = accounts_add_key(all, t, admin->id, KEY_ADMIN, "admin", now, &key, &id, e);
        if (r < 0)
                return r;
        r = write_key(fd, key);
        if (r < 0)
                return err_errno(e, r, "write the admin key");
        plane_submit(a->plane, TAKE(t));
        r = wait_durable(a);
        return r < 0 ? err_errno(e, r, "store the admin key") : 0;
}

/* ---- serving ---- */

static void say_ready(struct api *a)
{
        if (a->ready || !a->http)
                return;
        a->ready = true;
        a->ready_timer = sd_event_source_disable_unref(a->ready_timer);
        (void) sd_notify(0, "READY=1");
        if (a->ready_fd >= 0)
                (void) fd_write_full(a->ready_fd, "1", 1);
        a->ready_fd = fd_close(a->ready_fd);
        log_info("serving");
}

static int on_ready_timer(sd_event_source *s, uint64_t usec, void *arg)
{
        (void) s;
        (void) usec;
        say_ready(arg);
        return 0;
}

static void on_synced(void *arg)
{
        struct api *a = arg;

        a->synced = true;
        say_ready(a);
}

static void on_inner(void *arg, int fd)
{
        struct api *a = arg;

        if (a->http) {
                http_set_inner(a->http, fd);
                return;
        }
        (void) fd_close(a->inner_fd);
        a->inner_fd = fd;
}

static void on_settled(int r, void *arg)
{
        (void) r;
        (void) sd_event_exit(((struct api *) arg)->loop, 0);
}

/* What is on its way to the disk is still answered. */
static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *arg)
{
        struct api *a = arg;

        (void) s;
        (void) si;
        plane_fence(a->plane, on_settled, a);
        return 0;
}

static int block_signals(struct api *a, struct err *e)
{
        const int ends[] = { SIGTERM, SIGINT };
        sigset_t set;
        int r = 0;

        (void) sigemptyset(&set);
        for (size_t i = 0; i < NELEM(ends); i++)
                (void) sigaddset(&set, ends[i]);
        /* a file that may not grow is an error of write(2), not the end */
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
            signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
                return err_errno(e, -errno, "signals");
        for (size_t i = 0; r >= 0 && i < NELEM(ends); i++)
                r = sd_event_add_signal(a->loop, NULL, ends[i], on_signal, a);
        return r < 0 ? err_errno(e, r, "signals") : 0;
}

/* As many connections as we are allowed to have. */
static void raise_files(void)
{
        struct rlimit r;

        if (getrlimit(RLIMIT_NOFILE, &r) < 0)
                return;
        r.rlim_cur = r.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &r) < 0)
                log_debug("RLIMIT_NOFILE stays as it is");
}

/* Whatever has a name beside the store, and the way down. */
static int open_and_descend(struct api *a, struct err *e)
{
        const struct options *o = &a->opt;
        int r = inherited("--ready-fd", o->ready_fd, &a->ready_fd, e);

        if (r >= 0)
                r = o->listen_fd ? inherited("--listen-fd", o->listen_fd, &a->listen_fd, e)
                                 : open_listener(o->listen, &a->listen_fd, e);
        if (r >= 0)
                r = open_key_file("--admin-key-fd", o->key_fd, o->key_file, &a->key_fd, e);
        if (r >= 0)
                r = open_key_file("--seal-key-fd", o->seal_fd, o->seal_file, &a->seal_fd, e);
        if (r < 0)
                return r;
        raise_files();
        return ladder_descend(o->data_dir, e);
}

static int check_domain(const char *domain, struct err *e)
{
        static const char good[] = "abcdefghijklmnopqrstuvwxyz0123456789-.:";

        if (!domain || (*domain && domain[strspn(domain, good)] == '\0'))
                return 0;
        return err_set(e, -EINVAL,
                       "--cluster-domain: '%s' is neither DOMAIN nor DOMAIN:PORT, in lower case",
                       domain);
}

static int start(struct api *a, struct err *e)
{
        struct plane_conf pc = { .data_dir = a->opt.data_dir,
                                 .cluster_domain = a->opt.cluster_domain,
                                 .node_path = a->opt.node,
                                 .inner = on_inner,
                                 .synced = on_synced,
                                 .arg = a };
        struct http_conf hc;
        AUTO(fd) int seal = fd_take(&a->seal_fd);
        int r = sd_event_new(&a->loop);

        if (r < 0)
                return err_errno(e, r, "event loop");
        if (a->opt.audit_keep &&
            (str_duration_us(a->opt.audit_keep, &pc.audit_keep_us) < 0 || !pc.audit_keep_us))
                return err_set(e, -EINVAL, "--audit-keep: '%s' is no time such as 90d",
                               a->opt.audit_keep);
        pc.loop = a->loop;
        pc.seal_fd = seal;
        r = check_domain(a->opt.cluster_domain, e);
        if (r >= 0)
                r = block_signals(a, e);
        if (r >= 0)
                r = plane_new(&pc, &a->plane, e);
        if (r >= 0)
                r = ensure_admin(a, e);
        if (r < 0)
                return r;
        hc = (struct http_conf){ a->loop, a->plane, fd_take(&a->listen_fd) };
        r = http_new(&hc, &a->http, e);
        if (r < 0)
                return r;
        if (a->inner_fd >= 0)
                http_set_inner(a->http, fd_take(&a->inner_fd));
        if (a->synced)
                say_ready(a);
        else
                r = sd_event_add_time_relative(a->loop, &a->ready_timer, CLOCK_MONOTONIC,
                                               READY_WAIT_US, 0, on_ready_timer, a);
        return r < 0 ? err_errno(e, r, "timer") : 0;
}

static void stop(struct api *a)
{
        (void) sd_notify(0, "STOPPING=1");
        a->ready_timer = sd_event_source_disable_unref(a->ready_timer);
        a->http = http_free(a->http);
        a->plane = plane_free(a->plane);
        a->loop = sd_event_unref(a->loop);
        a->listen_fd = fd_close(a->listen_fd);
        a->ready_fd = fd_close(a->ready_fd);
        a->inner_fd = fd_close(a->inner_fd);
        a->key_fd = fd_close(a->key_fd);
        a->seal_fd = fd_close(a->seal_fd);
}

int main(int argc, char **argv)
{
        struct api a = { .listen_fd = -EBADF,
                         .ready_fd = -EBADF,
                         .inner_fd = -EBADF,
                         .key_fd = -EBADF,
                         .seal_fd = -EBADF };
        struct err e = { 0 };
        int level, r;

        log_init("tensorone-api", LOG_LVL_INFO);
        if (argc == 2 && (str_eq(argv[1], "--help") || str_eq(argv[1], "--version"))) {
                if (str_eq(argv[1], "--help"))
                        return usage(stdout);
                (void) printf("tensorone-api %s\n", HVMM_VERSION);
                return EXIT_SUCCESS;
        }
        (void) umask(0077);
        r = parse_options(&a.opt, argv + 1, &e);
        level = r >= 0 && a.opt.log_level ? log_level_parse(a.opt.log_level) : LOG_LVL_INFO;
        if (r >= 0 && level < 0)
                r = err_set(&e, -EINVAL, "--log-level: '%s' is not known", a.opt.log_level);
        if (r >= 0)
                log_init("tensorone-api", (enum log_level) level);
        if (r >= 0)
                r = open_and_descend(&a, &e);
        if (r >= 0)
                r = start(&a, &e);
        if (r >= 0)
                r = sd_event_loop(a.loop);
        else
                log_error("%s", e.msg);
        stop(&a);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
