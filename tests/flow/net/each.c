/* each.c - see each.h.  Looks behind net.h, at what lease.c and net.c made. */
#include "each.h"

#include "engine/net/net_priv.h"

int net_each(struct net_host *h, net_each_fn *fn, void *arg)
{
        AUTO(free) struct rtnl_link *links = NULL;
        AUTO(free) struct nft_element *el = NULL;
        size_t n_links = 0, n_el = 0;
        int r = net_sockets(h, NULL);

        if (r >= 0)
                r = rtnl_links(&h->rtnl, &links, &n_links, NULL);
        if (r >= 0)
                r = nft_elements(&h->nft, h->table, &el, &n_el, NULL);
        for (size_t i = 0; r >= 0 && i < n_links; i++)
                if (links[i].group == h->group)
                        r = fn(arg, "link", links[i].name, net_link_slot(links[i].name));
                else if (links[i].group == (h->group | NET_GROUP_DEAD))
                        r = fn(arg, "dead link", links[i].name, net_link_slot(links[i].name));
        for (size_t i = 0; r >= 0 && i < n_el; i++)
                r = fn(arg, "element", el[i].link, net_link_slot(el[i].link));
        return r;
}
