/* ct.h - the kernel's connection table: ending what clusters that are gone have left in it.
 *
 * A translated connection outlives its cluster by up to five days.  Were the address given to
 * another cluster meanwhile, what still comes in for the old one would reach the new one. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/net/dns.h"
#include "engine/net/ipv4.h"
#include "engine/net/ipv6.h"
#include "engine/net/nl.h"
#include "model/egress.h"

/* Addresses of slots: IPv4 in host byte order, ascending, and what these slots have of IPv6. */
struct ct_addrs {
        const uint32_t *v4;
        size_t n;
        const struct ipv4_pool *pool;
        const struct ipv6_pool *pool6;
};

/* A cluster whose list is another now. */
struct ct_listed {
        uint32_t v4; /* its addresses */
        const uint8_t *v6;
        const struct egress *egress;
        const struct dns_servers *dns; /* which it may ask all the same */
        const struct ipv4_pool
                *pool; /* the service address, and clusters, which no list is about */
        const struct ipv6_pool *pool6;
};

/* Delete the connections that it has begun to where its list does not lead.  As ct_sweep(). */
int ct_end_unlisted(struct nl_sock *s, const struct ct_listed *x, struct err *e);

/* Delete every connection that one of these takes part in.  @s: a NETLINK_NETFILTER socket.  Walks the
 * whole table once: 10 ms where that has 262,144 buckets, whatever is in it. */
int ct_sweep(struct nl_sock *s, const struct ct_addrs *addrs, struct err *e);
