/* rtnl.c - see rtnl.h.  Requests; the listings are in rtnl_list.c.  Runs wherever nl.c runs. */
#include "engine/net/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <string.h>
#include <sys/ioctl.h>

#define BURST_MIN 65536U /* a packet at its longest */

static uint64_t clamp(uint64_t v, uint64_t min, uint64_t max)
{
        return v < min ? min : v > max ? max : v;
}

/* One queue: a cluster's link is a pipe between two stacks, and the kernel would make one queue
 * per CPU of the host on both ends. */
static void put_queues(struct nlmsghdr *h)
{
        mnl_attr_put_u32(h, IFLA_NUM_TX_QUEUES, 1);
        mnl_attr_put_u32(h, IFLA_NUM_RX_QUEUES, 1);
}

void rtnl_veth_add(struct nl_batch *b, const struct rtnl_veth *v)
{
        struct ifinfomsg *ifi =
                nl_add(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *ifi, "make link", 0);
        struct nlattr *info, *data, *peer;
        struct nlmsghdr *h = b->cur;

        ifi->ifi_family = AF_UNSPEC;
        ifi->ifi_flags = ifi->ifi_change = IFF_NOARP;
        mnl_attr_put_strz(h, IFLA_IFNAME, v->name);
        mnl_attr_put(h, IFLA_ADDRESS, RTNL_MAC, v->mac);
        mnl_attr_put_u32(h, IFLA_GROUP, v->group);
        put_queues(h);
        info = mnl_attr_nest_start(h, IFLA_LINKINFO);
        mnl_attr_put_strz(h, IFLA_INFO_KIND, "veth");
        data = mnl_attr_nest_start(h, IFLA_INFO_DATA);
        peer = mnl_attr_nest_start(h, VETH_INFO_PEER);
        ifi = mnl_nlmsg_put_extra_header(h, sizeof *ifi);
        ifi->ifi_family = AF_UNSPEC;
        ifi->ifi_index = (int) v->peer_index;
        ifi->ifi_flags = ifi->ifi_change = IFF_NOARP;
        mnl_attr_put_strz(h, IFLA_IFNAME, v->peer);
        mnl_attr_put(h, IFLA_ADDRESS, RTNL_MAC, v->peer_mac);
        mnl_attr_put_u32(h, IFLA_NET_NS_FD, (uint32_t) v->peer_netns);
        put_queues(h);
        mnl_attr_nest_end(h, peer);
        mnl_attr_nest_end(h, data);
        mnl_attr_nest_end(h, info);
}

static struct nlmsghdr *link_message(struct nl_batch *b, unsigned type, uint32_t index,
                                     const char *what, int ignore)
{
        struct ifinfomsg *ifi = nl_add(b, type, 0, sizeof *ifi, what, ignore);

        ifi->ifi_family = AF_UNSPEC;
        ifi->ifi_index = (int) index;
        return b->cur;
}

void rtnl_link_change(struct nl_batch *b, uint32_t index, const struct rtnl_change *c)
{
        struct nlmsghdr *h =
                link_message(b, RTM_NEWLINK, index, "change link", c->absent_ok ? ENODEV : 0);
        struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);

        if (c->up || c->down) {
                ifi->ifi_change = IFF_UP;
                ifi->ifi_flags = c->up ? IFF_UP : 0;
        }
        if (c->group)
                mnl_attr_put_u32(h, IFLA_GROUP, c->group);
        if (c->name)
                mnl_attr_put_strz(h, IFLA_IFNAME, c->name);
        if (c->no_ipv6_address) {
                struct nlattr *spec = mnl_attr_nest_start(h, IFLA_AF_SPEC);
                struct nlattr *six = mnl_attr_nest_start(h, AF_INET6);

                mnl_attr_put_u8(h, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
                mnl_attr_nest_end(h, six);
                mnl_attr_nest_end(h, spec);
        }
}

void rtnl_link_del(struct nl_batch *b, uint32_t index)
{
        (void) link_message(b, RTM_DELLINK, index, "delete link", ENODEV);
}

void rtnl_group_del(struct nl_batch *b, uint32_t group)
{
        struct nlmsghdr *h = link_message(b, RTM_DELLINK, 0, "delete links", ENODEV);

        mnl_attr_put_u32(h, IFLA_GROUP, group);
}

/* An address of either family, as messages carry it. */
struct ip {
        uint8_t family;
        size_t len;
        uint8_t at[16];
};

static struct ip ip4(uint32_t addr)
{
        struct ip ip = { .family = AF_INET, .len = sizeof addr };

        addr = htonl(addr);
        memcpy(ip.at, &addr, sizeof addr);
        return ip;
}

static struct ip ip6(const uint8_t *addr)
{
        struct ip ip = { .family = AF_INET6, .len = sizeof ip.at };

        memcpy(ip.at, addr, sizeof ip.at);
        return ip;
}

static struct ifaddrmsg *addr_message(struct nl_batch *b, unsigned type, unsigned flags,
                                      uint32_t index, struct ip ip, int ignore)
{
        struct ifaddrmsg *ifa =
                nl_add(b, type, flags, sizeof *ifa,
                       type == RTM_NEWADDR ? "add address" : "remove address", ignore);

        ifa->ifa_family = ip.family;
        ifa->ifa_prefixlen = (uint8_t) (ip.len * 8);
        ifa->ifa_index = index;
        mnl_attr_put(b->cur, IFA_LOCAL, ip.len, ip.at);
        mnl_attr_put(b->cur, IFA_ADDRESS, ip.len, ip.at);
        return ifa;
}

void rtnl_addr_add(struct nl_batch *b, uint32_t index, uint32_t addr, const char *label,
                   uint8_t scope)
{
        struct ifaddrmsg *ifa = addr_message(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index,
                                             ip4(addr), EEXIST);

        ifa->ifa_scope = scope;
        if (label)
                mnl_attr_put_strz(b->cur, IFA_LABEL, label);
}

/* Nobody else has it, so nobody is asked. */
void rtnl_addr6_add(struct nl_batch *b, uint32_t index, const uint8_t *addr)
{
        struct ifaddrmsg *ifa = addr_message(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, index,
                                             ip6(addr), EEXIST);

        ifa->ifa_flags = IFA_F_NODAD | IFA_F_PERMANENT;
}

void rtnl_addr_del(struct nl_batch *b, uint32_t index, uint32_t addr)
{
        (void) addr_message(b, RTM_DELADDR, 0, index, ip4(addr), EADDRNOTAVAIL);
}

void rtnl_addr6_del(struct nl_batch *b, uint32_t index, const uint8_t *addr)
{
        (void) addr_message(b, RTM_DELADDR, 0, index, ip6(addr), EADDRNOTAVAIL);
}

static struct rtmsg *route_message(struct nl_batch *b, uint32_t index, uint8_t family,
                                   uint8_t scope, const char *what)
{
        struct rtmsg *rt =
                nl_add(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *rt, what, 0);

        rt->rtm_family = family;
        rt->rtm_table = RT_TABLE_MAIN;
        rt->rtm_protocol = RTPROT_STATIC;
        rt->rtm_type = RTN_UNICAST;
        rt->rtm_scope = scope;
        mnl_attr_put_u32(b->cur, RTA_OIF, index);
        return rt;
}

static void host_route(struct nl_batch *b, uint32_t index, struct ip ip, struct ip source)
{
        struct rtmsg *rt = route_message(b, index, ip.family, RT_SCOPE_LINK, "add route");

        rt->rtm_dst_len = (uint8_t) (ip.len * 8);
        mnl_attr_put(b->cur, RTA_DST, ip.len, ip.at);
        mnl_attr_put(b->cur, RTA_PREFSRC, source.len, source.at);
}

void rtnl_host_route_add(struct nl_batch *b, uint32_t index, uint32_t addr, uint32_t source)
{
        host_route(b, index, ip4(addr), ip4(source));
}

void rtnl_host_route6_add(struct nl_batch *b, uint32_t index, const uint8_t *addr,
                          const uint8_t *source)
{
        host_route(b, index, ip6(addr), ip6(source));
}

static void default_route(struct nl_batch *b, uint32_t index, struct ip gateway)
{
        struct rtmsg *rt =
                route_message(b, index, gateway.family, RT_SCOPE_UNIVERSE, "add default route");

        rt->rtm_flags = RTNH_F_ONLINK;
        mnl_attr_put(b->cur, RTA_GATEWAY, gateway.len, gateway.at);
}

void rtnl_default_route_add(struct nl_batch *b, uint32_t index, uint32_t gateway)
{
        default_route(b, index, ip4(gateway));
}

void rtnl_default_route6_add(struct nl_batch *b, uint32_t index, const uint8_t *gateway)
{
        default_route(b, index, ip6(gateway));
}

static void neigh(struct nl_batch *b, uint32_t index, struct ip ip, const uint8_t *mac)
{
        struct ndmsg *nd = nl_add(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof *nd,
                                  "add neighbour", 0);

        nd->ndm_family = ip.family;
        nd->ndm_ifindex = (int) index;
        nd->ndm_state = NUD_PERMANENT;
        mnl_attr_put(b->cur, NDA_DST, ip.len, ip.at);
        mnl_attr_put(b->cur, NDA_LLADDR, RTNL_MAC, mac);
}

void rtnl_neigh_add(struct nl_batch *b, uint32_t index, uint32_t addr, const uint8_t *mac)
{
        neigh(b, index, ip4(addr), mac);
}

void rtnl_neigh6_add(struct nl_batch *b, uint32_t index, const uint8_t *addr, const uint8_t *mac)
{
        neigh(b, index, ip6(addr), mac);
}

/* A token bucket.  Bytes are given as such, so that no table of times is needed; packets that were put
 * together for the trip through the stack are taken apart where one is more than a burst. */
void rtnl_rate_add(struct nl_batch *b, uint32_t index, uint64_t bytes_per_s)
{
        const uint64_t burst = clamp(bytes_per_s / 100, BURST_MIN, UINT32_MAX);
        const uint64_t queue = clamp(bytes_per_s / 20, BURST_MIN * 2, UINT32_MAX);
        struct tc_tbf_qopt q = { .rate = { .linklayer = TC_LINKLAYER_ETHERNET,
                                           .rate = (uint32_t) clamp(bytes_per_s, 0, UINT32_MAX) },
                                 .limit = (uint32_t) queue };
        struct tcmsg *tc = nl_add(b, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, sizeof *tc,
                                  "limit bandwidth", 0);
        struct nlattr *options;

        tc->tcm_family = AF_UNSPEC;
        tc->tcm_ifindex = (int) index;
        tc->tcm_parent = TC_H_ROOT;
        mnl_attr_put_strz(b->cur, TCA_KIND, "tbf");
        options = mnl_attr_nest_start(b->cur, TCA_OPTIONS);
        mnl_attr_put(b->cur, TCA_TBF_PARMS, sizeof q, &q);
        mnl_attr_put_u32(b->cur, TCA_TBF_BURST, (uint32_t) burst);
        if (bytes_per_s > UINT32_MAX)
                mnl_attr_put_u64(b->cur, TCA_TBF_RATE64, bytes_per_s);
        mnl_attr_nest_end(b->cur, options);
}

int rtnl_index(const struct nl_sock *s, const char *name, uint32_t *ret)
{
        struct ifreq q = { 0 };

        if (strlen(name) >= sizeof q.ifr_name)
                return -EINVAL;
        memcpy(q.ifr_name, name, strlen(name) + 1);
        if (ioctl(mnl_socket_get_fd(s->mnl), SIOCGIFINDEX, &q) < 0)
                return -errno;
        *ret = (uint32_t) q.ifr_ifindex;
        return 0;
}
