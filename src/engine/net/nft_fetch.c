/* nft_fetch.c - see nft.h: the fetchers' sets.  Operation processes, and the engine at its start. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "engine/net/nft_priv.h"

int nft_fetcher_add(struct nl_sock *s, const char *table, uint32_t id_base, struct err *e)
{
        struct nl_batch b;

        nft_begin(&b);
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "fetchers", &id_base, sizeof id_base);
        return nft_commit(s, &b, e);
}

int nft_fetcher_del(struct nl_sock *s, const char *table, uint32_t id_base, struct err *e)
{
        struct nl_batch b;
        int r;

        nft_begin(&b);
        /* deleting what is not there would be an error, so it is there first */
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, "fetchers", &id_base, sizeof id_base);
        nft_element_of(&b, NFT_MSG_DELSETELEM, table, "fetchers", &id_base, sizeof id_base);
        r = nft_commit(s, &b, e);
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
        nft_begin(&b);
        nft_element_of(&b, NFT_MSG_NEWSETELEM, table, set, key, len);
        if (dns) {
                key4.tail.proto = key6.tail.proto = IPPROTO_UDP;
                nft_element_of(&b, NFT_MSG_NEWSETELEM, table, set, key, len);
        }
        return nft_commit(s, &b, e);
}

int nft_fetch_reset(struct nl_sock *s, const char *table, struct err *e)
{
        static const char *const sets[] = { "fetchers", "fetch_to4", "fetch_to6" };
        struct nl_batch b;

        nft_begin(&b);
        for (size_t i = 0; i < NELEM(sets); i++) { /* no element named: all of them */
                nft_message(&b, NFT_MSG_DELSETELEM, 0, "empty firewall set");
                mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_TABLE, table);
                mnl_attr_put_strz(b.cur, NFTA_SET_ELEM_LIST_SET, sets[i]);
        }
        return nft_commit(s, &b, e);
}

int nft_fetchers(struct nl_sock *s, const char *table, uint32_t **ret, size_t *ret_n, struct err *e)
{
        return nft_numbers(s, table, "fetchers", ret, ret_n,
                           e); /* ids are in host byte order there */
}
