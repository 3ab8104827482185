/* rtnl_list.c - the listings of rtnl.h.  A dump that the kernel says was overtaken by a change is
 * asked again from the start, so that a caller sees one state. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/net/rtnl.h"

#define DUMP_TRIES 20

struct list {
        size_t size, n, cap; /* of one element; elements; room */
        uint8_t *at;
        /* Fill the zeroed element from a message: 1 keep it, 0 not wanted. */
        int (*read)(const struct nlmsghdr *h, void *element);
};

static int collect(const struct nlmsghdr *h, void *arg)
{
        struct list *l = arg;

        if (l->n == l->cap) {
                size_t cap = l->cap ? l->cap * 2 : 32;
                uint8_t *at = reallocarray(l->at, cap, l->size);

                if (!at) {
                        errno = ENOMEM;
                        return MNL_CB_ERROR;
                }
                l->at = at;
                l->cap = cap;
        }
        memset(l->at + l->n * l->size, 0, l->size);
        if (l->read(h, l->at + l->n * l->size) > 0)
                l->n++;
        return MNL_CB_OK;
}

/* All of one kind.  On success *@l owns the array. */
static int dump(struct nl_sock *s, unsigned type, size_t header, uint8_t family, const char *what,
                struct list *l, struct err *e)
{
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < DUMP_TRIES; i++) {
                struct nl_batch b;
                uint8_t *first;

                l->n = 0;
                nl_batch_init(&b);
                first = nl_add(&b, type, NLM_F_DUMP, header, what, 0);
                *first = family; /* every rtnetlink header begins with it */
                r = nl_query(s, &b, collect, l, e);
        }
        if (r < 0)
                free(TAKE(l->at));
        return r;
}

static void copy_name(char to[static IF_NAMESIZE], const struct nlattr *a)
{
        size_t len = mnl_attr_get_payload_len(a);

        memcpy(to, mnl_attr_get_payload(a), len < IF_NAMESIZE ? len : IF_NAMESIZE - 1);
}

static int read_link(const struct nlmsghdr *h, void *element)
{
        const struct ifinfomsg *ifi = mnl_nlmsg_get_payload(h);
        struct nl_attrs it = nl_attrs_of(h, sizeof *ifi);
        struct rtnl_link *l = element;
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWLINK)
                return 0;
        l->index = (uint32_t) ifi->ifi_index;
        l->up = ifi->ifi_flags & IFF_UP;
        while ((a = nl_attr_next(&it))) {
                if (mnl_attr_get_type(a) == IFLA_IFNAME)
                        copy_name(l->name, a);
                else if (mnl_attr_get_type(a) == IFLA_GROUP)
                        l->group = mnl_attr_get_u32(a);
        }
        return 1;
}

int rtnl_links(struct nl_sock *s, struct rtnl_link **ret, size_t *ret_n, struct err *e)
{
        struct list l = { .size = sizeof(struct rtnl_link), .read = read_link };
        int r = dump(s, RTM_GETLINK, sizeof(struct ifinfomsg), AF_UNSPEC, "list links", &l, e);

        if (r < 0)
                return r;
        *ret = (void *) l.at;
        *ret_n = l.n;
        return 0;
}

static int take_link(const struct nlmsghdr *h, void *arg)
{
        memset(arg, 0, sizeof(struct rtnl_link));
        (void) read_link(h, arg);
        return MNL_CB_OK;
}

int rtnl_link_get(struct nl_sock *s, const char *name, struct rtnl_link *ret, struct err *e)
{
        struct ifinfomsg *ifi;
        struct rtnl_link got = { 0 };
        struct nl_batch b;
        int r;

        nl_batch_init(&b);
        ifi = nl_add(&b, RTM_GETLINK, 0, sizeof *ifi, "look up link", 0);
        ifi->ifi_family = AF_UNSPEC;
        mnl_attr_put_strz(b.cur, IFLA_IFNAME, name);
        r = nl_query(s, &b, take_link, &got, e);
        if (r < 0)
                return r;
        *ret = got;
        return 0;
}

static int read_addr(const struct nlmsghdr *h, void *element)
{
        const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(h);
        struct nl_attrs it = nl_attrs_of(h, sizeof *ifa);
        struct rtnl_addr *x = element;
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWADDR || ifa->ifa_family != AF_INET)
                return 0;
        x->index = ifa->ifa_index;
        x->bits = ifa->ifa_prefixlen;
        while ((a = nl_attr_next(&it))) {
                if (mnl_attr_get_type(a) == IFA_LOCAL)
                        x->addr = ntohl(mnl_attr_get_u32(a));
                else if (mnl_attr_get_type(a) == IFA_LABEL)
                        copy_name(x->label, a);
        }
        return 1;
}

int rtnl_addrs(struct nl_sock *s, struct rtnl_addr **ret, size_t *ret_n, struct err *e)
{
        struct list l = { .size = sizeof(struct rtnl_addr), .read = read_addr };
        int r = dump(s, RTM_GETADDR, sizeof(struct ifaddrmsg), AF_INET, "list addresses", &l, e);

        if (r < 0)
                return r;
        *ret = (void *) l.at;
        *ret_n = l.n;
        return 0;
}

static int read_route(const struct nlmsghdr *h, void *element)
{
        const struct rtmsg *rt = mnl_nlmsg_get_payload(h);
        struct nl_attrs it = nl_attrs_of(h, sizeof *rt);
        struct rtnl_route *x = element;
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWROUTE || rt->rtm_family != AF_INET)
                return 0;
        x->bits = rt->rtm_dst_len;
        x->type = rt->rtm_type;
        x->table = rt->rtm_table;
        while ((a = nl_attr_next(&it))) {
                if (mnl_attr_get_type(a) == RTA_DST)
                        x->dst = ntohl(mnl_attr_get_u32(a));
                else if (mnl_attr_get_type(a) == RTA_OIF)
                        x->index = mnl_attr_get_u32(a);
                else if (mnl_attr_get_type(a) == RTA_TABLE)
                        x->table = mnl_attr_get_u32(a);
        }
        return 1;
}

int rtnl_routes(struct nl_sock *s, struct rtnl_route **ret, size_t *ret_n, struct err *e)
{
        struct list l = { .size = sizeof(struct rtnl_route), .read = read_route };
        int r = dump(s, RTM_GETROUTE, sizeof(struct rtmsg), AF_INET, "list routes", &l, e);

        if (r < 0)
                return r;
        *ret = (void *) l.at;
        *ret_n = l.n;
        return 0;
}

static int read_addr6(const struct nlmsghdr *h, void *element)
{
        const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(h);
        const struct nlattr *a = nl_attr_find(nl_attrs_of(h, sizeof *ifa), IFA_ADDRESS);
        struct rtnl_addr6 *x = element;

        if (h->nlmsg_type != RTM_NEWADDR || ifa->ifa_family != AF_INET6 || !a ||
            mnl_attr_get_payload_len(a) != sizeof x->addr)
                return 0;
        x->index = ifa->ifa_index;
        memcpy(x->addr, mnl_attr_get_payload(a), sizeof x->addr);
        return 1;
}

/* A kernel without IPv6 answers for all families, or says that it knows none such. */
int rtnl_addrs6(struct nl_sock *s, struct rtnl_addr6 **ret, size_t *ret_n, struct err *e)
{
        struct list l = { .size = sizeof(struct rtnl_addr6), .read = read_addr6 };
        int r = dump(s, RTM_GETADDR, sizeof(struct ifaddrmsg), AF_INET6, "list addresses", &l, e);

        if (r < 0 && r != -EAFNOSUPPORT && r != -EOPNOTSUPP)
                return r;
        *ret = (void *) l.at;
        *ret_n = r < 0 ? 0 : l.n;
        return 0;
}

static int read_route6(const struct nlmsghdr *h, void *element)
{
        const struct rtmsg *rt = mnl_nlmsg_get_payload(h);
        struct nl_attrs it = nl_attrs_of(h, sizeof *rt);
        struct rtnl_route6 *x = element;
        const struct nlattr *a;

        if (h->nlmsg_type != RTM_NEWROUTE || rt->rtm_family != AF_INET6)
                return 0;
        x->bits = rt->rtm_dst_len;
        x->type = rt->rtm_type;
        x->protocol = rt->rtm_protocol;
        while ((a = nl_attr_next(&it))) {
                if (mnl_attr_get_type(a) == RTA_DST && mnl_attr_get_payload_len(a) == sizeof x->dst)
                        memcpy(x->dst, mnl_attr_get_payload(a), sizeof x->dst);
                else if (mnl_attr_get_type(a) == RTA_OIF)
                        x->index = mnl_attr_get_u32(a);
        }
        return 1;
}

int rtnl_routes6(struct nl_sock *s, struct rtnl_route6 **ret, size_t *ret_n, struct err *e)
{
        struct list l = { .size = sizeof(struct rtnl_route6), .read = read_route6 };
        int r = dump(s, RTM_GETROUTE, sizeof(struct rtmsg), AF_INET6, "list routes", &l, e);

        if (r < 0)
                return r;
        *ret = (void *) l.at;
        *ret_n = l.n;
        return 0;
}
