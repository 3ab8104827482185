/* forward.c - see net_priv.h: making the host pass packets on, and putting that back.  The engine at
 * start and end.  Always holds: what we changed is on record before it is changed, with the value to
 * restore, and the last instance on this machine restores it.
 *
 * IPv6 has a snare that IPv4 lacks: a host that forwards on all links no longer believes routers'
 * advertisements, and one that has its own way out from those loses it.  Kernels from 6.17 on forward
 * without that effect (force_forwarding); on older ones such a host keeps its way out, and its
 * clusters get no IPv6. */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/net/net_priv.h"

#define FORWARD_SETTING  "ip_forward"
#define FORWARD_FILE     "/proc/sys/net/ipv4/ip_forward"
#define REDIRECTS_FILE   "/proc/sys/net/ipv4/conf/all/accept_redirects"
#define FORWARD6_SETTING "ip6_forward"
#define IPV6_CONF        "/proc/sys/net/ipv6/conf/"

static int read_flag(const char *path, uint64_t *ret, struct err *e)
{
        AUTO(free) char *s = NULL;
        int r = fd_read_file(AT_FDCWD, path, 64, &s, NULL);

        if (r >= 0) {
                s[strcspn(s, "\n")] = '\0';
                r = str_u64(s, 0, UINT32_MAX, ret);
        }
        return r < 0 ? err_errno(e, r, "read %s", path) : 0;
}

static int write_file(const char *path, const char *value, struct err *e)
{
        int r = fd_write_value(AT_FDCWD, path, value);

        return r < 0 ? err_errno(e, r, "write %s", path) : 0;
}

/* The kernel changes accept_redirects along with forwarding, so both are remembered. */
int net_forward_on(struct net_host *h, struct err *e)
{
        uint64_t forward, redirects;
        char save[64];
        bool first;
        int r = read_flag(FORWARD_FILE, &forward, e);

        if (r >= 0)
                r = read_flag(REDIRECTS_FILE, &redirects, e);
        if (r < 0)
                return r;
        (void) snprintf(save, sizeof save, "%u %u", (unsigned) forward, (unsigned) redirects);
        r = claim_setting_hold(h->claims, FORWARD_SETTING, save, &first, e);
        if (r >= 0) /* again: somebody may have put the old value back just before we held it */
                r = read_flag(FORWARD_FILE, &forward, e);
        return r < 0 || forward ? r : write_file(FORWARD_FILE, "1", e);
}

int net_forward_leave(struct net_host *h, struct err *e)
{
        char saved[64] = "";
        bool last = false;
        int r = claim_setting_leave(h->claims, FORWARD_SETTING, saved, sizeof saved, &last, e);

        if (r < 0 || !last)
                return r;
        if (saved[0] == '0' && saved[1] == ' ') { /* else it was on before the first of us */
                r = write_file(FORWARD_FILE, "0", e);
                if (r >= 0)
                        r = write_file(REDIRECTS_FILE, saved + 2, e);
                if (r < 0)
                        return r;
        }
        r = claim_setting_restored(h->claims, FORWARD_SETTING, e);
        return r > 0 ? write_file(FORWARD_FILE, "1", e) : r;
}

/* ---- IPv6 ---- */

/* Ways to forward, the best first; what is saved begins with the letter. */
static const struct {
        char letter;
        const char *path, *later; /* for the links that there are, and for those that will be */
        bool deaf;                /* the host no longer hears routers' advertisements */
} ways[] = {
        { 'f', IPV6_CONF "all/force_forwarding", IPV6_CONF "default/force_forwarding", false },
        { 'a', IPV6_CONF "all/forwarding", IPV6_CONF "default/forwarding", true },
};

static int set_way(size_t i, const char *value, struct err *e)
{
        int r = write_file(ways[i].later, value, e);

        return r < 0 ? r : write_file(ways[i].path, value, e);
}

/* Has the host its own way out from a router's advertisement? */
static int lives_by_advertisement(struct net_host *h, struct err *e)
{
        AUTO(free) struct rtnl_route6 *routes = NULL;
        size_t n;
        int r = rtnl_routes6(&h->rtnl, &routes, &n, e);

        for (size_t i = 0; r >= 0 && i < n; i++)
                if (routes[i].bits == 0 && routes[i].protocol == RTPROT_RA &&
                    routes[i].type == RTN_UNICAST)
                        return 1;
        return r < 0 ? r : 0;
}

static bool is_set(const char *path)
{
        uint64_t v;

        return read_flag(path, &v, NULL) >= 0 && v > 0;
}

/* The index of the way to take, or -EOPNOTSUPP with the reason. */
static int choose_way(struct net_host *h, struct err *e)
{
        int r;

        if (access(IPV6_CONF "all/forwarding", F_OK) < 0)
                return err_set(e, -EOPNOTSUPP, "this host's kernel has no IPv6");
        if (is_set(IPV6_CONF "all/disable_ipv6") || is_set(IPV6_CONF "default/disable_ipv6"))
                return err_set(e, -EOPNOTSUPP,
                               "IPv6 is switched off on this host (net.ipv6.conf.*.disable_ipv6)");
        for (size_t i = 0; i < NELEM(ways); i++)
                if (is_set(ways[i].path))
                        return (int) i; /* it does already */
        for (size_t i = 0; i < NELEM(ways); i++) {
                if (access(ways[i].path, F_OK) < 0)
                        continue;
                r = ways[i].deaf ? lives_by_advertisement(h, e) : 0;
                if (r <= 0)
                        return r < 0 ? r : (int) i;
        }
        return err_set(
                e, -EOPNOTSUPP,
                "this host has its IPv6 route from a router's advertisement, which it would ignore if it forwarded (Linux 6.17 and later can do both; so does net.ipv6.conf.all.forwarding = 1 with accept_ra = 2 on the uplink)");
}

int net_probe_ipv6(bool *ret_advertised, struct err *e)
{
        struct net_host h = { .netns = -EBADF };
        bool advertised = false;
        int r = nl_sock_open(&h.rtnl, NETLINK_ROUTE, e);

        if (r >= 0)
                r = lives_by_advertisement(&h, NULL);
        advertised = r > 0; /* a kernel without IPv6 is told of by the choice */
        if (h.rtnl.mnl)
                r = choose_way(&h, e);
        nl_sock_close(&h.rtnl);
        *ret_advertised = advertised;
        return r < 0 ? r : ways[r].deaf;
}

int net_forward6_on(struct net_host *h, struct err *e)
{
        char save[64];
        bool first;
        uint64_t old = 0;
        int way = choose_way(h, e), r;

        if (way < 0)
                return way;
        r = read_flag(ways[way].path, &old, e);
        if (r < 0)
                return r;
        (void) snprintf(save, sizeof save, "%c %u", ways[way].letter, (unsigned) old);
        r = claim_setting_hold(h->claims, FORWARD6_SETTING, save, &first, e);
        if (r >= 0)
                r = read_flag(ways[way].path, &old, e);
        return r < 0 || old ? r : set_way((size_t) way, "1", e);
}

int net_forward6_leave(struct net_host *h, struct err *e)
{
        char saved[64] = "";
        bool last = false;
        size_t way = NELEM(ways);
        int r = claim_setting_leave(h->claims, FORWARD6_SETTING, saved, sizeof saved, &last, e);

        if (r < 0 || !last)
                return r;
        for (size_t i = 0; i < NELEM(ways); i++)
                if (saved[0] == ways[i].letter && str_eq(saved + 1, " 0"))
                        way = i;
        r = way < NELEM(ways) ? set_way(way, "0", e) : 0;
        if (r >= 0)
                r = claim_setting_restored(h->claims, FORWARD6_SETTING, e);
        return r > 0 && way < NELEM(ways) ? set_way(way, "1", e) : r;
}
