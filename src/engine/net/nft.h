/* nft.h - the firewall: one table `inet hvmm_<instance>`.
 *
 * Theory of operation.  The rules never change while clusters come and go; a cluster is two set
 * elements: its link in `links`, and (link, address) in `sources`.  A packet that neither comes
 * from nor goes to a link of `links` passes every chain untouched (policies are "accept"), so any
 * number of instances, and whatever else filters on the host, live side by side: each table judges
 * its own clusters only, and "drop" from any of them is final.
 *
 * Both elements live differently long: the link is known before it comes up and until it is down
 * again, the address for as long as a cluster uses it.
 *
 * The rules are written by libnftables in one transaction, once per start, without touching the
 * elements.  Elements go straight over netlink: that costs 30 us, libnftables' own cache a
 * multiple of it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/net/dns.h"
#include "engine/net/ipv4.h"
#include "engine/net/nl.h"

#define NFT_TABLE_PREFIX "hvmm_"
#define NFT_TABLE_BYTES  16U /* "hvmm_" and an instance's id */

/* The commands that make, or renew, the table; heap; NULL: out of memory.  @allow: private networks
 * that clusters may reach.  Pure. */
char *nft_rules(const char *table, const struct ipv4_pool *pool, uint32_t service,
                const struct ipv4_nets *allow);
/* Apply them, in the network namespace of the caller. */
int nft_rules_apply(const char *table, const struct ipv4_pool *pool, uint32_t service,
                    const struct ipv4_nets *allow, struct err *e);
/* Delete the table; 0 also when there is none. */
int nft_table_del(struct nl_sock *s, const char *table, struct err *e);

/* A link is judged, and everything from it dropped, from the moment that it is in `links`; what it
 * sends from its address passes while that is in `sources`.  Each call is one transaction; adding
 * what is there and removing what is not is fine.  -ENOENT from the adding ones: no table. */
int nft_link_add(struct nl_sock *s, const char *table, const char *link, struct err *e);
/* Into both sets; the servers of @dns get their way out too, be they private or link-local. */
int nft_source_add(struct nl_sock *s, const char *table, const char *link, uint32_t addr,
                   const struct dns_servers *dns, struct err *e);
/* An address that was in use goes to `released`: connections may still be known (ct.h). */
int nft_source_del(struct nl_sock *s, const char *table, const char *link, uint32_t addr,
                   struct err *e);
int nft_link_del(struct nl_sock *s, const char *table, const char *link, struct err *e);

/* What is in `sources` and in `links`; a link without a source has address 0.  Heap; none and 0
 * also when there is no table. */
struct nft_element {
        char link[16];
        uint32_t addr;
};
int nft_elements(struct nl_sock *s, const char *table, struct nft_element **ret, size_t *ret_n,
                 struct err *e);

/* The addresses in `released` (host byte order, any order; heap), whether one is among them (1, 0),
 * and taking them out. */
int nft_released(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n,
                 struct err *e);
int nft_is_released(struct nl_sock *s, const char *table, uint32_t addr, struct err *e);
int nft_released_del(struct nl_sock *s, const char *table, const uint32_t *addr, size_t n,
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
