/* lease.c - see net.h: the networks of clusters, from namespace to firewall element and back.
 * Operation processes.  Always holds: a link is up only while the firewall knows it for a cluster's,
 * and what it sends passes only between bind and release.
 *
 * All that needs the kernel's big network lock happens ahead, in net_prepare(): namespaces that end
 * hold that lock for milliseconds.  net_bind(), on the boot path, is one nf_tables transaction. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/str.h"
#include "engine/claim/claim.h"
#include "engine/idmap.h"
#include "engine/net/ct.h"
#include "engine/net/net.h"
#include "engine/net/net_priv.h"
#include "engine/net/netns.h"
#include "model/limits.h"

#define INSIDE_NAME  "eth0"
#define INSIDE_INDEX 2U /* wanted; the kernel's own links may have taken it */
#define CREATE_TRIES 5

/* Both ends' hardware addresses follow from the slot, so that neighbours need not be asked. */
static void make_mac(uint32_t slot, bool inside, uint8_t mac[static RTNL_MAC])
{
        const uint8_t m[RTNL_MAC] = {
                0x02, 'h', 'v', inside, (uint8_t) (slot >> 8), (uint8_t) slot
        };

        memcpy(mac, m, RTNL_MAC);
}

static int slot_check(uint32_t slot, struct err *e)
{
        return slot >= 1 && slot <= LIMIT_SLOTS
                       ? 0
                       : err_set(e, -EINVAL, "slot %u is not in 1..%u", slot, LIMIT_SLOTS);
}

/* Take a link out of service: down, of the dead group, under a name that nobody wants. */
static void retire(struct nl_batch *b, const struct net_host *h, uint32_t index, const char *name)
{
        rtnl_link_change(b, index,
                         &(struct rtnl_change){ .down = true,
                                                .group = h->group | NET_GROUP_DEAD,
                                                .name = NULL,
                                                .absent_ok = true });
        if (name)
                rtnl_link_change(b, index,
                                 &(struct rtnl_change){ .name = name, .absent_ok = true });
}

/* The pair, its far end in @netns.  A left-over of the name is renamed rather than deleted, since
 * deleting takes 20-35 ms; net_reap() does that. */
static int make_pair(struct net_host *h, uint32_t slot, int netns, struct err *e)
{
        uint8_t mac[RTNL_MAC], peer_mac[RTNL_MAC];
        char name[IF_NAMESIZE], dead[IF_NAMESIZE];
        const struct rtnl_veth v = { .name = name,
                                     .peer = INSIDE_NAME,
                                     .mac = mac,
                                     .peer_mac = peer_mac,
                                     .group = h->group,
                                     .peer_netns = netns };
        const struct rtnl_change no_address = { .name = name, .no_ipv6_address = true };
        struct nl_batch b;
        int r = -EEXIST;

        net_link_name(slot, name);
        make_mac(slot, false, mac);
        make_mac(slot, true, peer_mac);
        for (int i = 0; r == -EEXIST && i < CREATE_TRIES; i++) {
                uint32_t index;

                nl_batch_init(&b);
                if (i > 0 && rtnl_index(&h->rtnl, name, &index) >= 0) {
                        (void) snprintf(dead, sizeof dead, "hvx%u", index);
                        retire(&b, h, index, dead);
                }
                rtnl_veth_add(&b, &v);
                rtnl_link_change(&b, 0, &no_address);
                r = nl_commit(&h->rtnl, &b, e);
        }
        return r < 0 ? err_wrap(e, r, "link %s", name) : 0;
}

/* The host believes no router that speaks out of a cluster, whatever the firewall is at. */
static int distrust(const char *name, struct err *e)
{
        char path[64];
        int r;

        (void) snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/accept_ra", name);
        r = fd_write_value(AT_FDCWD, path, "0");
        return r < 0 && r != -ENOENT ? err_errno(e, r, "write %s", path) : 0;
}

/* Our end: up, with the one route to it. */
static int connect_outside(struct net_host *h, uint32_t slot, const char *name, struct err *e)
{
        static const struct rtnl_change up = { .up = true };
        uint32_t addr = ipv4_of_slot(&h->pool, slot), index;
        uint8_t mac[RTNL_MAC], addr6[IPV6_BYTES];
        struct nl_batch b;
        int r = rtnl_index(&h->rtnl, name, &index);

        r = r < 0 ? err_errno(e, r, "link %s", name) : distrust(name, e);
        if (r < 0)
                return r;
        make_mac(slot, true, mac);
        ipv6_of_slot(&h->pool6, slot, addr6);
        nl_batch_init(&b);
        if (h->bandwidth)
                rtnl_rate_add(&b, index, h->bandwidth);
        rtnl_link_change(&b, index, &up);
        rtnl_neigh_add(&b, index, addr, mac);
        rtnl_host_route_add(&b, index, addr, h->service);
        if (h->v6) {
                rtnl_neigh6_add(&b, index, addr6, mac);
                rtnl_host_route6_add(&b, index, addr6, h->service6);
        }
        r = nl_commit(&h->rtnl, &b, e);
        return r < 0 ? err_wrap(e, r, "link %s", name) : 0;
}

/* Everything inside; @rtnl is a socket of the new namespace. */
static int configure_inside(const struct net_host *h, uint32_t slot, struct nl_sock *rtnl,
                            struct err *e)
{
        static const struct rtnl_change up = { .up = true };
        uint8_t mac[RTNL_MAC], addr6[IPV6_BYTES];
        uint32_t lo, eth;
        struct nl_batch b;
        int r = rtnl_index(rtnl, "lo", &lo);

        if (r >= 0)
                r = rtnl_index(rtnl, INSIDE_NAME, &eth);
        if (r < 0)
                return err_errno(e, r, "link inside");
        make_mac(slot, false, mac);
        ipv6_of_slot(&h->pool6, slot, addr6);
        nl_batch_init(&b);
        rtnl_link_change(&b, lo, &up);
        if (h->bandwidth) /* nobody inside has a capability over it */
                rtnl_rate_add(&b, eth, h->bandwidth);
        rtnl_addr_add(&b, eth, ipv4_of_slot(&h->pool, slot), NULL, RT_SCOPE_UNIVERSE);
        rtnl_link_change(&b, eth, &up);
        rtnl_neigh_add(&b, eth, IPV4_GATEWAY, mac);
        rtnl_default_route_add(&b, eth, IPV4_GATEWAY);
        if (h->v6) {
                rtnl_addr6_add(&b, eth, addr6);
                rtnl_neigh6_add(&b, eth, ipv6_gateway, mac);
                rtnl_default_route6_add(&b, eth, ipv6_gateway);
        }
        r = nl_commit(rtnl, &b, e);
        return r < 0 ? err_wrap(e, r, "inside") : 0;
}

void net_cluster_of(const struct net_host *h, uint32_t slot, struct nft_cluster *ret)
{
        *ret = (struct nft_cluster){ .slot = slot,
                                     .addr = ipv4_of_slot(&h->pool, slot),
                                     .v6 = h->v6 };
        net_link_name(slot, ret->link);
        make_mac(slot, true, ret->mac);
        ipv6_of_slot(&h->pool6, slot, ret->addr6);
}

static int firewall_forget(struct net_host *h, uint32_t slot, const struct published *ports,
                           struct err *e)
{
        struct nft_cluster c;

        net_cluster_of(h, slot, &c);
        c.ports = ports;
        return nft_cluster_del(&h->nft, h->table, &c, e);
}

int net_let_out(struct net_host *h, uint32_t slot, const struct net_policy *p, struct err *e)
{
        struct nft_cluster c;

        net_cluster_of(h, slot, &c);
        c.account = p->account;
        c.egress = &p->egress;
        c.ports = &p->ports;
        return nft_cluster_add(&h->nft, h->table, &c, &h->dns, e);
}

int net_list_holds(struct net_host *h, uint32_t slot, struct err *e)
{
        struct nft_cluster c;

        net_cluster_of(h, slot, &c);
        return nft_egress_holds(&h->nft, h->table, &c, e);
}

int net_is_out(struct net_host *h, uint32_t slot, struct err *e)
{
        struct nft_cluster c;

        net_cluster_of(h, slot, &c);
        return nft_cluster_has(&h->nft, h->table, &c, e);
}

int net_has_ipv6(struct net_host *h, uint32_t slot, struct err *e)
{
        struct nft_cluster c;
        int r = net_sockets(h, e);

        net_cluster_of(h, slot, &c);
        return r < 0 ? r : nft_cluster_has6(&h->nft, h->table, &c, e);
}

json_t *net_policy_report(const struct net_host *h, const struct net_policy *p, bool ipv6)
{
        json_t *egress = p->egress.limited ? json_array() : json_null();
        char text[NETWORK_TEXT];

        for (size_t i = 0; i < p->egress.n; i++)
                if (json_array_append_new(
                            egress, json_string(network_format(&p->egress.net[i], text))) < 0) {
                        json_decref(egress);
                        return NULL;
                }
        return json_pack("{s:o, s:o, s:o, s:b}", "egress", egress, "bandwidth_bytes_per_s",
                         h->bandwidth ? json_integer((json_int_t) h->bandwidth) : json_null(),
                         "connections",
                         h->connections ? json_integer((json_int_t) h->connections) : json_null(),
                         "ipv6", ipv6);
}

static int sweep_addr(struct net_host *h, const uint32_t *addr, size_t n, struct err *e);

/* A slot that had another cluster gets a clean start.  Usually its release and net_reap() have seen to
 * it; a repair that was overtaken by a release may have put elements back. */
static int clean_slot(struct net_host *h, uint32_t slot, struct err *e)
{
        uint32_t addr = ipv4_of_slot(&h->pool, slot);
        int r = firewall_forget(h, slot, NULL, e);

        if (r >= 0)
                r = nft_is_released(&h->nft, h->table, addr, e);
        return r <= 0 ? r : sweep_addr(h, &addr, 1, e);
}

/* Our end before the far one: the one that comes up last carries at once, the other some
 * microseconds later. */
static int make_links(struct net_host *h, uint32_t slot, const char *name, int netns,
                      struct nl_sock *inside, struct err *e)
{
        int r = nft_link_add(&h->nft, h->table, name, e);

        if (r == -ENOENT)
                r = net_table_gone(h, e) < 0 ? r : nft_link_add(&h->nft, h->table, name, e);
        if (r >= 0)
                r = make_pair(h, slot, netns, e);
        if (r >= 0)
                r = connect_outside(h, slot, name, e);
        return r < 0 ? r : configure_inside(h, slot, inside, e);
}

int net_prepare(struct net_host *h, uint32_t slot, struct net_ns *ret, struct err *e)
{
        AUTO(nl_sock_close) struct nl_sock inside = { 0 };
        struct net_ns n = { .netns = -EBADF, .sysfs = -EBADF };
        char name[IF_NAMESIZE];
        int r = slot_check(slot, e);

        if (r >= 0)
                r = net_sockets(h, e);
        if (r >= 0)
                r = clean_slot(h, slot, e);
        if (r < 0)
                return err_wrap(e, r, "network of slot %u", slot);
        net_link_name(slot, name);
        r = netns_make(h->netns, claim_id_base(slot), claim_id_base(slot) + IDMAP_RANGE - 1, h->v6,
                       &n.netns, &n.sysfs, &inside, e);
        if (r >= 0)
                r = make_links(h, slot, name, n.netns, &inside, e);
        if (r < 0) {
                (void) net_release(h, slot, NULL, true, NULL);
                net_ns_done(&n); /* takes the pair along */
                return err_wrap(e, r, "network of slot %u", slot);
        }
        *ret = n;
        return 0;
}

void net_ns_done(struct net_ns *n)
{
        n->netns = fd_close(n->netns);
        n->sysfs = fd_close(n->sysfs);
}

int net_lease_of(const struct net_host *h, uint32_t slot, struct net_lease *ret)
{
        const struct dns_servers own = { .addr = { h->service }, .n = 1 };
        struct net_lease l = { .slot = slot, .ipv4 = ipv4_of_slot(&h->pool, slot) };

        l.resolv_conf = h->resolver ? dns_render(&own) : dns_render(&h->dns);
        if (!l.resolv_conf)
                return -ENOMEM;
        ipv4_format(l.ipv4, l.ipv4_text);
        ipv4_format(h->service, l.service_text);
        if (h->v6) {
                uint8_t addr6[IPV6_BYTES];

                ipv6_of_slot(&h->pool6, slot, addr6);
                ipv6_format(addr6, l.ipv6_text);
                ipv6_format(h->service6, l.service6_text);
        }
        *ret = l;
        return 0;
}

void net_lease_done(struct net_lease *l)
{
        free(TAKE(l->resolv_conf));
}

int net_bind(struct net_host *h, uint32_t slot, const struct net_policy *p, struct net_lease *ret,
             struct err *e)
{
        struct net_lease l = { 0 };
        char name[IF_NAMESIZE];
        uint32_t index;
        int r = slot_check(slot, e);

        if (r >= 0)
                r = net_sockets(h, e);
        if (r >= 0)
                r = net_dns_refresh(h, e);
        if (r < 0)
                return r;
        net_link_name(slot, name);
        r = rtnl_index(&h->rtnl, name, &index);
        if (r < 0)
                return err_errno(e, r, "link %s", name);
        if (net_lease_of(h, slot, &l) < 0)
                return err_set(e, -ENOMEM, "network lease");
        r = net_let_out(h, slot, p, e);
        if (r == -ENOENT)
                r = net_table_gone(h, e) < 0 ? r : net_let_out(h, slot, p, e);
        if (r < 0) {
                net_lease_done(&l);
                return r;
        }
        *ret = l;
        return 0;
}

int net_change(struct net_host *h, uint32_t slot, const struct net_policy *p, struct err *e)
{
        AUTO(fd) int lock = -EBADF;
        struct nft_cluster c;
        int r = slot_check(slot, e);

        if (r >= 0)
                r = net_sockets(h, e);
        if (r >= 0)
                r = net_is_out(h, slot, e);
        if (r == 0) { /* somebody wiped the firewall: with this list it comes back */
                r = net_let_out(h, slot, p, e);
                if (r == -ENOENT)
                        r = net_table_gone(h, e) < 0 ? r : net_let_out(h, slot, p, e);
        }
        if (r >= 0)
                r = lock = net_hold(h, LOCK_SH, e);
        if (r < 0)
                return r;
        net_cluster_of(h, slot, &c);
        c.egress = &p->egress;
        r = nft_egress_change(&h->nft, h->table, &c, e);
        if (r >= 0 && p->egress.limited)
                r = ct_end_unlisted(&h->nft,
                                    &(struct ct_listed){ .v4 = c.addr,
                                                         .v6 = c.addr6,
                                                         .egress = &p->egress,
                                                         .dns = &h->dns,
                                                         .pool = &h->pool,
                                                         .pool6 = &h->pool6 },
                                    e);
        return r < 0 ? err_wrap(e, r, "link %s", c.link) : 0;
}

/* The link of a slot: down, which ends its routes and neighbours, and gone or left for net_reap(). */
static int release_link(struct net_host *h, const char *name, bool slow_later, struct err *e)
{
        struct rtnl_link link;
        struct nl_batch b;
        int r = rtnl_link_get(&h->rtnl, name, &link, e);

        if (r == -ENODEV)
                return 0;
        if (r < 0 || (link.group & ~NET_GROUP_DEAD) != h->group)
                return r; /* another instance's: the slot has moved on */
        nl_batch_init(&b);
        retire(&b, h, link.index, NULL);
        if (!slow_later)
                rtnl_link_del(&b, link.index);
        return nl_commit(&h->rtnl, &b, e);
}

int net_release(struct net_host *h, uint32_t slot, const struct published *ports, bool slow_later,
                struct err *e)
{
        AUTO(fd) int lock = -EBADF;
        char name[IF_NAMESIZE];
        int r = slot_check(slot, e);

        if (r >= 0)
                r = net_sockets(h, e);
        if (r >= 0)
                r = lock = net_hold(h, LOCK_SH, e);
        if (r < 0)
                return r;
        net_link_name(slot, name);
        r = firewall_forget(h, slot, ports, e);
        if (r >= 0)
                r = release_link(h, name, slow_later, e);
        if (r >= 0)
                r = nft_link_del(&h->nft, h->table, name, e);
        return r < 0 ? err_wrap(e, r, "link %s", name) : 0;
}

static int by_addr(const void *a, const void *b)
{
        const uint32_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

/* @addr: ascending.  The address of IPv6 goes with that of IPv4. */
static int sweep_addr(struct net_host *h, const uint32_t *addr, size_t n, struct err *e)
{
        AUTO(free) struct nft_addr *both = calloc(n, sizeof *both);
        AUTO(free) uint8_t *v6 = calloc(n, IPV6_BYTES);
        int r;

        if (!both || !v6)
                return err_set(e, -ENOMEM, "connection table");
        for (size_t i = 0; i < n; i++) {
                both[i].v4 = addr[i];
                if (h->pool6.on) {
                        both[i].v6 = v6 + i * IPV6_BYTES;
                        ipv6_of_slot(&h->pool6, ipv4_slot_of(&h->pool, addr[i]),
                                     v6 + i * IPV6_BYTES);
                }
        }
        r = ct_sweep(&h->nft, &(struct ct_addrs){ addr, n, &h->pool, &h->pool6 }, e);
        return r < 0 ? r : nft_released_del(&h->nft, h->table, both, n, e);
}

int net_sweep(struct net_host *h, struct err *e)
{
        AUTO(free) uint32_t *addrs = NULL;
        size_t n;
        int r = nft_released(&h->nft, h->table, &addrs, &n, e);

        if (r < 0 || n == 0)
                return r;
        qsort(addrs, n, sizeof *addrs, by_addr);
        return sweep_addr(h, addrs, n, e);
}

int net_reap(struct net_host *h, net_keep_fn *keep, void *arg, struct err *e)
{
        AUTO(free) struct rtnl_link *links = NULL;
        struct nl_batch b;
        size_t n;
        int r = net_sockets(h, e);

        if (r >= 0)
                r = rtnl_links(&h->rtnl, &links, &n, e);
        for (size_t i = 0; r >= 0 && keep && i < n; i++) {
                uint32_t slot = net_link_slot(links[i].name);

                if (links[i].group == h->group && slot && !keep(arg, slot))
                        r = net_release(h, slot, NULL, true, e);
        }
        if (r < 0)
                return r;
        nl_batch_init(&b);
        rtnl_group_del(&b, h->group | NET_GROUP_DEAD); /* one grace period for all of them */
        r = nl_commit(&h->rtnl, &b, e);
        return r < 0 ? r : net_sweep(h, e);
}
