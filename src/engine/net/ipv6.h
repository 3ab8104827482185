/* ipv6.h - the IPv6 addresses of clusters: a /64 of the instance's own within fc00::/7.  Addresses are
 * 16 bytes in network byte order.  Pure. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

#define IPV6_BYTES 16U
#define IPV6_TEXT  48U /* bytes that ipv6_format() may write */

/* fe80::1, every cluster's next hop. */
extern const uint8_t ipv6_gateway[IPV6_BYTES];

struct ipv6_pool {
        bool on;
        uint8_t prefix[8];
};

/* "fd12:3456:789a:1::/64", "none", or "" for one made of @id, which two instances never share.
 * -EINVAL; *@e names `network pool6`. */
int ipv6_pool_parse(const char *s, const char *id, struct ipv6_pool *ret, struct err *e);

void ipv6_of_slot(const struct ipv6_pool *pool, uint32_t slot, uint8_t ret[static IPV6_BYTES]);
/* 0 when @addr is no slot's. */
uint32_t ipv6_slot_of(const struct ipv6_pool *pool, const uint8_t addr[static IPV6_BYTES]);
/* Of instance @id; in a pool that several use, too, no two have the same. */
void ipv6_service(const struct ipv6_pool *pool, const char *id, uint8_t ret[static IPV6_BYTES]);
/* Is @addr instance @id's, whatever the pool was? */
bool ipv6_is_service(const uint8_t addr[static IPV6_BYTES], const char *id);
/* Returns @buf. */
char *ipv6_format(const uint8_t addr[static IPV6_BYTES], char buf[static IPV6_TEXT]);
