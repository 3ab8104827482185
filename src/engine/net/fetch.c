/* fetch.c - see net.h: the firewall around vmm-fetch.  Operation processes.
 *
 * What always holds: a range of ids is in at most one instance's table while somebody uses it.  Who
 * has claimed one may therefore take it out of all the others, where a kill has left it: their rules
 * know other registries, and "drop" of any table is final. */
#include <errno.h>

#include "base/str.h"
#include "engine/net/net.h"
#include "engine/net/net_priv.h"

static int leave_others(struct net_host *h, uint32_t id_base, struct err *e)
{
        AUTO(strv_free) char **tables = NULL;
        int r = nft_tables(&h->nft, &tables, e);

        for (char **t = tables; r >= 0 && t && *t; t++)
                if (!str_eq(*t, h->table))
                        r = nft_fetcher_del(&h->nft, *t, id_base, e);
        return r;
}

int net_fetch_confine(struct net_host *h, uint32_t id_base, struct err *e)
{
        int r = net_sockets(h, e);

        if (r >= 0)
                r = leave_others(h, id_base, e);
        if (r >= 0)
                r = nft_fetcher_add(&h->nft, h->table, id_base, e);
        if (r == -ENOENT) {
                r = net_table_gone(h, e);
                if (r >= 0)
                        r = nft_fetcher_add(&h->nft, h->table, id_base, e);
        }
        return r;
}

int net_fetch_release(struct net_host *h, uint32_t id_base, struct err *e)
{
        int r = net_sockets(h, e);

        return r < 0 ? r : nft_fetcher_del(&h->nft, h->table, id_base, e);
}

int net_fetch_allow(struct net_host *h, const struct sockaddr *to, bool dns, struct err *e)
{
        int r = net_sockets(h, e);

        if (r >= 0)
                r = nft_fetch_allow(&h->nft, h->table, to, dns, e);
        if (r == -ENOENT) {
                r = net_table_gone(h, e);
                if (r >= 0)
                        r = nft_fetch_allow(&h->nft, h->table, to, dns, e);
        }
        return r;
}

int net_fetch_list(struct net_host *h, uint32_t **ret, size_t *ret_n, struct err *e)
{
        int r = net_sockets(h, e);

        return r < 0 ? r : nft_fetchers(&h->nft, h->table, ret, ret_n, e);
}
