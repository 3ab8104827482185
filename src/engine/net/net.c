/* net.c - see net.h: the host's side of it.  The engine at start and end, operation processes for
 * their sockets.  Always holds: the firewall table is complete before the host begins to forward,
 * and nothing of another instance or of the operator is changed. */
#include "engine/net/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/jsonx.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/net/net_priv.h"
#include "engine/net/netns.h"
#include "model/limits.h"

#define RESOLV_CONF     "/etc/resolv.conf"
#define RESOLV_UPSTREAM "/run/systemd/resolve/resolv.conf"
#define SERVICE_TRIES   64U
#define SERVICE_BACKLOG 128

int net_sockets(struct net_host *h, struct err *e)
{
        pid_t me = getpid();
        int r;

        if (h->pid == me)
                return 0;
        nl_sock_close(&h->rtnl);
        nl_sock_close(&h->nft);
        r = nl_sock_open(&h->rtnl, NETLINK_ROUTE, e);
        if (r >= 0)
                r = nl_sock_open(&h->nft, NETLINK_NETFILTER, e);
        h->pid = r < 0 ? 0 : me;
        return r;
}

/* The directory itself is locked: what a full disk has no room for cannot keep a cluster from ending. */
int net_hold(const struct net_host *h, int how, struct err *e)
{
        AUTO(fd) int fd = open(h->data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0)
                return err_errno(e, -errno, "%s", h->data_dir);
        while (flock(fd, how) < 0)
                if (errno != EINTR)
                        return err_errno(e, -errno, "lock %s", h->data_dir);
        return fd_take(&fd);
}

/* ---- name servers ---- */

struct own_addrs {
        const struct rtnl_addr *at;
        size_t n;
};

static bool is_own(void *arg, uint32_t addr)
{
        const struct own_addrs *own = arg;

        for (size_t i = 0; i < own->n; i++)
                if (own->at[i].addr == addr)
                        return true;
        return false;
}

/* Servers on an address of this host are out: clusters reach nothing of the host. */
static int drop_own(struct net_host *h, struct dns_servers *s, struct err *e)
{
        AUTO(free) struct rtnl_addr *addrs = NULL;
        struct own_addrs own = { .n = 0 };
        int r = rtnl_addrs(&h->rtnl, &addrs, &own.n, e);

        if (r < 0)
                return r;
        own.at = addrs;
        dns_drop(s, is_own, &own);
        return 0;
}

int net_dns_refresh(struct net_host *h, struct err *e)
{
        struct dns_servers s;
        struct stat st = { 0 };
        int r;

        if (!str_empty(h->dns_option))
                return 0;              /* read at start, never changes */
        (void) stat(RESOLV_CONF, &st); /* absent: all zero, which is a state like another */
        if (h->dns_seen.st_ino == st.st_ino && h->dns_seen.st_dev == st.st_dev &&
            h->dns_seen.st_mtim.tv_sec == st.st_mtim.tv_sec &&
            h->dns_seen.st_mtim.tv_nsec == st.st_mtim.tv_nsec)
                return 0;
        r = dns_load(RESOLV_CONF, RESOLV_UPSTREAM, &s, e);
        if (r >= 0)
                r = drop_own(h, &s, e);
        if (r < 0)
                return err_wrap(e, r, "name servers");
        if (s.n == 0)
                log_warn(
                        "the host's %s names no server that a cluster can reach; set `dns` in [network]",
                        RESOLV_CONF);
        h->dns = s;
        h->dns_seen = st;
        return 0;
}

static int dns_start(struct net_host *h, struct err *e)
{
        size_t n;
        int r;

        memset(&h->dns_seen, 0xff, sizeof h->dns_seen); /* no file looks like that: read it */
        if (str_empty(h->dns_option))
                return net_dns_refresh(h, e);
        r = dns_parse_option(h->dns_option, &h->dns, e);
        n = h->dns.n;
        if (r >= 0)
                r = drop_own(h, &h->dns, e);
        if (r >= 0 && h->dns.n < n)
                log_warn("network dns: %s names this host, which clusters cannot reach; left out",
                         h->dns_option);
        return r;
}

/* ---- the service address ---- */

/* Ours from before, or the first that nobody has. */
static int service_choose(struct net_host *h, const struct rtnl_addr *addrs, size_t n,
                          struct err *e)
{
        h->service = 0;
        for (size_t i = 0; i < n; i++)
                if (str_eq(addrs[i].label, h->label) &&
                    ipv4_within(addrs[i].addr, h->pool.base, h->pool.bits))
                        h->service = addrs[i].addr;
        for (uint32_t k = 0; !h->service && k < SERVICE_TRIES; k++) {
                uint32_t want = ipv4_service(&h->pool, h->id, k);
                bool taken = false;

                for (size_t i = 0; i < n; i++)
                        taken = taken || addrs[i].addr == want;
                if (!taken)
                        h->service = want;
        }
        return h->service ? 0 : err_set(e, -EADDRINUSE, "no free service address");
}

static int service_del(struct net_host *h, const struct rtnl_addr *addrs, size_t n, uint32_t except,
                       struct err *e)
{
        struct nl_batch b;

        nl_batch_init(&b);
        for (size_t i = 0; i < n && b.n < NL_BATCH_MSGS; i++)
                if (str_eq(addrs[i].label, h->label) && addrs[i].addr != except)
                        rtnl_addr_del(&b, addrs[i].index, addrs[i].addr);
        return nl_commit(&h->rtnl, &b, e);
}

static int service_add(struct net_host *h, struct err *e)
{
        struct nl_batch b;
        uint32_t lo;
        int r = rtnl_index(&h->rtnl, "lo", &lo);

        if (r < 0)
                return err_errno(e, r, "link lo");
        nl_batch_init(&b);
        rtnl_addr_add(&b, lo, h->service, h->label, RT_SCOPE_HOST);
        return nl_commit(&h->rtnl, &b, e);
}

/* IPv6 addresses have no label; the half behind the prefix tells whose one is. */
static int service6_del(struct net_host *h, bool keep, struct err *e)
{
        AUTO(free) struct rtnl_addr6 *addrs = NULL;
        struct nl_batch b;
        uint32_t lo;
        size_t n;
        int r = rtnl_index(&h->rtnl, "lo", &lo);

        r = r < 0 ? err_errno(e, r, "link lo") : rtnl_addrs6(&h->rtnl, &addrs, &n, e);
        if (r < 0)
                return r;
        nl_batch_init(&b);
        for (size_t i = 0; i < n && b.n < NL_BATCH_MSGS; i++)
                if (addrs[i].index == lo && ipv6_is_service(addrs[i].addr, h->id) &&
                    !(keep && memcmp(addrs[i].addr, h->service6, IPV6_BYTES) == 0))
                        rtnl_addr6_del(&b, lo, addrs[i].addr);
        return nl_commit(&h->rtnl, &b, e);
}

/* Make IPv6 work, or say once why it does not. */
static int ipv6_start(struct net_host *h, struct err *e)
{
        struct err why = { 0 };
        struct nl_batch b;
        uint32_t lo;
        int r = h->pool6.on ? net_forward6_on(h, &why) : -EOPNOTSUPP;

        h->v6 = r >= 0;
        if (r < 0 && r != -EOPNOTSUPP)
                return err_copy(e, &why);
        if (r < 0 && h->pool6.on && !*h->v6_lacks.msg)
                log_warn("clusters get no IPv6: %s", why.msg);
        h->v6_lacks = why;
        r = service6_del(h, h->v6, e);
        if (r < 0)
                return r;
        if (!h->v6)
                return net_forward6_leave(h, e);
        r = rtnl_index(&h->rtnl, "lo", &lo);
        if (r < 0)
                return err_errno(e, r, "link lo");
        nl_batch_init(&b);
        rtnl_addr6_add(&b, lo, h->service6);
        return nl_commit(&h->rtnl, &b, e);
}

/* ---- open, close, remove ---- */

static uint32_t group_of(const char *id)
{
        uint32_t h = 2166136261U;

        for (; *id; id++)
                h = (h ^ (uint8_t) *id) * 16777619U;
        h &= ~NET_GROUP_DEAD;
        return h < 1024 ? h + 1024 : h; /* small numbers are what people use */
}

/* Links, table and service address of h's names. */
static int unmake_kernel(struct net_host *h, struct err *e)
{
        AUTO(free) struct rtnl_addr *addrs = NULL;
        struct nl_batch b;
        size_t n;
        int r;

        nl_batch_init(&b);
        rtnl_group_del(&b, h->group);
        rtnl_group_del(&b, h->group | NET_GROUP_DEAD);
        r = nl_commit(&h->rtnl, &b, e);
        if (r >= 0)
                r = net_sweep(h, e);
        if (r >= 0)
                r = nft_table_del(&h->nft, h->table, e);
        if (r >= 0)
                r = rtnl_addrs(&h->rtnl, &addrs, &n, e);
        if (r >= 0)
                r = service_del(h, addrs, n, 0, e);
        return r < 0 ? r : service6_del(h, false, e);
}

static int unmake(struct net_host *h, struct err *e)
{
        int r = net_forward_leave(h, e);

        if (r >= 0)
                r = net_forward6_leave(h, e);
        return r < 0 ? r : unmake_kernel(h, e);
}

static void set_names(struct net_host *h, const char *id)
{
        (void) snprintf(h->id, sizeof h->id, "%s", id);
        (void) snprintf(h->table, sizeof h->table, NFT_TABLE_PREFIX "%s", id);
        (void) snprintf(h->label, sizeof h->label, NET_LABEL_PREFIX "%s", id);
        h->group = group_of(id);
}

int net_remove_dead(struct net_host *h, const char *id, struct err *e)
{
        int r = net_sockets(h, e);
        struct net_host other = *h; /* our sockets, its names */

        if (r < 0)
                return r;
        set_names(&other, id);
        r = unmake_kernel(&other, e);
        h->rtnl = other.rtnl; /* sequence numbers went on */
        h->nft = other.nft;
        return r;
}

/* Checks first, then changes; the firewall before the address that it protects and before
 * forwarding. */
static int host_make(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e)
{
        AUTO(free) struct rtnl_addr *addrs = NULL;
        bool known = false;
        size_t n;
        int r = net_pool_check(h, e);

        if (r >= 0)
                r = rtnl_addrs(&h->rtnl, &addrs, &n, e);
        if (r >= 0)
                r = net_table_check(h, e);
        if (r >= 0)
                r = service_choose(h, addrs, n, e);
        if (r >= 0)
                r = dns_start(h, e);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n; i++)
                known = known || str_eq(addrs[i].label, h->label);
        r = net_table_make(h, fn, arg, e);
        if (r >= 0)
                r = service_del(h, addrs, n, h->service, e);
        if (r >= 0)
                r = service_add(h, e);
        if (r >= 0)
                r = net_forward_on(h, e);
        if (r >= 0)
                r = ipv6_start(h, e);
        if (r < 0 && !known)
                (void) unmake(h, NULL); /* the first start of this instance: leave nothing */
        return r;
}

int net_host_open(const struct instance *inst, struct claim_host *claims, struct net_host **ret,
                  struct err *e)
{
        AUTO(net_host_close) struct net_host *h = calloc(1, sizeof *h);
        int r;

        if (!h)
                return err_set(e, -ENOMEM, "network");
        h->netns = -EBADF;
        h->data_dir = inst->data_dir;
        h->claims = claims;
        h->resolver = inst->conf.resolver;
        h->dns_option = inst->conf.dns;
        set_names(h, inst->id);
        if (strspn(h->id, "abcdefghijklmnopqrstuvwxyz0123456789") != strlen(h->id) || !*h->id)
                return err_set(e, -EINVAL, "instance id '%s'", h->id);

        r = ipv4_pool_parse(inst->conf.network_pool, &h->pool, e);
        if (r >= 0)
                r = ipv6_pool_parse(inst->conf.network_pool6, h->id, &h->pool6, e);
        if (r >= 0)
                r = net_allow_parse(inst->conf.network_allow, &h->allow, e);
        if (r < 0)
                return r;
        ipv6_service(&h->pool6, h->id, h->service6);
        r = net_public_parse(h, &inst->conf, e);
        if (r < 0)
                return r;
        h->connections = inst->conf.network_connections;
        h->bandwidth = inst->conf.network_bandwidth;
        h->netns = netns_own(e);
        if (h->netns < 0)
                return h->netns;
        r = net_sockets(h, e);
        if (r >= 0)
                r = host_make(h, NULL, NULL, e);
        if (r >= 0 && !h->outdated) /* fetchers die with the engine, so there are none */
                r = nft_fetch_reset(&h->nft, h->table, e);
        if (r < 0)
                return r;
        net_room_warn(inst); /* the rules made the kernel track */
        *ret = TAKE(h);
        return 0;
}

struct net_host *net_host_close(struct net_host *h)
{
        if (!h)
                return NULL;
        nl_sock_close(&h->rtnl);
        nl_sock_close(&h->nft);
        (void) fd_close(h->netns);
        free(h);
        return NULL;
}

const char *net_ipv6_lacks(const struct net_host *h)
{
        return *h->v6_lacks.msg ? h->v6_lacks.msg : NULL;
}

int net_host_repair(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e)
{
        AUTO(fd) int lock = -EBADF;
        int r = net_sockets(h, e);

        if (r >= 0)
                r = lock = net_hold(h, LOCK_EX, e);
        return r < 0 ? r : host_make(h, fn, arg, e);
}

int net_table_gone(struct net_host *h, struct err *e)
{
        log_warn("the firewall table %s is gone; somebody removed it, making it again", h->table);
        return net_host_repair(h, NULL, NULL, e); /* the engine knows of the others' policies */
}

int net_host_remove(struct net_host *h, struct err *e)
{
        int r = net_sockets(h, e);

        return r < 0 ? r : unmake(h, e);
}

/* A socket of @type on port @port of the service address. */
static int service_socket(const struct net_host *h, int type, uint16_t port, struct err *e)
{
        AUTO(fd) int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_in a = { .sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(h->service) };
        char text[IPV4_TEXT];
        int one = 1;

        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0)
                return err_errno(e, -errno, "socket");
        if (bind(fd, (const struct sockaddr *) &a, sizeof a) < 0 ||
            (type == SOCK_STREAM && listen(fd, SERVICE_BACKLOG) < 0))
                return err_errno(e, -errno, "listen on %s port %u", ipv4_format(h->service, text),
                                 port);
        return fd_take(&fd);
}

int net_service_listen(struct net_host *h, struct err *e)
{
        return service_socket(h, SOCK_STREAM, 80, e);
}

int net_resolver_listen(struct net_host *h, int *ret_udp, int *ret_tcp, struct err *e)
{
        AUTO(fd) int udp = service_socket(h, SOCK_DGRAM, 53, e);
        AUTO(fd) int tcp = udp < 0 ? udp : service_socket(h, SOCK_STREAM, 53, e); /* or why not */

        if (tcp == -EADDRINUSE)
                return err_wrap(
                        e, tcp,
                        "another program answers for names on every address of this host; let it listen on its own alone, or set `resolver = no` in [network]");
        if (tcp < 0)
                return tcp;
        *ret_udp = fd_take(&udp);
        *ret_tcp = fd_take(&tcp);
        return 0;
}

json_t *net_resolver_settings(const struct net_host *h, struct err *e)
{
        char service[IPV4_TEXT], base[IPV4_TEXT];
        AUTO(json_put) json_t *servers = dns_upstreams(h->dns_option, RESOLV_CONF, e);

        if (!servers)
                return NULL;
        return json_pack("{s:s, s:s, s:s, s:i, s:O}", "type", "settings", "service",
                         ipv4_format(h->service, service), "pool", ipv4_format(h->pool.base, base),
                         "pool_bits", (int) h->pool.bits, "servers", servers);
}

void net_link_name(uint32_t slot, char buf[static IF_NAMESIZE])
{
        (void) snprintf(buf, IF_NAMESIZE, "hv%u", slot);
}

uint32_t net_link_slot(const char *name)
{
        const char *digits = str_after(name, "hv");
        uint64_t slot;

        return digits && str_u64(digits, 1, LIMIT_SLOTS, &slot) >= 0 ? (uint32_t) slot : 0;
}
