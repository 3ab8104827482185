/* nft_cluster.c - see nft.h: a cluster as elements of sets, and what of it is in the kernel.  Operation
 * processes on the boot path, and the engine.  Always holds: what a cluster may do is there wholly or
 * not at all, so that its entry in `sources` tells of all of it. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/net/nft_priv.h"

/* Keys as the kernel lays them out: the parts of a concatenation are padded to four bytes each. */
struct source4 {
        char link[IFNAME_BYTES];
        uint8_t mac[6], pad[2];
        uint8_t addr[4];
};
struct source6 {
        char link[IFNAME_BYTES];
        uint8_t mac[6], pad[2];
        uint8_t addr[16];
};
struct member4 {
        uint8_t addr[4];
        uint32_t account;
};
struct member6 {
        uint8_t addr[16];
        uint32_t account;
};
static_assert(sizeof(struct source4) == 28 && sizeof(struct source6) == 40 &&
                      sizeof(struct member4) == 8 && sizeof(struct member6) == 20,
              "no holes");

struct keys {
        char link[IFNAME_BYTES];
        struct source4 source4;
        struct source6 source6;
        struct member4 member4;
        struct member6 member6;
};

void nft_copy_link(char to[static IFNAME_BYTES], const char *link)
{
        assert(strlen(link) < IFNAME_BYTES);
        memset(to, 0, IFNAME_BYTES);
        memcpy(to, link, strlen(link));
}

static void make_keys(const struct nft_cluster *c, struct keys *k)
{
        const uint32_t addr = htonl(c->addr);

        memset(k, 0, sizeof *k);
        nft_copy_link(k->link, c->link);
        memcpy(k->source4.link, k->link, sizeof k->link);
        memcpy(k->source4.mac, c->mac, sizeof k->source4.mac);
        memcpy(k->source4.addr, &addr, sizeof addr);
        memcpy(k->source6.link, k->link, sizeof k->link);
        memcpy(k->source6.mac, c->mac, sizeof k->source6.mac);
        memcpy(k->source6.addr, c->addr6, sizeof k->source6.addr);
        memcpy(k->member4.addr, &addr, sizeof addr);
        memcpy(k->member6.addr, c->addr6, sizeof k->member6.addr);
        k->member4.account = k->member6.account = c->account;
}

/* What every cluster has but its link; its account only where that is known. */
static void add_common(struct nl_batch *b, unsigned type, const char *table,
                       const struct nft_cluster *c, const struct keys *k)
{
        const uint32_t *mark = type == NFT_MSG_NEWSETELEM ? &c->account : NULL;
        const struct {
                const char *set;
                const void *key;
                size_t len;
                const uint32_t *mark;
                bool v6, account;
        } items[] = {
                { "sources", &k->source4, sizeof k->source4, NULL, false, false },
                { "sources6", &k->source6, sizeof k->source6, NULL, true, false },
                { "accounts", k->member4.addr, sizeof k->member4.addr, mark, false, true },
                { "accounts6", k->member6.addr, sizeof k->member6.addr, mark, true, true },
                { "members", &k->member4, sizeof k->member4, NULL, false, true },
                { "members6", &k->member6, sizeof k->member6, NULL, true, true },
        };

        for (size_t i = 0; i < NELEM(items); i++)
                if ((!items[i].v6 || c->v6) && (!items[i].account || c->account))
                        nft_element(b, type, table,
                                    &(struct nft_item){ .set = items[i].set,
                                                        .key = items[i].key,
                                                        .len = items[i].len,
                                                        .mark = items[i].mark });
}

int nft_link_add(struct nl_sock *s, const char *table, const char *link, struct err *e)
{
        char key[IFNAME_BYTES];
        struct nl_batch b;

        nft_copy_link(key, link);
        nft_begin(&b);
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "links", key, sizeof key);
        return nft_commit(s, &b, e);
}

int nft_link_del(struct nl_sock *s, const char *table, const char *link, struct err *e)
{
        char key[IFNAME_BYTES];
        struct nl_batch b;
        int r;

        nft_copy_link(key, link);
        nft_begin(&b);
        /* deleting what is not there would be an error, so it is there first */
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "links", key, sizeof key);
        nft_element_of(&b, NFT_MSG_DELSETELEM, table, "links", key, sizeof key);
        r = nft_commit(s, &b, e);
        return r == -ENOENT ? 0 : r; /* no table, no element */
}

int nft_cluster_add(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                    const struct dns_servers *dns, struct err *e)
{
        struct nl_batch b;
        struct keys k;

        make_keys(c, &k);
        nft_begin(&b);
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "links", k.link, sizeof k.link);
        add_common(&b, NFT_MSG_NEWSETELEM, table, c, &k);
        if (c->egress && c->egress->limited)
                nft_egress_add(&b, table, c);
        if (c->ports)
                nft_ports_add(&b, table, c);
        for (size_t i = 0; i < dns->n; i++) {
                uint32_t server = htonl(dns->addr[i]);

                nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "resolvers", &server, sizeof server);
        }
        return nft_commit(s, &b, e);
}

/* Sets that the rules fill by themselves: deleting what is not there would be an error. */
static void forget_counts(struct nl_batch *b, const char *table, const struct nft_cluster *c,
                          const struct keys *k)
{
        const struct {
                const char *set;
                const uint8_t *addr;
                size_t len;
        } items[] = {
                { "connections", k->member4.addr, sizeof k->member4.addr },
                { "asking", k->member4.addr, sizeof k->member4.addr },
                { "visitors", k->member4.addr, sizeof k->member4.addr },
                { "connections6", k->member6.addr, sizeof k->member6.addr },
                { "visitors6", k->member6.addr, sizeof k->member6.addr },
        };

        for (size_t i = 0; i < (c->v6 ? 5 : 3); i++) {
                nft_element_of(b, NFT_MSG_NEWSETELEM, table, items[i].set, items[i].addr,
                               items[i].len);
                nft_element_of(b, NFT_MSG_DELSETELEM, table, items[i].set, items[i].addr,
                               items[i].len);
        }
}

int nft_cluster_del(struct nl_sock *s, const char *table, const struct nft_cluster *given,
                    struct err *e)
{
        struct published ports = { .n = 0 }, ports6 = { .n = 0 };
        struct nft_cluster c = *given;
        struct nl_batch b;
        struct keys k;
        int r, limited;

        make_keys(&c, &k);
        r = nft_has(s, table, "sources", &k.source4, sizeof k.source4, e);
        if (r <= 0)
                return r;
        c.account = 0;
        r = nft_has(s, table, "sources6", &k.source6, sizeof k.source6, e);
        c.v6 = r > 0;
        if (r >= 0)
                r = nft_look_up(s, table, "accounts", k.member4.addr, sizeof k.member4.addr,
                                &c.account, e);
        if (r >= 0)
                r = limited = nft_egress_is(s, table, &c, e);
        if (r >= 0)
                r = nft_ports_of(s, table, &c, false, &ports, e);
        if (r >= 0)
                r = nft_ports_of(s, table, &c, true, &ports6, e);
        if (r < 0)
                return r;
        make_keys(&c, &k);
        nft_begin(&b);
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "released", k.member4.addr,
                       sizeof k.member4.addr);
        if (c.v6)
                nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "released6", k.member6.addr,
                               sizeof k.member6.addr);
        add_common(&b, NFT_MSG_DELSETELEM, table, &c, &k);
        forget_counts(&b, table, &c, &k);
        if (limited)
                nft_egress_del(&b, table, &c);
        nft_ports_del(&b, table, &c, &ports, &ports6);
        r = nft_commit(s, &b, e);
        return r == -ENOENT ? 0 : r; /* somebody was faster, or took the table away */
}

int nft_cluster_has6(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                     struct err *e)
{
        struct keys k;

        make_keys(c, &k);
        return nft_has(s, table, "sources6", &k.source6, sizeof k.source6, e);
}

int nft_cluster_has(struct nl_sock *s, const char *table, const struct nft_cluster *c,
                    struct err *e)
{
        struct keys k;

        make_keys(c, &k);
        return nft_has(s, table, "sources", &k.source4, sizeof k.source4, e);
}

/* ---- listings ---- */

static void keep_all(void *arg)
{
        (void) arg;
}

struct gather {
        struct nft_element *at;
        size_t n, cap;
};

static int keep_element(struct gather *g, const struct nft_element *el)
{
        if (g->n == g->cap) {
                size_t cap = g->cap ? g->cap * 2 : 32;
                struct nft_element *at = reallocarray(g->at, cap, sizeof *at);

                if (!at)
                        return -ENOMEM;
                g->at = at;
                g->cap = cap;
        }
        g->at[g->n++] = *el;
        return 0;
}

/* An older table may have none of the hardware address. */
static int keep_source(void *arg, const struct nft_item *it)
{
        struct nft_element el = { .addr = 0 };
        struct source4 key;
        uint32_t addr;

        if (it->len != sizeof key && it->len != sizeof key.link + sizeof key.addr)
                return 0;
        memcpy(key.link, it->key, sizeof key.link);
        memcpy(key.addr, (const uint8_t *) it->key + it->len - sizeof key.addr, sizeof key.addr);
        memcpy(el.link, key.link, sizeof el.link - 1);
        memcpy(&addr, key.addr, sizeof addr);
        el.addr = ntohl(addr);
        return keep_element(arg, &el);
}

static int keep_link(void *arg, const struct nft_item *it)
{
        struct gather *g = arg;
        struct nft_element el = { .addr = 0 };

        if (it->len != IFNAME_BYTES)
                return 0;
        memcpy(el.link, it->key, sizeof el.link - 1);
        for (size_t i = 0; i < g->n; i++)
                if (strcmp(g->at[i].link, el.link) == 0)
                        return 0; /* known with its address, or from a walk that is repeated */
        return keep_element(g, &el);
}

static int keep_source6(void *arg, const struct nft_item *it)
{
        struct gather *g = arg;
        struct source6 key;

        if (it->len != sizeof key)
                return 0;
        memcpy(&key, it->key, sizeof key);
        for (size_t i = 0; i < g->n; i++)
                if (strncmp(g->at[i].link, key.link, sizeof key.link) == 0) {
                        g->at[i].v6 = true;
                        memcpy(g->at[i].addr6, key.addr, sizeof key.addr);
                }
        return 0;
}

static void sources_again(void *arg)
{
        struct gather *g = arg;

        g->n = 0;
}

int nft_elements(struct nl_sock *s, const char *table, struct nft_element **ret, size_t *ret_n,
                 struct err *e)
{
        struct gather g = { .n = 0 };
        int r = nft_each(s, table, "sources", keep_source, sources_again, &g, e);

        if (r >= 0)
                r = nft_each(s, table, "sources6", keep_source6, keep_all, &g, e);
        if (r >= 0)
                r = nft_each(s, table, "links", keep_link, keep_all, &g, e);
        if (r < 0) {
                free(g.at);
                return r;
        }
        *ret = g.at;
        *ret_n = g.n;
        return 0;
}

struct numbers {
        uint32_t *at;
        size_t n, cap;
};

static int keep_number(void *arg, const struct nft_item *it)
{
        struct numbers *x = arg;

        if (it->len != sizeof *x->at)
                return 0;
        if (x->n == x->cap) {
                size_t cap = x->cap ? x->cap * 2 : 32;
                uint32_t *at = reallocarray(x->at, cap, sizeof *at);

                if (!at)
                        return -ENOMEM;
                x->at = at;
                x->cap = cap;
        }
        memcpy(&x->at[x->n++], it->key, sizeof *x->at);
        return 0;
}

static void numbers_again(void *arg)
{
        struct numbers *x = arg;

        x->n = 0;
}

int nft_numbers(struct nl_sock *s, const char *table, const char *set, uint32_t **ret,
                size_t *ret_n, struct err *e)
{
        struct numbers x = { .at = calloc(1, sizeof *x.at), .cap = 1 };
        int r = x.at ? nft_each(s, table, set, keep_number, numbers_again, &x, e)
                     : err_set(e, -ENOMEM, "list firewall set");

        if (r < 0) {
                free(x.at);
                return r;
        }
        *ret = x.at;
        *ret_n = x.n;
        return 0;
}

int nft_released(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n, struct err *e)
{
        int r = nft_numbers(s, table, "released", ret, ret_n, e);

        for (size_t i = 0; r >= 0 && i < *ret_n; i++)
                (*ret)[i] = ntohl((*ret)[i]);
        return r;
}

int nft_is_released(struct nl_sock *s, const char *table, uint32_t addr, struct err *e)
{
        uint32_t key = htonl(addr);

        return nft_has(s, table, "released", &key, sizeof key, e);
}

static void take_out(struct nl_batch *b, const char *table, const char *set, const void *key,
                     size_t len)
{
        nft_element_of(b, NFT_MSG_NEWSETELEM, table, set, key, len);
        nft_element_of(b, NFT_MSG_DELSETELEM, table, set, key, len);
}

int nft_released_del(struct nl_sock *s, const char *table, const struct nft_addr *addr, size_t n,
                     struct err *e)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n;) {
                struct nl_batch b;

                nft_begin(&b);
                for (; b.n + 5 <= NL_BATCH_MSGS && i < n; i++) {
                        uint32_t key = htonl(addr[i].v4);

                        take_out(&b, table, "released", &key, sizeof key);
                        if (addr[i].v6)
                                take_out(&b, table, "released6", addr[i].v6, 16);
                }
                r = nft_commit(s, &b, e);
        }
        return r == -ENOENT ? 0 : r;
}
