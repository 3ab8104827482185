/* dns.h - which name servers a cluster is told about, and the resolv.conf that says so. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define DNS_MAX 3U /* as many as a resolver looks at */

struct dns_servers {
        uint32_t addr[DNS_MAX]; /* IPv4, host byte order */
        size_t n;
        bool stub; /* 127.0.0.53 was among those left out: systemd-resolved knows the real ones */
};

/* The `[network] dns` option: addresses separated by commas.  -EINVAL names the bad one; -E2BIG;
 * more than DNS_MAX.  Loopback and the like are refused: nothing answers there inside. */
int dns_parse_option(const char *list, struct dns_servers *ret, struct err *e);

/* A resolv.conf.  What a cluster cannot reach (loopback, IPv6) is left out; other lines ignored:
 * the host's search domains are nobody's business. */
void dns_parse_resolv(const char *text, struct dns_servers *ret);

/* Drop the servers for which @fn is true. */
typedef bool dns_drop_fn(void *arg, uint32_t addr);
void dns_drop(struct dns_servers *s, dns_drop_fn *fn, void *arg);

/* Read @etc, or @upstream when @etc names only the stub of systemd-resolved.  A missing file is an
 * empty one. */
int dns_load(const char *etc, const char *upstream, struct dns_servers *ret, struct err *e);

/* Where a resolver on the host itself asks: the addresses of the `[network] dns` option, or when that is
 * empty of the resolv.conf @etc, loopback and IPv6 among them; strings, DNS_MAX at most.  NULL: *e. */
json_t *dns_upstreams(const char *option, const char *etc, struct err *e);

/* Content of a cluster's /etc/resolv.conf; heap; NULL: out of memory. */
char *dns_render(const struct dns_servers *s);
