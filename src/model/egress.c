/* egress.c - see egress.h.  Engine and control plane.  Always holds: what comes out of a parser has no
 * bit set behind its prefix, so that equal networks are equal bytes. */
#include "model/egress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static unsigned width(const struct network *n)
{
        return n->v6 ? 128 : 32;
}

/* Bits of byte @i that the prefix covers. */
static uint8_t mask_of(const struct network *n, size_t i)
{
        unsigned at = (unsigned) i * 8;

        unsigned covered = n->bits <= at ? 0 : n->bits - at < 8 ? n->bits - at : 8;

        return (uint8_t) (0xff00U >> covered & 0xff);
}

char *network_format(const struct network *n, char buf[static NETWORK_TEXT])
{
        char addr[INET6_ADDRSTRLEN] = "";

        (void) inet_ntop(n->v6 ? AF_INET6 : AF_INET, n->addr, addr, sizeof addr);
        (void) snprintf(buf, NETWORK_TEXT, "%s/%u", addr, n->bits);
        return buf;
}

static int parse_bits(const char *slash, struct network *n)
{
        uint64_t bits = width(n);

        if (slash && str_u64(slash, 0, width(n), &bits) < 0)
                return -EINVAL;
        n->bits = (uint8_t) bits;
        return 0;
}

int network_parse(const char *field, const char *s, size_t len, struct network *ret, struct err *e)
{
        char text[NETWORK_TEXT] = "", clean[NETWORK_TEXT], *slash = NULL;
        struct network n = { .bits = 0 }, given;

        if (len < sizeof text && !memchr(s, '\0', len)) {
                memcpy(text, s, len);
                slash = strchr(text, '/');
                if (slash)
                        *slash++ = '\0';
        }
        n.v6 = strchr(text, ':') != NULL;
        if (inet_pton(n.v6 ? AF_INET6 : AF_INET, text, n.addr) != 1 || parse_bits(slash, &n) < 0)
                return err_set(
                        e, -EINVAL,
                        "%s: '%.*s' is not a network such as 198.51.100.0/24 or 2001:db8::/32",
                        field, len < NETWORK_TEXT ? (int) len : (int) NETWORK_TEXT, s);
        given = n;
        for (size_t i = 0; i < sizeof n.addr; i++)
                n.addr[i] = (uint8_t) (n.addr[i] & mask_of(&n, i));
        if (memcmp(n.addr, given.addr, sizeof n.addr) != 0)
                return err_set(e, -EINVAL, "%s: %.*s does not start at its base, %s", field,
                               (int) len, s, network_format(&n, clean));
        *ret = n;
        return 0;
}

bool network_holds(const struct network *outer, const struct network *inner)
{
        if (outer->v6 != inner->v6 || outer->bits > inner->bits)
                return false;
        for (size_t i = 0; i < width(outer) / 8; i++)
                if ((inner->addr[i] & mask_of(outer, i)) != outer->addr[i])
                        return false;
        return true;
}

void network_ends(const struct network *n, uint8_t first[static 16], uint8_t last[static 16])
{
        memcpy(first, n->addr, sizeof n->addr);
        memset(last, 0, sizeof n->addr);
        for (size_t i = 0; i < width(n) / 8; i++)
                last[i] = (uint8_t) (n->addr[i] | (uint8_t) ~mask_of(n, i));
}

/* Whatever an operator opens: these are the host's own, a cloud's metadata, or nobody's. */
static const struct {
        struct network net;
        const char *why;
} unreachable[] = {
        { { .bits = 8 }, "\"this network\"" },
        { { .bits = 8, .addr = { 127 } }, "loopback" },
        { { .bits = 16, .addr = { 169, 254 } }, "link-local" },
        { { .bits = 3, .addr = { 224 } }, "multicast or reserved" },
        { { .v6 = true, .bits = 96 }, "loopback or IPv4-compatible" },
        { { .v6 = true, .bits = 96, .addr = { [10] = 0xff, 0xff } }, "IPv4-mapped" },
        { { .v6 = true, .bits = 10, .addr = { 0xfe, 0x80 } }, "link-local" },
        { { .v6 = true, .bits = 8, .addr = { 0xff } }, "multicast" },
};

const char *network_unreachable(const struct network *n)
{
        for (size_t i = 0; i < NELEM(unreachable); i++)
                if (network_holds(&unreachable[i].net, n))
                        return unreachable[i].why;
        return NULL;
}

int network_keep(const char *field, const struct network *n, struct network *list, size_t *len,
                 size_t max, struct err *e)
{
        size_t kept = 0;

        for (size_t i = 0; i < *len; i++)
                if (network_holds(&list[i], n))
                        return 0;
        for (size_t i = 0; i < *len; i++)
                if (!network_holds(n, &list[i]))
                        list[kept++] = list[i];
        *len = kept;
        if (kept == max)
                return err_set(e, -E2BIG, "%s: more than %zu networks; join some to a greater one",
                               field, max);
        list[(*len)++] = *n;
        return 0;
}

int egress_parse(const char *field, char *const *list, struct egress *ret, struct err *e)
{
        struct egress out = { .limited = list && *list };
        struct network n;
        const char *why;
        int r = 0;

        if (out.limited && str_eq(list[0], EGRESS_NONE) && !list[1])
                list = NULL;
        for (char *const *s = list; r >= 0 && s && *s; s++) {
                if (str_eq(*s, EGRESS_NONE))
                        return err_set(e, -EINVAL,
                                       "%s: '" EGRESS_NONE "' stands alone or not at all", field);
                r = network_parse(field, *s, strlen(*s), &n, e);
                why = r < 0 ? NULL : network_unreachable(&n);
                if (why)
                        r = err_set(e, -EINVAL, "%s: %.64s: clusters never reach %s addresses",
                                    field, *s, why);
                if (r >= 0)
                        r = network_keep(field, &n, out.net, &out.n, NELEM(out.net), e);
        }
        if (r < 0)
                return r;
        *ret = out;
        return 0;
}
