/* published.h - which port of the host's leads to which TCP port of a cluster, and the range that the
 * host's ports are taken from.  Pure. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/limits.h"

#define PUBLIC_PORT_FIRST 1024U /* those below belong to the host's own services */

struct port_pair {
        uint16_t inner, outer; /* the cluster's, the host's */
};

struct published {
        size_t n;
        struct port_pair at[LIMIT_PORTS]; /* no port twice on either side */
};

/* "22:20000 8000:20001", as rows, reports and orders have it; NULL and "" are none.  -EINVAL: not that. */
int published_parse(const char *s, struct published *ret, struct err *e);
char *published_format(const struct published *p); /* heap; NULL: out of memory */
/* The host's port for one of the cluster's; 0: none. */
uint16_t published_outer(const struct published *p, uint32_t inner);

struct port_range {
        uint16_t first, last; /* 0, 0: no port */
};

/* "20000-29999", one port alone, or "none" (or nothing).  -EINVAL names @field and the way out. */
int port_range_parse(const char *field, const char *s, struct port_range *ret, struct err *e);
