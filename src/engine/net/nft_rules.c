/* nft_rules.c - the rules of the table, as text that can be read and compared with `nft list`.
 * Engine process, at start only.  Everything that is formatted into the text comes from us:
 * the instance's id ([a-z0-9]) and addresses. */
#include <errno.h>
#include <nftables/libnftables.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "engine/net/nft.h"

/* First declarations, which leave what exists alone; then the chains are emptied and refilled.  It
 * is one transaction, so no packet sees less than all of it, and elements stay.
 *
 * "hv*" are the links of clusters of all instances; the pattern stands only behind a test for one
 * of our own links. */
static const char declarations[] =
        "table inet %s {\n"
        "  set links { type ifname; }\n"
        "  set sources { type ifname . ipv4_addr; }\n"
        "  set released { type ipv4_addr; }\n"
        "  set resolvers { type ipv4_addr; }\n"
        "  set fetchers { type uid; }\n"
        "  set fetch_to4 { type ipv4_addr . inet_proto . inet_service; }\n"
        "  set fetch_to6 { type ipv6_addr . inet_proto . inet_service; }\n"
        "  map published { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
        "  chain from_cluster { }\n"
        "  chain leave_cluster { }\n"
        "  chain enter_cluster { }\n"
        "  chain from_fetcher { }\n"
        "  chain early { type filter hook prerouting priority -150; policy accept; }\n"
        "  chain input { type filter hook input priority 0; policy accept; }\n"
        "  chain forward { type filter hook forward priority 0; policy accept; }\n"
        "  chain output { type filter hook output priority 0; policy accept; }\n"
        "  chain nat_in { type nat hook prerouting priority -100; policy accept; }\n"
        "  chain nat_out { type nat hook postrouting priority 100; policy accept; }\n"
        "}\n";

static const char *const chains[] = { "early",         "from_cluster",  "input",  "forward",
                                      "leave_cluster", "enter_cluster", "output", "from_fetcher",
                                      "nat_in",        "nat_out" };

/* Arguments: table, service address, pool (address, bits), what is allowed, service address twice.
 *
 * Where a cluster may go: the name servers that it was told about, whatever is public, and of what
 * is private only what the operator opened.  The metadata services of clouds are link-local, and
 * stay out of reach whatever is opened. */
static const char rules[] =
        "table inet %s {\n"
        "  chain early {\n"
        "    iifname @links jump from_cluster\n"
        "  }\n"
        /* Before any address is translated: what it asks for, not what another table makes of it */
        "  chain from_cluster {\n"
        "    meta nfproto != ipv4 drop comment \"no IPv6 yet, so no way around\"\n"
        "    iifname . ip saddr != @sources drop comment \"spoofed\"\n"
        "    ct state invalid drop\n"
        "    ct state established,related accept\n"
        "    ip daddr %s tcp dport 80 accept comment \"api.internal\"\n"
        "    ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept\n"
        "    fib daddr type != unicast drop comment \"the host itself, broadcast, multicast\"\n"
        "    ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, %s/%u } drop\n"
        "%s"
        "    ip daddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop comment \"the operator's networks\"\n"
        "  }\n"
        "  chain input {\n"
        "    iifname @links ct state established,related accept\n"
        "    iifname @links ip daddr %s tcp dport 80 accept\n"
        "    iifname @links drop\n"
        "    ip daddr %s drop comment \"for clusters only\"\n"
        "  }\n"
        "  chain forward {\n"
        "    iifname @links jump leave_cluster\n"
        "    oifname @links jump enter_cluster\n"
        "    ip daddr @released oifname != \"hv*\" drop comment \"late answers to a cluster that is gone\"\n"
        "  }\n"
        "  chain leave_cluster {\n"
        "    meta nfproto != ipv4 drop\n"
        "    oifname \"hv*\" drop comment \"no way from cluster to cluster\"\n"
        "    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n"
        "  }\n"
        "  chain enter_cluster {\n"
        "    meta nfproto != ipv4 drop\n"
        "    ct state established,related accept\n"
        "    ct status dnat accept comment \"published\"\n"
        "    drop\n"
        "  }\n"
        /* vmm-fetch in the host's own network: 65,536 ids of each in `fetchers` by their first.  Name
         * servers and what the operator listed are in fetch_to; else it goes where fetch/addr.c says,
         * also when what runs there is no longer ours. */
        "  chain output {\n"
        "    meta skuid & 0xffff0000 @fetchers jump from_fetcher\n"
        "  }\n"
        "  chain from_fetcher {\n"
        "    ip daddr . meta l4proto . th dport @fetch_to4 accept\n"
        "    ip6 daddr . meta l4proto . th dport @fetch_to6 accept\n"
        "    meta l4proto != tcp drop\n"
        "    fib daddr type != unicast drop comment \"the host itself, broadcast, multicast\"\n"
        "    ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3 } drop\n"
        "    ip6 daddr { ::/96, 64:ff9b:1::/48, 100::/8, 2001::/32, 2001:20::/28, 2001:db8::/32, 2002::/16, 3fff::/20, 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8 } drop\n"
        "    ip6 daddr { 64:ff9b::/104, 64:ff9b::a00:0/104, 64:ff9b::6440:0/106, 64:ff9b::7f00:0/104, 64:ff9b::a9fe:0/112, 64:ff9b::ac10:0/108, 64:ff9b::c0a8:0/112, 64:ff9b::e000:0/99 } drop comment \"NAT64 of those\"\n"
        "  }\n"
        "  chain nat_in {\n"
        "    fib daddr type local dnat ip to meta l4proto . th dport map @published\n"
        "  }\n"
        "  chain nat_out {\n"
        "    iifname @links oifname != \"hv*\" masquerade\n"
        "  }\n"
        "}\n";

/* One rule for each: ranges that overlap are no set. */
static char *allowed(const struct ipv4_nets *allow)
{
        struct strbuf b = { 0 };
        char base[IPV4_TEXT];

        for (size_t i = 0; i < allow->n; i++)
                strbuf_fmt(&b, "    ip daddr %s/%u accept comment \"[network] allow\"\n",
                           ipv4_format(allow->net[i].base, base), allow->net[i].bits);
        return strbuf_take(&b);
}

char *nft_rules(const char *table, const struct ipv4_pool *pool, uint32_t service,
                const struct ipv4_nets *allow)
{
        AUTO(free) char *open = allowed(allow);
        char api[IPV4_TEXT], base[IPV4_TEXT];
        struct strbuf b = { 0 };

        if (!open)
                return NULL;

        ipv4_format(service, api);
        ipv4_format(pool->base, base);
        strbuf_fmt(&b, declarations, table);
        for (size_t i = 0; i < NELEM(chains); i++)
                strbuf_fmt(&b, "flush chain inet %s %s\n", table, chains[i]);
        strbuf_fmt(&b, rules, table, api, base, pool->bits, open, api, api);
        return strbuf_take(&b);
}

static inline void nft_ctx_free_cleanup(struct nft_ctx **c)
{
        if (*c)
                nft_ctx_free(*c);
}

int nft_rules_apply(const char *table, const struct ipv4_pool *pool, uint32_t service,
                    const struct ipv4_nets *allow, struct err *e)
{
        AUTO(free) char *text = nft_rules(table, pool, service, allow);
        AUTO(nft_ctx_free) struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
        const char *why;

        if (!text || !ctx || nft_ctx_buffer_error(ctx) != 0 || nft_ctx_buffer_output(ctx) != 0)
                return err_set(e, -ENOMEM, "firewall table %s", table);
        if (nft_run_cmd_from_buffer(ctx, text) == 0)
                return 0;
        why = nft_ctx_get_error_buffer(ctx);
        return err_set(e, -EIO, "firewall table %s: %.*s", table,
                       why ? (int) strcspn(why, "\n") : 0, why ? why : "");
}
