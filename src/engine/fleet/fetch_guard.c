/* fetch_guard.c - see fetch_guard.h.
 *
 * vmm-fetch has an address policy of its own, checked when it connects, and limits of its own.  Both
 * end when the bytes of a stranger take it over; what is here does not.
 *
 * What always holds: group "f<first id, in units of 65,536>" and the firewall's element for a range
 * of ids exist only while somebody holds the range (image/fetchids.h), or until whoever takes it
 * next, or the next tidying, has removed them. */
#include "engine/fleet/fetch_guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/image/fetchids.h"
#include "engine/instance.h"
#include "engine/net/net.h"
#include "engine/slice/slice.h"

/* A zstd window may take 128 MiB; the rest is for buffers, and for pages on their way to the disk. */
#define MEMORY_BYTES (512ULL << 20)
#define PIDS         32U
#define KILL_US      (2 * US_PER_S)
#define RESOLV_CONF  "/etc/resolv.conf"
#define RESOLV_BYTES 65536U
#define ID_BITS      16
#define HTTPS_PORT   443U
#define HTTP_PORT    80U

struct cell {
        uint32_t id_base;
        char name[16];
        struct slice_enter enter;
};

static void group_name(uint32_t id_base, char ret[static 16])
{
        (void) snprintf(ret, 16, "f%x", id_base >> ID_BITS);
}

/* ---- whom fetchers may reach besides the public ---- */

static int allow_address(const struct host *host, const char *text, uint16_t port, struct err *e)
{
        struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons(port) };
        struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
        char plain[INET6_ADDRSTRLEN + 1] = "";

        (void) snprintf(plain, sizeof plain, "%.*s", (int) strcspn(text, "%"), text);
        if (inet_pton(AF_INET, plain, &in.sin_addr) == 1)
                return net_fetch_allow(host->net, (const struct sockaddr *) &in, true, e);
        if (inet_pton(AF_INET6, plain, &in6.sin6_addr) == 1)
                return net_fetch_allow(host->net, (const struct sockaddr *) &in6, true, e);
        return 0; /* the resolver does not understand it either */
}

/* The name servers that vmm-fetch will ask: it reads the same file. */
static int allow_name_servers(const struct host *host, struct err *e)
{
        AUTO(free) char *text = NULL;
        char *save = NULL;
        size_t n = 0;
        int r = fd_read_file(AT_FDCWD, RESOLV_CONF, RESOLV_BYTES, &text, NULL);

        if (r < 0 && r != -ENOENT)
                log_warn("%s: %s", RESOLV_CONF, strerror(-r));
        r = 0;
        for (char *line = text ? strtok_r(text, "\n", &save) : NULL; r >= 0 && line;
             line = strtok_r(NULL, "\n", &save)) {
                const char *p = str_after(line, "nameserver");
                char word[INET6_ADDRSTRLEN + 32];

                if (!p || (*p != ' ' && *p != '\t'))
                        continue;
                p += strspn(p, " \t");
                (void) snprintf(word, sizeof word, "%.*s", (int) strcspn(p, " \t\r"), p);
                r = allow_address(host, word, NAMESERVER_PORT, e);
                n++;
        }
        if (r >= 0 && n == 0) /* what resolvers take then */
                r = allow_address(host, "127.0.0.1", NAMESERVER_PORT, e);
        return r;
}

/* "HOST", "HOST:PORT", "[V6]", "[V6]:PORT", "V6": host into @ret; returns the port, 0: none given. */
static uint16_t split_host(const char *entry, char *ret, size_t size)
{
        const char *end = *entry == '[' ? strchr(entry, ']') : NULL;
        const char *from = end ? entry + 1 : entry;
        const char *colon = end ? (end[1] == ':' ? end + 1 : NULL) : strchr(entry, ':');
        uint64_t port = 0;

        if (!end && colon && strchr(colon + 1, ':'))
                colon = NULL; /* a bare IPv6 address */
        if (!end)
                end = colon ? colon : entry + strlen(entry);
        (void) snprintf(ret, size, "%.*s", (int) (end - from), from);
        if (colon && str_u64(colon + 1, 1, 65535, &port) < 0)
                port = 0;
        return (uint16_t) port;
}

static int allow_all(const struct host *host, const struct addrinfo *list, uint16_t port,
                     struct err *e)
{
        int r = 0;

        for (const struct addrinfo *a = list; r >= 0 && a; a = a->ai_next) {
                struct sockaddr_storage to = { 0 };

                if (a->ai_addrlen > sizeof to ||
                    (a->ai_family != AF_INET && a->ai_family != AF_INET6))
                        continue;
                memcpy(&to, a->ai_addr, a->ai_addrlen);
                if (a->ai_family == AF_INET)
                        ((struct sockaddr_in *) &to)->sin_port = htons(port);
                else
                        ((struct sockaddr_in6 *) &to)->sin6_port = htons(port);
                r = net_fetch_allow(host->net, (const struct sockaddr *) &to, false, e);
        }
        return r;
}

/* The addresses of one listed registry.  One that cannot be resolved is not reached by vmm-fetch
 * either, which then says so. */
static int allow_registry(const struct host *host, const struct registry_conf *c, struct err *e)
{
        struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST };
        struct addrinfo *list = NULL;
        char name[280];
        uint16_t port = split_host(c->host, name, sizeof name);
        int r;

        if (getaddrinfo(name, NULL, &hints, &list) != 0) {
                hints.ai_flags = 0;
                if (getaddrinfo(name, NULL, &hints, &list) != 0)
                        return 0;
        }
        r = allow_all(host, list, port ? port : HTTPS_PORT, e);
        if (r >= 0 && !port && c->insecure)
                r = allow_all(host, list, HTTP_PORT, e);
        freeaddrinfo(list);
        return r;
}

static int allow_configured(const struct host *host, struct err *e)
{
        int r = allow_name_servers(host, e);

        if (res_init() == 0) { /* a name server that is down delays each pull this long */
                _res.retrans = 2;
                _res.retry = 1;
        }
        for (size_t i = 0; r >= 0 && i < host->inst->n_registries; i++)
                r = allow_registry(host, &host->inst->registries[i], e);
        return r;
}

/* ---- the three moments ---- */

static int make_group(struct slice_host *h, struct cell *c, struct err *e)
{
        const struct slice_limits l = { .memory_bytes = MEMORY_BYTES, .pids = PIDS };
        int r = slice_create(h, c->name, &l, e);

        if (r == -EEXIST) { /* of an operation that was killed */
                r = slice_kill(h, c->name, clock_mono_us() + KILL_US, e);
                if (r >= 0)
                        r = slice_remove(h, c->name, e);
                if (r >= 0)
                        r = slice_create(h, c->name, &l, e);
        }
        return r < 0 ? r : slice_enter_open(h, c->name, &c->enter, e);
}

static uint64_t open_cell(void *arg, void *cell)
{
        const struct fetch_guard *g = arg;
        struct slice_usage usage = { 0 };
        struct cell *c = cell;
        struct err e = { 0 };

        if (!c)
                return 0;
        slice_enter_done(&c->enter);
        (void) slice_usage(g->host->slices, c->name, &usage, NULL);
        if (slice_kill(g->host->slices, c->name, clock_mono_us() + KILL_US, &e) < 0 ||
            slice_remove(g->host->slices, c->name, &e) < 0)
                log_warn("%s", e.msg);
        if (net_fetch_release(g->host->net, c->id_base, &e) < 0)
                log_warn("%s", e.msg);
        free(c);
        return usage.oom_kills;
}

static int shut_cell(void *arg, uint32_t id_base, void **ret_cell, struct err *e)
{
        struct fetch_guard *g = arg;
        struct cell *c = calloc(1, sizeof *c);
        int r;

        if (!c)
                return err_set(e, -ENOMEM, "out of memory");
        c->id_base = id_base;
        c->enter.v2_dir = -EBADF;
        group_name(id_base, c->name);
        r = make_group(g->host->slices, c, e);
        if (r >= 0)
                r = net_fetch_confine(g->host->net, id_base, e);
        if (r >= 0 && !g->allowed) {
                r = allow_configured(g->host, e);
                g->allowed = r >= 0;
        }
        if (r < 0) {
                (void) open_cell(arg, c);
                return err_wrap(e, r, "the limits of vmm-fetch");
        }
        *ret_cell = c;
        return 0;
}

static int enter_cell(const void *cell)
{
        const struct cell *c = cell;

        return slice_enter_self(&c->enter);
}

void fetch_guard_init(struct fetch_guard *g, const struct host *host, struct image_guard *ret)
{
        *g = (struct fetch_guard){ .host = host };
        *ret = (struct image_guard){ .shut = shut_cell,
                                     .enter = enter_cell,
                                     .open = open_cell,
                                     .memory_bytes = MEMORY_BYTES,
                                     .arg = g };
}

/* ---- what a kill left ---- */

/* What there is of a range here goes, while nobody has it; @alone: although somebody has, who is then
 * another instance, with a group and a rule of its own.  1: somebody has it; it stays for now. */
static int tidy_range(const struct host *host, uint32_t id_base, bool alone, struct err *e)
{
        int fd = fetchids_claim_at(host->inst, id_base, NULL), r;
        char name[16];

        if (fd < 0 && !alone)
                return fd == -EBUSY ? 1 : err_errno(e, fd, "id range of fetchers");
        group_name(id_base, name);
        r = slice_kill(host->slices, name, clock_mono_us() + KILL_US, e);
        if (r >= 0)
                r = slice_remove(host->slices, name, e);
        if (r >= 0 && host->net)
                r = net_fetch_release(host->net, id_base, e);
        (void) fetchids_release(host->inst, fd);
        return r < 0 ? r : 0;
}

/* Ranges by their groups' names. */
struct found {
        uint32_t id_base[256];
        size_t n;
};

static int on_group(void *arg, const char *name)
{
        struct found *f = arg;
        uint64_t units;
        char again[16];

        if (name[0] != 'f' || str_u64_prefix(name + 1, 16, &units) < 0 || units > UINT16_MAX)
                return 0;
        group_name((uint32_t) units << ID_BITS, again);
        if (str_eq(name, again) && f->n < NELEM(f->id_base))
                f->id_base[f->n++] = (uint32_t) units << ID_BITS;
        return 0;
}

int fetch_guard_tidy(const struct host *host, bool alone, struct err *e)
{
        AUTO(free) uint32_t *ranges = NULL;
        struct found f = { .n = 0 };
        size_t n = 0;
        int r = slice_each(host->slices, on_group, &f), busy = 0;

        for (size_t i = 0; i < f.n; i++) {
                int one = tidy_range(host, f.id_base[i], alone, e);

                r = one < 0 ? one : r; /* go on with the others */
                busy += one > 0;
        }
        if (r >= 0 && host->net)
                r = net_fetch_list(host->net, &ranges, &n, e);
        for (size_t i = 0; r >= 0 && i < n; i++) {
                r = tidy_range(host, ranges[i], alone, e);
                busy += r == 1;
        }
        return r < 0 ? err_wrap(e, r, "what fetchers left") : busy;
}
