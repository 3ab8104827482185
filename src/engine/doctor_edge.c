/* doctor_edge.c - the questions of `doctor` about the edge.  A process of its own, as whoever calls it; a host that
 * runs is looked at, and not disturbed.
 *
 * doctor knows a configuration and no data directory, so which host serves it is found by what lies in the run
 * directories: the line in front of a certificate says where that is from and what it is for. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/mem.h"
#include "base/str.h"
#include "edge/cert.h"
#include "engine/doctor_priv.h"
#include "engine/edge_files.h"
#include "engine/edge_run.h"
#include "engine/edge_source.h"
#include "engine/tcp_listen.h"

#define RUN_ROOT  "/run/hypervisor-vmm"
#define CHILD_MS  20000
#define WORDS_MAX 512U
#define FILE_MAX  (64U << 10)
#define DAY_S     86400U
#define SOON_DAYS 14U

static const struct finding not_wanted = { .grade = GOOD,
                                           .what = "not wanted ([edge] listen = none)" };

/* ---- children that may take their time ---------------------------------------------------------- */

/* What @fn writes to its standard output within twenty seconds, as much as there is room for. */
static void words_of(void (*fn)(const void *arg), const void *arg, char ret[static WORDS_MAX])
{
        uint64_t until = clock_mono_us() + CHILD_MS * US_PER_MS, now;
        size_t len = 0;
        pid_t pid;
        int p[2];

        ret[0] = '\0';
        if (pipe2(p, O_CLOEXEC) < 0)
                return;
        pid = fork();
        if (pid == 0) {
                if (dup2(p[1], STDOUT_FILENO) >= 0)
                        fn(arg);
                _exit(1);
        }
        (void) close(p[1]);
        while (pid > 0 && len + 1 < WORDS_MAX && (now = clock_mono_us()) < until) {
                struct pollfd in = { .fd = p[0], .events = POLLIN };
                ssize_t n = poll(&in, 1, (int) ((until - now) / US_PER_MS) + 1) > 0
                                    ? read(p[0], ret + len, WORDS_MAX - 1 - len)
                                    : 0;

                if (n <= 0)
                        break;
                len += (size_t) n;
        }
        ret[len] = '\0';
        (void) close(p[0]);
        if (pid > 0) {
                (void) kill(pid, SIGKILL);
                (void) waitpid(pid, NULL, 0);
        }
}

/* ---- HAProxy ------------------------------------------------------------------------------------ */

static void ask_version(const void *path)
{
        char *argv[] = { (char *) (uintptr_t) "haproxy", (char *) (uintptr_t) "-v", NULL };
        char *env[] = { NULL };

        (void) execve(path, argv, env);
}

struct finding doctor_haproxy(const struct instance *conf)
{
        const char *path = edge_run_program(), *version;
        uint64_t major = 0, minor = 0;
        char words[WORDS_MAX];
        struct finding f;

        if (!instance_has_edge(conf))
                return not_wanted;
        if (!path) {
                f = found(MISSING, "not there (package haproxy)");
                f.then =
                        "the engine does not start: install it, or switch the edge off ([edge] listen = none)";
                return f;
        }
        words_of(ask_version, path, words);
        words[strcspn(words, "\n")] = '\0';
        str_tame(words, '?');
        version = str_after(words, "HAProxy version ");
        if (!version || str_u64_prefix(version, 10, &major) < 0 || !strchr(version, '.') ||
            str_u64_prefix(strchr(version, '.') + 1, 10, &minor) < 0)
                return found(LESS, "%s does not say its version", path);
        f = found(major > EDGE_RUN_MAJOR || (major == EDGE_RUN_MAJOR && minor >= EDGE_RUN_MINOR)
                          ? GOOD
                          : LESS,
                  "%s %.*s", path, (int) strcspn(version, " "), version);
        if (f.grade != GOOD)
                f.then =
                        "2.6 or newer is needed: the engine may not start, or certificates and routes may not change";
        return f;
}

/* ---- where it listens --------------------------------------------------------------------------- */

/* Whether that host's HAProxy has the port. */
static bool has_port(int dirfd, unsigned port)
{
        char text[TCP_LISTEN_TEXT];
        struct edge_found host;
        unsigned its = 0;
        bool has;

        if (edge_run_find(dirfd, &host) < 0)
                return false;
        has = host.listen >= 0 && tcp_listen_address(host.listen, text, &its) >= 0 && its == port;
        (void) fd_close(host.pidfd);
        (void) fd_close(host.listen);
        (void) fd_close(host.admin);
        return has;
}

/* Call @fn for the run directory of each host until it says true. */
static bool any_host(bool (*fn)(int dirfd, const char *id, void *arg), void *arg)
{
        DIR *dir = opendir(RUN_ROOT);
        const struct dirent *de;
        bool yes = false;

        while (!yes && dir && (de = readdir(dir)) != NULL) {
                AUTO(fd)
                int fd = *de->d_name == '.' ? -EBADF
                                            : fd_open_beneath(dirfd(dir), de->d_name,
                                                              O_RDONLY | O_DIRECTORY, 0);

                yes = fd >= 0 && fn(fd, de->d_name, arg);
        }
        if (dir)
                (void) closedir(dir);
        return yes;
}

struct holder {
        unsigned port;
        char id[16];
};

static bool holds_port(int dirfd, const char *id, void *arg)
{
        struct holder *h = arg;

        if (!has_port(dirfd, h->port))
                return false;
        (void) snprintf(h->id, sizeof h->id, "%s", id);
        return true;
}

static bool is_local(const char *domain)
{
        size_t n = strlen(domain), k = strlen("localhost");

        return n >= k && str_eq(domain + n - k, "localhost") &&
               (n == k || domain[n - k - 1] == '.');
}

struct finding doctor_edge_address(const struct instance *conf)
{
        const struct engine_conf *c = &conf->conf;
        const char *at = c->edge_listen, *colon = strrchr(at, ':');
        struct holder h = { .port = 0 };
        struct err e = { 0 };
        struct finding f;
        uint64_t port = 0;
        int r;

        if (!instance_has_edge(conf))
                return not_wanted;
        r = tcp_listen(INSTANCE_EDGE_LISTEN, at, &e);
        (void) fd_close(r);
        if (colon)
                (void) str_u64(colon + 1, 0, 65535, &port);
        h.port = (unsigned) port;
        if (r >= 0)
                f = found(GOOD, "%s, free", at);
        else if (r == -EADDRINUSE && any_host(holds_port, &h))
                f = found(GOOD, "%s, served by host %s", at, h.id);
        else if (r == -EACCES)
                return found(LESS, "%s: only root can try it", at);
        else if (r == -EADDRINUSE && geteuid() != 0)
                return found(LESS, "%s is taken; only root can see by whom", at);
        else if (r == -EADDRINUSE)
                return found(MISSING, "%s is taken by another program (ss -ltnp tells which)", at);
        else
                return found(MISSING, "%s", e.msg);
        if ((str_after(at, "127.") || str_after(at, "[::1]")) && !is_local(c->edge_tenant_domain)) {
                f.grade = LESS;
                f.then =
                        "only this host reaches it: set `listen` in [edge], to 0.0.0.0:443 for example";
        }
        return f;
}

/* ---- names -------------------------------------------------------------------------------------- */

/* That they do not share cookies was checked with the configuration. */
struct finding doctor_edge_domains(const struct instance *conf)
{
        if (!instance_has_edge(conf))
                return not_wanted;
        return found(GOOD, "*.proxy.%s and %s, registered apart", conf->conf.edge_tenant_domain,
                     conf->conf.edge_api_domain);
}

static bool is_ours(const struct sockaddr *a, const struct ifaddrs *all)
{
        for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
                const struct sockaddr *b = i->ifa_addr;

                if (!b || b->sa_family != a->sa_family)
                        continue;
                if (a->sa_family == AF_INET &&
                    memcmp(&((const struct sockaddr_in *) (const void *) a)->sin_addr,
                           &((const struct sockaddr_in *) (const void *) b)->sin_addr, 4) == 0)
                        return true;
                if (a->sa_family == AF_INET6 &&
                    memcmp(&((const struct sockaddr_in6 *) (const void *) a)->sin6_addr,
                           &((const struct sockaddr_in6 *) (const void *) b)->sin6_addr, 16) == 0)
                        return true;
        }
        return false;
}

/* "here", "to ADDRESS", or why not; in a child, because it may take long. */
static void resolve(const void *name)
{
        const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
        struct addrinfo *list = NULL;
        struct ifaddrs *all = NULL;
        char text[NI_MAXHOST] = "";
        int r = getaddrinfo(name, NULL, &hints, &list);

        bool here = false;

        (void) getifaddrs(&all);
        for (const struct addrinfo *i = r == 0 ? list : NULL; i; i = i->ai_next)
                here = here || is_ours(i->ai_addr, all);
        if (r == 0 && !here)
                (void) getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, NULL, 0,
                                   NI_NUMERICHOST);
        (void) dprintf(STDOUT_FILENO, "%s%s",
                       r != 0 ? gai_strerror(r)
                       : here ? "here"
                              : "to ",
                       text);
}

struct finding doctor_edge_names(const struct instance *conf)
{
        const struct engine_conf *c = &conf->conf;
        AUTO(free) char *tenant = str_fmt("doctor-8080.proxy.%s", c->edge_tenant_domain);
        const char *name[] = { tenant, c->edge_api_domain };
        struct finding f = found(GOOD, "lead to this host");

        if (!instance_has_edge(conf))
                return not_wanted;
        if (!tenant)
                return found(LESS, "out of memory");
        if (is_local(c->edge_tenant_domain) && is_local(c->edge_api_domain))
                return found(GOOD, "below localhost: browsers and curl take them for this host");
        for (size_t i = 0; i < NELEM(name) && f.grade == GOOD; i++) {
                char words[WORDS_MAX];

                if (is_local(name[i]))
                        continue;
                words_of(resolve, name[i], words);
                if (str_eq(words, "here"))
                        continue;
                if (str_after(words, "to "))
                        f = found(LESS, "%.100s leads %.60s, which is no address of this host",
                                  name[i], words);
                else
                        f = found(LESS, "%.100s: %.60s", name[i],
                                  *words ? words : "no answer from the name servers");
                f.then =
                        str_after(words, "to ")
                                ? "right only if what has that address passes connections on to this host"
                                : "add it to the DNS: a wildcard *.proxy.TENANT_DOMAIN, and API_DOMAIN";
        }
        return f;
}

/* ---- certificates ------------------------------------------------------------------------------- */

struct served {
        const struct edge_source *source;
        struct cert cert;
        bool yes;
};

static bool serves(int dirfd, const char *id, void *arg)
{
        struct served *s = arg;
        AUTO(str_wipe_free) char *text = NULL;
        AUTO(fd) int files = fd_open_beneath(dirfd, EDGE_FILES_DIR, O_PATH | O_DIRECTORY, 0);

        (void) id;
        if (files < 0 || fd_read_file(files, s->source->file, FILE_MAX, &text, NULL) < 0 ||
            !str_after(text, s->source->origin))
                return false;
        s->yes = cert_read(text, strlen(text), s->source->host, s->source->names, &s->cert, NULL) >=
                 0;
        return s->yes;
}

static struct finding until(const struct cert *cert, uint64_t now_s, const char *from)
{
        uint64_t days = cert->ends_s > now_s ? (cert->ends_s - now_s) / DAY_S : 0;
        struct finding f;
        char date[11];

        cert_date(cert->ends_s, date);
        f = found(days >= SOON_DAYS ? GOOD : LESS, "good until %s (%llu days), %.160s", date,
                  (unsigned long long) days, from);
        if (f.grade != GOOD)
                f.then = "a newer one has to come before that";
        return f;
}

static struct finding judge_own(const struct served *s, uint64_t now_s)
{
        struct finding f;

        if (!s->yes)
                return found(GOOD, "the host makes it by an authority of its own");
        f = until(&s->cert, now_s, "by the host's own authority, which renews it");
        f.grade = GOOD;
        return f;
}

static struct finding judge_given(const struct edge_source *source, const struct served *s,
                                  uint64_t now_s)
{
        AUTO(edge_text_done) struct edge_text text = { .s = NULL };
        AUTO(cert_done) struct cert cert = { .pem = NULL };
        struct err e = { 0 };
        struct finding f;
        int r = edge_source_read(source, -EBADF, &text, &e);

        if (r == -EACCES)
                return found(LESS, "only root can read it");
        if (r >= 0)
                r = edge_source_judge(source, &text, now_s, &cert, &e);
        if (r < 0) {
                f = found(s->yes || r == -EKEYEXPIRED ? LESS : MISSING, "%s", e.msg);
                if (f.grade == LESS)
                        f.then = s->yes ? "the one before it stays in use: put a good one there"
                                        : "clients refuse it: put a good one there";
                return f;
        }
        f = until(&cert, now_s, source->given);
        if (f.grade == GOOD && text.exposed) {
                f.grade = LESS;
                f.then = "everybody on this host can read its private key: chmod 600";
        }
        return f;
}

static struct finding certificate(const struct instance *conf, enum edge_source_kind kind)
{
        uint64_t now_s = clock_wall_us() / US_PER_S;
        struct edge_source source;
        struct served s = { .source = &source };
        struct finding f;

        if (!instance_has_edge(conf))
                return not_wanted;
        if (edge_source_init(&source, kind, &conf->conf) < 0)
                return found(LESS, "out of memory");
        (void) any_host(serves, &s);
        f = str_empty(source.given) ? judge_own(&s, now_s) : judge_given(&source, &s, now_s);
        if (s.yes)
                cert_done(&s.cert);
        edge_source_done(&source);
        return f;
}

struct finding doctor_edge_tenant(const struct instance *conf)
{
        return certificate(conf, EDGE_SOURCE_TENANT);
}

struct finding doctor_edge_api(const struct instance *conf)
{
        return certificate(conf, EDGE_SOURCE_API);
}
