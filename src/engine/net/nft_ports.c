/* nft_ports.c - see nft.h and nft_priv.h: a cluster's published ports as elements of the maps.  Operation
 * processes, but for nft_ports_bytes().  Always holds: whoever is in one of the maps has its link in
 * `publishers`, so that taking away a cluster without any costs one question. */
#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#include "base/mem.h"
#include "engine/net/nft_priv.h"

/* As concatenations have them: the parts are padded to four bytes each. */
struct outer {
        uint8_t proto, pad[3];
        uint16_t port, pad2;
};
struct inner4 {
        uint8_t addr[4];
        uint16_t port, pad;
};
struct inner6 {
        uint8_t addr[IPV6_BYTES];
        uint16_t port, pad;
};
static_assert(sizeof(struct outer) == 8 && sizeof(struct inner4) == 8 &&
                      sizeof(struct inner6) == 20,
              "no holes");

#define PER_MESSAGE 6U /* elements: 56 bytes each in NL_MSG_BYTES */

static const char *map_of(bool v6)
{
        return v6 ? "published6" : "published";
}

static struct outer outer_of(const struct port_pair *p)
{
        return (struct outer){ .proto = IPPROTO_TCP, .port = htons(p->outer) };
}

static struct inner4 inner4_of(const struct nft_cluster *c, const struct port_pair *p)
{
        struct inner4 in = { .port = htons(p->inner) };
        uint32_t addr = htonl(c->addr);

        memcpy(in.addr, &addr, sizeof addr);
        return in;
}

static struct inner6 inner6_of(const struct nft_cluster *c, const struct port_pair *p)
{
        struct inner6 in = { .port = htons(p->inner) };

        memcpy(in.addr, c->addr6, sizeof in.addr);
        return in;
}

static void put_map(struct nl_batch *b, unsigned type, const char *table,
                    const struct nft_cluster *c, bool v6, const struct published *ports)
{
        for (size_t i = 0; i < ports->n; i += PER_MESSAGE) {
                struct nft_item it[PER_MESSAGE] = { 0 };
                struct outer key[PER_MESSAGE];
                struct inner4 in4[PER_MESSAGE];
                struct inner6 in6[PER_MESSAGE];
                size_t n = 0;

                for (; n < PER_MESSAGE && i + n < ports->n; n++) {
                        const struct port_pair *p = &ports->at[i + n];

                        key[n] = outer_of(p);
                        in4[n] = inner4_of(c, p);
                        in6[n] = inner6_of(c, p);
                        it[n] = (struct nft_item){ .set = map_of(v6),
                                                   .key = &key[n],
                                                   .len = sizeof key[n],
                                                   .data = v6 ? (const void *) &in6[n] : &in4[n],
                                                   .data_len = v6 ? sizeof in6[n] : sizeof in4[n] };
                }
                nft_element_some(b, type, table, it, n);
        }
}

static void put_publisher(struct nl_batch *b, unsigned type, const char *table,
                          const struct nft_cluster *c)
{
        char link[IFNAME_BYTES];

        nft_copy_link(link, c->link);
        nft_element_of(b, type, table, "publishers", link, sizeof link);
}

void nft_ports_add(struct nl_batch *b, const char *table, const struct nft_cluster *c)
{
        if (c->ports->n == 0)
                return;
        put_publisher(b, NFT_MSG_NEWSETELEM, table, c);
        put_map(b, NFT_MSG_NEWSETELEM, table, c, false, c->ports);
        if (c->v6)
                put_map(b, NFT_MSG_NEWSETELEM, table, c, true, c->ports);
}

void nft_ports_del(struct nl_batch *b, const char *table, const struct nft_cluster *c,
                   const struct published *v4, const struct published *v6)
{
        if (v4->n == 0 && v6->n == 0)
                return;
        put_publisher(b, NFT_MSG_NEWSETELEM, table, c); /* deleting what is not there is an error */
        put_publisher(b, NFT_MSG_DELSETELEM, table, c);
        put_map(b, NFT_MSG_DELSETELEM, table, c, false, v4);
        put_map(b, NFT_MSG_DELSETELEM, table, c, true, v6);
}

struct search {
        const struct nft_cluster *c;
        bool v6;
        struct published found;
};

static int keep_own(void *arg, const struct nft_item *it)
{
        struct search *w = arg;
        struct inner6 in = { .port = 0 };
        struct outer out;

        if (it->len != sizeof out || w->found.n == NELEM(w->found.at))
                return 0;
        memcpy(&out, it->key, sizeof out);
        if (w->v6 && it->data_len == sizeof in) {
                memcpy(&in, it->data, sizeof in);
                if (memcmp(in.addr, w->c->addr6, sizeof in.addr) != 0)
                        return 0;
        } else if (!w->v6 && it->data_len == sizeof(struct inner4)) {
                struct inner4 in4;
                uint32_t addr = htonl(w->c->addr);

                memcpy(&in4, it->data, sizeof in4);
                if (memcmp(in4.addr, &addr, sizeof addr) != 0)
                        return 0;
                in.port = in4.port;
        } else {
                return 0;
        }
        w->found.at[w->found.n++] = (struct port_pair){ ntohs(in.port), ntohs(out.port) };
        return 0;
}

/* All of those that it is known to have, by their keys: the price is theirs, not the host's. */
static int find_known(struct nl_sock *s, const char *table, struct search *w, struct err *e)
{
        const struct published *known = w->c->ports;
        int r = 1;

        if (!known || known->n == 0)
                return 0;
        for (size_t i = 0; r > 0 && i < known->n; i++) {
                struct outer key = outer_of(&known->at[i]);

                r = nft_get(s, table, map_of(w->v6), &key, sizeof key, keep_own, w, e);
        }
        return r > 0 ? w->found.n == known->n : r;
}

static void search_again(void *arg)
{
        struct search *w = arg;

        w->found.n = 0;
}

int nft_ports_of(struct nl_sock *s, const char *table, const struct nft_cluster *c, bool v6,
                 struct published *ret, struct err *e)
{
        struct search w = { .c = c, .v6 = v6 };
        char link[IFNAME_BYTES];
        int r;

        nft_copy_link(link, c->link);
        r = nft_has(s, table, "publishers", link, sizeof link, e);

        if (r > 0) {
                r = find_known(s, table, &w, e);
                r = r < 0 ? r : r == 0;
        }
        if (r > 0)
                r = nft_each(s, table, map_of(v6), keep_own, search_again, &w, e);
        if (r < 0)
                return r;
        *ret = w.found;
        return 0;
}

static int take_bytes(void *arg, const struct nft_item *it)
{
        uint64_t *bytes = arg;

        *bytes = it->bytes;
        return 0;
}

int nft_ports_bytes(struct nl_sock *s, const char *table, const char *link, uint64_t *ret,
                    struct err *e)
{
        char key[IFNAME_BYTES];

        nft_copy_link(key, link);
        return nft_get(s, table, "publishers", key, sizeof key, take_bytes, ret, e);
}
