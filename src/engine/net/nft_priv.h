/* nft_priv.h - transactions over set elements: shared by the nft_*.c files. */
#pragma once
#include <linux/netfilter/nf_tables.h>

#include "engine/net/nft.h"

#define IFNAME_BYTES      16U /* type ifname: padded with zeros */
#define NFT_CHAIN_BYTES   24U
#define NFT_EGRESS_PREFIX "egress_" /* a cluster's list: its slot follows */

/* The chain that tells of the types of all sets and chains (nft_is_foreign()). */
void nft_layout_chain(char buf[static NFT_CHAIN_BYTES]);
/* What nft_cluster_add() says, as text, for all clusters of @c. */
struct strbuf;
void nft_put_clusters(struct strbuf *b, const struct nft_config *c);

/* As type ifname has it. */
void nft_copy_link(char to[static IFNAME_BYTES], const char *link);

/* A message of the table's family. */
void nft_message(struct nl_batch *b, unsigned type, unsigned flags, const char *what);
/* One transaction; nothing of it is there before nft_commit(). */
void nft_begin(struct nl_batch *b);
int nft_commit(struct nl_sock *s, struct nl_batch *b, struct err *e);

/* What goes into a set, comes out of it, or is asked for. */
struct nft_item {
        const char *set;
        const void *key;
        size_t len;
        const uint32_t *mark; /* what a map gives for it; NULL: no map of numbers */
        const char *
                jump; /* the chain that a map gives for it; NULL: no map of chains; not read back */
        const void
                *data; /* what another map gives for it, of data_len bytes; NULL: none of these */
        size_t data_len;
        uint64_t bytes; /* that its counter has seen, where the set has counters; read back only */
};
/* @type: NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM. */
void nft_element(struct nl_batch *b, unsigned type, const char *table, const struct nft_item *it);
/* Several of one set in one message. */
void nft_element_some(struct nl_batch *b, unsigned type, const char *table,
                      const struct nft_item *it, size_t n);
/* For sets, where maps are none. */
void nft_element_of(struct nl_batch *b, unsigned type, const char *table, const char *set,
                    const void *key, size_t len);
/* 1: the set has it; 0: it has not, or there is no such set. */
int nft_has(struct nl_sock *s, const char *table, const char *set, const void *key, size_t len,
            struct err *e);
/* The same for a map; *@ret_mark is what it gives. */
int nft_look_up(struct nl_sock *s, const char *table, const char *map, const void *key, size_t len,
                uint32_t *ret_mark, struct err *e);

typedef int nft_each_fn(void *arg, const struct nft_item *it);
/* The same for a map of data: @fn is called with the element. */
int nft_get(struct nl_sock *s, const char *table, const char *map, const void *key, size_t len,
            nft_each_fn *fn, void *arg, struct err *e);

/* Call @fn for each element of a set; -ENOMEM from it ends the walk.  Repeated from the start, after
 * @again, when the set changed meanwhile.  0 and no call when there is no table. */
typedef void nft_again_fn(void *arg);
int nft_each(struct nl_sock *s, const char *table, const char *set, nft_each_fn *fn,
             nft_again_fn *again, void *arg, struct err *e);
/* A set of one four-byte number each, as the kernel has them: heap. */
int nft_numbers(struct nl_sock *s, const char *table, const char *set, uint32_t **ret,
                size_t *ret_n, struct err *e);

/* The list of networks of a limited cluster: its chain, made or made anew, and its link's way there; taking
 * both away, which have to be there; are they (1, 0)? */
void nft_egress_chain(uint32_t slot, char buf[static NFT_CHAIN_BYTES]);
void nft_egress_add(struct nl_batch *b, const char *table, const struct nft_cluster *c);
void nft_egress_del(struct nl_batch *b, const char *table, const struct nft_cluster *c);
int nft_egress_is(struct nl_sock *s, const char *table, const struct nft_cluster *c, struct err *e);

/* A cluster's published ports, into the maps by the transaction that lets it out; what is there of its
 * address, in either family; and out of them again.  Finding them asks for those of c->ports alone when
 * all of them are there, since they were put in together; else it walks through all of the host's. */
void nft_ports_add(struct nl_batch *b, const char *table, const struct nft_cluster *c);
int nft_ports_of(struct nl_sock *s, const char *table, const struct nft_cluster *c, bool v6,
                 struct published *ret, struct err *e);
void nft_ports_del(struct nl_batch *b, const char *table, const struct nft_cluster *c,
                   const struct published *v4, const struct published *v6);
