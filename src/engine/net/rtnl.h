/* rtnl.h - links, addresses, routes and neighbours: messages for an nl_batch, and listings.
 * Addresses in host byte order; links by index, or by name where the index is not known yet.
 * Messages of the "add" kind succeed when the thing is there already, those of the "del" kind when
 * it is not. */
#pragma once
#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/net/nl.h"

#define RTNL_MAC 6U

struct rtnl_veth {
        const char *name, *peer; /* ours, and the name on the other side */
        const uint8_t *mac, *peer_mac;
        uint32_t group;      /* of our end */
        uint32_t peer_index; /* 0: the kernel chooses; neither end answers or asks for addresses */
        int peer_netns;      /* where the other end goes */
};
/* Not idempotent: -EEXIST when the name is taken. */
void rtnl_veth_add(struct nl_batch *b, const struct rtnl_veth *v);

/* What to change of a link.  Zero means "leave it". */
struct rtnl_change {
        bool up, down;
        bool no_ipv6_address; /* do not give it a link-local address when it comes up */
        uint32_t group;
        const char *name; /* new name, the link must be down; with index 0: which link */
        int absent_ok;    /* ENODEV is no error */
};
void rtnl_link_change(struct nl_batch *b, uint32_t index, const struct rtnl_change *c);
void rtnl_link_del(struct nl_batch *b, uint32_t index);
void rtnl_group_del(struct nl_batch *b, uint32_t group); /* all its links, one wait for all */

/* A /32 on the link; @label may be NULL; @scope RT_SCOPE_*. */
void rtnl_addr_add(struct nl_batch *b, uint32_t index, uint32_t addr, const char *label,
                   uint8_t scope);
void rtnl_addr_del(struct nl_batch *b, uint32_t index, uint32_t addr);

/* Host route to @addr straight out of the link, our own address towards it being @source. */
void rtnl_host_route_add(struct nl_batch *b, uint32_t index, uint32_t addr, uint32_t source);
/* Default route over @gateway, which no address of the link needs to contain. */
void rtnl_default_route_add(struct nl_batch *b, uint32_t index, uint32_t gateway);
/* Permanent: nobody asks, nobody answers. */
void rtnl_neigh_add(struct nl_batch *b, uint32_t index, uint32_t addr, const uint8_t *mac);

/* The same for IPv6: 16 bytes in network byte order. */
void rtnl_addr6_add(struct nl_batch *b, uint32_t index, const uint8_t *addr);
void rtnl_addr6_del(struct nl_batch *b, uint32_t index, const uint8_t *addr);
void rtnl_host_route6_add(struct nl_batch *b, uint32_t index, const uint8_t *addr,
                          const uint8_t *source);
void rtnl_default_route6_add(struct nl_batch *b, uint32_t index, const uint8_t *gateway);
void rtnl_neigh6_add(struct nl_batch *b, uint32_t index, const uint8_t *addr, const uint8_t *mac);

/* What the link sends is held to that rate, with bursts of a hundredth of a second; what waits longer
 * than a twentieth is dropped. */
void rtnl_rate_add(struct nl_batch *b, uint32_t index, uint64_t bytes_per_s);

/* Listings: heap arrays that the caller frees; consistent (repeated when something changed). */
struct rtnl_link {
        uint32_t index, group;
        bool up;
        char name[IF_NAMESIZE];
};
int rtnl_links(struct nl_sock *s, struct rtnl_link **ret, size_t *ret_n, struct err *e);
/* One link by name; -ENODEV when there is none. */
int rtnl_link_get(struct nl_sock *s, const char *name, struct rtnl_link *ret, struct err *e);

struct rtnl_addr {
        uint32_t index, addr, bits;
        char label[IF_NAMESIZE];
};
int rtnl_addrs(struct nl_sock *s, struct rtnl_addr **ret, size_t *ret_n, struct err *e);

struct rtnl_route {
        uint32_t dst, bits, index; /* index 0: several next hops or none */
        uint32_t table;
        uint8_t type; /* RTN_* */
};
int rtnl_routes(struct nl_sock *s, struct rtnl_route **ret, size_t *ret_n, struct err *e);

struct rtnl_addr6 {
        uint32_t index;
        uint8_t addr[16];
};
int rtnl_addrs6(struct nl_sock *s, struct rtnl_addr6 **ret, size_t *ret_n, struct err *e);

struct rtnl_route6 {
        uint8_t dst[16];
        uint32_t bits, index;
        uint8_t type, protocol; /* RTN_*, RTPROT_* */
};
int rtnl_routes6(struct nl_sock *s, struct rtnl_route6 **ret, size_t *ret_n, struct err *e);

/* Index of a link in the namespace that the socket belongs to; -ENODEV. */
int rtnl_index(const struct nl_sock *s, const char *name, uint32_t *ret);
