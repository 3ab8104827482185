/* ipv4.h - the address arithmetic of cluster networks.  Addresses are in host byte order.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define IPV4_TEXT            16U         /* bytes that ipv4_format() may write */
#define IPV4_GATEWAY         0xA9FE0101U /* 169.254.1.1, every cluster's next hop */
#define IPV4_LINK_LOCAL      0xA9FE0000U /* 169.254.0.0/16: clouds keep credentials there */
#define IPV4_LINK_LOCAL_BITS 16U

/* The range that clusters and service addresses come from: base + slot for slots, the upper part
 * for the service addresses of the instances on this machine. */
struct ipv4_pool {
        uint32_t base;
        uint32_t bits; /* prefix length, 8..19 */
};

/* "100.96.0.0/16".  -EINVAL, or -ERANGE for a size outside 8..19; *@e names `network pool`. */
int ipv4_pool_parse(const char *s, struct ipv4_pool *ret, struct err *e);

/* Dotted decimal, four parts, nothing else.  -EINVAL otherwise. */
int ipv4_parse(const char *s, uint32_t *ret);
/* Returns @buf. */
char *ipv4_format(uint32_t addr, char buf[static IPV4_TEXT]);

/* Is @addr within @net/@bits?  0 bits hold everything. */
bool ipv4_within(uint32_t addr, uint32_t net, uint32_t bits);
/* Have @pool and @net/@bits an address in common? */
bool ipv4_pool_overlaps(const struct ipv4_pool *pool, uint32_t net, uint32_t bits);

uint32_t ipv4_of_slot(const struct ipv4_pool *pool, uint32_t slot);
/* 0 when @addr is no slot's. */
uint32_t ipv4_slot_of(const struct ipv4_pool *pool, uint32_t addr);
/* The @attempt-th address to try as service address of instance @id; they start at a place that
 * depends on the id alone, so that an instance finds the same one again. */
uint32_t ipv4_service(const struct ipv4_pool *pool, const char *id, uint32_t attempt);
