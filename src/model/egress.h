/* egress.h - networks as people write them ("198.51.100.0/24", "2001:db8::/32"), and the list of those
 * that a cluster's traffic is limited to.  Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "model/limits.h"

#define NETWORK_TEXT 64U /* bytes that network_format() may write */

struct network {
        bool v6;
        uint8_t bits; /* of the prefix: 0..32 or 0..128 */
        uint8_t addr
                [16]; /* network byte order; IPv4 in the first four; bits behind the prefix are 0 */
};

/* "ADDRESS/BITS", or "ADDRESS" for that one alone; @len bytes of @s.  -EINVAL says why it is no network
 * and how it would be one. */
int network_parse(const char *field, const char *s, size_t len, struct network *ret, struct err *e);
/* Returns @buf. */
char *network_format(const struct network *n, char buf[static NETWORK_TEXT]);
/* Is all of @inner in @outer? */
bool network_holds(const struct network *outer, const struct network *inner);
/* Put @n into a list of @len networks, none within another: of two that overlap, which prefixes do only wholly, the
 * greater one stays.  -E2BIG: there are @max of them already; names @field and the way out. */
int network_keep(const char *field, const struct network *n, struct network *list, size_t *len,
                 size_t max, struct err *e);
/* The first and the last address; 4 or 16 bytes each. */
void network_ends(const struct network *n, uint8_t first[static 16], uint8_t last[static 16]);

/* Why no cluster ever reaches any of @n: "loopback", "link-local", ...; NULL: it may. */
const char *network_unreachable(const struct network *n);

/* What `egressAllow` says. */
struct egress {
        bool limited;                     /* false: all that is public */
        size_t n;                         /* limited and 0: nothing at all */
        struct network net[LIMIT_EGRESS]; /* none within another */
};

/* What stands for an empty list in a plan, where no list means no limit. */
#define EGRESS_NONE "none"

/* @list may be NULL (no limit).  -EINVAL and -E2BIG name @field, the entry and the way out. */
int egress_parse(const char *field, char *const *list, struct egress *ret, struct err *e);
