/* nft.c - see nft.h: elements of the table's sets, by netlink.  Operation processes on the boot
 * path, and the engine.  Always holds: a change is one transaction, all of it or nothing. */
#include "engine/net/nft.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/str.h"

#define IFNAME_BYTES 16U /* type ifname: padded with zeros */

static void *add_message(struct nl_batch *b, unsigned type, uint8_t family, unsigned flags,
                         uint16_t resource, const char *what)
{
        struct nfgenmsg *nf = nl_add(b, type, flags, sizeof *nf, what, 0);

        nf->nfgen_family = family;
        nf->version = NFNETLINK_V0;
        nf->res_id = htons(resource);
        return nf;
}

static void add_table_message(struct nl_batch *b, unsigned type, unsigned flags, const char *what)
{
        (void) add_message(b, NFNL_SUBSYS_NFTABLES << 8 | type, NFPROTO_INET, flags, 0, what);
}

static void begin(struct nl_batch *b)
{
        nl_batch_init(b);
        b->atomic = true;
        (void) add_message(b, NFNL_MSG_BATCH_BEGIN, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES, "nftables");
}

static int commit(struct nl_sock *s, struct nl_batch *b, struct err *e)
{
        (void) add_message(b, NFNL_MSG_BATCH_END, AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES, "nftables");
        return nl_commit(s, b, e);
}

static void put_element(struct nl_batch *b, const char *table, const char *set, const void *key,
                        size_t len)
{
        struct nlattr *list, *one, *k;

        mnl_attr_put_strz(b->cur, NFTA_SET_ELEM_LIST_TABLE, table);
        mnl_attr_put_strz(b->cur, NFTA_SET_ELEM_LIST_SET, set);
        list = mnl_attr_nest_start(b->cur, NFTA_SET_ELEM_LIST_ELEMENTS);
        one = mnl_attr_nest_start(b->cur, NFTA_LIST_ELEM);
        k = mnl_attr_nest_start(b->cur, NFTA_SET_ELEM_KEY);
        mnl_attr_put(b->cur, NFTA_DATA_VALUE, len, key);
        mnl_attr_nest_end(b->cur, k);
        mnl_attr_nest_end(b->cur, one);
        mnl_attr_nest_end(b->cur, list);
}

static void add_element(struct nl_batch *b, unsigned type, const char *table, const char *set,
                        const void *key, size_t len)
{
        add_table_message(b, type, type == NFT_MSG_NEWSETELEM ? NLM_F_CREATE : 0,
                          "firewall set element");
        put_element(b, table, set, key, len);
}

static int no_answer(const struct nlmsghdr *h, void *arg)
{
        (void) h, (void) arg;
        return MNL_CB_OK;
}

/* 1: the set has it; 0: it has not, or there is no such set. */
static int has_element(struct nl_sock *s, const char *table, const char *set, const void *key,
                       size_t len, struct err *e)
{
        struct nl_batch b;
        int r;

        nl_batch_init(&b);
        add_table_message(&b, NFT_MSG_GETSETELEM, 0, "look up firewall set element");
        put_element(&b, table, set, key, len);
        r = nl_query(s, &b, no_answer, NULL, e);
        return r == -ENOENT ? 0 : r < 0 ? r : 1;
}

/* The keys of one cluster. */
struct keys {
        char link[IFNAME_BYTES];
        struct {
                char link[IFNAME_BYTES];
                uint32_t addr; /* network byte order */
        } source;
};

static void make_keys(struct keys *k, const char *link, uint32_t addr)
{
        assert(strlen(link) < IFNAME_BYTES);
        memset(k, 0, sizeof *k);
        memcpy(k->link, link, strlen(link));
        memcpy(k->source.link, k->link, sizeof k->link);
        k->source.addr = htonl(addr);
}

int nft_link_add(struct nl_sock *s, const char *table, const char *link, struct err *e)
{
        struct nl_batch b;
        struct keys k;

        make_keys(&k, link, 0);
        begin(&b);
        add_element(&b, NFT_MSG_NEWSETELEM, table, "links", k.link, sizeof k.link);
        return commit(s, &b, e);
}

int nft_source_add(struct nl_sock *s, const char *table, const char *link, uint32_t addr,
                   const struct dns_servers *dns, struct err *e)
{
        struct nl_batch b;
        struct keys k;

        make_keys(&k, link, addr);
        begin(&b);
        add_element(&b, NFT_MSG_NEWSETELEM, table, "links", k.link, sizeof k.link);
        add_element(&b, NFT_MSG_NEWSETELEM, table, "sources", &k.source, sizeof k.source);
        for (size_t i = 0; i < dns->n; i++) {
                uint32_t server = htonl(dns->addr[i]);

                add_element(&b, NFT_MSG_NEWSETELEM, table, "resolvers", &server, sizeof server);
        }
        return commit(s, &b, e);
}

int nft_source_del(struct nl_sock *s, const char *table, const char *link, uint32_t addr,
                   struct err *e)
{
        struct nl_batch b;
        struct keys k;
        int r;

        make_keys(&k, link, addr);
        r = has_element(s, table, "sources", &k.source, sizeof k.source, e);
        if (r <= 0)
                return r;
        begin(&b);
        add_element(&b, NFT_MSG_NEWSETELEM, table, "released", &k.source.addr,
                    sizeof k.source.addr);
        add_element(&b, NFT_MSG_DELSETELEM, table, "sources", &k.source, sizeof k.source);
        r = commit(s, &b, e);
        return r == -ENOENT ? 0 : r; /* somebody was faster, or took the table away */
}

int nft_link_del(struct nl_sock *s, const char *table, const char *link, struct err *e)
{
        struct nl_batch b;
        struct keys k;
        int r;

        make_keys(&k, link, 0);
        begin(&b);
        /* deleting what is not there would be an error, so it is there first */
        add_element(&b, NFT_MSG_NEWSETELEM, table, "links", k.link, sizeof k.link);
        add_element(&b, NFT_MSG_DELSETELEM, table, "links", k.link, sizeof k.link);
        r = commit(s, &b, e);
        return r == -ENOENT ? 0 : r; /* no table, no element */
}

int nft_table_del(struct nl_sock *s, const char *table, struct err *e)
{
        struct nl_batch b;
        int r;

        begin(&b);
        add_table_message(&b, NFT_MSG_DELTABLE, 0, "delete firewall table");
        mnl_attr_put_strz(b.cur, NFTA_TABLE_NAME, table);
        r = commit(s, &b, e);
        return r == -ENOENT ? 0 : r;
}

/* What the listings gather: keys made of a link's name, an address, or both. */
struct gather {
        struct nft_element *at;
        size_t n, cap, name_len, addr_len;
};

static int keep_key(struct gather *g, const uint8_t *key, size_t len)
{
        struct nft_element el = { .addr = 0 };
        uint32_t addr = 0;

        if (len < g->name_len + g->addr_len)
                return 0;
        memcpy(el.link, key, g->name_len);
        el.link[sizeof el.link - 1] = '\0';
        memcpy(&addr, key + g->name_len, g->addr_len);
        el.addr = ntohl(addr);
        for (size_t i = 0; i < g->n && !g->addr_len; i++)
                if (strcmp(g->at[i].link, el.link) == 0)
                        return 0; /* known with its address */
        if (g->n == g->cap) {
                size_t cap = g->cap ? g->cap * 2 : 32;
                struct nft_element *at = reallocarray(g->at, cap, sizeof *at);

                if (!at)
                        return -ENOMEM;
                g->at = at;
                g->cap = cap;
        }
        g->at[g->n++] = el;
        return 0;
}

static int on_elements(const struct nlmsghdr *h, void *arg)
{
        struct nl_attrs top = nl_attrs_of(h, sizeof(struct nfgenmsg)), list;
        const struct nlattr *a, *el, *key, *v;

        while ((a = nl_attr_next(&top))) {
                if (mnl_attr_get_type(a) != NFTA_SET_ELEM_LIST_ELEMENTS)
                        continue;
                list = nl_attrs_in(a);
                while ((el = nl_attr_next(&list))) {
                        key = nl_attr_find(nl_attrs_in(el), NFTA_SET_ELEM_KEY);
                        v = nl_attr_find(nl_attrs_in(key), NFTA_DATA_VALUE);
                        if (v && keep_key(arg, mnl_attr_get_payload(v),
                                          mnl_attr_get_payload_len(v)) < 0) {
                                errno = ENOMEM;
                                return MNL_CB_ERROR;
                        }
                }
        }
        return MNL_CB_OK;
}

static int list_set(struct nl_sock *s, const char *table, const char *set, struct gather *g,
                    struct err *e)
{
        struct nl_batch b;
        int r;

        nl_batch_init(&b);
        add_table_message(&b, NFT_MSG_GETSETELEM, NLM_F_DUMP, "list firewall set");
        mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_TABLE, table);
        mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_SET, set);
        r = nl_query(s, &b, on_elements, g, e);
        return r == -ENOENT ? 0 : r;
}

int nft_elements(struct nl_sock *s, const char *table, struct nft_element **ret, size_t *ret_n,
                 struct err *e)
{
        struct gather g = { 0 };
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < 20; i++) { /* -EINTR: changed meanwhile */
                g.n = 0;
                g.name_len = IFNAME_BYTES;
                g.addr_len = sizeof(uint32_t);
                r = list_set(s, table, "sources", &g, e);
                g.addr_len = 0;
                if (r >= 0)
                        r = list_set(s, table, "links", &g, e);
        }
        if (r < 0) {
                free(g.at);
                return r;
        }
        *ret = g.at;
        *ret_n = g.n;
        return 0;
}

/* A set of one number each, turned to host byte order. */
static int list_addrs(struct nl_sock *s, const char *table, const char *set, uint32_t **ret,
                      size_t *ret_n, struct err *e)
{
        struct gather g = { .addr_len = sizeof(uint32_t) };
        uint32_t *addrs;
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < 20; i++) {
                g.n = 0;
                r = list_set(s, table, set, &g, e);
        }
        addrs = r < 0 ? NULL : calloc(g.n + 1, sizeof *addrs);
        for (size_t i = 0; addrs && i < g.n; i++)
                addrs[i] = g.at[i].addr;
        free(g.at);
        if (r < 0)
                return r;
        if (!addrs)
                return err_set(e, -ENOMEM, "list firewall set");
        *ret = addrs;
        *ret_n = g.n;
        return 0;
}

int nft_released(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n, struct err *e)
{
        return list_addrs(s, table, "released", ret, ret_n, e);
}

int nft_is_released(struct nl_sock *s, const char *table, uint32_t addr, struct err *e)
{
        uint32_t key = htonl(addr);

        return has_element(s, table, "released", &key, sizeof key, e);
}

int nft_released_del(struct nl_sock *s, const char *table, const uint32_t *addr, size_t n,
                     struct err *e)
{
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n;) {
                struct nl_batch b;

                begin(&b);
                for (int k = 0; k < 2 && i < n; k++, i++) {
                        uint32_t key = htonl(addr[i]);

                        add_element(&b, NFT_MSG_NEWSETELEM, table, "released", &key, sizeof key);
                        add_element(&b, NFT_MSG_DELSETELEM, table, "released", &key, sizeof key);
                }
                r = commit(s, &b, e);
        }
        return r == -ENOENT ? 0 : r;
}

/* ---- fetchers ---- */

int nft_fetcher_add(struct nl_sock *s, const char *table, uint32_t id_base, struct err *e)
{
        struct nl_batch b;

        begin(&b);
        add_element(&b, NFT_MSG_NEWSETELEM, table, "fetchers", &id_base, sizeof id_base);
        return commit(s, &b, e);
}

int nft_fetcher_del(struct nl_sock *s, const char *table, uint32_t id_base, struct err *e)
{
        struct nl_batch b;
        int r;

        begin(&b);
        /* deleting what is not there would be an error, so it is there first */
        add_element(&b, NFT_MSG_NEWSETELEM, table, "fetchers", &id_base, sizeof id_base);
        add_element(&b, NFT_MSG_DELSETELEM, table, "fetchers", &id_base, sizeof id_base);
        r = commit(s, &b, e);
        return r == -ENOENT ? 0 : r;
}

/* Parts of a concatenation are padded to four bytes each. */
struct fetch_tail {
        uint8_t proto, pad[3];
        in_port_t port;
        uint8_t pad2[2];
};

int nft_fetch_allow(struct nl_sock *s, const char *table, const struct sockaddr *to, bool dns,
                    struct err *e)
{
        struct {
                struct in_addr addr;
                struct fetch_tail tail;
        } key4 = { .tail.proto = IPPROTO_TCP };
        struct {
                struct in6_addr addr;
                struct fetch_tail tail;
        } key6 = { .tail.proto = IPPROTO_TCP };
        bool v6 = to->sa_family == AF_INET6;
        const char *set = v6 ? "fetch_to6" : "fetch_to4";
        const void *key = v6 ? (const void *) &key6 : &key4;
        size_t len = v6 ? sizeof key6 : sizeof key4;
        struct nl_batch b;

        static_assert(sizeof key4 == 12 && sizeof key6 == 24, "as the kernel lays them out");
        if (v6) {
                struct sockaddr_in6 in6;

                memcpy(&in6, to, sizeof in6);
                key6.addr = in6.sin6_addr;
                key6.tail.port = in6.sin6_port;
        } else {
                struct sockaddr_in in;

                memcpy(&in, to, sizeof in);
                key4.addr = in.sin_addr;
                key4.tail.port = in.sin_port;
        }
        begin(&b);
        add_element(&b, NFT_MSG_NEWSETELEM, table, set, key, len);
        if (dns) {
                key4.tail.proto = key6.tail.proto = IPPROTO_UDP;
                add_element(&b, NFT_MSG_NEWSETELEM, table, set, key, len);
        }
        return commit(s, &b, e);
}

int nft_fetch_reset(struct nl_sock *s, const char *table, struct err *e)
{
        static const char *const sets[] = { "fetchers", "fetch_to4", "fetch_to6" };
        struct nl_batch b;

        begin(&b);
        for (size_t i = 0; i < NELEM(sets); i++) { /* no element named: all of them */
                add_table_message(&b, NFT_MSG_DELSETELEM, 0, "empty firewall set");
                mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_TABLE, table);
                mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_SET, sets[i]);
        }
        return commit(s, &b, e);
}

int nft_fetchers(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n, struct err *e)
{
        int r = list_addrs(s, table, "fetchers", ret, ret_n, e);

        for (size_t i = 0; r >= 0 && i < *ret_n; i++)
                (*ret)[i] = htonl((*ret)[i]); /* ids are in host byte order there */
        return r;
}

static int on_table(const struct nlmsghdr *h, void *arg)
{
        const struct nlattr *a =
                nl_attr_find(nl_attrs_of(h, sizeof(struct nfgenmsg)), NFTA_TABLE_NAME);
        char ***names = arg;

        if (!a || mnl_attr_validate(a, MNL_TYPE_NUL_STRING) < 0 ||
            strncmp(mnl_attr_get_str(a), NFT_TABLE_PREFIX, strlen(NFT_TABLE_PREFIX)) != 0)
                return MNL_CB_OK;
        if (strv_push(names, mnl_attr_get_str(a)) >= 0)
                return MNL_CB_OK;
        errno = ENOMEM;
        return MNL_CB_ERROR;
}

int nft_tables(struct nl_sock *s, char ***ret, struct err *e)
{
        AUTO(strv_free) char **names = NULL;
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < 20; i++) {
                struct nl_batch b;

                names = strv_free(names);
                nl_batch_init(&b);
                add_table_message(&b, NFT_MSG_GETTABLE, NLM_F_DUMP, "list firewall tables");
                r = nl_query(s, &b, on_table, &names, e);
        }
        if (r >= 0)
                *ret = TAKE(names);
        return r;
}
