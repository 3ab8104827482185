/* nft.h - the firewall: one table `inet hvmm_<instance>`.
 *
 * Theory of operation.  The rules never change while clusters come and go; a cluster is set
 * elements: its link in `links`; who it is in `sources` and `sources6` (link, hardware address,
 * address); whose it is in `accounts` (address -> number) and `members` (address, number), two
 * look-ups that together say whether two addresses belong to one account; and, when it is limited,
 * its link in `limited` (-> chain) and a chain of its own, egress_<slot>, that lets through what is listed;
 * and, when TCP ports of it are published, its link in `publishers` and each of the host's ports in
 * `published` and `published6` (-> address and port).  A packet
 * that neither comes from nor goes to a link of `links` passes every chain untouched (policies are
 * "accept"), so any number of instances, and whatever else filters on the host, live side by side:
 * each table judges its own clusters only, and "drop" from any of them is final.
 *
 * The link lives longer than the rest: it is known before it comes up and until it is down again,
 * everything else for as long as a cluster uses it.  `connections` fills itself: each address with
 * the connections that the kernel tracks for it; so does `asking`, with how fast it asks for names.
 *
 * The rules are written by libnftables in one transaction, once per start, without touching the
 * elements.  Elements go straight over netlink: that costs 30 us, libnftables' own cache a
 * multiple of it. */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/net/dns.h"
#include "engine/net/ipv4.h"
#include "engine/net/ipv6.h"
#include "engine/net/nl.h"
#include "model/egress.h"
#include "model/published.h"

#define NFT_TABLE_PREFIX "hvmm_"
#define NFT_TABLE_BYTES  16U /* "hvmm_" and an instance's id */

/* What the rules are made of. */
struct nft_config {
        const char *table;
        struct ipv4_pool pool;
        struct ipv6_pool pool6; /* off: no IPv6 gets through */
        uint32_t service;       /* where api.internal and names answer */
        uint8_t service6[IPV6_BYTES];
        const struct network *allow; /* private networks that clusters may reach; borrowed */
        size_t n_allow;
        uint32_t connections; /* tracked at once per address; 0: no limit */
        /* What is there goes first, and these come with the rules: nft_is_foreign(). */
        bool anew;
        const struct nft_cluster *clusters; /* borrowed, as their links and lists are */
        size_t n_clusters;
        const struct dns_servers *dns;
};

/* The commands that make, or renew, the table; heap; NULL: out of memory.  Pure. */
char *nft_rules(const struct nft_config *c);
/* Apply them, in the network namespace of the caller. */
int nft_rules_apply(const struct nft_config *c, struct err *e);
/* Is there a table with sets or chains of other types than ours has?  1, 0.  The kernel changes no type,
 * and many versions of it leave the old one without a word, so each table has a chain named after the
 * text that declares all of them. */
int nft_is_foreign(struct nl_sock *s, const char *table, struct err *e);
/* Delete the table; 0 also when there is none. */
int nft_table_del(struct nl_sock *s, const char *table, struct err *e);

/* What the firewall knows of one cluster. */
struct nft_cluster {
        char link[IF_NAMESIZE];
        uint32_t slot;  /* a number of its own, which names its chain */
        uint8_t mac[6]; /* of the inner end */
        uint32_t addr;  /* host byte order */
        bool v6;        /* it has addr6 */
        uint8_t addr6[16];
        uint32_t account;              /* number of the account, 1..; 0: of none */
        const struct egress *egress;   /* NULL: not limited */
        const struct published *ports; /* of the host's that lead to it; NULL: none, or not known */
        bool closed;                   /* no cluster uses the link now */
};

/* A link is judged, and everything from it dropped, from the moment that it is in `links`; what it
 * sends from its address passes while that is in `sources`.  Each call is one transaction; adding
 * what is there and removing what is not is fine.  -ENOENT from the adding ones: no table. */
int nft_link_add(struct nl_sock *s, const char *table, const char *link, struct err *e);
/* Into all sets; the servers of @dns get their way out too, be they private or link-local.  -EBUSY: the
 * address is another account's. */
int nft_cluster_add(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                    const struct dns_servers *dns, struct err *e);
/* The list of one that has been added, in place of what it had; with egress NULL or not limited it ends. */
int nft_egress_change(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                      struct err *e);
/* Is one in force, whatever it says: its link leads to its chain, and that has rules?  1, 0. */
int nft_egress_holds(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                     struct err *e);
/* By link and addresses alone; its ports too, which are found faster when c->ports has them.  Addresses that were in use go to `released`: connections may still be
 * known (ct.h). */
int nft_cluster_del(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                    struct err *e);
/* Bytes that it has answered over its published ports since it was added, or the table made anew.  1; 0: it
 * has no such ports.  20 us. */
int nft_ports_bytes(struct nl_sock *s, const char *table, const char *link, uint64_t *ret,
                    struct err *e);
/* Has it been added with its IPv6 address?  1, 0. */
int nft_cluster_has6(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                     struct err *e);
/* Has it been added at all? */
int nft_cluster_has(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                    struct err *e);
int nft_link_del(struct nl_sock *s, const char *table, const char *link, struct err *e);

/* What is in `sources` and in `links`; a link without a source has address 0.  Heap; none and 0
 * also when there is no table. */
struct nft_element {
        char link[16];
        uint32_t addr;
        bool v6; /* it is in `sources6`, too, with addr6 */
        uint8_t addr6[16];
};
int nft_elements(struct nl_sock *s, const char *table, struct nft_element **ret, size_t *ret_n,
                 struct err *e);

/* The IPv4 addresses in `released` (host byte order, any order; heap), whether one is among them (1, 0),
 * and taking them out, each with the IPv6 address that goes with it. */
struct nft_addr {
        uint32_t v4;
        const uint8_t *v6; /* NULL: none */
};
int nft_released(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n,
                 struct err *e);
int nft_is_released(struct nl_sock *s, const char *table, uint32_t addr, struct err *e);
int nft_released_del(struct nl_sock *s, const char *table, const struct nft_addr *addr, size_t n,
                     struct err *e);

/* The fetchers' side.  A fetcher is the first of its 65,536 ids; it reaches only what is public, and
 * what nft_fetch_allow() named: @to with its port, by TCP, with @dns by UDP too.  Adding what is there
 * and removing what is not is fine; -ENOENT from the adding ones: no table. */
struct sockaddr;
int nft_fetcher_add(struct nl_sock *s, const char *table, uint32_t id_base, struct err *e);
int nft_fetcher_del(struct nl_sock *s, const char *table, uint32_t id_base, struct err *e);
int nft_fetch_allow(struct nl_sock *s, const char *table, const struct sockaddr *to, bool dns,
                    struct err *e);
/* Nobody fetches, nothing is allowed. */
int nft_fetch_reset(struct nl_sock *s, const char *table, struct err *e);
/* Fetchers in the set: heap; none also when there is no table. */
int nft_fetchers(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n,
                 struct err *e);
/* Tables of ours and of other instances: NULL-terminated. */
int nft_tables(struct nl_sock *s, char ***ret, struct err *e);
