/* published.c - see published.h.  Engine and control plane; pure. */
#include "model/published.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

static int pair_parse(char *s, struct port_pair *ret)
{
        char *colon = strchr(s, ':');
        uint64_t inner, outer;

        if (!colon)
                return -EINVAL;
        *colon = '\0';
        if (str_u64(s, 1, UINT16_MAX, &inner) < 0 || str_u64(colon + 1, 1, UINT16_MAX, &outer) < 0)
                return -EINVAL;
        *ret = (struct port_pair){ (uint16_t) inner, (uint16_t) outer };
        return 0;
}

int published_parse(const char *s, struct published *ret, struct err *e)
{
        AUTO(free) char *copy = strdup(s ? s : "");
        struct published p = { .n = 0 };
        char *save = NULL;

        if (!copy)
                return err_set(e, -ENOMEM, "out of memory");
        for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
                struct port_pair one;

                if (p.n == NELEM(p.at) || pair_parse(w, &one) < 0)
                        return err_set(e, -EINVAL, "published ports: '%.80s'", s);
                for (size_t i = 0; i < p.n; i++)
                        if (p.at[i].inner == one.inner || p.at[i].outer == one.outer)
                                return err_set(e, -EINVAL, "published ports: one twice in '%.80s'",
                                               s);
                p.at[p.n++] = one;
        }
        *ret = p;
        return 0;
}

char *published_format(const struct published *p)
{
        struct strbuf b = { 0 };

        for (size_t i = 0; i < p->n; i++)
                strbuf_fmt(&b, "%s%u:%u", i ? " " : "", p->at[i].inner, p->at[i].outer);
        return strbuf_take(&b);
}

uint16_t published_outer(const struct published *p, uint32_t inner)
{
        for (size_t i = 0; i < p->n; i++)
                if (p->at[i].inner == inner)
                        return p->at[i].outer;
        return 0;
}

int port_range_parse(const char *field, const char *s, struct port_range *ret, struct err *e)
{
        AUTO(free) char *copy = strdup(s ? s : "");
        char *dash = copy ? strchr(copy, '-') : NULL;
        uint64_t first = 0, last = 0;

        if (!copy)
                return err_set(e, -ENOMEM, "out of memory");
        if (str_empty(copy) || str_eq(copy, "none")) {
                *ret = (struct port_range){ 0, 0 };
                return 0;
        }
        if (dash)
                *dash = '\0';
        if (str_u64(copy, PUBLIC_PORT_FIRST, UINT16_MAX, &first) < 0 ||
            str_u64(dash ? dash + 1 : copy, PUBLIC_PORT_FIRST, UINT16_MAX, &last) < 0 ||
            last < first)
                return err_set(
                        e, -EINVAL,
                        "%s: '%.32s' is no range of ports within %u-65535, such as 20000-29999; none: no TCP port is published",
                        field, s ? s : "", PUBLIC_PORT_FIRST);
        *ret = (struct port_range){ (uint16_t) first, (uint16_t) last };
        return 0;
}
