/* addr.c - see addr.h.  A table of prefixes from the IANA special-purpose registries; whatever is in
 * one of them is refused unless the operator listed the registry. */
#include "fetch/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"

struct prefix4 {
        uint32_t net; /* host order */
        unsigned bits;
        const char *what;
};

static const struct prefix4 prefixes4[] = {
        { 0x00000000, 8, "unspecified" }, /* 0.0.0.0/8: reaches the host itself */
        { 0x0a000000, 8, "private" },
        { 0x64400000, 10, "private" }, /* 100.64/10: carriers; our clusters */
        { 0x7f000000, 8, "loopback" },
        { 0xa9fe0000, 16, "link-local" }, /* also the metadata service of clouds */
        { 0xac100000, 12, "private" },
        { 0xc0000000, 24, "reserved" },
        { 0xc0000200, 24, "reserved" }, /* documentation */
        { 0xc0586300, 24, "reserved" }, /* 6to4 relays */
        { 0xc0a80000, 16, "private" },
        { 0xc6120000, 15, "reserved" }, /* benchmarks */
        { 0xc6336400, 24, "reserved" },
        { 0xcb007100, 24, "reserved" },
        { 0xe0000000, 4, "multicast" },
        { 0xf0000000, 4, "reserved" }, /* and broadcast */
};

struct prefix6 {
        uint8_t net[16];
        unsigned bits;
        int embeds;    /* offset of an IPv4 address, which then decides; -1: none */
        bool inverted; /* that address is stored with its bits flipped */
        const char *what;
};

static const struct prefix6 prefixes6[] = {
        { { [10] = 0xff, 0xff }, 96, 12, false, NULL },      /* ::ffff:a.b.c.d */
        { { 0x00, 0x64, 0xff, 0x9b }, 96, 12, false, NULL }, /* NAT64 */
        { { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48, -1, false, "private" },
        { { 0x20, 0x02 }, 16, 2, false, NULL },             /* 6to4 */
        { { 0x20, 0x01, 0x00, 0x00 }, 32, 12, true, NULL }, /* Teredo */
        { { [15] = 1 }, 128, -1, false, "loopback" },
        { { 0 }, 96, -1, false, "unspecified" }, /* :: and old ::a.b.c.d */
        { { 0x01 }, 8, -1, false, "reserved" },  /* 100::/64 and around */
        { { 0x20, 0x01, 0x0d, 0xb8 }, 32, -1, false, "reserved" },
        { { 0x20, 0x01, 0x00, 0x20 }, 28, -1, false, "reserved" }, /* ORCHID */
        { { 0x3f, 0xff }, 20, -1, false, "reserved" },
        { { 0x5f, 0x00 }, 16, -1, false, "reserved" }, /* segment routing */
        { { 0xfc }, 7, -1, false, "private" },
        { { 0xfe, 0x80 }, 10, -1, false, "link-local" },
        { { 0xfe, 0xc0 }, 10, -1, false, "private" }, /* site-local */
        { { 0xff }, 8, -1, false, "multicast" },
};

static const char *refusal4(uint32_t a)
{
        for (size_t i = 0; i < NELEM(prefixes4); i++) {
                uint32_t mask = ~(uint32_t) 0 << (32 - prefixes4[i].bits);

                if ((a & mask) == prefixes4[i].net)
                        return prefixes4[i].what;
        }
        return NULL;
}

static bool within6(const uint8_t *a, const struct prefix6 *p)
{
        unsigned whole = p->bits / 8, rest = p->bits % 8;

        if (memcmp(a, p->net, whole) != 0)
                return false;
        return rest == 0 || ((a[whole] ^ p->net[whole]) >> (8 - rest)) == 0;
}

static const char *refusal6(const uint8_t *a)
{
        for (size_t i = 0; i < NELEM(prefixes6); i++) {
                const struct prefix6 *p = &prefixes6[i];
                uint32_t v4;

                if (!within6(a, p))
                        continue;
                if (p->embeds < 0)
                        return p->what;
                memcpy(&v4, a + p->embeds, sizeof v4);
                return refusal4(ntohl(p->inverted ? ~v4 : v4));
        }
        return NULL;
}

const char *addr_refusal(const struct sockaddr *sa, socklen_t len)
{
        if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
                struct sockaddr_in in;

                memcpy(&in, sa, sizeof in);
                return refusal4(ntohl(in.sin_addr.s_addr));
        }
        if (sa->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6)) {
                struct sockaddr_in6 in6;

                memcpy(&in6, sa, sizeof in6);
                return refusal6(in6.sin6_addr.s6_addr);
        }
        return "not an internet address";
}

bool addr_listed(const char *entry, const char *host, unsigned port, unsigned default_port)
{
        char plain[280], with_port[300];
        bool v6 = strchr(host, ':') != NULL;

        (void) snprintf(plain, sizeof plain, v6 ? "[%.270s]" : "%.270s", host);
        (void) snprintf(with_port, sizeof with_port, "%s:%u", plain, port);
        if (strcasecmp(entry, with_port) == 0)
                return true;
        return port == default_port &&
               (strcasecmp(entry, plain) == 0 || strcasecmp(entry, host) == 0);
}
