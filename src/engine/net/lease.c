/* lease.c - see net.h: the networks of clusters, from namespace to firewall element and back.
 * Operation processes.  Always holds: a link is up only while the firewall knows it for a cluster's,
 * and what it sends passes only between bind and release.
 *
 * All that needs the kernel's big network lock happens ahead, in net_prepare(): namespaces that end
 * hold that lock for milliseconds.  net_bind(), on the boot path, is one nf_tables transaction. */
#include <assert.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        const struct rtnl_change no_ipv6 = { .name = name, .no_ipv6_address = true };
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
                rtnl_link_change(&b, 0, &no_ipv6);
                r = nl_commit(&h->rtnl, &b, e);
        }
        return r < 0 ? err_wrap(e, r, "link %s", name) : 0;
}

/* Our end: up, with the one route to it. */
static int connect_outside(struct net_host *h, uint32_t slot, const char *name, struct err *e)
{
        static const struct rtnl_change up = { .up = true };
        uint32_t addr = ipv4_of_slot(&h->pool, slot), index;
        uint8_t mac[RTNL_MAC];
        struct nl_batch b;
        int r = rtnl_index(&h->rtnl, name, &index);

        if (r < 0)
                return err_errno(e, r, "link %s", name);
        make_mac(slot, true, mac);
        nl_batch_init(&b);
        rtnl_link_change(&b, index, &up);
        rtnl_neigh_add(&b, index, addr, mac);
        rtnl_host_route_add(&b, index, addr, h->service);
        r = nl_commit(&h->rtnl, &b, e);
        return r < 0 ? err_wrap(e, r, "link %s", name) : 0;
}

/* Everything inside; @rtnl is a socket of the new namespace. */
static int configure_inside(const struct net_host *h, uint32_t slot, struct nl_sock *rtnl,
                            struct err *e)
{
        static const struct rtnl_change up = { .up = true };
        uint8_t mac[RTNL_MAC];
        uint32_t lo, eth;
        struct nl_batch b;
        int r = rtnl_index(rtnl, "lo", &lo);

        if (r >= 0)
                r = rtnl_index(rtnl, INSIDE_NAME, &eth);
        if (r < 0)
                return err_errno(e, r, "link inside");
        make_mac(slot, false, mac);
        nl_batch_init(&b);
        rtnl_link_change(&b, lo, &up);
        rtnl_addr_add(&b, eth, ipv4_of_slot(&h->pool, slot), NULL, RT_SCOPE_UNIVERSE);
        rtnl_link_change(&b, eth, &up);
        rtnl_neigh_add(&b, eth, IPV4_GATEWAY, mac);
        rtnl_default_route_add(&b, eth, IPV4_GATEWAY);
        r = nl_commit(rtnl, &b, e);
        return r < 0 ? err_wrap(e, r, "inside") : 0;
}

/* An address that had another cluster gets a clean start.  Usually net_reap() has seen to it. */
static int clean_address(struct net_host *h, uint32_t addr, struct err *e)
{
        int r = nft_is_released(&h->nft, h->table, addr, e);

        if (r <= 0)
                return r;
        r = ct_sweep(&h->nft, &addr, 1, e);
        return r < 0 ? r : nft_released_del(&h->nft, h->table, &addr, 1, e);
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
                r = clean_address(h, ipv4_of_slot(&h->pool, slot), e);
        if (r < 0)
                return err_wrap(e, r, "network of slot %u", slot);
        net_link_name(slot, name);
        r = netns_make(h->netns, claim_id_base(slot), claim_id_base(slot) + IDMAP_RANGE - 1,
                       &n.netns, &n.sysfs, &inside, e);
        if (r >= 0)
                r = make_links(h, slot, name, n.netns, &inside, e);
        if (r < 0) {
                (void) net_release(h, slot, true, NULL);
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
        struct net_lease l = { .slot = slot, .ipv4 = ipv4_of_slot(&h->pool, slot) };

        l.resolv_conf = dns_render(&h->dns);
        if (!l.resolv_conf)
                return -ENOMEM;
        ipv4_format(l.ipv4, l.ipv4_text);
        ipv4_format(h->service, l.service_text);
        *ret = l;
        return 0;
}

void net_lease_done(struct net_lease *l)
{
        free(TAKE(l->resolv_conf));
}

int net_bind(struct net_host *h, uint32_t slot, struct net_lease *ret, struct err *e)
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
        r = nft_source_add(&h->nft, h->table, name, l.ipv4, &h->dns, e);
        if (r == -ENOENT)
                r = net_table_gone(h, e) < 0
                            ? r
                            : nft_source_add(&h->nft, h->table, name, l.ipv4, &h->dns, e);
        if (r < 0) {
                net_lease_done(&l);
                return r;
        }
        *ret = l;
        return 0;
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

int net_release(struct net_host *h, uint32_t slot, bool slow_later, struct err *e)
{
        char name[IF_NAMESIZE];
        int r = slot_check(slot, e);

        if (r >= 0)
                r = net_sockets(h, e);
        if (r < 0)
                return r;
        net_link_name(slot, name);
        r = nft_source_del(&h->nft, h->table, name, ipv4_of_slot(&h->pool, slot), e);
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

int net_sweep(struct net_host *h, struct err *e)
{
        AUTO(free) uint32_t *addrs = NULL;
        size_t n;
        int r = nft_released(&h->nft, h->table, &addrs, &n, e);

        if (r < 0 || n == 0)
                return r;
        qsort(addrs, n, sizeof *addrs, by_addr);
        r = ct_sweep(&h->nft, addrs, n, e);
        return r < 0 ? r : nft_released_del(&h->nft, h->table, addrs, n, e);
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
                        r = net_release(h, slot, true, e);
        }
        if (r < 0)
                return r;
        nl_batch_init(&b);
        rtnl_group_del(&b, h->group | NET_GROUP_DEAD); /* one grace period for all of them */
        r = nl_commit(&h->rtnl, &b, e);
        return r < 0 ? r : net_sweep(h, e);
}
