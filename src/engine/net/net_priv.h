/* net_priv.h - what net.c (the host's side) and lease.c (a cluster's side) share. */
#pragma once
#include <sys/stat.h>
#include <sys/types.h>

#include "engine/net/allow.h"
#include "engine/net/dns.h"
#include "engine/net/ipv4.h"
#include "engine/net/ipv6.h"
#include "engine/net/net.h"
#include "engine/net/nft.h"
#include "engine/net/nl.h"
#include "engine/net/rtnl.h"

/* Every link of ours carries a group number made from the instance's id, so that several instances
 * know their own; a link that was released carries the same number with this bit. */
#define NET_GROUP_DEAD 0x80000000U

/* Service addresses on lo carry labels that begin so and end in their instance's id. */
#define NET_LABEL_PREFIX "lo:hv-"

struct net_host {
        char id[9];
        char table[NFT_TABLE_BYTES];
        char label[IF_NAMESIZE]; /* of the service address on lo */
        bool resolver;           /* clusters ask vmm-dns on the service address */
        const char *dns_option;  /* borrowed from the instance */
        struct claim_host *claims;
        struct ipv4_pool pool;
        struct ipv6_pool pool6;
        struct net_allow allow;
        uint32_t service, group;
        uint8_t service6[IPV6_BYTES];
        bool outdated;        /* the table is another version's: see net_host_settle() */
        bool v6;              /* this host can give clusters IPv6 */
        struct err v6_lacks;  /* no message: it can, or shall not; else why not, which was said */
        int rules_lost;       /* net_watch_read(): by the transaction that it reads of */
        uint32_t connections; /* tracked at once per address, 0: no limit */
        uint64_t bandwidth;   /* bytes a second each way, 0: no limit */
        int netns;            /* the host's */
        pid_t pid;            /* whose the sockets are: a socket shared over a fork would mix
                                   * up the answers of two processes */
        struct nl_sock rtnl, nft;
        struct port_range public_ports;
        const char *public_ip; /* of the configuration, borrowed; "": found out */
        const char *data_dir;  /* borrowed */
        struct dns_servers dns;
        struct stat dns_seen; /* the resolv.conf that `dns` was read from */
};

/* Sockets of this very process.  Every public function begins with it. */
int net_sockets(struct net_host *h, struct err *e);

/* A repair looks at all links and then writes into the firewall; nobody ends one in between, or the
 * firewall would know a link that is gone.  @how: LOCK_SH for one slot, LOCK_EX for all.
 * Held as long as the descriptor that it returns is open. */
int net_hold(const struct net_host *h, int how, struct err *e);

/* Bring h->dns up to date with the host's resolv.conf when the option leaves it to that. */
int net_dns_refresh(struct net_host *h, struct err *e);

/* `public_ports` and `public_ip`.  -EINVAL. */
int net_public_parse(struct net_host *h, const struct engine_conf *c, struct err *e);

/* Does nobody else use our addresses?  -EADDRINUSE. */
int net_pool_check(struct net_host *h, struct err *e);
/* Do clusters that run have addresses that we would give them?  -EBUSY. */
int net_table_check(struct net_host *h, struct err *e);
/* The firewall table, and in it what is missing of the clusters that @fn knows.  One that another version
 * made is replaced by ours with all of it in one transaction; without @fn it stays, and h->outdated says so. */
int net_table_make(struct net_host *h, net_policy_fn *fn, void *arg, struct err *e);

/* The firewall table has vanished under us: make it again, and say so. */
int net_table_gone(struct net_host *h, struct err *e);

/* Passing packets on, counted over all instances (claim_setting_hold()).  net_forward6_on(): -EOPNOTSUPP
 * when this host cannot without harm, with the reason. */
int net_forward_on(struct net_host *h, struct err *e);
int net_forward_leave(struct net_host *h, struct err *e);
int net_forward6_on(struct net_host *h, struct err *e);
int net_forward6_leave(struct net_host *h, struct err *e);

/* What the firewall has of a slot by its names alone; account and egress are the caller's to fill in. */
void net_cluster_of(const struct net_host *h, uint32_t slot, struct nft_cluster *ret);
/* Is it limited by a list that is there?  1, 0. */
int net_list_holds(struct net_host *h, uint32_t slot, struct err *e);
/* Was it let out?  1, 0. */
int net_is_out(struct net_host *h, uint32_t slot, struct err *e);
/* All that the firewall has to know of a cluster, in one transaction.  -ENOENT: no table. */
int net_let_out(struct net_host *h, uint32_t slot, const struct net_policy *p, struct err *e);

/* End the connections of all released addresses. */
int net_sweep(struct net_host *h, struct err *e);

/* "hv<slot>" and back (0: another name). */
void net_link_name(uint32_t slot, char buf[static IF_NAMESIZE]);
uint32_t net_link_slot(const char *name);
