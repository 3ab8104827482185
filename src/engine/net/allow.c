/* allow.c - see allow.h.  Any process. */
#include "engine/net/allow.h"

#include <errno.h>
#include <string.h>

int net_allow_parse(const char *list, struct net_allow *ret, struct err *e)
{
        static const char what[] = "network allow";
        struct net_allow a = { .n = 0 };

        for (const char *s = list ? list : ""; *(s += strspn(s, " \t,"));) {
                size_t len = strcspn(s, " \t,");
                struct network n;
                const char *why;
                /* a range without its size is more likely a slip than one address */
                int r = memchr(s, '/', len)
                                ? network_parse(what, s, len, &n, e)
                                : err_set(e, -EINVAL,
                                          "%s: '%.*s' lacks its size, as in 10.1.0.0/16", what,
                                          (int) len, s);

                if (r < 0)
                        return r;
                why = network_unreachable(&n);
                if (why)
                        return err_set(e, -EINVAL, "%s: %.*s: clusters never reach %s addresses",
                                       what, (int) len, s, why);
                if (a.n == NET_ALLOW_MAX)
                        return err_set(e, -E2BIG, "%s: more than %u ranges", what, NET_ALLOW_MAX);
                a.net[a.n++] = n;
                s += len;
        }
        *ret = a;
        return 0;
}
