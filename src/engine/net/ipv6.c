/* ipv6.c - see ipv6.h.  Pure; any process.  Always holds: slots' addresses have a zero in the first half
 * of what follows the prefix, service addresses never do. */
#include "engine/net/ipv6.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"
#include "model/egress.h"
#include "model/limits.h"

#define PREFIX_BITS  64U
#define ID_MASK      ((1ULL << 56) - 1)
#define SERVICE_MARK (1ULL << 63)

const uint8_t ipv6_gateway[IPV6_BYTES] = { 0xfe, 0x80, [15] = 1 };

/* A number for each id of up to eight of a-z and 0-9, below 37^8 < 2^42. */
static uint64_t id_number(const char *id)
{
        static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
        uint64_t n = 0;

        for (; *id; id++) {
                const char *at = strchr(digits, *id);

                n = n * 37 + (at ? (uint64_t) (at - digits) + 1 : 0);
        }
        return n;
}

static void put64(uint8_t *to, uint64_t v)
{
        for (int i = 7; i >= 0; i--, v >>= 8)
                to[i] = (uint8_t) v;
}

/* fd and 56 bits: multiplying by an odd number and folding the upper half into the lower one can both be
 * undone, so that different ids stay different; it spreads them as RFC 4193 wants. */
static void own_prefix(const char *id, uint8_t prefix[static 8])
{
        uint64_t n = id_number(id) * 0x9E3779B97F4A7DULL;

        n &= ID_MASK;
        n ^= n >> 28;
        n = n * 0xD6E8FEB86659FDULL & ID_MASK;
        n ^= n >> 28;
        put64(prefix, n);
        prefix[0] = 0xfd;
}

int ipv6_pool_parse(const char *s, const char *id, struct ipv6_pool *ret, struct err *e)
{
        static const struct network unique_local = { .v6 = true, .bits = 7, .addr = { 0xfc } };
        struct ipv6_pool p = { .on = true };
        struct network n;
        int r;

        if (str_eq(s, "none")) {
                *ret = (struct ipv6_pool){ .on = false };
                return 0;
        }
        if (str_empty(s)) {
                own_prefix(id, p.prefix);
                *ret = p;
                return 0;
        }
        r = network_parse("network pool6", s, strlen(s), &n, e);
        if (r < 0)
                return r;
        if (n.bits != PREFIX_BITS || !network_holds(&unique_local, &n))
                return err_set(
                        e, -EINVAL,
                        "network pool6: %s is no /64 within fc00::/7, such as fd12:3456:789a:1::/64; empty: one of this instance's own; none: no IPv6",
                        s);
        memcpy(p.prefix, n.addr, sizeof p.prefix);
        *ret = p;
        return 0;
}

static void make(const struct ipv6_pool *pool, uint64_t host, uint8_t ret[static IPV6_BYTES])
{
        memcpy(ret, pool->prefix, sizeof pool->prefix);
        put64(ret + sizeof pool->prefix, host);
}

void ipv6_of_slot(const struct ipv6_pool *pool, uint32_t slot, uint8_t ret[static IPV6_BYTES])
{
        make(pool, slot, ret);
}

uint32_t ipv6_slot_of(const struct ipv6_pool *pool, const uint8_t addr[static IPV6_BYTES])
{
        uint8_t want[IPV6_BYTES];
        uint32_t slot = (uint32_t) addr[14] << 8 | addr[15];

        make(pool, slot, want);
        return pool->on && slot <= LIMIT_SLOTS && memcmp(addr, want, sizeof want) == 0 ? slot : 0;
}

void ipv6_service(const struct ipv6_pool *pool, const char *id, uint8_t ret[static IPV6_BYTES])
{
        make(pool, SERVICE_MARK | id_number(id), ret);
}

bool ipv6_is_service(const uint8_t addr[static IPV6_BYTES], const char *id)
{
        uint8_t host[8];

        put64(host, SERVICE_MARK | id_number(id));
        return (addr[0] & 0xfe) == 0xfc && memcmp(addr + 8, host, sizeof host) == 0;
}

char *ipv6_format(const uint8_t addr[static IPV6_BYTES], char buf[static IPV6_TEXT])
{
        return (char *) (uintptr_t) inet_ntop(AF_INET6, addr, buf, IPV6_TEXT);
}
