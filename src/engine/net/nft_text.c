/* nft_text.c - see nft_priv.h: clusters as text, where they have to come in one transaction with the rules.
 * Engine process, at start only.  Always holds: it says what nft_cluster.c and nft_egress.c say to the
 * kernel; a test compares the two. */
#include <stdio.h>

#include "base/str.h"
#include "engine/net/nft_priv.h"

static void put_link(struct strbuf *b, const struct nft_cluster *c)
{
        strbuf_fmt(b, "\"%s\"", c->link);
}

static void put_addr(struct strbuf *b, const struct nft_cluster *c)
{
        char text[IPV4_TEXT];

        strbuf_str(b, ipv4_format(c->addr, text));
}

static void put_addr6(struct strbuf *b, const struct nft_cluster *c)
{
        char text[IPV6_TEXT];

        strbuf_str(b, ipv6_format(c->addr6, text));
}

static void put_card(struct strbuf *b, const struct nft_cluster *c)
{
        strbuf_fmt(b, "\"%s\" . %02x:%02x:%02x:%02x:%02x:%02x . ", c->link, c->mac[0], c->mac[1],
                   c->mac[2], c->mac[3], c->mac[4], c->mac[5]);
}

static void put_source(struct strbuf *b, const struct nft_cluster *c)
{
        put_card(b, c);
        put_addr(b, c);
}

static void put_source6(struct strbuf *b, const struct nft_cluster *c)
{
        put_card(b, c);
        put_addr6(b, c);
}

static void put_account(struct strbuf *b, const struct nft_cluster *c)
{
        put_addr(b, c);
        strbuf_fmt(b, " : %u", c->account);
}

static void put_account6(struct strbuf *b, const struct nft_cluster *c)
{
        put_addr6(b, c);
        strbuf_fmt(b, " : %u", c->account);
}

static void put_member(struct strbuf *b, const struct nft_cluster *c)
{
        put_addr(b, c);
        strbuf_fmt(b, " . %u", c->account);
}

static void put_member6(struct strbuf *b, const struct nft_cluster *c)
{
        put_addr6(b, c);
        strbuf_fmt(b, " . %u", c->account);
}

static void put_limited(struct strbuf *b, const struct nft_cluster *c)
{
        char chain[NFT_CHAIN_BYTES];

        nft_egress_chain(c->slot, chain);
        strbuf_fmt(b, "\"%s\" : jump %s", c->link, chain);
}

static void put_ports(struct strbuf *b, const struct nft_cluster *c,
                      void (*addr)(struct strbuf *b, const struct nft_cluster *c))
{
        for (size_t i = 0; i < c->ports->n; i++) {
                strbuf_fmt(b, "%stcp . %u : ", i ? ", " : "", c->ports->at[i].outer);
                addr(b, c);
                strbuf_fmt(b, " . %u", c->ports->at[i].inner);
        }
}

static void put_published(struct strbuf *b, const struct nft_cluster *c)
{
        put_ports(b, c, put_addr);
}

static void put_published6(struct strbuf *b, const struct nft_cluster *c)
{
        put_ports(b, c, put_addr6);
}

static bool any(const struct nft_cluster *c)
{
        (void) c;
        return true;
}

static bool is_open(const struct nft_cluster *c)
{
        return !c->closed;
}

static bool is_open6(const struct nft_cluster *c)
{
        return !c->closed && c->v6;
}

static bool is_ours(const struct nft_cluster *c)
{
        return !c->closed && c->account;
}

static bool is_ours6(const struct nft_cluster *c)
{
        return is_ours(c) && c->v6;
}

static bool is_limited(const struct nft_cluster *c)
{
        return !c->closed && c->egress && c->egress->limited;
}

static bool is_published(const struct nft_cluster *c)
{
        return !c->closed && c->ports && c->ports->n > 0;
}

static bool is_published6(const struct nft_cluster *c)
{
        return is_published(c) && c->v6;
}

static const struct {
        const char *set;
        bool (*has)(const struct nft_cluster *c);
        void (*put)(struct strbuf *b, const struct nft_cluster *c);
} sets[] = {
        { "links", any, put_link },
        { "sources", is_open, put_source },
        { "sources6", is_open6, put_source6 },
        { "accounts", is_ours, put_account },
        { "accounts6", is_ours6, put_account6 },
        { "members", is_ours, put_member },
        { "members6", is_ours6, put_member6 },
        { "limited", is_limited, put_limited },
        { "publishers", is_published, put_link },
        { "published", is_published, put_published },
        { "published6", is_published6, put_published6 },
};

static void put_list(struct strbuf *b, const char *table, const struct nft_cluster *c)
{
        char chain[NFT_CHAIN_BYTES], net[NETWORK_TEXT];

        nft_egress_chain(c->slot, chain);
        strbuf_fmt(b, "add chain inet %s %s\n", table, chain);
        for (size_t i = 0; i < c->egress->n; i++) {
                const struct network *n = &c->egress->net[i];

                strbuf_fmt(b, "add rule inet %s %s ", table, chain);
                if (n->bits > 0)
                        strbuf_fmt(b, "%s daddr %s return\n", n->v6 ? "ip6" : "ip",
                                   network_format(n, net));
                else
                        strbuf_fmt(b, "meta nfproto %s return\n", n->v6 ? "ipv6" : "ipv4");
        }
        strbuf_fmt(b, "add rule inet %s %s drop\n", table, chain);
}

static void put_resolvers(struct strbuf *b, const struct nft_config *c)
{
        char text[IPV4_TEXT];

        for (size_t i = 0; c->dns && i < c->dns->n; i++)
                strbuf_fmt(b, "add element inet %s resolvers { %s }\n", c->table,
                           ipv4_format(c->dns->addr[i], text));
}

void nft_put_clusters(struct strbuf *b, const struct nft_config *c)
{
        for (size_t i = 0; i < c->n_clusters; i++)
                if (is_limited(&c->clusters[i]))
                        put_list(b, c->table, &c->clusters[i]);
        for (size_t s = 0; s < NELEM(sets); s++) {
                size_t n = 0;

                for (size_t i = 0; i < c->n_clusters; i++) {
                        if (!sets[s].has(&c->clusters[i]))
                                continue;
                        if (n++ > 0)
                                strbuf_str(b, ", ");
                        else
                                strbuf_fmt(b, "add element inet %s %s { ", c->table, sets[s].set);
                        sets[s].put(b, &c->clusters[i]);
                }
                if (n > 0)
                        strbuf_str(b, " }\n");
        }
        put_resolvers(b, c);
}
