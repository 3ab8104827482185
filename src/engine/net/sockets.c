/* sockets.c - ending what programs of this host, the edge above all, have open to a cluster that is gone.
 * Operation processes.
 *
 * The address may be the next cluster's in a moment.  An established connection could not reach that one,
 * whose kernel side knows nothing of it; but one that is still being opened sends its SYN again, and would be
 * opened there.  So an address is let go of when a list of the host's sockets shows none to it. */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/net/net_priv.h"

/* All states in which a packet may still be sent. */
#define LIVE_STATES (0xfffU & ~(1U << TCP_TIME_WAIT | 1U << TCP_LISTEN | 1U << TCP_CLOSE))
#define ROUNDS      20

/* Sockets of @family with that peer: those of IPv6 may have one of IPv4, too ("::ffff:10.88.0.2"), which the kernel's filter
 * knows. */
struct peer {
        uint8_t family, addr_family;
        uint8_t addr[IPV6_BYTES]; /* of IPv4: the first four */
};

/* "peer == address, any port", as the kernel's filter wants it. */
struct peer_filter {
        struct inet_diag_bc_op op;
        uint8_t family, prefix_len;
        uint16_t pad;
        int32_t port;
        uint8_t addr[IPV6_BYTES];
};
static_assert(sizeof(struct peer_filter) == sizeof(struct inet_diag_bc_op) +
                                                    sizeof(struct inet_diag_hostcond) + IPV6_BYTES,
              "linux/inet_diag.h");

struct found {
        struct inet_diag_sockid *id;
        size_t n, cap;
};

static int on_socket(const struct nlmsghdr *h, void *arg)
{
        const struct inet_diag_msg *m = mnl_nlmsg_get_payload(h);
        struct found *f = arg;

        if (h->nlmsg_len < mnl_nlmsg_size(sizeof *m))
                return MNL_CB_OK;
        if (f->n == f->cap) {
                size_t cap = f->cap ? 2 * f->cap : 16;
                struct inet_diag_sockid *more = reallocarray(f->id, cap, sizeof *more);

                if (!more) {
                        errno = ENOMEM;
                        return MNL_CB_ERROR;
                }
                f->id = more;
                f->cap = cap;
        }
        f->id[f->n++] = m->id;
        return MNL_CB_OK;
}

static int list(struct nl_sock *s, const struct peer *p, struct found *ret, struct err *e)
{
        const uint8_t len = p->addr_family == AF_INET ? sizeof(uint32_t) : IPV6_BYTES;
        const uint8_t whole = (uint8_t) (sizeof(struct peer_filter) - IPV6_BYTES + len);
        struct peer_filter filter = {
                .op = { .code = INET_DIAG_BC_D_COND, .yes = whole, .no = (uint16_t) (whole + 4) },
                .family = p->addr_family,
                .prefix_len = (uint8_t) (8 * len),
                .port = -1
        };
        struct nl_batch b;
        int r;

        memcpy(filter.addr, p->addr, len);
        for (int i = 0; i < ROUNDS; i++) { /* a list during which the table changed is read again */
                struct inet_diag_req_v2 *req;

                nl_batch_init(&b);
                req = nl_add(&b, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, sizeof *req, "list of sockets",
                             0);
                req->sdiag_family = p->family;
                req->sdiag_protocol = IPPROTO_TCP;
                req->idiag_states = LIVE_STATES;
                mnl_attr_put(b.cur, INET_DIAG_REQ_BYTECODE, whole, &filter);
                ret->n = 0;
                r = nl_query(s, &b, on_socket, ret, e);
                if (r != -EINTR)
                        return r;
        }
        return r;
}

static int destroy(struct nl_sock *s, const struct peer *p, const struct found *f, struct err *e)
{
        struct nl_batch b;
        int r = 0;

        nl_batch_init(&b);
        for (size_t i = 0; r >= 0 && i < f->n; i++) {
                struct inet_diag_req_v2 *req = nl_add(&b, SOCK_DESTROY, NLM_F_ACK, sizeof *req,
                                                      "end of a connection", ENOENT);

                req->sdiag_family = p->family;
                req->sdiag_protocol = IPPROTO_TCP;
                req->idiag_states = LIVE_STATES;
                req->id = f->id[i];
                if (b.n == NL_BATCH_MSGS / 2 || i + 1 == f->n)
                        r = nl_commit(s, &b, e);
        }
        return r;
}

static int end(struct nl_sock *s, const struct peer *p, struct found *f, struct err *e)
{
        int r = 0;

        for (int i = 0; r >= 0 && i < ROUNDS; i++) {
                r = list(s, p, f, e);
                if (r < 0 || f->n == 0)
                        return r;
                r = destroy(s, p, f, e);
        }
        return r < 0 ? r : err_set(e, -EBUSY, "some program of this host keeps connecting to it");
}

int net_end_sockets(struct net_host *h, uint32_t slot, struct err *e)
{
        const uint32_t v4 = htonl(ipv4_of_slot(&h->pool, slot));
        struct peer peer[] = { { .family = AF_INET, .addr_family = AF_INET },
                               { .family = AF_INET6, .addr_family = AF_INET },
                               { .family = AF_INET6, .addr_family = AF_INET6 } };
        AUTO(nl_sock_close) struct nl_sock s = { .mnl = NULL };
        size_t n = h->pool6.on ? NELEM(peer) : NELEM(peer) - 1;
        struct found f = { .n = 0 };
        int r = nl_sock_open(&s, NETLINK_SOCK_DIAG, e);

        memcpy(peer[0].addr, &v4, sizeof v4);
        memcpy(peer[1].addr, &v4, sizeof v4);
        ipv6_of_slot(&h->pool6, slot, peer[2].addr);
        for (size_t i = 0; r >= 0 && i < n; i++)
                r = end(&s, &peer[i], &f, e);
        free(f.id);
        return r;
}
