/* nft_rules.c - the rules of the table, as text that can be read and compared with `nft list`.
 * Engine process, at start only.  Everything that is formatted into the text comes from us:
 * the instance's id ([a-z0-9]) and addresses. */
#include <assert.h>
#include <errno.h>
#include <nftables/libnftables.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "engine/net/nft_priv.h"

#define NOBODY "::" /* an address that no packet goes to */
#define NAT64_OF_PRIVATE                                                                           \
        "{ 64:ff9b::/104, 64:ff9b::a00:0/104, 64:ff9b::6440:0/106, 64:ff9b::7f00:0/104, 64:ff9b::a9fe:0/112, 64:ff9b::ac10:0/108, 64:ff9b::c0a8:0/112, 64:ff9b::e000:0/99 }"

/* First declarations, which leave what exists alone; then the chains are emptied and refilled.  It
 * is one transaction, so no packet sees less than all of it, and elements stay.
 *
 * "hv*" are the links of clusters of all instances; the pattern stands only behind a test for one
 * of our own links, or for an address of the pool. */
static const char declarations[] =
        "table inet %s {\n"
        "  set links { type ifname; }\n"
        "  set sources { type ifname . ether_addr . ipv4_addr; }\n"
        "  set sources6 { type ifname . ether_addr . ipv6_addr; }\n"
        "  map accounts { type ipv4_addr : mark; }\n"
        "  map accounts6 { type ipv6_addr : mark; }\n"
        "  set members { type ipv4_addr . mark; }\n"
        "  set members6 { type ipv6_addr . mark; }\n"
        "  map limited { type ifname : verdict; }\n"
        "  set connections { type ipv4_addr; size 65535; flags dynamic; }\n"
        "  set connections6 { type ipv6_addr; size 65535; flags dynamic; }\n"
        "  set asking { type ipv4_addr; size 65535; flags dynamic; }\n"
        "  set released { type ipv4_addr; }\n"
        "  set released6 { type ipv6_addr; }\n"
        "  set resolvers { type ipv4_addr; }\n"
        "  set fetchers { type uid; }\n"
        "  set fetch_to4 { type ipv4_addr . inet_proto . inet_service; }\n"
        "  set fetch_to6 { type ipv6_addr . inet_proto . inet_service; }\n"
        "  map published { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"
        "  map published6 { type inet_proto . inet_service : ipv6_addr . inet_service; }\n"
        "  set publishers { type ifname; counter; }\n"
        "  set visitors { type ipv4_addr; size 65535; flags dynamic; }\n"
        "  set visitors6 { type ipv6_addr; size 65535; flags dynamic; }\n"
        "  chain %s { }\n"
        "  chain from_cluster { }\n"
        "  chain to_peer { }\n"
        "  chain leave_cluster { }\n"
        "  chain enter_cluster { }\n"
        "  chain no_link { }\n"
        "  chain from_fetcher { }\n"
        "  chain questions { type filter hook prerouting priority -300; policy accept; }\n"
        "  chain answers { type filter hook output priority -300; policy accept; }\n"
        "  chain early { type filter hook prerouting priority -150; policy accept; }\n"
        "  chain input { type filter hook input priority 0; policy accept; }\n"
        "  chain forward { type filter hook forward priority 0; policy accept; }\n"
        "  chain output { type filter hook output priority 0; policy accept; }\n"
        "  chain nat_in { type nat hook prerouting priority -100; policy accept; }\n"
        "  chain nat_here { type nat hook output priority -100; policy accept; }\n"
        "  chain nat_out { type nat hook postrouting priority 100; policy accept; }\n"
        "}\n";

static const char *const chains[] = { "questions",     "answers", "early",        "from_cluster",
                                      "to_peer",       "input",   "forward",      "leave_cluster",
                                      "enter_cluster", "output",  "from_fetcher", "nat_in",
                                      "nat_here",      "nat_out", "no_link" };

/* @names in the text are sets of the kernel; what stands in $(...) is filled in by nft_rules().
 *
 * Where a cluster may go: the host's service address, the name servers that it was told about, the
 * clusters of its account, whatever is public, and of what is private only what the operator opened;
 * of all but the first three only what its own list names, where it has one.  What answers at the service
 * address listens there alone: a program of the host's own that listens on every address, its web server
 * say, is none of it, also while nothing of ours runs.  The metadata services
 * of clouds are link-local, and stay out of reach whatever is opened. */
static const char rules[] =
        "table inet $(table) {\n"
        /* Names that are asked for at the service address take no place among a cluster's connections, nor in the
         * kernel's table of them, where each would stay for half a minute. */
        "  chain questions {\n"
        "    iifname @links ip daddr $(api) udp dport 53 notrack\n"
        "  }\n"
        "  chain answers {\n"
        "    ip saddr $(api) udp sport 53 notrack\n"
        "  }\n"
        "  chain early {\n"
        "    iifname @links jump from_cluster\n"
        "  }\n"
        /* Before any address is translated: what it asks for, not what another table makes of it.
         * Neighbour discovery comes from addresses that are in no set, so nobody learns from it. */
        "  chain from_cluster {\n"
        "    iifname . ether saddr . ip saddr != @sources drop comment \"spoofed\"\n"
        "    iifname . ether saddr . ip6 saddr != @sources6 drop comment \"spoofed\"\n"
        "$(questions)"
        "    ct state invalid drop\n"
        /* What it answers over published ports is counted at its element: use of it, for the idle stop. */
        "    ct status assured ct status dnat iifname @publishers\n"
        "    ct state established,related accept\n"
        "$(connections)"
        "    ip daddr $(api) meta l4proto . th dport { tcp . 80, tcp . 53, udp . 53 } accept comment \"api, names\"\n"
        "    ip daddr @resolvers meta l4proto { tcp, udp } th dport 53 accept\n"
        "    ip daddr $(pool) goto to_peer\n"
        "    ip6 daddr $(pool6) goto to_peer\n"
        "    meta nfproto ipv6 fib daddr type unreachable reject with icmpv6 type no-route comment \"the host has no IPv6\"\n"
        "    fib daddr type != unicast drop comment \"the host itself, broadcast, multicast\"\n"
        "    iifname vmap @limited comment \"egressAllow\"\n"
        "    ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 } drop\n"
        "    ip6 daddr { ::/96, ::ffff:0:0/96, fe80::/10, fec0::/10 } drop\n"
        "$(allow)"
        "    ip daddr { 10.0.0.0/8, 100.64.0.0/10, 172.16.0.0/12, 192.168.0.0/16 } drop comment \"the operator's networks\"\n"
        "    ip6 daddr { fc00::/7, 64:ff9b:1::/48, 2001::/32, 2002::/16 } drop comment \"the operator's networks, ways into IPv4\"\n"
        "    ip6 daddr " NAT64_OF_PRIVATE " drop comment \"NAT64 of those\"\n"
        "  }\n"
        /* The mark lives for these lines alone; whatever the packet had may not pass for a number. */
        "  chain to_peer {\n"
        "    meta mark set 0\n"
        "    meta mark set ip saddr map @accounts\n"
        "    meta mark set ip6 saddr map @accounts6\n"
        "    ip daddr . meta mark @members meta mark set 0 accept\n"
        "    ip6 daddr . meta mark @members6 meta mark set 0 accept\n"
        "    drop comment \"no way to another account's cluster\"\n"
        "  }\n"
        "  chain input {\n"
        "    iifname @links ct state established,related accept\n"
        "    iifname @links socket wildcard 1 drop\n"
        "    iifname @links ip daddr $(api) meta l4proto . th dport { tcp . 80, tcp . 53, udp . 53 } accept\n"
        "    iifname @links drop\n"
        "    ip daddr $(api) drop comment \"for clusters only\"\n"
        "    ip6 daddr $(api6) drop comment \"for clusters only\"\n"
        "  }\n"
        "  chain forward {\n"
        "    iifname @links jump leave_cluster\n"
        "    oifname @links jump enter_cluster\n"
        "    ip daddr @released oifname != \"hv*\" drop comment \"late answers\"\n"
        "    ip6 daddr @released6 oifname != \"hv*\" drop comment \"late answers\"\n"
        "    ip daddr $(pool) oifname != \"hv*\" jump no_link\n"
        "    ip6 daddr $(pool6) oifname != \"hv*\" jump no_link\n"
        "  }\n"
        /* The way to a cluster is its link.  Without one, as when its first process has just ended, a packet would follow the
         * host's default route, and whoever is there could answer in the cluster's name: to HAProxy, to who asks whether it is
         * ready, to who comes in over a published port. */
        "  chain no_link {\n"
        "    meta l4proto tcp reject with tcp reset\n"
        "    drop\n"
        "  }\n"
        "  chain leave_cluster {\n"
        "    oifname \"hv*\" ct state established,related accept\n"
        "    oifname \"hv*\" goto to_peer\n"
        "    tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu\n"
        "  }\n"
        "  chain enter_cluster {\n"
        "    ct state established,related accept\n"
        "$(visitors)"
        "    ct status dnat accept comment \"published\"\n"
        "    drop\n"
        "  }\n"
        /* vmm-fetch in the host's own network: 65,536 ids of each in `fetchers` by their first.  Name
         * servers and what the operator listed are in fetch_to; else it goes where fetch/addr.c says,
         * also when what runs there is no longer ours. */
        "  chain output {\n"
        "    meta skuid & 0xffff0000 @fetchers jump from_fetcher\n"
        "    ip daddr $(pool) oifname != \"lo\" oifname != \"hv*\" jump no_link\n"
        "    ip6 daddr $(pool6) oifname != \"lo\" oifname != \"hv*\" jump no_link\n"
        "  }\n"
        "  chain from_fetcher {\n"
        "    ip daddr . meta l4proto . th dport @fetch_to4 accept\n"
        "    ip6 daddr . meta l4proto . th dport @fetch_to6 accept\n"
        "    meta l4proto != tcp drop\n"
        "    fib daddr type != unicast drop comment \"the host itself, broadcast, multicast\"\n"
        "    ip daddr { 0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, 192.0.2.0/24, 192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 198.51.100.0/24, 203.0.113.0/24, 224.0.0.0/3 } drop\n"
        "    ip6 daddr { ::/96, 64:ff9b:1::/48, 100::/8, 2001::/32, 2001:20::/28, 2001:db8::/32, 2002::/16, 3fff::/20, 5f00::/16, fc00::/7, fe80::/10, fec0::/10, ff00::/8 } drop\n"
        "    ip6 daddr " NAT64_OF_PRIVATE " drop comment \"NAT64 of those\"\n"
        "  }\n"
        "}\n";

/* Ports of the host's, on all of its addresses, that lead to clusters; for programs of the host itself, too,
 * but not from loopback addresses: letting answers to these in from a cluster's link would take
 * route_localnet, and then this firewall alone would keep clusters from what listens there. */
static const char translations[] =
        "table inet $(table) {\n"
        "  chain nat_in {\n"
        "    fib daddr type local dnat ip to meta l4proto . th dport map @published\n"
        "    ip6 daddr != fe80::/10 fib daddr type local dnat ip6 to meta l4proto . th dport map @published6\n"
        "  }\n"
        "  chain nat_here {\n"
        "    ip daddr != 127.0.0.0/8 fib daddr type local dnat ip to meta l4proto . th dport map @published\n"
        "    ip6 daddr != { ::1, fe80::/10 } fib daddr type local dnat ip6 to meta l4proto . th dport map @published6\n"
        "  }\n"
        "  chain nat_out {\n"
        "    iifname @links oifname != \"hv*\" masquerade\n"
        "  }\n"
        "}\n";

/* One rule for each: ranges that overlap are no set. */
static void put_allow(struct strbuf *b, const struct nft_config *c)
{
        char net[NETWORK_TEXT];

        for (size_t i = 0; i < c->n_allow; i++)
                strbuf_fmt(b, "    %s daddr %s accept comment \"[network] allow\"\n",
                           c->allow[i].v6 ? "ip6" : "ip", network_format(&c->allow[i], net));
}

/* Packets of a connection that is known already, but was not answered yet, are counted with it. */
static void put_connections(struct strbuf *b, const struct nft_config *c)
{
        static const char *const family[][2] = { { "ip", "connections" },
                                                 { "ip6", "connections6" } };

        for (size_t i = 0; i < NELEM(family) && c->connections; i++)
                strbuf_fmt(b,
                           "    ct status ! confirmed add @%s { %s saddr ct count over %u } drop\n",
                           family[i][1], family[i][0], c->connections);
}

/* What comes in over published ports is counted apart: strangers do not use up what the cluster itself begins. */
static void put_visitors(struct strbuf *b, const struct nft_config *c)
{
        static const char *const family[][2] = { { "ip", "visitors" }, { "ip6", "visitors6" } };

        for (size_t i = 0; i < NELEM(family) && c->connections; i++)
                strbuf_fmt(
                        b,
                        "    ct status dnat ct status ! confirmed add @%s { %s daddr ct count over %u } drop\n",
                        family[i][1], family[i][0], c->connections);
}

/* A cluster's at the resolver, whose socket holds some hundreds.  Before what is known passes: questions from
 * one port are one connection. */
static void put_questions(struct strbuf *b, const struct nft_config *c)
{
        char text[IPV4_TEXT];

        strbuf_fmt(
                b,
                "    ip daddr %s udp dport 53 add @asking { ip saddr limit rate over 2000/second burst 1000 packets } drop\n",
                ipv4_format(c->service, text));
}

static void put_table(struct strbuf *b, const struct nft_config *c)
{
        strbuf_str(b, c->table);
}

static void put_api(struct strbuf *b, const struct nft_config *c)
{
        char text[IPV4_TEXT];

        strbuf_str(b, ipv4_format(c->service, text));
}

static void put_pool(struct strbuf *b, const struct nft_config *c)
{
        char text[IPV4_TEXT];

        strbuf_fmt(b, "%s/%u", ipv4_format(c->pool.base, text), c->pool.bits);
}

static void put_api6(struct strbuf *b, const struct nft_config *c)
{
        char text[IPV6_TEXT];

        strbuf_str(b, c->pool6.on ? ipv6_format(c->service6, text) : NOBODY);
}

static void put_pool6(struct strbuf *b, const struct nft_config *c)
{
        uint8_t base[IPV6_BYTES] = { 0 };
        char text[IPV6_TEXT];

        memcpy(base, c->pool6.prefix, sizeof c->pool6.prefix);
        if (c->pool6.on)
                strbuf_fmt(b, "%s/64", ipv6_format(base, text));
        else
                strbuf_str(b, NOBODY);
}

static const struct {
        const char *name;
        void (*put)(struct strbuf *b, const struct nft_config *c);
} fillings[] = {
        { "table)", put_table },
        { "api)", put_api },
        { "api6)", put_api6 },
        { "pool)", put_pool },
        { "pool6)", put_pool6 },
        { "allow)", put_allow },
        { "connections)", put_connections },
        { "visitors)", put_visitors },
        { "questions)", put_questions },
};

static void put_rules(struct strbuf *b, const struct nft_config *c, const char *at)
{
        const char *next;

        while ((next = strstr(at, "$("))) {
                strbuf_add(b, at, (size_t) (next - at));
                for (size_t i = 0; i < NELEM(fillings); i++)
                        if ((at = str_after(next + 2, fillings[i].name))) {
                                fillings[i].put(b, c);
                                break;
                        }
                assert(at);
        }
        strbuf_str(b, at);
}

void nft_layout_chain(char buf[static NFT_CHAIN_BYTES])
{
        uint32_t n = 2166136261U;

        for (const char *s = declarations; *s; s++)
                n = (n ^ (uint8_t) *s) * 16777619U;
        (void) snprintf(buf, NFT_CHAIN_BYTES, "layout_%08x", n);
}

char *nft_rules(const struct nft_config *c)
{
        char layout[NFT_CHAIN_BYTES];
        struct strbuf b = { 0 };

        nft_layout_chain(layout);
        if (c->anew)
                strbuf_fmt(&b, "delete table inet %s\n", c->table);
        strbuf_fmt(&b, declarations, c->table, layout);
        for (size_t i = 0; i < NELEM(chains); i++)
                strbuf_fmt(&b, "flush chain inet %s %s\n", c->table, chains[i]);
        put_rules(&b, c, rules);
        put_rules(&b, c, translations);
        if (c->anew)
                nft_put_clusters(&b, c);
        return strbuf_take(&b);
}

static inline void nft_ctx_free_cleanup(struct nft_ctx **c)
{
        if (*c)
                nft_ctx_free(*c);
}

int nft_rules_apply(const struct nft_config *c, struct err *e)
{
        AUTO(free) char *text = nft_rules(c);
        AUTO(nft_ctx_free) struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT);
        const char *why;

        if (!text || !ctx || nft_ctx_buffer_error(ctx) != 0 || nft_ctx_buffer_output(ctx) != 0)
                return err_set(e, -ENOMEM, "firewall table %s", c->table);
        if (nft_run_cmd_from_buffer(ctx, text) == 0)
                return 0;
        why = nft_ctx_get_error_buffer(ctx);
        return err_set(e, -EIO, "firewall table %s: %.*s", c->table,
                       why ? (int) strcspn(why, "\n") : 0, why ? why : "");
}
