/* ipv4.c - see ipv4.h.  Pure; any process.  Always holds: slot addresses (1..LIMIT_SLOTS above the
 * base) and service addresses (4,096 and more above it) never meet. */
#include "engine/net/ipv4.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "model/limits.h"

#define POOL_BITS_MIN 8U
#define POOL_BITS_MAX 19U
#define SERVICE_FIRST (LIMIT_SLOTS + 2U)

_Static_assert((1U << (32U - POOL_BITS_MAX)) >= 2U * SERVICE_FIRST, "the smallest pool has room");

static uint32_t mask_of(uint32_t bits)
{
        return bits == 0 ? 0 : UINT32_MAX << (32U - bits);
}

int ipv4_parse(const char *s, uint32_t *ret)
{
        struct in_addr a;

        if (!s || inet_pton(AF_INET, s, &a) != 1)
                return -EINVAL;
        *ret = ntohl(a.s_addr);
        return 0;
}

char *ipv4_format(uint32_t addr, char buf[static IPV4_TEXT])
{
        (void) snprintf(buf, IPV4_TEXT, "%u.%u.%u.%u", addr >> 24, addr >> 16 & 255,
                        addr >> 8 & 255, addr & 255);
        return buf;
}

bool ipv4_within(uint32_t addr, uint32_t net, uint32_t bits)
{
        return ((addr ^ net) & mask_of(bits)) == 0;
}

bool ipv4_pool_overlaps(const struct ipv4_pool *pool, uint32_t net, uint32_t bits)
{
        return ipv4_within(pool->base, net, bits < pool->bits ? bits : pool->bits);
}

/* Ranges that no network of ours may take addresses from, and that no cluster may be let into. */
static const struct {
        uint32_t net, bits;
        const char *why;
} reserved[] = {
        { 0x00000000, 8, "\"this network\"" },
        { 0x7F000000, 8, "loopback" },
        { IPV4_LINK_LOCAL, IPV4_LINK_LOCAL_BITS, "link-local" },
        { 0xE0000000, 3, "multicast or reserved" },
};

/* @len bytes of "ADDRESS/BITS"; @what and @example are for messages. */
static int range_parse(const char *s, size_t len, const char *what, const char *example,
                       struct ipv4_pool *ret, struct err *e)
{
        char text[IPV4_TEXT + 3] = "", clean[IPV4_TEXT], *slash = NULL;
        struct ipv4_pool p;
        uint64_t bits;

        if (len < sizeof text) {
                memcpy(text, s, len);
                slash = strchr(text, '/');
        }
        if (slash)
                *slash = '\0';
        if (!slash || ipv4_parse(text, &p.base) < 0 || str_u64(slash + 1, 0, 32, &bits) < 0)
                return err_set(e, -EINVAL, "%s: '%.*s' is not an IPv4 range such as %s", what,
                               (int) len, s, example);
        p.bits = (uint32_t) bits;
        if (p.base & ~mask_of(p.bits))
                return err_set(e, -EINVAL, "%s: %.*s does not start at its base, %s/%u", what,
                               (int) len, s, ipv4_format(p.base & mask_of(p.bits), clean), p.bits);
        *ret = p;
        return 0;
}

int ipv4_pool_parse(const char *s, struct ipv4_pool *ret, struct err *e)
{
        static const char what[] = "network pool";
        struct ipv4_pool p;
        int r = range_parse(s ? s : "", s ? strlen(s) : 0, what, "100.96.0.0/16", &p, e);

        if (r < 0)
                return r;
        if (p.bits < POOL_BITS_MIN || p.bits > POOL_BITS_MAX)
                return err_set(e, -ERANGE,
                               "%s: %s must be between a /%u and a /%u (a /%u holds %u clusters)",
                               what, s, POOL_BITS_MIN, POOL_BITS_MAX, POOL_BITS_MAX, LIMIT_SLOTS);
        for (size_t i = 0; i < NELEM(reserved); i++)
                if (ipv4_pool_overlaps(&p, reserved[i].net, reserved[i].bits))
                        return err_set(e, -EINVAL, "%s: %s holds %s addresses", what, s,
                                       reserved[i].why);
        *ret = p;
        return 0;
}

uint32_t ipv4_of_slot(const struct ipv4_pool *pool, uint32_t slot)
{
        return pool->base + slot;
}

uint32_t ipv4_slot_of(const struct ipv4_pool *pool, uint32_t addr)
{
        uint32_t slot = addr - pool->base;

        return addr > pool->base && slot <= LIMIT_SLOTS ? slot : 0;
}

uint32_t ipv4_service(const struct ipv4_pool *pool, const char *id, uint32_t attempt)
{
        uint32_t size = 1U << (32U - pool->bits);
        uint32_t room = size - SERVICE_FIRST - 1U; /* all but the last, the broadcast address */
        uint32_t h = 2166136261U;                  /* FNV-1a: spread, not secrecy */

        for (; *id; id++)
                h = (h ^ (uint8_t) *id) * 16777619U;
        return pool->base + SERVICE_FIRST + (h % room + attempt % room) % room;
}
