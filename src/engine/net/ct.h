/* ct.h - the kernel's connection table: ending what clusters that are gone have left in it.
 *
 * A translated connection outlives its cluster by up to five days.  Were the address given to
 * another cluster meanwhile, what still comes in for the old one would reach the new one. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "engine/net/nl.h"

/* Delete every connection that one of these addresses (host byte order, ascending) takes part in.
 * @s: a NETLINK_NETFILTER socket.  Walks the whole table once: 10 ms where that has 262,144
 * buckets, whatever is in it. */
int ct_sweep(struct nl_sock *s, const uint32_t *addr, size_t n, struct err *e);
