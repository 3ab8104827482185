/* allow.h - `[network] allow`: private networks that clusters may reach.  Pure. */
#pragma once
#include "model/egress.h"

#define NET_ALLOW_MAX 32U

struct net_allow {
        struct network net[NET_ALLOW_MAX];
        size_t n;
};

/* "10.1.0.0/16, fd12::/32"; NULL or "" are none.  -EINVAL, also for ranges that clusters never reach
 * (loopback, link-local, ...); -E2BIG.  *@e names `network allow`. */
int net_allow_parse(const char *list, struct net_allow *ret, struct err *e);
