/* allow.c - see allow.h.  Engine and control plane.
 *
 * What always holds: no two networks of a list overlap, so no two of them have an entry in common, and one that is
 * taken away takes nothing from another. */
#include "model/allow.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

int allow_parse(const char *field, char *const *list, struct allow *ret, struct err *e)
{
        static const struct network mapped = { .v6 = true,
                                               .bits = 96,
                                               .addr = { [10] = 0xff, 0xff } };
        struct allow out = { .n = 0 };
        struct network n;
        int r = 0;

        for (char *const *s = list; r >= 0 && s && *s; s++) {
                r = network_parse(field, *s, strlen(*s), &n, e);
                if (r >= 0 && network_holds(&mapped, &n))
                        r = err_set(e, -EINVAL, "%s: %.64s: write it as IPv4, as clients have it",
                                    field, *s);
                if (r >= 0)
                        r = network_keep(field, &n, out.net, &out.n, NELEM(out.net), e);
        }
        if (r < 0)
                return r;
        *ret = out;
        return 0;
}

size_t allow_entries(const struct network *n, char ret[ALLOW_ENTRIES][ALLOW_ENTRY_MAX])
{
        static const char digits[] = "0123456789ABCDEF";
        const unsigned whole = n->bits / 4U, rest = n->bits % 4U;
        const unsigned many = rest ? 1U << (4 - rest) : 1;

        for (unsigned k = 0; k < many; k++) {
                char *s = ret[k];

                *s++ = n->v6 ? '6' : '4';
                for (unsigned i = 0; i < whole; i++)
                        *s++ = digits[i % 2 ? n->addr[i / 2] & 15 : n->addr[i / 2] >> 4];
                if (rest)
                        *s++ = digits[((whole % 2 ? n->addr[whole / 2] : n->addr[whole / 2] >> 4) &
                                       15) +
                                      (int) k];
                *s = '\0';
        }
        return many;
}

bool allow_has_entry(const struct allow *a, const char *entry)
{
        char own[ALLOW_ENTRIES][ALLOW_ENTRY_MAX];

        for (size_t i = 0; i < a->n; i++) {
                size_t n = allow_entries(&a->net[i], own);

                for (size_t k = 0; k < n; k++)
                        if (str_eq(own[k], entry))
                                return true;
        }
        return false;
}

bool allow_same(const struct allow *a, const struct allow *b)
{
        bool same = a->n == b->n;

        for (size_t i = 0; same && i < a->n; i++)
                same = network_holds(&a->net[i], &b->net[i]) &&
                       network_holds(&b->net[i], &a->net[i]);
        return same;
}
