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
#define TUPLE_BYTES  128U
#define DELETE_BATCH (NL_BATCH_BYTES / NL_MSG_BYTES - 1U)

/* What names one entry, as the kernel wrote it. */
struct entry {
        uint8_t tuple[TUPLE_BYTES]; /* payload of CTA_TUPLE_ORIG */
        uint16_t tuple_len, zone;   /* zone in network byte order; 0: none */
        uint32_t id;
};

struct sweep {
        const uint32_t *addr;
        size_t n_addr;
        struct entry *at;
        size_t n, cap;
};

static int by_addr(const void *a, const void *b)
{
        const uint32_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

/* Is the source or the destination of this tuple one of the addresses? */
static bool concerns(const struct sweep *w, const struct nlattr *tuple)
{
        const struct nlattr *ip = nl_attr_find(nl_attrs_in(tuple), CTA_TUPLE_IP);

        for (uint16_t type = CTA_IP_V4_SRC; type <= CTA_IP_V4_DST; type++) {
                const struct nlattr *a = nl_attr_find(nl_attrs_in(ip), type);
                uint32_t addr;

                if (!a || mnl_attr_get_payload_len(a) != sizeof addr)
                        continue;
                addr = ntohl(mnl_attr_get_u32(a));
                if (bsearch(&addr, w->addr, w->n_addr, sizeof addr, by_addr))
                        return true;
        }
        return false;
}

static int on_entry(const struct nlmsghdr *h, void *arg)
{
        struct nl_attrs all = nl_attrs_of(h, sizeof(struct nfgenmsg));
        const struct nlattr *orig = nl_attr_find(all, CTA_TUPLE_ORIG),
                            *reply = nl_attr_find(all, CTA_TUPLE_REPLY),
                            *id = nl_attr_find(all, CTA_ID), *zone = nl_attr_find(all, CTA_ZONE);
        struct sweep *w = arg;
        struct entry *el;

        if (!orig || !id || mnl_attr_get_payload_len(orig) > TUPLE_BYTES ||
            !(concerns(w, orig) || concerns(w, reply)))
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
        el->zone = zone ? mnl_attr_get_u16(zone) : 0;
        return MNL_CB_OK;
}

static void add_message(struct nl_batch *b, unsigned type, unsigned flags, int ignore)
{
        struct nfgenmsg *nf = nl_add(b, NFNL_SUBSYS_CTNETLINK << 8 | type, flags, sizeof *nf,
                                     "connection table", ignore);

        nf->nfgen_family = AF_INET;
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
                add_message(&b, IPCTNL_MSG_CT_GET, NLM_F_DUMP, 0);
                r = nl_query(s, &b, on_entry, w, e);
        }
        return r;
}

int ct_sweep(struct nl_sock *s, const uint32_t *addr, size_t n, struct err *e)
{
        struct sweep w = { .addr = addr, .n_addr = n };
        struct nl_batch b;
        int r = n > 0 ? collect(s, &w, e) : 0;

        nl_batch_init(&b);
        for (size_t i = 0; r >= 0 && i < w.n; i++) {
                const struct entry *el = &w.at[i];

                add_message(&b, IPCTNL_MSG_CT_DELETE, 0, ENOENT); /* it may end by itself */
                mnl_attr_put(b.cur, CTA_TUPLE_ORIG | NLA_F_NESTED, el->tuple_len, el->tuple);
                mnl_attr_put(b.cur, CTA_ID, sizeof el->id, &el->id);
                if (el->zone)
                        mnl_attr_put(b.cur, CTA_ZONE, sizeof el->zone, &el->zone);
                if (b.n == DELETE_BATCH || i + 1 == w.n)
                        r = nl_commit(s, &b, e);
        }
        free(w.at);
        return r;
}
