/* pool.c - see net_priv.h: does anybody else use the addresses that clusters get?  The engine at its start.
 * Always holds: nothing is changed, and what other instances have is no conflict. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <time.h>

#include "base/mem.h"
#include "base/str.h"
#include "engine/net/net_priv.h"
#include "model/egress.h"

#define POOL_CHECK_TRIES 5

/* A route to more than a /8 is a way to everywhere (VPNs split the default route in halves); of IPv6 also
 * one to all private addresses. */
#define EVERYWHERE_BITS  7U
#define EVERYWHERE6_BITS 8U
#define POOL6_BITS       64U

static bool is_service(const struct rtnl_addr *a)
{
        return str_after(a->label, NET_LABEL_PREFIX) != NULL;
}

static const char *link_name(const struct rtnl_link *links, size_t n, uint32_t index)
{
        for (size_t i = 0; i < n; i++)
                if (links[i].index == index)
                        return links[i].name;
        return "";
}

/* Does this route mean that somebody else uses addresses of the pool? */
static bool route_conflicts(const struct net_host *h, const struct rtnl_route *rt, const char *link)
{
        if (rt->bits <= EVERYWHERE_BITS || !ipv4_pool_overlaps(&h->pool, rt->dst, rt->bits))
                return false;
        if (rt->bits <= h->pool.bits &&
            (rt->type == RTN_BLACKHOLE || rt->type == RTN_UNREACHABLE || rt->type == RTN_PROHIBIT))
                return false; /* a sink below everything more specific, as firewalls like them */
        return net_link_slot(link) == 0;
}

/* Is this the route of a service address, ours or another instance's? */
static bool route_of_service(const struct rtnl_route *rt, const struct rtnl_addr *addrs, size_t n)
{
        for (size_t i = 0; i < n && rt->bits == 32; i++)
                if (addrs[i].addr == rt->dst && is_service(&addrs[i]))
                        return true;
        return false;
}

/* 0: nobody else uses the pool.  -EADDRINUSE: a route says so. */
static int check4(struct net_host *h, struct err *e)
{
        AUTO(free) struct rtnl_route *routes = NULL;
        AUTO(free) struct rtnl_link *links = NULL;
        AUTO(free) struct rtnl_addr *addrs = NULL;
        size_t n_routes, n_links, n_addrs;
        int r = rtnl_routes(&h->rtnl, &routes, &n_routes, e);

        if (r >= 0)
                r = rtnl_links(&h->rtnl, &links, &n_links, e);
        if (r >= 0)
                r = rtnl_addrs(&h->rtnl, &addrs, &n_addrs, e);
        if (r < 0)
                return r;
        for (size_t i = 0; i < n_routes; i++) {
                const struct rtnl_route *rt = &routes[i];
                const char *link = link_name(links, n_links, rt->index);
                char pool[IPV4_TEXT], dst[IPV4_TEXT];

                if (route_of_service(rt, addrs, n_addrs) || !route_conflicts(h, rt, link))
                        continue;
                return err_set(
                        e, -EADDRINUSE,
                        "network pool: %s/%u overlaps the host's route to %s/%u%s%s; choose a range that is not in use with `pool` in [network]",
                        ipv4_format(h->pool.base, pool), h->pool.bits, ipv4_format(rt->dst, dst),
                        rt->bits, *link ? " on " : "", link);
        }
        return 0;
}

/* ---- IPv6 ---- */

static struct network pool_of(const struct ipv6_pool *p)
{
        struct network n = { .v6 = true, .bits = POOL6_BITS };

        memcpy(n.addr, p->prefix, sizeof p->prefix);
        return n;
}

/* Of whatever instance: on lo, and with the mark that no cluster's address has. */
static bool is_service6(const uint8_t addr[static IPV6_BYTES], const char *link)
{
        return str_eq(link, "lo") && addr[sizeof(uint64_t)] & 0x80;
}

static bool route6_conflicts(const struct network *pool, const struct rtnl_route6 *rt,
                             const char *link)
{
        struct network dst = { .v6 = true, .bits = (uint8_t) rt->bits };

        memcpy(dst.addr, rt->dst, sizeof dst.addr);
        if (rt->bits <= EVERYWHERE6_BITS ||
            !(network_holds(pool, &dst) || network_holds(&dst, pool)))
                return false;
        if (rt->bits <= POOL6_BITS &&
            (rt->type == RTN_BLACKHOLE || rt->type == RTN_UNREACHABLE || rt->type == RTN_PROHIBIT))
                return false;
        return net_link_slot(link) == 0 && !(rt->bits == 128 && is_service6(rt->dst, link));
}

static int in_use6(const struct network *pool, const char *what, const struct network *by,
                   const char *link, struct err *e)
{
        char mine[NETWORK_TEXT], theirs[NETWORK_TEXT];

        return err_set(
                e, -EADDRINUSE,
                "network pool6: %s overlaps the host's %s %s%s%s; choose a /64 that is not in use with `pool6` in [network]",
                network_format(pool, mine), what, network_format(by, theirs), *link ? " on " : "",
                link);
}

/* A link that is down has addresses, and no routes yet. */
static int check_addrs6(struct net_host *h, const struct rtnl_link *links, size_t n_links,
                        const struct network *pool, struct err *e)
{
        AUTO(free) struct rtnl_addr6 *addrs = NULL;
        size_t n;
        int r = rtnl_addrs6(&h->rtnl, &addrs, &n, e);

        for (size_t i = 0; r >= 0 && i < n; i++) {
                const char *link = link_name(links, n_links, addrs[i].index);
                struct network at = { .v6 = true, .bits = 128 };

                memcpy(at.addr, addrs[i].addr, sizeof at.addr);
                if (network_holds(pool, &at) && !is_service6(at.addr, link))
                        r = in_use6(pool, "address", &at, link, e);
        }
        return r;
}

static int check6(struct net_host *h, struct err *e)
{
        AUTO(free) struct rtnl_route6 *routes = NULL;
        AUTO(free) struct rtnl_link *links = NULL;
        const struct network pool = pool_of(&h->pool6);
        size_t n, n_links;
        int r;

        if (!h->pool6.on)
                return 0;
        r = rtnl_links(&h->rtnl, &links, &n_links, e);
        if (r >= 0)
                r = check_addrs6(h, links, n_links, &pool, e);
        if (r < 0)
                return r;
        r = rtnl_routes6(&h->rtnl, &routes, &n, e);
        if (r == -EAFNOSUPPORT || r == -EOPNOTSUPP)
                return 0; /* no IPv6, which is said elsewhere */
        for (size_t i = 0; r >= 0 && i < n; i++) {
                const char *link = link_name(links, n_links, routes[i].index);
                struct network dst = { .v6 = true, .bits = (uint8_t) routes[i].bits };

                memcpy(dst.addr, routes[i].dst, sizeof dst.addr);
                if (route6_conflicts(&pool, &routes[i], link))
                        r = in_use6(&pool, "route to", &dst, link, e);
        }
        return r;
}

static int check_once(struct net_host *h, struct err *e)
{
        int r = check4(h, e);

        return r < 0 ? r : check6(h, e);
}

/* The listings are taken one after the other, while other instances on this machine come and go: a
 * service address that appears or disappears in between looks like somebody else's route.  Such a
 * conflict is gone at the next look. */
int net_pool_check(struct net_host *h, struct err *e)
{
        static const struct timespec pause = { .tv_nsec = 20000000 };
        int r = -EADDRINUSE;

        for (int i = 0; r == -EADDRINUSE && i < POOL_CHECK_TRIES; i++) {
                if (i > 0)
                        (void) nanosleep(&pause, NULL);
                r = check_once(h, e);
        }
        return r;
}
