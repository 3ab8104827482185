/* nft_egress.c - see nft.h: a cluster's list of networks, as a chain of rules of its own.  Operation
 * processes on the boot path, and the engine.  Always holds: a chain is reached by its cluster's link
 * alone, comes with the rest of the cluster, and says "drop" behind the last network.
 *
 * Why rules, where all else is elements: to take an element out of an interval set of several parts the
 * kernel looks at all of them, 5 ms for each where 500 clusters have eight; a chain goes as one.  The rules
 * are what nft makes of "ip daddr NETWORK return", so that `nft list` shows them like that. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "engine/net/nft_priv.h"

#define OFFSET_DADDR4 16U /* in an IPv4 header, in an IPv6 header */
#define OFFSET_DADDR6 24U

void nft_egress_chain(uint32_t slot, char buf[static NFT_CHAIN_BYTES])
{
        (void) snprintf(buf, NFT_CHAIN_BYTES, NFT_EGRESS_PREFIX "%u", slot);
}

/* ---- expressions of a rule ---- */

static void put32(struct nl_batch *b, uint16_t type, uint32_t v)
{
        mnl_attr_put_u32(b->cur, type, htonl(v));
}

static void put_value(struct nl_batch *b, uint16_t type, const void *data, size_t len)
{
        struct nlattr *nest = mnl_attr_nest_start(b->cur, type);

        mnl_attr_put(b->cur, NFTA_DATA_VALUE, len, data);
        mnl_attr_nest_end(b->cur, nest);
}

struct expression {
        struct nlattr *one, *data;
};

static struct expression begin(struct nl_batch *b, const char *name)
{
        struct expression x = { .one = mnl_attr_nest_start(b->cur, NFTA_LIST_ELEM) };

        mnl_attr_put_strz(b->cur, NFTA_EXPR_NAME, name);
        x.data = mnl_attr_nest_start(b->cur, NFTA_EXPR_DATA);
        return x;
}

static void end(struct nl_batch *b, struct expression x)
{
        mnl_attr_nest_end(b->cur, x.data);
        mnl_attr_nest_end(b->cur, x.one);
}

static void compare(struct nl_batch *b, const void *data, size_t len)
{
        struct expression x = begin(b, "cmp");

        put32(b, NFTA_CMP_SREG, NFT_REG_1);
        put32(b, NFTA_CMP_OP, NFT_CMP_EQ);
        put_value(b, NFTA_CMP_DATA, data, len);
        end(b, x);
}

static void family_is(struct nl_batch *b, uint8_t family)
{
        struct expression x = begin(b, "meta");

        put32(b, NFTA_META_DREG, NFT_REG_1);
        put32(b, NFTA_META_KEY, NFT_META_NFPROTO);
        end(b, x);
        compare(b, &family, sizeof family);
}

static void load(struct nl_batch *b, uint32_t offset, uint32_t len)
{
        struct expression x = begin(b, "payload");

        put32(b, NFTA_PAYLOAD_DREG, NFT_REG_1);
        put32(b, NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER);
        put32(b, NFTA_PAYLOAD_OFFSET, offset);
        put32(b, NFTA_PAYLOAD_LEN, len);
        end(b, x);
}

static void mask(struct nl_batch *b, const uint8_t *bits, uint32_t len)
{
        static const uint8_t nothing[16];
        struct expression x = begin(b, "bitwise");

        put32(b, NFTA_BITWISE_SREG, NFT_REG_1);
        put32(b, NFTA_BITWISE_DREG, NFT_REG_1);
        put32(b, NFTA_BITWISE_LEN, len);
        put_value(b, NFTA_BITWISE_MASK, bits, len);
        put_value(b, NFTA_BITWISE_XOR, nothing, len);
        end(b, x);
}

/* Destinations in @n. */
static void goes_to(struct nl_batch *b, const struct network *n)
{
        uint8_t first[16], last[16], bits[16];
        uint32_t len = n->v6 ? 16 : 4, offset = n->v6 ? OFFSET_DADDR6 : OFFSET_DADDR4;

        family_is(b, n->v6 ? NFPROTO_IPV6 : NFPROTO_IPV4);
        if (n->bits == 0)
                return;
        network_ends(n, first, last);
        for (size_t i = 0; i < sizeof bits; i++)
                bits[i] = (uint8_t) ~(first[i] ^ last[i]);
        if (n->bits % 8 == 0) {
                load(b, offset, n->bits / 8);
                compare(b, first, n->bits / 8);
                return;
        }
        load(b, offset, len);
        mask(b, bits, len);
        compare(b, first, len);
}

static void verdict(struct nl_batch *b, int32_t code)
{
        struct expression x = begin(b, "immediate");
        struct nlattr *data, *nest;

        put32(b, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
        data = mnl_attr_nest_start(b->cur, NFTA_IMMEDIATE_DATA);
        nest = mnl_attr_nest_start(b->cur, NFTA_DATA_VERDICT);
        put32(b, NFTA_VERDICT_CODE, (uint32_t) code);
        mnl_attr_nest_end(b->cur, nest);
        mnl_attr_nest_end(b->cur, data);
        end(b, x);
}

/* ---- rules ---- */

/* @to: NULL: anywhere. */
static void add_rule(struct nl_batch *b, const char *table, const char *chain,
                     const struct network *to, int32_t code)
{
        struct nlattr *list;

        nft_message(b, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "firewall rule");
        mnl_attr_put_strz(b->cur, NFTA_RULE_TABLE, table);
        mnl_attr_put_strz(b->cur, NFTA_RULE_CHAIN, chain);
        list = mnl_attr_nest_start(b->cur, NFTA_RULE_EXPRESSIONS);
        if (to)
                goes_to(b, to);
        verdict(b, code);
        mnl_attr_nest_end(b->cur, list);
}

void nft_egress_add(struct nl_batch *b, const char *table, const struct nft_cluster *c)
{
        char chain[NFT_CHAIN_BYTES], link[IFNAME_BYTES];

        nft_egress_chain(c->slot, chain);
        nft_copy_link(link, c->link);
        nft_message(b, NFT_MSG_NEWCHAIN, NLM_F_CREATE, "firewall chain");
        mnl_attr_put_strz(b->cur, NFTA_CHAIN_TABLE, table);
        mnl_attr_put_strz(b->cur, NFTA_CHAIN_NAME, chain);
        nft_message(b, NFT_MSG_DELRULE, 0, "empty firewall chain");
        mnl_attr_put_strz(b->cur, NFTA_RULE_TABLE, table);
        mnl_attr_put_strz(b->cur, NFTA_RULE_CHAIN, chain);
        for (size_t i = 0; i < c->egress->n; i++)
                add_rule(b, table, chain, &c->egress->net[i], NFT_RETURN);
        add_rule(b, table, chain, NULL, NF_DROP);
        nft_element(b, NFT_MSG_NEWSETELEM, table,
                    &(struct nft_item){
                            .set = "limited", .key = link, .len = sizeof link, .jump = chain });
}

void nft_egress_del(struct nl_batch *b, const char *table, const struct nft_cluster *c)
{
        char chain[NFT_CHAIN_BYTES], link[IFNAME_BYTES];

        nft_egress_chain(c->slot, chain);
        nft_copy_link(link, c->link);
        nft_element_of(b, NFT_MSG_DELSETELEM, table, "limited", link, sizeof link);
        nft_message(b, NFT_MSG_DELCHAIN, 0, "firewall chain"); /* and the rules in it */
        mnl_attr_put_strz(b->cur, NFTA_CHAIN_TABLE, table);
        mnl_attr_put_strz(b->cur, NFTA_CHAIN_NAME, chain);
}

int nft_egress_change(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                      struct err *e)
{
        struct nl_batch b;
        int r = nft_egress_is(s, table, c, e);

        if (r < 0)
                return r;
        nft_begin(&b);
        if (c->egress && c->egress->limited)
                nft_egress_add(&b, table, c);
        else if (r > 0)
                nft_egress_del(&b, table, c);
        else
                return 0;
        return nft_commit(s, &b, e);
}

int nft_egress_is(struct nl_sock *s, const char *table, const struct nft_cluster *c, struct err *e)
{
        char link[IFNAME_BYTES];

        nft_copy_link(link, c->link);
        return nft_has(s, table, "limited", link, sizeof link, e);
}

static int on_rule(const struct nlmsghdr *h, void *arg)
{
        bool *any = arg;

        (void) h;
        *any = true;
        return MNL_CB_OK;
}

int nft_egress_holds(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                     struct err *e)
{
        char chain[NFT_CHAIN_BYTES];
        bool any = false;
        struct nl_batch b;
        int r = nft_egress_is(s, table, c, e);

        if (r <= 0)
                return r;
        nft_egress_chain(c->slot, chain);
        nl_batch_init(&b);
        nft_message(&b, NFT_MSG_GETRULE, NLM_F_DUMP, "list firewall rules");
        mnl_attr_put_strz(b.cur, NFTA_RULE_TABLE, table);
        mnl_attr_put_strz(b.cur, NFTA_RULE_CHAIN, chain);
        r = nl_query(s, &b, on_rule, &any, e);
        if (r == -EINTR) /* it changes now, so somebody is at it */
                return 1;
        return r < 0 ? r : any;
}
