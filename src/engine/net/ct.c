/* ct.c - see ct.h.  Operation processes.  Always holds: an entry is deleted by its own tuple and
 * id, so one that came into being meanwhile is never hit. */
#include "engine/net/ct.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SWEEP_TRIES  20
#define DNS_PORT     53
#define TUPLE_BYTES  128U
#define DELETE_BATCH (NL_BATCH_BYTES / NL_MSG_BYTES - 1U)

/* What names one entry, as the kernel wrote it. */
struct entry {
        uint8_t tuple[TUPLE_BYTES]; /* payload of CTA_TUPLE_ORIG */
        uint16_t tuple_len, zone;   /* zone in network byte order; 0: none */
        uint8_t family;
        uint32_t id;
};

struct sweep {
        const struct ct_addrs *addrs;   /* whose all connections end; or NULL, and */
        const struct ct_listed *listed; /* whose unlisted ones do */
        struct entry *at;
        size_t n, cap;
};

static int by_addr(const void *a, const void *b)
{
        const uint32_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

/* The IPv4 address that stands for the slot of this one, of either family; 0: none's. */
static uint32_t addr_of(const struct ct_addrs *x, const struct nlattr *a)
{
        uint32_t slot;

        if (a && mnl_attr_get_payload_len(a) == sizeof(uint32_t))
                return ntohl(mnl_attr_get_u32(a));
        if (!a || mnl_attr_get_payload_len(a) != IPV6_BYTES)
                return 0;
        slot = ipv6_slot_of(x->pool6, mnl_attr_get_payload(a));
        return slot ? ipv4_of_slot(x->pool, slot) : 0;
}

/* Is the source or the destination of this tuple one of the addresses? */
static bool concerns(const struct sweep *w, const struct nlattr *tuple)
{
        static const uint16_t ends[] = { CTA_IP_V4_SRC, CTA_IP_V4_DST, CTA_IP_V6_SRC,
                                         CTA_IP_V6_DST };
        const struct nlattr *ip = nl_attr_find(nl_attrs_in(tuple), CTA_TUPLE_IP);

        for (size_t i = 0; i < NELEM(ends); i++) {
                uint32_t addr = addr_of(w->addrs, nl_attr_find(nl_attrs_in(ip), ends[i]));

                if (addr && bsearch(&addr, w->addrs->v4, w->addrs->n, sizeof addr, by_addr))
                        return true;
        }
        return false;
}

/* Where an end of a connection is. */
static bool place_of(const struct nlattr *ip, uint16_t v4, uint16_t v6, struct network *ret)
{
        const struct nlattr *a4 = nl_attr_find(nl_attrs_in(ip), v4),
                            *a6 = nl_attr_find(nl_attrs_in(ip), v6);
        const struct nlattr *a = a4 ? a4 : a6;
        struct network n = { .v6 = !a4, .bits = a4 ? 32 : 128 };

        if (!a || mnl_attr_get_payload_len(a) != n.bits / 8)
                return false;
        memcpy(n.addr, mnl_attr_get_payload(a), n.bits / 8);
        *ret = n;
        return true;
}

static uint32_t as_ipv4(const struct network *n)
{
        uint32_t v;

        memcpy(&v, n->addr, sizeof v);
        return ntohl(v);
}

/* What the firewall accepts before it looks at any list. */
static bool is_free(const struct ct_listed *x, const struct nlattr *tuple, const struct network *to)
{
        const struct nlattr *port = nl_attr_find(
                nl_attrs_in(nl_attr_find(nl_attrs_in(tuple), CTA_TUPLE_PROTO)), CTA_PROTO_DST_PORT);

        if (to->v6)
                return x->pool6->on &&
                       memcmp(to->addr, x->pool6->prefix, sizeof x->pool6->prefix) == 0;
        if (ipv4_within(as_ipv4(to), x->pool->base, x->pool->bits))
                return true;
        for (size_t i = 0; port && i < x->dns->n; i++)
                if (x->dns->addr[i] == as_ipv4(to) && mnl_attr_get_u16(port) == htons(DNS_PORT))
                        return true;
        return false;
}

/* The first packet's direction tells who began it, and what was asked for. */
static bool is_unlisted(const struct ct_listed *x, const struct nlattr *orig)
{
        const struct nlattr *ip = nl_attr_find(nl_attrs_in(orig), CTA_TUPLE_IP);
        struct network from, to;

        if (!place_of(ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC, &from) ||
            !place_of(ip, CTA_IP_V4_DST, CTA_IP_V6_DST, &to) ||
            (from.v6 ? memcmp(from.addr, x->v6, IPV6_BYTES) != 0 : as_ipv4(&from) != x->v4) ||
            is_free(x, orig, &to))
                return false;
        for (size_t i = 0; i < x->egress->n; i++)
                if (network_holds(&x->egress->net[i], &to))
                        return false;
        return true;
}

static bool is_meant(const struct sweep *w, const struct nlattr *orig, const struct nlattr *reply)
{
        return w->listed ? is_unlisted(w->listed, orig) : concerns(w, orig) || concerns(w, reply);
}

static int on_entry(const struct nlmsghdr *h, void *arg)
{
        struct nl_attrs all = nl_attrs_of(h, sizeof(struct nfgenmsg));
        const struct nlattr *orig = nl_attr_find(all, CTA_TUPLE_ORIG),
                            *reply = nl_attr_find(all, CTA_TUPLE_REPLY),
                            *id = nl_attr_find(all, CTA_ID), *zone = nl_attr_find(all, CTA_ZONE);
        const struct nfgenmsg *nf = mnl_nlmsg_get_payload(h);
        struct sweep *w = arg;
        struct entry *el;

        if (!orig || !id || mnl_attr_get_payload_len(orig) > TUPLE_BYTES ||
            !is_meant(w, orig, reply))
                return MNL_CB_OK;
        if (w->n == w->cap) {
                size_t cap = w->cap ? w->cap * 2 : 64;
                struct entry *at = reallocarray(w->at, cap, sizeof *at);

                if (!at) {
                        errno = ENOMEM;
                        return MNL_CB_ERROR;
                }
                w->at = at;
                w->cap = cap;
        }
        el = &w->at[w->n++];
        el->tuple_len = mnl_attr_get_payload_len(orig);
        memcpy(el->tuple, mnl_attr_get_payload(orig), el->tuple_len);
        el->id = mnl_attr_get_u32(id);
        el->family = nf->nfgen_family;
        el->zone = zone ? mnl_attr_get_u16(zone) : 0;
        return MNL_CB_OK;
}

static void add_message(struct nl_batch *b, unsigned type, uint8_t family, unsigned flags,
                        int ignore)
{
        struct nfgenmsg *nf = nl_add(b, NFNL_SUBSYS_CTNETLINK << 8 | type, flags, sizeof *nf,
                                     "connection table", ignore);

        nf->nfgen_family = family;
        nf->version = NFNETLINK_V0;
}

static int collect(struct nl_sock *s, struct sweep *w, struct err *e)
{
        int r = -EINTR;

        for (int i = 0; r == -EINTR && i < SWEEP_TRIES;
             i++) { /* the table changed under the walk */
                struct nl_batch b;

                w->n = 0;
                nl_batch_init(&b);
                add_message(&b, IPCTNL_MSG_CT_GET, AF_UNSPEC, NLM_F_DUMP, 0);
                r = nl_query(s, &b, on_entry, w, e);
        }
        return r;
}

static int end(struct nl_sock *s, struct sweep *w, struct err *e)
{
        struct nl_batch b;
        int r = collect(s, w, e);

        nl_batch_init(&b);
        for (size_t i = 0; r >= 0 && i < w->n; i++) {
                const struct entry *el = &w->at[i];

                add_message(&b, IPCTNL_MSG_CT_DELETE, el->family, 0,
                            ENOENT); /* it may end by itself */
                mnl_attr_put(b.cur, CTA_TUPLE_ORIG | NLA_F_NESTED, el->tuple_len, el->tuple);
                mnl_attr_put(b.cur, CTA_ID, sizeof el->id, &el->id);
                if (el->zone)
                        mnl_attr_put(b.cur, CTA_ZONE, sizeof el->zone, &el->zone);
                if (b.n == DELETE_BATCH || i + 1 == w->n)
                        r = nl_commit(s, &b, e);
        }
        free(w->at);
        return r;
}

int ct_sweep(struct nl_sock *s, const struct ct_addrs *addrs, struct err *e)
{
        struct sweep w = { .addrs = addrs };

        return addrs->n > 0 ? end(s, &w, e) : 0;
}

int ct_end_unlisted(struct nl_sock *s, const struct ct_listed *x, struct err *e)
{
        struct sweep w = { .listed = x };

        return end(s, &w, e);
}
