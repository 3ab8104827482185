/* table.c - see net_priv.h: the instance's firewall table as the host has it, made, mended, or made anew.
 * The engine at its start, and operations for a repair.  Always holds: a packet meets a whole table, the
 * one before or the one after. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "base/fd.h"
#include "base/log.h"
#include "engine/net/net_priv.h"

/* Clusters that an earlier engine left running must have the addresses that we would give them. */
int net_table_check(struct net_host *h, struct err *e)
{
        AUTO(free) struct nft_element *el = NULL;
        size_t n;
        int r = nft_elements(&h->nft, h->table, &el, &n, e);

        for (size_t i = 0; r >= 0 && i < n; i++) {
                uint32_t slot = net_link_slot(el[i].link);
                char addr[IPV6_TEXT];

                if (el[i].addr && ipv4_slot_of(&h->pool, el[i].addr) != slot)
                        r = err_set(
                                e, -EBUSY,
                                "network pool: a running cluster has %s, from another pool; stop it before the pool changes",
                                ipv4_format(el[i].addr, addr));
                else if (el[i].v6 && ipv6_slot_of(&h->pool6, el[i].addr6) != slot)
                        r = err_set(
                                e, -EBUSY,
                                "network pool6: a running cluster has %s, from another pool; stop it before the pool changes",
                                ipv6_format(el[i].addr6, addr));
        }
        return r;
}

static void config_of(const struct net_host *h, struct nft_config *ret)
{
        *ret = (struct nft_config){ .table = h->table,
                                    .pool = h->pool,
                                    .pool6 = h->pool6,
                                    .service = h->service,
                                    .allow = h->allow.net,
                                    .n_allow = h->allow.n,
                                    .connections = h->connections };
        memcpy(ret->service6, h->service6, sizeof ret->service6);
}

/* Links that are up tell which elements are missing after somebody wiped the tables: theirs first,
 * so that nothing gets out of them unjudged, then of those that have a cluster what it may do.  A list that is
 * in force stays: it may have been changed since @fn knew of it. */
static int restore(struct net_host *h, const struct rtnl_link *links, size_t n, net_policy_fn *fn,
                   void *arg, struct err *e)
{
        struct net_policy p;
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n; i++)
                if (links[i].group == h->group && net_link_slot(links[i].name))
                        r = nft_link_add(&h->nft, h->table, links[i].name, e);
        for (size_t i = 0; r >= 0 && fn && i < n; i++) {
                uint32_t slot = net_link_slot(links[i].name);

                if (!slot || !links[i].up || links[i].group != h->group || !fn(arg, slot, &p))
                        continue;
                r = net_list_holds(h, slot, e);
                if (r > 0)
                        p.egress.limited = false; /* then nothing is said of its list */
                if (r >= 0)
                        r = net_let_out(h, slot, &p, e);
        }
        return r < 0 ? r : 0;
}

/* A cluster keeps the families that it was started with. */
static bool had_ipv6(const struct nft_element *el, size_t n, const char *link)
{
        for (size_t i = 0; i < n; i++)
                if (strcmp(el[i].link, link) == 0)
                        return el[i].v6;
        return false;
}

/* The table of another version goes, and ours comes with all that lives, in one transaction. */
static int make_anew(struct net_host *h, const struct rtnl_link *links, size_t n, net_policy_fn *fn,
                     void *arg, struct err *e)
{
        AUTO(free) struct nft_cluster *clusters = calloc(n + 1, sizeof *clusters);
        AUTO(free) struct net_policy *p = calloc(n + 1, sizeof *p);
        AUTO(free) struct nft_element *el = NULL;
        struct nft_config c;
        size_t n_el;
        int r = clusters && p ? net_sweep(h, e) /* what it had yet to end */
                              : err_set(e, -ENOMEM, "out of memory");

        if (r >= 0)
                r = nft_elements(&h->nft, h->table, &el, &n_el, e);
        if (r < 0)
                return r;
        config_of(h, &c);
        c.anew = true;
        c.clusters = clusters;
        c.dns = &h->dns;
        for (size_t i = 0; i < n; i++) {
                uint32_t slot = net_link_slot(links[i].name);
                struct nft_cluster *x = &clusters[c.n_clusters];

                if (links[i].group != h->group || !slot)
                        continue;
                net_cluster_of(h, slot, x);
                x->v6 = x->v6 && had_ipv6(el, n_el, links[i].name);
                if (links[i].up && fn(arg, slot, &p[i])) {
                        x->account = p[i].account;
                        x->egress = &p[i].egress;
                        x->ports = &p[i].ports;
                } else
                        x->closed = true;
                c.n_clusters++;
        }
        log_info("the firewall table %s was another version's; it is made anew for %zu links",
                 h->table, c.n_clusters);
        return nft_rules_apply(&c, e);
}

int net_table_make(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e)
{
        AUTO(free) struct rtnl_link *links = NULL;
        struct nft_config c;
        size_t n = 0;
        int r = nft_is_foreign(&h->nft, h->table, e);

        h->outdated = r > 0;
        if (r < 0 || (h->outdated && !fn))
                return r < 0 ? r : 0;
        config_of(h, &c);
        if (!h->outdated) /* before the links are looked at: one that comes now finds the table */
                r = nft_rules_apply(&c, e);
        if (r >= 0)
                r = rtnl_links(&h->rtnl, &links, &n, e);
        if (r < 0)
                return r;
        r = h->outdated ? make_anew(h, links, n, fn, arg, e) : restore(h, links, n, fn, arg, e);
        if (r >= 0)
                h->outdated = false;
        return r;
}

int net_host_settle(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e)
{
        AUTO(fd) int lock = -EBADF;
        int r = 0;

        if (!h->outdated)
                return 0;
        r = net_sockets(h, e);
        if (r >= 0)
                r = lock = net_hold(h, LOCK_EX, e);
        if (r >= 0)
                r = net_table_make(h, fn, arg, e);
        return r < 0 ? r : 0;
}
